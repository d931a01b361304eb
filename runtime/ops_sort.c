/* ops_sort.c - runtime ops that order elements: TopK, Unique. In: a call (ops.h). Out: filled
 * outputs, the reported size. Always holds: equal elements keep the order of their positions; NaN
 * counts as larger than every number, -0 as 0. */
#include "instance.h"
#include "ops.h"

typedef struct item {
  uint64_t key;
  int64_t index;
} item;

static uint64_t float_key(uint32_t bits) {
  if (bits == 0x80000000u) bits = 0;
  if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fffffffu;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static uint64_t double_key(uint64_t bits) {
  const uint64_t sign = UINT64_C(1) << 63;
  if (bits == sign) bits = 0;
  if ((bits & ~sign) > UINT64_C(0x7ff0000000000000)) bits = ~sign;
  return bits & sign ? ~bits : bits | sign;
}

/* Half to float bits, subnormals included. */
static uint32_t half_bits(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return sign | 0x7f800000u | mantissa << 13;
  if (exponent) return sign | (exponent + 112) << 23 | mantissa << 13;
  if (!mantissa) return sign;
  exponent = 113;
  while (!(mantissa & 1024)) {
    mantissa <<= 1;
    exponent--;
  }
  return sign | exponent << 23 | (mantissa & 1023) << 13;
}

/* A number that orders as element INDEX does. */
static uint64_t sort_key(uint32_t element, const void *data, int64_t index) {
  const uint64_t sign = UINT64_C(1) << 63;
  uint32_t bits;
  uint64_t wide;
  switch (element) {
  case CMZ_ELEMENT_F32:
    memcpy(&bits, (const float *)data + index, 4);
    return float_key(bits);
  case CMZ_ELEMENT_F64:
    memcpy(&wide, (const double *)data + index, 8);
    return double_key(wide);
  case CMZ_ELEMENT_F16:
    return float_key(half_bits(((const uint16_t *)data)[index]));
  case CMZ_ELEMENT_BF16:
    return float_key((uint32_t)((const uint16_t *)data)[index] << 16);
  case CMZ_ELEMENT_BOOL:
  case CMZ_ELEMENT_U8:
    return ((const uint8_t *)data)[index];
  case CMZ_ELEMENT_U16:
    return ((const uint16_t *)data)[index];
  case CMZ_ELEMENT_U32:
    return ((const uint32_t *)data)[index];
  case CMZ_ELEMENT_U64:
    return ((const uint64_t *)data)[index];
  case CMZ_ELEMENT_I8:
    return (uint64_t)(int64_t)((const int8_t *)data)[index] ^ sign;
  case CMZ_ELEMENT_I16:
    return (uint64_t)(int64_t)((const int16_t *)data)[index] ^ sign;
  case CMZ_ELEMENT_I32:
    return (uint64_t)(int64_t)((const int32_t *)data)[index] ^ sign;
  default:
    return (uint64_t)((const int64_t *)data)[index] ^ sign;
  }
}

static bool before(const item *a, const item *b) {
  return a->key < b->key || (a->key == b->key && a->index < b->index);
}

/* ITEMS[at] goes down to its place in the heap whose root is the last in order. */
static void sift_down(item *items, int64_t count, int64_t at) {
  item moved = items[at];
  for (;;) {
    int64_t child = 2 * at + 1;
    if (child >= count) break;
    if (child + 1 < count && before(&items[child], &items[child + 1])) child++;
    if (!before(&moved, &items[child])) break;
    items[at] = items[child];
    at = child;
  }
  items[at] = moved;
}

static void make_heap(item *items, int64_t count) {
  for (int64_t i = count / 2; i-- > 0;) sift_down(items, count, i);
}

static void sort_heap(item *items, int64_t count) {
  for (int64_t end = count; end-- > 1;) {
    item last = items[end];
    items[end] = items[0];
    items[0] = last;
    sift_down(items, end, 0);
  }
}

/* ---- TopK ---- */

typedef struct top_k_job {
  const cmz_op_tensor *x;
  void *values;
  int64_t *indices;
  item *items;
  int64_t length, inner, k;
  uint64_t flip; /* all ones when the largest come first */
} top_k_job;

static void top_k_row(const top_k_job *job, int64_t outer, int64_t inner) {
  int64_t base = outer * job->length * job->inner + inner,
          out = outer * job->k * job->inner + inner;
  size_t size = cmz_element_bits(job->x->element) / 8;
  for (int64_t i = 0; i < job->length; i++) {
    item candidate = {sort_key(job->x->element, job->x->data, base + i * job->inner) ^ job->flip,
                      i};
    if (i < job->k) {
      job->items[i] = candidate;
      if (i == job->k - 1) make_heap(job->items, job->k);
    } else if (before(&candidate, &job->items[0])) {
      job->items[0] = candidate;
      sift_down(job->items, job->k, 0);
    }
  }
  sort_heap(job->items, job->k);
  for (int64_t i = 0; i < job->k; i++) {
    int64_t from = base + job->items[i].index * job->inner, to = out + i * job->inner;
    if (job->values)
      memcpy((char *)job->values + (size_t)to * size,
             (const char *)job->x->data + (size_t)from * size, size);
    if (job->indices) job->indices[to] = job->items[i].index;
  }
}

int cmz_rt_top_k(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0];
  int64_t axis = cmz_op_attribute(call, 0), k;
  if (axis < 0) axis += x->rank;
  if (axis < 0 || axis >= (int64_t)x->rank) return cmz_op_fail(call, "axis is out of range");
  if (call->input_count > 1 && call->inputs[1].data) k = *(const int64_t *)call->inputs[1].data;
  else k = call->outputs[0].dims[axis];
  int64_t length = x->dims[axis], outer = 1, inner = 1;
  if (k < 0 || k > length)
    return cmz_op_fail(call, "k is %lld, the axis has %lld elements", (long long)k,
                       (long long)length);
  for (int64_t d = 0; d < (int64_t)x->rank; d++) {
    if (d < axis) outer *= x->dims[d];
    if (d > axis) inner *= x->dims[d];
  }
  int64_t count = outer * inner * k;
  int rc = cmz_op_output(call, 0, count * cmz_element_bits(x->element) / 8);
  if (!rc && call->output_count > 1) rc = cmz_op_output(call, 1, count * 8);
  if (rc || count == 0) return rc;
  int64_t bytes = k * (int64_t)sizeof(item);
  top_k_job job = {
      .x = x, .values = call->outputs[0].data, .length = length, .inner = inner, .k = k};
  job.indices = call->output_count > 1 ? call->outputs[1].data : NULL;
  job.flip = cmz_op_attribute(call, 1) ? ~UINT64_C(0) : 0;
  item few[256];
  bool heap = k > 256;
  job.items = heap ? cmz_op_take(call, bytes) : few;
  if (!job.items) return CMZ_OUT_OF_MEMORY;
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t i = 0; i < inner; i++) top_k_row(&job, o, i);
  }
  if (heap) cmz_op_give(call, job.items, bytes);
  call->reported = k;
  return CMZ_SUCCESS;
}

