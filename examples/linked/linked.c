/* linked.c - a program with a model inside: digits.o, made by `cmzc mnist-8.onnx --prefix digits -o
 * digits.o`, is linked in.
 *
 * usage: linked INPUT.npy
 * In: one picture. Out: the digit, on stdout. Always holds: nothing is loaded at run time. */
#include "digits.h"

#include <stdio.h>

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

int main(int argc, char **argv) {
  static float picture[DIGITS_INPUT3_ELEMENTS];
  float scores[DIGITS_PLUS214_OUTPUT_0_ELEMENTS];
  if (argc != 2 || !read_npy(argv[1], picture, DIGITS_INPUT3_ELEMENTS)) {
    fprintf(stderr, "usage: linked INPUT.npy\n");
    return 2;
  }
  digits *model;
  if (digits_create(NULL, &model) || digits_run(model, picture, scores)) {
    fprintf(stderr, "%s\n", digits_error(model));
    return 1;
  }
  digits_destroy(model);
  int best = 0;
  for (int i = 1; i < DIGITS_PLUS214_OUTPUT_0_ELEMENTS; i++) {
    if (scores[i] > scores[best]) best = i;
  }
  printf("%d\n", best);
  return 0;
}
