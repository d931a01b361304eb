/* emit_attention_group.c - attention's products by register tiles of scalars.
 * In: a schedule whose threads lie ACROSS a row and HIGH over the rows. Out: queries staged once a
 * tile, keys and values each step, powers exchanged through the group's memory. Always holds: lines
 * are an odd number of elements apart; what does not exist is staged as zero. */
#include "emit_attention.h"

#define TOGETHER 4u /* elements of a thread staged side by side */

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

static void declare_all(emitter *e, const contraction *c, attention *a) {
  const factor *rows = &c->factors[0], *columns = &c->factors[1];
  a->queries = (staged){.lines = rows->positions, .width = (uint32_t)a->depth};
  a->keys = (staged){.lines = e->s->step, .width = (uint32_t)a->depth, .of_keys = true};
  a->values = (staged){.lines = e->s->step, .width = columns->positions, .of_keys = true};
  declare_staged(e, &a->queries, a->is.query, a->depth_axis, rows->axes[rows->axis_count - 1], 0);
  declare_staged(e, &a->keys, a->is.key, a->depth_axis, a->is.keys, 1);
  declare_staged(e, &a->values, a->is.value, columns->axes[0], a->is.keys, 2);
  declare(e, &a->powers, rows->positions, e->s->step, 3);
  if (e->b.cpu->spirv) declare(e, &a->exchange, rows->positions, a->across, 4);
}

static bool prepare(emitter *e, contraction *c) {
  attention *a = c->attention;
  const factor *rows = &c->factors[0], *columns = &c->factors[1];
  a->across = CMZ_MAX(e->s->axes[columns->axes[0]].threads, 1u);
  a->high = e->s->group / a->across;
  if (rows->axis_count == 0 || rows->positions % a->high || columns->positions % a->across ||
      e->s->step % a->across)
    return false;
  a->rows = rows->positions / a->high;
  a->step = e->s->step / a->across;
  a->columns = columns->positions / a->across;
  a->scores = a->rows * a->step;
  a->sums = a->rows * a->columns;
  if (CMZ_MAX(a->scores, a->sums) > CMZ_EMIT_MAX_INSTANCES) return false;
  a->row = cmz_emit_group_divided(&e->b, e->thread, a->across);
  a->column = cmz_emit_group_remainder(&e->b, e->thread, a->across);
  for (uint32_t n = 0; n < a->scores; n++) {
    a->score_row[n] = (uint8_t)(n / a->step);
    a->score_offsets[0][n] = n / a->step * a->high;
    a->score_offsets[1][n] = n % a->step * a->across;
  }
  for (uint32_t n = 0; n < a->sums; n++) {
    a->sum_row[n] = (uint8_t)(n / a->columns);
    c->offsets[0][n] = n / a->columns * a->high;
    c->offsets[1][n] = n % a->columns * a->across;
  }
  declare_all(e, c, a);
  return true;
}

/* ---- staging ---- */

/* Stages element NUMBER of S. FIRST: the step's first key. */
static void stage_element(emitter *e, const contraction *c, const staged *s, MlirValue first,
                          MlirValue number) {
  cmz_builder *b = &e->b;
  uint32_t side = s->crossing ? s->lines : s->width;
  MlirValue condition = {NULL}, near = cmz_attention_remainder(b, number, side),
            far = cmz_attention_divided(b, number, side);
  MlirValue line = s->crossing ? near : far, at = s->crossing ? far : near;
  cmz_attention_bind(e, c, s, first, line, at, &condition);
  MlirValue v = cmz_emit_group_element(e, &s->memory, c->type, condition);
  if (e->failed) return;
  MlirValue place = cmz_b_add(b, cmz_attention_times(b, line, s->memory.pitch), at);
  cmz_attention_use(b, &s->memory);
  cmz_b_store(b, v, cmz_b_address(b, c->type, s->memory.base, place), NULL);
}

static void stage(emitter *e, const contraction *c, const staged *s, MlirValue first) {
  if (!e->failed) cmz_attention_each(e, c, s, first, s->lines * s->width, TOGETHER, stage_element);
}

static void begin(emitter *e, const contraction *c) {
  cmz_emit_group_barrier(e); /* nobody reads the tile before any more */
  stage(e, c, &c->attention->queries, cmz_b_i64(&e->b, 0));
}

static void stage_step(emitter *e, const contraction *c, MlirValue first) {
  cmz_emit_group_barrier(e); /* nobody reads the step before any more */
  stage(e, c, &c->attention->keys, first);
  stage(e, c, &c->attention->values, first);
  cmz_emit_group_barrier(e);
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
  cmz_attention_use(b, l->memory);
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

static void multiply_keys(emitter *e, const contraction *c, MlirValue first, MlirValue *scores) {
  const attention *a = c->attention;
  const factor *q = &a->queries.memory, *k = &a->keys.memory;
  lines left = {q, cmz_attention_times(&e->b, a->row, q->pitch), a->rows, a->high * q->pitch, 1};
  lines right = {k, cmz_attention_times(&e->b, a->column, k->pitch), a->step, a->across * k->pitch,
                 1};
  (void)first;
  multiply(e, &left, &right, (uint32_t)a->depth, scores);
}

static void store_powers(emitter *e, const attention *a, const MlirValue *powers) {
  cmz_builder *b = &e->b;
  const factor *p = &a->powers;
  MlirValue own = cmz_b_add(b, cmz_attention_times(b, a->row, p->pitch), a->column);
  MlirValue at = cmz_b_address(b, b->f32, p->base, own);
  cmz_attention_use(b, p);
  for (uint32_t n = 0; n < a->scores; n++)
    cmz_b_store(
        b, powers[n],
        cmz_b_address_const(b, b->f32, at,
                            (int64_t)a->score_offsets[0][n] * p->pitch + a->score_offsets[1][n]),
        NULL);
}

static void multiply_values(emitter *e, const contraction *c, MlirValue first,
                            const MlirValue *powers, MlirValue *sums) {
  const attention *a = c->attention;
  const factor *p = &a->powers, *v = &a->values.memory;
  lines left = {p, cmz_attention_times(&e->b, a->row, p->pitch), a->rows, a->high * p->pitch, 1};
  lines right = {v, a->column, a->columns, a->across, v->pitch};
  (void)first;
  store_powers(e, a, powers);
  cmz_emit_group_barrier(e);
  multiply(e, &left, &right, e->s->step, sums);
}

const attention_form cmz_attention_group = {.prepare = prepare,
                                            .begin = begin,
                                            .stage = stage_step,
                                            .multiply_keys = multiply_keys,
                                            .multiply_values = multiply_values};
