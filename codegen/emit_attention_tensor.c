/* emit_attention_tensor.c - attention's products on the matrix instructions of CUDA's warps.
 * In: a schedule with `fragments`; queries, keys and values that its type holds exactly. Out: a
 * warp computes 16 rows; keys and values lie in two buffers, filled in turn by cp.async where 16
 * bytes lie together; the queries' fragments stay in registers; powers go from the accumulators of
 * one product to the fragments of the next without leaving their lanes. Layouts: PTX ISA,
 * "mma.m16n8k16" and "ldmatrix": lane / 4 is a row, lane % 4 a pair of columns. Always holds:
 * powers are rounded to the fragments' type, which they never exceed; what does not exist is zero.
 */
#include "emit_attention.h"

enum { WARP = 32, SKEW = 16, CHUNK = 16, ELEMENT = 2, TOGETHER = 1 };

static uint32_t whole(int64_t extent) { return (uint32_t)((extent + 15) / 16 * 16); }

static uint32_t buffer_bytes(const staged *s) { return s->lines * s->memory.pitch; }

/* ---- preparing ---- */

/* Where the lane's line of the four 8x8 matrices of one ldmatrix begins: lines FIRST and the 15
 * after it. CROSSED: the second matrix is the next 8 lines, not the next 8 places. */
static MlirValue lane_line(emitter *e, const staged *s, MlirValue first, bool crossed) {
  cmz_builder *b = &e->b;
  MlirValue lane = cmz_emit_group_remainder(b, e->thread, WARP),
            low = cmz_emit_group_remainder(b, lane, 8),
            second = cmz_emit_group_remainder(b, cmz_emit_group_divided(b, lane, 8), 2),
            third = cmz_emit_group_divided(b, lane, 16);
  MlirValue line = cmz_b_add(b, cmz_attention_times(b, crossed ? second : third, 8), low),
            at = cmz_attention_times(b, crossed ? third : second, 8 * ELEMENT);
  if (first.ptr) line = cmz_b_add(b, line, first);
  return cmz_b_add(b, cmz_attention_times(b, line, s->memory.pitch), at);
}

static void declare(emitter *e, staged *s, cmz_expr x, uint16_t axis, uint32_t buffers,
                    uint32_t number) {
  s->memory.expr = x;
  s->axis = axis;
  s->memory.pitch = s->width * ELEMENT + SKEW;
  cmz_emit_group_declare(e, &s->memory, e->b.i8, buffers * buffer_bytes(s), number);
}

/* Rows and places of COUNT accumulators, four a tile of 16 by 8. */
static void place_accumulators(uint32_t count, uint8_t *row, uint32_t *rows, uint32_t *places) {
  for (uint32_t n = 0; n < count; n++) {
    row[n] = (uint8_t)(n % 4 / 2);
    rows[n] = n % 4 / 2 * 8;
    places[n] = n / 4 * 8 + n % 2;
  }
}

static bool prepare(emitter *e, contraction *c) {
  cmz_builder *b = &e->b;
  attention *a = c->attention;
  const factor *rows = &c->factors[0], *columns = &c->factors[1];
  MlirValue none = {NULL};
  if (rows->positions != e->s->group / WARP * 16 || columns->positions % 16 || e->s->step % 16)
    return false;
  a->across = 4;
  a->rows = 2;
  a->scores = e->s->step / 2u;
  a->sums = columns->positions / 2;
  if (CMZ_MAX(a->scores, a->sums) > CMZ_EMIT_MAX_INSTANCES) return false;
  place_accumulators(a->scores, a->score_row, a->score_offsets[0], a->score_offsets[1]);
  place_accumulators(a->sums, a->sum_row, c->offsets[0], c->offsets[1]);
  MlirValue lane = cmz_emit_group_remainder(b, e->thread, WARP),
            warp_row = cmz_attention_times(b, cmz_emit_group_divided(b, e->thread, WARP), 16);
  a->row = cmz_b_add(b, warp_row, cmz_emit_group_divided(b, lane, 4));
  a->column = cmz_attention_times(b, cmz_emit_group_remainder(b, lane, 4), 2);
  a->queries = (staged){.lines = rows->positions, .width = whole(a->depth)};
  a->keys = (staged){.lines = e->s->step, .width = whole(a->depth), .of_keys = true};
  a->values = (staged){.lines = e->s->step, .width = columns->positions, .of_keys = true};
  declare(e, &a->queries, a->is.query, a->depth_axis, 1, 0);
  declare(e, &a->keys, a->is.key, a->depth_axis, 2, 1);
  declare(e, &a->values, a->is.value, columns->axes[0], 2, 2);
  a->lines[0] = lane_line(e, &a->queries, warp_row, true);
  a->lines[1] = lane_line(e, &a->keys, none, false);
  a->lines[2] = lane_line(e, &a->values, none, true);
  a->fragments = CMZ_NEW_ARRAY(e->arena, MlirValue, a->queries.width / 16 * 4);
  return true;
}

