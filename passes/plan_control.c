/* plan_control.c - steps of If, Loop and Scan with their blocks.
 * In: a control node. Out: a step with nested blocks; the node's outputs have buffers.
 * Always holds: memory that outlives an iteration is the heap's or is alive over the whole loop. */
#include "planner.h"

/* The branch's outputs end up in the COUNT buffers TO of the node; it may have more of them than
 * the node gives on. */
static cmz_status plan_branch(cmz_planner *p, cmz_nid n, cmz_gid g, uint32_t block, uint32_t count,
                              const uint32_t *to) {
  CMZ_TRY(cmz_planner_graph(p, g, block));
  const cmz_graph *graph = cmz_graph_get(p->m, g);
  for (uint32_t i = 0; i < graph->outputs.count && i < count; i++)
    if (to[i] != CMZ_NO_BUFFER)
      cmz_planner_copy(p, block, n, cmz_planner_buffer(p, graph->outputs.data[i]), to[i]);
  return CMZ_OK;
}

cmz_status cmz_planner_if(cmz_planner *p, cmz_nid n, uint32_t block) {
  static const char *const names[2] = {"then_branch", "else_branch"};
  const cmz_node *node = cmz_node_get(p->m, n);
  uint32_t count = node->output_count, *to = CMZ_NEW_ARRAY(p->arena, uint32_t, count);
  for (uint32_t i = 0; i < count; i++)
    to[i] = node->outputs[i] == 0 ? CMZ_NO_BUFFER : cmz_planner_buffer(p, node->outputs[i]);
  cmz_step s = {.kind = CMZ_STEP_IF, .node = n, .operand_count = 1, .block_count = 2};
  s.operands = CMZ_NEW_ARRAY(p->arena, uint32_t, 1);
  s.operands[0] = cmz_planner_buffer(p, node->inputs[0]);
  for (int b = 0; b < 2; b++) {
    const cmz_attr *a = cmz_node_attr(cmz_node_get(p->m, n), names[b]);
    if (a == NULL || a->kind != CMZ_ATTR_GRAPH)
      return cmz_node_fail(p->m, n, CMZ_E_INPUT, "attribute %s is missing", names[b]);
    s.blocks[b] = cmz_planner_add_block(p);
    CMZ_TRY(plan_branch(p, n, a->graph, s.blocks[b], count, to));
  }
  cmz_planner_push(p, block, &s);
  return CMZ_OK;
}

/* A buffer for a value carried through iterations, remembered for the body's input. */
static uint32_t carried_buffer(cmz_planner *p, cmz_vid v) {
  uint32_t b = cmz_planner_heap_buffer(p, v);
  p->buffer_of[v] = b;
  return b;
}

static uint32_t *ids(cmz_planner *p, uint32_t count) {
  return CMZ_NEW_ARRAY(p->arena, uint32_t, count + 1);
}

/* The node's output OUTPUT is what lies in FROM after the loop. */
static void deliver(cmz_planner *p, cmz_nid n, uint32_t output, uint32_t from, uint32_t block) {
  cmz_vid v = cmz_node_output(cmz_node_get(p->m, n), output);
  if (v == 0) return;
  cmz_planner_copy(p, block, n, from, cmz_planner_buffer(p, v));
}

cmz_status cmz_planner_loop(cmz_planner *p, cmz_nid n, uint32_t block) {
  cmz_module *m = p->m;
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_attr *a = cmz_node_attr(node, "body");
  if (a == NULL || a->kind != CMZ_ATTR_GRAPH)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute body is missing");
  cmz_gid g = a->graph;
  const cmz_graph *body = cmz_graph_get(m, g);
  uint32_t carried = node->input_count > 2 ? node->input_count - 2 : 0;
  if (body->inputs.count < 2 + carried || body->outputs.count < 1 + carried)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the body's inputs and outputs do not fit the node");
  cmz_plan_loop *l = CMZ_NEW(p->arena, cmz_plan_loop);
  l->trip_count =
      cmz_node_input(node, 0) != 0 ? cmz_planner_buffer(p, node->inputs[0]) : CMZ_NO_BUFFER;
  l->iteration = carried_buffer(p, body->inputs.data[0]);
  l->condition = carried_buffer(p, body->inputs.data[1]);
  uint32_t start =
      cmz_node_input(node, 1) != 0 ? cmz_planner_buffer(p, node->inputs[1]) : CMZ_NO_BUFFER;
  l->carried_count = carried;
  l->initial = ids(p, carried), l->state = ids(p, carried), l->next = ids(p, carried);
  for (uint32_t i = 0; i < carried; i++) {
    l->initial[i] = cmz_planner_buffer(p, node->inputs[2 + i]);
    l->state[i] = carried_buffer(p, body->inputs.data[2 + i]);
  }
  cmz_step s = {.kind = CMZ_STEP_LOOP, .node = n, .block_count = 1, .loop = l};
  s.blocks[0] = cmz_planner_add_block(p);
  CMZ_TRY(cmz_planner_graph(p, g, s.blocks[0]));
  body = cmz_graph_get(m, g);
  node = cmz_node_get(m, n);
  if (start != CMZ_NO_BUFFER) {
    cmz_planner_copy(p, block, n, start, l->condition);
    l->body_condition = cmz_planner_buffer(p, body->outputs.data[0]);
  } else {
    /* Without a start value the body's condition still ends the loop. */
    cmz_vid on = cmz_value_add_scalar(m, node->graph, CMZ_BOOL, 1);
    uint32_t count = m->values.count;
    uint32_t *grown = CMZ_NEW_ARRAY(p->arena, uint32_t, count);
    memcpy(grown, p->buffer_of, (count - 1) * sizeof *grown);
    grown[count - 1] = CMZ_NO_BUFFER;
    p->buffer_of = grown;
    cmz_planner_copy(p, block, n, cmz_planner_buffer(p, on), l->condition);
    l->body_condition = cmz_planner_buffer(p, body->outputs.data[0]);
  }
  for (uint32_t i = 0; i < carried; i++)
    l->next[i] = cmz_planner_buffer(p, body->outputs.data[1 + i]);
  l->scan_out_count = body->outputs.count - 1 - carried;
  l->body_out = ids(p, l->scan_out_count), l->scan_out = ids(p, l->scan_out_count);
  l->scan_out_reverse = CMZ_NEW_ARRAY(p->arena, bool, l->scan_out_count + 1);
  for (uint32_t i = 0; i < l->scan_out_count; i++) {
    cmz_vid o = cmz_node_output(node, carried + i);
    l->body_out[i] = cmz_planner_buffer(p, body->outputs.data[1 + carried + i]);
    l->scan_out[i] = o != 0 ? cmz_planner_buffer(p, o) : CMZ_NO_BUFFER;
  }
  l->final_count = CMZ_DIM_NONE;
  l->scan_length = CMZ_DIM_NONE;
  /* The number of iterations is the first dim of what is collected, when that is a symbol of this
   * node. */
  for (uint32_t i = 0; i < l->scan_out_count; i++) {
    cmz_vid o = cmz_node_output(node, carried + i);
    if (o == 0) continue;
    cmz_dim d = cmz_value_get(m, o)->type.shape[0];
    if (cmz_dim_symbol_of(m->dims, d) != NULL && cmz_dim_is_data_dependent(m->dims, d))
      l->final_count = d;
  }
  cmz_planner_push(p, block, &s);
  for (uint32_t i = 0; i < carried; i++) deliver(p, n, i, l->state[i], block);
  return CMZ_OK;
}

