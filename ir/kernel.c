/* kernel.c - the pool of kernel expressions: interning, leaves, axes, operands, and facts about
 * expressions (bounds, free axes).
 * In: nodes from the constructors. Out: ids; equal expressions have equal ids.
 * Always holds: arguments precede users; the facts of an expression never change. */
#include "kernel_internal.h"

#include <math.h>

cmz_kernel *cmz_kernel_create(cmz_arena *arena, const char *name) {
  cmz_kernel *k = CMZ_NEW(arena, cmz_kernel);
  k->arena = arena;
  k->name = cmz_arena_string(arena, name);
  cmz_kernel_pool *pool = CMZ_NEW(arena, cmz_kernel_pool);
  pool->slot_count = 256;
  pool->slots = CMZ_NEW_ARRAY(arena, uint32_t, pool->slot_count);
  k->intern = pool;
  cmz_expr_node none = {0};
  cmz_expr_info unknown = {INT64_MIN, INT64_MAX, 0, false};
  cmz_vec_push(arena, &k->exprs, none);
  cmz_vec_push(arena, &pool->info, unknown);
  return k;
}

uint16_t cmz_kernel_add_axis(cmz_kernel *k, cmz_axis_kind kind, cmz_expr extent) {
  cmz_axis axis = {.kind = kind, .extent = extent};
  cmz_vec_push(k->arena, &k->axes, axis);
  return (uint16_t)(k->axes.count - 1);
}

uint16_t cmz_kernel_add_operand(cmz_kernel *k, cmz_dtype dtype, uint8_t access, bool constant,
                                cmz_expr elements) {
  cmz_operand operand = {dtype, access, constant, elements};
  cmz_vec_push(k->arena, &k->operands, operand);
  return (uint16_t)(k->operands.count - 1);
}

/* ---- bounds ---- */

typedef struct bounds {
  int64_t low, high;
} bounds;
static const bounds UNKNOWN = {INT64_MIN, INT64_MAX};

static int64_t add_bound(int64_t a, int64_t b, int64_t unknown) {
  int64_t sum;
  if (a == unknown || b == unknown || !cmz_add_i64(a, b, &sum)) return unknown;
  return sum;
}

static bounds add_bounds(bounds a, bounds b) {
  return (bounds){add_bound(a.low, b.low, INT64_MIN), add_bound(a.high, b.high, INT64_MAX)};
}

static bounds negate_bounds(bounds a) {
  return (bounds){a.high == INT64_MAX ? INT64_MIN : -a.high,
                  a.low == INT64_MIN ? INT64_MAX : -a.low};
}

/* A times B for B within [0, …] when both are nonnegative, or for finite bounds. */
static bounds mul_bounds(bounds a, bounds b) {
  if (a.low == a.high) {
    bounds t = a;
    a = b;
    b = t;
  }
  if (b.low == b.high && b.low != INT64_MIN && b.low != INT64_MAX) {
    if (b.low == 0) return b;
    if (b.low < 0) {
      a = negate_bounds(a);
      b.low = -b.low;
    }
    bounds r = UNKNOWN;
    if (a.low != INT64_MIN && !cmz_mul_i64(a.low, b.low, &r.low)) r.low = INT64_MIN;
    if (a.high != INT64_MAX && !cmz_mul_i64(a.high, b.low, &r.high)) r.high = INT64_MAX;
    return r;
  }
  if (a.low >= 0 && b.low >= 0) {
    bounds r = {0, INT64_MAX};
    if (!cmz_mul_i64(a.low, b.low, &r.low)) r.low = 0;
    if (a.high != INT64_MAX && b.high != INT64_MAX && !cmz_mul_i64(a.high, b.high, &r.high))
      r.high = INT64_MAX;
    return r;
  }
  if (a.low == INT64_MIN || b.low == INT64_MIN || a.high == INT64_MAX || b.high == INT64_MAX)
    return UNKNOWN;
  bounds r = {INT64_MAX, INT64_MIN};
  int64_t x[2] = {a.low, a.high}, y[2] = {b.low, b.high};
  for (int i = 0; i < 4; i++) {
    int64_t product;
    if (!cmz_mul_i64(x[i & 1], y[i >> 1], &product)) return UNKNOWN;
    r.low = CMZ_MIN(r.low, product);
    r.high = CMZ_MAX(r.high, product);
  }
  return r;
}

static bounds floordiv_bounds(bounds a, bounds b) {
  if (b.low == b.high && b.low > 0)
    return (bounds){a.low == INT64_MIN ? INT64_MIN : cmz_floor_div(a.low, b.low),
                    a.high == INT64_MAX ? INT64_MAX : cmz_floor_div(a.high, b.low)};
  if (a.low >= 0 && b.low >= 0) return (bounds){0, a.high};
  return UNKNOWN;
}

