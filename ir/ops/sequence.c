/* sequence.c - sequences of tensors and optionals.
 * In: nodes of these operators. Out: their types, and the names of the runtime's ops that compute
 * them. Always holds: a dim in a sequence's type is right for each of its tensors; what is not the
 * same for all, or changes in a loop, is CMZ_DIM_NONE. Where lengths and positions are known
 * passes/sequences.c has replaced the nodes by tensors before the rest of the graph is inferred. */
#include "ops.h"

bool cmz_type_merge(cmz_module *m, const cmz_type *a, const cmz_type *b, cmz_type *out) {
  if (a->kind == CMZ_KIND_TENSOR || b->kind == CMZ_KIND_TENSOR) return false;
  /* An optional tensor and a sequence are different things, unless one of them is known as absent.
   */
  bool sequences = (a->kind & CMZ_KIND_SEQUENCE) == (b->kind & CMZ_KIND_SEQUENCE);
  if (!sequences && !(a->vacant && !(a->kind & CMZ_KIND_SEQUENCE)) &&
      !(b->vacant && !(b->kind & CMZ_KIND_SEQUENCE)))
    return false;
  const cmz_type *known = a->vacant ? b : a;
  *out = *known;
  out->kind = (cmz_kind)(a->kind | b->kind);
  if (a->vacant || b->vacant) return true;
  if (a->dtype != b->dtype) return false;
  if (a->rank == CMZ_RANK_UNKNOWN || a->rank != b->rank) {
    out->rank = CMZ_RANK_UNKNOWN;
    out->shape = NULL;
    return true;
  }
  cmz_dim *shape = CMZ_NEW_ARRAY(m->arena, cmz_dim, a->rank + 1);
  for (uint32_t i = 0; i < a->rank; i++)
    shape[i] = a->shape[i] == b->shape[i] ? a->shape[i] : CMZ_DIM_NONE;
  out->shape = shape;
  return true;
}

static void set_type(cmz_module *m, cmz_nid n, const cmz_type *t) {
  cmz_vid out = cmz_ops_output(m, n, 0);
  if (out) cmz_value_set_full_type(m, out, t);
}

/* Output 0 is one of the tensors that T describes: sizes that are not known are symbols. */
static cmz_status set_element(cmz_module *m, cmz_nid n, const cmz_type *t) {
  cmz_vid out = cmz_ops_output(m, n, 0);
  if (!out) return CMZ_OK;
  if (t->dtype == CMZ_UNDEFINED || t->rank == CMZ_RANK_UNKNOWN)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "%s of the tensors inside is not known when the model is compiled",
                         t->dtype == CMZ_UNDEFINED ? "the element type" : "the rank");
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < t->rank; i++)
    shape[i] = t->shape[i] ? t->shape[i] : cmz_output_symbol(m, out, i, 0, INT64_MAX);
  cmz_value_set_type(m, out, t->dtype, t->rank, shape);
  return CMZ_OK;
}

static cmz_status need_sequence(cmz_module *m, cmz_nid n, uint32_t input, cmz_type *t) {
  *t = *cmz_input_type(m, cmz_node_get(m, n), input);
  if (t->kind == CMZ_KIND_SEQUENCE) return CMZ_OK;
  return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u is not a sequence", input);
}

static cmz_status need_tensor(cmz_module *m, cmz_nid n, uint32_t input) {
  const cmz_type *t = cmz_input_type(m, cmz_node_get(m, n), input);
  if (!t || t->kind == CMZ_KIND_TENSOR) return CMZ_OK;
  return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u is not a tensor", input);
}

/* An integer scalar (or one-element vector) of 32 or 64 bits, when present. */
static cmz_status need_position(cmz_module *m, cmz_nid n, uint32_t input) {
  const cmz_type *t = cmz_input_type(m, cmz_node_get(m, n), input);
  if (!t) return CMZ_OK;
  bool one = t->rank == 0 || (t->rank == 1 && cmz_dim_is(m->dims, t->shape[0], 1));
  if (t->kind != CMZ_KIND_TENSOR || (t->dtype != CMZ_I64 && t->dtype != CMZ_I32) || !one)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the position is not one integer");
  return CMZ_OK;
}

