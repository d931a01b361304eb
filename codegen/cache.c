/* cache.c - compiled kernels by what they were compiled from.
 * In: description, schedule, CPU row, options. Out: object files kept in a directory.
 * Always holds: an entry is whole or absent (written beside and renamed); its last 32 bytes are a
 * checksum, so a damaged one is taken for absent; the whole directory may be deleted at any time.
 */
#define _GNU_SOURCE
#include "cache.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "llvm-c/Core.h"

#define CACHE_FORMAT 1u
static const char magic[16] = "cmz kernel v1\n";

typedef struct trailer {
  char magic[16];
  cmz_hash128 hash;
} trailer;

/* The compiler itself is part of the key: a new build of it never finds the old one's objects. */
static void add_compiler(cmz_text *t) {
  unsigned major = 0, minor = 0, patch = 0;
  LLVMGetVersion(&major, &minor, &patch);
  cmz_text_add(t, "format %u llvm %u.%u.%u\n", CACHE_FORMAT, major, minor, patch);
  Dl_info info;
  struct stat st;
  if (dladdr((const void *)(uintptr_t)&cmz_cache_key, &info) && info.dli_fname &&
      stat(info.dli_fname, &st) == 0)
    cmz_text_add(t, "build %lld %lld %lld\n", (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                 (long long)st.st_mtim.tv_nsec);
}

void cmz_cache_key(const cmz_kernel *k, const cmz_schedule *s, const cmz_cpu_row *cpu,
                   const cmz_codegen_options *o, const char *symbol, char key[33]) {
  cmz_text t = {.arena = k->arena};
  cmz_hash128 h = cmz_kernel_hash(k, s);
  add_compiler(&t);
  cmz_text_add(&t, "%016" PRIx64 "%016" PRIx64 " %s %s%s %s %s O%d%s %s\n", h.hi, h.lo, cpu->name,
               cpu->llvm_cpu, cpu->soft_fma ? "+softfma" : "", cpu->llvm_features,
               o->target->kernel_os->llvm_triple, o->optimise, o->small ? "s" : "", symbol);
  h = cmz_hash_bytes(t.data, t.length);
  snprintf(key, 33, "%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
}

static const char *entry_path(cmz_context *ctx, const char *dir, const char *key) {
  return cmz_arena_printf(ctx->arena, "%s/%.2s/%s.o", dir, key, key);
}

/* Reading is done here and not by cmz_file_map, because a missing entry is no error. */
static void *read_whole(cmz_arena *arena, const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  struct stat st;
  void *data = NULL;
  if (fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && st.st_size < (off_t)1 << 30) {
    *size = (size_t)st.st_size;
    data = cmz_arena_alloc(arena, *size);
    if (fread(data, 1, *size, f) != *size) data = NULL;
  }
  fclose(f);
  return data;
}

bool cmz_cache_fetch(cmz_context *ctx, const char *dir, const char *key, const char *path) {
  cmz_arena *arena = cmz_arena_create(ctx);
  size_t size = 0;
  const uint8_t *data = read_whole(arena, entry_path(ctx, dir, key), &size);
  bool ok = false;
  if (data && size > sizeof(trailer)) {
    trailer t;
    size -= sizeof t;
    memcpy(&t, data + size, sizeof t);
    cmz_hash128 h = cmz_hash_bytes(data, size);
    ok = memcmp(t.magic, magic, sizeof magic) == 0 && h.lo == t.hash.lo && h.hi == t.hash.hi &&
         cmz_file_write(ctx, path, data, size) == CMZ_OK;
  }
  cmz_arena_destroy(arena);
  return ok;
}

static bool make_directory(const char *path) { return mkdir(path, 0777) == 0 || errno == EEXIST; }

static bool make_directories(cmz_context *ctx, const char *path) {
  char *copy = cmz_arena_string(ctx->arena, path);
  for (char *p = copy + 1; *p; p++) {
    if (*p != '/') continue;
    *p = 0;
    if (!make_directory(copy)) return false;
    *p = '/';
  }
  return true;
}

void cmz_cache_store(cmz_context *ctx, const char *dir, const char *key, const char *path) {
  cmz_arena *arena = cmz_arena_create(ctx);
  const char *to = entry_path(ctx, dir, key);
  const char *part = cmz_arena_printf(ctx->arena, "%s.%ld.part", to, (long)getpid());
  size_t size = 0;
  const void *data = read_whole(arena, path, &size);
  if (data && make_directories(ctx, to)) {
    trailer t = {.hash = cmz_hash_bytes(data, size)};
    memcpy(t.magic, magic, sizeof magic);
    FILE *f = fopen(part, "wb");
    bool ok = f && fwrite(data, 1, size, f) == size && fwrite(&t, 1, sizeof t, f) == sizeof t;
    if (f && fclose(f) != 0) ok = false;
    if (!ok || rename(part, to) != 0) remove(part);
  }
  cmz_arena_destroy(arena);
}
