/* normalization.c - BatchNormalization, Instance-, Layer-, Group- and RMSNormalization,
 * LpNormalization, MeanVarianceNormalization, LRN, and com.microsoft's SkipLayerNormalization pair.
 * In: nodes of these operators. Out: expansions into reductions and pointwise operators, which fuse
 * into one kernel each. Always holds: statistics are computed in f32 for narrower floats. */
#include "ops.h"

/* ---- BatchNormalization ---- */

static cmz_status infer_batch(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  bool training = cmz_node_int(node, "training_mode", 0) != 0;
  if (x->rank < 1) return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank 0");
  for (uint32_t i = training ? 3 : 1; i < node->output_count; i++)
    if (node->outputs[i] && (cmz_value_get(m, node->outputs[i])->uses.count ||
                             cmz_value_get(m, node->outputs[i])->output_uses))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "outputs other than the first (training)");
  uint32_t axis = x->rank > 1 ? 1 : 0;
  for (uint32_t i = 1; i < 5; i++) {
    const cmz_type *p = cmz_input_type(m, node, i);
    if (p->rank != 1 || cmz_dims_differ(m, p->shape[0], x->shape[axis]))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u is not one number per channel", i);
    /* In training mode outputs 1 and 2 are the running mean and variance. */
    if (training && i < 3) p = cmz_input_type(m, node, i + 2);
    cmz_set_output(m, n, i, p->dtype, 1, p->shape);
  }
  x = cmz_input_type(m, node, 0);
  cmz_set_output(m, n, 0, x->dtype, x->rank, x->shape);
  return CMZ_OK;
}

/* Before opset 9 `spatial` 0 meant statistics per element. */
static cmz_status normalize_batch(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (node->opset && node->opset < 9 && cmz_node_int(node, "spatial", 1) == 0)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "spatial = 0");
  return CMZ_OK;
}

/* V of shape [C] as [C, 1, …] so that it broadcasts over axis 1 of an input of RANK. */
static cmz_vid per_channel(cmz_module *m, cmz_nid before, cmz_vid v, uint32_t rank) {
  if (!v || rank <= 2) return v;
  cmz_dim shape[CMZ_MAX_RANK];
  shape[0] = cmz_value_get(m, v)->type.shape[0];
  for (uint32_t i = 1; i + 1 < rank; i++) shape[i] = cmz_dim_const(m->dims, 1);
  return cmz_build_reshape(m, before, v, shape, rank - 1);
}

/* X as DTYPE holds it. */
static double rounded(cmz_dtype dtype, double x) { return dtype == CMZ_F32 ? (float)x : x; }

/* Whether V is a convolution's result that nobody else reads, with weights that take up factors. */
static bool scales_weights(const cmz_module *m, cmz_vid v) {
  cmz_nid p = cmz_value_get(m, v)->producer;
  if (p == 0 || cmz_value_get(m, v)->uses.count != 1 || cmz_value_get(m, v)->output_uses > 0)
    return false;
  const cmz_node *conv = cmz_node_get(m, p);
  return strcmp(conv->op->name, "Conv") == 0 && conv->op->domain[0] == '\0' &&
         cmz_value_get(m, conv->inputs[1])->constant != 0;
}

/* scale / sqrt(variance + epsilon) and bias - mean * that, when all four are constants: rounded at
 * each step, as they would be if they were computed at run time, so that folding changes no bit.
 * Kernels that normalise multiply by the reciprocal of the root; folding into weights divides. */
