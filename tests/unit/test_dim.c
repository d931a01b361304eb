/* test_dim.c - symbolic sizes: the simplifications that inference relies on, and a random
 * comparison of the canonical form with the expression tree it was built from. */
#include "../../ir/dim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static cmz_context *ctx;
static jmp_buf memory_target;
static cmz_dims *p;

static int setup(void **state) {
  (void)state;
  ctx = cmz_context_create(NULL);
  if (!ctx) return 1;
  ctx->out_of_memory = &memory_target;
  if (setjmp(memory_target)) return 1;
  p = cmz_dims_create(ctx->arena);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  cmz_context_destroy(ctx);
  return 0;
}

static cmz_dim symbol(const char *name, int64_t low, int64_t high) {
  return cmz_dim_symbol(p, &(cmz_symbol){.name = name, .low = low, .high = high, .hint = low});
}

static cmz_dim number(int64_t v) { return cmz_dim_const(p, v); }

static const char *shown(cmz_dim d) {
  cmz_text text = {.arena = ctx->arena};
  cmz_dim_print(p, d, &text);
  return text.data;
}

#define SAME(a, b) assert_string_equal(shown(a), shown(b)), assert_int_equal(a, b)

static cmz_dim parsed(const char *text) {
  const char *end;
  cmz_dim d = cmz_dim_parse(p, text, &end);
  assert_true(d != CMZ_DIM_NONE);
  assert_int_equal(*end, 0);
  return d;
}

static void test_sums(void **state) {
  (void)state;
  cmz_dim a = symbol("a", 1, INT64_MAX), b = symbol("b", 1, INT64_MAX);
  SAME(cmz_dim_sub(p, cmz_dim_add(p, a, b), a), b);
  SAME(cmz_dim_add(p, a, b), cmz_dim_add(p, b, a));
  SAME(cmz_dim_mul(p, cmz_dim_add(p, a, number(1)), cmz_dim_sub(p, a, number(1))),
       parsed("a*a - 1"));
  SAME(cmz_dim_add(p, number(2), number(3)), number(5));
  SAME(cmz_dim_mul(p, a, number(0)), number(0));
  assert_string_equal(shown(parsed("1 + 3*a")), "a*3 + 1");
  assert_string_equal(shown(parsed("b - a")), "a*-1 + b");
}

static void test_division(void **state) {
  (void)state;
  symbol("a", 1, INT64_MAX), symbol("b", 1, INT64_MAX), symbol("n", 0, 10);
  SAME(parsed("(a*4 + 7)//4"), parsed("a + 1"));
  SAME(parsed("(a*b*64)//(a)"), parsed("b*64"));
  SAME(parsed("(a*64 + 64)//(a + 1)"), number(64));
  SAME(parsed("(a*b + b)//b"), parsed("a + 1"));
  SAME(parsed("(a*b + 3)//b"), parsed("a + 3//b"));
  SAME(parsed("(a//2)//3"), parsed("a//6"));
  SAME(parsed("(a//2 + 1)//2"), parsed("(a + 2)//4"));
  SAME(parsed("(a*6 + 3)//9"), parsed("(a*2 + 1)//3"));
  SAME(parsed("(a*4 + 3)%4"), number(3));
  SAME(parsed("(a*6)%4"), parsed("(a%2)*2"));
  SAME(parsed("n//11"), number(0));
  SAME(parsed("n%11"), parsed("n"));
  SAME(parsed("(n + 22)%11"), parsed("n"));
  SAME(parsed("-7//2"), number(-4));
  SAME(parsed("-7%2"), number(1));
  SAME(parsed("7%-2"), number(-1));
  assert_true(cmz_dim_is_overflow(p, parsed("1//0")));
  assert_true(cmz_dim_is_overflow(p, parsed("a%0")));
  SAME(cmz_dim_ceildiv(p, parsed("a*2"), number(2)), parsed("a"));
  SAME(cmz_dim_ceildiv(p, number(7), number(2)), number(4));
  SAME(cmz_dim_ceildiv(p, number(7), number(-2)), number(-3));
}

