/* emit_group.c - a contraction computed by the threads of a GPU's work-group together.
 * In: a kernel of one store whose value holds one sum of products, a schedule with `group`. Out:
 * per grid tile, a loop over the reduction in steps: both factors are staged in the group's memory,
 * each element once, as whatever expression stands there (padding, decoding of compressed weights);
 * then every thread adds to its register tile from there; at the end it stores the elements of its
 * own that exist. Always holds: all threads of a group meet at every barrier; an element that does
 * not exist is staged as zero, without touching memory. */
#include "emit_group.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/Dialect/LLVM.h"

static MlirStringRef text(const char *s) { return mlirStringRefCreateFromCString(s); }

static uint32_t log2_of(uint32_t power) { return (uint32_t)__builtin_ctz(power); }
MlirValue cmz_emit_group_divided(cmz_builder *b, MlirValue v, uint32_t power) {
  return power == 1 ? v : cmz_b_2(b, "arith.shrui", v, cmz_b_i64(b, log2_of(power)));
}
MlirValue cmz_emit_group_remainder(cmz_builder *b, MlirValue v, uint32_t power) {
  return cmz_b_2(b, "arith.andi", v, cmz_b_i64(b, (int64_t)power - 1));
}

/* ---- the group's memory ---- */

void cmz_emit_group_declare(emitter *e, factor *f, MlirType type, uint32_t count, uint32_t number) {
  cmz_builder *b = &e->b;
  bool is_float = cmz_b_is_float(type);
  const char *element = cmz_arena_printf(e->arena, "%s%u", is_float ? "f" : "i", cmz_b_bits(type));
  if (b->cpu->spirv) {
    MlirType memory = mlirTypeParseGet(
        b->mlir, text(cmz_arena_printf(e->arena, "memref<%ux%s, #spirv.storage_class<Workgroup>>",
                                       count, element)));
    MlirNamedAttribute none =
        cmz_b_attr(b, "operandSegmentSizes", mlirDenseI32ArrayGet(b->mlir, 2, (int32_t[]){0, 0}));
    MlirOperation op = cmz_b_op(b, "memref.alloc", 0, NULL, 1, &memory, 1, &none, 0, NULL);
    f->memory = mlirOperationGetResult(op, 0);
    f->base = cmz_b_i64(b, 0);
    return;
  }
  const char *name = cmz_arena_printf(e->arena, "%s_staged%u", e->symbol, number);
  MlirType array = mlirTypeParseGet(
      b->mlir, text(cmz_arena_printf(e->arena, "!llvm.array<%u x %s>", count, element)));
  MlirNamedAttribute attrs[] = {
      cmz_b_attr(b, "sym_name", mlirStringAttrGet(b->mlir, text(name))),
      cmz_b_attr(b, "global_type", mlirTypeAttrGet(array)),
      cmz_b_attr(b, "linkage", mlirAttributeParseGet(b->mlir, text("#llvm.linkage<internal>"))),
      cmz_b_attr(b, "addr_space", mlirIntegerAttrGet(b->i32, 3)),
      cmz_b_attr(b, "alignment", mlirIntegerAttrGet(b->i64, cmz_emit_wgmma_used(e) ? 1024 : 16)),
  };
  MlirRegion empty = mlirRegionCreate();
  MlirBlock here = b->block;
  b->block = mlirModuleGetBody(e->module);
  cmz_b_op(b, "llvm.mlir.global", 0, NULL, 0, NULL, CMZ_COUNT_OF(attrs), attrs, 1, &empty);
  b->block = here;
  MlirType pointer = mlirLLVMPointerTypeGet(b->mlir, 3);
  MlirNamedAttribute symbol =
      cmz_b_attr(b, "global_name", mlirFlatSymbolRefAttrGet(b->mlir, text(name)));
  MlirOperation op = cmz_b_op(b, "llvm.mlir.addressof", 0, NULL, 1, &pointer, 1, &symbol, 0, NULL);
  f->base = mlirOperationGetResult(op, 0);
}