/* ---- staging ---- */

/* Which of the two buffers of S the step that begins at FIRST is in; in bytes. */
static MlirValue buffer_of(emitter *e, const staged *s, MlirValue first) {
  cmz_builder *b = &e->b;
  MlirValue number = cmz_emit_group_remainder(b, cmz_emit_group_divided(b, first, e->s->step), 2);
  return cmz_attention_times(b, number, buffer_bytes(s));
}

static MlirValue place_of(emitter *e, const staged *s, MlirValue first, MlirValue line,
                          MlirValue bytes) {
  cmz_builder *b = &e->b;
  MlirValue at = cmz_b_add(b, cmz_attention_times(b, line, s->memory.pitch), bytes);
  if (s->of_keys) at = cmz_b_add(b, at, buffer_of(e, s, first));
  return cmz_b_address(b, b->i8, s->memory.base, at);
}

/* Two elements, number NUMBER of such. */
static void stage_word(emitter *e, const contraction *c, const staged *s, MlirValue first,
                       MlirValue number) {
  cmz_builder *b = &e->b;
  MlirValue line = cmz_attention_divided(b, number, s->width / 2),
            near = cmz_attention_remainder(b, number, s->width / 2), elements[2];
  for (uint32_t i = 0; i < 2; i++) {
    MlirValue condition = {NULL},
              at = cmz_b_add(b, cmz_attention_times(b, near, 2), cmz_b_i64(b, i));
    cmz_attention_bind(e, c, s, first, line, at, &condition);
    elements[i] = cmz_emit_group_element(e, &s->memory, c->type, condition);
    if (e->failed) return;
  }
  MlirValue word = cmz_emit_tensor_pair(e, elements[0], elements[1]);
  cmz_b_store(b, word, place_of(e, s, first, line, cmz_attention_times(b, near, 2 * ELEMENT)),
              NULL);
}

/* 16 bytes that lie together. */
static void stage_chunk(emitter *e, const contraction *c, const staged *s, MlirValue first,
                        MlirValue number) {
  cmz_builder *b = &e->b;
  uint32_t per = CHUNK / ELEMENT;
  MlirValue line = cmz_attention_divided(b, number, s->width / per),
            near = cmz_attention_remainder(b, number, s->width / per), condition = {NULL};
  cmz_attention_bind(e, c, s, first, line, cmz_attention_times(b, near, per), &condition);
  if (e->failed) return;
  cmz_emit_tensor_copy(e, s->memory.expr, condition,
                       place_of(e, s, first, line, cmz_attention_times(b, near, CHUNK)));
}

/* Whether S is a load of elements that lie 16 bytes together. */
static bool in_chunks(emitter *e, const staged *s) {
  const cmz_expr_node *n = &e->k->exprs.data[s->memory.expr];
  const uint32_t per = CHUNK / ELEMENT;
  int64_t extent;
  return n->op == CMZ_X_LOAD && e->k->operands.data[n->i].dtype == (cmz_dtype)e->s->fragments &&
         cmz_emit_extent(e, s->axis, &extent) && extent % per == 0 &&
         cmz_emit_contiguous(e, n->args[0], s->axis, per);
}

static void stage(emitter *e, const contraction *c, const staged *s, MlirValue first) {
  cmz_builder *b = &e->b;
  MlirRegion regions[2];
  MlirBlock blocks[2], here = b->block;
  if (e->failed) return;
  if (!in_chunks(e, s)) {
    cmz_attention_each(e, c, s, first, s->lines * s->width / 2, TOGETHER, stage_word);
    return;
  }
  MlirValue aligned = cmz_emit_tensor_is_aligned(e, (uint32_t)e->k->exprs.data[s->memory.expr].i);
  for (uint32_t r = 0; r < 2 && !e->failed; r++) {
    uint32_t units = s->lines * s->width / (r ? 2 : CHUNK / ELEMENT);
    blocks[r] = cmz_b_region(&regions[r]);
    cmz_emit_push(e, blocks[r]);
    cmz_attention_each(e, c, s, first, units, TOGETHER, r ? stage_word : stage_chunk);
    cmz_emit_pop(e);
    if (!e->failed) cmz_b_yield(b, blocks[r], NULL, 0);
  }
  b->block = here;
  if (!e->failed) cmz_b_if(b, aligned, regions[0], regions[1], NULL, 0, NULL);
}

