/* quantize.c - QuantizeLinear and its inverse, DynamicQuantizeLinear, QLinearConv and
 * QLinearMatMul. The com.microsoft QLinear operators are in quantize_microsoft.c. In: tensors with
 * scales and zero points. Out: quantised or real tensors. Always holds: integer sums are exact in
 * i32; requantisation multiplies in f32, rounds half to even and saturates. */
#include "quantize.h"
#include "contraction.h"
#include "convolution.h"

/* ---- scales and zero points ---- */

/* Largest finite value of a narrow float type. */
static double greatest_finite(cmz_dtype t) {
  switch (t) {
  case CMZ_F8E4M3FN:
    return 448;
  case CMZ_F8E4M3FNUZ:
    return 240;
  case CMZ_F8E5M2:
  case CMZ_F8E5M2FNUZ:
    return 57344;
  case CMZ_F4E2M1:
    return 6;
  default:
    return 0;
  }
}

static void int_range(cmz_dtype t, double *low, double *high) {
  uint32_t bits = cmz_dtype_info(t)->bits;
  bool is_signed = cmz_dtype_info(t)->class_ == CMZ_CLASS_SIGNED;
  *low = is_signed ? -ldexp(1, (int)bits - 1) : 0;
  *high = ldexp(1, (int)bits - (is_signed ? 1 : 0)) - 1;
}

/* Element of parameter INPUT (scale or zero point) that belongs to element IDX of input 0. */
static cmz_expr parameter(cmz_describe *d, const cmz_node *n, uint32_t input, const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0), *t = cmz_input_type(m, n, input);
  if (!t) return 0;
  cmz_expr at[CMZ_MAX_RANK] = {cmz_x_index(k, 0)};
  uint32_t axis;
  if (t->rank == 0 || (t->rank == 1 && cmz_dim_is(m->dims, t->shape[0], 1)))
    return cmz_describe_input(d, input, at);
  if (cmz_infer_axis(m, cmz_node_self(m, n), cmz_node_int(n, "axis", 1), x.rank, &axis) != CMZ_OK)
    return 0;
  if (t->rank == 1) return cmz_describe_input(d, input, idx + axis);
  int64_t block = cmz_node_int(n, "block_size", 0);
  for (uint32_t i = 0; i < x.rank; i++) at[i] = idx[i];
  if (block > 1) at[axis] = cmz_x2(k, CMZ_X_FLOORDIV, idx[axis], cmz_x_index(k, block));
  return cmz_describe_input(d, input, at);
}

/* Linear index of the parameter's element for coordinates C of X. */
static int64_t parameter_index(const cmz_node *n, const cmz_array *x, const cmz_array *p,
                               const int64_t *c) {
  int64_t axis = cmz_node_int(n, "axis", 1), block = cmz_node_int(n, "block_size", 0);
  if (cmz_array_count(p) == 1) return 0;
  if (axis < 0) axis += x->rank;
  if (axis < 0 || axis >= x->rank) return 0;
  if (p->rank == 1) return c[axis];
  int64_t index = 0;
  for (uint32_t i = 0; i < x->rank; i++)
    index = index * p->shape[i] + (i == axis && block > 1 ? c[i] / block : c[i]);
  return index;
}

/* Checks the shapes of scale and zero point against those of input 0. */
static cmz_status check_parameters(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  for (uint32_t i = 1; i < 3; i++) {
    const cmz_type *p = cmz_input_type(m, node, i);
    if (!p || p->rank == 0 || (p->rank == 1 && cmz_dim_is(m->dims, p->shape[0], 1))) continue;
    uint32_t axis;
    CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", 1), x->rank, &axis));
    int64_t block = cmz_node_int(node, "block_size", 0);
    bool fits = p->rank == 1 ? !cmz_dims_differ(m, p->shape[0], x->shape[axis])
                             : p->rank == x->rank && block > 0;
    for (uint32_t j = 0; fits && p->rank > 1 && j < x->rank; j++) {
      cmz_dim want = x->shape[j];
      if (j == axis) want = cmz_dim_ceildiv(m->dims, want, cmz_dim_const(m->dims, block));
      fits = !cmz_dims_differ(m, p->shape[j], want);
    }
    if (!fits)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the shape of input %u does not fit the data", i);
  }
  return CMZ_OK;
}

