/* fuse.h - what fusion and planning agree on. */
#ifndef CMZ_PASSES_FUSE_H
#define CMZ_PASSES_FUSE_H

#include "support.h"

/* Whether N is computed by a described kernel (and not by control flow or the runtime's table). */
bool cmz_fuse_is_kernel(const cmz_node *n);
/* Whether N's output is the bytes of its input, so that it needs no step when its input is stored. */
bool cmz_fuse_is_alias(const cmz_module *m, const cmz_node *n);

#endif
