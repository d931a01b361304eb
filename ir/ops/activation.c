/* activation.c - functions of one number with attributes (LeakyRelu … Gelu), Clip, PRelu, and the
 * com.microsoft relatives. In: nodes with one data input. Out: types, values, expressions. Always
 * holds: one row of `rows` per operator; the reference value and the expression stand side by side.
 */
#include "ops.h"

/* ---- functions with up to three numbers from attributes ---- */

typedef struct activation {
  const char *name;
  struct {
    const char *attribute;
    double otherwise;
  } numbers[2];
  double (*f)(const double *a, double x);
  cmz_expr (*build)(cmz_kernel *k, const double *a, cmz_expr x);
} activation;

static cmz_expr num(cmz_kernel *k, cmz_expr x, double v) { return cmz_x_like(k, x, v); }
static cmz_expr scaled(cmz_kernel *k, cmz_expr x, double a) {
  return cmz_x_mul(k, x, num(k, x, a));
}
static cmz_expr plus(cmz_kernel *k, cmz_expr x, double a) { return cmz_x_add(k, x, num(k, x, a)); }
static cmz_expr below(cmz_kernel *k, cmz_expr x, double a) {
  return cmz_x2(k, CMZ_X_LT, x, num(k, x, a));
}
static cmz_expr above(cmz_kernel *k, cmz_expr x, double a) {
  return cmz_x2(k, CMZ_X_LT, num(k, x, a), x);
}
static cmz_expr clamped(cmz_kernel *k, cmz_expr x, double low, double high) {
  return cmz_x_clamp(k, x, num(k, x, low), num(k, x, high));
}
/* exp(x) - 1: near 0 it is as accurate as the result needs in absolute terms. */
static cmz_expr exp_minus_one(cmz_kernel *k, cmz_expr x) {
  return plus(k, cmz_x1(k, CMZ_X_EXP, x), -1);
}
static cmz_expr softplus(cmz_kernel *k, cmz_expr x) {
  cmz_expr e = cmz_x1(k, CMZ_X_EXP, cmz_x1(k, CMZ_X_NEG, cmz_x1(k, CMZ_X_ABS, x)));
  cmz_expr positive = cmz_x2(k, CMZ_X_MAX, x, num(k, x, 0));
  return cmz_x_add(k, positive, cmz_x1(k, CMZ_X_LOG, plus(k, e, 1)));
}
static double f_softplus(double x) { return fmax(x, 0) + log1p(exp(-fabs(x))); }
static double f_sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }

static double f_leaky(const double *a, double x) { return x < 0 ? a[0] * x : x; }
static cmz_expr x_leaky(cmz_kernel *k, const double *a, cmz_expr x) {
  return cmz_x_select(k, below(k, x, 0), scaled(k, x, a[0]), x);
}
static double f_elu(const double *a, double x) { return x < 0 ? a[0] * expm1(x) : x; }
static cmz_expr x_elu(cmz_kernel *k, const double *a, cmz_expr x) {
  return cmz_x_select(k, below(k, x, 0), scaled(k, exp_minus_one(k, x), a[0]), x);
}
static double f_selu(const double *a, double x) { return a[1] * (x > 0 ? x : a[0] * expm1(x)); }
static cmz_expr x_selu(cmz_kernel *k, const double *a, cmz_expr x) {
  cmz_expr negative = scaled(k, exp_minus_one(k, x), a[0] * a[1]);
  return cmz_x_select(k, above(k, x, 0), scaled(k, x, a[1]), negative);
}
static double f_celu(const double *a, double x) {
  return fmax(0, x) + fmin(0, a[0] * expm1(x / a[0]));
}
static cmz_expr x_celu(cmz_kernel *k, const double *a, cmz_expr x) {
  cmz_expr negative = scaled(k, exp_minus_one(k, scaled(k, x, 1 / a[0])), a[0]);
  return cmz_x_select(k, below(k, x, 0), negative, x);
}
static double f_threshold(const double *a, double x) { return x > a[0] ? x : 0; }
static cmz_expr x_threshold(cmz_kernel *k, const double *a, cmz_expr x) {
  return cmz_x_select(k, above(k, x, a[0]), x, num(k, x, 0));
}
static double f_hard_sigmoid(const double *a, double x) {
  return fmax(0, fmin(1, a[0] * x + a[1]));
}
static cmz_expr x_hard_sigmoid(cmz_kernel *k, const double *a, cmz_expr x) {
  return clamped(k, plus(k, scaled(k, x, a[0]), a[1]), 0, 1);
}
static double f_shrink(const double *a, double x) {
  return x < -a[1] ? x + a[0] : x > a[1] ? x - a[0] : 0;
}
static cmz_expr x_shrink(cmz_kernel *k, const double *a, cmz_expr x) {
  cmz_expr high = cmz_x_select(k, above(k, x, a[1]), plus(k, x, -a[0]), num(k, x, 0));
  return cmz_x_select(k, below(k, x, -a[1]), plus(k, x, a[0]), high);
}
static double f_swish(const double *a, double x) { return x * f_sigmoid(a[0] * x); }
static cmz_expr x_swish(cmz_kernel *k, const double *a, cmz_expr x) {
  return cmz_x_mul(k, x, cmz_x1(k, CMZ_X_SIGMOID, scaled(k, x, a[0])));
}
static double f_gelu(const double *a, double x) {
  return (void)a, 0.5 * x * (1 + erf(x * M_SQRT1_2));
}
static cmz_expr x_gelu(cmz_kernel *k, const double *a, cmz_expr x) {
  (void)a;
  cmz_expr e = cmz_x1(k, CMZ_X_ERF, scaled(k, x, M_SQRT1_2));
  return cmz_x_mul(k, scaled(k, x, 0.5), plus(k, e, 1));
}
static double f_gelu_tanh(const double *a, double x) {
  return (void)a, 0.5 * x * (1 + tanh(sqrt(M_2_PI) * (x + 0.044715 * x * x * x)));
}
static cmz_expr x_gelu_tanh(cmz_kernel *k, const double *a, cmz_expr x) {
  (void)a;
  cmz_expr inner = plus(k, scaled(k, cmz_x_mul(k, x, x), 0.044715), 1);
  cmz_expr t = cmz_x1(k, CMZ_X_TANH, scaled(k, cmz_x_mul(k, x, inner), sqrt(M_2_PI)));
  return cmz_x_mul(k, scaled(k, x, 0.5), plus(k, t, 1));
}
static double f_affine(const double *a, double x) { return a[0] * x + a[1]; }
static cmz_expr x_affine(cmz_kernel *k, const double *a, cmz_expr x) {
  return plus(k, scaled(k, x, a[0]), a[1]);
}
static double f_scaled_tanh(const double *a, double x) { return a[0] * tanh(a[1] * x); }
static cmz_expr x_scaled_tanh(cmz_kernel *k, const double *a, cmz_expr x) {
  return scaled(k, cmz_x1(k, CMZ_X_TANH, scaled(k, x, a[1])), a[0]);
}
static double f_parametric_softplus(const double *a, double x) {
  return a[0] * f_softplus(a[1] * x);
}
static cmz_expr x_parametric_softplus(cmz_kernel *k, const double *a, cmz_expr x) {
  return scaled(k, softplus(k, scaled(k, x, a[1])), a[0]);
}

static const activation rows[] = {
    {"LeakyRelu", {{"alpha", 0.01}}, f_leaky, x_leaky},
    {"Elu", {{"alpha", 1}}, f_elu, x_elu},
    {"Selu",
     {{"alpha", 1.67326319217681884765625}, {"gamma", 1.05070102214813232421875}},
     f_selu,
     x_selu},
    {"Celu", {{"alpha", 1}}, f_celu, x_celu},
    {"ThresholdedRelu", {{"alpha", 1}}, f_threshold, x_threshold},
    {"HardSigmoid", {{"alpha", 0.2}, {"beta", 0.5}}, f_hard_sigmoid, x_hard_sigmoid},
    {"Shrink", {{"bias", 0}, {"lambd", 0.5}}, f_shrink, x_shrink},
    {"Swish", {{"alpha", 1}}, f_swish, x_swish},
    {"QuickGelu", {{"alpha", 1.702}}, f_swish, x_swish},
    {"Affine", {{"alpha", 1}, {"beta", 0}}, f_affine, x_affine},
    {"Scale", {{"scale", 1}}, f_affine, x_affine},
    {"ScaledTanh", {{"alpha", 1}, {"beta", 1}}, f_scaled_tanh, x_scaled_tanh},
    {"ParametricSoftplus",
     {{"alpha", 1}, {"beta", 1}},
     f_parametric_softplus,
     x_parametric_softplus},
    {"Gelu", {{NULL, 0}}, f_gelu, x_gelu},
};
static const activation gelu_tanh = {"Gelu", {{NULL, 0}}, f_gelu_tanh, x_gelu_tanh};

