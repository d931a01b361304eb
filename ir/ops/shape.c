/* shape.c - shapes as data and other views of the same bytes: Shape, Size, Dims, Reshape, Flatten,
 * Squeeze, Unsqueeze. In: one tensor and (constant, symbolic or run-time) sizes. Out: types with
 * symbolic content, values, index expressions. Always holds: views keep row-major order, so a view
 * is its bytes. */
#include "ops.h"

/* ---- content known at inference: Shape, Size, cmz.Dims ---- */

/* Element idx[0] of output 0's symbolic content. */
static cmz_expr describe_elements(cmz_describe *d, const cmz_node *n, uint32_t output,
                                  const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_module *m = cmz_describe_module(d);
  uint32_t count;
  const cmz_dim *elements = cmz_value_elements(m, n->outputs[output], &count);
  if (!elements) return cmz_describe_fail(d, "its content is not known");
  if (count == 0) return cmz_x_index(k, 0);
  cmz_expr r = cmz_describe_dim(d, elements[count - 1]);
  for (uint32_t i = count - 1; i-- > 0;)
    r = cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, idx[0], cmz_x_index(k, i)),
                     cmz_describe_dim(d, elements[i]), r);
  return r;
}

/* The range [start, end) of dims that Shape gives. */
static void shape_range(const cmz_node *n, uint32_t rank, uint32_t *start, uint32_t *end) {
  int64_t r = rank, s = cmz_node_int(n, "start", 0), t = cmz_node_int(n, "end", r);
  s = CMZ_MAX(0, CMZ_MIN(s < 0 ? s + r : s, r));
  t = CMZ_MAX(s, CMZ_MIN(t < 0 ? t + r : t, r));
  *start = (uint32_t)s;
  *end = (uint32_t)t;
}

static cmz_status infer_shape(cmz_module *m, cmz_nid n) {
  cmz_type type = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_vid out = cmz_ops_output(m, n, 0);
  uint32_t start, end;
  shape_range(cmz_node_get(m, n), type.rank, &start, &end);
  cmz_dim count = cmz_dim_const(m->dims, end - start);
  cmz_set_output(m, n, 0, CMZ_I64, 1, &count);
  for (uint32_t i = start; i < end; i++) cmz_dim_mark_size(m->dims, type.shape[i]);
  if (out) cmz_value_set_elements(m, out, type.shape + start, end - start);
  return CMZ_OK;
}

static cmz_status eval_shape(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  uint32_t start, end;
  shape_range(n, inputs[0].rank, &start, &end);
  int64_t count = end - start;
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 1, &count));
  for (uint32_t i = start; i < end; i++)
    cmz_array_set_i64(&outputs[0], i - start, inputs[0].shape[i]);
  return CMZ_OK;
}

static cmz_status infer_size(cmz_module *m, cmz_nid n) {
  cmz_dim product = cmz_value_element_product(m, cmz_ops_input(m, n, 0));
  cmz_vid out = cmz_ops_output(m, n, 0);
  cmz_set_output(m, n, 0, CMZ_I64, 0, NULL);
  if (out) cmz_value_set_elements(m, out, &product, 1);
  return CMZ_OK;
}

static cmz_status eval_size(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  (void)n;
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 0, NULL));
  cmz_array_set_i64(&outputs[0], 0, (int64_t)cmz_array_count(&inputs[0]));
  return CMZ_OK;
}

/* Dims: passes set type and content on its output when they make it. */
static cmz_status infer_dims(cmz_module *m, cmz_nid n) {
  uint32_t count;
  cmz_vid out = cmz_ops_output(m, n, 0);
  if (out && !cmz_value_elements(m, out, &count))
    return cmz_node_fail(m, n, CMZ_E_INTERNAL, "a Dims node has lost its content");
  return CMZ_OK;
}

