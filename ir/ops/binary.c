/* binary.c - arithmetic of two or more numbers: Add … Mean, Pow, Mod, bit operations.
 * In: nodes with broadcast inputs. Out: types, reference values, expressions. Always holds:
 * integers wrap at their stored width; division by zero never traps (its value is unspecified). */
#include "ops.h"

typedef struct number {
  bool is_float, is_unsigned;
} number;

static number number_of(cmz_dtype t) {
  return (number){cmz_dtype_is_float(t), cmz_dtype_info(t)->class_ == CMZ_CLASS_UNSIGNED};
}

/* ---- reference values ---- */

typedef double (*double_binary)(double, double);
typedef int64_t (*int_binary)(int64_t, int64_t, bool is_unsigned);

static double f_add(double a, double b) { return a + b; }
static double f_sub(double a, double b) { return a - b; }
static double f_mul(double a, double b) { return a * b; }
static double f_div(double a, double b) { return a / b; }
static double f_min(double a, double b) { return isnan(a) ? a : isnan(b) ? b : a < b ? a : b; }
static double f_max(double a, double b) { return isnan(a) ? a : isnan(b) ? b : a > b ? a : b; }

static int64_t i_add(int64_t a, int64_t b, bool u) {
  return (void)u, (int64_t)((uint64_t)a + (uint64_t)b);
}
static int64_t i_sub(int64_t a, int64_t b, bool u) {
  return (void)u, (int64_t)((uint64_t)a - (uint64_t)b);
}
static int64_t i_mul(int64_t a, int64_t b, bool u) {
  return (void)u, (int64_t)((uint64_t)a * (uint64_t)b);
}
static int64_t i_div(int64_t a, int64_t b, bool u) {
  if (b == 0) return 0;
  if (u) return (int64_t)((uint64_t)a / (uint64_t)b);
  return b == -1 ? i_sub(0, a, false) : a / b;
}
static int64_t i_min(int64_t a, int64_t b, bool u) {
  return (u ? (uint64_t)a < (uint64_t)b : a < b) ? a : b;
}
static int64_t i_max(int64_t a, int64_t b, bool u) {
  return (u ? (uint64_t)a > (uint64_t)b : a > b) ? a : b;
}
static int64_t i_and(int64_t a, int64_t b, bool u) { return (void)u, a & b; }
static int64_t i_or(int64_t a, int64_t b, bool u) { return (void)u, a | b; }
static int64_t i_xor(int64_t a, int64_t b, bool u) { return (void)u, a ^ b; }

/* ---- sizes ---- */

static cmz_dim d_div(cmz_dims *p, cmz_dim a, cmz_dim b) {
  int64_t x, y, low_a, high_a, low_b, high_b;
  if (cmz_dim_is_const(p, a, &x) && cmz_dim_is_const(p, b, &y) && y != 0 &&
      !(y == -1 && x == INT64_MIN))
    return cmz_dim_const(p, x / y);
  cmz_dim_range(p, a, &low_a, &high_a);
  cmz_dim_range(p, b, &low_b, &high_b);
  return low_a >= 0 && low_b > 0 ? cmz_dim_floordiv(p, a, b) : CMZ_DIM_NONE;
}

/* ---- Add, Sub, Mul, Div, bit operations ---- */

typedef struct binary_row {
  const char *name;
  cmz_expr_op op;
  double_binary f; /* NULL: integers only */
  int_binary i;
  cmz_dim (*d)(cmz_dims *p, cmz_dim a, cmz_dim b);
} binary_row;

