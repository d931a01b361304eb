/* builder.c - the helpers of builder.h: types, operations, control flow. Memory and conversions are
 * in memory.c. In: a cursor. Out: operations at its end. Always holds: results are never null for
 * valid operands. */
#include "builder.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/Dialect/LLVM.h"

static MlirStringRef text(const char *s) { return mlirStringRefCreateFromCString(s); }

void cmz_builder_init(cmz_builder *b, MlirContext mlir, MlirLocation location,
                      const cmz_cpu_row *cpu) {
  *b = (cmz_builder){.mlir = mlir, .location = location, .cpu = cpu};
  b->f16 = mlirF16TypeGet(mlir);
  b->f32 = mlirF32TypeGet(mlir);
  b->f64 = mlirF64TypeGet(mlir);
  b->i1 = mlirIntegerTypeGet(mlir, 1);
  b->i8 = mlirIntegerTypeGet(mlir, 8);
  b->i16 = mlirIntegerTypeGet(mlir, 16);
  b->i32 = mlirIntegerTypeGet(mlir, 32);
  b->i64 = b->bits64 = mlirIntegerTypeGet(mlir, 64);
  b->pointer = mlirLLVMPointerTypeGet(mlir, 0);
}

/* ---- types ---- */

MlirType cmz_b_vector(MlirType element, uint32_t lanes) {
  if (lanes <= 1) return element;
  int64_t shape = lanes;
  return mlirVectorTypeGet(1, &shape, element);
}

MlirType cmz_b_element(MlirType type) {
  return mlirTypeIsAVector(type) ? mlirShapedTypeGetElementType(type) : type;
}

uint32_t cmz_b_lanes(MlirType type) {
  return mlirTypeIsAVector(type) ? (uint32_t)mlirShapedTypeGetDimSize(type, 0) : 1;
}

bool cmz_b_is_float(MlirType type) { return mlirTypeIsAFloat(cmz_b_element(type)); }

uint32_t cmz_b_bits(MlirType type) {
  MlirType e = cmz_b_element(type);
  return mlirTypeIsAFloat(e) ? mlirFloatTypeGetWidth(e) : mlirIntegerTypeGetWidth(e);
}

/* ---- operations ---- */

MlirNamedAttribute cmz_b_attr(cmz_builder *b, const char *name, MlirAttribute value) {
  return mlirNamedAttributeGet(mlirIdentifierGet(b->mlir, text(name)), value);
}

MlirOperation cmz_b_op(cmz_builder *b, const char *name, uint32_t operand_count,
                       const MlirValue *operands, uint32_t result_count, const MlirType *results,
                       uint32_t attr_count, const MlirNamedAttribute *attrs, uint32_t region_count,
                       MlirRegion *regions) {
  MlirOperationState state = mlirOperationStateGet(text(name), b->location);
  if (operand_count) mlirOperationStateAddOperands(&state, operand_count, operands);
  if (result_count) mlirOperationStateAddResults(&state, result_count, results);
  if (attr_count) mlirOperationStateAddAttributes(&state, attr_count, attrs);
  if (region_count) mlirOperationStateAddOwnedRegions(&state, region_count, regions);
  MlirOperation op = mlirOperationCreate(&state);
  mlirBlockAppendOwnedOperation(b->block, op);
  return op;
}

/* SPIR-V knows the math dialect, not LLVM's intrinsics. */
static const char *portable_name(const char *name) {
  static const struct {
    const char *llvm, *math;
  } rows[] = {{"llvm.intr.fabs", "math.absf"},           {"llvm.intr.sqrt", "math.sqrt"},
              {"llvm.intr.copysign", "math.copysign"},   {"llvm.intr.fma", "math.fma"},
              {"llvm.intr.roundeven", "math.roundeven"}, {"llvm.intr.floor", "math.floor"},
              {"llvm.intr.ceil", "math.ceil"},           {"llvm.intr.ctpop", "math.ctpop"}};
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++)
    if (strcmp(rows[i].llvm, name) == 0) return rows[i].math;
  return name;
}

static MlirValue one_result(cmz_builder *b, const char *name, uint32_t count,
                            const MlirValue *operands, MlirType type, uint32_t attr_count,
                            const MlirNamedAttribute *attrs) {
  if (b->cpu->spirv) name = portable_name(name);
  return mlirOperationGetResult(
      cmz_b_op(b, name, count, operands, 1, &type, attr_count, attrs, 0, NULL), 0);
}

