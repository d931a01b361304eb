/* kernel_simplify.c - constructors of operations on kernel expressions; each simplifies.
 * In: arguments already in the pool. Out: the simplest equal expression it finds.
 * Always holds: float results keep their exact bits, signed zeros and NaNs included; integers wrap
 * to their type. */
#include "kernel_internal.h"

#include <math.h>

static cmz_dtype dtype_of(const cmz_kernel *k, cmz_expr e) {
  return (cmz_dtype)cmz_x_get(k, e)->dtype;
}

static bool is_float_const(const cmz_kernel *k, cmz_expr e, double *v) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (n->op != CMZ_X_CONST_FLOAT) return false;
  *v = n->f;
  return true;
}

static cmz_expr raw1(cmz_kernel *k, cmz_expr_op op, cmz_dtype dtype, cmz_expr a) {
  return cmz_x_raw2(k, op, dtype, a, 0);
}

/* ---- constants ---- */

static uint32_t int_bits(cmz_dtype dtype) {
  return dtype == CMZ_BOOL ? 1 : dtype == CMZ_I32 || dtype == CMZ_U32 ? 32 : 64;
}

/* OP on integers of DTYPE; false where the machine's result is not defined (division by zero …). */
static bool fold_int(cmz_expr_op op, cmz_dtype dtype, int64_t a, int64_t b, int64_t *out) {
  uint64_t x = (uint64_t)a, y = (uint64_t)b;
  bool is_unsigned = dtype == CMZ_U64 || dtype == CMZ_U32;
  bool overflows = !b || (!is_unsigned && b == -1);
  switch (op) {
  case CMZ_X_ADD:
    *out = (int64_t)(x + y);
    break;
  case CMZ_X_SUB:
    *out = (int64_t)(x - y);
    break;
  case CMZ_X_MUL:
    *out = (int64_t)(x * y);
    break;
  case CMZ_X_DIV:
    if (overflows) return false;
    *out = is_unsigned ? (int64_t)(x / y) : a / b;
    break;
  case CMZ_X_FMOD:
    if (overflows) return false;
    *out = is_unsigned ? (int64_t)(x % y) : a % b;
    break;
  case CMZ_X_FLOORDIV:
    if (overflows) return false;
    *out = is_unsigned ? (int64_t)(x / y) : cmz_floor_div(a, b);
    break;
  case CMZ_X_MOD:
    if (overflows) return false;
    *out = is_unsigned ? (int64_t)(x % y) : cmz_floor_mod(a, b);
    break;
  case CMZ_X_MIN:
    *out = is_unsigned ? (int64_t)CMZ_MIN(x, y) : CMZ_MIN(a, b);
    break;
  case CMZ_X_MAX:
    *out = is_unsigned ? (int64_t)CMZ_MAX(x, y) : CMZ_MAX(a, b);
    break;
  case CMZ_X_AND:
    *out = a & b;
    break;
  case CMZ_X_OR:
    *out = a | b;
    break;
  case CMZ_X_XOR:
    *out = a ^ b;
    break;
  case CMZ_X_SHL:
    if (y >= int_bits(dtype)) return false;
    *out = (int64_t)(x << y);
    break;
  case CMZ_X_SHR:
    if (y >= int_bits(dtype)) return false;
    *out = is_unsigned ? (int64_t)(x >> y) : a >> b;
    break;
  case CMZ_X_EQ:
    *out = a == b;
    return true;
  case CMZ_X_LT:
    *out = is_unsigned ? x < y : a < b;
    return true;
  case CMZ_X_LE:
    *out = is_unsigned ? x <= y : a <= b;
    return true;
  default:
    return false;
  }
  *out = cmz_int_wrap(dtype, *out);
  return true;
}

