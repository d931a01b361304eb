/* schedule.c - how a described kernel runs on a CPU: grid tiles, register tiles, vector axis,
 * order. In: a description and a CPU row. Out: a schedule; a pure function of both, found from the
 * description's structure. Always holds: grid tiles depend on the description alone, so that all
 * CPU levels of a library split the work alike; every tile is a multiple of its axis's step (unroll
 * * lanes) or covers the whole axis. */
#include "../ir/kernel.h"
#include "passes.h"

#define TILE_ELEMENTS 8192              /* of a pointwise kernel */
#define TILE_REDUCED 32768              /* element reads of a reduction */
#define TILE_MULTIPLIES 1500000         /* multiply-accumulates of a contraction */
#define TILE_MULTIPLIES_BYTES 6000000.0 /* of a matrix product of bytes */
#define TILE_LEAST_OUTPUTS                                                                         \
  (64 * 32.0) /* of a contraction: what it takes to use a panel of weights well */
#define PANEL_WIDTH 16
#define TILE_WIDEST_STEP 64 /* tiles of the vector axis are multiples of this */
#define SHORT_SUM 32        /* products */
#define MOST_ROWS 14
#define MOST_SLIDING_ROWS 10 /* what rows share, LLVM keeps in registers: these need some more */
#define FEW_PRODUCTS 8       /* a sum of these is all loads and stores */
#define MOST_TINY_ROWS 8u
#define ASSUMED_EXTENT 64 /* of an axis whose extent is known at run time only */
#define OPEN_BATCH_ROWS                                                                            \
  4.5 /* rows that an outermost axis is taken for which is as long as the batch */
#define NEAR_STRIDE 4
#define LONGEST_CHOOSER 8 /* iterations of an axis that selects parts of loaded values */
#define VECTOR_BITS_BASE                                                                           \
  32 /* lanes are counted in elements of this size unless all values are wider */

typedef struct load_info {
  cmz_expr index;
  uint16_t operand;
} load_info;

typedef struct analysis {
  cmz_kernel *k;
  cmz_arena *arena;
  uint8_t *seen; /* by expr */
  CMZ_VEC(cmz_expr) reduces;
  CMZ_VEC(load_info) loads;
  bool wide;    /* a 64-bit value type is computed in */
  bool mixed;   /* something else than f16 numbers is loaded */
  int64_t unit; /* stride of what is contiguous: of the elements taken together (cmz_quad), or 1 */
} analysis;

static bool is_value_type(uint8_t dtype) { return dtype != CMZ_I64; }

/* Collects the reductions and loads below E; index expressions are not entered unless they load. */
static void collect(analysis *a, cmz_expr e) {
  if (e == 0 || a->seen[e]) return;
  a->seen[e] = 1;
  const cmz_expr_node *n = cmz_x_get(a->k, e);
  if (n->op == CMZ_X_REDUCE) cmz_vec_push(a->arena, &a->reduces, e);
  if (n->op == CMZ_X_LOAD) {
    a->mixed |= a->k->operands.data[n->i].dtype != CMZ_F16;
    load_info info = {n->args[0], (uint16_t)n->i};
    cmz_vec_push(a->arena, &a->loads, info);
  }
  if (n->dtype == CMZ_F64) a->wide = true;
  for (int i = 0; i < 3; i++) collect(a, cmz_x_get(a->k, e)->args[i]);
}

static int64_t extent_of(const cmz_kernel *k, uint16_t axis) {
  int64_t v;
  if (cmz_x_is_int(k, k->axes.data[axis].extent, &v)) return v < 1 ? 1 : v;
  return ASSUMED_EXTENT;
}

static bool known_extent(const cmz_kernel *k, uint16_t axis, int64_t *v) {
  return cmz_x_is_int(k, k->axes.data[axis].extent, v);
}

/* ---- what the store computes ---- */

typedef struct shape {
  cmz_expr contraction; /* REDUCE sum of a product, or 0 */
  double reduce_volume; /* iterations of all reductions an element */
  double contraction_volume;
} shape;

/* The product below sums, selects and casts; 0 when there is none. */
static cmz_expr find_product(const cmz_kernel *k, cmz_expr e) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  switch (n->op) {
  case CMZ_X_MUL:
    return e;
  case CMZ_X_CAST:
    return find_product(k, n->args[0]);
  case CMZ_X_SELECT: {
    cmz_expr p = find_product(k, n->args[1]);
    return p != 0 ? p : find_product(k, n->args[2]);
  }
  default:
    return 0;
  }
}

static double volume_of(const cmz_kernel *k, const cmz_expr_node *reduce) {
  double v = 1;
  for (int i = 0; i < reduce->axis_count; i++) v *= (double)extent_of(k, reduce->axes[i]);
  return v;
}

typedef struct contents {
  bool loads, reduces, selects;
} contents;

