/* strings.c - operators on tensors of strings, and those that look values up.
 * In: nodes of these operators. Out: their types; the runtime's ops_string.c, ops_regex.c and
 * ops_label.c compute them. Always holds: attributes that are texts or lists have become constant
 * inputs by normalisation, for the run reads numbers only from attributes. What only moves strings
 * (Gather, Concat, Reshape, Where …) needs nothing here: kernels move them as pointers. */
#include "ops.h"

/* ---- attributes to constants ---- */

static cmz_vid add_texts(cmz_module *m, cmz_nid n, const char *const *texts, uint32_t count,
                         bool scalar) {
  int64_t shape = count;
  const char **copy = CMZ_NEW_ARRAY(m->arena, const char *, count + 1);
  for (uint32_t i = 0; i < count; i++) copy[i] = texts[i];
  return cmz_value_add_constant(m, cmz_node_get(m, n)->graph, NULL, CMZ_STRING, scalar ? 0 : 1,
                                &shape, copy, count * sizeof *copy);
}

/* Attribute NAME as a constant: a tensor, or the list or number as one; 0 when absent. */
static cmz_vid attribute_constant(cmz_module *m, cmz_nid n, const char *name) {
  const cmz_attr *a = cmz_node_attr(cmz_node_get(m, n), name);
  if (!a) return 0;
  int64_t shape = a->count;
  cmz_gid g = cmz_node_get(m, n)->graph;
  switch (a->kind) {
  case CMZ_ATTR_STRING:
    return add_texts(m, n, &a->s, 1, true);
  case CMZ_ATTR_STRINGS:
    return add_texts(m, n, a->strings, a->count, false);
  case CMZ_ATTR_INTS:
    return cmz_value_add_i64s(m, g, a->ints, a->count);
  case CMZ_ATTR_INT:
    return cmz_value_add_scalar(m, g, CMZ_I64, (double)a->i);
  case CMZ_ATTR_FLOAT:
    return cmz_value_add_scalar(m, g, CMZ_F32, a->f);
  case CMZ_ATTR_FLOATS:
    return cmz_build_floats(m, n, CMZ_F32, 1, &shape, a->floats);
  case CMZ_ATTR_TENSOR: {
    const cmz_constant c = *cmz_constant_get(m, a->tensor);
    return cmz_value_add_constant(m, g, NULL, c.dtype, c.rank, c.shape, c.data, c.bytes);
  }
  default:
    return 0;
  }
}

/* Attribute NAME becomes input INDEX, which no model may give. */
static cmz_status take_attribute(cmz_module *m, cmz_nid n, uint32_t index, const char *name) {
  if (cmz_ops_input(m, n, index))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "has more inputs than the operator takes");
  cmz_vid v = attribute_constant(m, n, name);
  if (v) cmz_node_set_input(m, n, index, v);
  cmz_node_remove_attr(m, n, name);
  return CMZ_OK;
}

static bool is_current(const cmz_module *m, cmz_nid n) { return cmz_node_get(m, n)->opset == 0; }

static cmz_status need_strings(cmz_module *m, cmz_nid n, uint32_t input) {
  const cmz_type *t = cmz_input_type(m, cmz_node_get(m, n), input);
  if (!t || (t->kind == CMZ_KIND_TENSOR && t->dtype == CMZ_STRING)) return CMZ_OK;
  return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u is not a tensor of strings", input);
}

/* ---- StringConcat, Equal on strings ---- */

static cmz_status infer_pair(cmz_module *m, cmz_nid n, cmz_dtype result) {
  CMZ_TRY(need_strings(m, n, 0));
  CMZ_TRY(need_strings(m, n, 1));
  cmz_dim shape[CMZ_MAX_RANK];
  uint32_t rank = 0;
  CMZ_TRY(cmz_infer_broadcast(m, n, 0, 2, shape, &rank));
  cmz_set_output(m, n, 0, result, rank, shape);
  return CMZ_OK;
}

static cmz_status infer_string_concat(cmz_module *m, cmz_nid n) {
  return infer_pair(m, n, CMZ_STRING);
}

static cmz_status infer_string_equal(cmz_module *m, cmz_nid n) {
  return infer_pair(m, n, CMZ_BOOL);
}

