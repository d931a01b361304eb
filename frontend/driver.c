/* driver.c - the page of contents: options, import, passes, code, files.
 * In: the words of a command line. Out: the files that they ask for. Always holds: nothing is
 * delivered unless all of it succeeded. */
#include "driver.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

static bool has_suffix(const char *path, const char *suffix) {
  size_t a = strlen(path), b = strlen(suffix);
  return a > b && !strcmp(path + a - b, suffix);
}

/* ---- input ---- */

static cmz_status import_module(cmz_context *ctx, const char *path, cmz_module **module) {
  const cmz_file *text, *weights = NULL;
  CMZ_TRY(cmz_file_map(ctx, path, &text));
  const char *beside = cmz_arena_printf(ctx->arena, "%s.weights", path);
  struct stat info;
  if (stat(beside, &info) == 0) CMZ_TRY(cmz_file_map(ctx, beside, &weights));
  return cmz_module_parse(ctx, path, (const char *)text->data, text->size, weights, module);
}

static cmz_status refuse_import(cmz_context *ctx, const char *path, cmz_module **module) {
  (void)module;
  return cmz_fail(ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.file = path},
                  "this kind of model is not supported yet");
}

static const struct {
  const char *suffix;
  cmz_status (*import)(cmz_context *, const char *, cmz_module **);
} importers[] = {{".onnx", cmz_onnx_import},
                 {".cmz", import_module},
                 {".gguf", refuse_import},
                 {".safetensors", refuse_import}};

static cmz_status import(cmz_job *job) {
  const char *path = job->options.input;
  struct stat info;
  if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
    return refuse_import(job->ctx, path, &job->module);
  for (size_t i = 0; i < CMZ_COUNT_OF(importers); i++)
    if (has_suffix(path, importers[i].suffix))
      return importers[i].import(job->ctx, path, &job->module);
  return cmz_onnx_import(job->ctx, path, &job->module);
}

/* ---- what is asked for ---- */

static cmz_status usage(cmz_job *job, const char *option, const char *message) {
  return cmz_fail_hint(job->ctx, CMZ_E_USAGE, (cmz_loc){.tensor = option}, "cmzc --help", "%s",
                       message);
}

static const char *with_suffix(cmz_job *job, const char *path, const char *suffix) {
  const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
  int stem =
      dot && (!slash || dot > slash + 1) && dot != path ? (int)(dot - path) : (int)strlen(path);
  return cmz_arena_printf(job->arena, "%.*s%s", stem, path, suffix);
}

/* Gives every file to write its path: OUTPUT is what the first kind without a path becomes, or what
 * its suffix says. */
static cmz_status settle_outputs(cmz_job *job) {
  cmz_options *o = &job->options;
  bool taken = false;
  for (uint32_t i = 0; i < o->emits.count; i++) {
    cmz_emit *emit = &o->emits.data[i];
    if (emit->path) continue;
    if (!o->output) return usage(job, "--emit", "needs a path, or -o OUTPUT");
    if (emit->recipe) emit->path = with_suffix(job, o->output, ".recipe.json");
    else if (!taken) emit->path = o->output, taken = true;
    else emit->path = with_suffix(job, o->output, cmz_output_kind_suffix(emit->kind));
  }
  if (o->output && !taken) {
    cmz_emit emit = {.path = o->output};
    if (!cmz_output_kind_of_suffix(o->output, &emit.kind))
      return cmz_fail_hint(job->ctx, CMZ_E_USAGE, (cmz_loc){.tensor = o->output},
                           ".so .o .a .h .s .ll .mlir .ptx .cmz, or none for a program",
                           "this kind of output is not supported yet");
    cmz_vec_push(job->arena, &o->emits, emit);
  }
  return CMZ_OK;
}

