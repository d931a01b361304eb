/* ml_linear.c - LinearRegressor, LinearClassifier, SVMRegressor and SVMClassifier of ai.onnx.ml.
 * In: rows of features; weights as lists in attributes. Out: matrix products with constants and
 * arithmetic. Always holds: everything is computed in f32, as the operators' results are. */
#include "ml.h"

#define CLASSES "classlabels_ints"

static cmz_status done(cmz_module *m, cmz_nid n, cmz_vid v) {
  if (!v) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

/* ROWS x COLUMNS numbers of VALUES, stored by rows, as the constant [COLUMNS, ROWS]. */
static cmz_vid transposed(cmz_module *m, cmz_nid n, const double *values, size_t rows,
                          size_t columns) {
  double *turned = CMZ_NEW_ARRAY(m->arena, double, rows *columns);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < columns; j++) turned[j * rows + i] = values[i * columns + j];
  return cmz_build_floats(m, n, CMZ_F32, 2, (int64_t[]){(int64_t)columns, (int64_t)rows}, turned);
}

static cmz_vid vector(cmz_module *m, cmz_nid n, const double *values, size_t count) {
  int64_t shape = (int64_t)count;
  return cmz_build_floats(m, n, CMZ_F32, 1, &shape, values);
}

/* X times the coefficients of TARGETS rows, plus intercepts (none, or one for each). */
static cmz_vid weighted(cmz_module *m, cmz_nid n, size_t targets, const char *intercepts) {
  cmz_ml_list weights = cmz_ml_numbers(m, cmz_node_get(m, n), "coefficients"),
              add = cmz_ml_numbers(m, cmz_node_get(m, n), intercepts);
  cmz_vid y = cmz_build2(m, n, "MatMul", cmz_ml_rows(m, n, CMZ_F32),
                         transposed(m, n, weights.values, targets, weights.count / targets));
  return add.count ? cmz_build2(m, n, "Add", y, vector(m, n, add.values, add.count)) : y;
}

/* That there are coefficients for TARGETS rows of the input's features, and intercepts to match. */
static cmz_status check_weights(cmz_module *m, cmz_nid n, size_t targets, const char *intercepts) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  cmz_ml_list weights = cmz_ml_numbers(m, node, "coefficients"),
              add = cmz_ml_numbers(m, node, intercepts);
  cmz_dim rows;
  CMZ_TRY(cmz_ml_row_count(m, n, &rows));
  if (!weights.count || !targets || weights.count % targets)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%zu coefficients for %zu targets", weights.count,
                         targets);
  cmz_dim features = cmz_dim_const(m->dims, (int64_t)(weights.count / targets));
  if (cmz_dims_differ(m, x->shape[x->rank - 1], features))
    return cmz_node_fail(m, n, CMZ_E_INPUT,
                         "coefficients for %zu features, which the input has not",
                         weights.count / targets);
  if (add.count > 1 && add.count != targets)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%zu intercepts for %zu targets", add.count, targets);
  return CMZ_OK;
}

/* ---- LinearRegressor ---- */

static cmz_status infer_linear_regressor(cmz_module *m, cmz_nid n) {
  int64_t targets = cmz_node_int(cmz_node_get(m, n), "targets", 1);
  cmz_dim shape[2];
  if (targets < 1) return cmz_node_fail(m, n, CMZ_E_INPUT, "targets is %" PRId64, targets);
  CMZ_TRY(check_weights(m, n, (size_t)targets, "intercepts"));
  CMZ_TRY(cmz_ml_check_transform(m, n));
  CMZ_TRY(cmz_ml_row_count(m, n, &shape[0]));
  shape[1] = cmz_dim_const(m->dims, targets);
  cmz_set_output(m, n, 0, CMZ_F32, 2, shape);
  return CMZ_OK;
}

static cmz_status expand_linear_regressor(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *transform = cmz_node_string(node, "post_transform", "NONE");
  cmz_vid y = weighted(m, n, (size_t)cmz_node_int(node, "targets", 1), "intercepts");
  return done(m, n, cmz_ml_transform(m, n, y, transform));
}

/* ---- LinearClassifier: a row of coefficients for each class; a single one may tell two ---- */

static size_t coefficient_rows(const cmz_module *m, const cmz_node *n) {
  size_t intercepts = cmz_ml_numbers(m, n, "intercepts").count;
  return intercepts ? intercepts : cmz_ml_class_count(n, CLASSES);
}

