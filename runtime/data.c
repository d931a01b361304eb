/* data.c - the memory that kernels work on, wherever it is. In: an instance. Out: bytes taken,
 * given back, moved. Always holds: without a device these are the allocator and memcpy; with one,
 * no address from here is ever dereferenced on the host. */
#include "device.h"

static const cmz_device_driver *driver(const cmz_model *m) { return m->program->device->driver; }

void *cmz_data_take(cmz_model *m, size_t bytes) {
  if (!m->device) return cmz_memory_take(m, bytes);
  void *memory = driver(m)->take(m->device, bytes ? bytes : 1);
  if (memory) m->memory += bytes;
  return memory;
}

void cmz_data_give(cmz_model *m, void *memory, size_t bytes) {
  if (!m->device) {
    cmz_memory_give(m, memory, bytes);
  } else if (memory) {
    m->memory -= bytes;
    driver(m)->give(m->device, memory, bytes ? bytes : 1);
  }
}

int cmz_data_none(cmz_model *m, int64_t bytes, const char *what) {
  int rc = m->device && driver(m)->state ? driver(m)->state(m, m->device) : CMZ_SUCCESS;
  if (rc) return rc;
  return cmz_fail_run(m, CMZ_OUT_OF_MEMORY,
                      m->device ? "the device has no %lld bytes for %s" : "no %lld bytes for %s",
                      (long long)bytes, what);
}

int cmz_data_copy(cmz_model *m, void *to, const void *from, size_t bytes) {
  if (bytes == 0 || to == from) return CMZ_SUCCESS;
  if (m->device) return driver(m)->copy(m, m->device, to, from, bytes);
  memmove(to, from, bytes);
  return CMZ_SUCCESS;
}

int cmz_data_read(cmz_model *m, void *host, const void *from, size_t bytes) {
  if (bytes == 0) return CMZ_SUCCESS;
  if (m->device) return driver(m)->read(m, m->device, host, from, bytes);
  memcpy(host, from, bytes);
  return CMZ_SUCCESS;
}

int cmz_data_write(cmz_model *m, void *to, const void *host, size_t bytes) {
  if (bytes == 0) return CMZ_SUCCESS;
  if (m->device) return driver(m)->write(m, m->device, to, host, bytes);
  memcpy(to, host, bytes);
  return CMZ_SUCCESS;
}

enum { DEVICE_ALIGNMENT = 256 };

/* Places every constant's address in the table at TABLE (NULL: only counts) and returns the bytes
 * of all. */
static size_t place_weights(const cmz_model *m, const void **table, char *base) {
  const cmz_program *p = m->program;
  size_t at = 0;
  for (uint32_t b = 0; b < p->buffer_count; b++) {
    const cmz_program_buffer *buffer = &p->buffers[b];
    if (buffer->kind != CMZ_PB_CONSTANT) continue;
    if (table) table[b] = base + at;
    at += ((size_t)m->slots[buffer->bytes_slot] + DEVICE_ALIGNMENT - 1) &
          ~(size_t)(DEVICE_ALIGNMENT - 1);
  }
  return at;
}

static int place_all(cmz_model *m) {
  const cmz_program *p = m->program;
  size_t bytes = place_weights(m, NULL, NULL);
  bool fresh = false;
  void *memory = driver(m)->take_weights(m->device, bytes + 1, &fresh);
  if (!memory) return cmz_data_none(m, (int64_t)bytes, "the weights");
  place_weights(m, (const void **)m->pointers, memory);
  int rc = CMZ_SUCCESS;
  for (uint32_t b = 0; fresh && !rc && b < p->buffer_count; b++) {
    const cmz_program_buffer *buffer = &p->buffers[b];
    if (buffer->kind == CMZ_PB_CONSTANT)
      rc = cmz_data_write(m, m->pointers[b], m->weights[buffer->index],
                          (size_t)m->slots[buffer->bytes_slot]);
  }
  return rc ? rc : driver(m)->wait(m, m->device);
}

static void close_device(cmz_model *m) {
  driver(m)->close(m, m->device);
  m->device = NULL;
}

int cmz_data_open(cmz_model *m) {
  cmz_commons *commons = m->program->device->commons;
  cmz_lock(&commons->lock);
  int rc = driver(m)->open(m, &m->device);
  if (!rc) {
    rc = place_all(m);
    if (rc) close_device(m); /* nobody shall find weights that are not there */
  }
  cmz_unlock(&commons->lock);
  return rc;
}

void cmz_data_close(cmz_model *m) {
  if (!m->device) return;
  cmz_commons *commons = m->program->device->commons;
  cmz_lock(&commons->lock);
  close_device(m);
  cmz_unlock(&commons->lock);
}
