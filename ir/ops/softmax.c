/* softmax.c - Softmax, LogSoftmax, Hardmax.
 * In: nodes of these operators. Out: the normalised tensor, same type. Always holds: before opset
 * 13 the input counted as a matrix split at `axis`; normalisation marks that with `flatten`, and
 * then all axes from `axis` on are normalised together. */
#include "ops.h"

/* First and one past the last axis that are normalised together. */
static cmz_status axes_of(cmz_module *m, cmz_nid n, uint32_t rank, uint32_t *first,
                          uint32_t *last) {
  const cmz_node *node = cmz_node_get(m, n);
  bool flatten = cmz_node_int(node, "flatten", 0) != 0;
  int64_t axis = cmz_node_int(node, "axis", -1);
  if (flatten && axis == (int64_t)rank) {
    *first = *last = rank;
    return CMZ_OK;
  }
  CMZ_TRY(cmz_infer_axis(m, n, axis, rank, first));
  *last = flatten ? rank : *first + 1;
  return CMZ_OK;
}

static cmz_status normalize(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (node->opset == 0 || node->opset >= 13) return CMZ_OK;
  int64_t axis = cmz_node_int(node, "axis", 1);
  cmz_node_set_int(m, n, "axis", axis);
  /* Along the last axis both readings agree. */
  if (axis != -1) cmz_node_set_int(m, n, "flatten", 1);
  return CMZ_OK;
}

static cmz_status infer(cmz_module *m, cmz_nid n) {
  uint32_t first, last;
  const cmz_type *x = cmz_input_type(m, cmz_node_get(m, n), 0);
  if (x->rank) CMZ_TRY(axes_of(m, n, x->rank, &first, &last));
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

/* Input 0 at IDX with the coordinates of axes [FIRST, LAST) replaced by fresh axes of R. */
static cmz_expr reduced(cmz_describe *d, const cmz_node *n, const cmz_expr *idx, uint32_t first,
                        uint32_t last, cmz_reducer *r) {
  const cmz_type x = *cmz_input_type(cmz_describe_module(d), n, 0);
  cmz_expr at[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++)
    at[i] = i >= first && i < last ? cmz_reducer_axis(d, r, x.shape[i]) : idx[i];
  return r->overflow ? 0 : cmz_describe_input(d, 0, at);
}

/* ---- the steps of softmax in a 16-bit type: the definition rounds the powers and their sum ----
 */

cmz_expr cmz_x_softmax_power(cmz_kernel *k, cmz_expr x, cmz_expr greatest, cmz_dtype type) {
  cmz_expr e = cmz_x1(k, CMZ_X_EXP, cmz_x_sub(k, x, greatest));
  return cmz_dtype_info(type)->compute == cmz_x_dtype(k, e) ? cmz_x_cast_through(k, e, type) : e;
}

cmz_expr cmz_x_softmax_sum(cmz_kernel *k, cmz_expr sum, cmz_dtype type) {
  if (cmz_dtype_info(type)->compute == type) return sum;
  cmz_expr rounded = cmz_x_cast_through(k, sum, type);
  return cmz_x_select(k, cmz_x1(k, CMZ_X_IS_INF, rounded), sum, rounded);
}

/* What the three operators begin with. */
typedef struct parts {
  cmz_expr x, greatest, sum;
  cmz_dtype type;
} parts;

static bool describe_parts(cmz_describe *d, const cmz_node *n, const cmz_expr *idx, parts *p) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  uint32_t first = 0, last = 0, rank = cmz_input_type(m, n, 0)->rank;
  if (rank && axes_of(m, cmz_node_self(m, n), rank, &first, &last) != CMZ_OK) return false;
  cmz_reducer greatest = {0}, sum = {0};
  p->x = cmz_describe_input(d, 0, idx);
  p->greatest =
      cmz_reducer_finish(d, &greatest, CMZ_REDUCE_MAX, reduced(d, n, idx, first, last, &greatest));
  cmz_expr y = reduced(d, n, idx, first, last, &sum);
  if (!p->x || !p->greatest || !y) return false;
  p->type = cmz_input_type(m, n, 0)->dtype;
  y = cmz_x_softmax_power(k, y, p->greatest, p->type);
  p->sum = cmz_reducer_finish(d, &sum, CMZ_REDUCE_SUM, y);
  if (p->sum) p->sum = cmz_x_softmax_sum(k, p->sum, p->type);
  return p->sum != 0;
}

