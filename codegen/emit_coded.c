/* emit_coded.c - a work-group's product of weights in a storage format (schedule field `coded`).
 * In: codes in the order of matrix fragments (kernel.h's cmz_coded), activations as any expression.
 * Out: a warp loads 512 bytes of codes at a time, 16 a lane, straight into the registers of
 * mma.m16n8k16's rows; they become f16 numbers there, less their zero point and exactly; sums run
 * in f32 over the columns that share a scale, and are scaled when added to the whole. Activations
 * are staged in f16 for a stretch of columns, in the order of the other operand's registers. Warps
 * that share a panel take turns in its tiles; their sums meet in the group's memory, from where
 * each thread stores outputs that lie beside its neighbours'. Always holds: all threads of a group
 * meet at every barrier; codes past the last tile are not read, and columns past the last are zero.
 */
#include "emit_group.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"

enum {
  WARP = 32,
  TILE = 512,
  LANE = 16,
  PANEL = 16,
  QUAD = 4,
  MOST_TILES = 8,
  TOGETHER = 4 /* loads of four numbers */
};

struct coded_state {
  cmz_coded w;
  uint32_t warps, turns, ahead;   /* warps that share a panel; tiles that a warp has under way */
  uint32_t width;                 /* columns of the sum in a tile */
  int64_t tiles;                  /* of a panel */
  uint32_t positions;             /* of the activations */
  MlirValue lane, turn, panel;    /* the warp's turn, and its panel in the group's tile */
  MlirValue codes, scales, zeros; /* the lane's own in the panel's first tile */
};

/* What a warp has loaded of one tile. */
typedef struct tile_words {
  MlirValue codes[4], scales[4][2], zeros[4];
} tile_words;

static uint32_t units_of(const struct coded_state *s) {
  return s->w.group >= s->width || s->w.group == s->w.columns ? 1 : s->width / (uint32_t)s->w.group;
}

static MlirValue divided(emitter *e, MlirValue v, uint32_t by) {
  return cmz_emit_group_divided(&e->b, v, by);
}
static MlirValue remainder_of(emitter *e, MlirValue v, uint32_t by) {
  return cmz_emit_group_remainder(&e->b, v, by);
}
static MlirValue times(cmz_builder *b, MlirValue v, int64_t by) {
  return by == 1 ? v : cmz_b_mul(b, v, cmz_b_i64(b, by));
}
static MlirValue word(cmz_builder *b, int64_t v) { return cmz_b_int(b, b->i32, v); }

static MlirValue bits_as(cmz_builder *b, MlirValue v, MlirType type) {
  return mlirOperationGetResult(cmz_b_op(b, "llvm.bitcast", 1, &v, 1, &type, 0, NULL, 0, NULL), 0);
}
static MlirType halves(cmz_builder *b) { return cmz_b_vector(b->f16, 2); }

/* COUNT words that lie at a multiple of their size. */
static void load_words(emitter *e, MlirValue address, uint32_t count, bool invariant,
                       MlirValue *out) {
  cmz_builder *b = &e->b;
  MlirType type = cmz_b_vector(b->i32, count);
  MlirNamedAttribute attrs[2] = {
      cmz_b_attr(b, "alignment", mlirIntegerAttrGet(b->bits64, 4 * (int64_t)count))};
  if (invariant) attrs[1] = cmz_b_attr(b, "invariant", mlirUnitAttrGet(b->mlir));
  MlirValue v = mlirOperationGetResult(
      cmz_b_op(b, "llvm.load", 1, &address, 1, &type, invariant ? 2 : 1, attrs, 0, NULL), 0);
  for (uint32_t i = 0; i < count; i++) out[i] = count > 1 ? cmz_b_extract(b, v, i) : v;
}

static void store_pair(emitter *e, MlirValue x, MlirValue y, MlirValue address) {
  cmz_builder *b = &e->b;
  MlirValue pair = cmz_b_const(b, cmz_b_vector(cmz_b_type(x), 2), 0);
  pair = cmz_b_insert(b, cmz_b_insert(b, pair, x, 0), y, 1);
  MlirNamedAttribute alignment = cmz_b_attr(b, "alignment", mlirIntegerAttrGet(b->bits64, 8));
  cmz_b_op(b, "llvm.store", 2, (MlirValue[]){pair, address}, 0, NULL, 1, &alignment, 0, NULL);
}