static bool fold_batch(cmz_module *m, cmz_nid n, uint32_t rank, cmz_dtype dtype, double epsilon,
                       cmz_vid *factor, cmz_vid *offset) {
  const cmz_node node = *cmz_node_get(m, n);
  const double *p[4];
  size_t count[4];
  for (uint32_t i = 0; i < 4; i++) {
    p[i] = cmz_const_doubles(m, node.inputs[1 + i], &count[i]);
    if (!p[i] || count[i] != count[0]) return false;
  }
  bool divides = scales_weights(m, node.inputs[0]);
  double *f = CMZ_NEW_ARRAY(m->arena, double, count[0]),
         *o = CMZ_NEW_ARRAY(m->arena, double, count[0]);
  for (size_t i = 0; i < count[0]; i++) {
    double sum = rounded(dtype, p[3][i] + rounded(dtype, epsilon));
    double root = rounded(dtype, sqrt(sum));
    f[i] = rounded(dtype, divides ? p[0][i] / root : p[0][i] * rounded(dtype, 1 / root));
    o[i] = rounded(dtype, p[1][i] - rounded(dtype, p[2][i] * f[i]));
  }
  int64_t shape[CMZ_MAX_RANK] = {(int64_t)count[0]};
  for (uint32_t i = 1; i + 1 < rank; i++) shape[i] = 1;
  *factor = cmz_build_floats(m, n, dtype, rank > 1 ? rank - 1 : 1, shape, f);
  *offset = cmz_build_floats(m, n, dtype, rank > 1 ? rank - 1 : 1, shape, o);
  return true;
}

/* Training mode: the statistics of this batch normalise it, and the running ones move towards them.
 */
static cmz_status batch_statistics(cmz_module *m, cmz_nid n, const cmz_node *node, cmz_vid *mean,
                                   cmz_vid *variance) {
  uint32_t rank = cmz_input_type(m, node, 0)->rank, count = 0;
  double momentum = cmz_node_float(node, "momentum", 0.9);
  int64_t axes[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < rank; i++)
    if (i != 1 && rank > 1) axes[count++] = i;
  cmz_dtype kept = cmz_input_type(m, node, 3)->dtype;
  cmz_vid x = cmz_build_cast(m, n, node->inputs[0], cmz_dtype_info(kept)->compute);
  *mean = cmz_build_reduce(m, n, "ReduceMean", x, axes, count, false);
  cmz_vid rest = cmz_build2(m, n, "Sub", x, per_channel(m, n, *mean, rank));
  *variance =
      cmz_build_reduce(m, n, "ReduceMean", cmz_build2(m, n, "Mul", rest, rest), axes, count, false);
  cmz_vid now[2] = {*mean, *variance};
  for (uint32_t i = 0; i < 2; i++) {
    cmz_vid old = cmz_build_cast(m, n, node->inputs[3 + i], cmz_dtype_info(kept)->compute), next;
    if (!now[i] || !old) return CMZ_E_INTERNAL;
    next = cmz_build2(
        m, n, "Add", cmz_build2(m, n, "Mul", old, cmz_build_scalar_like(m, n, old, momentum)),
        cmz_build2(m, n, "Mul", now[i], cmz_build_scalar_like(m, n, old, 1 - momentum)));
    next = cmz_build_cast(m, n, next, kept);
    if (!next) return CMZ_E_INTERNAL;
    if (cmz_node_output(node, 1 + i)) cmz_value_replace_uses(m, node->outputs[1 + i], next);
  }
  return CMZ_OK;
}

