/* ops_string.c - runtime ops on strings: StringConcat, StringSplit, Equal, Cast.
 * In: a call (ops.h) with tables of strings. Out: tables whose new strings lie in the pool
 * (values.h). Always holds: a NULL in a table reads as "". */
#include "values.h"

extern double strtod(const char *restrict text, char **restrict end);
extern long long strtoll(const char *restrict text, char **restrict end, int base);
extern unsigned long long strtoull(const char *restrict text, char **restrict end, int base);

static const char *string_at(const cmz_op_tensor *t, int64_t i) {
  const char *text = ((const char *const *)t->data)[i];
  return text ? text : "";
}

/* SIZE bytes of TEXT and a zero, in the pool. */
static const char *keep_text(cmz_op_call *call, const char *text, size_t size) {
  char *copy = cmz_text_take(call->model, size + 1);
  if (!copy) return NULL;
  memcpy(copy, text, size);
  copy[size] = 0;
  return copy;
}

/* ---- two tables, broadcast ---- */

typedef int pair_function(cmz_op_call *call, const char *a, const char *b, int64_t i);

/* FUNCTION for each element I of output 0. */
static int for_pairs(cmz_op_call *call, pair_function *function, int64_t width) {
  const cmz_op_tensor *y = &call->outputs[0];
  int64_t count = cmz_op_count(y), steps[2][CMZ_MAX_DIMS] = {{0}}, index[CMZ_MAX_DIMS] = {0};
  int64_t at[2] = {0, 0};
  int rc = cmz_op_output(call, 0, count * width);
  if (rc || !y->data) return rc;
  for (int k = 0; k < 2; k++) {
    const cmz_op_tensor *t = &call->inputs[k];
    int64_t step = 1;
    for (uint32_t d = t->rank; d-- > 0; step *= t->dims[d])
      steps[k][d + y->rank - t->rank] = t->dims[d] == 1 ? 0 : step;
  }
  for (int64_t i = 0; i < count; i++) {
    rc = function(call, string_at(&call->inputs[0], at[0]), string_at(&call->inputs[1], at[1]), i);
    if (rc) return rc;
    for (uint32_t d = y->rank; d-- > 0;) {
      for (int k = 0; k < 2; k++) at[k] += steps[k][d];
      if (++index[d] < y->dims[d]) break;
      for (int k = 0; k < 2; k++) at[k] -= steps[k][d] * y->dims[d];
      index[d] = 0;
    }
  }
  return CMZ_SUCCESS;
}

static int join(cmz_op_call *call, const char *a, const char *b, int64_t i) {
  size_t first = strlen(a), second = strlen(b);
  char *text = cmz_text_take(call->model, first + second + 1);
  if (!text) return CMZ_OUT_OF_MEMORY;
  memcpy(text, a, first);
  memcpy(text + first, b, second + 1);
  ((const char **)call->outputs[0].data)[i] = text;
  return CMZ_SUCCESS;
}

int cmz_rt_string_concat(cmz_op_call *call) { return for_pairs(call, join, sizeof(char *)); }

static int compare(cmz_op_call *call, const char *a, const char *b, int64_t i) {
  ((uint8_t *)call->outputs[0].data)[i] = strcmp(a, b) == 0;
  return CMZ_SUCCESS;
}

int cmz_rt_string_equal(cmz_op_call *call) { return for_pairs(call, compare, 1); }

/* ---- StringSplit ---- */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool begins_with(const char *text, const char *start) {
  while (*start && *text == *start) text++, start++;
  return !*start;
}

/* The next part of *TEXT, which moves on; LAST: the rest. False at the end. Without a delimiter
 * parts lie between white space, of which none begins or ends the text. */
static bool next_part(const char **text, const char *delimiter, bool last, const char **part,
                      size_t *size) {
  const char *at = *text;
  if (!at) return false;
  if (*delimiter) {
    const char *end = at;
    while (*end && (last || !begins_with(end, delimiter))) end++;
    *part = at;
    *size = (size_t)(end - at);
    *text = *end ? end + strlen(delimiter) : NULL;
    return true;
  }
  while (is_space(*at)) at++;
  if (!*at) return false;
  const char *end = at;
  while (*end && (last || !is_space(*end))) end++;
  *part = at;
  *size = (size_t)(end - at);
  *text = last ? NULL : end;
  return true;
}

/* How many parts TEXT has; they go to TABLE when that is not NULL. -1 without memory. */
static int64_t split_text(cmz_op_call *call, const char *text, const char *delimiter, int64_t most,
                          const char **table) {
  int64_t count = 0;
  const char *part;
  size_t size;
  while (next_part(&text, delimiter, most >= 0 && count >= most, &part, &size)) {
    if (table) {
      table[count] = keep_text(call, part, size);
      if (!table[count]) return -1;
    }
    count++;
  }
  return count;
}

