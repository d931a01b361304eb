/* emit_memory.c - loads, stores and addresses of a kernel.
 * In: linear element indices as expressions. Out: vector accesses where the index has stride 1
 * along the vector axis, lane by lane elsewhere. An address is built as a sum grouped by scope:
 * what does not change in an inner loop is added outside it, and the offset of an unrolled instance
 * is a constant at the end, which becomes the displacement of the instruction. Always holds: no
 * access outside the operand that the description itself does not make. */
#include "emit.h"

#include "mlir-c/BuiltinTypes.h"

#define MAX_TERMS 48
typedef struct term {
  cmz_expr atom;
  int64_t factor;
} term;
typedef struct sum {
  term terms[MAX_TERMS];
  uint32_t count;
  int64_t constant;
  bool overflow;
} sum;

static void add_term(sum *s, cmz_expr atom, int64_t factor) {
  for (uint32_t i = 0; i < s->count; i++)
    if (s->terms[i].atom == atom) {
      s->terms[i].factor += factor;
      return;
    }
  if (s->count == MAX_TERMS) s->overflow = true;
  else s->terms[s->count++] = (term){atom, factor};
}

static void flatten(const emitter *e, cmz_expr x, int64_t factor, sum *s) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  int64_t c;
  switch (n->op) {
  case CMZ_X_CONST_INT:
    s->constant += factor * n->i;
    return;
  case CMZ_X_ADD:
    flatten(e, n->args[0], factor, s);
    flatten(e, n->args[1], factor, s);
    return;
  case CMZ_X_SUB:
    flatten(e, n->args[0], factor, s);
    flatten(e, n->args[1], -factor, s);
    return;
  case CMZ_X_NEG:
    flatten(e, n->args[0], -factor, s);
    return;
  case CMZ_X_MUL:
    if (cmz_emit_int(e, n->args[1], &c)) {
      flatten(e, n->args[0], factor * c, s);
      return;
    }
    if (cmz_emit_int(e, n->args[0], &c)) {
      flatten(e, n->args[1], factor * c, s);
      return;
    }
    break;
  default:
    break;
  }
  add_term(s, x, factor);
}

/* With AXIS' other uses only as a plain term; false when it hides in an atom. */
static bool stride_of(const emitter *e, const sum *s, uint32_t axis, int64_t *stride) {
  *stride = 0;
  if (s->overflow) return false;
  for (uint32_t i = 0; i < s->count; i++) {
    const term *t = &s->terms[i];
    const cmz_expr_node *n = &e->k->exprs.data[t->atom];
    if (t->factor == 0 || !axis_set_has(&e->info[t->atom].free, axis)) continue;
    if (n->op != CMZ_X_AXIS) return false;
    *stride += t->factor;
  }
  return true;
}

bool cmz_emit_stride(emitter *e, cmz_expr x, uint32_t axis, int64_t *stride) {
  sum s = {0};
  flatten(e, x, 1, &s);
  return stride_of(e, &s, axis, stride);
}

static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * 0x9e3779b97f4a7c15ull;
  return h ^ (h >> 29);
}

/* Splits a plain axis term into what its base gives and a constant. */
static bool constant_part(const emitter *e, const term *t, int64_t *constant, bool *nothing_else) {
  const cmz_expr_node *n = &e->k->exprs.data[t->atom];
  if (n->op != CMZ_X_AXIS) return false;
  const axis_state *a = &e->axes[n->i];
  if (a->lanes > 1 && a->masked && e->lane > 0) return false; /* clamped lanes are not affine */
  int64_t plus = (int64_t)a->offset + (a->lanes > 1 && e->lane > 0 ? e->lane : 0);
  *constant += t->factor * (plus + (a->is_constant ? a->value : 0));
  *nothing_else = a->is_constant;
  return true;
}

static MlirValue base_of_atom(emitter *e, const term *t, bool plain) {
  const cmz_expr_node *n = &e->k->exprs.data[t->atom];
  MlirValue v = plain ? e->axes[n->i].base : cmz_emit_value(e, t->atom);
  if (e->failed || t->factor == 1) return v;
  return cmz_b_mul(&e->b, v, cmz_b_i64(&e->b, t->factor));
}

