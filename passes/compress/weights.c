/* weights.c - the weights of layers as matrices, and layers in two: one row an operator.
 * In: a module whose composite operators are expanded (a Gemm is a MatMul by now). Out: where a
 * layer's weight is and how its dims become rows and columns; the two layers of a split one. Always
 * holds: the two layers of a split compute what the one did with the weight A B, the bias last. */
#include "compress.h"

#include "../../ir/op.h"

#define MOST_PADDING                                                                               \
  1.6 /* of panels over rows: fewer rows are stored as they are (passes/layout.c) */

/* ---- reading ---- */

static bool read_dims(const cmz_module *m, cmz_weight *w) {
  const cmz_constant *constant = cmz_value_constant(m, w->constant);
  int64_t elements = 1;
  w->rank = constant->rank;
  w->dtype = constant->dtype;
  memcpy(w->dims, constant->shape, constant->rank * sizeof *constant->shape);
  for (uint32_t i = 0; i < w->rank; i++) {
    if (w->dims[i] <= 0 || w->dims[i] > INT32_MAX / 16) return false;
    elements *= w->dims[i];
    if (elements > INT32_MAX) return false;
  }
  return true;
}

static bool find_constant(const cmz_module *m, cmz_nid n, uint32_t input, cmz_weight *w) {
  cmz_vid v = cmz_node_input(cmz_node_get(m, n), input);
  const cmz_constant *constant = v ? cmz_value_constant(m, v) : NULL;
  if (!constant || !cmz_dtype_is_float(constant->dtype) || constant->layout.count) return false;
  w->node = n;
  w->constant = v;
  w->input = input;
  return true;
}

static void set_sizes(cmz_weight *w) {
  int64_t columns = 1;
  w->rows = (uint32_t)w->dims[w->row_axis];
  for (uint32_t i = 0; i < w->rank; i++)
    if (i != w->row_axis) columns *= w->dims[i];
  w->columns = (uint32_t)columns;
}

/* x W, or W x: the outputs are the columns of W, or its rows. */
static bool read_matmul(const cmz_module *m, cmz_nid n, cmz_weight *w) {
  if (!find_constant(m, n, 1, w) && !find_constant(m, n, 0, w)) return false;
  if (cmz_value_constant(m, w->constant)->rank != 2 || !read_dims(m, w)) return false;
  w->row_axis = w->input;
  w->order = (cmz_layout){1, {{(uint8_t)(1 - w->row_axis), 1, 0}}};
  w->splits = true;
  set_sizes(w);
  return true;
}

/* Columns run as the convolution kernel walks: blocks of 16 input channels, kernel positions,
 * channels in the block. */
static void order_window(cmz_weight *w) {
  bool blocked = w->dims[1] % CMZ_FORMAT_PANEL == 0;
  w->order.count = 0;
  w->order.axes[w->order.count++] = (cmz_layout_axis){1, blocked ? CMZ_FORMAT_PANEL : 1, 0};
  for (uint32_t i = 2; i < w->rank; i++)
    w->order.axes[w->order.count++] = (cmz_layout_axis){(uint8_t)i, 1, 0};
  if (blocked) w->order.axes[w->order.count++] = (cmz_layout_axis){1, 1, CMZ_FORMAT_PANEL};
}

static bool read_conv(const cmz_module *m, cmz_nid n, cmz_weight *w) {
  if (!find_constant(m, n, 1, w)) return false;
  uint32_t rank = cmz_value_constant(m, w->constant)->rank;
  if (rank < 3 || rank + 1 > CMZ_LAYOUT_MAX_AXES || !read_dims(m, w)) return false;
  bool grouped = cmz_node_int(cmz_node_get(m, n), "group", 1) != 1;
  w->row_axis = 0;
  w->packed = true;
  w->splits = !grouped;
  if (grouped && w->dims[1] == 1) w->note = "a depthwise convolution stays as it is";
  order_window(w);
  set_sizes(w);
  return true;
}

