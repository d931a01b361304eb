/* emit.c - a kernel description under a schedule as one function: grid tiles, loops, stores.
 * In: kernel, schedule, CPU row. Out: func.func of type cmz_kernel_function in an MLIR module,
 * lowered by lower.c. Always holds: grid tile numbers are mixed radix over the tiled axes in the
 * order of the schedule, outermost first; a store that does not use a tiled axis happens in that
 * axis' first tile only. */
#include "emit.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "runtime_tables.h"

MlirValue cmz_emit_fail(emitter *e, const char *why) {
  if (!e->failed) e->failure = why;
  e->failed = true;
  return e->begin;
}

/* ---- scopes ---- */

void cmz_emit_push(emitter *e, MlirBlock block) {
  if (e->depth + 1 >= CMZ_EMIT_MAX_DEPTH) {
    cmz_emit_fail(e, "too many nested loops");
    return;
  }
  scope *s = CMZ_NEW(e->arena, scope);
  *s = (scope){block, ++e->depth};
  e->path[e->depth] = s;
  e->b.block = block;
}

void cmz_emit_pop(emitter *e) {
  if (e->depth > 0) e->b.block = e->path[--e->depth]->block;
}

void cmz_emit_save(emitter *e, uint32_t depth, emit_position *saved) {
  saved->depth = e->depth;
  saved->block = e->b.block;
  memcpy(saved->path, e->path, sizeof saved->path);
  e->depth = depth;
  e->b.block = e->path[depth]->block;
}

void cmz_emit_restore(emitter *e, const emit_position *saved) {
  memcpy(e->path, saved->path, sizeof saved->path);
  e->depth = saved->depth;
  e->b.block = saved->block;
}

axis_state *cmz_emit_bind(emitter *e, uint32_t axis, MlirValue base, int64_t value,
                          uint32_t instances, uint32_t lanes) {
  axis_state *a = &e->axes[axis];
  a->bound = true;
  a->id = ++e->next_id;
  a->depth = e->depth;
  a->is_constant = base.ptr == NULL;
  a->value = value;
  a->base = a->is_constant ? cmz_b_i64(&e->b, value) : base;
  a->instances = instances;
  a->lanes = lanes;
  a->offset = a->steps = 0;
  a->masked = a->clamped = false;
  a->limited = false;
  return a;
}

bool cmz_emit_extent(emitter *e, uint32_t axis, int64_t *value) {
  return cmz_emit_int(e, e->k->axes.data[axis].extent, value);
}

/* ---- the loops of a store ---- */

typedef struct nest {
  const cmz_store *store;
  uint32_t count;
  uint16_t axes[CMZ_STORE_MAX_AXES]; /* in the order of the schedule */
  guard_list guards;                 /* of the stored value's loads */
  bool reduces;                      /* the stored value */
  MlirValue *low, *high; /* of the grid tile, per axis; null where the axis is not tiled */
} nest;

static void emit_axis(emitter *e, const nest *n, uint32_t position);

/* The store, where the instance does not lie past the end of an axis. */
static void emit_existing(emitter *e, const nest *n) {
  cmz_builder *b = &e->b;
  MlirValue exists = {NULL};
  for (uint32_t i = 0; i < n->count; i++) {
    const axis_state *a = &e->axes[n->axes[i]];
    if (!a->clamped || !a->offset) continue;
    MlirValue at = cmz_b_add(b, a->base, cmz_b_i64(b, a->offset));
    MlirValue one = cmz_b_icmp(b, CMZ_B_SLE, at, a->last);
    exists = exists.ptr ? cmz_b_2(b, "arith.andi", exists, one) : one;
  }
  if (!exists.ptr) {
    cmz_emit_store(e, n->store);
    return;
  }
  MlirRegion regions[2];
  MlirBlock yes = cmz_b_region(&regions[0]), no = cmz_b_region(&regions[1]), here = b->block;
  cmz_emit_push(e, yes);
  cmz_emit_store(e, n->store);
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_yield(b, yes, NULL, 0);
  cmz_b_yield(b, no, NULL, 0);
  b->block = here;
  cmz_b_if(b, exists, regions[0], regions[1], NULL, 0, NULL);
}

