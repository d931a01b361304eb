/* emit_attention.c - attention by the threads of a GPU's work-group, without storing scores.
 * In: a kernel that kernel_attention.c knows, under a schedule with `group`. Out: per grid tile,
 * the queries staged once; then a walk over the keys in steps: keys and values are staged, every
 * thread multiplies its part of the scores, rows agree on their greatest so far, what was summed up
 * before is scaled to it, and powers times values are added. Method: Dao et al., "FlashAttention",
 * 2022. Always holds: a row belongs to a power of two of neighbouring threads; all threads of a
 * group meet at every barrier; sums are f32; what does not exist is staged as zero and scored as
 * -infinity. */
#include "emit_group.h"

#include <math.h>

#define TOGETHER 4u /* elements of a thread staged side by side */

/* What is staged as lines in the group's memory. */
typedef struct staged {
  factor memory;
  uint32_t lines, width;
  uint16_t axis; /* along a line */
  bool of_keys;  /* lines are keys; else rows */
  bool crossing; /* neighbours in memory are neighbouring lines */
} staged;

struct attention {
  cmz_attention is;
  staged queries, keys, values;
  factor powers, exchange;
  bool alone;                   /* a thread computes a row by itself: nothing is staged */
  uint32_t across;              /* threads that share a row, side by side along keys and columns */
  uint32_t high;                /* threads along the rows */
  uint32_t rows, step, columns; /* a thread's, of a tile, of a step and of the values */
  int64_t depth;
  MlirValue row, column; /* of the thread */
};
typedef struct attention attention;

/* What a walk carries from step to step: sums, greatest scores, sums of powers. */
typedef struct walk {
  uint32_t sums, rows;
  MlirValue *all; /* sums of products, then the greatest, then the sums of powers, by row */
} walk;

static MlirValue *greatest_of(const walk *w) { return w->all + w->sums; }
static MlirValue *totals_of(const walk *w) { return w->all + w->sums + w->rows; }

static void use_memory(cmz_builder *b, const factor *f) {
  b->buffer = (cmz_b_buffer){.windows = &f->memory, .count = 1};
}

/* ---- preparing ---- */

static void declare(emitter *e, factor *f, uint32_t lines, uint32_t width, uint32_t number) {
  f->pitch = width | 1; /* odd: neither direction meets one bank only */
  cmz_emit_group_declare(e, f, e->b.f32, lines * f->pitch, number);
}

static void declare_staged(emitter *e, staged *s, cmz_expr x, uint16_t axis, uint16_t line_axis,
                           uint32_t number) {
  s->memory.expr = x;
  s->axis = axis;
  s->crossing = cmz_emit_group_along(e, x, line_axis) && !cmz_emit_group_along(e, x, axis);
  declare(e, &s->memory, s->lines, s->width, number);
}

/* Sorts the tile's axes into rows and columns. */
static void find_axes(emitter *e, contraction *c, const cmz_attention *is) {
  for (uint32_t i = 0; i < 2; i++) c->factors[i] = (factor){.positions = 1};
  for (uint32_t i = 0; i < c->store->axis_count; i++) {
    uint16_t axis = c->axes[i];
    factor *f = &c->factors[axis_set_has(&e->info[is->value].free, axis)];
    if (e->s->axes[axis].tile < 2) continue;
    f->axes[f->axis_count++] = axis;
    f->positions *= e->s->axes[axis].tile;
  }
}

static void place_thread(emitter *e, contraction *c, const attention *a) {
  const factor *rows = &c->factors[0];
  uint32_t stride = 1;
  for (uint32_t i = rows->axis_count; i-- > 0; stride *= e->s->axes[rows->axes[i]].tile)
    c->coordinate[rows->axes[i]] = cmz_emit_group_remainder(
        &e->b, cmz_emit_group_divided(&e->b, a->row, stride), e->s->axes[rows->axes[i]].tile);
  c->coordinate[c->factors[1].axes[0]] = a->column;
  for (uint32_t n = 0; n < c->instances; n++) {
    c->offsets[0][n] = n / a->columns * a->high;
    c->offsets[1][n] = n % a->columns * a->across;
  }
}

