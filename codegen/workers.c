/* workers.c - compiles the kernels of a plan in worker processes.
 * In: the plan, options, the cache. Out: one object per CPU level and kernel, flat: [level *
 * kernels + kernel]. Always holds: workers are forked before LLVM has started in this process and
 * share only a table of jobs; which worker compiles what does not matter to the result; a worker
 * that dies takes one kernel with it, which is reported, and no more jobs are begun. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cache.h"

enum { JOB_WAITING, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_LOST };
#define MESSAGE_BYTES 480

typedef struct job {
  _Atomic uint32_t state;
  _Atomic int32_t worker; /* process */
  uint32_t level, kernel;
  uint32_t line;
  int32_t code; /* cmz_status of a failed one */
  char message[MESSAGE_BYTES];
} job;

typedef struct job_table {
  _Atomic uint32_t next;
  uint32_t count;
  job jobs[];
} job_table;

typedef struct compilation {
  cmz_context *ctx;
  const cmz_plan *plan;
  const cmz_codegen_options *options;
  cmz_kernel_object *objects;
  char (*keys)[33]; /* by object; empty without a cache */
  job_table *table;
} compilation;

/* ---- names ---- */

static const char *symbol_of(cmz_arena *arena, const cmz_plan_kernel *k, uint32_t level,
                             const cmz_cpu_row *cpu) {
  cmz_hash128 h = cmz_kernel_hash(k->kernel, &k->schedules[level]);
  char *s = cmz_arena_printf(arena, "cmz_%s_%016" PRIx64 "_%s%s",
                             k->kernel->name ? k->kernel->name : "kernel", h.hi ^ h.lo, cpu->name,
                             cpu->soft_fma ? "_softfma" : "");
  for (char *p = s; *p; p++)
    if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9')))
      *p = '_';
  return s;
}

/* The first step that runs kernel INDEX: its node names the kernel in messages. */
static cmz_nid node_of(const cmz_plan *plan, uint32_t index) {
  for (uint32_t b = 0; b < plan->blocks.count; b++)
    for (uint32_t s = 0; s < plan->blocks.data[b].steps.count; s++) {
      const cmz_step *step = &plan->blocks.data[b].steps.data[s];
      if (step->kind == CMZ_STEP_KERNEL && step->index == index) return step->node;
    }
  return 0;
}

static cmz_loc loc_of(const compilation *c, uint32_t kernel) {
  cmz_nid n = node_of(c->plan, kernel);
  return n ? cmz_node_loc(c->plan->module, n) : (cmz_loc){.file = c->plan->module->file};
}

/* The line of the listing on which the kernel's node stands. */
static uint32_t line_of(const compilation *c, uint32_t kernel) {
  const cmz_text *listing = c->options->debug_lines ? c->options->listing_text : NULL;
  cmz_nid n = node_of(c->plan, kernel);
  if (!listing || !listing->length || !n) return 1;
  const char *name = cmz_node_get(c->plan->module, n)->name;
  char *quoted = cmz_arena_printf(c->ctx->arena, "\"%s\"", name);
  const char *at = memmem(listing->data, listing->length, quoted, strlen(quoted));
  uint32_t line = 1;
  for (const char *p = listing->data; at && p < at; p++) line += *p == '\n';
  return line;
}

/* ---- in the worker ---- */

static void keep_first_error(void *user, const cmz_diagnostic *d) {
  job *j = user;
  if (d->severity == CMZ_ERROR && !j->message[0])
    snprintf(j->message, sizeof j->message, "%s", d->message);
}

static cmz_status compile_job(const compilation *c, job *j, cmz_context *ctx) {
  const cmz_plan_kernel *k = &c->plan->kernels.data[j->kernel];
  const cmz_codegen_options *o = c->options;
  const cmz_cpu_row *cpu = o->target->levels[j->level];
  const cmz_kernel_object *object = &c->objects[j->level * c->plan->kernels.count + j->kernel];
  const char *file = o->debug_lines ? (o->listing ? o->listing : c->plan->module->file) : NULL;
  CMZ_TRY(cmz_kernel_emit(ctx, k->kernel, &k->schedules[j->level], cpu, o->target->kernel_os,
                          object->symbol, o->optimise, file, j->line,
                          o->target->gpu ? CMZ_OUT_ASSEMBLY : CMZ_OUT_OBJECT, object->path));
  if (c->keys)
    cmz_cache_store(ctx, o->cache_dir, c->keys[j->level * c->plan->kernels.count + j->kernel],
                    object->path);
  return CMZ_OK;
}

