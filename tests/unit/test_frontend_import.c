/* test_frontend_import.c - the ONNX importer on files written here: what is right comes out as a
 * module, what is wrong gives one message that names the place. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include "../../frontend/importers.h"
#include "../../ir/op.h"
#include "onnx_writer.h"
#include <unistd.h>

static char folder[64];
static char path[128];
static char last[512]; /* message of the last error */

static void keep(void *user, const cmz_diagnostic *d) {
  (void)user;
  snprintf(last, sizeof last, "%s|%s|%s", d->loc.node ? d->loc.node : "",
           d->loc.tensor ? d->loc.tensor : "", d->message);
}

typedef struct fixture {
  cmz_context *ctx;
  jmp_buf out;
  cmz_module *m;
  cmz_status status;
} fixture;

static fixture *read_model(message m) {
  snprintf(path, sizeof path, "%s/m.onnx", folder);
  write_message(&m, path);
  fixture *f = calloc(1, sizeof *f);
  cmz_context_options options = {.sink = keep};
  f->ctx = cmz_context_create(&options);
  f->ctx->out_of_memory = &f->out;
  last[0] = 0;
  f->status = setjmp(f->out) ? CMZ_E_MEMORY : cmz_onnx_import(f->ctx, path, &f->m);
  return f;
}
static void done(fixture *f) { cmz_context_destroy(f->ctx), free(f); }
static void expect(message m, cmz_status status, const char *text) {
  fixture *f = read_model(m);
  if (f->status != status || !strstr(last, text))
    fail_msg("status %d, message \"%s\", wanted \"%s\"", (int)f->status, last, text);
  done(f);
}

static const int64_t dims4[] = {4};
static message small_graph(void) { /* y = Relu(x) */
  message g = {0};
  put_text(&g, 2, "g");
  put_message(&g, 11, value_info("x", 1, dims4));
  put_message(&g, 12, value_info("y", 1, dims4));
  return g;
}

static void test_plain(void **state) {
  (void)state;
  message g = small_graph();
  float big[64];
  for (int i = 0; i < 64; i++) big[i] = (float)i;
  int64_t dims[] = {16, 4};
  put_message(&g, 5, tensor("w", 1, 2, dims, big, sizeof big));
  put_message(&g, 1, node("Add", "r w", "y"));
  put_message(&g, 1, node("Relu", "x", "r")); /* out of order: sorted */
  fixture *f = read_model(model(g, 13));
  assert_int_equal(f->status, CMZ_OK);
  const cmz_graph *main_graph = cmz_graph_get(f->m, f->m->entries.data[0]);
  assert_int_equal(main_graph->nodes.count, 2);
  assert_string_equal(cmz_node_get(f->m, main_graph->nodes.data[0])->op->name, "Relu");
  const cmz_node *add = cmz_node_get(f->m, main_graph->nodes.data[1]);
  assert_int_equal(add->opset, 13);
  const cmz_constant *w = cmz_value_constant(f->m, add->inputs[1]);
  assert_int_equal(w->bytes, sizeof big);
  assert_memory_equal(w->data, big, sizeof big);
  assert_true((const uint8_t *)w->data > f->ctx->files->data &&
              (const uint8_t *)w->data < f->ctx->files->data + f->ctx->files->size);
  done(f);
}

static void test_symbolic_dims(void **state) {
  (void)state;
  message g = {0};
  int64_t open[] = {-1, 3};
  put_message(&g, 11, value_info("x", 2, open));
  put_message(&g, 12, value_info("y", 2, open));
  put_message(&g, 1, node("Relu", "x", "y"));
  fixture *f = read_model(model(g, 13));
  assert_int_equal(f->status, CMZ_OK);
  const cmz_value *x = cmz_value_get(f->m, cmz_graph_get(f->m, 1)->inputs.data[0]);
  const cmz_symbol *s = cmz_dim_symbol_of(f->m->dims, x->type.shape[0]);
  assert_non_null(s);
  assert_string_equal(s->name, "x_dim0");
  assert_true(cmz_dim_is(f->m->dims, x->type.shape[1], 3));
  done(f);
}

static message with_tensor(message t) {
  message g = small_graph();
  put_message(&g, 5, t);
  put_message(&g, 1, node("Add", "x w", "y"));
  return model(g, 13);
}

