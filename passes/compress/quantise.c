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

/* The scale of one group before it is stored: symmetric about zero, or for the range [low, high],
 * widened to contain zero. */
static float wanted_scale(const cmz_format_row *f, float low, float high, bool symmetric) {
  float levels = (float)((1 << f->bits) - 1), half = (float)(1 << (f->bits - 1));
  if (f->is_signed || symmetric) return fmaxf(-low, high) / (half - 1);
  return high / levels - low / levels; /* high - low might overflow */
}

static float stored_scale(float scale, cmz_dtype type) {
  uint8_t stored[8];
  cmz_dtype_set_f64(type, stored, 0, (double)scale);
  return (float)cmz_dtype_get_f64(type, stored, 0);
}

static grid choose_grid(const cmz_format_row *f, float low, float high, bool symmetric,
                        cmz_dtype scale_type) {
  int32_t levels = (1 << f->bits) - 1, half = 1 << (f->bits - 1);
  grid g = {.high = levels};
  if (f->is_signed) g.low = -(half - 1), g.high = half - 1;
  g.scale = stored_scale(wanted_scale(f, low, high, symmetric), scale_type);
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

/* The range of kept columns BEGIN to END, widened to contain zero. */
static void find_range(const float *kept, uint32_t begin, uint32_t end, float *low, float *high) {
  *low = *high = 0;
  for (uint32_t i = begin; i < end; i++) *low = fminf(*low, kept[i]), *high = fmaxf(*high, kept[i]);
}

static void encode_row(const cmz_format_shape *s, cmz_format_data *d, uint32_t r, const float *kept,
                       bool symmetric) {
  uint32_t count = cmz_format_kept(s), group_size = s->group_size ? s->group_size : count;
  for (uint32_t begin = 0; begin < count; begin += group_size) {
    uint32_t end = CMZ_MIN(begin + group_size, count);
    float low, high;
    find_range(kept, begin, end, &low, &high);
    grid g = choose_grid(s->format, low, high, symmetric, d->scale_dtype);
    size_t index = cmz_format_group_index(s, r, begin);
    cmz_dtype_set_f64(d->scale_dtype, d->scales, index, (double)g.scale);
    if (s->format->zero_points) d->zero_points[index] = (uint8_t)g.zero_point;
    for (uint32_t i = begin; i < end; i++) cmz_format_set_code(s, d, r, i, round_code(&g, kept[i]));
  }
}

/* Below 2^-14 an f16 loses bits, above 65504 it has no value. A group's range may be cut by a 64th,
 * a quarter of a step of 15, and more where the group hardly counts beside LARGEST of the others.
 */
static bool fits_f16(float scale, float largest) {
  return fabsf(stored_scale(scale, CMZ_F16) - scale) <= fmaxf(scale / 64, largest / 4096);
}

static void empty_parts(cmz_arena *arena, const cmz_format_shape *s, cmz_dtype scale_type,
                        cmz_format_data *d) {
  size_t bytes = 0;
  cmz_dtype_bytes(s->format->dtype, cmz_format_value_count(s), &bytes);
  *d = (cmz_format_data){.values = cmz_arena_alloc(arena, bytes), .scale_dtype = scale_type};
  if (s->sparse) d->indices = cmz_arena_alloc(arena, cmz_format_index_count(s));
  if (s->format->is_float) return;
  cmz_dtype_bytes(scale_type, cmz_format_scale_count(s), &bytes);
  d->scales = cmz_arena_alloc(arena, bytes);
  if (s->format->zero_points) d->zero_points = cmz_arena_alloc(arena, cmz_format_scale_count(s));
}

cmz_dtype cmz_quantise_scale_type(cmz_arena *arena, const cmz_matrix *w, const cmz_format_shape *s,
                                  bool symmetric) {
  /* A row's single scale costs little as f32. */
  if (s->format->is_float || !s->group_size) return CMZ_F32;
  cmz_format_data d;
  empty_parts(arena, s, CMZ_F32, &d);
  uint32_t count = cmz_format_kept(s);
  float *kept = CMZ_NEW_ARRAY(arena, float, (size_t)count + 4), low, high;
  find_range(w->data, 0, w->rows * w->columns, &low, &high);
  float largest = wanted_scale(s->format, low, high, symmetric);
  for (uint32_t r = 0; r < w->rows; r++) {
    keep_row(w, s, &d, r, kept);
    for (uint32_t begin = 0; begin < count; begin += s->group_size) {
      find_range(kept, begin, CMZ_MIN(begin + s->group_size, count), &low, &high);
      if (!fits_f16(wanted_scale(s->format, low, high, symmetric), largest)) return CMZ_F32;
    }
  }
  return CMZ_F16;
}

void cmz_quantise_nearest(cmz_arena *arena, const cmz_matrix *w, const cmz_format_shape *s,
                          bool symmetric, cmz_format_data *out) {
  empty_parts(arena, s, cmz_quantise_scale_type(arena, w, s, symmetric), out);
  uint32_t count = cmz_format_kept(s);
  float *kept = CMZ_NEW_ARRAY(arena, float, (size_t)count + 4);
  for (uint32_t r = 0; r < w->rows; r++) {
    keep_row(w, s, out, r, kept);
    if (!s->format->is_float) {
      encode_row(s, out, r, kept, symmetric);
      continue;
    }
    for (uint32_t i = 0; i < count; i++)
      cmz_dtype_set_f64(s->format->dtype, out->values, cmz_format_value_index(s, r, i),
                        (double)kept[i]);
  }
}