static MlirValue constant(cmz_builder *b, MlirType type, MlirAttribute element) {
  MlirAttribute value =
      mlirTypeIsAVector(type) ? mlirDenseElementsAttrSplatGet(type, element) : element;
  MlirNamedAttribute attr = cmz_b_attr(b, "value", value);
  return one_result(b, "arith.constant", 0, NULL, type, 1, &attr);
}

MlirValue cmz_b_int(cmz_builder *b, MlirType type, int64_t value) {
  return constant(b, type, mlirIntegerAttrGet(cmz_b_element(type), value));
}

MlirValue cmz_b_float(cmz_builder *b, MlirType type, double value) {
  return constant(b, type, mlirFloatAttrDoubleGet(b->mlir, cmz_b_element(type), value));
}

MlirValue cmz_b_const(cmz_builder *b, MlirType type, double value) {
  return cmz_b_is_float(type) ? cmz_b_float(b, type, value) : cmz_b_int(b, type, (int64_t)value);
}

MlirValue cmz_b_iota(cmz_builder *b, MlirType vector) {
  MlirAttribute values[256];
  uint32_t lanes = cmz_b_lanes(vector);
  for (uint32_t i = 0; i < lanes && i < 256; i++)
    values[i] = mlirIntegerAttrGet(cmz_b_element(vector), i);
  MlirNamedAttribute attr = cmz_b_attr(b, "value", mlirDenseElementsAttrGet(vector, lanes, values));
  return one_result(b, "arith.constant", 0, NULL, vector, 1, &attr);
}

/* SPIR-V's dialect has no conversion of math.trunc: towards zero is up below zero and down above.
 */
static MlirValue towards_zero(cmz_builder *b, MlirValue x) {
  MlirValue below = cmz_b_fcmp(b, CMZ_B_OLT, x, cmz_b_float(b, cmz_b_type(x), 0));
  return cmz_b_select(b, below, cmz_b_1(b, "llvm.intr.ceil", x), cmz_b_1(b, "llvm.intr.floor", x));
}

MlirValue cmz_b_1(cmz_builder *b, const char *name, MlirValue x) {
  if (b->cpu->spirv && strcmp(name, "llvm.intr.trunc") == 0) return towards_zero(b, x);
  return one_result(b, name, 1, &x, cmz_b_type(x), 0, NULL);
}

MlirValue cmz_b_2(cmz_builder *b, const char *name, MlirValue x, MlirValue y) {
  cmz_b_match(b, &x, &y);
  return one_result(b, name, 2, (MlirValue[]){x, y}, cmz_b_type(x), 0, NULL);
}

MlirValue cmz_b_cast(cmz_builder *b, const char *name, MlirValue x, MlirType to) {
  return one_result(b, name, 1, &x, cmz_b_like(cmz_b_type(x), cmz_b_element(to)), 0, NULL);
}

static MlirValue compare(cmz_builder *b, const char *name, int predicate, MlirValue x,
                         MlirValue y) {
  cmz_b_match(b, &x, &y);
  MlirNamedAttribute attr = cmz_b_attr(b, "predicate", mlirIntegerAttrGet(b->bits64, predicate));
  return one_result(b, name, 2, (MlirValue[]){x, y}, cmz_b_like(cmz_b_type(x), b->i1), 1, &attr);
}

MlirValue cmz_b_icmp(cmz_builder *b, int predicate, MlirValue x, MlirValue y) {
  return compare(b, "arith.cmpi", predicate, x, y);
}

MlirValue cmz_b_fcmp(cmz_builder *b, int predicate, MlirValue x, MlirValue y) {
  return compare(b, "arith.cmpf", predicate, x, y);
}

MlirValue cmz_b_select(cmz_builder *b, MlirValue condition, MlirValue x, MlirValue y) {
  cmz_b_match(b, &x, &y);
  uint32_t lanes = cmz_b_lanes(cmz_b_type(condition));
  if (lanes > 1) {
    x = cmz_b_broadcast(b, x, lanes);
    y = cmz_b_broadcast(b, y, lanes);
  }
  return one_result(b, "arith.select", 3, (MlirValue[]){condition, x, y}, cmz_b_type(x), 0, NULL);
}

