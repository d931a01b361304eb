/* resize.c - Resize of all modes, and Upsample, which normalisation turns into it.
 * In: X and scales or sizes, per axis. Out: X sampled at new positions. Always holds: positions are
 * computed in f32 as other runtimes do; an axis that keeps its size is indexed directly; nearest by
 * a whole factor is integer division. GridSample and AffineGrid are in grid.c. */
#include "ops.h"
#include "window.h"

typedef enum coordinate_mode {
  HALF_PIXEL,
  HALF_PIXEL_SYMMETRIC,
  PYTORCH_HALF_PIXEL,
  ALIGN_CORNERS,
  ASYMMETRIC,
  TF_HALF_PIXEL_FOR_NN,
  TF_CROP
} coordinate_mode;
static const char *const coordinate_names[] = {
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
    "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"};

typedef enum nearest_mode { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, FLOOR, CEIL } nearest_mode;
static const char *const nearest_names[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                            "ceil"};

typedef enum method { NEAREST, LINEAR, CUBIC } method;
static const char *const method_names[] = {"nearest", "linear", "cubic"};

typedef struct resized_axis {
  bool active;   /* sampled; otherwise copied */
  bool by_scale; /* SCALE was given; otherwise it is out / in, */
  bool by_input; /* or an element of the scales, known at run time */
  double scale;
  uint32_t slot; /* position among the resized axes: where its roi is */
  cmz_dim in, out;
} resized_axis;

typedef struct resize {
  uint32_t rank, slots;
  resized_axis axis[CMZ_MAX_RANK];
  coordinate_mode coordinates;
  nearest_mode nearest;
  method method;
  bool antialias, exclude_outside;
  double cubic, extrapolation;
} resize;

static cmz_status word(cmz_module *m, cmz_nid n, const char *name, const char *otherwise,
                       const char *const *names, uint32_t count, uint32_t *out) {
  const char *s = cmz_node_string(cmz_node_get(m, n), name, otherwise);
  for (*out = 0; *out < count; ++*out)
    if (!strcmp(names[*out], s)) return CMZ_OK;
  return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "attribute %s is \"%s\"", name, s);
}

/* Content of V as doubles: a constant, or made from constants by nodes that have not been folded
 * yet. */
static const double *known_doubles(cmz_module *m, cmz_vid v, size_t *count) {
  const double *values = cmz_const_doubles(m, v, count);
  if (values || !v || !cmz_value_get(m, v)->producer) return values;
  cmz_nid p = cmz_value_get(m, v)->producer;
  const cmz_node node = *cmz_node_get(m, p);
  if (node.input_count > 16 || node.output_count != 1 || !node.op->eval) return NULL;
  cmz_array inputs[16] = {{0}}, out = {0};
  for (uint32_t i = 0; i < node.input_count; i++) {
    const cmz_constant *c = cmz_value_constant(m, node.inputs[i]);
    if (!node.inputs[i]) continue;
    if (!c || c->rank > CMZ_MAX_RANK) return NULL;
    inputs[i] = (cmz_array){.dtype = c->dtype, .rank = c->rank, .data = (void *)(uintptr_t)c->data};
    for (uint32_t j = 0; j < c->rank; j++) inputs[i].shape[j] = c->shape[j];
  }
  if (!node.input_count) return NULL;
  cmz_eval e = {.module = m, .arena = m->arena, .limit = 4096};
  if (cmz_eval_node(&e, p, inputs, &out) != CMZ_OK) return NULL;
  *count = cmz_array_count(&out);
  double *result = CMZ_NEW_ARRAY(m->arena, double, *count);
  for (size_t i = 0; i < *count; i++) result[i] = cmz_get(&out, (int64_t)i);
  return result;
}

static cmz_status read_attributes(cmz_module *m, cmz_nid n, resize *r) {
  uint32_t c, nearest, how;
  CMZ_TRY(word(m, n, "coordinate_transformation_mode", "half_pixel", coordinate_names,
               CMZ_COUNT_OF(coordinate_names), &c));
  CMZ_TRY(word(m, n, "nearest_mode", "round_prefer_floor", nearest_names,
               CMZ_COUNT_OF(nearest_names), &nearest));
  CMZ_TRY(word(m, n, "mode", "nearest", method_names, CMZ_COUNT_OF(method_names), &how));
  const cmz_node *node = cmz_node_get(m, n);
  r->coordinates = (coordinate_mode)c;
  r->nearest = (nearest_mode)nearest;
  r->method = (method)how;
  r->cubic = cmz_node_float(node, "cubic_coeff_a", -0.75);
  r->extrapolation = cmz_node_float(node, "extrapolation_value", 0);
  r->exclude_outside = cmz_node_int(node, "exclude_outside", 0) != 0;
  r->antialias = cmz_node_int(node, "antialias", 0) != 0 && r->method != NEAREST;
  return CMZ_OK;
}

/* The axes that scales and sizes speak of, in their order. */
static cmz_status read_axes(cmz_module *m, cmz_nid n, uint32_t rank, uint32_t *axes,
                            uint32_t *count) {
  const cmz_attr *attr = cmz_node_attr(cmz_node_get(m, n), "axes");
  *count = attr ? attr->count : rank;
  if (*count > rank) return cmz_node_fail(m, n, CMZ_E_INPUT, "more axes than dimensions");
  for (uint32_t i = 0; i < *count; i++) {
    axes[i] = i;
    if (attr) CMZ_TRY(cmz_infer_axis(m, n, attr->ints[i], rank, &axes[i]));
  }
  return CMZ_OK;
}

