/* report.c - what cmz-run prints: description, timing, profile, JSON. In: a model and its figures.
 * Out: text. Always holds: the JSON object has the keys inputs, outputs, min_us, median_us, max_us,
 * threads, arena_bytes, weight_bytes, target whatever was asked for; figures that were not taken
 * are null. */
#include "runner.h"

static void add_dims(cmz_out *out, const cmz_description *d, const cmz_port *port,
                     const cmz_tensor *t) {
  cmz_out_add(out, "[");
  for (uint32_t i = 0; i < (t ? t->rank : port->rank); i++) {
    cmz_out_add(out, "%s", i ? ", " : "");
    int64_t dim = t ? t->dims[i] : port->dims[i];
    if (dim >= 0) cmz_out_add(out, "%lld", (long long)dim);
    else cmz_out_add(out, "%s", dim > CMZ_DIM_COMPUTED ? d->dims[-1 - dim].name : "?");
  }
  cmz_out_add(out, "]");
}

/* By cmz_port_kind. */
static const char *const kind_names[] = {"", "sequence of ", "optional ", "optional sequence of "};

static void add_ports(cmz_out *out, const cmz_description *d, const char *title,
                      const cmz_port *ports, const uint32_t *kinds, uint32_t count,
                      const cmz_value *values) {
  for (uint32_t i = 0; i < count; i++) {
    uint32_t kind = kinds ? kinds[i] : 0;
    cmz_out_add(out, "%s %s: %s%s ", title, ports[i].name, kind_names[kind & 3],
                cmz_element_text(ports[i].element));
    const cmz_value *v = values ? &values[i] : NULL;
    if (v && v->kind == CMZ_VALUE_NONE) cmz_out_add(out, "(absent)");
    else if (v && v->kind == CMZ_VALUE_SEQUENCE) cmz_out_add(out, "(%zu)", v->count);
    else if (v || !kind) add_dims(out, d, &ports[i], v ? v->items : NULL);
    cmz_out_add(out, "\n");
  }
}

void cmz_report_ports(cmz_out *out, const cmz_api *api, const cmz_value *inputs,
                      const cmz_value *outputs) {
  const cmz_description *d = api->description;
  add_ports(out, d, "input ", d->inputs, d->input_kinds, d->input_count, inputs);
  add_ports(out, d, "output", d->outputs, d->output_kinds, d->output_count, outputs);
}

static size_t static_arena(const cmz_api *api) {
  return api->description->dim_count ? 0 : api->arena_bytes(NULL);
}

void cmz_report_info(cmz_out *out, const cmz_api *api, uint32_t threads) {
  const cmz_description *d = api->description;
  cmz_out_add(out, "model  %s (%s)\ntarget %s\n", d->name, d->compiler, d->target);
  cmz_report_ports(out, api, NULL, NULL);
  for (uint32_t i = 0; i < d->dim_count; i++) {
    cmz_out_add(out, "dim    %s: %lld..", d->dims[i].name, (long long)d->dims[i].low);
    if (d->dims[i].high == INT64_MAX) cmz_out_add(out, "\n");
    else cmz_out_add(out, "%lld\n", (long long)d->dims[i].high);
  }
  cmz_out_add(out, "weights %llu bytes\n", (unsigned long long)d->weight_bytes);
  if (!d->dim_count) cmz_out_add(out, "arena   %zu bytes\n", static_arena(api));
  cmz_out_add(out, "threads %u\n", threads);
}

static double median_us(const cmz_timing *t) {
  uint64_t a = t->samples[(t->count - 1) / 2], b = t->samples[t->count / 2];
  return (double)(a + b) / 2e3;
}

void cmz_report_timing(cmz_out *out, const cmz_timing *t) {
  cmz_out_add(out, "%u runs: min %.1f us, median %.1f us, max %.1f us\n", t->count,
              (double)t->samples[0] / 1e3, median_us(t), (double)t->samples[t->count - 1] / 1e3);
}

/* ---- profile ---- */

static cmz_profile_row *read_rows(const cmz_api *api, const cmz_model *model, uint32_t *count) {
  *count = api->profile_rows(model, NULL, 0);
  cmz_profile_row *rows = calloc(*count + 1u, sizeof *rows);
  if (rows) api->profile_rows(model, rows, *count);
  else *count = 0;
  return rows;
}

static int slower_first(const void *a, const void *b) {
  uint64_t x = ((const cmz_profile_row *)a)->nanoseconds,
           y = ((const cmz_profile_row *)b)->nanoseconds;
  return (x < y) - (x > y);
}

/* The larger of what a row reaches of the machine's arithmetic and of its memory bandwidth, in per
 * cent. */
static double share_of_limit(const cmz_profile_row *row, double flops, double bytes) {
  double seconds = (double)row->nanoseconds / 1e9;
  if (seconds <= 0) return 0;
  double by_flops = (double)row->flops * (double)row->calls / seconds / flops;
  double by_bytes = (double)row->bytes * (double)row->calls / seconds / bytes;
  return 100 * (by_flops > by_bytes ? by_flops : by_bytes);
}

