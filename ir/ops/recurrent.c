/* recurrent.c - LSTM, GRU and RNN, expanded into one MatMul over all steps and a Scan over time;
 * and com.microsoft's DynamicQuantizeLSTM, whose matrices are bytes, [directions, rows, gates * H].
 * In: X [T, B, I] (layout 1: [B, T, I]), weights per direction. Out: Y [T, D, B, H] and the last
 * states. Always holds: constant weights are sliced and transposed here, so the Scan's body
 * multiplies by plain constants; a single step is expanded in place without a Scan. */
#include "ops.h"
#include "quantize.h"

typedef enum cell { LSTM, GRU, RNN } cell;

typedef struct frame {
  cmz_module *m;
  cmz_nid node; /* being expanded */
  cmz_node n;   /* a copy: the pool moves */
  cell cell;
  uint32_t gates;      /* 4, 3, 1 */
  uint32_t directions; /* 1 or 2 */
  bool first_reversed;
  int64_t hidden;
  cmz_dim steps, batch, input;
  cmz_dtype dtype;
  bool batch_first; /* layout 1 */
  bool dynamic;     /* matrices of bytes, data quantised as it comes */
  cmz_vid x;        /* [T, B, I] */
  cmz_vid lengths;  /* sequence_lens as i64 [B]; 0: all full */
} frame;

/* What a step needs besides the state: values of one direction. */
typedef struct weights {
  cmz_vid recurrent_scale, recurrent_zero_point; /* of DynamicQuantizeLSTM */
  cmz_vid recurrent;      /* [H, gates * H]; GRU without linear_before_reset: [H, 2 * H], */
  cmz_vid candidate;      /* and the hidden gate's part, [H, H] */
  cmz_vid recurrent_bias; /* GRU with linear_before_reset: Rb of the hidden gate, [H]; else 0 */
  cmz_vid peephole[3];    /* [H] each, or 0 */
  uint32_t direction;
} weights;

static bool is_dynamic(const cmz_node *n) { return n->op->name[0] == 'D'; }

static int64_t hidden_size(const cmz_module *m, const cmz_node *n) {
  int64_t h = cmz_node_int(n, "hidden_size", 0), size;
  const cmz_type *r = cmz_input_type(m, n, 2);
  uint32_t axis = is_dynamic(n) ? 1 : 2;
  if (r && r->rank == 3 && cmz_dim_is_const(m->dims, r->shape[axis], &size)) return size;
  return h;
}

static uint32_t direction_count(const cmz_node *n) {
  return strcmp(cmz_node_string(n, "direction", "forward"), "bidirectional") == 0 ? 2 : 1;
}

/* ---- inference ---- */

static cmz_status infer(cmz_module *m, cmz_nid n, uint32_t gates) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0), w = *cmz_input_type(m, node, 1),
                 r = *cmz_input_type(m, node, 2);
  if (x.rank != 3 || w.rank != 3 || r.rank != 3)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "X, W and R have ranks %u, %u and %u instead of 3",
                         x.rank, w.rank, r.rank);
  const char *direction = cmz_node_string(node, "direction", "forward");
  if (strcmp(direction, "forward") && strcmp(direction, "reverse") &&
      strcmp(direction, "bidirectional"))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "direction is \"%s\"", direction);
  int64_t hidden = hidden_size(m, node);
  uint32_t directions = direction_count(node);
  if (hidden < 1) return cmz_node_fail(m, n, CMZ_E_INPUT, "the hidden size is not known");
  cmz_dim h = cmz_dim_const(m->dims, hidden), d = cmz_dim_const(m->dims, directions);
  cmz_dim gh = cmz_dim_const(m->dims, hidden * (int64_t)gates);
  uint32_t rows = is_dynamic(node) ? 2 : 1, columns = 3 - rows; /* the gates', the inputs' */
  if (cmz_dims_differ(m, w.shape[0], d) || cmz_dims_differ(m, r.shape[0], d) ||
      cmz_dims_differ(m, w.shape[rows], gh) || cmz_dims_differ(m, r.shape[rows], gh) ||
      cmz_dims_differ(m, w.shape[columns], x.shape[2]))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the shapes of X, W and R do not agree");
  bool batch_first = cmz_node_int(node, "layout", 0) != 0;
  cmz_dim all = x.shape[batch_first ? 0 : 1],
          state[3] = {batch_first ? all : d, batch_first ? d : all, h};
  cmz_dim bias[2] = {d, cmz_dim_const(m->dims, 2 * hidden * (int64_t)gates)},
          peephole[2] = {d, cmz_dim_const(m->dims, 3 * hidden)};
  if (r.shape[columns] != h && cmz_dims_differ(m, r.shape[columns], h))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the hidden size does not agree with R");
  CMZ_TRY(cmz_check_shape(m, n, 3, 2, bias));
  CMZ_TRY(cmz_check_vector(m, n, 4, all, false));
  CMZ_TRY(cmz_check_shape(m, n, 5, 3, state));
  CMZ_TRY(cmz_check_shape(m, n, 6, 3, state));
  CMZ_TRY(cmz_check_shape(m, n, 7, 2, peephole));
  cmz_dim steps = x.shape[batch_first ? 1 : 0], batch = x.shape[batch_first ? 0 : 1];
  cmz_dim y[4] = {steps, d, batch, h}, y_first[4] = {batch, steps, d, h};
  cmz_dim last[3] = {d, batch, h}, last_first[3] = {batch, d, h};
  cmz_set_output(m, n, 0, x.dtype, 4, batch_first ? y_first : y);
  cmz_set_output(m, n, 1, x.dtype, 3, batch_first ? last_first : last);
  cmz_set_output(m, n, 2, x.dtype, 3, batch_first ? last_first : last);
  return CMZ_OK;
}

