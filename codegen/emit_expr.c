/* emit_expr.c - scalar expressions of a kernel description as operations.
 * In: an expression, the axes' present binding (instance, lane). Out: a value, placed in the
 * outermost scope where it can stand. Always holds: the same expression at the same instance is
 * emitted once in a scope and everything below it. */
#include "emit.h"

#include "mlir-c/BuiltinTypes.h"

/* ---- facts about expressions ---- */

static void analyse_node(emitter *e, uint32_t i) {
  const cmz_expr_node *n = &e->k->exprs.data[i];
  expr_info *info = &e->info[i];
  for (int a = 0; a < 3; a++) {
    if (!n->args[a]) continue;
    const expr_info *arg = &e->info[n->args[a]];
    for (size_t w = 0; w < CMZ_COUNT_OF(info->free.words); w++)
      info->free.words[w] |= arg->free.words[w];
    info->has_load |= arg->has_load;
    info->has_reduce |= arg->has_reduce;
    info->has_written_load |= arg->has_written_load;
  }
  if (n->op == CMZ_X_AXIS) info->free.words[n->i / 64] |= UINT64_C(1) << (n->i % 64);
  if (n->op == CMZ_X_LOAD) {
    info->has_load = true;
    info->has_written_load |= (e->k->operands.data[n->i].access & CMZ_WRITE) != 0;
  }
  if (n->op == CMZ_X_REDUCE) {
    info->has_reduce = true;
    for (uint32_t a = 0; a < n->axis_count; a++)
      info->free.words[n->axes[a] / 64] &= ~(UINT64_C(1) << (n->axes[a] % 64));
  }
}

void cmz_emit_analyse(emitter *e) {
  e->info = CMZ_NEW_ARRAY(e->arena, expr_info, e->k->exprs.count + 1);
  for (uint32_t i = 1; i < e->k->exprs.count; i++) analyse_node(e, i);
}

int32_t cmz_emit_vector_axis(const emitter *e, cmz_expr x) {
  const axis_set *free = &e->info[x].free;
  for (uint32_t w = 0; w < CMZ_COUNT_OF(free->words); w++)
    for (uint64_t bits = free->words[w]; bits; bits &= bits - 1) {
      uint32_t a = w * 64 + (uint32_t)__builtin_ctzll(bits);
      if (e->axes[a].lanes > 1) return (int32_t)a;
    }
  return -1;
}

bool cmz_emit_uses_vector(const emitter *e, cmz_expr x) { return cmz_emit_vector_axis(e, x) >= 0; }

bool cmz_emit_int(const emitter *e, cmz_expr x, int64_t *value) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  if (n->op != CMZ_X_CONST_INT) return false;
  *value = n->i;
  return true;
}

/* The depth of the outermost scope that can hold X at the present binding. */
uint32_t cmz_emit_depth(const emitter *e, cmz_expr x) {
  const expr_info *info = &e->info[x];
  if (info->has_written_load) return e->depth;
  uint32_t depth = info->has_load ? e->guard_depth : 0;
  for (uint32_t w = 0; w < CMZ_COUNT_OF(info->free.words); w++)
    for (uint64_t bits = info->free.words[w]; bits; bits &= bits - 1) {
      const axis_state *a = &e->axes[w * 64 + (uint32_t)__builtin_ctzll(bits)];
      if (a->depth > depth) depth = a->depth;
    }
  return depth;
}

static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * 0x9e3779b97f4a7c15ull;
  return h ^ (h >> 29);
}

/* Identifies X at its projection of the present instance, under guard GUARD (0: none). */
static uint64_t key_under(const emitter *e, cmz_expr x, uint64_t guard) {
  const expr_info *info = &e->info[x];
  uint64_t h = mix(0x5bd1e995, x);
  bool vector = false;
  for (uint32_t w = 0; w < CMZ_COUNT_OF(info->free.words); w++)
    for (uint64_t bits = info->free.words[w]; bits; bits &= bits - 1) {
      const axis_state *a = &e->axes[w * 64 + (uint32_t)__builtin_ctzll(bits)];
      h = mix(h, (uint64_t)a->id << 32 | a->offset);
      vector |= a->lanes > 1;
    }
  if (vector) h = mix(h, (uint64_t)(e->lane + 1) + (UINT64_C(1) << 50));
  if (info->has_load && guard) h = mix(h, guard + (UINT64_C(1) << 51));
  return h;
}

uint64_t cmz_emit_key(const emitter *e, cmz_expr x) {
  return key_under(e, x, e->guarded ? e->guard_id : 0);
}

bool cmz_emit_find(emitter *e, uint64_t key, MlirValue *value) {
  for (memo_entry *m = e->memo[key % CMZ_EMIT_BUCKETS]; m; m = m->next)
    if (m->key == key && m->scope->depth <= e->depth && e->path[m->scope->depth] == m->scope) {
      *value = m->value;
      return true;
    }
  return false;
}

