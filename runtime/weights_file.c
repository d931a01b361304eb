/* weights_file.c - maps the weights file of a model compiled with --weights external.
 * In: the path from the configuration, or the file beside the library. Out: the table of weight
 * addresses. Always holds: the file is mapped read-only and shared, and its first 16 bytes are
 * those the model was compiled with. */
#include "instance.h"

/* Room for the directory of a library's path and a file's base name. */
enum { PATH_BYTES = 4096 };
#if defined(_WIN32)
#define CMZ_PATHS_HAVE_BACKSLASHES 1
#else
#define CMZ_PATHS_HAVE_BACKSLASHES 0
#endif

static const char *default_path(const cmz_program *p, char *path) {
  const char *library = cmz_library_path(p, path, PATH_BYTES);
  size_t directory = 0;
  for (size_t i = 0; library && library[i]; i++) {
    if (library[i] == '/' || (CMZ_PATHS_HAVE_BACKSLASHES && library[i] == '\\')) directory = i + 1;
  }
  if (directory + strlen(p->weights_file) + 1 > PATH_BYTES) return p->weights_file;
  if (directory) memmove(path, library, directory);
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
  size_t size = 0;
  void *map = cmz_file_map(path, &size);
  if (!map) return cmz_fail_run(m, CMZ_UNAVAILABLE, "cannot open the weights file \"%s\"", path);
  if (map == (void *)-1) {
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "cannot map the weights file \"%s\"", path);
  }
  m->weights_map = map;
  m->weights_map_bytes = size;
  if (size < 16 || memcmp(map, p->weights_hash, 16) != 0) {
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "\"%s\" is not the weights file of this model", path);
  }
  uint32_t count = weight_count(p);
  m->weight_table = cmz_memory_take(m, count * sizeof *m->weight_table);
  if (!m->weight_table)
    return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the weights' table");
  m->weight_table_bytes = count * sizeof *m->weight_table;
  for (uint32_t i = 0; i < count; i++) {
    if (p->weight_offsets[i] > size || p->weight_sizes[i] > size - p->weight_offsets[i]) {
      return cmz_fail_run(m, CMZ_UNAVAILABLE, "the weights file \"%s\" is truncated", path);
    }
    m->weight_table[i] = (const uint8_t *)map + p->weight_offsets[i];
  }
  m->weights = m->weight_table;
  return CMZ_SUCCESS;
}