static cmz_expr describe_softmax(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  (void)output;
  parts p;
  if (!describe_parts(d, n, idx, &p)) return 0;
  cmz_kernel *k = cmz_describe_kernel(d);
  return cmz_x2(k, CMZ_X_DIV, cmz_x_softmax_power(k, p.x, p.greatest, p.type), p.sum);
}

static cmz_expr describe_log_softmax(cmz_describe *d, const cmz_node *n, uint32_t output,
                                     const cmz_expr *idx) {
  (void)output;
  parts p;
  if (!describe_parts(d, n, idx, &p)) return 0;
  cmz_kernel *k = cmz_describe_kernel(d);
  return cmz_x_sub(k, cmz_x_sub(k, p.x, p.greatest), cmz_x1(k, CMZ_X_LOG, p.sum));
}

/* 1 at the first greatest element of the normalised axes, seen as one. */
static cmz_expr describe_hardmax(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  uint32_t first = 0, last = 0;
  if (x.rank && axes_of(m, cmz_node_self(m, n), x.rank, &first, &last) != CMZ_OK) return 0;
  cmz_reducer r = {0};
  cmz_dim count = cmz_dim_product(m->dims, x.shape + first, last - first);
  cmz_expr at[CMZ_MAX_RANK], linear = cmz_reducer_axis(d, &r, count);
  for (uint32_t i = 0; i < x.rank; i++) at[i] = idx[i];
  cmz_describe_delinear(d, x.shape + first, last - first, linear, at + first);
  cmz_expr body = cmz_describe_input(d, 0, at);
  cmz_expr position = cmz_reducer_finish(d, &r, CMZ_REDUCE_ARGMAX, body);
  if (!position) return 0;
  cmz_expr own = cmz_describe_linear(d, x.shape + first, last - first, idx + first);
  return cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, own, position), cmz_x_like(k, body, 1),
                      cmz_x_like(k, body, 0));
}

typedef enum kind { SOFTMAX, LOG_SOFTMAX, HARDMAX } kind;

static cmz_status eval(cmz_eval *e, const cmz_array *x, cmz_array *y, kind what) {
  uint32_t first = 0, last = 0;
  if (x->rank) CMZ_TRY(axes_of(e->module, e->node, x->rank, &first, &last));
  CMZ_TRY(cmz_eval_shape(e, y, x->rank, x->shape));
  int64_t outer = 1, count = 1, inner = 1;
  for (uint32_t i = 0; i < x->rank; i++)
    *(i < first ? &outer : i < last ? &count : &inner) *= x->shape[i];
  for (int64_t o = 0; o < outer * inner; o++) {
    int64_t start = o / inner * count * inner + o % inner, best = 0;
    double greatest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < count; i++) {
      double v = cmz_get(x, start + i * inner);
      if (v > greatest) {
        greatest = v;
        best = i;
      }
    }
    for (int64_t i = 0; i < count; i++) sum += exp(cmz_get(x, start + i * inner) - greatest);
    for (int64_t i = 0; i < count; i++) {
      double v = cmz_get(x, start + i * inner) - greatest;
      v = what == SOFTMAX ? exp(v) / sum : what == LOG_SOFTMAX ? v - log(sum) : i == best;
      cmz_set(y, start + i * inner, v);
    }
  }
  return CMZ_OK;
}

static cmz_status eval_softmax(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  (void)n;
  return eval(e, inputs, outputs, SOFTMAX);
}
static cmz_status eval_log_softmax(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                   cmz_array *outputs) {
  (void)n;
  return eval(e, inputs, outputs, LOG_SOFTMAX);
}
static cmz_status eval_hardmax(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  (void)n;
  return eval(e, inputs, outputs, HARDMAX);
}

#define ROW(NAME, FUNCTION, ...)                                                                   \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,                \
    .max_outputs = 1, .since = 1, .flags = CMZ_OP_REDUCTION, .normalize = normalize,               \
    .infer = infer, .eval = eval_##FUNCTION, .describe = describe_##FUNCTION, ##__VA_ARGS__        \
  }

const cmz_op cmz_ops_softmax[] = {
    ROW("Softmax", softmax, .attributes = "axis:i"),
    ROW("LogSoftmax", log_softmax, .attributes = "axis:i"),
    ROW("Hardmax", hardmax, .attributes = "axis:i"),
    {.name = NULL},
};
