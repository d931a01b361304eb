/* region.c - MaxUnpool and RoiAlign.
 * In: data and positions or regions. Out: placed or pooled data. Always holds: positions outside
 * the data are neither read nor written. */
#include "ops.h"

/* ---- MaxUnpool: data, positions in the unpooled tensor, wanted shape ---- */

/* The unpooled tensor's shape, which the positions count in. */
static cmz_status unpooled(cmz_module *m, cmz_nid n, const cmz_type *x, cmz_dim *shape) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t kernel_n, strides_n, pads_n, rank = x->rank - 2;
  const int64_t *kernel = cmz_node_ints(node, "kernel_shape", &kernel_n),
                *strides = cmz_node_ints(node, "strides", &strides_n);
  const int64_t *pads = cmz_node_ints(node, "pads", &pads_n);
  if (x->rank < 3 || kernel_n != rank || (strides_n && strides_n != rank) ||
      (pads_n && pads_n != 2 * rank))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "kernel_shape, strides or pads do not fit the data");
  shape[0] = x->shape[0];
  shape[1] = x->shape[1];
  for (uint32_t i = 0; i < rank; i++) {
    cmz_dim steps = cmz_dim_sub(m->dims, x->shape[2 + i], cmz_dim_const(m->dims, 1));
    steps = cmz_dim_mul(m->dims, steps, cmz_dim_const(m->dims, strides_n ? strides[i] : 1));
    int64_t rest = kernel[i] - (pads_n ? pads[i] + pads[rank + i] : 0);
    shape[2 + i] = cmz_dim_add(m->dims, steps, cmz_dim_const(m->dims, rest));
  }
  return CMZ_OK;
}

static cmz_status infer_unpool(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK];
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  CMZ_TRY(unpooled(m, n, &x, shape));
  CMZ_TRY(cmz_check_shape(m, n, 1, x.rank, x.shape));
  cmz_vid wanted = cmz_ops_input(m, n, 2);
  if (wanted) {
    uint32_t count = 0;
    const cmz_dim *e = cmz_value_demand_elements(m, wanted, &count);
    if (!e || count != x.rank)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the output shape has %u entries", count);
    for (uint32_t i = 0; i < x.rank; i++) shape[i] = e[i];
  }
  cmz_set_output(m, n, 0, x.dtype, x.rank, shape);
  return CMZ_OK;
}

static cmz_status describe_unpool(cmz_describe *d, const cmz_node *n) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0), out = *cmz_output_type(m, n, 0);
  cmz_dim shape[CMZ_MAX_RANK];
  CMZ_TRY(unpooled(m, cmz_node_self(m, n), &x, shape));
  uint16_t operand = cmz_describe_output(d, 0, CMZ_READ_WRITE);
  cmz_store stores[2] = {{.operand = operand}, {.operand = operand}};
  cmz_expr idx[CMZ_MAX_RANK], at[CMZ_MAX_RANK];
  for (int s = 0; s < 2; s++) {
    for (uint32_t i = 0; i < x.rank; i++) {
      cmz_dim extent = s ? x.shape[i] : out.shape[i];
      uint16_t axis = cmz_kernel_add_axis(k, s ? CMZ_AXIS_SERIAL : CMZ_AXIS_PARALLEL,
                                          cmz_describe_dim(d, extent));
      stores[s].axes[stores[s].axis_count++] = axis;
      idx[i] = cmz_x_axis(k, axis);
    }
    if (s == 0) {
      stores[0].value = cmz_x_const(k, cmz_dtype_info(x.dtype)->compute, 0);
      stores[0].index = cmz_describe_output_index(d, 0, idx);
      continue;
    }
    cmz_expr position = cmz_describe_input(d, 1, idx);
    stores[1].value = cmz_describe_input(d, 0, idx);
    if (!position || !stores[1].value) return CMZ_E_UNSUPPORTED;
    cmz_expr total = cmz_describe_dim(d, cmz_dim_product(m->dims, shape, x.rank));
    stores[1].predicate = cmz_x_bounds(k, position, total, true, true);
    cmz_describe_delinear(d, shape, x.rank, position, at);
    for (uint32_t i = 0; i < x.rank; i++)
      if (shape[i] != out.shape[i])
        stores[1].predicate =
            cmz_x_and(k, stores[1].predicate,
                      cmz_x_bounds(k, at[i], cmz_describe_dim(d, out.shape[i]), true, true));
    stores[1].index = cmz_describe_output_index(d, 0, at);
  }
  for (int s = 0; s < 2; s++) cmz_vec_push(k->arena, &k->stores, stores[s]);
  return CMZ_OK;
}

