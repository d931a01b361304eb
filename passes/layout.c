/* layout.c - chooses physical layouts: channels of convolutional values blocked by 16, constant
 * weights in the order in which kernels read them. In: an expanded module, everything plain. Out:
 * layouts set on values; constants packed. Nothing is rewritten: kernels load and store through the
 * layouts of what they touch. Always holds: inputs and outputs of graphs, and what control flow and
 * the runtime's table touch, are plain. */
#include "support.h"

#define BLOCK 16
#define QUAD 4 /* bytes of one lane of a dot product */
#define WORST_PADDING                                                                              \
  1.6 /* padded channels over channels: beyond that a plain layout is better                       \
       */

#define FEWEST_GROUPED 4    /* output channels of a group, below which lanes gather too much */
#define FEWEST_ROWS 48      /* that share a weight for which it is decoded by itself */
#define FEWEST_ROWS_FAR 512 /* the same for weights that no cache holds */
#define MOST_CACHED_BYTES 4e6
#define FEWEST_LANES 8 /* channels that are worth computing side by side */

typedef enum liking {
  DISLIKES, /* reads or writes plain rows only: views, matrix products, transposes … */
  FOLLOWS,  /* as good in blocks as plain: pointwise, pooling, resizing */
  WANTS,    /* convolutions */
} liking;

typedef struct chooser {
  cmz_module *m;
  bool *blocked; /* by vid */
} chooser;

static const cmz_type *type_of(const chooser *c, cmz_vid v) {
  return &cmz_value_get(c->m, v)->type;
}

static bool in_list(const cmz_node *n, const char *const *names) {
  if (n->op->domain[0] != '\0') return false;
  for (; *names != NULL; names++)
    if (strcmp(n->op->name, *names) == 0) return true;
  return false;
}

/* The integer contractions that passes make. */
static bool is_integer(const cmz_node *n, const char *name) {
  return strcmp(n->op->domain, "cmz") == 0 && strcmp(n->op->name, name) == 0;
}

static bool channels_of(const chooser *c, cmz_vid v, int64_t *channels) {
  const cmz_type *t = type_of(c, v);
  return t->rank >= 3 && t->rank <= 5 && cmz_dim_is_const(c->m->dims, t->shape[1], channels);
}

/* Whether V may lie in blocks at all, and does so without much padding. */
static bool can_block(const chooser *c, cmz_vid v) {
  int64_t channels;
  const cmz_value *value = cmz_value_get(c->m, v);
  cmz_dtype t = value->type.dtype;
  bool number = cmz_dtype_is_float(t) || t == CMZ_U8 || t == CMZ_I8 || t == CMZ_I32;
  if (value->producer == 0 || value->output_uses > 0 || !number || cmz_dtype_info(t)->bits > 32 ||
      !channels_of(c, v, &channels) || channels < 2)
    return false;
  return (double)cmz_align_up((size_t)channels, BLOCK) / (double)channels <= WORST_PADDING;
}

static bool is_weight(const chooser *c, cmz_vid v) {
  if (v == 0) return false;
  const cmz_value *value = cmz_value_get(c->m, v);
  if (value->constant != 0) return true;
  if (value->producer == 0) return false;
  const cmz_op *op = cmz_node_get(c->m, value->producer)->op;
  return (op->flags & CMZ_OP_DECODE) != 0;
}

/* One multiplication per channel and tap: a group per channel on both sides. */
static bool is_depthwise(const chooser *c, const cmz_node *n) {
  int64_t in, out, group = cmz_node_int(n, "group", 1);
  return channels_of(c, n->inputs[0], &in) && channels_of(c, n->outputs[0], &out) && group == in &&
         in == out;
}

/* Several groups of several channels each: lanes of a block belong to one group, or to whole ones.
 */
static bool fits_groups(const chooser *c, const cmz_node *n) {
  const cmz_type *w = type_of(c, n->inputs[1]);
  int64_t out, group = cmz_node_int(n, "group", 1);
  if (!cmz_dim_is_const(c->m->dims, w->shape[0], &out) || out % group != 0) return false;
  out /= group;
  return out % BLOCK == 0 || (out >= FEWEST_GROUPED && BLOCK % out == 0);
}

