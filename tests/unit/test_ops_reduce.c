/* test_ops_reduce.c - reductions, softmax, normalisations, pools, resizing: kernels against
 * reference values, and numbers worked out by hand. */
#include "op_fixture.h"

static void ints(const char *name, const int64_t *values, size_t count) {
  cmz_node_set_ints(F->m, F->node, name, values, (uint32_t)count);
}
static void number(const char *name, int64_t v) { cmz_node_set_int(F->m, F->node, name, v); }
static void word(const char *name, const char *v) { cmz_node_set_string(F->m, F->node, name, v); }
static cmz_vid f32s(const int64_t *shape, size_t rank) {
  return given(CMZ_F32, shape, rank, 0.1, 2);
}

static const char *const kinds[] = {
    "ReduceSum", "ReduceMean", "ReduceMax",    "ReduceMin",       "ReduceProd",
    "ReduceL1",  "ReduceL2",   "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"};

static void test_reductions(void **state) {
  (void)state;
  for (size_t i = 0; i < CMZ_COUNT_OF(kinds); i++) {
    cmz_vid in[2] = {f32s(SHAPE(3, 5, 2)), i64s((int64_t[]){0, -1}, 2)};
    apply(kinds[i], 2, in, 1);
    number("keepdims", 0);
    check();
    again();
    cmz_vid all = given(CMZ_I32, SHAPE(4, 3), -5, 9);
    if (i == 1 || i >= 6) all = f32s(SHAPE(4, 3));
    apply(kinds[i], 1, &all, 1);
    check();
    again();
  }
}

/* The kernels of axes that are only known at run time are checked for every choice of axes. */
static void test_runtime_axes(void **state) {
  (void)state;
  static const int64_t choices[][2] = {{0, 1}, {2, 0}, {-1, 1}};
  for (size_t i = 0; i < CMZ_COUNT_OF(choices); i++)
    for (int keep = 0; keep < 2; keep++) {
      cmz_vid in[2] = {f32s(SHAPE(3, 4, 5)), given_i64s(choices[i], 2)};
      apply("ReduceSum", 2, in, 1);
      number("keepdims", keep);
      check();
      again();
    }
}

static void test_arg_and_cumulative(void **state) {
  (void)state;
  cmz_array x = array_of(CMZ_F32, 1, (int64_t[]){5});
  const double values[] = {1, 7, 3, 7, 0};
  for (size_t i = 0; i < 5; i++) cmz_dtype_set_f64(CMZ_F32, x.data, i, values[i]);
  cmz_vid in = given_array(x, NULL);
  apply("ArgMax", 1, &in, 1);
  cmz_array y = check();
  WANTS(&y, 1);
  again();
  x = array_of(CMZ_F32, 1, (int64_t[]){5});
  for (size_t i = 0; i < 5; i++) cmz_dtype_set_f64(CMZ_F32, x.data, i, values[i]);
  in = given_array(x, NULL);
  apply("ArgMax", 1, &in, 1);
  number("select_last_index", 1);
  y = check();
  WANTS(&y, 3);
  again();
  for (int form = 0; form < 4; form++) {
    cmz_vid pair[2] = {f32s(SHAPE(3, 4)), i64s((int64_t[]){1}, 1)};
    apply("CumSum", 2, pair, 1);
    number("exclusive", form & 1);
    number("reverse", form >> 1);
    check();
    again();
  }
  for (int form = 0; form < 4; form++) { /* long: one pass over the axis */
    cmz_vid pair[2] = {f32s(SHAPE(3, 80, 5)), i64s((int64_t[]){form == 3 ? -3 : 1}, 1)};
    apply(form == 2 ? "CumProd" : "CumSum", 2, pair, 1);
    number("exclusive", form & 1);
    number("reverse", form >> 1);
    check();
    again();
  }
}

static void test_softmax(void **state) {
  (void)state;
  static const char *const names[] = {"Softmax", "LogSoftmax", "Hardmax"};
  for (size_t i = 0; i < 3; i++)
    for (uint32_t opset = 11; opset <= 13; opset += 2) {
      cmz_vid x = given(CMZ_F32, SHAPE(2, 3, 4), -90, 90);
      apply(names[i], 1, &x, 1);
      number("axis", 1);
      cmz_node_get(F->m, F->node)->opset = opset;
      check();
      again();
    }
}

static void test_normalisations(void **state) {
  (void)state;
  cmz_vid batch[5] = {f32s(SHAPE(2, 3, 4, 5)), f32s(SHAPE(3)), f32s(SHAPE(3)), f32s(SHAPE(3)),
                      f32s(SHAPE(3))};
  apply("BatchNormalization", 5, batch, 1);
  check();
  again();
  cmz_vid instance[3] = {f32s(SHAPE(2, 3, 4, 5)), f32s(SHAPE(3)), f32s(SHAPE(3))};
  apply("InstanceNormalization", 3, instance, 1);
  check();
  again();
  cmz_vid group[3] = {f32s(SHAPE(2, 6, 3)), f32s(SHAPE(6)), f32s(SHAPE(6))};
  apply("GroupNormalization", 3, group, 1);
  number("num_groups", 2);
  check();
  again();
  cmz_vid layer[3] = {f32s(SHAPE(2, 3, 7)), f32s(SHAPE(7)), f32s(SHAPE(7))};
  apply("LayerNormalization", 3, layer, 3);
  check();
  again();
  cmz_vid rms[2] = {f32s(SHAPE(2, 3, 7)), f32s(SHAPE(3, 7))};
  apply("RMSNormalization", 2, rms, 1);
  number("axis", 1);
  check();
  again();
  cmz_vid x = f32s(SHAPE(2, 5, 3));
  apply("LpNormalization", 1, &x, 1);
  number("axis", 1);
  check();
  again();
  x = f32s(SHAPE(2, 5, 3, 2));
  apply("LRN", 1, &x, 1);
  number("size", 3);
  check();
}

