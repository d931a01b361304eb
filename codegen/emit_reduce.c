/* emit_reduce.c - REDUCE nodes as loops with accumulators.
 * In: a REDUCE whose free axes are bound. Out: one accumulator per instance of the unrolled axes it
 * uses, all in one nest of loops, so that a load shared by several instances is done once. A sum
 * that stands in scalar context and runs along contiguous memory is computed in vector lanes and
 * added up at the end. Always holds: an accumulator starts from the identity (or from the first
 * element for ARGMAX), so empty domains give it. */
#include "emit.h"

#include "mlir-c/BuiltinTypes.h"

typedef struct reduction {
  cmz_expr expr;
  const cmz_expr_node *node;
  cmz_reduce_op op;
  bool argument; /* ARGMAX and its kin: two accumulators each, value and position */
  uint32_t axis_count;
  uint16_t axes[CMZ_REDUCE_MAX_AXES];
  uint32_t unrolled_count; /* axes of the instances */
  uint16_t unrolled[CMZ_REDUCE_MAX_AXES + 20];
  uint32_t instances;
  uint32_t copies; /* accumulators per instance, for independent chains */
  uint32_t lanes;  /* along the innermost reduce axis; 1: none */
  uint32_t count;  /* of accumulators */
  bool by_fours;   /* products of bytes, four at a time along the last axis: */
  emit_quad quad;
  bool in_pairs;           /* of rows, eight products at a time (cmz_emit_has_matrices): */
  uint32_t row_step, rows; /* instance I is row I / row_step % rows, of row_axis */
  uint16_t row_axis;
  cmz_expr guard;   /* of a factor that is something else outside of it (0: none); then */
  guard_list skips; /* its conjuncts; else those without which there is nothing to add */
  uint32_t chain;   /* iterations of an axis that are summed up by themselves; 0: all */
  uint32_t chained; /* that axis's place among AXES */
  /* With WINDOWED only LENGTH iterations of the chained axis, from BASE (within [0, limit)), or
   * from the constant FIRST when BASE is null. */
  bool windowed;
  MlirValue base;
  int64_t first, length, limit;
} reduction;

static bool is_float(cmz_dtype t) { return t == CMZ_F32 || t == CMZ_F64; }
static bool is_signed(cmz_dtype t) { return t == CMZ_I32 || t == CMZ_I64; }

MlirValue cmz_emit_combine(emitter *e, cmz_reduce_op op, cmz_dtype dtype, MlirValue x,
                           MlirValue y) {
  cmz_builder *b = &e->b;
  switch (op) {
  case CMZ_REDUCE_SUM:
    return dtype == CMZ_BOOL ? cmz_b_2(b, "arith.ori", x, y) : cmz_b_add(b, x, y);
  case CMZ_REDUCE_PROD:
    return dtype == CMZ_BOOL ? cmz_b_2(b, "arith.andi", x, y) : cmz_b_mul(b, x, y);
  case CMZ_REDUCE_MAX:
    return cmz_b_max(b, x, y, is_signed(dtype));
  case CMZ_REDUCE_MIN:
    return cmz_b_min(b, x, y, is_signed(dtype));
  case CMZ_REDUCE_AND:
    return cmz_b_2(b, "arith.andi", x, y);
  default:
    return cmz_b_2(b, "arith.ori", x, y);
  }
}

static MlirValue identity(emitter *e, cmz_reduce_op op, cmz_dtype dtype, MlirType type) {
  cmz_builder *b = &e->b;
  uint32_t bits = cmz_b_bits(type);
  switch (op) {
  case CMZ_REDUCE_PROD:
    return cmz_b_const(b, type, 1);
  case CMZ_REDUCE_AND:
    return cmz_b_int(b, type, -1);
  case CMZ_REDUCE_MAX:
    if (is_float(dtype)) return cmz_b_float(b, type, -__builtin_inf());
    if (!is_signed(dtype)) return cmz_b_int(b, type, 0);
    return cmz_b_int(b, type, bits == 64 ? INT64_MIN : INT32_MIN);
  case CMZ_REDUCE_MIN:
    if (is_float(dtype)) return cmz_b_float(b, type, __builtin_inf());
    if (!is_signed(dtype)) return cmz_b_int(b, type, -1);
    return cmz_b_int(b, type, bits == 64 ? INT64_MAX : INT32_MAX);
  default:
    return cmz_b_const(b, type, 0);
  }
}

/* ---- instances ---- */

static void find_instances(emitter *e, reduction *r) {
  const axis_set *free = &e->info[r->expr].free;
  r->instances = 1;
  for (uint32_t a = 0; a < e->k->axes.count; a++) {
    if (!axis_set_has(free, a) || e->axes[a].instances <= 1) continue;
    if (r->unrolled_count == CMZ_COUNT_OF(r->unrolled)) {
      cmz_emit_fail(e, "too many unrolled axes");
      return;
    }
    /* the axis with most instances goes outermost: what it loads is used up at once by the few
     * instances inside, whose own operands stay in registers */
    uint32_t at = r->unrolled_count++;
    for (; at > 0 && e->axes[r->unrolled[at - 1]].instances < e->axes[a].instances; at--)
      r->unrolled[at] = r->unrolled[at - 1];
    r->unrolled[at] = (uint16_t)a;
    r->instances *= e->axes[a].instances;
  }
  if (r->instances > CMZ_EMIT_MAX_INSTANCES)
    cmz_emit_fail(e, "too many instances in a register tile");
}

/* How many there are where the register tile is whole. */
static uint32_t tile_instances(const emitter *e, const reduction *r) {
  const axis_set *free = &e->info[r->expr].free;
  uint32_t count = 1;
  for (uint32_t a = 0; a < e->k->axes.count; a++)
    if (axis_set_has(free, a) && e->k->axes.data[a].kind != CMZ_AXIS_REDUCE)
      count *= CMZ_MAX(e->s->axes[a].unroll, 1u);
  return count;
}

static uint32_t step_of(const axis_state *a) { return CMZ_MAX(a->lanes, 1); }

