/* ops.c - what the operator families share: walking arrays, the frame of pointwise operators,
 * symbolic elements. In: nodes and arrays. Out: typed outputs, evaluated arrays, expressions.
 * Always holds: nothing here knows a particular operator. */
#include "ops.h"

/* ---- arrays ---- */

int64_t cmz_array_i64(const cmz_array *a, size_t i) {
  if (a->dtype == CMZ_U64) {
    int64_t v;
    memcpy(&v, (const char *)a->data + i * sizeof v, sizeof v);
    return v;
  }
  return cmz_dtype_get_i64(a->dtype, a->data, i);
}

void cmz_array_set_i64(cmz_array *a, size_t i, int64_t v) {
  if (a->dtype == CMZ_U64 || a->dtype == CMZ_I64)
    memcpy((char *)a->data + i * sizeof v, &v, sizeof v);
  else cmz_dtype_set_i64(a->dtype, a->data, i, v);
}

int64_t cmz_array_broadcast_index(const cmz_array *a, uint32_t rank, const int64_t *coordinates) {
  int64_t index = 0;
  const int64_t *at = coordinates + (rank - a->rank);
  for (uint32_t i = 0; i < a->rank; i++)
    index = index * a->shape[i] + (a->shape[i] == 1 ? 0 : at[i]);
  return index;
}

bool cmz_array_next(const cmz_array *a, int64_t *coordinates) {
  for (uint32_t i = a->rank; i-- > 0;) {
    if (++coordinates[i] < a->shape[i]) return true;
    coordinates[i] = 0;
  }
  return false;
}

cmz_status cmz_array_broadcast(cmz_eval *e, const cmz_array *inputs, uint32_t count,
                               cmz_array *out) {
  uint32_t rank = 0;
  for (uint32_t i = 0; i < count; i++)
    if (inputs[i].data) rank = CMZ_MAX(rank, inputs[i].rank);
  out->rank = rank;
  for (uint32_t i = 0; i < rank; i++) out->shape[i] = 1;
  for (uint32_t i = 0; i < count; i++) {
    if (!inputs[i].data) continue;
    for (uint32_t j = 0; j < inputs[i].rank; j++) {
      int64_t *to = &out->shape[rank - inputs[i].rank + j], from = inputs[i].shape[j];
      if (*to == 1) *to = from;
      else if (from != 1 && from != *to)
        return cmz_eval_fail(e, "inputs cannot be broadcast: %" PRId64 " and %" PRId64, *to, from);
    }
  }
  return CMZ_OK;
}

cmz_status cmz_eval_output_like(cmz_eval *e, cmz_array *out, const cmz_array *from) {
  return cmz_eval_shape(e, out, from->rank, from->shape);
}

/* ---- pointwise evaluation ---- */

#define MAX_POINTWISE_INPUTS 64

cmz_status cmz_eval_pointwise(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs, cmz_scalar_function function, const void *user) {
  if (!n->outputs[0]) return CMZ_OK;
  if (n->input_count > MAX_POINTWISE_INPUTS) return cmz_eval_fail(e, "too many inputs");
  CMZ_TRY(cmz_array_broadcast(e, inputs, n->input_count, &outputs[0]));
  CMZ_TRY(cmz_eval_output(e, &outputs[0]));
  bool present[MAX_POINTWISE_INPUTS], floats[MAX_POINTWISE_INPUTS];
  for (uint32_t i = 0; i < n->input_count; i++) {
    present[i] = inputs[i].data != NULL;
    floats[i] = cmz_dtype_is_float(inputs[i].dtype);
  }
  cmz_scalar_call call = {.node = n,
                          .in = inputs[0].dtype,
                          .out = outputs[0].dtype,
                          .is_float = floats[0],
                          .count = n->input_count,
                          .present = present,
                          .user = user};
  bool float_out = cmz_dtype_is_float(outputs[0].dtype);
  size_t count = cmz_array_count(&outputs[0]);
  int64_t coordinates[CMZ_MAX_RANK] = {0};
  for (size_t i = 0; i < count; i++) {
    cmz_scalar args[MAX_POINTWISE_INPUTS] = {{0}};
    for (uint32_t j = 0; j < n->input_count; j++) {
      if (!present[j]) continue;
      int64_t at = cmz_array_broadcast_index(&inputs[j], outputs[0].rank, coordinates);
      if (!floats[j]) args[j].i = cmz_array_i64(&inputs[j], (size_t)at);
      args[j].f = cmz_get(&inputs[j], at);
    }
    cmz_scalar result = function(&call, args);
    if (float_out) cmz_set(&outputs[0], (int64_t)i, result.f);
    else cmz_array_set_i64(&outputs[0], i, result.i);
    cmz_array_next(&outputs[0], coordinates);
  }
  return CMZ_OK;
}

