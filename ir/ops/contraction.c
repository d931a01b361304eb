/* contraction.c - MatMul of any ranks, MatMulInteger, Gemm and com.microsoft FusedMatMul.
 * In: numpy matmul operands. Out: sums over the last axis of A and the last but one of B. Always
 * holds: a Gemm with constant B is a MatMul with constant B after expansion. */
#include "contraction.h"
#include "ops.h"

static const cmz_matmul_inputs plain_inputs = {0, 1, CMZ_MATMUL_NONE, CMZ_MATMUL_NONE};
static const cmz_matmul_inputs integer_inputs = {0, 1, 2, 3};

static cmz_dim inner_dim(const cmz_type *t, bool is_b) {
  if (t->rank == 1) return t->shape[0];
  return is_b ? t->shape[t->rank - 2] : t->shape[t->rank - 1];
}

cmz_status cmz_matmul_infer(cmz_module *m, cmz_nid n, cmz_matmul_inputs in, cmz_dim *shape,
                            uint32_t *rank) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *a = cmz_input_type(m, node, in.a), *b = cmz_input_type(m, node, in.b);
  if (!a->rank || !b->rank) return cmz_node_fail(m, n, CMZ_E_INPUT, "an operand has rank 0");
  if (cmz_dims_differ(m, inner_dim(a, false), inner_dim(b, true)))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the inner sizes of the operands differ");
  uint32_t ba = a->rank > 2 ? a->rank - 2 : 0, bb = b->rank > 2 ? b->rank - 2 : 0;
  uint32_t batch = CMZ_MAX(ba, bb), count = 0;
  cmz_dim one = cmz_dim_const(m->dims, 1);
  for (uint32_t i = 0; i < batch; i++) {
    cmz_dim x = i + ba >= batch ? a->shape[i + ba - batch] : one;
    cmz_dim y = i + bb >= batch ? b->shape[i + bb - batch] : one;
    if (cmz_dims_differ(m, x, y) && !cmz_dim_is(m->dims, x, 1) && !cmz_dim_is(m->dims, y, 1))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the operands' leading sizes cannot be broadcast");
    shape[count++] = cmz_dim_broadcast(m->dims, x, y);
  }
  if (a->rank > 1) shape[count++] = a->shape[a->rank - 2];
  if (b->rank > 1) shape[count++] = b->shape[b->rank - 1];
  *rank = count;
  return CMZ_OK;
}

static cmz_status infer_matmul(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK + 2];
  uint32_t rank;
  CMZ_TRY(cmz_matmul_infer(m, n, plain_inputs, shape, &rank));
  cmz_set_output(m, n, 0, cmz_input_type(m, cmz_node_get(m, n), 0)->dtype, rank, shape);
  return CMZ_OK;
}

static cmz_status infer_matmul_integer(cmz_module *m, cmz_nid n) {
  cmz_dim shape[CMZ_MAX_RANK + 2];
  uint32_t rank;
  CMZ_TRY(cmz_matmul_infer(m, n, integer_inputs, shape, &rank));
  const cmz_type a = *cmz_input_type(m, cmz_node_get(m, n), 0),
                 b = *cmz_input_type(m, cmz_node_get(m, n), 1);
  cmz_dim one = cmz_dim_const(m->dims, 1);
  CMZ_TRY(cmz_check_vector(m, n, 2, a.rank > 1 ? a.shape[a.rank - 2] : one, true));
  CMZ_TRY(cmz_check_vector(m, n, 3, b.rank > 1 ? b.shape[b.rank - 1] : one, true));
  cmz_set_output(m, n, 0, CMZ_I32, rank, shape);
  return CMZ_OK;
}

/* Element (batch, ROW, COLUMN) of a matrix operand; BATCH has the output's BATCH_RANK leading
 * coordinates. */