static MlirValue permuted(cmz_builder *b, MlirValue x, MlirValue y, int64_t selectors) {
  MlirValue operands[] = {x, y, word(b, selectors)};
  return cmz_b_intrinsic(b, "llvm.nvvm.prmt", 3, operands, b->i32);
}

/* ---- preparing ---- */

/* The axes that count rows, innermost first. */
static uint32_t row_axes(const emitter *e, const contraction *c, uint32_t number, uint16_t *rows) {
  uint32_t count = 0;
  for (uint32_t i = c->store->axis_count; i-- > 0;) {
    uint16_t axis = c->axes[i];
    bool own = axis_set_has(&e->info[c->factors[number].expr].free, axis),
         other = axis_set_has(&e->info[c->factors[1 - number].expr].free, axis);
    if (own && !other && count < CMZ_STORE_MAX_AXES) rows[count++] = axis;
  }
  return count;
}

static bool find_weights(emitter *e, contraction *c, cmz_coded *w) {
  uint16_t rows[CMZ_STORE_MAX_AXES];
  for (c->rows = 0; c->rows < 2; c->rows++) {
    uint32_t count = row_axes(e, c, c->rows, rows);
    if (cmz_x_coded(e->k, c->reduce, c->rows, rows, count, w)) return true;
  }
  return false;
}

/* Whether neighbours in the result are rows. */
static bool stores_rows(const emitter *e, const contraction *c) {
  for (uint32_t i = c->store->axis_count; i-- > 0;) {
    if (e->s->axes[c->axes[i]].tile < 2) continue;
    const factor *f = &c->factors[c->rows];
    for (uint32_t a = 0; a < f->axis_count; a++)
      if (f->axes[a] == c->axes[i]) return true;
    return false;
  }
  return true;
}

/* Outputs of a tile, the side whose neighbours lie together first, over the threads. */
static void share_outputs(emitter *e, contraction *c) {
  cmz_builder *b = &e->b;
  uint32_t near = stores_rows(e, c) ? c->rows : 1 - c->rows, across = c->factors[near].positions;
  uint32_t outputs = across * c->factors[1 - near].positions, group = e->s->group;
  c->instances = CMZ_MAX(outputs / group, 1u);
  if (outputs < group)
    c->exists = cmz_b_icmp(b, CMZ_B_SLT, e->thread, cmz_b_i64(b, (int64_t)outputs));
  if (across > group || c->instances > CMZ_EMIT_MAX_INSTANCES) {
    cmz_emit_fail(e, "a tile that the threads cannot share");
    return;
  }
  cmz_emit_tensor_place(e, c, near, remainder_of(e, e->thread, across));
  MlirValue far = divided(e, e->thread, across);
  if (outputs < group) far = remainder_of(e, far, c->factors[1 - near].positions);
  cmz_emit_tensor_place(e, c, 1 - near, far);
  for (uint32_t i = 0; i < c->instances; i++) {
    c->offsets[near][i] = 0;
    c->offsets[1 - near][i] = i * (group / across);
  }
}

/* Positions of the activations with those that fill up eight. */
static uint32_t padded(const struct coded_state *s) { return CMZ_MAX(s->positions, 8u); }

void cmz_emit_coded_prepare(emitter *e, contraction *c) {
  cmz_builder *b = &e->b;
  struct coded_state *s = c->coded = CMZ_NEW(e->arena, struct coded_state);
  if (!find_weights(e, c, &s->w)) {
    cmz_emit_fail(e, "weights that are not in the order of fragments");
    return;
  }
  factor *rows = &c->factors[c->rows], *columns = &c->factors[1 - c->rows];
  s->warps = e->s->group / WARP;
  s->turns = s->warps / CMZ_MAX(rows->positions / PANEL, 1u);
  s->width = (uint32_t)cmz_coded_columns(&s->w);
  s->tiles = (s->w.columns + s->width - 1) / s->width;
  s->ahead = e->s->step / (s->width * CMZ_MAX(s->turns, 1u));
  s->positions = columns->positions;
  if (s->turns == 0 || s->ahead == 0 || s->ahead > MOST_TILES ||
      e->s->step != s->width * s->turns * s->ahead || units_of(s) > 4) {
    cmz_emit_fail(e, "a tile of weights that the warps cannot share");
    return;
  }
  uint32_t staged = e->s->step * s->positions * 2,
           sums = s->turns * rows->positions * padded(s) * 4;
  cmz_emit_group_declare(e, columns, b->i8, CMZ_MAX(staged, sums), 0);
  s->lane = remainder_of(e, e->thread, WARP);
  MlirValue warp = divided(e, e->thread, WARP);
  s->turn = remainder_of(e, warp, s->turns);
  s->panel = divided(e, warp, s->turns);
  share_outputs(e, c);
}

