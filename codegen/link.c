/* link.c - runs ld.lld. In: object files, what is exported, the kind of output. Out: the linked
 * file at a path. Always holds: what is left undefined are names from the closed list below, so
 * that the output needs nothing but libc.so.6 and libm.so.6; the stubs that stand for them are made
 * here, no system's own libraries are read. */
#include "internal.h"
#include "machine.h"
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CMZ_LLVM_TOOLS
#define CMZ_LLVM_TOOLS ""
#endif

extern char **environ;

/* What outputs may take from the C library, by the library that has it. */
static const char *const libc_names[] = {
    "posix_memalign", "malloc",         "calloc",       "realloc",     "free",
    "memcpy",         "memmove",        "memset",       "memcmp",      "strlen",
    "strcmp",         "strncmp",        "strchr",       "strrchr",     "vsnprintf",
    "snprintf",       "printf",         "puts",         "putchar",     "dprintf",
    "vdprintf",       "syscall",        "close",        "sched_yield", "munmap",
    "clock_gettime",  "open",           "mmap",         "lseek",       "read",
    "write",          "pthread_create", "pthread_join", "strtod",      "strtol",
    "strtoll",        "strtoul",        "strtoull",     "qsort",       "exit",
    "mkdir",          "rename",         "unlink",       "strerror",    "__libc_start_main",
    "__libc_init",    "getauxval",      "abort",        "access",      "sysconf",
};
static const char *const libdl_names[] = {"dladdr", "dlopen", "dlsym", "dlclose", "dlerror"};
static const char *const libm_names[] = {
    "fmod",      "fmodf",      "pow",   "powf",   "exp",   "expf",   "exp2",      "exp2f",
    "log",       "logf",       "log2",  "log2f",  "log10", "log10f", "sin",       "sinf",
    "cos",       "cosf",       "tan",   "tanf",   "tanh",  "tanhf",  "erf",       "erff",
    "floor",     "floorf",     "ceil",  "ceilf",  "rint",  "rintf",  "nearbyint", "nearbyintf",
    "roundeven", "roundevenf", "round", "roundf", "trunc", "truncf", "sqrt",      "sqrtf",
    "fma",       "fmaf",       "fmin",  "fminf",  "fmax",  "fmaxf",  "atan",      "atanf",
    "atan2",     "atan2f",     "asin",  "asinf",  "acos",  "acosf",  "sinh",      "sinhf",
    "cosh",      "coshf",      "asinh", "asinhf", "acosh", "acoshf", "atanh",     "atanhf",
    "ldexp",     "ldexpf",
};

/* The libraries, with the member of the OS row that names each. */
static const struct import_library {
  size_t soname; /* offset in cmz_os_row */
  const char *const *names;
  size_t count;
} libraries[] = {
#define LIBRARY(member, list)                                                                      \
  { offsetof(cmz_os_row, member), list, CMZ_COUNT_OF(list) }
    LIBRARY(libc, libc_names),
    LIBRARY(libdl, libdl_names),
    LIBRARY(libm, libm_names),
};

static bool listed(const char *name, const char *const *list, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (strcmp(list[i], name) == 0) return true;
  }
  return false;
}

/* ---- subprocess ---- */

cmz_status cmz_linker_find(cmz_context *ctx, const char *name, const char **linker) {
  *linker = cmz_arena_printf(ctx->arena, "%s/%s", CMZ_LLVM_TOOLS, name);
  if (access(*linker, X_OK) == 0) return CMZ_OK;
  const char *path = getenv("PATH");
  const char *names[] = {cmz_arena_printf(ctx->arena, "%s-22", name), name};
  for (size_t n = 0; n < CMZ_COUNT_OF(names); n++) {
    for (const char *at = path ? path : ""; *at;) {
      size_t length = strcspn(at, ":");
      const char *candidate = cmz_arena_printf(ctx->arena, "%.*s/%s", (int)length, at, names[n]);
      if (access(candidate, X_OK) == 0) return *linker = candidate, CMZ_OK;
      at += length;
      at += *at == ':';
    }
  }
  return cmz_fail_hint(ctx, CMZ_E_IO, (cmz_loc){0},
                       cmz_arena_printf(ctx->arena, "install lld-22, or put %s into PATH", name),
                       "there is no %s to link with", name);
}

static cmz_status fail_spawn(cmz_context *ctx, const char *program, int error) {
  return cmz_fail(ctx, CMZ_E_IO, (cmz_loc){0}, "cannot run %s: %s", program, strerror(error));
}

