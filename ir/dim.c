/* dim.c - the pool of symbolic sizes and their canonical construction.
 * In: ids and symbols. Out: ids of simplified, hash-consed expressions.
 * Always holds: a sum is ADD(terms, constant last), terms in graded lexicographic order of their
 * factors, each a factor, or MUL(constant, factors); a product is MUL(factors); every rewrite is
 * exact for all values for which the operands are defined. What does not fit int64 or grows past
 * the limits below is CMZ_DIM_OVERFLOW, and so is everything made from it. Printing, parsing,
 * evaluation and ranges are in dim_text.c and dim_range.c. */
#include "dim_pool.h"

#include <math.h>

enum {
  MAX_TERMS = 128,      /* of a sum */
  MAX_FACTORS = 48,     /* of a product */
  MAX_DISTRIBUTED = 64, /* products of sums with more terms than this stay products */
  MAX_DIVISION_STEPS = 64,
  MAX_DEPTH = 256,      /* so that recursion over an expression is safe */
  MAX_WEIGHT = 1 << 16, /* nodes of an expression seen as a tree: so that walking it is fast */
};

typedef struct term {
  int64_t coefficient;
  cmz_dim product; /* of factors; CMZ_DIM_NONE for the constant 1 */
} term;

typedef struct linear {
  int64_t constant;
  uint32_t count;
  bool overflow;
  term terms[MAX_TERMS];
} linear;

/* ---- interning ---- */

static uint64_t node_hash(cmz_dim_kind kind, int64_t value, const cmz_dim *args, uint32_t count) {
  return cmz_hash64(args, count * sizeof *args,
                    (uint64_t)kind * 0x9e3779b97f4a7c15u ^ (uint64_t)value);
}

static void table_insert(cmz_dims *p, cmz_dim d) {
  uint32_t mask = p->table_size - 1, slot = (uint32_t)p->nodes.data[d]->hash & mask;
  while (p->table[slot]) slot = (slot + 1) & mask;
  p->table[slot] = d;
}

static void table_grow(cmz_dims *p) {
  p->table_size = p->table_size ? p->table_size * 2 : 256;
  p->table = CMZ_NEW_ARRAY(p->arena, cmz_dim, p->table_size);
  for (cmz_dim d = CMZ_DIM_OVERFLOW + 1; d < p->nodes.count; d++) table_insert(p, d);
}

static cmz_dim push_node(cmz_dims *p, cmz_dim_kind kind, int64_t value, const cmz_dim *args,
                         uint32_t count) {
  dim_node *n = CMZ_NEW(p->arena, dim_node);
  n->node =
      (cmz_dim_node){kind, count, cmz_arena_copy(p->arena, args, count * sizeof *args), value};
  n->hash = node_hash(kind, value, args, count);
  n->weight = 1;
  for (uint32_t i = 0; i < count; i++) {
    const dim_node *arg = p->nodes.data[args[i]];
    n->weight += arg->weight;
    n->depth = CMZ_MAX(n->depth, (uint16_t)(arg->depth + 1));
    n->data_dependent |= arg->data_dependent;
  }
  if (n->weight > MAX_WEIGHT || n->depth > MAX_DEPTH) return CMZ_DIM_OVERFLOW;
  cmz_vec_push(p->arena, &p->nodes, n);
  return p->nodes.count - 1;
}

static cmz_dim intern(cmz_dims *p, cmz_dim_kind kind, int64_t value, const cmz_dim *args,
                      uint32_t count) {
  uint64_t hash = node_hash(kind, value, args, count);
  uint32_t mask = p->table_size - 1;
  for (uint32_t slot = (uint32_t)hash & mask; p->table[slot]; slot = (slot + 1) & mask) {
    const dim_node *n = p->nodes.data[p->table[slot]];
    if (n->hash == hash && n->node.kind == kind && n->node.value == value &&
        n->node.arg_count == count &&
        (count == 0 || memcmp(n->node.args, args, count * sizeof *args) == 0))
      return p->table[slot];
  }
  cmz_dim d = push_node(p, kind, value, args, count);
  if (d == CMZ_DIM_OVERFLOW) return d;
  if ((uint64_t)p->nodes.count * 2 > p->table_size) table_grow(p);
  else table_insert(p, d);
  return d;
}

cmz_dims *cmz_dims_create(cmz_arena *arena) {
  cmz_dims *p = CMZ_NEW(arena, cmz_dims);
  p->arena = arena;
  p->generation = 1;
  push_node(p, CMZ_DIM_CONST, 0, NULL, 0);  /* CMZ_DIM_NONE */
  push_node(p, CMZ_DIM_CONST, -1, NULL, 0); /* CMZ_DIM_OVERFLOW */
  table_grow(p);
  return p;
}

cmz_dim cmz_dim_const(cmz_dims *p, int64_t value) {
  return intern(p, CMZ_DIM_CONST, value, NULL, 0);
}

