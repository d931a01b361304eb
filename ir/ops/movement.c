/* movement.c - elements in another order: Transpose, Concat, Split, Expand, Tile, SpaceToDepth,
 * DepthToSpace, ReverseSequence, Trilu. In: tensors and (constant, symbolic or run-time) sizes.
 * Out: types with symbolic content, values, index expressions. Always holds: no arithmetic on
 * elements. */
#include "ops.h"

/* ---- Transpose ---- */

static cmz_status permutation(const cmz_module *m, cmz_nid n, uint32_t rank, uint32_t *perm) {
  uint32_t count;
  const int64_t *listed = cmz_node_ints(cmz_node_get(m, n), "perm", &count);
  bool seen[CMZ_MAX_RANK] = {false};
  for (uint32_t i = 0; i < rank; i++) perm[i] = rank - 1 - i;
  if (!listed) return CMZ_OK;
  if (count != rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "perm has %u numbers, the input rank %u", count, rank);
  for (uint32_t i = 0; i < rank; i++) {
    int64_t p = listed[i] < 0 ? listed[i] + rank : listed[i];
    if (p < 0 || p >= (int64_t)rank || seen[p])
      return cmz_node_fail(m, n, CMZ_E_INPUT, "perm is not a permutation");
    seen[p] = true;
    perm[i] = (uint32_t)p;
  }
  return CMZ_OK;
}

static void perm_of(const cmz_node *n, uint32_t rank, uint32_t *perm) {
  uint32_t count;
  const int64_t *listed = cmz_node_ints(n, "perm", &count);
  for (uint32_t i = 0; i < rank; i++)
    perm[i] = !listed ? rank - 1 - i : (uint32_t)(listed[i] < 0 ? listed[i] + rank : listed[i]);
}

static cmz_status infer_transpose(cmz_module *m, cmz_nid n) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  uint32_t perm[CMZ_MAX_RANK];
  cmz_dim shape[CMZ_MAX_RANK];
  CMZ_TRY(permutation(m, n, in.rank, perm));
  for (uint32_t i = 0; i < in.rank; i++) shape[i] = in.shape[perm[i]];
  cmz_set_output(m, n, 0, in.dtype, in.rank, shape);
  uint32_t count;
  if (in.rank <= 1 && cmz_value_static_count(m, cmz_ops_input(m, n, 0), 1024, &count))
    cmz_infer_moved_elements(m, n, cmz_ops_input(m, n, 0), NULL, count);
  return CMZ_OK;
}

static cmz_status eval_transpose(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                 cmz_array *outputs) {
  const cmz_array *in = &inputs[0];
  uint32_t perm[CMZ_MAX_RANK];
  int64_t shape[CMZ_MAX_RANK], to[CMZ_MAX_RANK] = {0}, from[CMZ_MAX_RANK];
  perm_of(n, in->rank, perm);
  for (uint32_t i = 0; i < in->rank; i++) shape[i] = in->shape[perm[i]];
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], in->rank, shape));
  int64_t count = (int64_t)cmz_array_count(in);
  for (int64_t i = 0; i < count; i++, cmz_array_next(&outputs[0], to)) {
    for (uint32_t j = 0; j < in->rank; j++) from[perm[j]] = to[j];
    cmz_copy_element(&outputs[0], i, in, cmz_array_index(in, from));
  }
  return CMZ_OK;
}

static cmz_expr describe_transpose(cmz_describe *d, const cmz_node *n, uint32_t output,
                                   const cmz_expr *idx) {
  uint32_t rank = cmz_output_type(cmz_describe_module(d), n, output)->rank, perm[CMZ_MAX_RANK];
  cmz_expr from[CMZ_MAX_RANK];
  perm_of(n, rank, perm);
  for (uint32_t i = 0; i < rank; i++) from[perm[i]] = idx[i];
  return cmz_describe_input(d, 0, from);
}

/* ---- Concat ---- */

/* Before opset 4 the axis had a default. */
static cmz_status normalize_concat(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (node->opset && node->opset < 4 && !cmz_node_attr(node, "axis"))
    cmz_node_set_int(m, n, "axis", 1);
  return CMZ_OK;
}

