/* file.c - reading files by mapping them, writing them whole or not at all.
 * In: paths as the user gave them. Out: read-only views that last as long as the context; files.
 * Always holds: a reader of an output path sees the old file or the new one, never a part. */
#include "base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void cmz_file_unmap_all(cmz_context *ctx);

static cmz_status io_fail(cmz_context *ctx, const char *path, const char *what) {
  const char *reason = strerror(errno);
  return cmz_fail(ctx, CMZ_E_IO, (cmz_loc){.file = path}, "%s: %s", what, reason);
}

cmz_status cmz_file_map(cmz_context *ctx, const char *path, const cmz_file **file) {
  *file = NULL;
  /* Allocated first: running out of memory later would leak the descriptor. */
  cmz_file *f = CMZ_NEW(ctx->arena, cmz_file);
  f->path = cmz_arena_string(ctx->arena, path);
  int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return io_fail(ctx, path, "cannot open");
  struct stat info;
  if (fstat(descriptor, &info) != 0) {
    close(descriptor);
    return io_fail(ctx, path, "cannot stat");
  }
  if (!S_ISREG(info.st_mode)) {
    close(descriptor);
    return cmz_fail(ctx, CMZ_E_IO, (cmz_loc){.file = path}, "not a regular file");
  }
  f->size = (size_t)info.st_size;
  if (f->size > 0) {
    void *data = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) {
      close(descriptor);
      return io_fail(ctx, path, "cannot map");
    }
    f->data = data;
  }
  close(descriptor);
  f->next = ctx->files;
  ctx->files = f;
  *file = f;
  return CMZ_OK;
}

void cmz_file_unmap_all(cmz_context *ctx) {
  for (cmz_file *f = ctx->files; f; f = f->next)
    if (f->data) munmap((void *)(uintptr_t)f->data, f->size);
  ctx->files = NULL;
}

static bool write_all(int descriptor, const uint8_t *data, size_t size) {
  while (size > 0) {
    ssize_t n = write(descriptor, data, CMZ_MIN(size, (size_t)1 << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= (size_t)n;
  }
  return true;
}

/* Devices and pipes (/dev/null, /dev/stdout) are written in place: renaming would replace them. */
static bool is_special(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

cmz_status cmz_file_write(cmz_context *ctx, const char *path, const void *data, size_t size) {
  bool special = is_special(path);
  const char *name =
      special ? path : cmz_arena_printf(ctx->arena, "%s.%ld.tmp", path, (long)getpid());
  int flags = O_WRONLY | O_CLOEXEC | (special ? 0 : O_CREAT | O_TRUNC);
  int descriptor = open(name, flags, 0666);
  if (descriptor < 0) return io_fail(ctx, path, "cannot create");
  bool written = write_all(descriptor, data, size);
  int error = errno;
  if (close(descriptor) != 0 && written) {
    written = false;
    error = errno;
  }
  if (!written) {
    if (!special) unlink(name);
    errno = error;
    return io_fail(ctx, path, "cannot write");
  }
  return special ? CMZ_OK : cmz_file_commit(ctx, name, path);
}

cmz_status cmz_file_commit(cmz_context *ctx, const char *temporary, const char *path) {
  if (is_special(path)) {
    unlink(temporary);
    return cmz_fail(ctx, CMZ_E_IO, (cmz_loc){.file = path}, "exists and is not a regular file");
  }
  if (rename(temporary, path) != 0) {
    int error = errno;
    unlink(temporary);
    errno = error;
    return io_fail(ctx, path, "cannot write");
  }
  return CMZ_OK;
}