static bool undefined(cmz_dim a) { return a == CMZ_DIM_NONE || a == CMZ_DIM_OVERFLOW; }

/* ---- symbols ---- */

uint32_t cmz_dim_find_symbol(const cmz_dims *p, const char *name, size_t length) {
  if (!p->symbol_table_size) return UINT32_MAX;
  uint32_t mask = p->symbol_table_size - 1;
  uint32_t slot = (uint32_t)cmz_hash64(name, length, 1) & mask;
  for (; p->symbol_table[slot]; slot = (slot + 1) & mask) {
    const cmz_symbol *s = p->symbols.data[p->symbol_table[slot] - 1];
    if (strncmp(s->name, name, length) == 0 && s->name[length] == 0)
      return p->symbol_table[slot] - 1;
  }
  return UINT32_MAX;
}

static void symbol_table_insert(cmz_dims *p, uint32_t index) {
  const char *name = p->symbols.data[index]->name;
  uint32_t mask = p->symbol_table_size - 1,
           slot = (uint32_t)cmz_hash64(name, strlen(name), 1) & mask;
  while (p->symbol_table[slot]) slot = (slot + 1) & mask;
  p->symbol_table[slot] = index + 1;
}

static void symbol_table_rebuild(cmz_dims *p) {
  while (p->symbol_table_size <= 2 * (p->symbols.count + 1))
    p->symbol_table_size = p->symbol_table_size ? p->symbol_table_size * 2 : 64;
  p->symbol_table = CMZ_NEW_ARRAY(p->arena, uint32_t, p->symbol_table_size);
  for (uint32_t i = 0; i < p->symbols.count; i++) symbol_table_insert(p, i);
}

static const char *unused_symbol_name(cmz_dims *p, const char *name) {
  for (;;) {
    const char *candidate = cmz_arena_printf(p->arena, "%s.%u", name, ++p->made_up_names);
    if (cmz_dim_find_symbol(p, candidate, strlen(candidate)) == UINT32_MAX) return candidate;
  }
}

static void narrow_symbol(cmz_dims *p, cmz_symbol *s, const cmz_symbol *with) {
  int64_t low = CMZ_MAX(s->low, with->low), high = CMZ_MIN(s->high, with->high);
  if (low <= high) { /* an empty intersection is reported when the input is checked; the first range
                        stands */
    s->low = low;
    s->high = high;
  }
  s->hint = CMZ_MIN(CMZ_MAX(s->hint, s->low), s->high);
  p->generation++;
}

cmz_dim cmz_dim_symbol(cmz_dims *p, const cmz_symbol *symbol) {
  const char *name = symbol->name && symbol->name[0] ? symbol->name : "s";
  uint32_t found = cmz_dim_find_symbol(p, name, strlen(name));
  if (found != UINT32_MAX) {
    cmz_symbol *s = p->symbols.data[found];
    if (symbol->origin == CMZ_SYMBOL_INPUT && s->origin == CMZ_SYMBOL_INPUT) {
      narrow_symbol(p, s, symbol);
      return p->symbol_ids.data[found];
    }
    if (symbol->origin == CMZ_SYMBOL_INPUT) { /* the made-up name gives way to the model's own */
      s->name = unused_symbol_name(p, name);
      symbol_table_rebuild(p);
    } else {
      name = unused_symbol_name(p, name);
    }
  }
  cmz_symbol *s = CMZ_NEW(p->arena, cmz_symbol);
  *s = *symbol;
  s->name = cmz_arena_string(p->arena, name);
  if (s->high < s->low) s->high = s->low;
  s->hint = CMZ_MIN(CMZ_MAX(s->hint, s->low), s->high);
  uint32_t index = p->symbols.count;
  cmz_vec_push(p->arena, &p->symbols, s);
  cmz_dim d = intern(p, CMZ_DIM_SYMBOL, index, NULL, 0);
  p->nodes.data[d]->data_dependent = symbol->origin == CMZ_SYMBOL_DATA;
  cmz_vec_push(p->arena, &p->symbol_ids, d);
  if (p->symbol_table_size <= 2 * p->symbols.count) symbol_table_rebuild(p);
  else symbol_table_insert(p, index);
  return d;
}

const cmz_dim_node *cmz_dim_get(const cmz_dims *p, cmz_dim d) {
  return &p->nodes.data[d < p->nodes.count ? d : CMZ_DIM_NONE]->node;
}

const cmz_symbol *cmz_dim_symbol_of(const cmz_dims *p, cmz_dim d) {
  const cmz_dim_node *n = cmz_dim_get(p, d);
  return n->kind == CMZ_DIM_SYMBOL ? p->symbols.data[n->value] : NULL;
}

uint32_t cmz_dim_symbol_count(const cmz_dims *p) { return p->symbols.count; }

cmz_symbol *cmz_dim_symbol_at(cmz_dims *p, uint32_t index) {
  p->generation++; /* the caller may narrow the range */
  return p->symbols.data[index];
}

