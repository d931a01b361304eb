/* attention.c - Attention, RotaryEmbedding, and cmz.AttentionProbabilities, the masked softmax
 * between the two products of attention. com.microsoft's MultiHeadAttention becomes Attention;
 * FlexAttention. In: queries, keys, values, masks, caches. Out: the attended values, the caches
 * with the new keys. Always holds: grouped heads are a batch dimension that keys and values
 * broadcast over, never copied; a row without any allowed key is zero. */
#include "ops.h"

/* ---- cmz.AttentionProbabilities: scores [B, H, S, T], mask, numbers of valid keys [B], past keys
 * (for their length) -> probabilities; output 1: what attribute `mode` asks for (0 to 3 as
 * Attention's) ---- */

static cmz_status infer_probabilities(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0), *mask = cmz_input_type(m, node, 1);
  if (x->rank != 4 || (mask && (mask->rank > 4 || mask->rank < 1)))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the mask has rank %u", mask ? mask->rank : 0);
  for (uint32_t i = 0; mask && i + 1 < mask->rank; i++)
    if (!cmz_dim_is(m->dims, mask->shape[i], 1) &&
        cmz_dims_differ(m, mask->shape[i], x->shape[i + 4 - mask->rank]))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the mask has the wrong size in dimension %u", i);
  CMZ_TRY(cmz_check_vector(m, n, 2, x->shape[0], false));
  CMZ_TRY(cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED));
  return cmz_node_output(cmz_node_get(m, n), 1) ? cmz_infer_same(m, n, 1, 0, CMZ_UNDEFINED)
                                                : CMZ_OK;
}

typedef struct masked {
  cmz_expr score, capped, bias, logit; /* bias 0: none */
} masked;

/* Allowed by the causal frontier and the window: S and T are positions of query and key. */
static cmz_expr frontier(cmz_describe *d, const cmz_node *n, const cmz_type *x, cmz_expr b,
                         cmz_expr s, cmz_expr t) {
  cmz_kernel *k = cmz_describe_kernel(d);
  int64_t left = cmz_node_int(n, "left_window_size", -1),
          right = cmz_node_int(n, "right_window_size", -1);
  bool causal = cmz_node_int(n, "is_causal", 0) != 0;
  if (!causal && left < 0 && right < 0) return 0;
  const cmz_type *past = cmz_input_type(cmz_describe_module(d), n, 3);
  if (past) {
    s = cmz_x_add(k, s, cmz_describe_dim(d, past->shape[2]));
  } else if (cmz_node_input(n, 2)) {
    cmz_expr valid = cmz_describe_input(d, 2, &b);
    if (!valid) return 0;
    s = cmz_x_add(k, s,
                  cmz_x_sub(k, cmz_x_cast(k, valid, CMZ_I64), cmz_describe_dim(d, x->shape[2])));
  }
  cmz_expr allowed = causal ? cmz_x2(k, CMZ_X_LE, t, s) : 0;
  if (left >= 0)
    allowed = cmz_x_and(k, allowed, cmz_x2(k, CMZ_X_LE, cmz_x_sub(k, s, t), cmz_x_index(k, left)));
  if (right >= 0)
    allowed = cmz_x_and(k, allowed, cmz_x2(k, CMZ_X_LE, cmz_x_sub(k, t, s), cmz_x_index(k, right)));
  return allowed;
}

/* The mask's element for IDX; ANDs what it forbids into *ALLOWED when it is a bool mask or too
 * short. */
static cmz_expr mask_at(cmz_describe *d, const cmz_node *n, const cmz_expr *idx, cmz_expr *allowed,
                        bool *failed) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  if (!cmz_node_input(n, 1)) return 0;
  const cmz_type t = *cmz_input_type(m, n, 1), x = *cmz_input_type(m, n, 0);
  cmz_expr at[4], inside = 0;
  for (uint32_t i = 0; i < t.rank; i++) {
    uint32_t j = i + 4 - t.rank;
    at[i] = cmz_dim_is(m->dims, t.shape[i], 1) && !cmz_dim_is(m->dims, x.shape[j], 1) && j < 3
                ? cmz_x_index(k, 0)
                : idx[j];
    if (j == 3 && t.shape[i] != x.shape[3])
      inside = cmz_x_bounds(k, idx[3], cmz_describe_dim(d, t.shape[i]), false, true);
  }
  cmz_expr v = cmz_describe_input(d, 1, at);
  if (!v) *failed = true;
  if (!v) return 0;
  if (t.dtype == CMZ_BOOL) {
    if (inside) v = cmz_x_select(k, inside, v, cmz_x_int(k, CMZ_BOOL, 0));
    *allowed = cmz_x_and(k, *allowed, v);
    return 0;
  }
  return inside ? cmz_x_select(k, inside, v, cmz_x_like(k, v, -INFINITY)) : v;
}

