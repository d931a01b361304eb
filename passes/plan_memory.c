/* plan_memory.c - where intermediate values lie: lives over the linear order of steps, then offsets
 * in one arena. In: a plan with steps. Out: first, last and offset of every ARENA buffer,
 * arena_bytes. Always holds: two arena buffers that are alive at the same step do not overlap;
 * zero-sized ones may share an offset. */
#include "planner.h"

typedef struct lives {
  cmz_planner *p;
  uint32_t position;
} lives;

static uint32_t resolve(const cmz_plan *plan, uint32_t b) {
  while (b != CMZ_NO_BUFFER && plan->buffers.data[b].kind == CMZ_BUFFER_ALIAS)
    b = plan->buffers.data[b].index;
  return b;
}

static void touch(lives *l, uint32_t b, uint32_t position) {
  b = resolve(l->p->plan, b);
  if (b == CMZ_NO_BUFFER) return;
  cmz_buffer *buffer = &l->p->plan->buffers.data[b];
  if (buffer->first == UINT32_MAX) buffer->first = position;
  if (position < buffer->first) buffer->first = position;
  if (position > buffer->last) buffer->last = position;
}

static void touch_list(lives *l, const uint32_t *list, uint32_t count, uint32_t position) {
  for (uint32_t i = 0; i < count; i++) touch(l, list[i], position);
}

static void touch_loop(lives *l, const cmz_plan_loop *loop, uint32_t position) {
  touch(l, loop->trip_count, position);
  touch(l, loop->condition, position);
  touch(l, loop->body_condition, position);
  touch(l, loop->iteration, position);
  touch_list(l, loop->initial, loop->carried_count, position);
  touch_list(l, loop->state, loop->carried_count, position);
  touch_list(l, loop->next, loop->carried_count, position);
  touch_list(l, loop->scan_in, loop->scan_in_count, position);
  touch_list(l, loop->scan_slice, loop->scan_in_count, position);
  touch_list(l, loop->body_out, loop->scan_out_count, position);
  touch_list(l, loop->scan_out, loop->scan_out_count, position);
}

static void walk(lives *l, uint32_t block) {
  const cmz_plan *plan = l->p->plan;
  for (uint32_t i = 0; i < plan->blocks.data[block].steps.count; i++) {
    const cmz_step *s = &plan->blocks.data[block].steps.data[i];
    uint32_t at = l->position++;
    touch_list(l, s->operands, s->operand_count, at);
    if (s->kind == CMZ_STEP_LOOP) touch_loop(l, s->loop, at);
    for (uint32_t b = 0; b < s->block_count; b++) walk(l, s->blocks[b]);
    if (s->kind != CMZ_STEP_LOOP) continue;
    touch_loop(l, s->loop, l->position);
    /* What is read or written inside and lives before the loop is needed in every iteration. */
    for (uint32_t b = 0; b < plan->buffers.count; b++) {
      cmz_buffer *buffer = &l->p->plan->buffers.data[b];
      if (buffer->first != UINT32_MAX && buffer->first < at && buffer->last > at)
        buffer->last = l->position;
    }
    l->position++;
  }
}

/* ---- offsets ---- */

static bool overlap(const cmz_buffer *a, const cmz_buffer *b) {
  return a->first <= b->last && b->first <= a->last;
}

static int64_t aligned(int64_t bytes) {
  int64_t a = CMZ_ARENA_ALIGNMENT;
  return (bytes + a - 1) / a * a;
}

typedef struct item {
  uint32_t buffer;
  int64_t bytes, offset;
} item;

static void
sort_items(item *items,
           uint32_t count) { /* largest first, stable: insertion sort over small counts */
  for (uint32_t i = 1; i < count; i++) {
    item x = items[i];
    uint32_t j = i;
    for (; j > 0 && items[j - 1].bytes < x.bytes; j--) items[j] = items[j - 1];
    items[j] = x;
  }
}

/* Lowest gap in which items[count] fits among the items already placed that live at the same time.
 */
static int64_t best_gap(const cmz_plan *plan, const item *items, uint32_t count, item *conflicts) {
  const cmz_buffer *b = &plan->buffers.data[items[count].buffer];
  uint32_t n = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (!overlap(b, &plan->buffers.data[items[i].buffer])) continue;
    uint32_t j = n++;
    for (; j > 0 && conflicts[j - 1].offset > items[i].offset; j--) conflicts[j] = conflicts[j - 1];
    conflicts[j] = items[i];
  }
  int64_t need = aligned(items[count].bytes), at = 0, best = -1, best_size = INT64_MAX;
  for (uint32_t i = 0; i < n; i++) {
    int64_t gap = conflicts[i].offset - at;
    if (gap >= need && gap < best_size) {
      best = at;
      best_size = gap;
    }
    int64_t end = conflicts[i].offset + aligned(conflicts[i].bytes);
    if (end > at) at = end;
  }
  return best >= 0 ? best : at;
}

