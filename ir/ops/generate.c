/* generate.c - tensors made of sizes and numbers: Constant, ConstantOfShape, Range, EyeLike.
 * In: attributes and small inputs. Out: types with symbolic content, values, expressions. Always
 * holds: a Constant becomes a constant value before inference. */
#include "ops.h"

/* ---- Constant ---- */

static cmz_vid constant_of_strings(cmz_module *m, cmz_gid g, const char *const *strings,
                                   uint32_t count, uint32_t rank) {
  int64_t shape = count;
  return cmz_value_add_constant(m, g, NULL, CMZ_STRING, rank, &shape, strings,
                                count * sizeof *strings);
}

/* The constant value that the node's attribute spells; 0 when there is none. */
static cmz_vid constant_from_attributes(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_gid g = node->graph;
  const cmz_attr *a;
  if ((a = cmz_node_attr(node, "value")) && a->kind == CMZ_ATTR_TENSOR) {
    cmz_constant c = *cmz_constant_get(m, a->tensor);
    return cmz_value_add_constant(m, g, NULL, c.dtype, c.rank, c.shape, c.data, c.bytes);
  }
  if ((a = cmz_node_attr(node, "value_float"))) return cmz_value_add_scalar(m, g, CMZ_F32, a->f);
  if ((a = cmz_node_attr(node, "value_int"))) {
    int64_t *v = cmz_arena_copy(m->arena, &a->i, sizeof a->i);
    return cmz_value_add_constant(m, g, NULL, CMZ_I64, 0, NULL, v, sizeof *v);
  }
  if ((a = cmz_node_attr(node, "value_ints"))) return cmz_value_add_i64s(m, g, a->ints, a->count);
  if ((a = cmz_node_attr(node, "value_floats"))) {
    float *v = CMZ_NEW_ARRAY(m->arena, float, a->count);
    for (uint32_t i = 0; i < a->count; i++) v[i] = (float)a->floats[i];
    int64_t shape = a->count;
    return cmz_value_add_constant(m, g, NULL, CMZ_F32, 1, &shape, v, a->count * sizeof *v);
  }
  if ((a = cmz_node_attr(node, "value_strings")))
    return constant_of_strings(m, g, a->strings, a->count, 1);
  if ((a = cmz_node_attr(node, "value_string"))) {
    const char **s = CMZ_NEW_ARRAY(m->arena, const char *, 1);
    s[0] = a->s;
    return constant_of_strings(m, g, s, 1, 0);
  }
  return 0;
}

static cmz_status normalize_constant(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (cmz_node_attr(node, "sparse_value"))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "sparse tensors are not supported yet");
  cmz_vid out = cmz_node_output(node, 0), v = constant_from_attributes(m, n);
  if (!v) return cmz_node_fail(m, n, CMZ_E_INPUT, "has no value");
  if (out) cmz_value_get(m, v)->name = cmz_value_get(m, out)->name;
  if (out) cmz_value_replace_uses(m, out, v);
  cmz_node_remove(m, n);
  return CMZ_OK;
}

static cmz_status infer_constant(cmz_module *m, cmz_nid n) {
  return cmz_node_fail(m, n, CMZ_E_INTERNAL, "a Constant node was not turned into a constant");
}

/* ---- ConstantOfShape ---- */

/* The fill value: one element of a constant array. */
static cmz_array fill_of(const cmz_module *m, const cmz_node *n) {
  static const float zero = 0;
  cmz_array a = {.dtype = CMZ_F32, .data = (void *)(uintptr_t)&zero};
  const cmz_attr *attr = cmz_node_attr(n, "value");
  if (attr && attr->kind == CMZ_ATTR_TENSOR && attr->tensor) {
    const cmz_constant *c = cmz_constant_get(m, attr->tensor);
    a.dtype = c->dtype;
    a.data = (void *)(uintptr_t)c->data;
  }
  return a;
}

