/* grid.c - sampling at computed positions: GridSample, AffineGrid, DeformConv.
 * In: data [N, C, spatial…] and positions. Out: interpolated data. Always holds: positions are f32;
 * a tap outside the data is zero, the nearest element, or mirrored, and is never loaded from
 * outside. */
#include "ops.h"
#include "window.h"

typedef enum padding { ZEROS, BORDER, REFLECTION } padding;
typedef enum method { NEAREST, LINEAR, CUBIC } method;

/* How one node samples: the description and, for evaluation, the data beside each other. */
typedef struct sampler {
  padding pad;
  method how;
  bool corners;
  uint32_t rank; /* spatial dimensions */
} sampler;

static cmz_status read_sampler(cmz_module *m, cmz_nid n, uint32_t rank, sampler *s) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *mode = cmz_node_string(node, "mode", "linear"),
             *pad = cmz_node_string(node, "padding_mode", "zeros");
  *s = (sampler){.rank = rank, .corners = cmz_node_int(node, "align_corners", 0) != 0};
  if (!strcmp(mode, "nearest")) s->how = NEAREST;
  else if (!strcmp(mode, "linear") || !strcmp(mode, "bilinear")) s->how = LINEAR;
  else if (!strcmp(mode, "cubic") || !strcmp(mode, "bicubic")) s->how = CUBIC;
  else return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "mode \"%s\"", mode);
  if (!strcmp(pad, "border")) s->pad = BORDER;
  else if (!strcmp(pad, "reflection")) s->pad = REFLECTION;
  else if (strcmp(pad, "zeros"))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "padding mode \"%s\"", pad);
  return CMZ_OK;
}

/* ---- expressions ---- */

static cmz_expr f32(cmz_kernel *k, double v) { return cmz_x_float(k, CMZ_F32, v); }

/* X mirrored into the data's borders. */
static cmz_expr reflected(cmz_kernel *k, const sampler *s, cmz_expr x, cmz_expr size) {
  cmz_expr low = f32(k, s->corners ? 0 : -0.5),
           high = cmz_x_sub(k, size, f32(k, s->corners ? 1 : 0.5));
  cmz_expr range = cmz_x_sub(k, high, low), below = cmz_x2(k, CMZ_X_LT, x, low);
  cmz_expr distance = cmz_x_select(k, below, cmz_x_sub(k, low, x), cmz_x_sub(k, x, high));
  cmz_expr turns = cmz_x1(k, CMZ_X_TRUNC, cmz_x2(k, CMZ_X_DIV, distance, range));
  cmz_expr rest = cmz_x_sub(k, distance, cmz_x_mul(k, turns, range));
  cmz_expr even = cmz_x2(k, CMZ_X_EQ, cmz_x2(k, CMZ_X_FMOD, turns, f32(k, 2)), f32(k, 0));
  cmz_expr up = cmz_x_add(k, low, rest), down = cmz_x_sub(k, high, rest);
  cmz_expr same = cmz_x2(k, CMZ_X_EQ, below, even);
  cmz_expr inside = cmz_x2(k, CMZ_X_AND, cmz_x2(k, CMZ_X_LE, low, x), cmz_x2(k, CMZ_X_LE, x, high));
  cmz_expr v = cmz_x_select(k, inside, x, cmz_x_select(k, same, up, down));
  return cmz_x_select(k, cmz_x2(k, CMZ_X_LE, range, f32(k, 0)), low, v);
}