static const binary_row rows[] = {
    {"Add", CMZ_X_ADD, f_add, i_add, cmz_dim_add}, {"Sub", CMZ_X_SUB, f_sub, i_sub, cmz_dim_sub},
    {"Mul", CMZ_X_MUL, f_mul, i_mul, cmz_dim_mul}, {"Div", CMZ_X_DIV, f_div, i_div, d_div},
    {"Min", CMZ_X_MIN, f_min, i_min, cmz_dim_min}, {"Max", CMZ_X_MAX, f_max, i_max, cmz_dim_max},
    {"Sum", CMZ_X_ADD, f_add, i_add, cmz_dim_add}, {"Mean", CMZ_X_ADD, f_add, i_add, NULL},
    {"BitwiseAnd", CMZ_X_AND, NULL, i_and, NULL},  {"BitwiseOr", CMZ_X_OR, NULL, i_or, NULL},
    {"BitwiseXor", CMZ_X_XOR, NULL, i_xor, NULL},
};

static const binary_row *row_of(const cmz_node *n) {
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++)
    if (!strcmp(rows[i].name, n->op->name)) return &rows[i];
  return &rows[0];
}

static cmz_scalar scalar_fold(const cmz_scalar_call *call, const cmz_scalar *args) {
  const binary_row *row = call->user;
  number t = number_of(call->in);
  cmz_scalar r = args[0];
  for (uint32_t i = 1; i < call->count; i++) {
    if (t.is_float) r.f = row->f(r.f, args[i].f);
    else r.i = row->i(r.i, args[i].i, t.is_unsigned);
  }
  if (row->name[0] == 'M' && !strcmp(row->name, "Mean")) r.f /= call->count;
  return r;
}

static cmz_status eval_fold(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_fold, row_of(n));
}

static cmz_dim dims_fold(cmz_module *m, cmz_nid n, const cmz_dim *args, uint32_t count) {
  const binary_row *row = row_of(cmz_node_get(m, n));
  cmz_dim r = args[0];
  for (uint32_t i = 1; i < count && r; i++) r = row->d(m->dims, r, args[i]);
  return r;
}

static cmz_status infer_fold(cmz_module *m, cmz_nid n) {
  const binary_row *row = row_of(cmz_node_get(m, n));
  cmz_dtype dtype = cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype;
  if (!(cmz_dtype_is_int(dtype) || (row->f && cmz_dtype_is_float(dtype))))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "is not defined for elements of type %s",
                         cmz_dtype_info(dtype)->name);
  CMZ_TRY(cmz_infer_legacy_axis(m, n));
  CMZ_TRY(cmz_infer_pointwise(m, n));
  if (row->d) cmz_infer_elements(m, n, dims_fold);
  return CMZ_OK;
}

/* Integer division that cannot trap: 0 and -1 never reach the divider. */
static cmz_expr x_int_div(cmz_kernel *k, cmz_expr a, cmz_expr b, bool is_unsigned) {
  int64_t c;
  if (cmz_x_is_int(k, b, &c) && c != 0 && c != -1) return cmz_x2(k, CMZ_X_DIV, a, b);
  cmz_expr one = cmz_x_like(k, b, 1);
  cmz_expr safe = cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, b, cmz_x_like(k, b, 0)), one, b);
  if (is_unsigned) return cmz_x2(k, CMZ_X_DIV, a, safe);
  cmz_expr minus = cmz_x2(k, CMZ_X_EQ, b, cmz_x_like(k, b, -1));
  cmz_expr q = cmz_x2(k, CMZ_X_DIV, a, cmz_x_select(k, minus, one, safe));
  return cmz_x_select(k, minus, cmz_x1(k, CMZ_X_NEG, a), q);
}

static cmz_expr describe_fold(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  const binary_row *row = row_of(n);
  cmz_dtype dtype = cmz_input_type(cmz_describe_module(d), n, 0)->dtype;
  number t = number_of(dtype);
  cmz_expr args[64];
  if (!cmz_describe_broadcast_all(d, n, output, idx, args, CMZ_COUNT_OF(args))) return 0;
  cmz_expr r = args[0];
  for (uint32_t i = 1; i < n->input_count; i++)
    r = row->op == CMZ_X_DIV && !t.is_float ? x_int_div(k, r, args[i], t.is_unsigned)
                                            : cmz_x2(k, row->op, r, args[i]);
  if (!strcmp(row->name, "Mean")) r = cmz_x_mul(k, r, cmz_x_like(k, r, 1.0 / n->input_count));
  return r;
}