/* Exactly rounded operations only: the others depend on the math library. */
static bool fold_float(cmz_expr_op op, cmz_dtype dtype, double a, double b, double *out) {
  float x = (float)a, y = (float)b;
  bool single = dtype == CMZ_F32;
  switch (op) {
  case CMZ_X_ADD:
    *out = single ? (double)(x + y) : a + b;
    return true;
  case CMZ_X_SUB:
    *out = single ? (double)(x - y) : a - b;
    return true;
  case CMZ_X_MUL:
    *out = single ? (double)(x * y) : a * b;
    return true;
  case CMZ_X_DIV:
    *out = single ? (double)(x / y) : a / b;
    return true;
  case CMZ_X_MIN:
  case CMZ_X_MAX:
    if (isnan(a) || isnan(b) || a == b) return false;
    *out = (op == CMZ_X_MIN) == (a < b) ? a : b;
    return true;
  default:
    return false;
  }
}

static bool fold_float_unary(cmz_expr_op op, double a, double *out) {
  switch (op) {
  case CMZ_X_NEG:
    *out = -a;
    return true;
  case CMZ_X_ABS:
    *out = fabs(a);
    return true;
  case CMZ_X_FLOOR:
    *out = floor(a);
    return true;
  case CMZ_X_CEIL:
    *out = ceil(a);
    return true;
  case CMZ_X_TRUNC:
    *out = trunc(a);
    return true;
  case CMZ_X_ROUND_EVEN:
    *out = nearbyint(a);
    return true;
  case CMZ_X_SQRT:
    *out = sqrt(a);
    return true; /* rounding a double square root to float is exact */
  default:
    return false;
  }
}

static bool is_compare(cmz_expr_op op) {
  return op == CMZ_X_EQ || op == CMZ_X_LT || op == CMZ_X_LE;
}

static bool is_commutative(cmz_expr_op op) {
  return op == CMZ_X_ADD || op == CMZ_X_MUL || op == CMZ_X_AND || op == CMZ_X_OR ||
         op == CMZ_X_XOR || op == CMZ_X_EQ;
}

/* ---- unary ---- */

static cmz_expr simplify_not(cmz_kernel *k, cmz_expr a) {
  const cmz_expr_node *n = cmz_x_get(k, a);
  cmz_expr x = n->args[0], y = n->args[1];
  if (n->op == CMZ_X_NOT) return x;
  if (n->dtype == CMZ_BOOL && (n->op == CMZ_X_LT || n->op == CMZ_X_LE) &&
      !cmz_dtype_is_float(dtype_of(k, x)))
    return cmz_x2(k, n->op == CMZ_X_LT ? CMZ_X_LE : CMZ_X_LT, y, x);
  return raw1(k, CMZ_X_NOT, (cmz_dtype)n->dtype, a);
}

cmz_expr cmz_x1(cmz_kernel *k, cmz_expr_op op, cmz_expr a) {
  cmz_dtype dtype = dtype_of(k, a);
  bool predicate = op == CMZ_X_IS_NAN || op == CMZ_X_IS_INF;
  cmz_dtype result = predicate ? CMZ_BOOL : dtype;
  int64_t v;
  double f, r;
  if (cmz_pool(k)->raw) return raw1(k, op, result, a);
  if (cmz_dtype_is_float(dtype)) {
    const cmz_expr_node *n = cmz_x_get(k, a);
    if (!is_float_const(k, a, &f)) {
      if (op == CMZ_X_NEG && n->op == CMZ_X_NEG) return n->args[0];
      if (op == CMZ_X_ABS && (n->op == CMZ_X_ABS || n->op == CMZ_X_NEG))
        return cmz_x1(k, CMZ_X_ABS, n->args[0]);
      return raw1(k, op, result, a);
    }
    if (op == CMZ_X_IS_NAN) return cmz_x_bool(k, isnan(f));
    if (op == CMZ_X_IS_INF) return cmz_x_bool(k, isinf(f));
    return fold_float_unary(op, f, &r) ? cmz_x_float(k, dtype, r) : raw1(k, op, result, a);
  }
  bool constant = cmz_x_is_int(k, a, &v);
  switch (op) {
  case CMZ_X_NEG:
    return cmz_x2(k, CMZ_X_SUB, cmz_x_int(k, dtype, 0), a);
  case CMZ_X_NOT:
    if (constant) return cmz_x_int(k, dtype, dtype == CMZ_BOOL ? !v : ~v);
    return simplify_not(k, a);
  case CMZ_X_ABS:
    if (dtype == CMZ_U32 || dtype == CMZ_U64 || cmz_x_info(k, a)->low >= 0) return a;
    if (constant && v != INT64_MIN) return cmz_x_int(k, dtype, v < 0 ? -v : v);
    break;
  case CMZ_X_SIGN:
    if (constant && dtype != CMZ_U64) return cmz_x_int(k, dtype, (v > 0) - (v < 0));
    break;
  case CMZ_X_FLOOR:
  case CMZ_X_CEIL:
  case CMZ_X_ROUND_EVEN:
  case CMZ_X_TRUNC:
    return a;
  case CMZ_X_IS_NAN:
  case CMZ_X_IS_INF:
    return cmz_x_bool(k, false);
  case CMZ_X_POPCOUNT:
    if (constant)
      return cmz_x_int(k, dtype, __builtin_popcountll((uint64_t)v << (64 - int_bits(dtype))));
    break;
  default:
    break;
  }
  return raw1(k, op, result, a);
}

