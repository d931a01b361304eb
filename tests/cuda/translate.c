/* translate.c - PTX to C, for the CUDA emulator. In: the text of a PTX module, as cmzc emits it
 * (PTX ISA 7.0 to 8.0). Out: one C function an entry, `void NAME(struct thread *t, void **params)`,
 * in terms of emulator_abi.h; registers are raw bits in C variables. Always holds: an instruction
 * that is not known ends the translation with a message that quotes it; nothing is guessed. */
#include "emulator.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  MAX_PARTS = 12,
  MAX_OPERANDS = 12,
  MAX_TEXT = 512,
  MAX_PARAMS = 512,
  MAX_SHARED = 256,
  MAX_BARE = 256
};

typedef struct shared_variable {
  char name[256];
  uint32_t bytes, align;
  long offset; /* -1: not used yet by this entry */
  bool launch; /* extern: its size is the launch's */
} shared_variable;

typedef struct translator {
  const char *at, *end;
  FILE *out;
  char *error;
  size_t error_size;
  char entry[MAX_TEXT];
  int param_count;
  bool failed;
  int lines_within; /* newlines inside of the statement */
  int line;         /* of the statement being translated */
  shared_variable shared[MAX_SHARED];
  int shared_count;
  uint32_t shared_bytes;   /* that the entry has used so far */
  char bare[MAX_BARE][64]; /* registers without a % */
  int bare_count;
  bool fibres;
} translator;

typedef struct instruction {
  char text[4 * MAX_TEXT]; /* for messages */
  char parts_text[MAX_TEXT], operands_text[4 * MAX_TEXT];
  const char *parts[MAX_PARTS];
  int part_count;
  char *operands[MAX_OPERANDS];
  int operand_count;
  char guard[64]; /* "" or a C condition */
} instruction;

static void fail(translator *t, const char *format, ...) {
  va_list args;
  if (t->failed) return;
  t->failed = true;
  va_start(args, format);
  int length = snprintf(t->error, t->error_size, "line %d: ", t->line);
  vsnprintf(t->error + length, t->error_size - (size_t)length, format, args);
  va_end(args);
}

static bool has(const instruction *in, const char *part) {
  for (int i = 1; i < in->part_count; i++)
    if (strcmp(in->parts[i], part) == 0) return true;
  return false;
}
static const char *type_of(const instruction *in) { return in->parts[in->part_count - 1]; }
static int type_bits(const char *type) {
  if (strcmp(type, "pred") == 0) return 1;
  if (strcmp(type, "bf16") == 0) return 16;
  return atoi(type + 1);
}

/* ---- operands ---- */

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

/* A raw-bits C expression for operand TEXT; in one of four buffers that take turns. */
static const char *value(translator *t, const char *text) {
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
  else fail(t, "operand \"%s\"", text);
  return out;
}

/* VALUE read as TYPE. */
static const char *typed(translator *t, const char *type, const char *text) {
  static _Thread_local char buffers[8][MAX_TEXT];
  static _Thread_local int turn;
  char *out = buffers[turn++ % 8];
  const char *v = value(t, text);
  int bits = type_bits(type);
  if (type[0] == 'f') snprintf(out, MAX_TEXT, "as_f%d((uint%d_t)%s)", bits, bits, v);
  else if (strcmp(type, "bf16") == 0) snprintf(out, MAX_TEXT, "as_bf16((uint16_t)%s)", v);
  else if (strcmp(type, "pred") == 0) snprintf(out, MAX_TEXT, "(%s)", v);
  else snprintf(out, MAX_TEXT, "((%sint%d_t)%s)", type[0] == 's' ? "" : "u", bits, v);
  return out;
}

static void assign(translator *t, const char *type, const char *destination, const char *format,
                   ...) {
  char expression[4 * MAX_TEXT];
  va_list args;
  va_start(args, format);
  vsnprintf(expression, sizeof expression, format, args);
  va_end(args);
  const char *d = value(t, destination);
  if (type[0] == 'f') fprintf(t->out, "%s = bits_f%d(%s);\n", d, type_bits(type), expression);
  else if (strcmp(type, "bf16") == 0) fprintf(t->out, "%s = bits_bf16(%s);\n", d, expression);
  else if (strcmp(type, "pred") == 0) fprintf(t->out, "%s = (%s) != 0;\n", d, expression);
  else fprintf(t->out, "%s = (uint%d_t)(%s);\n", d, type_bits(type), expression);
}

/* ---- instructions ---- */

typedef void handler(translator *t, const instruction *in);
#define A in->operands[0]
#define B in->operands[1]
#define C in->operands[2]
#define D in->operands[3]

static bool need(translator *t, const instruction *in, int count) {
  if (in->operand_count != count) fail(t, "%d operands for \"%s\"", in->operand_count, in->text);
  return !t->failed;
}

static void infix(translator *t, const instruction *in, const char *operator) {
  const char *type = type_of(in);
  if (!need(t, in, 3)) return;
  if (type[0] == 'f' || type[0] == 'b' || strcmp(type, "pred") == 0)
    assign(t, type, A, "%s %s %s", typed(t, type, B), operator, typed(t, type, C));
  else { /* integers wrap */ char unsigned_type[8];
    snprintf(unsigned_type, sizeof unsigned_type, "u%d", type_bits(type));
    assign(t, type, A, "%s %s %s", typed(t, unsigned_type, B), operator,
           typed(t, unsigned_type, C));
  }
}
static void do_add(translator *t, const instruction *in) { infix(t, in, "+"); }
static void do_sub(translator *t, const instruction *in) { infix(t, in, "-"); }
static void do_and(translator *t, const instruction *in) { infix(t, in, "&"); }
static void do_or(translator *t, const instruction *in) { infix(t, in, "|"); }
static void do_xor(translator *t, const instruction *in) { infix(t, in, "^"); }

