/* test_text.c - the text form: what is printed parses to a module that prints the same; garbage is
 * refused with a line. */
#include "../../ir/module.h"
#include "../../ir/op.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static cmz_context *ctx;
static jmp_buf memory_target;

static int setup(void **state) {
  (void)state;
  ctx = cmz_context_create(NULL);
  if (!ctx) return 1;
  ctx->out_of_memory = &memory_target;
  return setjmp(memory_target);
}

static int teardown(void **state) {
  (void)state;
  cmz_context_destroy(ctx);
  return 0;
}

/* A module with something of everything. */
static cmz_module *build(void) {
  cmz_module *m = cmz_module_create(ctx, "a \"b\"\n.onnx");
  m->name = "test";
  m->opset = 21;
  m->ir_version = 10;
  cmz_gid g = cmz_module_add_graph(m, "main", 0, 0);
  cmz_vec_push(m->arena, &m->entries, g);
  cmz_dim batch = cmz_dim_symbol(
      m->dims, &(cmz_symbol){.name = "batch size", .low = 1, .high = INT64_MAX, .hint = 4});
  cmz_dim shape[] = {batch,
                     cmz_dim_floordiv(m->dims,
                                      cmz_dim_add(m->dims, batch, cmz_dim_const(m->dims, 1)),
                                      cmz_dim_const(m->dims, 2)),
                     cmz_dim_const(m->dims, 4)};
  cmz_vid x = cmz_value_add_input(m, g, "x"), s = cmz_value_add_input(m, g, "s"), dead,
          out = cmz_value_add(m, g, "out");
  cmz_value_set_type(m, x, CMZ_F32, 3, shape);
  cmz_value_set_type(m, s, CMZ_I64, 1, (cmz_dim[]){cmz_dim_const(m->dims, 2)});
  uint32_t count;
  const cmz_dim *elements = cmz_value_demand_elements(m, s, &count);
  cmz_value_set_type(m, out, CMZ_F32, 2, elements);
  static float floats[] = {1.1f, -0.0f, 3e-45f, 3.4028235e38f};
  floats[1] = -INFINITY;
  cmz_value_add_constant(m, g, "floats", CMZ_F32, 1, (int64_t[]){4}, floats, sizeof floats);
  static const uint32_t payload[] = {0x7fc00123, 0xff800001};
  cmz_vid nan = cmz_value_add_constant(m, g, "nan payload", CMZ_F32, 1, (int64_t[]){2}, payload,
                                       sizeof payload);
  static const char *const strings[] = {"a\"\\", "b\x01\n"};
  cmz_value_add_constant(m, g, "strings", CMZ_STRING, 2, (int64_t[]){1, 2}, strings,
                         sizeof strings);
  static uint8_t large[1000];
  for (size_t i = 0; i < sizeof large; i++) large[i] = (uint8_t)(i * 7);
  cmz_value_add_constant(m, g, "large", CMZ_U8, 1, (int64_t[]){1000}, large, sizeof large);
  cmz_value_add_constant(m, g, "u64", CMZ_U64, 1, (int64_t[]){1}, (uint64_t[]){UINT64_MAX}, 8);
  m->values.data[m->values.count - 1].constant = m->constants.count - 1;
  m->constants.data[m->constants.count - 1].data =
      cmz_arena_copy(m->arena, (uint64_t[]){UINT64_MAX}, 8);
  cmz_value_add_constant(m, g, "i4", CMZ_I4, 1, (int64_t[]){3}, "\x8f\x07", 2);
  cmz_value_add_constant(m, g, "empty", CMZ_F32, 1, (int64_t[]){0}, "", 0);
  cmz_value_add_scalar(m, g, CMZ_F8E4M3FN, 0.4375);
  cmz_vid packed = cmz_value_add_scalar(m, g, CMZ_F16, 65504);
  cmz_value_get(m, packed)->name = "";
  dead = cmz_value_add(m, g, "dead");
  cmz_nid dead_node = cmz_node_add(m, g, cmz_op_get("Neg"), "dead", 1, &x, 1, &dead);
  cmz_node_remove(m, dead_node);
  cmz_nid branch = cmz_node_add(m, g, cmz_op_get("If"), "If \"0\"", 3, (cmz_vid[]){x, 0, nan}, 2,
                                (cmz_vid[]){0, out});
  cmz_node_get(m, branch)->opset = 16;
  cmz_gid then_graph = cmz_module_add_graph(m, "then", branch, g);
  cmz_vid inner = cmz_value_add(m, then_graph, NULL);
  cmz_value_get(m, inner)->layout = cmz_layout_blocked_channels(3, 16);
  cmz_value_set_type(m, inner, CMZ_F32, 3, shape);
  cmz_nid relu = cmz_node_add(m, then_graph, cmz_op_get("Relu"), NULL, 1, &x, 1, &inner);
  cmz_node_add_source(m, relu, branch);
  cmz_graph_add_output(m, then_graph, inner);
  cmz_node_set_attr(
      m, branch, &(cmz_attr){.name = "then_branch", .kind = CMZ_ATTR_GRAPH, .graph = then_graph});
  cmz_node_set_int(m, branch, "axis", INT64_MIN);
  cmz_node_set_float(m, branch, "alpha", 0.1);
  cmz_node_set_float(m, branch, "infinite", (double)-INFINITY);
  cmz_node_set_string(m, branch, "mode", "li\near");
  cmz_node_set_ints(m, branch, "pads", (int64_t[]){1, -2}, 2);
  cmz_node_set_ints(m, branch, "no pads", NULL, 0);
  cmz_node_set_attr(
      m, branch,
      &(cmz_attr){
          .name = "f", .kind = CMZ_ATTR_FLOATS, .floats = (double[]){0.5, 1e300}, .count = 2});
  cmz_node_set_attr(
      m, branch,
      &(cmz_attr){.name = "n", .kind = CMZ_ATTR_STRINGS, .strings = strings, .count = 2});
  cmz_node_set_attr(m, branch, &(cmz_attr){.name = "t", .kind = CMZ_ATTR_TENSOR, .tensor = 1});
  cmz_graph_add_output(m, g, out);
  cmz_graph_add_output(m, g, out);
  return m;
}

