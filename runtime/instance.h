/* instance.h - the state of one instance of a compiled model, shared by the files of the runtime.
 * Always holds: pointers[b] is the memory of root buffer b for the current run (aliases are read
 * through roots[b]); owned[b] is memory of the instance, capacity[b] bytes long, or NULL. */
#ifndef CMZ_RUNTIME_INSTANCE_H
#define CMZ_RUNTIME_INSTANCE_H

#include "program.h"
#include "system.h"
#include "team.h"

#define CMZ_NO_INDEX UINT32_MAX
#define CMZ_MEMORY_ALIGNMENT 64u

typedef struct cmz_profile_cell {
  uint64_t nanoseconds, calls;
} cmz_profile_cell;

struct cmz_device;
struct cmz_model {
  const cmz_program *program; /* NULL in an instance that only carries an error */
  struct cmz_device *device;  /* NULL: data and kernels are the CPU's */
  const cmz_program_level *level;
  uint32_t level_number; /* of LEVEL, or of the device's image */
  cmz_config config;
  cmz_team *team; /* NULL: one thread */
  uint32_t threads;

  int64_t *slots;
  uint32_t *roots;
  void **pointers;
  void **owned;
  size_t *capacity;
  /* By input: where it lies in host memory during this run, contiguous; NULL: it does not */
  const void **host_inputs;
  void **scratch_operands; /* of the kernel step being run */
  int64_t *scratch_params;
  uint64_t *scratch_bytes;
  const void *const *weights;
  const void **weight_table; /* made at create for an external weights file */
  size_t weight_table_bytes;
  void *weights_map;
  size_t weights_map_bytes;

  void *arena;
  size_t arena_bytes;
  int64_t *last_dims; /* dims of the inputs of the last prepared run, one after the other */
  bool ready;         /* create succeeded */
  bool prepared;
  bool *data_dependent; /* by output: known only after a run */
  void **staging;       /* by input, then output: contiguous copies of strided tensors */
  size_t *staging_bytes;
  /* By output: where it lies on a device, as the driver's callers know it */
  uint64_t (*described)[2];
  int64_t reported;          /* what the last runtime op reported */
  struct cmz_values *values; /* values.c's; NULL when the program has none */

  uint64_t memory; /* bytes taken from the allocator */
  bool profiling;
  uint64_t profile_last;
  /* Of the last run that was not profiled: dispatches, barriers, submissions */
  uint64_t device_counts[3];
  cmz_profile_cell *profile; /* step_count + 1; the last is everything outside of steps */
  int code;
  char error[512];
};

void *cmz_memory_take(cmz_model *m, size_t bytes);
void cmz_memory_give(cmz_model *m, void *memory, size_t bytes);
/* Memory of the data that kernels work on: the device's when there is one, else the host's
 * (cmz_memory_take). data.c */
void *cmz_data_take(cmz_model *m, size_t bytes);
void cmz_data_give(cmz_model *m, void *memory, size_t bytes);
/* Why cmz_data_take gave nothing, as the instance's error: BYTES for WHAT. */
int cmz_data_none(cmz_model *m, int64_t bytes, const char *what);
/* Between such memory and such memory (which may overlap on the host only), to the host, from the
 * host. */
int cmz_data_copy(cmz_model *m, void *to, const void *from, size_t bytes);
int cmz_data_read(cmz_model *m, void *host, const void *from, size_t bytes);
int cmz_data_write(cmz_model *m, void *to, const void *host, size_t bytes);
/* Opens the program's device and puts the weights there. */
int cmz_data_open(cmz_model *m);
void cmz_data_close(cmz_model *m);
/* Records a message and returns CODE. */
int cmz_fail_run(cmz_model *m, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Makes OWNED[B] at least BYTES long; the old content stays when KEEP. Sets pointers[B]. */
int cmz_buffer_reserve(cmz_model *m, uint32_t b, int64_t bytes, bool keep);
void cmz_sizes_run(const cmz_program *p, int64_t *slots, uint32_t first, uint32_t count);
int cmz_block_run(cmz_model *m, uint32_t block);
int cmz_weights_map(cmz_model *m);
/* Time since the last call goes to cell INDEX of the profile. */
void cmz_profile_charge(cmz_model *m, uint32_t index);
/* Bits of an element type; 0 for strings and unknown ones. */
uint32_t cmz_element_bits(uint32_t element);
/* Bytes of a row-major tensor; -1 when the size makes no sense. */
int64_t cmz_tensor_bytes(uint32_t element, uint32_t rank, const int64_t *dims);
/* Copies between a strided tensor and contiguous memory. */
void cmz_strided_copy(void *to, const void *from, uint32_t element, uint32_t rank,
                      const int64_t *dims, const int64_t *strides, bool gather);

#endif
