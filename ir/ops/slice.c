/* slice.c - parts and surroundings of tensors: Slice, Pad, CenterCropPad.
 * In: a tensor and constant, symbolic or run-time bounds. Out: types with symbolic content, values,
 * index expressions. Always holds: bounds are clamped as numpy does. */
#include "ops.h"

/* ---- Slice ---- */

/* Attributes became inputs in opset 10. */
static cmz_status normalize_slice(cmz_module *m, cmz_nid n) {
  static const char *const names[] = {"starts", "ends", "axes"};
  if (cmz_ops_input(m, n, 1)) return CMZ_OK;
  for (uint32_t i = 0; i < 3; i++) {
    uint32_t count;
    const int64_t *list = cmz_node_ints(cmz_node_get(m, n), names[i], &count);
    if (!list && i == 2) break;
    if (!list) return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute %s is missing", names[i]);
    cmz_node_set_input(m, n, i + 1, cmz_value_add_i64s(m, cmz_node_get(m, n)->graph, list, count));
    cmz_node_remove_attr(m, n, names[i]);
  }
  return CMZ_OK;
}

typedef struct slice_bounds {
  cmz_dim start[CMZ_MAX_RANK], size[CMZ_MAX_RANK], step[CMZ_MAX_RANK];
} slice_bounds;

/* A counted from the end when negative, then clamped to [low, high]. */
static cmz_dim clamp_bound(cmz_dims *p, cmz_dim a, cmz_dim size, cmz_dim low, cmz_dim high) {
  int64_t value, least, most;
  if (cmz_dim_is_const(p, a, &value)) {
    /* "To the end" is written as a huge number; no size reaches it. */
    if (value >= INT32_MAX) return high;
    if (value <= INT32_MIN) return low;
    if (value < 0) a = cmz_dim_add(p, a, size);
  } else {
    cmz_dim_range(p, a, &least, &most);
    if (least < 0) a = cmz_dim_select(p, cmz_dim_is_negative(p, a), cmz_dim_add(p, a, size), a);
  }
  return cmz_dim_max(p, low, cmz_dim_min(p, a, high));
}

/* One axis with everything possibly symbolic; a constant step folds all the selects away. */
static void slice_axis(cmz_module *m, cmz_dim size, cmz_dim start, cmz_dim end, cmz_dim step,
                       slice_bounds *b, uint32_t axis) {
  cmz_dims *p = m->dims;
  cmz_dim zero = cmz_dim_const(p, 0), minus = cmz_dim_const(p, -1),
          last = cmz_dim_sub(p, size, cmz_dim_const(p, 1));
  cmz_dim back = cmz_dim_is_negative(p, step);
  cmz_dim low = cmz_dim_select(p, back, minus, zero), high = cmz_dim_select(p, back, last, size);
  cmz_dim s = clamp_bound(p, start, size, low, high), e = clamp_bound(p, end, size, low, high);
  cmz_dim span = cmz_dim_select(p, back, cmz_dim_sub(p, s, e), cmz_dim_sub(p, e, s));
  cmz_dim width = cmz_dim_select(p, back, cmz_dim_sub(p, zero, step), step);
  b->start[axis] = s;
  b->step[axis] = step;
  b->size[axis] = cmz_dim_max(p, zero, cmz_dim_ceildiv(p, span, width));
}

typedef struct slice_lists {
  uint32_t count;
  const cmz_dim *starts, *ends, *steps; /* steps: NULL for 1 */
  cmz_dim axes[CMZ_MAX_RANK];
} slice_lists;