static cmz_expr element(cmz_describe *d, const cmz_node *n, uint32_t input, bool is_b,
                        const cmz_expr *batch, const cmz_dim *batch_dims, uint32_t batch_rank,
                        cmz_expr row, cmz_expr column) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type t = *cmz_input_type(m, n, input);
  cmz_expr at[CMZ_MAX_RANK];
  if (t.rank == 1) {
    at[0] = is_b ? row : column;
    return cmz_describe_input(d, input, at);
  }
  uint32_t own = t.rank - 2;
  for (uint32_t i = 0; i < own; i++) {
    uint32_t j = i + batch_rank - own;
    if (cmz_dim_is(m->dims, t.shape[i], 1)) {
      at[i] = cmz_x_index(k, 0);
    } else if (t.shape[i] == batch_dims[j] ||
               cmz_dim_is_const(m->dims, t.shape[i], &(int64_t){0})) {
      at[i] = batch[j];
    } else { /* may be 1 at run time: then every batch reads element 0 */
      cmz_expr one = cmz_x2(k, CMZ_X_EQ, cmz_describe_dim(d, t.shape[i]), cmz_x_index(k, 1));
      at[i] = cmz_x_select(k, one, cmz_x_index(k, 0), batch[j]);
    }
  }
  at[own] = row;
  at[own + 1] = column;
  return cmz_describe_input(d, input, at);
}

cmz_expr cmz_matmul_parameter(cmz_describe *d, const cmz_node *n, uint8_t input,
                              cmz_expr coordinate) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type *t = input == CMZ_MATMUL_NONE ? NULL : cmz_input_type(m, n, input);
  if (!t) return 0;
  cmz_expr at = t->rank && !cmz_dim_is(m->dims, t->shape[0], 1) ? coordinate : cmz_x_index(k, 0);
  if (t->rank > 1) return cmz_describe_fail(d, "a zero point or scale of rank %u", t->rank);
  return cmz_describe_input(d, input, &at);
}

cmz_expr cmz_matmul_describe(cmz_describe *d, const cmz_node *n, cmz_matmul_inputs in,
                             const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type a = *cmz_input_type(m, n, in.a), b = *cmz_input_type(m, n, in.b);
  const cmz_type *out = cmz_output_type(m, n, 0);
  uint32_t batch = CMZ_MAX(a.rank > 2 ? a.rank - 2 : 0, b.rank > 2 ? b.rank - 2 : 0), at = batch;
  cmz_expr row = a.rank > 1 ? idx[at++] : cmz_x_index(k, 0);
  cmz_expr column = b.rank > 1 ? idx[at++] : cmz_x_index(k, 0);
  cmz_reducer r = {0};
  cmz_dim inner = inner_dim(&a, false);
  if (!cmz_dim_is_const(m->dims, inner, &(int64_t){0})) inner = inner_dim(&b, true);
  cmz_expr i = cmz_reducer_axis(d, &r, inner);
  cmz_expr x = element(d, n, in.a, false, idx, out->shape, batch, row, i);
  cmz_expr y = element(d, n, in.b, true, idx, out->shape, batch, i, column);
  if (!x || !y) return 0;
  if (in.a_zero_point != CMZ_MATMUL_NONE || in.b_zero_point != CMZ_MATMUL_NONE) {
    x = cmz_x_cast(k, x, CMZ_I32);
    y = cmz_x_cast(k, y, CMZ_I32);
    cmz_expr zx = cmz_matmul_parameter(d, n, in.a_zero_point, row);
    cmz_expr zy = cmz_matmul_parameter(d, n, in.b_zero_point, column);
    if (zx) x = cmz_x_sub(k, x, cmz_x_cast(k, zx, CMZ_I32));
    if (zy) y = cmz_x_sub(k, y, cmz_x_cast(k, zy, CMZ_I32));
  }
  return cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, cmz_x_mul(k, x, y));
}

static cmz_expr describe_matmul(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  (void)output;
  return cmz_matmul_describe(d, n, plain_inputs, idx);
}

