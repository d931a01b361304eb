/* wire.c - reads the protobuf wire format in two steps: a checked walk over the mapped file copies
 * everything but tensor payloads, comments and unknown fields into a skeleton, and protobuf-c
 * unpacks the skeleton. In: a mapped file. Out: the message tree. Always holds: payloads above
 * VIEW_MINIMUM bytes are never copied; every length is checked before it is used; nesting is
 * limited; what protobuf-c gets is well-formed. */
#include "wire.h"

enum { VIEW_MINIMUM = 64, DEPTH_MAXIMUM = 160, LENGTH_BYTES = 5 };
enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum { FIRST_OWN_FIELD = 900, VIEW_FIELD = 900, VIEW_OFFSET = 901, VIEW_SIZE = 902 };

typedef struct walk {
  cmz_context *ctx;
  const cmz_file *file;
  cmz_text skeleton;
} walk;

static cmz_status damaged(const walk *w, const ProtobufCMessageDescriptor *type, const uint8_t *at,
                          const char *what) {
  return cmz_fail_hint(w->ctx, CMZ_E_INPUT, (cmz_loc){.file = w->file->path},
                       "the file is truncated, corrupted, or not an ONNX model",
                       "not readable as ONNX: %s at byte %zu, in a %s", what,
                       (size_t)(at - w->file->data), type->short_name);
}

bool cmz_wire_varint(const uint8_t **at, const uint8_t *end, uint64_t *value) {
  uint64_t result = 0;
  const uint8_t *p = *at;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    if (p == end) return false;
    uint8_t byte = *p++;
    if (shift == 63 && byte > 1) return false;
    result |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) {
      *at = p;
      *value = result;
      return true;
    }
  }
  return false;
}

static void put_varint(walk *w, uint64_t value) {
  uint8_t bytes[10];
  size_t count = 0;
  do {
    bytes[count] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    value >>= 7;
    count++;
  } while (value);
  cmz_text_add_bytes(&w->skeleton, bytes, count);
}

/* A length that is only known later: always LENGTH_BYTES long, filled in by patch_length. */
static size_t reserve_length(walk *w) {
  static const uint8_t zeros[LENGTH_BYTES] = {0};
  size_t position = w->skeleton.length;
  cmz_text_add_bytes(&w->skeleton, zeros, LENGTH_BYTES);
  return position;
}

static bool patch_length(walk *w, size_t position) {
  size_t length = w->skeleton.length - position - LENGTH_BYTES;
  if (length > INT32_MAX) return false;
  for (size_t i = 0; i < LENGTH_BYTES; i++) {
    uint8_t byte = (uint8_t)(length & 0x7f);
    w->skeleton.data[position + i] = (char)(i + 1 < LENGTH_BYTES ? byte | 0x80 : byte);
    length >>= 7;
  }
  return true;
}

/* What is read over without being kept: comments, and types that inference finds by itself. */
static bool skipped_field(const ProtobufCFieldDescriptor *field) {
  static const char *const names[] = {"doc_string", "value_info", "metadata_props", "denotation"};
  for (size_t i = 0; i < CMZ_COUNT_OF(names); i++)
    if (!strcmp(field->name, names[i])) return true;
  return field->id >= FIRST_OWN_FIELD;
}

static bool is_payload(const ProtobufCMessageDescriptor *type, uint32_t number) {
  if (type != &onnx__tensor_proto__descriptor) return false;
  return number == 4 || number == 5 || number == 7 || (number >= 9 && number <= 11);
}

/* The wire types that a field of TYPE may have; packed repeated scalars come as WIRE_BYTES too. */
static bool wire_type_fits(const ProtobufCFieldDescriptor *field, unsigned wire) {
  unsigned natural = WIRE_VARINT;
  switch (field->type) {
  case PROTOBUF_C_TYPE_FLOAT:
    natural = WIRE_FIXED32;
    break;
  case PROTOBUF_C_TYPE_DOUBLE:
    natural = WIRE_FIXED64;
    break;
  case PROTOBUF_C_TYPE_STRING:
  case PROTOBUF_C_TYPE_BYTES:
  case PROTOBUF_C_TYPE_MESSAGE:
    return wire == WIRE_BYTES;
  default:
    break;
  }
  return wire == natural || (wire == WIRE_BYTES && field->label == PROTOBUF_C_LABEL_REPEATED);
}

/* Steps over the value of a field; *SIZE is the payload's size for WIRE_BYTES. AT then stands at
 * the payload. */
static const char *measure(const uint8_t **at, const uint8_t *end, unsigned wire, size_t *size) {
  uint64_t value;
  switch (wire) {
  case WIRE_VARINT: {
    const uint8_t *start = *at;
    if (!cmz_wire_varint(at, end, &value)) return "a number is cut off";
    *size = (size_t)(*at - start);
    *at = start;
    return NULL;
  }
  case WIRE_FIXED64:
    *size = 8;
    break;
  case WIRE_FIXED32:
    *size = 4;
    break;
  case WIRE_BYTES:
    if (!cmz_wire_varint(at, end, &value)) return "a length is cut off";
    if (value > (uint64_t)(end - *at)) return "a field runs past the end";
    *size = (size_t)value;
    break;
  default:
    return "an impossible field type";
  }
  return *size > (size_t)(end - *at) ? "a field runs past the end" : NULL;
}