static void test_comparisons(void **state) {
  (void)state;
  cmz_dim batch = symbol("batch", 1, 64), z = symbol("z", 0, 8);
  SAME(cmz_dim_max(p, batch, number(1)), batch);
  SAME(cmz_dim_min(p, batch, number(64)), batch);
  SAME(cmz_dim_max(p, cmz_dim_add(p, batch, z), batch), cmz_dim_add(p, batch, z));
  SAME(cmz_dim_min(p, cmz_dim_add(p, batch, z), batch), batch);
  SAME(cmz_dim_broadcast(p, number(1), batch), batch);
  SAME(cmz_dim_broadcast(p, batch, number(1)), batch);
  SAME(cmz_dim_broadcast(p, batch, batch), batch);
  SAME(cmz_dim_broadcast(p, batch, number(7)), number(7));
  SAME(cmz_dim_broadcast(p, batch, z), cmz_dim_broadcast(p, z, batch));
  SAME(cmz_dim_eq(p, batch, number(0)), number(0));
  SAME(cmz_dim_eq(p, batch, cmz_dim_add(p, batch, number(1))), number(0));
  SAME(cmz_dim_eq(p, batch, batch), number(1));
  SAME(cmz_dim_select(p, cmz_dim_eq(p, batch, number(0)), z, batch), batch);
  SAME(cmz_dim_max(p, cmz_dim_max(p, batch, z), z), cmz_dim_max(p, batch, z));
  SAME(cmz_dim_scale(p, batch, 2.0), parsed("batch*2"));
  SAME(cmz_dim_scale(p, batch, 0.5), parsed("batch//2"));
  SAME(cmz_dim_scale(p, number(10), 1.25), number(12));
}

static void test_overflow(void **state) {
  (void)state;
  cmz_dim big = number(INT64_MAX), a = symbol("a", 1, 5), bad = cmz_dim_add(p, big, number(1));
  int64_t value;
  assert_true(cmz_dim_is_overflow(p, bad));
  assert_true(cmz_dim_is_overflow(p, cmz_dim_mul(p, big, number(2))));
  assert_true(cmz_dim_is_overflow(p, cmz_dim_add(p, a, bad)));
  assert_true(cmz_dim_is_overflow(p, cmz_dim_max(p, bad, a)));
  assert_true(cmz_dim_is_overflow(p, cmz_dim_product(p, (cmz_dim[]){big, big, a}, 3)));
  SAME(cmz_dim_product(p, (cmz_dim[]){big, big, number(0)}, 3), number(0));
  assert_false(cmz_dim_is_const(p, bad, &value));
  assert_false(cmz_dim_hint(p, bad, &value));
  SAME(cmz_dim_floordiv(p, number(INT64_MIN), number(2)), number(INT64_MIN / 2));
  assert_true(cmz_dim_is_overflow(p, cmz_dim_floordiv(p, number(INT64_MIN), number(-1))));
  cmz_dim x = a; /* deep and heavy expressions end in overflow, not in a crash or a hang */
  for (int i = 0; i < 2000; i++)
    x = cmz_dim_max(p, cmz_dim_floordiv(p, cmz_dim_mul(p, x, x), number(3)),
                    cmz_dim_mod(p, x, number(7)));
  assert_true(cmz_dim_is_overflow(p, x));
}

static void test_symbols(void **state) {
  (void)state;
  cmz_dim a = symbol("a", 1, 10), again = symbol("a", 0, 8), n;
  int64_t low, high, value;
  assert_int_equal(a, again);
  cmz_dim_range(p, cmz_dim_add(p, a, number(1)), &low, &high);
  assert_int_equal(low, 2);
  assert_int_equal(high, 9);
  cmz_dim d1 =
      cmz_dim_symbol(p, &(cmz_symbol){.name = "a", .low = 0, .high = 3, .origin = CMZ_SYMBOL_DATA});
  assert_int_not_equal(a, d1);
  assert_false(cmz_dim_is_data_dependent(p, a));
  assert_true(cmz_dim_is_data_dependent(p, cmz_dim_mul(p, d1, a)));
  n = symbol("past length + 1", 0, 5);
  cmz_dim sum = cmz_dim_add(p, n, a);
  assert_int_equal(parsed(shown(sum)), sum);
  cmz_dim replacement[8] = {number(4)};
  SAME(cmz_dim_substitute(p, parsed("(a*3 + 1)//2"), replacement), number(6));
  assert_true(cmz_dim_hint(p, parsed("a*3"), &value) && value == 3);
  const char *end;
  assert_int_equal(cmz_dim_parse(p, "unknown + 1", &end), CMZ_DIM_NONE);
  assert_int_equal(cmz_dim_parse(p, "(a", &end), CMZ_DIM_NONE);
  assert_int_equal(cmz_dim_parse(p, "99999999999999999999", NULL), CMZ_DIM_NONE);
  char deep[4001];
  memset(deep, '(', 4000);
  deep[4000] = 0;
  assert_int_equal(cmz_dim_parse(p, deep, NULL), CMZ_DIM_NONE);
}

/* ---- random trees ---- */

static uint64_t seed = 88172645463325252u;
static uint32_t random_below(uint32_t n) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (uint32_t)(seed >> 33) % n;
}

enum { SYMBOLS = 4, SAMPLES = 12 };
typedef struct tree {
  cmz_dim dim;
  bool defined[SAMPLES];
  int64_t value[SAMPLES];
} tree;
static int64_t samples[SAMPLES][SYMBOLS];
static cmz_dim symbols[SYMBOLS];

