/* device.h - what a GPU's driver does for an instance. In: addresses in the device's memory, which the runtime treats as
 * opaque pointers. Out: work done in the order of the calls. Always holds: a driver that fails has recorded a message
 * with cmz_fail_run and returned its code; reads wait for what was asked before. */
#ifndef CMZ_RUNTIME_DEVICE_H
#define CMZ_RUNTIME_DEVICE_H

#include "instance.h"

typedef struct cmz_device cmz_device;

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
  /* Tiles [0, tiles) of kernel number KERNEL. */
  int (*launch)(cmz_model *m, cmz_device *device, uint32_t kernel, void *const *operands, uint32_t operand_count, const int64_t *params,
                uint32_t param_count, uint32_t tiles);
  int (*wait)(cmz_model *m, cmz_device *device);
} cmz_device_driver;

extern const cmz_device_driver cmz_cuda_driver, cmz_vulkan_driver;

#endif
