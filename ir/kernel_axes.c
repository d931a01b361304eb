/* kernel_axes.c - splitting and merging the axes of whole kernels.
 * In: a kernel. Out: the same kernel over other axes. Always holds: iterations keep their order, so
 * that sums of floats keep their value, but for terms that are zero; ARGMAX and ARGMIN keep their
 * one axis. */
#include "kernel_internal.h"

#include <math.h>

/* Neighbouring axes OLD give way to axes FRESH in every list; uses of old[i] become replacement[i].
 */
typedef struct axis_rewrite {
  cmz_kernel *k;
  uint32_t old_count, fresh_count;
  uint16_t old[2], fresh[2];
  cmz_expr replacement[2];
  cmz_expr guard; /* terms of a reduction count only where it holds; 0: always */
  cmz_expr *memo;
  uint32_t memo_count;
} axis_rewrite;

/* Replaces the run of old axes in a list; its new length. */
static uint32_t rewrite_list(const axis_rewrite *w, uint16_t *axes, uint32_t count,
                             uint32_t capacity) {
  for (uint32_t i = 0; i + w->old_count <= count; i++) {
    if (memcmp(&axes[i], w->old, w->old_count * sizeof axes[0])) continue;
    if (count - w->old_count + w->fresh_count > capacity) return count;
    uint32_t rest = i + w->old_count;
    memmove(&axes[i + w->fresh_count], &axes[rest], (count - rest) * sizeof axes[0]);
    memcpy(&axes[i], w->fresh, w->fresh_count * sizeof axes[0]);
    return count - w->old_count + w->fresh_count;
  }
  return count;
}

static bool is_arg_reduce(const cmz_expr_node *n) { return n->reduce_op >= CMZ_REDUCE_ARGMAX; }

/* What a term that does not count contributes to reduction N. */
static cmz_expr identity(cmz_kernel *k, const cmz_expr_node *n) {
  cmz_dtype type = (cmz_dtype)n->dtype;
  bool highest = n->reduce_op == CMZ_REDUCE_MIN;
  switch ((cmz_reduce_op)n->reduce_op) {
  case CMZ_REDUCE_PROD:
    return cmz_x_const(k, type, 1);
  case CMZ_REDUCE_AND:
    return cmz_x_int(k, type, -1);
  case CMZ_REDUCE_MAX:
  case CMZ_REDUCE_MIN:
    if (cmz_dtype_is_float(type)) return cmz_x_float(k, type, highest ? INFINITY : -INFINITY);
    if (type == CMZ_U64) return cmz_x_int(k, type, highest ? -1 : 0);
    if (type == CMZ_I64) return cmz_x_int(k, type, highest ? INT64_MAX : INT64_MIN);
    if (type == CMZ_I32) return cmz_x_int(k, type, highest ? INT32_MAX : INT32_MIN);
    return cmz_x_int(k, type, highest ? UINT32_MAX : 0); /* wraps to bool */
  default:
    return cmz_x_const(k, type, 0);
  }
}

static cmz_expr rewrite(axis_rewrite *w, cmz_expr e) {
  if (!e || w->memo[e]) return e ? w->memo[e] : 0;
  cmz_kernel *k = w->k;
  cmz_expr_node n = *cmz_x_get(k, e);
  cmz_expr args[3] = {0}, result = e;
  bool same = true;
  for (int i = 0; i < 3 && n.args[i]; i++) {
    args[i] = rewrite(w, n.args[i]);
    same &= args[i] == n.args[i];
  }
  if (n.op == CMZ_X_AXIS) {
    for (uint32_t i = 0; i < w->old_count; i++)
      if (n.i == w->old[i]) result = w->replacement[i];
  } else if (n.op == CMZ_X_REDUCE) {
    uint32_t count = rewrite_list(w, n.axes, n.axis_count, CMZ_REDUCE_MAX_AXES);
    bool bound = memcmp(n.axes, cmz_x_get(k, e)->axes, sizeof n.axes) || count != n.axis_count;
    if (bound && w->guard) args[0] = cmz_x_select(k, w->guard, args[0], identity(k, &n));
    if (bound || !same)
      result = args[1] ? cmz_x_sum_from(k, args[1], args[0], n.axes, count)
                       : cmz_x_reduce(k, (cmz_reduce_op)n.reduce_op, args[0], n.axes, count);
  } else if (!same) {
    result = cmz_x_rebuild(k, e, args);
  }
  return w->memo[e] = result;
}

