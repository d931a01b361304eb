/* schedule_device.c - how a described kernel is spread over the threads of a GPU.
 * In: a description, a GPU's level. Out: a schedule without vectors, in which a grid tile is what
 * one thread computes, or, for a contraction, what a work-group computes together: a tile of rows
 * (axes that one factor alone uses) by columns (the other's). Always holds: an axis is tiled only
 * when every store has it; an axis along which a reduction's result is shared stays whole in one
 * thread, so that nothing is computed twice; the axis along which results lie side by side in
 * memory is the innermost of the grid. */
#include "../ir/kernel.h"
#include "passes.h"

static bool in_every_store(const cmz_kernel *k, uint16_t axis) {
  for (uint32_t s = 0; s < k->stores.count; s++) {
    const cmz_store *st = &k->stores.data[s];
    bool found = false;
    for (uint32_t i = 0; i < st->axis_count && !found; i++) found = st->axes[i] == axis;
    if (!found) return false;
  }
  return true;
}

static bool is_one(const cmz_kernel *k, uint16_t axis) {
  int64_t extent;
  return cmz_x_is_int(k, k->axes.data[axis].extent, &extent) && extent == 1;
}

/* Whether some reduction of the kernel does not use AXIS although the store around it does: its
 * result is shared along the axis. */
static bool shares_reduction(cmz_kernel *k, uint16_t axis) {
  for (uint32_t i = 1; i < k->exprs.count; i++)
    if (cmz_x_get(k, i)->op == CMZ_X_REDUCE && !cmz_x_uses_axis(k, i, axis)) return true;
  return false;
}

/* How far apart neighbours along AXIS lie in the first store; UINT64_MAX when not affine. */
static uint64_t store_stride(cmz_kernel *k, uint16_t axis) {
  int64_t stride;
  if (!cmz_x_stride(k, k->stores.data[0].index, axis, &stride)) return UINT64_MAX;
  return stride < 0 ? 0 - (uint64_t)stride : (uint64_t)stride;
}

static void order_axes(cmz_kernel *k, cmz_schedule *s) {
  uint8_t next = 0;
  for (uint32_t i = 0; i < k->axes.count; i++) s->axes[i].order = UINT8_MAX;
  for (;;) { /* the farthest apart first */
    uint16_t best = UINT16_MAX;
    uint64_t farthest = 0;
    for (uint16_t a = 0; a < k->axes.count; a++) {
      if (s->axes[a].tile == 0 || s->axes[a].order != UINT8_MAX) continue;
      uint64_t stride = store_stride(k, a);
      if (best != UINT16_MAX && stride <= farthest) continue;
      best = a;
      farthest = stride;
    }
    if (best == UINT16_MAX) break;
    s->axes[best].order = next++;
  }
  for (uint32_t pass = 0; pass < 2; pass++) /* then what a thread loops over, reductions last */
    for (uint32_t i = 0; i < k->axes.count; i++)
      if (s->axes[i].order == UINT8_MAX && (pass || k->axes.data[i].kind != CMZ_AXIS_REDUCE))
        s->axes[i].order = next++;
}

/* ---- contractions ---- */

enum {
  MOST_SIDE = 64,         /* of a tile: two of 64 by STEP elements fit every GPU's group */
  LEAST_SIDE = 8,         /* below, too little is used twice */
  STEP = 16,              /* iterations of the reduction between two barriers */
  MOST_UNROLL = 8,        /* a thread's elements along a side: accumulators are registers */
  UNKNOWN_EXTENT = 64,    /* what an extent that is not known yet is taken for */
  ENOUGH_GROUPS = 64,     /* as many as a middling GPU runs at a time */
  ENOUGH_THREADS = 4096,  /* the same, of threads that work by themselves */
  MOST_REGISTER_ROWS = 4, /* a lone thread's elements along a side */
  MOST_REGISTER_COLUMNS = 8,
  REDUCE_UNROLL = 4, /* iterations of its sum between two tests */
  LONG_REDUCTION = 64,
  LONG_UNROLL = 8,     /* the same for others */
  WARPGROUP_SIDE = 64, /* rows, and elements a step, of a warpgroup's matrix instructions */
  MOST_SIDE_AXES = 5
};

#define OPEN_SHARE 0.75 /* of a tile along an extent that is not known, counted as useful */

