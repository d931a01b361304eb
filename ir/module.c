/* module.c - building and changing a module: values, nodes, attributes, uses, order.
 * In: what importers and passes say. Out: a module whose invariants (module.h) hold after every
 * call. Always holds: no recursion over the graph, so that deep models cannot exhaust the stack. */
#include "module.h"
#include "op.h"

#define ELEMENTS_LIMIT 1024u /* a constant above this is not taken apart into dims */
#define DEMAND_LIMIT 64u

cmz_module *cmz_module_create(cmz_context *ctx, const char *file) {
  cmz_arena *arena = cmz_arena_create(ctx);
  cmz_module *m = CMZ_NEW(arena, cmz_module);
  m->ctx = ctx;
  m->arena = arena;
  m->dims = cmz_dims_create(arena);
  m->file = cmz_arena_string(arena, file);
  m->name = "";
  cmz_vec_push(arena, &m->values, ((cmz_value){.name = "", .removed = true}));
  cmz_vec_push(arena, &m->nodes, ((cmz_node){.name = "", .removed = true}));
  cmz_vec_push(arena, &m->graphs, ((cmz_graph){.name = ""}));
  cmz_vec_push(arena, &m->constants, ((cmz_constant){.name = ""}));
  return m;
}

cmz_gid cmz_module_add_graph(cmz_module *m, const char *name, cmz_nid owner, cmz_gid parent) {
  cmz_graph g = {.name = cmz_arena_string(m->arena, name), .owner = owner, .parent = parent};
  cmz_vec_push(m->arena, &m->graphs, g);
  return m->graphs.count - 1;
}

void cmz_graph_add_output(cmz_module *m, cmz_gid g, cmz_vid v) {
  const char *name = v ? m->values.data[v].name : "";
  cmz_vec_push(m->arena, &m->graphs.data[g].outputs, v);
  cmz_vec_push(m->arena, &m->graphs.data[g].output_names, name);
  if (v) m->values.data[v].output_uses++;
}

/* ---- values ---- */

cmz_vid cmz_value_add(cmz_module *m, cmz_gid g, const char *name) {
  cmz_vid v = m->values.count;
  cmz_value value = {.graph = g, .type = {.rank = CMZ_RANK_UNKNOWN}};
  value.name = name ? cmz_arena_string(m->arena, name) : cmz_arena_printf(m->arena, "cmz.%u", v);
  cmz_vec_push(m->arena, &m->values, value);
  return v;
}

cmz_vid cmz_value_add_input(cmz_module *m, cmz_gid g, const char *name) {
  cmz_vid v = cmz_value_add(m, g, name);
  m->values.data[v].is_input = true;
  cmz_vec_push(m->arena, &m->graphs.data[g].inputs, v);
  return v;
}

cmz_vid cmz_value_add_constant(cmz_module *m, cmz_gid g, const char *name, cmz_dtype dtype,
                               uint32_t rank, const int64_t *shape, const void *data,
                               size_t bytes) {
  cmz_vid v = cmz_value_add(m, g, name);
  cmz_constant c = {
      .name = m->values.data[v].name, .dtype = dtype, .rank = rank, .data = data, .bytes = bytes};
  c.shape = cmz_arena_copy(m->arena, shape, rank * sizeof *shape);
  cmz_dim *dims = CMZ_NEW_ARRAY(m->arena, cmz_dim, rank);
  for (uint32_t i = 0; i < rank; i++) dims[i] = cmz_dim_const(m->dims, shape[i]);
  cmz_value *value = cmz_value_get(m, v);
  value->constant = m->constants.count;
  value->type = (cmz_type){.kind = CMZ_KIND_TENSOR, .dtype = dtype, .rank = rank, .shape = dims};
  cmz_vec_push(m->arena, &m->constants, c);
  return v;
}

cmz_vid cmz_value_add_i64s(cmz_module *m, cmz_gid g, const int64_t *values, uint32_t count) {
  size_t bytes = count * sizeof *values;
  int64_t shape = count;
  return cmz_value_add_constant(m, g, NULL, CMZ_I64, 1, &shape,
                                cmz_arena_copy(m->arena, values, bytes), bytes);
}