static void start(axis_rewrite *w) {
  w->memo_count = w->k->exprs.count;
  w->memo = CMZ_NEW_ARRAY(w->k->arena, cmz_expr, w->memo_count);
}

static void rewrite_kernel(axis_rewrite *w) {
  start(w);
  for (uint32_t s = 0; s < w->k->stores.count; s++) {
    cmz_store store = w->k->stores.data[s];
    store.axis_count = rewrite_list(w, store.axes, store.axis_count, CMZ_STORE_MAX_AXES);
    store.index = rewrite(w, store.index);
    store.value = rewrite(w, store.value);
    store.predicate = rewrite(w, store.predicate);
    w->k->stores.data[s] = store;
  }
}

/* ---- where axes are listed ---- */

typedef struct axis_lists {
  bool found;      /* some list has the first of the axes */
  bool arg, other; /* an ARG reduction / a reduction other than SUM lists it */
  bool full;       /* a list that has it can take no more axes */
  bool apart;      /* a list has one of the axes without the other next to it */
  bool store;
} axis_lists;

static void look_at_list(axis_lists *l, const uint16_t *axes, uint32_t count, uint32_t capacity,
                         uint16_t a, uint16_t b) {
  for (uint32_t i = 0; i < count; i++) {
    if (axes[i] == a) {
      l->found = true;
      l->full |= count == capacity;
      l->apart |= i + 1 == count || axes[i + 1] != b;
    }
    if (axes[i] == b) l->apart |= i == 0 || axes[i - 1] != a;
  }
}

static void look_at(const cmz_kernel *k, cmz_expr e, uint16_t a, uint16_t b, axis_lists *l,
                    bool *seen) {
  if (!e || seen[e]) return;
  seen[e] = true;
  const cmz_expr_node *n = cmz_x_get(k, e);
  for (uint32_t i = 0; i < n->axis_count; i++)
    if (n->axes[i] == a || n->axes[i] == b) {
      l->arg |= is_arg_reduce(n);
      l->other |= n->reduce_op != CMZ_REDUCE_SUM;
    }
  look_at_list(l, n->axes, n->axis_count, CMZ_REDUCE_MAX_AXES, a, b);
  for (int i = 0; i < 3; i++) look_at(k, n->args[i], a, b, l, seen);
}

/* Every list of the kernel in which A (or B) occurs. */
static axis_lists find_lists(const cmz_kernel *k, uint16_t a, uint16_t b) {
  axis_lists l = {0};
  bool *seen = CMZ_NEW_ARRAY(k->arena, bool, k->exprs.count);
  for (uint32_t s = 0; s < k->stores.count; s++) {
    const cmz_store *store = &k->stores.data[s];
    look_at_list(&l, store->axes, store->axis_count, CMZ_STORE_MAX_AXES, a, b);
    l.store |= l.found;
    look_at(k, store->index, a, b, &l, seen);
    look_at(k, store->value, a, b, &l, seen);
    look_at(k, store->predicate, a, b, &l, seen);
  }
  return l;
}

/* ---- split ---- */

/* Over ceil(extent / factor) * factor iterations; past the extent, when GUARDED, terms are left out
 * and nothing is stored. */
static bool split(cmz_kernel *k, uint16_t axis, uint32_t factor, bool guarded, uint16_t *outer,
                  uint16_t *inner) {
  axis_lists lists = find_lists(k, axis, axis);
  if (lists.arg || lists.full || factor < 2) return false;
  cmz_axis a = k->axes.data[axis];
  cmz_expr size = cmz_x_index(k, factor);
  cmz_expr up = cmz_x2(k, CMZ_X_ADD, a.extent, cmz_x_index(k, (int64_t)factor - 1));
  axis_rewrite w = {.k = k, .old_count = 1, .fresh_count = 2, .old = {axis}};
  w.fresh[0] = *outer = cmz_kernel_add_axis(k, a.kind, cmz_x2(k, CMZ_X_FLOORDIV, up, size));
  w.fresh[1] = *inner = cmz_kernel_add_axis(k, a.kind, size);
  k->axes.data[*outer].outer = true;
  if (a.chain >= factor) k->axes.data[*outer].chain = a.chain / factor;
  else k->axes.data[*inner].chain = a.chain;
  w.replacement[0] = cmz_x2(k, CMZ_X_ADD, cmz_x2(k, CMZ_X_MUL, cmz_x_axis(k, *outer), size),
                            cmz_x_axis(k, *inner));
  if (guarded) w.guard = cmz_x2(k, CMZ_X_LT, w.replacement[0], a.extent);
  rewrite_kernel(&w);
  for (uint32_t s = 0; s < k->stores.count && guarded; s++) {
    cmz_store *store = &k->stores.data[s];
    bool has = false;
    for (uint32_t i = 0; i < store->axis_count; i++) has |= store->axes[i] == *outer;
    if (!has) continue;
    store->predicate = store->predicate ? cmz_x2(k, CMZ_X_AND, store->predicate, w.guard) : w.guard;
  }
  return true;
}

