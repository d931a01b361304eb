/* options.c - the command line to cmz_options, by the rows of options.def.
 * In: words and @FILEs. Out: the options, checked as far as that goes without the model. Always
 * holds: each message names the option; nothing is ignored silently. */
#include "options.h"
#include <stdlib.h>

static cmz_status usage(cmz_options *o, const char *option, const char *hint, const char *format,
                        ...) CMZ_PRINTF(4, 5);
static cmz_status usage(cmz_options *o, const char *option, const char *hint, const char *format,
                        ...) {
  va_list args;
  va_start(args, format);
  const char *message = cmz_arena_vprintf(o->arena, format, args);
  va_end(args);
  return cmz_fail_hint(o->ctx, CMZ_E_USAGE, (cmz_loc){.tensor = option}, hint, "%s", message);
}

/* ---- kinds of output ---- */

static const struct {
  cmz_output_kind kind;
  const char *suffix;
} output_kinds[] = {
    {CMZ_OUT_SHARED, ".so"},  {CMZ_OUT_OBJECT, ".o"},       {CMZ_OUT_ARCHIVE, ".a"},
    {CMZ_OUT_HEADER, ".h"},   {CMZ_OUT_ASSEMBLY, ".s"},     {CMZ_OUT_LLVM, ".ll"},
    {CMZ_OUT_MLIR, ".mlir"},  {CMZ_OUT_PTX, ".ptx"},        {CMZ_OUT_SPIRV, ".spv"},
    {CMZ_OUT_MODULE, ".cmz"}, {CMZ_OUT_EXECUTABLE, ".exe"}, {CMZ_OUT_SHARED, ".dylib"},
    {CMZ_OUT_SHARED, ".dll"}, {CMZ_OUT_ARCHIVE, ".lib"}};

const char *cmz_output_kind_suffix(cmz_output_kind kind) {
  for (size_t i = 0; i < CMZ_COUNT_OF(output_kinds); i++)
    if (output_kinds[i].kind == kind && kind != CMZ_OUT_EXECUTABLE) return output_kinds[i].suffix;
  return "";
}

bool cmz_output_kind_of_suffix(const char *path, cmz_output_kind *kind) {
  const char *slash = strrchr(path, '/');
  const char *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
  *kind = CMZ_OUT_EXECUTABLE;
  if (!dot || dot == name) return true;
  for (size_t i = 0; i < CMZ_COUNT_OF(output_kinds); i++)
    if (!strcmp(dot, output_kinds[i].suffix)) {
      *kind = output_kinds[i].kind;
      return true;
    }
  /* A suffix that names something else is refused rather than made a program of; "model.v2" is a
   * program. */
  static const char *const others[] = {".onnx", ".safetensors", ".gguf"};
  for (size_t i = 0; i < CMZ_COUNT_OF(others); i++)
    if (!strcmp(dot, others[i])) return false;
  return true;
}

/* ---- values ---- */

static bool read_i64(const char *text, const char **end, int64_t *value) {
  const char *p = text;
  bool negative = *p == '-';
  if (negative) p++;
  if (*p < '0' || *p > '9') return false;
  int64_t v = 0;
  for (; *p >= '0' && *p <= '9'; p++)
    if (!cmz_mul_i64(v, 10, &v) || !cmz_add_i64(v, *p - '0', &v)) return false;
  *value = negative ? -v : v;
  *end = p;
  return true;
}

static bool read_whole_i64(const char *text, int64_t *value) {
  const char *end;
  return read_i64(text, &end, value) && *end == 0;
}

/* Whether WORD is one of the words in LIST ("a|b|c"). */
static bool word_in(const char *word, const char *list) {
  size_t length = strlen(word);
  for (const char *p = list; length && *p;) {
    size_t part = strcspn(p, "|");
    if (part == length && !strncmp(p, word, length)) return true;
    p += part + (p[part] == '|');
  }
  return false;
}

/* ---- functions of CMZ_CALL rows ---- */

static cmz_status set_level(cmz_options *o, const cmz_option_row *row, const char *argument) {
  const char *level = argument ? argument : "1";
  o->small = !strcmp(level, "s");
  if (!o->small && (level[0] < '0' || level[0] > '3' || level[1]))
    return usage(o, row->word, "-O0 -O1 -O2 -O3 -Os", "unknown optimisation level -O%s", level);
  o->level = o->small ? 2 : level[0] - '0';
  return CMZ_OK;
}