MlirValue cmz_b_bitcast(cmz_builder *b, MlirValue x, MlirType element) {
  return cmz_b_cast(b, "arith.bitcast", x, element);
}

MlirValue cmz_b_broadcast(cmz_builder *b, MlirValue x, uint32_t lanes) {
  if (lanes <= 1 || cmz_b_lanes(cmz_b_type(x)) == lanes) return x;
  return one_result(b, "vector.broadcast", 1, &x, cmz_b_vector(cmz_b_type(x), lanes), 0, NULL);
}

void cmz_b_match(cmz_builder *b, MlirValue *x, MlirValue *y) {
  uint32_t lx = cmz_b_lanes(cmz_b_type(*x)), ly = cmz_b_lanes(cmz_b_type(*y));
  if (lx < ly) *x = cmz_b_broadcast(b, *x, ly);
  if (ly < lx) *y = cmz_b_broadcast(b, *y, lx);
}

MlirValue cmz_b_extract(cmz_builder *b, MlirValue vector, uint32_t lane) {
  MlirValue at = cmz_b_int(b, b->i32, lane);
  return one_result(b, "llvm.extractelement", 2, (MlirValue[]){vector, at},
                    cmz_b_element(cmz_b_type(vector)), 0, NULL);
}

MlirValue cmz_b_insert(cmz_builder *b, MlirValue vector, MlirValue x, uint32_t lane) {
  MlirValue at = cmz_b_int(b, b->i32, lane);
  return one_result(b, "llvm.insertelement", 3, (MlirValue[]){vector, x, at}, cmz_b_type(vector), 0,
                    NULL);
}

MlirValue cmz_b_slice(cmz_builder *b, MlirValue vector, uint32_t first, uint32_t lanes) {
  if (lanes == 1) return cmz_b_extract(b, vector, first);
  int32_t mask[256];
  for (uint32_t i = 0; i < lanes && i < 256; i++) mask[i] = (int32_t)(first + i);
  return cmz_b_shuffle(b, vector, vector, mask, lanes);
}

MlirValue cmz_b_shuffle(cmz_builder *b, MlirValue x, MlirValue y, const int32_t *pick,
                        uint32_t lanes) {
  MlirNamedAttribute attr = cmz_b_attr(b, "mask", mlirDenseI32ArrayGet(b->mlir, lanes, pick));
  return one_result(b, "llvm.shufflevector", 2, (MlirValue[]){x, y},
                    cmz_b_vector(cmz_b_element(cmz_b_type(x)), lanes), 1, &attr);
}

/* f32 x * y + z: an f64 holds the product exactly, so that but for the sum's own rounding to f64
 * (once in some 10^8 times it turns a number into a tie) one rounding is left. */
static MlirValue soft_fma(cmz_builder *b, MlirValue x, MlirValue y, MlirValue z) {
  MlirType narrow = cmz_b_type(x), wide = cmz_b_like(narrow, b->f64);
  MlirValue product =
      cmz_b_mul(b, cmz_b_cast(b, "arith.extf", x, wide), cmz_b_cast(b, "arith.extf", y, wide));
  MlirValue sum = cmz_b_add(b, product, cmz_b_cast(b, "arith.extf", z, wide));
  return cmz_b_cast(b, "arith.truncf", sum, narrow);
}

/* ---- products of f16 numbers ---- */

#define HALVES 8 /* in a register; FMLAL takes the first four */

/* The operation that makes V when it is NAME; a null one otherwise. */
static MlirOperation maker(MlirValue v, const char *name) {
  MlirOperation op = {NULL};
  if (!mlirValueIsAOpResult(v)) return op;
  op = mlirOpResultGetOwner(v);
  bool same = mlirStringRefEqual(mlirIdentifierStr(mlirOperationGetName(op)), text(name));
  return same ? op : (MlirOperation){NULL};
}

/* What V was converted from, f16 numbers; null when from something else. */
static MlirValue converted_from(cmz_builder *b, MlirValue v) {
  MlirOperation op = maker(v, "arith.extf");
  if (op.ptr == NULL) return (MlirValue){NULL};
  MlirValue from = mlirOperationGetOperand(op, 0);
  return mlirTypeEqual(cmz_b_element(cmz_b_type(from)), b->f16) ? from : (MlirValue){NULL};
}

