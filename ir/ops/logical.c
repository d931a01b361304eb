/* logical.c - comparisons, logic, tests of floats, Where, BitwiseNot.
 * In: nodes with broadcast inputs. Out: types, values, expressions. Always holds: comparison with
 * NaN is false; bools are 0 or 1. */
#include "ops.h"

/* ---- two operands: one row each ---- */

typedef struct compare_row {
  const char *name;
  cmz_expr_op op;
  bool swap;     /* the result is op(b, a) */
  bool on_bools; /* And, Or, Xor */
  bool less, equal, greater;
} compare_row;

static const compare_row rows[] = {
    {"Equal", CMZ_X_EQ, false, false, false, true, false},
    {"Less", CMZ_X_LT, false, false, true, false, false},
    {"LessOrEqual", CMZ_X_LE, false, false, true, true, false},
    {"Greater", CMZ_X_LT, true, false, false, false, true},
    {"GreaterOrEqual", CMZ_X_LE, true, false, false, true, true},
    {"And", CMZ_X_AND, false, true, false, false, false},
    {"Or", CMZ_X_OR, false, true, false, false, false},
    {"Xor", CMZ_X_XOR, false, true, false, false, false},
};

static const compare_row *row_of(const cmz_node *n) {
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++)
    if (!strcmp(rows[i].name, n->op->name)) return &rows[i];
  return &rows[0];
}

static cmz_scalar scalar_compare(const cmz_scalar_call *call, const cmz_scalar *args) {
  const compare_row *row = call->user;
  bool less, equal, greater;
  if (row->on_bools) {
    bool a = args[0].i != 0, b = args[1].i != 0;
    return (cmz_scalar){.i = row->op == CMZ_X_AND ? a && b : row->op == CMZ_X_OR ? a || b : a != b};
  }
  if (call->is_float) {
    less = args[0].f<args[1].f, equal = args[0].f == args[1].f, greater = args[0].f> args[1].f;
  } else if (cmz_dtype_info(call->in)->class_ == CMZ_CLASS_UNSIGNED) {
    uint64_t a = (uint64_t)args[0].i, b = (uint64_t)args[1].i;
    less = a<b, equal = a == b, greater = a> b;
  } else {
    less = args[0].i<args[1].i, equal = args[0].i == args[1].i, greater = args[0].i> args[1].i;
  }
  return (cmz_scalar){.i = (row->less && less) || (row->equal && equal) ||
                           (row->greater && greater)};
}

static cmz_status eval_compare(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  if (inputs[0].dtype == CMZ_STRING)
    return cmz_eval_fail(e, "a comparison of strings is left to the run");
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_compare, row_of(n));
}

/* A <= B as 0 or 1: the smaller of the two is A. */
static cmz_dim dim_le(cmz_dims *p, cmz_dim a, cmz_dim b) {
  return cmz_dim_eq(p, cmz_dim_min(p, a, b), a);
}

static cmz_dim dims_compare(cmz_module *m, cmz_nid n, const cmz_dim *args, uint32_t count) {
  (void)count;
  const compare_row *row = row_of(cmz_node_get(m, n));
  cmz_dims *p = m->dims;
  cmz_dim a = args[0], b = args[1], one = cmz_dim_const(p, 1);
  if (row->on_bools) {
    if (row->op == CMZ_X_AND) return cmz_dim_min(p, a, b);
    if (row->op == CMZ_X_OR) return cmz_dim_max(p, a, b);
    return cmz_dim_sub(p, one, cmz_dim_eq(p, a, b));
  }
  if (row->equal && !row->less && !row->greater) return cmz_dim_eq(p, a, b);
  if (row->less) return row->equal ? dim_le(p, a, b) : cmz_dim_sub(p, one, dim_le(p, b, a));
  return row->equal ? dim_le(p, b, a) : cmz_dim_sub(p, one, dim_le(p, a, b));
}

static cmz_status infer_compare(cmz_module *m, cmz_nid n) {
  const compare_row *row = row_of(cmz_node_get(m, n));
  cmz_dtype dtype = cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype;
  cmz_dtype_class class_ = cmz_dtype_info(dtype)->class_;
  bool number =
      class_ == CMZ_CLASS_FLOAT || class_ == CMZ_CLASS_SIGNED || class_ == CMZ_CLASS_UNSIGNED;
  bool is_equal = row->op == CMZ_X_EQ,
       fits = row->on_bools ? dtype == CMZ_BOOL
                            : number || (is_equal && (dtype == CMZ_BOOL || dtype == CMZ_STRING));
  if (!fits)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "is not defined for elements of type %s",
                         cmz_dtype_info(dtype)->name);
  CMZ_TRY(cmz_infer_legacy_axis(m, n));
  CMZ_TRY(cmz_infer_compare(m, n));
  cmz_infer_elements(m, n, dims_compare);
  return CMZ_OK;
}

