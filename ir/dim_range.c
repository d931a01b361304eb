/* dim_range.c - bounds of symbolic sizes over all values of their symbols, and their value at given
 * symbols. In: ids. Out: intervals, values. Always holds: an interval contains every value that
 * evaluation can give; INT64_MIN and INT64_MAX stand for "no bound". Recursion is bounded by the
 * pool's depth limit. */
#include "dim_pool.h"

#include <math.h>

typedef struct interval {
  int64_t low, high;
} interval;
typedef __int128 wide;

static const interval everything = {INT64_MIN, INT64_MAX};

static int64_t clamp(wide value) {
  if (value <= INT64_MIN) return INT64_MIN;
  return value >= INT64_MAX ? INT64_MAX : (int64_t)value;
}

static bool infinite(int64_t v) { return v == INT64_MIN || v == INT64_MAX; }

static interval add(interval a, interval b) {
  return (interval){infinite(a.low) || infinite(b.low) ? INT64_MIN : clamp((wide)a.low + b.low),
                    infinite(a.high) || infinite(b.high) ? INT64_MAX
                                                         : clamp((wide)a.high + b.high)};
}

/* Of bounds: infinity times zero is zero, infinity times anything else infinity. */
static int64_t times(int64_t a, int64_t b) {
  if (a == 0 || b == 0) return 0;
  if (infinite(a) || infinite(b)) return (a < 0) == (b < 0) ? INT64_MAX : INT64_MIN;
  return clamp((wide)a * b);
}

static interval hull(const int64_t *values, int count) {
  interval r = {values[0], values[0]};
  for (int i = 1; i < count; i++) {
    r.low = CMZ_MIN(r.low, values[i]);
    r.high = CMZ_MAX(r.high, values[i]);
  }
  return r;
}

static interval unite(interval a, interval b) {
  return (interval){CMZ_MIN(a.low, b.low), CMZ_MAX(a.high, b.high)};
}

static interval multiply(interval a, interval b) {
  int64_t corners[] = {times(a.low, b.low), times(a.low, b.high), times(a.high, b.low),
                       times(a.high, b.high)};
  return hull(corners, 4);
}

/* Of bounds, B >= 1. */
static int64_t divided(int64_t a, int64_t b) {
  if (infinite(a)) return b == INT64_MAX ? (a < 0 ? INT64_MIN : INT64_MAX) : a;
  if (b == INT64_MAX) return a < 0 ? -1 : 0;
  return cmz_floor_div(a, b);
}

static interval divide(interval a, interval b) {
  if (b.low >= 1) {
    int64_t corners[] = {divided(a.low, b.low), divided(a.low, b.high), divided(a.high, b.low),
                         divided(a.high, b.high)};
    return hull(corners, 4);
  }
  if (infinite(a.low) || infinite(a.high)) return everything;
  int64_t largest = clamp(CMZ_MAX(-(wide)a.low, (wide)a.high));
  largest = CMZ_MAX(largest, clamp(CMZ_MAX((wide)a.low, -(wide)a.high)));
  return (interval){clamp(-(wide)largest), largest};
}

static interval modulo(interval a, interval b) {
  int64_t top = b.high == INT64_MAX ? INT64_MAX : CMZ_MAX(b.high - 1, 0);
  int64_t bottom = b.low == INT64_MIN ? INT64_MIN : CMZ_MIN(b.low + 1, 0);
  if (b.low >= 1 && a.low >= 0) {
    if (a.high < b.low) return a;
    return (interval){0, CMZ_MIN(a.high, top)};
  }
  if (b.low >= 1) return (interval){0, top};
  return (interval){bottom, top};
}

static interval broadcast(interval a, interval b) {
  if (a.low > 1 || a.high < 1) return a;
  if (a.low == 1 && a.high == 1) return b;
  if (a.low == 1) a.low = 2; /* where A is 1, the size is B's */
  return unite(a, b);
}

bool cmz_dim_scale_value(int64_t value, double factor, int64_t *result) {
  double scaled = floor((double)value * factor);
  if (!(scaled >= -0x1p63 && scaled < 0x1p63)) return false;
  *result = (int64_t)scaled;
  return true;
}

static interval scale(interval a, int64_t bits, bool known) {
  double factor;
  memcpy(&factor, &bits, sizeof factor);
  if (!known || infinite(a.low) || !isfinite(factor)) {
    return everything;
  }
  int64_t low, high = INT64_MAX;
  if (infinite(a.high)) {
    if (!(factor >= 0) || !cmz_dim_scale_value(a.low, factor, &low)) return everything;
    return (interval){low, INT64_MAX};
  }
  if (!cmz_dim_scale_value(a.low, factor, &low) || !cmz_dim_scale_value(a.high, factor, &high))
    return everything;
  return (interval){CMZ_MIN(low, high), CMZ_MAX(low, high)};
}

static interval range(const cmz_dims *p, cmz_dim d);

