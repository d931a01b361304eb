/* kernel_poly.c - the normal form of i64 arithmetic: sums of constant * product of atoms, where an
 * atom is any expression that is not a sum or product. Index expressions come out of it as stride *
 * axis + …. In: operations on i64 expressions. Out: simplified expressions; proofs of inequalities.
 * Always holds: what needs that nothing overflows (division, comparison of differences) is only
 * done for expressions of axes and sizes, or when bounds are known; sums and products wrap like the
 * machine's. */
#include "kernel_internal.h"

/* ---- construction ---- */

static bool same_monomial(const cmz_poly_term *a, const cmz_poly_term *b) {
  return a->factor_count == b->factor_count &&
         !memcmp(a->factors, b->factors, a->factor_count * sizeof a->factors[0]);
}

static int64_t wrap_mul(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
static int64_t wrap_add(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }

static bool add_term(cmz_poly *p, const cmz_poly_term *term) {
  if (!term->coefficient) return true;
  for (uint32_t i = 0; i < p->count; i++) {
    cmz_poly_term *t = &p->terms[i];
    if (!same_monomial(t, term)) continue;
    t->coefficient = wrap_add(t->coefficient, term->coefficient);
    if (!t->coefficient) *t = p->terms[--p->count];
    return true;
  }
  if (p->count == CMZ_POLY_TERMS) return false;
  p->terms[p->count++] = *term;
  return true;
}

static bool add_poly(cmz_poly *p, const cmz_poly *q, int64_t scale) {
  for (uint32_t i = 0; i < q->count; i++) {
    cmz_poly_term t = q->terms[i];
    t.coefficient = wrap_mul(t.coefficient, scale);
    if (!add_term(p, &t)) return false;
  }
  return true;
}

static bool mul_terms(const cmz_poly_term *a, const cmz_poly_term *b, cmz_poly_term *out) {
  *out = *a;
  out->coefficient = wrap_mul(a->coefficient, b->coefficient);
  for (uint32_t i = 0; i < b->factor_count; i++) {
    if (out->factor_count == CMZ_POLY_FACTORS) return false;
    uint32_t at = out->factor_count++;
    for (; at && out->factors[at - 1] > b->factors[i]; at--)
      out->factors[at] = out->factors[at - 1];
    out->factors[at] = b->factors[i];
  }
  return true;
}

static bool mul_poly(const cmz_poly *a, const cmz_poly *b, cmz_poly *out) {
  out->count = 0;
  for (uint32_t i = 0; i < a->count; i++)
    for (uint32_t j = 0; j < b->count; j++) {
      cmz_poly_term t;
      if (!mul_terms(&a->terms[i], &b->terms[j], &t) || !add_term(out, &t)) return false;
    }
  return true;
}

/* Adds SCALE * E to P; sums are walked, products become one term. */
static bool collect(const cmz_kernel *k, cmz_expr e, int64_t scale, cmz_poly *p) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_ADD:
    return collect(k, n->args[0], scale, p) && collect(k, n->args[1], scale, p);
  case CMZ_X_SUB:
    return collect(k, n->args[0], scale, p) && collect(k, n->args[1], wrap_mul(scale, -1), p);
  case CMZ_X_NEG:
    return collect(k, n->args[0], wrap_mul(scale, -1), p);
  case CMZ_X_CONST_INT: {
    cmz_poly_term t = {wrap_mul(scale, n->i), 0, {0}};
    return add_term(p, &t);
  }
  case CMZ_X_MUL: {
    cmz_poly a, b, product;
    a.count = b.count = 0;
    /* A product of sums that was not distributed (it has loads, or is too long) is an atom. */
    if (collect(k, n->args[0], 1, &a) && collect(k, n->args[1], 1, &b) && a.count <= 1 &&
        b.count <= 1 && mul_poly(&a, &b, &product))
      return add_poly(p, &product, scale);
  } // fall through
  default: {
    cmz_poly_term t = {scale, 1, {e}};
    return add_term(p, &t);
  }
  }
}

bool cmz_poly_of(const cmz_kernel *k, cmz_expr e, cmz_poly *p) {
  p->count = 0;
  return collect(k, e, 1, p);
}

/* ---- back to expressions ---- */

static int highest_axis(const cmz_kernel *k, const cmz_poly_term *t) {
  uint64_t axes = 0;
  for (uint32_t i = 0; i < t->factor_count; i++) axes |= cmz_x_info(k, t->factors[i])->axes;
  return axes ? 63 - __builtin_clzll(axes) : -1;
}

