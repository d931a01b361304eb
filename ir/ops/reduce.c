/* reduce.c - the Reduce family, ArgMax, ArgMin, CumSum.
 * In: a tensor and axes, which may be known only at run time. Out: the reduced tensor. Always
 * holds: each axis has a 0/1 flag as a dim; a run-time axis has the flag as an expression, so that
 * the reduction runs over select(flag, size, 1) and the output keeps select(flag, 1, size). */
#include "ops.h"

typedef struct reduce_axes {
  cmz_dim flag[CMZ_MAX_RANK]; /* 1: reduced */
  bool runtime;               /* some flag is not constant */
  bool keep;                  /* keepdims */
  uint32_t count;             /* of axes, which are taken to differ */
} reduce_axes;

/* The axes named by attribute or input as dims; NULL with count 0 when there are none. */
static cmz_status axis_list(cmz_module *m, cmz_nid n, cmz_dim *list, uint32_t *count) {
  const cmz_node *node = cmz_node_get(m, n);
  *count = 0;
  const cmz_attr *attr = cmz_node_attr(node, "axes");
  if (attr && attr->count > CMZ_MAX_RANK) return cmz_node_fail(m, n, CMZ_E_INPUT, "too many axes");
  for (uint32_t i = 0; attr && i < attr->count; i++)
    list[(*count)++] = cmz_dim_const(m->dims, attr->ints[i]);
  cmz_vid input = cmz_node_input(node, 1);
  if (attr || !input) return CMZ_OK;
  uint32_t elements_n = 0;
  const cmz_dim *elements = cmz_value_demand_elements(m, input, &elements_n);
  if (!elements && elements_n) elements_n = CMZ_MAX_RANK + 1;
  const cmz_type *t = cmz_ops_type(m, input);
  if (t->rank == 1 && cmz_dim_is(m->dims, t->shape[0], 0)) return CMZ_OK;
  if (!elements || elements_n > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the number of axes is not known");
  for (uint32_t i = 0; i < elements_n; i++) list[(*count)++] = elements[i];
  return CMZ_OK;
}

static cmz_status read_axes(cmz_module *m, cmz_nid n, reduce_axes *axes) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t rank = cmz_input_type(m, node, 0)->rank, count;
  cmz_dim list[CMZ_MAX_RANK], size = cmz_dim_const(m->dims, rank);
  bool noop = cmz_node_int(node, "noop_with_empty_axes", 0) != 0;
  *axes = (reduce_axes){.keep = cmz_node_int(node, "keepdims", 1) != 0};
  CMZ_TRY(axis_list(m, n, list, &count));
  for (uint32_t i = 0; i < rank; i++) axes->flag[i] = cmz_dim_const(m->dims, count == 0 && !noop);
  for (uint32_t j = 0; j < count; j++) {
    int64_t axis;
    if (cmz_dim_is_const(m->dims, list[j], &axis)) {
      uint32_t a;
      CMZ_TRY(cmz_infer_axis(m, n, axis, rank, &a));
      axes->flag[a] = cmz_dim_const(m->dims, 1);
      continue;
    }
    axes->runtime = true;
    if (!rank) return cmz_node_fail(m, n, CMZ_E_INPUT, "an axis of a scalar");
    cmz_dim a = cmz_dim_mod(m->dims, list[j], size);
    for (uint32_t i = 0; i < rank; i++)
      axes->flag[i] =
          cmz_dim_max(m->dims, axes->flag[i], cmz_dim_eq(m->dims, a, cmz_dim_const(m->dims, i)));
  }
  axes->count = count;
  if (count > rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%u axes of a tensor of rank %u", count, rank);
  return CMZ_OK;
}

/* Older opsets have the axes as an attribute. */
static cmz_status normalize(cmz_module *m, cmz_nid n) {
  const cmz_attr *attr = cmz_node_attr(cmz_node_get(m, n), "axes");
  if (!attr || cmz_node_input(cmz_node_get(m, n), 1)) return CMZ_OK;
  cmz_vid axes = cmz_build_i64s(m, n, attr->ints, attr->count);
  cmz_node_remove_attr(m, n, "axes");
  cmz_node_set_input(m, n, 1, axes);
  return CMZ_OK;
}

/* How many axes before axis I stay: where I goes when it stays and dims are not kept. */
static cmz_dim place_of(cmz_module *m, const reduce_axes *axes, uint32_t i) {
  cmz_dim place = cmz_dim_const(m->dims, i);
  for (uint32_t j = 0; j < i; j++) place = cmz_dim_sub(m->dims, place, axes->flag[j]);
  return place;
}

/* Shape of the result. */
static uint32_t reduced_shape(cmz_module *m, const cmz_type *x, const reduce_axes *axes,
                              cmz_dim *shape) {
  cmz_dim one = cmz_dim_const(m->dims, 1), zero = cmz_dim_const(m->dims, 0);
  uint32_t rank = 0;
  for (uint32_t j = 0; axes->runtime && !axes->keep && j < x->rank - axes->count; j++) {
    cmz_dim size = one; /* the axis that stays and has this place */
    for (uint32_t i = 0; i < x->rank; i++) {
      cmz_dim here = cmz_dim_eq(m->dims, place_of(m, axes, i), cmz_dim_const(m->dims, j));
      here = cmz_dim_select(m->dims, axes->flag[i], zero, here);
      size = cmz_dim_select(m->dims, here, x->shape[i], size);
    }
    shape[rank++] = size;
  }
  if (axes->runtime && !axes->keep) return rank;
  for (uint32_t i = 0; i < x->rank; i++) {
    int64_t flag;
    if (!cmz_dim_is_const(m->dims, axes->flag[i], &flag))
      shape[rank++] = cmz_dim_select(m->dims, axes->flag[i], one, x->shape[i]);
    else if (!flag) shape[rank++] = x->shape[i];
    else if (axes->keep) shape[rank++] = one;
  }
  return rank;
}

/* Coordinate of a run-time axis I that may stay: one of the result's, by its place. */
static cmz_expr kept_coordinate(cmz_describe *d, const cmz_type *x, const reduce_axes *axes,
                                uint32_t i, const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr place = cmz_describe_dim(d, place_of(cmz_describe_module(d), axes, i)),
           at = cmz_x_index(k, 0);
  for (uint32_t j = 0; j < x->rank - axes->count; j++)
    at = cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, place, cmz_x_index(k, j)), idx[j], at);
  return at;
}

