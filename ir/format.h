/* format.h - storage formats: how a tensor's elements lie in memory when that is not one plain element
 * after another. One row a format: reference encode, reference decode, and decode as a scalar
 * expression (kernel.h), which makes a format work on every target; layouts for kernels are separate
 * (layout.h).
 * A formatted tensor is a matrix of `rows` (outputs N) by `columns` (inputs K) in groups along K. */
#ifndef CMZ_IR_FORMAT_H
#define CMZ_IR_FORMAT_H

#include "dtype.h"

typedef enum cmz_format {
  CMZ_FORMAT_PLAIN,
  CMZ_FORMAT_COUNT_RESERVED = 255
} cmz_format;

#endif
