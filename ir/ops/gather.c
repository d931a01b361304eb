/* gather.c - Gather, GatherElements, GatherND, OneHot: reads at computed positions.
 * In: data and an index tensor. Out: the chosen elements. Always holds: an index that is not known
 * at compile time is wrapped when negative and kept inside the data, so that no load is out of
 * bounds. */
#include "ops.h"

/* ---- Gather ---- */

static void gather_elements_known(cmz_module *m, cmz_nid n) {
  cmz_vid data = cmz_ops_input(m, n, 0), indices = cmz_ops_input(m, n, 1);
  if (cmz_ops_type(m, data)->rank != 1) return;
  int64_t at[1024], size;
  uint32_t count, index[1024];
  if (!cmz_dim_is_const(m->dims, cmz_ops_type(m, data)->shape[0], &size)) return;
  if (!cmz_const_i64s(m, indices, at, 1024, &count)) return;
  for (uint32_t i = 0; i < count; i++) {
    int64_t j = at[i] < 0 ? at[i] + size : at[i];
    if (j < 0 || j >= size) return;
    index[i] = (uint32_t)j;
  }
  cmz_infer_moved_elements(m, n, data, index, count);
}

static cmz_status infer_gather(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0), *indices = cmz_input_type(m, node, 1);
  uint32_t axis, rank = 0;
  cmz_dim shape[2 * CMZ_MAX_RANK];
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", 0), x->rank, &axis));
  for (uint32_t i = 0; i < axis; i++) shape[rank++] = x->shape[i];
  for (uint32_t i = 0; i < indices->rank; i++) shape[rank++] = indices->shape[i];
  for (uint32_t i = axis + 1; i < x->rank; i++) shape[rank++] = x->shape[i];
  if (rank > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the result has rank %u", rank);
  int64_t size, at[1024];
  uint32_t count;
  if (cmz_dim_is_const(m->dims, x->shape[axis], &size) &&
      cmz_const_i64s(m, node->inputs[1], at, 1024, &count))
    for (uint32_t i = 0; i < count; i++)
      if (at[i] < -size || at[i] >= size)
        return cmz_node_fail(m, n, CMZ_E_INPUT,
                             "index %" PRId64 " is outside dimension %u of size %" PRId64, at[i],
                             axis, size);
  cmz_set_output(m, n, 0, x->dtype, rank, shape);
  gather_elements_known(m, n);
  return CMZ_OK;
}

static cmz_expr describe_gather(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  const cmz_type x = *cmz_input_type(m, n, 0), indices = *cmz_input_type(m, n, 1);
  uint32_t axis;
  if (cmz_infer_axis(m, cmz_node_self(m, n), cmz_node_int(n, "axis", 0), x.rank, &axis) != CMZ_OK)
    return 0;
  cmz_expr at[CMZ_MAX_RANK], i = cmz_describe_input(d, 1, idx + axis);
  if (!i) return 0;
  for (uint32_t j = 0; j < axis; j++) at[j] = idx[j];
  at[axis] = cmz_x_wrap_index(cmz_describe_kernel(d), i, cmz_describe_dim(d, x.shape[axis]),
                              cmz_indices_known(m, n->inputs[1], x.shape[axis]));
  for (uint32_t j = axis + 1; j < x.rank; j++) at[j] = idx[j - 1 + indices.rank];
  return cmz_describe_input(d, 0, at);
}

/* Index I into a dimension of SIZE, negative from the end. */
static cmz_status wrap(cmz_eval *e, int64_t i, int64_t size, int64_t *out) {
  *out = i < 0 ? i + size : i;
  if (*out < 0 || *out >= size)
    return cmz_eval_fail(e, "index %" PRId64 " is outside a dimension of size %" PRId64, i, size);
  return CMZ_OK;
}