cmz_dim cmz_dim_symbol_id(const cmz_dims *p, uint32_t index) { return p->symbol_ids.data[index]; }

bool cmz_dim_is_const(const cmz_dims *p, cmz_dim d, int64_t *value) {
  const cmz_dim_node *n = cmz_dim_get(p, d);
  if (n->kind != CMZ_DIM_CONST || undefined(d)) return false;
  *value = n->value;
  return true;
}

bool cmz_dim_is_overflow(const cmz_dims *p, cmz_dim d) {
  (void)p;
  return d == CMZ_DIM_OVERFLOW;
}

bool cmz_dim_is_data_dependent(const cmz_dims *p, cmz_dim d) {
  return d < p->nodes.count && p->nodes.data[d]->data_dependent;
}

/* ---- order of factors and products: by structure, so that it does not depend on when ids were
 * made ---- */

static int compare(const cmz_dims *p, cmz_dim a, cmz_dim b) {
  if (a == b) return 0;
  const cmz_dim_node *x = cmz_dim_get(p, a), *y = cmz_dim_get(p, b);
  if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
  if (x->value != y->value) return x->value < y->value ? -1 : 1;
  if (x->arg_count != y->arg_count) return x->arg_count < y->arg_count ? -1 : 1;
  for (uint32_t i = 0; i < x->arg_count; i++) {
    int c = compare(p, x->args[i], y->args[i]);
    if (c) return c;
  }
  return 0;
}

/* The factors of a product without coefficient. */
static uint32_t factors_of(const cmz_dims *p, const cmz_dim *product, const cmz_dim **factors) {
  if (*product == CMZ_DIM_NONE) return 0;
  const cmz_dim_node *n = cmz_dim_get(p, *product);
  *factors = n->kind == CMZ_DIM_MUL ? n->args : product;
  return n->kind == CMZ_DIM_MUL ? n->arg_count : 1;
}

/* Graded lexicographic: negative when A stands before B. Multiplying both by a product keeps the
 * order. */
static int compare_products(const cmz_dims *p, cmz_dim a, cmz_dim b) {
  if (a == b) return 0;
  const cmz_dim *x = NULL, *y = NULL;
  uint32_t m = factors_of(p, &a, &x), n = factors_of(p, &b, &y);
  if (m != n) return m > n ? -1 : 1;
  for (uint32_t i = 0; i < m; i++) {
    int c = compare(p, x[i], y[i]);
    if (c) return c;
  }
  return 0;
}

static cmz_dim product_of(cmz_dims *p, const cmz_dim *factors, uint32_t count) {
  if (count == 0) return CMZ_DIM_NONE;
  return count == 1 ? factors[0] : intern(p, CMZ_DIM_MUL, 0, factors, count);
}

/* CMZ_DIM_OVERFLOW when there are too many factors. */
static cmz_dim multiply_products(cmz_dims *p, cmz_dim a, cmz_dim b) {
  const cmz_dim *x = NULL, *y = NULL;
  uint32_t m = factors_of(p, &a, &x), n = factors_of(p, &b, &y), i = 0, j = 0, count = 0;
  cmz_dim all[MAX_FACTORS];
  if (m + n > MAX_FACTORS) return CMZ_DIM_OVERFLOW;
  while (i < m || j < n)
    all[count++] = j == n || (i < m && compare(p, x[i], y[j]) <= 0) ? x[i++] : y[j++];
  return product_of(p, all, count);
}

/* A / B when B's factors are among A's; false otherwise. */
static bool divide_products(cmz_dims *p, cmz_dim a, cmz_dim b, cmz_dim *quotient) {
  const cmz_dim *x = NULL, *y = NULL;
  uint32_t m = factors_of(p, &a, &x), n = factors_of(p, &b, &y), j = 0, count = 0;
  cmz_dim rest[MAX_FACTORS];
  for (uint32_t i = 0; i < m; i++) {
    if (j < n && x[i] == y[j]) j++;
    else rest[count++] = x[i];
  }
  if (j < n) return false;
  *quotient = product_of(p, rest, count);
  return true;
}

/* ---- linear forms ---- */

static void split_term(cmz_dims *p, cmz_dim d, term *out) {
  const cmz_dim_node *n = cmz_dim_get(p, d);
  int64_t coefficient;
  if (n->kind == CMZ_DIM_MUL && cmz_dim_is_const(p, n->args[0], &coefficient))
    *out = (term){coefficient, product_of(p, n->args + 1, n->arg_count - 1)};
  else *out = (term){1, d};
}

static void to_linear(cmz_dims *p, cmz_dim d, linear *l) {
  const cmz_dim_node *n = cmz_dim_get(p, d);
  l->constant = 0;
  l->count = 0;
  l->overflow = undefined(d);
  if (l->overflow) return;
  if (n->kind == CMZ_DIM_CONST) {
    l->constant = n->value;
    return;
  }
  uint32_t count = n->kind == CMZ_DIM_ADD ? n->arg_count : 1;
  for (uint32_t i = 0; i < count; i++) {
    cmz_dim arg = n->kind == CMZ_DIM_ADD ? n->args[i] : d;
    if (!cmz_dim_is_const(p, arg, &l->constant)) split_term(p, arg, &l->terms[l->count++]);
  }
}

