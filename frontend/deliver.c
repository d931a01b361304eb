/* deliver.c - files come out whole or not at all: everything is made in a work folder beside OUTPUT
 * and renamed at the end. In: paths. Out: files. Always holds: a failed or interrupted compile
 * leaves what was there before. */
#define _GNU_SOURCE /* nftw */
#include "driver.h"
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *folder_of(cmz_job *job, const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? cmz_arena_printf(job->arena, "%.*s", (int)(slash - path + 1), path) : "";
}

static const char *name_of(const char *path) {
  return strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
}

static bool is_special(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

cmz_status cmz_job_open(cmz_job *job, const char *output) {
  cmz_loc loc = {.file = output};
  struct stat info;
  if (stat(output, &info) == 0 && S_ISDIR(info.st_mode))
    return cmz_fail(job->ctx, CMZ_E_IO, loc, "is a folder");
  char *name;
  if (is_special(output)) { /* /dev/null: no room beside it */
    const char *temporary = getenv("TMPDIR");
    name = cmz_arena_printf(job->arena, "%s/cmzc-XXXXXX",
                            temporary && *temporary ? temporary : "/tmp");
  } else {
    name = cmz_arena_printf(job->arena, "%s.cmzc-XXXXXX", output);
  }
  if (!mkdtemp(name))
    return cmz_fail(job->ctx, CMZ_E_IO, loc, "cannot write in its folder: %s", strerror(errno));
  job->work_dir = name;
  if (job->callbacks->temporary) job->callbacks->temporary(job->callbacks->user, name, 1);
  if (mkdir(cmz_arena_printf(job->arena, "%s/out", name), 0777) != 0)
    return cmz_fail(job->ctx, CMZ_E_IO, loc, "cannot write in its folder: %s", strerror(errno));
  return CMZ_OK;
}

const char *cmz_job_stage(cmz_job *job, const char *path) {
  for (uint32_t i = 0; i < job->pending.count; i++) { /* asked for twice: --emit and by default */
    if (strcmp(job->pending.data[i].path, path) == 0) return job->pending.data[i].temporary;
  }
  const char *temporary = cmz_arena_printf(job->arena, "%s/out/%s", job->work_dir, name_of(path));
  cmz_vec_push(job->arena, &job->pending, ((cmz_pending){temporary, path}));
  return temporary;
}

/* Copies into a device or pipe, which cannot be replaced. */
static cmz_status copy_into(cmz_job *job, const char *from, const char *to) {
  const cmz_file *file;
  CMZ_TRY(cmz_file_map(job->ctx, from, &file));
  return cmz_file_write(job->ctx, to, file->data, file->size);
}

static cmz_status deliver_one(cmz_job *job, const char *temporary, const char *path) {
  if (is_special(path)) return copy_into(job, temporary, path);
  if (rename(temporary, path) == 0) return CMZ_OK;
  if (errno == EXDEV) return copy_into(job, temporary, path);
  return cmz_fail(job->ctx, CMZ_E_IO, (cmz_loc){.file = path}, "cannot write: %s", strerror(errno));
}

static bool is_staged(const cmz_job *job, const char *name) {
  for (uint32_t i = 0; i < job->pending.count; i++)
    if (!strcmp(name_of(job->pending.data[i].temporary), name)) return true;
  return false;
}

cmz_status cmz_job_deliver(cmz_job *job) {
  const char *out = cmz_arena_printf(job->arena, "%s/out", job->work_dir);
  DIR *folder = opendir(out);
  /* Files beside the staged ones (external weights) go beside OUTPUT, before what refers to them.
   */
  if (folder) {
    for (struct dirent *entry; (entry = readdir(folder));) {
      if (entry->d_name[0] == '.' || is_staged(job, entry->d_name)) continue;
      const char *beside = cmz_arena_printf(
          job->arena, "%s%s", folder_of(job, job->pending.data[0].path), entry->d_name);
      cmz_vec_push(
          job->arena, &job->pending,
          ((cmz_pending){cmz_arena_printf(job->arena, "%s/%s", out, entry->d_name), beside}));
    }
    closedir(folder);
  }
  for (uint32_t i = job->pending.count; i-- > 0;)
    CMZ_TRY(deliver_one(job, job->pending.data[i].temporary, job->pending.data[i].path));
  return CMZ_OK;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk) {
  (void)info, (void)kind, (void)walk;
  remove(path);
  return 0;
}

void cmz_job_close(cmz_job *job) {
  if (!job->work_dir) return;
  if (job->options.save_temps && job->options.output) {
    char kept[4096];
    int length = snprintf(kept, sizeof kept, "%s.temps", job->options.output);
    if (length > 0 && (size_t)length < sizeof kept) {
      nftw(kept, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
      if (rename(job->work_dir, kept) != 0)
        nftw(job->work_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
  } else {
    nftw(job->work_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  }
  if (job->callbacks->temporary) job->callbacks->temporary(job->callbacks->user, job->work_dir, 0);
  job->work_dir = NULL;
}

/* ---- depfile ---- */

static void add_make_name(cmz_text *text, const char *name) {
  for (const char *c = name; *c; c++) {
    if (*c == ' ' || *c == '#' || *c == '\\') cmz_text_add(text, "\\");
    if (*c == '$') cmz_text_add(text, "$");
    cmz_text_add_bytes(text, c, 1);
  }
}

cmz_status cmz_job_write_depfile(cmz_job *job, const char *output) {
  const cmz_options *o = &job->options;
  if (!o->depfile && !o->depfile_path) return CMZ_OK;
  cmz_text text = {.arena = job->arena};
  add_make_name(&text, output);
  cmz_text_add(&text, ":");
  const char *last = "";
  for (const cmz_file *f = job->ctx->files; f; f = f->next) {
    if (!strncmp(f->path, job->work_dir, strlen(job->work_dir)) || !strcmp(f->path, last)) continue;
    if (o->cache_dir && !strncmp(f->path, o->cache_dir, strlen(o->cache_dir))) continue;
    last = f->path;
    cmz_text_add(&text, " \\\n  ");
    add_make_name(&text, f->path);
  }
  cmz_text_add(&text, "\n");
  const char *path =
      o->depfile_path ? o->depfile_path : cmz_arena_printf(job->arena, "%s.d", output);
  return cmz_file_write(job->ctx, path, text.data, text.length);
}

/* ---- reproducer ---- */

/* Descriptions of kernels that were not compiled, which the code generator left in the work folder.
 */
static void add_failed_kernels(cmz_job *job, cmz_text *text) {
  DIR *folder = job->work_dir ? opendir(job->work_dir) : NULL;
  if (!folder) return;
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (strncmp(entry->d_name, "failed_kernel_", 14) != 0) continue;
    const cmz_file *file;
    const char *path = cmz_arena_printf(job->arena, "%s/%s", job->work_dir, entry->d_name);
    if (cmz_file_map(job->ctx, path, &file) != CMZ_OK) break;
    cmz_text_add(text, "\n%s\n", entry->d_name);
    cmz_text_add_bytes(text, file->data, file->size);
  }
  closedir(folder);
}

void cmz_job_write_reproducer(cmz_job *job) {
  cmz_text text = {.arena = job->arena};
  cmz_text_add(&text, "cmzc %s: internal error\ncommand: cmzc", cmzc_version());
  for (int i = 0; i < job->word_count; i++) cmz_text_add(&text, " '%s'", job->words[i]);
  cmz_text_add(&text, "\nmessages:\n");
  for (uint32_t i = 0; i < job->ctx->diagnostics.count; i++) {
    cmz_text_add(&text, "  ");
    cmz_diagnostic_format(&text, &job->ctx->diagnostics.data[i]);
    cmz_text_add(&text, "\n");
  }
  add_failed_kernels(job, &text);
  const char *output =
      job->options.output && !is_special(job->options.output) ? job->options.output : "cmzc";
  const char *path = cmz_arena_printf(job->arena, "%s.reproducer.txt", output);
  if (cmz_file_write(job->ctx, path, text.data, text.length) != CMZ_OK) return;
  cmz_diagnostic note = {
      .severity = CMZ_NOTE,
      .loc = {.file = path},
      .message = "this is a defect in cmzc; please report it with this file and the model"};
  cmz_job_message(job, &note);
}
