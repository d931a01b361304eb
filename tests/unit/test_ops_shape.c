/* test_ops_shape.c - views, movement, slices, pads and generated tensors: kernels against
 * evaluation, with constant, symbolic and run-time sizes. */
#include "op_fixture.h"

#define NAMES(...)                                                                                 \
  (const char *const[]) { __VA_ARGS__ }

static void reshape(cmz_vid x, const int64_t *shape, size_t count, bool at_run_time) {
  cmz_vid in[2] = {x, at_run_time ? given_i64s(shape, count) : i64s(shape, count)};
  apply("Reshape", 2, in, 1);
  check();
  again();
}

static void test_reshape(void **state) {
  (void)state;
  for (int run_time = 0; run_time < 2; run_time++) {
    reshape(given(CMZ_F32, SHAPE(2, 3, 4), -1, 1), SHAPE(4, 6), run_time);
    reshape(given(CMZ_F32, SHAPE(2, 3, 4), -1, 1), SHAPE(0, -1), run_time);
    reshape(given(CMZ_F32, SHAPE(6, 1, 35), -1, 1), SHAPE(2, 3, 7, 1, 5), run_time);
    reshape(given(CMZ_F32, SHAPE(2, 9, 10), -1, 1), SHAPE(6, 3, 10), run_time);
    reshape(given(CMZ_F32, NULL, 0, -1, 1), SHAPE(1, 1), run_time);
    reshape(given(CMZ_F32, SHAPE(0, 3), -1, 1), SHAPE(0, -1, 2), run_time);
    reshape(given_symbolic(CMZ_F32, SHAPE(5, 3, 4), NAMES("n", NULL, NULL), -1, 1), SHAPE(-1, 12),
            run_time);
    reshape(given_symbolic(CMZ_F32, SHAPE(5, 3, 4), NAMES("n", NULL, "w"), -1, 1),
            SHAPE(0, 3, 2, -1), run_time);
    reshape(given_symbolic(CMZ_F32, SHAPE(5, 3, 4), NAMES("n", NULL, "w"), -1, 1), SHAPE(-1),
            run_time);
  }
}

/* Unchanged dims pass through: no division at all when only a 1 is added. */
static void test_reshape_is_minimal(void **state) {
  (void)state;
  cmz_vid in[2] = {given_symbolic(CMZ_F32, SHAPE(2, 3, 4, 5), NAMES("n", NULL, "h", "w"), -1, 1),
                   0};
  cmz_dim shape[5];
  memcpy(shape, cmz_value_get(F->m, in[0])->type.shape, 4 * sizeof *shape);
  shape[4] = shape[3];
  shape[3] = cmz_dim_const(F->m->dims, 1);
  cmz_nid id = apply("Identity", 1, in, 1);
  cmz_vid v = cmz_build_reshape(F->m, id, in[0], shape, 5);
  assert_true(v != 0);
  cmz_described k;
  ok(cmz_infer_graph(F->m, F->g), "inference");
  ok(cmz_describe_node(F->m, cmz_value_get(F->m, v)->producer, NULL, F->m->arena, &k),
     "description");
  for (uint32_t i = 1; i < k.kernel->exprs.count; i++) {
    assert_int_not_equal(k.kernel->exprs.data[i].op, CMZ_X_FLOORDIV);
    assert_int_not_equal(k.kernel->exprs.data[i].op, CMZ_X_MOD);
  }
}

