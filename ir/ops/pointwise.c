/* pointwise.c - functions of one number without attributes: Abs … Tanh.
 * In: nodes with one input. Out: types, reference values, expressions. Always holds: one row of
 * UNARY_OPS per operator, from which both tables below are made. */
#include "ops.h"

static double f_neg(double x) { return -x; }
static double f_sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
static double f_sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
static double f_reciprocal(double x) { return 1 / x; }
static double f_relu(double x) { return x < 0 ? 0 : x; }
static double f_softplus(double x) { return fmax(x, 0) + log1p(exp(-fabs(x))); }
static double f_softsign(double x) { return x / (1 + fabs(x)); }
static double f_mish(double x) { return x * tanh(f_softplus(x)); }
static double f_hard_swish(double x) { return x * fmax(0, fmin(1, x / 6 + 0.5)); }

static int64_t i_abs(int64_t x) { return x < 0 ? (int64_t)(0 - (uint64_t)x) : x; }
static int64_t i_neg(int64_t x) { return (int64_t)(0 - (uint64_t)x); }
static int64_t i_sign(int64_t x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }
static int64_t i_same(int64_t x) { return x; }
static int64_t i_relu(int64_t x) { return x < 0 ? 0 : x; }

static cmz_expr x_reciprocal(cmz_kernel *k, cmz_expr x) {
  return cmz_x2(k, CMZ_X_DIV, cmz_x_like(k, x, 1), x);
}
static cmz_expr x_relu(cmz_kernel *k, cmz_expr x) {
  return cmz_x2(k, CMZ_X_MAX, x, cmz_x_like(k, x, 0));
}
/* max(x, 0) + log(1 + exp(-|x|)): no overflow. */
static cmz_expr x_softplus(cmz_kernel *k, cmz_expr x) {
  cmz_expr e = cmz_x1(k, CMZ_X_EXP, cmz_x1(k, CMZ_X_NEG, cmz_x1(k, CMZ_X_ABS, x)));
  return cmz_x_add(k, x_relu(k, x), cmz_x1(k, CMZ_X_LOG, cmz_x_add(k, cmz_x_like(k, x, 1), e)));
}
static cmz_expr x_softsign(cmz_kernel *k, cmz_expr x) {
  return cmz_x2(k, CMZ_X_DIV, x, cmz_x_add(k, cmz_x_like(k, x, 1), cmz_x1(k, CMZ_X_ABS, x)));
}
static cmz_expr x_mish(cmz_kernel *k, cmz_expr x) {
  return cmz_x_mul(k, x, cmz_x1(k, CMZ_X_TANH, x_softplus(k, x)));
}
static cmz_expr x_hard_swish(cmz_kernel *k, cmz_expr x) {
  cmz_expr t = cmz_x_add(k, cmz_x_mul(k, x, cmz_x_like(k, x, 1.0 / 6)), cmz_x_like(k, x, 0.5));
  return cmz_x_mul(k, x, cmz_x_clamp(k, t, cmz_x_like(k, x, 0), cmz_x_like(k, x, 1)));
}

typedef struct unary_row {
  const char *name;
  cmz_expr_op op; /* when `build` is NULL */
  double (*f)(double);
  int64_t (*i)(int64_t); /* NULL: floats only */
  cmz_expr (*build)(cmz_kernel *k, cmz_expr x);
} unary_row;

/* One row an operator: name, what computes its elements (CMZ_X_COUNT: the builder at the end), the
 * reference for floats and for integers (NULL: floats only), the builder or NULL, flags, and
 * attributes that models may give it. */
/* clang-format off */
#define UNARY_OPS(X) \
  X("Abs", CMZ_X_ABS, fabs, i_abs, NULL, CMZ_OP_CHEAP, INPUTS_CONSUMED) \
  X("Neg", CMZ_X_NEG, f_neg, i_neg, NULL, CMZ_OP_CHEAP, INPUTS_CONSUMED) \
  X("Sign", CMZ_X_SIGN, f_sign, i_sign, NULL, CMZ_OP_CHEAP) \
  X("Floor", CMZ_X_FLOOR, floor, i_same, NULL, CMZ_OP_CHEAP, INPUTS_CONSUMED) \
  X("Ceil", CMZ_X_CEIL, ceil, i_same, NULL, CMZ_OP_CHEAP, INPUTS_CONSUMED) \
  X("Round", CMZ_X_ROUND_EVEN, nearbyint, i_same, NULL, CMZ_OP_CHEAP) \
  X("Sqrt", CMZ_X_SQRT, sqrt, NULL, NULL, 0, INPUTS_CONSUMED) \
  X("Exp", CMZ_X_EXP, exp, NULL, NULL, 0, INPUTS_CONSUMED) \
  X("Log", CMZ_X_LOG, log, NULL, NULL, 0, INPUTS_CONSUMED) \
  X("Sin", CMZ_X_SIN, sin, NULL, NULL, 0) \
  X("Cos", CMZ_X_COS, cos, NULL, NULL, 0) \
  X("Tan", CMZ_X_TAN, tan, NULL, NULL, 0) \
  X("Asin", CMZ_X_ASIN, asin, NULL, NULL, 0) \
  X("Acos", CMZ_X_ACOS, acos, NULL, NULL, 0) \
  X("Atan", CMZ_X_ATAN, atan, NULL, NULL, 0) \
  X("Sinh", CMZ_X_SINH, sinh, NULL, NULL, 0) \
  X("Cosh", CMZ_X_COSH, cosh, NULL, NULL, 0) \
  X("Tanh", CMZ_X_TANH, tanh, NULL, NULL, 0, INPUTS_CONSUMED) \
  X("Asinh", CMZ_X_ASINH, asinh, NULL, NULL, 0) \
  X("Acosh", CMZ_X_ACOSH, acosh, NULL, NULL, 0) \
  X("Atanh", CMZ_X_ATANH, atanh, NULL, NULL, 0) \
  X("Erf", CMZ_X_ERF, erf, NULL, NULL, 0) \
  X("Sigmoid", CMZ_X_SIGMOID, f_sigmoid, NULL, NULL, 0, INPUTS_CONSUMED) \
  X("Reciprocal", CMZ_X_COUNT, f_reciprocal, NULL, x_reciprocal, 0, INPUTS_CONSUMED) \
  X("Relu", CMZ_X_COUNT, f_relu, i_relu, x_relu, CMZ_OP_CHEAP, INPUTS_CONSUMED) \
  X("Softplus", CMZ_X_COUNT, f_softplus, NULL, x_softplus, 0) \
  X("Softsign", CMZ_X_COUNT, f_softsign, NULL, x_softsign, 0) \
  X("Mish", CMZ_X_COUNT, f_mish, NULL, x_mish, 0) \
  X("HardSwish", CMZ_X_COUNT, f_hard_swish, NULL, x_hard_swish, CMZ_OP_CHEAP)
