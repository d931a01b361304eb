/* linear_attention.c - LinearAttention, CausalConvWithState and SwiGLU: what models with a
 * recurrent state instead of a cache are made of. In: nodes whose inputs pack the heads in the last
 * dimension. Out: simpler operators; the recurrence is a Scan over time, one step is expanded in
 * place. Always holds: the state is computed in f32 (f64 for f64) whatever the type of the data. */
#include "ops.h"

/* ---- LinearAttention: query, key, value, past state, decay, beta ---- */

typedef struct linear {
  cmz_module *m;
  cmz_nid node; /* being expanded */
  cmz_node n;   /* a copy: the pool moves */
  bool gated, corrected;
  int64_t heads, groups; /* of keys; query heads per key head */
  cmz_dim batch, steps, key_size, value_size;
  cmz_dtype compute;
} linear;

enum { QUERY, KEY, VALUE, DECAY, BETA, SCANNED };

static const char *const rules[] = {"linear", "gated", "delta", "gated_delta"};

static cmz_status read_linear(cmz_module *m, cmz_nid n, linear *l) {
  *l = (linear){.m = m, .node = n, .n = *cmz_node_get(m, n)};
  const cmz_type q = *cmz_input_type(m, &l->n, 0), k = *cmz_input_type(m, &l->n, 1),
                 v = *cmz_input_type(m, &l->n, 2);
  const char *rule = cmz_node_string(&l->n, "update_rule", "gated_delta");
  uint32_t which = 0;
  while (which < 4 && strcmp(rules[which], rule)) which++;
  if (which == 4) return cmz_node_fail(m, n, CMZ_E_INPUT, "update_rule is \"%s\"", rule);
  l->gated = which & 1, l->corrected = which & 2;
  if (l->gated != (cmz_node_input(&l->n, 4) != 0) ||
      l->corrected != (cmz_node_input(&l->n, 5) != 0))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "decay and beta do not fit update_rule \"%s\"", rule);
  int64_t all = cmz_node_int(&l->n, "q_num_heads", 0);
  l->heads = cmz_node_int(&l->n, "kv_num_heads", 0);
  if (all < 1 || l->heads < 1 || all % l->heads)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%" PRId64 " query heads for %" PRId64 " key heads",
                         all, l->heads);
  if (q.rank != 3 || k.rank != 3 || v.rank != 3)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "query, key and value need rank 3");
  l->groups = all / l->heads;
  l->batch = q.shape[0], l->steps = q.shape[1];
  l->key_size = cmz_dim_floordiv(m->dims, q.shape[2], cmz_dim_const(m->dims, all));
  l->value_size = cmz_dim_floordiv(m->dims, v.shape[2], cmz_dim_const(m->dims, l->heads));
  l->compute = cmz_dtype_info(q.dtype)->compute;
  cmz_dim heads = cmz_dim_const(m->dims, l->heads);
  cmz_dim keys[3] = {l->batch, l->steps, cmz_dim_mul(m->dims, heads, l->key_size)},
          values[3] = {l->batch, l->steps, cmz_dim_mul(m->dims, heads, l->value_size)},
          state[4] = {l->batch, heads, l->key_size, l->value_size},
          gate[3] = {l->batch, l->steps, CMZ_DIM_NONE};
  CMZ_TRY(cmz_check_shape(m, n, 1, 3, keys));
  CMZ_TRY(cmz_check_shape(m, n, 2, 3, values));
  CMZ_TRY(cmz_check_shape(m, n, 3, 4, state));
  CMZ_TRY(cmz_check_shape(m, n, 4, 3, gate));
  return cmz_check_shape(m, n, 5, 3, gate);
}

static cmz_status infer_linear(cmz_module *m, cmz_nid n) {
  linear l;
  CMZ_TRY(read_linear(m, n, &l));
  cmz_dtype type = cmz_input_type(m, &l.n, 0)->dtype;
  if (!cmz_dtype_is_float(type)) return cmz_node_fail(m, n, CMZ_E_INPUT, "needs floats");
  const cmz_type *past = cmz_input_type(m, &l.n, 3);
  cmz_dim all = cmz_dim_const(m->dims, l.heads * l.groups), heads = cmz_dim_const(m->dims, l.heads);
  cmz_dim y[3] = {l.batch, l.steps, cmz_dim_mul(m->dims, all, l.value_size)};
  cmz_dim state[4] = {l.batch, heads, l.key_size, l.value_size};
  cmz_dtype kept = past ? past->dtype : type;
  cmz_set_output(m, n, 0, type, 3, y);
  cmz_set_output(m, n, 1, kept, 4, state);
  return CMZ_OK;
}