static void do_mul(translator *t, const instruction *in) {
  const char *type = type_of(in);
  int bits = type_bits(type);
  const char *sign = type[0] == 's' ? "" : "u";
  if (!need(t, in, 3)) return;
  if (type[0] == 'f') assign(t, type, A, "%s * %s", typed(t, type, B), typed(t, type, C));
  else if (has(in, "wide"))
    fprintf(t->out, "%s = (uint%d_t)((%sint%d_t)%s * %s);\n", value(t, A), 2 * bits, sign, 2 * bits,
            typed(t, type, B), typed(t, type, C));
  else if (has(in, "hi")) {
    const char *wide =
        bits == 64 ? (*sign ? "unsigned __int128" : "__int128") : (*sign ? "uint64_t" : "int64_t");
    fprintf(t->out, "%s = (uint%d_t)(((%s)%s * %s) >> %d);\n", value(t, A), bits, wide,
            typed(t, type, B), typed(t, type, C), bits);
  } else
    assign(t, type, A, "(uint%d_t)((uint64_t)%s * (uint64_t)%s)", bits, value(t, B), value(t, C));
}

static void do_mad(translator *t, const instruction *in) {
  const char *type = type_of(in);
  int bits = type_bits(type);
  if (!need(t, in, 4)) return;
  if (has(in, "wide"))
    fprintf(t->out, "%s = (uint%d_t)((uint%d_t)((%sint%d_t)%s * %s) + %s);\n", value(t, A),
            2 * bits, 2 * bits, type[0] == 's' ? "" : "u", 2 * bits, typed(t, type, B),
            typed(t, type, C), value(t, D));
  else if (has(in, "lo"))
    assign(t, type, A, "(uint64_t)%s * (uint64_t)%s + (uint64_t)%s", value(t, B), value(t, C),
           value(t, D));
  else fail(t, "\"%s\"", in->text);
}

static void do_fma(translator *t, const instruction *in) {
  const char *type = type_of(in);
  if (!need(t, in, 4)) return;
  if (strcmp(type, "f16") == 0 || strcmp(type, "bf16") == 0) {
    fprintf(t->out, "%s = %s multiply_add(%s, %s, %s));\n", value(t, A),
            type[0] == 'f' ? "bits_f16((_Float16)" : "bits_bf16_odd(", typed(t, type, B),
            typed(t, type, C), typed(t, type, D));
    return;
  }
  if (strcmp(type, "f32") && strcmp(type, "f64")) fail(t, "\"%s\"", in->text);
  assign(t, type, A, "%s(%s, %s, %s)", strcmp(type, "f64") ? "fmaf" : "fma", typed(t, type, B),
         typed(t, type, C), typed(t, type, D));
}

static void do_div(translator *t, const instruction *in) {
  const char *type = type_of(in);
  if (!need(t, in, 3)) return;
  if (has(in, "approx")) fail(t, "an approximate result in \"%s\"", in->text);
  if (type[0] == 'f') assign(t, type, A, "%s / %s", typed(t, type, B), typed(t, type, C));
  else assign(t, type, A, "divide_%s(%s, %s)", type, typed(t, type, B), typed(t, type, C));
}
static void do_rem(translator *t, const instruction *in) {
  if (need(t, in, 3))
    assign(t, type_of(in), A, "remainder_%s(%s, %s)", type_of(in), typed(t, type_of(in), B),
           typed(t, type_of(in), C));
}

static void least(translator *t, const instruction *in, const char *name) {
  const char *type = type_of(in);
  if (!need(t, in, 3)) return;
  assign(t, type, A, "%s%s_%s(%s, %s)", name, has(in, "NaN") ? "_nan" : "", type, typed(t, type, B),
         typed(t, type, C));
}
static void do_min(translator *t, const instruction *in) { least(t, in, "min"); }
static void do_max(translator *t, const instruction *in) { least(t, in, "max"); }

static void do_neg(translator *t, const instruction *in) {
  if (need(t, in, 2))
    assign(t, type_of(in), A, type_of(in)[0] == 'f' ? "-%s" : "0 - %s", typed(t, type_of(in), B));
}
static void do_abs(translator *t, const instruction *in) {
  const char *type = type_of(in);
  if (need(t, in, 2))
    assign(t, type, A, type[0] == 'f' ? "__builtin_fabs(%s)" : "%s < 0 ? 0 - %s : %s",
           typed(t, type, B), typed(t, type, B), typed(t, type, B));
}
static void do_not(translator *t, const instruction *in) {
  if (need(t, in, 2))
    assign(t, type_of(in), A, strcmp(type_of(in), "pred") ? "~%s" : "!%s", value(t, B));
}
static void do_sqrt(translator *t, const instruction *in) {
  if (!has(in, "rn")) fail(t, "an approximate result in \"%s\"", in->text);
  if (need(t, in, 2))
    assign(t, type_of(in), A, "%s(%s)", strcmp(type_of(in), "f64") ? "sqrtf" : "sqrt",
           typed(t, type_of(in), B));
}
static void do_rcp(translator *t, const instruction *in) {
  if (!has(in, "rn")) fail(t, "an approximate result in \"%s\"", in->text);
  if (need(t, in, 2)) assign(t, type_of(in), A, "1 / %s", typed(t, type_of(in), B));
}
static void do_copysign(translator *t,
                        const instruction *in) { /* the first operand gives the sign */
  if (need(t, in, 3))
    assign(t, type_of(in), A, "__builtin_copysign%s(%s, %s)", strcmp(type_of(in), "f64") ? "f" : "",
           typed(t, type_of(in), C), typed(t, type_of(in), B));
}

