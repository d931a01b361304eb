/* runtime_ops.c - operators that the runtime computes in C: sorting, and sizes that follow from
 * data. In: nodes of these operators. Out: types and reference values; the runtime's ops_*.c have
 * the same names. Always holds: a size that follows from data is one CMZ_SYMBOL_DATA symbol of the
 * first wanted output, shared by the others. */
#include "ops.h"

/* The node's one data-dependent size: dimension AXIS of output OUTPUT (the first wanted one). */
static cmz_dim reported_size(cmz_module *m, cmz_nid n, uint32_t output, uint32_t axis,
                             cmz_dim most) {
  int64_t low, high;
  cmz_dim_range(m->dims, most, &low, &high);
  return cmz_output_symbol(m, cmz_ops_output(m, n, output), axis, 0, high);
}

static uint32_t first_output(const cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  for (uint32_t i = 0; i < node->output_count; i++)
    if (node->outputs[i]) return i;
  return 0;
}

/* ---- TopK ---- */

static cmz_status normalize_top_k(cmz_module *m, cmz_nid n) {
  const cmz_attr *k = cmz_node_attr(cmz_node_get(m, n), "k");
  if (!k || cmz_node_input(cmz_node_get(m, n), 1)) return CMZ_OK;
  int64_t value = k->i;
  cmz_node_set_input(m, n, 1, cmz_build_i64s(m, n, &value, 1));
  cmz_node_remove_attr(m, n, "k");
  return CMZ_OK;
}

static cmz_status infer_top_k(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t axis, count = 0;
  cmz_vid wanted_count = cmz_node_input(node, 1); /* opset 1 has an attribute instead, or nothing */
  const cmz_dim *k = wanted_count ? cmz_value_demand_elements(m, wanted_count, &count) : NULL;
  if (!k || count != 1) return cmz_node_fail(m, n, CMZ_E_INPUT, "K is not one number");
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(cmz_node_get(m, n), "axis", -1), x.rank, &axis));
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < x.rank; i++) shape[i] = i == axis ? k[0] : x.shape[i];
  int64_t wanted, size;
  if (cmz_dim_is_const(m->dims, k[0], &wanted) && cmz_dim_is_const(m->dims, x.shape[axis], &size) &&
      wanted > size)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "K is %" PRId64 ", the axis has %" PRId64, wanted,
                         size);
  cmz_set_output(m, n, 0, x.dtype, x.rank, shape);
  cmz_set_output(m, n, 1, CMZ_I64, x.rank, shape);
  return CMZ_OK;
}

typedef struct ranked {
  double value;
  int64_t index;
} ranked;

/* Greater values first; NaN counts as greatest; equal ones by position. */
static bool before(ranked a, ranked b, bool largest) {
  if (isnan(a.value) || isnan(b.value)) {
    if (isnan(a.value) && isnan(b.value)) return a.index < b.index;
    return isnan(a.value) == largest;
  }
  if (a.value != b.value) return largest ? a.value > b.value : a.value < b.value;
  return a.index < b.index;
}

static void sort_ranked(ranked *items, ranked *scratch, int64_t count, bool largest) {
  if (count < 2) return;
  int64_t half = count / 2, a = 0, b = half;
  sort_ranked(items, scratch, half, largest);
  sort_ranked(items + half, scratch, count - half, largest);
  for (int64_t i = 0; i < count; i++) {
    bool left = b == count || (a < half && before(items[a], items[b], largest));
    scratch[i] = left ? items[a++] : items[b++];
  }
  memcpy(items, scratch, (size_t)count * sizeof *items);
}

