/* training.c - the optimisers Adagrad, Adam and Momentum: one step of each tensor.
 * In: the rate R, the count of steps T, then the tensors, their gradients and their states, each in
 * groups of one per tensor. Out: the new tensors, then the new states. Always holds: each expands
 * into arithmetic on whole tensors. */
#include "ops.h"

static bool is_adam(const cmz_node *n) { return !strcmp(n->op->name, "Adam"); }

static cmz_status infer(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t groups = is_adam(node) ? 4 : 3, count = (node->input_count - 2) / groups;
  if (node->input_count < 2 + groups || (node->input_count - 2) % groups ||
      node->output_count != count * (groups - 1))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the numbers of inputs and outputs do not fit");
  if (cmz_input_type(m, node, 0)->rank || cmz_input_type(m, node, 1)->rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "R and T must be scalars");
  for (uint32_t i = 0; i < count; i++) {
    const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 2 + i);
    for (uint32_t g = 0; g < groups; g++) {
      CMZ_TRY(cmz_check_shape(m, n, 2 + g * count + i, x.rank, x.shape));
      if (cmz_input_type(m, cmz_node_get(m, n), 2 + g * count + i)->dtype != x.dtype ||
          !cmz_dtype_is_float(x.dtype))
        return cmz_node_fail(m, n, CMZ_E_INPUT,
                             "a tensor, its gradient and states need one float type");
      if (g == 1) continue; /* gradients have no output */
      CMZ_TRY(cmz_infer_same(m, n, (g ? g - 1 : 0) * count + i, 2 + i, CMZ_UNDEFINED));
    }
  }
  return CMZ_OK;
}

/* What an expansion works with: the node and short names for its builders. */
typedef struct frame {
  cmz_module *m;
  cmz_nid n;
} frame;

static cmz_vid two(frame f, const char *op, cmz_vid a, cmz_vid b) {
  return a && b ? cmz_build2(f.m, f.n, op, a, b) : 0;
}
static cmz_vid by(frame f, const char *op, cmz_vid a, double b) {
  return a ? cmz_build2(f.m, f.n, op, a, cmz_build_scalar_like(f.m, f.n, a, b)) : 0;
}
static cmz_vid from(frame f, double a, const char *op, cmz_vid b) {
  return b ? cmz_build2(f.m, f.n, op, cmz_build_scalar_like(f.m, f.n, b, a), b) : 0;
}
static cmz_vid root(frame f, cmz_vid a) { return a ? cmz_build1(f.m, f.n, "Sqrt", a) : 0; }

/* Whether T > 0, as a bool scalar. */
static cmz_vid started(frame f, cmz_vid t) { return by(f, "Greater", t, 0); }

/* A where T > 0, else B. */
static cmz_vid choose(frame f, cmz_vid t, cmz_vid a, cmz_vid b) {
  cmz_vid yes = started(f, t);
  return yes && a && b ? cmz_build3(f.m, f.n, "Where", yes, a, b) : 0;
}

static void adagrad(frame f, const cmz_node *n, cmz_vid r, cmz_vid t, cmz_vid x, cmz_vid g,
                    cmz_vid *s) {
  cmz_vid steps = cmz_build_cast(f.m, f.n, t, cmz_value_get(f.m, r)->type.dtype);
  steps = by(f, "Add", by(f, "Mul", steps, cmz_node_float(n, "decay_factor", 0)), 1);
  r = cmz_build_cast(f.m, f.n, two(f, "Div", r, steps), cmz_value_get(f.m, x)->type.dtype);
  s[1] = two(f, "Add", s[1], two(f, "Mul", g, g));
  cmz_vid size = by(f, "Add", root(f, s[1]), cmz_node_float(n, "epsilon", 1e-6));
  s[0] = two(f, "Sub", x, two(f, "Div", two(f, "Mul", r, g), size));
}

