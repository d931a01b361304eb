/* control.c - If, Loop and Scan.
 * In: nodes with subgraphs whose inputs have no types of their own. Out: typed subgraphs and
 * outputs. Always holds: a size that only the run can tell is a CMZ_SYMBOL_DATA symbol of the
 * output value, element -1 - axis; inferring twice gives the same symbols. Sizes that an If's
 * condition decides are SELECTs where the condition is a known expression. */
#include "ops.h"

cmz_dim cmz_output_symbol(cmz_module *m, cmz_vid v, uint32_t axis, int64_t low, int64_t high) {
  for (uint32_t i = 0; i < cmz_dim_symbol_count(m->dims); i++) {
    cmz_symbol *s = cmz_dim_symbol_at(m->dims, i);
    if (s->origin != CMZ_SYMBOL_DATA || s->value != v || s->element != -1 - (int64_t)axis) continue;
    return cmz_dim_symbol_id(m->dims, i);
  }
  cmz_symbol s = {.origin = CMZ_SYMBOL_DATA,
                  .value = v,
                  .element = -1 - (int64_t)axis,
                  .low = low,
                  .high = high};
  s.hint = CMZ_MAX(low, CMZ_MIN(high, 16));
  s.name = cmz_arena_printf(m->arena, "%s.dim%u", cmz_value_get(m, v)->name, axis);
  return cmz_dim_symbol(m->dims, &s);
}

static cmz_status subgraph(cmz_module *m, cmz_nid n, const char *name, cmz_gid *g) {
  const cmz_attr *a = cmz_node_attr(cmz_node_get(m, n), name);
  if (!a || a->kind != CMZ_ATTR_GRAPH)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute %s is missing", name);
  *g = a->graph;
  return CMZ_OK;
}

/* Symbolic content found under other assumptions must not survive into the next inference. */
static void forget_elements(cmz_module *m, cmz_gid g) {
  const cmz_graph *graph = cmz_graph_get(m, g);
  for (uint32_t i = 0; i < graph->nodes.count; i++) {
    const cmz_node *node = cmz_node_get(m, graph->nodes.data[i]);
    if (node->removed || !strcmp(node->op->name, "Dims")) continue;
    for (uint32_t j = 0; j < node->output_count; j++) {
      cmz_value *v = cmz_value_get(m, node->outputs[j]);
      if (node->outputs[j]) v->elements = NULL, v->element_count = 0;
    }
    for (uint32_t j = 0; j < node->attr_count; j++)
      if (node->attrs[j].kind == CMZ_ATTR_GRAPH) forget_elements(m, node->attrs[j].graph);
  }
}

/* ---- If ---- */

/* The condition as a dim; CMZ_DIM_NONE when nothing is known. */
static cmz_dim condition_of(cmz_module *m, cmz_vid v) {
  uint32_t count = 0;
  const cmz_dim *e = v ? cmz_value_elements(m, v, &count) : NULL;
  return e && count == 1 ? e[0] : CMZ_DIM_NONE;
}

static cmz_status set_from_branch(cmz_module *m, cmz_nid n, cmz_gid g) {
  for (uint32_t i = 0; i < cmz_node_get(m, n)->output_count; i++) {
    const cmz_type t = cmz_value_get(m, cmz_graph_get(m, g)->outputs.data[i])->type;
    cmz_vid out = cmz_ops_output(m, n, i);
    if (out) cmz_value_set_full_type(m, out, &t);
  }
  return CMZ_OK;
}

