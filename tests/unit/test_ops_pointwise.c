/* test_ops_pointwise.c - pointwise operators: reference values, and kernels against them. */
#include "op_fixture.h"

static const char *const unary[] = {"Abs",
                                    "Neg",
                                    "Sign",
                                    "Floor",
                                    "Ceil",
                                    "Round",
                                    "Exp",
                                    "Sin",
                                    "Cos",
                                    "Tan",
                                    "Atan",
                                    "Sinh",
                                    "Cosh",
                                    "Tanh",
                                    "Asinh",
                                    "Erf",
                                    "Sigmoid",
                                    "Reciprocal",
                                    "Relu",
                                    "Softplus",
                                    "Softsign",
                                    "Mish",
                                    "HardSwish",
                                    "LeakyRelu",
                                    "Elu",
                                    "Selu",
                                    "Celu",
                                    "ThresholdedRelu",
                                    "HardSigmoid",
                                    "Shrink",
                                    "Swish",
                                    "Gelu",
                                    "QuickGelu",
                                    "Affine",
                                    "Scale",
                                    "ScaledTanh",
                                    "ParametricSoftplus",
                                    "IsNaN",
                                    "IsInf",
                                    "Identity",
                                    "FastGelu"};

static void test_unary(void **state) {
  (void)state;
  for (size_t i = 0; i < CMZ_COUNT_OF(unary); i++) {
    cmz_vid x = given(CMZ_F32, SHAPE(2, 3, 5), -3, 3);
    apply(unary[i], 1, &x, 1);
    check();
    again();
    x = given(CMZ_F16, SHAPE(7), -3, 3);
    F->tolerance = 2e-3;
    apply(unary[i], 1, &x, 1);
    check();
    again();
    F->tolerance = 2e-5;
  }
}

static void test_unary_domains(void **state) {
  (void)state;
  static const struct {
    const char *op;
    double low, high;
  } cases[] = {{"Sqrt", 0, 9},  {"Log", 0.01, 9}, {"Asin", -1, 1},
               {"Acos", -1, 1}, {"Acosh", 1, 5},  {"Atanh", -0.9, 0.9}};
  for (size_t i = 0; i < CMZ_COUNT_OF(cases); i++) {
    cmz_vid x = given(CMZ_F64, SHAPE(13), cases[i].low, cases[i].high);
    apply(cases[i].op, 1, &x, 1);
    check();
    again();
  }
}

static void test_integers(void **state) {
  (void)state;
  static const char *const ops[] = {"Add",
                                    "Sub",
                                    "Mul",
                                    "Div",
                                    "Min",
                                    "Max",
                                    "Mod",
                                    "BitwiseAnd",
                                    "BitwiseOr",
                                    "BitwiseXor",
                                    "Equal",
                                    "Less",
                                    "GreaterOrEqual",
                                    "PRelu"};
  static const cmz_dtype types[] = {CMZ_I8,  CMZ_U8,  CMZ_I16, CMZ_U16,
                                    CMZ_I32, CMZ_U32, CMZ_I64, CMZ_U64};
  for (size_t i = 0; i < CMZ_COUNT_OF(ops); i++)
    for (size_t t = 0; t < CMZ_COUNT_OF(types); t++) {
      bool sign = cmz_dtype_info(types[t])->class_ == CMZ_CLASS_SIGNED;
      cmz_vid x[2] = {
          given(types[t], SHAPE(4, 9), sign ? -120 : 0, 120),
          given(types[t], SHAPE(9), sign && ops[i][1] != 'i' && ops[i][1] != 'o' ? -7 : 1, 90)};
      apply(ops[i], 2, x, 1);
      check();
      again();
    }
}

static void test_wraparound(void **state) {
  (void)state;
  int64_t one = 1;
  cmz_array a = array_of(CMZ_I8, 1, &one), b = array_of(CMZ_I8, 1, &one);
  cmz_dtype_set_i64(CMZ_I8, a.data, 0, 100);
  cmz_dtype_set_i64(CMZ_I8, b.data, 0, 100);
  cmz_vid x[2] = {given_array(a, NULL), given_array(b, NULL)};
  apply("Add", 2, x, 1);
  cmz_array y = check();
  WANTS(&y, -56);
}