static cmz_status infer_fill(cmz_module *m, cmz_nid n) {
  uint32_t rank, count;
  cmz_vid out = cmz_ops_output(m, n, 0);
  const cmz_dim *shape = cmz_value_demand_elements(m, cmz_ops_input(m, n, 0), &rank);
  if (!shape)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the rank of the output depends on data");
  if (rank > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "rank %u is too large", rank);
  cmz_array fill = fill_of(m, cmz_node_get(m, n));
  if (!fill.data) return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute value is empty");
  cmz_dim dims[CMZ_MAX_RANK];
  memcpy(dims, shape, rank * sizeof *dims);
  cmz_set_output(m, n, 0, fill.dtype, rank, dims);
  if (!out || !(cmz_dtype_is_int(fill.dtype) || fill.dtype == CMZ_BOOL)) return CMZ_OK;
  if (!cmz_value_static_count(m, out, 1024, &count)) return CMZ_OK;
  cmz_dim *elements = CMZ_NEW_ARRAY(m->arena, cmz_dim, count);
  for (uint32_t i = 0; i < count; i++)
    elements[i] = cmz_dim_const(m->dims, cmz_array_i64(&fill, 0));
  cmz_value_set_elements(m, out, elements, count);
  return CMZ_OK;
}

static cmz_status eval_fill(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  cmz_array fill = fill_of(e->module, n);
  size_t rank = cmz_array_count(&inputs[0]);
  if (rank > CMZ_MAX_RANK) return cmz_eval_fail(e, "the rank is too large");
  int64_t shape[CMZ_MAX_RANK];
  for (size_t i = 0; i < rank; i++) shape[i] = cmz_array_i64(&inputs[0], i);
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], (uint32_t)rank, shape));
  int64_t count = (int64_t)cmz_array_count(&outputs[0]);
  for (int64_t i = 0; i < count; i++) cmz_copy_element(&outputs[0], i, &fill, 0);
  return CMZ_OK;
}

static cmz_expr describe_fill(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  (void)output, (void)idx;
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_array fill = fill_of(cmz_describe_module(d), n);
  cmz_dtype compute = cmz_dtype_info(fill.dtype)->compute;
  if (cmz_dtype_is_float(compute)) return cmz_x_float(k, compute, cmz_get(&fill, 0));
  return cmz_x_int(k, compute, cmz_array_i64(&fill, 0));
}

/* ---- Range ---- */

/* Number of elements of a range of floats; -1 when it is no sensible number. */
static int64_t float_range_count(double start, double limit, double delta) {
  double count = ceil((limit - start) / delta);
  if (!(count > 0)) return isnan(count) ? -1 : 0;
  return count < 1e15 ? (int64_t)count : -1;
}

/* The whole number that a float scalar holds because it was cast from an integer; CMZ_DIM_NONE
 * otherwise. */
static cmz_dim whole_number(cmz_module *m, cmz_vid v) {
  double value;
  uint32_t count;
  if (cmz_const_f64(m, v, &value))
    return value == floor(value) && fabs(value) < 1e9 ? cmz_dim_const(m->dims, (int64_t)value)
                                                      : CMZ_DIM_NONE;
  cmz_nid producer = cmz_value_get(m, v)->producer;
  if (!producer) return CMZ_DIM_NONE;
  const cmz_node *node = cmz_node_get(m, producer);
  if (strncmp(node->op->name, "Cast", 4) && strcmp(node->op->name, "Identity")) return CMZ_DIM_NONE;
  cmz_vid from = node->inputs[0];
  if (cmz_dtype_is_float(cmz_ops_type(m, from)->dtype)) return whole_number(m, from);
  if (!cmz_dtype_is_int(cmz_ops_type(m, from)->dtype)) return CMZ_DIM_NONE;
  const cmz_dim *e = cmz_value_demand_elements(m, from, &count);
  return e && count == 1 ? e[0] : CMZ_DIM_NONE;
}

/* The number of elements computed by the graph itself, by nodes placed before N. They are made
 * once: attribute `counted` says so, and the type that N has then stays. */
