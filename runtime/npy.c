/* npy.c - reads and writes NumPy's .npy files. In: a path; the element type that the model wants.
 * Out: a tensor. Always holds: every size in a file is checked against the file before it is used.
 * Types that NumPy does not have are carried as the unsigned integers of their width; packed types
 * as one byte an element. */
#include "runner.h"

typedef struct element_row {
  const char *name, *descr; /* descr without the byte order */
  uint8_t bits;
} element_row;

static const element_row rows[] = {
    [CMZ_ELEMENT_F32] = {"f32", "f4", 32},
    [CMZ_ELEMENT_U8] = {"u8", "u1", 8},
    [CMZ_ELEMENT_I8] = {"i8", "i1", 8},
    [CMZ_ELEMENT_U16] = {"u16", "u2", 16},
    [CMZ_ELEMENT_I16] = {"i16", "i2", 16},
    [CMZ_ELEMENT_I32] = {"i32", "i4", 32},
    [CMZ_ELEMENT_I64] = {"i64", "i8", 64},
    [CMZ_ELEMENT_STRING] = {"string", "U", 0},
    [CMZ_ELEMENT_BOOL] = {"bool", "b1", 8},
    [CMZ_ELEMENT_F16] = {"f16", "f2", 16},
    [CMZ_ELEMENT_F64] = {"f64", "f8", 64},
    [CMZ_ELEMENT_U32] = {"u32", "u4", 32},
    [CMZ_ELEMENT_U64] = {"u64", "u8", 64},
    [CMZ_ELEMENT_C64] = {"c64", "c8", 64},
    [CMZ_ELEMENT_C128] = {"c128", "c16", 128},
    [CMZ_ELEMENT_BF16] = {"bf16", "u2", 16},
    [CMZ_ELEMENT_F8E4M3FN] = {"f8e4m3fn", "u1", 8},
    [CMZ_ELEMENT_F8E4M3FNUZ] = {"f8e4m3fnuz", "u1", 8},
    [CMZ_ELEMENT_F8E5M2] = {"f8e5m2", "u1", 8},
    [CMZ_ELEMENT_F8E5M2FNUZ] = {"f8e5m2fnuz", "u1", 8},
    [CMZ_ELEMENT_U4] = {"u4", "u1", 4},
    [CMZ_ELEMENT_I4] = {"i4", "i1", 4},
    [CMZ_ELEMENT_F4E2M1] = {"f4e2m1", "u1", 4},
    [CMZ_ELEMENT_F8E8M0] = {"f8e8m0", "u1", 8},
    [CMZ_ELEMENT_U2] = {"u2", "u1", 2},
    [CMZ_ELEMENT_I2] = {"i2", "i1", 2},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

const char *cmz_element_text(uint32_t element) {
  return element < ROWS && rows[element].name ? rows[element].name : "?";
}
uint32_t cmz_element_width(uint32_t element) { return element < ROWS ? rows[element].bits : 0; }

size_t cmz_element_count(const cmz_tensor *t) {
  size_t count = 1;
  for (uint32_t d = 0; d < t->rank; d++) count *= (size_t)t->dims[d];
  return count;
}

int cmz_file_read(const char *path, uint8_t **data, size_t *size) {
  int fd = cmz_system_open(path, 0x80000);
  if (fd < 0) return cmz_complain(1, "cannot open \"%s\"", path);
  size_t capacity = 1 << 16, length = 0;
  uint8_t *buffer = malloc(capacity);
  while (buffer) {
    long n = cmz_system_read(fd, buffer + length, capacity - length);
    if (n < 0) {
      close(fd);
      free(buffer);
      return cmz_complain(1, "cannot read \"%s\"", path);
    }
    length += (size_t)n;
    if (n == 0) break;
    if (length == capacity) {
      uint8_t *larger = realloc(buffer, capacity *= 2);
      if (!larger) free(buffer);
      buffer = larger;
    }
  }
  close(fd);
  if (!buffer) return cmz_complain(1, "no memory to read \"%s\"", path);
  *data = buffer;
  *size = length;
  return 0;
}

/* ---- reading ---- */

typedef struct npy_header {
  char order; /* '<', '>', '|', '=' */
  char kind;
  uint32_t width; /* bytes (U: characters) */
  bool fortran;
  uint32_t rank;
  int64_t dims[CMZ_MAX_DIMS];
} npy_header;

/* The text after KEY's colon in the header dictionary; NULL when there is none. */
static const char *header_value(const char *text, const char *key) {
  size_t length = strlen(key);
  for (const char *at = text; *at; at++) {
    if ((*at == '\'' || *at == '"') && strncmp(at + 1, key, length) == 0 && at[length + 1] == *at) {
      at = strchr(at + length + 2, ':');
      if (!at) return NULL;
      for (at++; *at == ' ';) at++;
      return at;
    }
  }
  return NULL;
}

static bool parse_shape(const char *at, npy_header *h) {
  if (*at++ != '(') return false;
  for (;;) {
    while (*at == ' ' || *at == ',') at++;
    if (*at == ')') return true;
    if (h->rank == CMZ_MAX_DIMS) return false;
    char *end;
    h->dims[h->rank] = strtoll(at, &end, 10);
    if (end == at || h->dims[h->rank] < 0) return false;
    h->rank++;
    at = *end == 'L' ? end + 1 : end;
  }
}

static bool parse_header(const char *text, npy_header *h) {
  const char *descr = header_value(text, "descr"), *order = header_value(text, "fortran_order"),
             *shape = header_value(text, "shape");
  if (!descr || !order || !shape || (*descr != '\'' && *descr != '"')) return false;
  if (!descr[1] || !descr[2]) return false;
  h->order = descr[1];
  h->kind = descr[2];
  char *end;
  long long width = strtoll(descr + 3, &end, 10);
  if (end == descr + 3 || width < 0 || width > (1 << 20)) return false;
  h->width = (uint32_t)width;
  h->fortran = *order == 'T';
  return parse_shape(shape, h);
}

/* Whether a file of descr KIND/WIDTH can stand for ELEMENT. */
static bool fits_element(const npy_header *h, uint32_t element) {
  if (element == CMZ_ELEMENT_STRING) return h->kind == 'U' || h->kind == 'S';
  char text[16];
  snprintf(text, sizeof text, "%c%u", h->kind, h->width);
  if (strcmp(text, rows[element].descr) == 0) return true;
  if (h->kind == 'V' && h->width * 8 == rows[element].bits) return true;
  return rows[element].bits < 8 && (strcmp(text, "u1") == 0 || strcmp(text, "i1") == 0);
}

static uint32_t element_of(const npy_header *h) {
  for (uint32_t e = 1; e < ROWS; e++) {
    if (rows[e].descr && fits_element(h, e)) return e;
  }
  return 0;
}

static void swap_bytes(uint8_t *data, size_t count, size_t width) {
  for (size_t i = 0; i < count; i++, data += width) {
    for (size_t a = 0, b = width - 1; a < b; a++, b--) {
      uint8_t t = data[a];
      data[a] = data[b];
      data[b] = t;
    }
  }
}

static void pack(uint8_t *data, size_t count, uint32_t bits) {
  uint32_t per_byte = 8 / bits, mask = (1u << bits) - 1;
  for (size_t i = 0; i < count; i++) {
    uint32_t value = data[i] & mask, shift = (uint32_t)(i % per_byte) * bits;
    size_t at = i / per_byte;
    data[at] = (uint8_t)(shift ? data[at] | value << shift : value);
  }
}

static size_t put_utf8(char *to, uint32_t c) {
  if (c < 0x80) return *to = (char)c, 1;
  if (c < 0x800) return to[0] = (char)(0xc0 | c >> 6), to[1] = (char)(0x80 | (c & 63)), 2;
  if (c < 0x10000) {
    return to[0] = (char)(0xe0 | c >> 12), to[1] = (char)(0x80 | (c >> 6 & 63)),
           to[2] = (char)(0x80 | (c & 63)), 3;
  }
  to[0] = (char)(0xf0 | c >> 18), to[1] = (char)(0x80 | (c >> 12 & 63)),
  to[2] = (char)(0x80 | (c >> 6 & 63));
  return to[3] = (char)(0x80 | (c & 63)), 4;
}

/* Fixed-width UTF-32 or bytes become a table of pointers to C strings. */
static bool make_strings(const npy_header *h, const uint8_t *data, size_t count, cmz_tensor *t) {
  size_t unit = h->kind == 'U' ? 4 : 1, each = (size_t)h->width * 4 + 1, bytes;
  if (__builtin_mul_overflow(count, sizeof(char *) + each, &bytes)) return false;
  char **table = malloc(bytes + 1);
  if (!table) return false;
  char *at = (char *)(table + count);
  for (size_t i = 0; i < count; i++, data += h->width * unit) {
    table[i] = at;
    for (uint32_t c = 0; c < h->width; c++) {
      uint32_t code = data[c * unit];
      if (unit == 4) memcpy(&code, data + c * unit, 4);
      if (unit == 4 && h->order == '>') code = __builtin_bswap32(code);
      if (unit == 4) at += code ? put_utf8(at, code) : 0;
      else if (code) *at++ = (char)code;
    }
    *at++ = 0;
  }
  t->data = table;
  t->bytes = count * sizeof *table;
  return true;
}

static int fill_tensor(const char *path, const npy_header *h, uint32_t element, const uint8_t *data,
                       size_t size, cmz_tensor *t) {
  size_t width = h->kind == 'U' ? (size_t)h->width * 4 : h->width, bytes = width;
  memset(t, 0, sizeof *t);
  t->element = element;
  t->rank = h->rank;
  memcpy(t->dims, h->dims, sizeof t->dims);
  for (uint32_t d = 0; d < h->rank; d++) {
    if (__builtin_mul_overflow(bytes, (size_t)h->dims[d], &bytes))
      return cmz_complain(1, "\"%s\": its shape is too large", path);
  }
  if (bytes > size)
    return cmz_complain(1, "\"%s\" is truncated: %zu bytes of data, %zu needed", path, size, bytes);
  if (!width) return cmz_complain(1, "\"%s\": its elements have no size", path);
  size_t count = bytes / width;
  if (element == CMZ_ELEMENT_STRING) {
    return make_strings(h, data, count, t) ? 0 : cmz_complain(1, "no memory for \"%s\"", path);
  }
  uint8_t *copy = malloc(bytes + 1);
  if (!copy) return cmz_complain(1, "no memory for \"%s\"", path);
  memcpy(copy, data, bytes);
  size_t part = h->kind == 'c' ? width / 2 : width;
  if (h->order == '>' && part > 1) swap_bytes(copy, bytes / part, part);
  t->data = copy;
  t->bytes = bytes;
  if (rows[element].bits < 8) {
    pack(copy, count, rows[element].bits);
    t->bytes = (count * rows[element].bits + 7) / 8;
  } else if (h->fortran) {
    int64_t stride = (int64_t)width;
    for (uint32_t d = 0; d < h->rank; d++) {
      t->strides[d] = stride;
      stride *= h->dims[d];
    }
  }
  return 0;
}

int cmz_npy_read(const char *path, uint32_t wanted, cmz_tensor *tensor) {
  uint8_t *data;
  size_t size;
  int rc = cmz_file_read(path, &data, &size);
  if (rc) return rc;
  npy_header h = {0};
  size_t length = 0, start = 0;
  bool ok = size >= 10 && memcmp(data, "\x93NUMPY", 6) == 0 && data[6] >= 1 && data[6] <= 3;
  if (ok) {
    start = data[6] == 1 ? 10 : 12;
    length = (size_t)data[8] | (size_t)data[9] << 8;
    if (data[6] > 1 && size >= 12) length |= (size_t)data[10] << 16 | (size_t)data[11] << 24;
    ok = size >= start && length <= size - start && length < (1 << 20);
  }
  char *text = ok ? malloc(length + 1) : NULL;
  if (text) {
    memcpy(text, data + start, length);
    text[length] = 0;
    ok = parse_header(text, &h);
  }
  free(text);
  uint32_t element =
      ok ? (wanted < ROWS && rows[wanted].descr && fits_element(&h, wanted) ? wanted
                                                                            : element_of(&h))
         : 0;
  if (!element) {
    rc = cmz_complain(1, "\"%s\" is not a .npy file that cmz-run can read", path);
  } else {
    rc = fill_tensor(path, &h, element, data + start + length, size - start - length, tensor);
  }
  free(data);
  return rc;
}

/* ---- writing ---- */

static void unpack(cmz_out *out, const cmz_tensor *t) {
  uint32_t bits = rows[t->element].bits, per_byte = 8 / bits;
  bool is_signed = rows[t->element].descr[0] == 'i';
  for (size_t i = 0; i < cmz_element_count(t); i++) {
    uint32_t value =
        ((const uint8_t *)t->data)[i / per_byte] >> (i % per_byte * bits) & ((1u << bits) - 1);
    if (is_signed && value >> (bits - 1)) value |= 0xffu << bits;
    uint8_t byte = (uint8_t)value;
    cmz_out_bytes(out, &byte, 1);
  }
}

static size_t decode_utf8(const char *text, uint32_t *c) {
  uint8_t first = (uint8_t)*text;
  size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : first >= 0xc0 ? 1 : 0;
  *c = more ? first & (0x3fu >> more) : first;
  size_t used = 1;
  while (used <= more && ((uint8_t)text[used] & 0xc0) == 0x80)
    *c = *c << 6 | ((uint8_t)text[used++] & 0x3f);
  return used;
}

static uint32_t characters(const char *text) {
  uint32_t count = 0, c;
  for (; text && *text; count++) text += decode_utf8(text, &c);
  return count;
}

static void put_strings(cmz_out *out, const cmz_tensor *t, uint32_t width) {
  for (size_t i = 0; i < cmz_element_count(t); i++) {
    const char *text = ((const char *const *)t->data)[i];
    for (uint32_t n = 0; n < width; n++) {
      uint32_t c = 0;
      if (text && *text) text += decode_utf8(text, &c);
      cmz_out_bytes(out, &c, 4);
    }
  }
}

int cmz_npy_write(const char *path, const cmz_tensor *t) {
  const element_row *row = &rows[t->element];
  cmz_out header = {0}, out = {0};
  uint32_t width = 1;
  if (t->element == CMZ_ELEMENT_STRING) {
    for (size_t i = 0; i < cmz_element_count(t); i++) {
      uint32_t n = characters(((const char *const *)t->data)[i]);
      if (n > width) width = n;
    }
    cmz_out_add(&header, "{'descr': '<U%u', 'fortran_order': False, 'shape': (", width);
  } else {
    bool one = row->bits <= 8;
    cmz_out_add(&header, "{'descr': '%c%s', 'fortran_order': False, 'shape': (", one ? '|' : '<',
                row->descr);
  }
  for (uint32_t d = 0; d < t->rank; d++) {
    cmz_out_add(&header, "%lld%s", (long long)t->dims[d],
                t->rank == 1      ? ","
                : d + 1 < t->rank ? ", "
                                  : "");
  }
  cmz_out_add(&header, "), }");
  while ((10 + header.length + 1) % 64 != 0) cmz_out_add(&header, " ");
  cmz_out_add(&header, "\n");
  uint8_t start[10] = {
      0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)header.length, (uint8_t)(header.length >> 8)};
  cmz_out_bytes(&out, start, sizeof start);
  cmz_out_bytes(&out, header.data, header.length);
  if (t->element == CMZ_ELEMENT_STRING) put_strings(&out, t, width);
  else if (row->bits < 8) unpack(&out, t);
  else cmz_out_bytes(&out, t->data, cmz_element_count(t) * row->bits / 8);
  free(header.data);
  int fd = cmz_system_open(path, 0x80241 /* O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC */, 0644);
  int bad = fd < 0 ? 1 : cmz_out_flush(&out, fd);
  free(out.data);
  if (fd >= 0 && close(fd) != 0) bad = 1;
  if (bad && fd >= 0) cmz_system_unlink(path); /* no half a file */
  return bad ? cmz_complain(1, "cannot write \"%s\"", path) : 0;
}
