/* kernel_rewrite.c - rewriting kernel expressions: substitution of axes, specialisation to axis
 * bounds, and splitting and merging the axes of whole kernels. In: a kernel. Out: the same kernel
 * with equal meaning. Always holds: rewritten expressions are built by the simplifying
 * constructors; an axis bound by an inner REDUCE is never replaced. */
#include "kernel_internal.h"

/* ---- substitution ---- */

typedef struct substitution {
  cmz_kernel *k;
  const uint16_t *axes;
  const cmz_expr *replacements;
  uint32_t count;
  uint64_t mask;
  cmz_expr *memo;
} substitution;

static cmz_expr substitute(substitution *s, cmz_expr e);

/* A REDUCE that binds replaced axes itself: they mean its own inside. */
static cmz_expr substitute_shadowed(substitution *s, cmz_expr e, const cmz_expr_node *n) {
  uint16_t axes[CMZ_STORE_MAX_AXES + CMZ_REDUCE_MAX_AXES];
  cmz_expr replacements[CMZ_STORE_MAX_AXES + CMZ_REDUCE_MAX_AXES];
  uint32_t count = 0;
  for (uint32_t i = 0; i < s->count && count < CMZ_COUNT_OF(axes); i++) {
    bool bound = false;
    for (uint32_t j = 0; j < n->axis_count; j++) bound |= n->axes[j] == s->axes[i];
    if (bound) continue;
    axes[count] = s->axes[i];
    replacements[count++] = s->replacements[i];
  }
  cmz_expr body =
      count ? cmz_x_substitute(s->k, n->args[0], axes, replacements, count) : n->args[0];
  cmz_expr args[3] = {body, n->args[1] ? substitute(s, n->args[1]) : 0, 0};
  return cmz_x_rebuild(s->k, e, args);
}

static cmz_expr substitute_new(substitution *s, cmz_expr e) {
  cmz_expr_node n = *cmz_x_get(s->k, e);
  if (n.op == CMZ_X_AXIS) {
    for (uint32_t i = 0; i < s->count; i++)
      if (s->axes[i] == n.i) return s->replacements[i];
    return e;
  }
  if (n.op == CMZ_X_REDUCE)
    for (uint32_t i = 0; i < s->count; i++)
      for (uint32_t j = 0; j < n.axis_count; j++)
        if (n.axes[j] == s->axes[i]) return substitute_shadowed(s, e, &n);
  cmz_expr args[3] = {0};
  bool same = true;
  for (int i = 0; i < 3 && n.args[i]; i++) {
    args[i] = substitute(s, n.args[i]);
    same &= args[i] == n.args[i];
  }
  return same ? e : cmz_x_rebuild(s->k, e, args);
}

static cmz_expr substitute(substitution *s, cmz_expr e) {
  if (!(cmz_x_info(s->k, e)->axes & s->mask)) return e;
  if (!s->memo[e]) {
    cmz_expr r = substitute_new(s, e);
    s->memo[e] = r;
  }
  return s->memo[e];
}

cmz_expr cmz_x_substitute(cmz_kernel *k, cmz_expr e, const uint16_t *axes,
                          const cmz_expr *replacements, uint32_t count) {
  substitution s = {k, axes, replacements, count, 0, NULL};
  for (uint32_t i = 0; i < count; i++) s.mask |= cmz_axis_bit(axes[i]);
  if (!e || !(cmz_x_info(k, e)->axes & s.mask)) return e;
  s.memo = CMZ_NEW_ARRAY(k->arena, cmz_expr, e + 1);
  return substitute(&s, e);
}

/* ---- specialisation ---- */

/* The stand-in for AXIS within [low, high]. */
static uint16_t hidden_axis(cmz_kernel *k, uint16_t axis, int64_t low, int64_t high) {
  cmz_kernel_pool *pool = cmz_pool(k);
  for (uint32_t i = 0; i < pool->hidden.count; i++) {
    const cmz_hidden_axis *h = &pool->hidden.data[i];
    if (h->axis == axis && h->low == low && h->high == high) return (uint16_t)(CMZ_HIDDEN_AXIS + i);
  }
  cmz_hidden_axis h = {axis, low, high};
  cmz_vec_push(k->arena, &pool->hidden, h);
  return (uint16_t)(CMZ_HIDDEN_AXIS + pool->hidden.count - 1);
}

