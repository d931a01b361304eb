/* test_interpret.c - the reference interpreter: what each operation means at its edges, order of
 * serial stores, bounds checks, and that it is fast enough for tests. */
#include "../../ir/kernel.h"

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

static cmz_expr ix(cmz_kernel *k, int64_t v) { return cmz_x_index(k, v); }

static void add_store(cmz_kernel *k, uint16_t operand, cmz_expr index, cmz_expr value,
                      cmz_store_mode mode, uint16_t axis) {
  cmz_store s = {.axis_count = 1,
                 .axes = {axis},
                 .operand = operand,
                 .mode = mode,
                 .index = index,
                 .value = value};
  cmz_vec_push(k->arena, &k->stores, s);
}

/* out[i] = OP(x[i], y[i]) over N elements of TYPE. */
static void binary(cmz_expr_op op, cmz_dtype type, const void *x, const void *y, void *out,
                   int64_t n) {
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "binary");
  uint16_t axis = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, n));
  for (int i = 0; i < 2; i++) cmz_kernel_add_operand(k, type, CMZ_READ, false, ix(k, n));
  cmz_expr at = cmz_x_axis(k, axis), e = cmz_x2(k, op, cmz_x_load(k, 0, at), cmz_x_load(k, 1, at));
  cmz_kernel_add_operand(k, (cmz_dtype)cmz_x_get(k, e)->dtype, CMZ_WRITE, false, ix(k, n));
  add_store(k, 2, at, e, CMZ_STORE_SET, axis);
  assert_int_equal(cmz_kernel_verify(ctx, k), CMZ_OK);
  void *memory[] = {(void *)(uintptr_t)x, (void *)(uintptr_t)y, out};
  assert_int_equal(cmz_kernel_interpret(ctx, k, memory, NULL), CMZ_OK);
}

static void test_integers(void **state) {
  (void)state;
  int32_t a[] = {7, -7, 7, -7, INT32_MIN, INT32_MAX}, b[] = {2, 2, -2, -2, -1, 1}, out[6];
#define WANT(op, ...)                                                                              \
  binary(op, CMZ_I32, a, b, out, 6);                                                               \
  assert_memory_equal(out, ((int32_t[]){__VA_ARGS__}), sizeof out)
  WANT(CMZ_X_DIV, 3, -3, -3, 3, INT32_MIN, INT32_MAX);
  WANT(CMZ_X_FLOORDIV, 3, -4, -4, 3, INT32_MIN, INT32_MAX);
  WANT(CMZ_X_FMOD, 1, -1, 1, -1, 0, 0);
  WANT(CMZ_X_MOD, 1, 1, -1, -1, 0, 0);
  WANT(CMZ_X_ADD, 9, -5, 5, -9, INT32_MAX, INT32_MIN);
#undef WANT
  uint32_t p[] = {1, UINT32_MAX, 1u << 31}, q[] = {UINT32_MAX, 1, 1}, r[3];
  binary(CMZ_X_MAX, CMZ_U32, p, q, r, 3);
  assert_memory_equal(r, ((uint32_t[]){UINT32_MAX, UINT32_MAX, 1u << 31}), sizeof r);
  binary(CMZ_X_SHR, CMZ_U32, p, q, r, 3);
  assert_int_equal(r[2], 1u << 30);
  uint64_t u[] = {UINT64_MAX, 5}, v[] = {2, UINT64_MAX}, w[2];
  binary(CMZ_X_DIV, CMZ_U64, u, v, w, 2);
  assert_true(w[0] == UINT64_MAX / 2 && w[1] == 0);
  bool less[2];
  binary(CMZ_X_LT, CMZ_U64, u, v, less, 2);
  assert_true(!less[0] && less[1]);
}

static void test_floats(void **state) {
  (void)state;
  float a[] = {NAN, 1, -0.0f, 0, 5, -5}, b[] = {1, NAN, 0, -0.0f, 3, 3}, out[6];
  binary(CMZ_X_MAX, CMZ_F32, a, b, out, 6);
  assert_true(isnan(out[0]) && isnan(out[1]) && !signbit(out[2]) && !signbit(out[3]) &&
              out[4] == 5);
  binary(CMZ_X_MIN, CMZ_F32, a, b, out, 6);
  assert_true(isnan(out[0]) && isnan(out[1]) && signbit(out[2]) && out[4] == 3);
  binary(CMZ_X_MOD, CMZ_F32, a, b, out, 6);
  assert_true(out[4] == 2 && out[5] == 1);
  binary(CMZ_X_FMOD, CMZ_F32, a, b, out, 6);
  assert_true(out[4] == 2 && out[5] == -2);
  bool less[6];
  binary(CMZ_X_LE, CMZ_F32, a, b, less, 6);
  assert_true(!less[0] && !less[1] && less[2] && less[3] && !less[4] && less[5]);
}

