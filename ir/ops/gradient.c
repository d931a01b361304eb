/* gradient.c - Gradient (ai.onnx.preview.training): the derivatives of one value by others, as
 * nodes. In: a node whose attributes name values of its graph. Out: reverse-mode differentiation,
 * with a row of the table below for each operator that can stand between the values. Always holds:
 * what has no row is refused by name; the value that is differentiated is an input of the node, so
 * that it stays until then. */
#include "ops.h"

/* ---- names to values ---- */

static cmz_vid find_value(const cmz_module *m, cmz_gid g, const char *name) {
  for (cmz_vid v = 1; v < m->values.count; v++) {
    const cmz_value *value = cmz_value_get(m, v);
    if (!value->removed && value->graph == g && !strcmp(value->name, name)) return v;
  }
  return 0;
}

static cmz_status normalize_gradient(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  if (node.opset == 0) return CMZ_OK;
  const cmz_attr *xs = cmz_node_attr(&node, "xs"), *zs = cmz_node_attr(&node, "zs"),
                 *y = cmz_node_attr(&node, "y");
  if (!xs || xs->kind != CMZ_ATTR_STRINGS || !y || y->kind != CMZ_ATTR_STRING)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute xs or y is missing");
  uint32_t constants = zs && zs->kind == CMZ_ATTR_STRINGS ? zs->count : 0;
  if (node.input_count != xs->count + constants || node.output_count > xs->count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the inputs and outputs do not fit xs and zs");
  for (uint32_t i = 0; i < node.input_count; i++) {
    const char *name = i < xs->count ? xs->strings[i] : zs->strings[i - xs->count];
    if (node.inputs[i] != find_value(m, node.graph, name))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                           "at another value than \"%s\" itself is not supported", name);
    if (i < xs->count && cmz_value_get(m, node.inputs[i])->constant)
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "by the constant \"%s\" is not supported",
                           name);
  }
  cmz_vid of = find_value(m, node.graph, y->s);
  if (!of) return cmz_node_fail(m, n, CMZ_E_INPUT, "there is no value \"%s\"", y->s);
  cmz_node_set_int(m, n, "count", xs->count);
  cmz_node_set_input(m, n, node.input_count, of);
  for (int i = 0; i < 3; i++) cmz_node_remove_attr(m, n, (const char *const[]){"xs", "zs", "y"}[i]);
  return cmz_graph_sort(m, node.graph);
}

static cmz_status infer_gradient(cmz_module *m, cmz_nid n) {
  uint32_t count = cmz_node_get(m, n)->output_count;
  for (uint32_t i = 0; i < count; i++) CMZ_TRY(cmz_infer_same(m, n, i, i, CMZ_UNDEFINED));
  return CMZ_OK;
}

/* ---- the parts of a chain rule ---- */

/* Where new nodes go, and the node that is differentiated: y = f(x0, x1 …), G the gradient of y. */
typedef struct chain {
  cmz_module *m;
  cmz_nid before, node;
  cmz_vid y, g, x[3];
} chain;

static cmz_vid one(const chain *c, const char *op, cmz_vid a) {
  return a ? cmz_build1(c->m, c->before, op, a) : 0;
}
static cmz_vid two(const chain *c, const char *op, cmz_vid a, cmz_vid b) {
  return a && b ? cmz_build2(c->m, c->before, op, a, b) : 0;
}
static cmz_vid number(const chain *c, double v) {
  return cmz_build_scalar_like(c->m, c->before, c->g, v);
}
static cmz_vid like_shape(const chain *c, const char *op, cmz_vid v, cmz_vid like) {
  return two(c, op, v, one(c, "Shape", like));
}

static cmz_vid refuse(const chain *c, const char *why) {
  cmz_node_fail(c->m, c->node, CMZ_E_UNSUPPORTED, "its gradient is not supported%s", why);
  return 0;
}

/* V, summed over what broadcasting LIKE to V's shape repeated. */
static cmz_vid sum_to(const chain *c, cmz_vid v, cmz_vid like) {
  cmz_module *m = c->m;
  if (!v) return 0;
  const cmz_type from = *cmz_ops_type(m, v), to = *cmz_ops_type(m, like);
  int64_t axes[CMZ_MAX_RANK];
  uint32_t count = 0;
  for (uint32_t i = 0; i < from.rank; i++) {
    bool lead = i + to.rank < from.rank;
    cmz_dim d = lead ? CMZ_DIM_NONE : to.shape[i + to.rank - from.rank];
    if (lead || (d != from.shape[i] && cmz_dim_is(m->dims, d, 1))) axes[count++] = i;
    else if (d != from.shape[i]) return refuse(c, ": it is not known what is broadcast");
  }
  if (count) v = cmz_build_reduce(m, c->before, "ReduceSum", v, axes, count, true);
  return from.rank == to.rank ? v : like_shape(c, "Reshape", v, like);
}

