/* compress.h - what is done to the weights: rules (from options or a recipe), and what was done (for the report).
 * In: rules in order; the last one whose pattern matches a layer's source name decides each of its settings. Out: weights
 * replaced by cmz.Decode nodes over compressed constants, split layers, and one result a layer. */
#ifndef CMZ_PASSES_COMPRESS_H
#define CMZ_PASSES_COMPRESS_H

#include "../../ir/format.h"
#include "../../ir/module.h"

typedef enum cmz_sparsity { CMZ_SPARSITY_UNSET, CMZ_SPARSITY_NONE, CMZ_SPARSITY_2_4 } cmz_sparsity;

/* One rule; a setting at its zero value leaves what an earlier rule said. */
typedef struct cmz_compression_rule {
  const char *pattern;      /* shell pattern over source node names; NULL: every layer */
  uint32_t bits;            /* of a weight: 4, 8; 32 keeps floats */
  int32_t group_size;       /* columns that share a scale; -1: a whole row */
  int symmetric;            /* 1: symmetric, -1: asymmetric */
  cmz_sparsity sparsity;
  double low_rank_energy;   /* share of the energy (0, 1] that the split keeps; -1: no split */
  uint32_t low_rank;        /* or this rank */
} cmz_compression_rule;

/* What happened to one weight. */
typedef struct cmz_layer_result {
  const char *name, *op;    /* source node and operator */
  uint32_t rows, columns;
  const char *format;       /* "u4", "f32", … */
  uint32_t bits, group_size, rank; /* rank 0: not split */
  bool sparse;
  double energy;            /* kept by the split, 1 without */
  double relative_error;    /* Frobenius norm of the change over that of the weight */
  uint64_t bytes_before, bytes_after;
  const char *reason;       /* why it was left alone, or NULL */
} cmz_layer_result;

typedef struct cmz_compression {
  CMZ_VEC(cmz_compression_rule) rules;
  CMZ_VEC(cmz_layer_result) results;
} cmz_compression;

/* Reads a recipe: {"layers": [{"match": "Conv_*", "weights": "w4a16", "group_size": 32, "symmetric": true, "prune": "2:4",
 * "low_rank": "95%"}, …]}. Unknown keys and values are errors that name their place. */
cmz_status cmz_recipe_read(cmz_context *ctx, cmz_arena *arena, const char *path, cmz_compression *compression);
/* The recipe that gives the same result, as JSON text. */
cmz_status cmz_recipe_print(const cmz_compression *compression, cmz_text *text);
/* "w4a16", "2:4", "95%" or "32" into RULE: shared by the options and the recipe. False when the word is none. */
bool cmz_rule_set_weights(cmz_compression_rule *rule, const char *word);
bool cmz_rule_set_prune(cmz_compression_rule *rule, const char *word);
bool cmz_rule_set_low_rank(cmz_compression_rule *rule, const char *word);
/* The settings for a layer of this name. */
cmz_compression_rule cmz_compression_for(const cmz_compression *compression, const char *name);
/* The report as JSON text: one object a layer and the totals. */
void cmz_report_print(const cmz_compression *compression, const char *model, cmz_text *text);

/* ---- between the files of this folder ---- */

/* A weight as a dense matrix in the order of its columns (rows x columns, row-major), in scratch memory. */
typedef struct cmz_matrix {
  uint32_t rows, columns;
  float *data;
} cmz_matrix;

/* Zeroes all but the two largest magnitudes of every four columns (ties: the earlier column). */
void cmz_prune_2_4(cmz_matrix *w);
/* Encodes W (already pruned when SHAPE says sparse) with round to nearest; all parts are allocated in ARENA. COMPRESSION.md 2. */
void cmz_quantise_nearest(cmz_arena *arena, const cmz_matrix *w, const cmz_format_shape *shape, bool symmetric, cmz_format_data *out);
/* Best rank-R approximation W ~ A B by singular values (LAPACK sgesdd): A is rows x rank, B rank x columns, each carrying the
 * square root of the singular values. With ENERGY > 0 the rank is the least that keeps that share of the squared singular values;
 * else *RANK. CMZ_E_INTERNAL when LAPACK does not converge. */
cmz_status cmz_low_rank_split(cmz_context *ctx, cmz_arena *arena, const cmz_matrix *w, double energy, uint32_t *rank,
                              cmz_matrix *a, cmz_matrix *b, double *kept_energy);

#endif