/* Output I of N may have either type. */
static cmz_status merge_types(cmz_module *m, cmz_nid n, uint32_t i, cmz_dim condition, cmz_vid a,
                              cmz_vid b) {
  cmz_vid out = cmz_node_output(cmz_node_get(m, n), i);
  if (!out) return CMZ_OK;
  const cmz_type x = cmz_value_get(m, a)->type, y = cmz_value_get(m, b)->type;
  if (x.kind != CMZ_KIND_TENSOR || y.kind != CMZ_KIND_TENSOR) {
    cmz_type both;
    if (!cmz_type_merge(m, &x, &y, &both))
      return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                           "output %u is a tensor, a sequence or an optional by the branch", i);
    cmz_value_set_full_type(m, out, &both);
    return CMZ_OK;
  }
  if (x.dtype != y.dtype || x.rank != y.rank)
    return cmz_node_fail(
        m, n, CMZ_E_UNSUPPORTED,
        "the branches give different types for output %u (%s of rank %u, %s of rank %u)", i,
        cmz_dtype_info(x.dtype)->name, x.rank, cmz_dtype_info(y.dtype)->name, y.rank);
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t j = 0; j < x.rank; j++) {
    int64_t low, high, low2, high2;
    if (x.shape[j] == y.shape[j]) {
      shape[j] = x.shape[j];
    } else if (condition && !cmz_dim_is_data_dependent(m->dims, x.shape[j]) &&
               !cmz_dim_is_data_dependent(m->dims, y.shape[j])) {
      shape[j] = cmz_dim_select(m->dims, condition, x.shape[j], y.shape[j]);
    } else {
      cmz_dim_range(m->dims, x.shape[j], &low, &high);
      cmz_dim_range(m->dims, y.shape[j], &low2, &high2);
      shape[j] = cmz_output_symbol(m, out, j, CMZ_MAX(CMZ_MIN(low, low2), 0), CMZ_MAX(high, high2));
    }
  }
  cmz_value_set_type(m, out, x.dtype, x.rank, shape);
  return CMZ_OK;
}

static cmz_status infer_if(cmz_module *m, cmz_nid n) {
  cmz_gid branches[2];
  CMZ_TRY(subgraph(m, n, "then_branch", &branches[0]));
  CMZ_TRY(subgraph(m, n, "else_branch", &branches[1]));
  uint32_t count = cmz_node_get(m, n)->output_count;
  for (int b = 0; b < 2; b++)
    if (cmz_graph_get(m, branches[b])->outputs.count < count)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "a branch has fewer outputs than the node");
  cmz_dim condition = condition_of(m, cmz_ops_input(m, n, 0));
  int64_t chosen;
  if (condition && cmz_dim_is_const(m->dims, condition, &chosen)) {
    cmz_gid g = branches[chosen ? 0 : 1];
    CMZ_TRY(cmz_infer_graph(m, g));
    return set_from_branch(m, n, g);
  }
  CMZ_TRY(cmz_infer_graph(m, branches[0]));
  CMZ_TRY(cmz_infer_graph(m, branches[1]));
  for (uint32_t i = 0; i < count; i++)
    CMZ_TRY(merge_types(m, n, i, condition, cmz_graph_get(m, branches[0])->outputs.data[i],
                        cmz_graph_get(m, branches[1])->outputs.data[i]));
  return CMZ_OK;
}

static cmz_status eval_if(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                          cmz_array *outputs) {
  cmz_gid g = 0;
  bool taken = cmz_get_int(&inputs[0], 0) != 0;
  CMZ_TRY(subgraph(e->module, e->node, taken ? "then_branch" : "else_branch", &g));
  cmz_array *results =
      CMZ_NEW_ARRAY(e->arena, cmz_array, cmz_graph_get(e->module, g)->outputs.count);
  CMZ_TRY(cmz_eval_graph(e, g, NULL, results, e->values));
  for (uint32_t i = 0; i < n->output_count; i++) outputs[i] = results[i];
  return CMZ_OK;
}

/* ---- bodies of loops ---- */

/* A sequence or optional that a loop carries: in every iteration it may hold what the last one put
 * there, of sizes that only that iteration knows. */