/* Adds the terms of one depth to BASE. */
static MlirValue add_depth(emitter *e, MlirType element, MlirValue base, const sum *s,
                           const uint32_t *depths, const bool *plain, uint32_t depth,
                           uint64_t *key) {
  bool any = false;
  for (uint32_t i = 0; i < s->count; i++) {
    if (depths[i] != depth || s->terms[i].factor == 0) continue;
    any = true;
    *key = mix(*key, plain[i] ? e->axes[e->k->exprs.data[s->terms[i].atom].i].id
                              : cmz_emit_key(e, s->terms[i].atom));
    *key = mix(*key, (uint64_t)s->terms[i].factor);
  }
  MlirValue found;
  if (!any) return base;
  if (cmz_emit_find(e, *key, &found)) return found;
  MlirBlock saved = e->b.block;
  e->b.block = e->path[depth]->block;
  MlirValue total = {NULL};
  for (uint32_t i = 0; i < s->count && !e->failed; i++) {
    if (depths[i] != depth || s->terms[i].factor == 0) continue;
    MlirValue v = base_of_atom(e, &s->terms[i], plain[i]);
    total = total.ptr ? cmz_b_add(&e->b, total, v) : v;
  }
  MlirValue r = e->failed ? base : cmz_b_address(&e->b, element, base, total);
  e->b.block = saved;
  cmz_emit_remember(e, *key, depth, r);
  return r;
}

static MlirValue operand_base(emitter *e, uint32_t operand) {
  MlirValue v;
  uint64_t key = mix(0x0badf00d, operand);
  if (cmz_emit_find(e, key, &v)) return v;
  return cmz_emit_fail(e, "an operand is out of range");
}

void cmz_emit_remember_operand(emitter *e, uint32_t operand, MlirValue address) {
  cmz_emit_remember(e, mix(0x0badf00d, operand), 0, address);
}

MlirValue cmz_emit_address(emitter *e, uint32_t operand, cmz_expr index) {
  sum s = {0};
  uint32_t depths[MAX_TERMS], deepest = 0;
  bool plain[MAX_TERMS];
  MlirType element = cmz_b_stored_type(&e->b, e->k->operands.data[operand].dtype);
  MlirValue address = operand_base(e, operand);
  if (e->failed) return address;
  flatten(e, index, 1, &s);
  if (s.overflow) return cmz_b_address(&e->b, element, address, cmz_emit_value(e, index));
  int64_t constant = s.constant;
  for (uint32_t i = 0; i < s.count; i++) {
    bool nothing_else = false;
    plain[i] = constant_part(e, &s.terms[i], &constant, &nothing_else);
    if (nothing_else) s.terms[i].factor = 0;
    depths[i] = cmz_emit_depth(e, s.terms[i].atom);
    if (s.terms[i].factor) deepest = CMZ_MAX(deepest, depths[i]);
  }
  uint64_t key = mix(0x1234567, operand);
  for (uint32_t d = 0; d <= deepest && !e->failed; d++)
    address = add_depth(e, element, address, &s, depths, plain, d, &key);
  return cmz_b_address_const(&e->b, element, address, constant);
}

void cmz_emit_use_memory(emitter *e, uint32_t operand) {
  cmz_dtype stored = e->k->operands.data[operand].dtype;
  bool pairs = e->b.narrow && (stored == CMZ_I64 || stored == CMZ_U64);
  if (!e->memories) return;
  e->b.memory = e->memories[operand];
  e->b.pairs = pairs ? e->b.memory : (MlirValue){NULL};
}

/* ---- loads ---- */

/* A condition for one lane, or for any of them. */
MlirValue cmz_emit_scalar_guard(emitter *e) {
  uint32_t lanes = cmz_b_lanes(cmz_b_type(e->guard));
  if (lanes == 1) return e->guard;
  if (e->lane >= 0) return cmz_b_extract(&e->b, e->guard, (uint32_t)e->lane);
  MlirValue v = e->guard;
  while (lanes > 1) {
    MlirValue low = cmz_b_slice(&e->b, v, 0, lanes / 2);
    MlirValue high = cmz_b_slice(&e->b, v, lanes / 2, lanes / 2);
    if (lanes % 2) low = cmz_b_2(&e->b, "arith.ori", low, cmz_b_slice(&e->b, v, lanes - 1, 1));
    v = cmz_b_2(&e->b, "arith.ori", low, high);
    lanes /= 2;
  }
  return v;
}

