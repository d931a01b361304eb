/* test_kernel.c - kernel descriptions: what the constructors simplify, that simplified and
 * unsimplified expressions compute the same, rewriting of axes, text and hash. */
#include "../../ir/kernel_internal.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static cmz_context *ctx;
static jmp_buf memory_target;

static int setup(void **state) {
  (void)state;
  ctx = cmz_context_create(NULL);
  if (!ctx) return 1;
  ctx->out_of_memory = &memory_target;
  return setjmp(memory_target) ? 1 : 0;
}

static int teardown(void **state) {
  (void)state;
  cmz_context_destroy(ctx);
  return 0;
}

static uint64_t seed = 1;
static uint32_t below(uint32_t n) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((seed >> 33) % n);
}

static cmz_expr add(cmz_kernel *k, cmz_expr a, cmz_expr b) { return cmz_x2(k, CMZ_X_ADD, a, b); }
static cmz_expr mul(cmz_kernel *k, cmz_expr a, cmz_expr b) { return cmz_x2(k, CMZ_X_MUL, a, b); }
static cmz_expr mulc(cmz_kernel *k, cmz_expr a, int64_t c) { return mul(k, a, cmz_x_index(k, c)); }
static cmz_expr addc(cmz_kernel *k, cmz_expr a, int64_t c) { return add(k, a, cmz_x_index(k, c)); }
static cmz_expr divc(cmz_kernel *k, cmz_expr a, int64_t c) {
  return cmz_x2(k, CMZ_X_FLOORDIV, a, cmz_x_index(k, c));
}
static cmz_expr modc(cmz_kernel *k, cmz_expr a, int64_t c) {
  return cmz_x2(k, CMZ_X_MOD, a, cmz_x_index(k, c));
}
static cmz_expr new_axis(cmz_kernel *k, cmz_axis_kind kind, int64_t extent) {
  return cmz_x_axis(k, cmz_kernel_add_axis(k, kind, cmz_x_index(k, extent)));
}

static void test_index_arithmetic(void **state) {
  (void)state;
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "t");
  cmz_expr a = new_axis(k, CMZ_AXIS_PARALLEL, 10), b = new_axis(k, CMZ_AXIS_PARALLEL, 16),
           c = new_axis(k, CMZ_AXIS_PARALLEL, 4), zero = cmz_x_index(k, 0);
  cmz_expr linear = add(k, mulc(k, a, 16), b);
  assert_int_equal(divc(k, linear, 16), a);
  assert_int_equal(modc(k, linear, 16), b);
  assert_int_equal(add(k, mulc(k, divc(k, b, 4), 4), modc(k, b, 4)), b);
  assert_int_equal(add(k, a, cmz_x1(k, CMZ_X_NEG, a)), zero);
  assert_int_equal(divc(k, divc(k, add(k, mulc(k, a, 64), add(k, mulc(k, b, 4), c)), 4), 16), a);
  /* (a*16 + b*4 + c) % 16 where b < 4: c and b stay, a goes */
  cmz_expr d = new_axis(k, CMZ_AXIS_PARALLEL, 4);
  cmz_expr e = add(k, mulc(k, a, 16), add(k, mulc(k, d, 4), c));
  assert_int_equal(modc(k, e, 16), add(k, mulc(k, d, 4), c));
  assert_int_equal(divc(k, modc(k, e, 16), 4), d);
  assert_int_equal(modc(k, modc(k, add(k, b, a), 16), 4), modc(k, add(k, b, a), 4));
  assert_int_equal(divc(k, addc(k, linear, 32), 16), addc(k, a, 2));
  int64_t stride;
  assert_true(cmz_x_stride(k, add(k, mulc(k, linear, 3), c), 0, &stride));
  assert_int_equal(stride, 48);
  assert_false(cmz_x_stride(k, divc(k, b, 5), 1, &stride));
  assert_true(cmz_x_stride(k, divc(k, b, 5), 0, &stride));
  assert_int_equal(stride, 0);
  int64_t low, high;
  cmz_x_range(k, add(k, linear, cmz_x_index(k, -5)), &low, &high);
  assert_int_equal(low, -5);
  assert_int_equal(high, 154);
}

