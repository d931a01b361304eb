/* dtype.c - the table of element types and the conversion of single elements.
 * In: an array of some type and an index. Out: the element as a C number, or the array with it
 * stored. Always holds: every conversion rounds once, to nearest even (f8e8m0: up, as ONNX Cast
 * does by default); elements narrower than a byte are packed low bits first. */
#include "dtype.h"

#include <math.h>

#define NONE CMZ_CLASS_NONE
#define FLOAT CMZ_CLASS_FLOAT
#define SIGNED CMZ_CLASS_SIGNED
#define UNSIGNED CMZ_CLASS_UNSIGNED
#define COMPLEX CMZ_CLASS_COMPLEX

static const cmz_dtype_row rows[CMZ_DTYPE_COUNT] = {
    [CMZ_UNDEFINED] = {"undefined", "UNDEFINED", 0, NONE, 0, 0, CMZ_UNDEFINED},
    [CMZ_F32] = {"f32", "FLOAT", 32, FLOAT, 8, 23, CMZ_F32},
    [CMZ_U8] = {"u8", "UINT8", 8, UNSIGNED, 0, 0, CMZ_I32},
    [CMZ_I8] = {"i8", "INT8", 8, SIGNED, 0, 0, CMZ_I32},
    [CMZ_U16] = {"u16", "UINT16", 16, UNSIGNED, 0, 0, CMZ_I32},
    [CMZ_I16] = {"i16", "INT16", 16, SIGNED, 0, 0, CMZ_I32},
    [CMZ_I32] = {"i32", "INT32", 32, SIGNED, 0, 0, CMZ_I32},
    [CMZ_I64] = {"i64", "INT64", 64, SIGNED, 0, 0, CMZ_I64},
    [CMZ_STRING] = {"string", "STRING", 0, CMZ_CLASS_STRING, 0, 0, CMZ_STRING},
    [CMZ_BOOL] = {"bool", "BOOL", 8, CMZ_CLASS_BOOL, 0, 0, CMZ_BOOL},
    [CMZ_F16] = {"f16", "FLOAT16", 16, FLOAT, 5, 10, CMZ_F32},
    [CMZ_F64] = {"f64", "DOUBLE", 64, FLOAT, 11, 52, CMZ_F64},
    [CMZ_U32] = {"u32", "UINT32", 32, UNSIGNED, 0, 0, CMZ_U32},
    [CMZ_U64] = {"u64", "UINT64", 64, UNSIGNED, 0, 0, CMZ_U64},
    [CMZ_C64] = {"c64", "COMPLEX64", 64, COMPLEX, 8, 23, CMZ_C64},
    [CMZ_C128] = {"c128", "COMPLEX128", 128, COMPLEX, 11, 52, CMZ_C128},
    [CMZ_BF16] = {"bf16", "BFLOAT16", 16, FLOAT, 8, 7, CMZ_F32},
    [CMZ_F8E4M3FN] = {"f8e4m3fn", "FLOAT8E4M3FN", 8, FLOAT, 4, 3, CMZ_F32},
    [CMZ_F8E4M3FNUZ] = {"f8e4m3fnuz", "FLOAT8E4M3FNUZ", 8, FLOAT, 4, 3, CMZ_F32},
    [CMZ_F8E5M2] = {"f8e5m2", "FLOAT8E5M2", 8, FLOAT, 5, 2, CMZ_F32},
    [CMZ_F8E5M2FNUZ] = {"f8e5m2fnuz", "FLOAT8E5M2FNUZ", 8, FLOAT, 5, 2, CMZ_F32},
    [CMZ_U4] = {"u4", "UINT4", 4, UNSIGNED, 0, 0, CMZ_I32},
    [CMZ_I4] = {"i4", "INT4", 4, SIGNED, 0, 0, CMZ_I32},
    [CMZ_F4E2M1] = {"f4e2m1", "FLOAT4E2M1", 4, FLOAT, 2, 1, CMZ_F32},
    [CMZ_F8E8M0] = {"f8e8m0", "FLOAT8E8M0", 8, FLOAT, 8, 0, CMZ_F32},
    [CMZ_U2] = {"u2", "UINT2", 2, UNSIGNED, 0, 0, CMZ_I32},
    [CMZ_I2] = {"i2", "INT2", 2, SIGNED, 0, 0, CMZ_I32},
};