static void declare_all(emitter *e, const contraction *c, attention *a, uint16_t depth) {
  const factor *rows = &c->factors[0], *columns = &c->factors[1];
  a->queries = (staged){.lines = rows->positions, .width = (uint32_t)a->depth};
  a->keys = (staged){.lines = e->s->step, .width = (uint32_t)a->depth, .of_keys = true};
  a->values = (staged){.lines = e->s->step, .width = columns->positions, .of_keys = true};
  declare_staged(e, &a->queries, a->is.query, depth, rows->axes[rows->axis_count - 1], 0);
  declare_staged(e, &a->keys, a->is.key, depth, a->is.keys, 1);
  declare_staged(e, &a->values, a->is.value, columns->axes[0], a->is.keys, 2);
  declare(e, &a->powers, rows->positions, e->s->step, 3);
  if (e->b.cpu->spirv) declare(e, &a->exchange, rows->positions, a->across, 4);
}

/* Whether the tile divides among the threads; sets how many of everything each has. */
static bool share_tile(emitter *e, contraction *c, attention *a) {
  const factor *rows = &c->factors[0], *columns = &c->factors[1];
  uint16_t depth = e->k->exprs.data[a->is.product].axes[0];
  a->alone = e->s->group == 0;
  if (columns->axis_count != 1 || !cmz_emit_extent(e, depth, &a->depth)) return false;
  a->across = CMZ_MAX(e->s->axes[columns->axes[0]].threads, 1u);
  a->high = a->alone ? 1 : e->s->group / a->across;
  if ((rows->axis_count == 0) != a->alone || rows->positions % a->high ||
      columns->positions % a->across || e->s->step % a->across)
    return false;
  a->rows = rows->positions / a->high;
  a->step = e->s->step / a->across;
  a->columns = columns->positions / a->across;
  c->instances = a->rows * a->columns;
  return c->instances <= CMZ_EMIT_MAX_INSTANCES;
}

bool cmz_emit_attention_prepare(emitter *e, contraction *c) {
  cmz_builder *b = &e->b;
  attention *a = CMZ_NEW(e->arena, attention);
  if (!cmz_kernel_attention(e->k, &a->is)) return false;
  c->attention = a;
  c->reduce = a->is.sum;
  c->node = &e->k->exprs.data[c->reduce];
  c->type = b->f32;
  find_axes(e, c, &a->is);
  if (!share_tile(e, c, a)) {
    cmz_emit_fail(e, "a schedule that does not suit attention");
    return true;
  }
  a->row = a->column = cmz_b_i64(b, 0);
  if (!a->alone) {
    a->row = cmz_emit_group_divided(b, e->thread, a->across);
    a->column = cmz_emit_group_remainder(b, e->thread, a->across);
    declare_all(e, c, a, e->k->exprs.data[a->is.product].axes[0]);
  }
  place_thread(e, c, a);
  return true;
}

/* ---- staging ---- */

static MlirValue divided(cmz_builder *b, MlirValue v, uint32_t by) {
  if (!(by & (by - 1))) return cmz_emit_group_divided(b, v, by);
  return cmz_b_2(b, "arith.divui", v, cmz_b_i64(b, by));
}
static MlirValue remainder_of(cmz_builder *b, MlirValue v, uint32_t by) {
  if (!(by & (by - 1))) return cmz_emit_group_remainder(b, v, by);
  return cmz_b_2(b, "arith.remui", v, cmz_b_i64(b, by));
}

static MlirValue keys_end(emitter *e, const attention *a) {
  return cmz_emit_value(e, e->k->axes.data[a->is.keys].extent);
}

