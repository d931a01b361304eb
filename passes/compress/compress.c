/* compress.c - the compression pass: for each layer with a constant weight (MatMul, Gemm, Conv) the
 * rules decide what is done: low-rank split, 2:4 pruning, quantisation, alone or together, in this
 * order. In: an expanded module and rules. Out: layers that read cmz.Decode of compressed
 * constants; one result a layer. Always holds: a step that would not make the layer smaller is left
 * out, and the result says why. */
#include "compress.h"
#include "../passes.h"

#include "../../ir/op.h"

#include <fnmatch.h>
#include <math.h>

/* A weight of a layer: which input it is, and how its dims become rows and columns. */
typedef struct weight {
  cmz_nid node;
  uint32_t input, rank, row_axis;
  int64_t dims[CMZ_MAX_RANK];
  cmz_layout order; /* of the columns */
  uint32_t rows, columns;
} weight;

typedef struct work {
  cmz_module *m;
  cmz_compression *compression;
  cmz_arena *scratch;
} work;

/* One row an operator: how the weight of such a layer is seen as a matrix, and how the layer is
 * split in two. */
typedef struct layer_kind {
  const char *op;
  bool (*read)(const cmz_module *m, cmz_nid n, weight *w);
  cmz_nid (*split)(work *c, const weight *w, const cmz_matrix *a, const cmz_matrix *b,
                   cmz_nid *first);
} layer_kind;

static bool read_constant(const cmz_module *m, cmz_nid n, weight *w) {
  const cmz_constant *constant = cmz_value_constant(m, cmz_node_input(cmz_node_get(m, n), 1));
  if (!constant || !cmz_dtype_is_float(constant->dtype) || constant->rank < 2 ||
      constant->layout.count)
    return false;
  w->node = n;
  w->input = 1;
  w->rank = constant->rank;
  memcpy(w->dims, constant->shape, constant->rank * sizeof *constant->shape);
  int64_t elements = 1;
  for (uint32_t i = 0; i < w->rank; i++) {
    if (w->dims[i] <= 0 || w->dims[i] > INT32_MAX / 16) return false;
    elements *= w->dims[i];
    if (elements > INT32_MAX) return false;
  }
  return true;
}

static void finish_weight(weight *w) {
  int64_t columns = 1;
  w->rows = (uint32_t)w->dims[w->row_axis];
  for (uint32_t i = 0; i < w->rank; i++)
    if (i != w->row_axis) columns *= w->dims[i];
  w->columns = (uint32_t)columns;
}

static bool read_matmul(const cmz_module *m, cmz_nid n, weight *w) {
  if (!read_constant(m, n, w) || w->rank != 2) return false;
  w->row_axis = 1;
  w->order = (cmz_layout){1, {{0, 1, 0}}};
  finish_weight(w);
  return true;
}

static bool read_gemm(const cmz_module *m, cmz_nid n, weight *w) {
  if (!read_constant(m, n, w) || w->rank != 2) return false;
  w->row_axis = cmz_node_int(cmz_node_get(m, n), "transB", 0) ? 0 : 1;
  w->order = (cmz_layout){1, {{(uint8_t)(1 - w->row_axis), 1, 0}}};
  finish_weight(w);
  return true;
}

/* Columns run as the convolution kernel walks: blocks of 16 input channels, kernel positions,
 * channels in the block. */
static bool read_conv(const cmz_module *m, cmz_nid n, weight *w) {
  if (!read_constant(m, n, w) || cmz_node_int(cmz_node_get(m, n), "group", 1) != 1) return false;
  bool blocked = w->dims[1] % CMZ_FORMAT_PANEL == 0;
  w->row_axis = 0;
  w->order.count = 0;
  w->order.axes[w->order.count++] = (cmz_layout_axis){1, blocked ? CMZ_FORMAT_PANEL : 1, 0};
  for (uint32_t i = 2; i < w->rank; i++)
    w->order.axes[w->order.count++] = (cmz_layout_axis){(uint8_t)i, 1, 0};
  if (blocked) w->order.axes[w->order.count++] = (cmz_layout_axis){1, 1, CMZ_FORMAT_PANEL};
  finish_weight(w);
  return true;
}

