/* output.c - makes an output file of any kind from a plan. In: the plan, options, kind, path. Out:
 * the file, and the header beside it when asked. Always holds: what was at the path stays there
 * until the new file is whole. */
#include "internal.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct outputs {
  cmz_context *ctx;
  const cmz_plan *plan;
  const cmz_codegen_options *options;
  cmz_output_kind kind;
  const char *path;
  cmz_tables tables;
  cmz_kernel_object *kernels;
} outputs;

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static const char *work_file(const outputs *s, const char *name) {
  return cmz_arena_printf(s->ctx->arena, "%s/%s", s->options->work_dir, name);
}

/* Past this many bytes weights are better mapped than loaded with the code. */
#define EXTERNAL_BYTES UINT64_C(1900000000)

static cmz_status write_weights(outputs *s, const char **object) {
  cmz_program *p = &s->tables.program;
  *object = NULL;
  if (s->tables.weights.count == 0) return CMZ_OK;
  if (s->options->external_weights || s->tables.weight_bytes > EXTERNAL_BYTES) {
    const char *file = cmz_arena_printf(s->ctx->arena, "%s.weights", s->path);
    uint8_t *hash = cmz_arena_alloc(s->ctx->arena, 16);
    CMZ_TRY(cmz_weights_file(s->ctx, s->plan, &s->tables, file, hash));
    p->weights_file = base_name(file);
    p->weights_hash = hash;
    return CMZ_OK;
  }
  *object = work_file(s, "weights.o");
  return cmz_weights_object(s->ctx, s->plan, &s->tables, s->options, *object);
}

static bool same_object(const outputs *s, uint32_t i) {
  for (uint32_t j = 0; j < i; j++) {
    if (strcmp(s->kernels[j].path, s->kernels[i].path) == 0) return true;
  }
  return false;
}

static uint32_t exports(const outputs *s, const char *names[2]) {
  if (s->kind == CMZ_OUT_EXECUTABLE) return 0;
  names[0] = cmz_arena_printf(s->ctx->arena, "%s_api", s->options->prefix);
  names[1] = "cmz_model_api";
  return s->kind == CMZ_OUT_SHARED ? 2 : 1;
}

/* Outside of ELF nothing joins relocatable objects: the archive's members are the objects as they
 * are. */
static cmz_status write_archive(outputs *s, const char *glue, const char *weights,
                                const char *path) {
  cmz_context *ctx = s->ctx;
  bool apple = s->options->target->os->format == CMZ_OBJECT_MACHO;
  const char *mangling = apple ? "_%s" : "%s";
  CMZ_VEC(cmz_member) members = {0};
  const char **symbols =
      CMZ_NEW_ARRAY(ctx->arena, const char *,
                    s->tables.program.kernel_count *(size_t)s->tables.program.level_count + 2);
  symbols[0] = cmz_arena_printf(ctx->arena, mangling,
                                cmz_arena_printf(ctx->arena, "%s_api", s->options->prefix));
  symbols[1] = cmz_arena_printf(ctx->arena, mangling,
                                cmz_arena_printf(ctx->arena, "%s_weights", s->options->prefix));
  cmz_member first = {.object = glue, .name = "model.o", .symbols = &symbols[0], .symbol_count = 1};
  cmz_vec_push(ctx->arena, &members, first);
  cmz_member second = {
      .object = weights, .name = "weights.o", .symbols = &symbols[1], .symbol_count = 1};
  if (weights) cmz_vec_push(ctx->arena, &members, second);
  uint32_t count = s->tables.program.kernel_count * s->tables.program.level_count;
  for (uint32_t i = 0; i < count; i++) {
    if (same_object(s, i)) continue;
    symbols[i + 2] = cmz_arena_printf(ctx->arena, mangling, s->kernels[i].symbol);
    cmz_member one = {.object = s->kernels[i].path,
                      .name = cmz_arena_printf(ctx->arena, "k%u.o", i),
                      .symbols = &symbols[i + 2],
                      .symbol_count = 1};
    cmz_vec_push(ctx->arena, &members, one);
  }
  return cmz_archive_write(ctx, apple, members.data, members.count, path);
}

