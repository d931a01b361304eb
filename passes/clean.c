/* clean.c - removes what no graph output needs: nodes, outputs nobody reads, and their subgraphs.
 * A value is also needed when a dim of a needed value stands for its content.
 * In: any module. Out: the same without dead nodes. */
#include "support.h"

typedef struct marker {
  cmz_module *m;
  bool *values; /* by vid */
  bool *nodes;  /* by nid */
  bool *symbols;
  bool *dims; /* by dim id: visited */
  uint32_t dim_capacity;
  CMZ_VEC(cmz_vid) todo;
  cmz_arena *arena;
} marker;

static void mark_value(marker *k, cmz_vid v) {
  if (v == 0 || k->values[v]) return;
  k->values[v] = true;
  cmz_vec_push(k->arena, &k->todo, v);
}

static void mark_dim(marker *k, cmz_dim d) {
  if (d == CMZ_DIM_NONE || d >= k->dim_capacity || k->dims[d]) return;
  k->dims[d] = true;
  const cmz_dim_node *node = cmz_dim_get(k->m->dims, d);
  if (node->kind == CMZ_DIM_SYMBOL) {
    const cmz_symbol *s = cmz_dim_symbol_at(k->m->dims, (uint32_t)node->value);
    if (s->origin == CMZ_SYMBOL_DATA && s->value < k->m->values.count) mark_value(k, s->value);
    return;
  }
  for (uint32_t i = 0; i < node->arg_count; i++) mark_dim(k, node->args[i]);
}

static void mark_graph(marker *k, cmz_gid g) {
  const cmz_graph *graph = cmz_graph_get(k->m, g);
  for (uint32_t i = 0; i < graph->inputs.count; i++) mark_value(k, graph->inputs.data[i]);
  for (uint32_t i = 0; i < graph->outputs.count; i++) mark_value(k, graph->outputs.data[i]);
}

static void mark_node(marker *k, cmz_nid n) {
  if (n == 0 || k->nodes[n]) return;
  k->nodes[n] = true;
  const cmz_node *node = cmz_node_get(k->m, n);
  for (uint32_t i = 0; i < node->input_count; i++) mark_value(k, node->inputs[i]);
  for (uint32_t i = 0; i < node->attr_count; i++)
    if (node->attrs[i].kind == CMZ_ATTR_GRAPH) mark_graph(k, node->attrs[i].graph);
}

static void mark_all(marker *k) {
  for (uint32_t i = 0; i < k->m->entries.count; i++) mark_graph(k, k->m->entries.data[i]);
  uint32_t symbols = cmz_dim_symbol_count(k->m->dims);
  for (uint32_t i = 0; i < symbols; i++) {
    const cmz_symbol *s = cmz_dim_symbol_at(k->m->dims, i);
    if (!s->check || s->value == 0 || s->value >= k->m->values.count) continue;
    const cmz_value *v = cmz_value_get(k->m, s->value);
    if (!v->removed && cmz_pass_graph_alive(k->m, v->graph)) mark_value(k, s->value);
  }
  while (k->todo.count > 0) {
    cmz_vid v = k->todo.data[--k->todo.count];
    const cmz_value *value = cmz_value_get(k->m, v);
    mark_node(k, value->producer);
    if (value->type.rank != CMZ_RANK_UNKNOWN)
      for (uint32_t i = 0; i < value->type.rank; i++) mark_dim(k, value->type.shape[i]);
    for (uint32_t i = 0; value->elements != NULL && i < value->element_count; i++)
      mark_dim(k, value->elements[i]);
  }
}

static void sweep_graph(marker *k, cmz_gid g) {
  for (uint32_t i = cmz_graph_get(k->m, g)->nodes.count; i-- > 0;) {
    cmz_nid n = cmz_graph_get(k->m, g)->nodes.data[i];
    cmz_node *node = cmz_node_get(k->m, n);
    if (node->removed) continue;
    if (!k->nodes[n]) {
      cmz_pass_remove_if_unused(k->m, n);
      continue;
    }
    /* Outputs of control nodes stay in step with their subgraphs' outputs. */
    if (node->op->flags & (CMZ_OP_CONTROL | CMZ_OP_RUNTIME)) continue;
    for (uint32_t o = 0; o < node->output_count; o++) {
      cmz_vid v = node->outputs[o];
      if (v == 0 || k->values[v] || node->output_count == 1) continue;
      cmz_value_get(k->m, v)->removed = true;
      node->outputs[o] = 0;
    }
  }
}

cmz_status cmz_pass_clean(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  cmz_arena *arena = cmz_arena_create(m->ctx);
  marker k = {.m = m, .arena = arena};
  k.values = CMZ_NEW_ARRAY(arena, bool, m->values.count);
  k.nodes = CMZ_NEW_ARRAY(arena, bool, m->nodes.count);
  /* Dim ids are dense: the newest one bounds them all. */
  k.dim_capacity = cmz_dim_const(m->dims, INT64_MAX - 12345) + 1;
  k.dims = CMZ_NEW_ARRAY(arena, bool, k.dim_capacity);
  mark_all(&k);
  for (cmz_gid g = m->graphs.count; g-- > 1;)
    if (cmz_pass_graph_alive(m, g)) sweep_graph(&k, g);
  cmz_arena_destroy(arena);
  return CMZ_OK;
}