void cmz_emit_group_barrier(emitter *e) {
  cmz_builder *b = &e->b;
  MlirValue all = b->cpu->spirv ? (MlirValue){NULL} : cmz_b_int(b, b->i32, 0);
  if (b->cpu->spirv) cmz_b_op(b, "gpu.barrier", 0, NULL, 0, NULL, 0, NULL, 0, NULL);
  else cmz_b_intrinsic(b, "llvm.nvvm.barrier.cta.sync.aligned.all", 1, &all, (MlirType){NULL});
}

/* ---- what there is to compute ---- */

static cmz_expr find_reduce(const emitter *e) {
  for (uint32_t i = 1; i < e->k->exprs.count; i++)
    if (e->k->exprs.data[i].op == CMZ_X_REDUCE) return i;
  return 0;
}

bool cmz_emit_group_along(emitter *e, cmz_expr x, uint16_t axis) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  int64_t stride;
  if (n->op == CMZ_X_LOAD && cmz_emit_stride(e, n->args[0], axis, &stride) && stride == 1)
    return true;
  for (int i = 0; i < 3; i++)
    if (n->args[i] && n->op != CMZ_X_LOAD && cmz_emit_group_along(e, n->args[i], axis)) return true;
  return false;
}

static void describe_factor(emitter *e, const contraction *c, factor *f, cmz_expr x) {
  f->expr = x;
  f->positions = 1;
  for (uint32_t i = 0; i < c->store->axis_count; i++) {
    uint16_t axis = c->axes[i];
    if (!axis_set_has(&e->info[x].free, axis) || e->s->axes[axis].tile < 2) continue;
    f->axes[f->axis_count++] = axis;
    f->positions *= e->s->axes[axis].tile;
  }
  f->along_reduction = cmz_emit_group_along(e, x, c->node->axes[c->node->axis_count - 1]) &&
                       !(f->axis_count && cmz_emit_group_along(e, x, f->axes[f->axis_count - 1]));
}

/* How far instance I lies from the thread's first in F's positions. */
static uint32_t offset_in(const emitter *e, const contraction *c, const factor *f,
                          uint32_t instance) {
  uint32_t offset = 0;
  for (uint32_t i = c->store->axis_count; i-- > 0;) {
    const cmz_axis_schedule *s = &e->s->axes[c->axes[i]];
    uint32_t at = instance % s->unroll * s->threads, stride = 1;
    instance /= s->unroll;
    for (uint32_t a = f->axis_count; a-- > 0; stride *= e->s->axes[f->axes[a]].tile)
      if (f->axes[a] == c->axes[i]) offset += at * stride;
  }
  return offset;
}

static void prepare_scalars(emitter *e, contraction *c) {
  cmz_builder *b = &e->b;
  MlirValue rest = e->thread;
  c->instances = 1;
  for (uint32_t i = c->store->axis_count; i-- > 0;) { /* the innermost axis varies fastest */
    const cmz_axis_schedule *s = &e->s->axes[c->axes[i]];
    uint32_t threads = CMZ_MAX(s->threads, 1u);
    if (threads > 1) c->coordinate[c->axes[i]] = cmz_emit_group_remainder(b, rest, threads);
    rest = cmz_emit_group_divided(b, rest, threads);
    c->instances *= s->unroll;
  }
  for (uint32_t i = 0; i < 2; i++) {
    factor *f = &c->factors[i];
    uint32_t stride = 1;
    if (f->positions * e->s->step < e->s->group)
      cmz_emit_fail(e, "a work-group with more threads than there is to stage");
    f->pitch = f->positions + 1; /* so that neither order of staging meets one bank only */
    cmz_emit_group_declare(e, f, c->type, f->pitch * e->s->step, i);
    f->own = cmz_b_i64(b, 0);
    for (uint32_t a = f->axis_count; a-- > 0;) {
      f->own = cmz_b_add(b, f->own, cmz_b_mul(b, c->coordinate[f->axes[a]], cmz_b_i64(b, stride)));
      stride *= e->s->axes[f->axes[a]].tile;
    }
    for (uint32_t n = 0; n < c->instances; n++) c->offsets[i][n] = offset_in(e, c, f, n);
  }
}

