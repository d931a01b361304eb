/* test_codegen_emit.c - compiled kernels against the reference interpreter, on every CPU level that
 * this machine runs. In: descriptions built here. Out: equal results within a few units in the last
 * place. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "codegen/codegen.h"
#include "codegen/runtime_tables.h"
#include "ir/kernel.h"
#include "passes/passes.h"

typedef struct fixture {
  cmz_context *ctx;
  char dir[64];
  int serial;
} fixture;

static void show_error(void *user, const cmz_diagnostic *d) {
  (void)user;
  fprintf(stderr, "%s\n", d->message);
}

static int setup(void **state) {
  cmz_context_options o = {.sink = show_error};
  fixture *f = calloc(1, sizeof *f);
  f->ctx = cmz_context_create(&o);
  strcpy(f->dir, "cmz_emit_XXXXXX");
  if (!mkdtemp(f->dir)) return 1;
  *state = f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  rmdir(f->dir);
  cmz_context_destroy(f->ctx);
  free(f);
  return 0;
}

/* ---- building ---- */

static cmz_expr ix(cmz_kernel *k, int64_t v) { return cmz_x_index(k, v); }
static cmz_expr add(cmz_kernel *k, cmz_expr a, cmz_expr b) { return cmz_x2(k, CMZ_X_ADD, a, b); }
static cmz_expr mul(cmz_kernel *k, cmz_expr a, cmz_expr b) { return cmz_x2(k, CMZ_X_MUL, a, b); }
static cmz_expr at2(cmz_kernel *k, cmz_expr row, cmz_expr width, cmz_expr column) {
  return add(k, mul(k, row, width), column);
}
static void store(cmz_kernel *k, uint16_t op, cmz_expr index, cmz_expr value, const uint16_t *axes,
                  uint32_t n) {
  cmz_store st = {.axis_count = n, .operand = op, .index = index, .value = value};
  memcpy(st.axes, axes, n * sizeof *axes);
  cmz_vec_push(k->arena, &k->stores, st);
}
static cmz_schedule plain(cmz_kernel *k) {
  cmz_schedule s = {.axis_count = k->axes.count, .reduce_lanes = 1, .reduce_unroll = 1};
  s.axes = CMZ_NEW_ARRAY(k->arena, cmz_axis_schedule, k->axes.count + 1);
  for (uint32_t i = 0; i < k->axes.count; i++)
    s.axes[i] = (cmz_axis_schedule){.unroll = 1, .lanes = 1, .order = (uint8_t)i};
  return s;
}

/* ---- running ---- */

static int64_t value_of(const cmz_kernel *k, cmz_expr e, const int64_t *params) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  switch (n->op) {
  case CMZ_X_CONST_INT:
    return n->i;
  case CMZ_X_PARAM:
    return params[n->i];
  case CMZ_X_ADD:
    return value_of(k, n->args[0], params) + value_of(k, n->args[1], params);
  case CMZ_X_MUL:
    return value_of(k, n->args[0], params) * value_of(k, n->args[1], params);
  default:
    fail_msg("extent of an unexpected form");
    return 0;
  }
}

static double random_value(uint64_t *seed) {
  *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
  return (double)(*seed >> 33) / (double)(1u << 30) - 1.0;
}

static bool runs_here(const cmz_cpu_row *cpu) {
  static const char *const levels[] = {"x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64"};
  if (strcmp(cpu->name, "x86-64-v4") == 0 && !__builtin_cpu_supports("avx512bw")) return false;
  if (strcmp(cpu->name, "x86-64-v3") == 0 && !__builtin_cpu_supports("avx2")) return false;
  for (size_t i = 0; i < CMZ_COUNT_OF(levels); i++)
    if (strcmp(cpu->name, levels[i]) == 0) return true;
  return false;
}