/* The whole number P (f32) as an index; ANDs into *INSIDE where it may lie outside. */
static cmz_expr tap_index(cmz_kernel *k, const sampler *s, cmz_expr p, cmz_expr extent,
                          cmz_expr *inside) {
  cmz_expr last = cmz_x_sub(k, extent, cmz_x_index(k, 1));
  if (s->pad == REFLECTION)
    p = cmz_x1(k, CMZ_X_TRUNC, reflected(k, s, p, cmz_x_cast(k, extent, CMZ_F32)));
  /* Kept near the data before the cast: far positions do not fit an integer. */
  cmz_expr limit = cmz_x_add(k, cmz_x_cast(k, extent, CMZ_F32), f32(k, 2));
  p = cmz_x_clamp(k, p, f32(k, -2), limit);
  p = cmz_x_select(k, cmz_x1(k, CMZ_X_IS_NAN, p), f32(k, -2), p);
  cmz_expr i = cmz_x_cast(k, p, CMZ_I64);
  if (s->pad == ZEROS) *inside = cmz_x_and(k, *inside, cmz_x_bounds(k, i, extent, true, true));
  else i = cmz_x_clamp(k, i, cmz_x_index(k, 0), last);
  return i;
}

static void cubic_weights(cmz_kernel *k, cmz_expr t, cmz_expr *out) {
  const double a = -0.75;
  cmz_expr one = f32(k, 1), near[2] = {t, cmz_x_sub(k, one, t)};
  for (int i = 0; i < 2; i++) {
    cmz_expr s = near[i], p = cmz_x_sub(k, cmz_x_mul(k, f32(k, a + 2), s), f32(k, a + 3));
    out[1 + i] = cmz_x_add(k, cmz_x_mul(k, cmz_x_mul(k, p, s), s), one);
    s = cmz_x_add(k, s, one);
    p = cmz_x_sub(k, cmz_x_mul(k, f32(k, a), s), f32(k, 5 * a));
    p = cmz_x_add(k, cmz_x_mul(k, p, s), f32(k, 8 * a));
    out[i ? 3 : 0] = cmz_x_sub(k, cmz_x_mul(k, p, s), f32(k, 4 * a));
  }
}

/* Input 0 at AT[0 … rank + 1], whose spatial coordinates from dimension I on are still the
 * positions X. */
static cmz_expr sample(cmz_describe *d, const sampler *s, const cmz_dim *shape, uint32_t i,
                       const cmz_expr *x, cmz_expr *at, cmz_expr inside, cmz_dtype type) {
  cmz_kernel *k = cmz_describe_kernel(d);
  if (i == s->rank) {
    cmz_expr v = cmz_describe_input(d, 0, at);
    if (!v) return 0;
    v = cmz_x_cast(k, v, type);
    return inside ? cmz_x_select(k, inside, v, cmz_x_like(k, v, 0)) : v;
  }
  cmz_expr extent = cmz_describe_dim(d, shape[2 + i]), weights[4] = {0}, sum = 0;
  cmz_expr first = s->how == NEAREST ? x[i] : cmz_x1(k, CMZ_X_FLOOR, x[i]),
           part = cmz_x_sub(k, x[i], first);
  int count = s->how == NEAREST ? 1 : s->how == LINEAR ? 2 : 4;
  if (s->how == LINEAR) {
    weights[0] = cmz_x_sub(k, f32(k, 1), part);
    weights[1] = part;
  } else if (s->how == CUBIC) {
    cubic_weights(k, part, weights);
  }
  for (int t = 0; t < count; t++) {
    cmz_expr within = inside, p = cmz_x_add(k, first, f32(k, s->how == CUBIC ? t - 1 : t));
    at[2 + i] = tap_index(k, s, p, extent, &within);
    cmz_expr v = sample(d, s, shape, i + 1, x, at, within, type);
    if (!v) return 0;
    if (weights[t]) v = cmz_x_mul(k, v, cmz_x_cast(k, weights[t], type));
    sum = sum ? cmz_x_add(k, sum, v) : v;
  }
  return sum;
}

/* ---- the same on arrays ---- */

static double fixed_reflect(double x, double low, double high) {
  double range = high - low;
  if (range <= 0) return low;
  if (x >= low && x <= high) return x;
  double distance = x < low ? low - x : x - high, turns = trunc(distance / range),
         rest = distance - turns * range;
  return (x < low) == (fmod(turns, 2) == 0) ? low + rest : high - rest;
}

