/* translate_arithmetic.c - PTX's arithmetic, comparisons, conversions and moves as C. In: one
 * instruction. Out: C statements. Always holds: results are rounded as the PTX ISA says;
 * approximate forms are refused. */
#include "translate.h"

#define A in->operands[0]
#define B in->operands[1]
#define C in->operands[2]
#define D in->operands[3]

static void infix(translator *t, const instruction *in, const char *operator) {
  const char *type = ptx_type(in);
  if (!ptx_need(t, in, 3)) return;
  if (type[0] == 'f' || type[0] == 'b' || strcmp(type, "pred") == 0)
    ptx_assign(t, type, A, "%s %s %s", ptx_typed(t, type, B), operator, ptx_typed(t, type, C));
  else { /* integers wrap */ char unsigned_type[8];
    snprintf(unsigned_type, sizeof unsigned_type, "u%d", ptx_bits(type));
    ptx_assign(t, type, A, "%s %s %s", ptx_typed(t, unsigned_type, B), operator,
               ptx_typed(t, unsigned_type, C));
  }
}

static void do_add(translator *t, const instruction *in) { infix(t, in, "+"); }
static void do_sub(translator *t, const instruction *in) { infix(t, in, "-"); }
static void do_and(translator *t, const instruction *in) { infix(t, in, "&"); }
static void do_or(translator *t, const instruction *in) { infix(t, in, "|"); }
static void do_xor(translator *t, const instruction *in) { infix(t, in, "^"); }

static void do_mul(translator *t, const instruction *in) {
  const char *type = ptx_type(in);
  int bits = ptx_bits(type);
  const char *sign = type[0] == 's' ? "" : "u";
  if (!ptx_need(t, in, 3)) return;
  if (type[0] == 'f')
    ptx_assign(t, type, A, "%s * %s", ptx_typed(t, type, B), ptx_typed(t, type, C));
  else if (ptx_has(in, "wide"))
    fprintf(t->out, "%s = (uint%d_t)((%sint%d_t)%s * %s);\n", ptx_value(t, A), 2 * bits, sign,
            2 * bits, ptx_typed(t, type, B), ptx_typed(t, type, C));
  else if (ptx_has(in, "hi")) {
    const char *wide =
        bits == 64 ? (*sign ? "unsigned __int128" : "__int128") : (*sign ? "uint64_t" : "int64_t");
    fprintf(t->out, "%s = (uint%d_t)(((%s)%s * %s) >> %d);\n", ptx_value(t, A), bits, wide,
            ptx_typed(t, type, B), ptx_typed(t, type, C), bits);
  } else
    ptx_assign(t, type, A, "(uint%d_t)((uint64_t)%s * (uint64_t)%s)", bits, ptx_value(t, B),
               ptx_value(t, C));
}

static void do_mad(translator *t, const instruction *in) {
  const char *type = ptx_type(in);
  int bits = ptx_bits(type);
  if (!ptx_need(t, in, 4)) return;
  if (ptx_has(in, "wide"))
    fprintf(t->out, "%s = (uint%d_t)((uint%d_t)((%sint%d_t)%s * %s) + %s);\n", ptx_value(t, A),
            2 * bits, 2 * bits, type[0] == 's' ? "" : "u", 2 * bits, ptx_typed(t, type, B),
            ptx_typed(t, type, C), ptx_value(t, D));
  else if (ptx_has(in, "lo"))
    ptx_assign(t, type, A, "(uint64_t)%s * (uint64_t)%s + (uint64_t)%s", ptx_value(t, B),
               ptx_value(t, C), ptx_value(t, D));
  else ptx_fail(t, "\"%s\"", in->text);
}

static void do_fma(translator *t, const instruction *in) {
  const char *type = ptx_type(in);
  if (!ptx_need(t, in, 4)) return;
  if (strcmp(type, "f16") == 0 || strcmp(type, "bf16") == 0) {
    fprintf(t->out, "%s = %s multiply_add(%s, %s, %s));\n", ptx_value(t, A),
            type[0] == 'f' ? "bits_f16((_Float16)" : "bits_bf16_odd(", ptx_typed(t, type, B),
            ptx_typed(t, type, C), ptx_typed(t, type, D));
    return;
  }
  if (strcmp(type, "f32") && strcmp(type, "f64")) ptx_fail(t, "\"%s\"", in->text);
  ptx_assign(t, type, A, "%s(%s, %s, %s)", strcmp(type, "f64") ? "fmaf" : "fma",
             ptx_typed(t, type, B), ptx_typed(t, type, C), ptx_typed(t, type, D));
}