cmz_expr cmz_describe_requantize(cmz_describe *d, cmz_expr v, cmz_expr zero_point, cmz_dtype to) {
  cmz_kernel *k = cmz_describe_kernel(d);
  double low, high;
  int_range(to, &low, &high);
  v = cmz_x1(k, CMZ_X_ROUND_EVEN, v);
  if (zero_point) v = cmz_x_add(k, v, cmz_x_cast(k, zero_point, cmz_x_dtype(k, v)));
  v = cmz_x_clamp(k, v, cmz_x_like(k, v, low), cmz_x_like(k, v, high));
  return cmz_x_cast(k, v, cmz_dtype_info(to)->compute);
}

double cmz_requantize(float v, double zero_point, cmz_dtype to) {
  double low, high;
  int_range(to, &low, &high);
  double q = nearbyint((double)v) + zero_point;
  return q < low ? low : q > high ? high : q;
}

/* ---- QuantizeLinear ---- */

static cmz_status infer_quantize(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *zero_point = cmz_input_type(m, node, 2);
  cmz_dtype to = (cmz_dtype)cmz_node_int(node, "output_dtype", 0);
  if (zero_point) to = zero_point->dtype;
  if (to == CMZ_UNDEFINED) to = CMZ_U8;
  if (!cmz_dtype_is_int(to) && greatest_finite(to) == 0)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "quantisation to %s", cmz_dtype_info(to)->name);
  CMZ_TRY(check_parameters(m, n));
  return cmz_infer_same(m, n, 0, 0, to);
}

static cmz_expr describe_quantize(cmz_describe *d, const cmz_node *n, uint32_t output,
                                  const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_dtype to = cmz_output_type(m, n, 0)->dtype;
  cmz_expr x = cmz_describe_input(d, 0, idx), scale = parameter(d, n, 1, idx);
  if (!x || !scale) return 0;
  x = cmz_x2(k, CMZ_X_DIV, cmz_x_cast(k, x, CMZ_F32), cmz_x_cast(k, scale, CMZ_F32));
  cmz_expr zero_point = cmz_node_input(n, 2) ? parameter(d, n, 2, idx) : 0;
  if (cmz_node_input(n, 2) && !zero_point) return 0;
  if (cmz_dtype_is_int(to)) return cmz_describe_requantize(d, x, zero_point, to);
  if (zero_point) x = cmz_x_add(k, x, cmz_x_cast(k, zero_point, CMZ_F32));
  double limit = greatest_finite(to);
  if (cmz_node_int(n, "saturate", 1))
    x = cmz_x_clamp(k, x, cmz_x_like(k, x, -limit), cmz_x_like(k, x, limit));
  return cmz_x_cast_through(k, x, to);
}

static cmz_status eval_quantize(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                cmz_array *outputs) {
  const cmz_array *x = &inputs[0],
                  *zero_point = n->input_count > 2 && inputs[2].data ? &inputs[2] : NULL;
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, x->shape));
  bool saturate = cmz_node_int(n, "saturate", 1) != 0;
  for (size_t i = 0; i < cmz_array_count(x); i++) {
    int64_t c[CMZ_MAX_RANK];
    cmz_array_coordinates(x, i, c);
    float v = (float)cmz_get(x, (int64_t)i) /
              (float)cmz_get(&inputs[1], parameter_index(n, x, &inputs[1], c));
    double z = zero_point ? cmz_get(zero_point, parameter_index(n, x, zero_point, c)) : 0;
    if (cmz_dtype_is_int(outputs[0].dtype))
      cmz_set(&outputs[0], (int64_t)i, cmz_requantize(v, z, outputs[0].dtype));
    else cmz_dtype_set_f64_mode(outputs[0].dtype, outputs[0].data, i, (double)v + z, saturate);
  }
  return CMZ_OK;
}

/* ---- DequantizeLinear ---- */

static cmz_status infer_dequantize(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_dtype to = (cmz_dtype)cmz_node_int(node, "output_dtype", 0);
  if (to == CMZ_UNDEFINED) to = cmz_input_type(m, node, 1)->dtype;
  CMZ_TRY(check_parameters(m, n));
  return cmz_infer_same(m, n, 0, 0, to);
}