void cmz_emit_remember(emitter *e, uint64_t key, uint32_t depth, MlirValue value) {
  memo_entry *m = CMZ_NEW(e->arena, memo_entry);
  *m = (memo_entry){e->memo[key % CMZ_EMIT_BUCKETS], key, e->path[depth], value};
  e->memo[key % CMZ_EMIT_BUCKETS] = m;
}

/* ---- bounds and known predicates ---- */

static int64_t saturating(int64_t a, int64_t b, bool multiply) {
  int64_t r;
  if (multiply ? __builtin_mul_overflow(a, b, &r) : __builtin_add_overflow(a, b, &r))
    return (multiply ? (a < 0) != (b < 0) : a < 0) ? INT64_MIN : INT64_MAX;
  return r;
}

static void range_of_product(int64_t al, int64_t ah, int64_t bl, int64_t bh, int64_t *low,
                             int64_t *high) {
  int64_t p[4] = {saturating(al, bl, true), saturating(al, bh, true), saturating(ah, bl, true),
                  saturating(ah, bh, true)};
  *low = *high = p[0];
  for (int i = 1; i < 4; i++) {
    *low = CMZ_MIN(*low, p[i]);
    *high = CMZ_MAX(*high, p[i]);
  }
}

static void range_of_axis(const emitter *e, uint32_t axis, int64_t *low, int64_t *high) {
  const axis_state *a = &e->axes[axis];
  if (a->bound && a->is_constant) {
    *low = a->value + a->offset;
    *high = *low + (a->lanes > 1 ? (int64_t)a->lanes - 1 : 0);
    if (a->lanes > 1 && e->lane >= 0) *low = *high = *low + e->lane;
    return;
  }
  *low = a->low;
  *high = a->high;
  if (!a->bound || !a->limited) return;
  int64_t plus = (int64_t)a->offset + (a->lanes > 1 && e->lane > 0 ? e->lane : 0);
  *low = CMZ_MAX(*low, a->base_low + plus);
  if (a->lanes > 1 && e->lane < 0) plus += (int64_t)a->lanes - 1;
  *high = CMZ_MIN(*high, a->base_high + plus);
}

void cmz_emit_range(emitter *e, cmz_expr x, int64_t *low, int64_t *high) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  int64_t al = INT64_MIN, ah = INT64_MAX, bl = INT64_MIN, bh = INT64_MAX;
  *low = INT64_MIN;
  *high = INT64_MAX;
  if (n->dtype != CMZ_I64 && n->dtype != CMZ_I32) return;
  if (n->op == CMZ_X_ADD || n->op == CMZ_X_SUB || n->op == CMZ_X_MUL || n->op == CMZ_X_FLOORDIV ||
      n->op == CMZ_X_MOD || n->op == CMZ_X_MIN || n->op == CMZ_X_MAX) {
    cmz_emit_range(e, n->args[0], &al, &ah);
    cmz_emit_range(e, n->args[1], &bl, &bh);
  }
  bool known = al != INT64_MIN && ah != INT64_MAX && bl != INT64_MIN && bh != INT64_MAX;
  switch (n->op) {
  case CMZ_X_CONST_INT:
    *low = *high = n->i;
    return;
  case CMZ_X_AXIS:
    range_of_axis(e, (uint32_t)n->i, low, high);
    return;
  case CMZ_X_PARAM:
    *low = 0;
    return;
  case CMZ_X_ADD:
    if (al != INT64_MIN && bl != INT64_MIN) *low = saturating(al, bl, false);
    if (ah != INT64_MAX && bh != INT64_MAX) *high = saturating(ah, bh, false);
    return;
  case CMZ_X_SUB:
    if (al != INT64_MIN && bh != INT64_MAX) *low = saturating(al, -bh, false);
    if (ah != INT64_MAX && bl != INT64_MIN) *high = saturating(ah, -bl, false);
    return;
  case CMZ_X_MUL:
    if (known) range_of_product(al, ah, bl, bh, low, high);
    else if (al >= 0 && bl >= 0) *low = saturating(al, bl, true);
    return;
  case CMZ_X_FLOORDIV:
    if (bl < 1) return;
    if (al != INT64_MIN) *low = al >= 0 ? (bh == INT64_MAX ? 0 : al / bh) : cmz_floor_div(al, bl);
    if (ah != INT64_MAX) *high = ah >= 0 ? ah / bl : -1;
    return;
  case CMZ_X_MOD:
    if (bl < 1) return;
    *low = 0;
    if (bh != INT64_MAX) *high = bh - 1;
    if (al >= 0 && ah < bl) {
      *low = al;
      *high = ah;
    }
    return;
  case CMZ_X_MIN:
    *low = CMZ_MIN(al, bl);
    *high = CMZ_MIN(ah, bh);
    return;
  case CMZ_X_MAX:
    *low = CMZ_MAX(al, bl);
    *high = CMZ_MAX(ah, bh);
    return;
  default:
    return;
  }
}

/* ---- operations ---- */

