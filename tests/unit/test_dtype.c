/* test_dtype.c - element types: the table, exhaustive round trips and rounding of the narrow floats
 * against a definition written down separately here, integers, packing. */
#include "../../ir/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* The formats as their papers give them: value = sign * significand * 2^exponent. */
typedef struct format {
  cmz_dtype dtype;
  int bits, mantissa, bias;
  double largest;
  bool has_infinity, has_nan, negative_zero;
} format;

static const format formats[] = {
    {CMZ_F16, 16, 10, 15, 65504, true, true, true},
    {CMZ_BF16, 16, 7, 127, 0x1.fep127, true, true, true},
    {CMZ_F8E4M3FN, 8, 3, 7, 448, false, true, true},
    {CMZ_F8E4M3FNUZ, 8, 3, 8, 240, false, true, false},
    {CMZ_F8E5M2, 8, 2, 15, 57344, true, true, true},
    {CMZ_F8E5M2FNUZ, 8, 2, 16, 57344, false, true, false},
    {CMZ_F4E2M1, 4, 1, 1, 6, false, false, true},
};

static double defined_value(const format *f, unsigned code) {
  unsigned half = 1u << (f->bits - 1), low = code % half;
  double sign = code >= half ? -1 : 1;
  if (!f->negative_zero && code == half) return (double)NAN;
  unsigned fraction = low % (1u << f->mantissa), exponent = low >> f->mantissa;
  double value = exponent ? (1 + fraction / pow(2, f->mantissa)) * pow(2, (int)exponent - f->bias)
                          : fraction / pow(2, f->mantissa) * pow(2, 1 - f->bias);
  if (value <= f->largest) return sign * value;
  return f->has_infinity && fraction == 0 ? sign * (double)INFINITY : (double)NAN;
}

static unsigned stored(const format *f, double value, bool saturate) {
  uint8_t memory[4] = {0xaa, 0xaa, 0xaa, 0xaa};
  cmz_dtype_set_f64_mode(f->dtype, memory, 0, value, saturate);
  if (f->bits == 16) return memory[0] | (unsigned)memory[1] << 8;
  return f->bits == 8 ? memory[0] : memory[0] & 15u;
}

static void check_code(const format *f, unsigned code) {
  uint8_t memory[2] = {(uint8_t)code, (uint8_t)(code >> 8)};
  double expected = defined_value(f, code), got = cmz_dtype_get_f64(f->dtype, memory, 0);
  if (isnan(expected)) {
    assert_true(isnan(got));
    assert_true(isnan(defined_value(f, stored(f, got, true))));
    return;
  }
  if (got != expected || signbit(got) != signbit(expected))
    fail_msg("%s %#x: %g, not %g", cmz_dtype_info(f->dtype)->name, code, got, expected);
  assert_int_equal(stored(f, got, !isinf(got)), code);
}

/* Between each pair of neighbours: the middle goes to the even code, anything off it to the nearer
 * one. */
static void check_rounding(const format *f, unsigned code) {
  double a = defined_value(f, code), b = defined_value(f, code + 1);
  if (!(fabs(b) <= f->largest) || !(fabs(a) <= f->largest)) return;
  double middle = (a + b) / 2;
  assert_int_equal(stored(f, middle, true), code % 2 ? code + 1 : code);
  assert_int_equal(stored(f, nextafter(middle, a), true), code);
  assert_int_equal(stored(f, nextafter(middle, b), true), code + 1);
}

static void test_narrow_floats(void **state) {
  (void)state;
  for (size_t i = 0; i < CMZ_COUNT_OF(formats); i++) {
    const format *f = &formats[i];
    unsigned half = 1u << (f->bits - 1);
    for (unsigned code = 0; code < 2 * half; code++) check_code(f, code);
    for (unsigned code = 0; code + 1 < half; code++) {
      check_rounding(f, code);
      if (code > 0) check_rounding(f, half + code);
    }
  }
}

static void test_overflow(void **state) {
  (void)state;
  for (size_t i = 0; i < CMZ_COUNT_OF(formats); i++) {
    const format *f = &formats[i];
    double inf = (double)INFINITY, huge = f->largest * 2;
    bool float8 = f->bits <= 8;
    double clipped = defined_value(f, stored(f, huge, true));
    assert_true(float8 ? clipped == f->largest : isinf(clipped));
    assert_true(defined_value(f, stored(f, -huge, true)) == -clipped);
    double plain = defined_value(f, stored(f, huge, false));
    assert_true(f->has_infinity ? plain == inf : f->has_nan ? isnan(plain) : plain == f->largest);
    plain = defined_value(f, stored(f, -inf, false));
    assert_true(f->has_infinity ? plain == -inf : f->has_nan ? isnan(plain) : plain == -f->largest);
  }
}

static void test_e8m0(void **state) {
  (void)state;
  for (unsigned code = 0; code < 256; code++) {
    uint8_t memory = (uint8_t)code, again = 0;
    double value = cmz_dtype_get_f64(CMZ_F8E8M0, &memory, 0);
    if (code == 255) assert_true(isnan(value));
    else assert_true(value == pow(2, (int)code - 127));
    cmz_dtype_set_f64(CMZ_F8E8M0, &again, 0, value);
    assert_int_equal(again, code);
    if (code >= 254) continue;
    cmz_dtype_set_f64(CMZ_F8E8M0, &again, 0, value * 1.01);
    assert_int_equal(again, code + 1);
  }
}

