/* run_cases.c - runs the ONNX project's backend tests, exported by export_cases.py, through the
 * compiler as a library.
 *
 * usage: run_cases CASES_DIR WORK_DIR [--jobs N] [--match TEXT] [--list FILE] [--cache DIR]
 * [--verbose] [-- cmzc options] Each case is compiled to a shared library, loaded, run and compared
 * in a forked child with a time limit, so that a crash or a hang is one result among others.
 * Results: pass; refused (a located message, exit 1 or 2); wrong; crash; hang. In: the folders of
 * export_cases.py. Out: a line a case that did not pass (all with --verbose), totals, and with
 * --list a file with `result<TAB>case<TAB>detail` for each. Exit status 0 unless a case was wrong,
 * crashed or hung. */
#define _GNU_SOURCE
#include "../../frontend/cmzc.h"
#include "../../ir/dtype.h"
#include "../../runtime/cmz.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_PORTS = 64, MAX_CASES = 8192, CASE_SECONDS = 60, DETAIL_BYTES = 400, MAX_JOBS = 64 };

typedef enum result {
  RESULT_PASS,
  RESULT_REFUSED,
  RESULT_WRONG,
  RESULT_CRASH,
  RESULT_HANG,
  RESULT_COUNT
} result;
static const char *const result_names[RESULT_COUNT] = {"pass", "refused", "wrong", "crash", "hang"};

typedef struct settings {
  const char *cases, *work, *match, *list;
  int jobs;
  bool verbose;
  int option_count;
  const char *options[64];
} settings;

typedef struct port {
  cmz_value value;
  bool present, other;
} port;

typedef struct data_set {
  port inputs[MAX_PORTS], outputs[MAX_PORTS];
  int input_count, output_count;
} data_set;

typedef struct test_case {
  char *name;
  result result;
  char detail[DETAIL_BYTES];
} test_case;

/* ---- in the child ---- */

static char detail[DETAIL_BYTES];

static void keep_message(void *user, const cmzc_message *message) {
  (void)user;
  if (message->severity == 2 && !detail[0]) snprintf(detail, sizeof detail, "%s", message->text);
  for (char *c = detail; *c; c++)
    if (*c == '\n' || *c == '\t') *c = ' ';
}

static void *read_file(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  long end = ftell(f);
  rewind(f);
  *size = end > 0 ? (size_t)end : 0;
  char *data = malloc(*size + 1);
  if (data && fread(data, 1, *size, f) != *size) {
    free(data);
    data = NULL;
  }
  fclose(f);
  if (data) data[*size] = 0;
  return data;
}

/* `DTYPE RANK DIMS… FILE` from SAVE on; strings become a table of pointers into the file. */
static bool read_tensor(const char *folder, const char *type, char **save, cmz_tensor *t) {
  t->element = (uint32_t)atoi(type);
  char *rank = strtok_r(NULL, " ", save);
  if (!rank) return false;
  t->rank = (uint32_t)atoi(rank);
  size_t count = 1;
  for (uint32_t d = 0; d < t->rank && d < CMZ_MAX_DIMS; d++) {
    char *dim = strtok_r(NULL, " ", save);
    if (!dim) return false;
    t->dims[d] = atoll(dim);
    count *= (size_t)t->dims[d];
  }
  char *file = strtok_r(NULL, " ", save), path[8192];
  if (!file) return false;
  snprintf(path, sizeof path, "%s/%s", folder, file);
  t->data = read_file(path, &t->bytes);
  if (!t->data || t->element != CMZ_ELEMENT_STRING) return t->data != NULL;
  const char **table = calloc(count + 1, sizeof *table), *at = t->data, *end = at + t->bytes;
  for (size_t i = 0; i < count && at < end; i++, at += strlen(at) + 1) table[i] = at;
  t->data = table;
  t->bytes = count * sizeof *table;
  return true;
}

