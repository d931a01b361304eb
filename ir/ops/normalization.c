/* normalization.c - BatchNormalization, Instance-, Layer-, Group- and RMSNormalization,
 * LpNormalization, MeanVarianceNormalization, LRN, and com.microsoft's SkipLayerNormalization pair.
 * In: nodes of these operators. Out: expansions into reductions and pointwise operators, which fuse
 * into one kernel each. Always holds: statistics are computed in f32 for narrower floats. */
#include "ops.h"

/* ---- BatchNormalization ---- */

static cmz_status infer_batch(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  if (cmz_node_int(node, "training_mode", 0))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "training mode");
  if (x->rank < 1) return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank 0");
  for (uint32_t i = 1; i < node->output_count; i++)
    if (node->outputs[i] && (cmz_value_get(m, node->outputs[i])->uses.count ||
                             cmz_value_get(m, node->outputs[i])->output_uses))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "outputs other than the first (training)");
  uint32_t axis = x->rank > 1 ? 1 : 0;
  for (uint32_t i = 1; i < 5; i++) {
    const cmz_type *p = cmz_input_type(m, node, i);
    if (p->rank != 1 || cmz_dims_differ(m, p->shape[0], x->shape[axis]))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u is not one number per channel", i);
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
  if (node->opset && node->opset < 7 && cmz_node_int(node, "is_test", 0) == 0 && node->opset < 6)
    return CMZ_OK;
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

/* scale / sqrt(variance + epsilon) and bias - mean * that, when all four are constants. */
static bool fold_batch(cmz_module *m, cmz_nid n, uint32_t rank, cmz_dtype dtype, double epsilon,
                       cmz_vid *factor, cmz_vid *offset) {
  const cmz_node node = *cmz_node_get(m, n);
  const double *p[4];
  size_t count[4];
  for (uint32_t i = 0; i < 4; i++) {
    p[i] = cmz_const_doubles(m, node.inputs[1 + i], &count[i]);
    if (!p[i] || count[i] != count[0]) return false;
  }
  double *f = CMZ_NEW_ARRAY(m->arena, double, count[0]),
         *o = CMZ_NEW_ARRAY(m->arena, double, count[0]);
  for (size_t i = 0; i < count[0]; i++) {
    f[i] = p[0][i] / sqrt(p[3][i] + epsilon);
    o[i] = p[1][i] - p[2][i] * f[i];
  }
  int64_t shape[CMZ_MAX_RANK] = {(int64_t)count[0]};
  for (uint32_t i = 1; i + 1 < rank; i++) shape[i] = 1;
  *factor = cmz_build_floats(m, n, dtype, rank > 1 ? rank - 1 : 1, shape, f);
  *offset = cmz_build_floats(m, n, dtype, rank > 1 ? rank - 1 : 1, shape, o);
  return true;
}

static cmz_status expand_batch(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  uint32_t rank = cmz_input_type(m, &node, 0)->rank;
  cmz_dtype dtype = cmz_input_type(m, &node, 0)->dtype;
  double epsilon = cmz_node_float(&node, "epsilon", 1e-5);
  cmz_vid factor, offset, x = node.inputs[0];
  if (!fold_batch(m, n, rank, dtype, epsilon, &factor, &offset)) {
    cmz_vid scale = cmz_build_cast(m, n, node.inputs[1], dtype),
            bias = cmz_build_cast(m, n, node.inputs[2], dtype);
    cmz_vid mean = cmz_build_cast(m, n, node.inputs[3], dtype),
            variance = cmz_build_cast(m, n, node.inputs[4], dtype);
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
  for (int64_t i = 0; i < (int64_t)cmz_array_count(x); i++) {
    int64_t c = i / inner % channels;
    double v = (cmz_get(x, i) - cmz_get(&inputs[3], c)) / sqrt(cmz_get(&inputs[4], c) + epsilon);
    cmz_set(&outputs[0], i, v * cmz_get(&inputs[1], c) + cmz_get(&inputs[2], c));
  }
  return CMZ_OK;
}

const cmz_op cmz_ops_normalization[] = {
    {.name = "BatchNormalization",
     .domain = "",
     .min_inputs = 5,
     .max_inputs = 5,
     .min_outputs = 1,
     .max_outputs = 5,
     .since = 1,
     .normalize = normalize_batch,
     .infer = infer_batch,
     .eval = eval_batch,
     .expand = expand_batch},
    {.name = NULL},
};