/* ---- weights ---- */

/* Where element INDEX_OF's load lies for the first row and column of the warp's panel. */
static MlirValue first_element(emitter *e, const contraction *c, cmz_expr load) {
  cmz_builder *b = &e->b;
  const cmz_expr_node *n = &e->k->exprs.data[load];
  MlirValue condition = {NULL};
  cmz_emit_group_bind(e, c, &c->factors[c->rows], times(b, c->coded->panel, PANEL), e->depth,
                      &condition);
  for (uint32_t i = 0; i < c->node->axis_count; i++)
    cmz_emit_bind(e, c->node->axes[i], (MlirValue){NULL}, 0, 1, 1);
  MlirValue at = cmz_emit_address(e, (uint32_t)n->i, n->args[0]);
  if (e->failed || !condition.ptr) return at;
  return cmz_b_select(b, condition, at, cmz_emit_operand_base(e, (uint32_t)n->i));
}

static uint32_t bytes_of(const emitter *e, cmz_expr load) {
  return cmz_dtype_info(e->k->operands.data[e->k->exprs.data[load].i].dtype)->bits / 8;
}

static void find_lane(emitter *e, const contraction *c) {
  cmz_builder *b = &e->b;
  struct coded_state *s = c->coded;
  MlirValue pair = times(b, divided(e, s->lane, 4), 2);
  s->codes = cmz_b_address(b, b->i8, first_element(e, c, s->w.values), times(b, s->lane, LANE));
  if (e->failed) return;
  s->scales = cmz_b_address(b, b->i8, first_element(e, c, s->w.scales),
                            times(b, pair, bytes_of(e, s->w.scales)));
  if (s->w.zeros && !e->failed)
    s->zeros = cmz_b_address(b, b->i8, first_element(e, c, s->w.zeros), pair);
}

/* The group that unit UNIT of tile NUMBER belongs to. */
static MlirValue group_of(emitter *e, const struct coded_state *s, MlirValue number,
                          uint32_t unit) {
  cmz_builder *b = &e->b;
  uint32_t units = units_of(s);
  int64_t groups = (s->w.columns + s->w.group - 1) / s->w.group;
  if (groups == 1) return cmz_b_i64(b, 0);
  if (s->w.group >= s->width)
    return cmz_b_2(b, "arith.divui", number, cmz_b_i64(b, s->w.group / s->width));
  MlirValue group = cmz_b_add(b, times(b, number, units), cmz_b_i64(b, unit));
  if (groups == s->tiles * units) return group;
  return cmz_b_min(b, group, cmz_b_i64(b, groups - 1), true); /* the last tile's padding */
}

/* Tile INDEX of those that the warp has under way, FIRST being the group's first one. */
static void load_tile(emitter *e, const contraction *c, MlirValue first, uint32_t index,
                      tile_words *out) {
  cmz_builder *b = &e->b;
  const struct coded_state *s = c->coded;
  uint32_t bytes = bytes_of(e, s->w.scales);
  MlirValue number =
      cmz_b_add(b, cmz_b_add(b, first, s->turn), cmz_b_i64(b, (int64_t)index * s->turns));
  if (s->tiles % (s->turns * s->ahead) != 0)
    number = cmz_b_min(b, number, cmz_b_i64(b, s->tiles - 1), true);
  load_words(e, cmz_b_address(b, b->i8, s->codes, times(b, number, TILE)), 4, true, out->codes);
  for (uint32_t u = 0; u < units_of(s); u++) {
    MlirValue group = group_of(e, s, number, u), words[2];
    MlirValue at = cmz_b_address(b, b->i8, s->scales, times(b, group, PANEL * (int64_t)bytes));
    load_words(e, at, bytes / 2, true, words);
    for (uint32_t r = 0; r < 2; r++)
      out->scales[u][r] =
          bytes == 4 ? bits_as(b, words[r], b->f32)
                     : cmz_b_cast(b, "arith.extf",
                                  cmz_b_extract(b, bits_as(b, words[0], halves(b)), r), b->f32);
    if (!s->w.zeros) continue;
    at = cmz_b_address(b, b->i8, s->zeros, times(b, group, PANEL));
    MlirNamedAttribute attrs[2] = {cmz_b_attr(b, "alignment", mlirIntegerAttrGet(b->bits64, 2)),
                                   cmz_b_attr(b, "invariant", mlirUnitAttrGet(b->mlir))};
    MlirValue two =
        mlirOperationGetResult(cmz_b_op(b, "llvm.load", 1, &at, 1, &b->i16, 2, attrs, 0, NULL), 0);
    out->zeros[u] = cmz_b_cast(b, "arith.extui", two, b->i32);
  }
}

