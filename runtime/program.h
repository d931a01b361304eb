/* program.h - the tables in which a compiled model's plan lies in its file: what the compiler
 * writes and the runtime interprets. Only this header and cmz.h are shared between the two. Sizes
 * are int64 "slots": constants, symbolic input dims, and results of the size program. Always holds:
 * every index is in range and every slot is defined before use (the compiler's plan verifier proves
 * it; the runtime trusts it). */
#ifndef CMZ_RUNTIME_PROGRAM_H
#define CMZ_RUNTIME_PROGRAM_H

#include "cmz.h"

/* What a kernel gets. Params are sizes; operands are base addresses. */
typedef struct cmz_kargs {
  void *const *operands;
  const int64_t *params;
} cmz_kargs;
/* Computes grid tiles [begin, end). */
typedef void cmz_kernel_function(const cmz_kargs *args, uint32_t begin, uint32_t end,
                                 uint32_t worker);

/* slot[dst] = op(slot[a], slot[b], slot[c]) */
typedef enum cmz_size_op {
  CMZ_SIZE_ADD,
  CMZ_SIZE_MUL,
  CMZ_SIZE_FLOORDIV,
  CMZ_SIZE_MOD,
  CMZ_SIZE_MIN,
  CMZ_SIZE_MAX,
  CMZ_SIZE_BROADCAST /* a == 1 ? b : a */,
  CMZ_SIZE_EQ,
  CMZ_SIZE_SELECT /* a ? b : c */,
  CMZ_SIZE_SCALE /* floor(a * the double whose bits are b) */,
  CMZ_SIZE_ALIGN /* a rounded up to a multiple of b */
} cmz_size_op;
typedef struct cmz_size_instruction {
  uint32_t op, dst, a, b, c;
} cmz_size_instruction;

typedef enum cmz_program_buffer_kind {
  CMZ_PB_INPUT,
  CMZ_PB_OUTPUT,
  CMZ_PB_CONSTANT,
  CMZ_PB_ARENA,
  CMZ_PB_HEAP,
  CMZ_PB_ALIAS
} cmz_program_buffer_kind;
typedef struct cmz_program_buffer {
  uint32_t kind;
  uint32_t index;       /* input / output number; index into weight pointers; ALIAS: buffer */
  uint32_t offset_slot; /* ARENA */
  uint32_t bytes_slot;
  uint32_t element, rank;
  uint32_t dim_slots; /* first of RANK entries in `lists`: slots of the dims */
  uint32_t value; /* CMZ_PB_VALUE; 0: a tensor. Else RANK is 0, and dim_slots lists the dims of the
                     tensors inside that are known (UINT32_MAX: not), as many as the rank inside */
} cmz_program_buffer;
/* Kind: cmz_port_kind; INSIDE: 1 + the rank of the tensors inside, or 0 when that is not known. */
#define CMZ_PB_VALUE(kind, inside) ((uint32_t)(kind) | (uint32_t)(inside) << 8)

enum {
  CMZ_ACCESS_READ = 1,
  CMZ_ACCESS_WRITE = 2,
  CMZ_ACCESS_WINDOWS = 8 /* from this bit on: how many bindings Vulkan gives it */
};
typedef enum cmz_program_step_kind {
  CMZ_PS_KERNEL,
  CMZ_PS_RUNTIME,
  CMZ_PS_COPY,
  CMZ_PS_BIND,
  CMZ_PS_IF,
  CMZ_PS_LOOP,
  CMZ_PS_SIZES /* run size instructions [a, a+b): after BIND, and what an op reported */
} cmz_program_step_kind;
/* Every "list" field is an index into cmz_program.lists. */
typedef struct cmz_program_step {
  uint32_t kind;
  uint32_t a, b; /* KERNEL: a = kernel; RUNTIME: a = index into `ops`, b = list of attribute words,
                    see ops.h; COPY: from, to; BIND: a = slot, b = element; IF: a = then block, b =
                    else block; LOOP: a = list, see CMZ_LOOP_HEADER; SIZES: a = first, b = count */
  uint32_t operands, operand_count; /* list of buffers; BIND and IF: operands[0] */
  uint32_t access;                  /* KERNEL: list of CMZ_ACCESS_…, one an operand */
  /* List of slots; BIND: none, or the least and the greatest value that is right */
  uint32_t params, param_count;
  /* KERNEL: list of slots: number of grid tiles, one a level or image */
  uint32_t tiles;
  /* Into strings: the source node names, for profiles and errors */
  uint32_t name;
  uint32_t kernel_name;
  uint32_t flops_slot, bytes_slot; /* for profiles; slot 0 is always 0 */
} cmz_program_step;

typedef struct cmz_program_block {
  uint32_t first, count;
} cmz_program_block;

/* Dims of an input are checked against these before a run: the slot's value must equal the dim
 * (constant dims) or is set from it (symbols, checked against the range in the description). */
typedef struct cmz_program_input_dim {
  uint32_t slot;
  uint32_t is_symbol;
} cmz_program_input_dim;

#define CMZ_MAX_CPU_LEVELS 8
/* One CPU level: the features it needs, by the runtime's own bit numbers (cpu.h), and its kernels.
 */
typedef struct cmz_program_level {
  const char *name;
  uint64_t features;
  cmz_kernel_function *const *kernels;
} cmz_program_level;

