/* test_layout.c - layouts: indices are a bijection into the stored elements, padding is zero. */
#include "../../ir/layout.h"

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
  return setjmp(memory_target);
}

static int teardown(void **state) {
  (void)state;
  cmz_context_destroy(ctx);
  return 0;
}

static const cmz_layout panels = {3, {{1, 16, 0}, {0, 1, 0}, {1, 1, 16}}};

static int64_t stored(const cmz_layout *layout, uint32_t rank, const int64_t *shape) {
  cmz_dims *dims = cmz_dims_create(ctx->arena);
  cmz_dim d[8];
  int64_t count = -1;
  for (uint32_t i = 0; i < rank; i++) d[i] = cmz_dim_const(dims, shape[i]);
  assert_true(cmz_dim_is_const(dims, cmz_layout_elements(dims, layout, rank, d), &count));
  return count;
}

static void check(const cmz_layout *layout, uint32_t rank, const int64_t *shape) {
  int64_t count = 1, places = stored(layout, rank, shape);
  for (uint32_t i = 0; i < rank; i++) count *= shape[i];
  uint16_t *plain = CMZ_NEW_ARRAY(ctx->arena, uint16_t, (size_t)count);
  uint16_t *packed = CMZ_NEW_ARRAY(ctx->arena, uint16_t, (size_t)places);
  for (int64_t i = 0; i < count; i++) plain[i] = (uint16_t)(i + 1);
  memset(packed, 0xff, (size_t)places * sizeof *packed);
  cmz_layout_pack(layout, rank, shape, sizeof *plain, plain, packed);
  int64_t zeros = 0;
  for (int64_t i = 0; i < places; i++) zeros += packed[i] == 0;
  assert_int_equal(zeros, places - count);
  for (int64_t i = 0; i < count; i++) {
    int64_t coordinates[8], rest = i;
    for (uint32_t axis = rank; axis-- > 0; rest /= shape[axis])
      coordinates[axis] = rest % shape[axis];
    int64_t at = cmz_layout_index(layout, rank, shape, coordinates);
    assert_true(at >= 0 && at < places);
    assert_int_equal(packed[at], i + 1);
  }
}

static void test_layouts(void **state) {
  (void)state;
  cmz_layout plain = {0}, blocked = cmz_layout_blocked_channels(4, 16),
             three = cmz_layout_blocked_channels(3, 8);
  check(&plain, 3, (int64_t[]){2, 3, 4});
  check(&blocked, 4, (int64_t[]){2, 35, 3, 5});
  check(&blocked, 4, (int64_t[]){1, 16, 1, 1});
  check(&blocked, 4, (int64_t[]){1, 0, 1, 1});
  check(&three, 3, (int64_t[]){2, 9, 5});
  check(&panels, 2, (int64_t[]){7, 33});
  assert_true(cmz_layout_equal(&blocked, &blocked));
  assert_false(cmz_layout_equal(&blocked, &three));
  assert_false(cmz_layout_equal(&blocked, &plain));
  assert_int_equal(cmz_layout_blocked_channels(1, 16).count, 0);
  cmz_text text = {.arena = ctx->arena};
  cmz_layout_print(&panels, &text);
  assert_string_equal(text.data, "{1,16,0}{0,1,0}{1,1,16}");
}

static void test_symbolic(void **state) {
  (void)state;
  cmz_dims *dims = cmz_dims_create(ctx->arena);
  cmz_dim n = cmz_dim_symbol(dims, &(cmz_symbol){.name = "n", .low = 1, .high = 99, .hint = 1});
  cmz_dim shape[] = {cmz_dim_const(dims, 7), n}, extents[CMZ_LAYOUT_MAX_AXES];
  assert_int_equal(cmz_layout_extents(dims, &panels, 2, shape, extents), 3);
  cmz_text text = {.arena = ctx->arena};
  cmz_dim_print(dims, cmz_layout_elements(dims, &panels, 2, shape), &text);
  assert_string_equal(text.data, "((n + 15)//16)*112");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_layouts, setup, teardown),
      cmocka_unit_test_setup_teardown(test_symbolic, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