/* TYPE at ADDRESS where GUARD holds, else 0. */
static MlirValue load_in_branch(emitter *e, MlirType type, MlirValue address, MlirValue guard,
                                bool invariant) {
  cmz_builder *b = &e->b;
  MlirRegion regions[2];
  MlirBlock yes = cmz_b_region(&regions[0]), no = cmz_b_region(&regions[1]), here = b->block;
  b->block = yes;
  MlirValue v = cmz_b_load(b, type, address, NULL, invariant), result;
  cmz_b_yield(b, yes, &v, 1);
  b->block = no;
  v = cmz_b_const(b, type, 0);
  cmz_b_yield(b, no, &v, 1);
  b->block = here;
  cmz_b_if(b, guard, regions[0], regions[1], &type, 1, &result);
  return result;
}

/* An address of OPERAND that can be read although none of its elements may be wanted. Vulkan's
 * driver binds something where an operand is empty; CUDA's passes any address. */
static bool safe_address(emitter *e, uint32_t operand, MlirValue *address) {
  int64_t n;
  const cmz_cpu_row *cpu = e->b.cpu;
  bool any = cmz_emit_int(e, e->k->operands.data[operand].elements, &n) && n > 0;
  if (cpu->threads && !cpu->spirv && !any) return false;
  *address = cpu->threads ? operand_base(e, operand) : e->args; /* the function's own arguments */
  return true;
}

/* X is the load. One that does not use the vector axis serves all lanes, also where it is asked for
 * while a single lane is computed: that lane's condition would not do for the others. */
static MlirValue load_scalar(emitter *e, cmz_expr x, MlirValue address) {
  cmz_builder *b = &e->b;
  uint32_t operand = (uint32_t)e->k->exprs.data[x].i;
  int32_t lane = e->lane;
  cmz_dtype stored = e->k->operands.data[operand].dtype;
  MlirType type = cmz_b_stored_type(b, stored);
  bool invariant = e->k->operands.data[operand].constant;
  cmz_emit_use_memory(e, operand);
  if (!e->guarded) return cmz_b_decode(b, stored, cmz_b_load(b, type, address, NULL, invariant));
  if (!cmz_emit_uses_vector(e, x)) e->lane = -1;
  MlirValue guard = cmz_emit_scalar_guard(e), safe;
  e->lane = lane;
  if (!safe_address(e, operand, &safe))
    return cmz_b_decode(b, stored, load_in_branch(e, type, address, guard, invariant));
  safe = cmz_b_select(b, guard, address, safe); /* without a branch: the result is not used */
  return cmz_b_decode(b, stored, cmz_b_load(b, type, safe, NULL, invariant));
}

static MlirValue gather(emitter *e, cmz_expr x, uint32_t lanes) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  MlirType t = cmz_b_vector(cmz_b_compute_type(&e->b, (cmz_dtype)n->dtype), lanes);
  MlirValue v = cmz_b_const(&e->b, t, 0);
  for (uint32_t lane = 0; lane < lanes && !e->failed; lane++) {
    e->lane = (int32_t)lane;
    MlirValue address = cmz_emit_address(e, (uint32_t)n->i, n->args[0]);
    if (!e->failed) v = cmz_b_insert(&e->b, v, load_scalar(e, x, address), lane);
  }
  e->lane = -1;
  return v;
}

/* The lanes that a contiguous access may touch: those that exist and are selected. */
static bool access_mask(emitter *e, const axis_state *a, MlirValue *mask) {
  if (e->guarded) *mask = cmz_b_broadcast(&e->b, e->guard, a->lanes);
  if (e->guarded && a->masked) *mask = cmz_b_2(&e->b, "arith.andi", *mask, a->mask);
  if (!e->guarded && a->masked) *mask = a->mask;
  return e->guarded || a->masked;
}

