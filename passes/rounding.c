/* rounding.c - levels without fused multiply-add that round as if they had it.
 * In: the finished graph and the target's levels. Out: run->target, in which such levels are marked
 * (soft_fma) where it is worth its price. Always holds: a level by itself, and one that the user
 * marked, stay as they are.
 *
 * A library of several levels is one model that runs on many machines, and most outputs are the
 * same on all of them to a few units in the last place. A sigmoid's are not: close to 0 it moves in
 * steps of 2^-25 whatever its size, and where it saturates, the last bits decide which of many
 * nearly equal numbers is the largest. Fused and separate roundings then give answers that differ
 * visibly between two machines. The price, five to six times the time of a convolution, is paid on
 * CPUs of before 2013 only. */
#include "support.h"

/* Whether V is the sigmoid of something, moved or joined with others perhaps. SEEN is by value. */
static bool is_sigmoid(const cmz_module *m, cmz_vid v, bool *seen) {
  cmz_nid producer = v == 0 ? 0 : cmz_value_get(m, v)->producer;
  if (producer == 0 || seen[v] || cmz_value_get(m, v)->type.dtype != CMZ_F32) return false;
  seen[v] = true;
  const cmz_node *n = cmz_node_get(m, producer);
  if (cmz_pass_is_op(n, "Sigmoid")) return true;
  if (!(n->op->flags & (CMZ_OP_MOVEMENT | CMZ_OP_VIEW))) return false;
  for (uint32_t i = 0; i < n->input_count; i++)
    if (is_sigmoid(m, n->inputs[i], seen)) return true;
  return false;
}

static bool gives_sigmoids(const cmz_module *m) {
  cmz_arena *arena = cmz_arena_create(m->ctx);
  bool *seen = CMZ_NEW_ARRAY(arena, bool, m->values.count), found = false;
  const cmz_graph *g = cmz_graph_get(m, m->entries.data[0]);
  for (uint32_t i = 0; i < g->outputs.count && !found; i++)
    found = is_sigmoid(m, g->outputs.data[i], seen);
  cmz_arena_destroy(arena);
  return found;
}

cmz_status cmz_pass_rounding(cmz_pass_run *run, cmz_module *m) {
  uint32_t fused = 0;
  for (uint32_t i = 0; i < run->target->level_count; i++) fused += run->target->levels[i]->fma;
  if (fused == 0 || fused == run->target->level_count || !gives_sigmoids(m)) return CMZ_OK;
  cmz_target *target = cmz_arena_copy(m->arena, run->target, sizeof *target);
  for (uint32_t i = 0; i < target->level_count; i++) {
    if (target->levels[i]->fma) continue;
    cmz_cpu_row *row = cmz_arena_copy(m->arena, target->levels[i], sizeof *row);
    row->soft_fma = 1;
    target->levels[i] = row;
  }
  run->target = target;
  return CMZ_OK;
}