static cmz_expr describe_dequantize(cmz_describe *d, const cmz_node *n, uint32_t output,
                                    const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_dtype to = cmz_dtype_info(cmz_output_type(m, n, 0)->dtype)->compute;
  bool ints = cmz_dtype_is_int(cmz_input_type(m, n, 0)->dtype);
  cmz_expr x = cmz_describe_input(d, 0, idx), scale = parameter(d, n, 1, idx);
  if (!x || !scale) return 0;
  x = cmz_x_cast(k, x, ints ? CMZ_I32 : CMZ_F32);
  if (cmz_node_input(n, 2)) {
    cmz_expr zero_point = parameter(d, n, 2, idx);
    if (!zero_point) return 0;
    x = cmz_x_sub(k, x, cmz_x_cast(k, zero_point, cmz_x_dtype(k, x)));
  }
  return cmz_x_mul(k, cmz_x_cast(k, x, to), cmz_x_cast(k, scale, to));
}

static cmz_status eval_dequantize(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                  cmz_array *outputs) {
  const cmz_array *x = &inputs[0],
                  *zero_point = n->input_count > 2 && inputs[2].data ? &inputs[2] : NULL;
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, x->shape));
  for (size_t i = 0; i < cmz_array_count(x); i++) {
    int64_t c[CMZ_MAX_RANK];
    cmz_array_coordinates(x, i, c);
    double v = cmz_get(x, (int64_t)i);
    if (zero_point) v -= cmz_get(zero_point, parameter_index(n, x, zero_point, c));
    cmz_set(&outputs[0], (int64_t)i, v * cmz_get(&inputs[1], parameter_index(n, x, &inputs[1], c)));
  }
  return CMZ_OK;
}

/* ---- DynamicQuantizeLinear ---- */

static cmz_status infer_dynamic(cmz_module *m, cmz_nid n) {
  cmz_set_output(m, n, 1, CMZ_F32, 0, NULL);
  cmz_set_output(m, n, 2, CMZ_U8, 0, NULL);
  return cmz_infer_same(m, n, 0, 0, CMZ_U8);
}

static cmz_status expand_dynamic(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  cmz_vid x = node.inputs[0];
  cmz_attr drop = cmz_attr_int("keepdims", 0);
  cmz_vid zero = cmz_build_scalar_like(m, n, x, 0), one = cmz_build_scalar_like(m, n, x, 1),
          top = cmz_build_scalar_like(m, n, x, 255);
  cmz_vid high = cmz_build2(m, n, "Max", cmz_build_with(m, n, "ReduceMax", 1, &x, 1, &drop), zero);
  cmz_vid low = cmz_build2(m, n, "Min", cmz_build_with(m, n, "ReduceMin", 1, &x, 1, &drop), zero);
  cmz_vid range = cmz_build2(m, n, "Sub", high, low);
  cmz_vid scale = cmz_build3(m, n, "Where", cmz_build2(m, n, "Equal", range, zero), one,
                             cmz_build2(m, n, "Div", range, top));
  cmz_vid offset = cmz_build2(m, n, "Sub", zero, cmz_build2(m, n, "Div", low, scale));
  offset = cmz_build1(m, n, "Round", cmz_build3(m, n, "Clip", offset, zero, top));
  cmz_vid zero_point = cmz_build_cast(m, n, offset, CMZ_U8);
  cmz_vid y = cmz_build3(m, n, "QuantizeLinear", x, scale, zero_point);
  if (!y) return CMZ_E_INTERNAL;
  if (cmz_node_output(&node, 1)) cmz_value_replace_uses(m, node.outputs[1], scale);
  if (cmz_node_output(&node, 2)) cmz_value_replace_uses(m, node.outputs[2], zero_point);
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

/* ---- QLinearConv and QLinearMatMul: inputs a, scale, zero point, b, scale, zero point, y scale,
 * zero point ---- */

static const cmz_conv_inputs conv_inputs = {0, 3, 2, 5};
static const cmz_matmul_inputs matmul_inputs = {0, 3, 2, 5};

static cmz_status infer_qlinear_conv(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK];
  CMZ_TRY(cmz_conv_infer(m, n, conv_inputs, shape));
  CMZ_TRY(cmz_check_vector(m, n, 1, cmz_dim_const(m->dims, 1), true));
  static const uint8_t per_channel[] = {4, 6, 7};
  for (uint32_t i = 0; i < 3; i++) CMZ_TRY(cmz_check_vector(m, n, per_channel[i], shape[1], true));
  CMZ_TRY(cmz_check_vector(m, n, 8, shape[1], false));
  const cmz_node *node = cmz_node_get(m, n);
  cmz_set_output(m, n, 0, cmz_input_type(m, node, 7)->dtype, cmz_input_type(m, node, 0)->rank,
                 shape);
  return CMZ_OK;
}

