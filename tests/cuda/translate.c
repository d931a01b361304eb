/* translate.c - PTX to C, for the CUDA emulator. In: the text of a PTX module, as cmzc emits it
 * (PTX ISA 7.0 to 8.0). Out: one C function an entry, `void NAME(struct thread *t, void **params)`,
 * in terms of emulator_abi.h; registers are raw bits in C variables. Always holds: an instruction
 * that is not known ends the translation with a message that quotes it; nothing is guessed. */
#include "translate.h"

/* ---- control ---- */

#define A in->operands[0]

static void do_bra(translator *t, const instruction *in) {
  if (ptx_need(t, in, 1)) fprintf(t->out, "goto l_%s;\n", A[0] == '$' ? A + 1 : A);
}

static void do_ret(translator *t, const instruction *in) {
  (void)in;
  fprintf(t->out, "return;\n");
}

static void do_trap(translator *t, const instruction *in) {
  (void)in;
  fprintf(t->out, "emulator_trap(t, %d);\n", t->line);
}

static void do_nothing(translator *t, const instruction *in) {
  (void)t, (void)in;
} /* hints, fences */

/* Of the fences only the one between the proxies has an effect here: barriers order everything
 * else.
 */
static void do_fence(translator *t, const instruction *in) {
  if (ptx_has(in, "proxy") && !ptx_has(in, "async")) ptx_fail(t, "\"%s\"", in->text);
  if (ptx_has(in, "proxy")) fprintf(t->out, "emulator_proxy_fence(t);\n");
}

static const ptx_row control[] = {
    {"bra", do_bra},          {"ret", do_ret},           {"exit", do_ret},
    {"trap", do_trap},        {"membar", do_nothing},    {"fence", do_fence},
    {"prefetch", do_nothing}, {"nanosleep", do_nothing}, {NULL, NULL}};

/* ---- text ---- */

static void skip_space(translator *t) {
  t->line += t->lines_within;
  t->lines_within = 0;
  for (;;) {
    while (t->at < t->end && isspace((unsigned char)*t->at)) t->line += *t->at++ == '\n';
    if (t->end - t->at > 1 && t->at[0] == '/' && t->at[1] == '/') {
      while (t->at < t->end && *t->at != '\n') t->at++;
    } else return;
  }
}

/* The text up to one of STOPS, without it, in OUT. */
static void take_until(translator *t, const char *stops, char *out, size_t size) {
  size_t n = 0;
  while (t->at < t->end && !strchr(stops, *t->at)) {
    if (n + 1 < size) out[n++] = *t->at == '\n' || *t->at == '\t' ? ' ' : *t->at;
    else ptx_fail(t, "a statement longer than %zu bytes", size);
    t->lines_within += *t->at == '\n';
    t->at++;
  }
  while (n && out[n - 1] == ' ') n--;
  out[n] = 0;
}

static void split_operands(translator *t, instruction *in, char *text) {
  int depth = 0;
  while (*text == ' ') text++;
  if (!*text) return;
  in->operands[in->operand_count++] = text;
  for (char *at = text; *at; at++) {
    if (*at == '{' || *at == '[') depth++;
    if (*at == '}' || *at == ']') depth--;
    if (*at != ',' && *at != '|') continue;
    if (depth > 0) continue;
    *at = 0;
    do at++;
    while (*at == ' ');
    if (in->operand_count == MAX_OPERANDS) {
      ptx_fail(t, "too many operands in \"%s\"", in->text);
      return;
    }
    in->operands[in->operand_count++] = at--;
  }
}

/* f16x2 and bf16x2 arithmetic: the scalar instruction on each half. */
static bool is_packed(const instruction *in) {
  static const char *const names[] = {"add", "sub", "mul", "fma", "min", "max", "neg", "abs"};
  const char *type = ptx_type(in);
  if (strcmp(type, "f16x2") && strcmp(type, "bf16x2")) return false;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strcmp(in->parts[0], names[i]) == 0) return true;
  return false;
}
static void packed(translator *t, const instruction *in, ptx_handler *handle) {
  static char names[4][8] = {"%h0", "%h1", "%h2", "%h3"};
  instruction half = *in;
  half.parts[in->part_count - 1] = in->part_count && ptx_type(in)[0] == 'f' ? "f16" : "bf16";
  if (in->operand_count > 4) ptx_fail(t, "\"%s\"", in->text);
  fprintf(t->out, "{ uint32_t packed = 0;\n");
  for (int h = 0; h < 2 && !t->failed; h++) {
    fprintf(t->out, "{ uint16_t r_h0;");
    for (int i = 1; i < in->operand_count; i++)
      fprintf(t->out, " uint16_t r_h%d = (uint16_t)((uint32_t)%s >> %d);", i,
              ptx_value(t, in->operands[i]), 16 * h);
    for (int i = 0; i < in->operand_count; i++) half.operands[i] = names[i];
    handle(t, &half);
    fprintf(t->out, "packed |= (uint32_t)r_h0 << %d; }\n", 16 * h);
  }
  fprintf(t->out, "%s = packed; }\n", ptx_value(t, in->operands[0]));
}