/* Packed numbers are checked here because protobuf-c and our own decoding rely on it. */
static const char *check_packed(const ProtobufCFieldDescriptor *field, const uint8_t *at,
                                size_t size) {
  if (field->type == PROTOBUF_C_TYPE_FLOAT)
    return size % 4 ? "an odd number of bytes of floats" : NULL;
  if (field->type == PROTOBUF_C_TYPE_DOUBLE)
    return size % 8 ? "an odd number of bytes of doubles" : NULL;
  const uint8_t *end = at + size;
  uint64_t value;
  while (at < end)
    if (!cmz_wire_varint(&at, end, &value)) return "a number is cut off";
  return NULL;
}

static void put_view(walk *w, uint32_t number, const uint8_t *at, size_t size) {
  put_varint(w, (uint64_t)VIEW_FIELD << 3 | WIRE_VARINT);
  put_varint(w, number);
  put_varint(w, (uint64_t)VIEW_OFFSET << 3 | WIRE_VARINT);
  put_varint(w, (uint64_t)(at - w->file->data));
  put_varint(w, (uint64_t)VIEW_SIZE << 3 | WIRE_VARINT);
  put_varint(w, size);
}

static cmz_status walk_message(walk *w, const ProtobufCMessageDescriptor *type, const uint8_t *at,
                               const uint8_t *end, unsigned depth);

/* Copies one known field; AT stands at its payload of SIZE bytes. */
static cmz_status walk_field(walk *w, const ProtobufCMessageDescriptor *type,
                             const ProtobufCFieldDescriptor *field, unsigned wire,
                             const uint8_t *at, size_t size, unsigned depth, uint32_t *payloads) {
  if (wire == WIRE_BYTES && field->label == PROTOBUF_C_LABEL_REPEATED &&
      field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_BYTES &&
      field->type != PROTOBUF_C_TYPE_MESSAGE) {
    const char *wrong = check_packed(field, at, size);
    if (wrong) return damaged(w, type, at, wrong);
  }
  if (field->type == PROTOBUF_C_TYPE_STRING && memchr(at, 0, size))
    return damaged(w, type, at, "a name with a zero byte");
  if (is_payload(type, field->id) && wire == WIRE_BYTES) {
    if (*payloads) {
      if (*payloads > VIEW_MINIMUM || size > VIEW_MINIMUM)
        return damaged(w, type, at, "tensor data in several pieces");
    }
    *payloads = size > VIEW_MINIMUM ? VIEW_MINIMUM + 1 : 1;
    if (size > VIEW_MINIMUM) {
      put_view(w, field->id, at, size);
      return CMZ_OK;
    }
  }
  put_varint(w, (uint64_t)field->id << 3 | wire);
  if (wire != WIRE_BYTES) {
    cmz_text_add_bytes(&w->skeleton, at, size);
    return CMZ_OK;
  }
  size_t position = reserve_length(w);
  if (field->type == PROTOBUF_C_TYPE_MESSAGE)
    CMZ_TRY(walk_message(w, field->descriptor, at, at + size, depth + 1));
  else cmz_text_add_bytes(&w->skeleton, at, size);
  if (!patch_length(w, position)) return damaged(w, type, at, "a part above 2 GB");
  return CMZ_OK;
}

static cmz_status walk_message(walk *w, const ProtobufCMessageDescriptor *type, const uint8_t *at,
                               const uint8_t *end, unsigned depth) {
  if (depth > DEPTH_MAXIMUM) return damaged(w, type, at, "nesting that is too deep");
  uint32_t payloads = 0;
  while (at < end) {
    const uint8_t *start = at;
    uint64_t key;
    if (!cmz_wire_varint(&at, end, &key))
      return damaged(w, type, start, "a field number is cut off");
    unsigned wire = (unsigned)(key & 7);
    uint64_t number = key >> 3;
    if (number == 0 || number > UINT32_MAX >> 3)
      return damaged(w, type, start, "an impossible field number");
    size_t size = 0;
    const char *wrong = measure(&at, end, wire, &size);
    if (wrong) return damaged(w, type, start, wrong);
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(type, (unsigned)number);
    if (field && !skipped_field(field)) {
      if (!wire_type_fits(field, wire)) return damaged(w, type, start, "a field of the wrong type");
      CMZ_TRY(walk_field(w, type, field, wire, at, size, depth, &payloads));
    }
    at += size;
  }
  return CMZ_OK;
}

static void *allocate(void *arena, size_t size) { return cmz_arena_alloc(arena, size); }
static void release(void *arena, void *pointer) { (void)arena, (void)pointer; }

cmz_status cmz_onnx_read(cmz_context *ctx, cmz_arena *arena, const cmz_file *file,
                         Onnx__ModelProto **model) {
  cmz_loc loc = {.file = file->path};
  if (file->size == 0) return cmz_fail(ctx, CMZ_E_INPUT, loc, "the file is empty");
  walk w = {.ctx = ctx, .file = file, .skeleton = {.arena = arena}};
  CMZ_TRY(walk_message(&w, &onnx__model_proto__descriptor, file->data, file->data + file->size, 0));
  ProtobufCAllocator allocator = {allocate, release, arena};
  *model =
      onnx__model_proto__unpack(&allocator, w.skeleton.length, (const uint8_t *)w.skeleton.data);
  if (!*model || !(*model)->graph)
    return cmz_fail(ctx, CMZ_E_INPUT, loc, "not an ONNX model: there is no graph in it");
  return CMZ_OK;
}
