/* cuda.c - the device driver over NVIDIA's driver API (CUDA Driver API reference), opened at run
 * time. In: PTX in the program. Out: kernels and copies on one stream, the caller's when there is
 * one; then also its context is used. Always holds: nothing is linked against; a context is current
 * only during a call, and what was current before is so again after it; after an error that ends a
 * context nothing more is asked of it. */
#include "cuda_device.h"

enum {
  CUDA_OUT_OF_MEMORY = 2,
  CAPABILITY_MAJOR = 75,
  CAPABILITY_MINOR = 76,
  MEMORY_TYPE = 2, /* of a pointer */
  STREAM_NON_BLOCKING = 1,
  LAZY_LOCAL = 1 /* dlopen: RTLD_LAZY */
};

/* Errors after which a context is of no more use (driver API reference, CUresult). */
static const int16_t lost_codes[] = {4 /* deinitialised */,
                                     214 /* ECC */,
                                     220 /* NVLink */,
                                     700 /* illegal address */,
                                     702 /* timeout */,
                                     709 /* context destroyed */,
                                     710 /* assert */,
                                     714 /* stack */,
                                     715 /* illegal instruction */,
                                     716 /* misaligned */,
                                     717 /* address space */,
                                     718 /* program counter */,
                                     719 /* launch failed */,
                                     999 /* unknown */};

static bool is_lost(cu_result code) {
  for (size_t i = 0; i < sizeof lost_codes / sizeof lost_codes[0]; i++)
    if (lost_codes[i] == code) return true;
  return false;
}

static const char *name_of(const cmz_device *d, cu_result code) {
  const char *name = NULL;
  if (d->error_name) d->error_name(code, &name);
  return name ? name : "error";
}

int cmz_cuda_fail(cmz_model *m, cmz_device *d, cu_result code, const char *what) {
  if (is_lost(code)) {
    d->lost = code;
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "CUDA: the device was lost while %s: %s (%d); this instance cannot be used "
                        "any more, and where a new one fails too the process has to start again",
                        what, name_of(d, code), code);
  }
  return cmz_fail_run(m, code == CUDA_OUT_OF_MEMORY ? CMZ_OUT_OF_MEMORY : CMZ_RUN_FAILED,
                      "CUDA: %s: %s (%d)", what, name_of(d, code), code);
}

/* 0, or the message of a device that was lost earlier. */
static int cuda_state(cmz_model *m, cmz_device *d) {
  if (!d->lost) return CMZ_SUCCESS;
  return cmz_fail_run(m, CMZ_UNAVAILABLE,
                      "CUDA: the device was lost earlier: %s (%d); make a new instance",
                      name_of(d, d->lost), d->lost);
}

/* ---- the library, a context, the kernels ---- */

static int load_library(cmz_model *m, cmz_device *d) {
  d->library = dlopen("libcuda.so.1", LAZY_LOCAL);
  if (!d->library)
    return cmz_fail_run(
        m, CMZ_UNAVAILABLE,
        "no CUDA driver: libcuda.so.1 cannot be opened (%s); this model was compiled for %s",
        dlerror(), m->program->description->target);
#define CUDA_NAME(member, name, parameters) name,
  static const char *const names[] = {CUDA_FUNCTIONS(CUDA_NAME)};
  static const char *const later[] = {CUDA_LATER_FUNCTIONS(CUDA_NAME)};
#undef CUDA_NAME
  void *symbols[sizeof names / sizeof names[0]], *more[sizeof later / sizeof later[0]];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    symbols[i] = dlsym(d->library, names[i]);
    if (!symbols[i])
      return cmz_fail_run(m, CMZ_UNAVAILABLE, "the CUDA driver is too old: it has no %s", names[i]);
  }
  d->has_graphs = true;
  for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
    more[i] = dlsym(d->library, later[i]);
    if (!more[i]) d->has_graphs = false;
  }
  memcpy(&d->initialise, symbols, sizeof symbols); /* the members stand in the lists' order */
  memcpy(&d->stream_context, more, sizeof more);
  return CMZ_SUCCESS;
}

/* The context of the caller's stream and its device; false: the stream belongs to no context of its
 * own, as the two default streams do. */
static bool take_context_of_stream(cmz_device *d) {
  if (!d->stream || !d->stream_context || !d->context_device ||
      d->stream_context(d->stream, &d->context) || !d->context)
    return false;
  void *popped;
  bool good = d->context_push(d->context) == 0;
  if (good) good = d->context_device(&d->ordinal) == 0, d->context_pop(&popped);
  if (!good) d->context = NULL;
  return good;
}