static cmz_status infer_linear_classifier(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t classes = cmz_ml_class_count(node, CLASSES);
  size_t rows = coefficient_rows(m, node);
  if (rows != classes && !(rows == 1 && classes == 2))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%zu intercepts for %u classes", rows, classes);
  if (classes == 1) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "a single class label");
  CMZ_TRY(check_weights(m, n, rows, "intercepts"));
  return cmz_ml_infer_classes(m, n, CLASSES, classes);
}

/* 1 where S, a column, is above zero. */
static cmz_vid positive(cmz_module *m, cmz_nid n, cmz_vid s, const cmz_dim *rows) {
  cmz_vid yes = cmz_build_cast(m, n, cmz_ml_by(m, n, "Greater", s, 0), CMZ_I64);
  return cmz_build_reshape(m, n, yes, rows, 1);
}

static cmz_vid beside(cmz_module *m, cmz_nid n, cmz_vid a, cmz_vid b) {
  cmz_attr axis = cmz_attr_int("axis", 1);
  return a && b ? cmz_build_with(m, n, "Concat", 2, (cmz_vid[]){a, b}, 1, &axis) : 0;
}

static cmz_vid best_of(cmz_module *m, cmz_nid n, cmz_vid scores) {
  cmz_attr attrs[2] = {cmz_attr_int("axis", 1), cmz_attr_int("keepdims", 0)};
  return scores ? cmz_build_with(m, n, "ArgMax", 1, &scores, 2, attrs) : 0;
}

static cmz_status expand_linear_classifier(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *transform = cmz_node_string(node, "post_transform", "NONE");
  size_t rows = coefficient_rows(m, node);
  cmz_dim count;
  CMZ_TRY(cmz_ml_row_count(m, n, &count));
  cmz_vid scores = weighted(m, n, rows, "intercepts"), best;
  if (rows == 1) { /* the other class has what is missing to one */
    best = positive(m, n, scores, &count);
    scores = cmz_ml_transform(m, n, scores, strcmp(transform, "LOGISTIC") ? NULL : transform);
    cmz_vid one = scores ? cmz_build_scalar_like(m, n, scores, 1) : 0;
    scores = beside(m, n, cmz_build2(m, n, "Sub", one, scores), scores);
  } else {
    best = best_of(m, n, scores);
    scores = cmz_ml_transform(m, n, scores, transform);
  }
  return cmz_ml_deliver_classes(m, n, CLASSES, best, scores);
}

/* ---- what support vectors make of a row ---- */

static bool is_linear(const cmz_node *n) {
  return !strcmp(cmz_node_string(n, "kernel_type", "LINEAR"), "LINEAR");
}

static cmz_status check_kernel(cmz_module *m, cmz_nid n, size_t vectors) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *type = cmz_node_string(node, "kernel_type", "LINEAR");
  size_t count = cmz_ml_numbers(m, node, "support_vectors").count;
  const cmz_type *x = cmz_input_type(m, node, 0);
  if (strcmp(type, "LINEAR") && strcmp(type, "RBF") && strcmp(type, "POLY") &&
      strcmp(type, "SIGMOID"))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "kernel_type is \"%s\"", type);
  if (!is_linear(node) && cmz_ml_numbers(m, node, "kernel_params").count != 3)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "kernel_params are not three numbers");
  if (!vectors || !count || count % vectors ||
      cmz_dims_differ(m, x->shape[x->rank - 1], cmz_dim_const(m->dims, (int64_t)(count / vectors))))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "support_vectors are not rows like the input's");
  return CMZ_OK;
}

/* The kernel function of each row with each of VECTORS: [rows, VECTORS]. */
static cmz_vid kernels(cmz_module *m, cmz_nid n, size_t vectors) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *type = cmz_node_string(node, "kernel_type", "LINEAR");
  cmz_ml_list support = cmz_ml_numbers(m, node, "support_vectors"),
              params = cmz_ml_numbers(m, node, "kernel_params");
  size_t features = support.count / vectors;
  cmz_vid x = cmz_ml_rows(m, n, CMZ_F32);
  if (!x) return 0;
  if (!strcmp(type, "RBF")) { /* differences, for x*x - 2*x*y + y*y cancels */
    cmz_dim shape[3] = {cmz_ops_type(m, x)->shape[0], cmz_dim_const(m->dims, 1),
                        cmz_dim_const(m->dims, (int64_t)features)};
    int64_t sizes[2] = {(int64_t)vectors, (int64_t)features}, last = 2;
    cmz_vid far = cmz_build2(m, n, "Sub", cmz_build_reshape(m, n, x, shape, 3),
                             cmz_build_floats(m, n, CMZ_F32, 2, sizes, support.values));
    far = cmz_build_reduce(m, n, "ReduceSumSquare", far, &last, 1, false);
    return cmz_build1(m, n, "Exp", cmz_ml_by(m, n, "Mul", far, -params.values[0]));
  }
  cmz_vid y = cmz_build2(m, n, "MatMul", x, transposed(m, n, support.values, vectors, features));
  if (is_linear(cmz_node_get(m, n))) return y;
  y = cmz_ml_by(m, n, "Add", cmz_ml_by(m, n, "Mul", y, params.values[0]), params.values[1]);
  if (!strcmp(type, "SIGMOID")) return cmz_build1(m, n, "Tanh", y);
  return cmz_ml_by(m, n, "Pow", y, params.values[2]);
}

