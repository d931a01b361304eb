/* exercise.c - loads a compiled model and tries what a caller may do right and wrong.
 *
 * usage: exercise MODEL.so
 * In: any model whose first input has a static or symbolic shape of numbers. Out: one line a check,
 * `N passed, N failed`; exit status 0 when none failed. */
#define _GNU_SOURCE
#include <cmz.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_PORTS = 64 };

static int passed, failed;

static void check(int ok, const char *what) {
  printf("%s: %s\n", ok ? "ok" : "FAILED", what);
  if (ok) passed++;
  else failed++;
}

static const cmz_api *api;

static size_t element_bytes(uint32_t element) {
  static const unsigned char bytes[] = {0, 4, 1, 1, 2, 2, 4, 8, 8, 1, 2, 8, 4, 8};
  return element < sizeof bytes ? bytes[element] : 4;
}

/* Tensors for every input: symbolic dims at the least value of at least LEAST; small numbers as
 * content. */
static void make_inputs(cmz_tensor *inputs, int64_t least) {
  const cmz_description *d = api->description;
  for (uint32_t i = 0; i < d->input_count; i++) {
    cmz_tensor t = {.element = d->inputs[i].element, .rank = d->inputs[i].rank};
    t.bytes = element_bytes(t.element);
    for (uint32_t k = 0; k < t.rank; k++) {
      int64_t dim = d->inputs[i].dims[k];
      if (dim < 0) dim = d->dims[-1 - dim].low > least ? d->dims[-1 - dim].low : least;
      t.dims[k] = dim;
      t.bytes *= (size_t)dim;
    }
    t.data = calloc(t.bytes + 1, 1);
    for (size_t k = 0; t.element == CMZ_ELEMENT_F32 && k < t.bytes / 4; k++)
      ((float *)t.data)[k] = (float)(k % 17) / 17;
    inputs[i] = t;
  }
}

static cmz_model *make(uint32_t threads) {
  cmz_config config = {.struct_size = sizeof config, .threads = threads};
  cmz_model *m = NULL;
  if (api->create(&config, &m)) {
    printf("FAILED: create: %s\n", api->error(m));
    exit(1);
  }
  return m;
}

static int same_bytes(const cmz_tensor *a, const cmz_tensor *b) {
  return a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
}

/* ---- wrong inputs ---- */

static void expect_error(cmz_model *m, const cmz_tensor *inputs, const char *what) {
  cmz_tensor outputs[MAX_PORTS] = {0};
  int rc = api->run(m, inputs, outputs);
  const char *message = api->error(m);
  printf("   (%s)\n", message);
  check(rc == CMZ_INVALID_ARGUMENT && strstr(message, api->description->inputs[0].name) != NULL,
        what);
}

static void wrong_inputs(cmz_model *m, const cmz_tensor *good) {
  cmz_tensor bad[MAX_PORTS];
  uint32_t count = api->description->input_count;
#define TRY(change, what)                                                                          \
  do {                                                                                             \
    memcpy(bad, good, count * sizeof *bad);                                                        \
    change;                                                                                        \
    expect_error(m, bad, what);                                                                    \
  } while (0)
  TRY(bad[0].element = bad[0].element == CMZ_ELEMENT_I32 ? CMZ_ELEMENT_F64 : CMZ_ELEMENT_I32,
      "a wrong type is refused");
  TRY(bad[0].rank++, "a wrong rank is refused");
  TRY(bad[0].data = NULL, "a missing input is refused");
  TRY(bad[0].bytes--, "a tensor that is too short is refused");
  TRY(bad[0].memory = CMZ_MEMORY_DEVICE, "device memory is refused");
  if (good[0].rank) TRY(bad[0].dims[good[0].rank - 1] = -1, "a negative dim is refused");
  for (uint32_t k = 0; k < good[0].rank; k++) {
    if (api->description->inputs[0].dims[k] < 0) continue;
    TRY((bad[0].dims[k]++, bad[0].bytes *= 2), "a wrong dim is refused");
    break;
  }
#undef TRY
  cmz_tensor outputs[MAX_PORTS] = {0};
  check(api->run(m, good, outputs) == 0 && api->error(m)[0] == 0, "and the instance still runs");
}

