/* test_compress.c - storage formats, pruning, low rank and the compression pass on single layers.
 * In: weights made here. Always holds: what a format gives back lies within its own bound of the
 * weight; the kernel that reads packed bytes gives the evaluator's bits; pruning and splits are
 * checked against code of this file that knows nothing of the passes. */
#include "op_fixture.h"

#include "../../passes/compress/compress.h"
#include "../../passes/passes.h"

static double normal(void) {
  double sum = 0;
  for (int i = 0; i < 4; i++) sum += random_number(0, 1);
  return (sum - 2) * 1.7320508;
}

static cmz_matrix random_matrix(uint32_t rows, uint32_t columns) {
  cmz_matrix w = {rows, columns, CMZ_NEW_ARRAY(F->m->arena, float, (size_t)rows *columns)};
  for (size_t i = 0; i < (size_t)rows * columns; i++) w.data[i] = (float)(0.02 * normal());
  w.data[0] = 0.4f; /* an outlier, and a zero */
  if (columns > 1) w.data[1] = 0;
  return w;
}

/* ---- formats ---- */

static bool same_float(float a, float b) { return a == b; }

/* The largest change that the format may make to column K of row R. */
static double allowed_error(const cmz_format_shape *s, const cmz_format_data *d, uint32_t r,
                            uint32_t kept, double largest_scale) {
  size_t group = cmz_format_group_index(s, r, kept);
  double scale = cmz_dtype_get_f64(d->scale_dtype, d->scales, group);
  double steps = s->format->bits == 8 ? 255 : s->format->bits == 4 ? 15 : 3;
  /* half a step; an f16 scale may have been cut by 2^-11 of the range, or by what hardly counts */
  double cut = d->scale_dtype == CMZ_F16 ? steps * (scale / 2000 + largest_scale / 4096) : 0;
  return scale * 0.5001 + cut + 1e-9 * scale * steps;
}

static double largest_scale(const cmz_format_shape *s, const cmz_format_data *d) {
  double largest = 0;
  for (size_t i = 0; i < cmz_format_scale_count(s); i++)
    largest = fmax(largest, cmz_dtype_get_f64(d->scale_dtype, d->scales, i));
  return largest;
}

static void check_values(const cmz_format_shape *s, const cmz_format_data *d, const cmz_matrix *w) {
  double largest = s->format->is_float ? 0 : largest_scale(s, d);
  for (uint32_t r = 0; r < s->rows; r++)
    for (uint32_t c = 0; c < s->columns; c++) {
      float want = w->data[(size_t)r * s->columns + c], got = cmz_format_decode(s, d, r, c);
      if (s->format->is_float) {
        uint8_t stored[8];
        cmz_dtype_set_f64(s->format->dtype, stored, 0, (double)want);
        if (same_float(got, (float)cmz_dtype_get_f64(s->format->dtype, stored, 0))) continue;
      } else if (want == 0) {
        if (got == 0) continue; /* zero is on every grid */
      } else {
        uint32_t kept = c;
        for (uint32_t i = c / 4 * 4; s->sparse && i <= c; i++) {
          if (i == c / 4 * 4) kept = c / 4 * 2;
        }
        double allowed = allowed_error(s, d, r, kept, largest);
        if (s->sparse) allowed = fmax(allowed, allowed_error(s, d, r, kept + 1, largest));
        if (fabs((double)got - (double)want) <= allowed) continue;
      }
      fail_msg("%s %ux%u group %u sparse %d: (%u, %u) is %.9g, was %.9g", s->format->name, s->rows,
               s->columns, s->group_size, s->sparse, r, c, (double)got, (double)want);
    }
}

static cmz_vid part(cmz_dtype dtype, size_t count, const void *data) {
  size_t bytes;
  cmz_dtype_bytes(dtype, count, &bytes);
  int64_t *shape = CMZ_NEW(F->m->arena, int64_t);
  *shape = (int64_t)count;
  return cmz_value_add_constant(F->m, F->g, NULL, dtype, 1, shape, data, bytes);
}

/* A Decode node of these parts as a whole graph: its kernel, interpreted, gives the same bits as
 * its evaluation, and that the same as the format's own reference. */