/* Whether the CPU loads vectors of TYPE under a mask; LLVM makes a branch a lane of it elsewhere.
 */
bool cmz_emit_loads_masked(const emitter *e, MlirType type) {
  const cmz_cpu_row *cpu = e->b.cpu;
  return cpu->masked || (cpu->vector_bytes >= 32 && cmz_b_bits(type) >= 32); /* AVX: vmaskmov */
}

MlirValue cmz_emit_load(emitter *e, cmz_expr x) {
  const cmz_expr_node *n = &e->k->exprs.data[x];
  cmz_builder *b = &e->b;
  uint32_t operand = (uint32_t)n->i;
  cmz_dtype stored = e->k->operands.data[operand].dtype;
  MlirType type = cmz_b_stored_type(b, stored);
  if (!type.ptr) return cmz_emit_fail(e, "an operand has a type that kernels do not read");
  int32_t vector = e->lane >= 0 ? -1 : cmz_emit_vector_axis(e, n->args[0]);
  if (vector < 0) {
    MlirValue address = cmz_emit_address(e, operand, n->args[0]);
    return e->failed ? address : load_scalar(e, x, address);
  }
  const axis_state *a = &e->axes[vector];
  int64_t stride;
  if (!cmz_emit_stride(e, n->args[0], (uint32_t)vector, &stride) || stride != 1)
    return gather(e, x, a->lanes);
  /* Lane by lane from addresses that are always valid: without a branch. */
  if ((a->masked || e->guarded) && !cmz_emit_loads_masked(e, type)) return gather(e, x, a->lanes);
  e->lane = 0;
  MlirValue address = cmz_emit_address(e, operand, n->args[0]), mask;
  e->lane = -1;
  if (e->failed) return address;
  bool masked = access_mask(e, a, &mask);
  return cmz_b_decode(b, stored,
                      cmz_b_load(b, cmz_b_vector(type, a->lanes), address, masked ? &mask : NULL,
                                 e->k->operands.data[operand].constant));
}

/* ---- stores ---- */

static MlirValue combined(emitter *e, const cmz_store *store, MlirValue address, MlirValue value) {
  static const cmz_reduce_op ops[] = {[CMZ_STORE_ADD] = CMZ_REDUCE_SUM,
                                      [CMZ_STORE_MUL] = CMZ_REDUCE_PROD,
                                      [CMZ_STORE_MIN] = CMZ_REDUCE_MIN,
                                      [CMZ_STORE_MAX] = CMZ_REDUCE_MAX};
  cmz_builder *b = &e->b;
  cmz_dtype stored = e->k->operands.data[store->operand].dtype;
  cmz_dtype dtype = (cmz_dtype)e->k->exprs.data[store->value].dtype;
  if (store->mode == CMZ_STORE_SET) return value;
  MlirValue old =
      cmz_b_decode(b, stored, cmz_b_load(b, cmz_b_stored_type(b, stored), address, NULL, false));
  return cmz_emit_combine(e, ops[store->mode], dtype, old, value);
}

static void store_scalar(emitter *e, const cmz_store *store, MlirValue value) {
  MlirValue address = cmz_emit_address(e, store->operand, store->index);
  if (e->failed) return;
  cmz_emit_use_memory(e, store->operand);
  value = combined(e, store, address, value);
  MlirValue raw = cmz_b_encode(&e->b, e->k->operands.data[store->operand].dtype, value);
  if (!raw.ptr) {
    cmz_emit_fail(e, "an operand has a type that kernels do not write");
    return;
  }
  cmz_b_store(&e->b, raw, address, NULL);
}

