/* test_golden.c - golden modules: text in, a pass, text out.
 * In: tests/golden/NAME.cmz, whose first line is "# pass: NAME[,NAME…]", then a module, a line
 * "#---", and the module that is expected. CMZ_GOLDEN_UPDATE=1 writes what came out in place of
 * what is expected. */
#include "../../ir/module.h"
#include "../../passes/passes.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MARK "#---\n"

static cmz_status run_passes(cmz_context *ctx, cmz_module *m, const char *list) {
  cmz_target target;
  CMZ_TRY(cmz_target_parse(ctx, NULL, "x86-64-v3", NULL, &target));
  cmz_pass_run run = {.optimise = 2, .target = &target, .verify = true};
  while (*list != '\0' && *list != '\n') {
    size_t length = strcspn(list, ",\n");
    const cmz_pass *p = cmz_passes;
    while (p->name != NULL && (strncmp(p->name, list, length) != 0 || p->name[length] != '\0')) p++;
    assert_non_null(p->name);
    CMZ_TRY(p->function(&run, m));
    CMZ_TRY(cmz_module_verify(m));
    list += length + (list[length] == ',');
  }
  return CMZ_OK;
}

static void update(const char *path, const char *input, size_t size, const cmz_text *got) {
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fwrite(input, 1, size, f);
  fprintf(f, "%s%s", MARK, got->data);
  fclose(f);
}

static void check_file(const char *path) {
  cmz_context *ctx = cmz_context_create(NULL);
  jmp_buf out_of_memory;
  ctx->out_of_memory = &out_of_memory;
  assert_int_equal(setjmp(out_of_memory), 0);
  const cmz_file *file;
  assert_int_equal(cmz_file_map(ctx, path, &file), CMZ_OK);
  const char *text =
      cmz_arena_printf(ctx->arena, "%.*s", (int)file->size, (const char *)file->data);
  const char *mark = strstr(text, MARK), *header = "# pass: ";
  assert_int_equal(strncmp(text, header, strlen(header)), 0);
  size_t size = mark != NULL ? (size_t)(mark - text) : strlen(text);
  cmz_module *m;
  cmz_status status = cmz_module_parse(ctx, path, text, size, NULL, &m);
  if (status == CMZ_OK) status = run_passes(ctx, m, text + strlen(header));
  if (status != CMZ_OK && ctx->diagnostics.count > 0)
    fail_msg("%s: %s", path, ctx->diagnostics.data[0].message);
  cmz_text got = {.arena = ctx->arena};
  cmz_module_print(m, &got, NULL);
  if (getenv("CMZ_GOLDEN_UPDATE") != NULL) update(path, text, size, &got);
  else if (mark == NULL || strcmp(mark + strlen(MARK), got.data) != 0)
    fail_msg("%s: got\n%s", path, got.data);
  cmz_context_destroy(ctx);
}

static void test_all(void **state) {
  (void)state;
  DIR *dir = opendir(CMZ_TESTS_DIR "/golden");
  assert_non_null(dir);
  uint32_t count = 0;
  for (struct dirent *e; (e = readdir(dir)) != NULL;) {
    char path[4096];
    size_t length = strlen(e->d_name);
    if (length < 4 || strcmp(e->d_name + length - 4, ".cmz") != 0) continue;
    snprintf(path, sizeof path, "%s/golden/%s", CMZ_TESTS_DIR, e->d_name);
    check_file(path);
    count++;
  }
  closedir(dir);
  assert_true(count > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