/* A line of a data set, as export_cases.py describes it. */
static bool read_port(const char *folder, char *line, data_set *set) {
  char *save = NULL;
  char *role = strtok_r(line, " ", &save), *index = strtok_r(NULL, " ", &save);
  char *name = strtok_r(NULL, " ", &save), *type = strtok_r(NULL, " ", &save);
  if (!role || !index || !name || !type) return false;
  bool is_input = !strcmp(role, "in");
  int i = atoi(index);
  if (i < 0 || i >= MAX_PORTS) return false;
  port *p = is_input ? &set->inputs[i] : &set->outputs[i];
  int *count = is_input ? &set->input_count : &set->output_count;
  if (i >= *count) *count = i + 1;
  p->present = true;
  p->other = !strcmp(type, "other");
  if (p->other || !strcmp(type, "none")) return true;
  bool sequence = !strcmp(type, "seq");
  char *length = sequence ? strtok_r(NULL, " ", &save) : NULL;
  p->value.kind = sequence ? CMZ_VALUE_SEQUENCE : CMZ_VALUE_TENSOR;
  p->value.count = sequence && length ? (size_t)atoi(length) : !sequence;
  p->value.items = calloc(p->value.count + 1, sizeof *p->value.items);
  for (size_t k = 0; k < p->value.count; k++) {
    if (sequence) type = strtok_r(NULL, " ", &save);
    if (!type || !read_tensor(folder, type, &save, &p->value.items[k])) return false;
  }
  return true;
}

static size_t element_count(const cmz_tensor *t) {
  size_t n = 1;
  for (uint32_t d = 0; d < t->rank; d++) n *= (size_t)t->dims[d];
  return n;
}

static bool same_number(double got, double want, double rtol, double atol) {
  if (isnan(want) || isnan(got)) return isnan(want) && isnan(got);
  if (isinf(want) || isinf(got)) return want == got;
  return fabs(got - want) <= atol + rtol * fabs(want);
}

static result compare_strings(const cmz_tensor *got, const cmz_tensor *want, int index) {
  const char *const *a = got->data, *const *b = want->data;
  for (size_t i = 0; i < element_count(want); i++) {
    if (a[i] && !strcmp(a[i], b[i])) continue;
    snprintf(detail, sizeof detail, "output %d: string %zu is \"%s\", not \"%s\"", index, i,
             a[i] ? a[i] : "(null)", b[i]);
    return RESULT_WRONG;
  }
  return RESULT_PASS;
}

/* Cases whose expected values come from a random generator: type and shape alone can agree. */
static const char *const random_cases[] = {"node.test_bernoulli"};

static bool is_random(const char *name) {
  for (size_t i = 0; i < sizeof random_cases / sizeof *random_cases; i++)
    if (!strncmp(name, random_cases[i], strlen(random_cases[i]))) return true;
  return false;
}

/* The suite's own rule: dtype and shape equal, integers exact, floats within the case's tolerances.
 */
static result compare(const cmz_tensor *got, const cmz_tensor *want, int index, double rtol,
                      double atol) {
  if (got->element != want->element) {
    snprintf(detail, sizeof detail, "output %d has type %u, not %u", index, got->element,
             want->element);
    return RESULT_WRONG;
  }
  bool same_shape = got->rank == want->rank;
  for (uint32_t d = 0; same_shape && d < got->rank; d++) same_shape = got->dims[d] == want->dims[d];
  if (!same_shape) {
    snprintf(
        detail, sizeof detail,
        "output %d has another shape (rank %u, first dim %lld; expected rank %u, first dim %lld)",
        index, got->rank, got->rank ? (long long)got->dims[0] : -1, want->rank,
        want->rank ? (long long)want->dims[0] : -1);
    return RESULT_WRONG;
  }
  if (want->element == CMZ_ELEMENT_STRING) return compare_strings(got, want, index);
  bool is_float = cmz_dtype_is_float((cmz_dtype)want->element);
  /* bfloat16 has 8 bits: the suite's runner (onnx/backend/test/runner) takes two units in the last
   * place. */
  if (want->element == CMZ_BF16) rtol = fmax(rtol, 0x1p-6);
  size_t n = element_count(want), bad = 0, first = 0;
  for (size_t i = 0; i < n; i++) {
    bool ok = is_float ? same_number(cmz_dtype_get_f64((cmz_dtype)got->element, got->data, i),
                                     cmz_dtype_get_f64((cmz_dtype)want->element, want->data, i),
                                     rtol, atol)
                       : cmz_dtype_get_i64((cmz_dtype)got->element, got->data, i) ==
                             cmz_dtype_get_i64((cmz_dtype)want->element, want->data, i);
    if (!ok && !bad++) first = i;
  }
  if (!bad) return RESULT_PASS;
  snprintf(detail, sizeof detail,
           "output %d: %zu of %zu elements differ, first at %zu: %.9g, not %.9g", index, bad, n,
           first, cmz_dtype_get_f64((cmz_dtype)got->element, got->data, first),
           cmz_dtype_get_f64((cmz_dtype)want->element, want->data, first));
  return RESULT_WRONG;
}