/* X's plane starting at element START, with spatial sizes SIZE, at positions P. */
static double fixed_sample(const cmz_array *x, const sampler *s, const int64_t *size, int64_t start,
                           const double *p) {
  int64_t extents[CMZ_MAX_RANK], t[CMZ_MAX_RANK] = {0},
                                 count = s->how == NEAREST  ? 1
                                         : s->how == LINEAR ? 2
                                                            : 4;
  double sum = 0;
  for (uint32_t i = 0; i < s->rank; i++) extents[i] = count;
  do {
    double weight = 1;
    int64_t index = 0;
    bool inside = true;
    for (uint32_t i = 0; i < s->rank; i++) {
      double first = s->how == NEAREST ? p[i] : floor(p[i]), part = p[i] - first;
      double at = first + (double)(s->how == CUBIC ? t[i] - 1 : t[i]);
      double distance = fabs((double)(s->how == CUBIC ? t[i] - 1 : t[i]) - part);
      if (s->how == LINEAR) weight *= 1 - distance;
      if (s->how == CUBIC)
        weight *= distance < 1 ? (1.25 * distance - 2.25) * distance * distance + 1
                               : ((-0.75 * distance + 3.75) * distance - 6) * distance + 3;
      if (s->pad == REFLECTION)
        at = trunc(
            fixed_reflect(at, s->corners ? 0 : -0.5, (double)size[i] - (s->corners ? 1 : 0.5)));
      if (s->pad != ZEROS) at = fmin(fmax(at, 0), (double)(size[i] - 1));
      inside = inside && at >= 0 && at < (double)size[i];
      index = index * size[i] + (inside ? (int64_t)at : 0);
    }
    if (inside) sum += weight * cmz_get(x, start + index);
  } while (cmz_odometer(s->rank, extents, t));
  return sum;
}

/* ---- GridSample ---- */

static cmz_status infer_grid_sample(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0), grid = *cmz_input_type(m, node, 1);
  sampler s;
  if (x.rank < 3 || grid.rank != x.rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "data of rank %u and a grid of rank %u", x.rank,
                         grid.rank);
  CMZ_TRY(read_sampler(m, n, x.rank - 2, &s));
  if (s.how == CUBIC && s.rank > 2)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "cubic sampling of %u dimensions", s.rank);
  cmz_dim want[CMZ_MAX_RANK] = {x.shape[0]};
  want[x.rank - 1] = cmz_dim_const(m->dims, s.rank);
  CMZ_TRY(cmz_check_shape(m, n, 1, x.rank, want));
  cmz_dim shape[CMZ_MAX_RANK] = {x.shape[0], x.shape[1]};
  for (uint32_t i = 2; i < x.rank; i++) shape[i] = grid.shape[i - 1];
  cmz_set_output(m, n, 0, x.dtype, x.rank, shape);
  return CMZ_OK;
}

