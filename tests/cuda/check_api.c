/* check_api.c - a compiled model for CUDA through its C interface: device tensors, a caller's
 * stream and context, capture, and what happens after each fault of the emulated driver. usage:
 * check_api MODEL.so check_api MODEL.so CODE TEXT after|lost    (with CMZ_EMULATOR_FAIL set: a run
 * fails with CODE and TEXT; then the same instance runs again, or only a new one does) check_api
 * MODEL.so none                    (no run fails, whatever the driver does) The model has one f32
 * input and one f32 output. Prints a line a check and `N passed, N failed`. */
#include "cmz.h"

#include <dlfcn.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed, failed;
static void check(int ok, const char *what) {
  if (ok) passed++;
  else failed++;
  printf("%s: %s\n", ok ? "ok" : "FAILED", what);
}

/* ---- the driver ---- */
#define DRIVER(X)                                                                                  \
  X(cuInit, (unsigned))                                                                            \
  X(cuDevicePrimaryCtxRetain, (void **, int))                                                      \
  X(cuDevicePrimaryCtxRelease_v2, (int))                                                           \
  X(cuCtxCreate_v2, (void **, unsigned, int))                                                      \
  X(cuCtxDestroy_v2, (void *))                                                                     \
  X(cuCtxPushCurrent_v2, (void *))                                                                 \
  X(cuCtxPopCurrent_v2, (void **))                                                                 \
  X(cuMemAlloc_v2, (uint64_t *, size_t))                                                           \
  X(cuMemFree_v2, (uint64_t))                                                                      \
  X(cuMemcpyHtoDAsync_v2, (uint64_t, const void *, size_t, void *))                                \
  X(cuMemcpyDtoHAsync_v2, (void *, uint64_t, size_t, void *))                                      \
  X(cuStreamCreate, (void **, unsigned))                                                           \
  X(cuStreamDestroy_v2, (void *))                                                                  \
  X(cuStreamSynchronize, (void *))                                                                 \
  X(cuStreamBeginCapture_v2, (void *, int))                                                        \
  X(cuStreamEndCapture, (void *, void **))                                                         \
  X(cuGraphInstantiateWithFlags, (void **, void *, unsigned long long))                            \
  X(cuGraphLaunch, (void *, void *))                                                               \
  X(cuGraphExecDestroy, (void *))                                                                  \
  X(cuGraphDestroy, (void *))
#define DECLARE(name, parameters) static int(*name) parameters;
DRIVER(DECLARE)