static cmz_status infer_lstm(cmz_module *m, cmz_nid n) { return infer(m, n, 4); }
/* Scales are one number a direction, or one a column; so are zero points. */
static cmz_status infer_dynamic_lstm(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  CMZ_TRY(infer(m, n, 4));
  cmz_dim size[2] = {cmz_dim_const(m->dims, direction_count(node)),
                     cmz_dim_const(m->dims, 4 * hidden_size(m, node))};
  for (uint32_t i = 8; i < 12; i++) {
    const cmz_type *t = cmz_input_type(m, cmz_node_get(m, n), i);
    if (!t || t->rank < 1 || t->rank > 2)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "input %u is not one number a direction or column",
                           i);
    CMZ_TRY(cmz_check_shape(m, n, i, t->rank, size));
  }
  return CMZ_OK;
}
static cmz_status infer_gru(cmz_module *m, cmz_nid n) { return infer(m, n, 3); }
static cmz_status infer_rnn(cmz_module *m, cmz_nid n) { return infer(m, n, 1); }

/* ---- pieces of the expansion ---- */

/* V[begin:end] along AXIS. */
static cmz_vid slice(cmz_module *m, cmz_nid before, cmz_vid v, int64_t axis, int64_t begin,
                     int64_t end) {
  cmz_vid inputs[4] = {v, cmz_build_i64s(m, before, &begin, 1), cmz_build_i64s(m, before, &end, 1),
                       cmz_build_i64s(m, before, &axis, 1)};
  return v ? cmz_build_node(m, before, "Slice", 4, inputs, NULL) : 0;
}

static cmz_vid reshape(cmz_module *m, cmz_nid before, cmz_vid v, uint32_t rank, cmz_dim a,
                       cmz_dim b, cmz_dim c, cmz_dim d) {
  cmz_dim shape[4] = {a, b, c, d};
  return cmz_build_reshape(m, before, v, shape, rank);
}

/* Rows [BEGIN, END) of direction D of a weight tensor [directions, rows, COLUMNS], transposed:
 * [COLUMNS, END - BEGIN]. */
static cmz_vid matrix(frame *f, cmz_vid v, uint32_t d, int64_t begin, int64_t end) {
  cmz_module *m = f->m;
  const cmz_constant *c = cmz_value_constant(m, v);
  if (!c || c->layout.count || cmz_dtype_info(c->dtype)->bits % 8) {
    const cmz_type t = cmz_value_get(m, v)->type;
    cmz_vid s = f->directions > 1 ? slice(m, f->node, v, 0, d, d + 1) : v;
    if (!cmz_dim_is(m->dims, t.shape[1], end - begin)) s = slice(m, f->node, s, 1, begin, end);
    s = reshape(m, f->node, s, 2, cmz_dim_const(m->dims, end - begin), t.shape[2], 0, 0);
    return s ? cmz_build_transpose(m, f->node, s, (const int64_t[]){1, 0}, 2) : 0;
  }
  size_t all = (size_t)c->shape[1], columns = (size_t)c->shape[2], rows = (size_t)(end - begin);
  size_t size = cmz_dtype_info(c->dtype)->bits / 8;
  const char *from = (const char *)c->data + ((size_t)d * all + (size_t)begin) * columns * size;
  char *data = cmz_arena_array(m->arena, rows * columns, size);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < columns; j++)
      memcpy(data + (j * rows + i) * size, from + (i * columns + j) * size, size);
  int64_t *shape = CMZ_NEW_ARRAY(m->arena, int64_t, 2);
  shape[0] = (int64_t)columns;
  shape[1] = (int64_t)rows;
  return cmz_value_add_constant(m, f->n.graph, NULL, c->dtype, 2, shape, data,
                                rows * columns * size);
}

