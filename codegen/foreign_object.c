/* foreign_object.c - object files of other formats than ELF with one read-only section. In: a
 * symbol's name, and its bytes as they are streamed. Out: a Mach-O, COFF or WebAssembly object that
 * defines it, at a multiple of 64 bytes and hidden from other images. Always holds: the bytes are
 * never in memory as a whole; the file depends on the input alone. The formats are Apple's
 * mach-o/loader.h, Microsoft's "PE Format", and WebAssembly's tool conventions ("Linking"). */
#include "internal.h"
#include "machine.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define LOG2_ALIGNMENT 6

typedef struct parts {
  const cmz_os_row *os;
  const cmz_data_object *object;
  cmz_text before, after; /* the bytes */
} parts;

static void add_number(cmz_text *text, uint64_t value, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; i++) {
    char byte = (char)(value >> (8 * i));
    cmz_text_add_bytes(text, &byte, 1);
  }
}

static void add_numbers(cmz_text *text, const uint32_t *values, size_t count) {
  for (size_t i = 0; i < count; i++) add_number(text, values[i], 4);
}

/* A name in a field of SIZE bytes. */
static void add_name(cmz_text *text, const char *name, size_t size) {
  cmz_text_add_bytes(text, name, strlen(name));
  for (size_t i = strlen(name); i < size; i++) add_number(text, 0, 1);
}

static void pad(cmz_text *text, uint64_t at, uint64_t alignment) {
  for (uint64_t i = at; i < cmz_align_up(at, alignment); i++) add_number(text, 0, 1);
}

/* ---- Mach-O ---- */

enum {
  MACHO_HEADER = 32,
  MACHO_SEGMENT = 72 + 80, /* with its one section */
  MACHO_BUILD = 24,
  MACHO_SYMTAB = 24,
  MACHO_DYSYMTAB = 80,
  MACHO_COMMANDS = MACHO_SEGMENT + MACHO_BUILD + MACHO_SYMTAB + MACHO_DYSYMTAB,
  MACHO_NLIST = 16
};

/* "15.1" as 15 << 16 | 1 << 8. */
static uint32_t macho_version(const char *text) {
  uint32_t version = 0;
  for (int shift = 16; shift >= 0; shift -= 8) {
    char *end;
    version |= (uint32_t)strtoul(text, &end, 10) << shift;
    if (*end != '.') break;
    text = end + 1;
  }
  return version;
}

static void macho(parts *p) {
  const cmz_machine *machine = cmz_machine_find(p->os);
  const uint64_t size = p->object->size;
  const uint32_t data_at = (uint32_t)cmz_align_up(MACHO_HEADER + MACHO_COMMANDS, 64);
  const uint32_t symbols_at = (uint32_t)cmz_align_up(data_at + size, 8);
  const uint32_t names = (uint32_t)cmz_align_up(strlen(p->object->symbol) + 3, 8);
  const uint32_t platform = strcmp(p->os->system, "ios") == 0 ? 2 : 1;
  cmz_text *t = &p->before;
  const uint32_t header[] = {0xfeedfacf, machine->macho_cpu, machine->macho_subtype, 1 /* object */,
                             4,          MACHO_COMMANDS,     0x2000 /* in parts */,  0};
  add_numbers(t, header, CMZ_COUNT_OF(header));
  const uint32_t segment[] = {0x19, MACHO_SEGMENT};
  add_numbers(t, segment, CMZ_COUNT_OF(segment));
  add_name(t, "", 16);
  const uint64_t place[] = {0, size, data_at, size};
  for (size_t i = 0; i < CMZ_COUNT_OF(place); i++) add_number(t, place[i], 8);
  const uint32_t protection[] = {7, 7, 1, 0};
  add_numbers(t, protection, CMZ_COUNT_OF(protection));
  add_name(t, "__const", 16);
  add_name(t, "__TEXT", 16);
  add_number(t, 0, 8);
  add_number(t, size, 8);
  const uint32_t section[] = {data_at, LOG2_ALIGNMENT, 0, 0, 0, 0, 0, 0};
  add_numbers(t, section, CMZ_COUNT_OF(section));
  const uint32_t build[] = {0x32, MACHO_BUILD, platform, macho_version(p->os->version), 0, 0};
  add_numbers(t, build, CMZ_COUNT_OF(build));
  const uint32_t symtab[] = {0x2, MACHO_SYMTAB, symbols_at, 1, symbols_at + MACHO_NLIST, names};
  add_numbers(t, symtab, CMZ_COUNT_OF(symtab));
  /* No locals, one defined symbol, from there on none that are undefined. */
  const uint32_t dysymtab[MACHO_DYSYMTAB / 4] = {0xb, MACHO_DYSYMTAB, 0, 0, 0, 1, 1, 0};
  add_numbers(t, dysymtab, CMZ_COUNT_OF(dysymtab));
  pad(t, t->length, 64);
  t = &p->after;
  pad(t, data_at + size, 8);
  add_number(t, 1, 4);    /* of the name */
  add_number(t, 0x1f, 1); /* defined in a section, external, but of this image alone */
  add_number(t, 1, 1);
  add_number(t, 0, 2);
  add_number(t, 0, 8);
  add_name(t, "", 1);
  add_name(t, "_", 1);
  add_name(t, p->object->symbol, names - 2);
}