/* ---- strides, memory of the caller ---- */

static void strided_input(cmz_model *m, const cmz_tensor *good, const cmz_tensor *want) {
  cmz_tensor inputs[MAX_PORTS], outputs[MAX_PORTS] = {0};
  memcpy(inputs, good, api->description->input_count * sizeof *inputs);
  size_t width = element_bytes(good[0].element);
  char *wide = calloc(good[0].bytes * 2 + 1, 1);
  for (size_t i = 0; i < good[0].bytes / width; i++)
    memcpy(wide + 2 * i * width, (char *)good[0].data + i * width, width);
  int64_t stride = 2 * (int64_t)width;
  for (uint32_t k = good[0].rank; k-- > 0;) {
    inputs[0].strides[k] = stride;
    stride *= inputs[0].dims[k];
  }
  inputs[0].data = wide;
  inputs[0].bytes *= 2;
  check(api->run(m, inputs, outputs) == 0 && same_bytes(&outputs[0], &want[0]),
        "a strided input gives the same result");
  free(wide);
}

static void own_output(cmz_model *m, const cmz_tensor *inputs, const cmz_tensor *want) {
  cmz_tensor outputs[MAX_PORTS] = {0};
  outputs[0].data = malloc(want[0].bytes + 1);
  outputs[0].bytes = want[0].bytes;
  void *mine = outputs[0].data;
  int rc = api->run(m, inputs, outputs);
  check(rc == 0 && outputs[0].data == mine && same_bytes(&outputs[0], &want[0]),
        "the caller's output memory is used");
  memset(outputs, 0, sizeof outputs);
  outputs[0].data = mine;
  outputs[0].bytes = want[0].bytes ? want[0].bytes - 1 : 0;
  rc = api->run(m, inputs, outputs);
  check(rc == CMZ_INVALID_ARGUMENT &&
            strstr(api->error(m), api->description->outputs[0].name) != NULL,
        "an output that is too short is refused");
  free(mine);
}

/* ---- several instances ---- */

typedef struct runner {
  const cmz_tensor *inputs, *want;
  int same;
} runner;

static void *run_many(void *argument) {
  runner *r = argument;
  cmz_model *m = make(1);
  r->same = 1;
  for (int i = 0; i < 5; i++) {
    cmz_tensor outputs[MAX_PORTS] = {0};
    r->same &= api->run(m, r->inputs, outputs) == 0 && same_bytes(&outputs[0], &r->want[0]);
  }
  api->destroy(m);
  return NULL;
}

static void many_instances(const cmz_tensor *inputs, const cmz_tensor *want) {
  pthread_t threads[3];
  runner runners[3];
  for (int i = 0; i < 3; i++) {
    runners[i] = (runner){inputs, want, 0};
    pthread_create(&threads[i], NULL, run_many, &runners[i]);
  }
  int same = 1;
  for (int i = 0; i < 3; i++) {
    pthread_join(threads[i], NULL);
    same &= runners[i].same;
  }
  check(same, "three instances run at once and agree");
}