/* Elements [BEGIN, BEGIN + COUNT) of direction D of V [directions, N] as a vector. */
static cmz_vid vector(frame *f, cmz_vid v, uint32_t d, int64_t begin, int64_t count) {
  size_t total;
  const double *values = cmz_const_doubles(f->m, v, &total);
  if (values) {
    int64_t stride = (int64_t)total / f->directions;
    return cmz_build_floats(f->m, f->node, f->dtype, 1, &count, values + d * stride + begin);
  }
  cmz_vid s = slice(f->m, f->node, v, 1, begin, begin + count);
  if (f->directions > 1) s = slice(f->m, f->node, s, 0, d, d + 1);
  return s ? reshape(f->m, f->node, s, 1, cmz_dim_const(f->m->dims, count), 0, 0, 0) : 0;
}

/* Direction D of input INPUT of a DynamicQuantizeLSTM: a matrix, or one number or one a column of
 * its scale or zero point. */
static cmz_vid own_part(frame *f, uint32_t input, uint32_t d) {
  cmz_vid v = cmz_node_input(&f->n, input);
  if (!v) return 0;
  const cmz_type t = cmz_value_get(f->m, v)->type;
  if (f->directions > 1) v = slice(f->m, f->node, v, 0, d, d + 1);
  return t.rank ? cmz_build_reshape(f->m, f->node, v, t.shape + 1, t.rank - 1) : v;
}

/* A times the recurrent matrix. */
static cmz_vid recur(frame *f, cmz_nid before, const weights *w, cmz_vid a) {
  if (!f->dynamic) return cmz_build2(f->m, before, "MatMul", a, w->recurrent);
  return cmz_build_dynamic_product(f->m, before, a, w->recurrent, w->recurrent_scale,
                                   w->recurrent_zero_point, 0);
}

/* A tensor of zeros [B, H]. */
static cmz_vid zeros(frame *f) {
  cmz_module *m = f->m;
  int64_t batch;
  cmz_dim shape[2] = {f->batch, cmz_dim_const(m->dims, f->hidden)};
  if (cmz_dim_is_const(m->dims, f->batch, &batch)) {
    int64_t sizes[2] = {batch, f->hidden};
    double *values = CMZ_NEW_ARRAY(m->arena, double, (size_t)(batch * f->hidden));
    return cmz_build_floats(m, f->node, f->dtype, 2, sizes, values);
  }
  cmz_nid dims;
  cmz_vid target = cmz_build_node(m, f->node, "Dims", 0, NULL, &dims);
  if (!target) return 0;
  cmz_dim two = cmz_dim_const(m->dims, 2);
  cmz_value_set_type(m, target, CMZ_I64, 1, &two);
  cmz_value_set_elements(m, target, shape, 2);
  cmz_vid zero = cmz_value_add_scalar(m, f->n.graph, f->dtype, 0);
  return cmz_build2(m, f->node, "Expand", zero, target);
}

/* State input INPUT for direction D as [B, H]. */
static cmz_vid initial(frame *f, uint32_t input, uint32_t d) {
  cmz_vid v = cmz_node_input(&f->n, input);
  if (!v) return zeros(f);
  int64_t axis = f->batch_first ? 1 : 0;
  if (f->directions > 1) v = slice(f->m, f->node, v, axis, d, d + 1);
  return v ? reshape(f->m, f->node, v, 2, f->batch, cmz_dim_const(f->m->dims, f->hidden), 0, 0) : 0;
}

/* ---- activations ---- */

typedef struct activation {
  const char *name;
  double alpha, beta;
} activation;

/* Names, and what alpha and beta are when the lists have none (0: not used). */
static const activation known[] = {
    {"Sigmoid", 0, 0},      {"Tanh", 0, 0},
    {"Relu", 0, 0},         {"Affine", 1, 0},
    {"LeakyRelu", 0.01, 0}, {"ThresholdedRelu", 1, 0},
    {"ScaledTanh", 1, 1},   {"HardSigmoid", 0.2, 0.5},
    {"Elu", 1, 0},          {"Softsign", 0, 0},
    {"Softplus", 0, 0},
};
static const bool takes_alpha[] = {false, false, false, true,  true, true,
                                   true,  true,  true,  false, false};
static const bool takes_beta[] = {false, false, false, true,  false, false,
                                  true,  true,  false, false, false};

static bool same_word(const char *a, const char *b) {
  for (; *a && *b; a++, b++)
    if ((*a | 32) != (*b | 32)) return false;
  return *a == *b;
}

