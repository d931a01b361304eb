/* kernel_runner.h - compiles a described kernel for a CPU level under a chosen, random or given
 * schedule and runs it. In: kernels and operands in plain memory. Out: `execute`, as
 * kernel_cases.h wants it. Always holds: each operand is run at the end of readable memory and
 * again at its start, so that any access outside of it is seen; the bytes beside it must stay as
 * they are. CMZ_KERNEL_SCHEDULE=text gives the schedule. */
#ifndef CMZ_TESTS_KERNEL_RUNNER_H
#define CMZ_TESTS_KERNEL_RUNNER_H

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codegen/codegen.h"
#include "codegen/runtime_tables.h"
#include "kernel_cases.h"
#include "passes/passes.h"

static char directory[64];
static const char *case_name = "";
static int serial;
static const cmz_cpu_row *cpu;
static bool random_schedule;
static uint64_t schedule_seed; /* equal seeds give equal schedules for equal kernels */
static cmz_text described;     /* the kernel and its schedule, for messages */
/* Of the kernel that ran last. */
static cmz_schedule last_schedule;
static cmz_axis_schedule last_axes[64];

static uint32_t below(uint32_t n) {
  schedule_seed = schedule_seed * 6364136223846793005ull + 1442695040888963407ull;
  return (uint32_t)(schedule_seed >> 33) % n;
}

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

#define BESIDE 0xEE /* the bytes beside an operand */
typedef struct guarded {
  uint8_t *map, *body, *data;
  size_t map_bytes, body_bytes;
} guarded;

static guarded guard_copy(const void *data, size_t bytes, bool at_start) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), body = cmz_align_up(bytes + 64, page);
  guarded g = {.map_bytes = body + 2 * page, .body_bytes = body};
  g.map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_true(g.map != MAP_FAILED);
  g.body = g.map + page;
  assert_int_equal(mprotect(g.body, body, PROT_READ | PROT_WRITE), 0);
  memset(g.body, BESIDE, body);
  g.data = at_start ? g.body : g.body + body - bytes;
  memcpy(g.data, data, bytes);
  return g;
}

static void check_beside(const guarded *g, size_t bytes, uint32_t operand) {
  for (const uint8_t *p = g->body; p < g->body + g->body_bytes; p++)
    if ((p < g->data || p >= g->data + bytes) && *p != BESIDE)
      fail_msg("%s: a byte beside operand %u was written, %td from its start\n%s", case_name,
               operand, p - g->data, described.data);
}

/* ---- schedules ---- */

static bool is_store_axis(const cmz_kernel *k, uint16_t axis) {
  for (uint32_t s = 0; s < k->stores.count; s++) {
    const cmz_store *st = &k->stores.data[s];
    bool found = false;
    for (uint32_t i = 0; i < st->axis_count; i++) found |= st->axes[i] == axis;
    if (!found) return false;
  }
  return true;
}

