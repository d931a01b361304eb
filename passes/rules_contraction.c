/* rules_contraction.c - constants move into the weights of convolutions and matrix products:
 * scales, biases (what is left of batch normalisation after its expansion), and zero padding into
 * the operator's own pads. In, out: see rules.h. */
#include "rules.h"

static const cmz_type *type_of(const cmz_module *m, cmz_vid v) {
  return &cmz_value_get(m, v)->type;
}

/* The constant operand and the other one of a commutative node; false when not exactly one is
 * constant. */
static bool split_operands(const cmz_module *m, const cmz_node *n, cmz_vid *constant,
                           cmz_vid *other) {
  bool first = cmz_value_constant(m, n->inputs[0]) != NULL,
       second = cmz_value_constant(m, n->inputs[1]) != NULL;
  if (first == second) return false;
  *constant = n->inputs[first ? 0 : 1];
  *other = n->inputs[first ? 1 : 0];
  return true;
}

/* C as one number per index of dim AXIS of a tensor of RANK (COUNT of them); NULL when it varies
 * along another dim. */
static double *per_index(cmz_module *m, cmz_vid c, uint32_t rank, uint32_t axis, int64_t count) {
  cmz_array a;
  if (!cmz_pass_constant_array(m, c, &a) || !cmz_dtype_is_float(a.dtype) || a.rank > rank)
    return NULL;
  bool varies = false;
  for (uint32_t i = 0; i < a.rank; i++) {
    if (a.shape[i] == 1) continue;
    if (i + rank - a.rank != axis || a.shape[i] != count) return NULL;
    varies = true;
  }
  double *values = CMZ_NEW_ARRAY(m->arena, double, (size_t)count);
  for (int64_t i = 0; i < count; i++)
    values[i] = cmz_dtype_get_f64(a.dtype, a.data, varies ? (size_t)i : 0);
  return values;
}

/* A new constant like W with each element times factor[index along AXIS]. */
static cmz_vid scaled(cmz_module *m, cmz_gid g, cmz_vid w, uint32_t axis, const double *factor) {
  cmz_array a;
  size_t bytes, inner = 1;
  if (!cmz_pass_constant_array(m, w, &a) || !cmz_dtype_bytes(a.dtype, cmz_array_count(&a), &bytes))
    return 0;
  for (uint32_t i = axis + 1; i < a.rank; i++) inner *= (size_t)a.shape[i];
  const void *from = a.data;
  a.data = cmz_arena_alloc(m->arena, bytes + 8);
  for (size_t i = 0, n = cmz_array_count(&a); i < n; i++) {
    size_t at = i / inner % (size_t)a.shape[axis];
    cmz_dtype_set_f64(a.dtype, a.data, i, cmz_dtype_get_f64(a.dtype, from, i) * factor[at]);
  }
  return cmz_pass_add_array(m, g, NULL, &a);
}

static cmz_vid vector(cmz_module *m, cmz_gid g, cmz_dtype dtype, const double *values,
                      int64_t count) {
  cmz_array a = {.dtype = dtype, .rank = 1, .shape = {count}};
  size_t bytes;
  if (!cmz_dtype_bytes(dtype, (size_t)count, &bytes)) return 0;
  a.data = cmz_arena_alloc(m->arena, bytes + 8);
  for (int64_t i = 0; i < count; i++) cmz_dtype_set_f64(dtype, a.data, (size_t)i, values[i]);
  return cmz_pass_add_array(m, g, NULL, &a);
}

/* A convolution with constant weights (and bias) that only N reads; 0 otherwise. */
static cmz_nid convolution(const cmz_module *m, cmz_nid n, cmz_vid v, uint32_t *weight_axis) {
  cmz_nid conv = cmz_pass_producer(m, v, "Conv");
  *weight_axis = 0;
  if (conv == 0) {
    conv = cmz_pass_producer(m, v, "ConvTranspose");
    if (conv == 0 || cmz_node_int(cmz_node_get(m, conv), "group", 1) != 1) return 0;
    *weight_axis = 1;
  }
  const cmz_node *c = cmz_node_get(m, conv);
  cmz_vid bias = cmz_node_input(c, 2);
  cmz_dtype t = type_of(m, c->inputs[0])->dtype;
  if (cmz_pass_use_count(m, v) != 1 || c->graph != cmz_node_get(m, n)->graph ||
      (t != CMZ_F32 && t != CMZ_F64) || cmz_value_constant(m, c->inputs[1]) == NULL ||
      (bias != 0 && cmz_value_constant(m, bias) == NULL))
    return 0;
  return conv;
}

