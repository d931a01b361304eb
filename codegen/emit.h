/* emit.h - what the files of the CPU emitter share: emit.c (function, grid, stores), emit_expr.c
 * (expressions), emit_memory.c (loads and addresses), emit_reduce.c (REDUCE). In: kernel.h's
 * descriptions. Out: one func.func. Always holds: an expression's operations are placed in the
 * outermost open scope in which all its axes are bound; a value found in the table belongs to a
 * scope on the current path, so it dominates every use. */
#ifndef CMZ_CODEGEN_EMIT_H
#define CMZ_CODEGEN_EMIT_H

#include "builder.h"
#include "codegen.h"

#define CMZ_EMIT_MAX_AXES 256
#define CMZ_EMIT_MAX_DEPTH 96
#define CMZ_EMIT_MAX_INSTANCES 256

typedef struct axis_set {
  uint64_t words[CMZ_EMIT_MAX_AXES / 64];
} axis_set;

/* A region that is being filled: its depth is its place on the path from the function's entry. */
typedef struct scope {
  MlirBlock block;
  uint32_t depth;
} scope;

/* How an axis is bound now: value = base + offset (+ the lane when it is the vector axis). */
typedef struct axis_state {
  bool bound;
  uint32_t id;    /* of this binding: part of every key */
  uint32_t depth; /* of the scope that BASE belongs to */
  MlirValue base;
  bool is_constant; /* BASE is the constant VALUE */
  int64_t value;
  uint32_t instances; /* iterations computed side by side (times lanes) */
  uint32_t offset;    /* of the instance being emitted */
  uint32_t lanes;     /* above 1: the vector axis */
  /* OFFSET takes all values below this one, whatever guards say; 0: not known */
  uint32_t steps;
  bool masked; /* the vector's last lanes lie past the end: */
  /* The last instances lie past the end: they repeat the last value and are not stored */
  bool clamped;
  MlirValue last;    /* the axis' last value, for clamping single lanes and instances */
  MlirValue mask;    /* which lanes exist */
  int64_t low, high; /* bounds of all values of the axis, inclusive, when known */
  bool limited;      /* BASE is known to lie within: */
  int64_t base_low, base_high;
} axis_state;

typedef struct expr_info {
  axis_set free;
  bool has_load, has_reduce, has_written_load;
} expr_info;

typedef struct memo_entry {
  struct memo_entry *next;
  uint64_t key;
  scope *scope;
  MlirValue value;
} memo_entry;
#define CMZ_EMIT_BUCKETS 4096

/* A fact that holds in SCOPE and below: predicate PREDICATE is true (1) or false (-1) for the
 * instances where it is used. */
typedef struct assumption {
  cmz_expr predicate;
  scope *scope;
  int truth;
} assumption;

/* A constant buffer that guarded loads read where their guard is false. */
#define CMZ_EMIT_MAX_FILLS 4
typedef struct fill_buffer {
  uint32_t bits;
  uint32_t bytes;
} fill_buffer;

/* The guard around a guard; id 0: none. */
typedef struct outer_guard {
  uint64_t id;
  const struct outer_guard *next;
} outer_guard;

typedef struct emitter {
  cmz_context *ctx;
  cmz_arena *arena;
  const cmz_kernel *k;
  const cmz_schedule *s;
  cmz_builder b;
  expr_info *info;  /* per expression */
  axis_state *axes; /* per axis */
  scope *path[CMZ_EMIT_MAX_DEPTH];
  uint32_t depth; /* of the innermost open scope */
  memo_entry *memo[CMZ_EMIT_BUCKETS];
  int32_t lane;      /* -1: vectors; otherwise the single lane being computed */
  bool guarded;      /* inside a SELECT whose condition is not known: */
  MlirValue guard;   /* loads happen only where this holds (scalar or mask) */
  uint32_t guard_at; /* the depth of the scope that GUARD belongs to */
  /* What loads under a scalar guard give where it is false: the bits of each 4 bytes */
  uint32_t fill;
  uint64_t guard_id;
  /* What held around it, innermost first: values computed there are as good */
  const outer_guard *outer;
  uint32_t guard_depth; /* loads may not be placed above this depth */
  uint32_t next_id;
  CMZ_VEC(assumption) assumptions;
  fill_buffer fills[CMZ_EMIT_MAX_FILLS];
  uint32_t fill_count;
  const cmz_b_buffer *buffers; /* with cpu->spirv: the operands' */
  MlirValue words;             /* and what kernels get besides them */
  MlirValue thread;            /* of a GPU's work-group, i64 */
  MlirModule module;
  const char *symbol;
  struct contraction *group; /* of a schedule with `group` */
  /* Of the function: it computes tiles BEGIN, BEGIN + STEP … below END */
  MlirValue args, begin, end, step;
  MlirValue tile;  /* number of the grid tile */
  bool uses_tiles; /* of x86-64's AMX */
  bool failed;
  const char *failure;
} emitter;