static cmz_dim from_term(cmz_dims *p, term t) {
  if (t.coefficient == 1 || undefined(t.product)) return t.product;
  const cmz_dim *factors = NULL;
  uint32_t n = factors_of(p, &t.product, &factors);
  cmz_dim all[MAX_FACTORS + 1];
  all[0] = cmz_dim_const(p, t.coefficient);
  memcpy(all + 1, factors, n * sizeof *all);
  return intern(p, CMZ_DIM_MUL, 0, all, n + 1);
}

static cmz_dim from_linear(cmz_dims *p, const linear *l) {
  if (l->overflow) return CMZ_DIM_OVERFLOW;
  if (l->count == 0) return cmz_dim_const(p, l->constant);
  cmz_dim args[MAX_TERMS + 1];
  uint32_t count = 0;
  for (uint32_t i = 0; i < l->count; i++) {
    args[count] = from_term(p, l->terms[i]);
    if (undefined(args[count++])) return CMZ_DIM_OVERFLOW;
  }
  if (l->constant != 0) args[count++] = cmz_dim_const(p, l->constant);
  return count == 1 ? args[0] : intern(p, CMZ_DIM_ADD, 0, args, count);
}

static void add_scaled(cmz_dims *p, linear *l, const linear *other, int64_t factor,
                       cmz_dim product);

/* Adds COEFFICIENT * PRODUCT in its place. */
static void add_term(cmz_dims *p, linear *l, int64_t coefficient, cmz_dim product) {
  if (coefficient == 0 || l->overflow) return;
  if (product == CMZ_DIM_OVERFLOW) {
    l->overflow = true;
    return;
  }
  if (product == CMZ_DIM_NONE) {
    if (!cmz_add_i64(l->constant, coefficient, &l->constant)) l->overflow = true;
    return;
  }
  if (cmz_dim_get(p, product)->kind ==
      CMZ_DIM_ADD) { /* left of a product that was too long to distribute */
    linear sum;
    to_linear(p, product, &sum);
    add_scaled(p, l, &sum, coefficient, CMZ_DIM_NONE);
    return;
  }
  uint32_t at = 0;
  int order = 1;
  while (at < l->count && (order = compare_products(p, l->terms[at].product, product)) < 0) at++;
  if (at < l->count && order == 0) {
    if (!cmz_add_i64(l->terms[at].coefficient, coefficient, &coefficient)) l->overflow = true;
    l->terms[at].coefficient = coefficient;
    if (coefficient == 0) {
      l->count--;
      memmove(&l->terms[at], &l->terms[at + 1], (l->count - at) * sizeof(term));
    }
    return;
  }
  if (l->count == MAX_TERMS) {
    l->overflow = true;
    return;
  }
  memmove(&l->terms[at + 1], &l->terms[at], (l->count - at) * sizeof(term));
  l->terms[at] = (term){coefficient, product};
  l->count++;
}

/* L += FACTOR * PRODUCT * OTHER. */
static void add_scaled(cmz_dims *p, linear *l, const linear *other, int64_t factor,
                       cmz_dim product) {
  l->overflow |= other->overflow;
  for (uint32_t i = 0; i <= other->count && !l->overflow; i++) {
    bool last = i == other->count;
    int64_t coefficient = last ? other->constant : other->terms[i].coefficient;
    if (coefficient == 0) continue;
    if (!cmz_mul_i64(coefficient, factor, &coefficient)) l->overflow = true;
    else
      add_term(p, l, coefficient,
               last ? product : multiply_products(p, other->terms[i].product, product));
  }
}

cmz_dim cmz_dim_add(cmz_dims *p, cmz_dim a, cmz_dim b) {
  linear x, y;
  to_linear(p, a, &x);
  to_linear(p, b, &y);
  add_scaled(p, &x, &y, 1, CMZ_DIM_NONE);
  return from_linear(p, &x);
}

cmz_dim cmz_dim_sub(cmz_dims *p, cmz_dim a, cmz_dim b) {
  linear x, y;
  to_linear(p, a, &x);
  to_linear(p, b, &y);
  add_scaled(p, &x, &y, -1, CMZ_DIM_NONE);
  return from_linear(p, &x);
}

/* A sum that is too long to be distributed becomes a factor. */
static term as_single_term(cmz_dim d, const linear *l) {
  if (l->count == 1 && l->constant == 0) return l->terms[0];
  if (l->count == 0) return (term){l->constant, CMZ_DIM_NONE};
  return (term){1, d};
}