/* ---- COFF ---- */

enum { COFF_HEADER = 20, COFF_SECTION = 40 };

static void coff(parts *p) {
  const uint32_t data_at = (uint32_t)cmz_align_up(COFF_HEADER + COFF_SECTION, 64);
  const uint32_t size = (uint32_t)cmz_align_up(p->object->size, 4);
  cmz_text *t = &p->before;
  add_number(t, cmz_machine_find(p->os)->coff_machine, 2);
  add_number(t, 1, 2); /* section */
  const uint32_t header[] = {0 /* no time */, data_at + size, 1 /* symbol */, 0};
  add_numbers(t, header, CMZ_COUNT_OF(header));
  add_name(t, ".rdata", 8);
  /* Initialised data, of 64 bytes' alignment, to be read. */
  const uint32_t section[] = {0, 0, size, data_at, 0, 0, 0, 0x40 | 0x00700000 | 0x40000000};
  add_numbers(t, section, CMZ_COUNT_OF(section));
  pad(t, t->length, 64);
  t = &p->after;
  pad(t, p->object->size, 4);
  add_number(t, 0, 4);
  add_number(t, 4, 4); /* of the name in the table, whose size stands first */
  add_number(t, 0, 4);
  add_number(t, 1, 2);
  add_number(t, 0, 2);
  add_number(t, 2, 1); /* external */
  add_number(t, 0, 1);
  add_number(t, 4 + strlen(p->object->symbol) + 1, 4);
  add_name(t, p->object->symbol, strlen(p->object->symbol) + 1);
}

/* ---- WebAssembly ---- */

/* A number in 7 bits a byte. */
static void add_leb(cmz_text *text, uint64_t value) {
  for (; value >= 0x80; value >>= 7) add_number(text, (value & 0x7f) | 0x80, 1);
  add_number(text, value, 1);
}

static void add_counted(cmz_text *text, const char *name) {
  add_leb(text, strlen(name));
  add_name(text, name, strlen(name));
}

/* A section or subsection KIND with CONTENT, of which EXTRA bytes follow later. */
static void add_section(cmz_text *text, uint32_t kind, const cmz_text *content, uint64_t extra) {
  add_number(text, kind, 1);
  add_leb(text, content->length + extra);
  cmz_text_add_bytes(text, content->data, content->length);
}

static void wasm(parts *p) {
  cmz_arena *arena = p->before.arena;
  const uint64_t size = p->object->size;
  cmz_text import = {.arena = arena}, data = {.arena = arena}, symbols = {.arena = arena},
           segments = {.arena = arena}, linking = {.arena = arena};
  add_name(&p->before, "", 1);
  add_name(&p->before, "asm", 3);
  add_number(&p->before, 1, 4);
  add_leb(&import, 1);
  add_counted(&import, "env");
  add_counted(&import, "__linear_memory");
  add_number(&import, 2, 1); /* a memory, without an upper limit */
  add_number(&import, 0, 1);
  add_leb(&import, size / 65536 + (size % 65536 != 0));
  add_section(&p->before, 2, &import, 0);
  add_leb(&data, 1);
  add_leb(&data, 0);
  add_number(&data, 0x0b0041, 3); /* at i32.const 0, end */
  add_leb(&data, size);
  add_section(&p->before, 11, &data, size);
  add_counted(&linking, "linking");
  add_leb(&linking, 2); /* version */
  add_leb(&symbols, 1);
  add_leb(&symbols, 1); /* data */
  add_leb(&symbols, 4); /* hidden */
  add_counted(&symbols, p->object->symbol);
  add_leb(&symbols, 0); /* segment, offset */
  add_leb(&symbols, 0);
  add_leb(&symbols, size);
  add_section(&linking, 8, &symbols, 0);
  add_leb(&segments, 1);
  add_counted(&segments, ".rodata.cmz");
  add_leb(&segments, LOG2_ALIGNMENT);
  add_leb(&segments, 0);
  add_section(&linking, 5, &segments, 0);
  add_section(&p->after, 0, &linking, 0);
}

static void (*const formats[CMZ_OBJECT_FORMATS])(parts *p) = {
    [CMZ_OBJECT_MACHO] = macho, [CMZ_OBJECT_COFF] = coff, [CMZ_OBJECT_WASM] = wasm};

cmz_status cmz_foreign_object_write(cmz_context *ctx, const cmz_os_row *os,
                                    const cmz_data_object *object, const char *path) {
  parts p = {
      .os = os, .object = object, .before = {.arena = ctx->arena}, .after = {.arena = ctx->arena}};
  if (object->size > UINT32_MAX - 4096)
    return cmz_fail(ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.file = path},
                    "an object file of this system holds less than 4 GiB");
  formats[os->format](&p);
  FILE *f = fopen(path, "wbe");
  bool ok = f != NULL && cmz_stream_write(f, p.before.data, p.before.length);
  cmz_status status = ok ? object->write(object->user, f) : CMZ_OK;
  ok = ok && cmz_stream_write(f, p.after.data, p.after.length);
  if (f != NULL && fclose(f) != 0) ok = false;
  if (status != CMZ_OK) return status;
  if (ok) return CMZ_OK;
  return cmz_fail(ctx, CMZ_E_IO, (cmz_loc){.file = path}, "cannot write: %s", strerror(errno));
}
