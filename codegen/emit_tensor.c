/* emit_tensor.c - a work-group's contraction on the matrix instructions of CUDA's warps (mma.sync).
 * In: a contraction whose factors fit the schedule's `fragments` type. Out: two buffers of each
 * factor in the group's memory, filled in turn (cp.async where 16 bytes lie together and are
 * aligned, which is asked at run time; else by elements); fragments by ldmatrix; sums in 32 bits.
 * Layouts: PTX ISA, "mma.m16n8k16" and "ldmatrix": lane / 4 is a row, lane % 4 a pair of columns.
 * Always holds: a step is 64 bytes of a row (16 elements of tf32, 32 of 16 bits, 64 of 8); all
 * threads meet at every barrier; what does not exist is zero. */
#include "emit_group.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/Dialect/LLVM.h"

enum { WARP = 32, LINE = 64, CHUNK = 16 }; /* bytes but for WARP */
#define FEW_UNITS 4u

static uint32_t element_bytes(const emitter *e) { /* the same for both factors */
  return cmz_dtype_info((cmz_dtype)e->s->fragments)->bits / 8;
}
static cmz_dtype type_of(const emitter *e, const factor *f) {
  return (cmz_dtype)(f == &e->group->factors[0] ? e->s->fragments : e->s->second);
}

/* Staged by positions, neighbours side by side: ldmatrix transposes elements of 16 bits, those of
 * 32 are loaded one by one. */
static bool transposed(const emitter *e, const factor *f) {
  return !f->along_reduction && element_bytes(e) >= 2;
}
/* What is used of a line, and what is left free between two, so that the lanes of a load meet
 * different banks. */
static uint32_t line_bytes(const emitter *e, const factor *f) {
  return (transposed(e, f) ? f->positions : e->s->step) * element_bytes(e);
}
static uint32_t skew(const emitter *e, const factor *f) {
  if (cmz_emit_wgmma_used(e)) return 0; /* swizzled instead */
  return transposed(e, f) && element_bytes(e) == 4 ? 32 : 16;
}

static uint32_t buffer_bytes(const emitter *e, const factor *f) {
  return f->pitch * (transposed(e, f) ? e->s->step : f->positions);
}

static MlirValue scaled(cmz_builder *b, MlirValue v, uint32_t by) {
  return by == 1 ? v : cmz_b_mul(b, v, cmz_b_i64(b, by));
}

/* ---- preparing ---- */

/* Warps side by side along rows, so that a warp loads as little as possible; 0: the tile is too
 * small. */
static uint32_t warps_of_rows(uint32_t rows, uint32_t columns, uint32_t warps) {
  uint32_t best = 0, least = UINT32_MAX;
  for (uint32_t r = 1; r <= warps; r *= 2) {
    uint32_t height = rows / r, width = columns / (warps / r);
    if (height < 16 || width < 16 || height + width >= least) continue;
    least = height + width;
    best = r;
  }
  return best;
}

/* Where the lane's line of the four 8x8 matrices of one ldmatrix begins. For rows these are
 * (row, k), (row + 8, k), (row, k + 8), (row + 8, k + 8); for columns (k), (k + 8), then the next 8
 * columns. */
static MlirValue lane_line(emitter *e, const factor *f, bool rows, MlirValue lane,
                           MlirValue first) {
  cmz_builder *b = &e->b;
  if (transposed(e, f) && element_bytes(e) == 4) /* row lane / 4, k lane % 4 */
    return cmz_b_add(
        b, scaled(b, cmz_emit_group_remainder(b, lane, 4), f->pitch),
        scaled(b, cmz_b_add(b, first, cmz_emit_group_divided(b, lane, 4)), element_bytes(e)));
  MlirValue low = cmz_emit_group_remainder(b, lane, 8),
            second = cmz_emit_group_remainder(b, cmz_emit_group_divided(b, lane, 8), 2),
            third = cmz_emit_group_divided(b, lane, 16);
  MlirValue position = cmz_b_add(b, first, scaled(b, rows ? second : third, 8)),
            k = scaled(b, rows ? third : second, 8);
  if (transposed(e, f))
    return cmz_b_add(b, scaled(b, cmz_b_add(b, k, low), f->pitch), scaled(b, position, 2));
  return cmz_b_add(b, scaled(b, cmz_b_add(b, position, low), f->pitch), scaled(b, k, 2));
}