/* Where the level multiplies bytes by fours: the axis of the four is no longer stepped through. */
static void prepare_packed(emitter *e, contraction *c) {
  if (c->node->axis_count < 2 || !cmz_emit_find_packed(e, c->reduce, &c->quad)) return;
  cmz_expr_node *node = CMZ_NEW(e->arena, cmz_expr_node);
  *node = *c->node;
  node->axis_count = 0;
  for (uint32_t i = 0; i < c->node->axis_count; i++)
    if (c->node->axes[i] != c->quad.axis) node->axes[node->axis_count++] = c->node->axes[i];
  c->node = node;
  for (uint32_t i = 0; i < 2; i++) c->factors[i].packed = &c->quad.quad.factors[i];
}

void cmz_emit_group_prepare(emitter *e) {
  contraction *c = CMZ_NEW(e->arena, contraction);
  e->group = c;
  c->store = &e->k->stores.data[0];
  memcpy(c->axes, c->store->axes, sizeof c->axes);
  for (uint32_t i = 1; i < c->store->axis_count; i++)
    for (uint32_t j = i; j > 0 && e->s->axes[c->axes[j]].order < e->s->axes[c->axes[j - 1]].order;
         j--) {
      uint16_t t = c->axes[j];
      c->axes[j] = c->axes[j - 1];
      c->axes[j - 1] = t;
    }
  for (uint32_t i = 0; i < c->store->axis_count; i++)
    c->coordinate[c->axes[i]] = cmz_b_i64(&e->b, 0);
  if (cmz_emit_attention_prepare(e, c)) return;
  c->reduce = find_reduce(e);
  c->node = &e->k->exprs.data[c->reduce];
  c->type = cmz_emit_type(e, c->reduce);
  prepare_packed(e, c);
  const cmz_expr_node *body = &e->k->exprs.data[c->node->args[0]];
  for (uint32_t i = 0; i < 2; i++) describe_factor(e, c, &c->factors[i], body->args[i]);
  if (e->s->coded) cmz_emit_coded_prepare(e, c);
  else if (e->s->fragments) cmz_emit_tensor_prepare(e, c);
  else prepare_scalars(e, c);
}

/* ---- staging ---- */

void cmz_emit_group_conjoin(cmz_builder *b, MlirValue *all, MlirValue one) {
  *all = all->ptr ? cmz_b_2(b, "arith.andi", *all, one) : one;
}

/* Binds the axes of F at POSITION, in the tile's scope; CONDITION becomes whether that exists
 * (null: it does). */
void cmz_emit_group_bind(emitter *e, const contraction *c, const factor *f, MlirValue position,
                         uint32_t depth, MlirValue *condition) {
  cmz_builder *b = &e->b;
  emit_position saved;
  uint32_t stride = 1;
  cmz_emit_save(e, depth, &saved);
  for (uint32_t i = 0; i < c->store->axis_count; i++) /* one value of these in a tile */
    if (e->s->axes[c->axes[i]].tile == 1) cmz_emit_bind(e, c->axes[i], c->low[c->axes[i]], 0, 1, 1);
  for (uint32_t i = f->axis_count; i-- > 0;) {
    uint16_t axis = f->axes[i];
    uint32_t tile = e->s->axes[axis].tile;
    MlirValue v =
        cmz_b_add(b, c->low[axis],
                  cmz_emit_group_remainder(b, cmz_emit_group_divided(b, position, stride), tile));
    int64_t extent;
    cmz_emit_bind(e, axis, v, 0, 1, 1);
    if (!cmz_emit_extent(e, axis, &extent) || extent % tile != 0)
      cmz_emit_group_conjoin(
          b, condition,
          cmz_b_icmp(b, CMZ_B_SLT, v, cmz_emit_value(e, e->k->axes.data[axis].extent)));
    stride *= tile;
  }
  cmz_emit_restore(e, &saved);
}

