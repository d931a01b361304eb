/* graph.c - GraphProto and lists of nodes to the module's graphs: names to values, types of inputs,
 * nodes in any order. In: messages and the scope around them. Out: a graph in topological order.
 * Always holds: every name is looked up in the graph and then in those around it; errors of all
 * nodes are recorded before failing. */
#include "import.h"

/* ---- names ---- */

cmz_name_entry *cmz_name_find(const cmz_name_map *map, const char *name) {
  if (!map->capacity) return NULL;
  uint32_t mask = map->capacity - 1, i = (uint32_t)cmz_hash64(name, strlen(name), 0) & mask;
  for (; map->slots[i].name; i = (i + 1) & mask)
    if (!strcmp(map->slots[i].name, name)) return &map->slots[i];
  return NULL;
}

static void name_insert(cmz_name_map *map, cmz_name_entry entry) {
  uint32_t mask = map->capacity - 1,
           i = (uint32_t)cmz_hash64(entry.name, strlen(entry.name), 0) & mask;
  while (map->slots[i].name) i = (i + 1) & mask;
  map->slots[i] = entry;
  map->count++;
}

cmz_name_entry *cmz_name_add(cmz_arena *arena, cmz_name_map *map, const char *name) {
  cmz_name_entry *found = cmz_name_find(map, name);
  if (found) return found;
  if (map->count * 4 >= map->capacity * 3) {
    cmz_name_map old = *map;
    map->capacity = old.capacity ? old.capacity * 2 : 32;
    map->count = 0;
    map->slots = CMZ_NEW_ARRAY(arena, cmz_name_entry, map->capacity);
    for (uint32_t i = 0; i < old.capacity; i++)
      if (old.slots[i].name) name_insert(map, old.slots[i]);
  }
  name_insert(map, (cmz_name_entry){.name = name});
  return cmz_name_find(map, name);
}

const char *cmz_onnx_domain(const char *domain) {
  return !domain || !strcmp(domain, "ai.onnx") ? "" : domain;
}

int64_t cmz_onnx_opset_of(const cmz_opset_list *opsets, const char *domain) {
  for (uint32_t i = 0; i < opsets->count; i++)
    if (!strcmp(opsets->items[i].domain, domain)) return opsets->items[i].version;
  return 0;
}

/* The name of NODE, or else of its first output. */
static const char *node_name(const Onnx__NodeProto *node) {
  if (node->name && *node->name) return node->name;
  for (size_t i = 0; i < node->n_output; i++)
    if (*node->output[i]) return node->output[i];
  return node->op_type ? node->op_type : "";
}

cmz_loc cmz_onnx_loc(const cmz_onnx_importer *im, const cmz_scope *scope,
                     const Onnx__NodeProto *node) {
  const char *name = node_name(node);
  if (scope && *scope->prefix) name = cmz_arena_printf(im->arena, "%s%s", scope->prefix, name);
  return (cmz_loc){.file = im->file->path, .node = name, .op = node->op_type};
}

static cmz_status failed(cmz_onnx_importer *im, cmz_status status) {
  if (status != CMZ_OK) im->failed = true;
  return status;
}

/* ---- types of graph inputs ---- */

static cmz_dim input_dim(cmz_onnx_importer *im, const char *input, size_t axis,
                         const Onnx__TensorShapeProto__Dimension *dim) {
  if (dim->has_dim_value && dim->dim_value >= 0) return cmz_dim_const(im->m->dims, dim->dim_value);
  /* Exporters write "?" where they mean no name: such dims need not be equal. */
  static const char *const unnamed[] = {"", "?", "-1", "None", "unknown"};
  bool named = dim->dim_param && !dim->has_dim_value;
  for (size_t i = 0; named && i < CMZ_COUNT_OF(unnamed); i++)
    named = strcmp(dim->dim_param, unnamed[i]) != 0;
  const char *name = named ? dim->dim_param : cmz_arena_printf(im->arena, "%s_dim%zu", input, axis);
  /* Models are mostly run one item at a time; other open sizes are taken as middling. */
  cmz_symbol symbol = {.name = cmz_arena_string(im->arena, name),
                       .low = 0,
                       .high = INT64_MAX,
                       .hint = axis ? 64 : 1,
                       .origin = CMZ_SYMBOL_INPUT};
  return cmz_dim_symbol(im->m->dims, &symbol);
}