static cmz_schedule random_one(const cmz_kernel *k) {
  static const uint16_t lanes[] = {1, 4, 8, 16, 2};
  cmz_schedule s = {.axis_count = k->axes.count,
                    .reduce_lanes = lanes[below(4)],
                    .reduce_unroll = (uint16_t)(1 + below(3))};
  s.axes = CMZ_NEW_ARRAY(F->m->arena, cmz_axis_schedule, k->axes.count + 1);
  const cmz_store *store = &k->stores.data[0];
  uint16_t vector = UINT16_MAX;
  if (store->axis_count)
    vector = store->axes[store->axis_count - 1 - (below(3) == 0 ? below(store->axis_count) : 0)];
  uint32_t instances = 1;
  for (uint16_t a = 0; a < k->axes.count; a++) {
    cmz_axis_schedule *x = &s.axes[a];
    *x = (cmz_axis_schedule){.unroll = 1, .lanes = 1, .order = (uint8_t)a};
    if (k->axes.data[a].kind == CMZ_AXIS_SERIAL) continue;
    if (below(2) && instances <= 4) x->unroll = (uint16_t)(1 + below(4));
    instances *= x->unroll;
    if (!is_store_axis(k, a)) continue;
    if (a == vector) x->lanes = lanes[1 + below(4)];
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

/* The function compiled last: kept, because kernels with run-time sizes run many times. */
static struct {
  cmz_hash128 hash;
  const cmz_cpu_row *cpu;
  void *handle;
  cmz_kernel_function *function;
} compiled;

static cmz_kernel_function *compile(cmz_kernel *k, const cmz_schedule *s) {
  char object[128], library[128], command[400];
  cmz_hash128 hash = cmz_kernel_hash(k, s);
  if (compiled.handle && compiled.cpu == cpu && !memcmp(&hash, &compiled.hash, sizeof hash))
    return compiled.function;
  if (compiled.handle) dlclose(compiled.handle);
  compiled.handle = NULL;
  snprintf(object, sizeof object, "%s/k%d.o", directory, serial);
  snprintf(library, sizeof library, "./%s/k%d.so", directory, serial++);
  cmz_status status = cmz_kernel_emit(F->ctx, k, s, cpu, cmz_os_at(0), "kernel", 3, NULL, 0,
                                      CMZ_OUT_OBJECT, object);
  if (status != CMZ_OK)
    fail_msg("%s for %s: %s\n%s", case_name, cpu->name, last_message(), described.data);
  snprintf(command, sizeof command, "ld.lld-22 -shared -z defs -o %s %s", library, object);
  if (system(command)) fail_msg("%s: the kernel does not link\n%s", case_name, described.data);
  compiled.handle = dlopen(library, RTLD_NOW);
  assert_non_null(compiled.handle);
  void *symbol = dlsym(compiled.handle, "kernel");
  memcpy(&compiled.function, &symbol, sizeof symbol);
  compiled.hash = hash;
  compiled.cpu = cpu;
  unlink(object);
  unlink(library);
  return compiled.function;
}

/* Runs FUNCTION on copies of OPERANDS; the results are in RESULTS. */
static void run_guarded(const cmz_kernel *k, cmz_kernel_function *function, void *const *operands,
                        const size_t *bytes, const int64_t *params, uint32_t tiles, bool at_start,
                        uint8_t *const *results) {
  guarded memory[32];
  void *moved[32];
  for (uint32_t i = 0; i < k->operands.count; i++) {
    memory[i] = guard_copy(operands[i], bytes[i], at_start);
    moved[i] = memory[i].data;
  }
  uint32_t middle = tiles / 2; /* two calls, as two threads would */
  cmz_kargs args = {moved, params};
  function(&args, middle, tiles, 1);
  function(&args, 0, middle, 0);
  for (uint32_t i = 0; i < k->operands.count; i++) {
    if (!(k->operands.data[i].access & CMZ_WRITE) && memcmp(moved[i], operands[i], bytes[i]))
      fail_msg("%s: an input was changed\n%s", case_name, described.data);
    check_beside(&memory[i], bytes[i], i);
    memcpy(results[i], moved[i], bytes[i]);
    munmap(memory[i].map, memory[i].map_bytes);
  }
}

static void execute(cmz_kernel *k, void *const *operands, const size_t *bytes,
                    const int64_t *params) {
  cmz_schedule s;
  if (random_schedule) s = random_one(k);
  else ok(cmz_schedule_choose(F->ctx, F->m->arena, k, cpu, 3, &s), "schedule");
  const char *given_schedule = getenv("CMZ_KERNEL_SCHEDULE");
  if (given_schedule) ok(cmz_schedule_parse(F->ctx, F->m->arena, given_schedule, &s), "schedule");
  last_schedule = s;
  last_schedule.axes = last_axes;
  last_schedule.axis_count = CMZ_MIN(s.axis_count, CMZ_COUNT_OF(last_axes));
  memcpy(last_axes, s.axes, last_schedule.axis_count * sizeof *last_axes);
  described = (cmz_text){.arena = F->m->arena};
  cmz_text_add(&described, "%s\nparams", cpu->name);
  for (uint32_t i = 0; i < k->param_count; i++) cmz_text_add(&described, " %" PRId64, params[i]);
  cmz_text_add(&described, "\n");
  cmz_schedule_print(&s, &described);
  cmz_kernel_print(k, &described);
  case_detail = described.data;
  cmz_kernel_function *function = compile(k, &s);
  uint8_t *results[2][32];
  for (int place = 0; place < 2; place++)
    for (uint32_t i = 0; i < k->operands.count; i++)
      results[place][i] = cmz_arena_alloc(F->m->arena, bytes[i] + 1);
  signal(SIGSEGV, crashed); /* cmocka has set its own */
  signal(SIGBUS, crashed);
  signal(SIGFPE, crashed);
  signal(SIGILL, crashed);
  uint32_t tiles = tile_count(k, &s, params);
  for (int place = 0; place < 2; place++)
    run_guarded(k, function, operands, bytes, params, tiles, place != 0, results[place]);
  for (uint32_t i = 0; i < k->operands.count; i++) {
    if (memcmp(results[0][i], results[1][i], bytes[i]))
      fail_msg("%s: the result depends on where operand %u lies\n%s", case_name, i, described.data);
    memcpy(operands[i], results[0][i], bytes[i]);
  }
}

/* ---- levels ---- */

static bool runs_here(const cmz_cpu_row *row) {
  if (!strcmp(row->name, "x86-64-v4"))
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (!strcmp(row->name, "x86-64-v3"))
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return !strcmp(row->name, "x86-64-v2") || !strcmp(row->name, "x86-64");
}

/* The TURN-th of the levels that run here and of this machine's own, cyclically. */
static const cmz_cpu_row *level(uint32_t turn) {
  const cmz_cpu_row *rows[16];
  uint32_t count = 0;
  cmz_target native;
  if (cmz_target_parse(F->ctx, NULL, "native", NULL, &native) == CMZ_OK)
    rows[count++] = native.levels[0];
  for (uint32_t i = 0; cmz_cpu_at(i) && count < 16; i++)
    if (runs_here(cmz_cpu_at(i))) rows[count++] = cmz_cpu_at(i);
  if (!count) skip();
  return rows[turn % count];
}

static uint32_t rounds(void) {
  const char *text = getenv("CMZ_KERNEL_ROUNDS");
  return text ? (uint32_t)strtoul(text, NULL, 10) : 1;
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

#endif