static void test_serial_order(void **state) {
  (void)state;
  /* a running sum: each iteration reads what the one before stored */
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "scan");
  uint16_t axis = cmz_kernel_add_axis(k, CMZ_AXIS_SERIAL, cmz_x_param(k, 0));
  cmz_kernel_add_operand(k, CMZ_I32, CMZ_READ_WRITE, false, ix(k, 8));
  cmz_expr i = cmz_x_axis(k, axis), one = ix(k, 1);
  cmz_expr before = cmz_x_load(k, 0, i), next = cmz_x2(k, CMZ_X_ADD, i, one);
  add_store(k, 0, next, cmz_x2(k, CMZ_X_ADD, before, cmz_x_load(k, 0, next)), CMZ_STORE_SET, axis);
  /* a histogram of it */
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ_WRITE, false, ix(k, 4));
  cmz_expr bin = cmz_x2(k, CMZ_X_MOD, cmz_x_cast(k, before, CMZ_I64), ix(k, 4));
  add_store(k, 1, bin, cmz_x_float(k, CMZ_F32, 1), CMZ_STORE_ADD, axis);
  assert_int_equal(cmz_kernel_verify(ctx, k), CMZ_OK);
  int32_t values[] = {1, 2, 3, 4, 5, 6, 7, 8};
  float bins[4] = {0};
  int64_t params[] = {7};
  assert_int_equal(cmz_kernel_interpret(ctx, k, (void *[]){values, bins}, params), CMZ_OK);
  assert_memory_equal(values, ((int32_t[]){1, 3, 6, 10, 15, 21, 28, 36}), sizeof values);
  assert_memory_equal(bins, ((float[]){1, 2, 2, 2}), sizeof bins);
  params[0] = 8;
  assert_int_equal(cmz_kernel_interpret(ctx, k, (void *[]){values, bins}, params), CMZ_E_INTERNAL);
}

static void test_arg_reductions(void **state) {
  (void)state;
  static const struct {
    cmz_reduce_op op;
    float v[5];
    int64_t want;
  } cases[] = {{CMZ_REDUCE_ARGMAX, {1, 5, 2, 5, 0}, 1},
               {CMZ_REDUCE_ARGMAX_LAST, {1, 5, 2, 5, 0}, 3},
               {CMZ_REDUCE_ARGMIN, {0, 5, 0, 5, 1}, 0},
               {CMZ_REDUCE_ARGMIN_LAST, {0, 5, 0, 5, 1}, 2},
               {CMZ_REDUCE_ARGMAX, {1, NAN, 9, NAN, 0}, 1},
               {CMZ_REDUCE_ARGMIN, {-INFINITY, 2, NAN, 1, 0}, 2},
               {CMZ_REDUCE_ARGMAX, {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY}, 0}};
  for (size_t c = 0; c < CMZ_COUNT_OF(cases); c++) {
    cmz_kernel *k = cmz_kernel_create(ctx->arena, "arg");
    uint16_t axis = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, 1)),
             r = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, ix(k, 5));
    cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, ix(k, 5));
    cmz_kernel_add_operand(k, CMZ_I64, CMZ_WRITE, false, ix(k, 1));
    add_store(k, 1, ix(k, 0),
              cmz_x_reduce(k, cases[c].op, cmz_x_load(k, 0, cmz_x_axis(k, r)), &r, 1),
              CMZ_STORE_SET, axis);
    int64_t got = -1;
    float v[5];
    memcpy(v, cases[c].v, sizeof v);
    assert_int_equal(cmz_kernel_interpret(ctx, k, (void *[]){v, &got}, NULL), CMZ_OK);
    assert_int_equal(got, cases[c].want);
  }
}

static void test_empty_domains(void **state) {
  (void)state;
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "empty");
  uint16_t axis = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, 1)),
           r = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, cmz_x_param(k, 0));
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, cmz_x_param(k, 0));
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, ix(k, 3));
  static const cmz_reduce_op ops[] = {CMZ_REDUCE_SUM, CMZ_REDUCE_PROD, CMZ_REDUCE_MAX};
  for (int i = 0; i < 3; i++)
    add_store(k, 1, ix(k, i), cmz_x_reduce(k, ops[i], cmz_x_load(k, 0, cmz_x_axis(k, r)), &r, 1),
              CMZ_STORE_SET, axis);
  float out[3];
  int64_t params[] = {0};
  assert_int_equal(cmz_kernel_interpret(ctx, k, (void *[]){out, out}, params), CMZ_OK);
  assert_true(out[0] == 0 && out[1] == 1 && isinf(out[2]) && out[2] < 0);
}