static void emit_instances(emitter *e, const nest *n, uint32_t position) {
  if (e->failed) return;
  if (position == n->count) {
    emit_existing(e, n);
    return;
  }
  axis_state *a = &e->axes[n->axes[position]];
  for (uint32_t i = 0; i < a->instances; i++) {
    a->offset = i * CMZ_MAX(a->lanes, 1);
    emit_instances(e, n, position + 1);
  }
  a->offset = 0;
}

static void emit_inside(emitter *e, const nest *n, uint32_t position) {
  if (position + 1 < n->count) emit_axis(e, n, position + 1);
  else emit_instances(e, n, 0);
}

/* One step of the axis at BASE (or constant VALUE). */
static axis_state *emit_step(emitter *e, const nest *n, uint32_t position, MlirValue base,
                             int64_t value, uint32_t instances, uint32_t lanes) {
  axis_state *a = cmz_emit_bind(e, n->axes[position], base, value, instances, lanes);
  emit_inside(e, n, position);
  return a;
}

/* BOUNDS: the loop's constant first value and end, or NULL. */
static void emit_loop(emitter *e, const nest *n, uint32_t position, MlirValue low, MlirValue high,
                      uint32_t instances, uint32_t lanes, const int64_t *bounds) {
  cmz_b_loop loop;
  MlirValue step = cmz_b_i64(&e->b, (int64_t)instances * lanes);
  cmz_b_loop_open(&e->b, e->arena, NULL, 0, &loop);
  cmz_emit_push(e, loop.body);
  axis_state *a = cmz_emit_bind(e, n->axes[position], loop.index, 0, instances, lanes);
  if (bounds) {
    a->limited = true;
    a->base_low = bounds[0];
    a->base_high = bounds[1] - (int64_t)instances * lanes;
  }
  emit_inside(e, n, position);
  cmz_emit_pop(e);
  if (!e->failed) cmz_b_loop_close(&e->b, &loop, low, high, step, NULL, 0, NULL);
}

static void emit_masked(emitter *e, const nest *n, uint32_t position, MlirValue base,
                        MlirValue high, uint32_t lanes) {
  cmz_builder *b = &e->b;
  axis_state *a = cmz_emit_bind(e, n->axes[position], base, 0, 1, lanes);
  a->masked = true;
  a->last = cmz_b_sub(b, high, cmz_b_i64(b, 1));
  a->mask = cmz_b_icmp(b, CMZ_B_SLT, cmz_b_iota(b, cmz_b_vector(b->i64, lanes)),
                       cmz_b_sub(b, high, base));
  emit_inside(e, n, position);
  a->masked = false;
}

typedef void region_body(emitter *e, const nest *n, uint32_t position, MlirValue base,
                         MlirValue high, uint32_t instances, uint32_t lanes);

static void body_masked(emitter *e, const nest *n, uint32_t position, MlirValue base,
                        MlirValue high, uint32_t instances, uint32_t lanes) {
  (void)instances;
  emit_masked(e, n, position, base, high, lanes);
}
static void body_step(emitter *e, const nest *n, uint32_t position, MlirValue base, MlirValue high,
                      uint32_t instances, uint32_t lanes) {
  (void)high;
  emit_step(e, n, position, base, 0, instances, lanes);
}

/* The last rows, LOW..HIGH, in steps of half the register tile, enough to hide the latency of an
 * addition: the last step runs past the end, and what lies there repeats the last row. */
static void emit_clamped(emitter *e, const nest *n, uint32_t position, MlirValue low,
                         MlirValue high, uint32_t instances) {
  cmz_builder *b = &e->b;
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, NULL, 0, &loop);
  cmz_emit_push(e, loop.body);
  axis_state *a = cmz_emit_bind(e, n->axes[position], loop.index, 0, instances, 1);
  a->clamped = true;
  a->last = cmz_b_sub(b, high, cmz_b_i64(b, 1));
  emit_inside(e, n, position);
  a->clamped = false;
  cmz_emit_pop(e);
  if (!e->failed) cmz_b_loop_close(b, &loop, low, high, cmz_b_i64(b, instances), NULL, 0, NULL);
}

