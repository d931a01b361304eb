/* test_codegen_extents.c - compiled kernels over sizes around the steps of their schedules: 0, 1, a
 * vector, a register tile, a grid tile, each and its neighbours; known at compile time and at run
 * time only. In: the graphs below under random and chosen schedules, on the CPU levels that this
 * machine runs. Out: cmocka failures: another result than the evaluator's, an access outside of an
 * operand. Always holds: what kernel_runner.h says; a round is decided by its number alone.
 * CMZ_KERNEL_ROUNDS=n tries n schedules for each graph (1 by default), CMZ_KERNEL_FIRST=n starts
 * with round n, CMZ_KERNEL_CASE=name tries only one graph, CMZ_KERNEL_VERBOSE=1 names each. */
#include "kernel_runner.h"

static int64_t X[3];  /* the sizes of this run */
static bool symbolic; /* they are known at run time only */

#define FIXED 99 /* in a shape: 100 + a size that never changes; below: which of X */
static cmz_vid sized(cmz_dtype dtype, uint32_t rank, const int *form, double low, double high) {
  static const char *const symbols[3] = {"s0", "s1", "s2"};
  const char *names[CMZ_MAX_RANK];
  int64_t shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < rank; i++) {
    shape[i] = form[i] > FIXED ? form[i] - FIXED - 1 : X[form[i]];
    names[i] = form[i] > FIXED || !symbolic ? NULL : symbols[form[i]];
  }
  return given_symbolic(dtype, shape, rank, names, low, high);
}
#define N(n) (FIXED + 1 + (n))
#define FORM(...)                                                                                  \
  sizeof((const int[]){__VA_ARGS__}) / sizeof(int), (const int[]) { __VA_ARGS__ }
#define IN(...) sized(CMZ_F32, FORM(__VA_ARGS__), -1, 1)

/* ---- graphs: each uses X[0], most X[1], some X[2] ---- */

