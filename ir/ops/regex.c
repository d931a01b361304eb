/* regex.c - regular expressions, in the syntax that RegexFullMatch has (RE2's), to programs for the
 * runtime's matcher. In: a pattern. Out: instructions of three words (below). Always holds: the
 * program's size is bounded; what is not known here is refused by name, never matched wrongly.
 *
 * Method: K. Thompson, "Regular Expression Search Algorithm", CACM 11(6), 1968: every construct is
 * a piece of a nondeterministic automaton, which the runtime walks with sets of states, so that
 * time is linear in the text. Greedy and lazy repetition are the same when a whole text is matched.
 */
#include "ops.h"

#include "../../runtime/regex.h"

#define MAX_WORDS 30000
#define MAX_REPEAT 1000
#define MAX_DEPTH 200
#define LAST_CHARACTER 0x10ffff

typedef struct range {
  int64_t low, high;
} range;

typedef CMZ_VEC(range) ranges;

typedef struct compiler {
  cmz_module *m;
  cmz_nid node;
  const char *pattern, *at;
  CMZ_VEC(int64_t) words;
  uint32_t depth;
  bool fold, dot_all, multi_line; /* (?i), (?s), (?m) */
  cmz_status status;
} compiler;

static bool fail(compiler *c, cmz_status code, const char *what) {
  if (c->status == CMZ_OK)
    c->status = cmz_node_fail(c->m, c->node, code, "the pattern \"%s\": %s at \"%.20s\"",
                              c->pattern, what, c->at);
  return false;
}

static uint32_t here(const compiler *c) { return c->words.count / 3; }

static bool add(compiler *c, int64_t op, int64_t x, int64_t y) {
  if (c->words.count > MAX_WORDS) return fail(c, CMZ_E_UNSUPPORTED, "it is too large");
  const int64_t words[3] = {op, x, y};
  for (int i = 0; i < 3; i++) cmz_vec_push(c->m->arena, &c->words, words[i]);
  return true;
}

/* ---- characters ---- */

static int64_t next_character(compiler *c) {
  const unsigned char *s = (const unsigned char *)c->at;
  unsigned more = s[0] >= 0xf0 ? 3 : s[0] >= 0xe0 ? 2 : s[0] >= 0xc0 ? 1 : 0;
  int64_t code = more ? s[0] & (0x3f >> more) : s[0];
  c->at++;
  for (unsigned i = 1; i <= more && (s[i] & 0xc0) == 0x80; i++, c->at++)
    code = code << 6 | (s[i] & 0x3f);
  return code;
}

static void add_range(compiler *c, ranges *set, int64_t low, int64_t high) {
  range r = {low, high};
  cmz_vec_push(c->m->arena, set, r);
}

/* The ranges of SET that lie outside of it. */
static void invert(compiler *c, ranges *set) {
  for (uint32_t i = 1; i < set->count; i++) /* by their lower ends */
    for (uint32_t j = i; j > 0 && set->data[j].low < set->data[j - 1].low; j--) {
      range r = set->data[j];
      set->data[j] = set->data[j - 1];
      set->data[j - 1] = r;
    }
  ranges out = {0};
  int64_t from = 0;
  for (uint32_t i = 0; i < set->count; i++) {
    if (set->data[i].low > from) add_range(c, &out, from, set->data[i].low - 1);
    from = CMZ_MAX(from, set->data[i].high + 1);
  }
  if (from <= LAST_CHARACTER) add_range(c, &out, from, LAST_CHARACTER);
  *set = out;
}

