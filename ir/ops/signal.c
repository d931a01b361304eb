/* signal.c - windows, the mel matrix, and Fourier transforms.
 * In: nodes of these operators. Out: their types, reference values, expansions or kernel
 * expressions. Always holds: angles are computed in double precision from (k * n) mod N, so long
 * transforms stay exact; a transform of known length is a MatMul or Conv with a constant table. */
#include "ops.h"

#define MAX_TABLE (1 << 24) /* elements of a table of sines and cosines */

static cmz_status fail_dtype(cmz_module *m, cmz_nid n) {
  return cmz_node_fail(m, n, CMZ_E_INPUT, "output_datatype is not a number's type");
}

/* ---- HannWindow, HammingWindow, BlackmanWindow: a0 - a1 cos(2 pi n / d) + a2 cos(4 pi n / d) ----
 */

static const struct {
  const char *name;
  double a[3];
} windows[] = {
    {"HannWindow", {0.5, 0.5, 0}},
    {"HammingWindow", {25.0 / 46, 21.0 / 46, 0}},
    {"BlackmanWindow", {0.42, 0.5, 0.08}},
};

static const double *window_of(const cmz_node *n) {
  for (size_t i = 0; i < CMZ_COUNT_OF(windows); i++)
    if (!strcmp(windows[i].name, n->op->name)) return windows[i].a;
  return windows[0].a;
}

static cmz_status infer_window(cmz_module *m, cmz_nid n) {
  uint32_t count;
  int64_t dtype = cmz_node_int(cmz_node_get(m, n), "output_datatype", CMZ_F32);
  if (dtype <= 0 || dtype >= CMZ_DTYPE_COUNT ||
      cmz_dtype_info((cmz_dtype)dtype)->compute == CMZ_UNDEFINED)
    return fail_dtype(m, n);
  const cmz_dim *size = cmz_value_demand_elements(m, cmz_ops_input(m, n, 0), &count);
  if (!size || count != 1) return cmz_node_fail(m, n, CMZ_E_INPUT, "the size must be one integer");
  cmz_dim shape = size[0];
  cmz_set_output(m, n, 0, (cmz_dtype)dtype, 1, &shape);
  return CMZ_OK;
}

static cmz_status eval_window(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  const double *a = window_of(n);
  int64_t size = cmz_array_i64(&inputs[0], 0);
  double d = (double)(cmz_node_int(n, "periodic", 1) ? size : size - 1);
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 1, &size));
  for (int64_t i = 0; i < size; i++) {
    double angle = 2 * M_PI * (double)i / d;
    cmz_set(&outputs[0], i, a[0] - a[1] * cos(angle) + a[2] * cos(2 * angle));
  }
  return CMZ_OK;
}

static cmz_expr describe_window(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type *type = cmz_output_type(cmz_describe_module(d), n, output);
  const double *a = window_of(n);
  cmz_expr size = cmz_describe_dim(d, type->shape[0]);
  if (!cmz_node_int(n, "periodic", 1)) size = cmz_x_sub(k, size, cmz_x_index(k, 1));
  cmz_expr position =
      cmz_x_mul(k, cmz_x_cast(k, idx[0], CMZ_F64), cmz_x_float(k, CMZ_F64, 2 * M_PI));
  cmz_expr angle = cmz_x2(k, CMZ_X_DIV, position, cmz_x_cast(k, size, CMZ_F64));
  cmz_expr first = cmz_x_mul(k, cmz_x1(k, CMZ_X_COS, angle), cmz_x_float(k, CMZ_F64, a[1]));
  cmz_expr r = cmz_x_sub(k, cmz_x_float(k, CMZ_F64, a[0]), first);
  if (a[2] != 0) {
    cmz_expr twice = cmz_x1(k, CMZ_X_COS, cmz_x_add(k, angle, angle));
    r = cmz_x_add(k, r, cmz_x_mul(k, twice, cmz_x_float(k, CMZ_F64, a[2])));
  }
  return cmz_x_cast(k, r, cmz_dtype_info(type->dtype)->compute);
}

/* ---- MelWeightMatrix ---- */

