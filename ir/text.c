/* text.c - a module as text (.cmz), for --print-after, tests and hand-written modules; parse.c
 * reads it back. In: a module. Out: text, and the bytes of large constants in a second text. Always
 * holds: values, graphs and nodes are numbered anew in order of appearance, without what was
 * removed, so that printing what was parsed gives the same text.
 *
 * The grammar ("#" starts a comment; line breaks are blanks; docs/cmz-text.md explains it):
 *
 *   module = "cmz" "1" "module" string "file" string "opset" int "ir" int
 *            "graphs" int "values" int {symbol} {graph}
 *   symbol = "symbol" string ("input" | "data" VALUE int) bound bound "hint" int ["check"]
 *   bound  = int | "inf" | "-inf"
 *   graph  = "graph" GRAPH string ["entry"] "{" {line} "}"
 *   line   = "input" value | "constant" value "=" data | "value" value | node
 *          | "output" (VALUE | "_") ["as" string]
 *   value  = VALUE string ":" type ["layout" {"{" int "," int "," int "}"}]
 *            ["elements" "[" dims "]"]
 *   type   = ["optional"] ["sequence"] ["vacant"] dtype "[" (dims | "*") "]"
 *   dims   = [dim {"," dim}]                         dim: dim_text.c's expressions, "?" unknown
 *   data   = "[" numbers "]" | "strings" "[" strings "]" | "hex" string
 *          | "weights" int int | "elided" int string
 *   node   = [output {"," output} "="] op "(" [input {"," input}] ")" ["{" attr {"," attr} "}"]
 *            ["opset" int] "name" string ["sources" "[" strings "]"]
 *   output = value | "_"                             input = VALUE | "_"
 *   op     = string ["^" int]                        "Name" or "domain::Name", ^ since version
 *   attr   = string ":" ( "int" int | "float" number | "string" string | "tensor" type "=" data
 *          | "graph" GRAPH | "type" int | "ints" "[" … "]" | "floats" "[" … "]"
 *          | "strings" "[" strings "]" )
 *   VALUE  = "%" int                                 GRAPH = "@" int
 *
 * Strings have the escapes \" \\ \n and \xHH. */
#include "text_form.h"

typedef struct printer {
  const cmz_module *m;
  cmz_text *text, *weights;
  cmz_arena *scratch;
  uint32_t *value_number, *graph_number; /* 0: not printed */
  uint64_t *weight_offset;               /* by constant: offset in WEIGHTS + 1 */
  uint32_t value_count, graph_count;
} printer;

static void print_string(cmz_text *text, const char *s, size_t size) {
  cmz_text_add(text, "\"");
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c == '"' || c == '\\') cmz_text_add(text, "\\%c", c);
    else if (c == '\n') cmz_text_add(text, "\\n");
    else if (c < 0x20 || c == 0x7f) cmz_text_add(text, "\\x%02x", (unsigned)c);
    else cmz_text_add_bytes(text, &s[i], 1);
  }
  cmz_text_add(text, "\"");
}

static void print_name(cmz_text *text, const char *s) { print_string(text, s, strlen(s)); }

static void print_strings(cmz_text *text, const char *const *strings, size_t count) {
  cmz_text_add(text, "[");
  for (size_t i = 0; i < count; i++) {
    if (i) cmz_text_add(text, ", ");
    print_name(text, strings[i]);
  }
  cmz_text_add(text, "]");
}

/* ---- numbering ---- */

static bool graph_is_printed(const cmz_module *m, cmz_gid g) {
  for (uint32_t steps = 0; g && steps <= m->graphs.count; steps++) {
    const cmz_graph *graph = cmz_graph_get(m, g);
    if (!graph->owner) {
      for (uint32_t i = 0; i < m->entries.count; i++)
        if (m->entries.data[i] == g) return true;
      return m->entries.count == 0;
    }
    if (cmz_node_get(m, graph->owner)->removed) return false;
    g = graph->parent;
  }
  return false;
}

