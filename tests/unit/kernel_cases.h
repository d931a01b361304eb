/* kernel_cases.h - graphs whose values have layouts, each run as one kernel and compared with the
 * evaluator. In: `execute`, which runs a kernel on memory. Out: cmocka failures. Used by
 * test_describe.c with the interpreter and by test_codegen_kernels.c with compiled code. Always
 * holds: padding of outputs must be zero. */
#ifndef CMZ_TESTS_KERNEL_CASES_H
#define CMZ_TESTS_KERNEL_CASES_H

#include "op_fixture.h"

static void execute(cmz_kernel *k, void *const *operands, const size_t *bytes,
                    const int64_t *params);

static const char *case_detail = ""; /* for messages: the kernel that ran */

__attribute__((unused)) static int64_t value_of(const cmz_kernel *k, cmz_expr e,
                                                const int64_t *params) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  int64_t a = n->args[0] ? value_of(k, n->args[0], params) : 0,
          b = n->args[1] ? value_of(k, n->args[1], params) : 0;
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_CONST_INT:
    return n->i;
  case CMZ_X_PARAM:
    return params[n->i];
  case CMZ_X_ADD:
    return a + b;
  case CMZ_X_SUB:
    return a - b;
  case CMZ_X_MUL:
    return a * b;
  case CMZ_X_FLOORDIV:
    return cmz_floor_div(a, b);
  case CMZ_X_MIN:
    return CMZ_MIN(a, b);
  case CMZ_X_MAX:
    return CMZ_MAX(a, b);
  default:
    fail_msg("an extent of another form\n%s", case_detail);
    return 0;
  }
}

/* Grid tiles of K under S. */
__attribute__((unused)) static uint32_t tile_count(const cmz_kernel *k, const cmz_schedule *s,
                                                   const int64_t *params) {
  int64_t tiles = 1;
  for (uint16_t a = 0; a < k->axes.count; a++)
    if (s->axes[a].tile && k->axes.data[a].kind != CMZ_AXIS_REDUCE)
      tiles *=
          (value_of(k, k->axes.data[a].extent, params) + s->axes[a].tile - 1) / s->axes[a].tile;
  return (uint32_t)tiles;
}

typedef struct kernel_case {
  const char *name;
  void (*build)(void);
} kernel_case;

static const cmz_layout BLOCKED = {5, {{0, 1, 0}, {1, 16, 0}, {2, 1, 0}, {3, 1, 0}, {1, 1, 16}}};
static const cmz_layout BLOCKED_8 = {5, {{0, 1, 0}, {1, 8, 0}, {2, 1, 0}, {3, 1, 0}, {1, 1, 8}}};
static const cmz_layout WEIGHT_OUT = {5, {{0, 16, 0}, {1, 1, 0}, {2, 1, 0}, {3, 1, 0}, {0, 1, 16}}};
static const cmz_layout WEIGHT_BOTH = {
    6, {{0, 16, 0}, {1, 16, 0}, {2, 1, 0}, {3, 1, 0}, {1, 1, 16}, {0, 1, 16}}};
static const cmz_layout PANELS = {3, {{1, 16, 0}, {0, 1, 0}, {1, 1, 16}}};

static cmz_vid lay(cmz_vid v, cmz_layout layout) {
  cmz_value_get(F->m, v)->layout = layout;
  return v;
}

/* One more node; its output is the graph's only one in the end. */
static cmz_vid then(const char *op, uint32_t count, const cmz_vid *inputs) {
  cmz_graph *g = cmz_graph_get(F->m, F->g);
  if (g->outputs.count) {
    cmz_value_get(F->m, g->outputs.data[0])->output_uses = 0;
    g->outputs.count = g->output_names.count = 0;
  }
  cmz_nid n = apply(op, count, inputs, 1);
  return cmz_node_get(F->m, n)->outputs[0];
}
static cmz_vid then1(const char *op, cmz_vid a) { return then(op, 1, &a); }
static cmz_vid then2(const char *op, cmz_vid a, cmz_vid b) {
  return then(op, 2, (cmz_vid[]){a, b});
}
static void set_ints(const char *name, const int64_t *v, size_t count) {
  cmz_node_set_ints(F->m, F->node, name, v, (uint32_t)count);
}
static void set_int(const char *name, int64_t v) { cmz_node_set_int(F->m, F->node, name, v); }
static cmz_vid f32(const int64_t *shape, size_t rank) { return given(CMZ_F32, shape, rank, -1, 1); }