/* What is below E; each shared expression is looked at once. */
static void look_below(const cmz_kernel *k, cmz_expr e, uint8_t *seen, contents *c) {
  if (e == 0 || seen[e]) return;
  seen[e] = 1;
  const cmz_expr_node *n = cmz_x_get(k, e);
  c->reduces |= n->op == CMZ_X_REDUCE;
  c->loads |= n->op == CMZ_X_LOAD;
  c->selects |= n->op == CMZ_X_SELECT;
  if (n->op == CMZ_X_LOAD) return;
  for (int i = 0; i < 3; i++) look_below(k, n->args[i], seen, c);
}

static contents contents_of(const analysis *a, cmz_expr e) {
  contents c = {0};
  look_below(a->k, e, CMZ_NEW_ARRAY(a->arena, uint8_t, a->k->exprs.count + 1), &c);
  return c;
}

/* A sum of products of two different things in memory; squares and weighted sums of results are
 * plain reductions. */
static bool is_contraction(const analysis *a, const cmz_expr_node *n) {
  if (n->reduce_op != CMZ_REDUCE_SUM || !is_value_type(n->dtype)) return false;
  cmz_expr product = find_product(a->k, n->args[0]);
  if (product == 0) return false;
  const cmz_expr_node *p = cmz_x_get(a->k, product);
  if (p->args[0] == p->args[1]) return false;
  contents x = contents_of(a, p->args[0]), y = contents_of(a, p->args[1]);
  return x.loads && y.loads && !x.reduces && !y.reduces;
}

static shape classify(analysis *a) {
  shape s = {0};
  for (uint32_t i = 0; i < a->reduces.count; i++) {
    const cmz_expr_node *n = cmz_x_get(a->k, a->reduces.data[i]);
    double volume = volume_of(a->k, n);
    s.reduce_volume += volume;
    if (!is_contraction(a, n)) continue;
    if (volume > s.contraction_volume || s.contraction == 0) {
      s.contraction = a->reduces.data[i];
      s.contraction_volume = volume;
    }
  }
  return s;
}

/* ---- the vector axis ---- */

/* 1: contiguous, 0: independent, -1: gathered from few cache lines, -2: gathered from anywhere. */
static int access_of(cmz_kernel *k, cmz_expr index, uint16_t axis, int64_t unit) {
  int64_t stride;
  if (!cmz_x_uses_axis(k, index, axis)) return 0;
  if (!cmz_x_stride(k, index, axis, &stride)) return -2;
  if (stride == 0) return 0;
  if (stride == unit) return 1;
  return stride >= -NEAR_STRIDE && stride <= NEAR_STRIDE ? -1 : -2;
}

static double lane_score(analysis *a, const cmz_store *st, uint16_t axis, bool contraction) {
  int64_t extent = extent_of(a->k, axis);
  if (extent < 2) return -1e9;
  double score = 0;
  int stored = access_of(a->k, st->index, axis, 1);
  score += stored == 1 ? (contraction ? 3 : 8) : stored == 0 ? -1e9 : (contraction ? -2 : -6);
  for (uint32_t i = 0; i < a->loads.count; i++) {
    int kind = access_of(a->k, a->loads.data[i].index, axis, a->unit);
    static const double scores[4] = {-12, -5, 1, 6};
    score += scores[kind + 2];
  }
  /* A short axis fills few lanes. */
  if (extent < 16) score -= (double)(16 - extent) * 0.5;
  return score;
}

static uint16_t choose_lane_axis(analysis *a, const cmz_store *st, cmz_expr contraction,
                                 double *best) {
  uint16_t axis = UINT16_MAX;
  *best = -1e8;
  for (uint32_t i = 0; i < st->axis_count; i++) {
    if (a->k->axes.data[st->axes[i]].kind != CMZ_AXIS_PARALLEL) continue;
    if (contraction != 0 && !cmz_x_uses_axis(a->k, contraction, st->axes[i])) continue;
    double score = lane_score(a, st, st->axes[i], contraction != 0);
    if (score >= *best) {
      *best = score;
      axis = st->axes[i];
    }
  }
  return axis;
}

/* Whether the store's value comes of f16 numbers alone, without sums, and becomes one. */
static bool is_half(const analysis *a, const cmz_store *st) {
  return a->reduces.count == 0 && a->loads.count > 0 && !a->mixed &&
         a->k->operands.data[st->operand].dtype == CMZ_F16;
}

static uint16_t lanes_for(const cmz_cpu_row *cpu, bool wide, bool half) {
  uint32_t bits = wide ? 64 : half && cpu->f16_arithmetic ? 16 : VECTOR_BITS_BASE;
  uint32_t lanes = (uint32_t)cpu->vector_bytes * 8 / bits;
  return (uint16_t)(lanes < 1 ? 1 : lanes);
}

/* ---- register tiles ---- */

/* How many of EXTENT a step of STEP wastes; smaller is better. */
static double waste(int64_t extent, int64_t step) {
  int64_t steps = (extent + step - 1) / step;
  return (double)(steps * step) / (double)extent;
}

/* Best number of instances up to LIMIT for an axis of EXTENT. */
static uint16_t choose_unroll(int64_t extent, uint32_t limit, bool known) {
  if (limit < 1) limit = 1;
  if (!known) return (uint16_t)CMZ_MIN(limit, 8u);
  uint16_t best = 1;
  double best_cost = 1e30;
  for (uint32_t u = 1; u <= limit && (int64_t)u <= extent; u++) {
    /* Each step loads the shared operand once: fewer steps are better, wasted iterations are worse.
     */
    double cost = waste(extent, u) * (1 + 2.0 / u);
    if (cost <= best_cost) {
      best_cost = cost;
      best = (uint16_t)u;
    }
  }
  return best;
}