/* Strings are compared by the runtime. */
static cmz_status expand_compare(cmz_module *m, cmz_nid n) {
  cmz_vid a = cmz_ops_input(m, n, 0), b = cmz_ops_input(m, n, 1);
  if (cmz_ops_type(m, a)->dtype != CMZ_STRING) return CMZ_OK;
  cmz_vid v = cmz_build2(m, n, "StringEqual", a, b);
  if (!v) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

static cmz_expr describe_compare(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  const compare_row *row = row_of(n);
  cmz_expr x[2];
  if (!cmz_describe_broadcast_all(d, n, output, idx, x, 2)) return 0;
  return cmz_x2(cmz_describe_kernel(d), row->op, x[row->swap], x[!row->swap]);
}

/* ---- Not, BitwiseNot, IsNaN, IsInf ---- */

static cmz_scalar scalar_not(const cmz_scalar_call *call, const cmz_scalar *args) {
  return (cmz_scalar){.i = call->in == CMZ_BOOL ? !args[0].i : ~args[0].i};
}

static cmz_status eval_not(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_not, NULL);
}

static cmz_dim dims_not(cmz_module *m, cmz_nid n, const cmz_dim *args, uint32_t count) {
  (void)n, (void)count;
  return cmz_dim_sub(m->dims, cmz_dim_const(m->dims, 1), args[0]);
}

static cmz_status infer_not(cmz_module *m, cmz_nid n) {
  bool bitwise = cmz_node_get(m, n)->op->name[0] == 'B';
  cmz_dtype dtype = cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype;
  if (bitwise ? !cmz_dtype_is_int(dtype) : dtype != CMZ_BOOL)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "is not defined for elements of type %s",
                         cmz_dtype_info(dtype)->name);
  CMZ_TRY(cmz_infer_unary(m, n));
  if (!bitwise) cmz_infer_elements(m, n, dims_not);
  return CMZ_OK;
}

static cmz_expr describe_not(cmz_describe *d, const cmz_node *n, uint32_t output,
                             const cmz_expr *idx) {
  (void)output;
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr x = cmz_describe_input(d, 0, idx);
  if (!x) return 0;
  if (n->op->name[0] == 'N') return cmz_x1(k, CMZ_X_NOT, x);
  return cmz_x2(k, CMZ_X_XOR, x, cmz_x_int(k, cmz_x_dtype(k, x), -1));
}

typedef struct float_test {
  bool nan, positive, negative;
} float_test;

static float_test float_test_of(const cmz_node *n) {
  if (n->op->name[2] == 'N') return (float_test){.nan = true};
  return (float_test){.positive = cmz_node_int(n, "detect_positive", 1) != 0,
                      .negative = cmz_node_int(n, "detect_negative", 1) != 0};
}

static cmz_scalar scalar_test(const cmz_scalar_call *call, const cmz_scalar *args) {
  const float_test *t = call->user;
  double x = args[0].f;
  return (cmz_scalar){.i = (t->nan && isnan(x)) ||
                           (isinf(x) && (x > 0 ? t->positive : t->negative))};
}

static cmz_status eval_test(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  float_test t = float_test_of(n);
  return cmz_eval_pointwise(e, n, inputs, outputs, scalar_test, &t);
}

