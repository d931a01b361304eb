/* memory.c - the builder's memory access and conversions between stored and compute types.
 * In: addresses, values. Out: llvm.load / llvm.store, masked forms for vectors.
 * Always holds: accesses are aligned to one element; no conversion needs a run-time library call on
 * any CPU level. */
#include "builder.h"

#include <math.h>

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/Dialect/LLVM.h"

#define GEP_DYNAMIC INT32_MIN

static MlirValue offset(cmz_builder *b, MlirType element, MlirValue base, const MlirValue *index,
                        int32_t fixed) {
  if (b->cpu->spirv) return cmz_b_add(b, base, index ? *index : cmz_b_i64(b, fixed));
  MlirNamedAttribute attrs[] = {
      cmz_b_attr(b, "elem_type", mlirTypeAttrGet(element)),
      cmz_b_attr(b, "rawConstantIndices",
                 mlirDenseI32ArrayGet(b->mlir, 1, (int32_t[]){index ? GEP_DYNAMIC : fixed})),
  };
  MlirValue operands[2] = {base};
  MlirType result = cmz_b_type(base);
  if (index) operands[1] = *index;
  return mlirOperationGetResult(
      cmz_b_op(b, "llvm.getelementptr", index ? 2 : 1, operands, 1, &result, 2, attrs, 0, NULL), 0);
}

MlirValue cmz_b_address(cmz_builder *b, MlirType element, MlirValue base, MlirValue index) {
  return offset(b, element, base, &index, 0);
}

MlirValue cmz_b_address_const(cmz_builder *b, MlirType element, MlirValue base, int64_t index) {
  if (index == 0) return base;
  if (index > -(1 << 30) && index < (1 << 30))
    return offset(b, element, base, NULL, (int32_t)index);
  return cmz_b_address(b, element, base, cmz_b_i64(b, index));
}

static MlirNamedAttribute alignment(cmz_builder *b, MlirType type, MlirType integer) {
  return cmz_b_attr(b, "alignment",
                    mlirIntegerAttrGet(integer, CMZ_MAX(1, (int64_t)cmz_b_bits(type) / 8)));
}

MlirValue cmz_b_load(cmz_builder *b, MlirType type, MlirValue address, const MlirValue *mask,
                     bool invariant) {
  if (b->cpu->spirv) return cmz_b_buffer_load(b, type, address);
  if (mask) {
    MlirValue operands[] = {address, *mask, cmz_b_const(b, type, 0)};
    MlirNamedAttribute attr = alignment(b, type, b->i32);
    return mlirOperationGetResult(
        cmz_b_op(b, "llvm.intr.masked.load", 3, operands, 1, &type, 1, &attr, 0, NULL), 0);
  }
  if (mlirTypeEqual(cmz_b_element(type), b->pointer)) invariant = true;
  MlirNamedAttribute attrs[2];
  uint32_t count = 0;
  if (!mlirTypeEqual(type, b->pointer)) attrs[count++] = alignment(b, type, b->i64);
  if (invariant) attrs[count++] = cmz_b_attr(b, "invariant", mlirUnitAttrGet(b->mlir));
  return mlirOperationGetResult(
      cmz_b_op(b, "llvm.load", 1, &address, 1, &type, count, attrs, 0, NULL), 0);
}

void cmz_b_store(cmz_builder *b, MlirValue value, MlirValue address, const MlirValue *mask) {
  MlirType type = cmz_b_type(value);
  if (b->cpu->spirv) {
    cmz_b_buffer_store(b, value, address);
    return;
  }
  if (mask) {
    MlirNamedAttribute attr = alignment(b, type, b->i32);
    cmz_b_op(b, "llvm.intr.masked.store", 3, (MlirValue[]){value, address, *mask}, 0, NULL, 1,
             &attr, 0, NULL);
    return;
  }
  MlirNamedAttribute attr = alignment(b, type, b->i64);
  cmz_b_op(b, "llvm.store", 2, (MlirValue[]){value, address}, 0, NULL, 1, &attr, 0, NULL);
}

/* ---- constants of the module ---- */

static MlirStringRef text(const char *s) { return mlirStringRefCreateFromCString(s); }

