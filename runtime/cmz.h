/* cmz.h - the C interface of a compiled model. C99, C++-safe, no dependencies.
 *
 * A compiled model exports `const cmz_api *NAME_api(void)`; a shared library also exports it as
 * `cmz_model_api`, so that one program can load any model with dlopen. There is no global state:
 * any number of instances share one copy of the weights and may run at the same time in different
 * threads (one thread at a time per instance). Structs that grow have a struct_size: members past
 * it are not there. */
#ifndef CMZ_H
#define CMZ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CMZ_ABI_VERSION 1

/* Element types: the numbering of ONNX's TensorProto.DataType. Sub-byte types are packed, low bits
 * first. */
typedef enum cmz_element {
  CMZ_ELEMENT_F32 = 1,
  CMZ_ELEMENT_U8 = 2,
  CMZ_ELEMENT_I8 = 3,
  CMZ_ELEMENT_U16 = 4,
  CMZ_ELEMENT_I16 = 5,
  CMZ_ELEMENT_I32 = 6,
  CMZ_ELEMENT_I64 = 7,
  CMZ_ELEMENT_STRING = 8,
  CMZ_ELEMENT_BOOL = 9,
  CMZ_ELEMENT_F16 = 10,
  CMZ_ELEMENT_F64 = 11,
  CMZ_ELEMENT_U32 = 12,
  CMZ_ELEMENT_U64 = 13,
  CMZ_ELEMENT_C64 = 14,
  CMZ_ELEMENT_C128 = 15,
  CMZ_ELEMENT_BF16 = 16,
  CMZ_ELEMENT_F8E4M3FN = 17,
  CMZ_ELEMENT_F8E4M3FNUZ = 18,
  CMZ_ELEMENT_F8E5M2 = 19,
  CMZ_ELEMENT_F8E5M2FNUZ = 20,
  CMZ_ELEMENT_U4 = 21,
  CMZ_ELEMENT_I4 = 22,
  CMZ_ELEMENT_F4E2M1 = 23,
  CMZ_ELEMENT_F8E8M0 = 24,
  CMZ_ELEMENT_U2 = 25,
  CMZ_ELEMENT_I2 = 26
} cmz_element;

typedef enum cmz_memory { CMZ_MEMORY_HOST = 0, CMZ_MEMORY_DEVICE = 1 } cmz_memory;

/* Results of every call; 0 is success. The numbers are pinned. */
typedef enum cmz_result {
  CMZ_SUCCESS = 0,
  CMZ_INVALID_ARGUMENT = 1, /* a wrong input: type, rank, dims, memory; `error` names it */
  CMZ_OUT_OF_MEMORY = 2,
  /* CPU, driver, device or weights file that the model needs is missing */
  CMZ_UNAVAILABLE = 3,
  /* Data made the run impossible (index out of range, size out of its range) */
  CMZ_RUN_FAILED = 4
} cmz_result;

#define CMZ_MAX_DIMS 16

typedef struct cmz_tensor {
  void *data;
  uint32_t memory;  /* cmz_memory */
  uint32_t element; /* cmz_element */
  uint32_t rank;
  uint32_t reserved;
  int64_t dims[CMZ_MAX_DIMS];
  int64_t strides[CMZ_MAX_DIMS]; /* bytes; all 0: contiguous row-major */
  size_t bytes;                  /* size of the memory at data */
} cmz_tensor;

/* Kinds of values. The element type CMZ_ELEMENT_STRING makes a tensor's data an array of `const
 * char *`: zero-terminated UTF-8, one string an element (NULL reads as ""). */
typedef enum cmz_value_kind {
  CMZ_VALUE_NONE = 0,    /* an optional that is absent */
  CMZ_VALUE_TENSOR = 1,  /* one item */
  CMZ_VALUE_SEQUENCE = 2 /* any number of items, of one element type */
} cmz_value_kind;

/* A tensor, a sequence of tensors, or nothing; zeroed it is nothing. An optional that is present is
 * simply its content. */
typedef struct cmz_value {
  uint32_t kind; /* cmz_value_kind */
  uint32_t reserved;
  size_t count; /* of items */
  cmz_tensor *items;
} cmz_value;

/* What an input or output takes or gives: one of these. */
typedef enum cmz_port_kind {
  CMZ_PORT_TENSOR = 0,
  CMZ_PORT_SEQUENCE = 1,
  CMZ_PORT_OPTIONAL = 2 /* tensor or nothing */,
  CMZ_PORT_OPTIONAL_SEQUENCE = 3
} cmz_port_kind;

#define CMZ_DIM_AFTER_RUN INT64_MIN
#define CMZ_DIM_COMPUTED (INT64_MIN + 1)

/* One input, output or state in a model's description. */
typedef struct cmz_port {
  const char *name; /* as in the source model */
  /* Element type of all items; rank: of a tensor, 0 for the other kinds, whose items may differ */
  uint32_t element, rank;
  const int64_t *dims; /* -1 - i: symbolic dim i of the description; CMZ_DIM_AFTER_RUN: known only
                          after a run (in memory of the instance); CMZ_DIM_COMPUTED: follows from
                          the symbolic dims, filled in by run */
} cmz_port;

/* A symbolic dimension: its name and inclusive range. */
typedef struct cmz_symbolic_dim {
  const char *name;
  int64_t low, high;
} cmz_symbolic_dim;