static bool masked_at(cmz_describe *d, const cmz_node *n, const cmz_expr *idx, masked *out) {
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(cmz_describe_module(d), n, 0);
  double cap = cmz_node_float(n, "softcap", 0);
  bool failed = false;
  out->score = out->capped = cmz_describe_input(d, 0, idx);
  if (!out->score) return false;
  cmz_expr limit = cmz_x_like(k, out->score, cap);
  if (cap > 0) {
    cmz_expr part = cmz_x_cast_through(k, cmz_x2(k, CMZ_X_DIV, out->score, limit), x.dtype);
    part = cmz_x_cast_through(k, cmz_x1(k, CMZ_X_TANH, part), x.dtype);
    out->capped = cmz_x_cast_through(k, cmz_x_mul(k, part, limit), x.dtype);
  }
  cmz_expr allowed = frontier(d, n, &x, idx[0], idx[2], idx[3]);
  cmz_expr added = mask_at(d, n, idx, &allowed, &failed);
  if (cmz_node_input(n, 2)) {
    cmz_expr valid = cmz_describe_input(d, 2, idx);
    if (!valid) return false;
    allowed = cmz_x_and(k, allowed, cmz_x2(k, CMZ_X_LT, idx[3], cmz_x_cast(k, valid, CMZ_I64)));
  }
  if (failed) return false;
  out->bias = added ? cmz_x_cast(k, added, cmz_x_dtype(k, out->score)) : 0;
  cmz_expr none = cmz_x_like(k, out->score, -INFINITY);
  if (allowed)
    out->bias = cmz_x_select(k, allowed, out->bias ? out->bias : cmz_x_like(k, none, 0), none);
  out->logit = out->capped;
  if (out->bias) out->logit = cmz_x_cast_through(k, cmz_x_add(k, out->capped, out->bias), x.dtype);
  return true;
}

static cmz_expr describe_probabilities(cmz_describe *d, const cmz_node *n, uint32_t output,
                                       const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  masked own, a, b, c;
  if (!masked_at(d, n, idx, &own)) return 0;
  int64_t precision = cmz_node_int(n, "softmax_precision", 0);
  cmz_dtype type = precision ? (cmz_dtype)precision : x.dtype;
  int64_t mode = output ? cmz_node_int(n, "mode", 3) : 3;
  if (mode < 3) return mode == 0 ? own.score : mode == 1 ? own.capped : own.logit;
  cmz_expr at[4] = {idx[0], idx[1], idx[2], 0}, zero = cmz_x_like(k, own.logit, 0),
           none = cmz_x_like(k, own.logit, -INFINITY);
  cmz_reducer top = {0}, sum = {0}, guard = {0};
  at[3] = cmz_reducer_axis(d, &top, x.shape[3]);
  if (!masked_at(d, n, at, &a)) return 0;
  cmz_expr greatest = cmz_reducer_finish(d, &top, CMZ_REDUCE_MAX, a.logit);
  greatest = cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, greatest, none), zero, greatest);
  at[3] = cmz_reducer_axis(d, &sum, x.shape[3]);
  if (!masked_at(d, n, at, &b)) return 0;
  cmz_expr total =
      cmz_reducer_finish(d, &sum, CMZ_REDUCE_SUM, cmz_x_softmax_power(k, b.logit, greatest, type));
  if (!total) return 0;
  total = cmz_x_softmax_sum(k, total, type);
  total = cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, total, zero), cmz_x_like(k, zero, 1), total);
  cmz_expr p = cmz_x2(k, CMZ_X_DIV, cmz_x_softmax_power(k, own.logit, greatest, type), total);
  if (!own.bias) return p;
  at[3] = cmz_reducer_axis(d, &guard, x.shape[3]);
  if (!masked_at(d, n, at, &c)) return 0;
  cmz_expr most = cmz_reducer_finish(d, &guard, CMZ_REDUCE_MAX, c.bias);
  return cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, most, none), zero, p);
}

/* The bias of one query-key pair: 0, a float mask's number, or -infinity. */
static double bias_of(const cmz_node *n, const cmz_array *inputs, const int64_t *c) {
  const cmz_array *x = &inputs[0], *mask = n->input_count > 1 && inputs[1].data ? &inputs[1] : NULL;
  const cmz_array *valid = n->input_count > 2 && inputs[2].data ? &inputs[2] : NULL;
  const cmz_array *past = n->input_count > 3 && inputs[3].data ? &inputs[3] : NULL;
  int64_t left = cmz_node_int(n, "left_window_size", -1),
          right = cmz_node_int(n, "right_window_size", -1);
  int64_t keys = valid ? cmz_get_int(valid, c[0]) : x->shape[3];
  int64_t s = c[2] + (past ? past->shape[2] : valid ? keys - x->shape[2] : 0), t = c[3];
  if (t >= keys || (cmz_node_int(n, "is_causal", 0) && t > s)) return -INFINITY;
  if ((left >= 0 && s - t > left) || (right >= 0 && t - s > right)) return -INFINITY;
  if (!mask) return 0;
  int64_t index = 0;
  for (uint32_t i = 0; i < mask->rank; i++) {
    uint32_t j = i + 4 - mask->rank;
    int64_t at = mask->shape[i] == 1 && j < 3 ? 0 : c[j];
    if (at >= mask->shape[i]) return -INFINITY;
    index = index * mask->shape[i] + at;
  }
  if (mask->dtype == CMZ_BOOL) return cmz_get_int(mask, index) ? 0 : -INFINITY;
  return cmz_get(mask, index);
}

