/* window.c - resolves sliding windows; see window.h.
 * In: attributes and sizes. Out: geometry. Always holds: sizes are dims, so unknown sizes stay
 * expressions. */
#include "window.h"

/* One int per spatial dim from attribute NAME, or OTHERWISE for each. */
static cmz_status read_ints(cmz_module *m, cmz_nid n, const char *name, uint32_t rank,
                            int64_t otherwise, int64_t least, int64_t *out) {
  uint32_t count = 0;
  const int64_t *values = cmz_node_ints(cmz_node_get(m, n), name, &count);
  if (count && count != rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute %s has %u entries for %u spatial dimensions",
                         name, count, rank);
  for (uint32_t i = 0; i < rank; i++) {
    out[i] = count ? values[i] : otherwise;
    if (out[i] < least || out[i] > (INT64_C(1) << 40))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute %s has the entry %" PRId64, name, out[i]);
  }
  return CMZ_OK;
}

static cmz_status read_pads(cmz_module *m, cmz_nid n, cmz_window *w) {
  uint32_t count = 0;
  const int64_t *pads = cmz_node_ints(cmz_node_get(m, n), "pads", &count);
  if (count && count != 2 * w->rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT,
                         "attribute pads has %u entries for %u spatial dimensions", count, w->rank);
  for (uint32_t i = 0; i < w->rank; i++) {
    w->pad_begin[i] = cmz_dim_const(m->dims, count ? pads[i] : 0);
    w->pad_end[i] = cmz_dim_const(m->dims, count ? pads[w->rank + i] : 0);
  }
  return CMZ_OK;
}

/* Output size and, for SAME, the pads of dim I. */
static void resolve_dim(cmz_dims *dims, const char *mode, bool ceil, cmz_window *w, uint32_t i) {
  cmz_dim one = cmz_dim_const(dims, 1), zero = cmz_dim_const(dims, 0);
  cmz_dim stride = cmz_dim_const(dims, w->stride[i]);
  cmz_dim reach = cmz_dim_add(
      dims,
      cmz_dim_mul(dims, cmz_dim_sub(dims, w->kernel[i], one), cmz_dim_const(dims, w->dilation[i])),
      one);
  if (strncmp(mode, "SAME", 4) == 0) {
    w->output[i] = cmz_dim_ceildiv(dims, w->input[i], stride);
    cmz_dim last = cmz_dim_mul(dims, cmz_dim_sub(dims, w->output[i], one), stride);
    cmz_dim total = cmz_dim_sub(dims, cmz_dim_add(dims, last, reach), w->input[i]);
    total = cmz_dim_max(dims, total, zero);
    cmz_dim half = cmz_dim_floordiv(dims, total, cmz_dim_const(dims, 2));
    cmz_dim rest = cmz_dim_sub(dims, total, half);
    bool lower = strcmp(mode, "SAME_LOWER") == 0;
    w->pad_begin[i] = lower ? rest : half;
    w->pad_end[i] = lower ? half : rest;
  } else {
    cmz_dim padded = cmz_dim_add(dims, w->input[i], w->pad_begin[i]);
    cmz_dim room = cmz_dim_sub(dims, cmz_dim_add(dims, padded, w->pad_end[i]), reach);
    cmz_dim steps =
        ceil ? cmz_dim_ceildiv(dims, room, stride) : cmz_dim_floordiv(dims, room, stride);
    w->output[i] = cmz_dim_add(dims, steps, one);
    /* A window that would start behind the input and its left padding does not count. */
    if (ceil) w->output[i] = cmz_dim_min(dims, w->output[i], cmz_dim_ceildiv(dims, padded, stride));
  }
  w->low[i] = !cmz_dim_is(dims, w->pad_begin[i], 0);
  cmz_dim end = cmz_dim_mul(dims, cmz_dim_sub(dims, w->output[i], one), stride);
  end = cmz_dim_sub(dims, cmz_dim_add(dims, end, reach), w->pad_begin[i]);
  int64_t known_end, known_input;
  if (cmz_dim_is_const(dims, end, &known_end) && cmz_dim_is_const(dims, w->input[i], &known_input))
    w->high[i] = known_end > known_input;
  else w->high[i] = ceil || !cmz_dim_is(dims, w->pad_end[i], 0);
}

