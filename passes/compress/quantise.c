/* quantise.c - round to nearest onto the uniform grids of the format table.
 * In: a dense matrix and a format. Out: the format's constants. Always holds: zero is exactly on
 * every grid; the scale that is stored (f16) is the one that codes were rounded with, so that
 * decoding differs from the weight by at most half a step inside the range. */
#include "compress.h"

#include <math.h>

typedef struct grid {
  float scale;
  int32_t zero_point, low, high;
} grid;

/* The grid of one group: symmetric about zero, or the range [min, max] widened to contain zero. */
static grid choose_grid(const cmz_format_row *f, float low, float high, bool symmetric,
                        cmz_dtype scale_dtype) {
  int32_t levels = (1 << f->bits) - 1, half = 1 << (f->bits - 1);
  grid g = {.scale = 0, .low = f->is_signed ? -half : 0, .high = f->is_signed ? half - 1 : levels};
  low = fminf(low, 0), high = fmaxf(high, 0);
  float amplitude = fmaxf(-low, high), range = high - low;
  if (f->is_signed) g.scale = amplitude / (float)(half - 1);
  else g.scale = symmetric ? amplitude / (float)(half - 1) : range / (float)levels;
  if (f->is_signed) g.low = -(half - 1);
  uint8_t stored[8];
  cmz_dtype_set_f64(scale_dtype, stored, 0, (double)g.scale);
  g.scale = (float)cmz_dtype_get_f64(scale_dtype, stored, 0);
  if (f->zero_points && symmetric) g.zero_point = half;
  else if (f->zero_points && g.scale > 0)
    g.zero_point = (int32_t)fminf(fmaxf(rintf(-low / g.scale), 0), (float)levels);
  return g;
}

static int32_t round_code(const grid *g, float w) {
  if (!(g->scale > 0)) return g->zero_point;
  float q = rintf(w / g->scale) + (float)g->zero_point;
  return (int32_t)fminf(fmaxf(q, (float)g->low), (float)g->high);
}

/* Row R without the columns that 2:4 drops; writes their places. KEPT has room for K' values. */
static void keep_row(const cmz_matrix *w, const cmz_format_shape *s, cmz_format_data *d, uint32_t r,
                     float *kept) {
  const float *row = w->data + (size_t)r * w->columns;
  if (!s->sparse) {
    memcpy(kept, row, w->columns * sizeof *row);
    return;
  }
  uint32_t lines = ((s->columns + 3) / 4 + 1) / 2, panel = cmz_format_panel(s);
  for (uint32_t group = 0; group * 4 < s->columns; group++) {
    uint32_t places[2], found = 0;
    for (uint32_t i = 0; i < 4 && group * 4 + i < s->columns && found < 2; i++)
      if (row[group * 4 + i] != 0) places[found++] = i;
    if (found == 0) places[0] = 0, places[1] = 1;
    else if (found == 1) {
      if (places[0] == 3) places[1] = 3, places[0] = 2;
      else places[1] = 3;
    }
    for (uint32_t j = 0; j < 2; j++) {
      uint32_t column = group * 4 + places[j];
      kept[group * 2 + j] = column < s->columns ? row[column] : 0;
    }
    size_t byte = ((size_t)(r / panel) * lines + group / 2) * panel + r % panel;
    d->indices[byte] =
        (uint8_t)(d->indices[byte] | (places[0] | places[1] << 2) << (group % 2 * 4));
  }
}

static void encode_row(const cmz_format_shape *s, cmz_format_data *d, uint32_t r, const float *kept,
                       bool symmetric) {
  uint32_t count = cmz_format_kept(s), group_size = s->group_size ? s->group_size : count;
  for (uint32_t begin = 0; begin < count; begin += group_size) {
    uint32_t end = CMZ_MIN(begin + group_size, count);
    float low = 0, high = 0;
    for (uint32_t i = begin; i < end; i++) low = fminf(low, kept[i]), high = fmaxf(high, kept[i]);
    grid g = choose_grid(s->format, low, high, symmetric, d->scale_dtype);
    size_t index = cmz_format_group_index(s, r, begin);
    cmz_dtype_set_f64(d->scale_dtype, d->scales, index, (double)g.scale);
    if (s->format->zero_points) d->zero_points[index] = (uint8_t)g.zero_point;
    for (uint32_t i = begin; i < end; i++) cmz_format_set_code(s, d, r, i, round_code(&g, kept[i]));
  }
}

void cmz_quantise_nearest(cmz_arena *arena, const cmz_matrix *w, const cmz_format_shape *s,
                          bool symmetric, cmz_format_data *out) {
  size_t bytes = 0;
  cmz_dtype_bytes(s->format->dtype, cmz_format_value_count(s), &bytes);
  *out = (cmz_format_data){.values = cmz_arena_alloc(arena, bytes)};
  if (s->sparse) out->indices = cmz_arena_alloc(arena, cmz_format_index_count(s));
  if (!s->format->is_float) {
    /* A row's single scale costs little as f32; a group's is f16. */
    out->scale_dtype = s->group_size ? CMZ_F16 : CMZ_F32;
    out->scales = cmz_arena_array(arena, cmz_format_scale_count(s), s->group_size ? 2 : 4);
    if (s->format->zero_points)
      out->zero_points = cmz_arena_alloc(arena, cmz_format_scale_count(s));
  }
  uint32_t count = cmz_format_kept(s);
  float *kept = CMZ_NEW_ARRAY(arena, float, (size_t)count + 4);
  for (uint32_t r = 0; r < w->rows; r++) {
    keep_row(w, s, out, r, kept);
    if (!s->format->is_float) {
      encode_row(s, out, r, kept, symmetric);
      continue;
    }
    uint32_t panel = cmz_format_panel(s);
    float *values = (float *)out->values + (size_t)(r / panel) * count * panel;
    for (uint32_t i = 0; i < count; i++) values[(size_t)i * panel + r % panel] = kept[i];
  }
}