/* ---- emit.c ---- */
static inline MlirType cmz_emit_type(emitter *e, cmz_expr x) {
  return cmz_b_compute_type(&e->b, (cmz_dtype)e->k->exprs.data[x].dtype);
}
static inline bool axis_set_has(const axis_set *s, uint32_t axis) {
  return s->words[axis / 64] >> (axis % 64) & 1;
}
MlirValue cmz_emit_fail(emitter *e, const char *why);
void cmz_emit_push(emitter *e, MlirBlock block);
void cmz_emit_pop(emitter *e);
/* Leaves every scope below DEPTH for a while; the saved ones are restored by cmz_emit_restore. */
typedef struct emit_position {
  uint32_t depth;
  scope *path[CMZ_EMIT_MAX_DEPTH];
  MlirBlock block;
} emit_position;
void cmz_emit_save(emitter *e, uint32_t depth, emit_position *saved);
void cmz_emit_restore(emitter *e, const emit_position *saved);
/* Binds AXIS in the innermost scope; VALUE is the constant base when BASE is null. */
axis_state *cmz_emit_bind(emitter *e, uint32_t axis, MlirValue base, int64_t value,
                          uint32_t instances, uint32_t lanes);
/* The axis' extent: a constant (true, *VALUE) or an expression to be emitted. */
bool cmz_emit_extent(emitter *e, uint32_t axis, int64_t *value);
bool cmz_emit_uses_vector(const emitter *e, cmz_expr x);
/* The vector axis that X uses, or -1. */
int32_t cmz_emit_vector_axis(const emitter *e, cmz_expr x);

/* ---- emit_device.c ---- */
/* The function of a GPU kernel: one thread computes tiles of its own. Its parameters are an address
 * an operand, the kernel's params as 64-bit numbers, the number of tiles. Sets begin, end, step,
 * the operands and the params; returns the function's body. */
MlirBlock cmz_emit_device_function(emitter *e, MlirModule module, const char *symbol);
/* Sets begin, end, step from the work-group's number, how many there are, its size and the thread's
 * number in it; END is the number of tiles, or of tiles times threads where a group computes a tile
 * together. */
void cmz_emit_device_range(emitter *e, MlirValue group, MlirValue groups, MlirValue size,
                           MlirValue thread);
/* ---- emit_vulkan.c ---- */
/* The same for Vulkan, as a gpu.func: binding 0 is a buffer of 64-bit words (the number of tiles,
 * the bytes from where operand I is bound to where it begins, the params), binding 1 + I operand I.
 */
MlirBlock cmz_emit_vulkan_function(emitter *e, MlirModule module, const char *symbol);
/* The module's kernel as SPIR-V, at PATH. */
cmz_status cmz_vulkan_lower(cmz_context *ctx, MlirModule module, const char *path);
#define CMZ_EMIT_MAX_DEVICE_PARAMETERS 480 /* of 8 bytes: CUDA passes at most 4 KiB */

/* ---- emit_group.c ---- */
/* A grid tile of a schedule with `group`: the work-group's threads compute it together. LOW, HIGH:
 * of the tile, per axis. */
void cmz_emit_group_prepare(emitter *e);
void cmz_emit_group_tile(emitter *e, const MlirValue *low);