static cmz_expr describe_matmul_integer(cmz_describe *d, const cmz_node *n, uint32_t output,
                                        const cmz_expr *idx) {
  (void)output;
  return cmz_matmul_describe(d, n, integer_inputs, idx);
}

/* Index of the first element of the matrix of operand T that belongs to batch coordinates O. */
static int64_t matrix_start(const cmz_array *t, const int64_t *o, uint32_t batch) {
  if (t->rank <= 2) return 0;
  int64_t index = 0;
  uint32_t own = t->rank - 2;
  for (uint32_t i = 0; i < own; i++)
    index = index * t->shape[i] + (t->shape[i] == 1 ? 0 : o[i + batch - own]);
  return index * t->shape[own] * t->shape[own + 1];
}

static int64_t parameter_int(const cmz_array *inputs, uint32_t count, uint8_t input, int64_t at) {
  if (input >= count || !inputs[input].data) return 0;
  return cmz_get_int(&inputs[input], cmz_array_count(&inputs[input]) == 1 ? 0 : at);
}

cmz_status cmz_matmul_eval(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_matmul_inputs in, cmz_array *out, double **sums, int64_t **ints) {
  const cmz_array *a = &inputs[in.a], *b = &inputs[in.b];
  uint32_t batch = CMZ_MAX(a->rank > 2 ? a->rank - 2 : 0, b->rank > 2 ? b->rank - 2 : 0), rank = 0;
  for (uint32_t i = 0; i < batch; i++) {
    int64_t x = i + a->rank >= batch + 2 ? a->shape[i + a->rank - batch - 2] : 1;
    int64_t y = i + b->rank >= batch + 2 ? b->shape[i + b->rank - batch - 2] : 1;
    out->shape[rank++] = x == 1 ? y : x;
  }
  if (a->rank > 1) out->shape[rank++] = a->shape[a->rank - 2];
  if (b->rank > 1) out->shape[rank++] = b->shape[b->rank - 1];
  out->rank = rank;
  int64_t inner = a->shape[a->rank - 1], columns = b->rank > 1 ? b->shape[b->rank - 1] : 1;
  if (inner != (b->rank > 1 ? b->shape[b->rank - 2] : b->shape[0]))
    return cmz_eval_fail(e, "the inner sizes of the operands differ");
  size_t count = cmz_array_count(out);
  *sums = CMZ_NEW_ARRAY(e->arena, double, count);
  *ints = CMZ_NEW_ARRAY(e->arena, int64_t, count);
  bool exact = !cmz_dtype_is_float(a->dtype);
  for (size_t i = 0; i < count; i++) {
    int64_t o[CMZ_MAX_RANK];
    cmz_array_coordinates(out, i, o);
    uint32_t at = batch;
    int64_t row = a->rank > 1 ? o[at++] : 0, column = b->rank > 1 ? o[at++] : 0;
    int64_t ia = matrix_start(a, o, batch) + row * inner, ib = matrix_start(b, o, batch) + column;
    int64_t za = parameter_int(inputs, n->input_count, in.a_zero_point, row);
    int64_t zb = parameter_int(inputs, n->input_count, in.b_zero_point, column);
    uint64_t exact_sum = 0;
    double sum = 0;
    for (int64_t j = 0; j < inner; j++) {
      if (exact)
        exact_sum += (uint64_t)(cmz_get_int(a, ia + j) - za) *
                     (uint64_t)(cmz_get_int(b, ib + j * columns) - zb);
      else sum += cmz_get(a, ia + j) * cmz_get(b, ib + j * columns);
    }
    (*ints)[i] = (int64_t)exact_sum;
    (*sums)[i] = exact ? (double)(int64_t)exact_sum : sum;
  }
  return CMZ_OK;
}