/* ---- a function a kind of operator: the gradient of input I ---- */

static cmz_vid grad_same(const chain *c, uint32_t i) { return sum_to(c, c->g, c->x[i]); }
static cmz_vid grad_sub(const chain *c, uint32_t i) {
  return sum_to(c, i ? one(c, "Neg", c->g) : c->g, c->x[i]);
}
static cmz_vid grad_mul(const chain *c, uint32_t i) {
  return sum_to(c, two(c, "Mul", c->g, c->x[!i]), c->x[i]);
}
static cmz_vid grad_div(const chain *c, uint32_t i) {
  cmz_vid v = two(c, "Div", c->g, c->x[1]);
  return sum_to(c, i ? one(c, "Neg", two(c, "Mul", v, c->y)) : v, c->x[i]);
}
static cmz_vid grad_pow(const chain *c, uint32_t i) {
  cmz_vid a = c->x[0], b = c->x[1];
  if (cmz_ops_type(c->m, b)->dtype != cmz_ops_type(c->m, a)->dtype)
    return refuse(c, " for operands of different types");
  cmz_vid v = i ? two(c, "Mul", c->y, one(c, "Log", a))
                : two(c, "Mul", b, two(c, "Pow", a, two(c, "Sub", b, number(c, 1))));
  return sum_to(c, two(c, "Mul", c->g, v), c->x[i]);
}
static cmz_vid grad_neg(const chain *c, uint32_t i) { return (void)i, one(c, "Neg", c->g); }
static cmz_vid grad_exp(const chain *c, uint32_t i) { return (void)i, two(c, "Mul", c->g, c->y); }
static cmz_vid grad_log(const chain *c, uint32_t i) {
  return (void)i, two(c, "Div", c->g, c->x[0]);
}
static cmz_vid grad_sqrt(const chain *c, uint32_t i) {
  return (void)i, two(c, "Div", c->g, two(c, "Mul", number(c, 2), c->y));
}
static cmz_vid grad_reciprocal(const chain *c, uint32_t i) {
  return (void)i, one(c, "Neg", two(c, "Mul", c->g, two(c, "Mul", c->y, c->y)));
}
static cmz_vid grad_tanh(const chain *c, uint32_t i) {
  return (void)i, two(c, "Mul", c->g, two(c, "Sub", number(c, 1), two(c, "Mul", c->y, c->y)));
}
static cmz_vid grad_sigmoid(const chain *c, uint32_t i) {
  cmz_vid slope = two(c, "Mul", c->y, two(c, "Sub", number(c, 1), c->y));
  return (void)i, two(c, "Mul", c->g, slope);
}
static cmz_vid grad_sin(const chain *c, uint32_t i) {
  return (void)i, two(c, "Mul", c->g, one(c, "Cos", c->x[0]));
}
static cmz_vid grad_cos(const chain *c, uint32_t i) {
  return (void)i, one(c, "Neg", two(c, "Mul", c->g, one(c, "Sin", c->x[0])));
}
static cmz_vid grad_abs(const chain *c, uint32_t i) {
  return (void)i, two(c, "Mul", c->g, one(c, "Sign", c->x[0]));
}
static cmz_vid grad_relu(const chain *c, uint32_t i) {
  (void)i;
  cmz_vid on = two(c, "Greater", c->x[0], number(c, 0));
  return on ? cmz_build3(c->m, c->before, "Where", on, c->g, number(c, 0)) : 0;
}
static cmz_vid grad_view(const chain *c, uint32_t i) {
  return i ? 0 : like_shape(c, "Reshape", c->g, c->x[0]);
}

static cmz_vid transposed(const chain *c, cmz_vid v) {
  uint32_t rank = cmz_ops_type(c->m, v)->rank;
  int64_t perm[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < rank; i++) perm[i] = i;
  perm[rank - 1] = (int64_t)rank - 2;
  perm[rank - 2] = (int64_t)rank - 1;
  return cmz_build_transpose(c->m, c->before, v, perm, rank);
}

static cmz_vid grad_matmul(const chain *c, uint32_t i) {
  if (cmz_ops_type(c->m, c->x[0])->rank < 2 || cmz_ops_type(c->m, c->x[1])->rank < 2)
    return refuse(c, " for vectors");
  cmz_vid other = transposed(c, c->x[!i]);
  return sum_to(c, i ? two(c, "MatMul", other, c->g) : two(c, "MatMul", c->g, other), c->x[i]);
}

