/* kernel_verify.c - checks of a kernel description.
 * In: a kernel. Out: CMZ_OK, or CMZ_E_INTERNAL naming what is wrong: types, operand and axis
 * numbers, axes used where nothing binds them, modes. Always holds: nothing is changed. */
#include "kernel_internal.h"

static const uint8_t ARG_COUNTS[] = {
#define EXPR_COUNT(name, count, text) count,
    CMZ_EXPR_OPS(EXPR_COUNT)
#undef EXPR_COUNT
};

typedef struct checker {
  cmz_context *ctx;
  const cmz_kernel *k;
  bool *seen;
} checker;

static cmz_status wrong(const checker *c, const char *what, cmz_expr e) {
  return cmz_fail(c->ctx, CMZ_E_INTERNAL, (cmz_loc){.op = c->k->name},
                  "kernel description: %s (expression %" PRIu32 ")", what, e);
}

static bool is_compute_type(cmz_dtype d) { return d && cmz_dtype_info(d)->compute == d; }

static cmz_status check_types(const checker *c, cmz_expr e) {
  const cmz_kernel *k = c->k;
  const cmz_expr_node *n = cmz_x_get(k, e);
  cmz_dtype type = (cmz_dtype)n->dtype, a = (cmz_dtype)cmz_x_get(k, n->args[0])->dtype,
            b = (cmz_dtype)cmz_x_get(k, n->args[1])->dtype,
            d = (cmz_dtype)cmz_x_get(k, n->args[2])->dtype;
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_CONST_INT:
    return cmz_dtype_is_float(type) ? wrong(c, "integer constant of a float type", e) : CMZ_OK;
  case CMZ_X_CONST_FLOAT:
    return cmz_dtype_is_float(type) ? CMZ_OK : wrong(c, "float constant of an integer type", e);
  case CMZ_X_AXIS:
  case CMZ_X_PARAM:
    return type == CMZ_I64 ? CMZ_OK : wrong(c, "axis or parameter that is not i64", e);
  case CMZ_X_LOAD:
    if (a != CMZ_I64) return wrong(c, "load at an index that is not i64", e);
    return type == cmz_dtype_info(k->operands.data[n->i].dtype)->compute
               ? CMZ_OK
               : wrong(c, "load of another type", e);
  case CMZ_X_REDUCE:
    if (n->reduce_op >= CMZ_REDUCE_ARGMAX)
      return type == CMZ_I64 && n->axis_count == 1
                 ? CMZ_OK
                 : wrong(c, "arg-reduction must be i64 over one axis", e);
    if (n->args[1] && (n->reduce_op != CMZ_REDUCE_SUM || !cmz_dtype_is_float(type) || b != type))
      return wrong(c, "start of what is not a sum of floats", e);
    return type == a ? CMZ_OK : wrong(c, "reduction of another type", e);
  case CMZ_X_EQ:
  case CMZ_X_LT:
  case CMZ_X_LE:
    return type == CMZ_BOOL && a == b ? CMZ_OK : wrong(c, "comparison of different types", e);
  case CMZ_X_SELECT:
    return a == CMZ_BOOL && b == type && d == type ? CMZ_OK
                                                   : wrong(c, "select of different types", e);
  case CMZ_X_IS_NAN:
  case CMZ_X_IS_INF:
    return type == CMZ_BOOL ? CMZ_OK : wrong(c, "predicate that is not bool", e);
  case CMZ_X_CAST:
    return CMZ_OK;
  case CMZ_X_BITCAST:
    return cmz_dtype_info(type)->bits == cmz_dtype_info(a)->bits
               ? CMZ_OK
               : wrong(c, "bitcast to another width", e);
  default:
    break;
  }
  if (a != type || (n->args[1] && b != type)) return wrong(c, "operands of different types", e);
  return CMZ_OK;
}

static cmz_status check_shape(const checker *c, cmz_expr e) {
  const cmz_kernel *k = c->k;
  if (e >= k->exprs.count) return wrong(c, "expression out of range", e);
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (n->op >= CMZ_X_COUNT) return wrong(c, "unknown operation", e);
  for (uint32_t i = 0; i < 3; i++) {
    bool optional = n->op == CMZ_X_REDUCE && i == 1;
    if (!optional && (n->args[i] != 0) != (i < ARG_COUNTS[n->op]))
      return wrong(c, "wrong number of arguments", e);
    if (n->args[i] >= e) return wrong(c, "argument after its user", e);
  }
  if (!is_compute_type((cmz_dtype)n->dtype))
    return wrong(c, "type that kernels do not compute in", e);
  if (n->op == CMZ_X_LOAD) {
    if ((uint64_t)n->i >= k->operands.count) return wrong(c, "operand out of range", e);
    if (!(k->operands.data[n->i].access & CMZ_READ))
      return wrong(c, "load from an operand that is not read", e);
  }
  if (n->op == CMZ_X_PARAM && (uint64_t)n->i >= k->param_count)
    return wrong(c, "parameter out of range", e);
  for (uint32_t i = 0; i < n->axis_count; i++)
    if (n->axes[i] >= k->axes.count) return wrong(c, "axis out of range", e);
  for (uint32_t i = 0; i < n->axis_count; i++)
    if (k->axes.data[n->axes[i]].kind != CMZ_AXIS_REDUCE)
      return wrong(c, "reduction over an axis of another kind", e);
  return check_types(c, e);
}