void cmz_kernel_split_axis(cmz_kernel *k, uint16_t axis, uint32_t factor, uint16_t *outer,
                           uint16_t *inner) {
  int64_t extent;
  bool whole = cmz_x_is_int(k, k->axes.data[axis].extent, &extent) && extent % factor == 0;
  *outer = *inner = axis;
  split(k, axis, factor, !whole, outer, inner);
}

/* ---- merge ---- */

/* Whether a division of something with AXIS is left in E. */
static bool divides_axis(const cmz_kernel *k, cmz_expr e, uint16_t axis, bool *seen) {
  if (!e || seen[e] || !cmz_x_uses_axis(k, e, axis)) return false;
  seen[e] = true;
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (n->op == CMZ_X_FLOORDIV || n->op == CMZ_X_MOD) return true;
  for (int i = 0; i < 3; i++)
    if (divides_axis(k, n->args[i], axis, seen)) return true;
  return false;
}

/* The same where AXIS may also be bound by reductions inside E. */
static bool body_divides(const cmz_kernel *k, cmz_expr e, uint16_t axis, bool *seen,
                         bool *visited) {
  if (!e || visited[e]) return false;
  visited[e] = true;
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (divides_axis(k, e, axis, seen)) return true;
  for (int i = 0; i < 3; i++)
    if (body_divides(k, n->args[i], axis, seen, visited)) return true;
  return false;
}

static bool merge_pair(cmz_kernel *k, uint16_t a, uint16_t b) {
  axis_lists lists = find_lists(k, a, b);
  if (lists.arg || lists.apart || k->axes.data[a].kind != k->axes.data[b].kind) return false;
  cmz_expr size = k->axes.data[b].extent;
  axis_rewrite w = {.k = k, .old_count = 2, .fresh_count = 1, .old = {a, b}};
  cmz_expr extent = cmz_x2(k, CMZ_X_MUL, k->axes.data[a].extent, size);
  uint16_t fresh = w.fresh[0] = cmz_kernel_add_axis(k, k->axes.data[a].kind, extent);
  int64_t inner;
  uint32_t chain = k->axes.data[a].chain;
  if (chain && cmz_x_is_int(k, size, &inner) && inner <= UINT32_MAX / chain)
    k->axes.data[fresh].chain = chain * (uint32_t)inner;
  if (k->axes.data[a].strands == k->axes.data[b].strands)
    k->axes.data[fresh].strands = k->axes.data[a].strands;
  cmz_expr whole = cmz_x_axis(k, fresh);
  w.replacement[0] = cmz_x2(k, CMZ_X_FLOORDIV, whole, size);
  w.replacement[1] = cmz_x2(k, CMZ_X_MOD, whole, size);
  start(&w);
  cmz_expr *results = CMZ_NEW_ARRAY(k->arena, cmz_expr, (size_t)k->stores.count * 3);
  for (uint32_t s = 0; s < k->stores.count; s++) {
    const cmz_store store = k->stores.data[s];
    results[3 * s] = rewrite(&w, store.index);
    results[3 * s + 1] = rewrite(&w, store.value);
    results[3 * s + 2] = rewrite(&w, store.predicate);
  }
  bool *seen = CMZ_NEW_ARRAY(k->arena, bool, k->exprs.count);
  bool *visited = CMZ_NEW_ARRAY(k->arena, bool, k->exprs.count);
  bool fits = true;
  for (uint32_t i = 0; fits && i < k->stores.count * 3; i++)
    fits = !body_divides(k, results[i], fresh, seen, visited);
  if (!fits) return false; /* the fresh axis stays unused until the kernel is compacted */
  for (uint32_t s = 0; s < k->stores.count; s++) {
    cmz_store *store = &k->stores.data[s];
    store->axis_count = rewrite_list(&w, store->axes, store->axis_count, CMZ_STORE_MAX_AXES);
    store->index = results[3 * s];
    store->value = results[3 * s + 1];
    store->predicate = results[3 * s + 2];
  }
  return true;
}