void cmz_report_profile(cmz_out *out, const cmz_api *api, const cmz_model *model, uint32_t runs,
                        uint32_t threads) {
  uint32_t count;
  cmz_profile_row *rows = read_rows(api, model, &count);
  if (!rows) return;
  uint64_t total = 0, runtime = 0;
  for (uint32_t i = 0; i < count; i++) {
    total += rows[i].nanoseconds;
    if (rows[i].is_runtime_op) runtime += rows[i].nanoseconds;
  }
  double flops, bytes;
  cmz_machine_limits(threads, &flops, &bytes);
  qsort(rows, count, sizeof *rows, slower_first);
  cmz_out_add(out, "%10s %6s %8s %9s  %-24s %s\n", "us/run", "share", "calls", "of limit", "kernel",
              "nodes");
  for (uint32_t i = 0; i < count; i++) {
    double us = (double)rows[i].nanoseconds / 1e3 / runs;
    cmz_out_add(out, "%10.2f %5.1f%% %8.1f ", us,
                total ? 100.0 * (double)rows[i].nanoseconds / (double)total : 0.0,
                (double)rows[i].calls / runs);
    if (rows[i].flops || rows[i].bytes)
      cmz_out_add(out, "%8.1f%%", share_of_limit(&rows[i], flops, bytes));
    else cmz_out_add(out, "%9s", "-");
    cmz_out_add(out, "  %-24s %s\n", rows[i].kernel, rows[i].name);
  }
  cmz_out_add(out,
              "%10.2f 100.0%%  of the run; in runtime ops %.2f%%; limits: %.1f GFLOP/s, %.1f GB/s "
              "with %u thread%s\n",
              (double)total / 1e3 / runs, total ? 100.0 * (double)runtime / (double)total : 0.0,
              flops / 1e9, bytes / 1e9, threads, threads == 1 ? "" : "s");
  free(rows);
}

/* ---- JSON ---- */

static void json_ports(cmz_out *out, const cmz_description *d, const char *key,
                       const cmz_port *ports, const uint32_t *kinds, uint32_t count,
                       const cmz_value *values) {
  cmz_out_add(out, "\"%s\": [", key);
  for (uint32_t i = 0; i < count; i++) {
    cmz_out_add(out, "%s{\"name\": ", i ? ", " : "");
    cmz_out_json(out, ports[i].name);
    cmz_out_add(out, ", \"type\": \"%s\", \"dims\": [", cmz_element_text(ports[i].element));
    const cmz_value *v = values ? &values[i] : NULL;
    bool shown = v && v->kind == CMZ_VALUE_TENSOR;
    uint32_t rank = shown ? v->items->rank : ports[i].rank;
    for (uint32_t k = 0; k < rank; k++) {
      int64_t dim = shown ? v->items->dims[k] : ports[i].dims[k];
      cmz_out_add(out, "%s", k ? ", " : "");
      if (dim >= 0) cmz_out_add(out, "%lld", (long long)dim);
      else if (dim > CMZ_DIM_COMPUTED) cmz_out_json(out, d->dims[-1 - dim].name);
      else cmz_out_add(out, "null");
    }
    cmz_out_add(out, "]");
    uint32_t kind = kinds ? kinds[i] : 0;
    if (kind & CMZ_PORT_SEQUENCE) cmz_out_add(out, ", \"sequence\": true");
    if (kind & CMZ_PORT_OPTIONAL) cmz_out_add(out, ", \"optional\": true");
    if (kind && v) cmz_out_add(out, ", \"count\": %zu", v->count);
    cmz_out_add(out, "}");
  }
  cmz_out_add(out, "], ");
}

static void json_profile(cmz_out *out, const cmz_api *api, const cmz_model *model, uint32_t runs,
                         uint32_t threads) {
  uint32_t count;
  cmz_profile_row *rows = read_rows(api, model, &count);
  double flops, bytes;
  cmz_machine_limits(threads, &flops, &bytes);
  cmz_out_add(out, ", \"limit_flops\": %.4g, \"limit_bytes\": %.4g, \"profile\": [", flops, bytes);
  for (uint32_t i = 0; i < count; i++) {
    cmz_out_add(out, "%s{\"name\": ", i ? ", " : "");
    cmz_out_json(out, rows[i].name);
    cmz_out_add(out, ", \"kernel\": ");
    cmz_out_json(out, rows[i].kernel);
    cmz_out_add(out,
                ", \"us\": %.3f, \"calls\": %.3f, \"flops\": %llu, \"bytes\": %llu, "
                "\"limit_percent\": %.2f, \"runtime_op\": %s}",
                (double)rows[i].nanoseconds / 1e3 / runs, (double)rows[i].calls / runs,
                (unsigned long long)rows[i].flops, (unsigned long long)rows[i].bytes,
                share_of_limit(&rows[i], flops, bytes), rows[i].is_runtime_op ? "true" : "false");
  }
  cmz_out_add(out, "]");
  free(rows);
}

