/* compress.h - what is done to the weights: rules (from options or a recipe), and what was done
 * (for the report). In: rules in order; the last one whose pattern matches a layer's source name
 * decides each of its settings. Out: weights replaced by cmz.Decode nodes over compressed
 * constants, split layers, and one result a layer. */
#ifndef CMZ_PASSES_COMPRESS_H
#define CMZ_PASSES_COMPRESS_H

#include "../../ir/format.h"
#include "../../ir/module.h"

typedef enum cmz_sparsity { CMZ_SPARSITY_UNSET, CMZ_SPARSITY_NONE, CMZ_SPARSITY_2_4 } cmz_sparsity;

/* One rule; a setting at its zero value leaves what an earlier rule said. */
typedef struct cmz_compression_rule {
  const char *pattern; /* shell pattern over source node names; NULL: every layer */
  uint32_t bits;       /* of a weight: 4, 8; 32 keeps floats */
  int32_t group_size;  /* columns that share a scale; -1: a whole row */
  int symmetric;       /* 1: symmetric, -1: asymmetric */
  cmz_sparsity sparsity;
  /* Share of the energy (0, 1] that the split keeps; -1: no split */
  double low_rank_energy;
  uint32_t low_rank; /* or this rank */
  bool used;         /* it applied to a layer */
} cmz_compression_rule;

/* How a weight, or one factor of a split one, is stored. */
typedef struct cmz_layer_part {
  uint32_t rows, columns;
  const char *format;        /* "u4", "f32", … */
  uint32_t bits, group_size; /* group_size 0: a whole row */
  bool sparse;
  uint64_t bytes;
} cmz_layer_part;

/* What happened to one weight. */
typedef struct cmz_layer_result {
  const char *name, *op, *weight; /* source node, operator, the constant's name */
  uint32_t dims_count;
  const int64_t *dims;    /* of the weight as the operator reads it */
  uint32_t rows, columns; /* as a matrix: outputs by inputs */
  /* The weight; or the factors, the one that reads the layer's input first */
  cmz_layer_part parts[2];
  uint32_t part_count;
  uint32_t rank;         /* 0: not split */
  double energy;         /* kept by the split, 1 without */
  double relative_error; /* Frobenius norm of the change over that of the weight */
  /* Both 0 when an earlier layer's result counts them */
  uint64_t bytes_before, bytes_after;
  const char *note; /* what was left out, and why; or NULL */
} cmz_layer_result;

typedef struct cmz_compression {
  CMZ_VEC(cmz_compression_rule) rules;
  CMZ_VEC(cmz_layer_result) results;
} cmz_compression;

/* Reads a recipe: {"layers": [{"match": "Conv_*", "weights": "w4a16", "group_size": 32,
 * "symmetric": true, "prune": "2:4", "low_rank": "95%"}, …]}. Unknown keys and values are errors
 * that name their place. */
cmz_status cmz_recipe_read(cmz_context *ctx, cmz_arena *arena, const char *path,
                           cmz_compression *compression);
/* The recipe that gives the same result, as JSON text. */
cmz_status cmz_recipe_print(const cmz_compression *compression, cmz_text *text);
/* "w4a16", "2:4", "95%" or "32" into RULE: shared by the options and the recipe. False when the
 * word is none. */
bool cmz_rule_set_weights(cmz_compression_rule *rule, const char *word);
bool cmz_rule_set_prune(cmz_compression_rule *rule, const char *word);
bool cmz_rule_set_low_rank(cmz_compression_rule *rule, const char *word);
/* The settings for a layer that goes by these names (all source nodes that it stands for): a rule
 * applies when its pattern matches one of them. */
cmz_compression_rule cmz_compression_for(cmz_compression *compression, const char *const *names,
                                         uint32_t count);
struct cmz_plan;
/* The report as JSON text: one object a layer and the totals; DEVICE (NULL: not for a GPU): what
 * runs where. */
void cmz_report_print(const cmz_compression *compression, const struct cmz_plan *device,
                      const char *model, cmz_text *text);

/* ---- between the files of this folder ---- */

/* A dense matrix, row-major, in scratch memory. */
typedef struct cmz_matrix {
  uint32_t rows, columns;
  float *data;
} cmz_matrix;

/* A constant weight of a layer: which input it is, and how its dims become rows (outputs) and
 * columns (inputs). */
typedef struct cmz_weight {
  cmz_nid node;
  cmz_vid constant;
  const char *op;
  uint32_t input, rank, row_axis;
  int64_t dims[CMZ_MAX_RANK];
  cmz_layout order; /* of the columns, as the kernel walks them */
  uint32_t rows, columns;
  cmz_dtype dtype;
  bool packed;      /* stored in panels of 16 rows */
  bool splits;      /* may become two layers */
  const char *note; /* why it has to stay as it is, or NULL */
} cmz_weight;