static cmz_status input_type(cmz_onnx_importer *im, cmz_vid v, const Onnx__ValueInfoProto *info,
                             bool entry) {
  cmz_loc loc = {.file = im->file->path, .tensor = info->name};
  const Onnx__TypeProto *type = info->type;
  cmz_kind kind;
  type = cmz_onnx_type_inside(type, &kind);
  if (!type || !type->tensor_type) {
    if (!entry && (!type || (!type->map_type && !type->sparse_tensor_type && !type->opaque_type)))
      return CMZ_OK;
    const char *what = !type                      ? "no type"
                       : type->map_type           ? "a map type"
                       : type->sparse_tensor_type ? "a sparse tensor type"
                                                  : "a type that is not a tensor";
    return cmz_fail(im->ctx, type ? CMZ_E_UNSUPPORTED : CMZ_E_INPUT, loc,
                    "input \"%s\" has %s, which is not supported", info->name, what);
  }
  int32_t element = type->tensor_type->elem_type;
  if (element < 0 || element >= CMZ_DTYPE_COUNT || (entry && element == 0))
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "input \"%s\" has the unknown element type %d",
                    info->name, element);
  const Onnx__TensorShapeProto *shape = type->tensor_type->shape;
  uint32_t rank = CMZ_RANK_UNKNOWN;
  cmz_dim dims[CMZ_MAX_RANK];
  if (entry && shape) { /* what subgraphs get follows from the node around them */
    if (shape->n_dim > CMZ_MAX_RANK)
      return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc,
                      "input \"%s\" has rank %zu; at most %d is supported", info->name,
                      shape->n_dim, CMZ_MAX_RANK);
    rank = (uint32_t)shape->n_dim;
    for (size_t i = 0; i < shape->n_dim; i++) {
      bool open = !shape->dim[i]->has_dim_value || shape->dim[i]->dim_value < 0;
      /* The tensors of a sequence need not agree on a size that has no number. */
      dims[i] = open && kind != CMZ_KIND_TENSOR ? CMZ_DIM_NONE
                                                : input_dim(im, info->name, i, shape->dim[i]);
    }
  }
  cmz_type full = {.kind = kind, .dtype = (cmz_dtype)element, .rank = rank, .shape = dims};
  cmz_value_set_full_type(im->m, v, &full);
  return CMZ_OK;
}

/* ---- nodes ---- */

static bool is_constant(const cmz_onnx_importer *im, const Onnx__NodeProto *node) {
  return node->op_type && !strcmp(node->op_type, "Constant") && !*cmz_onnx_domain(node->domain) &&
         node->n_output == 1 && !cmz_onnx_function_find(im, node);
}

static const char *value_name(cmz_onnx_importer *im, const cmz_scope *scope, const char *name) {
  return *scope->prefix ? cmz_arena_printf(im->arena, "%s%s", scope->prefix, name)
                        : cmz_arena_string(im->arena, name);
}

static cmz_status read_constant(cmz_onnx_importer *im, cmz_scope *scope,
                                const Onnx__NodeProto *node, cmz_loc loc, cmz_onnx_tensor *out) {
  const cmz_op *op = cmz_op_get("Constant");
  int64_t version = cmz_onnx_opset_of(scope->opsets, op->domain);
  if (!version) return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "the model imports no opset of ai.onnx");
  CMZ_TRY(cmz_onnx_attributes_check(im, scope, node, op, (uint32_t)version, loc));
  return cmz_onnx_constant_read(im, scope, node, loc, out);
}

