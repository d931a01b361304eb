/* builder.h - a thin C layer on the MLIR C API: what the CPU emitter says, in the words of arith,
 * scf, vector and llvm. In: a cursor (block, location). Out: operations appended to that block.
 * Always holds: attributes are built by typed helpers only (a misspelt one would be silently
 * ignored by MLIR); memory is touched by cmz_b_load and cmz_b_store alone; every helper works on
 * scalars and vectors alike, and a scalar meeting a vector is broadcast by cmz_b_match. */
#ifndef CMZ_CODEGEN_BUILDER_H
#define CMZ_CODEGEN_BUILDER_H

#include "../ir/dtype.h"
#include "../targets/target.h"
#include "mlir-c/IR.h"

/* A buffer of Vulkan's, whose elements are reached by number: bindings one after the other, and
 * what lies in them. */
typedef struct cmz_b_buffer {
  const MlirValue *windows; /* COUNT of them, each but the last of 1 << SHIFT elements */
  uint32_t count;
  MlirValue shift; /* i64; with COUNT above 1 */
  /* 8 or 16: they hold 32-bit words, whose parts of so many bits are the elements; 0: elements */
  uint32_t part_bits;
  /* They hold 64-bit numbers as two 32-bit words, the lower first; loads give the lower, stores
   * extend the sign */
  bool pairs;
} cmz_b_buffer;

typedef struct cmz_builder {
  MlirContext mlir;
  MlirLocation location;
  MlirBlock block; /* operations are appended here */
  const cmz_cpu_row *cpu;
  /* With cpu->spirv: that loads and stores are in; addresses are element numbers, i64 */
  cmz_b_buffer buffer;
  /* 64-bit integers, indices among them, are known to fit in 32 bits: i64 is i32 */
  bool narrow;
  MlirType f16, f32, f64, i1, i8, i16, i32, i64, pointer;
  MlirType bits64; /* 64 bits even then */
} cmz_builder;

/* Comparison predicates in arith's numbering. */
enum {
  CMZ_B_IEQ = 0,
  CMZ_B_INE = 1,
  CMZ_B_SLT = 2,
  CMZ_B_SLE = 3,
  CMZ_B_SGT = 4,
  CMZ_B_SGE = 5,
  CMZ_B_ULT = 6,
  CMZ_B_ULE = 7,
  CMZ_B_UGT = 8,
  CMZ_B_UGE = 9
};
enum {
  CMZ_B_OEQ = 1,
  CMZ_B_OGT = 2,
  CMZ_B_OGE = 3,
  CMZ_B_OLT = 4,
  CMZ_B_OLE = 5,
  CMZ_B_UNO_UGT = 9,
  CMZ_B_UNE = 13,
  CMZ_B_UNO = 14
};

void cmz_builder_init(cmz_builder *b, MlirContext mlir, MlirLocation location,
                      const cmz_cpu_row *cpu);

/* ---- types ---- */
/* ELEMENT itself when lanes is 1 */
MlirType cmz_b_vector(MlirType element, uint32_t lanes);
MlirType cmz_b_element(MlirType type);
uint32_t cmz_b_lanes(MlirType type);
static inline MlirType cmz_b_like(MlirType shape, MlirType element) {
  return cmz_b_vector(element, cmz_b_lanes(shape));
}
bool cmz_b_is_float(MlirType type); /* of the element */
uint32_t cmz_b_bits(MlirType type); /* of the element */
static inline MlirType cmz_b_type(MlirValue v) { return mlirValueGetType(v); }

/* ---- operations ---- */
MlirNamedAttribute cmz_b_attr(cmz_builder *b, const char *name, MlirAttribute value);
MlirOperation cmz_b_op(cmz_builder *b, const char *name, uint32_t operand_count,
                       const MlirValue *operands, uint32_t result_count, const MlirType *results,
                       uint32_t attr_count, const MlirNamedAttribute *attrs, uint32_t region_count,
                       MlirRegion *regions);
MlirValue cmz_b_int(cmz_builder *b, MlirType type, int64_t value);
MlirValue cmz_b_float(cmz_builder *b, MlirType type, double value);
/* Whichever TYPE needs */
MlirValue cmz_b_const(cmz_builder *b, MlirType type, double value);
/* 0, 1, 2 … of an integer vector */
MlirValue cmz_b_iota(cmz_builder *b, MlirType vector);
static inline MlirValue cmz_b_i64(cmz_builder *b, int64_t value) {
  return cmz_b_int(b, b->i64, value);
}
/* One and two operands, result of the operand's type. */
MlirValue cmz_b_1(cmz_builder *b, const char *name, MlirValue x);
MlirValue cmz_b_2(cmz_builder *b, const char *name, MlirValue x, MlirValue y);
MlirValue cmz_b_cast(cmz_builder *b, const char *name, MlirValue x, MlirType to);
MlirValue cmz_b_icmp(cmz_builder *b, int predicate, MlirValue x, MlirValue y);
MlirValue cmz_b_fcmp(cmz_builder *b, int predicate, MlirValue x, MlirValue y);
MlirValue cmz_b_select(cmz_builder *b, MlirValue condition, MlirValue x, MlirValue y);
MlirValue cmz_b_bitcast(cmz_builder *b, MlirValue x, MlirType element);
/* X itself when it has LANES already */
MlirValue cmz_b_broadcast(cmz_builder *b, MlirValue x, uint32_t lanes);
/* The scalar of the two is broadcast */
void cmz_b_match(cmz_builder *b, MlirValue *x, MlirValue *y);
MlirValue cmz_b_extract(cmz_builder *b, MlirValue vector, uint32_t lane);
MlirValue cmz_b_insert(cmz_builder *b, MlirValue vector, MlirValue x, uint32_t lane);
MlirValue cmz_b_slice(cmz_builder *b, MlirValue vector, uint32_t first, uint32_t lanes);
/* Lanes of X followed by Y: result lane I is lane PICK[I] of both together. */
MlirValue cmz_b_shuffle(cmz_builder *b, MlirValue x, MlirValue y, const int32_t *pick,
                        uint32_t lanes);
