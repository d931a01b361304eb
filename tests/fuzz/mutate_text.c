/* mutate_text.c - mutants of a module's text form, by words and lines.
 * In: text, a seed. Out: text in which words have become other words of the same kind, edge numbers
 * or nothing, and lines are doubled, deleted or exchanged. Always holds: a mutant depends only on
 * the text, its seed and the number of mutations. */
#include "mutate_text.h"

/* A word, a number, a quoted string or one sign, with the blanks before it. */
typedef struct token {
  const char *text;
  size_t size;
  char kind; /* w, n, q, or the sign */
} token;
typedef CMZ_VEC(token) token_vec;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.';
}

static const char *token_end(const char *at, const char *end, char *kind) {
  *kind = *at;
  if (*at == '"') {
    for (at++; at < end && *at != '"'; at++)
      if (*at == '\\' && at + 1 < end) at++;
    *kind = 'q';
    return at < end ? at + 1 : at;
  }
  if (!is_digit(*at) && !is_letter(*at)) return at + 1;
  *kind = is_digit(*at) ? 'n' : 'w';
  while (at < end && (is_digit(*at) || is_letter(*at))) at++;
  return at;
}

static void split(cmz_arena *arena, const char *text, size_t size, token_vec *out) {
  for (const char *at = text, *end = text + size; at < end;) {
    token t = {.text = at};
    while (at < end && (*at == ' ' || *at == '\n')) at++;
    if (at < end) at = token_end(at, end, &t.kind);
    t.size = (size_t)(at - t.text);
    cmz_vec_push(arena, out, t);
  }
}

static uint32_t below(uint64_t *state, uint32_t n) { /* splitmix64 */
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return n ? (uint32_t)((z ^ z >> 31) >> 32) % n : 0;
}

/* The tokens of the line around AT: [*FIRST, *LAST). */
static void line_around(const token_vec *v, uint32_t at, uint32_t *first, uint32_t *last) {
  while (at > 0 && v->data[at].text[0] != '\n') at--;
  *first = at;
  for (*last = at + 1; *last < v->count && v->data[*last].text[0] != '\n';) ++*last;
}

/* COUNT tokens FROM are put at AT in place of GONE. */
static void splice(cmz_arena *arena, token_vec *v, uint32_t at, uint32_t gone, const token *from,
                   uint32_t count) {
  token *all = CMZ_NEW_ARRAY(arena, token, v->count - gone + count);
  memcpy(all, v->data, at * sizeof *all);
  if (count) memcpy(all + at, from, count * sizeof *all);
  memcpy(all + at + count, v->data + at + gone, (v->count - at - gone) * sizeof *all);
  v->count = v->capacity = v->count - gone + count;
  v->data = all;
}

static void change_token(token *t, const token_vec *v, uint64_t *state) {
  static const char *const numbers[] = {
      " 0",          " 1",          " 2",          " -1",
      " 7",          " 255",        " 65536",      " 2147483647",
      " 4294967295", " 4294967296", " 1000000007", " 9223372036854775807",
      " 1e400",      " 0x1p-1074",  " nan",        " 99999999999999999999"};
  if (t->kind == 'n' && below(state, 2)) {
    const char *number = numbers[below(state, CMZ_COUNT_OF(numbers))];
    bool tight = t->text[0] != ' '; /* %7 and @7 have no blank */
    *t = (token){.text = number + tight, .size = strlen(number) - tight, .kind = 'n'};
    return;
  }
  uint32_t from = below(state, v->count);
  for (uint32_t i = 0; i < v->count; i++) {
    const token *other = &v->data[(from + i) % v->count];
    if (other->kind != t->kind) continue;
    *t = *other;
    return;
  }
}

static void mutate(cmz_arena *arena, token_vec *v, uint64_t *state) {
  uint32_t at = below(state, v->count), other = below(state, v->count), first, last;
  switch (below(state, 12)) {
  case 0:
    splice(arena, v, at, 1, NULL, 0);
    break;
  case 1:
    splice(arena, v, at, 0, &v->data[other], 1);
    break;
  case 2: /* a line twice, or somewhere else */
    line_around(v, at, &first, &last);
    splice(arena, v, last, 0, v->data + first, last - first);
    break;
  case 3:
    line_around(v, at, &first, &last);
    if (last - first < v->count) splice(arena, v, first, last - first, NULL, 0);
    break;
  case 4: {
    line_around(v, at, &first, &last);
    uint32_t count = last - first;
    token *line = cmz_arena_copy(arena, v->data + first, count * sizeof *line);
    line_around(v, other, &first, &last);
    splice(arena, v, first, 0, line, count);
    break;
  }
  case 5:
    if (below(state, 8) == 0) v->count = at + 1;
    break;
  default:
    change_token(&v->data[at], v, state);
  }
}

cmz_text mutate_text(cmz_arena *arena, const char *text, size_t size, uint64_t seed,
                     uint32_t mutations) {
  uint64_t state = seed * 0x2545f4914f6cdd1du + 1;
  token_vec tokens = {0};
  split(arena, text, size, &tokens);
  for (uint32_t i = 0, count = 1 + below(&state, mutations); i < count && tokens.count; i++)
    mutate(arena, &tokens, &state);
  cmz_text out = {.arena = arena};
  for (uint32_t i = 0; i < tokens.count; i++)
    cmz_text_add_bytes(&out, tokens.data[i].text, tokens.data[i].size);
  return out;
}