/* Binds the reduction's axes at iteration NUMBER of them all. */
void cmz_emit_group_bind_reduction(emitter *e, const contraction *c, MlirValue number) {
  if (c->factors[0].packed) cmz_emit_bind(e, c->quad.axis, (MlirValue){NULL}, 0, 1, 1);
  for (uint32_t i = c->node->axis_count; i-- > 0;) {
    uint16_t axis = c->node->axes[i];
    MlirValue v = number;
    if (i > 0) {
      MlirValue extent = cmz_emit_value(e, e->k->axes.data[axis].extent);
      if (e->failed) return;
      v = cmz_b_2(&e->b, "arith.remui", number, extent);
      number = cmz_b_2(&e->b, "arith.divui", number, extent);
    }
    cmz_emit_bind(e, axis, v, 0, 1, 1);
  }
}

static MlirValue plain_element(emitter *e, const factor *f) {
  return f->packed ? cmz_emit_packed_word(e, f->packed) : cmz_emit_value(e, f->expr);
}

/* The element at the present binding, zero where CONDITION is false. */
MlirValue cmz_emit_group_element(emitter *e, const factor *f, MlirType type, MlirValue condition) {
  if (!condition.ptr) return plain_element(e, f);
  e->guarded = true;
  e->guard = condition;
  e->guard_id = ++e->next_id;
  e->guard_depth = e->depth;
  MlirValue v = plain_element(e, f);
  e->guarded = false;
  e->guard_depth = 0;
  return e->failed ? v : cmz_b_select(&e->b, condition, v, cmz_b_const(&e->b, type, 0));
}

static MlirValue place(emitter *e, const factor *f, MlirType type, MlirValue step,
                       MlirValue position) {
  cmz_builder *b = &e->b;
  MlirValue at = cmz_b_add(b, cmz_b_mul(b, step, cmz_b_i64(b, f->pitch)), position);
  return cmz_b_address(b, type, f->base, at);
}

/* FIRST: the first iteration of this step; TOTAL: of all iterations. DEPTH: the tile's scope. */
static void stage(emitter *e, const contraction *c, const factor *f, uint32_t depth,
                  MlirValue first, MlirValue total, bool whole) {
  cmz_builder *b = &e->b;
  uint32_t group = e->s->group, step = e->s->step, count = f->positions * step / group;
  uint32_t across = f->along_reduction ? CMZ_MIN(step, group) : CMZ_MIN(f->positions, group);
  uint32_t inner_count = (f->along_reduction ? step : f->positions) / across;
  for (uint32_t i = 0; i < count && !e->failed; i++) {
    emit_position saved;
    cmz_emit_save(e, depth, &saved);
    MlirValue inner = cmz_emit_group_remainder(b, e->thread, across),
              outer = cmz_emit_group_divided(b, e->thread, across);
    MlirValue near = cmz_b_add(b, inner, cmz_b_i64(b, (int64_t)(i % inner_count) * across));
    MlirValue far =
        cmz_b_add(b, outer, cmz_b_i64(b, (int64_t)(i / inner_count) * (group / across)));
    MlirValue position = f->along_reduction ? far : near,
              iteration = f->along_reduction ? near : far;
    MlirValue condition = {NULL};
    cmz_emit_restore(e, &saved);
    cmz_emit_group_bind(e, c, f, position, depth, &condition);
    MlirValue number = cmz_b_add(b, first, iteration);
    cmz_emit_group_bind_reduction(e, c, number);
    if (!whole) cmz_emit_group_conjoin(b, &condition, cmz_b_icmp(b, CMZ_B_SLT, number, total));
    MlirValue v = cmz_emit_group_element(e, f, c->type, condition);
    if (e->failed) return;
    MlirValue at = place(e, f, c->type, iteration, position);
    b->buffer = (cmz_b_buffer){.windows = &f->memory, .count = 1};
    cmz_b_store(b, v, at, NULL);
  }
}