/* x * y + z: one rounding where the machine has fused multiply-add or it is made up (soft_fma), two
 * elsewhere. Factors that were converted from f16 are taken as they were where an instruction does
 * that. */
MlirValue cmz_b_fma(cmz_builder *b, MlirValue x, MlirValue y, MlirValue z);
/* Short forms; floats or integers by type. */
MlirValue cmz_b_add(cmz_builder *b, MlirValue x, MlirValue y);
MlirValue cmz_b_sub(cmz_builder *b, MlirValue x, MlirValue y);
MlirValue cmz_b_mul(cmz_builder *b, MlirValue x, MlirValue y);
/* Smaller / larger of two, NaN when either is; IS_SIGNED matters for integers. */
MlirValue cmz_b_min(cmz_builder *b, MlirValue x, MlirValue y, bool is_signed);
MlirValue cmz_b_max(cmz_builder *b, MlirValue x, MlirValue y, bool is_signed);

/* ---- control ---- */
/* ROLLED, set before closing: CUDA's assembler is not to unroll the loop (what is worth it has been
 * unrolled). */
typedef struct cmz_b_loop {
  MlirRegion region;
  MlirBlock body;
  MlirValue index;
  MlirValue *carried;
  bool rolled;
} cmz_b_loop;
/* A loop's body with COUNT carried values of the types of INITIAL; append to loop->body, then
 * close. */
void cmz_b_loop_open(cmz_builder *b, cmz_arena *arena, const MlirValue *initial, uint32_t count,
                     cmz_b_loop *loop);
/* Yields OUT at the end of the body, appends the loop to b->block and writes its results to OUT. */
void cmz_b_loop_close(cmz_builder *b, cmz_b_loop *loop, MlirValue low, MlirValue high,
                      MlirValue step, const MlirValue *initial, uint32_t count, MlirValue *out);
MlirBlock cmz_b_region(MlirRegion *region); /* a region of one empty block */
void cmz_b_yield(cmz_builder *b, MlirBlock block, const MlirValue *values, uint32_t count);
void cmz_b_if(cmz_builder *b, MlirValue condition, MlirRegion then_region, MlirRegion else_region,
              const MlirType *types, uint32_t count, MlirValue *out);

/* ---- memory: BASE is the address of an element of ELEMENT type ---- */
/* Base + index elements */
MlirValue cmz_b_address(cmz_builder *b, MlirType element, MlirValue base, MlirValue index);
MlirValue cmz_b_address_const(cmz_builder *b, MlirType element, MlirValue base, int64_t index);
/* MASK (a vector of i1) may be null; lanes it switches off are zero and not touched. */
MlirValue cmz_b_load(cmz_builder *b, MlirType type, MlirValue address, const MlirValue *mask,
                     bool invariant);
void cmz_b_store(cmz_builder *b, MlirValue value, MlirValue address, const MlirValue *mask);
/* The same in b->buffer (buffer.c). Parts of words are loaded as i32, zeros above them. */
MlirValue cmz_b_buffer_load(cmz_builder *b, MlirType type, MlirValue address);
void cmz_b_buffer_store(cmz_builder *b, MlirValue value, MlirValue address);
/* The address of the module's constant NAME; the constant itself, BYTES of the 4-byte pattern WORD,
 * at the cursor (a module's). */
MlirValue cmz_b_global(cmz_builder *b, const char *name);
void cmz_b_global_words(cmz_builder *b, const char *name, uint32_t word, uint32_t bytes);
/* The same with conversion between the stored type and its compute type. CMZ_E_UNSUPPORTED types
 * give a null value. */
/* One element in memory; null when not addressable */
MlirType cmz_b_stored_type(cmz_builder *b, cmz_dtype stored);
/* F32, f64, i32, i64, u32, u64, bool */
MlirType cmz_b_compute_type(cmz_builder *b, cmz_dtype compute);
MlirValue cmz_b_decode(cmz_builder *b, cmz_dtype stored, MlirValue raw);
MlirValue cmz_b_encode(cmz_builder *b, cmz_dtype stored, MlirValue value);
/* Conversion between compute types as CAST means it: float to integer truncates and saturates,
 * integers wrap. */
MlirValue cmz_b_convert(cmz_builder *b, MlirValue x, cmz_dtype from, cmz_dtype to);

/* A call of one of LLVM's intrinsics that MLIR has no operation for; RESULT may be null: none, and
 * a null value. */
MlirValue cmz_b_intrinsic(cmz_builder *b, const char *name, uint32_t count,
                          const MlirValue *operands, MlirType result);

/* ---- math (math.c): floats, scalars or vectors ---- */
#include "../ir/kernel.h"
bool cmz_b_has_math(cmz_expr_op op);
MlirValue cmz_b_math(cmz_builder *b, cmz_expr_op op, MlirValue x);
MlirValue cmz_b_pow(cmz_builder *b, MlirValue x, MlirValue y);
MlirValue cmz_b_fmod(cmz_builder *b, MlirValue x, MlirValue y);

#endif
