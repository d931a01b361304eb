/* test_ops_index.c - gathers, scatters, sampling, operators of the runtime, recurrences and control
 * flow. */
#include "op_fixture.h"

static void number(const char *name, int64_t v) { cmz_node_set_int(F->m, F->node, name, v); }
static void word(const char *name, const char *v) { cmz_node_set_string(F->m, F->node, name, v); }
static cmz_vid f32s(const int64_t *shape, size_t rank) {
  return given(CMZ_F32, shape, rank, -1, 1);
}

static cmz_vid listed(cmz_dtype type, const double *values, const int64_t *shape, size_t rank) {
  cmz_array a = array_of(type, (uint32_t)rank, shape);
  for (size_t i = 0; i < cmz_array_count(&a); i++) cmz_dtype_set_f64(type, a.data, i, values[i]);
  return given_array(a, NULL);
}
#define LISTED(type, shape, ...) listed(type, (const double[]){__VA_ARGS__}, shape)

static void test_gathers(void **state) {
  (void)state;
  for (int64_t axis = -3; axis < 3; axis++) {
    cmz_vid in[2] = {f32s(SHAPE(4, 5, 6)), given(CMZ_I64, SHAPE(2, 3), -4, 3.9)};
    apply("Gather", 2, in, 1);
    number("axis", axis);
    check();
    again();
    cmz_vid same[2] = {f32s(SHAPE(4, 5, 6)), given(CMZ_I32, SHAPE(2, 5, 3), -4, 3.9)};
    apply("GatherElements", 2, same, 1);
    number("axis", axis);
    check();
    again();
  }
  cmz_vid tuples[2] = {f32s(SHAPE(2, 4, 3)), given(CMZ_I64, SHAPE(2, 5, 1), -4, 3.9)};
  apply("GatherND", 2, tuples, 1);
  number("batch_dims", 1);
  check();
  again();
  cmz_vid hot[3] = {given(CMZ_I64, SHAPE(2, 3), -5, 9), i64s((int64_t[]){6}, 1),
                    LISTED(CMZ_F32, SHAPE(2), 0, 7)};
  apply("OneHot", 3, hot, 1);
  number("axis", 0);
  check();
}

static void test_scatters(void **state) {
  (void)state;
  static const char *const how[] = {"none", "add", "mul", "min", "max"};
  for (size_t i = 0; i < CMZ_COUNT_OF(how); i++) {
    cmz_vid in[3] = {f32s(SHAPE(4, 5)), given(CMZ_I64, SHAPE(3, 5), -4, 3.9), f32s(SHAPE(3, 5))};
    apply("ScatterElements", 3, in, 1);
    word("reduction", how[i]);
    check();
    again();
    cmz_vid tuples[3] = {given(CMZ_I32, SHAPE(4, 3), -9, 9), given(CMZ_I64, SHAPE(5, 1), -4, 3.9),
                         given(CMZ_I32, SHAPE(5, 3), -9, 9)};
    apply("ScatterND", 3, tuples, 1);
    word("reduction", how[i]);
    check();
    again();
  }
  cmz_vid hand[3] = {LISTED(CMZ_F32, SHAPE(4), 1, 2, 3, 4), LISTED(CMZ_I64, SHAPE(2), 1, -1),
                     LISTED(CMZ_F32, SHAPE(2), 9, 8)};
  apply("ScatterElements", 3, hand, 1);
  cmz_array y = check();
  WANTS(&y, 1, 9, 3, 8);
  again();
  cmz_vid cache[3] = {f32s(SHAPE(2, 1, 6, 3)), f32s(SHAPE(2, 1, 2, 3)),
                      LISTED(CMZ_I64, SHAPE(2), 1, 5)};
  apply("TensorScatter", 3, cache, 1);
  word("mode", "circular");
  check();
}

