/* header.c - writes NAME.h: the getter of the model's table, its sizes as constants and typed calls
 * over cmz.h. In: the tables' description. Out: C99 that C++ also reads. Always holds: names are
 * made C identifiers, unique in the header. */
#include "internal.h"
#include <ctype.h>

static const char *const c_types[] = {
    [CMZ_ELEMENT_F32] = "float",    [CMZ_ELEMENT_U8] = "uint8_t",
    [CMZ_ELEMENT_I8] = "int8_t",    [CMZ_ELEMENT_U16] = "uint16_t",
    [CMZ_ELEMENT_I16] = "int16_t",  [CMZ_ELEMENT_I32] = "int32_t",
    [CMZ_ELEMENT_I64] = "int64_t",  [CMZ_ELEMENT_STRING] = "const char *",
    [CMZ_ELEMENT_BOOL] = "uint8_t", [CMZ_ELEMENT_F16] = "uint16_t",
    [CMZ_ELEMENT_F64] = "double",   [CMZ_ELEMENT_U32] = "uint32_t",
    [CMZ_ELEMENT_U64] = "uint64_t", [CMZ_ELEMENT_C64] = "float",
    [CMZ_ELEMENT_C128] = "double",  [CMZ_ELEMENT_BF16] = "uint16_t",
    [CMZ_ELEMENT_I2] = NULL,
};

static const char *c_type(uint32_t element) {
  const char *type = element < CMZ_COUNT_OF(c_types) ? c_types[element] : NULL;
  return type ? type : "uint8_t"; /* float8 and packed types: bytes */
}

static const char *const reserved[] = {
    "auto",     "bool",     "break",    "case",    "catch",  "char",     "class",     "config",
    "const",    "continue", "default",  "delete",  "do",     "double",   "else",      "enum",
    "explicit", "export",   "extern",   "false",   "float",  "for",      "friend",    "goto",
    "if",       "inline",   "int",      "long",    "m",      "model",    "mutable",   "namespace",
    "new",      "not",      "operator", "or",      "and",    "private",  "protected", "public",
    "register", "return",   "rc",       "short",   "signed", "sizeof",   "static",    "struct",
    "switch",   "template", "this",     "throw",   "true",   "try",      "typedef",   "typename",
    "union",    "unsigned", "using",    "virtual", "void",   "volatile", "while",     "xor",
    "given",    "results",  "inputs",   "outputs", "main",   "errno",    "stdin",     "stdout",
    "NULL",
};

typedef struct header {
  cmz_context *ctx;
  const cmz_description *d;
  const char *prefix;
  cmz_text text;
  cmz_names used;
  const char **inputs, **outputs, **dims;
} header;

static bool is_taken(const header *h, const char *name) {
  for (size_t i = 0; i < CMZ_COUNT_OF(reserved); i++) {
    if (strcmp(reserved[i], name) == 0) return true;
  }
  for (uint32_t i = 0; i < h->used.count; i++) {
    if (strcmp(h->used.data[i], name) == 0) return true;
  }
  return strcmp(name, h->prefix) == 0;
}

/* NAME as an identifier of its own. */
static const char *identifier(header *h, const char *name) {
  char *text = cmz_arena_printf(h->ctx->arena, "%s%s",
                                isdigit((unsigned char)name[0]) || !name[0] ? "x" : "", name);
  for (char *at = text; *at; at++) {
    if (!isalnum((unsigned char)*at) || (unsigned char)*at >= 128) *at = '_';
  }
  if (text[0] == '_') text = cmz_arena_printf(h->ctx->arena, "x%s", text);
  const char *result = text;
  for (unsigned n = 2; is_taken(h, result); n++)
    result = cmz_arena_printf(h->ctx->arena, "%s_%u", text, n);
  cmz_vec_push(h->ctx->arena, &h->used, result);
  return result;
}

static const char *upper(const header *h, const char *text) {
  char *copy = cmz_arena_string(h->ctx->arena, text);
  for (char *at = copy; *at; at++) *at = (char)toupper((unsigned char)*at);
  return copy;
}

