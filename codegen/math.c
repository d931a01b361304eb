/* math.c - the functions of kernel expressions as polynomials of arith operations, on scalars and
 * vectors alike. In: f32 or f64 values. Out: the same type. What neural networks use all the time
 * (exp, log, tanh, sigmoid, erf) has f32 forms of one to two units in the last place; the other
 * functions of f32 are computed in f64 on CPUs, and on GPUs, which lack it or are slow in it, in
 * f32 where pairs of numbers (a sum that was not rounded) carry what one cannot. Always holds:
 * infinities, NaN and denormals give what C's libm gives; nothing here becomes a library call. */
#include "builder.h"

#include "mlir-c/BuiltinTypes.h"

#define K(v) cmz_b_float(b, t, (v))

static bool is_f64(MlirValue x) { return cmz_b_bits(cmz_b_type(x)) == 64; }
static MlirValue div_(cmz_builder *b, MlirValue x, MlirValue y) {
  return cmz_b_2(b, "arith.divf", x, y);
}
static MlirValue abs_(cmz_builder *b, MlirValue x) { return cmz_b_1(b, "llvm.intr.fabs", x); }
static MlirValue sqrt_(cmz_builder *b, MlirValue x) { return cmz_b_1(b, "llvm.intr.sqrt", x); }
static MlirValue sign_of(cmz_builder *b, MlirValue magnitude, MlirValue sign) {
  return cmz_b_2(b, "llvm.intr.copysign", magnitude, sign);
}

/* c[0] x^(n-1) + … + c[n-1] */
static MlirValue horner(cmz_builder *b, MlirValue x, const double *c, size_t n) {
  MlirType t = cmz_b_type(x);
  MlirValue r = K(c[0]);
  for (size_t i = 1; i < n; i++) r = cmz_b_fma(b, r, x, K(c[i]));
  return r;
}

/* ---- pairs: a number and what rounding took from it ---- */

typedef struct pair {
  MlirValue high, low;
} pair;

/* x + y */
static pair two_sum(cmz_builder *b, MlirValue x, MlirValue y) {
  MlirValue s = cmz_b_add(b, x, y), v = cmz_b_sub(b, s, x);
  MlirValue rest = cmz_b_sub(b, x, cmz_b_sub(b, s, v));
  return (pair){s, cmz_b_add(b, rest, cmz_b_sub(b, y, v))};
}

/* The upper 12 bits of an f32's significand, and the others. */
static pair halves(cmz_builder *b, MlirValue x) {
  MlirValue bits = cmz_b_bitcast(b, x, b->i32);
  MlirValue kept = cmz_b_2(b, "arith.andi", bits, cmz_b_int(b, cmz_b_type(bits), -4096));
  MlirValue high = cmz_b_bitcast(b, kept, b->f32);
  return (pair){high, cmz_b_sub(b, x, high)};
}

/* x * y (f32) */
static pair two_product(cmz_builder *b, MlirValue x, MlirValue y) {
  MlirValue p = cmz_b_mul(b, x, y), minus = cmz_b_1(b, "arith.negf", p);
  if (b->cpu->fma) return (pair){p, cmz_b_fma(b, x, y, minus)};
  pair u = halves(b, x), v = halves(b, y);
  MlirValue e = cmz_b_add(b, cmz_b_mul(b, u.high, v.high), minus);
  e = cmz_b_add(b, e, cmz_b_mul(b, u.high, v.low));
  e = cmz_b_add(b, e, cmz_b_mul(b, u.low, v.high));
  return (pair){p, cmz_b_add(b, e, cmz_b_mul(b, u.low, v.low))};
}

/* ---- rounding ---- */

static MlirValue round_even(cmz_builder *b, MlirValue x) {
  if (b->cpu->rounding) return cmz_b_1(b, "llvm.intr.roundeven", x);
  MlirType t = cmz_b_type(x);
  MlirValue a = abs_(b, x), magic = K(is_f64(x) ? 0x1p52 : 0x1p23);
  MlirValue r = cmz_b_sub(b, cmz_b_add(b, a, magic), magic);
  return sign_of(b, cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OLT, a, magic), r, a), x);
}

static MlirValue round_to(cmz_builder *b, cmz_expr_op op, MlirValue x) {
  static const char *const names[] = {[CMZ_X_FLOOR] = "llvm.intr.floor",
                                      [CMZ_X_CEIL] = "llvm.intr.ceil",
                                      [CMZ_X_TRUNC] = "llvm.intr.trunc"};
  if (op == CMZ_X_ROUND_EVEN) return round_even(b, x);
  if (b->cpu->rounding) return cmz_b_1(b, names[op], x);
  MlirType t = cmz_b_type(x);
  MlirValue from = op == CMZ_X_TRUNC ? abs_(b, x) : x, r = round_even(b, from);
  bool up = op == CMZ_X_CEIL;
  MlirValue wrong = cmz_b_fcmp(b, up ? CMZ_B_OLT : CMZ_B_OGT, r, from);
  r = cmz_b_select(b, wrong, cmz_b_add(b, r, K(up ? 1 : -1)), r);
  return sign_of(b, r, x);
}