typedef struct side {
  uint32_t count;
  uint16_t axes[MOST_SIDE_AXES]; /* innermost first */
  uint32_t tile[MOST_SIDE_AXES];
  uint32_t product; /* of the tiles */
} side;

/* The 16-bit type in which X is loaded, zero elsewhere; 0: it is something else. */
static cmz_dtype half_type(const cmz_kernel *k, cmz_expr x) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  if (n->op == CMZ_X_SELECT) {
    const cmz_expr_node *no = cmz_x_get(k, n->args[2]);
    return no->op == CMZ_X_CONST_FLOAT && no->f == 0 ? half_type(k, n->args[1]) : 0;
  }
  if (n->op != CMZ_X_LOAD) return 0;
  cmz_dtype t = k->operands.data[n->i].dtype;
  return t == CMZ_F16 || t == CMZ_BF16 ? t : 0;
}

/* Between what X lies, an expression of bytes and constants; false when that is not known. */
static bool byte_range(const cmz_kernel *k, cmz_expr x, int64_t *low, int64_t *high) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  int64_t other_low, other_high;
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_CONST_INT:
    *low = *high = n->i;
    return n->i >= INT8_MIN && n->i <= UINT8_MAX;
  case CMZ_X_LOAD: {
    cmz_dtype t = k->operands.data[n->i].dtype;
    *low = t == CMZ_I8 ? INT8_MIN : 0;
    *high = t == CMZ_I8 ? INT8_MAX : UINT8_MAX;
    return t == CMZ_I8 || t == CMZ_U8;
  }
  case CMZ_X_ADD:
    if (!byte_range(k, n->args[0], low, high) ||
        !byte_range(k, n->args[1], &other_low, &other_high))
      return false;
    *low += other_low;
    *high += other_high;
    return true;
  case CMZ_X_SELECT:
    if (!byte_range(k, n->args[1], low, high) ||
        !byte_range(k, n->args[2], &other_low, &other_high))
      return false;
    *low = CMZ_MIN(*low, other_low);
    *high = CMZ_MAX(*high, other_high);
    return true;
  default:
    return false;
  }
}

/* The type of bytes that holds X; 0: none does. */
static cmz_dtype byte_type(const cmz_kernel *k, cmz_expr x) {
  int64_t low, high;
  if (!byte_range(k, x, &low, &high)) return 0;
  if (low >= INT8_MIN && high <= INT8_MAX) return CMZ_I8;
  return low >= 0 && high <= UINT8_MAX ? CMZ_U8 : 0;
}

/* Whether X is made of constants alone, some of them codes of at most 8 bits. */
static bool is_coded(const cmz_kernel *k, cmz_expr x, bool *codes) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  if (n->op == CMZ_X_LOAD) {
    const cmz_operand *o = &k->operands.data[n->i];
    *codes |= cmz_dtype_info(o->dtype)->bits <= 8 && o->dtype != CMZ_BOOL;
    return o->constant;
  }
  for (int i = 0; i < 3; i++)
    if (n->args[i] && !is_coded(k, n->args[i], codes)) return false;
  return true;
}

/* What matrix instructions are to read of the two factors of CONTRACTION: of integers, bytes; of
 * floats, 16-bit activations and weights, or 16-bit activations and weights in a storage format;
 * with TF32 any. False: scalars. */
static bool fragment_types(const cmz_kernel *k, cmz_expr contraction, bool tf32,
                           cmz_dtype types[2]) {
  const cmz_expr_node *n = cmz_x_get(k, contraction), *body = cmz_x_get(k, n->args[0]);
  if (n->dtype == CMZ_I32) {
    for (int i = 0; i < 2; i++) types[i] = byte_type(k, body->args[i]);
    return types[0] && types[1];
  }
  cmz_dtype half[2] = {half_type(k, body->args[0]), half_type(k, body->args[1])}, type = 0;
  for (int i = 0; i < 2 && !type; i++) {
    bool codes = false;
    if (half[i] && (half[i] == half[1 - i] || (is_coded(k, body->args[1 - i], &codes) && codes)))
      type = half[i];
  }
  if (!type && tf32) type = CMZ_F32;
  types[0] = types[1] = type;
  return type != 0;
}