static void number_value(printer *s, cmz_vid v) {
  if (v && !s->value_number[v]) s->value_number[v] = ++s->value_count;
}

/* Values that are neither inputs nor produced: constants, and whatever else is read. */
static bool is_loose(const cmz_value *value) {
  return !value->removed && !value->is_input && !value->producer &&
         (value->constant || value->uses.count || value->output_uses);
}

static void number_all(printer *s) {
  const cmz_module *m = s->m;
  CMZ_VEC(cmz_vid) *loose = cmz_arena_array(s->scratch, m->graphs.count, sizeof *loose);
  for (cmz_vid v = 1; v < m->values.count; v++)
    if (is_loose(cmz_value_get(m, v)))
      cmz_vec_push(s->scratch, &loose[cmz_value_get(m, v)->graph], v);
  for (cmz_gid g = 1; g < m->graphs.count; g++) {
    if (!graph_is_printed(m, g)) continue;
    s->graph_number[g] = ++s->graph_count;
    const cmz_graph *graph = cmz_graph_get(m, g);
    for (uint32_t i = 0; i < graph->inputs.count; i++) number_value(s, graph->inputs.data[i]);
    for (uint32_t i = 0; i < loose[g].count; i++) number_value(s, loose[g].data[i]);
    for (cmz_graph_each(m, g, n))
      for (uint32_t i = 0; i < cmz_node_get(m, n)->output_count; i++)
        number_value(s, cmz_node_get(m, n)->outputs[i]);
  }
}

/* ---- types and data ---- */

static void print_type(printer *s, const cmz_type *type) {
  static const char *const kinds[] = {"", "sequence ", "optional ", "optional sequence "};
  cmz_text_add(s->text, "%s%s%s[", kinds[type->kind], type->vacant ? "vacant " : "",
               cmz_dtype_info(type->dtype)->name);
  if (type->rank == CMZ_RANK_UNKNOWN) cmz_text_add(s->text, "*");
  for (uint32_t i = 0; type->rank != CMZ_RANK_UNKNOWN && i < type->rank; i++) {
    if (i) cmz_text_add(s->text, ", ");
    cmz_dim_print(s->m->dims, type->shape[i], s->text);
  }
  cmz_text_add(s->text, "]");
}

static size_t constant_count(const cmz_constant *c) {
  size_t count = 1;
  for (uint32_t i = 0; i < c->rank; i++)
    if (c->shape[i] < 0 || !cmz_mul_size(count, (size_t)c->shape[i], &count)) return SIZE_MAX;
  return count;
}

static void print_number(cmz_text *text, cmz_dtype dtype, const void *data, size_t i) {
  if (!cmz_dtype_is_float(dtype)) {
    int64_t value = cmz_dtype_get_i64(dtype, data, i);
    if (dtype == CMZ_U64) cmz_text_add(text, "%" PRIu64, (uint64_t)value);
    else cmz_text_add(text, "%" PRId64, value);
    return;
  }
  cmz_text_add(text, dtype == CMZ_F64 ? "%.17g" : "%.9g", cmz_dtype_get_f64(dtype, data, i));
}

/* Whether decimal numbers give back every bit: not for NaNs with a payload, complex numbers,
 * padding. */
static bool numbers_suffice(const cmz_constant *c, size_t count) {
  size_t bytes;
  uint8_t again[CMZ_TEXT_INLINE_BYTES] = {0};
  if (c->layout.count || cmz_dtype_info(c->dtype)->class_ == CMZ_CLASS_COMPLEX) return false;
  if (!cmz_dtype_bytes(c->dtype, count, &bytes) || bytes != c->bytes || bytes > sizeof again)
    return false;
  for (size_t i = 0; i < count; i++) {
    if (cmz_dtype_is_float(c->dtype))
      cmz_dtype_set_f64(c->dtype, again, i, cmz_dtype_get_f64(c->dtype, c->data, i));
    else cmz_dtype_set_i64(c->dtype, again, i, cmz_dtype_get_i64(c->dtype, c->data, i));
  }
  return bytes == 0 || memcmp(again, c->data, bytes) == 0;
}