static void test_table(void **state) {
  (void)state;
  for (unsigned i = 1; i < CMZ_DTYPE_COUNT; i++) {
    const cmz_dtype_row *row = cmz_dtype_info((cmz_dtype)i);
    assert_int_equal(cmz_dtype_parse(row->name), i);
    assert_true(row->bits > 0 || i == CMZ_STRING);
    assert_true(row->class_ != CMZ_CLASS_NONE);
    size_t bytes;
    assert_true(cmz_dtype_bytes((cmz_dtype)i, 5, &bytes));
    if (i != CMZ_STRING) assert_int_equal(bytes, (5u * row->bits + 7) / 8);
    if (row->bits > 8) assert_false(cmz_dtype_bytes((cmz_dtype)i, SIZE_MAX / 2 + 1, &bytes));
  }
  assert_int_equal(cmz_dtype_parse("float"), CMZ_UNDEFINED);
  assert_int_equal(cmz_dtype_info((cmz_dtype)99)->bits, 0);
  assert_int_equal(cmz_dtype_info((cmz_dtype)-1)->bits, 0);
}

/* Every integer type: the ends of its range, wrapping, neighbours untouched. */
static void test_integers(void **state) {
  (void)state;
  for (unsigned i = 1; i < CMZ_DTYPE_COUNT; i++) {
    const cmz_dtype_row *row = cmz_dtype_info((cmz_dtype)i);
    cmz_dtype dtype = (cmz_dtype)i;
    if (!cmz_dtype_is_int(dtype)) continue;
    bool is_signed = row->class_ == CMZ_CLASS_SIGNED;
    uint8_t memory[64] = {0};
    int64_t high = (int64_t)(UINT64_MAX >> (64 - row->bits + (is_signed ? 1 : 0)));
    int64_t low = is_signed ? -high - 1 : 0;
    for (size_t k = 0; k < 6; k++) cmz_dtype_set_i64(dtype, memory, k, k % 2 ? high : low);
    for (size_t k = 0; k < 6; k++)
      assert_true(cmz_dtype_get_i64(dtype, memory, k) == (k % 2 ? high : low));
    if (row->bits == 64) continue;
    cmz_dtype_set_i64(dtype, memory, 2, high + 1);
    assert_true(cmz_dtype_get_i64(dtype, memory, 2) == low);
    cmz_dtype_set_f64(dtype, memory, 3, (double)high + 0.9);
    assert_true(cmz_dtype_get_f64(dtype, memory, 3) == (double)high);
    assert_true(cmz_dtype_get_i64(dtype, memory, 1) == high);
    assert_true(cmz_dtype_get_i64(dtype, memory, 4) == low);
  }
}

static void test_wide(void **state) {
  (void)state;
  double d[2] = {0};
  float f[2] = {0};
  uint64_t u = 0;
  cmz_dtype_set_f64(CMZ_F64, d, 1, 0.1);
  assert_true(d[1] == 0.1 && cmz_dtype_get_f64(CMZ_F64, d, 1) == 0.1);
  cmz_dtype_set_f64(CMZ_F32, f, 1, 0.1);
  assert_true(f[1] == 0.1f);
  cmz_dtype_set_i64(CMZ_F32, f, 0, ((int64_t)1 << 53) + ((int64_t)1 << 29) + 1);
  assert_true(f[0] == 0x1.000002p53f);
  uint16_t b = 0; /* 2^60 + 2^52 is the middle between neighbours; one more must round up */
  cmz_dtype_set_i64(CMZ_BF16, &b, 0, ((int64_t)1 << 60) + ((int64_t)1 << 52) + 1);
  assert_true(cmz_dtype_get_f64(CMZ_BF16, &b, 0) == 0x1.02p60);
  cmz_dtype_set_f64(CMZ_U64, &u, 0, 0x1.8p63);
  assert_true(u == (uint64_t)3 << 62);
  assert_true(cmz_dtype_get_f64(CMZ_U64, &u, 0) == 0x1.8p63);
  assert_true(cmz_dtype_get_i64(CMZ_F64, &(double){1e30}, 0) == INT64_MAX);
  assert_true(cmz_dtype_get_i64(CMZ_F64, &(double){-1e30}, 0) == INT64_MIN);
  assert_true(cmz_dtype_get_i64(CMZ_F64, &(double){(double)NAN}, 0) == 0);
  assert_true(cmz_dtype_get_i64(CMZ_F32, &(float){-2.9f}, 0) == -2);
  uint8_t flag = 0;
  cmz_dtype_set_f64(CMZ_BOOL, &flag, 0, -0.5);
  assert_int_equal(flag, 1);
  double complex_number[2] = {7, 7};
  cmz_dtype_set_f64(CMZ_C128, complex_number, 0, 3);
  assert_true(complex_number[0] == 3 && complex_number[1] == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_narrow_floats), cmocka_unit_test(test_overflow),
      cmocka_unit_test(test_e8m0),          cmocka_unit_test(test_table),
      cmocka_unit_test(test_integers),      cmocka_unit_test(test_wide),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