/* The parallel axis along which the vector operand stays: its loads are independent of it, another
 * load is not. */
static uint16_t choose_row_axis(analysis *a, const cmz_store *st, uint16_t lane_axis) {
  uint16_t best = UINT16_MAX;
  double best_score = 0;
  for (uint32_t i = 0; i < st->axis_count; i++) {
    uint16_t axis = st->axes[i];
    int64_t extent = extent_of(a->k, axis);
    if (axis == lane_axis || extent < 2 || a->k->axes.data[axis].kind != CMZ_AXIS_PARALLEL)
      continue;
    int reused = 0, moving = 0;
    for (uint32_t l = 0; l < a->loads.count; l++) {
      cmz_expr index = a->loads.data[l].index;
      bool vector = access_of(a->k, index, lane_axis, a->unit) != 0;
      bool uses = cmz_x_uses_axis(a->k, index, axis);
      reused += vector && !uses;
      moving += uses;
    }
    if (reused == 0 || moving == 0) continue;
    double score = (double)CMZ_MIN(extent, 16) + (double)i * 0.1;
    if (i == 0 && !known_extent(a->k, axis, &(int64_t){0})) score = OPEN_BATCH_ROWS;
    if (score >= best_score) {
      best_score = score;
      best = axis;
    }
  }
  return best;
}

/* A second axis whose steps read further vectors of the same operand while the row operand stays
 * (blocks of output channels). */
static uint16_t choose_block_axis(analysis *a, const cmz_store *st, uint16_t lane_axis,
                                  uint16_t row) {
  for (uint32_t i = st->axis_count; i-- > 0;) {
    uint16_t axis = st->axes[i];
    if (axis == lane_axis || axis == row || a->k->axes.data[axis].kind != CMZ_AXIS_PARALLEL)
      continue;
    int64_t extent;
    if (!known_extent(a->k, axis, &extent) || extent < 2) continue;
    bool vector_uses = false, scalar_uses = false;
    for (uint32_t l = 0; l < a->loads.count; l++) {
      cmz_expr index = a->loads.data[l].index;
      bool uses = cmz_x_uses_axis(a->k, index, axis);
      if (access_of(a->k, index, lane_axis, a->unit) != 0) vector_uses |= uses;
      else scalar_uses |= uses;
    }
    if (vector_uses && !scalar_uses) return axis;
  }
  return UINT16_MAX;
}

/* The axis of CONTRACTION along which products are summed by four bytes, and what they are;
 * UINT16_MAX: none. */
static uint16_t find_quad(cmz_kernel *k, cmz_expr contraction, cmz_quad *found) {
  cmz_quad quad;
  if (!cmz_x_quad(k, contraction, &quad)) return UINT16_MAX;
  *found = quad;
  const cmz_expr_node n = *cmz_x_get(k, contraction);
  for (uint32_t i = n.axis_count; i-- > 0;) {
    int64_t strides[2] = {0, 0};
    for (int f = 0; f < 2; f++)
      if (!cmz_x_stride(k, cmz_x_get(k, quad.factors[f].load)->args[0], n.axes[i], &strides[f]))
        strides[f] = 0;
    if (strides[0] == 1 && strides[1] == 1 && cmz_x_quad_axis(k, &quad, n.axes[i]))
      return n.axes[i];
  }
  return UINT16_MAX;
}

static uint16_t quad_axis(cmz_kernel *k, cmz_expr contraction) {
  return find_quad(k, contraction, &(cmz_quad){0});
}

/* Loads inside the contraction only: the epilogue's do not decide its register tile. */
static void contraction_loads(const analysis *whole, cmz_expr contraction, analysis *out) {
  *out = (analysis){.k = whole->k, .arena = whole->arena, .unit = 1};
  out->seen = CMZ_NEW_ARRAY(out->arena, uint8_t, out->k->exprs.count + 1);
  cmz_expr product = find_product(out->k, cmz_x_get(out->k, contraction)->args[0]);
  collect(out, product);
  cmz_quad quad;
  if (find_quad(out->k, contraction, &quad) != UINT16_MAX) out->unit = quad.count;
}

/* The axes that matter to a contraction; found from the description alone. */
typedef struct tiling {
  uint16_t lane, row, block; /* UINT16_MAX: none */
} tiling;

static bool find_tiling(const analysis *a, const cmz_store *st, cmz_expr contraction, tiling *t) {
  analysis inner;
  double score;
  contraction_loads(a, contraction, &inner);
  t->row = t->block = UINT16_MAX;
  t->lane = choose_lane_axis(&inner, st, contraction, &score);
  if (t->lane == UINT16_MAX || score < -4) return false;
  t->row = choose_row_axis(&inner, st, t->lane);
  t->block = choose_block_axis(&inner, st, t->lane, t->row);
  return true;
}