cmz_status cmz_linker_run(cmz_context *ctx, const char *const *arguments, const char *log) {
  posix_spawn_file_actions_t actions;
  int error = posix_spawn_file_actions_init(&actions);
  if (error) return fail_spawn(ctx, arguments[0], error);
  posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t child;
  error = posix_spawn(&child, arguments[0], &actions, NULL, (char *const *)(uintptr_t)arguments,
                      environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error) return fail_spawn(ctx, arguments[0], error);
  int state = 0;
  while (waitpid(child, &state, 0) < 0) {
    if (errno != EINTR) return fail_spawn(ctx, arguments[0], errno);
  }
  if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return CMZ_OK;
  const cmz_file *output = NULL;
  const char *text = "";
  if (cmz_file_map(ctx, log, &output) == CMZ_OK && output->size) {
    text = cmz_arena_printf(ctx->arena, "%.*s", (int)CMZ_MIN(output->size, 2000u),
                            (const char *)output->data);
  }
  cmz_status code = strstr(text, "No space left") || strstr(text, "cannot open output")
                        ? CMZ_E_IO
                        : CMZ_E_INTERNAL;
  return cmz_fail(ctx, code, (cmz_loc){0}, "the linker failed (%s %d): %s",
                  WIFSIGNALED(state) ? "signal" : "status",
                  WIFSIGNALED(state) ? WTERMSIG(state) : WEXITSTATUS(state), text);
}

/* ---- import stubs ---- */

static cmz_status write_nothing(void *user, void *stream) {
  (void)user;
  return cmz_stream_write(stream, "\xcc", 1) ? CMZ_OK : CMZ_E_IO;
}

/* A shared library with SONAME that defines NAMES: what the linker reads in place of the system's
 * own. */
static cmz_status make_stub(cmz_context *ctx, const cmz_link *link, const char *linker,
                            const char *soname, const cmz_names *names, const char **stub) {
  const char *work = link->options->work_dir;
  cmz_elf_symbol *symbols = CMZ_NEW_ARRAY(ctx->arena, cmz_elf_symbol, names->count);
  for (uint32_t i = 0; i < names->count; i++)
    symbols[i] = (cmz_elf_symbol){.name = names->data[i], .size = 1, .function = true};
  const char *object = cmz_arena_printf(ctx->arena, "%s/%s.stub.o", work, soname);
  *stub = cmz_arena_printf(ctx->arena, "%s/%s", work, soname);
  const cmz_machine *machine = cmz_machine_find(link->options->target->os);
  cmz_elf_blob blob = {.machine = machine->elf_machine,
                       .flags = machine->elf_flags,
                       .section = ".text",
                       .size = 1,
                       .code = true,
                       .symbols = symbols,
                       .symbol_count = names->count,
                       .write = write_nothing};
  CMZ_TRY(cmz_elf_write(ctx, object, &blob));
  const char *arguments[] = {linker, "-shared", "-soname", soname, "--build-id=none",
                             "-o",   *stub,     object,    NULL};
  return cmz_linker_run(ctx, arguments, cmz_arena_printf(ctx->arena, "%s/stub.log", work));
}

static const char *soname_of(const cmz_link *link, const char *name) {
  const cmz_os_row *os = link->options->target->os;
  for (size_t i = 0; i < CMZ_COUNT_OF(libraries); i++) {
    if (listed(name, libraries[i].names, libraries[i].count))
      return *(const char *const *)((const char *)os + libraries[i].soname);
  }
  return NULL;
}

/* The names that LINK's objects take from the library SONAME. */
static cmz_status names_from(cmz_context *ctx, const cmz_link *link, const cmz_names *undefined,
                             const char *soname, cmz_names *out) {
  for (uint32_t i = 0; i < undefined->count; i++) {
    const char *from = soname_of(link, undefined->data[i]);
    if (!from) {
      return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){.tensor = undefined->data[i]},
                      "generated code needs a function that nothing provides");
    }
    if (strcmp(from, soname) == 0) cmz_vec_push(ctx->arena, out, undefined->data[i]);
  }
  return CMZ_OK;
}