/* ---- making sequences ---- */

static cmz_status infer_empty(cmz_module *m, cmz_nid n) {
  int64_t dtype = cmz_node_int(cmz_node_get(m, n), "dtype", CMZ_F32);
  if (dtype <= 0 || dtype >= CMZ_DTYPE_COUNT)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "there is no element type %" PRId64, dtype);
  cmz_type t = {.kind = CMZ_KIND_SEQUENCE,
                .dtype = (cmz_dtype)dtype,
                .rank = CMZ_RANK_UNKNOWN,
                .vacant = true};
  set_type(m, n, &t);
  return CMZ_OK;
}

/* T becomes the type of a sequence that also has tensor input INPUT. */
static cmz_status add_element(cmz_module *m, cmz_nid n, uint32_t input, cmz_type *t) {
  CMZ_TRY(need_tensor(m, n, input));
  cmz_type element = *cmz_input_type(m, cmz_node_get(m, n), input);
  element.kind = CMZ_KIND_SEQUENCE;
  if (t->dtype != element.dtype)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "a sequence of %s cannot hold a tensor of %s",
                         cmz_dtype_info(t->dtype)->name, cmz_dtype_info(element.dtype)->name);
  cmz_type both;
  if (!cmz_type_merge(m, t, &element, &both))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u does not fit the sequence", input);
  *t = both;
  return CMZ_OK;
}

static cmz_status infer_construct(cmz_module *m, cmz_nid n) {
  uint32_t count = cmz_node_get(m, n)->input_count;
  for (uint32_t i = 0; i < count; i++)
    if (!cmz_ops_input(m, n, i))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "required input %u is absent", i);
  CMZ_TRY(need_tensor(m, n, 0));
  cmz_type t = *cmz_input_type(m, cmz_node_get(m, n), 0);
  t.kind = CMZ_KIND_SEQUENCE;
  for (uint32_t i = 1; i < count; i++) CMZ_TRY(add_element(m, n, i, &t));
  set_type(m, n, &t);
  return CMZ_OK;
}

/* A step of the run has so many operands at most. */
#define CONSTRUCT_INPUTS 48

/* A longer sequence is made of a first part, and what is inserted into it. */
static cmz_status expand_construct(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  if (node.input_count <= CONSTRUCT_INPUTS) return CMZ_OK;
  const cmz_vid *inputs =
      cmz_arena_copy(m->arena, node.inputs, node.input_count * sizeof *node.inputs);
  cmz_vid v = cmz_build_node(m, n, "SequenceConstruct", CONSTRUCT_INPUTS, inputs, NULL);
  for (uint32_t i = CONSTRUCT_INPUTS; i < node.input_count; i++)
    v = cmz_build2(m, n, "SequenceInsert", v, inputs[i]);
  if (!v) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

static cmz_status infer_insert(cmz_module *m, cmz_nid n) {
  cmz_type t;
  CMZ_TRY(need_sequence(m, n, 0, &t));
  CMZ_TRY(add_element(m, n, 1, &t));
  CMZ_TRY(need_position(m, n, 2));
  set_type(m, n, &t);
  return CMZ_OK;
}

static cmz_status infer_erase(cmz_module *m, cmz_nid n) {
  cmz_type t;
  CMZ_TRY(need_sequence(m, n, 0, &t));
  CMZ_TRY(need_position(m, n, 1));
  set_type(m, n, &t);
  return CMZ_OK;
}

static cmz_status infer_split(cmz_module *m, cmz_nid n) {
  CMZ_TRY(need_tensor(m, n, 0));
  CMZ_TRY(need_tensor(m, n, 1));
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0), *split = cmz_input_type(m, node, 1);
  if (split && (split->rank > 1 || (split->dtype != CMZ_I64 && split->dtype != CMZ_I32)))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "split is neither an integer nor a list of them");
  uint32_t axis;
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", 0), x.rank, &axis));
  bool keep = split || cmz_node_int(node, "keepdims", 1) != 0;
  cmz_dim shape[CMZ_MAX_RANK];
  uint32_t rank = 0;
  for (uint32_t i = 0; i < x.rank; i++) {
    if (i != axis) shape[rank++] = x.shape[i];
    else if (keep) shape[rank++] = split ? CMZ_DIM_NONE : cmz_dim_const(m->dims, 1);
  }
  cmz_type t = {.kind = CMZ_KIND_SEQUENCE, .dtype = x.dtype, .rank = rank, .shape = shape};
  set_type(m, n, &t);
  return CMZ_OK;
}