static void test_views(void **state) {
  (void)state;
  cmz_vid x[2] = {given(CMZ_F32, SHAPE(2, 1, 3, 1), -1, 1), i64s((int64_t[]){1, -1}, 2)};
  apply("Squeeze", 2, x, 1);
  cmz_array y = check();
  assert_int_equal(y.rank, 2);
  again();
  cmz_vid s = given(CMZ_F32, SHAPE(2, 1, 3, 1), -1, 1);
  apply("Squeeze", 1, &s, 1);
  check();
  again();
  cmz_vid u[2] = {given(CMZ_F32, SHAPE(2, 3), -1, 1), i64s((int64_t[]){0, -1, 2}, 3)};
  apply("Unsqueeze", 2, u, 1);
  y = check();
  assert_int_equal(y.rank, 5);
  again();
  s = given(CMZ_F32, SHAPE(2, 3), -1, 1);
  apply("Unsqueeze", 1, &s, 1); /* as before opset 13 */
  cmz_node_set_ints(F->m, F->node, "axes", (int64_t[]){1}, 1);
  check();
  again();
  int64_t listed[] = {1, -1};
  cmz_vid r[2] = {given(CMZ_F32, SHAPE(2, 1, 3, 1), -1, 1), given_i64s(listed, 2)};
  apply("Squeeze", 2, r, 1);
  y = check();
  assert_int_equal(y.rank, 2);
  again();
  cmz_vid t[2] = {given(CMZ_F32, SHAPE(2, 3), -1, 1), given_i64s(listed, 2)};
  apply("Unsqueeze", 2, t, 1);
  y = check();
  assert_int_equal(y.shape[2], 3);
  again();
  for (int64_t axis = -2; axis <= 3; axis++) {
    s = given_symbolic(CMZ_F32, SHAPE(2, 3, 4), NAMES("n", NULL, NULL), -1, 1);
    apply("Flatten", 1, &s, 1);
    cmz_node_set_int(F->m, F->node, "axis", axis);
    check();
    again();
  }
}

static void test_shape_and_size(void **state) {
  (void)state;
  cmz_vid x = given_symbolic(CMZ_F32, SHAPE(2, 3, 4), NAMES("n", NULL, "w"), -1, 1);
  apply("Shape", 1, &x, 1);
  cmz_array y = check();
  WANTS(&y, 2, 3, 4);
  again();
  x = given_symbolic(CMZ_F32, SHAPE(2, 3, 4), NAMES("n", NULL, "w"), -1, 1);
  apply("Shape", 1, &x, 1);
  cmz_node_set_int(F->m, F->node, "start", -2);
  cmz_node_set_int(F->m, F->node, "end", -1);
  y = check();
  WANTS(&y, 3);
  again();
  x = given_symbolic(CMZ_F32, SHAPE(2, 3, 4), NAMES("n", NULL, "w"), -1, 1);
  apply("Size", 1, &x, 1);
  y = check();
  WANTS(&y, 24);
}

static void test_transpose(void **state) {
  (void)state;
  cmz_vid x = given(CMZ_F32, SHAPE(2, 3, 4, 5), -1, 1);
  apply("Transpose", 1, &x, 1);
  check();
  again();
  x = given_symbolic(CMZ_U8, SHAPE(2, 3, 4, 5), NAMES("n", NULL, "h", "w"), 0, 255);
  apply("Transpose", 1, &x, 1);
  cmz_node_set_ints(F->m, F->node, "perm", (int64_t[]){0, 2, 3, 1}, 4);
  check();
}

static void test_concat_and_split(void **state) {
  (void)state;
  cmz_vid x[4] = {given(CMZ_F32, SHAPE(2, 3), -1, 1),
                  given_symbolic(CMZ_F32, SHAPE(2, 5), NAMES(NULL, "k"), -1, 1),
                  given(CMZ_F32, SHAPE(2, 0), -1, 1), given(CMZ_F32, SHAPE(2, 1), -1, 1)};
  apply("Concat", 4, x, 1);
  cmz_node_set_int(F->m, F->node, "axis", -1);
  check();
  again();
  for (int run_time = 0; run_time < 2; run_time++) {
    int64_t sizes[] = {2, 0, 5};
    cmz_vid s[2] = {given(CMZ_F32, SHAPE(3, 7), -1, 1),
                    run_time ? given_i64s(sizes, 3) : i64s(sizes, 3)};
    apply("Split", 2, s, 3);
    cmz_node_set_int(F->m, F->node, "axis", 1);
    check();
    again();
  }
  cmz_vid s = given(CMZ_F32, SHAPE(7, 2), -1, 1);
  apply("Split", 1, &s, 3);
  cmz_node_set_int(F->m, F->node, "num_outputs", 3);
  check();
}