static void call(fixture *f, cmz_kernel *k, const cmz_schedule *s, const cmz_cpu_row *cpu,
                 void **operands, const int64_t *params) {
  char object[100], library[100], command[300];
  snprintf(object, sizeof object, "%s/k%d.o", f->dir, f->serial);
  snprintf(library, sizeof library, "./%s/k%d.so", f->dir, f->serial++);
  assert_int_equal(cmz_kernel_emit(f->ctx, k, s, cpu, cmz_os_at(0), "kernel", 3, NULL, 0,
                                   CMZ_OUT_OBJECT, object),
                   CMZ_OK);
  snprintf(command, sizeof command, "ld.lld-22 -shared -z defs -o %s %s", library, object);
  assert_int_equal(system(command), 0);
  void *handle = dlopen(library, RTLD_NOW);
  assert_non_null(handle);
  void *symbol = dlsym(handle, "kernel");
  assert_non_null(symbol);
  cmz_kernel_function *function;
  memcpy(&function, &symbol, sizeof function);
  int64_t tiles = 1;
  for (uint32_t i = 0; i < k->axes.count; i++)
    if (s->axes[i].tile)
      tiles *=
          (value_of(k, k->axes.data[i].extent, params) + s->axes[i].tile - 1) / s->axes[i].tile;
  cmz_kargs args = {operands, params};
  uint32_t half = (uint32_t)tiles / 2; /* two calls, as two threads would */
  function(&args, half, (uint32_t)tiles, 1);
  function(&args, 0, half, 0);
  dlclose(handle);
  unlink(object);
  unlink(library);
}

static void compare(cmz_dtype t, const void *want, const void *got, int64_t n, double tolerance,
                    const char *cpu) {
  for (int64_t i = 0; i < n; i++) {
    double a = cmz_dtype_get_f64(t, want, (size_t)i), b = cmz_dtype_get_f64(t, got, (size_t)i);
    if ((isnan(a) && isnan(b)) || a == b) continue;
    if (fabs(a - b) <= tolerance * fmax(1, fabs(a))) continue;
    fail_msg("%s: element %lld is %.9g, expected %.9g", cpu, (long long)i, b, a);
  }
}

typedef struct input {
  const void *data;
} input;

/* Runs K under S on all levels; operand i is random, or INPUTS[i].data when given. */
static void check(fixture *f, cmz_kernel *k, const cmz_schedule *s, const int64_t *params,
                  const input *inputs, double tolerance) {
  void *want[8], *got[8];
  size_t bytes[8];
  assert_int_equal(cmz_kernel_verify(f->ctx, k), CMZ_OK);
  for (uint32_t pass = 0; cmz_cpu_at(pass); pass++) {
    const cmz_cpu_row *cpu = cmz_cpu_at(pass);
    if (!runs_here(cpu)) continue;
    uint64_t seed = 7;
    for (uint32_t i = 0; i < k->operands.count; i++) {
      const cmz_operand *o = &k->operands.data[i];
      int64_t n = value_of(k, o->elements, params);
      assert_true(cmz_dtype_bytes(o->dtype, (size_t)n, &bytes[i]));
      want[i] = calloc(1, bytes[i] + 1);
      got[i] = calloc(1, bytes[i] + 1);
      for (int64_t j = 0; j < n; j++) {
        double v = random_value(&seed);
        if (!cmz_dtype_is_float(o->dtype)) v = floor(v * 100);
        if (o->dtype == CMZ_BOOL || o->dtype == CMZ_U8) v = fabs(v);
        if (o->dtype == CMZ_BOOL) v = v > 50;
        cmz_dtype_set_f64(o->dtype, want[i], (size_t)j, v);
      }
      if (inputs && inputs[i].data) memcpy(want[i], inputs[i].data, bytes[i]);
      memcpy(got[i], want[i], bytes[i]);
    }
    assert_int_equal(cmz_kernel_interpret(f->ctx, k, want, params), CMZ_OK);
    call(f, k, s, cpu, got, params);
    for (uint32_t i = 0; i < k->operands.count; i++) {
      compare(k->operands.data[i].dtype, want[i], got[i],
              value_of(k, k->operands.data[i].elements, params), tolerance, cpu->name);
      free(want[i]);
      free(got[i]);
    }
  }
}

/* ---- tests ---- */

