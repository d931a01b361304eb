/* check_tile.c - runs tile.ptx (or a broken copy of it) under the CUDA driver and compares its
 * product with one computed here. usage: check_tile FILE. Exit status 0: the same; 1: not the same;
 * 4: the driver reported an error. */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
  static char text[1 << 16];
  FILE *f = argc > 1 ? fopen(argv[1], "rb") : NULL;
  if (!f || !fread(text, 1, sizeof text - 1, f)) return 2;
  fclose(f);
  void *cuda = dlopen("libcuda.so.1", RTLD_NOW), *module, *function;
  if (!cuda) return 3;
  int (*load)(void **, const void *) = dlsym(cuda, "cuModuleLoadData");
  int (*get)(void **, void *, const char *) = dlsym(cuda, "cuModuleGetFunction");
  int (*take)(uint64_t *, size_t) = dlsym(cuda, "cuMemAlloc_v2");
  int (*write)(uint64_t, const void *, size_t, void *) = dlsym(cuda, "cuMemcpyHtoDAsync_v2");
  int (*read)(void *, uint64_t, size_t, void *) = dlsym(cuda, "cuMemcpyDtoHAsync_v2");
  int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                void *, void **, void **) = dlsym(cuda, "cuLaunchKernel");
  int (*wait)(void *) = dlsym(cuda, "cuStreamSynchronize");
  int (*retain)(void **, int) = dlsym(cuda, "cuDevicePrimaryCtxRetain");
  int (*push)(void *) = dlsym(cuda, "cuCtxPushCurrent_v2");
  void *context;
  if (retain(&context, 0) || push(context)) return 3;
  _Float16 a[16][16], b[8][16];
  float c[129], expected[16][8] = {{0}}, sum = 0;
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < 16; k++) a[i][k] = (_Float16)((i * 7 + k * 3) % 11 - 5);
  for (int j = 0; j < 8; j++)
    for (int k = 0; k < 16; k++) b[j][k] = (_Float16)((j * 5 + k) % 7 - 3);
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++)
      for (int k = 0; k < 16; k++) expected[i][j] += (float)a[i][k] * (float)b[j][k];
  for (int i = 0; i < 8; i++)
    for (int j = 0; j < 8; j += 2) sum += expected[i][j];
  uint64_t da, db, dc;
  if (take(&da, sizeof a) || take(&db, sizeof b) || take(&dc, sizeof c)) return 3;
  if (write(da, a, sizeof a, NULL) || write(db, b, sizeof b, NULL)) return 3;
  if (load(&module, text) || get(&function, module, "tile_product")) return 3;
  void *params[] = {&da, &db, &dc};
  if (launch(function, 1, 1, 1, 64, 1, 1, 0, NULL, params, NULL) || wait(NULL)) return 4;
  if (read(c, dc, sizeof c, NULL)) return 3;
  return memcmp(c, expected, sizeof expected) != 0 || c[128] != sum;
}