static cmz_file as_file(const cmz_text *weights) {
  return (cmz_file){.path = "w", .data = (const uint8_t *)weights->data, .size = weights->length};
}

static void show_last_error(void) {
  cmz_text text = {.arena = ctx->arena};
  cmz_diagnostic_format(&text, &ctx->diagnostics.data[ctx->diagnostics.count - 1]);
  fail_msg("%s", text.data);
}

static void test_round_trip(void **state) {
  (void)state;
  cmz_module *m = build(), *back;
  cmz_text first = {.arena = ctx->arena}, first_weights = {.arena = ctx->arena};
  cmz_text second = {.arena = ctx->arena}, second_weights = {.arena = ctx->arena};
  if (cmz_module_verify(m) != CMZ_OK) show_last_error();
  cmz_module_print(m, &first, &first_weights);
  cmz_file weights = as_file(&first_weights);
  if (cmz_module_parse(ctx, "t.cmz", first.data, first.length, &weights, &back) != CMZ_OK)
    show_last_error();
  cmz_module_print(back, &second, &second_weights);
  assert_string_equal(first.data, second.data);
  assert_int_equal(first_weights.length, second_weights.length);
  assert_memory_equal(first_weights.data, second_weights.data, first_weights.length);
  assert_string_equal(back->name, "test");
  assert_string_equal(back->file, m->file);
  cmz_module *clone = cmz_module_clone(m);
  cmz_text third = {.arena = ctx->arena};
  second_weights.length = 0;
  cmz_module_print(clone, &third, &second_weights);
  assert_string_equal(first.data, third.data);
  cmz_text elided = {.arena = ctx->arena};
  cmz_module_print(m, &elided, NULL);
  assert_non_null(strstr(elided.data, "elided 1000"));
  assert_int_equal(cmz_module_parse(ctx, "t.cmz", elided.data, elided.length, NULL, &back),
                   CMZ_E_INPUT);
}

