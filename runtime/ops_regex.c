/* ops_regex.c - RegexFullMatch: whether a whole string matches. In: strings, and a program
 * (regex.h). Out: bools. Always holds: time is linear in the text times the program: all states the
 * automaton can be in are walked side by side (Thompson's method). */
#include "regex.h"
#include "values.h"

typedef struct matcher {
  const int64_t *words;
  uint32_t count; /* of instructions */
  uint32_t *current, *next, *stack;
  uint32_t current_count, next_count;
  uint32_t *seen, generation; /* by instruction: the generation that has it */
} matcher;

/* One character, and how many bytes it takes; stray bytes stand for themselves. */
static uint32_t decode(const char *text, size_t *used) {
  const uint8_t *s = (const uint8_t *)text;
  uint32_t more = s[0] >= 0xf0 ? 3 : s[0] >= 0xe0 ? 2 : s[0] >= 0xc0 ? 1 : 0;
  uint32_t code = more ? s[0] & (0x3fu >> more) : s[0];
  *used = 1;
  for (uint32_t i = 1; i <= more && (s[i] & 0xc0) == 0x80; i++, ++*used)
    code = code << 6 | (s[i] & 0x3fu);
  return code;
}

static bool is_word(int64_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '_' || (c >= 'a' && c <= 'z');
}

/* Whether a test between the characters BEFORE and AFTER (-1: none) holds. */
static bool holds(int64_t op, int64_t before, int64_t after) {
  switch (op) {
  case CMZ_REGEX_TEXT_BEGIN:
    return before < 0;
  case CMZ_REGEX_TEXT_END:
    return after < 0;
  case CMZ_REGEX_LINE_BEGIN:
    return before < 0 || before == '\n';
  case CMZ_REGEX_LINE_END:
    return after < 0 || after == '\n';
  case CMZ_REGEX_WORD_EDGE:
    return is_word(before) != is_word(after);
  default:
    return is_word(before) == is_word(after);
  }
}

/* Adds to the next states all that take a character or end the match and can be reached from START.
 */
static void follow(matcher *m, uint32_t start, int64_t before, int64_t after) {
  uint32_t depth = 0;
  m->stack[depth++] = start;
  while (depth) {
    uint32_t at = m->stack[--depth];
    if (m->seen[at] == m->generation) continue;
    m->seen[at] = m->generation;
    const int64_t *in = m->words + 3 * (size_t)at;
    switch (in[0]) {
    case CMZ_REGEX_MATCH:
    case CMZ_REGEX_SET:
      m->next[m->next_count++] = at;
      break;
    case CMZ_REGEX_SPLIT:
      m->stack[depth++] = (uint32_t)in[2];
      m->stack[depth++] = (uint32_t)in[1];
      break;
    case CMZ_REGEX_JUMP:
      m->stack[depth++] = (uint32_t)in[1];
      break;
    default:
      if (holds(in[0], before, after)) m->stack[depth++] = at + 1;
      break;
    }
  }
}

static bool in_set(const int64_t *in, int64_t c) {
  for (int64_t i = 1; i <= in[1]; i++) {
    if (c >= in[3 * i + 1] && c <= in[3 * i + 2]) return true;
  }
  return false;
}

static void swap(matcher *m) {
  uint32_t *states = m->current;
  m->current = m->next;
  m->next = states;
  m->current_count = m->next_count;
  m->next_count = 0;
  m->generation++;
}

static bool matches(matcher *m, const char *text) {
  size_t used = 0;
  int64_t here = *text ? (int64_t)decode(text, &used) : -1;
  m->next_count = 0;
  m->generation++;
  follow(m, 0, -1, here);
  swap(m);
  while (here >= 0 && m->current_count) {
    text += used;
    int64_t after = *text ? (int64_t)decode(text, &used) : -1;
    for (uint32_t i = 0; i < m->current_count; i++) {
      const int64_t *in = m->words + 3 * (size_t)m->current[i];
      if (in[0] == CMZ_REGEX_SET && in_set(in, here))
        follow(m, m->current[i] + 1 + (uint32_t)in[1], here, after);
    }
    swap(m);
    here = after;
  }
  for (uint32_t i = 0; i < m->current_count; i++) {
    if (m->words[3 * (size_t)m->current[i]] == CMZ_REGEX_MATCH) return true;
  }
  return false;
}

int cmz_rt_regex_full_match(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0];
  int64_t count = cmz_op_count(x);
  matcher m = {.words = call->inputs[1].data, .count = (uint32_t)(call->inputs[1].dims[0] / 3)};
  int rc = cmz_op_output(call, 0, count);
  if (rc || !call->outputs[0].data) return rc;
  /* A stack may get both ends of every split, once each. */
  int64_t bytes = (int64_t)m.count * 5 * (int64_t)sizeof(uint32_t) + 16;
  uint32_t *memory = cmz_op_take(call, bytes);
  if (!memory) return CMZ_OUT_OF_MEMORY;
  memset(memory, 0, (size_t)bytes);
  m.current = memory;
  m.next = memory + m.count;
  m.seen = memory + 2 * m.count;
  m.stack = memory + 3 * m.count;
  const char *const *texts = x->data;
  for (int64_t i = 0; i < count; i++)
    ((uint8_t *)call->outputs[0].data)[i] = matches(&m, texts[i] ? texts[i] : "");
  cmz_op_give(call, memory, bytes);
  return CMZ_SUCCESS;
}
