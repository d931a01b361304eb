/* cmz_run.c - runs a compiled model from the command line. In: options, .npy files. Out: .npy
 * files, figures, exit status: 0 done, 1 the model or an input would not do, 2 wrong usage. Always
 * holds: an output file is written only after a successful run. */
#include "runner.h"

static const char usage[] =
    "usage: cmz-run MODEL.so [options]          (an executable made by cmzc: without MODEL.so)\n"
    "  --input NAME=FILE.npy   give an input (the name may be left out when there is one input);\n"
    "                          a sequence is a folder that holds 0.npy, 1.npy, ...; an optional\n"
    "                          that is not given is absent\n"
    "  --random SEED           fill the inputs that are not given\n"
    "  --output-dir DIR        write each output to DIR/NAME.npy\n"
    "  --threads N             worker threads (the model's default otherwise)\n"
    "  --device N              GPU number\n"
    "  --cpu LEVEL             run this CPU level of the model, not the best that fits\n"
    "  --bench N [--warmup N]  time N runs: min, median, max\n"
    "  --profile               time per kernel\n"
    "  --info                  inputs, outputs, sizes, target\n"
    "  --json                  print as one JSON object\n";

typedef struct options {
  const char *model, *output_dir, *cpu;
  const char **inputs;
  uint32_t input_count;
  int64_t random, threads, device, bench, warmup;
  bool is_random, profile, json, info, help;
} options;

typedef struct session {
  const options *o;
  const cmz_api *api;
  cmz_model *model;
  cmz_tensor *inputs, *outputs;
  cmz_value *values_in, *values_out; /* the same as values, with their kinds */
  uint32_t threads, profiled_runs;
  cmz_timing timing;
} session;

/* ---- text ---- */

void cmz_out_bytes(cmz_out *out, const void *data, size_t size) {
  if (out->length + size + 1 > out->capacity) {
    size_t capacity = 2 * (out->length + size + 1);
    char *larger = realloc(out->data, capacity);
    if (!larger) {
      out->incomplete = true;
      return;
    }
    out->data = larger;
    out->capacity = capacity;
  }
  if (size) memcpy(out->data + out->length, data, size);
  out->length += size;
  out->data[out->length] = 0;
}

