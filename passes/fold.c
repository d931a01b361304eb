/* fold.c - evaluates what depends on constants only: nodes, symbolic contents that turned out
 * constant, and If nodes whose condition is known. In: an inferred module. Out: the same function
 * with fewer nodes. Constants do not blow up: a result is kept only when it is small or not much
 * larger than what it is made from. */
#include "support.h"

#define FOLD_ALWAYS_BYTES (16u << 10) /* results up to this are always folded */
#define FOLD_GROWTH 2u                /* larger ones when at most this times the inputs' bytes */
#define FOLD_LIMIT_BYTES ((size_t)256 << 20)
#define FOLD_ROUNDS 8

static bool has_subgraph(const cmz_node *node) {
  for (uint32_t i = 0; i < node->attr_count; i++)
    if (node->attrs[i].kind == CMZ_ATTR_GRAPH) return true;
  return false;
}

/* The arrays of N's inputs, when all are constant. */
static bool constant_inputs(const cmz_module *m, const cmz_node *node, cmz_array *arrays,
                            size_t *bytes) {
  *bytes = 0;
  for (uint32_t i = 0; i < node->input_count; i++) {
    if (node->inputs[i] == 0) continue;
    if (!cmz_pass_constant_array(m, node->inputs[i], &arrays[i])) return false;
    *bytes += cmz_value_constant(m, node->inputs[i])->bytes;
  }
  return true;
}

static bool results_fit(const cmz_module *m, const cmz_node *node, size_t input_bytes,
                        size_t limit) {
  size_t allowed = CMZ_MAX((size_t)FOLD_ALWAYS_BYTES, input_bytes * FOLD_GROWTH);
  if (allowed > limit) allowed = limit;
  for (uint32_t i = 0; i < node->output_count; i++) {
    if (node->outputs[i] == 0) continue;
    const cmz_value *v = cmz_value_get(m, node->outputs[i]);
    int64_t shape[CMZ_MAX_RANK];
    if (v->output_uses > 0 || v->type.kind != CMZ_KIND_TENSOR) return false;
    if (v->type.rank == CMZ_RANK_UNKNOWN || !cmz_value_static_shape(m, node->outputs[i], shape)) {
      if (input_bytes > FOLD_ALWAYS_BYTES) return false;
      continue;
    }
    size_t count = 1, bytes = 0;
    for (uint32_t d = 0; d < v->type.rank; d++)
      if (shape[d] < 0 || !cmz_mul_size(count, (size_t)shape[d], &count)) return false;
    if (v->type.dtype == CMZ_STRING) bytes = count * sizeof(char *);
    else if (!cmz_dtype_bytes(v->type.dtype, count, &bytes)) return false;
    if (bytes > allowed) return false;
  }
  return true;
}

/* Evaluates quietly: what cannot be evaluated stays a node and is judged later. */
static bool evaluate(cmz_module *m, cmz_nid n, const cmz_array *inputs, cmz_array *outputs,
                     size_t limit) {
  cmz_context *ctx = m->ctx;
  void (*sink)(void *, const cmz_diagnostic *) = ctx->options.sink;
  uint32_t messages = ctx->diagnostics.count, errors = ctx->error_count;
  ctx->options.sink = NULL;
  cmz_eval e = {.module = m, .arena = m->arena, .node = n, .limit = limit};
  cmz_status status = cmz_eval_node(&e, n, inputs, outputs);
  ctx->options.sink = sink;
  if (status == CMZ_OK) return true;
  ctx->diagnostics.count = messages;
  ctx->error_count = errors;
  return false;
}

cmz_status cmz_pass_fold_node(cmz_module *m, cmz_nid n, size_t limit, bool *done) {
  *done = false;
  cmz_node *node = cmz_node_get(m, n);
  if (node->removed || (node->op->flags & (CMZ_OP_RANDOM | CMZ_OP_CONTROL | CMZ_OP_DECODE)) ||
      has_subgraph(node))
    return CMZ_OK;
  cmz_array *inputs = CMZ_NEW_ARRAY(m->arena, cmz_array, node->input_count + 1);
  size_t bytes;
  if (!constant_inputs(m, node, inputs, &bytes) || !results_fit(m, node, bytes, limit))
    return CMZ_OK;
  cmz_array *outputs = CMZ_NEW_ARRAY(m->arena, cmz_array, node->output_count + 1);
  if (!evaluate(m, n, inputs, outputs, limit)) return CMZ_OK;
  uint32_t count = cmz_node_get(m, n)->output_count;
  for (uint32_t i = 0; i < count; i++)
    if (outputs[i].data != NULL || cmz_array_count(&outputs[i]) == 0)
      cmz_pass_to_constant(m, n, i, &outputs[i]);
  *done = cmz_pass_remove_if_dead(m, n);
  return CMZ_OK;
}