/* Linear index in the constant of (row, column). */
static size_t element_of(const weight *w, uint32_t row, uint32_t column) {
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

static cmz_matrix read_matrix(work *c, const weight *w) {
  const cmz_constant *constant =
      cmz_value_constant(c->m, cmz_node_get(c->m, w->node)->inputs[w->input]);
  cmz_matrix matrix = {w->rows, w->columns,
                       CMZ_NEW_ARRAY(c->scratch, float, (size_t)w->rows * w->columns)};
  for (uint32_t r = 0; r < w->rows; r++)
    for (uint32_t k = 0; k < w->columns; k++)
      matrix.data[(size_t)r * w->columns + k] =
          (float)cmz_dtype_get_f64(constant->dtype, constant->data, element_of(w, r, k));
  return matrix;
}

/* A constant of the weight's shape (DIMS may differ from the old ones) with the matrix's values. */
static cmz_vid add_dense(work *c, const weight *w, const cmz_matrix *matrix, cmz_gid g,
                         const char *name, cmz_dtype dtype) {
  size_t count = (size_t)matrix->rows * matrix->columns, bytes = 0;
  cmz_dtype_bytes(dtype, count, &bytes);
  void *data = cmz_arena_alloc(c->m->arena, bytes);
  for (uint32_t r = 0; r < matrix->rows; r++)
    for (uint32_t k = 0; k < matrix->columns; k++)
      cmz_dtype_set_f64(dtype, data, element_of(w, r, k),
                        (double)matrix->data[(size_t)r * matrix->columns + k]);
  int64_t *dims = cmz_arena_copy(c->m->arena, w->dims, w->rank * sizeof *w->dims);
  cmz_vid v = cmz_value_add_constant(c->m, g, name, dtype, w->rank, dims, data, bytes);
  return v;
}

static cmz_nid add_layer(work *c, cmz_nid before, const char *op, cmz_vid x, cmz_vid weights,
                         cmz_vid bias, const char *suffix) {
  const cmz_node *old = cmz_node_get(c->m, before);
  cmz_vid inputs[3] = {x, weights, bias}, out = cmz_value_add(c->m, old->graph, NULL);
  const char *name = cmz_arena_printf(c->m->arena, "%s%s", old->name, suffix);
  return cmz_node_insert(c->m, before, cmz_op_get(op), name, bias ? 3 : 2, inputs, 1, &out);
}

/* x W = (x Bᵀ) Aᵀ; the second product takes the layer's place. */
static cmz_nid split_matmul(work *c, const weight *w, const cmz_matrix *a, const cmz_matrix *b,
                            cmz_nid *first) {
  cmz_node *old = cmz_node_get(c->m, w->node);
  cmz_gid g = old->graph;
  cmz_dtype dtype = cmz_value_constant(c->m, old->inputs[1])->dtype;
  weight wb = *w, wa = *w;
  wb.dims[1] = b->rows;
  wa.dims[0] = a->columns;
  cmz_vid vb = add_dense(c, &wb, b, g, NULL, dtype), va = add_dense(c, &wa, a, g, NULL, dtype);
  *first = add_layer(c, w->node, "MatMul", cmz_node_get(c->m, w->node)->inputs[0], vb, 0, ".b");
  cmz_node_set_input(c->m, w->node, 0, cmz_node_get(c->m, *first)->outputs[0]);
  cmz_node_set_input(c->m, w->node, 1, va);
  return w->node;
}

/* A Gemm keeps alpha, beta, its bias and transA on the two layers that need them. */
static cmz_nid split_gemm(work *c, const weight *w, const cmz_matrix *a, const cmz_matrix *b,
                          cmz_nid *first) {
  cmz_gid g = cmz_node_get(c->m, w->node)->graph;
  cmz_dtype dtype = cmz_value_constant(c->m, cmz_node_get(c->m, w->node)->inputs[1])->dtype;
  weight wb = *w, wa = *w;
  wb.dims[w->row_axis] = b->rows;
  wa.dims[1 - w->row_axis] = a->columns;
  cmz_vid vb = add_dense(c, &wb, b, g, NULL, dtype), va = add_dense(c, &wa, a, g, NULL, dtype);
  *first = add_layer(c, w->node, "Gemm", cmz_node_get(c->m, w->node)->inputs[0], vb, 0, ".b");
  const cmz_node *old = cmz_node_get(c->m, w->node);
  cmz_node_set_int(c->m, *first, "transA", cmz_node_int(old, "transA", 0));
  cmz_node_set_int(c->m, *first, "transB", cmz_node_int(old, "transB", 0));
  cmz_node_set_int(c->m, w->node, "transA", 0);
  cmz_node_set_input(c->m, w->node, 0, cmz_node_get(c->m, *first)->outputs[0]);
  cmz_node_set_input(c->m, w->node, 1, va);
  return w->node;
}

/* A convolution to RANK channels with the old window, then a 1x1 convolution with the bias. */
static cmz_nid split_conv(work *c, const weight *w, const cmz_matrix *a, const cmz_matrix *b,
                          cmz_nid *first) {
  cmz_gid g = cmz_node_get(c->m, w->node)->graph;
  cmz_dtype dtype = cmz_value_constant(c->m, cmz_node_get(c->m, w->node)->inputs[1])->dtype;
  weight wb = *w, wa = *w;
  wb.dims[0] = b->rows;
  wa.dims[1] = a->columns;
  for (uint32_t i = 2; i < w->rank; i++) wa.dims[i] = 1;
  wa.order = (cmz_layout){1, {{1, 1, 0}}};
  cmz_vid vb = add_dense(c, &wb, b, g, NULL, dtype), va = add_dense(c, &wa, a, g, NULL, dtype);
  *first = add_layer(c, w->node, "Conv", cmz_node_get(c->m, w->node)->inputs[0], vb, 0, ".b");
  const cmz_node *old = cmz_node_get(c->m, w->node);
  uint32_t count = old->attr_count;
  for (uint32_t i = 0; i < count; i++)
    cmz_node_set_attr(c->m, *first, &cmz_node_get(c->m, w->node)->attrs[i]);
  static const char *const window[] = {"kernel_shape", "strides", "pads", "dilations", "auto_pad"};
  for (size_t i = 0; i < CMZ_COUNT_OF(window); i++) cmz_node_remove_attr(c->m, w->node, window[i]);
  cmz_node_set_input(c->m, w->node, 0, cmz_node_get(c->m, *first)->outputs[0]);
  cmz_node_set_input(c->m, w->node, 1, va);
  return w->node;
}

static const layer_kind kinds[] = {
    {"MatMul", read_matmul, split_matmul},
    {"Gemm", read_gemm, split_gemm},
    {"Conv", read_conv, split_conv},
};

static const layer_kind *kind_of(const cmz_node *n) {
  for (size_t i = 0; i < CMZ_COUNT_OF(kinds); i++)
    if (!n->op->domain[0] && !strcmp(n->op->name, kinds[i].op)) return &kinds[i];
  return NULL;
}

/* ---- one weight into a format ---- */

static cmz_vid add_part(work *c, cmz_gid g, cmz_dtype dtype, size_t count, const void *data) {
  size_t bytes = 0;
  cmz_dtype_bytes(dtype, count, &bytes);
  int64_t *shape = CMZ_NEW(c->m->arena, int64_t);
  *shape = (int64_t)count;
  return cmz_value_add_constant(c->m, g, NULL, dtype, 1, shape, data, bytes);
}

static size_t format_bytes(const cmz_format_shape *s) {
  size_t values = 0, scale_bytes = s->group_size ? 2 : 4;
  cmz_dtype_bytes(s->format->dtype, cmz_format_value_count(s), &values);
  size_t scales = cmz_format_scale_count(s) * (scale_bytes + (s->format->zero_points ? 1 : 0));
  return values + scales + cmz_format_index_count(s);
}

static cmz_format_shape choose_format(const cmz_compression_rule *rule, const weight *w) {
  cmz_format_shape s = {
      .rows = w->rows, .columns = w->columns, .sparse = rule->sparsity == CMZ_SPARSITY_2_4};
  s.format = cmz_format_find(rule->bits == 8   ? "i8"
                             : rule->bits == 4 ? "u4"
                             : rule->bits == 2 ? "u2"
                                               : "f32");
  if (rule->group_size > 0) s.group_size = (uint32_t)rule->group_size;
  else if (rule->group_size == 0 && rule->bits <= 4) s.group_size = 32;
  /* A group of kept columns must end where a nibble's byte ends, so that a kernel's step never
   * straddles two scales. */
  if (s.group_size && s.group_size >= cmz_format_kept(&s)) s.group_size = 0;
  return s;
}

/* Replaces the weight by a Decode of SHAPE; gives the reference decode back in MATRIX. */
static cmz_status replace_weight(work *c, const weight *w, const cmz_format_shape *s,
                                 bool symmetric, cmz_matrix *matrix) {
  cmz_module *m = c->m;
  cmz_format_data d;
  cmz_quantise_nearest(m->arena, matrix, s, symmetric, &d);
  cmz_gid g = cmz_node_get(m, w->node)->graph;
  cmz_vid inputs[4] = {add_part(c, g, s->format->dtype, cmz_format_value_count(s), d.values)};
  if (d.scales) inputs[1] = add_part(c, g, d.scale_dtype, cmz_format_scale_count(s), d.scales);
  if (d.zero_points) inputs[2] = add_part(c, g, CMZ_U8, cmz_format_scale_count(s), d.zero_points);
  if (d.indices) inputs[3] = add_part(c, g, CMZ_U8, cmz_format_index_count(s), d.indices);
  uint32_t count = d.indices ? 4 : d.zero_points ? 3 : d.scales ? 2 : 1;
  cmz_vid out = cmz_value_add(m, g, NULL), old = cmz_node_get(m, w->node)->inputs[w->input];
  cmz_dtype dtype = cmz_value_constant(m, old)->dtype;
  const char *name = cmz_arena_printf(m->arena, "%s.decode", cmz_node_get(m, w->node)->name);
  cmz_nid n = cmz_node_insert(m, w->node, cmz_op_get("Decode"), name, count, inputs, 1, &out);
  cmz_node_set_string(m, n, "format", s->format->name);
  cmz_node_set_ints(m, n, "shape", w->dims, w->rank);
  cmz_node_set_int(m, n, "row_axis", w->row_axis);
  int64_t columns[3 * CMZ_LAYOUT_MAX_AXES];
  for (uint32_t i = 0; i < w->order.count; i++) {
    columns[3 * i] = w->order.axes[i].axis;
    columns[3 * i + 1] = w->order.axes[i].div;
    columns[3 * i + 2] = w->order.axes[i].mod;
  }
  cmz_node_set_ints(m, n, "columns", columns, 3 * w->order.count);
  cmz_node_set_int(m, n, "column_count", s->columns);
  cmz_node_set_int(m, n, "group_size", s->group_size);
  cmz_node_set_int(m, n, "sparse", s->sparse);
  CMZ_TRY(cmz_infer_node(m, n));
  out = cmz_build_cast(m, w->node, out, dtype);
  if (!out) return CMZ_E_INTERNAL;
  cmz_node_set_input(m, w->node, w->input, out);
  for (uint32_t r = 0; r < w->rows; r++)
    for (uint32_t k = 0; k < w->columns; k++)
      matrix->data[(size_t)r * w->columns + k] = cmz_format_decode(s, &d, r, k);
  return CMZ_OK;
}

/* Prunes and quantises the weight of one layer as RULE says. MATRIX: its values in, what is left of
 * them out. */
static cmz_status encode_weight(work *c, const weight *w, const cmz_compression_rule *rule,
                                cmz_matrix *matrix, cmz_layer_result *result) {
  const cmz_constant *constant =
      cmz_value_constant(c->m, cmz_node_get(c->m, w->node)->inputs[w->input]);
  size_t dense = constant->bytes;
  cmz_format_shape s = choose_format(rule, w);
  result->bits = s.format->bits;
  result->format = s.format->name;
  result->group_size = s.group_size;
  result->sparse = s.sparse;
  if (s.format->is_float && !s.sparse) {
    result->bytes_after += dense;
    return CMZ_OK;
  }
  if (format_bytes(&s) >= dense) {
    result->reason = "the format would not make it smaller";
    result->format = cmz_dtype_info(constant->dtype)->name;
    result->bits = cmz_dtype_info(constant->dtype)->bits;
    result->group_size = 0;
    result->sparse = false;
    result->bytes_after += dense;
    return CMZ_OK;
  }
  if (s.sparse) cmz_prune_2_4(matrix);
  result->bytes_after += format_bytes(&s);
  return replace_weight(c, w, &s, rule->symmetric > 0, matrix);
}

/* ---- one layer ---- */

static double relative_error(const cmz_matrix *want, const cmz_matrix *got) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < (size_t)want->rows * want->columns; i++) {
    double d = (double)got->data[i] - (double)want->data[i];
    error += d * d;
    norm += (double)want->data[i] * (double)want->data[i];
  }
  return norm > 0 ? sqrt(error / norm) : 0;
}

