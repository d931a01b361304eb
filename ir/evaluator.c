/* evaluator.c - runs graphs on concrete arrays. In: a graph and one array per input. Out: one array
 * per graph output, in the evaluator's arena. Always holds: inputs are never written; an operator
 * without a reference evaluation is run through its own expansion in a scratch module. */
#include "evaluator.h"

size_t cmz_array_count(const cmz_array *a) {
  size_t count = 1;
  for (uint32_t i = 0; i < a->rank; i++) count *= (size_t)a->shape[i];
  return count;
}

void cmz_array_coordinates(const cmz_array *a, size_t i, int64_t *coordinates) {
  for (uint32_t d = a->rank; d-- > 0;) {
    size_t extent = (size_t)a->shape[d];
    coordinates[d] = extent ? (int64_t)(i % extent) : 0;
    i = extent ? i / extent : 0;
  }
}

cmz_status cmz_eval_fail(cmz_eval *e, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const char *message = cmz_arena_vprintf(e->arena, format, args);
  va_end(args);
  return cmz_node_fail(e->module, e->node, CMZ_E_INPUT, "%s", message);
}

cmz_status cmz_eval_output(cmz_eval *e, cmz_array *out) {
  size_t count = 1, bytes;
  bool fits = true;
  for (uint32_t i = 0; i < out->rank; i++) {
    if (out->shape[i] < 0) return cmz_eval_fail(e, "an output dimension is negative");
    fits = fits && cmz_mul_size(count, (size_t)out->shape[i], &count);
  }
  if (out->dtype == CMZ_STRING) fits = fits && cmz_mul_size(count, sizeof(char *), &bytes);
  else fits = fits && cmz_dtype_bytes(out->dtype, count, &bytes);
  if (!fits) return cmz_eval_fail(e, "the output's size overflows");
  if (e->limit && bytes > e->limit) return CMZ_E_BUDGET;
  out->data = cmz_arena_alloc(e->arena, bytes);
  return CMZ_OK;
}

/* ---- evaluation through expansion ---- */

static cmz_status array_as_constant(cmz_module *m, cmz_gid g, const char *name, const cmz_array *a,
                                    cmz_vid *out) {
  size_t bytes, count = cmz_array_count(a);
  if (a->dtype == CMZ_STRING) bytes = count * sizeof(char *);
  else if (!cmz_dtype_bytes(a->dtype, count, &bytes)) return CMZ_E_INTERNAL;
  *out = cmz_value_add_constant(m, g, name, a->dtype, a->rank, a->shape, a->data, bytes);
  return CMZ_OK;
}

static void copy_attributes(cmz_module *to, cmz_nid to_node, const cmz_module *from,
                            const cmz_node *node) {
  for (uint32_t i = 0; i < node->attr_count; i++) {
    cmz_attr attr = node->attrs[i];
    if (attr.kind == CMZ_ATTR_TENSOR && attr.tensor) {
      cmz_constant c = *cmz_constant_get(from, attr.tensor);
      cmz_vec_push(to->arena, &to->constants, c);
      attr.tensor = to->constants.count - 1;
    }
    cmz_node_set_attr(to, to_node, &attr);
  }
}

/* A module that holds NODE alone, all its inputs constant: expansions then see everything as
 * static. */
static cmz_status eval_expanded(cmz_eval *e, const cmz_node *node, const cmz_array *inputs,
                                cmz_array *outputs) {
  for (uint32_t i = 0; i < node->attr_count; i++)
    if (node->attrs[i].kind == CMZ_ATTR_GRAPH)
      return cmz_node_fail(e->module, e->node, CMZ_E_INTERNAL,
                           "an operator with subgraphs has no evaluation");
  cmz_module *m = cmz_module_create(e->module->ctx, e->module->file);
  m->opset = e->module->opset;
  cmz_gid g = cmz_module_add_graph(m, "scratch", 0, 0);
  cmz_vec_push(m->arena, &m->entries, g);
  cmz_vid *in = CMZ_NEW_ARRAY(m->arena, cmz_vid, node->input_count);
  cmz_vid *out = CMZ_NEW_ARRAY(m->arena, cmz_vid, node->output_count);
  for (uint32_t i = 0; i < node->input_count; i++)
    if (inputs[i].data) CMZ_TRY(array_as_constant(m, g, NULL, &inputs[i], &in[i]));
  for (uint32_t i = 0; i < node->output_count; i++)
    if (node->outputs[i]) {
      out[i] = cmz_value_add(m, g, NULL);
      cmz_graph_add_output(m, g, out[i]);
    }
  cmz_nid n =
      cmz_node_add(m, g, node->op, node->name, node->input_count, in, node->output_count, out);
  cmz_node_get(m, n)->opset = node->opset;
  copy_attributes(m, n, e->module, node);
  CMZ_TRY(cmz_infer_node(m, n));
  CMZ_TRY(node->op->expand(m, n));
  if (!cmz_node_get(m, n)->removed)
    return cmz_node_fail(e->module, e->node, CMZ_E_INTERNAL,
                         "the operator has no reference evaluation");
  cmz_array results[16] = {{0}};
  if (cmz_graph_get(m, g)->outputs.count > CMZ_COUNT_OF(results)) return CMZ_E_INTERNAL;
  cmz_eval scratch = {.module = m, .arena = e->arena, .limit = e->limit};
  CMZ_TRY(cmz_eval_graph(&scratch, g, NULL, results, NULL));
  for (uint32_t i = 0, k = 0; i < node->output_count; i++)
    if (node->outputs[i]) outputs[i] = results[k++];
  return CMZ_OK;
}