/* if (base + instances * lanes <= high, or base < high) BODY */
static void emit_if(emitter *e, const nest *n, uint32_t position, MlirValue condition,
                    MlirValue base, MlirValue high, uint32_t instances, uint32_t lanes,
                    region_body *body) {
  cmz_builder *b = &e->b;
  MlirRegion regions[2];
  MlirBlock yes = cmz_b_region(&regions[0]), no = cmz_b_region(&regions[1]), here = b->block;
  cmz_emit_push(e, yes);
  body(e, n, position, base, high, instances, lanes);
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_yield(b, yes, NULL, 0);
  cmz_b_yield(b, no, NULL, 0);
  b->block = here;
  cmz_b_if(b, condition, regions[0], regions[1], NULL, 0, NULL);
}

/* Whether loads are guarded by comparisons of AXIS: its first and last steps are then emitted by
 * themselves, where the guards of single instances are known, and are known to hold in between. */
static bool guarded_by(emitter *e, const nest *n, uint32_t axis) {
  for (uint32_t i = 0; i < n->guards.count; i++)
    if (axis_set_has(&e->info[n->guards.items[i]].free, axis)) return true;
  return false;
}

/* Scalar guards cost little where loads are led to a buffer instead. */
static bool filled(const emitter *e) { return !e->b.cpu->threads && !e->b.cpu->spirv; }
#define MANY 32 /* instances, of which half a step is one too */

/* The whole axis, its extent known: full steps, then one narrower step, then a masked vector. */
static void emit_constant(emitter *e, const nest *n, uint32_t position, int64_t extent,
                          uint32_t unroll, uint32_t lanes) {
  cmz_builder *b = &e->b;
  int64_t step = (int64_t)unroll * lanes, main = extent / step * step;
  bool peel = step > 1 && (lanes > 1 || !filled(e)) && guarded_by(e, n, n->axes[position]);
  int64_t bounds[2] = {peel ? step : 0, peel && main == extent ? main - step : main};
  if (main > 0 && (peel || main == step))
    emit_step(e, n, position, (MlirValue){NULL}, 0, unroll, lanes);
  if (main > step && bounds[1] > bounds[0] && !e->failed)
    emit_loop(e, n, position, cmz_b_i64(b, bounds[0]), cmz_b_i64(b, bounds[1]), unroll, lanes,
              bounds);
  if (main > step && bounds[1] < main && !e->failed)
    emit_step(e, n, position, (MlirValue){NULL}, main - step, unroll, lanes);
  int64_t vectors = (extent - main) / lanes;
  if (unroll >= MANY && vectors >= unroll / 2 && !e->failed) {
    emit_step(e, n, position, (MlirValue){NULL}, main, unroll / 2, lanes);
    main += (int64_t)(unroll / 2) * lanes;
    vectors -= unroll / 2;
  }
  if (vectors > 0 && !e->failed)
    emit_step(e, n, position, (MlirValue){NULL}, main, (uint32_t)vectors, lanes);
  main += vectors * lanes;
  /* No wider than needed: LLVM 22 turns masked loads whose upper half is known to be off, under a
   * further mask, into plain loads, which may fault. */
  while (lanes > 1 && lanes / 2 >= extent - main) lanes /= 2;
  if (main < extent && lanes == extent - main && !e->failed)
    emit_step(e, n, position, (MlirValue){NULL}, main, 1, lanes);
  else if (main < extent && !e->failed)
    emit_masked(e, n, position, cmz_b_i64(b, main), cmz_b_i64(b, extent), lanes);
}

#define FEWER 6 /* instances of what is left of a step of many */

