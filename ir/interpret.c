/* interpret.c - the reference interpreter of kernel descriptions: what every emitter is compared
 * with. In: a kernel, memory of its operands, its parameters. Out: the stores done, in the order of
 * the axes. Always holds: every access is checked against the operand's size; SELECT, AND and OR
 * evaluate only what they need; a value is computed once per combination of the axes it uses (and
 * once per store when it reads what is written), so that the cost is that of the loop nest, not of
 * the expanded tree. */
#include "kernel_internal.h"

#include <math.h>
#include <stdlib.h>

typedef union scalar {
  int64_t i;
  double f;
} scalar;

typedef struct machine {
  cmz_context *ctx;
  const cmz_kernel *k;
  void *const *operands;
  const int64_t *params;
  int64_t *elements; /* of each operand */
  int64_t *axis_values;
  uint64_t *axis_stamps; /* when each axis last moved; one more entry for memory */
  uint64_t clock;
  scalar *values;
  uint64_t *stamps;   /* when each value was computed; 0: never */
  uint16_t **depends; /* per expression: count, then the axes it depends on */
  cmz_status status;
} machine;

/* ---- what values depend on ---- */

static uint16_t *dependences(machine *m, cmz_expr e) {
  if (m->depends[e]) return m->depends[e];
  const cmz_kernel *k = m->k;
  const cmz_expr_node *n = cmz_x_get(k, e);
  uint32_t total = k->axes.count + 1;
  bool *set = CMZ_NEW_ARRAY(k->arena, bool, total);
  if (n->op == CMZ_X_AXIS) set[n->i] = true;
  if (n->op == CMZ_X_LOAD && (k->operands.data[n->i].access & CMZ_WRITE)) set[total - 1] = true;
  for (int i = 0; i < 3 && n->args[i]; i++) {
    const uint16_t *inner = dependences(m, n->args[i]);
    for (uint32_t j = 0; j < inner[0]; j++) set[inner[1 + j]] = true;
  }
  if (n->op == CMZ_X_REDUCE)
    for (uint32_t i = 0; i < n->axis_count; i++) set[n->axes[i]] = false;
  uint16_t count = 0;
  for (uint32_t i = 0; i < total; i++) count = (uint16_t)(count + set[i]);
  uint16_t *list = CMZ_NEW_ARRAY(k->arena, uint16_t, (size_t)count + 1);
  list[0] = count;
  for (uint32_t i = 0, at = 1; i < total; i++)
    if (set[i]) list[at++] = (uint16_t)i;
  return m->depends[e] = list;
}

/* ---- errors ---- */

static scalar fail(machine *m, const char *what, int64_t value) {
  if (m->status == CMZ_OK)
    m->status = cmz_fail(m->ctx, CMZ_E_INTERNAL, (cmz_loc){.op = m->k->name}, "kernel: %s %" PRId64,
                         what, value);
  return (scalar){0};
}

static scalar out_of_bounds(machine *m, const char *access, uint32_t operand, int64_t index) {
  if (m->status == CMZ_OK)
    m->status =
        cmz_fail(m->ctx, CMZ_E_INTERNAL, (cmz_loc){.op = m->k->name},
                 "kernel: %s of element %" PRId64 " of operand %" PRIu32 ", which has %" PRId64,
                 access, index, operand, m->elements[operand]);
  return (scalar){0};
}

/* ---- operations ---- */

static double round_to(cmz_dtype type, double v) { return type == CMZ_F32 ? (double)(float)v : v; }

static double float_minimum(double a, double b) {
  if (isnan(a) || isnan(b)) return a + b;
  if (a == b) return signbit(a) ? a : b;
  return a < b ? a : b;
}

static double float_maximum(double a, double b) {
  if (isnan(a) || isnan(b)) return a + b;
  if (a == b) return signbit(a) ? b : a;
  return a > b ? a : b;
}

