/* integers.c - quantised convolutions and matrix products as sums of 8-bit products
 * (cmz.IntegerConv, cmz.IntegerMatMul; convolutions of few channels as exact sums of floats). In:
 * an inferred module. Out: ConvInteger, MatMulInteger, QLinearConv, QLinearMatMul, and Conv,
 * MatMul, Gemm between DequantizeLinear nodes rewritten where weights and their parameters are
 * constant: sum((x - zx) (w - zw)) with the weights' zero point moved into the weights. What
 * follows (scales, bias, requantisation) are pointwise nodes, which fuse. Always holds: integer
 * results stay exactly what they were; real ones differ by less rounding only. */
#include "support.h"

#define FEWEST_CHANNELS 10 /* that fill a block of 16 well enough */
#define MOST_EXACT 514     /* products of bytes whose sum is below 2^24 */

/* As what the target sums data bytes: matrix units of GPUs take them as they are. */
typedef enum byte_sign { AS_UNSIGNED, AS_SIGNED, AS_THEY_ARE } byte_sign;

typedef struct operands {
  cmz_vid x, zero_point; /* 8-bit data, its zero point (0: none) */
  cmz_vid w, w_zero_point;
  bool transposed; /* W is [N, K] */
  byte_sign sign;
} operands;

static const cmz_type *type_of(const cmz_module *m, cmz_vid v) {
  return &cmz_value_get(m, v)->type;
}

static bool is_bytes(cmz_dtype t) { return t == CMZ_U8 || t == CMZ_I8; }

/* V as COUNT integers, or one for all; NULL when it is neither constant nor absent. */
static int64_t *constant_integers(cmz_module *m, cmz_vid v, int64_t count) {
  int64_t *values = CMZ_NEW_ARRAY(m->arena, int64_t, (size_t)count + 1);
  cmz_array a;
  if (v == 0) return values;
  if (!cmz_pass_constant_array(m, v, &a)) return NULL;
  int64_t have = (int64_t)cmz_array_count(&a);
  if (have != 1 && (have != count || a.rank != 1)) return NULL;
  for (int64_t i = 0; i < count; i++)
    values[i] = cmz_dtype_get_i64(a.dtype, a.data, have == 1 ? 0 : (size_t)i);
  return values;
}

/* ---- weights ---- */

typedef struct weight_sums {
  cmz_vid values, sums; /* signed bytes without zero point; their sum for each output channel */
  int64_t channels;
} weight_sums;

/* The weights of O with the channel along dim AXIS; false when a difference does not fit a signed
 * byte. */
static bool signed_weights(cmz_module *m, cmz_gid g, const operands *o, uint32_t axis,
                           weight_sums *out) {
  cmz_array a, values, sums = {.dtype = CMZ_I32, .rank = 1};
  if (!cmz_pass_constant_array(m, o->w, &a) || !is_bytes(a.dtype) || a.rank < 2) return false;
  size_t count = cmz_array_count(&a), inner = 1;
  int64_t channels = out->channels = a.shape[axis];
  int64_t *zero = constant_integers(m, o->w_zero_point, channels);
  if (zero == NULL || count == 0) return false;
  for (uint32_t i = axis + 1; i < a.rank; i++) inner *= (size_t)a.shape[i];
  values = a;
  values.dtype = CMZ_I8;
  int8_t *to = values.data = cmz_arena_alloc(m->arena, count + 8);
  int32_t *sum = sums.data = cmz_arena_alloc(m->arena, ((size_t)channels + 1) * sizeof *sum);
  memset(sum, 0, ((size_t)channels + 1) * sizeof *sum);
  sums.shape[0] = channels;
  for (size_t i = 0; i < count; i++) {
    size_t channel = i / inner % (size_t)channels;
    int64_t w = cmz_dtype_get_i64(a.dtype, a.data, i) - zero[channel];
    if (w < -128 || w > 127) return false;
    sum[channel] = (int32_t)((uint32_t)sum[channel] + (uint32_t)w);
    size_t at = o->transposed ? i % inner * (size_t)channels + channel : i;
    to[at] = (int8_t)w;
  }
  if (o->transposed) {
    values.shape[0] = a.shape[1];
    values.shape[1] = a.shape[0];
  }
  out->values = cmz_pass_add_array(m, g, NULL, &values);
  out->sums = cmz_pass_add_array(m, g, NULL, &sums);
  return out->values != 0 && out->sums != 0;
}

/* Whether the data can be summed as bytes: one zero point for all of it. */
static bool usable_data(const cmz_module *m, const operands *o) {
  if (o->x == 0 || o->w == 0 || !is_bytes(type_of(m, o->x)->dtype)) return false;
  if (o->zero_point == 0) return true;
  const cmz_type *t = type_of(m, o->zero_point);
  return t->rank == 0 || (t->rank == 1 && cmz_dim_is(m->dims, t->shape[0], 1));
}