static MlirValue emit_axis(emitter *e, uint32_t axis) {
  axis_state *a = &e->axes[axis];
  cmz_builder *b = &e->b;
  if (!a->bound) return cmz_emit_fail(e, "an axis is used outside its loop");
  int64_t plus = a->offset;
  if (a->lanes > 1 && e->lane >= 0) plus += e->lane;
  MlirValue v = a->is_constant ? cmz_b_i64(b, a->value + plus) : a->base;
  if (!a->is_constant && plus) v = cmz_b_add(b, v, cmz_b_i64(b, plus));
  if ((a->lanes > 1 && e->lane > 0 && a->masked) || (a->clamped && a->offset > 0))
    v = cmz_b_min(b, v, a->last, true);
  if (a->lanes > 1 && e->lane < 0) {
    v = cmz_b_add(b, cmz_b_broadcast(b, v, a->lanes),
                  cmz_b_iota(b, cmz_b_vector(b->i64, a->lanes)));
    /* Lanes past the end repeat the last one, in conditions as in the addresses they guard. */
    if (a->masked) v = cmz_b_min(b, v, a->last, true);
  }
  return v;
}

static bool power_of_two(int64_t v) { return v > 0 && (v & (v - 1)) == 0; }

/* A divisor that cannot trap: zero becomes one (and so does -1, with the sign put right by the
 * caller's operation being exact for it; INT_MIN / -1 is the only other trap). */
static MlirValue safe_divisor(emitter *e, MlirValue y, bool is_signed, MlirValue *minus_one) {
  cmz_builder *b = &e->b;
  MlirType t = cmz_b_type(y);
  MlirValue one = cmz_b_int(b, t, 1);
  MlirValue bad = cmz_b_icmp(b, CMZ_B_IEQ, y, cmz_b_int(b, t, 0));
  if (is_signed) {
    *minus_one = cmz_b_icmp(b, CMZ_B_IEQ, y, cmz_b_int(b, t, -1));
    bad = cmz_b_2(b, "arith.ori", bad, *minus_one);
  }
  return cmz_b_select(b, bad, one, y);
}

static MlirValue emit_int_division(emitter *e, const cmz_expr_node *n, MlirValue x, MlirValue y) {
  cmz_builder *b = &e->b;
  bool is_signed = n->dtype == CMZ_I32 || n->dtype == CMZ_I64;
  int64_t c, low, high;
  bool constant = cmz_emit_int(e, n->args[1], &c);
  bool want_rest = n->op == CMZ_X_MOD || n->op == CMZ_X_FMOD;
  cmz_emit_range(e, n->args[0], &low, &high);
  if (constant && power_of_two(c) && (low >= 0 || n->op == CMZ_X_FLOORDIV || n->op == CMZ_X_MOD)) {
    if (want_rest) return cmz_b_2(b, "arith.andi", x, cmz_b_int(b, cmz_b_type(y), c - 1));
    return cmz_b_2(b, is_signed ? "arith.shrsi" : "arith.shrui", x,
                   cmz_b_int(b, cmz_b_type(y), __builtin_ctzll((uint64_t)c)));
  }
  MlirValue minus_one = {NULL};
  int64_t divisor_low, divisor_high;
  cmz_emit_range(e, n->args[1], &divisor_low, &divisor_high);
  if (divisor_low < 1) y = safe_divisor(e, y, is_signed, &minus_one);
  if (!is_signed || (low >= 0 && divisor_low >= 1))
    return cmz_b_2(b, want_rest ? "arith.remui" : "arith.divui", x, y);
  MlirValue zero = cmz_b_int(b, cmz_b_type(x), 0);
  MlirValue q = cmz_b_2(b, "arith.divsi", x, y), r = cmz_b_2(b, "arith.remsi", x, y);
  if (n->op == CMZ_X_FLOORDIV || n->op == CMZ_X_MOD) { /* the remainder follows the divisor */
    MlirValue differs = cmz_b_icmp(b, CMZ_B_SLT, cmz_b_2(b, "arith.xori", r, y), zero);
    MlirValue fix = cmz_b_2(b, "arith.andi", differs, cmz_b_icmp(b, CMZ_B_INE, r, zero));
    r = cmz_b_select(b, fix, cmz_b_add(b, r, y), r);
    q = cmz_b_select(b, fix, cmz_b_sub(b, q, cmz_b_int(b, cmz_b_type(q), 1)), q);
  }
  if (want_rest) return r;
  return minus_one.ptr ? cmz_b_select(b, minus_one, cmz_b_sub(b, zero, x), q) : q;
}