static int open_context(cmz_model *m, cmz_device *d, int *capability) {
  int count = 0, major = 0, minor = 0;
  cu_result code = d->initialise(0);
  if (!code) code = d->device_count(&count);
  if (code || count == 0)
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "there is a CUDA driver but no device that it can use (%s, %d)",
                        code ? name_of(d, code) : "none found", code);
  d->stream = m->config.stream;
  bool callers = take_context_of_stream(d);
  if (!callers && (m->config.device < 0 || m->config.device >= count))
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "there is no CUDA device %d; this machine has %d",
                        m->config.device, count);
  if (!callers) code = d->device_get(&d->ordinal, m->config.device);
  if (!code) code = d->device_attribute(&major, CAPABILITY_MAJOR, d->ordinal);
  if (!code) code = d->device_attribute(&minor, CAPABILITY_MINOR, d->ordinal);
  if (!code && !callers) {
    code = d->context_retain(&d->context, d->ordinal);
    d->retained = code == 0;
  }
  if (code) return cmz_cuda_fail(m, d, code, "opening the device");
  *capability = 10 * major + minor;
  return CMZ_SUCCESS;
}

/* The best image that CAPABILITY runs, loaded, and its functions. */
static int load_image(cmz_model *m, cmz_device *d, int capability) {
  const cmz_program_device *program = m->program->device;
  const cmz_program_image *image = NULL;
  for (uint32_t i = 0; i < program->image_count && !image; i++)
    if (program->images[i].needs <= (uint32_t)capability ||
        program->images[i].needs == CMZ_IMAGE_EXACTLY + (uint32_t)capability)
      image = &program->images[m->level_number = i];
  if (!image)
    return cmz_fail_run(
        m, CMZ_UNAVAILABLE,
        "this device (compute capability %d.%d) is older than what the model was compiled for (%s)",
        capability / 10, capability % 10, m->program->description->target);
  cu_result code = d->module_load(&d->module, image->data);
  if (code) return cmz_cuda_fail(m, d, code, "loading the kernels");
  for (uint32_t k = 0; !code && k < m->program->kernel_count; k++)
    code = d->module_function(&d->functions[k], d->module, image->kernels[k]);
  if (code) return cmz_cuda_fail(m, d, code, "finding a kernel");
  if (d->stream) return CMZ_SUCCESS;
  code = d->stream_create(&d->stream, STREAM_NON_BLOCKING);
  d->owns_stream = code == 0;
  return code ? cmz_cuda_fail(m, d, code, "making a stream") : CMZ_SUCCESS;
}

/* Each call runs between these two. */
static int enter(cmz_model *m, cmz_device *d) {
  if (d->lost) return cuda_state(m, d);
  cu_result code = d->context_push(d->context);
  return code ? cmz_cuda_fail(m, d, code, "entering the context") : CMZ_SUCCESS;
}
static void leave(cmz_device *d) {
  void *context;
  d->context_pop(&context);
}

/* ---- memory ---- */

static void *cuda_take(cmz_device *d, size_t bytes) {
  cu_address address = 0;
  if (d->lost || d->context_push(d->context)) return NULL;
  cu_result code = d->memory_take(&address, bytes);
  leave(d);
  if (is_lost(code)) d->lost = code;
  return code ? NULL : (void *)(uintptr_t)address;
}

static void cuda_give(cmz_device *d, void *memory, size_t bytes) {
  (void)bytes;
  if (d->context_push(d->context)) return;
  d->deferred = d->lost ? 0 : cmz_cuda_flush(d); /* kernels may still need it */
  d->stream_wait(d->stream);
  d->memory_give((cu_address)(uintptr_t)memory);
  leave(d);
}

/* Weights that all instances with one context read. */
struct cuda_weights {
  cmz_shared shared;
  void *context;
  cu_address address;
};

static void *cuda_take_weights(cmz_device *d, size_t bytes, bool *fresh) {
  const cmz_program *p = d->model->program;
  for (cmz_shared *s = p->device->commons->entries; s && !d->weights; s = s->next)
    if (((cuda_weights *)s)->context == d->context) d->weights = (cuda_weights *)s;
  *fresh = !d->weights;
  if (d->weights) {
    d->weights->shared.users++;
    return (void *)(uintptr_t)d->weights->address;
  }
  void *memory = cuda_take(d, bytes);
  cuda_weights *w = memory ? cmz_block_take(CMZ_MEMORY_ALIGNMENT, sizeof *w) : NULL;
  if (memory && !w) cuda_give(d, memory, bytes);
  if (!w) return NULL;
  *w = (cuda_weights){.context = d->context, .address = (cu_address)(uintptr_t)memory};
  cmz_shared_add(p, &w->shared);
  d->weights = w;
  return memory;
}