/* ---- SVMRegressor: one number a row; one_class: its sign ---- */

static cmz_status infer_svm_regressor(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  int64_t vectors = cmz_node_int(node, "n_supports", 0);
  cmz_dim shape[2];
  CMZ_TRY(cmz_ml_row_count(m, n, &shape[0]));
  CMZ_TRY(cmz_ml_check_transform(m, n));
  size_t weights = cmz_ml_numbers(m, node, "coefficients").count;
  if (cmz_ml_numbers(m, node, "rho").count != 1)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "rho is not one number");
  if (vectors < 0 || (vectors > 0 && weights != (size_t)vectors))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%zu coefficients for %" PRId64 " support vectors",
                         weights, vectors);
  if (vectors) CMZ_TRY(check_kernel(m, n, (size_t)vectors));
  else CMZ_TRY(check_weights(m, n, 1, "rho"));
  shape[1] = cmz_dim_const(m->dims, 1);
  cmz_set_output(m, n, 0, CMZ_F32, 2, shape);
  return CMZ_OK;
}

static cmz_status expand_svm_regressor(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *transform = cmz_node_string(node, "post_transform", "NONE");
  size_t vectors = (size_t)cmz_node_int(node, "n_supports", 0);
  bool one_class = cmz_node_int(node, "one_class", 0) != 0;
  cmz_vid y;
  if (vectors) {
    cmz_ml_list weights = cmz_ml_numbers(m, node, "coefficients"),
                rho = cmz_ml_numbers(m, node, "rho");
    y = cmz_build2(m, n, "MatMul", kernels(m, n, vectors),
                   transposed(m, n, weights.values, 1, vectors));
    y = cmz_ml_by(m, n, "Add", y, rho.values[0]);
  } else {
    y = weighted(m, n, 1, "rho");
  }
  if (one_class) {
    cmz_vid yes = cmz_ml_by(m, n, "Greater", y, 0);
    y = cmz_build3(m, n, "Where", yes, y ? cmz_build_scalar_like(m, n, y, 1) : 0,
                   y ? cmz_build_scalar_like(m, n, y, -1) : 0);
  }
  return done(m, n, cmz_ml_transform(m, n, y, transform));
}

/* ---- SVMClassifier: every pair of classes is decided, and decides by a vote ---- */

static int64_t vector_count(const cmz_node *n) {
  uint32_t count;
  int64_t sum = 0;
  const int64_t *each = cmz_node_ints(n, "vectors_per_class", &count);
  for (uint32_t i = 0; i < count; i++)
    if (each[i] < 0 || !cmz_add_i64(sum, each[i], &sum)) return -1;
  return sum;
}

static cmz_status infer_svm_classifier(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t classes = cmz_ml_class_count(node, CLASSES), listed;
  int64_t vectors = vector_count(node);
  cmz_node_ints(node, "vectors_per_class", &listed);
  size_t weights = cmz_ml_numbers(m, node, "coefficients").count,
         rho = cmz_ml_numbers(m, node, "rho").count,
         pairs = classes ? (size_t)classes * (classes - 1) / 2 : 0;
  if (classes == 1) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "a single class label");
  if (vectors == 0) {
    if (rho != 1) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "several rho of a linear machine");
    CMZ_TRY(check_weights(m, n, classes, "rho"));
    return cmz_ml_infer_classes(m, n, CLASSES, classes);
  }
  if (cmz_ml_numbers(m, node, "prob_a").count)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "probabilities (prob_a, prob_b)");
  if (vectors < 0 || listed != classes || rho != pairs || classes > 4096 ||
      weights != (size_t)vectors * (classes - 1))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "coefficients, rho and vectors_per_class do not fit");
  CMZ_TRY(check_kernel(m, n, (size_t)vectors));
  return cmz_ml_infer_classes(m, n, CLASSES, CMZ_MAX((int64_t)pairs, 2));
}

/* The decisions of all pairs: [rows, pairs], above zero for the first of the pair. Of a vector of
 * class i, row j - 1 of the coefficients counts against class j, one of class j by row i. */