static cmz_status infer_mel(cmz_module *m, cmz_nid n) {
  int64_t dtype = cmz_node_int(cmz_node_get(m, n), "output_datatype", CMZ_F32);
  double numbers[5];
  for (uint32_t i = 0; i < 5; i++)
    if (!cmz_const_f64(m, cmz_ops_input(m, n, i), &numbers[i]))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                           "input %u is computed during the run; it must be constant", i);
  if (dtype <= 0 || dtype >= CMZ_DTYPE_COUNT) return fail_dtype(m, n);
  if (!(numbers[0] >= 0 && numbers[0] < 1e6 && numbers[1] >= 0 && numbers[1] < 1e8 &&
        numbers[2] >= 1))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "a size or the sample rate is out of range");
  cmz_dim shape[2] = {cmz_dim_const(m->dims, (int64_t)numbers[1] / 2 + 1),
                      cmz_dim_const(m->dims, (int64_t)numbers[0])};
  cmz_set_output(m, n, 0, (cmz_dtype)dtype, 2, shape);
  return CMZ_OK;
}

static double mel_to_hertz(double mel) { return 700 * (pow(10, mel / 2595) - 1); }
static double hertz_to_mel(double hertz) { return 2595 * log10(1 + hertz / 700); }

static cmz_status eval_mel(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  (void)n;
  int64_t bins = cmz_array_i64(&inputs[0], 0), length = cmz_array_i64(&inputs[1], 0),
          rate = cmz_array_i64(&inputs[2], 0);
  double low = hertz_to_mel(cmz_get(&inputs[3], 0)), high = hertz_to_mel(cmz_get(&inputs[4], 0));
  int64_t shape[2] = {length / 2 + 1, bins};
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 2, shape));
  int64_t *edge = CMZ_NEW_ARRAY(e->arena, int64_t, (size_t)bins + 2);
  double step = (high - low) / (double)(bins + 2);
  for (int64_t i = 0; i < bins + 2; i++)
    edge[i] =
        (int64_t)floor((double)(length + 1) * mel_to_hertz((double)i * step + low) / (double)rate);
  for (int64_t i = 0; i < bins; i++) {
    int64_t lower = edge[i], center = edge[i + 1], higher = edge[i + 2];
    if (lower < 0 || center >= shape[0] || higher > shape[0] || lower > center || center > higher)
      return cmz_eval_fail(e, "the edges lie outside the spectrum");
    if (lower == center) cmz_set(&outputs[0], center * bins + i, 1);
    for (int64_t j = lower; lower < center && j <= center; j++)
      cmz_set(&outputs[0], j * bins + i, (double)(j - lower) / (double)(center - lower));
    for (int64_t j = center; j < higher; j++)
      cmz_set(&outputs[0], j * bins + i, (double)(higher - j) / (double)(higher - center));
  }
  return CMZ_OK;
}

/* All inputs are constant: the matrix is one. */
static cmz_status expand_mel(cmz_module *m, cmz_nid n) {
  cmz_array inputs[5] = {{0}}, output = {0};
  cmz_vid out = cmz_ops_output(m, n, 0);
  for (uint32_t i = 0; i < 5; i++) {
    const cmz_constant *c = cmz_value_constant(m, cmz_ops_input(m, n, i));
    inputs[i] = (cmz_array){.dtype = c->dtype, .data = (void *)(uintptr_t)c->data};
  }
  cmz_eval e = {.module = m, .arena = m->arena, .node = n};
  output.dtype = cmz_ops_type(m, out)->dtype;
  CMZ_TRY(eval_mel(&e, cmz_node_get(m, n), inputs, &output));
  size_t bytes;
  if (!cmz_dtype_bytes(output.dtype, cmz_array_count(&output), &bytes)) return CMZ_E_INTERNAL;
  cmz_vid v = cmz_value_add_constant(m, cmz_node_get(m, n)->graph, NULL, output.dtype, 2,
                                     output.shape, output.data, bytes);
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

/* ---- DFT ---- */

/* Opset 17 had the axis as an attribute, counted 1 by default; now it is an input, -2 by default.
 */
static cmz_status normalize_dft(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (!node->opset || node->opset >= 20 || cmz_node_input(node, 2)) return CMZ_OK;
  int64_t axis = cmz_node_int(node, "axis", 1);
  cmz_vid v = cmz_value_add_scalar(m, node->graph, CMZ_I64, (double)axis);
  if (node->input_count < 2) cmz_node_set_input(m, n, 1, 0);
  cmz_node_set_input(m, n, 2, v);
  cmz_node_remove_attr(m, n, "axis");
  return CMZ_OK;
}

typedef struct transform {
  uint32_t axis, rank;
  cmz_dim input, length; /* along the axis; the transform's N */
  bool inverse, onesided, complex_in;
} transform;

static cmz_status transform_of(cmz_module *m, cmz_nid n, transform *t) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  int64_t axis = -2;
  uint32_t count;
  if (in.rank < 2 || !cmz_dtype_is_float(in.dtype))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs floats of rank 2 or more");
  if (cmz_ops_input(m, n, 2) && !cmz_const_i64s(m, cmz_ops_input(m, n, 2), &axis, 1, &count))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "the axis is computed during the run; it must be constant");
  CMZ_TRY(cmz_infer_axis(m, n, axis, in.rank, &t->axis));
  if (t->axis + 1 == in.rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the axis is that of real and imaginary parts");
  int64_t parts;
  if (!cmz_dim_is_const(m->dims, in.shape[in.rank - 1], &parts) || (parts != 1 && parts != 2))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the last dimension must be 1 (real) or 2 (complex)");
  t->rank = in.rank;
  t->complex_in = parts == 2;
  t->inverse = cmz_node_int(cmz_node_get(m, n), "inverse", 0) != 0;
  t->onesided = cmz_node_int(cmz_node_get(m, n), "onesided", 0) != 0;
  if (t->onesided && (t->inverse || t->complex_in))
    return cmz_node_fail(
        m, n, CMZ_E_UNSUPPORTED,
        "a one-sided transform of complex numbers or inverse is not supported yet");
  t->input = t->length = in.shape[t->axis];
  if (!cmz_ops_input(m, n, 1)) return CMZ_OK;
  const cmz_dim *length = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &count);
  if (!length || count != 1)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "dft_length must be one integer");
  t->length = length[0];
  return CMZ_OK;
}