void cmz_emit_tensor_place(emitter *e, contraction *c, uint32_t number, MlirValue position) {
  const factor *f = &c->factors[number];
  uint32_t stride = 1;
  for (uint32_t a = f->axis_count; a-- > 0; stride *= e->s->axes[f->axes[a]].tile)
    c->coordinate[f->axes[a]] = cmz_emit_group_remainder(
        &e->b, cmz_emit_group_divided(&e->b, position, stride), e->s->axes[f->axes[a]].tile);
}

static bool has_axis(const factor *f, uint16_t axis) {
  for (uint32_t i = 0; i < f->axis_count; i++)
    if (f->axes[i] == axis) return true;
  return false;
}

void cmz_emit_tensor_prepare(emitter *e, contraction *c) {
  cmz_builder *b = &e->b;
  for (uint32_t i = c->store->axis_count;
       i-- > 0;) { /* what lies side by side in the result: columns */
    if (e->s->axes[c->axes[i]].tile < 2) continue;
    c->rows = has_axis(&c->factors[0], c->axes[i]) ? 1 : 0;
    break;
  }
  factor *rows = &c->factors[c->rows], *columns = &c->factors[1 - c->rows];
  bool wgmma = cmz_emit_wgmma_used(e);
  if (wgmma && !cmz_emit_wgmma_fits(rows, columns, e->s->group)) { /* the other way round */
    c->rows = 1 - c->rows;
    rows = &c->factors[c->rows], columns = &c->factors[1 - c->rows];
  }
  uint32_t warps = e->s->group / WARP,
           across = wgmma ? warps : warps_of_rows(rows->positions, columns->positions, warps);
  if (wgmma ? !cmz_emit_wgmma_fits(rows, columns, e->s->group)
            : !across || e->s->step * element_bytes(e) != LINE) {
    cmz_emit_fail(e, "a tile that the warps cannot share");
    return;
  }
  uint32_t height = rows->positions / across, width = columns->positions / (warps / across);
  MlirValue lane = cmz_emit_group_remainder(b, e->thread, WARP),
            warp = cmz_emit_group_divided(b, e->thread, WARP);
  MlirValue first[2];
  first[c->rows] = scaled(b, cmz_emit_group_divided(b, warp, warps / across), height);
  first[1 - c->rows] = scaled(b, cmz_emit_group_remainder(b, warp, warps / across), width);
  for (uint32_t i = 0; i < 2; i++) {
    factor *f = &c->factors[i];
    f->pitch = line_bytes(e, f) + skew(e, f);
    cmz_emit_group_declare(e, f, b->i8, 2 * buffer_bytes(e, f), i);
    if (!wgmma) f->lines = lane_line(e, f, i == c->rows, lane, first[i]);
  }
  cmz_emit_tensor_place(e, c, c->rows,
                        cmz_b_add(b, first[c->rows], cmz_emit_group_divided(b, lane, 4)));
  cmz_emit_tensor_place(
      e, c, 1 - c->rows,
      cmz_b_add(b, first[1 - c->rows], scaled(b, cmz_emit_group_remainder(b, lane, 4), 2)));
  c->tiles[0] = height / 16;
  c->tiles[1] = width / 8;
  c->instances = c->tiles[0] * c->tiles[1] * 4;
  if (c->instances > CMZ_EMIT_MAX_INSTANCES) {
    cmz_emit_fail(e, "too many fragments in a warp's tile");
    return;
  }
  for (uint32_t i = 0; i < c->instances; i++) {
    uint32_t tile = i / 4;
    c->offsets[c->rows][i] = tile / c->tiles[1] * 16 + i % 4 / 2 * 8;
    c->offsets[1 - c->rows][i] = tile % c->tiles[1] * 8 + i % 2;
  }
}

/* ---- staging ---- */

