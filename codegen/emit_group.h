/* emit_group.h - what the files that make a work-group compute a contraction share: emit_group.c
 * (the frame, staging, register tiles of scalars), emit_tensor.c (fragments of matrix
 * instructions), emit_coded.c (those of weights in a storage format). Always holds: what
 * emit_group.c says. */
#ifndef CMZ_CODEGEN_EMIT_GROUP_H
#define CMZ_CODEGEN_EMIT_GROUP_H

#include "emit.h"

/* One factor. POSITION is mixed radix over AXES, innermost last. */
typedef struct factor {
  cmz_expr expr;
  uint32_t axis_count, positions;
  /* Scalars: elements from one iteration to the next; fragments: bytes from one line to the next */
  uint32_t pitch;
  uint16_t axes[CMZ_STORE_MAX_AXES];
  bool along_reduction;   /* neighbours in memory are neighbours of the reduction */
  MlirValue memory, base; /* a buffer with cpu->spirv; the first element's address */
  /* Of whose bytes four at a time are staged, as a word; NULL: elements are */
  const cmz_quad_factor *packed;
  MlirValue own;   /* the thread's own position, of instance 0 */
  MlirValue lines; /* fragments: where the lane's line of a matrix begins, from BASE */
} factor;

typedef struct contraction {
  struct attention *attention; /* NULL: a plain sum of products */
  const cmz_store *store;
  cmz_expr reduce;
  const cmz_expr_node *node; /* its axes: those that are stepped through */
  factor factors[2];
  emit_quad quad;    /* with factors that are packed */
  uint32_t rows;     /* fragments: the factor whose positions are rows */
  uint32_t tiles[2]; /* fragments: of a warp, of 16 rows, of 8 columns */
  MlirType type;
  uint32_t instances;
  /* Of each instance in each factor's positions */
  uint32_t offsets[2][CMZ_EMIT_MAX_INSTANCES];
  uint16_t axes[CMZ_STORE_MAX_AXES];       /* of the store, in the order of the schedule */
  MlirValue coordinate[CMZ_EMIT_MAX_AXES]; /* of the thread, along each axis of the tile */
  MlirValue low[CMZ_EMIT_MAX_AXES];
  /* Whether the thread has outputs at all (null: it has) */
  MlirValue exists;
  struct coded_state *coded; /* emit_coded.c's */
} contraction;

/* ---- emit_group.c ---- */
/* V over or modulo a power of two. */
MlirValue cmz_emit_group_divided(cmz_builder *b, MlirValue v, uint32_t power);
MlirValue cmz_emit_group_remainder(cmz_builder *b, MlirValue v, uint32_t power);
/* COUNT elements of TYPE in the group's memory, for factor number NUMBER. */
void cmz_emit_group_declare(emitter *e, factor *f, MlirType type, uint32_t count, uint32_t number);
void cmz_emit_group_barrier(emitter *e);
/* Binds the axes of F at POSITION, in the tile's scope at DEPTH; *CONDITION is joined by whether
 * that exists (null: it does). */
void cmz_emit_group_bind(emitter *e, const contraction *c, const factor *f, MlirValue position,
                         uint32_t depth, MlirValue *condition);
/* Binds the reduction's axes at iteration NUMBER of them all. */
void cmz_emit_group_bind_reduction(emitter *e, const contraction *c, MlirValue number);
/* The element at the present binding, zero where CONDITION (may be null) is false. */
MlirValue cmz_emit_group_element(emitter *e, const factor *f, MlirType type, MlirValue condition);
/* *ALL becomes "and ONE". */
void cmz_emit_group_conjoin(cmz_builder *b, MlirValue *all, MlirValue one);
/* How many iterations there are; *KNOWN: -1 when that is not known yet. */
MlirValue cmz_emit_group_iterations(emitter *e, const contraction *c, int64_t *known);

/* Whether some load below X is contiguous along AXIS. */
bool cmz_emit_group_along(emitter *e, cmz_expr x, uint16_t axis);

/* ---- emit_attention.c: kernels that are attention ---- */
/* False: the kernel is not. */
bool cmz_emit_attention_prepare(emitter *e, contraction *c);
/* The attended values of the tile at the emitter's position in ACCS, an instance each. */
void cmz_emit_attention_steps(emitter *e, const contraction *c, MlirValue *accs);

/* ---- emit_wgmma.c: steps of 128 bytes of a line, on a level with warpgroups ---- */
#define CMZ_EMIT_WGMMA_LINE 128
/* Whether the schedule is one for these instructions, and whether tiles of ROWS and COLUMNS and a
 * work-group of so many threads suit them. */
bool cmz_emit_wgmma_used(const emitter *e);
bool cmz_emit_wgmma_fits(const factor *rows, const factor *columns, uint32_t group);
/* Where byte BYTES of line LINE lies in a buffer of F, in bytes. TRANSPOSED: lines are of
 * positions. */
MlirValue cmz_emit_wgmma_place(emitter *e, const factor *f, bool transposed, MlirValue line,
                               MlirValue bytes);
/* What the thread has written is there for the matrix instructions of all that it meets at the next
 * barrier. */
void cmz_emit_wgmma_fence(emitter *e);
/* Adds the products of a step to SUMS, an instance each; OFFSETS: of each factor's buffer in its
 * memory, in bytes. */
void cmz_emit_wgmma_compute(emitter *e, const contraction *c, const MlirValue offsets[2],
                            const bool transposed[2], MlirValue *sums);

/* ---- emit_tensor.c: schedules with `fragments` ---- */
void cmz_emit_tensor_prepare(emitter *e, contraction *c);
/* The sums of the tile at the emitter's position in ACCS, an instance each. */
void cmz_emit_tensor_steps(emitter *e, const contraction *c, MlirValue *accs);
/* The thread's coordinates along factor NUMBER's axes become those of POSITION. */
void cmz_emit_tensor_place(emitter *e, contraction *c, uint32_t number, MlirValue position);
/* What attention's fragments take from there. The 16 bytes of LOAD at the present binding are begun
 * to be copied to TO, zeros where CONDITION (may be null) is false; until all copies that the
 * thread has begun are there; whether OPERAND's address is a multiple of 16. */
void cmz_emit_tensor_copy(emitter *e, cmz_expr load, MlirValue condition, MlirValue to);
void cmz_emit_tensor_wait(emitter *e);
MlirValue cmz_emit_tensor_is_aligned(emitter *e, uint32_t operand);
/* The four 8x8 matrices of 16-bit elements whose lines begin at the lanes' AT, CROSSED: transposed.
 * Two numbers as one word of such. */
void cmz_emit_tensor_matrices(emitter *e, MlirValue at, bool crossed, MlirValue *out);
MlirValue cmz_emit_tensor_pair(emitter *e, MlirValue low, MlirValue high);
/* ACCS (4) += ROWS (4 words of TYPES[0]) times COLUMNS (2 of TYPES[1]). */
void cmz_emit_tensor_multiply(emitter *e, const cmz_dtype types[2], const MlirValue *rows,
                              const MlirValue *columns, MlirValue *accs);

/* ---- emit_coded.c: schedules with `coded` ---- */
void cmz_emit_coded_prepare(emitter *e, contraction *c);
void cmz_emit_coded_steps(emitter *e, const contraction *c, MlirValue *out);

#endif
