/* decode.c - cmz.Decode: a compressed weight (format.h) as a tensor of f32.
 * In: the constants of the format; attributes `format` (row's name), `shape` (logical dims),
 * `row_axis` (the dim that counts outputs), `columns` (the other dims in the order in which columns
 * run, outermost first, as triples axis, div, mod of layout.h), `column_count` (padding included),
 * `group_size`, `sparse`. Inputs: values, scales, zero points, indices (the last three 0 where the
 * format has none). Always holds: fusion puts the expression into the consumer, unless the
 * attribute `stored` says that a kernel of its own decodes the whole tensor once a run. */
#include "../evaluator.h"
#include "../format.h"
#include "../op.h"

enum { VALUES, SCALES, ZERO_POINTS, INDICES };

typedef struct decode_info {
  cmz_format_shape shape;
  uint32_t rank, row_axis;
  int64_t dims[CMZ_MAX_RANK];
  cmz_layout columns; /* axes only; a list of (axis, div, mod) */
} decode_info;

static bool read_info(const cmz_node *n, decode_info *info) {
  uint32_t rank, count;
  const int64_t *dims = cmz_node_ints(n, "shape", &rank),
                *columns = cmz_node_ints(n, "columns", &count);
  info->shape.format = cmz_format_find(cmz_node_string(n, "format", ""));
  info->rank = rank;
  info->row_axis = (uint32_t)cmz_node_int(n, "row_axis", 0);
  if (!info->shape.format || !rank || rank > CMZ_MAX_RANK || info->row_axis >= rank) return false;
  if (!columns || count % 3 || count / 3 > CMZ_LAYOUT_MAX_AXES) return false;
  memcpy(info->dims, dims, rank * sizeof *dims);
  info->columns.count = count / 3;
  for (uint32_t i = 0; i < count / 3; i++) {
    const int64_t *c = columns + (size_t)i * 3;
    if (c[0] < 0 || c[0] >= rank || c[1] < 1) return false;
    info->columns.axes[i] = (cmz_layout_axis){(uint8_t)c[0], (uint32_t)c[1], (uint32_t)c[2]};
  }
  info->shape.rows = (uint32_t)dims[info->row_axis];
  info->shape.columns = (uint32_t)cmz_node_int(n, "column_count", 0);
  info->shape.group_size = (uint32_t)cmz_node_int(n, "group_size", 0);
  info->shape.sparse = cmz_node_int(n, "sparse", 0) != 0;
  return true;
}

static int64_t column_extent(const decode_info *info, const cmz_layout_axis *a) {
  return a->mod ? a->mod : (info->dims[a->axis] + a->div - 1) / a->div;
}

static cmz_status infer_decode(cmz_module *m, cmz_nid n) {
  decode_info info;
  if (!read_info(cmz_node_get(m, n), &info))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "malformed attributes");
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < info.rank; i++) shape[i] = cmz_dim_const(m->dims, info.dims[i]);
  cmz_value_set_type(m, cmz_node_get(m, n)->outputs[0], CMZ_F32, info.rank, shape);
  return CMZ_OK;
}

static uint32_t column_of(const decode_info *info, const int64_t *idx) {
  int64_t column = 0;
  for (uint32_t i = 0; i < info->columns.count; i++) {
    const cmz_layout_axis *a = &info->columns.axes[i];
    int64_t c = idx[a->axis] / a->div;
    column = column * column_extent(info, a) + (a->mod ? c % a->mod : c);
  }
  return (uint32_t)column;
}

static cmz_status eval_decode(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  decode_info info;
  if (!read_info(n, &info)) return cmz_eval_fail(e, "malformed attributes");
  outputs[0].dtype = CMZ_F32;
  outputs[0].rank = info.rank;
  memcpy(outputs[0].shape, info.dims, info.rank * sizeof *info.dims);
  CMZ_TRY(cmz_eval_output(e, &outputs[0]));
  cmz_format_data data = {.values = inputs[VALUES].data};
  if (n->input_count > SCALES)
    data.scales = inputs[SCALES].data, data.scale_dtype = inputs[SCALES].dtype;
  if (n->input_count > ZERO_POINTS) data.zero_points = inputs[ZERO_POINTS].data;
  if (n->input_count > INDICES) data.indices = inputs[INDICES].data;
  float *out = outputs[0].data;
  size_t count = cmz_array_count(&outputs[0]);
  for (size_t i = 0; i < count; i++) {
    int64_t idx[CMZ_MAX_RANK];
    cmz_array_coordinates(&outputs[0], i, idx);
    out[i] =
        cmz_format_decode(&info.shape, &data, (uint32_t)idx[info.row_axis], column_of(&info, idx));
  }
  return CMZ_OK;
}

/* Element of input INPUT, a [panel][lines][16] array of bytes or numbers, or its elements in a row.
 */
static cmz_expr panel_load(cmz_describe *d, const cmz_node *n, const cmz_format_shape *s,
                           uint32_t input, cmz_expr row, uint32_t lines, cmz_expr line) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr rows = cmz_x_index(k, cmz_format_panel(s));
  cmz_expr panel = cmz_x2(k, CMZ_X_FLOORDIV, row, rows);
  cmz_expr lane = cmz_x2(k, CMZ_X_MOD, row, rows);
  if (cmz_value_get(cmz_describe_module(d), cmz_node_input(n, input))->type.rank == 3)
    return cmz_describe_input(d, input, (cmz_expr[]){panel, line, lane});
  cmz_expr index = cmz_x2(k, CMZ_X_ADD, cmz_x2(k, CMZ_X_MUL, panel, cmz_x_index(k, lines)), line);
  index = cmz_x2(k, CMZ_X_ADD, cmz_x2(k, CMZ_X_MUL, index, rows), lane);
  return cmz_describe_input(d, input, &index);
}