/* The row of a node and its numbers. */
static const activation *row_of(const cmz_node *n, double *a) {
  const activation *row = &rows[0];
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++)
    if (!strcmp(rows[i].name, n->op->name)) row = &rows[i];
  if (!strcmp(row->name, "Gelu") && !strcmp(cmz_node_string(n, "approximate", "none"), "tanh"))
    row = &gelu_tanh;
  for (int i = 0; i < 2; i++)
    a[i] = row->numbers[i].attribute
               ? cmz_node_float(n, row->numbers[i].attribute, row->numbers[i].otherwise)
               : 0;
  return row;
}

typedef struct activation_call {
  const activation *row;
  double a[2];
} activation_call;

static cmz_scalar scalar_activation(const cmz_scalar_call *call, const cmz_scalar *args) {
  const activation_call *c = call->user;
  double y = c->row->f(c->a, args[0].f);
  return (cmz_scalar){.f = y, .i = (int64_t)y};
}

static cmz_status eval_activation(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                  cmz_array *outputs) {
  activation_call call;
  call.row = row_of(n, call.a);
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_activation, &call);
}

static cmz_expr describe_activation(cmz_describe *d, const cmz_node *n, uint32_t output,
                                    const cmz_expr *idx) {
  (void)output;
  cmz_kernel *k = cmz_describe_kernel(d);
  double a[2];
  const activation *row = row_of(n, a);
  cmz_expr x = cmz_describe_input(d, 0, idx);
  if (!x) return 0;
  cmz_dtype own = cmz_x_dtype(k, x);
  if (cmz_dtype_is_float(own)) return row->build(k, a, x);
  return cmz_x_cast(k, row->build(k, a, cmz_x_cast(k, x, CMZ_F64)), own);
}

static cmz_status infer_activation(cmz_module *m, cmz_nid n) {
  cmz_dtype dtype = cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype;
  bool shrink = cmz_node_get(m, n)->op->name[1] == 'h' && cmz_dtype_is_int(dtype);
  if (!cmz_dtype_is_float(dtype) && !shrink)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "is not defined for elements of type %s",
                         cmz_dtype_info(dtype)->name);
  return cmz_infer_unary(m, n);
}

/* ---- PRelu ---- */

static cmz_scalar scalar_prelu(const cmz_scalar_call *call, const cmz_scalar *args) {
  if (call->is_float) return (cmz_scalar){.f = args[0].f < 0 ? args[0].f * args[1].f : args[0].f};
  bool negative = cmz_dtype_info(call->in)->class_ == CMZ_CLASS_SIGNED && args[0].i < 0;
  return (cmz_scalar){.i = negative ? (int64_t)((uint64_t)args[0].i * (uint64_t)args[1].i)
                                    : args[0].i};
}

static cmz_status eval_prelu(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_prelu, NULL);
}

/* Before opset 7 a slope per channel lay along axis 1; inference, which knows the ranks, acts on
 * it. */
static cmz_status normalize_prelu(cmz_module *m, cmz_nid n) {
  uint32_t opset = cmz_node_get(m, n)->opset;
  if (opset && opset < 7) cmz_node_set_int(m, n, "along_channels", 1);
  return CMZ_OK;
}