static cmz_status infer_concat(cmz_module *m, cmz_nid n) {
  cmz_type first = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  uint32_t axis, count = cmz_node_get(m, n)->input_count;
  const cmz_node *node = cmz_node_get(m, n);
  if (!cmz_node_attr(node, "axis"))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute axis is missing");
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", 1), first.rank, &axis));
  cmz_dim shape[CMZ_MAX_RANK];
  memcpy(shape, first.shape, first.rank * sizeof *shape);
  for (uint32_t i = 1; i < count; i++) {
    cmz_type t = *cmz_ops_type(m, cmz_ops_input(m, n, i));
    if (t.rank != first.rank || t.dtype != first.dtype)
      return cmz_node_fail(m, n, CMZ_E_INPUT,
                           "input %u has another rank or element type than input 0", i);
    for (uint32_t j = 0; j < t.rank; j++) {
      if (j == axis) continue;
      if (cmz_dims_differ(m, shape[j], t.shape[j]))
        return cmz_node_fail(m, n, CMZ_E_INPUT,
                             "input %u has another size than input 0 in dimension %u", i, j);
      int64_t known;
      if (cmz_dim_is_const(m->dims, t.shape[j], &known)) shape[j] = t.shape[j];
    }
    shape[axis] = cmz_dim_add(m->dims, shape[axis], t.shape[axis]);
  }
  cmz_set_output(m, n, 0, first.dtype, first.rank, shape);
  if (first.rank != 1 || cmz_dtype_is_float(first.dtype)) return CMZ_OK;
  CMZ_VEC(cmz_dim) all = {0};
  for (uint32_t i = 0; i < count; i++) {
    uint32_t own;
    const cmz_dim *elements = cmz_value_elements(m, cmz_ops_input(m, n, i), &own);
    if (!elements || all.count + own > 1024) return CMZ_OK;
    for (uint32_t j = 0; j < own; j++) cmz_vec_push(m->arena, &all, elements[j]);
  }
  if (cmz_ops_output(m, n, 0))
    cmz_value_set_elements(m, cmz_ops_output(m, n, 0), all.data, all.count);
  return CMZ_OK;
}

static uint32_t concat_axis(const cmz_node *n, uint32_t rank) {
  int64_t axis = cmz_node_int(n, "axis", 1);
  return (uint32_t)(axis < 0 ? axis + (int64_t)rank : axis);
}

static cmz_status eval_concat(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  uint32_t axis, rank = inputs[0].rank;
  int64_t shape[CMZ_MAX_RANK], start = 0;
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", 1), rank, &axis));
  memcpy(shape, inputs[0].shape, sizeof shape);
  shape[axis] = 0;
  for (uint32_t i = 0; i < n->input_count; i++) {
    for (uint32_t j = 0; j < rank; j++)
      if (inputs[i].rank != rank || (j != axis && inputs[i].shape[j] != shape[j]))
        return cmz_eval_fail(e, "input %u does not fit the others", i);
    shape[axis] += inputs[i].shape[axis];
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], rank, shape));
  for (uint32_t i = 0; i < n->input_count; i++) {
    int64_t at[CMZ_MAX_RANK] = {0}, to[CMZ_MAX_RANK], count = (int64_t)cmz_array_count(&inputs[i]);
    for (int64_t j = 0; j < count; j++, cmz_array_next(&inputs[i], at)) {
      memcpy(to, at, sizeof to);
      to[axis] += start;
      cmz_copy_element(&outputs[0], cmz_array_index(&outputs[0], to), &inputs[i], j);
    }
    start += inputs[i].shape[axis];
  }
  return CMZ_OK;
}