static int64_t place_static(cmz_planner *p, cmz_arena *scratch) {
  cmz_plan *plan = p->plan;
  item *items = CMZ_NEW_ARRAY(scratch, item, plan->buffers.count + 1);
  item *conflicts = CMZ_NEW_ARRAY(scratch, item, plan->buffers.count + 1);
  uint32_t count = 0;
  for (uint32_t i = 0; i < plan->buffers.count; i++) {
    int64_t bytes;
    const cmz_buffer *b = &plan->buffers.data[i];
    if (b->kind == CMZ_BUFFER_ARENA && cmz_dim_is_const(p->m->dims, b->bytes, &bytes))
      items[count++] = (item){i, bytes, 0};
  }
  sort_items(items, count);
  int64_t top = 0;
  for (uint32_t i = 0; i < count; i++) {
    items[i].offset = best_gap(plan, items, i, conflicts);
    int64_t end = items[i].offset + aligned(items[i].bytes);
    if (end > top) top = end;
    plan->buffers.data[items[i].buffer].offset = cmz_dim_const(p->m->dims, items[i].offset);
  }
  return top;
}

/* Buffers of symbolic sizes that never live together share a class as large as the largest of them.
 */
typedef struct sharing_class {
  cmz_dim bytes;
  CMZ_VEC(uint32_t) members;
} sharing_class;

static bool fits_class(const cmz_plan *plan, const sharing_class *c, const cmz_buffer *b) {
  for (uint32_t i = 0; i < c->members.count; i++)
    if (overlap(&plan->buffers.data[c->members.data[i]], b)) return false;
  return true;
}

static cmz_dim place_symbolic(cmz_planner *p, cmz_arena *scratch, int64_t base) {
  cmz_plan *plan = p->plan;
  cmz_dims *dims = p->m->dims;
  item *items = CMZ_NEW_ARRAY(scratch, item, plan->buffers.count + 1);
  uint32_t count = 0;
  for (uint32_t i = 0; i < plan->buffers.count; i++) {
    const cmz_buffer *b = &plan->buffers.data[i];
    int64_t ignored;
    if (b->kind == CMZ_BUFFER_ARENA && !cmz_dim_is_const(dims, b->bytes, &ignored))
      items[count++] = (item){i, cmz_pass_hint(p->m, b->bytes), 0};
  }
  sort_items(items, count);
  CMZ_VEC(sharing_class) classes = {0};
  for (uint32_t i = 0; i < count; i++) {
    const cmz_buffer *b = &plan->buffers.data[items[i].buffer];
    sharing_class *found = NULL;
    for (uint32_t c = 0; c < classes.count; c++) {
      if (!fits_class(plan, &classes.data[c], b)) continue;
      if (found == NULL) found = &classes.data[c];
      if (classes.data[c].bytes == b->bytes) { /* the same size: nothing to compute */
        found = &classes.data[c];
        break;
      }
    }
    if (found == NULL) {
      sharing_class c = {.bytes = b->bytes};
      cmz_vec_push(scratch, &classes, c);
      found = &classes.data[classes.count - 1];
    }
    found->bytes = cmz_dim_max(dims, found->bytes, b->bytes);
    cmz_vec_push(scratch, &found->members, items[i].buffer);
  }
  cmz_dim at = cmz_dim_const(dims, base), unit = cmz_dim_const(dims, CMZ_ARENA_ALIGNMENT);
  for (uint32_t c = 0; c < classes.count; c++) {
    for (uint32_t i = 0; i < classes.data[c].members.count; i++)
      plan->buffers.data[classes.data[c].members.data[i]].offset = at;
    at = cmz_dim_add(dims, at,
                     cmz_dim_mul(dims, cmz_dim_ceildiv(dims, classes.data[c].bytes, unit), unit));
  }
  return at;
}

cmz_status cmz_planner_memory(cmz_planner *p) {
  cmz_plan *plan = p->plan;
  for (uint32_t i = 0; i < plan->buffers.count; i++) {
    plan->buffers.data[i].first = UINT32_MAX;
    plan->buffers.data[i].last = 0;
  }
  lives l = {.p = p};
  walk(&l, 0);
  for (uint32_t i = 0; i < plan->buffers.count; i++)
    if (plan->buffers.data[i].first == UINT32_MAX)
      plan->buffers.data[i].first = plan->buffers.data[i].last = 0;
  cmz_arena *scratch = cmz_arena_create(p->m->ctx);
  int64_t base = place_static(p, scratch);
  plan->arena_bytes = place_symbolic(p, scratch, base);
  cmz_arena_destroy(scratch);
  return CMZ_OK;
}
