/* test_codegen_kernels.c - compiled kernels of many kinds, under chosen and random schedules, on
 * the CPU levels that this machine runs, against the evaluator. In: the graphs of kernel_cases.h.
 * Out: cmocka failures. Always holds: each operand ends at an unreadable page, so that any access
 * past its end is seen; bytes before it must stay as they are. CMZ_KERNEL_ROUNDS=n tries n random
 * schedules for each graph (1 by default), CMZ_KERNEL_CASE=name only one graph,
 * CMZ_KERNEL_SCHEDULE=text only that schedule. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codegen/codegen.h"
#include "kernel_cases.h"
#include "passes/passes.h"
#include "runtime/program.h"

static char directory[64];
static const char *case_name = "";
static int serial;
static const cmz_cpu_row *cpu;
static bool random_schedule;
static cmz_text described; /* the kernel and its schedule, for messages */

static uint32_t below(uint32_t n) { return (uint32_t)random_number(0, n) % n; }

static void crashed(int sig) {
  static const char text[] = "a compiled kernel crashed: ";
  if (write(2, text, sizeof text - 1) < 0 || write(2, case_name, strlen(case_name)) < 0 ||
      write(2, "\n", 1) < 0) {
  }
  if (described.data && write(2, described.data, described.length) < 0) {
  }
  _exit(sig);
}

/* ---- memory ---- */

typedef struct guarded {
  uint8_t *map, *data;
  size_t map_bytes;
} guarded;

static guarded guard_copy(const void *data, size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), body = cmz_align_up(bytes + 64, page);
  guarded g = {.map_bytes = body + page};
  g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_true(g.map != MAP_FAILED);
  memset(g.map, 0xEE, body);
  g.data = g.map + body - bytes;
  memcpy(g.data, data, bytes);
  assert_int_equal(mprotect(g.map + body, page, PROT_NONE), 0);
  return g;
}

/* ---- schedules ---- */

static bool is_store_axis(const cmz_kernel *k, uint16_t axis) {
  for (uint32_t i = 0; i < k->stores.data[0].axis_count; i++)
    if (k->stores.data[0].axes[i] == axis) return true;
  return false;
}

static cmz_schedule random_one(const cmz_kernel *k) {
  static const uint16_t lanes[] = {1, 4, 8, 16};
  cmz_schedule s = {.axis_count = k->axes.count,
                    .reduce_lanes = lanes[below(4)],
                    .reduce_unroll = (uint16_t)(1 + below(3))};
  s.axes = CMZ_NEW_ARRAY(F->m->arena, cmz_axis_schedule, k->axes.count);
  const cmz_store *store = &k->stores.data[0];
  uint16_t vector =
      store->axes[store->axis_count - 1 - (below(3) == 0 ? below(store->axis_count) : 0)];
  uint32_t instances = 1;
  for (uint16_t a = 0; a < k->axes.count; a++) {
    cmz_axis_schedule *x = &s.axes[a];
    *x = (cmz_axis_schedule){0, 1, 1, (uint8_t)a};
    if (k->axes.data[a].kind == CMZ_AXIS_SERIAL) continue;
    if (below(2) && instances <= 4) x->unroll = (uint16_t)(1 + below(4));
    instances *= x->unroll;
    if (!is_store_axis(k, a)) continue;
    if (a == vector) x->lanes = lanes[1 + below(3)];
    if (below(2)) x->tile = (uint32_t)x->unroll * x->lanes * (1 + below(3));
  }
  for (uint32_t i = store->axis_count; i > 1 && below(2);
       i--) { /* another order of the store's axes */
    uint16_t p = store->axes[i - 1], q = store->axes[below(i)];
    uint8_t t = s.axes[p].order;
    s.axes[p].order = s.axes[q].order;
    s.axes[q].order = t;
  }
  return s;
}

/* ---- compiling and running ---- */

static int64_t value_of(const cmz_kernel *k, cmz_expr e, const int64_t *params) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  int64_t a = n->args[0] ? value_of(k, n->args[0], params) : 0,
          b = n->args[1] ? value_of(k, n->args[1], params) : 0;
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_CONST_INT:
    return n->i;
  case CMZ_X_PARAM:
    return params[n->i];
  case CMZ_X_ADD:
    return a + b;
  case CMZ_X_MUL:
    return a * b;
  case CMZ_X_FLOORDIV:
    return cmz_floor_div(a, b);
  default:
    fail_msg("an extent of another form");
    return 0;
  }
}

