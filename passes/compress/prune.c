/* prune.c - which weights stay. In: a dense matrix. Out: the same with zeroes. Always holds: of
 * every four neighbouring columns at most two are left. */
#include "compress.h"

#include <math.h>

void cmz_prune_2_4(cmz_matrix *w) {
  for (uint32_t r = 0; r < w->rows; r++)
    for (uint32_t c = 0; c < w->columns; c += 4) {
      float *group = w->data + (size_t)r * w->columns + c;
      uint32_t size = CMZ_MIN(4u, w->columns - c);
      for (uint32_t left = size; left > 2; left--) {
        uint32_t least = UINT32_MAX; /* the last of the smallest that are still there goes */
        for (uint32_t i = 0; i < size; i++)
          if (group[i] != 0 && (least == UINT32_MAX || fabsf(group[i]) <= fabsf(group[least])))
            least = i;
        uint32_t nonzero = 0;
        for (uint32_t i = 0; i < size; i++) nonzero += group[i] != 0;
        if (nonzero <= 2) break;
        group[least] = 0;
      }
    }
}