static void check_node(const cmz_format_shape *s, const cmz_format_data *d) {
  cmz_vid inputs[4] = {part(s->format->dtype, cmz_format_value_count(s), d->values)};
  if (d->scales) inputs[1] = part(d->scale_dtype, cmz_format_scale_count(s), d->scales);
  if (d->zero_points) inputs[2] = part(CMZ_U8, cmz_format_scale_count(s), d->zero_points);
  if (d->indices) inputs[3] = part(CMZ_U8, cmz_format_index_count(s), d->indices);
  apply("Decode", d->indices ? 4 : d->zero_points ? 3 : d->scales ? 2 : 1, inputs, 1);
  cmz_node_set_string(F->m, F->node, "format", s->format->name);
  cmz_node_set_ints(F->m, F->node, "shape", (int64_t[]){s->rows, s->columns}, 2);
  cmz_node_set_int(F->m, F->node, "row_axis", 0);
  cmz_node_set_ints(F->m, F->node, "columns", (int64_t[]){1, 1, 0}, 3);
  cmz_node_set_int(F->m, F->node, "column_count", s->columns);
  cmz_node_set_int(F->m, F->node, "group_size", s->group_size);
  cmz_node_set_int(F->m, F->node, "sparse", s->sparse);
  F->tolerance = 0;
  cmz_array got = check();
  for (uint32_t r = 0; r < s->rows; r++)
    for (uint32_t c = 0; c < s->columns; c++)
      assert_true(((float *)got.data)[(size_t)r * s->columns + c] == cmz_format_decode(s, d, r, c));
}

static void format_case(const cmz_format_row *format, uint32_t rows, uint32_t columns,
                        uint32_t group, bool sparse, bool symmetric) {
  again();
  cmz_format_shape s = {.format = format, .rows = rows, .columns = columns, .sparse = sparse};
  s.group_size = format->is_float || group >= cmz_format_kept(&s) ? 0 : group;
  cmz_matrix w = random_matrix(rows, columns);
  if (sparse) cmz_prune_2_4(&w);
  cmz_format_data d;
  cmz_quantise_nearest(F->m->arena, &w, &s, symmetric, &d);
  check_values(&s, &d, &w);
  check_node(&s, &d);
}

static void test_every_format(void **state) {
  (void)state;
  static const uint32_t sizes[][2] = {{1, 1}, {3, 5}, {16, 32}, {17, 33}, {20, 7}, {33, 70}};
  static const uint32_t groups[] = {0, 1, 3, 16, 32};
  const cmz_format_row *format;
  for (uint32_t f = 0; (format = cmz_format_at(f)) != NULL; f++)
    for (size_t i = 0; i < CMZ_COUNT_OF(sizes); i++)
      for (size_t g = 0; g < (format->is_float ? 1 : CMZ_COUNT_OF(groups)); g++)
        for (int mode = 0; mode < 4; mode++)
          format_case(format, sizes[i][0], sizes[i][1], groups[g], mode & 1, mode >> 1);
}

/* Codes keep their sign and their neighbours. */
static void test_codes(void **state) {
  (void)state;
  const cmz_format_row *format;
  for (uint32_t f = 0; (format = cmz_format_at(f)) != NULL; f++) {
    if (format->is_float) continue;
    cmz_format_shape s = {.format = format, .rows = 18, .columns = 9};
    cmz_format_data d = {.values = cmz_arena_alloc(F->m->arena, cmz_format_value_count(&s))};
    int32_t low = format->is_signed ? -(1 << (format->bits - 1)) : 0, count = 1 << format->bits;
    for (uint32_t r = 0; r < 18; r++)
      for (uint32_t k = 0; k < 9; k++)
        cmz_format_set_code(&s, &d, r, k, low + (int32_t)(r * 7 + k) % count);
    for (uint32_t r = 0; r < 18; r++)
      for (uint32_t k = 0; k < 9; k++)
        assert_int_equal(cmz_format_code(&s, &d, r, k), low + (int32_t)(r * 7 + k) % count);
  }
}

/* Zero, constant, huge and tiny rows: finite and within half a step, whatever the scale's type. */
static void test_unusual_values(void **state) {
  (void)state;
  static const float amplitudes[] = {0, 1, 3e37f, 1e30f, 60000, 1e-6f, 1e-12f, 1e-30f};
  static const char *const names[] = {"i8", "u8", "u4", "i4", "u2", "i2"};
  for (size_t n = 0; n < CMZ_COUNT_OF(names); n++)
    for (size_t a = 0; a < CMZ_COUNT_OF(amplitudes); a++)
      for (int constant = 0; constant < 2; constant++) {
        cmz_format_shape s = {.format = cmz_format_find(names[n]), .rows = 2, .columns = 64};
        s.group_size = 32;
        cmz_matrix w = {2, 64, CMZ_NEW_ARRAY(F->m->arena, float, 128)};
        for (uint32_t i = 0; i < 128; i++)
          w.data[i] = constant ? amplitudes[a] : amplitudes[a] * (float)random_number(-1, 1);
        cmz_format_data d;
        cmz_quantise_nearest(F->m->arena, &w, &s, false, &d);
        check_values(&s, &d, &w);
      }
}

