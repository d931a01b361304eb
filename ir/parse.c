/* parse.c - reads the text form of a module (the grammar stands in text.c).
 * In: text, and the file of large constants. Out: a module that passes cmz_module_verify, or an
 * error that names file and line. Always holds: nothing in the text is trusted: ids are checked
 * against the declared counts, which the size of the text bounds, and sizes go through checked
 * arithmetic; nesting only occurs in dims, whose parser limits it. */
#include "text_form.h"

#include <stdlib.h>

typedef struct parser {
  cmz_context *ctx;
  cmz_module *m;
  const char *file;
  const char *start, *at, *end; /* NUL-terminated copy */
  const cmz_file *weights;
  uint8_t *defined; /* by value */
  uint8_t *graph_defined;
  cmz_gid graph; /* being read */
  cmz_status status;
} parser;

/* ---- errors and words ---- */

CMZ_PRINTF(2, 3)
static bool fail(parser *s, const char *format, ...) {
  if (s->status != CMZ_OK) return false; /* the first error is the one that matters */
  uint32_t line = 1;
  for (const char *c = s->start; c < s->at && c < s->end; c++) line += *c == '\n';
  va_list args;
  va_start(args, format);
  const char *message = cmz_arena_vprintf(s->ctx->arena, format, args);
  va_end(args);
  cmz_loc loc = {.file = cmz_arena_printf(s->ctx->arena, "%s:%u", s->file, line)};
  s->status = cmz_fail(s->ctx, CMZ_E_INPUT, loc, "%s", message);
  return false;
}

static void skip_blanks(parser *s) {
  for (;; s->at++) {
    if (*s->at == '#')
      while (*s->at && *s->at != '\n') s->at++;
    if (*s->at != ' ' && *s->at != '\n' && *s->at != '\t' && *s->at != '\r') return;
  }
}

static bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; }

/* Takes WORD if it is next; a word of letters must end there. */
static bool take(parser *s, const char *word) {
  skip_blanks(s);
  size_t length = strlen(word);
  if (strncmp(s->at, word, length) != 0) return false;
  if (is_word(word[length - 1]) && is_word(s->at[length])) return false;
  s->at += length;
  return true;
}

static bool expect(parser *s, const char *word) {
  return take(s, word) || fail(s, "expected `%s`", word);
}

static bool read_int(parser *s, int64_t *value) {
  skip_blanks(s);
  bool negative = *s->at == '-';
  const char *c = s->at + negative;
  if (*c < '0' || *c > '9') return fail(s, "expected an integer");
  int64_t result = 0;
  for (; *c >= '0' && *c <= '9'; c++) {
    int64_t digit = *c - '0';
    if (!cmz_mul_i64(result, 10, &result) ||
        !cmz_add_i64(result, negative ? -digit : digit, &result))
      return fail(s, "the integer does not fit 64 bits");
  }
  s->at = c;
  *value = result;
  return true;
}

static bool read_u32(parser *s, uint32_t *value) {
  int64_t wide;
  if (!read_int(s, &wide)) return false;
  if (wide < 0 || wide > UINT32_MAX) return fail(s, "the number is out of range");
  *value = (uint32_t)wide;
  return true;
}