/* Coordinates of the input for output IDX, with fresh axes of R where reduced; COUNT: elements
 * reduced. */
static bool input_index(cmz_describe *d, const cmz_type *x, const reduce_axes *axes,
                        const cmz_expr *idx, cmz_reducer *r, cmz_expr *at, cmz_dim *count) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_dim one = cmz_dim_const(m->dims, 1);
  uint32_t next = 0;
  *count = one;
  for (uint32_t i = 0; i < x->rank; i++) {
    int64_t flag = 0;
    bool known = cmz_dim_is_const(m->dims, axes->flag[i], &flag);
    cmz_dim extent =
        known && flag ? x->shape[i] : cmz_dim_select(m->dims, axes->flag[i], x->shape[i], one);
    if (known && flag) {
      at[i] = cmz_reducer_axis(d, r, extent);
      next += axes->keep;
    } else if (known && (axes->keep || !axes->runtime)) {
      at[i] = idx[next++];
      continue;
    } else {
      cmz_expr position = cmz_reducer_axis(d, r, extent);
      /* Kept as 1, its own coordinate is 0 when it is reduced. */
      if (axes->keep) at[i] = cmz_x_add(k, idx[next++], position);
      else
        at[i] = cmz_x_select(
            k, cmz_x2(k, CMZ_X_EQ, cmz_describe_dim(d, axes->flag[i]), cmz_x_index(k, 0)),
            kept_coordinate(d, x, axes, i, idx), position);
    }
    *count = cmz_dim_mul(m->dims, *count, extent);
  }
  return !r->overflow;
}

typedef enum kind { SUM, MEAN, MAX, MIN, PROD, L1, L2, LOG_SUM, LOG_SUM_EXP, SUM_SQUARE } kind;