static MlirValue emit_float_division(emitter *e, const cmz_expr_node *n, MlirValue x, MlirValue y) {
  cmz_builder *b = &e->b;
  if (n->op == CMZ_X_FMOD) return cmz_b_fmod(b, x, y);
  if (n->op == CMZ_X_FLOORDIV) return cmz_b_math(b, CMZ_X_FLOOR, cmz_b_2(b, "arith.divf", x, y));
  MlirValue r = cmz_b_fmod(b, x, y); /* MOD: sign of the divisor */
  MlirValue zero = cmz_b_float(b, cmz_b_type(r), 0);
  MlirValue differs = cmz_b_2(b, "arith.xori", cmz_b_fcmp(b, CMZ_B_OLT, r, zero),
                              cmz_b_fcmp(b, CMZ_B_OLT, y, zero));
  MlirValue fix = cmz_b_2(b, "arith.andi", differs, cmz_b_fcmp(b, CMZ_B_UNE, r, zero));
  return cmz_b_select(b, fix, cmz_b_add(b, r, y), r);
}

/* Shifts by the width or more give zero (or the sign). */
static MlirValue emit_shift(emitter *e, const cmz_expr_node *n, MlirValue x, MlirValue y) {
  cmz_builder *b = &e->b;
  bool is_signed = n->dtype == CMZ_I32 || n->dtype == CMZ_I64;
  const char *name = n->op == CMZ_X_SHL ? "arith.shli" : is_signed ? "arith.shrsi" : "arith.shrui";
  int64_t c, bits = cmz_b_bits(cmz_b_type(x));
  if (cmz_emit_int(e, n->args[1], &c) && c >= 0 && c < bits) return cmz_b_2(b, name, x, y);
  cmz_b_match(b, &x, &y);
  MlirType t = cmz_b_type(y);
  MlirValue large = cmz_b_icmp(b, CMZ_B_UGE, y, cmz_b_int(b, t, bits));
  MlirValue r = cmz_b_2(b, name, x, cmz_b_select(b, large, cmz_b_int(b, t, bits - 1), y));
  if (n->op == CMZ_X_SHR && is_signed) return r;
  return cmz_b_select(b, large, cmz_b_int(b, t, 0), r);
}

static MlirValue emit_pow(emitter *e, const cmz_expr_node *n, MlirValue x) {
  cmz_builder *b = &e->b;
  const cmz_expr_node *y = &e->k->exprs.data[n->args[1]];
  if (!cmz_b_is_float(cmz_b_type(x))) return cmz_emit_fail(e, "POW of integers");
  if (y->op == CMZ_X_CONST_FLOAT && y->f == 1) return x;
  if (y->op == CMZ_X_CONST_FLOAT && y->f == 2) return cmz_b_mul(b, x, x);
  if (y->op == CMZ_X_CONST_FLOAT && y->f == 3) return cmz_b_mul(b, cmz_b_mul(b, x, x), x);
  if (y->op == CMZ_X_CONST_FLOAT && y->f == -1)
    return cmz_b_2(b, "arith.divf", cmz_b_float(b, cmz_b_type(x), 1), x);
  return cmz_b_pow(b, x, cmz_emit_value(e, n->args[1]));
}

static MlirValue emit_compare(emitter *e, const cmz_expr_node *n, MlirValue x, MlirValue y) {
  cmz_builder *b = &e->b;
  cmz_dtype t = (cmz_dtype)e->k->exprs.data[n->args[0]].dtype;
  bool is_signed = t == CMZ_I32 || t == CMZ_I64;
  if (t == CMZ_F32 || t == CMZ_F64)
    return cmz_b_fcmp(b,
                      n->op == CMZ_X_EQ   ? CMZ_B_OEQ
                      : n->op == CMZ_X_LT ? CMZ_B_OLT
                                          : CMZ_B_OLE,
                      x, y);
  if (n->op == CMZ_X_EQ) return cmz_b_icmp(b, CMZ_B_IEQ, x, y);
  if (n->op == CMZ_X_LT) return cmz_b_icmp(b, is_signed ? CMZ_B_SLT : CMZ_B_ULT, x, y);
  return cmz_b_icmp(b, is_signed ? CMZ_B_SLE : CMZ_B_ULE, x, y);
}

#define FAR (INT64_C(1) << 30) /* further apart than lanes can be */

static MlirValue near_i32(emitter *e, MlirValue v) {
  cmz_builder *b = &e->b;
  v = cmz_b_min(b, cmz_b_max(b, v, cmz_b_i64(b, -FAR), true), cmz_b_i64(b, FAR), true);
  return cmz_b_cast(b, "arith.trunci", v, b->i32);
}

/* A comparison of indices by lanes, both sides affine in the vector axis: where the first lane
 * stands, as one number, against the lanes' distances from it. Half the vectors of 64-bit ones. */