static cmz_status widen_carried(cmz_module *m, cmz_nid n, uint32_t i, cmz_vid in,
                                const cmz_type *next, bool *changed) {
  const cmz_type now = cmz_value_get(m, in)->type;
  cmz_type both;
  if (!cmz_type_merge(m, &now, next, &both))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "carried value %u changes its type in the body",
                         i);
  cmz_dim shape[CMZ_MAX_RANK];
  bool same = both.kind == now.kind && both.rank == now.rank && both.dtype == now.dtype &&
              both.vacant == now.vacant;
  for (uint32_t j = 0; both.rank != CMZ_RANK_UNKNOWN && j < both.rank; j++) {
    shape[j] = both.shape[j];
    if (shape[j] != CMZ_DIM_NONE && cmz_dim_is_data_dependent(m->dims, shape[j]))
      shape[j] = CMZ_DIM_NONE;
    same = same && shape[j] == now.shape[j];
  }
  if (same) return CMZ_OK;
  both.shape = shape;
  cmz_value_set_full_type(m, in, &both);
  *changed = true;
  return CMZ_OK;
}

/* Gives the body's inputs from FIRST on the types of COUNT values carried into the loop, infers the
 * body, and where a carried size changes from one iteration to the next, makes it a symbol of the
 * body's input and starts again. */
static cmz_status infer_body(cmz_module *m, cmz_nid n, cmz_gid g, uint32_t first, uint32_t count,
                             const cmz_vid *initial, uint32_t first_output) {
  for (uint32_t i = 0; i < count; i++) {
    const cmz_type t = cmz_value_get(m, initial[i])->type;
    cmz_value_set_full_type(m, cmz_graph_get(m, g)->inputs.data[first + i], &t);
  }
  for (int round = 0; round < 4; round++) {
    bool changed = false;
    forget_elements(m, g);
    CMZ_TRY(cmz_infer_graph(m, g));
    for (uint32_t i = 0; i < count; i++) {
      cmz_vid in = cmz_graph_get(m, g)->inputs.data[first + i];
      const cmz_type now = cmz_value_get(m, in)->type;
      const cmz_type next =
          cmz_value_get(m, cmz_graph_get(m, g)->outputs.data[first_output + i])->type;
      if (now.kind != CMZ_KIND_TENSOR || next.kind != CMZ_KIND_TENSOR) {
        CMZ_TRY(widen_carried(m, n, i, in, &next, &changed));
        continue;
      }
      if (now.dtype != next.dtype || now.rank != next.rank)
        return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                             "carried value %u changes its type or rank in the body", i);
      cmz_dim shape[CMZ_MAX_RANK];
      for (uint32_t j = 0; j < now.rank; j++) {
        shape[j] = now.shape[j];
        const cmz_symbol *s = cmz_dim_symbol_of(m->dims, now.shape[j]);
        bool own = s && s->origin == CMZ_SYMBOL_DATA && s->value == in;
        if (now.shape[j] == next.shape[j] || own) continue;
        shape[j] = cmz_output_symbol(m, in, j, 0, INT64_MAX);
        changed = true;
      }
      cmz_value_set_type(m, in, now.dtype, now.rank, shape);
    }
    if (!changed) return CMZ_OK;
  }
  return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "the sizes of carried values do not settle");
}

/* Output I of N, carried: the body input's type, with sizes that vary as symbols of the output
 * itself. */
static void set_carried(cmz_module *m, cmz_nid n, uint32_t i, cmz_vid body_input) {
  cmz_vid out = cmz_node_output(cmz_node_get(m, n), i);
  if (!out) return;
  const cmz_type t = cmz_value_get(m, body_input)->type;
  cmz_dim shape[CMZ_MAX_RANK];
  if (t.kind != CMZ_KIND_TENSOR) {
    cmz_value_set_full_type(m, out, &t);
    return;
  }
  for (uint32_t j = 0; j < t.rank; j++) {
    const cmz_symbol *s = cmz_dim_symbol_of(m->dims, t.shape[j]);
    bool varies = s && s->origin == CMZ_SYMBOL_DATA && s->value == body_input;
    shape[j] = varies ? cmz_output_symbol(m, out, j, 0, INT64_MAX) : t.shape[j];
  }
  cmz_value_set_type(m, out, t.dtype, t.rank, shape);
}

