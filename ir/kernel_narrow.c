/* kernel_narrow.c - the bits of narrow floats as expressions: types that no instruction converts.
 * In: expressions of a compute type. Out: integer codes and the numbers they stand for. Always
 * holds: rounding is to nearest even unless said otherwise; nothing here is stored or loaded. */
#include "kernel_internal.h"

#include <math.h>

static cmz_expr i32(cmz_kernel *k, int64_t v) { return cmz_x_int(k, CMZ_I32, v); }
static cmz_expr f32(cmz_kernel *k, double v) { return cmz_x_float(k, CMZ_F32, v); }
static cmz_expr and_bits(cmz_kernel *k, cmz_expr a, int64_t mask) {
  return cmz_x2(k, CMZ_X_AND, a, i32(k, mask));
}
static cmz_expr shifted(cmz_kernel *k, cmz_expr_op op, cmz_expr a, int64_t by) {
  return cmz_x2(k, op, a, i32(k, by));
}

cmz_expr cmz_x_f4_of_code(cmz_kernel *k, cmz_expr code) {
  cmz_expr body = and_bits(k, code, 7), low = and_bits(k, code, 1);
  cmz_expr shift = cmz_x2(k, CMZ_X_SUB, shifted(k, CMZ_X_SHR, body, 1), i32(k, 1));
  cmz_expr small = cmz_x2(k, CMZ_X_LT, body, i32(k, 2));
  cmz_expr whole = cmz_x2(k, CMZ_X_SHL, cmz_x2(k, CMZ_X_ADD, low, i32(k, 2)),
                          cmz_x2(k, CMZ_X_MAX, shift, i32(k, 0)));
  cmz_expr halves = cmz_x_cast(k, cmz_x_select(k, small, body, whole), CMZ_F32);
  cmz_expr v = cmz_x2(k, CMZ_X_MUL, halves, f32(k, 0.5));
  cmz_expr negative = cmz_x2(k, CMZ_X_LT, i32(k, 0), and_bits(k, code, 8));
  return cmz_x_select(k, negative, cmz_x1(k, CMZ_X_NEG, v), v);
}

/* What a magnitude must reach (or exceed: odd ones, so that ties go to even codes) for the next
 * code. */
static const double f4_steps[7] = {0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5};

cmz_expr cmz_x_code_of_f4(cmz_kernel *k, cmz_expr x) {
  cmz_expr size = cmz_x1(k, CMZ_X_ABS, x), body = i32(k, 0);
  for (int i = 0; i < 7; i++) {
    cmz_expr past = i & 1 ? cmz_x2(k, CMZ_X_LE, f32(k, f4_steps[i]), size)
                          : cmz_x2(k, CMZ_X_LT, f32(k, f4_steps[i]), size);
    body = cmz_x2(k, CMZ_X_ADD, body, cmz_x_select(k, past, i32(k, 1), i32(k, 0)));
  }
  cmz_expr bits = cmz_x_bitcast(k, x, CMZ_I32);
  cmz_expr sign = and_bits(k, shifted(k, CMZ_X_SHR, bits, 28), 8);
  cmz_expr code = cmz_x2(k, CMZ_X_OR, body, sign);
  return cmz_x_select(k, cmz_x1(k, CMZ_X_IS_NAN, x), i32(k, 8), code);
}

cmz_expr cmz_x_round_e8m0(cmz_kernel *k, cmz_expr x, cmz_e8m0_rounding rounding, bool saturate) {
  cmz_expr bits = cmz_x_bitcast(k, x, CMZ_I32), rest = and_bits(k, bits, 0x7fffff);
  cmz_expr exponent = and_bits(k, shifted(k, CMZ_X_SHR, bits, 23), 0xff);
  cmz_expr least = cmz_x2(k, CMZ_X_EQ, exponent, i32(k, 0)); /* 2^-127 is a denormal of f32 */
  cmz_expr more = cmz_x2(k, CMZ_X_LT, i32(k, 0x400000), rest);
  cmz_expr up = rounding == CMZ_E8M0_UP ? cmz_x2(k, CMZ_X_LT, i32(k, 0), rest)
                                        : cmz_x2(k, CMZ_X_LE, i32(k, 0x400000), rest);
  up = cmz_x_select(k, least, more, up);
  cmz_expr code = exponent;
  if (rounding != CMZ_E8M0_DOWN)
    code = cmz_x2(k, CMZ_X_ADD, code, cmz_x_select(k, up, i32(k, 1), i32(k, 0)));
  if (saturate) code = cmz_x2(k, CMZ_X_MIN, code, i32(k, 254));
  cmz_expr v = cmz_x_bitcast(k, shifted(k, CMZ_X_SHL, code, 23), CMZ_F32);
  v = cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, code, i32(k, 0)), f32(k, 0x1p-127), v);
  cmz_expr none = cmz_x1(k, CMZ_X_IS_NAN, x);
  if (!saturate) none = cmz_x2(k, CMZ_X_OR, none, cmz_x2(k, CMZ_X_LT, i32(k, 254), code));
  return cmz_x_select(k, none, f32(k, NAN), v);
}