static cmz_status eval_gather(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *indices = &inputs[1];
  cmz_array *out = &outputs[0];
  uint32_t axis, rank = 0;
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", 0), x->rank, &axis));
  if (x->rank + indices->rank > CMZ_MAX_RANK + 1)
    return cmz_eval_fail(e, "the result's rank is too large");
  int64_t inner = 1, count = (int64_t)cmz_array_count(indices), outer = 1, size = x->shape[axis];
  for (uint32_t i = 0; i < axis; i++) outer *= out->shape[rank++] = x->shape[i];
  for (uint32_t i = 0; i < indices->rank; i++) out->shape[rank++] = indices->shape[i];
  for (uint32_t i = axis + 1; i < x->rank; i++) inner *= out->shape[rank++] = x->shape[i];
  out->rank = rank;
  CMZ_TRY(cmz_eval_output(e, out));
  for (int64_t o = 0; o < outer; o++)
    for (int64_t j = 0; j < count; j++) {
      int64_t at;
      CMZ_TRY(wrap(e, cmz_get_int(indices, j), size, &at));
      for (int64_t i = 0; i < inner; i++)
        cmz_copy_element(out, (o * count + j) * inner + i, x, (o * size + at) * inner + i);
    }
  return CMZ_OK;
}

/* ---- GatherElements ---- */

static cmz_status infer_gather_elements(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0), *indices = cmz_input_type(m, node, 1);
  uint32_t axis;
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", 0), x->rank, &axis));
  if (x->rank != indices->rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "data of rank %u and indices of rank %u", x->rank,
                         indices->rank);
  for (uint32_t i = 0; i < x->rank; i++) {
    int64_t have, want;
    if (i != axis && cmz_dim_is_const(m->dims, x->shape[i], &have) &&
        cmz_dim_is_const(m->dims, indices->shape[i], &want) && want > have)
      return cmz_node_fail(m, n, CMZ_E_INPUT,
                           "the indices are larger than the data in dimension %u", i);
  }
  cmz_set_output(m, n, 0, x->dtype, indices->rank, indices->shape);
  return CMZ_OK;
}

static cmz_expr describe_gather_elements(cmz_describe *d, const cmz_node *n, uint32_t output,
                                         const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  uint32_t axis;
  if (cmz_infer_axis(m, cmz_node_self(m, n), cmz_node_int(n, "axis", 0), x.rank, &axis) != CMZ_OK)
    return 0;
  cmz_expr at[CMZ_MAX_RANK], i = cmz_describe_input(d, 1, idx);
  if (!i) return 0;
  for (uint32_t j = 0; j < x.rank; j++) at[j] = idx[j];
  at[axis] = cmz_x_wrap_index(cmz_describe_kernel(d), i, cmz_describe_dim(d, x.shape[axis]),
                              cmz_indices_known(m, n->inputs[1], x.shape[axis]));
  return cmz_describe_input(d, 0, at);
}

static cmz_status eval_gather_elements(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                       cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *indices = &inputs[1];
  uint32_t axis;
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", 0), x->rank, &axis));
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], indices->rank, indices->shape));
  for (size_t i = 0; i < cmz_array_count(indices); i++) {
    int64_t at[CMZ_MAX_RANK];
    cmz_array_coordinates(indices, i, at);
    CMZ_TRY(wrap(e, cmz_get_int(indices, (int64_t)i), x->shape[axis], &at[axis]));
    cmz_copy_element(&outputs[0], (int64_t)i, x, cmz_array_index(x, at));
  }
  return CMZ_OK;
}

/* ---- GatherND ---- */

/* Batch dimensions and length of the index tuples. */
static cmz_status tuples(cmz_module *m, cmz_nid n, uint32_t *batch, uint32_t *length) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0), *indices = cmz_input_type(m, node, 1);
  int64_t b = cmz_node_int(node, "batch_dims", 0), k;
  if (!indices->rank || !cmz_dim_is_const(m->dims, indices->shape[indices->rank - 1], &k))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "the last dimension of the indices is not constant");
  if (b < 0 || b >= indices->rank || k < 0 || b + k > x->rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT,
                         "index tuples of %" PRId64 " after %" PRId64
                         " batch dimensions for data of rank %u",
                         k, b, x->rank);
  for (uint32_t i = 0; i < b; i++)
    if (cmz_dims_differ(m, x->shape[i], indices->shape[i]))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "data and indices differ in batch dimension %u", i);
  *batch = (uint32_t)b;
  *length = (uint32_t)k;
  return CMZ_OK;
}