MlirValue cmz_b_global(cmz_builder *b, const char *name) {
  MlirNamedAttribute attr =
      cmz_b_attr(b, "global_name", mlirFlatSymbolRefAttrGet(b->mlir, text(name)));
  return mlirOperationGetResult(
      cmz_b_op(b, "llvm.mlir.addressof", 0, NULL, 1, &b->pointer, 1, &attr, 0, NULL), 0);
}

void cmz_b_global_words(cmz_builder *b, const char *name, uint32_t word, uint32_t bytes) {
  int64_t words = (bytes + 3) / 4;
  MlirType tensor = mlirRankedTensorTypeGet(1, &words, b->i32, mlirAttributeGetNull());
  MlirAttribute value =
      mlirDenseElementsAttrSplatGet(tensor, mlirIntegerAttrGet(b->i32, (int32_t)word));
  MlirType type = mlirLLVMArrayTypeGet(b->i32, (unsigned)words);
  MlirNamedAttribute attrs[] = {
      cmz_b_attr(b, "sym_name", mlirStringAttrGet(b->mlir, text(name))),
      cmz_b_attr(b, "global_type", mlirTypeAttrGet(type)),
      cmz_b_attr(b, "linkage", mlirLLVMLinkageAttrGet(b->mlir, MlirLLVMLinkageInternal)),
      cmz_b_attr(b, "constant", mlirUnitAttrGet(b->mlir)),
      cmz_b_attr(b, "value", value),
      cmz_b_attr(b, "alignment", mlirIntegerAttrGet(b->i64, 64)),
  };
  MlirRegion region = mlirRegionCreate();
  cmz_b_op(b, "llvm.mlir.global", 0, NULL, 0, NULL, CMZ_COUNT_OF(attrs), attrs, 1, &region);
}

/* ---- stored types ---- */

MlirType cmz_b_stored_type(cmz_builder *b, cmz_dtype stored) {
  switch (stored) {
  case CMZ_F32:
    return b->f32;
  case CMZ_F64:
    return b->f64;
  case CMZ_I32:
  case CMZ_U32:
    return b->i32;
  case CMZ_I64:
  case CMZ_U64:
    return b->i64;
  case CMZ_F16:
  case CMZ_BF16:
  case CMZ_I16:
  case CMZ_U16:
    return b->i16;
  case CMZ_BOOL:
  case CMZ_I8:
  case CMZ_U8:
  case CMZ_F8E4M3FN:
  case CMZ_F8E4M3FNUZ:
  case CMZ_F8E5M2:
  case CMZ_F8E5M2FNUZ:
  case CMZ_F8E8M0:
    return b->i8;
  default:
    return (MlirType){NULL};
  }
}

MlirType cmz_b_compute_type(cmz_builder *b, cmz_dtype compute) {
  switch (compute) {
  case CMZ_F32:
    return b->f32;
  case CMZ_F64:
    return b->f64;
  case CMZ_I32:
  case CMZ_U32:
    return b->i32;
  case CMZ_I64:
  case CMZ_U64:
    return b->i64;
  case CMZ_BOOL:
    return b->i1;
  default:
    return (MlirType){NULL};
  }
}

static MlirValue int_like(cmz_builder *b, MlirValue v, int64_t c) {
  return cmz_b_int(b, cmz_b_type(v), c);
}
static MlirValue and_c(cmz_builder *b, MlirValue v, int64_t c) {
  return cmz_b_2(b, "arith.andi", v, int_like(b, v, c));
}
static MlirValue shl_c(cmz_builder *b, MlirValue v, int64_t c) {
  return cmz_b_2(b, "arith.shli", v, int_like(b, v, c));
}
static MlirValue shr_c(cmz_builder *b, MlirValue v, int64_t c) {
  return cmz_b_2(b, "arith.shrui", v, int_like(b, v, c));
}

/* A small float of EXPONENT and MANTISSA bits in the low bits of i32 lanes, as f32: the payload is
 * placed so that its exponent field lines up, then one multiplication by a power of two corrects
 * the bias, which also normalises denormals exactly. SPECIAL: the highest exponent means infinity
 * and NaN. */
