/* pooling.c - MaxPool, AveragePool, LpPool and their global forms. Region pooling is in
 * pooling_region.c. In: X [N, C, spatial…]. Out: one value per window; MaxPool also where it was
 * found. Always holds: taps outside the input do not count (AveragePool may count padding as
 * zeros). */
#include "ops.h"
#include "window.h"

static cmz_status resolve(cmz_module *m, cmz_nid n, const cmz_type *x, cmz_window *w) {
  if (x->rank < 3) return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank %u", x->rank);
  bool ceil_mode = cmz_node_int(cmz_node_get(m, n), "ceil_mode", 0) != 0;
  return cmz_window_resolve(m, n, x->rank - 2, x->shape + 2, NULL, ceil_mode, w);
}

static cmz_status infer_pool(cmz_module *m, cmz_nid n) {
  const cmz_type *x = cmz_input_type(m, cmz_node_get(m, n), 0);
  cmz_window w;
  CMZ_TRY(resolve(m, n, x, &w));
  cmz_dim shape[CMZ_MAX_RANK] = {x->shape[0], x->shape[1]};
  for (uint32_t i = 0; i < w.rank; i++) shape[2 + i] = w.output[i];
  cmz_dtype dtype = x->dtype;
  uint32_t rank = x->rank;
  cmz_set_output(m, n, 0, dtype, rank, shape);
  cmz_set_output(m, n, 1, CMZ_I64, rank, shape);
  return CMZ_OK;
}

static cmz_status infer_global(cmz_module *m, cmz_nid n) {
  const cmz_type *x = cmz_input_type(m, cmz_node_get(m, n), 0);
  if (x->rank < 2) return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank %u", x->rank);
  cmz_dim shape[CMZ_MAX_RANK] = {x->shape[0], x->shape[1]};
  for (uint32_t i = 2; i < x->rank; i++) shape[i] = cmz_dim_const(m->dims, 1);
  cmz_set_output(m, n, 0, x->dtype, x->rank, shape);
  return CMZ_OK;
}

/* The element under the taps (one reduction axis per spatial dim), FILL where a tap lies outside.
 */
static cmz_expr element(cmz_describe *d, const cmz_window *w, const cmz_expr *idx, cmz_expr fill,
                        cmz_reducer *r) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr at[CMZ_MAX_RANK] = {idx[0], idx[1]}, inside = 0;
  for (uint32_t i = 0; i < w->rank; i++) {
    at[2 + i] = cmz_window_position(d, w, i, idx[2 + i], cmz_reducer_axis(d, r, w->kernel[i]));
    inside = cmz_x_and(k, inside, cmz_window_inside(d, w, i, at[2 + i]));
  }
  if (r->overflow) return 0;
  cmz_expr x = cmz_describe_input(d, 0, at);
  return x && inside ? cmz_x_select(k, inside, x, fill) : x;
}

/* Position of the greatest element in the flattened input: the taps are one axis, so that ARGMAX
 * sees them in order. */
static cmz_expr describe_max_index(cmz_describe *d, const cmz_node *n, const cmz_window *w,
                                   const cmz_type *x, const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_reducer r = {0};
  cmz_expr tap = cmz_reducer_axis(d, &r, cmz_dim_product(m->dims, w->kernel, w->rank));
  cmz_expr t[CMZ_MAX_RANK], at[CMZ_MAX_RANK] = {idx[0], idx[1]}, inside = 0;
  cmz_describe_delinear(d, w->kernel, w->rank, tap, t);
  for (uint32_t i = 0; i < w->rank; i++) {
    at[2 + i] = cmz_window_position(d, w, i, idx[2 + i], t[i]);
    inside = cmz_x_and(k, inside, cmz_window_inside(d, w, i, at[2 + i]));
  }
  cmz_expr value = cmz_describe_input(d, 0, at);
  if (!value) return 0;
  if (inside) value = cmz_x_select(k, inside, value, cmz_x_lowest(k, x->dtype));
  cmz_expr best = cmz_reducer_finish(d, &r, CMZ_REDUCE_ARGMAX, value);
  if (!best) return 0;
  cmz_describe_delinear(d, w->kernel, w->rank, best, t);
  cmz_expr index = cmz_describe_linear(d, x->shape, 2, idx);
  bool columns_first = cmz_node_int(n, "storage_order", 0) != 0;
  cmz_expr spatial = 0, size = cmz_x_index(k, 1);
  for (uint32_t j = 0; j < w->rank; j++) {
    uint32_t i = columns_first ? w->rank - 1 - j : j;
    cmz_expr extent = cmz_describe_dim(d, w->input[i]);
    cmz_expr p = cmz_window_position(d, w, i, idx[2 + i], t[i]);
    spatial = spatial ? cmz_x_add(k, cmz_x_mul(k, spatial, extent), p) : p;
    size = cmz_x_mul(k, size, extent);
  }
  return cmz_x_add(k, cmz_x_mul(k, index, size), spatial);
}