/* Values of all symbols as far as the arrays at hand tell. */
static int64_t *symbol_values(cmz_eval *e) {
  cmz_module *m = e->module;
  uint32_t count = cmz_dim_symbol_count(m->dims);
  int64_t *values = CMZ_NEW_ARRAY(e->arena, int64_t, count + 1);
  for (uint32_t s = 0; s < count; s++) {
    cmz_symbol *symbol = cmz_dim_symbol_at(m->dims, s);
    values[s] = symbol->hint;
    if (symbol->origin == CMZ_SYMBOL_DATA && symbol->element >= 0 && e->values &&
        e->values[symbol->value].data)
      values[s] = cmz_array_i64(&e->values[symbol->value], (size_t)symbol->element);
  }
  for (cmz_vid v = 1; e->values && v < m->values.count; v++) {
    const cmz_value *value = cmz_value_get(m, v);
    if (!e->values[v].data || value->type.rank != e->values[v].rank) continue;
    for (uint32_t i = 0; i < value->type.rank; i++) {
      const cmz_dim_node *node = cmz_dim_get(m->dims, value->type.shape[i]);
      if (node->kind == CMZ_DIM_SYMBOL) values[node->value] = e->values[v].shape[i];
    }
  }
  return values;
}

static cmz_status eval_dims(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  (void)inputs;
  uint32_t count;
  const cmz_dim *elements = cmz_value_elements(e->module, n->outputs[0], &count);
  if (!elements) return cmz_eval_fail(e, "its content is not known");
  int64_t size = count, value;
  uint32_t rank = cmz_value_get(e->module, n->outputs[0])->type.rank == 0 ? 0 : 1;
  /* Without values (constant folding) only numbers count: a hint is not a size. */
  for (uint32_t i = 0; i < count && !e->values; i++)
    if (!cmz_dim_is_const(e->module->dims, elements[i], &value))
      return cmz_eval_fail(e, "its content is not constant");
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], rank, &size));
  int64_t *values = symbol_values(e);
  for (uint32_t i = 0; i < count; i++) {
    if (!cmz_dim_eval(e->module->dims, elements[i], values, &value))
      return cmz_eval_fail(e, "a size cannot be computed");
    cmz_array_set_i64(&outputs[0], i, value);
  }
  return CMZ_OK;
}

/* ---- views ---- */

static void keep_elements(cmz_module *m, cmz_nid n) {
  uint32_t count;
  cmz_vid in = cmz_ops_input(m, n, 0), out = cmz_ops_output(m, n, 0);
  const cmz_dim *elements = cmz_value_elements(m, in, &count);
  if (out && elements) cmz_value_set_elements(m, out, elements, count);
}

/* OUT has the bytes of IN under its own shape (already set). */
static cmz_status eval_view(cmz_eval *e, const cmz_array *in, cmz_array *out) {
  if (cmz_array_count(in) != cmz_array_count(out))
    return cmz_eval_fail(e, "%zu elements cannot be reshaped to %zu", cmz_array_count(in),
                         cmz_array_count(out));
  out->data = in->data;
  return CMZ_OK;
}

typedef struct dim_list {
  uint32_t count, at[CMZ_MAX_RANK];
  cmz_dim dims[CMZ_MAX_RANK];
} dim_list;

/* The dims of a shape that are not 1; false when one is surely 0. */
static bool list_dims(const cmz_module *m, const cmz_type *type, dim_list *list) {
  list->count = 0;
  for (uint32_t i = 0; i < type->rank; i++) {
    if (cmz_dim_is(m->dims, type->shape[i], 0)) return false;
    if (cmz_dim_is(m->dims, type->shape[i], 1)) continue;
    list->at[list->count] = i;
    list->dims[list->count++] = type->shape[i];
  }
  return true;
}

/* The smallest groups a[i, *x) and b[j, *y) with equal products; everything when there are none. */
static void match_group(cmz_module *m, const dim_list *a, uint32_t i, const dim_list *b, uint32_t j,
                        uint32_t *x, uint32_t *y) {
  for (uint32_t total = 2; total <= a->count - i + b->count - j; total++)
    for (*x = i + 1; *x < i + total && *x <= a->count; ++*x) {
      *y = j + total - (*x - i);
      if (*y > b->count) continue;
      if (cmz_dim_product(m->dims, a->dims + i, *x - i) ==
          cmz_dim_product(m->dims, b->dims + j, *y - j))
        return;
    }
  *x = a->count;
  *y = b->count;
}

