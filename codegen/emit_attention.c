/* emit_attention.c - attention by the threads of a GPU, without storing scores: the frame.
 * In: a kernel that kernel_attention.c knows, under a schedule with `step`. Out: per grid tile, a
 * walk over the keys in steps: every thread multiplies its part of the scores, rows agree on their
 * greatest so far, what was summed up before is scaled to it, and powers times values are added.
 * How products are computed is a form's (emit_attention.h). Method: Dao et al., "FlashAttention",
 * 2022. Always holds: a row belongs to a power of two of neighbouring threads; all threads of a
 * group meet at every barrier; sums are f32; what does not exist is scored as -infinity. */
#include "emit_attention.h"

#include <math.h>

/* What a walk carries from step to step: sums, greatest scores, sums of powers. */
typedef struct walk {
  uint32_t sums, rows;
  MlirValue *all; /* sums of products, then the greatest, then the sums of powers, by row */
} walk;

static MlirValue *greatest_of(const walk *w) { return w->all + w->sums; }
static MlirValue *totals_of(const walk *w) { return w->all + w->sums + w->rows; }

void cmz_attention_use(cmz_builder *b, const factor *f) {
  b->buffer = (cmz_b_buffer){.windows = &f->memory, .count = 1};
}

MlirValue cmz_attention_times(cmz_builder *b, MlirValue v, uint32_t by) {
  return cmz_b_mul(b, v, cmz_b_i64(b, by));
}
MlirValue cmz_attention_divided(cmz_builder *b, MlirValue v, uint32_t by) {
  if (!(by & (by - 1))) return cmz_emit_group_divided(b, v, by);
  return cmz_b_2(b, "arith.divui", v, cmz_b_i64(b, by));
}
MlirValue cmz_attention_remainder(cmz_builder *b, MlirValue v, uint32_t by) {
  if (!(by & (by - 1))) return cmz_emit_group_remainder(b, v, by);
  return cmz_b_2(b, "arith.remui", v, cmz_b_i64(b, by));
}

MlirValue cmz_attention_keys(emitter *e, const attention *a) {
  return cmz_emit_value(e, e->k->axes.data[a->is.keys].extent);
}

/* ---- preparing ---- */

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

void cmz_attention_place(emitter *e, contraction *c) {
  const attention *a = c->attention;
  const factor *rows = &c->factors[0];
  uint32_t stride = 1;
  for (uint32_t i = rows->axis_count; i-- > 0; stride *= e->s->axes[rows->axes[i]].tile)
    c->coordinate[rows->axes[i]] = cmz_emit_group_remainder(
        &e->b, cmz_emit_group_divided(&e->b, a->row, stride), e->s->axes[rows->axes[i]].tile);
  c->coordinate[c->factors[1].axes[0]] = a->column;
  c->instances = a->sums;
}

bool cmz_emit_attention_prepare(emitter *e, contraction *c) {
  attention *a = CMZ_NEW(e->arena, attention);
  if (!cmz_kernel_attention(e->k, &a->is)) return false;
  c->attention = a;
  c->reduce = a->is.sum;
  c->node = &e->k->exprs.data[c->reduce];
  c->type = e->b.f32;
  a->depth_axis = e->k->exprs.data[a->is.product].axes[0];
  a->form = e->s->fragments ? &cmz_attention_tensor
            : e->s->group   ? &cmz_attention_group
                            : &cmz_attention_alone;
  find_axes(e, c, &a->is);
  if (c->factors[1].axis_count == 1 && cmz_emit_extent(e, a->depth_axis, &a->depth) &&
      a->form->prepare(e, c))
    cmz_attention_place(e, c);
  else cmz_emit_fail(e, "a schedule that does not suit attention");
  return true;
}

/* ---- staging ---- */

