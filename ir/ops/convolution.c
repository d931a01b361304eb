/* convolution.c - Conv and ConvInteger of any number of spatial dimensions, and the sum they share
 * with the quantised convolutions. ConvTranspose is in convolution_transpose.c. In: X [N, C,
 * spatial…], W [M, C/group, kernel…]. Out: [N, M, spatial…]. Always holds: a load outside the input
 * is under a SELECT, which is left out along dimensions that have no padding. */
#include "convolution.h"
#include "ops.h"

#define CHANNEL_BLOCK 16
#define POINTWISE_CHAIN 128

static const cmz_conv_inputs plain_inputs = {0, 1, CMZ_CONV_NONE, CMZ_CONV_NONE};
static const cmz_conv_inputs integer_inputs = {0, 1, 2, 3};

static cmz_status resolve(cmz_module *m, cmz_nid n, cmz_conv_inputs in, cmz_window *w) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, in.x), *weights = cmz_input_type(m, node, in.w);
  if (x->rank < 3 || weights->rank != x->rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank %u and the weights have rank %u",
                         x->rank, weights->rank);
  return cmz_window_resolve(m, n, x->rank - 2, x->shape + 2, weights->shape + 2, false, w);
}

cmz_status cmz_conv_infer(cmz_module *m, cmz_nid n, cmz_conv_inputs in, cmz_dim *shape) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_window w;
  CMZ_TRY(resolve(m, n, in, &w));
  const cmz_type *x = cmz_input_type(m, node, in.x), *weights = cmz_input_type(m, node, in.w);
  int64_t group = cmz_node_int(node, "group", 1), out_channels;
  if (group < 1) return cmz_node_fail(m, n, CMZ_E_INPUT, "group is %" PRId64, group);
  cmz_dim channels = cmz_dim_mul(m->dims, weights->shape[1], cmz_dim_const(m->dims, group));
  if (cmz_dims_differ(m, channels, x->shape[1]))
    return cmz_node_fail(m, n, CMZ_E_INPUT,
                         "the input's channels do not agree with the weights' shape and group");
  if (cmz_dim_is_const(m->dims, weights->shape[0], &out_channels) && out_channels % group)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%" PRId64 " output channels in %" PRId64 " groups",
                         out_channels, group);
  shape[0] = x->shape[0];
  shape[1] = weights->shape[0];
  for (uint32_t i = 0; i < w.rank; i++) shape[2 + i] = w.output[i];
  if (in.x_zero_point != CMZ_CONV_NONE)
    CMZ_TRY(cmz_check_vector(m, n, in.x_zero_point, cmz_dim_const(m->dims, 1), true));
  if (in.w_zero_point != CMZ_CONV_NONE)
    CMZ_TRY(cmz_check_vector(m, n, in.w_zero_point, shape[1], true));
  return CMZ_OK;
}

static cmz_status infer_conv(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK];
  CMZ_TRY(cmz_conv_infer(m, n, plain_inputs, shape));
  CMZ_TRY(cmz_check_vector(m, n, 2, shape[1], false));
  const cmz_type *x = cmz_input_type(m, cmz_node_get(m, n), 0);
  const cmz_type *bias = cmz_input_type(m, cmz_node_get(m, n), 2);
  if (bias && cmz_dims_differ(m, bias->shape[0], shape[1]))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the bias is not one number per output channel");
  cmz_set_output(m, n, 0, x->dtype, x->rank, shape);
  return CMZ_OK;
}

static cmz_status infer_conv_integer(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK];
  CMZ_TRY(cmz_conv_infer(m, n, integer_inputs, shape));
  const cmz_type *x = cmz_input_type(m, cmz_node_get(m, n), 0);
  cmz_set_output(m, n, 0, CMZ_I32, x->rank, shape);
  return CMZ_OK;
}

/* Input INPUT as a zero point for channel C: absent (0), a scalar, or one per channel. */
static cmz_expr zero_point(cmz_describe *d, const cmz_node *n, uint8_t input, cmz_expr c) {
  cmz_module *m = cmz_describe_module(d);
  const cmz_type *type = input == CMZ_CONV_NONE ? NULL : cmz_input_type(m, n, input);
  if (!type) return 0;
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr at = type->rank && !cmz_dim_is(m->dims, type->shape[0], 1) ? c : cmz_x_index(k, 0);
  return cmz_x_cast(k, cmz_describe_input(d, input, &at), CMZ_I32);
}

/* How many input channels' products make one chain of additions. The channels of a block, or of a
 * few blocks of one tap each, are summed by themselves: short chains round less than one long chain
 * does, and these lengths are those of the kernels that most reference results were computed with,
 * so that functions which magnify the last bits (a sigmoid near 0) are given the same bits. */