static bool wants_blocks(const chooser *c, const cmz_node *n) {
  static const char *const names[] = {"Conv", "ConvTranspose", NULL};
  bool bytes = is_integer(n, "IntegerConv");
  if ((!bytes && !in_list(n, names)) || !is_weight(c, cmz_node_input(n, 1))) return false;
  bool transposed = !bytes && n->op->name[4] != '\0';
  return cmz_node_int(n, "group", 1) == 1 || (!transposed && is_depthwise(c, n)) ||
         (!transposed && !bytes && fits_groups(c, n));
}

/* Concat of blocks is blocks when every part but the last fills its blocks. */
static bool concat_follows(const chooser *c, const cmz_node *n) {
  int64_t rank = type_of(c, n->outputs[0])->rank, axis = cmz_node_int(n, "axis", 0);
  if (axis < 0) axis += rank;
  for (uint32_t i = 0; i < n->input_count; i++) {
    int64_t channels;
    if (!c->blocked[n->inputs[i]] || !channels_of(c, n->inputs[i], &channels)) return false;
    if (axis == 1 && i + 1 < n->input_count && channels % BLOCK != 0) return false;
  }
  return true;
}

static bool same_channels(const chooser *c, cmz_vid a, cmz_vid b) {
  const cmz_type *x = type_of(c, a), *y = type_of(c, b);
  return x->rank == y->rank && x->rank >= 3 && x->shape[1] == y->shape[1];
}

/* Whether N's output would be as good in blocks as its inputs are. */
static bool follows(const chooser *c, const cmz_node *n) {
  static const char *const windows[] = {"MaxPool", "AveragePool", "LpPool", "Resize",
                                        "Pad",     "Slice",       NULL};
  if (in_list(n, (const char *const[]){"Concat", NULL})) return concat_follows(c, n);
  if (in_list(n, windows))
    return c->blocked[n->inputs[0]] && same_channels(c, n->inputs[0], n->outputs[0]);
  if (!(n->op->flags & CMZ_OP_POINTWISE)) return false;
  for (uint32_t i = 0; i < n->input_count; i++)
    if (n->inputs[i] != 0 && c->blocked[n->inputs[i]] &&
        cmz_pass_same_shape(c->m, n->inputs[i], n->outputs[0]))
      return true;
  return false;
}

/* Bytes that an integer convolution reads are worth putting into blocks by whoever computes them.
 */
static bool makes_bytes(const chooser *c, const cmz_node *n) {
  const cmz_value *v = cmz_value_get(c->m, n->outputs[0]);
  if (!(n->op->flags & CMZ_OP_POINTWISE) || cmz_dtype_info(v->type.dtype)->bits != 8) return false;
  for (uint32_t i = 0; i < v->uses.count; i++) {
    const cmz_node *use = cmz_node_get(c->m, v->uses.data[i].node);
    if (is_integer(use, "IntegerConv") && v->uses.data[i].index == 0 && wants_blocks(c, use))
      return true;
  }
  return false;
}

static void choose_forward(chooser *c, cmz_gid g) {
  const cmz_graph *graph = cmz_graph_get(c->m, g);
  for (uint32_t i = 0; i < graph->nodes.count; i++) {
    const cmz_node *n = cmz_node_get(c->m, graph->nodes.data[i]);
    if (n->removed || n->output_count == 0 || n->outputs[0] == 0 || n->op->describe == NULL)
      continue;
    if ((wants_blocks(c, n) || follows(c, n) || makes_bytes(c, n)) && can_block(c, n->outputs[0]))
      c->blocked[n->outputs[0]] = true;
  }
}

/* Whether consumer N of blocked value V gains from the blocks. */
static liking likes(const chooser *c, const cmz_node *n, cmz_vid v) {
  static const char *const reductions[] = {"GlobalAveragePool", "GlobalMaxPool", "ReduceMean",
                                           "ReduceMax",         "ReduceSum",     NULL};
  if (n->op->describe == NULL || n->op->describe_kernel != NULL) return DISLIKES;
  if (wants_blocks(c, n)) return n->inputs[0] == v ? WANTS : FOLLOWS;
  if (in_list(n, reductions)) return FOLLOWS;
  return n->outputs[0] != 0 && c->blocked[n->outputs[0]] ? FOLLOWS : DISLIKES;
}

