/* build.c - placing nodes: what expansions and passes build graphs with.
 * In: the node before which new ones go. Out: the value each new node gives, already typed.
 * Always holds: a result of 0 means that an error was recorded; 0 given as a required input gives
 * 0. */
#include "op.h"

static cmz_vid place(cmz_module *m, cmz_nid before, const char *name, uint32_t input_count,
                     const cmz_vid *inputs, uint32_t attr_count, const cmz_attr *attrs, bool infer,
                     cmz_nid *node) {
  const cmz_op *op = cmz_op_get(name);
  if (!op) {
    cmz_node_fail(m, before, CMZ_E_INTERNAL, "expansion uses the unknown operator %s", name);
    return 0;
  }
  for (uint32_t i = 0; i < op->min_inputs && i < input_count; i++)
    if (!inputs[i]) return 0;
  cmz_vid out = cmz_value_add(m, cmz_node_get(m, before)->graph, NULL);
  cmz_nid n = cmz_node_insert(m, before, op, NULL, input_count, inputs, 1, &out);
  for (uint32_t i = 0; i < attr_count; i++) cmz_node_set_attr(m, n, &attrs[i]);
  cmz_node_add_source(m, n, before);
  if (node) *node = n;
  return infer && cmz_infer_node(m, n) != CMZ_OK ? 0 : out;
}

cmz_vid cmz_build_node(cmz_module *m, cmz_nid before, const char *op, uint32_t input_count,
                       const cmz_vid *inputs, cmz_nid *node) {
  if (node) *node = 0;
  return place(m, before, op, input_count, inputs, 0, NULL, node == NULL, node);
}

cmz_vid cmz_build_with(cmz_module *m, cmz_nid before, const char *op, uint32_t input_count,
                       const cmz_vid *inputs, uint32_t attr_count, const cmz_attr *attrs) {
  return place(m, before, op, input_count, inputs, attr_count, attrs, true, NULL);
}

cmz_vid cmz_build1(cmz_module *m, cmz_nid before, const char *op, cmz_vid a) {
  return cmz_build_node(m, before, op, 1, &a, NULL);
}

cmz_vid cmz_build2(cmz_module *m, cmz_nid before, const char *op, cmz_vid a, cmz_vid b) {
  return cmz_build_node(m, before, op, 2, (cmz_vid[]){a, b}, NULL);
}

cmz_vid cmz_build3(cmz_module *m, cmz_nid before, const char *op, cmz_vid a, cmz_vid b, cmz_vid c) {
  return cmz_build_node(m, before, op, 3, (cmz_vid[]){a, b, c}, NULL);
}

cmz_vid cmz_build_cast(cmz_module *m, cmz_nid before, cmz_vid a, cmz_dtype to) {
  if (!a || cmz_value_get(m, a)->type.dtype == to) return a;
  cmz_attr attr = cmz_attr_int("to", to);
  return cmz_build_with(m, before, "Cast", 1, &a, 1, &attr);
}

cmz_vid cmz_build_scalar_like(cmz_module *m, cmz_nid before, cmz_vid like, double v) {
  if (!like) return 0;
  return cmz_value_add_scalar(m, cmz_node_get(m, before)->graph, cmz_value_get(m, like)->type.dtype,
                              v);
}

cmz_vid cmz_build_transpose(cmz_module *m, cmz_nid before, cmz_vid a, const int64_t *perm,
                            uint32_t rank) {
  bool same = true;
  for (uint32_t i = 0; i < rank; i++) same = same && perm[i] == (int64_t)i;
  if (same) return a;
  cmz_attr attr = cmz_attr_ints("perm", perm, rank);
  return cmz_build_with(m, before, "Transpose", 1, &a, 1, &attr);
}

cmz_vid cmz_build_reshape(cmz_module *m, cmz_nid before, cmz_vid a, const cmz_dim *shape,
                          uint32_t rank) {
  if (!a) return 0;
  cmz_gid g = cmz_node_get(m, before)->graph;
  int64_t sizes[CMZ_MAX_RANK];
  bool known = rank <= CMZ_MAX_RANK;
  for (uint32_t i = 0; i < rank && known; i++)
    known = cmz_dim_is_const(m->dims, shape[i], &sizes[i]);
  cmz_attr allow_zero = cmz_attr_int("allowzero", 1);
  if (known) {
    cmz_vid target = cmz_value_add_i64s(m, g, sizes, rank);
    return cmz_build_with(m, before, "Reshape", 2, (cmz_vid[]){a, target}, 1, &allow_zero);
  }
  /* A cmz.Dims node carries the symbolic content; inference keeps what is set on its output. */
  cmz_nid node;
  cmz_vid target = cmz_build_node(m, before, "Dims", 0, NULL, &node);
  if (!target) return 0;
  cmz_dim count = cmz_dim_const(m->dims, rank);
  cmz_value_set_type(m, target, CMZ_I64, 1, &count);
  cmz_value_set_elements(m, target, shape, rank);
  return cmz_build_with(m, before, "Reshape", 2, (cmz_vid[]){a, target}, 1, &allow_zero);
}

cmz_vid cmz_build_reduce(cmz_module *m, cmz_nid before, const char *op, cmz_vid a,
                         const int64_t *axes, uint32_t count, bool keepdims) {
  if (!a || count == 0) return a;
  cmz_vid list = cmz_value_add_i64s(m, cmz_node_get(m, before)->graph, axes, count);
  cmz_attr attr = cmz_attr_int("keepdims", keepdims);
  return cmz_build_with(m, before, op, 2, (cmz_vid[]){a, list}, 1, &attr);
}

void cmz_build_finish(cmz_module *m, cmz_nid n, cmz_vid v) {
  cmz_vid old = cmz_node_output(cmz_node_get(m, n), 0);
  if (old && old != v) {
    cmz_nid producer = cmz_value_get(m, v)->producer;
    if (producer && producer != n) cmz_node_add_source(m, producer, n);
    cmz_value_replace_uses(m, old, v);
  }
  cmz_node_remove(m, n);
}
