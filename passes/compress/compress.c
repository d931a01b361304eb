/* compress.c - the compression pass: for each layer with a constant weight (MatMul, Conv; a Gemm is
 * a MatMul by now) the rules decide what is done: low-rank split, 2:4 pruning, quantisation, alone
 * or together, in this order. In: an expanded module and rules. Out: layers that read cmz.Decode of
 * compressed constants; one result a layer. Always holds: a step that would not make the file
 * smaller is left out, and the result says why; a weight that several layers read is stored once.
 */
#include "compress.h"
#include "../support.h"

#include "../../ir/op.h"

#include <float.h>
#include <fnmatch.h>
#include <math.h>

/* What a second layer costs besides its weights, for each CPU level: its code, the other layer's
 * larger code for odd sizes, names and table entries. Measured: 0.7 to 9 KB; at most 1.1 KB where
 * the first layer has no window, does little and stays dense: such kernels are made small. */
#define SPLIT_BYTES 8192u
#define TINY_SPLIT_BYTES 1280u
/* Constants begin at multiples of this (runtime/program.h). */
#define CONSTANT_ALIGNMENT 64u

/* The parts of a weight that has been encoded, for other layers that read the same one. */
typedef struct encoded {
  cmz_vid constant;
  uint32_t row_axis;
  cmz_layout order;
  cmz_format_shape shape;
  bool symmetric;
  cmz_vid inputs[4];
  uint32_t input_count;
  float *dense; /* decoded, in the weight's own order of elements */
} encoded;

/* The factors of a weight that has been split. */
typedef struct factored {
  cmz_vid constant, first, second;
  uint32_t row_axis, rank;
  cmz_split split;
  double energy;
} factored;

typedef struct work {
  cmz_module *m;
  cmz_compression *compression;
  cmz_arena *scratch, *layer; /* of the whole pass; of one layer */
  uint32_t levels;            /* CPU levels that get code of their own */
  CMZ_VEC(encoded) encoded;
  CMZ_VEC(factored) factored;
  CMZ_VEC(cmz_vid) before, after; /* constants whose bytes are in the results */
} work;

/* ---- what is wanted ---- */

static bool splits(const cmz_compression_rule *rule) {
  return rule->low_rank || rule->low_rank_energy > 0;
}

static bool wants_anything(const cmz_compression_rule *rule) {
  return (rule->bits && rule->bits < 32) || rule->sparsity == CMZ_SPARSITY_2_4 || splits(rule);
}

cmz_compression_rule cmz_compression_for(cmz_compression *compression, const char *const *names,
                                         uint32_t count) {
  cmz_compression_rule out = {.bits = 0};
  for (uint32_t i = 0; i < compression->rules.count; i++) {
    cmz_compression_rule *r = &compression->rules.data[i];
    bool matches = r->pattern == NULL;
    for (uint32_t j = 0; j < count && !matches; j++)
      matches = fnmatch(r->pattern, names[j], 0) == 0;
    if (!matches) continue;
    r->used = true;
    if (r->bits) out.bits = r->bits;
    if (r->group_size) out.group_size = r->group_size;
    if (r->symmetric) out.symmetric = r->symmetric;
    if (r->sparsity) out.sparsity = r->sparsity;
    if (r->low_rank || r->low_rank_energy != 0)
      out.low_rank = r->low_rank, out.low_rank_energy = r->low_rank_energy;
  }
  return out;
}

static cmz_compression_rule rule_for(const work *c, cmz_nid n) {
  const cmz_node *node = cmz_node_get(c->m, n);
  const char *names[64];
  uint32_t count = 0;
  names[count++] = cmz_weight_layer_name(c->m, n);
  for (uint32_t i = 0; i < node->source_count && count < CMZ_COUNT_OF(names); i++)
    names[count++] = node->sources[i];
  return cmz_compression_for(c->compression, names, count);
}

/* The float format that keeps values as they are; NULL for types that have none. */
static const char *float_format(cmz_dtype dtype) {
  return dtype == CMZ_F32 ? "f32" : dtype == CMZ_F16 ? "f16" : dtype == CMZ_BF16 ? "bf16" : NULL;
}

/* One row a width: its symmetric and its asymmetric format; without either word the first that the
 * default names. */