/* Activation INDEX of the node; the alpha and beta lists hold entries only for those that take one.
 */
static cmz_status read_activation(const frame *f, uint32_t index, activation *out) {
  static const char *const defaults[3][3] = {
      {"Sigmoid", "Tanh", "Tanh"}, {"Sigmoid", "Tanh", ""}, {"Tanh", "", ""}};
  static const uint32_t per_direction[3] = {3, 2, 1};
  const cmz_attr *names = cmz_node_attr(&f->n, "activations");
  const cmz_attr *alphas = cmz_node_attr(&f->n, "activation_alpha"),
                 *betas = cmz_node_attr(&f->n, "activation_beta");
  uint32_t alpha = 0, beta = 0;
  for (uint32_t i = 0; i <= index; i++) {
    const char *name = names && i < names->count ? names->strings[i]
                                                 : defaults[f->cell][i % per_direction[f->cell]];
    uint32_t k = 0;
    while (k < CMZ_COUNT_OF(known) && !same_word(known[k].name, name)) k++;
    if (k == CMZ_COUNT_OF(known))
      return cmz_node_fail(f->m, f->node, CMZ_E_UNSUPPORTED, "activation \"%s\"", name);
    *out = known[k];
    if (takes_alpha[k] && alphas && alpha < alphas->count) out->alpha = alphas->floats[alpha++];
    if (takes_beta[k] && betas && beta < betas->count) out->beta = betas->floats[beta++];
  }
  return CMZ_OK;
}

static cmz_vid with_alpha(cmz_module *m, cmz_nid before, const char *op, cmz_vid x, double alpha,
                          double beta, bool has_beta) {
  cmz_attr attrs[2] = {cmz_attr_float("alpha", alpha), cmz_attr_float("beta", beta)};
  return x ? cmz_build_with(m, before, op, 1, &x, has_beta ? 2 : 1, attrs) : 0;
}

static cmz_vid scaled(cmz_module *m, cmz_nid before, cmz_vid x, double factor) {
  if (!x || factor == 1) return x;
  return cmz_build2(m, before, "Mul", x, cmz_build_scalar_like(m, before, x, factor));
}

/* Activation INDEX (of direction D) of X. */
static cmz_vid activate(frame *f, cmz_nid before, const weights *w, uint32_t index, cmz_vid x) {
  static const uint32_t per_direction[3] = {3, 2, 1};
  cmz_module *m = f->m;
  activation a = {0};
  if (!x || read_activation(f, w->direction * per_direction[f->cell] + index, &a) != CMZ_OK)
    return 0;
  double clip = cmz_node_float(&f->n, "clip", 0);
  if (clip > 0)
    x = cmz_build3(m, before, "Clip", x, cmz_build_scalar_like(m, before, x, -clip),
                   cmz_build_scalar_like(m, before, x, clip));
  if (!x) return 0;
  if (!strcmp(a.name, "Affine")) {
    x = scaled(m, before, x, a.alpha);
    return cmz_build2(m, before, "Add", x, cmz_build_scalar_like(m, before, x, a.beta));
  }
  if (!strcmp(a.name, "ScaledTanh"))
    return scaled(m, before, cmz_build1(m, before, "Tanh", scaled(m, before, x, a.beta)), a.alpha);
  if (!strcmp(a.name, "HardSigmoid"))
    return with_alpha(m, before, a.name, x, a.alpha, a.beta, true);
  if (!strcmp(a.name, "LeakyRelu") || !strcmp(a.name, "ThresholdedRelu") || !strcmp(a.name, "Elu"))
    return with_alpha(m, before, a.name, x, a.alpha, 0, false);
  return cmz_build1(m, before, a.name, x);
}

/* ---- one step ---- */

/* Gate I of G [B, gates * H]. */
static cmz_vid gate(frame *f, cmz_nid before, cmz_vid g, int64_t i) {
  return slice(f->m, before, g, 1, i * f->hidden, (i + 1) * f->hidden);
}

static cmz_vid peep(frame *f, cmz_nid before, cmz_vid g, cmz_vid p, cmz_vid c) {
  if (!p || !g) return g;
  return cmz_build2(f->m, before, "Add", g, cmz_build2(f->m, before, "Mul", p, c));
}