static bounds mod_bounds(bounds a, bounds b) {
  if (b.low < 0 || b.high <= 0) return UNKNOWN;
  bounds r = {0, b.high == INT64_MAX ? INT64_MAX : b.high - 1};
  if (a.low >= 0 && a.high < r.high) r.high = a.high;
  return r;
}

/* Bounds of everything that fits DTYPE. */
static bounds dtype_bounds(cmz_dtype dtype) {
  switch (dtype) {
  case CMZ_BOOL:
    return (bounds){0, 1};
  case CMZ_U8:
    return (bounds){0, UINT8_MAX};
  case CMZ_I8:
    return (bounds){INT8_MIN, INT8_MAX};
  case CMZ_U16:
    return (bounds){0, UINT16_MAX};
  case CMZ_I16:
    return (bounds){INT16_MIN, INT16_MAX};
  case CMZ_U32:
    return (bounds){0, UINT32_MAX};
  case CMZ_I32:
    return (bounds){INT32_MIN, INT32_MAX};
  default:
    return UNKNOWN;
  }
}

static bounds bounds_of(const cmz_kernel *k, cmz_expr e) {
  const cmz_expr_info *info = cmz_x_info(k, e);
  return (bounds){info->low, info->high};
}

static bounds axis_bounds(const cmz_kernel *k, int64_t axis) {
  if (axis >= CMZ_HIDDEN_AXIS) {
    const cmz_hidden_axis *h = &cmz_pool(k)->hidden.data[axis - CMZ_HIDDEN_AXIS];
    return (bounds){h->low, h->high};
  }
  bounds extent = bounds_of(k, k->axes.data[axis].extent);
  bounds r = {0, extent.high == INT64_MAX ? INT64_MAX : extent.high - 1};
  if (r.high < 0) r.high = 0; /* an empty domain: never evaluated */
  return r;
}

static bounds union_bounds(bounds a, bounds b) {
  return (bounds){CMZ_MIN(a.low, b.low), CMZ_MAX(a.high, b.high)};
}

static bounds shift_bounds(const cmz_expr_node *n, bounds a, bounds b) {
  if (b.low != b.high || b.low < 0 || b.low > 62) return UNKNOWN;
  if (n->op == CMZ_X_SHL) return mul_bounds(a, (bounds){(int64_t)1 << b.low, (int64_t)1 << b.low});
  if (a.low == INT64_MIN || a.high == INT64_MAX) return UNKNOWN;
  return (bounds){a.low >> b.low, a.high >> b.low};
}

static bounds reduce_bounds(const cmz_kernel *k, const cmz_expr_node *n) {
  switch ((cmz_reduce_op)n->reduce_op) {
  case CMZ_REDUCE_ARGMAX:
  case CMZ_REDUCE_ARGMIN:
  case CMZ_REDUCE_ARGMAX_LAST:
  case CMZ_REDUCE_ARGMIN_LAST:
    return axis_bounds(k, n->axes[0]);
  case CMZ_REDUCE_AND:
  case CMZ_REDUCE_OR:
    return n->dtype == CMZ_BOOL ? (bounds){0, 1} : UNKNOWN;
  default:
    return UNKNOWN; /* MIN and MAX over an empty domain give the type's limits */
  }
}

/* Bounds before wrapping to the type. */
static bounds node_bounds(const cmz_kernel *k, const cmz_expr_node *n) {
  bounds a = bounds_of(k, n->args[0]), b = bounds_of(k, n->args[1]);
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_CONST_INT:
    return (bounds){n->i, n->i};
  case CMZ_X_AXIS:
    return axis_bounds(k, n->i);
  case CMZ_X_PARAM:
    return (bounds){0, INT64_MAX};
  case CMZ_X_LOAD:
    return dtype_bounds(k->operands.data[n->i].dtype);
  case CMZ_X_REDUCE:
    return reduce_bounds(k, n);
  case CMZ_X_ADD:
    return add_bounds(a, b);
  case CMZ_X_SUB:
    return add_bounds(a, negate_bounds(b));
  case CMZ_X_NEG:
    return negate_bounds(a);
  case CMZ_X_MUL:
    return mul_bounds(a, b);
  case CMZ_X_DIV:
    return a.low >= 0 && b.low >= 0 ? floordiv_bounds(a, b) : UNKNOWN;
  case CMZ_X_FMOD:
    return a.low >= 0 && b.low >= 0 ? mod_bounds(a, b) : UNKNOWN;
  case CMZ_X_FLOORDIV:
    return floordiv_bounds(a, b);
  case CMZ_X_MOD:
    return mod_bounds(a, b);
  case CMZ_X_MIN:
    return (bounds){CMZ_MIN(a.low, b.low), CMZ_MIN(a.high, b.high)};
  case CMZ_X_MAX:
    return (bounds){CMZ_MAX(a.low, b.low), CMZ_MAX(a.high, b.high)};
  case CMZ_X_SELECT:
    return union_bounds(b, bounds_of(k, n->args[2]));
  case CMZ_X_AND:
    if (a.low >= 0 || b.low >= 0)
      return (bounds){0, CMZ_MIN(a.low >= 0 ? a.high : INT64_MAX, b.low >= 0 ? b.high : INT64_MAX)};
    return UNKNOWN;
  case CMZ_X_SHL:
  case CMZ_X_SHR:
    return shift_bounds(n, a, b);
  case CMZ_X_ABS:
    if (a.low >= 0) return a;
    if (a.low == INT64_MIN || a.high == INT64_MAX) return UNKNOWN;
    return (bounds){0, CMZ_MAX(-a.low, a.high)};
  case CMZ_X_SIGN:
    return (bounds){-1, 1};
  case CMZ_X_POPCOUNT:
    return (bounds){0, 64};
  case CMZ_X_CAST:
    return cmz_dtype_is_float((cmz_dtype)k->exprs.data[n->args[0]].dtype) ? UNKNOWN : a;
  default:
    return UNKNOWN;
  }
}