static cmz_status infer_prelu(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_type x = *cmz_ops_type(m, node->inputs[0]), slope = *cmz_ops_type(m, node->inputs[1]);
  bool along = cmz_node_int(node, "along_channels", 0) != 0;
  cmz_node_remove_attr(m, n, "along_channels");
  if (along && slope.rank == 1 && x.rank > 1 && !cmz_dim_is(m->dims, slope.shape[0], 1)) {
    cmz_dim shape[CMZ_MAX_RANK];
    for (uint32_t i = 0; i + 1 < x.rank; i++)
      shape[i] = i ? cmz_dim_const(m->dims, 1) : slope.shape[0];
    cmz_vid v = cmz_build_reshape(m, n, cmz_ops_input(m, n, 1), shape, x.rank - 1);
    if (!v) return CMZ_E_INTERNAL;
    cmz_node_set_input(m, n, 1, v);
  }
  if (slope.rank > x.rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the slope has more dimensions than the input");
  return cmz_infer_pointwise(m, n);
}

static cmz_expr describe_prelu(cmz_describe *d, const cmz_node *n, uint32_t output,
                               const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr x[2];
  if (!cmz_describe_broadcast_all(d, n, output, idx, x, 2)) return 0;
  return cmz_x_select(k, cmz_x2(k, CMZ_X_LT, x[0], num(k, x[0], 0)), cmz_x_mul(k, x[0], x[1]),
                      x[0]);
}

/* ---- Clip ---- */

/* Before opset 11 the bounds were attributes; they become inputs once the element type is known. */
static cmz_status infer_clip(cmz_module *m, cmz_nid n) {
  static const char *const names[] = {"min", "max"};
  cmz_vid x = cmz_ops_input(m, n, 0);
  for (uint32_t i = 0; i < 2; i++) {
    if (!cmz_node_attr(cmz_node_get(m, n), names[i])) continue;
    double v = cmz_node_float(cmz_node_get(m, n), names[i], 0);
    cmz_node_set_input(m, n, i + 1, cmz_build_scalar_like(m, n, x, v));
    cmz_node_remove_attr(m, n, names[i]);
  }
  cmz_dtype dtype = cmz_ops_type(m, x)->dtype;
  for (uint32_t i = 1; i < 3; i++) {
    cmz_vid bound = cmz_ops_input(m, n, i);
    if (!bound) continue;
    if (cmz_ops_type(m, bound)->dtype != dtype)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "a bound has another element type than the input");
    if (cmz_dim_is_const(m->dims, cmz_value_element_product(m, bound), &(int64_t){0}) &&
        !cmz_dim_is(m->dims, cmz_value_element_product(m, bound), 1))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "a bound is not a single number");
  }
  return cmz_infer_unary(m, n);
}

static cmz_status eval_clip(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  const cmz_array *in = &inputs[0];
  bool low = n->input_count > 1 && inputs[1].data, high = n->input_count > 2 && inputs[2].data;
  bool is_float = cmz_dtype_is_float(in->dtype),
       is_unsigned = cmz_dtype_info(in->dtype)->class_ == CMZ_CLASS_UNSIGNED;
  CMZ_TRY(cmz_eval_output_like(e, &outputs[0], in));
  int64_t count = (int64_t)cmz_array_count(in);
  for (int64_t i = 0; i < count; i++) {
    if (is_float) {
      double x = cmz_get(in, i);
      if (low && x < cmz_get(&inputs[1], 0)) x = cmz_get(&inputs[1], 0);
      if (high && x > cmz_get(&inputs[2], 0)) x = cmz_get(&inputs[2], 0);
      cmz_set(&outputs[0], i, x);
      continue;
    }
    int64_t x = cmz_array_i64(in, (size_t)i), a = low ? cmz_array_i64(&inputs[1], 0) : 0;
    int64_t b = high ? cmz_array_i64(&inputs[2], 0) : 0;
    if (low && (is_unsigned ? (uint64_t)x < (uint64_t)a : x < a)) x = a;
    if (high && (is_unsigned ? (uint64_t)x > (uint64_t)b : x > b)) x = b;
    cmz_array_set_i64(&outputs[0], (size_t)i, x);
  }
  return CMZ_OK;
}