static void conv_batch(void) { /* the batch may become the vector axis */
  cmz_vid y = then2("Conv", IN(0, N(5), 1), f32(SHAPE(4, 5, 3)));
  set_ints("pads", (int64_t[]){1, 1}, 2);
  then1("Sigmoid", y);
}
static void conv_batch_only(void) {
  cmz_vid y = then2("Conv", IN(0, N(6), N(4)), f32(SHAPE(8, 6, 3)));
  set_ints("pads", (int64_t[]){1, 1}, 2), set_ints("strides", (int64_t[]){2}, 1);
  then1("Sigmoid", y);
}
static void conv_to_one(void) { /* one sum a batch element: gathered along the batch */
  cmz_vid y = then2("Conv", then1("Relu", IN(0, N(128), N(1))), f32(SHAPE(1, 128, 1)));
  then2("ReduceMean", then1("Sigmoid", y), i64s((int64_t[]){2}, 1));
}
static void conv_image(void) {
  conv(IN(N(2), N(3), 0, 1), f32(SHAPE(5, 3, 3, 3)), f32(SHAPE(5)), 1, 1, 1, 1);
}
static void conv_stride(void) { conv(IN(N(1), N(2), 0, 1), f32(SHAPE(3, 2, 3, 3)), 0, 1, 2, 1, 1); }
static void conv_deep(void) {
  conv(IN(N(1), N(3), 0, 1), f32(SHAPE(3, 1, 3, 3)), f32(SHAPE(3)), 1, 1, 1, 3);
}
static void conv_in_blocks(void) {
  cmz_vid x = lay(IN(N(1), N(20), 0, 1), BLOCKED), w = lay(f32(SHAPE(24, 20, 3, 3)), WEIGHT_BOTH);
  lay(conv(x, w, f32(SHAPE(24)), 1, 1, 1, 1), BLOCKED);
}
static void conv_in_blocks_deep(void) {
  cmz_vid x = lay(IN(0, N(20), 1, N(5)), BLOCKED), w = lay(f32(SHAPE(20, 1, 3, 3)), WEIGHT_OUT);
  lay(then1("Relu", conv(x, w, 0, 1, 2, 1, 20)), BLOCKED);
}
static void product(void) { then2("MatMul", IN(0, 1), IN(1, 2)); }
static void product_batch(void) { then2("MatMul", IN(2, 0, N(6)), IN(2, N(6), 1)); }
static void product_panels(void) {
  cmz_vid y = then2("MatMul", IN(0, N(24)), lay(f32(SHAPE(24, 40)), PANELS));
  then1("Sigmoid", then2("Add", y, f32(SHAPE(40))));
}
static void product_transposed(void) {
  cmz_vid t = then1("Transpose", IN(1, 2));
  set_ints("perm", (int64_t[]){1, 0}, 2);
  then2("MatMul", IN(0, 2), t);
}
static void product_integer(void) {
  cmz_vid a = sized(CMZ_U8, FORM(0, 1), 0, 255), b = sized(CMZ_I8, FORM(1, 2), -128, 127);
  then("MatMulInteger", 3, (cmz_vid[]){a, b, given(CMZ_U8, SHAPE(1), 3, 130)});
}
static void product_half(void) {
  F->tolerance = 2e-3;
  then2("MatMul", sized(CMZ_F16, FORM(0, 1), -1, 1), sized(CMZ_F16, FORM(1, N(9)), -1, 1));
}
static void attention(void) {
  cmz_vid t = then1("Transpose", IN(2, 1, N(8)));
  set_ints("perm", (int64_t[]){0, 2, 1}, 3);
  then1("Softmax", then2("MatMul", IN(2, 0, N(8)), t));
}
static void softmax_rows(void) { then1("Softmax", IN(0, 1)), set_int("axis", -1); }
static void softmax_columns(void) { then1("Softmax", IN(0, 1, 2)), set_int("axis", 1); }
static void norm(void) {
  then("LayerNormalization", 3, (cmz_vid[]){IN(1, 0), IN(0), IN(0)}), set_int("axis", -1);
}
static void sum_first(void) { then2("ReduceSum", IN(0, 1, N(3)), i64s((int64_t[]){0}, 1)); }
static void mean_last(void) { then2("ReduceMean", IN(1, 0), i64s((int64_t[]){1}, 1)); }
static void max_middle(void) { then2("ReduceMax", IN(2, 0, 1), i64s((int64_t[]){1}, 1)); }
static void sum_wide(void) {
  then2("ReduceSumSquare", sized(CMZ_F64, FORM(1, 0), -1, 1), i64s((int64_t[]){1}, 1));
}
static void sum_integers(void) {
  then2("ReduceSum", sized(CMZ_I64, FORM(1, 0), -50, 50), i64s((int64_t[]){1}, 1));
}
static void largest(void) { then1("ArgMax", IN(1, 0, N(3))), set_int("axis", 1); }
static void pool(void) {
  then1("MaxPool", IN(N(1), N(3), 0, 1));
  set_ints("kernel_shape", (int64_t[]){3, 3}, 2), set_ints("strides", (int64_t[]){2, 2}, 2),
      set_ints("pads", (int64_t[]){1, 1, 1, 1}, 4);
}
static void pool_average(void) {
  then1("AveragePool", lay(IN(0, N(20), 1, N(4)), BLOCKED));
  set_ints("kernel_shape", (int64_t[]){3, 3}, 2), set_ints("pads", (int64_t[]){1, 1, 1, 1}, 4);
}
static void pointwise(void) {
  cmz_vid a = then2("Mul", IN(0, N(1), 1), IN(2, 1));
  then2("Sub", then1("Tanh", a), then1("Exp", IN(N(1), 2, N(1))));
}
static void padded(void) {
  then("Pad", 2, (cmz_vid[]){IN(0, 1), i64s((int64_t[]){1, 3, 2, 5}, 4)});
}
static void padded_product(void) { /* the padding is read by both axes of a sum */
  cmz_vid x = then("Pad", 2, (cmz_vid[]){IN(0, 1), i64s((int64_t[]){2, 3, 0, 1}, 4)});
  then1("Relu", then2("ReduceSum", then1("Abs", x), i64s((int64_t[]){0}, 1)));
}
static void reflected(void) {
  then("Pad", 2, (cmz_vid[]){IN(0, 1), i64s((int64_t[]){0, 0, 0, 0}, 4)});
  cmz_node_set_string(F->m, F->node, "mode", "edge");
}
static void sliced(void) {
  then("Slice", 5,
       (cmz_vid[]){IN(0, 1), i64s((int64_t[]){-1, 1}, 2), i64s((int64_t[]){INT64_MIN, 1000}, 2),
                   i64s((int64_t[]){0, 1}, 2), i64s((int64_t[]){-1, 2}, 2)});
}
static void joined_axis(void) {
  cmz_vid y = then("Concat", 3, (cmz_vid[]){IN(0, 1), IN(0, 2), IN(0, N(3))});
  set_int("axis", 1);
  then1("Relu", y);
}
static void transposed(void) {
  then1("Transpose", IN(0, 1, 2)), set_ints("perm", (int64_t[]){2, 0, 1}, 3);
}
static void gathered(void) { then2("Gather", IN(N(10), 0), sized(CMZ_I64, FORM(1, N(2)), -10, 9)); }
static void gathered_columns(void) {
  then2("Gather", IN(0, N(7)), sized(CMZ_I32, FORM(1), -7, 6)), set_int("axis", 1);
}
static void blocked_in(void) { lay(then1("Relu", IN(0, N(20), 1, N(3))), BLOCKED); }
static void blocked_out(void) { then1("Relu", lay(IN(N(2), N(20), 0, 1), BLOCKED)); }
static void blocked_flat(void) {
  cmz_vid x = lay(IN(0, N(20), N(3), N(4)), BLOCKED);
  then2("Reshape", x, i64s((int64_t[]){0, 240}, 2));
}
static void chosen(void) {
  cmz_vid p = then2("Less", IN(0, 1), IN(1));
  cmz_vid q = then2("And", p, sized(CMZ_BOOL, FORM(0, 1), 0, 2));
  then("Where", 3, (cmz_vid[]){then1("Not", q), IN(0, 1), IN(0, N(1))});
}
static void bytes_scaled(void) {
  cmz_vid q = sized(CMZ_U8, FORM(0, 1), 0, 255);
  then("DequantizeLinear", 3, (cmz_vid[]){q, f32(SHAPE(1)), given(CMZ_U8, SHAPE(1), 0, 255)});
}
static void quantised(void) {
  F->tolerance = 1;
  then("QuantizeLinear", 3,
       (cmz_vid[]){IN(0, 1), given(CMZ_F32, SHAPE(1), 0.01, 0.1), given(CMZ_I8, SHAPE(1), -9, 9)});
}
static void triangle(void) { then1("Trilu", IN(2, 0, 1)), set_int("upper", 1); }

