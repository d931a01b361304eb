/* dim_text.c - symbolic sizes as text: "(batch*3 + 1)//2", min(a, b), and back.
 * In: ids, text. Out: text that parses to the same id in the same pool. Grammar:
 *   sum     = product { ("+" | "-") product }
 *   product = unary { ("*" | "//" | "%") unary }
 *   unary   = "-" unary | integer | "(" sum ")" | symbol | "overflow"
 *           | function "(" sum { "," sum } ")" | "scale" "(" sum "," float ")"
 *   symbol  = identifier | '"' characters with \" \\ \xHH '"'
 *
 * Always holds: a symbol must exist already; nesting is limited: no text exhausts the stack. */
#include "dim_pool.h"

#include <stdlib.h>

enum { MAX_NESTING = 600 };

typedef cmz_dim build2(cmz_dims *, cmz_dim, cmz_dim);

static const struct {
  const char *name;
  cmz_dim_kind kind;
  build2 *build;
} functions[] = {
    {"min", CMZ_DIM_MIN, cmz_dim_min},
    {"max", CMZ_DIM_MAX, cmz_dim_max},
    {"broadcast", CMZ_DIM_BROADCAST, cmz_dim_broadcast},
    {"eq", CMZ_DIM_EQ, cmz_dim_eq},
    {"scale_bits", CMZ_DIM_SCALE, cmz_dim_scale_bits},
};
static const char *const reserved[] = {"min",    "max",   "broadcast",  "eq",
                                       "select", "scale", "scale_bits", "overflow"};

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_name(char c) { return is_letter(c) || is_digit(c) || c == '.'; }

static bool is_plain(const char *name) {
  if (!is_letter(name[0])) return false;
  for (const char *c = name; *c; c++)
    if (!is_name(*c)) return false;
  for (size_t i = 0; i < CMZ_COUNT_OF(reserved); i++)
    if (strcmp(reserved[i], name) == 0) return false;
  return true;
}

static void print_symbol(const char *name, cmz_text *text) {
  if (is_plain(name)) {
    cmz_text_add(text, "%s", name);
    return;
  }
  cmz_text_add(text, "\"");
  for (const char *c = name; *c; c++) {
    if (*c == '"' || *c == '\\') cmz_text_add(text, "\\%c", *c);
    else if ((unsigned char)*c < 0x20 || (unsigned char)*c == 0x7f)
      cmz_text_add(text, "\\x%02x", (unsigned)(unsigned char)*c);
    else cmz_text_add(text, "%c", *c);
  }
  cmz_text_add(text, "\"");
}

/* LEVEL: 0 anything, 1 inside a sum after "-" or of a product's left side, 2 an operand that must
 * be atomic. */
static void print(const cmz_dims *p, cmz_dim d, int level, cmz_text *text);

static void print_sum(const cmz_dims *p, const cmz_dim_node *n, cmz_text *text) {
  for (uint32_t i = 0; i < n->arg_count; i++) {
    const cmz_dim_node *arg = cmz_dim_get(p, n->args[i]);
    int64_t value;
    if (i > 0 && cmz_dim_is_const(p, n->args[i], &value) && value < 0 && value != INT64_MIN) {
      cmz_text_add(text, " - %" PRId64, -value);
      continue;
    }
    if (i > 0 && arg->kind == CMZ_DIM_MUL && cmz_dim_is(p, arg->args[0], -1)) {
      cmz_text_add(text, " - ");
      for (uint32_t j = 1; j < arg->arg_count; j++) {
        if (j > 1) cmz_text_add(text, "*");
        print(p, arg->args[j], 2, text);
      }
      continue;
    }
    if (i > 0) cmz_text_add(text, " + ");
    print(p, n->args[i], 1, text);
  }
}

/* Factors before the coefficient: "batch*3". */
static void print_product(const cmz_dims *p, const cmz_dim_node *n, cmz_text *text) {
  bool coefficient = cmz_dim_get(p, n->args[0])->kind == CMZ_DIM_CONST;
  for (uint32_t i = coefficient; i < n->arg_count; i++) {
    if (i > coefficient) cmz_text_add(text, "*");
    print(p, n->args[i], 2, text);
  }
  if (coefficient) cmz_text_add(text, "*%" PRId64, cmz_dim_get(p, n->args[0])->value);
}

