/* sequences.c - operators on sequences and optionals whose lengths, positions and presence are
 * known when the model is compiled become operators on tensors. In: a node whose inputs have types.
 * Out: the same function; a sequence that is still read as one is made by a single
 * SequenceConstruct. Always holds: runs while types are being inferred, so that what comes after
 * sees the tensors' own shapes. */
#include "support.h"

#define KNOWN_ITEMS 48 /* a longer sequence is left to the run */

typedef struct items {
  uint32_t count;
  cmz_vid data[KNOWN_ITEMS];
} items;

/* The value behind copies. */
static cmz_vid through_identity(const cmz_module *m, cmz_vid v) {
  for (int i = 0; i < 64; i++) {
    cmz_nid n = cmz_pass_producer(m, v, "Identity");
    if (n == 0) break;
    v = cmz_node_get(m, n)->inputs[0];
  }
  return v;
}

/* The tensors of sequence V, when they are known one by one. */
static bool known_items(const cmz_module *m, cmz_vid v, items *out) {
  v = through_identity(m, v);
  out->count = 0;
  if (cmz_pass_producer(m, v, "SequenceEmpty") != 0) return true;
  cmz_nid n = cmz_pass_producer(m, v, "SequenceConstruct");
  if (n == 0 || cmz_node_get(m, n)->input_count > KNOWN_ITEMS) return false;
  const cmz_node *node = cmz_node_get(m, n);
  out->count = node->input_count;
  memcpy(out->data, node->inputs, node->input_count * sizeof *node->inputs);
  return true;
}

/* The number in V, counted from the end of COUNT when negative; OTHERWISE without V. */
static bool known_position(cmz_module *m, cmz_vid v, uint32_t count, uint32_t limit,
                           int64_t otherwise, uint32_t *out) {
  int64_t at = otherwise;
  if (v != 0) {
    uint32_t elements;
    const cmz_dim *e = cmz_value_elements(m, v, &elements);
    if (e == NULL || elements != 1 || !cmz_dim_is_const(m->dims, e[0], &at)) return false;
  }
  if (at < 0) at += count;
  if (at < 0 || at >= (int64_t)limit) return false; /* the run says so */
  *out = (uint32_t)at;
  return true;
}

/* V stands for output 0 of N, which goes. */
static cmz_status replace(cmz_module *m, cmz_nid n, cmz_vid v) {
  cmz_vid old = cmz_node_output(cmz_node_get(m, n), 0);
  if (v == 0) return CMZ_E_INTERNAL;
  if (old != 0) {
    /* Sizes that stood for those of the old value are inferred anew. */
    for (uint32_t i = 0; i < cmz_dim_symbol_count(m->dims); i++) {
      cmz_symbol *s = cmz_dim_symbol_at(m->dims, i);
      if (s->origin == CMZ_SYMBOL_DATA && s->value == old && s->element < 0) s->value = 0;
    }
    if (!cmz_pass_replace(m, old, v)) {
      cmz_vid copy = cmz_build1(m, n, "Identity", v);
      if (copy == 0 || !cmz_pass_replace(m, old, copy))
        return cmz_node_fail(m, n, CMZ_E_INTERNAL, "a sequence could not be replaced");
    }
  }
  cmz_pass_remove_if_dead(m, n);
  return CMZ_OK;
}

static cmz_status replace_by_items(cmz_module *m, cmz_nid n, const items *list, cmz_dtype dtype) {
  cmz_attr attr = cmz_attr_int("dtype", dtype);
  cmz_vid v = list->count == 0
                  ? cmz_build_with(m, n, "SequenceEmpty", 0, NULL, 1, &attr)
                  : cmz_build_node(m, n, "SequenceConstruct", list->count, list->data, NULL);
  return replace(m, n, v);
}

/* ---- one function an operator: *DONE when N was replaced ---- */

static cmz_status insert(cmz_module *m, cmz_nid n, bool *done) {
  const cmz_node *node = cmz_node_get(m, n);
  items list;
  uint32_t at;
  if (!known_items(m, node->inputs[0], &list) || list.count == KNOWN_ITEMS ||
      !known_position(m, cmz_node_input(node, 2), list.count, list.count + 1, list.count, &at) ||
      cmz_value_get(m, node->inputs[0])->type.dtype !=
          cmz_value_get(m, node->inputs[1])->type.dtype)
    return CMZ_OK;
  memmove(&list.data[at + 1], &list.data[at], (list.count - at) * sizeof *list.data);
  list.data[at] = node->inputs[1];
  list.count++;
  *done = true;
  return replace_by_items(m, n, &list, CMZ_UNDEFINED);
}

