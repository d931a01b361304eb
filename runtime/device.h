/* device.h - what a GPU's driver does for an instance. In: addresses in the device's memory, which
 * the runtime treats as opaque pointers. Out: work done in the order of the calls. Always holds: a
 * driver that fails has recorded a message with cmz_fail_run and returned its code; reads wait for
 * what was asked before. */
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
typedef struct cmz_device_counts {
  uint64_t dispatches, barriers, submissions;
} cmz_device_counts;

/* The head of what instances of one program have in common on a device: an entry of its list, used
 * by so many. */
typedef struct cmz_shared {
  struct cmz_shared *next;
  uint32_t users, reserved;
} cmz_shared;
/* device.c. A lock is a word, 0 when free; the program's is held during `open`, `take_weights`, the
 * weights' transfer and `close`. */
void cmz_lock(uint32_t *word);
void cmz_unlock(uint32_t *word);
void cmz_shared_add(const cmz_program *p, cmz_shared *s); /* with one user */
/* True: that was the last user, and S is out of the list */
bool cmz_shared_leave(const cmz_program *p, cmz_shared *s);

typedef struct cmz_device_driver {
  /* Opens device number m->config.device, or the caller's, and loads the best image. */
  int (*open)(cmz_model *m, cmz_device **device);
  void (*close)(cmz_model *m, cmz_device *device);
  /* Memory of at least BYTES, aligned to 256; NULL when there is none. */
  void *(*take)(cmz_device *device, size_t bytes);
  void (*give)(cmz_device *device, void *memory, size_t bytes);
  /* The memory of the weights, BYTES long, which `close` gives back: that of the other instances on
   * the device, or, FRESH, new. */
  void *(*take_weights)(cmz_device *device, size_t bytes, bool *fresh);
  int (*read)(cmz_model *m, cmz_device *device, void *host, const void *from, size_t bytes);
  int (*write)(cmz_model *m, cmz_device *device, void *to, const void *host, size_t bytes);
  int (*copy)(cmz_model *m, cmz_device *device, void *to, const void *from, size_t bytes);
  int (*launch)(cmz_model *m, cmz_device *device, const cmz_launch *launch);
  int (*wait)(cmz_model *m, cmz_device *device);
  /* Whether MEMORY, a caller's, can be used by the device. NULL: not known. */
  bool (*owns)(cmz_device *device, const void *memory);
  /* The address of a caller's tensor, from its `data`; NULL when there is none. NULL: `data` is the
   * address. */
  void *(*address)(cmz_device *device, const void *data);
  /* The reverse, for a tensor that lies at ADDRESS: what its `data` points to goes to WORDS. */
  void (*describe)(cmz_device *device, const void *address, uint64_t words[2]);
  /* All work of a run has been given; what of it must be done when `run` returns is done. NULL:
   * `wait` is that. */
  int (*end)(cmz_model *m, cmz_device *device);
  /* 0, or the message of a device that was lost. NULL: `begin` and the others find out. */
  int (*state)(cmz_model *m, cmz_device *device);
  /* A run begins: nothing of an earlier one is pending, whether it ended well or not. NULL: nothing
   * to do. */
  void (*begin)(cmz_device *device);
  /* What was given to the device since `begin`. NULL: not counted. */
  void (*count)(const cmz_device *device, cmz_device_counts *counts);
} cmz_device_driver;

extern const cmz_device_driver cmz_cuda_driver, cmz_vulkan_driver;

#endif