static void choose_instance(emitter *e, const reduction *r, uint32_t instance) {
  for (uint32_t i = r->unrolled_count; i-- > 0;) {
    axis_state *a = &e->axes[r->unrolled[i]];
    a->offset = instance % a->instances * step_of(a);
    instance /= a->instances;
  }
}

/* ---- one step ---- */

/* acc + x * y with one rounding, when the body of a sum is a product. */
static bool accumulate_product(emitter *e, const reduction *r, MlirValue *acc) {
  const cmz_expr_node *body = &e->k->exprs.data[r->node->args[0]];
  while (body->op == CMZ_X_SELECT && cmz_emit_is_true(e, body->args[0]))
    body = &e->k->exprs.data[body->args[1]];
  if (r->op != CMZ_REDUCE_SUM || body->op != CMZ_X_MUL || !is_float((cmz_dtype)body->dtype))
    return false;
  MlirValue x = cmz_emit_value(e, body->args[0]);
  if (e->failed) return true;
  MlirValue y = cmz_emit_value(e, body->args[1]);
  if (!e->failed) *acc = cmz_b_fma(&e->b, x, y, *acc);
  return true;
}

static void accumulate_argument(emitter *e, const reduction *r, MlirValue *acc) {
  cmz_builder *b = &e->b;
  MlirValue x = cmz_emit_value(e, r->node->args[0]);
  if (e->failed) return;
  const cmz_dtype t = (cmz_dtype)e->k->exprs.data[r->node->args[0]].dtype;
  axis_state *a = &e->axes[r->axes[0]];
  MlirValue at = a->is_constant ? cmz_b_i64(b, a->value + a->offset)
                                : cmz_b_add(b, a->base, cmz_b_i64(b, a->offset));
  bool largest = r->op == CMZ_REDUCE_ARGMAX || r->op == CMZ_REDUCE_ARGMAX_LAST;
  bool last = r->op == CMZ_REDUCE_ARGMAX_LAST || r->op == CMZ_REDUCE_ARGMIN_LAST;
  MlirValue better;
  if (is_float(t)) { /* NaN beats everything but an earlier NaN */
    static const int predicates[2][2] = {{CMZ_B_OLT, CMZ_B_OLE}, {CMZ_B_OGT, CMZ_B_OGE}};
    better = cmz_b_fcmp(b, predicates[largest][last], x, acc[0]);
    MlirValue nan = cmz_b_fcmp(b, CMZ_B_UNO, x, x);
    if (!last) nan = cmz_b_2(b, "arith.andi", nan, cmz_b_fcmp(b, CMZ_B_OEQ, acc[0], acc[0]));
    better = cmz_b_2(b, "arith.ori", better, nan);
  } else {
    static const int predicates[2][2][2] = {{{CMZ_B_ULT, CMZ_B_ULE}, {CMZ_B_UGT, CMZ_B_UGE}},
                                            {{CMZ_B_SLT, CMZ_B_SLE}, {CMZ_B_SGT, CMZ_B_SGE}}};
    better = cmz_b_icmp(b, predicates[is_signed(t)][largest][last], x, acc[0]);
  }
  /* the very first element always counts */
  MlirValue first = cmz_b_icmp(b, CMZ_B_SLT, acc[1], cmz_b_int(b, cmz_b_type(acc[1]), 0));
  better = cmz_b_2(b, "arith.ori", better, first);
  acc[0] = cmz_b_select(b, better, x, acc[0]);
  acc[1] = cmz_b_select(b, better, at, acc[1]);
}

static void accumulate(emitter *e, const reduction *r, MlirValue *acc) {
  const axis_state *inner = &e->axes[r->axes[r->axis_count - 1]];
  if (r->argument) {
    accumulate_argument(e, r, acc);
    return;
  }
  bool masked = inner->lanes > 1 && inner->masked;
  if (cmz_emit_is_identity(e, r->node->args[0], r->op)) return;
  if (!masked && accumulate_product(e, r, acc)) return;
  MlirValue x = cmz_emit_value(e, r->node->args[0]);
  if (e->failed) return;
  cmz_dtype t = (cmz_dtype)r->node->dtype;
  if (masked) x = cmz_b_select(&e->b, inner->mask, x, identity(e, r->op, t, cmz_b_type(*acc)));
  *acc = cmz_emit_combine(e, r->op, t, *acc, x);
}

/* All instances at the present binding of the reduce axes; STEP chooses the copy. */
static void accumulate_all(emitter *e, const reduction *r, MlirValue *accs, uint32_t step) {
  uint32_t width = r->argument ? 2 : 1;
  for (uint32_t i = 0; i < r->instances && !e->failed; i++) {
    choose_instance(e, r, i);
    accumulate(e, r, &accs[((step % r->copies) * r->instances + i) * width]);
  }
  if (r->unrolled_count) choose_instance(e, r, 0);
}

static void initial_values(emitter *e, const reduction *r, MlirValue *accs) {
  int32_t vector = e->lane >= 0 ? -1 : cmz_emit_vector_axis(e, r->expr);
  uint32_t lanes = vector >= 0 ? e->axes[vector].lanes : r->lanes;
  if (r->argument) {
    cmz_expr body = r->node->args[0];
    MlirValue value = cmz_b_const(&e->b, cmz_b_vector(cmz_emit_type(e, body), lanes), 0);
    MlirValue at = cmz_b_int(&e->b, cmz_b_vector(e->b.i64, lanes), -1);
    for (uint32_t i = 0; i < r->count; i += 2) {
      accs[i] = value;
      accs[i + 1] = at;
    }
    return;
  }
  MlirType type = cmz_b_vector(cmz_emit_type(e, r->expr), lanes);
  MlirValue v = identity(e, r->op, (cmz_dtype)r->node->dtype, type);
  for (uint32_t i = 0; i < r->count; i++) accs[i] = v;
}

/* ---- loops ---- */

static void reduce_axis(emitter *e, const reduction *r, uint32_t position, MlirValue *accs);

