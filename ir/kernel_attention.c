/* kernel_attention.c - attention in one kernel: a sum over keys of softmax(scores) times values.
 * In: a description whose stored value holds nested reductions. Out: what a kernel needs to compute
 * them together in one walk over the keys, by running maxima and sums (Milakov and Gimelshein,
 * "Online normalizer calculation for softmax", 2018). Found from the expressions alone. Always
 * holds: what matches is equal to the expression but for rounding; a row whose bias forbids every
 * key is zero, whatever its scores are. */
#include "kernel.h"

#include <math.h>

#define MOST_STEPS 20000 /* of comparing expressions */
#define MOST_BOUND 16

/* Two expressions under renamed axes. */
typedef struct renaming {
  const cmz_kernel *k;
  uint32_t steps, count;
  uint16_t from[MOST_BOUND], to[MOST_BOUND];
} renaming;

static bool same(renaming *r, cmz_expr x, cmz_expr y);

static bool same_axis(const renaming *r, int64_t x, int64_t y) {
  for (uint32_t i = r->count; i-- > 0;)
    if (r->from[i] == x || r->to[i] == y) return r->from[i] == x && r->to[i] == y;
  return x == y;
}

static bool same_reduction(renaming *r, const cmz_expr_node *a, const cmz_expr_node *b) {
  uint32_t before = r->count;
  if (a->reduce_op != b->reduce_op || a->axis_count != b->axis_count ||
      before + a->axis_count > MOST_BOUND)
    return false;
  for (uint32_t i = 0; i < a->axis_count; i++) {
    if (!same(r, r->k->axes.data[a->axes[i]].extent, r->k->axes.data[b->axes[i]].extent))
      return false;
    r->from[before + i] = a->axes[i];
    r->to[before + i] = b->axes[i];
  }
  r->count += a->axis_count;
  bool equal = same(r, a->args[0], b->args[0]) && !a->args[1] && !b->args[1];
  r->count = before;
  return equal;
}

static bool commutes(uint8_t op) {
  return op == CMZ_X_ADD || op == CMZ_X_MUL || op == CMZ_X_AND || op == CMZ_X_OR || op == CMZ_X_EQ;
}

static bool same(renaming *r, cmz_expr x, cmz_expr y) {
  const cmz_expr_node *a = cmz_x_get(r->k, x), *b = cmz_x_get(r->k, y);
  if (!x || !y) return x == y;
  if (r->steps == 0 || a->op != b->op || a->dtype != b->dtype) return false;
  r->steps--;
  if (a->op == CMZ_X_AXIS) return same_axis(r, a->i, b->i);
  if (a->op == CMZ_X_REDUCE) return same_reduction(r, a, b);
  if (a->i != b->i) return false; /* constants, parameters, operands, the type of a cast */
  bool equal = true;
  for (int i = 0; i < 3 && equal; i++) equal = same(r, a->args[i], b->args[i]);
  if (equal || !commutes(a->op)) return equal;
  return same(r, a->args[0], b->args[1]) && same(r, a->args[1], b->args[0]);
}

/* Whether Y is X with axis TO in place of FROM. */
static bool same_at(const cmz_kernel *k, cmz_expr x, uint16_t from, cmz_expr y, uint16_t to) {
  renaming r = {.k = k, .steps = MOST_STEPS, .count = 1, .from = {from}, .to = {to}};
  return same(&r, x, y);
}

static bool is_float(const cmz_kernel *k, cmz_expr x, double value) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  return n->op == CMZ_X_CONST_FLOAT && n->f == value;
}

/* X without casts through a narrower type. */
static cmz_expr unrounded(const cmz_kernel *k, cmz_expr x) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  while (n->op == CMZ_X_CAST && n->i && n->dtype == CMZ_F32) n = cmz_x_get(k, x = n->args[0]);
  return x;
}