static const char *integer_format(const cmz_compression_rule *rule) {
  static const struct {
    uint32_t bits;
    bool symmetric;             /* when not said */
    const char *with, *without; /* zero points */
  } widths[] = {{8, true, "u8", "i8"}, {4, false, "u4", "i4"}, {2, false, "u2", "i2"}};
  for (size_t i = 0; i < CMZ_COUNT_OF(widths); i++)
    if (widths[i].bits == rule->bits)
      return rule->symmetric > 0 || (rule->symmetric == 0 && widths[i].symmetric)
                 ? widths[i].without
                 : widths[i].with;
  return NULL;
}

/* False when the weight's type has no such form. */
static bool choose_format(const cmz_compression_rule *rule, const cmz_weight *w,
                          cmz_format_shape *s) {
  *s = (cmz_format_shape){
      .rows = w->rows, .columns = w->columns, .sparse = rule->sparsity == CMZ_SPARSITY_2_4};
  const char *name = integer_format(rule);
  if (!name) name = float_format(w->dtype);
  if (!name) return false;
  s->format = cmz_format_find(name);
  if (s->format->is_float) return true;
  if (rule->group_size > 0) s->group_size = (uint32_t)rule->group_size;
  else if (rule->group_size == 0 && rule->bits <= 4) s->group_size = 32;
  if (s->group_size >= cmz_format_kept(s)) s->group_size = 0;
  return true;
}

static size_t in_file(size_t bytes) { return cmz_align_up(bytes, CONSTANT_ALIGNMENT); }

static size_t format_bytes(const cmz_format_shape *s, cmz_dtype scale_type) {
  size_t values = 0, scales = 0;
  cmz_dtype_bytes(s->format->dtype, cmz_format_value_count(s), &values);
  cmz_dtype_bytes(scale_type, cmz_format_scale_count(s), &scales);
  size_t zero_points = s->format->zero_points ? cmz_format_scale_count(s) : 0;
  return in_file(values) + in_file(scales) + in_file(zero_points) +
         in_file(cmz_format_index_count(s));
}

/* Bytes of weight W under RULE, without looking at its values. */
static size_t bytes_under(const cmz_compression_rule *rule, const cmz_weight *w) {
  cmz_format_shape s;
  size_t dense = in_file(cmz_weight_stored_bytes(w));
  if (!choose_format(rule, w, &s) || (s.format->is_float && !s.sparse)) return dense;
  return CMZ_MIN(dense, format_bytes(&s, s.group_size ? CMZ_F16 : CMZ_F32));
}

/* ---- one weight into a format ---- */

/* COUNT elements of a [panel][line][row in the panel] array. */
static cmz_vid add_part(work *c, cmz_gid g, cmz_dtype dtype, const cmz_format_shape *s,
                        size_t count, const void *data) {
  size_t bytes = 0, panel = cmz_format_panel(s), panels = (s->rows + panel - 1) / panel;
  cmz_dtype_bytes(dtype, count, &bytes);
  int64_t *shape = CMZ_NEW_ARRAY(c->m->arena, int64_t, 3);
  shape[0] = (int64_t)panels;
  shape[1] = (int64_t)(count / (panels * panel));
  shape[2] = (int64_t)panel;
  return cmz_value_add_constant(c->m, g, NULL, dtype, 3, shape, data, bytes);
}

static const encoded *find_encoded(const work *c, const cmz_weight *w, const cmz_format_shape *s,
                                   bool symmetric) {
  for (uint32_t i = 0; i < c->encoded.count; i++) {
    const encoded *e = &c->encoded.data[i];
    if (e->constant == w->constant && e->row_axis == w->row_axis && e->symmetric == symmetric &&
        cmz_layout_equal(&e->order, &w->order) && e->shape.format == s->format &&
        e->shape.group_size == s->group_size && e->shape.sparse == s->sparse)
      return e;
  }
  return NULL;
}