static cmz_status eval_top_k(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                             cmz_array *outputs) {
  const cmz_array *x = &inputs[0];
  uint32_t axis;
  CMZ_TRY(cmz_eval_axis(e, cmz_node_int(n, "axis", -1), x->rank, &axis));
  int64_t k = cmz_get_int(&inputs[1], 0), size = x->shape[axis], inner = 1, outer = 1,
          shape[CMZ_MAX_RANK];
  bool largest = cmz_node_int(n, "largest", 1) != 0;
  if (k < 0 || k > size)
    return cmz_eval_fail(e, "K is %" PRId64 ", the axis has %" PRId64, k, size);
  for (uint32_t i = 0; i < x->rank; i++) {
    shape[i] = i == axis ? k : x->shape[i];
    if (i != axis) *(i < axis ? &outer : &inner) *= x->shape[i];
  }
  cmz_array spare[2] = {{.dtype = x->dtype}, {.dtype = CMZ_I64}}, *out[2];
  for (uint32_t i = 0; i < 2; i++) {
    out[i] = i < n->output_count && n->outputs[i] ? &outputs[i] : &spare[i];
    CMZ_TRY(cmz_eval_shape(e, out[i], x->rank, shape));
  }
  ranked *items = CMZ_NEW_ARRAY(e->arena, ranked, (size_t)size),
         *scratch = CMZ_NEW_ARRAY(e->arena, ranked, (size_t)size);
  for (int64_t o = 0; o < outer * inner; o++) {
    int64_t from = o / inner * size * inner + o % inner, to = o / inner * k * inner + o % inner;
    for (int64_t i = 0; i < size; i++) items[i] = (ranked){cmz_get(x, from + i * inner), i};
    sort_ranked(items, scratch, size, largest);
    for (int64_t i = 0; i < k; i++) {
      cmz_copy_element(out[0], to + i * inner, x, from + items[i].index * inner);
      cmz_set_int(out[1], to + i * inner, items[i].index);
    }
  }
  return CMZ_OK;
}

/* ---- NonZero ---- */

static cmz_status infer_non_zero(cmz_module *m, cmz_nid n) {
  const cmz_type x = *cmz_input_type(m, cmz_node_get(m, n), 0);
  if (!cmz_ops_output(m, n, 0)) return CMZ_OK;
  cmz_dim most = cmz_dim_product(m->dims, x.shape, x.rank);
  cmz_dim shape[2] = {cmz_dim_const(m->dims, x.rank), reported_size(m, n, 0, 1, most)};
  cmz_set_output(m, n, 0, CMZ_I64, 2, shape);
  return CMZ_OK;
}

static cmz_status eval_non_zero(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                cmz_array *outputs) {
  (void)n;
  const cmz_array *x = &inputs[0];
  int64_t count = 0, at = 0;
  for (size_t i = 0; i < cmz_array_count(x); i++) count += cmz_get(x, (int64_t)i) != 0;
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 2, (int64_t[]){x->rank, count}));
  for (size_t i = 0; i < cmz_array_count(x); i++) {
    int64_t c[CMZ_MAX_RANK];
    if (cmz_get(x, (int64_t)i) == 0) continue;
    cmz_array_coordinates(x, i, c);
    for (uint32_t j = 0; j < x->rank; j++) cmz_set_int(&outputs[0], j * count + at, c[j]);
    at++;
  }
  return CMZ_OK;
}

/* ---- Compress ---- */

static cmz_status infer_compress(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0);
  const cmz_attr *attr = cmz_node_attr(node, "axis");
  if (!cmz_node_output(node, 0)) return CMZ_OK;
  cmz_dim shape[CMZ_MAX_RANK];
  uint32_t axis = 0, rank = 1;
  if (attr) {
    CMZ_TRY(cmz_infer_axis(m, n, attr->i, x.rank, &axis));
    rank = x.rank;
    for (uint32_t i = 0; i < rank; i++) shape[i] = x.shape[i];
  }
  shape[axis] = reported_size(m, n, 0, axis,
                              attr ? x.shape[axis] : cmz_dim_product(m->dims, x.shape, x.rank));
  cmz_set_output(m, n, 0, x.dtype, rank, shape);
  return CMZ_OK;
}

