/* emit_quad.c - sums of products of bytes, four products a lane, and of bf16 numbers, two a lane
 * (kernel_quad.c says which).
 * In: one step of a REDUCE whose quad axis is bound to 0. Out: the accumulator with four products
 * added, by what the CPU's row says that it has (cmz_dot, cmz_pairs). Always holds: a sum of bytes
 * is exact modulo 2^32, the same on every CPU; one of bf16 numbers has exact products, whose
 * additions round as the instructions do. */
#include "emit.h"

#include "mlir-c/BuiltinTypes.h"

enum { SALT_BYTES = 1, SALT_EVEN, SALT_ODD, SALT_ROW, SALT_COLUMNS };

/* ---- what is a quad here ---- */

static bool fits_lanes(emitter *e, const cmz_quad *quad, int factor, uint32_t vector, bool *uses) {
  const cmz_quad_factor *f = &quad->factors[factor];
  cmz_expr index = e->k->exprs.data[f->load].args[0];
  int64_t stride;
  if (f->condition &&
      (cmz_emit_vector_axis(e, f->condition) >= 0 || cmz_emit_vector_axis(e, f->otherwise) >= 0))
    return false;
  if (!cmz_emit_stride(e, index, vector, &stride) || (stride != 0 && stride != quad->count))
    return false;
  *uses = stride != 0;
  return !(f->condition && *uses);
}

bool cmz_emit_find_quad(emitter *e, cmz_expr x, emit_quad *q) {
  if (e->b.cpu->spirv) return !e->guarded && cmz_emit_find_packed(e, x, q);
  const cmz_expr_node *n = &e->k->exprs.data[x];
  int32_t vector = cmz_emit_vector_axis(e, x);
  if (e->lane >= 0 || e->guarded || vector < 0 || !cmz_x_quad(e->k, x, &q->quad)) return false;
  for (int i = 0; i < 2; i++) {
    if (!fits_lanes(e, &q->quad, i, (uint32_t)vector, &q->across[i])) return false;
  }
  if (!q->across[0] && !q->across[1]) return false;
  for (uint32_t i = n->axis_count; i-- > 0;) {
    int64_t strides[2];
    q->axis = n->axes[i];
    bool together = true;
    for (int f = 0; f < 2; f++)
      together &= cmz_emit_stride(e, e->k->exprs.data[q->quad.factors[f].load].args[0], q->axis,
                                  &strides[f]) &&
                  strides[f] == 1;
    if (together && cmz_x_quad_axis(e->k, &q->quad, q->axis)) {
      q->vector = (uint32_t)vector;
      return true;
    }
  }
  return false;
}

/* ---- four bytes a lane ---- */

static uint64_t salted(const emitter *e, cmz_expr x, uint64_t salt) {
  return (cmz_emit_key(e, x) ^ (salt << 56)) * 0x9e3779b97f4a7c15ull;
}

static MlirValue bits_like(emitter *e, MlirValue v, MlirType element, uint32_t lanes) {
  MlirType type = cmz_b_vector(element, lanes);
  return mlirOperationGetResult(cmz_b_op(&e->b, "llvm.bitcast", 1, &v, 1, &type, 0, NULL, 0, NULL),
                                0);
}

/* The byte OTHERWISE four times; of floats, which are zero there, two of them. */
static MlirValue repeated(emitter *e, cmz_expr otherwise) {
  cmz_builder *b = &e->b;
  if (e->k->exprs.data[otherwise].dtype == CMZ_F32) return cmz_b_int(b, b->i32, 0);
  MlirValue v = cmz_emit_value(e, otherwise);
  v = cmz_b_2(b, "arith.andi", v, cmz_b_int(b, b->i32, 255));
  return cmz_b_mul(b, v, cmz_b_int(b, b->i32, 0x01010101));
}

static MlirValue flipped(emitter *e, MlirValue v) {
  int64_t bits =
      cmz_b_bits(cmz_b_type(v)) == 64 ? (int64_t)0x8080808080808080 : (int32_t)0x80808080;
  return cmz_b_2(&e->b, "arith.xori", v, cmz_b_int(&e->b, cmz_b_type(v), bits));
}

/* A factor that is the same in all lanes: TYPE of bytes, of which `otherwise` has the first four. A
 * *FLIP that is left to the caller stays true. */