/* ---- pruning ---- */

static void prunes(const float *from, const float *to, uint32_t count) {
  cmz_matrix w = {1, count, cmz_arena_copy(F->m->arena, from, count * sizeof *from)};
  cmz_prune_2_4(&w);
  for (uint32_t i = 0; i < count; i++)
    if (w.data[i] != to[i]) fail_msg("column %u is %g", i, (double)w.data[i]);
}
#define PRUNES(COUNT, FROM, TO) prunes((const float[]){FROM}, (const float[]){TO}, COUNT)
#define LIST(...) __VA_ARGS__

static void test_prune(void **state) {
  (void)state;
  PRUNES(4, LIST(1, -4, 3, 2), LIST(0, -4, 3, 0));
  PRUNES(4, LIST(1, 1, 1, 1), LIST(1, 1, 0, 0)); /* ties: the earlier stay */
  PRUNES(4, LIST(1, -2, 2, -2), LIST(0, -2, 2, 0));
  PRUNES(4, LIST(0, 5, 0, 0), LIST(0, 5, 0, 0));
  PRUNES(7, LIST(9, 8, 7, 6, 1, 2, 3), LIST(9, 8, 0, 0, 0, 2, 3)); /* the last group is short */
  PRUNES(2, LIST(1, 2), LIST(1, 2));
}

/* ---- low rank ---- */

static void test_energy(void **state) {
  (void)state;
  const float values[] = {3, 2, 1, 0.5f}; /* squares 9 4 1 0.25 of 14.25 */
  assert_int_equal(cmz_low_rank_for_energy(values, 4, 0.5), 1);
  assert_int_equal(cmz_low_rank_for_energy(values, 4, 9 / 14.25), 1);
  assert_int_equal(cmz_low_rank_for_energy(values, 4, 0.64), 2);
  assert_int_equal(cmz_low_rank_for_energy(values, 4, 0.95), 3);
  assert_int_equal(cmz_low_rank_for_energy(values, 4, 1), 4);
  assert_int_equal(cmz_low_rank_for_energy((const float[]){0, 0}, 2, 0.95), 1);
}

static void check_split(uint32_t rows, uint32_t columns, uint32_t rank) {
  cmz_matrix w = random_matrix(rows, columns), a, b;
  double energy, error = 0, norm = 0;
  ok(cmz_low_rank_split(F->ctx, F->m->arena, &w, rank, &a, &b, &energy), "split");
  assert_int_equal(a.columns, CMZ_MIN(rank, CMZ_MIN(rows, columns)));
  cmz_matrix product = cmz_low_rank_product(F->m->arena, &a, &b);
  for (size_t i = 0; i < (size_t)rows * columns; i++) {
    error += pow((double)product.data[i] - (double)w.data[i], 2);
    norm += pow((double)w.data[i], 2);
  }
  /* what is lost is what the values that were left out hold: Eckart and Young */
  assert_true(fabs(error / norm - (1 - energy)) < 1e-5);
  if (rank >= CMZ_MIN(rows, columns)) assert_true(error / norm < 1e-10);
  float *values;
  ok(cmz_low_rank_values(F->ctx, F->m->arena, &w, &values), "values");
  assert_int_equal(cmz_low_rank_for_energy(values, CMZ_MIN(rows, columns), energy * 0.99999),
                   a.columns);
}

static void test_low_rank(void **state) {
  (void)state;
  check_split(24, 40, 24);
  check_split(40, 24, 100);
  check_split(40, 24, 7);
  check_split(1, 9, 1);
}

/* ---- the pass on one layer ---- */

static cmz_vid weight(const int64_t *shape, size_t rank) {
  cmz_array a = array_of(CMZ_F32, (uint32_t)rank, shape);
  size_t count = cmz_array_count(&a);
  for (size_t i = 0; i < count; i++) ((float *)a.data)[i] = (float)(0.1 * normal());
  return cmz_value_add_constant(F->m, F->g, "w", CMZ_F32, a.rank,
                                cmz_arena_copy(F->m->arena, shape, rank * sizeof *shape), a.data,
                                count * sizeof(float));
}