static void test_tensor_fields(void **state) {
  (void)state;
  message t = {0};
  put_int(&t, 1, 3), put_int(&t, 2, CMZ_F16), put_text(&t, 8, "w");
  for (int i = 0; i < 3; i++) put_int(&t, 5, (uint64_t)(0x3c00 + i)); /* int32_data, not packed */
  fixture *f = read_model(with_tensor(t));
  assert_int_equal(f->status, CMZ_OK);
  const cmz_constant *w = cmz_constant_get(f->m, 1);
  assert_int_equal(w->bytes, 6);
  assert_int_equal(((const uint16_t *)w->data)[2], 0x3c02);
  done(f);

  message packed = {0}, many = {0}; /* a packed list long enough to be left in the file */
  for (int i = 0; i < 100; i++) put_varint(&packed, (uint64_t)(int64_t)(i - 50));
  put_int(&many, 1, 100), put_int(&many, 2, CMZ_I64), put_text(&many, 8, "w");
  put_message(&many, 7, packed);
  f = read_model(with_tensor(many));
  assert_int_equal(f->status, CMZ_OK);
  assert_int_equal(((const int64_t *)cmz_constant_get(f->m, 1)->data)[0], -50);
  assert_int_equal(((const int64_t *)cmz_constant_get(f->m, 1)->data)[99], 49);
  done(f);

  message nibbles = {0};
  put_int(&nibbles, 1, 3), put_int(&nibbles, 2, CMZ_U4), put_text(&nibbles, 8, "w");
  put_int(&nibbles, 5, 0x21), put_int(&nibbles, 5, 0x03);
  f = read_model(with_tensor(nibbles));
  assert_int_equal(f->status, CMZ_OK);
  assert_int_equal(cmz_constant_get(f->m, 1)->bytes, 2);
  assert_int_equal(((const uint8_t *)cmz_constant_get(f->m, 1)->data)[0], 0x21);
  done(f);
}

static void test_bad_tensors(void **state) {
  (void)state;
  float four[4] = {0};
  int64_t five[] = {5}, negative[] = {-2}, huge[] = {INT64_MAX, 3};
  expect(with_tensor(tensor("w", 1, 1, five, four, sizeof four)), CMZ_E_INPUT,
         "|w|tensor data has 16 bytes");
  expect(with_tensor(tensor("w", 1, 1, negative, four, sizeof four)), CMZ_E_INPUT, "negative");
  expect(with_tensor(tensor("w", 1, 2, huge, four, sizeof four)), CMZ_E_INPUT, "overflow");
  expect(with_tensor(tensor("w", 99, 1, dims4, four, sizeof four)), CMZ_E_INPUT, "element type 99");
}

static message external(const char *location, const char *offset, const char *length) {
  message t = {0};
  put_int(&t, 1, 4), put_int(&t, 2, 1), put_text(&t, 8, "w"), put_int(&t, 14, 1);
  const char *pairs[3][2] = {{"location", location}, {"offset", offset}, {"length", length}};
  for (int i = 0; i < 3; i++) {
    message entry = {0};
    if (!pairs[i][1]) continue;
    put_text(&entry, 1, pairs[i][0]), put_text(&entry, 2, pairs[i][1]);
    put_message(&t, 13, entry);
  }
  return t;
}

static void test_external(void **state) {
  (void)state;
  char data[128], outside[160], inside[160];
  snprintf(data, sizeof data, "%s/w.bin", folder);
  snprintf(outside, sizeof outside, "%s/link.bin", folder);
  snprintf(inside, sizeof inside, "%s/loop.bin", folder);
  float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  message file = {0};
  put_raw(&file, values, sizeof values);
  write_message(&file, data);
  assert_int_equal(symlink("/etc/passwd", outside), 0);
  fixture *f = read_model(with_tensor(external("w.bin", "16", "16")));
  assert_int_equal(f->status, CMZ_OK);
  assert_true(((const float *)cmz_constant_get(f->m, 1)->data)[0] == 5);
  done(f);
  expect(with_tensor(external("w.bin", "20", "16")), CMZ_E_INPUT, "runs past the end");
  expect(with_tensor(external("w.bin", "18446744073709551615", "16")), CMZ_E_INPUT,
         "runs past the end");
  expect(with_tensor(external("w.bin", "99999999999999999999", NULL)), CMZ_E_INPUT, "not a number");
  expect(with_tensor(external("w.bin", "0", "12")), CMZ_E_INPUT,
         "12 bytes where its shape asks for 16");
  expect(with_tensor(external("missing.bin", NULL, NULL)), CMZ_E_INPUT, "cannot be found");
  expect(with_tensor(external("../w.bin", NULL, NULL)), CMZ_E_INPUT, "not a relative path inside");
  expect(with_tensor(external("/etc/passwd", NULL, NULL)), CMZ_E_INPUT,
         "not a relative path inside");
  expect(with_tensor(external("link.bin", NULL, NULL)), CMZ_E_INPUT, "leads outside");
  expect(with_tensor(external(NULL, NULL, NULL)), CMZ_E_INPUT, "without a location");
  unlink(outside), unlink(data);
}

