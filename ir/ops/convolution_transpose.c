/* convolution_transpose.c - ConvTranspose, described as a gather: every output element sums the
 * taps that reach it. In: X [N, C, spatial…], W [C, M/group, kernel…]. Out: [N, M, spatial…].
 * Always holds: with dilation 1 only the taps of the right phase are visited, so that stride s does
 * not cost s times the work. */
#include "window.h"

cmz_status cmz_infer_conv_transpose(cmz_module *m, cmz_nid n);
cmz_expr cmz_describe_conv_transpose(cmz_describe *d, const cmz_node *n, uint32_t output,
                                     const cmz_expr *idx);
cmz_status cmz_eval_conv_transpose(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                   cmz_array *outputs);

typedef struct geometry {
  bool apart[CMZ_MAX_RANK]; /* windows do not overlap: each output element has one tap, inside */
  uint32_t rank;
  int64_t group;
  int64_t stride[CMZ_MAX_RANK], dilation[CMZ_MAX_RANK];
  cmz_dim pad[CMZ_MAX_RANK], output[CMZ_MAX_RANK];
} geometry;

static int64_t entry(const int64_t *values, uint32_t count, uint32_t i, int64_t otherwise) {
  return i < count ? values[i] : otherwise;
}

static cmz_status check_count(cmz_module *m, cmz_nid n, const char *name, uint32_t count,
                              uint32_t wanted) {
  if (count == 0 || count == wanted) return CMZ_OK;
  return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute %s has %u entries instead of %u", name, count,
                       wanted);
}

/* Pad at the start and output size, from the input's and the kernel's spatial sizes. */
static cmz_status resolve(cmz_module *m, cmz_nid n, uint32_t rank, const cmz_dim *input,
                          const cmz_dim *kernel, geometry *g) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_dims *dims = m->dims;
  uint32_t strides_n, dilations_n, pads_n, extra_n, shape_n;
  const int64_t *strides = cmz_node_ints(node, "strides", &strides_n);
  const int64_t *dilations = cmz_node_ints(node, "dilations", &dilations_n);
  const int64_t *pads = cmz_node_ints(node, "pads", &pads_n);
  const int64_t *extra = cmz_node_ints(node, "output_padding", &extra_n);
  const int64_t *shape = cmz_node_ints(node, "output_shape", &shape_n);
  const char *mode = cmz_node_string(node, "auto_pad", "NOTSET");
  CMZ_TRY(check_count(m, n, "strides", strides_n, rank));
  CMZ_TRY(check_count(m, n, "dilations", dilations_n, rank));
  CMZ_TRY(check_count(m, n, "pads", pads_n, 2 * rank));
  CMZ_TRY(check_count(m, n, "output_padding", extra_n, rank));
  if (shape_n == rank + 2) shape += 2; /* some exporters give the whole shape */
  else CMZ_TRY(check_count(m, n, "output_shape", shape_n, rank));
  g->rank = rank;
  g->group = cmz_node_int(node, "group", 1);
  cmz_dim one = cmz_dim_const(dims, 1), two = cmz_dim_const(dims, 2);
  for (uint32_t i = 0; i < rank; i++) {
    g->stride[i] = entry(strides, strides_n, i, 1);
    g->dilation[i] = entry(dilations, dilations_n, i, 1);
    if (g->stride[i] < 1 || g->dilation[i] < 1)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "a stride or dilation below 1");
    cmz_dim stride = cmz_dim_const(dims, g->stride[i]);
    cmz_dim dilation = cmz_dim_const(dims, g->dilation[i]);
    cmz_dim reach =
        cmz_dim_add(dims, cmz_dim_mul(dims, cmz_dim_sub(dims, kernel[i], one), dilation), one);
    cmz_dim full =
        cmz_dim_add(dims, cmz_dim_mul(dims, cmz_dim_sub(dims, input[i], one), stride), reach);
    full = cmz_dim_add(dims, full, cmz_dim_const(dims, entry(extra, extra_n, i, 0)));
    bool same = strncmp(mode, "SAME", 4) == 0;
    if (shape_n || same) {
      g->output[i] = shape_n ? cmz_dim_const(dims, shape[i]) : cmz_dim_mul(dims, input[i], stride);
      cmz_dim total =
          cmz_dim_max(dims, cmz_dim_sub(dims, full, g->output[i]), cmz_dim_const(dims, 0));
      cmz_dim half = cmz_dim_floordiv(dims, total, two);
      g->pad[i] = strcmp(mode, "SAME_UPPER") == 0 ? half : cmz_dim_sub(dims, total, half);
    } else {
      bool valid = strcmp(mode, "VALID") == 0;
      int64_t begin = valid ? 0 : entry(pads, pads_n, i, 0);
      int64_t end = valid ? 0 : entry(pads, pads_n, rank + i, 0);
      g->pad[i] = cmz_dim_const(dims, begin);
      g->output[i] = cmz_dim_sub(dims, full, cmz_dim_const(dims, begin + end));
    }
    int64_t size, begin;
    g->apart[i] = g->dilation[i] == 1 && !shape_n && !same && entry(extra, extra_n, i, 0) == 0 &&
                  cmz_dim_is_const(dims, kernel[i], &size) && size == g->stride[i] &&
                  cmz_dim_is_const(dims, g->pad[i], &begin) && begin >= 0 &&
                  entry(pads, pads_n, rank + i, 0) >= 0;
    if (cmz_dim_is_const(dims, g->output[i], &size) && size < 0)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the output's size would be negative");
  }
  return CMZ_OK;
}