/* The weight of layer N; false when N is no layer, or its weight is not constant. */
bool cmz_weight_read(const cmz_module *m, cmz_nid n, cmz_weight *w);
/* The name for messages and reports: the source node's, also where an expansion made the node. */
const char *cmz_weight_layer_name(const cmz_module *m, cmz_nid n);
cmz_matrix cmz_weight_matrix(const cmz_module *m, cmz_arena *arena, const cmz_weight *w);
/* MATRIX's values, in the weight's own order of elements, to DENSE. */
void cmz_weight_scatter(const cmz_weight *w, const cmz_matrix *matrix, float *dense);
/* Bytes of the weight stored as it is, once laid out. */
size_t cmz_weight_stored_bytes(const cmz_weight *w);

/* A way of taking a layer apart into two: y = A (B x). For a convolution each window axis goes to
 * one of the two, so that the weight [O, I, window] is a matrix of (O, window axes of the second)
 * by (I, window axes of the first). */
typedef struct cmz_split {
  uint32_t first_axes; /* bit i: dim i of the weight is a window axis of the first layer */
  uint32_t rows, columns;
} cmz_split;

/* Way INDEX (0 is the plain one: the rows and columns of the weight); false past the last. */
bool cmz_split_at(const cmz_weight *w, uint32_t index, cmz_split *split);
/* The weight's values as the split's matrix. */
cmz_matrix cmz_split_matrix(const cmz_module *m, cmz_arena *arena, const cmz_weight *w,
                            const cmz_split *split);
/* The two layers' weights for a rank: sizes only (no node yet). */
void cmz_split_weights(const cmz_weight *w, const cmz_split *split, uint32_t rank,
                       cmz_weight *first, cmz_weight *second);
/* The factors as constants in the module's arena: B (rank x columns) in the order of the first
 * layer's weight, A (rows x rank) in that of the second's. */
void cmz_split_constants(cmz_module *m, const cmz_weight *w, const cmz_split *split,
                         const cmz_matrix *a, const cmz_matrix *b, cmz_vid *first, cmz_vid *second);
/* The inverse for decoded factors: DENSE values of the first or second layer's weight back to B or
 * A. */
cmz_matrix cmz_split_factor(cmz_arena *arena, const cmz_weight *w, const cmz_split *split,
                            uint32_t rank, bool second, const float *dense);
/* Puts the two layers in the place of W's; the second is W's own node. */
cmz_status cmz_split_apply(cmz_module *m, const cmz_weight *w, const cmz_split *split,
                           cmz_vid first, cmz_vid second, cmz_nid *first_node);

/* Zeroes all but the two largest magnitudes of every four columns (ties: the earlier column). */
void cmz_prune_2_4(cmz_matrix *w);
/* The type for W's scales: f32 for whole rows; f16 for groups where every scale is a normal f16,
 * else f32. */
cmz_dtype cmz_quantise_scale_type(cmz_arena *arena, const cmz_matrix *w,
                                  const cmz_format_shape *shape, bool symmetric);
/* Encodes W (already pruned when SHAPE says sparse) with round to nearest; all parts are allocated
 * in ARENA. Finite values only. COMPRESSION.md 2. */
void cmz_quantise_nearest(cmz_arena *arena, const cmz_matrix *w, const cmz_format_shape *shape,
                          bool symmetric, cmz_format_data *out);
/* Singular values of W, largest first: min(rows, columns) of them (LAPACK sgesdd; it may fail:
 * CMZ_E_INTERNAL). */
cmz_status cmz_low_rank_values(cmz_context *ctx, cmz_arena *arena, const cmz_matrix *w,
                               float **values);
/* The least rank, at least 1, whose squared singular values hold ENERGY of the sum of all. */
uint32_t cmz_low_rank_for_energy(const float *values, uint32_t count, double energy);
/* Best approximation W ~ A B of rank at most RANK by singular values: A is rows x rank, B rank x
 * columns, each carrying the square root of the singular values. KEPT_ENERGY gets the share of the
 * squared singular values that is kept. */
cmz_status cmz_low_rank_split(cmz_context *ctx, cmz_arena *arena, const cmz_matrix *w,
                              uint32_t rank, cmz_matrix *a, cmz_matrix *b, double *kept_energy);
/* A B, in ARENA. */
cmz_matrix cmz_low_rank_product(cmz_arena *arena, const cmz_matrix *a, const cmz_matrix *b);

#endif