/* The other side of X == VALUE; 0: X is something else. */
static cmz_expr compared_with(const cmz_kernel *k, cmz_expr x, double value) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  if (n->op != CMZ_X_EQ) return 0;
  if (is_float(k, n->args[1], value)) return n->args[0];
  return is_float(k, n->args[0], value) ? n->args[1] : 0;
}

static bool is_reduction(const cmz_kernel *k, cmz_expr x, cmz_reduce_op op) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  return n->op == CMZ_X_REDUCE && n->reduce_op == op && n->axis_count == 1 && n->dtype == CMZ_F32 &&
         !n->args[1];
}

/* X as exp(SCORE - TOP). */
static bool match_power(const cmz_kernel *k, cmz_expr x, cmz_expr *score, cmz_expr *top) {
  const cmz_expr_node *n = cmz_x_get(k, unrounded(k, x));
  if (n->op != CMZ_X_EXP) return false;
  n = cmz_x_get(k, n->args[0]);
  *score = n->args[0];
  *top = n->args[1];
  return n->op == CMZ_X_SUB;
}

/* The maximum that X is, or is unless that is -infinity; 0: none. */
static cmz_expr match_top(const cmz_kernel *k, cmz_expr x) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  if (n->op == CMZ_X_SELECT) {
    if (compared_with(k, n->args[0], -INFINITY) != n->args[2] || !is_float(k, n->args[1], 0))
      return 0;
    x = n->args[2];
  }
  return is_reduction(k, x, CMZ_REDUCE_MAX) ? x : 0;
}

/* The sum that X is, or is unless that is zero (*ZERO) or too large for its type; 0: none. */
static cmz_expr match_total(const cmz_kernel *k, cmz_expr x, bool *zero) {
  for (;;) {
    x = unrounded(k, x);
    const cmz_expr_node *n = cmz_x_get(k, x);
    if (n->op != CMZ_X_SELECT) break;
    if (compared_with(k, n->args[0], 0) == n->args[2] && is_float(k, n->args[1], 1)) {
      *zero = true;
      x = n->args[2];
    } else if (cmz_x_get(k, n->args[0])->op == CMZ_X_IS_INF) {
      x = n->args[1];
    } else {
      return 0;
    }
  }
  return is_reduction(k, x, CMZ_REDUCE_SUM) ? x : 0;
}

/* X as power / total, perhaps zero where *GUARD, a maximum, is -infinity. */
static cmz_expr match_quotient(const cmz_kernel *k, cmz_expr x, cmz_attention *a, cmz_expr *guard) {
  for (;;) {
    x = unrounded(k, x);
    const cmz_expr_node *n = cmz_x_get(k, x);
    if (n->op == CMZ_X_DIV) return x;
    if (n->op != CMZ_X_SELECT || !is_float(k, n->args[1], 0)) return 0;
    const cmz_expr_node *condition = cmz_x_get(k, n->args[0]);
    cmz_expr most = compared_with(k, n->args[0], -INFINITY);
    if (condition->op == CMZ_X_IS_NAN && condition->args[0] == n->args[2]) {
      a->not_nan = true;
    } else if (most && !*guard && is_reduction(k, most, CMZ_REDUCE_MAX)) {
      *guard = most;
    } else {
      return 0;
    }
    x = n->args[2];
  }
}

/* The term of SCORE that GUARD is the maximum of. */
static cmz_expr match_bias(const cmz_kernel *k, const cmz_attention *a, cmz_expr guard) {
  const cmz_expr_node *n = cmz_x_get(k, guard), *sum = cmz_x_get(k, unrounded(k, a->score));
  if (sum->op != CMZ_X_ADD) return 0;
  for (int i = 1; i >= 0; i--)
    if (same_at(k, sum->args[i], a->keys, n->args[0], n->axes[0])) return sum->args[i];
  return 0;
}