/* ---- computing ---- */

static MlirValue staged_load(emitter *e, const contraction *c, const factor *f, MlirValue own,
                             uint32_t iteration, uint32_t offset) {
  MlirValue at = cmz_b_address_const(&e->b, c->type, own, (int64_t)iteration * f->pitch + offset);
  e->b.buffer = (cmz_b_buffer){.windows = &f->memory, .count = 1};
  return cmz_b_load(&e->b, c->type, at, NULL, false);
}

static void compute(emitter *e, const contraction *c, MlirValue *accs) {
  cmz_builder *b = &e->b;
  MlirValue own[2];
  for (uint32_t i = 0; i < 2; i++)
    own[i] = cmz_b_address(b, c->type, c->factors[i].base, c->factors[i].own);
  bool is_float = cmz_b_is_float(c->type);
  for (uint32_t k = 0; k < e->s->step && !e->failed; k++) {
    MlirValue loaded[2][CMZ_EMIT_MAX_INSTANCES];
    uint32_t offsets[2][CMZ_EMIT_MAX_INSTANCES], known[2] = {0, 0};
    for (uint32_t i = 0; i < c->instances; i++) {
      MlirValue v[2];
      for (uint32_t f = 0; f < 2; f++) {
        uint32_t offset = c->offsets[f][i], at = 0;
        while (at < known[f] && offsets[f][at] != offset) at++;
        if (at == known[f]) {
          offsets[f][known[f]] = offset;
          loaded[f][known[f]++] = staged_load(e, c, &c->factors[f], own[f], k, offset);
        }
        v[f] = loaded[f][at];
      }
      if (c->factors[0].packed)
        accs[i] = cmz_emit_packed_dot(e, &c->quad.quad, v[0], v[1], accs[i]);
      else if (is_float) accs[i] = cmz_b_fma(b, v[0], v[1], accs[i]);
      else accs[i] = cmz_b_add(b, accs[i], cmz_b_mul(b, v[0], v[1]));
    }
  }
}

MlirValue cmz_emit_group_iterations(emitter *e, const contraction *c, int64_t *known) {
  MlirValue total = {NULL};
  *known = 1;
  for (uint32_t i = 0; i < c->node->axis_count; i++) {
    int64_t extent;
    MlirValue v = cmz_emit_value(e, e->k->axes.data[c->node->axes[i]].extent);
    if (e->failed) return e->begin;
    if (*known >= 0 && cmz_emit_extent(e, c->node->axes[i], &extent)) *known *= extent;
    else *known = -1;
    total = total.ptr ? cmz_b_mul(&e->b, total, v) : v;
  }
  return total;
}

static void reduce_steps(emitter *e, const contraction *c, MlirValue *accs) {
  cmz_builder *b = &e->b;
  uint32_t depth = e->depth;
  int64_t known;
  MlirValue total = cmz_emit_group_iterations(e, c, &known);
  if (e->failed) return;
  MlirValue *initial = CMZ_NEW_ARRAY(e->arena, MlirValue, c->instances);
  for (uint32_t i = 0; i < c->instances; i++) initial[i] = cmz_b_const(b, c->type, 0);
  cmz_b_loop loop;
  cmz_b_loop_open(b, e->arena, initial, c->instances, &loop);
  loop.rolled = true;
  memcpy(accs, loop.carried, c->instances * sizeof *accs);
  cmz_emit_push(e, loop.body);
  cmz_emit_group_barrier(e); /* nobody reads the step before any more */
  for (uint32_t i = 0; i < 2 && !e->failed; i++)
    stage(e, c, &c->factors[i], depth, loop.index, total, known >= 0 && known % e->s->step == 0);
  cmz_emit_group_barrier(e);
  if (!e->failed) compute(e, c, accs);
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_loop_close(b, &loop, cmz_b_i64(b, 0), total, cmz_b_i64(b, e->s->step), initial,
                   c->instances, accs);
}

