/* images.c - a GPU's kernels as one module a level. In: one text a kernel, as LLVM writes PTX; one
 * SPIR-V module a kernel. Out: the tables of program.h. Always holds: all texts of a level have the
 * same directives before their first symbol (version, target, address size), which stand once at
 * the top; modules that several levels have in common stand once. */
#define _GNU_SOURCE /* memmem */
#include "internal.h"

_Static_assert(CMZ_CAPABILITY_EXACTLY == CMZ_IMAGE_EXACTLY,
               "a level's features are an image's needs");

/* What follows the module directives of a PTX text. */
static const char *after_directives(const char *text, const char *end) {
  static const char last[] = ".address_size";
  const char *at = memmem(text, (size_t)(end - text), last, sizeof last - 1);
  const char *line = at ? memchr(at, '\n', (size_t)(end - at)) : NULL;
  return line ? line + 1 : text;
}

static cmz_status build_image(cmz_context *ctx, const cmz_kernel_object *kernels, uint32_t count,
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
  out->data = all.data;
  out->bytes = all.length;
  out->kernels = names;
  return CMZ_OK;
}

/* Vulkan's modules hold one kernel each, and all images the same data: where the module of each
 * kernel of each level begins and ends, as two 32-bit byte offsets, then the modules. */
static cmz_status build_modules(cmz_context *ctx, const cmz_kernel_object *kernels, uint32_t count,
                                uint32_t level_count, cmz_program_image *images) {
  cmz_text all = {.arena = ctx->arena};
  uint32_t total = count * level_count;
  const char **names = CMZ_NEW_ARRAY(ctx->arena, const char *, total + 1);
  uint32_t *places = CMZ_NEW_ARRAY(ctx->arena, uint32_t, 2 * (size_t)total + 2);
  cmz_text_add_bytes(&all, (const char *)places, 2 * (size_t)total * sizeof *places);
  for (uint32_t i = 0; i < total; i++) {
    const cmz_file *file;
    names[i] = kernels[i].symbol;
    uint32_t same = 0;
    while (same < i && strcmp(names[same], names[i]) != 0) same++;
    places[2 * i] = same < i ? places[2 * same] : (uint32_t)all.length;
    places[2 * i + 1] = same < i ? places[2 * same + 1] : 0;
    if (same < i) continue;
    CMZ_TRY(cmz_file_map(ctx, kernels[i].path, &file));
    if (file->size % 4 || file->size > UINT32_MAX - all.length - 8)
      return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){.file = kernels[i].path},
                      "not a SPIR-V module of a size that fits");
    cmz_text_add_bytes(&all, (const char *)file->data, file->size);
    places[2 * i + 1] = (uint32_t)all.length;
  }
  memcpy(all.data, places, 2 * (size_t)total * sizeof *places);
  for (uint32_t l = 0; l < level_count; l++) {
    images[l].first = 2 * l * count;
    images[l].data = all.data;
    images[l].bytes = all.length;
    images[l].kernels = names + (size_t)l * count;
  }
  return CMZ_OK;
}

cmz_status cmz_images_build(cmz_context *ctx, const cmz_codegen_options *o,
                            const cmz_kernel_object *kernels, uint32_t kernel_count,
                            cmz_program_device *out) {
  const cmz_target *t = o->target;
  cmz_program_image *images = CMZ_NEW_ARRAY(ctx->arena, cmz_program_image, t->level_count);
  for (uint32_t l = 0; l < t->level_count; l++)
    images[l] = (cmz_program_image){.name = t->levels[l]->name,
                                    .needs = (uint32_t)t->levels[l]->features,
                                    .threads = t->levels[l]->threads};
  if (t->levels[0]->spirv) {
    CMZ_TRY(build_modules(ctx, kernels, kernel_count, t->level_count, images));
  } else {
    for (uint32_t l = 0; l < t->level_count; l++)
      CMZ_TRY(build_image(ctx, kernels + (size_t)l * kernel_count, kernel_count, &images[l]));
  }
  *out = (cmz_program_device){.image_count = t->level_count, .images = images};
  return CMZ_OK;
}