static cmz_expr describe_max_pool(cmz_describe *d, const cmz_node *n, uint32_t output,
                                  const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  cmz_window w;
  if (resolve(m, cmz_node_self(m, n), &x, &w) != CMZ_OK) return 0;
  if (output == 1) return describe_max_index(d, n, &w, &x, idx);
  cmz_reducer r = {0};
  cmz_expr body = element(d, &w, idx, cmz_x_lowest(cmz_describe_kernel(d), x.dtype), &r);
  return cmz_reducer_finish(d, &r, CMZ_REDUCE_MAX, body);
}

/* Number of taps of output position O along dim I that count. */
static cmz_expr tap_count(cmz_describe *d, const cmz_window *w, uint32_t i, cmz_expr o,
                          bool padding_counts) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr all = cmz_describe_dim(d, w->kernel[i]);
  bool low = w->low[i] && !padding_counts;
  if (!low && !w->high[i]) return all;
  cmz_expr zero = cmz_x_index(k, 0), dilation = cmz_x_index(k, w->dilation[i]);
  cmz_expr less = cmz_x_index(k, w->dilation[i] - 1);
  cmz_expr start = cmz_window_position(d, w, i, o, zero);
  cmz_expr end = cmz_describe_dim(d, w->input[i]);
  if (padding_counts) end = cmz_x_add(k, end, cmz_describe_dim(d, w->pad_end[i]));
  /* Taps before ceil((end - start) / dilation) lie before the end, likewise for the start. */
  cmz_expr last = cmz_x_add(k, cmz_x_sub(k, end, start), less);
  last = cmz_x2(k, CMZ_X_MIN, cmz_x2(k, CMZ_X_FLOORDIV, last, dilation), all);
  if (!low) return last;
  cmz_expr first =
      cmz_x2(k, CMZ_X_FLOORDIV, cmz_x_add(k, cmz_x_sub(k, zero, start), less), dilation);
  return cmz_x_sub(k, last, cmz_x2(k, CMZ_X_MAX, first, zero));
}

static cmz_expr describe_average_pool(cmz_describe *d, const cmz_node *n, uint32_t output,
                                      const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  cmz_window w;
  if (resolve(m, cmz_node_self(m, n), &x, &w) != CMZ_OK) return 0;
  bool padding_counts = cmz_node_int(n, "count_include_pad", 0) != 0;
  cmz_reducer r = {0};
  cmz_expr fill = cmz_x_const(k, cmz_dtype_info(x.dtype)->compute, 0);
  cmz_expr sum = cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, element(d, &w, idx, fill, &r));
  cmz_expr count = cmz_x_index(k, 1);
  for (uint32_t i = 0; i < w.rank; i++)
    count = cmz_x_mul(k, count, tap_count(d, &w, i, idx[2 + i], padding_counts));
  return sum ? cmz_x2(k, CMZ_X_DIV, sum, cmz_x_cast(k, count, cmz_x_dtype(k, sum))) : 0;
}

/* The p-norm's body and the root of the sum. */
static cmz_expr power(cmz_kernel *k, cmz_expr x, int64_t p) {
  cmz_expr a = cmz_x1(k, CMZ_X_ABS, x);
  if (p == 1) return a;
  return p == 2 ? cmz_x_mul(k, x, x) : cmz_x2(k, CMZ_X_POW, a, cmz_x_like(k, a, (double)p));
}
static cmz_expr root(cmz_kernel *k, cmz_expr sum, int64_t p) {
  if (!sum || p == 1) return sum;
  if (p == 2) return cmz_x1(k, CMZ_X_SQRT, sum);
  return cmz_x2(k, CMZ_X_POW, sum, cmz_x_like(k, sum, 1.0 / (double)p));
}

static cmz_expr describe_lp_pool(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  int64_t p = cmz_node_int(n, "p", 2);
  cmz_window w;
  if (resolve(m, cmz_node_self(m, n), &x, &w) != CMZ_OK) return 0;
  cmz_reducer r = {0};
  cmz_expr body = element(d, &w, idx, cmz_x_const(k, cmz_dtype_info(x.dtype)->compute, 0), &r);
  return body ? root(k, cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, power(k, body, p)), p) : 0;
}

