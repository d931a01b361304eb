/* compare_npy.c - two .npy files of float32: the same shape, and values equal to 1e-3 of the
 * largest. usage: compare A.npy B.npy; exit status 0 when they agree. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct array {
  char header[1024];
  float *values;
  size_t count;
} array;

static int read_array(const char *path, array *a) {
  unsigned char head[10];
  FILE *f = fopen(path, "rb");
  if (!f || fread(head, 1, 10, f) != 10) return 0;
  size_t length = (size_t)(head[8] | head[9] << 8);
  if (length >= sizeof a->header || fread(a->header, 1, length, f) != length) return 0;
  a->values = malloc(1 << 24);
  a->count = fread(a->values, 4, 1 << 22, f);
  fclose(f);
  return strstr(a->header, "<f4") != NULL;
}

int main(int argc, char **argv) {
  static array a, b;
  if (argc != 3 || !read_array(argv[1], &a) || !read_array(argv[2], &b)) return 2;
  const char *shape_a = strstr(a.header, "shape"), *shape_b = strstr(b.header, "shape");
  if (!shape_a || !shape_b || strncmp(shape_a, shape_b, strcspn(shape_a, ")")) != 0 ||
      a.count != b.count) {
    puts("the shapes differ");
    return 1;
  }
  double largest = 0, worst = 0;
  for (size_t i = 0; i < b.count; i++) largest = fmax(largest, fabs((double)b.values[i]));
  for (size_t i = 0; i < b.count; i++)
    worst = fmax(worst, fabs((double)a.values[i] - (double)b.values[i]));
  printf("worst %g of %g\n", worst, largest);
  return !(worst <= 1e-3 * largest);
}