typedef struct choice {
  cmz_schedule *s;
  const cmz_cpu_row *cpu;
  uint16_t lanes;
} choice;

/* The largest divisor of COUNT up to LIMIT. */
static uint32_t divisor_up_to(int64_t count, uint32_t limit) {
  while (limit > 1 && count % limit != 0) limit--;
  return limit < 1 ? 1 : limit;
}

/* Whether CONTRACTION is of bytes that are something else than zero outside of their guard: that
 * takes a register too. */
static bool has_other_padding(cmz_kernel *k, cmz_expr contraction) {
  cmz_quad quad;
  if (find_quad(k, contraction, &quad) == UINT16_MAX || quad.count != 4) return false;
  int64_t value;
  for (int i = 0; i < 2; i++)
    if (quad.factors[i].condition &&
        !(cmz_x_is_int(k, quad.factors[i].otherwise, &value) && value == 0))
      return true;
  return false;
}

/* Whether rows read the same elements again at other places of the sum: a window that slides. */
static bool slides(const analysis *whole, cmz_expr contraction, uint16_t row) {
  analysis inner;
  contraction_loads(whole, contraction, &inner);
  for (uint32_t l = 0; l < inner.loads.count; l++) {
    int64_t along_row, along_sum, extent;
    if (!cmz_x_stride(whole->k, inner.loads.data[l].index, row, &along_row) || along_row == 0)
      continue;
    const cmz_expr_node *n = cmz_x_get(whole->k, contraction);
    for (uint32_t i = 0; i < n->axis_count; i++) {
      uint16_t axis = cmz_x_get(whole->k, contraction)->axes[i];
      if (!known_extent(whole->k, axis, &extent) || extent < 2) continue;
      if (!cmz_x_stride(whole->k, inner.loads.data[l].index, axis, &along_sum) || along_sum == 0)
        continue;
      int64_t apart = along_row / along_sum;
      if (along_row % along_sum == 0 && apart < extent && -apart < extent) return true;
    }
  }
  return false;
}

/* Whether all that the store computes is so little that it is one grid tile and code counts for
 * more than what could be shared; where terms are chosen, as in padding, unrolled code decides that
 * beforehand. */
static bool is_tiny(const analysis *a, const cmz_store *st, const shape *sh) {
  double work = sh->contraction_volume;
  if (contents_of(a, cmz_x_get(a->k, sh->contraction)->args[0]).selects) return false;
  for (uint32_t i = 0; i < st->axis_count; i++) {
    int64_t extent;
    if (!known_extent(a->k, st->axes[i], &extent)) return false;
    work *= (double)extent;
  }
  return work <= CMZ_TINY_MULTIPLIES;
}

/* Whether CONTRACTION is by four bytes along one axis without guards, which tiles of 16 rows can
 * compute. */
static bool fits_tiles(cmz_kernel *k, cmz_expr contraction) {
  cmz_quad quad;
  if (find_quad(k, contraction, &quad) == UINT16_MAX) return false;
  for (int i = 0; i < 2; i++)
    if (quad.factors[i].condition || quad.factors[i].flip) return false;
  return cmz_x_get(k, contraction)->axis_count == 2;
}

/* What CPU multiplies whole at once of CONTRACTION. */
typedef struct matrix_ways {
  bool pairs_of_rows; /* of two rows, whose columns come in two forms */
  bool tiles;         /* of 16 rows */
} matrix_ways;

static matrix_ways matrix_ways_of(const cmz_cpu_row *cpu, cmz_kernel *k, cmz_expr contraction) {
  cmz_quad quad;
  if (find_quad(k, contraction, &quad) == UINT16_MAX) return (matrix_ways){0};
  bool bytes = quad.count == 4;
  return (matrix_ways){
      .pairs_of_rows = bytes ? cpu->int8_dot == CMZ_DOT_SMMLA : cpu->bf16_dot == CMZ_PAIRS_BFMMLA,
      .tiles = (bytes ? cpu->int8_dot == CMZ_DOT_AMX : cpu->bf16_dot == CMZ_PAIRS_AMX) &&
               fits_tiles(k, contraction)};
}