/* ---- Mod ---- */

static double floor_fmod(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

static cmz_scalar scalar_mod(const cmz_scalar_call *call, const cmz_scalar *args) {
  bool c_like = *(const int64_t *)call->user != 0;
  number t = number_of(call->in);
  double x = args[0].f, y = args[1].f;
  int64_t a = args[0].i, b = args[1].i;
  if (t.is_float) return (cmz_scalar){.f = c_like ? fmod(x, y) : floor_fmod(x, y)};
  if (b == 0 || (b == -1 && !t.is_unsigned)) return (cmz_scalar){0};
  if (t.is_unsigned) return (cmz_scalar){.i = (int64_t)((uint64_t)a % (uint64_t)b)};
  return (cmz_scalar){.i = c_like ? a % b : cmz_floor_mod(a, b)};
}

static cmz_status eval_mod(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  int64_t c_like = cmz_node_int(n, "fmod", 0);
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_mod, &c_like);
}

static cmz_dim dims_mod(cmz_module *m, cmz_nid n, const cmz_dim *args, uint32_t count) {
  (void)count;
  int64_t low_a, high_a, low_b, high_b;
  cmz_dim_range(m->dims, args[0], &low_a, &high_a);
  cmz_dim_range(m->dims, args[1], &low_b, &high_b);
  if (low_b <= 0 || (cmz_node_int(cmz_node_get(m, n), "fmod", 0) && low_a < 0)) return CMZ_DIM_NONE;
  return cmz_dim_mod(m->dims, args[0], args[1]);
}

static cmz_status infer_mod(cmz_module *m, cmz_nid n) {
  CMZ_TRY(cmz_infer_pointwise(m, n));
  cmz_infer_elements(m, n, dims_mod);
  return CMZ_OK;
}

static cmz_expr x_is_negative(cmz_kernel *k, cmz_expr a) {
  return cmz_x2(k, CMZ_X_LT, a, cmz_x_like(k, a, 0));
}

static cmz_expr describe_mod(cmz_describe *d, const cmz_node *n, uint32_t output,
                             const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  number t = number_of(cmz_input_type(cmz_describe_module(d), n, 0)->dtype);
  bool c_like = cmz_node_int(n, "fmod", 0) != 0;
  cmz_expr x[2];
  if (!cmz_describe_broadcast_all(d, n, output, idx, x, 2)) return 0;
  cmz_expr r;
  if (t.is_float) r = cmz_x2(k, CMZ_X_FMOD, x[0], x[1]);
  else r = cmz_x_sub(k, x[0], cmz_x_mul(k, x_int_div(k, x[0], x[1], t.is_unsigned), x[1]));
  if (c_like || t.is_unsigned) return r;
  cmz_expr zero = cmz_x2(k, CMZ_X_EQ, r, cmz_x_like(k, r, 0));
  cmz_expr same = cmz_x2(k, CMZ_X_EQ, x_is_negative(k, r), x_is_negative(k, x[1]));
  return cmz_x_select(k, cmz_x2(k, CMZ_X_OR, zero, same), r, cmz_x_add(k, r, x[1]));
}

/* ---- Pow ---- */

static cmz_scalar scalar_pow(const cmz_scalar_call *call, const cmz_scalar *args) {
  if (call->is_float) return (cmz_scalar){.f = pow(args[0].f, args[1].f)};
  bool int_exponent = *(const bool *)call->user;
  if (!int_exponent || args[1].i < 0) return (cmz_scalar){.i = (int64_t)pow(args[0].f, args[1].f)};
  uint64_t base = (uint64_t)args[0].i, r = 1;
  for (uint64_t p = (uint64_t)args[1].i; p; p >>= 1, base *= base)
    if (p & 1) r *= base;
  return (cmz_scalar){.i = (int64_t)r};
}

static cmz_status eval_pow(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  bool int_exponent = !cmz_dtype_is_float(inputs[1].dtype);
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_pow, &int_exponent);
}