void cmz_out_add(cmz_out *out, const char *format, ...) {
  char text[2048];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (n > 0) cmz_out_bytes(out, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void cmz_out_json(cmz_out *out, const char *text) {
  cmz_out_add(out, "\"");
  for (; *text; text++) {
    uint8_t c = (uint8_t)*text;
    if (c == '"' || c == '\\') cmz_out_add(out, "\\%c", c);
    else if (c < 32) cmz_out_add(out, "\\u%04x", c);
    else cmz_out_bytes(out, text, 1);
  }
  cmz_out_add(out, "\"");
}

int cmz_out_flush(cmz_out *out, int fd) {
  size_t at = 0;
  while (at < out->length) {
    long n = cmz_system_write(fd, out->data + at, out->length - at);
    if (n <= 0) return 1;
    at += (size_t)n;
  }
  return out->incomplete;
}

int cmz_complain(int status, const char *format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  cmz_out out = {0};
  cmz_out_add(&out, "cmz-run: error: %s\n", text);
  cmz_out_flush(&out, 2);
  free(out.data);
  return status;
}

/* ---- options ---- */

typedef enum option_kind { FLAG, NUMBER, TEXT, INPUT } option_kind;
typedef struct option_row {
  const char *name;
  option_kind kind;
  void *target;
  bool *seen;
} option_row;

static int set_option(const option_row *row, const char *value, options *o) {
  char *end;
  if (row->seen) *row->seen = true;
  switch (row->kind) {
  case FLAG:
    *(bool *)row->target = true;
    return 0;
  case TEXT:
    *(const char **)row->target = value;
    return 0;
  case INPUT:
    o->inputs[o->input_count++] = value;
    return 0;
  case NUMBER:
    break;
  }
  *(int64_t *)row->target = strtoll(value, &end, 10);
  if (*end || end == value || *(int64_t *)row->target < 0)
    return cmz_complain(2, "%s takes a number, not \"%s\"", row->name, value);
  return 0;
}

static int parse_options(int count, char **words, options *o, bool takes_model) {
  bool unused;
  const option_row rows[] = {
      {"--input", INPUT, NULL, NULL},
      {"--random", NUMBER, &o->random, &o->is_random},
      {"--output-dir", TEXT, &o->output_dir, NULL},
      {"--cpu", TEXT, &o->cpu, NULL},
      {"--device", NUMBER, &o->device, NULL},
      {"--threads", NUMBER, &o->threads, NULL},
      {"--bench", NUMBER, &o->bench, NULL},
      {"--warmup", NUMBER, &o->warmup, NULL},
      {"--profile", FLAG, &o->profile, NULL},
      {"--json", FLAG, &o->json, NULL},
      {"--info", FLAG, &o->info, NULL},
      {"--help", FLAG, &o->help, &unused},
  };
  for (int i = 1; i < count; i++) {
    const char *word = words[i], *value = NULL;
    if (word[0] != '-') {
      if (!takes_model || o->model) return cmz_complain(2, "unexpected \"%s\"", word);
      o->model = word;
      continue;
    }
    const option_row *row = NULL;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
      size_t length = strlen(rows[r].name);
      if (strncmp(word, rows[r].name, length) != 0 || (word[length] && word[length] != '='))
        continue;
      row = &rows[r];
      if (word[length] == '=') value = word + length + 1;
    }
    if (!row) return cmz_complain(2, "unknown option \"%s\" (--help lists them)", word);
    if (row->kind == FLAG && value) return cmz_complain(2, "%s takes no value", row->name);
    if (row->kind != FLAG && !value) {
      if (i + 1 >= count) return cmz_complain(2, "%s needs a value", row->name);
      value = words[++i];
    }
    int rc = set_option(row, value, o);
    if (rc) return rc;
  }
  return 0;
}

/* ---- inputs ---- */

static int find_input(const session *s, const char *name, size_t length) {
  for (uint32_t i = 0; i < s->api->description->input_count; i++) {
    const char *candidate = s->api->description->inputs[i].name;
    if (strlen(candidate) == length && memcmp(candidate, name, length) == 0) return (int)i;
  }
  return -1;
}

static uint32_t port_kind(const uint32_t *kinds, uint32_t i) { return kinds ? kinds[i] : 0; }

/* Frees what input INDEX holds. */
static void drop_value(session *s, uint32_t index) {
  cmz_value *value = &s->values_in[index];
  for (size_t i = 0; i < value->count; i++) free(value->items[i].data);
  if (value->items != &s->inputs[index]) free(value->items);
  *value = (cmz_value){.kind = CMZ_VALUE_NONE};
  s->inputs[index].data = NULL;
}

/* FOLDER/0.npy, FOLDER/1.npy … as far as they go. */
static int read_sequence(const char *folder, uint32_t element, cmz_value *value) {
  int fd = cmz_system_open(folder, 0x90000 /* O_DIRECTORY | O_CLOEXEC */);
  if (fd < 0) return cmz_complain(1, "\"%s\" is not a folder with 0.npy, 1.npy, ...", folder);
  close(fd);
  *value = (cmz_value){.kind = CMZ_VALUE_SEQUENCE};
  for (;;) {
    cmz_out path = {0};
    cmz_out_add(&path, "%s/%zu.npy", folder, value->count);
    fd = cmz_system_open(path.data, 0x80000);
    int rc = 0;
    if (fd >= 0) {
      close(fd);
      cmz_tensor *more = realloc(value->items, (value->count + 1) * sizeof *more);
      if (more) value->items = more;
      rc = more ? cmz_npy_read(path.data, element, &more[value->count])
                : cmz_complain(1, "no memory for \"%s\"", path.data);
      if (!rc) value->count++;
    }
    free(path.data);
    if (rc || fd < 0) return rc;
  }
}

/* NAME=FILE; names may hold '=' themselves, so every one is tried. */
static int read_input(session *s, const char *text) {
  const cmz_description *d = s->api->description;
  int index = -1;
  const char *path = NULL;
  for (const char *equals = strchr(text, '='); equals && index < 0;
       equals = strchr(equals + 1, '=')) {
    index = find_input(s, text, (size_t)(equals - text));
    path = equals + 1;
  }
  if (index < 0 && !strchr(text, '=') && d->input_count == 1) {
    index = 0;
    path = text;
  }
  if (index < 0) {
    cmz_out names = {0};
    for (uint32_t i = 0; i < d->input_count; i++)
      cmz_out_add(&names, "%s\"%s\"", i ? ", " : "", d->inputs[i].name);
    int rc = cmz_complain(1, "--input %s: no such input; the model has %s", text,
                          names.data ? names.data : "none");
    free(names.data);
    return rc;
  }
  drop_value(s, (uint32_t)index);
  cmz_value *value = &s->values_in[index];
  if (port_kind(d->input_kinds, (uint32_t)index) & CMZ_PORT_SEQUENCE)
    return read_sequence(path, d->inputs[index].element, value);
  int rc = cmz_npy_read(path, d->inputs[index].element, &s->inputs[index]);
  if (!rc) *value = (cmz_value){.kind = CMZ_VALUE_TENSOR, .count = 1, .items = &s->inputs[index]};
  return rc;
}

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static uint16_t half_bits(double v) { /* v in [0, 1), enough bits for a test input */
  uint32_t exponent = 15;
  if (v < 0.0001) return 0;
  while (v < 1) {
    v *= 2;
    exponent--;
  }
  return (uint16_t)(exponent << 10 | (uint32_t)((v - 1) * 1024));
}

static void fill_random(cmz_tensor *t, uint64_t *state) {
  size_t count = cmz_element_count(t);
  uint32_t width = cmz_element_width(t->element) / 8;
  for (size_t i = 0; i < count && width; i++) {
    double v = (double)(next_random(state) >> 11) * 0x1p-53;
    float f = (float)v;
    uint16_t half = half_bits(v);
    uint64_t whole = v >= 0.5;
    uint8_t *at = (uint8_t *)t->data + i * width;
    switch (t->element) {
    case CMZ_ELEMENT_F32:
      memcpy(at, &f, 4);
      break;
    case CMZ_ELEMENT_F64:
      memcpy(at, &v, 8);
      break;
    case CMZ_ELEMENT_F16:
      memcpy(at, &half, 2);
      break;
    case CMZ_ELEMENT_BF16:
      memcpy(at, (char *)&f + 2, 2);
      break;
    case CMZ_ELEMENT_U8:
    case CMZ_ELEMENT_I8:
      *at = (uint8_t)(v * 100);
      break;
    default:
      memcpy(at, &whole, width < 8 ? width : 8);
      break;
    }
  }
}

/* The dims of an input that is not given: symbolic ones as other inputs have them, else the least
 * that makes sense. */
static int make_random(session *s, uint32_t index, uint64_t *state) {
  const cmz_description *d = s->api->description;
  const cmz_port *port = &d->inputs[index];
  cmz_tensor *t = &s->inputs[index];
  *t = (cmz_tensor){.element = port->element, .rank = port->rank};
  for (uint32_t k = 0; k < port->rank; k++) {
    int64_t dim = port->dims[k];
    if (dim < 0) {
      int64_t low = d->dims[-1 - dim].low, found = low > 1 ? low : 1;
      for (uint32_t i = 0; i < d->input_count; i++) {
        for (uint32_t j = 0; j < d->inputs[i].rank && s->inputs[i].data; j++) {
          if (d->inputs[i].dims[j] == dim && j < s->inputs[i].rank) found = s->inputs[i].dims[j];
        }
      }
      dim = found;
    }
    t->dims[k] = dim;
  }
  t->bytes = (cmz_element_count(t) * cmz_element_width(t->element) + 7) / 8;
  if (port->element == CMZ_ELEMENT_STRING)
    return cmz_complain(1, "input \"%s\": strings cannot be random", port->name);
  t->data = calloc(t->bytes + 1, 1);
  if (!t->data) return cmz_complain(1, "no memory for input \"%s\"", port->name);
  fill_random(t, state);
  return 0;
}

static int make_inputs(session *s) {
  const cmz_description *d = s->api->description;
  for (uint32_t i = 0; i < s->o->input_count; i++) {
    int rc = read_input(s, s->o->inputs[i]);
    if (rc) return rc;
  }
  uint64_t state = (uint64_t)s->o->random;
  for (uint32_t i = 0; i < d->input_count; i++) {
    uint32_t kind = port_kind(d->input_kinds, i);
    if (s->values_in[i].kind != CMZ_VALUE_NONE || (kind & CMZ_PORT_OPTIONAL)) continue;
    if (kind)
      return cmz_complain(1, "input \"%s\", a sequence, is not given (--input \"%s\"=FOLDER)",
                          d->inputs[i].name, d->inputs[i].name);
    if (!s->o->is_random) {
      return cmz_complain(1,
                          "input \"%s\" is not given (--input \"%s\"=FILE.npy, or --random SEED)",
                          d->inputs[i].name, d->inputs[i].name);
    }
    int rc = make_random(s, i, &state);
    if (rc) return rc;
    s->values_in[i] = (cmz_value){.kind = CMZ_VALUE_TENSOR, .count = 1, .items = &s->inputs[i]};
  }
  return 0;
}

/* ---- running ---- */

static int run_once(session *s) {
  uint32_t count = s->api->description->output_count;
  if (count) memset(s->outputs, 0, count * sizeof *s->outputs);
  for (uint32_t i = 0; i < count; i++)
    s->values_out[i] = (cmz_value){.kind = CMZ_VALUE_TENSOR, .count = 1, .items = &s->outputs[i]};
  int rc = s->api->run_values ? s->api->run_values(s->model, s->values_in, s->values_out)
                              : s->api->run(s->model, s->inputs, s->outputs);
  return rc ? cmz_complain(1, "%s", s->api->error(s->model)) : 0;
}

static int compare_samples(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static int bench(session *s) {
  int64_t count = s->o->bench, warmup = s->o->warmup >= 0 ? s->o->warmup : 3;
  s->timing.samples = malloc((size_t)count * sizeof *s->timing.samples);
  if (!s->timing.samples) return cmz_complain(1, "no memory for %lld samples", (long long)count);
  for (int64_t i = 0; i < warmup; i++) {
    int rc = run_once(s);
    if (rc) return rc;
  }
  for (int64_t i = 0; i < count; i++) {
    uint64_t start = cmz_now();
    int rc = run_once(s);
    if (rc) return rc;
    s->timing.samples[i] = cmz_now() - start;
  }
  s->timing.count = (uint32_t)count;
  qsort(s->timing.samples, (size_t)count, sizeof *s->timing.samples, compare_samples);
  return 0;
}

static int profile(session *s) {
  s->profiled_runs = s->o->bench > 0 ? (uint32_t)s->o->bench : 10;
  s->api->profile(s->model, 1);
  for (uint32_t i = 0; i < s->profiled_runs; i++) {
    int rc = run_once(s);
    if (rc) return rc;
  }
  return 0;
}

/* Makes DIR and what leads to it. */
static void make_directories(const char *path) {
  size_t length = strlen(path);
  char *copy = malloc(length + 1);
  if (!copy) return;
  for (size_t i = 0; i <= length; i++) {
    copy[i] = path[i];
    if (i && (path[i] == '/' || path[i] == 0)) {
      copy[i] = 0;
      cmz_system_mkdir(copy, 0777);
      copy[i] = path[i];
    }
  }
  free(copy);
}

/* A sequence becomes the folder PATH with 0.npy, 1.npy …, in which nothing of a longer one stays.
 */
static int write_sequence(const char *path, const cmz_value *value) {
  make_directories(path);
  int rc = 0;
  for (size_t i = 0; !rc; i++) {
    cmz_out file = {0};
    cmz_out_add(&file, "%s/%zu.npy", path, i);
    bool last = i >= value->count;
    int gone = last ? cmz_system_unlink(file.data) : 0;
    if (!last) rc = cmz_npy_write(file.data, &value->items[i]);
    free(file.data);
    if (last && gone) break;
  }
  return rc;
}

static int write_outputs(const session *s) {
  const cmz_description *d = s->api->description;
  make_directories(s->o->output_dir);
  for (uint32_t i = 0; i < d->output_count; i++) {
    cmz_out path = {0};
    cmz_out_add(&path, "%s/", s->o->output_dir);
    for (const char *at = d->outputs[i].name; *at; at++) {
      char c = *at;
      bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                   c == '.' || c == '_' || c == '-';
      cmz_out_bytes(&path, plain ? at : "_", 1);
    }
    const cmz_value *value = &s->values_out[i];
    int rc = 0;
    if (value->kind == CMZ_VALUE_SEQUENCE) rc = write_sequence(path.data, value);
    cmz_out_add(&path, ".npy");
    if (value->kind == CMZ_VALUE_TENSOR) rc = cmz_npy_write(path.data, value->items);
    else cmz_system_unlink(path.data); /* what an earlier run left: this one gave no tensor */
    free(path.data);
    if (rc) return rc;
  }
  return 0;
}

static int print_results(const session *s, bool ran) {
  cmz_out out = {0};
  const options *o = s->o;
  const cmz_value *inputs = ran ? s->values_in : NULL, *outputs = ran ? s->values_out : NULL;
  if (o->json) {
    cmz_report_json(&out, s->api, s->model, inputs, outputs, &s->timing, s->threads,
                    s->profiled_runs);
  } else {
    if (o->info) cmz_report_info(&out, s->api, s->threads);
    if (ran && !o->info) cmz_report_ports(&out, s->api, inputs, outputs);
    if (s->timing.count) cmz_report_timing(&out, &s->timing);
    if (s->profiled_runs) cmz_report_profile(&out, s->api, s->model, s->profiled_runs, s->threads);
  }
  int bad = cmz_out_flush(&out, 1);
  free(out.data);
  return bad ? cmz_complain(1, "cannot write to standard output") : 0;
}

static int run_session(session *s) {
  const options *o = s->o;
  cmz_config config = {.struct_size = sizeof config,
                       .threads = (uint32_t)o->threads,
                       .device = (int32_t)o->device,
                       .cpu = o->cpu};
  bool only_info = o->info && !o->input_count && !o->is_random && !o->bench && !o->profile;
  if (only_info) return print_results(s, false);
  int rc = s->api->create(&config, &s->model);
  if (rc) return cmz_complain(1, "%s", s->api->error(s->model));
  rc = make_inputs(s);
  if (!rc) rc = run_once(s);
  if (!rc && o->bench > 0) rc = bench(s);
  if (!rc && o->profile) rc = profile(s);
  if (!rc && o->output_dir) rc = write_outputs(s);
  if (!rc) rc = print_results(s, true);
  return rc;
}

static int with_api(const options *o, const cmz_api *api) {
  if (api->abi_version != CMZ_ABI_VERSION) {
    return cmz_complain(1, "the model has ABI version %u, this is version %d", api->abi_version,
                        CMZ_ABI_VERSION);
  }
  const cmz_description *d = api->description;
  session s = {.o = o, .api = api};
  s.threads = o->threads           ? (uint32_t)o->threads
              : d->default_threads ? d->default_threads
                                   : cmz_core_count();
  s.inputs = calloc(d->input_count + 1u, sizeof *s.inputs);
  s.outputs = calloc(d->output_count + 1u, sizeof *s.outputs);
  s.values_in = calloc(d->input_count + 1u, sizeof *s.values_in);
  s.values_out = calloc(d->output_count + 1u, sizeof *s.values_out);
  bool ready = s.inputs && s.outputs && s.values_in && s.values_out;
  int rc = ready ? run_session(&s) : cmz_complain(1, "no memory");
  for (uint32_t i = 0; ready && i < d->input_count; i++) drop_value(&s, i);
  free(s.values_in);
  free(s.values_out);
  free(s.inputs);
  free(s.outputs);
  free(s.timing.samples);
  if (s.model) api->destroy(s.model);
  return rc;
}

int cmz_runner_run(int count, char **words, const cmz_api *api, cmz_runner_load *load) {
  options o = {.warmup = -1};
  o.inputs = calloc((size_t)count + 1, sizeof *o.inputs);
  if (!o.inputs) return cmz_complain(1, "no memory");
  int rc = parse_options(count, words, &o, load != NULL);
  if (!rc && o.help) {
    cmz_out out = {0};
    cmz_out_add(&out, "%s", usage);
    rc = cmz_out_flush(&out, 1);
    free(out.data);
  } else if (!rc) {
    char error[1024];
    if (load && !o.model) rc = cmz_complain(2, "no model given (--help explains)");
    if (!rc && load) {
      api = load(o.model, error, sizeof error);
      if (!api) rc = cmz_complain(1, "%s", error);
    }
    if (!rc) rc = with_api(&o, api);
  }
  free(o.inputs);
  return rc;
}

int cmz_runner_main(int count, char **words, const cmz_api *api) {
  return cmz_runner_run(count, words, api, NULL);
}