static void conv(cmz_vid x, cmz_vid w, int64_t outputs) {
  apply("Conv", 3, (cmz_vid[]){x, w, weight(SHAPE(outputs))}, 1);
}
static void right(void) {
  apply("MatMul", 2, (cmz_vid[]){given(CMZ_F32, SHAPE(2, 3, 100), -1, 1), weight(SHAPE(100, 90))},
        1);
}
static void left(void) {
  apply("MatMul", 2, (cmz_vid[]){weight(SHAPE(70, 99)), given(CMZ_F32, SHAPE(2, 99, 5), -1, 1)}, 1);
}
static void gemm(void) {
  cmz_vid x = given(CMZ_F32, SHAPE(5, 81), -1, 1), w = weight(SHAPE(130, 81));
  apply("Gemm", 3, (cmz_vid[]){x, w, weight(SHAPE(130))}, 1);
  cmz_node_set_int(F->m, F->node, "transB", 1);
  cmz_node_set_float(F->m, F->node, "alpha", 0.5);
}
static void conv_plain(void) {
  conv(given(CMZ_F32, SHAPE(1, 48, 4, 3), -1, 1), weight(SHAPE(40, 48, 3, 3)), 40);
  cmz_node_set_ints(F->m, F->node, "pads", (int64_t[]){1, 0, 2, 1}, 4);
}
static void conv_strides(void) {
  conv(given(CMZ_F32, SHAPE(1, 33, 6, 6), -1, 1), weight(SHAPE(50, 33, 3, 5)), 50);
  cmz_node_set_ints(F->m, F->node, "strides", (int64_t[]){2, 1}, 2);
  cmz_node_set_ints(F->m, F->node, "dilations", (int64_t[]){1, 2}, 2);
  cmz_node_set_ints(F->m, F->node, "pads", (int64_t[]){0, 4, 1, 3}, 4);
}
static void conv_same(void) {
  conv(given(CMZ_F32, SHAPE(1, 32, 4, 5), -1, 1), weight(SHAPE(64, 32, 3, 3)), 64);
  cmz_node_set_string(F->m, F->node, "auto_pad", "SAME_UPPER");
  cmz_node_set_ints(F->m, F->node, "strides", (int64_t[]){2, 2}, 2);
}
static void conv_pointwise(void) {
  conv(given(CMZ_F32, SHAPE(1, 100, 2, 3), -1, 1), weight(SHAPE(100, 100, 1, 1)), 100);
}
static void conv_line(void) {
  conv(given(CMZ_F32, SHAPE(1, 35, 6), -1, 1), weight(SHAPE(67, 35, 9)), 67);
  cmz_node_set_ints(F->m, F->node, "pads", (int64_t[]){4, 4}, 2);
}
static void conv_volume(void) {
  conv(given(CMZ_F32, SHAPE(1, 20, 4, 3, 4), -1, 1), weight(SHAPE(30, 20, 3, 2, 3)), 30);
}
static void conv_groups(void) {
  conv(given(CMZ_F32, SHAPE(1, 40, 4, 4), -1, 1), weight(SHAPE(36, 10, 3, 3)), 36);
  cmz_node_set_int(F->m, F->node, "group", 4);
}
static void (*const layers[])(void) = {right,        left,       gemm,           conv_plain,
                                       conv_strides, conv_same,  conv_pointwise, conv_line,
                                       conv_volume,  conv_groups};

static cmz_compression compression;

static const cmz_layer_result *compress(const cmz_compression_rule *rule) {
  compression = (cmz_compression){0};
  cmz_vec_push(F->m->arena, &compression.rules, *rule);
  cmz_pass_run run = {.optimise = 2, .compression = &compression};
  ok(prepare(), "inference");
  expand_all();
  ok(cmz_pass_compress(&run, F->m), "compression");
  ok(cmz_module_verify(F->m), "verification");
  return compression.results.data;
}

static cmz_array evaluate(void) {
  cmz_array outputs[8] = {{0}};
  cmz_eval e = {.module = F->m, .arena = F->m->arena};
  ok(cmz_infer_graph(F->m, F->g), "inference");
  ok(cmz_eval_graph(&e, F->g, F->inputs, outputs, NULL), "evaluation");
  return outputs[0];
}

/* The pass keeps F->node, unless expansion replaced it: the kernels of the whole graph. */
static void check_kernels(bool fuse) {
  cmz_array want[8] = {{0}};
  cmz_eval e = {.module = F->m, .arena = F->m->arena};
  ok(cmz_eval_graph(&e, F->g, F->inputs, want, NULL), "evaluation");
  run_kernels(fuse, want, F->inputs);
}

static double difference(const cmz_array *want, const cmz_array *got) {
  double error = 0, norm = 0;
  assert_int_equal(cmz_array_count(want), cmz_array_count(got));
  for (size_t i = 0; i < cmz_array_count(want); i++) {
    double a = cmz_dtype_get_f64(want->dtype, want->data, i),
           b = cmz_dtype_get_f64(got->dtype, got->data, i);
    error += (a - b) * (a - b), norm += a * a;
  }
  return sqrt(error / norm);
}

