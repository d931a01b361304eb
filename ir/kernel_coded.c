/* kernel_coded.c - weights that lie in the order in which a warp's matrix instructions want them.
 * In: a sum of products, which factor, the axes that count its rows. Out: what a code becomes a
 * weight by, and how the reduction's axes run through the codes. Found from the expression: its
 * form gives the parts, its indices are worked out for numbers of their axes. Always holds: what
 * matches lies as kernel.h says, in every row and column that was tried: all of the first and last
 * tile, and each column of the others. */
#include "kernel.h"

/* ---- indices for numbers ---- */

static bool evaluate(const cmz_kernel *k, cmz_expr e, const int64_t *axes, int64_t *out) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  int64_t a = 0, b = 0;
  if (n->op == CMZ_X_CONST_INT || n->op == CMZ_X_AXIS) {
    *out = n->op == CMZ_X_AXIS ? axes[n->i] : n->i;
    return true;
  }
  if (!n->args[0] || n->args[2] || !evaluate(k, n->args[0], axes, &a)) return false;
  if (n->args[1] && !evaluate(k, n->args[1], axes, &b)) return false;
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_CAST:
    *out = a;
    return true;
  case CMZ_X_ADD:
    return !__builtin_add_overflow(a, b, out);
  case CMZ_X_SUB:
    return !__builtin_sub_overflow(a, b, out);
  case CMZ_X_MUL:
    return !__builtin_mul_overflow(a, b, out);
  case CMZ_X_FLOORDIV:
    if (b <= 0) return false;
    *out = cmz_floor_div(a, b);
    return true;
  case CMZ_X_MOD:
    if (b <= 0) return false;
    *out = a - cmz_floor_div(a, b) * b;
    return true;
  default:
    return false;
  }
}

/* ---- the form ---- */

static cmz_expr without_casts(const cmz_kernel *k, cmz_expr e) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  return n->op == CMZ_X_CAST && !n->i ? without_casts(k, n->args[0]) : e;
}

/* E as a load of constants of one of two types. */
static bool loads_constant(const cmz_kernel *k, cmz_expr e, cmz_dtype one, cmz_dtype other) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (n->op != CMZ_X_LOAD) return false;
  const cmz_operand *o = &k->operands.data[n->i];
  return o->constant && (o->dtype == one || o->dtype == other);
}

/* E as a code: a byte, or the four bits of one above SHIFT. */
static bool match_code(const cmz_kernel *k, cmz_expr e, cmz_coded *c) {
  int64_t mask;
  e = without_casts(k, e);
  const cmz_expr_node *n = cmz_x_get(k, e);
  c->bits = 8;
  c->shift = 0;
  if (n->op == CMZ_X_AND) {
    bool first = cmz_x_is_int(k, n->args[0], &mask);
    if ((!first && !cmz_x_is_int(k, n->args[1], &mask)) || mask != 15) return false;
    n = cmz_x_get(k, n->args[first ? 1 : 0]);
    if (n->op != CMZ_X_SHR) return false;
    c->bits = 4;
    c->shift = n->args[1];
    e = without_casts(k, n->args[0]);
  }
  c->values = e;
  if (!loads_constant(k, e, CMZ_U8, CMZ_I8)) return false;
  c->is_signed = k->operands.data[cmz_x_get(k, e)->i].dtype == CMZ_I8;
  return c->bits == 8 || !c->is_signed;
}

static bool is_number(const cmz_kernel *k, cmz_expr e, double *value) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (n->op == CMZ_X_CONST_FLOAT) *value = n->f;
  return n->op == CMZ_X_CONST_FLOAT;
}