static void test_symbolic(void **state) {
  (void)state;
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "t");
  cmz_expr p = cmz_x_param(k, 0), q = cmz_x_param(k, 1), yes = cmz_x_bool(k, true),
           no = cmz_x_bool(k, false);
  cmz_expr i = cmz_x_axis(k, cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, p));
  cmz_expr j = cmz_x_axis(k, cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, q));
  cmz_expr linear = add(k, mul(k, i, q), j);
  assert_int_equal(cmz_x2(k, CMZ_X_FLOORDIV, linear, q), i);
  assert_int_equal(cmz_x2(k, CMZ_X_MOD, linear, q), j);
  assert_int_equal(cmz_x2(k, CMZ_X_LT, i, p), yes);
  assert_int_equal(cmz_x2(k, CMZ_X_LE, p, i), no);
  assert_int_equal(cmz_x2(k, CMZ_X_LT, linear, mul(k, p, q)), yes);
  assert_int_equal(cmz_x2(k, CMZ_X_LE, cmz_x_index(k, 0), linear), yes);
  assert_int_equal(cmz_x2(k, CMZ_X_MIN, i, p), i);
  cmz_expr flat = cmz_x_axis(k, cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, mul(k, p, q)));
  cmz_expr back =
      add(k, mul(k, cmz_x2(k, CMZ_X_FLOORDIV, flat, q), q), cmz_x2(k, CMZ_X_MOD, flat, q));
  assert_int_equal(back, flat);
}

static void test_predicates(void **state) {
  (void)state;
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "t");
  cmz_expr a = new_axis(k, CMZ_AXIS_PARALLEL, 8), r = new_axis(k, CMZ_AXIS_REDUCE, 3),
           zero = cmz_x_index(k, 0);
  cmz_expr h = addc(k, add(k, a, r), -1);
  cmz_expr inside =
      cmz_x2(k, CMZ_X_AND, cmz_x2(k, CMZ_X_LE, zero, h), cmz_x2(k, CMZ_X_LT, h, cmz_x_index(k, 8)));
  assert_int_equal(cmz_x_get(k, inside)->op, CMZ_X_AND);
  int64_t low[2] = {1, INT64_MIN}, high[2] = {6, INT64_MAX};
  assert_int_equal(cmz_x_specialise(k, inside, low, high), cmz_x_bool(k, true));
  low[0] = high[0] = 0;
  cmz_expr edge = cmz_x_specialise(k, inside, low, high);
  assert_int_equal(edge, cmz_x2(k, CMZ_X_LE, zero, addc(k, r, -1)));
  low[0] = 1, high[0] = 7;
  assert_int_equal(cmz_x_specialise(k, inside, low, high),
                   cmz_x2(k, CMZ_X_LT, h, cmz_x_index(k, 8)));
}

static void test_floats_keep_their_bits(void **state) {
  (void)state;
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "t");
  cmz_expr axis = new_axis(k, CMZ_AXIS_PARALLEL, 8);
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, cmz_x_index(k, 8));
  cmz_expr x = cmz_x_load(k, 0, axis), zero = cmz_x_float(k, CMZ_F32, 0);
  assert_int_not_equal(mul(k, x, zero), zero);
  assert_int_not_equal(add(k, x, zero), x); /* -0 + 0 is 0 */
  assert_int_equal(add(k, x, cmz_x_float(k, CMZ_F32, -0.0)), x);
  assert_int_equal(mul(k, x, cmz_x_float(k, CMZ_F32, 1)), x);
  assert_int_equal(cmz_x2(k, CMZ_X_DIV, x, cmz_x_float(k, CMZ_F32, 4)),
                   mul(k, x, cmz_x_float(k, CMZ_F32, 0.25)));
  cmz_expr one = cmz_x_float(k, CMZ_F32, 1);
  assert_int_not_equal(add(k, add(k, x, one), one), add(k, x, cmz_x_float(k, CMZ_F32, 2)));
  assert_int_equal(cmz_x_cast(k, cmz_x_cast(k, x, CMZ_F64), CMZ_F32), x);
}

/* ---- random expressions, simplified and raw ---- */

enum { PARAMS = 2, POOL = 40 };
static const int64_t EXTENTS[] = {5, 6, 16, 1, 3};

typedef struct twin {
  cmz_kernel *k[2]; /* [0] simplifying, [1] raw */
  cmz_expr e[2][POOL];
  cmz_dtype type[POOL];
  uint32_t count;
} twin;

static void twin_push(twin *t, cmz_expr a, cmz_expr b) {
  if (t->count == POOL) return;
  t->e[0][t->count] = a;
  t->e[1][t->count] = b;
  t->type[t->count++] = (cmz_dtype)cmz_x_get(t->k[0], a)->dtype;
  assert_int_equal(cmz_x_get(t->k[1], b)->dtype, t->type[t->count - 1]);
}