static void test_sampling(void **state) {
  (void)state;
  static const char *const modes[] = {"nearest", "linear", "cubic"}, *const pads[] = {"zeros",
                                                                                      "border",
                                                                                      "reflection"};
  for (int i = 0; i < 18; i++) {
    cmz_vid in[2] = {f32s(SHAPE(1, 2, 5, 4)), given(CMZ_F32, SHAPE(1, 3, 3, 2), -1.6, 1.6)};
    apply("GridSample", 2, in, 1);
    word("mode", modes[i % 3]);
    word("padding_mode", pads[i / 3 % 3]);
    number("align_corners", i / 9);
    F->tolerance = 2e-4;
    check();
    again();
  }
  F->tolerance = 2e-4;
  cmz_vid deform[3] = {f32s(SHAPE(1, 2, 5, 5)), f32s(SHAPE(3, 2, 2, 2)),
                       given(CMZ_F32, SHAPE(1, 8, 4, 4), -1.5, 1.5)};
  apply("DeformConv", 3, deform, 1);
  check();
  again();
  F->tolerance = 2e-4;
  cmz_vid roi[3] = {f32s(SHAPE(2, 3, 8, 8)), LISTED(CMZ_F32, SHAPE(2, 4), 0, 1, 5, 6, 2, 2, 9, 7),
                    LISTED(CMZ_I64, SHAPE(2), 1, 0)};
  apply("RoiAlign", 3, roi, 1);
  number("sampling_ratio", 2);
  number("output_height", 2);
  number("output_width", 3);
  check();
}

/* Evaluation only: the runtime computes these. */
static void evaluated(cmz_array *out) {
  ok(prepare(), "inference");
  cmz_eval e = {.module = F->m, .arena = F->m->arena};
  ok(cmz_eval_graph(&e, F->g, F->inputs, out, NULL), "evaluation");
}

static void test_runtime_operators(void **state) {
  (void)state;
  cmz_array out[4] = {{0}};
  cmz_vid top[2] = {LISTED(CMZ_F32, SHAPE(5), 3, 9, NAN, 9, 1), i64s((int64_t[]){3}, 1)};
  apply("TopK", 2, top, 2);
  evaluated(out);
  WANTS(&out[1], 2, 1, 3);
  again();
  cmz_vid matrix = LISTED(CMZ_F64, SHAPE(2, 2, 2), 0, 2, 3, 4, 1, 2, 2, 4);
  apply("Det", 1, &matrix, 1);
  evaluated(out);
  WANTS(&out[0], -6, 0);
  again();
  cmz_vid x = LISTED(CMZ_I32, SHAPE(2, 2), 0, 5, 6, 0);
  apply("NonZero", 1, &x, 1);
  evaluated(out);
  WANTS(&out[0], 0, 1, 1, 0);
  again();
  x = LISTED(CMZ_F32, SHAPE(6), 2, 1, 1, 3, 4, 3);
  apply("Unique", 1, &x, 4);
  evaluated(out);
  WANTS(&out[0], 1, 2, 3, 4);
  WANTS(&out[1], 1, 0, 3, 4);
  WANTS(&out[2], 1, 0, 0, 2, 3, 2);
  WANTS(&out[3], 2, 1, 2, 1);
  again();
  cmz_vid kept[2] = {LISTED(CMZ_F32, SHAPE(3, 2), 1, 2, 3, 4, 5, 6),
                     LISTED(CMZ_BOOL, SHAPE(3), 0, 1, 1)};
  apply("Compress", 2, kept, 1);
  number("axis", 0);
  evaluated(out);
  WANTS(&out[0], 3, 4, 5, 6);
}

/* h' of a plain LSTM step computed directly; X, W, R, B as the operator has them, one direction. */
static void lstm_by_hand(const cmz_array *a, int64_t steps, int64_t batch, int64_t input,
                         int64_t hidden, double *h) {
  double c[64] = {0}, gates[256];
  for (int64_t t = 0; t < steps; t++)
    for (int64_t b = 0; b < batch; b++) {
      for (int64_t g = 0; g < 4 * hidden; g++) {
        double sum = cmz_get(&a[3], g) + cmz_get(&a[3], 4 * hidden + g);
        for (int64_t i = 0; i < input; i++)
          sum += cmz_get(&a[0], (t * batch + b) * input + i) * cmz_get(&a[1], g * input + i);
        for (int64_t i = 0; i < hidden; i++)
          sum += h[b * hidden + i] * cmz_get(&a[2], g * hidden + i);
        gates[g] = sum;
      }
      for (int64_t i = 0; i < hidden; i++) {
        double in = 1 / (1 + exp(-gates[i])), out = 1 / (1 + exp(-gates[hidden + i])),
               forget = 1 / (1 + exp(-gates[2 * hidden + i]));
        c[b * hidden + i] = forget * c[b * hidden + i] + in * tanh(gates[3 * hidden + i]);
        h[b * hidden + i] = out * tanh(c[b * hidden + i]);
      }
    }
}

