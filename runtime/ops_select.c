/* ops_select.c - runtime ops that pick elements by their content: NonZero, Compress,
 * NonMaxSuppression. In: a call (ops.h). Out: filled outputs, the reported size. Always holds:
 * outputs are in the order of the input's elements (boxes: by batch, class, falling score). */
#include "instance.h"
#include "ops.h"

static int64_t count_elements(const cmz_op_tensor *t) {
  int64_t count = 1;
  for (uint32_t d = 0; d < t->rank; d++) count *= t->dims[d];
  return count;
}

/* ---- NonZero ---- */

static bool is_zero(const cmz_op_tensor *t, int64_t i) {
  switch (t->element) {
  case CMZ_ELEMENT_F32:
    return ((const float *)t->data)[i] == 0;
  case CMZ_ELEMENT_F64:
    return ((const double *)t->data)[i] == 0;
  case CMZ_ELEMENT_F16:
  case CMZ_ELEMENT_BF16:
    return (((const uint16_t *)t->data)[i] & 0x7fff) == 0;
  default:
    break;
  }
  size_t size = cmz_element_bits(t->element) / 8;
  const uint8_t *at = (const uint8_t *)t->data + (size_t)i * size;
  for (size_t b = 0; b < size; b++) {
    if (at[b]) return false;
  }
  return true;
}

int cmz_rt_non_zero(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0];
  int64_t count = count_elements(x), found = 0, rank = x->rank ? x->rank : 1;
  for (int64_t i = 0; i < count; i++) found += !is_zero(x, i);
  int rc = cmz_op_output(call, 0, rank * found * 8);
  if (rc) return rc;
  call->reported = found;
  int64_t *y = call->outputs[0].data, at = 0, index[CMZ_MAX_DIMS] = {0};
  for (int64_t i = 0; i < count && y; i++) {
    if (!is_zero(x, i)) {
      for (int64_t d = 0; d < rank; d++) y[d * found + at] = index[d];
      at++;
    }
    for (uint32_t d = x->rank; d-- > 0;) {
      if (++index[d] < x->dims[d]) break;
      index[d] = 0;
    }
  }
  return CMZ_SUCCESS;
}

/* ---- Compress ---- */

int cmz_rt_compress(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0], *condition = &call->inputs[1];
  int64_t axis = cmz_op_attribute(call, 0), outer = 1, inner = 1, length = 1, found = 0;
  bool flat = axis == CMZ_OP_NO_AXIS;
  if (!flat && axis < 0) axis += x->rank;
  for (int64_t d = 0; d < (int64_t)x->rank; d++) {
    if (flat || d == axis) length *= x->dims[d];
    else if (d < axis) outer *= x->dims[d];
    else inner *= x->dims[d];
  }
  int64_t listed = count_elements(condition);
  const uint8_t *keep = condition->data;
  if (listed > length) listed = length;
  for (int64_t i = 0; i < listed; i++) found += keep[i] != 0;
  size_t size = cmz_element_bits(x->element) / 8, row = (size_t)inner * size;
  int rc = cmz_op_output(call, 0, outer * found * (int64_t)row);
  if (rc) return rc;
  call->reported = found;
  char *y = call->outputs[0].data;
  for (int64_t o = 0; o < outer && y; o++) {
    for (int64_t i = 0; i < listed; i++) {
      if (!keep[i]) continue;
      memcpy(y, (const char *)x->data + (size_t)(o * length + i) * row, row);
      y += row;
    }
  }
  return CMZ_SUCCESS;
}

/* ---- NonMaxSuppression ---- */

typedef struct box {
  float x0, y0, x1, y1;
} box;

static box read_box(const float *b, bool center) {
  if (center) return (box){b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2};
  box out = {b[1], b[0], b[3], b[2]};
  if (out.x0 > out.x1) out.x0 = b[3], out.x1 = b[1];
  if (out.y0 > out.y1) out.y0 = b[2], out.y1 = b[0];
  return out;
}

static float overlap(const box *a, const box *b) {
  float x0 = a->x0 > b->x0 ? a->x0 : b->x0, x1 = a->x1 < b->x1 ? a->x1 : b->x1;
  float y0 = a->y0 > b->y0 ? a->y0 : b->y0, y1 = a->y1 < b->y1 ? a->y1 : b->y1;
  if (x1 <= x0 || y1 <= y0) return 0;
  float both = (x1 - x0) * (y1 - y0);
  float a_area = (a->x1 - a->x0) * (a->y1 - a->y0), b_area = (b->x1 - b->x0) * (b->y1 - b->y0);
  if (a_area <= 0 || b_area <= 0) return 0;
  return both / (a_area + b_area - both);
}