/* ---- reading sequences ---- */

static cmz_status infer_at(cmz_module *m, cmz_nid n) {
  cmz_type t;
  CMZ_TRY(need_sequence(m, n, 0, &t));
  CMZ_TRY(need_position(m, n, 1));
  return set_element(m, n, &t);
}

static cmz_status infer_length(cmz_module *m, cmz_nid n) {
  cmz_type t;
  CMZ_TRY(need_sequence(m, n, 0, &t));
  cmz_set_output(m, n, 0, CMZ_I64, 0, NULL);
  return CMZ_OK;
}

static cmz_status infer_concat(cmz_module *m, cmz_nid n) {
  cmz_type t;
  CMZ_TRY(need_sequence(m, n, 0, &t));
  const cmz_node *node = cmz_node_get(m, n);
  bool stack = cmz_node_int(node, "new_axis", 0) != 0;
  const cmz_attr *a = cmz_node_attr(node, "axis");
  if (!a) return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute axis is missing");
  if (t.rank == CMZ_RANK_UNKNOWN || t.rank + stack > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "the rank of the tensors inside is not known when the model is compiled");
  uint32_t axis;
  CMZ_TRY(cmz_infer_axis(m, n, a->i, t.rank + stack, &axis));
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < t.rank + stack; i++) {
    if (i == axis) shape[i] = CMZ_DIM_NONE;
    else shape[i] = t.shape[stack && i > axis ? i - 1 : i];
  }
  t.rank += stack;
  t.shape = shape;
  return set_element(m, n, &t);
}

/* ---- SequenceMap ---- */

static cmz_status map_body(cmz_module *m, cmz_nid n, cmz_gid *g) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_attr *a = cmz_node_attr(node, "body");
  if (!a || a->kind != CMZ_ATTR_GRAPH)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute body is missing");
  *g = a->graph;
  if (cmz_graph_get(m, *g)->inputs.count != node->input_count ||
      cmz_graph_get(m, *g)->outputs.count < node->output_count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the body's inputs and outputs do not fit the node");
  return CMZ_OK;
}

static cmz_status infer_map(cmz_module *m, cmz_nid n) {
  cmz_gid g = 0;
  CMZ_TRY(map_body(m, n, &g));
  cmz_type t;
  CMZ_TRY(need_sequence(m, n, 0, &t));
  uint32_t count = cmz_node_get(m, n)->input_count;
  for (uint32_t i = 0; i < count; i++) {
    const cmz_type *given = cmz_input_type(m, cmz_node_get(m, n), i);
    cmz_vid in = cmz_graph_get(m, g)->inputs.data[i];
    if (!given) return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u is absent", i);
    t = *given;
    if (t.kind & CMZ_KIND_OPTIONAL || t.rank == CMZ_RANK_UNKNOWN)
      return cmz_node_fail(
          m, n, CMZ_E_UNSUPPORTED,
          "the rank of what input %u holds is not known when the model is compiled", i);
    cmz_dim shape[CMZ_MAX_RANK];
    for (uint32_t j = 0; j < t.rank; j++)
      shape[j] = t.shape[j] ? t.shape[j] : cmz_output_symbol(m, in, j, 0, INT64_MAX);
    cmz_value_set_type(m, in, t.dtype, t.rank, shape);
  }
  CMZ_TRY(cmz_infer_graph(m, g));
  for (uint32_t i = 0; i < cmz_node_get(m, n)->output_count; i++) {
    cmz_vid out = cmz_ops_output(m, n, i);
    t = *cmz_ops_type(m, cmz_graph_get(m, g)->outputs.data[i]);
    if (!out) continue;
    if (t.kind != CMZ_KIND_TENSOR)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "output %u of the body is not a tensor", i);
    cmz_dim shape[CMZ_MAX_RANK];
    for (uint32_t j = 0; j < t.rank; j++)
      shape[j] = cmz_dim_is_data_dependent(m->dims, t.shape[j]) ? CMZ_DIM_NONE : t.shape[j];
    t.kind = CMZ_KIND_SEQUENCE;
    t.shape = shape;
    cmz_value_set_full_type(m, out, &t);
  }
  return CMZ_OK;
}