/* ---- exp, log ---- */

/* X, kept within LOW..HIGH; NaN stays. */
static MlirValue clamp(cmz_builder *b, MlirValue x, double low, double high) {
  MlirType t = cmz_b_type(x);
  x = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OLT, x, K(low)), K(low), x);
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, x, K(high)), K(high), x);
}

/* P * 2^N for an integer N that may leave the exponent's range: in two steps. */
static MlirValue scale(cmz_builder *b, MlirValue p, MlirValue n) {
  bool wide = is_f64(p);
  MlirType element = wide ? b->f64 : b->f32, t = cmz_b_type(n);
  int64_t bits = wide ? 52 : 23, bias = wide ? 1023 : 127;
  MlirValue half = cmz_b_2(b, "arith.shrsi", n, cmz_b_int(b, t, 1));
  MlirValue rest = cmz_b_sub(b, n, half), shift = cmz_b_int(b, t, bits), c = cmz_b_int(b, t, bias);
  MlirValue f1 = cmz_b_bitcast(b, cmz_b_2(b, "arith.shli", cmz_b_add(b, half, c), shift), element);
  MlirValue f2 = cmz_b_bitcast(b, cmz_b_2(b, "arith.shli", cmz_b_add(b, rest, c), shift), element);
  return cmz_b_mul(b, cmz_b_mul(b, p, f1), f2);
}

/* x = n * log 2 + r: n as a float and as an integer, by adding a number whose last bit is 1. */
static MlirValue split(cmz_builder *b, MlirValue x, double factor, MlirValue *n) {
  MlirType t = cmz_b_type(x);
  bool wide = is_f64(x);
  MlirValue magic = K(wide ? 0x1.8p52 : 0x1.8p23);
  MlirValue shifted = cmz_b_fma(b, x, K(factor), magic);
  MlirType integer = wide ? b->bits64 : b->i32;
  *n = cmz_b_sub(b, cmz_b_bitcast(b, shifted, integer), cmz_b_bitcast(b, magic, integer));
  return cmz_b_sub(b, shifted, magic);
}

/* X for exp: what underflows to zero anyway is computed as exp(0) and replaced in the end (masked
 * scores of attention would else cost a microcode assist for each denormal on the way). */
static MlirValue exp_input(cmz_builder *b, MlirValue x, double low, double high,
                           MlirValue *underflow) {
  MlirType t = cmz_b_type(x);
  *underflow = cmz_b_fcmp(b, CMZ_B_OLT, x, K(low));
  x = cmz_b_select(b, *underflow, K(0), x);
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, x, K(high)), K(high), x);
}

/* exp(x + low) * 2^shift; LOW (may be null) is small beside X. */
static MlirValue exp_pair(cmz_builder *b, MlirValue x, MlirValue low, int shift) {
  static const double c[] = {1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3,
                             4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1};
  MlirType t = cmz_b_type(x);
  MlirValue under;
  x = exp_input(b, x, -103.98, 89 - shift, &under);
  MlirValue n, f = split(b, x, 1.44269504088896341, &n);
  MlirValue r = cmz_b_fma(b, f, K(-0.693359375), x);
  r = cmz_b_fma(b, f, K(2.12194440e-4), r);
  if (low.ptr) r = cmz_b_add(b, r, low);
  if (shift) n = cmz_b_add(b, n, cmz_b_int(b, cmz_b_type(n), shift));
  MlirValue p = horner(b, r, c, CMZ_COUNT_OF(c));
  p = cmz_b_fma(b, p, cmz_b_mul(b, r, r), cmz_b_add(b, r, K(1)));
  return cmz_b_select(b, under, K(0), scale(b, p, n));
}

static MlirValue exp_f32(cmz_builder *b, MlirValue x) {
  return exp_pair(b, x, (MlirValue){NULL}, 0);
}

static MlirValue exp_f64(cmz_builder *b, MlirValue x) {
  double c[14], factorial = 1;
  for (int i = 0; i < 14; i++) {
    c[13 - i] = 1 / factorial;
    factorial *= i + 1;
  }
  MlirType t = cmz_b_type(x);
  MlirValue under;
  x = exp_input(b, x, -745.14, 710, &under);
  MlirValue n, f = split(b, x, 1.44269504088896340736, &n);
  MlirValue r = cmz_b_fma(b, f, K(-6.93147180369123816490e-01), x);
  r = cmz_b_fma(b, f, K(-1.90821492927058770002e-10), r);
  return cmz_b_select(b, under, K(0), scale(b, horner(b, r, c, 14), n));
}