static cmz_status expand_batch(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  uint32_t rank = cmz_input_type(m, &node, 0)->rank;
  cmz_dtype dtype = cmz_input_type(m, &node, 0)->dtype;
  double epsilon = cmz_node_float(&node, "epsilon", 1e-5);
  cmz_vid factor, offset, x = node.inputs[0];
  bool training = cmz_node_int(&node, "training_mode", 0) != 0;
  if (training || !fold_batch(m, n, rank, dtype, epsilon, &factor, &offset)) {
    cmz_vid mean = node.inputs[3], variance = node.inputs[4];
    if (training) CMZ_TRY(batch_statistics(m, n, &node, &mean, &variance));
    cmz_vid scale = cmz_build_cast(m, n, node.inputs[1], dtype),
            bias = cmz_build_cast(m, n, node.inputs[2], dtype);
    mean = cmz_build_cast(m, n, mean, dtype);
    variance = cmz_build_cast(m, n, variance, dtype);
    cmz_vid sum = cmz_build2(m, n, "Add", variance, cmz_build_scalar_like(m, n, x, epsilon));
    factor = cmz_build2(m, n, "Div", scale, cmz_build1(m, n, "Sqrt", sum));
    offset = cmz_build2(m, n, "Sub", bias, cmz_build2(m, n, "Mul", mean, factor));
    factor = per_channel(m, n, factor, rank);
    offset = per_channel(m, n, offset, rank);
  }
  cmz_vid y = cmz_build2(m, n, "Add", cmz_build2(m, n, "Mul", x, factor), offset);
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

static cmz_status eval_batch(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  const cmz_array *x = &inputs[0];
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, x->shape));
  double epsilon = cmz_node_float(n, "epsilon", 1e-5);
  int64_t inner = 1, channels = x->rank > 1 ? x->shape[1] : x->shape[0];
  for (uint32_t i = 2; i < x->rank; i++) inner *= x->shape[i];
  bool training = cmz_node_int(n, "training_mode", 0) != 0;
  double *mean = CMZ_NEW_ARRAY(e->arena, double, (size_t)channels + 1),
         *variance = CMZ_NEW_ARRAY(e->arena, double, (size_t)channels + 1);
  int64_t total = (int64_t)cmz_array_count(x);
  double each = channels ? (double)total / (double)channels : 0;
  for (int64_t i = 0; training && i < total; i++)
    mean[i / inner % channels] += cmz_get(x, i) / each;
  for (int64_t i = 0; training && i < total; i++) {
    double rest = cmz_get(x, i) - mean[i / inner % channels];
    variance[i / inner % channels] += rest * rest / each;
  }
  for (uint32_t j = 0; j < 2; j++) {
    double *now = j ? variance : mean, momentum = cmz_node_float(n, "momentum", 0.9);
    bool wanted = training && n->output_count > 1 + j && n->outputs[1 + j];
    if (wanted) CMZ_TRY(cmz_eval_output_like(e, &outputs[1 + j], &inputs[3 + j]));
    for (int64_t c = 0; c < channels; c++) {
      double old = cmz_get(&inputs[3 + j], c);
      if (wanted) cmz_set(&outputs[1 + j], c, old * momentum + now[c] * (1 - momentum));
      if (!training) now[c] = old;
    }
  }
  for (int64_t i = 0; i < total; i++) {
    int64_t c = i / inner % channels;
    double v = (cmz_get(x, i) - mean[c]) / sqrt(variance[c] + epsilon);
    cmz_set(&outputs[0], i, v * cmz_get(&inputs[1], c) + cmz_get(&inputs[2], c));
  }
  return CMZ_OK;
}

/* ---- expansions into reductions ---- */

static cmz_vid add_scalar(cmz_module *m, cmz_nid before, cmz_vid v, double x) {
  return cmz_build2(m, before, "Add", v, cmz_build_scalar_like(m, before, v, x));
}

/* (X - mean) and the variance over COUNT axes, both keeping dims. */
static void statistics(cmz_module *m, cmz_nid n, cmz_vid x, const int64_t *axes, uint32_t count,
                       cmz_vid *centred, cmz_vid *variance) {
  cmz_vid mean = cmz_build_reduce(m, n, "ReduceMean", x, axes, count, true);
  *centred = cmz_build2(m, n, "Sub", x, mean);
  *variance = cmz_build_reduce(m, n, "ReduceMean", cmz_build2(m, n, "Mul", *centred, *centred),
                               axes, count, true);
}

