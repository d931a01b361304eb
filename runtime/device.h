/* device.h - what a GPU's driver does for an instance. In: addresses in the device's memory, which the runtime treats as
 * opaque pointers. Out: work done in the order of the calls. Always holds: a driver that fails has recorded a message
 * with cmz_fail_run and returned its code; reads wait for what was asked before. */
#ifndef CMZ_RUNTIME_DEVICE_H
#define CMZ_RUNTIME_DEVICE_H

#include "instance.h"

typedef struct cmz_device cmz_device;

/* Tiles [0, tiles) of kernel number KERNEL. */
typedef struct cmz_launch {
  uint32_t kernel, tiles, operand_count, param_count;
  void *const *operands;
  const uint64_t *bytes;  /* of each operand */
  const uint32_t *access; /* of each operand: CMZ_ACCESS_… */
  const int64_t *params;
} cmz_launch;

/* What the last run that was not profiled gave the device to do. */
typedef struct cmz_device_counts { uint64_t dispatches, barriers, submissions; } cmz_device_counts;

typedef struct cmz_device_driver {
  /* Opens device number m->config.device and loads the best image. */
  int (*open)(cmz_model *m, cmz_device **device);
  void (*close)(cmz_model *m, cmz_device *device);
  /* Memory of at least BYTES, aligned to 256; NULL when there is none. */
  void *(*take)(cmz_device *device, size_t bytes);
  void (*give)(cmz_device *device, void *memory, size_t bytes);
  int (*read)(cmz_model *m, cmz_device *device, void *host, const void *from, size_t bytes);
  int (*write)(cmz_model *m, cmz_device *device, void *to, const void *host, size_t bytes);
  int (*copy)(cmz_model *m, cmz_device *device, void *to, const void *from, size_t bytes);
  int (*launch)(cmz_model *m, cmz_device *device, const cmz_launch *launch);
  int (*wait)(cmz_model *m, cmz_device *device);
  /* Whether MEMORY, a caller's, can be used by the device. NULL: not known. */
  bool (*owns)(cmz_device *device, const void *memory);
  /* All work of a run has been given; what of it must be done when `run` returns is done. NULL: `wait` is that. */
  int (*end)(cmz_model *m, cmz_device *device);
  /* 0, or the message of a device that was lost. NULL: `begin` and the others find out. */
  int (*state)(cmz_model *m, cmz_device *device);
  /* A run begins: nothing of an earlier one is pending, whether it ended well or not. NULL: nothing to do. */
  void (*begin)(cmz_device *device);
  /* What was given to the device since `begin`. NULL: not counted. */
  void (*count)(const cmz_device *device, cmz_device_counts *counts);
} cmz_device_driver;

extern const cmz_device_driver cmz_cuda_driver, cmz_vulkan_driver;

#endif
