/* cases.c - lists cases, runs each in a child with a time limit, reports. In: folders, a function
 * for one case. Out: results. Always holds: whatever a case does, the others run. */
#define _GNU_SOURCE
#include "cases.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CASE_SECONDS
#define CASE_SECONDS 60 /* an emulator takes more */
#endif
enum { MAX_JOBS = 64 };

static const char *const result_names[RESULT_COUNT] = {"pass", "refused", "wrong", "crash", "hang"};

char detail[DETAIL_BYTES];

static int by_name(const void *a, const void *b) {
  return strcmp(((const test_case *)a)->name, ((const test_case *)b)->name);
}

/* Whether NAME is a line of LIST. */
static bool is_line(const char *list, const char *name) {
  size_t length = strlen(name);
  for (const char *at = list; (at = strstr(at, name)); at++)
    if ((at == list || at[-1] == '\n') && (at[length] == '\n' || !at[length])) return true;
  return false;
}

int list_cases(const char *folder, const char *suffix, const char *match, const char *names,
               test_case *cases) {
  DIR *dir = opendir(folder);
  if (!dir) {
    fprintf(stderr, "%s: %s\n", folder, strerror(errno));
    exit(2);
  }
  int n = 0;
  for (struct dirent *e; (e = readdir(dir)) && n < MAX_CASES;) {
    size_t length = strlen(e->d_name), cut = strlen(suffix);
    if (e->d_name[0] == '.' || length < cut || strcmp(e->d_name + length - cut, suffix) != 0)
      continue;
    char *name = strndup(e->d_name, length - cut);
    if ((!match || strstr(name, match)) && (!names || is_line(names, name))) cases[n++].name = name;
    else free(name);
  }
  closedir(dir);
  qsort(cases, (size_t)n, sizeof *cases, by_name);
  return n;
}

typedef struct job {
  pid_t pid;
  int pipe, index;
} job;

static void start_job(const case_run *o, test_case *cases, int index, job *j) {
  int ends[2];
  if (pipe(ends)) exit(2);
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    setpgid(0, 0);
    int null = open("/dev/null", O_WRONLY);
    if (null >= 0 && !o->verbose) dup2(null, 2);
    alarm(CASE_SECONDS);
    result r = o->one(o->user, cases[index].name);
    ssize_t written = write(ends[1], detail, strlen(detail) + 1);
    _exit(written < 0 ? 99 : (int)r);
  }
  close(ends[1]);
  *j = (job){pid, ends[0], index};
}

static void finish_job(const case_run *o, test_case *cases, job *j, int status) {
  test_case *c = &cases[j->index];
  ssize_t n = read(j->pipe, c->detail, sizeof c->detail - 1);
  c->detail[n > 0 ? n : 0] = 0;
  close(j->pipe);
  kill(-j->pid, SIGKILL); /* what the case may have left running */
  if (o->leftovers) {
    char library[4200];
    snprintf(library, sizeof library, "%s/%s.so", o->leftovers, c->name);
    unlink(library);
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) < RESULT_COUNT) {
    c->result = (result)WEXITSTATUS(status);
  } else if (WIFSIGNALED(status)) {
    c->result = WTERMSIG(status) == SIGALRM ? RESULT_HANG : RESULT_CRASH;
    snprintf(c->detail, sizeof c->detail, "signal %d (%s)", WTERMSIG(status),
             strsignal(WTERMSIG(status)));
  } else {
    c->result = RESULT_CRASH;
  }
  if (c->result != RESULT_PASS || o->verbose)
    printf("%-8s %s  %s\n", result_names[c->result], c->name, c->detail);
}

void run_cases(const case_run *o, test_case *cases, int count) {
  job jobs[MAX_JOBS];
  int running = 0, next = 0, at_once = o->jobs < 1 ? 1 : o->jobs > MAX_JOBS ? MAX_JOBS : o->jobs;
  while (next < count || running) {
    while (next < count && running < at_once) start_job(o, cases, next++, &jobs[running++]);
    int status;
    pid_t pid = wait(&status);
    for (int i = 0; i < running; i++)
      if (jobs[i].pid == pid) {
        finish_job(o, cases, &jobs[i], status);
        jobs[i] = jobs[--running];
        break;
      }
  }
}

static void print_totals(const char *label, const char *kind, bool expanded, const test_case *cases,
                         int count) {
  int totals[RESULT_COUNT] = {0}, n = 0;
  for (int i = 0; i < count; i++) {
    if (kind && strncmp(cases[i].name, kind, strlen(kind))) continue;
    if (!expanded && strstr(cases[i].name, "_expanded")) continue;
    totals[cases[i].result]++;
    n++;
  }
  if (!n) return;
  printf("%-28s %5d of %5d pass (%.1f %%)", label, totals[RESULT_PASS], n,
         100.0 * totals[RESULT_PASS] / n);
  for (int r = 1; r < RESULT_COUNT; r++) printf(", %d %s", totals[r], result_names[r]);
  printf("\n");
}

static void write_list(const char *path, const test_case *cases, int count) {
  FILE *f = fopen(path, "w");
  if (!f) return;
  for (int i = 0; i < count; i++)
    fprintf(f, "%s\t%s\t%s\n", result_names[cases[i].result], cases[i].name, cases[i].detail);
  fclose(f);
}

int report_cases(const test_case *cases, int count, const char *list) {
  print_totals("node", "node.", true, cases, count);
  print_totals("node without _expanded", "node.", false, cases, count);
  print_totals("simple", "simple.", true, cases, count);
  print_totals("pytorch-converted", "pytorch-converted.", true, cases, count);
  print_totals("pytorch-operator", "pytorch-operator.", true, cases, count);
  print_totals("light", "light.", true, cases, count);
  if (list) write_list(list, cases, count);
  int passed = 0, refused = 0, failed = 0;
  for (int i = 0; i < count; i++) {
    passed += cases[i].result == RESULT_PASS;
    refused += cases[i].result == RESULT_REFUSED;
    failed += cases[i].result > RESULT_REFUSED;
  }
  printf("onnx: %d passed, %d refused by name, %d wrong, crashed or hung\n", passed, refused,
         failed);
  return failed || !count;
}
