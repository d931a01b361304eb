/* module.h - the program: graphs of nodes over one pool of values and constants.
 * In: what an importer or the .cmz parser builds. Out: what passes rewrite and codegen reads.
 * Always holds: values and nodes are referred to by 32-bit ids into the module's pools (0 = none),
 * ids are never reused; a node's inputs and a value's uses agree; a graph lists its nodes in
 * topological order; a subgraph may read values of the graphs around it. cmz_module_verify checks
 * it all. */
#ifndef CMZ_IR_MODULE_H
#define CMZ_IR_MODULE_H

#include "dim.h"
#include "dtype.h"
#include "format.h"
#include "layout.h"

typedef uint32_t cmz_vid; /* value */
typedef uint32_t cmz_nid; /* node */
typedef uint32_t cmz_gid; /* graph */
typedef uint32_t cmz_cid; /* constant */

#define CMZ_RANK_UNKNOWN UINT32_MAX
#define CMZ_MAX_RANK 16

/* Two bits: a sequence of tensors; something that may be absent. */
typedef enum cmz_kind {
  CMZ_KIND_TENSOR = 0,
  CMZ_KIND_SEQUENCE = 1,
  CMZ_KIND_OPTIONAL = 2,
  CMZ_KIND_OPTIONAL_SEQUENCE = 3
} cmz_kind;

typedef struct cmz_type {
  cmz_kind kind;
  cmz_dtype dtype; /* of the tensor, or of the sequence's / optional's tensors */
  uint32_t rank;   /* CMZ_RANK_UNKNOWN until inferred */
  /* RANK dims in the module's arena; never CMZ_DIM_NONE once inferred */
  const cmz_dim *shape;
  /* For other kinds than tensors dtype, rank and shape hold for every tensor inside: a rank or dim
   * that is not the same for all of them, or not known, is CMZ_RANK_UNKNOWN or CMZ_DIM_NONE.
   * VACANT: no tensor is inside, nor any that they describe. */
  bool vacant;
} cmz_type;

/* Raw bytes of a constant: a view of a mapped file or arena memory. */
typedef struct cmz_constant {
  const char *name;
  cmz_dtype dtype;
  uint32_t rank;
  const int64_t *shape;
  /* Plain row-major ONNX order unless the layout says otherwise; strings: const char ** */
  const void *data;
  size_t bytes;
  cmz_layout layout;
} cmz_constant;

/* Input INDEX of NODE reads the value */
typedef struct cmz_use {
  cmz_nid node;
  uint32_t index;
} cmz_use;

typedef struct cmz_value {
  const char *name; /* the model's own name, or made up; never NULL */
  cmz_type type;
  cmz_nid producer; /* 0: graph input, constant or subgraph argument */
  uint32_t output;  /* which output of the producer */
  cmz_gid graph;    /* the graph it belongs to */
  cmz_cid constant; /* 0 unless constant */
  CMZ_VEC(cmz_use) uses;
  uint32_t output_uses; /* how many graph outputs it is */
  /* Symbolic content of a small integer/bool tensor, row-major; or NULL */
  const cmz_dim *elements;
  uint32_t element_count;
  cmz_layout layout;
  bool is_input; /* of its graph */
  /* Floats: kernels store what is too large as the largest finite number */
  bool saturates;
  bool removed;
} cmz_value;

typedef enum cmz_attr_kind {
  CMZ_ATTR_INT,
  CMZ_ATTR_FLOAT,
  CMZ_ATTR_STRING,
  CMZ_ATTR_TENSOR,
  CMZ_ATTR_GRAPH,
  CMZ_ATTR_INTS,
  CMZ_ATTR_FLOATS,
  CMZ_ATTR_STRINGS,
  CMZ_ATTR_TYPE
} cmz_attr_kind;

typedef struct cmz_attr {
  const char *name;
  cmz_attr_kind kind;
  uint32_t count; /* of INTS, FLOATS, STRINGS */
  int64_t i;
  double f;
  const char *s;
  size_t s_size;
  cmz_cid tensor;
  cmz_gid graph;
  const int64_t *ints;
  const double *floats;
  const char *const *strings;
} cmz_attr;

typedef struct cmz_node {
  const struct cmz_op *op; /* never NULL: unknown ops are refused by the importer */
  /* Source node's name; made up from its first output when the model has none */
  const char *name;
  /* Further source names, of nodes merged into this one */
  const char *const *sources;
  uint32_t source_count;
  uint32_t opset; /* version of the op's domain in the model; 0: current form */
  uint32_t input_count, output_count, attr_count;
  cmz_vid *inputs;  /* 0: an absent optional input */
  cmz_vid *outputs; /* 0: an output nobody wants */
  cmz_attr *attrs;
  cmz_gid graph;
  bool removed;
  /* Where it was last seen in its graph's list: a hint that makes insertion fast */
  uint32_t position;
} cmz_node;