/* ---- binary ---- */

static cmz_expr simplify_float(cmz_kernel *k, cmz_expr_op op, cmz_dtype dtype, cmz_expr a,
                               cmz_expr b) {
  double x, y, r;
  bool left = is_float_const(k, a, &x), right = is_float_const(k, b, &y);
  if (left && right) {
    if (op == CMZ_X_EQ) return cmz_x_bool(k, x == y);
    if (op == CMZ_X_LT) return cmz_x_bool(k, x < y);
    if (op == CMZ_X_LE) return cmz_x_bool(k, x <= y);
    if (fold_float(op, dtype, x, y, &r)) return cmz_x_float(k, dtype, r);
  }
  if (right && y == 1 && (op == CMZ_X_MUL || op == CMZ_X_DIV)) return a;
  if (left && x == 1 && op == CMZ_X_MUL) return b;
  if (right && y == 0 && ((op == CMZ_X_ADD && signbit(y)) || (op == CMZ_X_SUB && !signbit(y))))
    return a;
  if (left && x == 0 && signbit(x) && op == CMZ_X_ADD) return b;
  if (right && op == CMZ_X_DIV) { /* by a power of two: the reciprocal is exact */
    int exponent;
    if (isfinite(y) && fabs(frexp(y, &exponent)) == 0.5 && exponent > -120 && exponent < 120)
      return cmz_x2(k, CMZ_X_MUL, a, cmz_x_float(k, dtype, 1 / y));
  }
  if (a == b && (op == CMZ_X_MIN || op == CMZ_X_MAX)) return a;
  if (is_commutative(op) && a > b)
    return cmz_x_raw2(k, op, is_compare(op) ? CMZ_BOOL : dtype, b, a);
  return cmz_x_raw2(k, op, is_compare(op) ? CMZ_BOOL : dtype, a, b);
}

/* 1: holds, 0: does not, -1: not known. */
static int decide(cmz_kernel *k, cmz_expr_op op, cmz_expr a, cmz_expr b) {
  bool index = dtype_of(k, a) == CMZ_I64;
  const cmz_expr_info x = *cmz_x_info(k, a), y = *cmz_x_info(k, b);
  bool known = dtype_of(k, a) != CMZ_U64 || (x.low >= 0 && y.low >= 0);
  if (a == b) return op != CMZ_X_LT;
  if (!known) return -1;
  if (op == CMZ_X_EQ) {
    if (x.high < y.low || y.high < x.low) return 0;
    return index && (cmz_poly_at_least(k, a, b, 1) || cmz_poly_at_least(k, b, a, 1)) ? 0 : -1;
  }
  int64_t least = op == CMZ_X_LT;
  if (op == CMZ_X_LT ? x.high < y.low : x.high <= y.low) return 1;
  if (op == CMZ_X_LT ? y.high <= x.low : y.high < x.low) return 0;
  if (!index) return -1;
  if (cmz_poly_at_least(k, b, a, least)) return 1;
  if (cmz_poly_at_least(k, a, b, 1 - least)) return 0;
  return -1;
}

