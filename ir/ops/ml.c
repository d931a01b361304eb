/* ml.c - what ai.onnx.ml does to features: Binarizer, ArrayFeatureExtractor, Scaler, Normalizer,
 * Imputer, OneHotEncoder, FeatureVectorizer, and ZipMap. In: tensors of numbers, for OneHotEncoder
 * also of strings. Out: simpler operators. Always holds: an element's column stays its column. */
#include "ml.h"

static cmz_status done(cmz_module *m, cmz_nid n, cmz_vid v) {
  if (!v) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

/* ---- Binarizer: 1 where X > threshold ---- */

static cmz_status infer_binarizer(cmz_module *m, cmz_nid n) { return cmz_infer_unary(m, n); }

static cmz_status expand_binarizer(cmz_module *m, cmz_nid n) {
  cmz_vid x = cmz_ops_input(m, n, 0);
  cmz_dtype type = cmz_ops_type(m, x)->dtype;
  double threshold = cmz_node_float(cmz_node_get(m, n), "threshold", 0);
  /* A whole number exceeds a threshold where it exceeds the whole number below that. */
  if (cmz_dtype_is_int(type)) threshold = floor(threshold);
  cmz_vid above = cmz_build2(m, n, "Greater", x, cmz_build_scalar_like(m, n, x, threshold));
  return done(m, n, cmz_build_cast(m, n, above, type));
}

/* ---- ArrayFeatureExtractor: columns of the last dimension ---- */

static cmz_status infer_extractor(cmz_module *m, cmz_nid n) {
  const cmz_type x = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_dim shape[CMZ_MAX_RANK] = {cmz_dim_const(m->dims, 1)};
  if (!x.rank) return cmz_node_fail(m, n, CMZ_E_INPUT, "needs at least one dimension");
  uint32_t rank = CMZ_MAX(x.rank, 2u);
  for (uint32_t i = 0; i + 1 < x.rank; i++) shape[i] = x.shape[i];
  shape[rank - 1] = cmz_value_element_product(m, cmz_ops_input(m, n, 1));
  cmz_set_output(m, n, 0, x.dtype, rank, shape);
  return CMZ_OK;
}

static cmz_status expand_extractor(cmz_module *m, cmz_nid n) {
  cmz_vid x = cmz_ops_input(m, n, 0), at = cmz_ops_input(m, n, 1);
  cmz_type y = *cmz_ops_type(m, cmz_ops_output(m, n, 0));
  cmz_attr axis = cmz_attr_int("axis", -1);
  at = cmz_build_reshape(m, n, at, &y.shape[y.rank - 1], 1);
  cmz_vid v = cmz_build_with(m, n, "Gather", 2, (cmz_vid[]){x, at}, 1, &axis);
  return done(m, n, cmz_build_reshape(m, n, v, y.shape, y.rank));
}

/* ---- Scaler: (X - offset) * scale, along the last dimension ---- */

static cmz_status infer_scaler(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0);
  static const char *const names[2] = {"offset", "scale"};
  for (int i = 0; i < 2; i++) {
    const cmz_attr *a = cmz_node_attr(node, names[i]);
    if (!a || a->kind != CMZ_ATTR_FLOATS || !a->count ||
        (a->count > 1 &&
         (!x.rank || cmz_dims_differ(m, x.shape[x.rank - 1], cmz_dim_const(m->dims, a->count)))))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "%s must be one number or one for each feature",
                           names[i]);
  }
  return cmz_infer_same(m, n, 0, 0, CMZ_F32);
}

static cmz_status expand_scaler(cmz_module *m, cmz_nid n) {
  static const char *const names[2] = {"offset", "scale"}, *const ops[2] = {"Sub", "Mul"};
  cmz_vid v = cmz_build_cast(m, n, cmz_ops_input(m, n, 0), CMZ_F32);
  for (int i = 0; i < 2; i++) {
    const cmz_attr *a = cmz_node_attr(cmz_node_get(m, n), names[i]);
    int64_t count = a->count;
    v = v ? cmz_build2(m, n, ops[i], v,
                       cmz_build_floats(m, n, CMZ_F32, count > 1, &count, a->floats))
          : 0;
  }
  return done(m, n, v);
}

/* ---- Normalizer: rows divided by their largest size, sum of sizes, or length ---- */

static cmz_status infer_normalizer(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *norm = cmz_node_string(node, "norm", "MAX");
  if (strcmp(norm, "MAX") && strcmp(norm, "L1") && strcmp(norm, "L2"))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "norm is \"%s\"", norm);
  if (!cmz_input_type(m, node, 0)->rank) return cmz_node_fail(m, n, CMZ_E_INPUT, "needs a row");
  return cmz_infer_same(m, n, 0, 0, CMZ_F32);
}