/* Every extent kind: fixed, run-time; with and without tiles; row and column tails. */
static void matmul_case(fixture *f, int64_t m, int64_t n, int64_t kk, bool dynamic, uint32_t tile_m,
                        uint32_t tile_n) {
  cmz_kernel *k = cmz_kernel_create(f->ctx->arena, "matmul");
  int64_t params[] = {m, n, kk};
  cmz_expr xm = ix(k, m), xn = ix(k, n), xk = ix(k, kk);
  if (dynamic) {
    k->param_count = 3;
    xm = cmz_x_param(k, 0), xn = cmz_x_param(k, 1), xk = cmz_x_param(k, 2);
  }
  uint16_t c = cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, mul(k, xm, xn));
  uint16_t a = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, mul(k, xm, xk));
  uint16_t w = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, true, mul(k, xk, xn));
  uint16_t im = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, xm),
           in = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, xn),
           ik = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, xk);
  cmz_expr am = cmz_x_axis(k, im), an = cmz_x_axis(k, in), ak = cmz_x_axis(k, ik);
  cmz_expr body =
      mul(k, cmz_x_load(k, a, at2(k, am, xk, ak)), cmz_x_load(k, w, at2(k, ak, xn, an)));
  cmz_expr sum = cmz_x_reduce(k, CMZ_REDUCE_SUM, body, &ik, 1);
  uint16_t axes[] = {im, in};
  store(k, c, at2(k, am, xn, an), sum, axes, 2);
  cmz_schedule s = plain(k);
  s.axes[im] = (cmz_axis_schedule){.tile = tile_m, .unroll = 3, .lanes = 1};
  s.axes[in] = (cmz_axis_schedule){.tile = tile_n, .unroll = 2, .lanes = 8, .order = 1};
  s.axes[ik].unroll = 4;
  check(f, k, &s, params, NULL, 1e-5);
}

static void test_matmul(void **state) {
  fixture *f = *state;
  matmul_case(f, 6, 32, 8, false, 0, 0);
  matmul_case(f, 7, 37, 9, false, 0, 0);
  matmul_case(f, 7, 37, 9, true, 0, 0);
  matmul_case(f, 13, 70, 5, false, 6, 32);
  matmul_case(f, 13, 70, 5, true, 6, 32);
  matmul_case(f, 13, 53, 5, false, 4, 12);
  matmul_case(f, 13, 53, 5, true, 4, 12);
}

/* A sum in chains: 2^24, then ones, which are lost one by one but not as the sum of a chain. Whole
 * tiles and tails add in the same order. */
static void test_chains(void **state) {
  fixture *f = *state;
  const int64_t rows = 7, terms = 40, columns = 16;
  static const struct {
    uint32_t chain;
    uint16_t unroll;
    float want;
  } cases[] = {
      {0, 1, 16777216}, {16, 4, 16777240}, {20, 4, 16777236}, {1, 1, 16777216}, {40, 4, 16777216}};
  float a[7 * 40], w[40], got[7 * 16];
  for (int i = 0; i < rows * terms; i++) a[i] = i % terms == 0 ? 16777216.0f : 1.0f;
  for (int i = 0; i < terms; i++) w[i] = 1;
  for (uint32_t i = 0; i < CMZ_COUNT_OF(cases); i++) {
    cmz_kernel *k = cmz_kernel_create(f->ctx->arena, "chains");
    uint16_t y = cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, ix(k, rows * columns));
    uint16_t x = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, ix(k, rows * terms));
    uint16_t v = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, true, ix(k, terms));
    uint16_t axes[] = {cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, rows)),
                       cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, columns))};
    uint16_t ik = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, ix(k, terms));
    k->axes.data[ik].chain = cases[i].chain;
    cmz_expr r = cmz_x_axis(k, axes[0]), c = cmz_x_axis(k, axes[1]), t = cmz_x_axis(k, ik);
    cmz_expr body = mul(k, cmz_x_load(k, x, at2(k, r, ix(k, terms), t)), cmz_x_load(k, v, t));
    store(k, y, at2(k, r, ix(k, columns), c), cmz_x_reduce(k, CMZ_REDUCE_SUM, body, &ik, 1), axes,
          2);
    cmz_schedule s = plain(k);
    s.axes[axes[0]].unroll = 5;
    s.axes[axes[1]].lanes = 4;
    s.axes[ik].unroll = cases[i].unroll;
    for (uint32_t pass = 0; cmz_cpu_at(pass); pass++) {
      const cmz_cpu_row *cpu = cmz_cpu_at(pass);
      if (!runs_here(cpu)) continue;
      call(f, k, &s, cpu, (void *[]){got, a, w}, NULL);
      for (int j = 0; j < rows * columns; j++) assert_float_equal(got[j], cases[i].want, 0);
    }
  }
}