static void schedule_contraction(analysis *a, const cmz_store *st, const shape *sh, const tiling *t,
                                 choice *c) {
  cmz_schedule *s = c->s;
  int64_t extent = extent_of(a->k, t->lane);
  uint16_t lanes = c->lanes;
  while (lanes > 1 && lanes > extent) lanes /= 2;
  s->axes[t->lane].lanes = lanes;
  uint32_t registers = c->cpu->vector_registers;
  /* Two vectors of the panel by many rows; without rows as many vectors as hide the latency of an
   * addition. */
  bool one = is_tiny(a, st, sh) && sh->contraction_volume <= FEW_PRODUCTS;
  uint32_t vectors = t->row == UINT16_MAX ? 8 : one ? 1 : 2;
  uint32_t across = (uint32_t)CMZ_MIN((int64_t)vectors, (extent + lanes - 1) / lanes);
  if (s->axes[t->lane].tile != 0)
    across = CMZ_MIN(across, CMZ_MAX(s->axes[t->lane].tile / lanes, 1u));
  s->axes[t->lane].unroll = (uint16_t)across;
  if (across < vectors && t->block != UINT16_MAX) {
    int64_t blocks =
        s->axes[t->block].tile != 0 ? s->axes[t->block].tile : extent_of(a->k, t->block);
    uint32_t u = divisor_up_to(blocks, vectors / across);
    s->axes[t->block].unroll = (uint16_t)u;
    across *= u;
  }
  /* Few long sums wait for each other: several partial sums each. Short ones overlap by themselves.
   */
  const cmz_expr_node *reduce = cmz_x_get(a->k, sh->contraction);
  if (reduce->axis_count > 0 && t->row == UINT16_MAX && across < 8 &&
      sh->contraction_volume > SHORT_SUM)
    s->axes[reduce->axes[reduce->axis_count - 1]].unroll = (uint16_t)(8 / across);
  if (t->row == UINT16_MAX) return;
  int64_t rows;
  bool known = known_extent(a->k, t->row, &rows);
  if (s->axes[t->row].tile != 0 && (!known || s->axes[t->row].tile < rows)) {
    rows = s->axes[t->row].tile;
    known = true;
  }
  matrix_ways ways = matrix_ways_of(c->cpu, a->k, sh->contraction);
  uint32_t beside = ways.pairs_of_rows ? 2 * across + 4 : across + 2;
  if (has_other_padding(a->k, sh->contraction)) beside += 2;
  uint32_t limit = (registers - beside) / across; /* accumulators beside the operands' registers */
  uint32_t most = slides(a, sh->contraction, t->row) ? MOST_SLIDING_ROWS : MOST_ROWS;
  if (one) most = CMZ_MIN(most, MOST_TINY_ROWS);
  uint16_t unroll = choose_unroll(rows, CMZ_MIN(limit, most), known);
  if (!one && ways.tiles && lanes == 16 && rows >= 16) unroll = rows >= 32 ? 32 : 16;
  s->axes[t->row].unroll = ways.pairs_of_rows && unroll > 2 ? unroll / 2 * 2 : unroll;
}

/* Whether AXIS chooses a part of something loaded in E: by a shift or a comparison, not through the
 * index of a load and not through bounds. */
static bool chooses_part(const analysis *a, cmz_expr e, uint16_t axis, uint8_t *seen) {
  if (e == 0 || seen[e]) return false;
  seen[e] = 1;
  const cmz_expr_node *n = cmz_x_get(a->k, e);
  if (n->op == CMZ_X_LOAD) return false;
  /* the shift, or the side that is compared with, itself: an axis below the load does not choose */
  for (int i = 0; i < 2 && (n->op == CMZ_X_SHR || n->op == CMZ_X_EQ); i++)
    if (cmz_x_uses_axis(a->k, n->args[i], axis) && !contents_of(a, n->args[i]).loads &&
        contents_of(a, n->args[1 - i]).loads)
      return true;
  for (int i = 0; i < 3; i++)
    if (chooses_part(a, n->args[i], axis, seen)) return true;
  return false;
}

/* Short reduce axes that choose a part of a loaded value (a code of a byte, a place in a block of
 * four) are unrolled whole: what they choose by is then constant. Returns the innermost of them, or
 * LAST. */
static uint16_t unroll_choosers(analysis *a, cmz_expr contraction, cmz_schedule *s, uint16_t last) {
  const cmz_expr_node *n = cmz_x_get(a->k, contraction);
  for (uint32_t i = 0; i < n->axis_count; i++) {
    int64_t extent;
    uint8_t *seen = CMZ_NEW_ARRAY(a->arena, uint8_t, a->k->exprs.count + 1);
    if (!known_extent(a->k, n->axes[i], &extent) || extent > LONGEST_CHOOSER) continue;
    if (!chooses_part(a, find_product(a->k, n->args[0]), n->axes[i], seen)) continue;
    s->axes[n->axes[i]].unroll = (uint16_t)extent;
    last = n->axes[i];
  }
  return last;
}

/* A contraction without a contiguous vector axis: rows times rows. Vectors run along the sum;
 * several outputs share loads. */
static void schedule_dots(analysis *a, const cmz_store *st, const shape *sh, choice *c) {
  uint32_t left = c->cpu->vector_registers >= 32 ? 16 : 8, limit = 4;
  for (uint32_t i = st->axis_count; i-- > 0 && left > 1;) {
    uint16_t axis = st->axes[i];
    int64_t extent;
    if (a->k->axes.data[axis].kind != CMZ_AXIS_PARALLEL ||
        !cmz_x_uses_axis(a->k, sh->contraction, axis))
      continue;
    bool known = known_extent(a->k, axis, &extent);
    if (c->s->axes[axis].tile != 0) extent = c->s->axes[axis].tile;
    else if (!known) continue;
    uint32_t u = divisor_up_to(extent, CMZ_MIN(limit, left));
    c->s->axes[axis].unroll = (uint16_t)u;
    left /= u;
  }
}

