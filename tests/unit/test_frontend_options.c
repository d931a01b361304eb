/* test_frontend_options.c - the command line: forms of options, values, response files, messages.
 */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include "../../frontend/options.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char last[512];
static cmz_options o;
static jmp_buf out;

static void keep(void *user, const cmz_diagnostic *d) {
  (void)user;
  snprintf(last, sizeof last, "%s|%s|%s", d->loc.tensor ? d->loc.tensor : "", d->message,
           d->hint ? d->hint : "");
}

static void drop(void) {
  if (o.ctx) cmz_context_destroy(o.ctx);
  o = (cmz_options){0};
}

/* Words with blanks between. */
static cmz_status parse(const char *line) {
  static char copy[512];
  static const char *words[64];
  int count = 0;
  drop();
  snprintf(copy, sizeof copy, "%s", line);
  for (char *save = NULL, *word = strtok_r(copy, " ", &save); word;
       word = strtok_r(NULL, " ", &save))
    words[count++] = word;
  cmz_context_options options = {.sink = keep};
  last[0] = 0;
  o.ctx = cmz_context_create(&options);
  o.ctx->out_of_memory = &out;
  if (setjmp(out)) return CMZ_E_MEMORY;
  o.arena = cmz_arena_create(o.ctx);
  return cmz_options_parse(&o, count, words);
}

static void refused(const char *line, const char *text) {
  cmz_status status = parse(line);
  if (status != CMZ_E_USAGE || !strstr(last, text))
    fail_msg("%s: status %d, \"%s\"", line, (int)status, last);
}

static void test_forms(void **state) {
  (void)state;
  assert_int_equal(
      parse(
          "m.onnx -o m.so -O3 -j4 --threads=2 --prefix net -g -MD --cpu x86-64-v2 -mcpu=x86-64-v3"),
      CMZ_OK);
  assert_string_equal(o.input, "m.onnx");
  assert_string_equal(o.output, "m.so");
  assert_int_equal(o.level, 3);
  assert_int_equal(o.jobs, 4);
  assert_int_equal(o.threads, 2);
  assert_string_equal(o.prefix, "net");
  assert_string_equal(o.cpu, "x86-64-v2,x86-64-v3");
  assert_true(o.debug && o.depfile);
  assert_int_equal(parse("-- -m.onnx"), CMZ_OK);
  assert_string_equal(o.input, "-m.onnx");
  assert_int_equal(o.level, 2);
  assert_int_equal(parse("-Os"), CMZ_OK);
  assert_true(o.small);
  assert_int_equal(parse("--help=all"), CMZ_OK);
  assert_int_equal(o.help, CMZ_HELP_ALL);
}

static void test_values(void **state) {
  (void)state;
  assert_int_equal(parse("--shape a:0=1x3x?x224 --dim batch=4 --dim seq=1..512:128"), CMZ_OK);
  assert_int_equal(o.pins.data[0].rank, 4);
  assert_string_equal(o.pins.data[0].name, "a:0");
  assert_int_equal(o.pins.data[0].dims[2], -1);
  assert_int_equal(o.ranges.data[0].high, 4);
  assert_int_equal(o.ranges.data[1].low, 1);
  assert_int_equal(o.ranges.data[1].high, 512);
  assert_int_equal(o.ranges.data[1].hint, 128);
  assert_int_equal(parse("--w4a16 --group-size 32 --symmetric --prune 2:4 --low-rank 95%"), CMZ_OK);
  assert_true(o.rule_set);
  assert_int_equal(o.rule.bits, 4);
  assert_int_equal(o.rule.group_size, 32);
  assert_int_equal(o.rule.symmetric, 1);
  assert_int_equal(o.rule.sparsity, CMZ_SPARSITY_2_4);
  assert_int_equal(parse("--emit=ll=a.ll,s"), CMZ_OK);
  assert_int_equal(o.emits.count, 2);
  assert_int_equal(o.emits.data[0].kind, CMZ_OUT_LLVM);
  assert_string_equal(o.emits.data[0].path, "a.ll");
}

static void test_refused(void **state) {
  (void)state;
  refused("--w8a8", "--w8a8 is not supported yet");
  refused("--frobnicate", "unknown option");
  refused("--shpae x=1", "did you mean --shape?");
  refused("-o", "needs its argument");
  refused("--shape x=1x-3", "is not a shape");
  refused("--shape x", "is not NAME=SHAPE");
  refused("--shape x=99999999999999999999", "is not a shape");
  refused("--dim n=5..2", "is empty");
  refused("--dim n=1..9:12", "hint lies outside");
  refused("--dim n=-1", "neither a size nor a range");
  refused("-j many", "is not a number");
  refused("-O7", "unknown optimisation level");
  refused("a.onnx b.onnx", "a second input");
  refused("--emit=pdf", "unknown kind \"pdf\"");
  refused("--no-header=1", "takes no argument");
  refused("--prune 4:8", "not supported yet");
  refused("--precision fp8", "unknown precision");
}

static void test_response_file(void **state) {
  (void)state;
  char path[] = "/tmp/cmz_options_XXXXXX", line[64];
  int file = mkstemp(path);
  assert_true(file >= 0);
  const char text[] = "-O1 \"two words.onnx\"\n-o 'x y.so' a\\ b=";
  assert_int_equal(write(file, text, strlen(text)), (ssize_t)strlen(text));
  close(file);
  snprintf(line, sizeof line, "@%s", path);
  refused(line, "a second input"); /* "a b=" after "two words.onnx" */
  assert_string_equal(o.input, "two words.onnx");
  assert_string_equal(o.output, "x y.so");
  assert_int_equal(o.level, 1);
  unlink(path);
  assert_int_equal(parse(line), CMZ_E_IO);
}

static void test_suffixes(void **state) {
  (void)state;
  cmz_output_kind kind;
  assert_true(cmz_output_kind_of_suffix("a/b.c/model", &kind) && kind == CMZ_OUT_EXECUTABLE);
  assert_true(cmz_output_kind_of_suffix("m.so", &kind) && kind == CMZ_OUT_SHARED);
  assert_true(cmz_output_kind_of_suffix("m.v2", &kind) && kind == CMZ_OUT_EXECUTABLE);
  assert_true(cmz_output_kind_of_suffix("m.dll", &kind));
  assert_int_equal(kind, CMZ_OUT_SHARED);
  assert_true(cmz_output_kind_of_suffix("m.lib", &kind));
  assert_int_equal(kind, CMZ_OUT_ARCHIVE);
  assert_false(cmz_output_kind_of_suffix("m.gguf", &kind));
}

static void test_help(void **state) {
  (void)state;
  assert_int_equal(parse(""), CMZ_OK);
  for (int kind = CMZ_HELP_SCREEN; kind <= CMZ_HELP_BASH; kind++) {
    cmz_text text = {.arena = o.arena};
    cmz_options_help(&text, (cmz_help_kind)kind);
    assert_true(text.length > 500);
    int lines = 0;
    for (size_t i = 0; i < text.length; i++) lines += text.data[i] == '\n';
    if (kind == CMZ_HELP_SCREEN) assert_true(lines <= 25);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forms),    cmocka_unit_test(test_values),
      cmocka_unit_test(test_refused),  cmocka_unit_test(test_response_file),
      cmocka_unit_test(test_suffixes), cmocka_unit_test(test_help)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  drop();
  return failed;
}
