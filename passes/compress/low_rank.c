/* low_rank.c - a matrix as the product of two thinner ones, by singular values.
 * In: a dense matrix and a rank or a share of the energy. Out: the two factors. Always holds: the
 * factors' product is the best approximation of its rank in the Frobenius norm (Eckart and Young,
 * 1936). */
#include "compress.h"

#include <math.h>

/* LAPACK's singular value decomposition, column-major (netlib.org/lapack, sgesdd). */
extern void sgesdd_(const char *jobz, const int *m, const int *n, float *a, const int *lda,
                    float *s, float *u, const int *ldu, float *vt, const int *ldvt, float *work,
                    const int *lwork, int *iwork, int *info, size_t jobz_length);
/* A row-major rows x columns matrix is LAPACK's columns x rows: its left vectors are ours on the
 * right. U (columns x count) and VT (count x rows) may be NULL: values only. */
static cmz_status decompose(cmz_context *ctx, cmz_arena *arena, const cmz_matrix *w, float *s,
                            float *u, float *vt) {
  int m = (int)w->columns, n = (int)w->rows, k = CMZ_MIN(m, n), info = 0, query = -1;
  const char *job = u ? "S" : "N";
  float *copy = cmz_arena_copy(arena, w->data, (size_t)w->rows * w->columns * sizeof(float));
  int *iwork = CMZ_NEW_ARRAY(arena, int, (size_t)k * 8);
  float size = 0, nothing = 0;
  if (!u) u = vt = &nothing;
  sgesdd_(job, &m, &n, copy, &m, s, u, &m, vt, &k, &size, &query, iwork, &info, 1);
  double wanted = (double)size * 1.0001 + 64; /* a large size is rounded to a float */
  if (!info && wanted < (double)INT32_MAX) {
    int work_size = (int)wanted;
    float *work = CMZ_NEW_ARRAY(arena, float, (size_t)work_size);
    sgesdd_(job, &m, &n, copy, &m, s, u, &m, vt, &k, work, &work_size, iwork, &info, 1);
  } else {
    info = info ? info : 1;
  }
  if (info)
    return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0},
                    "the singular value decomposition of a %u x %u matrix failed (info %d)",
                    w->rows, w->columns, info);
  return CMZ_OK;
}

cmz_status cmz_low_rank_values(cmz_context *ctx, cmz_arena *arena, const cmz_matrix *w,
                               float **values) {
  *values = CMZ_NEW_ARRAY(arena, float, CMZ_MIN(w->rows, w->columns));
  return decompose(ctx, arena, w, *values, NULL, NULL);
}

/* Squared, the largest first: small ones must not be lost in the sum. */
uint32_t cmz_low_rank_for_energy(const float *s, uint32_t count, double energy) {
  double total = 0, sum = 0;
  for (uint32_t i = count; i-- > 0;) total += (double)s[i] * (double)s[i];
  for (uint32_t i = 0; i < count; i++) {
    sum += (double)s[i] * (double)s[i];
    if (sum >= energy * total) return i + 1;
  }
  return count;
}

static double energy_of_rank(const float *s, uint32_t count, uint32_t rank) {
  double total = 0, lost = 0;
  for (uint32_t i = count; i-- > 0;) {
    total += (double)s[i] * (double)s[i];
    if (i >= rank) lost = total;
  }
  return total > 0 ? 1 - lost / total : 1;
}

cmz_status cmz_low_rank_split(cmz_context *ctx, cmz_arena *arena, const cmz_matrix *w,
                              uint32_t rank, cmz_matrix *a, cmz_matrix *b, double *kept_energy) {
  uint32_t full = CMZ_MIN(w->rows, w->columns);
  float *s = CMZ_NEW_ARRAY(arena, float, full),
        *u = CMZ_NEW_ARRAY(arena, float, (size_t)w->columns *full),
        *vt = CMZ_NEW_ARRAY(arena, float, (size_t)full * w->rows);
  CMZ_TRY(decompose(ctx, arena, w, s, u, vt));
  rank = CMZ_MIN(rank, full);
  *kept_energy = energy_of_rank(s, full, rank);
  *a = (cmz_matrix){w->rows, rank, CMZ_NEW_ARRAY(arena, float, (size_t)w->rows *rank)};
  *b = (cmz_matrix){rank, w->columns, CMZ_NEW_ARRAY(arena, float, (size_t)rank * w->columns)};
  for (uint32_t i = 0; i < rank; i++) {
    float root = sqrtf(s[i]);
    for (uint32_t r = 0; r < w->rows; r++)
      a->data[(size_t)r * rank + i] = vt[(size_t)r * full + i] * root;
    for (uint32_t c = 0; c < w->columns; c++)
      b->data[(size_t)i * w->columns + c] = u[(size_t)i * w->columns + c] * root;
  }
  return CMZ_OK;
}

cmz_matrix cmz_low_rank_product(cmz_arena *arena, const cmz_matrix *a, const cmz_matrix *b) {
  cmz_matrix out = {a->rows, b->columns, CMZ_NEW_ARRAY(arena, float, (size_t)a->rows * b->columns)};
  for (size_t r = 0; r < a->rows; r++) {
    float *row = out.data + r * b->columns;
    for (size_t i = 0; i < a->columns; i++) {
      float f = a->data[r * a->columns + i];
      const float *other = b->data + i * b->columns;
      for (size_t k = 0; k < b->columns; k++) row[k] += f * other[k];
    }
  }
  return out;
}