static cmz_status slice_lists_of(cmz_module *m, cmz_nid n, uint32_t rank, slice_lists *l) {
  uint32_t ends_count, axes_count, steps_count;
  cmz_vid axes = cmz_ops_input(m, n, 3), steps = cmz_ops_input(m, n, 4);
  l->starts = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &l->count);
  l->ends = cmz_value_demand_elements(m, cmz_ops_input(m, n, 2), &ends_count);
  if (!l->starts || !l->ends || l->count != ends_count || l->count > rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT,
                         "starts and ends must be lists of one length, at most the rank");
  axes_count = steps_count = l->count;
  for (uint32_t i = 0; i < l->count; i++) l->axes[i] = cmz_dim_const(m->dims, i);
  if (axes) CMZ_TRY(cmz_infer_axis_dims(m, n, axes, rank, l->axes, &axes_count));
  l->steps = steps ? cmz_value_demand_elements(m, steps, &steps_count) : NULL;
  if (axes_count != l->count || (steps && (!l->steps || steps_count != l->count)))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "starts, axes and steps have different lengths");
  for (uint32_t i = 0; i < l->count; i++) {
    int64_t step;
    if (l->steps && cmz_dim_is_const(m->dims, l->steps[i], &step) &&
        (step == 0 || step == INT64_MIN))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "a step of %" PRId64, step);
  }
  return CMZ_OK;
}

static cmz_status slice_bounds_of(cmz_module *m, cmz_nid n, slice_bounds *b) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_dims *p = m->dims;
  slice_lists l;
  CMZ_TRY(slice_lists_of(m, n, in.rank, &l));
  for (uint32_t axis = 0; axis < in.rank; axis++) {
    /* What is listed for this axis; which entry that is may only be known during the run. */
    cmz_dim listed = cmz_dim_const(p, 0), start = listed, step = cmz_dim_const(p, 1),
            end = in.shape[axis];
    for (uint32_t i = 0; i < l.count; i++) {
      cmz_dim here = cmz_dim_eq(p, l.axes[i], cmz_dim_const(p, axis));
      listed = cmz_dim_max(p, listed, here);
      start = cmz_dim_select(p, here, l.starts[i], start);
      end = cmz_dim_select(p, here, l.ends[i], end);
      if (l.steps) step = cmz_dim_select(p, here, l.steps[i], step);
    }
    if (cmz_dim_is(p, listed, 0)) {
      b->start[axis] = start;
      b->size[axis] = in.shape[axis];
      b->step[axis] = step;
    } else slice_axis(m, in.shape[axis], start, end, step, b, axis);
  }
  return CMZ_OK;
}

static cmz_status infer_slice(cmz_module *m, cmz_nid n) {
  slice_bounds b;
  CMZ_TRY(slice_bounds_of(m, n, &b));
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_set_output(m, n, 0, in.dtype, in.rank, b.size);
  int64_t start, size, step;
  if (in.rank != 1 || !cmz_dim_is_const(m->dims, b.start[0], &start) ||
      !cmz_dim_is_const(m->dims, b.size[0], &size) || !cmz_dim_is_const(m->dims, b.step[0], &step))
    return CMZ_OK;
  if (size < 0 || size > 1024) return CMZ_OK;
  uint32_t *index = CMZ_NEW_ARRAY(m->arena, uint32_t, (size_t)size);
  for (int64_t i = 0; i < size; i++) index[i] = (uint32_t)(start + i * step);
  cmz_infer_moved_elements(m, n, cmz_ops_input(m, n, 0), index, (uint32_t)size);
  return CMZ_OK;
}

static int64_t clamp_number(int64_t v, int64_t size, int64_t low, int64_t high) {
  if (v < 0) v = v < INT64_MIN / 2 ? low : v + size;
  return CMZ_MAX(low, CMZ_MIN(v, high));
}

static cmz_status eval_slice(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  const cmz_array *in = &inputs[0];
  int64_t start[CMZ_MAX_RANK] = {0}, step[CMZ_MAX_RANK], shape[CMZ_MAX_RANK];
  bool has_axes = n->input_count > 3 && inputs[3].data,
       has_steps = n->input_count > 4 && inputs[4].data;
  for (uint32_t i = 0; i < in->rank; i++) step[i] = 1, shape[i] = in->shape[i];
  size_t count = cmz_array_count(&inputs[1]);
  for (size_t i = 0; i < count; i++) {
    uint32_t a;
    CMZ_TRY(cmz_eval_axis(e, has_axes ? cmz_array_i64(&inputs[3], i) : (int64_t)i, in->rank, &a));
    int64_t by = has_steps ? cmz_array_i64(&inputs[4], i) : 1, size = in->shape[a];
    if (by == 0 || by == INT64_MIN) return cmz_eval_fail(e, "a step of %" PRId64, by);
    int64_t low = by < 0 ? -1 : 0, high = by < 0 ? size - 1 : size;
    int64_t s = clamp_number(cmz_array_i64(&inputs[1], i), size, low, high);
    int64_t t = clamp_number(cmz_array_i64(&inputs[2], i), size, low, high);
    int64_t span = by < 0 ? s - t : t - s, width = by < 0 ? -by : by;
    start[a] = s, step[a] = by, shape[a] = span <= 0 ? 0 : (span - 1) / width + 1;
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], in->rank, shape));
  int64_t at[CMZ_MAX_RANK] = {0}, from[CMZ_MAX_RANK], total = (int64_t)cmz_array_count(&outputs[0]);
  for (int64_t i = 0; i < total; i++, cmz_array_next(&outputs[0], at)) {
    for (uint32_t j = 0; j < in->rank; j++) from[j] = start[j] + at[j] * step[j];
    cmz_copy_element(&outputs[0], i, in, cmz_array_index(in, from));
  }
  return CMZ_OK;
}