static void print_call(const cmz_dims *p, const cmz_dim_node *n, const char *name, cmz_text *text) {
  cmz_text_add(text, "%s(", name);
  for (uint32_t i = 0; i < n->arg_count; i++) {
    if (i) cmz_text_add(text, ", ");
    print(p, n->args[i], 0, text);
  }
  cmz_text_add(text, ")");
}

static void print_scale(const cmz_dims *p, const cmz_dim_node *n, cmz_text *text) {
  int64_t bits;
  if (!cmz_dim_is_const(p, n->args[1], &bits)) {
    print_call(p, n, "scale_bits", text);
    return;
  }
  double factor;
  memcpy(&factor, &bits, sizeof factor);
  cmz_text_add(text, "scale(");
  print(p, n->args[0], 0, text);
  cmz_text_add(text, ", %.17g)", factor);
}

static void print(const cmz_dims *p, cmz_dim d, int level, cmz_text *text) {
  if (d == CMZ_DIM_NONE || d == CMZ_DIM_OVERFLOW) {
    cmz_text_add(text, d == CMZ_DIM_NONE ? "?" : "overflow");
    return;
  }
  const cmz_dim_node *n = cmz_dim_get(p, d);
  bool sum = n->kind == CMZ_DIM_ADD;
  bool product = n->kind == CMZ_DIM_MUL || n->kind == CMZ_DIM_FLOORDIV || n->kind == CMZ_DIM_MOD;
  bool parentheses = (sum && level >= 1) || (product && level >= 2);
  if (parentheses) cmz_text_add(text, "(");
  if (n->kind == CMZ_DIM_CONST) cmz_text_add(text, "%" PRId64, n->value);
  else if (n->kind == CMZ_DIM_SYMBOL) print_symbol(cmz_dim_symbol_of(p, d)->name, text);
  else if (sum) print_sum(p, n, text);
  else if (n->kind == CMZ_DIM_MUL) print_product(p, n, text);
  else if (product) {
    print(p, n->args[0], 2, text);
    cmz_text_add(text, n->kind == CMZ_DIM_FLOORDIV ? "//" : "%%");
    print(p, n->args[1], 2, text);
  } else if (n->kind == CMZ_DIM_SELECT) print_call(p, n, "select", text);
  else if (n->kind == CMZ_DIM_SCALE) print_scale(p, n, text);
  else {
    for (size_t i = 0; i < CMZ_COUNT_OF(functions); i++)
      if (functions[i].kind == n->kind) print_call(p, n, functions[i].name, text);
  }
  if (parentheses) cmz_text_add(text, ")");
}

void cmz_dim_print(const cmz_dims *p, cmz_dim d, cmz_text *text) { print(p, d, 0, text); }

/* ---- parsing ---- */

typedef struct parser {
  cmz_dims *pool;
  const char *at;
  uint32_t nesting;
} parser;

static cmz_dim parse_sum(parser *s);

static void skip_space(parser *s) {
  while (*s->at == ' ' || *s->at == '\t') s->at++;
}

static bool take(parser *s, const char *word) {
  skip_space(s);
  size_t length = strlen(word);
  if (strncmp(s->at, word, length) != 0) return false;
  s->at += length;
  return true;
}

static cmz_dim symbol_by_name(parser *s, const char *name, size_t length) {
  uint32_t index = cmz_dim_find_symbol(s->pool, name, length);
  return index == UINT32_MAX ? CMZ_DIM_NONE : cmz_dim_symbol_id(s->pool, index);
}

static int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static cmz_dim parse_quoted(parser *s) {
  size_t length = strlen(s->at), used = 0;
  const char *end = s->at;
  while (*end && *end != '"') end += *end == '\\' && end[1] ? 2 : 1;
  length = (size_t)(end - s->at);
  char *name = cmz_arena_alloc(s->pool->arena, length + 1);
  while (*s->at && *s->at != '"') {
    char c = *s->at++;
    if (c == '\\') {
      c = *s->at ? *s->at++ : 0;
      if (c == 'x') {
        int high = hex_digit(s->at[0]), low = high < 0 ? -1 : hex_digit(s->at[1]);
        if (low < 0) return CMZ_DIM_NONE;
        c = (char)(high * 16 + low);
        s->at += 2;
      }
    }
    name[used++] = c;
  }
  if (!take(s, "\"")) return CMZ_DIM_NONE;
  return symbol_by_name(s, name, used);
}