static const kernel_case GRAPHS[] = {
    CASE(conv_batch),
    CASE(conv_to_one),
    CASE(conv_batch_only),
    CASE(conv_image),
    CASE(conv_stride),
    CASE(conv_deep),
    CASE(conv_in_blocks),
    CASE(conv_in_blocks_deep),
    CASE(product),
    CASE(product_batch),
    CASE(product_panels),
    CASE(product_transposed),
    CASE(product_integer),
    CASE(product_half),
    CASE(attention),
    CASE(softmax_rows),
    CASE(softmax_columns),
    CASE(norm),
    CASE(sum_first),
    CASE(mean_last),
    CASE(max_middle),
    CASE(sum_wide),
    CASE(sum_integers),
    CASE(largest),
    CASE(pool),
    CASE(pool_average),
    CASE(pointwise),
    CASE(padded),
    CASE(padded_product),
    CASE(reflected),
    CASE(sliced),
    CASE(joined_axis),
    CASE(transposed),
    CASE(gathered),
    CASE(gathered_columns),
    CASE(blocked_in),
    CASE(blocked_out),
    CASE(blocked_flat),
    CASE(chosen),
    CASE(bytes_scaled),
    CASE(quantised),
    CASE(triangle),
};

/* ---- sizes ---- */

static uint64_t size_seed;
static uint32_t pick(uint32_t n) {
  size_seed = size_seed * 6364136223846793005ull + 1442695040888963407ull;
  return (uint32_t)(size_seed >> 33) % n;
}

/* A size at an edge of schedule S (or of common vectors), or a small one. */
static int64_t edge(const cmz_schedule *s) {
  static const int64_t common[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 19, 31, 32, 33};
  if (!s->axis_count || pick(2)) return common[pick(CMZ_COUNT_OF(common))];
  const cmz_axis_schedule *x = &s->axes[pick(s->axis_count)];
  int64_t sizes[4] = {x->lanes, (int64_t)x->lanes * x->unroll, x->tile, s->reduce_lanes};
  int64_t v = sizes[pick(4)] + (int64_t)pick(3) - 1;
  return v < 0 ? 0 : v > 130 ? v % 67 : v;
}

static void choose_sizes(const cmz_schedule *s) {
  for (uint32_t i = 0; i < CMZ_COUNT_OF(X); i++) X[i] = edge(s);
  /* The evaluator takes its time: one size may be large. */
  for (uint32_t i = 0; i < CMZ_COUNT_OF(X) && X[0] * X[1] * X[2] > 6000; i++) X[pick(3)] %= 7;
}

static void run_once(const kernel_case *c, uint64_t seed, bool rewritten) {
  schedule_seed = seed;
  F->random = seed + (uint64_t)X[0] * 3 + (uint64_t)X[1] * 5;
  F->tolerance = 1e-4;
  if (getenv("CMZ_KERNEL_VERBOSE"))
    print_message("  %s, %s, %s sizes %d %d %d, seed %u\n", c->name, cpu->name,
                  symbolic ? "run-time" : "fixed", (int)X[0], (int)X[1], (int)X[2], (unsigned)seed);
  c->build();
  check_kernel(rewritten);
  again();
}

#define RUNS 6 /* of a kernel with run-time sizes: compiled once */
static void run_case(const kernel_case *c, uint32_t number, uint32_t round) {
  const char *only = getenv("CMZ_KERNEL_CASE");
  if (only && strcmp(only, c->name)) return;
  case_name = c->name;
  cpu = level(number + round);
  random_schedule = round % 4 != 2;
  symbolic = (number / 2 + round) % 3 != 0;
  size_seed = 77 * round + number;
  uint64_t seed = (uint64_t)round * 1000 + number;
  last_schedule.axis_count = 0;
  for (uint32_t run = 0; run < (symbolic ? RUNS : 1); run++) {
    choose_sizes(&last_schedule);
    run_once(c, seed, round % 4 != 3);
  }
}

static void test_extents(void **state) {
  (void)state;
  const char *text = getenv("CMZ_KERNEL_FIRST");
  uint32_t first = text ? (uint32_t)strtoul(text, NULL, 10) : 0;
  for (uint32_t round = first; round < first + rounds(); round++)
    for (uint32_t i = 0; i < CMZ_COUNT_OF(GRAPHS); i++) run_case(&GRAPHS[i], i, round);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_extents, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