cmz_dim cmz_dim_mul(cmz_dims *p, cmz_dim a, cmz_dim b) {
  linear x, y, product = {0};
  to_linear(p, a, &x);
  to_linear(p, b, &y);
  if (x.overflow || y.overflow) return CMZ_DIM_OVERFLOW;
  if ((x.count + 1) * (y.count + 1) > MAX_DISTRIBUTED && x.count > 0 && y.count > 0) {
    term s = as_single_term(a, &x), t = as_single_term(b, &y);
    if (!cmz_mul_i64(s.coefficient, t.coefficient, &s.coefficient)) return CMZ_DIM_OVERFLOW;
    add_term(p, &product, s.coefficient, multiply_products(p, s.product, t.product));
    return from_linear(p, &product);
  }
  for (uint32_t i = 0; i < x.count; i++)
    add_scaled(p, &product, &y, x.terms[i].coefficient, x.terms[i].product);
  if (x.constant) add_scaled(p, &product, &y, x.constant, CMZ_DIM_NONE);
  return from_linear(p, &product);
}

cmz_dim cmz_dim_product(cmz_dims *p, const cmz_dim *dims, size_t n) {
  cmz_dim product = cmz_dim_const(p, 1);
  for (size_t i = 0; i < n; i++)
    if (cmz_dim_is(p, dims[i], 0)) return dims[i]; /* an empty tensor is never too large */
  for (size_t i = 0; i < n; i++) product = cmz_dim_mul(p, product, dims[i]);
  return product;
}

/* ---- division ---- */

/* An expression of the given arguments, or the constant that its range leaves. */
static cmz_dim make(cmz_dims *p, cmz_dim_kind kind, const cmz_dim *args, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    if (undefined(args[i])) return CMZ_DIM_OVERFLOW;
  cmz_dim d = intern(p, kind, 0, args, count);
  if (d == CMZ_DIM_OVERFLOW) return d;
  int64_t low, high;
  cmz_dim_range(p, d, &low, &high);
  return low == high && low != INT64_MIN && low != INT64_MAX ? cmz_dim_const(p, low) : d;
}

static cmz_dim make2(cmz_dims *p, cmz_dim_kind kind, cmz_dim a, cmz_dim b) {
  return make(p, kind, (cmz_dim[]){a, b}, 2);
}

/* A = Q * DIVISOR + R, for a constant divisor; R keeps what is not divisible, its constant is a
 * remainder. */
static void divide_by_constant(cmz_dims *p, const linear *a, int64_t divisor, linear *q,
                               linear *r) {
  for (uint32_t i = 0; i < a->count; i++) {
    term t = a->terms[i];
    bool exact = divisor != -1 && t.coefficient % divisor == 0;
    add_term(p, exact ? q : r, exact ? t.coefficient / divisor : t.coefficient, t.product);
  }
  if (divisor == -1) {
    r->constant = a->constant;
    return;
  }
  q->constant = cmz_floor_div(a->constant, divisor);
  r->constant = cmz_floor_mod(a->constant, divisor);
}

/* The same for a divisor with symbols. A divisor that is a sum must divide without remainder. */
static bool divide_by_terms(cmz_dims *p, const linear *a, const linear *b, linear *q, linear *r) {
  linear rest = *a;
  term lead = b->terms[0];
  bool single = b->count == 1 && b->constant == 0;
  for (uint32_t step = 0; rest.count > 0; step++) {
    term t = rest.terms[0];
    cmz_dim quotient = CMZ_DIM_NONE;
    bool exact = lead.coefficient != -1 && t.coefficient % lead.coefficient == 0 &&
                 divide_products(p, t.product, lead.product, &quotient);
    if (lead.coefficient == -1 && t.coefficient != INT64_MIN)
      exact = divide_products(p, t.product, lead.product, &quotient);
    if (!exact) {
      if (!single) return false;
      add_term(p, r, t.coefficient, t.product);
      add_term(p, &rest, t.coefficient == INT64_MIN ? INT64_MIN : -t.coefficient, t.product);
      if (t.coefficient == INT64_MIN) return false;
      continue;
    }
    int64_t c = t.coefficient / lead.coefficient;
    if (c == INT64_MIN || (!single && step == MAX_DIVISION_STEPS)) return false;
    add_term(p, q, c, quotient);
    add_scaled(p, &rest, b, -c, quotient);
    if (rest.overflow || q->overflow) return false;
  }
  if (!single && rest.constant != 0) return false;
  add_term(p, r, rest.constant, CMZ_DIM_NONE);
  return !r->overflow;
}

static int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    int64_t r = a % b;
    a = b;
    b = r;
  }
  return a;
}

/* The greatest common divisor of DIVISOR (> 0) and all coefficients. */
static int64_t common_factor(const linear *l, int64_t divisor) {
  for (uint32_t i = 0; i < l->count; i++) {
    int64_t rest = l->terms[i].coefficient % divisor;
    divisor = gcd(divisor, rest < 0 ? -rest : rest);
  }
  return divisor;
}

static void divide_coefficients(linear *l, int64_t g) {
  for (uint32_t i = 0; i < l->count; i++) l->terms[i].coefficient /= g;
  l->constant = cmz_floor_div(l->constant, g);
}