/* Merges the first pair of neighbours that can be; failed pairs are remembered in TRIED. */
static bool merge_in_list(cmz_kernel *k, const uint16_t *axes, uint32_t count, uint64_t *tried) {
  for (uint32_t i = 0; i + 1 < count; i++) {
    uint16_t a = axes[i], b = axes[i + 1];
    uint64_t bit = (uint64_t)1 << ((a * 7u + b) & 63); /* a collision only forgoes a merge */
    if (*tried & bit) continue;
    if (merge_pair(k, a, b)) return true;
    *tried |= bit;
  }
  return false;
}

static bool merge_in_expr(cmz_kernel *k, cmz_expr e, bool *seen, uint64_t *tried) {
  if (!e || seen[e]) return false;
  seen[e] = true;
  const cmz_expr_node n = *cmz_x_get(k, e);
  if (n.op == CMZ_X_REDUCE && merge_in_list(k, n.axes, n.axis_count, tried)) return true;
  for (int i = 0; i < 3; i++)
    if (merge_in_expr(k, n.args[i], seen, tried)) return true;
  return false;
}

static bool merge_one(cmz_kernel *k, uint64_t *tried) {
  bool *seen = CMZ_NEW_ARRAY(k->arena, bool, k->exprs.count);
  for (uint32_t s = 0; s < k->stores.count; s++) {
    const cmz_store store = k->stores.data[s];
    if (merge_in_list(k, store.axes, store.axis_count, tried)) return true;
    if (merge_in_expr(k, store.value, seen, tried)) return true;
  }
  return false;
}

void cmz_kernel_merge_axes(cmz_kernel *k) {
  uint64_t tried = 0;
  while (merge_one(k, &tried)) {
  }
  cmz_kernel_compact(k);
}

/* ---- blocked reductions ---- */

/* The largest constant up to LIMIT by which something is divided that is AXIS itself, and that
 * divides EXTENT (0: any extent); 0: none. */
static int64_t block_of(const cmz_kernel *k, cmz_expr e, uint16_t axis, int64_t extent,
                        bool *seen) {
  if (!e || seen[e]) return 0;
  seen[e] = true;
  const cmz_expr_node *n = cmz_x_get(k, e);
  int64_t block = 0, value;
  if ((n->op == CMZ_X_FLOORDIV || n->op == CMZ_X_MOD) && cmz_x_is_int(k, n->args[1], &value) &&
      value > 1 && extent % value == 0) {
    const cmz_expr_node *a = cmz_x_get(k, n->args[0]);
    if (a->op == CMZ_X_AXIS && a->i == axis) block = value;
  }
  for (int i = 0; i < 3; i++) {
    int64_t inside = block_of(k, n->args[i], axis, extent, seen);
    block = CMZ_MAX(block, inside);
  }
  return block;
}

static int64_t block_of_axis(const cmz_kernel *k, uint16_t axis, int64_t extent) {
  int64_t block = 0;
  bool *seen = CMZ_NEW_ARRAY(k->arena, bool, k->exprs.count);
  for (uint32_t s = 0; s < k->stores.count; s++) {
    int64_t inside = block_of(k, k->stores.data[s].value, axis, extent, seen);
    block = CMZ_MAX(block, inside);
  }
  return block;
}

static bool is_zero(const cmz_kernel *k, cmz_expr e) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  return (n->op == CMZ_X_CONST_INT && n->i == 0) || (n->op == CMZ_X_CONST_FLOAT && n->f == 0);
}

static bool is_padded(const cmz_kernel *k, cmz_expr load, uint16_t axis, int64_t block) {
  const cmz_kernel_pool *pool = cmz_pool(k);
  for (uint32_t i = 0; i < pool->padded.count; i++) {
    const cmz_padded_load *p = &pool->padded.data[i];
    if (p->load == load && p->axis == axis && p->block == block) return true;
  }
  return false;
}

/* Whether every load in E may be done for AXIS in the padding of its last block. */
static bool readable_in_padding(const cmz_kernel *k, cmz_expr e, uint16_t axis, int64_t block) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (!cmz_x_uses_axis(k, e, axis)) return true;
  if (n->op == CMZ_X_LOAD) return is_padded(k, e, axis, block);
  if (n->op == CMZ_X_REDUCE) return false;
  for (int i = 0; i < 3; i++)
    if (n->args[i] && !readable_in_padding(k, n->args[i], axis, block)) return false;
  return true;
}

