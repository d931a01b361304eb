/* einsum.c - Einsum: any equation, straight from its letters.
 * In: one or more tensors. Out: the sum of products over all letters that the result lacks. Always
 * holds: every letter has one size; dimensions of an ellipsis are aligned from the right and
 * broadcast. */
#include "ops.h"

#define LETTERS 52
#define MAX_TERMS 8

typedef struct term {
  uint32_t count;              /* dimensions, the ellipsis' included */
  uint8_t label[CMZ_MAX_RANK]; /* letter, or LETTERS + position within the widest ellipsis */
} term;

typedef struct equation {
  uint32_t terms;
  term term[MAX_TERMS], result;
  cmz_dim size[LETTERS + CMZ_MAX_RANK]; /* by label; CMZ_DIM_NONE: not used */
  uint32_t ellipsis;                    /* dimensions of the widest one */
} equation;

static int letter(char c) {
  if (c >= 'a' && c <= 'z') return c - 'a';
  return c >= 'A' && c <= 'Z' ? 26 + c - 'A' : -1;
}

/* Letters of the text from *AT up to a comma, an arrow or the end; dimensions of the ellipsis fill
 * up to RANK. */
static bool read_term(const char **at, uint32_t rank, uint32_t widest, term *t,
                      uint32_t *ellipsis) {
  uint8_t before[CMZ_MAX_RANK], after[CMZ_MAX_RANK];
  uint32_t head = 0, tail = 0;
  bool dots = false;
  for (; **at && **at != ',' && **at != '-'; ++*at) {
    if (**at == ' ') continue;
    if (**at == '.') {
      if (dots || strncmp(*at, "...", 3)) return false;
      dots = true;
      *at += 2;
      continue;
    }
    int l = letter(**at);
    if (l < 0 || head + tail >= CMZ_MAX_RANK) return false;
    if (dots) after[tail++] = (uint8_t)l;
    else before[head++] = (uint8_t)l;
  }
  if (rank == CMZ_RANK_UNKNOWN) rank = head + tail + (dots ? widest : 0);
  if (head + tail > rank || (!dots && head + tail != rank) || rank > CMZ_MAX_RANK) return false;
  *ellipsis = rank - head - tail;
  t->count = 0;
  for (uint32_t i = 0; i < head; i++) t->label[t->count++] = before[i];
  for (uint32_t i = 0; i < *ellipsis; i++)
    t->label[t->count++] = (uint8_t)(LETTERS + CMZ_MAX_RANK - *ellipsis + i);
  for (uint32_t i = 0; i < tail; i++) t->label[t->count++] = after[i];
  return true;
}

/* Without an arrow the result has the ellipsis and then every letter that occurs once, in order. */
static void implicit_result(equation *q) {
  uint32_t seen[LETTERS] = {0};
  for (uint32_t i = 0; i < q->terms; i++)
    for (uint32_t j = 0; j < q->term[i].count; j++)
      if (q->term[i].label[j] < LETTERS) seen[q->term[i].label[j]]++;
  q->result.count = 0;
  for (uint32_t i = 0; i < q->ellipsis; i++)
    q->result.label[q->result.count++] = (uint8_t)(LETTERS + CMZ_MAX_RANK - q->ellipsis + i);
  static const char order[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  for (const char *c = order; *c && q->result.count < CMZ_MAX_RANK; c++) {
    uint32_t label = (uint32_t)letter(*c);
    if (label < LETTERS && seen[label] == 1) q->result.label[q->result.count++] = (uint8_t)label;
  }
}

static cmz_status parse(cmz_module *m, cmz_nid n, const cmz_type *types, equation *q) {
  const cmz_node *node = cmz_node_get(m, n);
  const char *text = cmz_node_string(node, "equation", ""), *at = text;
  memset(q, 0, sizeof *q);
  q->terms = node->input_count;
  if (q->terms > MAX_TERMS) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "%u operands", q->terms);
  for (uint32_t i = 0; i < q->terms; i++) {
    uint32_t ellipsis;
    bool good = read_term(&at, types[i].rank, 0, &q->term[i], &ellipsis) &&
                (i + 1 == q->terms ? *at != ',' : *at == ',');
    if (!good)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "equation \"%s\" does not fit operand %u of rank %u",
                           text, i, types[i].rank);
    if (*at == ',') at++;
    q->ellipsis = CMZ_MAX(q->ellipsis, ellipsis);
    for (uint32_t j = 0; j < q->term[i].count; j++) {
      cmz_dim *size = &q->size[q->term[i].label[j]], own = types[i].shape[j];
      bool wide = q->term[i].label[j] >= LETTERS;
      if (*size && cmz_dims_differ(m, *size, own) &&
          !(cmz_dim_is(m->dims, own, 1) || cmz_dim_is(m->dims, *size, 1)))
        return cmz_node_fail(m, n, CMZ_E_INPUT,
                             "operand %u of \"%s\" has another size in dimension %u", i, text, j);
      if (!*size || cmz_dim_is(m->dims, *size, 1)) *size = own;
      else if (wide) *size = cmz_dim_broadcast(m->dims, *size, own);
      else if (!cmz_dim_is_const(m->dims, *size, &(int64_t){0}) && !cmz_dim_is(m->dims, own, 1))
        *size = own;
    }
  }
  if (*at == '-' && at[1] == '>') {
    uint32_t ellipsis;
    at += 2;
    if (!read_term(&at, CMZ_RANK_UNKNOWN, q->ellipsis, &q->result, &ellipsis) || *at)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "equation \"%s\"", text);
  } else if (*at) {
    return cmz_node_fail(m, n, CMZ_E_INPUT, "equation \"%s\"", text);
  } else {
    implicit_result(q);
  }
  for (uint32_t i = 0; i < q->result.count; i++)
    if (!q->size[q->result.label[i]])
      return cmz_node_fail(m, n, CMZ_E_INPUT, "equation \"%s\" has a letter in its result only",
                           text);
  return CMZ_OK;
}

