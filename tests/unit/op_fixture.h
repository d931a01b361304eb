/* op_fixture.h - one operator at a time: its reference evaluation against its own kernel,
 * interpreted. In: a graph of one node that the test builds with given/weights/apply. Out: cmocka
 * failures. Always holds: `check` evaluates the graph, expands and describes every node (once
 * stored each, once fused into the last), interprets the kernels, and wants the same elements. */
#ifndef CMZ_TESTS_OP_FIXTURE_H
#define CMZ_TESTS_OP_FIXTURE_H

#include "../../ir/evaluator.h"
#include "../../ir/ops/tensor.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

typedef struct fixture {
  cmz_context *ctx;
  cmz_module *m;
  cmz_gid g;
  cmz_nid node; /* the last one applied */
  cmz_array inputs[8];
  uint32_t input_count;
  double tolerance; /* relative and absolute */
  jmp_buf memory;
  uint64_t random;
} fixture;

static fixture *F;

static int fixture_setup(void **state) {
  F = calloc(1, sizeof *F);
  *state = F;
  F->ctx = cmz_context_create(NULL);
  F->ctx->out_of_memory = &F->memory;
  F->m = cmz_module_create(F->ctx, "test.onnx");
  F->g = cmz_module_add_graph(F->m, "main", 0, 0);
  cmz_vec_push(F->m->arena, &F->m->entries, F->g);
  F->tolerance = 2e-5;
  F->random = 12345;
  return 0;
}

static int fixture_teardown(void **state) {
  cmz_context_destroy(F->ctx);
  (void)state;
  free(F); /* `again` may have replaced it */
  F = NULL;
  return 0;
}

/* Starts over inside one test. */
__attribute__((unused)) static void again(void) {
  double tolerance = F->tolerance;
  uint64_t random = F->random;
  cmz_context_destroy(F->ctx);
  free(F);
  void *state;
  fixture_setup(&state);
  F->tolerance = tolerance;
  F->random = random;
}

static const char *last_message(void) {
  cmz_context *c = F->ctx;
  return c->diagnostics.count ? c->diagnostics.data[c->diagnostics.count - 1].message
                              : "(no message)";
}

static void ok(cmz_status status, const char *what) {
  if (status == CMZ_OK) return;
  fail_msg("%s of %s: status %d: %s", what, F->node ? cmz_node_get(F->m, F->node)->op->name : "?",
           (int)status, last_message());
}

static double random_number(double low, double high) {
  F->random = F->random * 6364136223846793005ull + 1442695040888963407ull;
  return low + (high - low) * (double)(F->random >> 40) / (double)(1 << 24);
}

static cmz_array array_of(cmz_dtype dtype, uint32_t rank, const int64_t *shape) {
  cmz_array a = {.dtype = dtype, .rank = rank};
  for (uint32_t i = 0; i < rank; i++) a.shape[i] = shape[i];
  size_t bytes;
  cmz_dtype_bytes(dtype, cmz_array_count(&a), &bytes);
  a.data = cmz_arena_alloc(F->m->arena, bytes + 16);
  return a;
}

static void fill(cmz_array *a, double low, double high) {
  size_t count = cmz_array_count(a);
  for (size_t i = 0; i < count; i++)
    cmz_dtype_set_f64(a->dtype, a->data, i, random_number(low, high));
}

#define SHAPE(...)                                                                                 \
  (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)

/* A graph input holding A; NAMES gives symbolic dims (NULL entries: fixed). */
static cmz_vid given_array(cmz_array a, const char *const *names) {
  cmz_vid v = cmz_value_add_input(F->m, F->g, NULL);
  cmz_dim dims[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < a.rank; i++) {
    dims[i] = cmz_dim_const(F->m->dims, a.shape[i]);
    cmz_symbol symbol = {.name = names ? names[i] : NULL, .low = 0, .high = INT64_MAX, .hint = 8};
    if (symbol.name) dims[i] = cmz_dim_symbol(F->m->dims, &symbol);
  }
  cmz_value_set_type(F->m, v, a.dtype, a.rank, dims);
  F->inputs[F->input_count++] = a;
  return v;
}

static cmz_vid given(cmz_dtype dtype, const int64_t *shape, size_t rank, double low, double high) {
  cmz_array a = array_of(dtype, (uint32_t)rank, shape);
  fill(&a, low, high);
  return given_array(a, NULL);
}

__attribute__((unused)) static cmz_vid given_symbolic(cmz_dtype dtype, const int64_t *shape,
                                                      size_t rank, const char *const *names,
                                                      double low, double high) {
  cmz_array a = array_of(dtype, (uint32_t)rank, shape);
  fill(&a, low, high);
  return given_array(a, names);
}