static void do_shl(translator *t, const instruction *in) {
  int bits = type_bits(type_of(in));
  if (need(t, in, 3))
    assign(t, type_of(in), A, "(uint32_t)%s >= %d ? 0 : (uint%d_t)%s << (uint32_t)%s", value(t, C),
           bits, bits, value(t, B), value(t, C));
}
static void do_shr(translator *t, const instruction *in) {
  int bits = type_bits(type_of(in));
  if (!need(t, in, 3)) return;
  if (type_of(in)[0] == 's')
    assign(t, type_of(in), A, "%s >> ((uint32_t)%s >= %d ? %d : (uint32_t)%s)",
           typed(t, type_of(in), B), value(t, C), bits, bits - 1, value(t, C));
  else
    assign(t, type_of(in), A, "(uint32_t)%s >= %d ? 0 : (uint%d_t)%s >> (uint32_t)%s", value(t, C),
           bits, bits, value(t, B), value(t, C));
}

static void do_setp(translator *t, const instruction *in) {
  static const struct {
    const char *name, *format;
  } rows[] = {{"eq", "%s == %s"},     {"ne", "is_ne(%s, %s)"},   {"lt", "%s < %s"},
              {"le", "%s <= %s"},     {"gt", "%s > %s"},         {"ge", "%s >= %s"},
              {"lo", "%s < %s"},      {"ls", "%s <= %s"},        {"hi", "%s > %s"},
              {"hs", "%s >= %s"},     {"equ", "!is_ne(%s, %s)"}, {"neu", "%s != %s"},
              {"ltu", "!(%s >= %s)"}, {"leu", "!(%s > %s)"},     {"gtu", "!(%s <= %s)"},
              {"geu", "!(%s < %s)"},  {"num", "is_num(%s, %s)"}, {"nan", "!is_num(%s, %s)"}};
  const char *type = type_of(in), *format = NULL, *combine = NULL;
  for (int p = 1; p < in->part_count - 1; p++) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
      if (strcmp(in->parts[p], rows[i].name) == 0) format = rows[i].format;
    if (strcmp(in->parts[p], "and") == 0) combine = "&&";
    if (strcmp(in->parts[p], "or") == 0) combine = "||";
  }
  char comparison[MAX_TEXT];
  if (!format || !need(t, in, combine ? 4 : 3)) {
    fail(t, "\"%s\"", in->text);
    return;
  }
  if (type[0] != 'f') /* integers have no unordered forms */
    format = strcmp(format, "is_ne(%s, %s)") == 0 ? "%s != %s" : format;
  snprintf(comparison, sizeof comparison, format, typed(t, type, B), typed(t, type, C));
  if (combine) assign(t, "pred", A, "(%s) %s %s", comparison, combine, value(t, D));
  else assign(t, "pred", A, "%s", comparison);
}

static void do_selp(translator *t, const instruction *in) {
  if (need(t, in, 4))
    fprintf(t->out, "%s = (uint%d_t)(%s ? %s : %s);\n", value(t, A),
            type_bits(type_of(in)) < 8 ? 8 : type_bits(type_of(in)), value(t, D), value(t, B),
            value(t, C));
}

/* {%a, %b} split at commas; returns the count, or 0 when TEXT is no such group. */
static int group(char *text, char *items[4]) {
  int count = 0;
  if (text[0] != '{') return 0;
  for (char *at = strtok(text + 1, ",} \t"); at && count < 4; at = strtok(NULL, ",} \t"))
    items[count++] = at;
  return count;
}

static void do_mov(translator *t, const instruction *in) {
  char *items[4], copy[MAX_TEXT];
  int bits = type_bits(type_of(in));
  if (!need(t, in, 2)) return;
  snprintf(copy, sizeof copy, "%s", A);
  int count = group(copy, items);
  if (count) {
    for (int i = 0; i < count; i++)
      if (strcmp(items[i], "_") != 0)
        fprintf(t->out, "%s = (uint%d_t)((uint%d_t)%s >> %d);\n", value(t, items[i]), bits / count,
                bits, value(t, B), i * bits / count);
    return;
  }
  snprintf(copy, sizeof copy, "%s", B);
  count = group(copy, items);
  if (count) {
    fprintf(t->out, "%s = 0", value(t, A));
    for (int i = 0; i < count; i++)
      fprintf(t->out, " | (uint%d_t)(uint%d_t)%s << %d", bits, bits / count, value(t, items[i]),
              i * bits / count);
    fprintf(t->out, ";\n");
    return;
  }
  assign(t,
         strcmp(type_of(in), "pred") == 0 ? "pred"
         : bits == 64                     ? "b64"
         : bits == 32                     ? "b32"
                                          : "b16",
         A, "%s", value(t, B));
}

static void do_cvt(translator *t, const instruction *in) {
  const char *from = type_of(in), *to = in->parts[in->part_count - 2], *rounding = "";
  static const char *const modes[] = {"rni", "rzi", "rmi", "rpi"};
  if (!need(t, in, 2)) return;
  if (has(in, "ftz")) fail(t, "denormals flushed in \"%s\"", in->text);
  for (size_t i = 0; i < 4; i++)
    if (has(in, modes[i])) rounding = modes[i];
  bool from_float = from[0] == 'f' || from[0] == 'b', to_float = to[0] == 'f' || to[0] == 'b';
  char source[2 * MAX_TEXT];
  if (from_float && *rounding)
    snprintf(source, sizeof source, "round_%s(%s)", rounding, typed(t, from, B));
  else snprintf(source, sizeof source, "%s", typed(t, from, B));
  if (from_float && !to_float) assign(t, to, A, "saturate_%s(%s)", to, source);
  else if (has(in, "sat") && !from_float) assign(t, to, A, "clamp_%s(%s)", to, source);
  else if (has(in, "sat")) fail(t, "\"%s\"", in->text);
  else if (to_float && !from_float && strcmp(to, "f32") == 0) assign(t, to, A, "(float)%s", source);
  else assign(t, to, A, "%s", source);
}