/* Outer axes first, so that partial sums are invariant in inner loops; the constant last, for
 * address offsets. */
static bool term_before(const cmz_kernel *k, const cmz_poly_term *a, const cmz_poly_term *b) {
  if (!a->factor_count || !b->factor_count) return a->factor_count > b->factor_count;
  int x = highest_axis(k, a), y = highest_axis(k, b);
  if (x != y) return x < y;
  for (uint32_t i = 0; i < a->factor_count && i < b->factor_count; i++)
    if (a->factors[i] != b->factors[i]) return a->factors[i] < b->factors[i];
  return a->factor_count < b->factor_count;
}

static cmz_expr term_expr(cmz_kernel *k, const cmz_poly_term *t) {
  if (!t->factor_count) return cmz_x_index(k, t->coefficient);
  cmz_expr e = t->factors[0];
  for (uint32_t i = 1; i < t->factor_count; i++)
    e = cmz_x_raw2(k, CMZ_X_MUL, CMZ_I64, e, t->factors[i]);
  if (t->coefficient == 1) return e;
  return cmz_x_raw2(k, CMZ_X_MUL, CMZ_I64, e, cmz_x_index(k, t->coefficient));
}

static void remove_term(cmz_poly *p, uint32_t i) { p->terms[i] = p->terms[--p->count]; }

static uint32_t find_monomial(const cmz_poly *p, const cmz_poly_term *t) {
  for (uint32_t i = 0; i < p->count; i++)
    if (same_monomial(&p->terms[i], t) && p->terms[i].coefficient == t->coefficient) return i;
  return UINT32_MAX;
}

/* (x // c) * c + x % c is x: rewrites one such pair of P, also when scaled. */
static bool recombine(cmz_kernel *k, cmz_poly *p) {
  for (uint32_t i = 0; i < p->count; i++)
    for (uint32_t f = 0; f < p->terms[i].factor_count; f++) {
      cmz_poly_term rest = p->terms[i];
      const cmz_expr_node *n = cmz_x_get(k, rest.factors[f]);
      if (n->op != CMZ_X_MOD || n->dtype != CMZ_I64) continue;
      cmz_expr x = n->args[0], divisor = n->args[1];
      rest.factor_count--;
      memmove(&rest.factors[f], &rest.factors[f + 1], (rest.factor_count - f) * sizeof(cmz_expr));
      cmz_poly quotient, scaled, whole, factor;
      factor.count = 1;
      factor.terms[0] = rest;
      if (!cmz_poly_of(k, cmz_x2(k, CMZ_X_FLOORDIV, x, divisor), &quotient) || quotient.count != 1)
        continue;
      if (!cmz_poly_of(k, divisor, &whole) || !mul_poly(&quotient, &whole, &scaled)) continue;
      if (!mul_poly(&scaled, &factor, &whole) || whole.count != 1) continue;
      uint32_t pair = find_monomial(p, &whole.terms[0]);
      if (pair == UINT32_MAX || pair == i) continue;
      cmz_poly sum = *p, add;
      remove_term(&sum, CMZ_MAX(i, pair));
      remove_term(&sum, CMZ_MIN(i, pair));
      if (!cmz_poly_of(k, x, &whole) || !mul_poly(&whole, &factor, &add) ||
          !add_poly(&sum, &add, 1))
        continue;
      *p = sum;
      return true;
    }
  return false;
}

static cmz_expr poly_expr(cmz_kernel *k, cmz_poly *p) {
  while (p->count > 1 && recombine(k, p)) {
  }
  if (!p->count) return cmz_x_index(k, 0);
  for (uint32_t i = 1; i < p->count; i++) { /* insertion sort: few terms */
    cmz_poly_term t = p->terms[i];
    uint32_t at = i;
    for (; at && term_before(k, &t, &p->terms[at - 1]); at--) p->terms[at] = p->terms[at - 1];
    p->terms[at] = t;
  }
  cmz_expr sum = term_expr(k, &p->terms[0]);
  for (uint32_t i = 1; i < p->count; i++)
    sum = cmz_x_raw2(k, CMZ_X_ADD, CMZ_I64, sum, term_expr(k, &p->terms[i]));
  return sum;
}

/* Whether P is one product of constants, axes and sizes: times a sum, it stays visible as strides.
 */