static void test_errors(void **state) {
  (void)state;
  static const struct {
    const char *text, *place;
  } cases[] = {
      {"", "t.cmz:1"},
      {"cmz 2", "t.cmz:1"},
      {"cmz 1 module \"m\" file \"f\" opset 1 ir 1\n graphs 4000000000 values 1", "t.cmz:2"},
      {"cmz 1 module \"m\" file \"f\" opset 1 ir 1 graphs 1 values 0\n\ngraph @2 \"\" entry {}",
       "t.cmz:3"},
      {"cmz 1 module \"m\" file \"f\" opset 1 ir 1 graphs 1 values 0\ngraph @1 \"\" {}", "t.cmz:2"},
      {"cmz 1 module \"m\" file \"f\" opset 1 ir 1 graphs 1 values 1\ngraph @1 \"\" entry "
       "{\nconstant %1 \"\" : f32[9] = [1]\n}",
       "t.cmz:3"},
      {"cmz 1 module \"m\" file \"f\" opset 1 ir 1 graphs 1 values 1\ngraph @1 \"\" entry {\ninput "
       "%1 \"x\" : f32[nothing]\n}",
       "t.cmz:3"},
      {"cmz 1 module \"m\" file \"f\" opset 1 ir 1 graphs 1 values 1\ngraph @1 \"\" entry {\n%1 "
       "\"x\" : f32[1] = \"NoSuchOp\"() name \"\"\n}",
       "t.cmz:3"},
      {"cmz 1 module \"m\" file \"f\" opset 1 ir 1 graphs 1 values 1\ngraph @1 \"\" entry {\n%1 "
       "\"x\" : f32[1] = \"If\"() {\"b\": graph @1} name \"\"\n}",
       "t.cmz"},
      /* a branch gives what its If makes */
      {"cmz 1 module \"m\" file \"f\" opset 13 ir 7 graphs 3 values 3\ngraph @1 \"\" entry "
       "{\ninput %1 "
       "\"c\" : bool[]\ninput %2 \"x\" : f32[1]\n%3 \"y\" : f32[1] = \"If\"(%1) {\"else_branch\": "
       "graph "
       "@2, \"then_branch\": graph @3} name \"\"\noutput %3\n}\ngraph @2 \"\" {\noutput "
       "%2\n}\ngraph @3 \"\" {\noutput %3\n}\n",
       "t.cmz"},
  };
  for (size_t i = 0; i < CMZ_COUNT_OF(cases); i++) {
    cmz_module *m;
    assert_int_equal(cmz_module_parse(ctx, "t.cmz", cases[i].text, strlen(cases[i].text), NULL, &m),
                     CMZ_E_INPUT);
    assert_null(m);
    const char *file = ctx->diagnostics.data[ctx->diagnostics.count - 1].loc.file;
    assert_int_equal(ctx->diagnostics.data[ctx->diagnostics.count - 1].code, CMZ_E_INPUT);
    if (strncmp(file, cases[i].place, strlen(cases[i].place)) != 0)
      fail_msg("case %zu: %s, not %s", i, file, cases[i].place);
  }
}

/* Damaged texts are refused or accepted, but never crash; what is accepted prints. */
static void test_damage(void **state) {
  (void)state;
  cmz_text text = {.arena = ctx->arena}, weights = {.arena = ctx->arena};
  cmz_module_print(build(), &text, &weights);
  cmz_file file = as_file(&weights);
  uint64_t seed = 12345;
  static const char pieces[][12] = {"%",     "@1",     "[", "}",    "\"", "99999999", "-1",
                                    "graph", "f32[*]", "_", "min(", "%2", "?",        ","};
  for (int i = 0; i < 3000; i++) {
    cmz_arena_mark mark = cmz_arena_save(ctx->arena);
    char *damaged = cmz_arena_copy(ctx->arena, text.data, text.length + 16);
    size_t size = text.length;
    for (int j = 0; j < 1 + i % 3; j++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      size_t at = (size_t)(seed >> 33) % size;
      const char *piece = pieces[(seed >> 20) % CMZ_COUNT_OF(pieces)];
      if (i % 4 == 0) damaged[at] ^= (char)(1 << (seed % 7));
      else if (i % 4 == 1) size = at ? at : 1;
      else if (i % 4 == 2) memmove(damaged + at, damaged + at + 1, --size - at);
      else memcpy(damaged + at, piece, CMZ_MIN(strlen(piece), size - at));
    }
    cmz_module *m;
    cmz_status status = cmz_module_parse(ctx, "t.cmz", damaged, size, &file, &m);
    assert_true(status == CMZ_OK || status == CMZ_E_INPUT);
    if (status == CMZ_OK) {
      cmz_text again = {.arena = m->arena};
      cmz_module_print(m, &again, NULL);
      cmz_arena_destroy(m->arena);
    }
    ctx->diagnostics.count = ctx->diagnostics.capacity = 0;
    cmz_arena_restore(ctx->arena, mark);
  }
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {TEST(test_round_trip), TEST(test_errors), TEST(test_damage)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