static cmz_status finish(cmz_module *m, cmz_nid n, cmz_vid y, cmz_dtype dtype) {
  y = cmz_build_cast(m, n, y, dtype);
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

/* Narrow floats are widened for statistics. */
static cmz_vid widened(cmz_module *m, cmz_nid n, cmz_vid v) {
  return v ? cmz_build_cast(m, n, v, cmz_dtype_info(cmz_value_get(m, v)->type.dtype)->compute) : 0;
}

static cmz_status infer_same(cmz_module *m, cmz_nid n) {
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

static cmz_status infer_instance(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  if (x->rank < 3) return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank %u", x->rank);
  CMZ_TRY(cmz_check_vector(m, n, 1, x->shape[1], false));
  CMZ_TRY(cmz_check_vector(m, n, 2, x->shape[1], false));
  return infer_same(m, n);
}

static cmz_status expand_instance(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  const cmz_type t = *cmz_input_type(m, &node, 0);
  int64_t axes[CMZ_MAX_RANK];
  for (uint32_t i = 2; i < t.rank; i++) axes[i - 2] = i;
  cmz_vid x = widened(m, n, node.inputs[0]), centred, variance;
  statistics(m, n, x, axes, t.rank - 2, &centred, &variance);
  cmz_vid scale = per_channel(m, n, widened(m, n, node.inputs[1]), t.rank);
  cmz_vid bias = per_channel(m, n, widened(m, n, node.inputs[2]), t.rank);
  cmz_vid deviation =
      cmz_build1(m, n, "Sqrt", add_scalar(m, n, variance, cmz_node_float(&node, "epsilon", 1e-5)));
  cmz_vid y = cmz_build2(m, n, "Mul", centred, cmz_build2(m, n, "Div", scale, deviation));
  return finish(m, n, cmz_build2(m, n, "Add", y, bias), t.dtype);
}

static cmz_status infer_group(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  int64_t groups = cmz_node_int(node, "num_groups", 0), channels;
  const cmz_type *x = cmz_input_type(m, node, 0);
  if (x->rank < 2 || groups < 1 ||
      (cmz_dim_is_const(m->dims, x->shape[1], &channels) && channels % groups))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%" PRId64 " groups do not divide the channels",
                         groups);
  bool by_group = node->opset && node->opset < 21;
  cmz_dim size = by_group ? cmz_dim_const(m->dims, groups) : x->shape[1];
  CMZ_TRY(cmz_check_vector(m, n, 1, size, false));
  CMZ_TRY(cmz_check_vector(m, n, 2, size, false));
  return infer_same(m, n);
}

/* As an instance normalisation of [N, groups, elements of a group]. Until opset 20 scale and bias
 * were per group. */
static cmz_status expand_group(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  const cmz_type t = *cmz_input_type(m, &node, 0);
  bool by_group = node.opset && node.opset < 21;
  cmz_dim groups = cmz_dim_const(m->dims, cmz_node_int(&node, "num_groups", 1));
  cmz_dim all = cmz_dim_product(m->dims, t.shape + 1, t.rank - 1);
  cmz_dim shape[3] = {t.shape[0], groups, cmz_dim_floordiv(m->dims, all, groups)};
  cmz_vid x = cmz_build_reshape(m, n, widened(m, n, node.inputs[0]), shape, 3), centred, variance;
  int64_t axis = 2;
  statistics(m, n, x, &axis, 1, &centred, &variance);
  cmz_vid deviation =
      cmz_build1(m, n, "Sqrt", add_scalar(m, n, variance, cmz_node_float(&node, "epsilon", 1e-5)));
  cmz_vid y = cmz_build2(m, n, "Div", centred, deviation);
  uint32_t rank = by_group ? 3 : t.rank;
  if (!by_group) y = cmz_build_reshape(m, n, y, t.shape, t.rank);
  y = cmz_build2(m, n, "Mul", y, per_channel(m, n, widened(m, n, node.inputs[1]), rank));
  y = cmz_build2(m, n, "Add", y, per_channel(m, n, widened(m, n, node.inputs[2]), rank));
  if (by_group) y = cmz_build_reshape(m, n, y, t.shape, t.rank);
  return finish(m, n, y, t.dtype);
}

static cmz_status expand_mean_variance(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  const cmz_type t = *cmz_input_type(m, &node, 0);
  static const int64_t otherwise[3] = {0, 2, 3};
  uint32_t count;
  const int64_t *axes = cmz_node_ints(&node, "axes", &count);
  if (!axes) axes = otherwise, count = 3;
  for (uint32_t i = 0, a; i < count; i++) CMZ_TRY(cmz_infer_axis(m, n, axes[i], t.rank, &a));
  cmz_vid centred, variance;
  statistics(m, n, widened(m, n, node.inputs[0]), axes, count, &centred, &variance);
  cmz_vid deviation = add_scalar(m, n, cmz_build1(m, n, "Sqrt", variance), 1e-9);
  return finish(m, n, cmz_build2(m, n, "Div", centred, deviation), t.dtype);
}

/* ---- LayerNormalization and RMSNormalization: one expression ---- */

static cmz_status infer_layer(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0);
  uint32_t axis;
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", -1), x.rank, &axis));
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++)
    shape[i] = i < axis ? x.shape[i] : cmz_dim_const(m->dims, 1);
  cmz_dtype stash = cmz_node_int(node, "stash_type", 1) == CMZ_F32 ? CMZ_F32 : x.dtype;
  cmz_set_output(m, n, 1, x.dtype == CMZ_F64 ? CMZ_F64 : stash, x.rank, shape);
  cmz_set_output(m, n, 2, x.dtype == CMZ_F64 ? CMZ_F64 : stash, x.rank, shape);
  return infer_same(m, n);
}

