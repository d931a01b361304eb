/* tensor.c - helpers of the compute families; see tensor.h.
 * In: nodes, descriptions, arrays. Out: expressions, types, constants. Always holds: failures of a
 * description are recorded with cmz_describe_fail and come back as expression 0. */
#include "tensor.h"

#include <math.h>

void cmz_set_output(cmz_module *m, cmz_nid n, uint32_t i, cmz_dtype dtype, uint32_t rank,
                    const cmz_dim *shape) {
  cmz_vid v = cmz_node_output(cmz_node_get(m, n), i);
  if (v) cmz_value_set_type(m, v, dtype, rank, shape);
}

cmz_nid cmz_node_self(const cmz_module *m, const cmz_node *n) {
  for (uint32_t i = 0; i < n->output_count; i++)
    if (n->outputs[i]) return cmz_value_get(m, n->outputs[i])->producer;
  return 0;
}

bool cmz_dims_differ(const cmz_module *m, cmz_dim a, cmz_dim b) {
  int64_t x, y;
  return cmz_dim_is_const(m->dims, a, &x) && cmz_dim_is_const(m->dims, b, &y) && x != y;
}

cmz_status cmz_check_shape(cmz_module *m, cmz_nid n, uint32_t input, uint32_t count,
                           const cmz_dim *dims) {
  const cmz_type *t = cmz_input_type(m, cmz_node_get(m, n), input);
  if (!t) return CMZ_OK;
  if (t->rank != count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u has rank %u, should have %u", input, t->rank,
                         count);
  for (uint32_t i = 0; i < count; i++)
    if (dims[i] && cmz_dims_differ(m, t->shape[i], dims[i]))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u has the wrong size in dimension %u", input,
                           i);
  return CMZ_OK;
}

cmz_status cmz_check_vector(cmz_module *m, cmz_nid n, uint32_t input, cmz_dim size, bool scalar) {
  const cmz_type *t = cmz_input_type(m, cmz_node_get(m, n), input);
  bool one = t && (t->rank == 0 || (t->rank == 1 && cmz_dim_is(m->dims, t->shape[0], 1)));
  return scalar && one ? CMZ_OK : cmz_check_shape(m, n, input, 1, &size);
}

cmz_expr cmz_reducer_axis(cmz_describe *d, cmz_reducer *r, cmz_dim extent) {
  cmz_module *m = cmz_describe_module(d);
  if (cmz_dim_is(m->dims, extent, 1)) return cmz_x_index(cmz_describe_kernel(d), 0);
  if (r->count == CMZ_REDUCE_MAX_AXES) {
    r->overflow = true;
    return cmz_describe_fail(d, "reduction over more than %d axes", CMZ_REDUCE_MAX_AXES);
  }
  return cmz_describe_reduce_axis(d, extent, &r->axes[r->count++]);
}

cmz_expr cmz_reducer_finish(cmz_describe *d, const cmz_reducer *r, cmz_reduce_op op,
                            cmz_expr body) {
  cmz_kernel *k = cmz_describe_kernel(d);
  if (!body || r->overflow) return 0;
  if (r->count) return cmz_x_reduce(k, op, body, r->axes, r->count);
  return op >= CMZ_REDUCE_ARGMAX ? cmz_x_index(k, 0) : body;
}

cmz_expr cmz_x_bounds(cmz_kernel *k, cmz_expr p, cmz_expr extent, bool low, bool high) {
  cmz_expr inside = 0;
  if (low) inside = cmz_x2(k, CMZ_X_LE, cmz_x_index(k, 0), p);
  if (high) inside = cmz_x_and(k, inside, cmz_x2(k, CMZ_X_LT, p, extent));
  return inside;
}

cmz_expr cmz_x_and(cmz_kernel *k, cmz_expr a, cmz_expr b) {
  if (!a || !b) return a ? a : b;
  return cmz_x2(k, CMZ_X_AND, a, b);
}

/* Range of an integer storage type. */
static void int_range(cmz_dtype dtype, int64_t *low, int64_t *high) {
  const cmz_dtype_row *row = cmz_dtype_info(dtype);
  uint32_t bits = row->bits ? row->bits : 64;
  if (row->class_ == CMZ_CLASS_BOOL) {
    *low = 0;
    *high = 1;
  } else if (row->class_ == CMZ_CLASS_UNSIGNED) {
    *low = 0;
    *high = bits >= 64 ? -1 : (int64_t)((UINT64_C(1) << bits) - 1);
  } else {
    *high = (int64_t)((UINT64_C(1) << (bits - 1)) - 1);
    *low = -*high - 1;
  }
}

cmz_expr cmz_x_lowest(cmz_kernel *k, cmz_dtype dtype) {
  cmz_dtype compute = cmz_dtype_info(dtype)->compute;
  if (cmz_dtype_is_float(dtype)) return cmz_x_float(k, compute, -INFINITY);
  int64_t low, high;
  int_range(dtype, &low, &high);
  return cmz_x_int(k, compute, low);
}