static MlirValue shared_address(emitter *e, const factor *f, MlirValue buffer, MlirValue line,
                                MlirValue bytes) {
  cmz_builder *b = &e->b;
  MlirValue at = cmz_emit_wgmma_used(e) ? cmz_emit_wgmma_place(e, f, transposed(e, f), line, bytes)
                                        : cmz_b_add(b, scaled(b, line, f->pitch), bytes);
  at = cmz_b_add(b, at, buffer);
  return cmz_b_address(b, b->i8, f->base, at);
}

/* UNIT bytes at a time: calls EACH for every unit that is the thread's own. NEAR counts units along
 * a line, FAR lines. */
typedef void unit_function(emitter *e, const contraction *c, const factor *f, uint32_t depth,
                           MlirValue first, MlirValue total, MlirValue buffer, MlirValue near,
                           MlirValue far);

/* Unit I + MORE (null: I) of the thread's own. */
static void one_unit(emitter *e, const contraction *c, const factor *f, uint32_t depth,
                     MlirValue first, MlirValue total, MlirValue buffer, uint32_t unit,
                     unit_function *each, uint32_t i, MlirValue more) {
  cmz_builder *b = &e->b;
  uint32_t length = line_bytes(e, f) / unit, group = e->s->group, across = CMZ_MIN(length, group),
           along = length / across;
  emit_position saved;
  cmz_emit_save(e, depth, &saved);
  MlirValue near = cmz_b_add(b, cmz_emit_group_remainder(b, e->thread, across),
                             cmz_b_i64(b, (int64_t)(i % along) * across));
  MlirValue far = cmz_b_add(b, cmz_emit_group_divided(b, e->thread, across),
                            cmz_b_i64(b, (int64_t)(i / along) * (group / across)));
  if (more.ptr) far = cmz_b_add(b, far, scaled(b, more, group / across / along));
  cmz_emit_restore(e, &saved);
  each(e, c, f, depth, first, total, buffer, near, far);
}

/* All units of the thread, a few side by side: more, and registers do not suffice where an element
 * is much arithmetic (padding, decoding). */
static void each_unit(emitter *e, const contraction *c, const factor *f, uint32_t depth,
                      MlirValue first, MlirValue total, MlirValue buffer, uint32_t unit,
                      unit_function *each) {
  cmz_builder *b = &e->b;
  uint32_t length = line_bytes(e, f) / unit, lines = transposed(e, f) ? e->s->step : f->positions,
           group = e->s->group, count = length * lines / group, along = CMZ_MAX(length / group, 1u);
  uint32_t together = CMZ_MAX(FEW_UNITS, along);
  MlirValue none = {NULL};
  if (unit == CHUNK || count <= together) {
    for (uint32_t i = 0; i < count && !e->failed; i++)
      one_unit(e, c, f, depth, first, total, buffer, unit, each, i, none);
    return;
  }
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, NULL, 0, &loop);
  cmz_emit_push(e, loop.body);
  for (uint32_t i = 0; i < together && !e->failed; i++)
    one_unit(e, c, f, e->depth, first, total, buffer, unit, each, i, loop.index);
  cmz_emit_pop(e);
  if (!e->failed)
    cmz_b_loop_close(b, &loop, cmz_b_i64(b, 0), cmz_b_i64(b, count), cmz_b_i64(b, together), NULL,
                     0, NULL);
}

/* Binds everything at element PLUS of unit (NEAR, FAR), which has PER elements; returns whether
 * that exists. */
static MlirValue bind_unit(emitter *e, const contraction *c, const factor *f, uint32_t depth,
                           MlirValue first, MlirValue total, MlirValue near, MlirValue far,
                           uint32_t per, uint32_t plus) {
  cmz_builder *b = &e->b;
  MlirValue condition = {NULL};
  emit_position saved;
  cmz_emit_save(e, depth, &saved);
  MlirValue inner = cmz_b_add(b, scaled(b, near, per), cmz_b_i64(b, plus));
  cmz_emit_restore(e, &saved);
  MlirValue position = transposed(e, f) ? inner : far, iteration = transposed(e, f) ? far : inner;
  cmz_emit_group_bind(e, c, f, position, depth, &condition);
  MlirValue number = cmz_b_add(b, first, iteration);
  cmz_emit_group_bind_reduction(e, c, number);
  if (!e->failed) cmz_emit_group_conjoin(b, &condition, cmz_b_icmp(b, CMZ_B_SLT, number, total));
  return condition;
}