/* Stages element NUMBER of S. FIRST: the step's first key. */
static void stage_element(emitter *e, const contraction *c, const staged *s, MlirValue first,
                          MlirValue number) {
  cmz_builder *b = &e->b;
  const attention *a = c->attention;
  static const factor none = {.positions = 1};
  MlirValue condition = {NULL}, near = remainder_of(b, number, s->crossing ? s->lines : s->width),
            far = divided(b, number, s->crossing ? s->lines : s->width);
  MlirValue line = s->crossing ? near : far, at = s->crossing ? far : near;
  int64_t extent;
  cmz_emit_group_bind(e, c, s->of_keys ? &none : &c->factors[0], line, e->depth, &condition);
  if (s->of_keys) {
    MlirValue key = cmz_b_add(b, first, line);
    cmz_emit_bind(e, a->is.keys, key, 0, 1, 1);
    if (!cmz_emit_extent(e, a->is.keys, &extent) || extent % e->s->step != 0)
      cmz_emit_group_conjoin(b, &condition, cmz_b_icmp(b, CMZ_B_SLT, key, keys_end(e, a)));
  }
  cmz_emit_bind(e, s->axis, at, 0, 1, 1);
  if (!cmz_emit_extent(e, s->axis, &extent) || extent != s->width)
    cmz_emit_group_conjoin(b, &condition, cmz_b_icmp(b, CMZ_B_SLT, at, cmz_b_i64(b, extent)));
  MlirValue v = cmz_emit_group_element(e, &s->memory, c->type, condition);
  if (e->failed) return;
  MlirValue place = cmz_b_add(b, cmz_b_mul(b, line, cmz_b_i64(b, s->memory.pitch)), at);
  use_memory(b, &s->memory);
  cmz_b_store(b, v, cmz_b_address(b, c->type, s->memory.base, place), NULL);
}

static void stage(emitter *e, const contraction *c, const staged *s, MlirValue first) {
  cmz_builder *b = &e->b;
  uint32_t total = s->lines * s->width, together = TOGETHER;
  cmz_b_loop loop;
  while (together > 1 && total % (together * e->s->group) != 0) together /= 2;
  cmz_b_loop_open(b, e->arena, NULL, 0, &loop);
  cmz_emit_push(e, loop.body);
  for (uint32_t i = 0; i < together && !e->failed; i++)
    stage_element(e, c, s, first, cmz_b_add(b, loop.index, cmz_b_i64(b, (int64_t)i * e->s->group)));
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_loop_close(b, &loop, e->thread, cmz_b_i64(b, total),
                   cmz_b_i64(b, (int64_t)together * e->s->group), NULL, 0, NULL);
}

/* ---- products of what is staged ---- */

/* Lines of the group's memory as one side of a product: COUNT of them, APART elements apart, from
 * OWN; iterations NEXT elements apart. */
typedef struct lines {
  const factor *memory;
  MlirValue own;
  uint32_t count, apart, next;
} lines;

static MlirValue line_load(emitter *e, const lines *l, MlirValue from, uint32_t line, uint32_t i) {
  cmz_builder *b = &e->b;
  use_memory(b, l->memory);
  MlirValue at =
      cmz_b_address_const(b, b->f32, from, (int64_t)line * l->apart + (int64_t)i * l->next);
  return cmz_b_load(b, b->f32, at, NULL, false);
}

/* SUMS[i][j] += the sum of LEFT i times RIGHT j over ITERATIONS. */
static void multiply(emitter *e, const lines *left, const lines *right, uint32_t iterations,
                     MlirValue *sums) {
  cmz_builder *b = &e->b;
  uint32_t count = left->count * right->count, together = 8;
  MlirValue *carried = CMZ_NEW_ARRAY(e->arena, MlirValue, count);
  MlirValue *sides = CMZ_NEW_ARRAY(e->arena, MlirValue, left->count + right->count);
  const lines *const both[2] = {left, right};
  while (iterations % together != 0) together /= 2;
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, sums, count, &loop);
  memcpy(carried, loop.carried, count * sizeof *carried);
  cmz_emit_push(e, loop.body);
  MlirValue from[2];
  for (uint32_t s = 0; s < 2; s++) {
    MlirValue at = cmz_b_mul(b, loop.index, cmz_b_i64(b, both[s]->next));
    from[s] = cmz_b_address(b, b->f32, both[s]->memory->base, cmz_b_add(b, both[s]->own, at));
  }
  for (uint32_t i = 0; i < together; i++) {
    for (uint32_t s = 0; s < 2; s++)
      for (uint32_t l = 0; l < both[s]->count; l++)
        sides[s * left->count + l] = line_load(e, both[s], from[s], l, i);
    for (uint32_t n = 0; n < count; n++)
      carried[n] =
          cmz_b_fma(b, sides[n / right->count], sides[left->count + n % right->count], carried[n]);
  }
  cmz_emit_pop(e);
  MlirValue *initial = CMZ_NEW_ARRAY(e->arena, MlirValue, count);
  memcpy(initial, sums, count * sizeof *initial);
  memcpy(sums, carried, count * sizeof *sums);
  cmz_b_loop_close(b, &loop, cmz_b_i64(b, 0), cmz_b_i64(b, iterations), cmz_b_i64(b, together),
                   initial, count, sums);
}