static cmz_status from_scales(cmz_module *m, cmz_nid n, resize *r, const uint32_t *axes,
                              uint32_t count, const cmz_dim *in) {
  const cmz_node node = *cmz_node_get(m, n);
  size_t given, roi_count = 0;
  const double *scales = known_doubles(m, cmz_node_input(&node, 2), &given), *roi = NULL;
  if (!scales)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "scales that are only known at run time");
  if (given != count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%zu scales for %u axes", given, count);
  if (r->coordinates == TF_CROP) {
    roi = known_doubles(m, cmz_node_input(&node, 1), &roi_count);
    if (!roi || roi_count != 2 * given)
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                           "tf_crop_and_resize with scales needs a constant roi");
  }
  for (uint32_t i = 0; i < count; i++) {
    resized_axis *a = &r->axis[axes[i]];
    if (!(scales[i] > 0)) return cmz_node_fail(m, n, CMZ_E_INPUT, "the scale %g", scales[i]);
    a->by_scale = true;
    a->scale = scales[i];
    double factor = roi ? scales[i] * (roi[count + i] - roi[i]) : scales[i];
    a->out = cmz_dim_scale(m->dims, in[axes[i]], factor);
    a->active = scales[i] != 1 || roi != NULL;
  }
  return CMZ_OK;
}

/* keep_aspect_ratio_policy: one scale for all axes, the least or greatest that the sizes ask for.
 */
static cmz_status keep_aspect(cmz_module *m, cmz_nid n, resize *r, const uint32_t *axes,
                              uint32_t count, bool larger) {
  double scale = larger ? 0 : INFINITY;
  for (uint32_t i = 0; i < count; i++) {
    int64_t in, out;
    if (!cmz_dim_is_const(m->dims, r->axis[axes[i]].in, &in) ||
        !cmz_dim_is_const(m->dims, r->axis[axes[i]].out, &out) || !in)
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                           "keep_aspect_ratio_policy with sizes that are not constant");
    double own = (double)out / (double)in;
    if (larger ? own > scale : own < scale) scale = own;
  }
  for (uint32_t i = 0; i < count; i++) {
    resized_axis *a = &r->axis[axes[i]];
    int64_t in = 0;
    cmz_dim_is_const(m->dims, a->in, &in);
    a->by_scale = true;
    a->scale = scale;
    a->out = cmz_dim_const(m->dims, (int64_t)floor(scale * (double)in + 0.5));
    a->active = scale != 1;
  }
  return CMZ_OK;
}

static bool is_empty(cmz_module *m, cmz_vid v) {
  return !v || cmz_dim_is(m->dims, cmz_value_element_product(m, v), 0);
}