static cmz_expr describe_grid_sample(cmz_describe *d, const cmz_node *n, uint32_t output,
                                     const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  sampler s;
  if (read_sampler(m, cmz_node_self(m, n), x.rank - 2, &s) != CMZ_OK) return 0;
  cmz_expr grid[CMZ_MAX_RANK] = {idx[0]}, p[CMZ_MAX_RANK], at[CMZ_MAX_RANK] = {idx[0], idx[1]},
           one = f32(k, 1);
  for (uint32_t i = 0; i < s.rank; i++) grid[1 + i] = idx[2 + i];
  for (uint32_t i = 0; i < s.rank; i++) {
    grid[1 + s.rank] = cmz_x_index(k, s.rank - 1 - i); /* the grid names the last dimension first */
    cmz_expr g = cmz_describe_input(d, 1, grid),
             size = cmz_x_cast(k, cmz_describe_dim(d, x.shape[2 + i]), CMZ_F32);
    if (!g) return 0;
    g = cmz_x_add(k, cmz_x_cast(k, g, CMZ_F32), one);
    if (s.corners) g = cmz_x_mul(k, cmz_x2(k, CMZ_X_DIV, g, f32(k, 2)), cmz_x_sub(k, size, one));
    else g = cmz_x2(k, CMZ_X_DIV, cmz_x_sub(k, cmz_x_mul(k, g, size), one), f32(k, 2));
    if (s.how == NEAREST) g = cmz_x1(k, CMZ_X_ROUND_EVEN, g);
    if (s.pad == BORDER) g = cmz_x_clamp(k, g, f32(k, 0), cmz_x_sub(k, size, one));
    if (s.pad == REFLECTION) g = reflected(k, &s, g, size);
    p[i] = s.how == NEAREST ? cmz_x1(k, CMZ_X_TRUNC, g) : g;
  }
  cmz_dtype compute = cmz_dtype_info(x.dtype)->compute,
            type = compute == CMZ_F64 ? CMZ_F64 : CMZ_F32;
  if (s.how == NEAREST) type = compute;
  cmz_expr v = sample(d, &s, x.shape, 0, p, at, 0, type);
  return v ? cmz_x_cast(k, v, compute) : 0;
}

static cmz_status eval_grid_sample(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                   cmz_array *outputs) {
  (void)n;
  const cmz_array *x = &inputs[0], *grid = &inputs[1];
  sampler s;
  CMZ_TRY(read_sampler(e->module, e->node, x->rank - 2, &s));
  int64_t shape[CMZ_MAX_RANK] = {x->shape[0], x->shape[1]}, plane = 1;
  for (uint32_t i = 2; i < x->rank; i++) {
    shape[i] = grid->shape[i - 1];
    plane *= x->shape[i];
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, shape));
  for (size_t i = 0; plane && i < cmz_array_count(&outputs[0]); i++) {
    int64_t o[CMZ_MAX_RANK], at = 0;
    double p[CMZ_MAX_RANK];
    cmz_array_coordinates(&outputs[0], i, o);
    at = o[0];
    for (uint32_t j = 0; j < s.rank; j++) at = at * shape[2 + j] + o[2 + j];
    for (uint32_t j = 0; j < s.rank; j++) {
      float g = (float)cmz_get(grid, at * s.rank + s.rank - 1 - j), size = (float)x->shape[2 + j];
      g = s.corners ? (g + 1) / 2 * (size - 1) : ((g + 1) * size - 1) / 2;
      if (s.how == NEAREST) g = rintf(g);
      if (s.pad == BORDER) g = fminf(fmaxf(g, 0), size - 1);
      if (s.pad == REFLECTION)
        g = (float)fixed_reflect((double)g, s.corners ? 0 : -0.5,
                                 (double)size - (s.corners ? 1 : 0.5));
      p[j] = s.how == NEAREST ? trunc((double)g) : (double)g;
    }
    cmz_set(&outputs[0], (int64_t)i,
            fixed_sample(x, &s, x->shape + 2, (o[0] * x->shape[1] + o[1]) * plane, p));
  }
  return CMZ_OK;
}

/* ---- AffineGrid: theta [N, k, k + 1] and a size [N, C, spatial…] -> positions [N, spatial…, k]
 * ---- */

static cmz_status infer_affine(cmz_module *m, cmz_nid n) {
  uint32_t count = 0;
  const cmz_dim *size = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &count);
  const cmz_type theta = *cmz_input_type(m, cmz_node_get(m, n), 0);
  if (!size || (count != 4 && count != 5) || theta.rank != 3)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the size has %u entries, theta has rank %u", count,
                         theta.rank);
  cmz_dim shape[5] = {size[0]};
  for (uint32_t i = 2; i < count; i++) shape[i - 1] = size[i];
  shape[count - 1] = cmz_dim_const(m->dims, count - 2);
  cmz_dim want[3] = {size[0], shape[count - 1], cmz_dim_const(m->dims, count - 1)};
  CMZ_TRY(cmz_check_shape(m, n, 0, 3, want));
  cmz_set_output(m, n, 0, theta.dtype, count, shape);
  return CMZ_OK;
}