/* ---- decoding: an integer below 1024 in the low bits of 0x6400 is the f16 number 1024 more ----
 */

/* What is taken from codes with 1024 on top, and from those that stand four bits higher, by 16. */
typedef struct centre {
  MlirValue low[2], high[2];
} centre;

static MlirValue both(cmz_builder *b, double value) { return cmz_b_float(b, halves(b), value); }

static void find_centre(emitter *e, const struct coded_state *s, const tile_words *t, uint32_t unit,
                        centre *out) {
  cmz_builder *b = &e->b;
  double offset = s->w.offset + (s->w.is_signed ? 128 : 0);
  for (uint32_t r = 0; r < 2; r++) {
    out->low[r] = both(b, 1024 + offset);
    out->high[r] = both(b, -(64 + offset));
  }
  if (!s->w.zeros) return;
  MlirValue pair = bits_as(b, permuted(b, t->zeros[unit], word(b, 0x64646464), 0x4140), halves(b)),
            less = cmz_b_sub(b, both(b, 960), pair);
  for (uint32_t r = 0; r < 2; r++) {
    out->low[r] = cmz_b_broadcast(b, cmz_b_extract(b, pair, r), 2);
    out->high[r] = cmz_b_broadcast(b, cmz_b_extract(b, less, r), 2);
  }
}

/* The fields of MASK in WORDS, with 1024 on top: words & mask | 1024, in one instruction, which
 * ptxas does not find where both constants are known. */
static MlirValue masked(cmz_builder *b, MlirValue words, int64_t mask) {
  MlirValue operands[] = {words, word(b, mask), word(b, 0x64006400)};
  MlirStringRef code = mlirStringRefCreateFromCString("lop3.b32 $0, $1, $2, $3, 0xea;"),
                constraints = mlirStringRefCreateFromCString("=r,r,r,r");
  MlirNamedAttribute attrs[] = {
      cmz_b_attr(b, "asm_string", mlirStringAttrGet(b->mlir, code)),
      cmz_b_attr(b, "constraints", mlirStringAttrGet(b->mlir, constraints))};
  MlirOperation op = cmz_b_op(b, "llvm.inline_asm", 3, operands, 1, &b->i32, 2, attrs, 0, NULL);
  return bits_as(b, mlirOperationGetResult(op, 0), halves(b));
}

/* The rows' registers of step STEP (16 columns) of a tile, as words. */
static void decode(emitter *e, const struct coded_state *s, const tile_words *t, uint32_t step,
                   const centre *less, MlirValue *out) {
  cmz_builder *b = &e->b;
  if (s->w.bits == 4) {
    MlirValue words[2] = {t->codes[step], cmz_b_2(b, "arith.shrui", t->codes[step], word(b, 8))};
    for (uint32_t r = 0; r < 2; r++) {
      out[r] = cmz_b_sub(b, masked(b, words[r], 0x000f000f), less->low[r]);
      out[2 + r] = cmz_b_fma(b, masked(b, words[r], 0x00f000f0), both(b, 0.0625), less->high[r]);
    }
  } else {
    for (uint32_t half = 0; half < 2; half++)
      for (uint32_t r = 0; r < 2; r++) {
        MlirValue bytes = t->codes[2 * step + half];
        if (s->w.is_signed) bytes = cmz_b_2(b, "arith.xori", bytes, word(b, 0x80808080));
        MlirValue spread = permuted(b, bytes, word(b, 0x64646464), r ? 0x4342 : 0x4140);
        out[2 * half + r] = cmz_b_sub(b, bits_as(b, spread, halves(b)), less->low[r]);
      }
  }
  for (uint32_t i = 0; i < 4; i++) out[i] = bits_as(b, out[i], b->i32);
}