static cmz_vid grad_transpose(const chain *c, uint32_t i) {
  (void)i;
  uint32_t rank = cmz_ops_type(c->m, c->g)->rank, count = 0;
  const int64_t *perm = cmz_node_ints(cmz_node_get(c->m, c->node), "perm", &count);
  int64_t back[CMZ_MAX_RANK];
  for (uint32_t k = 0; k < rank; k++) back[k] = (int64_t)rank - 1 - k;
  for (uint32_t k = 0; k < count && k < rank; k++)
    if (perm[k] >= 0 && perm[k] < (int64_t)rank) back[perm[k]] = k;
  return cmz_build_transpose(c->m, c->before, c->g, back, rank);
}

/* The gradient in the reduced tensor's shape. */
static cmz_vid spread(const chain *c) {
  const cmz_type x = *cmz_ops_type(c->m, c->x[0]), y = *cmz_ops_type(c->m, c->y);
  cmz_dim kept[CMZ_MAX_RANK];
  int64_t axes[CMZ_MAX_RANK];
  uint32_t count = 0;
  if (y.rank == x.rank) return like_shape(c, "Expand", c->g, c->x[0]);
  bool all = !c->x[1];
  if (!all && !cmz_const_i64s(c->m, c->x[1], axes, CMZ_MAX_RANK, &count))
    return refuse(c, ": its axes are not constant");
  for (uint32_t k = 0; k < x.rank; k++) {
    bool reduced = all || count == 0;
    for (uint32_t a = 0; a < count; a++)
      reduced |= axes[a] == (int64_t)k || axes[a] + x.rank == (int64_t)k;
    kept[k] = reduced ? cmz_dim_const(c->m->dims, 1) : x.shape[k];
  }
  cmz_vid v = cmz_build_reshape(c->m, c->before, c->g, kept, x.rank);
  return v ? like_shape(c, "Expand", v, c->x[0]) : 0;
}

static cmz_vid grad_reduce_sum(const chain *c, uint32_t i) { return i ? 0 : spread(c); }

static cmz_vid grad_reduce_mean(const chain *c, uint32_t i) {
  if (i) return 0;
  cmz_dtype dtype = cmz_ops_type(c->m, c->g)->dtype;
  cmz_vid whole = one(c, "Size", c->x[0]), part = one(c, "Size", c->y);
  if (!whole || !part) return 0;
  cmz_vid scale = two(c, "Div", cmz_build_cast(c->m, c->before, part, dtype),
                      cmz_build_cast(c->m, c->before, whole, dtype));
  return two(c, "Mul", spread(c), scale);
}

static const struct {
  const char *op;
  cmz_vid (*gradient)(const chain *c, uint32_t input);
} rows[] = {
    {"Add", grad_same},
    {"Sum", grad_same},
    {"Sub", grad_sub},
    {"Mul", grad_mul},
    {"Div", grad_div},
    {"Pow", grad_pow},
    {"Neg", grad_neg},
    {"Identity", grad_same},
    {"Exp", grad_exp},
    {"Log", grad_log},
    {"Sqrt", grad_sqrt},
    {"Reciprocal", grad_reciprocal},
    {"Tanh", grad_tanh},
    {"Sigmoid", grad_sigmoid},
    {"Sin", grad_sin},
    {"Cos", grad_cos},
    {"Abs", grad_abs},
    {"Relu", grad_relu},
    {"MatMul", grad_matmul},
    {"Transpose", grad_transpose},
    {"Reshape", grad_view},
    {"Squeeze", grad_view},
    {"Unsqueeze", grad_view},
    {"Flatten", grad_view},
    {"ReduceSum", grad_reduce_sum},
    {"ReduceMean", grad_reduce_mean},
};

/* ---- reverse mode ---- */

typedef struct tape {
  cmz_module *m;
  cmz_nid before;
  bool *depends;  /* by value: on one of the independent ones */
  cmz_vid *grads; /* by value: what has been added up so far; 0: nothing */
  cmz_vid count;  /* of values when this began */
} tape;

