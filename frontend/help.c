/* help.c - what the option table says, as a screen, a full list, a man page (roff) and shell
 * completion. In: the rows. Out: text. Always holds: the short screen fits 24 lines of 100 columns'
 * terminals or nearly; order is the table's. */
#include "options.h"

static const char synopsis[] = "cmzc [options] INPUT -o OUTPUT";
static const char summary[] = "compiles machine-learning models ahead of time: ONNX in, a "
                              "self-contained library or program out";

static const char *spelling(cmz_arena *arena, const cmz_option_row *row) {
  if (!row->argument) return row->word;
  bool shortish = row->word[1] != '-' && strlen(row->word) == 2;
  if (row->argument[0] != '[') return cmz_arena_printf(arena, "%s %s", row->word, row->argument);
  return cmz_arena_printf(arena, shortish ? "%s%s" : "%s[=%s", row->word,
                          row->argument + (shortish ? 0 : 1));
}

static void list(cmz_text *text, bool all) {
  cmz_text_add(text, "cmzc %s\nusage: %s\n", summary, synopsis);
  const char *group = "";
  const cmz_option_row *row;
  for (size_t i = 0; (row = cmz_option_at(i)); i++) {
    if (!all && !row->screen) continue;
    if (all && strcmp(group, row->group) != 0) cmz_text_add(text, "\n%s\n", row->group);
    group = row->group;
    const char *later = row->form == CMZ_FORM_LATER ? " (not supported yet)" : "";
    const char *spelt = spelling(text->arena, row);
    cmz_text_add(text, "  %-30s %s%s\n", spelt, row->help, later);
  }
  if (!all) cmz_text_add(text, "--help=all lists everything; @FILE reads options from a file\n");
}

/* Roff takes a leading dot or quote as a command, a bare '-' as a hyphen, and '\\' as an escape. */
static void add_roff(cmz_text *text, const char *words) {
  if (*words == '.' || *words == '\'') cmz_text_add(text, "\\&");
  for (const char *c = words; *c; c++) {
    if (*c == '\\') cmz_text_add(text, "\\e");
    else if (*c == '-') cmz_text_add(text, "\\-");
    else cmz_text_add_bytes(text, c, 1);
  }
}

static void man(cmz_text *text) {
  cmz_text_add(text, ".TH CMZC 1\n.SH NAME\ncmzc \\- ");
  add_roff(text, summary);
  cmz_text_add(text, "\n.SH SYNOPSIS\n.B cmzc\n[options] INPUT \\-o OUTPUT\n.SH DESCRIPTION\n");
  cmz_text_add(text, "INPUT is model.onnx (external data files beside it included) or module.cmz. "
                     "OUTPUT's suffix says what is made.\n");
  const char *group = "";
  const cmz_option_row *row;
  for (size_t i = 0; (row = cmz_option_at(i)); i++) {
    if (strcmp(group, row->group) != 0) {
      cmz_text_add(text, ".SH \"OPTIONS: ");
      for (const char *c = row->group; *c; c++)
        cmz_text_add(text, "%c", *c >= 'a' && *c <= 'z' ? *c - 32 : *c);
      cmz_text_add(text, "\"\n");
    }
    group = row->group;
    cmz_text_add(text, ".TP\n.B ");
    add_roff(text, spelling(text->arena, row));
    cmz_text_add(text, "\n");
    add_roff(text, row->help);
    cmz_text_add(text, row->form == CMZ_FORM_LATER ? " (not supported yet)\n" : "\n");
  }
  cmz_text_add(text,
               ".SH EXIT STATUS\n0 done, 1 the input could not be compiled, 2 wrong usage, 3 a "
               "tolerance or a budget was not met, "
               "4 internal error (with a reproducer file).\n.SH SEE ALSO\n.BR cmz\\-run (1)\n");
}

static void bash(cmz_text *text) {
  cmz_text_add(text, "# bash completion for cmzc, made by `cmzc --help=bash`\n_cmzc() {\n  local "
                     "word=${COMP_WORDS[COMP_CWORD]} "
                     "before=${COMP_WORDS[COMP_CWORD-1]}\n  case $before in\n");
  const cmz_option_row *row;
  for (size_t i = 0; (row = cmz_option_at(i)); i++) {
    if (!row->argument || row->argument[0] == '[' || !strchr(row->argument, '|') ||
        strpbrk(row->argument, "[=%."))
      continue;
    cmz_text_add(text, "    %s) COMPREPLY=($(compgen -W \"", row->word);
    for (const char *c = row->argument; *c; c++) cmz_text_add(text, "%c", *c == '|' ? ' ' : *c);
    cmz_text_add(text, "\" -- \"$word\")); return ;;\n");
  }
  cmz_text_add(text, "  esac\n  if [[ $word == -* ]]; then\n    COMPREPLY=($(compgen -W \"");
  for (size_t i = 0; (row = cmz_option_at(i)); i++)
    if (row->form != CMZ_FORM_LATER) cmz_text_add(text, "%s%s", i ? " " : "", row->word);
  cmz_text_add(text, "\" -- \"$word\"))\n  else\n    COMPREPLY=($(compgen -f -- \"$word\"))\n  "
                     "fi\n}\ncomplete -o filenames -F _cmzc cmzc\n");
}

void cmz_options_help(cmz_text *text, cmz_help_kind kind) {
  switch (kind) {
  case CMZ_HELP_MAN:
    man(text);
    break;
  case CMZ_HELP_BASH:
    bash(text);
    break;
  default:
    list(text, kind == CMZ_HELP_ALL);
    break;
  }
}
