/* ml_scores.c - what the classifiers and regressors of ai.onnx.ml do around their sums: reading
 * lists, class labels, transformed scores. In: nodes that are being expanded. Out: values placed
 * before them. Always holds: a label is looked up by position, so strings and numbers are alike. */
#include "ml.h"

cmz_ml_list cmz_ml_numbers(const cmz_module *m, const cmz_node *n, const char *name) {
  const cmz_attr *list = cmz_node_attr(n, name),
                 *tensor = cmz_node_attr(n, cmz_arena_printf(m->arena, "%s_as_tensor", name));
  if (list && list->kind == CMZ_ATTR_FLOATS) return (cmz_ml_list){list->floats, list->count, false};
  if (!tensor) tensor = list;
  if (!tensor || tensor->kind != CMZ_ATTR_TENSOR) return (cmz_ml_list){NULL, 0, false};
  const cmz_constant *c = cmz_constant_get(m, tensor->tensor);
  size_t count = 1;
  for (uint32_t i = 0; i < c->rank; i++) count *= (size_t)c->shape[i];
  double *values = CMZ_NEW_ARRAY(m->arena, double, count + 1);
  for (size_t i = 0; i < count; i++) values[i] = cmz_dtype_get_f64(c->dtype, c->data, i);
  return (cmz_ml_list){values, count, c->dtype == CMZ_F64};
}

/* ---- labels ---- */

uint32_t cmz_ml_class_count(const cmz_node *n, const char *ints) {
  const cmz_attr *numbers = cmz_node_attr(n, ints),
                 *texts = cmz_node_attr(n, "classlabels_strings");
  if (texts && texts->count) return texts->count;
  return numbers ? numbers->count : 0;
}

cmz_status cmz_ml_infer_classes(cmz_module *m, cmz_nid n, const char *ints, int64_t scores) {
  cmz_dim shape[2] = {0, cmz_dim_const(m->dims, scores)};
  CMZ_TRY(cmz_ml_row_count(m, n, &shape[0]));
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_attr *texts = cmz_node_attr(node, "classlabels_strings");
  if (!cmz_ml_class_count(node, ints))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the class labels are missing");
  CMZ_TRY(cmz_ml_check_transform(m, n));
  cmz_set_output(m, n, 0, texts && texts->count ? CMZ_STRING : CMZ_I64, 1, shape);
  cmz_set_output(m, n, 1, CMZ_F32, 2, shape);
  return CMZ_OK;
}

/* The labels as a constant vector. */
static cmz_vid label_table(cmz_module *m, cmz_nid n, const char *ints) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_attr *numbers = cmz_node_attr(node, ints),
                 *texts = cmz_node_attr(node, "classlabels_strings");
  if (!texts || !texts->count) return cmz_build_i64s(m, n, numbers->ints, numbers->count);
  int64_t count = texts->count;
  const char **copy = cmz_arena_copy(m->arena, texts->strings, texts->count * sizeof *copy);
  return cmz_value_add_constant(m, node->graph, NULL, CMZ_STRING, 1, &count, copy,
                                texts->count * sizeof *copy);
}

cmz_status cmz_ml_deliver_classes(cmz_module *m, cmz_nid n, const char *ints, cmz_vid indices,
                                  cmz_vid scores) {
  cmz_vid old = cmz_ops_output(m, n, 1);
  cmz_vid labels = cmz_build2(m, n, "Gather", label_table(m, n, ints), indices);
  scores = cmz_build_cast(m, n, scores, CMZ_F32);
  if (!labels || !scores) return CMZ_E_INTERNAL;
  if (old) cmz_value_replace_uses(m, old, scores);
  cmz_build_finish(m, n, labels);
  return CMZ_OK;
}

/* ---- transformations ---- */

cmz_vid cmz_ml_by(cmz_module *m, cmz_nid n, const char *op, cmz_vid a, double b) {
  return a ? cmz_build2(m, n, op, a, cmz_build_scalar_like(m, n, a, b)) : 0;
}

static cmz_vid logistic(cmz_module *m, cmz_nid n, cmz_vid x) {
  return cmz_build1(m, n, "Sigmoid", x);
}

static cmz_vid softmax(cmz_module *m, cmz_nid n, cmz_vid x) {
  cmz_attr axis = cmz_attr_int("axis", -1);
  return x ? cmz_build_with(m, n, "Softmax", 1, &x, 1, &axis) : 0;
}