/* Whether E is zero, and reads nothing out of bounds, for AXIS in the padding of its last block. */
static bool zero_in_padding(const cmz_kernel *k, cmz_expr e, uint16_t axis, int64_t block) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_LOAD:
    return is_padded(k, e, axis, block);
  case CMZ_X_MUL: /* both: zero times infinity is not zero; of integers one will do */
    if (cmz_dtype_is_int((cmz_dtype)n->dtype))
      return (zero_in_padding(k, n->args[0], axis, block) &&
              readable_in_padding(k, n->args[1], axis, block)) ||
             (zero_in_padding(k, n->args[1], axis, block) &&
              readable_in_padding(k, n->args[0], axis, block));
    return zero_in_padding(k, n->args[0], axis, block) &&
           zero_in_padding(k, n->args[1], axis, block);
  case CMZ_X_ADD:
  case CMZ_X_SUB:
    return cmz_dtype_is_float((cmz_dtype)n->dtype) && zero_in_padding(k, n->args[0], axis, block) &&
           zero_in_padding(k, n->args[1], axis, block);
  case CMZ_X_CAST:
  case CMZ_X_NEG:
  case CMZ_X_ABS:
    return zero_in_padding(k, n->args[0], axis, block);
  case CMZ_X_SELECT:
    return !cmz_x_info(k, n->args[0])->has_load && is_zero(k, n->args[2]) &&
           zero_in_padding(k, n->args[1], axis, block);
  default:
    return false;
  }
}

static bool all_zero_in_padding(const cmz_kernel *k, cmz_expr e, uint16_t axis, int64_t block,
                                bool *seen) {
  if (!e || seen[e]) return true;
  seen[e] = true;
  const cmz_expr_node *n = cmz_x_get(k, e);
  for (uint32_t i = 0; i < n->axis_count; i++)
    if (n->axes[i] == axis && !zero_in_padding(k, n->args[0], axis, block)) return false;
  for (int i = 0; i < 3; i++)
    if (!all_zero_in_padding(k, n->args[i], axis, block, seen)) return false;
  return true;
}

static bool splits_by(const cmz_kernel *k, uint16_t axis, int64_t extent, int64_t block) {
  return block >= 2 && block <= 4096 && block < extent && !find_lists(k, axis, axis).store;
}

static void split_blocked(cmz_kernel *k, uint16_t axis) {
  int64_t extent;
  if (!cmz_x_is_int(k, k->axes.data[axis].extent, &extent)) return;
  int64_t block = block_of_axis(k, axis, 0), even = block_of_axis(k, axis, extent);
  bool guarded = false;
  if (block < 2 || block > 4096 || find_lists(k, axis, axis).store) return;
  if (block != even) {
    guarded = find_lists(k, axis, axis).other;
    bool *seen = CMZ_NEW_ARRAY(k->arena, bool, k->exprs.count);
    for (uint32_t s = 0; s < k->stores.count && !guarded; s++)
      guarded = !all_zero_in_padding(k, k->stores.data[s].value, axis, block, seen);
  }
  /* A test in every step costs more than what is left of the divisions. */
  if (guarded && splits_by(k, axis, extent, even)) {
    block = even;
    guarded = false;
  }
  uint16_t outer, inner;
  split(k, axis, (uint32_t)block, guarded, &outer, &inner);
}

void cmz_kernel_split_blocks(cmz_kernel *k) {
  uint32_t count = k->axes.count;
  for (uint16_t a = 0; a < count; a++)
    if (k->axes.data[a].kind == CMZ_AXIS_REDUCE) split_blocked(k, a);
  cmz_kernel_compact(k);
}

void cmz_kernel_split_blocked_reductions(cmz_kernel *k) {
  for (uint16_t a = 0; a < k->axes.count;
       a++) /* blocks may be split again: 16 channels as 4 by 4 */
    if (k->axes.data[a].kind == CMZ_AXIS_REDUCE) split_blocked(k, a);
  cmz_kernel_split_packed_reductions(k);
}

/* Axes that a split leaves behind may be divided again (a group, then the codes of a byte). */
void cmz_kernel_split_packed_reductions(cmz_kernel *k) {
  for (uint16_t a = 0; a < k->axes.count && k->axes.count < 200; a++) {
    int64_t extent;
    if (k->axes.data[a].kind != CMZ_AXIS_REDUCE ||
        !cmz_x_is_int(k, k->axes.data[a].extent, &extent))
      continue;
    int64_t block = block_of_axis(k, a, extent);
    uint16_t outer, inner;
    if (splits_by(k, a, extent, block)) split(k, a, (uint32_t)block, false, &outer, &inner);
  }
  cmz_kernel_compact(k);
}