static cmz_status eval_with(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs, cmz_matmul_inputs in) {
  double *sums;
  int64_t *ints;
  CMZ_TRY(cmz_matmul_eval(e, n, inputs, in, &outputs[0], &sums, &ints));
  CMZ_TRY(cmz_eval_output(e, &outputs[0]));
  bool exact = !cmz_dtype_is_float(outputs[0].dtype);
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++) {
    if (exact) cmz_set_int(&outputs[0], (int64_t)i, ints[i]);
    else cmz_set(&outputs[0], (int64_t)i, sums[i]);
  }
  return CMZ_OK;
}

static cmz_status eval_matmul(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  return eval_with(e, n, inputs, outputs, plain_inputs);
}

static cmz_status eval_matmul_integer(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                      cmz_array *outputs) {
  return eval_with(e, n, inputs, outputs, integer_inputs);
}

/* ---- Gemm ---- */

static cmz_status infer_gemm(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *a = cmz_input_type(m, node, 0), *b = cmz_input_type(m, node, 1);
  if (a->rank != 2 || b->rank != 2)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "operands of rank %u and %u instead of 2", a->rank,
                         b->rank);
  bool ta = cmz_node_int(node, "transA", 0) != 0, tb = cmz_node_int(node, "transB", 0) != 0;
  if (cmz_dims_differ(m, a->shape[ta ? 0 : 1], b->shape[tb ? 1 : 0]))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the inner sizes of the operands differ");
  cmz_dim shape[2] = {a->shape[ta ? 1 : 0], b->shape[tb ? 0 : 1]};
  const cmz_type *c = cmz_input_type(m, node, 2);
  if (c && c->rank > 2) return cmz_node_fail(m, n, CMZ_E_INPUT, "C has rank %u", c->rank);
  for (uint32_t i = 0; c && i < c->rank; i++)
    if (!cmz_dim_is(m->dims, c->shape[i], 1) &&
        cmz_dims_differ(m, c->shape[i], shape[i + 2 - c->rank]))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "C cannot be broadcast to the product");
  cmz_set_output(m, n, 0, a->dtype, 2, shape);
  return CMZ_OK;
}

/* A 2-D operand transposed; a constant is transposed here and now. */
static cmz_vid transposed(cmz_module *m, cmz_nid before, cmz_vid v) {
  const cmz_constant *c = cmz_value_constant(m, v);
  if (!c || c->layout.count || cmz_dtype_info(c->dtype)->bits % 8)
    return cmz_build_transpose(m, before, v, (const int64_t[]){1, 0}, 2);
  size_t rows = (size_t)c->shape[0], columns = (size_t)c->shape[1];
  size_t size = cmz_dtype_info(c->dtype)->bits / 8;
  char *data = cmz_arena_alloc(m->arena, c->bytes);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < columns; j++)
      memcpy(data + (j * rows + i) * size, (const char *)c->data + (i * columns + j) * size, size);
  int64_t *shape = CMZ_NEW_ARRAY(m->arena, int64_t, 2);
  shape[0] = c->shape[1];
  shape[1] = c->shape[0];
  return cmz_value_add_constant(m, cmz_node_get(m, before)->graph, NULL, c->dtype, 2, shape, data,
                                c->bytes);
}

