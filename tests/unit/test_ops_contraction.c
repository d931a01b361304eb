/* test_ops_contraction.c - convolutions, matrix products, attention and their quantised forms:
 * kernels against reference values on awkward sizes, and a few numbers worked out by hand. */
#include "op_fixture.h"

static void ints(const char *name, const int64_t *values, size_t count) {
  cmz_node_set_ints(F->m, F->node, name, values, (uint32_t)count);
}
static void number(const char *name, int64_t v) { cmz_node_set_int(F->m, F->node, name, v); }
static void word(const char *name, const char *v) { cmz_node_set_string(F->m, F->node, name, v); }
static cmz_vid f32s(const int64_t *shape, size_t rank) {
  return given(CMZ_F32, shape, rank, -1, 1);
}

static void test_conv_by_hand(void **state) {
  (void)state;
  cmz_array x = array_of(CMZ_F32, 3, (int64_t[]){1, 1, 4}),
            w = array_of(CMZ_F32, 3, (int64_t[]){1, 1, 3});
  for (size_t i = 0; i < 4; i++) cmz_dtype_set_f64(CMZ_F32, x.data, i, (double)(i + 1));
  for (size_t i = 0; i < 3; i++)
    cmz_dtype_set_f64(CMZ_F32, w.data, i, i == 0 ? 1 : i == 1 ? 10 : 100);
  cmz_vid in[2] = {given_array(x, NULL), given_array(w, NULL)};
  apply("Conv", 2, in, 1);
  ints("pads", SHAPE(1, 1));
  cmz_array y = check();
  WANTS(&y, 210, 321, 432, 43);
}

static void test_conv_forms(void **state) {
  (void)state;
  static const struct {
    int64_t group, stride, dilation, pad;
    const char *mode;
  } forms[] = {{1, 1, 1, 0, NULL},   {1, 2, 1, 1, NULL},         {3, 1, 2, 2, NULL},
               {6, 2, 1, 1, NULL},   {2, 3, 1, 0, "SAME_UPPER"}, {1, 2, 2, 0, "SAME_LOWER"},
               {1, 1, 1, 0, "VALID"}};
  for (size_t i = 0; i < CMZ_COUNT_OF(forms); i++) {
    cmz_vid in[3] = {f32s(SHAPE(2, 6, 9, 7)), f32s((int64_t[]){12, 6 / forms[i].group, 3, 2}, 4),
                     f32s(SHAPE(12))};
    apply("Conv", 3, in, 1);
    number("group", forms[i].group);
    ints("strides", (int64_t[]){forms[i].stride, 1}, 2);
    ints("dilations", (int64_t[]){1, forms[i].dilation}, 2);
    if (forms[i].mode) word("auto_pad", forms[i].mode);
    else ints("pads", (int64_t[]){forms[i].pad, 0, forms[i].pad, forms[i].pad}, 4);
    check();
    again();
  }
}

static void test_conv_symbolic(void **state) {
  (void)state;
  static const char *const names[] = {"n", NULL, "h", "w"};
  cmz_vid in[2] = {given_symbolic(CMZ_F32, SHAPE(2, 3, 8, 5), names, -1, 1),
                   f32s(SHAPE(4, 3, 3, 3))};
  apply("Conv", 2, in, 1);
  word("auto_pad", "SAME_UPPER");
  ints("strides", SHAPE(2, 2));
  check();
}

static void test_conv_transpose(void **state) {
  (void)state;
  static const struct {
    int64_t stride, dilation, pad, extra, group;
  } forms[] = {{1, 1, 0, 0, 1}, {2, 1, 1, 1, 1}, {3, 1, 0, 0, 2}, {2, 2, 1, 0, 1}, {4, 1, 2, 3, 2}};
  for (size_t i = 0; i < CMZ_COUNT_OF(forms); i++) {
    cmz_vid in[3] = {f32s(SHAPE(2, 4, 5, 3)), f32s(SHAPE(4, 3, 3, 4)),
                     f32s((int64_t[]){3 * forms[i].group}, 1)};
    apply("ConvTranspose", 3, in, 1);
    number("group", forms[i].group);
    ints("strides", (int64_t[]){forms[i].stride, forms[i].stride}, 2);
    ints("dilations", (int64_t[]){forms[i].dilation, 1}, 2);
    ints("pads", (int64_t[]){forms[i].pad, 0, 0, forms[i].pad}, 4);
    ints("output_padding", (int64_t[]){forms[i].extra, 0}, 2);
    check();
    again();
  }
}

