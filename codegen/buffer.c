/* buffer.c - the builder's access to Vulkan's storage buffers.
 * In: a buffer, element numbers. Out: memref.load and memref.store; parts of words are written
 * atomically; where a tensor is bound in windows, a choice among them. Always holds: an element
 * lies in one window, since windows begin at multiples of a power of two. */
#include "builder.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"

enum { SET = 14, KEEP = 2 }; /* arith's AtomicRMWKind: ori, andi */

/* What is done at one place of a window. */
typedef struct access {
  MlirType type;   /* loads: of the element */
  MlirValue value; /* stores and atomic changes; null: a load */
  int kind;        /* an atomic change of this kind; -1: none */
} access;

static MlirValue at_place(cmz_builder *b, const access *a, MlirValue window, MlirValue number) {
  MlirValue place = cmz_b_cast(b, "arith.index_cast", number, mlirIndexTypeGet(b->mlir));
  MlirValue operands[] = {a->value, window, place};
  if (!a->value.ptr)
    return mlirOperationGetResult(
        cmz_b_op(b, "memref.load", 2, operands + 1, 1, &a->type, 0, NULL, 0, NULL), 0);
  if (a->kind < 0) {
    cmz_b_op(b, "memref.store", 3, operands, 0, NULL, 0, NULL, 0, NULL);
    return a->value;
  }
  MlirNamedAttribute kind = cmz_b_attr(b, "kind", mlirIntegerAttrGet(b->bits64, a->kind));
  cmz_b_op(b, "memref.atomic_rmw", 3, operands, 1, &b->i32, 1, &kind, 0, NULL);
  return a->value;
}

/* In window WHICH, which is WINDOW or a later one. */
static MlirValue in_window(cmz_builder *b, const access *a, uint32_t window, MlirValue which,
                           MlirValue number) {
  if (window + 1 == b->buffer.count) return at_place(b, a, b->buffer.windows[window], number);
  MlirBlock here = b->block;
  MlirRegion regions[2];
  MlirBlock yes = cmz_b_region(&regions[0]), no = cmz_b_region(&regions[1]);
  uint32_t results = a->value.ptr ? 0 : 1;
  MlirValue condition = cmz_b_icmp(b, CMZ_B_IEQ, which, cmz_b_i64(b, window));
  b->block = yes;
  MlirValue v = at_place(b, a, b->buffer.windows[window], number);
  cmz_b_yield(b, yes, &v, results);
  b->block = no;
  v = in_window(b, a, window + 1, which, number);
  cmz_b_yield(b, no, &v, results);
  b->block = here;
  cmz_b_if(b, condition, regions[0], regions[1], &a->type, results, &v);
  return v;
}

static MlirValue do_access(cmz_builder *b, const access *a, MlirValue number) {
  if (b->buffer.count == 1) return at_place(b, a, b->buffer.windows[0], number);
  MlirValue which = cmz_b_2(b, "arith.shrui", number, b->buffer.shift);
  MlirValue first = cmz_b_2(b, "arith.shli", which, b->buffer.shift);
  return in_window(b, a, 0, which, cmz_b_sub(b, number, first));
}

static MlirValue number_of(cmz_builder *b, MlirValue address, int word) {
  if (!b->buffer.pairs) return address;
  address = cmz_b_2(b, "arith.shli", address, cmz_b_i64(b, 1));
  return word ? cmz_b_add(b, address, cmz_b_i64(b, word)) : address;
}

/* Where the element at ADDRESS lies as a part of a 32-bit word: the word's number, and the bits
 * below it. */
static MlirValue word_number(cmz_builder *b, MlirValue address, MlirValue *below) {
  uint32_t bits = b->buffer.part_bits, parts = 32 / bits;
  MlirValue part = cmz_b_2(b, "arith.andi", address, cmz_b_i64(b, parts - 1));
  part = cmz_b_mul(b, part, cmz_b_i64(b, bits));
  *below = mlirTypeEqual(b->i64, b->i32) ? part : cmz_b_cast(b, "arith.trunci", part, b->i32);
  return cmz_b_2(b, "arith.shrui", address, cmz_b_i64(b, __builtin_ctz(parts)));
}

MlirValue cmz_b_buffer_load(cmz_builder *b, MlirType type, MlirValue address) {
  uint32_t bits = b->buffer.part_bits;
  access load = {.type = bits ? b->i32 : type, .kind = -1};
  if (!bits) return do_access(b, &load, number_of(b, address, 0));
  MlirValue below, word = word_number(b, address, &below);
  MlirValue v = cmz_b_2(b, "arith.shrui", do_access(b, &load, word), below);
  return cmz_b_2(b, "arith.andi", v, cmz_b_int(b, b->i32, (1 << bits) - 1));
}

/* The low bits of VALUE as a part of a word. Other threads write the word's other parts, so its
 * bits are cleared and set atomically. */
static void store_part(cmz_builder *b, MlirValue value, MlirValue address) {
  MlirValue below, word = word_number(b, address, &below), all = cmz_b_int(b, b->i32, -1);
  MlirValue part = cmz_b_int(b, b->i32, (1 << b->buffer.part_bits) - 1);
  value = cmz_b_2(b, "arith.shli", cmz_b_2(b, "arith.andi", value, part), below);
  MlirValue others = cmz_b_2(b, "arith.xori", cmz_b_2(b, "arith.shli", part, below), all);
  access clear = {.value = others, .kind = KEEP}, set = {.value = value, .kind = SET};
  do_access(b, &clear, word);
  do_access(b, &set, word);
}

void cmz_b_buffer_store(cmz_builder *b, MlirValue value, MlirValue address) {
  access store = {.value = value, .kind = -1};
  if (b->buffer.part_bits) {
    store_part(b, value, address);
    return;
  }
  do_access(b, &store, number_of(b, address, 0));
  if (!b->buffer.pairs) return;
  store.value = cmz_b_2(b, "arith.shrsi", value, cmz_b_int(b, cmz_b_type(value), 31));
  do_access(b, &store, number_of(b, address, 1));
}
