/* cmzc_api.c - the library's entry point: one context, one compilation, running out of memory
 * caught. In: words and callbacks. Out: an exit status. Always holds: everything the compilation
 * took is given back. */
#include "driver.h"

static void sink(void *user, const cmz_diagnostic *diagnostic) {
  cmz_job_message(user, diagnostic);
}

/* Exit statuses of the user-facing interface, by cmz_status. */
static int exit_status(cmz_status status) {
  switch (status) {
  case CMZ_OK:
    return 0;
  case CMZ_E_USAGE:
    return 2;
  case CMZ_E_BUDGET:
    return 3;
  case CMZ_E_INTERNAL:
    return 4;
  default:
    return 1;
  }
}

static int out_of_memory(const cmzc_callbacks *callbacks) {
  cmzc_message message = {
      .severity = 2, .text = "cmzc: error: out of memory", .message = "out of memory"};
  if (callbacks->message) callbacks->message(callbacks->user, &message);
  return 1;
}

int cmzc_compile(int argument_count, const char *const *arguments,
                 const cmzc_callbacks *callbacks) {
  static const cmzc_callbacks silent = {0};
  cmz_job job = {.callbacks = callbacks ? callbacks : &silent,
                 .word_count = argument_count,
                 .words = arguments};
  cmz_job *volatile kept = &job;
  cmz_context_options options = {.sink = sink, .user = &job};
  job.ctx = cmz_context_create(&options);
  if (!job.ctx) return out_of_memory(job.callbacks);
  jmp_buf unwind;
  if (setjmp(unwind)) {
    int status = out_of_memory(kept->callbacks);
    cmz_job_close((cmz_job *)kept);
    cmz_context_destroy(kept->ctx);
    return status;
  }
  job.ctx->out_of_memory = &unwind;
  job.arena = cmz_arena_create(job.ctx);
  job.options.ctx = job.ctx;
  job.options.arena = job.arena;
  cmz_status status = cmz_job_run(&job);
  if (status == CMZ_E_INTERNAL) cmz_job_write_reproducer(&job);
  cmz_job_close(&job);
  cmz_context_destroy(job.ctx);
  return exit_status(status);
}