/* ---- pointwise descriptions ---- */

bool cmz_describe_broadcast_all(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx, cmz_expr *args, uint32_t capacity) {
  const cmz_module *m = cmz_describe_module(d);
  if (n->input_count > capacity) {
    cmz_describe_fail(d, "too many inputs");
    return false;
  }
  uint32_t rank = cmz_output_type(m, n, output)->rank;
  for (uint32_t i = 0; i < n->input_count; i++) {
    args[i] = 0;
    if (!n->inputs[i]) continue;
    args[i] = cmz_describe_broadcast(d, i, idx, rank);
    if (!args[i]) return false;
  }
  return true;
}

/* ---- pointwise inference ---- */

static cmz_status infer_broadcast_as(cmz_module *m, cmz_nid n, cmz_dtype dtype) {
  cmz_dim shape[CMZ_MAX_RANK];
  uint32_t rank;
  CMZ_TRY(cmz_infer_broadcast(m, n, 0, cmz_node_get(m, n)->input_count, shape, &rank));
  cmz_set_output(m, n, 0, dtype, rank, shape);
  return CMZ_OK;
}

static cmz_status same_types(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_dtype first = cmz_ops_type(m, node->inputs[0])->dtype;
  for (uint32_t i = 1; i < node->input_count; i++)
    if (node->inputs[i] && cmz_ops_type(m, node->inputs[i])->dtype != first)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "inputs have different element types: %s and %s",
                           cmz_dtype_info(first)->name,
                           cmz_dtype_info(cmz_ops_type(m, node->inputs[i])->dtype)->name);
  return CMZ_OK;
}

cmz_status cmz_infer_pointwise(cmz_module *m, cmz_nid n) {
  CMZ_TRY(same_types(m, n));
  return infer_broadcast_as(m, n, cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype);
}

cmz_status cmz_infer_compare(cmz_module *m, cmz_nid n) {
  CMZ_TRY(same_types(m, n));
  return infer_broadcast_as(m, n, CMZ_BOOL);
}