static const struct {
  const char *op;
  bool (*read)(const cmz_module *m, cmz_nid n, cmz_weight *w);
} kinds[] = {{"MatMul", read_matmul}, {"Conv", read_conv}};

bool cmz_weight_read(const cmz_module *m, cmz_nid n, cmz_weight *w) {
  const cmz_node *node = cmz_node_get(m, n);
  if (node->removed || node->op->domain[0]) return false;
  for (size_t i = 0; i < CMZ_COUNT_OF(kinds); i++) {
    if (strcmp(node->op->name, kinds[i].op)) continue;
    *w = (cmz_weight){.op = kinds[i].op};
    return kinds[i].read(m, n, w);
  }
  return false;
}

const char *cmz_weight_layer_name(const cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  bool made_up = !strncmp(node->name, "cmz.", 4);
  return made_up && node->source_count ? node->sources[0] : node->name;
}

/* Linear index in the constant of (row, column). */
static size_t element_of(const cmz_weight *w, uint32_t row, uint32_t column) {
  int64_t idx[CMZ_MAX_RANK] = {0};
  for (uint32_t i = w->order.count; i-- > 0;) {
    const cmz_layout_axis *a = &w->order.axes[i];
    uint32_t extent = a->mod ? a->mod : (uint32_t)((w->dims[a->axis] + a->div - 1) / a->div);
    idx[a->axis] += (int64_t)(column % extent) * a->div;
    column /= extent;
  }
  idx[w->row_axis] = row;
  size_t linear = 0;
  for (uint32_t i = 0; i < w->rank; i++) linear = linear * (size_t)w->dims[i] + (size_t)idx[i];
  return linear;
}

cmz_matrix cmz_weight_matrix(const cmz_module *m, cmz_arena *arena, const cmz_weight *w) {
  const cmz_constant *constant = cmz_value_constant(m, w->constant);
  cmz_matrix matrix = {w->rows, w->columns,
                       CMZ_NEW_ARRAY(arena, float, (size_t)w->rows * w->columns)};
  float *to = matrix.data;
  for (uint32_t r = 0; r < w->rows; r++)
    for (uint32_t k = 0; k < w->columns; k++)
      *to++ = (float)cmz_dtype_get_f64(constant->dtype, constant->data, element_of(w, r, k));
  return matrix;
}

void cmz_weight_scatter(const cmz_weight *w, const cmz_matrix *matrix, float *dense) {
  const float *from = matrix->data;
  for (uint32_t r = 0; r < w->rows; r++)
    for (uint32_t k = 0; k < w->columns; k++) dense[element_of(w, r, k)] = *from++;
}

size_t cmz_weight_stored_bytes(const cmz_weight *w) {
  size_t rows = w->rows, padded = cmz_align_up(rows, CMZ_FORMAT_PANEL);
  if (w->packed && (double)padded <= MOST_PADDING * (double)rows) rows = padded;
  size_t bytes = 0;
  cmz_dtype_bytes(w->dtype, rows * w->columns, &bytes);
  return bytes;
}

/* ---- two layers for one ---- */

static bool is_conv(const cmz_weight *w) { return w->packed; }

/* Window axes that can go to either layer: those longer than 1. */
static uint32_t free_axes(const cmz_weight *w, uint32_t *axes) {
  uint32_t count = 0;
  for (uint32_t i = 2; is_conv(w) && i < w->rank; i++)
    if (w->dims[i] > 1) axes[count++] = i;
  return count;
}