/* V's symbolic elements are all numbers: it becomes a constant. */
static void fold_elements(cmz_module *m, cmz_nid n, uint32_t output) {
  cmz_vid v = cmz_node_output(cmz_node_get(m, n), output);
  if (v == 0) return;
  const cmz_value *value = cmz_value_get(m, v);
  int64_t shape[CMZ_MAX_RANK];
  if (value->elements == NULL || value->output_uses > 0 || cmz_pass_use_count(m, v) == 0 ||
      !cmz_value_static_shape(m, v, shape))
    return;
  cmz_array a = {.dtype = value->type.dtype, .rank = value->type.rank};
  for (uint32_t i = 0; i < a.rank; i++) a.shape[i] = shape[i];
  size_t bytes;
  if (cmz_array_count(&a) != value->element_count ||
      !cmz_dtype_bytes(a.dtype, value->element_count, &bytes))
    return;
  for (uint32_t i = 0; i < value->element_count; i++) {
    int64_t x;
    if (!cmz_dim_is_const(m->dims, value->elements[i], &x)) return;
  }
  a.data = cmz_arena_alloc(m->arena, bytes + 8);
  for (uint32_t i = 0; i < value->element_count; i++) {
    int64_t x = 0;
    cmz_dim_is_const(m->dims, value->elements[i], &x);
    cmz_dtype_set_i64(a.dtype, a.data, i, x);
  }
  cmz_pass_to_constant(m, n, output, &a);
}

/* ---- If with a known condition ---- */

static const char *const BRANCHES[2] = {"else_branch", "then_branch"};

/* Everything of graph BRANCH moves into PARENT, in place of node N. */
static void inline_branch(cmz_module *m, cmz_nid n, cmz_gid branch) {
  cmz_gid parent = cmz_node_get(m, n)->graph;
  cmz_graph *from = cmz_graph_get(m, branch), *to = cmz_graph_get(m, parent);
  uint32_t position = 0;
  while (to->nodes.data[position] != n) position++;
  cmz_nid *nodes = CMZ_NEW_ARRAY(m->arena, cmz_nid, to->nodes.count + from->nodes.count + 1);
  memcpy(nodes, to->nodes.data, position * sizeof *nodes);
  for (uint32_t i = 0; i < from->nodes.count; i++) {
    nodes[position + i] = from->nodes.data[i];
    cmz_node_get(m, from->nodes.data[i])->graph = parent;
  }
  memcpy(nodes + position + from->nodes.count, to->nodes.data + position,
         (to->nodes.count - position) * sizeof *nodes);
  to->nodes.count += from->nodes.count;
  to->nodes.capacity = to->nodes.count;
  to->nodes.data = nodes;
  from->nodes.count = 0;
  for (cmz_vid v = 1; v < m->values.count; v++)
    if (cmz_value_get(m, v)->graph == branch) cmz_value_get(m, v)->graph = parent;
  for (cmz_gid g = 1; g < m->graphs.count; g++)
    if (cmz_graph_get(m, g)->parent == branch) cmz_graph_get(m, g)->parent = parent;
}

/* The branch for condition TRUTH takes the node's place. */
static cmz_status inline_if(cmz_module *m, cmz_nid n, bool truth, bool *done) {
  cmz_node *node = cmz_node_get(m, n);
  const cmz_attr *taken = cmz_node_attr(node, BRANCHES[truth]);
  if (taken == NULL || taken->kind != CMZ_ATTR_GRAPH) return CMZ_OK;
  cmz_gid branch = taken->graph;
  uint32_t outputs = node->output_count;
  cmz_vid *results = CMZ_NEW_ARRAY(m->arena, cmz_vid, outputs + 1);
  cmz_graph *graph = cmz_graph_get(m, branch);
  if (graph->outputs.count < outputs || graph->inputs.count > 0)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "a branch has inputs or too few outputs");
  for (uint32_t i = 0; i < outputs; i++) {
    results[i] = graph->outputs.data[i];
    if (results[i] == 0 && cmz_node_output(node, i) != 0)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "a branch lacks output %u", i);
  }
  for (uint32_t i = 0; i < graph->outputs.count; i++)
    if (graph->outputs.data[i] != 0) cmz_value_get(m, graph->outputs.data[i])->output_uses--;
  graph->outputs.count = graph->output_names.count = 0;
  inline_branch(m, n, branch);
  for (uint32_t i = 0; i < outputs; i++) {
    cmz_vid o = cmz_node_output(cmz_node_get(m, n), i);
    if (o == 0 || cmz_pass_use_count(m, o) == 0) continue;
    if (cmz_pass_replace(m, o, results[i])) continue;
    /* An output that is an input, a constant or another output needs a value of its own. */
    cmz_nid identity;
    cmz_vid copy = cmz_build_node(m, n, "Identity", 1, &results[i], &identity);
    if (copy == 0 || !cmz_pass_replace(m, o, copy))
      return cmz_node_fail(m, n, CMZ_E_INTERNAL, "the taken branch could not be inlined");
  }
  *done = cmz_pass_remove_if_dead(m, n);
  return CMZ_OK;
}