/* ---- Unique ---- */

/* Slices along one axis (the whole tensor's elements when there is no axis), compared element by
 * element. */
typedef struct slices {
  const cmz_op_tensor *x;
  int64_t count, outer, inner; /* slice s holds elements [o][s][i] */
} slices;

static int compare_slices(const slices *s, int64_t a, int64_t b) {
  for (int64_t o = 0; o < s->outer; o++) {
    for (int64_t i = 0; i < s->inner; i++) {
      int64_t base = o * s->count * s->inner + i;
      if (s->x->element == CMZ_ELEMENT_STRING) {
        const char *const *text = s->x->data;
        int order = strcmp(text[base + a * s->inner], text[base + b * s->inner]);
        if (order) return order;
        continue;
      }
      uint64_t p = sort_key(s->x->element, s->x->data, base + a * s->inner);
      uint64_t q = sort_key(s->x->element, s->x->data, base + b * s->inner);
      if (p != q) return p < q ? -1 : 1;
    }
  }
  return 0;
}

/* Stable merge sort of ORDER by slice. */
static void merge_sort(const slices *s, int64_t *order, int64_t *aside, int64_t count) {
  if (count < 2) return;
  int64_t half = count / 2, a = 0, b = half, at = 0;
  merge_sort(s, order, aside, half);
  merge_sort(s, order + half, aside, count - half);
  memcpy(aside, order, (size_t)count * sizeof *order);
  while (a < half && b < count)
    order[at++] = compare_slices(s, aside[b], aside[a]) < 0 ? aside[b++] : aside[a++];
  while (a < half) order[at++] = aside[a++];
  while (b < count) order[at++] = aside[b++];
}

