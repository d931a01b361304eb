/* emit_memory.c - loads, stores and addresses of a kernel.
 * In: linear element indices as expressions. Out: vector accesses where the index has stride 1
 * along the vector axis, lane by lane elsewhere. An address is built as a sum grouped by scope:
 * what does not change in an inner loop is added outside it, and the offset of an unrolled instance
 * is a constant at the end, which becomes the displacement of the instruction. Always holds: no
 * access outside the operand that the description itself does not make. */
#include "emit.h"

#include "mlir-c/BuiltinTypes.h"

#define MAX_TERMS 48
#define MAX_FILL_BYTES 1024
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

bool cmz_emit_contiguous(emitter *e, cmz_expr x, uint32_t axis, uint32_t count) {
  sum s = {0};
  int64_t stride;
  flatten(e, x, 1, &s);
  if (!stride_of(e, &s, axis, &stride) || stride != 1 || s.constant % count != 0) return false;
  for (uint32_t i = 0; i < s.count; i++) {
    const cmz_expr_node *n = &e->k->exprs.data[s.terms[i].atom];
    if (n->op == CMZ_X_AXIS && n->i == axis) continue;
    if (s.terms[i].factor % count != 0) return false;
  }
  return true;
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
  /* clamped lanes and instances are not affine */
  if ((a->lanes > 1 && a->masked && e->lane > 0) || (a->clamped && a->offset > 0)) return false;
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

MlirValue cmz_emit_operand_base(emitter *e, uint32_t operand) { return operand_base(e, operand); }

void cmz_emit_remember_operand(emitter *e, uint32_t operand, MlirValue address) {
  cmz_emit_remember(e, mix(0x0badf00d, operand), 0, address);
}

/* The terms of an index, by the scopes where they are known. */
typedef struct index_parts {
  sum s;
  uint32_t depths[MAX_TERMS], deepest;
  bool plain[MAX_TERMS];
  int64_t constants[MAX_TERMS]; /* what the instance adds to each term */
} index_parts;

static void split_index(emitter *e, cmz_expr index, index_parts *p) {
  *p = (index_parts){0};
  flatten(e, index, 1, &p->s);
  for (uint32_t i = 0; i < p->s.count && !p->s.overflow; i++) {
    bool nothing_else = false;
    p->depths[i] = cmz_emit_depth(e, p->s.terms[i].atom);
    p->plain[i] = constant_part(e, &p->s.terms[i], &p->constants[i], &nothing_else);
    if (nothing_else) p->s.terms[i].factor = 0;
    if (p->s.terms[i].factor) p->deepest = CMZ_MAX(p->deepest, p->depths[i]);
  }
}

/* The elements that an index moves by below DEPTH: false when not known to lie within
 * 0..MAX_FILL_BYTES. */
static bool moves_below(emitter *e, const index_parts *p, uint32_t depth, uint32_t element_bytes,
                        int64_t *most) {
  int64_t least = 0;
  *most = 0;
  for (uint32_t i = 0; i < p->s.count; i++) {
    if (p->depths[i] <= depth) continue;
    int64_t low = 0, high = 0, a, b;
    if (p->s.terms[i].factor) {
      cmz_emit_range(e, p->s.terms[i].atom, &low, &high);
      if (p->plain[i]) { /* the instance's part is in the constant */
        const axis_state *x = &e->axes[e->k->exprs.data[p->s.terms[i].atom].i];
        low = CMZ_MAX(low - x->offset, 0);
      }
    }
    if (low < 0 || high > MAX_FILL_BYTES) return false;
    a = low * p->s.terms[i].factor;
    b = high * p->s.terms[i].factor;
    least += CMZ_MIN(a, b) + CMZ_MIN(p->constants[i], 0);
    *most += CMZ_MAX(a, b) + CMZ_MAX(p->constants[i], 0);
    if (least < 0 || *most > MAX_FILL_BYTES) return false;
  }
  return (*most + 1) * element_bytes <= MAX_FILL_BYTES;
}

static MlirValue fill_address(emitter *e, uint32_t bytes) {
  uint32_t at = 0;
  while (at + 1 < e->fill_count && e->fills[at].bits != e->fill) at++;
  e->fills[at].bytes = CMZ_MAX(e->fills[at].bytes, bytes);
  MlirValue v;
  uint64_t key = mix(0xf111, at);
  if (cmz_emit_find(e, key, &v)) return v;
  MlirBlock saved = e->b.block;
  e->b.block = e->path[0]->block;
  v = cmz_b_global(&e->b, (const char *const[]){"fill0", "fill1", "fill2", "fill3"}[at]);
  e->b.block = saved;
  cmz_emit_remember(e, key, 0, v);
  return v;
}

/* ADDRESS where the guard holds, the buffer otherwise: decided in the guard's scope, outside of the
 * loops that only move on from there. */
static MlirValue redirect(emitter *e, MlirValue address, uint32_t depth, uint32_t bytes,
                          uint64_t *key) {
  MlirValue v, fill = fill_address(e, bytes);
  *key = mix(mix(*key, (uint64_t)(uintptr_t)e->guard.ptr), (uint64_t)(uintptr_t)address.ptr);
  if (cmz_emit_find(e, *key, &v)) return v;
  MlirBlock saved = e->b.block;
  e->b.block = e->path[depth]->block;
  v = cmz_b_select(&e->b, e->guard, address, fill);
  e->b.block = saved;
  cmz_emit_remember(e, *key, depth, v);
  return v;
}

static MlirValue address_at(emitter *e, MlirType element, MlirValue base, int64_t constant,
                            uint32_t depth) {
  MlirBlock saved = e->b.block;
  e->b.block = e->path[depth]->block;
  MlirValue v = cmz_b_address_const(&e->b, element, base, constant);
  e->b.block = saved;
  return v;
}

/* With LANES, where the guard is false: the address of so many elements of what fills. */
static MlirValue address_of(emitter *e, uint32_t operand, cmz_expr index, uint32_t lanes) {
  bool filled = lanes > 0;
  MlirType element = cmz_b_stored_type(&e->b, e->k->operands.data[operand].dtype);
  uint32_t bytes = CMZ_MAX(cmz_b_bits(element) / 8, 1u);
  MlirValue address = operand_base(e, operand);
  index_parts p;
  if (e->failed) return address;
  split_index(e, index, &p);
  uint64_t key = mix(0x1234567, operand);
  if (p.s.overflow) {
    address = cmz_b_address(&e->b, element, address, cmz_emit_value(e, index));
    return filled && !e->failed ? redirect(e, address, e->depth, lanes * bytes, &key) : address;
  }
  int64_t most = 0, before = p.s.constant, after = 0;
  uint32_t turn = e->guard_at, last = p.deepest;
  if (filled && !moves_below(e, &p, turn, bytes, &most)) {
    turn = CMZ_MAX(turn, last);
    most = 0;
  }
  for (uint32_t i = 0; i < p.s.count; i++)
    if (filled && p.depths[i] > turn) after += p.constants[i];
    else before += p.constants[i];
  if (filled) last = CMZ_MAX(last, turn);
  for (uint32_t d = 0; d <= last && !e->failed; d++) {
    address = add_depth(e, element, address, &p.s, p.depths, p.plain, d, &key);
    if (!filled || d != turn || e->failed) continue;
    key = mix(key, (uint64_t)before);
    address = redirect(e, address_at(e, element, address, before, d), d,
                       ((uint32_t)most + lanes) * bytes, &key);
    before = 0;
  }
  return cmz_b_address_const(&e->b, element, address, before + after);
}

MlirValue cmz_emit_address(emitter *e, uint32_t operand, cmz_expr index) {
  return address_of(e, operand, index, 0);
}

/* ---- what fills ---- */

bool cmz_emit_fills(const emitter *e) {
  return e->guarded && !e->b.cpu->threads && !e->b.cpu->spirv &&
         cmz_b_lanes(cmz_b_type(e->guard)) == 1;
}

bool cmz_emit_set_fill(emitter *e, uint32_t bits) {
  for (uint32_t i = 0; i < e->fill_count; i++)
    if (e->fills[i].bits == bits) {
      e->fill = bits;
      return true;
    }
  if (e->fill_count == CMZ_EMIT_MAX_FILLS) return false;
  e->fills[e->fill_count++] = (fill_buffer){bits, 0};
  e->fill = bits;
  return true;
}

void cmz_emit_fill_buffers(emitter *e, MlirModule module) {
  static const char *const names[CMZ_EMIT_MAX_FILLS] = {"fill0", "fill1", "fill2", "fill3"};
  e->b.block = mlirModuleGetBody(module);
  for (uint32_t i = 0; i < e->fill_count; i++)
    if (e->fills[i].bytes) cmz_b_global_words(&e->b, names[i], e->fills[i].bits, e->fills[i].bytes);
}

void cmz_emit_use_memory(emitter *e, uint32_t operand) {
  if (e->buffers) e->b.buffer = e->buffers[operand];
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

/* Four neighbours, or two, that a sum comes by one after the other: loaded and converted together,
 * since a product takes any lane as it is. False where X is not one of them. */
static bool load_neighbour(emitter *e, cmz_expr x, MlirValue *value) {
  cmz_builder *b = &e->b;
  const cmz_expr_node *n = &e->k->exprs.data[x];
  uint32_t operand = (uint32_t)n->i, axis = 0, count = 4;
  cmz_dtype stored = e->k->operands.data[operand].dtype;
  bool filled = cmz_emit_fills(e);
  int64_t stride;
  if (!b->cpu->by_element || (stored != CMZ_F16 && stored != CMZ_BF16) || (e->guarded && !filled) ||
      e->info[x].has_written_load || cmz_emit_uses_vector(e, x))
    return false;
  while (axis < e->k->axes.count &&
         !(e->axes[axis].steps >= 2 && axis_set_has(&e->info[x].free, axis) &&
           cmz_emit_stride(e, n->args[0], axis, &stride) && stride == 1))
    axis++;
  if (axis == e->k->axes.count) return false;
  axis_state *a = &e->axes[axis];
  const uint32_t offset = a->offset;
  if (offset - offset % count + count > a->steps) count = 2;
  if (offset - offset % count + count > a->steps) return false;
  a->offset = offset - offset % count;
  uint64_t key = mix(cmz_emit_key(e, x), UINT64_C(0x4e16b00) + count);
  MlirValue all = e->begin;
  if (!cmz_emit_find(e, key, &all)) {
    MlirValue address = address_of(e, operand, n->args[0], filled ? count : 0);
    if (!e->failed) {
      cmz_emit_use_memory(e, operand);
      MlirType type = cmz_b_vector(cmz_b_stored_type(b, stored), count);
      bool invariant = e->k->operands.data[operand].constant;
      all = cmz_b_decode(b, stored, cmz_b_load(b, type, address, NULL, invariant));
      cmz_emit_remember(e, key, e->depth, all);
    }
  }
  a->offset = offset;
  *value = e->failed ? e->begin : cmz_b_extract(b, all, offset % count);
  return true;
}

/* X is the load. One that does not use the vector axis serves all lanes, also where it is asked for
 * while a single lane is computed: that lane's condition would not do for the others. */
static MlirValue load_scalar(emitter *e, cmz_expr x) {
  cmz_builder *b = &e->b;
  uint32_t operand = (uint32_t)e->k->exprs.data[x].i;
  int32_t lane = e->lane;
  cmz_dtype stored = e->k->operands.data[operand].dtype;
  MlirType type = cmz_b_stored_type(b, stored);
  bool invariant = e->k->operands.data[operand].constant, filled = cmz_emit_fills(e);
  MlirValue neighbour;
  if (load_neighbour(e, x, &neighbour)) return neighbour;
  MlirValue address = address_of(e, operand, e->k->exprs.data[x].args[0], filled ? 1 : 0);
  if (e->failed) return address;
  cmz_emit_use_memory(e, operand);
  if (!e->guarded || filled)
    return cmz_b_decode(b, stored, cmz_b_load(b, type, address, NULL, invariant));
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
    MlirValue one = load_scalar(e, x);
    if (!e->failed) v = cmz_b_insert(&e->b, v, one, lane);
  }
  e->lane = -1;
  return v;
}

/* The lanes that a contiguous access may touch: those that exist and are selected. */
static bool access_mask(emitter *e, const axis_state *a, MlirValue *mask) {
  bool guarded = e->guarded && !cmz_emit_fills(e);
  if (guarded) *mask = cmz_b_broadcast(&e->b, e->guard, a->lanes);
  if (guarded && a->masked) *mask = cmz_b_2(&e->b, "arith.andi", *mask, a->mask);
  if (!guarded && a->masked) *mask = a->mask;
  return guarded || a->masked;
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
  if (vector < 0) return load_scalar(e, x);
  const axis_state *a = &e->axes[vector];
  int64_t stride;
  if (!cmz_emit_stride(e, n->args[0], (uint32_t)vector, &stride) || stride != 1)
    return gather(e, x, a->lanes);
  /* Lane by lane from addresses that are always valid: without a branch. */
  bool filled = cmz_emit_fills(e);
  if ((a->masked || (e->guarded && !filled)) && !cmz_emit_loads_masked(e, type))
    return gather(e, x, a->lanes);
  e->lane = 0;
  MlirValue address = address_of(e, operand, n->args[0], filled ? a->lanes : 0), mask;
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
    cmz_emit_before_guard(e, store->value, store->predicate);
    e->outer = &none;
    e->guarded = true; /* the value's loads happen only where it is stored */
    e->guard = p;
    cmz_emit_set_fill(e, 0); /* what they read elsewhere: anything would do */
    e->guard_id = ++e->next_id;
    e->guard_depth = e->guard_at = e->depth;
    store_now(e, store, &p);
    e->guarded = false;
    e->outer = NULL;
    e->guard_depth = 0;
    return;
  }
  if (e->b.cpu->threads) /* a register tile's sums, together */
    cmz_emit_before_guard(e, store->value, store->predicate);
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