/* What may be wrong with one file that is asked for, given the target. */
static cmz_status check_emit(cmz_job *job, const cmz_emit *emit) {
  static const struct {
    const char *suffix, *example;
    cmz_object_format format;
  } of_system[] = {{".dylib", "arm64-apple-macos", CMZ_OBJECT_MACHO},
                   {".dll", "x86_64-windows", CMZ_OBJECT_COFF},
                   {".lib", "x86_64-windows", CMZ_OBJECT_COFF}};
  static const struct {
    cmz_output_kind kind;
    cmz_gpu_kind gpu;
    const char *message;
  } of_gpu[] = {{CMZ_OUT_PTX, CMZ_GPU_CUDA, "PTX is for NVIDIA's GPUs: --target sm_80 …"},
                {CMZ_OUT_SPIRV, CMZ_GPU_VULKAN, "SPIR-V is for Vulkan: --target vulkan1.1 …"}};
  const cmz_options *o = &job->options;
  const cmz_gpu_row *gpu = job->target.gpu;
  if (emit->recipe) return CMZ_OK;
  if (o->stop_after && emit->kind != CMZ_OUT_MODULE)
    return usage(job, "--stop-after", "leaves only a module to write: -o x.cmz");
  if (emit->kind == CMZ_OUT_MODULE && (o->precision == CMZ_F16 || o->precision == CMZ_BF16))
    return usage(job, "--precision",
                 "is for code: a module keeps its types; give it when the module is compiled");
  for (size_t i = 0; i < CMZ_COUNT_OF(of_gpu); i++)
    if (emit->kind == of_gpu[i].kind && (!gpu || gpu->kind != of_gpu[i].gpu))
      return usage(job, emit->path, of_gpu[i].message);
  for (size_t i = 0; i < CMZ_COUNT_OF(of_system); i++)
    if (has_suffix(emit->path, of_system[i].suffix) &&
        job->target.os->format != of_system[i].format)
      return usage(job, emit->path,
                   cmz_arena_printf(job->arena, "%s is for another system: --target %s",
                                    of_system[i].suffix, of_system[i].example));
  return cmz_output_check(job->ctx, &job->target, emit->kind, o->external_weights);
}

static bool is_identifier(const char *word) {
  if (*word >= '0' && *word <= '9') return false;
  for (const char *c = word; *c; c++)
    if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
          *c == '_'))
      return false;
  return true;
}

static cmz_status check_options(cmz_job *job) {
  cmz_options *o = &job->options;
  if (!o->input) return usage(job, NULL, "no input; usage: cmzc [options] INPUT -o OUTPUT");
  CMZ_TRY(settle_outputs(job));
  if (!o->emits.count && !o->check && !o->print_after && !o->stop_after)
    return usage(job, NULL, "nothing to write: give -o OUTPUT");
  if (o->report && !has_suffix(o->report, ".json"))
    return usage(job, "--report", "only .json is supported yet");
  if (o->prefix && !is_identifier(o->prefix))
    return usage(job, "--prefix", "is not a C identifier");
  if (o->depfile && !o->output) return usage(job, "-MD", "needs -o OUTPUT");
  CMZ_TRY(cmz_target_parse(job->ctx, o->target, o->cpu, o->host, &job->target));
  for (uint32_t i = 0; i < o->emits.count; i++) CMZ_TRY(check_emit(job, &o->emits.data[i]));
  return CMZ_OK;
}

static cmz_status settle_compression(cmz_job *job) {
  cmz_options *o = &job->options;
  if (!o->rule_set && !o->recipe && !o->report) return CMZ_OK;
  const char *word = o->rule.group_size      ? "--group-size"
                     : o->rule.symmetric > 0 ? "--symmetric"
                     : o->rule.symmetric < 0 ? "--asymmetric"
                                             : NULL;
  if (word && !o->rule.bits && !o->recipe)
    return usage(
        job, word,
        "says how weights are quantised, but nothing asks for that: add --w4a16 or the like");
  job->compression = CMZ_NEW(job->arena, cmz_compression);
  if (o->rule_set) cmz_vec_push(job->arena, &job->compression->rules, o->rule);
  if (o->recipe) CMZ_TRY(cmz_recipe_read(job->ctx, job->arena, o->recipe, job->compression));
  return CMZ_OK;
}

/* ---- passes ---- */

static void print_module(void *user, const char *pass, const char *text) {
  cmz_job_say(user, "// after %s\n%s\n", pass, text);
}

static void print_time(void *user, const char *pass, double seconds) {
  cmz_job_say(user, "%-14s %9.3f ms\n", pass, seconds * 1e3);
}

/* With --time-passes: a step that is not a pass. SINCE: its beginning, moved on to now. */
static void time_step(cmz_job *job, const char *step, double *since) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double seconds = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
  if (job->options.time_passes && *since > 0) print_time(job, step, seconds - *since);
  *since = seconds;
}