/* Lane by lane; CONDITION (mask or null) says which lanes are stored. */
static void scatter(emitter *e, const cmz_store *store, MlirValue value, uint32_t lanes,
                    const MlirValue *condition) {
  cmz_builder *b = &e->b;
  for (uint32_t lane = 0; lane < lanes && !e->failed; lane++) {
    MlirValue one = cmz_b_lanes(cmz_b_type(value)) > 1 ? cmz_b_extract(b, value, lane) : value;
    MlirBlock here = b->block;
    MlirRegion regions[2];
    MlirBlock yes = {NULL}, no = {NULL};
    MlirValue bit = {NULL};
    if (condition) {
      bit = cmz_b_extract(b, *condition, lane);
      yes = cmz_b_region(&regions[0]);
      no = cmz_b_region(&regions[1]);
      cmz_emit_push(e, yes);
    }
    e->lane = (int32_t)lane;
    store_scalar(e, store, one);
    e->lane = -1;
    if (!condition) continue;
    cmz_emit_pop(e);
    cmz_b_yield(b, yes, NULL, 0);
    cmz_b_yield(b, no, NULL, 0);
    b->block = here;
    cmz_b_if(b, bit, regions[0], regions[1], NULL, 0, NULL);
  }
}

static void store_vector(emitter *e, const cmz_store *store, const axis_state *a, uint32_t axis,
                         const MlirValue *predicate) {
  cmz_builder *b = &e->b;
  int64_t stride;
  MlirValue value = cmz_emit_value(e, store->value), mask;
  if (e->failed) return;
  bool masked = predicate != NULL || a->masked;
  if (predicate) mask = cmz_b_broadcast(b, *predicate, a->lanes);
  if (predicate && a->masked) mask = cmz_b_2(b, "arith.andi", mask, a->mask);
  if (!predicate && a->masked) mask = a->mask;
  if (!cmz_emit_stride(e, store->index, axis, &stride) || stride != 1) {
    scatter(e, store, value, a->lanes, masked ? &mask : NULL);
    return;
  }
  e->lane = 0;
  MlirValue address = cmz_emit_address(e, store->operand, store->index);
  e->lane = -1;
  if (e->failed) return;
  MlirValue raw = cmz_b_encode(b, e->k->operands.data[store->operand].dtype,
                               cmz_b_broadcast(b, value, a->lanes));
  if (!raw.ptr) {
    cmz_emit_fail(e, "an operand has a type that kernels do not write");
    return;
  }
  cmz_b_store(b, raw, address, masked ? &mask : NULL);
}

static void store_now(emitter *e, const cmz_store *store, const MlirValue *predicate) {
  int32_t vector = -1;
  for (uint32_t i = 0; i < store->axis_count; i++)
    if (e->axes[store->axes[i]].lanes > 1) vector = store->axes[i];
  if (vector >= 0) {
    store_vector(e, store, &e->axes[vector], (uint32_t)vector, predicate);
    return;
  }
  MlirValue value = cmz_emit_value(e, store->value);
  if (!e->failed) store_scalar(e, store, value);
}

/* One instance of a store at the present binding of all its axes. */
void cmz_emit_store(emitter *e, const cmz_store *store) {
  cmz_builder *b = &e->b;
  if (!store->predicate || cmz_emit_is_true(e, store->predicate)) {
    store_now(e, store, NULL);
    return;
  }
  MlirValue p = cmz_emit_value(e, store->predicate);
  if (e->failed) return;
  if (cmz_b_lanes(cmz_b_type(p)) > 1) {
    static const outer_guard none = {0, NULL};
    e->outer = &none;
    e->guarded = true; /* the value's loads happen only where it is stored */
    e->guard = p;
    e->guard_id = ++e->next_id;
    e->guard_depth = e->depth;
    store_now(e, store, &p);
    e->guarded = false;
    e->outer = NULL;
    e->guard_depth = 0;
    return;
  }
  MlirRegion regions[2];
  MlirBlock yes = cmz_b_region(&regions[0]), no = cmz_b_region(&regions[1]), here = b->block;
  cmz_emit_push(e, yes);
  e->guard_depth = e->depth;
  store_now(e, store, NULL);
  e->guard_depth = 0;
  cmz_emit_pop(e);
  cmz_b_yield(b, yes, NULL, 0);
  cmz_b_yield(b, no, NULL, 0);
  b->block = here;
  cmz_b_if(b, p, regions[0], regions[1], NULL, 0, NULL);
}
