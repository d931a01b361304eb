/* dtype.h - element types: one row each, with conversion of single elements to and from C numbers.
 * The numbering is ONNX's TensorProto.DataType, which cmz.h shares. Sub-byte types are packed, low
 * bits first, as ONNX packs them. */
#ifndef CMZ_IR_DTYPE_H
#define CMZ_IR_DTYPE_H

#include "base.h"

typedef enum cmz_dtype {
  CMZ_UNDEFINED = 0,
  CMZ_F32 = 1,
  CMZ_U8 = 2,
  CMZ_I8 = 3,
  CMZ_U16 = 4,
  CMZ_I16 = 5,
  CMZ_I32 = 6,
  CMZ_I64 = 7,
  CMZ_STRING = 8,
  CMZ_BOOL = 9,
  CMZ_F16 = 10,
  CMZ_F64 = 11,
  CMZ_U32 = 12,
  CMZ_U64 = 13,
  CMZ_C64 = 14,
  CMZ_C128 = 15,
  CMZ_BF16 = 16,
  CMZ_F8E4M3FN = 17,
  CMZ_F8E4M3FNUZ = 18,
  CMZ_F8E5M2 = 19,
  CMZ_F8E5M2FNUZ = 20,
  CMZ_U4 = 21,
  CMZ_I4 = 22,
  CMZ_F4E2M1 = 23,
  CMZ_F8E8M0 = 24,
  CMZ_U2 = 25,
  CMZ_I2 = 26,
  CMZ_DTYPE_COUNT
} cmz_dtype;

typedef enum cmz_dtype_class {
  CMZ_CLASS_NONE,
  CMZ_CLASS_FLOAT,
  CMZ_CLASS_SIGNED,
  CMZ_CLASS_UNSIGNED,
  CMZ_CLASS_BOOL,
  CMZ_CLASS_STRING,
  CMZ_CLASS_COMPLEX
} cmz_dtype_class;

typedef struct cmz_dtype_row {
  const char *name;      /* as in the .cmz text form: "f32", "i64", "f8e4m3fn", … */
  const char *onnx_name; /* "FLOAT", "INT64", … */
  uint8_t bits;          /* of one element; 0 for strings */
  cmz_dtype_class class_;
  uint8_t exponent_bits, mantissa_bits; /* floats */
  /* The type kernels compute in: f16, bf16, f8 -> f32; small ints -> i32; others themselves */
  cmz_dtype compute;
} cmz_dtype_row;

/* Never NULL; row 0 for unknown numbers */
const cmz_dtype_row *cmz_dtype_info(cmz_dtype dtype);
cmz_dtype cmz_dtype_parse(const char *name); /* CMZ_UNDEFINED when unknown */
static inline bool cmz_dtype_is_float(cmz_dtype d) {
  return cmz_dtype_info(d)->class_ == CMZ_CLASS_FLOAT;
}
static inline bool cmz_dtype_is_int(cmz_dtype d) {
  cmz_dtype_class c = cmz_dtype_info(d)->class_;
  return c == CMZ_CLASS_SIGNED || c == CMZ_CLASS_UNSIGNED;
}
/* Bytes of COUNT elements (sub-byte types rounded up); false on overflow. */
bool cmz_dtype_bytes(cmz_dtype dtype, size_t count, size_t *bytes);

/* Element INDEX of the array at BASE as a double / an int64 (floats: truncating, saturating, NaN
 * gives 0; u64: the same bits, so that casts between integers wrap), and stores with
 * round-to-nearest-even; integer stores wrap (as ONNX Cast between integers does). Float8 stores
 * saturate when SATURATE (and in the plain form), as ONNX Cast's attribute says. */
double cmz_dtype_get_f64(cmz_dtype dtype, const void *base, size_t index);
int64_t cmz_dtype_get_i64(cmz_dtype dtype, const void *base, size_t index);
void cmz_dtype_set_f64(cmz_dtype dtype, void *base, size_t index, double value);
void cmz_dtype_set_f64_mode(cmz_dtype dtype, void *base, size_t index, double value, bool saturate);
/* Kernels store infinities as they are in float8 types that have them; a cast that saturates says
 * so itself. */
static inline bool cmz_keeps_infinity(cmz_dtype to, double value) {
  return to == CMZ_F8E5M2 && value - value != 0 && value == value;
}
void cmz_dtype_set_i64(cmz_dtype dtype, void *base, size_t index, int64_t value);

#endif