static void lstm_step(frame *f, cmz_nid before, const weights *w, cmz_vid xt, cmz_vid *h,
                      cmz_vid *c) {
  cmz_module *m = f->m;
  cmz_vid g = cmz_build2(m, before, "Add", xt, recur(f, before, w, *h));
  bool coupled = cmz_node_int(&f->n, "input_forget", 0) != 0;
  cmz_vid i = activate(f, before, w, 0, peep(f, before, gate(f, before, g, 0), w->peephole[0], *c));
  cmz_vid forget;
  if (coupled) forget = cmz_build2(m, before, "Sub", cmz_build_scalar_like(m, before, i, 1), i);
  else
    forget = activate(f, before, w, 0, peep(f, before, gate(f, before, g, 2), w->peephole[2], *c));
  cmz_vid candidate = activate(f, before, w, 1, gate(f, before, g, 3));
  cmz_vid next = cmz_build2(m, before, "Add", cmz_build2(m, before, "Mul", forget, *c),
                            cmz_build2(m, before, "Mul", i, candidate));
  cmz_vid o =
      activate(f, before, w, 0, peep(f, before, gate(f, before, g, 1), w->peephole[1], next));
  *h = cmz_build2(m, before, "Mul", o, activate(f, before, w, 2, next));
  *c = next;
}

static void gru_step(frame *f, cmz_nid before, const weights *w, cmz_vid xt, cmz_vid *h) {
  cmz_module *m = f->m;
  int64_t hidden = f->hidden;
  cmz_vid candidate, z, r;
  if (cmz_node_int(&f->n, "linear_before_reset", 0)) {
    cmz_vid g = cmz_build2(m, before, "MatMul", *h, w->recurrent);
    cmz_vid zr = cmz_build2(m, before, "Add", slice(m, before, xt, 1, 0, 2 * hidden),
                            slice(m, before, g, 1, 0, 2 * hidden));
    z = activate(f, before, w, 0, gate(f, before, zr, 0));
    r = activate(f, before, w, 0, gate(f, before, zr, 1));
    cmz_vid own = gate(f, before, g, 2);
    if (w->recurrent_bias) own = cmz_build2(m, before, "Add", own, w->recurrent_bias);
    candidate =
        cmz_build2(m, before, "Add", gate(f, before, xt, 2), cmz_build2(m, before, "Mul", r, own));
  } else {
    cmz_vid zr = cmz_build2(m, before, "Add", slice(m, before, xt, 1, 0, 2 * hidden),
                            cmz_build2(m, before, "MatMul", *h, w->recurrent));
    z = activate(f, before, w, 0, gate(f, before, zr, 0));
    r = activate(f, before, w, 0, gate(f, before, zr, 1));
    cmz_vid own =
        cmz_build2(m, before, "MatMul", cmz_build2(m, before, "Mul", r, *h), w->candidate);
    candidate = cmz_build2(m, before, "Add", gate(f, before, xt, 2), own);
  }
  candidate = activate(f, before, w, 1, candidate);
  cmz_vid rest = cmz_build2(m, before, "Sub", cmz_build_scalar_like(m, before, z, 1), z);
  *h = cmz_build2(m, before, "Add", cmz_build2(m, before, "Mul", rest, candidate),
                  cmz_build2(m, before, "Mul", z, *h));
}

/* Replaces the state by the next one; OUT: what the step gives as output. T: the step's number,
 * when lengths matter. */
static bool step(frame *f, cmz_nid before, const weights *w, cmz_vid xt, cmz_vid t, cmz_vid *h,
                 cmz_vid *c, cmz_vid *out) {
  cmz_module *m = f->m;
  cmz_vid old_h = *h, old_c = *c;
  if (f->cell == LSTM) lstm_step(f, before, w, xt, h, c);
  else if (f->cell == GRU) gru_step(f, before, w, xt, h);
  else
    *h = activate(
        f, before, w, 0,
        cmz_build2(m, before, "Add", xt, cmz_build2(m, before, "MatMul", *h, w->recurrent)));
  *out = *h;
  if (f->lengths && *h) {
    /* Past a sequence's end the state stays and the output is zero. */
    cmz_vid live = cmz_build2(m, before, "Less", t, f->lengths);
    live = reshape(m, before, live, 2, f->batch, cmz_dim_const(m->dims, 1), 0, 0);
    *out = cmz_build3(m, before, "Where", live, *h, cmz_build_scalar_like(m, before, *h, 0));
    *h = cmz_build3(m, before, "Where", live, *h, old_h);
    if (f->cell == LSTM) *c = cmz_build3(m, before, "Where", live, *c, old_c);
  }
  return *h && *out && (f->cell != LSTM || *c);
}

/* ---- one direction ---- */

typedef struct result {
  cmz_vid y, h, c;
} result; /* [T, B, H], [B, H], [B, H] */