static cmz_status eval_compress(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *keep = &inputs[1];
  const cmz_attr *attr = cmz_node_attr(n, "axis");
  cmz_array flat = *x;
  uint32_t axis = 0;
  if (attr) CMZ_TRY(cmz_eval_axis(e, attr->i, x->rank, &axis));
  else {
    flat.rank = 1;
    flat.shape[0] = (int64_t)cmz_array_count(x);
  }
  int64_t size = flat.shape[axis], given = (int64_t)cmz_array_count(keep), kept = 0, inner = 1,
          outer = 1, shape[CMZ_MAX_RANK];
  for (int64_t i = 0; i < CMZ_MIN(size, given); i++) kept += cmz_get_int(keep, i) != 0;
  for (uint32_t i = 0; i < flat.rank; i++) {
    shape[i] = i == axis ? kept : flat.shape[i];
    if (i != axis) *(i < axis ? &outer : &inner) *= flat.shape[i];
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], flat.rank, shape));
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0, at = 0; i < CMZ_MIN(size, given); i++) {
      if (!cmz_get_int(keep, i)) continue;
      for (int64_t j = 0; j < inner; j++)
        cmz_copy_element(&outputs[0], (o * kept + at) * inner + j, &flat,
                         (o * size + i) * inner + j);
      at++;
    }
  return CMZ_OK;
}

/* ---- Unique ---- */

static cmz_status infer_unique(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0);
  const cmz_attr *attr = cmz_node_attr(node, "axis");
  cmz_dim shape[CMZ_MAX_RANK], all = cmz_dim_product(m->dims, x.shape, x.rank);
  uint32_t axis = 0, rank = 1, first = first_output(m, n);
  if (attr) {
    CMZ_TRY(cmz_infer_axis(m, n, attr->i, x.rank, &axis));
    rank = x.rank;
    for (uint32_t i = 0; i < rank; i++) shape[i] = x.shape[i];
    all = x.shape[axis];
  }
  if (!cmz_ops_output(m, n, first)) return CMZ_OK;
  if (first == 2)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "only the inverse indices are wanted");
  shape[axis] = reported_size(m, n, first, first ? 0 : axis, all);
  cmz_dim count = shape[axis];
  cmz_set_output(m, n, 0, x.dtype, rank, shape);
  cmz_set_output(m, n, 1, CMZ_I64, 1, &count);
  cmz_set_output(m, n, 2, CMZ_I64, 1, &all);
  cmz_set_output(m, n, 3, CMZ_I64, 1, &count);
  return CMZ_OK;
}

/* X cut into SIZE slices along an axis: slice S is OUTER blocks of INNER elements. */
typedef struct slices {
  const cmz_array *x;
  int64_t size, outer, inner;
} slices;

static int compare_slices(const slices *s, int64_t a, int64_t b) {
  for (int64_t o = 0; o < s->outer; o++)
    for (int64_t i = 0; i < s->inner; i++) {
      int64_t ia = (o * s->size + a) * s->inner + i, ib = (o * s->size + b) * s->inner + i;
      if (cmz_dtype_is_int(s->x->dtype)) {
        int64_t x = cmz_get_int(s->x, ia), y = cmz_get_int(s->x, ib);
        if (x != y) return x < y ? -1 : 1;
      } else {
        double x = cmz_get(s->x, ia), y = cmz_get(s->x, ib);
        if (x != y) return x < y ? -1 : 1;
      }
    }
  return 0;
}

