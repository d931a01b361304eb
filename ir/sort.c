/* sort.c - topological order of a graph's nodes.
 * In: a graph whose list may be out of order. Out: the list sorted, removed nodes dropped.
 * Always holds: nodes that are in order already stay as they are; a node comes after the producers
 * of what its subgraphs read; no recursion. */
#include "module.h"
#include "op.h"

typedef struct edge {
  cmz_nid node, needs;
} edge;

typedef struct sorter {
  cmz_module *m;
  cmz_gid graph;
  cmz_arena *scratch;
  CMZ_VEC(edge) captures;  /* what nodes need through their subgraphs, sorted by node */
  uint32_t *first_capture; /* by node id; captures.count when none */
  uint8_t *state;          /* by node id: 0 new, 1 being visited, 2 placed */
  CMZ_VEC(cmz_nid) order;
} sorter;

typedef struct frame {
  cmz_nid node;
  uint32_t next;
} frame;

/* The node of graph G that owns graph INNER, directly or through further graphs; 0 when INNER is
 * not inside G. */
static cmz_nid owner_within(const cmz_module *m, cmz_gid inner, cmz_gid g) {
  for (uint32_t steps = 0; inner && steps <= m->graphs.count; steps++) {
    const cmz_graph *graph = cmz_graph_get(m, inner);
    if (graph->parent == g) return graph->owner;
    inner = graph->parent;
  }
  return 0;
}

static void add_capture(sorter *s, cmz_nid owner, cmz_vid v) {
  if (!v || cmz_value_get(s->m, v)->graph != s->graph) return;
  cmz_nid producer = cmz_value_get(s->m, v)->producer;
  if (producer) /* the owner itself is a cycle, and found as one */
    cmz_vec_push(s->scratch, &s->captures, ((edge){owner, producer}));
}

static void collect_captures(sorter *s) {
  const cmz_module *m = s->m;
  for (cmz_gid g = 1; g < m->graphs.count; g++) {
    cmz_nid owner = g == s->graph ? 0 : owner_within(m, g, s->graph);
    if (!owner) continue;
    for (cmz_graph_each(m, g, n)) {
      const cmz_node *node = cmz_node_get(m, n);
      for (uint32_t i = 0; i < node->input_count; i++) add_capture(s, owner, node->inputs[i]);
    }
    for (uint32_t i = 0; i < cmz_graph_get(m, g)->outputs.count; i++)
      add_capture(s, owner, cmz_graph_get(m, g)->outputs.data[i]);
  }
  /* Grouped by node: counting sort over node ids. */
  uint32_t *start = CMZ_NEW_ARRAY(s->scratch, uint32_t, (size_t)m->nodes.count + 1);
  edge *sorted = CMZ_NEW_ARRAY(s->scratch, edge, s->captures.count);
  for (uint32_t i = 0; i < s->captures.count; i++) start[s->captures.data[i].node + 1]++;
  for (uint32_t n = 0; n < m->nodes.count; n++) start[n + 1] += start[n];
  s->first_capture =
      cmz_arena_copy(s->scratch, start, ((size_t)m->nodes.count + 1) * sizeof *start);
  for (uint32_t i = 0; i < s->captures.count; i++)
    sorted[start[s->captures.data[i].node]++] = s->captures.data[i];
  s->captures.data = sorted;
}

/* The INDEXth node that N needs within the graph, 0 when that input has no producer here; false
 * past the end. */
static bool needed(const sorter *s, cmz_nid n, uint32_t index, cmz_nid *producer) {
  const cmz_node *node = cmz_node_get(s->m, n);
  *producer = 0;
  if (index < node->input_count) {
    cmz_vid v = node->inputs[index];
    if (v && cmz_value_get(s->m, v)->graph == s->graph)
      *producer = cmz_value_get(s->m, v)->producer;
    return true;
  }
  uint32_t capture = s->first_capture[n] + (index - node->input_count);
  if (capture >= s->first_capture[n + 1]) return false;
  *producer = s->captures.data[capture].needs;
  return true;
}

static cmz_status visit(sorter *s, cmz_nid root) {
  CMZ_VEC(frame) stack = {0};
  cmz_vec_push(s->scratch, &stack, ((frame){root, 0}));
  s->state[root] = 1;
  while (stack.count > 0) {
    frame *top = &stack.data[stack.count - 1];
    cmz_nid n = top->node, producer;
    if (!needed(s, n, top->next++, &producer)) {
      s->state[n] = 2;
      cmz_vec_push(s->scratch, &s->order, n);
      stack.count--;
      continue;
    }
    if (!producer || s->state[producer] == 2 || cmz_node_get(s->m, producer)->removed ||
        cmz_node_get(s->m, producer)->graph != s->graph)
      continue;
    if (s->state[producer] == 1)
      return cmz_fail(s->m->ctx, CMZ_E_INPUT, cmz_node_loc(s->m, producer),
                      "the graph has a cycle through this node");
    s->state[producer] = 1;
    cmz_vec_push(s->scratch, &stack, ((frame){producer, 0}));
  }
  return CMZ_OK;
}

static cmz_status sort_nodes(sorter *s) {
  s->state = CMZ_NEW_ARRAY(s->scratch, uint8_t, s->m->nodes.count);
  collect_captures(s);
  for (cmz_graph_each(s->m, s->graph, n))
    if (s->state[n] == 0) CMZ_TRY(visit(s, n));
  cmz_graph *graph = cmz_graph_get(s->m, s->graph);
  graph->nodes.count = 0;
  for (uint32_t i = 0; i < s->order.count; i++) {
    cmz_node_get(s->m, s->order.data[i])->position = i;
    graph->nodes.data[graph->nodes.count++] = s->order.data[i]; /* never more than there were */
  }
  return CMZ_OK;
}

cmz_status cmz_graph_sort(cmz_module *m, cmz_gid g) {
  sorter s = {.m = m, .graph = g, .scratch = cmz_arena_create(m->ctx)};
  cmz_status status = sort_nodes(&s);
  cmz_arena_destroy(s.scratch);
  return status;
}