/* The text form again: what was printed is read. */
static cmz_kernel *reread(fixture *f, const cmz_kernel *k) {
  cmz_text text = {.arena = f->ctx->arena}, again = {.arena = f->ctx->arena};
  cmz_kernel *copy;
  cmz_kernel_print(k, &text);
  assert_int_equal(cmz_kernel_parse(f->ctx, f->ctx->arena, text.data, &copy), CMZ_OK);
  cmz_kernel_print(copy, &again);
  assert_string_equal(text.data, again.data);
  assert_int_equal(cmz_kernel_verify(f->ctx, copy), CMZ_OK);
  return copy;
}

/* sum + 4 + 1 where the sum is of the chains 2^24 and -2^24: what is added comes after the sum, or,
 * where its operand may start a sum, before the first chain, in which it is lost; 4 never is. A
 * single chain is complete before anything is added. The chained axis may stand inside of another.
 */
static void test_started_sums(void **state) {
  fixture *f = *state;
  static const struct {
    uint32_t chain, taps;
    bool starts, inside;
    float want;
  } cases[] = {{20, 1, false, false, 5}, {20, 1, true, false, 4}, {40, 1, true, false, 5},
               {1, 1, true, false, 5},   {20, 2, true, true, 4},  {20, 2, true, false, 4}};
  float x[40 * 2] = {0}, four = 4, ones[3 * 8], got[3 * 8];
  for (int i = 0; i < 24; i++) ones[i] = 1;
  for (uint32_t i = 0; i < CMZ_COUNT_OF(cases); i++) {
    uint32_t taps = cases[i].taps;
    memset(x, 0, sizeof x);
    x[0] = 16777216;
    x[20 * taps] = -16777216;
    cmz_kernel *k = cmz_kernel_create(f->ctx->arena, "started");
    uint16_t y = cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, ix(k, 24));
    uint16_t ox = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, ix(k, 40 * taps));
    uint16_t b = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, true, ix(k, 1));
    uint16_t o = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, ix(k, 24));
    uint16_t axes[] = {cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, 3)),
                       cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, 8))};
    uint16_t r[] = {cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, ix(k, 40)),
                    cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, ix(k, taps))};
    k->axes.data[r[0]].chain = cases[i].chain;
    cmz_expr at = at2(k, cmz_x_axis(k, axes[0]), ix(k, 8), cmz_x_axis(k, axes[1]));
    cmz_expr one = cmz_x_load(k, o, at);
    cmz_expr xs = cmz_x_load(k, ox, at2(k, cmz_x_axis(k, r[0]), ix(k, taps), cmz_x_axis(k, r[1])));
    cmz_expr sum = cmz_x_reduce(k, CMZ_REDUCE_SUM, mul(k, xs, cmz_x_load(k, o, at)), r, 2);
    cmz_expr biased = add(k, sum, cmz_x_load(k, b, ix(k, 0)));
    store(k, y, at, add(k, one, biased), axes, 2);
    bool starts[4] = {false, false, false, cases[i].starts};
    cmz_kernel_start_sums(k, starts);
    cmz_kernel_compact(k);
    k = reread(f, k);
    cmz_schedule s = plain(k);
    s.axes[0].unroll = 2;
    s.axes[1].lanes = 4;
    s.axes[2].unroll = 4;
    if (cases[i].inside) {
      s.axes[2].order = 3;
      s.axes[3].order = 2;
    }
    for (uint32_t pass = 0; cmz_cpu_at(pass); pass++) {
      const cmz_cpu_row *cpu = cmz_cpu_at(pass);
      if (!runs_here(cpu)) continue;
      call(f, k, &s, cpu, (void *[]){got, x, &four, ones}, NULL);
      for (int j = 0; j < 24; j++) assert_float_equal(got[j], cases[i].want, 0);
    }
  }
}