static void test_expand_and_tile(void **state) {
  (void)state;
  for (int run_time = 0; run_time < 2; run_time++) {
    int64_t shape[] = {2, 1, 4};
    cmz_vid x[2] = {given(CMZ_F32, SHAPE(3, 1), -1, 1),
                    run_time ? given_i64s(shape, 3) : i64s(shape, 3)};
    apply("Expand", 2, x, 1);
    check();
    again();
    int64_t repeats[] = {2, 1, 3};
    cmz_vid t[2] = {given_symbolic(CMZ_F32, SHAPE(2, 3, 4), NAMES(NULL, "n", NULL), -1, 1),
                    run_time ? given_i64s(repeats, 3) : i64s(repeats, 3)};
    apply("Tile", 2, t, 1);
    check();
    again();
  }
}

static void slice(const int64_t *start, const int64_t *end, const int64_t *axes,
                  const int64_t *steps, size_t count, bool run_time, bool symbolic) {
  static const char *const names[] = {"h", "w", NULL};
  cmz_vid x[5] = {given_symbolic(CMZ_F32, SHAPE(5, 6, 3), symbolic ? names : NULL, -1, 1),
                  run_time ? given_i64s(start, count) : i64s(start, count),
                  run_time ? given_i64s(end, count) : i64s(end, count),
                  axes ? i64s(axes, count) : 0, steps ? i64s(steps, count) : 0};
  apply("Slice", 5, x, 1);
  check();
  again();
  if (!run_time || !axes) return;
  cmz_vid y[5] = {given_symbolic(CMZ_F32, SHAPE(5, 6, 3), symbolic ? names : NULL, -1, 1),
                  given_i64s(start, count), given_i64s(end, count), given_i64s(axes, count),
                  steps ? given_i64s(steps, count) : 0};
  apply("Slice", 5, y, 1);
  check();
  again();
}

static void test_slice(void **state) {
  (void)state;
  for (int run_time = 0; run_time < 2; run_time++)
    for (int symbolic = 0; symbolic < 2; symbolic++) {
      slice((int64_t[]){1, 2}, (int64_t[]){4, INT64_MAX}, NULL, NULL, 2, run_time, symbolic);
      slice((int64_t[]){-3, -100}, (int64_t[]){-1, 100}, (int64_t[]){1, 0}, NULL, 2, run_time,
            symbolic);
      slice((int64_t[]){-1}, (int64_t[]){INT64_MIN + 1}, (int64_t[]){0}, (int64_t[]){-1}, 1,
            run_time, symbolic);
      slice((int64_t[]){4, 0}, (int64_t[]){0, 6}, (int64_t[]){0, 1}, (int64_t[]){-2, 3}, 2,
            run_time, symbolic);
      slice((int64_t[]){3}, (int64_t[]){2}, (int64_t[]){-2}, NULL, 1, run_time, symbolic);
    }
}

static void test_slice_attributes(void **state) {
  (void)state;
  cmz_vid x = given(CMZ_F32, SHAPE(5, 6), -1, 1);
  apply("Slice", 1, &x, 1);
  cmz_node_set_ints(F->m, F->node, "starts", (int64_t[]){1}, 1);
  cmz_node_set_ints(F->m, F->node, "ends", (int64_t[]){-1}, 1);
  cmz_node_set_ints(F->m, F->node, "axes", (int64_t[]){1}, 1);
  check();
}

static void test_pad(void **state) {
  (void)state;
  static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
  static const int64_t pads[][4] = {{1, 2, 3, 0}, {0, -1, 2, -2}, {9, 0, 0, 11}, {0, 0, 0, 0}};
  static const char *const names[] = {"h", "w"};
  for (size_t mode = 0; mode < 4; mode++)
    for (size_t p = 0; p < 4; p++)
      for (int how = 0; how < 4; how++) {
        cmz_array value = array_of(CMZ_F32, 0, NULL);
        cmz_dtype_set_f64(CMZ_F32, value.data, 0, 7.5);
        cmz_vid x[3] = {given_symbolic(CMZ_F32, SHAPE(4, 5), how & 2 ? names : NULL, -1, 1),
                        how & 1 ? given_i64s(pads[p], 4) : i64s(pads[p], 4),
                        given_array(value, NULL)};
        apply("Pad", 3, x, 1);
        cmz_node_set_string(F->m, F->node, "mode", modes[mode]);
        check();
        again();
      }
}