static MlirValue widen_float(cmz_builder *b, MlirValue bits, int exponent, int mantissa, int bias,
                             bool special) {
  MlirValue sign = shl_c(b, and_c(b, shr_c(b, bits, exponent + mantissa), 1), 31);
  MlirValue body = shl_c(b, and_c(b, bits, (1 << (exponent + mantissa)) - 1), 23 - mantissa);
  MlirValue f = cmz_b_bitcast(b, body, b->f32);
  double scale = 1;
  for (int i = 0; i < 127 - bias; i++) scale *= 2;
  MlirValue r = cmz_b_bitcast(b, cmz_b_mul(b, f, cmz_b_float(b, cmz_b_type(f), scale)), b->i32);
  if (special) { /* keep the mantissa, exponent all ones */
    MlirValue high =
        cmz_b_icmp(b, CMZ_B_UGE, body, int_like(b, body, (int64_t)((1 << exponent) - 1) << 23));
    MlirValue inf = cmz_b_2(b, "arith.ori", body, int_like(b, body, 0x7f800000));
    r = cmz_b_select(b, high, inf, r);
  }
  return cmz_b_bitcast(b, cmz_b_2(b, "arith.ori", r, sign), b->f32);
}

/* RAW, of BITS bits, as i32; as a part of a word it is one already. */
static MlirValue unsigned_part(cmz_builder *b, MlirValue raw) {
  return cmz_b_bits(cmz_b_type(raw)) == 32 ? raw : cmz_b_cast(b, "arith.extui", raw, b->i32);
}

static MlirValue signed_part(cmz_builder *b, MlirValue raw, uint32_t bits) {
  if (cmz_b_bits(cmz_b_type(raw)) != 32) return cmz_b_cast(b, "arith.extsi", raw, b->i32);
  return cmz_b_2(b, "arith.shrsi", shl_c(b, raw, 32 - bits), cmz_b_int(b, b->i32, 32 - bits));
}

/* X's low bits as a stored integer of type TO; a part of a word stays what it is. */
static MlirValue cut(cmz_builder *b, MlirValue x, MlirType to) {
  if (b->buffer.part_bits && cmz_b_bits(cmz_b_type(x)) == 32) return x;
  return cmz_b_cast(b, "arith.trunci", x, to);
}

static MlirValue decode_f8(cmz_builder *b, cmz_dtype stored, MlirValue raw) {
  const cmz_dtype_row *row = cmz_dtype_info(stored);
  MlirValue bits = unsigned_part(b, raw);
  MlirType t = cmz_b_like(cmz_b_type(bits), b->f32);
  MlirValue nan = cmz_b_bitcast(b, int_like(b, bits, 0x7fc00000), b->f32);
  if (stored == CMZ_F8E8M0) { /* a power of two; 0 is 2^-127, 255 is NaN */
    MlirValue v = cmz_b_bitcast(b, shl_c(b, bits, 23), b->f32);
    v = cmz_b_select(b, cmz_b_icmp(b, CMZ_B_IEQ, bits, int_like(b, bits, 0)),
                     cmz_b_float(b, t, 0x1p-127), v);
    return cmz_b_select(b, cmz_b_icmp(b, CMZ_B_IEQ, bits, int_like(b, bits, 255)), nan, v);
  }
  bool uz = stored == CMZ_F8E4M3FNUZ || stored == CMZ_F8E5M2FNUZ;
  int bias = (1 << (row->exponent_bits - 1)) - (uz ? 0 : 1);
  MlirValue v =
      widen_float(b, bits, row->exponent_bits, row->mantissa_bits, bias, stored == CMZ_F8E5M2);
  if (uz) return cmz_b_select(b, cmz_b_icmp(b, CMZ_B_IEQ, bits, int_like(b, bits, 0x80)), nan, v);
  if (stored == CMZ_F8E4M3FN)
    return cmz_b_select(b, cmz_b_icmp(b, CMZ_B_IEQ, and_c(b, bits, 0x7f), int_like(b, bits, 0x7f)),
                        nan, v);
  return v;
}

MlirValue cmz_b_decode(cmz_builder *b, cmz_dtype stored, MlirValue raw) {
  switch (stored) {
  case CMZ_F16:
    if (b->cpu->f16_convert || (b->cpu->small && !b->buffer.part_bits))
      return cmz_b_cast(b, "arith.extf", cmz_b_bitcast(b, raw, b->f16), b->f32);
    return widen_float(b, unsigned_part(b, raw), 5, 10, 15, true);
  case CMZ_BF16:
    return cmz_b_bitcast(b, shl_c(b, unsigned_part(b, raw), 16), b->f32);
  case CMZ_I8:
    return signed_part(b, raw, 8);
  case CMZ_I16:
    return signed_part(b, raw, 16);
  case CMZ_U8:
  case CMZ_U16:
    return unsigned_part(b, raw);
  case CMZ_BOOL:
    return cmz_b_icmp(b, CMZ_B_INE, raw, int_like(b, raw, 0));
  case CMZ_F8E4M3FN:
  case CMZ_F8E4M3FNUZ:
  case CMZ_F8E5M2:
  case CMZ_F8E5M2FNUZ:
  case CMZ_F8E8M0:
    return decode_f8(b, stored, raw);
  default:
    return raw;
  }
}