/* E as a code less a number or a zero point. */
static bool match_centred(const cmz_kernel *k, cmz_expr e, cmz_coded *c) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  c->zeros = 0;
  c->offset = 0;
  if (n->op == CMZ_X_ADD && is_number(k, n->args[1], &c->offset)) {
    c->offset = -c->offset;
    return match_code(k, n->args[0], c);
  }
  if (n->op == CMZ_X_ADD && is_number(k, n->args[0], &c->offset)) {
    c->offset = -c->offset;
    return match_code(k, n->args[1], c);
  }
  if (n->op != CMZ_X_SUB) return match_code(k, e, c);
  if (!is_number(k, n->args[1], &c->offset)) {
    c->zeros = without_casts(k, n->args[1]);
    if (!loads_constant(k, c->zeros, CMZ_U8, CMZ_U8)) return false;
  }
  return match_code(k, n->args[0], c);
}

static bool match_form(const cmz_kernel *k, cmz_expr e, cmz_coded *c) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (n->op != CMZ_X_MUL) return false;
  for (int i = 0; i < 2; i++) {
    c->scales = n->args[i];
    if (!loads_constant(k, c->scales, CMZ_F16, CMZ_F32)) continue;
    if (!match_centred(k, n->args[1 - i], c)) continue;
    return !c->zeros || cmz_x_get(k, c->zeros)->args[0] == cmz_x_get(k, c->scales)->args[0];
  }
  return false;
}

/* ---- the order ---- */

/* Where an element lies: tile of its panel, row and column in the tile. */
typedef struct place {
  int64_t tile, row, column;
} place;

static bool place_of(const cmz_kernel *k, const cmz_coded *c, const int64_t *axes, place *p) {
  int64_t index, shift = 0;
  if (!evaluate(k, cmz_x_get(k, c->values)->args[0], axes, &index) || index < 0) return false;
  if (c->shift && !evaluate(k, c->shift, axes, &shift)) return false;
  int64_t lane = index % 512 / 16, word = index % 16 / 4, byte = index % 4;
  p->tile = index / 512;
  if (c->bits == 4) {
    p->row = lane / 4 * 2 + byte % 2;
    p->column = 16 * word + lane % 4 * 4 + byte / 2 * 2 + shift / 4;
  } else {
    p->row = lane / 4 * 2 + byte / 2;
    p->column = word / 2 * 16 + lane % 4 * 4 + word % 2 * 2 + byte % 2;
  }
  return true;
}

static int64_t extent_of(const cmz_kernel *k, uint16_t axis) {
  int64_t extent;
  return cmz_x_is_int(k, k->axes.data[axis].extent, &extent) ? extent : -1;
}

/* The reduction's axes by how far their steps take a column, which must be one numbering of all. */
static bool order_axes(const cmz_kernel *k, const cmz_expr_node *reduce, int64_t *axes,
                       cmz_coded *c) {
  int64_t steps[CMZ_REDUCE_MAX_AXES], tile = cmz_coded_columns(c), next = 1;
  c->axis_count = reduce->axis_count;
  for (uint32_t i = 0; i < reduce->axis_count; i++) {
    uint16_t axis = reduce->axes[i];
    place p = {0};
    axes[axis] = extent_of(k, axis) > 1 ? 1 : 0;
    if (extent_of(k, axis) < 1 || !place_of(k, c, axes, &p)) return false;
    int64_t step = axes[axis] ? p.tile * tile + p.column : INT64_MAX;
    axes[axis] = 0;
    uint32_t at = i;
    for (; at > 0 && steps[at - 1] < step; at--) {
      steps[at] = steps[at - 1];
      c->axes[at] = c->axes[at - 1];
    }
    steps[at] = step;
    c->axes[at] = axis;
  }
  for (uint32_t i = c->axis_count; i-- > 0;) {
    int64_t extent = extent_of(k, c->axes[i]);
    if (extent > 1 && steps[i] != next) return false;
    if (__builtin_mul_overflow(next, extent, &next) || next > INT32_MAX) return false;
  }
  c->columns = next;
  return true;
}

static void set_column(const cmz_kernel *k, const cmz_coded *c, int64_t column, int64_t *axes) {
  for (uint32_t i = c->axis_count; i-- > 0;) {
    int64_t extent = extent_of(k, c->axes[i]);
    axes[c->axes[i]] = column % extent;
    column /= extent;
  }
}