/* SELECT(i < end of input 0, input 0, SELECT(i < end of input 1, …)). */
static cmz_expr describe_concat(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_module *m = cmz_describe_module(d);
  uint32_t rank = cmz_output_type(m, n, output)->rank, axis = concat_axis(n, rank);
  cmz_expr *parts = CMZ_NEW_ARRAY(k->arena, cmz_expr, n->input_count);
  cmz_expr *inside = CMZ_NEW_ARRAY(k->arena, cmz_expr, n->input_count);
  cmz_dim start = cmz_dim_const(m->dims, 0);
  for (uint32_t i = 0; i < n->input_count; i++) {
    cmz_expr from[CMZ_MAX_RANK];
    memcpy(from, idx, rank * sizeof *from);
    from[axis] = cmz_x_sub(k, idx[axis], cmz_describe_dim(d, start));
    parts[i] = cmz_describe_input(d, i, from);
    if (!parts[i]) return 0;
    start = cmz_dim_add(m->dims, start, cmz_input_type(m, n, i)->shape[axis]);
    inside[i] = cmz_x2(k, CMZ_X_LT, idx[axis], cmz_describe_dim(d, start));
  }
  cmz_expr r = parts[n->input_count - 1];
  for (uint32_t i = n->input_count - 1; i-- > 0;) r = cmz_x_select(k, inside[i], parts[i], r);
  return r;
}

/* ---- Split ---- */

static cmz_status normalize_split(cmz_module *m, cmz_nid n) {
  uint32_t count;
  const int64_t *sizes = cmz_node_ints(cmz_node_get(m, n), "split", &count);
  if (!sizes || cmz_ops_input(m, n, 1)) return CMZ_OK;
  cmz_node_set_input(m, n, 1, cmz_value_add_i64s(m, cmz_node_get(m, n)->graph, sizes, count));
  cmz_node_remove_attr(m, n, "split");
  return CMZ_OK;
}

/* Sizes of the parts; PARTS holds as many as the node has outputs. */
static cmz_status split_sizes(cmz_module *m, cmz_nid n, cmz_dim whole, cmz_dim *parts) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t count = node->output_count, listed;
  if (cmz_node_input(node, 1)) {
    const cmz_dim *elements = cmz_value_demand_elements(m, cmz_node_input(node, 1), &listed);
    if (!elements || listed != count)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the split sizes do not match its %u outputs", count);
    memcpy(parts, elements, count * sizeof *parts);
    cmz_dim sum = cmz_dim_const(m->dims, 0);
    for (uint32_t i = 0; i < count; i++) sum = cmz_dim_add(m->dims, sum, parts[i]);
    if (cmz_dims_differ(m, sum, whole))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the split sizes do not add up to the dimension");
    return CMZ_OK;
  }
  int64_t named = cmz_node_int(node, "num_outputs", count), size;
  if (named != (int64_t)count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "num_outputs is not its number of outputs");
  cmz_dim part = cmz_dim_ceildiv(m->dims, whole, cmz_dim_const(m->dims, count)), left = whole;
  if (!cmz_node_attr(node, "num_outputs") && cmz_dim_is_const(m->dims, whole, &size) &&
      size % count)
    return cmz_node_fail(m, n, CMZ_E_INPUT,
                         "a dimension of %" PRId64 " does not split into %u equal parts", size,
                         count);
  for (uint32_t i = 0; i + 1 < count; i++) {
    parts[i] = part;
    left = cmz_dim_sub(m->dims, left, part);
  }
  parts[count - 1] = left;
  return CMZ_OK;
}

static cmz_status infer_split(cmz_module *m, cmz_nid n) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  uint32_t axis, count = cmz_node_get(m, n)->output_count;
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(cmz_node_get(m, n), "axis", 0), in.rank, &axis));
  cmz_dim *parts = CMZ_NEW_ARRAY(m->arena, cmz_dim, count), shape[CMZ_MAX_RANK];
  CMZ_TRY(split_sizes(m, n, in.shape[axis], parts));
  memcpy(shape, in.shape, in.rank * sizeof *shape);
  uint32_t known, at = 0;
  const cmz_dim *elements =
      in.rank == 1 ? cmz_value_elements(m, cmz_ops_input(m, n, 0), &known) : NULL;
  for (uint32_t i = 0; i < count; i++) {
    shape[axis] = parts[i];
    cmz_set_output(m, n, i, in.dtype, in.rank, shape);
    int64_t size;
    if (!elements || !cmz_dim_is_const(m->dims, parts[i], &size) || size < 0 || at + size > known) {
      elements = NULL;
      continue;
    }
    if (cmz_ops_output(m, n, i))
      cmz_value_set_elements(m, cmz_ops_output(m, n, i), elements + at, (uint32_t)size);
    at += (uint32_t)size;
  }
  return CMZ_OK;
}

