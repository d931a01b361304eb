/* tensor.c - TensorProto to a constant: raw and typed fields, external files, sparse tensors (made
 * dense). In: a message whose large payloads are views into the mapped file. Out: element type,
 * shape and bytes, which are a view of a file wherever its bytes are already what is wanted. Always
 * holds: the number of bytes agrees with the shape; external files lie inside the model's folder.
 */
#include "import.h"
#include <limits.h>
#include <stdlib.h>

enum {
  FIELD_FLOAT = 4,
  FIELD_INT32 = 5,
  FIELD_INT64 = 7,
  FIELD_RAW = 9,
  FIELD_DOUBLE = 10,
  FIELD_UINT64 = 11
};
#define DENSE_LIMIT                                                                                \
  ((size_t)1                                                                                       \
   << 30) /* a sparse tensor's dims cost nothing in the file: bound what they can ask for */

/* Which typed field carries elements of a type. */
static unsigned typed_field(cmz_dtype dtype) {
  switch (dtype) {
  case CMZ_F32:
  case CMZ_C64:
    return FIELD_FLOAT;
  case CMZ_F64:
  case CMZ_C128:
    return FIELD_DOUBLE;
  case CMZ_I64:
    return FIELD_INT64;
  case CMZ_U32:
  case CMZ_U64:
    return FIELD_UINT64;
  default:
    return FIELD_INT32;
  }
}

static cmz_status read_shape(cmz_onnx_importer *im, const int64_t *dims, size_t rank, cmz_loc loc,
                             cmz_onnx_tensor *out, size_t *count) {
  if (rank > CMZ_MAX_RANK)
    return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc, "tensor of rank %zu; at most %d is supported",
                    rank, CMZ_MAX_RANK);
  int64_t *shape = CMZ_NEW_ARRAY(im->arena, int64_t, rank);
  *count = 1;
  for (size_t i = 0; i < rank; i++) {
    if (dims[i] < 0)
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "dimension %zu is negative (%" PRId64 ")", i,
                      dims[i]);
    shape[i] = dims[i];
    if (!cmz_mul_size(*count, (size_t)dims[i], count) || *count > INT64_MAX)
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "the product of the dimensions overflows");
  }
  out->rank = (uint32_t)rank;
  out->shape = shape;
  return CMZ_OK;
}

static cmz_status size_mismatch(cmz_onnx_importer *im, cmz_loc loc, size_t have, size_t want,
                                const char *unit) {
  return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "tensor data has %zu %s where its shape asks for %zu",
                  have, unit, want);
}

static cmz_status decode_varints(cmz_onnx_importer *im, cmz_loc loc, const uint8_t *at, size_t size,
                                 unsigned width, cmz_onnx_tensor *out) {
  uint8_t *data = cmz_arena_alloc(im->arena, out->bytes);
  size_t entries = out->bytes / width, i = 0;
  const uint8_t *end = at + size;
  uint64_t value;
  while (at < end && cmz_wire_varint(&at, end, &value)) {
    if (i == entries) return size_mismatch(im, loc, i + 1, entries, "or more entries");
    memcpy(data + i * width, &value, width); /* low bytes: both sides are little-endian */
    i++;
  }
  if (i != entries) return size_mismatch(im, loc, i, entries, "entries");
  out->data = data;
  return CMZ_OK;
}

static cmz_status decode_int64s(cmz_onnx_importer *im, cmz_loc loc, const int64_t *values,
                                size_t count, unsigned width, cmz_onnx_tensor *out) {
  if (count != out->bytes / width)
    return size_mismatch(im, loc, count, out->bytes / width, "entries");
  uint8_t *data = cmz_arena_alloc(im->arena, out->bytes);
  for (size_t i = 0; i < count; i++) memcpy(data + i * width, &values[i], width);
  out->data = data;
  return CMZ_OK;
}

static cmz_status decode_strings(cmz_onnx_importer *im, const Onnx__TensorProto *t, cmz_loc loc,
                                 size_t count, cmz_onnx_tensor *out) {
  if (t->n_string_data != count) return size_mismatch(im, loc, t->n_string_data, count, "strings");
  const char **strings = CMZ_NEW_ARRAY(im->arena, const char *, count);
  for (size_t i = 0; i < count; i++) {
    char *s = cmz_arena_alloc(im->arena, t->string_data[i].len + 1);
    if (t->string_data[i].len) memcpy(s, t->string_data[i].data, t->string_data[i].len);
    if (strlen(s) != t->string_data[i].len)
      return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc, "a string with a zero byte in it");
    strings[i] = s;
  }
  out->data = strings;
  out->bytes = count * sizeof *strings;
  return CMZ_OK;
}

/* ---- external files ---- */

static const char *external_value(const Onnx__TensorProto *t, const char *key) {
  for (size_t i = 0; i < t->n_external_data; i++)
    if (t->external_data[i]->key && !strcmp(t->external_data[i]->key, key))
      return t->external_data[i]->value;
  return NULL;
}