static void do_div(translator *t, const instruction *in) {
  const char *type = ptx_type(in);
  if (!ptx_need(t, in, 3)) return;
  if (ptx_has(in, "approx")) ptx_fail(t, "an approximate result in \"%s\"", in->text);
  if (type[0] == 'f')
    ptx_assign(t, type, A, "%s / %s", ptx_typed(t, type, B), ptx_typed(t, type, C));
  else
    ptx_assign(t, type, A, "divide_%s(%s, %s)", type, ptx_typed(t, type, B), ptx_typed(t, type, C));
}

static void do_rem(translator *t, const instruction *in) {
  if (ptx_need(t, in, 3))
    ptx_assign(t, ptx_type(in), A, "remainder_%s(%s, %s)", ptx_type(in),
               ptx_typed(t, ptx_type(in), B), ptx_typed(t, ptx_type(in), C));
}

static void least(translator *t, const instruction *in, const char *name) {
  const char *type = ptx_type(in);
  if (!ptx_need(t, in, 3)) return;
  ptx_assign(t, type, A, "%s%s_%s(%s, %s)", name, ptx_has(in, "NaN") ? "_nan" : "", type,
             ptx_typed(t, type, B), ptx_typed(t, type, C));
}

static void do_min(translator *t, const instruction *in) { least(t, in, "min"); }
static void do_max(translator *t, const instruction *in) { least(t, in, "max"); }

static void do_neg(translator *t, const instruction *in) {
  if (ptx_need(t, in, 2))
    ptx_assign(t, ptx_type(in), A, ptx_type(in)[0] == 'f' ? "-%s" : "0 - %s",
               ptx_typed(t, ptx_type(in), B));
}

static void do_abs(translator *t, const instruction *in) {
  const char *type = ptx_type(in);
  if (ptx_need(t, in, 2))
    ptx_assign(t, type, A, type[0] == 'f' ? "__builtin_fabs(%s)" : "%s < 0 ? 0 - %s : %s",
               ptx_typed(t, type, B), ptx_typed(t, type, B), ptx_typed(t, type, B));
}

static void do_not(translator *t, const instruction *in) {
  if (ptx_need(t, in, 2))
    ptx_assign(t, ptx_type(in), A, strcmp(ptx_type(in), "pred") ? "~%s" : "!%s", ptx_value(t, B));
}

static void do_sqrt(translator *t, const instruction *in) {
  if (!ptx_has(in, "rn")) ptx_fail(t, "an approximate result in \"%s\"", in->text);
  if (ptx_need(t, in, 2))
    ptx_assign(t, ptx_type(in), A, "%s(%s)", strcmp(ptx_type(in), "f64") ? "sqrtf" : "sqrt",
               ptx_typed(t, ptx_type(in), B));
}

static void do_rcp(translator *t, const instruction *in) {
  if (!ptx_has(in, "rn")) ptx_fail(t, "an approximate result in \"%s\"", in->text);
  if (ptx_need(t, in, 2)) ptx_assign(t, ptx_type(in), A, "1 / %s", ptx_typed(t, ptx_type(in), B));
}

static void do_copysign(translator *t,
                        const instruction *in) { /* the first operand gives the sign */
  if (ptx_need(t, in, 3))
    ptx_assign(t, ptx_type(in), A, "__builtin_copysign%s(%s, %s)",
               strcmp(ptx_type(in), "f64") ? "f" : "", ptx_typed(t, ptx_type(in), C),
               ptx_typed(t, ptx_type(in), B));
}

static void do_shl(translator *t, const instruction *in) {
  int bits = ptx_bits(ptx_type(in));
  if (ptx_need(t, in, 3))
    ptx_assign(t, ptx_type(in), A, "(uint32_t)%s >= %d ? 0 : (uint%d_t)%s << (uint32_t)%s",
               ptx_value(t, C), bits, bits, ptx_value(t, B), ptx_value(t, C));
}