/* R // divisor for what is left after exact division; DIVISOR > 0. */
static cmz_dim floor_of_rest(cmz_dims *p, linear *r, int64_t divisor) {
  int64_t g = common_factor(r, divisor);
  divide_coefficients(r, g);
  divisor /= g;
  cmz_dim rest = from_linear(p, r);
  if (divisor == 1 || undefined(rest)) return rest;
  if (r->count == 1 && r->terms[0].coefficient == 1) { /* (x//b + k)//c is (x + k*b)//(b*c) */
    const cmz_dim_node *n = cmz_dim_get(p, r->terms[0].product);
    int64_t b, combined, offset;
    if (n->kind == CMZ_DIM_FLOORDIV && cmz_dim_is_const(p, n->args[1], &b) && b > 0 &&
        cmz_mul_i64(b, divisor, &combined) && cmz_mul_i64(r->constant, b, &offset))
      return cmz_dim_floordiv(p, cmz_dim_add(p, n->args[0], cmz_dim_const(p, offset)),
                              cmz_dim_const(p, combined));
  }
  int64_t low, high;
  cmz_dim_range(p, rest, &low, &high);
  if (low != INT64_MIN && high != INT64_MAX &&
      cmz_floor_div(low, divisor) == cmz_floor_div(high, divisor))
    return cmz_dim_const(p, cmz_floor_div(low, divisor));
  return make2(p, CMZ_DIM_FLOORDIV, rest, cmz_dim_const(p, divisor));
}

cmz_dim cmz_dim_floordiv(cmz_dims *p, cmz_dim a, cmz_dim b) {
  linear x, y, q = {0}, r = {0};
  to_linear(p, a, &x);
  to_linear(p, b, &y);
  if (x.overflow || y.overflow) return CMZ_DIM_OVERFLOW;
  if (y.count == 0) {
    int64_t divisor = y.constant;
    if (divisor == 0) return CMZ_DIM_OVERFLOW;
    if (divisor == -1) return cmz_dim_sub(p, cmz_dim_const(p, 0), a);
    divide_by_constant(p, &x, divisor, &q, &r);
    if (r.count == 0) return from_linear(p, &q); /* the constant of R is a remainder */
    cmz_dim rest = divisor > 0 ? floor_of_rest(p, &r, divisor)
                               : make2(p, CMZ_DIM_FLOORDIV, from_linear(p, &r), b);
    return cmz_dim_add(p, from_linear(p, &q), rest);
  }
  if (!divide_by_terms(p, &x, &y, &q, &r)) return make2(p, CMZ_DIM_FLOORDIV, a, b);
  cmz_dim quotient = from_linear(p, &q);
  if (r.count == 0 && r.constant == 0) return quotient;
  cmz_dim rest = from_linear(p, &r), floor = make2(p, CMZ_DIM_FLOORDIV, rest, b);
  return cmz_dim_add(p, quotient, floor);
}

cmz_dim cmz_dim_ceildiv(cmz_dims *p, cmz_dim a, cmz_dim b) {
  int64_t low, high;
  cmz_dim_range(p, b, &low, &high);
  if (low >= 1)
    return cmz_dim_floordiv(p, cmz_dim_add(p, a, cmz_dim_sub(p, b, cmz_dim_const(p, 1))), b);
  cmz_dim zero = cmz_dim_const(p, 0);
  return cmz_dim_sub(p, zero, cmz_dim_floordiv(p, cmz_dim_sub(p, zero, a), b));
}

/* R % divisor, DIVISOR > 0: coefficients are reduced, common factors pulled out. */
static cmz_dim mod_of_rest(cmz_dims *p, linear *r, int64_t divisor) {
  linear reduced = {0};
  for (uint32_t i = 0; i < r->count; i++)
    add_term(p, &reduced, cmz_floor_mod(r->terms[i].coefficient, divisor), r->terms[i].product);
  reduced.constant = cmz_floor_mod(r->constant, divisor);
  int64_t g = common_factor(&reduced, divisor), offset = reduced.constant % g;
  divide_coefficients(&reduced, g);
  divisor /= g;
  cmz_dim rest = from_linear(p, &reduced), mod;
  if (undefined(rest)) return rest;
  int64_t low, high;
  cmz_dim_range(p, rest, &low, &high);
  if (divisor == 1) mod = cmz_dim_const(p, 0);
  else if (low >= 0 && high < divisor) mod = rest;
  else mod = make2(p, CMZ_DIM_MOD, rest, cmz_dim_const(p, divisor));
  return cmz_dim_add(p, cmz_dim_mul(p, mod, cmz_dim_const(p, g)), cmz_dim_const(p, offset));
}