static cmz_array copy_array(cmz_array a) {
  a.data = malloc(cmz_array_count(&a) * sizeof(float));
  return a;
}

/* Layer I as it is, kept outside of the module's arena. */
static cmz_array original(size_t i) {
  uint64_t seed = 1000 + i;
  again();
  F->random = seed;
  layers[i]();
  ok(prepare(), "inference");
  cmz_array result = evaluate(), kept = copy_array(result);
  memcpy(kept.data, result.data, cmz_array_count(&kept) * sizeof(float));
  again();
  F->random = seed;
  layers[i]();
  return kept;
}

static void test_layers_quantised(void **state) {
  (void)state;
  static const struct {
    cmz_compression_rule rule;
    const char *format;
    double error;
  } cases[] = {{{.bits = 8}, "i8", 0.02},
               {{.bits = 8, .symmetric = -1}, "u8", 0.02},
               {{.bits = 4}, "u4", 0.2},
               {{.bits = 4, .symmetric = 1, .group_size = 7}, "i4", 0.2},
               {{.bits = 4, .group_size = -1}, "u4", 0.3}};
  for (size_t i = 0; i < CMZ_COUNT_OF(layers); i++)
    for (size_t c = 0; c < CMZ_COUNT_OF(cases); c++) {
      cmz_array want = original(i);
      const cmz_layer_result *r = compress(&cases[c].rule);
      assert_int_equal(compression.results.count, 1);
      cmz_array got = evaluate();
      double error = difference(&want, &got);
      if (!(error > 0 && error < cases[c].error))
        fail_msg("layer %zu case %zu: error %g", i, c, error);
      assert_string_equal(r->parts[0].format, cases[c].format);
      assert_true(r->relative_error > error / 3 && r->relative_error < error * 3);
      assert_true(r->bytes_after < r->bytes_before * (cases[c].rule.bits == 8 ? 2 : 1) / 2);
      if (c == 0 || c == 3) check_kernels(true);
      free(want.data);
    }
}

/* The documented rule by itself: fours of input channels (with the window inside, sixteen channels
 * at a time, where those are a multiple of 16), the two largest magnitudes stay. */
static void prune_reference(float *w, const int64_t *dims, size_t rank, uint32_t row_axis) {
  int64_t rows = dims[row_axis], inner = rank == 2 ? 1 : 1, inputs = dims[1 - row_axis];
  for (size_t i = 2; i < rank; i++) inner *= dims[i];
  int64_t block = rank > 2 && inputs % 16 == 0 ? 16 : 1, count = inputs * inner;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t begin = 0; begin < count; begin += 4) {
      float *at[4];
      int64_t size = CMZ_MIN((int64_t)4, count - begin);
      for (int64_t j = 0; j < size; j++) {
        int64_t column = begin + j, low = column % block, place = column / block % inner,
                high = column / block / inner, input = high * block + low;
        at[j] = row_axis == 0 ? &w[(r * inputs + input) * inner + place] : &w[input * rows + r];
      }
      float old[4];
      for (int64_t j = 0; j < size; j++) old[j] = *at[j];
      for (int64_t j = 0; j < size; j++) {
        int larger = 0;
        for (int64_t k = 0; k < size; k++)
          larger += fabsf(old[k]) > fabsf(old[j]) || (fabsf(old[k]) == fabsf(old[j]) && k < j);
        if (larger >= 2) *at[j] = 0;
      }
    }
}

static void test_layers_pruned(void **state) {
  (void)state;
  for (size_t i = 0; i < CMZ_COUNT_OF(layers); i++) {
    free(original(i).data);
    ok(prepare(), "inference");
    cmz_node *n = cmz_node_get(F->m, F->node);
    cmz_vid v = n->inputs[cmz_value_constant(F->m, n->inputs[0]) ? 0 : 1];
    const cmz_constant *k = cmz_value_constant(F->m, v);
    uint32_t axis = strcmp(n->op->name, "MatMul") == 0 && v == n->inputs[1] ? 1 : 0;
    prune_reference((float *)(uintptr_t)k->data, k->shape, k->rank, axis);
    cmz_array result = evaluate(), want = copy_array(result);
    memcpy(want.data, result.data, cmz_array_count(&want) * sizeof(float));
    again();
    F->random = 1000 + i;
    layers[i]();
    const cmz_layer_result *r = compress(&(cmz_compression_rule){.sparsity = CMZ_SPARSITY_2_4});
    assert_true(r->parts[0].sparse);
    cmz_array got = evaluate();
    double error = difference(&want, &got);
    if (error > 1e-6) fail_msg("layer %zu: %g from the pruned weights", i, error);
    check_kernels(true);
    free(want.data);
  }
}