static cmz_status from_sizes(cmz_module *m, cmz_nid n, resize *r, const uint32_t *axes,
                             uint32_t count) {
  uint32_t given = 0;
  const cmz_dim *sizes = cmz_value_demand_elements(m, cmz_ops_input(m, n, 3), &given);
  if (!sizes || given != count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the sizes do not fit the axes");
  cmz_vid input = cmz_ops_input(m, n, 2);
  size_t scale_count = 0;
  bool scaled = !is_empty(m, input);
  const double *scales = scaled ? known_doubles(m, input, &scale_count) : NULL;
  if (scaled) CMZ_TRY(cmz_check_vector(m, n, 2, cmz_dim_const(m->dims, count), false));
  if (r->coordinates == TF_CROP)
    CMZ_TRY(cmz_check_vector(m, n, 1, cmz_dim_const(m->dims, 2 * (int64_t)count), false));
  for (uint32_t i = 0; i < count; i++) {
    resized_axis *a = &r->axis[axes[i]];
    a->out = sizes[i];
    a->by_scale = scales && i < scale_count;
    a->by_input = scaled && !scales;
    if (a->by_scale) a->scale = scales[i];
    a->active = a->out != a->in || r->coordinates == TF_CROP || a->by_input ||
                (a->by_scale && a->scale != 1);
  }
  const char *policy = cmz_node_string(cmz_node_get(m, n), "keep_aspect_ratio_policy", "stretch");
  if (!strcmp(policy, "stretch")) return CMZ_OK;
  return keep_aspect(m, n, r, axes, count, !strcmp(policy, "not_smaller"));
}

static cmz_status resolve(cmz_module *m, cmz_nid n, uint32_t rank, const cmz_dim *in, resize *r) {
  *r = (resize){.rank = rank};
  CMZ_TRY(read_attributes(m, n, r));
  uint32_t axes[CMZ_MAX_RANK];
  CMZ_TRY(read_axes(m, n, rank, axes, &r->slots));
  for (uint32_t i = 0; i < rank; i++) r->axis[i].in = r->axis[i].out = in[i];
  for (uint32_t i = 0; i < r->slots; i++) r->axis[axes[i]].slot = i;
  if (!is_empty(m, cmz_ops_input(m, n, 3))) return from_sizes(m, n, r, axes, r->slots);
  return from_scales(m, n, r, axes, r->slots, in);
}

/* ---- scales and sizes that are only known at run time: integers that the graph itself computes
 * ---- */

/* The sizes of the resized axes as f32. */
static cmz_vid old_sizes(cmz_module *m, cmz_nid n) {
  cmz_vid v = cmz_build1(m, n, "Shape", cmz_ops_input(m, n, 0));
  const cmz_attr *axes = cmz_node_attr(cmz_node_get(m, n), "axes");
  if (axes) v = cmz_build2(m, n, "Gather", v, cmz_build_i64s(m, n, axes->ints, axes->count));
  return cmz_build_cast(m, n, v, CMZ_F32);
}

static cmz_vid whole(cmz_module *m, cmz_nid n, cmz_vid v) {
  return cmz_build_cast(m, n, cmz_build1(m, n, "Floor", v), CMZ_I64);
}

/* floor(in * scales) becomes the sizes input. */
static cmz_status sizes_from_scales(cmz_module *m, cmz_nid n) {
  cmz_vid sizes = whole(m, n, cmz_build2(m, n, "Mul", old_sizes(m, n), cmz_ops_input(m, n, 2)));
  if (!sizes) return CMZ_E_INTERNAL;
  cmz_node_set_input(m, n, 3, sizes);
  return CMZ_OK;
}

/* One scale for all axes becomes the scales input, round(in * scale) the sizes. */
static cmz_status sizes_from_policy(cmz_module *m, cmz_nid n, bool larger) {
  cmz_vid old = old_sizes(m, n), wanted = cmz_build_cast(m, n, cmz_ops_input(m, n, 3), CMZ_F32);
  cmz_vid scale =
      cmz_build1(m, n, larger ? "ReduceMax" : "ReduceMin", cmz_build2(m, n, "Div", wanted, old));
  int64_t count;
  if (!scale || !cmz_dim_is_const(m->dims, cmz_value_element_product(m, old), &count))
    return CMZ_E_INTERNAL;
  double *ones = CMZ_NEW_ARRAY(m->arena, double, (size_t)count);
  for (int64_t i = 0; i < count; i++) ones[i] = 1;
  cmz_vid scales = cmz_build2(m, n, "Mul", cmz_build_floats(m, n, CMZ_F32, 1, &count, ones), scale);
  cmz_vid half = cmz_build_scalar_like(m, n, old, 0.5);
  cmz_vid sizes = whole(m, n, cmz_build2(m, n, "Add", cmz_build2(m, n, "Mul", old, scales), half));
  if (!sizes || !scales) return CMZ_E_INTERNAL;
  cmz_node_set_input(m, n, 2, scales);
  cmz_node_set_input(m, n, 3, sizes);
  cmz_node_set_string(m, n, "keep_aspect_ratio_policy", "stretch");
  return CMZ_OK;
}

static bool all_constant(cmz_module *m, const cmz_dim *dims, uint32_t count) {
  int64_t x;
  for (uint32_t i = 0; i < count; i++)
    if (!cmz_dim_is_const(m->dims, dims[i], &x)) return false;
  return dims != NULL;
}

static cmz_status prepare(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *policy = cmz_node_string(node, "keep_aspect_ratio_policy", "stretch");
  cmz_vid sizes = cmz_node_input(node, 3), scales = cmz_node_input(node, 2);
  bool crop =
      !strcmp(cmz_node_string(node, "coordinate_transformation_mode", ""), "tf_crop_and_resize");
  size_t count;
  if (is_empty(m, sizes)) {
    if (is_empty(m, scales)) return cmz_node_fail(m, n, CMZ_E_INPUT, "neither scales nor sizes");
    return crop || known_doubles(m, scales, &count) ? CMZ_OK : sizes_from_scales(m, n);
  }
  if (!strcmp(policy, "stretch")) return CMZ_OK;
  uint32_t size_count = 0;
  const cmz_dim *elements = cmz_value_elements(m, sizes, &size_count);
  const cmz_type *x = cmz_input_type(m, cmz_node_get(m, n), 0);
  if (all_constant(m, elements, size_count) && all_constant(m, x->shape, x->rank)) return CMZ_OK;
  return sizes_from_policy(m, n, !strcmp(policy, "not_smaller"));
}

static cmz_status infer(cmz_module *m, cmz_nid n) {
  CMZ_TRY(prepare(m, n));
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  resize r;
  CMZ_TRY(resolve(m, n, x.rank, x.shape, &r));
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++) shape[i] = r.axis[i].out;
  cmz_set_output(m, n, 0, x.dtype, x.rank, shape);
  return CMZ_OK;
}

/* ---- kernel expression ---- */

typedef struct drawing {
  cmz_describe *d;
  cmz_kernel *k;
  const resize *r;
  bool has_roi;
} drawing;

static cmz_expr f32(const drawing *w, double v) { return cmz_x_float(w->k, CMZ_F32, v); }
static cmz_expr size_f32(const drawing *w, cmz_dim dim) {
  return cmz_x_cast(w->k, cmz_describe_dim(w->d, dim), CMZ_F32);
}
static cmz_expr op(const drawing *w, cmz_expr_op what, cmz_expr a, cmz_expr b) {
  return cmz_x2(w->k, what, a, b);
}

/* Element of the roi as f32. */
static cmz_expr roi_at(const drawing *w, uint32_t i) {
  cmz_expr at = cmz_x_index(w->k, i), v = cmz_describe_input(w->d, 1, &at);
  return v ? cmz_x_cast(w->k, v, CMZ_F32) : 0;
}