typedef struct candidate {
  float score;
  int64_t index;
} candidate;

static bool is_better(const candidate *a, const candidate *b) {
  return a->score > b->score || (a->score == b->score && a->index < b->index);
}

static void sift_down(candidate *c, int64_t count, int64_t at) {
  candidate moved = c[at];
  for (int64_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && is_better(&c[child + 1], &c[child])) child++;
    if (!is_better(&c[child], &moved)) break;
    c[at] = c[child];
  }
  c[at] = moved;
}

typedef struct suppression {
  const float *boxes, *scores;
  int64_t count, limit;
  float overlap_limit, score_limit;
  bool has_score_limit, center;
  candidate *heap;
  box *kept;
} suppression;

/* The boxes that stay for one class, best first, as indices in OUT. */
static int64_t suppress_class(const suppression *s, int64_t *out) {
  int64_t count = 0, kept = 0;
  for (int64_t i = 0; i < s->count; i++) {
    if (!s->has_score_limit || s->scores[i] > s->score_limit)
      s->heap[count++] = (candidate){s->scores[i], i};
  }
  for (int64_t i = count / 2; i-- > 0;) sift_down(s->heap, count, i);
  while (count > 0 && kept < s->limit) {
    candidate best = s->heap[0];
    s->heap[0] = s->heap[--count];
    if (count) sift_down(s->heap, count, 0);
    box b = read_box(s->boxes + 4 * best.index, s->center);
    bool stays = true;
    for (int64_t k = 0; k < kept && stays; k++)
      stays = overlap(&b, &s->kept[k]) <= s->overlap_limit;
    if (!stays) continue;
    s->kept[kept] = b;
    out[kept++] = best.index;
  }
  return kept;
}

static float scalar(const cmz_op_call *call, uint32_t i, float otherwise) {
  if (i >= call->input_count || !call->inputs[i].data) return otherwise;
  return *(const float *)call->inputs[i].data;
}

int cmz_rt_non_max_suppression(cmz_op_call *call) {
  const cmz_op_tensor *boxes = &call->inputs[0], *scores = &call->inputs[1];
  int64_t batches = scores->dims[0], classes = scores->dims[1], n = scores->dims[2], limit = 0,
          found = 0;
  if (call->input_count > 2 && call->inputs[2].data) limit = *(const int64_t *)call->inputs[2].data;
  if (limit < 0) limit = 0;
  if (limit > n) limit = n;
  suppression s = {.count = n,
                   .limit = limit,
                   .overlap_limit = scalar(call, 3, 0),
                   .score_limit = scalar(call, 4, 0)};
  s.has_score_limit = call->input_count > 4 && call->inputs[4].data;
  s.center = cmz_op_attribute(call, 0) != 0;
  int64_t most = batches * classes * limit;
  int64_t heap_bytes = n * (int64_t)sizeof *s.heap, box_bytes = n * (int64_t)sizeof *s.kept;
  int64_t bytes = heap_bytes + box_bytes + (most * 3 + n) * 8;
  char *memory = cmz_op_take(call, bytes);
  if (!memory) return CMZ_OUT_OF_MEMORY;
  s.heap = (void *)memory;
  s.kept = (void *)(memory + heap_bytes);
  int64_t *rows = (void *)(memory + heap_bytes + box_bytes), *indices = rows + most * 3;
  for (int64_t b = 0; b < batches; b++) {
    for (int64_t c = 0; c < classes; c++) {
      s.boxes = (const float *)boxes->data + b * n * 4;
      s.scores = (const float *)scores->data + (b * classes + c) * n;
      int64_t kept = suppress_class(&s, indices);
      for (int64_t k = 0; k < kept; k++, found++) {
        rows[3 * found] = b;
        rows[3 * found + 1] = c;
        rows[3 * found + 2] = indices[k];
      }
    }
  }
  int rc = cmz_op_output(call, 0, found * 24);
  if (!rc && found) memcpy(call->outputs[0].data, rows, (size_t)found * 24);
  call->reported = found;
  cmz_op_give(call, memory, bytes);
  return rc;
}