/* Whether X is the same for all instances and lanes, and its axes are bound, at POSITION first. */
static bool decided_at(const emitter *e, const reduction *r, cmz_expr x, uint32_t position) {
  const axis_set *free = &e->info[x].free;
  if (e->info[x].has_load) return false;
  for (uint32_t a = 0; a < e->k->axes.count; a++)
    if (axis_set_has(free, a) &&
        (e->axes[a].instances > 1 || (e->axes[a].lanes > 1 && e->lane < 0)))
      return false;
  for (uint32_t i = position + 1; i < r->axis_count; i++)
    if (axis_set_has(free, r->axes[i])) return false;
  return position == 0 || axis_set_has(free, r->axes[position]);
}

static void reduce_inside(emitter *e, const reduction *r, uint32_t position, MlirValue *accs,
                          uint32_t step) {
  if (position + 1 == r->axis_count) accumulate_all(e, r, accs, step);
  else reduce_axis(e, r, position + 1, accs);
}

/* One arm of the test of DECIDED guards: the inside of a step where they hold, or do not. */
static void reduce_arm(emitter *e, const reduction *r, uint32_t position, MlirValue *accs,
                       uint32_t step, const guard_list *decided, bool hold) {
  uint32_t old_depth = e->guard_depth, old_count = e->assumptions.count;
  e->guard_depth = e->depth;
  for (uint32_t i = 0; i < decided->count && hold; i++) cmz_emit_assume(e, decided->items[i], 1);
  if (!hold) cmz_emit_assume(e, r->guard, -1);
  reduce_inside(e, r, position, accs, step);
  e->assumptions.count = old_count;
  e->guard_depth = old_depth;
}

/* The inside of one step, under a test of the guards that are decided here: padding rows cost
 * nothing, or what is added for them is known. */
static void reduce_guarded(emitter *e, const reduction *r, uint32_t position, MlirValue *accs,
                           uint32_t step) {
  cmz_builder *b = &e->b;
  guard_list decided = {0};
  for (uint32_t i = 0; i < r->skips.count; i++)
    if (decided_at(e, r, r->skips.items[i], position) && cmz_emit_truth(e, r->skips.items[i]) == 0)
      decided.items[decided.count++] = r->skips.items[i];
  if (decided.count == 0) {
    reduce_inside(e, r, position, accs, step);
    return;
  }
  MlirValue condition = cmz_emit_value(e, decided.items[0]);
  for (uint32_t i = 1; i < decided.count && !e->failed; i++)
    condition = cmz_b_2(b, "arith.andi", condition, cmz_emit_value(e, decided.items[i]));
  MlirRegion regions[2];
  MlirBlock yes = cmz_b_region(&regions[0]), no = cmz_b_region(&regions[1]), here = b->block;
  MlirType *types = CMZ_NEW_ARRAY(e->arena, MlirType, r->count);
  MlirValue *others = cmz_arena_copy(e->arena, accs, r->count * sizeof *accs);
  for (uint32_t i = 0; i < r->count; i++) types[i] = cmz_b_type(accs[i]);
  cmz_emit_push(e, yes);
  reduce_arm(e, r, position, accs, step, &decided, true);
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_yield(b, yes, accs, r->count);
  if (r->guard) {
    cmz_emit_push(e, no);
    reduce_arm(e, r, position, others, step, &decided, false);
    cmz_emit_pop(e);
    if (e->failed) return;
  }
  cmz_b_yield(b, no, others, r->count);
  b->block = here;
  cmz_b_if(b, condition, regions[0], regions[1], types, r->count, accs);
}

/* All instances at QUADS (1 or 2) positions of the axis around the quad's, rows in pairs. */
static void reduce_matrices(emitter *e, const reduction *r, MlirValue *accs, uint32_t quads) {
  uint16_t outer = r->axes[r->axis_count - 2];
  cmz_emit_bind(e, r->quad.axis, (MlirValue){NULL}, 0, 1, 1);
  for (uint32_t i = 0; i < r->instances && !e->failed; i++) {
    uint32_t row = i / r->row_step % r->rows;
    if (row % 2) continue;
    MlirValue rows[2], columns[2];
    if (row + 1 == r->rows) { /* without a partner */
      choose_instance(e, r, i);
      for (uint32_t at = 0; at < quads && !e->failed; at++) {
        e->axes[outer].offset += at;
        if (!cmz_emit_is_identity(e, r->node->args[0], r->op))
          cmz_emit_quad_step(e, &r->quad, &accs[i]);
        e->axes[outer].offset -= at;
      }
      continue;
    }
    uint32_t nothing = 0;
    for (uint32_t j = 0; j < 2 && !e->failed; j++) {
      choose_instance(e, r, i + j * r->row_step);
      nothing += cmz_emit_is_identity(e, r->node->args[0], r->op);
      rows[j] = cmz_emit_matrix_row(e, &r->quad, quads);
    }
    if (nothing == 2 || e->failed) continue;
    cmz_emit_matrix_columns(e, &r->quad, outer, quads, columns);
    if (!e->failed)
      cmz_emit_matrix_step(e, &r->quad, rows, columns, &accs[i], &accs[i + r->row_step]);
  }
  if (r->unrolled_count) choose_instance(e, r, 0);
  e->axes[r->quad.axis].bound = false;
}

/* Whether a guard is to be tested, or differs, at each position of the axis POSITION. */
static bool guarded_at(emitter *e, const reduction *r, uint32_t position) {
  for (uint32_t i = 0; i < r->skips.count; i++)
    if ((decided_at(e, r, r->skips.items[i], position) ||
         axis_set_has(&e->info[r->skips.items[i]].free, r->axes[position])) &&
        cmz_emit_truth(e, r->skips.items[i]) == 0)
      return true;
  return false;
}

/* Whether what X loads depends on a condition that AXIS takes part in. */
static bool selected_along(const emitter *e, cmz_expr x, uint32_t axis) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  if (!axis_set_has(&e->info[x].free, axis)) return false;
  if (n->op == CMZ_X_REDUCE) return true;
  if (n->op == CMZ_X_SELECT && axis_set_has(&e->info[n->args[0]].free, axis)) return true;
  for (int i = 0; i < 3; i++)
    if (n->args[i] && selected_along(e, n->args[i], axis)) return true;
  return false;
}