static cmz_expr simplify_min_max(cmz_kernel *k, cmz_expr_op op, cmz_expr a, cmz_expr b) {
  if (a == b) return a;
  int less = decide(k, CMZ_X_LE, a, b);
  if (less < 0) less = decide(k, CMZ_X_LE, b, a) == 1 ? 0 : -1;
  if (less >= 0) return (op == CMZ_X_MIN) == (less == 1) ? a : b;
  return cmz_x_raw2(k, op, dtype_of(k, a), CMZ_MIN(a, b), CMZ_MAX(a, b));
}

static cmz_expr simplify_logic(cmz_kernel *k, cmz_expr_op op, cmz_dtype dtype, cmz_expr a,
                               cmz_expr b) {
  int64_t v, ones = dtype == CMZ_BOOL ? 1 : cmz_int_wrap(dtype, -1);
  if (op != CMZ_X_SHL && op != CMZ_X_SHR) {
    if (cmz_x_is_int(k, a, &v)) {
      cmz_expr t = a;
      a = b;
      b = t;
    }
    if (a == b) return op == CMZ_X_XOR ? cmz_x_int(k, dtype, 0) : a;
  }
  if (cmz_x_is_int(k, b, &v)) {
    if (v == 0) return op == CMZ_X_AND ? b : a; /* x | 0, x ^ 0, x << 0, x >> 0 */
    if (v == ones && op == CMZ_X_AND) return a;
    if (v == ones && op == CMZ_X_OR) return b;
    if (dtype == CMZ_BOOL && op == CMZ_X_XOR) return cmz_x1(k, CMZ_X_NOT, a);
    /* x & (2^n - 1) where x has no more than n bits */
    if (op == CMZ_X_AND && v > 0 && !(v & (v + 1)) && cmz_x_info(k, a)->low >= 0 &&
        cmz_x_info(k, a)->high <= v)
      return a;
  }
  if (is_commutative(op) && a > b) return cmz_x_raw2(k, op, dtype, b, a);
  return cmz_x_raw2(k, op, dtype, a, b);
}

/* Arithmetic of i32, u32, u64 and bool: identities only. */
static cmz_expr simplify_int(cmz_kernel *k, cmz_expr_op op, cmz_dtype dtype, cmz_expr a,
                             cmz_expr b) {
  int64_t v;
  if (is_commutative(op) && cmz_x_is_int(k, a, &v)) {
    cmz_expr t = a;
    a = b;
    b = t;
  }
  if (cmz_x_is_int(k, b, &v)) {
    if (v == 0 && (op == CMZ_X_ADD || op == CMZ_X_SUB)) return a;
    if (v == 0 && op == CMZ_X_MUL) return b;
    if (v == 1 && (op == CMZ_X_MUL || op == CMZ_X_DIV || op == CMZ_X_FLOORDIV)) return a;
  }
  if (is_commutative(op) && a > b) return cmz_x_raw2(k, op, dtype, b, a);
  return cmz_x_raw2(k, op, dtype, a, b);
}

