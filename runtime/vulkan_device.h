/* vulkan_device.h - the state of Vulkan's driver, shared by its files: vulkan_gpu.c opens,
 * vulkan_memory.c has blocks and transfers, vulkan_commands.c records and submits. Always holds: an
 * address is made up (each block of memory has a range of its own, never used again); work is
 * gathered in a segment, a list of commands that ends where somebody waits; a segment that was
 * recorded before with the same commands is submitted again as it is. */
#ifndef CMZ_RUNTIME_VULKAN_DEVICE_H
#define CMZ_RUNTIME_VULKAN_DEVICE_H

#include "vulkan_api.h"

enum { VK_WORD_ALIGNMENT = 256, VK_MOST_SEGMENTS = 32, VK_COPY_COMMAND = UINT32_MAX };

typedef struct vk_block {
  struct vk_block *next;
  uint64_t address, bytes;
  vk_handle buffer, memory;
  char *host;     /* NULL: not mapped */
  bool slow_read; /* mapped, but reading it costs the host much */
  /* Buffer and memory are not the instance's: the weights, and buffers of the caller's */
  bool foreign;
} vk_block;

/* A kernel or a copy (VK_COPY_COMMAND). Its values: address, bytes and access of each operand, then
 * the params. */
typedef struct vk_command {
  uint32_t kernel, tiles, operand_count, param_count, first;
} vk_command;
typedef struct vk_touched {
  uint64_t begin, end;
  uint32_t access;
} vk_touched;

typedef struct vk_segment {
  vk_object commands;
  vk_handle pool;  /* of descriptor sets */
  uint32_t sets;   /* that POOL has */
  vk_block *words; /* what kernels read besides operands */
  vk_command *log;
  uint64_t *values;
  uint32_t count, log_capacity, value_count, value_capacity;
  bool recorded; /* COMMANDS does what the log says */
  uint32_t dispatches, barriers;
  uint64_t used; /* when, in submissions */
} vk_segment;

/* An open device: an entry of the program's list. */
typedef struct vk_gpu {
  cmz_shared shared;
  int32_t ordinal;
  bool callers, named; /* it is the caller's; its image was asked for by name */
  bool discrete, processor;
  void *library;
  void *(*find)(vk_object, const char *);
  vk_object instance, physical, device, queue;
  vk_handle set_layout, layout;
  vk_memory_properties memory;
  uint64_t most_range, alignment, words_stride;
  uint32_t most_groups, bindings, window_shift, family, version /* times ten */, level_number;
  uint32_t queue_lock;
  vk_block weights;     /* without a buffer: not there yet */
  vk_handle *pipelines; /* by kernel */
#define VULKAN_MEMBER(member, name, result, parameters) result(*member) parameters;
  VULKAN_INSTANCE_FUNCTIONS(VULKAN_MEMBER)
#undef VULKAN_MEMBER
} vk_gpu;

struct cmz_device {
  cmz_model *model;
  vk_gpu *gpu;
  vk_handle command_pool, fence;
  bool lost;
  bool pending; /* the fence is to be waited for */
  vk_block *blocks;
  uint64_t next_address;
  vk_block *staging;
  uint64_t staging_used; /* by the open segment */

  vk_segment segments[VK_MOST_SEGMENTS];
  vk_segment *open;    /* NULL: no work is waiting */
  uint32_t cursor;     /* commands of OPEN that are wanted so far */
  bool matching;       /* they are those it was recorded with */
  uint32_t expected;   /* the segment that followed last time */
  vk_touched *touched; /* since the last barrier */
  uint32_t touched_count, touched_capacity;
  cmz_device_counts counts;
  uint64_t time;    /* submissions so far */
  vk_range *ranges; /* of the kernel being recorded */
  vk_write *writes;
};

/* D: NULL while it is being opened. */
int cmz_vulkan_fail(cmz_model *m, cmz_device *d, vk_result code, const char *what);

/* ---- vulkan_gpu.c: both under the program's lock ---- */
int cmz_vulkan_gpu_open(cmz_model *m, vk_gpu **out);
void cmz_vulkan_gpu_close(const cmz_program *p, vk_gpu *g);

/* ---- vulkan_memory.c ---- */
/* Memory for kernels' data (LOCAL: near the device, perhaps not mapped) or for what the host writes
 * and reads; NULL when there is none. */
vk_block *cmz_vulkan_block(cmz_device *d, uint64_t bytes, bool local);
void cmz_vulkan_block_free(cmz_device *d, vk_block *b);
const vk_block *cmz_vulkan_find(const cmz_device *d, uint64_t address, uint64_t *offset);
void *cmz_vulkan_take(cmz_device *d, size_t bytes);
void cmz_vulkan_give(cmz_device *d, void *memory, size_t bytes);
void *cmz_vulkan_take_weights(cmz_device *d, size_t bytes, bool *fresh);
void *cmz_vulkan_address(cmz_device *d, const void *data);
void cmz_vulkan_describe(cmz_device *d, const void *address, uint64_t words[2]);
int cmz_vulkan_read(cmz_model *m, cmz_device *d, void *host, const void *from, size_t bytes);
int cmz_vulkan_write(cmz_model *m, cmz_device *d, void *to, const void *host, size_t bytes);
int cmz_vulkan_copy(cmz_model *m, cmz_device *d, void *to, const void *from, size_t bytes);

/* ---- vulkan_commands.c ---- */
/* The bytes that the bindings of an operand of ACCESS reach. */
uint64_t cmz_vulkan_reach(const cmz_device *d, uint64_t access);
int cmz_vulkan_launch(cmz_model *m, cmz_device *d, const cmz_launch *launch);
int cmz_vulkan_add_copy(cmz_model *m, cmz_device *d, uint64_t to, uint64_t from, uint64_t bytes);
int cmz_vulkan_wait(cmz_model *m, cmz_device *d);
int cmz_vulkan_end(cmz_model *m, cmz_device *d);
/* Waits for what was submitted and not waited for. */
vk_result cmz_vulkan_settle(cmz_device *d);
void cmz_vulkan_begin(cmz_device *d);
void cmz_vulkan_count(const cmz_device *d, cmz_device_counts *counts);
void cmz_vulkan_segments_free(cmz_device *d);

#endif