/* The body's inputs become the tensors at the loop's position (or what is the same in every round).
 */
static void bind_body(cmz_module *m, cmz_gid g, const cmz_node *map, cmz_vid position,
                      const cmz_vid *old) {
  for (uint32_t i = 0; i < map->input_count; i++) {
    cmz_vid v = map->inputs[i];
    if (cmz_ops_type(m, v)->kind & CMZ_KIND_SEQUENCE) {
      v = cmz_value_add(m, g, NULL);
      cmz_node_add(m, g, cmz_op_get("SequenceAt"), map->name, 2,
                   (cmz_vid[]){map->inputs[i], position}, 1, &v);
    }
    cmz_value_replace_uses(m, old[i], v);
    cmz_value_get(m, old[i])->removed = true;
    for (uint32_t s = 0; s < cmz_dim_symbol_count(m->dims); s++) {
      cmz_symbol *symbol = cmz_dim_symbol_at(m->dims, s);
      if (symbol->origin == CMZ_SYMBOL_DATA && symbol->value == old[i]) symbol->value = 0;
    }
  }
}

/* A Loop over the positions of the first sequence, which carries the sequences that grow. */
static cmz_status expand_map(cmz_module *m, cmz_nid n) {
  cmz_gid g = 0;
  CMZ_TRY(map_body(m, n, &g));
  const cmz_node map = *cmz_node_get(m, n);
  uint32_t results = cmz_graph_get(m, g)->outputs.count;
  cmz_vid *initial = CMZ_NEW_ARRAY(m->arena, cmz_vid, results + 2),
          *outputs = CMZ_NEW_ARRAY(m->arena, cmz_vid, results + 1),
          *old = cmz_arena_copy(m->arena, cmz_graph_get(m, g)->inputs.data,
                                map.input_count * sizeof(cmz_vid));
  initial[0] = cmz_build1(m, n, "SequenceLength", map.inputs[0]);
  for (uint32_t i = 0; i < results; i++) {
    cmz_vid out = cmz_graph_get(m, g)->outputs.data[i];
    cmz_attr dtype = cmz_attr_int("dtype", cmz_ops_type(m, out)->dtype);
    initial[2 + i] = cmz_build_with(m, n, "SequenceEmpty", 0, NULL, 1, &dtype);
    outputs[i] = cmz_value_add(m, map.graph, NULL);
  }
  cmz_graph_get(m, g)->inputs.count = 0;
  cmz_vid position = cmz_value_add_input(m, g, NULL);
  cmz_value_add_input(m, g, NULL);
  bind_body(m, g, &map, position, old);
  cmz_vid *made =
      cmz_arena_copy(m->arena, cmz_graph_get(m, g)->outputs.data, results * sizeof(cmz_vid));
  for (uint32_t i = 0; i < results; i++) cmz_value_get(m, made[i])->output_uses--;
  cmz_graph_get(m, g)->outputs.count = cmz_graph_get(m, g)->output_names.count = 0;
  cmz_graph_add_output(m, g, cmz_value_add_scalar(m, g, CMZ_BOOL, 1));
  for (uint32_t i = 0; i < results; i++) {
    cmz_vid grown = cmz_value_add(m, g, NULL), so_far = cmz_value_add_input(m, g, NULL);
    cmz_node_add(m, g, cmz_op_get("SequenceInsert"), map.name, 2, (cmz_vid[]){so_far, made[i]}, 1,
                 &grown);
    cmz_graph_add_output(m, g, grown);
  }
  CMZ_TRY(cmz_graph_sort(m, g));
  cmz_nid loop =
      cmz_node_insert(m, n, cmz_op_get("Loop"), map.name, 2 + results, initial, results, outputs);
  cmz_node_remove_attr(m, n, "body");
  cmz_attr body = {.name = "body", .kind = CMZ_ATTR_GRAPH, .graph = g};
  cmz_node_set_attr(m, loop, &body);
  cmz_graph_get(m, g)->owner = loop;
  cmz_node_add_source(m, loop, n);
  CMZ_TRY(cmz_infer_node(m, loop));
  for (uint32_t i = 0; i < map.output_count; i++)
    if (map.outputs[i]) cmz_value_replace_uses(m, map.outputs[i], outputs[i]);
  cmz_node_remove(m, n);
  return CMZ_OK;
}