/* The number of the lane that an extraction takes. */
static int32_t extracted_lane(MlirOperation extraction) {
  MlirOperation at = maker(mlirOperationGetOperand(extraction, 1), "arith.constant");
  return (int32_t)mlirIntegerAttrGetValueSInt(mlirOperationGetAttributeByName(at, text("value")));
}

/* Four lanes V (or one for all of them) as f16 numbers in the lower half of a register; null where
 * it was not converted from such. */
static MlirValue as_halves(cmz_builder *b, MlirValue v) {
  int32_t pick[HALVES] = {0, 1, 2, 3, -1, -1, -1, -1};
  MlirValue from = converted_from(b, v);
  MlirOperation extraction = maker(v, "llvm.extractelement");
  if (from.ptr && cmz_b_lanes(cmz_b_type(v)) == 1) return cmz_b_broadcast(b, from, HALVES);
  if (extraction.ptr) {
    from = converted_from(b, mlirOperationGetOperand(extraction, 0));
    for (uint32_t i = 0; i < HALVES && from.ptr; i++) pick[i] = extracted_lane(extraction);
  }
  return from.ptr ? cmz_b_shuffle(b, from, from, pick, HALVES) : from;
}

/* Z + x * y in one instruction that takes the f16 numbers which x and y were converted from: the
 * same result, as their product has no more bits than f32 holds. Null where they were not. */
static MlirValue widening_fma(cmz_builder *b, MlirValue x, MlirValue y, MlirValue z) {
  MlirType t = cmz_b_type(z);
  if (!b->cpu->f16_products || cmz_b_lanes(t) != 4 || !mlirTypeEqual(cmz_b_element(t), b->f32))
    return (MlirValue){NULL};
  bool first = cmz_b_lanes(cmz_b_type(x)) > 1; /* a lane of a register may stand last */
  MlirValue operands[3] = {z, as_halves(b, first ? x : y)};
  if (operands[1].ptr) operands[2] = as_halves(b, first ? y : x);
  if (!operands[1].ptr || !operands[2].ptr) return (MlirValue){NULL};
  return cmz_b_intrinsic(b, "llvm.aarch64.neon.fmlal", 3, operands, t);
}

MlirValue cmz_b_fma(cmz_builder *b, MlirValue x, MlirValue y, MlirValue z) {
  MlirValue widened = widening_fma(b, x, y, z);
  if (widened.ptr) return widened;
  cmz_b_match(b, &x, &y);
  cmz_b_match(b, &x, &z);
  cmz_b_match(b, &x, &y);
  if (!b->cpu->fma && b->cpu->soft_fma && cmz_b_bits(cmz_b_type(x)) == 32)
    return soft_fma(b, x, y, z);
  if (!b->cpu->fma) return cmz_b_2(b, "arith.addf", cmz_b_2(b, "arith.mulf", x, y), z);
  return one_result(b, "llvm.intr.fma", 3, (MlirValue[]){x, y, z}, cmz_b_type(x), 0, NULL);
}

MlirValue cmz_b_add(cmz_builder *b, MlirValue x, MlirValue y) {
  return cmz_b_2(b, cmz_b_is_float(cmz_b_type(x)) ? "arith.addf" : "arith.addi", x, y);
}
MlirValue cmz_b_sub(cmz_builder *b, MlirValue x, MlirValue y) {
  return cmz_b_2(b, cmz_b_is_float(cmz_b_type(x)) ? "arith.subf" : "arith.subi", x, y);
}
MlirValue cmz_b_mul(cmz_builder *b, MlirValue x, MlirValue y) {
  return cmz_b_2(b, cmz_b_is_float(cmz_b_type(x)) ? "arith.mulf" : "arith.muli", x, y);
}

/* A comparison that is false for NaN chooses Y, so a NaN in Y is kept by itself; one in X needs a
 * test of its own, which LLVM drops when X is a constant. */
static MlirValue extreme(cmz_builder *b, MlirValue x, MlirValue y, int float_predicate,
                         int int_predicate) {
  cmz_b_match(b, &x, &y);
  if (!cmz_b_is_float(cmz_b_type(x)))
    return cmz_b_select(b, cmz_b_icmp(b, int_predicate, x, y), x, y);
  MlirValue r = cmz_b_select(b, cmz_b_fcmp(b, float_predicate, x, y), x, y);
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_UNO, x, x), x, r);
}

