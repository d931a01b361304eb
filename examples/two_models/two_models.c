/* two_models.c - runs two models of one program on the same picture: full precision and 4-bit
 * weights.
 *
 * usage: two_models INPUT.npy
 * In: one picture. Out: both digits; exit status 0 when they agree. */
#include "digits.h"
#include "digits_w4.h"

#include <stdio.h>

enum { PIXELS = DIGITS_INPUT3_ELEMENTS, DIGITS = DIGITS_PLUS214_OUTPUT_0_ELEMENTS };

/* Reads COUNT floats behind the header of a version-1 .npy file. */
static int read_npy(const char *path, float *values, size_t count) {
  FILE *f = fopen(path, "rb");
  unsigned char head[10];
  int ok = f && fread(head, 1, sizeof head, f) == sizeof head && head[0] == 0x93;
  if (ok) {
    ok = fseek(f, head[8] | head[9] << 8, SEEK_CUR) == 0 &&
         fread(values, sizeof *values, count, f) == count;
  }
  if (f) fclose(f);
  return ok;
}

static int largest(const float *scores) {
  int best = 0;
  for (int i = 1; i < DIGITS; i++) {
    if (scores[i] > scores[best]) best = i;
  }
  return best;
}

int main(int argc, char **argv) {
  static float picture[PIXELS];
  float full[DIGITS], small[DIGITS];
  if (argc != 2 || !read_npy(argv[1], picture, PIXELS)) {
    fprintf(stderr, "usage: two_models INPUT.npy\n");
    return 2;
  }
  digits *a;
  digits_w4 *b;
  if (digits_create(NULL, &a) || digits_run(a, picture, full)) {
    fprintf(stderr, "digits: %s\n", digits_error(a));
    return 1;
  }
  if (digits_w4_create(NULL, &b) || digits_w4_run(b, picture, small)) {
    fprintf(stderr, "digits_w4: %s\n", digits_w4_error(b));
    return 1;
  }
  printf("full precision: %d, 4-bit weights: %d\n", largest(full), largest(small));
  digits_destroy(a);
  digits_w4_destroy(b);
  return largest(full) != largest(small);
}