static void test_matmul_ranks(void **state) {
  (void)state;
  static const struct {
    int64_t a[4], b[4];
    uint32_t ra, rb;
  } forms[] = {{{5}, {5}, 1, 1},       {{5}, {5, 3}, 1, 2},       {{4, 5}, {5}, 2, 1},
               {{3, 5}, {5, 7}, 2, 2}, {{2, 3, 5}, {5, 7}, 3, 2}, {{2, 1, 3, 5}, {4, 5, 2}, 4, 3},
               {{5}, {2, 5, 3}, 1, 3}};
  for (size_t i = 0; i < CMZ_COUNT_OF(forms); i++) {
    cmz_vid in[2] = {f32s(forms[i].a, forms[i].ra), f32s(forms[i].b, forms[i].rb)};
    apply("MatMul", 2, in, 1);
    check();
    again();
  }
  static const char *const names[] = {"batch", NULL, "k"}, *const one[] = {"other", "k", NULL};
  cmz_vid in[2] = {given_symbolic(CMZ_F32, SHAPE(3, 4, 6), names, -1, 1),
                   given_symbolic(CMZ_F32, SHAPE(1, 6, 2), one, -1, 1)};
  apply("MatMul", 2, in, 1);
  check();
}

static void test_gemm(void **state) {
  (void)state;
  for (int t = 0; t < 4; t++) {
    cmz_vid in[3] = {f32s(t & 1 ? (int64_t[]){5, 4} : (int64_t[]){4, 5}, 2),
                     f32s(t & 2 ? (int64_t[]){3, 5} : (int64_t[]){5, 3}, 2), f32s(SHAPE(3))};
    apply("Gemm", 3, in, 1);
    number("transA", t & 1);
    number("transB", t >> 1);
    cmz_node_set_float(F->m, F->node, "alpha", 0.5);
    cmz_node_set_float(F->m, F->node, "beta", 2);
    check();
    again();
  }
}

static void test_fused_matmul(void **state) {
  (void)state;
  cmz_vid in[2] = {f32s(SHAPE(2, 5, 3)), f32s(SHAPE(4, 5))};
  apply("FusedMatMul", 2, in, 1);
  number("transA", 1);
  number("transB", 1);
  cmz_node_set_float(F->m, F->node, "alpha", 0.25);
  check();
}

static void test_einsum(void **state) {
  (void)state;
  static const char *const equations[] = {"ij,jk->ik", "ij,jk", "bij,bkj->bik",
                                          "...ij,...jk->...ik", "ij,ij->"};
  static const int64_t shapes[5][2][3] = {{{3, 4}, {4, 5}},
                                          {{3, 4}, {4, 5}},
                                          {{2, 3, 4}, {2, 5, 4}},
                                          {{2, 3, 4}, {1, 4, 5}},
                                          {{3, 4}, {3, 4}}};
  for (size_t i = 0; i < CMZ_COUNT_OF(equations); i++) {
    uint32_t rank = i == 2 || i == 3 ? 3 : 2;
    cmz_vid in[2] = {f32s(shapes[i][0], rank), f32s(shapes[i][1], rank)};
    apply("Einsum", 2, in, 1);
    word("equation", equations[i]);
    check();
    again();
  }
  cmz_vid square = f32s(SHAPE(4, 4));
  apply("Einsum", 1, &square, 1);
  word("equation", "ii->i");
  check();
}

