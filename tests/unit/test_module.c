/* test_module.c - building and changing modules: uses, removal, order, elements, verification,
 * layouts. */
#include "../../ir/module.h"
#include "../../ir/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static cmz_context *ctx;
static jmp_buf memory_target;
static cmz_module *m;
static cmz_gid g;

static int setup(void **state) {
  (void)state;
  ctx = cmz_context_create(NULL);
  if (!ctx) return 1;
  ctx->out_of_memory = &memory_target;
  if (setjmp(memory_target)) return 1;
  m = cmz_module_create(ctx, "test.onnx");
  g = cmz_module_add_graph(m, "main", 0, 0);
  cmz_vec_push(m->arena, &m->entries, g);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  cmz_context_destroy(ctx);
  return 0;
}

static cmz_vid input(const char *name, cmz_dtype dtype, int64_t extent) {
  cmz_vid v = cmz_value_add_input(m, g, name);
  cmz_value_set_type(m, v, dtype, 1, (cmz_dim[]){cmz_dim_const(m->dims, extent)});
  return v;
}

static cmz_vid add(const char *op, cmz_gid graph, cmz_vid a, cmz_vid b, cmz_nid *node) {
  cmz_vid out = cmz_value_add(m, graph, NULL);
  cmz_value_set_type(m, out, CMZ_F32, 1, (cmz_dim[]){cmz_dim_const(m->dims, 4)});
  cmz_nid n = cmz_node_add(m, graph, cmz_op_get(op), NULL, b ? 2 : 1, (cmz_vid[]){a, b}, 1, &out);
  if (node) *node = n;
  return out;
}

static void verified(void) {
  cmz_status status = cmz_module_verify(m);
  if (status != CMZ_OK) fail_msg("%s", ctx->diagnostics.data[ctx->diagnostics.count - 1].message);
}

static void broken(void) { assert_int_equal(cmz_module_verify(m), CMZ_E_INTERNAL); }

static void test_uses(void **state) {
  (void)state;
  cmz_vid x = input("x", CMZ_F32, 4), y = input("y", CMZ_F32, 4);
  cmz_nid first, second;
  cmz_vid a = add("Add", g, x, x, &first), b = add("Mul", g, a, y, &second);
  cmz_graph_add_output(m, g, b);
  verified();
  assert_int_equal(cmz_value_get(m, x)->uses.count, 2);
  cmz_value_replace_uses(m, x, y);
  assert_int_equal(cmz_value_get(m, x)->uses.count, 0);
  assert_int_equal(cmz_value_get(m, y)->uses.count, 3);
  verified();
  cmz_value_replace_uses(m, b, a);
  assert_int_equal(cmz_graph_get(m, g)->outputs.data[0], a);
  assert_int_equal(cmz_value_get(m, a)->output_uses, 1);
  cmz_node_remove(m, second);
  assert_true(cmz_value_get(m, b)->removed);
  verified();
  cmz_node_set_input(m, first, 3, x);
  assert_int_equal(cmz_node_get(m, first)->input_count, 4);
  assert_int_equal(cmz_node_input(cmz_node_get(m, first), 2), 0);
  verified();
  uint32_t seen = 0;
  for (cmz_graph_each(m, g, n)) seen += n;
  assert_int_equal(seen, first);
}

static void test_order(void **state) {
  (void)state;
  cmz_vid x = input("x", CMZ_F32, 4);
  cmz_nid first, second, third;
  cmz_vid a = add("Neg", g, x, 0, &first), b = add("Neg", g, a, 0, &second);
  add("Neg", g, b, 0, &third);
  cmz_vid late = add("Abs", g, x, 0, NULL);
  cmz_node_set_input(m, first, 0, late);
  broken();
  assert_int_equal(cmz_graph_sort(m, g), CMZ_OK);
  verified();
  cmz_vid out = cmz_value_add(m, g, NULL);
  cmz_nid inserted = cmz_node_insert(m, third, cmz_op_get("Exp"), NULL, 1, &b, 1, &out);
  cmz_node_set_input(m, third, 0, out);
  verified();
  assert_string_equal(cmz_node_get(m, inserted)->name, cmz_value_get(m, out)->name);
  cmz_node_set_input(m, first, 0, b);
  assert_int_equal(cmz_graph_sort(m, g), CMZ_E_INPUT);
}

static void test_deep_sort(void **state) {
  (void)state;
  enum { DEPTH = 20000 };
  cmz_vid x = input("x", CMZ_F32, 4), values[2] = {0};
  cmz_nid previous = 0;
  for (int i = 0; i < DEPTH; i++) { /* each node reads the one after it */
    cmz_nid n;
    values[1] = add("Neg", g, x, 0, &n);
    if (previous) cmz_node_set_input(m, previous, 0, values[1]);
    previous = n;
  }
  assert_int_equal(cmz_graph_sort(m, g), CMZ_OK);
  verified();
  assert_int_equal(cmz_graph_get(m, g)->nodes.count, DEPTH);
}

