/* emit_attention_alone.c - attention's products by a thread for itself, its row in registers.
 * In: a schedule without `group`. Out: loads of the queries, keys and values where they are used.
 * Always holds: keys past the end read the last one; the frame scores them as -infinity. */
#include "emit_attention.h"

static bool prepare(emitter *e, contraction *c) {
  attention *a = c->attention;
  a->across = a->rows = 1;
  a->scores = e->s->step;
  a->sums = c->factors[1].positions;
  if (c->factors[0].axis_count || CMZ_MAX(a->scores, a->sums) > CMZ_EMIT_MAX_INSTANCES)
    return false;
  a->row = a->column = cmz_b_i64(&e->b, 0);
  for (uint32_t n = 0; n < a->scores; n++) a->score_offsets[1][n] = n;
  for (uint32_t n = 0; n < a->sums; n++) c->offsets[1][n] = n;
  return true;
}

/* What lies past the end is read as the last key. */
static void clamp_keys(emitter *e, const attention *a, bool on) {
  axis_state *keys = &e->axes[a->is.keys];
  keys->clamped = on;
  if (on) keys->last = cmz_b_sub(&e->b, cmz_attention_keys(e, a), cmz_b_i64(&e->b, 1));
}

static void multiply_keys(emitter *e, const contraction *c, MlirValue first, MlirValue *scores) {
  const attention *a = c->attention;
  cmz_builder *b = &e->b;
  uint32_t together = 4;
  (void)first;
  clamp_keys(e, a, true);
  while (a->depth % together != 0) together /= 2;
  MlirValue *initial = CMZ_NEW_ARRAY(e->arena, MlirValue, a->scores);
  memcpy(initial, scores, a->scores * sizeof *initial);
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, initial, a->scores, &loop);
  memcpy(scores, loop.carried, a->scores * sizeof *scores);
  cmz_emit_push(e, loop.body);
  axis_state *along = cmz_emit_bind(e, a->depth_axis, loop.index, 0, together, 1);
  for (uint32_t i = 0; i < together && !e->failed; i++) {
    along->offset = i;
    MlirValue query = cmz_emit_value(e, a->is.query);
    for (uint32_t j = 0; j < a->scores && !e->failed; j++) {
      e->axes[a->is.keys].offset = j;
      MlirValue key = cmz_emit_value(e, a->is.key);
      if (!e->failed) scores[j] = cmz_b_fma(b, query, key, scores[j]);
    }
  }
  along->bound = false;
  clamp_keys(e, a, false);
  cmz_emit_pop(e);
  if (!e->failed)
    cmz_b_loop_close(b, &loop, cmz_b_i64(b, 0), cmz_b_i64(b, a->depth), cmz_b_i64(b, together),
                     initial, a->scores, scores);
}

static void multiply_values(emitter *e, const contraction *c, MlirValue first,
                            const MlirValue *powers, MlirValue *sums) {
  const attention *a = c->attention;
  axis_state *column = &e->axes[c->factors[1].axes[0]];
  (void)first;
  clamp_keys(e, a, true);
  for (uint32_t j = 0; j < a->scores; j++) {
    e->axes[a->is.keys].offset = j;
    for (uint32_t n = 0; n < a->sums && !e->failed; n++) {
      column->offset = n;
      MlirValue v = cmz_emit_value(e, a->is.value);
      if (!e->failed) sums[n] = cmz_b_fma(&e->b, powers[j], v, sums[n]);
    }
  }
  column->offset = 0;
  clamp_keys(e, a, false);
}

const attention_form cmz_attention_alone = {
    .prepare = prepare, .multiply_keys = multiply_keys, .multiply_values = multiply_values};