static uint32_t kind_of(const uint32_t *kinds, uint32_t i) { return kinds ? kinds[i] : 0; }
static uint32_t input_kind(const header *h, uint32_t i) { return kind_of(h->d->input_kinds, i); }
static uint32_t output_kind(const header *h, uint32_t i) { return kind_of(h->d->output_kinds, i); }
static bool has_values(const header *h) { return h->d->input_kinds || h->d->output_kinds; }

static bool after_run(const cmz_port *port) {
  for (uint32_t d = 0; d < port->rank; d++) {
    if (port->dims[d] == CMZ_DIM_AFTER_RUN) return true;
  }
  return false;
}

static bool computed(const cmz_port *port) {
  for (uint32_t d = 0; d < port->rank; d++) {
    if (port->dims[d] == CMZ_DIM_COMPUTED) return true;
  }
  return false;
}

/* The port's dims as C: "{1, 3, batch}". */
static void add_dims(header *h, const cmz_port *port, const char *between) {
  for (uint32_t d = 0; d < port->rank; d++) {
    cmz_text_add(&h->text, "%s", d ? between : "");
    if (port->dims[d] >= 0) {
      cmz_text_add(&h->text, "%lld", (long long)port->dims[d]);
    } else if (port->dims[d] > CMZ_DIM_COMPUTED) {
      cmz_text_add(&h->text, "%s", h->dims[-1 - port->dims[d]]);
    } else {
      cmz_text_add(&h->text, "0");
    }
  }
}

static void add_port_constants(header *h, const cmz_port *port, const char *name, uint32_t kind) {
  static const char *const kinds[] = {"", "sequence of ", "optional ", "optional sequence of "};
  cmz_text_add(&h->text, "/* \"");
  for (const char *at = port->name; *at; at++) {
    if (at[0] == '*' && at[1] == '/') continue;
    cmz_text_add(&h->text, "%c", *at);
  }
  cmz_text_add(&h->text, "\": %s%s", kinds[kind & 3],
               cmz_dtype_info((cmz_dtype)port->element)->name);
  if (kind) {
    cmz_text_add(&h->text, " */\n");
    return;
  }
  cmz_text_add(&h->text, " [");
  for (uint32_t d = 0; d < port->rank; d++) {
    cmz_text_add(&h->text, "%s", d ? ", " : "");
    int64_t dim = port->dims[d];
    if (dim >= 0) cmz_text_add(&h->text, "%lld", (long long)dim);
    else cmz_text_add(&h->text, "%s", dim > CMZ_DIM_COMPUTED ? h->dims[-1 - dim] : "?");
  }
  cmz_text_add(&h->text, "] */\n");
  int64_t elements = 1;
  for (uint32_t d = 0; d < port->rank; d++) {
    if (port->dims[d] < 0) return;
    elements *= port->dims[d];
  }
  size_t bytes = 0;
  cmz_dtype_bytes((cmz_dtype)port->element, (size_t)elements, &bytes);
  const char *constant = upper(h, cmz_arena_printf(h->ctx->arena, "%s_%s", h->prefix, name));
  cmz_text_add(&h->text, "#define %s_ELEMENTS %lld\n#define %s_BYTES %zu\n", constant,
               (long long)elements, constant, bytes);
}

static void add_parameters(header *h) {
  const cmz_description *d = h->d;
  cmz_text_add(&h->text, "%s *m", h->prefix);
  for (uint32_t i = 0; i < d->dim_count; i++) cmz_text_add(&h->text, ", int64_t %s", h->dims[i]);
  for (uint32_t i = 0; i < d->input_count; i++) {
    bool strings = d->inputs[i].element == CMZ_ELEMENT_STRING;
    if (input_kind(h, i)) cmz_text_add(&h->text, ", const cmz_value *%s", h->inputs[i]);
    else if (strings) cmz_text_add(&h->text, ", const char *const *%s", h->inputs[i]);
    else cmz_text_add(&h->text, ", const %s *%s", c_type(d->inputs[i].element), h->inputs[i]);
  }
  for (uint32_t i = 0; i < d->output_count; i++) {
    if (output_kind(h, i)) {
      cmz_text_add(&h->text, ", cmz_value *%s", h->outputs[i]);
    } else if (after_run(&d->outputs[i])) {
      cmz_text_add(&h->text, ", cmz_tensor *%s", h->outputs[i]);
    } else {
      cmz_text_add(&h->text, ", %s *%s", c_type(d->outputs[i].element), h->outputs[i]);
      if (computed(&d->outputs[i])) cmz_text_add(&h->text, ", size_t %s_bytes", h->outputs[i]);
    }
  }
}