/* As many whole steps of INSTANCES as LOW..HIGH holds; gives where they end. */
static MlirValue emit_whole(emitter *e, const nest *n, uint32_t position, MlirValue low,
                            MlirValue high, uint32_t instances, uint32_t lanes) {
  cmz_builder *b = &e->b;
  if (e->failed) return low;
  MlirValue size = cmz_b_i64(b, (int64_t)instances * lanes);
  MlirValue steps = cmz_b_2(b, "arith.divui", cmz_b_sub(b, high, low), size);
  MlirValue end = cmz_b_add(b, low, cmz_b_mul(b, steps, size));
  emit_loop(e, n, position, low, end, instances, lanes, NULL);
  return end;
}

/* LOW..HIGH, known at run time only. REST: instances of the last, narrower step when that is known
 * (0: a loop). */
static void emit_dynamic(emitter *e, const nest *n, uint32_t position, MlirValue low,
                         MlirValue high, uint32_t unroll, uint32_t lanes, uint32_t rest,
                         bool tail) {
  cmz_builder *b = &e->b;
  MlirValue length = cmz_b_sub(b, high, low);
  MlirValue size = cmz_b_i64(b, (int64_t)unroll * lanes);
  MlirValue done = cmz_b_add(b, low, cmz_b_mul(b, cmz_b_2(b, "arith.divui", length, size), size));
  emit_loop(e, n, position, low, done, unroll, lanes, NULL);
  if (unroll > 1 && rest > 0 && !e->failed) {
    MlirValue end = cmz_b_add(b, done, cmz_b_i64(b, (int64_t)rest * lanes));
    MlirValue fits = cmz_b_icmp(b, CMZ_B_SLE, end, high);
    emit_if(e, n, position, fits, done, high, rest, lanes, body_step);
    done = cmz_b_select(b, fits, end, done);
  } else if (unroll > 1 && !e->failed) {
    for (uint32_t step = unroll >= MANY ? MANY / 2 : 1; step > 1; step = step > FEWER ? FEWER : 1)
      done = emit_whole(e, n, position, done, high, unroll = step, lanes);
    if (e->failed) return;
    if (lanes == 1 && n->reduces) {
      MlirValue one = cmz_b_icmp(b, CMZ_B_IEQ, cmz_b_add(b, done, cmz_b_i64(b, 1)), high);
      emit_if(e, n, position, one, done, high, 1, 1, body_step); /* a batch of one */
      if (!e->failed)
        emit_clamped(e, n, position, cmz_b_select(b, one, high, done), high, (unroll + 1) / 2);
    } else {
      done = emit_whole(e, n, position, done, high, 1, lanes);
    }
  }
  if (lanes > 1 && tail && !e->failed)
    emit_if(e, n, position, cmz_b_icmp(b, CMZ_B_SLT, done, high), done, high, 1, lanes,
            body_masked);
}

/* A tile of TILE iterations of an axis with a known extent: only the last tile can be shorter. */
static void emit_tile(emitter *e, const nest *n, uint32_t position, int64_t extent, int64_t tile,
                      uint32_t unroll, uint32_t lanes) {
  uint32_t axis = n->axes[position];
  int64_t step = (int64_t)unroll * lanes;
  MlirValue low = n->low[axis], high = n->high[axis];
  if (extent <= tile) {
    emit_constant(e, n, position, extent, unroll, lanes);
  } else if (extent % tile == 0 && tile == step) {
    emit_step(e, n, position, low, 0, unroll, lanes);
  } else {
    int64_t rest = tile % step == 0 ? extent % tile % step / lanes : 0;
    bool tail = tile % lanes != 0 || extent % lanes != 0;
    if (tile % step == 0 && rest == 0) unroll = (uint32_t)CMZ_MAX(unroll, 1), rest = UINT32_MAX;
    if (rest == UINT32_MAX) { /* whole steps only (and perhaps a masked vector) */
      cmz_builder *b = &e->b;
      if (!tail) {
        emit_loop(e, n, position, low, high, unroll, lanes, NULL);
        return;
      }
      MlirValue size = cmz_b_i64(b, step);
      MlirValue done = cmz_b_add(
          b, low, cmz_b_mul(b, cmz_b_2(b, "arith.divui", cmz_b_sub(b, high, low), size), size));
      emit_loop(e, n, position, low, done, unroll, lanes, NULL);
      if (!e->failed)
        emit_if(e, n, position, cmz_b_icmp(b, CMZ_B_SLT, done, high), done, high, 1, lanes,
                body_masked);
      return;
    }
    emit_dynamic(e, n, position, low, high, unroll, lanes, (uint32_t)rest, tail);
  }
}