MlirValue cmz_b_min(cmz_builder *b, MlirValue x, MlirValue y, bool is_signed) {
  return extreme(b, x, y, CMZ_B_OLT, is_signed ? CMZ_B_SLT : CMZ_B_ULT);
}
MlirValue cmz_b_max(cmz_builder *b, MlirValue x, MlirValue y, bool is_signed) {
  return extreme(b, x, y, CMZ_B_OGT, is_signed ? CMZ_B_SGT : CMZ_B_UGT);
}

/* ---- control ---- */

MlirBlock cmz_b_region(MlirRegion *region) {
  *region = mlirRegionCreate();
  MlirBlock block = mlirBlockCreate(0, NULL, NULL);
  mlirRegionAppendOwnedBlock(*region, block);
  return block;
}

void cmz_b_loop_open(cmz_builder *b, cmz_arena *arena, const MlirValue *initial, uint32_t count,
                     cmz_b_loop *loop) {
  MlirType *types = CMZ_NEW_ARRAY(arena, MlirType, count + 1);
  MlirLocation *locations = CMZ_NEW_ARRAY(arena, MlirLocation, count + 1);
  types[0] = b->i64;
  locations[0] = b->location;
  for (uint32_t i = 0; i < count; i++) {
    types[i + 1] = cmz_b_type(initial[i]);
    locations[i + 1] = b->location;
  }
  loop->rolled = false;
  loop->region = mlirRegionCreate();
  loop->body = mlirBlockCreate((intptr_t)count + 1, types, locations);
  mlirRegionAppendOwnedBlock(loop->region, loop->body);
  loop->index = mlirBlockGetArgument(loop->body, 0);
  loop->carried = CMZ_NEW_ARRAY(arena, MlirValue, count + 1);
  for (uint32_t i = 0; i < count; i++)
    loop->carried[i] = mlirBlockGetArgument(loop->body, (intptr_t)i + 1);
}

void cmz_b_yield(cmz_builder *b, MlirBlock block, const MlirValue *values, uint32_t count) {
  MlirBlock saved = b->block;
  b->block = block;
  cmz_b_op(b, "scf.yield", count, values, 0, NULL, 0, NULL, 0, NULL);
  b->block = saved;
}

#define MAX_CARRIED 512
void cmz_b_loop_close(cmz_builder *b, cmz_b_loop *loop, MlirValue low, MlirValue high,
                      MlirValue step, const MlirValue *initial, uint32_t count, MlirValue *out) {
  MlirValue operands[MAX_CARRIED + 3] = {low, high, step};
  MlirType types[MAX_CARRIED + 1];
  for (uint32_t i = 0; i < count; i++) {
    operands[i + 3] = initial[i];
    types[i] = cmz_b_type(initial[i]);
  }
  cmz_b_yield(b, loop->body, out, count);
  MlirNamedAttribute rolled;
  bool rolls = loop->rolled && b->cpu->threads && !b->cpu->spirv;
  if (rolls)
    rolled = cmz_b_attr(
        b, "loop_annotation",
        mlirAttributeParseGet(b->mlir, mlirStringRefCreateFromCString(
                                           "#llvm.loop_annotation<unroll = <disable = true>>")));
  MlirOperation op =
      cmz_b_op(b, "scf.for", count + 3, operands, count, types, rolls, &rolled, 1, &loop->region);
  for (uint32_t i = 0; i < count; i++) out[i] = mlirOperationGetResult(op, (intptr_t)i);
  /* MLIR's SPIR-V sets a loop's results only where an iteration ends: without one they would be
   * undefined. */
  MlirValue any = b->cpu->spirv && count ? cmz_b_icmp(b, CMZ_B_SLT, low, high) : (MlirValue){NULL};
  for (uint32_t i = 0; any.ptr && i < count; i++) out[i] = cmz_b_select(b, any, out[i], initial[i]);
}

void cmz_b_if(cmz_builder *b, MlirValue condition, MlirRegion then_region, MlirRegion else_region,
              const MlirType *types, uint32_t count, MlirValue *out) {
  MlirOperation op = cmz_b_op(b, "scf.if", 1, &condition, count, types, 0, NULL, 2,
                              (MlirRegion[]){then_region, else_region});
  for (uint32_t i = 0; i < count; i++) out[i] = mlirOperationGetResult(op, (intptr_t)i);
}
