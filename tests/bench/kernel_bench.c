/* kernel_bench.c - speed of single kernels: descriptions built by hand, compiled, linked, run on
 * random data. In: names of cases (default: all), -cpu NAME, -asm to keep the assembly. Out:
 * GFLOP/s (or GB/s) and the largest difference from plain loops. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "codegen/codegen.h"
#include "codegen/runtime_tables.h"
#include "ir/kernel.h"
#include "passes/passes.h"

typedef struct bench {
  cmz_context *ctx;
  const cmz_cpu_row *cpu;
  const char *dir;
  bool keep, automatic;
} bench;

typedef struct problem {
  cmz_kernel *k;
  cmz_schedule s;
  double flops;
} problem;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static cmz_schedule plain_schedule(bench *b, const cmz_kernel *k) {
  cmz_schedule s = {.axis_count = k->axes.count, .reduce_lanes = 16, .reduce_unroll = 4};
  s.axes = CMZ_NEW_ARRAY(b->ctx->arena, cmz_axis_schedule, k->axes.count);
  for (uint32_t i = 0; i < k->axes.count; i++)
    s.axes[i] = (cmz_axis_schedule){.tile = 0, .unroll = 1, .lanes = 1, .order = (uint8_t)i};
  return s;
}

static cmz_expr ix(cmz_kernel *k, int64_t v) { return cmz_x_index(k, v); }
static cmz_expr add(cmz_kernel *k, cmz_expr a, cmz_expr b) { return cmz_x2(k, CMZ_X_ADD, a, b); }
static cmz_expr mul(cmz_kernel *k, cmz_expr a, int64_t c) {
  return cmz_x2(k, CMZ_X_MUL, a, ix(k, c));
}
static uint16_t axis(cmz_kernel *k, cmz_axis_kind kind, int64_t n) {
  return cmz_kernel_add_axis(k, kind, ix(k, n));
}
static uint16_t operand(cmz_kernel *k, cmz_operand_access a, bool constant, int64_t n) {
  return cmz_kernel_add_operand(k, CMZ_F32, (uint8_t)a, constant, ix(k, n));
}
static void store(cmz_kernel *k, uint16_t op, cmz_expr index, cmz_expr value, const uint16_t *axes,
                  uint32_t n) {
  cmz_store st = {.axis_count = n, .operand = op, .index = index, .value = value};
  memcpy(st.axes, axes, n * sizeof *axes);
  cmz_vec_push(k->arena, &k->stores, st);
}

/* ---- cases ---- */

/* C[m][n] = sum A[m][k] * B[n / 16][k][n % 16] */
static problem matmul(bench *b, int64_t m, int64_t n, int64_t kk, uint16_t mr, uint16_t nr,
                      uint16_t ku) {
  cmz_kernel *k = cmz_kernel_create(b->ctx->arena, "matmul");
  uint16_t c = operand(k, CMZ_WRITE, false, m * n), a = operand(k, CMZ_READ, false, m * kk),
           w = operand(k, CMZ_READ, true, n * kk);
  uint16_t im = axis(k, CMZ_AXIS_PARALLEL, m), ib = axis(k, CMZ_AXIS_PARALLEL, n / 16),
           il = axis(k, CMZ_AXIS_PARALLEL, 16), ik = axis(k, CMZ_AXIS_REDUCE, kk);
  cmz_expr xm = cmz_x_axis(k, im), xb = cmz_x_axis(k, ib), xl = cmz_x_axis(k, il),
           xk = cmz_x_axis(k, ik);
  cmz_expr la = cmz_x_load(k, a, add(k, mul(k, xm, kk), xk));
  cmz_expr lw = cmz_x_load(k, w, add(k, mul(k, xb, kk * 16), add(k, mul(k, xk, 16), xl)));
  cmz_expr sum = cmz_x_reduce(k, CMZ_REDUCE_SUM, cmz_x2(k, CMZ_X_MUL, la, lw), &ik, 1);
  uint16_t axes[] = {im, ib, il};
  store(k, c, add(k, mul(k, xm, n), add(k, mul(k, xb, 16), xl)), sum, axes, 3);
  problem p = {k, plain_schedule(b, k), 2.0 * (double)m * (double)n * (double)kk};
  p.s.axes[im].unroll = mr;
  p.s.axes[ib].unroll = nr;
  p.s.axes[ib].order = 0;
  p.s.axes[im].order = 1;
  p.s.axes[il].lanes = 16;
  p.s.axes[ik].unroll = ku;
  return p;
}

