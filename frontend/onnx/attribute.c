/* attribute.c - AttributeProto to the module's attributes, references to a function's attributes
 * resolved. In: a node's attributes and the scope it stands in. Out: cmz_attr on the module's node.
 */
#include "import.h"

/* AttributeProto.type; older files leave it 0 and it follows from which field is set. */
enum {
  A_FLOAT = 1,
  A_INT,
  A_STRING,
  A_TENSOR,
  A_GRAPH,
  A_FLOATS,
  A_INTS,
  A_STRINGS,
  A_TENSORS,
  A_GRAPHS,
  A_SPARSE,
  A_SPARSES,
  A_TYPE,
  A_TYPES
};

static int attribute_type(const Onnx__AttributeProto *a) {
  if (a->type) return a->type;
  if (a->has_f) return A_FLOAT;
  if (a->has_i) return A_INT;
  if (a->has_s) return A_STRING;
  if (a->t) return A_TENSOR;
  if (a->g) return A_GRAPH;
  if (a->n_floats) return A_FLOATS;
  if (a->n_strings) return A_STRINGS;
  if (a->sparse_tensor) return A_SPARSE;
  if (a->tp) return A_TYPE;
  if (a->n_tensors) return A_TENSORS;
  if (a->n_graphs) return A_GRAPHS;
  return A_INTS; /* an empty list */
}

const Onnx__AttributeProto *cmz_onnx_attribute_resolve(cmz_scope **scope,
                                                       const Onnx__AttributeProto *attribute) {
  while (attribute && attribute->ref_attr_name && *attribute->ref_attr_name) {
    const char *wanted = attribute->ref_attr_name;
    cmz_scope *body = *scope;
    while (body && !body->function) body = body->parent; /* a subgraph inside a function's body */
    if (!body) return NULL;
    const Onnx__AttributeProto *found = NULL;
    for (size_t i = 0; i < body->call->n_attribute && !found; i++)
      if (body->call->attribute[i]->name && !strcmp(body->call->attribute[i]->name, wanted))
        found = body->call->attribute[i];
    if (found) {
      *scope = body->call_scope;
    } else {
      for (size_t i = 0; i < body->function->n_attribute_proto && !found; i++)
        if (body->function->attribute_proto[i]->name &&
            !strcmp(body->function->attribute_proto[i]->name, wanted))
          found = body->function->attribute_proto[i];
      if (found && found->ref_attr_name && *found->ref_attr_name)
        return NULL; /* a default cannot refer */
    }
    attribute = found;
  }
  return attribute;
}

const Onnx__AttributeProto *cmz_onnx_attribute_find(cmz_scope *scope, const Onnx__NodeProto *node,
                                                    const char *name) {
  for (size_t i = 0; i < node->n_attribute; i++)
    if (node->attribute[i]->name && !strcmp(node->attribute[i]->name, name))
      return cmz_onnx_attribute_resolve(&scope, node->attribute[i]);
  return NULL;
}

static const char *bytes_text(cmz_onnx_importer *im, ProtobufCBinaryData data) {
  char *text = cmz_arena_alloc(im->arena, data.len + 1);
  if (data.len) memcpy(text, data.data, data.len);
  return text;
}

static cmz_status add_tensor(cmz_onnx_importer *im, const Onnx__AttributeProto *a, cmz_loc loc,
                             cmz_attr *out) {
  cmz_onnx_tensor t;
  if (a->t) CMZ_TRY(cmz_onnx_tensor_read(im, a->t, loc, &t));
  else if (a->sparse_tensor) CMZ_TRY(cmz_onnx_sparse_read(im, a->sparse_tensor, loc, &t));
  else return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "attribute \"%s\" has no tensor", a->name);
  cmz_constant constant = {.name = cmz_arena_string(im->arena, a->name),
                           .dtype = t.dtype,
                           .rank = t.rank,
                           .shape = t.shape,
                           .data = t.data,
                           .bytes = t.bytes};
  cmz_vec_push(im->arena, &im->m->constants, constant);
  out->kind = CMZ_ATTR_TENSOR;
  out->tensor = im->m->constants.count - 1;
  return CMZ_OK;
}

const Onnx__TypeProto *cmz_onnx_type_inside(const Onnx__TypeProto *type, cmz_kind *kind) {
  unsigned bits = 0;
  if (type && type->optional_type) bits = CMZ_KIND_OPTIONAL, type = type->optional_type->elem_type;
  if (type && type->sequence_type) bits |= CMZ_KIND_SEQUENCE, type = type->sequence_type->elem_type;
  *kind = (cmz_kind)bits;
  return type;
}

