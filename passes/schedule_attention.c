/* schedule_attention.c - how attention in one kernel is spread over a GPU's work-groups.
 * In: a kernel that kernel_attention.c knows, a GPU's level. Out: a schedule in which a work-group
 * takes a tile of queries (axes that only the queries' factor uses) with all columns of the values,
 * and walks over the keys in steps; on a GPU without memory of work-groups a thread does so. Always
 * holds: rows are powers of two in all; what is staged fits the group's memory. */
#include "../ir/kernel.h"
#include "passes.h"

enum {
  MOST_ACROSS = 16, /* threads side by side along keys and columns */
  LEAST_ACROSS = 8,
  MOST_ALONE = 256, /* columns times keys of a thread */
  MOST_COLUMNS = 256,
  MOST_DEPTH = 256,
  LEAST_ROWS = 4,  /* below, keys are read for too little: a vector times matrices */
  MOST_UNROLL = 4, /* rows a thread */
  MOST_ROW_AXES = 5,
  UNKNOWN_EXTENT = 64,
  ENOUGH_GROUPS = 64
};

typedef struct roles {
  cmz_attention is;
  uint32_t row_count;
  uint16_t rows[MOST_ROW_AXES]; /* innermost first */
  uint16_t column;
  int64_t columns, depth;
  int64_t row_product, batches;
} roles;

static int64_t extent_of(const cmz_kernel *k, uint16_t axis) {
  int64_t extent;
  return cmz_x_is_int(k, k->axes.data[axis].extent, &extent)
             ? CMZ_MIN(CMZ_MAX(extent, 1), INT32_MAX)
             : UNKNOWN_EXTENT;
}

static int64_t limited_product(int64_t a, int64_t b) { return CMZ_MIN(a * b, INT32_MAX); }

static bool find_roles(const cmz_kernel *k, roles *r) {
  uint32_t columns = 0;
  *r = (roles){.row_product = 1, .batches = 1};
  if (!cmz_kernel_attention(k, &r->is)) return false;
  const cmz_store *store = &k->stores.data[0];
  for (uint32_t i = store->axis_count; i-- > 0;) {
    uint16_t axis = store->axes[i];
    if (k->axes.data[axis].kind != CMZ_AXIS_PARALLEL) return false;
    bool score = cmz_x_uses_axis(k, r->is.score, axis), key = cmz_x_uses_axis(k, r->is.key, axis),
         value = cmz_x_uses_axis(k, r->is.value, axis);
    if (value && !score) {
      r->column = axis;
      columns++;
    } else if (cmz_x_uses_axis(k, r->is.query, axis) && !key && !value) {
      if (r->row_count == MOST_ROW_AXES) return false;
      r->rows[r->row_count++] = axis;
      r->row_product = limited_product(r->row_product, extent_of(k, axis));
    } else {
      r->batches = limited_product(r->batches, extent_of(k, axis));
    }
  }
  uint16_t depth = cmz_x_get(k, r->is.product)->axes[0];
  return columns == 1 && r->row_count > 0 && r->row_product >= LEAST_ROWS &&
         cmz_x_is_int(k, k->axes.data[r->column].extent, &r->columns) &&
         cmz_x_is_int(k, k->axes.data[depth].extent, &r->depth) && r->columns <= MOST_COLUMNS &&
         r->depth <= MOST_DEPTH && r->columns > 0 && r->depth > 0;
}

/* How threads share a tile. */
typedef struct sharing {
  uint32_t across, high; /* threads along keys and columns, along rows */
  uint32_t unroll;       /* rows a thread */
  uint32_t step;         /* keys */
} sharing;

static uint32_t whole_columns(const roles *r, uint32_t across) {
  return ((uint32_t)r->columns + across - 1) / across * across;
}

/* What emit_attention.c stages: queries, keys, values, powers, and what rows exchange. */
static bool fits(const roles *r, const sharing *s, const cmz_cpu_row *gpu) {
  uint32_t depth = (uint32_t)r->depth + 1, columns = whole_columns(r, s->across) + 1,
           rows = s->high * s->unroll;
  return 4 * (rows * (depth + s->step + 1 + s->across + 1) + s->step * (depth + columns)) <=
         gpu->shared_bytes;
}

/* The largest tile that fits and leaves every part of the GPU something to do. */
static bool choose_sharing(const roles *r, const cmz_cpu_row *gpu, sharing *s) {
  for (uint32_t across = MOST_ACROSS; across >= LEAST_ACROSS; across /= 2) {
    *s = (sharing){across, gpu->threads / across, MOST_UNROLL, across};
    while (s->unroll > 1 && (s->high * s->unroll / 2 >= r->row_product || !fits(r, s, gpu) ||
                             r->row_product / (s->high * s->unroll) * r->batches < ENOUGH_GROUPS))
      s->unroll /= 2;
    s->step = 2 * across;
    if (!fits(r, s, gpu)) s->step = across;
    if (fits(r, s, gpu) && r->columns / across <= MOST_COLUMNS / MOST_ACROSS) return true;
  }
  return false;
}