static cmz_status infer_test(cmz_module *m, cmz_nid n) {
  if (!cmz_dtype_is_float(cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs floats");
  return cmz_infer_same(m, n, 0, 0, CMZ_BOOL);
}

static cmz_expr describe_test(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  (void)output;
  cmz_kernel *k = cmz_describe_kernel(d);
  float_test t = float_test_of(n);
  cmz_expr x = cmz_describe_input(d, 0, idx);
  if (!x) return 0;
  if (t.nan) return cmz_x1(k, CMZ_X_IS_NAN, x);
  if (!t.positive && !t.negative) return cmz_x_int(k, CMZ_BOOL, 0);
  cmz_expr inf = cmz_x1(k, CMZ_X_IS_INF, x), zero = cmz_x_like(k, x, 0);
  if (t.positive && t.negative) return inf;
  cmz_expr side = t.positive ? cmz_x2(k, CMZ_X_LT, zero, x) : cmz_x2(k, CMZ_X_LT, x, zero);
  return cmz_x2(k, CMZ_X_AND, inf, side);
}

/* ---- Where ---- */

static cmz_dim dims_where(cmz_module *m, cmz_nid n, const cmz_dim *args, uint32_t count) {
  (void)n, (void)count;
  return cmz_dim_select(m->dims, args[0], args[1], args[2]);
}

static cmz_status infer_where(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK];
  uint32_t rank;
  cmz_dtype a = cmz_ops_type(m, cmz_ops_input(m, n, 1))->dtype,
            b = cmz_ops_type(m, cmz_ops_input(m, n, 2))->dtype;
  if (cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype != CMZ_BOOL || a != b)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs a bool and two inputs of one element type");
  CMZ_TRY(cmz_infer_broadcast(m, n, 0, 3, shape, &rank));
  cmz_set_output(m, n, 0, a, rank, shape);
  cmz_infer_elements(m, n, dims_where);
  return CMZ_OK;
}

static cmz_status eval_where(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  (void)n;
  CMZ_TRY(cmz_array_broadcast(e, inputs, 3, &outputs[0]));
  CMZ_TRY(cmz_eval_output(e, &outputs[0]));
  int64_t at[CMZ_MAX_RANK] = {0}, total = (int64_t)cmz_array_count(&outputs[0]);
  uint32_t rank = outputs[0].rank;
  for (int64_t i = 0; i < total; i++, cmz_array_next(&outputs[0], at)) {
    bool first =
        cmz_array_i64(&inputs[0], (size_t)cmz_array_broadcast_index(&inputs[0], rank, at)) != 0;
    const cmz_array *from = &inputs[first ? 1 : 2];
    cmz_copy_element(&outputs[0], i, from, cmz_array_broadcast_index(from, rank, at));
  }
  return CMZ_OK;
}

static cmz_expr describe_where(cmz_describe *d, const cmz_node *n, uint32_t output,
                               const cmz_expr *idx) {
  cmz_expr x[3];
  if (!cmz_describe_broadcast_all(d, n, output, idx, x, 3)) return 0;
  return cmz_x_select(cmz_describe_kernel(d), x[0], x[1], x[2]);
}

#define LOGIC(NAME, COUNT, SINCE, FLAGS, INFER, EVAL, DESCRIBE, ...)                               \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = COUNT, .max_inputs = COUNT, .min_outputs = 1,        \
    .max_outputs = 1, .since = SINCE, .flags = CMZ_OP_POINTWISE | CMZ_OP_CHEAP | (FLAGS),          \
    .infer = INFER, .eval = EVAL, .describe = DESCRIBE, ##__VA_ARGS__                              \
  }
#define COMPARE(NAME, SINCE, FLAGS, ...)                                                           \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,                \
    .max_outputs = 1, .since = SINCE, .flags = CMZ_OP_POINTWISE | CMZ_OP_CHEAP | (FLAGS),          \
    .infer = infer_compare, .eval = eval_compare, .expand = expand_compare,                        \
    .describe = describe_compare, ##__VA_ARGS__                                                    \
  }

const cmz_op cmz_ops_logical[] = {
    COMPARE("Equal", 1, CMZ_OP_COMMUTATIVE, .attributes = "axis:i<7 broadcast:i<7"),
    COMPARE("Less", 1, 0, .attributes = "axis:i<7 broadcast:i<7"),
    COMPARE("LessOrEqual", 12, 0),
    COMPARE("Greater", 1, 0, .attributes = "axis:i<7 broadcast:i<7"),
    COMPARE("GreaterOrEqual", 12, 0),
    COMPARE("And", 1, CMZ_OP_COMMUTATIVE, .attributes = "axis:i<7 broadcast:i<7"),
    COMPARE("Or", 1, CMZ_OP_COMMUTATIVE, .attributes = "axis:i<7 broadcast:i<7"),
    COMPARE("Xor", 1, CMZ_OP_COMMUTATIVE, .attributes = "axis:i<7 broadcast:i<7"),
    LOGIC("Not", 1, 1, 0, infer_not, eval_not, describe_not),
    LOGIC("BitwiseNot", 1, 18, 0, infer_not, eval_not, describe_not),
    LOGIC("IsNaN", 1, 9, 0, infer_test, eval_test, describe_test),
    LOGIC("IsInf", 1, 10, 0, infer_test, eval_test, describe_test,
          .attributes = "detect_negative:i detect_positive:i"),
    LOGIC("Where", 3, 9, 0, infer_where, eval_where, describe_where),
    {.name = NULL},
};