static uint32_t chain_of(const cmz_module *m, const cmz_type *weights) {
  int64_t channels, taps;
  cmz_dim product = cmz_dim_product(m->dims, weights->shape + 2, weights->rank - 2u);
  if (!cmz_dim_is_const(m->dims, weights->shape[1], &channels) ||
      !cmz_dim_is_const(m->dims, product, &taps))
    return 0;
  if (channels < CHANNEL_BLOCK) return 1;
  return taps > 1 ? CHANNEL_BLOCK : POINTWISE_CHAIN;
}

/* The sum of products. SHIFTED (may be NULL): instead of taking the zero point from every element,
 * SHIFT_BY is added and what lies outside is *SHIFTED, which becomes the zero point so moved. */
static cmz_expr describe_sum(cmz_describe *d, const cmz_node *n, cmz_conv_inputs in,
                             const cmz_expr *idx, int64_t shift_by, cmz_expr *shifted) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_window w;
  if (resolve(m, cmz_node_self(m, n), in, &w) != CMZ_OK) return 0;
  const cmz_type *weights = cmz_input_type(m, n, in.w);
  cmz_reducer r = {0};
  cmz_expr wi[CMZ_MAX_RANK], xi[CMZ_MAX_RANK], inside = 0;
  wi[0] = idx[1];
  wi[1] = cmz_reducer_axis(d, &r, weights->shape[1]);
  if (r.count == 1 && cmz_dtype_is_float(cmz_input_type(m, n, in.x)->dtype))
    k->axes.data[r.axes[0]].chain = chain_of(m, weights);
  xi[0] = idx[0];
  xi[1] = wi[1];
  int64_t group = cmz_node_int(n, "group", 1);
  if (group > 1) {
    cmz_dim per_group = cmz_dim_floordiv(m->dims, weights->shape[0], cmz_dim_const(m->dims, group));
    cmz_expr g = cmz_x2(k, CMZ_X_FLOORDIV, idx[1], cmz_describe_dim(d, per_group));
    xi[1] = cmz_x_add(k, cmz_x_mul(k, g, cmz_describe_dim(d, weights->shape[1])), wi[1]);
  }
  for (uint32_t i = 0; i < w.rank; i++) {
    wi[2 + i] = cmz_reducer_axis(d, &r, w.kernel[i]);
    xi[2 + i] = cmz_window_position(d, &w, i, idx[2 + i], wi[2 + i]);
    inside = cmz_x_and(k, inside, cmz_window_inside(d, &w, i, xi[2 + i]));
  }
  if (r.overflow) return 0;
  cmz_expr a = cmz_describe_input(d, in.x, xi), b = cmz_describe_input(d, in.w, wi);
  if (!a || !b) return 0;
  cmz_expr outside = 0;
  if (shifted) {
    cmz_expr z = zero_point(d, n, in.x_zero_point, xi[1]);
    cmz_expr shift = cmz_x_int(k, CMZ_I32, shift_by);
    a = cmz_x_add(k, cmz_x_cast(k, a, CMZ_I32), shift);
    b = cmz_x_cast(k, b, CMZ_I32);
    outside = *shifted = z ? cmz_x_add(k, z, shift) : shift;
  } else if (in.x_zero_point != CMZ_CONV_NONE || in.w_zero_point != CMZ_CONV_NONE) {
    a = cmz_x_cast(k, a, CMZ_I32);
    b = cmz_x_cast(k, b, CMZ_I32);
    cmz_expr za = zero_point(d, n, in.x_zero_point, xi[1]);
    cmz_expr zb = zero_point(d, n, in.w_zero_point, wi[0]);
    if (za) a = cmz_x_sub(k, a, za);
    if (zb) b = cmz_x_sub(k, b, zb);
  }
  if (inside) a = cmz_x_select(k, inside, a, outside ? outside : cmz_x_like(k, a, 0));
  return cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, cmz_x_mul(k, a, b));
}

cmz_expr cmz_conv_describe(cmz_describe *d, const cmz_node *n, cmz_conv_inputs in,
                           const cmz_expr *idx) {
  return describe_sum(d, n, in, idx, 0, NULL);
}

cmz_expr cmz_conv_describe_shifted(cmz_describe *d, const cmz_node *n, cmz_conv_inputs in,
                                   const cmz_expr *idx, int64_t shift, cmz_expr *zero) {
  return describe_sum(d, n, in, idx, shift, zero);
}

static cmz_expr describe_conv(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  (void)output;
  cmz_expr sum = cmz_conv_describe(d, n, plain_inputs, idx);
  if (!sum || !cmz_node_input(n, 2)) return sum;
  cmz_expr bias = cmz_describe_input(d, 2, idx + 1);
  return bias ? cmz_x_add(cmz_describe_kernel(d), sum, bias) : 0;
}