static bool pick(const twin *t, cmz_dtype type, uint32_t *out) {
  for (int tries = 0; tries < 20; tries++) {
    *out = below(t->count);
    if (t->type[*out] == type) return true;
  }
  return false;
}

#define BOTH(t, call0, call1) twin_push(t, call0, call1)

static void twin_leaves(twin *t) {
  for (int i = 0; i < 2; i++) {
    cmz_kernel *k = t->k[i] = cmz_kernel_create(ctx->arena, "random");
    cmz_pool(k)->raw = i;
    for (uint32_t a = 0; a < CMZ_COUNT_OF(EXTENTS); a++)
      cmz_kernel_add_axis(k, a < 3 ? CMZ_AXIS_PARALLEL : CMZ_AXIS_REDUCE,
                          cmz_x_index(k, EXTENTS[a]));
    cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, cmz_x_param(k, 0));
    cmz_x_param(k, 1);
    static const cmz_dtype types[] = {CMZ_F32, CMZ_I64, CMZ_U8, CMZ_I32, CMZ_BOOL, CMZ_F16};
    for (uint32_t o = 0; o < CMZ_COUNT_OF(types); o++)
      cmz_kernel_add_operand(k, types[o], CMZ_READ, false, cmz_x_index(k, 64));
  }
  cmz_kernel *a = t->k[0], *b = t->k[1];
  for (uint16_t x = 0; x < 6; x++) BOTH(t, cmz_x_axis(a, x), cmz_x_axis(b, x));
  for (uint32_t x = 0; x < PARAMS; x++) BOTH(t, cmz_x_param(a, x), cmz_x_param(b, x));
  for (int i = 0; i < 3; i++) {
    int64_t v = (int64_t[]){0, 1, 2, 3, 4, 16, -1, 12, -7}[below(9)];
    BOTH(t, cmz_x_index(a, v), cmz_x_index(b, v));
  }
  double f = (double[]){0, 1, -0.0, 2, 0.5, INFINITY}[below(6)];
  BOTH(t, cmz_x_float(a, CMZ_F32, f), cmz_x_float(b, CMZ_F32, f));
}

static void twin_grow(twin *t) {
  static const cmz_expr_op ints[] = {CMZ_X_ADD, CMZ_X_SUB, CMZ_X_MUL, CMZ_X_FLOORDIV,
                                     CMZ_X_MOD, CMZ_X_MIN, CMZ_X_MAX, CMZ_X_ADD,
                                     CMZ_X_MUL, CMZ_X_AND, CMZ_X_OR,  CMZ_X_XOR};
  static const cmz_expr_op floats[] = {CMZ_X_ADD, CMZ_X_SUB, CMZ_X_MUL,
                                       CMZ_X_DIV, CMZ_X_MIN, CMZ_X_MAX};
  static const cmz_expr_op compares[] = {CMZ_X_EQ, CMZ_X_LT, CMZ_X_LE};
  static const cmz_dtype types[] = {CMZ_I64, CMZ_I64, CMZ_I64, CMZ_F32, CMZ_I32, CMZ_BOOL};
  cmz_kernel *k = t->k[0], *r = t->k[1];
  cmz_expr *x = t->e[0], *y = t->e[1];
  uint32_t a, b, c;
  cmz_dtype type = types[below(CMZ_COUNT_OF(types))];
  switch (below(8)) {
  case 0: /* load, index made to fit */
    if (pick(t, CMZ_I64, &a)) {
      uint16_t o = (uint16_t)below(6);
      cmz_expr i = cmz_x2(k, CMZ_X_MOD, x[a], cmz_x_index(k, 64)),
               j = cmz_x2(r, CMZ_X_MOD, y[a], cmz_x_index(r, 64));
      BOTH(t, cmz_x_load(k, o, i), cmz_x_load(r, o, j));
    }
    break;
  case 1:
    if (pick(t, type, &a) && pick(t, type, &b)) {
      cmz_expr_op op = compares[below(3)];
      BOTH(t, cmz_x2(k, op, x[a], x[b]), cmz_x2(r, op, y[a], y[b]));
    }
    break;
  case 2:
    if (pick(t, CMZ_BOOL, &c) && pick(t, type, &a) && pick(t, type, &b))
      BOTH(t, cmz_x_select(k, x[c], x[a], x[b]), cmz_x_select(r, y[c], y[a], y[b]));
    break;
  case 3: {
    cmz_dtype to = types[below(CMZ_COUNT_OF(types))];
    if (pick(t, type, &a) && !(type == CMZ_F32 && to != CMZ_F32 && to != CMZ_BOOL))
      BOTH(t, cmz_x_cast(k, x[a], to), cmz_x_cast(r, y[a], to));
    break;
  }
  case 4:
    if (pick(t, type, &a)) {
      static const cmz_expr_op unary[] = {CMZ_X_NEG, CMZ_X_ABS, CMZ_X_SIGN};
      cmz_expr_op op = type == CMZ_BOOL ? CMZ_X_NOT : unary[below(3)];
      BOTH(t, cmz_x1(k, op, x[a]), cmz_x1(r, op, y[a]));
    }
    break;
  case 5:
    if (pick(t, type, &a)) {
      static const uint16_t axes[] = {3, 4};
      uint32_t count = 1 + below(2), op = below(4);
      if (type == CMZ_BOOL) op = CMZ_REDUCE_AND + below(2);
      BOTH(t, cmz_x_reduce(k, (cmz_reduce_op)op, x[a], axes + 2 - count, count),
           cmz_x_reduce(r, (cmz_reduce_op)op, y[a], axes + 2 - count, count));
    }
    break;
  default:
    if (pick(t, type, &a) && pick(t, type, &b)) {
      cmz_expr_op op = type == CMZ_F32    ? floats[below(6)]
                       : type == CMZ_BOOL ? (cmz_expr_op)(CMZ_X_AND + below(3))
                                          : ints[below(12)];
      int64_t d;
      if ((op == CMZ_X_FLOORDIV || op == CMZ_X_MOD) &&
          (type != CMZ_I64 || !cmz_x_is_int(k, x[b], &d) || d == 0))
        op = CMZ_X_ADD;
      BOTH(t, cmz_x2(k, op, x[a], x[b]), cmz_x2(r, op, y[a], y[b]));
    }
  }
}