static MlirValue load_scalar(emitter *e, const cmz_quad_factor *f, MlirType type, bool *flip) {
  cmz_builder *b = &e->b;
  const cmz_expr_node *n = &e->k->exprs.data[f->load];
  int truth = f->condition ? cmz_emit_truth(e, f->condition) : 1;
  MlirValue address = cmz_emit_address(e, (uint32_t)n->i, n->args[0]), condition = {NULL};
  if (truth == 0) condition = cmz_emit_value(e, f->condition);
  if (e->failed) return address;
  if (truth == 0) address = cmz_b_select(b, condition, address, e->args);
  MlirValue v = cmz_b_load(b, type, address, NULL, e->k->operands.data[n->i].constant);
  if (truth != 0) return v;
  MlirValue other = repeated(e, f->otherwise);
  if (cmz_b_bits(type) == 64) {
    other = cmz_b_cast(b, "arith.extui", other, b->i64);
    other = cmz_b_mul(b, other, cmz_b_int(b, b->i64, INT64_C(0x100000001)));
  }
  if (*flip) v = flipped(e, v);
  *flip = false;
  return cmz_b_select(b, condition, v, other);
}

static MlirValue load_across(emitter *e, const emit_quad *q, const cmz_quad_factor *f) {
  cmz_builder *b = &e->b;
  const cmz_expr_node *n = &e->k->exprs.data[f->load];
  uint32_t operand = (uint32_t)n->i;
  bool invariant = e->k->operands.data[operand].constant;
  const axis_state *a = &e->axes[q->vector];
  bool whole = !a->masked || cmz_emit_loads_masked(e, b->i32);
  MlirValue v = cmz_b_const(b, cmz_b_vector(b->i32, a->lanes), 0);
  for (uint32_t lane = 0; lane < (whole ? 1 : a->lanes); lane++) {
    e->lane = (int32_t)lane; /* one that lies past the end repeats the last */
    MlirValue address = cmz_emit_address(e, operand, n->args[0]);
    e->lane = -1;
    if (e->failed) return address;
    if (whole) v = cmz_b_load(b, cmz_b_type(v), address, a->masked ? &a->mask : NULL, invariant);
    else v = cmz_b_insert(b, v, cmz_b_load(b, b->i32, address, NULL, invariant), lane);
  }
  return v;
}

/* Factor FACTOR at the present instance: a vector of four bytes a lane. */
static MlirValue bytes_of(emitter *e, const emit_quad *q, int factor) {
  const cmz_quad_factor *f = &q->quad.factors[factor];
  MlirValue v;
  uint64_t key = salted(e, f->load, SALT_BYTES);
  if (cmz_emit_find(e, key, &v)) return v;
  bool flip = f->flip;
  if (f->condition && cmz_emit_truth(e, f->condition) < 0) {
    v = repeated(e, f->otherwise);
    flip = false;
  } else if (q->across[factor]) {
    v = load_across(e, q, f);
  } else {
    v = load_scalar(e, f, e->b.i32, &flip);
  }
  if (e->failed) return v;
  v = cmz_b_broadcast(&e->b, v, e->axes[q->vector].lanes);
  if (flip) v = flipped(e, v);
  if (!e->failed) cmz_emit_remember(e, key, e->depth, v);
  return v;
}

/* The even or odd ones of each four bytes as pairs of 16-bit numbers. */
static MlirValue pairs_of(emitter *e, const emit_quad *q, int factor, bool odd) {
  cmz_builder *b = &e->b;
  const cmz_quad_factor *f = &q->quad.factors[factor];
  MlirValue v;
  uint64_t key = salted(e, f->load, odd ? SALT_ODD : SALT_EVEN);
  if (cmz_emit_find(e, key, &v)) return v;
  uint32_t lanes = e->axes[q->vector].lanes;
  v = bits_like(e, bytes_of(e, q, factor), b->i16, lanes * 2);
  MlirValue eight = cmz_b_int(b, cmz_b_type(v), 8);
  if (!odd) v = cmz_b_2(b, "arith.shli", v, eight);
  v = cmz_b_2(b, f->is_signed ? "arith.shrsi" : "arith.shrui", v, eight);
  cmz_emit_remember(e, key, e->depth, v);
  return v;
}

/* ---- products ---- */

static const char *by_lanes(uint32_t lanes, const char *four, const char *eight,
                            const char *sixteen) {
  return lanes == 4 ? four : lanes == 8 ? eight : lanes == 16 ? sixteen : NULL;
}

typedef bool way(emitter *e, const emit_quad *q, MlirValue *acc);