/* All of a thread's tile in one step, EXTENT being the axis': threads side by side must not part,
 * so what lies past the end repeats the last element and is not stored. */
static void emit_thread_tile(emitter *e, const nest *n, uint32_t position, MlirValue extent,
                             uint32_t unroll) {
  uint32_t axis = n->axes[position];
  axis_state *a = cmz_emit_bind(e, axis, n->low[axis], 0, unroll, 1);
  if (unroll > 1) {
    a->clamped = true;
    a->last = cmz_b_sub(&e->b, extent, cmz_b_i64(&e->b, 1));
  }
  emit_inside(e, n, position);
  a->clamped = false;
}

static void emit_axis(emitter *e, const nest *n, uint32_t position) {
  if (e->failed) return;
  if (n->count == 0) {
    emit_instances(e, n, 0);
    return;
  }
  uint32_t axis = n->axes[position];
  const cmz_axis_schedule *s = &e->s->axes[axis];
  bool serial = e->k->axes.data[axis].kind == CMZ_AXIS_SERIAL;
  uint32_t unroll = serial ? 1 : CMZ_MAX(s->unroll, 1), lanes = serial ? 1 : CMZ_MAX(s->lanes, 1);
  int64_t extent;
  bool known = cmz_emit_extent(e, axis, &extent);
  bool whole = known && (extent <= s->tile || extent % CMZ_MAX(s->tile, 1u) == 0);
  if (e->b.cpu->threads && s->tile && s->tile == unroll && !whole) {
    MlirValue end = cmz_emit_value(e, e->k->axes.data[axis].extent);
    if (!e->failed) emit_thread_tile(e, n, position, end, unroll);
  } else if (known && s->tile) emit_tile(e, n, position, extent, s->tile, unroll, lanes);
  else if (known) emit_constant(e, n, position, extent, unroll, lanes);
  else {
    MlirValue low = n->low[axis], high = n->high[axis];
    if (!s->tile) {
      low = cmz_b_i64(&e->b, 0);
      high = cmz_emit_value(e, e->k->axes.data[axis].extent);
    }
    if (!e->failed) emit_dynamic(e, n, position, low, high, unroll, lanes, 0, true);
  }
}

/* ---- grid ---- */

/* Tiled axes by order, outermost first. */
static uint32_t grid_axes(const emitter *e, uint16_t *axes) {
  uint32_t count = 0;
  for (uint32_t a = 0; a < e->k->axes.count; a++) {
    if (!e->s->axes[a].tile || e->k->axes.data[a].kind == CMZ_AXIS_REDUCE) continue;
    uint32_t at = count++;
    for (; at > 0 && e->s->axes[axes[at - 1]].order > e->s->axes[a].order; at--)
      axes[at] = axes[at - 1];
    axes[at] = (uint16_t)a;
  }
  return count;
}

static void decode_tile(emitter *e, const uint16_t *axes, uint32_t count, MlirValue *coordinate,
                        MlirValue *low, MlirValue *high) {
  cmz_builder *b = &e->b;
  MlirValue rest = e->tile;
  for (uint32_t i = count; i-- > 0;) {
    uint32_t axis = axes[i];
    MlirValue extent = cmz_emit_value(e, e->k->axes.data[axis].extent);
    MlirValue tile = cmz_b_i64(b, e->s->axes[axis].tile);
    if (e->failed) return;
    MlirValue tiles =
        cmz_b_2(b, "arith.divui",
                cmz_b_add(b, extent, cmz_b_i64(b, (int64_t)e->s->axes[axis].tile - 1)), tile);
    coordinate[axis] = i == 0 ? rest : cmz_b_2(b, "arith.remui", rest, tiles);
    if (i > 0) rest = cmz_b_2(b, "arith.divui", rest, tiles);
    low[axis] = cmz_b_mul(b, coordinate[axis], tile);
    MlirValue end = cmz_b_add(b, low[axis], tile);
    high[axis] = cmz_b_min(b, end, extent, true);
  }
}