/* The scale of axis A as f32; 0 after an error. */
static cmz_expr scale_of(const drawing *w, const resized_axis *a) {
  if (a->by_scale) return f32(w, (float)a->scale);
  if (!a->by_input) return op(w, CMZ_X_DIV, size_f32(w, a->out), size_f32(w, a->in));
  cmz_expr at = cmz_x_index(w->k, a->slot), v = cmz_describe_input(w->d, 2, &at);
  return v ? cmz_x_cast(w->k, v, CMZ_F32) : 0;
}

/* Position in the input, as f32, of output coordinate O along axis A. */
static cmz_expr position(const drawing *w, const resized_axis *a, cmz_expr o) {
  cmz_kernel *k = w->k;
  cmz_expr x = cmz_x_cast(k, o, CMZ_F32), half = f32(w, 0.5), one = f32(w, 1), zero = f32(w, 0);
  cmz_expr in = size_f32(w, a->in), out = size_f32(w, a->out);
  cmz_expr scale = scale_of(w, a);
  if (!scale) return 0;
  cmz_expr several = cmz_x2(k, CMZ_X_LT, cmz_x_index(k, 1), cmz_describe_dim(w->d, a->out));
  cmz_expr centred = op(w, CMZ_X_SUB, op(w, CMZ_X_DIV, op(w, CMZ_X_ADD, x, half), scale), half);
  switch (w->r->coordinates) {
  case HALF_PIXEL:
    return centred;
  case PYTORCH_HALF_PIXEL:
    return cmz_x_select(k, several, centred, zero);
  case ASYMMETRIC:
    return op(w, CMZ_X_DIV, x, scale);
  case TF_HALF_PIXEL_FOR_NN:
    return op(w, CMZ_X_DIV, op(w, CMZ_X_ADD, x, half), scale);
  case HALF_PIXEL_SYMMETRIC: {
    cmz_expr adjust = op(w, CMZ_X_DIV, out, op(w, CMZ_X_MUL, scale, in));
    cmz_expr offset =
        op(w, CMZ_X_MUL, op(w, CMZ_X_DIV, in, f32(w, 2)), op(w, CMZ_X_SUB, one, adjust));
    return op(w, CMZ_X_ADD, offset, centred);
  }
  case ALIGN_CORNERS: {
    /* With scales, ONNX's own tests take the output's length before it is rounded down. */
    bool scaled = a->by_scale || a->by_input;
    cmz_expr length = scaled ? op(w, CMZ_X_MUL, scale, in) : out;
    cmz_expr v = op(w, CMZ_X_DIV, op(w, CMZ_X_MUL, x, op(w, CMZ_X_SUB, in, one)),
                    op(w, CMZ_X_SUB, length, one));
    return cmz_x_select(k, several, v, zero);
  }
  case TF_CROP: {
    cmz_expr start = roi_at(w, a->slot), end = roi_at(w, w->r->slots + a->slot),
             last = op(w, CMZ_X_SUB, in, one);
    if (!start || !end) return 0;
    cmz_expr span = op(w, CMZ_X_MUL, op(w, CMZ_X_SUB, end, start), last);
    cmz_expr v = op(w, CMZ_X_DIV, op(w, CMZ_X_MUL, x, span), op(w, CMZ_X_SUB, out, one));
    v = op(w, CMZ_X_ADD, op(w, CMZ_X_MUL, start, last), v);
    cmz_expr middle = op(w, CMZ_X_MUL, op(w, CMZ_X_MUL, half, op(w, CMZ_X_ADD, start, end)), last);
    return cmz_x_select(k, several, v, middle);
  }
  }
  return 0;
}

static cmz_expr inside_index(const drawing *w, const resized_axis *a, cmz_expr i) {
  cmz_expr last = cmz_x_sub(w->k, cmz_describe_dim(w->d, a->in), cmz_x_index(w->k, 1));
  return cmz_x_clamp(w->k, i, cmz_x_index(w->k, 0), last);
}

static cmz_expr nearest_index(const drawing *w, const resized_axis *a, cmz_expr o) {
  cmz_kernel *k = w->k;
  int64_t in, out;
  cmz_dims *dims = cmz_describe_module(w->d)->dims;
  bool fixed = cmz_dim_is_const(dims, a->in, &in) && cmz_dim_is_const(dims, a->out, &out) && in > 0;
  double scale = a->by_scale ? a->scale : fixed && !a->by_input ? (double)out / (double)in : 0;
  bool centred = w->r->coordinates == HALF_PIXEL && w->r->nearest <= ROUND_PREFER_CEIL;
  bool plain = w->r->coordinates == ASYMMETRIC && w->r->nearest == FLOOR;
  if (scale >= 1 && scale == floor(scale) && (centred || plain))
    return cmz_x2(k, CMZ_X_FLOORDIV, o, cmz_x_index(k, (int64_t)scale));
  cmz_expr x = position(w, a, o);
  if (!x) return 0;
  if (w->r->nearest == ROUND_PREFER_FLOOR)
    x = cmz_x1(k, CMZ_X_CEIL, op(w, CMZ_X_SUB, x, f32(w, 0.5)));
  else if (w->r->nearest == ROUND_PREFER_CEIL)
    x = cmz_x1(k, CMZ_X_FLOOR, op(w, CMZ_X_ADD, x, f32(w, 0.5)));
  else x = cmz_x1(k, w->r->nearest == FLOOR ? CMZ_X_FLOOR : CMZ_X_CEIL, x);
  return inside_index(w, a, cmz_x_cast(k, x, CMZ_I64));
}