static bool is_plain_term(const cmz_kernel *k, const cmz_poly *p) {
  if (p->count > 1) return false;
  for (uint32_t i = 0; p->count && i < p->terms[0].factor_count; i++) {
    const cmz_expr_node *n = cmz_x_get(k, p->terms[0].factors[i]);
    if (n->op != CMZ_X_AXIS && n->op != CMZ_X_PARAM) return false;
  }
  return true;
}

/* Distributing costs operations: only where it makes indices affine. */
static bool distributes(const cmz_kernel *k, const cmz_poly *a, const cmz_poly *b) {
  return (a->count <= 1 && b->count <= 1) || is_plain_term(k, a) || is_plain_term(k, b);
}

cmz_expr cmz_poly_arithmetic(cmz_kernel *k, cmz_expr_op op, cmz_expr a, cmz_expr b) {
  cmz_poly x, y, r;
  if (cmz_poly_of(k, a, &x) && cmz_poly_of(k, b, &y)) {
    if (op == CMZ_X_MUL) {
      if (distributes(k, &x, &y) && mul_poly(&x, &y, &r)) return poly_expr(k, &r);
    } else {
      r = x;
      if (add_poly(&r, &y, op == CMZ_X_SUB ? -1 : 1)) return poly_expr(k, &r);
    }
  }
  if (op != CMZ_X_SUB && a > b) return cmz_x_raw2(k, op, CMZ_I64, b, a);
  return cmz_x_raw2(k, op, CMZ_I64, a, b);
}

/* ---- proofs ---- */

static bool cannot_wrap(const cmz_kernel *k, cmz_expr e) {
  const cmz_expr_info *info = cmz_x_info(k, e);
  return !info->has_load || (info->low != INT64_MIN && info->high != INT64_MAX);
}

/* The largest value of atom E plus one as an expression of sizes; 0: unknown. */
static cmz_expr atom_limit(const cmz_kernel *k, cmz_expr e) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  int64_t value;
  if (n->op == CMZ_X_AXIS && n->i < CMZ_HIDDEN_AXIS) {
    cmz_expr extent = k->axes.data[n->i].extent;
    return cmz_x_is_int(k, extent, &value) ? 0 : extent;
  }
  if (n->op == CMZ_X_MOD && cmz_x_info(k, n->args[1])->low >= 0 &&
      !cmz_x_is_int(k, n->args[1], &value))
    return n->args[1];
  return 0;
}

/* Replaces a factor of a negative term by its largest value; false when there is none. */
static bool lower_one_term(const cmz_kernel *k, cmz_poly *p) {
  for (uint32_t i = 0; i < p->count; i++) {
    if (p->terms[i].coefficient >= 0) continue;
    for (uint32_t f = 0; f < p->terms[i].factor_count; f++) {
      cmz_expr limit = atom_limit(k, p->terms[i].factors[f]);
      if (!limit) continue;
      cmz_poly rest, bound, product;
      rest.count = 1;
      rest.terms[0] = p->terms[i];
      cmz_poly_term *t = &rest.terms[0];
      t->factor_count--;
      memmove(&t->factors[f], &t->factors[f + 1], (t->factor_count - f) * sizeof(cmz_expr));
      bool nonnegative = true;
      for (uint32_t j = 0; j < t->factor_count; j++)
        nonnegative &= cmz_x_info(k, t->factors[j])->low >= 0;
      cmz_poly_term minus_one = {-1, 0, {0}};
      if (!nonnegative || !cmz_poly_of(k, limit, &bound) || !add_term(&bound, &minus_one)) continue;
      if (!mul_poly(&rest, &bound, &product)) continue;
      remove_term(p, i);
      return add_poly(p, &product, 1);
    }
  }
  return false;
}

static int64_t poly_low(cmz_kernel *k, const cmz_poly *p) {
  int64_t low = 0;
  for (uint32_t i = 0; i < p->count; i++) {
    int64_t term_low, term_high;
    cmz_x_range(k, term_expr(k, &p->terms[i]), &term_low, &term_high);
    if (term_low == INT64_MIN || !cmz_add_i64(low, term_low, &low)) return INT64_MIN;
  }
  return low;
}