static void stage_keys(emitter *e, const contraction *c, MlirValue first) {
  stage(e, c, &c->attention->keys, first);
  stage(e, c, &c->attention->values, first);
  cmz_b_intrinsic(&e->b, "llvm.nvvm.cp.async.commit.group", 0, NULL, (MlirType){NULL});
}

/* The four 8x8 matrices at line LINE and place AT of the lines that begin at FROM. */
static void load(emitter *e, const staged *s, MlirValue from, uint32_t line, uint32_t at,
                 bool crossed, MlirValue *out) {
  cmz_builder *b = &e->b;
  int64_t offset = (int64_t)line * s->memory.pitch + (int64_t)at * ELEMENT;
  cmz_emit_tensor_matrices(e, cmz_b_address_const(b, b->i8, from, offset), crossed, out);
}

static void begin(emitter *e, const contraction *c) {
  cmz_builder *b = &e->b;
  attention *a = c->attention;
  MlirValue zero = cmz_b_i64(b, 0);
  cmz_emit_group_barrier(e); /* nobody reads the tile before any more */
  stage(e, c, &a->queries, zero);
  stage_keys(e, c, zero);
  cmz_emit_tensor_wait(e);
  cmz_emit_group_barrier(e);
  if (e->failed) return;
  MlirValue from = cmz_b_address(b, b->i8, a->queries.memory.base, a->lines[0]);
  for (uint32_t k = 0; k < a->queries.width / 16; k++)
    load(e, &a->queries, from, 0, k * 16, false, &a->fragments[k * 4]);
}

/* The step is there; the next is begun. */
static void stage_next(emitter *e, const contraction *c, MlirValue first) {
  cmz_emit_tensor_wait(e);
  cmz_emit_group_barrier(e);
  stage_keys(e, c, cmz_b_add(&e->b, first, cmz_b_i64(&e->b, e->s->step)));
}

/* The last step has begun one more, of nothing. */
static void end(emitter *e, const contraction *c) {
  (void)c;
  cmz_emit_tensor_wait(e);
}

/* ---- products ---- */

static MlirValue lines_of(emitter *e, const attention *a, const staged *s, uint32_t number,
                          MlirValue first) {
  cmz_builder *b = &e->b;
  return cmz_b_address(b, b->i8, s->memory.base,
                       cmz_b_add(b, a->lines[number], buffer_of(e, s, first)));
}

static void multiply_keys(emitter *e, const contraction *c, MlirValue first, MlirValue *scores) {
  const attention *a = c->attention;
  const cmz_dtype types[2] = {(cmz_dtype)e->s->fragments, (cmz_dtype)e->s->fragments};
  MlirValue from = lines_of(e, a, &a->keys, 1, first), keys[4];
  for (uint32_t k = 0; k < a->keys.width / 16; k++)
    for (uint32_t j = 0; j < e->s->step / 16u && !e->failed; j++) {
      load(e, &a->keys, from, j * 16, k * 16, false, keys);
      for (uint32_t half = 0; half < 2 && !e->failed; half++)
        cmz_emit_tensor_multiply(e, types, &a->fragments[k * 4], &keys[half * 2],
                                 &scores[(j * 2 + half) * 4]);
    }
}

static void multiply_values(emitter *e, const contraction *c, MlirValue first,
                            const MlirValue *powers, MlirValue *sums) {
  const attention *a = c->attention;
  const cmz_dtype types[2] = {(cmz_dtype)e->s->fragments, (cmz_dtype)e->s->fragments};
  MlirValue from = lines_of(e, a, &a->values, 2, first), rows[4], values[4];
  for (uint32_t k = 0; k < e->s->step / 16u; k++) {
    for (uint32_t i = 0; i < 4; i++) /* two tiles of 8 keys, of each the upper and the lower rows */
      rows[i] = cmz_emit_tensor_pair(e, powers[k * 8 + i * 2], powers[k * 8 + i * 2 + 1]);
    for (uint32_t n = 0; n < a->values.width / 16 && !e->failed; n++) {
      load(e, &a->values, from, k * 16, n * 16, true, values);
      for (uint32_t half = 0; half < 2 && !e->failed; half++)
        cmz_emit_tensor_multiply(e, types, rows, &values[half * 2], &sums[(n * 2 + half) * 4]);
    }
  }
}

const attention_form cmz_attention_tensor = {.prepare = prepare,
                                             .begin = begin,
                                             .end = end,
                                             .stage = stage_next,
                                             .multiply_keys = multiply_keys,
                                             .multiply_values = multiply_values};
