/* rules_movement.c - chains of nodes that only move data: views of views, transposes of transposes,
 * casts of casts, a split put together again. In, out: see rules.h. */
#include "rules.h"

static const cmz_type *type_of(const cmz_module *m, cmz_vid v) {
  return &cmz_value_get(m, v)->type;
}

static bool is_view(const cmz_module *m, cmz_nid n) {
  return n != 0 && !cmz_node_get(m, n)->removed &&
         (cmz_node_get(m, n)->op->flags & CMZ_OP_VIEW) != 0 &&
         cmz_node_get(m, n)->op->domain[0] == '\0';
}

/* A view of a view is one view. */
static cmz_status view_of_view(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_nid inner = cmz_value_get(m, node->inputs[0])->producer;
  if (!is_view(m, n) || !is_view(m, inner) || cmz_node_get(m, inner)->graph != node->graph)
    return CMZ_OK;
  cmz_vid source = cmz_node_get(m, inner)->inputs[0], result = node->outputs[0];
  if (type_of(m, source)->dtype != type_of(m, result)->dtype) return CMZ_OK;
  if (cmz_pass_same_shape(m, source, result)) {
    *changed = cmz_rule_finish(m, n, source);
    return CMZ_OK;
  }
  const cmz_type t = *type_of(m, result);
  cmz_vid v = cmz_build_reshape(m, n, source, t.shape, t.rank);
  if (v == 0) return CMZ_E_INTERNAL;
  *changed = cmz_rule_finish(m, n, v);
  return CMZ_OK;
}

static bool permutation(const cmz_module *m, cmz_nid n, int64_t *perm, uint32_t *rank) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t count;
  const int64_t *p = cmz_node_ints(node, "perm", &count);
  *rank = type_of(m, node->inputs[0])->rank;
  if (*rank > CMZ_MAX_RANK || (p != NULL && count != *rank)) return false;
  for (uint32_t i = 0; i < *rank; i++) {
    perm[i] = p != NULL ? p[i] : (int64_t)*rank - 1 - i;
    if (perm[i] < 0) perm[i] += *rank; /* inference has checked that it is a permutation then */
  }
  return true;
}

static cmz_status transpose_of_transpose(cmz_module *m, cmz_nid n, bool *changed) {
  cmz_nid inner = cmz_pass_producer(m, cmz_node_get(m, n)->inputs[0], "Transpose");
  int64_t a[CMZ_MAX_RANK], b[CMZ_MAX_RANK];
  uint32_t rank, other;
  if (inner == 0 || cmz_node_get(m, inner)->graph != cmz_node_get(m, n)->graph ||
      !permutation(m, inner, a, &rank) || !permutation(m, n, b, &other))
    return CMZ_OK;
  bool identity = true;
  for (uint32_t i = 0; i < rank; i++) {
    b[i] = a[b[i]];
    identity &= b[i] == (int64_t)i;
  }
  cmz_vid v = cmz_node_get(m, inner)->inputs[0];
  if (!identity) v = cmz_build_transpose(m, n, v, b, rank);
  if (v == 0) return CMZ_E_INTERNAL;
  *changed = cmz_rule_finish(m, n, v);
  return CMZ_OK;
}

/* A transpose that only moves dims of size 1 moves no data. */
static cmz_status transpose_is_view(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *in = type_of(m, node->inputs[0]);
  int64_t perm[CMZ_MAX_RANK], last = -1;
  uint32_t rank;
  if (!permutation(m, n, perm, &rank)) return CMZ_OK;
  for (uint32_t i = 0; i < rank; i++) {
    if (cmz_dim_is(m->dims, in->shape[perm[i]], 1)) continue;
    if (perm[i] < last) return CMZ_OK;
    last = perm[i];
  }
  const cmz_type t = *type_of(m, node->outputs[0]);
  cmz_vid v = cmz_build_reshape(m, n, node->inputs[0], t.shape, t.rank);
  if (v == 0) return CMZ_E_INTERNAL;
  *changed = cmz_rule_finish(m, n, v);
  return CMZ_OK;
}