static MlirValue times(cmz_builder *b, MlirValue v, uint32_t by) {
  return cmz_b_mul(b, v, cmz_b_i64(b, by));
}

/* SCORES of a thread alone: its row's products with the keys that are bound. */
static void multiply_keys_alone(emitter *e, const attention *a, MlirValue *scores) {
  cmz_builder *b = &e->b;
  uint16_t depth = e->k->exprs.data[a->is.product].axes[0];
  uint32_t together = 4;
  while (a->depth % together != 0) together /= 2;
  MlirValue *initial = CMZ_NEW_ARRAY(e->arena, MlirValue, a->step);
  memcpy(initial, scores, a->step * sizeof *initial);
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, initial, a->step, &loop);
  memcpy(scores, loop.carried, a->step * sizeof *scores);
  cmz_emit_push(e, loop.body);
  axis_state *along = cmz_emit_bind(e, depth, loop.index, 0, together, 1);
  for (uint32_t i = 0; i < together && !e->failed; i++) {
    along->offset = i;
    MlirValue query = cmz_emit_value(e, a->is.query);
    for (uint32_t j = 0; j < a->step && !e->failed; j++) {
      e->axes[a->is.keys].offset = j;
      MlirValue key = cmz_emit_value(e, a->is.key);
      if (!e->failed) scores[j] = cmz_b_fma(b, query, key, scores[j]);
    }
  }
  along->bound = false;
  cmz_emit_pop(e);
  if (!e->failed)
    cmz_b_loop_close(b, &loop, cmz_b_i64(b, 0), cmz_b_i64(b, a->depth), cmz_b_i64(b, together),
                     initial, a->step, scores);
}

/* SUMS of a thread alone: the values of the keys that are bound, times POWERS. */
static void multiply_values_alone(emitter *e, const contraction *c, const MlirValue *powers,
                                  MlirValue *sums) {
  const attention *a = c->attention;
  for (uint32_t j = 0; j < a->step; j++) {
    e->axes[a->is.keys].offset = j;
    for (uint32_t n = 0; n < a->columns && !e->failed; n++) {
      e->axes[c->factors[1].axes[0]].offset = n;
      MlirValue v = cmz_emit_value(e, a->is.value);
      if (!e->failed) sums[n] = cmz_b_fma(&e->b, powers[j], v, sums[n]);
    }
  }
  e->axes[c->factors[1].axes[0]].offset = 0;
}

static void multiply_keys(emitter *e, const attention *a, MlirValue *scores) {
  const factor *q = &a->queries.memory, *k = &a->keys.memory;
  lines left = {q, times(&e->b, a->row, q->pitch), a->rows, a->high * q->pitch, 1};
  lines right = {k, times(&e->b, a->column, k->pitch), a->step, a->across * k->pitch, 1};
  multiply(e, &left, &right, (uint32_t)a->depth, scores);
}

static void multiply_values(emitter *e, const attention *a, MlirValue *sums) {
  const factor *p = &a->powers, *v = &a->values.memory;
  lines left = {p, times(&e->b, a->row, p->pitch), a->rows, a->high * p->pitch, 1};
  lines right = {v, a->column, a->columns, a->across, v->pitch};
  multiply(e, &left, &right, e->s->step, sums);
}