static cmz_status eval_probabilities(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                     cmz_array *outputs) {
  const cmz_array *x = &inputs[0];
  double cap = cmz_node_float(n, "softcap", 0);
  int64_t keys = x->shape[3], mode = cmz_node_int(n, "mode", 3);
  bool extra = n->output_count > 1 && n->outputs[1];
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 4, x->shape));
  if (extra) CMZ_TRY(cmz_eval_shape(e, &outputs[1], 4, x->shape));
  double *logits = CMZ_NEW_ARRAY(e->arena, double, (size_t)keys);
  for (int64_t row = 0; keys && row < (int64_t)cmz_array_count(x) / keys; row++) {
    double greatest = -INFINITY, most = -INFINITY, sum = 0;
    for (int64_t t = 0; t < keys; t++) {
      int64_t c[CMZ_MAX_RANK], i = row * keys + t;
      cmz_array_coordinates(x, (size_t)i, c);
      double v = cmz_get(x, i), capped = cap > 0 ? tanh(v / cap) * cap : v,
             bias = bias_of(n, inputs, c);
      logits[t] = capped + bias;
      greatest = fmax(greatest, logits[t]);
      most = fmax(most, bias);
      if (extra && mode < 3)
        cmz_set(&outputs[1], i, mode == 0 ? v : mode == 1 ? capped : logits[t]);
    }
    for (int64_t t = 0; t < keys; t++)
      sum += logits[t] == -INFINITY ? 0 : exp(logits[t] - greatest);
    for (int64_t t = 0; t < keys; t++) {
      double p = most == -INFINITY || logits[t] == -INFINITY ? 0 : exp(logits[t] - greatest) / sum;
      cmz_set(&outputs[0], row * keys + t, p);
      if (extra && mode == 3) cmz_set(&outputs[1], row * keys + t, p);
    }
  }
  return CMZ_OK;
}

/* ---- Attention ---- */

typedef struct shapes {
  bool flat;                    /* inputs are [B, S, heads * size] */
  cmz_dim batch, queries, keys; /* keys: new ones */
  cmz_dim heads, kv_heads, size, value_size, all_keys;
} shapes;

static cmz_status read_shapes(cmz_module *m, cmz_nid n, shapes *s) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type q = *cmz_input_type(m, node, 0), k = *cmz_input_type(m, node, 1),
                 v = *cmz_input_type(m, node, 2);
  const cmz_type *past = cmz_input_type(m, node, 4);
  if (q.rank != k.rank || q.rank != v.rank || (q.rank != 3 && q.rank != 4))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "Q, K and V have ranks %u, %u and %u", q.rank, k.rank,
                         v.rank);
  *s = (shapes){.flat = q.rank == 3, .batch = q.shape[0]};
  if (s->flat) {
    int64_t heads = cmz_node_int(node, "q_num_heads", 0),
            kv_heads = cmz_node_int(node, "kv_num_heads", heads);
    if (heads < 1 || kv_heads < 1)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the numbers of heads are missing");
    s->heads = cmz_dim_const(m->dims, heads);
    s->kv_heads = cmz_dim_const(m->dims, kv_heads);
    s->size = cmz_dim_floordiv(m->dims, q.shape[2], s->heads);
    s->value_size = cmz_dim_floordiv(m->dims, v.shape[2], s->kv_heads);
    s->queries = q.shape[1];
    s->keys = k.shape[1];
  } else {
    s->heads = q.shape[1];
    s->kv_heads = k.shape[1];
    s->size = q.shape[3];
    s->value_size = v.shape[3];
    s->queries = q.shape[2];
    s->keys = k.shape[2];
  }
  s->all_keys = past ? cmz_dim_add(m->dims, past->shape[2], s->keys) : s->keys;
  int64_t a, b;
  if (cmz_dim_is_const(m->dims, s->heads, &a) && cmz_dim_is_const(m->dims, s->kv_heads, &b) &&
      (b < 1 || a % b))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%" PRId64 " query heads for %" PRId64 " key heads", a,
                         b);
  return CMZ_OK;
}

static cmz_status infer_attention(cmz_module *m, cmz_nid n) {
  shapes s;
  CMZ_TRY(read_shapes(m, n, &s));
  cmz_dtype type = cmz_input_type(m, cmz_node_get(m, n), 0)->dtype;
  cmz_dim flat[3] = {s.batch, s.queries, cmz_dim_mul(m->dims, s.heads, s.value_size)};
  cmz_dim deep[4] = {s.batch, s.heads, s.queries, s.value_size};
  cmz_dim keys[4] = {s.batch, s.kv_heads, s.all_keys, s.size},
          values[4] = {s.batch, s.kv_heads, s.all_keys, s.value_size};
  cmz_dim scores[4] = {s.batch, s.heads, s.queries, s.all_keys};
  cmz_set_output(m, n, 0, type, s.flat ? 3 : 4, s.flat ? flat : deep);
  cmz_set_output(m, n, 1, type, 4, keys);
  cmz_set_output(m, n, 2, type, 4, values);
  cmz_set_output(m, n, 3, type, 4, scores);
  return CMZ_OK;
}

/* [B, S, heads * size] as [B, heads, S, size]. */
static cmz_vid split_heads(cmz_module *m, cmz_nid n, cmz_vid v, const shapes *s, cmz_dim length,
                           cmz_dim heads, cmz_dim size) {
  if (!s->flat) return v;
  cmz_dim shape[4] = {s->batch, length, heads, size};
  v = cmz_build_reshape(m, n, v, shape, 4);
  return v ? cmz_build_transpose(m, n, v, (const int64_t[]){0, 2, 1, 3}, 4) : 0;
}

