/* rules_compose.c - reductions in the order that keeps them exact and parallel. (Normalisations,
 * softmax and activations need not be put together again: their pieces fuse into one kernel as they
 * are.) In, out: see rules.h. */
#include "rules.h"

#define LONG_SUM                                                                                   \
  16384 /* terms: a single-precision sum of more loses digits that its parts would keep */

/* A long sum over several axes is summed over the last one first: shorter sums are more exact, and
 * there are more of them to share among threads. */
static cmz_status reduce_in_steps(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node node = *cmz_node_get(m, n);
  const cmz_type x = cmz_value_get(m, node.inputs[0])->type;
  int64_t axes[CMZ_MAX_RANK], last = -1, terms = 1;
  uint32_t count;
  if (x.dtype != CMZ_F32 || cmz_node_input(&node, 1) == 0 ||
      !cmz_const_i64s(m, node.inputs[1], axes, CMZ_MAX_RANK, &count) || count < 2)
    return CMZ_OK;
  for (uint32_t i = 0; i < count; i++) {
    if (axes[i] < 0) axes[i] += x.rank;
    if (axes[i] < 0 || axes[i] >= (int64_t)x.rank) return CMZ_OK;
    if (cmz_dim_is(m->dims, x.shape[axes[i]], 1)) continue;
    if (!cmz_mul_i64(terms, cmz_pass_hint(m, x.shape[axes[i]]), &terms)) return CMZ_OK;
    if (axes[i] > last) last = axes[i];
  }
  if (terms < LONG_SUM || last < 0 || cmz_pass_hint(m, x.shape[last]) == terms) return CMZ_OK;
  bool keep = cmz_node_int(&node, "keepdims", 1) != 0;
  cmz_vid inner = cmz_build_reduce(m, n, node.op->name, node.inputs[0], &last, 1, true);
  cmz_vid v = inner != 0 ? cmz_build_reduce(m, n, node.op->name, inner, axes, count, keep) : 0;
  if (v == 0) return CMZ_E_INTERNAL;
  *changed = cmz_rule_finish(m, n, v);
  return CMZ_OK;
}

const cmz_rule cmz_rules_compose[] = {
    {"long-mean-in-steps", "ReduceMean", reduce_in_steps},
    {"long-sum-in-steps", "ReduceSum", reduce_in_steps},
    {NULL, NULL, NULL},
};