/* ---- activations ---- */

/* The bytes of 32 columns of the sum at one position: four lanes' registers of two steps. */
enum { LINE = 64 };

/* Where four columns, number QUAD of the stretch, of POSITION are staged. */
static MlirValue staged_at(emitter *e, const contraction *c, MlirValue quad, MlirValue position) {
  cmz_builder *b = &e->b;
  MlirValue line = cmz_b_add(b, times(b, divided(e, quad, 8), c->coded->positions), position);
  MlirValue at = cmz_b_add(b, times(b, line, LINE), times(b, remainder_of(e, quad, 4), 16));
  at = cmz_b_add(b, at, times(b, remainder_of(e, divided(e, quad, 4), 2), 8));
  return cmz_b_address(b, b->i8, c->factors[1 - c->rows].base, at);
}

static void bind_column(emitter *e, const contraction *c, MlirValue number) {
  cmz_builder *b = &e->b;
  const cmz_coded *w = &c->coded->w;
  for (uint32_t i = w->axis_count; i-- > 0;) {
    int64_t extent = 1;
    MlirValue own = number;
    cmz_emit_extent(e, w->axes[i], &extent);
    if (i > 0) {
      own = cmz_b_2(b, "arith.remui", number, cmz_b_i64(b, extent));
      number = cmz_b_2(b, "arith.divui", number, cmz_b_i64(b, extent));
    }
    cmz_emit_bind(e, w->axes[i], own, 0, 1, 1);
  }
}

/* Rounded to f16; what that cannot hold becomes its largest number. */
static MlirValue as_halves(cmz_builder *b, MlirValue x, MlirValue y) {
  MlirValue pair = cmz_b_const(b, cmz_b_vector(b->f32, 2), 0);
  pair = cmz_b_insert(b, cmz_b_insert(b, pair, x, 0), y, 1);
  pair = cmz_b_cast(b, "arith.truncf", pair, halves(b));
  pair = cmz_b_intrinsic(b, "llvm.nvvm.fmin.nan.f16x2", 2, (MlirValue[]){pair, both(b, 65504)},
                         halves(b));
  pair = cmz_b_intrinsic(b, "llvm.nvvm.fmax.nan.f16x2", 2, (MlirValue[]){pair, both(b, -65504)},
                         halves(b));
  return bits_as(b, pair, b->i32);
}

/* In which order the activations' registers want four columns: those of one register are what one
 * word of codes gives. */
static const uint8_t *order_of(const struct coded_state *s) {
  static const uint8_t natural[] = {0, 1, 2, 3}, fours[] = {0, 2, 1, 3};
  return s->w.bits == 4 ? fours : natural;
}

/* The activations as a load, perhaps guarded, of four numbers of 16 or 32 bits that lie together;
 * the load, or 0. */
static cmz_expr load_of_four(emitter *e, const contraction *c, cmz_expr *guard) {
  const factor *f = &c->factors[1 - c->rows];
  const cmz_coded *w = &c->coded->w;
  const cmz_expr_node *n = &e->k->exprs.data[f->expr];
  uint16_t axis = w->axes[w->axis_count - 1];
  cmz_expr load = f->expr;
  int64_t extent;
  *guard = 0;
  if (n->op == CMZ_X_SELECT) {
    const cmz_expr_node *no = &e->k->exprs.data[n->args[2]];
    *guard = n->args[0];
    load = n->args[1];
    if (no->op != CMZ_X_CONST_FLOAT || no->f != 0 || e->info[*guard].has_load ||
        axis_set_has(&e->info[*guard].free, axis))
      return 0;
  }
  n = &e->k->exprs.data[load];
  if (n->op != CMZ_X_LOAD || n->dtype != CMZ_F32) return 0;
  cmz_dtype type = e->k->operands.data[n->i].dtype;
  if (type != CMZ_F16 && type != CMZ_F32) return 0;
  if (!cmz_emit_extent(e, axis, &extent) || extent % QUAD != 0) return 0;
  return cmz_emit_contiguous(e, n->args[0], axis, QUAD) ? load : 0;
}