/* GPUs run layers with quantised weights in f16 unless told otherwise: their matrix units do. */
static cmz_dtype precision(const cmz_job *job) {
  if (job->options.precision != CMZ_UNDEFINED) return job->options.precision;
  const cmz_compression *c = job->compression;
  for (uint32_t i = 0; i < job->options.emits.count; i++)
    if (job->options.emits.data[i].kind == CMZ_OUT_MODULE) return CMZ_F32;
  for (uint32_t i = 0; c != NULL && job->target.gpu != NULL && i < c->rules.count; i++)
    if (c->rules.data[i].bits != 0 && c->rules.data[i].bits < 16) return CMZ_F16;
  return CMZ_F32;
}

static cmz_status run_passes(cmz_job *job) {
  const cmz_options *o = &job->options;
  cmz_pass_run run = {.optimise = o->level,
                      .small = o->small,
                      .target = &job->target,
                      .pins = o->pins.data,
                      .pin_count = o->pins.count,
                      .ranges = o->ranges.data,
                      .range_count = o->ranges.count,
                      .precision = precision(job),
                      .tf32 = o->tf32,
                      .compression = job->compression,
                      .stop_after = o->stop_after,
                      .print_after = o->print_after,
                      .print = print_module,
                      .print_user = job,
                      .check_passes = o->check_passes,
                      .timing = o->time_passes ? print_time : NULL,
                      .timing_user = job};
  CMZ_TRY(cmz_passes_run(&run, job->module));
  job->plan = run.plan;
  if (run.target != &job->target) job->target = *run.target;
  return CMZ_OK;
}

/* ---- code ---- */

static const char *derive_prefix(cmz_job *job, const char *path) {
  const char *slash = strrchr(path, '/');
  char *name = cmz_arena_printf(job->arena, "_%s", slash ? slash + 1 : path);
  for (char *c = name + 1; *c; c++) {
    if (*c == '.') *c = 0;
    else if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9')))
      *c = '_';
    if (!*c) break;
  }
  if (!name[1]) return "model";
  return name[1] >= '0' && name[1] <= '9' ? name : name + 1;
}

static bool make_folders(cmz_job *job, const char *path) {
  char *part = cmz_arena_string(job->arena, path);
  for (char *c = part + 1; *c; c++) {
    if (*c != '/') continue;
    *c = 0;
    mkdir(part, 0777);
    *c = '/';
  }
  struct stat info;
  mkdir(part, 0777);
  return stat(part, &info) == 0 && S_ISDIR(info.st_mode);
}

/* The kernel cache's folder; NULL, with a note, when there can be none. */
static const char *cache_folder(cmz_job *job) {
  const cmz_options *o = &job->options;
  if (o->no_cache) return NULL;
  const char *folder = o->cache_dir, *home = getenv("HOME"), *base = getenv("XDG_CACHE_HOME");
  if (!folder && base && *base == '/') folder = cmz_arena_printf(job->arena, "%s/cmzc", base);
  if (!folder && home && *home == '/')
    folder = cmz_arena_printf(job->arena, "%s/.cache/cmzc", home);
  if (folder && make_folders(job, folder)) return folder;
  cmz_job_note(job, "no kernel cache: %s cannot be made", folder ? folder : "a folder");
  return NULL;
}

static void kernel_progress(void *user, uint32_t done, uint32_t total) {
  cmz_job *job = user;
  if (job->callbacks->progress)
    job->callbacks->progress(job->callbacks->user, "kernels", done, total);
}

static cmz_status write_module(cmz_job *job, const char *path) {
  cmz_text text = {.arena = job->arena}, weights = {.arena = job->arena};
  cmz_module_print(job->module, &text, &weights);
  CMZ_TRY(cmz_file_write(job->ctx, cmz_job_stage(job, path), text.data, text.length));
  const char *beside = cmz_arena_printf(job->arena, "%s.weights", path);
  return cmz_file_write(job->ctx, cmz_job_stage(job, beside), weights.data, weights.length);
}

static cmz_status write_recipe(cmz_job *job, const char *path) {
  cmz_text text = {.arena = job->arena};
  cmz_compression none = {0};
  CMZ_TRY(cmz_recipe_print(job->compression ? job->compression : &none, &text));
  return cmz_file_write(job->ctx, cmz_job_stage(job, path), text.data, text.length);
}