static void test_broadcast(void **state) {
  (void)state;
  static const char *const ops[] = {"Add", "Sub", "Mul",  "Div",  "Pow",    "Min",
                                    "Max", "Sum", "Mean", "Less", "Greater"};
  for (size_t i = 0; i < CMZ_COUNT_OF(ops); i++) {
    cmz_vid x[2] = {given(CMZ_F32, SHAPE(3, 1, 5), 0.5, 3),
                    given(CMZ_F32, SHAPE(2, 1, 4, 1), 0.5, 3)};
    apply(ops[i], 2, x, 1);
    cmz_array y = check();
    assert_int_equal(y.rank, 4);
    again();
    cmz_vid s[2] = {given(CMZ_F32, NULL, 0, 0.5, 3), given(CMZ_F32, SHAPE(0, 3), 1, 2)};
    apply(ops[i], 2, s, 1);
    check();
    again();
    cmz_vid d[2] = {given_symbolic(CMZ_F32, SHAPE(3, 4), (const char *[]){"n", NULL}, 0.5, 3),
                    given_symbolic(CMZ_F32, SHAPE(1, 4), (const char *[]){"k", NULL}, 0.5, 3)};
    apply(ops[i], 2, d, 1);
    check();
    again();
  }
}

static void test_variadic(void **state) {
  (void)state;
  cmz_vid x[4] = {given(CMZ_F32, SHAPE(3), -1, 1), given(CMZ_F32, SHAPE(2, 1), -1, 1),
                  given(CMZ_F32, NULL, 0, -1, 1), given(CMZ_F32, SHAPE(1, 3), -1, 1)};
  apply("Mean", 4, x, 1);
  check();
}

static void test_pow(void **state) {
  (void)state;
  static const double exponents[] = {0, 1, 2, 3, 7, 0.5, -1, -0.5, 2.5};
  for (size_t i = 0; i < CMZ_COUNT_OF(exponents); i++) {
    cmz_vid x[2] = {given(CMZ_F32, SHAPE(6), 0.2, 3),
                    cmz_value_add_scalar(F->m, F->g, CMZ_F32, exponents[i])};
    apply("Pow", 2, x, 1);
    check();
    again();
  }
  cmz_vid x[2] = {given(CMZ_I32, SHAPE(6), -4, 5), given(CMZ_I64, SHAPE(6), 0, 4)};
  apply("Pow", 2, x, 1);
  check();
}

static void test_mod(void **state) {
  (void)state;
  for (int c_like = 0; c_like < 2; c_like++) {
    cmz_vid x[2] = {given(CMZ_F32, SHAPE(20), -9, 9), given(CMZ_F32, SHAPE(20), -4, 4)};
    apply("Mod", 2, x, 1);
    cmz_node_set_int(F->m, F->node, "fmod", c_like);
    check();
    again();
    cmz_vid y[2] = {given(CMZ_I64, SHAPE(20), -9, 9), given(CMZ_I64, SHAPE(20), 1, 5)};
    apply("Mod", 2, y, 1);
    cmz_node_set_int(F->m, F->node, "fmod", c_like);
    check();
    again();
  }
}

static void test_shift(void **state) {
  (void)state;
  for (int right = 0; right < 2; right++) {
    cmz_vid x[2] = {given(CMZ_U8, SHAPE(20), 0, 255), given(CMZ_U8, SHAPE(20), 0, 12)};
    apply("BitShift", 2, x, 1);
    cmz_node_set_string(F->m, F->node, "direction", right ? "RIGHT" : "LEFT");
    check();
    again();
  }
}

static void test_casts(void **state) {
  (void)state;
  static const cmz_dtype types[] = {
      CMZ_F32,        CMZ_F16,        CMZ_BF16, CMZ_F64, CMZ_I8,   CMZ_U8,       CMZ_I16,
      CMZ_I32,        CMZ_U32,        CMZ_I64,  CMZ_U64, CMZ_BOOL, CMZ_F8E4M3FN, CMZ_F8E5M2,
      CMZ_F8E4M3FNUZ, CMZ_F8E5M2FNUZ, CMZ_I4,   CMZ_U4,  CMZ_U2,   CMZ_I2};
  for (size_t a = 0; a < CMZ_COUNT_OF(types); a++)
    for (size_t b = 0; b < CMZ_COUNT_OF(types); b++) {
      cmz_vid x =
          given(types[a], SHAPE(11), 0,
                types[a] == CMZ_BOOL                 ? 2
                : cmz_dtype_info(types[a])->bits < 8 ? 1 << (cmz_dtype_info(types[a])->bits - 1)
                                                     : 100);
      apply("Cast", 1, &x, 1);
      cmz_node_set_int(F->m, F->node, "to", types[b]);
      check();
      again();
    }
}