/* Whether every value of FROM is one of TO. */
static bool lossless(cmz_dtype from, cmz_dtype to) {
  const cmz_dtype_row *a = cmz_dtype_info(from), *b = cmz_dtype_info(to);
  bool from_int = cmz_dtype_is_int(from) || from == CMZ_BOOL, to_int = cmz_dtype_is_int(to);
  if (cmz_dtype_is_float(from))
    return cmz_dtype_is_float(to) && b->exponent_bits >= a->exponent_bits &&
           b->mantissa_bits >= a->mantissa_bits;
  if (!from_int) return false;
  uint32_t digits = from == CMZ_BOOL ? 1u : a->bits - (a->class_ == CMZ_CLASS_SIGNED ? 1u : 0u);
  if (to_int) {
    bool both_signs = a->class_ == CMZ_CLASS_SIGNED;
    if (both_signs && b->class_ != CMZ_CLASS_SIGNED) return false;
    return b->bits - (b->class_ == CMZ_CLASS_SIGNED ? 1u : 0u) >= digits;
  }
  return cmz_dtype_is_float(to) && b->mantissa_bits + 1u >= digits && b->bits >= 16;
}

static cmz_status cast_of_cast(cmz_module *m, cmz_nid n, bool *changed) {
  cmz_nid inner = cmz_pass_producer(m, cmz_node_get(m, n)->inputs[0], "Cast");
  if (inner == 0 || cmz_node_get(m, inner)->graph != cmz_node_get(m, n)->graph) return CMZ_OK;
  cmz_vid source = cmz_node_get(m, inner)->inputs[0], middle = cmz_node_get(m, inner)->outputs[0];
  cmz_dtype from = type_of(m, source)->dtype,
            to = type_of(m, cmz_node_get(m, n)->outputs[0])->dtype;
  /* Strings and bool have conversions of their own; a cast to the same type may round (see
   * cast-same). */
  if (from == type_of(m, middle)->dtype || from == CMZ_STRING || to == CMZ_STRING ||
      to == CMZ_BOOL || !lossless(from, type_of(m, middle)->dtype))
    return CMZ_OK;
  if (from == to) {
    *changed = cmz_rule_finish(m, n, source);
    return CMZ_OK;
  }
  cmz_node_set_input(m, n, 0, source);
  cmz_node_add_source(m, n, inner);
  cmz_pass_remove_if_dead(m, inner);
  *changed = true;
  return CMZ_OK;
}

/* Concat of all parts of a Split, in order and along the same axis, is what was split. */
static cmz_status concat_of_split(cmz_module *m, cmz_nid n, bool *changed) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_nid split = cmz_pass_producer(m, cmz_node_input(node, 0), "Split");
  if (split == 0) return CMZ_OK;
  const cmz_node *s = cmz_node_get(m, split);
  int64_t rank = type_of(m, s->inputs[0])->rank;
  int64_t a = cmz_node_int(node, "axis", 0), b = cmz_node_int(s, "axis", 0);
  if (s->output_count != node->input_count || s->graph != node->graph ||
      (a < 0 ? a + rank : a) != (b < 0 ? b + rank : b))
    return CMZ_OK;
  for (uint32_t i = 0; i < node->input_count; i++)
    if (node->inputs[i] != s->outputs[i]) return CMZ_OK;
  if (!cmz_pass_same_shape(m, s->inputs[0], node->outputs[0])) return CMZ_OK;
  *changed = cmz_rule_finish(m, n, s->inputs[0]);
  return CMZ_OK;
}

const cmz_rule cmz_rules_movement[] = {
    {"view-of-view", "Reshape", view_of_view},
    {"view-of-view", "Squeeze", view_of_view},
    {"view-of-view", "Unsqueeze", view_of_view},
    {"view-of-view", "Flatten", view_of_view},
    {"transpose-of-transpose", "Transpose", transpose_of_transpose},
    {"transpose-is-view", "Transpose", transpose_is_view},
    {"cast-of-cast", "Cast", cast_of_cast},
    {"concat-of-split", "Concat", concat_of_split},
    {NULL, NULL, NULL},
};