cmz_status cmz_window_resolve(cmz_module *m, cmz_nid n, uint32_t rank, const cmz_dim *input,
                              const cmz_dim *kernel, bool ceil, cmz_window *w) {
  if (rank > CMZ_MAX_RANK) return cmz_node_fail(m, n, CMZ_E_INPUT, "rank is too large");
  memset(w, 0, sizeof *w);
  w->rank = rank;
  int64_t shape[CMZ_MAX_RANK];
  CMZ_TRY(read_ints(m, n, "strides", rank, 1, 1, w->stride));
  CMZ_TRY(read_ints(m, n, "dilations", rank, 1, 1, w->dilation));
  CMZ_TRY(read_ints(m, n, "kernel_shape", rank, -1, -1, shape));
  for (uint32_t i = 0; i < rank; i++) {
    w->input[i] = input[i];
    if (!kernel && shape[i] < 1)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute kernel_shape is missing");
    w->kernel[i] = kernel ? kernel[i] : cmz_dim_const(m->dims, shape[i]);
    if (kernel && shape[i] > 0 && cmz_dims_differ(m, kernel[i], cmz_dim_const(m->dims, shape[i])))
      return cmz_node_fail(m, n, CMZ_E_INPUT,
                           "attribute kernel_shape does not agree with the weights' shape");
  }
  const char *mode = cmz_node_string(cmz_node_get(m, n), "auto_pad", "NOTSET");
  if (strcmp(mode, "NOTSET") == 0) {
    CMZ_TRY(read_pads(m, n, w));
  } else if (strcmp(mode, "VALID") == 0) {
    for (uint32_t i = 0; i < rank; i++) w->pad_begin[i] = w->pad_end[i] = cmz_dim_const(m->dims, 0);
  } else if (strcmp(mode, "SAME_UPPER") != 0 && strcmp(mode, "SAME_LOWER") != 0) {
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute auto_pad is \"%s\"", mode);
  }
  for (uint32_t i = 0; i < rank; i++) {
    resolve_dim(m->dims, mode, ceil, w, i);
    int64_t size;
    if (cmz_dim_is_const(m->dims, w->output[i], &size) && size < 0)
      return cmz_node_fail(m, n, CMZ_E_INPUT,
                           "the window is larger than the padded input along spatial dimension %u",
                           i);
  }
  return CMZ_OK;
}

cmz_expr cmz_window_position(cmz_describe *d, const cmz_window *w, uint32_t i, cmz_expr o,
                             cmz_expr t) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr p = cmz_x_mul(k, o, cmz_x_index(k, w->stride[i]));
  p = cmz_x_add(k, p, cmz_x_mul(k, t, cmz_x_index(k, w->dilation[i])));
  return cmz_x_sub(k, p, cmz_describe_dim(d, w->pad_begin[i]));
}

cmz_expr cmz_window_inside(cmz_describe *d, const cmz_window *w, uint32_t i, cmz_expr p) {
  return cmz_x_bounds(cmz_describe_kernel(d), p, cmz_describe_dim(d, w->input[i]), w->low[i],
                      w->high[i]);
}

cmz_status cmz_window_fix(cmz_eval *e, uint32_t rank, const int64_t *input, const int64_t *kernel,
                          bool ceil, cmz_window_fixed *f) {
  cmz_dims *dims = e->module->dims;
  cmz_dim in[CMZ_MAX_RANK], taps[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < rank; i++) {
    in[i] = cmz_dim_const(dims, input[i]);
    if (kernel) taps[i] = cmz_dim_const(dims, kernel[i]);
  }
  cmz_window w;
  CMZ_TRY(cmz_window_resolve(e->module, e->node, rank, in, kernel ? taps : NULL, ceil, &w));
  f->rank = rank;
  for (uint32_t i = 0; i < rank; i++) {
    bool known = cmz_dim_is_const(dims, w.kernel[i], &f->kernel[i]) &&
                 cmz_dim_is_const(dims, w.output[i], &f->output[i]) &&
                 cmz_dim_is_const(dims, w.pad_begin[i], &f->pad_begin[i]) &&
                 cmz_dim_is_const(dims, w.pad_end[i], &f->pad_end[i]);
    if (!known) return cmz_eval_fail(e, "the window's sizes are not constant");
    f->input[i] = input[i];
    f->stride[i] = w.stride[i];
    f->dilation[i] = w.dilation[i];
  }
  return CMZ_OK;
}

bool cmz_odometer(uint32_t rank, const int64_t *extents, int64_t *digits) {
  for (uint32_t i = rank; i-- > 0;) {
    if (++digits[i] < extents[i]) return true;
    digits[i] = 0;
  }
  return false;
}