/* A mean over a plane is summed up in four strands. Channels that fill their blocks are summed up
 * side by side instead, each in its order. Both as CPU kernels of wide use do it, for equal bits.
 */
#define PLANE_STRANDS 4

static bool in_full_blocks(const cmz_module *m, const cmz_node *n) {
  const cmz_value *v = cmz_value_get(m, n->inputs[0]);
  int64_t channels;
  if (!cmz_dim_is_const(m->dims, v->type.shape[1], &channels)) return false;
  for (uint32_t i = 0; i < v->layout.count; i++)
    if (v->layout.axes[i].axis == 1 && v->layout.axes[i].mod > 1)
      return channels % v->layout.axes[i].mod == 0;
  return false;
}

/* Input 0 under fresh axes over all spatial dims. */
static cmz_expr global_element(cmz_describe *d, const cmz_type *x, const cmz_expr *idx,
                               cmz_reducer *r) {
  cmz_expr at[CMZ_MAX_RANK] = {idx[0], idx[1]};
  for (uint32_t i = 2; i < x->rank; i++) at[i] = cmz_reducer_axis(d, r, x->shape[i]);
  return r->overflow ? 0 : cmz_describe_input(d, 0, at);
}

static cmz_expr describe_global_max(cmz_describe *d, const cmz_node *n, uint32_t output,
                                    const cmz_expr *idx) {
  (void)output;
  const cmz_type x = *cmz_input_type(cmz_describe_module(d), n, 0);
  cmz_reducer r = {0};
  cmz_expr body = global_element(d, &x, idx, &r);
  return cmz_reducer_finish(d, &r, CMZ_REDUCE_MAX, body);
}

static cmz_expr describe_global_average(cmz_describe *d, const cmz_node *n, uint32_t output,
                                        const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  cmz_reducer r = {0};
  cmz_expr body = global_element(d, &x, idx, &r);
  for (uint32_t i = 0; i < r.count && !in_full_blocks(m, n); i++)
    k->axes.data[r.axes[i]].strands = PLANE_STRANDS;
  cmz_expr sum = cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, body);
  cmz_expr count = cmz_describe_dim(d, cmz_dim_product(m->dims, x.shape + 2, x.rank - 2));
  return sum ? cmz_x2(k, CMZ_X_DIV, sum, cmz_x_cast(k, count, cmz_x_dtype(k, sum))) : 0;
}

static cmz_expr describe_global_lp(cmz_describe *d, const cmz_node *n, uint32_t output,
                                   const cmz_expr *idx) {
  (void)output;
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(cmz_describe_module(d), n, 0);
  int64_t p = cmz_node_int(n, "p", 2);
  cmz_reducer r = {0};
  cmz_expr body = global_element(d, &x, idx, &r);
  return body ? root(k, cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, power(k, body, p)), p) : 0;
}

/* ---- reference evaluation ---- */

typedef enum kind { MAX, AVERAGE, LP } kind;

typedef struct pooled {
  double value, count;
  int64_t best;
  bool found;
} pooled;

/* Visits the taps of the window at O. PADDED: taps within the padding count as zeros. */
static pooled pool_window(const cmz_array *x, const cmz_window_fixed *w, const int64_t *o,
                          kind what, bool padded, double p) {
  pooled r = {.value = what == MAX ? -INFINITY : 0};
  int64_t t[CMZ_MAX_RANK] = {0};
  do {
    int64_t index = o[0] * x->shape[1] + o[1];
    bool inside = true, near = true;
    for (uint32_t i = 0; i < w->rank; i++) {
      int64_t at = o[2 + i] * w->stride[i] - w->pad_begin[i] + t[i] * w->dilation[i];
      inside = inside && at >= 0 && at < w->input[i];
      near = near && at < w->input[i] + w->pad_end[i];
      index = index * w->input[i] + at;
    }
    if (inside || (padded && near)) r.count++;
    if (!inside) continue;
    double v = cmz_get(x, index);
    if (what == AVERAGE) r.value += v;
    if (what == LP) r.value += pow(fabs(v), p);
    if (what == MAX && (!r.found || v > r.value || isnan(v))) {
      r.value = v;
      r.best = index;
      r.found = true;
    }
  } while (cmz_odometer(w->rank, w->kernel, t));
  return r;
}