/* Whether D is made from a value of graph G: then it can be another size in each iteration. */
static bool depends_on_graph(cmz_module *m, cmz_dim d, cmz_gid g) {
  const cmz_symbol *s = cmz_dim_symbol_of(m->dims, d);
  if (s && s->origin == CMZ_SYMBOL_DATA && s->value < m->values.count)
    return cmz_value_get(m, s->value)->graph == g;
  const cmz_dim_node *node = cmz_dim_get(m->dims, d);
  for (uint32_t i = 0; i < node->arg_count; i++)
    if (depends_on_graph(m, node->args[i], g)) return true;
  return false;
}

/* Output I of N: what body output FROM gives in each of LENGTH iterations, stacked along AXIS. */
static cmz_status set_stacked(cmz_module *m, cmz_nid n, uint32_t i, cmz_gid g, cmz_vid from,
                              cmz_dim length, int64_t axis) {
  cmz_vid out = cmz_node_output(cmz_node_get(m, n), i);
  const cmz_type t = cmz_value_get(m, from)->type;
  uint32_t at = 0;
  if (t.kind == CMZ_KIND_TENSOR) CMZ_TRY(cmz_infer_axis(m, n, axis, t.rank + 1, &at));
  if (!out) return CMZ_OK;
  if (t.kind != CMZ_KIND_TENSOR || t.rank + 1 > CMZ_MAX_RANK)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "output %u collects something else than tensors",
                         i);
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t j = 0; j <= t.rank; j++) {
    shape[j] = j == at ? length : t.shape[j - (j > at)];
    if (j != at && depends_on_graph(m, shape[j], g))
      return cmz_node_fail(
          m, n, CMZ_E_UNSUPPORTED,
          "output %u collects tensors whose size may differ from iteration to iteration", i);
  }
  cmz_value_set_type(m, out, t.dtype, t.rank + 1, shape);
  return CMZ_OK;
}

/* ---- Loop ---- */

/* Number of iterations when it is known before the loop runs; else CMZ_DIM_NONE. */
static cmz_dim trip_count(cmz_module *m, cmz_nid n, cmz_gid g) {
  const cmz_node *node = cmz_node_get(m, n);
  uint32_t count = 0;
  cmz_vid limit = cmz_node_input(node, 0), start = cmz_node_input(node, 1);
  const cmz_dim *e = limit ? cmz_value_elements(m, limit, &count) : NULL;
  if (!e || count != 1) return CMZ_DIM_NONE;
  cmz_dim c = start ? condition_of(m, start) : cmz_dim_const(m->dims, 1);
  if (!c || !cmz_dim_is(m->dims, c, 1)) return CMZ_DIM_NONE;
  cmz_vid next = cmz_graph_get(m, g)->outputs.data[0];
  /* The body may hand its own condition on, directly or through Identity. */
  for (int i = 0; i < 8 && next; i++) {
    if (next == cmz_graph_get(m, g)->inputs.data[1])
      return cmz_dim_max(m->dims, e[0], cmz_dim_const(m->dims, 0));
    cmz_nid p = cmz_value_get(m, next)->producer;
    if (!p || strcmp(cmz_node_get(m, p)->op->name, "Identity") != 0) break;
    next = cmz_node_get(m, p)->inputs[0];
  }
  c = condition_of(m, next);
  if (!c || !cmz_dim_is(m->dims, c, 1)) return CMZ_DIM_NONE;
  return cmz_dim_max(m->dims, e[0], cmz_dim_const(m->dims, 0));
}