/* Input 0 with axes from AXIS on replaced by fresh ones. */
static cmz_expr reduced_input(cmz_describe *d, const cmz_type *x, uint32_t axis,
                              const cmz_expr *idx, cmz_reducer *r) {
  cmz_expr at[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x->rank; i++)
    at[i] = i < axis ? idx[i] : cmz_reducer_axis(d, r, x->shape[i]);
  return r->overflow ? 0 : cmz_describe_input(d, 0, at);
}

/* Mean over the axes from AXIS on of F(x - SHIFT), where F is the square or, when SHIFT is 0 and
 * PLAIN, nothing. */
static cmz_expr mean_of(cmz_describe *d, const cmz_type *x, uint32_t axis, const cmz_expr *idx,
                        cmz_expr shift, bool plain) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_reducer r = {0};
  cmz_expr v = reduced_input(d, x, axis, idx, &r);
  if (!v) return 0;
  if (shift) v = cmz_x_sub(k, v, shift);
  if (!plain) v = cmz_x_mul(k, v, v);
  cmz_expr sum = cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, v);
  cmz_dims *dims = cmz_describe_module(d)->dims;
  cmz_expr count = cmz_describe_dim(d, cmz_dim_product(dims, x->shape + axis, x->rank - axis));
  return sum ? cmz_x2(k, CMZ_X_DIV, sum, cmz_x_cast(k, count, cmz_x_dtype(k, sum))) : 0;
}

static cmz_expr inverse_deviation(cmz_describe *d, const cmz_node *n, cmz_expr variance) {
  cmz_kernel *k = cmz_describe_kernel(d);
  if (!variance) return 0;
  cmz_expr sum =
      cmz_x_add(k, variance, cmz_x_like(k, variance, cmz_node_float(n, "epsilon", 1e-5)));
  return cmz_x2(k, CMZ_X_DIV, cmz_x_like(k, sum, 1), cmz_x1(k, CMZ_X_SQRT, sum));
}

static cmz_expr describe_layer(cmz_describe *d, const cmz_node *n, uint32_t output,
                               const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  uint32_t axis;
  if (cmz_infer_axis(m, cmz_node_self(m, n), cmz_node_int(n, "axis", -1), x.rank, &axis) != CMZ_OK)
    return 0;
  cmz_expr mean = mean_of(d, &x, axis, idx, 0, true);
  if (!mean || output == 1) return mean;
  cmz_expr inverse = inverse_deviation(d, n, mean_of(d, &x, axis, idx, mean, false));
  if (!inverse || output == 2) return inverse;
  cmz_expr v = cmz_describe_input(d, 0, idx), scale = cmz_describe_broadcast(d, 1, idx, x.rank);
  if (!v || !scale) return 0;
  v = cmz_x_mul(k, cmz_x_mul(k, cmz_x_sub(k, v, mean), inverse), scale);
  if (!cmz_node_input(n, 2)) return v;
  cmz_expr bias = cmz_describe_broadcast(d, 2, idx, x.rank);
  return bias ? cmz_x_add(k, v, bias) : 0;
}

static cmz_expr describe_rms(cmz_describe *d, const cmz_node *n, uint32_t output,
                             const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  uint32_t axis;
  if (cmz_infer_axis(m, cmz_node_self(m, n), cmz_node_int(n, "axis", -1), x.rank, &axis) != CMZ_OK)
    return 0;
  cmz_expr inverse = inverse_deviation(d, n, mean_of(d, &x, axis, idx, 0, false));
  if (!inverse || output) return inverse;
  cmz_expr v = cmz_describe_input(d, 0, idx), scale = cmz_describe_broadcast(d, 1, idx, x.rank);
  return v && scale ? cmz_x_mul(k, cmz_x_mul(k, v, inverse), scale) : 0;
}