/* Gives ROWS to the axes, innermost first, and THREADS to what they get. */
static void tile_rows(const cmz_kernel *k, const roles *r, uint32_t rows, uint32_t threads,
                      cmz_schedule *s) {
  for (uint32_t i = 0; i < r->row_count; i++) {
    cmz_axis_schedule *a = &s->axes[r->rows[i]];
    uint32_t tile = 1;
    while (tile < rows && (i + 1 == r->row_count || tile < extent_of(k, r->rows[i]))) tile *= 2;
    a->tile = tile;
    a->threads = (uint16_t)CMZ_MIN(tile, threads);
    a->unroll = (uint16_t)(tile / a->threads);
    rows /= tile;
    threads /= a->threads;
  }
}

/* The 16-bit type that holds X exactly; 0: none. */
static cmz_dtype exact_type(const cmz_kernel *k, cmz_expr x) {
  const cmz_expr_node *n = cmz_x_get(k, x);
  cmz_dtype type = n->op == CMZ_X_LOAD   ? k->operands.data[n->i].dtype
                   : n->op == CMZ_X_CAST ? (cmz_dtype)n->i
                                         : 0;
  return type == CMZ_F16 || type == CMZ_BF16 ? type : 0;
}

/* Keys a step of fragments: as many as fit twice beside the queries; 0: too few. */
static uint32_t fragment_step(const roles *r, const cmz_cpu_row *gpu) {
  uint32_t depth = ((uint32_t)r->depth + 15) / 16 * 32 + 16,
           columns = ((uint32_t)r->columns + 15) / 16 * 32 + 16, rows = gpu->threads / 32u * 16;
  uint32_t step = 32;
  while (step >= 16 && rows * depth + 2 * step * (depth + columns) > gpu->shared_bytes) step /= 2;
  return step < 16 ? 0 : step;
}

/* Fragments of matrix instructions, 16 rows a warp, where nothing is lost by them. */
static bool choose_fragments(const cmz_kernel *k, const roles *r, const cmz_cpu_row *gpu,
                             cmz_schedule *s) {
  cmz_dtype type = gpu->matrix ? exact_type(k, r->is.query) : 0;
  uint32_t step = fragment_step(r, gpu), rows = gpu->threads / 32u * 16;
  if (!type || type != exact_type(k, r->is.key) || type != exact_type(k, r->is.value) || !step ||
      r->row_product < 16 || r->depth < 8)
    return false;
  tile_rows(k, r, rows, rows, s);
  cmz_axis_schedule *column = &s->axes[r->column];
  column->tile = ((uint32_t)r->columns + 15) / 16 * 16;
  column->threads = 4;
  column->unroll = (uint16_t)(column->tile / 4);
  s->group = gpu->threads;
  s->step = (uint16_t)step;
  s->fragments = (uint16_t)type;
  return true;
}

bool cmz_schedule_attention(const cmz_kernel *k, const cmz_cpu_row *gpu, cmz_schedule *s) {
  roles r;
  sharing how = {1, 1, 1, 4};
  if (!find_roles(k, &r)) return false;
  if (gpu->shared_bytes) {
    if (gpu->threads % 32 != 0 || (gpu->threads & (gpu->threads - 1)) ||
        !choose_sharing(&r, gpu, &how))
      return false;
  } else { /* nothing can be shared: a row is one thread's */
    if (r.columns > MOST_ALONE) return false;
    while (how.step > 1 && how.step * r.columns > MOST_ALONE) how.step /= 2;
  }
  const cmz_store *store = &k->stores.data[0];
  for (uint32_t i = 0; i < store->axis_count; i++)
    s->axes[store->axes[i]] = (cmz_axis_schedule){
        .tile = 1, .unroll = 1, .lanes = 1, .order = s->axes[store->axes[i]].order};
  if (choose_fragments(k, &r, gpu, s)) return true;
  if (gpu->shared_bytes) tile_rows(k, &r, how.high * how.unroll, how.high, s);
  cmz_axis_schedule *column = &s->axes[r.column];
  column->tile = whole_columns(&r, how.across);
  column->threads = (uint16_t)how.across;
  column->unroll = (uint16_t)(column->tile / how.across);
  s->group = gpu->shared_bytes ? gpu->threads : 0;
  s->step = (uint16_t)how.step;
  return true;
}