void cmz_x_compute_info(const cmz_kernel *k, const cmz_expr_node *n, cmz_expr_info *info) {
  *info = (cmz_expr_info){INT64_MIN, INT64_MAX, 0, n->op == CMZ_X_LOAD};
  for (int i = 0; i < 3 && n->args[i]; i++) {
    const cmz_expr_info *arg = cmz_x_info(k, n->args[i]);
    info->axes |= arg->axes;
    info->has_load |= arg->has_load;
  }
  if (n->op == CMZ_X_AXIS) info->axes = cmz_axis_bit((uint16_t)n->i);
  if (n->op == CMZ_X_REDUCE) {
    info->has_load = true; /* a sum may wrap around like loaded content */
    for (uint32_t i = 0; i < n->axis_count; i++)
      if (n->axes[i] < 63) info->axes &= ~cmz_axis_bit(n->axes[i]);
  }
  if (cmz_dtype_is_float((cmz_dtype)n->dtype)) return;
  bounds r = node_bounds(k, n), type = dtype_bounds((cmz_dtype)n->dtype);
  if (r.low < type.low || r.high > type.high || n->dtype == CMZ_U64) r = type;
  if (n->op == CMZ_X_CONST_INT) r = (bounds){n->i, n->i};
  if (n->dtype == CMZ_U64 && r.low < 0) r = UNKNOWN;
  info->low = r.low;
  info->high = r.high;
}

/* ---- interning ---- */

static uint64_t node_hash(const cmz_expr_node *n) { return cmz_hash64(n, sizeof *n, 1); }

static void grow_slots(cmz_kernel *k) {
  cmz_kernel_pool *pool = cmz_pool(k);
  pool->slot_count *= 2;
  pool->slots = CMZ_NEW_ARRAY(k->arena, uint32_t, pool->slot_count);
  for (uint32_t e = 1; e < k->exprs.count; e++) {
    uint32_t at = (uint32_t)node_hash(&k->exprs.data[e]) & (pool->slot_count - 1);
    while (pool->slots[at]) at = (at + 1) & (pool->slot_count - 1);
    pool->slots[at] = e;
  }
}

cmz_expr cmz_x_intern(cmz_kernel *k, const cmz_expr_node *node) {
  cmz_kernel_pool *pool = cmz_pool(k);
  uint32_t at = (uint32_t)node_hash(node) & (pool->slot_count - 1);
  for (; pool->slots[at]; at = (at + 1) & (pool->slot_count - 1))
    if (!memcmp(&k->exprs.data[pool->slots[at]], node, sizeof *node)) return pool->slots[at];
  cmz_expr_info info;
  cmz_x_compute_info(k, node, &info);
  cmz_expr e = k->exprs.count;
  cmz_expr_node copy = *node; /* NODE may lie in the vector that grows */
  cmz_vec_push(k->arena, &k->exprs, copy);
  cmz_vec_push(k->arena, &pool->info, info);
  pool->slots[at] = e;
  if (k->exprs.count * 2 > pool->slot_count) grow_slots(k);
  return e;
}

/* ---- leaves ---- */

int64_t cmz_int_wrap(cmz_dtype dtype, int64_t v) {
  switch (dtype) {
  case CMZ_BOOL:
    return v != 0;
  case CMZ_I32:
    return (int32_t)(uint64_t)v;
  case CMZ_U32:
    return (uint32_t)v;
  default:
    return v;
  }
}

cmz_expr cmz_x_int(cmz_kernel *k, cmz_dtype dtype, int64_t v) {
  dtype = cmz_dtype_info(dtype)->compute;
  cmz_expr_node n = {.op = CMZ_X_CONST_INT, .dtype = (uint8_t)dtype};
  n.i = cmz_int_wrap(dtype, v);
  return cmz_x_intern(k, &n);
}