/* ---- Cast from and to strings ---- */

static cmz_status infer_string_cast(cmz_module *m, cmz_nid n) {
  return cmz_infer_same(m, n, 0, 0, (cmz_dtype)cmz_node_int(cmz_node_get(m, n), "to", CMZ_STRING));
}

/* ---- StringSplit ---- */

static cmz_status normalize_split(cmz_module *m, cmz_nid n) {
  return is_current(m, n) ? CMZ_OK : take_attribute(m, n, 1, "delimiter");
}

static cmz_status infer_split(cmz_module *m, cmz_nid n) {
  CMZ_TRY(need_strings(m, n, 0));
  CMZ_TRY(need_strings(m, n, 1));
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  cmz_vid parts = cmz_ops_output(m, n, 0);
  if (x.rank + 1 > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the rank is too large");
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++) shape[i] = x.shape[i];
  if (parts) {
    shape[x.rank] = cmz_output_symbol(m, parts, x.rank, 0, INT64_MAX);
    cmz_value_set_type(m, parts, CMZ_STRING, x.rank + 1, shape);
  }
  cmz_set_output(m, n, 1, CMZ_I64, x.rank, shape);
  return CMZ_OK;
}

/* ---- StringNormalizer ---- */

static cmz_status normalize_normalizer(cmz_module *m, cmz_nid n) {
  static const char *const actions[] = {"NONE", "LOWER", "UPPER"};
  if (is_current(m, n)) return CMZ_OK;
  const char *action = cmz_node_string(cmz_node_get(m, n), "case_change_action", "NONE");
  int64_t which = -1;
  for (size_t i = 0; i < CMZ_COUNT_OF(actions); i++)
    if (!strcmp(action, actions[i])) which = (int64_t)i;
  if (which < 0) return cmz_node_fail(m, n, CMZ_E_INPUT, "case_change_action is \"%s\"", action);
  cmz_node_set_int(m, n, "case_change_action", which);
  return take_attribute(m, n, 1, "stopwords");
}

static cmz_status infer_normalizer(cmz_module *m, cmz_nid n) {
  CMZ_TRY(need_strings(m, n, 0));
  CMZ_TRY(need_strings(m, n, 1));
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0);
  cmz_vid out = cmz_node_output(node, 0);
  if (x.rank != 1 && !(x.rank == 2 && !cmz_dims_differ(m, x.shape[0], cmz_dim_const(m->dims, 1))))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the input is neither [C] nor [1, C]");
  if (!out) return CMZ_OK;
  cmz_dim shape[2] = {cmz_dim_const(m->dims, 1), cmz_dim_const(m->dims, 1)};
  int64_t given;
  bool all = !cmz_node_input(node, 1) && cmz_dim_is_const(m->dims, x.shape[x.rank - 1], &given) &&
             given > 0;
  shape[x.rank - 1] =
      all ? x.shape[x.rank - 1] : cmz_output_symbol(m, out, x.rank - 1, 1, INT64_MAX);
  cmz_value_set_type(m, out, CMZ_STRING, x.rank, shape);
  return CMZ_OK;
}

/* ---- RegexFullMatch ---- */

static cmz_status normalize_regex(cmz_module *m, cmz_nid n) {
  if (is_current(m, n)) return CMZ_OK;
  if (cmz_ops_input(m, n, 1))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "has more inputs than the operator takes");
  const char *pattern = cmz_node_string(cmz_node_get(m, n), "pattern", NULL);
  if (!pattern) return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute pattern is missing");
  const int64_t *words;
  uint32_t count;
  CMZ_TRY(cmz_regex_compile(m, n, pattern, &words, &count));
  cmz_node_set_input(m, n, 1, cmz_value_add_i64s(m, cmz_node_get(m, n)->graph, words, count));
  cmz_node_remove_attr(m, n, "pattern");
  return CMZ_OK;
}

static cmz_status infer_regex(cmz_module *m, cmz_nid n) {
  CMZ_TRY(need_strings(m, n, 0));
  if (!cmz_ops_input(m, n, 1))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute pattern is missing");
  return cmz_infer_same(m, n, 0, 0, CMZ_BOOL);
}