static cmz_vid with_past(cmz_module *m, cmz_nid n, cmz_vid past, cmz_vid v) {
  cmz_attr axis = cmz_attr_int("axis", 2);
  if (!past || !v) return v;
  return cmz_build_with(m, n, "Concat", 2, (cmz_vid[]){past, v}, 1, &axis);
}

/* Keys or values beside grouped query heads: [B, kv heads, 1, T, size]. */
static cmz_vid grouped(cmz_module *m, cmz_nid n, cmz_vid v, const shapes *s, cmz_dim size) {
  cmz_dim shape[5] = {s->batch, s->kv_heads, cmz_dim_const(m->dims, 1), s->all_keys, size};
  return cmz_build_reshape(m, n, v, shape, 5);
}

static cmz_vid probabilities(cmz_module *m, cmz_nid n, const cmz_node *node, cmz_vid scores,
                             cmz_vid *extra) {
  cmz_vid inputs[4] = {scores, cmz_node_input(node, 3), cmz_node_input(node, 6),
                       cmz_node_input(node, 4)};
  cmz_vid outputs[2] = {cmz_value_add(m, node->graph, NULL), 0};
  bool wanted = cmz_node_output(node, 3) != 0;
  if (wanted) outputs[1] = cmz_value_add(m, node->graph, NULL);
  cmz_nid p = cmz_node_insert(m, n, cmz_op_get("AttentionProbabilities"), NULL, 4, inputs,
                              wanted ? 2 : 1, outputs);
  cmz_node_add_source(m, p, n);
  cmz_node_set_int(m, p, "is_causal", cmz_node_int(node, "is_causal", 0));
  cmz_node_set_int(m, p, "left_window_size", cmz_node_int(node, "left_window_size", -1));
  cmz_node_set_int(m, p, "right_window_size", cmz_node_int(node, "right_window_size", -1));
  cmz_node_set_float(m, p, "softcap", cmz_node_float(node, "softcap", 0));
  cmz_node_set_int(m, p, "mode", cmz_node_int(node, "qk_matmul_output_mode", 0));
  cmz_node_set_int(m, p, "softmax_precision", cmz_node_int(node, "softmax_precision", 0));
  *extra = outputs[1];
  return cmz_infer_node(m, p) == CMZ_OK ? outputs[0] : 0;
}

static bool narrow(const cmz_module *m, cmz_vid v) {
  cmz_dtype type = cmz_value_get(m, v)->type.dtype;
  return cmz_dtype_info(type)->compute != type;
}

/* The definition's intermediate results have the type of the operands. Fused operators carry more
 * bits than a 16-bit type has; a Cast, even to the same type, drops them. The definition also
 * scales both sides of the first product by the root of the scale, which matters only there. */
static cmz_vid rounded(cmz_module *m, cmz_nid n, cmz_vid v) {
  if (!v || !narrow(m, v)) return v;
  cmz_attr to = cmz_attr_int("to", cmz_value_get(m, v)->type.dtype);
  return cmz_build_with(m, n, "Cast", 1, &v, 1, &to);
}

