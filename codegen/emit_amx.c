/* emit_amx.c - x86-64's tiles (AMX): products of matrices of bytes, and of bf16 numbers, in eight
 * registers of 16 rows of 64 bytes. In: a sum by fours (emit_quad.c) whose rows lie apart by a
 * constant. Out: instructions on numbered tiles. Always holds: a function that uses tiles
 * configures them once at its entry, all of them whole, and releases them before it returns. */
#include "emit.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"

#define TILE_BYTES 1024
#define CONFIGURATION_WORDS 8

static void call(cmz_builder *b, const char *name, uint32_t count, const MlirValue *operands) {
  cmz_b_intrinsic(b, name, count, operands, (MlirType){NULL});
}

bool cmz_emit_has_tiles(emitter *e, const emit_quad *q) {
  const axis_state *a = &e->axes[q->vector];
  const cmz_cpu_row *cpu = e->b.cpu;
  bool has = q->quad.count == 4 ? cpu->int8_dot == CMZ_DOT_AMX : cpu->bf16_dot == CMZ_PAIRS_AMX;
  bool fits = has && a->lanes == 16 && !a->masked && q->across[0] != q->across[1];
  for (int i = 0; i < 2; i++) fits &= !q->quad.factors[i].condition && !q->quad.factors[i].flip;
  return fits;
}

static MlirValue bytes_on_stack(cmz_builder *b, int64_t bytes) {
  MlirNamedAttribute attrs[2] = {
      cmz_b_attr(b, "alignment", mlirIntegerAttrGet(b->i64, 64)),
      cmz_b_attr(b, "elem_type", mlirTypeAttrGet(b->i8)),
  };
  MlirValue count = cmz_b_i64(b, bytes);
  return mlirOperationGetResult(
      cmz_b_op(b, "llvm.alloca", 1, &count, 1, &b->pointer, 2, attrs, 0, NULL), 0);
}

MlirValue cmz_emit_tiles_open(emitter *e) {
  /* palette 1; 64 bytes a row; 16 rows */
  static const int64_t words[CONFIGURATION_WORDS] = {1, 0, 0x0040004000400040, 0x0040004000400040,
                                                     0, 0, 0x1010101010101010, 0};
  cmz_builder *b = &e->b;
  const uint64_t key = 0x7461c0de0a3d5ull;
  MlirValue buffer;
  if (cmz_emit_find(e, key, &buffer)) return buffer;
  emit_position saved;
  cmz_emit_save(e, 0, &saved);
  MlirValue configuration = bytes_on_stack(b, sizeof words);
  for (uint32_t i = 0; i < CONFIGURATION_WORDS; i++)
    cmz_b_store(b, cmz_b_i64(b, words[i]), cmz_b_address_const(b, b->i64, configuration, i), NULL);
  call(b, "llvm.x86.ldtilecfg", 1, &configuration);
  buffer = bytes_on_stack(b, 4 * TILE_BYTES);
  cmz_emit_remember(e, key, 0, buffer);
  e->uses_tiles = true;
  cmz_emit_restore(e, &saved);
  return buffer;
}

static MlirValue number(emitter *e, uint32_t tile) { return cmz_b_int(&e->b, e->b.i8, tile); }

void cmz_emit_tile_zero(emitter *e, uint32_t tile) {
  MlirValue t = number(e, tile);
  call(&e->b, "llvm.x86.tilezero", 1, &t);
}

void cmz_emit_tile_load(emitter *e, uint32_t tile, const emit_quad *q, int factor,
                        int64_t row_bytes) {
  cmz_builder *b = &e->b;
  const cmz_expr_node *n = &e->k->exprs.data[q->quad.factors[factor].load];
  e->lane = q->across[factor] ? 0 : -1;
  MlirValue address = cmz_emit_address(e, (uint32_t)n->i, n->args[0]);
  e->lane = -1;
  if (e->failed) return;
  MlirValue operands[3] = {number(e, tile), address, cmz_b_i64(b, row_bytes)};
  call(b, "llvm.x86.tileloadd64", 3, operands);
}

void cmz_emit_tile_product(emitter *e, const emit_quad *q, uint32_t sum, uint32_t rows,
                           uint32_t columns) {
  static const char *const names[2][2] = {{"llvm.x86.tdpbuud", "llvm.x86.tdpbusd"},
                                          {"llvm.x86.tdpbsud", "llvm.x86.tdpbssd"}};
  int row = q->across[0] ? 1 : 0;
  MlirValue operands[3] = {number(e, sum), number(e, rows), number(e, columns)};
  const char *bytes = names[q->quad.factors[row].is_signed][q->quad.factors[!row].is_signed];
  call(&e->b, q->quad.count == 4 ? bytes : "llvm.x86.tdpbf16ps", 3, operands);
}

void cmz_emit_tile_store(emitter *e, uint32_t tile, MlirValue buffer) {
  cmz_builder *b = &e->b;
  MlirValue to = cmz_b_address_const(b, b->i8, buffer, (int64_t)tile * TILE_BYTES);
  MlirValue operands[3] = {number(e, tile), to, cmz_b_i64(b, 64)};
  call(b, "llvm.x86.tilestored64", 3, operands);
}

MlirValue cmz_emit_tile_row(emitter *e, MlirType element, uint32_t tile, uint32_t row,
                            MlirValue buffer) {
  cmz_builder *b = &e->b;
  int64_t at = (int64_t)tile * TILE_BYTES + (int64_t)row * 64;
  return cmz_b_load(b, cmz_b_vector(element, 16), cmz_b_address_const(b, b->i8, buffer, at), NULL,
                    false);
}

void cmz_emit_tiles_close(emitter *e) {
  if (e->uses_tiles) call(&e->b, "llvm.x86.tilerelease", 0, NULL);
}