cmz_vid cmz_value_add_scalar(cmz_module *m, cmz_gid g, cmz_dtype dtype, double value) {
  size_t bytes = 0;
  cmz_dtype_bytes(dtype, 1, &bytes);
  void *data = cmz_arena_alloc(m->arena, bytes);
  cmz_dtype_set_f64(dtype, data, 0, value);
  return cmz_value_add_constant(m, g, NULL, dtype, 0, NULL, data, bytes);
}

void cmz_value_set_type(cmz_module *m, cmz_vid v, cmz_dtype dtype, uint32_t rank,
                        const cmz_dim *shape) {
  cmz_type type = {.kind = CMZ_KIND_TENSOR, .dtype = dtype, .rank = rank, .shape = shape};
  cmz_value_set_full_type(m, v, &type);
}

void cmz_value_set_full_type(cmz_module *m, cmz_vid v, const cmz_type *type) {
  cmz_type copy = *type;
  copy.shape = NULL;
  if (type->rank != CMZ_RANK_UNKNOWN)
    copy.shape = cmz_arena_copy(m->arena, type->shape, type->rank * sizeof *type->shape);
  cmz_value_get(m, v)->type = copy;
}

void cmz_value_set_elements(cmz_module *m, cmz_vid v, const cmz_dim *elements, uint32_t count) {
  cmz_value *value = cmz_value_get(m, v);
  value->elements = cmz_arena_copy(m->arena, elements, count * sizeof *elements);
  value->element_count = count;
}

const cmz_constant *cmz_value_constant(const cmz_module *m, cmz_vid v) {
  cmz_cid c = v ? cmz_value_get(m, v)->constant : 0;
  return c ? cmz_constant_get(m, c) : NULL;
}

static bool holds_integers(const cmz_type *type) {
  return type->kind == CMZ_KIND_TENSOR &&
         (cmz_dtype_is_int(type->dtype) || type->dtype == CMZ_BOOL);
}

/* The number of elements of a static shape, when at most LIMIT. */
static bool small_count(const cmz_module *m, cmz_vid v, uint32_t limit, uint32_t *count) {
  const cmz_type *type = &cmz_value_get(m, v)->type;
  int64_t product = 1;
  if (type->rank == CMZ_RANK_UNKNOWN) return false;
  for (uint32_t i = 0; i < type->rank; i++) {
    int64_t extent;
    if (!cmz_dim_is_const(m->dims, type->shape[i], &extent) || extent < 0) return false;
    if (extent > limit) extent = (int64_t)limit + 1; /* a zero may still follow */
    if (product > limit) product = (int64_t)limit + 1;
    product *= extent;
  }
  *count = (uint32_t)product;
  return product <= limit;
}

const cmz_dim *cmz_value_elements(cmz_module *m, cmz_vid v, uint32_t *count) {
  *count = 0;
  if (!v) return NULL;
  cmz_value *value = cmz_value_get(m, v);
  uint32_t size; /* elements of a type that the value no longer has say nothing */
  if (value->elements && (!small_count(m, v, 1u << 30, &size) || size == value->element_count)) {
    *count = value->element_count;
    return value->elements;
  }
  if (!value->constant || !holds_integers(&value->type)) return NULL;
  const cmz_constant *c = cmz_constant_get(m, value->constant);
  uint32_t n;
  size_t bytes;
  if (c->layout.count || !small_count(m, v, ELEMENTS_LIMIT, &n)) return NULL;
  if (!cmz_dtype_bytes(c->dtype, n, &bytes) || bytes > c->bytes) return NULL;
  cmz_dim *elements = CMZ_NEW_ARRAY(m->arena, cmz_dim, n);
  for (uint32_t i = 0; i < n; i++)
    elements[i] = cmz_dim_const(m->dims, cmz_dtype_get_i64(c->dtype, c->data, i));
  value->elements = elements;
  value->element_count = n;
  *count = n;
  return elements;
}

/* The range of an integer type as far as int64 holds it. */
static void dtype_range(cmz_dtype dtype, int64_t *low, int64_t *high) {
  const cmz_dtype_row *row = cmz_dtype_info(dtype);
  bool is_signed = row->class_ == CMZ_CLASS_SIGNED;
  uint32_t bits = dtype == CMZ_BOOL ? 1 : row->bits;
  if (bits >= 64) { /* u64 is read as its bits */
    *low = INT64_MIN;
    *high = INT64_MAX;
    return;
  }
  *low = is_signed ? -((int64_t)1 << (bits - 1)) : 0;
  *high = is_signed ? -*low - 1 : ((int64_t)1 << bits) - 1;
}