static cmz_status add_cpu(cmz_options *o, const cmz_option_row *row, const char *argument) {
  (void)row;
  o->cpu = o->cpu ? cmz_arena_printf(o->arena, "%s,%s", o->cpu, argument) : argument;
  return CMZ_OK;
}

static cmz_status set_precision(cmz_options *o, const cmz_option_row *row, const char *argument) {
  static const struct {
    const char *word;
    cmz_dtype dtype;
    bool tf32;
  } rows[] = {{"f32", CMZ_F32, false},
              {"tf32", CMZ_F32, true},
              {"f16", CMZ_F16, false},
              {"bf16", CMZ_BF16, false}};
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++)
    if (!strcmp(argument, rows[i].word)) {
      o->precision = rows[i].dtype;
      o->tf32 = rows[i].tf32;
      return CMZ_OK;
    }
  return usage(o, row->word, "f32, tf32, f16 or bf16", "unknown precision \"%s\"", argument);
}

static cmz_status set_weights(cmz_options *o, const cmz_option_row *row, const char *argument) {
  o->embed_weights = !strcmp(argument, "embed");
  o->external_weights = !strcmp(argument, "external");
  if (o->embed_weights || o->external_weights) return CMZ_OK;
  return usage(o, row->word, "embed or external", "unknown place \"%s\"", argument);
}

static cmz_status set_emit(cmz_options *o, const cmz_option_row *row, const char *argument) {
  for (const char *p = argument; *p;) {
    size_t length = strcspn(p, ","), name = strcspn(p, "=,");
    const char *kind = cmz_arena_printf(o->arena, ".%.*s", (int)name, p);
    cmz_emit emit = {.kind = CMZ_OUT_EXECUTABLE};
    emit.recipe = !strcmp(kind, ".recipe");
    if (name < length)
      emit.path = cmz_arena_printf(o->arena, "%.*s", (int)(length - name - 1), p + name + 1);
    size_t i = 0;
    while (i < CMZ_COUNT_OF(output_kinds) && strcmp(kind, output_kinds[i].suffix)) i++;
    if (i < CMZ_COUNT_OF(output_kinds)) emit.kind = output_kinds[i].kind;
    else if (word_in(kind + 1, "ptx|spv|onnx|safetensors|gguf"))
      return usage(o, row->word, NULL, "--emit=%s is not supported yet", kind + 1);
    else if (!emit.recipe)
      return usage(o, row->word, "so o a exe h s ll mlir cmz recipe", "unknown kind \"%s\"",
                   kind + 1);
    cmz_vec_push(o->arena, &o->emits, emit);
    p += length + (p[length] == ',');
  }
  return CMZ_OK;
}

/* NAME=VALUE at the last '=': names may hold any character. */
static bool split_name(cmz_options *o, const char *argument, const char **name,
                       const char **value) {
  const char *equals = strrchr(argument, '=');
  if (!equals || equals == argument || !equals[1]) return false;
  *name = cmz_arena_printf(o->arena, "%.*s", (int)(equals - argument), argument);
  *value = equals + 1;
  return true;
}

static cmz_status add_shape(cmz_options *o, const cmz_option_row *row, const char *argument) {
  const char *hint = "--shape NAME=1x3x224x224, with ? for a dimension that stays open";
  const char *name, *value;
  if (!split_name(o, argument, &name, &value))
    return usage(o, row->word, hint, "\"%s\" is not NAME=SHAPE", argument);
  int64_t dims[CMZ_MAX_RANK];
  uint32_t rank = 0;
  for (const char *p = value;;) {
    if (rank == CMZ_MAX_RANK)
      return usage(o, row->word, NULL, "shape \"%s\" has too many dimensions", value);
    if (*p == '?') dims[rank] = -1, p++;
    else if (!read_i64(p, &p, &dims[rank]) || dims[rank] < 0)
      return usage(o, row->word, hint, "\"%s\" is not a shape", value);
    rank++;
    if (!*p) break;
    if (*p != 'x' && *p != ',') return usage(o, row->word, hint, "\"%s\" is not a shape", value);
    p++;
  }
  for (uint32_t i = 0; i < o->pins.count; i++)
    if (!strcmp(o->pins.data[i].name, name))
      return usage(o, row->word, NULL, "the shape of \"%s\" is given twice", name);
  cmz_vec_push(o->arena, &o->pins,
               ((cmz_pin){name, rank, cmz_arena_copy(o->arena, dims, rank * sizeof *dims)}));
  return CMZ_OK;
}