int cmz_rt_string_split(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0];
  bool given = call->input_count > 1 && call->inputs[1].buffer != CMZ_NO_INDEX;
  const char *delimiter = given ? string_at(&call->inputs[1], 0) : "";
  int64_t most = cmz_op_attribute(call, 0), count = cmz_op_count(x), longest = 0;
  if (call->output_count > 1 && call->outputs[1].buffer != CMZ_NO_INDEX) {
    int rc = cmz_op_output(call, 1, count * (int64_t)sizeof(int64_t));
    if (rc) return rc;
  }
  for (int64_t i = 0; i < count; i++) {
    int64_t parts = split_text(call, string_at(x, i), delimiter, most, NULL);
    if (parts > longest) longest = parts;
    if (call->output_count > 1 && call->outputs[1].data)
      ((int64_t *)call->outputs[1].data)[i] = parts;
  }
  if (call->outputs[0].buffer == CMZ_NO_INDEX) return CMZ_SUCCESS;
  int64_t dims[CMZ_MAX_DIMS];
  for (uint32_t d = 0; d < x->rank; d++) dims[d] = x->dims[d];
  dims[x->rank] = longest;
  int rc = cmz_op_shape(call, 0, x->rank + 1, dims);
  const char **table = call->outputs[0].data;
  for (int64_t i = 0; !rc && i < count; i++) {
    int64_t parts = split_text(call, string_at(x, i), delimiter, most, table + i * longest);
    if (parts < 0) return CMZ_OUT_OF_MEMORY;
    for (; parts < longest; parts++) table[i * longest + parts] = "";
  }
  return rc;
}

/* ---- Cast ---- */

static double float_value(const cmz_op_tensor *t, int64_t i) {
  if (t->element == CMZ_ELEMENT_F64) return ((const double *)t->data)[i];
  return (double)((const float *)t->data)[i];
}

/* As few decimals as read back as the same number of ELEMENT's type; many enough to write numbers
 * of usual size without an exponent. */
static int print_float(char *text, size_t size, double value, uint32_t element) {
  if (value != value) return snprintf(text, size, "NaN");
  if (value - value != 0) return snprintf(text, size, value > 0 ? "INF" : "-INF");
  bool wide = element == CMZ_ELEMENT_F64;
  int length = 0;
  for (int digits = wide ? 15 : 8; digits <= (wide ? 17 : 9); digits++) {
    length = snprintf(text, size, "%.*g", digits, value);
    double again = strtod(text, NULL);
    if (wide ? again == value : (float)again == (float)value) break;
  }
  return length;
}

static int64_t int_value(const cmz_op_tensor *t, int64_t i) {
  switch (t->element) {
  case CMZ_ELEMENT_U8:
  case CMZ_ELEMENT_BOOL:
    return ((const uint8_t *)t->data)[i];
  case CMZ_ELEMENT_I8:
    return ((const int8_t *)t->data)[i];
  case CMZ_ELEMENT_U16:
    return ((const uint16_t *)t->data)[i];
  case CMZ_ELEMENT_I16:
    return ((const int16_t *)t->data)[i];
  case CMZ_ELEMENT_U32:
    return ((const uint32_t *)t->data)[i];
  case CMZ_ELEMENT_I32:
    return ((const int32_t *)t->data)[i];
  default:
    return ((const int64_t *)t->data)[i];
  }
}

/* Other floats never come here: they go through f32. */
static bool is_float(uint32_t element) {
  return element == CMZ_ELEMENT_F32 || element == CMZ_ELEMENT_F64;
}

static int print_number(cmz_op_call *call, const cmz_op_tensor *x, int64_t i, const char **out) {
  char text[64];
  int length;
  if (is_float(x->element)) length = print_float(text, sizeof text, float_value(x, i), x->element);
  else if (x->element == CMZ_ELEMENT_U64)
    length = snprintf(text, sizeof text, "%llu", (unsigned long long)int_value(x, i));
  else length = snprintf(text, sizeof text, "%lld", (long long)int_value(x, i));
  *out = keep_text(call, text, (size_t)length);
  return *out ? CMZ_SUCCESS : CMZ_OUT_OF_MEMORY;
}

/* A number in TEXT, white space around it left out, as element I of Y. */
static int read_number(cmz_op_call *call, const char *text, const cmz_op_tensor *y, int64_t i) {
  char *end;
  const char *at = text;
  while (is_space(*at)) at++;
  uint64_t bits;
  size_t size = cmz_element_bits(y->element) / 8;
  if (is_float(y->element)) {
    double value = strtod(at, &end);
    float narrow = (float)value;
    if (y->element == CMZ_ELEMENT_F64) memcpy(&bits, &value, sizeof bits);
    else memcpy(&bits, &narrow, sizeof narrow);
  } else if (y->element == CMZ_ELEMENT_U64) {
    bits = strtoull(at, &end, 10);
  } else {
    bits = (uint64_t)strtoll(at, &end, 10);
    if (y->element == CMZ_ELEMENT_BOOL) bits = bits != 0;
  }
  bool read = end != at;
  while (is_space(*end)) end++;
  if (!read || *end) return cmz_op_fail(call, "\"%.40s\" is not a number", text);
  memcpy((char *)y->data + (size_t)i * size, &bits, size);
  return CMZ_SUCCESS;
}

int cmz_rt_string_cast(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0], *y = &call->outputs[0];
  int64_t count = cmz_op_count(x);
  int rc = cmz_op_output(call, 0, count * cmz_element_bits(y->element) / 8);
  for (int64_t i = 0; !rc && i < count && y->data; i++) {
    rc = y->element == CMZ_ELEMENT_STRING ? print_number(call, x, i, (const char **)y->data + i)
                                          : read_number(call, string_at(x, i), y, i);
  }
  return rc;
}
