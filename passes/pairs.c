/* pairs.c - weights of bf16 numbers by twos along the axis of the sum, as instructions take them
 * that add two products a lane. In: a module with layouts, fusion and types of stored values
 * decided. Out: […][in][out] becomes […][in/2][out][2] in constants that a CPU with such
 * instructions multiplies by stored bf16 data. Always holds: only the order of a constant's
 * elements changes, and its layout says so; levels without the instructions read the same order by
 * shifts. */
#include "support.h"

#define PAIR 2

typedef struct product {
  uint8_t in, out; /* dims of the weights */
} product;

/* Whether node N sums products of input 0, along neighbours, and input 1. */
static bool is_product(const cmz_node *n, product *p) {
  static const struct {
    const char *op;
    product dims;
  } rows[] = {{"MatMul", {0, 1}}, {"Gemm", {0, 1}}, {"Conv", {1, 0}}};
  if (cmz_node_int(n, "group", 1) != 1 || cmz_node_int(n, "transA", 0) != 0) return false;
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++) {
    if (!cmz_pass_is_op(n, rows[i].op)) continue;
    *p = rows[i].dims;
    if (cmz_node_int(n, "transB", 0) != 0) *p = (product){p->out, p->in};
    return true;
  }
  return false;
}

/* Whether USE is as the weights of a product of stored bf16 numbers. */
static bool is_paired(const cmz_pass_run *run, const cmz_module *m, cmz_use use, product *p) {
  const cmz_node *n = cmz_node_get(m, use.node);
  if (use.index != 1 || !is_product(n, p)) return false;
  cmz_vid data = n->inputs[0];
  return !run->fused[data] && cmz_value_get(m, data)->type.dtype == CMZ_BF16;
}

/* […][ROWS][COLUMNS] in place of COUNT 16-bit elements to […][ROWS/2][COLUMNS][2]. */
static void interleave(const uint16_t *from, uint16_t *to, size_t count, size_t rows,
                       size_t columns) {
  for (size_t i = 0; i < count; i++) {
    size_t column = i % columns, row = i / columns % rows, matrix = i / columns / rows;
    to[((matrix * (rows / PAIR) + row / PAIR) * columns + column) * PAIR + row % PAIR] = from[i];
  }
}

static void pair_constant(cmz_pass_run *run, cmz_module *m, cmz_vid v) {
  cmz_value *value = cmz_value_get(m, v);
  product p, other;
  if (value->removed || value->constant == 0 || value->type.dtype != CMZ_BF16 ||
      value->output_uses > 0 || value->uses.count == 0)
    return;
  for (uint32_t i = 0; i < value->uses.count; i++) {
    if (!is_paired(run, m, value->uses.data[i], i == 0 ? &p : &other)) return;
    if (i > 0 && (other.in != p.in || other.out != p.out)) return;
  }
  cmz_constant *c = cmz_constant_get(m, value->constant);
  cmz_layout l = value->layout;
  if (c->data == NULL || c->dtype != CMZ_BF16 || !cmz_layout_equal(&l, &c->layout) ||
      cmz_pass_shares_constant(m, v))
    return;
  if (l.count == 0) /* a plain matrix */
    for (; c->rank == 2 && l.count < 2; l.count++)
      l.axes[l.count] = (cmz_layout_axis){(uint8_t)l.count, 1, 0};
  if (l.count < 2 || l.count == CMZ_LAYOUT_MAX_AXES) return;
  cmz_layout_axis *in = &l.axes[l.count - 2], out = l.axes[l.count - 1];
  size_t rows = (size_t)(in->mod ? in->mod : c->shape[p.in]),
         columns = (size_t)(out.mod ? out.mod : c->shape[p.out]), count = c->bytes / 2;
  if (in->axis != p.in || in->div != 1 || out.axis != p.out || out.div != 1 || count == 0 ||
      rows % PAIR != 0)
    return;
  *in = (cmz_layout_axis){p.in, PAIR, in->mod / PAIR};
  l.axes[l.count++] = (cmz_layout_axis){p.in, 1, PAIR};
  uint16_t *to = cmz_arena_alloc(m->arena, c->bytes);
  interleave(c->data, to, count, rows, columns);
  c->data = to;
  c->layout = value->layout = l;
}

cmz_status cmz_pass_pairs(cmz_pass_run *run, cmz_module *m) {
  const cmz_target *t = run->target;
  if (t == NULL || t->gpu != NULL || t->level_count == 0 || !t->levels[0]->bf16_dot) return CMZ_OK;
  for (cmz_vid v = 1; v < m->values.count; v++) pair_constant(run, m, v);
  return CMZ_OK;
}