static int64_t size_now(cmz_dim d, const int64_t *symbols) {
  int64_t v = 0;
  if (!cmz_dim_eval(F->m->dims, d, symbols, &v)) fail_msg("a size cannot be computed");
  return v;
}

static void *packed(cmz_vid v, const cmz_array *a, const int64_t *symbols, size_t *bytes) {
  const cmz_value *value = cmz_value_get(F->m, v);
  cmz_dim elements =
      cmz_layout_elements(F->m->dims, &value->layout, value->type.rank, value->type.shape);
  size_t count = (size_t)size_now(elements, symbols),
         size = cmz_dtype_info(value->type.dtype)->bits / 8;
  assert_true(cmz_dtype_bytes(value->type.dtype, count, bytes));
  uint8_t *memory = cmz_arena_alloc(F->m->arena, *bytes + 64);
  if (!a) memset(memory, 0xEE, *bytes + 64);
  else if (value->layout.count)
    cmz_layout_pack(&value->layout, a->rank, a->shape, (uint32_t)size, a->data, memory);
  else memcpy(memory, a->data, *bytes);
  return memory;
}

static void compare_packed(cmz_vid v, const cmz_array *want, const uint8_t *got, size_t bytes,
                           const char *how) {
  const cmz_layout *layout = &cmz_value_get(F->m, v)->layout;
  size_t count = cmz_array_count(want), size = cmz_dtype_info(want->dtype)->bits / 8;
  uint8_t *seen = cmz_arena_alloc(F->m->arena, bytes / size + 1);
  for (size_t i = 0; i < count; i++) {
    int64_t at[CMZ_MAX_RANK];
    cmz_array_coordinates(want, i, at);
    size_t index =
        layout->count ? (size_t)cmz_layout_index(layout, want->rank, want->shape, at) : i;
    seen[index] = 1;
    double a = cmz_dtype_get_f64(want->dtype, want->data, i),
           b = cmz_dtype_get_f64(want->dtype, got, index);
    if ((isnan(a) && isnan(b)) || a == b || fabs(a - b) <= F->tolerance * (1 + fabs(a))) continue;
    fail_msg("%s: element %zu is %.9g, evaluation has %.9g\n%s", how, i, b, a, case_detail);
  }
  for (size_t i = 0; i < bytes / size; i++)
    if (!seen[i] && cmz_dtype_get_f64(want->dtype, got, i) != 0)
      fail_msg("%s: padding element %zu is not zero\n%s", how, i, case_detail);
  for (size_t i = bytes; i < bytes + 64; i++)
    if (got[i] != 0xEE) fail_msg("%s: byte %zu past the end was written", how, i - bytes);
}

static void run_described(const cmz_described *d, const cmz_array *values, const cmz_array *want,
                          const int64_t *symbols, const char *how) {
  cmz_kernel *k = d->kernel;
  void *operands[32];
  size_t bytes[32];
  int64_t params[32];
  cmz_vid out = cmz_graph_get(F->m, F->g)->outputs.data[0];
  for (uint32_t i = 0; i < k->operands.count; i++) {
    cmz_vid v = d->operand_values[i];
    const cmz_constant *c = cmz_value_constant(F->m, v);
    cmz_array constant = {.rank = 0};
    if (c) {
      constant =
          (cmz_array){.dtype = c->dtype, .rank = c->rank, .data = (void *)(uintptr_t)c->data};
      memcpy(constant.shape, c->shape, c->rank * sizeof(int64_t));
    }
    operands[i] = packed(v, v == out ? NULL : c ? &constant : &values[v], symbols, &bytes[i]);
  }
  for (uint32_t i = 0; i < k->param_count; i++) params[i] = size_now(d->params[i], symbols);
  ok(cmz_kernel_verify(F->ctx, k), how);
  execute(k, operands, bytes, params);
  for (uint32_t i = 0; i < k->operands.count; i++)
    if (d->operand_values[i] == out) compare_packed(out, want, operands[i], bytes[i], how);
}