/* Each expression's own form once; binding by walking from each store, as an expression may stand
 * in several scopes: the free axes are cached, so only reductions need the walk. */
static cmz_status check_expr(checker *c, cmz_expr e) {
  if (!e || (e < c->k->exprs.count && c->seen[e])) return CMZ_OK;
  CMZ_TRY(check_shape(c, e));
  c->seen[e] = true;
  for (int i = 0; i < 3; i++) CMZ_TRY(check_expr(c, cmz_x_get(c->k, e)->args[i]));
  return CMZ_OK;
}

static cmz_status check_bound(const checker *c, cmz_expr e, const cmz_store *s) {
  for (uint16_t a = 0; a < c->k->axes.count; a++) {
    if (!cmz_x_uses_axis(c->k, e, a)) continue;
    bool bound = false;
    for (uint32_t i = 0; s && i < s->axis_count; i++) bound |= s->axes[i] == a;
    if (!bound) return wrong(c, "axis that nothing binds", e);
  }
  return CMZ_OK;
}

static cmz_status check_store(checker *c, const cmz_store *s) {
  const cmz_kernel *k = c->k;
  CMZ_TRY(check_expr(c, s->index));
  CMZ_TRY(check_expr(c, s->value));
  CMZ_TRY(check_expr(c, s->predicate));
  if (!s->index || !s->value) return wrong(c, "store without index or value", 0);
  if (s->operand >= k->operands.count)
    return wrong(c, "store to an operand out of range", s->value);
  const cmz_operand *o = &k->operands.data[s->operand];
  if (!(o->access & CMZ_WRITE) || o->constant)
    return wrong(c, "store to an operand that is not written", s->value);
  if (cmz_x_get(k, s->value)->dtype != cmz_dtype_info(o->dtype)->compute)
    return wrong(c, "store of another type", s->value);
  if (cmz_x_get(k, s->index)->dtype != CMZ_I64)
    return wrong(c, "store index that is not i64", s->index);
  if (s->predicate && cmz_x_get(k, s->predicate)->dtype != CMZ_BOOL)
    return wrong(c, "store predicate that is not bool", s->predicate);
  if (!s->axis_count || s->axis_count > CMZ_STORE_MAX_AXES)
    return wrong(c, "store without axes", s->value);
  for (uint32_t i = 0; i < s->axis_count; i++) {
    if (s->axes[i] >= k->axes.count) return wrong(c, "store axis out of range", s->value);
    cmz_axis_kind kind = k->axes.data[s->axes[i]].kind;
    if (kind == CMZ_AXIS_REDUCE) return wrong(c, "store over a reduction axis", s->value);
    for (uint32_t j = 0; j < i; j++)
      if (s->axes[i] == s->axes[j]) return wrong(c, "store axis listed twice", s->value);
  }
  CMZ_TRY(check_bound(c, s->index, s));
  CMZ_TRY(check_bound(c, s->value, s));
  return s->predicate ? check_bound(c, s->predicate, s) : CMZ_OK;
}

cmz_status cmz_kernel_verify(cmz_context *ctx, const cmz_kernel *k) {
  checker c = {.ctx = ctx, .k = k};
  c.seen = CMZ_NEW_ARRAY(k->arena, bool, k->exprs.count);
  if (!k->stores.count) return wrong(&c, "no stores", 0);
  for (uint32_t a = 0; a < k->axes.count; a++) {
    CMZ_TRY(check_expr(&c, k->axes.data[a].extent));
    CMZ_TRY(check_bound(&c, k->axes.data[a].extent, NULL));
  }
  for (uint32_t o = 0; o < k->operands.count; o++) {
    const cmz_operand *operand = &k->operands.data[o];
    CMZ_TRY(check_expr(&c, operand->elements));
    CMZ_TRY(check_bound(&c, operand->elements, NULL));
    if (!cmz_dtype_info(operand->dtype)->bits)
      return wrong(&c, "operand of a type without elements", operand->elements);
  }
  for (uint32_t s = 0; s < k->stores.count; s++) CMZ_TRY(check_store(&c, &k->stores.data[s]));
  return CMZ_OK;
}