static scalar float_binary(machine *m, const cmz_expr_node *n, cmz_dtype type, double a, double b) {
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_ADD:
    return (scalar){.f = round_to(type, a + b)};
  case CMZ_X_SUB:
    return (scalar){.f = round_to(type, a - b)};
  case CMZ_X_MUL:
    return (scalar){.f = round_to(type, a * b)};
  case CMZ_X_DIV:
    return (scalar){.f = round_to(type, a / b)};
  case CMZ_X_FLOORDIV:
    return (scalar){.f = round_to(type, floor(a / b))};
  case CMZ_X_FMOD:
    return (scalar){.f = fmod(a, b)};
  case CMZ_X_MOD: {
    double r = fmod(a, b);
    return (scalar){.f = round_to(type, r != 0 && (r < 0) != (b < 0) ? r + b : r)};
  }
  case CMZ_X_MIN:
    return (scalar){.f = float_minimum(a, b)};
  case CMZ_X_MAX:
    return (scalar){.f = float_maximum(a, b)};
  case CMZ_X_POW:
    return (scalar){.f = round_to(type, pow(a, b))};
  case CMZ_X_EQ:
    return (scalar){.i = a == b};
  case CMZ_X_LT:
    return (scalar){.i = a < b};
  case CMZ_X_LE:
    return (scalar){.i = a <= b};
  default:
    return fail(m, "float operation", n->op);
  }
}

static int64_t integer_power(int64_t base, int64_t exponent) {
  uint64_t result = 1, b = (uint64_t)base;
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 ? -1 : 1) : 0;
  for (; exponent; exponent >>= 1, b *= b)
    if (exponent & 1) result *= b;
  return (int64_t)result;
}

static scalar int_divide(machine *m, cmz_expr_op op, bool is_unsigned, int64_t a, int64_t b) {
  uint64_t x = (uint64_t)a, y = (uint64_t)b;
  if (!b) return fail(m, "division by", 0);
  bool quotient = op == CMZ_X_DIV || op == CMZ_X_FLOORDIV;
  if (is_unsigned) return (scalar){.i = (int64_t)(quotient ? x / y : x % y)};
  if (b == -1) return (scalar){.i = quotient ? (int64_t)(0 - x) : 0};
  if (op == CMZ_X_DIV) return (scalar){.i = a / b};
  if (op == CMZ_X_FMOD) return (scalar){.i = a % b};
  return (scalar){.i = op == CMZ_X_FLOORDIV ? cmz_floor_div(a, b) : cmz_floor_mod(a, b)};
}

static scalar int_binary(machine *m, const cmz_expr_node *n, cmz_dtype type, int64_t a, int64_t b) {
  uint64_t x = (uint64_t)a, y = (uint64_t)b;
  bool is_unsigned = type == CMZ_U32 || type == CMZ_U64;
  uint64_t shift = y & (type == CMZ_I32 || type == CMZ_U32 ? 31 : 63);
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_ADD:
    return (scalar){.i = (int64_t)(x + y)};
  case CMZ_X_SUB:
    return (scalar){.i = (int64_t)(x - y)};
  case CMZ_X_MUL:
    return (scalar){.i = (int64_t)(x * y)};
  case CMZ_X_DIV:
  case CMZ_X_FLOORDIV:
  case CMZ_X_MOD:
  case CMZ_X_FMOD:
    return int_divide(m, (cmz_expr_op)n->op, is_unsigned, a, b);
  case CMZ_X_MIN:
    return (scalar){.i = (is_unsigned ? x < y : a < b) ? a : b};
  case CMZ_X_MAX:
    return (scalar){.i = (is_unsigned ? x < y : a < b) ? b : a};
  case CMZ_X_POW:
    return (scalar){.i = integer_power(a, b)};
  case CMZ_X_AND:
    return (scalar){.i = a & b};
  case CMZ_X_OR:
    return (scalar){.i = a | b};
  case CMZ_X_XOR:
    return (scalar){.i = a ^ b};
  case CMZ_X_SHL:
    return (scalar){.i = (int64_t)(x << shift)};
  case CMZ_X_SHR:
    return (scalar){.i = is_unsigned ? (int64_t)(x >> shift) : a >> shift};
  case CMZ_X_EQ:
    return (scalar){.i = a == b};
  case CMZ_X_LT:
    return (scalar){.i = is_unsigned ? x < y : a < b};
  case CMZ_X_LE:
    return (scalar){.i = is_unsigned ? x <= y : a <= b};
  default:
    return fail(m, "integer operation", n->op);
  }
}