/* The graph as one kernel: as described, and with its axes split and merged. */
static void (*split_axes)(cmz_kernel *k) = cmz_kernel_split_blocked_reductions;
static void check_kernel(bool rewritten) {
  ok(prepare(), "inference");
  expand_all();
  cmz_module *m = F->m;
  cmz_array want[1] = {{0}};
  cmz_eval e = {.module = m, .arena = m->arena};
  ok(cmz_eval_graph(&e, F->g, F->inputs, want, NULL), "evaluation");
  cmz_array *values = CMZ_NEW_ARRAY(m->arena, cmz_array, m->values.count);
  bool *fused = CMZ_NEW_ARRAY(m->arena, bool, m->values.count);
  int64_t *symbols = CMZ_NEW_ARRAY(m->arena, int64_t, cmz_dim_symbol_count(m->dims) + 1);
  cmz_graph *graph = cmz_graph_get(m, F->g);
  for (uint32_t i = 0; i < graph->inputs.count; i++) values[graph->inputs.data[i]] = F->inputs[i];
  set_shape_symbols(values, symbols);
  for (cmz_vid v = 1; v < m->values.count; v++)
    fused[v] = cmz_value_get(m, v)->producer && !cmz_value_get(m, v)->output_uses;
  cmz_described d;
  cmz_nid root = cmz_value_get(m, graph->outputs.data[0])->producer;
  F->node = root;
  ok(cmz_describe_node(m, root, fused, m->arena, &d), "description");
  if (rewritten) {
    split_axes(d.kernel);
    cmz_kernel_merge_axes(d.kernel);
  }
  run_described(&d, values, want, symbols, rewritten ? "axes rewritten" : "as described");
}

/* ---- convolutions ---- */

static cmz_vid conv(cmz_vid x, cmz_vid w, cmz_vid bias, int64_t pad, int64_t stride,
                    int64_t dilation, int64_t group) {
  cmz_vid y = then("Conv", bias ? 3 : 2, (cmz_vid[]){x, w, bias});
  set_ints("pads", (int64_t[]){pad, pad, pad, pad}, 4);
  set_ints("strides", (int64_t[]){stride, stride}, 2);
  set_ints("dilations", (int64_t[]){dilation, dilation}, 2);
  set_int("group", group);
  return y;
}
/* A block of outputs lies within one group, or holds several. */
static void conv_group_blocks(void) {
  lay(conv(lay(f32(SHAPE(1, 48, 6, 5)), BLOCKED), lay(f32(SHAPE(32, 24, 3, 3)), WEIGHT_OUT),
           f32(SHAPE(32)), 1, 1, 1, 2),
      BLOCKED);
}
static void conv_groups_in_block(void) {
  lay(conv(lay(f32(SHAPE(1, 32, 6, 5)), BLOCKED), lay(f32(SHAPE(32, 8, 3, 3)), WEIGHT_OUT), 0, 1, 2,
           1, 4),
      BLOCKED);
}

static void conv_plain(void) {
  conv(f32(SHAPE(2, 3, 9, 11)), f32(SHAPE(5, 3, 3, 3)), f32(SHAPE(5)), 1, 1, 1, 1);
}
static void conv_strided(void) {
  conv(f32(SHAPE(1, 4, 12, 9)), f32(SHAPE(6, 4, 5, 5)), 0, 2, 2, 1, 1);
}
static void conv_dilated(void) {
  conv(f32(SHAPE(1, 2, 13, 12)), f32(SHAPE(3, 2, 3, 3)), f32(SHAPE(3)), 2, 1, 2, 1);
}
static void conv_grouped(void) {
  conv(f32(SHAPE(1, 8, 7, 7)), f32(SHAPE(12, 2, 3, 3)), f32(SHAPE(12)), 1, 1, 1, 4);
}
static void conv_depthwise(void) {
  conv(f32(SHAPE(1, 6, 8, 9)), f32(SHAPE(6, 1, 3, 3)), f32(SHAPE(6)), 1, 2, 1, 6);
}
static void conv_blocked(void) {
  cmz_vid x = lay(f32(SHAPE(1, 32, 6, 7)), BLOCKED), w = lay(f32(SHAPE(48, 32, 3, 3)), WEIGHT_BOTH);
  lay(conv(x, w, f32(SHAPE(48)), 1, 1, 1, 1), BLOCKED);
}
static void conv_blocked_first(void) {
  lay(conv(f32(SHAPE(1, 3, 10, 9)), lay(f32(SHAPE(16, 3, 3, 3)), WEIGHT_OUT), f32(SHAPE(16)), 1, 2,
           1, 1),
      BLOCKED);
}
static void conv_blocked_padding(void) {
  cmz_vid x = lay(f32(SHAPE(1, 20, 5, 6)), BLOCKED), w = lay(f32(SHAPE(24, 20, 3, 3)), WEIGHT_BOTH);
  lay(conv(x, w, f32(SHAPE(24)), 1, 1, 1, 1), BLOCKED);
}
static void conv_blocked_guard(void) { /* the weight has no padding along C */
  cmz_vid x = lay(f32(SHAPE(1, 20, 5, 6)), BLOCKED), w = lay(f32(SHAPE(24, 20, 3, 3)), WEIGHT_OUT);
  lay(conv(x, w, f32(SHAPE(24)), 1, 1, 1, 1), BLOCKED);
}
static void conv_blocked_depthwise(void) {
  cmz_vid x = lay(f32(SHAPE(1, 36, 6, 6)), BLOCKED), w = lay(f32(SHAPE(36, 1, 3, 3)), WEIGHT_OUT);
  lay(conv(x, w, f32(SHAPE(36)), 1, 1, 1, 36), BLOCKED);
}
static void conv_blocked_grouped(void) {
  cmz_vid x = lay(f32(SHAPE(1, 32, 5, 5)), BLOCKED_8), w = lay(f32(SHAPE(32, 8, 3, 3)), WEIGHT_OUT);
  lay(conv(x, w, 0, 1, 1, 1, 4), BLOCKED_8);
}
static void conv_residual_relu(void) {
  cmz_vid x = lay(f32(SHAPE(1, 16, 6, 6)), BLOCKED), w = lay(f32(SHAPE(20, 16, 1, 1)), WEIGHT_BOTH);
  cmz_vid r = lay(f32(SHAPE(1, 20, 6, 6)), BLOCKED);
  lay(then1("Relu", then2("Add", conv(x, w, f32(SHAPE(20)), 0, 1, 1, 1), r)), BLOCKED);
}

