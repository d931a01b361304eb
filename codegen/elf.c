/* elf.c - the little of ELF that cmzc writes and changes itself. In: bytes to be streamed, names;
 * or a relocatable object of the linker's. Out: a relocatable object with one section; the names an
 * object lacks; the same object with all but its exports made local. Always holds: output bytes
 * depend on the input alone; files that are read are bounds-checked. */
#include "internal.h"
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool cmz_stream_write(void *stream, const void *data, size_t size) {
  return size == 0 || fwrite(data, 1, size, stream) == size;
}

bool cmz_stream_file(void *stream, const char *path) {
  char piece[1 << 15];
  FILE *from = fopen(path, "rbe");
  bool ok = from != NULL;
  size_t n;
  while (ok && (n = fread(piece, 1, sizeof piece, from)) > 0)
    ok = cmz_stream_write(stream, piece, n);
  if (from != NULL && ferror(from)) ok = false;
  if (from != NULL) fclose(from);
  return ok;
}

static cmz_status fail_write(cmz_context *ctx, const char *path) {
  return cmz_fail(ctx, CMZ_E_IO, (cmz_loc){.file = path}, "cannot write: %s", strerror(errno));
}

static bool write_padding(FILE *f, uint64_t count) {
  static const char zeros[64];
  while (count) {
    size_t n = (size_t)CMZ_MIN(count, sizeof zeros);
    if (!cmz_stream_write(f, zeros, n)) return false;
    count -= n;
  }
  return true;
}

/* ---- writing one-section objects ---- */

enum {
  SECTION_NULL,
  SECTION_DATA,
  SECTION_SYMTAB,
  SECTION_STRTAB,
  SECTION_SHSTRTAB,
  SECTION_NOTE,
  SECTION_COUNT
};

typedef struct object_parts {
  cmz_text names, section_names;
  Elf64_Sym *symbols;
  uint32_t symbol_count;
  Elf64_Shdr sections[SECTION_COUNT];
  uint64_t data_at, headers_at;
} object_parts;

static uint32_t section_name(object_parts *p, const char *name) {
  uint32_t at = (uint32_t)p->section_names.length;
  cmz_text_add_bytes(&p->section_names, name, strlen(name) + 1);
  return at;
}

static void make_symbols(cmz_context *ctx, const cmz_elf_blob *blob, object_parts *p) {
  p->symbol_count = blob->symbol_count + 1;
  p->symbols = CMZ_NEW_ARRAY(ctx->arena, Elf64_Sym, p->symbol_count);
  cmz_text_add_bytes(&p->names, "", 1);
  for (uint32_t i = 0; i < blob->symbol_count; i++) {
    const cmz_elf_symbol *s = &blob->symbols[i];
    p->symbols[i + 1] =
        (Elf64_Sym){.st_name = (uint32_t)p->names.length,
                    .st_info = ELF64_ST_INFO(STB_GLOBAL, s->function ? STT_FUNC : STT_OBJECT),
                    .st_other = blob->hidden ? STV_HIDDEN : STV_DEFAULT,
                    .st_shndx = SECTION_DATA,
                    .st_value = s->value,
                    .st_size = s->size};
    cmz_text_add_bytes(&p->names, s->name, strlen(s->name) + 1);
  }
}

static void make_sections(const cmz_elf_blob *blob, object_parts *p) {
  uint64_t at = p->data_at + cmz_align_up(blob->size, 64);
  section_name(p, "");
  uint64_t flags = SHF_ALLOC | (blob->code ? SHF_EXECINSTR : 0u) | (blob->large ? 0x10000000u : 0u);
  p->sections[SECTION_DATA] = (Elf64_Shdr){.sh_name = section_name(p, blob->section),
                                           .sh_type = SHT_PROGBITS,
                                           .sh_flags = flags,
                                           .sh_offset = p->data_at,
                                           .sh_size = blob->size,
                                           .sh_addralign = 64};
  uint64_t symbol_bytes = p->symbol_count * sizeof(Elf64_Sym);
  p->sections[SECTION_SYMTAB] = (Elf64_Shdr){.sh_name = section_name(p, ".symtab"),
                                             .sh_type = SHT_SYMTAB,
                                             .sh_offset = at,
                                             .sh_size = symbol_bytes,
                                             .sh_link = SECTION_STRTAB,
                                             .sh_info = 1,
                                             .sh_addralign = 8,
                                             .sh_entsize = sizeof(Elf64_Sym)};
  at += symbol_bytes;
  p->sections[SECTION_STRTAB] = (Elf64_Shdr){.sh_name = section_name(p, ".strtab"),
                                             .sh_type = SHT_STRTAB,
                                             .sh_offset = at,
                                             .sh_size = p->names.length,
                                             .sh_addralign = 1};
  at += p->names.length;
  uint32_t own = section_name(p, ".shstrtab"), note = section_name(p, ".note.GNU-stack");
  p->sections[SECTION_SHSTRTAB] = (Elf64_Shdr){.sh_name = own,
                                               .sh_type = SHT_STRTAB,
                                               .sh_offset = at,
                                               .sh_size = p->section_names.length,
                                               .sh_addralign = 1};
  at += p->section_names.length;
  p->sections[SECTION_NOTE] =
      (Elf64_Shdr){.sh_name = note, .sh_type = SHT_PROGBITS, .sh_offset = at, .sh_addralign = 1};
  p->headers_at = cmz_align_up(at, 8);
}