/* Weights and indices of the taps along one axis. */
typedef struct taps {
  uint32_t count;
  cmz_expr index[4], weight[4];
} taps;

/* The cubic kernel at distance T in [0, 1] from the near taps: weights of the four taps around. */
static void cubic_weights(const drawing *w, cmz_expr t, cmz_expr *out) {
  double a = w->r->cubic;
  cmz_expr one = f32(w, 1), u = op(w, CMZ_X_SUB, one, t);
  cmz_expr near[2] = {t, u}, far[2] = {op(w, CMZ_X_ADD, t, one), op(w, CMZ_X_ADD, u, one)};
  for (int i = 0; i < 2; i++) {
    cmz_expr s = near[i]; /* ((a + 2) s - (a + 3)) s s + 1 */
    cmz_expr p = op(w, CMZ_X_SUB, op(w, CMZ_X_MUL, f32(w, a + 2), s), f32(w, a + 3));
    out[1 + i] = op(w, CMZ_X_ADD, op(w, CMZ_X_MUL, op(w, CMZ_X_MUL, p, s), s), one);
    s = far[i]; /* ((a s - 5 a) s + 8 a) s - 4 a */
    p = op(w, CMZ_X_SUB, op(w, CMZ_X_MUL, f32(w, a), s), f32(w, 5 * a));
    p = op(w, CMZ_X_ADD, op(w, CMZ_X_MUL, p, s), f32(w, 8 * a));
    out[i ? 3 : 0] = op(w, CMZ_X_SUB, op(w, CMZ_X_MUL, p, s), f32(w, 4 * a));
  }
}

static bool find_taps(const drawing *w, const resized_axis *a, cmz_expr o, taps *t,
                      cmz_expr *outside) {
  cmz_kernel *k = w->k;
  cmz_expr x = position(w, a, o), zero = f32(w, 0);
  if (!x) return false;
  cmz_expr last = op(w, CMZ_X_SUB, size_f32(w, a->in), f32(w, 1));
  if (w->r->coordinates == TF_CROP) {
    cmz_expr off = cmz_x2(k, CMZ_X_OR, cmz_x2(k, CMZ_X_LT, x, zero), cmz_x2(k, CMZ_X_LT, last, x));
    *outside = *outside ? cmz_x2(k, CMZ_X_OR, *outside, off) : off;
  }
  if (w->r->method == LINEAR) x = cmz_x_clamp(k, x, zero, last);
  cmz_expr whole = cmz_x1(k, CMZ_X_FLOOR, x), part = op(w, CMZ_X_SUB, x, whole),
           first = cmz_x_cast(k, whole, CMZ_I64);
  if (w->r->method == LINEAR) {
    t->count = 2;
    t->index[0] = inside_index(w, a, first);
    t->index[1] = inside_index(w, a, cmz_x_add(k, first, cmz_x_index(k, 1)));
    t->weight[0] = op(w, CMZ_X_SUB, f32(w, 1), part);
    t->weight[1] = part;
    return true;
  }
  t->count = 4;
  cubic_weights(w, part, t->weight);
  cmz_expr sum = 0;
  for (int i = 0; i < 4; i++) {
    cmz_expr at = cmz_x_add(k, first, cmz_x_index(k, i - 1));
    t->index[i] = inside_index(w, a, at);
    if (!w->r->exclude_outside) continue;
    cmz_expr in = cmz_x_bounds(k, at, cmz_describe_dim(w->d, a->in), true, true);
    t->weight[i] = cmz_x_select(k, in, t->weight[i], zero);
    sum = sum ? op(w, CMZ_X_ADD, sum, t->weight[i]) : t->weight[i];
  }
  for (int i = 0; sum && i < 4; i++) t->weight[i] = op(w, CMZ_X_DIV, t->weight[i], sum);
  return true;
}

/* Interpolates axes from AXIS on; AT holds the coordinates chosen so far. */
static cmz_expr interpolate(const drawing *w, const taps *all, uint32_t axis, cmz_expr *at,
                            cmz_dtype type) {
  while (axis < w->r->rank && !w->r->axis[axis].active) axis++;
  if (axis == w->r->rank) {
    cmz_expr v = cmz_describe_input(w->d, 0, at);
    return v ? cmz_x_cast(w->k, v, type) : 0;
  }
  cmz_expr sum = 0;
  for (uint32_t i = 0; i < all[axis].count; i++) {
    at[axis] = all[axis].index[i];
    cmz_expr v = interpolate(w, all, axis + 1, at, type);
    if (!v) return 0;
    v = op(w, CMZ_X_MUL, v, cmz_x_cast(w->k, all[axis].weight[i], type));
    sum = sum ? op(w, CMZ_X_ADD, sum, v) : v;
  }
  return sum;
}