static const encoded *encode(work *c, const cmz_weight *w, const cmz_format_shape *s,
                             bool symmetric, cmz_matrix *matrix) {
  cmz_module *m = c->m;
  cmz_format_data d;
  cmz_quantise_nearest(m->arena, matrix, s, symmetric, &d);
  encoded e = {.constant = w->constant, .row_axis = w->row_axis, .order = w->order, .shape = *s};
  e.symmetric = symmetric;
  /* Beside the old weight, so that every layer that reads that one can read these. */
  cmz_gid g = cmz_value_get(m, w->constant)->graph;
  e.inputs[0] = add_part(c, g, s->format->dtype, s, cmz_format_value_count(s), d.values);
  if (d.scales) e.inputs[1] = add_part(c, g, d.scale_dtype, s, cmz_format_scale_count(s), d.scales);
  if (d.zero_points)
    e.inputs[2] = add_part(c, g, CMZ_U8, s, cmz_format_scale_count(s), d.zero_points);
  if (d.indices) e.inputs[3] = add_part(c, g, CMZ_U8, s, cmz_format_index_count(s), d.indices);
  e.input_count = d.indices ? 4 : d.zero_points ? 3 : d.scales ? 2 : 1;
  for (uint32_t r = 0; r < w->rows; r++)
    for (uint32_t k = 0; k < w->columns; k++)
      matrix->data[(size_t)r * w->columns + k] = cmz_format_decode(s, &d, r, k);
  e.dense = CMZ_NEW_ARRAY(c->scratch, float, (size_t)w->rows * w->columns);
  cmz_weight_scatter(w, matrix, e.dense);
  cmz_vec_push(c->scratch, &c->encoded, e);
  return &c->encoded.data[c->encoded.count - 1];
}

/* The layer reads a Decode of E instead of its weight. */
static cmz_status read_decoded(work *c, const cmz_weight *w, const encoded *e) {
  cmz_module *m = c->m;
  const cmz_format_shape *s = &e->shape;
  cmz_vid inputs[4];
  memcpy(inputs, e->inputs, sizeof inputs);
  cmz_vid out = cmz_value_add(m, cmz_node_get(m, w->node)->graph, NULL);
  const char *name = cmz_arena_printf(m->arena, "%s.decode", cmz_weight_layer_name(m, w->node));
  cmz_nid n =
      cmz_node_insert(m, w->node, cmz_op_get("Decode"), name, e->input_count, inputs, 1, &out);
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
  out = cmz_build_cast(m, w->node, out, w->dtype);
  if (!out) return CMZ_E_INTERNAL;
  cmz_node_set_input(m, w->node, w->input, out);
  return CMZ_OK;
}

/* Bytes of a constant that no earlier layer has counted. */
static uint64_t new_bytes(work *c, cmz_vid constant, bool after) {
  for (uint32_t i = 0; i < (after ? c->after.count : c->before.count); i++)
    if ((after ? c->after.data : c->before.data)[i] == constant) return 0;
  if (after) cmz_vec_push(c->scratch, &c->after, constant);
  else cmz_vec_push(c->scratch, &c->before, constant);
  return cmz_value_constant(c->m, constant)->bytes;
}

/* Finite, with room for a grid's range around them. */
static bool all_finite(const cmz_matrix *w) {
  for (size_t i = 0; i < (size_t)w->rows * w->columns; i++)
    if (!(fabsf(w->data[i]) <= FLT_MAX / 8)) return false;
  return true;
}

/* Prunes and quantises one weight as RULE says, where that makes it smaller. DENSE: its values
 * afterwards in its own order of elements, or NULL when it stays as it is. */