cmz_expr cmz_x_index(cmz_kernel *k, int64_t v) { return cmz_x_int(k, CMZ_I64, v); }
cmz_expr cmz_x_bool(cmz_kernel *k, bool v) { return cmz_x_int(k, CMZ_BOOL, v); }

cmz_expr cmz_x_float(cmz_kernel *k, cmz_dtype dtype, double v) {
  dtype = cmz_dtype_info(dtype)->compute;
  cmz_expr_node n = {.op = CMZ_X_CONST_FLOAT, .dtype = (uint8_t)dtype};
  n.f = dtype == CMZ_F32 ? (double)(float)v : v;
  return cmz_x_intern(k, &n);
}

cmz_expr cmz_x_const(cmz_kernel *k, cmz_dtype dtype, double v) {
  if (cmz_dtype_is_float(dtype)) return cmz_x_float(k, dtype, v);
  if (dtype == CMZ_BOOL) return cmz_x_bool(k, v != 0);
  if (!(v > -9.3e18)) return cmz_x_int(k, dtype, INT64_MIN);
  if (v >= 9223372036854775808.0) /* beyond i64: the bits of an u64, or the largest i64 */
    return cmz_x_int(k, dtype,
                     dtype != CMZ_U64                ? INT64_MAX
                     : v >= 1.8446744073709551615e19 ? -1
                                                     : (int64_t)(uint64_t)v);
  return cmz_x_int(k, dtype, (int64_t)v);
}

cmz_expr cmz_x_axis(cmz_kernel *k, uint16_t axis) {
  int64_t extent;
  if (axis < CMZ_HIDDEN_AXIS && !cmz_pool(k)->raw &&
      cmz_x_is_int(k, k->axes.data[axis].extent, &extent) && extent == 1)
    return cmz_x_index(k, 0);
  cmz_expr_node n = {.op = CMZ_X_AXIS, .dtype = CMZ_I64};
  n.i = axis;
  return cmz_x_intern(k, &n);
}

cmz_expr cmz_x_param(cmz_kernel *k, uint32_t param) {
  if (param >= k->param_count) k->param_count = param + 1;
  cmz_expr_node n = {.op = CMZ_X_PARAM, .dtype = CMZ_I64};
  n.i = param;
  return cmz_x_intern(k, &n);
}

cmz_expr cmz_x_load(cmz_kernel *k, uint16_t operand, cmz_expr index) {
  cmz_dtype compute = cmz_dtype_info(k->operands.data[operand].dtype)->compute;
  cmz_expr_node n = {.op = CMZ_X_LOAD, .dtype = (uint8_t)compute, .args = {index}};
  n.i = operand;
  return cmz_x_intern(k, &n);
}

cmz_expr cmz_x_raw2(cmz_kernel *k, cmz_expr_op op, cmz_dtype dtype, cmz_expr a, cmz_expr b) {
  cmz_expr_node n = {.op = (uint8_t)op, .dtype = (uint8_t)dtype, .args = {a, b}};
  return cmz_x_intern(k, &n);
}

/* ---- queries ---- */

bool cmz_x_is_int(const cmz_kernel *k, cmz_expr e, int64_t *value) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (!e || n->op != CMZ_X_CONST_INT) return false;
  *value = n->i;
  return true;
}

void cmz_x_range(const cmz_kernel *k, cmz_expr e, int64_t *low, int64_t *high) {
  *low = cmz_x_info(k, e)->low;
  *high = cmz_x_info(k, e)->high;
}

static bool uses_axis(const cmz_kernel *k, cmz_expr e, uint16_t axis, bool *refuted) {
  if (!(cmz_x_info(k, e)->axes & cmz_axis_bit(axis)) || refuted[e]) return false;
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (n->op == CMZ_X_AXIS && n->i == axis) return true;
  bool bound = false;
  for (uint32_t i = 0; i < n->axis_count; i++) bound |= n->axes[i] == axis;
  for (int i = 0; i < 3 && n->args[i] && !bound; i++)
    if (uses_axis(k, n->args[i], axis, refuted)) return true;
  refuted[e] = true;
  return false;
}

bool cmz_x_uses_axis(const cmz_kernel *k, cmz_expr e, uint16_t axis) {
  /* Bits below 63 are exact. */
  bool maybe = cmz_x_info(k, e)->axes & cmz_axis_bit(axis);
  if (axis < 63 || !maybe) return maybe;
  cmz_arena_mark mark = cmz_arena_save(k->arena);
  bool uses = uses_axis(k, e, axis, CMZ_NEW_ARRAY(k->arena, bool, e + 1));
  cmz_arena_restore(k->arena, mark);
  return uses;
}