static int64_t extent_of(const cmz_kernel *k, uint16_t axis) {
  int64_t extent;
  return cmz_x_is_int(k, k->axes.data[axis].extent, &extent) ? CMZ_MAX(extent, 1) : UNKNOWN_EXTENT;
}

static int64_t tiles_along(int64_t extent, uint32_t tile) { return (extent + tile - 1) / tile; }

/* Whether all loads below X are of operands that nobody writes meanwhile. */
static bool reads_only(const cmz_kernel *k, cmz_expr x) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  if (n->op == CMZ_X_REDUCE) return false;
  if (n->op == CMZ_X_LOAD && (k->operands.data[n->i].access & CMZ_WRITE)) return false;
  for (int i = 0; i < 3; i++)
    if (n->args[i] && !reads_only(k, n->args[i])) return false;
  return true;
}

/* The sum of products that K is, 0 when it is something else. */
static cmz_expr find_contraction(const cmz_kernel *k) {
  cmz_expr found = 0;
  if (k->stores.count != 1 || k->stores.data[0].mode != CMZ_STORE_SET ||
      k->stores.data[0].predicate)
    return 0;
  for (uint32_t i = 1; i < k->exprs.count; i++) {
    if (cmz_x_get(k, i)->op != CMZ_X_REDUCE) continue;
    if (found) return 0;
    found = i;
  }
  if (!found) return 0;
  const cmz_expr_node *n = cmz_x_get(k, found), *body = cmz_x_get(k, n->args[0]);
  if (n->reduce_op != CMZ_REDUCE_SUM || n->axis_count == 0 || body->op != CMZ_X_MUL ||
      (n->dtype != CMZ_F32 && n->dtype != CMZ_I32) || body->dtype != n->dtype)
    return 0;
  return reads_only(k, body->args[0]) && reads_only(k, body->args[1]) ? found : 0;
}

/* The size of AXIS' groups below X, an index of which divides it; 0: there are none. */
static int64_t group_size(const cmz_kernel *k, cmz_expr x, uint16_t axis) {
  const cmz_expr_node *n = cmz_x_get(k, x), *a = n->args[0] ? cmz_x_get(k, n->args[0]) : n;
  int64_t size = 0;
  if (n->op == CMZ_X_FLOORDIV && a->op == CMZ_X_AXIS && a->i == axis &&
      cmz_x_is_int(k, n->args[1], &size))
    return size;
  for (int i = 0; i < 3 && !size; i++)
    if (n->args[i]) size = group_size(k, n->args[i], axis);
  return size;
}

/* Splits one axis; false when there is none to split. */
static bool split_group(cmz_kernel *k) {
  cmz_expr contraction = find_contraction(k);
  if (!contraction) return false;
  const cmz_expr_node *body = cmz_x_get(k, cmz_x_get(k, contraction)->args[0]);
  cmz_expr factors[2] = {body->args[0], body->args[1]};
  for (uint16_t axis = 0; axis < k->axes.count; axis++) {
    int64_t extent, size = 0;
    uint16_t outer, inner;
    if (k->axes.data[axis].kind != CMZ_AXIS_PARALLEL ||
        !cmz_x_is_int(k, k->axes.data[axis].extent, &extent) ||
        !cmz_x_uses_axis(k, factors[0], axis) || !cmz_x_uses_axis(k, factors[1], axis))
      continue;
    for (int i = 0; i < 2 && !size; i++) size = group_size(k, factors[i], axis);
    if (size < LEAST_SIDE || extent <= size || extent % size) continue;
    cmz_kernel_split_axis(k, axis, (uint32_t)size, &outer, &inner);
    cmz_kernel_compact(k);
    return true;
  }
  return false;
}

void cmz_schedule_split_groups(cmz_kernel *k) {
  while (split_group(k)) {
  }
}

/* How good tiles are: the share of what they compute that exists, times the share of what they load
 * that is not loaded once an element. */
static double score_of(double useful, uint32_t product) {
  return useful * product / (product + LEAST_SIDE);
}