static cmz_expr describe_conv_integer(cmz_describe *d, const cmz_node *n, uint32_t output,
                                      const cmz_expr *idx) {
  (void)output;
  return cmz_conv_describe(d, n, integer_inputs, idx);
}

/* Zero point for channel C of input INPUT. */
static double fixed_zero_point(const cmz_array *inputs, uint32_t count, uint8_t input, int64_t c) {
  if (input >= count || !inputs[input].data) return 0;
  const cmz_array *z = &inputs[input];
  return cmz_get(z, cmz_array_count(z) == 1 ? 0 : c);
}

/* Sum for one output position. */
static double sum_at(const cmz_array *x, const cmz_array *wt, const cmz_window_fixed *w,
                     const int64_t *o, int64_t first_channel, double zx, double zw) {
  int64_t extents[CMZ_MAX_RANK], t[CMZ_MAX_RANK] = {0};
  double sum = 0;
  extents[0] = wt->shape[1];
  for (uint32_t i = 0; i < w->rank; i++) extents[1 + i] = w->kernel[i];
  for (uint32_t i = 0; i <= w->rank; i++)
    if (extents[i] == 0) return 0;
  do {
    int64_t xi = o[0] * x->shape[1] + first_channel + t[0], wi = o[1] * wt->shape[1] + t[0];
    bool inside = true;
    for (uint32_t i = 0; i < w->rank; i++) {
      int64_t p = o[2 + i] * w->stride[i] - w->pad_begin[i] + t[1 + i] * w->dilation[i];
      inside = inside && p >= 0 && p < w->input[i];
      xi = xi * w->input[i] + p;
      wi = wi * w->kernel[i] + t[1 + i];
    }
    if (inside) sum += (cmz_get(x, xi) - zx) * (cmz_get(wt, wi) - zw);
  } while (cmz_odometer(w->rank + 1, extents, t));
  return sum;
}

cmz_status cmz_conv_eval(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                         cmz_conv_inputs in, cmz_array *out, double **sums) {
  const cmz_array *x = &inputs[in.x], *wt = &inputs[in.w];
  cmz_window_fixed w;
  int64_t group = cmz_node_int(n, "group", 1);
  if (x->rank < 3 || wt->rank != x->rank || group < 1 || x->shape[1] != wt->shape[1] * group ||
      wt->shape[0] % group)
    return cmz_eval_fail(e, "the input's and the weights' shapes do not agree");
  CMZ_TRY(cmz_window_fix(e, x->rank - 2, x->shape + 2, wt->shape + 2, false, &w));
  out->rank = x->rank;
  out->shape[0] = x->shape[0];
  out->shape[1] = wt->shape[0];
  for (uint32_t i = 0; i < w.rank; i++) out->shape[2 + i] = w.output[i];
  size_t count = cmz_array_count(out);
  *sums = CMZ_NEW_ARRAY(e->arena, double, count);
  int64_t per_group = wt->shape[0] / group;
  for (size_t i = 0; i < count; i++) {
    int64_t o[CMZ_MAX_RANK];
    cmz_array_coordinates(out, i, o);
    int64_t first = o[1] / per_group * wt->shape[1];
    double zx = fixed_zero_point(inputs, n->input_count, in.x_zero_point, o[1]);
    double zw = fixed_zero_point(inputs, n->input_count, in.w_zero_point, o[1]);
    (*sums)[i] = sum_at(x, wt, &w, o, first, zx, zw);
  }
  return CMZ_OK;
}

static cmz_status eval_with(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs, cmz_conv_inputs in, const cmz_array *bias) {
  double *sums;
  CMZ_TRY(cmz_conv_eval(e, n, inputs, in, &outputs[0], &sums));
  CMZ_TRY(cmz_eval_output(e, &outputs[0]));
  size_t count = cmz_array_count(&outputs[0]), inner = 1;
  for (uint32_t i = 2; i < outputs[0].rank; i++) inner *= (size_t)outputs[0].shape[i];
  for (size_t i = 0; i < count; i++) {
    size_t channel = i / inner % (size_t)outputs[0].shape[1];
    cmz_set(&outputs[0], (int64_t)i, sums[i] + (bias ? cmz_get(bias, (int64_t)channel) : 0));
  }
  return CMZ_OK;
}

static cmz_status eval_conv(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  bool bias = n->input_count > 2 && inputs[2].data;
  return eval_with(e, n, inputs, outputs, plain_inputs, bias ? &inputs[2] : NULL);
}

static cmz_status eval_conv_integer(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                    cmz_array *outputs) {
  return eval_with(e, n, inputs, outputs, integer_inputs, NULL);
}

/* ---- com.microsoft FusedConv: Conv, plus a fourth input, then an activation ---- */