static result compare_values(const cmz_value *got, const cmz_value *want, int index, double rtol,
                             double atol) {
  if (got->kind != want->kind || got->count != want->count) {
    snprintf(detail, sizeof detail, "output %d has kind %u with %zu items, not %u with %zu", index,
             got->kind, got->count, want->kind, want->count);
    return RESULT_WRONG;
  }
  for (size_t i = 0; i < want->count; i++) {
    result r = compare(&got->items[i], &want->items[i], index, rtol, atol);
    if (r != RESULT_PASS) return r;
  }
  return RESULT_PASS;
}

static int run_any(const cmz_api *api, cmz_model *model, const cmz_value *inputs,
                   cmz_value *outputs) {
  if (api->run_values) return api->run_values(model, inputs, outputs);
  static cmz_tensor in[MAX_PORTS], out[MAX_PORTS];
  memset(out, 0, sizeof out);
  for (uint32_t i = 0; i < api->description->input_count; i++) {
    if (inputs[i].kind != CMZ_VALUE_TENSOR) return CMZ_INVALID_ARGUMENT;
    in[i] = inputs[i].items[0];
  }
  for (uint32_t i = 0; i < api->description->output_count; i++)
    outputs[i] = (cmz_value){.kind = CMZ_VALUE_TENSOR, .count = 1, .items = &out[i]};
  return api->run(model, in, out);
}

static result run_set(const cmz_api *api, cmz_model *model, data_set *set, double rtol,
                      double atol) {
  cmz_value inputs[MAX_PORTS] = {0}, outputs[MAX_PORTS] = {0};
  const cmz_description *d = api->description;
  if (d->input_count > MAX_PORTS || d->output_count > MAX_PORTS) {
    snprintf(detail, sizeof detail, "more than %d inputs or outputs", MAX_PORTS);
    return RESULT_WRONG;
  }
  for (uint32_t i = 0; i < d->input_count; i++) {
    if ((int)i >= set->input_count || !set->inputs[i].present) {
      snprintf(detail, sizeof detail, "the model has %u inputs, the case gives %d", d->input_count,
               set->input_count);
      return RESULT_WRONG;
    }
    inputs[i] = set->inputs[i].value;
  }
  if ((int)d->output_count < set->output_count) {
    snprintf(detail, sizeof detail, "the model has %u outputs, the case expects %d",
             d->output_count, set->output_count);
    return RESULT_WRONG;
  }
  if (run_any(api, model, inputs, outputs)) {
    snprintf(detail, sizeof detail, "run: %s", api->error(model));
    return RESULT_WRONG;
  }
  for (int i = 0; i < set->output_count; i++) {
    result r = compare_values(&outputs[i], &set->outputs[i].value, i, rtol, atol);
    if (r != RESULT_PASS) return r;
  }
  return RESULT_PASS;
}

static result run_library(const char *library, data_set *sets, int set_count, double rtol,
                          double atol) {
  void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    snprintf(detail, sizeof detail, "dlopen: %s", dlerror());
    return RESULT_WRONG;
  }
  const cmz_api *(*entry)(void) = NULL;
  *(void **)&entry = dlsym(handle, "cmz_model_api");
  if (!entry) {
    snprintf(detail, sizeof detail, "no cmz_model_api in the library");
    return RESULT_WRONG;
  }
  const cmz_api *api = entry();
  cmz_config config = {.struct_size = sizeof config, .threads = 1};
  cmz_model *model = NULL;
  if (api->create(&config, &model)) {
    snprintf(detail, sizeof detail, "create: %s", model ? api->error(model) : "out of memory");
    return RESULT_WRONG;
  }
  result r = RESULT_PASS;
  for (int s = 0; s < set_count && r == RESULT_PASS; s++)
    r = run_set(api, model, &sets[s], rtol, atol);
  api->destroy(model);
  return r;
}

