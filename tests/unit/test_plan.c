/* test_plan.c - plans: interpreted, they give what the evaluator gives; broken ones are refused by
 * the verifier. */
#include "op_fixture.h"

#include "../../ir/plan.h"
#include "../../passes/passes.h"

static cmz_plan *planned(int optimise) {
  cmz_target target;
  ok(cmz_target_parse(F->ctx, NULL, "x86-64-v3", NULL, &target), "target");
  cmz_pass_run run = {.optimise = optimise,
                      .target = cmz_arena_copy(F->m->arena, &target, sizeof target),
                      .verify = true};
  cmz_status status = cmz_passes_run(&run, F->m);
  if (status != CMZ_OK) fail_msg("passes: %s", last_message());
  assert_non_null(run.plan);
  return run.plan;
}

/* The graph's outputs by plan and by evaluation. */
static void compare_outputs(const cmz_array *want, uint32_t count, const cmz_plan *p) {
  cmz_array got[8] = {{0}};
  if (cmz_plan_interpret(p, F->m->arena, F->inputs, got) != CMZ_OK) {
    cmz_text text = {.arena = F->m->arena};
    cmz_plan_print(p, &text);
    fail_msg("%s\n%s", last_message(), text.data);
  }
  for (uint32_t i = 0; i < count; i++) {
    F->node = 1;
    same_arrays(&want[i], &got[i], "plan");
  }
}

static cmz_plan *check_plan(int optimise) {
  cmz_array want[8] = {{0}};
  ok(prepare(), "inference");
  cmz_eval e = {.module = F->m, .arena = F->m->arena};
  ok(cmz_eval_graph(&e, F->g, F->inputs, want, NULL), "evaluation");
  uint32_t count = cmz_graph_get(F->m, F->g)->outputs.count;
  cmz_plan *p = planned(optimise);
  compare_outputs(want, count, p);
  return p;
}

static cmz_vid step(const char *op, uint32_t count, const cmz_vid *inputs) {
  cmz_graph *g = cmz_graph_get(F->m, F->g);
  if (g->outputs.count) {
    cmz_value_get(F->m, g->outputs.data[0])->output_uses = 0;
    g->outputs.count = g->output_names.count = 0;
  }
  return cmz_node_get(F->m, apply(op, count, inputs, 1))->outputs[0];
}

static void build_network(void) {
  const char *names[] = {"n", NULL, "h", "w"};
  cmz_vid x = given_symbolic(CMZ_F32, SHAPE(2, 3, 9, 8), names, -1, 1);
  cmz_vid w1 = given(CMZ_F32, SHAPE(20, 3, 3, 3), -1, 1),
          w2 = given(CMZ_F32, SHAPE(20, 20, 3, 3), -1, 1);
  const int64_t pads[] = {1, 1, 1, 1};
  cmz_vid a = step("Conv", 2, (cmz_vid[]){x, w1});
  cmz_node_set_ints(F->m, F->node, "pads", pads, 4);
  a = step("Relu", 1, &a);
  cmz_vid b = step("Conv", 2, (cmz_vid[]){a, w2});
  cmz_node_set_ints(F->m, F->node, "pads", pads, 4);
  b = step("Add", 2, (cmz_vid[]){b, a});
  b = step("Relu", 1, &b);
  b = step("GlobalAveragePool", 1, &b);
  b = step("Flatten", 1, &b);
  b = step("MatMul", 2, (cmz_vid[]){b, given(CMZ_F32, SHAPE(20, 10), -1, 1)});
  step("Softmax", 1, &b);
}

static void test_network(void **state) {
  (void)state;
  for (int level = 0; level <= 3; level++) {
    build_network();
    cmz_plan *p = check_plan(level);
    cmz_text text = {.arena = F->m->arena};
    cmz_plan_print(p, &text);
    assert_non_null(strstr(text.data, "kernel 0"));
    again();
  }
}

static void test_data_dependent(void **state) {
  (void)state;
  cmz_vid x = given(CMZ_F32, SHAPE(5, 6), -1, 1), limit = given(CMZ_F32, SHAPE(1), 0, 0);
  cmz_vid c = step("Greater", 2, (cmz_vid[]){x, limit});
  c = step("NonZero", 1, &c);
  c = step("Transpose", 1, &c);
  c = step("GatherND", 2, (cmz_vid[]){x, c});
  step("Exp", 1, &c);
  check_plan(2);
}