cmz_status cmz_eval_node(cmz_eval *e, cmz_nid n, const cmz_array *inputs, cmz_array *outputs) {
  const cmz_node *node = cmz_node_get(e->module, n);
  cmz_nid outer = e->node;
  e->node = n;
  for (uint32_t i = 0; i < node->output_count; i++) {
    memset(&outputs[i], 0, sizeof outputs[i]);
    if (node->outputs[i]) outputs[i].dtype = cmz_value_get(e->module, node->outputs[i])->type.dtype;
  }
  cmz_status status;
  if (node->op->eval) status = node->op->eval(e, node, inputs, outputs);
  else if (node->op->expand) status = eval_expanded(e, node, inputs, outputs);
  else
    status =
        cmz_node_fail(e->module, n, CMZ_E_UNSUPPORTED, "the operator has no reference evaluation");
  e->node = outer;
  return status;
}

/* ---- graphs ---- */

static cmz_status check_input(cmz_eval *e, cmz_vid v, const cmz_array *a) {
  const cmz_value *value = cmz_value_get(e->module, v);
  cmz_loc loc = {.file = e->module->file, .tensor = value->name};
  const cmz_type *type = &value->type;
  if (!a->data) return cmz_fail(e->module->ctx, CMZ_E_INPUT, loc, "no data was given");
  if (type->dtype != CMZ_UNDEFINED && a->dtype != type->dtype)
    return cmz_fail(e->module->ctx, CMZ_E_INPUT, loc, "element type is %s, should be %s",
                    cmz_dtype_info(a->dtype)->name, cmz_dtype_info(type->dtype)->name);
  if (type->rank == CMZ_RANK_UNKNOWN) return CMZ_OK;
  if (a->rank != type->rank)
    return cmz_fail(e->module->ctx, CMZ_E_INPUT, loc, "rank is %u, should be %u", a->rank,
                    type->rank);
  for (uint32_t i = 0; i < a->rank; i++) {
    int64_t low, high;
    if (!type->shape || !type->shape[i]) continue;
    cmz_dim_range(e->module->dims, type->shape[i], &low, &high);
    if (a->shape[i] < low || a->shape[i] > high)
      return cmz_fail(e->module->ctx, CMZ_E_INPUT, loc,
                      "dimension %u is %" PRId64 ", outside what the model takes", i, a->shape[i]);
  }
  return CMZ_OK;
}

static bool constant_as_array(const cmz_module *m, cmz_vid v, cmz_array *out) {
  const cmz_constant *c = cmz_value_constant(m, v);
  if (!c || c->rank > CMZ_MAX_RANK) return false;
  out->dtype = c->dtype;
  out->rank = c->rank;
  for (uint32_t i = 0; i < c->rank; i++) out->shape[i] = c->shape[i];
  /* NULL means absent, so an empty constant points anywhere. */
  out->data = c->data ? (void *)(uintptr_t)c->data : (void *)(uintptr_t)c;
  return true;
}

static cmz_status lookup(cmz_eval *e, const cmz_array *values, cmz_vid v, cmz_array *out) {
  if (constant_as_array(e->module, v, out)) return CMZ_OK;
  if (!values[v].data)
    return cmz_fail(e->module->ctx, CMZ_E_INTERNAL,
                    (cmz_loc){.file = e->module->file, .tensor = cmz_value_get(e->module, v)->name},
                    "is used before it has been computed");
  *out = values[v];
  return CMZ_OK;
}

static cmz_status run_node(cmz_eval *e, cmz_nid n, cmz_array *values) {
  const cmz_node *node = cmz_node_get(e->module, n);
  cmz_array *inputs = CMZ_NEW_ARRAY(e->arena, cmz_array, node->input_count);
  cmz_array *outputs = CMZ_NEW_ARRAY(e->arena, cmz_array, node->output_count);
  for (uint32_t i = 0; i < node->input_count; i++)
    if (node->inputs[i]) CMZ_TRY(lookup(e, values, node->inputs[i], &inputs[i]));
  e->values = values;
  CMZ_TRY(cmz_eval_node(e, n, inputs, outputs));
  e->values = values;
  for (uint32_t i = 0; i < node->output_count; i++)
    if (node->outputs[i]) values[node->outputs[i]] = outputs[i];
  return CMZ_OK;
}

cmz_status cmz_eval_graph(cmz_eval *e, cmz_gid g, const cmz_array *inputs, cmz_array *outputs,
                          const cmz_array *outer) {
  const cmz_module *m = e->module;
  const cmz_graph *graph = cmz_graph_get(m, g);
  cmz_array *values = CMZ_NEW_ARRAY(e->arena, cmz_array, m->values.count);
  if (outer) memcpy(values, outer, m->values.count * sizeof *values);
  const cmz_array *saved = e->values;
  for (uint32_t i = 0; i < graph->inputs.count; i++) {
    CMZ_TRY(check_input(e, graph->inputs.data[i], &inputs[i]));
    values[graph->inputs.data[i]] = inputs[i];
  }
  for (uint32_t i = 0; i < graph->nodes.count; i++)
    if (!cmz_node_get(m, graph->nodes.data[i])->removed)
      CMZ_TRY(run_node(e, graph->nodes.data[i], values));
  for (uint32_t i = 0; i < graph->outputs.count; i++)
    CMZ_TRY(lookup(e, values, graph->outputs.data[i], &outputs[i]));
  e->values = saved;
  return CMZ_OK;
}