/* By first appearance in place of by value: sorts the groups by their first slice. */
static void sort_by_first(int64_t *first, int64_t *group, int64_t count) {
  for (int64_t i = 1; i < count;
       i++) { /* few groups or nearly sorted; a heap would not keep it simpler */
    int64_t f = first[i], g = group[i], j = i;
    for (; j > 0 && first[j - 1] > f; j--) {
      first[j] = first[j - 1];
      group[j] = group[j - 1];
    }
    first[j] = f;
    group[j] = g;
  }
}

static int write_unique(cmz_op_call *call, const slices *s, const int64_t *first,
                        const int64_t *rank_of_slice, int64_t unique) {
  size_t size = cmz_element_bits(s->x->element) / 8;
  int rc = cmz_op_output(call, 0, unique * s->outer * s->inner * (int64_t)size);
  for (uint32_t i = 1; !rc && i < call->output_count; i++)
    rc = cmz_op_output(call, i, (i == 2 ? s->count : unique) * 8);
  if (rc) return rc;
  char *y = call->outputs[0].data;
  for (int64_t o = 0; y && o < s->outer; o++) {
    for (int64_t u = 0; u < unique; u++) {
      const char *from =
          (const char *)s->x->data + (size_t)((o * s->count + first[u]) * s->inner) * size;
      memcpy(y + (size_t)((o * unique + u) * s->inner) * size, from, (size_t)s->inner * size);
    }
  }
  int64_t *indices = call->output_count > 1 ? call->outputs[1].data : NULL;
  int64_t *inverse = call->output_count > 2 ? call->outputs[2].data : NULL;
  int64_t *counts = call->output_count > 3 ? call->outputs[3].data : NULL;
  if (indices) memcpy(indices, first, (size_t)unique * 8);
  if (inverse) memcpy(inverse, rank_of_slice, (size_t)s->count * 8);
  if (counts) {
    memset(counts, 0, (size_t)unique * 8);
    for (int64_t i = 0; i < s->count; i++) counts[rank_of_slice[i]]++;
  }
  call->reported = unique;
  return CMZ_SUCCESS;
}

int cmz_rt_unique(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0];
  int64_t axis = cmz_op_attribute(call, 0);
  slices s = {.x = x, .count = 1, .outer = 1, .inner = 1};
  bool flat = axis == CMZ_OP_NO_AXIS;
  if (!flat && axis < 0) axis += x->rank;
  for (int64_t d = 0; d < (int64_t)x->rank; d++) {
    if (flat || d == axis) s.count *= x->dims[d];
    else if (d < axis) s.outer *= x->dims[d];
    else s.inner *= x->dims[d];
  }
  int64_t bytes = s.count * 4 * 8;
  int64_t *order = cmz_op_take(call, bytes);
  if (!order) return CMZ_OUT_OF_MEMORY;
  int64_t *first = order + s.count, *group = first + s.count, *rank = group + s.count, unique = 0;
  for (int64_t i = 0; i < s.count; i++) order[i] = i;
  merge_sort(&s, order, first, s.count);
  for (int64_t i = 0; i < s.count; i++) {
    if (i == 0 || compare_slices(&s, order[i - 1], order[i]) != 0) {
      first[unique] = order[i];
      group[unique] = unique;
      unique++;
    }
    rank[order[i]] = unique - 1;
  }
  if (!cmz_op_attribute(call, 1)) {
    sort_by_first(first, group, unique);
    for (int64_t u = 0; u < unique; u++)
      order[group[u]] = u; /* the order itself is not needed any more */
    for (int64_t i = 0; i < s.count; i++) rank[i] = order[rank[i]];
  }
  int rc = write_unique(call, &s, first, rank, unique);
  cmz_op_give(call, order, bytes);
  return rc;
}