/* BITS bits of the byte array INPUT at position POSITION (several positions a byte, low bits
 * first), as i32. */
static cmz_expr packed_load(cmz_describe *d, const cmz_node *n, const cmz_format_shape *s,
                            uint32_t input, cmz_expr row, uint32_t positions, cmz_expr position,
                            uint32_t bits) {
  cmz_kernel *k = cmz_describe_kernel(d);
  uint32_t per = bits < 8 ? 8 / bits : 1, lines = (positions + per - 1) / per;
  if (per == 1) return panel_load(d, n, s, input, row, lines, position);
  cmz_expr byte = panel_load(d, n, s, input, row, lines,
                             cmz_x2(k, CMZ_X_FLOORDIV, position, cmz_x_index(k, per)));
  byte = cmz_x_cast(k, byte, CMZ_I32);
  cmz_expr shift = cmz_x2(k, CMZ_X_MUL, cmz_x2(k, CMZ_X_MOD, position, cmz_x_index(k, per)),
                          cmz_x_index(k, bits));
  byte = cmz_x2(k, CMZ_X_SHR, byte, cmz_x_cast(k, shift, CMZ_I32));
  return cmz_x2(k, CMZ_X_AND, byte, cmz_x_int(k, CMZ_I32, (1 << bits) - 1));
}

/* The weight at (row, kept column). */
static cmz_expr describe_kept(cmz_describe *d, const cmz_node *n, const decode_info *info,
                              cmz_expr row, cmz_expr kept) {
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_format_shape *s = &info->shape;
  cmz_expr code = packed_load(d, n, s, VALUES, row, cmz_format_kept(s), kept, s->format->bits);
  if (s->format->is_float) return code;
  code = cmz_x_cast(k, code, CMZ_F32);
  int32_t bias = cmz_format_bias(s->format);
  if (bias) code = cmz_x2(k, CMZ_X_SUB, code, cmz_x_float(k, CMZ_F32, (double)bias));
  cmz_expr group = s->group_size ? cmz_x2(k, CMZ_X_FLOORDIV, kept, cmz_x_index(k, s->group_size))
                                 : cmz_x_index(k, 0);
  uint32_t groups = cmz_format_groups(s);
  if (s->format->zero_points) {
    cmz_expr zero_point =
        cmz_x_cast(k, panel_load(d, n, s, ZERO_POINTS, row, groups, group), CMZ_F32);
    code = cmz_x2(k, CMZ_X_SUB, code, zero_point);
  }
  return cmz_x2(k, CMZ_X_MUL, code, panel_load(d, n, s, SCALES, row, groups, group));
}

static cmz_expr describe_decode(cmz_describe *d, const cmz_node *n, uint32_t output,
                                const cmz_expr *idx) {
  (void)output;
  decode_info info;
  if (!read_info(n, &info)) return cmz_describe_fail(d, "malformed attributes");
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr row = idx[info.row_axis], column = cmz_x_index(k, 0);
  for (uint32_t i = 0; i < info.columns.count; i++) {
    const cmz_layout_axis *a = &info.columns.axes[i];
    cmz_expr c = cmz_x2(k, CMZ_X_FLOORDIV, idx[a->axis], cmz_x_index(k, a->div));
    if (a->mod) c = cmz_x2(k, CMZ_X_MOD, c, cmz_x_index(k, a->mod));
    column = cmz_x2(k, CMZ_X_ADD,
                    cmz_x2(k, CMZ_X_MUL, column, cmz_x_index(k, column_extent(&info, a))), c);
  }
  if (!info.shape.sparse) return describe_kept(d, n, &info, row, column);
  cmz_expr group = cmz_x2(k, CMZ_X_FLOORDIV, column, cmz_x_index(k, 4));
  cmz_expr place = cmz_x_cast(k, cmz_x2(k, CMZ_X_MOD, column, cmz_x_index(k, 4)), CMZ_I32);
  cmz_expr nibble =
      packed_load(d, n, &info.shape, INDICES, row, (info.shape.columns + 3) / 4, group, 4);
  cmz_expr first = cmz_x2(k, CMZ_X_AND, nibble, cmz_x_int(k, CMZ_I32, 3));
  cmz_expr second = cmz_x2(k, CMZ_X_SHR, nibble, cmz_x_int(k, CMZ_I32, 2));
  cmz_expr kept = cmz_x2(k, CMZ_X_MUL, group, cmz_x_index(k, 2));
  cmz_expr w0 = describe_kept(d, n, &info, row, kept);
  cmz_expr w1 = describe_kept(d, n, &info, row, cmz_x2(k, CMZ_X_ADD, kept, cmz_x_index(k, 1)));
  cmz_expr other =
      cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, second, place), w1, cmz_x_float(k, CMZ_F32, 0));
  return cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, first, place), w0, other);
}

const cmz_op cmz_ops_decode[] = {
    {.domain = "cmz",
     .name = "Decode",
     .min_inputs = 1,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_MOVEMENT | CMZ_OP_CHEAP | CMZ_OP_DECODE,
     .infer = infer_decode,
     .eval = eval_decode,
     .describe = describe_decode},
    {0},
};