static cmz_status infer_dft(cmz_module *m, cmz_nid n) {
  transform t;
  CMZ_TRY(transform_of(m, n, &t));
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_dim shape[CMZ_MAX_RANK], two = cmz_dim_const(m->dims, 2),
                               half = cmz_dim_floordiv(m->dims, t.length, two);
  memcpy(shape, in.shape, in.rank * sizeof *shape);
  shape[t.axis] = t.onesided ? cmz_dim_add(m->dims, half, cmz_dim_const(m->dims, 1)) : t.length;
  shape[in.rank - 1] = two;
  cmz_set_output(m, n, 0, in.dtype, in.rank, shape);
  return CMZ_OK;
}

/* Cosine and sine of 2 pi k n / N. */
static void unit(int64_t k, int64_t n, int64_t length, double *c, double *s) {
  double angle = 2 * M_PI * (double)((uint64_t)k * (uint64_t)n % (uint64_t)length) / (double)length;
  *c = cos(angle);
  *s = sin(angle);
}

static cmz_status eval_dft(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  transform t;
  CMZ_TRY(transform_of(e->module, e->node, &t));
  const cmz_array *in = &inputs[0];
  cmz_array *out = &outputs[0];
  int64_t length =
      n->input_count > 1 && inputs[1].data ? cmz_array_i64(&inputs[1], 0) : in->shape[t.axis];
  int64_t shape[CMZ_MAX_RANK], at[CMZ_MAX_RANK] = {0}, from[CMZ_MAX_RANK];
  if (length < 1) return cmz_eval_fail(e, "a transform of length %" PRId64, length);
  memcpy(shape, in->shape, sizeof shape);
  shape[t.axis] = t.onesided ? length / 2 + 1 : length;
  shape[t.rank - 1] = 2;
  CMZ_TRY(cmz_eval_shape(e, out, t.rank, shape));
  int64_t total = (int64_t)cmz_array_count(out), used = CMZ_MIN(length, in->shape[t.axis]);
  double sign = t.inverse ? -1 : 1, scale = t.inverse ? 1 / (double)length : 1;
  for (int64_t i = 0; i < total; i++, cmz_array_next(out, at)) {
    double sum = 0, c, s;
    memcpy(from, at, sizeof from);
    for (int64_t j = 0; j < used; j++) {
      from[t.axis] = j;
      from[t.rank - 1] = 0;
      double re = cmz_get(in, cmz_array_index(in, from)), im = 0;
      from[t.rank - 1] = 1;
      if (t.complex_in) im = cmz_get(in, cmz_array_index(in, from));
      unit(at[t.axis], j, length, &c, &s);
      sum += at[t.rank - 1] ? im * c - sign * re * s : re * c + sign * im * s;
    }
    cmz_set(out, i, sum * scale);
  }
  return CMZ_OK;
}