/* [base+offset] as a C address. */
static const char *address(translator *t, const char *text) {
  static _Thread_local char out[2 * MAX_TEXT];
  char base[MAX_TEXT];
  long long offset = 0;
  if (sscanf(text, "[%[^]+ ]", base) != 1) {
    fail(t, "address \"%s\"", text);
    return "0";
  }
  const char *plus = strchr(text, '+');
  if (plus) offset = strtoll(plus + 1, NULL, 10);
  snprintf(out, sizeof out, "(uint64_t)(%s) + %lldll", value(t, base), offset);
  return out;
}

static const char *space_of(const instruction *in) {
  /* the space stands in one part; "shared::cta" is the block's own */
  static const char *const spaces[] = {"global", "local", "shared", "const", "param"};
  for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
    if (has(in, spaces[i])) return spaces[i];
  if (has(in, "shared::cta")) return "shared";
  return "generic";
}

/* Begins a C block in which p is the checked place of BYTES bytes; HOW as emulator_access has it.
 */
static void open_access(translator *t, const instruction *in, const char *text, int bytes,
                        int how) {
  if (strcmp(space_of(in), "shared") == 0)
    fprintf(t->out, "{ uint8_t *p = emulator_shared(t, %s, %d, %d, %d);\n", address(t, text), bytes,
            how, t->line);
  else
    fprintf(t->out, "{ uint8_t *p = emulator_access(t, %s, %d, %d, \"%s\", %d);\n",
            address(t, text), bytes, how, space_of(in), t->line);
}

static void do_ld(translator *t, const instruction *in) {
  char *items[4], copy[MAX_TEXT];
  int bits = type_bits(type_of(in));
  if (!need(t, in, 2)) return;
  if (has(in, "param")) {
    char name[MAX_TEXT];
    const char *number;
    if (sscanf(B, "[%[^]+ ]", name) != 1 || !(number = strrchr(name, '_')) || strchr(B, '+'))
      fail(t, "\"%s\"", in->text);
    else
      fprintf(t->out, "{ uint%d_t v; memcpy(&v, params[%d], sizeof v); %s = v; }\n", bits,
              atoi(number + 1), value(t, A));
    return;
  }
  snprintf(copy, sizeof copy, "%s", A);
  int count = group(copy, items);
  if (!count) items[0] = A, count = 1;
  open_access(t, in, B, count * bits / 8, 0);
  for (int i = 0; i < count; i++) {
    if (strcmp(items[i], "_") == 0) continue;
    fprintf(t->out, "{ %sint%d_t v; memcpy(&v, p + %d, sizeof v); %s = %s; }",
            type_of(in)[0] == 's' ? "" : "u", bits, i * bits / 8, value(t, items[i]),
            type_of(in)[0] == 's' ? "(uint64_t)(int64_t)v" : "v");
  }
  fprintf(t->out, " }\n");
}

static void do_st(translator *t, const instruction *in) {
  char *items[4], copy[MAX_TEXT];
  int bits = type_bits(type_of(in));
  if (!need(t, in, 2)) return;
  snprintf(copy, sizeof copy, "%s", B);
  int count = group(copy, items);
  if (!count) items[0] = B, count = 1;
  open_access(t, in, A, count * bits / 8, 1);
  for (int i = 0; i < count; i++)
    fprintf(t->out, "{ uint%d_t v = (uint%d_t)%s; memcpy(p + %d, &v, sizeof v); }", bits, bits,
            value(t, items[i]), i * bits / 8);
  fprintf(t->out, " }\n");
}

/* Generic addresses are the host's; shared memory's own count from 0. */
static void do_cvta(translator *t, const instruction *in) {
  bool shared = strcmp(space_of(in), "shared") == 0;
  if (need(t, in, 2))
    fprintf(t->out, "%s = %s%s;\n", value(t, A), value(t, B),
            !shared         ? ""
            : has(in, "to") ? " - t->window"
                            : " + t->window");
}
static void do_bra(translator *t, const instruction *in) {
  if (need(t, in, 1)) fprintf(t->out, "goto l_%s;\n", A[0] == '$' ? A + 1 : A);
}
static void do_ret(translator *t, const instruction *in) {
  (void)in;
  fprintf(t->out, "return;\n");
}
static void do_count(translator *t, const instruction *in) {
  static const struct {
    const char *name, *function;
  } rows[] = {{"popc", "popcount"}, {"clz", "leading_zeros"}, {"brev", "reversed"}};
  for (size_t i = 0; i < 3; i++)
    if (strcmp(in->parts[0], rows[i].name) == 0 && need(t, in, 2))
      fprintf(t->out, "%s = %s_%d(%s);\n", value(t, A), rows[i].function, type_bits(type_of(in)),
              typed(t, type_of(in), B));
}
static void do_prmt(translator *t, const instruction *in) {
  if (in->part_count != 2) fail(t, "\"%s\"", in->text);
  if (need(t, in, 4))
    fprintf(t->out, "%s = permute((uint32_t)%s, (uint32_t)%s, (uint32_t)%s);\n", value(t, A),
            value(t, B), value(t, C), value(t, D));
}
static void do_bfe(translator *t, const instruction *in) {
  if (need(t, in, 4))
    fprintf(t->out, "%s = (uint%d_t)extract_%s(%s, (uint32_t)%s, (uint32_t)%s);\n", value(t, A),
            type_bits(type_of(in)), type_of(in), typed(t, type_of(in), B), value(t, C),
            value(t, D));
}
static void do_lop3(translator *t, const instruction *in) {
  if (need(t, in, 5))
    fprintf(t->out, "%s = logic3((uint32_t)%s, (uint32_t)%s, (uint32_t)%s, (uint32_t)%s);\n",
            value(t, A), value(t, B), value(t, C), value(t, D), value(t, in->operands[4]));
}
static void do_shf(translator *t, const instruction *in) {
  if (!has(in, "wrap")) fail(t, "\"%s\"", in->text);
  if (need(t, in, 4))
    fprintf(t->out, "%s = funnel_%s((uint32_t)%s, (uint32_t)%s, (uint32_t)%s);\n", value(t, A),
            has(in, "l") ? "left" : "right", value(t, B), value(t, C), value(t, D));
}
static void do_trap(translator *t, const instruction *in) {
  (void)in;
  fprintf(t->out, "emulator_trap(t, %d);\n", t->line);
}