static cmz_status eval_split(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  const cmz_array *in = &inputs[0];
  uint32_t axis, count = n->output_count;
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", 0), in->rank, &axis));
  bool listed = n->input_count > 1 && inputs[1].data;
  int64_t whole = in->shape[axis], part = (whole + count - 1) / count, start = 0;
  for (uint32_t i = 0; i < count; i++) {
    int64_t shape[CMZ_MAX_RANK];
    memcpy(shape, in->shape, sizeof shape);
    shape[axis] = listed          ? cmz_array_i64(&inputs[1], i)
                  : i + 1 < count ? part
                                  : whole - part * (count - 1);
    if (shape[axis] < 0 || start + shape[axis] > whole)
      return cmz_eval_fail(e, "the split sizes do not fit");
    if (n->outputs[i]) {
      CMZ_TRY(cmz_eval_shape(e, &outputs[i], in->rank, shape));
      int64_t at[CMZ_MAX_RANK] = {0}, from[CMZ_MAX_RANK],
              total = (int64_t)cmz_array_count(&outputs[i]);
      for (int64_t j = 0; j < total; j++, cmz_array_next(&outputs[i], at)) {
        memcpy(from, at, sizeof from);
        from[axis] += start;
        cmz_copy_element(&outputs[i], j, in, cmz_array_index(in, from));
      }
    }
    start += shape[axis];
  }
  return CMZ_OK;
}

static cmz_expr describe_split(cmz_describe *d, const cmz_node *n, uint32_t output,
                               const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_module *m = cmz_describe_module(d);
  const cmz_type *in = cmz_input_type(m, n, 0);
  int64_t axis = cmz_node_int(n, "axis", 0);
  if (axis < 0) axis += in->rank;
  cmz_dim *parts = CMZ_NEW_ARRAY(k->arena, cmz_dim, n->output_count),
          start = cmz_dim_const(m->dims, 0);
  cmz_nid id = cmz_value_get(m, n->outputs[output])->producer;
  if (split_sizes(m, id, in->shape[axis], parts) != CMZ_OK)
    return cmz_describe_fail(d, "its sizes are not known");
  for (uint32_t i = 0; i < output; i++) start = cmz_dim_add(m->dims, start, parts[i]);
  cmz_expr from[CMZ_MAX_RANK];
  memcpy(from, idx, in->rank * sizeof *from);
  from[axis] = cmz_x_add(k, idx[axis], cmz_describe_dim(d, start));
  return cmz_describe_input(d, 0, from);
}

/* ---- Expand, Tile ---- */

static cmz_status infer_expand(cmz_module *m, cmz_nid n) {
  uint32_t count;
  const cmz_dim *target = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &count);
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  if (!target)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the rank of the output depends on data");
  uint32_t rank = CMZ_MAX(count, in.rank), total;
  if (rank > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "rank %u is too large", rank);
  cmz_dim shape[CMZ_MAX_RANK], one = cmz_dim_const(m->dims, 1);
  for (uint32_t i = 0; i < rank; i++) {
    cmz_dim a = i + in.rank >= rank ? in.shape[i + in.rank - rank] : one;
    cmz_dim b = i + count >= rank ? target[i + count - rank] : one;
    CMZ_TRY(cmz_infer_broadcast_dim(m, n, a, b, i, &shape[i]));
  }
  cmz_set_output(m, n, 0, in.dtype, rank, shape);
  uint32_t own;
  const cmz_dim *elements = cmz_value_elements(m, cmz_ops_input(m, n, 0), &own);
  if (!elements || own != 1 || !cmz_ops_output(m, n, 0)) return CMZ_OK;
  if (!cmz_value_static_count(m, cmz_ops_output(m, n, 0), 1024, &total)) return CMZ_OK;
  uint32_t *index = CMZ_NEW_ARRAY(m->arena, uint32_t, total);
  cmz_infer_moved_elements(m, n, cmz_ops_input(m, n, 0), index, total);
  return CMZ_OK;
}

