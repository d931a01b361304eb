/* check.h - --check-passes: the evaluator's outputs before and after each pass. */
#ifndef CMZ_PASSES_CHECK_H
#define CMZ_PASSES_CHECK_H

#include "support.h"

typedef struct cmz_pass_check {
  /* Of the entry graph; outputs as they were after the first checked pass */
  cmz_array *inputs, *outputs;
  uint32_t input_count, output_count;
  bool ready, over; /* over: from here on the module is no longer what the evaluator runs */
} cmz_pass_check;

/* Evaluates M and compares with the outputs before PASS; CMZ_E_INTERNAL names the pass that changed
 * them. */
cmz_status cmz_pass_check_after(cmz_pass_check *check, cmz_pass_run *run, cmz_module *m,
                                const char *pass);
/* Random but reproducible inputs of the entry graph at the hints. */
cmz_status cmz_pass_check_inputs(cmz_module *m, cmz_arena *arena, cmz_array **inputs,
                                 uint32_t *count);
/* Largest difference relative to 1 + |expected|; infinity when shapes or types differ. */
double cmz_pass_check_difference(const cmz_array *expected, const cmz_array *got);

#endif
