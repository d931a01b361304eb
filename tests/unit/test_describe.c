/* test_describe.c - kernels of whole little graphs, with layouts and symbolic sizes, interpreted
 * and compared with the evaluator: as described, and after their axes have been split and merged.
 */
#include "kernel_cases.h"

static void execute(cmz_kernel *k, void *const *operands, const size_t *bytes,
                    const int64_t *params) {
  (void)bytes;
  cmz_status status = cmz_kernel_interpret(F->ctx, k, operands, params);
  if (status == CMZ_OK) return;
  cmz_text text = {.arena = F->m->arena};
  cmz_kernel_print(k, &text);
  case_detail = text.data;
  fail_msg("%s\n%s", last_message(), case_detail);
}

static void run_case(const kernel_case *c) {
  for (int rewritten = 0; rewritten < 2; rewritten++) {
    F->random = 99;
    c->build();
    check_kernel(rewritten);
    again();
    F->tolerance = 2e-5;
  }
}

static void test_cases(void **state) {
  (void)state;
  for (size_t i = 0; i < CMZ_COUNT_OF(KERNEL_CASES); i++) run_case(&KERNEL_CASES[i]);
}

static void test_casts(void **state) {
  (void)state;
  kernel_case c = {"cast", one_cast};
  for (size_t i = 0; i < CMZ_COUNT_OF(CAST_TYPES); i++)
    for (size_t j = 0; j < CMZ_COUNT_OF(CAST_TYPES); j++) {
      cast_from = CAST_TYPES[i];
      cast_to = CAST_TYPES[j];
      run_case(&c);
    }
}

/* Every index that a schedule looks at is affine after splitting: what vectors need. */
static void count_divisions(const cmz_kernel *k, cmz_expr e, uint32_t *count) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  *count += n->op == CMZ_X_FLOORDIV || n->op == CMZ_X_MOD;
  for (int i = 0; i < 3 && n->args[i]; i++) count_divisions(k, n->args[i], count);
}

static cmz_kernel *described_case(void (*build)(void)) {
  build();
  ok(prepare(), "inference");
  bool *fused = CMZ_NEW_ARRAY(F->m->arena, bool, F->m->values.count);
  for (cmz_vid v = 1; v < F->m->values.count; v++)
    fused[v] = cmz_value_get(F->m, v)->producer && !cmz_value_get(F->m, v)->output_uses;
  cmz_described d;
  ok(cmz_describe_node(F->m, F->node, fused, F->m->arena, &d), "description");
  cmz_kernel_split_blocked_reductions(d.kernel);
  cmz_kernel_merge_axes(d.kernel);
  return d.kernel;
}

static void test_blocked_is_affine(void **state) {
  (void)state;
  void (*const builds[])(void) = {
      conv_blocked,           conv_blocked_padding, conv_residual_relu, conv_blocked_first,
      conv_blocked_depthwise, matmul_panels,        max_pool_blocked,   to_blocked,
      symbolic_blocked};
  for (size_t i = 0; i < CMZ_COUNT_OF(builds); i++) {
    cmz_kernel *k = described_case(builds[i]);
    uint32_t divisions = 0;
    count_divisions(k, k->stores.data[0].value, &divisions);
    count_divisions(k, k->stores.data[0].index, &divisions);
    cmz_text text = {.arena = F->m->arena};
    cmz_kernel_print(k, &text);
    if (divisions && builds[i] != matmul_panels && builds[i] != symbolic_blocked)
      fail_msg("case %zu has %u divisions\n%s", i, divisions, text.data);
    again();
  }
}

/* Equal nodes give equal kernels: one compiled kernel serves them all. */
static void test_equal_kernels(void **state) {
  (void)state;
  cmz_hash128 first = cmz_kernel_hash(described_case(conv_residual_relu), NULL);
  again();
  cmz_hash128 second = cmz_kernel_hash(described_case(conv_residual_relu), NULL);
  assert_true(first.lo == second.lo && first.hi == second.hi);
  again();
  second = cmz_kernel_hash(described_case(conv_blocked), NULL);
  assert_false(first.lo == second.lo && first.hi == second.hi);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_cases, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_casts, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_blocked_is_affine, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_equal_kernels, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