static void test_pad_forms(void **state) {
  (void)state;
  cmz_vid x = given(CMZ_F32, SHAPE(2, 3), -1, 1);
  apply("Pad", 1, &x, 1); /* as opset 2 has it */
  cmz_node_set_ints(F->m, F->node, "pads", (int64_t[]){0, 1, 1, 0}, 4);
  cmz_node_set_float(F->m, F->node, "value", 2.5);
  cmz_array y = check();
  assert_true(cmz_dtype_get_f64(CMZ_F32, y.data, 0) == 2.5);
  again();
  cmz_vid with_axes[4] = {given(CMZ_F32, SHAPE(2, 3), -1, 1), i64s((int64_t[]){1, 1}, 2), 0,
                          i64s((int64_t[]){-1}, 1)};
  apply("Pad", 4, with_axes, 1);
  check();
  again();
  int64_t axes[] = {-1};
  cmz_vid at_run_time[4] = {given(CMZ_F32, SHAPE(2, 3), -1, 1), i64s((int64_t[]){1, 1}, 2), 0,
                            given_i64s(axes, 1)};
  apply("Pad", 4, at_run_time, 1);
  check();
  again();
  for (int64_t target = 1; target < 9; target++) {
    cmz_vid c[2] = {given(CMZ_F32, SHAPE(4, 5), -1, 1), i64s((int64_t[]){target, 9 - target}, 2)};
    apply("CenterCropPad", 2, c, 1);
    check();
    again();
  }
}

static void test_blocks(void **state) {
  (void)state;
  static const char *const modes[] = {"DCR", "CRD"};
  for (size_t i = 0; i < 2; i++) {
    cmz_vid x = given_symbolic(CMZ_F32, SHAPE(2, 12, 3, 5), NAMES("n", NULL, "h", NULL), -1, 1);
    apply("DepthToSpace", 1, &x, 1);
    cmz_node_set_int(F->m, F->node, "blocksize", 2);
    cmz_node_set_string(F->m, F->node, "mode", modes[i]);
    check();
    again();
  }
  cmz_vid x = given(CMZ_F32, SHAPE(2, 3, 4, 6), -1, 1);
  apply("SpaceToDepth", 1, &x, 1);
  cmz_node_set_int(F->m, F->node, "blocksize", 2);
  check();
}

static void test_matrix_parts(void **state) {
  (void)state;
  for (int64_t diagonal = -2; diagonal <= 2; diagonal++)
    for (int upper = 0; upper < 2; upper++) {
      cmz_vid x[2] = {given(CMZ_F32, SHAPE(2, 3, 4), -1, 1), 0};
      x[1] = upper ? given_i64s(&diagonal, 1) : i64s(&diagonal, 1);
      apply("Trilu", 2, x, 1);
      cmz_node_set_int(F->m, F->node, "upper", upper);
      check();
      again();
      cmz_vid e = given(CMZ_I32, SHAPE(3, 4), -1, 1);
      apply("EyeLike", 1, &e, 1);
      cmz_node_set_int(F->m, F->node, "k", diagonal);
      check();
      again();
    }
}

static void test_reverse_sequence(void **state) {
  (void)state;
  cmz_vid x[2] = {given(CMZ_F32, SHAPE(4, 3, 2), -1, 1), given_i64s((int64_t[]){4, 1, 0}, 3)};
  apply("ReverseSequence", 2, x, 1);
  check();
}

static cmz_vid number(int64_t v, bool run_time) {
  cmz_array a = array_of(CMZ_I64, 0, NULL);
  memcpy(a.data, &v, sizeof v);
  return run_time ? given_array(a, NULL) : cmz_value_add_scalar(F->m, F->g, CMZ_I64, (double)v);
}

static void test_range(void **state) {
  (void)state;
  static const int64_t cases[][3] = {{0, 7, 1}, {3, -4, -2}, {5, 5, 1}, {2, 11, 4}, {0, -3, 1}};
  for (size_t i = 0; i < CMZ_COUNT_OF(cases); i++)
    for (int run_time = 0; run_time < 2; run_time++) {
      cmz_vid x[3] = {number(cases[i][0], run_time), number(cases[i][1], run_time),
                      number(cases[i][2], run_time)};
      apply("Range", 3, x, 1);
      check();
      again();
    }
  cmz_vid f[3] = {cmz_value_add_scalar(F->m, F->g, CMZ_F32, 0.5),
                  cmz_value_add_scalar(F->m, F->g, CMZ_F32, 3),
                  cmz_value_add_scalar(F->m, F->g, CMZ_F32, 0.75)};
  apply("Range", 3, f, 1);
  cmz_array y = check();
  WANTS(&y, 0.5, 1.25, 2, 2.75);
}