static cmz_status expand_attention(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  shapes s;
  int64_t size;
  CMZ_TRY(read_shapes(m, n, &s));
  if (!cmz_node_attr(&node, "scale") && !cmz_dim_is_const(m->dims, s.size, &size))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the size of a head is not constant");
  double scale =
      cmz_node_attr(&node, "scale") ? cmz_node_float(&node, "scale", 1) : 1 / sqrt((double)size);
  cmz_vid q = split_heads(m, n, node.inputs[0], &s, s.queries, s.heads, s.size);
  cmz_vid k = split_heads(m, n, node.inputs[1], &s, s.keys, s.kv_heads, s.size);
  cmz_vid v = split_heads(m, n, node.inputs[2], &s, s.keys, s.kv_heads, s.value_size);
  k = with_past(m, n, cmz_node_input(&node, 4), k);
  v = with_past(m, n, cmz_node_input(&node, 5), v);
  if (!q || !k || !v) return CMZ_E_INTERNAL;
  if (cmz_node_output(&node, 1)) cmz_value_replace_uses(m, node.outputs[1], k);
  if (cmz_node_output(&node, 2)) cmz_value_replace_uses(m, node.outputs[2], v);
  bool groups = s.heads != s.kv_heads;
  cmz_dim repeat = cmz_dim_floordiv(m->dims, s.heads, s.kv_heads);
  cmz_dim deep[5] = {s.batch, s.kv_heads, repeat, s.queries, s.size};
  if (groups) {
    q = cmz_build_reshape(m, n, q, deep, 5);
    k = grouped(m, n, k, &s, s.size);
    v = grouped(m, n, v, &s, s.value_size);
  }
  static const int64_t swap4[4] = {0, 1, 3, 2}, swap5[5] = {0, 1, 2, 4, 3};
  if (!k || !q) return CMZ_E_INTERNAL;
  k = cmz_build_transpose(m, n, k, groups ? swap5 : swap4, groups ? 5 : 4);
  if (narrow(m, q) && scale >= 0) {
    scale = sqrt(scale);
    k = rounded(m, n, cmz_build2(m, n, "Mul", k, cmz_build_scalar_like(m, n, k, scale)));
  }
  q = rounded(m, n, cmz_build2(m, n, "Mul", q, cmz_build_scalar_like(m, n, q, scale)));
  cmz_vid scores = rounded(m, n, cmz_build2(m, n, "MatMul", q, k)), extra;
  cmz_dim flat_scores[4] = {s.batch, s.heads, s.queries, s.all_keys};
  if (groups) scores = cmz_build_reshape(m, n, scores, flat_scores, 4);
  if (!scores) return CMZ_E_INTERNAL;
  cmz_vid p = rounded(m, n, probabilities(m, n, &node, scores, &extra));
  cmz_dim deep_scores[5] = {s.batch, s.kv_heads, repeat, s.queries, s.all_keys};
  if (groups) p = cmz_build_reshape(m, n, p, deep_scores, 5);
  cmz_vid y = cmz_build2(m, n, "MatMul", p, v);
  cmz_dim result[4] = {s.batch, s.heads, s.queries, s.value_size};
  if (groups) y = cmz_build_reshape(m, n, y, result, 4);
  if (s.flat && y) {
    cmz_dim flat[3] = {s.batch, s.queries, cmz_dim_mul(m->dims, s.heads, s.value_size)};
    y = cmz_build_transpose(m, n, y, (const int64_t[]){0, 2, 1, 3}, 4);
    y = cmz_build_reshape(m, n, y, flat, 3);
  }
  if (!y) return CMZ_E_INTERNAL;
  if (extra) cmz_value_replace_uses(m, node.outputs[3], extra);
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

/* ---- com.microsoft MultiHeadAttention: query, key, value, bias, key padding mask, attention bias,
 * past key, past value ---- */

static cmz_status infer_multi_head(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *q = cmz_input_type(m, node, 0), *k = cmz_input_type(m, node, 1),
                 *v = cmz_input_type(m, node, 2);
  int64_t heads = cmz_node_int(node, "num_heads", 0);
  if (!k || !v || q->rank != 3 || k->rank != 3 || v->rank != 3 || heads < 1)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "packed or cross-attention inputs other than three of rank 3");
  if (cmz_node_input(node, 4)) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "a key padding mask");
  cmz_dim h = cmz_dim_const(m->dims, heads), keys = k->shape[1];
  const cmz_type *past = cmz_input_type(m, node, 6);
  if (past) keys = cmz_dim_add(m->dims, past->shape[2], keys);
  cmz_dim y[3] = {q->shape[0], q->shape[1], v->shape[2]};
  cmz_dim present[4] = {q->shape[0], h, keys, cmz_dim_floordiv(m->dims, k->shape[2], h)};
  cmz_dim present_value[4] = {q->shape[0], h, keys, cmz_dim_floordiv(m->dims, v->shape[2], h)};
  cmz_dtype type = q->dtype;
  cmz_set_output(m, n, 0, type, 3, y);
  cmz_set_output(m, n, 1, type, 4, present);
  cmz_set_output(m, n, 2, type, 4, present_value);
  return CMZ_OK;
}

static cmz_status expand_multi_head(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  cmz_vid inputs[6] = {node.inputs[0],           node.inputs[1],
                       node.inputs[2],           cmz_node_input(&node, 5),
                       cmz_node_input(&node, 6), cmz_node_input(&node, 7)};
  int64_t begin = 0;
  for (uint32_t i = 0; i < 3 && cmz_node_input(&node, 3); i++) {
    int64_t size, zero = 0;
    if (!cmz_dim_is_const(m->dims, cmz_value_get(m, inputs[i])->type.shape[2], &size))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the hidden size is not constant");
    int64_t end = begin + size;
    cmz_vid slice[4] = {node.inputs[3], cmz_build_i64s(m, n, &begin, 1),
                        cmz_build_i64s(m, n, &end, 1), cmz_build_i64s(m, n, &zero, 1)};
    inputs[i] = cmz_build2(m, n, "Add", inputs[i], cmz_build_node(m, n, "Slice", 4, slice, NULL));
    if (!inputs[i]) return CMZ_E_INTERNAL;
    begin = end;
  }
  uint32_t outputs_n = node.output_count < 3 ? node.output_count : 3;
  cmz_vid outputs[3] = {0};
  for (uint32_t i = 0; i < outputs_n; i++)
    if (node.outputs[i]) outputs[i] = cmz_value_add(m, node.graph, NULL);
  cmz_nid a =
      cmz_node_insert(m, n, cmz_op_get("Attention"), node.name, 6, inputs, outputs_n, outputs);
  cmz_node_add_source(m, a, n);
  int64_t heads = cmz_node_int(&node, "num_heads", 1);
  cmz_node_set_int(m, a, "q_num_heads", heads);
  cmz_node_set_int(m, a, "kv_num_heads", heads);
  cmz_node_set_int(m, a, "is_causal", cmz_node_int(&node, "unidirectional", 0));
  if (cmz_node_float(&node, "scale", 0) != 0)
    cmz_node_set_float(m, a, "scale", cmz_node_float(&node, "scale", 1));
  CMZ_TRY(cmz_infer_node(m, a));
  for (uint32_t i = 1; i < outputs_n; i++)
    if (outputs[i]) cmz_value_replace_uses(m, node.outputs[i], outputs[i]);
  cmz_build_finish(m, n, outputs[0]);
  return CMZ_OK;
}

/* ---- FlexAttention (ai.onnx.preview): attention whose scores and probabilities subgraphs change
 * ---- */

static const char *const mods[2] = {"score_mod", "prob_mod"};

/* The type that scores and probabilities have: at least f32 unless the node says otherwise. */
static cmz_dtype flex_type(const cmz_node *n, cmz_dtype data) {
  int64_t precision = cmz_node_int(n, "softmax_precision", 0);
  return precision > 0 && precision < CMZ_DTYPE_COUNT ? (cmz_dtype)precision
                                                      : cmz_dtype_info(data)->compute;
}

