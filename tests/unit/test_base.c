/* test_base.c - arenas, vectors, text, diagnostics, files, hashing, arithmetic. */
#include "../../ir/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_arena(void **state) {
  (void)state;
  cmz_context *ctx = cmz_context_create(NULL);
  jmp_buf target;
  ctx->out_of_memory = &target;
  if (setjmp(target)) fail();
  cmz_arena *arena = cmz_arena_create(ctx);
  for (size_t size = 0; size < 20000; size = size * 3 / 2 + 1) {
    uint8_t *p = cmz_arena_alloc(arena, size);
    assert_int_equal((uintptr_t)p % 16, 0);
    for (size_t i = 0; i < size; i++) assert_int_equal(p[i], 0);
    memset(p, 0xff, size);
  }
  cmz_arena_mark mark = cmz_arena_save(arena);
  size_t before = cmz_arena_bytes(arena);
  for (int round = 0; round < 100; round++) { /* reused memory is zero again, and does not grow */
    uint8_t *p = cmz_arena_alloc(arena, 300000);
    assert_true(p[0] == 0 && p[299999] == 0);
    memset(p, 0xff, 300000);
    cmz_arena_restore(arena, mark);
  }
  assert_true(cmz_arena_bytes(arena) < before + 1000000);
  assert_string_equal(cmz_arena_string(arena, NULL), "");
  assert_string_equal(cmz_arena_printf(arena, "%d-%s", 7, "x"), "7-x");
  CMZ_VEC(uint64_t) numbers = {0};
  for (uint64_t i = 0; i < 10000; i++) cmz_vec_push(arena, &numbers, i);
  for (uint64_t i = 0; i < 10000; i++) assert_true(numbers.data[i] == i);
  cmz_arena_destroy(arena);
  cmz_context_destroy(ctx);
}

static void test_memory_limit(void **state) {
  (void)state;
  cmz_context *ctx = cmz_context_create(&(cmz_context_options){.memory_limit = 1 << 20});
  jmp_buf target;
  volatile int failures = 0;
  ctx->out_of_memory = &target;
  if (setjmp(target)) failures++;
  if (failures == 0) cmz_arena_alloc(ctx->arena, 1 << 21);
  if (failures == 1) cmz_arena_alloc(ctx->arena, SIZE_MAX - 3);
  if (failures == 2) cmz_arena_array(ctx->arena, SIZE_MAX / 4, 8);
  if (failures == 3)
    for (;;) cmz_arena_alloc(ctx->arena, 1000);
  assert_int_equal(failures, 4);
  cmz_context_destroy(ctx);
}

static uint32_t heard;
static void listen(void *user, const cmz_diagnostic *d) {
  (void)user;
  heard += d->severity == CMZ_ERROR;
}

static void test_diagnostics(void **state) {
  (void)state;
  cmz_context *ctx = cmz_context_create(&(cmz_context_options){.sink = listen});
  jmp_buf target;
  ctx->out_of_memory = &target;
  if (setjmp(target)) fail();
  cmz_loc loc = {.file = "model.onnx", .node = "Conv_12", .op = "Conv"};
  assert_int_equal(cmz_fail(ctx, CMZ_E_INPUT, loc, "bad %s", "pads"), CMZ_E_INPUT);
  assert_int_equal(
      cmz_fail_hint(ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.tensor = "w\n"}, "try f32", "bad"),
      CMZ_E_UNSUPPORTED);
  cmz_warn(ctx, (cmz_loc){0}, "odd");
  assert_int_equal(ctx->error_count, 2);
  assert_int_equal(heard, 2);
  assert_int_equal(ctx->diagnostics.count, 3);
  cmz_text text = {.arena = ctx->arena};
  for (uint32_t i = 0; i < 3; i++) {
    cmz_diagnostic_format(&text, &ctx->diagnostics.data[i]);
    cmz_text_add(&text, "|");
  }
  assert_string_equal(text.data, "model.onnx: node \"Conv_12\" (Conv): error: bad pads|"
                                 "\"w\\x0a\": error: bad\nhint: try f32|warning: odd|");
  cmz_context_destroy(ctx);
  ctx = cmz_context_create(&(cmz_context_options){.warnings_are_errors = true});
  ctx->out_of_memory = &target;
  cmz_warn(ctx, (cmz_loc){0}, "odd");
  assert_int_equal(ctx->error_count, 1);
  cmz_context_destroy(ctx);
}

