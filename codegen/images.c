/* images.c - a GPU's kernels as one module a level. In: one text a kernel, as LLVM writes PTX.
 * Out: the tables of program.h. Always holds: all texts of a level have the same directives before
 * their first symbol (version, target, address size), which stand once at the top. */
#define _GNU_SOURCE /* memmem */
#include "internal.h"

/* What follows the module directives of a PTX text. */
static const char *after_directives(const char *text, const char *end) {
  static const char last[] = ".address_size";
  const char *at = memmem(text, (size_t)(end - text), last, sizeof last - 1);
  const char *line = at ? memchr(at, '\n', (size_t)(end - at)) : NULL;
  return line ? line + 1 : text;
}

static cmz_status build_image(cmz_context *ctx, const cmz_cpu_row *level,
                              const cmz_kernel_object *kernels, uint32_t count,
                              cmz_program_image *out) {
  cmz_text all = {.arena = ctx->arena};
  const char **names = CMZ_NEW_ARRAY(ctx->arena, const char *, count + 1);
  for (uint32_t i = 0; i < count; i++) {
    const cmz_file *file;
    names[i] = kernels[i].symbol;
    bool repeated = false;
    for (uint32_t j = 0; j < i && !repeated; j++) repeated = strcmp(names[j], names[i]) == 0;
    if (repeated) continue;
    CMZ_TRY(cmz_file_map(ctx, kernels[i].path, &file));
    const char *text = (const char *)file->data, *end = text + file->size;
    const char *from = all.length ? after_directives(text, end) : text;
    cmz_text_add_bytes(&all, from, (size_t)(end - from));
  }
  cmz_text_add_bytes(&all, "", 1); /* the driver takes PTX as a string */
  *out = (cmz_program_image){.name = level->name,
                             .needs = (uint32_t)level->features,
                             .data = all.data,
                             .bytes = all.length,
                             .kernels = names};
  return CMZ_OK;
}

cmz_status cmz_images_build(cmz_context *ctx, const cmz_codegen_options *o,
                            const cmz_kernel_object *kernels, uint32_t kernel_count,
                            cmz_program_device *out) {
  const cmz_target *t = o->target;
  cmz_program_image *images = CMZ_NEW_ARRAY(ctx->arena, cmz_program_image, t->level_count);
  for (uint32_t l = 0; l < t->level_count; l++)
    CMZ_TRY(build_image(ctx, t->levels[l], kernels + (size_t)l * kernel_count, kernel_count,
                        &images[l]));
  *out = (cmz_program_device){
      .image_count = t->level_count, .threads = t->levels[0]->threads, .images = images};
  return CMZ_OK;
}
