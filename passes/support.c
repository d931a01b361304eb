/* support.c - what several passes share: walking graphs, replacing values, constants, dims. */
#include "support.h"

bool cmz_pass_graph_alive(const cmz_module *m, cmz_gid g) {
  while (g != 0) {
    const cmz_graph *graph = cmz_graph_get(m, g);
    if (graph->owner == 0) return true;
    if (cmz_node_get(m, graph->owner)->removed) return false;
    g = graph->parent;
  }
  return false;
}

bool cmz_pass_graph_within(const cmz_module *m, cmz_gid inner, cmz_gid g) {
  while (inner != 0) {
    if (inner == g) return true;
    inner = cmz_graph_get(m, inner)->parent;
  }
  return false;
}

static bool can_be_output(const cmz_module *m, cmz_vid old_value, cmz_vid new_value) {
  const cmz_value *o = cmz_value_get(m, old_value), *n = cmz_value_get(m, new_value);
  if (o->output_uses == 0) return true;
  /* An output is a value of its own graph that some node makes, and has one name. */
  return n->producer != 0 && n->output_uses == 0 && n->graph == o->graph;
}

bool cmz_pass_replace(cmz_module *m, cmz_vid old_value, cmz_vid new_value) {
  if (old_value == new_value) return true;
  if (!can_be_output(m, old_value, new_value)) return false;
  cmz_value *o = cmz_value_get(m, old_value), *n = cmz_value_get(m, new_value);
  if (o->output_uses > 0) {
    const char *name = o->name;
    o->name = n->name;
    n->name = name;
  }
  cmz_value_replace_uses(m, old_value, new_value);
  uint32_t symbols = cmz_dim_symbol_count(m->dims);
  for (uint32_t i = 0; i < symbols; i++) {
    cmz_symbol *s = cmz_dim_symbol_at(m->dims, i);
    if (s->origin == CMZ_SYMBOL_DATA && s->value == old_value) s->value = new_value;
  }
  o = cmz_value_get(m, old_value);
  n = cmz_value_get(m, new_value);
  if (n->elements == NULL && o->elements != NULL && n->constant == 0) {
    n->elements = o->elements;
    n->element_count = o->element_count;
  }
  return true;
}

uint32_t cmz_pass_use_count(const cmz_module *m, cmz_vid v) {
  const cmz_value *value = cmz_value_get(m, v);
  return value->uses.count + value->output_uses;
}

bool cmz_pass_is_op(const cmz_node *n, const char *op) {
  return n->op->domain[0] == '\0' && strcmp(n->op->name, op) == 0;
}

cmz_nid cmz_pass_producer(const cmz_module *m, cmz_vid v, const char *op) {
  if (v == 0) return 0;
  cmz_nid n = cmz_value_get(m, v)->producer;
  if (n == 0) return 0;
  const cmz_node *node = cmz_node_get(m, n);
  return !node->removed && cmz_pass_is_op(node, op) ? n : 0;
}

void cmz_pass_substitute(cmz_module *m, const cmz_dim *replacement) {
  for (cmz_vid v = 1; v < m->values.count; v++) {
    cmz_value *value = cmz_value_get(m, v);
    if (value->removed) continue;
    if (value->type.rank != CMZ_RANK_UNKNOWN && value->type.rank > 0) {
      cmz_dim *shape = CMZ_NEW_ARRAY(m->arena, cmz_dim, value->type.rank);
      for (uint32_t i = 0; i < value->type.rank; i++) {
        cmz_dim d = value->type.shape[i];
        shape[i] = d == CMZ_DIM_NONE ? d : cmz_dim_substitute(m->dims, d, replacement);
      }
      value->type.shape = shape;
    }
    if (value->elements != NULL && value->element_count > 0) {
      cmz_dim *elements = CMZ_NEW_ARRAY(m->arena, cmz_dim, value->element_count);
      for (uint32_t i = 0; i < value->element_count; i++)
        elements[i] = cmz_dim_substitute(m->dims, value->elements[i], replacement);
      value->elements = elements;
    }
  }
}

bool cmz_pass_constant_array(const cmz_module *m, cmz_vid v, cmz_array *out) {
  const cmz_constant *c = cmz_value_constant(m, v);
  if (c == NULL || c->rank > CMZ_MAX_RANK || c->layout.count != 0) return false;
  memset(out, 0, sizeof *out);
  out->dtype = c->dtype;
  out->rank = c->rank;
  for (uint32_t i = 0; i < c->rank; i++) out->shape[i] = c->shape[i];
  static uint64_t empty[2]; /* what an empty tensor's data points to: NULL means absent */
  out->data = c->data != NULL ? (void *)(uintptr_t)c->data : (void *)empty;
  return true;
}