static void schedule_pointwise(analysis *a, const cmz_store *st, const shape *sh, choice *c) {
  double score;
  uint16_t lane = choose_lane_axis(a, st, 0, &score);
  /* Gathering costs more than reducing along what is contiguous. */
  if (lane != UINT16_MAX && score >= (sh->reduce_volume > 0 ? 0 : -4)) {
    int64_t extent = extent_of(a->k, lane);
    uint16_t lanes = c->lanes;
    while (lanes > 1 && lanes > extent) lanes /= 2;
    c->s->axes[lane].lanes = lanes;
    if (sh->reduce_volume == 0 && extent >= 4 * lanes && a->loads.count <= 4)
      c->s->axes[lane].unroll = 2;
  }
}

/* ---- grid tiles: from the description alone ---- */

static bool in_every_store(const cmz_kernel *k, uint16_t axis) {
  for (uint32_t s = 0; s < k->stores.count; s++) {
    const cmz_store *st = &k->stores.data[s];
    bool found = false;
    for (uint32_t i = 0; i < st->axis_count && !found; i++) found = st->axes[i] == axis;
    if (!found) return false;
  }
  return true;
}

/* One axis of a tile that may hold BUDGET iterations and holds INSIDE: whole, or a part that is a
 * multiple of MULTIPLE. */
static void tile_axis(const cmz_kernel *k, cmz_schedule *s, uint16_t axis, int64_t multiple,
                      double budget, double *inside) {
  int64_t extent;
  bool known = known_extent(k, axis, &extent);
  if (!known) extent = ASSUMED_EXTENT;
  if (k->axes.data[axis].kind != CMZ_AXIS_PARALLEL || !in_every_store(k, axis)) {
    *inside *= (double)extent;
    return;
  }
  if (known && *inside * (double)extent <= budget * 1.5) {
    *inside *= (double)extent;
    return;
  }
  double fits = budget / *inside;
  int64_t part = fits > 1 << 20 ? 1 << 20 : (int64_t)fits;
  part = part / multiple * multiple;
  if (part < multiple) part = multiple;
  if (known && part >= extent) {
    *inside *= (double)extent;
    return;
  }
  s->axes[axis].tile = (uint32_t)part;
  *inside *= (double)part;
}

/* A contraction's tile: a panel or two of the vector operand, many rows, then whatever else fits.
 */
static void tile_contraction(cmz_kernel *k, const cmz_store *st, const shape *sh, const tiling *t,
                             cmz_schedule *s) {
  bool tiles = fits_tiles(k, sh->contraction);
  double budget =
      (tiles ? TILE_MULTIPLIES_BYTES : TILE_MULTIPLIES) / CMZ_MAX(sh->contraction_volume, 1.0);
  if (budget < TILE_LEAST_OUTPUTS) budget = TILE_LEAST_OUTPUTS;
  double inside = 1;
  int64_t lanes_extent = extent_of(k, t->lane), blocks;
  tile_axis(k, s, t->lane, TILE_WIDEST_STEP, TILE_WIDEST_STEP, &inside);
  if (t->block != UINT16_MAX) {
    uint32_t want = t->row == UINT16_MAX ? 8 : lanes_extent >= 2 * PANEL_WIDTH ? 1 : 2;
    if (known_extent(k, t->block, &blocks) && in_every_store(k, t->block)) {
      uint32_t part = divisor_up_to(blocks, want);
      if (part < blocks) s->axes[t->block].tile = part;
      inside *= part;
    }
  }
  if (t->row != UINT16_MAX) {
    /* Every level's register tile divides the part; short rows stay whole. */
    int64_t rows = extent_of(k, t->row);
    double room = budget / inside;
    int64_t multiple = room >= 84 ? 84 : room >= 42 ? 42 : 12;
    if (tiles) multiple = room >= 96 ? 96 : 32;
    if (rows <= 2 * multiple) multiple = rows;
    tile_axis(k, s, t->row, multiple, budget, &inside);
  }
  for (uint32_t i = st->axis_count; i-- > 0;) {
    uint16_t axis = st->axes[i];
    if (axis != t->lane && axis != t->block && axis != t->row)
      tile_axis(k, s, axis, 1, budget, &inside);
  }
}

/* How many of the store's trailing axes no reduction depends on: its results are shared along them.
 */
static uint32_t shared_axes(analysis *a, const cmz_store *st) {
  uint32_t shared = st->axis_count;
  for (uint32_t r = 0; r < a->reduces.count; r++)
    for (uint32_t i = st->axis_count; i-- > 0;)
      if (cmz_x_uses_axis(a->k, a->reduces.data[r], st->axes[i])) {
        shared = CMZ_MIN(shared, st->axis_count - 1 - i);
        break;
      }
  return a->reduces.count == 0 ? 0 : shared;
}

/* Axes of a store by what its reductions make of them. Along a shared axis every result is used
 * again: it must be looped over inside of those that the reductions use, or they would be done
 * again for each of its iterations (a softmax whose result is transposed). */
typedef enum axis_role {
  AXIS_USED,         /* by a reduction, or there is none */
  AXIS_SHARED,       /* by none, and none that is used stands after it */
  AXIS_SHARED_BEFORE /* by none, and one that is used stands after it */
} axis_role;