/* E closed over the reduction axes, stored per element of the parallel axes. */
static void add_root(cmz_kernel *k, cmz_expr e) {
  cmz_dtype type = (cmz_dtype)cmz_x_get(k, e)->dtype;
  const uint16_t axes[] = {3, 4};
  if (cmz_x_uses_axis(k, e, 3) || cmz_x_uses_axis(k, e, 4))
    e = cmz_x_reduce(k, type == CMZ_BOOL ? CMZ_REDUCE_AND : CMZ_REDUCE_MAX, e, axes, 2);
  cmz_store s = {.axis_count = 4, .axes = {5, 0, 1, 2}};
  s.operand = cmz_kernel_add_operand(k, type, CMZ_WRITE, false, mulc(k, cmz_x_param(k, 0), 480));
  cmz_expr index = cmz_x_axis(k, 5);
  index = add(k, mulc(k, index, 5), cmz_x_axis(k, 0));
  index = add(k, mulc(k, index, 6), cmz_x_axis(k, 1));
  s.index = add(k, mulc(k, index, 16), cmz_x_axis(k, 2));
  s.value = e;
  cmz_vec_push(k->arena, &k->stores, s);
}

static void fill(void *memory[], uint8_t storage[][1024]) {
  for (int o = 0; o < 6; o++) memory[o] = storage[o];
  for (uint32_t i = 0; i < 64; i++) {
    cmz_dtype_set_f64(CMZ_F32, memory[0], i, (double)((int)below(17) - 8) * 0.5);
    cmz_dtype_set_i64(CMZ_I64, memory[1], i, (int64_t)below(40) - 20);
    cmz_dtype_set_i64(CMZ_U8, memory[2], i, below(256));
    cmz_dtype_set_i64(CMZ_I32, memory[3], i, (int64_t)below(2000) - 1000);
    cmz_dtype_set_i64(CMZ_BOOL, memory[4], i, below(2));
    cmz_dtype_set_f64(CMZ_F16, memory[5], i, (double)below(9) - 4);
  }
}

static void run(const cmz_kernel *k, uint8_t storage[][1024], void *out) {
  void *memory[8];
  for (int o = 0; o < 6; o++) memory[o] = storage[o];
  memory[6] = out;
  int64_t params[PARAMS] = {2, 7};
  assert_int_equal(cmz_kernel_interpret(ctx, k, memory, params), CMZ_OK);
}