static cmz_status encode_weight(work *c, const cmz_weight *w, const cmz_compression_rule *rule,
                                cmz_layer_result *result, const float **dense) {
  cmz_format_shape s;
  const cmz_dtype_row *type = cmz_dtype_info(w->dtype);
  cmz_layer_part *part = &result->parts[result->part_count++];
  *part = (cmz_layer_part){
      .rows = w->rows, .columns = w->columns, .format = type->name, .bits = type->bits};
  part->bytes = cmz_value_constant(c->m, w->constant)->bytes;
  *dense = NULL;
  bool known = choose_format(rule, w, &s);
  if (!known) result->note = "values of this type have no pruned form";
  if (!known || (s.format->is_float && !s.sparse)) {
    result->bytes_after += new_bytes(c, w->constant, true);
    return CMZ_OK;
  }
  const encoded *e = find_encoded(c, w, &s, rule->symmetric > 0);
  if (!e) {
    cmz_matrix matrix = cmz_weight_matrix(c->m, c->layer, w);
    if (s.sparse) cmz_prune_2_4(&matrix);
    cmz_dtype scale_type = cmz_quantise_scale_type(c->layer, &matrix, &s, rule->symmetric > 0);
    if (format_bytes(&s, scale_type) >= in_file(part->bytes)) {
      result->note = "the format would not make it smaller";
      result->bytes_after += new_bytes(c, w->constant, true);
      return CMZ_OK;
    }
    e = encode(c, w, &s, rule->symmetric > 0, &matrix);
  }
  part->format = s.format->name;
  part->bits = s.format->bits;
  part->group_size = s.group_size;
  part->sparse = s.sparse;
  part->bytes = 0;
  for (uint32_t i = 0; i < e->input_count; i++)
    if (e->inputs[i]) {
      part->bytes += cmz_value_constant(c->m, e->inputs[i])->bytes;
      result->bytes_after += new_bytes(c, e->inputs[i], true);
    }
  *dense = e->dense;
  return read_decoded(c, w, e);
}

/* ---- low rank ---- */

/* Whether W is stored as it is. */
static bool stays_dense(const cmz_compression_rule *rule, const cmz_weight *w) {
  cmz_format_shape s;
  return !choose_format(rule, w, &s) || (s.format->is_float && !s.sparse);
}

/* Whether the first layer of W's split needs little code. */
static bool is_tiny(const work *c, const cmz_weight *w, const cmz_weight *first) {
  const cmz_node *n = cmz_node_get(c->m, w->node);
  const cmz_type *x = &cmz_value_get(c->m, n->inputs[1 - w->input])->type;
  int64_t elements;
  for (uint32_t i = 2; i < first->rank; i++)
    if (first->dims[i] != 1) return false;
  return cmz_dim_is_const(c->m->dims, cmz_dim_product(c->m->dims, x->shape, x->rank), &elements) &&
         elements <= CMZ_TINY_MULTIPLIES / first->rows;
}

/* Bytes of the two layers of a split of W. */
static size_t split_bytes(const work *c, const cmz_compression_rule *rule, const cmz_weight *w,
                          const cmz_split *split, uint32_t rank) {
  cmz_weight first, second;
  cmz_split_weights(w, split, rank, &first, &second);
  bool small = is_tiny(c, w, &first) && stays_dense(rule, &first) && stays_dense(rule, &second);
  size_t code = small ? TINY_SPLIT_BYTES : SPLIT_BYTES;
  return bytes_under(rule, &first) + bytes_under(rule, &second) + code * c->levels;
}

/* The way and the rank that take the fewest bytes. A rank that is given is that of the plain way;
 * an energy gives each way its own rank. BEST.rank is 0 when none is smaller than the layer in one.
 */
static cmz_status choose_split(work *c, const cmz_weight *w, const cmz_compression_rule *rule,
                               factored *best) {
  cmz_weight one = *w;
  one.packed = false; /* it may lie without padding: the split has to be smaller even so */
  size_t least = bytes_under(rule, &one);
  cmz_split split;
  best->rank = 0;
  for (uint32_t i = 0; cmz_split_at(w, i, &split) && (i == 0 || !rule->low_rank); i++) {
    uint32_t full = CMZ_MIN(split.rows, split.columns), rank = CMZ_MIN(rule->low_rank, full);
    /* When even rank 1 is too much there is no need to look at the values. */
    if (split_bytes(c, rule, w, &split, 1) >= least) continue;
    if (rank == 0) {
      float *values;
      cmz_matrix matrix = cmz_split_matrix(c->m, c->layer, w, &split);
      CMZ_TRY(cmz_low_rank_values(c->m->ctx, c->layer, &matrix, &values));
      rank = cmz_low_rank_for_energy(values, full, rule->low_rank_energy);
    }
    size_t bytes = split_bytes(c, rule, w, &split, rank);
    if (bytes >= least) continue;
    least = bytes;
    best->rank = rank;
    best->split = split;
  }
  return CMZ_OK;
}