static cmz_status infer_pow(cmz_module *m, cmz_nid n) {
  CMZ_TRY(cmz_infer_legacy_axis(m, n));
  cmz_dim shape[CMZ_MAX_RANK];
  uint32_t rank;
  CMZ_TRY(cmz_infer_broadcast(m, n, 0, 2, shape, &rank));
  cmz_set_output(m, n, 0, cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype, rank, shape);
  return CMZ_OK;
}

/* X to a small whole power by multiplications. */
static cmz_expr x_power(cmz_kernel *k, cmz_expr x, uint32_t power) {
  cmz_expr r = 0;
  for (cmz_expr base = x; power; power >>= 1) {
    if (power & 1) r = r ? cmz_x_mul(k, r, base) : base;
    if (power > 1) base = cmz_x_mul(k, base, base);
  }
  return r ? r : cmz_x_like(k, x, 1);
}

static cmz_expr describe_pow(cmz_describe *d, const cmz_node *n, uint32_t output,
                             const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_module *m = cmz_describe_module(d);
  cmz_dtype dtype = cmz_input_type(m, n, 0)->dtype;
  bool is_float = cmz_dtype_is_float(dtype),
       int_exponent = !cmz_dtype_is_float(cmz_input_type(m, n, 1)->dtype);
  cmz_expr x[2];
  double p;
  if (!cmz_describe_broadcast_all(d, n, output, idx, x, 2)) return 0;
  if (cmz_const_f64(m, n->inputs[1], &p)) {
    if (p >= 0 && p <= 8 && p == floor(p)) return x_power(k, x[0], (uint32_t)p);
    if (is_float && p == 0.5) return cmz_x1(k, CMZ_X_SQRT, x[0]);
    if (is_float && p == -1) return cmz_x2(k, CMZ_X_DIV, cmz_x_like(k, x[0], 1), x[0]);
    if (is_float && p == -0.5)
      return cmz_x2(k, CMZ_X_DIV, cmz_x_like(k, x[0], 1), cmz_x1(k, CMZ_X_SQRT, x[0]));
  }
  if (is_float) return cmz_x2(k, CMZ_X_POW, x[0], cmz_x_cast(k, x[1], cmz_x_dtype(k, x[0])));
  cmz_expr r = cmz_x2(k, CMZ_X_POW, cmz_x_cast(k, x[0], CMZ_F64), cmz_x_cast(k, x[1], CMZ_F64));
  if (int_exponent) r = cmz_x1(k, CMZ_X_ROUND_EVEN, r);
  return cmz_x_cast(k, r, cmz_x_dtype(k, x[0]));
}

/* ---- BitShift ---- */

/* Shifts by a negative number or by the type's width and more leave the sign, or zero. */
static cmz_scalar scalar_shift(const cmz_scalar_call *call, const cmz_scalar *args) {
  bool left = *(const bool *)call->user;
  bool negative = cmz_dtype_info(call->in)->class_ == CMZ_CLASS_SIGNED && args[0].i < 0;
  uint64_t a = (uint64_t)args[0].i, b = (uint64_t)args[1].i, bits = cmz_dtype_info(call->in)->bits;
  if (b >= bits) return (cmz_scalar){.i = negative && !left ? -1 : 0};
  if (left) return (cmz_scalar){.i = (int64_t)(a << b)};
  return (cmz_scalar){.i = negative ? args[0].i >> b : (int64_t)(a >> b)};
}

static bool shift_left(const cmz_node *n) {
  return cmz_node_string(n, "direction", "LEFT")[0] == 'L';
}

static cmz_status eval_shift(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  bool left = shift_left(n);
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_shift, &left);
}