static void test_bounds_are_checked(void **state) {
  (void)state;
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "bounds");
  uint16_t axis = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, 4));
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, ix(k, 4));
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, ix(k, 4));
  cmz_expr i = cmz_x_axis(k, axis), shifted = cmz_x2(k, CMZ_X_SUB, i, ix(k, 1));
  cmz_expr load = cmz_x_load(k, 0, shifted);
  add_store(k, 1, i, load, CMZ_STORE_SET, axis);
  float x[4] = {1, 2, 3, 4}, y[4];
  assert_int_equal(cmz_kernel_interpret(ctx, k, (void *[]){x, y}, NULL), CMZ_E_INTERNAL);
  const char *message = ctx->diagnostics.data[ctx->diagnostics.count - 1].message;
  assert_non_null(strstr(message, "load of element -1 of operand 0"));
  /* under SELECT it is not performed */
  k->stores.data[0].value =
      cmz_x_select(k, cmz_x2(k, CMZ_X_LE, ix(k, 0), shifted), load, cmz_x_float(k, CMZ_F32, 9));
  assert_int_equal(cmz_kernel_interpret(ctx, k, (void *[]){x, y}, NULL), CMZ_OK);
  assert_memory_equal(y, ((float[]){9, 1, 2, 3}), sizeof y);
  k->stores.data[0].index = cmz_x2(k, CMZ_X_ADD, i, ix(k, 1));
  assert_int_equal(cmz_kernel_interpret(ctx, k, (void *[]){x, y}, NULL), CMZ_E_INTERNAL);
}

static void test_narrow_types(void **state) {
  (void)state;
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "narrow");
  uint16_t axis = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, 3));
  cmz_kernel_add_operand(k, CMZ_I32, CMZ_READ, false, ix(k, 3));
  cmz_kernel_add_operand(k, CMZ_I8, CMZ_WRITE, false, ix(k, 3));
  cmz_kernel_add_operand(k, CMZ_I32, CMZ_WRITE, false, ix(k, 3));
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, ix(k, 3));
  cmz_expr i = cmz_x_axis(k, axis), x = cmz_x_load(k, 0, i);
  add_store(k, 1, i, x, CMZ_STORE_SET, axis);
  add_store(k, 2, i, cmz_x_cast_through(k, x, CMZ_U8), CMZ_STORE_SET, axis);
  cmz_expr third = cmz_x2(k, CMZ_X_DIV, cmz_x_cast(k, x, CMZ_F32), cmz_x_float(k, CMZ_F32, 3));
  add_store(k, 3, i, cmz_x_cast_through(k, third, CMZ_F16), CMZ_STORE_SET, axis);
  assert_int_equal(cmz_kernel_verify(ctx, k), CMZ_OK);
  int32_t in[] = {-129, 300, 1}, wrapped[3];
  int8_t bytes[3];
  float halves[3];
  assert_int_equal(cmz_kernel_interpret(ctx, k, (void *[]){in, bytes, wrapped, halves}, NULL),
                   CMZ_OK);
  assert_memory_equal(bytes, ((int8_t[]){127, 44, 1}), sizeof bytes);
  assert_memory_equal(wrapped, ((int32_t[]){127, 44, 1}), sizeof wrapped);
  assert_true(halves[1] == 100 && halves[2] == 0.333251953125f);
}

static void test_million_iterations(void **state) {
  (void)state;
  cmz_kernel *k = cmz_kernel_create(ctx->arena, "matmul");
  cmz_expr n = ix(k, 100), size = ix(k, 10000);
  uint16_t axes[2], r;
  for (int i = 0; i < 2; i++) axes[i] = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, n);
  r = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, n);
  for (int i = 0; i < 2; i++) cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, size);
  cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, size);
  cmz_expr row = cmz_x_axis(k, axes[0]), column = cmz_x_axis(k, axes[1]), inner = cmz_x_axis(k, r);
  cmz_expr a = cmz_x_load(k, 0, cmz_x2(k, CMZ_X_ADD, cmz_x2(k, CMZ_X_MUL, row, n), inner));
  cmz_expr b = cmz_x_load(k, 1, cmz_x2(k, CMZ_X_ADD, cmz_x2(k, CMZ_X_MUL, inner, n), column));
  cmz_expr sum = cmz_x_reduce(k, CMZ_REDUCE_SUM, cmz_x2(k, CMZ_X_MUL, a, b), &r, 1);
  cmz_store s = {.axis_count = 2, .axes = {axes[0], axes[1]}, .operand = 2, .value = sum};
  s.index = cmz_x2(k, CMZ_X_ADD, cmz_x2(k, CMZ_X_MUL, row, n), column);
  cmz_vec_push(k->arena, &k->stores, s);
  float *x = calloc(10000, 4), *y = calloc(10000, 4), *z = calloc(10000, 4);
  for (int i = 0; i < 10000; i++) x[i] = (float)(i % 7), y[i] = (float)(i % 5);
  assert_int_equal(cmz_kernel_interpret(ctx, k, (void *[]){x, y, z}, NULL), CMZ_OK);
  float want = 0;
  for (int i = 0; i < 100; i++) want += x[300 + i] * y[i * 100 + 7];
  assert_true(z[307] == want);
  free(x), free(y), free(z);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_integers),      cmocka_unit_test(test_floats),
      cmocka_unit_test(test_serial_order),  cmocka_unit_test(test_arg_reductions),
      cmocka_unit_test(test_empty_domains), cmocka_unit_test(test_bounds_are_checked),
      cmocka_unit_test(test_narrow_types),  cmocka_unit_test(test_million_iterations),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
