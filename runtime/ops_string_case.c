/* ops_string_case.c - StringNormalizer: strings without stop words, in lower or upper case.
 * In: a table of strings of shape [C] or [1, C], and the stop words. Out: what is left, [K] or [1,
 * K]; one "" when nothing is. Always holds: letters change one for one; the table below has the
 * letters of the Latin, Greek, Cyrillic and Armenian scripts, others stay as they are; no locale
 * changes that. */
#include "values.h"

/* Capital letters from FIRST to LAST, every STRIDE-th; the small ones lie DELTA after them. */
static const struct {
  uint32_t first, last;
  int32_t delta;
  uint32_t stride;
} letters[] = {
    {0x41, 0x5a, 32, 1},     {0xc0, 0xd6, 32, 1},     {0xd8, 0xde, 32, 1},
    {0x100, 0x12e, 1, 2},    {0x132, 0x136, 1, 2},    {0x139, 0x147, 1, 2},
    {0x14a, 0x176, 1, 2},    {0x178, 0x178, -121, 1}, {0x179, 0x17d, 1, 2},
    {0x1cd, 0x1db, 1, 2},    {0x1de, 0x1ee, 1, 2},    {0x1f8, 0x21e, 1, 2},
    {0x222, 0x232, 1, 2},    {0x386, 0x386, 38, 1},   {0x388, 0x38a, 37, 1},
    {0x38c, 0x38c, 64, 1},   {0x38e, 0x38f, 63, 1},   {0x391, 0x3a1, 32, 1},
    {0x3a3, 0x3ab, 32, 1},   {0x3d8, 0x3ee, 1, 2},    {0x400, 0x40f, 80, 1},
    {0x410, 0x42f, 32, 1},   {0x460, 0x480, 1, 2},    {0x48a, 0x4be, 1, 2},
    {0x4c0, 0x4c0, 15, 1},   {0x4c1, 0x4cd, 1, 2},    {0x4d0, 0x52e, 1, 2},
    {0x531, 0x556, 48, 1},   {0x1e00, 0x1e94, 1, 2},  {0x1ea0, 0x1efe, 1, 2},
    {0x2160, 0x216f, 16, 1}, {0x24b6, 0x24cf, 26, 1}, {0xff21, 0xff3a, 32, 1},
};

/* Letters that have a partner in one direction only. */
static const struct {
  uint32_t from, to;
  bool upper;
} others[] = {{0xb5, 0x39c, true},  {0x131, 0x49, true},  {0x17f, 0x53, true},
              {0x3c2, 0x3a3, true}, {0x130, 0x69, false}, {0x1e9e, 0xdf, false}};

enum { ACTION_NONE, ACTION_LOWER, ACTION_UPPER };

static uint32_t change_letter(uint32_t c, bool upper) {
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    if (others[i].from == c && others[i].upper == upper) return others[i].to;
  }
  for (size_t i = 0; i < sizeof letters / sizeof letters[0]; i++) {
    uint32_t delta = (uint32_t)letters[i].delta;
    uint32_t capital = upper ? c - delta : c;
    if (capital < letters[i].first || capital > letters[i].last) continue;
    if ((capital - letters[i].first) % letters[i].stride) continue;
    return upper ? capital : capital + delta;
  }
  return c;
}

static uint32_t decode(const char **text) {
  const uint8_t *s = (const uint8_t *)*text;
  uint32_t more = s[0] >= 0xf0 ? 3 : s[0] >= 0xe0 ? 2 : s[0] >= 0xc0 ? 1 : 0;
  uint32_t code = more ? s[0] & (0x3fu >> more) : s[0], used = 1;
  for (; used <= more && (s[used] & 0xc0) == 0x80; used++) code = code << 6 | (s[used] & 0x3fu);
  *text += used;
  return code;
}

static size_t encode(char *to, uint32_t c) {
  if (c < 0x80) return to[0] = (char)c, 1;
  if (c < 0x800) return to[0] = (char)(0xc0 | c >> 6), to[1] = (char)(0x80 | (c & 63)), 2;
  to[0] = (char)(0xe0 | c >> 12);
  to[1] = (char)(0x80 | (c >> 6 & 63));
  to[2] = (char)(0x80 | (c & 63));
  return 3;
}

/* TEXT in the other case, in the pool; what is not valid UTF-8 is copied byte by byte. */
static const char *change_text(cmz_op_call *call, const char *text, bool upper) {
  char *result = cmz_text_take(call->model, 3 * strlen(text) + 1), *to = result;
  if (!result) return NULL;
  while (*text) {
    const char *from = text;
    uint32_t c = decode(&text), other = change_letter(c, upper);
    if (other != c) {
      to += encode(to, other);
      continue;
    }
    while (from < text) *to++ = *from++;
  }
  *to = 0;
  return result;
}

static bool same_text(const char *a, const char *b, bool fold) {
  if (!fold) return strcmp(a, b) == 0;
  while (*a && *b) {
    if (change_letter(decode(&a), false) != change_letter(decode(&b), false)) return false;
  }
  return *a == *b;
}

static bool is_stop_word(const cmz_op_call *call, const char *text, bool fold) {
  if (call->input_count < 2 || call->inputs[1].buffer == CMZ_NO_INDEX) return false;
  const cmz_op_tensor *words = &call->inputs[1];
  for (int64_t i = 0, count = cmz_op_count(words); i < count; i++) {
    const char *word = ((const char *const *)words->data)[i];
    if (same_text(text, word ? word : "", fold)) return true;
  }
  return false;
}

int cmz_rt_string_normalizer(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0];
  int64_t action = cmz_op_attribute(call, 0), count = cmz_op_count(x), left = 0;
  bool fold = cmz_op_attribute(call, 1) == 0;
  const char *const *texts = x->data;
  if (x->rank == 2 && x->dims[0] != 1) return cmz_op_fail(call, "the first dimension is not 1");
  for (int64_t i = 0; i < count; i++) left += !is_stop_word(call, texts[i] ? texts[i] : "", fold);
  int64_t dims[2] = {1, 1};
  dims[x->rank - 1] = left ? left : 1;
  int rc = cmz_op_shape(call, 0, x->rank, dims);
  const char **result = call->outputs[0].data;
  if (rc || !result) return rc;
  if (!left) *result = "";
  for (int64_t i = 0; i < count; i++) {
    const char *text = texts[i] ? texts[i] : "";
    if (is_stop_word(call, text, fold)) continue;
    *result = action == ACTION_NONE ? text : change_text(call, text, action == ACTION_UPPER);
    if (!*result++) return CMZ_OUT_OF_MEMORY;
  }
  return CMZ_SUCCESS;
}
