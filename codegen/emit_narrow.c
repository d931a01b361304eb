/* emit_narrow.c - whether a kernel's 64-bit integers fit in 32 bits, which is all that many GPUs
 * have and what all are faster in. In: a kernel, its axes' bounds. Out: yes or no. Always holds:
 * what is yes computes the same in 32 bits, provided that every operand has fewer than 2^31 bytes,
 * which Vulkan's driver sees to; numbers read from 64-bit tensors count as fitting only where they
 * choose what is read or written, because no tensor has a place for others. */
#include "emit.h"

enum { FOR_VALUE = 1, FOR_INDEX = 2 };

static bool is_wide(uint8_t dtype) { return dtype == CMZ_I64 || dtype == CMZ_U64; }

/* Whether X, known to be used as USES says, keeps its value in 32 bits when its arguments do. */
static bool fits(emitter *e, cmz_expr x, uint8_t uses) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  uint8_t from = n->args[0] ? e->k->exprs.data[n->args[0]].dtype : (uint8_t)CMZ_BOOL;
  int64_t low, high;
  cmz_emit_range(e, x, &low, &high);
  bool known = low != INT64_MIN && high != INT64_MAX;
  bool inside = low >= INT32_MIN && high <= INT32_MAX, index_only = uses == FOR_INDEX;
  if (n->op == CMZ_X_CONST_INT) return n->i >= INT32_MIN && n->i <= INT32_MAX;
  if (n->op == CMZ_X_LOAD) return index_only;
  if (n->dtype == CMZ_U64) return false;
  switch (n->op) {
  case CMZ_X_AXIS:
  case CMZ_X_PARAM:
  case CMZ_X_SELECT:
  case CMZ_X_SIGN:
  case CMZ_X_AND:
  case CMZ_X_OR:
  case CMZ_X_XOR:
  case CMZ_X_NOT:
  case CMZ_X_SHR:
    return true;
  case CMZ_X_ADD:
  case CMZ_X_SUB:
  case CMZ_X_MUL:
  case CMZ_X_DIV:
  case CMZ_X_FLOORDIV:
  case CMZ_X_MOD:
  case CMZ_X_FMOD:
  case CMZ_X_MIN:
  case CMZ_X_MAX:
  case CMZ_X_NEG:
  case CMZ_X_ABS:
    return !known || inside; /* not known: sizes given at run time */
  case CMZ_X_CAST:
    if (n->i) return false;
    return from == CMZ_BOOL || from == CMZ_I32 || from == CMZ_I64 || index_only;
  case CMZ_X_REDUCE:
    return n->reduce_op == CMZ_REDUCE_MAX || n->reduce_op == CMZ_REDUCE_MIN ||
           n->reduce_op >= CMZ_REDUCE_ARGMAX;
  default:
    return false;
  }
}

/* What each expression is used for: arguments precede their users. */
static uint8_t *find_uses(emitter *e) {
  const cmz_kernel *k = e->k;
  uint8_t *uses = CMZ_NEW_ARRAY(e->arena, uint8_t, k->exprs.count + 1);
  for (uint32_t i = 0; i < k->stores.count; i++) {
    const cmz_store *s = &k->stores.data[i];
    uses[s->index] |= FOR_INDEX;
    uses[s->value] |= FOR_VALUE;
    if (s->predicate) uses[s->predicate] |= FOR_VALUE;
  }
  for (uint32_t a = 0; a < k->axes.count; a++) uses[k->axes.data[a].extent] |= FOR_INDEX;
  for (uint32_t i = k->exprs.count; i-- > 1;) {
    const cmz_expr_node *n = &k->exprs.data[i];
    uint8_t passed = n->op == CMZ_X_LOAD && uses[i] ? FOR_INDEX : uses[i];
    for (int a = 0; a < 3; a++)
      if (n->args[a]) uses[n->args[a]] |= passed;
  }
  return uses;
}

bool cmz_emit_is_narrow(emitter *e) {
  const cmz_kernel *k = e->k;
  const uint8_t *uses = find_uses(e);
  for (uint32_t i = 1; i < k->exprs.count; i++) {
    const cmz_expr_node *n = &k->exprs.data[i];
    if (!uses[i]) continue;
    if (is_wide(n->dtype) && !fits(e, i, uses[i])) return false;
    bool bits = n->op == CMZ_X_BITCAST || n->op == CMZ_X_POPCOUNT;
    if (bits && is_wide(k->exprs.data[n->args[0]].dtype)) return false;
  }
  for (uint32_t i = 0; i < k->stores.count; i++) {
    const cmz_store *s = &k->stores.data[i];
    if (s->mode != CMZ_STORE_SET && is_wide((uint8_t)k->operands.data[s->operand].dtype))
      return false;
  }
  return true;
}
