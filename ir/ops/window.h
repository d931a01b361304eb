/* window.h - the geometry of sliding windows: what Conv, its relatives and the pools have in
 * common. In: a node's attributes strides, dilations, pads, auto_pad, kernel_shape, and the
 * (possibly symbolic) spatial sizes. Out: pads, taps and output sizes as dims. Always holds: tap t
 * of output position o reads position o * stride - pad_begin + t * dilation. */
#ifndef CMZ_IR_OPS_WINDOW_H
#define CMZ_IR_OPS_WINDOW_H

#include "tensor.h"

typedef struct cmz_window {
  uint32_t rank; /* spatial dimensions */
  cmz_dim input[CMZ_MAX_RANK], kernel[CMZ_MAX_RANK], output[CMZ_MAX_RANK];
  cmz_dim pad_begin[CMZ_MAX_RANK], pad_end[CMZ_MAX_RANK];
  int64_t stride[CMZ_MAX_RANK], dilation[CMZ_MAX_RANK];
  /* Whether a tap can fall before / after the input */
  bool low[CMZ_MAX_RANK], high[CMZ_MAX_RANK];
} cmz_window;

/* Resolves the window of node N over RANK spatial dims INPUT. KERNEL: sizes of the weights' spatial
 * dims, or NULL to use kernel_shape. CEIL: ceil_mode of pools. */
cmz_status cmz_window_resolve(cmz_module *m, cmz_nid n, uint32_t rank, const cmz_dim *input,
                              const cmz_dim *kernel, bool ceil, cmz_window *w);
/* The position that tap T of output position O reads along dim I. */
cmz_expr cmz_window_position(cmz_describe *d, const cmz_window *w, uint32_t i, cmz_expr o,
                             cmz_expr t);
/* Whether position P of dim I lies inside the input; 0 when it always does. */
cmz_expr cmz_window_inside(cmz_describe *d, const cmz_window *w, uint32_t i, cmz_expr p);

/* The same with everything constant: for evaluation. */
typedef struct cmz_window_fixed {
  uint32_t rank;
  int64_t input[CMZ_MAX_RANK], kernel[CMZ_MAX_RANK], output[CMZ_MAX_RANK];
  int64_t pad_begin[CMZ_MAX_RANK], pad_end[CMZ_MAX_RANK];
  int64_t stride[CMZ_MAX_RANK], dilation[CMZ_MAX_RANK];
} cmz_window_fixed;
cmz_status cmz_window_fix(cmz_eval *e, uint32_t rank, const int64_t *input, const int64_t *kernel,
                          bool ceil, cmz_window_fixed *w);
/* Steps the odometer DIGITS under EXTENTS; false after the last combination. */
bool cmz_odometer(uint32_t rank, const int64_t *extents, int64_t *digits);

#endif