static void test_constant_of_shape(void **state) {
  (void)state;
  for (int run_time = 0; run_time < 2; run_time++) {
    int64_t shape[] = {2, 0, 3}, ones[] = {4, 1};
    cmz_vid x = run_time ? given_i64s(shape, 3) : i64s(shape, 3);
    apply("ConstantOfShape", 1, &x, 1);
    check();
    again();
    x = run_time ? given_i64s(ones, 2) : i64s(ones, 2);
    apply("ConstantOfShape", 1, &x, 1);
    check();
    again();
  }
}

/* Shape -> Slice -> Concat with arithmetic -> Reshape stays symbolic, and the kernels agree. */
static void test_symbolic_chain(void **state) {
  (void)state;
  cmz_vid x = given_symbolic(CMZ_F32, SHAPE(2, 3, 4), NAMES("n", NULL, "w"), -1, 1);
  cmz_nid last = apply("Identity", 1, &x, 1);
  cmz_vid shape = cmz_build1(F->m, last, "Shape", x);
  cmz_vid part[3] = {shape, i64s((int64_t[]){0}, 1), i64s((int64_t[]){1}, 1)};
  cmz_vid n = cmz_build_node(F->m, last, "Slice", 3, part, NULL);
  cmz_vid end[3] = {shape, i64s((int64_t[]){-1}, 1), i64s((int64_t[]){INT64_MAX}, 1)};
  cmz_vid w = cmz_build_node(F->m, last, "Slice", 3, end, NULL);
  cmz_vid product = cmz_build2(F->m, last, "Mul", w, i64s((int64_t[]){3}, 1));
  cmz_attr axis = cmz_attr_int("axis", 0);
  cmz_vid target = cmz_build_with(F->m, last, "Concat", 2, (cmz_vid[]){n, product}, 1, &axis);
  cmz_vid r = cmz_build2(F->m, last, "Reshape", x, target);
  assert_true(r != 0);
  cmz_node_set_input(F->m, last, 0, r);
  uint32_t count;
  const cmz_dim *elements = cmz_value_elements(F->m, target, &count);
  assert_true(elements && count == 2);
  assert_int_equal(elements[0], cmz_value_get(F->m, x)->type.shape[0]);
  cmz_array y = check();
  assert_int_equal(y.shape[1], 12);
}

static void test_refusals(void **state) {
  (void)state;
  cmz_vid x[2] = {given(CMZ_F32, SHAPE(2, 3), -1, 1), i64s((int64_t[]){4, 2}, 2)};
  apply("Reshape", 2, x, 1);
  refuses(CMZ_E_INPUT);
  again();
  cmz_vid y = given_symbolic(CMZ_F32, SHAPE(1, 3), NAMES("n", NULL), -1, 1);
  apply("Squeeze", 1, &y, 1);
  refuses(CMZ_E_UNSUPPORTED);
  again();
  cmz_vid z = i64s((int64_t[]){INT64_MAX, INT64_MAX}, 2);
  apply("ConstantOfShape", 1, &z, 1);
  refuses(CMZ_E_INPUT);
  again();
  z = i64s((int64_t[]){-3}, 1);
  apply("ConstantOfShape", 1, &z, 1);
  refuses(CMZ_E_INPUT);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {T(test_reshape),
                                     T(test_reshape_is_minimal),
                                     T(test_views),
                                     T(test_shape_and_size),
                                     T(test_transpose),
                                     T(test_concat_and_split),
                                     T(test_expand_and_tile),
                                     T(test_slice),
                                     T(test_slice_attributes),
                                     T(test_pad),
                                     T(test_pad_forms),
                                     T(test_blocks),
                                     T(test_matrix_parts),
                                     T(test_reverse_sequence),
                                     T(test_range),
                                     T(test_constant_of_shape),
                                     T(test_symbolic_chain),
                                     T(test_refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