void cmz_attention_bind(emitter *e, const contraction *c, const staged *s, MlirValue first,
                        MlirValue line, MlirValue at, MlirValue *condition) {
  cmz_builder *b = &e->b;
  const attention *a = c->attention;
  static const factor none = {.positions = 1};
  int64_t extent;
  cmz_emit_group_bind(e, c, s->of_keys ? &none : &c->factors[0], line, e->depth, condition);
  if (s->of_keys) {
    MlirValue key = cmz_b_add(b, first, line);
    cmz_emit_bind(e, a->is.keys, key, 0, 1, 1);
    /* Fragments are staged a step ahead, past the end too. */
    if (e->s->fragments || !cmz_emit_extent(e, a->is.keys, &extent) || extent % e->s->step != 0)
      cmz_emit_group_conjoin(b, condition, cmz_b_icmp(b, CMZ_B_SLT, key, cmz_attention_keys(e, a)));
  }
  cmz_emit_bind(e, s->axis, at, 0, 1, 1);
  if (cmz_emit_extent(e, s->axis, &extent) && extent == s->width) return;
  cmz_emit_group_conjoin(b, condition, cmz_b_icmp(b, CMZ_B_SLT, at, cmz_b_i64(b, extent)));
}

void cmz_attention_each(emitter *e, const contraction *c, const staged *s, MlirValue first,
                        uint32_t total, uint32_t together,
                        void (*each)(emitter *e, const contraction *c, const staged *s,
                                     MlirValue first, MlirValue number)) {
  cmz_builder *b = &e->b;
  cmz_b_loop loop;
  while (together > 1 && total % (together * e->s->group) != 0) together /= 2;
  cmz_b_loop_open(b, e->arena, NULL, 0, &loop);
  cmz_emit_push(e, loop.body);
  for (uint32_t i = 0; i < together && !e->failed; i++)
    each(e, c, s, first, cmz_b_add(b, loop.index, cmz_b_i64(b, (int64_t)i * e->s->group)));
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_loop_close(b, &loop, e->thread, cmz_b_i64(b, total),
                   cmz_b_i64(b, (int64_t)together * e->s->group), NULL, 0, NULL);
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
  cmz_emit_bind(e, a->is.keys, cmz_b_add(&e->b, first, a->column), 0, e->s->step, 1);
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
  for (uint32_t n = 0; n < a->scores && !e->failed; n++) {
    MlirValue condition = {NULL};
    uint32_t rest = a->score_offsets[0][n];
    for (uint32_t i = rows->axis_count; i-- > 0; rest /= e->s->axes[rows->axes[i]].tile) {
      e->axes[rows->axes[i]].offset = rest % e->s->axes[rows->axes[i]].tile;
      check_end(e, rows->axes[i], e->s->axes[rows->axes[i]].tile, &condition);
    }
    e->axes[a->is.keys].offset = a->score_offsets[1][n];
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
  MlirValue own = cmz_b_address(b, b->f32, x->base, cmz_attention_times(b, a->row, x->pitch));
  MlirValue mine = cmz_b_address(b, b->f32, own, a->column);
  cmz_attention_use(b, x);
  for (uint32_t i = 0; i < a->rows; i++)
    cmz_b_store(b, values[i], cmz_b_address_const(b, b->f32, mine, (int64_t)i * a->high * x->pitch),
                NULL);
  cmz_emit_group_barrier(e);
  for (uint32_t i = 0; i < a->rows; i++)
    for (uint32_t t = 0; t < a->across; t++) {
      int64_t at = (int64_t)i * a->high * x->pitch + t;
      MlirValue v = cmz_b_load(b, b->f32, cmz_b_address_const(b, b->f32, own, at), NULL, false);
      values[i] = t ? joined(b, greatest, values[i], v) : v;
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
  MlirValue *scales = CMZ_NEW_ARRAY(e->arena, MlirValue, a->rows);
  MlirValue *greatest = greatest_of(w), *totals = totals_of(w);
  for (uint32_t n = 0; n < a->scores; n++) {
    MlirValue *top = &tops[a->score_row[n]];
    *top = top->ptr ? cmz_b_max(b, *top, scores[n], true) : scores[n];
  }
  join_rows(e, a, true, tops);
  for (uint32_t i = 0; i < a->rows; i++) {
    MlirValue now = cmz_b_max(b, greatest[i], tops[i], true);
    tops[i] = finite_top(b, now);
    scales[i] = cmz_b_math(b, CMZ_X_EXP, cmz_b_sub(b, greatest[i], tops[i]));
    greatest[i] = now;
    totals[i] = cmz_b_mul(b, totals[i], scales[i]);
  }
  for (uint32_t n = 0; n < a->scores; n++) {
    uint32_t row = a->score_row[n];
    scores[n] = cmz_b_math(b, CMZ_X_EXP, cmz_b_sub(b, scores[n], tops[row]));
    totals[row] = cmz_b_add(b, totals[row], scores[n]);
  }
  for (uint32_t n = 0; n < a->sums; n++) w->all[n] = cmz_b_mul(b, w->all[n], scales[a->sum_row[n]]);
}

/* ---- the walk ---- */

static void one_step(emitter *e, const contraction *c, MlirValue first, walk *w) {
  const attention *a = c->attention;
  MlirValue *scores = CMZ_NEW_ARRAY(e->arena, MlirValue, a->scores);
  if (a->form->stage) a->form->stage(e, c, first);
  if (e->failed) return;
  bind_own(e, c, first);
  for (uint32_t i = 0; i < a->scores; i++) scores[i] = cmz_b_const(&e->b, e->b.f32, 0);
  a->form->multiply_keys(e, c, first, scores);
  if (!e->failed) finish_scores(e, c, scores);
  if (e->failed) return;
  take_powers(e, a, scores, w);
  a->form->multiply_values(e, c, first, scores, w->all);
}

/* Sums over all keys, divided by the rows' sums of powers. */
static void finish_rows(emitter *e, const attention *a, const walk *w, MlirValue *accs) {
  cmz_builder *b = &e->b;
  MlirValue zero = cmz_b_const(b, b->f32, 0), one = cmz_b_const(b, b->f32, 1);
  MlirValue *totals = totals_of(w);
  join_rows(e, a, false, totals);
  for (uint32_t n = 0; n < a->sums; n++) {
    MlirValue total = totals[a->sum_row[n]], divisor = total;
    if (a->is.zero) divisor = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OEQ, total, zero), one, total);
    accs[n] = cmz_b_2(b, "arith.divf", w->all[n], divisor);
    if (a->is.not_nan) /* neither of NaN nor of zero */
      accs[n] = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, total, zero), accs[n], zero);
  }
}