typedef struct cmz_graph {
  const char *name;
  cmz_nid owner;  /* the node whose attribute it is; 0 for an entry */
  cmz_gid parent; /* graph of the owner; 0 for an entry */
  CMZ_VEC(cmz_vid) inputs;
  CMZ_VEC(cmz_vid) outputs;
  /* Parallel to outputs: the names that users see, whatever passes replace */
  CMZ_VEC(const char *) output_names;
  /* Topological order; removed nodes are skipped by cmz_graph_each */
  CMZ_VEC(cmz_nid) nodes;
} cmz_graph;

typedef struct cmz_module {
  cmz_context *ctx;
  cmz_arena *arena;
  cmz_dims *dims;
  const char *file; /* as the user named it: for messages */
  const char *name;
  uint32_t opset; /* of the default domain */
  int64_t ir_version;
  CMZ_VEC(cmz_value) values; /* [0] unused, likewise below */
  CMZ_VEC(cmz_node) nodes;
  CMZ_VEC(cmz_graph) graphs;
  CMZ_VEC(cmz_constant) constants;
  CMZ_VEC(cmz_gid) entries; /* entry functions; [0] is the model's main graph */
} cmz_module;

cmz_module *cmz_module_create(cmz_context *ctx, const char *file);
cmz_gid cmz_module_add_graph(cmz_module *m, const char *name, cmz_nid owner, cmz_gid parent);

static inline cmz_value *cmz_value_get(const cmz_module *m, cmz_vid v) {
  return &m->values.data[v];
}
static inline cmz_node *cmz_node_get(const cmz_module *m, cmz_nid n) { return &m->nodes.data[n]; }
static inline cmz_graph *cmz_graph_get(const cmz_module *m, cmz_gid g) {
  return &m->graphs.data[g];
}
static inline cmz_constant *cmz_constant_get(const cmz_module *m, cmz_cid c) {
  return &m->constants.data[c];
}
/* An output of graph G: the value's output_uses agree only if outputs are added with this. */
void cmz_graph_add_output(cmz_module *m, cmz_gid g, cmz_vid v);
/* for (cmz_graph_each(m, g, n)) { … }: N is the id of each node that is not removed, in order. The
 * list may grow meanwhile. */
#define cmz_graph_each(m, g, n)                                                                    \
  cmz_nid cmz_each_ = 0, n = cmz_graph_next((m), (g), &cmz_each_);                                 \
  n;                                                                                               \
  n = cmz_graph_next((m), (g), &cmz_each_)
static inline cmz_nid cmz_graph_next(const cmz_module *m, cmz_gid g, uint32_t *index) {
  while (*index < m->graphs.data[g].nodes.count) {
    cmz_nid n = m->graphs.data[g].nodes.data[(*index)++];
    if (!m->nodes.data[n].removed) return n;
  }
  return 0;
}
/* NOTE: the pools move when they grow; do not keep these pointers across calls that add. */

/* ---- values ---- */
/* NULL: a made-up unique name */
cmz_vid cmz_value_add(cmz_module *m, cmz_gid g, const char *name);
cmz_vid cmz_value_add_input(cmz_module *m, cmz_gid g, const char *name);
/* A constant value that owns a new constant; DATA is kept as a view (copy it into the arena first
 * if it may go). */
cmz_vid cmz_value_add_constant(cmz_module *m, cmz_gid g, const char *name, cmz_dtype dtype,
                               uint32_t rank, const int64_t *shape, const void *data, size_t bytes);
/* 1-D int64 */
cmz_vid cmz_value_add_i64s(cmz_module *m, cmz_gid g, const int64_t *values, uint32_t count);
/* Rank 0 */
cmz_vid cmz_value_add_scalar(cmz_module *m, cmz_gid g, cmz_dtype dtype, double value);
/* Copies SHAPE */
void cmz_value_set_type(cmz_module *m, cmz_vid v, cmz_dtype dtype, uint32_t rank,
                        const cmz_dim *shape);
/* Any kind; copies the shape */
void cmz_value_set_full_type(cmz_module *m, cmz_vid v, const cmz_type *type);
/* copies */
void cmz_value_set_elements(cmz_module *m, cmz_vid v, const cmz_dim *elements, uint32_t count);
/* NULL when not constant or v is 0 */
const cmz_constant *cmz_value_constant(const cmz_module *m, cmz_vid v);
/* Content of an integer or bool tensor of at most 1024 elements as dims: constants (interned here),
 * or known symbolic elements. NULL when neither. */