static cmz_matrix multiply(work *c, const cmz_matrix *a, const cmz_matrix *b) {
  cmz_matrix out = {a->rows, b->columns,
                    CMZ_NEW_ARRAY(c->scratch, float, (size_t)a->rows * b->columns)};
  for (uint32_t r = 0; r < a->rows; r++)
    for (uint32_t i = 0; i < a->columns; i++) {
      float f = a->data[(size_t)r * a->columns + i];
      for (uint32_t k = 0; k < b->columns; k++)
        out.data[(size_t)r * b->columns + k] += f * b->data[(size_t)i * b->columns + k];
    }
  return out;
}

/* Splits the layer where that saves; the two factors become layers of their own and are encoded in
 * their turn. */
static cmz_status split_layer(work *c, const layer_kind *kind, const weight *w,
                              const cmz_compression_rule *rule, cmz_matrix *matrix,
                              cmz_layer_result *result, bool *done) {
  cmz_matrix a, b;
  uint32_t rank = rule->low_rank, full = CMZ_MIN(w->rows, w->columns);
  double energy = rule->low_rank ? 0 : rule->low_rank_energy;
  *done = false;
  if (rank &&
      (size_t)CMZ_MIN(rank, full) * (w->rows + w->columns) >= (size_t)w->rows * w->columns) {
    result->reason = "a split of this rank would not save";
    return CMZ_OK;
  }
  CMZ_TRY(
      cmz_low_rank_split(c->m->ctx, c->scratch, matrix, energy, &rank, &a, &b, &result->energy));
  if ((size_t)rank * (w->rows + w->columns) >= (size_t)w->rows * w->columns) {
    result->reason = "the rank that keeps this energy would not save";
    result->energy = 1;
    return CMZ_OK;
  }
  cmz_nid first, second = kind->split(c, w, &a, &b, &first);
  CMZ_TRY(cmz_infer_node(c->m, first));
  CMZ_TRY(cmz_infer_node(c->m, second));
  weight wa, wb;
  if (!kind->read(c->m, second, &wa) || !kind->read(c->m, first, &wb)) return CMZ_E_INTERNAL;
  cmz_matrix ma = read_matrix(c, &wa), mb = read_matrix(c, &wb);
  CMZ_TRY(encode_weight(c, &wb, rule, &mb, result));
  CMZ_TRY(encode_weight(c, &wa, rule, &ma, result));
  result->rank = rank;
  *matrix = multiply(c, &a, &b);
  *done = true;
  return CMZ_OK;
}