/* Whether the sum runs over channels enough to lie in blocks, which are taken by fours. */
static bool sums_channels(const cmz_module *m, const cmz_node *n, cmz_vid weights) {
  int64_t channels;
  return cmz_node_int(n, "group", 1) == 1 &&
         cmz_dim_is_const(m->dims, type_of(m, weights)->shape[1], &channels) &&
         channels >= FEWEST_CHANNELS;
}

/* A convolution of few channels as one of floats, which hold every sum of its bytes exactly; 0 when
 * they might not. */
static cmz_vid real_sum(cmz_module *m, cmz_nid n, const operands *o, const weight_sums *w) {
  const cmz_node node = *cmz_node_get(m, n);
  cmz_array a, real;
  if (!cmz_pass_constant_array(m, w->values, &a)) return 0;
  size_t count = cmz_array_count(&a);
  if ((int64_t)count / w->channels > MOST_EXACT) return 0;
  real = a;
  real.dtype = CMZ_F32;
  float *to = real.data = CMZ_NEW_ARRAY(m->arena, float, count + 1);
  for (size_t i = 0; i < count; i++) to[i] = (float)cmz_dtype_get_i64(a.dtype, a.data, i);
  cmz_vid x = cmz_build_cast(m, n, o->x, CMZ_F32);
  if (o->zero_point) x = cmz_build2(m, n, "Sub", x, cmz_build_cast(m, n, o->zero_point, CMZ_F32));
  cmz_vid inputs[2] = {x, cmz_pass_add_array(m, node.graph, NULL, &real)};
  if (x == 0 || inputs[1] == 0) return 0;
  return cmz_build_cast(m, n, cmz_build_with(m, n, "Conv", 2, inputs, node.attr_count, node.attrs),
                        CMZ_I32);
}

/* X, or a copy of it that may lie in blocks, where X is not computed by something that stores them.
 */
static cmz_vid packed(cmz_module *m, cmz_nid n, cmz_vid x) {
  cmz_nid producer = cmz_value_get(m, x)->producer;
  if (producer != 0 && (cmz_node_get(m, producer)->op->flags & CMZ_OP_POINTWISE)) return x;
  return cmz_build1(m, n, "Pack", x);
}

/* The integer sum that node N of operator OP makes of O, before N; 0 when it cannot be one. */
static cmz_vid integer_sum(cmz_module *m, cmz_nid n, const operands *o, bool convolution,
                           weight_sums *w) {
  if (!usable_data(m, o)) return 0;
  const cmz_node node = *cmz_node_get(m, n);
  const cmz_type *wt = type_of(m, o->w);
  if (!convolution && (wt->rank != 2 || type_of(m, o->x)->rank < 2)) return 0;
  if (!signed_weights(m, node.graph, o, convolution || o->transposed ? 0 : 1, w)) return 0;
  bool blocks = !convolution || sums_channels(m, &node, o->w);
  cmz_vid real = blocks ? 0 : real_sum(m, n, o, w);
  if (real != 0) return real;
  cmz_vid x = convolution && blocks ? packed(m, n, o->x) : o->x;
  cmz_vid inputs[4] = {x, w->values, w->sums, o->zero_point};
  uint32_t count = convolution ? node.attr_count : 0;
  cmz_attr *attrs = CMZ_NEW_ARRAY(m->arena, cmz_attr, count + 1u);
  if (count) memcpy(attrs, node.attrs, count * sizeof *attrs);
  attrs[count] = cmz_attr_int("signed", 1);
  bool is_signed =
      o->sign == AS_SIGNED || (o->sign == AS_THEY_ARE && type_of(m, o->x)->dtype == CMZ_I8);
  return cmz_build_with(m, n, convolution ? "IntegerConv" : "IntegerMatMul", o->zero_point ? 4 : 3,
                        inputs, count + is_signed, attrs);
}

/* VALUES, one per channel, as a constant that broadcasts against an output of RANK with channels in
 * dim AXIS. */
static cmz_vid per_channel(cmz_module *m, cmz_gid g, const double *values, int64_t channels,
                           uint32_t rank, uint32_t axis) {
  cmz_array a = {.dtype = CMZ_F32, .rank = rank};
  for (uint32_t i = 0; i < rank; i++) a.shape[i] = i == axis ? channels : 1;
  a.data = cmz_arena_alloc(m->arena, (size_t)channels * sizeof(float) + 8);
  for (int64_t i = 0; i < channels; i++) ((float *)a.data)[i] = (float)values[i];
  return cmz_pass_add_array(m, g, NULL, &a);
}