/* f32 to f16 bits by integers: round to nearest even, denormals by adding a magic number. */
static MlirValue narrow_f16(cmz_builder *b, MlirValue v) {
  MlirValue bits = cmz_b_bitcast(b, v, b->i32);
  MlirValue sign = shr_c(b, and_c(b, bits, (int64_t)0x80000000), 16);
  MlirValue body = and_c(b, bits, 0x7fffffff);
  MlirType t = cmz_b_type(body);
  MlirValue nan = cmz_b_icmp(b, CMZ_B_UGT, body, cmz_b_int(b, t, 0x7f800000));
  MlirValue large = cmz_b_icmp(b, CMZ_B_UGE, body, cmz_b_int(b, t, 0x47800000));
  MlirValue small = cmz_b_icmp(b, CMZ_B_ULT, body, cmz_b_int(b, t, 0x38800000));
  /* denormal: the f32 addition aligns and rounds the mantissa */
  MlirValue magic = cmz_b_int(b, t, (15 - 10 + 127 - 15 + 0) << 23);
  MlirValue sum =
      cmz_b_add(b, cmz_b_bitcast(b, body, b->f32), cmz_b_float(b, cmz_b_like(t, b->f32), 0.5));
  (void)magic;
  MlirValue low = cmz_b_sub(b, cmz_b_bitcast(b, sum, b->i32), cmz_b_int(b, t, 0x3f000000));
  MlirValue odd = and_c(b, shr_c(b, body, 13), 1);
  MlirValue rounded =
      cmz_b_add(b, cmz_b_add(b, body, cmz_b_int(b, t, (int64_t)(int32_t)0xc8000fff)), odd);
  MlirValue r = cmz_b_select(b, small, low, shr_c(b, rounded, 13));
  r = cmz_b_select(b, large, cmz_b_select(b, nan, cmz_b_int(b, t, 0x7e00), cmz_b_int(b, t, 0x7c00)),
                   r);
  return cut(b, cmz_b_2(b, "arith.ori", r, sign), b->i16);
}

static MlirValue narrow_bf16(cmz_builder *b, MlirValue v) {
  MlirValue bits = cmz_b_bitcast(b, v, b->i32);
  MlirType t = cmz_b_type(bits);
  MlirValue odd = and_c(b, shr_c(b, bits, 16), 1);
  MlirValue r = shr_c(b, cmz_b_add(b, cmz_b_add(b, bits, cmz_b_int(b, t, 0x7fff)), odd), 16);
  MlirValue quiet = cmz_b_2(b, "arith.ori", shr_c(b, bits, 16), cmz_b_int(b, t, 0x40));
  r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_UNO, v, v), quiet, r);
  return cut(b, r, b->i16);
}

/* f32 to the bits of a float8 type: round to nearest even, beyond the largest number the largest,
 * infinity where the type has it. Denormals are rounded by adding the power of two whose last bit
 * is theirs. */