const cmz_dim *cmz_value_demand_elements(cmz_module *m, cmz_vid v, uint32_t *count) {
  const cmz_dim *known = cmz_value_elements(m, v, count);
  uint32_t n;
  if (known || !v || !holds_integers(&cmz_value_get(m, v)->type)) return known;
  if (!small_count(m, v, DEMAND_LIMIT, &n)) return NULL;
  cmz_dim *elements = CMZ_NEW_ARRAY(m->arena, cmz_dim, n);
  cmz_symbol symbol = {.origin = CMZ_SYMBOL_DATA, .value = v, .hint = 1};
  dtype_range(cmz_value_get(m, v)->type.dtype, &symbol.low, &symbol.high);
  for (uint32_t i = 0; i < n; i++) {
    symbol.element = i;
    symbol.name = cmz_arena_printf(m->arena, "%s[%u]", cmz_value_get(m, v)->name, i);
    elements[i] = cmz_dim_symbol(m->dims, &symbol);
  }
  cmz_value *value = cmz_value_get(m, v);
  value->elements = elements;
  value->element_count = n;
  *count = n;
  return elements;
}

cmz_dim cmz_value_element_product(cmz_module *m, cmz_vid v) {
  const cmz_type *type = &cmz_value_get(m, v)->type;
  if (type->rank == CMZ_RANK_UNKNOWN) return CMZ_DIM_OVERFLOW;
  return cmz_dim_product(m->dims, type->shape, type->rank);
}

bool cmz_value_static_shape(const cmz_module *m, cmz_vid v, int64_t *shape) {
  const cmz_type *type = &cmz_value_get(m, v)->type;
  if (type->rank == CMZ_RANK_UNKNOWN) return false;
  for (uint32_t i = 0; i < type->rank; i++)
    if (!cmz_dim_is_const(m->dims, type->shape[i], &shape[i])) return false;
  return true;
}

/* ---- uses ---- */

static void add_use(cmz_module *m, cmz_vid v, cmz_nid n, uint32_t index) {
  if (v) cmz_vec_push(m->arena, &m->values.data[v].uses, ((cmz_use){n, index}));
}

static void remove_use(cmz_module *m, cmz_vid v, cmz_nid n, uint32_t index) {
  if (!v) return;
  cmz_value *value = cmz_value_get(m, v);
  for (uint32_t i = 0; i < value->uses.count; i++) {
    if (value->uses.data[i].node != n || value->uses.data[i].index != index) continue;
    value->uses.data[i] = value->uses.data[--value->uses.count];
    return;
  }
}

/* What is known of the content of OLD holds for NEW: symbols that stand for OLD's elements now read
 * NEW. */
static void rebind_elements(cmz_module *m, cmz_vid old_value, cmz_vid new_value) {
  cmz_value *from = cmz_value_get(m, old_value), *to = cmz_value_get(m, new_value);
  if (!from->elements) return;
  for (uint32_t i = 0; i < from->element_count; i++) {
    const cmz_symbol *s = cmz_dim_symbol_of(m->dims, from->elements[i]);
    if (s && s->origin == CMZ_SYMBOL_DATA && s->value == old_value && s->element >= 0)
      cmz_dim_symbol_at(m->dims, (uint32_t)cmz_dim_get(m->dims, from->elements[i])->value)->value =
          new_value;
  }
  if (!to->elements) {
    to->elements = from->elements;
    to->element_count = from->element_count;
  }
}

void cmz_value_replace_uses(cmz_module *m, cmz_vid old_value, cmz_vid new_value) {
  if (old_value == new_value) return;
  cmz_value *from = cmz_value_get(m, old_value);
  for (uint32_t i = 0; i < from->uses.count; i++) {
    cmz_use use = from->uses.data[i];
    m->nodes.data[use.node].inputs[use.index] = new_value;
    add_use(m, new_value, use.node, use.index);
  }
  from->uses.count = 0;
  for (cmz_gid g = 1; g < m->graphs.count && from->output_uses; g++) {
    cmz_graph *graph = cmz_graph_get(m, g);
    for (uint32_t i = 0; i < graph->outputs.count; i++) {
      if (graph->outputs.data[i] != old_value) continue;
      graph->outputs.data[i] = new_value;
      cmz_value_get(m, new_value)->output_uses++;
      from->output_uses--;
    }
  }
  if (new_value) rebind_elements(m, old_value, new_value);
}