static cmz_status infer_flex(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type q = *cmz_input_type(m, node, 0), k = *cmz_input_type(m, node, 1),
                 v = *cmz_input_type(m, node, 2);
  int64_t a, b;
  if (q.rank != 4 || k.rank != 4 || v.rank != 4)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "Q, K and V need rank 4");
  cmz_dim keys[4] = {q.shape[0], CMZ_DIM_NONE, CMZ_DIM_NONE, q.shape[3]},
          values[4] = {q.shape[0], k.shape[1], k.shape[2], CMZ_DIM_NONE};
  CMZ_TRY(cmz_check_shape(m, n, 1, 4, keys));
  CMZ_TRY(cmz_check_shape(m, n, 2, 4, values));
  if (cmz_dim_is_const(m->dims, q.shape[1], &a) && cmz_dim_is_const(m->dims, k.shape[1], &b) &&
      (b < 1 || a % b))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%" PRId64 " query heads for %" PRId64 " key heads", a,
                         b);
  cmz_dtype type = flex_type(node, q.dtype);
  if (!cmz_dtype_is_float(type)) return cmz_node_fail(m, n, CMZ_E_INPUT, "needs floats");
  cmz_dim scores[4] = {q.shape[0], q.shape[1], q.shape[2], k.shape[2]};
  for (int i = 0; i < 2; i++) {
    const cmz_attr *mod = cmz_node_attr(cmz_node_get(m, n), mods[i]);
    if (!mod) continue;
    cmz_gid g = mod->graph;
    if (cmz_graph_get(m, g)->inputs.count != 1 || cmz_graph_get(m, g)->outputs.count != 1)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "%s must have one input and one output", mods[i]);
    cmz_value_set_type(m, cmz_graph_get(m, g)->inputs.data[0], type, 4, scores);
    CMZ_TRY(cmz_infer_graph(m, g));
    const cmz_type y = cmz_value_get(m, cmz_graph_get(m, g)->outputs.data[0])->type;
    bool same = y.rank == 4;
    for (uint32_t j = 0; same && j < 4; j++) same = !cmz_dims_differ(m, y.shape[j], scores[j]);
    if (!same) return cmz_node_fail(m, n, CMZ_E_INPUT, "%s changes the shape", mods[i]);
  }
  cmz_dim y[4] = {q.shape[0], q.shape[1], q.shape[2], v.shape[3]};
  cmz_set_output(m, n, 0, v.dtype, 4, y);
  return CMZ_OK;
}

/* What subgraph NAME of N makes of V: an If that is always taken; the fold pass puts the nodes in
 * its place. */
static cmz_vid modified(cmz_module *m, cmz_nid n, const char *name, cmz_vid v) {
  const cmz_attr *mod = cmz_node_attr(cmz_node_get(m, n), name);
  if (!mod || !v) return v;
  cmz_gid then = mod->graph, parent = cmz_node_get(m, n)->graph;
  cmz_dtype type = cmz_value_get(m, v)->type.dtype;
  cmz_node_remove_attr(m, n, name);
  cmz_vid condition = cmz_value_add_scalar(m, parent, CMZ_BOOL, 1),
          out = cmz_value_add(m, parent, NULL);
  cmz_nid branch = cmz_node_insert(m, n, cmz_op_get("If"), NULL, 1, &condition, 1, &out);
  cmz_node_add_source(m, branch, n);
  cmz_value_replace_uses(m, cmz_graph_get(m, then)->inputs.data[0], v);
  cmz_value_get(m, cmz_graph_get(m, then)->inputs.data[0])->is_input = false;
  cmz_graph_get(m, then)->inputs.count = 0;
  cmz_graph_get(m, then)->owner = branch;
  cmz_gid otherwise = cmz_module_add_graph(m, "unchanged", branch, parent);
  cmz_vid copy = cmz_value_add(m, otherwise, NULL);
  cmz_nid identity = cmz_node_add(m, otherwise, cmz_op_get("Identity"), NULL, 1, &v, 1, &copy);
  cmz_node_add_source(m, identity, n);
  cmz_graph_add_output(m, otherwise, copy);
  cmz_node_set_attr(m, branch,
                    &(cmz_attr){.name = "then_branch", .kind = CMZ_ATTR_GRAPH, .graph = then});
  cmz_node_set_attr(m, branch,
                    &(cmz_attr){.name = "else_branch", .kind = CMZ_ATTR_GRAPH, .graph = otherwise});
  if (cmz_infer_node(m, branch) != CMZ_OK) return 0;
  return cmz_build_cast(m, n, out, type);
}

