/* cuda.c - the device driver over NVIDIA's driver API (CUDA Driver API reference), opened at run
 * time. In: PTX in the program. Out: kernels queued on one stream, the caller's when there is one.
 * Always holds: nothing is linked against; the primary context is current only during a call, and
 * what was current before is so again after it. */
#include "device.h"

typedef int cu_result;
typedef uint64_t cu_address;

/* X(member, exported name, parameters) */
#define CUDA_FUNCTIONS(X)                                                                          \
  X(initialise, "cuInit", (unsigned flags))                                                        \
  X(device_get, "cuDeviceGet", (int *device, int ordinal))                                         \
  X(device_count, "cuDeviceGetCount", (int *count))                                                \
  X(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, int device))             \
  X(context_retain, "cuDevicePrimaryCtxRetain", (void **context, int device))                      \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", (int device))                                 \
  X(context_push, "cuCtxPushCurrent_v2", (void *context))                                          \
  X(context_pop, "cuCtxPopCurrent_v2", (void **context))                                           \
  X(module_load, "cuModuleLoadData", (void **module, const void *image))                           \
  X(module_unload, "cuModuleUnload", (void *module))                                               \
  X(module_function, "cuModuleGetFunction", (void **function, void *module, const char *name))     \
  X(memory_take, "cuMemAlloc_v2", (cu_address * address, size_t bytes))                            \
  X(memory_give, "cuMemFree_v2", (cu_address address))                                             \
  X(read, "cuMemcpyDtoHAsync_v2", (void *to, cu_address from, size_t bytes, void *stream))         \
  X(write, "cuMemcpyHtoDAsync_v2", (cu_address to, const void *from, size_t bytes, void *stream))  \
  X(copy, "cuMemcpyDtoDAsync_v2", (cu_address to, cu_address from, size_t bytes, void *stream))    \
  X(stream_create, "cuStreamCreate", (void **stream, unsigned flags))                              \
  X(stream_destroy, "cuStreamDestroy_v2", (void *stream))                                          \
  X(stream_wait, "cuStreamSynchronize", (void *stream))                                            \
  X(launch, "cuLaunchKernel",                                                                      \
    (void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,          \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, void *stream, void **parameters,   \
     void **extra))                                                                                \
  X(error_name, "cuGetErrorName", (cu_result code, const char **name))

enum {
  CUDA_OUT_OF_MEMORY = 2,
  CAPABILITY_MAJOR = 75,
  CAPABILITY_MINOR = 76,
  STREAM_NON_BLOCKING = 1,
  LAZY_LOCAL = 1 /* dlopen: RTLD_LAZY */
};

struct cmz_device {
  void *library, *context, *module, *stream;
  int ordinal;
  bool owns_stream, retained;
  uint32_t max_parameters;
  size_t bytes;      /* of this block */
  void **functions;  /* by kernel */
  void **parameters; /* of the launch being made */
#define CUDA_MEMBER(member, name, parameters) cu_result(*member) parameters;
  CUDA_FUNCTIONS(CUDA_MEMBER)
#undef CUDA_MEMBER
};

static int fail(cmz_model *m, const cmz_device *d, cu_result code, const char *what) {
  const char *name = NULL;
  if (d->error_name) d->error_name(code, &name);
  return cmz_fail_run(m, code == CUDA_OUT_OF_MEMORY ? CMZ_OUT_OF_MEMORY : CMZ_RUN_FAILED,
                      "CUDA: %s: %s (%d)", what, name ? name : "error", code);
}

static int load_library(cmz_model *m, cmz_device *d) {
  d->library = dlopen("libcuda.so.1", LAZY_LOCAL);
  if (!d->library)
    return cmz_fail_run(
        m, CMZ_UNAVAILABLE,
        "no CUDA driver: libcuda.so.1 cannot be opened (%s); this model was compiled for %s",
        dlerror(), m->program->description->target);
  static const char *const names[] = {
#define CUDA_NAME(member, name, parameters) name,
      CUDA_FUNCTIONS(CUDA_NAME)
#undef CUDA_NAME
  };
  void *symbols[sizeof names / sizeof names[0]];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    symbols[i] = dlsym(d->library, names[i]);
    if (!symbols[i])
      return cmz_fail_run(m, CMZ_UNAVAILABLE, "the CUDA driver is too old: it has no %s", names[i]);
  }
  memcpy(&d->initialise, symbols, sizeof symbols); /* the members stand in the list's order */
  return CMZ_SUCCESS;
}