void cmz_emit_attention_steps(emitter *e, const contraction *c, MlirValue *accs) {
  cmz_builder *b = &e->b;
  const attention *a = c->attention;
  walk w = {a->sums, a->rows, NULL};
  uint32_t count = a->sums + 2 * a->rows;
  MlirValue end = cmz_attention_keys(e, a), zero = cmz_b_i64(b, 0);
  MlirValue *initial = CMZ_NEW_ARRAY(e->arena, MlirValue, count);
  w.all = CMZ_NEW_ARRAY(e->arena, MlirValue, count);
  for (uint32_t i = 0; i < count; i++) initial[i] = cmz_b_const(b, b->f32, 0);
  for (uint32_t i = 0; i < a->rows; i++) initial[a->sums + i] = cmz_b_float(b, b->f32, -INFINITY);
  if (a->form->begin && !e->failed) a->form->begin(e, c);
  if (e->failed) return;
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, initial, count, &loop);
  loop.rolled = true;
  memcpy(w.all, loop.carried, count * sizeof *w.all);
  cmz_emit_push(e, loop.body);
  one_step(e, c, loop.index, &w);
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_loop_close(b, &loop, zero, end, cmz_b_i64(b, e->s->step), initial, count, w.all);
  if (a->form->end) a->form->end(e, c);
  finish_rows(e, a, &w, accs);
}