/* ---- scores ---- */

/* Binds the store's axes at the thread's own first element, and the keys at its first of the step.
 */
static void bind_own(emitter *e, const contraction *c, MlirValue first) {
  const attention *a = c->attention;
  for (uint32_t i = 0; i < c->store->axis_count; i++) {
    uint16_t axis = c->axes[i];
    cmz_emit_bind(e, axis, cmz_b_add(&e->b, c->low[axis], c->coordinate[axis]), 0,
                  e->s->axes[axis].tile, 1);
  }
  axis_state *keys =
      cmz_emit_bind(e, a->is.keys, cmz_b_add(&e->b, first, a->column), 0, e->s->step, 1);
  if (!a->alone) return;
  keys->clamped = true; /* what lies past the end is read as the last, and not taken */
  keys->last = cmz_b_sub(&e->b, keys_end(e, a), cmz_b_i64(&e->b, 1));
}

/* Joins to *CONDITION that the present instance of AXIS, in tiles of TILE, exists. */
static void check_end(emitter *e, uint16_t axis, uint32_t tile, MlirValue *condition) {
  cmz_builder *b = &e->b;
  const axis_state *s = &e->axes[axis];
  int64_t extent;
  if (cmz_emit_extent(e, axis, &extent) && extent % tile == 0) return;
  MlirValue end = cmz_emit_value(e, e->k->axes.data[axis].extent);
  MlirValue at = cmz_b_add(b, s->base, cmz_b_i64(b, s->offset));
  if (!e->failed) cmz_emit_group_conjoin(b, condition, cmz_b_icmp(b, CMZ_B_SLT, at, end));
}

/* The score at the present binding, whose sum of products is PRODUCT; -infinity where CONDITION
 * (may be null) is false. */
static MlirValue score_here(emitter *e, const attention *a, MlirValue product,
                            MlirValue condition) {
  cmz_builder *b = &e->b;
  MlirValue none = cmz_b_float(b, b->f32, -INFINITY);
  e->guard_depth = e->depth;
  if (condition.ptr) {
    e->guarded = true;
    e->guard = condition;
    e->guard_id = ++e->next_id;
  }
  cmz_emit_remember(e, cmz_emit_key(e, a->is.product), e->depth, product);
  MlirValue v = cmz_emit_value(e, a->is.score);
  if (a->is.bias && !e->failed) {
    MlirValue bias = cmz_emit_value(e, a->is.bias);
    if (!e->failed) v = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, bias, none), none, v);
  }
  e->guarded = false;
  e->guard_depth = 0;
  return e->failed || !condition.ptr ? v : cmz_b_select(b, condition, v, none);
}

/* Products become scores. */
static void finish_scores(emitter *e, const contraction *c, MlirValue *scores) {
  const attention *a = c->attention;
  const factor *rows = &c->factors[0];
  for (uint32_t n = 0; n < a->rows * a->step && !e->failed; n++) {
    MlirValue condition = {NULL};
    uint32_t rest = n / a->step * a->high;
    for (uint32_t i = rows->axis_count; i-- > 0; rest /= e->s->axes[rows->axes[i]].tile) {
      e->axes[rows->axes[i]].offset = rest % e->s->axes[rows->axes[i]].tile;
      check_end(e, rows->axes[i], e->s->axes[rows->axes[i]].tile, &condition);
    }
    e->axes[a->is.keys].offset = n % a->step * a->across;
    check_end(e, a->is.keys, e->s->step, &condition);
    if (!e->failed) scores[n] = score_here(e, a, scores[n], condition);
  }
}

/* ---- rows ---- */

static MlirValue joined(cmz_builder *b, bool greatest, MlirValue x, MlirValue y) {
  return greatest ? cmz_b_max(b, x, y, true) : cmz_b_add(b, x, y);
}

