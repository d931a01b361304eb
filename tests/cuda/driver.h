/* driver.h - what the two files of the emulated CUDA driver share: memory, modules and single calls
 * (libcuda.c), graphs and captured streams (graph.c). */
#ifndef CMZ_EMULATOR_DRIVER_H
#define CMZ_EMULATOR_DRIVER_H

#include "group.h"

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  DEVICE_UNAVAILABLE = 46,
  NO_DEVICE = 100,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  UNCORRECTABLE = 214,
  UNSUPPORTED_PTX = 222,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  ILLEGAL_ADDRESS = 700,
  OUT_OF_RESOURCES = 701,
  LAUNCH_TIMEOUT = 702,
  LAUNCH_FAILED = 719,
  CAPTURE_UNSUPPORTED = 900,
  UPDATE_FAILURE = 910,
  PAGE = 4096
};

typedef struct function {
  void (*run)(struct thread *, void **);
  const emulator_kernel *kernel;
  const char *text;
  uint32_t most_dynamic;
  char name[256];
} function;

/* As the driver API has them (CUDA_KERNEL_NODE_PARAMS_v1, CUDA_MEMCPY3D_v2). */
typedef struct kernel_node {
  function *function;
  unsigned grid[3], block[3], shared;
  void **params, **extra;
} kernel_node;
typedef struct copy_end {
  size_t x, y, z, level;
  uint32_t memory;
  const void *host;
  uint64_t device;
  void *array, *reserved;
  size_t pitch, height;
} copy_end;
typedef struct copy_node {
  copy_end from, to;
  size_t bytes, height, depth;
} copy_node;

/* Counts a call of NAME (CMZ_EMULATOR_FAIL's words); what it is to fail with, or 0. */
int emulator_fault(const char *name);
extern int emulator_lost; /* an error that stays until the context goes, as on a device */
int emulator_launch(const kernel_node *kernel, void **params);
void *emulator_context(void); /* the current one */
int emulator_copy(uint64_t to, uint64_t from, size_t bytes);

/* A graph is being captured from STREAM: the call is added to it. NULL: no capture. */
struct graph *emulator_captured(void *stream);
int emulator_capture_kernel(struct graph *g, const kernel_node *kernel);
int emulator_capture_copy(struct graph *g, uint64_t to, uint64_t from, size_t bytes);

#endif