static void find_roles(analysis *a, const cmz_store *st, axis_role *roles) {
  bool used_after = false;
  for (uint32_t i = st->axis_count; i-- > 0 && a->reduces.count > 0;) {
    bool used = a->k->axes.data[st->axes[i]].kind != CMZ_AXIS_PARALLEL;
    for (uint32_t r = 0; r < a->reduces.count && !used; r++)
      used = cmz_x_uses_axis(a->k, a->reduces.data[r], st->axes[i]);
    if (!used) roles[st->axes[i]] = used_after ? AXIS_SHARED_BEFORE : AXIS_SHARED;
    used_after |= used;
  }
}

/* Tiles from the inside out: whole axes while they fit, then a part of one, then single iterations.
 */
static void choose_tiles(analysis *a, const cmz_store *st, const shape *sh, const axis_role *roles,
                         cmz_schedule *s) {
  double budget = TILE_ELEMENTS, inside = 1;
  uint32_t shared = shared_axes(a, st), i = st->axis_count;
  for (; shared > 0; shared--)
    inside *= (double)extent_of(a->k, st->axes[--i]); /* computed once along these: whole */
  for (uint32_t j = 0; j < i; j++)
    if (roles[st->axes[j]] == AXIS_SHARED_BEFORE) inside *= (double)extent_of(a->k, st->axes[j]);
  if (sh->reduce_volume > 0)
    budget = CMZ_MAX(TILE_REDUCED * inside / (sh->reduce_volume + inside), inside);
  if (budget < 1) budget = 1;
  while (i-- > 0)
    if (roles[st->axes[i]] != AXIS_SHARED_BEFORE)
      tile_axis(a->k, s, st->axes[i], i + 1 == st->axis_count ? TILE_WIDEST_STEP : 1, budget,
                &inside);
}

/* A tile is a multiple of its axis's step: the step gives way, because the grid is shared. */
static void fit_steps(const cmz_kernel *k, cmz_schedule *s) {
  for (uint32_t i = 0; i < s->axis_count; i++) {
    cmz_axis_schedule *x = &s->axes[i];
    if (x->tile == 0) continue;
    while (x->lanes > 1 && x->tile % x->lanes != 0) x->lanes /= 2;
    while (x->unroll > 1 && x->tile % (uint32_t)(x->unroll * x->lanes) != 0) x->unroll--;
  }
  (void)k;
}

/* The axis of a contraction's sum along which its operands lie closest together: the innermost
 * loop. Where channels are summed up in chains over all taps, it is that of a chain's channels: all
 * of them at each tap, so that the tests for padding stand outside. */
static uint16_t inner_reduce_axis(analysis *a, cmz_expr contraction) {
  analysis inner;
  contraction_loads(a, contraction, &inner);
  uint16_t quad = quad_axis(a->k, contraction); /* one step: inside of all */
  const cmz_expr_node *n = cmz_x_get(a->k, contraction);
  uint16_t best = UINT16_MAX;
  double best_cost = 1e30;
  const cmz_axis *first = &a->k->axes.data[n->axes[0]];
  if (n->axis_count > 1 && first->chain > 1 && !first->outer) return n->axes[0];
  for (uint32_t i = n->axis_count; i-- > 0;) {
    uint16_t axis = cmz_x_get(a->k, contraction)->axes[i];
    if (axis == quad) continue;
    double cost = 0;
    for (uint32_t l = 0; l < inner.loads.count; l++) {
      int64_t stride;
      if (!cmz_x_uses_axis(a->k, inner.loads.data[l].index, axis)) continue;
      bool affine = cmz_x_stride(a->k, inner.loads.data[l].index, axis, &stride);
      cost += affine ? (double)(stride < 0 ? -stride : stride) : 1e9;
    }
    if (extent_of(a->k, axis) < 2) cost += 1e6;
    if (cost >= best_cost) continue;
    best_cost = cost;
    best = axis;
  }
  return best;
}

/* Whether AXIS goes inside of the axes that reductions use, the vector axis among them. */
static bool goes_inside(const cmz_kernel *k, const cmz_schedule *s, const axis_role *roles,
                        uint32_t axis) {
  if (s->axes[axis].lanes > 1 || roles[axis] != AXIS_SHARED)
    return s->axes[axis].lanes == 1 && roles[axis] == AXIS_SHARED_BEFORE;
  for (uint32_t i = 0; i < k->axes.count; i++)
    if (k->axes.data[i].kind != CMZ_AXIS_REDUCE && s->axes[i].lanes > 1 && roles[i] == AXIS_USED)
      return true;
  return false;
}