static cmz_expr describe_affine(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type out = *cmz_output_type(m, n, 0);
  cmz_dtype compute = cmz_dtype_info(out.dtype)->compute;
  uint32_t rank = out.rank - 2;
  bool corners = cmz_node_int(n, "align_corners", 0) != 0;
  cmz_expr at[3] = {idx[0], idx[out.rank - 1], cmz_x_index(k, rank)},
           sum = cmz_describe_input(d, 0, at);
  if (!sum) return 0;
  cmz_expr one = cmz_x_like(k, sum, 1), two = cmz_x_like(k, sum, 2);
  for (uint32_t i = 0; i < rank; i++) {
    cmz_expr o = cmz_x_cast(k, idx[1 + i], compute),
             size = cmz_x_cast(k, cmz_describe_dim(d, out.shape[1 + i]), compute);
    cmz_expr g = corners ? cmz_x2(k, CMZ_X_DIV, cmz_x_mul(k, o, two), cmz_x_sub(k, size, one))
                         : cmz_x2(k, CMZ_X_DIV, cmz_x_add(k, cmz_x_mul(k, o, two), one), size);
    g = cmz_x_sub(k, g, one);
    at[2] = cmz_x_index(k, rank - 1 - i);
    cmz_expr t = cmz_describe_input(d, 0, at);
    if (!t) return 0;
    sum = cmz_x_add(k, sum, cmz_x_mul(k, t, g));
  }
  return sum;
}

static cmz_status eval_affine(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  const cmz_array *theta = &inputs[0], *size = &inputs[1];
  uint32_t count = (uint32_t)cmz_array_count(size), rank = count - 2;
  if (count != 4 && count != 5) return cmz_eval_fail(e, "the size has %u entries", count);
  int64_t shape[5] = {cmz_get_int(size, 0)};
  for (uint32_t i = 0; i < rank; i++) shape[1 + i] = cmz_get_int(size, 2 + i);
  shape[count - 1] = rank;
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], count, shape));
  bool corners = cmz_node_int(n, "align_corners", 0) != 0;
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++) {
    int64_t o[CMZ_MAX_RANK];
    cmz_array_coordinates(&outputs[0], i, o);
    int64_t row = (o[0] * rank + o[count - 1]) * (rank + 1);
    double sum = cmz_get(theta, row + rank);
    for (uint32_t j = 0; j < rank; j++) {
      double s = (double)shape[1 + j], x = (double)o[1 + j];
      sum += cmz_get(theta, row + rank - 1 - j) *
             (corners ? 2 * x / (s - 1) - 1 : (2 * x + 1) / s - 1);
    }
    cmz_set(&outputs[0], (int64_t)i, sum);
  }
  return CMZ_OK;
}

/* ---- DeformConv: X, W, offset [N, groups * taps * 2, out…], B, mask [N, groups * taps, out…] ----
 */

static cmz_status resolve_deform(cmz_module *m, cmz_nid n, const cmz_dim *x, const cmz_dim *weights,
                                 cmz_window *w) {
  int64_t fixed;
  for (uint32_t i = 2; i < 4; i++)
    if (!cmz_dim_is_const(m->dims, weights[i], &fixed))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "weights whose size is not constant");
  return cmz_window_resolve(m, n, 2, x + 2, weights + 2, false, w);
}