static void test_where_and_logic(void **state) {
  (void)state;
  cmz_vid x[3] = {given(CMZ_BOOL, SHAPE(3, 1), 0, 2), given(CMZ_F32, SHAPE(4), -1, 1),
                  given(CMZ_F32, NULL, 0, 5, 6)};
  apply("Where", 3, x, 1);
  check();
  again();
  static const char *const ops[] = {"And", "Or", "Xor", "Equal"};
  for (size_t i = 0; i < CMZ_COUNT_OF(ops); i++) {
    cmz_vid b[2] = {given(CMZ_BOOL, SHAPE(3, 4), 0, 2), given(CMZ_BOOL, SHAPE(4), 0, 2)};
    apply(ops[i], 2, b, 1);
    check();
    again();
  }
  cmz_vid b = given(CMZ_BOOL, SHAPE(5), 0, 2);
  apply("Not", 1, &b, 1);
  check();
  again();
  b = given(CMZ_I16, SHAPE(5), -300, 300);
  apply("BitwiseNot", 1, &b, 1);
  check();
}

static void test_clip(void **state) {
  (void)state;
  cmz_vid x = given(CMZ_F32, SHAPE(9), -9, 9);
  apply("Clip", 1, &x, 1); /* as opset 6 has it */
  cmz_node_set_float(F->m, F->node, "min", -2);
  cmz_node_set_float(F->m, F->node, "max", 6);
  check();
  again();
  cmz_vid y[3] = {given(CMZ_I8, SHAPE(9), -90, 90), 0, given(CMZ_I8, NULL, 0, 10, 11)};
  apply("Clip", 3, y, 1);
  check();
}

static void test_legacy_axis(void **state) {
  (void)state;
  cmz_vid x[2] = {given(CMZ_F32, SHAPE(2, 3, 4, 5), -1, 1), given(CMZ_F32, SHAPE(3), -1, 1)};
  apply("Add", 2, x, 1);
  cmz_node_set_int(F->m, F->node, "broadcast", 1);
  cmz_node_set_int(F->m, F->node, "axis", 1);
  cmz_array y = check();
  assert_int_equal(y.rank, 4);
}

static void test_dropout(void **state) {
  (void)state;
  cmz_vid x = given(CMZ_F32, SHAPE(4), -1, 1);
  apply("Dropout", 1, &x, 2);
  check();
}

static void test_division_by_zero(void **state) {
  (void)state;
  int64_t shape = 3, a[] = {7, -7, INT32_MIN}, b[] = {0, -1, -1};
  cmz_array x = array_of(CMZ_I32, 1, &shape), y = array_of(CMZ_I32, 1, &shape);
  for (size_t i = 0; i < 3; i++) {
    cmz_dtype_set_i64(CMZ_I32, x.data, i, a[i]);
    cmz_dtype_set_i64(CMZ_I32, y.data, i, b[i]);
  }
  cmz_vid in[2] = {given_array(x, NULL), given_array(y, NULL)};
  apply("Div", 2, in, 1);
  ok(prepare(), "inference");
  int64_t symbols[1] = {0};
  cmz_array *values = CMZ_NEW_ARRAY(F->m->arena, cmz_array, F->m->values.count);
  values[in[0]] = x;
  values[in[1]] = y;
  run_kernel(F->node, NULL, values, symbols);
  const cmz_array *q = &values[cmz_node_get(F->m, F->node)->outputs[0]];
  assert_int_equal(cmz_dtype_get_i64(CMZ_I32, q->data, 1), 7);
  assert_int_equal(cmz_dtype_get_i64(CMZ_I32, q->data, 2), INT32_MIN);
}

static void test_refusals(void **state) {
  (void)state;
  cmz_vid x[2] = {given(CMZ_F32, SHAPE(3), 0, 1), given(CMZ_F32, SHAPE(4), 0, 1)};
  apply("Add", 2, x, 1);
  refuses(CMZ_E_INPUT);
  again();
  cmz_vid y[2] = {given(CMZ_F32, SHAPE(3), 0, 1), given(CMZ_F64, SHAPE(3), 0, 1)};
  apply("Add", 2, y, 1);
  refuses(CMZ_E_INPUT);
  again();
  cmz_vid z = given(CMZ_I32, SHAPE(3), 0, 1);
  apply("Sqrt", 1, &z, 1);
  refuses(CMZ_E_INPUT);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {T(test_unary),
                                     T(test_unary_domains),
                                     T(test_integers),
                                     T(test_wraparound),
                                     T(test_broadcast),
                                     T(test_variadic),
                                     T(test_pow),
                                     T(test_mod),
                                     T(test_shift),
                                     T(test_casts),
                                     T(test_where_and_logic),
                                     T(test_clip),
                                     T(test_legacy_axis),
                                     T(test_dropout),
                                     T(test_division_by_zero),
                                     T(test_refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