static cmz_status expand_normalizer(cmz_module *m, cmz_nid n) {
  const char *norm = cmz_node_string(cmz_node_get(m, n), "norm", "MAX");
  const char *op = norm[0] == 'M' ? "ReduceMax" : norm[1] == '1' ? "ReduceL1" : "ReduceL2";
  cmz_vid x = cmz_build_cast(m, n, cmz_ops_input(m, n, 0), CMZ_F32);
  int64_t last = -1;
  cmz_vid size = cmz_build_reduce(m, n, op, x, &last, 1, true);
  if (!size) return CMZ_E_INTERNAL;
  cmz_vid zero = cmz_build_scalar_like(m, n, size, 0), one = cmz_build_scalar_like(m, n, size, 1);
  size = cmz_build3(m, n, "Where", cmz_build2(m, n, "Equal", size, zero), one, size);
  return done(m, n, cmz_build2(m, n, "Div", x, size));
}

/* ---- Imputer: the value that stands for a missing one is replaced, by column or everywhere ----
 */

typedef struct imputation {
  bool whole; /* 64-bit integers; else floats */
  int64_t count;
  const double *values;
  double replaced;
} imputation;

static imputation imputation_of(const cmz_module *m, const cmz_node *n) {
  imputation i = {.whole = cmz_input_type(m, n, 0)->dtype == CMZ_I64};
  const cmz_attr *list =
      cmz_node_attr(n, i.whole ? "imputed_value_int64s" : "imputed_value_floats");
  i.replaced = i.whole ? (double)cmz_node_int(n, "replaced_value_int64", 0)
                       : cmz_node_float(n, "replaced_value_float", 0);
  if (!list) return i;
  double *values = CMZ_NEW_ARRAY(m->arena, double, list->count + 1);
  for (uint32_t j = 0; j < list->count; j++)
    values[j] = i.whole ? (double)list->ints[j] : list->floats[j];
  i.count = list->count;
  i.values = values;
  return i;
}

static cmz_status infer_imputer(cmz_module *m, cmz_nid n) {
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  imputation i = imputation_of(m, cmz_node_get(m, n));
  if (x.dtype != CMZ_I64 && !cmz_dtype_is_float(x.dtype))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "on elements of type %s is not supported",
                         cmz_dtype_info(x.dtype)->name);
  if (!i.count || (i.count > 1 && (!x.rank || cmz_dims_differ(m, x.shape[x.rank - 1],
                                                              cmz_dim_const(m->dims, i.count)))))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the imputed values are not one for each feature");
  return cmz_infer_unary(m, n);
}

static cmz_status expand_imputer(cmz_module *m, cmz_nid n) {
  imputation i = imputation_of(m, cmz_node_get(m, n));
  cmz_vid x = cmz_ops_input(m, n, 0);
  cmz_dtype type = cmz_ops_type(m, x)->dtype;
  cmz_vid missing =
      isnan(i.replaced) ? cmz_build1(m, n, "IsNaN", x) : cmz_ml_by(m, n, "Equal", x, i.replaced);
  cmz_vid values = cmz_build_floats(m, n, type, i.count > 1, &i.count, i.values);
  return done(m, n, cmz_build3(m, n, "Where", missing, values, x));
}

/* ---- OneHotEncoder: a new last dimension with a 1 where the category is the element ---- */

static const cmz_attr *categories_of(const cmz_module *m, const cmz_node *n) {
  bool text = cmz_input_type(m, n, 0)->dtype == CMZ_STRING;
  return cmz_node_attr(n, text ? "cats_strings" : "cats_int64s");
}

static cmz_status infer_one_hot(cmz_module *m, cmz_nid n) {
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  const cmz_attr *categories = categories_of(m, cmz_node_get(m, n));
  cmz_dim shape[CMZ_MAX_RANK + 1];
  if (!categories || !categories->count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "there are no categories of the input's type");
  if (!cmz_node_int(cmz_node_get(m, n), "zeros", 1))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "zeros = 0 (unknown categories are an error)");
  if (x.rank >= CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the rank is too large");
  for (uint32_t i = 0; i < x.rank; i++) shape[i] = x.shape[i];
  shape[x.rank] = cmz_dim_const(m->dims, categories->count);
  cmz_set_output(m, n, 0, CMZ_F32, x.rank + 1, shape);
  return CMZ_OK;
}