/* int64 numbers known only when the graph runs. */
__attribute__((unused)) static cmz_vid given_i64s(const int64_t *values, size_t count) {
  int64_t shape = (int64_t)count;
  cmz_array a = array_of(CMZ_I64, 1, &shape);
  memcpy(a.data, values, count * sizeof *values);
  return given_array(a, NULL);
}

/* int64 numbers known at compile time. */
__attribute__((unused)) static cmz_vid i64s(const int64_t *values, size_t count) {
  return cmz_value_add_i64s(F->m, F->g, values, (uint32_t)count);
}

static cmz_nid apply(const char *op, uint32_t input_count, const cmz_vid *inputs,
                     uint32_t output_count) {
  cmz_vid outputs[8];
  for (uint32_t i = 0; i < output_count; i++) {
    outputs[i] = cmz_value_add(F->m, F->g, NULL);
    cmz_graph_add_output(F->m, F->g, outputs[i]);
  }
  const cmz_op *row = cmz_op_get(op);
  if (!row) fail_msg("no operator %s", op);
  F->node = cmz_node_add(F->m, F->g, row, op, input_count, inputs, output_count, outputs);
  return F->node;
}

/* Before `check`: the form of an older opset. */
static cmz_status prepare(void) {
  cmz_node *n = cmz_node_get(F->m, F->node);
  if (n->op->normalize) CMZ_TRY(n->op->normalize(F->m, F->node));
  return cmz_infer_graph(F->m, F->g);
}

static void expand_all(void) {
  for (bool changed = true; changed;) {
    changed = false;
    cmz_graph *graph = cmz_graph_get(F->m, F->g);
    for (uint32_t i = 0; i < graph->nodes.count && !changed; i++) {
      cmz_nid n = graph->nodes.data[i];
      cmz_node *node = cmz_node_get(F->m, n);
      if (node->removed || !node->op->expand) continue;
      ok(node->op->expand(F->m, n), "expansion");
      changed = cmz_node_get(F->m, n)->removed;
    }
  }
}

/* ---- running kernels ---- */

static void set_shape_symbols(const cmz_array *values, int64_t *symbols) {
  for (cmz_vid v = 1; v < F->m->values.count; v++) {
    const cmz_value *value = cmz_value_get(F->m, v);
    if (!value->is_input || !values[v].data) continue;
    for (uint32_t i = 0; i < value->type.rank; i++) {
      const cmz_dim_node *d = cmz_dim_get(F->m->dims, value->type.shape[i]);
      if (d->kind == CMZ_DIM_SYMBOL) symbols[d->value] = values[v].shape[i];
    }
  }
}

static int64_t size_value(cmz_dim dim, const cmz_array *values, int64_t *symbols) {
  for (uint32_t s = 0; s < cmz_dim_symbol_count(F->m->dims); s++) {
    const cmz_symbol *symbol = cmz_dim_symbol_at(F->m->dims, s);
    if (symbol->origin != CMZ_SYMBOL_DATA || symbol->element < 0 || !values[symbol->value].data)
      continue;
    const cmz_array *a = &values[symbol->value];
    symbols[s] = cmz_dtype_get_i64(a->dtype, a->data, (size_t)symbol->element);
  }
  int64_t result;
  if (!cmz_dim_eval(F->m->dims, dim, symbols, &result)) fail_msg("a size cannot be computed");
  return result;
}

static void run_kernel(cmz_nid n, const bool *fused, cmz_array *values, int64_t *symbols) {
  cmz_described k;
  F->node = n;
  ok(cmz_describe_node(F->m, n, fused, F->m->arena, &k), "description");
  ok(cmz_kernel_verify(F->ctx, k.kernel), "kernel verification");
  const cmz_node *node = cmz_node_get(F->m, n);
  for (uint32_t i = 0; i < node->output_count; i++) {
    cmz_vid v = node->outputs[i];
    if (!v) continue;
    const cmz_type *type = &cmz_value_get(F->m, v)->type;
    int64_t shape[CMZ_MAX_RANK];
    for (uint32_t j = 0; j < type->rank; j++)
      shape[j] = size_value(type->shape[j], values, symbols);
    values[v] = array_of(type->dtype, type->rank, shape);
  }
  void *operands[64];
  int64_t params[64];
  for (uint32_t i = 0; i < k.kernel->operands.count; i++) {
    const cmz_constant *c = cmz_value_constant(F->m, k.operand_values[i]);
    operands[i] = c ? (void *)(uintptr_t)c->data : values[k.operand_values[i]].data;
    if (!operands[i]) fail_msg("a kernel reads a value that has not been computed");
  }
  for (uint32_t i = 0; i < k.kernel->param_count; i++) {
    params[i] = size_value(k.params[i], values, symbols);
    if (params[i] < 0) fail_msg("a kernel parameter is negative");
  }
  cmz_status status = cmz_kernel_interpret(F->ctx, k.kernel, operands, params);
  if (status != CMZ_OK) {
    cmz_text text = {.arena = F->m->arena};
    cmz_kernel_print(k.kernel, &text);
    fail_msg("interpretation of %s: %s\n%s", node->op->name, last_message(), text.data);
  }
}