cmz_expr cmz_x2(cmz_kernel *k, cmz_expr_op op, cmz_expr a, cmz_expr b) {
  cmz_dtype dtype = dtype_of(k, a);
  if (cmz_pool(k)->raw) return cmz_x_raw2(k, op, is_compare(op) ? CMZ_BOOL : dtype, a, b);
  if (cmz_dtype_is_float(dtype)) return simplify_float(k, op, dtype, a, b);
  int64_t x, y, folded;
  if (cmz_x_is_int(k, a, &x) && cmz_x_is_int(k, b, &y) && fold_int(op, dtype, x, y, &folded))
    return is_compare(op) ? cmz_x_bool(k, folded) : cmz_x_int(k, dtype, folded);
  switch (op) {
  case CMZ_X_EQ:
  case CMZ_X_LT:
  case CMZ_X_LE: {
    int known = decide(k, op, a, b);
    if (known >= 0) return cmz_x_bool(k, known);
    if (op == CMZ_X_EQ && a > b) return cmz_x_raw2(k, op, CMZ_BOOL, b, a);
    return cmz_x_raw2(k, op, CMZ_BOOL, a, b);
  }
  case CMZ_X_MIN:
  case CMZ_X_MAX:
    return simplify_min_max(k, op, a, b);
  case CMZ_X_AND:
  case CMZ_X_OR:
  case CMZ_X_XOR:
  case CMZ_X_SHL:
  case CMZ_X_SHR:
    return simplify_logic(k, op, dtype, a, b);
  default:
    break;
  }
  if (dtype != CMZ_I64) return simplify_int(k, op, dtype, a, b);
  bool nonnegative = cmz_x_info(k, a)->low >= 0 && cmz_x_info(k, b)->low >= 0;
  switch (op) {
  case CMZ_X_ADD:
  case CMZ_X_SUB:
  case CMZ_X_MUL:
    return cmz_poly_arithmetic(k, op, a, b);
  case CMZ_X_DIV:
    if (nonnegative) op = CMZ_X_FLOORDIV; // fall through
  case CMZ_X_FMOD:
    if (nonnegative && op == CMZ_X_FMOD) op = CMZ_X_MOD; // fall through
  default:
    break;
  }
  if (op == CMZ_X_FLOORDIV || op == CMZ_X_MOD) return cmz_poly_divide(k, op, a, b);
  return simplify_int(k, op, dtype, a, b);
}

/* ---- select, cast ---- */

cmz_expr cmz_x_select(cmz_kernel *k, cmz_expr condition, cmz_expr a, cmz_expr b) {
  cmz_expr_node n = {
      .op = CMZ_X_SELECT, .dtype = cmz_x_get(k, a)->dtype, .args = {condition, a, b}};
  if (cmz_pool(k)->raw) return cmz_x_intern(k, &n);
  int64_t v, w;
  if (cmz_x_is_int(k, condition, &v)) return v ? a : b;
  if (a == b) return a;
  if (n.dtype == CMZ_BOOL && cmz_x_is_int(k, a, &v) && cmz_x_is_int(k, b, &w))
    return v ? condition : cmz_x1(k, CMZ_X_NOT, condition);
  const cmz_expr_node *c = cmz_x_get(k, condition), *inner = cmz_x_get(k, a);
  if (c->op == CMZ_X_NOT) return cmz_x_select(k, c->args[0], b, a);
  /* select(p, select(q, x, y), y) tests once; not when p guards loads in q */
  if (inner->op == CMZ_X_SELECT && inner->args[2] == b && !cmz_x_info(k, inner->args[0])->has_load)
    return cmz_x_select(k, cmz_x2(k, CMZ_X_AND, condition, inner->args[0]), inner->args[1], b);
  return cmz_x_intern(k, &n);
}

static bool fold_cast(cmz_kernel *k, cmz_expr a, cmz_dtype to, cmz_expr *out) {
  cmz_dtype from = dtype_of(k, a);
  int64_t v;
  double f;
  if (cmz_x_is_int(k, a, &v)) {
    double real = from == CMZ_U64 ? (double)(uint64_t)v : (double)v;
    if (to == CMZ_F32) real = from == CMZ_U64 ? (double)(float)(uint64_t)v : (double)(float)v;
    *out = cmz_dtype_is_float(to) ? cmz_x_float(k, to, real) : cmz_x_int(k, to, v);
    return true;
  }
  if (!is_float_const(k, a, &f)) return false;
  if (cmz_dtype_is_float(to)) *out = cmz_x_float(k, to, f);
  else if (to == CMZ_BOOL) *out = cmz_x_bool(k, f != 0);
  else if (f > -2147483648.0 && f < 2147483647.0 && (f >= 0 || (to != CMZ_U32 && to != CMZ_U64)))
    *out = cmz_x_int(k, to, (int64_t)f);
  else return false;
  return true;
}

