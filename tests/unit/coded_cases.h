/* coded_cases.h - products by weights in a storage format that lie in the order of matrix fragments
 * (kernel.h's cmz_coded), as graphs for test_codegen_device.c. In: kernel_cases.h's `then` and
 * `lay`. Out: cases whose schedules must have `coded`. Always holds: sizes fill no tile in at least
 * one direction, but for one case that fills them all. */
#ifndef CMZ_TESTS_CODED_CASES_H
#define CMZ_TESTS_CODED_CASES_H

#include "kernel_cases.h"
#include "passes/compress/compress.h"
#include "passes/support.h"

/* COUNT elements of a [panel][line][16] array. */
static cmz_vid coded_part(cmz_dtype dtype, uint32_t panels, size_t count, const void *data) {
  size_t bytes;
  cmz_dtype_bytes(dtype, count, &bytes);
  int64_t *shape = CMZ_NEW_ARRAY(F->m->arena, int64_t, 3);
  shape[0] = panels;
  shape[1] = (int64_t)(count / (panels * CMZ_FORMAT_PANEL));
  shape[2] = CMZ_FORMAT_PANEL;
  return cmz_value_add_constant(F->m, F->g, NULL, dtype, 3, shape, data, bytes);
}

/* Random weights of DIMS; ROW_AXIS counts outputs, COLUMNS is the order of the others. */
static cmz_vid coded(const char *format, const int64_t *dims, uint32_t rank, uint32_t row_axis,
                     const int64_t *columns, uint32_t column_count, uint32_t group) {
  cmz_format_shape s = {.format = cmz_format_find(format), .rows = (uint32_t)dims[row_axis]};
  s.columns = 1;
  for (uint32_t i = 0; i < rank; i++) s.columns *= i == row_axis ? 1 : (uint32_t)dims[i];
  s.group_size = group;
  cmz_matrix w = {s.rows, s.columns, CMZ_NEW_ARRAY(F->m->arena, float, (size_t)s.rows *s.columns)};
  for (size_t i = 0; i < (size_t)s.rows * s.columns; i++) w.data[i] = (float)random_number(-1, 1);
  cmz_format_data d;
  cmz_quantise_nearest(F->m->arena, &w, &s, false, &d);
  uint32_t panels = (s.rows + CMZ_FORMAT_PANEL - 1) / CMZ_FORMAT_PANEL;
  cmz_vid inputs[3] = {coded_part(s.format->dtype, panels, cmz_format_value_count(&s), d.values),
                       coded_part(d.scale_dtype, panels, cmz_format_scale_count(&s), d.scales), 0};
  if (d.zero_points)
    inputs[2] = coded_part(CMZ_U8, panels, cmz_format_scale_count(&s), d.zero_points);
  lay(inputs[0], *cmz_layout_fragments_order(s.format->bits));
  cmz_vid v = then("Decode", d.zero_points ? 3 : 2, inputs);
  cmz_node_set_string(F->m, F->node, "format", format);
  set_ints("shape", dims, rank);
  set_int("row_axis", row_axis);
  set_ints("columns", columns, column_count);
  set_int("column_count", s.columns);
  set_int("group_size", group);
  return v;
}

/* Numbers stored as TYPE, in LAYOUT, read as f32. */
static cmz_vid stored_as(cmz_dtype type, const int64_t *shape, size_t rank, cmz_layout layout) {
  cmz_vid v = then1("Cast", lay(given(type, shape, rank, -1, 1), layout));
  set_int("to", 1);
  return v;
}

/* [M, K] of TYPE times K x N, then something pointwise. */
static void coded_product(cmz_dtype type, int64_t m, int64_t k, int64_t n, const char *format,
                          uint32_t group) {
  F->tolerance = 1e-2;
  cmz_vid w = coded(format, (int64_t[]){k, n}, 2, 1, (int64_t[]){0, 1, 0}, 3, group);
  cmz_vid y = then2("MatMul", stored_as(type, SHAPE(m, k), (cmz_layout){0}), w);
  then1("Relu", then2("Add", y, f32(SHAPE(n))));
}
static void coded_rows(void) { coded_product(CMZ_F32, 13, 200, 40, "u4", 32); }
static void coded_vector(void) { coded_product(CMZ_F32, 1, 530, 96, "u4", 16); }
static void coded_short_vector(void) { coded_product(CMZ_F16, 2, 40, 32, "i4", 0); }
static void coded_whole(void) { coded_product(CMZ_F16, 64, 512, 64, "u4", 128); }
static void coded_symmetric(void) { coded_product(CMZ_F16, 70, 260, 32, "i4", 64); }
static void coded_bytes(void) { coded_product(CMZ_F32, 5, 150, 48, "i8", 0); }
static void coded_bytes_vector(void) { coded_product(CMZ_F16, 1, 1030, 33, "u8", 32); }
static void coded_bytes_groups(void) { coded_product(CMZ_F32, 37, 96, 80, "u8", 16); }

static void coded_left(void) { /* W x: columns of the result lie side by side */
  F->tolerance = 1e-2;
  cmz_vid w = coded("u4", (int64_t[]){48, 128}, 2, 0, (int64_t[]){1, 1, 0}, 3, 32);
  then2("MatMul", w, f32(SHAPE(128, 19)));
}
static void coded_conv_blocked(void) {
  F->tolerance = 1e-2;
  int64_t columns[] = {1, 16, 0, 2, 1, 0, 3, 1, 0, 1, 1, 16};
  cmz_vid w = coded("u4", (int64_t[]){40, 32, 3, 3}, 4, 0, columns, 12, 32);
  lay(conv(stored_as(CMZ_F16, SHAPE(2, 32, 9, 10), BLOCKED), w, f32(SHAPE(40)), 1, 1, 1, 1),
      BLOCKED);
}
static void coded_conv_plain(void) {
  F->tolerance = 1e-2;
  int64_t columns[] = {1, 1, 0, 2, 1, 0, 3, 1, 0};
  cmz_vid w = coded("i8", (int64_t[]){32, 12, 3, 3}, 4, 0, columns, 9, 0);
  conv(f32(SHAPE(1, 12, 9, 10)), w, 0, 1, 2, 1, 1);
}

static const kernel_case CODED_CASES[] = {
    CASE(coded_rows),         CASE(coded_vector),       CASE(coded_short_vector), CASE(coded_whole),
    CASE(coded_symmetric),    CASE(coded_bytes),        CASE(coded_bytes_vector), CASE(coded_left),
    CASE(coded_bytes_groups), CASE(coded_conv_blocked), CASE(coded_conv_plain)};

#endif