/* ---- instructions of several threads ---- */

/* Splits {a, b, …} or a single operand of TEXT into ITEMS; returns how many. */
static int items_of(const char *text, char copy[MAX_TEXT], char *items[16]) {
  int count = 0;
  snprintf(copy, MAX_TEXT, "%s", text);
  for (char *at = strtok(copy, "{,} \t"); at && count < 16; at = strtok(NULL, "{,} \t"))
    items[count++] = at;
  return count;
}

static void begin_collective(translator *t, const char *kind, int aligned, const char *more) {
  t->fibres = true;
  fprintf(t->out,
          "{ static const emulator_collective c = {.kind = %s, .line = %d, .aligned = %d, %s};\n",
          kind, t->line, aligned, more);
}

static void do_bar(translator *t, const instruction *in) {
  bool arrive = has(in, "arrive"), reduce = has(in, "red");
  bool aligned = strcmp(in->parts[0], "bar") == 0 || has(in, "aligned");
  if (has(in, "warp")) {
    if (!need(t, in, 1)) return;
    begin_collective(t, "COLLECTIVE_BARRIER", 0, ".name = \"bar.warp.sync\"");
    fprintf(t->out, "emulator_collective_call(t, &c, (uint32_t)%s, 0, 0); }\n", value(t, A));
    return;
  }
  if (!arrive && !reduce && !has(in, "sync")) fail(t, "\"%s\"", in->text);
  t->fibres = true;
  if (!reduce) {
    if (in->operand_count < 1 || in->operand_count > 2 || (arrive && in->operand_count != 2))
      fail(t, "\"%s\"", in->text);
    else
      fprintf(t->out, "emulator_barrier(t, (uint32_t)%s, (uint32_t)%s, 0, %d, %d, %d);\n",
              value(t, A), in->operand_count > 1 ? value(t, B) : "0", !arrive, aligned, t->line);
    return;
  }
  if (in->operand_count != 3) { /* with a number of threads: not seen yet */
    fail(t, "\"%s\"", in->text);
    return;
  }
  const char *result = has(in, "popc") ? "n" : has(in, "or") ? "n != 0" : NULL;
  if (!result && !has(in, "and")) fail(t, "\"%s\"", in->text);
  fprintf(t->out,
          "{ uint32_t n = emulator_barrier(t, (uint32_t)%s, 0, (%s) %s 0, 1, %d, %d); %s = %s; }\n",
          value(t, B), value(t, C), result ? "!=" : "==", aligned, t->line, value(t, A),
          result ? result : "n == 0");
}

static void do_shfl(translator *t, const instruction *in) {
  static const struct {
    const char *mode, *kind;
  } rows[] = {{"idx", "COLLECTIVE_SHUFFLE_IDX"},
              {"up", "COLLECTIVE_SHUFFLE_UP"},
              {"down", "COLLECTIVE_SHUFFLE_DOWN"},
              {"bfly", "COLLECTIVE_SHUFFLE_BFLY"}};
  const char *kind = NULL;
  for (size_t i = 0; i < 4; i++)
    if (has(in, rows[i].mode)) kind = rows[i].kind;
  bool pair = in->operand_count == 6; /* d|p, a, b, c, mask */
  char *const *o = in->operands + pair;
  if (!kind || !has(in, "sync") || in->operand_count < 5 || in->operand_count > 6) {
    fail(t, "\"%s\"", in->text);
    return;
  }
  begin_collective(t, kind, 0, ".name = \"shfl.sync\"");
  fprintf(t->out, "uint32_t in[3] = {(uint32_t)%s, (uint32_t)%s, (uint32_t)%s}, out[2];\n",
          value(t, o[1]), value(t, o[2]), value(t, o[3]));
  fprintf(t->out, "emulator_collective_call(t, &c, (uint32_t)%s, in, out); %s = out[0];\n",
          value(t, o[4]), value(t, A));
  if (pair) fprintf(t->out, "%s = out[1] != 0;\n", value(t, B));
  fprintf(t->out, "}\n");
}

static void do_vote(translator *t, const instruction *in) {
  const char *kind = has(in, "all")      ? "COLLECTIVE_VOTE_ALL"
                     : has(in, "any")    ? "COLLECTIVE_VOTE_ANY"
                     : has(in, "uni")    ? "COLLECTIVE_VOTE_UNI"
                     : has(in, "ballot") ? "COLLECTIVE_VOTE_BALLOT"
                                         : NULL;
  if (!kind || !has(in, "sync")) fail(t, "\"%s\"", in->text);
  if (!need(t, in, 3)) return;
  begin_collective(t, kind, 0, ".name = \"vote.sync\"");
  fprintf(t->out,
          "uint32_t in[1] = {(%s) != 0}, out[1]; emulator_collective_call(t, &c, (uint32_t)%s, in, "
          "out); %s = out[0]; }\n",
          value(t, B), value(t, C), value(t, A));
}