static void same_kernel(const cmz_kernel *a, const cmz_kernel *b, const char *what,
                        uint32_t round) {
  cmz_hash128 x = cmz_kernel_hash(a, NULL), y = cmz_kernel_hash(b, NULL);
  if (x.lo != y.lo || x.hi != y.hi) fail_msg("%s: hash differs in round %u", what, round);
}

static bool same_values(cmz_dtype type, const void *x, const void *y) {
  for (size_t i = 0; i < 960; i++) {
    if (!cmz_dtype_is_float(type)) {
      if (cmz_dtype_get_i64(type, x, i) != cmz_dtype_get_i64(type, y, i)) return false;
      continue;
    }
    double p = cmz_dtype_get_f64(type, x, i), q = cmz_dtype_get_f64(type, y, i);
    if (!(isnan(p) && isnan(q)) && memcmp(&p, &q, sizeof p)) return false;
  }
  return true;
}

static void mismatch(const cmz_kernel *a, const cmz_kernel *b, const char *what, uint32_t round) {
  cmz_text text = {.arena = ctx->arena};
  cmz_kernel_print(a, &text);
  cmz_kernel_print(b, &text);
  fail_msg("%s, round %u\n%s", what, round, text.data);
}

static void test_random(void **state) {
  (void)state;
  static uint8_t storage[6][1024];
  static uint8_t results[2][960 * 8];
  void *memory[8];
  for (uint32_t round = 0; round < 400; round++) {
    cmz_arena_mark mark = cmz_arena_save(ctx->arena);
    seed = round + 1;
    fill(memory, storage);
    twin t = {.count = 0};
    twin_leaves(&t);
    for (int i = 0; i < 2; i++)
      for (uint32_t a = 0; a < t.k[i]->axes.count; a++)
        if (t.k[i]->axes.data[a].kind == CMZ_AXIS_REDUCE) {
          t.k[i]->axes.data[a].chain = (uint32_t)(round % 3);
          t.k[i]->axes.data[a].strands = round % 5 == 0 ? 4 : 0;
        }
    for (int i = 0; i < 60; i++) twin_grow(&t);
    uint32_t root = t.count - 1 - below(4);
    for (int i = 0; i < 2; i++) add_root(t.k[i], t.e[i][root]);
    cmz_dtype type = t.type[root];
    for (int i = 0; i < 2; i++) {
      cmz_pool(t.k[i])->raw = false;
      assert_int_equal(cmz_kernel_verify(ctx, t.k[i]), CMZ_OK);
      run(t.k[i], storage, results[i]);
    }
    if (!same_values(type, results[0], results[1])) mismatch(t.k[0], t.k[1], "simplified", round);
    /* text and back */
    cmz_text text = {.arena = ctx->arena};
    cmz_kernel_print(t.k[0], &text);
    cmz_kernel *parsed;
    assert_int_equal(cmz_kernel_parse(ctx, ctx->arena, text.data, &parsed), CMZ_OK);
    same_kernel(t.k[0], parsed, "parsed", round);
    /* rewriting */
    uint16_t outer, inner;
    static const uint32_t factors[][2] = {{1, 2}, {1, 3}, {2, 4}, {2, 8}, {4, 3}};
    uint32_t which = below(5);
    cmz_kernel_split_axis(t.k[0], (uint16_t)factors[which][0], factors[which][1], &outer, &inner);
    run(t.k[0], storage, results[0]);
    if (!same_values(type, results[0], results[1])) mismatch(t.k[0], t.k[1], "split", round);
    cmz_kernel_merge_axes(t.k[0]);
    assert_int_equal(cmz_kernel_verify(ctx, t.k[0]), CMZ_OK);
    run(t.k[0], storage, results[0]);
    if (!same_values(type, results[0], results[1])) mismatch(t.k[0], t.k[1], "merged", round);
    cmz_arena_restore(ctx->arena, mark);
  }
}

