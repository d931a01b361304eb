/* kernel_sums.c - where sums start: a residual that is added to a convolution.
 * In: a kernel, and which operands' elements may start a sum. Out: the same kernel with
 * REDUCE(body) + bias + element as REDUCE(body, starting at element) + bias. Always holds: the
 * terms stay the same, only their association changes; a sum that is used twice is left as it is.
 */
#include "kernel_internal.h"

typedef struct starter {
  cmz_kernel *k;
  const bool *starts; /* by operand */
  uint32_t *uses;     /* by expression, of those that are reachable */
  cmz_expr *memo;
} starter;

static void count_uses(starter *s, cmz_expr e) {
  if (!e || s->uses[e]++) return;
  for (int i = 0; i < 3; i++) count_uses(s, cmz_x_get(s->k, e)->args[i]);
}

static bool is_start(const starter *s, cmz_expr e) {
  const cmz_expr_node *n = cmz_x_get(s->k, e);
  return n->op == CMZ_X_LOAD && n->dtype == CMZ_F32 && s->starts[n->i];
}

/* A sum of single-precision numbers in chains of several iterations that starts at zero. */
static bool is_open_sum(const starter *s, cmz_expr e) {
  const cmz_expr_node *n = cmz_x_get(s->k, e);
  if (n->op != CMZ_X_REDUCE || n->reduce_op != CMZ_REDUCE_SUM || n->dtype != CMZ_F32 || n->args[1])
    return false;
  for (uint32_t i = 0; i < n->axis_count; i++)
    if (s->k->axes.data[n->axes[i]].chain > 1) return true;
  return false;
}

static cmz_expr started(cmz_kernel *k, cmz_expr sum, cmz_expr start) {
  const cmz_expr_node n = *cmz_x_get(k, sum);
  return cmz_x_sum_from(k, start, n.args[0], n.axes, n.axis_count);
}

/* X + START with START inside of X's sum; 0 when X is no such sum. */
static cmz_expr start_inside(starter *s, cmz_expr x, cmz_expr start) {
  if (s->uses[x] != 1) return 0;
  if (is_open_sum(s, x)) return started(s->k, x, start);
  const cmz_expr_node n = *cmz_x_get(s->k, x);
  for (int i = 0; i < 2 && n.op == CMZ_X_ADD; i++)
    if (s->uses[n.args[i]] == 1 && is_open_sum(s, n.args[i]))
      return cmz_x2(s->k, CMZ_X_ADD, started(s->k, n.args[i], start), n.args[1 - i]);
  return 0;
}

static cmz_expr rewrite(starter *s, cmz_expr e) {
  if (!e || s->memo[e]) return e ? s->memo[e] : 0;
  const cmz_expr_node n = *cmz_x_get(s->k, e);
  cmz_expr args[3] = {0}, result = 0;
  bool same = true;
  for (int i = 0; i < 3 && n.args[i]; i++) {
    args[i] = rewrite(s, n.args[i]);
    same &= args[i] == n.args[i];
  }
  if (same && n.op == CMZ_X_ADD)
    for (int i = 0; i < 2 && !result; i++)
      if (is_start(s, n.args[1 - i])) result = start_inside(s, n.args[i], n.args[1 - i]);
  if (!result) result = same ? e : cmz_x_rebuild(s->k, e, args);
  return s->memo[e] = result;
}

void cmz_kernel_start_sums(cmz_kernel *k, const bool *starts) {
  starter s = {k, starts, CMZ_NEW_ARRAY(k->arena, uint32_t, k->exprs.count),
               CMZ_NEW_ARRAY(k->arena, cmz_expr, k->exprs.count)};
  for (uint32_t i = 0; i < k->stores.count; i++) {
    count_uses(&s, k->stores.data[i].index);
    count_uses(&s, k->stores.data[i].value);
    count_uses(&s, k->stores.data[i].predicate);
  }
  for (uint32_t i = 0; i < k->stores.count; i++)
    k->stores.data[i].value = rewrite(&s, k->stores.data[i].value);
}