const cmz_dim *cmz_value_elements(cmz_module *m, cmz_vid v, uint32_t *count);
/* The same, and when the content is only known at run time, new CMZ_SYMBOL_DATA symbols that stand
 * for it. NULL only when V's own shape is not static or has more than 64 elements. */
const cmz_dim *cmz_value_demand_elements(cmz_module *m, cmz_vid v, uint32_t *count);
/* Number of elements of V's type */
cmz_dim cmz_value_element_product(cmz_module *m, cmz_vid v);
/* False when any dim is symbolic */
bool cmz_value_static_shape(const cmz_module *m, cmz_vid v, int64_t *shape);
/* Uses and graph outputs */
void cmz_value_replace_uses(cmz_module *m, cmz_vid old_value, cmz_vid new_value);

/* ---- nodes ---- */
/* Appends a node; copies the arrays. Outputs given as 0 stay absent. Op must be a row of the op
 * table. */
cmz_nid cmz_node_add(cmz_module *m, cmz_gid g, const struct cmz_op *op, const char *name,
                     uint32_t input_count, const cmz_vid *inputs, uint32_t output_count,
                     const cmz_vid *outputs);
/* The same, placed before node BEFORE in its graph. */
cmz_nid cmz_node_insert(cmz_module *m, cmz_nid before, const struct cmz_op *op, const char *name,
                        uint32_t input_count, const cmz_vid *inputs, uint32_t output_count,
                        const cmz_vid *outputs);
/* Grows the list when needed */
void cmz_node_set_input(cmz_module *m, cmz_nid n, uint32_t index, cmz_vid v);
void cmz_node_remove(cmz_module *m, cmz_nid n); /* its outputs must have no uses */
/* N also stands for FROM's source nodes */
void cmz_node_add_source(cmz_module *m, cmz_nid n, cmz_nid from);
cmz_loc cmz_node_loc(const cmz_module *m, cmz_nid n);
/* Restores topological order after insertions; CMZ_E_INPUT, naming a node, when the graph has a
 * cycle. */
cmz_status cmz_graph_sort(cmz_module *m, cmz_gid g);

const cmz_attr *cmz_node_attr(const cmz_node *n, const char *name); /* NULL when absent */
int64_t cmz_node_int(const cmz_node *n, const char *name, int64_t otherwise);
double cmz_node_float(const cmz_node *n, const char *name, double otherwise);
const char *cmz_node_string(const cmz_node *n, const char *name, const char *otherwise);
/* NULL, 0 when absent */
const int64_t *cmz_node_ints(const cmz_node *n, const char *name, uint32_t *count);
/* Adds or replaces; copies */
void cmz_node_set_attr(cmz_module *m, cmz_nid n, const cmz_attr *attr);
void cmz_node_set_int(cmz_module *m, cmz_nid n, const char *name, int64_t v);
void cmz_node_set_float(cmz_module *m, cmz_nid n, const char *name, double v);
void cmz_node_set_string(cmz_module *m, cmz_nid n, const char *name, const char *v);
void cmz_node_set_ints(cmz_module *m, cmz_nid n, const char *name, const int64_t *v,
                       uint32_t count);
void cmz_node_remove_attr(cmz_module *m, cmz_nid n, const char *name);
/* Input/output ids, 0 when past the end. */
static inline cmz_vid cmz_node_input(const cmz_node *n, uint32_t i) {
  return i < n->input_count ? n->inputs[i] : 0;
}
static inline cmz_vid cmz_node_output(const cmz_node *n, uint32_t i) {
  return i < n->output_count ? n->outputs[i] : 0;
}

/* ---- whole module ---- */
/* Checks every invariant above; CMZ_E_INTERNAL with a message that names the culprit. */
cmz_status cmz_module_verify(const cmz_module *m);
/* The same with another CODE: of a module that someone else has written. */
cmz_status cmz_module_check(const cmz_module *m, cmz_status code);
/* The .cmz text form. Constants above 64 bytes are written as references into WEIGHTS when it is
 * not NULL, else elided as `dense<...>` with a hash (not parseable). text.c documents the grammar.
 */
void cmz_module_print(const cmz_module *m, cmz_text *text, cmz_text *weights);
cmz_status cmz_module_parse(cmz_context *ctx, const char *file, const char *text, size_t size,
                            const cmz_file *weights, cmz_module **module);
/* A copy with the same ids in the same context, in an arena of its own: for --check-passes and
 * tapped clones. It shares what never changes (names, bytes) with M, which it must not outlive. */
cmz_module *cmz_module_clone(const cmz_module *m);

#endif