static void do_shr(translator *t, const instruction *in) {
  int bits = ptx_bits(ptx_type(in));
  if (!ptx_need(t, in, 3)) return;
  if (ptx_type(in)[0] == 's')
    ptx_assign(t, ptx_type(in), A, "%s >> ((uint32_t)%s >= %d ? %d : (uint32_t)%s)",
               ptx_typed(t, ptx_type(in), B), ptx_value(t, C), bits, bits - 1, ptx_value(t, C));
  else
    ptx_assign(t, ptx_type(in), A, "(uint32_t)%s >= %d ? 0 : (uint%d_t)%s >> (uint32_t)%s",
               ptx_value(t, C), bits, bits, ptx_value(t, B), ptx_value(t, C));
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
  const char *type = ptx_type(in), *format = NULL, *combine = NULL;
  for (int p = 1; p < in->part_count - 1; p++) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
      if (strcmp(in->parts[p], rows[i].name) == 0) format = rows[i].format;
    if (strcmp(in->parts[p], "and") == 0) combine = "&&";
    if (strcmp(in->parts[p], "or") == 0) combine = "||";
  }
  char comparison[MAX_TEXT];
  if (!format || !ptx_need(t, in, combine ? 4 : 3)) {
    ptx_fail(t, "\"%s\"", in->text);
    return;
  }
  if (type[0] != 'f') /* integers have no unordered forms */
    format = strcmp(format, "is_ne(%s, %s)") == 0 ? "%s != %s" : format;
  snprintf(comparison, sizeof comparison, format, ptx_typed(t, type, B), ptx_typed(t, type, C));
  if (combine) ptx_assign(t, "pred", A, "(%s) %s %s", comparison, combine, ptx_value(t, D));
  else ptx_assign(t, "pred", A, "%s", comparison);
}

static void do_selp(translator *t, const instruction *in) {
  if (ptx_need(t, in, 4))
    fprintf(t->out, "%s = (uint%d_t)(%s ? %s : %s);\n", ptx_value(t, A),
            ptx_bits(ptx_type(in)) < 8 ? 8 : ptx_bits(ptx_type(in)), ptx_value(t, D),
            ptx_value(t, B), ptx_value(t, C));
}

static void do_mov(translator *t, const instruction *in) {
  char *items[4], copy[MAX_TEXT];
  int bits = ptx_bits(ptx_type(in));
  if (!ptx_need(t, in, 2)) return;
  snprintf(copy, sizeof copy, "%s", A);
  int count = ptx_group(copy, items);
  if (count) {
    for (int i = 0; i < count; i++)
      if (strcmp(items[i], "_") != 0)
        fprintf(t->out, "%s = (uint%d_t)((uint%d_t)%s >> %d);\n", ptx_value(t, items[i]),
                bits / count, bits, ptx_value(t, B), i * bits / count);
    return;
  }
  snprintf(copy, sizeof copy, "%s", B);
  count = ptx_group(copy, items);
  if (count) {
    fprintf(t->out, "%s = 0", ptx_value(t, A));
    for (int i = 0; i < count; i++)
      fprintf(t->out, " | (uint%d_t)(uint%d_t)%s << %d", bits, bits / count, ptx_value(t, items[i]),
              i * bits / count);
    fprintf(t->out, ";\n");
    return;
  }
  ptx_assign(t,
             strcmp(ptx_type(in), "pred") == 0 ? "pred"
             : bits == 64                      ? "b64"
             : bits == 32                      ? "b32"
                                               : "b16",
             A, "%s", ptx_value(t, B));
}

/* cvt.rn.f16x2.f32 d, a, b: A becomes the upper half. */
static void do_cvt_pair(translator *t, const instruction *in, const char *half) {
  if (strcmp(ptx_type(in), "f32") || !ptx_has(in, "rn") || in->part_count != 4)
    ptx_fail(t, "\"%s\"", in->text);
  if (!ptx_need(t, in, 3)) return;
  fprintf(t->out, "{ uint16_t r_h0, r_h1;\n");
  ptx_assign(t, half, "%h1", "%s", ptx_typed(t, "f32", B));
  ptx_assign(t, half, "%h0", "%s", ptx_typed(t, "f32", C));
  fprintf(t->out, "%s = (uint32_t)r_h1 << 16 | r_h0; }\n", ptx_value(t, A));
}

static void do_cvt(translator *t, const instruction *in) {
  const char *from = ptx_type(in), *to = in->parts[in->part_count - 2], *rounding = "";
  static const char *const modes[] = {"rni", "rzi", "rmi", "rpi"};
  if (strcmp(to, "f16x2") == 0 || strcmp(to, "bf16x2") == 0) {
    do_cvt_pair(t, in, to[0] == 'f' ? "f16" : "bf16");
    return;
  }
  if (!ptx_need(t, in, 2)) return;
  if (ptx_has(in, "ftz")) ptx_fail(t, "denormals flushed in \"%s\"", in->text);
  for (size_t i = 0; i < 4; i++)
    if (ptx_has(in, modes[i])) rounding = modes[i];
  if (strcmp(to, "tf32") == 0) {
    if (!ptx_has(in, "rna") || strcmp(from, "f32")) ptx_fail(t, "\"%s\"", in->text);
    fprintf(t->out, "%s = round_tf32((uint32_t)%s);\n", ptx_value(t, A), ptx_value(t, B));
    return;
  }
  bool from_float = from[0] == 'f' || from[0] == 'b', to_float = to[0] == 'f' || to[0] == 'b';
  char source[2 * MAX_TEXT];
  if (from_float && *rounding)
    snprintf(source, sizeof source, "round_%s(%s)", rounding, ptx_typed(t, from, B));
  else snprintf(source, sizeof source, "%s", ptx_typed(t, from, B));
  if (from_float && !to_float) ptx_assign(t, to, A, "saturate_%s(%s)", to, source);
  else if (ptx_has(in, "sat") && !from_float) ptx_assign(t, to, A, "clamp_%s(%s)", to, source);
  else if (ptx_has(in, "sat")) ptx_fail(t, "\"%s\"", in->text);
  else if (to_float && !from_float && strcmp(to, "f32") == 0)
    ptx_assign(t, to, A, "(float)%s", source);
  else ptx_assign(t, to, A, "%s", source);
}