static void print_reference(printer *s, cmz_cid id, const cmz_constant *c) {
  if (!s->weights) {
    cmz_hash128 hash = cmz_hash_bytes(c->data, c->bytes);
    cmz_text_add(s->text, "elided %zu \"%016" PRIx64 "%016" PRIx64 "\"", c->bytes, hash.hi,
                 hash.lo);
    return;
  }
  if (!s->weight_offset[id]) {
    static const uint8_t padding[64] = {0};
    cmz_text_add_bytes(s->weights, padding,
                       cmz_align_up(s->weights->length, 64) - s->weights->length);
    s->weight_offset[id] = s->weights->length + 1;
    cmz_text_add_bytes(s->weights, c->data, c->bytes);
  }
  cmz_text_add(s->text, "weights %" PRIu64 " %zu", s->weight_offset[id] - 1, c->bytes);
}

static void print_data(printer *s, cmz_cid id) {
  const cmz_constant *c = cmz_constant_get(s->m, id);
  size_t count = constant_count(c);
  if (c->dtype == CMZ_STRING) {
    cmz_text_add(s->text, "strings ");
    print_strings(s->text, c->data, count == SIZE_MAX || !c->data ? 0 : count);
  } else if (c->bytes > CMZ_TEXT_INLINE_BYTES) {
    print_reference(s, id, c);
  } else if (numbers_suffice(c, count)) {
    cmz_text_add(s->text, "[");
    for (size_t i = 0; i < count; i++) {
      if (i) cmz_text_add(s->text, ", ");
      print_number(s->text, c->dtype, c->data, i);
    }
    cmz_text_add(s->text, "]");
  } else {
    cmz_text_add(s->text, "hex \"");
    for (size_t i = 0; i < c->bytes; i++)
      cmz_text_add(s->text, "%02x", ((const uint8_t *)c->data)[i]);
    cmz_text_add(s->text, "\"");
  }
}

static void print_value(printer *s, cmz_vid v) {
  const cmz_value *value = cmz_value_get(s->m, v);
  cmz_text_add(s->text, "%%%u ", s->value_number[v]);
  print_name(s->text, value->name);
  cmz_text_add(s->text, " : ");
  print_type(s, &value->type);
  if (value->layout.count) {
    cmz_text_add(s->text, " layout ");
    cmz_layout_print(&value->layout, s->text);
  }
  if (!value->elements || value->constant) return; /* those of constants follow from their data */
  cmz_text_add(s->text, " elements [");
  for (uint32_t i = 0; i < value->element_count; i++) {
    if (i) cmz_text_add(s->text, ", ");
    cmz_dim_print(s->m->dims, value->elements[i], s->text);
  }
  cmz_text_add(s->text, "]");
}

/* ---- nodes ---- */

static void print_tensor_attr(printer *s, const cmz_attr *a) {
  const cmz_constant *c = cmz_constant_get(s->m, a->tensor);
  cmz_text_add(s->text, "tensor %s[", cmz_dtype_info(c->dtype)->name);
  for (uint32_t i = 0; i < c->rank; i++)
    cmz_text_add(s->text, "%s%" PRId64, i ? ", " : "", c->shape[i]);
  cmz_text_add(s->text, "] = ");
  print_data(s, a->tensor);
}

