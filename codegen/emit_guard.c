/* emit_guard.c - what is known about the conditions that guard loads (padding): from the bounds of
 * the axes, or because the code stands under a test of them. In: conditions. Out: their truth, and
 * which of them decide whether anything is to be added. Always holds: a condition that is called
 * true is true for every instance and lane that asks. */
#include "emit.h"

int cmz_emit_truth(emitter *e, cmz_expr x) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  for (uint32_t i = e->assumptions.count; i-- > 0;) {
    const assumption *a = &e->assumptions.data[i];
    if (a->predicate == x && a->scope->depth <= e->depth && e->path[a->scope->depth] == a->scope)
      return a->truth;
  }
  if (n->op == CMZ_X_CONST_INT) return n->i ? 1 : -1;
  if (n->op == CMZ_X_NOT) return -cmz_emit_truth(e, n->args[0]);
  if (n->op == CMZ_X_AND || n->op == CMZ_X_OR) {
    int a = cmz_emit_truth(e, n->args[0]), b = cmz_emit_truth(e, n->args[1]);
    return n->op == CMZ_X_AND ? CMZ_MIN(a, b) : CMZ_MAX(a, b);
  }
  if (n->op != CMZ_X_LT && n->op != CMZ_X_LE) return 0;
  int64_t al, ah, bl, bh;
  cmz_emit_range(e, n->args[0], &al, &ah);
  cmz_emit_range(e, n->args[1], &bl, &bh);
  if (n->op == CMZ_X_LT) {
    if (ah < bl && ah != INT64_MAX && bl != INT64_MIN) return 1;
    return al >= bh && al != INT64_MIN && bh != INT64_MAX ? -1 : 0;
  }
  if (ah <= bl && ah != INT64_MAX && bl != INT64_MIN) return 1;
  return al > bh && al != INT64_MIN && bh != INT64_MAX ? -1 : 0;
}

void cmz_emit_assume(emitter *e, cmz_expr predicate, int truth) {
  assumption a = {predicate, e->path[e->depth], truth};
  cmz_vec_push(e->arena, &e->assumptions, a);
}

static void add_conjuncts(const emitter *e, cmz_expr x, guard_list *out) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  if (n->op == CMZ_X_AND && n->dtype == CMZ_BOOL) {
    add_conjuncts(e, n->args[0], out);
    add_conjuncts(e, n->args[1], out);
    return;
  }
  for (uint32_t i = 0; i < out->count; i++)
    if (out->items[i] == x) return;
  if (out->count < CMZ_EMIT_MAX_GUARDS) out->items[out->count++] = x;
}

static void find_guards(emitter *e, cmz_expr x, uint8_t *seen, guard_list *out) {
  if (!x || seen[x] || !e->info[x].has_load) return;
  seen[x] = 1;
  const cmz_expr_node *n = &e->k->exprs.data[x];
  if (n->op == CMZ_X_SELECT) add_conjuncts(e, n->args[0], out);
  for (int i = 0; i < 3; i++) find_guards(e, n->args[i], seen, out);
}

void cmz_emit_guards(emitter *e, cmz_expr x, guard_list *out) {
  out->count = 0;
  find_guards(e, x, cmz_arena_alloc(e->arena, e->k->exprs.count + 1), out);
}

static bool is_identity_constant(const emitter *e, cmz_expr x, cmz_reduce_op op) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  bool f = n->op == CMZ_X_CONST_FLOAT, i = n->op == CMZ_X_CONST_INT;
  switch (op) {
  case CMZ_REDUCE_SUM:
    return (f && n->f == 0) || (i && n->i == 0);
  case CMZ_REDUCE_MAX:
    return f && n->f == -__builtin_inf();
  case CMZ_REDUCE_MIN:
    return f && n->f == __builtin_inf();
  default:
    return false;
  }
}

static bool is_factor(const cmz_expr_node *n, cmz_reduce_op op) {
  return op == CMZ_REDUCE_SUM && n->op == CMZ_X_MUL;
}
static bool is_widening(const emitter *e, const cmz_expr_node *n, cmz_reduce_op op) {
  return n->op == CMZ_X_CAST && op == CMZ_REDUCE_SUM && !n->i &&
         e->k->exprs.data[n->args[0]].dtype != CMZ_BOOL;
}

void cmz_emit_skips(emitter *e, cmz_expr x, cmz_reduce_op op, guard_list *out) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  if (n->op == CMZ_X_SELECT && is_identity_constant(e, n->args[2], op)) {
    add_conjuncts(e, n->args[0], out);
    cmz_emit_skips(e, n->args[1], op, out);
  } else if (is_factor(n, op)) {
    cmz_emit_skips(e, n->args[0], op, out);
    cmz_emit_skips(e, n->args[1], op, out);
  } else if (is_widening(e, n, op)) {
    cmz_emit_skips(e, n->args[0], op, out);
  }
}

bool cmz_emit_is_identity(emitter *e, cmz_expr x, cmz_reduce_op op) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  if (n->op == CMZ_X_SELECT) {
    int known = cmz_emit_truth(e, n->args[0]);
    if (known < 0) return is_identity_constant(e, n->args[2], op);
    return known > 0 && cmz_emit_is_identity(e, n->args[1], op);
  }
  if (is_factor(n, op))
    return cmz_emit_is_identity(e, n->args[0], op) || cmz_emit_is_identity(e, n->args[1], op);
  return is_widening(e, n, op) && cmz_emit_is_identity(e, n->args[0], op);
}