static cmz_expr describe_shift(cmz_describe *d, const cmz_node *n, uint32_t output,
                               const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_dtype dtype = cmz_input_type(cmz_describe_module(d), n, 0)->dtype;
  cmz_expr x[2];
  if (!cmz_describe_broadcast_all(d, n, output, idx, x, 2)) return 0;
  bool left = shift_left(n), has_sign = cmz_dtype_info(dtype)->class_ == CMZ_CLASS_SIGNED;
  cmz_expr bits = cmz_x_like(k, x[1], cmz_dtype_info(dtype)->bits), zero = cmz_x_like(k, x[1], 0);
  cmz_expr fits = cmz_x2(k, CMZ_X_LT, x[1], bits);
  if (has_sign) fits = cmz_x_and(k, fits, cmz_x2(k, CMZ_X_LE, zero, x[1]));
  cmz_expr r = cmz_x2(k, left ? CMZ_X_SHL : CMZ_X_SHR, x[0], cmz_x_select(k, fits, x[1], zero));
  cmz_expr rest = cmz_x_like(k, x[0], 0);
  if (has_sign && !left)
    rest = cmz_x_select(k, x_is_negative(k, x[0]), cmz_x_like(k, x[0], -1), rest);
  return cmz_x_select(k, fits, r, rest);
}

static cmz_status infer_shift(cmz_module *m, cmz_nid n) {
  cmz_dtype dtype = cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype;
  if (!cmz_dtype_is_int(dtype)) return cmz_node_fail(m, n, CMZ_E_INPUT, "needs integers");
  return cmz_infer_pointwise(m, n);
}

#define FOLD(NAME, MIN, MAX, FLAGS, ...)                                                           \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,            \
    .max_outputs = 1, .since = 1, .flags = CMZ_OP_POINTWISE | (FLAGS), .infer = infer_fold,        \
    .eval = eval_fold, .describe = describe_fold, ##__VA_ARGS__                                    \
  }
#define BINARY(NAME, FLAGS, INFER, EVAL, DESCRIBE, ...)                                            \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,                \
    .max_outputs = 1, .since = 1, .flags = CMZ_OP_POINTWISE | (FLAGS), .infer = INFER,             \
    .eval = EVAL, .describe = DESCRIBE, ##__VA_ARGS__                                              \
  }

const cmz_op cmz_ops_binary[] = {
    FOLD("Add", 2, 2, CMZ_OP_CHEAP | CMZ_OP_COMMUTATIVE,
         .attributes = "axis:i<7 broadcast:i<7 consumed_inputs:I<6"),
    FOLD("Sub", 2, 2, CMZ_OP_CHEAP, .attributes = "axis:i<7 broadcast:i<7 consumed_inputs:I<6"),
    FOLD("Mul", 2, 2, CMZ_OP_CHEAP | CMZ_OP_COMMUTATIVE,
         .attributes = "axis:i<7 broadcast:i<7 consumed_inputs:I<6"),
    FOLD("Div", 2, 2, 0, .attributes = "axis:i<7 broadcast:i<7 consumed_inputs:I<6"),
    FOLD("Min", 1, 255, CMZ_OP_CHEAP, .attributes = "consumed_inputs:I<6"),
    FOLD("Max", 1, 255, CMZ_OP_CHEAP, .attributes = "consumed_inputs:I<6"),
    FOLD("Sum", 1, 255, CMZ_OP_CHEAP, .attributes = "consumed_inputs:I<6"),
    FOLD("Mean", 1, 255, CMZ_OP_CHEAP, .attributes = "consumed_inputs:I<6"),
    FOLD("BitwiseAnd", 2, 2, CMZ_OP_CHEAP | CMZ_OP_COMMUTATIVE),
    FOLD("BitwiseOr", 2, 2, CMZ_OP_CHEAP | CMZ_OP_COMMUTATIVE),
    FOLD("BitwiseXor", 2, 2, CMZ_OP_CHEAP | CMZ_OP_COMMUTATIVE),
    BINARY("Mod", 0, infer_mod, eval_mod, describe_mod, .attributes = "fmod:i"),
    BINARY("Pow", 0, infer_pow, eval_pow, describe_pow, .attributes = "axis:i<7 broadcast:i<7"),
    BINARY("BitShift", 0, infer_shift, eval_shift, describe_shift, .attributes = "direction:s!"),
    {.name = NULL},
};