static cmz_status infer_qlinear_matmul(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK + 2];
  uint32_t rank;
  CMZ_TRY(cmz_matmul_infer(m, n, matmul_inputs, shape, &rank));
  const cmz_type a = *cmz_input_type(m, cmz_node_get(m, n), 0),
                 b = *cmz_input_type(m, cmz_node_get(m, n), 3);
  cmz_dim one = cmz_dim_const(m->dims, 1), rows = a.rank > 1 ? a.shape[a.rank - 2] : one;
  cmz_dim columns = b.rank > 1 ? b.shape[b.rank - 1] : one;
  for (uint32_t i = 1; i < 8; i++)
    if (i != 3) CMZ_TRY(cmz_check_vector(m, n, i, i < 3 ? rows : columns, true));
  cmz_set_output(m, n, 0, cmz_input_type(m, cmz_node_get(m, n), 7)->dtype, rank, shape);
  return CMZ_OK;
}

/* The i32 sum ACC as output element; ROW and COLUMN choose among the scales of the operands. */
static cmz_expr requantized(cmz_describe *d, const cmz_node *n, cmz_expr acc, cmz_expr row,
                            cmz_expr column) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr a = cmz_matmul_parameter(d, n, 1, row), b = cmz_matmul_parameter(d, n, 4, column);
  cmz_expr y = cmz_matmul_parameter(d, n, 6, column),
           zero_point = cmz_matmul_parameter(d, n, 7, column);
  if (!acc || !a || !b || !y || !zero_point) return 0;
  cmz_expr factor = cmz_x_mul(k, cmz_x_cast(k, a, CMZ_F32), cmz_x_cast(k, b, CMZ_F32));
  factor = cmz_x2(k, CMZ_X_DIV, factor, cmz_x_cast(k, y, CMZ_F32));
  cmz_expr v = cmz_x_mul(k, cmz_x_cast(k, acc, CMZ_F32), factor);
  return cmz_describe_requantize(d, v, zero_point,
                                 cmz_output_type(cmz_describe_module(d), n, 0)->dtype);
}

static cmz_expr describe_qlinear_conv(cmz_describe *d, const cmz_node *n, uint32_t output,
                                      const cmz_expr *idx) {
  (void)output;
  cmz_expr acc = cmz_conv_describe(d, n, conv_inputs, idx);
  if (acc && cmz_node_input(n, 8)) {
    cmz_expr bias = cmz_describe_input(d, 8, idx + 1);
    acc = bias ? cmz_x_add(cmz_describe_kernel(d), acc, bias) : 0;
  }
  return requantized(d, n, acc, idx[1], idx[1]);
}

static cmz_expr describe_qlinear_matmul(cmz_describe *d, const cmz_node *n, uint32_t output,
                                        const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  uint32_t rank = cmz_output_type(m, n, 0)->rank;
  bool has_row = cmz_input_type(m, n, 0)->rank > 1, has_column = cmz_input_type(m, n, 3)->rank > 1;
  cmz_expr zero = cmz_x_index(cmz_describe_kernel(d), 0);
  cmz_expr column = has_column ? idx[rank - 1] : zero,
           row = has_row ? idx[rank - 1 - has_column] : zero;
  return requantized(d, n, cmz_matmul_describe(d, n, matmul_inputs, idx), row, column);
}

static double pick(const cmz_array *a, int64_t i) {
  return cmz_get(a, cmz_array_count(a) == 1 ? 0 : i);
}

static void requantize_all(const cmz_array *inputs, cmz_array *out, size_t i, double acc,
                           int64_t row, int64_t column) {
  float factor = (float)pick(&inputs[1], row) * (float)pick(&inputs[4], column) /
                 (float)pick(&inputs[6], column);
  cmz_set(out, (int64_t)i,
          cmz_requantize((float)acc * factor, pick(&inputs[7], column), out->dtype));
}

static cmz_status eval_qlinear_conv(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                    cmz_array *outputs) {
  double *sums;
  CMZ_TRY(cmz_conv_eval(e, n, inputs, conv_inputs, &outputs[0], &sums));
  CMZ_TRY(cmz_eval_output(e, &outputs[0]));
  bool bias = n->input_count > 8 && inputs[8].data;
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++) {
    int64_t c[CMZ_MAX_RANK];
    cmz_array_coordinates(&outputs[0], i, c);
    requantize_all(inputs, &outputs[0], i, sums[i] + (bias ? cmz_get(&inputs[8], c[1]) : 0), c[1],
                   c[1]);
  }
  return CMZ_OK;
}

