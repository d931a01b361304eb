/* test_target.c - the rows and --target / --cpu. */
#include "../../runtime/cpu.h"
#include "../../targets/target.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_rows(void **state) {
  (void)state;
  const cmz_cpu_row *row;
  for (uint32_t i = 0; (row = cmz_cpu_at(i)); i++) {
    assert_ptr_equal(cmz_cpu_find(row->name), row);
    if (row->threads) continue; /* a GPU's level */
    assert_true(row->vector_bytes >= 16 && row->l1_bytes && row->l2_bytes);
    if (strcmp(row->arch, "x86_64") == 0)
      assert_int_equal(row->vector_bytes == 64, (row->features & CMZ_CPU(AVX512F)) != 0);
  }
  assert_null(cmz_cpu_find("pentium"));
  assert_int_equal(cmz_cpu_find("x86-64-v3")->features & ~cmz_cpu_find("x86-64-v4")->features, 0);
}

static void test_parse(void **state) {
  (void)state;
  cmz_context *ctx = cmz_context_create(NULL);
  cmz_target t;
  assert_int_equal(cmz_target_parse(ctx, NULL, "x86-64-v2,x86-64-v4,x86-64-v3,x86-64-v3", NULL, &t),
                   CMZ_OK);
  assert_int_equal(t.level_count, 3);
  assert_string_equal(t.levels[0]->name, "x86-64-v4");
  assert_string_equal(t.levels[2]->name, "x86-64-v2");
  assert_int_equal(cmz_target_parse(ctx, "x86-64-v3", NULL, NULL, &t), CMZ_OK);
  assert_string_equal(t.levels[0]->name, "x86-64-v3");
  assert_int_equal(cmz_target_parse(ctx, NULL, NULL, NULL, &t), CMZ_OK);
  assert_int_equal(t.level_count, 1);
  assert_int_equal(t.levels[0]->features & ~cmz_cpu_detect(), 0);
  assert_int_equal(cmz_target_parse(ctx, "vax", NULL, NULL, &t), CMZ_E_USAGE);
  assert_non_null(strstr(ctx->diagnostics.data[0].hint, "--list-targets"));
  assert_int_equal(cmz_target_parse(ctx, NULL, "v3", NULL, &t), CMZ_E_USAGE);
  assert_int_equal(cmz_target_parse(ctx, "aarch64-linux-android24", NULL, NULL, &t), CMZ_OK);
  assert_string_equal(t.os->llvm_triple, "aarch64-unknown-linux-android24");
  assert_string_equal(t.levels[0]->name, "armv8-a");
  assert_int_equal(cmz_target_parse(ctx, "aarch64-linux-android16", NULL, NULL, &t), CMZ_E_USAGE);
  assert_int_equal(cmz_target_parse(ctx, NULL, "armv8.2-a+dotprod,armv8-a", NULL, &t), CMZ_OK);
  assert_string_equal(t.levels[0]->name, "armv8.2-a+dotprod");
  assert_true((t.levels[0]->features & CMZ_ARM(ASIMDDP)) != 0);
  assert_int_equal(cmz_target_parse(ctx, NULL, "armv8-a+nonsense", NULL, &t), CMZ_E_USAGE);
  assert_int_equal(cmz_target_parse(ctx, "sm_90", NULL, NULL, &t), CMZ_OK);
  assert_non_null(t.gpu);
  assert_string_equal(t.levels[1]->name, "sm_80");
  assert_int_equal(cmz_target_parse(ctx, "sm_90", "x86-64-v3", NULL, &t), CMZ_E_USAGE);
  assert_int_equal(cmz_target_parse(ctx, "sm_80,sm_90,sm_86", NULL, NULL, &t), CMZ_OK);
  assert_int_equal(t.level_count, 3);
  assert_string_equal(t.levels[0]->name, "sm_90");
  assert_string_equal(t.levels[1]->name, "sm_86");
  assert_string_equal(t.levels[2]->name, "sm_80");
  static const char *const mixed[] = {
      "sm_90,vulkan", "vulkan,native", "x86-64-v3,sm_90", "x86_64-linux-gnu,aarch64-linux-gnu", ",",
      "sm_90,,sm_80"};
  for (size_t i = 0; i < CMZ_COUNT_OF(mixed); i++)
    assert_int_equal(cmz_target_parse(ctx, mixed[i], NULL, NULL, &t), CMZ_E_USAGE);
  assert_int_equal(cmz_target_parse(ctx, "x86-64-v3+sm_90", NULL, NULL, &t), CMZ_E_USAGE);
  cmz_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_parse)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
