/* pointwise.c - functions of one number without attributes: Abs … Tanh.
 * In: nodes with one input. Out: types, reference values, expressions. Always holds: one row of
 * `rows` per operator, which the operator table names in the same spelling. */
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

static const unary_row rows[] = {
    {"Abs", CMZ_X_ABS, fabs, i_abs, NULL},
    {"Neg", CMZ_X_NEG, f_neg, i_neg, NULL},
    {"Sign", CMZ_X_SIGN, f_sign, i_sign, NULL},
    {"Floor", CMZ_X_FLOOR, floor, i_same, NULL},
    {"Ceil", CMZ_X_CEIL, ceil, i_same, NULL},
    {"Round", CMZ_X_ROUND_EVEN, nearbyint, i_same, NULL},
    {"Sqrt", CMZ_X_SQRT, sqrt, NULL, NULL},
    {"Exp", CMZ_X_EXP, exp, NULL, NULL},
    {"Log", CMZ_X_LOG, log, NULL, NULL},
    {"Sin", CMZ_X_SIN, sin, NULL, NULL},
    {"Cos", CMZ_X_COS, cos, NULL, NULL},
    {"Tan", CMZ_X_TAN, tan, NULL, NULL},
    {"Asin", CMZ_X_ASIN, asin, NULL, NULL},
    {"Acos", CMZ_X_ACOS, acos, NULL, NULL},
    {"Atan", CMZ_X_ATAN, atan, NULL, NULL},
    {"Sinh", CMZ_X_SINH, sinh, NULL, NULL},
    {"Cosh", CMZ_X_COSH, cosh, NULL, NULL},
    {"Tanh", CMZ_X_TANH, tanh, NULL, NULL},
    {"Asinh", CMZ_X_ASINH, asinh, NULL, NULL},
    {"Acosh", CMZ_X_ACOSH, acosh, NULL, NULL},
    {"Atanh", CMZ_X_ATANH, atanh, NULL, NULL},
    {"Erf", CMZ_X_ERF, erf, NULL, NULL},
    {"Sigmoid", CMZ_X_SIGMOID, f_sigmoid, NULL, NULL},
    {"Reciprocal", CMZ_X_COUNT, f_reciprocal, NULL, x_reciprocal},
    {"Relu", CMZ_X_COUNT, f_relu, i_relu, x_relu},
    {"Softplus", CMZ_X_COUNT, f_softplus, NULL, x_softplus},
    {"Softsign", CMZ_X_COUNT, f_softsign, NULL, x_softsign},
    {"Mish", CMZ_X_COUNT, f_mish, NULL, x_mish},
    {"HardSwish", CMZ_X_COUNT, f_hard_swish, NULL, x_hard_swish},
};

static const unary_row *row_of(const cmz_node *n) {
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++)
    if (!strcmp(rows[i].name, n->op->name)) return &rows[i];
  return &rows[0]; /* not reached: the table below has the same names */
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

#define UNARY(NAME, FLAGS, ...)                                                                    \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,                \
    .max_outputs = 1, .since = 1, .flags = CMZ_OP_POINTWISE | (FLAGS), .infer = infer_unary,       \
    .eval = eval_unary, .describe = describe_unary, ##__VA_ARGS__                                  \
  }

const cmz_op cmz_ops_pointwise[] = {
    UNARY("Abs", CMZ_OP_CHEAP, .attributes = "consumed_inputs:I<6"),
    UNARY("Neg", CMZ_OP_CHEAP, .attributes = "consumed_inputs:I<6"),
    UNARY("Sign", CMZ_OP_CHEAP),
    UNARY("Floor", CMZ_OP_CHEAP, .attributes = "consumed_inputs:I<6"),
    UNARY("Ceil", CMZ_OP_CHEAP, .attributes = "consumed_inputs:I<6"),
    UNARY("Round", CMZ_OP_CHEAP),
    UNARY("Sqrt", 0, .attributes = "consumed_inputs:I<6"),
    UNARY("Exp", 0, .attributes = "consumed_inputs:I<6"),
    UNARY("Log", 0, .attributes = "consumed_inputs:I<6"),
    UNARY("Sin", 0),
    UNARY("Cos", 0),
    UNARY("Tan", 0),
    UNARY("Asin", 0),
    UNARY("Acos", 0),
    UNARY("Atan", 0),
    UNARY("Sinh", 0),
    UNARY("Cosh", 0),
    UNARY("Tanh", 0, .attributes = "consumed_inputs:I<6"),
    UNARY("Asinh", 0),
    UNARY("Acosh", 0),
    UNARY("Atanh", 0),
    UNARY("Erf", 0),
    UNARY("Sigmoid", 0, .attributes = "consumed_inputs:I<6"),
    UNARY("Reciprocal", 0, .attributes = "consumed_inputs:I<6"),
    UNARY("Relu", CMZ_OP_CHEAP, .attributes = "consumed_inputs:I<6"),
    UNARY("Softplus", 0),
    UNARY("Softsign", 0),
    UNARY("Mish", 0),
    UNARY("HardSwish", CMZ_OP_CHEAP),
    {.name = NULL},
};
