/* layout_fragments.c - weights in a storage format in the order in which a GPU's warps multiply
 * them. In: an expanded module for a GPU with matrix instructions whose layers run in f16. Out: the
 * codes of every such weight that fits, laid out as kernel.h's cmz_coded says, so that 16 bytes a
 * lane are what its registers want. Always holds: scales and zero points stay as they are; a weight
 * that anything but a product or an ungrouped convolution reads keeps its order. */
#include "../ir/format.h"
#include "support.h"

#define MOST_PADDING 1.6 /* of tiles over columns: beyond, decoding once costs less */

/* [panel][line][16] of codes, a line being a byte of each row; see cmz_coded. */
static const struct {
  uint32_t bits, tile_columns;
  cmz_layout layout;
} orders[] = {
    {4, 64, {7, {{0, 1, 0}, {1, 32, 0}, {2, 2, 8}, {1, 2, 4}, {1, 8, 4}, {1, 1, 2}, {2, 1, 2}}}},
    {8,
     32,
     {8,
      {{0, 1, 0}, {1, 32, 0}, {2, 2, 8}, {1, 4, 4}, {1, 16, 2}, {1, 2, 2}, {2, 1, 2}, {1, 1, 2}}}},
};

static bool is_product(const cmz_node *n, uint32_t input) {
  if (cmz_pass_is_op(n, "MatMul")) return input < 2;
  return cmz_pass_is_op(n, "Conv") && input == 1 && cmz_node_int(n, "group", 1) == 1;
}

/* Whether V is read by products alone, perhaps as another float type. */
static bool feeds_products(const cmz_module *m, cmz_vid v) {
  const cmz_value *value = cmz_value_get(m, v);
  if (value->output_uses > 0 || value->uses.count == 0) return false;
  for (uint32_t i = 0; i < value->uses.count; i++) {
    const cmz_node *n = cmz_node_get(m, value->uses.data[i].node);
    bool cast = cmz_pass_is_op(n, "Cast") &&
                cmz_dtype_is_float(cmz_value_get(m, n->outputs[0])->type.dtype);
    if (cast ? !feeds_products(m, n->outputs[0]) : !is_product(n, value->uses.data[i].index))
      return false;
  }
  return true;
}

/* The order for codes that Decode N reads; NULL: none fits. */
static const cmz_layout *order_of(const cmz_module *m, const cmz_node *n) {
  const cmz_format_row *f = cmz_format_find(cmz_node_string(n, "format", ""));
  int64_t columns = cmz_node_int(n, "column_count", 0), group = cmz_node_int(n, "group_size", 0);
  if (!f || f->is_float || cmz_node_int(n, "sparse", 0)) return NULL;
  for (size_t i = 0; i < CMZ_COUNT_OF(orders); i++) {
    int64_t tile = orders[i].tile_columns;
    if (orders[i].bits != f->bits) continue;
    if ((double)cmz_align_up((size_t)columns, (size_t)tile) > MOST_PADDING * (double)columns)
      return NULL;
    if (group % 16 != 0 || (group != 0 && tile % group != 0 && group % tile != 0)) return NULL;
    return feeds_products(m, n->outputs[0]) ? &orders[i].layout : NULL;
  }
  return NULL;
}

static bool is_decode(const cmz_node *n) {
  return !n->removed && (n->op->flags & CMZ_OP_DECODE) && n->outputs[0] != 0;
}

/* The order that all readers of codes V want; NULL: none. */
static const cmz_layout *order_for(const cmz_module *m, cmz_vid v) {
  const cmz_value *value = cmz_value_get(m, v);
  const cmz_layout *order = NULL;
  if (value->output_uses > 0) return NULL;
  for (uint32_t i = 0; i < value->uses.count; i++) {
    const cmz_node *n = cmz_node_get(m, value->uses.data[i].node);
    const cmz_layout *own = is_decode(n) && value->uses.data[i].index == 0 ? order_of(m, n) : NULL;
    if (!own || (order && own != order)) return NULL;
    order = own;
  }
  return order;
}

static void pack(cmz_module *m, cmz_vid v) {
  cmz_value *value = cmz_value_get(m, v);
  cmz_constant *c = value->constant ? cmz_constant_get(m, value->constant) : NULL;
  int64_t elements;
  if (!c || c->layout.count || c->rank != 3 || c->shape[2] != CMZ_FORMAT_PANEL) return;
  const cmz_layout *order = order_for(m, v);
  if (!order) return;
  cmz_dim count = cmz_layout_elements(m->dims, order, value->type.rank, value->type.shape);
  if (!cmz_dim_is_const(m->dims, count, &elements)) return;
  void *packed = cmz_arena_alloc(m->arena, (size_t)elements);
  cmz_layout_pack(order, c->rank, c->shape, 1, c->data, packed);
  c->data = packed;
  c->bytes = (size_t)elements;
  c->layout = value->layout = *order;
}

const cmz_layout *cmz_layout_fragments_order(uint32_t bits) {
  for (size_t i = 0; i < CMZ_COUNT_OF(orders); i++)
    if (orders[i].bits == bits) return &orders[i].layout;
  return NULL;
}

void cmz_layout_fragments(const cmz_pass_run *run, cmz_module *m) {
  const cmz_target *target = run->target;
  if (!target || run->precision != CMZ_F16) return;
  for (uint32_t i = 0; i < target->level_count; i++)
    if (!target->levels[i]->matrix) return;
  for (cmz_nid i = 1; i < m->nodes.count; i++) {
    const cmz_node *n = cmz_node_get(m, i);
    if (is_decode(n)) pack(m, n->inputs[0]);
  }
}