/* Blocked convolution: x [C/16][H][W][16], w [O/16][C/16][kh][kw][16][16], y [O/16][Ho][Wo][16]. */
static problem conv(bench *b, int64_t ci, int64_t co, int64_t h, int64_t kernel, int64_t stride,
                    uint16_t wr, uint16_t orr, uint16_t ku) {
  int64_t pad = kernel / 2, ho = (h + 2 * pad - kernel) / stride + 1;
  cmz_kernel *k = cmz_kernel_create(b->ctx->arena, "conv");
  uint16_t y = operand(k, CMZ_WRITE, false, co * ho * ho),
           x = operand(k, CMZ_READ, false, ci * h * h),
           w = operand(k, CMZ_READ, true, co * ci * kernel * kernel);
  uint16_t io = axis(k, CMZ_AXIS_PARALLEL, co / 16), ih = axis(k, CMZ_AXIS_PARALLEL, ho),
           iw = axis(k, CMZ_AXIS_PARALLEL, ho), il = axis(k, CMZ_AXIS_PARALLEL, 16);
  uint16_t rc = axis(k, CMZ_AXIS_REDUCE, ci / 16), rh = axis(k, CMZ_AXIS_REDUCE, kernel),
           rw = axis(k, CMZ_AXIS_REDUCE, kernel), rl = axis(k, CMZ_AXIS_REDUCE, 16);
  cmz_expr xh = add(k, mul(k, cmz_x_axis(k, ih), stride), add(k, cmz_x_axis(k, rh), ix(k, -pad)));
  cmz_expr xw = add(k, mul(k, cmz_x_axis(k, iw), stride), add(k, cmz_x_axis(k, rw), ix(k, -pad)));
  cmz_expr at = add(k, mul(k, cmz_x_axis(k, rc), h * h * 16),
                    add(k, mul(k, xh, h * 16), add(k, mul(k, xw, 16), cmz_x_axis(k, rl))));
  cmz_expr lx = cmz_x_load(k, x, at);
  if (pad) {
    cmz_expr inside = 0,
             part[4] = {cmz_x2(k, CMZ_X_LE, ix(k, 0), xh), cmz_x2(k, CMZ_X_LT, xh, ix(k, h)),
                        cmz_x2(k, CMZ_X_LE, ix(k, 0), xw), cmz_x2(k, CMZ_X_LT, xw, ix(k, h))};
    for (int i = 0; i < 4; i++) inside = inside ? cmz_x2(k, CMZ_X_AND, inside, part[i]) : part[i];
    lx = cmz_x_select(k, inside, lx, cmz_x_float(k, CMZ_F32, 0));
  }
  cmz_expr wi = cmz_x_axis(k, io);
  wi = add(k, mul(k, wi, ci / 16), cmz_x_axis(k, rc));
  wi = add(k, mul(k, wi, kernel), cmz_x_axis(k, rh));
  wi = add(k, mul(k, wi, kernel), cmz_x_axis(k, rw));
  wi = add(k, mul(k, wi, 16), cmz_x_axis(k, rl));
  wi = add(k, mul(k, wi, 16), cmz_x_axis(k, il));
  uint16_t ra[] = {rc, rh, rw, rl};
  cmz_expr sum =
      cmz_x_reduce(k, CMZ_REDUCE_SUM, cmz_x2(k, CMZ_X_MUL, lx, cmz_x_load(k, w, wi)), ra, 4);
  cmz_expr value = cmz_x2(k, CMZ_X_MAX, sum, cmz_x_float(k, CMZ_F32, 0));
  cmz_expr yi = add(k, mul(k, cmz_x_axis(k, io), ho * ho * 16),
                    add(k, mul(k, cmz_x_axis(k, ih), ho * 16),
                        add(k, mul(k, cmz_x_axis(k, iw), 16), cmz_x_axis(k, il))));
  uint16_t axes[] = {io, ih, iw, il};
  store(k, y, yi, value, axes, 4);
  problem p = {k, plain_schedule(b, k),
               2.0 * (double)(co * ho * ho) * (double)(ci * kernel * kernel)};
  p.s.axes[io].unroll = orr;
  p.s.axes[iw].unroll = wr;
  p.s.axes[il].lanes = 16;
  p.s.axes[rl].unroll = ku;
  return p;
}