void cmz_report_json(cmz_out *out, const cmz_api *api, const cmz_model *model,
                     const cmz_value *inputs, const cmz_value *outputs, const cmz_timing *timing,
                     uint32_t threads, uint32_t profiled_runs) {
  const cmz_description *d = api->description;
  cmz_out_add(out, "{\"model\": ");
  cmz_out_json(out, d->name);
  cmz_out_add(out, ", ");
  json_ports(out, d, "inputs", d->inputs, d->input_kinds, d->input_count, inputs);
  json_ports(out, d, "outputs", d->outputs, d->output_kinds, d->output_count, outputs);
  if (timing->count) {
    cmz_out_add(out, "\"min_us\": %.3f, \"median_us\": %.3f, \"max_us\": %.3f, ",
                (double)timing->samples[0] / 1e3, median_us(timing),
                (double)timing->samples[timing->count - 1] / 1e3);
  } else {
    cmz_out_add(out, "\"min_us\": null, \"median_us\": null, \"max_us\": null, ");
  }
  size_t arena = model ? (size_t)api->memory_bytes(model) : static_arena(api);
  if (!d->dim_count) arena = static_arena(api);
  cmz_out_add(out, "\"threads\": %u, \"arena_bytes\": %zu, \"weight_bytes\": %llu, \"target\": ",
              threads, arena, (unsigned long long)d->weight_bytes);
  cmz_out_json(out, d->target);
  if (profiled_runs) json_profile(out, api, model, profiled_runs, threads);
  cmz_out_add(out, "}\n");
}

/* ---- the machine's limits ---- */

typedef float vector4 __attribute__((vector_size(16)));
typedef float vector8 __attribute__((vector_size(32)));
typedef float vector16 __attribute__((vector_size(64)));

enum { FMA_ROUNDS = 20000, CHAINS = 12 };

/* CHAINS independent multiply-adds a round; the sum keeps the compiler from dropping them. */
#define FMA_LOOP(name, type, attribute)                                                            \
  attribute static float name(float seed) {                                                        \
    type chain[CHAINS], scale = {0};                                                               \
    scale = scale + 0.999f;                                                                        \
    for (int i = 0; i < CHAINS; i++) chain[i] = scale * (seed + (float)i);                         \
    for (int r = 0; r < FMA_ROUNDS; r++) {                                                         \
      _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) chain[i] =                         \
          chain[i] * scale + scale;                                                                \
    }                                                                                              \
    float sum = 0;                                                                                 \
    for (int i = 0; i < CHAINS; i++) sum += chain[i][0] + chain[i][1];                             \
    return sum;                                                                                    \
  }
#if defined(__x86_64__)
#include "cpu.h"
FMA_LOOP(fma_avx512, vector16, __attribute__((target("avx512f,fma"), noinline)))
FMA_LOOP(fma_avx2, vector8, __attribute__((target("avx2,fma"), noinline)))
#endif
FMA_LOOP(fma_plain, vector4, __attribute__((noinline)))

static double measure_flops(void) {
  float (*loop)(float) = fma_plain;
  double lanes = 4;
#if defined(__x86_64__)
  uint64_t features = cmz_cpu_detect();
  if ((features & CMZ_CPU(AVX512F)) && (features & CMZ_CPU(FMA))) loop = fma_avx512, lanes = 16;
  else if ((features & CMZ_CPU(AVX2)) && (features & CMZ_CPU(FMA))) loop = fma_avx2, lanes = 8;
#endif
  volatile float sink = loop(1);
  uint64_t best = UINT64_MAX;
  for (int i = 0; i < 5; i++) {
    uint64_t start = cmz_now();
    sink = loop(sink);
    uint64_t time = cmz_now() - start;
    if (time < best) best = time;
  }
  return 2.0 * lanes * CHAINS * FMA_ROUNDS / ((double)best / 1e9);
}

static double measure_bandwidth(void) {
  enum { BYTES = 32 << 20 };
  uint8_t *memory = calloc(BYTES, 1);
  if (!memory) return 1e10;
  memset(memory, 1, BYTES);
  uint64_t best = UINT64_MAX;
  for (int i = 0; i < 3; i++) {
    uint64_t start = cmz_now();
    memcpy(memory, memory + BYTES / 2, BYTES / 2);
    __asm__ volatile("" : : "r"(memory) : "memory"); /* the copy happens */
    uint64_t time = cmz_now() - start;
    if (time < best) best = time;
  }
  free(memory);
  return (double)BYTES / ((double)best / 1e9);
}

void cmz_machine_limits(uint32_t threads, double *flops, double *bytes) {
  *flops = measure_flops() * threads;
  *bytes = measure_bandwidth();
}