/* The activations that it may name, and the attributes that its numbers are given as. */
static const struct {
  const char *name, *numbers[2];
} activations[] = {{"Relu", {NULL, NULL}},
                   {"Tanh", {NULL, NULL}},
                   {"Sigmoid", {NULL, NULL}},
                   {"LeakyRelu", {"alpha", NULL}},
                   {"HardSigmoid", {"alpha", "beta"}},
                   {"Clip", {NULL, NULL}}};

static cmz_status infer_fused(cmz_module *m, cmz_nid n) {
  const char *name = cmz_node_string(cmz_node_get(m, n), "activation", "");
  bool known = name[0] == '\0';
  for (size_t i = 0; i < CMZ_COUNT_OF(activations); i++)
    known |= !strcmp(activations[i].name, name);
  if (!known) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the activation %s", name);
  CMZ_TRY(infer_conv(m, n));
  const cmz_type *sum = cmz_input_type(m, cmz_node_get(m, n), 3);
  if (!sum) return CMZ_OK;
  const cmz_type *y = cmz_output_type(m, cmz_node_get(m, n), 0);
  return cmz_check_shape(m, n, 3, y->rank, y->shape);
}

static cmz_vid activated(cmz_module *m, cmz_nid n, const cmz_node *node, cmz_vid y) {
  const char *name = cmz_node_string(node, "activation", "");
  const cmz_attr *given = cmz_node_attr(node, "activation_params");
  uint32_t numbers = given ? given->count : 0, count = 0;
  cmz_attr attrs[2];
  if (!strcmp(name, "Clip")) {
    if (numbers != 2) return y;
    cmz_vid in[3] = {y, cmz_build_scalar_like(m, n, y, (double)given->floats[0]),
                     cmz_build_scalar_like(m, n, y, (double)given->floats[1])};
    return cmz_build_node(m, n, "Clip", 3, in, NULL);
  }
  for (size_t i = 0; i < CMZ_COUNT_OF(activations); i++) {
    if (strcmp(activations[i].name, name)) continue;
    for (; count < 2 && count < numbers && activations[i].numbers[count]; count++)
      attrs[count] = cmz_attr_float(activations[i].numbers[count], (double)given->floats[count]);
    return cmz_build_with(m, n, activations[i].name, 1, &y, count, attrs);
  }
  return y;
}

static cmz_status expand_fused(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  cmz_vid in[3] = {node.inputs[0], node.inputs[1], cmz_node_input(&node, 2)};
  cmz_attr attrs[8];
  uint32_t count = 0;
  for (uint32_t i = 0; i < node.attr_count && count < CMZ_COUNT_OF(attrs); i++)
    if (strncmp(node.attrs[i].name, "activation", 10) != 0) attrs[count++] = node.attrs[i];
  cmz_vid y = cmz_build_with(m, n, "Conv", in[2] ? 3 : 2, in, count, attrs);
  if (cmz_node_input(&node, 3)) y = cmz_build2(m, n, "Add", y, cmz_node_input(&node, 3));
  if (y) y = activated(m, n, &node, y);
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

cmz_status cmz_infer_conv_transpose(cmz_module *m, cmz_nid n);
cmz_expr cmz_describe_conv_transpose(cmz_describe *d, const cmz_node *n, uint32_t output,
                                     const cmz_expr *idx);
cmz_status cmz_eval_conv_transpose(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                   cmz_array *outputs);

const cmz_op cmz_ops_convolution[] = {
    {.name = "Conv",
     .domain = "",
     .operands = "TTT1",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_CONTRACTION,
     .infer = infer_conv,
     .eval = eval_conv,
     .describe = describe_conv,
     .attributes = "auto_pad:s dilations:I group:i kernel_shape:I pads:I strides:I"},
    {.name = "FusedConv",
     .domain = "com.microsoft",
     .operands = "TTT1T",
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .infer = infer_fused,
     .expand = expand_fused,
     .attributes = "activation:s activation_params:F auto_pad:s dilations:I group:i kernel_shape:I "
                   "pads:I strides:I"},
    {.name = "ConvInteger",
     .domain = "",
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 10,
     .flags = CMZ_OP_CONTRACTION,
     .infer = infer_conv_integer,
     .eval = eval_conv_integer,
     .describe = describe_conv_integer,
     .attributes = "auto_pad:s dilations:I group:i kernel_shape:I pads:I strides:I"},
    {.name = "ConvTranspose",
     .domain = "",
     .operands = "TTT1",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_CONTRACTION,
     .infer = cmz_infer_conv_transpose,
     .eval = cmz_eval_conv_transpose,
     .describe = cmz_describe_conv_transpose,
     .attributes = "auto_pad:s dilations:I group:i kernel_shape:I output_padding:I output_shape:I "
                   "pads:I strides:I"},
    {.name = NULL},
};