/* Whether V must be plain: something reads it that knows no layouts. */
static bool must_be_plain(const chooser *c, cmz_vid v) {
  const cmz_value *value = cmz_value_get(c->m, v);
  for (uint32_t i = 0; i < value->uses.count; i++) {
    const cmz_node *n = cmz_node_get(c->m, value->uses.data[i].node);
    if ((n->op->flags & (CMZ_OP_CONTROL | CMZ_OP_RUNTIME | CMZ_OP_IN_PLACE)) ||
        n->op->describe == NULL)
      return true;
  }
  return false;
}

/* Blocks that nobody gains from are undone, last values first; true when something changed. */
static bool undo_backward(chooser *c, cmz_gid g) {
  const cmz_graph *graph = cmz_graph_get(c->m, g);
  bool changed = false;
  for (uint32_t i = graph->nodes.count; i-- > 0;) {
    const cmz_node *n = cmz_node_get(c->m, graph->nodes.data[i]);
    if (n->removed || n->output_count == 0 || n->outputs[0] == 0 || !c->blocked[n->outputs[0]])
      continue;
    cmz_vid v = n->outputs[0];
    const cmz_value *value = cmz_value_get(c->m, v);
    bool gain = false;
    for (uint32_t u = 0; u < value->uses.count; u++)
      gain |= likes(c, cmz_node_get(c->m, value->uses.data[u].node), v) != DISLIKES;
    if (gain && !must_be_plain(c, v)) continue;
    c->blocked[v] = false;
    changed = true;
  }
  return changed;
}

/* ---- constants ---- */

static void add_axis(cmz_layout *l, uint32_t axis, uint32_t div, uint32_t mod) {
  if (l->count < CMZ_LAYOUT_MAX_AXES)
    l->axes[l->count++] = (cmz_layout_axis){(uint8_t)axis, div, mod};
}

/* Whether N's neighbouring outputs are made with different taps: only channels can be the vector
 * axis, however the output lies. */
static bool spreads(const chooser *c, const cmz_node *n) {
  uint32_t count = 0;
  int64_t outputs;
  const int64_t *strides = cmz_node_ints(n, "strides", &count);
  if (strcmp(n->op->name, "ConvTranspose") != 0 || cmz_node_int(n, "group", 1) != 1 ||
      !cmz_dim_is_const(c->m->dims, type_of(c, n->inputs[1])->shape[1], &outputs) || outputs < 2)
    return false;
  for (uint32_t i = 0; i < count; i++)
    if (strides[i] > 1) return true;
  return false;
}

/* Weights [O, I, taps…] as [O/16][I/16][taps…][16 i][16 o] or [O/16][I][taps…][16 o], the order of
 * the sum; depthwise [C/16][taps…][16]; transposed ones have O second. A plain output whose
 * channels do not fill their blocks, but are not few, is computed along all of them:
 * [I/16][taps…][16 i][o]. Bytes over blocked inputs lie by fours of the sum: …[16 i / 4][16 o][4
 * i]. */
static cmz_layout convolution_layout(const chooser *c, const cmz_node *n) {
  cmz_layout l = {0};
  const cmz_type *w = type_of(c, n->inputs[1]);
  bool transposed = strcmp(n->op->name, "ConvTranspose") == 0;
  uint32_t out = transposed ? 1 : 0, in = 1 - out;
  int64_t inputs, outputs;
  bool known = cmz_dim_is_const(c->m->dims, w->shape[in], &inputs);
  bool bytes = is_integer(n, "IntegerConv") && cmz_node_int(n, "group", 1) == 1;
  /* Over blocked inputs the 16 channels of a block are the innermost loop, the taps stand outside.
   */
  bool blocks = c->blocked[n->inputs[0]] && w->rank + 4 <= CMZ_LAYOUT_MAX_AXES && known &&
                (bytes || inputs % BLOCK == 0);
  bool whole = !c->blocked[n->outputs[0]] && cmz_node_int(n, "group", 1) == 1 &&
               cmz_dim_is_const(c->m->dims, w->shape[out], &outputs) &&
               ((outputs % BLOCK != 0 && outputs >= FEWEST_LANES) || spreads(c, n));
  bool fours = blocks && bytes;
  if (!whole) add_axis(&l, out, BLOCK, 0);
  add_axis(&l, in, blocks ? BLOCK : 1, 0);
  for (uint32_t i = 2; i < w->rank; i++) add_axis(&l, i, 1, 0);
  if (fours) add_axis(&l, in, QUAD, BLOCK / QUAD);
  else if (blocks) add_axis(&l, in, 1, BLOCK);
  add_axis(&l, out, 1, whole ? 0 : BLOCK);
  if (fours) add_axis(&l, in, 1, QUAD);
  return l;
}