/* The axis bound to COUNT consecutive positions (each of LANES lanes). */
static void reduce_steps(emitter *e, const reduction *r, uint32_t position, MlirValue *accs,
                         uint32_t count) {
  axis_state *a = &e->axes[r->axes[position]];
  bool pairs = r->in_pairs && position + 2 == r->axis_count && !guarded_at(e, r, position);
  if (e->b.cpu->by_element && a->lanes <= 1 &&
      !selected_along(e, r->node->args[0], r->axes[position]))
    a->steps = count;
  uint32_t i = 0;
  for (; pairs && i + 1 < count && !e->failed; i += 2) {
    a->offset = i;
    reduce_matrices(e, r, accs, 2);
  }
  for (; i < count && !e->failed; i++) {
    a->offset = i * step_of(a);
    reduce_guarded(e, r, position, accs, i);
  }
  a->offset = a->steps = 0;
}

/* for (i = low; i < high; i += count * lanes) */
static void reduce_loop(emitter *e, const reduction *r, uint32_t position, MlirValue *accs,
                        MlirValue low, MlirValue high, uint32_t count, uint32_t lanes,
                        const int64_t *bounds) {
  cmz_builder *b = &e->b;
  cmz_b_loop loop;
  MlirValue *initial = cmz_arena_copy(e->arena, accs, r->count * sizeof *accs);
  MlirValue step = cmz_b_i64(b, (int64_t)count * lanes);
  cmz_b_loop_open(b, e->arena, initial, r->count, &loop);
  memcpy(accs, loop.carried, r->count * sizeof *accs);
  cmz_emit_push(e, loop.body);
  axis_state *a = cmz_emit_bind(e, r->axes[position], loop.index, 0, 1, lanes);
  if (bounds) {
    a->limited = true;
    a->base_low = bounds[0];
    a->base_high = bounds[1] - (int64_t)count * lanes;
  }
  reduce_steps(e, r, position, accs, count);
  cmz_emit_pop(e);
  if (!e->failed) cmz_b_loop_close(b, &loop, low, high, step, initial, r->count, accs);
}

/* The last, incomplete vector: REST elements (constant, or a value) from BASE. */
static void reduce_masked(emitter *e, const reduction *r, uint32_t position, MlirValue *accs,
                          MlirValue base, MlirValue extent) {
  cmz_builder *b = &e->b;
  axis_state *a = cmz_emit_bind(e, r->axes[position], base, 0, 1, r->lanes);
  MlirValue rest = cmz_b_sub(b, extent, base);
  a->masked = true;
  a->last = cmz_b_sub(b, extent, cmz_b_i64(b, 1));
  a->mask = cmz_b_icmp(b, CMZ_B_SLT, cmz_b_iota(b, cmz_b_vector(b->i64, r->lanes)), rest);
  reduce_steps(e, r, position, accs, 1);
  a->masked = false;
}

/* for (i = first; i < extent; i++) */
static void reduce_constant(emitter *e, const reduction *r, uint32_t position, MlirValue *accs,
                            int64_t first, int64_t extent, uint32_t unroll, uint32_t lanes) {
  cmz_builder *b = &e->b;
  int64_t step = (int64_t)unroll * lanes, main = first + (extent - first) / step * step;
  if (main == first + step) {
    cmz_emit_bind(e, r->axes[position], (MlirValue){NULL}, first, 1, lanes);
    reduce_steps(e, r, position, accs, unroll);
  } else if (main > first) {
    reduce_loop(e, r, position, accs, cmz_b_i64(b, first), cmz_b_i64(b, main), unroll, lanes,
                (int64_t[]){first, main});
  }
  int64_t vectors = (extent - main) / lanes;
  if (vectors > 0 && !e->failed) {
    cmz_emit_bind(e, r->axes[position], (MlirValue){NULL}, main, 1, lanes);
    reduce_steps(e, r, position, accs, (uint32_t)vectors);
  }
  main += vectors * lanes;
  if (main < extent && !e->failed)
    reduce_masked(e, r, position, accs, cmz_b_i64(b, main), cmz_b_i64(b, extent));
}

/* Adds chain PARTS to ACCS. */
static void add_chain(emitter *e, const reduction *r, MlirValue *accs, const MlirValue *parts) {
  for (uint32_t i = 0; i < r->count && !e->failed; i++)
    accs[i] = cmz_emit_combine(e, r->op, (cmz_dtype)r->node->dtype, accs[i], parts[i]);
}

/* The chained axis at its place in the nest: the iterations of one chain. */
static void reduce_window(emitter *e, const reduction *r, MlirValue *accs, uint32_t unroll) {
  uint32_t position = r->chained;
  if (mlirValueIsNull(r->base)) {
    reduce_constant(e, r, position, accs, r->first, r->first + r->length, unroll, 1);
    return;
  }
  while (r->length % unroll) unroll--;
  if (r->length == unroll) {
    axis_state *a = cmz_emit_bind(e, r->axes[position], r->base, 0, 1, 1);
    a->limited = true;
    a->base_low = 0;
    a->base_high = r->limit - r->length;
    reduce_steps(e, r, position, accs, unroll);
  } else {
    MlirValue end = cmz_b_add(&e->b, r->base, cmz_b_i64(&e->b, r->length));
    reduce_loop(e, r, position, accs, r->base, end, unroll, 1, (int64_t[]){0, r->limit});
  }
}

/* One chain of COUNT iterations from FIRST, by itself. */
static void reduce_chain(emitter *e, const reduction *r, MlirValue *accs, int64_t first,
                         int64_t count) {
  MlirValue *parts = CMZ_NEW_ARRAY(e->arena, MlirValue, r->count);
  reduction window = *r;
  window.windowed = true;
  window.first = first;
  window.length = count;
  initial_values(e, r, parts);
  reduce_axis(e, &window, 0, parts);
  add_chain(e, r, accs, parts);
}

/* Chains of the chained axis, outside of all loops of the sum: each starts from nothing and is
 * added to the sum of those before it. */