/* ---- nodes ---- */

static const char *made_up_node_name(cmz_module *m, const struct cmz_op *op, uint32_t count,
                                     const cmz_vid *outputs) {
  for (uint32_t i = 0; i < count; i++)
    if (outputs[i]) return cmz_value_get(m, outputs[i])->name;
  return op ? op->name : "";
}

static cmz_nid make_node(cmz_module *m, cmz_gid g, const struct cmz_op *op, const char *name,
                         uint32_t input_count, const cmz_vid *inputs, uint32_t output_count,
                         const cmz_vid *outputs) {
  cmz_nid n = m->nodes.count;
  cmz_node node = {.op = op, .graph = g, .input_count = input_count, .output_count = output_count};
  node.name = name && name[0] ? cmz_arena_string(m->arena, name)
                              : made_up_node_name(m, op, output_count, outputs);
  node.inputs = cmz_arena_copy(m->arena, inputs, input_count * sizeof *inputs);
  node.outputs = cmz_arena_copy(m->arena, outputs, output_count * sizeof *outputs);
  cmz_vec_push(m->arena, &m->nodes, node);
  for (uint32_t i = 0; i < input_count; i++) add_use(m, inputs[i], n, i);
  for (uint32_t i = 0; i < output_count; i++) {
    if (!outputs[i]) continue;
    cmz_value_get(m, outputs[i])->producer = n;
    cmz_value_get(m, outputs[i])->output = i;
  }
  return n;
}

cmz_nid cmz_node_add(cmz_module *m, cmz_gid g, const struct cmz_op *op, const char *name,
                     uint32_t input_count, const cmz_vid *inputs, uint32_t output_count,
                     const cmz_vid *outputs) {
  cmz_nid n = make_node(m, g, op, name, input_count, inputs, output_count, outputs);
  cmz_graph *graph = cmz_graph_get(m, g);
  cmz_node_get(m, n)->position = graph->nodes.count;
  cmz_vec_push(m->arena, &graph->nodes, n);
  return n;
}

/* Index of N in its graph's list: at its remembered position or, after insertions, past it. */
static uint32_t find_position(const cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_graph *graph = cmz_graph_get(m, node->graph);
  uint32_t count = graph->nodes.count, start = CMZ_MIN(node->position, count);
  for (uint32_t i = start; i < count; i++)
    if (graph->nodes.data[i] == n) return i;
  for (uint32_t i = start; i > 0; i--)
    if (graph->nodes.data[i - 1] == n) return i - 1;
  return count;
}

cmz_nid cmz_node_insert(cmz_module *m, cmz_nid before, const struct cmz_op *op, const char *name,
                        uint32_t input_count, const cmz_vid *inputs, uint32_t output_count,
                        const cmz_vid *outputs) {
  cmz_gid g = cmz_node_get(m, before)->graph;
  cmz_nid n = make_node(m, g, op, name, input_count, inputs, output_count, outputs);
  uint32_t at = find_position(m, before);
  cmz_graph *graph = cmz_graph_get(m, g);
  cmz_vec_push(m->arena, &graph->nodes, n);
  memmove(&graph->nodes.data[at + 1], &graph->nodes.data[at],
          (graph->nodes.count - 1 - at) * sizeof(cmz_nid));
  graph->nodes.data[at] = n;
  cmz_node_get(m, n)->position = at;
  if (at + 1 < graph->nodes.count) cmz_node_get(m, before)->position = at + 1;
  return n;
}