cmz_expr cmz_x_specialise(cmz_kernel *k, cmz_expr e, const int64_t *low, const int64_t *high) {
  if (!e) return e;
  uint32_t count = 0, hidden_count = 0;
  uint16_t *axes = CMZ_NEW_ARRAY(k->arena, uint16_t, k->axes.count);
  uint16_t *hidden = CMZ_NEW_ARRAY(k->arena, uint16_t, k->axes.count);
  cmz_expr *replacements = CMZ_NEW_ARRAY(k->arena, cmz_expr, k->axes.count);
  cmz_expr *originals = CMZ_NEW_ARRAY(k->arena, cmz_expr, k->axes.count);
  for (uint16_t a = 0; a < k->axes.count; a++) {
    if (low[a] == INT64_MIN && high[a] == INT64_MAX) continue;
    axes[count] = a;
    if (low[a] == high[a]) {
      replacements[count++] = cmz_x_index(k, low[a]);
      continue;
    }
    int64_t axis_low, axis_high;
    cmz_expr original = cmz_x_axis(k, a);
    cmz_x_range(k, original, &axis_low, &axis_high);
    axis_low = CMZ_MAX(axis_low, low[a]);
    axis_high = CMZ_MIN(axis_high, high[a]);
    if (cmz_x_get(k, original)->op != CMZ_X_AXIS || axis_low > axis_high) continue;
    hidden[hidden_count] = hidden_axis(k, a, axis_low, axis_high);
    originals[hidden_count] = original;
    replacements[count++] = cmz_x_axis(k, hidden[hidden_count++]);
  }
  e = cmz_x_substitute(k, e, axes, replacements, count);
  return cmz_x_substitute(k, e, hidden, originals, hidden_count);
}

/* ---- whole kernels ---- */

typedef struct rebuild {
  cmz_kernel *from, *to;
  cmz_expr *memo;
  uint16_t *axes; /* new id of each axis */
} rebuild;

static cmz_expr rebuild_expr(rebuild *r, cmz_expr e) {
  if (!e || r->memo[e]) return e ? r->memo[e] : 0;
  const cmz_expr_node n = *cmz_x_get(r->from, e);
  cmz_expr args[3] = {0};
  for (int i = 0; i < 3; i++) args[i] = rebuild_expr(r, n.args[i]);
  /* The operation is looked up in the new pool: intern a copy with new axis numbers there. */
  cmz_expr_node copy = n;
  memcpy(copy.args, args, sizeof args);
  if (n.op == CMZ_X_AXIS) copy.i = r->axes[n.i];
  for (uint32_t i = 0; i < n.axis_count; i++) copy.axes[i] = r->axes[n.axes[i]];
  cmz_expr fresh = cmz_x_intern(r->to, &copy);
  return r->memo[e] = cmz_x_rebuild(r->to, fresh, args);
}

/* Gives AXIS the next number of the new kernel. */
static void place_axis(rebuild *r, uint16_t axis) {
  if (r->axes[axis] != UINT16_MAX) return;
  const cmz_axis old = r->from->axes.data[axis];
  r->axes[axis] = cmz_kernel_add_axis(r->to, old.kind, rebuild_expr(r, old.extent));
  r->to->axes.data[r->axes[axis]].chain = old.chain;
  r->to->axes.data[r->axes[axis]].outer = old.outer;
  r->to->axes.data[r->axes[axis]].strands = old.strands;
}

/* Places the axes of reductions, outer ones first: axis numbers follow the depth of the loops. */
static void place_axes(rebuild *r, cmz_expr e, bool *seen) {
  if (!e || seen[e]) return;
  seen[e] = true;
  const cmz_expr_node *n = cmz_x_get(r->from, e);
  for (uint32_t i = 0; i < n->axis_count; i++) place_axis(r, n->axes[i]);
  for (int i = 0; i < 3; i++) place_axes(r, n->args[i], seen);
}

void cmz_kernel_compact(cmz_kernel *k) {
  cmz_kernel *fresh = cmz_kernel_create(k->arena, k->name);
  rebuild r = {k, fresh, CMZ_NEW_ARRAY(k->arena, cmz_expr, k->exprs.count),
               CMZ_NEW_ARRAY(k->arena, uint16_t, k->axes.count)};
  for (uint32_t o = 0; o < k->operands.count; o++) {
    cmz_operand operand = k->operands.data[o];
    operand.elements = rebuild_expr(&r, operand.elements);
    cmz_vec_push(k->arena, &fresh->operands, operand);
  }
  bool *seen = CMZ_NEW_ARRAY(k->arena, bool, k->exprs.count);
  memset(r.axes, 0xff, k->axes.count * sizeof *r.axes);
  for (uint32_t s = 0; s < k->stores.count; s++)
    for (uint32_t i = 0; i < k->stores.data[s].axis_count; i++)
      place_axis(&r, k->stores.data[s].axes[i]);
  for (uint32_t s = 0; s < k->stores.count; s++) {
    place_axes(&r, k->stores.data[s].value, seen);
    place_axes(&r, k->stores.data[s].index, seen);
    place_axes(&r, k->stores.data[s].predicate, seen);
  }
  for (uint32_t s = 0; s < k->stores.count; s++) {
    cmz_store store = k->stores.data[s];
    for (uint32_t i = 0; i < store.axis_count; i++) store.axes[i] = r.axes[store.axes[i]];
    store.index = rebuild_expr(&r, store.index);
    store.value = rebuild_expr(&r, store.value);
    store.predicate = rebuild_expr(&r, store.predicate);
    cmz_vec_push(k->arena, &fresh->stores, store);
  }
  fresh->param_count = CMZ_MAX(k->param_count, fresh->param_count);
  fresh->flops = k->flops;
  *k = *fresh;
}
