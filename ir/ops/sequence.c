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

#define ROW(NAME, MIN, MAX, SINCE, FUNCTION, RUNTIME)                                              \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,            \
    .max_outputs = 1, .since = SINCE, .flags = CMZ_OP_RUNTIME | CMZ_OP_VALUES,                     \
    .infer = infer_##FUNCTION, .runtime = RUNTIME                                                  \
  }

const cmz_op cmz_ops_sequence[] = {
    ROW("SequenceEmpty", 0, 0, 11, empty, "sequence_empty"),
    ROW("SequenceConstruct", 1, 255, 11, construct, "sequence_construct"),
    ROW("SequenceInsert", 2, 3, 11, insert, "sequence_insert"),
    ROW("SequenceErase", 1, 2, 11, erase, "sequence_erase"),
    ROW("SplitToSequence", 1, 2, 11, split, "split_to_sequence"),
    ROW("SequenceAt", 2, 2, 11, at, "sequence_at"),
    ROW("SequenceLength", 1, 1, 11, length, "sequence_length"),
    ROW("ConcatFromSequence", 1, 1, 11, concat, "concat_from_sequence"),
    ROW("Optional", 0, 1, 15, optional, "optional"),
    ROW("OptionalHasElement", 0, 1, 15, has_element, "optional_has_element"),
    ROW("OptionalGetElement", 1, 1, 15, get_element, "optional_get_element"),
    {.name = NULL},
};