static bool compare_lanes(emitter *e, const cmz_expr_node *n, MlirValue *v) {
  cmz_builder *b = &e->b;
  int64_t strides[2];
  if (e->lane >= 0 || (n->op != CMZ_X_LT && n->op != CMZ_X_LE) || b->cpu->threads ||
      e->k->exprs.data[n->args[0]].dtype != CMZ_I64)
    return false;
  int32_t axis = cmz_emit_vector_axis(e, n->args[0]);
  if (axis < 0) axis = cmz_emit_vector_axis(e, n->args[1]);
  if (axis < 0) return false;
  const axis_state *a = &e->axes[axis];
  for (int i = 0; i < 2; i++)
    if (!cmz_emit_stride(e, n->args[i], (uint32_t)axis, &strides[i]) || strides[i] > FAR / 1024 ||
        strides[i] < -FAR / 1024)
      return false;
  e->lane = 0;
  MlirValue x = cmz_emit_value(e, n->args[0]), y = e->failed ? x : cmz_emit_value(e, n->args[1]);
  e->lane = -1;
  if (e->failed) {
    *v = x;
    return true;
  }
  MlirType lanes = cmz_b_vector(b->i32, a->lanes);
  MlirValue j = cmz_b_iota(b, lanes);
  if (a->masked) {
    MlirValue first = cmz_b_add(b, a->base, cmz_b_i64(b, a->offset));
    j = cmz_b_min(b, j, cmz_b_broadcast(b, near_i32(e, cmz_b_sub(b, a->last, first)), a->lanes),
                  true);
  }
  MlirValue moved = cmz_b_mul(b, j, cmz_b_int(b, lanes, strides[0] - strides[1]));
  MlirValue room = cmz_b_broadcast(b, near_i32(e, cmz_b_sub(b, y, x)), a->lanes);
  *v = cmz_b_icmp(b, n->op == CMZ_X_LT ? CMZ_B_SLT : CMZ_B_SLE, moved, room);
  return true;
}

static MlirValue emit_binary(emitter *e, const cmz_expr_node *n) {
  cmz_builder *b = &e->b;
  MlirValue lanes;
  if (compare_lanes(e, n, &lanes)) return lanes;
  MlirValue x = cmz_emit_value(e, n->args[0]);
  if (e->failed) return x;
  if (n->op == CMZ_X_POW) return emit_pow(e, n, x);
  MlirValue y = cmz_emit_value(e, n->args[1]);
  if (e->failed) return y;
  bool is_float = cmz_b_is_float(cmz_b_type(x));
  bool is_signed = n->dtype == CMZ_I32 || n->dtype == CMZ_I64;
  switch (n->op) {
  case CMZ_X_ADD:
    return cmz_b_add(b, x, y);
  case CMZ_X_SUB:
    return cmz_b_sub(b, x, y);
  case CMZ_X_MUL:
    return cmz_b_mul(b, x, y);
  case CMZ_X_DIV:
    if (is_float) return cmz_b_2(b, "arith.divf", x, y);
    return emit_int_division(e, n, x, y);
  case CMZ_X_FLOORDIV:
  case CMZ_X_MOD:
  case CMZ_X_FMOD:
    return is_float ? emit_float_division(e, n, x, y) : emit_int_division(e, n, x, y);
  case CMZ_X_MIN:
    /* the constant goes first: its NaN test folds away */
    if (e->k->exprs.data[n->args[1]].op == CMZ_X_CONST_FLOAT) return cmz_b_min(b, y, x, is_signed);
    return cmz_b_min(b, x, y, is_signed);
  case CMZ_X_MAX:
    if (e->k->exprs.data[n->args[1]].op == CMZ_X_CONST_FLOAT) return cmz_b_max(b, y, x, is_signed);
    return cmz_b_max(b, x, y, is_signed);
  case CMZ_X_AND:
    return cmz_b_2(b, "arith.andi", x, y);
  case CMZ_X_OR:
    return cmz_b_2(b, "arith.ori", x, y);
  case CMZ_X_XOR:
    return cmz_b_2(b, "arith.xori", x, y);
  case CMZ_X_SHL:
  case CMZ_X_SHR:
    return emit_shift(e, n, x, y);
  default:
    return emit_compare(e, n, x, y);
  }
}

static MlirValue emit_sign(emitter *e, const cmz_expr_node *n, MlirValue x) {
  cmz_builder *b = &e->b;
  MlirType t = cmz_b_type(x);
  MlirValue zero = cmz_b_const(b, t, 0), one = cmz_b_const(b, t, 1);
  if (n->dtype == CMZ_BOOL) return x;
  if (cmz_b_is_float(t)) { /* NaN and zero stay what they are */
    MlirValue r = cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OGT, x, zero), one, x);
    return cmz_b_select(b, cmz_b_fcmp(b, CMZ_B_OLT, x, zero), cmz_b_const(b, t, -1), r);
  }
  if (n->dtype == CMZ_U32 || n->dtype == CMZ_U64)
    return cmz_b_select(b, cmz_b_icmp(b, CMZ_B_INE, x, zero), one, zero);
  MlirValue r = cmz_b_select(b, cmz_b_icmp(b, CMZ_B_SGT, x, zero), one, zero);
  return cmz_b_select(b, cmz_b_icmp(b, CMZ_B_SLT, x, zero), cmz_b_int(b, t, -1), r);
}