/* ---- optionals ---- */

static cmz_status infer_optional(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  cmz_type t = {.rank = CMZ_RANK_UNKNOWN, .vacant = true};
  if (x) {
    t = *x;
  } else {
    const cmz_attr *a = cmz_node_attr(node, "type");
    if (!a || a->kind != CMZ_ATTR_TYPE || a->i < 0 || a->i >= CMZ_DTYPE_COUNT)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "neither an input nor a type");
    t.kind = (cmz_kind)(a->count & CMZ_KIND_SEQUENCE);
    t.dtype = (cmz_dtype)a->i;
  }
  if (t.kind & CMZ_KIND_OPTIONAL)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "an optional of an optional");
  t.kind = (cmz_kind)(t.kind | CMZ_KIND_OPTIONAL);
  set_type(m, n, &t);
  return CMZ_OK;
}

static cmz_status infer_has_element(cmz_module *m, cmz_nid n) {
  cmz_set_output(m, n, 0, CMZ_BOOL, 0, NULL);
  return CMZ_OK;
}

static cmz_status infer_get_element(cmz_module *m, cmz_nid n) {
  cmz_type t = *cmz_input_type(m, cmz_node_get(m, n), 0);
  if (t.kind & CMZ_KIND_SEQUENCE || t.kind == CMZ_KIND_TENSOR) {
    t.kind = (cmz_kind)(t.kind & CMZ_KIND_SEQUENCE);
    set_type(m, n, &t);
    return CMZ_OK;
  }
  return set_element(m, n, &t);
}

#define ROW(NAME, MIN, MAX, SINCE, FUNCTION, EXPAND, RUNTIME, ...)                                 \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,            \
    .max_outputs = 1, .since = SINCE, .flags = CMZ_OP_RUNTIME | CMZ_OP_VALUES,                     \
    .infer = infer_##FUNCTION, .expand = EXPAND, .runtime = RUNTIME, ##__VA_ARGS__                 \
  }

const cmz_op cmz_ops_sequence[] = {
    ROW("SequenceEmpty", 0, 0, 11, empty, NULL, "sequence_empty", .attributes = "dtype:i"),
    ROW("SequenceConstruct", 1, 255, 11, construct, expand_construct, "sequence_construct"),
    ROW("SequenceInsert", 2, 3, 11, insert, NULL, "sequence_insert"),
    ROW("SequenceErase", 1, 2, 11, erase, NULL, "sequence_erase"),
    ROW("SplitToSequence", 1, 2, 11, split, NULL, "split_to_sequence",
        .attributes = "axis:i keepdims:i"),
    ROW("SequenceAt", 2, 2, 11, at, NULL, "sequence_at"),
    ROW("SequenceLength", 1, 1, 11, length, NULL, "sequence_length"),
    ROW("ConcatFromSequence", 1, 1, 11, concat, NULL, "concat_from_sequence",
        .attributes = "axis:i! new_axis:i"),
    ROW("Optional", 0, 1, 15, optional, NULL, "optional", .attributes = "type:p"),
    ROW("OptionalHasElement", 0, 1, 15, has_element, NULL, "optional_has_element"),
    ROW("OptionalGetElement", 1, 1, 15, get_element, NULL, "optional_get_element"),
    {.name = "SequenceMap",
     .domain = "",
     .min_inputs = 1,
     .max_inputs = 255,
     .min_outputs = 1,
     .max_outputs = 255,
     .since = 17,
     .flags = CMZ_OP_VALUES,
     .infer = infer_map,
     .expand = expand_map,
     .attributes = "body:g!"},
    {.name = NULL},
};
