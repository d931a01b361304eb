/* rules_identity.c - nodes that compute what they are given: Identity, Dropout, casts to the same
 * type, x+0, x*1, no-op slices. In, out: see rules.h. */
#include "rules.h"

static cmz_status drop(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  if (cmz_node_output(node, 1) != 0 && cmz_pass_use_count(m, node->outputs[1]) > 0) return CMZ_OK;
  *changed = cmz_rule_finish(m, n, node->inputs[0]);
  return CMZ_OK;
}

/* Dropout outside of training: training_mode absent or false. */
static cmz_status dropout(cmz_module *m, cmz_nid n, bool *changed) {
  cmz_vid mode = cmz_node_input(cmz_node_get(m, n), 2);
  double on = 0;
  if (mode != 0 && (!cmz_const_f64(m, mode, &on) || on != 0)) return CMZ_OK;
  return drop(m, n, changed);
}

/* A cast to the same type. To a float type narrower than what kernels compute in, it drops the
 * further bits that a fused producer carries, unless that has none. */
static cmz_status same_cast(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *from = &cmz_value_get(m, node->inputs[0])->type;
  const cmz_type *to = &cmz_value_get(m, node->outputs[0])->type;
  if (from->dtype != to->dtype) return CMZ_OK;
  bool narrow = cmz_dtype_is_float(to->dtype) && cmz_dtype_info(to->dtype)->compute != to->dtype;
  bool stored = cmz_value_get(m, node->inputs[0])->producer == 0 ||
                cmz_pass_producer(m, node->inputs[0], "Cast") != 0;
  return narrow && !stored ? CMZ_OK : drop(m, n, changed);
}

/* Whether every element of constant V equals X. */
static bool all_equal(const cmz_module *m, cmz_vid v, double x) {
  cmz_array a;
  if (v == 0 || !cmz_pass_constant_array(m, v, &a) || a.dtype == CMZ_STRING) return false;
  size_t count = cmz_array_count(&a);
  if (count == 0 || count > 65536) return false;
  for (size_t i = 0; i < count; i++)
    if (cmz_dtype_get_f64(a.dtype, a.data, i) != x) return false;
  return true;
}

static cmz_status neutral(cmz_module *m, cmz_nid n, double x, bool both, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  for (uint32_t i = 0; i < 2; i++) {
    if (i == 0 && !both) continue;
    cmz_vid rest = node->inputs[1 - i];
    if (all_equal(m, node->inputs[i], x) && cmz_pass_same_shape(m, rest, node->outputs[0])) {
      *changed = cmz_rule_finish(m, n, rest);
      return CMZ_OK;
    }
  }
  return CMZ_OK;
}

static cmz_status add_zero(cmz_module *m, cmz_nid n, bool *c) { return neutral(m, n, 0, true, c); }
static cmz_status sub_zero(cmz_module *m, cmz_nid n, bool *c) { return neutral(m, n, 0, false, c); }
static cmz_status mul_one(cmz_module *m, cmz_nid n, bool *c) { return neutral(m, n, 1, true, c); }
static cmz_status div_one(cmz_module *m, cmz_nid n, bool *c) { return neutral(m, n, 1, false, c); }

/* Nodes that keep the shape and then keep the content: Expand, Tile, Pad of nothing, Concat of one,
 * Reshape to itself. */
static cmz_status same_shape_copy(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  if (!cmz_pass_same_shape(m, node->inputs[0], node->outputs[0])) return CMZ_OK;
  return drop(m, n, changed);
}

static cmz_status concat_one(cmz_module *m, cmz_nid n, bool *changed) {
  return cmz_node_get(m, n)->input_count == 1 ? drop(m, n, changed) : CMZ_OK;
}

/* A Slice with steps of 1 that keeps every dim keeps everything. */
static cmz_status slice_all(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  if (cmz_node_input(node, 4) != 0 && !all_equal(m, node->inputs[4], 1)) return CMZ_OK;
  return same_shape_copy(m, n, changed);
}

/* A Pad by zero everywhere. */
static cmz_status pad_nothing(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  return all_equal(m, cmz_node_input(node, 1), 0) ? same_shape_copy(m, n, changed) : CMZ_OK;
}

const cmz_rule cmz_rules_identity[] = {
    {"identity", "Identity", drop},
    {"dropout", "Dropout", dropout},
    {"cast-same", "Cast", same_cast},
    {"add-zero", "Add", add_zero},
    {"sub-zero", "Sub", sub_zero},
    {"mul-one", "Mul", mul_one},
    {"div-one", "Div", div_one},
    {"reshape-same", "Reshape", same_shape_copy},
    {"expand-same", "Expand", same_shape_copy},
    {"concat-one", "Concat", concat_one},
    {"slice-all", "Slice", slice_all},
    {"pad-nothing", "Pad", pad_nothing},
    {NULL, NULL, NULL},
};