/* The kernel at distance X (f32, already scaled) for anti-aliasing. */
static cmz_expr antialias_kernel(const drawing *w, cmz_expr x) {
  cmz_kernel *k = w->k;
  cmz_expr s = cmz_x1(k, CMZ_X_ABS, x), zero = f32(w, 0), one = f32(w, 1);
  if (w->r->method == LINEAR) return cmz_x2(k, CMZ_X_MAX, op(w, CMZ_X_SUB, one, s), zero);
  double a = w->r->cubic;
  cmz_expr p = op(w, CMZ_X_SUB, op(w, CMZ_X_MUL, f32(w, a + 2), s), f32(w, a + 3));
  cmz_expr near = op(w, CMZ_X_ADD, op(w, CMZ_X_MUL, op(w, CMZ_X_MUL, p, s), s), one);
  p = op(w, CMZ_X_SUB, op(w, CMZ_X_MUL, f32(w, a), s), f32(w, 5 * a));
  p = op(w, CMZ_X_ADD, op(w, CMZ_X_MUL, p, s), f32(w, 8 * a));
  cmz_expr far = op(w, CMZ_X_SUB, op(w, CMZ_X_MUL, p, s), f32(w, 4 * a));
  far = cmz_x_select(k, cmz_x2(k, CMZ_X_LT, s, f32(w, 2)), far, zero);
  return cmz_x_select(k, cmz_x2(k, CMZ_X_LT, s, one), near, far);
}

/* Number of taps that hold the anti-aliasing kernel: twice its reach, and two. */
static cmz_dim antialias_taps(cmz_module *m, const resize *r, const resized_axis *a) {
  cmz_dim support = cmz_dim_const(m->dims, r->method == LINEAR ? 1 : 2),
          two = cmz_dim_const(m->dims, 2);
  cmz_dim out = cmz_dim_max(m->dims, a->out, cmz_dim_const(m->dims, 1));
  cmz_dim reach = cmz_dim_ceildiv(m->dims, cmz_dim_mul(m->dims, a->in, support), out);
  reach = cmz_dim_max(m->dims, reach, support);
  return cmz_dim_add(m->dims, cmz_dim_mul(m->dims, reach, two), two);
}

/* Weighted mean over the kernel's reach along every active axis: sum(w x) / sum(w), with one pair
 * of reductions. */
static cmz_expr antialiased(const drawing *w, const cmz_expr *idx, cmz_dtype type) {
  cmz_kernel *k = w->k;
  cmz_module *m = cmz_describe_module(w->d);
  cmz_expr result[2] = {0, 0};
  for (int pass = 0; pass < 2; pass++) { /* 0: weighted values, 1: weights */
    cmz_reducer red = {0};
    cmz_expr at[CMZ_MAX_RANK], weight = f32(w, 1);
    for (uint32_t i = 0; i < w->r->rank; i++) {
      const resized_axis *a = &w->r->axis[i];
      at[i] = idx[i];
      if (!a->active) continue;
      cmz_expr scale = scale_of(w, a);
      if (!scale) return 0;
      cmz_expr shrink = cmz_x2(k, CMZ_X_MIN, scale, f32(w, 1));
      cmz_dim count = antialias_taps(m, w->r, a);
      cmz_expr half =
          cmz_describe_dim(w->d, cmz_dim_floordiv(m->dims, count, cmz_dim_const(m->dims, 2)));
      cmz_expr x = position(w, a, idx[i]);
      if (!x) return 0;
      cmz_expr first = cmz_x_sub(k, cmz_x_cast(k, cmz_x1(k, CMZ_X_FLOOR, x), CMZ_I64),
                                 cmz_x_sub(k, half, cmz_x_index(k, 1)));
      cmz_expr p = cmz_x_add(k, first, cmz_reducer_axis(w->d, &red, count));
      cmz_expr distance = op(w, CMZ_X_MUL, op(w, CMZ_X_SUB, cmz_x_cast(k, p, CMZ_F32), x), shrink);
      cmz_expr own = antialias_kernel(w, distance);
      if (w->r->exclude_outside) {
        cmz_expr in = cmz_x_bounds(k, p, cmz_describe_dim(w->d, a->in), true, true);
        own = cmz_x_select(k, in, own, f32(w, 0));
      }
      at[i] = inside_index(w, a, p);
      weight = op(w, CMZ_X_MUL, weight, own);
    }
    if (red.overflow) return 0;
    weight = cmz_x_cast(k, weight, type);
    if (pass == 0) {
      cmz_expr v = cmz_describe_input(w->d, 0, at);
      if (!v) return 0;
      weight = op(w, CMZ_X_MUL, weight, cmz_x_cast(k, v, type));
    }
    result[pass] = cmz_reducer_finish(w->d, &red, CMZ_REDUCE_SUM, weight);
  }
  return op(w, CMZ_X_DIV, result[0], result[1]);
}