static void test_lstm(void **state) {
  (void)state;
  for (int64_t steps = 1; steps < 4; steps += 2) {
    cmz_vid in[4] = {f32s((int64_t[]){steps, 2, 3}, 3), f32s(SHAPE(1, 16, 3)),
                     f32s(SHAPE(1, 16, 4)), f32s(SHAPE(1, 32))};
    apply("LSTM", 4, in, 3);
    number("hidden_size", 4);
    ok(prepare(), "inference");
    cmz_eval e = {.module = F->m, .arena = F->m->arena};
    cmz_array out[3] = {{0}}, expanded[3] = {{0}};
    ok(cmz_eval_graph(&e, F->g, F->inputs, out, NULL), "evaluation");
    double h[64] = {0};
    lstm_by_hand(F->inputs, steps, 2, 3, 4, h);
    wants(&out[1], h, 8);
    expand_all();
    ok(cmz_module_verify(F->m), "verification");
    ok(cmz_eval_graph(&e, F->g, F->inputs, expanded, NULL), "evaluation of the expansion");
    wants(&expanded[1], h, 8);
    again();
  }
}

static void test_recurrent_steps(void **state) {
  (void)state;
  static const struct {
    const char *op;
    int64_t gates;
  } cells[] = {{"GRU", 3}, {"RNN", 1}, {"LSTM", 4}};
  for (size_t i = 0; i < 3; i++)
    for (int form = 0; form < 2; form++) {
      int64_t g = cells[i].gates * 4;
      cmz_vid in[4] = {f32s(SHAPE(1, 2, 3)), f32s((int64_t[]){2, g, 3}, 3),
                       f32s((int64_t[]){2, g, 4}, 3), f32s((int64_t[]){2, 2 * g}, 2)};
      apply(cells[i].op, 4, in, 2);
      word("direction", "bidirectional");
      if (i == 0) number("linear_before_reset", form);
      check();
      again();
    }
}

/* if (flag) x + x else x * x */
static cmz_gid branch(const char *op, cmz_vid x, cmz_nid owner) {
  cmz_gid g = cmz_module_add_graph(F->m, op, owner, F->g);
  cmz_vid y = cmz_value_add(F->m, g, NULL), in[2] = {x, x};
  cmz_node_add(F->m, g, cmz_op_get(op), op, 2, in, 1, &y);
  cmz_graph_add_output(F->m, g, y);
  return g;
}

static void test_if(void **state) {
  (void)state;
  for (int flag = 0; flag < 2; flag++) {
    cmz_vid c = LISTED(CMZ_BOOL, SHAPE(1), flag), x = LISTED(CMZ_F32, SHAPE(2), 3, 5);
    cmz_nid n = apply("If", 1, &c, 1);
    cmz_gid yes = branch("Add", x, n), no = branch("Mul", x, n);
    cmz_node_set_attr(F->m, n,
                      &(cmz_attr){.name = "then_branch", .kind = CMZ_ATTR_GRAPH, .graph = yes});
    cmz_node_set_attr(F->m, n,
                      &(cmz_attr){.name = "else_branch", .kind = CMZ_ATTR_GRAPH, .graph = no});
    cmz_array out[1] = {{0}};
    evaluated(out);
    if (flag) WANTS(&out[0], 6, 10);
    else WANTS(&out[0], 9, 25);
    again();
  }
}

static void test_refusals(void **state) {
  (void)state;
  cmz_vid in[2] = {f32s(SHAPE(3)), i64s((int64_t[]){3}, 1)};
  apply("Gather", 2, in, 1);
  refuses(CMZ_E_INPUT);
  again();
  cmz_vid scatter[3] = {f32s(SHAPE(3)), i64s((int64_t[]){1}, 1), f32s(SHAPE(1))};
  apply("ScatterElements", 3, scatter, 1);
  word("reduction", "median");
  refuses(CMZ_E_UNSUPPORTED);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      T(test_gathers), T(test_scatters),        T(test_sampling), T(test_runtime_operators),
      T(test_lstm),    T(test_recurrent_steps), T(test_if),       T(test_refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
