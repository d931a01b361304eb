/* internal.h - what the files of codegen/ that make outputs share: the program's tables in memory,
 * the weights' places, object files, linking. Nothing outside of codegen/ includes it. */
#ifndef CMZ_CODEGEN_INTERNAL_H
#define CMZ_CODEGEN_INTERNAL_H

#include "codegen.h"
#include "runtime_tables.h"

/* One constant of the plan as it lies in the output. */
typedef struct cmz_weight {
  cmz_cid constant;
  cmz_layout layout; /* that the kernels read */
  uint64_t offset, bytes;
} cmz_weight;

/* The tables of program.h, filled in as the runtime will see them, but for the pointers that only
 * linking knows. */
typedef struct cmz_tables {
  cmz_program program;
  cmz_description description;
  size_t strings_size;
  CMZ_VEC(cmz_weight) weights;
  uint64_t weight_bytes; /* of the section or file, padding included */
  uint32_t input_dim_total;
  /* Some buffer holds strings, a sequence or an optional: the runtime's values.c is linked in */
  bool needs_values;
  /* C names of the runtime ops in use, as program.ops will list them */
  CMZ_VEC(const char *) op_functions;
} cmz_tables;

/* program.c */
cmz_status cmz_tables_build(cmz_context *ctx, const cmz_plan *plan, const cmz_codegen_options *o,
                            cmz_tables *out);

/* glue.c: the object with the tables, the runtime and the API. KIND decides what is exported.
 * SYMBOLS receives the names that the object leaves to the C library. */
typedef CMZ_VEC(const char *) cmz_names;
cmz_status cmz_glue_emit(cmz_context *ctx, const cmz_tables *t, const cmz_codegen_options *o,
                         const cmz_kernel_object *kernels, cmz_output_kind kind, const char *path);

/* images.c: the kernels of each level of a GPU as one module; flat objects as from
 * cmz_kernels_compile. */
cmz_status cmz_images_build(cmz_context *ctx, const cmz_codegen_options *o,
                            const cmz_kernel_object *kernels, uint32_t kernel_count,
                            cmz_program_device *out);

/* assemble.c: the object file PATH from the assembly TEXT for OS, through LLVM. */
cmz_status cmz_assemble(cmz_context *ctx, const cmz_os_row *os, const cmz_text *text,
                        const char *path);

/* weights.c */
/* Bytes of a constant of strings in the output. */
uint64_t cmz_weight_string_bytes(cmz_arena *arena, const cmz_constant *c);
cmz_status cmz_weights_object(cmz_context *ctx, const cmz_plan *plan, const cmz_tables *t,
                              const cmz_codegen_options *o, const char *path);
cmz_status cmz_weights_file(cmz_context *ctx, const cmz_plan *plan, const cmz_tables *t,
                            const char *path, uint8_t hash[16]);

/* elf.c: a relocatable object with one data section (streamed by WRITE) and global symbols in it;
 * also the import stubs. */
typedef struct cmz_elf_symbol {
  const char *name;
  uint64_t value, size;
  bool function;
} cmz_elf_symbol;
typedef struct cmz_elf_blob {
  uint16_t machine; /* EM_* */
  uint32_t flags;   /* of the ELF header */
  const char *section;
  uint64_t size;
  bool large, code;
  const cmz_elf_symbol *symbols;
  uint32_t symbol_count;
  bool hidden;
  cmz_status (*write)(void *user, void *stream);
  void *user;
} cmz_elf_blob;
cmz_status cmz_elf_write(cmz_context *ctx, const char *path, const cmz_elf_blob *blob);
/* Names that the object at PATH needs and does not define, added to NAMES when not there yet. */
cmz_status cmz_elf_undefined(cmz_context *ctx, const char *path, cmz_names *defined,
                             cmz_names *undefined);
/* Makes every defined global symbol of the relocatable object at PATH local, but for those in KEEP.
 */
cmz_status cmz_elf_localise(cmz_context *ctx, const char *path, const char *const *keep,
                            uint32_t keep_count);

/* foreign_object.c: a Mach-O, COFF or WebAssembly object with one hidden read-only symbol, streamed
 * by WRITE. */
typedef struct cmz_data_object {
  const char *symbol; /* without the format's own underscore */
  uint64_t size;
  cmz_status (*write)(void *user, void *stream);
  void *user;
} cmz_data_object;
cmz_status cmz_foreign_object_write(cmz_context *ctx, const cmz_os_row *os,
                                    const cmz_data_object *object, const char *path);

/* link.c */
typedef struct cmz_link {
  const cmz_codegen_options *options;
  cmz_output_kind kind;
  const char *const *objects;
  uint32_t object_count;
  const char *const *exports;
  uint32_t export_count;
  const char *soname;
} cmz_link;
cmz_status cmz_link_run(cmz_context *ctx, const cmz_link *link, const char *path);
/* The path of lld's flavour NAME ("ld.lld"). */
cmz_status cmz_linker_find(cmz_context *ctx, const char *name, const char **linker);
/* Runs ARGUMENTS, which NULL ends; what it prints goes to the file LOG and becomes the message when
 * it fails. */
cmz_status cmz_linker_run(cmz_context *ctx, const char *const *arguments, const char *log);
/* link_foreign.c: libraries of Apple's systems and Windows. */
cmz_status cmz_link_foreign(cmz_context *ctx, const cmz_link *link, const char *path);

/* archive.c: an archive of MEMBERS, as Apple's linker wants it (BSD) or as all others do. */
typedef struct cmz_member {
  const char *object, *name; /* path; what it is called inside: at most 15 characters */
  /* That it defines for others, as they stand in it */
  const char *const *symbols;
  uint32_t symbol_count;
} cmz_member;
cmz_status cmz_archive_write(cmz_context *ctx, bool bsd, const cmz_member *members, uint32_t count,
                             const char *path);

/* header.c */
cmz_status cmz_header_write(cmz_context *ctx, const cmz_tables *t, const cmz_codegen_options *o,
                            const char *path);

/* Writes SIZE bytes to the stdio stream of cmz_elf_blob.write and cmz_data_object.write. */
bool cmz_stream_write(void *stream, const void *data, size_t size);
/* Copies the file at PATH to it, a piece at a time: a mapped file would count as memory. */
bool cmz_stream_file(void *stream, const char *path);

#endif