static MlirValue exp_(cmz_builder *b, MlirValue x) {
  return is_f64(x) ? exp_f64(b, x) : exp_f32(b, x);
}

/* log of 0, negative numbers, infinity and NaN instead of R. */
static MlirValue log_special(cmz_builder *b, MlirValue x, MlirValue r) {
  MlirType t = cmz_b_type(x);
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, x, K(0)), K(-__builtin_inf()), r);
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, x, K(__builtin_inf())), x, r);
  MlirValue bad =
      cmz_b_2(b, "arith.ori", cmz_b_fcmp(b, CMZ_B_OLT, x, K(0)), cmz_b_fcmp(b, CMZ_B_UNO, x, x));
  return cmz_b_select(b, bad, K(__builtin_nan("")), r);
}

/* x = m * 2^e with m in [sqrt(1/2), sqrt(2)); e as a float. */
static MlirValue mantissa(cmz_builder *b, MlirValue x, MlirValue *e) {
  bool wide = is_f64(x);
  MlirType t = cmz_b_type(x), integer = wide ? b->bits64 : b->i32;
  int64_t bits = wide ? 52 : 23;
  MlirValue tiny = cmz_b_fcmp(b, CMZ_B_OLT, x, K(wide ? 0x1p-1022 : 0x1p-126));
  MlirValue up = cmz_b_select(b, tiny, cmz_b_mul(b, x, K(wide ? 0x1p54 : 0x1p25)), x);
  MlirValue i = cmz_b_bitcast(b, up, integer);
  MlirType it = cmz_b_type(i);
  int64_t half = wide ? 0x3fe6a09e00000000 : 0x3f3504f3; /* sqrt(1/2) */
  MlirValue d = cmz_b_sub(b, i, cmz_b_int(b, it, half));
  MlirValue exponent = cmz_b_2(b, "arith.shrsi", d, cmz_b_int(b, it, bits));
  MlirValue kept = cmz_b_sub(b, i, cmz_b_2(b, "arith.shli", exponent, cmz_b_int(b, it, bits)));
  MlirValue ef = cmz_b_cast(b, "arith.sitofp",
                            wide ? cmz_b_cast(b, "arith.trunci", exponent, b->i32) : exponent,
                            wide ? b->f64 : b->f32);
  *e = cmz_b_select(b, tiny, cmz_b_sub(b, ef, K(wide ? 54 : 25)), ef);
  return cmz_b_bitcast(b, kept, wide ? b->f64 : b->f32);
}

static MlirValue log_f32(cmz_builder *b, MlirValue x) {
  static const double c[] = {7.0376836292e-2,  -1.1514610310e-1, 1.1676998740e-1,
                             -1.2420140846e-1, 1.4249322787e-1,  -1.6668057665e-1,
                             2.0000714765e-1,  -2.4999993993e-1, 3.3333331174e-1};
  MlirType t = cmz_b_type(x);
  MlirValue e, m = mantissa(b, x, &e), z = cmz_b_sub(b, m, K(1)), zz = cmz_b_mul(b, z, z);
  MlirValue y = cmz_b_mul(b, cmz_b_mul(b, horner(b, z, c, CMZ_COUNT_OF(c)), z), zz);
  y = cmz_b_fma(b, e, K(-2.12194440e-4), y);
  y = cmz_b_fma(b, zz, K(-0.5), y);
  return log_special(b, x, cmz_b_fma(b, e, K(0.693359375), cmz_b_add(b, z, y)));
}

static MlirValue log_f64(cmz_builder *b, MlirValue x) {
  double c[12];
  for (int i = 0; i < 12; i++) c[11 - i] = 2.0 / (2 * i + 1);
  MlirType t = cmz_b_type(x);
  MlirValue e, m = mantissa(b, x, &e);
  MlirValue s = div_(b, cmz_b_sub(b, m, K(1)), cmz_b_add(b, m, K(1)));
  MlirValue r = cmz_b_mul(b, s, horner(b, cmz_b_mul(b, s, s), c, 12));
  r = cmz_b_fma(b, e, K(1.90821492927058770002e-10), r);
  return log_special(b, x, cmz_b_fma(b, e, K(6.93147180369123816490e-01), r));
}

static MlirValue log_(cmz_builder *b, MlirValue x) {
  return is_f64(x) ? log_f64(b, x) : log_f32(b, x);
}