static cmz_expr describe_clip(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  (void)output;
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr x = cmz_describe_input(d, 0, idx), zero[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < CMZ_MAX_RANK; i++) zero[i] = cmz_x_index(k, 0);
  for (uint32_t i = 1; i < 3; i++) {
    if (!x) return 0;
    if (!cmz_node_input(n, i)) continue;
    cmz_expr bound = cmz_describe_input(d, i, zero);
    x = bound ? cmz_x2(k, i == 1 ? CMZ_X_MAX : CMZ_X_MIN, x, bound) : 0;
  }
  return x;
}

/* ---- com.microsoft: a bias before the activation ---- */

static cmz_status infer_biased(cmz_module *m, cmz_nid n) { return cmz_infer_pointwise(m, n); }

static cmz_status expand_biased(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  bool fast = node->op->name[0] == 'F';
  cmz_vid x = node->inputs[0], bias = cmz_node_input(node, 1);
  if (bias) x = cmz_build2(m, n, "Add", x, bias);
  cmz_attr approximate = cmz_attr_string("approximate", fast ? "tanh" : "none");
  cmz_vid v = cmz_build_with(m, n, "Gelu", 1, &x, 1, &approximate);
  if (!v) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

#define ACTIVATION(DOMAIN, NAME, SINCE, FLAGS, ...)                                                \
  {                                                                                                \
    .domain = DOMAIN, .name = NAME, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,            \
    .max_outputs = 1, .since = SINCE, .flags = CMZ_OP_POINTWISE | (FLAGS),                         \
    .infer = infer_activation, .eval = eval_activation, .describe = describe_activation,           \
    ##__VA_ARGS__                                                                                  \
  }

const cmz_op cmz_ops_activation[] = {
    ACTIVATION("", "LeakyRelu", 1, CMZ_OP_CHEAP, .attributes = "alpha:f consumed_inputs:I<6"),
    ACTIVATION("", "Elu", 1, 0, .attributes = "alpha:f consumed_inputs:I<6"),
    ACTIVATION("", "Selu", 1, 0, .attributes = "alpha:f consumed_inputs:I<6 gamma:f"),
    ACTIVATION("", "Celu", 12, 0, .attributes = "alpha:f"),
    ACTIVATION("", "ThresholdedRelu", 1, CMZ_OP_CHEAP, .attributes = "alpha:f"),
    ACTIVATION("", "HardSigmoid", 1, CMZ_OP_CHEAP,
               .attributes = "alpha:f beta:f consumed_inputs:I<6"),
    ACTIVATION("", "Shrink", 9, CMZ_OP_CHEAP, .attributes = "bias:f lambd:f"),
    ACTIVATION("", "Swish", 24, 0, .attributes = "alpha:f"),
    ACTIVATION("", "Gelu", 20, 0, .attributes = "approximate:s"),
    ACTIVATION("", "Affine", 1, CMZ_OP_CHEAP, .attributes = "alpha:f beta:f"),
    ACTIVATION("", "Scale", 1, CMZ_OP_CHEAP, .attributes = "scale:f"),
    ACTIVATION("", "ScaledTanh", 1, 0, .attributes = "alpha:f beta:f"),
    ACTIVATION("", "ParametricSoftplus", 1, 0, .attributes = "alpha:f beta:f"),
    ACTIVATION("com.microsoft", "Gelu", 1, 0),
    ACTIVATION("com.microsoft", "QuickGelu", 1, 0, .attributes = "alpha:f"),
    {.domain = "com.microsoft",
     .name = "BiasGelu",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .infer = infer_biased,
     .expand = expand_biased},
    {.domain = "com.microsoft",
     .name = "FastGelu",
     .min_inputs = 1,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .infer = infer_biased,
     .expand = expand_biased},
    {.domain = "",
     .name = "PRelu",
     .operands = "TT",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_POINTWISE | CMZ_OP_CHEAP,
     .normalize = normalize_prelu,
     .infer = infer_prelu,
     .eval = eval_prelu,
     .describe = describe_prelu,
     .attributes = "consumed_inputs:I<6"},
    {.domain = "",
     .name = "Clip",
     .min_inputs = 1,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_POINTWISE | CMZ_OP_CHEAP,
     .infer = infer_clip,
     .eval = eval_clip,
     .describe = describe_clip,
     .attributes = "consumed_inputs:I<6 max:f<11 min:f<11"},
    {.name = NULL},
};