/* Matrices K x N (or N x K) in panels of 16 columns, when those fit; else with N innermost. */
static cmz_layout matrix_layout(const chooser *c, const cmz_node *n) {
  cmz_layout l = {0};
  const cmz_type *w = type_of(c, n->inputs[1]);
  uint32_t out = cmz_node_int(n, "transB", 0) != 0 ? 0 : 1;
  int64_t columns;
  if (!cmz_dim_is_const(c->m->dims, w->shape[out], &columns) || columns < 2) return l;
  if (columns % BLOCK == 0) {
    add_axis(&l, out, BLOCK, 0);
    add_axis(&l, 1 - out, 1, 0);
    add_axis(&l, out, 1, BLOCK);
  } else if (out == 0) {
    add_axis(&l, 1, 1, 0);
    add_axis(&l, 0, 1, 0);
  }
  return l;
}

/* Bytes [K, N] by fours along K: in panels of 16 columns when those fit, [N/16][K/4][16][4], else
 * [K/4][N][4]. */
static cmz_layout byte_matrix_layout(const chooser *c, const cmz_node *n) {
  cmz_layout l = {0};
  const cmz_type *w = type_of(c, n->inputs[1]);
  int64_t rows, columns;
  if (!cmz_dim_is_const(c->m->dims, w->shape[0], &rows) ||
      !cmz_dim_is_const(c->m->dims, w->shape[1], &columns) || rows % QUAD != 0 || columns < 2)
    return l;
  bool panels = columns % BLOCK == 0;
  if (panels) add_axis(&l, 1, BLOCK, 0);
  add_axis(&l, 0, QUAD, 0);
  add_axis(&l, 1, 1, panels ? BLOCK : 0);
  add_axis(&l, 0, 1, QUAD);
  return l;
}

static cmz_layout layout_for_use(const chooser *c, cmz_vid v, cmz_use use) {
  static const char *const products[] = {"MatMul", "Gemm", NULL};
  const cmz_node *n = cmz_node_get(c->m, use.node);
  const cmz_type *t = type_of(c, v);
  if (use.index != 1) return (cmz_layout){0};
  if (is_integer(n, "IntegerMatMul")) return byte_matrix_layout(c, n);
  if (!cmz_dtype_is_float(t->dtype) && !is_integer(n, "IntegerConv")) return (cmz_layout){0};
  if (in_list(n, products) && t->rank == 2) return matrix_layout(c, n);
  if (!wants_blocks(c, n)) return (cmz_layout){0};
  /* Where the output's channels are not the vector axis, plain weights are as good. */
  return c->blocked[n->outputs[0]] || c->blocked[n->inputs[0]] || spreads(c, n)
             ? convolution_layout(c, n)
             : (cmz_layout){0};
}

/* Packs constant V when all of its readers want the same layout. */
static void pack_constant(chooser *c, cmz_vid v) {
  cmz_module *m = c->m;
  cmz_value *value = cmz_value_get(m, v);
  if (value->removed || value->constant == 0 || value->output_uses > 0 || value->uses.count == 0 ||
      value->type.rank < 2 || cmz_dtype_info(value->type.dtype)->bits % 8 != 0 ||
      value->type.dtype == CMZ_STRING)
    return;
  cmz_layout l = layout_for_use(c, v, value->uses.data[0]);
  if (l.count == 0) return;
  for (uint32_t i = 1; i < value->uses.count; i++) {
    cmz_layout other = layout_for_use(c, v, value->uses.data[i]);
    if (!cmz_layout_equal(&l, &other)) return;
  }
  cmz_constant *k = cmz_constant_get(m, value->constant);
  if (k->layout.count != 0) return;
  int64_t elements;
  if (!cmz_dim_is_const(m->dims,
                        cmz_layout_elements(m->dims, &l, value->type.rank, value->type.shape),
                        &elements))
    return;
  uint32_t element_bytes = cmz_dtype_info(k->dtype)->bits / 8u;
  size_t bytes;
  if (!cmz_mul_size((size_t)elements, element_bytes, &bytes)) return;
  void *packed = cmz_arena_alloc(m->arena, bytes);
  cmz_layout_pack(&l, k->rank, k->shape, element_bytes, k->data, packed);
  k->data = packed;
  k->bytes = bytes;
  k->layout = l;
  cmz_value_get(m, v)->layout = l;
}