static MlirValue shuffled(cmz_builder *b, MlirValue v, uint32_t distance) {
  MlirValue operands[] = {cmz_b_int(b, b->i32, -1), v, cmz_b_int(b, b->i32, distance),
                          cmz_b_int(b, b->i32, 31)};
  return cmz_b_intrinsic(b, "llvm.nvvm.shfl.sync.bfly.f32", 4, operands, b->f32);
}

/* Each row's VALUES, of all threads that it belongs to, become their greatest or their sum. */
static void join_rows(emitter *e, const attention *a, bool greatest, MlirValue *values) {
  cmz_builder *b = &e->b;
  const factor *x = &a->exchange;
  if (a->across == 1) return;
  if (!b->cpu->spirv) {
    for (uint32_t i = 0; i < a->rows; i++)
      for (uint32_t distance = a->across / 2; distance; distance /= 2)
        values[i] = joined(b, greatest, values[i], shuffled(b, values[i], distance));
    return;
  }
  MlirValue own = cmz_b_address(b, b->f32, x->base, times(b, a->row, x->pitch));
  MlirValue mine = cmz_b_address(b, b->f32, own, a->column);
  use_memory(b, x);
  for (uint32_t i = 0; i < a->rows; i++)
    cmz_b_store(b, values[i], cmz_b_address_const(b, b->f32, mine, (int64_t)i * a->high * x->pitch),
                NULL);
  cmz_emit_group_barrier(e);
  lines l = {x, own, a->rows, a->high * x->pitch, 1};
  for (uint32_t i = 0; i < a->rows; i++) {
    values[i] = line_load(e, &l, own, i, 0);
    for (uint32_t t = 1; t < a->across; t++)
      values[i] = joined(b, greatest, values[i], line_load(e, &l, own, i, t));
  }
}

/* X, or zero where it is -infinity: a row without keys so far. */
static MlirValue finite_top(cmz_builder *b, MlirValue x) {
  MlirValue none = cmz_b_float(b, b->f32, -INFINITY);
  return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, x, none), cmz_b_const(b, b->f32, 0), x);
}

/* Scores become powers; what was summed up before is scaled to the rows' new greatest. */
static void take_powers(emitter *e, const attention *a, MlirValue *scores, walk *w) {
  cmz_builder *b = &e->b;
  MlirValue *tops = CMZ_NEW_ARRAY(e->arena, MlirValue, a->rows);
  MlirValue *greatest = greatest_of(w), *totals = totals_of(w);
  for (uint32_t i = 0; i < a->rows; i++) {
    tops[i] = scores[i * a->step];
    for (uint32_t j = 1; j < a->step; j++)
      tops[i] = cmz_b_max(b, tops[i], scores[i * a->step + j], true);
  }
  join_rows(e, a, true, tops);
  for (uint32_t i = 0; i < a->rows; i++) {
    MlirValue now = cmz_b_max(b, greatest[i], tops[i], true), top = finite_top(b, now);
    MlirValue scale = cmz_b_math(b, CMZ_X_EXP, cmz_b_sub(b, greatest[i], top));
    greatest[i] = now;
    totals[i] = cmz_b_mul(b, totals[i], scale);
    for (uint32_t j = 0; j < a->step; j++) {
      MlirValue *score = &scores[i * a->step + j];
      *score = cmz_b_math(b, CMZ_X_EXP, cmz_b_sub(b, *score, top));
      totals[i] = cmz_b_add(b, totals[i], *score);
    }
    for (uint32_t j = 0; j < a->columns; j++)
      w->all[i * a->columns + j] = cmz_b_mul(b, w->all[i * a->columns + j], scale);
  }
}

static void store_powers(emitter *e, const attention *a, const MlirValue *powers) {
  cmz_builder *b = &e->b;
  const factor *p = &a->powers;
  MlirValue own = cmz_b_add(b, times(b, a->row, p->pitch), a->column);
  MlirValue at = cmz_b_address(b, b->f32, p->base, own);
  use_memory(b, p);
  for (uint32_t n = 0; n < a->rows * a->step; n++)
    cmz_b_store(b, powers[n],
                cmz_b_address_const(b, b->f32, at,
                                    (int64_t)(n / a->step) * a->high * p->pitch +
                                        (int64_t)(n % a->step) * a->across),
                NULL);
}

