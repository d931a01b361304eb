/* cmz_run_main.c - cmz-run: the runner for any compiled shared library. In: the command line. Out:
 * exit status. */
#include "runner.h"

#include <elf.h>

static bool read_at(int fd, uint64_t offset, void *to, size_t size) {
  return cmz_system_seek(fd, (long)offset, 0) == (long)offset &&
         cmz_system_read(fd, to, size) == (long)size;
}

/* Whether a 64-bit ELF file ends before its segments do: the loader would map what is not there,
 * and reading it would end the process. What is no such file is left to the loader's message. */
static bool is_cut(const char *path) {
  Elf64_Ehdr header;
  int fd = cmz_system_open(path, 0x80000 /* O_CLOEXEC */);
  if (fd < 0) return false;
  bool cut = false;
  long size = cmz_system_seek(fd, 0, 2 /* SEEK_END */);
  if (read_at(fd, 0, &header, sizeof header) && !memcmp(header.e_ident, ELFMAG, SELFMAG) &&
      header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_phentsize == sizeof(Elf64_Phdr)) {
    for (uint32_t i = 0; i < header.e_phnum && !cut; i++) {
      Elf64_Phdr segment;
      uint64_t end;
      cut = !read_at(fd, header.e_phoff + i * sizeof segment, &segment, sizeof segment) ||
            (segment.p_type == PT_LOAD &&
             (__builtin_add_overflow(segment.p_offset, segment.p_filesz, &end) ||
              end > (uint64_t)size));
    }
  }
  close(fd);
  return cut;
}

static const cmz_api *load(const char *path, char *error, size_t error_size) {
  char plain[4096];
  if (!strchr(path, '/') &&
      strlen(path) + 3 <
          sizeof plain) { /* a name alone would be looked for in the system's folders */
    snprintf(plain, sizeof plain, "./%s", path);
    path = plain;
  }
  if (is_cut(path)) {
    snprintf(error, error_size, "cannot load the model: \"%s\" is truncated", path);
    return NULL;
  }
  void *handle = dlopen(path, 2 /* RTLD_NOW */);
  if (!handle) {
    snprintf(error, error_size, "cannot load the model: %s", dlerror());
    return NULL;
  }
  const cmz_api *(*get)(void);
  void *symbol = dlsym(handle, "cmz_model_api");
  memcpy(&get, &symbol, sizeof get);
  if (!symbol) {
    snprintf(error, error_size, "\"%s\" is not a model that cmzc has compiled", path);
    return NULL;
  }
  return get();
}

int main(int argument_count, char **arguments) {
  return cmz_runner_run(argument_count, arguments, NULL, load);
}