cmz_dim cmz_dim_mod(cmz_dims *p, cmz_dim a, cmz_dim b) {
  linear x, y, q = {0}, r = {0};
  to_linear(p, a, &x);
  to_linear(p, b, &y);
  if (x.overflow || y.overflow) return CMZ_DIM_OVERFLOW;
  if (y.count == 0) {
    if (y.constant == 0) return CMZ_DIM_OVERFLOW;
    if (y.constant == -1) return cmz_dim_const(p, 0);
    int64_t low, high;
    cmz_dim_range(p, a, &low, &high);
    if (low >= 0 && high < y.constant) return a;
    if (y.constant > 0) return mod_of_rest(p, &x, y.constant);
    if (x.count == 0) return cmz_dim_const(p, cmz_floor_mod(x.constant, y.constant));
    return make2(p, CMZ_DIM_MOD, a, b);
  }
  if (!divide_by_terms(p, &x, &y, &q, &r)) return make2(p, CMZ_DIM_MOD, a, b);
  if (r.count == 0 && r.constant == 0) return cmz_dim_const(p, 0);
  return make2(p, CMZ_DIM_MOD, from_linear(p, &r), b);
}

/* ---- comparisons ---- */

/* Range of A - B, which cancels what they share; everything when that does not fit. */
static void difference_range(cmz_dims *p, cmz_dim a, cmz_dim b, int64_t *low, int64_t *high) {
  cmz_dim_range(p, cmz_dim_sub(p, a, b), low, high);
  int64_t al, ah, bl, bh; /* the difference may overflow where the comparison does not */
  cmz_dim_range(p, a, &al, &ah);
  cmz_dim_range(p, b, &bl, &bh);
  if (al >= bh && al != INT64_MIN && bh != INT64_MAX) *low = CMZ_MAX(*low, al > bh ? 1 : 0);
  if (ah <= bl && ah != INT64_MAX && bl != INT64_MIN) *high = CMZ_MIN(*high, ah < bl ? -1 : 0);
}

static cmz_dim make_commutative(cmz_dims *p, cmz_dim_kind kind, cmz_dim a, cmz_dim b) {
  return compare(p, a, b) <= 0 ? make2(p, kind, a, b) : make2(p, kind, b, a);
}

static bool has_argument(const cmz_dims *p, cmz_dim d, cmz_dim_kind kind, cmz_dim arg) {
  const cmz_dim_node *n = cmz_dim_get(p, d);
  return n->kind == kind && (n->args[0] == arg || n->args[1] == arg);
}

static cmz_dim extreme(cmz_dims *p, cmz_dim_kind kind, cmz_dim a, cmz_dim b) {
  if (undefined(a) || undefined(b)) return CMZ_DIM_OVERFLOW;
  if (a == b || has_argument(p, a, kind, b)) return a;
  if (has_argument(p, b, kind, a)) return b;
  int64_t low, high;
  difference_range(p, a, b, &low, &high);
  if (low >= 0) return kind == CMZ_DIM_MAX ? a : b;
  if (high <= 0) return kind == CMZ_DIM_MAX ? b : a;
  return make_commutative(p, kind, a, b);
}

cmz_dim cmz_dim_min(cmz_dims *p, cmz_dim a, cmz_dim b) { return extreme(p, CMZ_DIM_MIN, a, b); }
cmz_dim cmz_dim_max(cmz_dims *p, cmz_dim a, cmz_dim b) { return extreme(p, CMZ_DIM_MAX, a, b); }

static bool may_be(const cmz_dims *p, cmz_dim d, int64_t value) {
  int64_t low, high;
  cmz_dim_range(p, d, &low, &high);
  return low <= value && value <= high;
}

cmz_dim cmz_dim_broadcast(cmz_dims *p, cmz_dim a, cmz_dim b) {
  if (undefined(a) || undefined(b)) return CMZ_DIM_OVERFLOW;
  if (a == b || cmz_dim_is(p, b, 1)) return a;
  if (cmz_dim_is(p, a, 1)) return b;
  if (!may_be(p, a, 1)) return a;
  if (!may_be(p, b, 1))
    return b; /* sizes are equal or one is 1, so the other has this size or is 1 */
  if (has_argument(p, a, CMZ_DIM_BROADCAST, b)) return a;
  if (has_argument(p, b, CMZ_DIM_BROADCAST, a)) return b;
  return make_commutative(p, CMZ_DIM_BROADCAST, a, b);
}

cmz_dim cmz_dim_eq(cmz_dims *p, cmz_dim a, cmz_dim b) {
  if (undefined(a) || undefined(b)) return CMZ_DIM_OVERFLOW;
  if (a == b) return cmz_dim_const(p, 1);
  int64_t low, high;
  difference_range(p, a, b, &low, &high);
  if (low > 0 || high < 0) return cmz_dim_const(p, 0);
  return make_commutative(p, CMZ_DIM_EQ, a, b);
}

cmz_dim cmz_dim_select(cmz_dims *p, cmz_dim c, cmz_dim a, cmz_dim b) {
  if (undefined(c) || undefined(a) || undefined(b)) return CMZ_DIM_OVERFLOW;
  if (a == b || !may_be(p, c, 0)) return a;
  if (cmz_dim_is(p, c, 0)) return b;
  return make(p, CMZ_DIM_SELECT, (cmz_dim[]){c, a, b}, 3);
}