/* clang-format on */
#define INPUTS_CONSUMED .attributes = "consumed_inputs:I<6"

#define BEHAVIOUR(NAME, OP, F, I, BUILD, ...) {NAME, OP, F, I, BUILD},
static const unary_row rows[] = {UNARY_OPS(BEHAVIOUR)};

static const unary_row *row_of(const cmz_node *n) {
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++)
    if (!strcmp(rows[i].name, n->op->name)) return &rows[i];
  return &rows[0]; /* not reached: both tables have the same names */
}

static cmz_scalar scalar_unary(const cmz_scalar_call *call, const cmz_scalar *args) {
  const unary_row *row = call->user;
  if (call->is_float) return (cmz_scalar){.f = row->f(args[0].f)};
  if (cmz_dtype_info(call->in)->class_ != CMZ_CLASS_SIGNED && row->i != i_neg) {
    if (row->i == i_sign) return (cmz_scalar){.i = args[0].i != 0};
    return args[0];
  }
  return (cmz_scalar){.i = row->i(args[0].i)};
}

static cmz_status eval_unary(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  if (!cmz_dtype_is_float(inputs[0].dtype) && !row_of(n)->i)
    return cmz_eval_fail(e, "is not defined for %s", cmz_dtype_info(inputs[0].dtype)->name);
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_unary, row_of(n));
}

static cmz_dim dims_unary(cmz_module *m, cmz_nid n, const cmz_dim *args, uint32_t count) {
  (void)count;
  cmz_dim zero = cmz_dim_const(m->dims, 0);
  int64_t (*i)(int64_t) = row_of(cmz_node_get(m, n))->i;
  if (i == i_same) return args[0];
  if (i == i_neg) return cmz_dim_sub(m->dims, zero, args[0]);
  if (i == i_relu) return cmz_dim_max(m->dims, args[0], zero);
  if (i == i_abs) return cmz_dim_max(m->dims, args[0], cmz_dim_sub(m->dims, zero, args[0]));
  return CMZ_DIM_NONE;
}

static cmz_status infer_unary(cmz_module *m, cmz_nid n) {
  cmz_dtype dtype = cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype;
  const unary_row *row = row_of(cmz_node_get(m, n));
  if (!cmz_dtype_is_float(dtype) && !(row->i && cmz_dtype_is_int(dtype)))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "is not defined for elements of type %s",
                         cmz_dtype_info(dtype)->name);
  CMZ_TRY(cmz_infer_unary(m, n));
  if (row->i) cmz_infer_elements(m, n, dims_unary);
  return CMZ_OK;
}

static cmz_expr describe_unary(cmz_describe *d, const cmz_node *n, uint32_t output,
                               const cmz_expr *idx) {
  (void)output;
  cmz_kernel *k = cmz_describe_kernel(d);
  const unary_row *row = row_of(n);
  cmz_dtype dtype = cmz_input_type(cmz_describe_module(d), n, 0)->dtype;
  cmz_expr x = cmz_describe_input(d, 0, idx);
  if (!x) return 0;
  bool is_float = cmz_dtype_is_float(dtype),
       is_signed = cmz_dtype_info(dtype)->class_ == CMZ_CLASS_SIGNED;
  if (!is_float && row->i == i_same) return x;
  if (!is_float && !is_signed && (row->i == i_abs || row->i == i_relu)) return x;
  if (!is_float && !is_signed && row->i == i_sign)
    return cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, x, cmz_x_like(k, x, 0)), cmz_x_like(k, x, 0),
                        cmz_x_like(k, x, 1));
  return row->build ? row->build(k, x) : cmz_x1(k, row->op, x);
}

#define OPERATOR(NAME, OP, F, I, BUILD, FLAGS, ...)                                                \
  {.domain = "",                                                                                   \
   .name = NAME,                                                                                   \
   .min_inputs = 1,                                                                                \
   .max_inputs = 1,                                                                                \
   .min_outputs = 1,                                                                               \
   .max_outputs = 1,                                                                               \
   .since = 1,                                                                                     \
   .flags = CMZ_OP_POINTWISE | (FLAGS),                                                            \
   .infer = infer_unary,                                                                           \
   .eval = eval_unary,                                                                             \
   .describe = describe_unary,                                                                     \
   ##__VA_ARGS__},

const cmz_op cmz_ops_pointwise[] = {UNARY_OPS(OPERATOR){.name = NULL}};
