/* test_ops_signal.c - windows, the mel matrix and Fourier transforms: kernels and expansions
 * against evaluation. */
#include "op_fixture.h"

static cmz_vid number(cmz_dtype dtype, double v) {
  return cmz_value_add_scalar(F->m, F->g, dtype, v);
}

static void test_windows(void **state) {
  (void)state;
  static const char *const ops[] = {"HannWindow", "HammingWindow", "BlackmanWindow"};
  for (size_t i = 0; i < 3; i++)
    for (int periodic = 0; periodic < 2; periodic++)
      for (int run_time = 0; run_time < 2; run_time++) {
        int64_t size = 10;
        cmz_array a = array_of(CMZ_I64, 0, NULL);
        memcpy(a.data, &size, sizeof size);
        cmz_vid x = run_time ? given_array(a, NULL) : number(CMZ_I64, 10);
        apply(ops[i], 1, &x, 1);
        cmz_node_set_int(F->m, F->node, "periodic", periodic);
        cmz_array y = check();
        assert_int_equal(y.shape[0], 10);
        again();
      }
}

static void test_mel(void **state) {
  (void)state;
  cmz_vid x[5] = {number(CMZ_I64, 8), number(CMZ_I64, 16), number(CMZ_I64, 8192),
                  number(CMZ_F32, 0), number(CMZ_F32, 4096)};
  apply("MelWeightMatrix", 5, x, 1);
  cmz_array y = check();
  assert_int_equal(y.shape[0], 9);
  assert_int_equal(y.shape[1], 8);
}

static void dft(cmz_vid x, cmz_vid length, int64_t axis, bool inverse, bool onesided) {
  cmz_vid in[3] = {x, length, number(CMZ_I64, (double)axis)};
  apply("DFT", 3, in, 1);
  cmz_node_set_int(F->m, F->node, "inverse", inverse);
  cmz_node_set_int(F->m, F->node, "onesided", onesided);
  F->tolerance = 1e-4;
  check();
  again();
}

static void test_dft(void **state) {
  (void)state;
  dft(given(CMZ_F32, SHAPE(2, 7, 3, 1), -1, 1), 0, 1, false, false);
  dft(given(CMZ_F32, SHAPE(2, 7, 3, 2), -1, 1), 0, -2, true, false);
  dft(given(CMZ_F32, SHAPE(2, 8, 1), -1, 1), 0, 1, false, true);
  dft(given(CMZ_F32, SHAPE(6, 1), -1, 1), 0, 0, false, false);
  dft(given(CMZ_F32, SHAPE(2, 8, 1), -1, 1), number(CMZ_I64, 5), 1, false, true);
  dft(given(CMZ_F32, SHAPE(2, 4, 2), -1, 1), number(CMZ_I64, 9), 1, true, false);
  dft(given_symbolic(CMZ_F32, SHAPE(2, 6, 1), (const char *const[]){"n", "length", NULL}, -1, 1), 0,
      1, false, true);
  dft(given_symbolic(CMZ_F64, SHAPE(2, 6, 2), (const char *const[]){"n", "length", NULL}, -1, 1), 0,
      1, true, false);
  cmz_array a = array_of(CMZ_I64, 0, NULL);
  int64_t length = 5;
  memcpy(a.data, &length, sizeof length);
  cmz_vid x = given(CMZ_F32, SHAPE(2, 8, 1), -1, 1);
  dft(x, given_array(a, NULL), 1, false, false);
}

/* A cosine of two periods has its two peaks, N/2 high. */
static void test_dft_values(void **state) {
  (void)state;
  int64_t shape[3] = {1, 8, 1};
  cmz_array a = array_of(CMZ_F32, 3, shape);
  for (size_t i = 0; i < 8; i++)
    cmz_dtype_set_f64(CMZ_F32, a.data, i, cos(2 * M_PI * 2 * (double)i / 8));
  cmz_vid x = given_array(a, NULL);
  apply("DFT", 1, &x, 1);
  cmz_array y = check();
  WANTS(&y, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0);
}

static void test_stft(void **state) {
  (void)state;
  F->tolerance = 1e-4;
  cmz_vid x[4] = {given(CMZ_F32, SHAPE(2, 20, 1), -1, 1), number(CMZ_I64, 3), 0,
                  number(CMZ_I64, 8)};
  apply("STFT", 4, x, 1);
  cmz_array y = check();
  assert_int_equal(y.shape[1], 5);
  assert_int_equal(y.shape[2], 5);
  again();
  cmz_vid w[3] = {
      given_symbolic(CMZ_F32, SHAPE(2, 20, 1), (const char *const[]){NULL, "samples", NULL}, -1, 1),
      number(CMZ_I64, 4), given(CMZ_F32, SHAPE(8), 0, 1)};
  apply("STFT", 3, w, 1);
  check();
  again();
  cmz_vid c[4] = {given(CMZ_F32, SHAPE(1, 9, 2), -1, 1), number(CMZ_I64, 2), 0, number(CMZ_I64, 4)};
  apply("STFT", 4, c, 1);
  cmz_node_set_int(F->m, F->node, "onesided", 0);
  check();
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {T(test_windows), T(test_mel), T(test_dft), T(test_dft_values),
                                     T(test_stft)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