static void test_specialise_random(void **state) {
  (void)state;
  static uint8_t storage[6][1024];
  static uint8_t results[2][960 * 8];
  void *memory[8];
  for (uint32_t round = 0; round < 150; round++) {
    cmz_arena_mark mark = cmz_arena_save(ctx->arena);
    seed = round + 1001;
    fill(memory, storage);
    twin t = {.count = 0};
    twin_leaves(&t);
    for (int i = 0; i < 60; i++) twin_grow(&t);
    add_root(t.k[0], t.e[0][t.count - 1]);
    cmz_kernel *k = t.k[0];
    int64_t low[6], high[6];
    for (int a = 0; a < 6; a++) low[a] = INT64_MIN, high[a] = INT64_MAX;
    low[2] = below(15), high[2] = low[2] + below(2);
    low[1] = 0, high[1] = 3;
    /* Restricting the store to the bounds must give the same with the specialised value. */
    cmz_store *s = &k->stores.data[0];
    cmz_expr axis2 = cmz_x_axis(k, 2), axis1 = cmz_x_axis(k, 1);
    cmz_expr in = cmz_x2(k, CMZ_X_AND, cmz_x2(k, CMZ_X_LE, cmz_x_index(k, low[2]), axis2),
                         cmz_x2(k, CMZ_X_LE, axis2, cmz_x_index(k, high[2])));
    s->predicate = cmz_x2(k, CMZ_X_AND, in, cmz_x2(k, CMZ_X_LE, axis1, cmz_x_index(k, 3)));
    memset(results, 0, sizeof results);
    run(k, storage, results[0]);
    s->value = cmz_x_specialise(k, s->value, low, high);
    s->index = cmz_x_specialise(k, s->index, low, high);
    run(k, storage, results[1]);
    assert_memory_equal(results[0], results[1], sizeof results[0]);
    cmz_arena_restore(ctx->arena, mark);
  }
}

static void test_merge(void **state) {
  (void)state;
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "relu");
  cmz_expr a = new_axis(k, CMZ_AXIS_PARALLEL, 4), b = new_axis(k, CMZ_AXIS_PARALLEL, 6),
           c = new_axis(k, CMZ_AXIS_PARALLEL, 8);
  cmz_expr size = cmz_x_index(k, 192);
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, size);
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, size);
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, cmz_x_index(k, 8));
  cmz_expr index = add(k, add(k, mulc(k, a, 48), mulc(k, b, 8)), c);
  cmz_expr value = cmz_x2(k, CMZ_X_MAX, cmz_x_load(k, 0, index), cmz_x_load(k, 2, c));
  cmz_store s = {.axis_count = 3, .axes = {0, 1, 2}, .operand = 1, .index = index, .value = value};
  cmz_vec_push(k->arena, &k->stores, s);
  cmz_kernel_merge_axes(k); /* the bias keeps c apart */
  assert_int_equal(k->axes.count, 2);
  assert_int_equal(k->stores.data[0].axis_count, 2);
  int64_t extent;
  assert_true(cmz_x_is_int(k, k->axes.data[0].extent, &extent));
  assert_int_equal(extent, 24);
}

static void test_parse_errors(void **state) {
  (void)state;
  static const char *const bad[] = {
      "",
      "kernel",
      "kernel \"x\" params 0\n",
      "kernel \"x\" params 0\n%2 = int i64 1\n",
      "kernel \"x\" params 0\n%1 = int i64 4\naxis 0 parallel %1\n%2 = axis i64 5\n",
      "kernel \"x\" params 0\n%1 = int i64 4\n%2 = add i64 %1\n",
      "kernel \"x\" params 0\n%1 = int i64 4\naxis 0 parallel %1\noperand 0 f32 write %1\nstore 0 "
      "set axes 0 index %1 value %1\n",
      "kernel \"x\" params 0\n%1 = reduce f32 sum axes\n",
      "schedule 1"};
  cmz_kernel *k;
  for (size_t i = 0; i < CMZ_COUNT_OF(bad); i++)
    assert_int_not_equal(cmz_kernel_parse(ctx, ctx->arena, bad[i], &k), CMZ_OK);
  cmz_schedule s = {.axis_count = 2,
                    .axes = (cmz_axis_schedule[]){{16, 4, 8, 1, 0}, {0, 1, 1, 0, 0}},
                    .reduce_lanes = 8,
                    .reduce_unroll = 2};
  cmz_text text = {.arena = ctx->arena};
  cmz_schedule_print(&s, &text);
  cmz_schedule back;
  assert_int_equal(cmz_schedule_parse(ctx, ctx->arena, text.data, &back), CMZ_OK);
  cmz_text again = {.arena = ctx->arena};
  cmz_schedule_print(&back, &again);
  assert_string_equal(text.data, again.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_index_arithmetic),
      cmocka_unit_test(test_symbolic),
      cmocka_unit_test(test_predicates),
      cmocka_unit_test(test_floats_keep_their_bits),
      cmocka_unit_test(test_random),
      cmocka_unit_test(test_specialise_random),
      cmocka_unit_test(test_merge),
      cmocka_unit_test(test_parse_errors),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
