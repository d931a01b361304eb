/* onnx_writer.h - a few functions that write ONNX files for tests, byte by byte, so that wrong ones
 * can be written too. */
#ifndef CMZ_TESTS_ONNX_WRITER_H
#define CMZ_TESTS_ONNX_WRITER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct message {
  uint8_t *data;
  size_t size;
} message;

static inline void put_raw(message *m, const void *data, size_t size) {
  m->data = realloc(m->data, m->size + size + 1);
  if (size) memcpy(m->data + m->size, data, size);
  m->size += size;
}
static inline void put_varint(message *m, uint64_t v) {
  do {
    uint8_t byte = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
    put_raw(m, &byte, 1);
    v >>= 7;
  } while (v);
}
static inline void put_int(message *m, unsigned field, uint64_t v) {
  put_varint(m, (uint64_t)field << 3), put_varint(m, v);
}
static inline void put_bytes(message *m, unsigned field, const void *data, size_t size) {
  put_varint(m, (uint64_t)field << 3 | 2), put_varint(m, size), put_raw(m, data, size);
}
static inline void put_text(message *m, unsigned field, const char *text) {
  put_bytes(m, field, text, strlen(text));
}
/* Takes INNER and frees it. */
static inline void put_message(message *m, unsigned field, message inner) {
  put_bytes(m, field, inner.data, inner.size), free(inner.data);
}

/* A NodeProto; INPUTS and OUTPUTS are names with blanks between ("-" is an empty name). */
static inline void put_names(message *m, unsigned field, const char *names) {
  char copy[256];
  snprintf(copy, sizeof copy, "%s", names);
  for (char *save = NULL, *name = strtok_r(copy, " ", &save); name;
       name = strtok_r(NULL, " ", &save))
    put_text(m, field, strcmp(name, "-") ? name : "");
}
static inline message node(const char *op, const char *inputs, const char *outputs) {
  message m = {0};
  put_names(&m, 1, inputs), put_names(&m, 2, outputs), put_text(&m, 4, op);
  return m;
}
/* A ValueInfoProto of a float tensor; dims < 0 have no size. */
static inline message value_info(const char *name, int rank, const int64_t *dims) {
  message shape = {0}, tensor = {0}, type = {0}, m = {0};
  for (int i = 0; i < rank; i++) {
    message dim = {0};
    if (dims[i] >= 0) put_int(&dim, 1, (uint64_t)dims[i]);
    put_message(&shape, 1, dim);
  }
  put_int(&tensor, 1, 1), put_message(&tensor, 2, shape), put_message(&type, 1, tensor);
  put_text(&m, 1, name), put_message(&m, 2, type);
  return m;
}
/* A TensorProto with raw data. */
static inline message tensor(const char *name, int type, int rank, const int64_t *dims,
                             const void *data, size_t size) {
  message m = {0};
  for (int i = 0; i < rank; i++) put_int(&m, 1, (uint64_t)dims[i]);
  put_int(&m, 2, (uint64_t)type), put_text(&m, 8, name);
  if (data) put_bytes(&m, 9, data, size);
  return m;
}
/* A ModelProto around GRAPH (freed). */
static inline message model(message graph, int opset) {
  message m = {0}, import = {0};
  put_int(&m, 1, 8);
  put_message(&m, 7, graph);
  put_int(&import, 2, (uint64_t)opset);
  put_message(&m, 8, import);
  return m;
}
static inline void write_message(message *m, const char *path) {
  FILE *f = fopen(path, "wb");
  if (f) fwrite(m->data, 1, m->size, f), fclose(f);
  free(m->data);
  *m = (message){0};
}

#endif