static bool direction(const cmz_node *node, const char *attribute, uint32_t i) {
  uint32_t count;
  const int64_t *d = cmz_node_ints(node, attribute, &count);
  return d != NULL && i < count && d[i] != 0;
}

static bool axis_zero(const cmz_node *node, const char *attribute) {
  uint32_t count;
  const int64_t *d = cmz_node_ints(node, attribute, &count);
  for (uint32_t i = 0; d != NULL && i < count; i++)
    if (d[i] != 0) return false;
  return true;
}

cmz_status cmz_planner_scan(cmz_planner *p, cmz_nid n, uint32_t block) {
  cmz_module *m = p->m;
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_attr *a = cmz_node_attr(node, "body");
  if (a == NULL || a->kind != CMZ_ATTR_GRAPH)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute body is missing");
  if (!axis_zero(node, "scan_input_axes") || !axis_zero(node, "scan_output_axes"))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "Scan along another axis than the first");
  cmz_gid g = a->graph;
  const cmz_graph *body = cmz_graph_get(m, g);
  uint32_t scans = (uint32_t)cmz_node_int(node, "num_scan_inputs", 0);
  if (scans == 0 || scans > node->input_count || body->inputs.count != node->input_count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the body's inputs do not fit the node");
  uint32_t carried = node->input_count - scans;
  cmz_plan_loop *l = CMZ_NEW(p->arena, cmz_plan_loop);
  l->trip_count = l->condition = l->body_condition = l->iteration = CMZ_NO_BUFFER;
  l->carried_count = carried;
  l->initial = ids(p, carried), l->state = ids(p, carried), l->next = ids(p, carried);
  l->scan_in_count = scans;
  l->scan_in = ids(p, scans), l->scan_slice = ids(p, scans);
  l->scan_in_reverse = CMZ_NEW_ARRAY(p->arena, bool, scans + 1);
  for (uint32_t i = 0; i < carried; i++) {
    l->initial[i] = cmz_planner_buffer(p, node->inputs[i]);
    l->state[i] = carried_buffer(p, body->inputs.data[i]);
  }
  for (uint32_t i = 0; i < scans; i++) {
    l->scan_in[i] = cmz_planner_buffer(p, node->inputs[carried + i]);
    l->scan_slice[i] = carried_buffer(p, body->inputs.data[carried + i]);
    l->scan_in_reverse[i] = direction(node, "scan_input_directions", i);
  }
  l->scan_length = cmz_value_get(m, node->inputs[carried])->type.shape[0];
  cmz_step s = {.kind = CMZ_STEP_LOOP, .node = n, .block_count = 1, .loop = l};
  s.blocks[0] = cmz_planner_add_block(p);
  CMZ_TRY(cmz_planner_graph(p, g, s.blocks[0]));
  body = cmz_graph_get(m, g);
  for (uint32_t i = 0; i < carried; i++) l->next[i] = cmz_planner_buffer(p, body->outputs.data[i]);
  l->scan_out_count = body->outputs.count - carried;
  l->body_out = ids(p, l->scan_out_count), l->scan_out = ids(p, l->scan_out_count);
  l->scan_out_reverse = CMZ_NEW_ARRAY(p->arena, bool, l->scan_out_count + 1);
  for (uint32_t i = 0; i < l->scan_out_count; i++) {
    cmz_vid o = cmz_node_output(node, carried + i);
    l->body_out[i] = cmz_planner_buffer(p, body->outputs.data[carried + i]);
    l->scan_out[i] = o != 0 ? cmz_planner_buffer(p, o) : CMZ_NO_BUFFER;
    l->scan_out_reverse[i] = direction(node, "scan_output_directions", i);
  }
  cmz_planner_push(p, block, &s);
  for (uint32_t i = 0; i < carried; i++) deliver(p, n, i, l->state[i], block);
  return CMZ_OK;
}