/* Constant V as one float a channel (or one for all); NULL otherwise. */
static double *constant_floats(cmz_module *m, cmz_vid v, int64_t channels) {
  cmz_array a;
  if (v == 0 || !cmz_pass_constant_array(m, v, &a) || !cmz_dtype_is_float(a.dtype)) return NULL;
  int64_t have = (int64_t)cmz_array_count(&a);
  if (have != 1 && (have != channels || a.rank != 1)) return NULL;
  double *values = CMZ_NEW_ARRAY(m->arena, double, (size_t)channels + 1);
  for (int64_t i = 0; i < channels; i++)
    values[i] = cmz_dtype_get_f64(a.dtype, a.data, have == 1 ? 0 : (size_t)i);
  return values;
}

/* Node N gives way to V. */
static cmz_status finish(cmz_module *m, cmz_nid n, cmz_vid v) {
  if (v == 0) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

/* ---- ConvInteger, MatMulInteger ---- */

static cmz_status rewrite_integer(cmz_module *m, cmz_nid n, bool convolution, byte_sign sign) {
  const cmz_node *node = cmz_node_get(m, n);
  operands o = {cmz_node_input(node, 0),
                cmz_node_input(node, 2),
                cmz_node_input(node, 1),
                cmz_node_input(node, 3),
                false,
                sign};
  weight_sums w;
  cmz_vid sum = integer_sum(m, n, &o, convolution, &w);
  return sum == 0 ? CMZ_OK : finish(m, n, sum);
}

/* ---- QLinearConv, QLinearMatMul ---- */

/* Rounded to even, moved by the output's zero point, saturated: QuantizeLinear of scale 1. */
static cmz_status rewrite_qlinear(cmz_module *m, cmz_nid n, bool convolution, byte_sign sign) {
  const cmz_node node = *cmz_node_get(m, n);
  operands o = {node.inputs[0], node.inputs[2], node.inputs[3], node.inputs[5], false, sign};
  const cmz_type *wt = type_of(m, o.w);
  int64_t channels;
  if (wt->rank < 2 || !cmz_dim_is_const(m->dims, wt->shape[convolution ? 0 : 1], &channels))
    return CMZ_OK;
  double *x = constant_floats(m, node.inputs[1], 1),
         *s = constant_floats(m, node.inputs[4], channels),
         *y = constant_floats(m, node.inputs[6], 1);
  const cmz_type *zero = type_of(m, node.inputs[7]);
  bool one_zero = zero->rank == 0 || (zero->rank == 1 && cmz_dim_is(m->dims, zero->shape[0], 1));
  if (x == NULL || s == NULL || y == NULL || !one_zero) return CMZ_OK;
  weight_sums w;
  cmz_vid v = integer_sum(m, n, &o, convolution, &w);
  if (v == 0) return CMZ_OK;
  uint32_t rank = type_of(m, v)->rank, axis = convolution ? 1 : rank - 1;
  if (convolution && cmz_node_input(&node, 8) != 0) {
    cmz_dim shape[CMZ_MAX_RANK];
    for (uint32_t i = 0; i < rank; i++) shape[i] = cmz_dim_const(m->dims, i == axis ? channels : 1);
    v = cmz_build2(m, n, "Add", v, cmz_build_reshape(m, n, node.inputs[8], shape, rank));
  }
  for (int64_t i = 0; i < channels; i++) s[i] = (double)((float)x[0] * (float)s[i] / (float)y[0]);
  cmz_vid factor = per_channel(m, node.graph, s, channels, rank, axis);
  v = cmz_build2(m, n, "Mul", cmz_build_cast(m, n, v, CMZ_F32), factor);
  cmz_vid one = v != 0 ? cmz_build_scalar_like(m, n, v, 1) : 0;
  return finish(m, n, cmz_build3(m, n, "QuantizeLinear", v, one, node.inputs[7]));
}

/* ---- Conv, MatMul and Gemm of dequantised operands ---- */

typedef struct dequantised {
  cmz_vid data, scale, zero_point;
  int64_t axis;
} dequantised;

/* V as made by a DequantizeLinear of bytes. */
static bool dequantised_from(const cmz_module *m, cmz_vid v, dequantised *d) {
  cmz_nid n = cmz_pass_producer(m, v, "DequantizeLinear");
  if (n == 0) return false;
  const cmz_node *node = cmz_node_get(m, n);
  if (cmz_node_int(node, "block_size", 0) != 0 || !is_bytes(type_of(m, node->inputs[0])->dtype) ||
      type_of(m, v)->dtype != CMZ_F32)
    return false;
  *d = (dequantised){node->inputs[0], node->inputs[1], cmz_node_input(node, 2),
                     cmz_node_int(node, "axis", 1)};
  return true;
}

/* Whether parameter V is one for all, or one for each index of the dim AXIS that DequantizeLinear
 * names. */
static bool one_or_along(const cmz_module *m, cmz_vid v, const dequantised *d, uint32_t axis) {
  const cmz_type *t = type_of(m, v);
  if (t->rank == 0 || (t->rank == 1 && cmz_dim_is(m->dims, t->shape[0], 1))) return true;
  int64_t rank = type_of(m, d->data)->rank, own = d->axis < 0 ? d->axis + rank : d->axis;
  return t->rank == 1 && own == axis;
}

static bool gemm_is_product(const cmz_node *n) {
  return cmz_node_int(n, "transA", 0) == 0 && cmz_node_float(n, "alpha", 1) == 1 &&
         cmz_node_float(n, "beta", 1) == 1;
}

static cmz_status rewrite_real(cmz_module *m, cmz_nid n, bool convolution, byte_sign sign) {
  const cmz_node node = *cmz_node_get(m, n);
  dequantised x, w;
  bool gemm = cmz_pass_is_op(&node, "Gemm");
  if (node.input_count < 2 || (gemm && !gemm_is_product(&node)) ||
      !dequantised_from(m, node.inputs[0], &x) || !dequantised_from(m, node.inputs[1], &w) ||
      type_of(m, w.data)->rank < 2 || (convolution && !sums_channels(m, &node, w.data)))
    return CMZ_OK;
  operands o = {
      x.data, x.zero_point, w.data, w.zero_point, gemm && cmz_node_int(&node, "transB", 0) != 0,
      sign};
  uint32_t w_axis = convolution || o.transposed ? 0 : 1;
  int64_t channels;
  if (!cmz_dim_is_const(m->dims, type_of(m, w.data)->shape[w_axis], &channels) ||
      !one_or_along(m, w.scale, &w, w_axis) ||
      (w.zero_point != 0 && !one_or_along(m, w.zero_point, &w, w_axis)))
    return CMZ_OK;
  double *sx = constant_floats(m, x.scale, 1), *sw = constant_floats(m, w.scale, channels);
  if (sx == NULL || sw == NULL) return CMZ_OK;
  weight_sums made;
  cmz_vid v = integer_sum(m, n, &o, convolution, &made);
  if (v == 0) return CMZ_OK;
  uint32_t rank = type_of(m, v)->rank, axis = convolution ? 1 : rank - 1;
  for (int64_t i = 0; i < channels; i++) sw[i] *= sx[0];
  v = cmz_build2(m, n, "Mul", cmz_build_cast(m, n, v, CMZ_F32),
                 per_channel(m, node.graph, sw, channels, rank, axis));
  cmz_vid bias = cmz_node_input(&node, 2);
  if (bias != 0 && convolution) {
    cmz_dim shape[CMZ_MAX_RANK];
    for (uint32_t i = 0; i < rank; i++) shape[i] = cmz_dim_const(m->dims, i == axis ? channels : 1);
    bias = cmz_build_reshape(m, n, bias, shape, rank);
  }
  if (bias != 0) v = cmz_build2(m, n, "Add", v, bias);
  return finish(m, n, v);
}

/* ---- the pass ---- */

static const struct rewrite {
  const char *op;
  cmz_status (*apply)(cmz_module *m, cmz_nid n, bool convolution, byte_sign sign);
  bool convolution;
} rewrites[] = {
    {"ConvInteger", rewrite_integer, true}, {"MatMulInteger", rewrite_integer, false},
    {"QLinearConv", rewrite_qlinear, true}, {"QLinearMatMul", rewrite_qlinear, false},
    {"Conv", rewrite_real, true},           {"MatMul", rewrite_real, false},
    {"Gemm", rewrite_real, false},
};

cmz_status cmz_pass_integers(cmz_pass_run *run, cmz_module *m) {
  const cmz_cpu_row *level =
      run->target && run->target->level_count > 0 ? run->target->levels[0] : NULL;
  byte_sign sign = level && level->matrix                      ? AS_THEY_ARE
                   : level && level->int8_dot >= CMZ_DOT_SMULL ? AS_SIGNED
                                                               : AS_UNSIGNED;
  for (cmz_gid g = 1; g < m->graphs.count; g++) {
    if (!cmz_pass_graph_alive(m, g)) continue;
    bool changed = false;
    for (uint32_t i = 0; i < cmz_graph_get(m, g)->nodes.count; i++) {
      cmz_nid n = cmz_graph_get(m, g)->nodes.data[i];
      for (size_t r = 0; r < CMZ_COUNT_OF(rewrites); r++) {
        if (cmz_node_get(m, n)->removed || !cmz_pass_is_op(cmz_node_get(m, n), rewrites[r].op))
          continue;
        CMZ_TRY(rewrites[r].apply(m, n, rewrites[r].convolution, sign));
        changed |= cmz_node_get(m, n)->removed;
      }
    }
    if (changed) CMZ_TRY(cmz_graph_sort(m, g));
  }
  return CMZ_OK;
}