static cmz_vid decisions(cmz_module *m, cmz_nid n, size_t classes, size_t vectors) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t listed;
  const int64_t *each = cmz_node_ints(node, "vectors_per_class", &listed);
  cmz_ml_list weights = cmz_ml_numbers(m, node, "coefficients"),
              rho = cmz_ml_numbers(m, node, "rho");
  size_t pairs = classes * (classes - 1) / 2, begin = 0;
  double *table = CMZ_NEW_ARRAY(m->arena, double, vectors *pairs);
  for (size_t c = 0; c < classes; c++) {
    size_t pair = 0;
    for (size_t i = 0; i + 1 < classes; i++)
      for (size_t j = i + 1; j < classes; j++, pair++) {
        if (c != i && c != j) continue;
        const double *row = weights.values + (c == i ? j - 1 : i) * vectors;
        for (size_t v = begin; v < begin + (size_t)each[c]; v++) table[v * pairs + pair] = row[v];
      }
    begin += (size_t)each[c];
  }
  int64_t shape[2] = {(int64_t)vectors, (int64_t)pairs};
  cmz_vid y = cmz_build2(m, n, "MatMul", kernels(m, n, vectors),
                         cmz_build_floats(m, n, CMZ_F32, 2, shape, table));
  return cmz_build2(m, n, "Add", y, vector(m, n, rho.values, pairs));
}

/* The class with most votes, of equal ones the first. */
static cmz_vid elected(cmz_module *m, cmz_nid n, cmz_vid scores, size_t classes) {
  size_t pairs = classes * (classes - 1) / 2, pair = 0;
  double *first = CMZ_NEW_ARRAY(m->arena, double, pairs *classes),
         *second = CMZ_NEW_ARRAY(m->arena, double, pairs *classes);
  for (size_t i = 0; i + 1 < classes; i++)
    for (size_t j = i + 1; j < classes; j++, pair++)
      first[pair * classes + i] = second[pair * classes + j] = 1;
  int64_t shape[2] = {(int64_t)pairs, (int64_t)classes};
  cmz_vid won = cmz_ml_by(m, n, "Greater", scores, 0);
  cmz_vid votes = cmz_build2(m, n, "MatMul", cmz_build_cast(m, n, won, CMZ_F32),
                             cmz_build_floats(m, n, CMZ_F32, 2, shape, first));
  cmz_vid lost = cmz_build_cast(m, n, cmz_build1(m, n, "Not", won), CMZ_F32);
  cmz_vid others =
      cmz_build2(m, n, "MatMul", lost, cmz_build_floats(m, n, CMZ_F32, 2, shape, second));
  return best_of(m, n, cmz_build2(m, n, "Add", votes, others));
}

static cmz_status expand_svm_classifier(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *transform = cmz_node_string(node, "post_transform", "NONE");
  size_t classes = cmz_ml_class_count(node, CLASSES), vectors = (size_t)vector_count(node);
  cmz_vid scores, best;
  if (!vectors) {
    scores = weighted(m, n, classes, "rho");
    best = best_of(m, n, scores);
  } else {
    scores = decisions(m, n, classes, vectors);
    best = elected(m, n, scores, classes);
    if (classes == 2) { /* the decision for the second class, and its opposite */
      cmz_vid other = cmz_build1(m, n, "Neg", scores);
      scores = beside(m, n, other, scores);
    }
  }
  return cmz_ml_deliver_classes(m, n, CLASSES, best, cmz_ml_transform(m, n, scores, transform));
}

#define LINEAR(NAME, OUTPUTS, FUNCTION, ATTRIBUTES)                                                \
  {                                                                                                \
    .domain = "ai.onnx.ml", .name = NAME, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,      \
    .max_outputs = OUTPUTS, .since = 1, .infer = infer_##FUNCTION, .expand = expand_##FUNCTION,    \
    .attributes = ATTRIBUTES                                                                       \
  }
#define SVM "coefficients:F kernel_params:F kernel_type:s post_transform:s rho:F support_vectors:F "

const cmz_op cmz_ops_ml_linear[] = {
    LINEAR("LinearRegressor", 1, linear_regressor,
           "coefficients:F intercepts:F post_transform:s targets:i"),
    LINEAR("LinearClassifier", 2, linear_classifier,
           "classlabels_ints:I classlabels_strings:S coefficients:F! intercepts:F multi_class:i "
           "post_transform:s"),
    LINEAR("SVMRegressor", 1, svm_regressor, SVM "n_supports:i one_class:i"),
    LINEAR("SVMClassifier", 2, svm_classifier,
           SVM "classlabels_ints:I classlabels_strings:S prob_a:F prob_b:F vectors_per_class:I"),
    {.name = NULL},
};
