/* passes.h - the pass table. A pass is `status pass(run, module)`; cmz_passes lists them all in the
 * order in which they run. What one pass needs to know from the options is in cmz_pass_run. */
#ifndef CMZ_PASSES_PASSES_H
#define CMZ_PASSES_PASSES_H

#include "../ir/module.h"
#include "../ir/plan.h"
#include "../targets/target.h"

/* Multiply-accumulates of a whole kernel that is over in about a microsecond: small code is worth
 * more there than speed. */
#define CMZ_TINY_MULTIPLIES 32768

/* --shape; dims -1: leave */
typedef struct cmz_pin {
  const char *name;
  uint32_t rank;
  const int64_t *dims;
} cmz_pin;
/* --dim */
typedef struct cmz_pin_range {
  const char *name;
  int64_t low, high, hint;
} cmz_pin_range;

typedef struct cmz_compression cmz_compression; /* passes/compress/compress.h */

typedef struct cmz_pass_run {
  int optimise; /* 0..3; -Os is 2 with small set */
  bool small;
  /* Passes may put another in its place, whose rows say more of how code is to be */
  const cmz_target *target;
  const cmz_pin *pins;
  uint32_t pin_count;
  const cmz_pin_range *ranges;
  uint32_t range_count;
  cmz_dtype precision; /* --precision: CMZ_F16 or CMZ_BF16; anything else leaves f32 */
  /* --precision tf32: matrix units may round factors in f32 to 10 bits of mantissa */
  bool tf32;
  cmz_compression *compression; /* NULL: none */
  const char *stop_after;       /* name of a pass, or NULL */
  const char *print_after;      /* name, "all" or NULL; text goes to `print` */
  void (*print)(void *user, const char *pass, const char *text);
  void *print_user;
  bool check_passes; /* evaluate before and after each pass on random inputs */
  bool verify;       /* run the verifier after each pass (always in tests) */
  /* --time-passes; may be NULL */
  void (*timing)(void *user, const char *pass, double seconds);
  void *timing_user;
  /* results of the last passes */
  bool *fused;    /* by vid: expressed inside its consumer, never stored (fuse) */
  cmz_plan *plan; /* plan */
} cmz_pass_run;

typedef struct cmz_pass {
  const char *name;
  int level; /* least -O at which it runs */
  cmz_status (*function)(cmz_pass_run *run, cmz_module *m);
  const char *help; /* one line for --list-passes */
} cmz_pass;

extern const cmz_pass cmz_passes[]; /* ends with name NULL */

/* Runs all passes of the table in order; on success run->plan is set unless stop_after came first.
 */
cmz_status cmz_passes_run(cmz_pass_run *run, cmz_module *m);

cmz_status cmz_pass_pin(cmz_pass_run *run, cmz_module *m); /* --shape, --dim */
/* Older opsets' forms to the newest */
cmz_status cmz_pass_normalize(cmz_pass_run *run, cmz_module *m);
cmz_status cmz_pass_infer(cmz_pass_run *run, cmz_module *m);
/* Constants; If with a constant condition */
cmz_status cmz_pass_fold(cmz_pass_run *run, cmz_module *m);
/* Quantised contractions as integer sums */
cmz_status cmz_pass_integers(cmz_pass_run *run, cmz_module *m);
/* Rewrite rules to a fixpoint */
cmz_status cmz_pass_canonicalise(cmz_pass_run *run, cmz_module *m);
cmz_status cmz_pass_compress(cmz_pass_run *run, cmz_module *m);
/* Composite ops into simpler ones */
cmz_status cmz_pass_expand(cmz_pass_run *run, cmz_module *m);
/* Fold and rewrite what expansion made */
cmz_status cmz_pass_simplify(cmz_pass_run *run, cmz_module *m);
cmz_status cmz_pass_merge(cmz_pass_run *run, cmz_module *m); /* CSE */
cmz_status cmz_pass_clean(cmz_pass_run *run, cmz_module *m); /* dead code */
/* Blocked channels, packed weights */
cmz_status cmz_pass_layout(cmz_pass_run *run, cmz_module *m);
/* Decides which values are never stored */
cmz_status cmz_pass_fuse(cmz_pass_run *run, cmz_module *m);
/* F16 or bf16 for stored values */
cmz_status cmz_pass_precision(cmz_pass_run *run, cmz_module *m);
/* Bf16 weights by twos of the sum */
cmz_status cmz_pass_pairs(cmz_pass_run *run, cmz_module *m);
/* Run->target: levels whose roundings are to agree */
cmz_status cmz_pass_rounding(cmz_pass_run *run, cmz_module *m);
/* Describes kernels, schedules them, plans steps and memory */
cmz_status cmz_pass_plan(cmz_pass_run *run, cmz_module *m);

/* The schedule of a described kernel for a CPU row (schedule.c): a pure function of its arguments.
 */
/* A kernel that is attention, by work-groups: a tile of queries each, all keys in steps. False: it
 * is not, or no tile fits; S is as before. */
bool cmz_schedule_attention(const cmz_kernel *k, const cmz_cpu_row *gpu, cmz_schedule *s);
cmz_status cmz_schedule_choose(cmz_context *ctx, cmz_arena *arena, cmz_kernel *k,
                               const cmz_cpu_row *cpu, int optimise, cmz_schedule *out);
/* Before choosing one for a GPU: axes that both factors of a contraction use, one of them by group
 * (grouped convolutions), become two: the group and what is in it. */
void cmz_schedule_split_groups(cmz_kernel *k);
/* The same for a level with threads: every tile is one thread's, neighbouring tiles lie side by
 * side in memory; or a work-group's, for contractions. TF32: factors in f32 may be multiplied as
 * tf32; HALVES: what quantised weights are multiplied by may be rounded to f16. */
cmz_status cmz_schedule_choose_device(cmz_context *ctx, cmz_arena *arena, cmz_kernel *k,
                                      const cmz_cpu_row *gpu, bool tf32, bool halves,
                                      cmz_schedule *out);

#endif