static void reduce_chains(emitter *e, const reduction *r, MlirValue *accs) {
  cmz_builder *b = &e->b;
  int64_t extent = 0, count = r->chain;
  cmz_emit_extent(e, r->axes[r->chained], &extent);
  int64_t main = extent / count * count;
  if (main > count) {
    cmz_b_loop loop;
    MlirValue *initial = cmz_arena_copy(e->arena, accs, r->count * sizeof *accs);
    MlirValue *parts = CMZ_NEW_ARRAY(e->arena, MlirValue, r->count);
    reduction window = *r;
    initial_values(e, r, parts);
    cmz_b_loop_open(b, e->arena, initial, r->count, &loop);
    memcpy(accs, loop.carried, r->count * sizeof *accs);
    cmz_emit_push(e, loop.body);
    window.windowed = true;
    window.base = loop.index;
    window.length = count;
    window.limit = main;
    reduce_axis(e, &window, 0, parts);
    add_chain(e, r, accs, parts);
    cmz_emit_pop(e);
    if (e->failed) return;
    cmz_b_loop_close(b, &loop, cmz_b_i64(b, 0), cmz_b_i64(b, main), cmz_b_i64(b, count), initial,
                     r->count, accs);
  } else {
    reduce_chain(e, r, accs, 0, main);
  }
  if (main < extent && !e->failed) reduce_chain(e, r, accs, main, extent - main);
}

static void reduce_dynamic(emitter *e, const reduction *r, uint32_t position, MlirValue *accs,
                           MlirValue extent, uint32_t unroll, uint32_t lanes) {
  cmz_builder *b = &e->b;
  MlirValue zero = cmz_b_i64(b, 0), done = zero;
  int64_t steps[2] = {(int64_t)unroll * lanes, lanes};
  for (int i = unroll > 1 ? 0 : 1; i < 2 && !e->failed; i++) {
    MlirValue size = cmz_b_i64(b, steps[i]);
    MlirValue end = cmz_b_mul(b, cmz_b_2(b, "arith.divui", extent, size), size);
    reduce_loop(e, r, position, accs, done, end, i == 0 ? unroll : 1, lanes, NULL);
    done = end;
  }
  if (lanes == 1 || e->failed) return;
  MlirRegion regions[2];
  MlirBlock yes = cmz_b_region(&regions[0]), no = cmz_b_region(&regions[1]), here = b->block;
  MlirType *types = CMZ_NEW_ARRAY(e->arena, MlirType, r->count);
  for (uint32_t i = 0; i < r->count; i++) types[i] = cmz_b_type(accs[i]);
  cmz_b_yield(b, no, accs, r->count);
  cmz_emit_push(e, yes);
  reduce_masked(e, r, position, accs, done, extent);
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_yield(b, yes, accs, r->count);
  b->block = here;
  cmz_b_if(b, cmz_b_icmp(b, CMZ_B_SLT, done, extent), regions[0], regions[1], types, r->count,
           accs);
}

/* Whether AXIS takes part in a guard that differs between instances and is not known to hold: with
 * the axis unrolled, it often is known. */
static bool decides_instances(emitter *e, const reduction *r, uint32_t axis) {
  for (uint32_t i = 0; i < r->skips.count; i++) {
    const axis_set *free = &e->info[r->skips.items[i]].free;
    if (!axis_set_has(free, axis) || cmz_emit_truth(e, r->skips.items[i])) continue;
    for (uint32_t u = 0; u < r->unrolled_count; u++) {
      const axis_state *a = &e->axes[r->unrolled[u]];
      if (axis_set_has(free, r->unrolled[u]) && (a->is_constant || (a->limited && a->lanes > 1)))
        return true;
    }
  }
  return false;
}

/* The axis of four bytes, in one step. */
static void reduce_quads(emitter *e, const reduction *r, MlirValue *accs) {
  if (r->in_pairs) {
    reduce_matrices(e, r, accs, 1);
    return;
  }
  cmz_emit_bind(e, r->quad.axis, (MlirValue){NULL}, 0, 1, 1);
  for (uint32_t i = 0; i < r->instances && !e->failed; i++) {
    choose_instance(e, r, i);
    if (!cmz_emit_is_identity(e, r->node->args[0], r->op))
      cmz_emit_quad_step(e, &r->quad, &accs[i]);
  }
  if (r->unrolled_count) choose_instance(e, r, 0);
  e->axes[r->quad.axis].bound = false;
}

static void reduce_axis(emitter *e, const reduction *r, uint32_t position, MlirValue *accs) {
  uint32_t axis = r->axes[position];
  if (r->by_fours && axis == r->quad.axis) {
    reduce_quads(e, r, accs);
    return;
  }
  bool innermost = position + 1 == r->axis_count;
  uint32_t unroll = CMZ_MAX(e->s->axes[axis].unroll, 1), lanes = 1;
  if (innermost && r->lanes > 1) {
    lanes = r->lanes;
    unroll = r->copies;
  }
  int64_t extent;
  if (cmz_emit_extent(e, axis, &extent)) {
    if (extent <= 8 && lanes == 1 && decides_instances(e, r, axis)) unroll = (uint32_t)extent;
    if (r->windowed && position == r->chained) reduce_window(e, r, accs, unroll);
    else reduce_constant(e, r, position, accs, 0, extent, unroll, lanes);
  } else {
    MlirValue v = cmz_emit_value(e, e->k->axes.data[axis].extent);
    if (!e->failed) reduce_dynamic(e, r, position, accs, v, unroll, lanes);
  }
  e->axes[axis].bound = false;
  e->axes[axis].lanes = 1;
}

/* ---- the whole ---- */

/* Whether some load of the body is contiguous along AXIS, and none defies it. */
static bool contiguous(emitter *e, cmz_expr x, uint32_t axis, bool *found) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  int64_t stride;
  if (!axis_set_has(&e->info[x].free, axis)) return true;
  if (n->op == CMZ_X_REDUCE) return false;
  if (n->op == CMZ_X_LOAD) {
    if (!cmz_emit_stride(e, n->args[0], axis, &stride) || stride < 0 || stride > 1) return false;
    *found = true;
    return true;
  }
  for (int i = 0; i < 3; i++)
    if (n->args[i] && !contiguous(e, n->args[i], axis, found)) return false;
  return true;
}

#define SHORT_CHAIN 64 /* terms: not worth lanes of its own */