static void test_bad_graphs(void **state) {
  (void)state;
  message g = small_graph();
  put_message(&g, 1, node("Relu", "z", "y"));
  expect(model(g, 13), CMZ_E_INPUT, "input \"z\" is made by no node");
  g = small_graph();
  put_message(&g, 1, node("Add", "x b", "a"));
  put_message(&g, 1, node("Relu", "a", "b"));
  put_message(&g, 1, node("Relu", "b", "y"));
  expect(model(g, 13), CMZ_E_INPUT, "cycle");
  g = small_graph();
  put_message(&g, 1, node("Relu", "x", "y"));
  put_message(&g, 1, node("Neg", "x", "y"));
  expect(model(g, 13), CMZ_E_INPUT, "\"y\" of its output is taken");
  g = small_graph();
  put_message(&g, 1, node("Relu", "x", "z"));
  expect(model(g, 13), CMZ_E_INPUT, "output \"y\" of graph \"g\" is made by no node");
  g = small_graph();
  put_message(&g, 1, node("Relu", "x", "y"));
  put_message(&g, 11, value_info("x", 1, dims4));
  expect(model(g, 13), CMZ_E_INPUT, "\"x\" is given twice");
  g = small_graph();
  put_message(&g, 1, node("Relu", "x x", "y"));
  expect(model(g, 13), CMZ_E_INPUT, "has 2 inputs");
  g = small_graph();
  put_message(&g, 1, node("Frobnicate", "x", "y"));
  expect(model(g, 13), CMZ_E_UNSUPPORTED, "operator Frobnicate of domain ai.onnx is not known");
  g = small_graph();
  put_message(&g, 1, node("Relu", "x", "y"));
  expect(model(g, 99), CMZ_E_UNSUPPORTED, "opset 99 of ai.onnx is newer than 28");
}

static void test_damaged(void **state) {
  (void)state;
  message g = small_graph();
  put_message(&g, 1, node("Relu", "x", "y"));
  message whole = model(g, 13);
  for (size_t cut = 0; cut < whole.size;
       cut++) { /* every truncation is an error, or a complete shorter model */
    message part = {0};
    put_raw(&part, whole.data, cut);
    fixture *f = read_model(part);
    if (f->status == CMZ_OK) fail_msg("cut at %zu is accepted", cut);
    assert_true(last[0] != 0);
    done(f);
  }
  free(whole.data);
  message nested = {0};
  for (int i = 0; i < 402; i++) { /* graphs in attributes of nodes of graphs ... */
    message outer = {0};
    put_message(&outer, (unsigned[]){6, 5, 1}[i % 3], nested);
    nested = outer;
  }
  message m = {0};
  put_int(&m, 1, 8);
  put_message(&m, 7, nested);
  expect(m, CMZ_E_INPUT, "nesting that is too deep");
}

/* twice(a) = Add(a, a), called with the name "call". */
static message function_model(const char *body_op, const char *body_in, const char *body_out) {
  message g = small_graph(), f = {0}, import = {0}, call = node("twice", "x", "y");
  put_text(&call, 3, "call"), put_text(&call, 7, "local");
  put_message(&g, 1, call);
  put_text(&f, 1, "twice"), put_text(&f, 4, "a"), put_text(&f, 5, "b"), put_text(&f, 10, "local");
  message body = node(body_op, body_in, body_out);
  if (!strcmp(body_op, "twice")) put_text(&body, 7, "local");
  put_message(&f, 7, body);
  put_int(&import, 2, 13);
  put_message(&f, 9, import);
  message m = model(g, 13);
  put_message(&m, 25, f);
  return m;
}

static void test_functions(void **state) {
  (void)state;
  fixture *f = read_model(function_model("Add", "a a", "b"));
  assert_int_equal(f->status, CMZ_OK);
  const cmz_graph *g = cmz_graph_get(f->m, 1);
  assert_int_equal(g->nodes.count, 1);
  const cmz_node *add = cmz_node_get(f->m, g->nodes.data[0]);
  assert_string_equal(add->op->name, "Add");
  assert_string_equal(add->name, "call/b");
  assert_int_equal(add->inputs[0], g->inputs.data[0]);
  assert_int_equal(add->outputs[0], g->outputs.data[0]);
  done(f);
  expect(function_model("twice", "a", "b"), CMZ_E_INPUT, "calls itself");
  expect(function_model("Add", "a a", "c"), CMZ_E_INPUT, "never computes its output");
}