bool cmz_split_at(const cmz_weight *w, uint32_t index, cmz_split *split) {
  uint32_t axes[CMZ_MAX_RANK], count = free_axes(w, axes);
  if (!w->splits || index >> count) return false;
  *split = (cmz_split){.rows = w->rows, .columns = w->columns};
  for (uint32_t i = 2; is_conv(w) && i < w->rank; i++) split->first_axes |= 1u << i;
  for (uint32_t i = 0; i < count; i++)
    if (index >> i & 1u) {
      split->first_axes &= ~(1u << axes[i]);
      split->rows *= (uint32_t)w->dims[axes[i]];
      split->columns /= (uint32_t)w->dims[axes[i]];
    }
  return true;
}

static bool in_first(const cmz_split *split, uint32_t axis) {
  return (split->first_axes >> axis & 1u) != 0;
}

/* Row and column in the split's matrix of the constant's element LINEAR. */
static void place_of(const cmz_weight *w, const cmz_split *split, size_t linear, size_t *row,
                     size_t *column) {
  size_t idx[CMZ_MAX_RANK] = {0};
  for (uint32_t i = w->rank; i-- > 0; linear /= (size_t)w->dims[i])
    idx[i] = linear % (size_t)w->dims[i];
  *row = idx[w->row_axis];
  *column = idx[1 - w->row_axis];
  for (uint32_t i = 2; i < w->rank; i++) {
    size_t *place = in_first(split, i) ? column : row;
    *place = *place * (size_t)w->dims[i] + idx[i];
  }
}

cmz_matrix cmz_split_matrix(const cmz_module *m, cmz_arena *arena, const cmz_weight *w,
                            const cmz_split *split) {
  const cmz_constant *constant = cmz_value_constant(m, w->constant);
  size_t count = (size_t)w->rows * w->columns, row, column;
  cmz_matrix matrix = {split->rows, split->columns, CMZ_NEW_ARRAY(arena, float, count)};
  for (size_t i = 0; i < count; i++) {
    place_of(w, split, i, &row, &column);
    matrix.data[row * split->columns + column] =
        (float)cmz_dtype_get_f64(constant->dtype, constant->data, i);
  }
  return matrix;
}

void cmz_split_weights(const cmz_weight *w, const cmz_split *split, uint32_t rank,
                       cmz_weight *first, cmz_weight *second) {
  *first = *second = *w;
  first->dims[w->row_axis] = rank;
  second->dims[1 - w->row_axis] = rank;
  for (uint32_t i = 2; i < w->rank; i++) (in_first(split, i) ? second : first)->dims[i] = 1;
  if (is_conv(w)) order_window(first), order_window(second);
  set_sizes(first);
  set_sizes(second);
}

/* Linear index in the layer's weight F of element (I, R) of its factor: I counts the split's rows
 * (second layer) or columns (first), R the rank. */
static size_t factor_element(const cmz_weight *f, bool second, size_t i, size_t r) {
  size_t window = 1;
  for (uint32_t axis = 2; axis < f->rank; axis++) window *= (size_t)f->dims[axis];
  size_t channel = i / window, place = i % window;
  /* The rank is the inputs of the second layer and the outputs of the first. */
  bool rank_first = (f->row_axis == 0) != second;
  size_t major = rank_first ? r : channel, minor = rank_first ? channel : r;
  return (major * (size_t)f->dims[1] + minor) * window + place;
}

static cmz_vid add_factor(cmz_module *m, cmz_gid g, const cmz_weight *f, bool second,
                          const cmz_matrix *matrix) {
  size_t count = (size_t)matrix->rows * matrix->columns, bytes = 0;
  cmz_dtype_bytes(f->dtype, count, &bytes);
  void *data = cmz_arena_alloc(m->arena, bytes);
  const float *from = matrix->data;
  for (size_t i = 0; i < matrix->rows; i++)
    for (size_t j = 0; j < matrix->columns; j++) {
      size_t to = second ? factor_element(f, true, i, j) : factor_element(f, false, j, i);
      cmz_dtype_set_f64(f->dtype, data, to, (double)*from++);
    }
  int64_t *dims = cmz_arena_copy(m->arena, f->dims, f->rank * sizeof *f->dims);
  return cmz_value_add_constant(m, g, NULL, f->dtype, f->rank, dims, data, bytes);
}