/* (?i): letters in both cases. */
static bool fold_case(compiler *c, ranges *set) {
  uint32_t count = set->count;
  for (uint32_t i = 0; i < count && c->fold; i++) {
    range r = set->data[i];
    if (r.high > 127 && r.low != r.high && r.high != LAST_CHARACTER)
      return fail(c, CMZ_E_UNSUPPORTED, "(?i) with a range beyond ASCII");
    if (r.low == r.high && r.low > 127)
      return fail(c, CMZ_E_UNSUPPORTED, "(?i) with a letter beyond ASCII");
    int64_t low = CMZ_MAX(r.low, 'a'), high = CMZ_MIN(r.high, 'z');
    if (low <= high) add_range(c, set, low - 32, high - 32);
    low = CMZ_MAX(r.low, 'A'), high = CMZ_MIN(r.high, 'Z');
    if (low <= high) add_range(c, set, low + 32, high + 32);
    /* K and S have a third form each. */
    if ((r.low <= 'k' && r.high >= 'k') || (r.low <= 'K' && r.high >= 'K'))
      add_range(c, set, 0x212a, 0x212a);
    if ((r.low <= 's' && r.high >= 's') || (r.low <= 'S' && r.high >= 'S'))
      add_range(c, set, 0x17f, 0x17f);
  }
  return true;
}

static bool emit_set(compiler *c, const ranges *set) {
  if (!add(c, CMZ_REGEX_SET, set->count, 0)) return false;
  for (uint32_t i = 0; i < set->count; i++)
    if (!add(c, CMZ_REGEX_RANGE, set->data[i].low, set->data[i].high)) return false;
  return true;
}

static const struct {
  char letter;
  const char *spans; /* pairs of ends */
} classes[] = {{'d', "09"}, {'s', "\t\n\f\r  "}, {'w', "09AZ__az"}};

static const struct {
  const char *name, *spans;
} posix_classes[] = {
    {"alnum", "09AZaz"},
    {"alpha", "AZaz"},
    {"ascii", "\x01\x7f"},
    {"blank", "\t\t  "},
    {"cntrl", "\x01\x1f\x7f\x7f"},
    {"digit", "09"},
    {"graph", "!~"},
    {"lower", "az"},
    {"print", " ~"},
    {"punct", "!/:@[`{~"},
    {"space", "\t\r  "},
    {"upper", "AZ"},
    {"word", "09AZ__az"},
    {"xdigit", "09AFaf"},
};

static void add_spans(compiler *c, ranges *set, const char *spans, bool negate) {
  ranges own = {0};
  for (; spans[0]; spans += 2) add_range(c, &own, (unsigned char)spans[0], (unsigned char)spans[1]);
  if (negate) invert(c, &own);
  for (uint32_t i = 0; i < own.count; i++) add_range(c, set, own.data[i].low, own.data[i].high);
}

static bool hex_digits(compiler *c, uint32_t least, uint32_t most, int64_t *code) {
  *code = 0;
  uint32_t n = 0;
  for (; n < most; n++, c->at++) {
    char d = *c->at;
    if (d >= '0' && d <= '9') *code = *code * 16 + (d - '0');
    else if (d >= 'a' && d <= 'f') *code = *code * 16 + (d - 'a' + 10);
    else if (d >= 'A' && d <= 'F') *code = *code * 16 + (d - 'A' + 10);
    else break;
  }
  return (n >= least && *code <= LAST_CHARACTER) || fail(c, CMZ_E_INPUT, "a wrong character code");
}