static cmz_status infer_deform(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0), weights = *cmz_input_type(m, node, 1);
  cmz_window w;
  if (x.rank != 4 || weights.rank != 4)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "other than two spatial dimensions");
  CMZ_TRY(resolve_deform(m, n, x.shape, weights.shape, &w));
  cmz_dim shape[4] = {x.shape[0], weights.shape[0], w.output[0], w.output[1]};
  int64_t group = cmz_node_int(cmz_node_get(m, n), "group", 1),
          offset_group = cmz_node_int(cmz_node_get(m, n), "offset_group", 1);
  if (group < 1 || offset_group < 1 ||
      cmz_dims_differ(m, cmz_dim_mul(m->dims, weights.shape[1], cmz_dim_const(m->dims, group)),
                      x.shape[1]))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the channels do not agree with the groups");
  cmz_dim slots = cmz_dim_mul(m->dims, cmz_dim_mul(m->dims, w.kernel[0], w.kernel[1]),
                              cmz_dim_const(m->dims, offset_group));
  cmz_dim mask[4] = {x.shape[0], slots, w.output[0], w.output[1]}, offset[4];
  memcpy(offset, mask, sizeof mask);
  offset[1] = cmz_dim_mul(m->dims, slots, cmz_dim_const(m->dims, 2));
  CMZ_TRY(cmz_check_shape(m, n, 2, 4, offset));
  CMZ_TRY(cmz_check_vector(m, n, 3, weights.shape[0], false));
  CMZ_TRY(cmz_check_shape(m, n, 4, 4, mask));
  cmz_set_output(m, n, 0, x.dtype, 4, shape);
  return CMZ_OK;
}

static cmz_expr describe_deform(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0), weights = *cmz_input_type(m, n, 1);
  cmz_window w;
  if (resolve_deform(m, cmz_node_self(m, n), x.shape, weights.shape, &w) != CMZ_OK) return 0;
  int64_t group = cmz_node_int(n, "group", 1), offset_group = cmz_node_int(n, "offset_group", 1);
  cmz_dim own = cmz_dim_floordiv(m->dims, weights.shape[0], cmz_dim_const(m->dims, group));
  cmz_dim per_offset = cmz_dim_floordiv(m->dims, x.shape[1], cmz_dim_const(m->dims, offset_group));
  cmz_reducer r = {0};
  cmz_expr c = cmz_reducer_axis(d, &r, weights.shape[1]), t[2], p[2], at[4] = {idx[0]};
  cmz_expr channel = cmz_x2(k, CMZ_X_FLOORDIV, idx[1], cmz_describe_dim(d, own));
  channel = cmz_x_add(k, cmz_x_mul(k, channel, cmz_describe_dim(d, weights.shape[1])), c);
  at[1] = channel;
  for (uint32_t i = 0; i < 2; i++) t[i] = cmz_reducer_axis(d, &r, w.kernel[i]);
  cmz_expr tap = cmz_x_add(k, cmz_x_mul(k, t[0], cmz_describe_dim(d, w.kernel[1])), t[1]);
  cmz_expr taps = cmz_describe_dim(d, cmz_dim_mul(m->dims, w.kernel[0], w.kernel[1]));
  cmz_expr slot = cmz_x2(k, CMZ_X_FLOORDIV, channel, cmz_describe_dim(d, per_offset));
  slot = cmz_x_add(k, cmz_x_mul(k, slot, taps), tap);
  for (uint32_t i = 0; i < 2; i++) {
    cmz_expr where[4] = {idx[0],
                         cmz_x_add(k, cmz_x_mul(k, slot, cmz_x_index(k, 2)), cmz_x_index(k, i)),
                         idx[2], idx[3]};
    cmz_expr offset = cmz_describe_input(d, 2, where);
    if (!offset) return 0;
    p[i] = cmz_x_cast(k, cmz_window_position(d, &w, i, idx[2 + i], t[i]), CMZ_F32);
    p[i] = cmz_x_add(k, p[i], cmz_x_cast(k, offset, CMZ_F32));
  }
  sampler s = {.pad = ZEROS, .how = LINEAR, .rank = 2};
  cmz_dtype compute = cmz_dtype_info(x.dtype)->compute;
  cmz_expr v = sample(d, &s, x.shape, 0, p, at, 0, compute), wi[4] = {idx[1], c, t[0], t[1]};
  cmz_expr weight = cmz_describe_input(d, 1, wi);
  if (!v || !weight || r.overflow) return 0;
  v = cmz_x_mul(k, v, weight);
  if (cmz_node_input(n, 4)) {
    cmz_expr where[4] = {idx[0], slot, idx[2], idx[3]}, mask = cmz_describe_input(d, 4, where);
    if (!mask) return 0;
    v = cmz_x_mul(k, v, mask);
  }
  v = cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, v);
  if (!v || !cmz_node_input(n, 3)) return v;
  cmz_expr bias = cmz_describe_input(d, 3, idx + 1);
  return bias ? cmz_x_add(k, v, bias) : 0;
}

