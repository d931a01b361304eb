/* cases.h - the ONNX project's backend tests as export_cases.py writes them: running many, each in
 * a child of its own, and judging one. Shared by run_cases.c (compiles and judges here) and
 * judge_cases.c (judges on another machine what was compiled for it); needs nothing of the compiler
 * but ir/dtype.c. */
#ifndef CMZ_TESTS_ONNX_CASES_H
#define CMZ_TESTS_ONNX_CASES_H

#include <stdbool.h>
#include <stddef.h>

enum { MAX_CASES = 8192, DETAIL_BYTES = 400 };

typedef enum result {
  RESULT_PASS,
  RESULT_REFUSED,
  RESULT_WRONG,
  RESULT_CRASH,
  RESULT_HANG,
  RESULT_COUNT
} result;
typedef struct test_case {
  char *name;
  result result;
  char detail[DETAIL_BYTES];
} test_case;

/* How cases are run: ONE is called in a child with a time limit, so that a crash or a hang is one
 * result among others. */
typedef struct case_run {
  int jobs; /* at a time */
  bool verbose;
  /* Folder whose NAME.so is removed when a case has ended, or NULL */
  const char *leftovers;
  result (*one)(const void *user, const char *name);
  const void *user;
} case_run;

/* What the child says about its result. */
extern char detail[DETAIL_BYTES];

/* The content of the file at PATH with a zero byte behind it, NULL when it cannot be read; the
 * caller frees it. */
void *read_file(const char *path, size_t *size);
/* Entries of FOLDER that end with SUFFIX (which is cut off), contain MATCH and are lines of NAMES
 * (either may be NULL), sorted. */
int list_cases(const char *folder, const char *suffix, const char *match, const char *names,
               test_case *cases);
void run_cases(const case_run *run, test_case *cases, int count);
/* Prints totals, writes `result<TAB>case<TAB>detail` lines to LIST unless NULL; 0 unless a case was
 * wrong, crashed or hung. */
int report_cases(const test_case *cases, int count, const char *list);
/* Runs the model in LIBRARY on the data of the case in FOLDER and compares. judge.c */
result judge_case(const char *folder, const char *name, const char *library);

#endif