static bool apply(int kind, int64_t a, int64_t b, int64_t c, int64_t *r) {
  switch (kind) {
  case 0:
    *r = a + b;
    return true;
  case 1:
    *r = a - b;
    return true;
  case 2:
    *r = a * b;
    return llabs(*r) < 1000000;
  case 3:
    *r = b ? (int64_t)floor((double)a / (double)b) : 0;
    return b != 0;
  case 4:
    *r = b ? a - b * (int64_t)floor((double)a / (double)b) : 0;
    return b != 0;
  case 5:
    *r = a < b ? a : b;
    return true;
  case 6:
    *r = a > b ? a : b;
    return true;
  case 7:
    *r = a == 1 ? b : a;
    return a == b || a == 1 || b == 1;
  case 8:
    *r = a == b;
    return true;
  case 9:
    *r = a != 0 ? b : c;
    return true;
  case 10:
    *r = (int64_t)floor((double)a * 0.75);
    return true;
  default:
    *r = b ? (int64_t)ceil((double)a / (double)b) : 0;
    return b != 0;
  }
}

static cmz_dim combine(int kind, cmz_dim a, cmz_dim b, cmz_dim c) {
  cmz_dim (*const two[])(cmz_dims *, cmz_dim, cmz_dim) = {
      cmz_dim_add, cmz_dim_sub, cmz_dim_mul,       cmz_dim_floordiv, cmz_dim_mod,
      cmz_dim_min, cmz_dim_max, cmz_dim_broadcast, cmz_dim_eq};
  if (kind < 9) return two[kind](p, a, b);
  if (kind == 9) return cmz_dim_select(p, a, b, c);
  return kind == 10 ? cmz_dim_scale(p, a, 0.75) : cmz_dim_ceildiv(p, a, b);
}

static tree random_tree(int depth) {
  tree t;
  if (depth == 0 || random_below(6) == 0) {
    uint32_t s = random_below(SYMBOLS + 3);
    int64_t constant = (int64_t)random_below(13) - 4;
    t.dim = s < SYMBOLS ? symbols[s] : cmz_dim_const(p, constant);
    for (int i = 0; i < SAMPLES; i++) {
      t.defined[i] = true;
      t.value[i] = s < SYMBOLS ? samples[i][s] : constant;
    }
    return t;
  }
  tree a = random_tree(depth - 1), b = random_tree(depth - 1), c = random_tree(depth - 1);
  int kind = (int)random_below(12);
  t.dim = combine(kind, a.dim, b.dim, c.dim);
  for (int i = 0; i < SAMPLES; i++)
    t.defined[i] = a.defined[i] && b.defined[i] && c.defined[i] &&
                   apply(kind, a.value[i], b.value[i], c.value[i], &t.value[i]);
  return t;
}

static void check_tree(const tree *t) {
  int64_t low, high, value;
  cmz_dim_range(p, t->dim, &low, &high);
  for (int i = 0; i < SAMPLES; i++) {
    if (!t->defined[i] || cmz_dim_is_overflow(p, t->dim)) continue;
    bool ok = cmz_dim_eval(p, t->dim, samples[i], &value);
    if (!ok || value != t->value[i] || value < low || value > high)
      fail_msg("%s: %lld, not %lld (range %lld..%lld) at %lld %lld %lld %lld", shown(t->dim),
               (long long)value, (long long)t->value[i], (long long)low, (long long)high,
               (long long)samples[i][0], (long long)samples[i][1], (long long)samples[i][2],
               (long long)samples[i][3]);
  }
}

static void test_random(void **state) {
  (void)state;
  static const int64_t bounds[SYMBOLS][2] = {{1, 20}, {0, 9}, {2, 3}, {-5, 5}};
  for (int s = 0; s < SYMBOLS; s++) {
    char name[2] = {(char)('w' + s), 0};
    symbols[s] = symbol(name, bounds[s][0], bounds[s][1]);
    for (int i = 0; i < SAMPLES; i++)
      samples[i][s] =
          bounds[s][0] + (int64_t)random_below((uint32_t)(bounds[s][1] - bounds[s][0] + 1));
  }
  for (int i = 0; i < 20000; i++) {
    tree t = random_tree(1 + i % 4);
    check_tree(&t);
    if (cmz_dim_is_overflow(p, t.dim)) continue;
    const char *text = shown(t.dim), *end;
    cmz_dim back = cmz_dim_parse(p, text, &end);
    if (back != t.dim || *end) fail_msg("%s parses as %s", text, shown(back));
    cmz_dim none[SYMBOLS] = {0};
    tree same = t;
    same.dim = cmz_dim_substitute(p, t.dim, none);
    check_tree(&same);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_sums, setup, teardown),
      cmocka_unit_test_setup_teardown(test_division, setup, teardown),
      cmocka_unit_test_setup_teardown(test_comparisons, setup, teardown),
      cmocka_unit_test_setup_teardown(test_overflow, setup, teardown),
      cmocka_unit_test_setup_teardown(test_symbols, setup, teardown),
      cmocka_unit_test_setup_teardown(test_random, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