/* Weights that are of rank 16 in way WAY of taking them apart, large enough to gain. */
static void rank_sixteen(int way) {
  enum { O = 64, I = 48, H = 3, W = 5, R = 16 };
  cmz_vid x = given(CMZ_F32, SHAPE(1, I, 3, 4), -1, 1), w = weight(SHAPE(O, I, H, W));
  float *data = (float *)(uintptr_t)cmz_value_constant(F->m, w)->data;
  static float a[O * H * W][R], b[I * H * W][R];
  for (size_t i = 0; i < CMZ_COUNT_OF(a); i++)
    for (int r = 0; r < R; r++) a[i][r] = (float)normal();
  for (size_t i = 0; i < CMZ_COUNT_OF(b); i++)
    for (int r = 0; r < R; r++) b[i][r] = (float)normal() * 0.1f;
  for (int o = 0; o < O; o++)
    for (int i = 0; i < I; i++)
      for (int y = 0; y < H; y++)
        for (int z = 0; z < W; z++) {
          int row = o, column = i;
          if (way & 1) row = row * H + y;
          else column = column * H + y;
          if (way & 2) row = row * W + z;
          else column = column * W + z;
          float sum = 0;
          for (int r = 0; r < R; r++) sum += a[row][r] * b[column][r];
          *data++ = sum;
        }
  conv(x, w, O);
  cmz_node_set_ints(F->m, F->node, "pads", (int64_t[]){1, 2, 1, 2}, 4);
  cmz_node_set_ints(F->m, F->node, "strides", (int64_t[]){1, 2}, 2);
}

static void test_split_each_way(void **state) {
  (void)state;
  for (int way = 0; way < 4; way++) {
    again();
    F->random = 77;
    rank_sixteen(way);
    ok(prepare(), "inference");
    cmz_array result = evaluate(), want = copy_array(result);
    memcpy(want.data, result.data, cmz_array_count(&want) * sizeof(float));
    const cmz_layer_result *r = compress(&(cmz_compression_rule){.low_rank_energy = 0.99999});
    if (r->rank != 16)
      fail_msg("way %d: rank %u, first factor %u x %u", way, r->rank, r->parts[0].rows,
               r->parts[0].columns);
    assert_int_equal(r->part_count, 2);
    assert_true(r->energy > 0.99999 && r->relative_error < 1e-4);
    assert_int_equal(r->parts[0].columns, 48 * (way & 1 ? 1 : 3) * (way & 2 ? 1 : 5));
    cmz_array got = evaluate();
    assert_true(difference(&want, &got) < 1e-5);
    check_kernels(false);
    free(want.data);
  }
}

/* All layers at a rank: the output is that of the weight's best approximation; and with int4
 * factors. */
static void test_layers_split(void **state) {
  (void)state;
  for (size_t i = 0; i < CMZ_COUNT_OF(layers); i++)
    for (int quantised = 0; quantised < 2; quantised++) {
      cmz_array want = original(i);
      cmz_compression_rule rule = {.low_rank = 10, .bits = quantised ? 8 : 0};
      const cmz_layer_result *r = compress(&rule);
      if (r->rank) {
        cmz_array got = evaluate();
        double error = difference(&want, &got);
        assert_int_equal(r->rank, 10);
        assert_true(error > r->relative_error / 2 && error < r->relative_error * 2);
        assert_true(r->bytes_after < r->bytes_before);
        check_kernels(false);
      } else {
        assert_non_null(r->note);
        if (layers[i] == conv_same && !quantised)
          fail_msg("a layer that gains is not split: %s", r->note);
      }
      free(want.data);
    }
}

static void test_full_rank_stays(void **state) {
  (void)state;
  for (size_t i = 0; i < CMZ_COUNT_OF(layers); i++) {
    cmz_array want = original(i);
    const cmz_layer_result *r = compress(&(cmz_compression_rule){.low_rank_energy = 1});
    assert_int_equal(r->rank, 0);
    assert_non_null(r->note);
    assert_true(r->bytes_after == r->bytes_before);
    cmz_array got = evaluate();
    assert_true(difference(&want, &got) < 1e-6);
    free(want.data);
  }
}

/* ---- weights that are read twice, or hold what cannot be stored ---- */