static cmz_status infer_loop(cmz_module *m, cmz_nid n) {
  cmz_gid g = 0;
  CMZ_TRY(subgraph(m, n, "body", &g));
  const cmz_node node = *cmz_node_get(m, n);
  uint32_t carried = node.input_count > 2 ? node.input_count - 2 : 0;
  const cmz_graph *body = cmz_graph_get(m, g);
  if (body->inputs.count != 2 + carried || body->outputs.count < 1 + carried ||
      body->outputs.count - 1 < node.output_count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the body's inputs and outputs do not fit the node");
  cmz_value_set_type(m, body->inputs.data[0], CMZ_I64, 0, NULL);
  cmz_value_set_type(m, cmz_graph_get(m, g)->inputs.data[1], CMZ_BOOL, 0, NULL);
  CMZ_TRY(infer_body(m, n, g, 2, carried, node.inputs + 2, 1));
  for (uint32_t i = 0; i < carried && i < node.output_count; i++)
    set_carried(m, n, i, cmz_graph_get(m, g)->inputs.data[2 + i]);
  cmz_dim length = trip_count(m, n, g);
  for (uint32_t i = carried; i < node.output_count; i++) {
    if (!node.outputs[i]) continue;
    if (!length) length = cmz_output_symbol(m, node.outputs[i], 0, 0, INT64_MAX);
    CMZ_TRY(set_stacked(m, n, i, g, cmz_graph_get(m, g)->outputs.data[1 + i], length, 0));
  }
  return CMZ_OK;
}

/* Collected slices of one output. */
typedef struct stack {
  cmz_array *items;
  uint32_t count, capacity;
} stack;

static void stack_push(cmz_eval *e, stack *s, const cmz_array *a) {
  if (s->count == s->capacity) {
    uint32_t capacity = s->capacity ? 2 * s->capacity : 8;
    cmz_array *grown = CMZ_NEW_ARRAY(e->arena, cmz_array, capacity);
    if (s->count) memcpy(grown, s->items, s->count * sizeof *grown);
    s->items = grown;
    s->capacity = capacity;
  }
  s->items[s->count++] = *a;
}

/* The slices of S stacked along AXIS; LIKE gives the shape of one when there are none. */
static cmz_status stack_join(cmz_eval *e, const stack *s, const cmz_type *like, int64_t axis,
                             bool reverse, cmz_array *out) {
  cmz_array first = {.dtype = like->dtype, .rank = like->rank};
  for (uint32_t i = 0; i < like->rank; i++)
    if (!cmz_dim_is_const(e->module->dims, like->shape[i], &first.shape[i])) first.shape[i] = 0;
  if (s->count) first = s->items[0];
  if (first.rank + 1 > CMZ_MAX_RANK) return cmz_eval_fail(e, "the rank is too large");
  uint32_t at;
  CMZ_TRY(cmz_eval_axis(e, axis, first.rank + 1, &at));
  int64_t outer = 1, inner = 1;
  out->rank = first.rank + 1;
  out->dtype = first.dtype;
  for (uint32_t i = 0; i < out->rank; i++) {
    out->shape[i] = i == at ? s->count : first.shape[i - (i > at)];
    if (i != at) *(i < at ? &outer : &inner) *= out->shape[i];
  }
  CMZ_TRY(cmz_eval_output(e, out));
  for (uint32_t t = 0; t < s->count; t++) {
    const cmz_array *a = &s->items[reverse ? s->count - 1 - t : t];
    if (cmz_array_count(a) != (size_t)(outer * inner))
      return cmz_eval_fail(e, "iterations give different sizes");
    for (int64_t o = 0; o < outer; o++)
      for (int64_t i = 0; i < inner; i++)
        cmz_copy_element(out, (o * s->count + t) * inner + i, a, o * inner + i);
  }
  return CMZ_OK;
}

static cmz_status eval_loop(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  cmz_gid g = 0;
  CMZ_TRY(subgraph(e->module, e->node, "body", &g));
  const cmz_graph *body = cmz_graph_get(e->module, g);
  uint32_t carried = n->input_count > 2 ? n->input_count - 2 : 0, ins = body->inputs.count,
           outs = body->outputs.count;
  cmz_array *in = CMZ_NEW_ARRAY(e->arena, cmz_array, ins),
            *out = CMZ_NEW_ARRAY(e->arena, cmz_array, outs);
  stack *stacks = CMZ_NEW_ARRAY(e->arena, stack, outs);
  int64_t limit = n->inputs[0] ? cmz_get_int(&inputs[0], 0) : INT64_MAX;
  bool go_on = n->input_count > 1 && n->inputs[1] ? cmz_get_int(&inputs[1], 0) != 0 : true;
  for (uint32_t i = 0; i < carried; i++) in[2 + i] = inputs[2 + i];
  const cmz_array *outer = e->values;
  for (int64_t t = 0; t < limit && go_on; t++) {
    in[0] = (cmz_array){.dtype = CMZ_I64};
    in[1] = (cmz_array){.dtype = CMZ_BOOL};
    CMZ_TRY(cmz_eval_output(e, &in[0]));
    CMZ_TRY(cmz_eval_output(e, &in[1]));
    cmz_set_int(&in[0], 0, t);
    cmz_set_int(&in[1], 0, 1);
    CMZ_TRY(cmz_eval_graph(e, g, in, out, outer));
    go_on = cmz_get_int(&out[0], 0) != 0;
    for (uint32_t i = 0; i < carried; i++) in[2 + i] = out[1 + i];
    for (uint32_t i = 1 + carried; i < outs; i++) stack_push(e, &stacks[i], &out[i]);
  }
  for (uint32_t i = 0; i < n->output_count; i++) {
    const cmz_type *like =
        &cmz_value_get(e->module, cmz_graph_get(e->module, g)->outputs.data[1 + i])->type;
    if (i < carried) outputs[i] = in[2 + i];
    else if (n->outputs[i]) CMZ_TRY(stack_join(e, &stacks[1 + i], like, 0, false, &outputs[i]));
  }
  return CMZ_OK;
}

/* ---- Scan ---- */

static int64_t entry(const cmz_node *n, const char *name, uint32_t i) {
  uint32_t count;
  const int64_t *values = cmz_node_ints(n, name, &count);
  return i < count ? values[i] : 0;
}

static cmz_status infer_scan(cmz_module *m, cmz_nid n) {
  cmz_gid g = 0;
  CMZ_TRY(subgraph(m, n, "body", &g));
  const cmz_node node = *cmz_node_get(m, n);
  int64_t scans = cmz_node_int(&node, "num_scan_inputs", 0);
  const cmz_graph *body = cmz_graph_get(m, g);
  if (scans < 1 || scans > node.input_count || body->inputs.count != node.input_count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the body's inputs do not fit the node");
  uint32_t carried = node.input_count - (uint32_t)scans;
  if (body->outputs.count < carried || body->outputs.count < node.output_count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the body's outputs do not fit the node");
  cmz_dim length = CMZ_DIM_NONE;
  for (uint32_t i = carried; i < node.input_count; i++) {
    const cmz_type t = *cmz_input_type(m, &node, i);
    uint32_t axis;
    CMZ_TRY(cmz_infer_axis(m, n, entry(&node, "scan_input_axes", i - carried), t.rank, &axis));
    cmz_dim shape[CMZ_MAX_RANK];
    for (uint32_t j = 0, k = 0; j < t.rank; j++)
      if (j != axis) shape[k++] = t.shape[j];
    if (length && cmz_dims_differ(m, length, t.shape[axis]))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the scanned inputs have different lengths");
    if (!length || cmz_dim_is_const(m->dims, t.shape[axis], &(int64_t){0})) length = t.shape[axis];
    cmz_value_set_type(m, cmz_graph_get(m, g)->inputs.data[i], t.dtype, t.rank - 1, shape);
  }
  CMZ_TRY(infer_body(m, n, g, 0, carried, node.inputs, 0));
  for (uint32_t i = 0; i < node.output_count; i++) {
    if (i < carried) set_carried(m, n, i, cmz_graph_get(m, g)->inputs.data[i]);
    else
      CMZ_TRY(set_stacked(m, n, i, g, cmz_graph_get(m, g)->outputs.data[i], length,
                          entry(&node, "scan_output_axes", i - carried)));
  }
  return CMZ_OK;
}

/* Slice T of A along AXIS. */
static cmz_status take(cmz_eval *e, const cmz_array *a, uint32_t axis, int64_t t, cmz_array *out) {
  int64_t outer = 1, inner = 1;
  *out = (cmz_array){.dtype = a->dtype, .rank = a->rank - 1};
  for (uint32_t i = 0, k = 0; i < a->rank; i++) {
    if (i == axis) continue;
    out->shape[k++] = a->shape[i];
    *(i < axis ? &outer : &inner) *= a->shape[i];
  }
  CMZ_TRY(cmz_eval_output(e, out));
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner; i++)
      cmz_copy_element(out, o * inner + i, a, (o * a->shape[axis] + t) * inner + i);
  return CMZ_OK;
}

static cmz_status eval_scan(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  cmz_gid g = 0;
  CMZ_TRY(subgraph(e->module, e->node, "body", &g));
  uint32_t scans = (uint32_t)cmz_node_int(n, "num_scan_inputs", 0),
           carried = n->input_count - scans;
  uint32_t outs = cmz_graph_get(e->module, g)->outputs.count, axis[256];
  cmz_array *in = CMZ_NEW_ARRAY(e->arena, cmz_array, n->input_count),
            *out = CMZ_NEW_ARRAY(e->arena, cmz_array, outs);
  stack *stacks = CMZ_NEW_ARRAY(e->arena, stack, outs);
  if (scans == 0 || scans > CMZ_COUNT_OF(axis)) return cmz_eval_fail(e, "%u scanned inputs", scans);
  for (uint32_t i = 0; i < carried; i++) in[i] = inputs[i];
  for (uint32_t i = 0; i < scans; i++)
    CMZ_TRY(cmz_eval_axis(e, entry(n, "scan_input_axes", i), inputs[carried + i].rank, &axis[i]));
  int64_t length = inputs[carried].shape[axis[0]];
  const cmz_array *outer = e->values;
  for (int64_t t = 0; t < length; t++) {
    for (uint32_t i = 0; i < scans; i++) {
      if (inputs[carried + i].shape[axis[i]] != length)
        return cmz_eval_fail(e, "the scanned inputs have different lengths");
      bool reverse = entry(n, "scan_input_directions", i) != 0;
      CMZ_TRY(
          take(e, &inputs[carried + i], axis[i], reverse ? length - 1 - t : t, &in[carried + i]));
    }
    CMZ_TRY(cmz_eval_graph(e, g, in, out, outer));
    for (uint32_t i = 0; i < carried; i++) in[i] = out[i];
    for (uint32_t i = carried; i < outs; i++) stack_push(e, &stacks[i], &out[i]);
  }
  for (uint32_t i = 0; i < n->output_count; i++) {
    const cmz_type *like =
        &cmz_value_get(e->module, cmz_graph_get(e->module, g)->outputs.data[i])->type;
    if (i < carried) outputs[i] = in[i];
    else if (n->outputs[i])
      CMZ_TRY(stack_join(e, &stacks[i], like, entry(n, "scan_output_axes", i - carried),
                         entry(n, "scan_output_directions", i - carried) != 0, &outputs[i]));
  }
  return CMZ_OK;
}

/* Moves AXIS of V to the front, or the front to AXIS when BACK. */
static cmz_vid move_axis(cmz_module *m, cmz_nid before, cmz_vid v, uint32_t axis, bool back) {
  uint32_t rank = cmz_value_get(m, v)->type.rank;
  int64_t perm[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < rank; i++) {
    uint32_t from = i == 0 ? axis : i <= axis ? i - 1 : i;
    if (back) perm[from] = i;
    else perm[i] = from;
  }
  return cmz_build_transpose(m, before, v, perm, rank);
}

/* Scans along other axes than the first become scans along the first between transpositions. */
static cmz_status expand_scan(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  uint32_t carried = node.input_count - (uint32_t)cmz_node_int(&node, "num_scan_inputs", 0);
  bool moves = false;
  for (uint32_t i = carried; i < node.input_count; i++)
    moves |= entry(&node, "scan_input_axes", i - carried) != 0;
  for (uint32_t i = carried; i < node.output_count; i++)
    moves |= entry(&node, "scan_output_axes", i - carried) != 0;
  if (!moves) return CMZ_OK;
  for (uint32_t i = carried; i < node.input_count; i++) {
    uint32_t axis;
    CMZ_TRY(cmz_infer_axis(m, n, entry(&node, "scan_input_axes", i - carried),
                           cmz_input_type(m, &node, i)->rank, &axis));
    cmz_vid v = move_axis(m, n, cmz_node_get(m, n)->inputs[i], axis, false);
    if (!v) return CMZ_E_INTERNAL;
    cmz_node_set_input(m, n, i, v);
  }
  uint32_t ranks[256], axes[256];
  for (uint32_t i = carried; i < node.output_count && i < 256; i++) {
    if (!node.outputs[i]) continue;
    ranks[i] = cmz_value_get(m, node.outputs[i])->type.rank;
    CMZ_TRY(
        cmz_infer_axis(m, n, entry(&node, "scan_output_axes", i - carried), ranks[i], &axes[i]));
  }
  cmz_node_remove_attr(m, n, "scan_input_axes");
  cmz_node_remove_attr(m, n, "scan_output_axes");
  /* The old output values become the transposed ones; the node gets new outputs. */
  cmz_vid old[256], *outputs = CMZ_NEW_ARRAY(m->arena, cmz_vid, node.output_count);
  if (node.output_count > 256)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "more than 256 outputs");
  for (uint32_t i = 0; i < node.output_count; i++) {
    old[i] = node.outputs[i];
    outputs[i] = old[i] ? cmz_value_add(m, node.graph, NULL) : 0;
  }
  cmz_node fresh = *cmz_node_get(m, n);
  cmz_nid scan = cmz_node_insert(m, n, fresh.op, fresh.name, fresh.input_count, fresh.inputs,
                                 node.output_count, outputs);
  for (uint32_t i = 0; i < fresh.attr_count; i++) {
    cmz_node_set_attr(m, scan, &fresh.attrs[i]);
    if (fresh.attrs[i].kind == CMZ_ATTR_GRAPH) cmz_graph_get(m, fresh.attrs[i].graph)->owner = scan;
  }
  cmz_node_add_source(m, scan, n);
  CMZ_TRY(cmz_infer_node(m, scan));
  for (uint32_t i = 0; i < node.output_count; i++) {
    if (!old[i]) continue;
    cmz_vid v = i < carried ? outputs[i] : move_axis(m, n, outputs[i], axes[i], true);
    if (!v) return CMZ_E_INTERNAL;
    cmz_value_replace_uses(m, old[i], v);
  }
  cmz_node_remove(m, n);
  return CMZ_OK;
}

#define ROW(NAME, MIN_INPUTS, SINCE, FUNCTION, EXPAND, ...)                                        \
  {                                                                                                \
    .name = NAME, .domain = "", .min_inputs = MIN_INPUTS, .max_inputs = 255, .min_outputs = 0,     \
    .max_outputs = 255, .since = SINCE, .flags = CMZ_OP_CONTROL | CMZ_OP_VALUES,                   \
    .infer = infer_##FUNCTION, .eval = eval_##FUNCTION, .expand = EXPAND, ##__VA_ARGS__            \
  }

const cmz_op cmz_ops_control[] = {
    ROW("If", 1, 1, if, NULL, .attributes = "else_branch:g! then_branch:g!"),
    ROW("Loop", 0, 1, loop, NULL, .attributes = "body:g!"),
    ROW("Scan", 1, 9, scan, expand_scan,
        .attributes = "body:g! directions:I<9 num_scan_inputs:i! scan_input_axes:I@9 "
                      "scan_input_directions:I@9 scan_output_axes:I@9 scan_output_directions:I@9"),
    {.name = NULL},
};
