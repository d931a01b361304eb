/* weights.c - writes the constants that kernels read: as an object with one read-only section, or
 * as a file beside the output. In: the places that program.c gave them. Out: the file. Always
 * holds: each constant starts at a multiple of 64 bytes; at most one constant that is re-laid lies
 * in memory at a time. */
#include "internal.h"
#include "machine.h"
#include <errno.h>
#include <stdio.h>

typedef struct streamer {
  cmz_context *ctx;
  const cmz_plan *plan;
  const cmz_tables *tables;
  const char *path;
} streamer;

static cmz_status fail_write(const streamer *s) {
  return cmz_fail(s->ctx, CMZ_E_IO, (cmz_loc){.file = s->path}, "cannot write: %s",
                  strerror(errno));
}

/* Strings as the runtime's values.c reads them: the offset of each from here, then the texts. */
static uint8_t *packed_strings(cmz_arena *arena, const cmz_constant *c, uint64_t *bytes) {
  const char *const *texts = c->data;
  size_t count = c->bytes / sizeof *texts;
  *bytes = count * sizeof(uint64_t);
  for (size_t i = 0; i < count; i++) *bytes += strlen(texts[i]) + 1;
  uint8_t *packed = cmz_arena_alloc(arena, *bytes);
  uint64_t at = count * sizeof at;
  for (size_t i = 0; i < count; i++) {
    size_t size = strlen(texts[i]) + 1;
    memcpy(packed + i * sizeof at, &at, sizeof at);
    memcpy(packed + at, texts[i], size);
    at += size;
  }
  return packed;
}

uint64_t cmz_weight_string_bytes(cmz_arena *arena, const cmz_constant *c) {
  uint64_t bytes;
  packed_strings(arena, c, &bytes);
  return bytes;
}

static cmz_status write_one(const streamer *s, const cmz_weight *w, FILE *f) {
  const cmz_constant *c = cmz_constant_get(s->plan->module, w->constant);
  if (c->dtype == CMZ_STRING) {
    uint64_t bytes;
    const uint8_t *packed = packed_strings(s->ctx->arena, c, &bytes);
    return cmz_stream_write(f, packed, bytes) ? CMZ_OK : fail_write(s);
  }
  if (w->layout.count == 0 || cmz_layout_equal(&w->layout, &c->layout)) {
    return cmz_stream_write(f, c->data, w->bytes) ? CMZ_OK : fail_write(s);
  }
  uint32_t bits = cmz_dtype_info(c->dtype)->bits;
  if (bits % 8 != 0 || c->layout.count != 0) {
    return cmz_fail(s->ctx, CMZ_E_INTERNAL, (cmz_loc){.tensor = c->name},
                    "a constant cannot be laid out anew");
  }
  cmz_arena *arena = cmz_arena_create(s->ctx);
  void *packed = cmz_arena_alloc(arena, w->bytes);
  cmz_layout_pack(&w->layout, c->rank, c->shape, bits / 8, c->data, packed);
  bool ok = cmz_stream_write(f, packed, w->bytes);
  cmz_arena_destroy(arena);
  return ok ? CMZ_OK : fail_write(s);
}

static cmz_status write_all(void *user, void *stream) {
  const streamer *s = user;
  static const char zeros[CMZ_ARENA_ALIGNMENT];
  uint64_t at = 0;
  for (uint32_t i = 0; i < s->tables->weights.count; i++) {
    const cmz_weight *w = &s->tables->weights.data[i];
    if (!cmz_stream_write(stream, zeros, (size_t)(w->offset - at))) return fail_write(s);
    CMZ_TRY(write_one(s, w, stream));
    at = w->offset + w->bytes;
  }
  return CMZ_OK;
}

cmz_status cmz_weights_object(cmz_context *ctx, const cmz_plan *plan, const cmz_tables *t,
                              const cmz_codegen_options *o, const char *path) {
  streamer s = {.ctx = ctx, .plan = plan, .tables = t, .path = path};
  cmz_elf_symbol base = {.name = cmz_arena_printf(ctx->arena, "%s_weights", o->prefix),
                         .size = t->weight_bytes};
  if (o->target->os->format != CMZ_OBJECT_ELF) {
    cmz_data_object data = {
        .symbol = base.name, .size = t->weight_bytes, .write = write_all, .user = &s};
    return cmz_foreign_object_write(ctx, o->target->os, &data, path);
  }
  /* A small section may stand among the other read-only data; a large one would push it out of the
   * code's reach. */
  bool large =
      t->weight_bytes > (UINT64_C(1) << 30) && cmz_machine_find(o->target->os)->large_sections;
  const cmz_machine *machine = cmz_machine_find(o->target->os);
  cmz_elf_blob blob = {.machine = machine->elf_machine,
                       .flags = machine->elf_flags,
                       .section = large ? ".lrodata.cmz" : ".rodata.cmz",
                       .size = t->weight_bytes,
                       .large = large,
                       .symbols = &base,
                       .symbol_count = 1,
                       .hidden = true,
                       .write = write_all,
                       .user = &s};
  return cmz_elf_write(ctx, path, &blob);
}

/* The hash in the file's header: of places and content, so that another model's file is recognised.
 */
static void weights_hash(cmz_context *ctx, const cmz_plan *plan, const cmz_tables *t,
                         uint8_t hash[16]) {
  cmz_hash128 sum = {0};
  for (uint32_t i = 0; i < t->weights.count; i++) {
    const cmz_weight *w = &t->weights.data[i];
    const cmz_constant *c = cmz_constant_get(plan->module, w->constant);
    uint64_t bytes = c->bytes;
    const void *data = c->dtype == CMZ_STRING ? packed_strings(ctx->arena, c, &bytes) : c->data;
    cmz_hash128 one = cmz_hash_bytes(data, bytes);
    uint64_t place[6] = {sum.lo, sum.hi, one.lo, one.hi, w->offset, w->bytes};
    sum = cmz_hash_bytes(place, sizeof place);
  }
  memcpy(hash, &sum, 16);
}

cmz_status cmz_weights_file(cmz_context *ctx, const cmz_plan *plan, const cmz_tables *t,
                            const char *path, uint8_t hash[16]) {
  streamer s = {.ctx = ctx, .plan = plan, .tables = t, .path = path};
  char header[CMZ_ARENA_ALIGNMENT] = {0};
  weights_hash(ctx, plan, t, hash);
  memcpy(header, hash, 16);
  const char *temporary = cmz_arena_printf(ctx->arena, "%s.part", path);
  FILE *f = fopen(temporary, "wbe");
  if (!f) return fail_write(&s);
  bool ok = cmz_stream_write(f, header, sizeof header);
  cmz_status status = ok ? write_all(&s, f) : fail_write(&s);
  if (fclose(f) != 0 && status == CMZ_OK) status = fail_write(&s);
  if (status != CMZ_OK) {
    remove(temporary);
    return status;
  }
  return cmz_file_commit(ctx, temporary, path);
}