/* Input INPUT [B, T, heads * A * B] as [T, B, heads, A, B] in the compute type. */
static cmz_vid by_step(linear *l, uint32_t input, int64_t heads, cmz_dim a, cmz_dim b) {
  cmz_dim shape[5] = {l->batch, l->steps, cmz_dim_const(l->m->dims, heads), a, b};
  cmz_vid v = cmz_build_cast(l->m, l->node, l->n.inputs[input], l->compute);
  v = cmz_build_reshape(l->m, l->node, v, shape, 5);
  return v ? cmz_build_transpose(l->m, l->node, v, (const int64_t[]){1, 0, 2, 3, 4}, 5) : 0;
}

/* One step: S, the state [B, H, dk, dv], becomes the next; gives the output [B, H, groups, dv]. */
static cmz_vid linear_step(const linear *l, cmz_nid before, const cmz_vid *in, cmz_vid *s) {
  cmz_module *m = l->m;
  cmz_vid v = in[VALUE], column = 0;
  if (l->gated) *s = cmz_build2(m, before, "Mul", *s, cmz_build1(m, before, "Exp", in[DECAY]));
  if (l->corrected) {
    cmz_vid known = cmz_build2(m, before, "MatMul", in[KEY], *s);
    v = cmz_build2(m, before, "Mul", in[BETA], cmz_build2(m, before, "Sub", v, known));
  }
  if (in[KEY]) column = cmz_build_transpose(m, before, in[KEY], (const int64_t[]){0, 1, 3, 2}, 4);
  *s = cmz_build2(m, before, "Add", *s, cmz_build2(m, before, "Mul", column, v));
  return cmz_build2(m, before, "MatMul", in[QUERY], *s);
}

/* The recurrence over all steps; IN are [T, ...]. OUT is [T, B, H, groups, dv]. */
static cmz_status linear_scan(linear *l, const cmz_vid *in, cmz_vid *s, cmz_vid *out) {
  cmz_module *m = l->m;
  cmz_vid inputs[1 + SCANNED] = {*s}, outputs[2], step[SCANNED] = {0};
  uint32_t count = 1;
  for (uint32_t i = 0; i < SCANNED; i++)
    if (in[i]) inputs[count++] = in[i];
  for (uint32_t i = 0; i < 2; i++) outputs[i] = cmz_value_add(m, l->n.graph, NULL);
  cmz_nid scan =
      cmz_node_insert(m, l->node, cmz_op_get("Scan"), l->n.name, count, inputs, 2, outputs);
  cmz_node_add_source(m, scan, l->node);
  cmz_gid g = cmz_module_add_graph(m, "step", scan, l->n.graph);
  cmz_vid state = cmz_value_add_input(m, g, NULL), unused;
  cmz_type t = cmz_value_get(m, *s)->type;
  cmz_value_set_type(m, state, t.dtype, t.rank, t.shape);
  for (uint32_t i = 0; i < SCANNED; i++) {
    if (!in[i]) continue;
    step[i] = cmz_value_add_input(m, g, NULL);
    t = cmz_value_get(m, in[i])->type;
    cmz_value_set_type(m, step[i], t.dtype, t.rank - 1, t.shape + 1);
  }
  /* Builders place nodes before another node; this one goes away again. */
  unused = cmz_value_add(m, g, NULL);
  cmz_nid anchor = cmz_node_add(m, g, cmz_op_get("Identity"), l->n.name, 1, &state, 1, &unused);
  cmz_node_add_source(m, anchor, l->node);
  cmz_vid y = linear_step(l, anchor, step, &state);
  if (!y) return CMZ_E_INTERNAL;
  cmz_node_remove(m, anchor);
  cmz_graph_add_output(m, g, state);
  cmz_graph_add_output(m, g, y);
  cmz_node_set_attr(m, scan, &(cmz_attr){.name = "body", .kind = CMZ_ATTR_GRAPH, .graph = g});
  cmz_node_set_int(m, scan, "num_scan_inputs", count - 1);
  CMZ_TRY(cmz_infer_node(m, scan));
  *s = outputs[0];
  *out = outputs[1];
  return CMZ_OK;
}