static cmz_status eval_expand(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  (void)n;
  cmz_array pair[2] = {inputs[0], {.dtype = inputs[0].dtype, .data = inputs[0].data}};
  size_t count = cmz_array_count(&inputs[1]);
  if (count > CMZ_MAX_RANK) return cmz_eval_fail(e, "the rank is too large");
  pair[1].rank = (uint32_t)count;
  for (uint32_t i = 0; i < count; i++) pair[1].shape[i] = cmz_array_i64(&inputs[1], i);
  CMZ_TRY(cmz_array_broadcast(e, pair, 2, &outputs[0]));
  CMZ_TRY(cmz_eval_output(e, &outputs[0]));
  int64_t at[CMZ_MAX_RANK] = {0}, total = (int64_t)cmz_array_count(&outputs[0]);
  for (int64_t i = 0; i < total; i++, cmz_array_next(&outputs[0], at))
    cmz_copy_element(&outputs[0], i, &inputs[0],
                     cmz_array_broadcast_index(&inputs[0], outputs[0].rank, at));
  return CMZ_OK;
}

static cmz_expr describe_expand(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  return cmz_describe_broadcast(d, 0, idx,
                                cmz_output_type(cmz_describe_module(d), n, output)->rank);
}

static cmz_status infer_tile(cmz_module *m, cmz_nid n) {
  uint32_t count, total;
  const cmz_dim *repeats = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &count);
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  if (!repeats || count != in.rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs one repeat for each of %u dimensions", in.rank);
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < in.rank; i++) shape[i] = cmz_dim_mul(m->dims, in.shape[i], repeats[i]);
  cmz_set_output(m, n, 0, in.dtype, in.rank, shape);
  uint32_t own;
  const cmz_dim *elements = cmz_value_elements(m, cmz_ops_input(m, n, 0), &own);
  if (!elements || own == 0 || in.rank > 1 || !cmz_ops_output(m, n, 0)) return CMZ_OK;
  if (!cmz_value_static_count(m, cmz_ops_output(m, n, 0), 1024, &total)) return CMZ_OK;
  uint32_t *index = CMZ_NEW_ARRAY(m->arena, uint32_t, total);
  for (uint32_t i = 0; i < total; i++) index[i] = i % own;
  cmz_infer_moved_elements(m, n, cmz_ops_input(m, n, 0), index, total);
  return CMZ_OK;
}

static cmz_status eval_tile(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  (void)n;
  const cmz_array *in = &inputs[0];
  int64_t shape[CMZ_MAX_RANK], at[CMZ_MAX_RANK] = {0}, from[CMZ_MAX_RANK];
  if (cmz_array_count(&inputs[1]) != in->rank)
    return cmz_eval_fail(e, "needs one repeat for each dimension");
  for (uint32_t i = 0; i < in->rank; i++)
    if (!cmz_mul_i64(in->shape[i], cmz_array_i64(&inputs[1], i), &shape[i]))
      return cmz_eval_fail(e, "too large");
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], in->rank, shape));
  int64_t total = (int64_t)cmz_array_count(&outputs[0]);
  for (int64_t i = 0; i < total; i++, cmz_array_next(&outputs[0], at)) {
    for (uint32_t j = 0; j < in->rank; j++) from[j] = at[j] % in->shape[j];
    cmz_copy_element(&outputs[0], i, in, cmz_array_index(in, from));
  }
  return CMZ_OK;
}

