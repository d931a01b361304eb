/* quantize.h - what the quantising families share. */
#ifndef CMZ_IR_OPS_QUANTIZE_H
#define CMZ_IR_OPS_QUANTIZE_H

#include "ops.h"

/* V (a float in units of the output's scale) rounded half to even, offset and saturated to integer
 * type TO. */
cmz_expr cmz_describe_requantize(cmz_describe *d, cmz_expr v, cmz_expr zero_point, cmz_dtype to);
double cmz_requantize(float v, double zero_point, cmz_dtype to);
/* com.microsoft's quantised operators: inference and expansion into DequantizeLinear, the plain
 * operator, QuantizeLinear. */
cmz_status cmz_infer_microsoft(cmz_module *m, cmz_nid n);
cmz_status cmz_expand_microsoft(cmz_module *m, cmz_nid n);

/* A, quantised dynamically as a whole, times the integer matrix B of B_SCALE and B_ZERO_POINT (0:
 * none), plus BIAS (or 0), as f32; placed before BEFORE. 0 after an error was recorded. */
cmz_vid cmz_build_dynamic_product(cmz_module *m, cmz_nid before, cmz_vid a, cmz_vid b,
                                  cmz_vid b_scale, cmz_vid b_zero_point, cmz_vid bias);

#endif