static void run_job(const compilation *c, job *j) {
  cmz_context_options options = {.sink = keep_first_error, .user = j};
  cmz_context *ctx = cmz_context_create(&options);
  jmp_buf memory;
  cmz_status status = CMZ_E_MEMORY;
  if (ctx && setjmp(memory) == 0) {
    ctx->out_of_memory = &memory;
    status = compile_job(c, j, ctx);
  }
  j->code = status;
  if (status != CMZ_OK && !j->message[0])
    snprintf(j->message, sizeof j->message, "status %d", (int)status);
  if (ctx) cmz_context_destroy(ctx);
  atomic_store(&j->state, status == CMZ_OK ? JOB_DONE : JOB_FAILED);
}

static void run_worker(const compilation *c) {
  for (;;) {
    uint32_t i = atomic_fetch_add(&c->table->next, 1);
    if (i >= c->table->count) _exit(0);
    job *j = &c->table->jobs[i];
    atomic_store(&j->worker, (int32_t)getpid());
    atomic_store(&j->state, JOB_RUNNING);
    run_job(c, j);
  }
}

/* ---- in the compiler ---- */

static const char *log_path(const compilation *c, pid_t pid) {
  return cmz_arena_printf(c->ctx->arena, "%s/worker_%ld.log", c->options->work_dir, (long)pid);
}

/* A worker ends with the compiler, has no signal handlers of the program around the library, and
 * what LLVM prints before it gives up goes to a file. */