static void best_tiles(const cmz_kernel *k, const side *s, uint32_t at, uint32_t least,
                       uint32_t most, double useful, uint32_t product, uint32_t *now, double *best,
                       side *out) {
  if (at == s->count) {
    double score = score_of(useful, product);
    if (product < least || score <= *best) return;
    *best = score;
    out->product = product;
    memcpy(out->tile, now, sizeof out->tile);
    return;
  }
  int64_t extent = extent_of(k, s->axes[at]), known;
  bool open = !cmz_x_is_int(k, k->axes.data[s->axes[at]].extent, &known);
  for (uint32_t tile = most / product; tile >= 1;
       tile /= 2) { /* of equals, the innermost's largest */
    if (tile > 1 && tile / 2 >= extent) continue;
    double share = (double)extent / (double)(tiles_along(extent, tile) * tile);
    if (open && tile > 1) share *= OPEN_SHARE; /* a batch may be one */
    now[at] = tile;
    best_tiles(k, s, at + 1, least, most, useful * share, product * tile, now, best, out);
  }
}

/* Tiles of SIDE of LEAST to MOST elements; false when there are none or they are mostly empty. */
static bool choose_tiles(const cmz_kernel *k, side *s, uint32_t least, uint32_t most) {
  uint32_t now[MOST_SIDE_AXES] = {0};
  double best = 0, useful = 1;
  best_tiles(k, s, 0, least, most, 1, 1, now, &best, s);
  if (best <= 0) return false;
  for (uint32_t i = 0; i < s->count; i++) {
    int64_t extent = extent_of(k, s->axes[i]);
    useful *= (double)extent / (double)(tiles_along(extent, s->tile[i]) * s->tile[i]);
  }
  return useful >= 0.5;
}

/* Sorts the store's axes into ROWS, COLUMNS and those that both factors use; false when one is used
 * by neither or there are too many. A side may have none. */
static bool find_sides(cmz_kernel *k, cmz_expr contraction, const cmz_schedule *s, side *rows,
                       side *columns) {
  const cmz_expr_node *body = cmz_x_get(k, cmz_x_get(k, contraction)->args[0]);
  cmz_expr factors[2] = {body->args[0], body->args[1]};
  const cmz_store *store = &k->stores.data[0];
  side *sides[2] = {rows, columns};
  for (uint32_t order = store->axis_count; order-- > 0;) /* innermost first */
    for (uint32_t i = 0; i < store->axis_count; i++) {
      uint16_t axis = store->axes[i];
      if (s->axes[axis].order != order) continue;
      if (s->axes[axis].tile == 0) return false;
      bool used[2] = {cmz_x_uses_axis(k, factors[0], axis), cmz_x_uses_axis(k, factors[1], axis)};
      if (is_one(k, axis) || (used[0] && used[1])) continue;
      if (!used[0] && !used[1]) return false;
      side *of = sides[used[1]];
      if (of->count == MOST_SIDE_AXES) return false;
      of->axes[of->count++] = axis;
    }
  return true;
}

static int64_t count_groups(const cmz_kernel *k, const cmz_schedule *s, const side *rows,
                            const side *columns) {
  int64_t groups = 1;
  for (uint16_t a = 0; a < k->axes.count; a++) {
    uint32_t tile = 1;
    if (!s->axes[a].tile) continue;
    for (uint32_t i = 0; i < rows->count; i++)
      if (rows->axes[i] == a) tile = rows->tile[i];
    for (uint32_t i = 0; i < columns->count; i++)
      if (columns->axes[i] == a) tile = columns->tile[i];
    groups *= CMZ_MIN(tiles_along(extent_of(k, a), tile), INT32_MAX);
    if (groups > INT32_MAX) return INT32_MAX;
  }
  return groups;
}

static void spread(const side *of, uint32_t threads, cmz_schedule *s) {
  for (uint32_t i = 0; i < of->count; i++) {
    cmz_axis_schedule *a = &s->axes[of->axes[i]];
    a->tile = of->tile[i];
    a->threads = (uint16_t)CMZ_MIN(a->tile, threads);
    a->unroll = (uint16_t)(a->tile / a->threads);
    threads /= a->threads;
  }
}

/* Gives the threads of a group to the sides, so that a thread loads as little as possible an
 * iteration. */