cmz_status cmz_pass_fold_if(cmz_module *m, cmz_nid n, bool *done) {
  *done = false;
  cmz_node *node = cmz_node_get(m, n);
  if (node->removed || !cmz_pass_is_op(node, "If")) return CMZ_OK;
  int64_t condition;
  uint32_t count;
  const cmz_dim *elements = cmz_value_elements(m, cmz_node_input(node, 0), &count);
  if (elements == NULL || count != 1 || !cmz_dim_is_const(m->dims, elements[0], &condition))
    return CMZ_OK;
  return inline_if(m, n, condition != 0, done);
}

/* The rank of output OUTPUT of the branch; CMZ_RANK_UNKNOWN when there is none. */
static uint32_t branch_rank(const cmz_module *m, cmz_nid n, int which, uint32_t output) {
  const cmz_attr *a = cmz_node_attr(cmz_node_get(m, n), BRANCHES[which]);
  if (a == NULL || a->kind != CMZ_ATTR_GRAPH) return CMZ_RANK_UNKNOWN;
  const cmz_graph *g = cmz_graph_get(m, a->graph);
  if (output >= g->outputs.count || g->outputs.data[output] == 0) return CMZ_RANK_UNKNOWN;
  return cmz_value_get(m, g->outputs.data[output])->type.rank;
}

cmz_status cmz_pass_take_branch(cmz_module *m, cmz_nid n, bool taken, bool *done) {
  cmz_vid condition = cmz_node_get(m, n)->inputs[0];
  CMZ_TRY(inline_if(m, n, taken, done));
  cmz_symbol symbol = {.name = cmz_arena_printf(m->arena, "check.%u", n),
                       .low = taken,
                       .high = taken,
                       .hint = taken,
                       .origin = CMZ_SYMBOL_DATA,
                       .value = condition,
                       .check = true};
  cmz_dim_symbol(m->dims, &symbol);
  return CMZ_OK;
}

enum { RANK_WALK = 8 };

/* The rank that V has or, before its inference, surely gets; 0 when that is not seen at once. */
static uint32_t rank_to_come(const cmz_module *m, cmz_vid v, int depth) {
  const cmz_value *value = cmz_value_get(m, v);
  if (value->type.rank != CMZ_RANK_UNKNOWN) return value->type.rank;
  if (!value->producer || !depth) return 0;
  const cmz_node *n = cmz_node_get(m, value->producer);
  if (cmz_pass_is_op(n, "Range")) return 1;
  uint32_t rank = 0;
  if (!(n->op->flags & CMZ_OP_POINTWISE) && !cmz_pass_is_op(n, "CastLike")) return 0;
  uint32_t inputs = cmz_pass_is_op(n, "CastLike") ? 1 : n->input_count;
  for (uint32_t i = 0; i < inputs; i++)
    if (n->inputs[i]) rank = CMZ_MAX(rank, rank_to_come(m, n->inputs[i], depth - 1));
  return rank;
}

/* Whether all readers of V broadcast it to RANK dimensions anyway: leading dimensions of 1 are not
 * seen. */
static bool only_broadcast(const cmz_module *m, cmz_vid v, uint32_t rank) {
  const cmz_value *value = cmz_value_get(m, v);
  if (value->output_uses) return false;
  for (uint32_t i = 0; i < value->uses.count; i++) {
    const cmz_use use = value->uses.data[i];
    const cmz_node *n = cmz_node_get(m, use.node);
    if (cmz_pass_is_op(n, "CastLike") && use.index == 1) continue; /* its type alone is read */
    if (!(n->op->flags & CMZ_OP_POINTWISE)) return false;
    uint32_t other = 0;
    for (uint32_t j = 0; j < n->input_count; j++)
      if (j != use.index && n->inputs[j] && n->inputs[j] != v)
        other = CMZ_MAX(other, rank_to_come(m, n->inputs[j], RANK_WALK));
    if (other < rank) return false;
  }
  return true;
}