static int open_context(cmz_model *m, cmz_device *d, int *capability) {
  int count = 0, major = 0, minor = 0;
  cu_result code = d->initialise(0);
  if (!code) code = d->device_count(&count);
  if (code || count == 0)
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "there is a CUDA driver but no device that it can use (error %d)", code);
  if (m->config.device < 0 || m->config.device >= count)
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "there is no CUDA device %d; this machine has %d",
                        m->config.device, count);
  code = d->device_get(&d->ordinal, m->config.device);
  if (!code) code = d->device_attribute(&major, CAPABILITY_MAJOR, d->ordinal);
  if (!code) code = d->device_attribute(&minor, CAPABILITY_MINOR, d->ordinal);
  if (!code) code = d->context_retain(&d->context, d->ordinal);
  if (code) return fail(m, d, code, "opening the device");
  d->retained = true;
  *capability = 10 * major + minor;
  return CMZ_SUCCESS;
}

/* The best image that CAPABILITY runs, loaded, and its functions. */
static int load_image(cmz_model *m, cmz_device *d, int capability) {
  const cmz_program_device *program = m->program->device;
  const cmz_program_image *image = NULL;
  for (uint32_t i = 0; i < program->image_count && !image; i++)
    if (program->images[i].needs <= (uint32_t)capability) image = &program->images[i];
  if (!image)
    return cmz_fail_run(
        m, CMZ_UNAVAILABLE,
        "this device (compute capability %d.%d) is older than what the model was compiled for (%s)",
        capability / 10, capability % 10, m->program->description->target);
  cu_result code = d->module_load(&d->module, image->data);
  if (code) return fail(m, d, code, "loading the kernels");
  for (uint32_t k = 0; !code && k < m->program->kernel_count; k++)
    code = d->module_function(&d->functions[k], d->module, image->kernels[k]);
  if (code) return fail(m, d, code, "finding a kernel");
  d->stream = m->config.stream;
  if (d->stream) return CMZ_SUCCESS;
  code = d->stream_create(&d->stream, STREAM_NON_BLOCKING);
  d->owns_stream = code == 0;
  return code ? fail(m, d, code, "making a stream") : CMZ_SUCCESS;
}

/* Each call runs between these two. */
static int enter(cmz_model *m, cmz_device *d) {
  cu_result code = d->context_push(d->context);
  return code ? fail(m, d, code, "entering the context") : CMZ_SUCCESS;
}
static void leave(cmz_device *d) {
  void *context;
  d->context_pop(&context);
}

static void cuda_close(cmz_model *m, cmz_device *d) {
  if (d->retained && d->context_push(d->context) == 0) {
    if (d->stream) d->stream_wait(d->stream);
    if (d->owns_stream) d->stream_destroy(d->stream);
    if (d->module) d->module_unload(d->module);
    leave(d);
  }
  if (d->retained) d->context_release(d->ordinal);
  if (d->library) dlclose(d->library);
  cmz_memory_give(m, d, d->bytes);
}

static uint32_t most_parameters(const cmz_program *p) {
  uint32_t most = 0;
  for (uint32_t i = 0; i < p->step_count; i++) {
    uint32_t count = p->steps[i].operand_count + p->steps[i].param_count + 1;
    if (p->steps[i].kind == CMZ_PS_KERNEL && count > most) most = count;
  }
  return most;
}

