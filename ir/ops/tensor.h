/* tensor.h - small helpers that the compute families (reductions, contractions, windows …) share:
 * types of a node's operands, reduction axes of a description, constants written in place.
 * In: nodes and descriptions. Out: expressions and types. Always holds: nothing here keeps a
 * pointer into the module's pools. */
#ifndef CMZ_IR_OPS_TENSOR_H
#define CMZ_IR_OPS_TENSOR_H

#include "../evaluator.h"
#include "../op.h"

/* Type of input / output I; NULL when it is absent. Valid until the module grows. */
static inline const cmz_type *cmz_input_type(const cmz_module *m, const cmz_node *n, uint32_t i) {
  cmz_vid v = cmz_node_input(n, i);
  return v ? &cmz_value_get(m, v)->type : NULL;
}
static inline const cmz_type *cmz_output_type(const cmz_module *m, const cmz_node *n, uint32_t i) {
  cmz_vid v = cmz_node_output(n, i);
  return v ? &cmz_value_get(m, v)->type : NULL;
}
/* Sets the type of output I of N when it is wanted. */
void cmz_set_output(cmz_module *m, cmz_nid n, uint32_t i, cmz_dtype dtype, uint32_t rank,
                    const cmz_dim *shape);
/* The id of node N (a node that a description or an evaluation is given by pointer). */
cmz_nid cmz_node_self(const cmz_module *m, const cmz_node *n);
/* Whether A and B are surely different sizes (both constant and unequal). */
bool cmz_dims_differ(const cmz_module *m, cmz_dim a, cmz_dim b);

/* The symbol of a size that is only known once V has been computed: dimension AXIS of V (element -1
 * - AXIS). The same V and AXIS give the same symbol again. */
cmz_dim cmz_output_symbol(cmz_module *m, cmz_vid v, uint32_t axis, int64_t low, int64_t high);

/* Input INPUT of N, when present, has exactly the COUNT dims DIMS (CMZ_DIM_NONE: any size); sizes
 * that are not known are trusted. CMZ_E_INPUT otherwise: kernels read inputs by these shapes. */
cmz_status cmz_check_shape(cmz_module *m, cmz_nid n, uint32_t input, uint32_t count,
                           const cmz_dim *dims);
/* The same for a vector of SIZE; with SCALAR also one number of rank 0 or 1. */
cmz_status cmz_check_vector(cmz_module *m, cmz_nid n, uint32_t input, cmz_dim size, bool scalar);

/* ---- descriptions ---- */

/* The axes of one REDUCE node while it is being built; axes of extent 1 are dropped. */
typedef struct cmz_reducer {
  uint16_t axes[CMZ_REDUCE_MAX_AXES];
  uint32_t count;
  bool overflow;
} cmz_reducer;
/* The coordinate along a new axis of R. */
cmz_expr cmz_reducer_axis(cmz_describe *d, cmz_reducer *r, cmz_dim extent);
/* REDUCE of BODY over R's axes; BODY itself when there are none. 0 when too many. */
cmz_expr cmz_reducer_finish(cmz_describe *d, const cmz_reducer *r, cmz_reduce_op op, cmz_expr body);