cmz_expr cmz_x_cast(cmz_kernel *k, cmz_expr a, cmz_dtype to) {
  cmz_dtype from = dtype_of(k, a);
  to = cmz_dtype_info(to)->compute;
  if (from == to) return a;
  cmz_expr_node n = {.op = CMZ_X_CAST, .dtype = (uint8_t)to, .args = {a}};
  if (cmz_pool(k)->raw) return cmz_x_intern(k, &n);
  cmz_expr folded;
  if (fold_cast(k, a, to, &folded)) return folded;
  if (to == CMZ_BOOL && !cmz_dtype_is_float(from))
    return cmz_x1(k, CMZ_X_NOT, cmz_x2(k, CMZ_X_EQ, a, cmz_x_int(k, from, 0)));
  const cmz_expr_node *inner = cmz_x_get(k, a);
  if (inner->op == CMZ_X_CAST && !inner->i) {
    cmz_dtype first = dtype_of(k, inner->args[0]);
    bool floats = cmz_dtype_is_float(first) || cmz_dtype_is_float(from) || cmz_dtype_is_float(to);
    /* Integers: the middle type does not matter when it is at least as wide as the last, or holds
     * the first. */
    if (!floats && from != CMZ_BOOL && to != CMZ_BOOL && first != CMZ_U64 && from != CMZ_U64 &&
        (int_bits(from) >= int_bits(to) || first == CMZ_BOOL))
      return cmz_x_cast(k, inner->args[0], to);
    if (first == CMZ_F32 && from == CMZ_F64 && to == CMZ_F32) return inner->args[0];
    if (first == CMZ_BOOL && cmz_dtype_is_float(to)) return cmz_x_cast(k, inner->args[0], to);
  }
  return cmz_x_intern(k, &n);
}

cmz_expr cmz_x_cast_through(cmz_kernel *k, cmz_expr a, cmz_dtype to) {
  const cmz_dtype_row *row = cmz_dtype_info(to);
  if (row->compute == to) return cmz_x_cast(k, a, to);
  if (row->class_ == CMZ_CLASS_FLOAT) {
    a = cmz_x_cast(k, a, row->compute);
    const cmz_expr_node *n = cmz_x_get(k, a);
    if (n->op == CMZ_X_CONST_FLOAT && !cmz_pool(k)->raw) {
      uint64_t stored = 0;
      cmz_dtype_set_f64_mode(to, &stored, 0, n->f, !cmz_keeps_infinity(to, n->f));
      return cmz_x_float(k, row->compute, cmz_dtype_get_f64(to, &stored, 0));
    }
    if ((n->op == CMZ_X_CAST && n->i == to) ||
        (n->op == CMZ_X_LOAD && k->operands.data[n->i].dtype == to))
      return a;
    if (to == CMZ_F4E2M1) return cmz_x_f4_of_code(k, cmz_x_code_of_f4(k, a));
    if (to == CMZ_F8E8M0) return cmz_x_round_e8m0(k, a, CMZ_E8M0_UP, true);
    cmz_expr_node cast = {.op = CMZ_X_CAST, .dtype = (uint8_t)row->compute, .args = {a}};
    cast.i = to;
    return cmz_x_intern(k, &cast);
  }
  a = cmz_x_cast(k, a, row->compute);
  uint32_t bits = row->bits, spare = 32 - bits;
  const cmz_expr_info *info = cmz_x_info(k, a);
  if (row->class_ == CMZ_CLASS_UNSIGNED)
    return cmz_x2(k, CMZ_X_AND, a, cmz_x_int(k, row->compute, ((int64_t)1 << bits) - 1));
  if (info->low >= -((int64_t)1 << (bits - 1)) && info->high < (int64_t)1 << (bits - 1)) return a;
  cmz_expr shift = cmz_x_int(k, row->compute, spare);
  return cmz_x2(k, CMZ_X_SHR, cmz_x2(k, CMZ_X_SHL, a, shift), shift);
}