static cmz_status eval_unique(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                              cmz_array *outputs) {
  const cmz_array *x = &inputs[0];
  const cmz_attr *attr = cmz_node_attr(n, "axis");
  uint32_t axis = 0, rank = attr ? x->rank : 1;
  slices s = {x, (int64_t)cmz_array_count(x), 1, 1};
  int64_t shape[CMZ_MAX_RANK];
  if (attr) {
    CMZ_TRY(cmz_eval_axis(e, attr->i, x->rank, &axis));
    s.size = x->shape[axis];
    for (uint32_t i = 0; i < x->rank; i++) {
      shape[i] = x->shape[i];
      if (i != axis) *(i < axis ? &s.outer : &s.inner) *= x->shape[i];
    }
  }
  int64_t count = 0, *firsts = CMZ_NEW_ARRAY(e->arena, int64_t, (size_t)s.size),
          *group = CMZ_NEW_ARRAY(e->arena, int64_t, (size_t)s.size);
  for (int64_t i = 0; i < s.size; i++) { /* groups in order of first appearance */
    group[i] = -1;
    for (int64_t g = 0; g < count && group[i] < 0; g++)
      if (compare_slices(&s, firsts[g], i) == 0) group[i] = g;
    if (group[i] < 0) {
      group[i] = count;
      firsts[count++] = i;
    }
  }
  int64_t *place =
      CMZ_NEW_ARRAY(e->arena, int64_t, (size_t)count + 1); /* of each group in the output */
  bool sorted = cmz_node_int(n, "sorted", 1) != 0;
  for (int64_t g = 0; g < count; g++) {
    place[g] = sorted ? 0 : g;
    for (int64_t h = 0; sorted && h < count; h++)
      place[g] += compare_slices(&s, firsts[h], firsts[g]) < 0;
  }
  shape[axis] = count;
  cmz_array spare[4] = {{.dtype = x->dtype},
                        {.dtype = CMZ_I64},
                        {.dtype = CMZ_I64},
                        {.dtype = CMZ_I64}},
            *out[4];
  for (uint32_t i = 0; i < 4; i++)
    out[i] = i < n->output_count && n->outputs[i] ? &outputs[i] : &spare[i];
  CMZ_TRY(cmz_eval_shape(e, out[0], rank, shape));
  CMZ_TRY(cmz_eval_shape(e, out[1], 1, &count));
  CMZ_TRY(cmz_eval_shape(e, out[2], 1, &s.size));
  CMZ_TRY(cmz_eval_shape(e, out[3], 1, &count));
  for (int64_t g = 0; g < count; g++) {
    cmz_set_int(out[1], place[g], firsts[g]);
    cmz_set_int(out[3], place[g], 0);
    for (int64_t o = 0; o < s.outer; o++)
      for (int64_t i = 0; i < s.inner; i++)
        cmz_copy_element(out[0], (o * count + place[g]) * s.inner + i, x,
                         (o * s.size + firsts[g]) * s.inner + i);
  }
  for (int64_t i = 0; i < s.size; i++) {
    cmz_set_int(out[2], i, place[group[i]]);
    cmz_set_int(out[3], place[group[i]], cmz_get_int(out[3], place[group[i]]) + 1);
  }
  return CMZ_OK;
}

/* ---- NonMaxSuppression ---- */

static cmz_status infer_suppression(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *boxes = cmz_input_type(m, node, 0), *scores = cmz_input_type(m, node, 1);
  if (boxes->rank != 3 || scores->rank != 3 || boxes->dtype != CMZ_F32 || scores->dtype != CMZ_F32)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "boxes and scores must be f32 of rank 3");
  if (!cmz_node_output(node, 0)) return CMZ_OK;
  cmz_dim most = cmz_dim_product(m->dims, scores->shape, 3);
  cmz_dim shape[2] = {reported_size(m, n, 0, 0, most), cmz_dim_const(m->dims, 3)};
  cmz_set_output(m, n, 0, CMZ_I64, 2, shape);
  return CMZ_OK;
}

typedef struct box {
  float y0, x0, y1, x1;
} box;

static box read_box(const cmz_array *boxes, int64_t at, bool centre) {
  float b[4];
  for (int i = 0; i < 4; i++) b[i] = (float)cmz_get(boxes, at * 4 + i);
  if (centre) return (box){b[1] - b[3] / 2, b[0] - b[2] / 2, b[1] + b[3] / 2, b[0] + b[2] / 2};
  return (box){fminf(b[0], b[2]), fminf(b[1], b[3]), fmaxf(b[0], b[2]), fmaxf(b[1], b[3])};
}

