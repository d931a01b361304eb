/* scatter.c - ScatterElements, ScatterND and TensorScatter.
 * In: data, positions, updates. Out: data with updates written or combined in. Always holds: a
 * scatter is one kernel of two stores, a copy of the data and then a serial walk over the updates
 * in their order, so that duplicates combine (and the last one wins); positions outside the data
 * are not written. */
#include "ops.h"

typedef struct reduction {
  const char *name;
  cmz_store_mode mode;
} reduction;

static const reduction reductions[] = {
    {"none", CMZ_STORE_SET}, {"add", CMZ_STORE_ADD}, {"mul", CMZ_STORE_MUL},
    {"min", CMZ_STORE_MIN},  {"max", CMZ_STORE_MAX},
};

static const reduction *reduction_of(const cmz_node *n) {
  const char *name = cmz_node_string(n, "reduction", "none");
  for (size_t i = 0; i < CMZ_COUNT_OF(reductions); i++)
    if (!strcmp(reductions[i].name, name)) return &reductions[i];
  return NULL;
}

/* Length of the index tuples of ScatterND. */
static cmz_status tuple_length(cmz_module *m, cmz_nid n, uint32_t *length) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0), *indices = cmz_input_type(m, node, 1);
  int64_t k;
  if (!indices->rank || !cmz_dim_is_const(m->dims, indices->shape[indices->rank - 1], &k))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "the last dimension of the indices is not constant");
  if (k < 0 || k > x->rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "index tuples of %" PRId64 " for data of rank %u", k,
                         x->rank);
  *length = (uint32_t)k;
  return CMZ_OK;
}

static cmz_status infer_scatter(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0), *indices = cmz_input_type(m, node, 1),
                 *updates = cmz_input_type(m, node, 2);
  uint32_t axis;
  if (!reduction_of(node))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "reduction \"%s\"",
                         cmz_node_string(node, "reduction", ""));
  if (!strcmp(node->op->name, "ScatterND")) {
    CMZ_TRY(tuple_length(m, n, &axis));
    if (updates->rank != indices->rank - 1 + x->rank - axis)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the updates have rank %u", updates->rank);
    cmz_dim want[2 * CMZ_MAX_RANK];
    for (uint32_t i = 0; i < updates->rank; i++)
      want[i] = i + 1 < indices->rank ? indices->shape[i] : x->shape[axis + i + 1 - indices->rank];
    CMZ_TRY(cmz_check_shape(m, n, 2, updates->rank, want));
  } else {
    CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", 0), x->rank, &axis));
    if (x->rank != indices->rank || x->rank != updates->rank)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "data, indices and updates have different ranks");
    CMZ_TRY(cmz_check_shape(m, n, 2, x->rank, indices->shape));
  }
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

/* Adds COUNT axes of KIND over EXTENTS to STORE; their coordinates go to IDX. */
static void add_axes(cmz_describe *d, cmz_store *store, cmz_axis_kind kind, const cmz_dim *extents,
                     uint32_t count, cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  for (uint32_t i = 0; i < count; i++) {
    uint16_t axis = cmz_kernel_add_axis(k, kind, cmz_describe_dim(d, extents[i]));
    store->axes[store->axis_count++] = axis;
    idx[i] = cmz_x_axis(k, axis);
  }
}

/* Position I along a dimension of EXTENT, negative from the end; ANDs "inside" into *INSIDE. */
static cmz_expr checked_index(cmz_describe *d, cmz_expr i, cmz_dim extent, cmz_expr *inside) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr size = cmz_describe_dim(d, extent);
  i = cmz_x_cast(k, i, CMZ_I64);
  i = cmz_x_select(k, cmz_x2(k, CMZ_X_LT, i, cmz_x_index(k, 0)), cmz_x_add(k, i, size), i);
  *inside = cmz_x_and(k, *inside, cmz_x_bounds(k, i, size, true, true));
  return i;
}