/* One instruction: unsigned bytes times signed ones. */
static bool vnni(emitter *e, const emit_quad *q, MlirValue *acc) {
  cmz_builder *b = &e->b;
  uint32_t lanes = e->axes[q->vector].lanes;
  bool first_signed = q->quad.factors[0].is_signed;
  const char *name = by_lanes(lanes, "llvm.x86.avx512.vpdpbusd.128", "llvm.x86.avx512.vpdpbusd.256",
                              "llvm.x86.avx512.vpdpbusd.512");
  if (name == NULL || first_signed == q->quad.factors[1].is_signed) return false;
  MlirValue x = bytes_of(e, q, first_signed), y = bytes_of(e, q, !first_signed);
  if (e->failed) return true;
  x = bits_like(e, x, b->i8, lanes * 4);
  y = bits_like(e, y, b->i8, lanes * 4);
  *acc = cmz_b_intrinsic(b, name, 3, (MlirValue[]){*acc, x, y}, cmz_b_type(*acc));
  return true;
}

static bool pmaddwd(emitter *e, const emit_quad *q, MlirValue *acc) {
  cmz_builder *b = &e->b;
  const char *name = by_lanes(e->axes[q->vector].lanes, "llvm.x86.sse2.pmadd.wd",
                              "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx512.pmaddw.d.512");
  if (name == NULL) return false;
  for (int odd = 0; odd < 2 && !e->failed; odd++) {
    MlirValue x[2] = {pairs_of(e, q, 0, odd != 0), pairs_of(e, q, 1, odd != 0)};
    if (!e->failed) *acc = cmz_b_add(b, *acc, cmz_b_intrinsic(b, name, 2, x, cmz_b_type(*acc)));
  }
  return true;
}

static bool both_signed(const emit_quad *q) {
  return q->quad.factors[0].is_signed && q->quad.factors[1].is_signed;
}

/* AArch64's: 2 or 4 lanes. */
static bool sdot(emitter *e, const emit_quad *q, MlirValue *acc) {
  cmz_builder *b = &e->b;
  uint32_t lanes = e->axes[q->vector].lanes;
  if ((lanes != 2 && lanes != 4) || !both_signed(q)) return false;
  MlirValue x = bytes_of(e, q, 0), y = bytes_of(e, q, 1);
  if (e->failed) return true;
  MlirValue operands[3] = {*acc, bits_like(e, x, b->i8, lanes * 4),
                           bits_like(e, y, b->i8, lanes * 4)};
  *acc = cmz_b_intrinsic(b, "llvm.aarch64.neon.sdot", 3, operands, cmz_b_type(*acc));
  return true;
}

/* 16-bit products, added in pairs as 32-bit numbers, and these in pairs again. */
static bool smull(emitter *e, const emit_quad *q, MlirValue *acc) {
  cmz_builder *b = &e->b;
  if (e->axes[q->vector].lanes != 4 || !both_signed(q)) return false;
  MlirValue x = bytes_of(e, q, 0), y = bytes_of(e, q, 1), sums[2];
  if (e->failed) return true;
  x = bits_like(e, x, b->i8, 16);
  y = bits_like(e, y, b->i8, 16);
  for (uint32_t i = 0; i < 2; i++) {
    MlirValue halves[2] = {cmz_b_slice(b, x, i * 8, 8), cmz_b_slice(b, y, i * 8, 8)};
    MlirValue products =
        cmz_b_intrinsic(b, "llvm.aarch64.neon.smull", 2, halves, cmz_b_vector(b->i16, 8));
    sums[i] = cmz_b_intrinsic(b, "llvm.aarch64.neon.saddlp", 1, &products, cmz_b_vector(b->i32, 4));
  }
  *acc = cmz_b_add(b, *acc,
                   cmz_b_intrinsic(b, "llvm.aarch64.neon.addp", 2, sums, cmz_b_vector(b->i32, 4)));
  return true;
}

static MlirValue byte_of(emitter *e, const emit_quad *q, int factor, int byte) {
  cmz_builder *b = &e->b;
  MlirValue v = bytes_of(e, q, factor);
  MlirType t = cmz_b_type(v);
  v = cmz_b_2(b, "arith.shli", v, cmz_b_int(b, t, 24 - 8 * byte));
  return cmz_b_2(b, q->quad.factors[factor].is_signed ? "arith.shrsi" : "arith.shrui", v,
                 cmz_b_int(b, t, 24));
}

static bool four_products(emitter *e, const emit_quad *q, MlirValue *acc) {
  for (int i = 0; i < 4 && !e->failed; i++)
    *acc = cmz_b_add(&e->b, *acc, cmz_b_mul(&e->b, byte_of(e, q, 0, i), byte_of(e, q, 1, i)));
  return true;
}

