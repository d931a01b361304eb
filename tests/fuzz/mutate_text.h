/* mutate_text.h - mutants of a module's text form. */
#ifndef CMZ_TESTS_FUZZ_MUTATE_TEXT_H
#define CMZ_TESTS_FUZZ_MUTATE_TEXT_H

#include "../../ir/base.h"

/* TEXT with 1 to MUTATIONS changes; depends only on the arguments. Lives in ARENA. */
cmz_text mutate_text(cmz_arena *arena, const char *text, size_t size, uint64_t seed,
                     uint32_t mutations);

#endif