/* Whether the description gives the order of the sum, and of how many terms it is if known. */
static bool is_chained(emitter *e, const reduction *r, int64_t *terms) {
  bool chained = false;
  *terms = 1;
  for (uint32_t i = 0; i < r->axis_count; i++) {
    int64_t extent;
    chained |= e->k->axes.data[r->axes[i]].chain != 0;
    if (!cmz_emit_extent(e, r->axes[i], &extent) || !cmz_mul_i64(*terms, extent, terms))
      *terms = INT64_MAX;
  }
  return chained && r->op == CMZ_REDUCE_SUM && is_float((cmz_dtype)r->node->dtype);
}

static void choose_lanes(emitter *e, reduction *r) {
  uint32_t inner = r->axes[r->axis_count - 1];
  uint32_t bytes = cmz_b_bits(cmz_emit_type(e, r->expr)) / 8;
  uint32_t lanes = e->s->reduce_lanes, unroll = CMZ_MAX(e->s->reduce_unroll, 1);
  bool found = false;
  int64_t extent;
  r->lanes = r->copies = 1;
  int64_t terms;
  bool chained = is_chained(e, r, &terms);
  if (r->argument || (chained && terms <= SHORT_CHAIN)) return;
  if (bytes == 8 && lanes > 1) lanes /= 2;
  bool known = cmz_emit_extent(e, inner, &extent);
  if (lanes > 1 && r->node->dtype != CMZ_BOOL && e->lane < 0 && !cmz_emit_uses_vector(e, r->expr) &&
      (!known || extent >= lanes / 2) && contiguous(e, r->node->args[0], inner, &found) && found) {
    r->lanes = lanes;
    r->copies = r->instances >= 8 ? 1 : CMZ_MIN(unroll, 16 / r->instances);
    while (known && r->copies > 1 && extent < (int64_t)r->copies * lanes) r->copies /= 2;
    if (r->copies == 0) r->copies = 1;
    return;
  }
  /* Few accumulators would wait for each other: several per instance. The whole register tile
   * decides, not what is left of it in a tail: an element's sum does not depend on its place. */
  uint32_t steps = CMZ_MAX(e->s->axes[inner].unroll, 1);
  if (!chained && tile_instances(e, r) * 2 <= 8 && is_float((cmz_dtype)r->node->dtype))
    r->copies = CMZ_MIN(steps, 8 / tile_instances(e, r));
}

static MlirValue horizontal(emitter *e, const reduction *r, MlirValue v) {
  uint32_t lanes = cmz_b_lanes(cmz_b_type(v));
  while (lanes > 1) {
    lanes /= 2;
    v = cmz_emit_combine(e, r->op, (cmz_dtype)r->node->dtype, cmz_b_slice(&e->b, v, 0, lanes),
                         cmz_b_slice(&e->b, v, lanes, lanes));
  }
  return v;
}

/* Sorts the reduce axes by the schedule's order; equal orders keep the description's. */
static void order_axes(const emitter *e, reduction *r) {
  memcpy(r->axes, r->node->axes, sizeof r->axes);
  for (uint32_t i = 1; i < r->axis_count; i++)
    for (uint32_t j = i; j > 0 && e->s->axes[r->axes[j]].order < e->s->axes[r->axes[j - 1]].order;
         j--) {
      uint16_t t = r->axes[j];
      r->axes[j] = r->axes[j - 1];
      r->axes[j - 1] = t;
    }
}

/* The rows of a sum by fours: instances of the axis that has most of those only one factor uses. */
static void choose_rows(emitter *e, reduction *r) {
  cmz_expr across = r->quad.quad.factors[r->quad.across[0] ? 0 : 1].load;
  uint32_t step = r->instances;
  for (uint32_t i = 0; i < r->unrolled_count; i++) {
    uint32_t instances = e->axes[r->unrolled[i]].instances;
    step /= instances;
    if (instances <= r->rows || axis_set_has(&e->info[across].free, r->unrolled[i])) continue;
    r->rows = instances;
    r->row_step = step;
    r->row_axis = r->unrolled[i];
  }
}

static void choose_pairs(emitter *e, reduction *r) {
  if (r->axis_count < 2 || !cmz_emit_has_matrices(e, &r->quad, r->axes[r->axis_count - 2])) return;
  choose_rows(e, r);
  r->in_pairs = r->rows >= 2;
}

/* Sums of products by four bytes: that axis goes last. */
static void choose_quads(emitter *e, reduction *r) {
  r->by_fours = r->lanes == 1 && cmz_emit_find_quad(e, r->expr, &r->quad);
  if (!r->by_fours) return;
  r->copies = 1;
  uint32_t i = 0;
  while (r->axes[i] != r->quad.axis) i++;
  for (; i + 1 < r->axis_count; i++) r->axes[i] = r->axes[i + 1];
  r->axes[i] = r->quad.axis;
  choose_pairs(e, r);
}

/* The guards that are worth a test of their own. */
static void choose_skips(emitter *e, reduction *r) {
  if (r->argument) return;
  cmz_emit_skips(e, r->node->args[0], r->op, &r->skips);
  const cmz_quad_factor *f = r->quad.quad.factors;
  if (!r->by_fours || r->skips.count > 0 || !f[0].condition == !f[1].condition) return;
  r->guard = f[0].condition ? f[0].condition : f[1].condition;
  cmz_emit_guards(e, r->node->args[0], &r->skips);
}

/* With rows in pairs: from rows to pairs of columns, or back. */
static void exchange_pairs(emitter *e, const reduction *r, MlirValue *accs) {
  for (uint32_t i = 0; i < r->instances && r->in_pairs; i++) {
    uint32_t row = i / r->row_step % r->rows;
    if (row % 2 == 0 && row + 1 < r->rows)
      cmz_emit_matrix_exchange(e, &accs[i], &accs[i + r->row_step]);
  }
}