/* The factors' constants: new ones, or those of another layer with the same weight. */
static cmz_status factor(work *c, const cmz_weight *w, factored *f) {
  for (uint32_t i = 0; i < c->factored.count; i++) {
    const factored *other = &c->factored.data[i];
    if (other->constant == w->constant && other->row_axis == w->row_axis &&
        other->rank == f->rank && other->split.first_axes == f->split.first_axes) {
      *f = *other;
      return CMZ_OK;
    }
  }
  cmz_matrix a, b, matrix = cmz_split_matrix(c->m, c->layer, w, &f->split);
  CMZ_TRY(cmz_low_rank_split(c->m->ctx, c->layer, &matrix, f->rank, &a, &b, &f->energy));
  f->constant = w->constant;
  f->row_axis = w->row_axis;
  cmz_split_constants(c->m, w, &f->split, &a, &b, &f->first, &f->second);
  cmz_vec_push(c->scratch, &c->factored, *f);
  return CMZ_OK;
}

/* ||want - got|| / ||want|| in the Frobenius norm. */
static double relative_error(const float *want, const float *got, size_t count) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < count; i++) {
    double d = (double)got[i] - (double)want[i];
    error += d * d;
    norm += (double)want[i] * (double)want[i];
  }
  return norm > 0 ? sqrt(error / norm) : 0;
}

/* A constant's values as floats, in their own order. */
static const float *values_of(work *c, cmz_vid v) {
  const cmz_constant *constant = cmz_value_constant(c->m, v);
  size_t count = 1;
  for (uint32_t i = 0; i < constant->rank; i++) count *= (size_t)constant->shape[i];
  float *values = CMZ_NEW_ARRAY(c->layer, float, count);
  for (size_t i = 0; i < count; i++)
    values[i] = (float)cmz_dtype_get_f64(constant->dtype, constant->data, i);
  return values;
}

/* Splits the layer where that saves; the two factors are layers of their own and are encoded in
 * their turn. */
static cmz_status split_layer(work *c, const cmz_weight *w, const cmz_compression_rule *rule,
                              cmz_layer_result *result, bool *done) {
  factored f;
  *done = false;
  CMZ_TRY(choose_split(c, w, rule, &f));
  if (!f.rank) {
    result->note =
        w->splits ? "a split would not make it smaller" : "a convolution in groups is not split";
    return CMZ_OK;
  }
  CMZ_TRY(factor(c, w, &f));
  cmz_weight layers[2];
  cmz_nid first;
  CMZ_TRY(cmz_split_apply(c->m, w, &f.split, f.first, f.second, &first));
  if (!cmz_weight_read(c->m, first, &layers[0]) || !cmz_weight_read(c->m, w->node, &layers[1]))
    return cmz_node_fail(c->m, w->node, CMZ_E_INTERNAL, "its split cannot be read back");
  cmz_matrix factors[2];
  for (uint32_t i = 0; i < 2; i++) {
    const float *dense;
    CMZ_TRY(encode_weight(c, &layers[i], rule, result, &dense));
    if (!dense) dense = values_of(c, layers[i].constant);
    factors[i] = cmz_split_factor(c->layer, w, &f.split, f.rank, i == 1, dense);
  }
  cmz_matrix want = cmz_split_matrix(c->m, c->layer, w, &f.split),
             got = cmz_low_rank_product(c->layer, &factors[1], &factors[0]);
  result->rank = f.rank;
  result->energy = f.energy;
  result->relative_error = relative_error(want.data, got.data, (size_t)w->rows * w->columns);
  *done = true;
  return CMZ_OK;
}

/* ---- one layer ---- */

/* Whether every reader of the weight takes it compressed: else it stays in the file as it is. */
static bool all_readers_compress(const work *c, const cmz_weight *w) {
  const cmz_value *value = cmz_value_get(c->m, w->constant);
  if (value->output_uses) return false;
  for (uint32_t i = 0; i < value->uses.count; i++) {
    cmz_use use = value->uses.data[i];
    cmz_weight other;
    if (!cmz_weight_read(c->m, use.node, &other) || other.input != use.index || other.note)
      return false;
    cmz_compression_rule rule = rule_for(c, use.node);
    if (!wants_anything(&rule)) return false;
  }
  return true;
}