static void load_four(emitter *e, const contraction *c, cmz_expr load, MlirValue condition,
                      MlirValue *out) {
  cmz_builder *b = &e->b;
  const cmz_expr_node *n = &e->k->exprs.data[load];
  bool half = e->k->operands.data[n->i].dtype == CMZ_F16;
  const uint8_t *order = order_of(c->coded);
  MlirValue words[4], from = cmz_emit_address(e, (uint32_t)n->i, n->args[0]);
  if (e->failed) return;
  if (condition.ptr)
    from = cmz_b_select(b, condition, from, cmz_emit_operand_base(e, (uint32_t)n->i));
  load_words(e, from, half ? 2 : 4, false, words);
  for (uint32_t i = 0; i < 2; i++) {
    if (!half)
      out[i] = as_halves(b, bits_as(b, words[order[2 * i]], b->f32),
                         bits_as(b, words[order[2 * i + 1]], b->f32));
    else
      out[i] =
          c->coded->w.bits == 4 ? permuted(b, words[0], words[1], i ? 0x7632 : 0x5410) : words[i];
    if (condition.ptr) out[i] = cmz_b_select(b, condition, out[i], word(b, 0));
  }
}

/* Four columns from NUMBER on at POSITION, which belongs to the scope at DEPTH, as two words. */
static void four_columns(emitter *e, const contraction *c, uint32_t depth, MlirValue number,
                         MlirValue position, MlirValue *out) {
  cmz_builder *b = &e->b;
  const struct coded_state *s = c->coded;
  const factor *f = &c->factors[1 - c->rows];
  cmz_expr guard, load = load_of_four(e, c, &guard);
  const uint8_t *order = order_of(s);
  bool whole = s->w.columns % e->s->step == 0;
  MlirValue values[QUAD], total = cmz_b_i64(b, s->w.columns);
  for (uint32_t i = 0; i < (load ? 1 : QUAD) && !e->failed; i++) {
    MlirValue condition = {NULL}, column = cmz_b_add(b, number, cmz_b_i64(b, i));
    cmz_emit_group_bind(e, c, f, position, depth, &condition);
    bind_column(e, c, column);
    if (!whole) cmz_emit_group_conjoin(b, &condition, cmz_b_icmp(b, CMZ_B_SLT, column, total));
    if (load && guard) cmz_emit_group_conjoin(b, &condition, cmz_emit_value(e, guard));
    if (e->failed) return;
    if (load) load_four(e, c, load, condition, out);
    else values[i] = cmz_emit_group_element(e, f, b->f32, condition);
  }
  for (uint32_t i = 0; i < 2 && !load && !e->failed; i++)
    out[i] = as_halves(b, values[order[2 * i]], values[order[2 * i + 1]]);
}

/* Four columns of the thread's own: number I + MORE (null: I) of them, in the scope at DEPTH. */
static void stage_unit(emitter *e, const contraction *c, uint32_t depth, MlirValue first,
                       uint32_t i, MlirValue more) {
  cmz_builder *b = &e->b;
  const struct coded_state *s = c->coded;
  cmz_expr guard; /* quads of a line side by side, then positions; or positions */
  bool along = c->factors[1 - c->rows].along_reduction || load_of_four(e, c, &guard);
  uint32_t across = along ? LINE / 8 : 1;
  emit_position saved;
  cmz_emit_save(e, depth, &saved);
  MlirValue unit = cmz_b_add(b, e->thread, cmz_b_i64(b, (int64_t)i * e->s->group));
  if (more.ptr) unit = cmz_b_add(b, unit, times(b, more, e->s->group));
  MlirValue rest = divided(e, unit, across), position = remainder_of(e, rest, s->positions),
            quad = cmz_b_add(b, remainder_of(e, unit, across),
                             times(b, divided(e, rest, s->positions), across)),
            to = staged_at(e, c, quad, position), words[2];
  cmz_emit_restore(e, &saved);
  four_columns(e, c, depth, cmz_b_add(b, first, times(b, quad, QUAD)), position, words);
  if (!e->failed) store_pair(e, words[0], words[1], to);
}

/* Where there is less to stage than there are threads. */
static void stage_few(emitter *e, const contraction *c, uint32_t depth, MlirValue first,
                      uint32_t units) {
  cmz_builder *b = &e->b;
  MlirRegion regions[2];
  MlirBlock yes = cmz_b_region(&regions[0]), no = cmz_b_region(&regions[1]), here = b->block;
  cmz_emit_push(e, yes);
  e->guard_depth = e->depth;
  stage_unit(e, c, depth, first, 0, (MlirValue){NULL});
  e->guard_depth = 0;
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_yield(b, yes, NULL, 0);
  cmz_b_yield(b, no, NULL, 0);
  b->block = here;
  MlirValue own = cmz_b_icmp(b, CMZ_B_SLT, e->thread, cmz_b_i64(b, units));
  cmz_b_if(b, own, regions[0], regions[1], NULL, 0, NULL);
}