static cmz_status write_code(cmz_job *job, const cmz_emit *emit, cmz_codegen_options *code) {
  const cmz_options *o = &job->options;
  bool linked_in = emit->kind == CMZ_OUT_OBJECT || emit->kind == CMZ_OUT_ARCHIVE;
  code->default_threads = o->threads ? o->threads : linked_in ? 1 : 0;
  const char *header = NULL;
  if ((emit->kind == CMZ_OUT_SHARED || linked_in) && !o->no_header)
    header = cmz_job_stage(job, with_suffix(job, emit->path, ".h"));
  if (o->debug) {
    code->listing = cmz_arena_printf(job->arena, "%s.cmz", emit->path);
    cmz_text *text = CMZ_NEW(job->arena, cmz_text);
    text->arena = job->arena;
    cmz_module_print(job->module, text, NULL);
    code->listing_text = text;
    CMZ_TRY(cmz_file_write(job->ctx, cmz_job_stage(job, code->listing), text->data, text->length));
  }
  return cmz_output_write(job->ctx, job->plan, code, emit->kind, cmz_job_stage(job, emit->path),
                          header);
}

static cmz_status write_outputs(cmz_job *job) {
  cmz_options *o = &job->options;
  const char *first = o->output ? o->output : o->emits.data[0].path;
  CMZ_TRY(cmz_job_open(job, first));
  o->cache_dir = cache_folder(job);
  cmz_codegen_options code = {.target = &job->target,
                              .optimise = o->level,
                              .small = o->small,
                              .model_name = job->module->name,
                              .prefix = o->prefix ? o->prefix : derive_prefix(job, first),
                              .jobs = o->jobs,
                              .cache_dir = o->cache_dir,
                              .work_dir = job->work_dir,
                              .external_weights = o->external_weights,
                              .debug_lines = o->debug,
                              .progress = kernel_progress,
                              .progress_user = job};
  for (uint32_t i = 0; i < o->emits.count; i++) {
    const cmz_emit *emit = &o->emits.data[i];
    cmz_job_note(job, "writing %s", emit->path);
    if (emit->recipe) CMZ_TRY(write_recipe(job, emit->path));
    else if (emit->kind == CMZ_OUT_MODULE) CMZ_TRY(write_module(job, emit->path));
    else CMZ_TRY(write_code(job, emit, &code));
  }
  return CMZ_OK;
}

static cmz_status write_report(cmz_job *job) {
  if (!job->options.report) return CMZ_OK;
  cmz_text text = {.arena = job->arena};
  cmz_report_print(job->compression, job->target.gpu ? job->plan : NULL, job->options.input, &text);
  return cmz_file_write(job->ctx, job->options.report, text.data, text.length);
}

/* With -Werror a warning is recorded as an error, but nothing stops at it. */
static cmz_status check_warnings(cmz_job *job) {
  return job->ctx->error_count ? CMZ_E_INPUT : CMZ_OK;
}

cmz_status cmz_job_run(cmz_job *job) {
  CMZ_TRY(cmz_options_parse(&job->options, job->word_count, job->words));
  job->ctx->options.warnings_are_errors = job->options.warnings_are_errors;
  if (cmz_job_inform(job)) return CMZ_OK;
  CMZ_TRY(check_options(job));
  CMZ_TRY(settle_compression(job));
  cmz_job_note(job, "reading %s", job->options.input);
  double since = 0;
  time_step(job, NULL, &since);
  CMZ_TRY(import(job));
  time_step(job, "(reading)", &since);
  CMZ_TRY(run_passes(job));
  time_step(job, "(all passes)", &since);
  CMZ_TRY(check_warnings(job));
  if (job->options.check) {
    cmz_job_say(job, "%s: everything in it is supported\n", job->options.input);
    return write_report(job);
  }
  if (job->options.emits.count) {
    CMZ_TRY(write_outputs(job));
    time_step(job, "(code, files)", &since);
    CMZ_TRY(check_warnings(job));
    CMZ_TRY(write_report(job));
    if (job->options.output) CMZ_TRY(cmz_job_write_depfile(job, job->options.output));
    return cmz_job_deliver(job);
  }
  return write_report(job);
}