static cmz_status count_at_run_time(cmz_module *m, cmz_nid n, const cmz_vid *in, cmz_dim *count) {
  cmz_vid out = cmz_ops_output(m, n, 0), v[3];
  const cmz_type *known = out ? cmz_ops_type(m, out) : NULL;
  if (known && known->rank == 1 && cmz_node_int(cmz_node_get(m, n), "counted", 0)) {
    *count = known->shape[0];
    return CMZ_OK;
  }
  for (int i = 0; i < 3; i++)
    v[i] = cmz_build_reshape(m, n, cmz_build_cast(m, n, in[i], CMZ_F64), NULL, 0);
  cmz_vid length = cmz_build2(m, n, "Div", cmz_build2(m, n, "Sub", v[1], v[0]), v[2]);
  length = length ? cmz_build_cast(m, n, cmz_build1(m, n, "Ceil", length), CMZ_I64) : 0;
  uint32_t own = 0;
  const cmz_dim *e = length ? cmz_value_demand_elements(m, length, &own) : NULL;
  if (!e || own != 1) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "its length is not known");
  *count = cmz_dim_max(m->dims, e[0], cmz_dim_const(m->dims, 0));
  cmz_node_set_int(m, n, "counted", 1);
  return CMZ_OK;
}

/* A range of floats: constants, whole numbers, or a length that the run computes. */
static cmz_status infer_float_range(cmz_module *m, cmz_nid n, const cmz_vid *in, cmz_dim *count) {
  double start, limit, delta;
  if (cmz_const_f64(m, in[0], &start) && cmz_const_f64(m, in[1], &limit) &&
      cmz_const_f64(m, in[2], &delta)) {
    int64_t value = float_range_count(start, limit, delta);
    if (value < 0) return cmz_node_fail(m, n, CMZ_E_INPUT, "the step does not lead to the limit");
    *count = cmz_dim_const(m->dims, value);
    return CMZ_OK;
  }
  cmz_dim a = whole_number(m, in[0]), b = whole_number(m, in[1]), step = whole_number(m, in[2]);
  if (!a || !b || !step) return count_at_run_time(m, n, in, count);
  *count = cmz_dim_ceildiv(m->dims, cmz_dim_sub(m->dims, b, a), step);
  *count = cmz_dim_max(m->dims, *count, cmz_dim_const(m->dims, 0));
  return CMZ_OK;
}

static cmz_status infer_range(cmz_module *m, cmz_nid n) {
  cmz_vid in[3], out = cmz_ops_output(m, n, 0);
  cmz_dtype dtype = cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype;
  cmz_dim count;
  for (uint32_t i = 0; i < 3; i++) {
    in[i] = cmz_ops_input(m, n, i);
    if (cmz_ops_type(m, in[i])->dtype != dtype ||
        !cmz_dim_is(m->dims, cmz_value_element_product(m, in[i]), 1))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "needs three single numbers of one element type");
  }
  if (cmz_dtype_is_float(dtype)) {
    CMZ_TRY(infer_float_range(m, n, in, &count));
    cmz_set_output(m, n, 0, dtype, 1, &count);
    return CMZ_OK;
  }
  cmz_dim v[3];
  uint32_t own;
  for (uint32_t i = 0; i < 3; i++) {
    const cmz_dim *e = cmz_value_demand_elements(m, in[i], &own);
    if (!e || own != 1) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "its length is not known");
    v[i] = e[0];
  }
  if (cmz_dim_is(m->dims, v[2], 0)) return cmz_node_fail(m, n, CMZ_E_INPUT, "a step of 0");
  count = cmz_dim_ceildiv(m->dims, cmz_dim_sub(m->dims, v[1], v[0]), v[2]);
  count = cmz_dim_max(m->dims, count, cmz_dim_const(m->dims, 0));
  cmz_set_output(m, n, 0, dtype, 1, &count);
  uint32_t total;
  if (!out || !cmz_value_static_count(m, out, 1024, &total)) return CMZ_OK;
  cmz_dim *elements = CMZ_NEW_ARRAY(m->arena, cmz_dim, total);
  for (uint32_t i = 0; i < total; i++)
    elements[i] = cmz_dim_add(m->dims, v[0], cmz_dim_mul(m->dims, v[2], cmz_dim_const(m->dims, i)));
  cmz_value_set_elements(m, out, elements, total);
  return CMZ_OK;
}