/* ---- contractions, reductions ---- */

static void matmul_odd(void) { then2("MatMul", f32(SHAPE(7, 13)), f32(SHAPE(13, 37))); }
static void matmul_batch(void) { then2("MatMul", f32(SHAPE(2, 3, 5, 6)), f32(SHAPE(3, 6, 9))); }
static void matmul_panels(void) {
  cmz_vid y = then2("MatMul", f32(SHAPE(9, 24)), lay(f32(SHAPE(24, 40)), PANELS));
  then1("Sigmoid", then2("Add", y, f32(SHAPE(40))));
}
static void matmul_vector(void) { then2("MatMul", f32(SHAPE(1, 50)), f32(SHAPE(50, 33))); }
static void matmul_integer(void) {
  cmz_vid a = given(CMZ_U8, SHAPE(5, 17), 0, 255), b = given(CMZ_I8, SHAPE(17, 19), -128, 127);
  then("MatMulInteger", 3, (cmz_vid[]){a, b, given(CMZ_U8, SHAPE(1), 3, 130)});
}
static void softmax_last(void) { then1("Softmax", f32(SHAPE(5, 37))), set_int("axis", -1); }
static void softmax_middle(void) { then1("Softmax", f32(SHAPE(3, 11, 5))), set_int("axis", 1); }
static void softmax_blocked(void) {
  lay(then1("Softmax", lay(f32(SHAPE(1, 20, 3, 4)), BLOCKED)), BLOCKED), set_int("axis", 1);
}
static void layer_norm(void) {
  then("LayerNormalization", 3, (cmz_vid[]){f32(SHAPE(4, 30)), f32(SHAPE(30)), f32(SHAPE(30))}),
      set_int("axis", -1);
}
static void reduce_first(void) {
  then2("ReduceSum", f32(SHAPE(6, 5, 20)), i64s((int64_t[]){0}, 1));
}
static void reduce_middle(void) {
  then2("ReduceMax", f32(SHAPE(4, 9, 7)), i64s((int64_t[]){1}, 1));
}
static void reduce_last(void) { then2("ReduceMean", f32(SHAPE(5, 45)), i64s((int64_t[]){1}, 1)); }
static void reduce_all(void) {
  then2("ReduceL2", f32(SHAPE(5, 6, 7)), i64s((int64_t[]){0, 1, 2}, 3)), set_int("keepdims", 0);
}
static void arg_max(void) { then1("ArgMax", f32(SHAPE(6, 23))), set_int("axis", 1); }
static void arg_min_last(void) {
  then1("ArgMin", given(CMZ_I32, SHAPE(9, 8), 0, 4)), set_int("axis", 0),
      set_int("select_last_index", 1);
}
static void max_pool(void) {
  then1("MaxPool", f32(SHAPE(1, 3, 9, 10)));
  set_ints("kernel_shape", (int64_t[]){3, 3}, 2), set_ints("strides", (int64_t[]){2, 2}, 2),
      set_ints("pads", (int64_t[]){1, 1, 1, 1}, 4);
}
static void max_pool_blocked(void) {
  lay(then1("MaxPool", lay(f32(SHAPE(1, 20, 9, 10)), BLOCKED)), BLOCKED);
  set_ints("kernel_shape", (int64_t[]){3, 3}, 2), set_ints("strides", (int64_t[]){2, 2}, 2),
      set_ints("pads", (int64_t[]){1, 1, 1, 1}, 4);
}
static void average_pool(void) {
  then1("AveragePool", f32(SHAPE(1, 4, 7, 8)));
  set_ints("kernel_shape", (int64_t[]){2, 3}, 2), set_ints("pads", (int64_t[]){1, 1, 0, 1}, 4);
}
static void global_pool_blocked(void) {
  lay(then1("GlobalAveragePool", lay(f32(SHAPE(1, 20, 5, 6)), BLOCKED)), BLOCKED);
}