/* Gives every output of NODE a value; what a function's call has for an output is kept. */
static cmz_status declare_outputs(cmz_onnx_importer *im, cmz_scope *scope,
                                  const Onnx__NodeProto *node) {
  cmz_loc loc = cmz_onnx_loc(im, scope, node);
  cmz_gid g = scope->state->graph;
  for (size_t i = 0; i < node->n_output; i++) {
    const char *name = node->output[i];
    if (!*name) continue;
    cmz_name_entry *entry = cmz_name_add(im->arena, &scope->names, name);
    bool bound = entry->value && scope->function; /* to an output of the call */
    if (entry->available || entry->is_input || entry->declared || (entry->value && !bound))
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "the name \"%s\" of its output is taken already",
                      name);
    entry->declared = true;
    if (is_constant(im, node) && !bound) {
      cmz_onnx_tensor t;
      CMZ_TRY(read_constant(im, scope, node, loc, &t));
      entry->value = cmz_value_add_constant(im->m, g, value_name(im, scope, name), t.dtype, t.rank,
                                            t.shape, t.data, t.bytes);
      entry->available = true;
    } else if (!bound) {
      entry->value = cmz_value_add(im->m, g, value_name(im, scope, name));
    }
  }
  return CMZ_OK;
}

static void note_unknown(cmz_onnx_importer *im, const cmz_scope *scope, const Onnx__NodeProto *node,
                         const char *domain, int64_t version) {
  im->failed = true;
  const char *name = node->op_type ? node->op_type : "";
  for (uint32_t i = 0; i < im->unknown.count; i++) {
    cmz_unknown_op *u = &im->unknown.data[i];
    if (!strcmp(u->name, name) && !strcmp(u->domain, domain) && u->version == version) {
      u->count++;
      return;
    }
  }
  cmz_unknown_op u = {domain,  name, cmz_onnx_loc(im, scope, node).node,
                      version, 1,    cmz_op_known(domain, name)};
  cmz_vec_push(im->arena, &im->unknown, u);
}

static cmz_status look_up(cmz_onnx_importer *im, cmz_scope *scope, const char *name, cmz_loc loc,
                          cmz_vid *value) {
  for (cmz_scope *s = scope; s; s = s->parent) {
    cmz_name_entry *entry = cmz_name_find(&s->names, name);
    if (!entry || (!entry->value && !entry->is_input)) continue;
    if (!entry->available) s->state->unsorted = true;
    *value = entry->value;
    return CMZ_OK;
  }
  return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                  "input \"%s\" is made by no node, nor an input of the graph", name);
}

/* Trailing empty names are the same as absent ones. */
static uint32_t used_count(char *const *names, size_t count) {
  while (count && !*names[count - 1]) count--;
  return (uint32_t)CMZ_MIN(count, (size_t)UINT32_MAX);
}

static void mark_available(cmz_scope *scope, const Onnx__NodeProto *node) {
  for (size_t i = 0; i < node->n_output; i++)
    if (*node->output[i]) cmz_name_find(&scope->names, node->output[i])->available = true;
}

static cmz_status check_arity(cmz_onnx_importer *im, const cmz_op *op, uint32_t inputs,
                              uint32_t outputs, cmz_loc loc) {
  if (inputs < op->min_inputs || (op->max_inputs != 255 && inputs > op->max_inputs))
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "has %u inputs; %s takes %u to %u", inputs, op->name,
                    op->min_inputs, op->max_inputs);
  if (outputs < op->min_outputs || (op->max_outputs != 255 && outputs > op->max_outputs))
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "has %u outputs; %s gives %u to %u", outputs,
                    op->name, op->min_outputs, op->max_outputs);
  return CMZ_OK;
}

