/* determinant.c - Det. In: matrices [..., N, N]. Out: their determinants [...]. Always holds: the
 * runtime eliminates in double precision, on f32 or f64; 16-bit types are cast to f32 and back. */
#include "ops.h"

static cmz_status infer_det(cmz_module *m, cmz_nid n) {
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  if (x.rank < 2 || !cmz_dtype_is_float(x.dtype) ||
      cmz_dims_differ(m, x.shape[x.rank - 1], x.shape[x.rank - 2]))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs square matrices of floats");
  cmz_set_output(m, n, 0, x.dtype, x.rank - 2u, x.shape);
  return CMZ_OK;
}

/* Of the N x N matrix A, which is used up: elimination, the largest of a column first. */
static double determinant(double *a, int64_t n) {
  double product = 1;
  for (int64_t k = 0; k < n; k++) {
    int64_t best = k;
    for (int64_t i = k; i < n; i++)
      if (fabs(a[i * n + k]) > fabs(a[best * n + k])) best = i;
    if (a[best * n + k] == 0) return 0;
    for (int64_t j = 0; j < n && best != k; j++) {
      double kept = a[k * n + j];
      a[k * n + j] = a[best * n + j];
      a[best * n + j] = -kept;
    }
    product *= a[k * n + k];
    for (int64_t i = k + 1; i < n; i++)
      for (int64_t j = n; j-- > k;) a[i * n + j] -= a[i * n + k] / a[k * n + k] * a[k * n + j];
  }
  return product;
}

static cmz_status eval_det(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs) {
  (void)n;
  const cmz_array *x = &inputs[0];
  int64_t side = x->shape[x->rank - 1], squared = side * side;
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], x->rank - 2u, x->shape));
  double *a = CMZ_NEW_ARRAY(e->arena, double, (size_t)squared + 1);
  for (int64_t i = 0; i < (int64_t)cmz_array_count(&outputs[0]); i++) {
    for (int64_t j = 0; j < squared; j++) a[j] = cmz_get(x, i * squared + j);
    cmz_set(&outputs[0], i, determinant(a, side));
  }
  return CMZ_OK;
}

static cmz_status expand_det(cmz_module *m, cmz_nid n) {
  cmz_vid x = cmz_ops_input(m, n, 0);
  cmz_dtype own = cmz_ops_type(m, x)->dtype;
  x = cmz_build_cast(m, n, x, own == CMZ_F64 ? own : CMZ_F32);
  x = cmz_build_cast(m, n, cmz_build1(m, n, "Determinant", x), own);
  if (!x) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, x);
  return CMZ_OK;
}

#define ROW(NAME, DOMAIN, ...)                                                                     \
  {                                                                                                \
    .name = NAME, .domain = DOMAIN, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,            \
    .max_outputs = 1, .infer = infer_det, .eval = eval_det, __VA_ARGS__                            \
  }

const cmz_op cmz_ops_determinant[] = {
    ROW("Det", "", .since = 11, .expand = expand_det),
    ROW("Determinant", "cmz", .since = 1, .flags = CMZ_OP_RUNTIME, .runtime = "determinant"),
    {.name = NULL},
};