typedef struct cmz_description {
  size_t struct_size;
  const char *name;     /* of the model */
  const char *target;   /* "x86_64-linux-gnu x86-64-v3,x86-64-v4" */
  const char *compiler; /* "cmzc 0.1.0" */
  uint32_t input_count, output_count, state_count, dim_count;
  const cmz_port *inputs, *outputs, *states;
  const cmz_symbolic_dim *dims;
  uint64_t weight_bytes;
  uint32_t default_threads; /* 0: one a physical core */
  /* Cmz_port_kind of each; NULL: all are tensors */
  const uint32_t *input_kinds, *output_kinds;
} cmz_description;

/* The caller's own parallel loop: calls body(user, i) for 0 <= i < count, in any order and thread,
 * and returns when all are done. */
typedef void cmz_parallel_for(void *context, uint32_t count,
                              void (*body)(void *user, uint32_t index), void *user);

/* Zeroed (but for struct_size) it is a good default. */
typedef struct cmz_config {
  size_t struct_size;             /* sizeof(cmz_config) */
  uint32_t threads;               /* 0: the model's default */
  int32_t device;                 /* GPU number */
  cmz_parallel_for *parallel_for; /* instead of threads of its own */
  void *parallel_context;
  uint32_t parallel_count; /* how many bodies parallel_for can usefully run at once */
  uint32_t reserved;
  /* Instead of malloc; both or none */
  void *(*allocate)(void *context, size_t bytes, size_t alignment);
  void (*release)(void *context, void *memory, size_t bytes);
  void *allocate_context;
  /* GPU: the caller's CUstream, whose context and device are then used; or a cmz_vulkan */
  void *stream;
  /* --weights external: where the weights file is, when not beside the library */
  const char *weights_path;
  /* The CPU level to run, by its name ("x86-64-v3"); NULL: the best that this machine can */
  const char *cpu;
} cmz_config;

/* A Vulkan device of the caller's, which `stream` of a model for Vulkan points to; it is read by
 * create alone. What it names outlives the instance. Instances on one device and queue share their
 * weights. The queue computes; as Vulkan demands, one thread uses it at a time, and a run uses it.
 * A run's work comes after the caller's earlier work on the queue, which makes what it wrote
 * visible to compute shaders and copies; later work waits for compute shaders and copies with a
 * barrier of its own. */
typedef struct cmz_vulkan {
  size_t struct_size; /* sizeof(cmz_vulkan) */
  /* VkInstance, VkPhysicalDevice, VkDevice, VkQueue */
  void *instance, *physical_device, *device, *queue;
  uint32_t queue_family, reserved;
  /* What `device` was made with, VkDeviceCreateInfo's pNext: VkPhysicalDeviceFeatures2 and others;
   * NULL: nothing */
  const void *features;
  /* VkGetInstanceProcAddr; NULL: that of libvulkan.so.1 */
  void (*get_instance_proc_addr)(void);
} cmz_vulkan;

/* What `data` of a tensor in a Vulkan device's memory points to: a buffer for storage and for
 * copies both ways, whose size is a multiple of 4, and which, in a tensor of the caller's, outlives
 * the instance. */
typedef struct cmz_vulkan_memory {
  uint64_t buffer, offset; /* VkBuffer; bytes */
} cmz_vulkan_memory;

typedef struct cmz_model cmz_model; /* an instance */

/* Time spent in one step since `profile` was switched on. */
typedef struct cmz_profile_row {
  const char *name;   /* source nodes */
  const char *kernel; /* kernel or runtime op */
  uint64_t nanoseconds, calls;
  uint64_t flops, bytes; /* of one call, at the last sizes; 0 when not known */
  uint32_t is_runtime_op;
  uint32_t reserved;
} cmz_profile_row;

typedef struct cmz_api {
  uint32_t abi_version; /* CMZ_ABI_VERSION */
  uint32_t reserved;
  size_t struct_size;
  const cmz_description *description;
  /* Bytes of working memory for symbolic dims DIMS (description order; NULL when there are none);
   * 0: out of range. */
  size_t (*arena_bytes)(const int64_t *dims);
  /* Makes an instance. On failure *model still is an instance (unless memory ran out) that only
   * serves `error`. */
  int (*create)(const cmz_config *config, cmz_model **model);
  /* Runs. INPUTS and OUTPUTS are arrays in description order. An output with data == NULL is given
   * the instance's own memory, valid until its next run; element, rank, dims and bytes are always
   * filled in. GPU models take tensors in device memory (memory = CMZ_MEMORY_DEVICE) beside those
   * in host memory; an output in device memory with data == NULL stays where the instance has it.
   * On a stream of the caller's `run` waits only for what it copies to host memory; everything else
   * is done when the stream is. */
  int (*run)(cmz_model *model, const cmz_tensor *inputs, cmz_tensor *outputs);
  void (*destroy)(cmz_model *model);
  /* Message of the last failed call; "" after success; never NULL */
  const char *(*error)(const cmz_model *model);
  /* Switches timing on (1) or off (0) and clears it; rows are read by profile_rows (count returned,
   * at most CAPACITY written). */
  void (*profile)(cmz_model *model, int on);
  uint32_t (*profile_rows)(const cmz_model *model, cmz_profile_row *rows, uint32_t capacity);
  uint64_t (*memory_bytes)(const cmz_model *model); /* working memory of the instance now */
  /* The same as `run` for models with sequences or optionals among their inputs and outputs, which
   * `run` refuses; NULL for models that have neither these nor strings. INPUTS are read only, and
   * only during the call. Of OUTPUTS those of kind CMZ_VALUE_TENSOR with one item are treated as
   * `run` treats them; what the others hold is ignored, and they become values in the instance's
   * own memory, strings and items included, valid until its next run. */
  int (*run_values)(cmz_model *model, const cmz_value *inputs, cmz_value *outputs);
} cmz_api;

#ifdef __cplusplus
}
#endif
#endif