/* ---- the walk ---- */

/* Stages the step; all threads are past the one before. */
static void stage_step(emitter *e, const contraction *c, MlirValue first) {
  cmz_emit_group_barrier(e);
  stage(e, c, &c->attention->keys, first);
  if (!e->failed) stage(e, c, &c->attention->values, first);
  cmz_emit_group_barrier(e);
}

static void one_step(emitter *e, const contraction *c, MlirValue first, walk *w) {
  const attention *a = c->attention;
  MlirValue *scores = CMZ_NEW_ARRAY(e->arena, MlirValue, a->rows * a->step);
  if (!a->alone) stage_step(e, c, first);
  if (e->failed) return;
  bind_own(e, c, first);
  for (uint32_t i = 0; i < a->rows * a->step; i++) scores[i] = cmz_b_const(&e->b, e->b.f32, 0);
  if (a->alone) multiply_keys_alone(e, a, scores);
  else multiply_keys(e, a, scores);
  if (!e->failed) finish_scores(e, c, scores);
  if (e->failed) return;
  take_powers(e, a, scores, w);
  if (a->alone) {
    multiply_values_alone(e, c, scores, w->all);
    e->axes[a->is.keys].clamped = false;
    return;
  }
  store_powers(e, a, scores);
  cmz_emit_group_barrier(e);
  multiply_values(e, a, w->all);
}

/* Sums over all keys, divided by the rows' sums of powers. */
static void finish_rows(emitter *e, const attention *a, const walk *w, MlirValue *accs) {
  cmz_builder *b = &e->b;
  MlirValue zero = cmz_b_const(b, b->f32, 0), one = cmz_b_const(b, b->f32, 1);
  MlirValue *totals = totals_of(w);
  join_rows(e, a, false, totals);
  for (uint32_t i = 0; i < a->rows; i++) {
    MlirValue divisor = totals[i], dead = {NULL};
    if (a->is.zero)
      divisor = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, divisor, zero), one, divisor);
    if (a->is.not_nan) /* true of NaN and of zero alike */
      dead = cmz_b_2(b, "arith.xori", cmz_b_fcmp(b, CMZ_B_OGT, totals[i], zero),
                     cmz_b_int(b, b->i1, -1));
    for (uint32_t j = 0; j < a->columns; j++) {
      MlirValue v = cmz_b_2(b, "arith.divf", w->all[i * a->columns + j], divisor);
      accs[i * a->columns + j] = dead.ptr ? cmz_b_select(b, dead, zero, v) : v;
    }
  }
}

void cmz_emit_attention_steps(emitter *e, const contraction *c, MlirValue *accs) {
  cmz_builder *b = &e->b;
  const attention *a = c->attention;
  walk w = {c->instances, a->rows, NULL};
  uint32_t count = c->instances + 2 * a->rows;
  MlirValue end = keys_end(e, a), zero = cmz_b_i64(b, 0);
  MlirValue *initial = CMZ_NEW_ARRAY(e->arena, MlirValue, count);
  w.all = CMZ_NEW_ARRAY(e->arena, MlirValue, count);
  for (uint32_t i = 0; i < count; i++) initial[i] = cmz_b_const(b, b->f32, 0);
  for (uint32_t i = 0; i < a->rows; i++) initial[w.sums + i] = cmz_b_float(b, b->f32, -INFINITY);
  if (e->failed) return;
  if (!a->alone) {
    cmz_emit_group_barrier(e); /* nobody reads the tile before any more */
    stage(e, c, &a->queries, zero);
  }
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, initial, count, &loop);
  memcpy(w.all, loop.carried, count * sizeof *w.all);
  cmz_emit_push(e, loop.body);
  one_step(e, c, loop.index, &w);
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_loop_close(b, &loop, zero, end, cmz_b_i64(b, e->s->step), initial, count, w.all);
  finish_rows(e, a, &w, accs);
}