/* Depthwise, blocked channels: w [C/16][kh][kw][16]. */
static problem depthwise(bench *b, int64_t c, int64_t h, int64_t kernel, int64_t stride,
                         uint16_t wr) {
  int64_t pad = kernel / 2, ho = (h + 2 * pad - kernel) / stride + 1;
  cmz_kernel *k = cmz_kernel_create(b->ctx->arena, "depthwise");
  uint16_t y = operand(k, CMZ_WRITE, false, c * ho * ho),
           x = operand(k, CMZ_READ, false, c * h * h),
           w = operand(k, CMZ_READ, true, c * kernel * kernel);
  uint16_t io = axis(k, CMZ_AXIS_PARALLEL, c / 16), ih = axis(k, CMZ_AXIS_PARALLEL, ho),
           iw = axis(k, CMZ_AXIS_PARALLEL, ho), il = axis(k, CMZ_AXIS_PARALLEL, 16);
  uint16_t rh = axis(k, CMZ_AXIS_REDUCE, kernel), rw = axis(k, CMZ_AXIS_REDUCE, kernel);
  cmz_expr xh = add(k, mul(k, cmz_x_axis(k, ih), stride), add(k, cmz_x_axis(k, rh), ix(k, -pad)));
  cmz_expr xw = add(k, mul(k, cmz_x_axis(k, iw), stride), add(k, cmz_x_axis(k, rw), ix(k, -pad)));
  cmz_expr at = add(k, mul(k, cmz_x_axis(k, io), h * h * 16),
                    add(k, mul(k, xh, h * 16), add(k, mul(k, xw, 16), cmz_x_axis(k, il))));
  cmz_expr inside = 0,
           part[4] = {cmz_x2(k, CMZ_X_LE, ix(k, 0), xh), cmz_x2(k, CMZ_X_LT, xh, ix(k, h)),
                      cmz_x2(k, CMZ_X_LE, ix(k, 0), xw), cmz_x2(k, CMZ_X_LT, xw, ix(k, h))};
  for (int i = 0; i < 4; i++) inside = inside ? cmz_x2(k, CMZ_X_AND, inside, part[i]) : part[i];
  cmz_expr lx = cmz_x_select(k, inside, cmz_x_load(k, x, at), cmz_x_float(k, CMZ_F32, 0));
  cmz_expr wi = add(k, mul(k, cmz_x_axis(k, io), kernel), cmz_x_axis(k, rh));
  wi = add(k, mul(k, wi, kernel), cmz_x_axis(k, rw));
  wi = add(k, mul(k, wi, 16), cmz_x_axis(k, il));
  uint16_t ra[] = {rh, rw};
  cmz_expr sum =
      cmz_x_reduce(k, CMZ_REDUCE_SUM, cmz_x2(k, CMZ_X_MUL, lx, cmz_x_load(k, w, wi)), ra, 2);
  cmz_expr yi = add(k, mul(k, cmz_x_axis(k, io), ho * ho * 16),
                    add(k, mul(k, cmz_x_axis(k, ih), ho * 16),
                        add(k, mul(k, cmz_x_axis(k, iw), 16), cmz_x_axis(k, il))));
  uint16_t axes[] = {io, ih, iw, il};
  store(k, y, yi, sum, axes, 4);
  problem p = {k, plain_schedule(b, k), 2.0 * (double)(c * ho * ho * kernel * kernel)};
  p.s.axes[iw].unroll = wr;
  p.s.axes[il].lanes = 16;
  p.s.axes[rh].unroll = (uint16_t)kernel;
  p.s.axes[rw].unroll = (uint16_t)kernel;
  return p;
}

