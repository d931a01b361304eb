/* archive.c - writes a static archive with one member. In: a relocatable object and the names it
 * exports. Out: a .a in the System V form with an index, as ar makes it. Always holds: no dates,
 * owners or paths get into it. */
#include "internal.h"
#include <errno.h>
#include <stdio.h>

enum { HEADER_BYTES = 60 };

static void member_header(char *out, const char *name, uint64_t size) {
  char text[HEADER_BYTES + 16]; /* a size of more digits than the format has room for is cut */
  snprintf(text, sizeof text, "%-16s%-12d%-6d%-6d%-8s%-10llu`\n", name, 0, 0, 0, "644",
           (unsigned long long)size);
  memcpy(out, text, HEADER_BYTES);
}

static void put_big_endian(char *out, uint32_t value) {
  for (int i = 0; i < 4; i++) out[i] = (char)(value >> (24 - 8 * i));
}

cmz_status cmz_archive_write(cmz_context *ctx, const char *object, const char *const *symbols,
                             uint32_t symbol_count, const char *path) {
  const cmz_file *file;
  CMZ_TRY(cmz_file_map(ctx, object, &file));
  size_t names = 0;
  for (uint32_t i = 0; i < symbol_count; i++) names += strlen(symbols[i]) + 1;
  size_t index_size = cmz_align_up(4 + 4 * (size_t)symbol_count + names, 2);
  size_t member_at = 8 + HEADER_BYTES + index_size;
  char *head = cmz_arena_alloc(ctx->arena, member_at + HEADER_BYTES);
  memcpy(head, "!<arch>\n", 8);
  member_header(head + 8, "/", index_size);
  char *at = head + 8 + HEADER_BYTES;
  put_big_endian(at, symbol_count);
  for (uint32_t i = 0; i < symbol_count; i++) put_big_endian(at + 4 + 4 * i, (uint32_t)member_at);
  at += 4 + 4 * (size_t)symbol_count;
  for (uint32_t i = 0; i < symbol_count; i++) {
    memcpy(at, symbols[i], strlen(symbols[i]) + 1);
    at += strlen(symbols[i]) + 1;
  }
  member_header(head + member_at, "model.o/", file->size);
  FILE *f = fopen(path, "wbe");
  bool ok = f && cmz_stream_write(f, head, member_at + HEADER_BYTES) &&
            cmz_stream_write(f, file->data, file->size) &&
            (file->size % 2 == 0 || cmz_stream_write(f, "\n", 1));
  if (f && fclose(f) != 0) ok = false;
  return ok ? CMZ_OK
            : cmz_fail(ctx, CMZ_E_IO, (cmz_loc){.file = path}, "cannot write: %s", strerror(errno));
}