static pid_t start_worker(const compilation *c) {
  pid_t parent = getpid(), pid = fork();
  if (pid != 0) return pid;
  static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
  for (size_t i = 0; i < CMZ_COUNT_OF(signals); i++) signal(signals[i], SIG_DFL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  int log = open(log_path(c, getpid()), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (log >= 0) dup2(log, 2);
  run_worker(c);
  return 0;
}

/* The first line that a worker printed, or "". */
static const char *last_words(const compilation *c, pid_t pid) {
  char *line = cmz_arena_alloc(c->ctx->arena, MESSAGE_BYTES / 2);
  int log = open(log_path(c, pid), O_RDONLY | O_CLOEXEC);
  ssize_t length = log >= 0 ? read(log, line, MESSAGE_BYTES / 2 - 1) : 0;
  if (log >= 0) close(log);
  if (length <= 0) return "";
  line[strcspn(line, "\n")] = 0;
  return cmz_arena_printf(c->ctx->arena, ": %s", line);
}

/* A worker that was killed, or that LLVM ended for want of memory, is no defect of ours. */
static cmz_status cause_of_death(int how, const char *words) {
  if (strstr(words, "out of memory") || strstr(words, "bad_alloc")) return CMZ_E_MEMORY;
  return WIFSIGNALED(how) &&
                 (WTERMSIG(how) == SIGKILL || WTERMSIG(how) == SIGTERM || WTERMSIG(how) == SIGXCPU)
             ? CMZ_E_IO
             : CMZ_E_INTERNAL;
}

/* What a dead worker was at is lost, and with it the compilation: the others only finish theirs. */
static void bury(const compilation *c, pid_t pid, int how) {
  const char *words = last_words(c, pid);
  for (uint32_t i = 0; i < c->table->count; i++) {
    job *j = &c->table->jobs[i];
    if (atomic_load(&j->state) != JOB_RUNNING || atomic_load(&j->worker) != pid) continue;
    j->code = cause_of_death(how, words);
    if (WIFSIGNALED(how))
      snprintf(j->message, sizeof j->message, "its worker process was ended by signal %d (%s)%s",
               WTERMSIG(how), strsignal(WTERMSIG(how)), words);
    else
      snprintf(j->message, sizeof j->message, "its worker process ended with status %d%s",
               WEXITSTATUS(how), words);
    atomic_store(&j->state, JOB_LOST);
    atomic_store(&c->table->next, c->table->count);
  }
}

/* Workers that have ended are buried. Returns how many live. */
static uint32_t tend_workers(const compilation *c, pid_t *pids, uint32_t workers) {
  uint32_t alive = 0;
  for (uint32_t i = 0; i < workers; i++) {
    int how;
    if (pids[i] > 0 && waitpid(pids[i], &how, WNOHANG) == pids[i]) {
      if (!WIFEXITED(how) || WEXITSTATUS(how)) bury(c, pids[i], how);
      pids[i] = 0;
    }
    alive += pids[i] > 0;
  }
  return alive;
}

static cmz_status run_workers(const compilation *c, uint32_t workers) {
  const struct timespec pause = {.tv_nsec = 1000000};
  pid_t *pids = CMZ_NEW_ARRAY(c->ctx->arena, pid_t, workers);
  uint32_t total = c->plan->kernels.count * c->options->target->level_count, before = 0;
  for (uint32_t i = 0; i < workers; i++) pids[i] = start_worker(c);
  int error = errno;
  bool any = false;
  while (tend_workers(c, pids, workers) > 0) {
    any = true;
    uint32_t done = total - c->table->count;
    for (uint32_t i = 0; i < c->table->count; i++)
      done += atomic_load(&c->table->jobs[i].state) >= JOB_DONE;
    if (done != before && c->options->progress)
      c->options->progress(c->options->progress_user, done, total);
    before = done;
    nanosleep(&pause, NULL);
  }
  if (!any && atomic_load(&c->table->next) == 0)
    return cmz_fail(c->ctx, CMZ_E_IO, (cmz_loc){0}, "no worker process: %s", strerror(error));
  return CMZ_OK;
}

/* Description and schedule of a kernel that could not be compiled, in the work directory: the
 * driver puts them into its reproducer. */
static void write_reproducer(const compilation *c, const job *j) {
  const cmz_plan_kernel *k = &c->plan->kernels.data[j->kernel];
  cmz_text text = {.arena = c->ctx->arena};
  cmz_text_add(&text, "# %s\n", c->options->target->levels[j->level]->name);
  cmz_kernel_print(k->kernel, &text);
  cmz_schedule_print(&k->schedules[j->level], &text);
  cmz_text_add(&text, "\n");
  const char *path =
      cmz_arena_printf(c->ctx->arena, "%s/failed_kernel_%u.txt", c->options->work_dir, j->kernel);
  cmz_file_write(c->ctx, path, text.data, text.length);
}

static cmz_status report_failures(const compilation *c) {
  cmz_status status = CMZ_OK;
  bool lost = false; /* then waiting jobs are not worth a word */
  for (uint32_t i = 0; i < c->table->count; i++)
    lost |= atomic_load(&c->table->jobs[i].state) == JOB_LOST;
  for (uint32_t i = 0; i < c->table->count; i++) {
    job *j = &c->table->jobs[i];
    uint32_t state = atomic_load(&j->state);
    if (state == JOB_DONE || (state == JOB_WAITING && lost)) continue;
    cmz_status code = state == JOB_WAITING ? CMZ_E_INTERNAL : (cmz_status)j->code;
    if (code == CMZ_E_IO || code == CMZ_E_MEMORY) /* the others would say the same */
      return cmz_fail(c->ctx, code, (cmz_loc){.file = c->plan->module->file},
                      "compiling a kernel: %s", j->message);
    const cmz_kernel *k = c->plan->kernels.data[j->kernel].kernel;
    write_reproducer(c, j);
    status = cmz_fail(c->ctx, code, loc_of(c, j->kernel), "kernel %s for %s was not compiled: %s",
                      k->name ? k->name : "?", c->options->target->levels[j->level]->name,
                      j->message[0] ? j->message : "no worker took it");
  }
  return status;
}

static uint32_t worker_count(const cmz_codegen_options *o, uint32_t jobs) {
  long n = o->jobs ? (long)o->jobs : sysconf(_SC_NPROCESSORS_ONLN);
  if (n < 1) n = 1;
  return (uint32_t)CMZ_MIN(n, (long)jobs);
}

static bool has_small_operands(const cmz_kernel *k) {
  for (uint32_t i = 0; i < k->operands.count; i++)
    if (cmz_dtype_info(k->operands.data[i].dtype)->bits < 32) return true;
  return false;
}

static bool has_quads(const cmz_kernel *k) {
  cmz_quad quad;
  for (uint32_t i = 1; i < k->exprs.count; i++)
    if (cmz_x_quad(k, i, &quad)) return true;
  return false;
}

/* Whether K's code for level A is that for level B: Vulkan's levels differ in what few kernels use.
 */
static bool same_code(const cmz_plan_kernel *k, const cmz_target *t, uint32_t a, uint32_t b) {
  const cmz_cpu_row *x = t->levels[a], *y = t->levels[b];
  if (!x->spirv || !y->spirv || (x->small != y->small && has_small_operands(k->kernel)) ||
      (x->int8_dot != y->int8_dot && has_quads(k->kernel)))
    return false;
  cmz_hash128 of_a = cmz_kernel_hash(k->kernel, &k->schedules[a]),
              of_b = cmz_kernel_hash(k->kernel, &k->schedules[b]);
  return of_a.hi == of_b.hi && of_a.lo == of_b.lo;
}

/* The object of KERNEL for an earlier level that serves LEVEL too; NULL: none. */
static const cmz_kernel_object *earlier(const compilation *c, uint32_t level, uint32_t kernel) {
  const cmz_plan_kernel *k = &c->plan->kernels.data[kernel];
  for (uint32_t l = 0; l < level; l++)
    if (same_code(k, c->options->target, l, level))
      return &c->objects[l * c->plan->kernels.count + kernel];
  return NULL;
}

/* Names every object, takes what the cache has, and lists the rest as jobs. */
static cmz_status prepare(compilation *c) {
  const cmz_codegen_options *o = c->options;
  uint32_t kernels = c->plan->kernels.count, total = kernels * o->target->level_count;
  size_t bytes = sizeof(job_table) + (size_t)total * sizeof(job);
  c->table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (c->table == MAP_FAILED)
    return cmz_fail(c->ctx, CMZ_E_MEMORY, (cmz_loc){0}, "no memory for %u kernels", total);
  c->objects = CMZ_NEW_ARRAY(c->ctx->arena, cmz_kernel_object, total + 1);
  bool cached = o->cache_dir && !o->debug_lines;
  if (cached) c->keys = cmz_arena_array(c->ctx->arena, total + 1, sizeof *c->keys);
  for (uint32_t i = 0; i < total; i++) {
    uint32_t level = i / kernels, kernel = i % kernels;
    const cmz_plan_kernel *k = &c->plan->kernels.data[kernel];
    cmz_kernel_object *object = &c->objects[i];
    const cmz_kernel_object *same = earlier(c, level, kernel);
    if (same) {
      *object = *same;
      continue;
    }
    object->symbol = symbol_of(c->ctx->arena, k, level, o->target->levels[level]);
    object->path = cmz_arena_printf(c->ctx->arena, "%s/kernel_%u_%u.o", o->work_dir, level, kernel);
    if (cached) {
      cmz_cache_key(k->kernel, &k->schedules[level], o->target->levels[level], o, object->symbol,
                    c->keys[i]);
      object->from_cache = cmz_cache_fetch(c->ctx, o->cache_dir, c->keys[i], object->path);
    }
    if (object->from_cache) continue;
    job *j = &c->table->jobs[c->table->count++];
    j->level = level;
    j->kernel = kernel;
    j->line = line_of(c, kernel);
  }
  return CMZ_OK;
}

cmz_status cmz_kernels_compile(cmz_context *ctx, const cmz_plan *plan, const cmz_codegen_options *o,
                               cmz_kernel_object **objects) {
  compilation c = {.ctx = ctx, .plan = plan, .options = o};
  *objects = NULL;
  cmz_status status = prepare(&c);
  if (status == CMZ_OK && c.table->count > 0) {
    status = run_workers(&c, worker_count(o, c.table->count));
    if (status == CMZ_OK) status = report_failures(&c);
  }
  if (status == CMZ_OK) *objects = c.objects;
  if (c.table != MAP_FAILED)
    munmap(c.table,
           sizeof(job_table) + (size_t)plan->kernels.count * o->target->level_count * sizeof(job));
  return status;
}