static void adam(frame f, const cmz_node *n, cmz_vid r, cmz_vid t, cmz_vid x, cmz_vid g,
                 cmz_vid *s) {
  double alpha = cmz_node_float(n, "alpha", 0.9), beta = cmz_node_float(n, "beta", 0.999);
  double after = cmz_node_float(n, "norm_coefficient_post", 0);
  s[1] = two(f, "Add", by(f, "Mul", s[1], alpha), by(f, "Mul", g, 1 - alpha));
  s[2] = two(f, "Add", by(f, "Mul", s[2], beta), by(f, "Mul", two(f, "Mul", g, g), 1 - beta));
  cmz_vid steps = cmz_build_cast(f.m, f.n, t, CMZ_F64), rate = cmz_build_cast(f.m, f.n, r, CMZ_F64);
  cmz_vid second = root(f, from(f, 1, "Sub", from(f, beta, "Pow", steps)));
  cmz_vid first = from(f, 1, "Sub", from(f, alpha, "Pow", steps));
  rate = choose(f, t, two(f, "Div", two(f, "Mul", rate, second), first), rate);
  rate = cmz_build_cast(f.m, f.n, rate, cmz_value_get(f.m, x)->type.dtype);
  cmz_vid size = by(f, "Add", root(f, s[2]), cmz_node_float(n, "epsilon", 1e-6));
  cmz_vid next = two(f, "Sub", x, two(f, "Mul", rate, two(f, "Div", s[1], size)));
  s[0] = after == 0 ? next : by(f, "Mul", next, 1 - after);
}

static void momentum(frame f, const cmz_node *n, cmz_vid r, cmz_vid t, cmz_vid x, cmz_vid g,
                     cmz_vid *s) {
  double alpha = cmz_node_float(n, "alpha", 0), beta = cmz_node_float(n, "beta", 0);
  cmz_vid weight =
      choose(f, t, cmz_build_scalar_like(f.m, f.n, x, beta), cmz_build_scalar_like(f.m, f.n, x, 1));
  s[1] = two(f, "Add", by(f, "Mul", s[1], alpha), two(f, "Mul", weight, g));
  cmz_vid way = s[1];
  if (!strcmp(cmz_node_string(n, "mode", "standard"), "nesterov"))
    way = two(f, "Add", g, by(f, "Mul", s[1], alpha));
  r = cmz_build_cast(f.m, f.n, r, cmz_value_get(f.m, x)->type.dtype);
  s[0] = two(f, "Sub", x, two(f, "Mul", r, way));
}

static cmz_status expand(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  uint32_t groups = is_adam(&node) ? 4 : 3, count = (node.input_count - 2) / groups;
  frame f = {m, n};
  for (uint32_t i = 0; i < count; i++) {
    cmz_vid r = node.inputs[0], t = node.inputs[1], x = node.inputs[2 + i], s[3] = {0};
    for (uint32_t g = 2; g < groups; g++) s[g - 1] = node.inputs[2 + g * count + i];
    cmz_vid pull = by(f, "Mul", x, cmz_node_float(&node, "norm_coefficient", 0));
    cmz_vid g = two(f, "Add", pull, node.inputs[2 + count + i]);
    if (!g) return CMZ_E_INTERNAL;
    if (is_adam(&node)) adam(f, &node, r, t, x, g, s);
    else if (node.op->name[0] == 'A') adagrad(f, &node, r, t, x, g, s);
    else momentum(f, &node, r, t, x, g, s);
    for (uint32_t j = 0; j + 1 < groups; j++) {
      if (!s[j]) return CMZ_E_INTERNAL;
      if (node.outputs[j * count + i]) cmz_value_replace_uses(m, node.outputs[j * count + i], s[j]);
    }
  }
  cmz_node_remove(m, n);
  return CMZ_OK;
}

#define STEP(NAME, ATTRIBUTES)                                                                     \
  {                                                                                                \
    .domain = "ai.onnx.preview.training", .name = NAME, .min_inputs = 3, .max_inputs = 255,        \
    .min_outputs = 1, .max_outputs = 255, .since = 1, .infer = infer, .expand = expand,            \
    .attributes = ATTRIBUTES                                                                       \
  }

const cmz_op cmz_ops_training[] = {
    STEP("Adagrad", "decay_factor:f epsilon:f norm_coefficient:f"),
    STEP("Adam", "alpha:f beta:f epsilon:f norm_coefficient:f norm_coefficient_post:f"),
    STEP("Momentum", "alpha:f! beta:f! mode:s! norm_coefficient:f!"),
    {.name = NULL},
};