static cmz_expr describe_tile(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_module *m = cmz_describe_module(d);
  const cmz_type *in = cmz_input_type(m, n, 0), *out = cmz_output_type(m, n, output);
  cmz_expr from[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < in->rank; i++) {
    from[i] = idx[i];
    if (in->shape[i] == out->shape[i] || cmz_dim_is(m->dims, in->shape[i], 0)) continue;
    from[i] = cmz_x2(k, CMZ_X_MOD, idx[i], cmz_describe_dim(d, in->shape[i]));
  }
  return cmz_describe_input(d, 0, from);
}

/* ---- DepthToSpace, SpaceToDepth ---- */

typedef struct blocks {
  int64_t size;
  bool to_space, crd;
} blocks;

static blocks blocks_of(const cmz_node *n) {
  return (blocks){.size = cmz_node_int(n, "blocksize", 0),
                  .to_space = n->op->name[0] == 'D',
                  .crd = !strcmp(cmz_node_string(n, "mode", "DCR"), "CRD")};
}

static cmz_status infer_blocks(cmz_module *m, cmz_nid n) {
  cmz_type in = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  blocks b = blocks_of(cmz_node_get(m, n));
  if (in.rank != 4 || b.size < 1 || b.size > 4096)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs rank 4 and a positive blocksize");
  cmz_dims *p = m->dims;
  cmz_dim one = cmz_dim_const(p, b.size), all = cmz_dim_const(p, b.size * b.size),
          shape[4] = {in.shape[0]};
  int64_t size;
  if (b.to_space && cmz_dim_is_const(p, in.shape[1], &size) && size % (b.size * b.size))
    return cmz_node_fail(m, n, CMZ_E_INPUT,
                         "%" PRId64 " channels are not a multiple of blocksize squared", size);
  shape[1] = b.to_space ? cmz_dim_floordiv(p, in.shape[1], all) : cmz_dim_mul(p, in.shape[1], all);
  for (uint32_t i = 2; i < 4; i++)
    shape[i] =
        b.to_space ? cmz_dim_mul(p, in.shape[i], one) : cmz_dim_floordiv(p, in.shape[i], one);
  cmz_set_output(m, n, 0, in.dtype, 4, shape);
  return CMZ_OK;
}

static cmz_status eval_blocks(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  const cmz_array *in = &inputs[0];
  blocks b = blocks_of(n);
  int64_t s = b.size, ss = s * s, t[4] = {0};
  int64_t shape[4] = {in->shape[0], b.to_space ? in->shape[1] / ss : in->shape[1] * ss,
                      b.to_space ? in->shape[2] * s : in->shape[2] / s,
                      b.to_space ? in->shape[3] * s : in->shape[3] / s};
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 4, shape));
  int64_t count = (int64_t)cmz_array_count(&outputs[0]);
  for (int64_t i = 0; i < count; i++, cmz_array_next(&outputs[0], t)) {
    int64_t from[4] = {t[0]};
    if (b.to_space) {
      int64_t block = (t[2] % s) * s + t[3] % s;
      from[1] = b.crd ? t[1] * ss + block : block * shape[1] + t[1];
      from[2] = t[2] / s, from[3] = t[3] / s;
    } else {
      int64_t block = b.crd ? t[1] % ss : t[1] / in->shape[1];
      from[1] = b.crd ? t[1] / ss : t[1] % in->shape[1];
      from[2] = t[2] * s + block / s, from[3] = t[3] * s + block % s;
    }
    cmz_copy_element(&outputs[0], i, in, cmz_array_index(in, from));
  }
  return CMZ_OK;
}