static cmz_status eval_unpool(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  const cmz_array *x = &inputs[0];
  cmz_dim dims[CMZ_MAX_RANK], shape[CMZ_MAX_RANK];
  cmz_array_dims(e, x, dims);
  cmz_type type = {.dtype = x->dtype, .rank = x->rank, .shape = dims};
  CMZ_TRY(unpooled(e->module, e->node, &type, shape));
  cmz_array inner = {.rank = x->rank};
  for (uint32_t i = 0; i < x->rank; i++)
    if (!cmz_dim_is_const(e->module->dims, shape[i], &inner.shape[i]))
      return cmz_eval_fail(e, "a size is not constant");
  int64_t wanted[CMZ_MAX_RANK];
  bool given = n->input_count > 2 && inputs[2].data;
  for (uint32_t i = 0; i < x->rank; i++)
    wanted[i] = given ? cmz_get_int(&inputs[2], i) : inner.shape[i];
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, wanted));
  for (size_t i = 0; i < cmz_array_count(x); i++) {
    int64_t position = cmz_get_int(&inputs[1], (int64_t)i), at[CMZ_MAX_RANK];
    if (position < 0 || position >= (int64_t)cmz_array_count(&inner))
      return cmz_eval_fail(e, "a position outside the output");
    cmz_array_coordinates(&inner, (size_t)position, at);
    bool inside = true;
    for (uint32_t j = 0; j < x->rank; j++) inside = inside && at[j] < wanted[j];
    if (inside) cmz_copy_element(&outputs[0], cmz_array_index(&outputs[0], at), x, (int64_t)i);
  }
  return CMZ_OK;
}

/* ---- RoiAlign: data, regions [R, 4] as x0 y0 x1 y1, batch numbers [R] ---- */

static cmz_status infer_roi(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0), rois = *cmz_input_type(m, node, 1);
  if (x.rank != 4 || rois.rank != 2)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "data of rank %u and regions of rank %u", x.rank,
                         rois.rank);
  cmz_dim want[2] = {CMZ_DIM_NONE, cmz_dim_const(m->dims, 4)};
  CMZ_TRY(cmz_check_shape(m, n, 1, 2, want));
  CMZ_TRY(cmz_check_vector(m, n, 2, rois.shape[0], false));
  int64_t height = cmz_node_int(node, "output_height", 1),
          width = cmz_node_int(node, "output_width", 1);
  cmz_dim shape[4] = {rois.shape[0], x.shape[1], cmz_dim_const(m->dims, height),
                      cmz_dim_const(m->dims, width)};
  cmz_set_output(m, n, 0, x.dtype, 4, shape);
  return CMZ_OK;
}

/* Opsets before 16 took positions without the half pixel. */
static cmz_status normalize_roi(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (node->opset && node->opset < 16)
    cmz_node_set_string(m, n, "coordinate_transformation_mode", "output_half_pixel");
  return CMZ_OK;
}

static cmz_expr f32(cmz_kernel *k, double v) { return cmz_x_float(k, CMZ_F32, v); }

/* What one direction of a sample needs: two indices, two weights, and whether it counts at all. */
typedef struct side {
  cmz_expr index[2], weight[2], inside;
} side;

/* Position of sample S of bin B along direction I (0: y) of region R. */
static bool describe_side(cmz_describe *d, const cmz_node *n, uint32_t i, cmz_expr region,
                          cmz_expr bin, cmz_expr s, cmz_dim size, side *out) {
  cmz_kernel *k = cmz_describe_kernel(d);
  bool half =
      !strcmp(cmz_node_string(n, "coordinate_transformation_mode", "half_pixel"), "half_pixel");
  cmz_expr scale = f32(k, cmz_node_float(n, "spatial_scale", 1)), zero = f32(k, 0), one = f32(k, 1),
           edge[2];
  for (uint32_t e = 0; e < 2; e++) {
    cmz_expr at[2] = {region, cmz_x_index(k, 2 * e + 1 - i)}, v = cmz_describe_input(d, 1, at);
    if (!v) return false;
    edge[e] = cmz_x_mul(k, cmz_x_cast(k, v, CMZ_F32), scale);
    if (half) edge[e] = cmz_x_sub(k, edge[e], f32(k, 0.5));
  }
  cmz_expr extent = cmz_x_sub(k, edge[1], edge[0]);
  if (!half) extent = cmz_x2(k, CMZ_X_MAX, extent, one);
  double bins = (double)cmz_node_int(n, i ? "output_width" : "output_height", 1),
         samples = (double)cmz_node_int(n, "sampling_ratio", 1);
  cmz_expr width = cmz_x2(k, CMZ_X_DIV, extent, f32(k, bins));
  cmz_expr p = cmz_x_add(k, edge[0], cmz_x_mul(k, cmz_x_cast(k, bin, CMZ_F32), width));
  cmz_expr part = cmz_x_mul(k, cmz_x_add(k, cmz_x_cast(k, s, CMZ_F32), f32(k, 0.5)), width);
  p = cmz_x_add(k, p, cmz_x2(k, CMZ_X_DIV, part, f32(k, samples)));
  cmz_expr length = cmz_describe_dim(d, size), whole = cmz_x_cast(k, length, CMZ_F32),
           last = cmz_x_sub(k, whole, one);
  out->inside =
      cmz_x2(k, CMZ_X_AND, cmz_x2(k, CMZ_X_LE, f32(k, -1), p), cmz_x2(k, CMZ_X_LE, p, whole));
  p = cmz_x_clamp(k, p, zero, last);
  cmz_expr first = cmz_x1(k, CMZ_X_FLOOR, p);
  out->weight[1] = cmz_x_sub(k, p, first);
  out->weight[0] = cmz_x_sub(k, one, out->weight[1]);
  cmz_expr end = cmz_x_sub(k, length, cmz_x_index(k, 1)), low = cmz_x_cast(k, first, CMZ_I64);
  out->index[0] = cmz_x_clamp(k, low, cmz_x_index(k, 0), end);
  out->index[1] = cmz_x_clamp(k, cmz_x_add(k, low, cmz_x_index(k, 1)), cmz_x_index(k, 0), end);
  return true;
}

