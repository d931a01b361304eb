/* loss.c - NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss.
 * In: scores or log probabilities [N, C, d…], class numbers [N, d…], weights [C]. Out: the loss,
 * and the log probabilities. Always holds: cmz.ClassLoss gives the weighted loss (output 0) and the
 * weight (output 1) of every element; the rest is reductions. */
#include "ops.h"

/* ---- cmz.ClassLoss: log probabilities, class numbers, weights ---- */

static cmz_status infer_class_loss(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0), t = *cmz_input_type(m, node, 1);
  if (x.rank < 2 || t.rank != x.rank - 1)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "scores of rank %u and classes of rank %u", x.rank,
                         t.rank);
  cmz_dim want[CMZ_MAX_RANK] = {x.shape[0]};
  for (uint32_t i = 2; i < x.rank; i++) want[i - 1] = x.shape[i];
  CMZ_TRY(cmz_check_shape(m, n, 1, t.rank, want));
  CMZ_TRY(cmz_check_vector(m, n, 2, x.shape[1], false));
  cmz_set_output(m, n, 0, x.dtype, t.rank, t.shape);
  cmz_set_output(m, n, 1, x.dtype, t.rank, t.shape);
  return CMZ_OK;
}

static cmz_expr describe_class_loss(cmz_describe *d, const cmz_node *n, uint32_t output,
                                    const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  cmz_dtype compute = cmz_dtype_info(x.dtype)->compute;
  cmz_expr t = cmz_describe_input(d, 1, idx), at[CMZ_MAX_RANK];
  if (!t) return 0;
  t = cmz_x_cast(k, t, CMZ_I64);
  cmz_expr c = cmz_x_wrap_index(k, t, cmz_describe_dim(d, x.shape[1]), false),
           w = cmz_x_const(k, compute, 1);
  if (cmz_node_input(n, 2)) w = cmz_describe_input(d, 2, &c);
  if (!w) return 0;
  const cmz_attr *ignore = cmz_node_attr(n, "ignore_index");
  if (ignore)
    w = cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, t, cmz_x_index(k, ignore->i)), cmz_x_like(k, w, 0), w);
  if (output == 1) return w;
  at[0] = idx[0];
  at[1] = c;
  for (uint32_t i = 2; i < x.rank; i++) at[i] = idx[i - 1];
  cmz_expr v = cmz_describe_input(d, 0, at);
  if (!v) return 0;
  v = cmz_x_mul(k, cmz_x1(k, CMZ_X_NEG, v), w);
  /* Weight 0 must win over an infinite loss. */
  return cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, w, cmz_x_like(k, w, 0)), cmz_x_like(k, v, 0), v);
}

static cmz_status eval_class_loss(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                  cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *t = &inputs[1],
                  *weights = n->input_count > 2 && inputs[2].data ? &inputs[2] : NULL;
  const cmz_attr *ignore = cmz_node_attr(n, "ignore_index");
  for (uint32_t i = 0; i < n->output_count; i++)
    if (n->outputs[i]) CMZ_TRY(cmz_eval_shape(e, &outputs[i], t->rank, t->shape));
  int64_t inner = 1, classes = x->shape[1];
  for (uint32_t i = 2; i < x->rank; i++) inner *= x->shape[i];
  for (int64_t i = 0; i < (int64_t)cmz_array_count(t); i++) {
    int64_t c = cmz_get_int(t, i);
    bool ignored = ignore && c == ignore->i;
    if (!ignored && (c < -classes || c >= classes))
      return cmz_eval_fail(e, "class %" PRId64 " of %" PRId64, c, classes);
    if (c < 0) c += classes;
    double w = ignored ? 0 : weights ? cmz_get(weights, c) : 1;
    if (n->outputs[0])
      cmz_set(&outputs[0], i,
              w == 0 ? 0 : -cmz_get(x, (i / inner * classes + c) * inner + i % inner) * w);
    if (n->output_count > 1 && n->outputs[1]) cmz_set(&outputs[1], i, w);
  }
  return CMZ_OK;
}

/* ---- the losses ---- */

static bool reduces(const cmz_node *n) {
  return strcmp(cmz_node_string(n, "reduction", "mean"), "none") != 0;
}

static cmz_status infer_loss(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *how = cmz_node_string(node, "reduction", "mean");
  const cmz_type x = *cmz_input_type(m, node, 0), t = *cmz_input_type(m, node, 1);
  if (strcmp(how, "none") && strcmp(how, "sum") && strcmp(how, "mean"))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "reduction \"%s\"", how);
  if (x.rank < 2 || t.rank != x.rank - 1)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "scores of rank %u and classes of rank %u", x.rank,
                         t.rank);
  cmz_set_output(m, n, 0, x.dtype, reduces(node) ? 0 : t.rank, t.shape);
  cmz_set_output(m, n, 1, x.dtype, x.rank, x.shape);
  return CMZ_OK;
}

/* The sum of all elements of V as a scalar. */
static cmz_vid total(cmz_module *m, cmz_nid n, cmz_vid v, const char *op) {
  cmz_attr drop = cmz_attr_int("keepdims", 0);
  return v ? cmz_build_with(m, n, op, 1, &v, 1, &drop) : 0;
}

static cmz_status expand_loss(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  const char *how = cmz_node_string(&node, "reduction", "mean");
  cmz_vid x = node.inputs[0];
  if (!strcmp(node.op->name, "SoftmaxCrossEntropyLoss")) {
    cmz_attr axis = cmz_attr_int("axis", 1);
    x = cmz_build_with(m, n, "LogSoftmax", 1, &x, 1, &axis);
    if (!x) return CMZ_E_INTERNAL;
    if (cmz_node_output(&node, 1)) cmz_value_replace_uses(m, node.outputs[1], x);
  }
  const cmz_attr *ignore = cmz_node_attr(&node, "ignore_index");
  bool weighted = cmz_node_input(&node, 2) || ignore, mean = !strcmp(how, "mean");
  cmz_vid inputs[3] = {x, node.inputs[1], cmz_node_input(&node, 2)},
          outputs[2] = {cmz_value_add(m, node.graph, NULL), 0};
  if (weighted && mean) outputs[1] = cmz_value_add(m, node.graph, NULL);
  cmz_nid p = cmz_node_insert(m, n, cmz_op_get("ClassLoss"), NULL, inputs[2] ? 3 : 2, inputs,
                              outputs[1] ? 2 : 1, outputs);
  cmz_node_add_source(m, p, n);
  if (ignore) cmz_node_set_int(m, p, "ignore_index", ignore->i);
  CMZ_TRY(cmz_infer_node(m, p));
  cmz_vid y = outputs[0];
  if (reduces(&node)) y = total(m, n, y, mean && !weighted ? "ReduceMean" : "ReduceSum");
  if (outputs[1]) y = cmz_build2(m, n, "Div", y, total(m, n, outputs[1], "ReduceSum"));
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

const cmz_op cmz_ops_loss[] = {
    {.name = "NegativeLogLikelihoodLoss",
     .domain = "",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 12,
     .infer = infer_loss,
     .expand = expand_loss,
     .attributes = "ignore_index:i reduction:s"},
    {.name = "SoftmaxCrossEntropyLoss",
     .domain = "",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 2,
     .since = 12,
     .infer = infer_loss,
     .expand = expand_loss,
     .attributes = "ignore_index:i reduction:s"},
    {.name = "ClassLoss",
     .domain = "cmz",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 2,
     .since = 1,
     .infer = infer_class_loss,
     .eval = eval_class_loss,
     .describe = describe_class_loss},
    {.name = NULL},
};
