/* cuda_device.h - what the files of the CUDA driver share: the functions of NVIDIA's driver API, an
 * opened device, the log of its work. In: libcuda.so.1. Always holds: a result other than 0 reaches
 * cmz_cuda_fail, which knows the ones after which a context is of no more use. */
#ifndef CMZ_RUNTIME_CUDA_DEVICE_H
#define CMZ_RUNTIME_CUDA_DEVICE_H

#include "device.h"

typedef int cu_result;
typedef uint64_t cu_address;

/* CUDA_KERNEL_NODE_PARAMS and CUDA_MEMCPY3D of the driver API, as its functions without a version
 * take them. */
typedef struct cu_kernel {
  void *function;
  uint32_t grid[3], block[3], shared_bytes;
  void **parameters, **extra;
} cu_kernel;
typedef struct cu_copy_end {
  size_t x, y, z, level;
  uint32_t memory;
  const void *host;
  cu_address device;
  void *array, *reserved;
  size_t pitch, height;
} cu_copy_end;
typedef struct cu_copy {
  cu_copy_end from, to;
  size_t bytes, height, depth;
} cu_copy;

/* X(member, exported name, parameters) */
/* clang-format off */
#define CUDA_FUNCTIONS(X) \
  X(initialise, "cuInit", (unsigned flags)) \
  X(device_get, "cuDeviceGet", (int *device, int ordinal)) \
  X(device_count, "cuDeviceGetCount", (int *count)) \
  X(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, int device)) \
  X(context_retain, "cuDevicePrimaryCtxRetain", (void **context, int device)) \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", (int device)) \
  X(context_push, "cuCtxPushCurrent_v2", (void *context)) \
  X(context_pop, "cuCtxPopCurrent_v2", (void **context)) \
  X(module_load, "cuModuleLoadData", (void **module, const void *image)) \
  X(module_unload, "cuModuleUnload", (void *module)) \
  X(module_function, "cuModuleGetFunction", (void **function, void *module, const char *name)) \
  X(memory_take, "cuMemAlloc_v2", (cu_address * address, size_t bytes)) \
  X(memory_give, "cuMemFree_v2", (cu_address address)) \
  X(read, "cuMemcpyDtoHAsync_v2", (void *to, cu_address from, size_t bytes, void *stream)) \
  X(write, "cuMemcpyHtoDAsync_v2", (cu_address to, const void *from, size_t bytes, void *stream)) \
  X(copy, "cuMemcpyDtoDAsync_v2", (cu_address to, cu_address from, size_t bytes, void *stream)) \
  X(stream_create, "cuStreamCreate", (void **stream, unsigned flags)) \
  X(stream_destroy, "cuStreamDestroy_v2", (void *stream)) \
  X(stream_wait, "cuStreamSynchronize", (void *stream)) \
  X(launch, "cuLaunchKernel", \
    (void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, void *stream, void **parameters, \
     void **extra)) \
  X(error_name, "cuGetErrorName", (cu_result code, const char **name))
/* clang-format on */
/* What a driver may lack: then kernels are launched one by one, and a caller's stream is taken as
 * it is. */
/* clang-format off */
#define CUDA_LATER_FUNCTIONS(X) \
  X(stream_context, "cuStreamGetCtx", (void *stream, void **context)) \
  X(stream_capturing, "cuStreamIsCapturing", (void *stream, int *status)) \
  X(context_device, "cuCtxGetDevice", (int *device)) \
  X(pointer_attribute, "cuPointerGetAttribute", (void *value, int attribute, cu_address address)) \
  X(graph_create, "cuGraphCreate", (void **graph, unsigned flags)) \
  X(graph_destroy, "cuGraphDestroy", (void *graph)) \
  X(graph_kernel, "cuGraphAddKernelNode", \
    (void **node, void *graph, void *const *after, size_t after_count, const cu_kernel *kernel)) \
  X(graph_copy, "cuGraphAddMemcpyNode", \
    (void **node, void *graph, void *const *after, size_t after_count, const cu_copy *copy, \
     void *context)) \
  X(graph_instantiate, "cuGraphInstantiateWithFlags", \
    (void **executable, void *graph, unsigned long long flags)) \
  X(graph_set_kernel, "cuGraphExecKernelNodeSetParams", \
    (void *executable, void *node, const cu_kernel *kernel)) \
  X(graph_set_copy, "cuGraphExecMemcpyNodeSetParams", \
    (void *executable, void *node, const cu_copy *copy, void *context)) \
  X(graph_launch, "cuGraphLaunch", (void *executable, void *stream)) \
  X(graph_free, "cuGraphExecDestroy", (void *executable))
/* clang-format on */

/* Kernels and copies one after the other, as words: a header (below), the operands' addresses, the
 * params, and of each operand its bytes and CMZ_ACCESS_. */
typedef struct cuda_log {
  uint64_t *words;
  uint32_t used, capacity, count; /* words, and the commands that they make */
} cuda_log;
enum { CUDA_KERNEL, CUDA_TILES, CUDA_OPERANDS, CUDA_PARAMS, CUDA_HEADER };
#define CUDA_COPY UINT32_MAX /* as a kernel: operand 0 is copied to operand 1 */

/* What was given to the device at one time, and its graph once the same has come twice. */
typedef struct cuda_segment {
  cuda_log log;
  uint64_t time; /* of the last use; 0: unused */
  bool plain;    /* a graph of it could not be made */
  void *graph, *executable;
  void **nodes; /* of each command */
  uint32_t node_capacity;
  cuda_log edges; /* a word a command: how many others it waits for; then which */
} cuda_segment;
enum { CUDA_MOST_SEGMENTS = 64 };

typedef struct cuda_weights cuda_weights;
struct cmz_device {
  cmz_model *model;
  cuda_weights *weights;
  void *library, *context, *module, *stream;
  int ordinal;
  bool owns_stream, retained, has_graphs;
  cu_result lost;     /* 0, or the error after which the context is of no more use */
  cu_result deferred; /* of work that a call without a result gave to the device */
  size_t bytes;       /* of this block */
  void **functions;   /* by kernel */
  void **parameters;  /* of the launch being made */
  cuda_log pending, edges;
  cuda_segment segments[CUDA_MOST_SEGMENTS];
  uint64_t time;
  cmz_device_counts counts;
#define CUDA_MEMBER(member, name, parameters) cu_result(*member) parameters;
  CUDA_FUNCTIONS(CUDA_MEMBER)
  CUDA_LATER_FUNCTIONS(CUDA_MEMBER)
#undef CUDA_MEMBER
};

int cmz_cuda_fail(cmz_model *m, cmz_device *d, cu_result code, const char *what);
/* Adds a kernel to what is to be done, or a copy. cuda_graph.c */
int cmz_cuda_launch(cmz_model *m, cmz_device *d, const cmz_launch *launch);
int cmz_cuda_copy(cmz_model *m, cmz_device *d, void *to, const void *from, size_t bytes);
/* Gives all of that to the device; the context is current. */
cu_result cmz_cuda_flush(cmz_device *d);
/* Ends the graphs and gives their memory back; the context is current. */
void cmz_cuda_graphs_free(cmz_device *d);

#endif