static void push_store(cmz_describe *d, const cmz_store *store) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_vec_push(k->arena, &k->stores, *store);
}

static cmz_status describe_scatter(cmz_describe *d, const cmz_node *n) {
  cmz_module *m = cmz_describe_module(d);
  const cmz_type x = *cmz_input_type(m, n, 0), indices = *cmz_input_type(m, n, 1),
                 updates = *cmz_input_type(m, n, 2);
  cmz_expr idx[CMZ_MAX_RANK], at[CMZ_MAX_RANK], tuple[CMZ_MAX_RANK];
  uint16_t out = cmz_describe_output(d, 0, CMZ_READ_WRITE);
  cmz_store copy = {.operand = out, .mode = CMZ_STORE_SET};
  add_axes(d, &copy, CMZ_AXIS_PARALLEL, x.shape, x.rank, idx);
  copy.value = cmz_describe_input(d, 0, idx);
  copy.index = cmz_describe_output_index(d, 0, idx);
  if (!copy.value || !copy.index) return CMZ_E_UNSUPPORTED;
  push_store(d, &copy);
  cmz_store walk = {.operand = out, .mode = reduction_of(n)->mode};
  add_axes(d, &walk, CMZ_AXIS_SERIAL, updates.shape, updates.rank, idx);
  if (!strcmp(n->op->name, "ScatterND")) {
    uint32_t length, outer = indices.rank - 1;
    CMZ_TRY(tuple_length(m, cmz_node_self(m, n), &length));
    for (uint32_t i = 0; i < outer; i++) tuple[i] = idx[i];
    for (uint32_t i = 0; i < x.rank; i++) {
      if (i >= length) {
        at[i] = idx[outer + i - length];
        continue;
      }
      tuple[outer] = cmz_x_index(cmz_describe_kernel(d), i);
      cmz_expr v = cmz_describe_input(d, 1, tuple);
      if (!v) return CMZ_E_UNSUPPORTED;
      at[i] = checked_index(d, v, x.shape[i], &walk.predicate);
    }
  } else {
    uint32_t axis;
    CMZ_TRY(cmz_infer_axis(m, cmz_node_self(m, n), cmz_node_int(n, "axis", 0), x.rank, &axis));
    cmz_expr v = cmz_describe_input(d, 1, idx);
    if (!v) return CMZ_E_UNSUPPORTED;
    for (uint32_t i = 0; i < x.rank; i++) {
      at[i] = idx[i];
      int64_t have, given;
      bool fits = cmz_dim_is_const(m->dims, x.shape[i], &have) &&
                  cmz_dim_is_const(m->dims, updates.shape[i], &given) && given <= have;
      if (i != axis && !fits && x.shape[i] != updates.shape[i])
        walk.predicate = cmz_x_and(cmz_describe_kernel(d), walk.predicate,
                                   cmz_x_bounds(cmz_describe_kernel(d), at[i],
                                                cmz_describe_dim(d, x.shape[i]), false, true));
    }
    at[axis] = checked_index(d, v, x.shape[axis], &walk.predicate);
  }
  walk.value = cmz_describe_input(d, 2, idx);
  walk.index = cmz_describe_output_index(d, 0, at);
  if (!walk.value || !walk.index) return CMZ_E_UNSUPPORTED;
  push_store(d, &walk);
  return CMZ_OK;
}

/* ---- reference evaluation ---- */