/* A type is kept as its element type (i) and its cmz_kind (count). */
static cmz_status add_type(cmz_onnx_importer *im, const Onnx__AttributeProto *a, cmz_loc loc,
                           cmz_attr *out) {
  cmz_kind kind;
  const Onnx__TypeProto *type = cmz_onnx_type_inside(a->tp, &kind);
  out->kind = CMZ_ATTR_TYPE;
  out->count = kind;
  if (!type || !type->tensor_type)
    return cmz_fail(
        im->ctx, CMZ_E_UNSUPPORTED, loc,
        "attribute \"%s\": a type that is not a tensor, nor a sequence or optional of one",
        a->name);
  out->i = type->tensor_type->elem_type;
  return CMZ_OK;
}

static cmz_status convert(cmz_onnx_importer *im, cmz_scope *scope, const Onnx__AttributeProto *a,
                          cmz_nid n, cmz_loc loc, cmz_attr *out) {
  switch (attribute_type(a)) {
  case A_FLOAT:
    out->kind = CMZ_ATTR_FLOAT, out->f = (double)a->f;
    return CMZ_OK;
  case A_INT:
    out->kind = CMZ_ATTR_INT, out->i = a->i;
    return CMZ_OK;
  case A_STRING:
    out->kind = CMZ_ATTR_STRING, out->s = bytes_text(im, a->s), out->s_size = a->s.len;
    return CMZ_OK;
  case A_FLOATS: {
    double *values = CMZ_NEW_ARRAY(im->arena, double, a->n_floats);
    for (size_t i = 0; i < a->n_floats; i++) values[i] = (double)a->floats[i];
    out->kind = CMZ_ATTR_FLOATS, out->floats = values, out->count = (uint32_t)a->n_floats;
    return CMZ_OK;
  }
  case A_INTS:
    out->kind = CMZ_ATTR_INTS, out->count = (uint32_t)a->n_ints;
    out->ints = a->n_ints ? a->ints : cmz_arena_alloc(im->arena, 0);
    return CMZ_OK;
  case A_STRINGS: {
    const char **values = CMZ_NEW_ARRAY(im->arena, const char *, a->n_strings);
    for (size_t i = 0; i < a->n_strings; i++) values[i] = bytes_text(im, a->strings[i]);
    out->kind = CMZ_ATTR_STRINGS, out->strings = values, out->count = (uint32_t)a->n_strings;
    return CMZ_OK;
  }
  case A_TENSOR:
  case A_SPARSE:
    return add_tensor(im, a, loc, out);
  case A_TYPE:
    return add_type(im, a, loc, out);
  case A_GRAPH: {
    if (!a->g) return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "attribute \"%s\" has no graph", a->name);
    cmz_graph_state state = {.graph = cmz_module_add_graph(im->m, a->name, n, scope->state->graph)};
    cmz_scope inner = {
        .parent = scope, .state = &state, .prefix = scope->prefix, .opsets = scope->opsets};
    out->kind = CMZ_ATTR_GRAPH, out->graph = state.graph;
    return cmz_onnx_graph_read(im, a->g, &inner);
  }
  default:
    return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc,
                    "attribute \"%s\" has kind %d, which is not supported", a->name, a->type);
  }
}

/* By AttributeProto.type: the letters of cmz_op_attr, and words for messages. */
static const char kind_letters[] = "?fistgFISTGxXpP";
static const char *const kind_names[] = {
    "unknown", "float",   "int",    "string",        "tensor",         "graph", "floats", "ints",
    "strings", "tensors", "graphs", "sparse tensor", "sparse tensors", "type",  "types"};

static unsigned kind_of_letter(char letter) {
  return (unsigned)(strchr(kind_letters, letter) - kind_letters);
}

static bool attribute_named(const char *row, uint32_t version, const char *name, cmz_op_attr *out) {
  while (cmz_op_attr_next(&row, version, out))
    if (strlen(name) == out->length && !memcmp(name, out->name, out->length)) return true;
  return false;
}

static cmz_status check_attribute(cmz_onnx_importer *im, const Onnx__NodeProto *node, size_t index,
                                  cmz_scope *scope, const cmz_op *op, uint32_t version,
                                  cmz_loc loc) {
  const Onnx__AttributeProto *written = node->attribute[index];
  const char *name = written->name;
  if (!name || !*name) return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "an attribute without a name");
  for (size_t i = 0; i < index; i++)
    if (!strcmp(node->attribute[i]->name, name))
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "attribute \"%s\" is given twice", name);
  cmz_op_attr row;
  if (!attribute_named(op->attributes, version, name, &row))
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "attribute \"%s\" is not known for %s at opset %u",
                    name, op->name, version);
  const Onnx__AttributeProto *a = cmz_onnx_attribute_resolve(&scope, written);
  if (!a) return CMZ_OK; /* the call leaves it out */
  int type = attribute_type(a);
  bool known = type > 0 && type < (int)CMZ_COUNT_OF(kind_names);
  if (known && kind_letters[type] == row.kind) return CMZ_OK;
  if (!a->type && type == A_INTS && !a->n_ints) return CMZ_OK; /* says neither kind nor value */
  return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "attribute \"%s\" is of kind %s; %s takes %s", name,
                  known ? kind_names[type] : "unknown", op->name,
                  kind_names[kind_of_letter(row.kind)]);
}