static cmz_status external_number(cmz_onnx_importer *im, const Onnx__TensorProto *t, cmz_loc loc,
                                  const char *key, size_t otherwise, size_t *out) {
  const char *text = external_value(t, key);
  *out = otherwise;
  if (!text || !*text) return CMZ_OK;
  size_t value = 0;
  for (const char *p = text; *p; p++) {
    if (*p < '0' || *p > '9' || !cmz_mul_size(value, 10, &value) ||
        !cmz_add_size(value, (size_t)(*p - '0'), &value))
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "external data's %s is \"%s\", not a number", key,
                      text);
  }
  *out = value;
  return CMZ_OK;
}

/* Whether LOCATION is relative and has no ".." part; symbolic links are judged afterwards. */
static bool location_is_plain(const char *location) {
  if (!*location || *location == '/' || strchr(location, '\\')) return false;
  for (const char *p = location; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL)
    if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == 0)) return false;
  return true;
}

static cmz_status external_open(cmz_onnx_importer *im, const char *location, cmz_loc loc,
                                const cmz_file **file) {
  for (uint32_t i = 0; i < im->externals.count; i++)
    if (!strcmp(im->externals.data[i].location, location)) {
      *file = im->externals.data[i].file;
      return CMZ_OK;
    }
  if (!location_is_plain(location))
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                    "external data \"%s\" is not a relative path inside the model's folder",
                    location);
  const char *slash = strrchr(im->file->path, '/');
  const char *folder =
      slash ? cmz_arena_printf(im->arena, "%.*s", (int)(slash - im->file->path + 1), im->file->path)
            : "./";
  const char *path = cmz_arena_printf(im->arena, "%s%s", folder, location);
  char *real_folder = cmz_arena_alloc(im->arena, PATH_MAX),
       *real_path = cmz_arena_alloc(im->arena, PATH_MAX);
  if (!realpath(folder, real_folder) || !realpath(path, real_path))
    return cmz_fail_hint(im->ctx, CMZ_E_INPUT, loc, "put it beside the model",
                         "external data file \"%s\" cannot be found", path);
  size_t length = strlen(real_folder);
  bool inside =
      !strncmp(real_folder, real_path, length) && (real_path[length] == '/' || length == 1);
  if (!inside)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                    "external data \"%s\" leads outside the model's folder", location);
  CMZ_TRY(cmz_file_map(im->ctx, path, file));
  cmz_vec_push(im->arena, &im->externals, ((cmz_external_file){location, *file}));
  return CMZ_OK;
}

static cmz_status read_external(cmz_onnx_importer *im, const Onnx__TensorProto *t, cmz_loc loc,
                                cmz_onnx_tensor *out) {
  const char *location = external_value(t, "location");
  if (!location) return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "external data without a location");
  size_t offset, length;
  CMZ_TRY(external_number(im, t, loc, "offset", 0, &offset));
  CMZ_TRY(external_number(im, t, loc, "length", out->bytes, &length));
  if (length != out->bytes) return size_mismatch(im, loc, length, out->bytes, "bytes");
  const cmz_file *file;
  CMZ_TRY(external_open(im, location, loc, &file));
  if (offset > file->size || length > file->size - offset)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                    "external data at %zu, %zu bytes, runs past the end of \"%s\" (%zu bytes)",
                    offset, length, location, file->size);
  out->data = length ? file->data + offset : cmz_arena_alloc(im->arena, 0);
  return CMZ_OK;
}

/* ---- dense ---- */

static cmz_status read_view(cmz_onnx_importer *im, const Onnx__TensorProto *t, cmz_loc loc,
                            unsigned width, cmz_onnx_tensor *out) {
  const uint8_t *at = im->file->data + t->view_offset;
  size_t size = (size_t)t->view_size;
  if (t->view_field == FIELD_RAW || t->view_field == FIELD_FLOAT || t->view_field == FIELD_DOUBLE) {
    if (size != out->bytes) return size_mismatch(im, loc, size, out->bytes, "bytes");
    out->data = at;
    return CMZ_OK;
  }
  return decode_varints(im, loc, at, size, width, out);
}

