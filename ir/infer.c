/* infer.c - types of nodes from the types of their inputs, and the helpers operators use for it.
 * In: nodes with typed inputs. Out: typed outputs (dtype, rank, symbolic shape, symbolic content).
 * Always holds: after success every wanted output has a known rank, non-negative dims and a size
 * that fits; errors are located at the node. */
#include "evaluator.h"

#include <limits.h>

/* More elements than this is refused: nothing downstream has to fear overflow of byte counts. */
#define MAX_ELEMENTS ((int64_t)1 << 46)

cmz_status cmz_node_fail(const cmz_module *m, cmz_nid n, cmz_status code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const char *message = cmz_arena_vprintf(m->arena, format, args);
  va_end(args);
  return cmz_fail(m->ctx, code, cmz_node_loc(m, n), "%s", message);
}

/* The row's `operands` against the types of the inputs. */
static cmz_status check_operands(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t seen[128] = {0}; /* by letter: the first input that has it + 1 */
  const char *at = node->op->operands;
  for (uint32_t i = 0; at && *at && i < node->input_count; i++) {
    unsigned letter = (unsigned char)*at++ & 127;
    bool has_rank = *at >= '0' && *at <= '9';
    uint32_t rank = has_rank ? (uint32_t)(*at++ - '0') : 0;
    if (!node->inputs[i]) continue;
    const cmz_type *type = &cmz_value_get(m, node->inputs[i])->type;
    if (has_rank && type->rank != rank)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u has rank %u, not %u", i, type->rank, rank);
    if (letter == '.') continue;
    if (!seen[letter]) seen[letter] = i + 1;
    const cmz_type *first = &cmz_value_get(m, node->inputs[seen[letter] - 1])->type;
    if (type->dtype != first->dtype)
      return cmz_node_fail(m, n, CMZ_E_INPUT,
                           "inputs %u and %u have different element types: %s and %s",
                           seen[letter] - 1, i, cmz_dtype_info(first->dtype)->name,
                           cmz_dtype_info(type->dtype)->name);
  }
  return CMZ_OK;
}

static cmz_status check_inputs(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_op *op = node->op;
  if (node->input_count < op->min_inputs)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "has %u inputs, needs at least %u", node->input_count,
                         op->min_inputs);
  if (op->max_inputs != 255 && node->input_count > op->max_inputs)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "has %u inputs, takes at most %u", node->input_count,
                         op->max_inputs);
  if (op->max_outputs != 255 && node->output_count > op->max_outputs)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "has %u outputs, gives at most %u", node->output_count,
                         op->max_outputs);
  for (uint32_t i = 0; i < node->input_count; i++) {
    cmz_vid v = node->inputs[i];
    if (!v) {
      if (i < op->min_inputs)
        return cmz_node_fail(m, n, CMZ_E_INPUT, "required input %u is absent", i);
      continue;
    }
    const cmz_value *value = cmz_value_get(m, v);
    if (value->type.kind != CMZ_KIND_TENSOR) {
      if (op->flags & CMZ_OP_VALUES) continue;
      return cmz_node_fail(m, n, CMZ_E_INPUT, "input \"%s\" is %s where a tensor is needed",
                           value->name,
                           value->type.kind & CMZ_KIND_OPTIONAL ? "an optional" : "a sequence");
    }
    if (value->type.dtype == CMZ_STRING && (op->flags & CMZ_OP_RUNTIME) &&
        !(op->flags & CMZ_OP_VALUES))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "on strings is not supported");
    if (value->type.dtype == CMZ_UNDEFINED || value->type.rank == CMZ_RANK_UNKNOWN)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the type of input \"%s\" is not known", value->name);
  }
  return check_operands(m, n);
}