static cmz_status write_object(FILE *f, const cmz_elf_blob *blob, const object_parts *p, bool *ok) {
  Elf64_Ehdr header = {
      .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
      .e_type = ET_REL,
      .e_machine = blob->machine,
      .e_flags = blob->flags,
      .e_version = EV_CURRENT,
      .e_ehsize = sizeof header,
      .e_shentsize = sizeof(Elf64_Shdr),
      .e_shnum = SECTION_COUNT,
      .e_shstrndx = SECTION_SHSTRTAB,
      .e_shoff = p->headers_at};
  *ok = cmz_stream_write(f, &header, sizeof header) && write_padding(f, p->data_at - sizeof header);
  if (*ok) CMZ_TRY(blob->write(blob->user, f));
  uint64_t end = p->sections[SECTION_SHSTRTAB].sh_offset + p->section_names.length;
  *ok = *ok && write_padding(f, cmz_align_up(blob->size, 64) - blob->size) &&
        cmz_stream_write(f, p->symbols, p->symbol_count * sizeof *p->symbols) &&
        cmz_stream_write(f, p->names.data, p->names.length) &&
        cmz_stream_write(f, p->section_names.data, p->section_names.length) &&
        write_padding(f, p->headers_at - end) &&
        cmz_stream_write(f, p->sections, sizeof p->sections);
  return CMZ_OK;
}

cmz_status cmz_elf_write(cmz_context *ctx, const char *path, const cmz_elf_blob *blob) {
  object_parts p = {.names = {.arena = ctx->arena}, .section_names = {.arena = ctx->arena}};
  p.data_at = cmz_align_up(sizeof(Elf64_Ehdr), 64);
  make_symbols(ctx, blob, &p);
  make_sections(blob, &p);
  FILE *f = fopen(path, "wbe");
  if (!f) return fail_write(ctx, path);
  bool ok;
  cmz_status status = write_object(f, blob, &p, &ok);
  if (fclose(f) != 0) ok = false;
  if (status != CMZ_OK) return status;
  return ok ? CMZ_OK : fail_write(ctx, path);
}

/* ---- reading objects ---- */

typedef struct object_view {
  const uint8_t *data;
  size_t size;
  const Elf64_Shdr *sections;
  uint32_t section_count;
  uint32_t symtab; /* section number */
  const Elf64_Sym *symbols;
  uint32_t symbol_count;
  const char *names;
  size_t names_size;
} object_view;

static bool section_inside(const object_view *v, const Elf64_Shdr *s) {
  return s->sh_type == SHT_NOBITS ||
         (s->sh_offset <= v->size && s->sh_size <= v->size - s->sh_offset);
}

static cmz_status open_view(cmz_context *ctx, const char *path, object_view *v) {
  const cmz_file *file;
  memset(v, 0, sizeof *v);
  CMZ_TRY(cmz_file_map(ctx, path, &file));
  v->data = file->data;
  v->size = file->size;
  const Elf64_Ehdr *header = (const void *)file->data;
  bool ok = v->size >= sizeof *header && memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 &&
            header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_shoff % 8 == 0 &&
            header->e_shoff <= v->size &&
            header->e_shnum <= (v->size - header->e_shoff) / sizeof(Elf64_Shdr);
  if (ok) {
    v->sections = (const void *)(v->data + header->e_shoff);
    v->section_count = header->e_shnum;
    for (uint32_t i = 0; i < v->section_count; i++) {
      ok = ok && section_inside(v, &v->sections[i]);
      if (v->sections[i].sh_type == SHT_SYMTAB) v->symtab = i;
    }
  }
  if (ok && v->symtab) {
    const Elf64_Shdr *s = &v->sections[v->symtab];
    ok = s->sh_link < v->section_count && s->sh_offset % 8 == 0;
    if (ok) {
      v->symbols = (const void *)(v->data + s->sh_offset);
      v->symbol_count = (uint32_t)(s->sh_size / sizeof(Elf64_Sym));
      v->names = (const void *)(v->data + v->sections[s->sh_link].sh_offset);
      v->names_size = v->sections[s->sh_link].sh_size;
      ok = v->names_size > 0 && v->names[v->names_size - 1] == 0;
    }
    for (uint32_t i = 0; ok && i < v->symbol_count; i++) ok = v->symbols[i].st_name < v->names_size;
  }
  if (ok) return CMZ_OK;
  return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){.file = path},
                  "not a relocatable object that cmzc can read");
}

static bool has_name(const cmz_names *names, const char *name) {
  for (uint32_t i = 0; i < names->count; i++) {
    if (strcmp(names->data[i], name) == 0) return true;
  }
  return false;
}