/* Four interleaved sums lose nothing where one sum in order would; the last two terms come last.
 * Along memory and across it, of known and unknown extent. */
static void test_strands(void **state) {
  fixture *f = *state;
  static const float terms[10] = {16777216, 1, -16777216, 1, 0, 1, 0, 1, 1, 1};
  float x[8 * 10], got[8];
  for (int variant = 0; variant < 8; variant++) {
    bool across = variant & 1, dynamic = variant & 2;
    uint32_t strands = variant & 4 ? 4 : 0;
    for (int i = 0; i < 80; i++) x[i] = terms[across ? i / 8 : i % 10];
    cmz_kernel *k = cmz_kernel_create(f->ctx->arena, "strands");
    int64_t params[] = {10};
    k->param_count = 1;
    cmz_expr n = dynamic ? cmz_x_param(k, 0) : ix(k, 10), rows = ix(k, 8);
    uint16_t y = cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, rows);
    uint16_t ox = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, mul(k, rows, n));
    uint16_t row = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, rows),
             r = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, n);
    k->axes.data[r].strands = strands;
    cmz_expr ar = cmz_x_axis(k, row), at = cmz_x_axis(k, r);
    cmz_expr v = cmz_x_load(k, ox, across ? at2(k, at, rows, ar) : at2(k, ar, n, at));
    store(k, y, ar, cmz_x_reduce(k, CMZ_REDUCE_SUM, v, &r, 1), &row, 1);
    k = reread(f, k);
    cmz_schedule s = plain(k);
    s.axes[row].lanes = across ? 4 : 1;
    s.axes[row].unroll = 2;
    s.reduce_lanes = strands ? 4 : 1;
    for (uint32_t pass = 0; cmz_cpu_at(pass); pass++) {
      const cmz_cpu_row *cpu = cmz_cpu_at(pass);
      if (!runs_here(cpu)) continue;
      call(f, k, &s, cpu, (void *[]){got, x}, params);
      for (int j = 0; j < 8; j++) assert_float_equal(got[j], strands ? 6 : 5, 0);
    }
  }
}

static void test_softmax(void **state) {
  fixture *f = *state;
  for (int dynamic = 0; dynamic < 2; dynamic++) {
    cmz_kernel *k = cmz_kernel_create(f->ctx->arena, "softmax");
    int64_t params[] = {37};
    k->param_count = 1;
    cmz_expr n = dynamic ? cmz_x_param(k, 0) : ix(k, 37), rows = ix(k, 5);
    uint16_t y = cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, mul(k, rows, n));
    uint16_t x = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, mul(k, rows, n));
    uint16_t ir = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, rows),
             ic = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, n),
             r1 = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, n),
             r2 = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, n);
    cmz_expr row = cmz_x_axis(k, ir);
    cmz_expr max = cmz_x_reduce(k, CMZ_REDUCE_MAX,
                                cmz_x_load(k, x, at2(k, row, n, cmz_x_axis(k, r1))), &r1, 1);
    cmz_expr e =
        cmz_x1(k, CMZ_X_EXP,
               cmz_x2(k, CMZ_X_SUB, cmz_x_load(k, x, at2(k, row, n, cmz_x_axis(k, r2))), max));
    cmz_expr sum = cmz_x_reduce(k, CMZ_REDUCE_SUM, e, &r2, 1);
    cmz_expr at = at2(k, row, n, cmz_x_axis(k, ic));
    cmz_expr v = cmz_x1(k, CMZ_X_EXP, cmz_x2(k, CMZ_X_SUB, cmz_x_load(k, x, at), max));
    uint16_t axes[] = {ir, ic};
    store(k, y, at, cmz_x2(k, CMZ_X_DIV, v, sum), axes, 2);
    cmz_schedule s = plain(k);
    s.axes[ir].tile = 2;
    s.axes[ic].lanes = 8;
    s.axes[ic].unroll = 2;
    s.reduce_lanes = 8;
    s.reduce_unroll = 2;
    check(f, k, &s, params, NULL, 1e-6);
  }
}