static cmz_dim parse_scale(parser *s) {
  cmz_dim a = parse_sum(s);
  if (!a || !take(s, ",")) return CMZ_DIM_NONE;
  skip_space(s);
  char *end;
  double factor = strtod(s->at, &end);
  if (end == s->at) return CMZ_DIM_NONE;
  s->at = end;
  return take(s, ")") ? cmz_dim_scale(s->pool, a, factor) : CMZ_DIM_NONE;
}

static cmz_dim parse_name(parser *s) {
  const char *start = s->at;
  while (is_name(*s->at)) s->at++;
  size_t length = (size_t)(s->at - start);
  if (length == 8 && strncmp(start, "overflow", 8) == 0) return CMZ_DIM_OVERFLOW;
  if (*s->at != '(') return symbol_by_name(s, start, length);
  s->at++;
  if (length == 5 && strncmp(start, "scale", 5) == 0) return parse_scale(s);
  cmz_dim a = parse_sum(s);
  if (!a || !take(s, ",")) return CMZ_DIM_NONE;
  cmz_dim b = parse_sum(s);
  if (!b) return CMZ_DIM_NONE;
  if (length == 6 && strncmp(start, "select", 6) == 0) {
    if (!take(s, ",")) return CMZ_DIM_NONE;
    cmz_dim c = parse_sum(s);
    return c && take(s, ")") ? cmz_dim_select(s->pool, a, b, c) : CMZ_DIM_NONE;
  }
  for (size_t i = 0; i < CMZ_COUNT_OF(functions); i++)
    if (strlen(functions[i].name) == length && strncmp(functions[i].name, start, length) == 0)
      return take(s, ")") ? functions[i].build(s->pool, a, b) : CMZ_DIM_NONE;
  return CMZ_DIM_NONE;
}

static cmz_dim parse_integer(parser *s, bool negative) {
  int64_t value = 0;
  while (is_digit(*s->at)) {
    int64_t digit = *s->at++ - '0';
    if (!cmz_mul_i64(value, 10, &value) || !cmz_add_i64(value, negative ? -digit : digit, &value))
      return CMZ_DIM_NONE;
  }
  return cmz_dim_const(s->pool, value);
}

static cmz_dim parse_unary(parser *s) {
  if (++s->nesting > MAX_NESTING) return CMZ_DIM_NONE;
  cmz_dim result = CMZ_DIM_NONE;
  bool negative = take(s, "-");
  skip_space(s);
  if (is_digit(*s->at)) {
    result = parse_integer(s, negative);
    negative = false;
  } else if (take(s, "(")) {
    result = parse_sum(s);
    if (result && !take(s, ")")) result = CMZ_DIM_NONE;
  } else if (take(s, "\"")) result = parse_quoted(s);
  else if (is_letter(*s->at)) result = parse_name(s);
  s->nesting--;
  if (result && negative) result = cmz_dim_sub(s->pool, cmz_dim_const(s->pool, 0), result);
  return result;
}

static cmz_dim parse_product(parser *s) {
  static const struct {
    const char *sign;
    build2 *build;
  } operators[] = {{"*", cmz_dim_mul}, {"//", cmz_dim_floordiv}, {"%", cmz_dim_mod}};
  cmz_dim a = parse_unary(s);
  while (a) {
    size_t i = 0;
    while (i < CMZ_COUNT_OF(operators) && !take(s, operators[i].sign)) i++;
    if (i == CMZ_COUNT_OF(operators)) return a;
    cmz_dim b = parse_unary(s);
    a = b ? operators[i].build(s->pool, a, b) : CMZ_DIM_NONE;
  }
  return a;
}

static cmz_dim parse_sum(parser *s) {
  cmz_dim a = parse_product(s);
  while (a) {
    bool add = take(s, "+");
    if (!add && !take(s, "-")) return a;
    cmz_dim b = parse_product(s);
    if (!b) return CMZ_DIM_NONE;
    a = add ? cmz_dim_add(s->pool, a, b) : cmz_dim_sub(s->pool, a, b);
  }
  return a;
}

cmz_dim cmz_dim_parse(cmz_dims *p, const char *text, const char **end) {
  parser s = {p, text, 0};
  cmz_dim d = parse_sum(&s);
  if (end) *end = s.at;
  return d;
}