static cmz_kernel_function *compile(cmz_kernel *k, const cmz_schedule *s, void **handle) {
  char object[128], library[128], command[400];
  snprintf(object, sizeof object, "%s/k%d.o", directory, serial);
  snprintf(library, sizeof library, "./%s/k%d.so", directory, serial++);
  cmz_status status = cmz_kernel_emit(F->ctx, k, s, cpu, cmz_os_at(0), "kernel", 3, NULL, 0,
                                      CMZ_OUT_OBJECT, object);
  if (status != CMZ_OK)
    fail_msg("%s for %s: %s\n%s", case_name, cpu->name, last_message(), described.data);
  snprintf(command, sizeof command, "ld.lld-22 -shared -z defs -o %s %s", library, object);
  if (system(command)) fail_msg("%s: the kernel does not link\n%s", case_name, described.data);
  *handle = dlopen(library, RTLD_NOW);
  assert_non_null(*handle);
  void *symbol = dlsym(*handle, "kernel");
  cmz_kernel_function *function;
  memcpy(&function, &symbol, sizeof function);
  unlink(object);
  unlink(library);
  return function;
}

static void execute(cmz_kernel *k, void *const *operands, const size_t *bytes,
                    const int64_t *params) {
  cmz_schedule s;
  if (random_schedule) s = random_one(k);
  else ok(cmz_schedule_choose(F->ctx, F->m->arena, k, cpu, 3, &s), "schedule");
  const char *given_schedule = getenv("CMZ_KERNEL_SCHEDULE");
  if (given_schedule) ok(cmz_schedule_parse(F->ctx, F->m->arena, given_schedule, &s), "schedule");
  described = (cmz_text){.arena = F->m->arena};
  cmz_text_add(&described, "%s\n", cpu->name);
  cmz_schedule_print(&s, &described);
  cmz_kernel_print(k, &described);
  case_detail = described.data;
  void *handle, *moved[32];
  cmz_kernel_function *function = compile(k, &s, &handle);
  guarded memory[32];
  for (uint32_t i = 0; i < k->operands.count; i++) {
    memory[i] = guard_copy(operands[i], bytes[i]);
    moved[i] = memory[i].data;
  }
  int64_t tiles = 1;
  for (uint16_t a = 0; a < k->axes.count; a++)
    if (s.axes[a].tile)
      tiles *= (value_of(k, k->axes.data[a].extent, params) + s.axes[a].tile - 1) / s.axes[a].tile;
  uint32_t middle = (uint32_t)tiles / 2; /* two calls, as two threads would */
  cmz_kargs args = {moved, params};
  signal(SIGSEGV, crashed); /* cmocka has set its own */
  signal(SIGBUS, crashed);
  signal(SIGFPE, crashed);
  function(&args, middle, (uint32_t)tiles, 1);
  function(&args, 0, middle, 0);
  for (uint32_t i = 0; i < k->operands.count; i++) {
    if (!(k->operands.data[i].access & CMZ_WRITE) && memcmp(moved[i], operands[i], bytes[i]))
      fail_msg("%s: an input was changed\n%s", case_name, described.data);
    memcpy(operands[i], moved[i], bytes[i]);
    for (const uint8_t *p = memory[i].map; p < memory[i].data; p++)
      if (*p != 0xEE)
        fail_msg("%s: a byte before operand %u was written\n%s", case_name, i, described.data);
    munmap(memory[i].map, memory[i].map_bytes);
  }
  dlclose(handle);
}

static bool runs_here(const cmz_cpu_row *row) {
  if (!strcmp(row->name, "x86-64-v4"))
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (!strcmp(row->name, "x86-64-v3"))
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return !strcmp(row->name, "x86-64-v2") || !strcmp(row->name, "x86-64");
}

/* The TURN-th of the levels that run here, cyclically. */
static const cmz_cpu_row *level(uint32_t turn) {
  const cmz_cpu_row *rows[16];
  uint32_t count = 0;
  for (uint32_t i = 0; cmz_cpu_at(i) && count < 16; i++)
    if (runs_here(cmz_cpu_at(i))) rows[count++] = cmz_cpu_at(i);
  if (!count) skip();
  return rows[turn % count];
}

static void run_case(const kernel_case *c, uint32_t turn, bool randomly, bool rewritten) {
  const char *only = getenv("CMZ_KERNEL_CASE");
  if (only && strcmp(only, c->name)) return;
  case_name = c->name;
  cpu = level(turn);
  random_schedule = randomly;
  F->random = 1000 + turn;
  F->tolerance = 1e-4;
  if (getenv("CMZ_KERNEL_VERBOSE")) print_message("  %s, %s, turn %u\n", c->name, cpu->name, turn);
  c->build();
  check_kernel(rewritten);
  again();
}

static uint32_t rounds(void) {
  const char *text = getenv("CMZ_KERNEL_ROUNDS");
  return text ? (uint32_t)strtoul(text, NULL, 10) : 1;
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

static int make_directory(void **state) {
  (void)state;
  strcpy(directory, "cmz_kernels_XXXXXX");
  return mkdtemp(directory) ? 0 : 1;
}

static int remove_directory(void **state) {
  (void)state;
  rmdir(directory);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_chosen_schedules, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_random_schedules, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_casts, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
