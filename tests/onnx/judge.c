/* judge.c - judges one case: loads its library, runs it on the case's data and compares by the ONNX
 * project's rule. In: the case's folder, as export_cases.py writes it, and a library. Out: a result
 * and what to say about it. Always holds: nothing of the compiler is needed. */
#include "../../ir/dtype.h"
#include "../../runtime/cmz.h"
#include "cases.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PORTS = 64, MAX_SETS = 8 };

typedef struct port {
  cmz_value value;
  bool present, other;
} port;

typedef struct data_set {
  port inputs[MAX_PORTS], outputs[MAX_PORTS];
  int input_count, output_count;
} data_set;

void *read_file(const char *path, size_t *size) {
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

result judge_case(const char *folder, const char *name, const char *library) {
  char path[4200];
  snprintf(path, sizeof path, "%s/case.txt", folder);
  size_t size;
  char *text = read_file(path, &size), *save = NULL;
  data_set *sets = calloc(MAX_SETS, sizeof *sets);
  int set_count = 0;
  double rtol = 1e-3, atol = 1e-7;
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
      if (sets[s].inputs[i].other || sets[s].outputs[i].other) {
        snprintf(detail, sizeof detail,
                 "compiled, but the case's values have a form that the runner cannot feed");
        return RESULT_REFUSED;
      }
  return run_library(library, sets, set_count, rtol, is_random(name) ? INFINITY : atol);
}