/* ---- emit_expr.c ---- */
void cmz_emit_analyse(emitter *e);
MlirValue cmz_emit_value(emitter *e, cmz_expr x);
/* Computes reductions below X that need no guard by CONDITION, before X is computed under it. */
void cmz_emit_before_guard(emitter *e, cmz_expr x, cmz_expr condition);
uint64_t cmz_emit_key(const emitter *e, cmz_expr x);
uint32_t cmz_emit_depth(const emitter *e, cmz_expr x);
bool cmz_emit_find(emitter *e, uint64_t key, MlirValue *value);
void cmz_emit_remember(emitter *e, uint64_t key, uint32_t depth, MlirValue value);
/* -1: false, 0: not known, 1: true; from the axes' bounds and what is assumed here. */
int cmz_emit_truth(emitter *e, cmz_expr x);
static inline bool cmz_emit_is_true(emitter *e, cmz_expr x) { return cmz_emit_truth(e, x) > 0; }
void cmz_emit_assume(emitter *e, cmz_expr predicate, int truth);

/* Comparisons that guard loads below an expression: the conjuncts of SELECT conditions. */
#define CMZ_EMIT_MAX_GUARDS 48
typedef struct guard_list {
  uint32_t count;
  cmz_expr items[CMZ_EMIT_MAX_GUARDS];
} guard_list;
void cmz_emit_guards(emitter *e, cmz_expr x, guard_list *out);
/* Conjuncts without which X is the identity of the reduction OP (zero factors of a sum, padding of
 * a maximum). */
void cmz_emit_skips(emitter *e, cmz_expr x, cmz_reduce_op op, guard_list *out);
/* X is the identity of OP at the present binding. */
bool cmz_emit_is_identity(emitter *e, cmz_expr x, cmz_reduce_op op);
/* Bounds of an integer expression under the axes' present bounds. */
void cmz_emit_range(emitter *e, cmz_expr x, int64_t *low, int64_t *high);
bool cmz_emit_int(const emitter *e, cmz_expr x, int64_t *value);

/* ---- emit_narrow.c ---- */
bool cmz_emit_is_narrow(emitter *e);
/* ---- emit_memory.c ---- */
/* Makes OPERAND's buffer the one that loads and stores are in (with cpu->spirv). */
void cmz_emit_use_memory(emitter *e, uint32_t operand);
MlirValue cmz_emit_load(emitter *e, cmz_expr x);
/* Whether the CPU loads vectors of TYPE under a mask. */
bool cmz_emit_loads_masked(const emitter *e, MlirType type);
/* Whether a scalar guard moves loads to a buffer of FILL: they need no branch and no mask, and what
 * they give is FILL. */
bool cmz_emit_fills(const emitter *e);
/* Makes BITS what such loads give; false when a kernel has too many different ones. */
bool cmz_emit_set_fill(emitter *e, uint32_t bits);
/* The buffers, at the end of MODULE. */
void cmz_emit_fill_buffers(emitter *e, MlirModule module);
/* The guard as one condition: of the lane being computed, or of any lane. */
MlirValue cmz_emit_scalar_guard(emitter *e);
/* Where INDEX of OPERAND lies at the present instance and lane. */
MlirValue cmz_emit_address(emitter *e, uint32_t operand, cmz_expr index);
/* The base address of OPERAND, remembered at the entry. */
void cmz_emit_remember_operand(emitter *e, uint32_t operand, MlirValue address);
/* Stride of index X along AXIS: false when not affine. */
bool cmz_emit_stride(emitter *e, cmz_expr x, uint32_t axis, int64_t *stride);
/* Whether COUNT neighbours along AXIS lie side by side at a multiple of COUNT, when the axis stands
 * at one. */
bool cmz_emit_contiguous(emitter *e, cmz_expr x, uint32_t axis, uint32_t count);
MlirValue cmz_emit_operand_base(emitter *e, uint32_t operand);
void cmz_emit_store(emitter *e, const cmz_store *store);

/* ---- emit_reduce.c ---- */
MlirValue cmz_emit_reduce(emitter *e, cmz_expr x);
MlirValue cmz_emit_combine(emitter *e, cmz_reduce_op op, cmz_dtype dtype, MlirValue x, MlirValue y);

/* ---- emit_packed.c: Vulkan's integer dot products ---- */
/* Whether OPERAND is read in words of four bytes by some sum of products. */
bool cmz_emit_packs(const emitter *e, uint32_t operand);