/* 0 <= P (when LOW) and P < EXTENT (when HIGH); 0 when neither is asked for. */
cmz_expr cmz_x_bounds(cmz_kernel *k, cmz_expr p, cmz_expr extent, bool low, bool high);
/* A and B, either of which may be 0 (true). */
cmz_expr cmz_x_and(cmz_kernel *k, cmz_expr a, cmz_expr b);
/* Shorthands for index arithmetic. */
static inline cmz_expr cmz_x_add(cmz_kernel *k, cmz_expr a, cmz_expr b) {
  return cmz_x2(k, CMZ_X_ADD, a, b);
}
static inline cmz_expr cmz_x_sub(cmz_kernel *k, cmz_expr a, cmz_expr b) {
  return cmz_x2(k, CMZ_X_SUB, a, b);
}
static inline cmz_expr cmz_x_mul(cmz_kernel *k, cmz_expr a, cmz_expr b) {
  return cmz_x2(k, CMZ_X_MUL, a, b);
}
static inline cmz_expr cmz_x_clamp(cmz_kernel *k, cmz_expr a, cmz_expr low, cmz_expr high) {
  return cmz_x2(k, CMZ_X_MIN, cmz_x2(k, CMZ_X_MAX, a, low), high);
}
static inline cmz_dtype cmz_x_dtype(const cmz_kernel *k, cmz_expr e) {
  return (cmz_dtype)cmz_x_get(k, e)->dtype;
}
/* The constant V in the type of LIKE. */
static inline cmz_expr cmz_x_like(cmz_kernel *k, cmz_expr like, double v) {
  return cmz_x_const(k, cmz_x_dtype(k, like), v);
}
/* The smallest / largest value of storage type DTYPE (infinities for floats) in its compute type.
 */
cmz_expr cmz_x_lowest(cmz_kernel *k, cmz_dtype dtype);
cmz_expr cmz_x_highest(cmz_kernel *k, cmz_dtype dtype);
/* I as read from an index tensor: counted from the end when negative, kept inside [0, EXTENT) so
 * that wrong data never reads outside the tensor. KNOWN: all indices are known to be in [0,
 * EXTENT). */
cmz_expr cmz_x_wrap_index(cmz_kernel *k, cmz_expr i, cmz_expr extent, bool known);
/* Whether V is constant with all its elements in [0, EXTENT). */
bool cmz_indices_known(const cmz_module *m, cmz_vid v, cmz_dim extent);

/* ---- reference evaluation ---- */

static inline double cmz_get(const cmz_array *a, int64_t i) {
  return cmz_dtype_get_f64(a->dtype, a->data, (size_t)i);
}
static inline int64_t cmz_get_int(const cmz_array *a, int64_t i) {
  return cmz_dtype_get_i64(a->dtype, a->data, (size_t)i);
}
static inline void cmz_set(cmz_array *a, int64_t i, double v) {
  cmz_dtype_set_f64(a->dtype, a->data, (size_t)i, v);
}
static inline void cmz_set_int(cmz_array *a, int64_t i, int64_t v) {
  cmz_dtype_set_i64(a->dtype, a->data, (size_t)i, v);
}
/* Copies element J of B to element I of A (same type) without changing a bit. */
void cmz_copy_element(cmz_array *a, int64_t i, const cmz_array *b, int64_t j);
/* Row-major index of coordinates in A. */
int64_t cmz_array_index(const cmz_array *a, const int64_t *coordinates);
/* Gives OUT the shape and its data. */
cmz_status cmz_eval_shape(cmz_eval *e, cmz_array *out, uint32_t rank, const int64_t *shape);
/* AXIS counted from the end when negative; an error of the node when outside RANK. */
cmz_status cmz_eval_axis(cmz_eval *e, int64_t axis, uint32_t rank, uint32_t *out);
/* The shape of A as constant dims. */
void cmz_array_dims(cmz_eval *e, const cmz_array *a, cmz_dim *dims);

/* ---- expansions ---- */

/* A constant of DTYPE with COUNT doubles, shaped SHAPE, in the graph of node BEFORE. */
cmz_vid cmz_build_floats(cmz_module *m, cmz_nid before, cmz_dtype dtype, uint32_t rank,
                         const int64_t *shape, const double *values);
/* A 1-D int64 constant in the graph of node BEFORE. */
cmz_vid cmz_build_i64s(cmz_module *m, cmz_nid before, const int64_t *values, uint32_t count);
/* Input I of constant numbers as doubles in the module's arena; NULL when not constant. */
const double *cmz_const_doubles(const cmz_module *m, cmz_vid v, size_t *count);

#endif
