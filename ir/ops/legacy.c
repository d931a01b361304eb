/* legacy.c - operators that early opsets had and old models still use: Crop, ImageScaler,
 * Upsample's neighbours. In: nodes of opset 1 (which later opsets of some exporters keep). Out:
 * newer operators. Always holds: each expands into current operators. */
#include "ops.h"

static cmz_status done(cmz_module *m, cmz_nid n, cmz_vid v) {
  if (!v) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

/* ---- Crop: border [left, top, right, bottom], or from left/top with a size ---- */

static cmz_status crop_bounds(cmz_module *m, cmz_nid n, int64_t *start, int64_t *end) {
  uint32_t border_count, scale_count;
  const int64_t *border = cmz_node_ints(cmz_node_get(m, n), "border", &border_count);
  const int64_t *scale = cmz_node_ints(cmz_node_get(m, n), "scale", &scale_count);
  if (!border || border_count != 4 || (scale && scale_count != 2))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs a border of 4 numbers (and a scale of 2)");
  for (int i = 0; i < 2; i++) {
    start[i] = border[1 - i];
    end[i] = scale ? start[i] + scale[i] : border[3 - i] ? -border[3 - i] : INT64_MAX;
    if (start[i] < 0 || (!scale && border[3 - i] < 0))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "a negative border");
  }
  return CMZ_OK;
}

static cmz_status infer_crop(cmz_module *m, cmz_nid n) {
  int64_t start[2], end[2];
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  if (in.rank != 4) return cmz_node_fail(m, n, CMZ_E_INPUT, "needs rank 4");
  CMZ_TRY(crop_bounds(m, n, start, end));
  cmz_dim shape[4] = {in.shape[0], in.shape[1]};
  for (uint32_t i = 0; i < 2; i++) {
    cmz_dim last = in.shape[2 + i];
    if (end[i] < 0) last = cmz_dim_add(m->dims, last, cmz_dim_const(m->dims, end[i]));
    else if (end[i] < INT64_MAX) last = cmz_dim_min(m->dims, last, cmz_dim_const(m->dims, end[i]));
    shape[2 + i] =
        cmz_dim_max(m->dims, cmz_dim_sub(m->dims, last, cmz_dim_const(m->dims, start[i])),
                    cmz_dim_const(m->dims, 0));
  }
  cmz_set_output(m, n, 0, in.dtype, 4, shape);
  return CMZ_OK;
}

static cmz_status expand_crop(cmz_module *m, cmz_nid n) {
  int64_t start[2], end[2], axes[2] = {2, 3};
  CMZ_TRY(crop_bounds(m, n, start, end));
  cmz_vid in[4] = {cmz_ops_input(m, n, 0), cmz_build_i64s(m, n, start, 2),
                   cmz_build_i64s(m, n, end, 2), cmz_build_i64s(m, n, axes, 2)};
  return done(m, n, cmz_build_node(m, n, "Slice", 4, in, NULL));
}

/* ---- ImageScaler: x * scale + bias[channel] ---- */

static cmz_status infer_scaler(cmz_module *m, cmz_nid n) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  const cmz_attr *bias = cmz_node_attr(cmz_node_get(m, n), "bias");
  if (in.rank < 2 || !cmz_dtype_is_float(in.dtype))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs channels of floats");
  if (bias && bias->kind != CMZ_ATTR_FLOATS)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "bias must be a list of floats");
  if (bias && cmz_dims_differ(m, in.shape[1], cmz_dim_const(m->dims, bias->count)))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "bias has %u numbers, one is needed for each channel",
                         bias->count);
  return cmz_infer_unary(m, n);
}

static cmz_status expand_scaler(cmz_module *m, cmz_nid n) {
  cmz_vid x = cmz_ops_input(m, n, 0);
  cmz_type in = *cmz_ops_type(m, x);
  const cmz_attr *bias = cmz_node_attr(cmz_node_get(m, n), "bias");
  double scale = cmz_node_float(cmz_node_get(m, n), "scale", 1);
  cmz_vid v = cmz_build2(m, n, "Mul", x, cmz_build_scalar_like(m, n, x, scale));
  if (bias && v) {
    int64_t shape[CMZ_MAX_RANK];
    for (uint32_t i = 0; i + 1 < in.rank; i++) shape[i] = i ? 1 : bias->count;
    bias = cmz_node_attr(cmz_node_get(m, n), "bias");
    v = cmz_build2(m, n, "Add", v,
                   cmz_build_floats(m, n, in.dtype, in.rank - 1, shape, bias->floats));
  }
  return done(m, n, v);
}

#define LEGACY(NAME, INFER, EXPAND, ...)                                                           \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,                \
    .max_outputs = 1, .since = 1, .infer = INFER, .expand = EXPAND, ##__VA_ARGS__                  \
  }

const cmz_op cmz_ops_legacy[] = {
    LEGACY("Crop", infer_crop, expand_crop, .attributes = "border:I scale:I"),
    LEGACY("ImageScaler", infer_scaler, expand_scaler, .attributes = "bias:F scale:f"),
    {.name = NULL},
};