static cmz_status add_dim(cmz_options *o, const cmz_option_row *row, const char *argument) {
  const char *hint = "--dim batch=1 or --dim seq=1..512:128";
  cmz_pin_range range = {0};
  const char *value, *p;
  if (!split_name(o, argument, &range.name, &value))
    return usage(o, row->word, hint, "\"%s\" is not NAME=VALUE", argument);
  bool good = read_i64(value, &p, &range.low) && range.low >= 0;
  range.high = range.low;
  if (good && p[0] == '.' && p[1] == '.') good = read_i64(p + 2, &p, &range.high);
  range.hint = range.high;
  if (good && *p == ':') good = read_i64(p + 1, &p, &range.hint);
  if (!good || *p) return usage(o, row->word, hint, "\"%s\" is neither a size nor a range", value);
  if (range.low > range.high || range.hint < range.low || range.hint > range.high)
    return usage(o, row->word, hint, "range \"%s\" is empty, or its hint lies outside", value);
  for (uint32_t i = 0; i < o->ranges.count; i++)
    if (!strcmp(o->ranges.data[i].name, range.name))
      return usage(o, row->word, NULL, "dimension \"%s\" is given twice", range.name);
  cmz_vec_push(o->arena, &o->ranges, range);
  return CMZ_OK;
}

static cmz_status set_width(cmz_options *o, const cmz_option_row *row, const char *argument) {
  (void)argument;
  if (o->rule.bits) return usage(o, row->word, NULL, "two weight widths are given");
  o->rule_set = true;
  if (!cmz_rule_set_weights(&o->rule, row->word + 2))
    return usage(o, row->word, NULL, "%s is not supported yet", row->word);
  return CMZ_OK;
}

static cmz_status set_quantizer(cmz_options *o, const cmz_option_row *row, const char *argument) {
  if (!strcmp(argument, "rtn")) return CMZ_OK;
  if (word_in(argument, "gptq|awq|awq+gptq|hqq|smoothquant|llm.int8|quip|aqlm"))
    return usage(o, row->word, "rtn", "--quantizer %s is not supported yet", argument);
  return usage(o, row->word, "rtn", "unknown quantizer \"%s\"", argument);
}

static cmz_status set_pruner(cmz_options *o, const cmz_option_row *row, const char *argument) {
  if (!strcmp(argument, "magnitude")) return CMZ_OK;
  if (word_in(argument, "wanda|sparsegpt"))
    return usage(o, row->word, "magnitude", "--pruner %s is not supported yet", argument);
  return usage(o, row->word, "magnitude", "unknown pruner \"%s\"", argument);
}

static cmz_status set_group_size(cmz_options *o, const cmz_option_row *row, const char *argument) {
  int64_t size;
  if (!read_whole_i64(argument, &size) || size == 0 || size < -1 || size > 65536)
    return usage(o, row->word, "a number of columns, or -1 for whole rows",
                 "\"%s\" is not a group size", argument);
  o->rule.group_size = (int32_t)size;
  o->rule_set = true;
  return CMZ_OK;
}

static cmz_status set_symmetric(cmz_options *o, const cmz_option_row *row, const char *argument) {
  (void)argument;
  o->rule.symmetric = !strcmp(row->word, "--symmetric") ? 1 : -1;
  o->rule_set = true;
  return CMZ_OK;
}

/* A share, or a structure with its share or size: 0.5, heads:0.25, blocks:2. */
static bool is_planned_sparsity(const char *word) {
  static const char *const structures[] = {"heads:", "channels:", "blocks:"};
  for (size_t i = 0; i < CMZ_COUNT_OF(structures); i++)
    if (!strncmp(word, structures[i], strlen(structures[i]))) word += strlen(structures[i]);
  char *end;
  if (!strcmp(word, "4:8")) return true;
  return *word >= '0' && *word <= '9' && strtod(word, &end) > 0 && !*end;
}

static cmz_status set_prune(cmz_options *o, const cmz_option_row *row, const char *argument) {
  o->rule_set = true;
  if (cmz_rule_set_prune(&o->rule, argument)) return CMZ_OK;
  if (is_planned_sparsity(argument))
    return usage(o, row->word, "2:4", "--prune %s is not supported yet", argument);
  return usage(o, row->word, "2:4", "unknown sparsity \"%s\"", argument);
}

static cmz_status set_low_rank(cmz_options *o, const cmz_option_row *row, const char *argument) {
  o->rule_set = true;
  if (cmz_rule_set_low_rank(&o->rule, argument)) return CMZ_OK;
  return usage(o, row->word, "a rank, or a share such as 95%",
               "\"%s\" is neither a rank nor a share", argument);
}