static void finish(emitter *e, const reduction *r, MlirValue *accs) {
  uint32_t width = r->argument ? 2 : 1;
  exchange_pairs(e, r, accs);
  for (uint32_t i = 0; i < r->instances && !e->failed; i++) {
    MlirValue v = accs[i * width + width - 1];
    for (uint32_t c = 1; c < r->copies; c++)
      v = cmz_emit_combine(e, r->op, (cmz_dtype)r->node->dtype, v, accs[c * r->instances + i]);
    if (r->lanes > 1) v = horizontal(e, r, v);
    choose_instance(e, r, i);
    if (r->node->args[1] && r->chain == 0)
      v = cmz_emit_combine(e, r->op, (cmz_dtype)r->node->dtype, v,
                           cmz_emit_value(e, r->node->args[1]));
    if (e->failed) return;
    if (r->argument) /* -1 while nothing has been seen: of nothing, the position is 0 */
      v = cmz_b_max(&e->b, v, cmz_b_int(&e->b, cmz_b_type(v), 0), true);
    cmz_emit_remember(e, cmz_emit_key(e, r->expr), e->depth, v);
  }
}

/* Which axis's iterations are summed up in chains, and how many make one; 0: none's. */
static uint32_t chain_of(emitter *e, const reduction *r, uint32_t *position) {
  if (r->op != CMZ_REDUCE_SUM || !is_float((cmz_dtype)r->node->dtype)) return 0;
  for (uint32_t i = 0; i < r->axis_count; i++) {
    uint32_t chain = e->k->axes.data[r->axes[i]].chain;
    int64_t extent;
    bool in_lanes = i + 1 == r->axis_count && r->lanes > 1;
    if (chain == 0 || in_lanes || !cmz_emit_extent(e, r->axes[i], &extent) || chain >= extent)
      continue;
    *position = i;
    return chain;
  }
  return 0;
}

/* The first copy of each instance's accumulators from where the sum starts: the first chain is
 * added to it. A single chain needs it only at its end. */
static void start_sum(emitter *e, const reduction *r, MlirValue *accs) {
  for (uint32_t i = 0; i < r->instances && !e->failed; i++) {
    choose_instance(e, r, i);
    MlirValue v = cmz_emit_value(e, r->node->args[1]);
    if (!e->failed) accs[i] = cmz_b_broadcast(&e->b, v, cmz_b_lanes(cmz_b_type(accs[i])));
  }
  if (!e->failed) exchange_pairs(e, r, accs);
  if (r->unrolled_count) choose_instance(e, r, 0);
}

/* In how many strands the sum is computed; 0: not so. */
static uint32_t strands_of(emitter *e, const reduction *r) {
  uint32_t strands = e->k->axes.data[r->axes[0]].strands;
  if (r->axis_count != 1 || r->op != CMZ_REDUCE_SUM || !is_float((cmz_dtype)r->node->dtype) ||
      strands < 2 || (strands & (strands - 1)) != 0 || r->instances * strands > 16)
    return 0;
  return strands;
}

/* The strands' sums by halves: lanes of a vector, or copies. */
static void join_strands(emitter *e, const reduction *r, MlirValue *accs) {
  for (uint32_t copies = r->copies / 2; copies > 0; copies /= 2)
    for (uint32_t i = 0; i < copies * r->instances && !e->failed; i++)
      accs[i] = cmz_emit_combine(e, r->op, (cmz_dtype)r->node->dtype, accs[i],
                                 accs[copies * r->instances + i]);
  for (uint32_t i = 0; i < r->instances && r->lanes > 1 && !e->failed; i++)
    accs[i] = horizontal(e, r, accs[i]);
}

/* STRANDS interleaved sums, as lanes of a vector where the terms are neighbours and no other axis
 * is the vector's; then what is left over. */
static void reduce_strands(emitter *e, reduction *r, uint32_t strands) {
  cmz_builder *b = &e->b;
  int64_t extent = 0, bounds[2] = {0}, rest[2] = {0};
  bool found = false, known = cmz_emit_extent(e, r->axes[0], &extent);
  bool side_by_side = r->node->dtype == CMZ_F32 && e->s->reduce_lanes >= strands && e->lane < 0 &&
                      !cmz_emit_uses_vector(e, r->expr) &&
                      contiguous(e, r->node->args[0], r->axes[0], &found) && found;
  r->lanes = side_by_side ? strands : 1;
  r->copies = side_by_side ? 1 : strands;
  r->count = r->instances * r->copies;
  MlirValue *accs = CMZ_NEW_ARRAY(e->arena, MlirValue, r->count);
  MlirValue size = cmz_b_i64(b, strands), zero = cmz_b_i64(b, 0), main, end;
  bounds[1] = rest[0] = extent / strands * strands;
  rest[1] = extent;
  if (known) {
    main = cmz_b_i64(b, bounds[1]);
    end = cmz_b_i64(b, extent);
  } else {
    end = cmz_emit_value(e, e->k->axes.data[r->axes[0]].extent);
    if (e->failed) return;
    main = cmz_b_mul(b, cmz_b_2(b, "arith.divui", end, size), size);
  }
  initial_values(e, r, accs);
  if (!known || bounds[1] > 0)
    reduce_loop(e, r, 0, accs, zero, main, r->copies, r->lanes, known ? bounds : NULL);
  if (!e->failed) join_strands(e, r, accs);
  r->lanes = r->copies = 1;
  r->count = r->instances;
  if (!e->failed && (!known || rest[0] < extent))
    reduce_loop(e, r, 0, accs, main, end, 1, 1, known ? rest : NULL);
  e->axes[r->axes[0]].bound = false;
  e->axes[r->axes[0]].lanes = 1;
  if (!e->failed) finish(e, r, accs);
}

/* Instance of ROW and COLUMN of a register tile in which one axis makes the rows. */
static uint32_t instance_at(const reduction *r, uint32_t row, uint32_t column) {
  return row * r->row_step + column * (r->row_step == 1 ? r->rows : 1);
}