static void stage_word(emitter *e, const contraction *c, const factor *f, uint32_t depth,
                       MlirValue first, MlirValue total, MlirValue buffer, MlirValue near,
                       MlirValue far) {
  cmz_builder *b = &e->b;
  uint32_t bytes = element_bytes(e), per = 4 / bytes;
  MlirValue word = {NULL};
  for (uint32_t i = 0; i < per && !e->failed; i++) {
    MlirValue condition = bind_unit(e, c, f, depth, first, total, near, far, per, i);
    MlirValue v = cmz_emit_group_element(e, f, c->type, condition);
    if (e->failed) return;
    v = cmz_b_encode(b, type_of(e, f), v);
    v = per == 1 ? cmz_b_bitcast(b, v, b->i32) : cmz_b_cast(b, "arith.extui", v, b->i32);
    if (i) v = cmz_b_2(b, "arith.shli", v, cmz_b_int(b, b->i32, (int64_t)i * bytes * 8));
    word = i ? cmz_b_2(b, "arith.ori", word, v) : v;
  }
  cmz_b_store(b, word, shared_address(e, f, buffer, far, scaled(b, near, 4)), NULL);
}

static bool is_zero(const emitter *e, cmz_expr x) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  return (n->op == CMZ_X_CONST_FLOAT && n->f == 0) || (n->op == CMZ_X_CONST_INT && n->i == 0);
}

/* F as a load, perhaps guarded, of elements that lie 16 bytes together; the load, or 0. */
static cmz_expr chunked(emitter *e, const contraction *c, const factor *f, cmz_expr *condition) {
  const cmz_expr_node *n = &e->k->exprs.data[f->expr];
  const uint32_t per = CHUNK / element_bytes(e);
  cmz_expr load = f->expr;
  int64_t extent;
  uint16_t axis =
      transposed(e, f) ? f->axes[f->axis_count - 1] : c->node->axes[c->node->axis_count - 1];
  *condition = 0;
  if (n->op == CMZ_X_SELECT && is_zero(e, n->args[2])) {
    *condition = n->args[0];
    load = n->args[1];
    if (e->info[*condition].has_load || axis_set_has(&e->info[*condition].free, axis)) return 0;
  }
  n = &e->k->exprs.data[load];
  if (n->op != CMZ_X_LOAD || e->k->operands.data[n->i].dtype != type_of(e, f)) return 0;
  if (!cmz_emit_extent(e, axis, &extent) || extent % per != 0) return 0;
  if (transposed(e, f) && e->s->axes[axis].tile % per != 0) return 0;
  uint32_t chunks = buffer_bytes(e, f) / f->pitch * line_bytes(e, f) / CHUNK;
  if (chunks % e->s->group != 0) return 0;
  return cmz_emit_contiguous(e, n->args[0], axis, per) ? load : 0;
}

void cmz_emit_tensor_copy(emitter *e, cmz_expr load, MlirValue condition, MlirValue to) {
  cmz_builder *b = &e->b;
  const cmz_expr_node *n = &e->k->exprs.data[load];
  MlirValue from = cmz_emit_address(e, (uint32_t)n->i, n->args[0]),
            bytes = cmz_b_int(b, b->i32, CHUNK);
  if (e->failed) return;
  if (condition.ptr) {
    from = cmz_b_select(b, condition, from, cmz_emit_operand_base(e, (uint32_t)n->i));
    bytes = cmz_b_select(b, condition, bytes, cmz_b_int(b, b->i32, 0));
  }
  MlirValue operands[] = {
      to, cmz_b_cast(b, "llvm.addrspacecast", from, mlirLLVMPointerTypeGet(b->mlir, 1)), bytes};
  cmz_b_intrinsic(b, "llvm.nvvm.cp.async.cg.shared.global.16.s", 3, operands, (MlirType){NULL});
}

