/* libcuda.c - a CUDA driver without a GPU, for tests: the functions that compiled models use, on
 * top of translate.c and the system's C compiler. In: PTX. Out: the kernels' results, computed
 * on the CPU by group.c. Built as libcuda.so.1 and found through LD_LIBRARY_PATH.
 * Environment: CMZ_EMULATOR_CAPABILITY (90), compute capability times ten; CMZ_EMULATOR_MEMORY,
 * bytes that the device has; CMZ_EMULATOR_NONE, no device; CMZ_EMULATOR_CC, the compiler (gcc);
 * CMZ_EMULATOR_FAIL=KIND:N,…, the Nth call of a kind fails (fault_rows below); CMZ_EMULATOR_CALLS,
 * a file that gets `KIND COUNT` lines at the end.
 * Always holds: device memory lies between pages that nobody may touch and is filled with a pattern
 * when taken; a wrong access ends the launch, is printed, and makes every later call fail as a lost
 * device does, until its context has gone; memory that a context leaves behind is printed. */
#define _GNU_SOURCE
#include "driver.h"
#include "emulator.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct allocation {
  uint8_t *data, *map;
  size_t bytes, map_bytes;
} allocation;

static allocation *allocations;
static size_t allocation_count, allocation_capacity, bytes_in_use;
int emulator_lost;
static const char *kernel_name = "", *kernel_text = "";

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}

/* ---- contexts ---- */

static char primary, created; /* the two contexts: the primary one, and what cuCtxCreate gives */
static int retained, created_count;
static void *stack[64]; /* of current contexts */
static int depth;
void *emulator_context(void) { return depth ? stack[depth - 1] : NULL; }

/* ---- faults ---- */

static struct fault {
  const char *name;
  int code;
  bool stays; /* the device is lost */
  long calls;
} faults[] = {{"context", DEVICE_UNAVAILABLE, false, 0}, {"module", UNSUPPORTED_PTX, false, 0},
              {"function", NOT_FOUND, false, 0},         {"stream", OUT_OF_MEMORY, false, 0},
              {"alloc", OUT_OF_MEMORY, false, 0},        {"write", UNCORRECTABLE, true, 0},
              {"read", UNCORRECTABLE, true, 0},          {"start", OUT_OF_RESOURCES, false, 0},
              {"launch", LAUNCH_FAILED, true, 0},        {"sync", LAUNCH_TIMEOUT, true, 0},
              {"graph", OUT_OF_MEMORY, false, 0},        {"instantiate", OUT_OF_MEMORY, false, 0},
              {"graph-launch", OUT_OF_MEMORY, false, 0}, {"update", UPDATE_FAILURE, false, 0}};

int emulator_fault(const char *name) {
  const char *list = getenv("CMZ_EMULATOR_FAIL");
  struct fault *row = faults;
  while (strcmp(row->name, name) != 0) row++;
  row->calls++;
  for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
    size_t length = strlen(name);
    if (strncmp(at, name, length) != 0 || at[length] != ':' || atol(at + length + 1) != row->calls)
      continue;
    if (row->stays) emulator_lost = row->code;
    return row->code;
  }
  return SUCCESS;
}

__attribute__((destructor)) static void print_calls(void) {
  const char *path = getenv("CMZ_EMULATOR_CALLS");
  FILE *f = path ? fopen(path, "w") : NULL;
  for (size_t i = 0; f && i < sizeof faults / sizeof faults[0]; i++)
    fprintf(f, "%s %ld\n", faults[i].name, faults[i].calls);
  if (f) fclose(f);
}

/* ---- memory ---- */

EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  /* Programs that never make a context, as tests of single kernels, need none. */
  bool outside = !emulator_context() && (retained || created_count);
  if (emulator_lost || outside) return emulator_lost ? emulator_lost : INVALID_CONTEXT;
  if (bytes == 0) return INVALID_VALUE;
  int code = emulator_fault("alloc");
  if (code) return code;
  if (bytes_in_use + bytes > (size_t)setting("CMZ_EMULATOR_MEMORY", 1L << 40)) return OUT_OF_MEMORY;
  size_t room = (bytes + 255) / 256 * 256, map_bytes = (room + PAGE - 1) / PAGE * PAGE + 2 * PAGE;
  uint8_t *map = mmap(NULL, map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED || mprotect(map + PAGE, map_bytes - 2 * PAGE, PROT_READ | PROT_WRITE))
    return OUT_OF_MEMORY;
  if (allocation_count == allocation_capacity) {
    allocation_capacity = 2 * allocation_capacity + 64;
    allocations = realloc(allocations, allocation_capacity * sizeof *allocations);
    if (!allocations) return OUT_OF_MEMORY;
  }
  uint8_t *data = map + PAGE;
  memset(data, 0xa5, map_bytes - 2 * PAGE);
  allocations[allocation_count++] = (allocation){data, map, bytes, map_bytes};
  bytes_in_use += bytes;
  *address = (uint64_t)(uintptr_t)data;
  return SUCCESS;
}

static allocation *find(uint64_t address, size_t bytes) {
  uint8_t *p = (uint8_t *)(uintptr_t)address;
  for (size_t i = 0; i < allocation_count; i++)
    if (p >= allocations[i].data && p + bytes <= allocations[i].data + allocations[i].bytes)
      return &allocations[i];
  return NULL;
}

EXPORT int cuMemFree_v2(uint64_t address) {
  allocation *a = find(address, 1);
  if (!a || (uint64_t)(uintptr_t)a->data != address) return INVALID_VALUE;
  bytes_in_use -= a->bytes;
  munmap(a->map, a->map_bytes);
  *a = allocations[--allocation_count];
  return SUCCESS;
}

EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  if (emulator_captured(stream)) return CAPTURE_UNSUPPORTED;
  int code = emulator_lost ? emulator_lost : emulator_fault("read");
  if (code || !find(from, bytes)) return code ? code : INVALID_VALUE;
  memcpy(to, (void *)(uintptr_t)from, bytes);
  return SUCCESS;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  if (emulator_captured(stream)) return CAPTURE_UNSUPPORTED;
  int code = emulator_lost ? emulator_lost : emulator_fault("write");
  if (code || !find(to, bytes)) return code ? code : INVALID_VALUE;
  memcpy((void *)(uintptr_t)to, from, bytes);
  return SUCCESS;
}
int emulator_copy(uint64_t to, uint64_t from, size_t bytes) {
  if (emulator_lost || !find(from, bytes) || !find(to, bytes))
    return emulator_lost ? emulator_lost : INVALID_VALUE;
  memmove((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
  return SUCCESS;
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
  struct graph *captured = emulator_captured(stream);
  return captured ? emulator_capture_copy(captured, to, from, bytes)
                  : emulator_copy(to, from, bytes);
}
EXPORT int cuPointerGetAttribute(void *value, int attribute, uint64_t address) {
  enum { MEMORY_TYPE = 2, DEVICE = 2 };
  if (attribute != MEMORY_TYPE || !find(address, 1)) return INVALID_VALUE;
  *(uint32_t *)value = DEVICE;
  return SUCCESS;
}

/* kernel, line and text of the instruction, thread, what */
void emulator_report(struct thread *t, uint32_t line, const char *message) {
  const char *at = kernel_text;
  for (uint32_t i = 1; i < line && at; i++) at = (at = strchr(at, '\n')) ? at + 1 : NULL;
  at = at ? at + strspn(at, " \t") : "";
  fprintf(stderr, "emulator: %s: line %u: %.*s: thread %u,%u,%u of group %u,%u,%u: %s\n",
          kernel_name, line, (int)strcspn(at, "\n"), at, t->tid[0], t->tid[1], t->tid[2],
          t->ctaid[0], t->ctaid[1], t->ctaid[2], message);
  emulator_lost = ILLEGAL_ADDRESS;
}

EXPORT uint8_t *emulator_access_slow(struct thread *t, uint64_t address, uint32_t bytes, int store,
                                     const char *space, uint32_t line) {
  uint8_t *p = (uint8_t *)(uintptr_t)address;
  const char *what = address % bytes ? "misaligned" : NULL;
  if (!what && p >= t->local && p + bytes <= t->local + t->local_bytes) return p;
  if (!what && strcmp(space, "const") == 0) return p;
  if (strcmp(space, "generic") == 0 && address - t->window < emulator_group.shared_bytes)
    return emulator_shared(t, address - t->window, bytes, store, line);
  if (!what) {
    const allocation *a = find(address, bytes);
    if (a) {
      t->low = a->data;
      t->high = a->data + a->bytes;
      return p;
    }
    what = "out of bounds";
  }
  static const char *const names[] = {"load", "store", "atomic"};
  emulator_fail(t, line, "%s %s of %u bytes at %#llx (%s)", what, names[store], bytes,
                (unsigned long long)address, space);
}
EXPORT _Noreturn void emulator_trap(struct thread *t, uint32_t line) {
  emulator_fail(t, line, "trap");
}

/* ---- modules ---- */

static int compile(const char *source, const char *library) {
  const char *cc = getenv("CMZ_EMULATOR_CC");
  pid_t child = fork();
  if (child == 0) {
    unsetenv("LD_LIBRARY_PATH");
    unsetenv("LD_PRELOAD");
    execlp(cc ? cc : "gcc", "gcc", "-O1", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-mf16c",
           "-fno-strict-aliasing", "-mfma", "-I" CMZ_EMULATOR_ABI, "-o", library, "-x", "c", source,
           "-lm", (char *)NULL);
    _exit(127);
  }
  int status;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

typedef struct module {
  void *library;
  char *text;
} module;
EXPORT int cuModuleLoadData(void **out, const void *image) {
  int code = emulator_lost ? emulator_lost : emulator_fault("module");
  if (code) return code;
  char source[] = "/tmp/cmz_emulator_XXXXXX", library[64], error[1024] = "";
  int fd = mkstemp(source);
  if (fd < 0) return OUT_OF_MEMORY;
  FILE *f = fdopen(fd, "w");
  int ok = cmz_emulator_translate(image, f, error, sizeof error);
  ok = fclose(f) == 0 && ok;
  if (!ok) fprintf(stderr, "emulator: cannot translate: %s\n", error);
  snprintf(library, sizeof library, "%s.so", source);
  ok = ok && compile(source, library);
  module *m = calloc(1, sizeof *m);
  Dl_info self; /* the module calls back: make this library's symbols visible to it */
  if (dladdr((void *)(uintptr_t)&cuMemAlloc_v2, &self))
    dlopen(self.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
  if (ok) m->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (ok && !m->library) fprintf(stderr, "emulator: %s\n", dlerror());
  if (!getenv("CMZ_EMULATOR_KEEP")) unlink(source);
  unlink(library);
  m->text = strdup(image);
  *out = m->library ? m : NULL;
  return m->library ? SUCCESS : INVALID_IMAGE;
}
EXPORT int cuModuleUnload(void *m) {
  dlclose(((module *)m)->library);
  free(m);
  return SUCCESS;
}
EXPORT int cuModuleGetFunction(void **out, void *m, const char *name) {
  int code = emulator_fault("function");
  if (code) return code;
  function *f = calloc(1, sizeof *f); /* lives as long as the process, like little else here */
  snprintf(f->name, sizeof f->name, "%s", name);
  void *symbol = dlsym(((module *)m)->library, name);
  memcpy(&f->run, &symbol, sizeof symbol);
  char kernel[sizeof f->name + 32];
  snprintf(kernel, sizeof kernel, "emulator_kernel_%s", name);
  f->kernel = dlsym(((module *)m)->library, kernel);
  f->text = ((module *)m)->text;
  *out = f;
  return symbol ? SUCCESS : NOT_FOUND;
}

enum { DYNAMIC_SHARED_ATTRIBUTE = 8, SHARED_WITHOUT_ASKING = 48 * 1024 };
static uint32_t most_shared(void) { /* a block's most, by compute capability (CUDA C guide) */
  long capability = setting("CMZ_EMULATOR_CAPABILITY", 90);
  return capability >= 90 ? 227 * 1024 : capability == 80 ? 163 * 1024 : 99 * 1024;
}
EXPORT int cuFuncSetAttribute(void *f, int attribute, int value) {
  function *fn = f;
  if (attribute != DYNAMIC_SHARED_ATTRIBUTE) return SUCCESS;
  if (value < 0 || (uint32_t)value + fn->kernel->shared_bytes > most_shared()) return INVALID_VALUE;
  fn->most_dynamic = (uint32_t)value;
  return SUCCESS;
}

int emulator_launch(const kernel_node *k, void **params) {
  function *fn = k->function;
  const unsigned *grid = k->grid, *block = k->block;
  if (emulator_lost) return emulator_lost;
  if (!grid[0] || !grid[1] || !grid[2] || !block[0] || !block[1] || !block[2] ||
      (uint64_t)block[0] * block[1] * block[2] > MOST_THREADS || grid[1] > 65535 || grid[2] > 65535)
    return INVALID_VALUE;
  if (k->shared + fn->kernel->shared_bytes > SHARED_WITHOUT_ASKING && k->shared > fn->most_dynamic)
    return INVALID_VALUE;
  if (emulator_fault("launch")) return SUCCESS; /* shows up later, as on a device */
  kernel_name = fn->name;
  kernel_text = fn->text;
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++)
        if (!emulator_run_block(block, (uint32_t[3]){x, y, z}, grid, fn->kernel, k->shared, fn->run,
                                params))
          return SUCCESS; /* so does this error */
  return SUCCESS;
}
EXPORT int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, void *stream, void **params, void **extra) {
  if (emulator_lost) return emulator_lost;
  kernel_node kernel = {f, {gx, gy, gz}, {bx, by, bz}, shared, params, extra};
  struct graph *captured = emulator_captured(stream);
  int code = emulator_fault("start");
  if (code) return code;
  return captured ? emulator_capture_kernel(captured, &kernel) : emulator_launch(&kernel, params);
}

/* ---- the rest ---- */

EXPORT int cuInit(unsigned flags) {
  return flags ? INVALID_VALUE : getenv("CMZ_EMULATOR_NONE") ? NO_DEVICE : SUCCESS;
}
EXPORT int cuDeviceGetCount(int *count) {
  *count = 1;
  return SUCCESS;
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
  long capability = setting("CMZ_EMULATOR_CAPABILITY", 90);
  (void)device;
  if (attribute != 75 && attribute != 76) return INVALID_VALUE;
  *value = (int)(attribute == 75 ? capability / 10 : capability % 10);
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device;
  int code = emulator_fault("context");
  if (code) return code;
  retained++;
  *context = &primary;
  return SUCCESS;
}
static void context_gone(void) {
  if (retained || created_count) return;
  if (allocation_count)
    fprintf(stderr, "emulator: %zu bytes in %zu allocations were not given back\n", bytes_in_use,
            allocation_count);
  emulator_lost = 0;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  if (--retained == 0) context_gone();
  return SUCCESS;
}
EXPORT int cuCtxPushCurrent_v2(void *context) {
  bool lives = context == &primary ? retained : context == &created ? created_count : false;
  if (!lives || depth == sizeof stack / sizeof stack[0]) return INVALID_CONTEXT;
  stack[depth++] = context;
  return SUCCESS;
}
EXPORT int cuCtxPopCurrent_v2(void **context) {
  *context = emulator_context();
  if (!depth) return INVALID_CONTEXT;
  depth--;
  return SUCCESS;
}
EXPORT int cuCtxCreate_v2(void **context, unsigned flags, int device) {
  (void)flags, (void)device;
  created_count++;
  *context = &created;
  return cuCtxPushCurrent_v2(&created);
}
EXPORT int cuCtxDestroy_v2(void *context) {
  if (emulator_context() == context) depth--;
  if (--created_count == 0) context_gone();
  return SUCCESS;
}
EXPORT int cuCtxGetDevice(int *device) {
  *device = 0;
  return depth ? SUCCESS : INVALID_CONTEXT;
}
EXPORT int cuGetErrorName(int code, const char **name) {
  static const struct {
    int code;
    const char *name;
  } rows[] = {{INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
              {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
              {DEVICE_UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE"},
              {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
              {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
              {UNCORRECTABLE, "CUDA_ERROR_ECC_UNCORRECTABLE"},
              {UNSUPPORTED_PTX, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
              {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
              {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
              {OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
              {LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT"},
              {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
              {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
              {UPDATE_FAILURE, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"}};
  *name = "CUDA_ERROR_UNKNOWN";
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    if (rows[i].code == code) *name = rows[i].name;
  return SUCCESS;
}