static cmz_status add_node(cmz_onnx_importer *im, cmz_scope *scope, const Onnx__NodeProto *node) {
  cmz_loc loc = cmz_onnx_loc(im, scope, node);
  const char *domain = cmz_onnx_domain(node->domain);
  int64_t version = cmz_onnx_opset_of(scope->opsets, domain);
  if (!version && !*domain)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "the model imports no opset of ai.onnx");
  if (!version) version = 1;
  const cmz_op *op = node->op_type ? cmz_op_find(domain, node->op_type, (uint32_t)version) : NULL;
  if (!op) return note_unknown(im, scope, node, domain, version), CMZ_OK;

  uint32_t input_count = used_count(node->input, node->n_input),
           output_count = used_count(node->output, node->n_output);
  CMZ_TRY(check_arity(im, op, input_count, output_count, loc));
  CMZ_TRY(cmz_onnx_attributes_check(im, scope, node, op, (uint32_t)version, loc));
  cmz_vid *inputs = CMZ_NEW_ARRAY(im->arena, cmz_vid, input_count),
          *outputs = CMZ_NEW_ARRAY(im->arena, cmz_vid, output_count);
  for (uint32_t i = 0; i < input_count; i++)
    if (*node->input[i]) CMZ_TRY(look_up(im, scope, node->input[i], loc, &inputs[i]));
  for (uint32_t i = 0; i < output_count; i++)
    if (*node->output[i]) outputs[i] = cmz_name_find(&scope->names, node->output[i])->value;
  cmz_nid n = cmz_node_add(im->m, scope->state->graph, op, cmz_arena_string(im->arena, loc.node),
                           input_count, inputs, output_count, outputs);
  cmz_node_get(im->m, n)->opset = (uint32_t)version;
  return cmz_onnx_attributes_add(im, scope, node, n, loc);
}

/* A constant whose name a function's call has bound already becomes a copy. */
static cmz_status add_bound_constant(cmz_onnx_importer *im, cmz_scope *scope,
                                     const Onnx__NodeProto *node, cmz_name_entry *entry) {
  cmz_loc loc = cmz_onnx_loc(im, scope, node);
  cmz_onnx_tensor t;
  CMZ_TRY(read_constant(im, scope, node, loc, &t));
  cmz_vid from = cmz_value_add_constant(im->m, scope->state->graph, NULL, t.dtype, t.rank, t.shape,
                                        t.data, t.bytes);
  cmz_node_add(im->m, scope->state->graph, cmz_op_get("Identity"), loc.node, 1, &from, 1,
               &entry->value);
  entry->available = true;
  return CMZ_OK;
}

cmz_status cmz_onnx_nodes_read(cmz_onnx_importer *im, cmz_scope *scope,
                               Onnx__NodeProto *const *nodes, size_t count) {
  for (size_t i = 0; i < count; i++) CMZ_TRY(failed(im, declare_outputs(im, scope, nodes[i])));
  for (size_t i = 0; i < count; i++) {
    const Onnx__NodeProto *node = nodes[i];
    if (is_constant(im, node)) {
      cmz_name_entry *entry =
          *node->output[0] ? cmz_name_find(&scope->names, node->output[0]) : NULL;
      if (entry && !entry->available) failed(im, add_bound_constant(im, scope, node, entry));
      continue;
    }
    const Onnx__FunctionProto *f = cmz_onnx_function_find(im, node);
    if (f) failed(im, cmz_onnx_function_inline(im, scope, node, f));
    else failed(im, add_node(im, scope, node));
    mark_available(scope, node);
    if (im->ctx->error_count > 100)
      return CMZ_E_INPUT; /* a hopeless file: the rest would only repeat it */
  }
  return CMZ_OK;
}

/* ---- graphs ---- */

static cmz_status add_initializer(cmz_onnx_importer *im, cmz_scope *scope, const char *name,
                                  const cmz_onnx_tensor *t, cmz_loc loc) {
  if (!name || !*name) return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "an initialiser without a name");
  cmz_name_entry *entry = cmz_name_add(im->arena, &scope->names, name);
  if (entry->value)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "initialiser \"%s\" is given twice", name);
  entry->value = cmz_value_add_constant(im->m, scope->state->graph, value_name(im, scope, name),
                                        t->dtype, t->rank, t->shape, t->data, t->bytes);
  entry->available = true;
  return CMZ_OK;
}