/* log x to twice f32's precision, for X >= 0: x = m 2^e, log m = 2 atanh((m - 1) / (m + 1)). */
static pair log_pair(cmz_builder *b, MlirValue x) {
  static const double c[] = {1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3};
  MlirType t = cmz_b_type(x);
  MlirValue e, m = mantissa(b, x, &e), n = cmz_b_sub(b, m, K(1));
  pair d = two_sum(b, K(1), m);
  MlirValue s = div_(b, n, d.high);
  pair p = two_product(b, s, d.high);
  MlirValue left = cmz_b_sub(b, cmz_b_sub(b, n, p.high), p.low);
  left = div_(b, cmz_b_sub(b, left, cmz_b_mul(b, s, d.low)), d.high);
  MlirValue z = cmz_b_mul(b, s, s), series = cmz_b_mul(b, z, horner(b, z, c, CMZ_COUNT_OF(c)));
  MlirValue low = cmz_b_mul(b, K(2), cmz_b_add(b, left, cmz_b_mul(b, s, series)));
  low = cmz_b_add(b, low, cmz_b_mul(b, e, K(-2.12194440e-4)));
  pair r = two_sum(b, cmz_b_mul(b, e, K(0.693359375)), cmz_b_mul(b, K(2), s));
  r = two_sum(b, r.high, cmz_b_add(b, r.low, low));
  return (pair){log_special(b, x, r.high), r.low};
}

/* log(1 + y) without loss for small y. */
static MlirValue log1p_(cmz_builder *b, MlirValue y) {
  MlirType t = cmz_b_type(y);
  MlirValue u = cmz_b_add(b, y, K(1)), d = cmz_b_sub(b, u, K(1));
  MlirValue r = cmz_b_mul(b, log_(b, u), div_(b, y, d));
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, d, K(0)), y, r);
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, y, K(__builtin_inf())), y, r);
}

/* ---- tanh, sigmoid, erf ---- */

/* In f32 a quotient of odd and even polynomials plus one half, saturated beyond 18: no exponential,
 * and the absolute error is within an ulp or two of 0.5. Its tail is what widely used runtimes
 * give: exactly 0 where they give 0. */
static MlirValue sigmoid(cmz_builder *b, MlirValue x) {
  static const double p[] = {4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05,
                             8.51377133304701e-03, 2.48287947061529e-01};
  static const double q[] = {6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06,
                             1.70198817374094e-03, 1.16817656904453e-01, 9.93151921023180e-01};
  MlirType t = cmz_b_type(x);
  if (is_f64(x)) return div_(b, K(1), cmz_b_add(b, K(1), exp_(b, cmz_b_1(b, "arith.negf", x))));
  /* A NaN passes both comparisons unchanged. */
  MlirValue y = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OLT, x, K(-18)), K(-18), x);
  y = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, y, K(18)), K(18), y);
  MlirValue yy = cmz_b_mul(b, y, y);
  MlirValue r = div_(b, cmz_b_mul(b, horner(b, yy, p, 5), y), horner(b, yy, q, 6));
  r = cmz_b_add(b, r, K(0.5));
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OLT, r, K(0)), K(0), r);
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, r, K(1)), K(1), r);
}

/* x + x^3/3! + … (|x| below one half) */
static MlirValue sinh_series(cmz_builder *b, MlirValue x) {
  double c[10], factorial = 1;
  for (int i = 0; i < 10; i++) {
    c[9 - i] = 1 / factorial;
    factorial *= (2 * i + 2) * (2 * i + 3);
  }
  int n = is_f64(x) ? 10 : 5;
  return cmz_b_mul(b, x, horner(b, cmz_b_mul(b, x, x), c + 10 - n, (size_t)n));
}

static MlirValue tanh_large(cmz_builder *b, MlirValue x) {
  MlirType t = cmz_b_type(x);
  MlirValue e = exp_(b, cmz_b_mul(b, abs_(b, x), K(2)));
  return sign_of(b, cmz_b_sub(b, K(1), div_(b, K(2), cmz_b_add(b, e, K(1)))), x);
}

static MlirValue tanh_(cmz_builder *b, MlirValue x) {
  static const double c[] = {-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2,
                             1.33314422036e-1, -3.33332819422e-1};
  MlirType t = cmz_b_type(x);
  MlirValue small, xx = cmz_b_mul(b, x, x);
  if (is_f64(x)) {
    MlirValue s = sinh_series(b, x);
    small = div_(b, s, sqrt_(b, cmz_b_fma(b, s, s, K(1))));
  } else {
    small = cmz_b_fma(b, cmz_b_mul(b, horner(b, xx, c, CMZ_COUNT_OF(c)), xx), x, x);
  }
  MlirValue is_small = cmz_b_fcmp(b, CMZ_B_OLT, abs_(b, x), K(is_f64(x) ? 0.5 : 0.625));
  return cmz_b_select(b, is_small, small, tanh_large(b, x));
}

