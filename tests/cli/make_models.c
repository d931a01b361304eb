/* make_models.c - writes the small ONNX files, right and wrong, that tests/cli/run.sh feeds to
 * cmzc. usage: make_models FOLDER */
#include "../unit/onnx_writer.h"
#include <unistd.h>

static const int64_t dims4[] = {4};

static message graph(void) {
  message g = {0};
  put_text(&g, 2, "g");
  put_message(&g, 11, value_info("x", 1, dims4));
  put_message(&g, 12, value_info("y", 1, dims4));
  return g;
}

static void save(const char *name, message g, int opset) {
  message m = model(g, opset);
  write_message(&m, name);
}

static message external(const char *location, const char *offset) {
  message t = {0};
  put_int(&t, 1, 4), put_int(&t, 2, 1), put_text(&t, 8, "w"), put_int(&t, 14, 1);
  const char *pairs[2][2] = {{"location", location}, {"offset", offset}};
  for (int i = 0; i < 2; i++) {
    message entry = {0};
    put_text(&entry, 1, pairs[i][0]), put_text(&entry, 2, pairs[i][1]);
    put_message(&t, 13, entry);
  }
  return t;
}

static void save_external(const char *name, const char *location, const char *offset) {
  message g = graph();
  put_message(&g, 5, external(location, offset));
  put_message(&g, 1, node("Add", "x w", "y"));
  save(name, g, 13);
}

static void save_one(const char *name, const char *op, const char *in, const char *out, int opset) {
  message g = graph(), n = node(op, in, out);
  put_text(&n, 3, "the node");
  put_message(&g, 1, n);
  save(name, g, opset);
}

int main(int argc, char **argv) {
  if (argc != 2 || chdir(argv[1]) != 0) return 2;
  save_one("good.onnx", "Relu", "x", "y", 13);
  save_one("future.onnx", "Relu", "x", "y", 99);
  save_one("unknown.onnx", "Frobnicate", "x", "y", 13);
  save_one("missing_input.onnx", "Relu", "z", "y", 13);
  save_one("missing_output.onnx", "Relu", "x", "z", 13);
  save_one("arity.onnx", "Relu", "x x", "y", 13);
  message g = graph();
  put_message(&g, 1, node("Add", "x b", "a"));
  put_message(&g, 1, node("Neg", "a", "b"));
  put_message(&g, 1, node("Relu", "b", "y"));
  save("cycle.onnx", g, 13);
  g = graph();
  put_message(&g, 1, node("Relu", "x", "y"));
  put_message(&g, 1, node("Neg", "x", "y"));
  save("duplicate.onnx", g, 13);
  message a = {0}, odd = node("Elu", "x", "y");
  put_text(&a, 1, "slope"), put_int(&a, 3, 1), put_int(&a, 20, 2);
  put_text(&odd, 3, "the node"), put_message(&odd, 5, a);
  g = graph();
  put_message(&g, 1, odd);
  save("attribute.onnx", g, 13);
  save_one("no_attribute.onnx", "Cast", "x", "y", 13);
  g = graph();
  put_message(&g, 1, node("Foo", "x", "a"));
  put_message(&g, 1, node("Bar", "a", "b"));
  put_message(&g, 1, node("Foo", "b", "y"));
  save("two_unknown.onnx", g, 13);
  int64_t huge[] = {INT64_MAX, INT64_MAX};
  float four[4] = {0};
  g = graph();
  put_message(&g, 5, tensor("w", 1, 2, huge, four, sizeof four));
  put_message(&g, 1, node("Add", "x w", "y"));
  save("overflow.onnx", g, 13);
  int64_t three[] = {3};
  g = graph();
  put_message(&g, 5, tensor("w", 1, 1, three, four, 12));
  put_message(&g, 1, node("Add", "x w", "y"));
  save("shapes.onnx", g, 13);
  g = graph();
  put_message(&g, 5, tensor("w", 7, 1, (int64_t[]){2}, four, 16));
  put_message(&g, 1, node("Add", "x w", "y"));
  save("types.onnx", g, 13);
  message data = {0};
  put_raw(&data, four, sizeof four);
  write_message(&data, "w.bin");
  save_external("external.onnx", "w.bin", "0");
  save_external("past_end.onnx", "w.bin", "8");
  save_external("no_file.onnx", "none.bin", "0");
  save_external("escape.onnx", "../w.bin", "0");
  save_external("absolute.onnx", "/etc/hostname", "0");
  /* a branch that gives what its own If makes, and one that reads it */
  for (int reads = 0; reads < 2; reads++) {
    message branch = {0}, choose = node("If", "c", "y"), condition = {0}, t = {0}, made = {0};
    put_text(&branch, 2, "branch");
    if (reads) put_message(&branch, 1, node("Neg", "y", "z"));
    put_message(&branch, 12, value_info(reads ? "z" : "y", 1, dims4));
    put_text(&condition, 1, "then_branch"), put_int(&condition, 20, 5);
    put_bytes(&condition, 6, branch.data, branch.size);
    put_message(&choose, 5, condition);
    condition = (message){0};
    put_text(&condition, 1, "else_branch"), put_int(&condition, 20, 5);
    put_message(&condition, 6, branch);
    put_message(&choose, 5, condition);
    put_text(&choose, 3, "the node");
    put_raw(&t, "\x01", 1);
    made = tensor("c", 9, 0, dims4, t.data, 1);
    free(t.data);
    g = graph();
    put_message(&g, 5, made);
    put_message(&g, 1, choose);
    save(reads ? "cycle_inside.onnx" : "cycle_output.onnx", g, 13);
  }
  save_external("link.onnx", "link.bin", "0");
  save_external("negative.onnx", "w.bin", "-8");
  save_external("wraps.onnx", "w.bin", "18446744073709551608");
  message in_domain = node("Relu", "x", "y");
  put_text(&in_domain, 3, "the node"), put_text(&in_domain, 7, "org.example");
  g = graph();
  put_message(&g, 1, in_domain);
  save("domain.onnx", g, 13);
  g = graph();
  put_message(&g, 5, tensor("w", 77, 1, dims4, four, 16));
  put_message(&g, 1, node("Add", "x w", "y"));
  save("element.onnx", g, 13);
  g = graph();
  put_message(&g, 5, tensor("w", 1, 1, (int64_t[]){-4}, four, 16));
  put_message(&g, 1, node("Add", "x w", "y"));
  save("dim.onnx", g, 13);
  message text = {0};
  put_raw(&text, "hello, this is not a model\n", 27);
  write_message(&text, "text.onnx");
  message empty = {0};
  put_raw(&empty, "", 0);
  write_message(&empty, "empty.onnx");
  return 0;
}