static void same_arrays(const cmz_array *want, const cmz_array *got, const char *how) {
  const char *op = cmz_node_get(F->m, F->node)->op->name;
  if (want->dtype != got->dtype || want->rank != got->rank)
    fail_msg("%s (%s): another type", op, how);
  for (uint32_t i = 0; i < want->rank; i++)
    if (want->shape[i] != got->shape[i])
      fail_msg("%s (%s): dim %u is %" PRId64 ", evaluation has %" PRId64, op, how, i, got->shape[i],
               want->shape[i]);
  size_t count = cmz_array_count(want);
  for (size_t i = 0; i < count; i++) {
    double a = cmz_dtype_get_f64(want->dtype, want->data, i),
           b = cmz_dtype_get_f64(got->dtype, got->data, i);
    if (isnan(a) && isnan(b)) continue;
    if (a == b || fabs(a - b) <= F->tolerance * (1 + fabs(a))) continue;
    fail_msg("%s (%s): element %zu is %.9g, evaluation has %.9g", op, how, i, b, a);
  }
}

static void run_kernels(bool fuse, const cmz_array *want, const cmz_array *inputs) {
  cmz_module *m = F->m;
  cmz_array *values = CMZ_NEW_ARRAY(m->arena, cmz_array, m->values.count);
  bool *fused = CMZ_NEW_ARRAY(m->arena, bool, m->values.count);
  int64_t *symbols = CMZ_NEW_ARRAY(m->arena, int64_t, cmz_dim_symbol_count(m->dims) + 1);
  cmz_graph *graph = cmz_graph_get(m, F->g);
  for (uint32_t i = 0; i < graph->inputs.count; i++) values[graph->inputs.data[i]] = inputs[i];
  set_shape_symbols(values, symbols);
  for (cmz_vid v = 1; v < m->values.count && fuse; v++)
    fused[v] = cmz_value_get(m, v)->producer && !cmz_value_get(m, v)->output_uses;
  cmz_nid *nodes = cmz_arena_copy(m->arena, graph->nodes.data, graph->nodes.count * sizeof *nodes);
  uint32_t count = graph->nodes.count;
  for (uint32_t i = 0; i < count; i++) {
    const cmz_node *n = cmz_node_get(m, nodes[i]);
    if (n->removed) continue;
    bool stored = false;
    for (uint32_t j = 0; j < n->output_count; j++)
      stored = stored || (n->outputs[j] && !fused[n->outputs[j]]);
    if (stored) run_kernel(nodes[i], fuse ? fused : NULL, values, symbols);
  }
  graph = cmz_graph_get(m, F->g);
  for (uint32_t i = 0; i < graph->outputs.count; i++) {
    cmz_vid v = graph->outputs.data[i];
    if (!values[v].data) continue; /* an input or a constant itself */
    same_arrays(&want[i], &values[v], fuse ? "fused kernel" : "kernel");
  }
}

/* Evaluation against kernels; gives the first output. */
__attribute__((unused)) static cmz_array check(void) {
  ok(prepare(), "inference");
  cmz_array want[8] = {{0}}, expanded[8] = {{0}};
  cmz_eval e = {.module = F->m, .arena = F->m->arena};
  ok(cmz_eval_graph(&e, F->g, F->inputs, want, NULL), "evaluation");
  expand_all();
  ok(cmz_module_verify(F->m), "verification");
  ok(cmz_eval_graph(&e, F->g, F->inputs, expanded, NULL), "evaluation of the expansion");
  for (uint32_t i = 0; i < cmz_graph_get(F->m, F->g)->outputs.count; i++)
    same_arrays(&want[i], &expanded[i], "expansion");
  run_kernels(false, want, F->inputs);
  run_kernels(true, want, F->inputs);
  return want[0];
}

__attribute__((unused)) static void wants(const cmz_array *got, const double *values,
                                          size_t count) {
  if (cmz_array_count(got) != count) fail_msg("%zu elements, not %zu", cmz_array_count(got), count);
  for (size_t i = 0; i < count; i++) {
    double v = cmz_dtype_get_f64(got->dtype, got->data, i);
    if (!(fabs(v - values[i]) <= F->tolerance * (1 + fabs(values[i]))) && !(v == values[i]))
      fail_msg("element %zu is %.9g, should be %.9g", i, v, values[i]);
  }
}
#define WANTS(got, ...)                                                                            \
  wants(got, (const double[]){__VA_ARGS__}, sizeof((const double[]){__VA_ARGS__}) / sizeof(double))

/* Inference refuses with CODE and says something. */
__attribute__((unused)) static void refuses(cmz_status code) {
  assert_int_equal(prepare(), code);
  assert_true(F->ctx->error_count > 0);
}

#endif