/* The stretch of columns from FIRST on, at all positions, a few at a time: more take registers from
 * the sums. DEPTH: the tile's scope. */
static void stage(emitter *e, const contraction *c, uint32_t depth, MlirValue first) {
  cmz_builder *b = &e->b;
  uint32_t units = e->s->step / QUAD * c->coded->positions, count = units / e->s->group;
  cmz_expr guard;
  uint32_t together = load_of_four(e, c, &guard) && !guard ? TOGETHER : 1;
  MlirValue none = {NULL};
  if (count == 0) {
    stage_few(e, c, depth, first, units);
    return;
  }
  if (count <= together) {
    for (uint32_t i = 0; i < count && !e->failed; i++) stage_unit(e, c, depth, first, i, none);
    return;
  }
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, NULL, 0, &loop);
  loop.rolled = true;
  cmz_emit_push(e, loop.body);
  for (uint32_t i = 0; i < together && !e->failed; i++)
    stage_unit(e, c, e->depth, first, i, loop.index);
  cmz_emit_pop(e);
  if (!e->failed)
    cmz_b_loop_close(b, &loop, cmz_b_i64(b, 0), cmz_b_i64(b, count), cmz_b_i64(b, together), NULL,
                     0, NULL);
}

/* ---- multiplying ---- */

/* The lane's own of the first line that the warp reads. */
static MlirValue first_line(emitter *e, const contraction *c) {
  cmz_builder *b = &e->b;
  const struct coded_state *s = c->coded;
  MlirValue position = remainder_of(e, divided(e, s->lane, 4), CMZ_MIN(s->positions, 8u));
  MlirValue at = cmz_b_add(b, times(b, position, LINE), times(b, remainder_of(e, s->lane, 4), 16));
  int64_t tile = (int64_t)s->width / 32 * s->positions * LINE;
  return cmz_b_address(b, b->i8, c->factors[1 - c->rows].base,
                       cmz_b_add(b, at, times(b, s->turn, tile)));
}

/* Two steps of a tile, from STEP on: the rows' registers, then eight positions after eight. SUMS
 * are those of the columns that share a scale; they are added to ACCS at the last of these. */
static void multiply_steps(emitter *e, const contraction *c, MlirValue line, const tile_words *t,
                           uint32_t step, MlirValue *sums, MlirValue *accs) {
  cmz_builder *b = &e->b;
  const struct coded_state *s = c->coded;
  uint32_t each = s->width / 16 / units_of(s);
  MlirValue rows[2][4], columns[4], zero = cmz_b_const(b, b->f32, 0);
  for (uint32_t i = 0; i < 2; i++) {
    centre less;
    find_centre(e, s, t, (step + i) / each, &less);
    decode(e, s, t, step + i, &less, rows[i]);
  }
  for (uint32_t at = 0; at < padded(s) / 8 && !e->failed; at++) {
    MlirValue *own = &sums[4 * at], *all = &accs[4 * at];
    load_words(e, cmz_b_address_const(b, b->i8, line, (int64_t)at * 8 * LINE), 4, false, columns);
    for (uint32_t i = 0; i < 2 && !e->failed; i++) {
      for (uint32_t j = 0; (step + i) % each == 0 && j < 4; j++) own[j] = zero;
      cmz_emit_tensor_multiply(
          e, (const cmz_dtype[]){(cmz_dtype)e->s->fragments, (cmz_dtype)e->s->fragments}, rows[i],
          &columns[2 * i], own);
      for (uint32_t j = 0; (step + i) % each == each - 1 && j < 4; j++)
        all[j] = cmz_b_fma(b, own[j], t->scales[(step + i) / each][j / 2], all[j]);
    }
  }
}

/* Adds tile INDEX, loaded as T, to ACCS. */
static void multiply_tile(emitter *e, const contraction *c, MlirValue line, uint32_t index,
                          const tile_words *t, MlirValue *accs) {
  const struct coded_state *s = c->coded;
  MlirValue sums[CMZ_EMIT_MAX_INSTANCES];
  for (uint32_t step = 0; step < s->width / 16 && !e->failed; step += 2) {
    int64_t lines = (int64_t)(index * s->turns * s->width + step * 16) / 32 * s->positions;
    MlirValue at = cmz_b_address_const(&e->b, e->b.i8, line, lines * LINE);
    multiply_steps(e, c, at, t, step, sums, accs);
  }
}

