/* emit_wgmma.c - a step of a work-group's contraction by Hopper's asynchronous matrix instructions
 * (wgmma.mma_async): 64 rows by 64 or 128 columns of f16 or bf16, both factors read from the
 * group's memory. In: buffers that emit_tensor.c fills, lines of 128 bytes in the 128-byte swizzle.
 * Out: the sums. Layouts: PTX ISA, "wgmma": shared memory matrix layout, matrix descriptor,
 * fragments of D (a warp's 16 rows, as those of mma.m16n8). Always holds: a step's instructions are
 * begun and waited for in one piece of assembly, so no register of a sum is touched while it is
 * being computed. */
#include "emit_group.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/Dialect/LLVM.h"

enum {
  ROWS = 64,
  LINE = CMZ_EMIT_WGMMA_LINE,
  K = 16,              /* of one instruction */
  EIGHT = 8 * LINE,    /* eight lines: where the swizzle begins anew */
  STEP = LINE / 2 / K, /* instructions a step */
};

bool cmz_emit_wgmma_used(const emitter *e) {
  return e->b.cpu->matrix == CMZ_MATRIX_WGMMA && !e->s->coded && e->s->step * 2 == LINE &&
         (e->s->fragments == CMZ_F16 || e->s->fragments == CMZ_BF16);
}

bool cmz_emit_wgmma_fits(const factor *rows, const factor *columns, uint32_t group) {
  return group == 128 && rows->positions == ROWS &&
         (columns->positions == 64 || columns->positions == 128);
}

MlirValue cmz_emit_wgmma_place(emitter *e, const factor *f, bool transposed, MlirValue line,
                               MlirValue bytes) {
  cmz_builder *b = &e->b;
  MlirValue row = cmz_b_mul(b, line, cmz_b_i64(b, LINE)),
            sixteen = cmz_b_mul(b, cmz_emit_group_remainder(b, line, 8), cmz_b_i64(b, 16));
  if (transposed && f->positions * 2 > LINE) { /* blocks of 64 positions, one after the other */
    MlirValue block = cmz_emit_group_divided(b, bytes, LINE);
    row = cmz_b_add(b, row, cmz_b_mul(b, block, cmz_b_i64(b, (int64_t)e->s->step * LINE)));
    bytes = cmz_emit_group_remainder(b, bytes, LINE);
  }
  return cmz_b_add(b, row, cmz_b_2(b, "arith.xori", bytes, sixteen));
}

void cmz_emit_wgmma_fence(emitter *e) {
  cmz_b_intrinsic(&e->b, "llvm.nvvm.fence.proxy.async", 0, NULL, (MlirType){NULL});
}

/* The descriptor of F's buffer that begins OFFSET bytes into its memory: address, from one block of
 * 64 positions to the next (transposed), from eight lines to the next, 128-byte swizzle. */
static MlirValue descriptor(emitter *e, const factor *f, bool transposed, MlirValue offset) {
  cmz_builder *b = &e->b;
  uint64_t leading = transposed ? (uint64_t)e->s->step * LINE / 16 : 1;
  uint64_t fixed = leading << 16 | (uint64_t)EIGHT / 16 << 32 | UINT64_C(1) << 62;
  MlirValue address = cmz_b_cast(b, "llvm.ptrtoint", f->base, b->i64);
  address = cmz_emit_group_divided(b, cmz_b_add(b, address, offset), 16);
  address = cmz_b_2(b, "arith.andi", address, cmz_b_i64(b, 0x3fff));
  return cmz_b_2(b, "arith.ori", address, cmz_b_i64(b, (int64_t)fixed));
}

/* The assembly of a step: SUMS registers are $0…, then come the descriptors of both factors, an
 * instruction each. */
static const char *assembly(emitter *e, const contraction *c, uint32_t sums,
                            const bool transposed[2]) {
  const char *type = e->s->fragments == CMZ_F16 ? "f16" : "bf16";
  cmz_text text = {.arena = e->arena};
  cmz_text_add(&text, "wgmma.fence.sync.aligned;\n");
  for (uint32_t i = 0; i < STEP; i++) {
    cmz_text_add(&text, "wgmma.mma_async.sync.aligned.m64n%uk16.f32.%s.%s {", sums * 2, type, type);
    for (uint32_t s = 0; s < sums; s++) cmz_text_add(&text, s ? ", $%u" : "$%u", s);
    cmz_text_add(&text, "}, $%u, $%u, 1, 1, 1, %d, %d;\n", sums + 2 * i, sums + 2 * i + 1,
                 transposed[c->rows], transposed[1 - c->rows]);
  }
  cmz_text_add(&text, "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;");
  return text.data;
}

static const char *constraints(emitter *e, uint32_t sums) {
  cmz_text text = {.arena = e->arena};
  for (uint32_t s = 0; s < sums; s++) cmz_text_add(&text, "=f,");
  for (uint32_t i = 0; i < 2 * STEP; i++) cmz_text_add(&text, "l,");
  for (uint32_t s = 0; s < sums; s++) cmz_text_add(&text, "%u,", s);
  cmz_text_add(&text, "~{memory}");
  return text.data;
}

void cmz_emit_wgmma_compute(emitter *e, const contraction *c, const MlirValue offsets[2],
                            const bool transposed[2], MlirValue *sums) {
  cmz_builder *b = &e->b;
  uint32_t count = c->instances, operand = 0;
  MlirValue operands[2 * STEP + CMZ_EMIT_MAX_INSTANCES], base[2];
  MlirType types[CMZ_EMIT_MAX_INSTANCES];
  for (uint32_t i = 0; i < 2; i++)
    base[i] = descriptor(e, &c->factors[i], transposed[i], offsets[i]);
  for (uint32_t k = 0; k < STEP; k++)
    for (uint32_t i = 0; i < 2; i++) {
      uint32_t f = i ? 1 - c->rows : c->rows;
      int64_t along = (int64_t)k * K * (transposed[f] ? LINE : 2) / 16;
      operands[operand++] = cmz_b_add(b, base[f], cmz_b_i64(b, along));
    }
  for (uint32_t s = 0; s < count; s++) {
    operands[operand++] = sums[s];
    types[s] = b->f32;
  }
  MlirType tuple = mlirLLVMStructTypeLiteralGet(b->mlir, count, types, false);
  MlirNamedAttribute attrs[] = {
      cmz_b_attr(b, "asm_string",
                 mlirStringAttrGet(
                     b->mlir, mlirStringRefCreateFromCString(assembly(e, c, count, transposed)))),
      cmz_b_attr(b, "constraints",
                 mlirStringAttrGet(b->mlir, mlirStringRefCreateFromCString(constraints(e, count)))),
      cmz_b_attr(b, "has_side_effects", mlirUnitAttrGet(b->mlir))};
  MlirOperation op = cmz_b_op(b, "llvm.inline_asm", operand, operands, 1, &tuple,
                              CMZ_COUNT_OF(attrs), attrs, 0, NULL);
  MlirValue result = mlirOperationGetResult(op, 0);
  for (uint32_t s = 0; s < count; s++) {
    int64_t at = s;
    MlirNamedAttribute position = cmz_b_attr(b, "position", mlirDenseI64ArrayGet(b->mlir, 1, &at));
    sums[s] = mlirOperationGetResult(
        cmz_b_op(b, "llvm.extractvalue", 1, &result, 1, &b->f32, 1, &position, 0, NULL), 0);
  }
}