/* Adds what N's inputs contribute. */
static cmz_status differentiate(tape *t, cmz_nid n) {
  cmz_module *m = t->m;
  const cmz_node node = *cmz_node_get(m, n);
  cmz_vid y = cmz_node_output(&node, 0);
  if (!y || y >= t->count || !t->grads[y]) return CMZ_OK;
  chain c = {.m = m, .before = t->before, .node = n, .y = y, .g = t->grads[y]};
  size_t row = 0;
  while (row < CMZ_COUNT_OF(rows) &&
         (node.op->domain[0] || strcmp(rows[row].op, node.op->name) != 0))
    row++;
  if (row == CMZ_COUNT_OF(rows) || node.output_count != 1)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "its gradient is not supported");
  for (uint32_t i = 0; i < node.input_count; i++) {
    cmz_vid x = node.inputs[i];
    if (!x || !t->depends[x]) continue;
    for (uint32_t k = 0; k < 3; k++) c.x[k] = cmz_node_input(&node, k);
    uint32_t at = i;
    if (i >= 3) c.x[0] = x, at = 0; /* Sum takes any number */
    cmz_vid v = rows[row].gradient(&c, at);
    if (!v)
      return m->ctx->error_count ? CMZ_E_UNSUPPORTED
                                 : cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                                                 "its gradient by input %u is not supported", i);
    t->grads[x] = t->grads[x] ? cmz_build2(m, t->before, "Add", t->grads[x], v) : v;
    if (!t->grads[x]) return CMZ_E_INTERNAL;
  }
  return CMZ_OK;
}

static void find_dependent(tape *t, const cmz_graph *graph) {
  for (uint32_t k = 0; k < graph->nodes.count; k++) {
    const cmz_node *node = cmz_node_get(t->m, graph->nodes.data[k]);
    bool any = false;
    if (node->removed || graph->nodes.data[k] == t->before) continue;
    for (uint32_t i = 0; i < node->input_count; i++)
      any |= node->inputs[i] && t->depends[node->inputs[i]];
    for (uint32_t o = 0; any && o < node->output_count; o++)
      if (node->outputs[o] && cmz_dtype_is_float(cmz_ops_type(t->m, node->outputs[o])->dtype))
        t->depends[node->outputs[o]] = true;
  }
}

static cmz_status expand_gradient(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  uint32_t count = (uint32_t)cmz_node_int(&node, "count", 0);
  cmz_vid y = node.inputs[node.input_count - 1];
  tape t = {.m = m, .before = n, .count = m->values.count};
  t.depends = CMZ_NEW_ARRAY(m->arena, bool, t.count);
  t.grads = CMZ_NEW_ARRAY(m->arena, cmz_vid, t.count);
  if (!cmz_dtype_is_float(cmz_ops_type(m, y)->dtype))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "of a value of type %s",
                         cmz_dtype_info(cmz_ops_type(m, y)->dtype)->name);
  bool *fixed = CMZ_NEW_ARRAY(m->arena, bool, t.count); /* by value: nothing behind it counts */
  for (uint32_t i = 0; i < count; i++) t.depends[node.inputs[i]] = fixed[node.inputs[i]] = true;
  find_dependent(&t, cmz_graph_get(m, node.graph));
  chain seed = {.m = m, .before = n, .node = n, .g = y};
  if (t.depends[y]) t.grads[y] = like_shape(&seed, "Expand", number(&seed, 1), y);
  uint32_t listed = cmz_graph_get(m, node.graph)->nodes.count;
  const cmz_nid *order =
      cmz_arena_copy(m->arena, cmz_graph_get(m, node.graph)->nodes.data, listed * sizeof *order);
  for (uint32_t k = listed; k-- > 0;) {
    const cmz_node *inner = cmz_node_get(m, order[k]);
    cmz_vid out = cmz_node_output(inner, 0);
    if (inner->removed || order[k] == n || (out && out < t.count && fixed[out])) continue;
    CMZ_TRY(differentiate(&t, order[k]));
  }
  for (uint32_t i = 0; i < node.output_count; i++) {
    cmz_vid x = node.inputs[i], v = t.grads[x];
    if (!node.outputs[i]) continue;
    chain zero = {.m = m, .before = n, .node = n, .g = x};
    v = v ? cmz_build1(m, n, "Identity", v) : like_shape(&zero, "Expand", number(&zero, 0), x);
    if (!v) return CMZ_E_INTERNAL;
    cmz_value_replace_uses(m, node.outputs[i], v);
  }
  cmz_node_remove(m, n);
  return CMZ_OK;
}

const cmz_op cmz_ops_gradient[] = {
    {.domain = "ai.onnx.preview.training",
     .name = "Gradient",
     .min_inputs = 1,
     .max_inputs = 255,
     .min_outputs = 1,
     .max_outputs = 255,
     .since = 1,
     .normalize = normalize_gradient,
     .infer = infer_gradient,
     .expand = expand_gradient,
     .attributes = "xs:S! y:s! zs:S"},
    {.name = NULL},
};