bool cmz_poly_at_least(cmz_kernel *k, cmz_expr a, cmz_expr b, int64_t least) {
  const cmz_expr_info *x = cmz_x_info(k, a), *y = cmz_x_info(k, b);
  int64_t difference;
  if (x->low != INT64_MIN && y->high != INT64_MAX &&
      !__builtin_sub_overflow(x->low, y->high, &difference) && difference >= least)
    return true;
  if (!cannot_wrap(k, a) || !cannot_wrap(k, b)) return false;
  cmz_poly p, q;
  if (!cmz_poly_of(k, a, &p) || !cmz_poly_of(k, b, &q) || !add_poly(&p, &q, -1)) return false;
  for (int steps = 0; steps < 12; steps++) {
    int64_t low = poly_low(k, &p);
    if (low != INT64_MIN && low >= least) return true;
    if (!lower_one_term(k, &p)) return false;
  }
  return false;
}

/* ---- division ---- */

/* TERM / DIVISOR when it divides without remainder. */
static bool divide_term(const cmz_poly_term *term, const cmz_poly_term *divisor,
                        cmz_poly_term *out) {
  if (term->coefficient % divisor->coefficient) return false;
  *out = *term;
  out->coefficient /= divisor->coefficient;
  for (uint32_t i = 0; i < divisor->factor_count; i++) {
    uint32_t at = 0;
    while (at < out->factor_count && out->factors[at] != divisor->factors[i]) at++;
    if (at == out->factor_count) return false;
    out->factor_count--;
    memmove(&out->factors[at], &out->factors[at + 1], (out->factor_count - at) * sizeof(cmz_expr));
  }
  return true;
}

static int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    int64_t t = a % b;
    a = b;
    b = t;
  }
  return a < 0 ? -a : a;
}

/* Splits P into HIGH (multiples of G) and LOW with 0 <= LOW < G, for the largest G > 1 that divides
 * DIVISOR. */
static bool split_low(cmz_kernel *k, const cmz_poly *p, int64_t divisor, int64_t *g, cmz_poly *high,
                      cmz_poly *low) {
  int64_t best = 1;
  for (uint32_t i = 0; i < p->count; i++) {
    int64_t candidate = gcd(p->terms[i].coefficient, divisor);
    if (!p->terms[i].factor_count || candidate <= best) continue;
    cmz_poly h, l;
    h.count = l.count = 0;
    for (uint32_t j = 0; j < p->count; j++) {
      cmz_poly_term t = p->terms[j], part = t;
      if (!t.factor_count) { /* the constant is shared out */
        part.coefficient = cmz_floor_mod(t.coefficient, candidate);
        t.coefficient -= part.coefficient;
        if (!add_term(&h, &t) || !add_term(&l, &part)) return false;
      } else if (!add_term(t.coefficient % candidate ? &l : &h, &t)) return false;
    }
    int64_t low_low, low_high;
    cmz_x_range(k, poly_expr(k, &l), &low_low, &low_high);
    if (low_low < 0 || low_high >= candidate) continue;
    best = candidate;
    *high = h;
    *low = l;
  }
  *g = best;
  return best > 1;
}

static void divide_exactly(cmz_poly *p, int64_t g) {
  for (uint32_t i = 0; i < p->count; i++) p->terms[i].coefficient /= g;
}

/* R // D where nothing divides evenly any more. */
static cmz_expr quotient_atom(cmz_kernel *k, cmz_poly *r, cmz_expr divisor) {
  cmz_expr a = poly_expr(k, r);
  int64_t d, g;
  cmz_poly high, low;
  if (cmz_x_is_int(k, divisor, &d) && split_low(k, r, d, &g, &high, &low)) {
    divide_exactly(&high, g);
    return cmz_x2(k, CMZ_X_FLOORDIV, poly_expr(k, &high), cmz_x_index(k, d / g));
  }
  const cmz_expr_node *n = cmz_x_get(k, a);
  if (n->op == CMZ_X_FLOORDIV && cmz_x_info(k, n->args[1])->low >= 0 &&
      cmz_x_info(k, divisor)->low >= 0 && !cmz_x_info(k, n->args[1])->has_load &&
      !cmz_x_info(k, divisor)->has_load) {
    cmz_expr inner = n->args[0]; /* N moves when expressions are added */
    return cmz_x2(k, CMZ_X_FLOORDIV, inner, cmz_x2(k, CMZ_X_MUL, n->args[1], divisor));
  }
  return cmz_x_raw2(k, CMZ_X_FLOORDIV, CMZ_I64, a, divisor);
}