static MlirValue erf_f32(cmz_builder *b, MlirValue x) {
  static const double far[] = {-1.72853470e-5, 3.83197126e-4,  -3.88396438e-3, 2.42546219e-2,
                               -1.06777877e-1, -6.34846687e-1, -1.28717512e-1};
  static const double near[] = {-5.96761703e-4, 4.99119423e-3,  -2.67681349e-2,
                                1.12819925e-1,  -3.76125336e-1, 1.28379166e-1};
  MlirType t = cmz_b_type(x);
  MlirValue a = abs_(b, x), s = cmz_b_mul(b, x, x);
  MlirValue r = horner(b, a, far, CMZ_COUNT_OF(far));
  r = cmz_b_fma(b, r, a, cmz_b_1(b, "arith.negf", a));
  r = sign_of(b, cmz_b_sub(b, K(1), exp_f32(b, r)), x);
  /* beyond 4 the polynomial's sign may turn; erf is 1 to the last bit there */
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, a, K(4)), sign_of(b, K(1), x), r);
  MlirValue close = cmz_b_fma(b, horner(b, s, near, CMZ_COUNT_OF(near)), x, x);
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, a, K(0.927734375)), r, close);
}

/* Below 3: 2/sqrt(pi) exp(-x^2) sum of 2^k x^(2k+1) / (2k+1)!!, all terms positive. Above: 1 - the
 * continued fraction of erfc. */
static MlirValue erf_f64(cmz_builder *b, MlirValue x) {
  enum { TERMS = 60, LEVELS = 40 };
  const double root_pi = 1.77245385090551602730;
  double c[TERMS], term = 2 / root_pi;
  MlirType t = cmz_b_type(x);
  for (int i = 0; i < TERMS; i++) {
    c[TERMS - 1 - i] = term;
    term *= 2.0 / (2 * i + 3);
  }
  MlirValue a = abs_(b, x), s = cmz_b_mul(b, a, a);
  MlirValue e = exp_f64(b, cmz_b_1(b, "arith.negf", s));
  MlirValue limited = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, s, K(9)), K(9), s);
  MlirValue near = cmz_b_mul(b, cmz_b_mul(b, horner(b, limited, c, TERMS), a), e);
  MlirValue f = a;
  for (int k = LEVELS; k > 0; k--) f = cmz_b_add(b, a, div_(b, K(k / 2.0), f));
  MlirValue far = cmz_b_sub(b, K(1), div_(b, e, cmz_b_mul(b, f, K(root_pi))));
  far = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, a, K(6)), K(1), far);
  MlirValue r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, a, K(3)), far, near);
  return sign_of(b, r, x);
}

/* ---- trigonometry ---- */

static MlirValue sin_series(cmz_builder *b, MlirValue r) {
  static const double few[] = {-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1};
  double c[9], factorial = 1;
  for (int i = 0; i < 9; i++) {
    c[8 - i] = (i % 2 ? -1 : 1) / factorial;
    factorial *= (2 * i + 2) * (2 * i + 3);
  }
  MlirValue s = cmz_b_mul(b, r, r), p = is_f64(r) ? horner(b, s, c, 8) : horner(b, s, few, 3);
  return cmz_b_fma(b, cmz_b_mul(b, p, s), r, r);
}

static MlirValue cos_series(cmz_builder *b, MlirValue r) {
  static const double few[] = {2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2,
                               -0.5, 1};
  double c[10], factorial = 1;
  for (int i = 0; i < 10; i++) {
    c[9 - i] = (i % 2 ? -1 : 1) / factorial;
    factorial *= (2 * i + 1) * (2 * i + 2);
  }
  MlirValue s = cmz_b_mul(b, r, r);
  return is_f64(r) ? horner(b, s, c, 10) : horner(b, s, few, 5);
}

/* x - f * pi/2; pi/2 in three parts of 33 bits. */
static pair turned_f64(cmz_builder *b, MlirValue x, MlirValue f) {
  MlirType t = cmz_b_type(x);
  MlirValue r = cmz_b_fma(b, f, K(-1.57079632673412561417e+00), x);
  r = cmz_b_fma(b, f, K(-6.07710050630396597660e-11), r);
  r = cmz_b_fma(b, f, K(-2.02226624871116645580e-21), r);
  return (pair){clamp(b, r, -1, 1), {NULL}};
}

/* The same for f32, pi/2 in three numbers; |x| up to about 6e6. */
static pair turned_f32(cmz_builder *b, MlirValue x, MlirValue f) {
  MlirType t = cmz_b_type(x);
  pair p = two_product(b, f, K(1.57079637050628662109375));
  pair q = two_product(b, f, K(-4.37113900018624283e-8));
  pair r = two_sum(b, cmz_b_sub(b, x, p.high), cmz_b_1(b, "arith.negf", p.low));
  pair s = two_sum(b, r.high, cmz_b_1(b, "arith.negf", q.high));
  MlirValue low = cmz_b_sub(b, cmz_b_add(b, r.low, s.low), q.low);
  low = cmz_b_add(b, low, cmz_b_mul(b, f, K(1.71512447809112e-15)));
  return (pair){clamp(b, s.high, -1, 1), low};
}