/* A reduction of a small known integer vector (a shape, mostly) stays known. */
static void known_elements(cmz_module *m, cmz_nid n, kind what) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t count = 0;
  if (what != SUM && what != PROD && what != MAX && what != MIN) return;
  if (cmz_input_type(m, node, 0)->rank != 1 || !cmz_dtype_is_int(cmz_input_type(m, node, 0)->dtype))
    return;
  cmz_vid out = cmz_node_output(node, 0);
  if (!cmz_dim_is(m->dims, cmz_value_element_product(m, out), 1)) return;
  const cmz_dim *e = cmz_value_elements(m, node->inputs[0], &count);
  if (!e || !count) return;
  cmz_dim total = e[0];
  for (uint32_t i = 1; i < count; i++) {
    if (what == SUM) total = cmz_dim_add(m->dims, total, e[i]);
    if (what == PROD) total = cmz_dim_mul(m->dims, total, e[i]);
    if (what == MAX) total = cmz_dim_max(m->dims, total, e[i]);
    if (what == MIN) total = cmz_dim_min(m->dims, total, e[i]);
  }
  cmz_value_set_elements(m, out, &total, 1);
}

static cmz_status infer(cmz_module *m, cmz_nid n, kind what) {
  reduce_axes axes;
  CMZ_TRY(read_axes(m, n, &axes));
  const cmz_type *x = cmz_input_type(m, cmz_node_get(m, n), 0);
  cmz_dim shape[CMZ_MAX_RANK];
  uint32_t rank = reduced_shape(m, x, &axes, shape);
  cmz_set_output(m, n, 0, x->dtype, rank, shape);
  known_elements(m, n, what);
  return CMZ_OK;
}

/* REDUCE over fresh axes of F(input), where F is the kind's; SHIFT is subtracted under the
 * exponential. */
static cmz_expr describe_once(cmz_describe *d, const cmz_type *x, const reduce_axes *axes,
                              const cmz_expr *idx, kind what, cmz_expr shift, cmz_reduce_op op,
                              cmz_dim *count) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_reducer r = {0};
  cmz_expr at[CMZ_MAX_RANK];
  if (!input_index(d, x, axes, idx, &r, at, count)) return 0;
  cmz_expr v = cmz_describe_input(d, 0, at);
  if (!v) return 0;
  if (cmz_dtype_is_int(x->dtype) && (what == L2 || what == LOG_SUM || what == LOG_SUM_EXP))
    v = cmz_x_cast(k, v, CMZ_F64);
  if (what == L1) v = cmz_x1(k, CMZ_X_ABS, v);
  if (what == L2 || what == SUM_SQUARE) v = cmz_x_mul(k, v, v);
  if (shift) v = cmz_x1(k, CMZ_X_EXP, cmz_x_sub(k, v, shift));
  return cmz_reducer_finish(d, &r, op, v);
}

static cmz_expr describe(cmz_describe *d, const cmz_node *n, const cmz_expr *idx, kind what) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  cmz_dtype compute = cmz_dtype_info(x.dtype)->compute;
  reduce_axes axes;
  cmz_dim count;
  if (read_axes(m, cmz_node_self(m, n), &axes) != CMZ_OK) return 0;
  cmz_reduce_op op = what == MAX    ? CMZ_REDUCE_MAX
                     : what == MIN  ? CMZ_REDUCE_MIN
                     : what == PROD ? CMZ_REDUCE_PROD
                                    : CMZ_REDUCE_SUM;
  if (x.dtype == CMZ_BOOL && what == MAX) op = CMZ_REDUCE_OR;
  if (x.dtype == CMZ_BOOL && what == MIN) op = CMZ_REDUCE_AND;
  if (what == LOG_SUM_EXP) {
    cmz_expr top = describe_once(d, &x, &axes, idx, what, 0, CMZ_REDUCE_MAX, &count);
    if (!top) return 0;
    top = cmz_x_select(k, cmz_x1(k, CMZ_X_IS_INF, top), cmz_x_like(k, top, 0), top);
    cmz_expr sum = describe_once(d, &x, &axes, idx, what, top, CMZ_REDUCE_SUM, &count);
    if (!sum) return 0;
    return cmz_x_cast(k, cmz_x_add(k, cmz_x1(k, CMZ_X_LOG, sum), top), compute);
  }
  cmz_expr v = describe_once(d, &x, &axes, idx, what, 0, op, &count);
  if (!v) return 0;
  if (what == MEAN)
    v = cmz_x2(k, CMZ_X_DIV, v, cmz_x_cast(k, cmz_describe_dim(d, count), cmz_x_dtype(k, v)));
  if (what == L2) v = cmz_x1(k, CMZ_X_SQRT, v);
  if (what == LOG_SUM) v = cmz_x1(k, CMZ_X_LOG, v);
  return cmz_x_cast(k, v, compute);
}

