/* contraction.h - the parts of matrix multiplication that its relatives (quantised, fused) share.
 */
#ifndef CMZ_IR_OPS_CONTRACTION_H
#define CMZ_IR_OPS_CONTRACTION_H

#include "tensor.h"

/* Which inputs make a matrix product; zero points 255: none. */
typedef struct cmz_matmul_inputs {
  uint8_t a, b, a_zero_point, b_zero_point;
} cmz_matmul_inputs;
#define CMZ_MATMUL_NONE 255

/* The product's shape (CMZ_MAX_RANK long), with errors located at N. */
cmz_status cmz_matmul_infer(cmz_module *m, cmz_nid n, cmz_matmul_inputs in, cmz_dim *shape,
                            uint32_t *rank);
/* The sum of products for output element IDX. Zero points make it an i32 sum. */
cmz_expr cmz_matmul_describe(cmz_describe *d, const cmz_node *n, cmz_matmul_inputs in,
                             const cmz_expr *idx);
/* All sums, row-major; integers exactly in INTS, floats in SUMS. OUT gets rank and shape. */
cmz_status cmz_matmul_eval(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_matmul_inputs in, cmz_array *out, double **sums, int64_t **ints);
/* The zero point (or scale) INPUT for row or column COORDINATE of a matrix operand of rank RANK,
 * whose own full coordinates are AT: a scalar, one per row/column, or a tensor with the last
 * (first) size 1. */
cmz_expr cmz_matmul_parameter(cmz_describe *d, const cmz_node *n, uint8_t input,
                              cmz_expr coordinate);

#endif