/* What the narrow floats differ in besides their field widths. Codes are without the sign bit. */
typedef struct narrow_float {
  int bias;
  uint32_t largest;   /* code of the largest finite value */
  uint32_t infinity;  /* 0: the type has none */
  uint32_t nan;       /* 0: the type has none */
  bool unsigned_zero; /* "uz": NaN is the code of negative zero */
  bool may_saturate;  /* overflow saturates when asked to */
} narrow_float;

static const narrow_float narrow[CMZ_DTYPE_COUNT] = {
    [CMZ_F16] = {15, 0x7bff, 0x7c00, 0x7e00, false, false},
    [CMZ_BF16] = {127, 0x7f7f, 0x7f80, 0x7fc0, false, false},
    [CMZ_F8E4M3FN] = {7, 0x7e, 0, 0x7f, false, true},
    [CMZ_F8E4M3FNUZ] = {8, 0x7f, 0, 0x80, true, true},
    [CMZ_F8E5M2] = {15, 0x7b, 0x7c, 0x7f, false, true},
    [CMZ_F8E5M2FNUZ] = {16, 0x7f, 0, 0x80, true, true},
    [CMZ_F4E2M1] = {1, 0x7, 0, 0, false, true},
};

const cmz_dtype_row *cmz_dtype_info(cmz_dtype dtype) {
  return &rows[(unsigned)dtype < CMZ_DTYPE_COUNT ? dtype : CMZ_UNDEFINED];
}

cmz_dtype cmz_dtype_parse(const char *name) {
  for (unsigned i = 1; i < CMZ_DTYPE_COUNT; i++)
    if (strcmp(rows[i].name, name) == 0) return (cmz_dtype)i;
  return CMZ_UNDEFINED;
}

bool cmz_dtype_bytes(cmz_dtype dtype, size_t count, size_t *bytes) {
  if (dtype == CMZ_STRING) return cmz_mul_size(count, sizeof(char *), bytes);
  size_t bits = cmz_dtype_info(dtype)->bits;
  if (bits >= 8) return cmz_mul_size(count, bits / 8, bytes);
  *bytes = bits ? count / (8 / bits) + (count % (8 / bits) != 0) : 0;
  return true;
}

/* ---- raw bits of one element (the real part of a complex one) ---- */

static unsigned storage_bits(cmz_dtype dtype) {
  unsigned bits = cmz_dtype_info(dtype)->bits;
  return cmz_dtype_info(dtype)->class_ == COMPLEX ? bits / 2 : bits;
}

static uint64_t read_bits(cmz_dtype dtype, const void *base, size_t index) {
  unsigned bits = cmz_dtype_info(dtype)->bits;
  const uint8_t *bytes = base;
  if (bits == 0) return 0;
  if (bits < 8) {
    size_t per_byte = 8 / bits;
    return (uint64_t)bytes[index / per_byte] >> (index % per_byte * bits) & ((1u << bits) - 1);
  }
  uint64_t value = 0;
  memcpy(&value, bytes + index * (bits / 8), storage_bits(dtype) / 8); /* little-endian hosts */
  return value;
}

static void write_bits(cmz_dtype dtype, void *base, size_t index, uint64_t value) {
  unsigned bits = cmz_dtype_info(dtype)->bits;
  uint8_t *bytes = base;
  if (bits == 0) return;
  if (bits < 8) {
    size_t per_byte = 8 / bits, shift = index % per_byte * bits;
    uint8_t mask = (uint8_t)(((1u << bits) - 1) << shift);
    uint8_t *byte = &bytes[index / per_byte];
    *byte = (uint8_t)((*byte & ~mask) | ((unsigned)(value << shift) & mask));
    return;
  }
  uint8_t *at = bytes + index * (bits / 8);
  unsigned size = storage_bits(dtype) / 8;
  memcpy(at, &value, size);
  if (cmz_dtype_info(dtype)->class_ == COMPLEX) memset(at + size, 0, size);
}

/* ---- floats ---- */

