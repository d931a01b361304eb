/* format.h - storage formats of compressed weights: one row a value encoding; 2:4 sparsity composes
 * with each.
 *
 * A compressed weight is a matrix of `rows` (outputs, N) by `columns` (inputs, K) in panels of 16
 * rows, so that neighbouring rows are neighbours in memory and one vector load serves 16 outputs:
 *   values      [N/16][K'/per_byte][16]  bytes; per_byte = 8 / bits, low bits first (floats:
 * [N/16][K'][16] of them) scales      [N/16][groups][16]       f16 or f32; groups = ceil(K' /
 * group_size) zero points [N/16][groups][16]       u8 indices     [N/16][ceil(K/4)/2][16]  2:4
 * only: a nibble i0 | i1 << 2 (i0 < i1) per 4 columns, even group low A matrix of fewer than 16
 * rows has one panel of that width. K' is K, or with 2:4 the kept columns, 2 of every 4. Rows and
 * columns past the end hold zero (and scale 0). In the graph it is a cmz.Decode node (ops/decode.c)
 * over these constants. */
#ifndef CMZ_IR_FORMAT_H
#define CMZ_IR_FORMAT_H

#include "dtype.h"

#define CMZ_FORMAT_PANEL                                                                           \
  16u /* rows in a panel, at most: the widest vector of fp32 on any CPU level */

typedef struct cmz_format_row {
  const char *name; /* "u4" */
  uint8_t bits;     /* of one value */
  bool is_float;    /* stored as it is: no scales */
  bool is_signed;   /* two's complement codes; below 8 bits, codes plus half their range */
  bool zero_points; /* w = (code - zero_point) * scale; else w = code * scale */
  cmz_dtype dtype;  /* element type of the values constant */
} cmz_format_row;

const cmz_format_row *cmz_format_at(uint32_t index);     /* NULL at the end */
const cmz_format_row *cmz_format_find(const char *name); /* NULL when unknown */

/* What is added to a code before it is stored: half the range of signed codes below 8 bits, else 0.
 */
int32_t cmz_format_bias(const cmz_format_row *format);

/* The sizes of a matrix in a format. */
typedef struct cmz_format_shape {
  const cmz_format_row *format;
  uint32_t rows, columns, group_size; /* group_size in kept columns; 0: one group */
  bool sparse;                        /* 2:4 */
} cmz_format_shape;
uint32_t cmz_format_panel(const cmz_format_shape *s); /* rows in a panel */
uint32_t cmz_format_kept(const cmz_format_shape *s);  /* K' */
uint32_t cmz_format_groups(const cmz_format_shape *s);
/* Elements of the values constant */
size_t cmz_format_value_count(const cmz_format_shape *s);
/* Elements of scales and of zero points */
size_t cmz_format_scale_count(const cmz_format_shape *s);
size_t cmz_format_index_count(const cmz_format_shape *s); /* bytes of indices */

/* The parts of a compressed matrix; scales, zero_points, indices NULL where the format has none. */
typedef struct cmz_format_data {
  void *values;
  void *scales;
  cmz_dtype scale_dtype;
  uint8_t *zero_points;
  uint8_t *indices;
} cmz_format_data;
/* Reference access to one stored code (integers) or value (floats) at kept column K, and its scale
 * and zero point. */
void cmz_format_set_code(const cmz_format_shape *s, cmz_format_data *d, uint32_t row, uint32_t kept,
                         int32_t code);
int32_t cmz_format_code(const cmz_format_shape *s, const cmz_format_data *d, uint32_t row,
                        uint32_t kept);
/* Element of the values (the byte that holds it, for codes below 8 bits), and of the scales and
 * zero points. */
size_t cmz_format_value_index(const cmz_format_shape *s, uint32_t row, uint32_t kept);
size_t cmz_format_group_index(const cmz_format_shape *s, uint32_t row, uint32_t kept);
/* Reference decode of the weight at (row, column). */
float cmz_format_decode(const cmz_format_shape *s, const cmz_format_data *d, uint32_t row,
                        uint32_t column);

#endif