static cmz_status add_stubs(cmz_context *ctx, const cmz_link *link, const char *linker,
                            cmz_names *stubs) {
  cmz_names defined = {0}, wanted = {0}, undefined = {0};
  for (uint32_t i = 0; i < link->object_count; i++)
    CMZ_TRY(cmz_elf_undefined(ctx, link->objects[i], &defined, &wanted));
  for (uint32_t i = 0; i < wanted.count; i++) {
    if (strcmp(wanted.data[i], "_GLOBAL_OFFSET_TABLE_") != 0 &&
        !listed(wanted.data[i], defined.data, defined.count))
      cmz_vec_push(ctx->arena, &undefined, wanted.data[i]);
  }
  cmz_names done = {0};
  const cmz_os_row *os = link->options->target->os;
  for (size_t i = 0; i < CMZ_COUNT_OF(libraries); i++) {
    const char *soname = *(const char *const *)((const char *)os + libraries[i].soname);
    cmz_names names = {0};
    if (listed(soname, done.data, done.count)) continue;
    cmz_vec_push(ctx->arena, &done, soname);
    CMZ_TRY(names_from(ctx, link, &undefined, soname, &names));
    if (!names.count) continue;
    const char *stub;
    CMZ_TRY(make_stub(ctx, link, linker, soname, &names, &stub));
    cmz_vec_push(ctx->arena, stubs, stub);
  }
  return CMZ_OK;
}

/* ---- linking ---- */

typedef struct arguments {
  cmz_arena *arena;
  CMZ_VEC(const char *) list;
} arguments;

static void add(arguments *a, const char *word) { cmz_vec_push(a->arena, &a->list, word); }

static cmz_status version_script(cmz_context *ctx, const cmz_link *link, const char **path) {
  cmz_text text = {.arena = ctx->arena};
  cmz_text_add(&text, "{\n");
  if (link->export_count) cmz_text_add(&text, "global:\n");
  for (uint32_t i = 0; i < link->export_count; i++)
    cmz_text_add(&text, "  %s;\n", link->exports[i]);
  cmz_text_add(&text, "local: *;\n};\n");
  *path = cmz_arena_printf(ctx->arena, "%s/exports.map", link->options->work_dir);
  return cmz_file_write(ctx, *path, text.data, text.length);
}

static cmz_status add_dynamic(cmz_context *ctx, const cmz_link *link, const char *linker,
                              arguments *a) {
  const cmz_os_row *os = link->options->target->os;
  cmz_names stubs = {0};
  CMZ_TRY(add_stubs(ctx, link, linker, &stubs));
  for (uint32_t i = 0; i < stubs.count; i++) add(a, stubs.data[i]);
  const char *script;
  CMZ_TRY(version_script(ctx, link, &script));
  add(a, cmz_arena_printf(ctx->arena, "--version-script=%s", script));
  static const char *const common[] = {"--gc-sections",
                                       "--build-id=none",
                                       "-z",
                                       "relro",
                                       "-z",
                                       "now",
                                       "-z",
                                       "noexecstack",
                                       "-z",
                                       "defs",
                                       "--no-rosegment",
                                       "-O1",
                                       "--no-undefined-version"};
  for (size_t i = 0; i < CMZ_COUNT_OF(common); i++) add(a, common[i]);
  add(a, cmz_arena_printf(ctx->arena, "--hash-style=%s", os->hash_style));
  add(a, "-z");
  add(a, cmz_arena_printf(ctx->arena, "max-page-size=%u", os->page_bytes));
  if (link->kind == CMZ_OUT_EXECUTABLE) {
    add(a, "-pie");
    add(a, cmz_arena_printf(ctx->arena, "--dynamic-linker=%s", os->dynamic_linker));
  } else {
    add(a, "-shared");
    add(a, "-soname");
    add(a, link->soname);
  }
  return CMZ_OK;
}

cmz_status cmz_link_run(cmz_context *ctx, const cmz_link *link, const char *path) {
  if (link->options->target->os->format != CMZ_OBJECT_ELF) return cmz_link_foreign(ctx, link, path);
  const char *linker;
  CMZ_TRY(cmz_linker_find(ctx, "ld.lld", &linker));
  arguments a = {.arena = ctx->arena};
  add(&a, linker);
  bool relocatable = link->kind == CMZ_OUT_OBJECT || link->kind == CMZ_OUT_ARCHIVE;
  if (!link->options->debug_lines) add(&a, "--strip-debug");
  for (uint32_t i = 0; i < link->object_count; i++) add(&a, link->objects[i]);
  if (relocatable) {
    add(&a, "-r");
  } else {
    CMZ_TRY(add_dynamic(ctx, link, linker, &a));
  }
  add(&a, "-o");
  add(&a, path);
  add(&a, NULL);
  return cmz_linker_run(ctx, a.list.data,
                        cmz_arena_printf(ctx->arena, "%s/link.log", link->options->work_dir));
}