cmz_expr cmz_describe_view(cmz_describe *d, const cmz_node *n, uint32_t output,
                           const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_module *m = cmz_describe_module(d);
  cmz_type in = *cmz_input_type(m, n, 0), out = *cmz_output_type(m, n, output);
  dim_list a, b;
  cmz_expr from[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < in.rank; i++) from[i] = cmz_x_index(k, 0);
  bool any = list_dims(m, &in, &a) & list_dims(m, &out, &b);
  for (uint32_t i = 0, j = 0, x, y; any && i < a.count && j < b.count; i = x, j = y) {
    match_group(m, &a, i, &b, j, &x, &y);
    cmz_expr part[CMZ_MAX_RANK], split[CMZ_MAX_RANK];
    for (uint32_t t = j; t < y; t++) part[t - j] = idx[b.at[t]];
    if (x - i == 1 && y - j == 1) split[0] = part[0];
    else {
      cmz_expr linear = cmz_describe_linear(d, b.dims + j, y - j, part);
      cmz_describe_delinear(d, a.dims + i, x - i, linear, split);
    }
    for (uint32_t t = i; t < x; t++) from[a.at[t]] = split[t - i];
  }
  return cmz_describe_input(d, 0, from);
}

/* ---- Reshape ---- */

static cmz_status normalize_reshape(cmz_module *m, cmz_nid n) {
  uint32_t count;
  const cmz_node *node = cmz_node_get(m, n);
  const int64_t *shape = cmz_node_ints(node, "shape", &count);
  if (node->input_count > 1) return CMZ_OK;
  if (!shape && !cmz_node_attr(node, "shape"))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "has no shape");
  cmz_node_set_input(m, n, 1, cmz_value_add_i64s(m, node->graph, shape, count));
  cmz_node_remove_attr(m, n, "shape");
  return CMZ_OK;
}

/* What is left for -1: the input's dims over the output's, equal ones cancelled first so that the
 * quotient stays a simple expression. */
static cmz_dim remaining_dim(cmz_module *m, const cmz_type *in, const cmz_dim *out, uint32_t rank,
                             uint32_t hole) {
  cmz_dim a[CMZ_MAX_RANK], b[CMZ_MAX_RANK];
  uint32_t na = 0, nb = 0;
  memcpy(a, in->shape, in->rank * sizeof *a);
  na = in->rank;
  for (uint32_t i = 0; i < rank; i++) {
    if (i == hole) continue;
    uint32_t j = 0;
    while (j < na && a[j] != out[i]) j++;
    if (j < na) a[j] = a[--na];
    else b[nb++] = out[i];
  }
  return cmz_dim_floordiv(m->dims, cmz_dim_product(m->dims, a, na),
                          cmz_dim_product(m->dims, b, nb));
}

/* Every element may be 0 (copy), -1 (rest) or a size: known only during the run. */
static void dynamic_reshape(cmz_module *m, const cmz_type *in, const cmz_dim *e, uint32_t rank,
                            bool allow_zero, cmz_dim *out) {
  cmz_dims *p = m->dims;
  cmz_dim zero = cmz_dim_const(p, 0), one = cmz_dim_const(p, 1), minus = cmz_dim_const(p, -1);
  cmz_dim known[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < rank; i++) {
    out[i] = e[i];
    if (!allow_zero && i < in->rank)
      out[i] = cmz_dim_select(p, cmz_dim_eq(p, e[i], zero), in->shape[i], e[i]);
    known[i] = cmz_dim_select(p, cmz_dim_eq(p, e[i], minus), one, out[i]);
  }
  cmz_dim rest =
      cmz_dim_floordiv(p, cmz_dim_product(p, in->shape, in->rank), cmz_dim_product(p, known, rank));
  for (uint32_t i = 0; i < rank; i++)
    out[i] = cmz_dim_select(p, cmz_dim_eq(p, e[i], minus), rest, out[i]);
}

static cmz_status resolve_reshape(cmz_module *m, cmz_nid n, const cmz_type *in,
                                  const cmz_dim *elements, uint32_t rank, cmz_dim *shape) {
  bool allow_zero = cmz_node_int(cmz_node_get(m, n), "allowzero", 0) != 0, dynamic = false;
  uint32_t hole = UINT32_MAX;
  for (uint32_t i = 0; i < rank; i++) {
    int64_t value, low, high;
    shape[i] = elements[i];
    if (!cmz_dim_is_const(m->dims, elements[i], &value)) {
      cmz_dim_range(m->dims, elements[i], &low, &high);
      dynamic = dynamic || low < 0;
    } else if (value == 0 && !allow_zero) {
      if (i >= in->rank)
        return cmz_node_fail(m, n, CMZ_E_INPUT, "shape element %u is 0, but the input has rank %u",
                             i, in->rank);
      shape[i] = in->shape[i];
    } else if (value == -1) {
      if (hole != UINT32_MAX)
        return cmz_node_fail(m, n, CMZ_E_INPUT, "the shape has more than one -1");
      hole = i;
    } else if (value < -1)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "shape element %u is %" PRId64, i, value);
  }
  if (dynamic) {
    dynamic_reshape(m, in, elements, rank, allow_zero, shape);
    return CMZ_OK;
  }
  if (hole == UINT32_MAX) return CMZ_OK;
  for (uint32_t i = 0; i < rank; i++)
    if (i != hole && cmz_dim_is(m->dims, shape[i], 0)) {
      shape[hole] = cmz_dim_const(m->dims, 0); /* nothing to divide: no elements either way */
      return CMZ_OK;
    }
  shape[hole] = remaining_dim(m, in, shape, rank, hole);
  return CMZ_OK;
}