static cmz_status infer_gather_nd(cmz_module *m, cmz_nid n) {
  uint32_t batch, length, rank = 0;
  CMZ_TRY(tuples(m, n, &batch, &length));
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0), *indices = cmz_input_type(m, node, 1);
  cmz_dim shape[2 * CMZ_MAX_RANK];
  for (uint32_t i = 0; i + 1 < indices->rank; i++) shape[rank++] = indices->shape[i];
  for (uint32_t i = batch + length; i < x->rank; i++) shape[rank++] = x->shape[i];
  if (rank > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the result has rank %u", rank);
  cmz_set_output(m, n, 0, x->dtype, rank, shape);
  return CMZ_OK;
}

static cmz_expr describe_gather_nd(cmz_describe *d, const cmz_node *n, uint32_t output,
                                   const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  uint32_t batch, length;
  if (tuples(m, cmz_node_self(m, n), &batch, &length) != CMZ_OK) return 0;
  const cmz_type x = *cmz_input_type(m, n, 0), indices = *cmz_input_type(m, n, 1);
  cmz_expr at[CMZ_MAX_RANK], tuple[CMZ_MAX_RANK];
  uint32_t own = indices.rank - 1;
  for (uint32_t i = 0; i < own; i++) tuple[i] = idx[i];
  for (uint32_t i = 0; i < x.rank; i++) {
    if (i < batch) {
      at[i] = idx[i];
    } else if (i < batch + length) {
      tuple[own] = cmz_x_index(k, i - batch);
      cmz_expr v = cmz_describe_input(d, 1, tuple);
      if (!v) return 0;
      at[i] = cmz_x_wrap_index(k, v, cmz_describe_dim(d, x.shape[i]), false);
    } else {
      at[i] = idx[own + i - batch - length];
    }
  }
  return cmz_describe_input(d, 0, at);
}

static cmz_status eval_gather_nd(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                 cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *indices = &inputs[1];
  cmz_array *out = &outputs[0];
  int64_t batch = cmz_node_int(n, "batch_dims", 0);
  if (!indices->rank) return cmz_eval_fail(e, "the indices have rank 0");
  uint32_t own = indices->rank - 1, rank = 0;
  int64_t length = indices->shape[own];
  if (batch < 0 || batch > own || batch + length > x->rank)
    return cmz_eval_fail(e, "the index tuples are too long");
  for (uint32_t i = 0; i < own; i++) out->shape[rank++] = indices->shape[i];
  for (uint32_t i = (uint32_t)(batch + length); i < x->rank; i++) out->shape[rank++] = x->shape[i];
  out->rank = rank;
  CMZ_TRY(cmz_eval_output(e, out));
  for (size_t i = 0; i < cmz_array_count(out); i++) {
    int64_t o[CMZ_MAX_RANK], at[CMZ_MAX_RANK], tuple = 0;
    cmz_array_coordinates(out, i, o);
    for (uint32_t j = 0; j < own; j++) tuple = tuple * indices->shape[j] + o[j];
    for (uint32_t j = 0; j < x->rank; j++) {
      if (j < batch) at[j] = o[j];
      else if (j < batch + length)
        CMZ_TRY(wrap(e, cmz_get_int(indices, tuple * length + j - batch), x->shape[j], &at[j]));
      else at[j] = o[own + j - (uint32_t)(batch + length)];
    }
    cmz_copy_element(out, (int64_t)i, x, cmz_array_index(x, at));
  }
  return CMZ_OK;
}

/* ---- OneHot ---- */

static cmz_status one_hot_axis(cmz_module *m, cmz_nid n, uint32_t *axis) {
  const cmz_node *node = cmz_node_get(m, n);
  return cmz_infer_axis(m, n, cmz_node_int(node, "axis", -1), cmz_input_type(m, node, 0)->rank + 1,
                        axis);
}