/* Index with the spatial coordinates in column-major order. */
static int64_t columns_first(int64_t index, const cmz_window_fixed *w) {
  int64_t c[CMZ_MAX_RANK], result;
  for (uint32_t i = w->rank; i-- > 0;) {
    c[i] = index % w->input[i];
    index /= w->input[i];
  }
  result = index;
  for (uint32_t i = w->rank; i-- > 0;) result = result * w->input[i] + c[i];
  return result;
}

static cmz_status eval_pool(cmz_eval *e, const cmz_node *n, const cmz_array *x, cmz_array *outputs,
                            const cmz_window_fixed *w, kind what) {
  int64_t shape[CMZ_MAX_RANK] = {x->shape[0], x->shape[1]};
  for (uint32_t i = 0; i < w->rank; i++) shape[2 + i] = w->output[i];
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, shape));
  bool indices = n->output_count > 1 && n->outputs[1];
  if (indices) CMZ_TRY(cmz_eval_shape(e, &outputs[1], x->rank, shape));
  bool padded = cmz_node_int(n, "count_include_pad", 0) != 0;
  bool columns = cmz_node_int(n, "storage_order", 0) != 0;
  double p = (double)cmz_node_int(n, "p", 2);
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++) {
    int64_t o[CMZ_MAX_RANK];
    cmz_array_coordinates(&outputs[0], i, o);
    pooled r = pool_window(x, w, o, what, padded, p);
    if (what == AVERAGE) r.value /= r.count;
    if (what == LP) r.value = pow(r.value, 1 / p);
    if (what == MAX && r.found) cmz_copy_element(&outputs[0], (int64_t)i, x, r.best);
    else cmz_set(&outputs[0], (int64_t)i, r.value);
    if (indices) cmz_set_int(&outputs[1], (int64_t)i, columns ? columns_first(r.best, w) : r.best);
  }
  return CMZ_OK;
}

static cmz_status eval_window(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs, kind what) {
  cmz_window_fixed w;
  bool ceil_mode = cmz_node_int(n, "ceil_mode", 0) != 0;
  CMZ_TRY(cmz_window_fix(e, inputs->rank - 2, inputs->shape + 2, NULL, ceil_mode, &w));
  return eval_pool(e, n, inputs, outputs, &w, what);
}

static cmz_status eval_global(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs, kind what) {
  cmz_window_fixed w = {.rank = inputs->rank - 2};
  for (uint32_t i = 0; i < w.rank; i++) {
    w.input[i] = w.kernel[i] = inputs->shape[2 + i];
    w.output[i] = w.stride[i] = w.dilation[i] = 1;
  }
  return eval_pool(e, n, inputs, outputs, &w, what);
}

#define EVAL(NAME, HOW, KIND)                                                                      \
  static cmz_status eval_##NAME(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,           \
                                cmz_array *outputs) {                                              \
    return eval_##HOW(e, n, inputs, outputs, KIND);                                                \
  }
EVAL(max_pool, window, MAX)
EVAL(average_pool, window, AVERAGE)
EVAL(lp_pool, window, LP)
EVAL(global_max, global, MAX)
EVAL(global_average, global, AVERAGE)
EVAL(global_lp, global, LP)

#define ROW(NAME, OUTPUTS, INFER, FUNCTION, ...)                                                   \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,                \
    .max_outputs = OUTPUTS, .since = 1, .flags = CMZ_OP_REDUCTION, .infer = INFER,                 \
    .eval = eval_##FUNCTION, .describe = describe_##FUNCTION, ##__VA_ARGS__                        \
  }

const cmz_op cmz_ops_pooling[] = {
    ROW("MaxPool", 2, infer_pool, max_pool,
        .attributes = "auto_pad:s ceil_mode:i@10 dilations:I@10 kernel_shape:I! pads:I "
                      "storage_order:i@8 strides:I"),
    ROW("AveragePool", 1, infer_pool, average_pool,
        .attributes = "auto_pad:s ceil_mode:i@10 count_include_pad:i@7 dilations:I@19 "
                      "kernel_shape:I! pads:I strides:I"),
    ROW("LpPool", 1, infer_pool, lp_pool,
        .attributes = "auto_pad:s ceil_mode:i@18 dilations:I@18 kernel_shape:I<2 kernel_shape:I!@2 "
                      "p:f<2 p:i@2 pads:I strides:I"),
    ROW("GlobalMaxPool", 1, infer_global, global_max),
    ROW("GlobalAveragePool", 1, infer_global, global_average),
    ROW("GlobalLpPool", 1, infer_global, global_lp, .attributes = "p:f<2 p:i@2"),
    {.name = NULL},
};
