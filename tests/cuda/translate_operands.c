/* translate_operands.c - operands of PTX instructions as C expressions. In: their text. Out: C, in
 * terms of emulator_abi.h. Always holds: registers are raw bits in C variables r_NAME (b_NAME
 * without a %); a text that is no known operand ends the translation. */
#include "translate.h"

#include <stdarg.h>

void ptx_fail(translator *t, const char *format, ...) {
  va_list args;
  if (t->failed) return;
  t->failed = true;
  va_start(args, format);
  int length = snprintf(t->error, t->error_size, "line %d: ", t->line);
  vsnprintf(t->error + length, t->error_size - (size_t)length, format, args);
  va_end(args);
}

bool ptx_has(const instruction *in, const char *part) {
  for (int i = 1; i < in->part_count; i++)
    if (strcmp(in->parts[i], part) == 0) return true;
  return false;
}

const char *ptx_type(const instruction *in) { return in->parts[in->part_count - 1]; }

int ptx_bits(const char *type) {
  if (strcmp(type, "pred") == 0) return 1;
  if (strcmp(type, "bf16") == 0) return 16;
  return atoi(type + 1);
}

/* The address of shared variable TEXT; false when there is none. */
static bool shared_symbol(translator *t, const char *text, char *out) {
  for (int i = 0; i < t->shared_count; i++) {
    shared_variable *v = &t->shared[i];
    if (strcmp(v->name, text) != 0) continue;
    if (v->launch) {
      snprintf(out, MAX_TEXT, "((uint64_t)t->dynamic)");
      return true;
    }
    if (v->offset < 0) {
      v->offset = (t->shared_bytes + v->align - 1) / v->align * v->align;
      t->shared_bytes = (uint32_t)v->offset + v->bytes;
    }
    snprintf(out, MAX_TEXT, "%ldull", v->offset);
    return true;
  }
  return false;
}

const char *ptx_value(translator *t, const char *text) {
  static _Thread_local char buffers[8][MAX_TEXT];
  static _Thread_local int turn;
  char *out = buffers[turn++ % 8];
  static const struct {
    const char *name, *c;
  } specials[] = {{"%tid.x", "t->tid[0]"},
                  {"%tid.y", "t->tid[1]"},
                  {"%tid.z", "t->tid[2]"},
                  {"%ntid.x", "t->ntid[0]"},
                  {"%ntid.y", "t->ntid[1]"},
                  {"%ntid.z", "t->ntid[2]"},
                  {"%ctaid.x", "t->ctaid[0]"},
                  {"%ctaid.y", "t->ctaid[1]"},
                  {"%ctaid.z", "t->ctaid[2]"},
                  {"%nctaid.x", "t->nctaid[0]"},
                  {"%nctaid.y", "t->nctaid[1]"},
                  {"%nctaid.z", "t->nctaid[2]"},
                  {"%laneid", "t->lane"},
                  {"%warpid", "t->warp"},
                  {"%nwarpid", "((t->ntid[0] * t->ntid[1] * t->ntid[2] + 31) / 32)"},
                  {"%lanemask_eq", "(1u << t->lane)"},
                  {"%lanemask_lt", "((1u << t->lane) - 1)"},
                  {"%lanemask_le", "((2u << t->lane) - 1)"},
                  {"%lanemask_gt", "(~((2u << t->lane) - 1))"},
                  {"%lanemask_ge", "(~((1u << t->lane) - 1))"},
                  {"%dynamic_smem_size", "t->dynamic_bytes"},
                  {"WARP_SZ", "32u"},
                  {"%SP", "r_SP"},
                  {"%SPL", "r_SPL"}};
  for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++)
    if (strcmp(text, specials[i].name) == 0) {
      snprintf(out, MAX_TEXT, "%s", specials[i].c);
      return out;
    }
  for (int i = 0; i < t->bare_count; i++) {
    bool not = text[0] == '!';
    if (strcmp(text + not, t->bare[i]) != 0) continue;
    snprintf(out, MAX_TEXT, not ? "(!b_%s)" : "b_%s", t->bare[i]);
    return out;
  }
  if (shared_symbol(t, text, out)) return out;
  if (text[0] == '%') snprintf(out, MAX_TEXT, "r_%s", text + 1);
  else if (text[0] == '!' && text[1] == '%') snprintf(out, MAX_TEXT, "(!r_%s)", text + 2);
  else if (text[0] == '0' && (text[1] == 'f' || text[1] == 'F'))
    snprintf(out, MAX_TEXT, "0x%su", text + 2);
  else if (text[0] == '0' && (text[1] == 'd' || text[1] == 'D'))
    snprintf(out, MAX_TEXT, "0x%sull", text + 2);
  else if (isdigit((unsigned char)text[0]))
    snprintf(out, MAX_TEXT, "%.*sull", (int)strcspn(text, "Uu"), text);
  else if (text[0] == '-' && isdigit((unsigned char)text[1]))
    snprintf(out, MAX_TEXT, "(0ull - %sull)", text + 1);
  else if (strncmp(text, "__local_depot", 13) == 0)
    snprintf(out, MAX_TEXT, "((uint64_t)(uintptr_t)depot)");
  else if (isalpha((unsigned char)text[0]) || text[0] == '_')
    snprintf(out, MAX_TEXT, "((uint64_t)(uintptr_t)g_%s)", text);
  else ptx_fail(t, "operand \"%s\"", text);
  return out;
}