/* The state before the first step. */
static cmz_vid first_state(linear *l, const cmz_dim *shape) {
  cmz_module *m = l->m;
  cmz_vid past = cmz_node_input(&l->n, 3);
  if (past) return cmz_build_cast(m, l->node, past, l->compute);
  int64_t ones[4] = {1, 1, 1, 1};
  double zero = 0;
  cmz_nid dims;
  cmz_vid target = cmz_build_node(m, l->node, "Dims", 0, NULL, &dims);
  cmz_dim four = cmz_dim_const(m->dims, 4);
  if (!target) return 0;
  cmz_value_set_type(m, target, CMZ_I64, 1, &four);
  cmz_value_set_elements(m, target, shape, 4);
  return cmz_build2(m, l->node, "Expand", cmz_build_floats(m, l->node, l->compute, 4, ones, &zero),
                    target);
}

static cmz_status expand_linear(cmz_module *m, cmz_nid n) {
  linear l;
  CMZ_TRY(read_linear(m, n, &l));
  cmz_dim one = cmz_dim_const(m->dims, 1), groups = cmz_dim_const(m->dims, l.groups);
  cmz_dim heads = cmz_dim_const(m->dims, l.heads), all = cmz_dim_const(m->dims, l.heads * l.groups);
  cmz_dim shape[4] = {l.batch, heads, l.key_size, l.value_size};
  double scale = cmz_node_float(&l.n, "scale", 0);
  int64_t size;
  if (scale == 0 && !cmz_dim_is_const(m->dims, l.key_size, &size))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the size of a head is not constant");
  if (scale == 0) scale = 1 / sqrt((double)size);
  cmz_vid in[SCANNED] = {by_step(&l, 0, l.heads, groups, l.key_size),
                         by_step(&l, 1, l.heads, one, l.key_size),
                         by_step(&l, 2, l.heads, one, l.value_size)};
  in[QUERY] = cmz_build2(m, n, "Mul", in[QUERY], cmz_build_scalar_like(m, n, in[QUERY], scale));
  if (l.gated) {
    bool whole = cmz_dim_is(m->dims, cmz_input_type(m, &l.n, 4)->shape[2], l.heads);
    in[DECAY] = by_step(&l, 4, l.heads, whole ? one : l.key_size, one);
  }
  if (l.corrected) {
    bool shared = cmz_dim_is(m->dims, cmz_input_type(m, &l.n, 5)->shape[2], 1);
    in[BETA] = by_step(&l, 5, shared ? 1 : l.heads, one, one);
  }
  cmz_vid s = first_state(&l, shape), y;
  if (!in[QUERY] || !in[KEY] || !in[VALUE] || (l.gated && !in[DECAY]) ||
      (l.corrected && !in[BETA]) || !s)
    return CMZ_E_INTERNAL;
  if (cmz_dim_is(m->dims, l.steps, 1)) {
    for (uint32_t i = 0; i < SCANNED; i++) {
      if (!in[i]) continue;
      const cmz_type t = cmz_value_get(m, in[i])->type;
      in[i] = cmz_build_reshape(m, n, in[i], t.shape + 1, 4);
    }
    y = linear_step(&l, n, in, &s);
  } else {
    CMZ_TRY(linear_scan(&l, in, &s, &y));
    y = cmz_build_transpose(m, n, y, (const int64_t[]){1, 0, 2, 3, 4}, 5);
  }
  cmz_dim packed[3] = {l.batch, l.steps, cmz_dim_mul(m->dims, all, l.value_size)};
  y = cmz_build_reshape(m, n, y, packed, 3);
  y = cmz_build_cast(m, n, y, cmz_input_type(m, &l.n, 0)->dtype);
  cmz_vid state = cmz_node_output(&l.n, 1);
  s = cmz_build_cast(m, n, s, state ? cmz_value_get(m, state)->type.dtype : l.compute);
  if (!y || !s) return CMZ_E_INTERNAL;
  if (state) cmz_value_replace_uses(m, state, s);
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

/* ---- CausalConvWithState: input [B, C, L], weight [C, 1, k], bias, past state [B, C, k - 1] ----
 */

static cmz_status infer_causal(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0), w = *cmz_input_type(m, node, 1);
  const char *activation = cmz_node_string(node, "activation", "none");
  int64_t channels, k;
  if (strcmp(activation, "none") && strcmp(activation, "silu") && strcmp(activation, "swish"))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "activation is \"%s\"", activation);
  if (x.rank != 3 || w.rank != 3)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "input and weight need rank 3");
  if (!cmz_dim_is_const(m->dims, w.shape[0], &channels) ||
      !cmz_dim_is_const(m->dims, w.shape[2], &k))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the shape of the weight is not constant");
  if (k < 1 || channels < 1 || cmz_dims_differ(m, x.shape[1], w.shape[0]) ||
      !cmz_dim_is(m->dims, w.shape[1], 1))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the weight does not fit the input's channels");
  cmz_dim state[3] = {x.shape[0], x.shape[1], cmz_dim_const(m->dims, k - 1)};
  CMZ_TRY(cmz_check_vector(m, n, 2, w.shape[0], false));
  CMZ_TRY(cmz_check_shape(m, n, 3, 3, state));
  CMZ_TRY(cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED));
  cmz_set_output(m, n, 1, x.dtype, 3, state);
  return CMZ_OK;
}

