/* ops_numeric.c - runtime ops whose amount of work follows from data: RoiAlign with as many samples
 * as a region is large, determinants by elimination. In: a call (ops.h) on f32, Det also on f64.
 * Out: filled outputs. Always holds: positions outside the data are not read; a region of a batch
 * that does not exist is an error. */
#include "instance.h"
#include "ops.h"

/* ---- RoiAlign ---- */

typedef struct regions {
  const float *x;
  int64_t channels, size[2], bins[2];
  bool half, max;
  float scale;
} regions;

/* One direction of a region: where it begins, how wide a bin is, samples a bin. */
typedef struct side {
  float begin, width;
  int64_t samples;
} side;

/* One direction of a sample: between which two, how far. */
typedef struct position {
  int64_t low, high;
  float rest;
  bool inside;
} position;

/* I: 0 along y, 1 along x. */
static side find_side(const regions *r, const float *region, int i) {
  float shift = r->half ? 0.5f : 0;
  float begin = region[1 - i] * r->scale - shift, end = region[3 - i] * r->scale - shift;
  float extent = end - begin;
  if (!r->half && extent < 1) extent = 1;
  side s = {.begin = begin, .width = extent / (float)r->bins[i]};
  /* what is not a number, or absurdly many, has no samples */
  if (s.width > 0 && s.width < 1e6f) s.samples = (int64_t)s.width;
  if (s.width > (float)s.samples && s.width < 1e6f) s.samples++;
  return s;
}

static position find_position(const side *s, int64_t bin, int64_t sample, int64_t size) {
  float p =
      s->begin + (float)bin * s->width + ((float)sample + 0.5f) * s->width / (float)s->samples;
  position at = {.inside = p >= -1 && p <= (float)size};
  if (!at.inside) return at;
  if (p < 0) p = 0;
  if (p > (float)(size - 1)) p = (float)(size - 1);
  at.low = (int64_t)p;
  at.high = at.low + 1 < size ? at.low + 1 : at.low;
  at.rest = p - (float)at.low;
  return at;
}

static float sample(const regions *r, const float *plane, position y, position x) {
  const float *top = plane + y.low * r->size[1], *bottom = plane + y.high * r->size[1];
  float v[4] = {(1 - y.rest) * (1 - x.rest) * top[x.low], (1 - y.rest) * x.rest * top[x.high],
                y.rest * (1 - x.rest) * bottom[x.low], y.rest * x.rest * bottom[x.high]};
  if (!r->max) return v[0] + v[1] + v[2] + v[3];
  float most = v[0];
  for (int i = 1; i < 4; i++) most = v[i] > most ? v[i] : most;
  return most;
}

static float pool_bin(const regions *r, const float *plane, const side *sides, int64_t by,
                      int64_t bx) {
  float total = 0;
  bool first = true;
  for (int64_t i = 0; i < sides[0].samples; i++) {
    position y = find_position(&sides[0], by, i, r->size[0]);
    for (int64_t j = 0; j < sides[1].samples; j++) {
      position x = find_position(&sides[1], bx, j, r->size[1]);
      float v = y.inside && x.inside ? sample(r, plane, y, x) : 0;
      if (!r->max) total += v;
      else if (first || v > total) total = v;
      first = false;
    }
  }
  int64_t count = sides[0].samples * sides[1].samples;
  return r->max || count < 2 ? total : total / (float)count;
}

int cmz_rt_roi_align(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0], *rois = &call->inputs[1];
  const int64_t *batches = call->inputs[2].data, *d = x->dims;
  uint64_t bits = (uint64_t)cmz_op_attribute(call, 4);
  double scale;
  memcpy(&scale, &bits, sizeof scale);
  regions r = {.channels = d[1],
               .size = {d[2], d[3]},
               .bins = {cmz_op_attribute(call, 2), cmz_op_attribute(call, 3)},
               .half = cmz_op_attribute(call, 0) != 0,
               .max = cmz_op_attribute(call, 1) != 0,
               .scale = (float)scale};
  int64_t plane = d[2] * d[3], bins = r.bins[0] * r.bins[1];
  int rc = cmz_op_output(call, 0, rois->dims[0] * d[1] * bins * 4);
  if (rc) return rc;
  float *y = call->outputs[0].data;
  if (plane == 0 || bins == 0) return CMZ_SUCCESS;
  for (int64_t i = 0; i < rois->dims[0]; i++) {
    if (batches[i] < 0 || batches[i] >= d[0])
      return cmz_op_fail(call, "region %lld lies in batch %lld", (long long)i,
                         (long long)batches[i]);
    side sides[2];
    for (int s = 0; s < 2; s++) sides[s] = find_side(&r, (const float *)rois->data + 4 * i, s);
    for (int64_t c = 0; c < d[1]; c++) {
      r.x = (const float *)x->data + (batches[i] * d[1] + c) * plane;
      for (int64_t b = 0; b < bins; b++)
        *y++ = pool_bin(&r, r.x, sides, b / r.bins[1], b % r.bins[1]);
    }
  }
  return CMZ_SUCCESS;
}

/* ---- Det ---- */

static double magnitude(double v) { return v < 0 ? -v : v; }

/* Of the N x N matrix A, which is used up. */
static double determinant(double *a, int64_t n) {
  double product = 1;
  for (int64_t k = 0; k < n; k++) {
    int64_t pivot = k;
    for (int64_t i = k + 1; i < n; i++)
      if (magnitude(a[i * n + k]) > magnitude(a[pivot * n + k])) pivot = i;
    if (a[pivot * n + k] == 0) return 0;
    for (int64_t j = k; j < n && pivot != k; j++) {
      double kept = a[k * n + j];
      a[k * n + j] = a[pivot * n + j];
      a[pivot * n + j] = kept;
    }
    product *= pivot != k ? -a[k * n + k] : a[k * n + k];
    for (int64_t i = k + 1; i < n; i++) {
      double factor = a[i * n + k] / a[k * n + k];
      for (int64_t j = k + 1; j < n; j++) a[i * n + j] -= factor * a[k * n + j];
    }
  }
  return product;
}

int cmz_rt_determinant(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0];
  bool wide = x->element == CMZ_ELEMENT_F64;
  int64_t n = x->dims[x->rank - 1], count = 1;
  if (x->dims[x->rank - 2] != n) return cmz_op_fail(call, "the matrices are not square");
  for (uint32_t d = 0; d + 2 < x->rank; d++) count *= x->dims[d];
  int rc = cmz_op_output(call, 0, count * (wide ? 8 : 4));
  if (rc) return rc;
  double *a = cmz_op_take(call, n * n * 8 + 8);
  if (!a) return CMZ_OUT_OF_MEMORY;
  for (int64_t i = 0; i < count; i++) {
    for (int64_t j = 0; j < n * n; j++)
      a[j] = wide ? ((const double *)x->data)[i * n * n + j]
                  : (double)((const float *)x->data)[i * n * n + j];
    double v = determinant(a, n);
    if (wide) ((double *)call->outputs[0].data)[i] = v;
    else ((float *)call->outputs[0].data)[i] = (float)v;
  }
  cmz_op_give(call, a, n * n * 8 + 8);
  return CMZ_SUCCESS;
}