/* Steps 0 … T-1 as numbers, [T]. */
static cmz_vid step_numbers(frame *f) {
  cmz_module *m = f->m;
  cmz_nid dims;
  cmz_vid end = cmz_build_node(m, f->node, "Dims", 0, NULL, &dims);
  if (!end) return 0;
  cmz_value_set_type(m, end, CMZ_I64, 0, NULL);
  cmz_value_set_elements(m, end, &f->steps, 1);
  cmz_vid zero = cmz_value_add_scalar(m, f->n.graph, CMZ_I64, 0),
          one = cmz_value_add_scalar(m, f->n.graph, CMZ_I64, 1);
  return cmz_build3(m, f->node, "Range", zero, end, one);
}

/* The Scan over time of XW [T, B, gates * H]. */
static cmz_status scan(frame *f, const weights *w, cmz_vid xw, cmz_vid h, cmz_vid c, bool reversed,
                       result *out) {
  cmz_module *m = f->m;
  uint32_t carried = f->cell == LSTM ? 2 : 1, count = 0;
  cmz_vid inputs[4], outputs[3], numbers = f->lengths ? step_numbers(f) : 0;
  if (f->lengths && !numbers) return CMZ_E_INTERNAL;
  inputs[count++] = h;
  if (carried == 2) inputs[count++] = c;
  inputs[count++] = xw;
  if (numbers) inputs[count++] = numbers;
  for (uint32_t i = 0; i <= carried; i++) outputs[i] = cmz_value_add(m, f->n.graph, NULL);
  cmz_nid s = cmz_node_insert(m, f->node, cmz_op_get("Scan"), f->n.name, count, inputs, carried + 1,
                              outputs);
  cmz_node_add_source(m, s, f->node);
  cmz_gid g = cmz_module_add_graph(m, "step", s, f->n.graph);
  cmz_vid state[2] = {0}, slices[2] = {0};
  for (uint32_t i = 0; i < count; i++) {
    cmz_vid v = cmz_value_add_input(m, g, NULL);
    const cmz_type t = cmz_value_get(m, inputs[i])->type;
    bool scanned = i >= carried;
    cmz_value_set_type(m, v, t.dtype, t.rank - scanned, t.shape + scanned);
    if (scanned) slices[i - carried] = v;
    else state[i] = v;
  }
  /* Builders place nodes before another node; this one goes away again. */
  cmz_vid unused = cmz_value_add(m, g, NULL), y;
  cmz_nid anchor = cmz_node_add(m, g, cmz_op_get("Identity"), f->n.name, 1, state, 1, &unused);
  cmz_node_add_source(m, anchor, f->node);
  if (!step(f, anchor, w, slices[0], slices[1], &state[0], &state[1], &y)) return CMZ_E_INTERNAL;
  cmz_node_remove(m, anchor);
  for (uint32_t i = 0; i < carried; i++) cmz_graph_add_output(m, g, state[i]);
  cmz_graph_add_output(m, g, y);
  cmz_node_set_attr(m, s, &(cmz_attr){.name = "body", .kind = CMZ_ATTR_GRAPH, .graph = g});
  cmz_node_set_int(m, s, "num_scan_inputs", count - carried);
  int64_t back[2] = {reversed, reversed};
  if (reversed) cmz_node_set_ints(m, s, "scan_input_directions", back, count - carried);
  if (reversed) cmz_node_set_ints(m, s, "scan_output_directions", back, 1);
  CMZ_TRY(cmz_infer_node(m, s));
  *out = (result){outputs[carried], outputs[0], carried == 2 ? outputs[1] : 0};
  return CMZ_OK;
}

/* Input projection with the biases that are the same for every step. */
static cmz_vid project(frame *f, uint32_t d, weights *w) {
  cmz_module *m = f->m;
  cmz_vid bias = cmz_node_input(&f->n, 3), xw;
  if (f->dynamic)
    xw = cmz_build_dynamic_product(m, f->node, f->x, own_part(f, 1, d), own_part(f, 8, d),
                                   own_part(f, 9, d), 0);
  else
    xw = cmz_build2(m, f->node, "MatMul", f->x,
                    matrix(f, f->n.inputs[1], d, 0, f->gates * f->hidden));
  int64_t all = (int64_t)f->gates * f->hidden;
  if (!bias) return xw;
  bool after_reset = f->cell == GRU && cmz_node_int(&f->n, "linear_before_reset", 0) != 0;
  cmz_vid wb = vector(f, bias, d, 0, all), rb = vector(f, bias, d, all, all);
  if (after_reset) { /* Rb of the hidden gate is multiplied by the reset gate */
    w->recurrent_bias = vector(f, bias, d, all + 2 * f->hidden, f->hidden);
    cmz_vid parts[2] = {vector(f, bias, d, all, 2 * f->hidden), 0};
    double *none = CMZ_NEW_ARRAY(m->arena, double, (size_t)f->hidden);
    parts[1] = cmz_build_floats(m, f->node, f->dtype, 1, &f->hidden, none);
    cmz_attr axis = cmz_attr_int("axis", 0);
    rb = parts[0] && parts[1] ? cmz_build_with(m, f->node, "Concat", 2, parts, 1, &axis) : 0;
  }
  size_t count;
  const double *a = cmz_const_doubles(m, bias, &count);
  if (a) {
    double *sum = CMZ_NEW_ARRAY(m->arena, double, (size_t)all);
    const double *own = a + (size_t)d * 2 * (size_t)all;
    for (int64_t i = 0; i < all; i++)
      sum[i] = own[i] + (after_reset && i >= 2 * f->hidden ? 0 : own[all + i]);
    return cmz_build2(m, f->node, "Add", xw, cmz_build_floats(m, f->node, f->dtype, 1, &all, sum));
  }
  return cmz_build2(m, f->node, "Add", xw, cmz_build2(m, f->node, "Add", wb, rb));
}