#define CMZ_IMAGE_EXACTLY 1000
/* Code for a GPU: the kernels of one level, in the order of the program's. */
typedef struct cmz_program_image {
  const char *name; /* "sm_80" */
  /* Compute capability times ten, CMZ_IMAGE_EXACTLY more: that one alone; CMZ_IMAGE_VULKAN's
   * number; the best image that the device can run is taken */
  uint32_t needs;
  /* Vulkan: the 32-bit word of DATA where the places of its modules begin, two offsets a kernel */
  uint32_t first;
  /* PTX, ending in 0; Vulkan: places and modules, of all images together */
  const void *data;
  uint64_t bytes;
  const char *const *kernels; /* entry names */
  uint32_t threads, reserved; /* of a work-group */
} cmz_program_image;
struct cmz_device_driver;
/* What the instances of a library have in common on devices (device.h); zeroed in the file, and the
 * only thing there that is written to. */
typedef struct cmz_commons {
  uint32_t lock, reserved;
  struct cmz_shared *entries;
} cmz_commons;
typedef struct cmz_program_device {
  const struct cmz_device_driver *driver; /* device.h */
  uint32_t image_count, reserved;
  const cmz_program_image *images; /* best first */
  cmz_commons *commons;
} cmz_program_device;

typedef struct cmz_program {
  const cmz_description *description;
  uint32_t slot_count, instruction_count, buffer_count, step_count, block_count, level_count,
      kernel_count, list_count;
  const int64_t *slot_init; /* constants; 0 elsewhere */
  /* [0, entry_instructions) run when input dims change */
  const cmz_size_instruction *instructions;
  uint32_t entry_instructions;
  uint32_t arena_slot; /* arena bytes */
  const cmz_program_buffer *buffers;
  const cmz_program_step *steps;
  const cmz_program_block *blocks; /* [0]: the entry */
  const uint32_t *lists;
  const char *strings;
  const cmz_program_input_dim *const *input_dims; /* [input][dim] */
  const uint32_t *dim_slots;                      /* slot of each symbolic dim of the description */
  const uint32_t *output_buffers, *input_buffers; /* buffer of each */
  /* Best first; the last has features 0 unless none fits */
  const cmz_program_level *levels;
  /* Address of each constant; NULL entries with external weights: */
  const void *const *weights;
  const uint64_t *weight_offsets; /* offset of each in OUTPUT.weights, or NULL */
  const uint64_t *weight_sizes;
  const char *weights_file;    /* base name, or NULL when embedded */
  const uint8_t *weights_hash; /* 16 bytes at the start of the weights file */
  /* The runtime ops that this program uses: RUNTIME steps' `a` is an index into it */
  struct cmz_program_op const *ops;
  uint32_t op_count;
  /* values.c, or NULL: neither strings, sequences nor optionals anywhere */
  struct cmz_value_functions const *values;
  const cmz_program_device *device; /* NULL: the kernels of `levels` run on the CPU */
} cmz_program;

/* Only the ops in use are referred to, so that the others are dropped when the model is linked.
 * ops.h has the type of `function`. */
struct cmz_op_call;
typedef struct cmz_program_op {
  int (*function)(struct cmz_op_call *call);
  const char *name;
} cmz_program_op;

/* The list of a LOOP step: CMZ_LOOP_HEADER words, then CARRIED triples (initial, state, next),
 * SCAN_IN triples (whole, slice, reverse), SCAN_OUT triples (body's output, whole, reverse).
 * Buffers and slots that are absent are UINT32_MAX. A SIZES step after whatever sets data-dependent
 * slots (BIND, COPY, IF, LOOP, and at the start of a loop's body) brings the slots that depend on
 * them up to date; the compiler puts it there. */
enum {
  CMZ_LOOP_TRIP_COUNT,
  CMZ_LOOP_CONDITION,
  CMZ_LOOP_BODY_CONDITION,
  CMZ_LOOP_ITERATION,
  CMZ_LOOP_BODY,
  CMZ_LOOP_SCAN_LENGTH_SLOT,
  CMZ_LOOP_FINAL_COUNT_SLOT,
  CMZ_LOOP_CARRIED,
  CMZ_LOOP_SCAN_IN,
  CMZ_LOOP_SCAN_OUT,
  CMZ_LOOP_HEADER
};
/* BIND with this element: what the last runtime op reported. */
#define CMZ_BIND_REPORTED UINT32_MAX

/* The generic implementation behind every model's cmz_api: the generated functions pass their
 * program. */
int cmz_instance_create(const cmz_program *program, const cmz_config *config, cmz_model **model);
int cmz_instance_run(cmz_model *model, const cmz_tensor *inputs, cmz_tensor *outputs);
int cmz_instance_run_values(cmz_model *model, const cmz_value *inputs, cmz_value *outputs);
void cmz_instance_destroy(cmz_model *model);
const char *cmz_instance_error(const cmz_model *model);
size_t cmz_instance_arena_bytes(const cmz_program *program, const int64_t *dims);
void cmz_instance_profile(cmz_model *model, int on);
uint32_t cmz_instance_profile_rows(const cmz_model *model, cmz_profile_row *rows,
                                   uint32_t capacity);
uint64_t cmz_instance_memory_bytes(const cmz_model *model);

#endif