static cmz_expr describe_slice(cmz_describe *d, const cmz_node *n, uint32_t output,
                               const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_module *m = cmz_describe_module(d);
  slice_bounds b;
  uint32_t rank = cmz_output_type(m, n, output)->rank;
  if (slice_bounds_of(m, cmz_value_get(m, n->outputs[output])->producer, &b) != CMZ_OK)
    return cmz_describe_fail(d, "its bounds are not known");
  cmz_expr from[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < rank; i++)
    from[i] = cmz_x_add(k, cmz_describe_dim(d, b.start[i]),
                        cmz_x_mul(k, idx[i], cmz_describe_dim(d, b.step[i])));
  return cmz_describe_input(d, 0, from);
}

/* ---- Pad and CenterCropPad: output position p reads input position p - before + cut ---- */

typedef enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP, PAD_UNKNOWN } pad_mode;

static pad_mode mode_of(const cmz_node *n) {
  static const char *const names[] = {"constant", "reflect", "edge", "wrap"};
  const char *mode = cmz_node_string(n, "mode", "constant");
  for (int i = 0; i < PAD_UNKNOWN; i++)
    if (!strcmp(mode, names[i])) return (pad_mode)i;
  return PAD_UNKNOWN;
}

typedef struct pad_sizes {
  cmz_dim before[CMZ_MAX_RANK], cut[CMZ_MAX_RANK], size[CMZ_MAX_RANK];
} pad_sizes;

/* Opset 1 called it paddings; until opset 11 pads and value were attributes. */
static cmz_status normalize_pad(cmz_module *m, cmz_nid n) {
  uint32_t count;
  if (cmz_ops_input(m, n, 1)) return CMZ_OK;
  const char *name = cmz_node_attr(cmz_node_get(m, n), "paddings") ? "paddings" : "pads";
  const int64_t *pads = cmz_node_ints(cmz_node_get(m, n), name, &count);
  if (!pads) return cmz_node_fail(m, n, CMZ_E_INPUT, "has no pads");
  cmz_node_set_input(m, n, 1, cmz_value_add_i64s(m, cmz_node_get(m, n)->graph, pads, count));
  cmz_node_remove_attr(m, n, name);
  return CMZ_OK;
}

static cmz_status pad_sizes_of(cmz_module *m, cmz_nid n, pad_sizes *s) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_dims *p = m->dims;
  cmz_dim zero = cmz_dim_const(p, 0), axes[CMZ_MAX_RANK];
  uint32_t count, axes_count = in.rank;
  const cmz_dim *pads = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &count);
  for (uint32_t i = 0; i < in.rank; i++) axes[i] = cmz_dim_const(p, i);
  if (cmz_ops_input(m, n, 3))
    CMZ_TRY(cmz_infer_axis_dims(m, n, cmz_ops_input(m, n, 3), in.rank, axes, &axes_count));
  if (!pads || count != 2 * axes_count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs %u pads, two for each axis", 2 * axes_count);
  for (uint32_t axis = 0; axis < in.rank; axis++) {
    cmz_dim before = zero, after = zero;
    for (uint32_t i = 0; i < axes_count; i++) {
      cmz_dim here = cmz_dim_eq(p, axes[i], cmz_dim_const(p, axis));
      before = cmz_dim_select(p, here, pads[i], before);
      after = cmz_dim_select(p, here, pads[axes_count + i], after);
    }
    s->before[axis] = cmz_dim_max(p, before, zero);
    s->cut[axis] = cmz_dim_max(p, cmz_dim_sub(p, zero, before), zero);
    s->size[axis] = cmz_dim_add(p, in.shape[axis], cmz_dim_add(p, before, after));
  }
  return CMZ_OK;
}