/* What follows a backslash, as a class or one character in SET. *ONE: it is one character. */
static bool escape(compiler *c, ranges *set, bool *one) {
  static const char names[] = "afnrtv", codes[] = "\a\f\n\r\t\v";
  char letter = *c->at;
  *one = true;
  if (!letter) return fail(c, CMZ_E_INPUT, "a backslash at the end");
  for (size_t i = 0; i < CMZ_COUNT_OF(classes); i++) {
    if ((letter | 32) != classes[i].letter) continue;
    c->at++;
    *one = false;
    add_spans(c, set, classes[i].spans, letter != classes[i].letter);
    return true;
  }
  const char *control = strchr(names, letter);
  if (control) {
    c->at++;
    add_range(c, set, codes[control - names], codes[control - names]);
    return true;
  }
  int64_t code;
  if (letter == 'x') {
    c->at++;
    bool braces = *c->at == '{';
    c->at += braces;
    if (!hex_digits(c, braces ? 1 : 2, braces ? 6 : 2, &code)) return false;
    if (braces && *c->at++ != '}') return fail(c, CMZ_E_INPUT, "a wrong character code");
    add_range(c, set, code, code);
    return true;
  }
  if ((letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') ||
      (letter >= 'A' && letter <= 'Z'))
    return fail(c, CMZ_E_UNSUPPORTED, "an escape that is not supported");
  code = next_character(c);
  add_range(c, set, code, code);
  return true;
}

/* [[:name:]]; false when there is none here. */
static bool posix_class(compiler *c, ranges *set) {
  if (strncmp(c->at, "[:", 2) != 0) return false;
  bool negate = c->at[2] == '^';
  const char *name = c->at + 2 + negate, *end = strstr(name, ":]");
  for (size_t i = 0; end && i < CMZ_COUNT_OF(posix_classes); i++) {
    size_t length = strlen(posix_classes[i].name);
    if (length != (size_t)(end - name) || strncmp(name, posix_classes[i].name, length) != 0)
      continue;
    add_spans(c, set, posix_classes[i].spans, negate);
    c->at = end + 2;
    return true;
  }
  return fail(c, CMZ_E_INPUT, "an unknown class of characters");
}

/* One end of a range in brackets, or a class. */
static bool bracket_item(compiler *c, ranges *set, bool *one) {
  *one = true;
  if (*c->at == '\\') {
    c->at++;
    return escape(c, set, one);
  }
  if (!*c->at) return fail(c, CMZ_E_INPUT, "a [ without its ]");
  int64_t code = next_character(c);
  add_range(c, set, code, code);
  return true;
}

static bool brackets(compiler *c) {
  ranges set = {0};
  bool negate = *c->at == '^';
  c->at += negate;
  for (bool first = true; first || *c->at != ']'; first = false) {
    if (posix_class(c, &set)) continue;
    if (c->status != CMZ_OK) return false;
    bool one, other;
    if (!bracket_item(c, &set, &one)) return false;
    if (*c->at != '-' || c->at[1] == ']' || !c->at[1]) continue;
    c->at++;
    ranges end = {0};
    if (!one || !bracket_item(c, &end, &other)) return fail(c, CMZ_E_INPUT, "a wrong range");
    range *last = &set.data[set.count - 1];
    if (!other || end.data[0].low < last->low) return fail(c, CMZ_E_INPUT, "a wrong range");
    last->high = end.data[0].low;
  }
  c->at++;
  if (!fold_case(c, &set)) return false;
  if (negate) invert(c, &set);
  return emit_set(c, &set);
}

/* ---- constructs ---- */

static bool alternatives(compiler *c);

/* (?flags) and (?flags:; *GROUP: a group follows. */
static bool flags(compiler *c, bool *group) {
  bool on = true;
  for (;; c->at++) {
    if (*c->at == '-') on = false;
    else if (*c->at == 'i') c->fold = on;
    else if (*c->at == 's') c->dot_all = on;
    else if (*c->at == 'm') c->multi_line = on;
    else if (*c->at != 'U') break; /* greedy or lazy is the same here */
  }
  *group = *c->at == ':';
  if (*c->at != ':' && *c->at != ')')
    return fail(c, CMZ_E_UNSUPPORTED, "a group that is not supported");
  c->at++;
  return true;
}

static bool group(compiler *c) {
  bool fold = c->fold, dot_all = c->dot_all, multi_line = c->multi_line, inside = true;
  if (++c->depth > MAX_DEPTH) return fail(c, CMZ_E_UNSUPPORTED, "too many groups in each other");
  if (*c->at == '?') {
    c->at++;
    if (*c->at == 'P' || *c->at == '<') {
      const char *end = strchr(c->at, '>');
      c->at += *c->at == 'P';
      if (*c->at != '<' || !end || c->at[1] == '=' || c->at[1] == '!')
        return fail(c, CMZ_E_UNSUPPORTED, "a group that is not supported");
      c->at = end + 1;
    } else if (!flags(c, &inside)) {
      return false;
    }
  }
  c->depth--;
  if (!inside) return true; /* (?i): for the rest of the group around */
  c->depth++;
  if (!alternatives(c)) return false;
  if (*c->at != ')') return fail(c, CMZ_E_INPUT, "a ( without its )");
  c->at++;
  c->depth--;
  c->fold = fold, c->dot_all = dot_all, c->multi_line = multi_line;
  return true;
}

/* \Q…\E: every character as it is. */
static bool quoted(compiler *c) {
  while (*c->at && strncmp(c->at, "\\E", 2) != 0) {
    ranges set = {0};
    int64_t code = next_character(c);
    add_range(c, &set, code, code);
    if (!fold_case(c, &set) || !emit_set(c, &set)) return false;
  }
  if (*c->at) c->at += 2;
  return true;
}

static bool escaped_atom(compiler *c) {
  static const struct {
    char letter;
    int64_t op;
  } tests[] = {{'A', CMZ_REGEX_TEXT_BEGIN},
               {'z', CMZ_REGEX_TEXT_END},
               {'b', CMZ_REGEX_WORD_EDGE},
               {'B', CMZ_REGEX_NO_WORD_EDGE}};
  for (size_t i = 0; i < CMZ_COUNT_OF(tests); i++)
    if (*c->at == tests[i].letter) return c->at++, add(c, tests[i].op, 0, 0);
  if (*c->at == 'Q') return c->at++, quoted(c);
  ranges set = {0};
  bool one;
  return escape(c, &set, &one) && fold_case(c, &set) && emit_set(c, &set);
}

static bool atom(compiler *c) {
  ranges set = {0};
  char first = *c->at;
  switch (first) {
  case '(':
    c->at++;
    return group(c);
  case '[':
    c->at++;
    return brackets(c);
  case '\\':
    c->at++;
    return escaped_atom(c);
  case '^':
    c->at++;
    return add(c, c->multi_line ? CMZ_REGEX_LINE_BEGIN : CMZ_REGEX_TEXT_BEGIN, 0, 0);
  case '$':
    c->at++;
    return add(c, c->multi_line ? CMZ_REGEX_LINE_END : CMZ_REGEX_TEXT_END, 0, 0);
  case '.':
    c->at++;
    if (!c->dot_all) add_range(c, &set, '\n', '\n');
    invert(c, &set);
    return emit_set(c, &set);
  case '*':
  case '+':
  case '?':
    return fail(c, CMZ_E_INPUT, "a repetition of nothing");
  default: {
    int64_t code = next_character(c);
    add_range(c, &set, code, code);
    return fold_case(c, &set) && emit_set(c, &set);
  }
  }
}

/* {low}, {low,}, {low,high} at the pattern's position; false when the brace is a character. */
static bool counted(compiler *c, int64_t *low, int64_t *high) {
  const char *at = c->at + 1;
  int64_t numbers[2] = {-1, -1};
  int which = 0;
  for (; *at && *at != '}'; at++) {
    if (*at == ',' && which == 0) {
      which = 1;
      continue;
    }
    if (*at < '0' || *at > '9') return false;
    numbers[which] = CMZ_MAX(numbers[which], 0) * 10 + (*at - '0');
    if (numbers[which] > MAX_REPEAT) return fail(c, CMZ_E_UNSUPPORTED, "too many repetitions");
  }
  if (!*at || numbers[0] < 0) return false;
  *low = numbers[0];
  *high = which == 0 ? numbers[0] : numbers[1];
  if (*high >= 0 && *high < *low) return fail(c, CMZ_E_INPUT, "a wrong number of repetitions");
  c->at = at + 1;
  return true;
}

/* The piece [FROM, now) again at the end; its jumps are moved along. */
static bool copy_piece(compiler *c, const int64_t *piece, uint32_t count, uint32_t from) {
  int64_t moved = (int64_t)here(c) - from;
  for (uint32_t i = 0; i < count; i++) {
    int64_t op = piece[3 * i], x = piece[3 * i + 1], y = piece[3 * i + 2];
    bool jumps = op == CMZ_REGEX_SPLIT || op == CMZ_REGEX_JUMP;
    if (!add(c, op, jumps ? x + moved : x, op == CMZ_REGEX_SPLIT ? y + moved : y)) return false;
  }
  return true;
}

/* The piece from FROM on, LOW to HIGH (-1: any number of) times. */
static bool repeat(compiler *c, uint32_t from, int64_t low, int64_t high) {
  uint32_t count = here(c) - from;
  const int64_t *piece = cmz_arena_copy(c->m->arena, c->words.data + (size_t)3 * from,
                                        (size_t)3 * count * sizeof *piece);
  c->words.count = 3 * from;
  for (int64_t i = 0; i < low; i++)
    if (!copy_piece(c, piece, count, from)) return false;
  if (high < 0) { /* split out, piece, back */
    uint32_t split = here(c);
    return add(c, CMZ_REGEX_SPLIT, split + 1, split + count + 2) &&
           copy_piece(c, piece, count, from) && add(c, CMZ_REGEX_JUMP, split, 0);
  }
  int64_t end = here(c) + (high - low) * (count + 1);
  for (int64_t i = low; i < high; i++)
    if (!add(c, CMZ_REGEX_SPLIT, here(c) + 1, end) || !copy_piece(c, piece, count, from))
      return false;
  return true;
}

static bool repeated_atom(compiler *c) {
  uint32_t from = here(c);
  if (!atom(c)) return false;
  for (int times = 0;; times++) {
    int64_t low = 0, high = -1;
    if (*c->at == '*') c->at++;
    else if (*c->at == '+') low = 1, c->at++;
    else if (*c->at == '?') high = 1, c->at++;
    else if (*c->at != '{' || !counted(c, &low, &high)) return c->status == CMZ_OK;
    if (times > 0) return fail(c, CMZ_E_INPUT, "a repetition of a repetition");
    if (*c->at == '?') c->at++;
    if (!repeat(c, from, low, high)) return false;
  }
}

/* a|b: split to a and to the rest; from the end of a, past the rest. */
static bool alternatives(compiler *c) {
  uint32_t from = here(c);
  while (*c->at && *c->at != '|' && *c->at != ')')
    if (!repeated_atom(c)) return false;
  if (*c->at != '|') return true;
  c->at++;
  uint32_t count = here(c) - from;
  const int64_t *piece = cmz_arena_copy(c->m->arena, c->words.data + (size_t)3 * from,
                                        (size_t)3 * count * sizeof *piece);
  c->words.count = 3 * from;
  if (!add(c, CMZ_REGEX_SPLIT, from + 1, from + count + 2) || !copy_piece(c, piece, count, from))
    return false;
  uint32_t jump = here(c);
  if (++c->depth > 4 * MAX_DEPTH) return fail(c, CMZ_E_UNSUPPORTED, "too many alternatives");
  if (!add(c, CMZ_REGEX_JUMP, 0, 0) || !alternatives(c)) return false;
  c->depth--;
  c->words.data[3 * jump + 1] = here(c);
  return true;
}

cmz_status cmz_regex_compile(cmz_module *m, cmz_nid n, const char *pattern, const int64_t **words,
                             uint32_t *count) {
  compiler c = {.m = m, .node = n, .pattern = pattern, .at = pattern};
  if (alternatives(&c) && *c.at == ')') fail(&c, CMZ_E_INPUT, "a ) without its (");
  add(&c, CMZ_REGEX_MATCH, 0, 0);
  *words = c.words.data;
  *count = c.words.count;
  return c.status;
}