static cmz_status expand_flex(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  const cmz_type q_type = *cmz_input_type(m, &node, 0), k_type = *cmz_input_type(m, &node, 1),
                 v_type = *cmz_input_type(m, &node, 2);
  cmz_dtype type = flex_type(&node, q_type.dtype);
  int64_t size;
  if (!cmz_node_attr(&node, "scale") && !cmz_dim_is_const(m->dims, q_type.shape[3], &size))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the size of a head is not constant");
  double scale =
      cmz_node_attr(&node, "scale") ? cmz_node_float(&node, "scale", 1) : 1 / sqrt((double)size);
  cmz_vid q = node.inputs[0], k = node.inputs[1], v = node.inputs[2];
  cmz_dim one = cmz_dim_const(m->dims, 1),
          repeat = cmz_dim_floordiv(m->dims, q_type.shape[1], k_type.shape[1]);
  cmz_dim heads = k_type.shape[1], queries = q_type.shape[2], keys = k_type.shape[2];
  cmz_dim deep_q[5] = {q_type.shape[0], heads, repeat, queries, q_type.shape[3]},
          deep_k[5] = {q_type.shape[0], heads, one, keys, q_type.shape[3]},
          deep_v[5] = {q_type.shape[0], heads, one, keys, v_type.shape[3]},
          deep_p[5] = {q_type.shape[0], heads, repeat, queries, keys},
          flat_p[4] = {q_type.shape[0], q_type.shape[1], queries, keys},
          flat_y[4] = {q_type.shape[0], q_type.shape[1], queries, v_type.shape[3]};
  if (scale >= 0 && narrow(m, q)) {
    scale = sqrt(scale);
    k = rounded(m, n, cmz_build2(m, n, "Mul", k, cmz_build_scalar_like(m, n, k, scale)));
  }
  q = rounded(m, n, cmz_build2(m, n, "Mul", q, cmz_build_scalar_like(m, n, q, scale)));
  q = cmz_build_reshape(m, n, q, deep_q, 5);
  k = cmz_build_reshape(m, n, k, deep_k, 5);
  v = cmz_build_reshape(m, n, cmz_build_cast(m, n, v, type), deep_v, 5);
  if (k) k = cmz_build_transpose(m, n, k, (const int64_t[]){0, 1, 2, 4, 3}, 5);
  cmz_vid p = rounded(m, n, cmz_build2(m, n, "MatMul", q, k));
  p = cmz_build_reshape(m, n, cmz_build_cast(m, n, p, type), flat_p, 4);
  p = modified(m, n, "score_mod", p);
  p = modified(m, n, "prob_mod", p ? cmz_build1(m, n, "Softmax", p) : 0);
  p = cmz_build_reshape(m, n, p, deep_p, 5);
  cmz_vid y = cmz_build_reshape(m, n, cmz_build2(m, n, "MatMul", p, v), flat_y, 4);
  y = cmz_build_cast(m, n, y, v_type.dtype);
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

/* ---- RotaryEmbedding ---- */

/* Number of heads when the input is [B, S, hidden]; 0 for [B, heads, S, size]. */
static cmz_status rotary_heads(cmz_module *m, cmz_nid n, int64_t *heads, int64_t *size) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  *heads = x->rank == 3 ? cmz_node_int(node, "num_heads", 0) : 0;
  if ((x->rank != 3 && x->rank != 4) || (x->rank == 3 && *heads < 1))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank %u and num_heads is %" PRId64,
                         x->rank, *heads);
  if (!cmz_dim_is_const(m->dims, x->shape[x->rank - 1], size))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the size of a head is not constant");
  if (*heads) *size /= *heads;
  return CMZ_OK;
}

