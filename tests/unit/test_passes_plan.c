/* test_passes_plan.c - every golden module through all passes: the plan, run by the reference
 * interpreter, gives what the evaluator gives on the module as it was, at each optimisation level;
 * --check-passes finds nothing. In: tests/golden/NAME.cmz. */
#include "../../passes/check.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void ok(cmz_context *ctx, cmz_status status, const char *path, const char *what) {
  if (status == CMZ_OK) return;
  fail_msg("%s: %s: %s", path, what,
           ctx->diagnostics.count > 0 ? ctx->diagnostics.data[0].message : "no message");
}

static cmz_module *parse(cmz_context *ctx, const char *path) {
  const cmz_file *file;
  cmz_module *m = NULL;
  ok(ctx, cmz_file_map(ctx, path, &file), path, "read");
  const char *text =
      cmz_arena_printf(ctx->arena, "%.*s", (int)file->size, (const char *)file->data);
  const char *mark = strstr(text, "#---\n");
  ok(ctx,
     cmz_module_parse(ctx, path, text, mark != NULL ? (size_t)(mark - text) : strlen(text), NULL,
                      &m),
     path, "parse");
  return m;
}

static void check_file(const char *path, int level, const char *machine, const char *levels) {
  cmz_context *ctx = cmz_context_create(NULL);
  jmp_buf out_of_memory;
  ctx->out_of_memory = &out_of_memory;
  assert_int_equal(setjmp(out_of_memory), 0);
  cmz_module *before = parse(ctx, path), *m = parse(ctx, path);
  cmz_array *inputs;
  uint32_t count;
  ok(ctx, cmz_pass_check_inputs(before, ctx->arena, &inputs, &count), path, "inputs");
  cmz_gid entry = before->entries.data[0];
  uint32_t outputs = cmz_graph_get(before, entry)->outputs.count;
  cmz_array *expected = CMZ_NEW_ARRAY(ctx->arena, cmz_array, outputs + 1);
  cmz_array *got = CMZ_NEW_ARRAY(ctx->arena, cmz_array, outputs + 1);
  cmz_eval e = {.module = before, .arena = ctx->arena};
  ok(ctx, cmz_eval_graph(&e, entry, inputs, expected, NULL), path, "evaluate");
  cmz_target target;
  ok(ctx, cmz_target_parse(ctx, machine, levels, NULL, &target), path, "target");
  cmz_pass_run run = {.optimise = level, .target = &target, .verify = true, .check_passes = true};
  ok(ctx, cmz_passes_run(&run, m), path, "passes");
  assert_non_null(run.plan);
  ok(ctx, cmz_plan_interpret(run.plan, ctx->arena, inputs, got), path, "interpret");
  for (uint32_t i = 0; i < outputs; i++) {
    double difference = cmz_pass_check_difference(&expected[i], &got[i]);
    if (!(difference < 1e-4))
      fail_msg("%s: -O%d: output %u differs by %g", path, level, i, difference);
  }
  cmz_context_destroy(ctx);
}

static void test_all(void **state) {
  (void)state;
  DIR *dir = opendir(CMZ_TESTS_DIR "/golden");
  assert_non_null(dir);
  for (struct dirent *e; (e = readdir(dir)) != NULL;) {
    char path[4096];
    size_t length = strlen(e->d_name);
    if (length < 4 || strcmp(e->d_name + length - 4, ".cmz") != 0) continue;
    snprintf(path, sizeof path, "%s/golden/%s", CMZ_TESTS_DIR, e->d_name);
    for (int level = 0; level <= 2; level++) check_file(path, level, NULL, "x86-64-v4,x86-64-v2");
  }
  closedir(dir);
}

/* What is read from anywhere is not copied into every vector of a product's register tile. */
static void test_beside_product(void **state) {
  (void)state;
  cmz_context *ctx = cmz_context_create(NULL);
  jmp_buf out_of_memory;
  ctx->out_of_memory = &out_of_memory;
  assert_int_equal(setjmp(out_of_memory), 0);
  const char *path = CMZ_TESTS_DIR "/golden/fuse_beside_product.cmz";
  cmz_module *m = parse(ctx, path);
  cmz_target target;
  ok(ctx, cmz_target_parse(ctx, NULL, "x86-64-v3", NULL, &target), path, "target");
  cmz_pass_run run = {.optimise = 2, .target = &target};
  ok(ctx, cmz_passes_run(&run, m), path, "passes");
  for (cmz_vid v = 1; v < m->values.count; v++) {
    const char *name = cmz_value_get(m, v)->name;
    if (name == NULL) continue;
    if (strcmp(name, "bias") == 0) assert_false(run.fused[v]);
    if (strcmp(name, "p") == 0) assert_true(run.fused[v]);
  }
  cmz_context_destroy(ctx);
}

static uint32_t kernel_steps(const char *path, const char *machine) {
  cmz_context *ctx = cmz_context_create(NULL);
  jmp_buf out_of_memory;
  ctx->out_of_memory = &out_of_memory;
  assert_int_equal(setjmp(out_of_memory), 0);
  cmz_module *m = parse(ctx, path);
  cmz_target target;
  ok(ctx, cmz_target_parse(ctx, machine, NULL, NULL, &target), path, "target");
  cmz_pass_run run = {.optimise = 2, .target = &target};
  ok(ctx, cmz_passes_run(&run, m), path, "passes");
  const cmz_block *block = &run.plan->blocks.data[0];
  uint32_t count = 0;
  for (uint32_t i = 0; i < block->steps.count; i++)
    count += block->steps.data[i].kind == CMZ_STEP_KERNEL;
  cmz_context_destroy(ctx);
  return count;
}

/* Attention is one kernel where work-groups compute it, and only where nobody else reads what is in
 * between; the reference interpreter makes the same of it. */
static void test_attention(void **state) {
  (void)state;
  const char *path = CMZ_TESTS_DIR "/golden/attention.cmz",
             *near = CMZ_TESTS_DIR "/golden/attention_near.cmz";
  static const char *const machines[] = {"sm_80", "vulkan1.2", "vulkan1.1"};
  for (uint32_t i = 0; i < CMZ_COUNT_OF(machines); i++) {
    assert_int_equal(kernel_steps(path, machines[i]), 1);
    assert_true(kernel_steps(near, machines[i]) > 2);
    check_file(path, 2, machines[i], NULL);
    check_file(near, 2, machines[i], NULL);
  }
  assert_true(kernel_steps(path, NULL) > 2); /* a CPU */
}

/* A name that no pass has is refused before anything runs. */
static void test_unknown_pass(void **state) {
  (void)state;
  cmz_context *ctx = cmz_context_create(NULL);
  jmp_buf out_of_memory;
  ctx->out_of_memory = &out_of_memory;
  assert_int_equal(setjmp(out_of_memory), 0);
  cmz_module *m = cmz_module_create(ctx, "x.onnx");
  cmz_pass_run run = {.stop_after = "nosuch"};
  assert_int_equal(cmz_passes_run(&run, m), CMZ_E_USAGE);
  cmz_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_all), cmocka_unit_test(test_beside_product),
      cmocka_unit_test(test_attention), cmocka_unit_test(test_unknown_pass)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
