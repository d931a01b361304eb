/* libcuda.c - a CUDA driver without a GPU, for tests: the functions that compiled models use, on
 * top of translate.c and the system's C compiler. In: PTX. Out: the kernels' results, computed
 * on the CPU by group.c. Built as libcuda.so.1 and found through LD_LIBRARY_PATH.
 * Environment: CMZ_EMULATOR_CAPABILITY (90), compute capability times ten; CMZ_EMULATOR_MEMORY,
 * bytes that the device has; CMZ_EMULATOR_NONE, no device; CMZ_EMULATOR_CC, the compiler (gcc).
 * Always holds: device memory lies between pages that nobody may touch and is filled with a pattern
 * when taken; a wrong access ends the launch, is printed, and makes every later call fail as a lost
 * device does. */
#define _GNU_SOURCE
#include "emulator.h"
#include "group.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NO_DEVICE = 100,
  INVALID_IMAGE = 200,
  NOT_FOUND = 500,
  ILLEGAL_ADDRESS = 700,
  PAGE = 4096
};

typedef struct allocation {
  uint8_t *data, *map;
  size_t bytes, map_bytes;
} allocation;

static allocation *allocations;
static size_t allocation_count, allocation_capacity, bytes_in_use;
static int lost; /* an error that stays, as on a device */
static const char *kernel_name = "", *kernel_text = "";

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}

/* ---- memory ---- */

EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  if (lost) return lost;
  if (bytes == 0) return INVALID_VALUE;
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
  (void)stream;
  if (lost || !find(from, bytes)) return lost ? lost : INVALID_VALUE;
  memcpy(to, (void *)(uintptr_t)from, bytes);
  return SUCCESS;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  (void)stream;
  if (lost || !find(to, bytes)) return lost ? lost : INVALID_VALUE;
  memcpy((void *)(uintptr_t)to, from, bytes);
  return SUCCESS;
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
  (void)stream;
  if (lost || !find(from, bytes) || !find(to, bytes)) return lost ? lost : INVALID_VALUE;
  memmove((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
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
  lost = ILLEGAL_ADDRESS;
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
typedef struct function {
  void (*run)(struct thread *, void **);
  const emulator_kernel *kernel;
  const char *text;
  uint32_t most_dynamic;
  char name[256];
} function;

EXPORT int cuModuleLoadData(void **out, const void *image) {
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

EXPORT int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, void *stream, void **params, void **extra) {
  function *fn = f;
  (void)stream;
  (void)extra;
  if (lost) return lost;
  if (!gx || !gy || !gz || !bx || !by || !bz || (uint64_t)bx * by * bz > MOST_THREADS ||
      gy > 65535 || gz > 65535)
    return INVALID_VALUE;
  if (shared + fn->kernel->shared_bytes > SHARED_WITHOUT_ASKING && shared > fn->most_dynamic)
    return INVALID_VALUE;
  kernel_name = fn->name;
  kernel_text = fn->text;
  for (unsigned z = 0; z < gz; z++)
    for (unsigned y = 0; y < gy; y++)
      for (unsigned x = 0; x < gx; x++)
        if (!emulator_run_block((uint32_t[3]){bx, by, bz}, (uint32_t[3]){x, y, z},
                                (uint32_t[3]){gx, gy, gz}, fn->kernel, shared, fn->run, params))
          return SUCCESS; /* the error shows up later, as on a device */
  return SUCCESS;
}

/* ---- the rest ---- */

static int current;
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
  *context = &current;
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  return SUCCESS;
}
EXPORT int cuCtxPushCurrent_v2(void *context) {
  current++;
  return context == &current ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuCtxPopCurrent_v2(void **context) {
  *context = &current;
  return current-- > 0 ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuStreamCreate(void **stream, unsigned flags) {
  (void)flags;
  *stream = calloc(1, 8);
  return SUCCESS;
}
EXPORT int cuStreamDestroy_v2(void *stream) {
  free(stream);
  return SUCCESS;
}
EXPORT int cuStreamSynchronize(void *stream) {
  (void)stream;
  return lost;
}
EXPORT int cuGetErrorName(int code, const char **name) {
  static const struct {
    int code;
    const char *name;
  } rows[] = {
      {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"}, {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
      {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},         {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
      {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},         {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"}};
  *name = "CUDA_ERROR_UNKNOWN";
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    if (rows[i].code == code) *name = rows[i].name;
  return SUCCESS;
}