static bool spread_threads(const side *rows, const side *columns, uint32_t group, cmz_schedule *s) {
  uint32_t best = 0, least = UINT32_MAX;
  for (uint32_t across = CMZ_MIN(columns->product, group); across >= 1; across /= 2) {
    if (group / across > rows->product) break;
    uint32_t r = rows->product / (group / across), c = columns->product / across;
    if (r > MOST_UNROLL || c > MOST_UNROLL || r + c >= least) continue;
    least = r + c;
    best = across;
  }
  if (!best) return false;
  spread(rows, group / best, s);
  spread(columns, best, s);
  s->group = (uint16_t)group;
  s->step = STEP;
  return true;
}

static bool is_power_of_two(uint32_t n) { return n && !(n & (n - 1)); }

/* Tiles of at least LEAST by LEAST and AREA elements, small enough to give every part of the GPU
 * something to do. */
static bool choose_sides(const cmz_kernel *k, const cmz_schedule *s, uint32_t least, uint32_t area,
                         side *rows, side *columns) {
  if (!choose_tiles(k, rows, least, MOST_SIDE) || !choose_tiles(k, columns, least, MOST_SIDE))
    return false;
  while (count_groups(k, s, rows, columns) < ENOUGH_GROUPS) {
    side *larger = rows->product > columns->product ? rows : columns, before = *larger;
    if (rows->product * columns->product / 2 < area) break;
    if (larger->product / 2 < least || !choose_tiles(k, larger, least, larger->product / 2)) {
      *larger = before;
      break;
    }
  }
  return rows->product * columns->product >= area;
}

static void take_fragments(const cmz_cpu_row *gpu, const cmz_dtype types[2], uint32_t step,
                           const side *rows, const side *columns, cmz_schedule *s) {
  spread(rows, rows->product, s);
  spread(columns, columns->product, s);
  s->group = gpu->threads;
  s->step = (uint16_t)step;
  s->fragments = (uint16_t)types[0];
  s->second = (uint16_t)types[1];
}

/* Warpgroups' instructions (codegen/emit_wgmma.c): tiles of 64 by 64, or 64 by 128 where these give
 * every part of the GPU something to do; 64 elements of 16 bits a step. */
static bool choose_warpgroup(const cmz_kernel *k, const cmz_cpu_row *gpu, const cmz_dtype types[2],
                             int64_t iterations, const side *rows, const side *columns,
                             cmz_schedule *s) {
  if (gpu->matrix != CMZ_MATRIX_WGMMA || gpu->threads != 128 || iterations < WARPGROUP_SIDE ||
      (types[0] != CMZ_F16 && types[0] != CMZ_BF16))
    return false;
  side r = *rows, c = *columns, wide = *columns;
  if (!choose_tiles(k, &r, WARPGROUP_SIDE, WARPGROUP_SIDE) ||
      !choose_tiles(k, &c, WARPGROUP_SIDE, WARPGROUP_SIDE))
    return false;
  bool twice = choose_tiles(k, &wide, 2 * WARPGROUP_SIDE, 2 * WARPGROUP_SIDE) &&
               count_groups(k, s, &r, &wide) >= ENOUGH_GROUPS;
  take_fragments(gpu, types, WARPGROUP_SIDE, &r, twice ? &wide : &c, s);
  return true;
}

/* Fragments of matrix instructions: warps of 16 by 16 elements at least. */
static bool choose_fragments(const cmz_kernel *k, const cmz_cpu_row *gpu, const cmz_dtype types[2],
                             int64_t iterations, side *rows, side *columns, cmz_schedule *s) {
  if (choose_warpgroup(k, gpu, types, iterations, rows, columns, s)) return true;
  uint32_t step = 64u * 8 / cmz_dtype_info(types[0])->bits;
  if (iterations < step / 2 || gpu->threads % 32 != 0) return false;
  uint32_t area = 16 * 16 * (gpu->threads / 32u);
  if (!choose_sides(k, s, 16, area, rows, columns) && !choose_sides(k, s, 32, area, rows, columns))
    return false;
  take_fragments(gpu, types, step, rows, columns, s);
  return true;
}

/* ---- weights in the order of fragments ---- */

enum {
  CODED_WIDTH = 64,        /* columns of a tile, at most */
  CODED_AHEAD = 4,         /* tiles of codes that a warp has under way, */
  CODED_AHEAD_WIDE = 2,    /* and where the sums of many columns take registers */
  CODED_STAGED = 32 << 10, /* bytes of activations in the group's memory, at most */
  MANY_GROUPS = 256        /* as many as a large GPU has room for */
};

