/* pass.c - the pass table and its runner: verification, printing, timing and checking between
 * passes. In: a module from an importer. Out: a plan (or the module as far as --stop-after says).
 */
#include <time.h>

#include "check.h"
#include "support.h"

const cmz_pass cmz_passes[] = {
    {"pin", 0, cmz_pass_pin, "apply --shape and --dim to the inputs"},
    {"normalize", 0, cmz_pass_normalize, "bring older opsets' operators to the newest form"},
    {"infer", 0, cmz_pass_infer, "types, shapes and symbolic contents of all values"},
    {"integers", 1, cmz_pass_integers,
     "quantised convolutions and matrix products as exact integer sums"},
    {"fold", 0, cmz_pass_fold, "evaluate what is constant; inline decided Ifs"},
    {"canonicalise", 1, cmz_pass_canonicalise, "rewrite rules to a fixpoint"},
    {"expand", 0, cmz_pass_expand, "composite operators into simpler ones"},
    {"simplify", 1, cmz_pass_simplify, "fold and rewrite what expansion made"},
    {"compress", 0, cmz_pass_compress, "quantise, prune and factor weights as asked"},
    {"merge", 1, cmz_pass_merge, "equal computations once"},
    {"clean", 0, cmz_pass_clean, "remove what no output needs"},
    {"layout", 1, cmz_pass_layout, "blocked channels, packed weights"},
    {"fuse", 0, cmz_pass_fuse, "decide which values are never stored"},
    {"precision", 0, cmz_pass_precision,
     "16 bits for what is stored, with --precision f16 or bf16"},
    {"pairs", 1, cmz_pass_pairs, "bf16 weights by twos where the CPU adds two products at once"},
    {"rounding", 1, cmz_pass_rounding, "levels without fused multiply-add round as the others do"},
    {"plan", 0, cmz_pass_plan, "kernels, schedules, steps and memory"},
    {NULL, 0, NULL, NULL},
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool wanted(const char *list, const char *name) {
  return list != NULL && (strcmp(list, name) == 0 || strcmp(list, "all") == 0);
}

static void print_after(cmz_pass_run *run, cmz_module *m, const char *pass) {
  if (run->print == NULL || !wanted(run->print_after, pass)) return;
  cmz_arena *arena = cmz_arena_create(m->ctx);
  cmz_text text = {.arena = arena};
  if (run->plan != NULL) cmz_plan_print(run->plan, &text);
  else cmz_module_print(m, &text, NULL);
  run->print(run->print_user, pass, text.data != NULL ? text.data : "");
  cmz_arena_destroy(arena);
}

static cmz_status check_names(cmz_pass_run *run, cmz_module *m) {
  const char *const names[2] = {run->stop_after, run->print_after};
  for (int i = 0; i < 2; i++) {
    if (names[i] == NULL || (i == 1 && strcmp(names[i], "all") == 0)) continue;
    const cmz_pass *p = cmz_passes;
    while (p->name != NULL && strcmp(p->name, names[i]) != 0) p++;
    if (p->name == NULL)
      return cmz_fail_hint(m->ctx, CMZ_E_USAGE, (cmz_loc){0}, "--list-passes names them all",
                           "there is no pass \"%s\"", names[i]);
  }
  return CMZ_OK;
}

cmz_status cmz_passes_run(cmz_pass_run *run, cmz_module *m) {
  CMZ_TRY(check_names(run, m));
  cmz_pass_check check = {0};
  for (const cmz_pass *p = cmz_passes; p->name != NULL; p++) {
    if (run->optimise >= p->level) {
      double start = now();
      CMZ_TRY(p->function(run, m));
      if (run->timing != NULL) run->timing(run->timing_user, p->name, now() - start);
      if (run->verify || run->check_passes) CMZ_TRY(cmz_module_verify(m));
      if (run->check_passes) CMZ_TRY(cmz_pass_check_after(&check, run, m, p->name));
    }
    print_after(run, m, p->name);
    if (run->stop_after != NULL && strcmp(run->stop_after, p->name) == 0) break;
  }
  return CMZ_OK;
}