static void combine(cmz_store_mode mode, cmz_array *out, int64_t i, const cmz_array *updates,
                    int64_t j) {
  if (mode == CMZ_STORE_SET) {
    cmz_copy_element(out, i, updates, j);
    return;
  }
  if (cmz_dtype_is_int(out->dtype)) {
    int64_t a = cmz_get_int(out, i), b = cmz_get_int(updates, j);
    uint64_t sum = (uint64_t)a + (uint64_t)b, product = (uint64_t)a * (uint64_t)b;
    cmz_set_int(out, i,
                mode == CMZ_STORE_ADD   ? (int64_t)sum
                : mode == CMZ_STORE_MUL ? (int64_t)product
                : mode == CMZ_STORE_MIN ? CMZ_MIN(a, b)
                                        : CMZ_MAX(a, b));
    return;
  }
  double a = cmz_get(out, i), b = cmz_get(updates, j);
  cmz_set(out, i,
          mode == CMZ_STORE_ADD   ? a + b
          : mode == CMZ_STORE_MUL ? a * b
          : mode == CMZ_STORE_MIN ? fmin(a, b)
                                  : fmax(a, b));
}

static cmz_status wrap(cmz_eval *e, int64_t i, int64_t size, int64_t *out) {
  *out = i < 0 ? i + size : i;
  if (*out < 0 || *out >= size)
    return cmz_eval_fail(e, "index %" PRId64 " is outside a dimension of size %" PRId64, i, size);
  return CMZ_OK;
}

static cmz_status copy_data(cmz_eval *e, const cmz_array *x, cmz_array *out) {
  CMZ_TRY(cmz_eval_shape(e, out, x->rank, x->shape));
  for (size_t i = 0; i < cmz_array_count(x); i++) cmz_copy_element(out, (int64_t)i, x, (int64_t)i);
  return CMZ_OK;
}

static cmz_status eval_scatter_elements(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                        cmz_array *outputs) {
  const cmz_array *indices = &inputs[1];
  uint32_t axis;
  CMZ_TRY(copy_data(e, &inputs[0], &outputs[0]));
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", 0), inputs[0].rank, &axis));
  for (size_t i = 0; i < cmz_array_count(indices); i++) {
    int64_t at[CMZ_MAX_RANK];
    cmz_array_coordinates(indices, i, at);
    CMZ_TRY(wrap(e, cmz_get_int(indices, (int64_t)i), inputs[0].shape[axis], &at[axis]));
    combine(reduction_of(n)->mode, &outputs[0], cmz_array_index(&outputs[0], at), &inputs[2],
            (int64_t)i);
  }
  return CMZ_OK;
}

static cmz_status eval_scatter_nd(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                  cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *indices = &inputs[1], *updates = &inputs[2];
  CMZ_TRY(copy_data(e, x, &outputs[0]));
  uint32_t outer = indices->rank - 1;
  int64_t length = indices->shape[outer];
  for (size_t i = 0; i < cmz_array_count(updates); i++) {
    int64_t c[CMZ_MAX_RANK], at[CMZ_MAX_RANK], tuple = 0;
    cmz_array_coordinates(updates, i, c);
    for (uint32_t j = 0; j < outer; j++) tuple = tuple * indices->shape[j] + c[j];
    for (uint32_t j = 0; j < x->rank; j++) {
      if (j < length)
        CMZ_TRY(wrap(e, cmz_get_int(indices, tuple * length + j), x->shape[j], &at[j]));
      else at[j] = c[outer + j - (uint32_t)length];
    }
    combine(reduction_of(n)->mode, &outputs[0], cmz_array_index(&outputs[0], at), updates,
            (int64_t)i);
  }
  return CMZ_OK;
}

/* Opsets 9 and 10 called it Scatter. */
static cmz_status normalize_scatter(cmz_module *m, cmz_nid n) {
  cmz_node_get(m, n)->op = cmz_op_get("ScatterElements");
  cmz_node_get(m, n)->opset = 0;
  return CMZ_OK;
}

/* ---- TensorScatter: a window of a cache, read rather than written: every element asks whether it
 * is new ---- */