/* Rows of elements to normalise: X seen as [rows, COUNT]. */
static cmz_status eval_rows(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs, bool centre) {
  const cmz_array *x = &inputs[0];
  uint32_t axis;
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", -1), x->rank, &axis));
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, x->shape));
  int64_t count = 1, shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x->rank; i++) {
    shape[i] = i < axis ? x->shape[i] : 1;
    if (i >= axis) count *= x->shape[i];
  }
  for (uint32_t i = 1; i < n->output_count; i++)
    if (n->outputs[i]) CMZ_TRY(cmz_eval_shape(e, &outputs[i], x->rank, shape));
  bool bias = n->input_count > 2 && inputs[2].data;
  double epsilon = cmz_node_float(n, "epsilon", 1e-5);
  for (int64_t row = 0; count && row < (int64_t)cmz_array_count(x) / count; row++) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; centre && i < count; i++)
      mean += cmz_get(x, row * count + i) / (double)count;
    for (int64_t i = 0; i < count; i++)
      variance += pow(cmz_get(x, row * count + i) - mean, 2) / (double)count;
    double inverse = 1 / sqrt(variance + epsilon);
    for (int64_t i = 0; i < count; i++) {
      int64_t c[CMZ_MAX_RANK];
      cmz_array_coordinates(x, (size_t)(row * count + i), c);
      double v = (cmz_get(x, row * count + i) - mean) * inverse *
                 cmz_get(&inputs[1], cmz_array_broadcast_index(&inputs[1], x->rank, c));
      if (bias) v += cmz_get(&inputs[2], cmz_array_broadcast_index(&inputs[2], x->rank, c));
      cmz_set(&outputs[0], row * count + i, v);
    }
    if (n->output_count > 1 && n->outputs[1]) cmz_set(&outputs[1], row, centre ? mean : inverse);
    if (n->output_count > 2 && n->outputs[2]) cmz_set(&outputs[2], row, inverse);
  }
  return CMZ_OK;
}

static cmz_status eval_layer(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  return eval_rows(e, n, inputs, outputs, true);
}
static cmz_status eval_rms(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  return eval_rows(e, n, inputs, outputs, false);
}

/* ---- com.microsoft SkipLayerNormalization ---- */

static cmz_status infer_skip(cmz_module *m, cmz_nid n) {
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++)
    shape[i] = i + 1 < x.rank ? x.shape[i] : cmz_dim_const(m->dims, 1);
  cmz_set_output(m, n, 1, CMZ_F32, x.rank, shape);
  cmz_set_output(m, n, 2, CMZ_F32, x.rank, shape);
  cmz_set_output(m, n, 3, x.dtype, x.rank, x.shape);
  return infer_same(m, n);
}

static cmz_status expand_skip(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  bool simple = strcmp(node.op->name, "SkipSimplifiedLayerNormalization") == 0;
  for (uint32_t i = 1; i < 3 && i < node.output_count; i++)
    if (node.outputs[i] && (cmz_value_get(m, node.outputs[i])->uses.count ||
                            cmz_value_get(m, node.outputs[i])->output_uses))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the mean and deviation outputs");
  cmz_vid bias = cmz_node_input(&node, simple ? 3 : 4),
          beta = simple ? 0 : cmz_node_input(&node, 3);
  cmz_vid sum = cmz_build2(m, n, "Add", node.inputs[0], node.inputs[1]);
  if (bias) sum = cmz_build2(m, n, "Add", sum, bias);
  cmz_attr attrs[2] = {cmz_attr_int("axis", -1),
                       cmz_attr_float("epsilon", cmz_node_float(&node, "epsilon", 1e-12))};
  cmz_vid inputs[3] = {sum, node.inputs[2], beta};
  if (!sum) return CMZ_E_INTERNAL;
  cmz_vid y = cmz_build_with(m, n, simple ? "RMSNormalization" : "LayerNormalization", beta ? 3 : 2,
                             inputs, 2, attrs);
  if (!y) return CMZ_E_INTERNAL;
  if (cmz_node_output(&node, 3)) cmz_value_replace_uses(m, node.outputs[3], sum);
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

/* ---- LpNormalization and LRN ---- */

static cmz_expr describe_lp(cmz_describe *d, const cmz_node *n, uint32_t output,
                            const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  uint32_t axis;
  if (cmz_infer_axis(m, cmz_node_self(m, n), cmz_node_int(n, "axis", -1), x.rank, &axis) != CMZ_OK)
    return 0;
  int64_t p = cmz_node_int(n, "p", 2);
  if (p != 1 && p != 2) return cmz_describe_fail(d, "p is %" PRId64, p);
  cmz_reducer r = {0};
  cmz_expr at[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++)
    at[i] = i == axis ? cmz_reducer_axis(d, &r, x.shape[i]) : idx[i];
  cmz_expr v = cmz_describe_input(d, 0, at), own = cmz_describe_input(d, 0, idx);
  if (!v || !own) return 0;
  cmz_expr norm = cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM,
                                     p == 1 ? cmz_x1(k, CMZ_X_ABS, v) : cmz_x_mul(k, v, v));
  if (p == 2) norm = cmz_x1(k, CMZ_X_SQRT, norm);
  cmz_expr zero = cmz_x_like(k, norm, 0);
  return cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, norm, zero), zero, cmz_x2(k, CMZ_X_DIV, own, norm));
}