/* ---- reference evaluation ---- */

/* Which axes of X are reduced, from the attribute or the concrete second input. */
static cmz_status eval_axes(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            bool *reduced) {
  const cmz_array *x = &inputs[0];
  const cmz_array *list = n->input_count > 1 && inputs[1].data ? &inputs[1] : NULL;
  const cmz_attr *attr = cmz_node_attr(n, "axes");
  uint32_t count = attr ? attr->count : list ? (uint32_t)cmz_array_count(list) : 0;
  bool all = count == 0 && !cmz_node_int(n, "noop_with_empty_axes", 0);
  for (uint32_t i = 0; i < x->rank; i++) reduced[i] = all;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t axis;
    CMZ_TRY(cmz_eval_axis(e, attr ? attr->ints[i] : cmz_get_int(list, i), x->rank, &axis));
    reduced[axis] = true;
  }
  return CMZ_OK;
}

static double start_of(kind what, bool is_bool) {
  if (is_bool && (what == MAX || what == MIN)) return what == MIN;
  return what == PROD ? 1 : what == MAX ? -INFINITY : what == MIN ? INFINITY : 0;
}

static double combine(kind what, double a, double v) {
  switch (what) {
  case PROD:
    return a * v;
  case MAX:
    return isnan(v) || v > a ? v : a;
  case MIN:
    return isnan(v) || v < a ? v : a;
  case L1:
    return a + fabs(v);
  case L2:
  case SUM_SQUARE:
    return a + v * v;
  case LOG_SUM_EXP:
    return a + exp(v);
  default:
    return a + v;
  }
}

static double finish(kind what, double a, double count) {
  if (what == MEAN) return a / count;
  if (what == L2) return sqrt(a);
  return what == LOG_SUM || what == LOG_SUM_EXP ? log(a) : a;
}

/* Integer kinds that doubles would round. */
static int64_t combine_int(kind what, int64_t a, int64_t v) {
  if (what == PROD) return (int64_t)((uint64_t)a * (uint64_t)v);
  if (what == SUM_SQUARE) return (int64_t)((uint64_t)a + (uint64_t)v * (uint64_t)v);
  return (int64_t)((uint64_t)a + (uint64_t)(what == L1 && v < 0 ? -v : v));
}

static cmz_status eval(cmz_eval *e, const cmz_node *n, const cmz_array *inputs, cmz_array *outputs,
                       kind what) {
  const cmz_array *x = &inputs[0];
  bool reduced[CMZ_MAX_RANK], keep = cmz_node_int(n, "keepdims", 1) != 0;
  CMZ_TRY(eval_axes(e, n, inputs, reduced));
  int64_t shape[CMZ_MAX_RANK];
  uint32_t rank = 0;
  double count = 1;
  for (uint32_t i = 0; i < x->rank; i++) {
    if (reduced[i]) count *= (double)x->shape[i];
    if (!reduced[i] || keep) shape[rank++] = reduced[i] ? 1 : x->shape[i];
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], rank, shape));
  size_t total = cmz_array_count(&outputs[0]);
  double *a = CMZ_NEW_ARRAY(e->arena, double, total);
  int64_t *exact = CMZ_NEW_ARRAY(e->arena, int64_t, total);
  bool ints = cmz_dtype_is_int(x->dtype) &&
              (what == SUM || what == PROD || what == L1 || what == SUM_SQUARE);
  for (size_t i = 0; i < total; i++) {
    a[i] = start_of(what, x->dtype == CMZ_BOOL);
    exact[i] = what == PROD;
  }
  for (size_t i = 0; i < cmz_array_count(x); i++) {
    int64_t c[CMZ_MAX_RANK];
    size_t o = 0;
    cmz_array_coordinates(x, i, c);
    for (uint32_t j = 0; j < x->rank; j++)
      if (!reduced[j]) o = o * (size_t)x->shape[j] + (size_t)c[j];
    if (ints) exact[o] = combine_int(what, exact[o], cmz_get_int(x, (int64_t)i));
    else a[o] = combine(what, a[o], cmz_get(x, (int64_t)i));
  }
  for (size_t i = 0; i < total; i++) {
    if (ints) cmz_set_int(&outputs[0], (int64_t)i, exact[i]);
    else cmz_set(&outputs[0], (int64_t)i, finish(what, a[i], count));
  }
  return CMZ_OK;
}