static cmz_status infer_rotary(cmz_module *m, cmz_nid n) {
  int64_t heads, size;
  CMZ_TRY(rotary_heads(m, n, &heads, &size));
  uint32_t rank = cmz_node_input(cmz_node_get(m, n), 3) ? 2 : 3;
  if (cmz_input_type(m, cmz_node_get(m, n), 1)->rank != rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the caches should have rank %u", rank);
  int64_t rotated = cmz_node_int(cmz_node_get(m, n), "rotary_embedding_dim", 0);
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  cmz_dim steps = x.shape[x.rank == 3 ? 1 : 2],
          half = cmz_dim_const(m->dims, (rotated > 0 ? rotated : size) / 2);
  cmz_dim by_row[2] = {CMZ_DIM_NONE, half}, by_step[3] = {x.shape[0], steps, half},
          ids[2] = {x.shape[0], steps};
  if (rotated > size)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "rotary_embedding_dim is larger than a head");
  for (uint32_t i = 1; i < 3; i++)
    CMZ_TRY(cmz_check_shape(m, n, i, rank, rank == 2 ? by_row : by_step));
  CMZ_TRY(cmz_check_shape(m, n, 3, 2, ids));
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

static cmz_expr describe_rotary(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  int64_t heads, size;
  if (rotary_heads(m, cmz_node_self(m, n), &heads, &size) != CMZ_OK) return 0;
  int64_t rotated = cmz_node_int(n, "rotary_embedding_dim", 0);
  if (rotated <= 0) rotated = size;
  bool interleaved = cmz_node_int(n, "interleaved", 0) != 0;
  uint32_t last = heads ? 2 : 3;
  cmz_expr whole = cmz_x_index(k, size), half = cmz_x_index(k, rotated / 2),
           two = cmz_x_index(k, 2), one = cmz_x_index(k, 1);
  cmz_expr c = heads ? cmz_x2(k, CMZ_X_MOD, idx[2], whole) : idx[3],
           base = cmz_x_sub(k, idx[last], c);
  cmz_expr pair = interleaved ? cmz_x2(k, CMZ_X_FLOORDIV, c, two) : cmz_x2(k, CMZ_X_MOD, c, half);
  cmz_expr real = interleaved ? cmz_x2(k, CMZ_X_EQ, cmz_x2(k, CMZ_X_MOD, c, two), cmz_x_index(k, 0))
                              : cmz_x2(k, CMZ_X_LT, c, half);
  cmz_expr first = interleaved ? cmz_x_mul(k, pair, two) : pair,
           second = cmz_x_add(k, first, interleaved ? one : half);
  cmz_expr position[2] = {idx[0], heads ? idx[1] : idx[2]},
           cache[3] = {position[0], position[1], pair};
  if (cmz_node_input(n, 3)) {
    cmz_expr p = cmz_describe_input(d, 3, position);
    if (!p) return 0;
    cache[0] =
        cmz_x_wrap_index(k, p, cmz_describe_dim(d, cmz_input_type(m, n, 1)->shape[0]), false);
    cache[1] = pair;
  }
  cmz_expr cosine = cmz_describe_input(d, 1, cache), sine = cmz_describe_input(d, 2, cache),
           at[4] = {idx[0], idx[1], idx[2], 0};
  at[last] = cmz_x_add(k, base, first);
  cmz_expr a = cmz_describe_input(d, 0, at);
  at[last] = cmz_x_add(k, base, second);
  cmz_expr b = cmz_describe_input(d, 0, at);
  if (!cosine || !sine || !a || !b) return 0;
  cmz_expr value =
      cmz_x_select(k, real, cmz_x_sub(k, cmz_x_mul(k, cosine, a), cmz_x_mul(k, sine, b)),
                   cmz_x_add(k, cmz_x_mul(k, sine, a), cmz_x_mul(k, cosine, b)));
  if (rotated == size) return value;
  cmz_expr own = cmz_describe_input(d, 0, idx);
  return own ? cmz_x_select(k, cmz_x2(k, CMZ_X_LT, c, cmz_x_index(k, rotated)), value, own) : 0;
}

static cmz_status eval_rotary(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *ids = n->input_count > 3 && inputs[3].data ? &inputs[3] : NULL;
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank, x->shape));
  int64_t heads = x->rank == 3 ? cmz_node_int(n, "num_heads", 1) : 1,
          size = x->shape[x->rank - 1] / heads;
  int64_t rotated = cmz_node_int(n, "rotary_embedding_dim", 0),
          steps = x->shape[x->rank == 3 ? 1 : 2];
  if (rotated <= 0) rotated = size;
  bool interleaved = cmz_node_int(n, "interleaved", 0) != 0;
  for (int64_t i = 0; i < (int64_t)cmz_array_count(x); i++) {
    int64_t c[CMZ_MAX_RANK], at = i % size, pair, start = i - at;
    cmz_array_coordinates(x, (size_t)i, c);
    if (at >= rotated) {
      cmz_copy_element(&outputs[0], i, x, i);
      continue;
    }
    pair = interleaved ? at / 2 : at % (rotated / 2);
    int64_t step = c[0] * steps + c[x->rank == 3 ? 1 : 2],
            row = ids ? cmz_get_int(ids, step) : step;
    int64_t width = inputs[1].shape[inputs[1].rank - 1];
    if (row < 0 || (row + 1) * width > (int64_t)cmz_array_count(&inputs[1]))
      return cmz_eval_fail(e, "a position outside the cache");
    double cosine = cmz_get(&inputs[1], row * width + pair),
           sine = cmz_get(&inputs[2], row * width + pair);
    double a = cmz_get(x, start + (interleaved ? 2 * pair : pair)),
           b = cmz_get(x, start + (interleaved ? 2 * pair + 1 : pair + rotated / 2));
    bool real = interleaved ? at % 2 == 0 : at < rotated / 2;
    cmz_set(&outputs[0], i, real ? cosine * a - sine * b : sine * a + cosine * b);
  }
  return CMZ_OK;
}

const cmz_op cmz_ops_attention[] = {
    {.name = "Attention",
     .domain = "",
     .min_inputs = 3,
     .max_inputs = 7,
     .min_outputs = 1,
     .max_outputs = 4,
     .since = 23,
     .infer = infer_attention,
     .expand = expand_attention,
     .attributes =
         "is_causal:i kv_num_heads:i left_window_size:i@25 q_num_heads:i qk_matmul_output_mode:i "
         "right_window_size:i@25 scale:f softcap:f softmax_precision:i"},
    {.name = "MultiHeadAttention",
     .domain = "com.microsoft",
     .min_inputs = 3,
     .max_inputs = 8,
     .min_outputs = 1,
     .max_outputs = 3,
     .since = 1,
     .infer = infer_multi_head,
     .expand = expand_multi_head,
     .attributes = "mask_filter_value:f num_heads:i! scale:f unidirectional:i"},
    {.name = "AttentionProbabilities",
     .domain = "cmz",
     .min_inputs = 1,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 2,
     .since = 1,
     .flags = CMZ_OP_REDUCTION,
     .infer = infer_probabilities,
     .eval = eval_probabilities,
     .describe = describe_probabilities},
    {.name = "RotaryEmbedding",
     .domain = "",
     .min_inputs = 3,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 23,
     .infer = infer_rotary,
     .eval = eval_rotary,
     .describe = describe_rotary,
     .attributes = "interleaved:i num_heads:i rotary_embedding_dim:i"},
    {.domain = "ai.onnx.preview",
     .name = "FlexAttention",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .operands = "TTT",
     .attributes = "prob_mod:g scale:f score_mod:g softmax_precision:i",
     .infer = infer_flex,
     .expand = expand_flex},
    {.name = NULL},
};