cmz_status cmz_infer_unary(cmz_module *m, cmz_nid n) {
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

/* An older opset aligned the second operand with `axis` of the first instead of with its end. */
cmz_status cmz_infer_legacy_axis(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (!cmz_node_attr(node, "axis")) return CMZ_OK;
  int64_t axis = cmz_node_int(node, "axis", -1);
  cmz_vid a = cmz_node_input(node, 0), b = cmz_node_input(node, 1);
  cmz_type ta = *cmz_ops_type(m, a), tb = *cmz_ops_type(m, b);
  cmz_node_remove_attr(m, n, "axis");
  if (tb.rank > ta.rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "operand 1 has more dimensions than operand 0");
  uint32_t at = ta.rank - tb.rank;
  if (ta.rank > 0 && axis != -1) CMZ_TRY(cmz_infer_axis(m, n, axis, ta.rank, &at));
  if (at + tb.rank >= ta.rank) {
    if (at + tb.rank > ta.rank)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute axis is too large");
    return CMZ_OK;
  }
  cmz_dim shape[CMZ_MAX_RANK];
  uint32_t rank = ta.rank - at;
  for (uint32_t i = 0; i < rank; i++)
    shape[i] = i < tb.rank ? tb.shape[i] : cmz_dim_const(m->dims, 1);
  cmz_vid reshaped = cmz_build_reshape(m, n, b, shape, rank);
  if (!reshaped) return CMZ_E_INTERNAL;
  cmz_node_set_input(m, n, 1, reshaped);
  return CMZ_OK;
}

/* ---- symbolic elements ---- */

#define MAX_ELEMENTS 1024

bool cmz_value_static_count(const cmz_module *m, cmz_vid v, uint32_t limit, uint32_t *count) {
  const cmz_type *type = cmz_ops_type(m, v);
  int64_t total = 1, dim;
  for (uint32_t i = 0; i < type->rank; i++)
    if (!cmz_dim_is_const(m->dims, type->shape[i], &dim) || !cmz_mul_i64(total, dim, &total))
      return false;
  if (total < 0 || total > (int64_t)limit) return false;
  *count = (uint32_t)total;
  return true;
}

cmz_dim cmz_dim_is_negative(cmz_dims *p, cmz_dim a) {
  return cmz_dim_eq(p, cmz_dim_min(p, a, cmz_dim_const(p, -1)), a);
}

cmz_status cmz_infer_axis_dims(cmz_module *m, cmz_nid n, cmz_vid v, uint32_t rank, cmz_dim *axes,
                               uint32_t *count) {
  const cmz_dim *listed = cmz_value_demand_elements(m, v, count);
  if (!listed || *count > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "the number of axes is only known during the run");
  for (uint32_t i = 0; i < *count; i++) {
    int64_t value;
    if (cmz_dim_is_const(m->dims, listed[i], &value)) {
      uint32_t axis;
      CMZ_TRY(cmz_infer_axis(m, n, value, rank, &axis));
      axes[i] = cmz_dim_const(m->dims, axis);
      continue;
    }
    cmz_dim from_end = cmz_dim_add(m->dims, listed[i], cmz_dim_const(m->dims, rank));
    axes[i] = cmz_dim_select(m->dims, cmz_dim_is_negative(m->dims, listed[i]), from_end, listed[i]);
  }
  return CMZ_OK;
}

/* Whether content of this type is tracked: integers and bools, and floats that hold whole numbers.
 */
static bool tracked(cmz_dtype dtype) { return cmz_dtype_is_int(dtype) || dtype == CMZ_BOOL; }

void cmz_infer_elements(cmz_module *m, cmz_nid n, cmz_dim_function f) {
  cmz_vid out = cmz_ops_output(m, n, 0);
  uint32_t count, input_count = cmz_node_get(m, n)->input_count;
  if (!out || input_count > 8 || !tracked(cmz_ops_type(m, out)->dtype)) return;
  if (!cmz_value_static_count(m, out, MAX_ELEMENTS, &count)) return;
  const cmz_dim *elements[8] = {0};
  cmz_array shapes[8] = {{0}}, whole = {0};
  bool all_constant = true;
  for (uint32_t i = 0; i < input_count; i++) {
    uint32_t own = 0;
    cmz_vid v = cmz_ops_input(m, n, i);
    if (!v) return;
    if (!tracked(cmz_ops_type(m, v)->dtype)) return;
    all_constant = all_constant && cmz_value_constant(m, v);
    elements[i] = cmz_value_elements(m, v, &own);
    shapes[i].rank = cmz_ops_type(m, v)->rank;
    if (!elements[i] || !cmz_value_static_shape(m, v, shapes[i].shape)) return;
  }
  /* Constants alone are folded by evaluation; large tables need no symbols. */
  if (all_constant && count > 64) return;
  whole.rank = cmz_ops_type(m, out)->rank;
  if (!cmz_value_static_shape(m, out, whole.shape)) return;
  cmz_dim *result = CMZ_NEW_ARRAY(m->arena, cmz_dim, count);
  int64_t coordinates[CMZ_MAX_RANK] = {0};
  for (uint32_t i = 0; i < count; i++) {
    cmz_dim args[8];
    for (uint32_t j = 0; j < input_count; j++)
      args[j] = elements[j][cmz_array_broadcast_index(&shapes[j], whole.rank, coordinates)];
    result[i] = f(m, n, args, input_count);
    if (!result[i]) return;
    cmz_array_next(&whole, coordinates);
  }
  cmz_value_set_elements(m, out, result, count);
}

void cmz_infer_moved_elements(cmz_module *m, cmz_nid n, cmz_vid from, const uint32_t *index,
                              uint32_t count) {
  cmz_vid out = cmz_ops_output(m, n, 0);
  uint32_t own = 0;
  if (!out || !from || !tracked(cmz_ops_type(m, from)->dtype)) return;
  const cmz_dim *elements = cmz_value_elements(m, from, &own);
  if (!elements) return;
  cmz_dim *result = CMZ_NEW_ARRAY(m->arena, cmz_dim, count);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t at = index ? index[i] : i;
    if (at >= own) return;
    result[i] = elements[at];
  }
  cmz_value_set_elements(m, out, result, count);
}