static cmz_status eval_qlinear_matmul(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                      cmz_array *outputs) {
  double *sums;
  int64_t *ints;
  cmz_array *out = &outputs[0];
  CMZ_TRY(cmz_matmul_eval(e, n, inputs, matmul_inputs, out, &sums, &ints));
  CMZ_TRY(cmz_eval_output(e, out));
  bool has_row = inputs[0].rank > 1, has_column = inputs[3].rank > 1;
  for (size_t i = 0; i < cmz_array_count(out); i++) {
    int64_t c[CMZ_MAX_RANK];
    cmz_array_coordinates(out, i, c);
    int64_t column = has_column ? c[out->rank - 1] : 0,
            row = has_row ? c[out->rank - 1 - has_column] : 0;
    requantize_all(inputs, out, i, (double)ints[i], row, column);
  }
  return CMZ_OK;
}

#define Q(DOMAIN, NAME, MIN, MAX, SINCE, FUNCTION, FLAGS, ...)                                     \
  {                                                                                                \
    .name = NAME, .domain = DOMAIN, .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,        \
    .max_outputs = 1, .since = SINCE, .flags = FLAGS, .infer = infer_##FUNCTION,                   \
    .eval = eval_##FUNCTION, .describe = describe_##FUNCTION, ##__VA_ARGS__                        \
  }
#define M(NAME, MIN, MAX, ...)                                                                     \
  {                                                                                                \
    .name = NAME, .domain = "com.microsoft", .min_inputs = MIN, .max_inputs = MAX,                 \
    .min_outputs = 1, .max_outputs = 1, .since = 1, .infer = cmz_infer_microsoft,                  \
    .expand = cmz_expand_microsoft, ##__VA_ARGS__                                                  \
  }

const cmz_op cmz_ops_quantize[] = {
    Q("", "QuantizeLinear", 2, 3, 10, quantize, CMZ_OP_POINTWISE | CMZ_OP_CHEAP,
      .attributes = "axis:i@13 block_size:i@21 output_dtype:i@21 precision:i@23 saturate:i@19"),
    Q("com.microsoft", "QuantizeLinear", 2, 3, 1, quantize, CMZ_OP_POINTWISE | CMZ_OP_CHEAP,
      .attributes = "axis:i block_size:i saturate:i"),
    Q("", "DequantizeLinear", 2, 3, 10, dequantize, CMZ_OP_POINTWISE | CMZ_OP_CHEAP,
      .attributes = "axis:i@13 block_size:i@21 output_dtype:i@23"),
    Q("com.microsoft", "DequantizeLinear", 2, 3, 1, dequantize, CMZ_OP_POINTWISE | CMZ_OP_CHEAP,
      .attributes = "axis:i block_size:i"),
    {.name = "DynamicQuantizeLinear",
     .domain = "",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 3,
     .since = 11,
     .infer = infer_dynamic,
     .expand = expand_dynamic},
    Q("", "QLinearConv", 8, 9, 10, qlinear_conv, CMZ_OP_CONTRACTION,
      .attributes = "auto_pad:s dilations:I group:i kernel_shape:I pads:I strides:I"),
    Q("", "QLinearMatMul", 8, 8, 10, qlinear_matmul, CMZ_OP_CONTRACTION),
    M("QLinearAdd", 7, 8),
    M("QLinearMul", 7, 8),
    M("QLinearSigmoid", 4, 5),
    M("QLinearLeakyRelu", 4, 5, .attributes = "alpha:f"),
    M("QLinearSoftmax", 5, 5, .attributes = "axis:i opset:i!"),
    M("QLinearAveragePool", 4, 5,
      .attributes = "auto_pad:s ceil_mode:i channels_last:i count_include_pad:i kernel_shape:I! "
                    "pads:I strides:I"),
    M("QLinearGlobalAveragePool", 5, 5, .attributes = "channels_last:i"),
    M("QLinearConcat", 3, 255, .attributes = "axis:i!"),
    M("MatMulIntegerToFloat", 4, 7),
    M("DynamicQuantizeMatMul", 3, 5),
    M("QGemm", 6, 9, .attributes = "alpha:f transA:i transB:i"),
    {.name = NULL},
};