static cmz_status direction(frame *f, uint32_t d, result *out) {
  cmz_module *m = f->m;
  weights w = {.direction = d};
  bool reversed = d == 1 || f->first_reversed;
  cmz_vid xw = project(f, d, &w), h = initial(f, 5, d), c = f->cell == LSTM ? initial(f, 6, d) : 0;
  bool split = f->cell == GRU && !cmz_node_int(&f->n, "linear_before_reset", 0);
  if (f->dynamic) {
    w.recurrent = own_part(f, 2, d);
    w.recurrent_scale = own_part(f, 10, d);
    w.recurrent_zero_point = own_part(f, 11, d);
  } else {
    w.recurrent = matrix(f, f->n.inputs[2], d, 0, (split ? 2 : f->gates) * f->hidden);
  }
  if (split) w.candidate = matrix(f, f->n.inputs[2], d, 2 * f->hidden, 3 * f->hidden);
  cmz_vid peepholes = f->cell == LSTM ? cmz_node_input(&f->n, 7) : 0;
  for (int64_t i = 0; peepholes && i < 3; i++)
    w.peephole[i] = vector(f, peepholes, d, i * f->hidden, f->hidden);
  if (!xw || !h || !w.recurrent || (f->cell == LSTM && !c)) return CMZ_E_INTERNAL;
  if (!cmz_dim_is(m->dims, f->steps, 1)) return scan(f, &w, xw, h, c, reversed, out);
  cmz_dim columns = cmz_dim_const(m->dims, (int64_t)f->gates * f->hidden),
          one = cmz_dim_const(m->dims, 1);
  cmz_vid xt = reshape(m, f->node, xw, 2, f->batch, columns, 0, 0), y;
  cmz_vid t = cmz_value_add_scalar(m, f->n.graph, CMZ_I64, 0);
  if (!xt || !step(f, f->node, &w, xt, t, &h, &c, &y)) return CMZ_E_INTERNAL;
  y = reshape(m, f->node, y, 3, one, f->batch, cmz_dim_const(m->dims, f->hidden), 0);
  *out = (result){y, h, c};
  return y ? CMZ_OK : CMZ_E_INTERNAL;
}

/* ---- the whole ---- */

static cmz_vid joined(frame *f, cmz_vid a, cmz_vid b, int64_t axis_value) {
  if (f->directions == 1 || !a || !b) return a;
  cmz_attr axis = cmz_attr_int("axis", axis_value);
  return cmz_build_with(f->m, f->node, "Concat", 2, (cmz_vid[]){a, b}, 1, &axis);
}

/* All directions' last states as output OUTPUT. */
static cmz_status deliver_state(frame *f, uint32_t output, cmz_vid first, cmz_vid second) {
  cmz_vid old = cmz_node_output(&f->n, output), v[2] = {first, second};
  cmz_dim one = cmz_dim_const(f->m->dims, 1), h = cmz_dim_const(f->m->dims, f->hidden);
  if (!old) return CMZ_OK;
  for (uint32_t d = 0; d < f->directions; d++)
    v[d] = f->batch_first ? reshape(f->m, f->node, v[d], 3, f->batch, one, h, 0)
                          : reshape(f->m, f->node, v[d], 3, one, f->batch, h, 0);
  cmz_vid all = joined(f, v[0], v[1], f->batch_first ? 1 : 0);
  if (!all) return CMZ_E_INTERNAL;
  cmz_value_replace_uses(f->m, old, all);
  return CMZ_OK;
}