static cmz_status compress_layer(work *c, cmz_nid n) {
  const layer_kind *kind = kind_of(cmz_node_get(c->m, n));
  weight w;
  if (!kind || !kind->read(c->m, n, &w)) return CMZ_OK;
  cmz_compression_rule rule = cmz_compression_for(c->compression, cmz_node_get(c->m, n)->name);
  bool wanted = (rule.bits && rule.bits < 32) || rule.sparsity == CMZ_SPARSITY_2_4 ||
                rule.low_rank || rule.low_rank_energy > 0;
  const cmz_constant *constant = cmz_value_constant(c->m, cmz_node_get(c->m, n)->inputs[w.input]);
  cmz_layer_result result = {.name = cmz_node_get(c->m, n)->name,
                             .op = kind->op,
                             .rows = w.rows,
                             .columns = w.columns,
                             .energy = 1,
                             .bytes_before = constant->bytes,
                             .format = cmz_dtype_info(constant->dtype)->name,
                             .bits = cmz_dtype_info(constant->dtype)->bits};
  if (!wanted) {
    result.bytes_after = result.bytes_before;
    result.reason = "no rule asks for it";
    cmz_vec_push(c->m->arena, &c->compression->results, result);
    return CMZ_OK;
  }
  cmz_arena_mark mark = cmz_arena_save(c->scratch);
  cmz_matrix original = read_matrix(c, &w), matrix = original;
  matrix.data =
      cmz_arena_copy(c->scratch, original.data, (size_t)w.rows * w.columns * sizeof(float));
  bool split = false;
  cmz_status status = CMZ_OK;
  if (rule.low_rank || rule.low_rank_energy > 0)
    status = split_layer(c, kind, &w, &rule, &matrix, &result, &split);
  if (status == CMZ_OK && !split) status = encode_weight(c, &w, &rule, &matrix, &result);
  result.relative_error = relative_error(&original, &matrix);
  cmz_vec_push(c->m->arena, &c->compression->results, result);
  cmz_arena_restore(c->scratch, mark);
  return status;
}