static bool channels_of(const cmz_module *m, cmz_vid v, int64_t *count) {
  const cmz_type *t = type_of(m, v);
  return t->rank >= 2 && cmz_dim_is_const(m->dims, t->shape[1], count);
}

/* Mul(Conv(x, w, b), s) = Conv(x, w s, b s) for s constant along space. A transposed convolution's
 * weights stay as they are: it is scaled as it is stored, which costs next to nothing, and rounds
 * like the kernels that have no other way. */
static cmz_status scale_convolution(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_vid s, v;
  uint32_t axis;
  int64_t count;
  if (!split_operands(m, node, &s, &v)) return CMZ_OK;
  cmz_nid conv = convolution(m, n, v, &axis);
  if (conv == 0 || axis != 0 || !cmz_pass_same_shape(m, v, node->outputs[0]) ||
      !channels_of(m, v, &count))
    return CMZ_OK;
  double *factor = per_index(m, s, type_of(m, v)->rank, 1, count);
  if (factor == NULL) return CMZ_OK;
  cmz_gid g = node->graph;
  cmz_vid w = scaled(m, g, cmz_node_get(m, conv)->inputs[1], axis, factor);
  cmz_vid bias = cmz_node_input(cmz_node_get(m, conv), 2);
  if (w == 0 || (bias != 0 && (bias = scaled(m, g, bias, 0, factor)) == 0)) return CMZ_OK;
  cmz_node_set_input(m, conv, 1, w);
  if (bias != 0) cmz_node_set_input(m, conv, 2, bias);
  *changed = cmz_rule_finish(m, n, v);
  return CMZ_OK;
}

/* Add(Conv(x, w, b), c) = Conv(x, w, b + c). */
static cmz_status bias_convolution(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_vid c, v;
  uint32_t axis;
  int64_t count;
  if (!split_operands(m, node, &c, &v)) return CMZ_OK;
  cmz_nid conv = convolution(m, n, v, &axis);
  if (conv == 0 || !cmz_pass_same_shape(m, v, node->outputs[0]) || !channels_of(m, v, &count))
    return CMZ_OK;
  double *sum = per_index(m, c, type_of(m, v)->rank, 1, count);
  if (sum == NULL) return CMZ_OK;
  cmz_array old_bias;
  cmz_vid bias = cmz_node_input(cmz_node_get(m, conv), 2);
  if (bias != 0 && cmz_pass_constant_array(m, bias, &old_bias))
    for (int64_t i = 0; i < count; i++)
      sum[i] += cmz_dtype_get_f64(old_bias.dtype, old_bias.data, (size_t)i);
  bias = vector(m, node->graph, type_of(m, v)->dtype, sum, count);
  if (bias == 0) return CMZ_OK;
  cmz_node_set_input(m, conv, 2, bias);
  *changed = cmz_rule_finish(m, n, v);
  return CMZ_OK;
}

/* Mul(MatMul(x, w), s) = MatMul(x, w s) for one factor a column. */
static cmz_status scale_product(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_vid s, v;
  int64_t count;
  if (!split_operands(m, node, &s, &v)) return CMZ_OK;
  cmz_nid product = cmz_pass_producer(m, v, "MatMul");
  if (product == 0 || cmz_pass_use_count(m, v) != 1 || !cmz_pass_same_shape(m, v, node->outputs[0]))
    return CMZ_OK;
  const cmz_node *p = cmz_node_get(m, product);
  const cmz_type *w = type_of(m, p->inputs[1]);
  uint32_t rank = type_of(m, v)->rank;
  if (p->graph != node->graph || cmz_value_constant(m, p->inputs[1]) == NULL || w->rank != 2 ||
      w->dtype != CMZ_F32 || rank < 1 || !cmz_dim_is_const(m->dims, w->shape[1], &count))
    return CMZ_OK;
  double *factor = per_index(m, s, rank, rank - 1, count);
  if (factor == NULL) return CMZ_OK;
  cmz_vid weights = scaled(m, node->graph, p->inputs[1], 1, factor);
  if (weights == 0) return CMZ_OK;
  cmz_node_set_input(m, product, 1, weights);
  *changed = cmz_rule_finish(m, n, v);
  return CMZ_OK;
}