static cmz_status eval_range(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  (void)n;
  bool is_float = cmz_dtype_is_float(inputs[0].dtype);
  double start = cmz_get(&inputs[0], 0), limit = cmz_get(&inputs[1], 0),
         delta = cmz_get(&inputs[2], 0);
  int64_t a = is_float ? 0 : cmz_array_i64(&inputs[0], 0),
          step = is_float ? 0 : cmz_array_i64(&inputs[2], 0);
  int64_t count;
  if (is_float) count = float_range_count(start, limit, delta);
  else if (step == 0) count = -1;
  else count = CMZ_MAX(0, -cmz_floor_div(a - cmz_array_i64(&inputs[1], 0), step));
  if (count < 0) return cmz_eval_fail(e, "the step does not lead to the limit");
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 1, &count));
  for (int64_t i = 0; i < count; i++) {
    if (is_float) cmz_set(&outputs[0], i, start + (double)i * delta);
    else cmz_array_set_i64(&outputs[0], (size_t)i, a + i * step);
  }
  return CMZ_OK;
}

static cmz_expr describe_range(cmz_describe *d, const cmz_node *n, uint32_t output,
                               const cmz_expr *idx) {
  (void)n, (void)output;
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr start = cmz_describe_single(d, 0), step = cmz_describe_single(d, 2);
  if (!start || !step) return 0;
  return cmz_x_add(k, start, cmz_x_mul(k, cmz_x_cast(k, idx[0], cmz_x_dtype(k, start)), step));
}

/* ---- EyeLike ---- */

static cmz_status infer_eye(cmz_module *m, cmz_nid n) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  int64_t dtype = cmz_node_int(cmz_node_get(m, n), "dtype", in.dtype);
  if (in.rank != 2) return cmz_node_fail(m, n, CMZ_E_INPUT, "needs a matrix");
  if (dtype <= 0 || dtype >= CMZ_DTYPE_COUNT)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "dtype %" PRId64 " is no element type", dtype);
  cmz_set_output(m, n, 0, (cmz_dtype)dtype, 2, in.shape);
  return CMZ_OK;
}

static cmz_status eval_eye(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  int64_t k = cmz_node_int(n, "k", 0), at[CMZ_MAX_RANK] = {0};
  CMZ_TRY(cmz_eval_output_like(e, &outputs[0], &inputs[0]));
  int64_t count = (int64_t)cmz_array_count(&outputs[0]);
  for (int64_t i = 0; i < count; i++, cmz_array_next(&outputs[0], at))
    cmz_set(&outputs[0], i, at[0] + k == at[1]);
  return CMZ_OK;
}

static cmz_expr describe_eye(cmz_describe *d, const cmz_node *n, uint32_t output,
                             const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_dtype compute =
      cmz_dtype_info(cmz_output_type(cmz_describe_module(d), n, output)->dtype)->compute;
  cmz_expr row = cmz_x_add(k, idx[0], cmz_x_index(k, cmz_node_int(n, "k", 0)));
  return cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, row, idx[1]), cmz_x_const(k, compute, 1),
                      cmz_x_const(k, compute, 0));
}

#define MAKE(NAME, COUNT, SINCE, NORMALIZE, INFER, EVAL, DESCRIBE, ...)                            \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = COUNT, .max_inputs = COUNT, .min_outputs = 1,        \
    .max_outputs = 1, .since = SINCE, .flags = CMZ_OP_CHEAP, .normalize = NORMALIZE,               \
    .infer = INFER, .eval = EVAL, .describe = DESCRIBE, ##__VA_ARGS__                              \
  }

const cmz_op cmz_ops_generate[] = {
    MAKE("Constant", 0, 1, normalize_constant, infer_constant, NULL, NULL,
         .attributes =
             "sparse_value:x@11 value:t!<11 value:t@11 value_float:f@12 value_floats:F@12 "
             "value_int:i@12 value_ints:I@12 value_string:s@12 value_strings:S@12"),
    MAKE("ConstantOfShape", 1, 9, NULL, infer_fill, eval_fill, describe_fill,
         .attributes = "value:t"),
    MAKE("Range", 3, 11, NULL, infer_range, eval_range, describe_range,
         .attributes = "stash_type:i@27"),
    MAKE("EyeLike", 1, 9, NULL, infer_eye, eval_eye, describe_eye, .attributes = "dtype:i k:i"),
    {.name = NULL},
};