/* ---- the sums meet ---- */

static void store_sums(emitter *e, const contraction *c, const MlirValue *accs) {
  cmz_builder *b = &e->b;
  const struct coded_state *s = c->coded;
  uint32_t rows = c->factors[c->rows].positions;
  MlirValue row = cmz_b_add(b, times(b, s->panel, PANEL), times(b, divided(e, s->lane, 4), 2)),
            column = cmz_b_add(b, times(b, s->turn, padded(s)),
                               times(b, remainder_of(e, s->lane, 4), 2));
  MlirValue at = cmz_b_address(b, b->i8, c->factors[1 - c->rows].base,
                               times(b, cmz_b_add(b, times(b, column, rows), row), 4));
  for (uint32_t i = 0; i < padded(s) / 8; i++)
    for (uint32_t j = 0; j < 2; j++)
      store_pair(e, accs[4 * i + j], accs[4 * i + 2 + j],
                 cmz_b_address_const(b, b->i8, at, (int64_t)(i * 8 + j) * rows * 4));
}

/* The thread's own outputs. */
static void gather_sums(emitter *e, const contraction *c, MlirValue *out) {
  cmz_builder *b = &e->b;
  const struct coded_state *s = c->coded;
  uint32_t rows = c->factors[c->rows].positions, near = stores_rows(e, c) ? c->rows : 1 - c->rows,
           across = c->factors[near].positions;
  MlirValue places[2];
  places[near] = remainder_of(e, e->thread, across);
  places[1 - near] = remainder_of(e, divided(e, e->thread, across), c->factors[1 - near].positions);
  MlirValue at = cmz_b_address(b, b->f32, c->factors[1 - c->rows].base,
                               cmz_b_add(b, times(b, places[1 - c->rows], rows), places[c->rows]));
  for (uint32_t i = 0; i < c->instances; i++)
    for (uint32_t turn = 0; turn < s->turns; turn++) {
      int64_t offset =
          (int64_t)(turn * padded(s) + c->offsets[1 - c->rows][i]) * rows + c->offsets[c->rows][i];
      MlirValue v = cmz_b_load(b, b->f32, cmz_b_address_const(b, b->f32, at, offset), NULL, false);
      out[i] = turn ? cmz_b_add(b, out[i], v) : v;
    }
}

void cmz_emit_coded_steps(emitter *e, const contraction *c, MlirValue *out) {
  cmz_builder *b = &e->b;
  const struct coded_state *s = c->coded;
  uint32_t depth = e->depth, count = padded(s) / 2;
  MlirValue *initial = CMZ_NEW_ARRAY(e->arena, MlirValue, count),
            *accs = CMZ_NEW_ARRAY(e->arena, MlirValue, count);
  tile_words *tiles = CMZ_NEW_ARRAY(e->arena, tile_words, s->ahead);
  find_lane(e, c);
  if (e->failed) return;
  MlirValue line = first_line(e, c);
  for (uint32_t i = 0; i < count; i++) initial[i] = cmz_b_const(b, b->f32, 0);
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, initial, count, &loop);
  loop.rolled = true;
  memcpy(accs, loop.carried, count * sizeof *accs);
  cmz_emit_push(e, loop.body);
  MlirValue first = divided(e, loop.index, s->width);
  for (uint32_t i = 0; i < s->ahead && !e->failed; i++) load_tile(e, c, first, i, &tiles[i]);
  cmz_emit_group_barrier(e); /* nobody reads the stretch before any more, or the tile's sums */
  if (!e->failed) stage(e, c, depth, loop.index);
  cmz_emit_group_barrier(e);
  for (uint32_t i = 0; i < s->ahead && !e->failed; i++)
    multiply_tile(e, c, line, i, &tiles[i], accs);
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_loop_close(b, &loop, cmz_b_i64(b, 0), cmz_b_i64(b, s->w.columns), cmz_b_i64(b, e->s->step),
                   initial, count, accs);
  cmz_emit_group_barrier(e);
  store_sums(e, c, accs);
  cmz_emit_group_barrier(e);
  gather_sums(e, c, out);
}