/* ---- LabelEncoder, CategoryMapper ---- */

/* A constant of DTYPE with one element: the value of a key that is not there. */
static cmz_vid default_constant(cmz_module *m, cmz_nid n, const char *name, cmz_dtype dtype,
                                const char *text, double number) {
  cmz_vid v = attribute_constant(m, n, name);
  cmz_node_remove_attr(m, n, name);
  if (v) return v;
  if (dtype == CMZ_STRING) return add_texts(m, n, &text, 1, true);
  return cmz_value_add_scalar(m, cmz_node_get(m, n)->graph, dtype, number);
}

/* The first of the attributes PREFIX + suffix that the node has, as a constant, and its suffix. */
static cmz_vid first_of(cmz_module *m, cmz_nid n, const char *prefix, uint32_t *which) {
  static const char *const suffixes[] = {"tensor", "strings", "int64s", "floats"};
  for (*which = 0; *which < CMZ_COUNT_OF(suffixes); ++*which) {
    const char *name = cmz_arena_printf(m->arena, "%s_%s", prefix, suffixes[*which]);
    cmz_vid v = attribute_constant(m, n, name);
    cmz_node_remove_attr(m, n, name);
    if (v) return v;
  }
  return 0;
}

static cmz_status set_table(cmz_module *m, cmz_nid n, cmz_vid keys, cmz_vid values, cmz_vid other) {
  if (!keys || !values || !other)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the keys or the values are missing");
  cmz_node_set_input(m, n, 1, keys);
  cmz_node_set_input(m, n, 2, values);
  cmz_node_set_input(m, n, 3, other);
  return CMZ_OK;
}

/* Version 1, and CategoryMapper: strings to numbers or back, by the type of the input; the table
 * holds both ways and infer turns it round. */
static cmz_status two_way_table(cmz_module *m, cmz_nid n, const char *texts, const char *numbers) {
  const cmz_attr *classes = cmz_node_attr(cmz_node_get(m, n), texts);
  if (!classes || classes->kind != CMZ_ATTR_STRINGS)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute %s is missing", texts);
  cmz_vid keys = attribute_constant(m, n, texts), values = 0;
  if (numbers) {
    values = attribute_constant(m, n, numbers);
    cmz_node_remove_attr(m, n, numbers);
  } else {
    int64_t *order = CMZ_NEW_ARRAY(m->arena, int64_t, classes->count + 1);
    for (uint32_t i = 0; i < classes->count; i++) order[i] = i;
    values = cmz_value_add_i64s(m, cmz_node_get(m, n)->graph, order, classes->count);
  }
  cmz_vid number = default_constant(m, n, "default_int64", CMZ_I64, NULL, -1),
          text = default_constant(m, n, "default_string", CMZ_STRING, "_Unused", 0);
  cmz_node_remove_attr(m, n, texts);
  CMZ_TRY(set_table(m, n, keys, values, number));
  cmz_node_set_input(m, n, 4, text);
  return CMZ_OK;
}

static cmz_status normalize_label(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (node->opset == 0) return CMZ_OK;
  if (cmz_node_input(node, 1))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "has more inputs than the operator takes");
  if (!strcmp(node->op->name, "CategoryMapper"))
    return two_way_table(m, n, "cats_strings", "cats_int64s");
  if (node->opset < 2) return two_way_table(m, n, "classes_strings", NULL);
  uint32_t which;
  cmz_vid keys = first_of(m, n, "keys", &which), values = first_of(m, n, "values", &which);
  if (!keys || !values) return set_table(m, n, keys, values, 0);
  cmz_dtype dtype = cmz_ops_type(m, values)->dtype;
  static const char *const names[] = {"default_tensor", "default_string", "default_int64",
                                      "default_float"};
  bool listed = cmz_node_attr(cmz_node_get(m, n), "default_tensor") == NULL;
  const char *name = names[listed ? (dtype == CMZ_STRING ? 1 : dtype == CMZ_I64 ? 2 : 3) : 0];
  cmz_vid other = default_constant(m, n, name, dtype, "_Unused", dtype == CMZ_F32 ? -0.0 : -1);
  for (size_t i = 0; i < CMZ_COUNT_OF(names); i++) cmz_node_remove_attr(m, n, names[i]);
  return set_table(m, n, keys, values, other);
}