static cmz_status parse_node(cmz_module *m, cmz_nid n, equation *q) {
  const cmz_node *node = cmz_node_get(m, n);
  cmz_type types[MAX_TERMS];
  for (uint32_t i = 0; i < node->input_count && i < MAX_TERMS; i++)
    types[i] = *cmz_input_type(m, node, i);
  return parse(m, n, types, q);
}

static cmz_status infer(cmz_module *m, cmz_nid n) {
  equation q;
  CMZ_TRY(parse_node(m, n, &q));
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < q.result.count; i++) shape[i] = q.size[q.result.label[i]];
  cmz_set_output(m, n, 0, cmz_input_type(m, cmz_node_get(m, n), 0)->dtype, q.result.count, shape);
  return CMZ_OK;
}

static cmz_expr describe(cmz_describe *d, const cmz_node *n, uint32_t output, const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  equation q;
  if (parse_node(m, cmz_node_self(m, n), &q) != CMZ_OK) return 0;
  cmz_expr at_label[LETTERS + CMZ_MAX_RANK] = {0}, product = 0;
  cmz_reducer r = {0};
  for (uint32_t i = 0; i < q.result.count; i++) at_label[q.result.label[i]] = idx[i];
  for (uint32_t i = 0; i < q.terms; i++) {
    cmz_expr at[CMZ_MAX_RANK];
    const cmz_type t = *cmz_input_type(m, n, i);
    for (uint32_t j = 0; j < q.term[i].count; j++) {
      uint8_t l = q.term[i].label[j];
      if (!at_label[l]) at_label[l] = cmz_reducer_axis(d, &r, q.size[l]);
      at[j] = at_label[l];
      if (t.shape[j] == q.size[l]) continue;
      if (cmz_dim_is(m->dims, t.shape[j], 1)) at[j] = cmz_x_index(k, 0);
      else if (l >= LETTERS && !cmz_dim_is_const(m->dims, t.shape[j], &(int64_t){0}))
        at[j] =
            cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, cmz_describe_dim(d, t.shape[j]), cmz_x_index(k, 1)),
                         cmz_x_index(k, 0), at[j]);
    }
    cmz_expr v = r.overflow ? 0 : cmz_describe_input(d, i, at);
    if (!v) return 0;
    product = product ? cmz_x_mul(k, product, v) : v;
  }
  return cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, product);
}

static cmz_status eval(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                       cmz_array *outputs) {
  cmz_type types[MAX_TERMS];
  cmz_dim dims[MAX_TERMS][CMZ_MAX_RANK];
  equation q;
  for (uint32_t i = 0; i < n->input_count && i < MAX_TERMS; i++) {
    cmz_array_dims(e, &inputs[i], dims[i]);
    types[i] = (cmz_type){.dtype = inputs[i].dtype, .rank = inputs[i].rank, .shape = dims[i]};
  }
  CMZ_TRY(parse(e->module, e->node, types, &q));
  int64_t extent[LETTERS + CMZ_MAX_RANK], at[LETTERS + CMZ_MAX_RANK] = {0}, shape[CMZ_MAX_RANK];
  uint8_t order[LETTERS + CMZ_MAX_RANK]; /* labels: the result's, then the summed ones */
  uint32_t count = 0;
  bool placed[LETTERS + CMZ_MAX_RANK] = {false};
  for (uint32_t i = 0; i < q.result.count; i++) {
    order[count++] = q.result.label[i];
    placed[q.result.label[i]] = true;
  }
  for (uint32_t l = 0; l < LETTERS + CMZ_MAX_RANK; l++)
    if (q.size[l] && !placed[l]) order[count++] = (uint8_t)l;
  int64_t total = 1, inner = 1;
  for (uint32_t i = 0; i < count; i++) {
    if (!cmz_dim_is_const(e->module->dims, q.size[order[i]], &extent[i]))
      return cmz_eval_fail(e, "a size is not constant");
    if (i < q.result.count) shape[i] = extent[i];
    else inner *= extent[i];
    total *= extent[i];
  }
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], q.result.count, shape));
  double *sums = CMZ_NEW_ARRAY(e->arena, double, cmz_array_count(&outputs[0]));
  for (int64_t step = 0; step < total; step++) {
    int64_t rest = step;
    for (uint32_t i = count; i-- > 0;) {
      at[order[i]] = rest % extent[i];
      rest /= extent[i];
    }
    double product = 1;
    for (uint32_t i = 0; i < q.terms; i++) {
      int64_t index = 0;
      for (uint32_t j = 0; j < q.term[i].count; j++)
        index = index * inputs[i].shape[j] + (inputs[i].shape[j] == 1 ? 0 : at[q.term[i].label[j]]);
      product *= cmz_get(&inputs[i], index);
    }
    sums[step / inner] += product;
  }
  for (size_t i = 0; i < cmz_array_count(&outputs[0]); i++)
    cmz_set(&outputs[0], (int64_t)i, sums[i]);
  return CMZ_OK;
}

const cmz_op cmz_ops_einsum[] = {
    {.name = "Einsum",
     .domain = "",
     .min_inputs = 1,
     .max_inputs = 255,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 12,
     .flags = CMZ_OP_CONTRACTION,
     .infer = infer,
     .eval = eval,
     .describe = describe,
     .attributes = "equation:s!"},
    {.name = NULL},
};
