/* run_cases.c - runs the ONNX project's backend tests, exported by export_cases.py, through the
 * compiler as a library.
 *
 * usage: run_cases CASES_DIR WORK_DIR [--jobs N] [--match TEXT] [--names FILE] [--list FILE]
 * [--keep] [--verbose] [-- cmzc options] Each case is compiled to a shared library, loaded, run and
 * compared in a forked child with a time limit. --names: only the cases that are lines of FILE.
 * --keep: compile only, and leave the libraries in WORK_DIR for judge_cases on the machine that
 * they are for. Results: pass; refused (a located message, exit 1 or 2); wrong; crash; hang.
 * In: the folders of export_cases.py. Out: a line a case that did not pass (all with --verbose),
 * totals, and with --list a file with `result<TAB>case<TAB>detail` for each. Exit status 0 unless
 * a case was wrong, crashed or hung. */
#define _GNU_SOURCE
#include "../../frontend/cmzc.h"
#include "cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct settings {
  const char *cases, *work, *match, *names, *list;
  int jobs;
  bool keep, verbose;
  int option_count;
  const char *options[64];
} settings;

static void keep_message(void *user, const cmzc_message *message) {
  (void)user;
  if (message->severity == 2 && !detail[0]) snprintf(detail, sizeof detail, "%s", message->text);
  for (char *c = detail; *c; c++)
    if (*c == '\n' || *c == '\t') *c = ' ';
}

static result run_case(const void *user, const char *name) {
  const settings *o = user;
  char folder[4096], model[4200], library[4200];
  snprintf(folder, sizeof folder, "%s/%s", o->cases, name);
  snprintf(model, sizeof model, "%s/model.onnx", folder);
  snprintf(library, sizeof library, "%s/%s.so", o->work, name);
  const char *arguments[80] = {model, "-o", library, "--no-header", "-q", "-j", "1"};
  int count = 7;
  for (int i = 0; i < o->option_count; i++) arguments[count++] = o->options[i];
  cmzc_callbacks callbacks = {.message = keep_message};
  int status = cmzc_compile(count, arguments, &callbacks);
  if (status == 4) return RESULT_CRASH;
  if (status) return RESULT_REFUSED;
  if (o->keep) return RESULT_PASS;
  result r = judge_case(folder, name, library);
  unlink(library);
  return r;
}

static bool parse_arguments(int argc, char **argv, settings *o) {
  static const char usage[] =
      "usage: run_cases CASES_DIR WORK_DIR [--jobs N] [--match TEXT] "
      "[--names FILE] [--list FILE] [--keep] [--verbose] [-- cmzc options]\n";
  *o = (settings){.jobs = 2};
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--jobs") && i + 1 < argc) {
      o->jobs = atoi(argv[++i]);
    } else if (!strcmp(argv[i], "--match") && i + 1 < argc) o->match = argv[++i];
    else if (!strcmp(argv[i], "--list") && i + 1 < argc) o->list = argv[++i];
    else if (!strcmp(argv[i], "--names") && i + 1 < argc) o->names = argv[++i];
    else if (!strcmp(argv[i], "--keep")) o->keep = true;
    else if (!strcmp(argv[i], "--verbose")) o->verbose = true;
    else if (!strcmp(argv[i], "--")) {
      while (++i < argc && o->option_count < 64) o->options[o->option_count++] = argv[i];
    } else if (!o->cases) o->cases = argv[i];
    else if (!o->work) o->work = argv[i];
  }
  if (o->cases && o->work) return true;
  fputs(usage, stderr);
  return false;
}

int main(int argc, char **argv) {
  settings o;
  if (!parse_arguments(argc, argv, &o)) return 2;
  mkdir(o.work, 0777);
  size_t size;
  char *names = o.names ? read_file(o.names, &size) : NULL;
  if (o.names && !names) {
    fprintf(stderr, "run_cases: cannot read %s\n", o.names);
    return 2;
  }
  test_case *cases = calloc(MAX_CASES, sizeof *cases);
  int count = list_cases(o.cases, "", o.match, names, cases);
  case_run run = {.jobs = o.jobs,
                  .verbose = o.verbose,
                  .leftovers = o.keep ? NULL : o.work,
                  .one = run_case,
                  .user = &o};
  run_cases(&run, cases, count);
  return report_cases(cases, count, o.list);
}