void cmz_node_set_input(cmz_module *m, cmz_nid n, uint32_t index, cmz_vid v) {
  cmz_node *node = cmz_node_get(m, n);
  if (index >= node->input_count) {
    cmz_vid *inputs = CMZ_NEW_ARRAY(m->arena, cmz_vid, index + 1);
    if (node->input_count) memcpy(inputs, node->inputs, node->input_count * sizeof *inputs);
    node->inputs = inputs;
    node->input_count = index + 1;
  }
  if (node->inputs[index] == v) return;
  remove_use(m, node->inputs[index], n, index);
  node->inputs[index] = v;
  add_use(m, v, n, index);
}

/* Marks one node and its outputs; gives up its inputs. */
static void detach(cmz_module *m, cmz_nid n) {
  cmz_node *node = cmz_node_get(m, n);
  for (uint32_t i = 0; i < node->input_count; i++) remove_use(m, node->inputs[i], n, i);
  for (uint32_t i = 0; i < node->output_count; i++)
    if (node->outputs[i] && cmz_value_get(m, node->outputs[i])->producer == n)
      cmz_value_get(m, node->outputs[i])->removed = true;
  node->removed = true;
}

/* A graph whose owner is gone: its nodes go, and what it reads from outside is no longer used. */
static void empty_graph(cmz_module *m, cmz_gid g) {
  cmz_graph *graph = cmz_graph_get(m, g);
  for (uint32_t i = 0; i < graph->outputs.count; i++)
    if (graph->outputs.data[i]) cmz_value_get(m, graph->outputs.data[i])->output_uses--;
  graph->outputs.count = graph->output_names.count = 0;
  for (uint32_t i = 0; i < graph->nodes.count; i++)
    if (!cmz_node_get(m, graph->nodes.data[i])->removed) detach(m, graph->nodes.data[i]);
  for (uint32_t i = 0; i < graph->inputs.count; i++)
    cmz_value_get(m, graph->inputs.data[i])->removed = true;
}

void cmz_node_remove(cmz_module *m, cmz_nid n) {
  if (cmz_node_get(m, n)->removed) return;
  detach(m, n);
  CMZ_VEC(cmz_gid) pending = {0};
  for (cmz_nid removed = n;;) {
    const cmz_node *node = cmz_node_get(m, removed);
    for (uint32_t i = 0; i < node->attr_count; i++) {
      cmz_gid g = node->attrs[i].kind == CMZ_ATTR_GRAPH ? node->attrs[i].graph : 0;
      if (g && cmz_graph_get(m, g)->owner == removed) cmz_vec_push(m->arena, &pending, g);
    }
    if (pending.count == 0) return;
    /* Take one graph; its nodes that own graphs are found by their owners' links below. */
    cmz_gid g = pending.data[--pending.count];
    empty_graph(m, g);
    for (cmz_gid inner = 1; inner < m->graphs.count; inner++)
      if (cmz_graph_get(m, inner)->parent == g) cmz_vec_push(m->arena, &pending, inner);
    removed = 0;
  }
}

void cmz_node_add_source(cmz_module *m, cmz_nid n, cmz_nid from) {
  if (n == from) return;
  const cmz_node *other = cmz_node_get(m, from);
  cmz_node *node = cmz_node_get(m, n);
  const char **sources =
      CMZ_NEW_ARRAY(m->arena, const char *, node->source_count + other->source_count + 1);
  uint32_t count = node->source_count;
  if (count) memcpy(sources, node->sources, count * sizeof *sources);
  for (uint32_t i = 0; i <= other->source_count; i++) {
    const char *name = i == 0 ? other->name : other->sources[i - 1];
    bool known = strcmp(name, node->name) == 0;
    for (uint32_t j = 0; j < count && !known; j++) known = strcmp(sources[j], name) == 0;
    if (!known) sources[count++] = name;
  }
  node->sources = sources;
  node->source_count = count;
}

cmz_loc cmz_node_loc(const cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  return (cmz_loc){.file = m->file, .node = node->name, .op = node->op ? node->op->name : NULL};
}

/* ---- attributes ---- */

const cmz_attr *cmz_node_attr(const cmz_node *n, const char *name) {
  for (uint32_t i = 0; i < n->attr_count; i++)
    if (strcmp(n->attrs[i].name, name) == 0) return &n->attrs[i];
  return NULL;
}

static const cmz_attr *attr_of_kind(const cmz_node *n, const char *name, cmz_attr_kind kind) {
  const cmz_attr *a = cmz_node_attr(n, name);
  return a && a->kind == kind ? a : NULL;
}