static cmz_status check_output(cmz_module *m, cmz_nid n, cmz_vid v) {
  const cmz_value *value = cmz_value_get(m, v);
  const cmz_type *type = &value->type;
  if (type->kind != CMZ_KIND_TENSOR) return CMZ_OK;
  if (type->dtype == CMZ_UNDEFINED || type->rank == CMZ_RANK_UNKNOWN)
    return cmz_node_fail(m, n, CMZ_E_INTERNAL, "inference gave output \"%s\" no type", value->name);
  if (type->rank > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "output \"%s\" has rank %u, at most %d is supported", value->name,
                         type->rank, CMZ_MAX_RANK);
  int64_t count = 1;
  bool too_large = false, empty = false;
  for (uint32_t i = 0; i < type->rank; i++) {
    int64_t dim, low, high;
    if (!type->shape[i])
      return cmz_node_fail(m, n, CMZ_E_INTERNAL, "dimension %u of \"%s\" has no size", i,
                           value->name);
    if (type->shape[i] == CMZ_DIM_OVERFLOW)
      return cmz_node_fail(m, n, CMZ_E_INPUT,
                           "dimension %u of output \"%s\" is too large or too complicated", i,
                           value->name);
    cmz_dim_range(m->dims, type->shape[i], &low, &high);
    if (high < 0)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "dimension %u of output \"%s\" would be negative", i,
                           value->name);
    /* An open dimension counts with its least size. */
    if (!cmz_dim_is_const(m->dims, type->shape[i], &dim)) dim = CMZ_MAX(low, 1);
    if (dim == 0) empty = true;
    else if (!cmz_mul_i64(count, dim, &count) || count > MAX_ELEMENTS) too_large = true, count = 1;
  }
  if (too_large && !empty)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "output \"%s\" would have more than 2^46 elements",
                         value->name);
  return CMZ_OK;
}

cmz_status cmz_infer_node(cmz_module *m, cmz_nid n) {
  CMZ_TRY(check_inputs(m, n));
  const cmz_op *op = cmz_node_get(m, n)->op;
  if (!op->infer) return cmz_node_fail(m, n, CMZ_E_INTERNAL, "the operator has no inference");
  CMZ_TRY(op->infer(m, n));
  uint32_t count = cmz_node_get(m, n)->output_count;
  for (uint32_t i = 0; i < count; i++) {
    cmz_vid v = cmz_node_output(cmz_node_get(m, n), i);
    if (v) CMZ_TRY(check_output(m, n, v));
  }
  return CMZ_OK;
}

cmz_status cmz_infer_graph(cmz_module *m, cmz_gid g) {
  /* A copy of the list: an operator's inference may place nodes (already inferred) before it. */
  uint32_t count = cmz_graph_get(m, g)->nodes.count;
  cmz_nid *nodes =
      cmz_arena_copy(m->arena, cmz_graph_get(m, g)->nodes.data, count * sizeof(cmz_nid));
  for (uint32_t i = 0; i < count; i++)
    if (!cmz_node_get(m, nodes[i])->removed) CMZ_TRY(cmz_infer_node(m, nodes[i]));
  return CMZ_OK;
}

cmz_status cmz_infer_broadcast_dim(cmz_module *m, cmz_nid n, cmz_dim a, cmz_dim b, uint32_t axis,
                                   cmz_dim *out) {
  int64_t x, y;
  bool a_const = cmz_dim_is_const(m->dims, a, &x), b_const = cmz_dim_is_const(m->dims, b, &y);
  if (a == b || (b_const && y == 1)) *out = a;
  else if (a_const && x == 1) *out = b;
  else if (a_const && b_const)
    return cmz_node_fail(
        m, n, CMZ_E_INPUT,
        "inputs cannot be broadcast: %" PRId64 " and %" PRId64 " meet in dimension %u", x, y, axis);
  else {
    /* A fixed size other than 1 decides; a symbol that is never 1 does too. */
    int64_t low, high;
    if (a_const) *out = a;
    else if (b_const) *out = b;
    else {
      cmz_dim_range(m->dims, a, &low, &high);
      bool a_never_one = low > 1;
      cmz_dim_range(m->dims, b, &low, &high);
      *out = a_never_one ? a : low > 1 ? b : cmz_dim_broadcast(m->dims, a, b);
    }
  }
  return CMZ_OK;
}