static cmz_expr describe_roi(cmz_describe *d, const cmz_node *n, uint32_t output,
                             const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  bool max = !strcmp(cmz_node_string(n, "mode", "avg"), "max");
  int64_t samples = cmz_node_int(n, "sampling_ratio", 1);
  cmz_reducer r = {0};
  side sides[2];
  for (uint32_t i = 0; i < 2; i++) {
    cmz_expr s = cmz_reducer_axis(d, &r, cmz_dim_const(m->dims, samples));
    if (!describe_side(d, n, i, idx[0], idx[2 + i], s, x.shape[2 + i], &sides[i])) return 0;
  }
  cmz_expr batch = cmz_describe_input(d, 2, idx), value = 0;
  if (!batch) return 0;
  cmz_expr at[4] = {cmz_x_wrap_index(k, batch, cmz_describe_dim(d, x.shape[0]), false), idx[1]};
  for (int t = 0; t < 4; t++) {
    at[2] = sides[0].index[t / 2];
    at[3] = sides[1].index[t % 2];
    cmz_expr v = cmz_describe_input(d, 0, at);
    if (!v) return 0;
    cmz_expr weight = cmz_x_mul(k, sides[0].weight[t / 2], sides[1].weight[t % 2]);
    v = cmz_x_mul(k, v, cmz_x_cast(k, weight, cmz_x_dtype(k, v)));
    value = !value ? v : max ? cmz_x2(k, CMZ_X_MAX, value, v) : cmz_x_add(k, value, v);
  }
  cmz_expr inside = cmz_x_and(k, sides[0].inside, sides[1].inside);
  value = cmz_x_select(k, inside, value, cmz_x_like(k, value, 0));
  value = cmz_reducer_finish(d, &r, max ? CMZ_REDUCE_MAX : CMZ_REDUCE_SUM, value);
  return max || !value
             ? value
             : cmz_x2(k, CMZ_X_DIV, value, cmz_x_like(k, value, (double)(samples * samples)));
}

typedef struct fixed_side {
  int64_t index[2];
  double weight[2];
  bool inside;
} fixed_side;

static bool is_half(const cmz_node *n) {
  const char *mode = cmz_node_string(n, "coordinate_transformation_mode", "half_pixel");
  return cmz_node_int(n, "half", !strcmp(mode, "half_pixel")) != 0;
}

static bool is_max(const cmz_node *n) {
  return cmz_node_int(n, "max", !strcmp(cmz_node_string(n, "mode", "avg"), "max")) != 0;
}

/* Samples along one direction of a bin: given, or as many as it is pixels wide. */
static int64_t samples_of(const cmz_node *n, const cmz_array *rois, int64_t region, uint32_t i) {
  int64_t given = cmz_node_int(n, "sampling_ratio", 0);
  if (given > 0) return given;
  float scale = (float)cmz_node_float(n, "spatial_scale", 1), edge[2];
  for (int64_t e = 0; e < 2; e++)
    edge[e] = (float)cmz_get(rois, region * 4 + 2 * e + 1 - i) * scale - (is_half(n) ? 0.5f : 0.0f);
  float extent = edge[1] - edge[0];
  if (!is_half(n)) extent = fmaxf(extent, 1);
  extent = ceilf(extent / (float)cmz_node_int(n, i ? "output_width" : "output_height", 1));
  return extent > 0 && extent <= 1e6f ? (int64_t)extent : 0;
}