/* sin of x + shift * pi/2, by quadrants. */
static MlirValue sine(cmz_builder *b, MlirValue x, int shift) {
  MlirType t = cmz_b_type(x);
  MlirValue n, f = split(b, x, 6.36619772367581382433e-01, &n);
  pair r = is_f64(x) ? turned_f64(b, x, f) : turned_f32(b, x, f);
  MlirType it = cmz_b_type(n);
  if (shift) n = cmz_b_add(b, n, cmz_b_int(b, it, shift));
  MlirValue odd = cmz_b_icmp(b, CMZ_B_INE, cmz_b_2(b, "arith.andi", n, cmz_b_int(b, it, 1)),
                             cmz_b_int(b, it, 0));
  MlirValue minus = cmz_b_icmp(b, CMZ_B_INE, cmz_b_2(b, "arith.andi", n, cmz_b_int(b, it, 2)),
                               cmz_b_int(b, it, 0));
  MlirValue c = cos_series(b, r.high), s = sin_series(b, r.high);
  if (r.low.ptr) {
    c = cmz_b_sub(b, c, cmz_b_mul(b, r.high, r.low));
    s = cmz_b_add(b, s, r.low);
  }
  MlirValue v = cmz_b_select(b, odd, c, s);
  v = cmz_b_select(b, minus, cmz_b_1(b, "arith.negf", v), v);
  if (shift) return v;
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, x, K(0)), x, v); /* -0 */
}

static MlirValue atan_(cmz_builder *b, MlirValue x) {
  enum { TERMS = 24 };
  double c[TERMS];
  for (int i = 0; i < TERMS; i++) c[TERMS - 1 - i] = (i % 2 ? -1.0 : 1.0) / (2 * i + 1);
  MlirType t = cmz_b_type(x);
  MlirValue a = abs_(b, x), one = K(1);
  MlirValue large = cmz_b_fcmp(b, CMZ_B_OGT, a, one);
  MlirValue y = cmz_b_select(b, large, div_(b, one, a), a);
  MlirValue middle = cmz_b_fcmp(b, CMZ_B_OGT, y, K(0.41421356237309503));
  MlirValue turned = div_(b, cmz_b_sub(b, y, one), cmz_b_add(b, y, one));
  MlirValue z = cmz_b_select(b, middle, turned, y);
  static const double few[] = {8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1,
                               -3.33329491539e-1, 1};
  MlirValue zz = cmz_b_mul(b, z, z);
  MlirValue r = is_f64(x) ? horner(b, zz, c, TERMS) : horner(b, zz, few, 5);
  r = cmz_b_mul(b, z, r);
  r = cmz_b_select(b, middle, cmz_b_add(b, r, K(0.78539816339744830962)), r);
  r = cmz_b_select(b, large, cmz_b_sub(b, K(1.57079632679489661923), r), r);
  return sign_of(b, r, x);
}

static MlirValue asin_(cmz_builder *b, MlirValue x) {
  MlirType t = cmz_b_type(x);
  MlirValue c = cmz_b_mul(b, cmz_b_sub(b, K(1), x), cmz_b_add(b, K(1), x));
  return atan_(b, div_(b, x, sqrt_(b, c)));
}

static MlirValue acos_(cmz_builder *b, MlirValue x) {
  MlirType t = cmz_b_type(x);
  MlirValue q = div_(b, cmz_b_sub(b, K(1), x), cmz_b_add(b, K(1), x));
  MlirValue r = cmz_b_mul(b, K(2), atan_(b, sqrt_(b, q)));
  MlirValue end = cmz_b_fcmp(b, CMZ_B_OEQ, x, K(-1));
  return cmz_b_select(b, end, K(3.14159265358979323846), r);
}

/* ---- hyperbolic ---- */

/* exp(x) / 2, which is finite a little farther than exp(x). */
static MlirValue half_exp(cmz_builder *b, MlirValue x) {
  MlirType t = cmz_b_type(x);
  if (!is_f64(x)) return exp_pair(b, x, (MlirValue){NULL}, -1);
  return exp_f64(b, cmz_b_sub(b, x, K(0.69314718055994530942)));
}

/* A number whose square is near the largest. */
static double large_root(MlirValue x) { return is_f64(x) ? 1e150 : 1e18; }

static MlirValue sinh_(cmz_builder *b, MlirValue x) {
  MlirType t = cmz_b_type(x);
  MlirValue a = abs_(b, x), e = half_exp(b, a);
  MlirValue r = sign_of(b, cmz_b_sub(b, e, div_(b, K(0.25), e)), x);
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OLT, a, K(0.5)), sinh_series(b, x), r);
}

static MlirValue cosh_(cmz_builder *b, MlirValue x) {
  MlirType t = cmz_b_type(x);
  MlirValue e = half_exp(b, abs_(b, x));
  return cmz_b_add(b, e, div_(b, K(0.25), e));
}