static cmz_status begin(frame *f) {
  cmz_module *m = f->m;
  const cmz_type x = *cmz_input_type(m, &f->n, 0);
  f->directions = direction_count(&f->n);
  f->first_reversed = strcmp(cmz_node_string(&f->n, "direction", "forward"), "reverse") == 0;
  f->hidden = hidden_size(m, &f->n);
  f->batch_first = cmz_node_int(&f->n, "layout", 0) != 0;
  f->steps = x.shape[f->batch_first ? 1 : 0];
  f->batch = x.shape[f->batch_first ? 0 : 1];
  f->input = x.shape[2];
  f->dtype = x.dtype;
  f->dynamic = is_dynamic(&f->n);
  f->x = f->n.inputs[0];
  if (f->batch_first) f->x = cmz_build_transpose(m, f->node, f->x, (const int64_t[]){1, 0, 2}, 3);
  cmz_vid lengths = cmz_node_input(&f->n, 4);
  int64_t values[256], steps;
  uint32_t count;
  bool full = cmz_dim_is_const(m->dims, f->steps, &steps) && lengths &&
              cmz_const_i64s(m, lengths, values, 256, &count);
  for (uint32_t i = 0; full && i < count; i++) full = values[i] >= steps;
  if (lengths && !full) f->lengths = cmz_build_cast(m, f->node, lengths, CMZ_I64);
  return f->x && (!lengths || full || f->lengths) ? CMZ_OK : CMZ_E_INTERNAL;
}

static cmz_status expand(cmz_module *m, cmz_nid n, cell what, uint32_t gates) {
  frame f = {.m = m, .node = n, .n = *cmz_node_get(m, n), .cell = what, .gates = gates};
  CMZ_TRY(begin(&f));
  result r[2] = {{0}};
  for (uint32_t d = 0; d < f.directions; d++) CMZ_TRY(direction(&f, d, &r[d]));
  CMZ_TRY(deliver_state(&f, 1, r[0].h, r[1].h));
  if (what == LSTM) CMZ_TRY(deliver_state(&f, 2, r[0].c, r[1].c));
  cmz_vid y = 0;
  if (cmz_node_output(&f.n, 0)) {
    cmz_dim one = cmz_dim_const(m->dims, 1), h = cmz_dim_const(m->dims, f.hidden);
    for (uint32_t d = 0; d < f.directions; d++)
      r[d].y = reshape(m, n, r[d].y, 4, f.steps, one, f.batch, h);
    y = joined(&f, r[0].y, r[1].y, 1);
    if (y && f.batch_first) y = cmz_build_transpose(m, n, y, (const int64_t[]){2, 0, 1, 3}, 4);
    if (!y) return CMZ_E_INTERNAL;
  }
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

static cmz_status expand_lstm(cmz_module *m, cmz_nid n) { return expand(m, n, LSTM, 4); }
static cmz_status expand_dynamic_lstm(cmz_module *m, cmz_nid n) { return expand(m, n, LSTM, 4); }
static cmz_status expand_gru(cmz_module *m, cmz_nid n) { return expand(m, n, GRU, 3); }
static cmz_status expand_rnn(cmz_module *m, cmz_nid n) { return expand(m, n, RNN, 1); }

#define ROW(NAME, INPUTS, OUTPUTS, FUNCTION, ...)                                                  \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = 3, .max_inputs = INPUTS, .min_outputs = 0,           \
    .max_outputs = OUTPUTS, .since = 7, .infer = infer_##FUNCTION, .expand = expand_##FUNCTION,    \
    ##__VA_ARGS__                                                                                  \
  }

const cmz_op cmz_ops_recurrent[] = {
    ROW("LSTM", 8, 3, lstm,
        .attributes = "activation_alpha:F activation_beta:F activations:S clip:f direction:s "
                      "hidden_size:i input_forget:i layout:i@14 output_sequence:i<7"),
    ROW("GRU", 6, 2, gru,
        .attributes = "activation_alpha:F activation_beta:F activations:S clip:f direction:s "
                      "hidden_size:i layout:i@14 linear_before_reset:i@3 output_sequence:i<7"),
    ROW("RNN", 6, 2, rnn,
        .attributes = "activation_alpha:F activation_beta:F activations:S clip:f direction:s "
                      "hidden_size:i layout:i@14 output_sequence:i<7"),
    {.domain = "com.microsoft",
     .name = "DynamicQuantizeLSTM",
     .min_inputs = 3,
     .max_inputs = 12,
     .min_outputs = 0,
     .max_outputs = 3,
     .since = 1,
     .infer = infer_dynamic_lstm,
     .expand = expand_dynamic_lstm,
     .attributes = "activation_alpha:F activation_beta:F activations:S clip:f direction:s "
                   "hidden_size:i input_forget:i"},
    {.name = NULL},
};