static cmz_expr describe_blocks(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *t) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_module *m = cmz_describe_module(d);
  blocks b = blocks_of(n);
  cmz_expr s = cmz_x_index(k, b.size), from[4] = {t[0]};
  if (b.to_space) {
    cmz_expr block =
        cmz_x_add(k, cmz_x_mul(k, cmz_x2(k, CMZ_X_MOD, t[2], s), s), cmz_x2(k, CMZ_X_MOD, t[3], s));
    cmz_expr channels = cmz_describe_dim(d, cmz_output_type(m, n, output)->shape[1]);
    from[1] = b.crd ? cmz_x_add(k, cmz_x_mul(k, t[1], cmz_x_index(k, b.size * b.size)), block)
                    : cmz_x_add(k, cmz_x_mul(k, block, channels), t[1]);
    from[2] = cmz_x2(k, CMZ_X_FLOORDIV, t[2], s);
    from[3] = cmz_x2(k, CMZ_X_FLOORDIV, t[3], s);
  } else {
    cmz_expr channels = cmz_describe_dim(d, cmz_input_type(m, n, 0)->shape[1]);
    cmz_expr inner = b.crd ? cmz_x_index(k, b.size * b.size) : channels;
    cmz_expr outer = cmz_x2(k, CMZ_X_FLOORDIV, t[1], inner),
             rest = cmz_x2(k, CMZ_X_MOD, t[1], inner);
    cmz_expr block = b.crd ? rest : outer;
    from[1] = b.crd ? outer : rest;
    from[2] = cmz_x_add(k, cmz_x_mul(k, t[2], s), cmz_x2(k, CMZ_X_FLOORDIV, block, s));
    from[3] = cmz_x_add(k, cmz_x_mul(k, t[3], s), cmz_x2(k, CMZ_X_MOD, block, s));
  }
  return cmz_describe_input(d, 0, from);
}

/* ---- ReverseSequence ---- */

static cmz_status infer_reverse(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  int64_t batch = cmz_node_int(node, "batch_axis", 1), time = cmz_node_int(node, "time_axis", 0);
  uint32_t rank = cmz_ops_type(m, cmz_ops_input(m, n, 0))->rank;
  if (rank < 2 || batch == time || batch < 0 || time < 0 || batch >= rank || time >= rank)
    return cmz_node_fail(m, n, CMZ_E_INPUT,
                         "batch_axis and time_axis must be two axes of the input");
  if (cmz_ops_type(m, cmz_ops_input(m, n, 1))->rank != 1)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "sequence_lens must have rank 1");
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

static cmz_status eval_reverse(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  const cmz_array *in = &inputs[0];
  int64_t batch = cmz_node_int(n, "batch_axis", 1), time = cmz_node_int(n, "time_axis", 0);
  CMZ_TRY(cmz_eval_output_like(e, &outputs[0], in));
  int64_t at[CMZ_MAX_RANK] = {0}, from[CMZ_MAX_RANK], count = (int64_t)cmz_array_count(in);
  for (int64_t i = 0; i < count; i++, cmz_array_next(in, at)) {
    memcpy(from, at, sizeof from);
    int64_t length = cmz_array_i64(&inputs[1], (size_t)at[batch]);
    if (length < 0 || length > in->shape[time])
      return cmz_eval_fail(e, "a sequence length is out of range");
    if (at[time] < length) from[time] = length - 1 - at[time];
    cmz_copy_element(&outputs[0], i, in, cmz_array_index(in, from));
  }
  return CMZ_OK;
}

static cmz_expr describe_reverse(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type *type = cmz_output_type(cmz_describe_module(d), n, output);
  int64_t batch = cmz_node_int(n, "batch_axis", 1), time = cmz_node_int(n, "time_axis", 0);
  cmz_expr from[CMZ_MAX_RANK], length = cmz_describe_input(d, 1, &idx[batch]);
  if (!length) return 0;
  memcpy(from, idx, type->rank * sizeof *from);
  /* Wrong lengths must not read outside the tensor. */
  length =
      cmz_x2(k, CMZ_X_MIN, cmz_x_cast(k, length, CMZ_I64), cmz_describe_dim(d, type->shape[time]));
  cmz_expr back = cmz_x_sub(k, cmz_x_sub(k, length, cmz_x_index(k, 1)), idx[time]);
  from[time] = cmz_x_select(k, cmz_x2(k, CMZ_X_LT, idx[time], length), back, idx[time]);
  return cmz_describe_input(d, 0, from);
}

/* ---- Trilu ---- */

