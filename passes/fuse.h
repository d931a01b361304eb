/* fuse.h - what fusion and planning agree on. */
#ifndef CMZ_PASSES_FUSE_H
#define CMZ_PASSES_FUSE_H

#include "support.h"

/* Whether N is computed by a described kernel (and not by control flow or the runtime's table). */
bool cmz_fuse_is_kernel(const cmz_node *n);
/* Whether N's output is the bytes of its input, so that it needs no step when its input is stored.
 */
bool cmz_fuse_is_alias(const cmz_module *m, const cmz_node *n);

/* Marks in FUSED what makes attention in graph G one kernel each where a target's work-groups
 * compute it so. BOUND: values that are stored whatever happens. */
cmz_status cmz_fuse_attention(const cmz_pass_run *run, cmz_module *m, cmz_gid g, const bool *bound,
                              bool *fused);

#endif