static result run_case(const settings *o, const char *name) {
  char folder[4096], path[4200], library[4200];
  snprintf(folder, sizeof folder, "%s/%s", o->cases, name);
  snprintf(path, sizeof path, "%s/case.txt", folder);
  snprintf(library, sizeof library, "%s/%d.so", o->work, (int)getpid());
  size_t size;
  char *text = read_file(path, &size), *save = NULL;
  enum { MAX_SETS = 8 };
  data_set *sets = calloc(MAX_SETS, sizeof *sets);
  int set_count = 0;
  double rtol = 1e-3, atol = 1e-7;
  bool other = false;
  for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
       line = strtok_r(NULL, "\n", &save)) {
    if (!strncmp(line, "tolerance ", 10)) sscanf(line + 10, "%lf %lf", &rtol, &atol);
    else if (!strcmp(line, "set") && set_count < MAX_SETS) set_count++;
    else if (set_count && !read_port(folder, line, &sets[set_count - 1])) {
      snprintf(detail, sizeof detail, "the case's own data cannot be read");
      return RESULT_WRONG;
    }
  }
  for (int s = 0; s < set_count; s++)
    for (int i = 0; i < MAX_PORTS; i++)
      other |= sets[s].inputs[i].other || sets[s].outputs[i].other;
  snprintf(path, sizeof path, "%s/model.onnx", folder);
  const char *arguments[80] = {path, "-o", library, "--no-header", "-q", "-j", "1"};
  int count = 7;
  for (int i = 0; i < o->option_count; i++) arguments[count++] = o->options[i];
  cmzc_callbacks callbacks = {.message = keep_message};
  int status = cmzc_compile(count, arguments, &callbacks);
  if (status == 4) return RESULT_CRASH;
  if (status) return RESULT_REFUSED;
  result r;
  if (other) {
    snprintf(detail, sizeof detail,
             "compiled, but the case's values have a form that the runner cannot feed");
    r = RESULT_REFUSED;
  } else {
    r = run_library(library, sets, set_count, rtol, is_random(name) ? INFINITY : atol);
  }
  unlink(library);
  return r;
}

/* ---- in the parent ---- */

static int by_name(const void *a, const void *b) {
  return strcmp(((const test_case *)a)->name, ((const test_case *)b)->name);
}

static int list_cases(const settings *o, test_case *cases) {
  DIR *dir = opendir(o->cases);
  if (!dir) {
    fprintf(stderr, "run_cases: %s: %s\n", o->cases, strerror(errno));
    exit(2);
  }
  int n = 0;
  for (struct dirent *e; (e = readdir(dir)) && n < MAX_CASES;)
    if (e->d_name[0] != '.' && (!o->match || strstr(e->d_name, o->match)))
      cases[n++].name = strdup(e->d_name);
  closedir(dir);
  qsort(cases, (size_t)n, sizeof *cases, by_name);
  return n;
}

typedef struct job {
  pid_t pid;
  int pipe, index;
} job;

static void start_job(const settings *o, test_case *cases, int index, job *j) {
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
    result r = run_case(o, cases[index].name);
    ssize_t written = write(ends[1], detail, strlen(detail) + 1);
    _exit(written < 0 ? 99 : (int)r);
  }
  close(ends[1]);
  *j = (job){pid, ends[0], index};
}

static void finish_job(const settings *o, test_case *cases, job *j, int status) {
  test_case *c = &cases[j->index];
  ssize_t n = read(j->pipe, c->detail, sizeof c->detail - 1);
  c->detail[n > 0 ? n : 0] = 0;
  close(j->pipe);
  kill(-j->pid, SIGKILL); /* what the case may have left running */
  char library[4200];
  snprintf(library, sizeof library, "%s/%d.so", o->work, (int)j->pid);
  unlink(library);
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

static void run_all(const settings *o, test_case *cases, int count) {
  job jobs[MAX_JOBS];
  int running = 0, next = 0;
  while (next < count || running) {
    while (next < count && running < o->jobs) start_job(o, cases, next++, &jobs[running++]);
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

static bool parse_arguments(int argc, char **argv, settings *o) {
  static const char usage[] = "usage: run_cases CASES_DIR WORK_DIR [--jobs N] [--match TEXT] "
                              "[--list FILE] [--verbose] [-- cmzc options]\n";
  *o = (settings){.jobs = 2};
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--jobs") && i + 1 < argc) {
      int jobs = atoi(argv[++i]); /* the macros read their arguments twice */
      o->jobs = CMZ_MAX(1, CMZ_MIN(jobs, MAX_JOBS));
    } else if (!strcmp(argv[i], "--match") && i + 1 < argc) o->match = argv[++i];
    else if (!strcmp(argv[i], "--list") && i + 1 < argc) o->list = argv[++i];
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
  test_case *cases = calloc(MAX_CASES, sizeof *cases);
  int count = list_cases(&o, cases);
  run_all(&o, cases, count);
  print_totals("node", "node.", true, cases, count);
  print_totals("node without _expanded", "node.", false, cases, count);
  print_totals("simple", "simple.", true, cases, count);
  print_totals("pytorch-converted", "pytorch-converted.", true, cases, count);
  print_totals("pytorch-operator", "pytorch-operator.", true, cases, count);
  print_totals("light", "light.", true, cases, count);
  if (o.list) write_list(o.list, cases, count);
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