static double float_unary(machine *m, cmz_expr_op op, double a) {
  switch (op) {
  case CMZ_X_NEG:
    return -a;
  case CMZ_X_ABS:
    return fabs(a);
  case CMZ_X_SIGN:
    return isnan(a) ? a : (a > 0) - (a < 0);
  case CMZ_X_FLOOR:
    return floor(a);
  case CMZ_X_CEIL:
    return ceil(a);
  case CMZ_X_ROUND_EVEN:
    return nearbyint(a);
  case CMZ_X_TRUNC:
    return trunc(a);
  case CMZ_X_SQRT:
    return sqrt(a);
  case CMZ_X_EXP:
    return exp(a);
  case CMZ_X_LOG:
    return log(a);
  case CMZ_X_SIN:
    return sin(a);
  case CMZ_X_COS:
    return cos(a);
  case CMZ_X_TAN:
    return tan(a);
  case CMZ_X_ASIN:
    return asin(a);
  case CMZ_X_ACOS:
    return acos(a);
  case CMZ_X_ATAN:
    return atan(a);
  case CMZ_X_SINH:
    return sinh(a);
  case CMZ_X_COSH:
    return cosh(a);
  case CMZ_X_TANH:
    return tanh(a);
  case CMZ_X_ASINH:
    return asinh(a);
  case CMZ_X_ACOSH:
    return acosh(a);
  case CMZ_X_ATANH:
    return atanh(a);
  case CMZ_X_ERF:
    return erf(a);
  case CMZ_X_SIGMOID:
    return 1 / (1 + exp(-a));
  default:
    fail(m, "float operation", op);
    return 0;
  }
}

static int64_t int_unary(machine *m, cmz_expr_op op, cmz_dtype type, int64_t a) {
  uint64_t bits = (uint64_t)a & (type == CMZ_I32 || type == CMZ_U32 ? UINT32_MAX : UINT64_MAX);
  bool is_unsigned = type == CMZ_U32 || type == CMZ_U64;
  switch (op) {
  case CMZ_X_NOT:
    return type == CMZ_BOOL ? !a : ~a;
  case CMZ_X_NEG:
    return (int64_t)(0 - (uint64_t)a);
  case CMZ_X_ABS:
    return a < 0 && !is_unsigned ? (int64_t)(0 - (uint64_t)a) : a;
  case CMZ_X_SIGN:
    return is_unsigned ? a != 0 : (a > 0) - (a < 0);
  case CMZ_X_POPCOUNT:
    return __builtin_popcountll(bits);
  case CMZ_X_IS_NAN:
  case CMZ_X_IS_INF:
    return 0;
  case CMZ_X_FLOOR:
  case CMZ_X_CEIL:
  case CMZ_X_ROUND_EVEN:
  case CMZ_X_TRUNC:
    return a;
  default:
    fail(m, "integer operation", op);
    return 0;
  }
}

/* Truncating; out of range saturates (u64, i64) or wraps from i64 (narrower types). */
static int64_t float_to_int(cmz_dtype to, double v) {
  if (isnan(v)) return to == CMZ_I32 ? INT32_MIN : INT64_MIN;
  if (to == CMZ_U64 && v >= 9223372036854775808.0)
    return v >= 18446744073709551616.0 ? -1 : (int64_t)(uint64_t)v;
  if (v >= 9223372036854775808.0) return INT64_MAX;
  return v < -9223372036854775808.0 ? INT64_MIN : (int64_t)v;
}

static scalar cast(cmz_dtype from, cmz_dtype to, cmz_dtype through, scalar v) {
  if (cmz_dtype_is_float(to)) {
    if (!cmz_dtype_is_float(from)) {
      if (to == CMZ_F32)
        return (scalar){.f = from == CMZ_U64 ? (double)(float)(uint64_t)v.i : (double)(float)v.i};
      return (scalar){.f = from == CMZ_U64 ? (double)(uint64_t)v.i : (double)v.i};
    }
    if (!through) return (scalar){.f = round_to(to, v.f)};
    uint64_t stored = 0;
    cmz_dtype_set_f64_mode(through, &stored, 0, v.f, !cmz_keeps_infinity(through, v.f));
    return (scalar){.f = cmz_dtype_get_f64(through, &stored, 0)};
  }
  if (cmz_dtype_is_float(from)) {
    if (to == CMZ_BOOL) return (scalar){.i = v.f != 0};
    v.i = float_to_int(to, v.f);
  }
  return (scalar){.i = cmz_int_wrap(to, v.i)};
}