static void add_bytes(header *h, const cmz_port *port) {
  uint32_t bits = cmz_dtype_info((cmz_dtype)port->element)->bits;
  if (bits == 0) bits = 64;
  cmz_text_add(&h->text, "(size_t)(");
  cmz_text_add(&h->text, "(%uLL", bits);
  if (port->rank) cmz_text_add(&h->text, " * ");
  add_dims(h, port, " * ");
  cmz_text_add(&h->text, " + 7) / 8)");
}

static void add_tensor(header *h, const char *array, uint32_t i, const cmz_port *port,
                       const char *name, bool with_dims) {
  cmz_text_add(&h->text,
               "  %s[%u].data = (void *)%s;\n  %s[%u].element = %u;\n  %s[%u].rank = %u;\n", array,
               i, name, array, i, port->element, array, i, port->rank);
  if (with_dims) {
    for (uint32_t d = 0; d < port->rank; d++) {
      cmz_port one = *port;
      one.rank = 1;
      one.dims = port->dims + d;
      cmz_text_add(&h->text, "  %s[%u].dims[%u] = ", array, i, d);
      add_dims(h, &one, "");
      cmz_text_add(&h->text, ";\n");
    }
  }
  cmz_text_add(&h->text, "  %s[%u].bytes = ", array, i);
  if (computed(port)) cmz_text_add(&h->text, "%s_bytes", name);
  else add_bytes(h, port);
  cmz_text_add(&h->text, ";\n");
}

/* Tensors as values beside those that the caller gives as such. */
static void add_values(header *h) {
  const cmz_description *d = h->d;
  for (uint32_t i = 0; i < d->input_count; i++) {
    if (input_kind(h, i)) cmz_text_add(&h->text, "  given[%u] = *%s;\n", i, h->inputs[i]);
    else
      cmz_text_add(&h->text,
                   "  given[%u].kind = CMZ_VALUE_TENSOR;\n  given[%u].count = 1;\n"
                   "  given[%u].items = &inputs[%u];\n",
                   i, i, i, i);
  }
  for (uint32_t i = 0; i < d->output_count; i++) {
    if (!output_kind(h, i))
      cmz_text_add(&h->text,
                   "  results[%u].kind = CMZ_VALUE_TENSOR;\n  results[%u].count = 1;\n"
                   "  results[%u].items = &outputs[%u];\n",
                   i, i, i, i);
  }
}

static void add_run(header *h) {
  const cmz_description *d = h->d;
  uint32_t inputs = d->input_count ? d->input_count : 1,
           outputs = d->output_count ? d->output_count : 1;
  cmz_text_add(&h->text,
               "/* Runs the model on contiguous host memory. 0: success; else a cmz_result, and "
               "%s_error says why.",
               h->prefix);
  cmz_text_add(&h->text,
               " A cmz_tensor or cmz_value is given\n * the instance's own memory, valid until its "
               "next run. */\nstatic inline int %s_run(",
               h->prefix);
  add_parameters(h);
  cmz_text_add(&h->text, ") {\n  cmz_tensor inputs[%u] = {{0}}, outputs[%u] = {{0}};\n", inputs,
               outputs);
  if (has_values(h))
    cmz_text_add(&h->text, "  cmz_value given[%u] = {{0}}, results[%u] = {{0}};\n", inputs,
                 outputs);
  cmz_text_add(&h->text, "  int rc;\n");
  for (uint32_t i = 0; i < d->input_count; i++)
    if (!input_kind(h, i)) add_tensor(h, "inputs", i, &d->inputs[i], h->inputs[i], true);
  for (uint32_t i = 0; i < d->output_count; i++) {
    if (!output_kind(h, i) && !after_run(&d->outputs[i]))
      add_tensor(h, "outputs", i, &d->outputs[i], h->outputs[i], false);
  }
  if (has_values(h)) {
    add_values(h);
    cmz_text_add(&h->text, "  rc = %s_api()->run_values(m, given, results);\n", h->prefix);
  } else {
    cmz_text_add(&h->text, "  rc = %s_api()->run(m, inputs, outputs);\n", h->prefix);
  }
  for (uint32_t i = 0; i < d->output_count; i++) {
    if (output_kind(h, i))
      cmz_text_add(&h->text, "  if (rc == 0) *%s = results[%u];\n", h->outputs[i], i);
    else if (after_run(&d->outputs[i]))
      cmz_text_add(&h->text, "  if (rc == 0) *%s = outputs[%u];\n", h->outputs[i], i);
  }
  cmz_text_add(&h->text, "  return rc;\n}\n");
}

