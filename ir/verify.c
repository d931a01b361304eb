/* verify.c - checks every invariant of a module that module.h states.
 * In: a module after any pass. Out: CMZ_OK, or an error with a message that names the culprit.
 * Always holds: ids are checked before they are followed, so that a broken module is reported and
 * not crashed on. */
#include "module.h"
#include "op.h"

typedef struct verifier {
  const cmz_module *m;
  cmz_status code; /* of what is wrong */
  cmz_arena *scratch;
  uint32_t *place;   /* by node: position in its graph's list + 1; 0 when it is in none */
  uint32_t *outputs; /* by value: graph outputs counted */
  uint32_t *uses;    /* by value: uses counted */
} verifier;

static cmz_status broken_node(const verifier *v, cmz_nid n, const char *what) {
  return cmz_fail(v->m->ctx, v->code, cmz_node_loc(v->m, n), "inconsistent module: %s (node %u)",
                  what, n);
}

static cmz_status broken_value(const verifier *v, cmz_vid id, const char *what) {
  cmz_loc loc = {.file = v->m->file, .tensor = cmz_value_get(v->m, id)->name};
  return cmz_fail(v->m->ctx, v->code, loc, "inconsistent module: %s (value %u)", what, id);
}

static cmz_status broken_graph(const verifier *v, cmz_gid g, const char *what) {
  cmz_loc loc = {.file = v->m->file, .tensor = cmz_graph_get(v->m, g)->name};
  return cmz_fail(v->m->ctx, v->code, loc, "inconsistent module: %s (graph %u)", what, g);
}

static cmz_status check_graph_links(verifier *v, cmz_gid g) {
  const cmz_module *m = v->m;
  const cmz_graph *graph = cmz_graph_get(m, g);
  if (graph->owner >= m->nodes.count || graph->parent >= m->graphs.count)
    return broken_graph(v, g, "owner or parent does not exist");
  if ((graph->owner == 0) != (graph->parent == 0))
    return broken_graph(v, g, "owner without parent");
  for (uint32_t i = 0; i < graph->nodes.count; i++) {
    cmz_nid n = graph->nodes.data[i];
    if (n == 0 || n >= m->nodes.count)
      return broken_graph(v, g, "lists a node that does not exist");
    if (cmz_node_get(m, n)->removed) continue;
    if (v->place[n]) return broken_node(v, n, "listed twice");
    if (cmz_node_get(m, n)->graph != g) return broken_node(v, n, "listed by another graph");
    v->place[n] = i + 1;
  }
  for (uint32_t i = 0; i < graph->inputs.count; i++) {
    cmz_vid id = graph->inputs.data[i];
    if (id == 0 || id >= m->values.count) return broken_graph(v, g, "an input does not exist");
    const cmz_value *value = cmz_value_get(m, id);
    if (!value->is_input || value->graph != g || value->producer)
      return broken_value(v, id, "is listed as an input but is none");
  }
  if (graph->output_names.count != graph->outputs.count)
    return broken_graph(v, g, "has outputs without names");
  for (uint32_t i = 0; i < graph->outputs.count; i++) {
    cmz_vid id = graph->outputs.data[i];
    if (id >= m->values.count) return broken_graph(v, g, "an output does not exist");
    if (id) v->outputs[id]++;
    if (id && cmz_value_get(m, id)->removed)
      return broken_value(v, id, "is a graph output but was removed");
  }
  return CMZ_OK;
}

/* Whether graph G is OUTER or lies inside of it. FROM gets the node of OUTER that contains G (0
 * when equal). */
static bool inside(const cmz_module *m, cmz_gid g, cmz_gid outer, cmz_nid *from) {
  *from = 0;
  for (uint32_t steps = 0; g && steps <= m->graphs.count; steps++) {
    if (g == outer) return true;
    *from = cmz_graph_get(m, g)->owner;
    g = cmz_graph_get(m, g)->parent;
  }
  return false;
}

/* A graph that is no longer an attribute of a live node is dead with all it holds. */
static bool graph_is_live(const cmz_module *m, cmz_gid g) {
  for (uint32_t steps = 0; g && steps <= m->graphs.count; steps++) {
    const cmz_graph *graph = cmz_graph_get(m, g);
    if (graph->owner && cmz_node_get(m, graph->owner)->removed) return false;
    g = graph->parent;
  }
  return true;
}