#define KIND(NAME, WHAT)                                                                           \
  static cmz_status infer_##NAME(cmz_module *m, cmz_nid n) { return infer(m, n, WHAT); }           \
  static cmz_status eval_##NAME(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,           \
                                cmz_array *outputs) {                                              \
    return eval(e, n, inputs, outputs, WHAT);                                                      \
  }                                                                                                \
  static cmz_expr describe_##NAME(cmz_describe *d, const cmz_node *n, uint32_t output,             \
                                  const cmz_expr *idx) {                                           \
    (void)output;                                                                                  \
    return describe(d, n, idx, WHAT);                                                              \
  }
KIND(sum, SUM)
KIND(mean, MEAN)
KIND(max, MAX)
KIND(min, MIN)
KIND(prod, PROD)
KIND(l1, L1)
KIND(l2, L2)
KIND(log_sum, LOG_SUM)
KIND(log_sum_exp, LOG_SUM_EXP)
KIND(sum_square, SUM_SQUARE)

/* ---- ArgMax, ArgMin ---- */

static cmz_status infer_arg(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  uint32_t axis, rank = 0;
  bool keep = cmz_node_int(node, "keepdims", 1) != 0;
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", 0), x->rank, &axis));
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x->rank; i++)
    if (i != axis || keep) shape[rank++] = i == axis ? cmz_dim_const(m->dims, 1) : x->shape[i];
  cmz_set_output(m, n, 0, CMZ_I64, rank, shape);
  return CMZ_OK;
}