static void do_redux(translator *t, const instruction *in) {
  static const char *const operations[] = {"add.s32", "add.u32", "min.s32", "max.s32", "min.u32",
                                           "max.u32", "and.b32", "or.b32",  "xor.b32"};
  char form[64], more[128];
  if (!need(t, in, 3)) return;
  snprintf(form, sizeof form, "%s.%s", in->part_count == 4 ? in->parts[2] : "", type_of(in));
  for (int i = 0; i < 9; i++) {
    if (strcmp(form, operations[i]) != 0) continue;
    snprintf(more, sizeof more, ".name = \"redux.sync\", .operation = %d", i);
    begin_collective(t, "COLLECTIVE_REDUX", 0, more);
    fprintf(
        t->out,
        "uint32_t in[1] = {(uint32_t)%s}, out[1]; emulator_collective_call(t, &c, (uint32_t)%s, "
        "in, out); %s = out[0]; }\n",
        value(t, B), value(t, C), value(t, A));
    return;
  }
  fail(t, "\"%s\"", in->text);
}
static void do_activemask(translator *t, const instruction *in) {
  t->fibres = true;
  if (need(t, in, 1)) fprintf(t->out, "%s = emulator_active(t);\n", value(t, A));
}

static void do_ldmatrix(translator *t, const instruction *in) {
  char copy[MAX_TEXT], more[128], *items[16];
  int count = has(in, "x1") ? 1 : has(in, "x2") ? 2 : has(in, "x4") ? 4 : 0;
  if (!count || !has(in, "m8n8") || strcmp(type_of(in), "b16") || strcmp(space_of(in), "shared") ||
      in->operand_count != 2 || items_of(A, copy, items) != count) {
    fail(t, "\"%s\"", in->text);
    return;
  }
  snprintf(more, sizeof more, ".name = \"ldmatrix\", .count = %d, .transposed = %d", count,
           has(in, "trans"));
  begin_collective(t, "COLLECTIVE_LDMATRIX", 1, more);
  fprintf(t->out, "uint32_t in[1] = {(uint32_t)(%s)}, out[4];", address(t, B));
  fprintf(t->out, " emulator_collective_call(t, &c, 0xffffffffu, in, out);\n");
  for (int i = 0; i < count; i++) fprintf(t->out, "%s = out[%d];", value(t, items[i]), i);
  fprintf(t->out, " }\n");
}

static void do_mma(translator *t, const instruction *in) {
  /* the shapes whose fragments the PTX ISA gives, by the type of A (section "mma") */
  static const struct {
    const char *shape, *a, *b, *accumulator, *form;
    int k, words_a, words_b;
  } rows[] = {
      {"m16n8k16", "f16", "f16", "f32", ".a = E_F16, .b = E_F16, .accumulator = E_F32", 16, 4, 2},
      {"m16n8k16", "bf16", "bf16", "f32", ".a = E_BF16, .b = E_BF16, .accumulator = E_F32", 16, 4,
       2},
      {"m16n8k8", "f16", "f16", "f32", ".a = E_F16, .b = E_F16, .accumulator = E_F32", 8, 2, 1},
      {"m16n8k8", "bf16", "bf16", "f32", ".a = E_BF16, .b = E_BF16, .accumulator = E_F32", 8, 2, 1},
      {"m16n8k8", "tf32", "tf32", "f32", ".a = E_TF32, .b = E_TF32, .accumulator = E_F32", 8, 4, 2},
      {"m16n8k4", "tf32", "tf32", "f32", ".a = E_TF32, .b = E_TF32, .accumulator = E_F32", 4, 2, 1},
      {"m16n8k32", "s8", "s8", "s32", ".a = E_S8, .b = E_S8, .accumulator = E_S32", 32, 4, 2},
      {"m16n8k32", "u8", "u8", "s32", ".a = E_U8, .b = E_U8, .accumulator = E_S32", 32, 4, 2},
      {"m16n8k32", "s8", "u8", "s32", ".a = E_S8, .b = E_U8, .accumulator = E_S32", 32, 4, 2},
      {"m16n8k32", "u8", "s8", "s32", ".a = E_U8, .b = E_S8, .accumulator = E_S32", 32, 4, 2},
      {"m16n8k16", "s8", "s8", "s32", ".a = E_S8, .b = E_S8, .accumulator = E_S32", 16, 2, 1},
      {"m16n8k16", "u8", "u8", "s32", ".a = E_U8, .b = E_U8, .accumulator = E_S32", 16, 2, 1},
      {"m16n8k16", "u8", "s8", "s32", ".a = E_U8, .b = E_S8, .accumulator = E_S32", 16, 2, 1},
      {"m16n8k16", "s8", "u8", "s32", ".a = E_S8, .b = E_U8, .accumulator = E_S32", 16, 2, 1}};
  int n = in->part_count;
  char more[256], copy[4][MAX_TEXT], *items[4][16];
  if (n != 10 || !has(in, "sync") || !has(in, "aligned") || !has(in, "row") || !has(in, "col")) {
    fail(t, "\"%s\"", in->text);
    return;
  }
  for (size_t r = 0; r < sizeof rows / sizeof rows[0] && need(t, in, 4); r++) {
    if (strcmp(in->parts[3], rows[r].shape) || strcmp(in->parts[n - 3], rows[r].a) ||
        strcmp(in->parts[n - 2], rows[r].b) || strcmp(in->parts[n - 4], rows[r].accumulator) ||
        strcmp(in->parts[n - 1], rows[r].accumulator))
      continue;
    int counts[4] = {4, rows[r].words_a, rows[r].words_b, 4};
    for (int i = 0; i < 4; i++)
      if (items_of(in->operands[i], copy[i], items[i]) != counts[i]) fail(t, "\"%s\"", in->text);
    if (t->failed) return;
    snprintf(more, sizeof more, ".name = \"mma.sync\", .k = %d, %s", rows[r].k, rows[r].form);
    begin_collective(t, "COLLECTIVE_MMA", 1, more);
    fprintf(t->out, "uint32_t in[10] = {");
    static const int begins[4] = {0, 4, 8, 0}; /* in: C, A, B */
    for (int i = 1; i < 4; i++)
      for (int j = 0; j < counts[i]; j++)
        fprintf(t->out, "[%d] = (uint32_t)%s, ", begins[i] + j, value(t, items[i][j]));
    fprintf(t->out, "}, out[4]; emulator_collective_call(t, &c, 0xffffffffu, in, out);\n");
    for (int j = 0; j < 4; j++) fprintf(t->out, "%s = out[%d];", value(t, items[0][j]), j);
    fprintf(t->out, " }\n");
    return;
  }
  fail(t, "this form of mma is not known: \"%s\"", in->text);
}