static cmz_status link_objects(outputs *s, const char *glue, const char *weights,
                               const char *temporary) {
  if (s->kind == CMZ_OUT_ARCHIVE && s->options->target->os->format != CMZ_OBJECT_ELF)
    return write_archive(s, glue, weights, temporary);
  cmz_names objects = {0};
  cmz_vec_push(s->ctx->arena, &objects, glue);
  uint32_t count = s->tables.program.kernel_count * s->tables.program.level_count;
  for (uint32_t i = 0; i < count && !s->options->target->gpu; i++) {
    if (!same_object(s, i)) cmz_vec_push(s->ctx->arena, &objects, s->kernels[i].path);
  }
  if (weights) cmz_vec_push(s->ctx->arena, &objects, weights);
  const char *names[2];
  uint32_t name_count = exports(s, names);
  cmz_link link = {.options = s->options,
                   .kind = s->kind,
                   .objects = objects.data,
                   .object_count = objects.count,
                   .exports = names,
                   .export_count = name_count,
                   .soname = base_name(s->path)};
  if (s->kind == CMZ_OUT_ARCHIVE) {
    const char *merged = work_file(s, "merged.o");
    CMZ_TRY(cmz_link_run(s->ctx, &link, merged));
    CMZ_TRY(cmz_elf_localise(s->ctx, merged, names, name_count));
    cmz_member member = {
        .object = merged, .name = "model.o", .symbols = names, .symbol_count = name_count};
    return cmz_archive_write(s->ctx, false, &member, 1, temporary);
  }
  CMZ_TRY(cmz_link_run(s->ctx, &link, temporary));
  return s->kind == CMZ_OUT_OBJECT ? cmz_elf_localise(s->ctx, temporary, names, name_count)
                                   : CMZ_OK;
}

static cmz_status write_binary(outputs *s) {
  CMZ_TRY(cmz_kernels_compile(s->ctx, s->plan, s->options, &s->kernels));
  if (s->options->target->gpu && s->tables.needs_values)
    return cmz_fail(s->ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.file = s->plan->module->file},
                    "strings, sequences and optionals that exist at run time are not compiled for "
                    "GPUs yet");
  if (s->options->target->os->format == CMZ_OBJECT_WASM && s->tables.needs_values)
    return cmz_fail(s->ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.file = s->plan->module->file},
                    "strings, sequences and optionals that exist at run time need addresses of 64 "
                    "bits, which wasm32 has not");
  if (s->options->target->gpu) {
    cmz_program_device *device = CMZ_NEW(s->ctx->arena, cmz_program_device);
    CMZ_TRY(
        cmz_images_build(s->ctx, s->options, s->kernels, s->tables.program.kernel_count, device));
    s->tables.program.device = device;
  }
  const char *glue = work_file(s, "glue.o"), *weights;
  CMZ_TRY(write_weights(s, &weights));
  CMZ_TRY(cmz_glue_emit(s->ctx, &s->tables, s->options, s->kernels, s->kind, glue));
  const char *temporary = cmz_arena_printf(s->ctx->arena, "%s.%ld.part", s->path, (long)getpid());
  cmz_status status = link_objects(s, glue, weights, temporary);
  if (status == CMZ_OK) return cmz_file_commit(s->ctx, temporary, s->path);
  remove(temporary);
  return status;
}

/* Kinds that an object format has, beside texts and archives. */
static const struct {
  bool kinds[CMZ_OUT_EXECUTABLE + 1];
  const char *hint;
} format_kinds[CMZ_OBJECT_FORMATS] = {
    [CMZ_OBJECT_ELF] =
        {{[CMZ_OUT_SHARED] = true, [CMZ_OUT_OBJECT] = true, [CMZ_OUT_EXECUTABLE] = true}, NULL},
    [CMZ_OBJECT_MACHO] = {{[CMZ_OUT_SHARED] = true}, "-o NAME.a or -o NAME.dylib"},
    [CMZ_OBJECT_COFF] = {{[CMZ_OUT_SHARED] = true}, "-o NAME.lib or -o NAME.dll"},
    [CMZ_OBJECT_WASM] = {{false}, "-o NAME.a, to be linked with the program's own tools"},
};

