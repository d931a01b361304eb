/* digits.c - loads a compiled model with dlopen, runs it on one picture, and shows what it saw.
 *
 * usage: digits MODEL.so INPUT.npy EXPECTED.npy
 * In: a library made by cmzc from mnist-8.onnx. Out: the picture, the ten scores and the digit;
 * exit status 0 when the scores agree with the expected ones to 1e-3 of their size. Needs cmz.h and
 * nothing else of cmzc. */
#include <cmz.h>

#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIDE = 28, DIGITS = 10 };

/* Reads COUNT floats behind the header of a version-1 .npy file. */
static int read_npy(const char *path, float *values, size_t count) {
  FILE *f = fopen(path, "rb");
  unsigned char head[10];
  int ok = f && fread(head, 1, sizeof head, f) == sizeof head && head[0] == 0x93;
  if (ok)
    ok = fseek(f, head[8] | head[9] << 8, SEEK_CUR) == 0 &&
         fread(values, sizeof *values, count, f) == count;
  if (f) fclose(f);
  if (!ok) fprintf(stderr, "%s: not a file of %zu floats\n", path, count);
  return ok;
}

static void show_picture(const float *pixels) {
  static const char shades[] = " .:-=+*#%@";
  for (int y = 0; y < SIDE; y += 2) { /* a character is about twice as high as wide */
    for (int x = 0; x < SIDE; x++) {
      float shade = (pixels[y * SIDE + x] + pixels[(y + 1) * SIDE + x]) / 2 / 256;
      putchar(shades[(int)(shade * 9.99f)]);
    }
    putchar('\n');
  }
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: digits MODEL.so INPUT.npy EXPECTED.npy\n");
    return 2;
  }
  float picture[SIDE * SIDE], scores[DIGITS], expected[DIGITS];
  if (!read_npy(argv[2], picture, SIDE * SIDE) || !read_npy(argv[3], expected, DIGITS)) return 1;

  void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  const cmz_api *(*entry)(void) = NULL;
  if (library) *(void **)&entry = dlsym(library, "cmz_model_api");
  if (!entry) {
    fprintf(stderr, "%s: %s\n", argv[1], dlerror());
    return 1;
  }
  const cmz_api *api = entry();
  cmz_config config = {.struct_size = sizeof config, .threads = 1};
  cmz_model *model = NULL;
  if (api->create(&config, &model)) {
    fprintf(stderr, "create: %s\n", model ? api->error(model) : "out of memory");
    return 1;
  }
  cmz_tensor input = {.data = picture,
                      .element = CMZ_ELEMENT_F32,
                      .rank = 4,
                      .dims = {1, 1, SIDE, SIDE},
                      .bytes = sizeof picture};
  cmz_tensor output = {.data = scores, .bytes = sizeof scores};
  int result = api->run(model, &input, &output);
  if (result) {
    fprintf(stderr, "run: %s\n", api->error(model));
    return 1;
  }
  enum { RUNS = 1000 };
  double start = seconds();
  for (int i = 0; i < RUNS && !result; i++) result = api->run(model, &input, &output);
  double microseconds = (seconds() - start) / RUNS * 1e6;

  show_picture(picture);
  int best = 0;
  float size = 0, worst = 0;
  for (int i = 0; i < DIGITS; i++) {
    if (scores[i] > scores[best]) best = i;
    size = fmaxf(size, fabsf(expected[i]));
    worst = fmaxf(worst, fabsf(scores[i] - expected[i]));
    printf("  %d: %9.2f\n", i, scores[i]);
  }
  printf("The model reads a %d, in %.1f us (%s).\n", best, microseconds, api->description->target);
  printf("Largest difference from ONNX Runtime's scores: %g of %g.\n", worst, size);
  api->destroy(model);
  dlclose(library);
  return worst <= 1e-3f * size ? 0 : 1;
}
