/* check.c - --check-passes: evaluates the entry graph on seeded random inputs at the hints, before
 * and after each pass. In: the module between two passes. Out: an error that names the pass that
 * changed a result. */
#include "check.h"

#include <math.h>

#define CHECK_TOLERANCE 1e-3

static uint64_t next_random(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return *state >> 33;
}

static void fill(cmz_array *a, size_t count, uint64_t *state) {
  for (size_t i = 0; i < count; i++) {
    uint64_t r = next_random(state);
    if (cmz_dtype_is_float(a->dtype))
      cmz_dtype_set_f64(a->dtype, a->data, i, (double)r / (double)(1u << 30) - 1.0);
    else
      cmz_dtype_set_i64(a->dtype, a->data, i,
                        a->dtype == CMZ_BOOL ? (int64_t)(r & 1) : (int64_t)(r % 4));
  }
}

cmz_status cmz_pass_check_inputs(cmz_module *m, cmz_arena *arena, cmz_array **inputs,
                                 uint32_t *count) {
  const cmz_graph *g = cmz_graph_get(m, m->entries.data[0]);
  uint64_t state = 42;
  *count = g->inputs.count;
  *inputs = CMZ_NEW_ARRAY(arena, cmz_array, g->inputs.count + 1);
  for (uint32_t i = 0; i < g->inputs.count; i++) {
    const cmz_value *v = cmz_value_get(m, g->inputs.data[i]);
    cmz_array *a = &(*inputs)[i];
    a->dtype = v->type.dtype;
    a->rank = v->type.rank;
    if (a->dtype == CMZ_STRING || v->type.kind != CMZ_KIND_TENSOR)
      return cmz_fail(m->ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.file = m->file, .tensor = v->name},
                      "--check-passes cannot make up an input of this type");
    for (uint32_t d = 0; d < a->rank; d++) a->shape[d] = cmz_pass_hint(m, v->type.shape[d]);
    size_t n = cmz_array_count(a), bytes;
    if (!cmz_dtype_bytes(a->dtype, n, &bytes))
      return cmz_fail(m->ctx, CMZ_E_INPUT, (cmz_loc){.file = m->file, .tensor = v->name},
                      "the input is too large");
    a->data = cmz_arena_alloc(arena, bytes + 8);
    fill(a, n, &state);
  }
  return CMZ_OK;
}

double cmz_pass_check_difference(const cmz_array *expected, const cmz_array *got) {
  if (expected->dtype != got->dtype || expected->rank != got->rank) return INFINITY;
  for (uint32_t i = 0; i < got->rank; i++)
    if (expected->shape[i] != got->shape[i]) return INFINITY;
  if (got->dtype == CMZ_STRING) return 0;
  double worst = 0;
  for (size_t i = 0, n = cmz_array_count(got); i < n; i++) {
    double a = cmz_dtype_get_f64(expected->dtype, expected->data, i);
    double b = cmz_dtype_get_f64(got->dtype, got->data, i);
    if (isnan(a) && isnan(b)) continue;
    if (isinf(a) && a == b) continue;
    double d = fabs(a - b) / (1 + fabs(a));
    if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
  }
  return worst;
}

cmz_status cmz_pass_check_after(cmz_pass_check *check, cmz_pass_run *run, cmz_module *m,
                                const char *pass) {
  (void)run;
  if (strcmp(pass, "layout") == 0) check->over = true;
  if (check->over) return CMZ_OK;
  if (!check->ready) {
    /* Before inference nothing can be evaluated. */
    if (strcmp(pass, "infer") != 0) return CMZ_OK;
    CMZ_TRY(cmz_pass_check_inputs(m, m->arena, &check->inputs, &check->input_count));
  }
  cmz_gid entry = m->entries.data[0];
  uint32_t count = cmz_graph_get(m, entry)->outputs.count;
  cmz_array *outputs = CMZ_NEW_ARRAY(m->arena, cmz_array, count + 1);
  cmz_eval e = {.module = m, .arena = m->arena};
  CMZ_TRY(cmz_eval_graph(&e, entry, check->inputs, outputs, NULL));
  if (!check->ready) {
    check->ready = true;
    check->outputs = outputs;
    check->output_count = count;
    return CMZ_OK;
  }
  for (uint32_t i = 0; i < count; i++) {
    double difference = cmz_pass_check_difference(&check->outputs[i], &outputs[i]);
    if (difference <= CHECK_TOLERANCE) continue;
    const char *name = cmz_value_get(m, cmz_graph_get(m, entry)->outputs.data[i])->name;
    return cmz_fail(m->ctx, CMZ_E_INTERNAL, (cmz_loc){.file = m->file, .tensor = name},
                    "pass %s changed this output by %g", pass, difference);
  }
  return CMZ_OK;
}