/* Columns of a tile: all where there are few. An axis whose extent is not known (a batch) is left
 * out where the others have enough. */
static bool choose_coded_width(const cmz_kernel *k, side *columns) {
  side known = {0};
  int64_t count = 1, of_known = 1, extent;
  uint32_t width = 8;
  for (uint32_t i = 0; i < columns->count; i++) {
    count *= CMZ_MIN(extent_of(k, columns->axes[i]), CODED_WIDTH);
    columns->tile[i] = 1;
    if (!cmz_x_is_int(k, k->axes.data[columns->axes[i]].extent, &extent)) continue;
    known.axes[known.count++] = columns->axes[i];
    of_known *= CMZ_MIN(extent, CODED_WIDTH);
  }
  if (of_known < width) known = *columns;
  else count = of_known;
  columns->product = 1;
  while (width < CODED_WIDTH && width < count) width *= 2;
  for (; columns->count && width >= 1; width /= 2) {
    if (!choose_tiles(k, &known, 1, width)) continue;
    columns->product = known.product;
    for (uint32_t i = 0; i < known.count; i++)
      for (uint32_t j = 0; j < columns->count; j++)
        if (columns->axes[j] == known.axes[i]) columns->tile[j] = known.tile[i];
    return true;
  }
  return columns->count == 0;
}

static void set_panels(side *rows, uint32_t panels) {
  rows->product = 16 * panels;
  rows->tile[0] = rows->count > 1 ? 16 : rows->product;
  rows->tile[1] = panels;
}

/* Warps of a group take a panel of 16 rows each, or, where those are few, share panels and take
 * turns in the columns of the sum. */
static bool choose_coded(cmz_kernel *k, const cmz_cpu_row *gpu, cmz_expr contraction, bool halves,
                         side *sides, cmz_schedule *s) {
  const cmz_expr_node *body = cmz_x_get(k, cmz_x_get(k, contraction)->args[0]);
  cmz_coded coded;
  uint32_t factor = 0, warps = gpu->threads / 32u, turns = 1, ahead = CODED_AHEAD;
  for (; factor < 2; factor++)
    if ((halves || half_type(k, body->args[1 - factor]) == CMZ_F16) &&
        cmz_x_coded(k, contraction, factor, sides[factor].axes, sides[factor].count, &coded))
      break;
  if (factor == 2) return false;
  side *rows = &sides[factor], *columns = &sides[1 - factor];
  if (!choose_coded_width(k, columns)) return false;
  int64_t width = cmz_coded_columns(&coded), tiles = tiles_along(coded.columns, (uint32_t)width);
  if (columns->product > 16) ahead = CODED_AHEAD_WIDE;
  for (set_panels(rows, warps); turns < warps && tiles >= 2 * turns; turns *= 2) {
    if (count_groups(k, s, rows, columns) >= MANY_GROUPS) break;
    set_panels(rows, warps / (turns * 2));
  }
  while (ahead > 1 && (ahead * turns * width * columns->product * 2 > CODED_STAGED ||
                       ahead / 2 * turns >= tiles))
    ahead /= 2;
  spread(rows, rows->product, s);
  spread(columns, columns->product, s);
  s->group = gpu->threads;
  s->step = (uint16_t)(ahead * turns * width);
  s->fragments = s->second = CMZ_F16;
  s->coded = (uint16_t)coded.bits;
  return true;
}

/* Lets work-groups compute tiles together where K is a contraction that pays for it. */
static void choose_group(cmz_kernel *k, const cmz_cpu_row *gpu, bool tf32, bool halves,
                         cmz_schedule *s) {
  side sides[2] = {{0}}, rows, columns;
  cmz_expr contraction = find_contraction(k);
  uint32_t bytes = 2 * (MOST_SIDE + 1) * STEP * 4;
  if (!contraction || gpu->shared_bytes < bytes || !is_power_of_two(gpu->threads)) return;
  const cmz_expr_node *n = cmz_x_get(k, contraction);
  int64_t iterations = 1;
  for (uint32_t i = 0; i < n->axis_count; i++)
    iterations *= CMZ_MIN(extent_of(k, n->axes[i]), 1 << 20);
  cmz_quad quad;
  if (gpu->int8_dot == CMZ_DOT_PACKED && cmz_x_quad(k, contraction, &quad))
    iterations /= quad.count;
  if (iterations < STEP / 2 || !find_sides(k, contraction, s, &sides[0], &sides[1])) return;
  if (gpu->matrix && choose_coded(k, gpu, contraction, halves, sides, s)) return;
  rows = sides[0];
  columns = sides[1];
  if (!rows.count || !columns.count) return;
  cmz_dtype types[2];
  if (gpu->matrix && fragment_types(k, contraction, tf32, types) &&
      choose_fragments(k, gpu, types, iterations, &rows, &columns, s))
    return;
  if (!choose_sides(k, s, LEAST_SIDE, gpu->threads, &rows, &columns)) return;
  if (CMZ_MIN(rows.product, columns.product) * STEP < gpu->threads) return;
  spread_threads(&rows, &columns, gpu->threads, s);
}