/* Softmax that leaves scores of zero zero. */
static cmz_vid softmax_zero(cmz_module *m, cmz_nid n, cmz_vid x) {
  int64_t last = -1;
  cmz_vid most = cmz_build_reduce(m, n, "ReduceMax", x, &last, 1, true);
  cmz_vid power = cmz_build1(m, n, "Exp", cmz_build2(m, n, "Sub", x, most));
  cmz_vid counts = cmz_ml_by(m, n, "Greater", cmz_build1(m, n, "Abs", x), 1e-7);
  power = cmz_build3(m, n, "Where", counts, power, cmz_build_scalar_like(m, n, x, 0));
  cmz_vid sum = cmz_build_reduce(m, n, "ReduceSum", power, &last, 1, true);
  /* Rows of nothing but zeros stay zero. */
  cmz_vid none = cmz_ml_by(m, n, "Equal", sum, 0);
  sum = cmz_build3(m, n, "Where", none, cmz_build_scalar_like(m, n, x, 1), sum);
  return cmz_build2(m, n, "Div", power, sum);
}

/* The normal distribution's quantile by Winitzki's formula for the inverse of erf, a = 0.147: what
 * the operators' other implementations take. */
static cmz_vid probit(cmz_module *m, cmz_nid n, cmz_vid x) {
  const double a = 0.147;
  x = cmz_ml_by(m, n, "Sub", cmz_ml_by(m, n, "Mul", x, 2), 1);
  cmz_vid square = cmz_build2(m, n, "Mul", x, x);
  cmz_vid one = x ? cmz_build_scalar_like(m, n, x, 1) : 0;
  cmz_vid log = cmz_build1(m, n, "Log", cmz_build2(m, n, "Sub", one, square));
  cmz_vid half = cmz_ml_by(m, n, "Add", cmz_ml_by(m, n, "Mul", log, 0.5), 2 / (M_PI * a));
  cmz_vid inner =
      cmz_build2(m, n, "Sub", cmz_build2(m, n, "Mul", half, half), cmz_ml_by(m, n, "Div", log, a));
  cmz_vid size =
      cmz_build1(m, n, "Sqrt", cmz_build2(m, n, "Sub", cmz_build1(m, n, "Sqrt", inner), half));
  size = cmz_ml_by(m, n, "Mul", size, M_SQRT2);
  return cmz_build2(m, n, "Mul", cmz_build1(m, n, "Sign", x), size);
}

static const struct {
  const char *name;
  cmz_vid (*apply)(cmz_module *m, cmz_nid n, cmz_vid x);
} transforms[] = {{"NONE", NULL},
                  {"LOGISTIC", logistic},
                  {"SOFTMAX", softmax},
                  {"SOFTMAX_ZERO", softmax_zero},
                  {"PROBIT", probit}};

cmz_status cmz_ml_check_transform(cmz_module *m, cmz_nid n) {
  const char *name = cmz_node_string(cmz_node_get(m, n), "post_transform", "NONE");
  for (size_t i = 0; i < CMZ_COUNT_OF(transforms); i++)
    if (!strcmp(transforms[i].name, name)) return CMZ_OK;
  return cmz_node_fail(m, n, CMZ_E_INPUT, "post_transform is \"%s\"", name);
}

cmz_vid cmz_ml_transform(cmz_module *m, cmz_nid n, cmz_vid scores, const char *name) {
  for (size_t i = 0; name && scores && i < CMZ_COUNT_OF(transforms); i++)
    if (!strcmp(transforms[i].name, name) && transforms[i].apply)
      return transforms[i].apply(m, n, scores);
  return scores;
}

/* ---- rows ---- */

cmz_status cmz_ml_row_count(cmz_module *m, cmz_nid n, cmz_dim *rows) {
  const cmz_type *x = cmz_input_type(m, cmz_node_get(m, n), 0);
  if (x->rank != 1 && x->rank != 2)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank %u instead of 2", x->rank);
  *rows = x->rank == 2 ? x->shape[0] : cmz_dim_const(m->dims, 1);
  return CMZ_OK;
}

cmz_vid cmz_ml_rows(cmz_module *m, cmz_nid n, cmz_dtype type) {
  cmz_vid x = cmz_build_cast(m, n, cmz_ops_input(m, n, 0), type);
  if (!x) return 0;
  const cmz_type t = *cmz_ops_type(m, x);
  cmz_dim shape[2] = {cmz_dim_const(m->dims, 1), t.shape[0]};
  return t.rank == 2 ? x : cmz_build_reshape(m, n, x, shape, 2);
}