static cmz_status set_help(cmz_options *o, const cmz_option_row *row, const char *argument) {
  static const struct {
    const char *word;
    cmz_help_kind kind;
  } kinds[] = {{"all", CMZ_HELP_ALL}, {"man", CMZ_HELP_MAN}, {"bash", CMZ_HELP_BASH}};
  o->help = CMZ_HELP_SCREEN;
  if (!argument) return CMZ_OK;
  for (size_t i = 0; i < CMZ_COUNT_OF(kinds); i++)
    if (!strcmp(argument, kinds[i].word)) {
      o->help = kinds[i].kind;
      return CMZ_OK;
    }
  return usage(o, row->word, "all, man, bash", "no help on \"%s\"", argument);
}

static cmz_status set_diagnostics(cmz_options *o, const cmz_option_row *row, const char *argument) {
  if (!word_in(argument, "text|json"))
    return usage(o, row->word, "text or json", "unknown form \"%s\"", argument);
  o->json = !strcmp(argument, "json");
  return CMZ_OK;
}

static cmz_status set_color(cmz_options *o, const cmz_option_row *row, const char *argument) {
  if (argument && !word_in(argument, "auto|always|never"))
    return usage(o, row->word, "auto, always, never", "unknown word \"%s\"", argument);
  o->color = !argument || !strcmp(argument, "always") ? 1 : !strcmp(argument, "never") ? -1 : 0;
  return CMZ_OK;
}

/* ---- the table ---- */

#define CMZ_FLAG(word, field, group, screen, help)                                                 \
  {word, NULL, CMZ_FORM_FLAG, offsetof(cmz_options, field), NULL, group, screen, help},
#define CMZ_TEXT(word, argument, field, group, screen, help)                                       \
  {word, argument, CMZ_FORM_TEXT, offsetof(cmz_options, field), NULL, group, screen, help},
#define CMZ_COUNT(word, argument, field, group, screen, help)                                      \
  {word, argument, CMZ_FORM_COUNT, offsetof(cmz_options, field), NULL, group, screen, help},
#define CMZ_CALL(word, argument, function, group, screen, help)                                    \
  {word, argument, CMZ_FORM_CALL, 0, function, group, screen, help},
#define CMZ_LATER(word, argument, group, screen, help)                                             \
  {word, argument, CMZ_FORM_LATER, 0, NULL, group, screen, help},
static const cmz_option_row rows[] = {
#include "options.def"
};

const cmz_option_row *cmz_option_at(size_t index) {
  return index < CMZ_COUNT_OF(rows) ? &rows[index] : NULL;
}

/* ---- parsing ---- */

typedef CMZ_VEC(const char *) word_list;

static bool is_optional(const cmz_option_row *row) {
  return row->argument && row->argument[0] == '[';
}

/* The row for WORD, and the argument that is part of the same word: --x=V, -jV, -mcpu=V, -O2. */
static const cmz_option_row *find_row(const char *word, const char **attached) {
  *attached = NULL;
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++) {
    size_t length = strlen(rows[i].word);
    if (strncmp(word, rows[i].word, length)) continue;
    if (!word[length]) return &rows[i];
    if (word[length] == '=' && (rows[i].word[1] == '-' || length > 2)) {
      *attached = word + length + 1;
      return &rows[i];
    }
    bool joined = length == 2 && rows[i].word[1] != '-' && rows[i].argument;
    if (joined) {
      *attached = word + length;
      return &rows[i];
    }
  }
  return NULL;
}

static size_t edit_distance(const char *a, const char *b) {
  enum { MAXIMUM = 24 };
  size_t n = strlen(b), line[MAXIMUM + 1];
  if (n > MAXIMUM || strlen(a) > MAXIMUM) return MAXIMUM;
  for (size_t j = 0; j <= n; j++) line[j] = j;
  for (size_t i = 1; a[i - 1]; i++) {
    size_t diagonal = line[0];
    line[0] = i;
    for (size_t j = 1; j <= n; j++) {
      size_t above = line[j], change = diagonal + (a[i - 1] != b[j - 1]);
      line[j] = CMZ_MIN(change, CMZ_MIN(above, line[j - 1]) + 1);
      diagonal = above;
    }
  }
  return line[n];
}

static cmz_status unknown_option(cmz_options *o, const char *word) {
  const char *best = NULL;
  size_t distance = 3;
  const char *name = cmz_arena_printf(o->arena, "%.*s", (int)strcspn(word, "="), word);
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++) {
    size_t d = edit_distance(name, rows[i].word);
    if (d < distance) distance = d, best = rows[i].word;
  }
  const char *hint = best ? cmz_arena_printf(o->arena, "did you mean %s?", best)
                          : "cmzc --help=all lists all options";
  return usage(o, name, hint, "unknown option");
}