static MlirValue emit_unary(emitter *e, const cmz_expr_node *n) {
  cmz_builder *b = &e->b;
  MlirValue x = cmz_emit_value(e, n->args[0]);
  if (e->failed) return x;
  MlirType t = cmz_b_type(x);
  bool is_float = cmz_b_is_float(t);
  switch (n->op) {
  case CMZ_X_NOT:
    return cmz_b_2(b, "arith.xori", x, cmz_b_int(b, t, -1));
  case CMZ_X_NEG:
    return is_float ? cmz_b_1(b, "arith.negf", x) : cmz_b_sub(b, cmz_b_int(b, t, 0), x);
  case CMZ_X_ABS:
    if (is_float) return cmz_b_1(b, "llvm.intr.fabs", x);
    if (n->dtype == CMZ_U32 || n->dtype == CMZ_U64 || n->dtype == CMZ_BOOL) return x;
    return cmz_b_max(b, x, cmz_b_sub(b, cmz_b_int(b, t, 0), x), true);
  case CMZ_X_SIGN:
    return emit_sign(e, n, x);
  case CMZ_X_IS_NAN:
    if (!is_float) return cmz_b_int(b, cmz_b_like(t, b->i1), 0);
    return cmz_b_fcmp(b, CMZ_B_UNO, x, x);
  case CMZ_X_IS_INF:
    if (!is_float) return cmz_b_int(b, cmz_b_like(t, b->i1), 0);
    return cmz_b_fcmp(b, CMZ_B_OEQ, cmz_b_1(b, "llvm.intr.fabs", x),
                      cmz_b_float(b, t, __builtin_inf()));
  case CMZ_X_CAST:
    x = cmz_b_convert(b, x, (cmz_dtype)e->k->exprs.data[n->args[0]].dtype, (cmz_dtype)n->dtype);
    if (!n->i) return x;
    x = cmz_b_encode(b, (cmz_dtype)n->i, x); /* through a narrower stored type */
    if (!x.ptr) return cmz_emit_fail(e, "a cast to a type that kernels do not write");
    return cmz_b_decode(b, (cmz_dtype)n->i, x);
  case CMZ_X_BITCAST:
    return cmz_b_bitcast(b, x, cmz_b_compute_type(b, (cmz_dtype)n->dtype));
  case CMZ_X_POPCOUNT:
    return cmz_b_1(b, "llvm.intr.ctpop", x);
  case CMZ_X_FLOOR:
  case CMZ_X_CEIL:
  case CMZ_X_ROUND_EVEN:
  case CMZ_X_TRUNC:
    if (!is_float) return x;
    break;
  default:
    break;
  }
  if (!is_float) return cmz_emit_fail(e, "a function of floats is applied to integers");
  return cmz_b_math(b, (cmz_expr_op)n->op, x);
}

/* ---- SELECT ---- */

/* Whether comparison or conjunction X of axes with constants holds somewhere: at their beginning.
 */
static bool holds_somewhere(emitter *e, cmz_expr x) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  int64_t low, high, bound;
  if (n->op == CMZ_X_AND) return holds_somewhere(e, n->args[0]) && holds_somewhere(e, n->args[1]);
  if (n->op != CMZ_X_LT || !cmz_emit_int(e, n->args[1], &bound)) return false;
  cmz_emit_range(e, n->args[0], &low, &high);
  return low != INT64_MIN && low < bound && !e->info[x].has_load;
}

/* Whether the loads below X need no guard by CONDITION, which holds somewhere: they do not depend
 * on what it depends on, or stay inside of their operands all the same (the padding of a layout).
 */
static bool loads_anyway(emitter *e, cmz_expr x, const axis_set *condition, uint8_t *seen) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  if (!x || seen[x] || !e->info[x].has_load) return true;
  seen[x] = 1;
  bool depends = false;
  for (size_t w = 0; w < CMZ_COUNT_OF(condition->words); w++)
    depends |= (e->info[x].free.words[w] & condition->words[w]) != 0;
  if (!depends) return true;
  if (n->op == CMZ_X_LOAD) {
    int64_t low, high, elements;
    cmz_emit_range(e, n->args[0], &low, &high);
    if (low < 0 || !cmz_emit_int(e, e->k->operands.data[n->i].elements, &elements) ||
        high >= elements)
      return false;
  }
  for (int i = 0; i < 3; i++)
    if (!loads_anyway(e, n->args[i], condition, seen)) return false;
  return true;
}

/* Computes the reductions below X that need no guard by CONDITION, before X is computed under it.
 */
static void reduce_before(emitter *e, cmz_expr x, cmz_expr condition) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  if (!x || e->failed || !e->info[x].has_reduce || n->op == CMZ_X_SELECT) return;
  if (n->op != CMZ_X_REDUCE) {
    for (int i = 0; i < 3; i++) reduce_before(e, n->args[i], condition);
    return;
  }
  uint8_t *seen = cmz_arena_alloc(e->arena, e->k->exprs.count + 1);
  if (!e->info[x].has_written_load && loads_anyway(e, x, &e->info[condition].free, seen))
    cmz_emit_value(e, x);
}

void cmz_emit_before_guard(emitter *e, cmz_expr x, cmz_expr condition) {
  if (!e->guarded && e->info[x].has_reduce && holds_somewhere(e, condition))
    reduce_before(e, x, condition);
}