static cmz_status read_inline(cmz_onnx_importer *im, const Onnx__TensorProto *t, cmz_loc loc,
                              unsigned width, cmz_onnx_tensor *out) {
  size_t have = 0, unit = 1;
  const void *data = NULL;
  if (t->has_raw_data) {
    data = t->raw_data.data;
    have = t->raw_data.len;
  } else {
    switch (typed_field(out->dtype)) {
    case FIELD_FLOAT:
      data = t->float_data, have = t->n_float_data, unit = 4;
      break;
    case FIELD_DOUBLE:
      data = t->double_data, have = t->n_double_data, unit = 8;
      break;
    case FIELD_INT64:
      data = t->int64_data, have = t->n_int64_data, unit = 8;
      break;
    case FIELD_UINT64:
      return decode_int64s(im, loc, (const int64_t *)t->uint64_data, t->n_uint64_data, width, out);
    default: {
      int64_t *wide = CMZ_NEW_ARRAY(im->arena, int64_t, t->n_int32_data);
      for (size_t i = 0; i < t->n_int32_data; i++) wide[i] = t->int32_data[i];
      return decode_int64s(im, loc, wide, t->n_int32_data, width, out);
    }
    }
  }
  if (have * unit != out->bytes) return size_mismatch(im, loc, have * unit, out->bytes, "bytes");
  out->data = have ? data : cmz_arena_alloc(im->arena, 0);
  return CMZ_OK;
}

cmz_status cmz_onnx_tensor_read(cmz_onnx_importer *im, const Onnx__TensorProto *t, cmz_loc loc,
                                cmz_onnx_tensor *out) {
  *out = (cmz_onnx_tensor){0};
  if (t->data_type <= 0 || t->data_type >= CMZ_DTYPE_COUNT)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "unknown element type %d", t->data_type);
  out->dtype = (cmz_dtype)t->data_type;
  if (t->segment) return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc, "a tensor stored in segments");
  size_t count;
  CMZ_TRY(read_shape(im, t->dims, t->n_dims, loc, out, &count));
  if (out->dtype == CMZ_STRING) return decode_strings(im, t, loc, count, out);
  if (!cmz_dtype_bytes(out->dtype, count, &out->bytes))
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "the tensor's size overflows");
  if (t->data_location == 1) return read_external(im, t, loc, out);
  if (t->data_location != 0)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "unknown data location %d", t->data_location);
  unsigned bits = cmz_dtype_info(out->dtype)->bits, width = bits < 8 ? 1 : bits / 8;
  if (!t->has_view_field) return read_inline(im, t, loc, width, out);
  if (t->view_field != FIELD_RAW && t->view_field != typed_field(out->dtype))
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                    "the data of a %s tensor stands in the field of another type",
                    cmz_dtype_info(out->dtype)->onnx_name);
  return read_view(im, t, loc, width, out);
}

/* ---- sparse ---- */

/* Linear position of entry ENTRY; false when out of range. */
static bool sparse_position(const cmz_onnx_tensor *indices, size_t entry,
                            const cmz_onnx_tensor *dense, size_t count, size_t *position) {
  if (indices->rank == 1) {
    int64_t at = cmz_dtype_get_i64(CMZ_I64, indices->data, entry);
    *position = (size_t)at;
    return at >= 0 && (size_t)at < count;
  }
  *position = 0;
  for (uint32_t i = 0; i < dense->rank; i++) {
    int64_t at = cmz_dtype_get_i64(CMZ_I64, indices->data, entry * dense->rank + i);
    if (at < 0 || at >= dense->shape[i]) return false;
    *position = *position * (size_t)dense->shape[i] + (size_t)at;
  }
  return true;
}

cmz_status cmz_onnx_sparse_read(cmz_onnx_importer *im, const Onnx__SparseTensorProto *sparse,
                                cmz_loc loc, cmz_onnx_tensor *out) {
  if (!sparse->values || !sparse->indices)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "a sparse tensor without values or indices");
  cmz_onnx_tensor values, indices;
  CMZ_TRY(cmz_onnx_tensor_read(im, sparse->values, loc, &values));
  CMZ_TRY(cmz_onnx_tensor_read(im, sparse->indices, loc, &indices));
  size_t count;
  *out = (cmz_onnx_tensor){.dtype = values.dtype};
  CMZ_TRY(read_shape(im, sparse->dims, sparse->n_dims, loc, out, &count));
  unsigned bits = cmz_dtype_info(values.dtype)->bits;
  if (bits < 8)
    return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc, "a sparse tensor of %s",
                    cmz_dtype_info(values.dtype)->onnx_name);
  bool linear = indices.rank == 1,
       coordinates = indices.rank == 2 && indices.shape[1] == (int64_t)out->rank;
  if (values.rank != 1 || indices.dtype != CMZ_I64 || !(linear || coordinates) ||
      indices.shape[0] != values.shape[0])
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                    "a sparse tensor whose values and indices do not fit together");
  if (!cmz_mul_size(count, bits / 8, &out->bytes) || out->bytes > DENSE_LIMIT)
    return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc, "a sparse tensor above 1 GiB when dense");
  uint8_t *dense = cmz_arena_alloc(im->arena, out->bytes);
  for (size_t i = 0; i < (size_t)values.shape[0]; i++) {
    size_t position;
    if (!sparse_position(&indices, i, out, count, &position))
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                      "entry %zu of a sparse tensor lies outside its shape", i);
    memcpy(dense + position * (bits / 8), (const uint8_t *)values.data + i * (bits / 8), bits / 8);
  }
  out->data = dense;
  return CMZ_OK;
}