static cmz_status apply(cmz_options *o, const cmz_option_row *row, const char *argument) {
  char *field = (char *)o + row->offset;
  int64_t number;
  switch (row->form) {
  case CMZ_FORM_FLAG:
    *(bool *)field = true;
    return CMZ_OK;
  case CMZ_FORM_TEXT:
    if (!*argument) return usage(o, row->word, NULL, "its %s is empty", row->argument);
    *(const char **)field = argument;
    return CMZ_OK;
  case CMZ_FORM_COUNT:
    if (!read_whole_i64(argument, &number) || number < 0 || number > 4096)
      return usage(o, row->word, NULL, "\"%s\" is not a number from 0 to 4096", argument);
    *(uint32_t *)field = (uint32_t)number;
    return CMZ_OK;
  case CMZ_FORM_CALL:
    return row->call(o, row, argument);
  case CMZ_FORM_LATER:
    break;
  }
  return usage(o, row->word, NULL, "%s is not supported yet", row->word);
}

/* Splits the text of an @FILE: blanks separate, quotes group, a backslash takes the next character
 * as it is. */
static cmz_status split_file(cmz_options *o, const cmz_file *file, word_list *words) {
  cmz_text word = {.arena = o->arena};
  bool open = false;
  char quote = 0;
  for (size_t i = 0; i < file->size; i++) {
    char c = (char)file->data[i];
    if (c == 0) return usage(o, file->path, NULL, "a zero byte in a response file");
    if (c == '\\' && quote != '\'' && i + 1 < file->size) {
      cmz_text_add_bytes(&word, &file->data[++i], 1), open = true;
    } else if (quote ? c == quote : c == '"' || c == '\'') {
      quote = quote ? 0 : c, open = true;
    } else if (quote || !strchr(" \t\r\n", c)) {
      cmz_text_add_bytes(&word, &c, 1), open = true;
    } else if (open) {
      cmz_vec_push(o->arena, words, word.data ? word.data : "");
      word = (cmz_text){.arena = o->arena}, open = false;
    }
  }
  if (quote) return usage(o, file->path, NULL, "a quote that is not closed in a response file");
  if (open) cmz_vec_push(o->arena, words, word.data ? word.data : "");
  return CMZ_OK;
}

static cmz_status collect(cmz_options *o, int count, const char *const *words, word_list *out,
                          int depth) {
  for (int i = 0; i < count; i++) {
    if (words[i][0] != '@' || !words[i][1]) {
      cmz_vec_push(o->arena, out, words[i]);
      continue;
    }
    if (depth > 8) return usage(o, words[i], NULL, "response files are nested too deeply");
    const cmz_file *file;
    word_list inner = {0};
    CMZ_TRY(cmz_file_map(o->ctx, words[i] + 1, &file));
    CMZ_TRY(split_file(o, file, &inner));
    CMZ_TRY(collect(o, (int)inner.count, inner.data, out, depth + 1));
  }
  return CMZ_OK;
}

static cmz_status parse_words(cmz_options *o, const word_list *words) {
  bool only_files = false;
  for (uint32_t i = 0; i < words->count; i++) {
    const char *word = words->data[i], *argument;
    if (!only_files && !strcmp(word, "--")) {
      only_files = true;
      continue;
    }
    if (only_files || word[0] != '-' || !word[1]) {
      if (o->input)
        return usage(o, word, "one model at a time", "a second input; the first is \"%s\"",
                     o->input);
      o->input = word;
      continue;
    }
    const cmz_option_row *row = find_row(word, &argument);
    if (!row) return unknown_option(o, word);
    if (!row->argument && argument) return usage(o, row->word, NULL, "takes no argument");
    if (row->argument && !argument && !is_optional(row) && row->form != CMZ_FORM_LATER) {
      if (i + 1 == words->count)
        return usage(o, row->word, NULL, "needs its argument, %s", row->argument);
      argument = words->data[++i];
    }
    CMZ_TRY(apply(o, row, argument));
  }
  return CMZ_OK;
}

cmz_status cmz_options_parse(cmz_options *o, int count, const char *const *words) {
  word_list all = {0};
  o->level = -1;
  CMZ_TRY(collect(o, count, words, &all, 0));
  CMZ_TRY(parse_words(o, &all));
  if (o->level < 0) o->level = 2;
  return CMZ_OK;
}