static void test_shared(void **state) {
  (void)state;
  cmz_vid x = given(CMZ_F32, SHAPE(4, 96), -1, 1), w = weight(SHAPE(96, 96));
  apply("MatMul", 2, (cmz_vid[]){x, w}, 1);
  cmz_vid y = cmz_node_get(F->m, F->node)->outputs[0];
  apply("MatMul", 2, (cmz_vid[]){y, w}, 1);
  const cmz_layer_result *r = compress(&(cmz_compression_rule){.bits = 4});
  assert_int_equal(compression.results.count, 2);
  assert_true(r[0].bytes_before == 96 * 96 * 4 && r[0].bytes_after > 0);
  assert_true(r[1].bytes_before == 0 && r[1].bytes_after == 0);
  assert_string_equal(r[1].parts[0].format, "u4");
  check_kernels(true);
}

static void test_read_dense(void **state) {
  (void)state;
  cmz_vid x = given(CMZ_F32, SHAPE(4, 96), -1, 1), w = weight(SHAPE(96, 96));
  apply("Add", 2, (cmz_vid[]){w, w}, 1);
  apply("MatMul", 2, (cmz_vid[]){x, w}, 1);
  compression = (cmz_compression){0};
  cmz_vec_push(F->m->arena, &compression.rules, ((cmz_compression_rule){.bits = 4}));
  cmz_graph_add_output(F->m, F->g, w); /* whatever folding does to the Add */
  cmz_pass_run run = {.optimise = 2, .compression = &compression};
  ok(prepare(), "inference");
  ok(cmz_pass_compress(&run, F->m), "compression");
  assert_non_null(strstr(compression.results.data[0].note, "reads the weight"));
  assert_true(compression.results.data[0].bytes_after == 96 * 96 * 4);
}

static void test_not_finite(void **state) {
  (void)state;
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < CMZ_COUNT_OF(bad); i++) {
    again();
    right();
    cmz_vid w = cmz_node_get(F->m, F->node)->inputs[1];
    ((float *)(uintptr_t)cmz_value_constant(F->m, w)->data)[77] = bad[i];
    cmz_compression_rule rule = {.bits = 4, .sparsity = CMZ_SPARSITY_2_4, .low_rank_energy = 0.9};
    const cmz_layer_result *r = compress(&rule);
    assert_non_null(strstr(r->note, "not finite"));
    assert_true(cmz_node_get(F->m, F->node)->inputs[1] == w);
  }
}

static void test_all_zero(void **state) {
  (void)state;
  right();
  cmz_vid w = cmz_node_get(F->m, F->node)->inputs[1];
  memset((float *)(uintptr_t)cmz_value_constant(F->m, w)->data, 0, 9000 * sizeof(float));
  cmz_compression_rule rule = {.bits = 4, .sparsity = CMZ_SPARSITY_2_4, .low_rank_energy = 0.95};
  const cmz_layer_result *r = compress(&rule);
  assert_true(r->relative_error == 0);
  cmz_array got = evaluate();
  for (size_t i = 0; i < cmz_array_count(&got); i++) assert_true(((float *)got.data)[i] == 0);
}

/* ---- recipes ---- */

static cmz_status read_recipe(const char *text) {
  const char *path = "test_compress.recipe.json";
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
  compression = (cmz_compression){0};
  return cmz_recipe_read(F->ctx, F->m->arena, path, &compression);
}

static void test_recipe_order(void **state) {
  (void)state;
  ok(read_recipe("{\"layers\": [{\"weights\": \"w8a16\", \"prune\": \"2:4\"}, {\"match\": "
                 "\"conv_*\", \"weights\": \"w4a16\", "
                 "\"group_size\": 64, \"symmetric\": true, \"low_rank\": \"95%\"}, {\"match\": "
                 "\"conv_9\", \"prune\": \"none\", "
                 "\"low_rank\": 8}, {\"match\": \"conv_9\", \"symmetric\": false}]}"),
     "reading");
  const char *other = "fc", *conv_1 = "conv_1", *conv_9[] = {"x", "conv_9"};
  cmz_compression_rule r = cmz_compression_for(&compression, &other, 1);
  assert_true(r.bits == 8 && r.sparsity == CMZ_SPARSITY_2_4 && !r.low_rank_energy && !r.group_size);
  r = cmz_compression_for(&compression, &conv_1, 1);
  assert_true(r.bits == 4 && r.group_size == 64 && r.symmetric == 1 && r.low_rank_energy == 0.95);
  r = cmz_compression_for(&compression, conv_9,
                          2); /* any of a layer's names; later rules win, setting by setting */
  assert_true(r.bits == 4 && r.sparsity == CMZ_SPARSITY_NONE && r.low_rank == 8 &&
              r.low_rank_energy == 0);
  assert_true(r.symmetric == -1 && r.group_size == 64);
}