static cmz_status eval_lp(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                          cmz_array *outputs) {
  const cmz_array *x = &inputs[0];
  uint32_t axis;
  double p = (double)cmz_node_int(n, "p", 2);
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", -1), x->rank, &axis));
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, x->shape));
  int64_t inner = 1, count = x->shape[axis];
  for (uint32_t i = axis + 1; i < x->rank; i++) inner *= x->shape[i];
  for (int64_t o = 0; count && o < (int64_t)cmz_array_count(x) / count; o++) {
    int64_t start = o / inner * count * inner + o % inner;
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += pow(fabs(cmz_get(x, start + i * inner)), p);
    double norm = pow(sum, 1 / p);
    for (int64_t i = 0; i < count; i++)
      cmz_set(&outputs[0], start + i * inner, norm == 0 ? 0 : cmz_get(x, start + i * inner) / norm);
  }
  return CMZ_OK;
}

static cmz_status infer_lrn(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (cmz_input_type(m, node, 0)->rank < 2 || cmz_node_int(node, "size", 0) < 1)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs a channel axis and a positive size");
  return infer_same(m, n);
}

static cmz_expr describe_lrn(cmz_describe *d, const cmz_node *n, uint32_t output,
                             const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  int64_t size = cmz_node_int(n, "size", 1);
  cmz_reducer r = {0};
  cmz_expr at[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++) at[i] = idx[i];
  at[1] = cmz_x_add(k, cmz_x_sub(k, idx[1], cmz_x_index(k, (size - 1) / 2)),
                    cmz_reducer_axis(d, &r, cmz_dim_const(m->dims, size)));
  cmz_expr inside = cmz_x_bounds(k, at[1], cmz_describe_dim(d, x.shape[1]), true, true);
  cmz_expr v = cmz_describe_input(d, 0, at), own = cmz_describe_input(d, 0, idx);
  if (!v || !own) return 0;
  v = cmz_x_select(k, inside, v, cmz_x_like(k, v, 0));
  cmz_expr sum = cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, cmz_x_mul(k, v, v));
  double alpha = cmz_node_float(n, "alpha", 1e-4) / (double)size;
  sum = cmz_x_add(k, cmz_x_mul(k, sum, cmz_x_like(k, sum, alpha)),
                  cmz_x_like(k, sum, cmz_node_float(n, "bias", 1)));
  return cmz_x2(k, CMZ_X_DIV, own,
                cmz_x2(k, CMZ_X_POW, sum, cmz_x_like(k, sum, cmz_node_float(n, "beta", 0.75))));
}