cmz_status cmz_infer_broadcast(cmz_module *m, cmz_nid n, uint32_t first, uint32_t last,
                               cmz_dim *shape, uint32_t *rank) {
  uint32_t r = 0;
  for (uint32_t i = first; i < last; i++) {
    cmz_vid v = cmz_node_input(cmz_node_get(m, n), i);
    if (v) r = CMZ_MAX(r, cmz_value_get(m, v)->type.rank);
  }
  if (r > CMZ_MAX_RANK) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "rank %u is too large", r);
  for (uint32_t i = 0; i < r; i++) shape[i] = cmz_dim_const(m->dims, 1);
  for (uint32_t i = first; i < last; i++) {
    cmz_vid v = cmz_node_input(cmz_node_get(m, n), i);
    if (!v) continue;
    cmz_type type = cmz_value_get(m, v)->type;
    for (uint32_t j = 0; j < type.rank; j++) {
      uint32_t at = r - type.rank + j;
      CMZ_TRY(cmz_infer_broadcast_dim(m, n, shape[at], type.shape[j], at, &shape[at]));
    }
  }
  *rank = r;
  return CMZ_OK;
}

cmz_status cmz_infer_same(cmz_module *m, cmz_nid n, uint32_t output, uint32_t input,
                          cmz_dtype dtype) {
  cmz_vid from = cmz_node_input(cmz_node_get(m, n), input);
  cmz_vid to = cmz_node_output(cmz_node_get(m, n), output);
  if (!to) return CMZ_OK;
  if (!from) return cmz_node_fail(m, n, CMZ_E_INPUT, "required input %u is absent", input);
  cmz_type type = cmz_value_get(m, from)->type;
  if (dtype != CMZ_UNDEFINED) type.dtype = dtype;
  cmz_value_set_full_type(m, to, &type);
  return CMZ_OK;
}

cmz_status cmz_infer_axis(cmz_module *m, cmz_nid n, int64_t axis, uint32_t rank, uint32_t *out) {
  if (axis < -(int64_t)rank || axis >= (int64_t)rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "axis %" PRId64 " is outside a tensor of rank %u", axis,
                         rank);
  *out = (uint32_t)(axis < 0 ? axis + (int64_t)rank : axis);
  return CMZ_OK;
}

bool cmz_const_i64s(const cmz_module *m, cmz_vid v, int64_t *values, uint32_t capacity,
                    uint32_t *count) {
  const cmz_constant *c = cmz_value_constant(m, v);
  if (c) {
    if (!cmz_dtype_is_int(c->dtype) && c->dtype != CMZ_BOOL) return false;
    uint64_t total = 1;
    for (uint32_t i = 0; i < c->rank; i++)
      if (__builtin_mul_overflow(total, (uint64_t)c->shape[i], &total)) return false;
    if (total > capacity) return false;
    for (uint64_t i = 0; i < total; i++)
      values[i] = cmz_dtype_get_i64(c->dtype, c->data, (size_t)i);
    *count = (uint32_t)total;
    return true;
  }
  /* Known symbolic content that happens to be constant serves as well. */
  if (!v) return false;
  const cmz_value *value = cmz_value_get(m, v);
  if (!value->elements || value->element_count > capacity || cmz_dtype_is_float(value->type.dtype))
    return false;
  for (uint32_t i = 0; i < value->element_count; i++)
    if (!cmz_dim_is_const(m->dims, value->elements[i], &values[i])) return false;
  *count = value->element_count;
  return true;
}

bool cmz_const_f64(const cmz_module *m, cmz_vid v, double *value) {
  const cmz_constant *c = cmz_value_constant(m, v);
  if (!c || c->dtype == CMZ_STRING) return false;
  for (uint32_t i = 0; i < c->rank; i++)
    if (c->shape[i] != 1) return false;
  *value = cmz_dtype_get_f64(c->dtype, c->data, 0);
  return true;
}
