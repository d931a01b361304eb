/* format.c - the table of storage formats and the reference access to matrices stored in them.
 * In: a shape and the parts of a compressed matrix. Out: codes and weights. Always holds: the index
 * arithmetic here is the one that ops/decode.c writes as expressions. */
#include "format.h"

static const cmz_format_row formats[] = {
    {"f32", 32, true, false, false, CMZ_F32},   {"f16", 16, true, false, false, CMZ_F16},
    {"bf16", 16, true, false, false, CMZ_BF16}, {"i8", 8, false, true, false, CMZ_I8},
    {"u8", 8, false, false, true, CMZ_U8},      {"i4", 4, false, true, false, CMZ_U8},
    {"u4", 4, false, false, true, CMZ_U8},      {"i2", 2, false, true, false, CMZ_U8},
    {"u2", 2, false, false, true, CMZ_U8},
};

const cmz_format_row *cmz_format_at(uint32_t index) {
  return index < CMZ_COUNT_OF(formats) ? &formats[index] : NULL;
}

const cmz_format_row *cmz_format_find(const char *name) {
  for (uint32_t i = 0; i < CMZ_COUNT_OF(formats); i++)
    if (!strcmp(formats[i].name, name)) return &formats[i];
  return NULL;
}

uint32_t cmz_format_panel(const cmz_format_shape *s) { return CMZ_MIN(s->rows, CMZ_FORMAT_PANEL); }

/* Rows with those that fill up the last panel. */
static size_t padded_rows(const cmz_format_shape *s) {
  return cmz_align_up(s->rows, cmz_format_panel(s));
}

static uint32_t per_element(const cmz_format_shape *s) {
  return s->format->bits < 8 ? 8u / s->format->bits : 1;
}

uint32_t cmz_format_kept(const cmz_format_shape *s) {
  return s->sparse ? (s->columns + 3) / 4 * 2 : s->columns;
}

uint32_t cmz_format_groups(const cmz_format_shape *s) {
  return s->group_size ? (cmz_format_kept(s) + s->group_size - 1) / s->group_size : 1;
}

static uint32_t value_lines(const cmz_format_shape *s) {
  return (cmz_format_kept(s) + per_element(s) - 1) / per_element(s);
}

int32_t cmz_format_bias(const cmz_format_row *f) {
  return f->is_signed && f->bits < 8 ? 1 << (f->bits - 1) : 0;
}

size_t cmz_format_value_count(const cmz_format_shape *s) { return padded_rows(s) * value_lines(s); }

size_t cmz_format_scale_count(const cmz_format_shape *s) {
  return s->format->is_float ? 0 : padded_rows(s) * cmz_format_groups(s);
}

static uint32_t index_lines(const cmz_format_shape *s) { return ((s->columns + 3) / 4 + 1) / 2; }

size_t cmz_format_index_count(const cmz_format_shape *s) {
  return s->sparse ? padded_rows(s) * index_lines(s) : 0;
}

/* Element of a [panel][line][row in the panel] array. */
static size_t panel_element(const cmz_format_shape *s, uint32_t row, uint32_t lines,
                            uint32_t line) {
  uint32_t panel = cmz_format_panel(s);
  return ((size_t)(row / panel) * lines + line) * panel + row % panel;
}

void cmz_format_set_code(const cmz_format_shape *s, cmz_format_data *d, uint32_t row, uint32_t kept,
                         int32_t code) {
  uint32_t per = per_element(s), bits = s->format->bits;
  uint8_t *byte = (uint8_t *)d->values + panel_element(s, row, value_lines(s), kept / per);
  uint32_t mask = (1u << bits) - 1, shift = kept % per * bits;
  code += cmz_format_bias(s->format);
  *byte = (uint8_t)((*byte & ~(mask << shift)) | (((uint32_t)code & mask) << shift));
}

int32_t cmz_format_code(const cmz_format_shape *s, const cmz_format_data *d, uint32_t row,
                        uint32_t kept) {
  uint32_t per = per_element(s), bits = s->format->bits;
  uint32_t byte = ((const uint8_t *)d->values)[panel_element(s, row, value_lines(s), kept / per)];
  uint32_t code = byte >> (kept % per * bits) & ((1u << bits) - 1);
  if (s->format->is_signed && bits == 8) return (int8_t)code;
  return (int32_t)code - cmz_format_bias(s->format);
}

size_t cmz_format_value_index(const cmz_format_shape *s, uint32_t row, uint32_t kept) {
  return panel_element(s, row, value_lines(s), kept / per_element(s));
}

size_t cmz_format_group_index(const cmz_format_shape *s, uint32_t row, uint32_t kept) {
  return panel_element(s, row, cmz_format_groups(s), s->group_size ? kept / s->group_size : 0);
}

static float decode_kept(const cmz_format_shape *s, const cmz_format_data *d, uint32_t row,
                         uint32_t kept) {
  if (s->format->is_float)
    return (float)cmz_dtype_get_f64(s->format->dtype, d->values,
                                    cmz_format_value_index(s, row, kept));
  size_t group = cmz_format_group_index(s, row, kept);
  int32_t zero_point = s->format->zero_points ? d->zero_points[group] : 0;
  float scale = (float)cmz_dtype_get_f64(d->scale_dtype, d->scales, group);
  return (float)(cmz_format_code(s, d, row, kept) - zero_point) * scale;
}

float cmz_format_decode(const cmz_format_shape *s, const cmz_format_data *d, uint32_t row,
                        uint32_t column) {
  if (!s->sparse) return decode_kept(s, d, row, column);
  uint32_t group = column / 4;
  uint32_t nibble =
      (uint32_t)d->indices[panel_element(s, row, index_lines(s), group / 2)] >> (group % 2 * 4) &
      15u;
  if ((nibble & 3u) == column % 4) return decode_kept(s, d, row, group * 2);
  if (nibble >> 2 == column % 4) return decode_kept(s, d, row, group * 2 + 1);
  return 0.0f;
}