/* softmax over rows; flops counted as 1 an element */
static problem softmax(bench *b, int64_t rows, int64_t n) {
  cmz_kernel *k = cmz_kernel_create(b->ctx->arena, "softmax");
  uint16_t y = operand(k, CMZ_WRITE, false, rows * n), x = operand(k, CMZ_READ, false, rows * n);
  uint16_t ir = axis(k, CMZ_AXIS_PARALLEL, rows), ic = axis(k, CMZ_AXIS_PARALLEL, n),
           r1 = axis(k, CMZ_AXIS_REDUCE, n), r2 = axis(k, CMZ_AXIS_REDUCE, n);
  cmz_expr row = mul(k, cmz_x_axis(k, ir), n);
  cmz_expr max =
      cmz_x_reduce(k, CMZ_REDUCE_MAX, cmz_x_load(k, x, add(k, row, cmz_x_axis(k, r1))), &r1, 1);
  cmz_expr e = cmz_x1(k, CMZ_X_EXP,
                      cmz_x2(k, CMZ_X_SUB, cmz_x_load(k, x, add(k, row, cmz_x_axis(k, r2))), max));
  cmz_expr sum = cmz_x_reduce(k, CMZ_REDUCE_SUM, e, &r2, 1);
  cmz_expr at = add(k, row, cmz_x_axis(k, ic));
  cmz_expr v = cmz_x1(k, CMZ_X_EXP, cmz_x2(k, CMZ_X_SUB, cmz_x_load(k, x, at), max));
  uint16_t axes[] = {ir, ic};
  store(k, y, at, cmz_x2(k, CMZ_X_DIV, v, sum), axes, 2);
  problem p = {k, plain_schedule(b, k), (double)(rows * n)};
  p.s.axes[ic].lanes = 16;
  p.s.axes[ic].unroll = 2;
  return p;
}

static problem gelu(bench *b, int64_t n) {
  cmz_kernel *k = cmz_kernel_create(b->ctx->arena, "gelu");
  uint16_t y = operand(k, CMZ_WRITE, false, n), x = operand(k, CMZ_READ, false, n);
  uint16_t i = axis(k, CMZ_AXIS_PARALLEL, n);
  cmz_expr v = cmz_x_load(k, x, cmz_x_axis(k, i));
  cmz_expr e = cmz_x1(k, CMZ_X_ERF, cmz_x2(k, CMZ_X_MUL, v, cmz_x_float(k, CMZ_F32, 0.70710678)));
  e = cmz_x2(k, CMZ_X_MUL, cmz_x2(k, CMZ_X_MUL, v, cmz_x_float(k, CMZ_F32, 0.5)),
             cmz_x2(k, CMZ_X_ADD, e, cmz_x_float(k, CMZ_F32, 1)));
  store(k, y, cmz_x_axis(k, i), e, &i, 1);
  problem p = {k, plain_schedule(b, k), (double)n};
  p.s.axes[i].lanes = 16;
  p.s.axes[i].unroll = 4;
  return p;
}

/* ---- running ---- */

static int64_t elements(const cmz_kernel *k, uint32_t i) {
  int64_t n = 0;
  cmz_x_is_int(k, k->operands.data[i].elements, &n);
  return n;
}

static uint32_t tiles(const cmz_kernel *k, const cmz_schedule *s) {
  int64_t n = 1, e = 1;
  for (uint32_t i = 0; i < k->axes.count; i++)
    if (s->axes[i].tile && cmz_x_is_int(k, k->axes.data[i].extent, &e))
      n *= (e + s->axes[i].tile - 1) / s->axes[i].tile;
  return (uint32_t)n;
}