/* A padded convolution with channels last: guarded loads under unrolled and vector axes. */
static void conv_case(fixture *f, int vector_axis) {
  enum { C = 5, O = 9, H = 6, W = 11 };
  cmz_kernel *k = cmz_kernel_create(f->ctx->arena, "conv");
  uint16_t y = cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, ix(k, H * W * O));
  uint16_t x = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, false, ix(k, H * W * C));
  uint16_t w = cmz_kernel_add_operand(k, CMZ_F32, CMZ_READ, true, ix(k, 9 * C * O));
  uint16_t ih = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, H)),
           iw = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, W)),
           io = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, O)),
           rh = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, ix(k, 3)),
           rw = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, ix(k, 3)),
           rc = cmz_kernel_add_axis(k, CMZ_AXIS_REDUCE, ix(k, C));
  cmz_expr xh = add(k, add(k, cmz_x_axis(k, ih), cmz_x_axis(k, rh)), ix(k, -1));
  cmz_expr xw = add(k, add(k, cmz_x_axis(k, iw), cmz_x_axis(k, rw)), ix(k, -1));
  cmz_expr c = cmz_x_axis(k, rc), o = cmz_x_axis(k, io), zero = ix(k, 0);
  cmz_expr in = cmz_x2(
      k, CMZ_X_AND,
      cmz_x2(k, CMZ_X_AND, cmz_x2(k, CMZ_X_LE, zero, xh), cmz_x2(k, CMZ_X_LT, xh, ix(k, H))),
      cmz_x2(k, CMZ_X_AND, cmz_x2(k, CMZ_X_LE, zero, xw), cmz_x2(k, CMZ_X_LT, xw, ix(k, W))));
  cmz_expr lx = cmz_x_load(k, x, at2(k, at2(k, xh, ix(k, W), xw), ix(k, C), c));
  lx = cmz_x_select(k, in, lx, cmz_x_float(k, CMZ_F32, 0));
  cmz_expr tap = at2(k, cmz_x_axis(k, rh), ix(k, 3), cmz_x_axis(k, rw));
  cmz_expr lw = cmz_x_load(k, w, at2(k, at2(k, tap, ix(k, C), c), ix(k, O), o));
  uint16_t ra[] = {rh, rw, rc};
  cmz_expr sum = cmz_x_reduce(k, CMZ_REDUCE_SUM, mul(k, lx, lw), ra, 3);
  cmz_expr pixel = at2(k, cmz_x_axis(k, ih), ix(k, W), cmz_x_axis(k, iw));
  uint16_t axes[] = {ih, iw, io};
  store(k, y, at2(k, pixel, ix(k, O), o), cmz_x2(k, CMZ_X_MAX, sum, cmz_x_float(k, CMZ_F32, 0)),
        axes, 3);
  cmz_schedule s = plain(k);
  s.axes[ih].tile = 2;
  if (vector_axis == 0) {
    s.axes[iw].unroll = 4;
    s.axes[io].lanes = 8;
    s.axes[rw].unroll = 3;
  } else { /* gathers along the width */
    s.axes[iw].lanes = 4;
    s.axes[io].unroll = 3;
  }
  s.axes[rc].unroll = 2;
  s.reduce_lanes = 4;
  check(f, k, &s, NULL, NULL, 1e-5);
}

static void test_conv(void **state) {
  conv_case(*state, 0);
  conv_case(*state, 1);
}