/* ---- movement, pointwise ---- */

static void reduce_max_blocked(void) {
  then2("ReduceMax", lay(f32(SHAPE(1, 20, 3, 4)), BLOCKED), i64s((int64_t[]){1}, 1));
}

static void to_blocked(void) { lay(then1("Relu", f32(SHAPE(2, 20, 3, 5))), BLOCKED); }
static void from_blocked(void) { then1("Relu", lay(f32(SHAPE(2, 20, 3, 5)), BLOCKED)); }
static void concat_blocked(void) {
  lay(then2("Concat", lay(f32(SHAPE(1, 20, 3, 4)), BLOCKED), lay(f32(SHAPE(1, 12, 3, 4)), BLOCKED)),
      BLOCKED),
      set_int("axis", 1);
}
static void flatten_blocked(void) {
  then2("Reshape", lay(f32(SHAPE(2, 20, 3, 4)), BLOCKED), i64s((int64_t[]){2, 240}, 2));
}
static void transpose(void) {
  then1("Transpose", f32(SHAPE(5, 17, 20))), set_ints("perm", (int64_t[]){2, 0, 1}, 3);
}
static void broadcasts(void) {
  cmz_vid a = then2("Mul", f32(SHAPE(4, 1, 19)), f32(SHAPE(3, 1)));
  then2("Sub", then1("Tanh", a), then1("Exp", f32(SHAPE(1, 3, 19))));
}
static void slice_pad(void) {
  cmz_vid x = f32(SHAPE(6, 21));
  cmz_vid s = then("Slice", 5,
                   (cmz_vid[]){x, i64s((int64_t[]){5, 2}, 2), i64s((int64_t[]){0, 19}, 2),
                               i64s((int64_t[]){0, 1}, 2), i64s((int64_t[]){-2, 3}, 2)});
  then("Pad", 2, (cmz_vid[]){s, i64s((int64_t[]){1, 2, 0, 3}, 4)});
}
static void gather_rows(void) {
  then2("Gather", f32(SHAPE(10, 18)), given(CMZ_I64, SHAPE(3, 4), -10, 9));
}
/* Whether a lane is padding depends on it, whether its row is depends on what is loaded. */
static void gather_padded(void) {
  cmz_vid p = then("Pad", 2, (cmz_vid[]){f32(SHAPE(6, 18)), i64s((int64_t[]){1, 1, 1, 1}, 4)});
  then2("Gather", p, given(CMZ_I64, SHAPE(3, 4), -8, 7));
}
static void bool_ops(void) {
  cmz_vid p = then2("Less", f32(SHAPE(5, 21)), f32(SHAPE(21)));
  cmz_vid q = then2("And", p, given(CMZ_BOOL, SHAPE(5, 21), 0, 2));
  then("Where", 3, (cmz_vid[]){then1("Not", q), f32(SHAPE(5, 21)), f32(SHAPE(5, 1))});
}
static void bool_output(void) {
  then2("Xor", then2("Equal", given(CMZ_I32, SHAPE(40), 0, 3), given(CMZ_I32, SHAPE(40), 0, 3)),
        given(CMZ_BOOL, SHAPE(40), 0, 2));
}
static void half_operands(void) {
  F->tolerance = 2e-3;
  then2("MatMul", given(CMZ_F16, SHAPE(5, 16), -1, 1), given(CMZ_F16, SHAPE(16, 21), -1, 1));
}
static void bfloat_operands(void) {
  F->tolerance = 2e-2;
  then2("Add", given(CMZ_BF16, SHAPE(3, 21), -1, 1), given(CMZ_BF16, SHAPE(21), -1, 1));
}