int64_t cmz_node_int(const cmz_node *n, const char *name, int64_t otherwise) {
  const cmz_attr *a = attr_of_kind(n, name, CMZ_ATTR_INT);
  return a ? a->i : otherwise;
}

double cmz_node_float(const cmz_node *n, const char *name, double otherwise) {
  const cmz_attr *a = attr_of_kind(n, name, CMZ_ATTR_FLOAT);
  return a ? a->f : otherwise;
}

const char *cmz_node_string(const cmz_node *n, const char *name, const char *otherwise) {
  const cmz_attr *a = attr_of_kind(n, name, CMZ_ATTR_STRING);
  return a && a->s ? a->s : otherwise;
}

const int64_t *cmz_node_ints(const cmz_node *n, const char *name, uint32_t *count) {
  const cmz_attr *a = attr_of_kind(n, name, CMZ_ATTR_INTS);
  *count = a ? a->count : 0;
  return a ? a->ints : NULL;
}

static cmz_attr copy_attr(cmz_module *m, const cmz_attr *attr) {
  cmz_attr copy = *attr;
  copy.name = cmz_arena_string(m->arena, attr->name);
  if (attr->s) { /* may hold zero bytes, and a C string is wanted as well */
    char *s = cmz_arena_alloc(m->arena, attr->s_size + 1);
    memcpy(s, attr->s, attr->s_size);
    copy.s = s;
  }
  if (attr->kind == CMZ_ATTR_INTS)
    copy.ints = cmz_arena_copy(m->arena, attr->ints, attr->count * sizeof *attr->ints);
  if (attr->kind == CMZ_ATTR_FLOATS)
    copy.floats = cmz_arena_copy(m->arena, attr->floats, attr->count * sizeof *attr->floats);
  if (attr->kind == CMZ_ATTR_STRINGS) {
    const char **strings = CMZ_NEW_ARRAY(m->arena, const char *, attr->count);
    for (uint32_t i = 0; i < attr->count; i++)
      strings[i] = cmz_arena_string(m->arena, attr->strings[i]);
    copy.strings = strings;
  }
  return copy;
}

void cmz_node_set_attr(cmz_module *m, cmz_nid n, const cmz_attr *attr) {
  cmz_attr copy = copy_attr(m, attr);
  cmz_node *node = cmz_node_get(m, n);
  for (uint32_t i = 0; i < node->attr_count; i++) {
    if (strcmp(node->attrs[i].name, copy.name) != 0) continue;
    node->attrs[i] = copy;
    return;
  }
  cmz_attr *attrs = CMZ_NEW_ARRAY(m->arena, cmz_attr, node->attr_count + 1);
  if (node->attr_count) memcpy(attrs, node->attrs, node->attr_count * sizeof *attrs);
  attrs[node->attr_count++] = copy;
  node->attrs = attrs;
}

void cmz_node_set_int(cmz_module *m, cmz_nid n, const char *name, int64_t v) {
  cmz_node_set_attr(m, n, &(cmz_attr){.name = name, .kind = CMZ_ATTR_INT, .i = v});
}

void cmz_node_set_float(cmz_module *m, cmz_nid n, const char *name, double v) {
  cmz_node_set_attr(m, n, &(cmz_attr){.name = name, .kind = CMZ_ATTR_FLOAT, .f = v});
}

void cmz_node_set_string(cmz_module *m, cmz_nid n, const char *name, const char *v) {
  cmz_node_set_attr(
      m, n, &(cmz_attr){.name = name, .kind = CMZ_ATTR_STRING, .s = v, .s_size = strlen(v)});
}

void cmz_node_set_ints(cmz_module *m, cmz_nid n, const char *name, const int64_t *v,
                       uint32_t count) {
  cmz_node_set_attr(m, n,
                    &(cmz_attr){.name = name, .kind = CMZ_ATTR_INTS, .ints = v, .count = count});
}

void cmz_node_remove_attr(cmz_module *m, cmz_nid n, const char *name) {
  cmz_node *node = cmz_node_get(m, n);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < node->attr_count; i++)
    if (strcmp(node->attrs[i].name, name) != 0) node->attrs[kept++] = node->attrs[i];
  node->attr_count = kept;
}