static cmz_expr describe_arg(cmz_describe *d, const cmz_node *n, const cmz_expr *idx, bool min) {
  cmz_module *m = cmz_describe_module(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  bool keep = cmz_node_int(n, "keepdims", 1) != 0,
       last = cmz_node_int(n, "select_last_index", 0) != 0;
  uint32_t axis, next = 0;
  if (cmz_infer_axis(m, cmz_node_self(m, n), cmz_node_int(n, "axis", 0), x.rank, &axis) != CMZ_OK)
    return 0;
  cmz_reducer r = {0};
  cmz_expr at[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++) {
    if (i == axis) {
      at[i] = cmz_reducer_axis(d, &r, x.shape[i]);
      next += keep;
    } else {
      at[i] = idx[next++];
    }
  }
  cmz_expr body = cmz_describe_input(d, 0, at);
  cmz_reduce_op op = min ? (last ? CMZ_REDUCE_ARGMIN_LAST : CMZ_REDUCE_ARGMIN)
                         : (last ? CMZ_REDUCE_ARGMAX_LAST : CMZ_REDUCE_ARGMAX);
  return cmz_reducer_finish(d, &r, op, body);
}

static cmz_expr describe_arg_max(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  (void)output;
  return describe_arg(d, n, idx, false);
}
static cmz_expr describe_arg_min(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  (void)output;
  return describe_arg(d, n, idx, true);
}

static cmz_status eval_arg(cmz_eval *e, const cmz_node *n, const cmz_array *x, cmz_array *out,
                           bool min) {
  bool keep = cmz_node_int(n, "keepdims", 1) != 0,
       last = cmz_node_int(n, "select_last_index", 0) != 0;
  uint32_t axis, rank = 0;
  int64_t shape[CMZ_MAX_RANK], inner = 1, outer = 1;
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", 0), x->rank, &axis));
  for (uint32_t i = 0; i < x->rank; i++) {
    if (i != axis || keep) shape[rank++] = i == axis ? 1 : x->shape[i];
    if (i != axis) *(i < axis ? &outer : &inner) *= x->shape[i];
  }
  CMZ_TRY(cmz_eval_shape(e, out, rank, shape));
  for (int64_t o = 0; o < outer * inner; o++) {
    int64_t start = o / inner * x->shape[axis] * inner + o % inner, best = 0;
    for (int64_t i = 1; i < x->shape[axis]; i++) {
      double v = cmz_get(x, start + i * inner), top = cmz_get(x, start + best * inner);
      if (min ? v < top : v > top) best = i;
      else if (last && v == top) best = i;
    }
    cmz_set_int(out, o, best);
  }
  return CMZ_OK;
}

static cmz_status eval_arg_max(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  return eval_arg(e, n, inputs, outputs, false);
}
static cmz_status eval_arg_min(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  return eval_arg(e, n, inputs, outputs, true);
}

/* ---- CumSum ---- */

/* The axis as a dim: a number, or an expression when it is only known at run time. */
static cmz_status cumulative_axis(cmz_module *m, cmz_nid n, cmz_dim *axis) {
  uint32_t count = 0, known, rank = cmz_input_type(m, cmz_node_get(m, n), 0)->rank;
  const cmz_dim *e = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &count);
  int64_t value;
  if (!e || count != 1 || !rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the axis is not one integer");
  if (!cmz_dim_is_const(m->dims, e[0], &value)) {
    *axis = cmz_dim_mod(m->dims, e[0], cmz_dim_const(m->dims, rank));
    return CMZ_OK;
  }
  CMZ_TRY(cmz_infer_axis(m, n, value, rank, &known));
  *axis = cmz_dim_const(m->dims, known);
  return CMZ_OK;
}

static cmz_status infer_cum_sum(cmz_module *m, cmz_nid n) {
  cmz_dim axis;
  CMZ_TRY(cumulative_axis(m, n, &axis));
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

static cmz_expr describe_cum(cmz_describe *d, const cmz_node *n, const cmz_expr *idx,
                             cmz_reduce_op op, double neutral) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  cmz_dim axis = CMZ_DIM_NONE, extent = x.shape[0];
  if (cumulative_axis(m, cmz_node_self(m, n), &axis) != CMZ_OK) return 0;
  bool exclusive = cmz_node_int(n, "exclusive", 0) != 0,
       reverse = cmz_node_int(n, "reverse", 0) != 0;
  for (uint32_t i = 1; i < x.rank; i++)
    extent = cmz_dim_select(m->dims, cmz_dim_eq(m->dims, axis, cmz_dim_const(m->dims, i)),
                            x.shape[i], extent);
  cmz_reducer r = {0};
  cmz_expr at[CMZ_MAX_RANK], position = cmz_reducer_axis(d, &r, extent),
                             here = cmz_describe_dim(d, axis), own = idx[0];
  for (uint32_t i = 0; i < x.rank; i++) {
    cmz_expr is_axis = cmz_x2(k, CMZ_X_EQ, here, cmz_x_index(k, i));
    at[i] = cmz_x_select(k, is_axis, position, idx[i]);
    own = cmz_x_select(k, is_axis, idx[i], own);
  }
  cmz_expr v = cmz_describe_input(d, 0, at);
  if (!v) return 0;
  cmz_expr counts = cmz_x2(k, exclusive ? CMZ_X_LT : CMZ_X_LE, reverse ? own : position,
                           reverse ? position : own);
  return cmz_reducer_finish(d, &r, op, cmz_x_select(k, counts, v, cmz_x_like(k, v, neutral)));
}

static cmz_expr describe_cum_sum(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  (void)output;
  return describe_cum(d, n, idx, CMZ_REDUCE_SUM, 0);
}

static cmz_expr describe_cum_prod(cmz_describe *d, const cmz_node *n, uint32_t output,
                                  const cmz_expr *idx) {
  (void)output;
  return describe_cum(d, n, idx, CMZ_REDUCE_PROD, 1);
}

#define SHORT_RUN                                                                                  \
  64 /* terms that a sum for each element, which fuses and runs on any thread, is as good for */

/* Long runs in types that are stored as they are computed become one pass over the axis. */
static cmz_status expand_cum(cmz_module *m, cmz_nid n) {
  cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  cmz_dim axis;
  int64_t at, extent;
  CMZ_TRY(cumulative_axis(m, n, &axis));
  if (cmz_dtype_info(x->dtype)->compute != x->dtype || x->dtype == CMZ_BOOL ||
      !cmz_dim_is_const(m->dims, axis, &at) ||
      (cmz_dim_is_const(m->dims, x->shape[at], &extent) && extent < SHORT_RUN))
    return CMZ_OK;
  node = cmz_node_get(m, n);
  node->op = cmz_op_get(!strcmp(node->op->name, "CumSum") ? "RunningSum" : "RunningProd");
  return CMZ_OK;
}

/* Element i is element i - 1 and one term more: i is an axis whose iterations come in order. */
static cmz_status describe_running(cmz_describe *d, const cmz_node *n) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0);
  bool exclusive = cmz_node_int(n, "exclusive", 0) != 0,
       reverse = cmz_node_int(n, "reverse", 0) != 0, sum = !strcmp(n->op->name, "RunningSum");
  cmz_dim dim;
  int64_t axis;
  CMZ_TRY(cumulative_axis(m, cmz_node_self(m, n), &dim));
  if (!cmz_dim_is_const(m->dims, dim, &axis)) return CMZ_E_INTERNAL;
  uint16_t out = cmz_describe_output(d, 0, CMZ_READ_WRITE);
  cmz_store store = {.operand = out, .mode = CMZ_STORE_SET, .axis_count = x.rank};
  cmz_expr here[CMZ_MAX_RANK], before[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++) {
    cmz_expr size = cmz_describe_dim(d, x.shape[i]);
    store.axes[i] = cmz_kernel_add_axis(k, i == axis ? CMZ_AXIS_SERIAL : CMZ_AXIS_PARALLEL, size);
    here[i] = before[i] = cmz_x_axis(k, store.axes[i]);
    if (i != axis) continue;
    if (reverse) here[i] = cmz_x_sub(k, cmz_x_sub(k, size, cmz_x_index(k, 1)), here[i]);
    before[i] = cmz_x_add(k, here[i], cmz_x_index(k, reverse ? 1 : -1));
  }
  cmz_expr any = cmz_x2(k, CMZ_X_LT, cmz_x_index(k, 0), cmz_x_axis(k, store.axes[axis]));
  store.index = cmz_describe_output_index(d, 0, here);
  cmz_expr last = cmz_describe_output_index(d, 0, before),
           term = cmz_describe_input(d, 0, exclusive ? before : here);
  if (!store.index || !last || !term) return CMZ_E_UNSUPPORTED;
  cmz_expr neutral = cmz_x_like(k, term, sum ? 0 : 1), so_far = cmz_x_load(k, out, last);
  if (exclusive)
    store.value =
        cmz_x_select(k, any, cmz_x2(k, sum ? CMZ_X_ADD : CMZ_X_MUL, so_far, term), neutral);
  else
    store.value =
        cmz_x2(k, sum ? CMZ_X_ADD : CMZ_X_MUL, cmz_x_select(k, any, so_far, neutral), term);
  cmz_vec_push(k->arena, &k->stores, store);
  return CMZ_OK;
}