static fixed_side fix_side(const cmz_node *n, const cmz_array *rois, int64_t region, uint32_t i,
                           int64_t bin, int64_t s, int64_t samples, int64_t size) {
  bool half = is_half(n);
  double scale = cmz_node_float(n, "spatial_scale", 1), edge[2];
  for (int64_t e = 0; e < 2; e++)
    edge[e] = cmz_get(rois, region * 4 + 2 * e + 1 - i) * scale - (half ? 0.5 : 0);
  double extent = edge[1] - edge[0],
         bins = (double)cmz_node_int(n, i ? "output_width" : "output_height", 1);
  if (!half) extent = fmax(extent, 1);
  double width = extent / bins, p = edge[0] + (double)bin * width;
  p += ((double)s + 0.5) * width / (double)samples;
  fixed_side out = {.inside = p >= -1 && p <= (double)size};
  p = fmin(fmax(p, 0), (double)(size - 1));
  out.index[0] = (int64_t)p;
  out.index[1] = CMZ_MIN(out.index[0] + 1, size - 1);
  out.weight[1] = p - (double)out.index[0];
  out.weight[0] = 1 - out.weight[1];
  return out;
}

static cmz_status eval_roi(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  const cmz_array *x = &inputs[0];
  int64_t shape[4] = {inputs[1].shape[0], x->shape[1], cmz_node_int(n, "output_height", 1),
                      cmz_node_int(n, "output_width", 1)};
  bool max = is_max(n);
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 4, shape));
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++) {
    int64_t o[CMZ_MAX_RANK];
    cmz_array_coordinates(&outputs[0], i, o);
    int64_t batch = cmz_get_int(&inputs[2], o[0]);
    if (batch < 0 || batch >= x->shape[0]) return cmz_eval_fail(e, "batch number %" PRId64, batch);
    int64_t down = samples_of(n, &inputs[1], o[0], 0), across = samples_of(n, &inputs[1], o[0], 1),
            samples = down * across;
    double total = max && samples ? -INFINITY : 0;
    for (int64_t s = 0; s < samples; s++) {
      fixed_side y = fix_side(n, &inputs[1], o[0], 0, o[2], s / across, down, x->shape[2]);
      fixed_side z = fix_side(n, &inputs[1], o[0], 1, o[3], s % across, across, x->shape[3]);
      double sum = 0, most = -INFINITY;
      for (int t = 0; t < 4; t++) {
        int64_t at = ((batch * x->shape[1] + o[1]) * x->shape[2] + y.index[t / 2]) * x->shape[3] +
                     z.index[t % 2];
        double v = y.weight[t / 2] * z.weight[t % 2] * cmz_get(x, at);
        sum += v;
        most = fmax(most, v);
      }
      if (!y.inside || !z.inside) sum = most = 0;
      total = max ? fmax(total, most) : total + sum;
    }
    cmz_set(&outputs[0], (int64_t)i, max || !samples ? total : total / (double)samples);
  }
  return CMZ_OK;
}

/* As many samples as a region is large: the runtime's. */
static cmz_status expand_roi(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  if (cmz_node_int(&node, "sampling_ratio", 0) > 0) return CMZ_OK;
  cmz_attr attrs[] = {cmz_attr_int("half", is_half(&node)), cmz_attr_int("max", is_max(&node)),
                      cmz_attr_int("output_height", cmz_node_int(&node, "output_height", 1)),
                      cmz_attr_int("output_width", cmz_node_int(&node, "output_width", 1)),
                      cmz_attr_float("spatial_scale", cmz_node_float(&node, "spatial_scale", 1))};
  cmz_dtype own = cmz_ops_type(m, node.inputs[0])->dtype;
  cmz_vid in[3] = {cmz_build_cast(m, n, node.inputs[0], CMZ_F32),
                   cmz_build_cast(m, n, node.inputs[1], CMZ_F32),
                   cmz_build_cast(m, n, node.inputs[2], CMZ_I64)};
  cmz_vid y = cmz_build_with(m, n, "SizedRoiAlign", 3, in, CMZ_COUNT_OF(attrs), attrs);
  y = cmz_build_cast(m, n, y, own);
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

const cmz_op cmz_ops_region[] = {
    {.name = "MaxUnpool",
     .domain = "",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 9,
     .infer = infer_unpool,
     .eval = eval_unpool,
     .describe_kernel = describe_unpool,
     .attributes = "kernel_shape:I! pads:I strides:I"},
    {.name = "RoiAlign",
     .domain = "",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 10,
     .normalize = normalize_roi,
     .infer = infer_roi,
     .eval = eval_roi,
     .describe = describe_roi,
     .expand = expand_roi,
     .attributes = "coordinate_transformation_mode:s@16 mode:s output_height:i output_width:i "
                   "sampling_ratio:i spatial_scale:f"},
    {.name = "SizedRoiAlign",
     .domain = "cmz",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_RUNTIME,
     .infer = infer_roi,
     .eval = eval_roi,
     .runtime = "roi_align"},
    {.name = NULL},
};