static scalar bitcast(cmz_dtype from, cmz_dtype to, scalar v) {
  float f;
  uint32_t bits;
  if (from == CMZ_F32 && !cmz_dtype_is_float(to)) {
    f = (float)v.f;
    memcpy(&bits, &f, sizeof bits);
    return (scalar){.i = cmz_int_wrap(to, bits)};
  }
  if (to == CMZ_F32 && !cmz_dtype_is_float(from)) {
    bits = (uint32_t)v.i;
    memcpy(&f, &bits, sizeof f);
    return (scalar){.f = (double)f};
  }
  return v; /* 64 bits, or between signed and unsigned: the union does it */
}

/* ---- reductions ---- */

static scalar reduce_start(const cmz_expr_node *n, cmz_dtype type) {
  bool is_float = cmz_dtype_is_float(type);
  bool highest = n->reduce_op == CMZ_REDUCE_MIN;
  switch ((cmz_reduce_op)n->reduce_op) {
  case CMZ_REDUCE_PROD:
    return is_float ? (scalar){.f = 1} : (scalar){.i = 1};
  case CMZ_REDUCE_AND:
    return (scalar){.i = type == CMZ_BOOL ? 1 : cmz_int_wrap(type, -1)};
  case CMZ_REDUCE_MAX:
  case CMZ_REDUCE_MIN:
    if (is_float) return (scalar){.f = highest ? (double)INFINITY : -(double)INFINITY};
    switch (type) {
    case CMZ_BOOL:
      return (scalar){.i = highest};
    case CMZ_I32:
      return (scalar){.i = highest ? INT32_MAX : INT32_MIN};
    case CMZ_U32:
      return (scalar){.i = highest ? UINT32_MAX : 0};
    case CMZ_U64:
      return (scalar){.i = highest ? -1 : 0};
    default:
      return (scalar){.i = highest ? INT64_MAX : INT64_MIN};
    }
  default:
    return (scalar){0};
  }
}

static scalar reduce_step(machine *m, const cmz_expr_node *n, cmz_dtype type, scalar total,
                          scalar v) {
  static const uint8_t OPS[] = {CMZ_X_ADD, CMZ_X_MUL, CMZ_X_MAX, CMZ_X_MIN, CMZ_X_AND, CMZ_X_OR};
  cmz_expr_node op = {.op = OPS[n->reduce_op]};
  /* Sums of f32 are kept in double: the emitters' order of addition is free. */
  if (cmz_dtype_is_float(type)) return float_binary(m, &op, CMZ_F64, total.f, v.f);
  total = int_binary(m, &op, type, total.i, v.i);
  total.i = cmz_int_wrap(type, total.i);
  return total;
}

/* Whether V is a better extreme than BEST (floats: NaN wins, as in numpy). */
static bool better(cmz_reduce_op op, cmz_dtype type, scalar v, scalar best) {
  bool largest = op == CMZ_REDUCE_ARGMAX || op == CMZ_REDUCE_ARGMAX_LAST;
  bool last = op == CMZ_REDUCE_ARGMAX_LAST || op == CMZ_REDUCE_ARGMIN_LAST;
  if (cmz_dtype_is_float(type)) {
    if (isnan(best.f)) return last && isnan(v.f);
    if (isnan(v.f)) return true;
    if (v.f == best.f) return last;
    return largest ? v.f > best.f : v.f < best.f;
  }
  if (v.i == best.i) return last;
  bool above = type == CMZ_U64 ? (uint64_t)v.i > (uint64_t)best.i : v.i > best.i;
  return above == largest;
}

static scalar evaluate(machine *m, cmz_expr e);

static void move_axis(machine *m, uint16_t axis, int64_t value) {
  m->axis_values[axis] = value;
  m->axis_stamps[axis] = ++m->clock;
}

static void reduce_over(machine *m, const cmz_expr_node *n, uint32_t depth, scalar *total) {
  int64_t extent = evaluate(m, m->k->axes.data[n->axes[depth]].extent).i;
  cmz_dtype type = (cmz_dtype)n->dtype;
  for (int64_t i = 0; i < extent && m->status == CMZ_OK; i++) {
    move_axis(m, n->axes[depth], i);
    if (depth + 1 < n->axis_count) reduce_over(m, n, depth + 1, total);
    else *total = reduce_step(m, n, type, *total, evaluate(m, n->args[0]));
  }
}