static bool match_softmax(const cmz_kernel *k, cmz_expr x, cmz_attention *a) {
  cmz_expr guard = 0, top, other_score, other_top;
  cmz_expr quotient = match_quotient(k, x, a, &guard);
  if (!quotient) return false;
  const cmz_expr_node *n = cmz_x_get(k, quotient);
  cmz_expr total = match_total(k, n->args[1], &a->zero);
  if (!total || !match_power(k, n->args[0], &a->score, &top)) return false;
  const cmz_expr_node *t = cmz_x_get(k, total);
  if (!match_power(k, t->args[0], &other_score, &other_top) || other_top != top) return false;
  cmz_expr greatest = match_top(k, top);
  if (!greatest) return false;
  const cmz_expr_node *g = cmz_x_get(k, greatest);
  cmz_expr extent = k->axes.data[a->keys].extent;
  if (k->axes.data[t->axes[0]].extent != extent || k->axes.data[g->axes[0]].extent != extent ||
      !same_at(k, a->score, a->keys, other_score, t->axes[0]) ||
      !same_at(k, a->score, a->keys, g->args[0], g->axes[0]))
    return false;
  return !guard || (a->bias = match_bias(k, a, guard)) != 0;
}

/* What is below X: loads of what is written make *PLAIN false; the one reduction is *FOUND, several
 * make *PLAIN false too. */
static void look_below(const cmz_kernel *k, cmz_expr x, bool *seen, cmz_expr *found, bool *plain) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  if (!x || seen[x]) return;
  seen[x] = true;
  if (n->op == CMZ_X_LOAD && (k->operands.data[n->i].access & CMZ_WRITE)) *plain = false;
  if (n->op == CMZ_X_REDUCE) {
    if (*found) *plain = false;
    *found = x;
    return;
  }
  for (int i = 0; i < 3; i++) look_below(k, n->args[i], seen, found, plain);
}

/* The one reduction at the top of X; 0: none or several, or X reads what the kernel writes. */
static cmz_expr only_reduction(const cmz_kernel *k, cmz_expr x, bool *plain) {
  cmz_expr found = 0;
  *plain = true;
  look_below(k, x, CMZ_NEW_ARRAY(k->arena, bool, k->exprs.count + 1), &found, plain);
  return *plain ? found : 0;
}

static bool is_plain(const cmz_kernel *k, cmz_expr x) {
  bool plain;
  return only_reduction(k, x, &plain) == 0 && plain;
}

/* The scores' own sum of products; the query's factor is the one that no key changes. */
static bool match_product(const cmz_kernel *k, cmz_attention *a) {
  bool plain;
  a->product = only_reduction(k, a->score, &plain);
  if (!a->product || !is_reduction(k, a->product, CMZ_REDUCE_SUM)) return false;
  const cmz_expr_node *n = cmz_x_get(k, a->product), *body = cmz_x_get(k, n->args[0]);
  if (body->op != CMZ_X_MUL) return false;
  bool second = cmz_x_uses_axis(k, body->args[1], a->keys);
  a->query = body->args[!second];
  a->key = body->args[second];
  return !cmz_x_uses_axis(k, a->query, a->keys) && cmz_x_uses_axis(k, a->key, a->keys) &&
         is_plain(k, a->query) && is_plain(k, a->key);
}

bool cmz_kernel_attention(const cmz_kernel *k, cmz_attention *a) {
  bool plain;
  if (k->stores.count != 1 || k->stores.data[0].mode != CMZ_STORE_SET ||
      k->stores.data[0].predicate)
    return false;
  cmz_expr sum = only_reduction(k, k->stores.data[0].value, &plain);
  if (!sum || !is_reduction(k, sum, CMZ_REDUCE_SUM)) return false;
  const cmz_expr_node *n = cmz_x_get(k, sum), *body = cmz_x_get(k, n->args[0]);
  if (body->op != CMZ_X_MUL) return false;
  for (int i = 0; i < 2; i++) {
    *a = (cmz_attention){.sum = sum, .keys = n->axes[0], .value = body->args[!i]};
    if (is_plain(k, a->value) && match_softmax(k, body->args[i], a) && match_product(k, a))
      return true;
  }
  return false;
}