cmz_expr cmz_x_highest(cmz_kernel *k, cmz_dtype dtype) {
  cmz_dtype compute = cmz_dtype_info(dtype)->compute;
  if (cmz_dtype_is_float(dtype)) return cmz_x_float(k, compute, INFINITY);
  int64_t low, high;
  int_range(dtype, &low, &high);
  return cmz_x_int(k, compute, high);
}

cmz_expr cmz_x_wrap_index(cmz_kernel *k, cmz_expr i, cmz_expr extent, bool known) {
  cmz_expr zero = cmz_x_index(k, 0);
  i = cmz_x_cast(k, i, CMZ_I64);
  if (known) return i;
  i = cmz_x_select(k, cmz_x2(k, CMZ_X_LT, i, zero), cmz_x_add(k, i, extent), i);
  /* The outer MAX keeps an empty dimension from giving -1. */
  cmz_expr last = cmz_x_sub(k, extent, cmz_x_index(k, 1));
  return cmz_x2(k, CMZ_X_MAX, cmz_x2(k, CMZ_X_MIN, i, last), zero);
}

bool cmz_indices_known(const cmz_module *m, cmz_vid v, cmz_dim extent) {
  const cmz_constant *c = cmz_value_constant(m, v);
  if (!c) return false;
  int64_t low, high;
  cmz_dim_range(m->dims, extent, &low, &high);
  size_t count = 1;
  for (uint32_t i = 0; i < c->rank; i++) count *= (size_t)c->shape[i];
  for (size_t i = 0; i < count; i++) {
    int64_t x = cmz_dtype_get_i64(c->dtype, c->data, i);
    if (x < 0 || x >= low) return false;
  }
  return true;
}

void cmz_copy_element(cmz_array *a, int64_t i, const cmz_array *b, int64_t j) {
  uint32_t bits = cmz_dtype_info(a->dtype)->bits;
  if (a->dtype == CMZ_STRING) {
    ((const char **)a->data)[i] = ((const char *const *)b->data)[j];
  } else if (bits % 8 == 0) {
    size_t size = bits / 8;
    memcpy((char *)a->data + (size_t)i * size, (const char *)b->data + (size_t)j * size, size);
  } else if (cmz_dtype_is_int(a->dtype)) {
    cmz_set_int(a, i, cmz_get_int(b, j));
  } else {
    cmz_set(a, i, cmz_get(b, j));
  }
}

int64_t cmz_array_index(const cmz_array *a, const int64_t *coordinates) {
  int64_t index = 0;
  for (uint32_t i = 0; i < a->rank; i++) index = index * a->shape[i] + coordinates[i];
  return index;
}

cmz_status cmz_eval_shape(cmz_eval *e, cmz_array *out, uint32_t rank, const int64_t *shape) {
  out->rank = rank;
  for (uint32_t i = 0; i < rank; i++) {
    if (shape[i] < 0)
      return cmz_eval_fail(e, "a dimension would be negative (%" PRId64 ")", shape[i]);
    out->shape[i] = shape[i];
  }
  return cmz_eval_output(e, out);
}

cmz_status cmz_eval_axis(cmz_eval *e, int64_t axis, uint32_t rank, uint32_t *out) {
  int64_t a = axis < 0 ? axis + (int64_t)rank : axis;
  if (a < 0 || a >= (int64_t)rank)
    return cmz_eval_fail(e, "axis %" PRId64 " is outside rank %u", axis, rank);
  *out = (uint32_t)a;
  return CMZ_OK;
}

void cmz_array_dims(cmz_eval *e, const cmz_array *a, cmz_dim *dims) {
  for (uint32_t i = 0; i < a->rank; i++) dims[i] = cmz_dim_const(e->module->dims, a->shape[i]);
}

cmz_vid cmz_build_floats(cmz_module *m, cmz_nid before, cmz_dtype dtype, uint32_t rank,
                         const int64_t *shape, const double *values) {
  size_t count = 1, bytes = 0;
  for (uint32_t i = 0; i < rank; i++) count *= (size_t)shape[i];
  if (!cmz_dtype_bytes(dtype, count, &bytes)) return 0;
  void *data = cmz_arena_alloc(m->arena, bytes);
  for (size_t i = 0; i < count; i++) cmz_dtype_set_f64(dtype, data, i, values[i]);
  int64_t *kept = cmz_arena_copy(m->arena, shape, rank * sizeof *shape);
  cmz_gid graph = cmz_node_get(m, before)->graph;
  return cmz_value_add_constant(m, graph, NULL, dtype, rank, kept, data, bytes);
}

cmz_vid cmz_build_i64s(cmz_module *m, cmz_nid before, const int64_t *values, uint32_t count) {
  return cmz_value_add_i64s(m, cmz_node_get(m, before)->graph, values, count);
}

const double *cmz_const_doubles(const cmz_module *m, cmz_vid v, size_t *count) {
  const cmz_constant *c = cmz_value_constant(m, v);
  if (!c) return NULL;
  *count = 1;
  for (uint32_t i = 0; i < c->rank; i++) *count *= (size_t)c->shape[i];
  double *values = CMZ_NEW_ARRAY(m->arena, double, *count);
  for (size_t i = 0; i < *count; i++) values[i] = cmz_dtype_get_f64(c->dtype, c->data, i);
  return values;
}