/* Each stored type in, each out. */
static void test_types(void **state) {
  fixture *f = *state;
  static const cmz_dtype types[] = {CMZ_F32, CMZ_F64, CMZ_F16, CMZ_BF16, CMZ_I8,  CMZ_U8,  CMZ_I16,
                                    CMZ_U16, CMZ_I32, CMZ_I64, CMZ_U32,  CMZ_U64, CMZ_BOOL};
  for (size_t i = 0; i < CMZ_COUNT_OF(types); i++) {
    cmz_kernel *k = cmz_kernel_create(f->ctx->arena, "types");
    cmz_dtype t = types[i], c = cmz_dtype_info(t)->compute;
    uint16_t y = cmz_kernel_add_operand(k, t, CMZ_WRITE, false, ix(k, 21));
    uint16_t z = cmz_kernel_add_operand(k, CMZ_F32, CMZ_WRITE, false, ix(k, 21));
    uint16_t x = cmz_kernel_add_operand(k, t, CMZ_READ, false, ix(k, 42));
    uint16_t a = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, 21));
    cmz_expr at = cmz_x_axis(k, a), v = cmz_x_load(k, x, at);
    cmz_expr g = cmz_x_load(k, x, mul(k, at, ix(k, 2)));
    if (c != CMZ_BOOL) v = add(k, v, g);
    else v = cmz_x2(k, CMZ_X_XOR, v, g);
    store(k, y, at, v, &a, 1);
    store(k, z, at, cmz_x_cast(k, g, CMZ_F32), &a, 1);
    cmz_schedule s = plain(k);
    s.axes[a].lanes = 8;
    check(f, k, &s, NULL, NULL, t == CMZ_F16 ? 1e-3 : t == CMZ_BF16 ? 1e-2 : 1e-7);
  }
}

static const float special[] = {
    0.0f,   -0.0f,   1,     -1,     0.5f,        -0.5f,      2,        -2,         10,
    -10,    88,      -88,   104,    -104,        1e-3f,      -1e-3f,   1e-20f,     -1e-20f,
    1e-40f, -1e-40f, 1e10f, -1e10f, 3e38f,       -3e38f,     INFINITY, -INFINITY,  NAN,
    0.9f,   -0.9f,   0.3f,  -0.3f,  3.14159265f, 1.5707963f, 100,      12345.678f, -54321,
    0.62f,  0.63f,   0.92f, 0.93f,  0.99999f,    1.00001f,   5,        -5};

static void test_math(void **state) {
  fixture *f = *state;
  for (int wide = 0; wide < 2; wide++)
    for (int op = CMZ_X_NEG; op <= CMZ_X_SIGMOID; op++) {
      cmz_kernel *k = cmz_kernel_create(f->ctx->arena, "math");
      enum { N = CMZ_COUNT_OF(special) };
      cmz_dtype t = wide ? CMZ_F64 : CMZ_F32;
      uint16_t y = cmz_kernel_add_operand(k, t, CMZ_WRITE, false, ix(k, N));
      uint16_t x = cmz_kernel_add_operand(k, t, CMZ_READ, false, ix(k, N));
      uint16_t a = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, ix(k, N));
      store(k, y, cmz_x_axis(k, a), cmz_x1(k, (cmz_expr_op)op, cmz_x_load(k, x, cmz_x_axis(k, a))),
            &a, 1);
      cmz_schedule s = plain(k);
      s.axes[a].lanes = 8;
      double doubles[N];
      for (int i = 0; i < N; i++) doubles[i] = (double)special[i];
      /* the largest angles are beyond what reduction by a few parts of pi can do */
      if (op == CMZ_X_SIN || op == CMZ_X_COS || op == CMZ_X_TAN)
        for (int i = 0; i < N; i++)
          if (fabs(doubles[i]) > 1e6) doubles[i] = 1e5 + i;
      float singles[N];
      for (int i = 0; i < N; i++) singles[i] = (float)doubles[i];
      input in[2] = {{NULL}, {wide ? (const void *)doubles : (const void *)singles}};
      check(f, k, &s, NULL, in, wide ? 2e-13 : 4e-7);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_matmul, setup, teardown),
      cmocka_unit_test_setup_teardown(test_chains, setup, teardown),
      cmocka_unit_test_setup_teardown(test_started_sums, setup, teardown),
      cmocka_unit_test_setup_teardown(test_strands, setup, teardown),
      cmocka_unit_test_setup_teardown(test_softmax, setup, teardown),
      cmocka_unit_test_setup_teardown(test_conv, setup, teardown),
      cmocka_unit_test_setup_teardown(test_types, setup, teardown),
      cmocka_unit_test_setup_teardown(test_math, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