static cmz_status eval_lrn(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  const cmz_array *x = &inputs[0];
  int64_t size = cmz_node_int(n, "size", 1), inner = 1, channels = x->shape[1];
  double alpha = cmz_node_float(n, "alpha", 1e-4), beta = cmz_node_float(n, "beta", 0.75),
         bias = cmz_node_float(n, "bias", 1);
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, x->shape));
  for (uint32_t i = 2; i < x->rank; i++) inner *= x->shape[i];
  for (int64_t i = 0; i < (int64_t)cmz_array_count(x); i++) {
    int64_t c = i / inner % channels;
    double sum = 0;
    for (int64_t j = c - (size - 1) / 2; j <= c + size / 2; j++)
      if (j >= 0 && j < channels) sum += pow(cmz_get(x, i + (j - c) * inner), 2);
    cmz_set(&outputs[0], i, cmz_get(x, i) / pow(bias + alpha / (double)size * sum, beta));
  }
  return CMZ_OK;
}

#define ROW(DOMAIN, NAME, MIN, INPUTS, OUTPUTS, SINCE)                                             \
  .name = NAME, .domain = DOMAIN, .min_inputs = MIN, .max_inputs = INPUTS, .min_outputs = 1,       \
  .max_outputs = OUTPUTS, .since = SINCE

const cmz_op cmz_ops_normalization[] = {
    {ROW("", "BatchNormalization", 5, 5, 5, 1), .operands = "TS1S1M1M1",
     .normalize = normalize_batch, .infer = infer_batch, .eval = eval_batch, .expand = expand_batch,
     .attributes =
         "consumed_inputs:I<6 epsilon:f is_test:i<7 momentum:f spatial:i<9 training_mode:i@14"},
    {ROW("", "InstanceNormalization", 3, 3, 1, 1), .operands = "TT1T1", .infer = infer_instance,
     .expand = expand_instance, .attributes = "consumed_inputs:I<6 epsilon:f"},
    {ROW("", "GroupNormalization", 3, 3, 1, 18), .operands = "TTT", .infer = infer_group,
     .expand = expand_group, .attributes = "epsilon:f num_groups:i! stash_type:i@21"},
    {ROW("", "MeanVarianceNormalization", 1, 1, 1, 9), .infer = infer_same,
     .expand = expand_mean_variance, .attributes = "axes:I"},
    {ROW("", "LayerNormalization", 2, 3, 3, 1), .operands = "TTT", .flags = CMZ_OP_REDUCTION,
     .infer = infer_layer, .eval = eval_layer, .describe = describe_layer,
     .attributes = "axis:i epsilon:f stash_type:i"},
    {ROW("", "RMSNormalization", 2, 2, 1, 23), .operands = "TT", .flags = CMZ_OP_REDUCTION,
     .infer = infer_layer, .eval = eval_rms, .describe = describe_rms,
     .attributes = "axis:i epsilon:f stash_type:i"},
    {ROW("", "SimplifiedLayerNormalization", 2, 2, 2, 1), .operands = "TT",
     .flags = CMZ_OP_REDUCTION, .infer = infer_layer, .eval = eval_rms, .describe = describe_rms,
     .attributes = "axis:i epsilon:f stash_type:i"},
    {ROW("com.microsoft", "SimplifiedLayerNormalization", 2, 2, 2, 1), .operands = "TT",
     .flags = CMZ_OP_REDUCTION, .infer = infer_layer, .eval = eval_rms, .describe = describe_rms,
     .attributes = "axis:i epsilon:f stash_type:i"},
    {ROW("com.microsoft", "SkipLayerNormalization", 3, 5, 4, 1), .operands = "TTTTT",
     .infer = infer_skip, .expand = expand_skip, .attributes = "epsilon:f"},
    {ROW("com.microsoft", "SkipSimplifiedLayerNormalization", 3, 4, 4, 1), .operands = "TTTTT",
     .infer = infer_skip, .expand = expand_skip, .attributes = "epsilon:f"},
    {ROW("", "LpNormalization", 1, 1, 1, 1), .flags = CMZ_OP_REDUCTION, .infer = infer_same,
     .eval = eval_lp, .describe = describe_lp, .attributes = "axis:i p:i"},
    {ROW("", "LRN", 1, 1, 1, 1), .flags = CMZ_OP_REDUCTION, .infer = infer_lrn, .eval = eval_lrn,
     .describe = describe_lrn, .attributes = "alpha:f beta:f bias:f size:i!"},
    {.name = NULL},
};