cmz_status cmz_infer_conv_transpose(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0), *w = cmz_input_type(m, node, 1);
  if (x->rank < 3 || w->rank != x->rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank %u and the weights have rank %u",
                         x->rank, w->rank);
  geometry g;
  CMZ_TRY(resolve(m, n, x->rank - 2, x->shape + 2, w->shape + 2, &g));
  int64_t channels;
  bool divides = !cmz_dim_is_const(m->dims, w->shape[0], &channels) ||
                 (g.group > 0 && channels % g.group == 0);
  if (g.group < 1 || !divides || cmz_dims_differ(m, w->shape[0], x->shape[1]))
    return cmz_node_fail(m, n, CMZ_E_INPUT,
                         "the input's channels do not agree with the weights' shape and group");
  cmz_dim shape[CMZ_MAX_RANK] = {x->shape[0]};
  shape[1] = cmz_dim_mul(m->dims, w->shape[1], cmz_dim_const(m->dims, g.group));
  const cmz_type *bias = cmz_input_type(m, node, 2);
  if (bias && cmz_dims_differ(m, bias->shape[0], shape[1]))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the bias is not one number per output channel");
  for (uint32_t i = 0; i < g.rank; i++) shape[2 + i] = g.output[i];
  CMZ_TRY(cmz_check_vector(m, n, 2, shape[1], false));
  x = cmz_input_type(m, cmz_node_get(m, n), 0);
  cmz_set_output(m, n, 0, x->dtype, x->rank, shape);
  return CMZ_OK;
}

/* The tap and the input position along dim I for output position O; ANDs the conditions on the
 * position and on the tap into INSIDE[0] and [1]. */
static void tap(cmz_describe *d, const geometry *g, uint32_t i, cmz_dim input, cmz_dim kernel,
                cmz_expr o, cmz_reducer *r, cmz_expr *t, cmz_expr *p, cmz_expr *inside) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_dims *dims = cmz_describe_module(d)->dims;
  cmz_expr q = cmz_x_add(k, o, cmz_describe_dim(d, g->pad[i]));
  cmz_expr stride = cmz_x_index(k, g->stride[i]);
  if (g->dilation[i] == 1) {
    /* q = phase + stride * whole; taps phase, phase + stride, … read whole, whole - 1, … */
    cmz_dim taps = cmz_dim_ceildiv(dims, kernel, cmz_dim_const(dims, g->stride[i]));
    cmz_expr j = cmz_reducer_axis(d, r, taps);
    *t = cmz_x_add(k, cmz_x2(k, CMZ_X_MOD, q, stride), cmz_x_mul(k, j, stride));
    *p = cmz_x_sub(k, cmz_x2(k, CMZ_X_FLOORDIV, q, stride), j);
    int64_t size;
    if (!cmz_dim_is_const(dims, kernel, &size) || size % g->stride[i])
      inside[1] = cmz_x_and(k, inside[1], cmz_x2(k, CMZ_X_LT, *t, cmz_describe_dim(d, kernel)));
    if (g->apart[i]) return;
  } else {
    *t = cmz_reducer_axis(d, r, kernel);
    q = cmz_x_sub(k, q, cmz_x_mul(k, *t, cmz_x_index(k, g->dilation[i])));
    *p = cmz_x2(k, CMZ_X_FLOORDIV, q, stride);
    if (g->stride[i] > 1)
      inside[0] = cmz_x_and(
          k, inside[0], cmz_x2(k, CMZ_X_EQ, cmz_x2(k, CMZ_X_MOD, q, stride), cmz_x_index(k, 0)));
  }
  inside[0] = cmz_x_and(k, inside[0], cmz_x_bounds(k, *p, cmz_describe_dim(d, input), true, true));
}

