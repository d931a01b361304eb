/* ml.c - numeric operators of ai.onnx.ml: Binarizer, ArrayFeatureExtractor, Scaler, Normalizer.
 * In: tensors of numbers. Out: simpler operators. Always holds: strings are not touched. */
#include "ops.h"

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

#define ML(NAME, INPUTS, FUNCTION, ATTRIBUTES)                                                     \
  {                                                                                                \
    .domain = "ai.onnx.ml", .name = NAME, .min_inputs = INPUTS, .max_inputs = INPUTS,              \
    .min_outputs = 1, .max_outputs = 1, .since = 1, .infer = infer_##FUNCTION,                     \
    .expand = expand_##FUNCTION, .attributes = ATTRIBUTES                                          \
  }

const cmz_op cmz_ops_ml[] = {
    ML("Binarizer", 1, binarizer, "threshold:f"),
    ML("ArrayFeatureExtractor", 2, extractor, NULL),
    ML("Scaler", 1, scaler, "offset:F scale:F"),
    ML("Normalizer", 1, normalizer, "norm:s"),
    {.name = NULL},
};
