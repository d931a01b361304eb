/* emit_packed.c - sums of products of bytes on Vulkan's devices with integer dot products
 * (SPV_KHR_integer_dot_product): four neighbours are one 32-bit word.
 * In: a REDUCE that kernel_quad.c takes for such a sum. Out: loads of words, OpSDot and its kin.
 * Always holds: the sum is the same as with single bytes; a word is read only where its number is a
 * multiple of four bytes for certain. */
#include "emit.h"

static MlirStringRef text(const char *s) { return mlirStringRefCreateFromCString(s); }

static bool has_dots(const emitter *e) { return e->b.cpu->int8_dot == CMZ_DOT_PACKED; }

bool cmz_emit_packs(const emitter *e, uint32_t operand) {
  cmz_quad quad;
  if (!has_dots(e)) return false;
  for (uint32_t i = 1; i < e->k->exprs.count; i++) {
    if (!cmz_x_quad(e->k, i, &quad) || quad.count != 4) continue;
    for (int f = 0; f < 2; f++)
      if (e->k->exprs.data[quad.factors[f].load].i == operand) return true;
  }
  return false;
}

/* Whether the element number X is a multiple of four where AXIS is at 0. */
static bool by_fours(const emitter *e, cmz_expr x, uint16_t axis) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  switch (n->op) {
  case CMZ_X_CONST_INT:
    return n->i % 4 == 0;
  case CMZ_X_AXIS:
    return n->i == axis;
  case CMZ_X_ADD:
  case CMZ_X_SUB:
    return by_fours(e, n->args[0], axis) && by_fours(e, n->args[1], axis);
  case CMZ_X_MUL:
    return by_fours(e, n->args[0], axis) || by_fours(e, n->args[1], axis);
  default:
    return false;
  }
}

bool cmz_emit_find_packed(emitter *e, cmz_expr x, emit_quad *q) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  if (!has_dots(e) || !cmz_x_quad(e->k, x, &q->quad) || q->quad.count != 4) return false;
  for (uint32_t i = n->axis_count; i-- > 0;) {
    uint16_t axis = n->axes[i];
    bool together = cmz_x_quad_axis(e->k, &q->quad, axis);
    for (int f = 0; f < 2 && together; f++) {
      cmz_expr index = e->k->exprs.data[q->quad.factors[f].load].args[0];
      int64_t stride;
      together =
          cmz_emit_stride(e, index, axis, &stride) && stride == 1 && by_fours(e, index, axis);
    }
    q->axis = axis;
    if (together) return true;
  }
  return false;
}

/* The byte that the value OTHERWISE is, four times. */
static MlirValue repeated(emitter *e, cmz_expr otherwise) {
  cmz_builder *b = &e->b;
  MlirValue v = cmz_emit_value(e, otherwise);
  if (e->failed) return v;
  v = cmz_b_2(b, "arith.andi", v, cmz_b_int(b, b->i32, 255));
  return cmz_b_mul(b, v, cmz_b_int(b, b->i32, 0x01010101));
}

MlirValue cmz_emit_packed_word(emitter *e, const cmz_quad_factor *f) {
  cmz_builder *b = &e->b;
  const cmz_expr_node *n = &e->k->exprs.data[f->load];
  int truth = f->condition ? cmz_emit_truth(e, f->condition) : 1;
  if (truth < 0) return repeated(e, f->otherwise);
  MlirValue wanted = {NULL}, there = {NULL}; /* null: it is */
  if (truth == 0) wanted = there = cmz_emit_value(e, f->condition);
  if (e->guarded) there = there.ptr ? cmz_b_2(b, "arith.andi", there, e->guard) : e->guard;
  if (e->failed) return e->begin;
  MlirValue address = cmz_emit_address(e, (uint32_t)n->i, n->args[0]);
  if (e->failed) return address;
  MlirValue word = cmz_b_2(b, "arith.shrui", address, cmz_b_i64(b, 2));
  if (there.ptr) word = cmz_b_select(b, there, word, cmz_b_i64(b, 0)); /* which there always is */
  cmz_emit_use_memory(e, (uint32_t)n->i);
  b->buffer.part_bits = 0;
  MlirValue v = cmz_b_load(b, b->i32, word, NULL, e->k->operands.data[n->i].constant);
  if (f->flip) v = cmz_b_2(b, "arith.xori", v, cmz_b_int(b, b->i32, (int32_t)0x80808080));
  return wanted.ptr ? cmz_b_select(b, wanted, v, repeated(e, f->otherwise)) : v;
}

MlirValue cmz_emit_packed_dot(emitter *e, const cmz_quad *quad, MlirValue x, MlirValue y,
                              MlirValue sum) {
  cmz_builder *b = &e->b;
  bool is_signed[2] = {quad->factors[0].is_signed, quad->factors[1].is_signed};
  const char *name = is_signed[0] && is_signed[1]     ? "spirv.SDot"
                     : !is_signed[0] && !is_signed[1] ? "spirv.UDot"
                                                      : "spirv.SUDot";
  bool turned = !is_signed[0] && is_signed[1]; /* the signed one goes first */
  MlirValue operands[] = {turned ? y : x, turned ? x : y};
  MlirAttribute format =
      mlirAttributeParseGet(b->mlir, text("#spirv.packed_vector_format<PackedVectorFormat4x8Bit>"));
  MlirNamedAttribute attr = cmz_b_attr(b, "format", format);
  MlirOperation op = cmz_b_op(b, name, 2, operands, 1, &b->i32, 1, &attr, 0, NULL);
  return cmz_b_add(b, sum, mlirOperationGetResult(op, 0));
}

void cmz_emit_packed_step(emitter *e, const emit_quad *q, MlirValue *sum) {
  MlirValue words[2];
  for (int i = 0; i < 2 && !e->failed; i++) words[i] = cmz_emit_packed_word(e, &q->quad.factors[i]);
  if (!e->failed) *sum = cmz_emit_packed_dot(e, &q->quad, words[0], words[1], *sum);
}