static void do_cp(translator *t, const instruction *in) {
  if (in->part_count < 3 || strcmp(in->parts[1], "async") || has(in, "bulk") ||
      has(in, "mbarrier")) {
    fail(t, "\"%s\"", in->text);
    return;
  }
  t->fibres = true;
  if (has(in, "commit_group")) fprintf(t->out, "emulator_copy_commit(t);\n");
  else if (has(in, "wait_all")) fprintf(t->out, "emulator_copy_wait(t, 0, 1);\n");
  else if (has(in, "wait_group") && need(t, in, 1))
    fprintf(t->out, "emulator_copy_wait(t, (uint32_t)%s, 0);\n", value(t, A));
  else if ((has(in, "ca") || has(in, "cg")) && has(in, "global") && !has(in, "L2::cache_hint") &&
           (in->operand_count == 3 || in->operand_count == 4)) {
    char to[2 * MAX_TEXT];
    snprintf(to, sizeof to, "%s", address(t, A));
    fprintf(t->out, "emulator_copy_async(t, %s, %s, (uint32_t)%s, (uint32_t)%s, %d);\n", to,
            address(t, B), value(t, C), value(t, in->operand_count == 4 ? D : C), t->line);
  } else fail(t, "\"%s\"", in->text);
}

static void do_atom(translator *t, const instruction *in) {
  static const struct {
    const char *name, *format;
  } rows[] = {{"add", "%s + %s"}, {"and", "%s & %s"}, {"or", "%s | %s"},
              {"xor", "%s ^ %s"}, {"min", "%s"},      {"max", "%s"}};
  const char *type = type_of(in);
  bool result = strcmp(in->parts[0], "atom") == 0;
  char old[MAX_TEXT], operand[MAX_TEXT];
  int bits = type_bits(type);
  const char *const *parts = (const char *const *)in->parts;
  const char *operation = in->part_count >= 2 ? parts[in->part_count - 2] : "";
  if (strcmp(operation, "noftz") == 0) operation = parts[in->part_count - 3];
  bool swap = strcmp(operation, "cas") == 0, exchange = strcmp(operation, "exch") == 0;
  if (!need(t, in, 2 + result + swap) || strchr(type, 'x')) {
    fail(t, "\"%s\"", in->text);
    return;
  }
  open_access(t, in, in->operands[result], bits / 8, 2);
  const char *b = in->operands[1 + result];
  fprintf(t->out, "uint%d_t r_old, r_new = (uint%d_t)%s; memcpy(&r_old, p, sizeof r_old);\n", bits,
          bits, value(t, b));
  snprintf(old, sizeof old, "%s", typed(t, type, "%old"));
  snprintf(operand, sizeof operand, "%s", typed(t, type, "%new"));
  bool found = exchange || swap;
  if (swap)
    fprintf(t->out, "if (r_old == r_new) r_new = (uint%d_t)%s; else r_new = r_old;\n", bits,
            value(t, in->operands[2 + result]));
  for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !found; i++) {
    if (strcmp(operation, rows[i].name) != 0) continue;
    found = true;
    if (i >= 4) assign(t, type, "%new", "%s_%s(%s, %s)", operation, type, old, operand);
    else assign(t, type, "%new", rows[i].format, old, operand);
  }
  if (!found) fail(t, "\"%s\"", in->text);
  fprintf(t->out, "memcpy(p, &r_new, sizeof r_new); %s%s }\n", result ? value(t, A) : "",
          result ? " = r_old;" : "");
}

static void do_dp4a(translator *t, const instruction *in) {
  if (need(t, in, 4))
    fprintf(t->out, "%s = dot4_%c%c((uint32_t)%s, (uint32_t)%s, (uint32_t)%s);\n", value(t, A),
            in->parts[in->part_count - 2][0], type_of(in)[0], value(t, B), value(t, C),
            value(t, D));
}
static void do_nothing(translator *t, const instruction *in) {
  (void)t, (void)in;
} /* hints, fences */

static const struct {
  const char *name;
  handler *handle;
} handlers[] = {{"add", do_add},
                {"sub", do_sub},
                {"mul", do_mul},
                {"mad", do_mad},
                {"fma", do_fma},
                {"div", do_div},
                {"rem", do_rem},
                {"min", do_min},
                {"max", do_max},
                {"neg", do_neg},
                {"abs", do_abs},
                {"not", do_not},
                {"and", do_and},
                {"or", do_or},
                {"xor", do_xor},
                {"shl", do_shl},
                {"shr", do_shr},
                {"setp", do_setp},
                {"selp", do_selp},
                {"mov", do_mov},
                {"cvt", do_cvt},
                {"ld", do_ld},
                {"st", do_st},
                {"cvta", do_cvta},
                {"bra", do_bra},
                {"ret", do_ret},
                {"exit", do_ret},
                {"sqrt", do_sqrt},
                {"rcp", do_rcp},
                {"copysign", do_copysign},
                {"popc", do_count},
                {"clz", do_count},
                {"brev", do_count},
                {"prmt", do_prmt},
                {"bfe", do_bfe},
                {"lop3", do_lop3},
                {"shf", do_shf},
                {"trap", do_trap},
                {"bar", do_bar},
                {"barrier", do_bar},
                {"shfl", do_shfl},
                {"vote", do_vote},
                {"redux", do_redux},
                {"activemask", do_activemask},
                {"ldmatrix", do_ldmatrix},
                {"mma", do_mma},
                {"cp", do_cp},
                {"atom", do_atom},
                {"red", do_atom},
                {"dp4a", do_dp4a},
                {"membar", do_nothing},
                {"fence", do_nothing},
                {"prefetch", do_nothing},
                {"nanosleep", do_nothing}};

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
    else fail(t, "a statement longer than %zu bytes", size);
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
      fail(t, "too many operands in \"%s\"", in->text);
      return;
    }
    in->operands[in->operand_count++] = at--;
  }
}