/* ---- products of pairs of bf16 numbers ---- */

static MlirType bf16(emitter *e) { return mlirBF16TypeGet(e->b.mlir); }

/* The even or odd ones of each pair as f32: they are its upper half. */
static MlirValue half_of(emitter *e, const emit_quad *q, int factor, bool odd) {
  cmz_builder *b = &e->b;
  MlirValue v;
  uint64_t key = salted(e, q->quad.factors[factor].load, odd ? SALT_ODD : SALT_EVEN);
  if (cmz_emit_find(e, key, &v)) return v;
  v = bytes_of(e, q, factor);
  if (e->failed) return v;
  MlirType t = cmz_b_type(v);
  v = odd ? cmz_b_2(b, "arith.andi", v, cmz_b_int(b, t, INT64_C(-65536)))
          : cmz_b_2(b, "arith.shli", v, cmz_b_int(b, t, 16));
  v = cmz_b_bitcast(b, v, b->f32);
  cmz_emit_remember(e, key, e->depth, v);
  return v;
}

static bool two_products(emitter *e, const emit_quad *q, MlirValue *acc) {
  for (int odd = 0; odd < 2 && !e->failed; odd++) {
    MlirValue x = half_of(e, q, 0, odd != 0), y = half_of(e, q, 1, odd != 0);
    if (!e->failed) *acc = cmz_b_fma(&e->b, x, y, *acc);
  }
  return true;
}

static bool pair_dot(emitter *e, const emit_quad *q, const char *name, MlirValue *acc) {
  cmz_builder *b = &e->b;
  uint32_t lanes = e->axes[q->vector].lanes;
  if (name == NULL) return false;
  MlirValue x = bytes_of(e, q, 0), y = bytes_of(e, q, 1);
  if (e->failed) return true;
  MlirValue operands[3] = {*acc, bits_like(e, x, bf16(e), lanes * 2),
                           bits_like(e, y, bf16(e), lanes * 2)};
  *acc = cmz_b_intrinsic(b, name, 3, operands, cmz_b_type(*acc));
  return true;
}

static bool vdpbf16(emitter *e, const emit_quad *q, MlirValue *acc) {
  return pair_dot(e, q,
                  by_lanes(e->axes[q->vector].lanes, "llvm.x86.avx512bf16.dpbf16ps.128",
                           "llvm.x86.avx512bf16.dpbf16ps.256", "llvm.x86.avx512bf16.dpbf16ps.512"),
                  acc);
}

static bool bfdot(emitter *e, const emit_quad *q, MlirValue *acc) {
  uint32_t lanes = e->axes[q->vector].lanes;
  return pair_dot(e, q, lanes == 2 || lanes == 4 ? "llvm.aarch64.neon.bfdot" : NULL, acc);
}

/* The rows of the tables of ways, the best first. */
typedef way *const ways_row[2];

static way *const *ways_of(const cmz_cpu_row *cpu, bool pairs) {
  static ways_row bytes[] = {
      [CMZ_DOT_NONE] = {four_products}, [CMZ_DOT_PMADDWD] = {pmaddwd},
      [CMZ_DOT_VNNI] = {vnni, pmaddwd}, [CMZ_DOT_AMX] = {vnni, pmaddwd},
      [CMZ_DOT_SMULL] = {smull},        [CMZ_DOT_SDOT] = {sdot, smull},
      [CMZ_DOT_SMMLA] = {sdot, smull},
  };
  static ways_row halves[] = {
      [CMZ_PAIRS_NONE] = {two_products},
      [CMZ_PAIRS_VDPBF16] = {vdpbf16},
      [CMZ_PAIRS_AMX] = {two_products}, /* vdpbf16ps takes five times an FMA's time there */
      [CMZ_PAIRS_BFMMLA] = {bfdot},
  };
  return pairs ? halves[cpu->bf16_dot] : bytes[cpu->int8_dot];
}

void cmz_emit_quad_step(emitter *e, const emit_quad *q, MlirValue *acc) {
  bool pairs = q->quad.count == 2;
  if (e->b.cpu->spirv) {
    cmz_emit_packed_step(e, q, acc);
    return;
  }
  way *const *row = ways_of(e->b.cpu, pairs);
  for (int i = 0; i < 2 && row[i] != NULL; i++)
    if (row[i](e, q, acc)) return;
  if (pairs) two_products(e, q, acc);
  else four_products(e, q, acc);
}

/* ---- two quads at once: AArch64's smmla and bfmmla ---- */

static int row_factor(const emit_quad *q) { return q->across[0] ? 1 : 0; }