static void set_row(const uint16_t *rows, uint32_t count, int64_t row, int64_t *axes) {
  axes[rows[0]] = count > 1 ? row % 16 : row;
  if (count > 1) axes[rows[1]] = row / 16;
}

/* Whether tile TILE of panel PANEL lies as it should, in all its elements or one a column. */
static bool check_tile(const cmz_kernel *k, const cmz_coded *c, const uint16_t *rows,
                       uint32_t row_count, int64_t panel, int64_t limit, int64_t tile, bool all,
                       int64_t *axes) {
  int64_t width = cmz_coded_columns(c), tiles = (c->columns + width - 1) / width;
  for (int64_t column = tile * width; column < CMZ_MIN((tile + 1) * width, c->columns); column++)
    for (int64_t i = 0; i < (all ? 16 : 1); i++) {
      int64_t row = all ? i : column % 16;
      place p;
      if (16 * panel + row >= limit) continue;
      set_row(rows, row_count, 16 * panel + row, axes);
      set_column(k, c, column, axes);
      if (!place_of(k, c, axes, &p) || p.row != row || p.column != column % width ||
          p.tile != panel * tiles + tile)
        return false;
    }
  return true;
}

/* How many columns share a scale; scales lie [panel][group][16]. */
static bool find_groups(const cmz_kernel *k, const uint16_t *rows, uint32_t row_count,
                        int64_t limit, int64_t *axes, cmz_coded *c) {
  cmz_expr index = cmz_x_get(k, c->scales)->args[0];
  int64_t at, first;
  c->group = c->columns;
  set_row(rows, row_count, 0, axes);
  for (int64_t column = 0; column < c->columns; column++) {
    set_column(k, c, column, axes);
    if (!evaluate(k, index, axes, &at) || (column == 0 && at != 0)) return false;
    if (at != 0 && c->group == c->columns) c->group = column;
    if (at != column / c->group * 16) return false;
  }
  int64_t groups = (c->columns + c->group - 1) / c->group;
  for (int64_t row = 0; row < limit; row++) {
    set_row(rows, row_count, row, axes);
    set_column(k, c, 0, axes);
    if (!evaluate(k, index, axes, &first) || first != row / 16 * 16 * groups + row % 16)
      return false;
  }
  return true;
}

bool cmz_x_coded(const cmz_kernel *k, cmz_expr reduce, uint32_t factor, const uint16_t *rows,
                 uint32_t row_count, cmz_coded *c) {
  const cmz_expr_node *n = cmz_x_get(k, reduce), *body = cmz_x_get(k, n->args[0]);
  *c = (cmz_coded){0};
  if (row_count < 1 || row_count > 2 || body->op != CMZ_X_MUL) return false;
  int64_t limit = extent_of(k, rows[0]);
  if (row_count > 1 && limit != 16) return false;
  if (row_count > 1) limit = 16 * extent_of(k, rows[1]);
  if (limit < 16 || !match_form(k, body->args[factor], c)) return false;
  int64_t *axes = CMZ_NEW_ARRAY(k->arena, int64_t, k->axes.count);
  if (!order_axes(k, n, axes, c)) return false;
  int64_t width = cmz_coded_columns(c), tiles = (c->columns + width - 1) / width;
  for (int64_t tile = 0; tile < tiles; tile++)
    if (!check_tile(k, c, rows, row_count, 0, limit, tile, tile == 0 || tile == tiles - 1, axes))
      return false;
  for (int64_t panel = 0; panel < (limit + 15) / 16; panel++)
    if (!check_tile(k, c, rows, row_count, panel, limit, 0, false, axes)) return false;
  if (!find_groups(k, rows, row_count, limit, axes, c)) return false;
  return c->group == c->columns ||
         (c->group % 16 == 0 && (c->group % width == 0 || width % c->group == 0));
}