static cmz_status add_initializers(cmz_onnx_importer *im, const Onnx__GraphProto *graph,
                                   cmz_scope *scope) {
  for (size_t i = 0; i < graph->n_initializer; i++) {
    cmz_loc loc = {.file = im->file->path, .tensor = graph->initializer[i]->name};
    cmz_onnx_tensor t;
    if (failed(im, cmz_onnx_tensor_read(im, graph->initializer[i], loc, &t)) != CMZ_OK) {
      if (im->ctx->error_count > 100) return CMZ_E_INPUT;
      t = (cmz_onnx_tensor){.dtype = CMZ_F32,
                            .shape = cmz_arena_alloc(im->arena, 0),
                            .data = cmz_arena_alloc(im->arena, 4),
                            .bytes = 4};
    }
    CMZ_TRY(failed(im, add_initializer(im, scope, graph->initializer[i]->name, &t, loc)));
  }
  for (size_t i = 0; i < graph->n_sparse_initializer; i++) {
    const Onnx__SparseTensorProto *sparse = graph->sparse_initializer[i];
    const char *name = sparse->values ? sparse->values->name : NULL;
    cmz_loc loc = {.file = im->file->path, .tensor = name};
    cmz_onnx_tensor t;
    CMZ_TRY(failed(im, cmz_onnx_sparse_read(im, sparse, loc, &t)));
    CMZ_TRY(failed(im, add_initializer(im, scope, name, &t, loc)));
  }
  return CMZ_OK;
}

/* An input that has an initialiser is a constant: what the file stores is its only value. */
static cmz_status add_inputs(cmz_onnx_importer *im, const Onnx__GraphProto *graph,
                             cmz_scope *scope) {
  for (size_t i = 0; i < graph->n_input; i++) {
    const Onnx__ValueInfoProto *info = graph->input[i];
    cmz_loc loc = {.file = im->file->path, .tensor = info->name};
    if (!info->name || !*info->name)
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "a graph input without a name");
    cmz_name_entry *entry = cmz_name_add(im->arena, &scope->names, info->name);
    if (entry->is_input)
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "input \"%s\" is given twice", info->name);
    entry->is_input = true;
    if (entry->value) continue;
    entry->value =
        cmz_value_add_input(im->m, scope->state->graph, value_name(im, scope, info->name));
    entry->available = true;
    failed(im, input_type(im, entry->value, info, !scope->parent));
  }
  return CMZ_OK;
}

static cmz_status add_outputs(cmz_onnx_importer *im, const Onnx__GraphProto *graph,
                              cmz_scope *scope) {
  for (size_t i = 0; i < graph->n_output; i++) {
    const char *name = graph->output[i]->name;
    cmz_loc loc = {.file = im->file->path, .tensor = name};
    cmz_vid v = 0;
    for (cmz_scope *s = scope; s && name && *name && !v; s = s->parent) {
      cmz_name_entry *entry = cmz_name_find(&s->names, name);
      if (!entry || !entry->value) continue;
      v = entry->value;
      if (!entry->available) s->state->unsorted = true; /* a branch gives what comes later */
    }
    if (!v)
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "output \"%s\" of graph \"%s\" is made by no node",
                      name ? name : "", graph->name ? graph->name : "");
    cmz_graph_add_output(im->m, scope->state->graph, v);
    cmz_graph *out = cmz_graph_get(im->m, scope->state->graph);
    out->output_names.data[out->output_names.count - 1] = cmz_arena_string(im->m->arena, name);
  }
  return CMZ_OK;
}

cmz_status cmz_onnx_graph_read(cmz_onnx_importer *im, const Onnx__GraphProto *graph,
                               cmz_scope *scope) {
  CMZ_TRY(add_initializers(im, graph, scope));
  CMZ_TRY(failed(im, add_inputs(im, graph, scope)));
  CMZ_TRY(cmz_onnx_nodes_read(im, scope, graph->node, graph->n_node));
  CMZ_TRY(failed(im, add_outputs(im, graph, scope)));
  if (scope->state->unsorted && !im->failed)
    CMZ_TRY(failed(im, cmz_graph_sort(im->m, scope->state->graph)));
  return CMZ_OK;
}