bool cmz_emit_has_matrices(emitter *e, const emit_quad *q, uint16_t outer) {
  int64_t stride;
  const cmz_cpu_row *cpu = e->b.cpu;
  bool has = q->quad.count == 4 ? cpu->int8_dot == CMZ_DOT_SMMLA && both_signed(q)
                                : cpu->bf16_dot == CMZ_PAIRS_BFMMLA;
  return has && e->axes[q->vector].lanes == 4 && q->across[0] != q->across[1] &&
         cmz_emit_stride(e, e->k->exprs.data[q->quad.factors[row_factor(q)].load].args[0], outer,
                         &stride) &&
         stride == q->quad.count;
}

MlirValue cmz_emit_matrix_row(emitter *e, const emit_quad *q, uint32_t quads) {
  cmz_builder *b = &e->b;
  const cmz_quad_factor *f = &q->quad.factors[row_factor(q)];
  MlirValue v;
  uint64_t key = salted(e, f->load, SALT_ROW);
  if (cmz_emit_find(e, key, &v)) return v;
  bool flip = f->flip, known = f->condition && cmz_emit_truth(e, f->condition) < 0;
  if (known) {
    v = repeated(e, f->otherwise);
    flip = false;
  } else {
    v = load_scalar(e, f, quads == 2 ? b->i64 : b->i32, &flip);
  }
  if (e->failed) return v;
  if (flip) v = flipped(e, v);
  if (cmz_b_bits(cmz_b_type(v)) == 32) v = cmz_b_cast(b, "arith.extui", v, b->i64);
  if (known && quads == 2) v = cmz_b_mul(b, v, cmz_b_int(b, b->i64, INT64_C(0x100000001)));
  cmz_emit_remember(e, key, e->depth, v);
  return v;
}

/* 16 bytes as the instruction's operand. */
static MlirValue matrix_bits(emitter *e, const emit_quad *q, MlirValue v) {
  return q->quad.count == 4 ? bits_like(e, v, e->b.i8, 16) : bits_like(e, v, bf16(e), 8);
}

void cmz_emit_matrix_columns(emitter *e, const emit_quad *q, uint16_t outer, uint32_t quads,
                             MlirValue *columns) {
  static const int32_t zips[2][4] = {{0, 4, 1, 5}, {2, 6, 3, 7}};
  cmz_builder *b = &e->b;
  const cmz_quad_factor *f = &q->quad.factors[!row_factor(q)];
  uint64_t key = salted(e, f->load, SALT_COLUMNS);
  if (cmz_emit_find(e, key, &columns[0]) && cmz_emit_find(e, key + 1, &columns[1])) return;
  MlirValue low = bytes_of(e, q, !row_factor(q)), high;
  if (e->failed) return;
  high = cmz_b_const(b, cmz_b_type(low), 0);
  if (quads == 2) {
    e->axes[outer].offset++;
    high = bytes_of(e, q, !row_factor(q));
    e->axes[outer].offset--;
  }
  for (uint32_t i = 0; i < 2 && !e->failed; i++) {
    columns[i] = matrix_bits(e, q, cmz_b_shuffle(b, low, high, zips[i], 4));
    cmz_emit_remember(e, key + i, e->depth, columns[i]);
  }
}

void cmz_emit_matrix_step(emitter *e, const emit_quad *q, const MlirValue *rows,
                          const MlirValue *columns, MlirValue *first, MlirValue *second) {
  cmz_builder *b = &e->b;
  const char *name = q->quad.count == 4 ? "llvm.aarch64.neon.smmla" : "llvm.aarch64.neon.bfmmla";
  MlirValue x = cmz_b_const(b, cmz_b_vector(b->i64, 2), 0);
  for (uint32_t i = 0; i < 2; i++) x = cmz_b_insert(b, x, rows[i], i);
  x = matrix_bits(e, q, x);
  MlirValue *accs[2] = {first, second};
  for (uint32_t i = 0; i < 2; i++)
    *accs[i] =
        cmz_b_intrinsic(b, name, 3, (MlirValue[]){*accs[i], x, columns[i]}, cmz_b_type(*accs[i]));
}

void cmz_emit_matrix_exchange(emitter *e, MlirValue *first, MlirValue *second) {
  static const int32_t halves[2][4] = {{0, 1, 4, 5}, {2, 3, 6, 7}};
  MlirValue x = *first, y = *second;
  *first = cmz_b_shuffle(&e->b, x, y, halves[0], 4);
  *second = cmz_b_shuffle(&e->b, x, y, halves[1], 4);
}