static void test_attention(void **state) {
  (void)state;
  cmz_vid in[3] = {f32s(SHAPE(2, 4, 5, 8)), f32s(SHAPE(2, 2, 6, 8)), f32s(SHAPE(2, 2, 6, 3))};
  apply("Attention", 3, in, 1);
  number("is_causal", 1);
  check();
}

/* Scales and zero points as constants of one element. */
static cmz_vid scale(double v) { return cmz_value_add_scalar(F->m, F->g, CMZ_F32, v); }
static cmz_vid zero_point(cmz_dtype type, double v) {
  return cmz_value_add_scalar(F->m, F->g, type, v);
}

static void test_quantized_products(void **state) {
  (void)state;
  F->tolerance = 0;
  cmz_vid conv[8] = {given(CMZ_U8, SHAPE(1, 3, 6, 6), 0, 255),
                     scale(0.02),
                     zero_point(CMZ_U8, 128),
                     given(CMZ_I8, SHAPE(4, 3, 3, 3), -128, 127),
                     scale(0.01),
                     zero_point(CMZ_I8, 0),
                     scale(0.1),
                     zero_point(CMZ_U8, 100)};
  apply("QLinearConv", 8, conv, 1);
  ints("pads", SHAPE(1, 1, 1, 1));
  check();
  again();
  cmz_vid product[8] = {given(CMZ_I8, SHAPE(3, 17), -128, 127),
                        scale(0.02),
                        zero_point(CMZ_I8, 3),
                        given(CMZ_I8, SHAPE(17, 5), -128, 127),
                        scale(0.01),
                        zero_point(CMZ_I8, -2),
                        scale(0.05),
                        zero_point(CMZ_I8, 7)};
  apply("QLinearMatMul", 8, product, 1);
  check();
  again();
  cmz_vid integer[4] = {given(CMZ_U8, SHAPE(2, 9), 0, 255), given(CMZ_I8, SHAPE(9, 4), -128, 127),
                        zero_point(CMZ_U8, 12), zero_point(CMZ_I8, 5)};
  apply("MatMulInteger", 4, integer, 1);
  check();
}

static void test_quantize(void **state) {
  (void)state;
  cmz_array x = array_of(CMZ_F32, 1, (int64_t[]){6});
  const double values[] = {0, 2.5, 3.5, -7, 600, -0.5};
  for (size_t i = 0; i < 6; i++) cmz_dtype_set_f64(CMZ_F32, x.data, i, values[i]);
  cmz_vid in[3] = {given_array(x, NULL), scale(1), zero_point(CMZ_U8, 5)};
  apply("QuantizeLinear", 3, in, 1);
  cmz_array y = check();
  WANTS(&y, 5, 7, 9, 0, 255, 5);
  again();
  cmz_vid per_axis[3] = {given(CMZ_I8, SHAPE(2, 3, 4), -128, 127),
                         given(CMZ_F32, SHAPE(3), 0.01, 1), given(CMZ_I8, SHAPE(3), -9, 9)};
  apply("DequantizeLinear", 3, per_axis, 1);
  check();
}

static void test_refusals(void **state) {
  (void)state;
  cmz_vid in[2] = {f32s(SHAPE(1, 3, 4, 4)), f32s(SHAPE(2, 4, 3, 3))};
  apply("Conv", 2, in, 1);
  refuses(CMZ_E_INPUT);
  again();
  cmz_vid product[2] = {f32s(SHAPE(3, 4)), f32s(SHAPE(5, 6))};
  apply("MatMul", 2, product, 1);
  refuses(CMZ_E_INPUT);
  again();
  cmz_vid large[2] = {f32s(SHAPE(1, 1, 2, 2)), f32s(SHAPE(1, 1, 9, 9))};
  apply("Conv", 2, large, 1);
  refuses(CMZ_E_INPUT);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      T(test_conv_by_hand),       T(test_conv_forms),   T(test_conv_symbolic),
      T(test_conv_transpose),     T(test_matmul_ranks), T(test_gemm),
      T(test_fused_matmul),       T(test_einsum),       T(test_attention),
      T(test_quantized_products), T(test_quantize),     T(test_refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