static void test_files(void **state) {
  (void)state;
  cmz_context *ctx = cmz_context_create(NULL);
  jmp_buf target;
  ctx->out_of_memory = &target;
  if (setjmp(target)) fail();
  char folder[] = "test_base.XXXXXX";
  assert_non_null(mkdtemp(folder));
  char *path = cmz_arena_printf(ctx->arena, "%s/file", folder);
  const cmz_file *file;
  assert_int_equal(cmz_file_map(ctx, path, &file), CMZ_E_IO);
  assert_int_equal(cmz_file_map(ctx, folder, &file), CMZ_E_IO);
  assert_int_equal(cmz_file_write(ctx, path, "hello", 5), CMZ_OK);
  assert_int_equal(cmz_file_write(ctx, path, "other", 5), CMZ_OK);
  assert_int_equal(cmz_file_map(ctx, path, &file), CMZ_OK);
  assert_int_equal(file->size, 5);
  assert_memory_equal(file->data, "other", 5);
  assert_int_equal(cmz_file_write(ctx, path, NULL, 0), CMZ_OK);
  assert_int_equal(cmz_file_map(ctx, path, &file), CMZ_OK);
  assert_int_equal(file->size, 0);
  assert_int_equal(cmz_file_write(ctx, cmz_arena_printf(ctx->arena, "%s/no/file", folder), "x", 1),
                   CMZ_E_IO);
  assert_int_equal(cmz_file_write(ctx, "/dev/null", "x", 1), CMZ_OK); /* written, not replaced */
  struct stat info;
  assert_true(stat("/dev/null", &info) == 0 && !S_ISREG(info.st_mode));
  assert_int_equal(cmz_file_commit(ctx, cmz_arena_printf(ctx->arena, "%s/none", folder), path),
                   CMZ_E_IO);
  unlink(path);
  assert_int_equal(rmdir(folder), 0); /* nothing else was left behind */
  cmz_context_destroy(ctx);
}

/* Keys of the kernel cache: these numbers may never change. */
static void test_hash(void **state) {
  (void)state;
  uint8_t data[300];
  for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * i);
  cmz_hash128 whole = cmz_hash_bytes(data, sizeof data), empty = cmz_hash_bytes(NULL, 0);
  assert_true(whole.lo != empty.lo && whole.hi != empty.hi);
  for (size_t i = 0; i < sizeof data; i++) /* every bit counts, and so does the length */
    for (int bit = 0; bit < 8; bit++) {
      data[i] ^= (uint8_t)(1 << bit);
      cmz_hash128 other = cmz_hash_bytes(data, sizeof data);
      assert_true(other.lo != whole.lo && other.hi != whole.hi);
      assert_true(cmz_hash64(data, i, 0) != cmz_hash64(data, i + 1, 0));
      data[i] ^= (uint8_t)(1 << bit);
    }
  static const uint8_t zeros[64];
  for (size_t i = 0; i < 63; i++)
    assert_true(cmz_hash_bytes(zeros, i).lo != cmz_hash_bytes(zeros, i + 1).lo);
  assert_true(cmz_hash64(data, 9, 1) != cmz_hash64(data, 9, 2));
  assert_true(cmz_hash64("cmzc", 4, 0) == 0x54da66c3ccb9af87u);
  cmz_hash128 pinned = cmz_hash_bytes("cmzc", 4);
  assert_true(pinned.lo == 0x61f8de913fcf038bu && pinned.hi == 0x71c7950b00b8991bu);
}

static void test_arithmetic(void **state) {
  (void)state;
  size_t size;
  int64_t number;
  assert_false(cmz_mul_size(SIZE_MAX / 2, 3, &size));
  assert_true(cmz_mul_size(6, 7, &size) && size == 42);
  assert_false(cmz_add_i64(INT64_MAX, 1, &number));
  for (int64_t a = -9; a <= 9; a++)
    for (int64_t b = -4; b <= 4; b++) {
      if (b == 0) continue;
      int64_t q = cmz_floor_div(a, b), r = cmz_floor_mod(a, b);
      assert_true(q * b + r == a && (r == 0 || (r < 0) == (b < 0)) && llabs(r) < llabs(b));
    }
  assert_int_equal(cmz_align_up(17, 16), 32);
  assert_int_equal(cmz_align_up(32, 16), 32);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_arena),       cmocka_unit_test(test_memory_limit),
      cmocka_unit_test(test_diagnostics), cmocka_unit_test(test_files),
      cmocka_unit_test(test_hash),        cmocka_unit_test(test_arithmetic),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