cmz_status cmz_onnx_attributes_check(cmz_onnx_importer *im, cmz_scope *scope,
                                     const Onnx__NodeProto *node, const cmz_op *op,
                                     uint32_t version, cmz_loc loc) {
  for (size_t i = 0; i < node->n_attribute; i++)
    CMZ_TRY(check_attribute(im, node, i, scope, op, version, loc));
  const char *at = op->attributes;
  for (cmz_op_attr row; cmz_op_attr_next(&at, version, &row);) {
    if (!row.required) continue;
    const char *name = cmz_arena_printf(im->arena, "%.*s", (int)row.length, row.name);
    if (!cmz_onnx_attribute_find(scope, node, name))
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "attribute \"%s\" is missing; %s needs it", name,
                      op->name);
  }
  return CMZ_OK;
}

cmz_status cmz_onnx_attributes_add(cmz_onnx_importer *im, cmz_scope *scope,
                                   const Onnx__NodeProto *node, cmz_nid n, cmz_loc loc) {
  for (size_t i = 0; i < node->n_attribute; i++) {
    const Onnx__AttributeProto *written = node->attribute[i];
    cmz_scope *where = scope;
    const Onnx__AttributeProto *a = cmz_onnx_attribute_resolve(&where, written);
    if (!a) continue; /* refers to an attribute that the call leaves out */
    cmz_attr attr = {.name = cmz_arena_string(im->arena, written->name)};
    CMZ_TRY(convert(im, where, a, n, loc, &attr));
    cmz_node_set_attr(im->m, n, &attr);
  }
  return CMZ_OK;
}

/* ---- Constant ---- */

static void scalar_tensor(cmz_onnx_importer *im, cmz_onnx_tensor *out, cmz_dtype dtype,
                          const void *data, size_t bytes) {
  *out = (cmz_onnx_tensor){.dtype = dtype,
                           .shape = cmz_arena_alloc(im->arena, 0),
                           .bytes = bytes,
                           .data = cmz_arena_copy(im->arena, data, bytes)};
}

static void list_tensor(cmz_onnx_importer *im, cmz_onnx_tensor *out, cmz_dtype dtype,
                        const void *data, size_t count, size_t size) {
  int64_t length = (int64_t)count;
  *out = (cmz_onnx_tensor){.dtype = dtype,
                           .rank = 1,
                           .shape = cmz_arena_copy(im->arena, &length, sizeof length),
                           .data = cmz_arena_copy(im->arena, data, count * size),
                           .bytes = count * size};
}

cmz_status cmz_onnx_constant_read(cmz_onnx_importer *im, cmz_scope *scope,
                                  const Onnx__NodeProto *node, cmz_loc loc, cmz_onnx_tensor *out) {
  for (size_t i = 0; i < node->n_attribute; i++) {
    cmz_scope *where = scope;
    const Onnx__AttributeProto *a = cmz_onnx_attribute_resolve(&where, node->attribute[i]);
    const char *name = node->attribute[i]->name;
    if (!a || !name) continue;
    if (!strcmp(name, "value") && a->t) return cmz_onnx_tensor_read(im, a->t, loc, out);
    if (!strcmp(name, "sparse_value") && a->sparse_tensor)
      return cmz_onnx_sparse_read(im, a->sparse_tensor, loc, out);
    if (!strcmp(name, "value_float"))
      return scalar_tensor(im, out, CMZ_F32, &a->f, sizeof a->f), CMZ_OK;
    if (!strcmp(name, "value_int"))
      return scalar_tensor(im, out, CMZ_I64, &a->i, sizeof a->i), CMZ_OK;
    if (!strcmp(name, "value_floats"))
      return list_tensor(im, out, CMZ_F32, a->floats, a->n_floats, 4), CMZ_OK;
    if (!strcmp(name, "value_ints"))
      return list_tensor(im, out, CMZ_I64, a->ints, a->n_ints, 8), CMZ_OK;
    if (!strcmp(name, "value_string")) {
      const char *text = bytes_text(im, a->s);
      return scalar_tensor(im, out, CMZ_STRING, &text, sizeof text), CMZ_OK;
    }
    if (!strcmp(name, "value_strings")) {
      const char **texts = CMZ_NEW_ARRAY(im->arena, const char *, a->n_strings);
      for (size_t k = 0; k < a->n_strings; k++) texts[k] = bytes_text(im, a->strings[k]);
      return list_tensor(im, out, CMZ_STRING, texts, a->n_strings, sizeof *texts), CMZ_OK;
    }
  }
  return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "a Constant without a value");
}
