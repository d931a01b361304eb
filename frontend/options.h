/* options.h - the command line as data. In: words. Out: cmz_options. Always holds: an option that
 * is accepted has an effect; one whose feature does not exist yet is refused by name. */
#ifndef CMZ_FRONTEND_OPTIONS_H
#define CMZ_FRONTEND_OPTIONS_H

#include "../codegen/codegen.h"
#include "../passes/compress/compress.h"
#include "../passes/passes.h"

typedef enum cmz_help_kind {
  CMZ_HELP_NONE,
  CMZ_HELP_SCREEN,
  CMZ_HELP_ALL,
  CMZ_HELP_MAN,
  CMZ_HELP_BASH
} cmz_help_kind;

/* One file to write. */
typedef struct cmz_emit {
  cmz_output_kind kind;
  bool recipe;      /* --emit=recipe: KIND does not count */
  const char *path; /* NULL: beside OUTPUT, with the kind's suffix */
} cmz_emit;

typedef struct cmz_options {
  cmz_context *ctx;
  cmz_arena *arena;
  const char *input, *output;
  CMZ_VEC(cmz_emit) emits;
  bool no_header, external_weights, embed_weights, debug, depfile, save_temps;
  const char *prefix, *depfile_path;
  uint32_t threads, jobs;
  int level; /* -1: not given */
  bool small;
  cmz_dtype precision; /* CMZ_UNDEFINED: not given */
  bool tf32;           /* with f32: matrix units may round factors */
  const char *target, *host, *cpu, *cache_dir;
  bool no_cache;
  CMZ_VEC(cmz_pin) pins;
  CMZ_VEC(cmz_pin_range) ranges;
  bool check;
  cmz_compression_rule rule; /* of the options; pattern NULL */
  bool rule_set;
  const char *recipe, *report;
  cmz_help_kind help;
  bool version, list_targets, list_ops, list_passes;
  const char *print_after, *stop_after;
  bool check_passes, time_passes;
  bool verbose, quiet, warnings_are_errors, json;
  int color; /* -1 never, 0 by terminal, 1 always */
} cmz_options;

typedef struct cmz_option_row cmz_option_row;

/* Reads words, @FILE included. CMZ_E_USAGE with a message that names the option. */
cmz_status cmz_options_parse(cmz_options *options, int count, const char *const *words);
/* The text of a kind of help. */
void cmz_options_help(cmz_text *text, cmz_help_kind kind);
/* The kind that a path's suffix (or a word of --emit) names; false when it names none. */
bool cmz_output_kind_of_suffix(const char *path, cmz_output_kind *kind);
const char *cmz_output_kind_suffix(cmz_output_kind kind); /* ".so", …; "" for executables */

/* ---- between options.c and help.c ---- */
typedef enum cmz_option_form {
  CMZ_FORM_FLAG,
  CMZ_FORM_TEXT,
  CMZ_FORM_COUNT,
  CMZ_FORM_CALL,
  CMZ_FORM_LATER
} cmz_option_form;
struct cmz_option_row {
  const char *word, *argument;
  cmz_option_form form;
  size_t offset;
  cmz_status (*call)(cmz_options *o, const cmz_option_row *row, const char *argument);
  const char *group;
  bool screen;
  const char *help;
};
const cmz_option_row *cmz_option_at(size_t index); /* NULL at the end */

#endif