void cmz_split_constants(cmz_module *m, const cmz_weight *w, const cmz_split *split,
                         const cmz_matrix *a, const cmz_matrix *b, cmz_vid *first,
                         cmz_vid *second) {
  /* Beside the old weight, so that every layer that reads that one can read these. */
  cmz_gid g = cmz_value_get(m, w->constant)->graph;
  cmz_weight wb, wa;
  cmz_split_weights(w, split, a->columns, &wb, &wa);
  *first = add_factor(m, g, &wb, false, b);
  *second = add_factor(m, g, &wa, true, a);
}

cmz_matrix cmz_split_factor(cmz_arena *arena, const cmz_weight *w, const cmz_split *split,
                            uint32_t rank, bool second, const float *dense) {
  cmz_weight wb, wa;
  cmz_split_weights(w, split, rank, &wb, &wa);
  cmz_matrix out = {second ? split->rows : rank, second ? rank : split->columns, NULL};
  float *to = out.data = CMZ_NEW_ARRAY(arena, float, (size_t)out.rows *out.columns);
  for (size_t i = 0; i < out.rows; i++)
    for (size_t j = 0; j < out.columns; j++)
      *to++ = dense[second ? factor_element(&wa, true, i, j) : factor_element(&wb, false, j, i)];
  return out;
}

/* ATTRIBUTE (a number a window axis; ENDS: first all begins, then all ends) with NEUTRAL on the
 * axes that the layer does not have. */
static void keep_axes(cmz_module *m, cmz_nid n, const char *attribute, const cmz_weight *w,
                      const cmz_split *split, bool first, int64_t neutral) {
  uint32_t count, window = w->rank - 2;
  const int64_t *old = cmz_node_ints(cmz_node_get(m, n), attribute, &count);
  if (!old || count > 2 * CMZ_MAX_RANK) return;
  int64_t kept[2 * CMZ_MAX_RANK];
  for (uint32_t i = 0; i < count; i++)
    kept[i] = in_first(split, 2 + i % window) == first ? old[i] : neutral;
  cmz_node_set_ints(m, n, attribute, kept, count);
}

static void keep_window(cmz_module *m, cmz_nid n, const cmz_weight *w, const cmz_split *split,
                        bool first) {
  keep_axes(m, n, "kernel_shape", w, split, first, 1);
  keep_axes(m, n, "strides", w, split, first, 1);
  keep_axes(m, n, "dilations", w, split, first, 1);
  keep_axes(m, n, "pads", w, split, first, 0);
}

cmz_status cmz_split_apply(cmz_module *m, const cmz_weight *w, const cmz_split *split,
                           cmz_vid first, cmz_vid second, cmz_nid *first_node) {
  const cmz_node *old = cmz_node_get(m, w->node);
  cmz_vid inputs[2] = {old->inputs[0], old->inputs[1]},
          between = cmz_value_add(m, old->graph, NULL);
  inputs[w->input] = first;
  old = cmz_node_get(m, w->node);
  const char *name = cmz_arena_printf(m->arena, "%s.b", cmz_weight_layer_name(m, w->node));
  cmz_nid n = cmz_node_insert(m, w->node, old->op, name, 2, inputs, 1, &between);
  for (uint32_t i = 0; i < cmz_node_get(m, w->node)->attr_count; i++)
    cmz_node_set_attr(m, n, &cmz_node_get(m, w->node)->attrs[i]);
  if (is_conv(w)) {
    keep_window(m, n, w, split, true);
    keep_window(m, w->node, w, split, false);
  }
  cmz_node_set_input(m, w->node, 1 - w->input, between);
  cmz_node_set_input(m, w->node, w->input, second);
  CMZ_TRY(cmz_infer_node(m, n));
  *first_node = n;
  return cmz_infer_node(m, w->node);
}