static void stage_chunk(emitter *e, const contraction *c, const factor *f, uint32_t depth,
                        MlirValue first, MlirValue total, MlirValue buffer, MlirValue near,
                        MlirValue far) {
  cmz_builder *b = &e->b;
  cmz_expr guard, load = chunked(e, c, f, &guard);
  MlirValue condition =
      bind_unit(e, c, f, depth, first, total, near, far, CHUNK / element_bytes(e), 0);
  if (guard && !e->failed) cmz_emit_group_conjoin(b, &condition, cmz_emit_value(e, guard));
  if (e->failed) return;
  cmz_emit_tensor_copy(e, load, condition,
                       shared_address(e, f, buffer, far, scaled(b, near, CHUNK)));
}

MlirValue cmz_emit_tensor_is_aligned(emitter *e, uint32_t operand) {
  cmz_builder *b = &e->b;
  MlirValue address = cmz_b_cast(b, "llvm.ptrtoint", cmz_emit_operand_base(e, operand), b->i64);
  return cmz_b_icmp(b, CMZ_B_IEQ, cmz_emit_group_remainder(b, address, CHUNK), cmz_b_i64(b, 0));
}

void cmz_emit_tensor_wait(emitter *e) {
  MlirValue none = cmz_b_int(&e->b, e->b.i32, 0);
  cmz_b_intrinsic(&e->b, "llvm.nvvm.cp.async.wait.group", 1, &none, (MlirType){NULL});
}

static void stage(emitter *e, const contraction *c, uint32_t depth, MlirValue first,
                  MlirValue total, MlirValue number) {
  cmz_builder *b = &e->b;
  for (uint32_t i = 0; i < 2 && !e->failed; i++) {
    const factor *f = &c->factors[i];
    MlirValue buffer = scaled(b, number, buffer_bytes(e, f));
    cmz_expr guard, load = chunked(e, c, f, &guard);
    if (!load) {
      each_unit(e, c, f, depth, first, total, buffer, 4, stage_word);
      continue;
    }
    MlirRegion regions[2];
    MlirBlock blocks[2], here = b->block;
    MlirValue aligned = cmz_emit_tensor_is_aligned(e, (uint32_t)e->k->exprs.data[load].i);
    for (uint32_t r = 0; r < 2 && !e->failed; r++) {
      blocks[r] = cmz_b_region(&regions[r]);
      cmz_emit_push(e, blocks[r]);
      each_unit(e, c, f, depth, first, total, buffer, r ? 4 : CHUNK, r ? stage_word : stage_chunk);
      cmz_emit_pop(e);
      if (!e->failed) cmz_b_yield(b, blocks[r], NULL, 0);
    }
    b->block = here;
    if (!e->failed) cmz_b_if(b, aligned, regions[0], regions[1], NULL, 0, NULL);
  }
  cmz_b_intrinsic(b, "llvm.nvvm.cp.async.commit.group", 0, NULL, (MlirType){NULL});
}

/* ---- computing ---- */

static void extract_all(cmz_builder *b, MlirValue tuple, MlirType type, MlirValue *out) {
  for (int64_t i = 0; i < 4; i++) {
    MlirNamedAttribute at = cmz_b_attr(b, "position", mlirDenseI64ArrayGet(b->mlir, 1, &i));
    out[i] = mlirOperationGetResult(
        cmz_b_op(b, "llvm.extractvalue", 1, &tuple, 1, &type, 1, &at, 0, NULL), 0);
  }
}

static MlirType four_of(cmz_builder *b, MlirType type) {
  MlirType types[] = {type, type, type, type};
  return mlirLLVMStructTypeLiteralGet(b->mlir, 4, types, false);
}

void cmz_emit_tensor_matrices(emitter *e, MlirValue at, bool crossed, MlirValue *out) {
  cmz_builder *b = &e->b;
  const char *name = crossed ? "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.trans.b16"
                             : "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.b16";
  extract_all(b, cmz_b_intrinsic(b, name, 1, &at, four_of(b, b->i32)), b->i32, out);
}