static ptx_handler *find_handler(const char *name) {
  const ptx_row *const tables[] = {ptx_arithmetic, ptx_memory, ptx_collectives, ptx_matrices,
                                   control};
  for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
    for (const ptx_row *row = tables[i]; row->name; row++)
      if (strcmp(row->name, name) == 0) return row->handle;
  return NULL;
}

static void one_instruction(translator *t, const char *text) {
  instruction in = {0};
  snprintf(in.text, sizeof in.text, "%s", text);
  while (*text == ' ') text++;
  if (*text == '@') {
    bool negative = text[1] == '!';
    text += negative ? 2 : 1;
    size_t length = strcspn(text, " ");
    snprintf(in.guard, sizeof in.guard, "%sr_%.*s", negative ? "!" : "", (int)length - 1, text + 1);
    text += length;
    while (*text == ' ') text++;
  }
  size_t length = strcspn(text, " ");
  snprintf(in.parts_text, sizeof in.parts_text, "%.*s", (int)length, text);
  snprintf(in.operands_text, sizeof in.operands_text, "%s", text + length);
  for (char *part = strtok(in.parts_text, "."); part && in.part_count < MAX_PARTS;
       part = strtok(NULL, "."))
    in.parts[in.part_count++] = part;
  split_operands(t, &in, in.operands_text);
  ptx_handler *handle = t->failed ? NULL : find_handler(in.parts[0]);
  if (!handle) {
    ptx_fail(t, "unknown instruction \"%s\"", in.text);
    return;
  }
  if (*in.guard) fprintf(t->out, "if (%s) {\n", in.guard);
  if (is_packed(&in)) packed(t, &in, handle);
  else handle(t, &in);
  if (*in.guard) fprintf(t->out, "}\n");
}

/* .reg .b32 %r<11>; */
static void registers(translator *t, const char *text) {
  char type[16], name[64];
  int count;
  if (sscanf(text, ".reg .%15s %%%63[A-Za-z]<%d>", type, name, &count) == 3) {
    int bits = ptx_bits(type) < 8 ? 8 : ptx_bits(type);
    for (int i = 1; i < count; i++)
      fprintf(t->out, "uint%d_t r_%s%d = 0; (void)r_%s%d;\n", bits, name, i, name, i);
  } else if (sscanf(text, ".reg .%15s %%%63[A-Za-z]", type, name) == 2) {
    fprintf(t->out, "uint%d_t r_%s = 0; (void)r_%s;\n", ptx_bits(type), name, name);
  } else { /* names without a % */
    char copy[4 * MAX_TEXT];
    snprintf(copy, sizeof copy, "%s", text);
    char *at = strtok(copy, " ,");
    at = at ? strtok(NULL, " ,") : NULL;
    if (!at || *at++ != '.') {
      ptx_fail(t, "\"%s\"", text);
      return;
    }
    int bits = ptx_bits(at) < 8 ? 8 : ptx_bits(at);
    while ((at = strtok(NULL, " ,")) && !t->failed) {
      if (t->bare_count == MAX_BARE || !isalpha((unsigned char)*at)) ptx_fail(t, "\"%s\"", text);
      else snprintf(t->bare[t->bare_count++], 64, "%s", at);
      fprintf(t->out, "uint%d_t b_%s = 0; (void)b_%s;\n", bits, at, at);
    }
  }
}

/* .shared .align 16 .b8 name[1024]   .extern .shared .align 16 .b8 name[] */
static void shared(translator *t, const char *text) {
  shared_variable *v = &t->shared[t->shared_count];
  char type[8];
  const char *align = strstr(text, ".align "), *at = strstr(text, ".shared");
  unsigned long count = 1;
  if (t->shared_count == MAX_SHARED) ptx_fail(t, "too many shared variables");
  if (t->failed) return;
  *v = (shared_variable){.offset = -1};
  at = align ? align + strcspn(align, "0123456789") : at + 7;
  if (align) v->align = (uint32_t)strtoul(at, (char **)&at, 10);
  if (sscanf(at, " .%7s %255[^[ ]", type, v->name) != 2) ptx_fail(t, "\"%.100s\"", text);
  const char *bracket = strchr(text, '[');
  v->launch = bracket && bracket[1] == ']';
  if (bracket && !v->launch) count = strtoul(bracket + 1, NULL, 10);
  v->bytes = (uint32_t)count * (uint32_t)ptx_bits(type) / 8;
  if (!v->align) v->align = (uint32_t)ptx_bits(type) / 8;
  t->shared_count++;
}