static cmz_status check_read(verifier *v, cmz_nid n, cmz_gid g, cmz_vid id) {
  const cmz_module *m = v->m;
  const cmz_value *value = cmz_value_get(m, id);
  cmz_nid reader;
  if (value->removed) return broken_node(v, n, "reads a removed value");
  if (value->producer >= m->nodes.count)
    return broken_value(v, id, "names a producer that does not exist");
  if (!inside(m, g, value->graph, &reader))
    return broken_node(v, n, "reads a value of a graph that does not enclose it");
  if (!value->producer && !value->constant && !value->is_input)
    return broken_node(v, n, "reads a value that nothing produces");
  if (reader == 0) reader = n;
  if (value->producer &&
      (reader == value->producer || v->place[reader] <= v->place[value->producer]))
    return broken_node(v, n, "comes before the producer of an input");
  return CMZ_OK;
}

static cmz_status check_attrs(verifier *v, cmz_nid n) {
  const cmz_module *m = v->m;
  const cmz_node *node = cmz_node_get(m, n);
  for (uint32_t i = 0; i < node->attr_count; i++) {
    const cmz_attr *a = &node->attrs[i];
    if (a->kind == CMZ_ATTR_TENSOR && a->tensor >= m->constants.count)
      return broken_node(v, n, "attribute names a constant that does not exist");
    if (a->kind != CMZ_ATTR_GRAPH) continue;
    if (a->graph == 0 || a->graph >= m->graphs.count)
      return broken_node(v, n, "attribute names a graph that does not exist");
    if (cmz_graph_get(m, a->graph)->owner != n || cmz_graph_get(m, a->graph)->parent != node->graph)
      return broken_node(v, n, "does not own its subgraph");
  }
  return CMZ_OK;
}

static cmz_status check_node(verifier *v, cmz_nid n) {
  const cmz_module *m = v->m;
  const cmz_node *node = cmz_node_get(m, n);
  if (!node->op) return broken_node(v, n, "has no operator");
  if (!node->name) return broken_node(v, n, "has no name");
  if (!v->place[n]) return broken_node(v, n, "is in no graph's list");
  for (uint32_t i = 0; i < node->input_count; i++) {
    cmz_vid id = node->inputs[i];
    if (id >= m->values.count) return broken_node(v, n, "an input does not exist");
    if (!id) continue;
    v->uses[id]++;
    CMZ_TRY(check_read(v, n, node->graph, id));
  }
  for (uint32_t i = 0; i < node->output_count; i++) {
    cmz_vid id = node->outputs[i];
    if (id >= m->values.count) return broken_node(v, n, "an output does not exist");
    if (!id) continue;
    const cmz_value *value = cmz_value_get(m, id);
    if (value->producer != n || value->output != i)
      return broken_value(v, id, "does not know its producer");
    if (value->graph != node->graph)
      return broken_value(v, id, "is in another graph than its producer");
    if (value->removed) return broken_value(v, id, "was removed but its producer was not");
    if (value->constant || value->is_input)
      return broken_value(v, id, "is produced but also a constant or an input");
  }
  return check_attrs(v, n);
}

static cmz_status check_type(verifier *v, cmz_vid id) {
  const cmz_value *value = cmz_value_get(v->m, id);
  const cmz_type *type = &value->type;
  if ((unsigned)type->dtype >= CMZ_DTYPE_COUNT)
    return broken_value(v, id, "has no element type of the table");
  if (type->rank != CMZ_RANK_UNKNOWN) {
    if (type->rank > CMZ_MAX_RANK) return broken_value(v, id, "has too many dimensions");
    for (uint32_t i = 0; i < type->rank; i++)
      if (type->shape[i] == CMZ_DIM_NONE && type->kind == CMZ_KIND_TENSOR)
        return broken_value(v, id, "has a dimension that is not known");
  }
  for (uint32_t i = 0; i < value->layout.count; i++)
    if (value->layout.count > CMZ_LAYOUT_MAX_AXES || value->layout.axes[i].axis >= type->rank ||
        value->layout.axes[i].div == 0)
      return broken_value(v, id, "has a layout that does not fit its rank");
  return CMZ_OK;
}