static MlirValue encode_f8(cmz_builder *b, cmz_dtype stored, MlirValue v) {
  static const struct {
    cmz_dtype dtype;
    int32_t bias;
    float most;
    int32_t nan;
    bool unsigned_zero;
  } rows[] = {{CMZ_F8E4M3FN, 7, 448, 0x7f, false},
              {CMZ_F8E4M3FNUZ, 8, 240, 0x80, true},
              {CMZ_F8E5M2, 15, 57344, 0x7e, false},
              {CMZ_F8E5M2FNUZ, 16, 57344, 0x80, true}};
  if (stored == CMZ_F8E8M0) { /* a power of two or NaN: kernels round before */
    MlirValue exponent = shr_c(b, and_c(b, cmz_b_bitcast(b, v, b->i32), 0x7f800000), 23);
    return cut(b, exponent, b->i8);
  }
  uint32_t row = 0;
  while (row < CMZ_COUNT_OF(rows) && rows[row].dtype != stored) row++;
  if (row == CMZ_COUNT_OF(rows)) return (MlirValue){NULL};
  int32_t mantissa = cmz_dtype_info(stored)->mantissa_bits, shift = 23 - mantissa,
          bias = rows[row].bias, most;
  memcpy(&most, &rows[row].most, sizeof most);
  MlirValue bits = cmz_b_bitcast(b, v, b->i32);
  MlirType t = cmz_b_type(bits);
  MlirValue sign = shr_c(b, and_c(b, bits, (int64_t)0x80000000), 24),
            body = and_c(b, bits, 0x7fffffff);
  MlirValue nan = cmz_b_icmp(b, CMZ_B_UGT, body, cmz_b_int(b, t, 0x7f800000)),
            largest = cmz_b_int(b, t, most);
  MlirValue infinite = cmz_b_icmp(b, CMZ_B_IEQ, body, cmz_b_int(b, t, 0x7f800000));
  body = cmz_b_select(b, cmz_b_icmp(b, CMZ_B_UGT, body, largest), largest, body);
  MlirValue odd = and_c(b, shr_c(b, body, shift), 1);
  MlirValue rounded =
      cmz_b_add(b, cmz_b_add(b, body, cmz_b_int(b, t, (1 << (shift - 1)) - 1)), odd);
  MlirValue r = cmz_b_sub(b, shr_c(b, rounded, shift), cmz_b_int(b, t, (127 - bias) << mantissa));
  double magic = ldexp(1, 24 - bias - mantissa);
  MlirValue sum =
      cmz_b_add(b, cmz_b_bitcast(b, body, b->f32), cmz_b_float(b, cmz_b_like(t, b->f32), magic));
  MlirValue magic_bits = cmz_b_int(b, t, (int64_t)(151 - bias - mantissa) << 23);
  MlirValue low = cmz_b_sub(b, cmz_b_bitcast(b, sum, b->i32), magic_bits);
  MlirValue small = cmz_b_icmp(b, CMZ_B_ULT, body, cmz_b_int(b, t, (int64_t)(128 - bias) << 23));
  r = cmz_b_select(b, small, low, r);
  if (stored == CMZ_F8E5M2) r = cmz_b_select(b, infinite, cmz_b_int(b, t, 0x7c), r);
  MlirValue with_sign = cmz_b_2(b, "arith.ori", r, sign);
  if (rows[row].unsigned_zero)
    with_sign = cmz_b_select(b, cmz_b_icmp(b, CMZ_B_INE, r, cmz_b_int(b, t, 0)), with_sign, r);
  r = cmz_b_select(b, nan, cmz_b_int(b, t, rows[row].nan), with_sign);
  return cut(b, r, b->i8);
}

MlirValue cmz_b_encode(cmz_builder *b, cmz_dtype stored, MlirValue value) {
  switch (stored) {
  case CMZ_F16:
    if (b->cpu->f16_convert)
      return cmz_b_bitcast(b, cmz_b_cast(b, "arith.truncf", value, b->f16), b->i16);
    return narrow_f16(b, value);
  case CMZ_BF16: /* (AVX-512's takes denormals for zero) */
    if (b->cpu->bf16_dot == CMZ_PAIRS_BFMMLA)
      return cmz_b_bitcast(b, cmz_b_cast(b, "arith.truncf", value, mlirBF16TypeGet(b->mlir)),
                           b->i16);
    return narrow_bf16(b, value);
  case CMZ_I8:
  case CMZ_U8:
    return cut(b, value, b->i8);
  case CMZ_I16:
  case CMZ_U16:
    return cut(b, value, b->i16);
  case CMZ_BOOL:
    return cmz_b_cast(b, "arith.extui", value, b->buffer.part_bits ? b->i32 : b->i8);
  case CMZ_F8E4M3FN:
  case CMZ_F8E4M3FNUZ:
  case CMZ_F8E5M2:
  case CMZ_F8E5M2FNUZ:
  case CMZ_F8E8M0:
    return encode_f8(b, stored, value);
  default:
    return value;
  }
}

/* By comparisons: past the ends the ends, NaN 0. The ends are powers of two, so exact in X's type.
 */
