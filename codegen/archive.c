/* archive.c - static libraries. In: object files with the symbols that each defines. Out: an
 * archive whose index lets a linker find them: as System V and GNU write it, which linkers for ELF,
 * COFF and WebAssembly read, or as BSD does, which Apple's wants. Always holds: dates, owners and
 * order depend on the input alone. */
#include "internal.h"
#include <errno.h>
#include <stdio.h>

#define MAGIC_BYTES 8
#define HEADER_BYTES 60
#define BSD_NAME_BYTES                                                                             \
  20 /* stands between header and content: with 60 it keeps content at multiples of 8 */

typedef struct layout {
  bool bsd;
  uint32_t symbol_count;
  size_t names, index_bytes; /* of the names, of the index's content */
  uint64_t *member_at;       /* of each member's header */
  const cmz_file **files;
} layout;

static size_t name_bytes(const layout *l) { return l->bsd ? BSD_NAME_BYTES : 0; }
static size_t padded(const layout *l, size_t bytes) { return cmz_align_up(bytes, l->bsd ? 8 : 2); }

static void member_header(const layout *l, char *out, const char *name, uint64_t size) {
  char text[HEADER_BYTES + 16]; /* a size of more digits than the format has room for is cut */
  if (l->bsd) size = BSD_NAME_BYTES + padded(l, size);
  snprintf(text, sizeof text, "%-16s%-12d%-6d%-6d%-8s%-10llu`\n", l->bsd ? "#1/20" : name, 0, 0, 0,
           "644", (unsigned long long)size);
  memcpy(out, text, HEADER_BYTES);
  if (l->bsd) memcpy(out + HEADER_BYTES, name, strlen(name));
}

static void put_word(const layout *l, char *out, uint64_t value) {
  for (int i = 0; i < 4; i++) out[i] = (char)(value >> (l->bsd ? 8 * i : 24 - 8 * i));
}

static cmz_status place(cmz_context *ctx, const cmz_member *members, uint32_t count,
                        const char *path, layout *l) {
  for (uint32_t i = 0; i < count; i++) {
    l->symbol_count += members[i].symbol_count;
    for (uint32_t s = 0; s < members[i].symbol_count; s++)
      l->names += strlen(members[i].symbols[s]) + 1;
  }
  l->index_bytes = l->bsd ? 8 + 8 * (size_t)l->symbol_count + cmz_align_up(l->names, 8)
                          : 4 + 4 * (size_t)l->symbol_count + l->names;
  uint64_t at = MAGIC_BYTES + HEADER_BYTES + name_bytes(l) + padded(l, l->index_bytes);
  l->member_at = CMZ_NEW_ARRAY(ctx->arena, uint64_t, count + 1u);
  l->files = CMZ_NEW_ARRAY(ctx->arena, const cmz_file *, count + 1u);
  for (uint32_t i = 0; i < count; i++) {
    CMZ_TRY(cmz_file_map(ctx, members[i].object, &l->files[i]));
    l->member_at[i] = at;
    at += HEADER_BYTES + name_bytes(l) + padded(l, l->files[i]->size);
  }
  l->member_at[count] = at;
  if (count && l->member_at[count - 1] <= UINT32_MAX) return CMZ_OK;
  return cmz_fail(ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.file = path},
                  "an archive of more than 4 GiB has no index; use --weights external");
}

/* The index: GNU: count, places, names. BSD: bytes of the pairs, pairs of name's and member's
 * place, bytes of the names, names. */
static void fill_index(const layout *l, char *at, const cmz_member *members, uint32_t count) {
  char *places = at + 4,
       *names = at + 4 + (l->bsd ? 8 : 4) * (size_t)l->symbol_count + (l->bsd ? 4 : 0),
       *first = names;
  put_word(l, at, l->bsd ? 8 * (uint64_t)l->symbol_count : l->symbol_count);
  if (l->bsd) put_word(l, names - 4, cmz_align_up(l->names, 8));
  for (uint32_t i = 0; i < count; i++) {
    for (uint32_t s = 0; s < members[i].symbol_count; s++) {
      size_t size = strlen(members[i].symbols[s]) + 1;
      if (l->bsd) {
        put_word(l, places, (uint64_t)(names - first));
        places += 4;
      }
      put_word(l, places, l->member_at[i]);
      places += 4;
      memcpy(names, members[i].symbols[s], size);
      names += size;
    }
  }
}

static bool write_members(FILE *f, const layout *l, const cmz_member *members, uint32_t count) {
  static const char newlines[8] = "\n\n\n\n\n\n\n";
  for (uint32_t i = 0; i < count; i++) {
    char head[HEADER_BYTES + BSD_NAME_BYTES] = {0};
    const char *name = members[i].name;
    char gnu[24];
    snprintf(gnu, sizeof gnu, "%.15s/", name);
    size_t size = l->files[i]->size;
    member_header(l, head, l->bsd ? name : gnu, size);
    if (!cmz_stream_write(f, head, HEADER_BYTES + name_bytes(l)) ||
        !cmz_stream_file(f, members[i].object) ||
        !cmz_stream_write(f, newlines, padded(l, size) - size))
      return false;
  }
  return true;
}

cmz_status cmz_archive_write(cmz_context *ctx, bool bsd, const cmz_member *members, uint32_t count,
                             const char *path) {
  layout l = {.bsd = bsd};
  CMZ_TRY(place(ctx, members, count, path, &l));
  size_t head_bytes = MAGIC_BYTES + HEADER_BYTES + name_bytes(&l) + padded(&l, l.index_bytes);
  char *head = CMZ_NEW_ARRAY(ctx->arena, char, head_bytes);
  memcpy(head, "!<arch>\n", MAGIC_BYTES);
  member_header(&l, head + MAGIC_BYTES, bsd ? "__.SYMDEF" : "/",
                bsd ? l.index_bytes : padded(&l, l.index_bytes));
  fill_index(&l, head + MAGIC_BYTES + HEADER_BYTES + name_bytes(&l), members, count);
  FILE *f = fopen(path, "wbe");
  bool ok = f && cmz_stream_write(f, head, head_bytes) && write_members(f, &l, members, count);
  if (f && fclose(f) != 0) ok = false;
  return ok ? CMZ_OK
            : cmz_fail(ctx, CMZ_E_IO, (cmz_loc){.file = path}, "cannot write: %s", strerror(errno));
}