static bool read_float(parser *s, double *value) {
  skip_blanks(s);
  char *end;
  *value = strtod(s->at, &end);
  if (end == s->at) return fail(s, "expected a number");
  s->at = end;
  return true;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_escape(parser *s, char *out) {
  char c = *s->at++;
  if (c == 'n') *out = '\n';
  else if (c == '"' || c == '\\') *out = c;
  else if (c == 'x') {
    int high = hex_digit(s->at[0]), low = high < 0 ? -1 : hex_digit(s->at[1]);
    if (low < 0) return fail(s, "\\x needs two hexadecimal digits");
    *out = (char)(high * 16 + low);
    s->at += 2;
  } else {
    s->at--;
    return fail(s, "unknown escape in a string");
  }
  return true;
}

/* A string of SIZE bytes, NUL-terminated besides. */
static bool read_bytes(parser *s, const char **out, size_t *size) {
  skip_blanks(s);
  if (*s->at != '"') return fail(s, "expected a string");
  const char *close = s->at + 1;
  while (*close && *close != '"') close += *close == '\\' && close[1] ? 2 : 1;
  if (!*close) return fail(s, "the string does not end");
  char *text = cmz_arena_alloc(s->m->arena, (size_t)(close - s->at));
  size_t used = 0;
  for (s->at++; *s->at != '"';) {
    char c = *s->at++;
    if (c == '\\' && !read_escape(s, &c)) return false;
    text[used++] = c;
  }
  s->at++;
  *out = text;
  *size = used;
  return true;
}

static bool read_string(parser *s, const char **out) {
  size_t size;
  return read_bytes(s, out, &size);
}

/* "[" item { "," item } "]" with READ for each item. */
#define READ_LIST(s, vec, T, read)                                                                 \
  do {                                                                                             \
    if (!expect(s, "[")) return false;                                                             \
    while (!take(s, "]")) {                                                                        \
      T item_;                                                                                     \
      if ((vec)->count > 0 && !expect(s, ",")) return false;                                       \
      if (!read(s, &item_)) return false;                                                          \
      cmz_vec_push((s)->m->arena, vec, item_);                                                     \
    }                                                                                              \
  } while (0)

typedef CMZ_VEC(const char *) string_vec;
typedef CMZ_VEC(int64_t) int_vec;
typedef CMZ_VEC(double) float_vec;
typedef CMZ_VEC(cmz_dim) dim_vec;

static bool read_strings(parser *s, string_vec *out) {
  READ_LIST(s, out, const char *, read_string);
  return true;
}

static bool read_dim(parser *s, cmz_dim *out) {
  skip_blanks(s);
  if (take(s, "?")) {
    *out = CMZ_DIM_NONE;
    return true;
  }
  const char *end;
  *out = cmz_dim_parse(s->m->dims, s->at, &end);
  s->at = end;
  return *out != CMZ_DIM_NONE || fail(s, "expected a dimension (symbols must be declared)");
}

/* %N or @N, N within 1 … COUNT-1. */
static bool read_id(parser *s, const char *sigil, uint32_t count, uint32_t *id) {
  if (!expect(s, sigil) || !read_u32(s, id)) return false;
  return (*id > 0 && *id < count) ||
         fail(s, "%s%u is not among those declared at the top", sigil, *id);
}

/* ---- types and values ---- */

static bool read_dtype(parser *s, cmz_dtype *dtype) {
  skip_blanks(s);
  char name[16];
  size_t length = 0;
  while (is_word(s->at[length]) && length + 1 < sizeof name) length++;
  memcpy(name, s->at, length);
  name[length] = 0;
  *dtype = cmz_dtype_parse(name);
  if (*dtype == CMZ_UNDEFINED && strcmp(name, "undefined") != 0)
    return fail(s, "unknown element type `%s`", name);
  s->at += length;
  return true;
}

static bool read_type(parser *s, cmz_type *type) {
  *type = (cmz_type){.kind = CMZ_KIND_TENSOR, .rank = CMZ_RANK_UNKNOWN};
  bool optional = take(s, "optional"), sequence = take(s, "sequence");
  type->kind = (cmz_kind)((optional ? CMZ_KIND_OPTIONAL : 0) | (sequence ? CMZ_KIND_SEQUENCE : 0));
  type->vacant = type->kind != CMZ_KIND_TENSOR && take(s, "vacant");
  if (!read_dtype(s, &type->dtype)) return false;
  const char *before = s->at;
  if (take(s, "[") && take(s, "*")) return expect(s, "]");
  s->at = before;
  dim_vec dims = {0};
  READ_LIST(s, &dims, cmz_dim, read_dim);
  if (dims.count > CMZ_MAX_RANK) return fail(s, "more than %d dimensions", CMZ_MAX_RANK);
  type->rank = dims.count;
  type->shape = dims.data;
  return true;
}

static bool read_layout(parser *s, cmz_layout *layout) {
  while (take(s, "{")) {
    uint32_t axis = 0, div = 0, mod = 0;
    if (!read_u32(s, &axis) || !expect(s, ",") || !read_u32(s, &div) || !expect(s, ",") ||
        !read_u32(s, &mod) || !expect(s, "}"))
      return false;
    if (layout->count == CMZ_LAYOUT_MAX_AXES || axis >= CMZ_MAX_RANK || div == 0)
      return fail(s, "the layout is not valid");
    layout->axes[layout->count++] = (cmz_layout_axis){(uint8_t)axis, div, mod};
  }
  return layout->count > 0 || fail(s, "expected the axes of a layout");
}

/* A value's definition; its slot was made when the counts were read. */
static bool read_value(parser *s, cmz_vid *out) {
  cmz_vid v = 0;
  const char *name;
  cmz_type type;
  if (!read_id(s, "%", s->m->values.count, &v)) return false;
  if (s->defined[v]) return fail(s, "%%%u is defined twice", v);
  s->defined[v] = 1;
  if (!read_string(s, &name) || !expect(s, ":") || !read_type(s, &type)) return false;
  cmz_value *value = cmz_value_get(s->m, v);
  value->name = name;
  value->type = type;
  value->graph = s->graph;
  value->removed = false;
  if (take(s, "layout") && !read_layout(s, &value->layout)) return false;
  for (uint32_t i = 0; i < value->layout.count; i++)
    if (type.rank == CMZ_RANK_UNKNOWN || value->layout.axes[i].axis >= type.rank)
      return fail(s, "the layout does not fit the rank");
  if (take(s, "elements")) {
    dim_vec elements = {0};
    READ_LIST(s, &elements, cmz_dim, read_dim);
    cmz_value_set_elements(s->m, v, elements.data, elements.count);
  }
  *out = v;
  return true;
}

/* ---- constants ---- */

/* The shape as numbers, and the number of stored bytes (of plain data). */
static bool static_size(parser *s, const cmz_type *type, cmz_constant *c, size_t *count,
                        size_t *bytes) {
  int64_t *shape = CMZ_NEW_ARRAY(s->m->arena, int64_t, CMZ_MAX_RANK);
  if (type->kind != CMZ_KIND_TENSOR || type->rank == CMZ_RANK_UNKNOWN ||
      type->dtype == CMZ_UNDEFINED)
    return fail(s, "a constant must be a tensor of known rank");
  *count = 1;
  for (uint32_t i = 0; i < type->rank; i++) {
    if (!cmz_dim_is_const(s->m->dims, type->shape[i], &shape[i]) || shape[i] < 0)
      return fail(s, "a constant must have a static shape");
    if (!cmz_mul_size(*count, (size_t)shape[i], count)) return fail(s, "the constant is too large");
  }
  if (!cmz_dtype_bytes(type->dtype, *count, bytes)) return fail(s, "the constant is too large");
  c->dtype = type->dtype;
  c->rank = type->rank;
  c->shape = shape;
  return true;
}

static bool read_number(parser *s, cmz_dtype dtype, void *data, size_t i) {
  if (cmz_dtype_is_float(dtype)) {
    double value;
    if (!read_float(s, &value)) return false;
    cmz_dtype_set_f64(dtype, data, i, value);
    return true;
  }
  skip_blanks(s);
  if (dtype == CMZ_U64 && *s->at != '-') {
    char *end;
    unsigned long long value = strtoull(s->at, &end, 10);
    if (end == s->at) return fail(s, "expected an integer");
    s->at = end;
    cmz_dtype_set_i64(dtype, data, i, (int64_t)value);
    return true;
  }
  int64_t value;
  if (!read_int(s, &value)) return false;
  cmz_dtype_set_i64(dtype, data, i, value);
  if (cmz_dtype_get_i64(dtype, data, i) != value)
    return fail(s, "%" PRId64 " does not fit the element type", value);
  return true;
}

static bool read_numbers(parser *s, cmz_constant *c, size_t count, size_t bytes) {
  if (count > (size_t)(s->end - s->at)) return fail(s, "fewer elements than the shape says");
  uint8_t *data = cmz_arena_alloc(s->m->arena, bytes);
  for (size_t i = 0; i < count; i++)
    if ((i && !expect(s, ",")) || !read_number(s, c->dtype, data, i)) return false;
  c->data = data;
  c->bytes = bytes;
  return expect(s, "]");
}

static bool read_hex(parser *s, cmz_constant *c) {
  const char *text;
  size_t size;
  if (!read_bytes(s, &text, &size)) return false;
  if (size % 2) return fail(s, "an odd number of hexadecimal digits");
  uint8_t *data = cmz_arena_alloc(s->m->arena, size / 2);
  for (size_t i = 0; i < size; i += 2) {
    int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
    if (high < 0 || low < 0) return fail(s, "expected hexadecimal digits");
    data[i / 2] = (uint8_t)(high * 16 + low);
  }
  c->data = data;
  c->bytes = size / 2;
  return true;
}

static bool read_reference(parser *s, cmz_constant *c) {
  int64_t offset, size;
  if (!read_int(s, &offset) || !read_int(s, &size)) return false;
  if (!s->weights) return fail(s, "the text refers to a weights file but there is none");
  if (offset < 0 || size < 0 || (uint64_t)offset > s->weights->size ||
      (uint64_t)size > s->weights->size - (uint64_t)offset)
    return fail(s, "the reference lies outside of the weights file");
  c->data = s->weights->data + offset;
  c->bytes = (size_t)size;
  return true;
}

static bool read_string_tensor(parser *s, cmz_constant *c, size_t count) {
  string_vec strings = {0};
  if (!read_strings(s, &strings)) return false;
  if (strings.count != count)
    return fail(s, "%u strings where the shape says %zu", strings.count, count);
  c->data = strings.data ? strings.data : cmz_arena_alloc(s->m->arena, 0);
  c->bytes = count * sizeof(char *);
  return true;
}

/* The bytes that LAYOUT stores; false when they do not fit. */
static bool stored_bytes(const cmz_constant *c, size_t plain, size_t *bytes) {
  *bytes = plain;
  if (c->layout.count == 0) return true;
  size_t count = 1;
  for (uint32_t i = 0; i < c->layout.count; i++) {
    cmz_layout_axis a = c->layout.axes[i];
    size_t extent = a.mod ? a.mod : ((size_t)c->shape[a.axis] + a.div - 1) / a.div;
    if (!cmz_mul_size(count, extent, &count)) return false;
  }
  return cmz_dtype_bytes(c->dtype, count, bytes);
}

static bool read_data(parser *s, const cmz_type *type, const cmz_layout *layout, cmz_cid *out) {
  cmz_constant c = {.name = ""};
  size_t count = 0, bytes = 0;
  if (!static_size(s, type, &c, &count, &bytes)) return false;
  if (layout) c.layout = *layout;
  bool string = c.dtype == CMZ_STRING, done;
  if (take(s, "strings"))
    done = string ? read_string_tensor(s, &c, count) : fail(s, "strings in a numeric constant");
  else if (string) done = fail(s, "a string constant needs `strings`");
  else if (take(s, "[")) done = read_numbers(s, &c, count, bytes);
  else if (take(s, "hex")) done = read_hex(s, &c);
  else if (take(s, "weights")) done = read_reference(s, &c);
  else if (take(s, "elided"))
    done = fail(s, "the constant's bytes were left out when this text was written");
  else done = fail(s, "expected the constant's data");
  if (!done) return false;
  if (!stored_bytes(&c, bytes, &bytes) || bytes != c.bytes)
    return fail(s, "%zu bytes of data where the type needs %zu", c.bytes, bytes);
  *out = s->m->constants.count;
  cmz_vec_push(s->m->arena, &s->m->constants, c);
  return true;
}

static bool read_constant(parser *s) {
  cmz_vid v;
  cmz_cid c;
  if (!read_value(s, &v) || !expect(s, "=")) return false;
  cmz_value value = *cmz_value_get(s->m, v);
  if (!read_data(s, &value.type, &value.layout, &c)) return false;
  cmz_constant_get(s->m, c)->name = value.name;
  cmz_value_get(s->m, v)->constant = c;
  return true;
}

/* ---- nodes ---- */

static bool read_tensor_attr(parser *s, cmz_attr *a) {
  cmz_type type;
  return read_type(s, &type) && expect(s, "=") && read_data(s, &type, NULL, &a->tensor);
}

static bool read_ints(parser *s, cmz_attr *a) {
  int_vec items = {0};
  READ_LIST(s, &items, int64_t, read_int);
  a->ints = items.data;
  a->count = items.count;
  return true;
}

static bool read_floats(parser *s, cmz_attr *a) {
  float_vec items = {0};
  READ_LIST(s, &items, double, read_float);
  a->floats = items.data;
  a->count = items.count;
  return true;
}

static bool read_strings_attr(parser *s, cmz_attr *a) {
  string_vec items = {0};
  if (!read_strings(s, &items)) return false;
  a->strings = items.data;
  a->count = items.count;
  return true;
}

static bool read_int_attr(parser *s, cmz_attr *a) { return read_int(s, &a->i); }
static bool read_float_attr(parser *s, cmz_attr *a) { return read_float(s, &a->f); }
static bool read_string_attr(parser *s, cmz_attr *a) { return read_bytes(s, &a->s, &a->s_size); }
static bool read_graph_attr(parser *s, cmz_attr *a) {
  return read_id(s, "@", s->m->graphs.count, &a->graph);
}

static const struct {
  const char *word;
  cmz_attr_kind kind;
  bool (*read)(parser *, cmz_attr *);
} attr_kinds[] = {
    {"int", CMZ_ATTR_INT, read_int_attr},          {"float", CMZ_ATTR_FLOAT, read_float_attr},
    {"string", CMZ_ATTR_STRING, read_string_attr}, {"tensor", CMZ_ATTR_TENSOR, read_tensor_attr},
    {"graph", CMZ_ATTR_GRAPH, read_graph_attr},    {"ints", CMZ_ATTR_INTS, read_ints},
    {"floats", CMZ_ATTR_FLOATS, read_floats},      {"strings", CMZ_ATTR_STRINGS, read_strings_attr},
    {"type", CMZ_ATTR_TYPE, read_int_attr},
};

static bool read_attr(parser *s, cmz_nid n) {
  cmz_attr a = {0};
  if (!read_string(s, &a.name) || !expect(s, ":")) return false;
  size_t i = 0;
  while (i < CMZ_COUNT_OF(attr_kinds) && !take(s, attr_kinds[i].word)) i++;
  if (i == CMZ_COUNT_OF(attr_kinds)) return fail(s, "expected the kind of an attribute");
  a.kind = attr_kinds[i].kind;
  if (!attr_kinds[i].read(s, &a)) return false;
  if (cmz_node_attr(cmz_node_get(s->m, n), a.name))
    return fail(s, "attribute \"%s\" stands twice", a.name);
  if (a.kind == CMZ_ATTR_GRAPH) {
    cmz_graph *g = cmz_graph_get(s->m, a.graph);
    if (g->owner) return fail(s, "@%u belongs to two nodes", a.graph);
    g->owner = n;
    g->parent = s->graph;
  }
  cmz_node_set_attr(s->m, n, &a);
  return true;
}

static bool read_op(parser *s, const char **shown, uint32_t *since) {
  *since = 0;
  if (!read_string(s, shown)) return false;
  return !take(s, "^") || read_u32(s, since);
}

static bool find_op(parser *s, cmz_nid n, const char *shown, uint32_t since) {
  const char *colons = strstr(shown, "::"), *name = colons ? colons + 2 : shown;
  char *domain = cmz_arena_string(s->m->arena, shown);
  domain[colons ? colons - shown : 0] = 0;
  cmz_node *node = cmz_node_get(s->m, n);
  node->op = cmz_text_find_op(domain, name, node->opset, since);
  return node->op || fail(s, "unknown operator \"%s\"", shown);
}

static bool read_node_tail(parser *s, cmz_nid n) {
  if (take(s, "{")) {
    do
      if (!read_attr(s, n)) return false;
    while (take(s, ","));
    if (!expect(s, "}")) return false;
  }
  uint32_t opset = 0;
  const char *name;
  if (take(s, "opset") && !read_u32(s, &opset)) return false;
  if (!expect(s, "name") || !read_string(s, &name)) return false;
  string_vec sources = {0};
  if (take(s, "sources") && !read_strings(s, &sources)) return false;
  cmz_node *node = cmz_node_get(s->m, n);
  node->opset = opset;
  node->name = name;
  node->sources = sources.data;
  node->source_count = sources.count;
  return true;
}

static bool read_input(parser *s, cmz_vid *v) {
  *v = 0;
  return take(s, "_") || read_id(s, "%", s->m->values.count, v);
}

static bool read_node(parser *s) {
  CMZ_VEC(cmz_vid) outputs = {0}, inputs = {0};
  skip_blanks(s);
  const char *shown;
  uint32_t since;
  if (*s->at != '"') {
    do {
      cmz_vid v = 0;
      if (!take(s, "_") && !read_value(s, &v)) return false;
      cmz_vec_push(s->m->arena, &outputs, v);
    } while (take(s, ","));
    if (!expect(s, "=")) return false;
  }
  if (!read_op(s, &shown, &since) || !expect(s, "(")) return false;
  while (!take(s, ")")) {
    cmz_vid v;
    if (inputs.count > 0 && !expect(s, ",")) return false;
    if (!read_input(s, &v)) return false;
    cmz_vec_push(s->m->arena, &inputs, v);
  }
  cmz_nid n = cmz_node_add(s->m, s->graph, NULL, NULL, inputs.count, inputs.data, outputs.count,
                           outputs.data);
  const char *after_op = s->at, *after;
  if (!read_node_tail(s, n)) return false;
  after = s->at; /* the row depends on the opset, but an unknown name is an error of its own line */
  s->at = after_op;
  if (!find_op(s, n, shown, since)) return false;
  s->at = after;
  return true;
}

/* ---- graphs and the module ---- */

static bool read_line(parser *s) {
  cmz_vid v;
  if (take(s, "input")) {
    if (!read_value(s, &v)) return false;
    cmz_value_get(s->m, v)->is_input = true;
    cmz_vec_push(s->m->arena, &cmz_graph_get(s->m, s->graph)->inputs, v);
    return true;
  }
  if (take(s, "constant")) return read_constant(s);
  if (take(s, "value")) return read_value(s, &v);
  if (!take(s, "output")) return read_node(s);
  if (!read_input(s, &v)) return false;
  cmz_graph_add_output(s->m, s->graph, v);
  cmz_graph *graph = cmz_graph_get(s->m, s->graph);
  return !take(s, "as") || read_string(s, &graph->output_names.data[graph->output_names.count - 1]);
}

static bool read_graph(parser *s) {
  cmz_gid g = 0;
  const char *name;
  if (!expect(s, "graph") || !read_id(s, "@", s->m->graphs.count, &g) || !read_string(s, &name))
    return false;
  if (s->graph_defined[g]) return fail(s, "@%u is defined twice", g);
  s->graph_defined[g] = 1;
  s->graph = g;
  cmz_graph_get(s->m, g)->name = name;
  if (take(s, "entry")) cmz_vec_push(s->m->arena, &s->m->entries, g);
  if (!expect(s, "{")) return false;
  while (!take(s, "}"))
    if (!read_line(s)) return false;
  return true;
}

static bool read_bound(parser *s, int64_t *bound) {
  *bound = INT64_MAX;
  if (take(s, "inf")) return true;
  *bound = INT64_MIN;
  return take(s, "-inf") || read_int(s, bound);
}

static bool read_symbol(parser *s) {
  cmz_symbol symbol = {.origin = CMZ_SYMBOL_INPUT};
  if (!read_string(s, &symbol.name)) return false;
  if (take(s, "data")) {
    symbol.origin = CMZ_SYMBOL_DATA;
    /* %0: of a value that is no longer in the module */
    if (!expect(s, "%") || !read_u32(s, &symbol.value) || !read_int(s, &symbol.element))
      return false;
    if (symbol.value >= s->m->values.count) return fail(s, "%%%u is not declared", symbol.value);
  } else if (!expect(s, "input")) return false;
  if (!read_bound(s, &symbol.low) || !read_bound(s, &symbol.high)) return false;
  if (!expect(s, "hint") || !read_int(s, &symbol.hint)) return false;
  symbol.check = take(s, "check");
  if (symbol.low > symbol.high || !symbol.name[0])
    return fail(s, "the symbol's name or range is empty");
  uint32_t before = cmz_dim_symbol_count(s->m->dims);
  cmz_dim d = cmz_dim_symbol(s->m->dims, &symbol);
  if (cmz_dim_symbol_count(s->m->dims) == before ||
      strcmp(cmz_dim_symbol_of(s->m->dims, d)->name, symbol.name) != 0)
    return fail(s, "the symbol is declared twice");
  return true;
}

/* Every slot costs memory, so there cannot be more than the text could define. */
static bool make_slots(parser *s, uint32_t graphs, uint32_t values) {
  size_t left = (size_t)(s->end - s->at);
  if (graphs > left / 8 || values > left / 4)
    return fail(s, "more graphs or values than the text has room for");
  for (uint32_t i = 0; i < graphs; i++) cmz_module_add_graph(s->m, "", 0, 0);
  for (uint32_t i = 0; i < values; i++)
    cmz_vec_push(s->m->arena, &s->m->values,
                 ((cmz_value){.name = "", .removed = true, .type.rank = CMZ_RANK_UNKNOWN}));
  s->defined = CMZ_NEW_ARRAY(s->m->arena, uint8_t, (size_t)values + 1);
  s->graph_defined = CMZ_NEW_ARRAY(s->m->arena, uint8_t, (size_t)graphs + 1);
  return true;
}

/* Whatever the text did not define, and graphs that own each other in a circle. */
static bool check_whole(parser *s) {
  const cmz_module *m = s->m;
  for (cmz_vid v = 1; v < m->values.count; v++)
    if (!s->defined[v]) return fail(s, "%%%u is declared but not defined", v);
  for (cmz_gid g = 1; g < m->graphs.count; g++) {
    if (!s->graph_defined[g]) return fail(s, "@%u is declared but not defined", g);
    bool entry = false;
    for (uint32_t i = 0; i < m->entries.count; i++) entry |= m->entries.data[i] == g;
    if (entry == (cmz_graph_get(m, g)->owner != 0))
      return fail(s, "@%u must be an entry or belong to a node", g);
    cmz_gid up = g;
    for (uint32_t steps = 0; up && steps <= m->graphs.count; steps++)
      up = cmz_graph_get(m, up)->parent;
    if (up) return fail(s, "@%u lies inside of itself", g);
  }
  return m->entries.count > 0 || fail(s, "there is no entry graph");
}

static bool read_module(parser *s) {
  uint32_t graphs, values;
  if (!expect(s, "cmz") || !expect(s, "1") || !expect(s, "module") || !read_string(s, &s->m->name))
    return false;
  if (!expect(s, "file") || !read_string(s, &s->m->file)) return false;
  if (!expect(s, "opset") || !read_u32(s, &s->m->opset)) return false;
  if (!expect(s, "ir") || !read_int(s, &s->m->ir_version)) return false;
  if (!expect(s, "graphs") || !read_u32(s, &graphs) || !expect(s, "values") ||
      !read_u32(s, &values))
    return false;
  if (!make_slots(s, graphs, values)) return false;
  while (take(s, "symbol"))
    if (!read_symbol(s)) return false;
  for (skip_blanks(s); s->at < s->end; skip_blanks(s))
    if (!read_graph(s)) return false;
  return check_whole(s);
}

cmz_status cmz_module_parse(cmz_context *ctx, const char *file, const char *text, size_t size,
                            const cmz_file *weights, cmz_module **module) {
  *module = NULL;
  parser s = {.ctx = ctx, .m = cmz_module_create(ctx, file), .file = file, .weights = weights};
  char *copy = cmz_arena_alloc(s.m->arena, size + 1);
  if (size) memcpy(copy, text, size);
  s.start = s.at = copy;
  s.end = copy + size;
  if (!read_module(&s)) {
    cmz_arena_destroy(s.m->arena);
    return s.status;
  }
  const char *source = s.m->file; /* messages name the text, not what it was made from */
  s.m->file = file;
  cmz_status status = cmz_module_check(s.m, CMZ_E_INPUT);
  s.m->file = source;
  if (status == CMZ_OK) *module = s.m;
  else cmz_arena_destroy(s.m->arena);
  return status;
}