static cmz_status expand_causal(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  int64_t k = 1, channels = 1;
  cmz_dim_is_const(m->dims, cmz_input_type(m, &node, 1)->shape[2], &k);
  cmz_dim_is_const(m->dims, cmz_input_type(m, &node, 1)->shape[0], &channels);
  cmz_vid past = cmz_node_input(&node, 3), x = node.inputs[0];
  if (past) {
    cmz_attr axis = cmz_attr_int("axis", 2);
    x = cmz_build_with(m, n, "Concat", 2, (cmz_vid[]){past, x}, 1, &axis);
  } else {
    int64_t pads[6] = {0, 0, k - 1, 0, 0, 0};
    x = cmz_build2(m, n, "Pad", x, cmz_build_i64s(m, n, pads, 6));
  }
  cmz_attr attrs[2] = {cmz_attr_int("group", channels), cmz_attr_ints("kernel_shape", &k, 1)};
  cmz_vid y = cmz_build_with(m, n, "Conv", 3,
                             (cmz_vid[]){x, node.inputs[1], cmz_node_input(&node, 2)}, 2, attrs);
  if (y && strcmp(cmz_node_string(&node, "activation", "none"), "none"))
    y = cmz_build1(m, n, "Swish", y);
  if (!y) return CMZ_E_INTERNAL;
  if (cmz_node_output(&node, 1)) {
    int64_t begin = k > 1 ? 1 - k : INT64_MAX, end = INT64_MAX, axis = 2;
    cmz_vid slice[4] = {x, cmz_build_i64s(m, n, &begin, 1), cmz_build_i64s(m, n, &end, 1),
                        cmz_build_i64s(m, n, &axis, 1)};
    cmz_vid state = cmz_build_node(m, n, "Slice", 4, slice, NULL);
    if (!state) return CMZ_E_INTERNAL;
    cmz_value_replace_uses(m, node.outputs[1], state);
  }
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

/* ---- SwiGLU: Swish(A) * B ---- */

static cmz_status infer_swiglu(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type a = *cmz_input_type(m, node, 0);
  if (!cmz_dtype_is_float(a.dtype)) return cmz_node_fail(m, n, CMZ_E_INPUT, "needs floats");
  CMZ_TRY(cmz_check_shape(m, n, 1, a.rank, a.shape));
  return cmz_infer_unary(m, n);
}

static cmz_status expand_swiglu(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  cmz_attr alpha = cmz_attr_float("alpha", cmz_node_float(&node, "alpha", 1));
  cmz_vid y = cmz_build_with(m, n, "Swish", 1, node.inputs, 1, &alpha);
  y = cmz_build2(m, n, "Mul", y, node.inputs[1]);
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

#define ROW(NAME, MIN, MAX, OUTPUTS, SINCE, OPERANDS, FUNCTION, ATTRIBUTES)                        \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,            \
    .max_outputs = OUTPUTS, .since = SINCE, .operands = OPERANDS, .infer = infer_##FUNCTION,       \
    .expand = expand_##FUNCTION, .attributes = ATTRIBUTES                                          \
  }

const cmz_op cmz_ops_linear_attention[] = {
    ROW("LinearAttention", 3, 6, 2, 27, "TTT.TT", linear,
        "chunk_size:i kv_num_heads:i! q_num_heads:i! scale:f update_rule:s"),
    ROW("CausalConvWithState", 2, 4, 2, 27, "TTTT", causal, "activation:s"),
    ROW("SwiGLU", 2, 2, 1, 28, "TT", swiglu, "alpha:f"),
    {.name = NULL},
};