static double decode_narrow(cmz_dtype dtype, uint32_t code) {
  const cmz_dtype_row *row = cmz_dtype_info(dtype);
  if (dtype == CMZ_F8E8M0) return code == 0xff ? (double)NAN : ldexp(1.0, (int)code - 127);
  const narrow_float *f = &narrow[dtype];
  uint32_t sign = 1u << (row->bits - 1), magnitude = code & (sign - 1);
  bool negative = (code & sign) != 0;
  if (f->unsigned_zero && code == sign) return (double)NAN;
  if (f->infinity && magnitude == f->infinity)
    return negative ? -(double)INFINITY : (double)INFINITY;
  if (magnitude > f->largest) return (double)NAN;
  uint32_t mantissa = magnitude & ((1u << row->mantissa_bits) - 1);
  int exponent = (int)(magnitude >> row->mantissa_bits);
  if (exponent == 0) exponent = 1;
  else mantissa |= 1u << row->mantissa_bits;
  double value = ldexp((double)mantissa, exponent - f->bias - row->mantissa_bits);
  return negative ? -value : value;
}

static uint32_t encode_e8m0(double value, bool saturate) {
  if (isnan(value)) return 0xff;
  double magnitude = fabs(value); /* the type has no sign; ONNX drops it */
  if (isinf(magnitude)) return saturate ? 0xfe : 0xff;
  if (magnitude <= ldexp(1.0, -127)) return 0;
  int exponent;
  double fraction = frexp(magnitude, &exponent); /* in [0.5, 1) */
  int code = exponent - (fraction == 0.5) + 127;
  if (code > 0xfe) return saturate ? 0xfe : 0xff;
  return (uint32_t)code;
}

static uint32_t encode_narrow(cmz_dtype dtype, double value, bool saturate) {
  const cmz_dtype_row *row = cmz_dtype_info(dtype);
  if (dtype == CMZ_F8E8M0) return encode_e8m0(value, saturate);
  const narrow_float *f = &narrow[dtype];
  uint32_t sign = signbit(value) ? 1u << (row->bits - 1) : 0;
  if (isnan(value)) {
    if (f->unsigned_zero) return f->nan;
    return f->nan ? sign | f->nan : 1u << (row->bits - 1); /* f4e2m1 has no NaN: -0 */
  }
  double magnitude = fabs(value);
  int64_t code = INT64_MAX;
  if (magnitude == 0) {
    code = 0;
  } else if (!isinf(magnitude)) {
    int exponent = ilogb(magnitude), smallest = 1 - f->bias;
    if (exponent < smallest) exponent = smallest;
    /* In units of the last place; the hidden bit carries into the exponent field by itself. */
    double units = ldexp(magnitude, row->mantissa_bits - exponent);
    double whole = floor(units), rest = units - whole;
    int64_t rounded = (int64_t)whole;
    if (rest > 0.5 || (rest == 0.5 && (rounded & 1))) rounded++;
    code = ((int64_t)(exponent - smallest) << row->mantissa_bits) + rounded;
  }
  if (code > (int64_t)f->largest) {
    if (f->may_saturate && (saturate || !f->nan)) return sign | f->largest;
    if (f->infinity) return sign | f->infinity;
    return f->unsigned_zero ? f->nan : sign | f->nan;
  }
  if (code == 0 && f->unsigned_zero) return 0;
  return sign | (uint32_t)code;
}

static double bits_to_f64(cmz_dtype dtype, uint64_t bits) {
  unsigned width = storage_bits(dtype);
  if (width == 64) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  if (width == 32) {
    float value;
    uint32_t low = (uint32_t)bits;
    memcpy(&value, &low, sizeof value);
    return (double)value;
  }
  return decode_narrow(dtype, (uint32_t)bits);
}

/* Truncated towards zero and kept in range; what lies in the upper half of uint64 keeps its bits.
 * NaN gives 0. */
static uint64_t f64_to_integer_bits(double value) {
  if (isnan(value)) return 0;
  if (value <= -0x1p63) return (uint64_t)INT64_MIN;
  if (value < 0x1p63) return (uint64_t)(int64_t)value;
  return value < 0x1p64 ? (uint64_t)value : UINT64_MAX;
}