static void name_all(header *h) {
  const cmz_description *d = h->d;
  h->dims = CMZ_NEW_ARRAY(h->ctx->arena, const char *, d->dim_count + 1u);
  h->inputs = CMZ_NEW_ARRAY(h->ctx->arena, const char *, d->input_count + 1u);
  h->outputs = CMZ_NEW_ARRAY(h->ctx->arena, const char *, d->output_count + 1u);
  for (uint32_t i = 0; i < d->dim_count; i++) h->dims[i] = identifier(h, d->dims[i].name);
  for (uint32_t i = 0; i < d->input_count; i++) h->inputs[i] = identifier(h, d->inputs[i].name);
  for (uint32_t i = 0; i < d->output_count; i++) h->outputs[i] = identifier(h, d->outputs[i].name);
}

cmz_status cmz_header_write(cmz_context *ctx, const cmz_tables *t, const cmz_codegen_options *o,
                            const char *path) {
  header h = {.ctx = ctx, .d = &t->description, .prefix = o->prefix, .text = {.arena = ctx->arena}};
  name_all(&h);
  const char *guard = upper(&h, o->prefix), *p = o->prefix;
  cmz_text_add(&h.text, "/* %s.h - made by cmzc: the compiled model's own calls. Target: %s. */\n",
               p, t->description.target);
  cmz_text_add(&h.text, "#ifndef CMZ_MODEL_%s_H\n#define CMZ_MODEL_%s_H\n\n#include \"cmz.h\"\n\n",
               guard, guard);
  cmz_text_add(&h.text, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
  cmz_text_add(&h.text,
               "/* The model's table: description, arena_bytes, create, run, destroy, error … "
               "*/\nconst cmz_api *%s_api(void);\n\n",
               p);
  cmz_text_add(&h.text, "typedef cmz_model %s; /* an instance */\n\n", p);
  cmz_text_add(&h.text, "#define %s_INPUT_COUNT %u\n#define %s_OUTPUT_COUNT %u\n", guard,
               t->description.input_count, guard, t->description.output_count);
  for (uint32_t i = 0; i < t->description.input_count; i++)
    add_port_constants(&h, &t->description.inputs[i], h.inputs[i], input_kind(&h, i));
  for (uint32_t i = 0; i < t->description.output_count; i++)
    add_port_constants(&h, &t->description.outputs[i], h.outputs[i], output_kind(&h, i));
  cmz_text_add(&h.text, "\n/* CONFIG may be NULL. Also after a failure *M must be destroyed, "
                        "unless it is NULL. */\n");
  cmz_text_add(&h.text,
               "static inline int %s_create(const cmz_config *config, %s **m) { return "
               "%s_api()->create(config, m); }\n",
               p, p, p);
  cmz_text_add(&h.text, "static inline void %s_destroy(%s *m) { %s_api()->destroy(m); }\n", p, p,
               p);
  cmz_text_add(&h.text,
               "static inline const char *%s_error(const %s *m) { return %s_api()->error(m); }\n\n",
               p, p, p);
  add_run(&h);
  cmz_text_add(&h.text, "\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
  return cmz_file_write(ctx, path, h.text.data, h.text.length);
}