MlirValue cmz_emit_tensor_pair(emitter *e, MlirValue low, MlirValue high) {
  cmz_builder *b = &e->b;
  cmz_dtype type = (cmz_dtype)e->s->fragments;
  low = cmz_b_cast(b, "arith.extui", cmz_b_encode(b, type, low), b->i32);
  high = cmz_b_cast(b, "arith.extui", cmz_b_encode(b, type, high), b->i32);
  high = cmz_b_2(b, "arith.shli", high, cmz_b_int(b, b->i32, 16));
  return cmz_b_2(b, "arith.ori", low, high);
}

/* Words (row, k), (row + 8, k), (row, k + 4), (row + 8, k + 4), or for columns (k), (k + 4), then
 * the next 8 columns, from lines of positions, rounded to tf32 (PTX ISA, "mma.m16n8k8"). */
static void load_words(emitter *e, const factor *f, bool rows, MlirValue lines, uint32_t tile,
                       uint32_t k, MlirValue *out) {
  cmz_builder *b = &e->b;
  for (uint32_t i = 0; i < 4; i++) {
    uint32_t position = tile * 16 + (rows ? i % 2 : i / 2) * 8,
             iteration = k * 8 + (rows ? i / 2 : i % 2) * 4;
    int64_t offset = (int64_t)iteration * f->pitch + position * 4;
    out[i] = cmz_b_load(b, b->i32, cmz_b_address_const(b, b->i8, lines, offset), NULL, false);
  }
}

/* The four 8x8 matrices (of 16-byte rows) at tile TILE (of 16 positions) and K (of 32 bytes). */
static void load_matrices(emitter *e, const factor *f, bool rows, MlirValue lines, uint32_t tile,
                          uint32_t k, MlirValue *out) {
  cmz_builder *b = &e->b;
  bool t = transposed(e, f), words = element_bytes(e) == 4;
  int64_t offset = t ? (int64_t)tile * 32 + (int64_t)k * 16 * f->pitch
                     : (int64_t)tile * 16 * f->pitch + (int64_t)k * 32;
  if (t && words) load_words(e, f, rows, lines, tile, k, out);
  else cmz_emit_tensor_matrices(e, cmz_b_address_const(b, b->i8, lines, offset), t, out);
  for (uint32_t i = 0; words && i < 4; i++) {
    MlirValue v = cmz_b_bitcast(b, out[i], b->f32);
    out[i] = cmz_b_intrinsic(b, "llvm.nvvm.f2tf32.rna", 1, &v, b->i32);
  }
}

void cmz_emit_tensor_multiply(emitter *e, const cmz_dtype types[2], const MlirValue *rows,
                              const MlirValue *columns, MlirValue *accs) {
  static const struct {
    cmz_dtype rows, columns;
    const char *name;
  } forms[] = {{CMZ_F16, CMZ_F16, "llvm.nvvm.mma.m16n8k16.row.col.f32.f32"},
               {CMZ_BF16, CMZ_BF16, "llvm.nvvm.mma.m16n8k16.row.col.bf16"},
               {CMZ_F32, CMZ_F32, "llvm.nvvm.mma.m16n8k8.row.col.tf32"},
               {CMZ_I8, CMZ_I8, "llvm.nvvm.mma.m16n8k32.row.col.s8"},
               {CMZ_I8, CMZ_U8, "llvm.nvvm.mma.m16n8k32.row.col.s8.u8"},
               {CMZ_U8, CMZ_I8, "llvm.nvvm.mma.m16n8k32.row.col.u8.s8"},
               {CMZ_U8, CMZ_U8, "llvm.nvvm.mma.m16n8k32.row.col.u8"}};
  cmz_builder *b = &e->b;
  MlirValue operands[10];
  const char *name = NULL;
  for (size_t i = 0; i < CMZ_COUNT_OF(forms); i++)
    if (forms[i].rows == types[0] && forms[i].columns == types[1]) name = forms[i].name;
  if (!name) {
    cmz_emit_fail(e, "fragments of types that are not multiplied");
    return;
  }
  memcpy(operands, rows, 4 * sizeof *operands);
  memcpy(operands + 4, columns, 2 * sizeof *operands);
  memcpy(operands + 6, accs, 4 * sizeof *operands);
  MlirType halves = cmz_b_vector(b->f16, 2);
  for (uint32_t i = 0; i < 6 && types[0] == CMZ_F16; i++)
    operands[i] = mlirOperationGetResult(
        cmz_b_op(b, "llvm.bitcast", 1, &operands[i], 1, &halves, 0, NULL, 0, NULL), 0);
  MlirType type = cmz_b_type(accs[0]);
  extract_all(b, cmz_b_intrinsic(b, name, 10, operands, four_of(b, type)), type, accs);
}