static cmz_status infer_reshape(cmz_module *m, cmz_nid n) {
  uint32_t rank = 0;
  cmz_dim shape[CMZ_MAX_RANK];
  const cmz_dim *elements = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &rank);
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  if (!elements)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the rank of the output depends on data");
  if (rank > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "rank %u is too large", rank);
  CMZ_TRY(resolve_reshape(m, n, &in, elements, rank, shape));
  int64_t a, b;
  cmz_dim before = cmz_dim_product(m->dims, in.shape, in.rank),
          after = cmz_dim_product(m->dims, shape, rank);
  if (cmz_dim_is_const(m->dims, before, &a) && cmz_dim_is_const(m->dims, after, &b) && a != b)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%" PRId64 " elements cannot be reshaped to %" PRId64,
                         a, b);
  cmz_set_output(m, n, 0, in.dtype, rank, shape);
  keep_elements(m, n);
  return CMZ_OK;
}

static cmz_status eval_reshape(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  cmz_array *out = &outputs[0];
  bool allow_zero = cmz_node_int(n, "allowzero", 0) != 0;
  size_t rank = cmz_array_count(&inputs[1]);
  if (rank > CMZ_MAX_RANK) return cmz_eval_fail(e, "the rank is too large");
  out->rank = (uint32_t)rank;
  int64_t known = 1, hole = -1;
  for (uint32_t i = 0; i < rank; i++) {
    int64_t v = cmz_array_i64(&inputs[1], i);
    if (v == 0 && !allow_zero && i < inputs[0].rank) v = inputs[0].shape[i];
    if (v < -1) return cmz_eval_fail(e, "shape element %u is %" PRId64, i, v);
    out->shape[i] = v;
    if (v == -1) hole = i;
    else if (!cmz_mul_i64(known, v, &known)) return cmz_eval_fail(e, "the shape overflows");
  }
  if (hole >= 0) out->shape[hole] = known ? (int64_t)cmz_array_count(&inputs[0]) / known : 0;
  return eval_view(e, &inputs[0], out);
}

/* ---- Flatten ---- */

static cmz_status infer_flatten(cmz_module *m, cmz_nid n) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  int64_t axis = cmz_node_int(cmz_node_get(m, n), "axis", 1);
  if (axis < -(int64_t)in.rank || axis > (int64_t)in.rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "axis %" PRId64 " is outside a tensor of rank %u", axis,
                         in.rank);
  uint32_t at = (uint32_t)(axis < 0 ? axis + in.rank : axis);
  cmz_dim shape[2] = {cmz_dim_product(m->dims, in.shape, at),
                      cmz_dim_product(m->dims, in.shape + at, in.rank - at)};
  cmz_set_output(m, n, 0, in.dtype, 2, shape);
  keep_elements(m, n);
  return CMZ_OK;
}

static cmz_status eval_flatten(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  int64_t axis = cmz_node_int(n, "axis", 1), rank = inputs[0].rank;
  if (axis < 0) axis += rank;
  outputs[0].rank = 2;
  outputs[0].shape[0] = outputs[0].shape[1] = 1;
  for (int64_t i = 0; i < rank; i++) outputs[0].shape[i >= axis] *= inputs[0].shape[i];
  return eval_view(e, &inputs[0], &outputs[0]);
}

/* ---- Squeeze, Unsqueeze ---- */

/* Before opset 13 the axes were an attribute. */
static cmz_status normalize_axes(cmz_module *m, cmz_nid n) {
  uint32_t count;
  const int64_t *axes = cmz_node_ints(cmz_node_get(m, n), "axes", &count);
  if (!axes || cmz_ops_input(m, n, 1)) return CMZ_OK;
  cmz_node_set_input(m, n, 1, cmz_value_add_i64s(m, cmz_node_get(m, n)->graph, axes, count));
  cmz_node_remove_attr(m, n, "axes");
  return CMZ_OK;
}

