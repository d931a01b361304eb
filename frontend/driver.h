/* driver.h - one compilation from words to files, and what its files share. */
#ifndef CMZ_FRONTEND_DRIVER_H
#define CMZ_FRONTEND_DRIVER_H

#include "cmzc.h"
#include "importers.h"
#include "options.h"

/* A file that waits in the work folder until all of them are there. */
typedef struct cmz_pending {
  const char *temporary, *path;
} cmz_pending;

typedef struct cmz_job {
  cmz_context *ctx;
  cmz_arena *arena;
  const cmzc_callbacks *callbacks;
  int word_count;
  const char *const *words;
  cmz_options options;
  cmz_target target;
  cmz_module *module;
  cmz_plan *plan;
  cmz_compression *compression;
  const char *work_dir; /* NULL while there is none */
  CMZ_VEC(cmz_pending) pending;
} cmz_job;

/* The whole of cmzc. driver.c */
cmz_status cmz_job_run(cmz_job *job);
/* --help, --version, --list-…: true when one was asked for. inform.c */
bool cmz_job_inform(cmz_job *job);
/* To the text callback */
void cmz_job_say(cmz_job *job, const char *format, ...) CMZ_PRINTF(2, 3);
/* With -v only: a note */
void cmz_job_note(cmz_job *job, const char *format, ...) CMZ_PRINTF(2, 3);
/* To the message callback, in the form asked for */
void cmz_job_message(cmz_job *job, const cmz_diagnostic *diagnostic);

/* ---- files (deliver.c) ---- */
/* Makes the work folder beside OUTPUT, so that results are renamed within one file system. */
cmz_status cmz_job_open(cmz_job *job, const char *output);
/* Where to write the file that is to become PATH. */
const char *cmz_job_stage(cmz_job *job, const char *path);
/* Everything staged, and what codegen put beside it, goes to its place. */
cmz_status cmz_job_deliver(cmz_job *job);
/* Removes the work folder (or keeps it, with --save-temps). Never fails. */
void cmz_job_close(cmz_job *job);
cmz_status cmz_job_write_depfile(cmz_job *job, const char *output);
/* After an internal error: a file that lets it be found, named in a note. */
void cmz_job_write_reproducer(cmz_job *job);

#endif
