/* link_foreign.c - shared libraries in Mach-O and COFF. In: object files, what is exported. Out: a
 * .dylib or .dll. Always holds: what is left undefined are names from the closed lists below, which
 * these systems have had since the versions that targets/ names; the stubs that stand for their
 * libraries are made here, no system's own files are read. */
#include "internal.h"
#include <errno.h>
#include <stdio.h>

static const char *const apple_names[] = {
    "posix_memalign",
    "free",
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "strlen",
    "strcmp",
    "vsnprintf",
    "snprintf",
    "close",
    "munmap",
    "clock_gettime",
    "open",
    "mmap",
    "lseek",
    "sysctlbyname",
    "dladdr",
    "pthread_create",
    "pthread_join",
    "pthread_mutex_init",
    "pthread_mutex_lock",
    "pthread_mutex_unlock",
    "pthread_mutex_destroy",
    "pthread_cond_init",
    "pthread_cond_wait",
    "pthread_cond_broadcast",
    "pthread_cond_destroy",
    "__bzero",
    "bzero",
    "memset_pattern16",
};
static const char *const kernel32_names[] = {
    "QueryPerformanceCounter",
    "QueryPerformanceFrequency",
    "CloseHandle",
    "GetLogicalProcessorInformation",
    "GetActiveProcessorCount",
    "CreateThread",
    "WaitForSingleObject",
    "AcquireSRWLockExclusive",
    "ReleaseSRWLockExclusive",
    "SleepConditionVariableSRW",
    "WakeAllConditionVariable",
    "CreateFileA",
    "GetFileSizeEx",
    "CreateFileMappingA",
    "MapViewOfFile",
    "UnmapViewOfFile",
    "GetModuleHandleExA",
    "GetModuleFileNameA",
    "IsProcessorFeaturePresent",
};
static const char *const ucrt_names[] = {
    "_aligned_malloc",
    "_aligned_free",
    "__stdio_common_vsprintf",
    "free",
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "strlen",
    "strcmp",
};

typedef struct words {
  cmz_context *ctx;
  const char *work;
  CMZ_VEC(const char *) list;
} words;

static void add(words *w, const char *word) { cmz_vec_push(w->ctx->arena, &w->list, word); }

static const char *file_of(const words *w, const char *name) {
  return cmz_arena_printf(w->ctx->arena, "%s/%s", w->work, name);
}

static cmz_status run(words *w) {
  add(w, NULL);
  return cmz_linker_run(w->ctx, w->list.data, file_of(w, "link.log"));
}

/* ---- Mach-O ---- */

/* A text stub of libSystem with every name that may be used. */
static cmz_status apple_stub(const words *w, const char *target, const char *path) {
  cmz_text text = {.arena = w->ctx->arena};
  cmz_text_add(&text,
               "--- !tapi-tbd\ntbd-version: 4\ntargets: [ %s ]\ninstall-name: "
               "'/usr/lib/libSystem.B.dylib'\nexports:\n",
               target);
  cmz_text_add(&text, "  - targets: [ %s ]\n    symbols: [ dyld_stub_binder", target);
  for (size_t i = 0; i < CMZ_COUNT_OF(apple_names); i++)
    cmz_text_add(&text, ", _%s", apple_names[i]);
  cmz_text_add(&text, " ]\n...\n");
  return cmz_file_write(w->ctx, path, text.data, text.length);
}

static cmz_status link_apple(cmz_context *ctx, const cmz_link *link, const char *path) {
  const cmz_os_row *os = link->options->target->os;
  const char *arch = strcmp(os->arch, "aarch64") == 0 ? "arm64" : os->arch, *linker;
  words w = {.ctx = ctx, .work = link->options->work_dir};
  CMZ_TRY(cmz_linker_find(ctx, "ld64.lld", &linker));
  const char *stub = file_of(&w, "libSystem.tbd");
  CMZ_TRY(apple_stub(&w, cmz_arena_printf(ctx->arena, "%s-%s", arch, os->system), stub));
  const char *first[] = {linker,
                         "-dylib",
                         "-arch",
                         arch,
                         "-platform_version",
                         os->system,
                         os->version,
                         os->version,
                         "-adhoc_codesign",
                         "-dead_strip",

                         "-install_name",
                         cmz_arena_printf(ctx->arena, "@rpath/%s", link->soname)};
  for (size_t i = 0; i < CMZ_COUNT_OF(first); i++) add(&w, first[i]);
  if (!link->options->debug_lines) add(&w, "-S");
  for (uint32_t i = 0; i < link->export_count; i++) {
    add(&w, "-exported_symbol");
    add(&w, cmz_arena_printf(ctx->arena, "_%s", link->exports[i]));
  }
  for (uint32_t i = 0; i < link->object_count; i++) add(&w, link->objects[i]);
  add(&w, stub);
  add(&w, "-o");
  add(&w, path);
  return run(&w);
}

/* ---- COFF ---- */

/* What every Microsoft C library links into a program statically: a mark that floating point is
 * used, and the probe of large stack frames, page by page, since a thread's stack grows by its
 * guard page. Sizes come in rax, or in x15 in units of 16; every other register but x16 and x17 is
 * kept. */