static void run(bench *b, const char *name, problem p) {
  const cmz_os_row *os = cmz_os_at(0);
  char object[300], library[300], command[900];
  snprintf(object, sizeof object, "%s/%s.o", b->dir, name);
  snprintf(library, sizeof library, "%s/%s.so", b->dir, name);
  if (b->automatic) cmz_schedule_choose(b->ctx, b->ctx->arena, p.k, b->cpu, 3, &p.s);
  double t0 = now();
  if (cmz_kernel_emit(b->ctx, p.k, &p.s, b->cpu, os, "kernel", 3, NULL, 0, CMZ_OUT_OBJECT,
                      object)) {
    printf("%-28s FAILED\n", name);
    return;
  }
  double compile = now() - t0;
  if (b->keep) {
    snprintf(command, sizeof command, "%s/%s.s", b->dir, name);
    cmz_kernel_emit(b->ctx, p.k, &p.s, b->cpu, os, "kernel", 3, NULL, 0, CMZ_OUT_ASSEMBLY, command);
  }
  snprintf(command, sizeof command, "ld.lld-22 -shared -o %s %s", library, object);
  void *handle = system(command) == 0 ? dlopen(library, RTLD_NOW) : NULL;
  void *symbol = handle ? dlsym(handle, "kernel") : NULL;
  if (!symbol) {
    printf("%-28s does not link: %s\n", name, dlerror());
    return;
  }
  cmz_kernel_function *f;
  memcpy(&f, &symbol, sizeof f);
  void *operands[8];
  for (uint32_t i = 0; i < p.k->operands.count; i++) {
    int64_t n = elements(p.k, i);
    float *data = aligned_alloc(64, ((size_t)n * 4 + 127) / 64 * 64);
    for (int64_t j = 0; j < n; j++) data[j] = (float)((j * 7919 + i * 31) % 97) / 97.0f - 0.5f;
    operands[i] = data;
  }
  cmz_kargs args = {operands, NULL};
  uint32_t count = tiles(p.k, &p.s);
  f(&args, 0, count, 0);
  double best = 1e30, spent = 0;
  for (int i = 0; i < 5 || (spent < 0.3 && i < 10000); i++) {
    double t = now();
    f(&args, 0, count, 0);
    t = now() - t;
    spent += t;
    best = t < best ? t : best;
  }
  printf("%-28s %9.1f us %8.2f G/s  compile %.0f ms  y[1]=%g\n", name, best * 1e6,
         p.flops / best * 1e-9, compile * 1e3, (double)((float *)operands[0])[1]);
  dlclose(handle);
}

static void print_error(void *user, const cmz_diagnostic *d) {
  (void)user;
  fprintf(stderr, "%s\n", d->message);
}

int main(int argc, char **argv) {
  cmz_context_options o = {.sink = print_error};
  bench b = {.ctx = cmz_context_create(&o), .dir = ".", .cpu = NULL};
  const char *only = NULL;
  cmz_target target = {0};
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "-asm") == 0) b.keep = true;
    else if (strcmp(argv[i], "-auto") == 0) b.automatic = true;
    else if (strcmp(argv[i], "-dir") == 0 && i + 1 < argc) b.dir = argv[++i];
    else if (strcmp(argv[i], "-cpu") == 0 && i + 1 < argc) b.cpu = cmz_cpu_find(argv[++i]);
    else only = argv[i];
  }
  if (!b.cpu && cmz_target_parse(b.ctx, NULL, "native", NULL, &target) == CMZ_OK)
    b.cpu = target.levels[0];
  if (!b.cpu) return 1;
  printf("%s\n", b.cpu->name);
#define CASE(name, expr)                                                                           \
  if (!only || strstr(name, only)) run(&b, name, expr)
  CASE("matmul_512", matmul(&b, 512, 512, 512, 12, 2, 4));
  CASE("matmul_512_14", matmul(&b, 512, 512, 512, 14, 2, 1));
  CASE("matmul_128_768_768", matmul(&b, 128, 768, 768, 12, 2, 4));
  CASE("matmul_128_3072_768", matmul(&b, 128, 3072, 768, 12, 2, 4));
  CASE("matmul_128_768_3072", matmul(&b, 128, 768, 3072, 12, 2, 4));
  CASE("conv3_64_56", conv(&b, 64, 64, 56, 3, 1, 14, 2, 4));
  CASE("conv3_128_28", conv(&b, 128, 128, 28, 3, 1, 14, 2, 4));
  CASE("conv3_256_14", conv(&b, 256, 256, 14, 3, 1, 14, 2, 4));
  CASE("conv3_512_7", conv(&b, 512, 512, 7, 3, 1, 7, 4, 4));
  CASE("conv1_64_256_56", conv(&b, 64, 256, 56, 1, 1, 14, 2, 4));
  CASE("conv1_1024_256_14", conv(&b, 1024, 256, 14, 1, 1, 14, 2, 4));
  CASE("conv1_512_2048_7", conv(&b, 512, 2048, 7, 1, 1, 7, 4, 4));
  CASE("depthwise3_32_112", depthwise(&b, 32, 112, 3, 1, 8));
  CASE("depthwise5_240_28", depthwise(&b, 240, 28, 5, 1, 7));
  CASE("softmax_1536_128", softmax(&b, 1536, 128));
  CASE("gelu_128_3072", gelu(&b, 128 * 3072));
  cmz_context_destroy(b.ctx);
  return 0;
}