/* Any length: REDUCE over the input. Slow, and only for lengths that the table below cannot hold.
 */
static cmz_expr describe_dft(cmz_describe *d, const cmz_node *n, uint32_t output,
                             const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_module *m = cmz_describe_module(d);
  transform t;
  if (transform_of(m, cmz_value_get(m, n->outputs[output])->producer, &t) != CMZ_OK)
    return cmz_describe_fail(d, "its length is not known");
  cmz_expr from[CMZ_MAX_RANK], length = cmz_describe_dim(d, t.length),
                               real_length = cmz_x_cast(k, length, CMZ_F64);
  cmz_reducer r = {0};
  memcpy(from, idx, t.rank * sizeof *from);
  from[t.axis] = cmz_reducer_axis(d, &r, cmz_dim_min(m->dims, t.input, t.length));
  from[t.rank - 1] = cmz_x_index(k, 0);
  cmz_expr step = cmz_x2(k, CMZ_X_MOD, cmz_x_mul(k, idx[t.axis], from[t.axis]), length);
  cmz_expr angle = cmz_x_mul(k, cmz_x_cast(k, step, CMZ_F64), cmz_x_float(k, CMZ_F64, 2 * M_PI));
  angle = cmz_x2(k, CMZ_X_DIV, angle, real_length);
  cmz_expr c = cmz_x1(k, CMZ_X_COS, angle), s = cmz_x1(k, CMZ_X_SIN, angle);
  if (t.inverse) s = cmz_x1(k, CMZ_X_NEG, s);
  cmz_expr re = cmz_describe_input(d, 0, from), im = 0;
  if (!re) return 0;
  cmz_dtype own = cmz_x_dtype(k, re);
  re = cmz_x_cast(k, re, CMZ_F64);
  cmz_expr real_part = cmz_x_mul(k, re, c), imaginary = cmz_x1(k, CMZ_X_NEG, cmz_x_mul(k, re, s));
  if (t.complex_in) {
    from[t.rank - 1] = cmz_x_index(k, 1);
    im = cmz_describe_input(d, 0, from);
    if (!im) return 0;
    im = cmz_x_cast(k, im, CMZ_F64);
    real_part = cmz_x_add(k, real_part, cmz_x_mul(k, im, s));
    imaginary = cmz_x_add(k, imaginary, cmz_x_mul(k, im, c));
  }
  cmz_expr is_real = cmz_x2(k, CMZ_X_EQ, idx[t.rank - 1], cmz_x_index(k, 0));
  cmz_expr sum =
      cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, cmz_x_select(k, is_real, real_part, imaginary));
  if (!sum) return 0;
  if (t.inverse) sum = cmz_x2(k, CMZ_X_DIV, sum, real_length);
  return cmz_x_cast(k, sum, own);
}

/* Rows: input (n, part); columns: output (k, part). */
static double *table_of(cmz_module *m, const transform *t, int64_t rows, int64_t length,
                        int64_t bins) {
  int64_t parts = t->complex_in ? 2 : 1, width = 2 * bins;
  double sign = t->inverse ? -1 : 1, scale = t->inverse ? 1 / (double)length : 1, c, s;
  double *table = CMZ_NEW_ARRAY(m->arena, double, (size_t)(rows * parts * width));
  for (int64_t n = 0; n < rows; n++)
    for (int64_t k = 0; k < bins; k++) {
      unit(k, n, length, &c, &s);
      double *at = table + n * parts * width + 2 * k;
      at[0] = c * scale;
      at[1] = -sign * s * scale;
      if (parts == 1) continue;
      at[width] = sign * s * scale;
      at[width + 1] = c * scale;
    }
  return table;
}