/* ---- scaling ---- */

cmz_dim cmz_dim_scale_bits(cmz_dims *p, cmz_dim a, cmz_dim factor_bits) {
  if (undefined(a) || undefined(factor_bits)) return CMZ_DIM_OVERFLOW;
  int64_t value, bits;
  if (cmz_dim_is_const(p, factor_bits, &bits)) {
    double factor;
    memcpy(&factor, &bits, sizeof factor);
    if (!isfinite(factor)) return CMZ_DIM_OVERFLOW;
    if (factor == floor(factor) &&
        fabs(factor) < 0x1p31) /* exact below 2^53, past which no size comes */
      return cmz_dim_mul(p, a, cmz_dim_const(p, (int64_t)factor));
    double inverse = 1 / factor;
    int exponent; /* halves, quarters … are exact */
    if (inverse >= 2 && inverse < 0x1p31 && frexp(inverse, &exponent) == 0.5)
      return cmz_dim_floordiv(p, a, cmz_dim_const(p, (int64_t)inverse));
    if (cmz_dim_is_const(p, a, &value))
      return cmz_dim_scale_value(value, factor, &value) ? cmz_dim_const(p, value)
                                                        : CMZ_DIM_OVERFLOW;
  }
  return make2(p, CMZ_DIM_SCALE, a, factor_bits);
}

cmz_dim cmz_dim_scale(cmz_dims *p, cmz_dim a, double factor) {
  int64_t bits;
  memcpy(&bits, &factor, sizeof bits);
  return cmz_dim_scale_bits(p, a, cmz_dim_const(p, bits));
}

/* ---- substitution ---- */

typedef cmz_dim binary_function(cmz_dims *, cmz_dim, cmz_dim);
static binary_function *const binary[] = {
    [CMZ_DIM_ADD] = cmz_dim_add,
    [CMZ_DIM_MUL] = cmz_dim_mul,
    [CMZ_DIM_FLOORDIV] = cmz_dim_floordiv,
    [CMZ_DIM_MOD] = cmz_dim_mod,
    [CMZ_DIM_MIN] = cmz_dim_min,
    [CMZ_DIM_MAX] = cmz_dim_max,
    [CMZ_DIM_BROADCAST] = cmz_dim_broadcast,
    [CMZ_DIM_EQ] = cmz_dim_eq,
    [CMZ_DIM_SCALE] = cmz_dim_scale_bits,
};

cmz_dim cmz_dim_substitute(cmz_dims *p, cmz_dim d, const cmz_dim *replacement) {
  if (undefined(d)) return d;
  const cmz_dim_node *n = cmz_dim_get(p, d);
  if (n->kind == CMZ_DIM_CONST) return d;
  if (n->kind == CMZ_DIM_SYMBOL) return replacement[n->value] ? replacement[n->value] : d;
  cmz_dim result = cmz_dim_substitute(p, n->args[0], replacement);
  if (n->kind == CMZ_DIM_SELECT)
    return cmz_dim_select(p, result, cmz_dim_substitute(p, n->args[1], replacement),
                          cmz_dim_substitute(p, n->args[2], replacement));
  for (uint32_t i = 1; i < n->arg_count; i++)
    result = binary[n->kind](p, result, cmz_dim_substitute(p, n->args[i], replacement));
  return result;
}

/* ---- copying ---- */

cmz_dims *cmz_dims_clone(const cmz_dims *p, cmz_arena *arena) {
  cmz_dims *copy = cmz_arena_copy(arena, p, sizeof *p);
  copy->arena = arena;
  copy->nodes.data = cmz_arena_copy(arena, p->nodes.data, p->nodes.count * sizeof *p->nodes.data);
  copy->nodes.capacity = p->nodes.count;
  for (uint32_t i = 0; i < p->nodes.count;
       i++) /* with their cached ranges; the argument lists are shared */
    copy->nodes.data[i] = cmz_arena_copy(arena, p->nodes.data[i], sizeof(dim_node));
  copy->symbols.data =
      cmz_arena_copy(arena, p->symbols.data, p->symbols.count * sizeof *p->symbols.data);
  copy->symbols.capacity = p->symbols.count;
  for (uint32_t i = 0; i < p->symbols.count; i++)
    copy->symbols.data[i] = cmz_arena_copy(arena, p->symbols.data[i], sizeof(cmz_symbol));
  copy->symbol_ids.data =
      cmz_arena_copy(arena, p->symbol_ids.data, p->symbols.count * sizeof(cmz_dim));
  copy->symbol_ids.capacity = p->symbol_ids.count;
  copy->table = cmz_arena_copy(arena, p->table, p->table_size * sizeof *p->table);
  copy->symbol_table =
      cmz_arena_copy(arena, p->symbol_table, p->symbol_table_size * sizeof *p->symbol_table);
  return copy;
}