static cmz_status infer_tensor_scatter(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0), *update = cmz_input_type(m, node, 1);
  uint32_t axis;
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", -2), x->rank, &axis));
  const char *mode = cmz_node_string(node, "mode", "linear");
  if (strcmp(mode, "linear") && strcmp(mode, "circular"))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "mode \"%s\"", mode);
  if (axis == 0 || x->rank != update->rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the axis or the rank of the update is wrong");
  cmz_dim want[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x->rank; i++) want[i] = i == axis ? CMZ_DIM_NONE : x->shape[i];
  CMZ_TRY(cmz_check_shape(m, n, 1, x->rank, want));
  CMZ_TRY(cmz_check_vector(m, n, 2, x->shape[0], false));
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

static cmz_expr describe_tensor_scatter(cmz_describe *d, const cmz_node *n, uint32_t output,
                                        const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type x = *cmz_input_type(m, n, 0), update = *cmz_input_type(m, n, 1);
  uint32_t axis;
  if (cmz_infer_axis(m, cmz_node_self(m, n), cmz_node_int(n, "axis", -2), x.rank, &axis) != CMZ_OK)
    return 0;
  cmz_expr start = cmz_x_index(k, 0), at[CMZ_MAX_RANK];
  if (cmz_node_input(n, 2)) {
    start = cmz_describe_input(d, 2, idx);
    if (!start) return 0;
    start = cmz_x_cast(k, start, CMZ_I64);
  }
  for (uint32_t i = 0; i < x.rank; i++) at[i] = idx[i];
  at[axis] = cmz_x_sub(k, idx[axis], start);
  if (!strcmp(cmz_node_string(n, "mode", "linear"), "circular"))
    at[axis] = cmz_x2(k, CMZ_X_MOD, at[axis], cmz_describe_dim(d, x.shape[axis]));
  cmz_expr fresh = cmz_x_bounds(k, at[axis], cmz_describe_dim(d, update.shape[axis]), true, true);
  cmz_expr a = cmz_describe_input(d, 1, at), b = cmz_describe_input(d, 0, idx);
  return a && b ? cmz_x_select(k, fresh, a, b) : 0;
}

static cmz_status eval_tensor_scatter(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                      cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *update = &inputs[1];
  uint32_t axis;
  CMZ_TRY(copy_data(e, x, &outputs[0]));
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", -2), x->rank, &axis));
  bool circular = !strcmp(cmz_node_string(n, "mode", "linear"), "circular");
  for (size_t i = 0; i < cmz_array_count(update); i++) {
    int64_t c[CMZ_MAX_RANK];
    cmz_array_coordinates(update, i, c);
    c[axis] += n->input_count > 2 && inputs[2].data ? cmz_get_int(&inputs[2], c[0]) : 0;
    if (circular) c[axis] = cmz_floor_mod(c[axis], x->shape[axis]);
    if (c[axis] < 0 || c[axis] >= x->shape[axis])
      return cmz_eval_fail(e, "an update outside the cache");
    cmz_copy_element(&outputs[0], cmz_array_index(x, c), update, (int64_t)i);
  }
  return CMZ_OK;
}

#define ROW(NAME, SINCE, NORMALIZE, EVAL, ...)                                                     \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = 3, .max_inputs = 3, .min_outputs = 1,                \
    .max_outputs = 1, .since = SINCE, .normalize = NORMALIZE, .infer = infer_scatter,              \
    .eval = EVAL, .describe_kernel = describe_scatter, ##__VA_ARGS__                               \
  }

const cmz_op cmz_ops_scatter[] = {
    ROW("ScatterElements", 11, NULL, eval_scatter_elements, .attributes = "axis:i reduction:s@16"),
    ROW("Scatter", 9, normalize_scatter, eval_scatter_elements, .attributes = "axis:i"),
    ROW("ScatterND", 11, NULL, eval_scatter_nd, .attributes = "reduction:s@16"),
    {.name = "TensorScatter",
     .domain = "",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 24,
     .infer = infer_tensor_scatter,
     .eval = eval_tensor_scatter,
     .describe = describe_tensor_scatter,
     .attributes = "axis:i mode:s"},
    {.name = NULL},
};