/* marks[i]: 1 where input 1 lists axis i of a tensor of RANK, else 0; symbolic when the list is
 * computed. */
static cmz_status mark_axes(cmz_module *m, cmz_nid n, uint32_t rank, cmz_dim *marks,
                            uint32_t *count) {
  cmz_dim axes[CMZ_MAX_RANK];
  cmz_dims *p = m->dims;
  CMZ_TRY(cmz_infer_axis_dims(m, n, cmz_ops_input(m, n, 1), rank, axes, count));
  for (uint32_t i = 0; i < rank; i++) {
    marks[i] = cmz_dim_const(p, 0);
    for (uint32_t j = 0; j < *count; j++) {
      cmz_dim here = cmz_dim_eq(p, axes[j], cmz_dim_const(p, i));
      if (cmz_dim_is(p, here, 1) && cmz_dim_is(p, marks[i], 1))
        return cmz_node_fail(m, n, CMZ_E_INPUT, "axis %u is listed twice", i);
      marks[i] = cmz_dim_max(p, marks[i], here);
    }
  }
  return CMZ_OK;
}

/* Number AT among the dims whose mark is 0. */
static cmz_dim unmarked_dim(cmz_module *m, const cmz_type *in, const cmz_dim *marks, cmz_dim at) {
  cmz_dims *p = m->dims;
  cmz_dim before = cmz_dim_const(p, 0), result = before, one = cmz_dim_const(p, 1);
  for (uint32_t i = 0; i < in->rank; i++) {
    cmz_dim free = cmz_dim_sub(p, one, marks[i]);
    cmz_dim here = cmz_dim_min(p, free, cmz_dim_eq(p, before, at));
    result = cmz_dim_select(p, here, in->shape[i], result);
    before = cmz_dim_add(p, before, free);
  }
  return result;
}

/* Without axes all dims of size 1 go; whether a dim is 1 must be known. */
static cmz_status mark_ones(cmz_module *m, cmz_nid n, const cmz_type *in, cmz_dim *marks,
                            uint32_t *count) {
  *count = 0;
  for (uint32_t i = 0; i < in->rank; i++) {
    int64_t low, high;
    bool one = cmz_dim_is(m->dims, in->shape[i], 1);
    cmz_dim_range(m->dims, in->shape[i], &low, &high);
    if (!one && low <= 1 && high >= 1)
      return cmz_node_fail(
          m, n, CMZ_E_UNSUPPORTED,
          "without axes, the rank of the output depends on the size of dimension %u", i);
    marks[i] = cmz_dim_const(m->dims, one);
    *count += one;
  }
  return CMZ_OK;
}

static cmz_status infer_squeeze(cmz_module *m, cmz_nid n) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_dim marks[CMZ_MAX_RANK], shape[CMZ_MAX_RANK];
  uint32_t count;
  if (cmz_ops_input(m, n, 1)) CMZ_TRY(mark_axes(m, n, in.rank, marks, &count));
  else CMZ_TRY(mark_ones(m, n, &in, marks, &count));
  if (count > in.rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "lists more axes than the input has");
  for (uint32_t i = 0; i < in.rank; i++) {
    int64_t size;
    if (cmz_dim_is(m->dims, marks[i], 1) && cmz_dim_is_const(m->dims, in.shape[i], &size) &&
        size != 1)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "axis %u has size %" PRId64 ", not 1", i, size);
  }
  for (uint32_t i = 0; i < in.rank - count; i++)
    shape[i] = unmarked_dim(m, &in, marks, cmz_dim_const(m->dims, i));
  cmz_set_output(m, n, 0, in.dtype, in.rank - count, shape);
  keep_elements(m, n);
  return CMZ_OK;
}

static cmz_status eval_marked(cmz_eval *e, const cmz_array *axes, uint32_t rank, bool *marked) {
  size_t count = cmz_array_count(axes);
  for (size_t i = 0; i < count; i++) {
    uint32_t axis;
    CMZ_TRY(cmz_eval_axis(e, cmz_array_i64(axes, i), rank, &axis));
    marked[axis] = true;
  }
  return CMZ_OK;
}