static void do_count(translator *t, const instruction *in) {
  static const struct {
    const char *name, *function;
  } rows[] = {{"popc", "popcount"}, {"clz", "leading_zeros"}, {"brev", "reversed"}};
  for (size_t i = 0; i < 3; i++)
    if (strcmp(in->parts[0], rows[i].name) == 0 && ptx_need(t, in, 2))
      fprintf(t->out, "%s = %s_%d(%s);\n", ptx_value(t, A), rows[i].function,
              ptx_bits(ptx_type(in)), ptx_typed(t, ptx_type(in), B));
}

static void do_prmt(translator *t, const instruction *in) {
  if (in->part_count != 2) ptx_fail(t, "\"%s\"", in->text);
  if (ptx_need(t, in, 4))
    fprintf(t->out, "%s = permute((uint32_t)%s, (uint32_t)%s, (uint32_t)%s);\n", ptx_value(t, A),
            ptx_value(t, B), ptx_value(t, C), ptx_value(t, D));
}

static void do_bfe(translator *t, const instruction *in) {
  if (ptx_need(t, in, 4))
    fprintf(t->out, "%s = (uint%d_t)extract_%s(%s, (uint32_t)%s, (uint32_t)%s);\n", ptx_value(t, A),
            ptx_bits(ptx_type(in)), ptx_type(in), ptx_typed(t, ptx_type(in), B), ptx_value(t, C),
            ptx_value(t, D));
}

static void do_lop3(translator *t, const instruction *in) {
  if (ptx_need(t, in, 5))
    fprintf(t->out, "%s = logic3((uint32_t)%s, (uint32_t)%s, (uint32_t)%s, (uint32_t)%s);\n",
            ptx_value(t, A), ptx_value(t, B), ptx_value(t, C), ptx_value(t, D),
            ptx_value(t, in->operands[4]));
}

static void do_shf(translator *t, const instruction *in) {
  if (!ptx_has(in, "wrap")) ptx_fail(t, "\"%s\"", in->text);
  if (ptx_need(t, in, 4))
    fprintf(t->out, "%s = funnel_%s((uint32_t)%s, (uint32_t)%s, (uint32_t)%s);\n", ptx_value(t, A),
            ptx_has(in, "l") ? "left" : "right", ptx_value(t, B), ptx_value(t, C), ptx_value(t, D));
}

static void do_dp4a(translator *t, const instruction *in) {
  if (ptx_need(t, in, 4))
    fprintf(t->out, "%s = dot4_%c%c((uint32_t)%s, (uint32_t)%s, (uint32_t)%s);\n", ptx_value(t, A),
            in->parts[in->part_count - 2][0], ptx_type(in)[0], ptx_value(t, B), ptx_value(t, C),
            ptx_value(t, D));
}

const ptx_row ptx_arithmetic[] = {
    {"add", do_add},    {"sub", do_sub},   {"mul", do_mul},    {"mad", do_mad},
    {"fma", do_fma},    {"div", do_div},   {"rem", do_rem},    {"min", do_min},
    {"max", do_max},    {"neg", do_neg},   {"abs", do_abs},    {"not", do_not},
    {"and", do_and},    {"or", do_or},     {"xor", do_xor},    {"shl", do_shl},
    {"shr", do_shr},    {"setp", do_setp}, {"selp", do_selp},  {"mov", do_mov},
    {"cvt", do_cvt},    {"sqrt", do_sqrt}, {"rcp", do_rcp},    {"copysign", do_copysign},
    {"popc", do_count}, {"clz", do_count}, {"brev", do_count}, {"prmt", do_prmt},
    {"bfe", do_bfe},    {"lop3", do_lop3}, {"shf", do_shf},    {"dp4a", do_dp4a},
    {NULL, NULL}};