static void print_attr(printer *s, const cmz_attr *a) {
  print_name(s->text, a->name);
  cmz_text_add(s->text, ": ");
  switch (a->kind) {
  case CMZ_ATTR_INT:
    cmz_text_add(s->text, "int %" PRId64, a->i);
    break;
  case CMZ_ATTR_FLOAT:
    cmz_text_add(s->text, "float %.17g", a->f);
    break;
  case CMZ_ATTR_STRING:
    cmz_text_add(s->text, "string ");
    print_string(s->text, a->s, a->s ? a->s_size : 0);
    break;
  case CMZ_ATTR_TENSOR:
    print_tensor_attr(s, a);
    break;
  case CMZ_ATTR_GRAPH:
    cmz_text_add(s->text, "graph @%u", s->graph_number[a->graph]);
    break;
  case CMZ_ATTR_TYPE:
    cmz_text_add(s->text, "type %" PRId64, a->i);
    break;
  case CMZ_ATTR_STRINGS:
    cmz_text_add(s->text, "strings ");
    print_strings(s->text, a->strings, a->count);
    break;
  case CMZ_ATTR_INTS:
  case CMZ_ATTR_FLOATS:
    cmz_text_add(s->text, a->kind == CMZ_ATTR_INTS ? "ints [" : "floats [");
    for (uint32_t i = 0; i < a->count; i++) {
      if (i) cmz_text_add(s->text, ", ");
      if (a->kind == CMZ_ATTR_INTS) cmz_text_add(s->text, "%" PRId64, a->ints[i]);
      else cmz_text_add(s->text, "%.17g", a->floats[i]);
    }
    cmz_text_add(s->text, "]");
  }
}

const struct cmz_op *cmz_text_find_op(const char *domain, const char *name, uint32_t opset,
                                      uint32_t since) {
  const cmz_op *found = NULL, *op;
  for (uint32_t i = 0; (op = cmz_op_at(i)) != NULL; i++) {
    if (strcmp(op->name, name) != 0 || strcmp(op->domain, domain) != 0) continue;
    if (since   ? op->since == since
        : opset ? op->since <= opset && (!op->until || opset <= op->until)
                : !op->until)
      return op;
    if (!since && !found) found = op;
  }
  return found;
}

static void print_op(printer *s, const cmz_node *node) {
  const cmz_op *op = node->op;
  cmz_text_add(s->text, "\"%s%s%s\"", op->domain, op->domain[0] ? "::" : "", op->name);
  if (cmz_text_find_op(op->domain, op->name, node->opset, 0) != op)
    cmz_text_add(s->text, "^%u", op->since);
}

static void print_node(printer *s, cmz_nid n) {
  const cmz_node *node = cmz_node_get(s->m, n);
  cmz_text_add(s->text, "  ");
  for (uint32_t i = 0; i < node->output_count; i++) {
    if (i) cmz_text_add(s->text, ", ");
    if (node->outputs[i]) print_value(s, node->outputs[i]);
    else cmz_text_add(s->text, "_");
  }
  if (node->output_count) cmz_text_add(s->text, " = ");
  print_op(s, node);
  cmz_text_add(s->text, "(");
  for (uint32_t i = 0; i < node->input_count; i++) {
    if (i) cmz_text_add(s->text, ", ");
    if (node->inputs[i]) cmz_text_add(s->text, "%%%u", s->value_number[node->inputs[i]]);
    else cmz_text_add(s->text, "_");
  }
  cmz_text_add(s->text, ")");
  for (uint32_t i = 0; i < node->attr_count; i++) {
    cmz_text_add(s->text, i ? ", " : " {");
    print_attr(s, &node->attrs[i]);
  }
  if (node->attr_count) cmz_text_add(s->text, "}");
  if (node->opset) cmz_text_add(s->text, " opset %u", node->opset);
  cmz_text_add(s->text, " name ");
  print_name(s->text, node->name);
  if (node->source_count) {
    cmz_text_add(s->text, " sources ");
    print_strings(s->text, node->sources, node->source_count);
  }
  cmz_text_add(s->text, "\n");
}

static bool is_entry(const cmz_module *m, cmz_gid g) {
  for (uint32_t i = 0; i < m->entries.count; i++)
    if (m->entries.data[i] == g) return true;
  return false;
}

static void print_loose_values(printer *s, const cmz_vid *by_number, cmz_gid g) {
  for (uint32_t i = 1; i <= s->value_count; i++) {
    const cmz_value *value = cmz_value_get(s->m, by_number[i]);
    if (value->graph != g || !is_loose(value)) continue;
    cmz_text_add(s->text, value->constant ? "  constant " : "  value ");
    print_value(s, by_number[i]);
    if (value->constant) {
      cmz_text_add(s->text, " = ");
      print_data(s, value->constant);
    }
    cmz_text_add(s->text, "\n");
  }
}