static cmz_status eval_squeeze(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  bool marked[CMZ_MAX_RANK] = {false}, listed = n->input_count > 1 && inputs[1].data;
  const cmz_array *in = &inputs[0];
  if (listed) CMZ_TRY(eval_marked(e, &inputs[1], in->rank, marked));
  outputs[0].rank = 0;
  for (uint32_t i = 0; i < in->rank; i++)
    if (listed ? !marked[i] : in->shape[i] != 1) outputs[0].shape[outputs[0].rank++] = in->shape[i];
  return eval_view(e, in, &outputs[0]);
}

static cmz_status infer_unsqueeze(cmz_module *m, cmz_nid n) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  cmz_vid list = cmz_ops_input(m, n, 1);
  uint32_t count;
  if (!list) return cmz_node_fail(m, n, CMZ_E_INPUT, "has no axes");
  if (!cmz_value_static_count(m, list, CMZ_MAX_RANK, &count) || in.rank + count > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "the rank of the output depends on data or is too large");
  uint32_t rank = in.rank + count;
  cmz_dim marks[CMZ_MAX_RANK], shape[CMZ_MAX_RANK], none[CMZ_MAX_RANK];
  CMZ_TRY(mark_axes(m, n, rank, marks, &count));
  cmz_dim one = cmz_dim_const(m->dims, 1), from = cmz_dim_const(m->dims, 0);
  for (uint32_t i = 0; i < in.rank; i++) none[i] = cmz_dim_const(m->dims, 0);
  for (uint32_t i = 0; i < rank; i++) {
    shape[i] = cmz_dim_select(m->dims, marks[i], one, unmarked_dim(m, &in, none, from));
    from = cmz_dim_add(m->dims, from, cmz_dim_sub(m->dims, one, marks[i]));
  }
  cmz_set_output(m, n, 0, in.dtype, rank, shape);
  keep_elements(m, n);
  return CMZ_OK;
}

static cmz_status eval_unsqueeze(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                 cmz_array *outputs) {
  (void)n;
  bool marked[CMZ_MAX_RANK] = {false};
  size_t count = cmz_array_count(&inputs[1]);
  if (inputs[0].rank + count > CMZ_MAX_RANK) return cmz_eval_fail(e, "the rank is too large");
  uint32_t rank = inputs[0].rank + (uint32_t)count;
  CMZ_TRY(eval_marked(e, &inputs[1], rank, marked));
  outputs[0].rank = rank;
  for (uint32_t i = 0, from = 0; i < rank; i++)
    outputs[0].shape[i] = marked[i] ? 1 : inputs[0].shape[from++];
  return eval_view(e, &inputs[0], &outputs[0]);
}

#define VIEW(NAME, MIN, MAX, NORMALIZE, INFER, EVAL, ...)                                          \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,            \
    .max_outputs = 1, .since = 1, .flags = CMZ_OP_MOVEMENT | CMZ_OP_VIEW | CMZ_OP_CHEAP,           \
    .normalize = NORMALIZE, .infer = INFER, .eval = EVAL, .describe = cmz_describe_view,           \
    ##__VA_ARGS__                                                                                  \
  }

const cmz_op cmz_ops_shape[] = {
    {.domain = "",
     .name = "Shape",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_CHEAP,
     .infer = infer_shape,
     .eval = eval_shape,
     .describe = describe_elements,
     .attributes = "end:i@15 start:i@15"},
    {.domain = "",
     .name = "Size",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_CHEAP,
     .infer = infer_size,
     .eval = eval_size,
     .describe = describe_elements},
    {.domain = "cmz",
     .name = "Dims",
     .min_inputs = 0,
     .max_inputs = 0,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_CHEAP,
     .infer = infer_dims,
     .eval = eval_dims,
     .describe = describe_elements},
    VIEW("Reshape", 1, 2, normalize_reshape, infer_reshape, eval_reshape,
         .attributes = "allowzero:i@14 consumed_inputs:I<5 shape:I<5"),
    VIEW("Flatten", 1, 1, NULL, infer_flatten, eval_flatten, .attributes = "axis:i"),
    VIEW("Squeeze", 1, 2, normalize_axes, infer_squeeze, eval_squeeze, .attributes = "axes:I<13"),
    VIEW("Unsqueeze", 1, 2, normalize_axes, infer_unsqueeze, eval_unsqueeze,
         .attributes = "axes:I!<13"),
    {.name = NULL},
};