static cmz_status infer_trilu(cmz_module *m, cmz_nid n) {
  if (cmz_ops_type(m, cmz_ops_input(m, n, 0))->rank < 2)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs a matrix");
  cmz_vid diagonal = cmz_ops_input(m, n, 1);
  if (diagonal && !cmz_dim_is(m->dims, cmz_value_element_product(m, diagonal), 1))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "k is not one number");
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

static cmz_status eval_trilu(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  const cmz_array *in = &inputs[0];
  bool upper = cmz_node_int(n, "upper", 1) != 0;
  int64_t k = n->input_count > 1 && inputs[1].data ? cmz_array_i64(&inputs[1], 0) : 0;
  CMZ_TRY(cmz_eval_output_like(e, &outputs[0], in));
  int64_t at[CMZ_MAX_RANK] = {0}, count = (int64_t)cmz_array_count(in);
  for (int64_t i = 0; i < count; i++, cmz_array_next(in, at)) {
    int64_t diagonal = at[in->rank - 1] - at[in->rank - 2];
    if (upper ? diagonal >= k : diagonal <= k) cmz_copy_element(&outputs[0], i, in, i);
  }
  return CMZ_OK;
}

static cmz_expr describe_trilu(cmz_describe *d, const cmz_node *n, uint32_t output,
                               const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  uint32_t rank = cmz_output_type(cmz_describe_module(d), n, output)->rank;
  cmz_expr x = cmz_describe_input(d, 0, idx), diagonal = cmz_x_sub(k, idx[rank - 1], idx[rank - 2]);
  cmz_expr limit = cmz_node_input(n, 1) ? cmz_describe_single(d, 1) : cmz_x_index(k, 0);
  if (!x || !limit) return 0;
  limit = cmz_x_cast(k, limit, CMZ_I64);
  bool upper = cmz_node_int(n, "upper", 1) != 0;
  cmz_expr keep =
      upper ? cmz_x2(k, CMZ_X_LE, limit, diagonal) : cmz_x2(k, CMZ_X_LE, diagonal, limit);
  return cmz_x_select(k, keep, x, cmz_x_like(k, x, 0));
}

#define MOVE(NAME, MIN, MAX, OUTPUTS, SINCE, NORMALIZE, INFER, EVAL, DESCRIBE, ...)                \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,            \
    .max_outputs = OUTPUTS, .since = SINCE, .flags = CMZ_OP_MOVEMENT | CMZ_OP_CHEAP,               \
    .normalize = NORMALIZE, .infer = INFER, .eval = EVAL, .describe = DESCRIBE, ##__VA_ARGS__      \
  }

const cmz_op cmz_ops_movement[] = {
    MOVE("Transpose", 1, 1, 1, 1, NULL, infer_transpose, eval_transpose, describe_transpose,
         .attributes = "perm:I"),
    MOVE("Concat", 1, 255, 1, 1, normalize_concat, infer_concat, eval_concat, describe_concat,
         .attributes = "axis:i<4 axis:i!@4"),
    MOVE("Split", 1, 2, 255, 1, normalize_split, infer_split, eval_split, describe_split,
         .attributes = "axis:i num_outputs:i@18 split:I<13"),
    MOVE("Expand", 2, 2, 1, 8, NULL, infer_expand, eval_expand, describe_expand),
    MOVE("Tile", 2, 2, 1, 6, NULL, infer_tile, eval_tile, describe_tile),
    MOVE("DepthToSpace", 1, 1, 1, 1, NULL, infer_blocks, eval_blocks, describe_blocks,
         .attributes = "blocksize:i! mode:s@11"),
    MOVE("SpaceToDepth", 1, 1, 1, 1, NULL, infer_blocks, eval_blocks, describe_blocks,
         .attributes = "blocksize:i! mode:s@28"),
    MOVE("ReverseSequence", 2, 2, 1, 10, NULL, infer_reverse, eval_reverse, describe_reverse,
         .attributes = "batch_axis:i time_axis:i"),
    MOVE("Trilu", 1, 2, 1, 14, NULL, infer_trilu, eval_trilu, describe_trilu,
         .attributes = "upper:i"),
    {.name = NULL},
};