static void test_reshape_by_input(void **state) {
  (void)state;
  cmz_vid x = given(CMZ_F32, SHAPE(4, 6), -1, 1), shape = given_i64s((int64_t[]){3, 8}, 2);
  cmz_vid y = step("Reshape", 2, (cmz_vid[]){x, shape});
  step("Tanh", 1, &y);
  check_plan(2);
}

/* Each iteration adds the slice to the state and gives its square. */
static void test_loop(void **state) {
  (void)state;
  cmz_module *m = F->m;
  cmz_vid trips = given_i64s((int64_t[]){4}, 1), start = given(CMZ_F32, SHAPE(3), -1, 1);
  cmz_vid count = step("Squeeze", 1, &trips);
  cmz_vid go = cmz_value_add_scalar(m, F->g, CMZ_BOOL, 1);
  cmz_graph *main_graph = cmz_graph_get(m, F->g);
  cmz_value_get(m, main_graph->outputs.data[0])->output_uses = 0;
  main_graph->outputs.count = main_graph->output_names.count = 0;
  cmz_nid loop = apply("Loop", 3, (cmz_vid[]){count, go, start}, 2);
  cmz_gid body = cmz_module_add_graph(m, "body", loop, F->g);
  cmz_vid i = cmz_value_add_input(m, body, "i"), condition = cmz_value_add_input(m, body, "c"),
          s = cmz_value_add_input(m, body, "s");
  cmz_vid f = cmz_value_add(m, body, "f"), next = cmz_value_add(m, body, "next"),
          square = cmz_value_add(m, body, "square"), on = cmz_value_add(m, body, "on");
  cmz_nid cast = cmz_node_add(m, body, cmz_op_get("Cast"), "cast", 1, &i, 1, &f);
  cmz_node_set_int(m, cast, "to", CMZ_F32);
  cmz_node_add(m, body, cmz_op_get("Add"), "add", 2, (cmz_vid[]){s, f}, 1, &next);
  cmz_node_add(m, body, cmz_op_get("Mul"), "mul", 2, (cmz_vid[]){next, s}, 1, &square);
  cmz_node_add(m, body, cmz_op_get("Identity"), "id", 1, &condition, 1, &on);
  cmz_graph_add_output(m, body, on);
  cmz_graph_add_output(m, body, next);
  cmz_graph_add_output(m, body, square);
  cmz_attr attr = {.name = "body", .kind = CMZ_ATTR_GRAPH, .graph = body};
  cmz_node_set_attr(m, loop, &attr);
  F->node = loop;
  check_plan(2);
}

static void test_verifier(void **state) {
  (void)state;
  build_network();
  ok(prepare(), "inference");
  cmz_plan *p = planned(2);
  assert_int_equal(cmz_plan_verify(p), CMZ_OK);
  /* two living buffers at one place */
  uint32_t changed = 0;
  for (uint32_t i = 0; i < p->buffers.count && !changed; i++)
    for (uint32_t j = i + 1; j < p->buffers.count && !changed; j++) {
      cmz_buffer *a = &p->buffers.data[i], *b = &p->buffers.data[j];
      if (a->kind != CMZ_BUFFER_ARENA || b->kind != CMZ_BUFFER_ARENA || a->last < b->first ||
          b->last < a->first)
        continue;
      cmz_dim before = b->offset;
      b->offset = a->offset;
      changed = 1;
      assert_int_equal(cmz_plan_verify(p), CMZ_E_INTERNAL);
      b->offset = before;
    }
  assert_int_equal(changed, 1);
  cmz_step *s = &p->blocks.data[0].steps.data[0];
  uint32_t before = s->operands[0];
  s->operands[0] = 10000;
  assert_int_equal(cmz_plan_verify(p), CMZ_E_INTERNAL);
  s->operands[0] = before;
  assert_int_equal(cmz_plan_verify(p), CMZ_OK);
  /* the first step's result is read before it is written */
  cmz_block *block = &p->blocks.data[0];
  cmz_step first = block->steps.data[0];
  memmove(&block->steps.data[0], &block->steps.data[1], (block->steps.count - 1) * sizeof first);
  block->steps.data[block->steps.count - 1] = first;
  assert_int_equal(cmz_plan_verify(p), CMZ_E_INTERNAL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_network, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_data_dependent, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_reshape_by_input, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_loop, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_verifier, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