static void test_subgraphs(void **state) {
  (void)state;
  cmz_vid condition = input("c", CMZ_BOOL, 1), x = input("x", CMZ_F32, 4);
  cmz_vid out = cmz_value_add(m, g, "out");
  cmz_nid branch = cmz_node_add(m, g, cmz_op_get("If"), "branch", 1, &condition, 1, &out);
  cmz_gid then_graph = cmz_module_add_graph(m, "then", branch, g);
  cmz_vid captured = add("Abs", g, x, 0, NULL); /* after the If in the list */
  cmz_vid inner = add("Add", then_graph, captured, x, NULL);
  cmz_graph_add_output(m, then_graph, inner);
  cmz_graph_add_output(m, then_graph, captured);
  cmz_node_set_attr(
      m, branch, &(cmz_attr){.name = "then_branch", .kind = CMZ_ATTR_GRAPH, .graph = then_graph});
  broken();
  assert_int_equal(cmz_graph_sort(m, g), CMZ_OK);
  verified();
  assert_int_equal(cmz_value_get(m, captured)->uses.count, 1);
  cmz_node_remove(m, branch);
  assert_int_equal(cmz_value_get(m, captured)->uses.count, 0);
  assert_int_equal(cmz_value_get(m, captured)->output_uses, 0);
  verified();
}

static void test_broken(void **state) {
  (void)state;
  cmz_vid x = input("x", CMZ_F32, 4);
  cmz_nid n;
  cmz_vid a = add("Neg", g, x, 0, &n);
  verified();
  cmz_value_get(m, x)->uses.count = 0;
  broken();
  cmz_value_get(m, x)->uses.count = 1;
  cmz_value_get(m, a)->output_uses = 1;
  broken();
  cmz_value_get(m, a)->output_uses = 0;
  cmz_node_get(m, n)->inputs[0] = 999;
  broken();
  cmz_node_get(m, n)->inputs[0] = x;
  cmz_value_get(m, x)->removed = true;
  broken();
}

static void test_elements(void **state) {
  (void)state;
  uint32_t count;
  cmz_vid c = cmz_value_add_i64s(m, g, (int64_t[]){2, -1, 7}, 3);
  const cmz_dim *elements = cmz_value_elements(m, c, &count);
  assert_int_equal(count, 3);
  assert_true(cmz_dim_is(m->dims, elements[1], -1));
  cmz_vid shape = input("shape", CMZ_I64, 2), f = input("f", CMZ_F32, 2),
          large = input("large", CMZ_I64, 65);
  assert_null(cmz_value_elements(m, shape, &count));
  const cmz_dim *demanded = cmz_value_demand_elements(m, shape, &count);
  assert_int_equal(count, 2);
  assert_true(cmz_dim_is_data_dependent(m->dims, demanded[0]));
  assert_ptr_equal(cmz_value_demand_elements(m, shape, &count), demanded);
  assert_null(cmz_value_demand_elements(m, f, &count));
  assert_null(cmz_value_demand_elements(m, large, &count));
  cmz_vid other = input("other", CMZ_I64, 2);
  cmz_value_replace_uses(m, shape, other);
  assert_int_equal(cmz_dim_symbol_of(m->dims, demanded[1])->value, other);
  cmz_vid s = cmz_value_add_scalar(m, g, CMZ_BF16, 1.5);
  const cmz_constant *k = cmz_value_constant(m, s);
  assert_true(cmz_dtype_get_f64(k->dtype, k->data, 0) == 1.5);
  verified();
}

static void test_attributes(void **state) {
  (void)state;
  cmz_vid x = input("x", CMZ_F32, 4);
  cmz_nid n, other;
  add("Neg", g, x, 0, &n);
  add("Abs", g, x, 0, &other);
  cmz_node_set_int(m, n, "axis", 3);
  cmz_node_set_int(m, n, "axis", -1);
  cmz_node_set_float(m, n, "alpha", 0.5);
  cmz_node_set_string(m, n, "mode", "linear");
  cmz_node_set_ints(m, n, "pads", (int64_t[]){1, 2}, 2);
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t count;
  assert_int_equal(node->attr_count, 4);
  assert_int_equal(cmz_node_int(node, "axis", 9), -1);
  assert_int_equal(cmz_node_int(node, "alpha", 9), 9);
  assert_true(cmz_node_float(node, "alpha", 9) == 0.5);
  assert_string_equal(cmz_node_string(node, "mode", ""), "linear");
  assert_int_equal(cmz_node_ints(node, "pads", &count)[1], 2);
  assert_null(cmz_node_ints(node, "none", &count));
  cmz_node_remove_attr(m, n, "axis");
  assert_int_equal(cmz_node_int(cmz_node_get(m, n), "axis", 9), 9);
  cmz_node_add_source(m, n, other);
  cmz_node_add_source(m, n, other);
  assert_int_equal(cmz_node_get(m, n)->source_count, 1);
}

static void test_clone(void **state) {
  (void)state;
  cmz_vid x = input("x", CMZ_F32, 4), y = input("y", CMZ_F32, 4);
  cmz_vid a = add("Add", g, x, y, NULL);
  cmz_graph_add_output(m, g, a);
  cmz_module *copy = cmz_module_clone(m);
  cmz_value_replace_uses(copy, x, y);
  assert_int_equal(cmz_dim_const(copy->dims, 12345), cmz_dim_const(copy->dims, 12345));
  verified();
  assert_int_equal(cmz_module_verify(copy), CMZ_OK);
  assert_int_equal(cmz_value_get(m, x)->uses.count, 1);
  cmz_arena_destroy(copy->arena);
  verified();
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {TEST(test_uses),       TEST(test_order),  TEST(test_deep_sort),
                                     TEST(test_subgraphs),  TEST(test_broken), TEST(test_elements),
                                     TEST(test_attributes), TEST(test_clone)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