/* Leaves the weights; the last instance gives their memory back, when CURRENT says that the context
 * is. */
static void leave_weights(cmz_device *d, bool current) {
  if (!d->weights || !cmz_shared_leave(d->model->program, &d->weights->shared)) return;
  if (current) d->memory_give(d->weights->address);
  cmz_block_give(d->weights);
}

/* ---- open, close ---- */

static void cuda_close(cmz_model *m, cmz_device *d) {
  bool current = d->context && d->context_push(d->context) == 0;
  if (current && d->stream) d->stream_wait(d->stream);
  leave_weights(d, current);
  if (current) {
    cmz_cuda_graphs_free(d);
    if (d->owns_stream) d->stream_destroy(d->stream);
    if (d->module) d->module_unload(d->module);
    leave(d);
  } else {
    d->has_graphs = false; /* they are gone with the context */
    for (uint32_t i = 0; i < CUDA_MOST_SEGMENTS; i++)
      d->segments[i].graph = d->segments[i].executable = NULL;
    cmz_cuda_graphs_free(d);
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
  d->model = m;
  d->bytes = bytes;
  d->functions = (void **)(d + 1);
  d->parameters = d->functions + kernels;
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

/* ---- tensors of the caller's ---- */

static bool cuda_owns(cmz_device *d, const void *memory) {
  uint32_t type = 0;
  if (d->lost || !d->pointer_attribute || d->context_push(d->context)) return true;
  cu_result code = d->pointer_attribute(&type, MEMORY_TYPE, (cu_address)(uintptr_t)memory);
  leave(d);
  return code == 0;
}

/* ---- work ---- */

static int cuda_wait(cmz_model *m, cmz_device *d) {
  int rc = enter(m, d);
  if (rc) return rc;
  cu_result code = cmz_cuda_flush(d);
  if (!code) code = d->stream_wait(d->stream);
  leave(d);
  return code ? cmz_cuda_fail(m, d, code, "running the model") : CMZ_SUCCESS;
}

static int cuda_end(cmz_model *m, cmz_device *d) {
  if (d->owns_stream) return cuda_wait(m, d);
  int rc = enter(m, d);
  if (rc) return rc;
  cu_result code = cmz_cuda_flush(d);
  leave(d);
  return code ? cmz_cuda_fail(m, d, code, "running the model") : CMZ_SUCCESS;
}

static int cuda_read(cmz_model *m, cmz_device *d, void *host, const void *from, size_t bytes) {
  int rc = enter(m, d);
  if (rc) return rc;
  const char *what = "running the model";
  cu_result code = cmz_cuda_flush(d);
  if (!code) {
    what = "reading from the device";
    code = d->read(host, (cu_address)(uintptr_t)from, bytes, d->stream);
    if (!code) code = d->stream_wait(d->stream);
  }
  leave(d);
  return code ? cmz_cuda_fail(m, d, code, what) : CMZ_SUCCESS;
}

static int cuda_write(cmz_model *m, cmz_device *d, void *to, const void *host, size_t bytes) {
  int rc = enter(m, d);
  if (rc) return rc;
  cu_result code = cmz_cuda_flush(d);
  if (!code) code = d->write((cu_address)(uintptr_t)to, host, bytes, d->stream);
  leave(d);
  return code ? cmz_cuda_fail(m, d, code, "writing to the device") : CMZ_SUCCESS;
}

static void cuda_begin(cmz_device *d) {
  d->pending.used = d->pending.count = 0; /* of a run that failed */
  d->deferred = 0;
  d->counts = (cmz_device_counts){0};
}

static void cuda_count(const cmz_device *d, cmz_device_counts *counts) { *counts = d->counts; }

const cmz_device_driver cmz_cuda_driver = {.open = cuda_open,
                                           .close = cuda_close,
                                           .take = cuda_take,
                                           .give = cuda_give,
                                           .take_weights = cuda_take_weights,
                                           .owns = cuda_owns,
                                           .read = cuda_read,
                                           .write = cuda_write,
                                           .copy = cmz_cuda_copy,
                                           .launch = cmz_cuda_launch,
                                           .wait = cuda_wait,
                                           .end = cuda_end,
                                           .state = cuda_state,
                                           .begin = cuda_begin,
                                           .count = cuda_count};