static void test_pools(void **state) {
  (void)state;
  static const char *const names[] = {"MaxPool", "AveragePool", "LpPool"};
  for (size_t i = 0; i < 3; i++)
    for (int form = 0; form < 8; form++) {
      cmz_vid x = given(CMZ_F32, SHAPE(1, 2, 7, 8), i == 0 ? -5 : 0.1, 5);
      apply(names[i], 1, &x, i == 0 ? 2 : 1);
      ints("kernel_shape", SHAPE(3, 2));
      ints("strides", (int64_t[]){form & 1 ? 2 : 1, 3}, 2);
      if (form & 2) ints("pads", SHAPE(1, 0, 1, 1));
      number("ceil_mode", form >> 2);
      if (i == 1) number("count_include_pad", form & 1);
      check();
      again();
    }
  static const char *const global[] = {"GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"};
  static const char *const symbols[] = {"n", NULL, "h", NULL};
  for (size_t i = 0; i < 3; i++) {
    cmz_vid x = given_symbolic(CMZ_F32, SHAPE(2, 3, 5, 4), symbols, 0.1, 1);
    apply(global[i], 1, &x, 1);
    check();
    again();
  }
}

static cmz_vid scales_of(const double *values, size_t count) {
  float *data = cmz_arena_alloc(F->m->arena, count * sizeof *data);
  for (size_t i = 0; i < count; i++) data[i] = (float)values[i];
  int64_t *shape = cmz_arena_alloc(F->m->arena, sizeof *shape);
  *shape = (int64_t)count;
  return cmz_value_add_constant(F->m, F->g, NULL, CMZ_F32, 1, shape, data, count * sizeof *data);
}

static void test_resize(void **state) {
  (void)state;
  static const char *const modes[] = {"nearest", "linear", "cubic"};
  static const char *const coordinates[] = {"half_pixel", "asymmetric", "align_corners",
                                            "pytorch_half_pixel", "half_pixel_symmetric"};
  static const double factors[][4] = {{1, 1, 2, 2}, {1, 1, 0.6, 1.7}};
  for (size_t i = 0; i < 3; i++)
    for (size_t c = 0; c < CMZ_COUNT_OF(coordinates); c++)
      for (size_t f = 0; f < 2; f++) {
        cmz_vid in[3] = {given(CMZ_F32, SHAPE(1, 2, 5, 4), -3, 3), 0, scales_of(factors[f], 4)};
        apply("Resize", 3, in, 1);
        word("mode", modes[i]);
        word("coordinate_transformation_mode", coordinates[c]);
        check();
        again();
      }
  cmz_vid sized[4] = {given(CMZ_F32, SHAPE(1, 1, 4, 6), -3, 3), 0, 0,
                      i64s((int64_t[]){1, 1, 3, 3}, 4)};
  apply("Resize", 4, sized, 1);
  word("mode", "linear");
  number("antialias", 1);
  check();
}

static void test_loss(void **state) {
  (void)state;
  cmz_vid in[2] = {given(CMZ_F32, SHAPE(3, 5, 2), -2, 2), given(CMZ_I64, SHAPE(3, 2), 0, 4.99)};
  apply("SoftmaxCrossEntropyLoss", 2, in, 2);
  number("ignore_index", 2);
  check();
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
static void test_refused(void **state) {
  (void)state;
  cmz_vid x = f32s(SHAPE(3, 4)), in[2] = {x, given(CMZ_F64, SHAPE(4), 0.1, 2)};
  apply("LayerNormalization", 2, in, 1);
  refuses(CMZ_E_INPUT);
  again();
  x = f32s(SHAPE(3, 4));
  apply("TopK", 1, &x, 2); /* opset 1 has attribute k: here there is neither */
  refuses(CMZ_E_INPUT);
  again();
  /* elements of a type that a value no longer has */
  cmz_vid v = i64s((int64_t[]){1, 2}, 2);
  uint32_t count;
  cmz_dim one = cmz_dim_const(F->m->dims, 1), three = cmz_dim_const(F->m->dims, 3);
  cmz_value_set_elements(F->m, v, &one, 1);
  cmz_value_set_type(F->m, v, CMZ_I64, 1, &one);
  assert_non_null(cmz_value_elements(F->m, v, &count));
  cmz_value_set_type(F->m, v, CMZ_I64, 1, &three);
  assert_true(!cmz_value_elements(F->m, v, &count) || count != 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      T(test_reductions), T(test_runtime_axes),   T(test_arg_and_cumulative),
      T(test_softmax),    T(test_normalisations), T(test_pools),
      T(test_resize),     T(test_loss),           T(test_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