/* ---- decoded weights ---- */

/* How many rows each weight of N serves at least, as far as it is known; spatial sizes that are not
 * are taken to be what is hinted at. */
static int64_t rows_of(const chooser *c, const cmz_node *n) {
  const cmz_type *t = type_of(c, n->outputs[0]);
  bool window = in_list(n, (const char *const[]){"Conv", "ConvTranspose", NULL});
  int64_t rows = 1;
  for (uint32_t i = 0; i < t->rank; i++) {
    int64_t size = 1;
    if (window ? i == 1 : i + 1 == t->rank) continue;
    if (!cmz_dim_is_const(c->m->dims, t->shape[i], &size))
      size = window && i > 1 ? cmz_pass_hint(c->m, t->shape[i]) : 1;
    if (__builtin_mul_overflow(rows, CMZ_MAX(size, 1), &rows)) return INT64_MAX;
  }
  return rows;
}

/* A compressed weight that many rows share is decoded once a run, by a kernel of its own, into the
 * layout that a dense one would have: decoding it in every register tile would cost up to as much
 * as the products. With few rows, or where writing and reading the decoded weights would cost as
 * much as the products, its reader decodes it. */
static void store_decoded(chooser *c, cmz_nid id) {
  static const char *const readers[] = {"Conv", "ConvTranspose", "MatMul", "Gemm", NULL};
  cmz_module *m = c->m;
  const cmz_node *n = cmz_node_get(m, id);
  cmz_vid v = cmz_node_output(n, 0);
  if (n->removed || !(n->op->flags & CMZ_OP_DECODE) || v == 0) return;
  cmz_value *value = cmz_value_get(m, v);
  double bytes = 4 * (double)cmz_pass_hint_elements(m, v);
  int64_t least = bytes <= MOST_CACHED_BYTES ? FEWEST_ROWS : FEWEST_ROWS_FAR;
  if (value->output_uses > 0 || value->uses.count == 0) return;
  if (cmz_value_get(m, n->inputs[0])->layout.count) return; /* matrix instructions read the codes */
  for (uint32_t i = 0; i < value->uses.count; i++) {
    const cmz_node *user = cmz_node_get(m, value->uses.data[i].node);
    if (value->uses.data[i].index != 1 || user->graph != n->graph || !in_list(user, readers) ||
        rows_of(c, user) < least)
      return;
  }
  cmz_layout l = layout_for_use(c, v, value->uses.data[0]);
  for (uint32_t i = 1; i < value->uses.count; i++) {
    cmz_layout other = layout_for_use(c, v, value->uses.data[i]);
    if (!cmz_layout_equal(&l, &other)) return;
  }
  value->layout = l;
  cmz_node_set_int(m, id, "stored", 1);
}

cmz_status cmz_pass_layout(cmz_pass_run *run, cmz_module *m) {
  cmz_arena *arena = cmz_arena_create(m->ctx);
  chooser c = {.m = m, .blocked = CMZ_NEW_ARRAY(arena, bool, m->values.count)};
  for (cmz_gid g = 1; g < m->graphs.count; g++) {
    if (!cmz_pass_graph_alive(m, g)) continue;
    choose_forward(&c, g);
    while (undo_backward(&c, g)) continue; /* only ever undoes: ends */
  }
  for (cmz_vid v = 1; v < m->values.count; v++)
    if (c.blocked[v])
      cmz_value_get(m, v)->layout = cmz_layout_blocked_channels(type_of(&c, v)->rank, BLOCK);
  for (cmz_vid v = 1; v < m->values.count; v++) pack_constant(&c, v);
  cmz_layout_fragments(run, m);
  for (cmz_nid n = 1; n < m->nodes.count; n++) store_decoded(&c, n);
  cmz_arena_destroy(arena);
  return CMZ_OK;
}