static cmz_status eval_deform(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *wt = &inputs[1], *offset = &inputs[2];
  const cmz_array *bias = n->input_count > 3 && inputs[3].data ? &inputs[3] : NULL;
  const cmz_array *mask = n->input_count > 4 && inputs[4].data ? &inputs[4] : NULL;
  int64_t group = cmz_node_int(n, "group", 1), offset_group = cmz_node_int(n, "offset_group", 1);
  cmz_window_fixed w;
  sampler s = {.pad = ZEROS, .how = LINEAR, .rank = 2};
  CMZ_TRY(cmz_window_fix(e, 2, x->shape + 2, wt->shape + 2, false, &w));
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 4,
                         (int64_t[]){x->shape[0], wt->shape[0], w.output[0], w.output[1]}));
  int64_t taps = w.kernel[0] * w.kernel[1], plane = w.output[0] * w.output[1],
          slots = taps * offset_group;
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++) {
    int64_t o[CMZ_MAX_RANK];
    cmz_array_coordinates(&outputs[0], i, o);
    double sum = bias ? cmz_get(bias, o[1]) : 0;
    for (int64_t step = 0; step < wt->shape[1] * taps; step++) {
      int64_t c = step / taps, tap = step % taps,
              channel = o[1] / (wt->shape[0] / group) * wt->shape[1] + c;
      int64_t slot = channel / (x->shape[1] / offset_group) * taps + tap,
              at = o[2] * w.output[1] + o[3];
      double p[2];
      for (int j = 0; j < 2; j++) {
        int64_t t = j ? tap % w.kernel[1] : tap / w.kernel[1];
        p[j] = (double)(o[2 + j] * w.stride[j] - w.pad_begin[j] + t * w.dilation[j]);
        p[j] += cmz_get(offset, ((o[0] * slots + slot) * 2 + j) * plane + at);
      }
      double v = fixed_sample(x, &s, x->shape + 2,
                              (o[0] * x->shape[1] + channel) * x->shape[2] * x->shape[3], p);
      v *= cmz_get(wt, (o[1] * wt->shape[1] + c) * taps + tap);
      sum += mask ? v * cmz_get(mask, (o[0] * slots + slot) * plane + at) : v;
    }
    cmz_set(&outputs[0], (int64_t)i, sum);
  }
  return CMZ_OK;
}

#define ROW(NAME, MIN, MAX, SINCE, FUNCTION, ...)                                                  \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,            \
    .max_outputs = 1, .since = SINCE, .infer = infer_##FUNCTION, .eval = eval_##FUNCTION,          \
    .describe = describe_##FUNCTION, ##__VA_ARGS__                                                 \
  }

const cmz_op cmz_ops_grid[] = {
    ROW("GridSample", 2, 2, 16, grid_sample, .attributes = "align_corners:i mode:s padding_mode:s"),
    ROW("AffineGrid", 2, 2, 20, affine, .attributes = "align_corners:i"),
    ROW("DeformConv", 3, 5, 19, deform,
        .attributes = "dilations:I group:i kernel_shape:I offset_group:i pads:I strides:I"),
    {.name = NULL},
};