static interval compute_range(const cmz_dims *p, const cmz_dim_node *n) {
  if (n->kind == CMZ_DIM_CONST) return (interval){n->value, n->value};
  if (n->kind == CMZ_DIM_SYMBOL)
    return (interval){p->symbols.data[n->value]->low, p->symbols.data[n->value]->high};
  interval a = range(p, n->args[0]), b = range(p, n->args[1]);
  switch (n->kind) {
  case CMZ_DIM_ADD:
    for (uint32_t i = 1; i < n->arg_count; i++) a = add(a, range(p, n->args[i]));
    return a;
  case CMZ_DIM_MUL:
    for (uint32_t i = 1; i < n->arg_count; i++) a = multiply(a, range(p, n->args[i]));
    return a;
  case CMZ_DIM_FLOORDIV:
    return divide(a, b);
  case CMZ_DIM_MOD:
    return modulo(a, b);
  case CMZ_DIM_MIN:
    return (interval){CMZ_MIN(a.low, b.low), CMZ_MIN(a.high, b.high)};
  case CMZ_DIM_MAX:
    return (interval){CMZ_MAX(a.low, b.low), CMZ_MAX(a.high, b.high)};
  case CMZ_DIM_BROADCAST:
    return broadcast(a, b);
  case CMZ_DIM_EQ:
    return (interval){0, 1};
  case CMZ_DIM_SELECT:
    return unite(b, range(p, n->args[2]));
  case CMZ_DIM_SCALE:
    return scale(a, b.low, b.low == b.high);
  default:
    return everything;
  }
}

static interval range(const cmz_dims *p, cmz_dim d) {
  if (d >= p->nodes.count || d <= CMZ_DIM_OVERFLOW) return everything;
  dim_node *n = p->nodes.data[d];
  if (n->range_generation != p->generation) {
    interval r = compute_range(p, &n->node);
    n->low = n->is_size ? CMZ_MAX(r.low, 0) : r.low;
    n->high = r.high;
    n->range_generation = p->generation;
  }
  return (interval){n->low, n->high};
}

void cmz_dim_range(const cmz_dims *p, cmz_dim d, int64_t *low, int64_t *high) {
  interval r = range(p, d);
  *low = r.low;
  *high = r.high;
}

void cmz_dim_mark_size(cmz_dims *p, cmz_dim d) {
  if (d >= p->nodes.count || d <= CMZ_DIM_OVERFLOW) return;
  dim_node *n = p->nodes.data[d];
  if (n->node.kind == CMZ_DIM_CONST || range(p, d).low >= 0) return;
  n->is_size = true; /* what was made of D keeps its wider range, which holds too */
  n->low = 0;
}

/* ---- evaluation ---- */

static bool combine(cmz_dim_kind kind, int64_t a, int64_t b, int64_t *value) {
  double factor;
  switch (kind) {
  case CMZ_DIM_ADD:
    return cmz_add_i64(a, b, value);
  case CMZ_DIM_MUL:
    return cmz_mul_i64(a, b, value);
  case CMZ_DIM_FLOORDIV:
    if (b == 0 || (a == INT64_MIN && b == -1)) return false;
    *value = cmz_floor_div(a, b);
    return true;
  case CMZ_DIM_MOD:
    if (b == 0) return false;
    *value = b == -1 ? 0 : cmz_floor_mod(a, b);
    return true;
  case CMZ_DIM_MIN:
    *value = CMZ_MIN(a, b);
    return true;
  case CMZ_DIM_MAX:
    *value = CMZ_MAX(a, b);
    return true;
  case CMZ_DIM_BROADCAST:
    *value = a == 1 ? b : a;
    return true;
  case CMZ_DIM_EQ:
    *value = a == b;
    return true;
  case CMZ_DIM_SCALE:
    memcpy(&factor, &b, sizeof factor);
    return cmz_dim_scale_value(a, factor, value);
  default:
    return false;
  }
}

/* HINTS: every symbol at its hint. */
static bool evaluate(const cmz_dims *p, cmz_dim d, const int64_t *symbols, bool hints,
                     int64_t *value) {
  if (d >= p->nodes.count || d <= CMZ_DIM_OVERFLOW) return false;
  const cmz_dim_node *n = &p->nodes.data[d]->node;
  if (n->kind == CMZ_DIM_CONST) {
    *value = n->value;
    return true;
  }
  if (n->kind == CMZ_DIM_SYMBOL) {
    if (!hints && !symbols) return false;
    *value = hints ? p->symbols.data[n->value]->hint : symbols[n->value];
    return true;
  }
  int64_t result, next;
  if (!evaluate(p, n->args[0], symbols, hints, &result)) return false;
  if (n->kind == CMZ_DIM_SELECT)
    return evaluate(p, n->args[result != 0 ? 1 : 2], symbols, hints, value);
  for (uint32_t i = 1; i < n->arg_count; i++)
    if (!evaluate(p, n->args[i], symbols, hints, &next) || !combine(n->kind, result, next, &result))
      return false;
  *value = result;
  return true;
}

bool cmz_dim_hint(const cmz_dims *p, cmz_dim d, int64_t *value) {
  return evaluate(p, d, NULL, true, value);
}

bool cmz_dim_eval(const cmz_dims *p, cmz_dim d, const int64_t *symbol_values, int64_t *value) {
  return evaluate(p, d, symbol_values, false, value);
}