static int open_driver(void) {
  void *cuda = dlopen("libcuda.so.1", RTLD_NOW), *symbol;
  if (!cuda) return 0;
#define FIND(name, parameters)                                                                     \
  if (!(symbol = dlsym(cuda, #name))) return 0;                                                    \
  memcpy(&name, &symbol, sizeof symbol);
  DRIVER(FIND)
  return cuInit(0) == 0;
}

/* ---- the model ---- */
static const cmz_api *api;
static size_t in_bytes, out_bytes;

static cmz_tensor tensor(const cmz_port *port, void *data, uint32_t memory, size_t bytes) {
  cmz_tensor t = {
      .data = data, .memory = memory, .element = port->element, .rank = port->rank, .bytes = bytes};
  for (uint32_t d = 0; d < port->rank; d++) t.dims[d] = port->dims[d];
  return t;
}
static cmz_tensor input(void *data, uint32_t memory) {
  return tensor(&api->description->inputs[0], data, memory, in_bytes);
}
static cmz_tensor output(void *data, uint32_t memory) {
  return tensor(&api->description->outputs[0], data, memory, data ? out_bytes : 0);
}
static size_t port_bytes(const cmz_port *port) {
  size_t bytes = 4;
  for (uint32_t d = 0; d < port->rank; d++) bytes *= (size_t)port->dims[d];
  return bytes;
}

enum { INPUTS = 2 };
static float *values[INPUTS], *expected[INPUTS], *result;

static cmz_model *create(void *stream) {
  cmz_model *m;
  cmz_config config = {.struct_size = sizeof config, .stream = stream};
  int rc = api->create(&config, &m);
  if (!rc) return m;
  printf("create: %d: %s\n", rc, api->error(m));
  api->destroy(m);
  return NULL;
}

static int run_host(cmz_model *m, int which, float *to) {
  cmz_tensor in = input(values[which], CMZ_MEMORY_HOST), out = output(to, CMZ_MEMORY_HOST);
  return api->run(m, &in, &out);
}
static int host_right(cmz_model *m, int which) {
  memset(result, 0, out_bytes);
  return run_host(m, which, result) == 0 && memcmp(result, expected[which], out_bytes) == 0;
}
static int says(cmz_model *m, const char *text) {
  printf("   %s\n", api->error(m));
  regex_t pattern;
  if (regcomp(&pattern, text, REG_NOSUB)) return 0;
  int found = regexec(&pattern, api->error(m), 0, NULL, 0) == 0;
  regfree(&pattern);
  return found;
}

/* ---- device memory ---- */
static void *context;
static uint64_t take(size_t bytes) {
  uint64_t address = 0;
  cuCtxPushCurrent_v2(context);
  if (cuMemAlloc_v2(&address, bytes)) exit(3);
  cuCtxPopCurrent_v2(&context);
  return address;
}
static void put(uint64_t to, int which) {
  cuCtxPushCurrent_v2(context);
  if (cuMemcpyHtoDAsync_v2(to, values[which], in_bytes, NULL)) exit(3);
  cuCtxPopCurrent_v2(&context);
}
static int is_right(uint64_t from, int which) {
  cuCtxPushCurrent_v2(context);
  if (cuMemcpyDtoHAsync_v2(result, from, out_bytes, NULL) || cuStreamSynchronize(NULL)) exit(3);
  cuCtxPopCurrent_v2(&context);
  return memcmp(result, expected[which], out_bytes) == 0;
}
static void *at(uint64_t address) { return (void *)(uintptr_t)address; }

static int run_device(cmz_model *m, uint64_t from, uint64_t to) {
  cmz_tensor in = input(at(from), CMZ_MEMORY_DEVICE), out = output(at(to), CMZ_MEMORY_DEVICE);
  int rc = api->run(m, &in, &out);
  if (rc) printf("   %s\n", api->error(m));
  return rc;
}

static void in_common(void) {
  cmz_model *first = create(NULL), *second = create(NULL);
  check(first && second && host_right(first, 0) && host_right(second, 1), "two instances");
  if (first) api->destroy(first);
  check(second && host_right(second, 0), "the weights outlive the first");
  if (second) api->destroy(second);
}

static void device_tensors(void) {
  cmz_model *m = create(NULL);
  uint64_t in[2] = {take(in_bytes + 64), take(in_bytes)},
           out[2] = {take(out_bytes + 64), take(out_bytes)};
  put(in[0], 0);
  put(in[1], 1);
  check(run_device(m, in[0], out[0]) == 0 && is_right(out[0], 0), "input and output on the device");
  int good = 1;
  for (int i = 0; i < 6; i++)
    good &= run_device(m, in[i & 1], out[i & 1]) == 0 && is_right(out[i & 1], i & 1);
  check(good, "tensors that change from run to run");
  put(in[0] + 4, 1);
  check(run_device(m, in[0] + 4, out[0] + 4) == 0 && is_right(out[0] + 4, 1),
        "tensors that are hardly aligned");
  check(host_right(m, 0), "host tensors with the same instance");
  cmz_tensor from = input(at(in[1]), CMZ_MEMORY_DEVICE), to = output(NULL, CMZ_MEMORY_DEVICE);
  check(api->run(m, &from, &to) == 0 && to.memory == CMZ_MEMORY_DEVICE &&
            is_right((uint64_t)(uintptr_t)to.data, 1),
        "an output that stays on the device");
  to = output(NULL, CMZ_MEMORY_HOST);
  check(api->run(m, &from, &to) == 0 && to.memory == CMZ_MEMORY_HOST &&
            memcmp(to.data, expected[1], out_bytes) == 0,
        "an output in the instance's host memory");
  from = input(values[0], CMZ_MEMORY_DEVICE);
  to = output(result, CMZ_MEMORY_HOST);
  check(api->run(m, &from, &to) == CMZ_INVALID_ARGUMENT && says(m, "the device does not know it"),
        "host memory that is said to be the device's");
  from = input(at(in[1]), CMZ_MEMORY_DEVICE);
  from.bytes -= 4;
  check(api->run(m, &from, &to) == CMZ_INVALID_ARGUMENT && says(m, "needs"), "too few bytes");
  from = input(at(in[1]), CMZ_MEMORY_DEVICE);
  from.rank = api->description->inputs[0].rank;
  for (uint32_t d = 0; d < from.rank; d++) from.strides[d] = 4;
  check(api->run(m, &from, &to) == CMZ_INVALID_ARGUMENT && says(m, "strides in device memory"),
        "strides in device memory");
  check(host_right(m, 1), "and then it runs again");
  cmz_model *other = create(NULL);
  check(host_right(other, 0) && host_right(m, 1) && host_right(other, 1), "two instances in turn");
  api->destroy(other);
  api->destroy(m);
  for (int i = 0; i < 2; i++) cuMemFree_v2(in[i]), cuMemFree_v2(out[i]);
}

static void callers_stream(void *stream, const char *whose) {
  char text[128];
  cmz_model *m = create(stream);
  uint64_t in = take(in_bytes), out = take(out_bytes);
  int good = m != NULL;
  for (int i = 0; good && i < 4; i++) {
    put(in, i & 1);
    good = run_device(m, in, out) == 0 && cuStreamSynchronize(stream) == 0 && is_right(out, i & 1);
  }
  snprintf(text, sizeof text, "%s: device tensors", whose);
  check(good, text);
  snprintf(text, sizeof text, "%s: host tensors", whose);
  check(good && host_right(m, 0) && host_right(m, 1), text);
  if ((uintptr_t)stream > 2) {
    void *graph = NULL, *executable = NULL;
    put(in, 0);
    good = cuStreamBeginCapture_v2(stream, 0) == 0 && run_device(m, in, out) == 0 &&
           cuStreamEndCapture(stream, &graph) == 0 &&
           cuGraphInstantiateWithFlags(&executable, graph, 0) == 0;
    for (int i = 0; good && i < 4; i++) {
      put(in, i & 1);
      good = cuGraphLaunch(executable, stream) == 0 && cuStreamSynchronize(stream) == 0 &&
             is_right(out, i & 1);
    }
    snprintf(text, sizeof text, "%s: a run captured by the caller", whose);
    check(good, text);
    if (executable) cuGraphExecDestroy(executable);
    if (graph) cuGraphDestroy(graph);
  }
  api->destroy(m);
  cuMemFree_v2(in);
  cuMemFree_v2(out);
}

static void streams(void) {
  void *stream, *own, *popped;
  cuCtxPushCurrent_v2(context);
  if (cuStreamCreate(&stream, 1)) exit(3);
  cuCtxPopCurrent_v2(&popped);
  callers_stream(stream, "a stream of the primary context");
  cuStreamDestroy_v2(stream);
  callers_stream(at(1), "the default stream");
  void *primary = context;
  if (cuCtxCreate_v2(&own, 0, 0) || cuStreamCreate(&stream, 0)) exit(3);
  cuCtxPopCurrent_v2(&popped);
  context = own;
  callers_stream(stream, "a stream of another context");
  context = primary;
  cuStreamDestroy_v2(stream);
  cuCtxDestroy_v2(own);
}

/* ---- faults ---- */

static void after_fault(int code, const char *text, int lost) {
  cmz_model *m = create(NULL);
  int rc = 0;
  if (!m) exit(3);
  for (int i = 0; i < 10 && !rc; i++) rc = run_host(m, i & 1, result);
  check(rc == code, "the run's result");
  check(says(m, text), "the run's message");
  if (lost) {
    check(run_host(m, 0, result) == CMZ_UNAVAILABLE && says(m, "lost earlier"),
          "later runs fail at once");
    api->destroy(m);
    m = create(NULL);
    check(m && host_right(m, 0), "a new instance runs");
  }
  check(m && host_right(m, 0) && host_right(m, 1) && host_right(m, 0), "right results after it");
  api->destroy(m);
}

static void no_failure(void) {
  cmz_model *m = create(NULL);
  int good = m != NULL;
  for (int i = 0; good && i < 6; i++) good = host_right(m, i & 1);
  check(good, "right results all the same");
  api->destroy(m);
}

int main(int argc, char **argv) {
  void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
  const cmz_api *(*get)(void) = NULL;
  void *symbol = library ? dlsym(library, "cmz_model_api") : NULL;
  if (!symbol) return 2;
  memcpy(&get, &symbol, sizeof symbol);
  api = get();
  in_bytes = port_bytes(&api->description->inputs[0]);
  out_bytes = port_bytes(&api->description->outputs[0]);
  result = malloc(out_bytes);
  /* What is expected is computed in a process of its own, before any fault. */
  const char *faults = getenv("CMZ_EMULATOR_FAIL");
  for (int w = 0; w < INPUTS; w++) {
    values[w] = malloc(in_bytes);
    expected[w] = malloc(out_bytes);
    for (size_t i = 0; i < in_bytes / 4; i++)
      values[w][i] = (float)((i * 37 + (size_t)w * 11) % 101) / 101;
  }
  FILE *f = fopen("check_api.expected", faults ? "rb" : "wb");
  if (!f) return 2;
  if (faults) {
    for (int w = 0; w < INPUTS; w++)
      if (fread(expected[w], 1, out_bytes, f) != out_bytes) return 2;
  } else {
    cmz_model *m = create(NULL);
    for (int w = 0; w < INPUTS; w++)
      if (!m || run_host(m, w, expected[w]) || fwrite(expected[w], 1, out_bytes, f) != out_bytes)
        return 2;
    api->destroy(m);
  }
  fclose(f);
  if (argc == 5) {
    after_fault(atoi(argv[2]), argv[3], strcmp(argv[4], "lost") == 0);
  } else if (argc == 3) {
    no_failure();
  } else {
    if (!open_driver() || cuDevicePrimaryCtxRetain(&context, 0)) return 2;
    check(memcmp(expected[0], expected[1], out_bytes) != 0, "two inputs, two results");
    in_common();
    device_tensors();
    streams();
    cuDevicePrimaryCtxRelease_v2(0);
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