static cmz_dtype cast_from, cast_to;
__attribute__((unused)) static void one_cast(void) {
  bool narrow = cast_from == CMZ_BOOL || cast_from == CMZ_U8 || cast_to == CMZ_BOOL;
  bool is_unsigned = cmz_dtype_info(cast_from)->class_ == CMZ_CLASS_UNSIGNED ||
                     cmz_dtype_info(cast_to)->class_ == CMZ_CLASS_UNSIGNED;
  then1("Cast", given(cast_from, SHAPE(3, 15), is_unsigned || narrow ? 0 : -100, narrow ? 2 : 100));
  set_int("to", cast_to);
}

static void symbolic_conv(void) {
  const char *names[] = {"n", NULL, "h", "w"};
  cmz_vid x = given_symbolic(CMZ_F32, SHAPE(2, 3, 7, 9), names, -1, 1);
  then1("Relu", conv(x, f32(SHAPE(4, 3, 3, 3)), f32(SHAPE(4)), 1, 2, 1, 1));
}
static void symbolic_blocked(void) {
  const char *names[] = {"n", NULL, "h", "w"};
  cmz_vid x = lay(given_symbolic(CMZ_F32, SHAPE(2, 20, 5, 6), names, -1, 1), BLOCKED);
  lay(conv(x, lay(f32(SHAPE(16, 20, 3, 3)), WEIGHT_BOTH), 0, 1, 1, 1, 1), BLOCKED);
}
static void symbolic_attention(void) {
  const char *names[] = {"batch", "sequence", NULL};
  cmz_vid q = given_symbolic(CMZ_F32, SHAPE(2, 5, 8), names, -1, 1),
          k = given_symbolic(CMZ_F32, SHAPE(2, 5, 8), names, -1, 1);
  cmz_vid t = then1("Transpose", k);
  set_ints("perm", (int64_t[]){0, 2, 1}, 3);
  then1("Softmax", then2("MatMul", q, t));
}

#define CASE(name)                                                                                 \
  { #name, name }
static const kernel_case KERNEL_CASES[] = {
    CASE(conv_plain),
    CASE(conv_strided),
    CASE(conv_dilated),
    CASE(conv_grouped),
    CASE(conv_depthwise),
    CASE(conv_blocked),
    CASE(conv_blocked_first),
    CASE(conv_blocked_padding),
    CASE(conv_blocked_guard),
    CASE(conv_blocked_depthwise),
    CASE(conv_blocked_grouped),
    CASE(conv_residual_relu),
    CASE(matmul_odd),
    CASE(matmul_batch),
    CASE(matmul_panels),
    CASE(matmul_vector),
    CASE(matmul_integer),
    CASE(softmax_last),
    CASE(softmax_middle),
    CASE(softmax_blocked),
    CASE(layer_norm),
    CASE(reduce_first),
    CASE(reduce_middle),
    CASE(reduce_last),
    CASE(reduce_all),
    CASE(arg_max),
    CASE(arg_min_last),
    CASE(max_pool),
    CASE(max_pool_blocked),
    CASE(average_pool),
    CASE(global_pool_blocked),
    CASE(reduce_max_blocked),
    CASE(to_blocked),
    CASE(from_blocked),
    CASE(concat_blocked),
    CASE(flatten_blocked),
    CASE(transpose),
    CASE(broadcasts),
    CASE(slice_pad),
    CASE(conv_group_blocks),
    CASE(conv_groups_in_block),
    CASE(gather_rows),
    CASE(gather_padded),
    CASE(bool_ops),
    CASE(bool_output),
    CASE(half_operands),
    CASE(bfloat_operands),
    CASE(symbolic_conv),
    CASE(symbolic_blocked),
    CASE(symbolic_attention),
};
static const cmz_dtype CAST_TYPES[] = {CMZ_F32, CMZ_F64, CMZ_F16, CMZ_BF16, CMZ_U8,
                                       CMZ_I8,  CMZ_U16, CMZ_I16, CMZ_I32,  CMZ_I64,
                                       CMZ_U32, CMZ_U64, CMZ_BOOL};

#endif