static void test_constants(void **state) {
  (void)state;
  message g = small_graph(), c = node("Constant", "", "k"), a = {0};
  put_text(&a, 1, "value_ints"), put_int(&a, 8, 7), put_int(&a, 8, 9), put_int(&a, 20, 7);
  put_message(&c, 5, a);
  put_message(&g, 1, c);
  put_message(&g, 1, node("Reshape", "x k", "y"));
  fixture *f = read_model(model(g, 13));
  assert_int_equal(f->status, CMZ_OK);
  const cmz_graph *main_graph = cmz_graph_get(f->m, 1);
  assert_int_equal(main_graph->nodes.count, 1);
  uint32_t count;
  const cmz_dim *e =
      cmz_value_elements(f->m, cmz_node_get(f->m, main_graph->nodes.data[0])->inputs[1], &count);
  assert_non_null(e);
  assert_int_equal(count, 2);
  assert_true(cmz_dim_is(f->m->dims, e[1], 9));
  done(f);
}

/* y = OP(x) at OPSET with attribute NAME, an int (kind 2) or ints (kind 7) of value 1. */
static message with_attribute(const char *op, int opset, const char *name, int kind) {
  message g = small_graph(), n = node(op, "x", "y"), a = {0};
  put_text(&a, 1, name), put_int(&a, kind == 2 ? 3 : 8, 1), put_int(&a, 20, (uint64_t)kind);
  put_message(&n, 5, a);
  put_message(&g, 1, n);
  return model(g, opset);
}

static void test_attributes(void **state) {
  (void)state;
  expect(with_attribute("Relu", 13, "slope", 2), CMZ_E_INPUT,
         "attribute \"slope\" is not known for Relu at opset 13");
  expect(with_attribute("Softmax", 13, "axis", 7), CMZ_E_INPUT,
         "attribute \"axis\" is of kind ints; Softmax takes int");
  expect(with_attribute("Softmax", 13, "axis", 2), CMZ_OK, "");
  /* what old versions had, where they had it */
  expect(with_attribute("Relu", 5, "consumed_inputs", 7), CMZ_OK, "");
  expect(with_attribute("Relu", 6, "consumed_inputs", 7), CMZ_E_INPUT, "consumed_inputs");
  expect(with_attribute("ReduceSum", 12, "axes", 7), CMZ_OK, "");
  expect(with_attribute("ReduceSum", 13, "axes", 7), CMZ_E_INPUT, "axes");
  expect(with_attribute("ReduceSum", 12, "noop_with_empty_axes", 2), CMZ_E_INPUT, "noop");
  expect(with_attribute("DepthToSpace", 13, "mode", 2), CMZ_E_INPUT, "is of kind int");
  message g = small_graph();
  put_message(&g, 1, node("Cast", "x", "y"));
  expect(model(g, 13), CMZ_E_INPUT, "attribute \"to\" is missing");
  message c = node("Constant", "", "k"), a = {0};
  put_text(&a, 1, "value_ints"), put_int(&a, 8, 7), put_int(&a, 20, 7);
  put_message(&c, 5, a);
  g = small_graph();
  put_message(&g, 1, c);
  put_message(&g, 1, node("Reshape", "x k", "y"));
  expect(model(g, 11), CMZ_E_INPUT, "\"value_ints\" is not known for Constant");
  /* every row reads as op.h says */
  const cmz_op *op;
  for (uint32_t i = 0; (op = cmz_op_at(i)); i++) {
    if (!op->attributes) continue;
    uint32_t words = 1, entries = 0;
    for (const char *t = op->attributes; *t; t++) words += *t == ' ';
    for (uint32_t opset = 1; opset <= 30; opset++) {
      const char *at = op->attributes;
      for (cmz_op_attr row; cmz_op_attr_next(&at, opset, &row); entries++) {
        assert_true(row.length > 0 && strchr("fistgFISTGxXpP", row.kind));
        assert_null(memchr(row.name, ' ', row.length));
      }
    }
    assert_true(entries >= words);
  }
}

static int make_folder(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/cmz_import_XXXXXX");
  return mkdtemp(folder) ? 0 : 1;
}
static int remove_folder(void **state) {
  (void)state;
  unlink(path);
  return rmdir(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plain),         cmocka_unit_test(test_symbolic_dims),
      cmocka_unit_test(test_tensor_fields), cmocka_unit_test(test_bad_tensors),
      cmocka_unit_test(test_external),      cmocka_unit_test(test_bad_graphs),
      cmocka_unit_test(test_damaged),       cmocka_unit_test(test_functions),
      cmocka_unit_test(test_constants),     cmocka_unit_test(test_attributes)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
