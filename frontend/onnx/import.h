/* import.h - what the files of the ONNX importer share: the importer's state, names in scope,
 * tensors, attributes. */
#ifndef CMZ_FRONTEND_ONNX_IMPORT_H
#define CMZ_FRONTEND_ONNX_IMPORT_H

#include "../../ir/op.h"
#include "wire.h"

#define CMZ_ONNX_NEWEST_OPSET 28
#define CMZ_ONNX_NEWEST_IR_VERSION 14

/* ---- names ---- */
typedef struct cmz_name_entry {
  const char *name;
  cmz_vid value;
  /* Declared as an input: an initialiser of the same name may take its place */
  bool is_input;
  bool declared;  /* some node of this scope makes it */
  bool available; /* inputs, constants, and outputs of nodes that were added already */
} cmz_name_entry;

typedef struct cmz_name_map {
  cmz_name_entry *slots; /* open addressing; name NULL: free */
  uint32_t count, capacity;
} cmz_name_map;

cmz_name_entry *cmz_name_find(const cmz_name_map *map, const char *name);
/* The entry of NAME, new ones with value 0. The pointer holds until the next call. */
cmz_name_entry *cmz_name_add(cmz_arena *arena, cmz_name_map *map, const char *name);

/* ---- state ---- */
typedef struct cmz_opset {
  const char *domain;
  int64_t version;
} cmz_opset;
typedef struct cmz_opset_list {
  const cmz_opset *items;
  uint32_t count;
} cmz_opset_list;

typedef struct cmz_unknown_op {
  const char *domain, *name, *node;
  int64_t version;
  uint32_t count;
  bool known_name;
} cmz_unknown_op;
typedef struct cmz_external_file {
  const char *location;
  const cmz_file *file;
} cmz_external_file;

typedef struct cmz_onnx_importer {
  cmz_context *ctx;
  cmz_arena *arena; /* the module's */
  const cmz_file *file;
  const Onnx__ModelProto *model;
  cmz_module *m;
  cmz_opset_list opsets;  /* of the model */
  cmz_name_map functions; /* "domain:name:overload" -> index into model->functions */
  CMZ_VEC(cmz_unknown_op) unknown;
  CMZ_VEC(cmz_external_file) externals;
  uint32_t inlined_nodes, depth;
  bool failed; /* some error was recorded; the import goes on, to report them all */
} cmz_onnx_importer;

/* One graph while it is read: names of inlined functions' bodies live in scopes of their own over
 * the same graph. */
typedef struct cmz_graph_state {
  cmz_gid graph;
  bool unsorted;
} cmz_graph_state;

typedef struct cmz_scope {
  /* Scope around a subgraph; NULL for a model's graph and a function's body */
  struct cmz_scope *parent;
  cmz_graph_state *state;
  cmz_name_map names;
  const char *prefix; /* "call/" in function bodies, else "" */
  const cmz_opset_list *opsets;
  /* A function's body: the attributes of the call, and where their subgraphs' names are looked up.
   */
  const Onnx__NodeProto *call;
  const Onnx__FunctionProto *function;
  struct cmz_scope *call_scope;
} cmz_scope;

/* ---- tensors (tensor.c) ---- */
typedef struct cmz_onnx_tensor {
  cmz_dtype dtype;
  uint32_t rank;
  const int64_t *shape;
  const void *data;
  size_t bytes;
} cmz_onnx_tensor;
/* LOC.tensor names it in messages. */
cmz_status cmz_onnx_tensor_read(cmz_onnx_importer *im, const Onnx__TensorProto *tensor, cmz_loc loc,
                                cmz_onnx_tensor *out);
cmz_status cmz_onnx_sparse_read(cmz_onnx_importer *im, const Onnx__SparseTensorProto *sparse,
                                cmz_loc loc, cmz_onnx_tensor *out);

/* ---- attributes (attribute.c) ---- */
/* ATTRIBUTE, or what it refers to when it names an attribute of the function around it; NULL when
 * that is absent. *SCOPE becomes the scope in which its subgraphs are read. */
const Onnx__AttributeProto *cmz_onnx_attribute_resolve(cmz_scope **scope,
                                                       const Onnx__AttributeProto *attribute);
/* The tensor type inside TYPE (NULL when there is none, or something else than a tensor), and what
 * is around it. */
const Onnx__TypeProto *cmz_onnx_type_inside(const Onnx__TypeProto *type, cmz_kind *kind);
/* The attribute of NODE called NAME, resolved; NULL when absent. */
const Onnx__AttributeProto *cmz_onnx_attribute_find(cmz_scope *scope, const Onnx__NodeProto *node,
                                                    const char *name);
/* What NODE gives against the attributes that OP has at opset VERSION: none that is not known, of
 * another kind, or given twice, and all that must be there. */
cmz_status cmz_onnx_attributes_check(cmz_onnx_importer *im, cmz_scope *scope,
                                     const Onnx__NodeProto *node, const cmz_op *op,
                                     uint32_t version, cmz_loc loc);
/* Adds all attributes of NODE to N, subgraphs included; they are checked before. */
cmz_status cmz_onnx_attributes_add(cmz_onnx_importer *im, cmz_scope *scope,
                                   const Onnx__NodeProto *node, cmz_nid n, cmz_loc loc);
/* The value of a Constant node. */
cmz_status cmz_onnx_constant_read(cmz_onnx_importer *im, cmz_scope *scope,
                                  const Onnx__NodeProto *node, cmz_loc loc, cmz_onnx_tensor *out);

/* ---- graphs (graph.c) ---- */
cmz_status cmz_onnx_graph_read(cmz_onnx_importer *im, const Onnx__GraphProto *graph,
                               cmz_scope *scope);
/* Adds the nodes of a graph or function body whose inputs are in SCOPE already. */
cmz_status cmz_onnx_nodes_read(cmz_onnx_importer *im, cmz_scope *scope,
                               Onnx__NodeProto *const *nodes, size_t count);
cmz_loc cmz_onnx_loc(const cmz_onnx_importer *im, const cmz_scope *scope,
                     const Onnx__NodeProto *node);
const char *cmz_onnx_domain(const char *domain); /* "ai.onnx" is "" */
/* 0: not imported */
int64_t cmz_onnx_opset_of(const cmz_opset_list *opsets, const char *domain);

/* ---- functions (function.c) ---- */
cmz_status cmz_onnx_functions_index(cmz_onnx_importer *im);
const Onnx__FunctionProto *cmz_onnx_function_find(const cmz_onnx_importer *im,
                                                  const Onnx__NodeProto *node);
/* Adds the body of FUNCTION in place of the call NODE; the outputs of NODE are in SCOPE already. */
cmz_status cmz_onnx_function_inline(cmz_onnx_importer *im, cmz_scope *scope,
                                    const Onnx__NodeProto *node,
                                    const Onnx__FunctionProto *function);
/* Reads a list of opset imports; versions from the future are errors. */
cmz_status cmz_onnx_opsets_read(cmz_onnx_importer *im, Onnx__OperatorSetIdProto *const *imports,
                                size_t count, cmz_opset_list *out);

#endif