static scalar reduce_arg(machine *m, const cmz_expr_node *n) {
  int64_t extent = evaluate(m, m->k->axes.data[n->axes[0]].extent).i, position = 0;
  cmz_dtype type = (cmz_dtype)cmz_x_get(m->k, n->args[0])->dtype;
  scalar best = {0};
  for (int64_t i = 0; i < extent && m->status == CMZ_OK; i++) {
    move_axis(m, n->axes[0], i);
    scalar v = evaluate(m, n->args[0]);
    if (i && !better((cmz_reduce_op)n->reduce_op, type, v, best)) continue;
    best = v;
    position = i;
  }
  return (scalar){.i = position};
}

static scalar reduce(machine *m, const cmz_expr_node *n) {
  int64_t saved[CMZ_REDUCE_MAX_AXES]; /* an axis may also be bound outside */
  for (uint32_t i = 0; i < n->axis_count; i++) saved[i] = m->axis_values[n->axes[i]];
  scalar total;
  if (n->reduce_op >= CMZ_REDUCE_ARGMAX) total = reduce_arg(m, n);
  else {
    total = n->args[1] ? evaluate(m, n->args[1]) : reduce_start(n, (cmz_dtype)n->dtype);
    reduce_over(m, n, 0, &total);
    if (cmz_dtype_is_float((cmz_dtype)n->dtype)) total.f = round_to((cmz_dtype)n->dtype, total.f);
  }
  for (uint32_t i = 0; i < n->axis_count; i++) move_axis(m, n->axes[i], saved[i]);
  return total;
}

/* ---- evaluation ---- */

static scalar load(machine *m, const cmz_expr_node *n) {
  uint32_t operand = (uint32_t)n->i;
  int64_t index = evaluate(m, n->args[0]).i;
  if (m->status != CMZ_OK) return (scalar){0};
  if (index < 0 || index >= m->elements[operand]) return out_of_bounds(m, "load", operand, index);
  cmz_dtype stored = m->k->operands.data[operand].dtype;
  if (cmz_dtype_is_float(stored))
    return (scalar){.f = cmz_dtype_get_f64(stored, m->operands[operand], (size_t)index)};
  return (scalar){.i = cmz_dtype_get_i64(stored, m->operands[operand], (size_t)index)};
}

static scalar compute(machine *m, const cmz_expr_node *n) {
  const cmz_kernel *k = m->k;
  cmz_dtype type = (cmz_dtype)n->dtype, from = (cmz_dtype)cmz_x_get(k, n->args[0])->dtype;
  scalar a, r;
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_CONST_INT:
  case CMZ_X_CONST_FLOAT:
    return (scalar){.i = n->i};
  case CMZ_X_AXIS:
    return (scalar){.i = m->axis_values[n->i]};
  case CMZ_X_PARAM:
    return (scalar){.i = m->params[n->i]};
  case CMZ_X_LOAD:
    return load(m, n);
  case CMZ_X_REDUCE:
    return reduce(m, n);
  case CMZ_X_SELECT:
    return evaluate(m, evaluate(m, n->args[0]).i ? n->args[1] : n->args[2]);
  case CMZ_X_CAST:
    return cast(from, type, (cmz_dtype)n->i, evaluate(m, n->args[0]));
  case CMZ_X_BITCAST:
    return bitcast(from, type, evaluate(m, n->args[0]));
  default:
    break;
  }
  a = evaluate(m, n->args[0]);
  if (!n->args[1]) {
    if (!cmz_dtype_is_float(from))
      return (scalar){.i = cmz_int_wrap(type, int_unary(m, (cmz_expr_op)n->op, type, a.i))};
    if (n->op == CMZ_X_IS_NAN) return (scalar){.i = isnan(a.f)};
    if (n->op == CMZ_X_IS_INF) return (scalar){.i = isinf(a.f)};
    return (scalar){.f = round_to(type, float_unary(m, (cmz_expr_op)n->op, a.f))};
  }
  if (type == CMZ_BOOL && from == CMZ_BOOL &&
      ((n->op == CMZ_X_AND && !a.i) || (n->op == CMZ_X_OR && a.i)))
    return a;
  scalar b = evaluate(m, n->args[1]);
  if (m->status != CMZ_OK) return (scalar){0};
  if (cmz_dtype_is_float(from)) return float_binary(m, n, type, a.f, b.f);
  r = int_binary(m, n, from, a.i, b.i);
  r.i = cmz_int_wrap(type, r.i);
  return r;
}