cmz_expr cmz_x_bitcast(cmz_kernel *k, cmz_expr a, cmz_dtype to) {
  cmz_expr_node n = {.op = CMZ_X_BITCAST, .dtype = (uint8_t)to, .args = {a}};
  return dtype_of(k, a) == to ? a : cmz_x_intern(k, &n);
}

/* ---- reduce ---- */

static bool is_arg_reduce(cmz_reduce_op op) { return op >= CMZ_REDUCE_ARGMAX; }

static cmz_expr reduce_from(cmz_kernel *k, cmz_reduce_op op, cmz_expr body, cmz_expr start,
                            const uint16_t *axes, uint32_t axis_count) {
  cmz_expr_node n = {.op = CMZ_X_REDUCE, .args = {body, start}};
  n.dtype = is_arg_reduce(op) ? CMZ_I64 : cmz_x_get(k, body)->dtype;
  n.reduce_op = (uint8_t)op;
  bool raw = cmz_pool(k)->raw;
  bool idempotent =
      op == CMZ_REDUCE_MAX || op == CMZ_REDUCE_MIN || op == CMZ_REDUCE_AND || op == CMZ_REDUCE_OR;
  for (uint32_t i = 0; i < axis_count && n.axis_count < CMZ_REDUCE_MAX_AXES; i++) {
    int64_t extent;
    if (!raw && cmz_x_is_int(k, k->axes.data[axes[i]].extent, &extent) &&
        (extent == 1 || (extent > 1 && idempotent && !cmz_x_uses_axis(k, body, axes[i]))))
      continue;
    n.axes[n.axis_count++] = axes[i];
  }
  if (n.axis_count) return cmz_x_intern(k, &n);
  if (start) return cmz_x2(k, CMZ_X_ADD, start, body);
  return is_arg_reduce(op) ? cmz_x_index(k, 0) : body;
}

cmz_expr cmz_x_reduce(cmz_kernel *k, cmz_reduce_op op, cmz_expr body, const uint16_t *axes,
                      uint32_t axis_count) {
  return reduce_from(k, op, body, 0, axes, axis_count);
}

cmz_expr cmz_x_sum_from(cmz_kernel *k, cmz_expr start, cmz_expr body, const uint16_t *axes,
                        uint32_t axis_count) {
  return reduce_from(k, CMZ_REDUCE_SUM, body, start, axes, axis_count);
}

cmz_expr cmz_x_rebuild(cmz_kernel *k, cmz_expr e, const cmz_expr *args) {
  cmz_expr_node n = *cmz_x_get(k, e);
  cmz_expr a = args[0], b = args[1], c = args[2];
  switch ((cmz_expr_op)n.op) {
  case CMZ_X_CONST_INT:
  case CMZ_X_CONST_FLOAT:
  case CMZ_X_PARAM:
    return cmz_x_intern(k, &n);
  case CMZ_X_AXIS:
    return cmz_x_axis(k, (uint16_t)n.i);
  case CMZ_X_LOAD:
    return cmz_x_load(k, (uint16_t)n.i, a);
  case CMZ_X_REDUCE:
    return reduce_from(k, (cmz_reduce_op)n.reduce_op, a, b, n.axes, n.axis_count);
  case CMZ_X_SELECT:
    return cmz_x_select(k, a, b, c);
  case CMZ_X_CAST:
    return n.i ? cmz_x_cast_through(k, a, (cmz_dtype)n.i) : cmz_x_cast(k, a, (cmz_dtype)n.dtype);
  case CMZ_X_BITCAST:
    return cmz_x_bitcast(k, a, (cmz_dtype)n.dtype);
  default:
    break;
  }
  return n.args[1] ? cmz_x2(k, (cmz_expr_op)n.op, a, b) : cmz_x1(k, (cmz_expr_op)n.op, a);
}