cmz_compression_rule cmz_compression_for(const cmz_compression *compression, const char *name) {
  cmz_compression_rule out = {.bits = 0};
  for (uint32_t i = 0; i < compression->rules.count; i++) {
    const cmz_compression_rule *r = &compression->rules.data[i];
    if (r->pattern && fnmatch(r->pattern, name, 0)) continue;
    if (r->bits) out.bits = r->bits;
    if (r->group_size) out.group_size = r->group_size;
    if (r->symmetric) out.symmetric = r->symmetric;
    if (r->sparsity) out.sparsity = r->sparsity;
    if (r->low_rank || r->low_rank_energy != 0)
      out.low_rank = r->low_rank, out.low_rank_energy = r->low_rank_energy;
  }
  return out;
}

cmz_status cmz_pass_compress(cmz_pass_run *run, cmz_module *m) {
  if (!run->compression || !run->compression->rules.count) return CMZ_OK;
  work c = {m, run->compression, cmz_arena_create(m->ctx)};
  cmz_status status = CMZ_OK;
  for (cmz_gid g = 1; g < m->graphs.count && status == CMZ_OK; g++) {
    /* The list grows while layers are split: walk a copy. */
    uint32_t count = cmz_graph_get(m, g)->nodes.count;
    cmz_nid *nodes =
        cmz_arena_copy(m->arena, cmz_graph_get(m, g)->nodes.data, count * sizeof *nodes);
    for (uint32_t i = 0; i < count && status == CMZ_OK; i++)
      if (!cmz_node_get(m, nodes[i])->removed) status = compress_layer(&c, nodes[i]);
  }
  cmz_arena_destroy(c.scratch);
  return status;
}