static scalar evaluate(machine *m, cmz_expr e) {
  if (m->stamps[e]) {
    const uint16_t *depends = m->depends[e];
    bool valid = true;
    for (uint32_t i = 1; i <= depends[0]; i++) valid &= m->axis_stamps[depends[i]] <= m->stamps[e];
    if (valid) return m->values[e];
  }
  uint64_t now = m->clock; /* axes of inner reductions move on; what E depends on does not */
  scalar v = compute(m, cmz_x_get(m->k, e));
  m->values[e] = v;
  m->stamps[e] = CMZ_MAX(now, 1u);
  return v;
}

/* ---- stores ---- */

static scalar combine(machine *m, cmz_store_mode mode, cmz_dtype type, scalar old_value, scalar v) {
  static const uint8_t OPS[] = {0, CMZ_X_ADD, CMZ_X_MUL, CMZ_X_MIN, CMZ_X_MAX};
  cmz_expr_node op = {.op = OPS[mode]};
  if (mode == CMZ_STORE_SET) return v;
  if (cmz_dtype_is_float(type)) return float_binary(m, &op, type, old_value.f, v.f);
  return int_binary(m, &op, type, old_value.i, v.i);
}

static void store(machine *m, const cmz_store *s) {
  if (s->predicate && !evaluate(m, s->predicate).i) return;
  int64_t index = evaluate(m, s->index).i;
  scalar v = evaluate(m, s->value);
  if (m->status != CMZ_OK) return;
  if (index < 0 || index >= m->elements[s->operand]) {
    out_of_bounds(m, "store", s->operand, index);
    return;
  }
  cmz_dtype stored = m->k->operands.data[s->operand].dtype;
  cmz_dtype type = (cmz_dtype)cmz_x_get(m->k, s->value)->dtype;
  void *base = m->operands[s->operand];
  size_t at = (size_t)index;
  scalar before = {0};
  if (s->mode != CMZ_STORE_SET) {
    if (cmz_dtype_is_float(type)) before.f = cmz_dtype_get_f64(stored, base, at);
    else before.i = cmz_dtype_get_i64(stored, base, at);
  }
  v = combine(m, s->mode, type, before, v);
  if (cmz_dtype_is_float(type))
    cmz_dtype_set_f64_mode(stored, base, at, v.f, !cmz_keeps_infinity(stored, v.f));
  else cmz_dtype_set_i64(stored, base, at, v.i);
  m->axis_stamps[m->k->axes.count] = ++m->clock;
}

static void run_store(machine *m, const cmz_store *s, uint32_t depth) {
  if (depth == s->axis_count) {
    store(m, s);
    return;
  }
  int64_t extent = evaluate(m, m->k->axes.data[s->axes[depth]].extent).i;
  for (int64_t i = 0; i < extent && m->status == CMZ_OK; i++) {
    move_axis(m, s->axes[depth], i);
    run_store(m, s, depth + 1);
  }
}

cmz_status cmz_kernel_interpret(cmz_context *ctx, const cmz_kernel *k, void *const *operands,
                                const int64_t *params) {
  cmz_arena_mark mark = cmz_arena_save(k->arena);
  machine m = {.ctx = ctx, .k = k, .operands = operands, .params = params};
  m.clock = 1;
  m.elements = CMZ_NEW_ARRAY(k->arena, int64_t, k->operands.count);
  m.axis_values = CMZ_NEW_ARRAY(k->arena, int64_t, k->axes.count);
  m.axis_stamps = CMZ_NEW_ARRAY(k->arena, uint64_t, (size_t)k->axes.count + 1);
  m.values = CMZ_NEW_ARRAY(k->arena, scalar, k->exprs.count);
  m.stamps = CMZ_NEW_ARRAY(k->arena, uint64_t, k->exprs.count);
  m.depends = CMZ_NEW_ARRAY(k->arena, uint16_t *, k->exprs.count);
  for (cmz_expr e = 1; e < k->exprs.count; e++) dependences(&m, e);
  for (uint32_t o = 0; o < k->operands.count; o++)
    m.elements[o] = evaluate(&m, k->operands.data[o].elements).i;
  for (uint32_t s = 0; s < k->stores.count && m.status == CMZ_OK; s++)
    run_store(&m, &k->stores.data[s], 0);
  cmz_arena_restore(k->arena, mark);
  return m.status;
}