static cmz_status eval_cum(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                           cmz_array *outputs, bool product) {
  const cmz_array *x = &inputs[0];
  cmz_array *y = &outputs[0];
  bool exclusive = cmz_node_int(n, "exclusive", 0) != 0,
       reverse = cmz_node_int(n, "reverse", 0) != 0;
  uint32_t axis;
  CMZ_TRY(cmz_eval_axis(e, cmz_get_int(&inputs[1], 0), x->rank, &axis));
  CMZ_TRY(cmz_eval_shape(e, y, x->rank, x->shape));
  int64_t inner = 1, count = x->shape[axis];
  for (uint32_t i = axis + 1; i < x->rank; i++) inner *= x->shape[i];
  bool ints = cmz_dtype_is_int(x->dtype);
  for (int64_t o = 0; count && o < (int64_t)cmz_array_count(x) / count; o++) {
    double sum = product;
    uint64_t exact = product;
    for (int64_t s = 0; s < count; s++) {
      int64_t at = o / inner * count * inner + o % inner + (reverse ? count - 1 - s : s) * inner;
      if (exclusive && ints) cmz_set_int(y, at, (int64_t)exact);
      if (exclusive && !ints) cmz_set(y, at, sum);
      uint64_t next = ints ? (uint64_t)cmz_get_int(x, at) : 0;
      exact = product ? exact * next : exact + next;
      sum = product ? sum * cmz_get(x, at) : sum + cmz_get(x, at);
      if (!exclusive && ints) cmz_set_int(y, at, (int64_t)exact);
      if (!exclusive && !ints) cmz_set(y, at, sum);
    }
  }
  return CMZ_OK;
}