/* ---- 16 bits ---- */

static cmz_expr code_of_f16(cmz_kernel *k, cmz_expr x) {
  cmz_expr bits = cmz_x_bitcast(k, x, CMZ_I32), size = cmz_x1(k, CMZ_X_ABS, x);
  cmz_expr sign = and_bits(k, shifted(k, CMZ_X_SHR, bits, 16), 0x8000);
  cmz_expr body = shifted(k, CMZ_X_SHR, and_bits(k, bits, 0x7fffffff), 13);
  body = cmz_x2(k, CMZ_X_SUB, body, i32(k, 112 << 10));
  cmz_expr units = cmz_x2(k, CMZ_X_MIN, size, f32(k, 0x1p-14)); /* so that the cast fits */
  units = cmz_x_cast(k, cmz_x2(k, CMZ_X_MUL, units, f32(k, 0x1p24)), CMZ_I32);
  body = cmz_x_select(k, cmz_x2(k, CMZ_X_LT, size, f32(k, 0x1p-14)), units, body);
  body = cmz_x_select(k, cmz_x1(k, CMZ_X_IS_INF, x), i32(k, 0x7c00), body);
  body = cmz_x_select(k, cmz_x1(k, CMZ_X_IS_NAN, x), i32(k, 0x7e00), body);
  return cmz_x2(k, CMZ_X_OR, body, sign);
}

static cmz_expr f16_of_code(cmz_kernel *k, cmz_expr code) {
  cmz_expr body = and_bits(k, code, 0x7fff), rest = and_bits(k, code, 0x3ff);
  cmz_expr bits = shifted(k, CMZ_X_SHL, cmz_x2(k, CMZ_X_ADD, body, i32(k, 112 << 10)), 13);
  cmz_expr v = cmz_x_bitcast(k, bits, CMZ_F32);
  cmz_expr small = cmz_x2(k, CMZ_X_MUL, cmz_x_cast(k, rest, CMZ_F32), f32(k, 0x1p-24));
  v = cmz_x_select(k, cmz_x2(k, CMZ_X_LT, body, i32(k, 0x400)), small, v);
  v = cmz_x_select(k, cmz_x2(k, CMZ_X_LE, i32(k, 0x7c00), body), f32(k, INFINITY), v);
  v = cmz_x_select(k, cmz_x2(k, CMZ_X_LT, i32(k, 0x7c00), body), f32(k, NAN), v);
  cmz_expr negative = cmz_x2(k, CMZ_X_LT, i32(k, 0), and_bits(k, code, 0x8000));
  return cmz_x_select(k, negative, cmz_x1(k, CMZ_X_NEG, v), v);
}

cmz_expr cmz_x_bits_of(cmz_kernel *k, cmz_expr x, cmz_dtype stored) {
  const cmz_dtype_row *row = cmz_dtype_info(stored);
  switch (stored) {
  case CMZ_F64:
    return cmz_x_bitcast(k, x, CMZ_I64);
  case CMZ_F32:
    return cmz_x_bitcast(k, x, CMZ_I32);
  case CMZ_F16:
    return code_of_f16(k, cmz_x_cast_through(k, x, stored));
  case CMZ_BF16:
    x = cmz_x_bitcast(k, cmz_x_cast_through(k, x, stored), CMZ_I32);
    return and_bits(k, shifted(k, CMZ_X_SHR, x, 16), 0xffff);
  case CMZ_F4E2M1:
    return cmz_x_code_of_f4(k, x);
  default:
    break;
  }
  bool whole = row->class_ == CMZ_CLASS_SIGNED || row->class_ == CMZ_CLASS_UNSIGNED ||
               row->class_ == CMZ_CLASS_BOOL;
  return whole ? cmz_x_cast(k, x, row->bits == 64 ? CMZ_I64 : CMZ_I32) : 0;
}

cmz_expr cmz_x_of_bits(cmz_kernel *k, cmz_expr bits, cmz_dtype stored) {
  const cmz_dtype_row *row = cmz_dtype_info(stored);
  switch (stored) {
  case CMZ_F64:
  case CMZ_F32:
    return cmz_x_bitcast(k, bits, stored);
  case CMZ_F16:
    return f16_of_code(k, bits);
  case CMZ_BF16:
    return cmz_x_bitcast(k, shifted(k, CMZ_X_SHL, bits, 16), CMZ_F32);
  case CMZ_F4E2M1:
    return cmz_x_f4_of_code(k, bits);
  case CMZ_BOOL:
    return cmz_x1(k, CMZ_X_NOT, cmz_x2(k, CMZ_X_EQ, bits, i32(k, 0)));
  default:
    break;
  }
  bool whole = row->class_ == CMZ_CLASS_SIGNED || row->class_ == CMZ_CLASS_UNSIGNED;
  return whole ? cmz_x_cast_through(k, bits, stored) : 0;
}