static cmz_expr describe(cmz_describe *d, const cmz_node *n, uint32_t output, const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  resize r;
  if (resolve(m, cmz_node_self(m, n), x.rank, x.shape, &r) != CMZ_OK) return 0;
  drawing w = {d, k, &r, cmz_node_input(n, 1) != 0};
  if (r.coordinates == TF_CROP && !w.has_roi)
    return cmz_describe_fail(d, "tf_crop_and_resize needs a roi");
  cmz_dtype compute = cmz_dtype_info(x.dtype)->compute,
            type = compute == CMZ_F64 ? CMZ_F64 : CMZ_F32;
  cmz_expr at[CMZ_MAX_RANK], outside = 0, value;
  taps all[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++) {
    at[i] = idx[i];
    if (!r.axis[i].active || r.antialias) continue;
    if (r.method == NEAREST) {
      at[i] = nearest_index(&w, &r.axis[i], idx[i]);
      if (!at[i]) return 0;
      if (r.coordinates == TF_CROP) {
        cmz_expr p = position(&w, &r.axis[i], idx[i]),
                 last = op(&w, CMZ_X_SUB, size_f32(&w, r.axis[i].in), f32(&w, 1));
        cmz_expr off =
            cmz_x2(k, CMZ_X_OR, cmz_x2(k, CMZ_X_LT, p, f32(&w, 0)), cmz_x2(k, CMZ_X_LT, last, p));
        outside = outside ? cmz_x2(k, CMZ_X_OR, outside, off) : off;
      }
    } else if (!find_taps(&w, &r.axis[i], idx[i], &all[i], &outside)) {
      return 0;
    }
  }
  if (r.method == NEAREST) value = cmz_describe_input(d, 0, at);
  else if (r.antialias) value = antialiased(&w, idx, type);
  else value = interpolate(&w, all, 0, at, type);
  if (!value) return 0;
  value = cmz_x_cast(k, value, compute);
  return outside ? cmz_x_select(k, outside, cmz_x_const(k, compute, r.extrapolation), value)
                 : value;
}

/* ---- reference evaluation ---- */

/* One axis of a concrete resize: taps of each output position. */
typedef struct line {
  int64_t count;
  int64_t *index;
  double *weight;
  bool *outside;
} line;

static float fixed_position(const resize *r, const resized_axis *a, int64_t in, int64_t out,
                            int64_t o, const cmz_array *roi) {
  float scale = a->by_scale ? (float)a->scale : (float)out / (float)in, x = (float)o;
  switch (r->coordinates) {
  case HALF_PIXEL:
    return (x + 0.5f) / scale - 0.5f;
  case PYTORCH_HALF_PIXEL:
    return out > 1 ? (x + 0.5f) / scale - 0.5f : 0;
  case ASYMMETRIC:
    return x / scale;
  case TF_HALF_PIXEL_FOR_NN:
    return (x + 0.5f) / scale;
  case ALIGN_CORNERS:
    if (out <= 1) return 0;
    return x * (float)(in - 1) / ((a->by_scale ? scale * (float)in : (float)out) - 1);
  case HALF_PIXEL_SYMMETRIC: {
    float adjust = (float)out / (scale * (float)in), centre = (float)in / 2;
    return centre * (1 - adjust) + ((x + 0.5f) / scale - 0.5f);
  }
  case TF_CROP: {
    float start = (float)cmz_get(roi, a->slot), end = (float)cmz_get(roi, r->slots + a->slot);
    if (out <= 1) return 0.5f * (start + end) * (float)(in - 1);
    return start * (float)(in - 1) + x * ((end - start) * (float)(in - 1)) / (float)(out - 1);
  }
  }
  return 0;
}

static double cubic_at(double s, double a) {
  s = fabs(s);
  if (s < 1) return ((a + 2) * s - (a + 3)) * s * s + 1;
  return s < 2 ? ((a * s - 5 * a) * s + 8 * a) * s - 4 * a : 0;
}

static double round_position(nearest_mode mode, double x) {
  if (mode == FLOOR) return floor(x);
  if (mode == CEIL) return ceil(x);
  return mode == ROUND_PREFER_FLOOR ? ceil(x - 0.5) : floor(x + 0.5);
}

static void fill_line(cmz_eval *e, const resize *r, const resized_axis *a, int64_t in, int64_t out,
                      const cmz_array *roi, line *l) {
  double scale = a->by_scale ? a->scale : (double)out / (double)in;
  double shrink = r->antialias && scale < 1 ? (double)(float)scale : 1;
  int64_t reach = 2 * (int64_t)ceil((r->method == LINEAR ? 1 : 2) / shrink) + 2;
  (void)e;
  l->count = !a->active || r->method == NEAREST ? 1
             : r->antialias                     ? reach
             : r->method == LINEAR              ? 2
                                                : 4;
  l->index = CMZ_NEW_ARRAY(e->arena, int64_t, (size_t)(l->count * out));
  l->weight = CMZ_NEW_ARRAY(e->arena, double, (size_t)(l->count * out));
  l->outside = CMZ_NEW_ARRAY(e->arena, bool, (size_t)out);
  for (int64_t o = 0; o < out; o++) {
    double x = a->active ? fixed_position(r, a, in, out, o, roi) : (double)o, sum = 0;
    l->outside[o] = a->active && r->coordinates == TF_CROP && (x < 0 || x > (double)(in - 1));
    if (r->method == LINEAR && !r->antialias) x = fmin(fmax(x, 0), (double)(in - 1));
    int64_t first = (int64_t)floor(x) - (l->count / 2 - (l->count > 1));
    if (l->count == 1) first = a->active ? (int64_t)round_position(r->nearest, x) : o;
    for (int64_t t = 0; t < l->count; t++) {
      int64_t p = first + t;
      double distance = ((double)p - x) * shrink;
      double weight = l->count == 1         ? 1
                      : r->method == LINEAR ? fmax(1 - fabs(distance), 0)
                                            : cubic_at(distance, r->cubic);
      if (r->exclude_outside && (p < 0 || p >= in) && l->count > 1) weight = 0;
      sum += weight;
      l->weight[o * l->count + t] = weight;
      l->index[o * l->count + t] = p < 0 ? 0 : p >= in ? in - 1 : p;
    }
    if (r->exclude_outside || r->antialias)
      for (int64_t t = 0; t < l->count; t++) l->weight[o * l->count + t] /= sum;
  }
}