static void order_store_axes(const emitter *e, const cmz_store *store, nest *n) {
  n->store = store;
  n->count = store->axis_count;
  memcpy(n->axes, store->axes, sizeof n->axes);
  for (uint32_t i = 1; i < n->count; i++)
    for (uint32_t j = i; j > 0 && e->s->axes[n->axes[j]].order < e->s->axes[n->axes[j - 1]].order;
         j--) {
      uint16_t t = n->axes[j];
      n->axes[j] = n->axes[j - 1];
      n->axes[j - 1] = t;
    }
}

static bool store_has_axis(const cmz_store *s, uint32_t axis) {
  for (uint32_t i = 0; i < s->axis_count; i++)
    if (s->axes[i] == axis) return true;
  return false;
}

static void emit_one_store(emitter *e, const cmz_store *store, const uint16_t *grid, uint32_t count,
                           const MlirValue *coordinate, MlirValue *low, MlirValue *high) {
  cmz_builder *b = &e->b;
  nest n = {.low = low, .high = high};
  MlirValue first = {NULL};
  order_store_axes(e, store, &n);
  cmz_emit_guards(e, store->value, &n.guards);
  n.reduces = e->info[store->value].has_reduce && store->mode == CMZ_STORE_SET;
  for (uint32_t i = 0; i < count; i++) {
    if (store_has_axis(store, grid[i])) continue;
    MlirValue zero = cmz_b_icmp(b, CMZ_B_IEQ, coordinate[grid[i]], cmz_b_i64(b, 0));
    first = first.ptr ? cmz_b_2(b, "arith.andi", first, zero) : zero;
  }
  MlirRegion regions[2];
  MlirBlock yes, no, here = b->block;
  if (!first.ptr) {
    emit_axis(e, &n, 0);
  } else {
    yes = cmz_b_region(&regions[0]);
    no = cmz_b_region(&regions[1]);
    cmz_emit_push(e, yes);
    emit_axis(e, &n, 0);
    cmz_emit_pop(e);
    cmz_b_yield(b, yes, NULL, 0);
    cmz_b_yield(b, no, NULL, 0);
    b->block = here;
    cmz_b_if(b, first, regions[0], regions[1], NULL, 0, NULL);
  }
  for (uint32_t i = 0; i < store->axis_count; i++) {
    axis_state *a = &e->axes[store->axes[i]];
    a->bound = false;
    a->lanes = a->instances = 1;
  }
}

static void emit_tiles(emitter *e) {
  cmz_builder *b = &e->b;
  cmz_b_loop loop;
  uint32_t axis_count = e->k->axes.count;
  uint16_t *grid = CMZ_NEW_ARRAY(e->arena, uint16_t, axis_count + 1);
  MlirValue *coordinate = CMZ_NEW_ARRAY(e->arena, MlirValue, axis_count + 1);
  MlirValue *low = CMZ_NEW_ARRAY(e->arena, MlirValue, axis_count + 1);
  MlirValue *high = CMZ_NEW_ARRAY(e->arena, MlirValue, axis_count + 1);
  uint32_t count = grid_axes(e, grid);
  cmz_b_loop_open(b, e->arena, NULL, 0, &loop);
  cmz_emit_push(e, loop.body);
  e->tile = loop.index;
  decode_tile(e, grid, count, coordinate, low, high);
  if (e->s->step && !e->failed) cmz_emit_group_tile(e, low);
  for (uint32_t i = 0; i < e->k->stores.count && !e->s->step && !e->failed; i++)
    emit_one_store(e, &e->k->stores.data[i], grid, count, coordinate, low, high);
  cmz_emit_pop(e);
  if (!e->failed) cmz_b_loop_close(b, &loop, e->begin, e->end, e->step, NULL, 0, NULL);
}