/* ---- padding ---- */

/* The pads of a constant Pad with zeros of spatial dims only: [begins, ends] of RANK - 2 dims each.
 */
static bool zero_pads(const cmz_module *m, const cmz_node *pad, uint32_t rank, int64_t *pads) {
  int64_t all[2 * CMZ_MAX_RANK];
  uint32_t count;
  double value = 0;
  if (strcmp(cmz_node_string(pad, "mode", "constant"), "constant") != 0 ||
      cmz_node_input(pad, 3) != 0)
    return false;
  if (cmz_node_input(pad, 2) != 0 && (!cmz_const_f64(m, pad->inputs[2], &value) || value != 0))
    return false;
  if (!cmz_const_i64s(m, cmz_node_input(pad, 1), all, 2 * CMZ_MAX_RANK, &count) ||
      count != 2 * rank)
    return false;
  for (uint32_t i = 0; i < rank; i++) {
    if (all[i] < 0 || all[rank + i] < 0 || (i < 2 && (all[i] != 0 || all[rank + i] != 0)))
      return false;
    if (i < 2) continue;
    pads[i - 2] = all[i];
    pads[rank - 2 + i - 2] = all[rank + i];
  }
  return true;
}

/* Pad with zeros before a window operator that counts its own pads as zeros. */
static cmz_status merge_pad(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_nid p = cmz_pass_producer(m, node->inputs[0], "Pad");
  uint32_t rank = type_of(m, node->inputs[0])->rank, count;
  int64_t pads[2 * CMZ_MAX_RANK] = {0};
  if (p == 0 || rank < 3 || rank > CMZ_MAX_RANK || cmz_node_get(m, p)->graph != node->graph ||
      !zero_pads(m, cmz_node_get(m, p), rank, pads))
    return CMZ_OK;
  const char *automatic = cmz_node_string(node, "auto_pad", "NOTSET");
  if (strcmp(automatic, "NOTSET") != 0 && strcmp(automatic, "VALID") != 0) return CMZ_OK;
  const int64_t *own = cmz_node_ints(node, "pads", &count);
  bool explicit_pads = strcmp(automatic, "NOTSET") == 0 && own != NULL && count == 2 * (rank - 2);
  for (uint32_t i = 0; i < 2 * (rank - 2); i++) pads[i] += explicit_pads ? own[i] : 0;
  cmz_vid source = cmz_node_get(m, p)->inputs[0];
  cmz_node_set_string(m, n, "auto_pad", "NOTSET");
  cmz_node_set_ints(m, n, "pads", pads, 2 * (rank - 2));
  cmz_node_set_input(m, n, 0, source);
  cmz_node_add_source(m, n, p);
  cmz_pass_remove_if_dead(m, p);
  *changed = true;
  return CMZ_OK;
}

/* An average over the padded size: rounding up would put windows outside of what was padded. */
static cmz_status merge_pad_average(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t count;
  const int64_t *own = cmz_node_ints(node, "pads", &count);
  bool padded = false;
  for (uint32_t i = 0; own != NULL && i < count; i++) padded |= own[i] != 0;
  if (cmz_node_int(node, "ceil_mode", 0) != 0 ||
      (padded && cmz_node_int(node, "count_include_pad", 0) == 0))
    return CMZ_OK;
  CMZ_TRY(merge_pad(m, n, changed));
  if (*changed) cmz_node_set_int(m, n, "count_include_pad", 1);
  return CMZ_OK;
}

const cmz_rule cmz_rules_contraction[] = {
    {"scale-into-convolution", "Mul", scale_convolution},
    {"bias-into-convolution", "Add", bias_convolution},
    {"scale-into-product", "Mul", scale_product},
    {"pad-into-convolution", "Conv", merge_pad},
    {"pad-into-average", "AveragePool", merge_pad_average},
    {NULL, NULL, NULL},
};