static cmz_status infer_label(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  cmz_dtype x = cmz_input_type(m, &node, 0)->dtype;
  if (cmz_node_input(&node, 4) && x == CMZ_I64) { /* numbers to strings */
    cmz_vid keys = node.inputs[2], values = node.inputs[1], other = node.inputs[4];
    CMZ_TRY(set_table(m, n, keys, values, other));
  }
  if (cmz_node_input(cmz_node_get(m, n), 4)) cmz_node_set_input(m, n, 4, 0);
  const cmz_type *keys = cmz_input_type(m, cmz_node_get(m, n), 1),
                 *values = cmz_input_type(m, cmz_node_get(m, n), 2),
                 *other = cmz_input_type(m, cmz_node_get(m, n), 3);
  if (!keys || !values || !other)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the keys or the values are missing");
  if (keys->dtype != x || other->dtype != values->dtype)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has elements of %s, the keys of %s",
                         cmz_dtype_info(x)->name, cmz_dtype_info(keys->dtype)->name);
  if (cmz_dtype_info(x)->class_ == CMZ_CLASS_COMPLEX ||
      (x != CMZ_STRING && cmz_dtype_info(x)->bits < 8) ||
      (values->dtype != CMZ_STRING && cmz_dtype_info(values->dtype)->bits < 8))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "on elements of type %s is not supported",
                         cmz_dtype_info(x)->name);
  if (!cmz_dim_is(m->dims, cmz_dim_product(m->dims, other->shape, other->rank), 1) ||
      cmz_dim_product(m->dims, keys->shape, keys->rank) !=
          cmz_dim_product(m->dims, values->shape, values->rank))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "there are not as many values as keys");
  return cmz_infer_same(m, n, 0, 0, values->dtype);
}

#define ROW(DOMAIN, NAME, MIN, MAX, OUTPUTS, SINCE, NORMALIZE, FUNCTION, RUNTIME, ...)             \
  {                                                                                                \
    .name = NAME, .domain = DOMAIN, .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,        \
    .max_outputs = OUTPUTS, .since = SINCE, .flags = CMZ_OP_RUNTIME | CMZ_OP_VALUES,               \
    .normalize = NORMALIZE, .infer = infer_##FUNCTION, .runtime = RUNTIME, ##__VA_ARGS__           \
  }

const cmz_op cmz_ops_strings[] = {
    ROW("", "StringConcat", 2, 2, 1, 20, NULL, string_concat, "string_concat"),
    ROW("", "StringSplit", 1, 2, 2, 20, normalize_split, split, "string_split",
        .attributes = "delimiter:s maxsplit:i"),
    ROW("", "StringNormalizer", 1, 2, 1, 10, normalize_normalizer, normalizer, "string_normalizer",
        .attributes = "case_change_action:s is_case_sensitive:i locale:s stopwords:S"),
    ROW("", "RegexFullMatch", 1, 2, 1, 20, normalize_regex, regex, "regex_full_match",
        .attributes = "pattern:s"),
    ROW("cmz", "StringEqual", 2, 2, 1, 1, NULL, string_equal, "string_equal"),
    ROW("cmz", "StringCast", 1, 1, 1, 1, NULL, string_cast, "string_cast"),
    ROW("ai.onnx.ml", "LabelEncoder", 1, 5, 1, 1, normalize_label, label, "label_encoder",
        .attributes =
            "classes_strings:S<2 default_float:f@2 default_int64:i default_string:s "
            "default_tensor:t@4 keys_floats:F@2 keys_int64s:I@2 keys_strings:S@2 keys_tensor:t@4 "
            "values_floats:F@2 values_int64s:I@2 values_strings:S@2 values_tensor:t@4"),
    ROW("ai.onnx.ml", "CategoryMapper", 1, 5, 1, 1, normalize_label, label, "label_encoder",
        .attributes = "cats_int64s:I cats_strings:S default_int64:i default_string:s"),
    {.name = NULL},
};