static void spread_registers(const side *of, cmz_schedule *s) {
  for (uint32_t i = 0; i < of->count; i++) {
    s->axes[of->axes[i]].tile = of->tile[i];
    s->axes[of->axes[i]].unroll = (uint16_t)of->tile[i];
  }
}

/* Where K is a sum of products, a register tile for each thread of its own: what it loads of one
 * factor serves all elements that it has along the other's axes. */
static void choose_registers(cmz_kernel *k, cmz_schedule *s) {
  side rows = {0}, columns = {0};
  cmz_expr contraction = find_contraction(k);
  uint32_t most[2] = {MOST_REGISTER_ROWS, MOST_REGISTER_COLUMNS};
  if (!contraction || !find_sides(k, contraction, s, &rows, &columns)) return;
  if (!rows.count || !columns.count) return;
  for (;;) {
    if (!choose_tiles(k, &rows, 1, most[0]) || !choose_tiles(k, &columns, 1, most[1])) return;
    if (count_groups(k, s, &rows, &columns) >= ENOUGH_THREADS || most[0] * most[1] == 1) break;
    most[most[0] < most[1]] /= 2;
  }
  spread_registers(&rows, s);
  spread_registers(&columns, s);
  const cmz_expr_node *n = cmz_x_get(k, contraction);
  s->axes[n->axes[n->axis_count - 1]].unroll = REDUCE_UNROLL;
}

/* Long reductions take several elements between two tests. Mesa's llvmpipe ends all of a shader's
 * loops after 65,535 iterations together, so this is not for speed alone. */
static void unroll_reductions(const cmz_kernel *k, cmz_schedule *s) {
  for (uint32_t i = 1; i < k->exprs.count; i++) {
    const cmz_expr_node *n = cmz_x_get(k, i);
    if (n->op != CMZ_X_REDUCE || n->axis_count == 0) continue;
    uint16_t inner = n->axes[n->axis_count - 1];
    cmz_axis_schedule *a = &s->axes[inner];
    if (extent_of(k, inner) >= LONG_REDUCTION && a->unroll == 1) a->unroll = LONG_UNROLL;
  }
}

cmz_status cmz_schedule_choose_device(cmz_context *ctx, cmz_arena *arena, cmz_kernel *k,
                                      const cmz_cpu_row *gpu, bool tf32, bool halves,
                                      cmz_schedule *out) {
  if (k->stores.count == 0)
    return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "kernel %s stores nothing", k->name);
  *out = (cmz_schedule){.axis_count = k->axes.count};
  out->axes = CMZ_NEW_ARRAY(arena, cmz_axis_schedule, k->axes.count + 1);
  for (uint32_t i = 0; i < k->axes.count; i++)
    out->axes[i] = (cmz_axis_schedule){.unroll = 1, .lanes = 1};
  out->reduce_lanes = out->reduce_unroll = 1;

  for (uint16_t a = 0; a < k->axes.count; a++) {
    if (k->axes.data[a].kind != CMZ_AXIS_PARALLEL || !in_every_store(k, a)) continue;
    if (is_one(k, a) || !shares_reduction(k, a)) out->axes[a].tile = 1;
  }
  order_axes(k, out);
  if (!cmz_schedule_attention(k, gpu, out)) {
    choose_group(k, gpu, tf32, halves, out);
    if (!out->group) choose_registers(k, out);
    if (!out->group) unroll_reductions(k, out);
  }
  return CMZ_OK;
}