static cmz_status erase(cmz_module *m, cmz_nid n, bool *done) {
  const cmz_node *node = cmz_node_get(m, n);
  items list;
  uint32_t at;
  if (!known_items(m, node->inputs[0], &list) ||
      !known_position(m, cmz_node_input(node, 1), list.count, list.count, -1, &at))
    return CMZ_OK;
  memmove(&list.data[at], &list.data[at + 1], (list.count - at - 1) * sizeof *list.data);
  list.count--;
  *done = true;
  return replace_by_items(m, n, &list, cmz_value_get(m, node->inputs[0])->type.dtype);
}

static cmz_status at_position(cmz_module *m, cmz_nid n, bool *done) {
  const cmz_node *node = cmz_node_get(m, n);
  items list;
  uint32_t at;
  if (!known_items(m, node->inputs[0], &list) ||
      !known_position(m, node->inputs[1], list.count, list.count, -1, &at))
    return CMZ_OK;
  *done = true;
  return replace(m, n, list.data[at]);
}

static cmz_status length(cmz_module *m, cmz_nid n, bool *done) {
  const cmz_node *node = cmz_node_get(m, n);
  items list;
  if (!known_items(m, node->inputs[0], &list)) return CMZ_OK;
  *done = true;
  return replace(m, n, cmz_value_add_scalar(m, node->graph, CMZ_I64, list.count));
}

/* The sizes of the parts that SPLIT asks for along an axis of SIZE; false when there are too many,
 * or they do not fit. */
static bool part_sizes(cmz_module *m, cmz_vid split, int64_t size, int64_t *sizes,
                       uint32_t *count) {
  int64_t listed[KNOWN_ITEMS], sum = 0;
  uint32_t given = 1;
  listed[0] = 1;
  if (split != 0 && !cmz_const_i64s(m, split, listed, KNOWN_ITEMS, &given)) return false;
  bool equal = split == 0 || cmz_value_get(m, split)->type.rank == 0;
  if (!equal) {
    for (*count = 0; *count < given; (*count)++) {
      sizes[*count] = listed[*count];
      if (listed[*count] < 0 || listed[*count] > size) return false;
      sum += listed[*count];
    }
    return sum == size;
  }
  if (listed[0] <= 0 || size / listed[0] >= KNOWN_ITEMS) return false;
  for (*count = 0; sum < size; sum += listed[0]) sizes[(*count)++] = CMZ_MIN(listed[0], size - sum);
  return true;
}

static cmz_status split_into(cmz_module *m, cmz_nid n, bool *done) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_vid x = node->inputs[0], split = cmz_node_input(node, 1);
  cmz_gid g = node->graph;
  const cmz_type type = cmz_value_get(m, x)->type;
  int64_t axis = cmz_node_int(node, "axis", 0), size, sizes[KNOWN_ITEMS];
  bool keep = split != 0 || cmz_node_int(node, "keepdims", 1) != 0;
  if (axis < 0) axis += type.rank;
  items list = {0};
  if (type.kind != CMZ_KIND_TENSOR || axis < 0 || axis >= (int64_t)type.rank ||
      !cmz_dim_is_const(m->dims, type.shape[axis], &size) ||
      !part_sizes(m, split, size, sizes, &list.count))
    return CMZ_OK;
  *done = true;
  if (list.count == 0) return replace_by_items(m, n, &list, type.dtype);
  for (uint32_t i = 0; i < list.count; i++) list.data[i] = cmz_value_add(m, g, NULL);
  cmz_vid inputs[2] = {x, cmz_value_add_i64s(m, g, sizes, list.count)};
  cmz_nid parts =
      cmz_node_insert(m, n, cmz_op_get("Split"), NULL, 2, inputs, list.count, list.data);
  cmz_node_set_int(m, parts, "axis", axis);
  cmz_node_add_source(m, parts, n);
  CMZ_TRY(cmz_infer_node(m, parts));
  for (uint32_t i = 0; i < list.count && !keep; i++) {
    cmz_vid axes = cmz_value_add_i64s(m, g, &axis, 1);
    list.data[i] = cmz_build2(m, n, "Squeeze", list.data[i], axes);
  }
  return replace_by_items(m, n, &list, type.dtype);
}