/* Both conditions, in the scope at DEPTH. */
static MlirValue emit_and(emitter *e, MlirValue x, MlirValue y, uint32_t depth) {
  MlirBlock saved = e->b.block;
  e->b.block = e->path[depth]->block;
  MlirValue v = cmz_b_2(&e->b, "arith.andi", x, y);
  e->b.block = saved;
  return v;
}

/* X where CONDITION holds, which belongs to the scope at depth AT; FILL: what its loads give where
 * it does not, when it is scalar. */
static MlirValue emit_under_guard(emitter *e, cmz_expr x, MlirValue condition, uint32_t at,
                                  uint32_t depth, uint32_t fill) {
  if (!e->info[x].has_load) return cmz_emit_value(e, x);
  emitter saved = {.guarded = e->guarded,
                   .guard = e->guard,
                   .guard_id = e->guard_id,
                   .guard_at = e->guard_at,
                   .guard_depth = e->guard_depth,
                   .fill = e->fill};
  outer_guard outer = {saved.guarded ? saved.guard_id : 0, e->outer};
  e->outer = &outer;
  e->guard = condition;
  e->guard_at = at;
  if (saved.guarded) {
    e->guard_at = CMZ_MAX(at, saved.guard_at);
    e->guard = emit_and(e, saved.guard, condition, e->guard_at);
  }
  e->guarded = true;
  e->guard_id = ++e->next_id;
  e->guard_depth = CMZ_MAX(depth, saved.guard_depth);
  cmz_emit_set_fill(e, fill);
  MlirValue v = cmz_emit_value(e, x);
  e->guarded = saved.guarded;
  e->guard = saved.guard;
  e->guard_id = saved.guard_id;
  e->guard_at = saved.guard_at;
  e->guard_depth = saved.guard_depth;
  e->fill = saved.fill;
  e->outer = outer.next;
  return v;
}

static MlirValue emit_branch(emitter *e, const cmz_expr_node *n, MlirValue condition) {
  cmz_builder *b = &e->b;
  MlirRegion regions[2];
  MlirBlock blocks[2];
  MlirValue values[2], result;
  uint32_t old = e->guard_depth, lanes = 1;
  for (int i = 0; i < 2; i++) {
    blocks[i] = cmz_b_region(&regions[i]);
    cmz_emit_push(e, blocks[i]);
    e->guard_depth = e->depth;
    values[i] = cmz_emit_value(e, n->args[i + 1]);
    cmz_emit_pop(e);
    e->guard_depth = old;
    if (e->failed) return values[i];
    lanes = CMZ_MAX(lanes, cmz_b_lanes(cmz_b_type(values[i])));
  }
  MlirBlock here = b->block;
  for (int i = 0; i < 2; i++) {
    b->block = blocks[i];
    values[i] = cmz_b_broadcast(b, values[i], lanes);
    cmz_b_yield(b, blocks[i], &values[i], 1);
  }
  b->block = here;
  MlirType type = cmz_b_type(values[0]);
  cmz_b_if(b, condition, regions[0], regions[1], &type, 1, &result);
  return result;
}

/* The bits of 4 bytes that, loaded as STORED, give the constant Y. */
static bool fill_of(const emitter *e, cmz_expr y, cmz_dtype stored, uint32_t *bits) {
  const cmz_expr_node *n = &e->k->exprs.data[y];
  float f = (float)n->f;
  *bits = 0;
  if (n->op == CMZ_X_CONST_INT) return n->i == 0 && cmz_dtype_info(stored)->bits >= 8;
  if (n->op != CMZ_X_CONST_FLOAT) return false;
  memcpy(bits, &f, sizeof f);
  if (stored == CMZ_F32) return true;
  return *bits == 0 && n->f == 0 && (stored == CMZ_F16 || stored == CMZ_BF16 || stored == CMZ_F64);
}

#define MAX_CONDITIONS 4
/* SELECT(p, load, constant), with scalar conditions: a load from memory or from a buffer of the
 * constant, and no selection. False when N is something else. */
static bool emit_filled(emitter *e, const cmz_expr_node *n, uint32_t depth, MlirValue *v) {
  cmz_expr conditions[MAX_CONDITIONS], y = n->args[2];
  uint32_t count = 0, bits, at = 0;
  if (e->b.cpu->threads || e->b.cpu->spirv) return false;
  if (e->guarded && !cmz_emit_fills(e)) return false;
  for (; n->op == CMZ_X_SELECT; n = &e->k->exprs.data[n->args[1]]) {
    int known = cmz_emit_truth(e, n->args[0]);
    if (known > 0) continue;
    bool vector = e->lane < 0 && cmz_emit_uses_vector(e, n->args[0]);
    if (known < 0 || n->args[2] != y || vector || count == MAX_CONDITIONS) return false;
    conditions[count++] = n->args[0];
  }
  if (n->op != CMZ_X_LOAD || count == 0 || !fill_of(e, y, e->k->operands.data[n->i].dtype, &bits) ||
      !cmz_emit_set_fill(e, bits))
    return false;
  cmz_expr load = (cmz_expr)(n - e->k->exprs.data);
  MlirValue all = {NULL};
  for (uint32_t i = 0; i < count && !e->failed; i++) {
    MlirValue p = cmz_emit_value(e, conditions[i]);
    at = CMZ_MAX(at, cmz_emit_depth(e, conditions[i]));
    all = all.ptr ? emit_and(e, all, p, at) : p;
  }
  if (!e->failed) *v = emit_under_guard(e, load, all, at, depth, bits);
  return true;
}