/* ---- emit_quad.c ---- */
/* A sum of products of bytes that is taken four at a time along AXIS (of bf16 numbers: two), in
 * lanes of the vector axis VECTOR. */
typedef struct emit_quad {
  cmz_quad quad;
  uint16_t axis;
  uint32_t vector;
  bool across[2]; /* which factors differ between lanes */
} emit_quad;
/* Whether the REDUCE X is a sum of products of four neighbours at a time, here and now. */
bool cmz_emit_find_packed(emitter *e, cmz_expr x, emit_quad *q);
/* Four bytes of F as a word, the axis at 0; anything where the emitter's guard is false. */
MlirValue cmz_emit_packed_word(emitter *e, const cmz_quad_factor *f);
/* SUM and four products. */
MlirValue cmz_emit_packed_dot(emitter *e, const cmz_quad *quad, MlirValue x, MlirValue y,
                              MlirValue sum);
void cmz_emit_packed_step(emitter *e, const emit_quad *q, MlirValue *sum);
/* Whether REDUCE X is one at the present binding. */
bool cmz_emit_find_quad(emitter *e, cmz_expr x, emit_quad *q);
/* Whether two quads can be taken at once, OUTER being the axis around the quad's, by 2 x 8 by 8 x 2
 * matrices (of bf16, 2 x 4 by 4 x 2): two rows (instances of an axis that the factor across the
 * lanes does not use) and pairs of columns. Two accumulators then hold columns 0, 1 and 2, 3 of
 * both rows. */
bool cmz_emit_has_matrices(emitter *e, const emit_quad *q, uint16_t outer);
/* The present instance's row, an i64 of 4 * QUADS bytes; the columns at OUTER's present offset and,
 * with 2 QUADS, the next, as both operands. */
MlirValue cmz_emit_matrix_row(emitter *e, const emit_quad *q, uint32_t quads);
void cmz_emit_matrix_columns(emitter *e, const emit_quad *q, uint16_t outer, uint32_t quads,
                             MlirValue *columns);
void cmz_emit_matrix_step(emitter *e, const emit_quad *q, const MlirValue *rows,
                          const MlirValue *columns, MlirValue *first, MlirValue *second);
/* Accumulators of two rows from those of two pairs of columns, and the other way round. */
void cmz_emit_matrix_exchange(emitter *e, MlirValue *first, MlirValue *second);
/* ---- emit_amx.c: also by tiles of 16 rows by 16 columns, 64 products each ---- */
bool cmz_emit_has_tiles(emitter *e, const emit_quad *q);
/* Before any tile is used; gives memory for four of them. */
MlirValue cmz_emit_tiles_open(emitter *e);
void cmz_emit_tiles_close(emitter *e); /* before the function returns */
void cmz_emit_tile_zero(emitter *e, uint32_t tile);
/* FACTOR at the present instance and the 15 rows after it, ROW_BYTES apart. */
void cmz_emit_tile_load(emitter *e, uint32_t tile, const emit_quad *q, int factor,
                        int64_t row_bytes);
/* Tile SUM += tile ROWS of the factor that lanes share * tile COLUMNS of the other. */
void cmz_emit_tile_product(emitter *e, const emit_quad *q, uint32_t sum, uint32_t rows,
                           uint32_t columns);
void cmz_emit_tile_store(emitter *e, uint32_t tile, MlirValue buffer);
/* A row of sums, of ELEMENT (32 bits). */
MlirValue cmz_emit_tile_row(emitter *e, MlirType element, uint32_t tile, uint32_t row,
                            MlirValue buffer);
/* Adds the four products at the present instance to ACC; the quad's axis is bound to 0. */
void cmz_emit_quad_step(emitter *e, const emit_quad *q, MlirValue *acc);

/* ---- lower.c ---- */
/* A context with the dialects the emitter uses; its diagnostics become messages of CTX. */
MlirContext cmz_lower_context(cmz_context *ctx);
cmz_status cmz_lower_passes(cmz_context *ctx, MlirModule module, const char *pipeline);
cmz_status cmz_lower_module(cmz_context *ctx, MlirModule module, const cmz_cpu_row *cpu,
                            const cmz_os_row *os, int optimise, bool debug_lines,
                            cmz_output_kind kind, const char *path);

#endif