static cmz_status infer_one_hot(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t axis, count = 0;
  CMZ_TRY(one_hot_axis(m, n, &axis));
  cmz_dtype type = cmz_input_type(m, node, 1)->dtype;
  if (cmz_dtype_is_float(type) &&
      !cmz_value_constant(m, node->inputs[1])) { /* sizes are integers */
    cmz_vid depth_int = cmz_build_cast(m, n, node->inputs[1], CMZ_I64);
    if (!depth_int) return CMZ_E_INTERNAL;
    cmz_node_set_input(m, n, 1, depth_int);
    node = cmz_node_get(m, n);
  }
  cmz_dim depth = CMZ_DIM_NONE;
  double number;
  if (cmz_const_f64(m, node->inputs[1], &number)) {
    depth = cmz_dim_const(m->dims, (int64_t)number);
  } else {
    const cmz_dim *elements = cmz_value_demand_elements(m, node->inputs[1], &count);
    if (!elements || count != 1)
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the depth is not one known integer");
    depth = elements[0];
  }
  const cmz_type *x = cmz_input_type(m, node, 0), *values = cmz_input_type(m, node, 2);
  cmz_dim shape[CMZ_MAX_RANK];
  if (x->rank + 1 > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the rank is too large");
  for (uint32_t i = 0; i <= x->rank; i++) shape[i] = i == axis ? depth : x->shape[i - (i > axis)];
  CMZ_TRY(cmz_check_vector(m, n, 2, cmz_dim_const(m->dims, 2), false));
  cmz_set_output(m, n, 0, values->dtype, x->rank + 1, shape);
  return CMZ_OK;
}

static cmz_expr describe_one_hot(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  uint32_t axis, rank = cmz_input_type(m, n, 0)->rank;
  if (one_hot_axis(m, cmz_node_self(m, n), &axis) != CMZ_OK) return 0;
  cmz_expr at[CMZ_MAX_RANK], zero = cmz_x_index(k, 0), one = cmz_x_index(k, 1);
  for (uint32_t i = 0; i < rank; i++) at[i] = idx[i + (i >= axis)];
  cmz_expr i = cmz_describe_input(d, 0, at);
  cmz_expr off = cmz_describe_input(d, 2, &zero), on = cmz_describe_input(d, 2, &one);
  if (!i || !off || !on) return 0;
  i = cmz_x_cast(k, i, CMZ_I64);
  cmz_expr depth = cmz_describe_dim(d, cmz_output_type(m, n, 0)->shape[axis]);
  i = cmz_x_select(k, cmz_x2(k, CMZ_X_LT, i, zero), cmz_x_add(k, i, depth), i);
  return cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, i, idx[axis]), on, off);
}

static cmz_status eval_one_hot(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  const cmz_array *x = &inputs[0];
  cmz_array *out = &outputs[0];
  uint32_t axis;
  if (x->rank + 1 > CMZ_MAX_RANK) return cmz_eval_fail(e, "the rank is too large");
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", -1), x->rank + 1, &axis));
  int64_t depth = (int64_t)cmz_get(&inputs[1], 0);
  for (uint32_t i = 0; i <= x->rank; i++)
    out->shape[i] = i == axis ? depth : x->shape[i - (i > axis)];
  out->rank = x->rank + 1;
  CMZ_TRY(cmz_eval_output(e, out));
  for (size_t i = 0; i < cmz_array_count(out); i++) {
    int64_t o[CMZ_MAX_RANK], at[CMZ_MAX_RANK];
    cmz_array_coordinates(out, i, o);
    for (uint32_t j = 0; j < x->rank; j++) at[j] = o[j + (j >= axis)];
    int64_t hot = (int64_t)cmz_get(x, cmz_array_index(x, at));
    if (hot < 0) hot += depth;
    cmz_copy_element(out, (int64_t)i, &inputs[2], hot == o[axis]);
  }
  return CMZ_OK;
}

#define ROW(NAME, INPUTS, SINCE, FUNCTION, FLAGS, ...)                                             \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = INPUTS, .max_inputs = INPUTS, .min_outputs = 1,      \
    .max_outputs = 1, .since = SINCE, .flags = FLAGS, .infer = infer_##FUNCTION,                   \
    .eval = eval_##FUNCTION, .describe = describe_##FUNCTION, ##__VA_ARGS__                        \
  }

const cmz_op cmz_ops_gather[] = {
    ROW("Gather", 2, 1, gather, CMZ_OP_MOVEMENT | CMZ_OP_CHEAP, .attributes = "axis:i"),
    ROW("GatherElements", 2, 11, gather_elements, CMZ_OP_MOVEMENT | CMZ_OP_CHEAP,
        .attributes = "axis:i"),
    ROW("GatherND", 2, 11, gather_nd, CMZ_OP_MOVEMENT | CMZ_OP_CHEAP,
        .attributes = "batch_dims:i@12"),
    ROW("OneHot", 3, 9, one_hot, CMZ_OP_MOVEMENT | CMZ_OP_CHEAP, .attributes = "axis:i"),
    {.name = NULL},
};