static MlirValue emit_select(emitter *e, const cmz_expr_node *n, uint32_t depth) {
  cmz_builder *b = &e->b;
  int known = cmz_emit_truth(e, n->args[0]);
  if (known) return cmz_emit_value(e, n->args[known > 0 ? 1 : 2]);
  MlirValue p = e->begin;
  uint32_t fill = e->fill;
  bool filled = emit_filled(e, n, depth, &p);
  e->fill = fill;
  if (filled || e->failed) return p;
  p = cmz_emit_value(e, n->args[0]);
  if (e->failed) return p;
  uint32_t at = cmz_emit_depth(e, n->args[0]);
  bool loads = e->info[n->args[1]].has_load || e->info[n->args[2]].has_load;
  bool reduces = e->info[n->args[1]].has_reduce || e->info[n->args[2]].has_reduce;
  if (b->cpu->threads) cmz_emit_before_guard(e, n->args[1], n->args[0]);
  if (loads && reduces && cmz_b_lanes(cmz_b_type(p)) == 1) {
    emit_position saved;
    cmz_emit_save(e, depth, &saved);
    MlirValue r = emit_branch(e, n, p);
    cmz_emit_restore(e, &saved);
    return r;
  }
  if (!loads) {
    MlirValue x = cmz_emit_value(e, n->args[1]), y = cmz_emit_value(e, n->args[2]);
    return e->failed ? x : cmz_b_select(b, p, x, y);
  }
  cmz_emit_before_guard(e, n->args[1], n->args[0]);
  MlirValue x = emit_under_guard(e, n->args[1], p, at, depth, 0);
  if (e->failed) return x;
  MlirValue y = {NULL};
  if (e->info[n->args[2]].has_load) {
    MlirValue not = cmz_b_2(b, "arith.xori", p, cmz_b_int(b, cmz_b_type(p), 1));
    y = emit_under_guard(e, n->args[2], not, depth, depth, 0);
  } else {
    y = cmz_emit_value(e, n->args[2]);
  }
  return e->failed ? x : cmz_b_select(b, p, x, y);
}

static MlirValue emit_node(emitter *e, cmz_expr x, uint32_t depth) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  cmz_builder *b = &e->b;
  MlirType t = cmz_b_compute_type(b, (cmz_dtype)n->dtype);
  if (!t.ptr) return cmz_emit_fail(e, "an expression has a type that is not computed in");
  switch (n->op) {
  case CMZ_X_CONST_INT:
    return cmz_b_int(b, t, n->i);
  case CMZ_X_CONST_FLOAT:
    return cmz_b_float(b, t, n->f);
  case CMZ_X_AXIS:
    return emit_axis(e, (uint32_t)n->i);
  case CMZ_X_LOAD:
    return cmz_emit_load(e, x);
  case CMZ_X_REDUCE:
    return cmz_emit_reduce(e, x);
  case CMZ_X_SELECT:
    return emit_select(e, n, depth);
  default:
    return n->args[1] ? emit_binary(e, n) : emit_unary(e, n);
  }
}

/* X as it was computed for all of the guards around the present one: max(x, x * slope) as a SELECT
 * whose condition needs x must not compute x again for the lanes where it holds. */
static bool find_outside(emitter *e, cmz_expr x, MlirValue *v) {
  if (!e->guarded || !e->info[x].has_load) return false;
  for (const outer_guard *o = e->outer; o; o = o->next)
    if (cmz_emit_find(e, key_under(e, x, o->id), v)) return true;
  return false;
}

MlirValue cmz_emit_value(emitter *e, cmz_expr x) {
  MlirValue v;
  if (e->failed) return e->begin;
  uint64_t key = cmz_emit_key(e, x);
  bool volatile_value = e->info[x].has_written_load;
  if (!volatile_value && (cmz_emit_find(e, key, &v) || find_outside(e, x, &v))) return v;
  if (e->k->exprs.data[x].op == CMZ_X_PARAM) return cmz_emit_fail(e, "a parameter is out of range");
  uint32_t depth = cmz_emit_depth(e, x);
  MlirBlock saved = e->b.block;
  e->b.block = e->path[depth]->block;
  v = emit_node(e, x, depth);
  e->b.block = saved;
  if (!e->failed && !volatile_value) cmz_emit_remember(e, key, depth, v);
  return v;
}
