/* integer.c - cmz.IntegerConv and cmz.IntegerMatMul: 8-bit data times constant signed 8-bit
 * weights, summed exactly in i32. In: data, weights [M, C/group, kernel…] or [K, N], the sum of the
 * weights of each output channel (i32), and the data's zero point (a scalar, may be absent). Out:
 * i32. The sums of weights follow from the weights; they are an input so that kernels need not
 * compute them: the zero point is then taken off once per output instead of from every element, and
 * the data is summed as unsigned or (attribute `signed`) signed bytes, as the target's dot-product
 * instructions take them. Made by the pass `integers`. Always holds: the result is that of
 * ConvInteger and MatMulInteger, modulo 2^32.
 */
#include "contraction.h"
#include "convolution.h"
#include "ops.h"

enum { DATA, WEIGHTS, WEIGHT_SUMS, ZERO_POINT };

static const cmz_conv_inputs conv_inputs = {DATA, WEIGHTS, ZERO_POINT, CMZ_CONV_NONE};
static const cmz_matmul_inputs matmul_inputs = {DATA, WEIGHTS, ZERO_POINT, CMZ_MATMUL_NONE};

static cmz_status check_types(cmz_module *m, cmz_nid n, cmz_dim channels) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_dtype data = cmz_input_type(m, node, DATA)->dtype;
  if ((data != CMZ_U8 && data != CMZ_I8) || cmz_input_type(m, node, WEIGHTS)->dtype != CMZ_I8)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the operands are not 8-bit integers");
  if (cmz_input_type(m, node, WEIGHT_SUMS)->dtype != CMZ_I32)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the sums of the weights are not i32");
  CMZ_TRY(cmz_check_vector(m, n, WEIGHT_SUMS, channels, false));
  return cmz_check_vector(m, n, ZERO_POINT, cmz_dim_const(m->dims, 1), true);
}

static cmz_status infer_conv(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK];
  CMZ_TRY(cmz_conv_infer(m, n, conv_inputs, shape));
  CMZ_TRY(check_types(m, n, shape[1]));
  cmz_set_output(m, n, 0, CMZ_I32, cmz_input_type(m, cmz_node_get(m, n), DATA)->rank, shape);
  return CMZ_OK;
}

static cmz_status infer_matmul(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK + 2];
  uint32_t rank;
  CMZ_TRY(cmz_matmul_infer(m, n, matmul_inputs, shape, &rank));
  const cmz_type *w = cmz_input_type(m, cmz_node_get(m, n), WEIGHTS);
  if (w->rank != 2) return cmz_node_fail(m, n, CMZ_E_INPUT, "weights of rank %u", w->rank);
  CMZ_TRY(check_types(m, n, w->shape[1]));
  cmz_set_output(m, n, 0, CMZ_I32, rank, shape);
  return CMZ_OK;
}

/* What makes N's data bytes of the kind that it is summed as: unsigned, or signed with "signed". */
static int64_t shift_of(const cmz_module *m, const cmz_node *n) {
  bool is_signed = cmz_input_type(m, n, DATA)->dtype == CMZ_I8;
  if (cmz_node_int(n, "signed", 0) != 0) return is_signed ? 0 : -128;
  return is_signed ? 128 : 0;
}

/* SUM without what ZERO adds to it: ZERO times the weights of channel CHANNEL. */
static cmz_expr without_zero(cmz_describe *d, cmz_expr sum, cmz_expr zero, cmz_expr channel) {
  cmz_kernel *k = cmz_describe_kernel(d);
  int64_t value;
  if (!sum || (cmz_x_is_int(k, zero, &value) && value == 0)) return sum;
  cmz_expr weights = cmz_describe_input(d, WEIGHT_SUMS, &channel);
  return weights ? cmz_x_sub(k, sum, cmz_x_mul(k, zero, weights)) : 0;
}

static cmz_expr describe_conv(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  /* Only channels that lie together make dot products of bytes; else padding that adds nothing is
   * better. */
  if (cmz_node_int(n, "group", 1) != 1 || !cmz_value_get(m, n->inputs[DATA])->layout.count)
    return cmz_conv_describe(d, n, conv_inputs, idx);
  cmz_expr zero = 0, sum = cmz_conv_describe_shifted(d, n, conv_inputs, idx, shift_of(m, n), &zero);
  return without_zero(d, sum, zero, idx[1]);
}

static cmz_expr describe_matmul(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, DATA), w = *cmz_input_type(m, n, WEIGHTS);
  cmz_expr at[CMZ_MAX_RANK], column = idx[x.rank - 1];
  cmz_reducer r = {0};
  memcpy(at, idx, (x.rank - 1) * sizeof *at);
  at[x.rank - 1] = cmz_reducer_axis(d, &r, w.shape[0]);
  cmz_expr a = cmz_describe_input(d, DATA, at);
  cmz_expr b = cmz_describe_input(d, WEIGHTS, (cmz_expr[]){at[x.rank - 1], column});
  if (!a || !b) return 0;
  cmz_expr shift = cmz_x_int(k, CMZ_I32, shift_of(m, n)), zero = shift;
  if (cmz_node_input(n, ZERO_POINT)) {
    cmz_expr point = cmz_matmul_parameter(d, n, ZERO_POINT, cmz_x_index(k, 0));
    if (!point) return 0;
    zero = cmz_x_add(k, cmz_x_cast(k, point, CMZ_I32), shift);
  }
  a = cmz_x_add(k, cmz_x_cast(k, a, CMZ_I32), shift);
  cmz_expr product = cmz_x_mul(k, a, cmz_x_cast(k, b, CMZ_I32));
  return without_zero(d, cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, product), zero, column);
}

static cmz_status eval_conv(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  double *sums;
  CMZ_TRY(cmz_conv_eval(e, n, inputs, conv_inputs, &outputs[0], &sums));
  CMZ_TRY(cmz_eval_output(e, &outputs[0]));
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++)
    cmz_set_int(&outputs[0], (int64_t)i, (int64_t)sums[i]);
  return CMZ_OK;
}

static cmz_status eval_matmul(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  double *sums;
  int64_t *ints;
  CMZ_TRY(cmz_matmul_eval(e, n, inputs, matmul_inputs, &outputs[0], &sums, &ints));
  CMZ_TRY(cmz_eval_output(e, &outputs[0]));
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++)
    cmz_set_int(&outputs[0], (int64_t)i, ints[i]);
  return CMZ_OK;
}

/* ---- Pack: a copy that chooses its own layout ---- */

static cmz_expr describe_pack(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  (void)n;
  (void)output;
  return cmz_describe_input(d, 0, idx);
}

static cmz_status eval_pack(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  (void)e, (void)n;
  outputs[0] = inputs[0];
  return CMZ_OK;
}

#define ROW(text, kind)                                                                            \
  {                                                                                                \
    .domain = "cmz", .name = (text), .min_inputs = 3, .max_inputs = 4, .min_outputs = 1,           \
    .max_outputs = 1, .since = 1, .flags = CMZ_OP_CONTRACTION, .infer = infer_##kind,              \
    .eval = eval_##kind, .describe = describe_##kind                                               \
  }

const cmz_op cmz_ops_integer[] = {
    ROW("IntegerConv", conv),
    ROW("IntegerMatMul", matmul),
    {.name = "Pack",
     .domain = "cmz",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_POINTWISE | CMZ_OP_CHEAP,
     .infer = cmz_infer_unary,
     .eval = eval_pack,
     .describe = describe_pack},
    {.name = NULL},
};