/* LAST: the reduce axis that goes innermost, but for QUAD; or UINT16_MAX. */
static void choose_order(cmz_kernel *k, cmz_schedule *s, const axis_role *roles, uint16_t last,
                         uint16_t quad) {
  uint8_t next = 0;
  for (uint32_t i = 0; i < k->axes.count; i++) s->axes[i].order = UINT8_MAX;
  for (uint32_t t = 0; t < k->stores.count; t++) {
    const cmz_store *st = &k->stores.data[t];
    for (uint32_t i = 0; i < st->axis_count; i++)
      if (s->axes[st->axes[i]].lanes == 1 && s->axes[st->axes[i]].order == UINT8_MAX &&
          !goes_inside(k, s, roles, st->axes[i]))
        s->axes[st->axes[i]].order = next++;
  }
  for (uint32_t pass = 0; pass < 2; pass++) /* the vector axis innermost of the usual ones */
    for (uint32_t i = 0; i < k->axes.count; i++)
      if (k->axes.data[i].kind != CMZ_AXIS_REDUCE && s->axes[i].order == UINT8_MAX &&
          (pass || !goes_inside(k, s, roles, i)))
        s->axes[i].order = next++;
  for (uint32_t i = 0; i < k->axes.count; i++)
    if (s->axes[i].order == UINT8_MAX && i != last && i != quad) s->axes[i].order = next++;
  if (last < k->axes.count) s->axes[last].order = next++;
  if (quad < k->axes.count) s->axes[quad].order = next;
}

/* Stores that must see each other's results in order. */
static bool has_serial_axis(const cmz_kernel *k) {
  for (uint32_t i = 0; i < k->axes.count; i++)
    if (k->axes.data[i].kind == CMZ_AXIS_SERIAL) return true;
  return false;
}

static bool has_lanes(const cmz_store *st, const cmz_schedule *s) {
  for (uint32_t i = 0; i < st->axis_count; i++)
    if (s->axes[st->axes[i]].lanes > 1) return true;
  return false;
}

cmz_status cmz_schedule_choose(cmz_context *ctx, cmz_arena *arena, cmz_kernel *k,
                               const cmz_cpu_row *cpu, int optimise, cmz_schedule *out) {
  if (k->stores.count == 0)
    return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "kernel %s stores nothing", k->name);
  *out = (cmz_schedule){.axis_count = k->axes.count};
  out->axes = CMZ_NEW_ARRAY(arena, cmz_axis_schedule, k->axes.count + 1);
  for (uint32_t i = 0; i < k->axes.count; i++) out->axes[i] = (cmz_axis_schedule){0, 1, 1, 0, 0};
  out->reduce_lanes = 1;
  out->reduce_unroll = 1;
  axis_role *roles = CMZ_NEW_ARRAY(arena, axis_role, k->axes.count + 1);
  uint16_t last = UINT16_MAX, quad = UINT16_MAX, row = UINT16_MAX, block = UINT16_MAX;
  for (uint32_t t = 0; t < k->stores.count; t++) {
    const cmz_store *st = &k->stores.data[t];
    /* Strides may add expressions while they are found: leave room. */
    analysis a = {.k = k, .arena = arena, .unit = 1};
    a.seen = CMZ_NEW_ARRAY(arena, uint8_t, k->exprs.count + 1);
    collect(&a, st->value);
    shape sh = classify(&a);
    tiling tiles = {0};
    bool contracts = sh.contraction != 0 && find_tiling(&a, st, sh.contraction, &tiles);
    bool tiny = contracts && is_tiny(&a, st, &sh);
    choice c = {out, cpu, lanes_for(cpu, a.wide, is_half(&a, st))};
    bool serial = has_serial_axis(k);
    if (serial) contracts = false;
    if (serial && k->stores.count > 1) { /* what one store wrote the next one reads: one tile */
    } else if (t == 0 && contracts && !tiny) tile_contraction(k, st, &sh, &tiles, out);
    else if (t == 0 && !contracts) {
      find_roles(&a, st, roles);
      choose_tiles(&a, st, &sh, roles, out);
    }
    if (optimise == 0 || st->mode != CMZ_STORE_SET) continue;
    bool shared = t > 0; /* axes of later stores may have their lanes already */
    for (uint32_t i = 0; i < st->axis_count && shared; i++)
      shared = out->axes[st->axes[i]].lanes == 1;
    if (t > 0 && !shared) continue;
    if (contracts) {
      schedule_contraction(&a, st, &sh, &tiles, &c);
      row = tiles.row;
      block = tiles.block;
      last = inner_reduce_axis(&a, sh.contraction);
      quad = quad_axis(k, sh.contraction);
      /* The loop's own work counts for less. */
      if (last != UINT16_MAX && tiles.row != UINT16_MAX && !tiny)
        out->axes[last].unroll = (uint16_t)CMZ_MIN(4, extent_of(k, last));
      last = unroll_choosers(&a, sh.contraction, out, last);
    } else schedule_pointwise(&a, st, &sh, &c);
    if (sh.contraction != 0 && !contracts && !has_lanes(st, out)) schedule_dots(&a, st, &sh, &c);
    if (sh.reduce_volume > 0) {
      out->reduce_lanes = c.lanes;
      out->reduce_unroll = sh.contraction != 0 ? 2 : 4;
    }
  }
  fit_steps(k, out);
  choose_order(k, out, roles, last, quad);
  /* Panels outside, rows inside: each panel of the weights is read from far memory once. */
  if (row != UINT16_MAX && block != UINT16_MAX && out->axes[block].order > out->axes[row].order) {
    uint8_t order = out->axes[block].order;
    out->axes[block].order = out->axes[row].order;
    out->axes[row].order = order;
  }
  return CMZ_OK;
}