static void *take(void *context, size_t bytes, size_t alignment) {
  *(long *)context += (long)bytes;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void give(void *context, void *memory, size_t bytes) {
  *(long *)context -= (long)bytes;
  free(memory);
}

static void own_allocator(const cmz_tensor *inputs, const cmz_tensor *want) {
  long balance = 0;
  cmz_config config = {.struct_size = sizeof config,
                       .allocate = take,
                       .release = give,
                       .allocate_context = &balance};
  cmz_model *m;
  cmz_tensor outputs[MAX_PORTS] = {0};
  int ok = api->create(&config, &m) == 0 && api->run(m, inputs, outputs) == 0 &&
           same_bytes(&outputs[0], &want[0]);
  ok = ok && balance > 0 && (uint64_t)balance == api->memory_bytes(m);
  api->destroy(m);
  check(ok && balance == 0, "all memory comes from the caller's allocator and goes back");
}

/* ---- threads of the caller ---- */

static void in_order(void *context, uint32_t count, void (*body)(void *, uint32_t), void *user) {
  ++*(int *)context;
  for (uint32_t i = count; i-- > 0;) body(user, i);
}

static void parallel(const cmz_tensor *inputs, const cmz_tensor *want) {
  int calls = 0;
  cmz_config config = {.struct_size = sizeof config,
                       .parallel_for = in_order,
                       .parallel_context = &calls,
                       .parallel_count = 3};
  cmz_model *m;
  cmz_tensor outputs[MAX_PORTS] = {0};
  int ok = api->create(&config, &m) == 0 && api->run(m, inputs, outputs) == 0 &&
           same_bytes(&outputs[0], &want[0]);
  api->destroy(m);
  check(ok, "the caller's parallel_for gives the same result");
  for (uint32_t threads = 2; threads <= 4; threads++) {
    m = make(threads);
    ok = 1;
    for (int i = 0; i < 20; i++) {
      memset(outputs, 0, sizeof outputs);
      ok &= api->run(m, inputs, outputs) == 0 && same_bytes(&outputs[0], &want[0]);
    }
    api->destroy(m);
    check(ok, "more threads give the same result");
  }
}

/* ---- figures ---- */

static void no_allocation(cmz_model *m, const cmz_tensor *inputs) {
  unsigned long (*allocations)(void) = NULL;
  *(void **)&allocations = dlsym(RTLD_DEFAULT, "allocation_count");
  if (!allocations || api->description->dim_count) return;
  cmz_tensor outputs[MAX_PORTS] = {0};
  api->run(m, inputs, outputs);
  unsigned long before = allocations();
  for (int i = 0; i < 10; i++) api->run(m, inputs, outputs);
  check(allocations() == before, "run of a static model allocates nothing");
}

static void profile_sums(cmz_model *m, const cmz_tensor *inputs) {
  cmz_profile_row rows[1024];
  cmz_tensor outputs[MAX_PORTS] = {0};
  struct timespec a, b;
  double whole = 0, sum = 0;
  api->profile(m, 1);
  for (int i = 0; i < 50; i++) {
    memset(outputs, 0, sizeof outputs);
    clock_gettime(CLOCK_MONOTONIC, &a);
    api->run(m, inputs, outputs);
    clock_gettime(CLOCK_MONOTONIC, &b);
    whole += (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
  }
  uint32_t count = api->profile_rows(m, rows, 1024);
  for (uint32_t i = 0; i < count && i < 1024; i++) sum += (double)rows[i].nanoseconds;
  api->profile(m, 0);
  check(sum <= whole && sum >= 0.97 * whole, "the profile sums to the run within 3 %");
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  const cmz_api *(*entry)(void) = NULL;
  if (library) *(void **)&entry = dlsym(library, "cmz_model_api");
  if (!entry) {
    printf("FAILED: %s\n0 passed, 1 failed\n", dlerror());
    return 1;
  }
  api = entry();
  check(api->abi_version == CMZ_ABI_VERSION && api->struct_size == sizeof(cmz_api),
        "the table is this version's");
  cmz_model *m = make(1);
  static cmz_tensor inputs[MAX_PORTS], outputs[MAX_PORTS];
  make_inputs(inputs, 64);
  check(api->run(m, inputs, outputs) == 0, "a run with zeroed outputs");
  printf("   (%s)\n", api->error(m));
  static cmz_tensor want[MAX_PORTS];
  for (uint32_t i = 0; i < api->description->output_count;
       i++) { /* the instance's own memory changes with its next run */
    want[i] = outputs[i];
    want[i].data = malloc(outputs[i].bytes + 1);
    memcpy(want[i].data, outputs[i].data, outputs[i].bytes);
  }
  wrong_inputs(m, inputs);
  strided_input(m, inputs, want);
  own_output(m, inputs, want);
  no_allocation(m, inputs);
  profile_sums(m, inputs);
  many_instances(inputs, want);
  own_allocator(inputs, want);
  parallel(inputs, want);
  if (api->description->dim_count) {
    cmz_tensor other[MAX_PORTS];
    make_inputs(other, 96);
    memset(outputs, 0, sizeof outputs);
    check(api->run(m, other, outputs) == 0, "other dims run in the same instance");
    memset(outputs, 0, sizeof outputs);
    check(api->run(m, inputs, outputs) == 0 && same_bytes(&outputs[0], &want[0]),
          "and the first ones again");
  }
  api->destroy(m);
  api->destroy(NULL);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