/* One step of 64 bytes a row: tiles 4 and 5 are rows, 6 and 7 columns, 0 to 3 sums. */
static void multiply_tiles(emitter *e, const reduction *r, int64_t row_bytes,
                           int64_t column_bytes) {
  int rows = r->quad.across[0] ? 1 : 0;
  uint32_t high = r->rows / 16, wide = r->instances / r->rows;
  for (uint32_t i = 0; i < high && !e->failed; i++) {
    choose_instance(e, r, instance_at(r, i * 16, 0));
    cmz_emit_tile_load(e, 4 + i, &r->quad, rows, row_bytes);
  }
  for (uint32_t j = 0; j < wide && !e->failed; j++) {
    choose_instance(e, r, instance_at(r, 0, j));
    cmz_emit_tile_load(e, 6 + j, &r->quad, !rows, column_bytes);
  }
  for (uint32_t i = 0; i < high && !e->failed; i++)
    for (uint32_t j = 0; j < wide; j++) cmz_emit_tile_product(e, &r->quad, i * 2 + j, 4 + i, 6 + j);
  choose_instance(e, r, 0);
}

/* Sums by fours over one axis in tiles; what is left of it without. False: not so here. */
static bool reduce_tiles(emitter *e, reduction *r, MlirValue *accs) {
  int64_t extent, row_bytes, column_bytes;
  if (!r->by_fours || r->axis_count != 2 || !cmz_emit_has_tiles(e, &r->quad) ||
      !cmz_emit_extent(e, r->axes[0], &extent) || extent < 16)
    return false;
  choose_rows(e, r);
  const cmz_quad_factor *f = r->quad.quad.factors;
  int shared = r->quad.across[0] ? 1 : 0;
  uint16_t row_axis = r->row_axis;
  if ((r->rows != 16 && r->rows != 32) || e->axes[row_axis].clamped || r->instances > 2 * r->rows ||
      !cmz_emit_stride(e, e->k->exprs.data[f[shared].load].args[0], row_axis, &row_bytes) ||
      !cmz_emit_stride(e, e->k->exprs.data[f[!shared].load].args[0], r->axes[0], &column_bytes))
    return false;
  row_bytes *= 4 / r->quad.quad.count;
  column_bytes *= 4 / r->quad.quad.count;
  cmz_builder *b = &e->b;
  cmz_b_loop loop;
  MlirType element = cmz_emit_type(e, r->expr);
  MlirValue buffer = cmz_emit_tiles_open(e);
  uint32_t high = r->rows / 16, wide = r->instances / r->rows;
  for (uint32_t i = 0; i < high * wide; i++) cmz_emit_tile_zero(e, i / wide * 2 + i % wide);
  int64_t main = extent / 16 * 16;
  cmz_b_loop_open(b, e->arena, NULL, 0, &loop);
  cmz_emit_push(e, loop.body);
  cmz_emit_bind(e, r->axes[0], loop.index, 0, 1, 1);
  cmz_emit_bind(e, r->quad.axis, (MlirValue){NULL}, 0, 1, 1);
  multiply_tiles(e, r, row_bytes, column_bytes);
  e->axes[r->quad.axis].bound = false;
  cmz_emit_pop(e);
  if (e->failed) return true;
  cmz_b_loop_close(b, &loop, cmz_b_i64(b, 0), cmz_b_i64(b, main), cmz_b_i64(b, 16), NULL, 0, NULL);
  for (uint32_t i = 0; i < high * wide; i++)
    cmz_emit_tile_store(e, i / wide * 2 + i % wide, buffer);
  for (uint32_t i = 0; i < r->rows; i++)
    for (uint32_t j = 0; j < wide; j++)
      accs[instance_at(r, i, j)] = cmz_emit_tile_row(e, element, i / 16 * 2 + j, i % 16, buffer);
  if (main < extent) reduce_constant(e, r, 0, accs, main, extent, 1, 1);
  e->axes[r->axes[0]].bound = false;
  return true;
}

static void reduce_plainly(emitter *e, reduction *r) {
  r->count = r->instances * r->copies * (r->argument ? 2 : 1);
  MlirValue *accs = CMZ_NEW_ARRAY(e->arena, MlirValue, r->count);
  initial_values(e, r, accs);
  r->chain = chain_of(e, r, &r->chained);
  if (r->chain != 0 && r->node->args[1]) start_sum(e, r, accs);
  if (!e->failed && r->chain != 0) reduce_chains(e, r, accs);
  else if (!e->failed && !reduce_tiles(e, r, accs) && !e->failed) reduce_axis(e, r, 0, accs);
  if (!e->failed) finish(e, r, accs);
}

MlirValue cmz_emit_reduce(emitter *e, cmz_expr x) {
  reduction r = {.expr = x, .node = &e->k->exprs.data[x]};
  r.op = (cmz_reduce_op)r.node->reduce_op;
  r.argument = r.op >= CMZ_REDUCE_ARGMAX;
  r.axis_count = r.node->axis_count;
  order_axes(e, &r);
  if (r.axis_count == 0) return cmz_emit_value(e, r.node->args[0]);
  uint32_t offsets[CMZ_COUNT_OF(r.unrolled)];
  find_instances(e, &r);
  if (e->failed) return e->begin;
  for (uint32_t i = 0; i < r.unrolled_count; i++) offsets[i] = e->axes[r.unrolled[i]].offset;
  emit_position saved;
  cmz_emit_save(e, cmz_emit_depth(e, x), &saved);
  MlirValue guard = e->guard;
  uint32_t guard_at = e->guard_at;
  /* A guard by lanes of an axis that is not used here: the result is wanted when any lane is. */
  if (e->guarded && e->info[x].has_load && e->lane < 0 && !cmz_emit_uses_vector(e, x) &&
      cmz_b_lanes(cmz_b_type(guard)) > 1) {
    e->guard = cmz_emit_scalar_guard(e);
    e->guard_at = e->depth;
  }
  choose_lanes(e, &r);
  choose_quads(e, &r);
  choose_skips(e, &r);
  uint32_t strands = strands_of(e, &r);
  if (strands) reduce_strands(e, &r, strands);
  else reduce_plainly(e, &r);
  e->guard = guard;
  e->guard_at = guard_at;
  for (uint32_t i = 0; i < r.unrolled_count; i++) e->axes[r.unrolled[i]].offset = offsets[i];
  MlirValue v = e->begin;
  if (!e->failed && !cmz_emit_find(e, cmz_emit_key(e, x), &v))
    cmz_emit_fail(e, "a reduction lost its result");
  cmz_emit_restore(e, &saved);
  return v;
}