static int cuda_open(cmz_model *m, cmz_device **out) {
  uint32_t kernels = m->program->kernel_count, parameters = most_parameters(m->program);
  size_t bytes = sizeof(cmz_device) + (kernels + (size_t)parameters) * sizeof(void *);
  cmz_device *d = cmz_memory_take(m, bytes);
  if (!d) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's tables");
  memset(d, 0, bytes);
  d->bytes = bytes;
  d->functions = (void **)(d + 1);
  d->parameters = d->functions + kernels;
  d->max_parameters = parameters;
  int capability = 0, rc = load_library(m, d);
  if (!rc) rc = open_context(m, d, &capability);
  if (!rc) rc = enter(m, d);
  if (rc) {
    cuda_close(m, d);
    return rc;
  }
  rc = load_image(m, d, capability);
  leave(d);
  if (rc) cuda_close(m, d);
  else *out = d;
  return rc;
}

static void *cuda_take(cmz_device *d, size_t bytes) {
  cu_address address = 0;
  if (d->context_push(d->context)) return NULL;
  if (d->memory_take(&address, bytes)) address = 0;
  leave(d);
  return (void *)(uintptr_t)address;
}

static void cuda_give(cmz_device *d, void *memory, size_t bytes) {
  (void)bytes;
  if (d->context_push(d->context)) return;
  d->stream_wait(d->stream); /* kernels may still be using it */
  d->memory_give((cu_address)(uintptr_t)memory);
  leave(d);
}

static int cuda_wait(cmz_model *m, cmz_device *d) {
  int rc = enter(m, d);
  if (rc) return rc;
  cu_result code = d->stream_wait(d->stream);
  leave(d);
  return code ? fail(m, d, code, "running the model") : CMZ_SUCCESS;
}

static int cuda_read(cmz_model *m, cmz_device *d, void *host, const void *from, size_t bytes) {
  int rc = enter(m, d);
  if (rc) return rc;
  cu_result code = d->read(host, (cu_address)(uintptr_t)from, bytes, d->stream);
  if (!code) code = d->stream_wait(d->stream);
  leave(d);
  return code ? fail(m, d, code, "reading from the device") : CMZ_SUCCESS;
}

static int cuda_write(cmz_model *m, cmz_device *d, void *to, const void *host, size_t bytes) {
  int rc = enter(m, d);
  if (rc) return rc;
  cu_result code = d->write((cu_address)(uintptr_t)to, host, bytes, d->stream);
  leave(d);
  return code ? fail(m, d, code, "writing to the device") : CMZ_SUCCESS;
}

static int cuda_copy(cmz_model *m, cmz_device *d, void *to, const void *from, size_t bytes) {
  int rc = enter(m, d);
  if (rc) return rc;
  cu_result code =
      d->copy((cu_address)(uintptr_t)to, (cu_address)(uintptr_t)from, bytes, d->stream);
  leave(d);
  return code ? fail(m, d, code, "copying on the device") : CMZ_SUCCESS;
}

static int cuda_launch(cmz_model *m, cmz_device *d, const cmz_launch *l) {
  enum { MOST_GROUPS = 1 << 20 };
  uint32_t threads = m->program->device->threads, groups = (l->tiles - 1) / threads + 1, count = 0;
  int64_t tile_count = l->tiles;
  for (uint32_t i = 0; i < l->operand_count; i++)
    d->parameters[count++] = (void *)(uintptr_t)&l->operands[i];
  for (uint32_t i = 0; i < l->param_count; i++)
    d->parameters[count++] = (void *)(uintptr_t)&l->params[i];
  d->parameters[count++] = &tile_count;
  if (groups > MOST_GROUPS) groups = MOST_GROUPS;
  int rc = enter(m, d);
  if (rc) return rc;
  cu_result code = d->launch(d->functions[l->kernel], groups, 1, 1, threads, 1, 1, 0, d->stream,
                             d->parameters, NULL);
  leave(d);
  return code ? fail(m, d, code, "starting a kernel") : CMZ_SUCCESS;
}

const cmz_device_driver cmz_cuda_driver = {.open = cuda_open,
                                           .close = cuda_close,
                                           .take = cuda_take,
                                           .give = cuda_give,
                                           .read = cuda_read,
                                           .write = cuda_write,
                                           .copy = cuda_copy,
                                           .launch = cuda_launch,
                                           .wait = cuda_wait};