static MlirValue asinh_(cmz_builder *b, MlirValue x) {
  MlirType t = cmz_b_type(x);
  MlirValue a = abs_(b, x), aa = cmz_b_mul(b, a, a);
  MlirValue d = cmz_b_add(b, K(1), sqrt_(b, cmz_b_add(b, aa, K(1))));
  MlirValue r = log1p_(b, cmz_b_add(b, a, div_(b, aa, d)));
  MlirValue large = cmz_b_add(b, log_(b, a), K(0.69314718055994530942));
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, a, K(large_root(x))), large, r);
  return sign_of(b, r, x);
}

static MlirValue acosh_(cmz_builder *b, MlirValue x) {
  MlirType t = cmz_b_type(x);
  MlirValue d = cmz_b_sub(b, x, K(1));
  MlirValue root = sqrt_(b, cmz_b_mul(b, d, cmz_b_add(b, d, K(2))));
  MlirValue r = log1p_(b, cmz_b_add(b, d, root));
  MlirValue large = cmz_b_add(b, log_(b, x), K(0.69314718055994530942));
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, x, K(large_root(x))), large, r);
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OLT, x, K(1)), K(__builtin_nan("")), r);
}

static MlirValue atanh_(cmz_builder *b, MlirValue x) {
  MlirType t = cmz_b_type(x);
  MlirValue a = abs_(b, x), q = div_(b, cmz_b_mul(b, a, K(2)), cmz_b_sub(b, K(1), a));
  return sign_of(b, cmz_b_mul(b, K(0.5), log1p_(b, q)), x);
}

/* ---- pow, fmod ---- */

/* a^y for a >= 0, but for what powers of 0, 1 and infinity are by definition. */
static MlirValue pow_positive(cmz_builder *b, MlirValue a, MlirValue y) {
  MlirType t = cmz_b_type(a);
  if (is_f64(a)) return exp_f64(b, cmz_b_mul(b, y, log_f64(b, a)));
  pair l = log_pair(b, a), p = two_product(b, y, l.high);
  MlirValue low = cmz_b_add(b, p.low, cmz_b_mul(b, y, l.low));
  MlirValue usual = cmz_b_fcmp(b, CMZ_B_OLT, abs_(b, p.high), K(1000));
  return exp_pair(b, p.high, cmz_b_select(b, usual, low, K(0)), 0);
}

static MlirValue pow_(cmz_builder *b, MlirValue x, MlirValue y) {
  MlirType t = cmz_b_type(x);
  MlirValue one = K(1), a = abs_(b, x), half = cmz_b_mul(b, y, K(0.5));
  MlirValue r = pow_positive(b, a, y);
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, a, one), one, r);
  MlirValue whole = cmz_b_fcmp(b, CMZ_B_OEQ, round_to(b, CMZ_X_FLOOR, y), y);
  MlirValue halves = cmz_b_fcmp(b, CMZ_B_UNE, round_to(b, CMZ_X_FLOOR, half), half);
  MlirValue odd = cmz_b_2(b, "arith.andi", whole, halves);
  /* Negated where both hold: a choice between two 64-bit patterns of bits is one that Mesa's
   * llvmpipe (22.3) gets wrong. The sign of X is asked of a number so that -0 has one. */
  MlirValue minus = cmz_b_fcmp(b, CMZ_B_OLT, sign_of(b, one, x), K(0));
  r = cmz_b_select(b, cmz_b_2(b, "arith.andi", odd, minus), cmz_b_1(b, "arith.negf", r), r);
  MlirValue negative = cmz_b_fcmp(b, CMZ_B_OLT, x, K(0));
  MlirValue finite = cmz_b_fcmp(b, CMZ_B_UNE, a, K(__builtin_inf()));
  MlirValue fraction = cmz_b_2(b, "arith.xori", whole, cmz_b_int(b, cmz_b_type(whole), 1));
  MlirValue bad = cmz_b_2(b, "arith.andi", cmz_b_2(b, "arith.andi", negative, finite), fraction);
  r = cmz_b_select(b, bad, K(__builtin_nan("")), r);
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_UNO, y, y), y, r);
  MlirValue plain =
      cmz_b_2(b, "arith.ori", cmz_b_fcmp(b, CMZ_B_OEQ, y, K(0)), cmz_b_fcmp(b, CMZ_B_OEQ, x, one));
  return cmz_b_select(b, plain, one, r);
}

static MlirValue wide_binary(cmz_builder *b, MlirValue x, MlirValue y,
                             MlirValue (*f)(cmz_builder *, MlirValue, MlirValue)) {
  cmz_b_match(b, &x, &y);
  if (is_f64(x) || b->cpu->threads) return f(b, x, y);
  MlirValue r =
      f(b, cmz_b_cast(b, "arith.extf", x, b->f64), cmz_b_cast(b, "arith.extf", y, b->f64));
  return cmz_b_cast(b, "arith.truncf", r, b->f32);
}