static cmz_status expand_gemm(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  double alpha = cmz_node_float(&node, "alpha", 1), beta = cmz_node_float(&node, "beta", 1);
  cmz_vid a = node.inputs[0], b = node.inputs[1], c = cmz_node_input(&node, 2);
  if (cmz_node_int(&node, "transA", 0)) a = transposed(m, n, a);
  if (cmz_node_int(&node, "transB", 0)) b = transposed(m, n, b);
  cmz_vid y = cmz_build2(m, n, "MatMul", a, b);
  if (alpha != 1) y = cmz_build2(m, n, "Mul", y, cmz_build_scalar_like(m, n, y, alpha));
  if (c && beta != 0) {
    if (beta != 1) c = cmz_build2(m, n, "Mul", c, cmz_build_scalar_like(m, n, y, beta));
    y = cmz_build2(m, n, "Add", y, c);
  }
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

/* ---- com.microsoft FusedMatMul: MatMul of operands whose last two axes may be swapped, times
 * alpha ---- */

static cmz_status infer_fused(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *a = cmz_input_type(m, node, 0), *b = cmz_input_type(m, node, 1);
  bool ta = cmz_node_int(node, "transA", 0) != 0, tb = cmz_node_int(node, "transB", 0) != 0;
  if (cmz_node_int(node, "transBatchA", 0) || cmz_node_int(node, "transBatchB", 0))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "transposed batches");
  if (a->rank < 2 || b->rank < 2)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "operands of rank %u and %u", a->rank, b->rank);
  if (cmz_dims_differ(m, a->shape[a->rank - (ta ? 2 : 1)], b->shape[b->rank - (tb ? 1 : 2)]))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the inner sizes of the operands differ");
  cmz_dim shape[CMZ_MAX_RANK];
  uint32_t rank = CMZ_MAX(a->rank, b->rank);
  for (uint32_t i = 0; i + 2 < rank; i++) {
    cmz_dim x = i + a->rank >= rank ? a->shape[i + a->rank - rank] : cmz_dim_const(m->dims, 1);
    cmz_dim y = i + b->rank >= rank ? b->shape[i + b->rank - rank] : cmz_dim_const(m->dims, 1);
    shape[i] = cmz_dim_broadcast(m->dims, x, y);
  }
  shape[rank - 2] = a->shape[a->rank - (ta ? 1 : 2)];
  shape[rank - 1] = b->shape[b->rank - (tb ? 2 : 1)];
  cmz_set_output(m, n, 0, a->dtype, rank, shape);
  return CMZ_OK;
}

static cmz_vid last_swapped(cmz_module *m, cmz_nid before, cmz_vid v) {
  uint32_t rank = cmz_value_get(m, v)->type.rank;
  int64_t perm[CMZ_MAX_RANK];
  if (rank == 2) return transposed(m, before, v);
  for (uint32_t i = 0; i < rank; i++) perm[i] = i + 2 == rank ? i + 1 : i + 1 == rank ? i - 1 : i;
  return cmz_build_transpose(m, before, v, perm, rank);
}

static cmz_status expand_fused(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  cmz_vid a = node.inputs[0], b = node.inputs[1];
  if (cmz_node_int(&node, "transA", 0)) a = last_swapped(m, n, a);
  if (cmz_node_int(&node, "transB", 0)) b = last_swapped(m, n, b);
  cmz_vid y = cmz_build2(m, n, "MatMul", a, b);
  double alpha = cmz_node_float(&node, "alpha", 1);
  if (alpha != 1) y = cmz_build2(m, n, "Mul", y, cmz_build_scalar_like(m, n, y, alpha));
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

const cmz_op cmz_ops_contraction[] = {
    {.name = "FusedMatMul",
     .domain = "com.microsoft",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_CONTRACTION,
     .infer = infer_fused,
     .expand = expand_fused,
     .attributes = "alpha:f transA:i transB:i transBatchA:i transBatchB:i"},
    {.name = "MatMul",
     .domain = "",
     .operands = "TT",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_CONTRACTION,
     .infer = infer_matmul,
     .eval = eval_matmul,
     .describe = describe_matmul},
    {.name = "MatMulInteger",
     .domain = "",
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 10,
     .flags = CMZ_OP_CONTRACTION,
     .infer = infer_matmul_integer,
     .eval = eval_matmul_integer,
     .describe = describe_matmul_integer},
    {.name = "Gemm",
     .domain = "",
     .operands = "TTT",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_CONTRACTION,
     .infer = infer_gemm,
     .expand = expand_gemm,
     .attributes = "alpha:f beta:f broadcast:i<7 transA:i transB:i"},
    {.name = NULL},
};