static void test_recipe_prints(void **state) {
  (void)state;
  ok(read_recipe("{\"layers\": [{\"match\": \"a*\", \"weights\": \"w4a16\", \"group_size\": -1, "
                 "\"symmetric\": false, "
                 "\"low_rank\": \"99.123456789%\"}, {\"weights\": \"f32\", \"prune\": \"none\", "
                 "\"low_rank\": \"none\"}, "
                 "{\"low_rank\": 12, \"prune\": \"2:4\"}]}"),
     "reading");
  cmz_compression first = compression;
  cmz_text text = {.arena = F->m->arena};
  ok(cmz_recipe_print(&first, &text), "printing");
  ok(read_recipe(text.data), "reading again");
  assert_int_equal(compression.rules.count, 3);
  for (uint32_t i = 0; i < 3; i++) {
    const cmz_compression_rule *a = &first.rules.data[i], *b = &compression.rules.data[i];
    assert_true(!a->pattern == !b->pattern && (!a->pattern || !strcmp(a->pattern, b->pattern)));
    assert_true(a->bits == b->bits && a->group_size == b->group_size &&
                a->symmetric == b->symmetric);
    assert_true(a->sparsity == b->sparsity && a->low_rank == b->low_rank &&
                a->low_rank_energy == b->low_rank_energy);
  }
}

static void test_recipe_errors(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"{", "line 1"},
      {"[]", "an object with the list"},
      {"{}", "an object with the list"},
      {"{\"layers\": {}}", "\"layers\""},
      {"{\"layers\": [], \"more\": 1}", "\"more\""},
      {"{\"layers\": [3]}", "layers[0]"},
      {"{\"layers\": [{}, {\"wieghts\": \"w4a16\"}]}",
       "layers[1]: unknown key or wrong type of value: \"wieghts\""},
      {"{\"layers\": [{\"weights\": \"w5a16\"}]}", "layers[0]: unknown weights \"w5a16\""},
      {"{\"layers\": [{\"weights\": 4}]}", "\"weights\""},
      {"{\"layers\": [{\"weights\": \"w4a16\", \"weights\": \"w8a16\"}]}", "line 1"},
      {"{\"layers\": [{\"prune\": \"4:8\"}]}", "unknown sparsity \"4:8\""},
      {"{\"layers\": [{\"low_rank\": \"101%\"}]}", "unknown rank \"101%\""},
      {"{\"layers\": [{\"low_rank\": \"0\"}]}", "unknown rank \"0\""},
      {"{\"layers\": [{\"low_rank\": -3}]}", "unknown rank \"-3\""},
      {"{\"layers\": [{\"low_rank\": \"nan%\"}]}", "unknown rank"},
      {"{\"layers\": [{\"low_rank\": \"5x\"}]}", "unknown rank"},
      {"{\"layers\": [{\"group_size\": 0}]}", "group_size"},
      {"{\"layers\": [{\"group_size\": 1.5}]}", "group_size"},
      {"{\"layers\": [{\"symmetric\": 1}]}", "symmetric"},
      {"{\"layers\": [{\"match\": null}]}", "match"},
  };
  for (size_t i = 0; i < CMZ_COUNT_OF(cases); i++) {
    again();
    cmz_status status = read_recipe(cases[i][0]);
    if (status != CMZ_E_INPUT) fail_msg("%s: status %d", cases[i][0], (int)status);
    if (!strstr(last_message(), cases[i][1])) fail_msg("%s: \"%s\"", cases[i][0], last_message());
  }
}

static void test_unused_pattern(void **state) {
  (void)state;
  right();
  compress(&(cmz_compression_rule){.pattern = "nothing_*", .bits = 4});
  assert_non_null(strstr(last_message(), "\"nothing_*\""));
  assert_int_equal(F->ctx->error_count, 0);
  assert_int_equal(compression.results.data[0].parts[0].bits, 32);
}

/* A Gemm is a MatMul by the time of the pass: it goes by its own name. */
static void test_source_names(void **state) {
  (void)state;
  gemm();
  const cmz_layer_result *r = compress(&(cmz_compression_rule){.pattern = "Gemm", .bits = 4});
  assert_string_equal(r->name, "Gemm");
  assert_int_equal(r->parts[0].bits, 4);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      T(test_every_format),     T(test_codes),
      T(test_unusual_values),   T(test_prune),
      T(test_energy),           T(test_low_rank),
      T(test_layers_quantised), T(test_layers_pruned),
      T(test_split_each_way),   T(test_layers_split),
      T(test_full_rank_stays),  T(test_shared),
      T(test_read_dense),       T(test_not_finite),
      T(test_all_zero),         T(test_recipe_order),
      T(test_recipe_prints),    T(test_recipe_errors),
      T(test_unused_pattern),   T(test_source_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