static void print_graph(printer *s, const cmz_vid *by_number, cmz_gid g) {
  const cmz_graph *graph = cmz_graph_get(s->m, g);
  cmz_text_add(s->text, "graph @%u ", s->graph_number[g]);
  print_name(s->text, graph->name);
  cmz_text_add(s->text, is_entry(s->m, g) ? " entry {\n" : " {\n");
  for (uint32_t i = 0; i < graph->inputs.count; i++) {
    cmz_text_add(s->text, "  input ");
    print_value(s, graph->inputs.data[i]);
    cmz_text_add(s->text, "\n");
  }
  print_loose_values(s, by_number, g);
  for (cmz_graph_each(s->m, g, n)) print_node(s, n);
  for (uint32_t i = 0; i < graph->outputs.count; i++) {
    cmz_vid v = graph->outputs.data[i];
    if (v) cmz_text_add(s->text, "  output %%%u", s->value_number[v]);
    else cmz_text_add(s->text, "  output _");
    const char *name = i < graph->output_names.count ? graph->output_names.data[i] : NULL;
    if (v && name && strcmp(name, cmz_value_get(s->m, v)->name)) {
      cmz_text_add(s->text, " as ");
      print_name(s->text, name);
    }
    cmz_text_add(s->text, "\n");
  }
  cmz_text_add(s->text, "}\n");
}

static void print_bound(cmz_text *text, int64_t bound) {
  if (bound == INT64_MIN || bound == INT64_MAX) cmz_text_add(text, bound < 0 ? " -inf" : " inf");
  else cmz_text_add(text, " %" PRId64, bound);
}

static void print_symbols(printer *s) {
  for (uint32_t i = 0; i < cmz_dim_symbol_count(s->m->dims); i++) {
    const cmz_symbol *symbol = cmz_dim_symbol_of(s->m->dims, cmz_dim_symbol_id(s->m->dims, i));
    cmz_text_add(s->text, "symbol ");
    print_name(s->text, symbol->name);
    if (symbol->origin == CMZ_SYMBOL_INPUT) cmz_text_add(s->text, " input");
    else {
      uint32_t number = symbol->value < s->m->values.count ? s->value_number[symbol->value] : 0;
      cmz_text_add(s->text, " data %%%u %" PRId64, number, symbol->element);
    }
    print_bound(s->text, symbol->low);
    print_bound(s->text, symbol->high);
    cmz_text_add(s->text, " hint %" PRId64 "%s\n", symbol->hint, symbol->check ? " check" : "");
  }
}

void cmz_module_print(const cmz_module *m, cmz_text *text, cmz_text *weights) {
  printer s = {.m = m, .text = text, .weights = weights, .scratch = cmz_arena_create(m->ctx)};
  s.value_number = CMZ_NEW_ARRAY(s.scratch, uint32_t, m->values.count);
  s.graph_number = CMZ_NEW_ARRAY(s.scratch, uint32_t, m->graphs.count);
  s.weight_offset = CMZ_NEW_ARRAY(s.scratch, uint64_t, m->constants.count);
  number_all(&s);
  cmz_vid *by_number = CMZ_NEW_ARRAY(s.scratch, cmz_vid, (size_t)s.value_count + 1);
  for (cmz_vid v = 1; v < m->values.count; v++) by_number[s.value_number[v]] = v;
  cmz_text_add(text, "cmz 1 module ");
  print_name(text, m->name);
  cmz_text_add(text, " file ");
  print_name(text, m->file);
  cmz_text_add(text, " opset %u ir %" PRId64 " graphs %u values %u\n", m->opset, m->ir_version,
               s.graph_count, s.value_count);
  print_symbols(&s);
  for (cmz_gid g = 1; g < m->graphs.count; g++)
    if (s.graph_number[g]) print_graph(&s, by_number, g);
  cmz_arena_destroy(s.scratch);
}
