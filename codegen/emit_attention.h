/* emit_attention.h - what the files that compute attention share: emit_attention.c (the frame:
 * scores, rows, the walk over the keys), and the forms in which products are computed:
 * emit_attention_group.c (register tiles of what is staged), emit_attention_alone.c (a thread by
 * itself), emit_attention_tensor.c (fragments of matrix instructions). Always holds: what
 * emit_attention.c says. */
#ifndef CMZ_CODEGEN_EMIT_ATTENTION_H
#define CMZ_CODEGEN_EMIT_ATTENTION_H

#include "emit_group.h"

/* What is staged as lines in the group's memory. */
typedef struct staged {
  factor memory;
  uint32_t lines, width;
  uint16_t axis; /* along a line */
  bool of_keys;  /* lines are keys; else rows */
  bool crossing; /* neighbours in memory are neighbouring lines */
} staged;

/* How products are computed. Every function emits at the emitter's position. */
typedef struct attention_form {
  /* Shares the tile among the threads; false: the schedule does not suit. */
  bool (*prepare)(emitter *e, contraction *c);
  /* What happens once a tile, before and after the walk. NULL: nothing. */
  void (*begin)(emitter *e, const contraction *c);
  void (*end)(emitter *e, const contraction *c);
  /* What the step whose first key is FIRST needs, before anything is bound. NULL: nothing. */
  void (*stage)(emitter *e, const contraction *c, MlirValue first);
  /* SCORES += products of queries and keys; SUMS += products of powers and values. */
  void (*multiply_keys)(emitter *e, const contraction *c, MlirValue first, MlirValue *scores);
  void (*multiply_values)(emitter *e, const contraction *c, MlirValue first,
                          const MlirValue *powers, MlirValue *sums);
} attention_form;
extern const attention_form cmz_attention_group, cmz_attention_alone, cmz_attention_tensor;

/* Offsets are from the thread's first row, key and column; `row_of` says which of the thread's rows
 * an instance belongs to. */
typedef struct attention {
  cmz_attention is;
  const attention_form *form;
  uint16_t depth_axis;
  int64_t depth;
  uint32_t across;             /* threads that share a row, neighbours */
  uint32_t rows, scores, sums; /* of a thread; scores in a step */
  uint8_t score_row[CMZ_EMIT_MAX_INSTANCES], sum_row[CMZ_EMIT_MAX_INSTANCES];
  uint32_t score_offsets[2][CMZ_EMIT_MAX_INSTANCES]; /* of the row, of the key */
  MlirValue row, column;  /* the thread's first row; its first key and column */
  uint32_t high;          /* scalars: threads along the rows */
  uint32_t step, columns; /* scalars: a row's scores in a step, a row's sums */
  staged queries, keys, values;
  factor powers, exchange;
  /* Fragments: where the lane's lines of queries, keys and values begin */
  MlirValue lines[3];
  MlirValue *fragments; /* of the queries */
} attention;

/* The axes of the tile become C's factors: rows, then columns. Sets where the instances lie from
 * a->row and a->column. */
void cmz_attention_place(emitter *e, contraction *c);
/* The number of keys. */
MlirValue cmz_attention_keys(emitter *e, const attention *a);
/* Binds what is at place AT of line LINE of S; FIRST: the step's first key. *CONDITION is joined by
 * whether it exists. */
void cmz_attention_bind(emitter *e, const contraction *c, const staged *s, MlirValue first,
                        MlirValue line, MlirValue at, MlirValue *condition);
/* V times BY, over BY, modulo BY. */
MlirValue cmz_attention_times(cmz_builder *b, MlirValue v, uint32_t by);
MlirValue cmz_attention_divided(cmz_builder *b, MlirValue v, uint32_t by);
MlirValue cmz_attention_remainder(cmz_builder *b, MlirValue v, uint32_t by);
/* Calls EACH for every number below TOTAL that is the thread's own, up to TOGETHER of them side by
 * side. */
void cmz_attention_each(emitter *e, const contraction *c, const staged *s, MlirValue first,
                        uint32_t total, uint32_t together,
                        void (*each)(emitter *e, const contraction *c, const staged *s,
                                     MlirValue first, MlirValue number));
/* Loads and stores are in F's memory from here on. */
void cmz_attention_use(cmz_builder *b, const factor *f);

#endif