static MlirValue saturate(cmz_builder *b, bool is_unsigned, MlirValue x, MlirType to) {
  MlirType t = cmz_b_type(x);
  uint32_t bits = cmz_b_bits(to);
  double top = ldexp(1, (int)bits - (is_unsigned ? 0 : 1)), bottom = is_unsigned ? 0 : -top;
  int64_t least = is_unsigned ? 0 : bits == 64 ? INT64_MIN : -(INT64_C(1) << (bits - 1));
  int64_t most = is_unsigned ? -1 : ~least;
  MlirValue large = cmz_b_fcmp(b, CMZ_B_OGE, x, cmz_b_float(b, t, top));
  MlirValue inside = cmz_b_fcmp(b, CMZ_B_OGT, x, cmz_b_float(b, t, bottom));
  MlirValue safe = cmz_b_select(b, inside, cmz_b_select(b, large, cmz_b_float(b, t, 0), x),
                                cmz_b_float(b, t, 0));
  MlirValue r = cmz_b_cast(b, is_unsigned ? "arith.fptoui" : "arith.fptosi", safe, to);
  r = cmz_b_select(b, large, cmz_b_int(b, to, most), r);
  MlirValue small = cmz_b_fcmp(b, CMZ_B_OLE, x, cmz_b_float(b, t, bottom));
  return cmz_b_select(b, small, cmz_b_int(b, to, least), r);
}

MlirValue cmz_b_intrinsic(cmz_builder *b, const char *name, uint32_t count,
                          const MlirValue *operands, MlirType result) {
  MlirAttribute text = mlirStringAttrGet(b->mlir, mlirStringRefCreateFromCString(name));
  MlirAttribute segments = mlirDenseI32ArrayGet(b->mlir, 2, (int32_t[]){(int32_t)count, 0});
  MlirNamedAttribute attrs[3] = {
      cmz_b_attr(b, "intrin", text),
      cmz_b_attr(b, "op_bundle_sizes", mlirDenseI32ArrayGet(b->mlir, 0, NULL)),
      cmz_b_attr(b, "operandSegmentSizes", segments)};
  MlirOperation op = cmz_b_op(b, "llvm.call_intrinsic", count, operands, result.ptr ? 1 : 0,
                              &result, 3, attrs, 0, NULL);
  return result.ptr ? mlirOperationGetResult(op, 0) : (MlirValue){NULL};
}

/* LLVM's saturating conversions have no op of their own in MLIR's LLVM dialect; where no
 * instruction does them, it takes vectors apart. */
static MlirValue float_to_int(cmz_builder *b, const char *intrinsic, MlirValue x, MlirType to) {
  if (b->cpu->spirv || (cmz_b_lanes(cmz_b_type(x)) > 1 && !b->cpu->saturating))
    return saturate(b, intrinsic[9] == 'u', x, to);
  return cmz_b_intrinsic(b, intrinsic, 1, &x, cmz_b_like(cmz_b_type(x), cmz_b_element(to)));
}

MlirValue cmz_b_convert(cmz_builder *b, MlirValue x, cmz_dtype from, cmz_dtype to) {
  MlirType target = cmz_b_compute_type(b, to), t = cmz_b_type(x);
  bool from_float = from == CMZ_F32 || from == CMZ_F64, to_float = to == CMZ_F32 || to == CMZ_F64;
  bool is_unsigned = from == CMZ_U32 || from == CMZ_U64 || from == CMZ_BOOL;
  if (from == to) return x;
  if (to == CMZ_BOOL)
    return from_float ? cmz_b_fcmp(b, CMZ_B_UNE, x, cmz_b_float(b, t, 0))
                      : cmz_b_icmp(b, CMZ_B_INE, x, cmz_b_int(b, t, 0));
  if (from_float && to_float)
    return cmz_b_cast(b, to == CMZ_F64 ? "arith.extf" : "arith.truncf", x, target);
  if (from_float)
    return float_to_int(b, to == CMZ_U32 || to == CMZ_U64 ? "llvm.fptoui.sat" : "llvm.fptosi.sat",
                        x, target);
  if (to_float) return cmz_b_cast(b, is_unsigned ? "arith.uitofp" : "arith.sitofp", x, target);
  uint32_t bits = cmz_b_bits(t), wanted = cmz_b_bits(target);
  if (bits == wanted) return x;
  if (bits > wanted) return cmz_b_cast(b, "arith.trunci", x, target);
  return cmz_b_cast(b, is_unsigned ? "arith.extui" : "arith.extsi", x, target);
}