const char *ptx_typed(translator *t, const char *type, const char *text) {
  static _Thread_local char buffers[8][MAX_TEXT];
  static _Thread_local int turn;
  char *out = buffers[turn++ % 8];
  const char *v = ptx_value(t, text);
  int bits = ptx_bits(type);
  if (type[0] == 'f') snprintf(out, MAX_TEXT, "as_f%d((uint%d_t)%s)", bits, bits, v);
  else if (strcmp(type, "bf16") == 0) snprintf(out, MAX_TEXT, "as_bf16((uint16_t)%s)", v);
  else if (strcmp(type, "pred") == 0) snprintf(out, MAX_TEXT, "(%s)", v);
  else snprintf(out, MAX_TEXT, "((%sint%d_t)%s)", type[0] == 's' ? "" : "u", bits, v);
  return out;
}

void ptx_assign(translator *t, const char *type, const char *destination, const char *format, ...) {
  char expression[4 * MAX_TEXT];
  va_list args;
  va_start(args, format);
  vsnprintf(expression, sizeof expression, format, args);
  va_end(args);
  const char *d = ptx_value(t, destination);
  if (type[0] == 'f') fprintf(t->out, "%s = bits_f%d(%s);\n", d, ptx_bits(type), expression);
  else if (strcmp(type, "bf16") == 0) fprintf(t->out, "%s = bits_bf16(%s);\n", d, expression);
  else if (strcmp(type, "pred") == 0) fprintf(t->out, "%s = (%s) != 0;\n", d, expression);
  else fprintf(t->out, "%s = (uint%d_t)(%s);\n", d, ptx_bits(type), expression);
}

bool ptx_need(translator *t, const instruction *in, int count) {
  if (in->operand_count != count)
    ptx_fail(t, "%d operands for \"%s\"", in->operand_count, in->text);
  return !t->failed;
}

int ptx_group(char *text, char *items[4]) {
  int count = 0;
  if (text[0] != '{') return 0;
  for (char *at = strtok(text + 1, ",} \t"); at && count < 4; at = strtok(NULL, ",} \t"))
    items[count++] = at;
  return count;
}

int ptx_items(const char *text, char *copy, size_t size, char **items, int most) {
  int count = 0;
  snprintf(copy, size, "%s", text);
  for (char *at = strtok(copy, "{,} \t"); at && count < most; at = strtok(NULL, "{,} \t"))
    items[count++] = at;
  return count;
}

const char *ptx_address(translator *t, const char *text) {
  static _Thread_local char out[2 * MAX_TEXT];
  char base[MAX_TEXT];
  long long offset = 0;
  if (sscanf(text, "[%[^]+ ]", base) != 1) {
    ptx_fail(t, "address \"%s\"", text);
    return "0";
  }
  const char *plus = strchr(text, '+');
  if (plus) offset = strtoll(plus + 1, NULL, 10);
  snprintf(out, sizeof out, "(uint64_t)(%s) + %lldll", ptx_value(t, base), offset);
  return out;
}

const char *ptx_space(const instruction *in) {
  /* the space stands in one part; "shared::cta" is the block's own */
  static const char *const spaces[] = {"global", "local", "shared", "const", "param"};
  for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
    if (ptx_has(in, spaces[i])) return spaces[i];
  if (ptx_has(in, "shared::cta")) return "shared";
  return "generic";
}

void ptx_open_access(translator *t, const instruction *in, const char *text, int bytes, int how) {
  if (strcmp(ptx_space(in), "shared") == 0)
    fprintf(t->out, "{ uint8_t *p = emulator_shared(t, %s, %d, %d, %d);\n", ptx_address(t, text),
            bytes, how, t->line);
  else
    fprintf(t->out, "{ uint8_t *p = emulator_access(t, %s, %d, %d, \"%s\", %d);\n",
            ptx_address(t, text), bytes, how, ptx_space(in), t->line);
}

void ptx_begin_collective(translator *t, const char *kind, int aligned, const char *more) {
  t->fibres = true;
  fprintf(t->out,
          "{ static const emulator_collective c = {.kind = %s, .line = %d, .aligned = %d, %s};\n",
          kind, t->line, aligned, more);
}