static cmz_status infer_pad(cmz_module *m, cmz_nid n) {
  pad_mode mode = mode_of(cmz_node_get(m, n));
  cmz_vid in = cmz_ops_input(m, n, 0);
  if (mode == PAD_UNKNOWN)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "mode \"%s\" is not supported",
                         cmz_node_string(cmz_node_get(m, n), "mode", ""));
  if (cmz_node_attr(cmz_node_get(m, n), "value")) {
    double value = cmz_node_float(cmz_node_get(m, n), "value", 0);
    if (value != 0) cmz_node_set_input(m, n, 2, cmz_build_scalar_like(m, n, in, value));
    cmz_node_remove_attr(m, n, "value");
  }
  pad_sizes s;
  CMZ_TRY(pad_sizes_of(m, n, &s));
  cmz_type type = *cmz_ops_type(m, in);
  for (uint32_t i = 0; i < type.rank && mode != PAD_CONSTANT; i++)
    if (cmz_dim_is(m->dims, type.shape[i], 0) && !cmz_dim_is(m->dims, s.size[i], 0))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "dimension %u is empty, there is nothing to repeat",
                           i);
  cmz_set_output(m, n, 0, type.dtype, type.rank, s.size);
  return CMZ_OK;
}

/* Position of the input that position P (possibly outside) repeats; -1: none. */
static int64_t source_position(pad_mode mode, int64_t p, int64_t size) {
  if (p >= 0 && p < size) return p;
  if (mode == PAD_CONSTANT) return -1;
  if (mode == PAD_EDGE) return p < 0 ? 0 : size - 1;
  if (mode == PAD_WRAP) return cmz_floor_mod(p, size);
  if (size == 1) return 0;
  p = cmz_floor_mod(p, 2 * (size - 1));
  return CMZ_MIN(p, 2 * (size - 1) - p);
}

/* OUT's element at AT reads IN's at AT + offset, or what MODE says; otherwise VALUE's element, or
 * zero. */
static void eval_padded(cmz_array *out, const cmz_array *in, const int64_t *offset, pad_mode mode,
                        const cmz_array *value) {
  int64_t at[CMZ_MAX_RANK] = {0}, from[CMZ_MAX_RANK], total = (int64_t)cmz_array_count(out);
  for (int64_t i = 0; i < total; i++, cmz_array_next(out, at)) {
    bool inside = true;
    for (uint32_t j = 0; j < in->rank; j++) {
      from[j] = source_position(mode, at[j] + offset[j], in->shape[j]);
      inside = inside && from[j] >= 0;
    }
    if (inside) cmz_copy_element(out, i, in, cmz_array_index(in, from));
    else if (value && value->data) cmz_copy_element(out, i, value, 0);
  }
}

static cmz_status eval_pad(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  const cmz_array *in = &inputs[0];
  bool has_axes = n->input_count > 3 && inputs[3].data;
  size_t count = has_axes ? cmz_array_count(&inputs[3]) : in->rank;
  int64_t shape[CMZ_MAX_RANK], offset[CMZ_MAX_RANK] = {0};
  memcpy(shape, in->shape, sizeof shape);
  if (cmz_array_count(&inputs[1]) != 2 * count)
    return cmz_eval_fail(e, "needs two pads for each axis");
  for (size_t i = 0; i < count; i++) {
    uint32_t axis;
    CMZ_TRY(
        cmz_eval_axis(e, has_axes ? cmz_array_i64(&inputs[3], i) : (int64_t)i, in->rank, &axis));
    offset[axis] = -cmz_array_i64(&inputs[1], i);
    shape[axis] += cmz_array_i64(&inputs[1], i) + cmz_array_i64(&inputs[1], count + i);
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], in->rank, shape));
  eval_padded(&outputs[0], in, offset, mode_of(n), n->input_count > 2 ? &inputs[2] : NULL);
  return CMZ_OK;
}

