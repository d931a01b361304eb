/* test_codegen_kernels.c - compiled kernels of many kinds, under chosen and random schedules, on
 * the CPU levels that this machine runs, against the evaluator. In: the graphs of kernel_cases.h.
 * Out: cmocka failures. Always holds: what kernel_runner.h says. CMZ_KERNEL_ROUNDS=n tries n random
 * schedules for each graph (1 by default), CMZ_KERNEL_CASE=name only one graph,
 * CMZ_KERNEL_SCHEDULE=text only that schedule. */
#include "kernel_runner.h"

static void run_case(const kernel_case *c, uint32_t turn, bool randomly, bool rewritten) {
  const char *only = getenv("CMZ_KERNEL_CASE");
  if (only && strcmp(only, c->name)) return;
  case_name = c->name;
  cpu = level(turn);
  random_schedule = randomly;
  F->random = schedule_seed = 1000 + turn;
  F->tolerance = 1e-4;
  if (getenv("CMZ_KERNEL_VERBOSE")) print_message("  %s, %s, turn %u\n", c->name, cpu->name, turn);
  c->build();
  check_kernel(rewritten);
  again();
}

static void test_chosen_schedules(void **state) {
  (void)state;
  for (uint32_t i = 0; i < CMZ_COUNT_OF(KERNEL_CASES); i++)
    run_case(&KERNEL_CASES[i], i, false, true);
}

static void test_random_schedules(void **state) {
  (void)state;
  for (uint32_t round = 0; round < rounds(); round++)
    for (uint32_t i = 0; i < CMZ_COUNT_OF(KERNEL_CASES); i++)
      run_case(&KERNEL_CASES[i], i + round * 7 + 1, true, round % 4 != 3);
}

static void test_casts(void **state) {
  (void)state;
  kernel_case c = {"cast", one_cast};
  uint32_t count = CMZ_COUNT_OF(CAST_TYPES), step = rounds() > 1 ? 1 : 7;
  for (uint32_t i = 0; i < count * count; i += step) {
    cast_from = CAST_TYPES[i / count];
    cast_to = CAST_TYPES[i % count];
    run_case(&c, i, i % 2, true);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_chosen_schedules, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_random_schedules, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_casts, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