static cmz_status concat(cmz_module *m, cmz_nid n, bool *done) {
  const cmz_node *node = cmz_node_get(m, n);
  items list;
  if (!known_items(m, node->inputs[0], &list) || list.count == 0) return CMZ_OK;
  bool stack = cmz_node_int(node, "new_axis", 0) != 0;
  int64_t axis = cmz_node_int(node, "axis", 0),
          rank = (int64_t)cmz_value_get(m, list.data[0])->type.rank + stack;
  if (axis < -rank || axis >= rank) return CMZ_OK;
  if (axis < 0) axis += rank;
  cmz_gid g = node->graph;
  for (uint32_t i = 0; i < list.count && stack; i++) {
    cmz_vid axes = cmz_value_add_i64s(m, g, &axis, 1);
    list.data[i] = cmz_build2(m, n, "Unsqueeze", list.data[i], axes);
  }
  cmz_attr attr = cmz_attr_int("axis", axis);
  *done = true;
  return replace(m, n, cmz_build_with(m, n, "Concat", list.count, list.data, 1, &attr));
}

/* Whether something is in N's input: 0, 1, or -1 when only the run can tell. *INSIDE is its content
 * when that is known. */
static int presence(const cmz_module *m, cmz_nid n, cmz_vid *inside) {
  cmz_vid v = through_identity(m, cmz_node_input(cmz_node_get(m, n), 0));
  *inside = v;
  if (v == 0) return 0;
  if (!(cmz_value_get(m, v)->type.kind & CMZ_KIND_OPTIONAL)) return 1;
  cmz_nid producer = cmz_pass_producer(m, v, "Optional");
  if (producer == 0) return -1;
  *inside = cmz_node_input(cmz_node_get(m, producer), 0);
  return *inside != 0;
}

static cmz_status has_element(cmz_module *m, cmz_nid n, bool *done) {
  cmz_vid inside;
  int has = presence(m, n, &inside);
  if (has < 0) return CMZ_OK;
  *done = true;
  return replace(m, n, cmz_value_add_scalar(m, cmz_node_get(m, n)->graph, CMZ_BOOL, has));
}

static cmz_status get_element(cmz_module *m, cmz_nid n, bool *done) {
  cmz_vid inside;
  if (presence(m, n, &inside) != 1) return CMZ_OK;
  *done = true;
  return replace(m, n, inside);
}

static const struct {
  const char *op;
  cmz_status (*resolve)(cmz_module *m, cmz_nid n, bool *done);
} rows[] = {
    {"SequenceInsert", insert},          {"SequenceErase", erase},
    {"SequenceAt", at_position},         {"SequenceLength", length},
    {"SplitToSequence", split_into},     {"ConcatFromSequence", concat},
    {"OptionalHasElement", has_element}, {"OptionalGetElement", get_element},
};

cmz_status cmz_pass_resolve_sequence(cmz_module *m, cmz_nid n, bool *done) {
  *done = false;
  const cmz_node *node = cmz_node_get(m, n);
  if (!(node->op->flags & CMZ_OP_VALUES) || node->input_count < node->op->min_inputs) return CMZ_OK;
  for (uint32_t i = 0; i < node->input_count; i++) {
    if (node->inputs[i] == 0 && i < node->op->min_inputs) return CMZ_OK;
    const cmz_type *t = node->inputs[i] != 0 ? &cmz_value_get(m, node->inputs[i])->type : NULL;
    if (t != NULL && t->kind == CMZ_KIND_TENSOR && t->rank == CMZ_RANK_UNKNOWN) return CMZ_OK;
  }
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++)
    if (cmz_pass_is_op(node, rows[i].op)) return rows[i].resolve(m, n, done);
  return CMZ_OK;
}

cmz_status cmz_pass_resolve_graphs(cmz_module *m, cmz_nid n, bool *any) {
  uint32_t attrs = cmz_node_get(m, n)->attr_count;
  for (uint32_t a = 0; a < attrs; a++) {
    if (cmz_node_get(m, n)->attrs[a].kind != CMZ_ATTR_GRAPH) continue;
    cmz_gid g = cmz_node_get(m, n)->attrs[a].graph;
    for (uint32_t i = 0; i < cmz_graph_get(m, g)->nodes.count; i++) {
      cmz_nid inner = cmz_graph_get(m, g)->nodes.data[i];
      bool done = false;
      if (cmz_node_get(m, inner)->removed) continue;
      CMZ_TRY(cmz_pass_resolve_sequence(m, inner, &done));
      *any |= done;
      if (!done) CMZ_TRY(cmz_pass_resolve_graphs(m, inner, any));
    }
  }
  return CMZ_OK;
}