cmz_vid cmz_pass_add_array(cmz_module *m, cmz_gid g, const char *name, const cmz_array *a) {
  size_t bytes = 0;
  if (a->dtype == CMZ_STRING) bytes = cmz_array_count(a) * sizeof(char *);
  else cmz_dtype_bytes(a->dtype, cmz_array_count(a), &bytes);
  return cmz_value_add_constant(m, g, name, a->dtype, a->rank, a->shape, a->data, bytes);
}

bool cmz_pass_to_constant(cmz_module *m, cmz_nid n, uint32_t output, const cmz_array *a) {
  cmz_vid old_value = cmz_node_output(cmz_node_get(m, n), output);
  if (old_value == 0 || cmz_value_get(m, old_value)->output_uses > 0) return false;
  cmz_vid v = cmz_pass_add_array(m, cmz_node_get(m, n)->graph, NULL, a);
  return cmz_pass_replace(m, old_value, v);
}

void cmz_pass_drop_graph(cmz_module *m, cmz_gid g) {
  cmz_graph *graph = cmz_graph_get(m, g);
  for (uint32_t i = 0; i < graph->outputs.count; i++) {
    cmz_value *v = cmz_value_get(m, graph->outputs.data[i]);
    if (graph->outputs.data[i] != 0 && v->output_uses > 0) v->output_uses--;
  }
  graph->outputs.count = graph->output_names.count = 0;
  for (uint32_t i = graph->nodes.count; i-- > 0;) {
    cmz_nid n = cmz_graph_get(m, g)->nodes.data[i];
    if (!cmz_node_get(m, n)->removed) cmz_pass_remove_if_unused(m, n);
  }
}

/* Whether a symbol stands for V's content: some size may depend on it though nothing reads it. */
static bool is_bound(const cmz_module *m, cmz_vid v) {
  uint32_t count = cmz_dim_symbol_count(m->dims);
  for (uint32_t i = 0; i < count; i++) {
    const cmz_symbol *s = cmz_dim_symbol_at(m->dims, i);
    if (s->origin == CMZ_SYMBOL_DATA && s->value == v) return true;
  }
  return false;
}

static bool is_used(const cmz_module *m, const cmz_node *n) {
  for (uint32_t i = 0; i < n->output_count; i++)
    if (n->outputs[i] != 0 && cmz_pass_use_count(m, n->outputs[i]) > 0) return true;
  return false;
}

bool cmz_pass_remove_if_dead(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  for (uint32_t i = 0; i < node->output_count; i++)
    if (node->outputs[i] != 0 && is_bound(m, node->outputs[i])) return false;
  return cmz_pass_remove_if_unused(m, n);
}

bool cmz_pass_remove_if_unused(cmz_module *m, cmz_nid n) {
  cmz_node *node = cmz_node_get(m, n);
  if (is_used(m, node)) return false;
  for (uint32_t i = 0; i < node->attr_count; i++)
    if (node->attrs[i].kind == CMZ_ATTR_GRAPH) cmz_pass_drop_graph(m, node->attrs[i].graph);
  cmz_node_remove(m, n);
  return true;
}

int64_t cmz_pass_hint(const cmz_module *m, cmz_dim d) {
  int64_t value;
  return d != CMZ_DIM_NONE && cmz_dim_hint(m->dims, d, &value) && value > 0 ? value : 1;
}

uint64_t cmz_pass_hint_elements(const cmz_module *m, cmz_vid v) {
  const cmz_value *value = cmz_value_get(m, v);
  uint64_t n = 1;
  if (value->type.rank == CMZ_RANK_UNKNOWN) return 1;
  for (uint32_t i = 0; i < value->type.rank; i++) {
    uint64_t d = (uint64_t)cmz_pass_hint(m, value->type.shape[i]);
    if (__builtin_mul_overflow(n, d, &n)) return UINT64_MAX;
  }
  return n;
}

bool cmz_pass_same_shape(const cmz_module *m, cmz_vid a, cmz_vid b) {
  const cmz_type *x = &cmz_value_get(m, a)->type, *y = &cmz_value_get(m, b)->type;
  if (x->rank != y->rank || x->rank == CMZ_RANK_UNKNOWN) return false;
  for (uint32_t i = 0; i < x->rank; i++)
    if (x->shape[i] != y->shape[i]) return false;
  return true;
}

bool cmz_pass_static_shape(const cmz_module *m, cmz_vid v) {
  int64_t shape[CMZ_MAX_RANK];
  return cmz_value_static_shape(m, v, shape);
}

bool cmz_pass_shares_constant(const cmz_module *m, cmz_vid v) {
  cmz_cid c = cmz_value_get(m, v)->constant;
  for (cmz_vid o = 1; o < m->values.count; o++)
    if (o != v && cmz_value_get(m, o)->constant == c && !cmz_value_get(m, o)->removed) return true;
  return false;
}