cmz_status cmz_output_check(cmz_context *ctx, const cmz_target *target, cmz_output_kind kind,
                            bool external_weights) {
  const cmz_os_row *os = target->os;
  if (os->format == CMZ_OBJECT_WASM && external_weights)
    return cmz_fail(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--weights"},
                    "%s has no files to map weights from", os->triple);
  bool binary = kind == CMZ_OUT_SHARED || kind == CMZ_OUT_OBJECT || kind == CMZ_OUT_EXECUTABLE;
  if (!binary || format_kinds[os->format].kinds[kind]) return CMZ_OK;
  return cmz_fail_hint(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--target"},
                       format_kinds[os->format].hint, "%s: this kind of output is not made for it",
                       os->triple);
}

/* ---- texts: every kernel of the best level, one after the other ---- */

static cmz_status write_texts(outputs *s) {
  cmz_text all = {.arena = s->ctx->arena};
  const cmz_cpu_row *cpu = s->options->target->levels[0];
  const char *comment = s->kind == CMZ_OUT_ASSEMBLY ? "#" : s->kind == CMZ_OUT_LLVM ? ";" : "//";
  cmz_text_add(&all, "%s %s, %s\n", comment, s->options->model_name, cpu->name);
  for (uint32_t i = 0; i < s->plan->kernels.count; i++) {
    const cmz_plan_kernel *k = &s->plan->kernels.data[i];
    const char *path = work_file(s, cmz_arena_printf(s->ctx->arena, "kernel%u.txt", i));
    const char *symbol = cmz_arena_printf(s->ctx->arena, "%s_k%u_%s", s->options->prefix, i,
                                          k->kernel->name ? k->kernel->name : "kernel");
    CMZ_TRY(cmz_kernel_emit(s->ctx, k->kernel, k->schedules, cpu, s->options->target->kernel_os,
                            symbol, s->options->optimise, NULL, 0, s->kind, path));
    const cmz_file *file;
    CMZ_TRY(cmz_file_map(s->ctx, path, &file));
    cmz_text_add_bytes(&all, file->data, file->size);
    cmz_text_add(&all, "\n");
    remove(path);
  }
  return cmz_file_write(s->ctx, s->path, all.data, all.length);
}

/* The module of the best level, as it goes into a library. */
static cmz_status write_image(outputs *s) {
  cmz_program_device device;
  CMZ_TRY(cmz_kernels_compile(s->ctx, s->plan, s->options, &s->kernels));
  CMZ_TRY(cmz_images_build(s->ctx, s->options, s->kernels, s->plan->kernels.count, &device));
  return cmz_file_write(s->ctx, s->path, device.images[0].data,
                        device.images[0].bytes - (s->options->target->levels[0]->spirv ? 0 : 1));
}

static cmz_status write_module(outputs *s) {
  cmz_text text = {.arena = s->ctx->arena}, weights = {.arena = s->ctx->arena};
  cmz_module_print(s->plan->module, &text, &weights);
  const char *beside = cmz_arena_printf(s->ctx->arena, "%s.weights", s->path);
  if (weights.length) CMZ_TRY(cmz_file_write(s->ctx, beside, weights.data, weights.length));
  return cmz_file_write(s->ctx, s->path, text.data, text.length);
}

cmz_status cmz_output_write(cmz_context *ctx, const cmz_plan *plan, const cmz_codegen_options *o,
                            cmz_output_kind kind, const char *path, const char *header_path) {
  outputs s = {.ctx = ctx, .plan = plan, .options = o, .kind = kind, .path = path};
  if (kind == CMZ_OUT_MODULE) return write_module(&s);
  if (kind == CMZ_OUT_SPIRV)
    return cmz_kernels_emit_spirv(ctx, plan, o->target->levels[0], o->prefix, path);
  if (kind == CMZ_OUT_PTX || (kind == CMZ_OUT_ASSEMBLY && o->target->gpu)) return write_image(&s);
  if (kind == CMZ_OUT_ASSEMBLY || kind == CMZ_OUT_LLVM || kind == CMZ_OUT_MLIR)
    return write_texts(&s);
  CMZ_TRY(cmz_tables_build(ctx, plan, o, &s.tables));
  if (kind == CMZ_OUT_HEADER) return cmz_header_write(ctx, &s.tables, o, path);
  CMZ_TRY(write_binary(&s));
  return header_path ? cmz_header_write(ctx, &s.tables, o, header_path) : CMZ_OK;
}