/* f16x2 and bf16x2 arithmetic: the scalar instruction on each half. */
static bool is_packed(const instruction *in) {
  static const char *const names[] = {"add", "sub", "mul", "fma", "min", "max", "neg", "abs"};
  const char *type = type_of(in);
  if (strcmp(type, "f16x2") && strcmp(type, "bf16x2")) return false;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strcmp(in->parts[0], names[i]) == 0) return true;
  return false;
}
static void packed(translator *t, const instruction *in, handler *handle) {
  static char names[4][8] = {"%h0", "%h1", "%h2", "%h3"};
  instruction half = *in;
  half.parts[in->part_count - 1] = in->part_count && type_of(in)[0] == 'f' ? "f16" : "bf16";
  if (in->operand_count > 4) fail(t, "\"%s\"", in->text);
  fprintf(t->out, "{ uint32_t packed = 0;\n");
  for (int h = 0; h < 2 && !t->failed; h++) {
    fprintf(t->out, "{ uint16_t r_h0;");
    for (int i = 1; i < in->operand_count; i++)
      fprintf(t->out, " uint16_t r_h%d = (uint16_t)((uint32_t)%s >> %d);", i,
              value(t, in->operands[i]), 16 * h);
    for (int i = 0; i < in->operand_count; i++) half.operands[i] = names[i];
    handle(t, &half);
    fprintf(t->out, "packed |= (uint32_t)r_h0 << %d; }\n", 16 * h);
  }
  fprintf(t->out, "%s = packed; }\n", value(t, in->operands[0]));
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
  for (size_t i = 0; i < sizeof handlers / sizeof handlers[0] && !t->failed; i++) {
    if (strcmp(handlers[i].name, in.parts[0]) != 0) continue;
    if (*in.guard) fprintf(t->out, "if (%s) {\n", in.guard);
    if (is_packed(&in)) packed(t, &in, handlers[i].handle);
    else handlers[i].handle(t, &in);
    if (*in.guard) fprintf(t->out, "}\n");
    return;
  }
  fail(t, "unknown instruction \"%s\"", in.text);
}

/* .reg .b32 %r<11>; */
static void registers(translator *t, const char *text) {
  char type[16], name[64];
  int count;
  if (sscanf(text, ".reg .%15s %%%63[A-Za-z]<%d>", type, name, &count) == 3) {
    int bits = type_bits(type) < 8 ? 8 : type_bits(type);
    for (int i = 1; i < count; i++)
      fprintf(t->out, "uint%d_t r_%s%d = 0; (void)r_%s%d;\n", bits, name, i, name, i);
  } else if (sscanf(text, ".reg .%15s %%%63[A-Za-z]", type, name) == 2) {
    fprintf(t->out, "uint%d_t r_%s = 0; (void)r_%s;\n", type_bits(type), name, name);
  } else { /* names without a % */
    char copy[4 * MAX_TEXT];
    snprintf(copy, sizeof copy, "%s", text);
    char *at = strtok(copy, " ,");
    at = at ? strtok(NULL, " ,") : NULL;
    if (!at || *at++ != '.') {
      fail(t, "\"%s\"", text);
      return;
    }
    int bits = type_bits(at) < 8 ? 8 : type_bits(at);
    while ((at = strtok(NULL, " ,")) && !t->failed) {
      if (t->bare_count == MAX_BARE || !isalpha((unsigned char)*at)) fail(t, "\"%s\"", text);
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
  if (t->shared_count == MAX_SHARED) fail(t, "too many shared variables");
  if (t->failed) return;
  *v = (shared_variable){.offset = -1};
  at = align ? align + strcspn(align, "0123456789") : at + 7;
  if (align) v->align = (uint32_t)strtoul(at, (char **)&at, 10);
  if (sscanf(at, " .%7s %255[^[ ]", type, v->name) != 2) fail(t, "\"%.100s\"", text);
  const char *bracket = strchr(text, '[');
  v->launch = bracket && bracket[1] == ']';
  if (bracket && !v->launch) count = strtoul(bracket + 1, NULL, 10);
  v->bytes = (uint32_t)count * (uint32_t)type_bits(type) / 8;
  if (!v->align) v->align = (uint32_t)type_bits(type) / 8;
  t->shared_count++;
}

static void body(translator *t) {
  char text[4 * MAX_TEXT];
  int depth = 0;
  while (!t->failed) {
    skip_space(t);
    if (t->at >= t->end) fail(t, "the text ends inside of %s", t->entry);
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
        else fail(t, "\"%s\"", text);
      } else if (strncmp(text, ".pragma", 7) == 0 || strncmp(text, ".loc", 4) == 0) continue;
      else if (text[0] == '.') fail(t, "\"%s\"", text);
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
    if (!bits) fail(t, "a parameter of unknown size");
    fprintf(t->out, "%u, ", bits / 8 * elements);
    at = after;
  }
  fprintf(t->out, "0};\n");
  return count;
}

static void entry(translator *t, const char *text) {
  const char *name = strstr(text, ".entry");
  if (!name || sscanf(name, ".entry %511[^( ]", t->entry) != 1) {
    fail(t, "\"%s\"", text);
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
    fail(t, "\"%.100s\"", text);
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
    } else fail(&t, "\"%.100s\"", text);
  }
  return !t.failed;
}