static float overlap(box a, box b) {
  float height = fminf(a.y1, b.y1) - fmaxf(a.y0, b.y0),
        width = fminf(a.x1, b.x1) - fmaxf(a.x0, b.x0);
  float own = (a.y1 - a.y0) * (a.x1 - a.x0), other = (b.y1 - b.y0) * (b.x1 - b.x0);
  if (height <= 0 || width <= 0 || own <= 0 || other <= 0) return 0;
  float both = height * width;
  return both / (own + other - both);
}

static double optional_number(const cmz_node *n, const cmz_array *inputs, uint32_t i,
                              double otherwise) {
  if (i >= n->input_count || !inputs[i].data || cmz_array_count(&inputs[i]) == 0) return otherwise;
  return cmz_get(&inputs[i], 0);
}

static cmz_status eval_suppression(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                   cmz_array *outputs) {
  const cmz_array *boxes = &inputs[0], *scores = &inputs[1];
  int64_t limit = (int64_t)optional_number(n, inputs, 2, 0), count = boxes->shape[1],
          classes = scores->shape[1], found = 0;
  double threshold = optional_number(n, inputs, 3, 0),
         least = optional_number(n, inputs, 4, -INFINITY);
  bool centre = cmz_node_int(n, "center_point_box", 0) != 0;
  ranked *items = CMZ_NEW_ARRAY(e->arena, ranked, (size_t)count),
         *scratch = CMZ_NEW_ARRAY(e->arena, ranked, (size_t)count);
  int64_t *rows = CMZ_NEW_ARRAY(e->arena, int64_t, 3 * cmz_array_count(scores) + 1);
  for (int64_t bc = 0; bc < boxes->shape[0] * classes; bc++) {
    int64_t candidates = 0, first = found;
    for (int64_t i = 0; i < count; i++) {
      double score = cmz_get(scores, bc * count + i);
      if (score > least) items[candidates++] = (ranked){score, i};
    }
    sort_ranked(items, scratch, candidates, true);
    for (int64_t i = 0; i < candidates && found - first < limit; i++) {
      box own = read_box(boxes, bc / classes * count + items[i].index, centre);
      bool keep = true;
      for (int64_t j = first; j < found && keep; j++)
        keep = overlap(own, read_box(boxes, bc / classes * count + rows[3 * j + 2], centre)) <=
               (float)threshold;
      if (!keep) continue;
      rows[3 * found] = bc / classes;
      rows[3 * found + 1] = bc % classes;
      rows[3 * found++ + 2] = items[i].index;
    }
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 2, (int64_t[]){found, 3}));
  memcpy(outputs[0].data, rows, (size_t)found * 3 * sizeof *rows);
  return CMZ_OK;
}

#define ROW(NAME, MIN, MAX, OUTPUTS, SINCE, NORMALIZE, FUNCTION, RUNTIME, ...)                     \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = MIN, .max_inputs = MAX, .min_outputs = 1,            \
    .max_outputs = OUTPUTS, .since = SINCE, .flags = CMZ_OP_RUNTIME, .normalize = NORMALIZE,       \
    .infer = infer_##FUNCTION, .eval = eval_##FUNCTION, .runtime = RUNTIME, ##__VA_ARGS__          \
  }

const cmz_op cmz_ops_runtime_ops[] = {
    ROW("TopK", 1, 2, 2, 1, normalize_top_k, top_k, "top_k",
        .attributes = "axis:i k:i!<10 largest:i@11 sorted:i@11"),
    ROW("NonZero", 1, 1, 1, 9, NULL, non_zero, "non_zero"),
    ROW("Compress", 2, 2, 1, 9, NULL, compress, "compress", .attributes = "axis:i"),
    ROW("Unique", 1, 1, 4, 11, NULL, unique, "unique", .attributes = "axis:i sorted:i"),
    ROW("NonMaxSuppression", 2, 5, 1, 10, NULL, suppression, "non_max_suppression",
        .attributes = "center_point_box:i"),
    {.name = NULL},
};