/* ---- function ---- */

static MlirStringRef text(const char *s) { return mlirStringRefCreateFromCString(s); }

/* Parameters and operand addresses, loaded at the entry. */
static void emit_arguments(emitter *e) {
  cmz_builder *b = &e->b;
  MlirValue operands = cmz_b_load(b, b->pointer, e->args, NULL, true);
  MlirValue params =
      cmz_b_load(b, b->pointer, cmz_b_address_const(b, b->pointer, e->args, 1), NULL, true);
  for (uint32_t i = 0; i < e->k->operands.count; i++)
    cmz_emit_remember_operand(
        e, i,
        cmz_b_load(b, b->pointer, cmz_b_address_const(b, b->pointer, operands, i), NULL, true));
  for (uint32_t i = 1; i < e->k->exprs.count; i++) {
    const cmz_expr_node *n = &e->k->exprs.data[i];
    if (n->op != CMZ_X_PARAM) continue;
    MlirValue v = cmz_b_load(b, b->i64, cmz_b_address_const(b, b->i64, params, n->i), NULL, true);
    cmz_emit_remember(e, cmz_emit_key(e, i), 0, v);
  }
}

static MlirBlock emit_function(emitter *e, MlirModule module, const char *symbol) {
  cmz_builder *b = &e->b;
  MlirType inputs[4] = {b->pointer, b->i32, b->i32, b->i32};
  MlirLocation locations[4] = {b->location, b->location, b->location, b->location};
  MlirNamedAttribute attrs[] = {
      cmz_b_attr(b, "sym_name", mlirStringAttrGet(b->mlir, text(symbol))),
      cmz_b_attr(b, "function_type",
                 mlirTypeAttrGet(mlirFunctionTypeGet(b->mlir, 4, inputs, 0, NULL))),
  };
  MlirRegion region = mlirRegionCreate();
  MlirBlock entry = mlirBlockCreate(4, inputs, locations);
  mlirRegionAppendOwnedBlock(region, entry);
  b->block = mlirModuleGetBody(module);
  cmz_b_op(b, "func.func", 0, NULL, 0, NULL, 2, attrs, 1, &region);
  return entry;
}

static MlirBlock emit_host_function(emitter *e, MlirModule module, const char *symbol) {
  cmz_builder *b = &e->b;
  MlirBlock entry = emit_function(e, module, symbol);
  e->path[0] = CMZ_NEW(e->arena, scope);
  *e->path[0] = (scope){entry, 0};
  b->block = entry;
  e->args = mlirBlockGetArgument(entry, 0);
  e->begin = cmz_b_cast(b, "arith.extui", mlirBlockGetArgument(entry, 1), b->i64);
  e->end = cmz_b_cast(b, "arith.extui", mlirBlockGetArgument(entry, 2), b->i64);
  e->step = cmz_b_i64(b, 1);
  cmz_emit_analyse(e);
  emit_arguments(e);
  return entry;
}

static void emit_kernel(emitter *e, MlirModule module, const char *symbol) {
  cmz_builder *b = &e->b;
  MlirBlock entry = b->cpu->spirv     ? cmz_emit_vulkan_function(e, module, symbol)
                    : b->cpu->threads ? cmz_emit_device_function(e, module, symbol)
                                      : emit_host_function(e, module, symbol);
  if (!e->failed && e->s->step) cmz_emit_group_prepare(e);
  if (!e->failed) emit_tiles(e);
  b->block = entry;
  if (!e->failed) cmz_emit_tiles_close(e);
  cmz_b_op(b, b->cpu->spirv ? "gpu.return" : "func.return", 0, NULL, 0, NULL, 0, NULL, 0, NULL);
  cmz_emit_fill_buffers(e, module);
}

