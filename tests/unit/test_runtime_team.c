/* test_runtime_team.c - the team of threads with the waiter of Apple's systems, a mutex and a
 * condition, which also works here; every other test runs the futex. In: nothing. Out: each tile
 * done once, however long workers have slept before. */
#define CMZ_WAIT_CONDITION 1
#include "runtime/team.c"

#include <setjmp.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

enum { TILES = 1000, JOBS = 300, THREADS = 4 };

static void count_tiles(void *user, uint32_t begin, uint32_t end, uint32_t number) {
  uint32_t *done = user;
  assert_true(number < THREADS);
  for (uint32_t i = begin; i < end; i++) __atomic_fetch_add(&done[i], 1, __ATOMIC_RELAXED);
}

static void test_jobs(void **state) {
  (void)state;
  static cmz_model model;
  static uint32_t done[TILES];
  cmz_team *team = cmz_team_create(&model, THREADS);
  assert_non_null(team);
  for (uint32_t job = 0; job < JOBS; job++) {
    cmz_team_run(team, count_tiles, done, TILES);
    for (uint32_t i = 0; i < TILES; i++) assert_int_equal(done[i], job + 1);
    /* Now and then long enough for the workers to fall asleep. */
    if (job % 30 == 0) nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  cmz_team_destroy(&model, team);
  assert_int_equal(model.memory, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_jobs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