/* The axis moved next to the parts, the transform as one MatMul with a table, and back. */
static cmz_status expand_dft(cmz_module *m, cmz_nid n) {
  transform t;
  CMZ_TRY(transform_of(m, n, &t));
  int64_t input, length, perm[CMZ_MAX_RANK], parts = t.complex_in ? 2 : 1;
  if (!cmz_dim_is_const(m->dims, t.length, &length) || !cmz_dim_is_const(m->dims, t.input, &input))
    return CMZ_OK;
  if (length < 1) return cmz_node_fail(m, n, CMZ_E_INPUT, "a transform of length %" PRId64, length);
  int64_t bins = t.onesided ? length / 2 + 1 : length, rows = CMZ_MIN(input, length);
  if (length > MAX_TABLE || rows * parts > MAX_TABLE / (2 * bins)) return CMZ_OK;
  cmz_vid x = cmz_ops_input(m, n, 0);
  cmz_dtype own = cmz_ops_type(m, x)->dtype, work = own == CMZ_F64 ? CMZ_F64 : CMZ_F32;
  x = cmz_build_cast(m, n, x, work);
  uint32_t last = t.rank - 2;
  for (uint32_t i = 0; i < t.rank; i++) perm[i] = i;
  perm[t.axis] = last, perm[last] = t.axis;
  x = cmz_build_transpose(m, n, x, perm, t.rank);
  if (x && rows < input) {
    int64_t zero = 0, axis = last;
    cmz_vid in[4] = {x, cmz_build_i64s(m, n, &zero, 1), cmz_build_i64s(m, n, &rows, 1),
                     cmz_build_i64s(m, n, &axis, 1)};
    x = cmz_build_node(m, n, "Slice", 4, in, NULL);
  }
  if (!x) return CMZ_E_INTERNAL;
  cmz_dim shape[CMZ_MAX_RANK];
  memcpy(shape, cmz_ops_type(m, x)->shape, t.rank * sizeof *shape);
  shape[last] = cmz_dim_const(m->dims, rows * parts);
  x = cmz_build_reshape(m, n, x, shape, t.rank - 1);
  int64_t sides[2] = {rows * parts, 2 * bins};
  cmz_vid table = cmz_build_floats(m, n, work, 2, sides, table_of(m, &t, rows, length, bins));
  x = cmz_build2(m, n, "MatMul", x, table);
  shape[last] = cmz_dim_const(m->dims, bins);
  shape[last + 1] = cmz_dim_const(m->dims, 2);
  x = cmz_build_reshape(m, n, x, shape, t.rank);
  if (x) x = cmz_build_transpose(m, n, x, perm, t.rank);
  x = cmz_build_cast(m, n, x, own);
  if (!x) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, x);
  return CMZ_OK;
}

/* ---- STFT ---- */

typedef struct frames {
  int64_t step, length, bins;
  bool complex_in, onesided;
  cmz_dim count;
} frames;

static cmz_status frames_of(cmz_module *m, cmz_nid n, frames *f) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_vid window = cmz_ops_input(m, n, 2), length = cmz_ops_input(m, n, 3);
  uint32_t count;
  if ((in.rank != 3 && in.rank != 2) || !cmz_dtype_is_float(in.dtype))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs floats of shape [batch, length, 1 or 2]");
  if (!cmz_const_i64s(m, cmz_ops_input(m, n, 1), &f->step, 1, &count) ||
      (length && !cmz_const_i64s(m, length, &f->length, 1, &count)))
    return cmz_node_fail(
        m, n, CMZ_E_UNSUPPORTED,
        "frame_step or frame_length is computed during the run; it must be constant");
  if (!length && (!window || cmz_ops_type(m, window)->rank != 1 ||
                  !cmz_dim_is_const(m->dims, cmz_ops_type(m, window)->shape[0], &f->length)))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "needs a frame_length or a window of known length");
  if (window &&
      cmz_dims_differ(m, cmz_ops_type(m, window)->shape[0], cmz_dim_const(m->dims, f->length)))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the window's length is not frame_length");
  if (f->step < 1 || f->length < 1 || f->length > MAX_TABLE)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "frame_step and frame_length must be positive");
  f->complex_in = in.rank == 3 && cmz_dim_is(m->dims, in.shape[2], 2);
  f->onesided = cmz_node_int(cmz_node_get(m, n), "onesided", 1) != 0;
  if (f->onesided && f->complex_in)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "a one-sided transform needs a real signal");
  f->bins = f->onesided ? f->length / 2 + 1 : f->length;
  if (2 * f->bins * f->length > MAX_TABLE)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "frames of %" PRId64 " are not supported yet",
                         f->length);
  cmz_dim span = cmz_dim_sub(m->dims, in.shape[1], cmz_dim_const(m->dims, f->length));
  f->count = cmz_dim_add(m->dims, cmz_dim_floordiv(m->dims, span, cmz_dim_const(m->dims, f->step)),
                         cmz_dim_const(m->dims, 1));
  return CMZ_OK;
}