static cmz_expr remainder_atom(cmz_kernel *k, cmz_poly *r, cmz_expr divisor) {
  cmz_expr a = poly_expr(k, r);
  int64_t d, inner, g;
  cmz_poly high, low;
  if (cmz_x_is_int(k, divisor, &d)) {
    if (split_low(k, r, d, &g, &high, &low)) {
      divide_exactly(&high, g);
      cmz_expr outer = cmz_x2(k, CMZ_X_MOD, poly_expr(k, &high), cmz_x_index(k, d / g));
      return cmz_x2(k, CMZ_X_ADD, cmz_x2(k, CMZ_X_MUL, outer, cmz_x_index(k, g)),
                    poly_expr(k, &low));
    }
    const cmz_expr_node *n = cmz_x_get(k, a);
    if (n->op == CMZ_X_MOD && cmz_x_is_int(k, n->args[1], &inner) && inner > 0 && inner % d == 0)
      return cmz_x2(k, CMZ_X_MOD, n->args[0], divisor);
  }
  return cmz_x_raw2(k, CMZ_X_MOD, CMZ_I64, a, divisor);
}

cmz_expr cmz_poly_divide(cmz_kernel *k, cmz_expr_op op, cmz_expr a, cmz_expr b) {
  int64_t x, d;
  bool constant = cmz_x_is_int(k, b, &d);
  if (constant && d > 0 && cmz_x_is_int(k, a, &x))
    return cmz_x_index(k, op == CMZ_X_MOD ? cmz_floor_mod(x, d) : cmz_floor_div(x, d));
  if (constant && d == 1) return op == CMZ_X_MOD ? cmz_x_index(k, 0) : a;
  cmz_poly p, by, quotient, rest;
  bool usable =
      cmz_x_info(k, b)->low >= 0 && !(constant && d <= 0) && cannot_wrap(k, a) && cannot_wrap(k, b);
  if (!usable || !cmz_poly_of(k, a, &p) || !cmz_poly_of(k, b, &by) || by.count != 1)
    return cmz_x_raw2(k, op, CMZ_I64, a, b);
  quotient.count = rest.count = 0;
  for (uint32_t i = 0; i < p.count; i++) {
    cmz_poly_term t = p.terms[i], q;
    if (constant && !t.factor_count) { /* share out the constant: the rest is in [0, d) */
      q = t;
      q.coefficient = cmz_floor_div(t.coefficient, d);
      t.coefficient = cmz_floor_mod(t.coefficient, d);
      add_term(&quotient, &q);
      add_term(&rest, &t);
    } else if (divide_term(&t, &by.terms[0], &q)) add_term(&quotient, &q);
    else add_term(&rest, &t);
  }
  cmz_expr r = poly_expr(k, &rest);
  int64_t low, high;
  cmz_x_range(k, r, &low, &high);
  if (!rest.count || (low >= 0 && cmz_poly_at_least(k, b, r, 1)))
    return op == CMZ_X_MOD ? r : poly_expr(k, &quotient);
  if (constant && low != INT64_MIN && high != INT64_MAX &&
      cmz_floor_div(low, d) == cmz_floor_div(high, d)) {
    cmz_expr whole = cmz_x_index(k, cmz_floor_div(low, d));
    if (op == CMZ_X_FLOORDIV) return cmz_x2(k, CMZ_X_ADD, poly_expr(k, &quotient), whole);
    return cmz_x2(k, CMZ_X_SUB, r, cmz_x2(k, CMZ_X_MUL, whole, b));
  }
  if (op == CMZ_X_MOD) return remainder_atom(k, &rest, b);
  return cmz_x2(k, CMZ_X_ADD, poly_expr(k, &quotient), quotient_atom(k, &rest, b));
}

/* ---- strides ---- */

bool cmz_x_stride(cmz_kernel *k, cmz_expr e, uint16_t axis, int64_t *stride) {
  *stride = 0;
  if (!cmz_x_uses_axis(k, e, axis)) return true;
  cmz_poly p;
  if (cmz_x_get(k, e)->dtype != CMZ_I64 || !cmz_poly_of(k, e, &p)) return false;
  for (uint32_t i = 0; i < p.count; i++) {
    const cmz_poly_term *t = &p.terms[i];
    for (uint32_t f = 0; f < t->factor_count; f++) {
      if (!cmz_x_uses_axis(k, t->factors[f], axis)) continue;
      const cmz_expr_node *n = cmz_x_get(k, t->factors[f]);
      if (t->factor_count != 1 || n->op != CMZ_X_AXIS || n->i != axis) return false;
      *stride = wrap_add(*stride, t->coefficient);
    }
  }
  return true;
}