static cmz_status eval(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                       cmz_array *outputs) {
  (void)n;
  const cmz_array *x = &inputs[0];
  cmz_dim in[CMZ_MAX_RANK];
  resize r;
  cmz_array_dims(e, x, in);
  CMZ_TRY(resolve(e->module, e->node, x->rank, in, &r));
  line lines[CMZ_MAX_RANK];
  int64_t shape[CMZ_MAX_RANK], counts[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x->rank; i++) {
    if (!cmz_dim_is_const(e->module->dims, r.axis[i].out, &shape[i])) {
      /* Sizes that inference saw as symbols are concrete here. */
      if (n->input_count < 4 || !inputs[3].data)
        return cmz_eval_fail(e, "the output's size is not known");
      shape[i] = cmz_get_int(&inputs[3], r.axis[i].slot);
    }
    r.axis[i].out = cmz_dim_const(e->module->dims, shape[i]);
    if (r.axis[i].by_input) {
      r.axis[i].by_scale = true;
      r.axis[i].scale = cmz_get(&inputs[2], r.axis[i].slot);
    }
    fill_line(e, &r, &r.axis[i], x->shape[i], shape[i], &inputs[1], &lines[i]);
    counts[i] = lines[i].count;
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, shape));
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++) {
    int64_t o[CMZ_MAX_RANK], t[CMZ_MAX_RANK] = {0}, at = 0;
    bool outside = false;
    double sum = 0;
    cmz_array_coordinates(&outputs[0], i, o);
    do {
      double weight = 1;
      at = 0;
      for (uint32_t j = 0; j < x->rank; j++) {
        weight *= lines[j].weight[o[j] * counts[j] + t[j]];
        at = at * x->shape[j] + lines[j].index[o[j] * counts[j] + t[j]];
        outside |= lines[j].outside[o[j]];
      }
      if (r.method != NEAREST) sum += weight * cmz_get(x, at);
    } while (cmz_odometer(x->rank, counts, t));
    if (outside) cmz_set(&outputs[0], (int64_t)i, r.extrapolation);
    else if (r.method == NEAREST) cmz_copy_element(&outputs[0], (int64_t)i, x, at);
    else cmz_set(&outputs[0], (int64_t)i, sum);
  }
  return CMZ_OK;
}

/* ---- older forms ---- */

/* Resize before opset 11 had (X, scales) and sampled asymmetrically, rounding down. */
static void as_version_10(cmz_module *m, cmz_nid n, cmz_vid scales) {
  cmz_node_set_input(m, n, 1, 0);
  cmz_node_set_input(m, n, 2, scales);
  cmz_node_set_string(m, n, "coordinate_transformation_mode", "asymmetric");
  cmz_node_set_string(m, n, "nearest_mode", "floor");
}

static cmz_status normalize_resize(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (node->opset && node->opset < 11 && node->input_count == 2)
    as_version_10(m, n, node->inputs[1]);
  if (!strcmp(cmz_node_string(cmz_node_get(m, n), "mode", ""), "bilinear"))
    cmz_node_set_string(m, n, "mode", "linear");
  return CMZ_OK;
}

static cmz_status normalize_upsample(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_attr *attr = cmz_node_attr(node, "scales");
  cmz_vid scales = cmz_node_input(node, 1);
  if (attr) {
    int64_t count = attr->count;
    double *values = cmz_arena_copy(m->arena, attr->floats, attr->count * sizeof *values);
    scales = cmz_build_floats(m, n, CMZ_F32, 1, &count, values);
    cmz_node_remove_attr(m, n, "scales");
  }
  if (!scales) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "Upsample without scales");
  as_version_10(m, n, scales);
  cmz_node_get(m, n)->op = cmz_op_get("Resize");
  cmz_node_get(m, n)->opset = 0;
  return normalize_resize(m, n);
}

static cmz_status infer_upsample(cmz_module *m, cmz_nid n) {
  return cmz_node_fail(m, n, CMZ_E_INTERNAL, "Upsample should have become Resize");
}

const cmz_op cmz_ops_resize[] = {
    {.name = "Resize",
     .domain = "",
     .min_inputs = 1,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 10,
     .normalize = normalize_resize,
     .infer = infer,
     .eval = eval,
     .describe = describe,
     .attributes = "antialias:i@18 axes:I@18 coordinate_transformation_mode:s@11 "
                   "cubic_coeff_a:f@11 exclude_outside:i@11 extrapolation_value:f@11 "
                   "keep_aspect_ratio_policy:s@18 mode:s nearest_mode:s@11"},
    {.name = "Upsample",
     .domain = "",
     .min_inputs = 1,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 7,
     .normalize = normalize_upsample,
     .infer = infer_upsample,
     .attributes = "height_scale:f!<7 mode:s scales:F!@7<9 width_scale:f!<7"},
    {.name = NULL},
};