/* ---- storing ---- */

static void choose_instance(emitter *e, const contraction *c, uint32_t instance) {
  for (uint32_t i = 0; i < c->store->axis_count; i++) e->axes[c->axes[i]].offset = 0;
  for (uint32_t i = 0; i < 2; i++) {
    const factor *f = &c->factors[i];
    uint32_t rest = c->offsets[i][instance];
    for (uint32_t a = f->axis_count; a-- > 0; rest /= e->s->axes[f->axes[a]].tile)
      e->axes[f->axes[a]].offset = rest % e->s->axes[f->axes[a]].tile;
  }
}

static void store_instance(emitter *e, const contraction *c, uint32_t instance, MlirValue sum) {
  cmz_builder *b = &e->b;
  MlirValue condition = c->exists;
  MlirRegion regions[2];
  MlirBlock yes = {NULL}, no = {NULL}, here = b->block;
  choose_instance(e, c, instance);
  for (uint32_t i = 0; i < c->store->axis_count; i++) {
    const axis_state *a = &e->axes[c->axes[i]];
    int64_t extent;
    if (cmz_emit_extent(e, c->axes[i], &extent) && extent % e->s->axes[c->axes[i]].tile == 0)
      continue;
    MlirValue end = cmz_emit_value(e, e->k->axes.data[c->axes[i]].extent);
    if (e->failed) return;
    cmz_emit_group_conjoin(
        b, &condition,
        cmz_b_icmp(b, CMZ_B_SLT, cmz_b_add(b, a->base, cmz_b_i64(b, a->offset)), end));
  }
  if (condition.ptr) {
    yes = cmz_b_region(&regions[0]);
    no = cmz_b_region(&regions[1]);
    cmz_emit_push(e, yes);
    e->guard_depth = e->depth;
  }
  if (c->node->args[1]) sum = cmz_b_add(b, cmz_emit_value(e, c->node->args[1]), sum);
  if (!e->failed) cmz_emit_remember(e, cmz_emit_key(e, c->reduce), e->depth, sum);
  cmz_emit_store(e, c->store);
  if (!condition.ptr) return;
  e->guard_depth = 0;
  cmz_emit_pop(e);
  if (e->failed) return;
  cmz_b_yield(b, yes, NULL, 0);
  cmz_b_yield(b, no, NULL, 0);
  b->block = here;
  cmz_b_if(b, condition, regions[0], regions[1], NULL, 0, NULL);
}

void cmz_emit_group_tile(emitter *e, const MlirValue *low) {
  contraction *c = e->group;
  MlirValue *accs = CMZ_NEW_ARRAY(e->arena, MlirValue, c->instances);
  for (uint32_t i = 0; i < c->store->axis_count; i++) c->low[c->axes[i]] = low[c->axes[i]];
  if (c->attention) cmz_emit_attention_steps(e, c, accs);
  else if (e->s->coded) cmz_emit_coded_steps(e, c, accs);
  else if (e->s->fragments) cmz_emit_tensor_steps(e, c, accs);
  else reduce_steps(e, c, accs);
  for (uint32_t i = 0; i < c->store->axis_count && !e->failed; i++) {
    uint16_t axis = c->axes[i];
    cmz_emit_bind(e, axis, cmz_b_add(&e->b, low[axis], c->coordinate[axis]), 0,
                  e->s->axes[axis].tile, 1);
  }
  for (uint32_t i = 0; i < c->instances && !e->failed; i++) store_instance(e, c, i, accs[i]);
}