static void body(translator *t) {
  char text[4 * MAX_TEXT];
  int depth = 0;
  while (!t->failed) {
    skip_space(t);
    if (t->at >= t->end) ptx_fail(t, "the text ends inside of %s", t->entry);
    else if (*t->at == '}') {
      t->at++;
      if (depth-- == 0) return;
      fprintf(t->out, ";}\n");
    } else if (*t->at == '{') { /* C's scopes are PTX's */
      t->at++;
      depth++;
      fprintf(t->out, "{\n");
    } else {
      take_until(t, ";:", text, sizeof text);
      char stop = t->at < t->end ? *t->at++ : 0;
      if (stop == ':') fprintf(t->out, "l_%s:;\n", text[0] == '$' ? text + 1 : text);
      else if (strncmp(text, ".reg", 4) == 0) registers(t, text);
      else if (text[0] == '.' && strstr(text, ".shared")) shared(t, text);
      else if (strncmp(text, ".local", 6) == 0) {
        int align, bytes;
        char name[128];
        if (sscanf(text, ".local .align %d .b8 %127[^[][%d]", &align, name, &bytes) == 3)
          fprintf(t->out,
                  "_Alignas(16) uint8_t depot[%d]; emulator_local(t, depot, sizeof depot);\n",
                  bytes);
        else ptx_fail(t, "\"%s\"", text);
      } else if (strncmp(text, ".pragma", 7) == 0 || strncmp(text, ".loc", 4) == 0) continue;
      else if (text[0] == '.') ptx_fail(t, "\"%s\"", text);
      else one_instruction(t, text);
    }
  }
}

/* The sizes of an entry's parameters, ".param .u64 .ptr .align 1 NAME, .param .align 8 .b8
 * NAME[24]", as an array; returns how many there are. */
static int parameter_sizes(translator *t, const char *text) {
  int count = 0;
  fprintf(t->out, "static const uint16_t parameters_%s[] = {", t->entry);
  for (const char *at = strstr(text, ".param"); at; count++) {
    const char *after = strstr(at + 1, ".param"), *type = at + strlen(".param");
    unsigned bits = 0, elements = 1;
    for (; (type = strchr(type, '.')) && (!after || type < after); type++)
      if (strchr("busf", type[1]) && sscanf(type + 2, "%u", &bits) == 1) break;
    const char *bracket = type ? strchr(type, '[') : NULL;
    if (bracket && (!after || bracket < after)) sscanf(bracket + 1, "%u", &elements);
    if (!bits) ptx_fail(t, "a parameter of unknown size");
    fprintf(t->out, "%u, ", bits / 8 * elements);
    at = after;
  }
  fprintf(t->out, "0};\n");
  return count;
}

static void entry(translator *t, const char *text) {
  const char *name = strstr(text, ".entry");
  if (!name || sscanf(name, ".entry %511[^( ]", t->entry) != 1) {
    ptx_fail(t, "\"%s\"", text);
    return;
  }
  t->at++; /* ( */
  char params[MAX_PARAMS * 64], between[MAX_TEXT];
  take_until(t, ")", params, sizeof params);
  t->at++;
  take_until(t, "{", between, sizeof between);
  t->at++;
  int outside = t->shared_count;
  t->shared_bytes = 0;
  t->bare_count = 0;
  t->fibres = false;
  for (int i = 0; i < outside; i++) t->shared[i].offset = -1;
  int parameters = parameter_sizes(t, params);
  fprintf(t->out, "void %s(struct thread *t, void **params) {\n(void)params;\n", t->entry);
  body(t);
  fprintf(t->out,
          "return;\n}\nconst emulator_kernel emulator_kernel_%s = {%u, %d, %d, parameters_%s};\n\n",
          t->entry, (t->shared_bytes + 15) / 16 * 16, t->fibres, parameters, t->entry);
  t->shared_count = outside;
}

/* .global .align 4 .b8 name[16] = {1, 2, …} */
static void constant(translator *t, const char *text) {
  char name[256];
  long bytes;
  const char *list = strchr(text, '=');
  const char *array = strstr(text, ".b8 ");
  if (!array || sscanf(array, ".b8 %255[^[][%ld]", name, &bytes) != 2) {
    ptx_fail(t, "\"%.100s\"", text);
    return;
  }
  fprintf(t->out, "_Alignas(16) static uint8_t g_%s[%ld] %s;\n", name, bytes, list ? list : "");
}

bool cmz_emulator_translate(const char *ptx, FILE *out, char *error, size_t error_size) {
  static char text[1 << 22];
  static translator t;
  t = (translator){.at = ptx,
                   .end = ptx + strlen(ptx),
                   .out = out,
                   .error = error,
                   .error_size = error_size,
                   .line = 1};
  fprintf(out, "#include \"emulator_abi.h\"\n\n");
  while (!t.failed) {
    skip_space(&t);
    if (t.at >= t.end) break;
    if (strncmp(t.at, ".version", 8) == 0 || strncmp(t.at, ".target", 7) == 0 ||
        strncmp(t.at, ".address_size", 13) == 0) {
      while (t.at < t.end && *t.at != '\n') t.at++;
      continue;
    }
    take_until(&t, "(;", text, sizeof text);
    if (t.at < t.end && *t.at == '(') entry(&t, text);
    else if (strstr(text, ".shared")) {
      shared(&t, text);
      t.at++;
    } else if (strstr(text, ".global") || strstr(text, ".const")) {
      constant(&t, text);
      t.at++;
    } else ptx_fail(&t, "\"%.100s\"", text);
  }
  return !t.failed;
}
