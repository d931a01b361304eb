/* schedule_device.c - how a described kernel is spread over the threads of a GPU.
 * In: a description, a GPU's level. Out: a schedule without vectors, in which a grid tile is what
 * one thread computes. Always holds: an axis is tiled only when every store has it; an axis along
 * which a reduction's result is shared stays whole in one thread, so that nothing is computed
 * twice; the axis along which results lie side by side in memory is the innermost of the grid. */
#include "../ir/kernel.h"
#include "passes.h"

static bool in_every_store(const cmz_kernel *k, uint16_t axis) {
  for (uint32_t s = 0; s < k->stores.count; s++) {
    const cmz_store *st = &k->stores.data[s];
    bool found = false;
    for (uint32_t i = 0; i < st->axis_count && !found; i++) found = st->axes[i] == axis;
    if (!found) return false;
  }
  return true;
}

/* Whether some reduction of the kernel does not use AXIS although the store around it does: its
 * result is shared along the axis. */
static bool shares_reduction(cmz_kernel *k, uint16_t axis) {
  for (uint32_t i = 1; i < k->exprs.count; i++)
    if (cmz_x_get(k, i)->op == CMZ_X_REDUCE && !cmz_x_uses_axis(k, i, axis)) return true;
  return false;
}

/* How far apart neighbours along AXIS lie in the first store; UINT64_MAX when not affine. */
static uint64_t store_stride(cmz_kernel *k, uint16_t axis) {
  int64_t stride;
  if (!cmz_x_stride(k, k->stores.data[0].index, axis, &stride)) return UINT64_MAX;
  return stride < 0 ? 0 - (uint64_t)stride : (uint64_t)stride;
}

static void order_axes(cmz_kernel *k, cmz_schedule *s) {
  uint8_t next = 0;
  for (uint32_t i = 0; i < k->axes.count; i++) s->axes[i].order = UINT8_MAX;
  for (;;) { /* the farthest apart first */
    uint16_t best = UINT16_MAX;
    uint64_t farthest = 0;
    for (uint16_t a = 0; a < k->axes.count; a++) {
      if (s->axes[a].tile == 0 || s->axes[a].order != UINT8_MAX) continue;
      uint64_t stride = store_stride(k, a);
      if (best != UINT16_MAX && stride <= farthest) continue;
      best = a;
      farthest = stride;
    }
    if (best == UINT16_MAX) break;
    s->axes[best].order = next++;
  }
  for (uint32_t pass = 0; pass < 2; pass++) /* then what a thread loops over, reductions last */
    for (uint32_t i = 0; i < k->axes.count; i++)
      if (s->axes[i].order == UINT8_MAX && (pass || k->axes.data[i].kind != CMZ_AXIS_REDUCE))
        s->axes[i].order = next++;
}

cmz_status cmz_schedule_choose_device(cmz_context *ctx, cmz_arena *arena, cmz_kernel *k,
                                      const cmz_cpu_row *gpu, cmz_schedule *out) {
  (void)gpu;
  if (k->stores.count == 0)
    return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "kernel %s stores nothing", k->name);
  out->axis_count = k->axes.count;
  out->axes = CMZ_NEW_ARRAY(arena, cmz_axis_schedule, k->axes.count + 1);
  for (uint32_t i = 0; i < k->axes.count; i++) out->axes[i] = (cmz_axis_schedule){0, 1, 1, 0, 0};
  out->reduce_lanes = out->reduce_unroll = 1;
  for (uint16_t a = 0; a < k->axes.count; a++) {
    if (k->axes.data[a].kind != CMZ_AXIS_PARALLEL || !in_every_store(k, a)) continue;
    if (!shares_reduction(k, a)) out->axes[a].tile = 1;
  }
  order_axes(k, out);
  return CMZ_OK;
}