cmz_expr cmz_describe_conv_transpose(cmz_describe *d, const cmz_node *n, uint32_t output,
                                     const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0), w = *cmz_input_type(m, n, 1);
  geometry g;
  if (resolve(m, cmz_node_self(m, n), x.rank - 2, x.shape + 2, w.shape + 2, &g) != CMZ_OK) return 0;
  cmz_reducer r = {0};
  cmz_expr xi[CMZ_MAX_RANK], wi[CMZ_MAX_RANK], inside[2] = {0, 0};
  cmz_dim per_group = cmz_dim_floordiv(m->dims, w.shape[0], cmz_dim_const(m->dims, g.group));
  cmz_expr channel = cmz_reducer_axis(d, &r, per_group),
           m_per_group = cmz_describe_dim(d, w.shape[1]);
  wi[1] = idx[1];
  if (g.group > 1) {
    cmz_expr group = cmz_x2(k, CMZ_X_FLOORDIV, idx[1], m_per_group);
    channel = cmz_x_add(k, cmz_x_mul(k, group, cmz_describe_dim(d, per_group)), channel);
    wi[1] = cmz_x2(k, CMZ_X_MOD, idx[1], m_per_group);
  }
  xi[0] = idx[0];
  xi[1] = wi[0] = channel;
  for (uint32_t i = 0; i < g.rank; i++)
    tap(d, &g, i, x.shape[2 + i], w.shape[2 + i], idx[2 + i], &r, &wi[2 + i], &xi[2 + i], inside);
  if (r.overflow) return 0;
  cmz_expr a = cmz_describe_input(d, 0, xi), b = cmz_describe_input(d, 1, wi);
  if (!a || !b) return 0;
  if (inside[0]) a = cmz_x_select(k, inside[0], a, cmz_x_like(k, a, 0));
  if (inside[1]) b = cmz_x_select(k, inside[1], b, cmz_x_like(k, b, 0));
  cmz_expr sum = cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, cmz_x_mul(k, a, b));
  if (!sum || !cmz_node_input(n, 2)) return sum;
  cmz_expr bias = cmz_describe_input(d, 2, idx + 1);
  return bias ? cmz_x_add(k, sum, bias) : 0;
}

/* Adds one input element's contribution, tap by tap, to SUMS. */
static void scatter(const cmz_array *w, const geometry *g, const int64_t *pads, const int64_t *at,
                    double value, int64_t c, const cmz_array *out, double *sums) {
  int64_t extents[CMZ_MAX_RANK], t[CMZ_MAX_RANK] = {0};
  for (uint32_t i = 1; i < w->rank; i++) extents[i - 1] = w->shape[i];
  int64_t group = c / (w->shape[0] / g->group);
  do {
    int64_t index = at[0] * out->shape[1] + group * w->shape[1] + t[0], wi = c * w->shape[1] + t[0];
    bool inside = true;
    for (uint32_t i = 0; i < g->rank; i++) {
      int64_t o = at[2 + i] * g->stride[i] - pads[i] + t[1 + i] * g->dilation[i];
      inside = inside && o >= 0 && o < out->shape[2 + i];
      index = index * out->shape[2 + i] + o;
      wi = wi * w->shape[2 + i] + t[1 + i];
    }
    if (inside) sums[index] += value * cmz_get(w, wi);
  } while (cmz_odometer(w->rank - 1, extents, t));
}

cmz_status cmz_eval_conv_transpose(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                   cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *w = &inputs[1];
  cmz_array *out = &outputs[0];
  cmz_dim xs[CMZ_MAX_RANK], ws[CMZ_MAX_RANK];
  int64_t pads[CMZ_MAX_RANK];
  geometry g;
  cmz_array_dims(e, x, xs);
  cmz_array_dims(e, w, ws);
  CMZ_TRY(resolve(e->module, e->node, x->rank - 2, xs + 2, ws + 2, &g));
  out->rank = x->rank;
  out->shape[0] = x->shape[0];
  out->shape[1] = w->shape[1] * g.group;
  for (uint32_t i = 0; i < g.rank; i++)
    if (!cmz_dim_is_const(e->module->dims, g.output[i], &out->shape[2 + i]) ||
        !cmz_dim_is_const(e->module->dims, g.pad[i], &pads[i]))
      return cmz_eval_fail(e, "the output's size is not constant");
  CMZ_TRY(cmz_eval_output(e, out));
  size_t count = cmz_array_count(out), inner = 1;
  double *sums = CMZ_NEW_ARRAY(e->arena, double, count);
  for (size_t i = 0; i < cmz_array_count(x) && cmz_array_count(w) > 0; i++) {
    int64_t at[CMZ_MAX_RANK];
    cmz_array_coordinates(x, i, at);
    scatter(w, &g, pads, at, cmz_get(x, (int64_t)i), at[1], out, sums);
  }
  bool bias = n->input_count > 2 && inputs[2].data;
  for (uint32_t i = 2; i < out->rank; i++) inner *= (size_t)out->shape[i];
  for (size_t i = 0; i < count; i++) {
    size_t c = i / inner % (size_t)out->shape[1];
    cmz_set(out, (int64_t)i, sums[i] + (bias ? cmz_get(&inputs[2], (int64_t)c) : 0));
  }
  return CMZ_OK;
}
