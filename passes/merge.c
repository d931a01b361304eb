/* merge.c - equal computations once: nodes of one graph with the same operator, inputs and
 * attributes, and equal constants. In: an inferred module. Out: the same function; later duplicates
 * are removed. */
#include "support.h"

typedef struct table {
  uint64_t *keys; /* 0: free */
  uint32_t *ids;
  uint32_t mask;
} table;

static table table_create(cmz_arena *arena, uint32_t count) {
  uint32_t size = 16;
  while (size < count * 2u) size *= 2;
  return (table){CMZ_NEW_ARRAY(arena, uint64_t, size), CMZ_NEW_ARRAY(arena, uint32_t, size),
                 size - 1};
}

static bool same_constant(const cmz_module *m, cmz_vid a, cmz_vid b) {
  const cmz_constant *x = cmz_value_constant(m, a), *y = cmz_value_constant(m, b);
  if (x->dtype != y->dtype || x->rank != y->rank || x->bytes != y->bytes ||
      x->dtype == CMZ_STRING || !cmz_layout_equal(&x->layout, &y->layout))
    return false;
  for (uint32_t i = 0; i < x->rank; i++)
    if (x->shape[i] != y->shape[i]) return false;
  return x->data == y->data || memcmp(x->data, y->data, x->bytes) == 0;
}

static void merge_constants(cmz_module *m, cmz_arena *arena) {
  table t = table_create(arena, m->values.count);
  for (cmz_vid v = 1; v < m->values.count; v++) {
    const cmz_value *value = cmz_value_get(m, v);
    const cmz_constant *c = cmz_value_constant(m, v);
    if (value->removed || c == NULL || c->dtype == CMZ_STRING || value->uses.count == 0 ||
        value->output_uses > 0)
      continue;
    uint64_t key = cmz_hash64(c->data, c->bytes, (uint64_t)c->dtype * 31 + value->graph) | 1;
    for (uint32_t i = (uint32_t)key & t.mask;; i = (i + 1) & t.mask) {
      if (t.keys[i] == 0) {
        t.keys[i] = key;
        t.ids[i] = v;
        break;
      }
      if (t.keys[i] == key && same_constant(m, t.ids[i], v)) {
        cmz_pass_replace(m, v, t.ids[i]);
        break;
      }
    }
  }
}

static uint64_t hash_attr(const cmz_attr *a, uint64_t h) {
  h = cmz_hash64(a->name, strlen(a->name), h);
  h = cmz_hash64(&a->i, sizeof a->i, h + (uint64_t)a->kind);
  h = cmz_hash64(&a->f, sizeof a->f, h);
  if (a->kind == CMZ_ATTR_STRING && a->s != NULL) h = cmz_hash64(a->s, a->s_size, h);
  if (a->kind == CMZ_ATTR_INTS) h = cmz_hash64(a->ints, a->count * sizeof *a->ints, h);
  if (a->kind == CMZ_ATTR_FLOATS) h = cmz_hash64(a->floats, a->count * sizeof *a->floats, h);
  return h;
}

static bool same_attr(const cmz_attr *a, const cmz_attr *b) {
  if (strcmp(a->name, b->name) != 0 || a->kind != b->kind) return false;
  switch (a->kind) {
  case CMZ_ATTR_INT:
    return a->i == b->i;
  case CMZ_ATTR_FLOAT:
    return memcmp(&a->f, &b->f, sizeof a->f) == 0;
  case CMZ_ATTR_STRING:
    return a->s_size == b->s_size && (a->s_size == 0 || memcmp(a->s, b->s, a->s_size) == 0);
  case CMZ_ATTR_INTS:
    return a->count == b->count && memcmp(a->ints, b->ints, a->count * sizeof *a->ints) == 0;
  case CMZ_ATTR_FLOATS:
    return a->count == b->count && memcmp(a->floats, b->floats, a->count * sizeof *a->floats) == 0;
  case CMZ_ATTR_TENSOR:
    return a->tensor == b->tensor;
  default:
    return false; /* graphs, types, string lists: never merged */
  }
}