cmz_status cmz_elf_undefined(cmz_context *ctx, const char *path, cmz_names *defined,
                             cmz_names *undefined) {
  object_view v;
  CMZ_TRY(open_view(ctx, path, &v));
  for (uint32_t i = 1; i < v.symbol_count; i++) {
    const Elf64_Sym *s = &v.symbols[i];
    if (ELF64_ST_BIND(s->st_info) == STB_LOCAL) continue;
    cmz_names *list = s->st_shndx == SHN_UNDEF ? undefined : defined;
    const char *name = v.names + s->st_name;
    if (*name && !has_name(list, name))
      cmz_vec_push(ctx->arena, list, cmz_arena_string(ctx->arena, name));
  }
  return CMZ_OK;
}

/* ---- making symbols local ---- */

static bool stays_global(const object_view *v, const Elf64_Sym *s, const char *const *keep,
                         uint32_t count) {
  if (ELF64_ST_BIND(s->st_info) == STB_LOCAL) return false;
  if (s->st_shndx == SHN_UNDEF) return true;
  for (uint32_t i = 0; i < count; i++) {
    if (strcmp(v->names + s->st_name, keep[i]) == 0) return true;
  }
  return false;
}

/* Locals first, as ELF wants it; NEW_INDEX receives each symbol's new place. Returns the number of
 * locals. */
static uint32_t sort_symbols(const object_view *v, const char *const *keep, uint32_t keep_count,
                             Elf64_Sym *sorted, uint32_t *new_index) {
  uint32_t at = 0, locals = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (uint32_t i = 0; i < v->symbol_count; i++) {
      bool global = i != 0 && stays_global(v, &v->symbols[i], keep, keep_count);
      if (global != (pass == 1)) continue;
      sorted[at] = v->symbols[i];
      unsigned bind = global ? ELF64_ST_BIND(sorted[at].st_info) : STB_LOCAL;
      sorted[at].st_info = (uint8_t)ELF64_ST_INFO(bind, ELF64_ST_TYPE(sorted[at].st_info));
      /* Exports were hidden from nothing but this object's parts; locals have no visibility. */
      sorted[at].st_other = (uint8_t)(sorted[at].st_other & ~3u);
      new_index[i] = at++;
    }
    if (pass == 0) locals = at;
  }
  return locals;
}

static bool write_at(int fd, const void *data, size_t size, uint64_t offset) {
  const char *from = data;
  while (size) {
    ssize_t n = pwrite(fd, from, size, (off_t)offset);
    if (n <= 0) return false;
    from += n;
    size -= (size_t)n;
    offset += (uint64_t)n;
  }
  return true;
}

static bool write_relocations(cmz_context *ctx, const object_view *v, int fd, const Elf64_Shdr *s,
                              const uint32_t *new_index) {
  size_t count = s->sh_size / sizeof(Elf64_Rela);
  cmz_arena_mark mark = cmz_arena_save(ctx->arena);
  Elf64_Rela *all = cmz_arena_copy(ctx->arena, v->data + s->sh_offset, count * sizeof *all);
  bool ok = true;
  for (size_t i = 0; i < count && ok; i++) {
    uint64_t symbol = ELF64_R_SYM(all[i].r_info);
    ok = symbol < v->symbol_count;
    if (ok) all[i].r_info = ELF64_R_INFO((uint64_t)new_index[symbol], ELF64_R_TYPE(all[i].r_info));
  }
  ok = ok && write_at(fd, all, count * sizeof *all, s->sh_offset);
  cmz_arena_restore(ctx->arena, mark);
  return ok;
}

cmz_status cmz_elf_localise(cmz_context *ctx, const char *path, const char *const *keep,
                            uint32_t keep_count) {
  object_view v;
  CMZ_TRY(open_view(ctx, path, &v));
  Elf64_Sym *sorted = CMZ_NEW_ARRAY(ctx->arena, Elf64_Sym, v.symbol_count);
  uint32_t *new_index = CMZ_NEW_ARRAY(ctx->arena, uint32_t, v.symbol_count);
  uint32_t locals = sort_symbols(&v, keep, keep_count, sorted, new_index);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return fail_write(ctx, path);
  Elf64_Shdr *headers = cmz_arena_copy(ctx->arena, v.sections, v.section_count * sizeof *headers);
  bool ok = true;
  for (uint32_t i = 0; i < v.section_count && ok; i++) {
    Elf64_Shdr *s = &headers[i];
    if (s->sh_type == SHT_RELA && s->sh_link == v.symtab)
      ok = write_relocations(ctx, &v, fd, s, new_index);
    if (s->sh_type == SHT_GROUP && s->sh_info < v.symbol_count) s->sh_info = new_index[s->sh_info];
    if (i == v.symtab) s->sh_info = locals;
  }
  const Elf64_Ehdr *header = (const void *)v.data;
  uint64_t headers_at = header->e_shoff;
  ok = ok && write_at(fd, sorted, v.symbol_count * sizeof *sorted, v.sections[v.symtab].sh_offset);
  ok = ok && write_at(fd, headers, v.section_count * sizeof *headers, headers_at);
  if (close(fd) != 0) ok = false;
  return ok ? CMZ_OK : fail_write(ctx, path);
}
