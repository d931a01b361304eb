/* weights_file.c - maps the weights file of a model compiled with --weights external.
 * In: the path from the configuration, or the file beside the library. Out: the table of weight
 * addresses. Always holds: the file is mapped read-only and shared, and its first 16 bytes are
 * those the model was compiled with. */
#include "instance.h"

/* Room for the directory of a library's path and a file's base name. */
enum { PATH_BYTES = 4096 };

static const char *default_path(const cmz_program *p, char *path) {
  struct cmz_dl_info info = {0};
  size_t directory = 0;
  if (cmz_system_dladdr(p, &info) && info.file) {
    for (size_t i = 0; info.file[i]; i++) {
      if (info.file[i] == '/') directory = i + 1;
    }
  }
  if (directory + strlen(p->weights_file) + 1 > PATH_BYTES) return p->weights_file;
  if (directory) memcpy(path, info.file, directory);
  memcpy(path + directory, p->weights_file, strlen(p->weights_file) + 1);
  return path;
}

static uint32_t weight_count(const cmz_program *p) {
  uint32_t count = 0;
  for (uint32_t b = 0; b < p->buffer_count; b++) {
    if (p->buffers[b].kind == CMZ_PB_CONSTANT && p->buffers[b].index >= count) {
      count = p->buffers[b].index + 1;
    }
  }
  return count;
}

int cmz_weights_map(cmz_model *m) {
  const cmz_program *p = m->program;
  char buffer[PATH_BYTES];
  const char *path = m->config.weights_path ? m->config.weights_path : default_path(p, buffer);
  int fd = cmz_system_open(path, 0x80000 /* O_RDONLY | O_CLOEXEC */);
  if (fd < 0) return cmz_fail_run(m, CMZ_UNAVAILABLE, "cannot open the weights file \"%s\"", path);
  long size = cmz_system_seek(fd, 0, 2 /* SEEK_END */);
  void *map = size > 0
                  ? cmz_system_map(NULL, (size_t)size, 1 /* PROT_READ */, 1 /* MAP_SHARED */, fd, 0)
                  : (void *)-1;
  close(fd);
  if (map == (void *)-1) {
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "cannot map the weights file \"%s\"", path);
  }
  m->weights_map = map;
  m->weights_map_bytes = (size_t)size;
  if (size < 16 || memcmp(map, p->weights_hash, 16) != 0) {
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "\"%s\" is not the weights file of this model", path);
  }
  uint32_t count = weight_count(p);
  m->weight_table = cmz_memory_take(m, count * sizeof *m->weight_table);
  if (!m->weight_table)
    return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the weights' table");
  m->weight_table_bytes = count * sizeof *m->weight_table;
  for (uint32_t i = 0; i < count; i++) {
    if (p->weight_offsets[i] > (uint64_t)size ||
        p->weight_sizes[i] > (uint64_t)size - p->weight_offsets[i]) {
      return cmz_fail_run(m, CMZ_UNAVAILABLE, "the weights file \"%s\" is truncated", path);
    }
    m->weight_table[i] = (const uint8_t *)map + p->weight_offsets[i];
  }
  m->weights = m->weight_table;
  return CMZ_SUCCESS;
}
