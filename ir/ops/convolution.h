/* convolution.h - the convolution sum, shared with the quantised convolutions. */
#ifndef CMZ_IR_OPS_CONVOLUTION_H
#define CMZ_IR_OPS_CONVOLUTION_H

#include "window.h"

/* Which inputs of a node make a convolution: data, weights, and their zero points (255: none). */
typedef struct cmz_conv_inputs {
  uint8_t x, w, x_zero_point, w_zero_point;
} cmz_conv_inputs;
#define CMZ_CONV_NONE 255

/* Resolves geometry and gives the output's shape. */
cmz_status cmz_conv_infer(cmz_module *m, cmz_nid n, cmz_conv_inputs in, cmz_dim *shape);
/* The sum of products for output element IDX, without bias. */
cmz_expr cmz_conv_describe(cmz_describe *d, const cmz_node *n, cmz_conv_inputs in,
                           const cmz_expr *idx);
/* The same over 8-bit data plus SHIFT, with *ZERO, the zero point so moved, outside of the
 * data: the sum is larger than the convolution by *ZERO times the sum of the weights. */
cmz_expr cmz_conv_describe_shifted(cmz_describe *d, const cmz_node *n, cmz_conv_inputs in,
                                   const cmz_expr *idx, int64_t shift, cmz_expr *zero);
/* The sums for all output elements, row-major, as doubles (exact for 8-bit integers), in the arena;
 * OUT gets rank and shape. */
cmz_status cmz_conv_eval(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                         cmz_conv_inputs in, cmz_array *out, double **sums);

#endif