/* Output OUTPUT of branch WHICH of N gets leading dimensions of 1 up to RANK. */
static cmz_status raise_rank(cmz_module *m, cmz_nid n, int which, uint32_t output, uint32_t rank) {
  cmz_gid g = cmz_node_attr(cmz_node_get(m, n), BRANCHES[which])->graph;
  cmz_vid old = cmz_graph_get(m, g)->outputs.data[output];
  int64_t axes[CMZ_MAX_RANK];
  uint32_t missing = rank - cmz_value_get(m, old)->type.rank;
  for (uint32_t i = 0; i < missing; i++) axes[i] = i;
  cmz_vid in[2] = {old, cmz_value_add_i64s(m, g, axes, missing)}, out = cmz_value_add(m, g, NULL);
  cmz_nid raised = cmz_node_add(m, g, cmz_op_get("Unsqueeze"), NULL, 2, in, 1, &out);
  cmz_node_add_source(m, raised, n);
  cmz_value_get(m, old)->output_uses--;
  cmz_value_get(m, out)->output_uses++;
  cmz_graph_get(m, g)->outputs.data[output] = out;
  return cmz_infer_node(m, raised);
}

cmz_status cmz_pass_decide_if(cmz_module *m, cmz_nid n, bool *done) {
  *done = false;
  uint32_t outputs = cmz_node_get(m, n)->output_count;
  for (uint32_t i = 0; i < outputs; i++) {
    uint32_t otherwise = branch_rank(m, n, 0, i), then = branch_rank(m, n, 1, i);
    if (otherwise == then || otherwise == CMZ_RANK_UNKNOWN || then == CMZ_RANK_UNKNOWN) continue;
    cmz_vid out = cmz_node_output(cmz_node_get(m, n), i);
    if (!out || only_broadcast(m, out, CMZ_MAX(then, otherwise))) {
      CMZ_TRY(raise_rank(m, n, then < otherwise, i, CMZ_MAX(then, otherwise)));
      continue;
    }
    /* One branch squeezes what the other leaves: what follows was written for the squeezed one. */
    cmz_warn(
        m->ctx, cmz_node_loc(m, n),
        "the rank of the result depends on sizes; the model is compiled for rank %u and refuses "
        "other sizes",
        CMZ_MIN(then, otherwise));
    return cmz_pass_take_branch(m, n, then < otherwise, done);
  }
  return CMZ_OK;
}

/* Symbols whose content has become constant turn into numbers everywhere. */
static bool substitute_constants(cmz_module *m) {
  uint32_t count = cmz_dim_symbol_count(m->dims);
  cmz_dim *replacement = CMZ_NEW_ARRAY(m->arena, cmz_dim, count + 1);
  bool any = false;
  for (uint32_t i = 0; i < count; i++) {
    cmz_symbol *s = cmz_dim_symbol_at(m->dims, i);
    if (s->origin != CMZ_SYMBOL_DATA || s->value == 0 || s->element < 0) continue;
    cmz_array a;
    if (!cmz_pass_constant_array(m, s->value, &a) || (size_t)s->element >= cmz_array_count(&a))
      continue;
    int64_t x = cmz_dtype_get_i64(a.dtype, a.data, (size_t)s->element);
    replacement[i] = cmz_dim_const(m->dims, x);
    s->value = 0;
    any = true;
  }
  if (any) {
    uint32_t now = cmz_dim_symbol_count(m->dims);
    cmz_dim *all = CMZ_NEW_ARRAY(m->arena, cmz_dim, now + 1);
    memcpy(all, replacement, count * sizeof *all);
    cmz_pass_substitute(m, all);
  }
  return any;
}

static cmz_status fold_graph(cmz_module *m, cmz_gid g, bool *any) {
  for (uint32_t i = 0; i < cmz_graph_get(m, g)->nodes.count; i++) {
    cmz_nid n = cmz_graph_get(m, g)->nodes.data[i];
    if (cmz_node_get(m, n)->removed) continue;
    bool done = false;
    uint32_t outputs = cmz_node_get(m, n)->output_count;
    for (uint32_t o = 0; o < outputs; o++) fold_elements(m, n, o);
    if (!cmz_pass_remove_if_dead(m, n)) {
      CMZ_TRY(cmz_pass_fold_node(m, n, FOLD_LIMIT_BYTES, &done));
      if (!done && !cmz_node_get(m, n)->removed) CMZ_TRY(cmz_pass_fold_if(m, n, &done));
    } else {
      done = true;
    }
    *any |= done;
  }
  return CMZ_OK;
}

cmz_status cmz_pass_fold(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  for (int round = 0; round < FOLD_ROUNDS; round++) {
    bool any = false;
    for (cmz_gid g = 1; g < m->graphs.count; g++)
      if (cmz_pass_graph_alive(m, g)) CMZ_TRY(fold_graph(m, g, &any));
    bool substituted = substitute_constants(m);
    if (!any && !substituted) break;
    /* Constants make more shapes known. */
    for (uint32_t i = 0; i < m->entries.count; i++) CMZ_TRY(cmz_infer_graph(m, m->entries.data[i]));
  }
  return CMZ_OK;
}