static cmz_status eval_cum_sum(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  return eval_cum(e, n, inputs, outputs, false);
}
static cmz_status eval_cum_prod(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                cmz_array *outputs) {
  return eval_cum(e, n, inputs, outputs, true);
}

#define ROW(NAME, FUNCTION, ...)                                                                   \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = 1, .max_inputs = 2, .min_outputs = 1,                \
    .max_outputs = 1, .since = 1, .flags = CMZ_OP_REDUCTION, .normalize = normalize,               \
    .infer = infer_##FUNCTION, .eval = eval_##FUNCTION, .describe = describe_##FUNCTION,           \
    ##__VA_ARGS__                                                                                  \
  }
#define OTHER(NAME, INPUTS, SINCE, INFER, FUNCTION, ...)                                           \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = INPUTS, .max_inputs = INPUTS, .min_outputs = 1,      \
    .max_outputs = 1, .since = SINCE, .flags = CMZ_OP_REDUCTION, .infer = INFER,                   \
    .eval = eval_##FUNCTION, .describe = describe_##FUNCTION, ##__VA_ARGS__                        \
  }

#define RUNNING(NAME, FUNCTION)                                                                    \
  {                                                                                                \
    .name = NAME, .domain = "cmz", .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,             \
    .max_outputs = 1, .since = 1, .infer = infer_cum_sum, .eval = eval_##FUNCTION,                 \
    .describe_kernel = describe_running                                                            \
  }

const cmz_op cmz_ops_reduce[] = {
    ROW("ReduceSum", sum, .attributes = "axes:I<13 keepdims:i noop_with_empty_axes:i@13"),
    ROW("ReduceMean", mean, .attributes = "axes:I<18 keepdims:i noop_with_empty_axes:i@18"),
    ROW("ReduceMax", max, .attributes = "axes:I<18 keepdims:i noop_with_empty_axes:i@18"),
    ROW("ReduceMin", min, .attributes = "axes:I<18 keepdims:i noop_with_empty_axes:i@18"),
    ROW("ReduceProd", prod, .attributes = "axes:I<18 keepdims:i noop_with_empty_axes:i@18"),
    ROW("ReduceL1", l1, .attributes = "axes:I<18 keepdims:i noop_with_empty_axes:i@18"),
    ROW("ReduceL2", l2, .attributes = "axes:I<18 keepdims:i noop_with_empty_axes:i@18"),
    ROW("ReduceLogSum", log_sum, .attributes = "axes:I<18 keepdims:i noop_with_empty_axes:i@18"),
    ROW("ReduceLogSumExp", log_sum_exp,
        .attributes = "axes:I<18 keepdims:i noop_with_empty_axes:i@18"),
    ROW("ReduceSumSquare", sum_square,
        .attributes = "axes:I<18 keepdims:i noop_with_empty_axes:i@18"),
    OTHER("ArgMax", 1, 1, infer_arg, arg_max,
          .attributes = "axis:i keepdims:i select_last_index:i@12"),
    OTHER("ArgMin", 1, 1, infer_arg, arg_min,
          .attributes = "axis:i keepdims:i select_last_index:i@12"),
    OTHER("CumSum", 2, 11, infer_cum_sum, cum_sum, .expand = expand_cum,
          .attributes = "exclusive:i reverse:i"),
    OTHER("CumProd", 2, 26, infer_cum_sum, cum_prod, .expand = expand_cum,
          .attributes = "exclusive:i reverse:i"),
    RUNNING("RunningSum", cum_sum),
    RUNNING("RunningProd", cum_prod),
    {.name = NULL},
};