/* The same as source_position, as an expression; PREDICATE collects the bounds for constant
 * padding. */
static cmz_expr x_source(cmz_describe *d, pad_mode mode, cmz_expr p, cmz_dim size, bool before,
                         bool after, cmz_expr *predicate) {
  cmz_kernel *k = cmz_describe_kernel(d);
  if (!before && !after) return p;
  cmz_expr extent = cmz_describe_dim(d, size), zero = cmz_x_index(k, 0), one = cmz_x_index(k, 1);
  cmz_expr last = cmz_x_sub(k, extent, one);
  if (mode == PAD_CONSTANT)
    *predicate = cmz_x_and(k, *predicate, cmz_x_bounds(k, p, extent, before, after));
  else if (mode == PAD_EDGE) return cmz_x_clamp(k, p, zero, last);
  else if (mode == PAD_WRAP) return cmz_x2(k, CMZ_X_MOD, p, extent);
  else {
    cmz_expr period = cmz_x2(k, CMZ_X_MAX, cmz_x_mul(k, last, cmz_x_index(k, 2)), one);
    cmz_expr r = cmz_x2(k, CMZ_X_MOD, p, period);
    return cmz_x2(k, CMZ_X_MIN, r, cmz_x_sub(k, period, r));
  }
  return p;
}

/* Small reflections need no remainder: last - |last - |p||. */
static cmz_expr x_reflect_once(cmz_describe *d, cmz_expr p, cmz_dim size) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr last = cmz_x_sub(k, cmz_describe_dim(d, size), cmz_x_index(k, 1));
  cmz_expr from_end = cmz_x1(k, CMZ_X_ABS, cmz_x_sub(k, last, cmz_x1(k, CMZ_X_ABS, p)));
  return cmz_x_sub(k, last, from_end);
}

static cmz_expr describe_padded(cmz_describe *d, const cmz_node *n, const pad_sizes *s,
                                pad_mode mode, const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_module *m = cmz_describe_module(d);
  cmz_type in = *cmz_input_type(m, n, 0);
  cmz_expr from[CMZ_MAX_RANK], predicate = 0;
  for (uint32_t i = 0; i < in.rank; i++) {
    cmz_expr shift =
        cmz_x_sub(k, cmz_describe_dim(d, s->cut[i]), cmz_describe_dim(d, s->before[i]));
    cmz_expr p = cmz_x_add(k, idx[i], shift);
    /* What lies past the end: size - before + cut - input. */
    cmz_dim past = cmz_dim_sub(m->dims, cmz_dim_add(m->dims, s->size[i], s->cut[i]),
                               cmz_dim_add(m->dims, s->before[i], in.shape[i]));
    int64_t low, high, pad_low, pad_high, size_low, size_high;
    cmz_dim_range(m->dims, past, &low, &high);
    cmz_dim_range(m->dims, s->before[i], &pad_low, &pad_high);
    cmz_dim_range(m->dims, in.shape[i], &size_low, &size_high);
    bool once =
        mode == PAD_REFLECT && pad_high < size_low && high < size_low && (pad_high > 0 || high > 0);
    from[i] = once ? x_reflect_once(d, p, in.shape[i])
                   : x_source(d, mode, p, in.shape[i], pad_high > 0, high > 0, &predicate);
  }
  cmz_expr x = cmz_describe_input(d, 0, from), at[CMZ_MAX_RANK];
  if (!x || !predicate) return x;
  cmz_expr value = cmz_x_like(k, x, 0);
  for (uint32_t i = 0; i < CMZ_MAX_RANK; i++) at[i] = cmz_x_index(k, 0);
  if (n->op->name[0] == 'P' && cmz_node_input(n, 2)) value = cmz_describe_input(d, 2, at);
  return value ? cmz_x_select(k, predicate, x, value) : 0;
}

static cmz_expr describe_pad(cmz_describe *d, const cmz_node *n, uint32_t output,
                             const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  pad_sizes s;
  if (pad_sizes_of(m, cmz_value_get(m, n->outputs[output])->producer, &s) != CMZ_OK)
    return cmz_describe_fail(d, "its pads are not known");
  return describe_padded(d, n, &s, mode_of(n), idx);
}