static cmz_status check_value(verifier *v, cmz_vid id) {
  const cmz_module *m = v->m;
  const cmz_value *value = cmz_value_get(m, id);
  if (!value->name) return broken_value(v, id, "has no name");
  if (value->graph == 0 || value->graph >= m->graphs.count)
    return broken_value(v, id, "is in no graph");
  if (value->constant >= m->constants.count)
    return broken_value(v, id, "names a constant that does not exist");
  if (value->producer >= m->nodes.count)
    return broken_value(v, id, "names a producer that does not exist");
  if (value->producer && cmz_node_get(m, value->producer)->removed)
    return broken_value(v, id, "has a removed producer");
  if (value->producer && cmz_node_output(cmz_node_get(m, value->producer), value->output) != id)
    return broken_value(v, id, "is not an output of its producer");
  if (value->uses.count != v->uses[id]) return broken_value(v, id, "uses are counted wrongly");
  for (uint32_t i = 0; i < value->uses.count; i++) {
    cmz_use use = value->uses.data[i];
    if (use.node >= m->nodes.count || cmz_node_get(m, use.node)->removed ||
        cmz_node_input(cmz_node_get(m, use.node), use.index) != id)
      return broken_value(v, id, "lists a use that is none");
  }
  if (value->output_uses != v->outputs[id])
    return broken_value(v, id, "graph outputs are counted wrongly");
  CMZ_TRY(check_type(v, id));
  if (!value->constant) return CMZ_OK;
  const cmz_constant *c = cmz_constant_get(m, value->constant);
  if (c->dtype != value->type.dtype || c->rank != value->type.rank)
    return broken_value(v, id, "has another type than its constant");
  for (uint32_t i = 0; i < c->rank; i++)
    if (!cmz_dim_is(m->dims, value->type.shape[i], c->shape[i]))
      return broken_value(v, id, "has another shape than its constant");
  return CMZ_OK;
}

static cmz_status check_graph_outputs(verifier *v, cmz_gid g) {
  const cmz_graph *graph = cmz_graph_get(v->m, g);
  cmz_nid from;
  for (uint32_t i = 0; i < graph->outputs.count; i++) {
    cmz_vid id = graph->outputs.data[i];
    if (!id) continue;
    if (!inside(v->m, g, cmz_value_get(v->m, id)->graph, &from))
      return broken_value(v, id, "is an output of a graph that cannot see it");
    cmz_nid producer = cmz_value_get(v->m, id)->producer;
    if (from && producer && v->place[from] <= v->place[producer])
      return broken_value(v, id, "is an output of a graph that runs before it is made");
  }
  return CMZ_OK;
}

static cmz_status check(verifier *v) {
  const cmz_module *m = v->m;
  for (cmz_gid g = 1; g < m->graphs.count; g++)
    if (graph_is_live(m, g)) CMZ_TRY(check_graph_links(v, g));
  for (cmz_nid n = 1; n < m->nodes.count; n++)
    if (!cmz_node_get(m, n)->removed) CMZ_TRY(check_node(v, n));
  for (cmz_vid id = 1; id < m->values.count; id++)
    if (!cmz_value_get(m, id)->removed) CMZ_TRY(check_value(v, id));
  for (cmz_gid g = 1; g < m->graphs.count; g++)
    if (graph_is_live(m, g)) CMZ_TRY(check_graph_outputs(v, g));
  for (uint32_t i = 0; i < m->entries.count; i++)
    if (m->entries.data[i] == 0 || m->entries.data[i] >= m->graphs.count ||
        cmz_graph_get(m, m->entries.data[i])->owner)
      return cmz_fail(m->ctx, v->code, (cmz_loc){.file = m->file},
                      "inconsistent module: entry %u is no graph of its own", i);
  return CMZ_OK;
}

cmz_status cmz_module_verify(const cmz_module *m) { return cmz_module_check(m, CMZ_E_INTERNAL); }

cmz_status cmz_module_check(const cmz_module *m, cmz_status code) {
  verifier v = {.m = m, .code = code, .scratch = cmz_arena_create(m->ctx)};
  v.place = CMZ_NEW_ARRAY(v.scratch, uint32_t, m->nodes.count);
  v.outputs = CMZ_NEW_ARRAY(v.scratch, uint32_t, m->values.count);
  v.uses = CMZ_NEW_ARRAY(v.scratch, uint32_t, m->values.count);
  cmz_status status = check(&v);
  cmz_arena_destroy(v.scratch);
  return status;
}