static int64_t sign_extend(uint64_t bits, unsigned width) {
  return (int64_t)(bits << (64 - width)) >> (64 - width);
}

/* ---- the public conversions ---- */

double cmz_dtype_get_f64(cmz_dtype dtype, const void *base, size_t index) {
  const cmz_dtype_row *row = cmz_dtype_info(dtype);
  uint64_t bits = read_bits(dtype, base, index);
  switch (row->class_) {
  case CMZ_CLASS_FLOAT:
  case CMZ_CLASS_COMPLEX:
    return bits_to_f64(dtype, bits);
  case CMZ_CLASS_SIGNED:
    return (double)sign_extend(bits, row->bits);
  case CMZ_CLASS_UNSIGNED:
    return (double)bits;
  case CMZ_CLASS_BOOL:
    return bits != 0;
  default:
    return 0;
  }
}

int64_t cmz_dtype_get_i64(cmz_dtype dtype, const void *base, size_t index) {
  const cmz_dtype_row *row = cmz_dtype_info(dtype);
  uint64_t bits = read_bits(dtype, base, index);
  switch (row->class_) {
  case CMZ_CLASS_FLOAT:
  case CMZ_CLASS_COMPLEX: {
    double value = bits_to_f64(dtype, bits);
    return value >= 0x1p63 ? INT64_MAX : (int64_t)f64_to_integer_bits(value);
  }
  case CMZ_CLASS_SIGNED:
    return sign_extend(bits, row->bits);
  case CMZ_CLASS_UNSIGNED:
    return (int64_t)bits;
  case CMZ_CLASS_BOOL:
    return bits != 0;
  default:
    return 0;
  }
}

void cmz_dtype_set_f64_mode(cmz_dtype dtype, void *base, size_t index, double value,
                            bool saturate) {
  uint64_t bits = 0;
  float single = (float)value;
  switch (cmz_dtype_info(dtype)->class_) {
  case CMZ_CLASS_FLOAT:
  case CMZ_CLASS_COMPLEX:
    if (storage_bits(dtype) == 64) memcpy(&bits, &value, sizeof value);
    else if (storage_bits(dtype) == 32) memcpy(&bits, &single, sizeof single);
    else bits = encode_narrow(dtype, value, saturate);
    break;
  case CMZ_CLASS_SIGNED:
  case CMZ_CLASS_UNSIGNED:
    bits = f64_to_integer_bits(value);
    break;
  case CMZ_CLASS_BOOL:
    bits = value != 0;
    break;
  default:
    return;
  }
  write_bits(dtype, base, index, bits);
}

void cmz_dtype_set_f64(cmz_dtype dtype, void *base, size_t index, double value) {
  cmz_dtype_set_f64_mode(dtype, base, index, value, true);
}

/* A double that rounds to any type of at most 11 significant bits as VALUE itself would: bits that
 * do not fit are gathered into one below. */
static double i64_to_sticky_f64(int64_t value) {
  uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;
  if (magnitude >> 53) {
    uint64_t rest = magnitude & 0xfff;
    magnitude = (magnitude ^ rest) | (rest ? 0x1000u : 0u);
  }
  return value < 0 ? -(double)magnitude : (double)magnitude;
}

void cmz_dtype_set_i64(cmz_dtype dtype, void *base, size_t index, int64_t value) {
  uint64_t bits = 0;
  float single = (float)value;
  double exact = (double)value;
  switch (cmz_dtype_info(dtype)->class_) {
  case CMZ_CLASS_FLOAT:
  case CMZ_CLASS_COMPLEX:
    if (storage_bits(dtype) == 64) memcpy(&bits, &exact, sizeof exact);
    else if (storage_bits(dtype) == 32) memcpy(&bits, &single, sizeof single);
    else bits = encode_narrow(dtype, i64_to_sticky_f64(value), true);
    break;
  case CMZ_CLASS_SIGNED:
  case CMZ_CLASS_UNSIGNED:
    bits = (uint64_t)value;
    break;
  case CMZ_CLASS_BOOL:
    bits = value != 0;
    break;
  default:
    return;
  }
  write_bits(dtype, base, index, bits);
}