/* ---- CenterCropPad ---- */

static cmz_status crop_sizes_of(cmz_module *m, cmz_nid n, pad_sizes *s) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_dims *p = m->dims;
  cmz_dim zero = cmz_dim_const(p, 0), two = cmz_dim_const(p, 2);
  uint32_t count, axes_count;
  const int64_t *axes = cmz_node_ints(cmz_node_get(m, n), "axes", &axes_count);
  const cmz_dim *target = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &count);
  if (!target || count != (axes ? axes_count : in.rank))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs one size for each axis");
  for (uint32_t i = 0; i < in.rank; i++) {
    s->before[i] = s->cut[i] = zero;
    s->size[i] = in.shape[i];
  }
  for (uint32_t i = 0; i < count; i++) {
    uint32_t axis;
    CMZ_TRY(cmz_infer_axis(m, n, axes ? axes[i] : (int64_t)i, in.rank, &axis));
    cmz_dim more = cmz_dim_sub(p, target[i], in.shape[axis]);
    s->before[axis] = cmz_dim_floordiv(p, cmz_dim_max(p, more, zero), two);
    s->cut[axis] = cmz_dim_floordiv(p, cmz_dim_max(p, cmz_dim_sub(p, zero, more), zero), two);
    s->size[axis] = target[i];
  }
  return CMZ_OK;
}

static cmz_status infer_crop(cmz_module *m, cmz_nid n) {
  pad_sizes s;
  CMZ_TRY(crop_sizes_of(m, n, &s));
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_set_output(m, n, 0, in.dtype, in.rank, s.size);
  return CMZ_OK;
}

static cmz_status eval_crop(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  const cmz_array *in = &inputs[0];
  uint32_t axes_count;
  const int64_t *axes = cmz_node_ints(n, "axes", &axes_count);
  int64_t shape[CMZ_MAX_RANK], offset[CMZ_MAX_RANK] = {0};
  memcpy(shape, in->shape, sizeof shape);
  size_t count = cmz_array_count(&inputs[1]);
  for (size_t i = 0; i < count; i++) {
    uint32_t axis;
    CMZ_TRY(cmz_eval_axis(e, axes && i < axes_count ? axes[i] : (int64_t)i, in->rank, &axis));
    shape[axis] = cmz_array_i64(&inputs[1], i);
    int64_t more = shape[axis] - in->shape[axis];
    offset[axis] = more > 0 ? -(more / 2) : (-more) / 2;
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], in->rank, shape));
  eval_padded(&outputs[0], in, offset, PAD_CONSTANT, NULL);
  return CMZ_OK;
}

static cmz_expr describe_crop(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  pad_sizes s;
  if (crop_sizes_of(m, cmz_value_get(m, n->outputs[output])->producer, &s) != CMZ_OK)
    return cmz_describe_fail(d, "its sizes are not known");
  return describe_padded(d, n, &s, PAD_CONSTANT, idx);
}

#define PART(NAME, MIN, MAX, SINCE, FLAGS, NORMALIZE, INFER, EVAL, DESCRIBE, ...)                  \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,            \
    .max_outputs = 1, .since = SINCE, .flags = CMZ_OP_MOVEMENT | (FLAGS), .normalize = NORMALIZE,  \
    .infer = INFER, .eval = EVAL, .describe = DESCRIBE, ##__VA_ARGS__                              \
  }

const cmz_op cmz_ops_slice[] = {
    PART("Slice", 1, 5, 1, CMZ_OP_CHEAP, normalize_slice, infer_slice, eval_slice, describe_slice,
         .attributes = "axes:I<10 ends:I!<10 starts:I!<10"),
    PART("Pad", 1, 4, 1, CMZ_OP_CHEAP, normalize_pad, infer_pad, eval_pad, describe_pad,
         .attributes = "mode:s paddings:I!<2 pads:I!@2<11 value:f<11"),
    PART("CenterCropPad", 2, 2, 18, CMZ_OP_CHEAP, NULL, infer_crop, eval_crop, describe_crop,
         .attributes = "axes:I"),
    {.name = NULL},
};
