/* quantize.h - what the quantising families share. */
#ifndef CMZ_IR_OPS_QUANTIZE_H
#define CMZ_IR_OPS_QUANTIZE_H

#include "ops.h"

/* V (a float in units of the output's scale) rounded half to even, offset and saturated to integer type TO. */
cmz_expr cmz_describe_requantize(cmz_describe *d, cmz_expr v, cmz_expr zero_point, cmz_dtype to);
double cmz_requantize(float v, double zero_point, cmz_dtype to);
/* com.microsoft's quantised operators: inference and expansion into DequantizeLinear, the plain operator,
 * QuantizeLinear. */
cmz_status cmz_infer_microsoft(cmz_module *m, cmz_nid n);
cmz_status cmz_expand_microsoft(cmz_module *m, cmz_nid n);

#endif