static void compute(emitter *e, const contraction *c, MlirValue number, MlirValue *accs) {
  cmz_builder *b = &e->b;
  const cmz_dtype types[2] = {type_of(e, &c->factors[c->rows]),
                              type_of(e, &c->factors[1 - c->rows])};
  MlirValue lines[2];
  if (cmz_emit_wgmma_used(e)) {
    bool across[2];
    for (uint32_t i = 0; i < 2; i++) {
      across[i] = transposed(e, &c->factors[i]);
      lines[i] = scaled(b, number, buffer_bytes(e, &c->factors[i]));
    }
    cmz_emit_wgmma_compute(e, c, lines, across, accs);
    return;
  }
  for (uint32_t i = 0; i < 2; i++) {
    const factor *f = &c->factors[i];
    MlirValue at = cmz_b_add(b, f->lines, scaled(b, number, buffer_bytes(e, f)));
    lines[i] = cmz_b_address(b, b->i8, f->base, at);
  }
  for (uint32_t k = 0; k < LINE / 32 && !e->failed; k++) {
    MlirValue rows[CMZ_EMIT_MAX_INSTANCES], columns[CMZ_EMIT_MAX_INSTANCES];
    for (uint32_t i = 0; i < c->tiles[0]; i++)
      load_matrices(e, &c->factors[c->rows], true, lines[c->rows], i, k, &rows[i * 4]);
    for (uint32_t i = 0; i < c->tiles[1] / 2; i++)
      load_matrices(e, &c->factors[1 - c->rows], false, lines[1 - c->rows], i, k, &columns[i * 4]);
    for (uint32_t i = 0; i < c->tiles[0] * c->tiles[1] && !e->failed; i++)
      cmz_emit_tensor_multiply(e, types, &rows[i / c->tiles[1] * 4], &columns[i % c->tiles[1] * 2],
                               &accs[i * 4]);
  }
}

void cmz_emit_tensor_steps(emitter *e, const contraction *c, MlirValue *accs) {
  cmz_builder *b = &e->b;
  uint32_t depth = e->depth, step = e->s->step;
  int64_t known;
  MlirValue zero = cmz_b_i64(b, 0), total = cmz_emit_group_iterations(e, c, &known);
  if (e->failed) return;
  MlirValue *initial = CMZ_NEW_ARRAY(e->arena, MlirValue, c->instances);
  for (uint32_t i = 0; i < c->instances; i++) initial[i] = cmz_b_const(b, c->type, 0);
  cmz_emit_group_barrier(e); /* nobody reads the tile before any more */
  stage(e, c, depth, zero, total, zero);
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, initial, c->instances, &loop);
  loop.rolled = true;
  memcpy(accs, loop.carried, c->instances * sizeof *accs);
  cmz_emit_push(e, loop.body);
  cmz_emit_tensor_wait(e);
  if (cmz_emit_wgmma_used(e)) cmz_emit_wgmma_fence(e);
  cmz_emit_group_barrier(e); /* this step is there; nobody reads the one before any more */
  MlirValue number = cmz_emit_group_remainder(b, cmz_emit_group_divided(b, loop.index, step), 2),
            other = cmz_b_2(b, "arith.xori", number, cmz_b_i64(b, 1));
  stage(e, c, depth, cmz_b_add(b, loop.index, cmz_b_i64(b, step)), total, other);
  if (!e->failed) compute(e, c, number, accs);
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_loop_close(b, &loop, zero, total, cmz_b_i64(b, step), initial, c->instances, accs);
  cmz_emit_tensor_wait(e); /* the last step has begun one more, of nothing */
}