static void bound_axes(emitter *e) {
  e->axes = CMZ_NEW_ARRAY(e->arena, axis_state, CMZ_EMIT_MAX_AXES);
  for (uint32_t a = 0; a < e->k->axes.count; a++) {
    int64_t low, high;
    cmz_emit_range(e, e->k->axes.data[a].extent, &low, &high);
    e->axes[a] = (axis_state){.instances = 1, .lanes = 1, .low = 0};
    e->axes[a].high = high == INT64_MAX ? high : high - 1;
  }
}

/* K as a function SYMBOL of MODULE. */
static cmz_status emit_into(cmz_context *ctx, cmz_arena *arena, MlirModule module,
                            const cmz_kernel *k, const cmz_schedule *s, const cmz_cpu_row *cpu,
                            const char *symbol) {
  MlirOperation top = mlirModuleGetOperation(module);
  if (k->axes.count > CMZ_EMIT_MAX_AXES)
    return cmz_fail(ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.op = k->name},
                    "a kernel with %u axes; at most %d are compiled", k->axes.count,
                    CMZ_EMIT_MAX_AXES);
  emitter *e = CMZ_NEW(arena, emitter);
  *e = (emitter){.ctx = ctx, .arena = arena, .k = k, .s = s, .lane = -1};
  cmz_builder_init(&e->b, mlirOperationGetContext(top), mlirOperationGetLocation(top), cpu);
  bound_axes(e);
  if (cpu->spirv && cmz_emit_is_narrow(e)) {
    e->b.narrow = true;
    e->b.i64 = e->b.i32;
  }
  e->module = module;
  e->symbol = symbol;
  emit_kernel(e, module, symbol);
  if (!e->failed) return CMZ_OK;
  return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){.op = k->name}, "%s", e->failure);
}

cmz_status cmz_kernel_emit(cmz_context *ctx, const cmz_kernel *k, const cmz_schedule *s,
                           const cmz_cpu_row *cpu, const cmz_os_row *os, const char *symbol,
                           int optimise, const char *source_file, uint32_t source_line,
                           cmz_output_kind kind, const char *path) {
  MlirContext mlir = cmz_lower_context(ctx);
  MlirLocation location = source_file
                              ? mlirLocationFileLineColGet(mlir, text(source_file), source_line, 1)
                              : mlirLocationUnknownGet(mlir);
  cmz_arena *arena = cmz_arena_create(ctx);
  MlirModule module = mlirModuleCreateEmpty(location);
  cmz_status status = emit_into(ctx, arena, module, k, s, cpu, symbol);
  if (status == CMZ_OK)
    status = cmz_lower_module(ctx, module, cpu, os, optimise, source_file != NULL, kind, path);
  mlirModuleDestroy(module);
  mlirContextDestroy(mlir);
  cmz_arena_destroy(arena);
  return status;
}

cmz_status cmz_kernels_emit_spirv(cmz_context *ctx, const cmz_plan *plan, const cmz_cpu_row *cpu,
                                  const char *prefix, const char *path) {
  MlirContext mlir = cmz_lower_context(ctx);
  MlirModule module = mlirModuleCreateEmpty(mlirLocationUnknownGet(mlir));
  cmz_arena *arena = cmz_arena_create(ctx);
  cmz_status status = CMZ_OK;
  for (uint32_t i = 0; i < plan->kernels.count && status == CMZ_OK; i++) {
    const cmz_plan_kernel *k = &plan->kernels.data[i];
    const char *symbol = cmz_arena_printf(arena, "%s_k%u_%s", prefix, i,
                                          k->kernel->name ? k->kernel->name : "kernel");
    status = emit_into(ctx, arena, module, k->kernel, k->schedules, cpu, symbol);
  }
  if (status == CMZ_OK && !mlirOperationVerify(mlirModuleGetOperation(module)))
    status = cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "the kernels' MLIR does not verify");
  if (status == CMZ_OK && plan->kernels.count) status = cmz_vulkan_lower(ctx, module, path);
  else if (status == CMZ_OK) status = cmz_file_write(ctx, path, "", 0);
  mlirModuleDestroy(module);
  mlirContextDestroy(mlir);
  cmz_arena_destroy(arena);
  return status;
}
