/* judge_cases.c - judges cases on the machine that their libraries were compiled for: one process,
 * emulated perhaps, for all of them.
 *
 * usage: judge_cases CASES_DIR LIBRARIES_DIR [--jobs N] [--list FILE] [--verbose]
 * In: the folders of export_cases.py, and NAME.so of each case from `run_cases --keep`. Out: as
 * run_cases.c says. Built for the other machine with cases.c, judge.c and ir/dtype.c alone. */
#include "cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct folders {
  const char *cases, *libraries;
} folders;

static result judge_one(const void *user, const char *name) {
  const folders *f = user;
  char folder[4096], library[4200];
  snprintf(folder, sizeof folder, "%s/%s", f->cases, name);
  snprintf(library, sizeof library, "%s/%s.so", f->libraries, name);
  return judge_case(folder, name, library);
}

int main(int argc, char **argv) {
  folders f = {0};
  case_run run = {.jobs = 1, .one = judge_one, .user = &f};
  const char *list = NULL;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--jobs") && i + 1 < argc) run.jobs = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--list") && i + 1 < argc) list = argv[++i];
    else if (!strcmp(argv[i], "--verbose")) run.verbose = true;
    else if (!f.cases) f.cases = argv[i];
    else if (!f.libraries) f.libraries = argv[i];
  }
  if (!f.libraries) {
    fputs("usage: judge_cases CASES_DIR LIBRARIES_DIR [--jobs N] [--list FILE] [--verbose]\n",
          stderr);
    return 2;
  }
  test_case *cases = calloc(MAX_CASES, sizeof *cases);
  int count = list_cases(f.libraries, ".so", NULL, NULL, cases);
  run_cases(&run, cases, count);
  return report_cases(cases, count, list);
}