static cmz_status expand_one_hot(cmz_module *m, cmz_nid n) {
  const cmz_attr categories = *categories_of(m, cmz_node_get(m, n));
  cmz_vid x = cmz_ops_input(m, n, 0), keys;
  cmz_type y = *cmz_ops_type(m, cmz_ops_output(m, n, 0));
  int64_t count = categories.count;
  if (cmz_ops_type(m, x)->dtype == CMZ_STRING) {
    const char **copy =
        cmz_arena_copy(m->arena, categories.strings, categories.count * sizeof *copy);
    keys = cmz_value_add_constant(m, cmz_node_get(m, n)->graph, NULL, CMZ_STRING, 1, &count, copy,
                                  categories.count * sizeof *copy);
  } else {
    x = cmz_build_cast(m, n, x, CMZ_I64); /* as the categories are: floats are cut off */
    keys = cmz_build_i64s(m, n, categories.ints, categories.count);
  }
  cmz_dim *shape = cmz_arena_copy(m->arena, y.shape, y.rank * sizeof *shape);
  shape[y.rank - 1] = cmz_dim_const(m->dims, 1);
  cmz_vid same = cmz_build2(m, n, "Equal", cmz_build_reshape(m, n, x, shape, y.rank), keys);
  return done(m, n, cmz_build_cast(m, n, same, CMZ_F32));
}

/* ---- FeatureVectorizer: columns side by side ---- */

static cmz_status infer_vectorizer(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t listed;
  const int64_t *sizes = cmz_node_ints(node, "inputdimensions", &listed);
  cmz_dim shape[2] = {0, cmz_dim_const(m->dims, 0)};
  if (listed && listed != node->input_count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "inputdimensions has not one entry for each input");
  for (uint32_t i = 0; i < node->input_count; i++) {
    const cmz_type *x = cmz_input_type(m, node, i);
    if (!x || x->rank != 2)
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "inputs that have not two dimensions");
    if (listed && cmz_dims_differ(m, x->shape[1], cmz_dim_const(m->dims, sizes[i])))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "inputdimensions that cut or fill an input");
    if (!shape[0]) shape[0] = x->shape[0];
    shape[1] = cmz_dim_add(m->dims, shape[1], x->shape[1]);
  }
  cmz_set_output(m, n, 0, CMZ_F32, 2, shape);
  return CMZ_OK;
}

static cmz_status expand_vectorizer(cmz_module *m, cmz_nid n) {
  uint32_t count = cmz_node_get(m, n)->input_count;
  cmz_vid *parts = CMZ_NEW_ARRAY(m->arena, cmz_vid, count);
  for (uint32_t i = 0; i < count; i++)
    if (!(parts[i] = cmz_build_cast(m, n, cmz_ops_input(m, n, i), CMZ_F32))) return CMZ_E_INTERNAL;
  cmz_attr axis = cmz_attr_int("axis", 1);
  return done(m, n, cmz_build_with(m, n, "Concat", count, parts, 1, &axis));
}

/* ---- ZipMap: a map for each row. There are no maps here: the values stay a tensor, whose columns
 * are the keys in the order of the class labels ---- */

static cmz_status infer_zip(cmz_module *m, cmz_nid n) {
  cmz_vid v = cmz_ops_output(m, n, 0);
  if (v && cmz_value_get(m, v)->uses.count)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "maps that the model goes on to use");
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

static cmz_status expand_zip(cmz_module *m, cmz_nid n) {
  return done(m, n, cmz_build1(m, n, "Identity", cmz_ops_input(m, n, 0)));
}

#define ML(NAME, INPUTS, FUNCTION, ATTRIBUTES)                                                     \
  {                                                                                                \
    .domain = "ai.onnx.ml", .name = NAME, .min_inputs = INPUTS == 255 ? 1 : INPUTS,                \
    .max_inputs = INPUTS, .min_outputs = 1, .max_outputs = 1, .since = 1,                          \
    .infer = infer_##FUNCTION, .expand = expand_##FUNCTION, .attributes = ATTRIBUTES               \
  }

const cmz_op cmz_ops_ml[] = {
    ML("Binarizer", 1, binarizer, "threshold:f"),
    ML("ArrayFeatureExtractor", 2, extractor, NULL),
    ML("Scaler", 1, scaler, "offset:F scale:F"),
    ML("Normalizer", 1, normalizer, "norm:s"),
    ML("Imputer", 1, imputer,
       "imputed_value_floats:F imputed_value_int64s:I replaced_value_float:f "
       "replaced_value_int64:i"),
    ML("OneHotEncoder", 1, one_hot, "cats_int64s:I cats_strings:S zeros:i"),
    ML("FeatureVectorizer", 255, vectorizer, "inputdimensions:I"),
    ML("ZipMap", 1, zip, "classlabels_int64s:I classlabels_strings:S"),
    {.name = NULL},
};