static const char *reason_to_leave(work *c, const cmz_weight *w, const cmz_compression_rule *rule) {
  if (!wants_anything(rule)) return "no rule asks for it";
  if (w->note) return w->note;
  if (!all_readers_compress(c, w)) return "something else reads the weight as it is";
  cmz_matrix matrix = cmz_weight_matrix(c->m, c->layer, w);
  return all_finite(&matrix) ? NULL : "it has values that are not finite, or too large";
}

static void leave(work *c, const cmz_weight *w, cmz_layer_result *result) {
  const cmz_dtype_row *type = cmz_dtype_info(w->dtype);
  result->parts[result->part_count++] =
      (cmz_layer_part){.rows = w->rows,
                       .columns = w->columns,
                       .format = type->name,
                       .bits = type->bits,
                       .bytes = cmz_value_constant(c->m, w->constant)->bytes};
  result->bytes_after = new_bytes(c, w->constant, true);
}

static cmz_status compress_layer(work *c, cmz_nid n) {
  cmz_weight w;
  if (!cmz_weight_read(c->m, n, &w)) return CMZ_OK;
  cmz_compression_rule rule = rule_for(c, n);
  cmz_layer_result result = {.name = cmz_weight_layer_name(c->m, n),
                             .op = w.op,
                             .weight = cmz_value_get(c->m, w.constant)->name,
                             .dims_count = w.rank,
                             .rows = w.rows,
                             .columns = w.columns,
                             .energy = 1};
  result.dims = cmz_arena_copy(c->m->arena, w.dims, w.rank * sizeof *w.dims);
  result.bytes_before = new_bytes(c, w.constant, false);
  result.note = reason_to_leave(c, &w, &rule);
  cmz_status status = CMZ_OK;
  bool split = false;
  if (result.note) {
    leave(c, &w, &result);
  } else {
    if (splits(&rule)) status = split_layer(c, &w, &rule, &result, &split);
    const float *dense = NULL;
    if (status == CMZ_OK && !split) status = encode_weight(c, &w, &rule, &result, &dense);
    if (dense)
      result.relative_error =
          relative_error(values_of(c, w.constant), dense, (size_t)w.rows * w.columns);
  }
  cmz_vec_push(c->m->arena, &c->compression->results, result);
  return status;
}

static cmz_status compress_graph(work *c, cmz_gid g) {
  /* The list grows while layers are split: walk a copy. */
  uint32_t count = cmz_graph_get(c->m, g)->nodes.count;
  cmz_nid *nodes =
      cmz_arena_copy(c->m->arena, cmz_graph_get(c->m, g)->nodes.data, count * sizeof *nodes);
  for (uint32_t i = 0; i < count; i++) {
    if (cmz_node_get(c->m, nodes[i])->removed) continue;
    cmz_arena_mark mark = cmz_arena_save(c->layer);
    CMZ_TRY(compress_layer(c, nodes[i]));
    cmz_arena_restore(c->layer, mark);
  }
  return CMZ_OK;
}

static void warn_of_unused(const work *c) {
  for (uint32_t i = 0; i < c->compression->rules.count; i++) {
    const cmz_compression_rule *r = &c->compression->rules.data[i];
    if (r->pattern && !r->used)
      cmz_warn(c->m->ctx, (cmz_loc){.file = c->m->file},
               "no layer with weights has a name like \"%s\"", r->pattern);
  }
}

cmz_status cmz_pass_compress(cmz_pass_run *run, cmz_module *m) {
  if (!run->compression) return CMZ_OK;
  /* What expansion made of weights (a Gemm's transposed one) is constant only once it is folded. */
  if (run->compression->rules.count) CMZ_TRY(cmz_pass_fold(run, m));
  work c = {.m = m, .compression = run->compression, .levels = 1};
  if (run->target) c.levels = CMZ_MAX(1u, run->target->level_count);
  c.scratch = cmz_arena_create(m->ctx);
  c.layer = cmz_arena_create(m->ctx);
  cmz_status status = CMZ_OK;
  for (cmz_gid g = 1; g < m->graphs.count && status == CMZ_OK; g++)
    if (cmz_pass_graph_alive(m, g)) status = compress_graph(&c, g);
  if (status == CMZ_OK) warn_of_unused(&c);
  cmz_arena_destroy(c.layer);
  cmz_arena_destroy(c.scratch);
  return status;
}