static uint64_t hash_node(const cmz_node *n) {
  uint64_t h = cmz_hash64(&n->op, sizeof n->op, 7);
  h = cmz_hash64(n->inputs, n->input_count * sizeof *n->inputs, h);
  for (uint32_t i = 0; i < n->attr_count; i++) h += hash_attr(&n->attrs[i], 11); /* any order */
  return h | 1;
}

/* Types too, and symbolic content: a node without inputs is told apart by nothing else. */
static bool same_output(const cmz_module *m, cmz_vid a, cmz_vid b) {
  if (a == 0 || b == 0) return true;
  const cmz_value *x = cmz_value_get(m, a), *y = cmz_value_get(m, b);
  if (x->type.dtype != y->type.dtype || x->type.rank != y->type.rank) return false;
  if (x->type.rank != CMZ_RANK_UNKNOWN)
    for (uint32_t i = 0; i < x->type.rank; i++)
      if (x->type.shape[i] != y->type.shape[i]) return false;
  return x->element_count == y->element_count &&
         (x->element_count == 0 ||
          memcmp(x->elements, y->elements, x->element_count * sizeof *x->elements) == 0);
}

static bool same_node(const cmz_module *m, const cmz_node *a, const cmz_node *b) {
  if (a->op != b->op || a->input_count != b->input_count || a->attr_count != b->attr_count ||
      a->output_count != b->output_count ||
      memcmp(a->inputs, b->inputs, a->input_count * sizeof *a->inputs) != 0)
    return false;
  for (uint32_t i = 0; i < a->attr_count; i++) {
    const cmz_attr *other = cmz_node_attr(b, a->attrs[i].name);
    if (other == NULL || !same_attr(&a->attrs[i], other)) return false;
  }
  for (uint32_t i = 0; i < a->output_count; i++)
    if (!same_output(m, a->outputs[i], b->outputs[i])) return false;
  return true;
}

/* Uses of B's outputs become uses of A's. */
static void merge_into(cmz_module *m, cmz_nid a, cmz_nid b) {
  uint32_t count = cmz_node_get(m, b)->output_count;
  for (uint32_t i = 0; i < count; i++) {
    cmz_vid x = cmz_node_output(cmz_node_get(m, a), i), y = cmz_node_output(cmz_node_get(m, b), i);
    if (y == 0 || cmz_pass_use_count(m, y) == 0) continue;
    if (x == 0 || !cmz_pass_replace(m, y, x)) return;
  }
  cmz_node_add_source(m, a, b);
  cmz_pass_remove_if_dead(m, b);
}

static void merge_graph(cmz_module *m, cmz_gid g, cmz_arena *arena) {
  uint32_t count = cmz_graph_get(m, g)->nodes.count;
  table t = table_create(arena, count);
  for (uint32_t k = 0; k < count; k++) {
    cmz_nid n = cmz_graph_get(m, g)->nodes.data[k];
    const cmz_node *node = cmz_node_get(m, n);
    if (node->removed || (node->op->flags & (CMZ_OP_RANDOM | CMZ_OP_CONTROL | CMZ_OP_IN_PLACE)))
      continue;
    uint64_t key = hash_node(node);
    for (uint32_t i = (uint32_t)key & t.mask;; i = (i + 1) & t.mask) {
      if (t.keys[i] == 0) {
        t.keys[i] = key;
        t.ids[i] = n;
        break;
      }
      if (t.keys[i] == key && same_node(m, cmz_node_get(m, t.ids[i]), node)) {
        merge_into(m, t.ids[i], n);
        break;
      }
    }
  }
}

cmz_status cmz_pass_merge(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  cmz_arena *arena = cmz_arena_create(m->ctx);
  merge_constants(m, arena);
  for (cmz_gid g = 1; g < m->graphs.count; g++)
    if (cmz_pass_graph_alive(m, g)) merge_graph(m, g, arena);
  cmz_arena_destroy(arena);
  return CMZ_OK;
}
