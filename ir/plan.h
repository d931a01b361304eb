/* plan.h - the plan: what `run` does, as data. Steps over buffers in nested blocks, with symbolic
 * sizes. In: the fused, laid-out, scheduled module (passes/plan). Out: codegen/program writes it as
 * the tables that the runtime interprets; tests print it, verify it and run it with reference
 * kernels. Always holds: no two buffers that are alive at the same step overlap in the arena
 * (cmz_plan_verify). */
#ifndef CMZ_IR_PLAN_H
#define CMZ_IR_PLAN_H

#include "kernel.h"
#include "module.h"

typedef enum cmz_buffer_kind {
  CMZ_BUFFER_INPUT, /* index: entry input number; memory of the caller */
  /* Index: entry output number; memory of the caller, or of the instance when its size is
     data-dependent */
  CMZ_BUFFER_OUTPUT,
  CMZ_BUFFER_CONSTANT, /* index: cmz_cid */
  CMZ_BUFFER_ARENA,    /* offset in the instance's arena */
  /* Size known only during the run, or carried by a loop: owned by the instance, grown when needed
   */
  CMZ_BUFFER_HEAP,
  CMZ_BUFFER_ALIAS, /* the bytes of buffer `index` (views) */
} cmz_buffer_kind;

typedef struct cmz_buffer {
  cmz_buffer_kind kind;
  uint32_t index;
  cmz_vid value;        /* for names, dtype and shape */
  cmz_dim bytes;        /* rounded up by the allocator, not here */
  cmz_dim offset;       /* ARENA: a multiple of CMZ_ARENA_ALIGNMENT */
  uint32_t first, last; /* ARENA: life as positions in the linear order of all steps */
} cmz_buffer;
#define CMZ_ARENA_ALIGNMENT 64

typedef enum cmz_step_kind {
  CMZ_STEP_KERNEL, /* kernel `index`, operands, params, tiles */
  /* Op of the runtime's closed table; `node` gives op and attributes; operands: inputs, then
     outputs */
  CMZ_STEP_RUNTIME,
  CMZ_STEP_COPY, /* operands[0] -> operands[1], and its shape when that is data-dependent */
  CMZ_STEP_BIND, /* symbols of CMZ_SYMBOL_DATA get their values: symbol, operand, element */
  CMZ_STEP_IF,   /* operands[0] a bool; blocks[0] then, blocks[1] else */
  CMZ_STEP_LOOP, /* see cmz_plan_loop */
} cmz_step_kind;

typedef struct cmz_plan_loop {
  uint32_t trip_count; /* buffer (i64 scalar) or CMZ_NO_BUFFER: unbounded */
  /* Buffer (bool): start value in, updated by the body; or CMZ_NO_BUFFER */
  uint32_t condition;
  uint32_t body_condition; /* buffer the body writes its condition to */
  /* Buffer (i64 scalar) the loop writes the iteration number to; or CMZ_NO_BUFFER */
  uint32_t iteration;
  /* initial[i] is copied to state[i] first; after the body, next[i] to state[i] */
  uint32_t carried_count;
  uint32_t *initial, *state, *next;
  /* scan_in[i]'s slice along axis 0 is copied to slice[i] before the body */
  uint32_t scan_in_count;
  uint32_t *scan_in, *scan_slice;
  bool *scan_in_reverse;
  uint32_t scan_out_count; /* body_out[i] is appended along axis 0 to scan_out[i] */
  uint32_t *body_out, *scan_out;
  bool *scan_out_reverse;
  /* Scan: number of iterations (trip_count is CMZ_NO_BUFFER); else CMZ_DIM_NONE */
  cmz_dim scan_length;
  /* Loop: symbol that receives the number of iterations done, or CMZ_DIM_NONE */
  cmz_dim final_count;
} cmz_plan_loop;
#define CMZ_NO_BUFFER UINT32_MAX

typedef struct cmz_step {
  cmz_step_kind kind;
  uint32_t index; /* KERNEL: into kernels */
  cmz_nid node;   /* source of names, for profiles and errors */
  uint32_t operand_count;
  uint32_t *operands; /* buffers */
  uint32_t param_count;
  cmz_dim *params;
  /* KERNEL: grid tiles under the schedule of each level */
  uint32_t level_count;
  cmz_dim *tiles;
  /* BIND; with two params the value must lie in [params[0], params[1]] or the run fails */
  uint32_t symbol;
  int64_t element;
  uint32_t block_count;
  uint32_t blocks[2];
  cmz_plan_loop *loop;
} cmz_step;

typedef struct cmz_block {
  CMZ_VEC(cmz_step) steps;
} cmz_block;

/* SCHEDULES: one a level of the target, best first. */
typedef struct cmz_plan_kernel {
  cmz_kernel *kernel;
  cmz_schedule *schedules;
  cmz_hash128 hash;
} cmz_plan_kernel;

typedef struct cmz_plan {
  cmz_module *module;
  cmz_arena *arena;
  CMZ_VEC(cmz_buffer) buffers;
  CMZ_VEC(cmz_plan_kernel) kernels; /* equal ones once */
  CMZ_VEC(cmz_block) blocks;        /* [0] is the entry */
  cmz_dim arena_bytes;
} cmz_plan;

void cmz_plan_print(const cmz_plan *p, cmz_text *text);
cmz_status cmz_plan_verify(const cmz_plan *p);
/* Runs the plan on concrete inputs with the reference kernel interpreter and the evaluator for
 * runtime ops. Outputs' data is allocated in ARENA. For tests and --check-passes. */
struct cmz_array;
cmz_status cmz_plan_interpret(const cmz_plan *p, cmz_arena *arena, const struct cmz_array *inputs,
                              struct cmz_array *outputs);

#endif