static const struct support {
  const char *arch, *machine, *probe;
} supports[] = {
    {"x86_64", "x64",
     "__chkstk:\n pushq %rcx\n pushq %rax\n leaq 24(%rsp), %rcx\n"
     "1: cmpq $4096, %rax\n jb 2f\n subq $4096, %rcx\n testb $0, (%rcx)\n subq $4096, %rax\n jmp "
     "1b\n"
     "2: subq %rax, %rcx\n testb $0, (%rcx)\n popq %rax\n popq %rcx\n retq\n"},
    {"aarch64", "arm64",
     "__chkstk:\n lsl x16, x15, #4\n mov x17, sp\n"
     "1: cmp x16, #4096\n b.lo 2f\n sub x17, x17, #4096\n ldr xzr, [x17]\n sub x16, x16, #4096\n b "
     "1b\n"
     "2: sub x17, x17, x16\n ldr xzr, [x17]\n ret\n"},
};

static cmz_status windows_support(const words *w, const cmz_os_row *os,
                                  const struct support **support, const char *path) {
  *support = supports;
  while (strcmp((*support)->arch, os->arch) != 0) (*support)++;
  cmz_text text = {.arena = w->ctx->arena};
  cmz_text_add(&text,
               ".section .rdata,\"dr\"\n.globl _fltused\n.p2align 2\n_fltused: .long "
               "0\n.text\n.globl __chkstk\n%s",
               (*support)->probe);
  return cmz_assemble(w->ctx, os, &text, path);
}

/* The import library of the DLL called LIBRARY. */
static cmz_status windows_stub(const words *outer, const char *linker, const char *machine,
                               const char *library, const char *const *names, size_t count,
                               const char *path) {
  words w = {.ctx = outer->ctx, .work = outer->work};
  cmz_text text = {.arena = w.ctx->arena};
  cmz_text_add(&text, "LIBRARY %s\nEXPORTS\n", library);
  for (size_t i = 0; i < count; i++) cmz_text_add(&text, "  %s\n", names[i]);
  const char *definitions = file_of(&w, cmz_arena_printf(w.ctx->arena, "%s.def", library));
  CMZ_TRY(cmz_file_write(w.ctx, definitions, text.data, text.length));
  const char *all[] = {linker, "/lib", cmz_arena_printf(w.ctx->arena, "/def:%s", definitions),
                       cmz_arena_printf(w.ctx->arena, "/machine:%s", machine),
                       cmz_arena_printf(w.ctx->arena, "/out:%s", path)};
  for (size_t i = 0; i < CMZ_COUNT_OF(all); i++) add(&w, all[i]);
  return run(&w);
}

static cmz_status link_windows(cmz_context *ctx, const cmz_link *link, const char *path) {
  const cmz_os_row *os = link->options->target->os;
  const char *linker;
  const struct support *support;
  words w = {.ctx = ctx, .work = link->options->work_dir};
  CMZ_TRY(cmz_linker_find(ctx, "lld-link", &linker));
  const char *kernel32 = file_of(&w, "kernel32.lib"), *ucrt = file_of(&w, "ucrt.lib"),
             *own = file_of(&w, "support.o");
  CMZ_TRY(windows_support(&w, os, &support, own));
  CMZ_TRY(windows_stub(&w, linker, support->machine, "KERNEL32.dll", kernel32_names,
                       CMZ_COUNT_OF(kernel32_names), kernel32));
  CMZ_TRY(windows_stub(&w, linker, support->machine, "ucrtbase.dll", ucrt_names,
                       CMZ_COUNT_OF(ucrt_names), ucrt));
  /* /Brepro: no time in the file. */
  const char *first[] = {
      linker,      "/dll",
      "/noentry",  "/nodefaultlib",
      "/noimplib", "/Brepro",
      "/opt:ref",  cmz_arena_printf(ctx->arena, "/machine:%s", support->machine)};
  for (size_t i = 0; i < CMZ_COUNT_OF(first); i++) add(&w, first[i]);
  for (uint32_t i = 0; i < link->export_count; i++)
    add(&w, cmz_arena_printf(ctx->arena, "/export:%s", link->exports[i]));
  for (uint32_t i = 0; i < link->object_count; i++) add(&w, link->objects[i]);
  const char *last[] = {own, kernel32, ucrt, cmz_arena_printf(ctx->arena, "/out:%s", path)};
  for (size_t i = 0; i < CMZ_COUNT_OF(last); i++) add(&w, last[i]);
  return run(&w);
}

cmz_status cmz_link_foreign(cmz_context *ctx, const cmz_link *link, const char *path) {
  /* Both linkers put the name of their output into it, which must not be that of a temporary file.
   */
  const char *output = cmz_arena_printf(ctx->arena, "%s/%s", link->options->work_dir, link->soname);
  bool apple = link->options->target->os->format == CMZ_OBJECT_MACHO;
  CMZ_TRY(apple ? link_apple(ctx, link, output) : link_windows(ctx, link, output));
  FILE *f = fopen(path, "wbe");
  bool ok = f != NULL && cmz_stream_file(f, output);
  if (f != NULL && fclose(f) != 0) ok = false;
  if (ok) return CMZ_OK;
  return cmz_fail(ctx, CMZ_E_IO, (cmz_loc){.file = path}, "cannot write: %s", strerror(errno));
}