static cmz_status infer_stft(cmz_module *m, cmz_nid n) {
  frames f;
  CMZ_TRY(frames_of(m, n, &f));
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_dim shape[4] = {in.shape[0], f.count, cmz_dim_const(m->dims, f.bins),
                      cmz_dim_const(m->dims, 2)};
  cmz_set_output(m, n, 0, in.dtype, 4, shape);
  return CMZ_OK;
}

/* Weights of the convolution that transforms all frames: [(k, part), channel, n]. */
static double *stft_weights(cmz_module *m, const frames *f) {
  int64_t channels = f->complex_in ? 2 : 1;
  double c, s, *w = CMZ_NEW_ARRAY(m->arena, double, (size_t)(2 * f->bins * channels * f->length));
  for (int64_t k = 0; k < f->bins; k++)
    for (int64_t n = 0; n < f->length; n++) {
      unit(k, n, f->length, &c, &s);
      double *re = w + 2 * k * channels * f->length + n, *im = re + channels * f->length;
      re[0] = c;
      im[0] = -s;
      if (!f->complex_in) continue;
      re[f->length] = s;
      im[f->length] = c;
    }
  return w;
}

static cmz_status expand_stft(cmz_module *m, cmz_nid n) {
  frames f;
  CMZ_TRY(frames_of(m, n, &f));
  cmz_vid x = cmz_ops_input(m, n, 0), window = cmz_ops_input(m, n, 2);
  cmz_type in = *cmz_ops_type(m, x);
  cmz_dtype own = in.dtype, work = own == CMZ_F64 ? CMZ_F64 : CMZ_F32;
  int64_t channels = f.complex_in ? 2 : 1, sides[3] = {2 * f.bins, channels, f.length};
  cmz_dim shape[4] = {in.shape[0], cmz_dim_const(m->dims, 1), in.shape[1]};
  x = cmz_build_cast(m, n, x, work);
  x = f.complex_in ? cmz_build_transpose(m, n, x, (int64_t[]){0, 2, 1}, 3)
                   : cmz_build_reshape(m, n, x, shape, 3);
  cmz_vid weights = cmz_build_floats(m, n, work, 3, sides, stft_weights(m, &f));
  if (window) weights = cmz_build2(m, n, "Mul", weights, cmz_build_cast(m, n, window, work));
  cmz_attr strides = cmz_attr_ints("strides", &f.step, 1);
  cmz_vid y = cmz_build_with(m, n, "Conv", 2, (cmz_vid[]){x, weights}, 1, &strides);
  if (y) y = cmz_build_transpose(m, n, y, (int64_t[]){0, 2, 1}, 3);
  shape[1] = f.count;
  shape[2] = cmz_dim_const(m->dims, f.bins);
  shape[3] = cmz_dim_const(m->dims, 2);
  y = cmz_build_cast(m, n, cmz_build_reshape(m, n, y, shape, 4), own);
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

#define WINDOW(NAME, ...)                                                                          \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,                \
    .max_outputs = 1, .since = 17, .infer = infer_window, .eval = eval_window,                     \
    .describe = describe_window, ##__VA_ARGS__                                                     \
  }

const cmz_op cmz_ops_signal[] = {
    WINDOW("HannWindow", .attributes = "output_datatype:i periodic:i"),
    WINDOW("HammingWindow", .attributes = "output_datatype:i periodic:i"),
    WINDOW("BlackmanWindow", .attributes = "output_datatype:i periodic:i"),
    {.domain = "",
     .name = "MelWeightMatrix",
     .min_inputs = 5,
     .max_inputs = 5,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 17,
     .infer = infer_mel,
     .eval = eval_mel,
     .expand = expand_mel,
     .attributes = "output_datatype:i"},
    {.domain = "",
     .name = "DFT",
     .min_inputs = 1,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 17,
     .normalize = normalize_dft,
     .infer = infer_dft,
     .eval = eval_dft,
     .expand = expand_dft,
     .describe = describe_dft,
     .attributes = "axis:i<20 inverse:i onesided:i"},
    {.domain = "",
     .name = "STFT",
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 17,
     .infer = infer_stft,
     .expand = expand_stft,
     .attributes = "onesided:i"},
    {.name = NULL},
};
