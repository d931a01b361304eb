/* ops.h - what the operator families share: the list of families, access to types, walking arrays,
 * and the frame of pointwise operators. Internal to ir/.
 * Always holds: a family's table ends with a row whose name is NULL. */
#ifndef CMZ_IR_OPS_OPS_H
#define CMZ_IR_OPS_OPS_H

#include "../evaluator.h"
#include "tensor.h"

#include <math.h>

/* The families. A new one is a file ir/ops/FAMILY.c that defines cmz_ops_FAMILY, and a word here.
 */
/* clang-format off */
#define CMZ_OP_FAMILIES(X) \
  X(pointwise) X(binary) X(activation) X(logical) X(cast) X(legacy) \
  X(shape) X(slice) X(movement) X(generate) \
  X(reduce) X(softmax) X(attention) X(linear_attention) X(loss) X(einsum) X(grid) X(region) \
  X(normalization) X(contraction) X(convolution) X(pooling) X(resize) X(gather) X(scatter) \
  X(recurrent) X(quantize) X(decode) X(integer) X(determinant) X(control) X(sequence) X(strings) \
  X(gradient) X(runtime_ops) X(signal) X(random) X(training) X(col2im) X(ml) X(ml_tree) \
  X(ml_linear)
/* clang-format on */

#define CMZ_OP_FAMILY_EXTERN(family) extern const cmz_op cmz_ops_##family[];
CMZ_OP_FAMILIES(CMZ_OP_FAMILY_EXTERN)
#undef CMZ_OP_FAMILY_EXTERN

/* Value ids of a node's input / output I; 0 when absent. */
static inline cmz_vid cmz_ops_input(const cmz_module *m, cmz_nid n, uint32_t i) {
  return cmz_node_input(cmz_node_get(m, n), i);
}
static inline cmz_vid cmz_ops_output(const cmz_module *m, cmz_nid n, uint32_t i) {
  return cmz_node_output(cmz_node_get(m, n), i);
}
/* Type of a value. */
static inline const cmz_type *cmz_ops_type(const cmz_module *m, cmz_vid v) {
  return &cmz_value_get(m, v)->type;
}

/* A type that holds for every value of A's and of B's type, of which one at least is no tensor
 * (sequence.c); false when there is none. The shape lies in the module's arena. */
bool cmz_type_merge(cmz_module *m, const cmz_type *a, const cmz_type *b, cmz_type *out);

/* A regular expression as the program that the runtime's ops_regex.c runs (regex.c): COUNT words in
 * the module's arena. CMZ_E_INPUT or CMZ_E_UNSUPPORTED, located at N, for what is wrong or not
 * known. */
cmz_status cmz_regex_compile(cmz_module *m, cmz_nid n, const char *pattern, const int64_t **words,
                             uint32_t *count);

/* ---- arrays ---- */
/* Integers as 64 bits; u64 keeps its bits. */
int64_t cmz_array_i64(const cmz_array *a, size_t i);
void cmz_array_set_i64(cmz_array *a, size_t i, int64_t v);
/* Linear index in A of coordinates of a RANK-dimensional output under numpy broadcasting. */
int64_t cmz_array_broadcast_index(const cmz_array *a, uint32_t rank, const int64_t *coordinates);
/* The next coordinates in row-major order; false after the last. */
bool cmz_array_next(const cmz_array *a, int64_t *coordinates);
/* Broadcast of COUNT inputs (absent ones skipped) into OUT's rank and shape. */
cmz_status cmz_array_broadcast(cmz_eval *e, const cmz_array *inputs, uint32_t count,
                               cmz_array *out);
/* Rank and shape of FROM for OUT, and memory. */
cmz_status cmz_eval_output_like(cmz_eval *e, cmz_array *out, const cmz_array *from);

/* ---- pointwise frame (pointwise.c) ---- */
/* One element: floats in f, integers and bools in i. */
typedef struct cmz_scalar {
  double f;
  int64_t i;
} cmz_scalar;
typedef struct cmz_scalar_call {
  const cmz_node *node;
  cmz_dtype in, out;   /* of input 0 and output 0 */
  bool is_float;       /* IN is a float type */
  uint32_t count;      /* inputs */
  const bool *present; /* per input */
  const void *user;    /* the operator's row, numbers from attributes … */
} cmz_scalar_call;
/* Evaluates all elements: inputs are broadcast, FUNCTION gives one result (f when the output is a
 * float). */
typedef cmz_scalar (*cmz_scalar_function)(const cmz_scalar_call *call, const cmz_scalar *args);
cmz_status cmz_eval_pointwise(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs, cmz_scalar_function function, const void *user);
/* Reads every input broadcast at IDX; absent ones give 0. At most CAPACITY. False after an error.
 */
bool cmz_describe_broadcast_all(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx, cmz_expr *args, uint32_t capacity);
/* infer functions: broadcast of all inputs with input 0's dtype / bool. */
cmz_status cmz_infer_pointwise(cmz_module *m, cmz_nid n);
cmz_status cmz_infer_compare(cmz_module *m, cmz_nid n);
/* infer function: output 0 as input 0. */
cmz_status cmz_infer_unary(cmz_module *m, cmz_nid n);

/* Older opsets aligned the second operand with attribute `axis`: inserts the Reshape that says the
 * same. Call from infer. */
cmz_status cmz_infer_legacy_axis(cmz_module *m, cmz_nid n);

/* exp(X - GREATEST) and the SUM of such as softmax in TYPE has them: 16-bit types round both, as
 * ONNX's definition by simpler operators does; a sum beyond the type's range keeps its value.
 * Operands have a compute type. */
cmz_expr cmz_x_softmax_power(cmz_kernel *k, cmz_expr x, cmz_expr greatest, cmz_dtype type);
cmz_expr cmz_x_softmax_sum(cmz_kernel *k, cmz_expr sum, cmz_dtype type);

/* describe function: output 0 is input 0's elements in row-major order under another shape. */
cmz_expr cmz_describe_view(cmz_describe *d, const cmz_node *n, uint32_t output,
                           const cmz_expr *idx);

/* ---- symbolic elements ---- */
/* A <= -1 as 0 or 1. */
cmz_dim cmz_dim_is_negative(cmz_dims *p, cmz_dim a);
/* The axes that V lists, counted from 0, as sizes known when the graph runs. CMZ_E_UNSUPPORTED when
 * even their number is not. */
cmz_status cmz_infer_axis_dims(cmz_module *m, cmz_nid n, cmz_vid v, uint32_t rank, cmz_dim *axes,
                               uint32_t *count);
/* Number of elements when every dim of V is static and there are at most LIMIT. */
bool cmz_value_static_count(const cmz_module *m, cmz_vid v, uint32_t limit, uint32_t *count);
/* Elements of output 0 as F of the broadcast inputs' elements; does nothing when one is not known.
 */
typedef cmz_dim (*cmz_dim_function)(cmz_module *m, cmz_nid n, const cmz_dim *args, uint32_t count);
void cmz_infer_elements(cmz_module *m, cmz_nid n, cmz_dim_function f);
/* Elements of output 0 from a movement: OUTPUT element i is element index[i] of input 0. */
void cmz_infer_moved_elements(cmz_module *m, cmz_nid n, cmz_vid from, const uint32_t *index,
                              uint32_t count);

#endif
