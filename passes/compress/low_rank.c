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

/* The least rank whose squared singular values hold ENERGY of the sum, and the share that RANK of
 * them hold. */
static uint32_t rank_for_energy(const float *s, uint32_t count, double energy) {
  double total = 0, sum = 0;
  for (uint32_t i = 0; i < count; i++) total += (double)s[i] * (double)s[i];
  for (uint32_t i = 0; i < count; i++) {
    sum += (double)s[i] * (double)s[i];
    if (sum >= energy * total) return i + 1;
  }
  return count;
}

static double energy_of_rank(const float *s, uint32_t count, uint32_t rank) {
  double total = 0, sum = 0;
  for (uint32_t i = 0; i < count; i++) {
    total += (double)s[i] * (double)s[i];
    if (i < rank) sum += (double)s[i] * (double)s[i];
  }
  return total > 0 ? sum / total : 1;
}

cmz_status cmz_low_rank_split(cmz_context *ctx, cmz_arena *arena, const cmz_matrix *w,
                              double energy, uint32_t *rank, cmz_matrix *a, cmz_matrix *b,
                              double *kept_energy) {
  /* A row-major rows x columns matrix is LAPACK's columns x rows: its left vectors are ours on the
   * right. */
  int m = (int)w->columns, n = (int)w->rows, k = CMZ_MIN(m, n), info = 0, query = -1;
  float *copy = cmz_arena_copy(arena, w->data, (size_t)w->rows * w->columns * sizeof(float));
  float *s = CMZ_NEW_ARRAY(arena, float, (size_t)k),
        *u = CMZ_NEW_ARRAY(arena, float, (size_t)m *(size_t)k);
  float *vt = CMZ_NEW_ARRAY(arena, float, (size_t)k *(size_t)n), size = 0;
  int *iwork = CMZ_NEW_ARRAY(arena, int, (size_t)k * 8);
  sgesdd_("S", &m, &n, copy, &m, s, u, &m, vt, &k, &size, &query, iwork, &info, 1);
  int work_size = (int)size + 1;
  float *work = CMZ_NEW_ARRAY(arena, float, (size_t)work_size);
  sgesdd_("S", &m, &n, copy, &m, s, u, &m, vt, &k, work, &work_size, iwork, &info, 1);
  if (info)
    return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0},
                    "the singular value decomposition did not converge (info %d)", info);
  if (energy > 0) *rank = rank_for_energy(s, (uint32_t)k, energy);
  *rank = CMZ_MIN(*rank, (uint32_t)k);
  *kept_energy = energy_of_rank(s, (uint32_t)k, *rank);
  *a = (cmz_matrix){w->rows, *rank, CMZ_NEW_ARRAY(arena, float, (size_t)w->rows **rank)};
  *b = (cmz_matrix){*rank, w->columns, CMZ_NEW_ARRAY(arena, float, (size_t)*rank * w->columns)};
  for (uint32_t i = 0; i < *rank; i++) {
    float root = sqrtf(s[i]);
    for (uint32_t r = 0; r < w->rows; r++)
      a->data[(size_t)r * *rank + i] = vt[(size_t)r * (size_t)k + i] * root;
    for (uint32_t c = 0; c < w->columns; c++)
      b->data[(size_t)i * w->columns + c] = u[(size_t)i * (size_t)m + c] * root;
  }
  return CMZ_OK;
}