MlirValue cmz_b_pow(cmz_builder *b, MlirValue x, MlirValue y) { return wide_binary(b, x, y, pow_); }

/* |x| - |y| * trunc(|x| / |y|), perhaps off by |y|. */
static MlirValue rest_f64(cmz_builder *b, MlirValue ax, MlirValue ay) {
  MlirValue q = round_to(b, CMZ_X_TRUNC, div_(b, ax, ay));
  return cmz_b_fma(b, cmz_b_1(b, "arith.negf", q), ay, ax);
}

/* The same for f32: 12 bits of the quotient at a time, whose product with either half of |y| is
 * exact. Quotients up to 2^40. */
static MlirValue rest_f32(cmz_builder *b, MlirValue ax, MlirValue ay) {
  pair y = halves(b, ay);
  MlirValue r = ax;
  for (int i = 0; i < 4; i++) {
    MlirValue q = round_to(b, CMZ_X_TRUNC, halves(b, div_(b, r, ay)).high);
    r = cmz_b_sub(b, r, cmz_b_mul(b, q, y.high));
    r = cmz_b_sub(b, r, cmz_b_mul(b, q, y.low));
  }
  return r;
}

/* The quotient may be off by one, which shows as a remainder outside [0, |y|). */
static MlirValue fmod_(cmz_builder *b, MlirValue x, MlirValue y) {
  MlirType t = cmz_b_type(x);
  MlirValue ax = abs_(b, x), ay = abs_(b, y);
  MlirValue r = is_f64(x) ? rest_f64(b, ax, ay) : rest_f32(b, ax, ay);
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OLT, r, K(0)), cmz_b_add(b, r, ay), r);
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGE, r, ay), cmz_b_sub(b, r, ay), r);
  MlirValue less = cmz_b_fcmp(b, CMZ_B_OLT, ax, ay);
  return cmz_b_select(b, less, x, sign_of(b, r, x));
}

MlirValue cmz_b_fmod(cmz_builder *b, MlirValue x, MlirValue y) {
  return wide_binary(b, x, y, fmod_);
}

/* ---- the table ---- */

static MlirValue sin_(cmz_builder *b, MlirValue x) { return sine(b, x, 0); }
static MlirValue cos_(cmz_builder *b, MlirValue x) { return sine(b, x, 1); }
static MlirValue tan_(cmz_builder *b, MlirValue x) { return div_(b, sin_(b, x), cos_(b, x)); }
static MlirValue erf_(cmz_builder *b, MlirValue x) {
  return is_f64(x) ? erf_f64(b, x) : erf_f32(b, x);
}

typedef struct math_row {
  MlirValue (*function)(cmz_builder *, MlirValue);
  bool wide; /* f32 goes through f64 on CPUs */
} math_row;
static const math_row rows[CMZ_X_COUNT] = {
    [CMZ_X_SQRT] = {sqrt_, false},      [CMZ_X_EXP] = {exp_, false},
    [CMZ_X_LOG] = {log_, false},        [CMZ_X_TANH] = {tanh_, false},
    [CMZ_X_SIGMOID] = {sigmoid, false}, [CMZ_X_ERF] = {erf_, false},
    [CMZ_X_SIN] = {sin_, true},         [CMZ_X_COS] = {cos_, true},
    [CMZ_X_TAN] = {tan_, true},         [CMZ_X_ASIN] = {asin_, true},
    [CMZ_X_ACOS] = {acos_, true},       [CMZ_X_ATAN] = {atan_, true},
    [CMZ_X_SINH] = {sinh_, true},       [CMZ_X_COSH] = {cosh_, true},
    [CMZ_X_ASINH] = {asinh_, true},     [CMZ_X_ACOSH] = {acosh_, true},
    [CMZ_X_ATANH] = {atanh_, true},
};

MlirValue cmz_b_math(cmz_builder *b, cmz_expr_op op, MlirValue x) {
  if (op == CMZ_X_FLOOR || op == CMZ_X_CEIL || op == CMZ_X_TRUNC || op == CMZ_X_ROUND_EVEN)
    return round_to(b, op, x);
  const math_row *row = &rows[op];
  if (!row->wide || is_f64(x) || b->cpu->threads) return row->function(b, x);
  MlirValue r = row->function(b, cmz_b_cast(b, "arith.extf", x, b->f64));
  return cmz_b_cast(b, "arith.truncf", r, b->f32);
}

bool cmz_b_has_math(cmz_expr_op op) {
  return op == CMZ_X_FLOOR || op == CMZ_X_CEIL || op == CMZ_X_TRUNC || op == CMZ_X_ROUND_EVEN ||
         (op < CMZ_X_COUNT && rows[op].function != NULL);
}
