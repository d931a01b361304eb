/* op.h - the operator table: one row and its functions per operator, in ir/ops/FAMILY.c.
 * A row says everything about an operator: names and versions, arity, inference, reference
 * evaluation, and either its expansion into simpler operators or its kernel expression. Adding an
 * operator touches one file. Internal operators (made by passes) have the domain "cmz". */
#ifndef CMZ_IR_OP_H
#define CMZ_IR_OP_H

#include "kernel.h"
#include "module.h"

/* A concrete tensor for reference evaluation: plain row-major. */
typedef struct cmz_array {
  cmz_dtype dtype;
  uint32_t rank;
  int64_t shape[CMZ_MAX_RANK];
  void *data; /* NULL: an absent optional */
} cmz_array;

typedef enum cmz_op_flags {
  /* Output element i depends on element i of each (broadcast) input only */
  CMZ_OP_POINTWISE = 1 << 0,
  /* Output elements are copies of input elements (or a fill); no arithmetic */
  CMZ_OP_MOVEMENT = 1 << 1,
  /* Output 0 is input 0's bytes unchanged (Reshape, Squeeze …): no kernel when plain */
  CMZ_OP_VIEW = 1 << 2,
  /* Reads many elements per output element, no multiply-accumulate of two operands */
  CMZ_OP_REDUCTION = 1 << 3,
  CMZ_OP_CONTRACTION = 1 << 4, /* sum of products of two operands: matmul, convolution */
  CMZ_OP_CONTROL = 1 << 5,     /* has subgraphs: If, Loop, Scan */
  /* An op in C of the runtime's closed table; `runtime` names it. A size it reports is a
   * CMZ_SYMBOL_DATA symbol with element -1 - axis: dimension AXIS of that output. Control ops make
   * the same symbols for sizes that vary. */
  CMZ_OP_RUNTIME = 1 << 6,
  /* Output 0 is input 0's buffer, updated; input 0 has no other use */
  CMZ_OP_IN_PLACE = 1 << 7,
  CMZ_OP_RANDOM = 1 << 8, /* not a pure function: never folded or merged */
  CMZ_OP_COMMUTATIVE = 1 << 9,
  /* Recomputing it per use is cheaper than storing it (casts, adds, compares, movement) */
  CMZ_OP_CHEAP = 1 << 10,
  /* Reads a compressed weight: never folded; inside its consumer's kernel, unless many rows share
     it */
  CMZ_OP_DECODE = 1 << 11,
  /* Takes sequences and optionals, too. With CMZ_OP_RUNTIME it sets the dims of the tensors that it
     gives itself. */
  CMZ_OP_VALUES = 1 << 12,
} cmz_op_flags;

typedef struct cmz_eval cmz_eval; /* evaluator.h */

typedef struct cmz_op {
  const char *domain; /* "" is ai.onnx; "com.microsoft", "ai.onnx.ml", "cmz", … */
  const char *name;
  uint8_t min_inputs, max_inputs; /* 255: variadic */
  uint8_t min_outputs, max_outputs;
  /* First and last opset whose definition is handled (until 0: the newest known) */
  uint16_t since, until;
  uint32_t flags;
  /* Rewrites an older opset's form (attributes that became inputs, changed defaults) into the
   * newest form. Runs once, right after import, before inference. NULL: the forms agree. */
  cmz_status (*normalize)(cmz_module *m, cmz_nid n);
  /* Sets the types (and symbolic elements) of all outputs from the inputs. Errors are located at N.
   * Must accept symbolic dims. Rank of all inputs is known when called. */
  cmz_status (*infer)(cmz_module *m, cmz_nid n);
  /* Reference evaluation on concrete arrays with libm in double precision. Output dtype is set; the
   * function sets rank and shape and allocates data with cmz_eval_output. NULL: evaluated through
   * its expansion. */
  cmz_status (*eval)(cmz_eval *e, const cmz_node *n, const cmz_array *inputs, cmz_array *outputs);
  /* Rewrites the node into simpler nodes placed before it, replaces uses of its outputs, removes
   * it. Runs after inference; new nodes are inferred by the caller (cmz_infer_new). NULL: not
   * composite. May do nothing for forms that `describe` handles. */
  cmz_status (*expand)(cmz_module *m, cmz_nid n);
  /* Scalar expression of element IDX (one expr per dimension, integer) of output OUTPUT; inputs are
   * read with cmz_describe_input. 0 after an error was recorded with cmz_describe_fail. */
  cmz_expr (*describe)(cmz_describe *d, const cmz_node *n, uint32_t output, const cmz_expr *idx);
  /* For operators whose stores are not "one per output element" (scatter): adds axes and stores
   * itself, with cmz_describe_output for the operands. NULL for nearly all; then `describe` is
   * used. */
  cmz_status (*describe_kernel)(cmz_describe *d, const cmz_node *n);
  const char *runtime; /* CMZ_OP_RUNTIME: name in the runtime's table */
  /* What the operands must be, checked before `infer`: one letter per input; inputs with the same
   * letter have the same element type, '.' takes any; a digit after it is the rank. "TTT1": Conv.
   * NULL or past its end: not checked. */
  const char *operands;
  /* The attributes that models may give, with blanks between them: NAME:KIND, then '!' when it must
   * be there, '@' and the first opset that has it, '<' and the first that has it no more. KIND is
   * one of the letters of cmz_op_attr. "axes:I<13 keepdims:i". NULL: none. Checked where models are
   * read, not in passes. */
  const char *attributes;
} cmz_op;

/* One entry of a row's `attributes`. */
typedef struct cmz_op_attr {
  const char *name; /* LENGTH long, not terminated */
  size_t length;
  /* i f s t g: an int, a float, a string, a tensor, a graph; I F S T G: lists of them; x, X: sparse
   * tensors; p, P: types. */
  char kind;
  bool required;
} cmz_op_attr;

/* The row for an operator at an opset version of its domain; NULL when unknown (distinguish by
 * cmz_op_known). */
const cmz_op *cmz_op_find(const char *domain, const char *name, uint32_t opset);
bool cmz_op_known(const char *domain, const char *name);
/* The newest row of an op of the default or "cmz" domain that is known to exist: for passes. */
const cmz_op *cmz_op_get(const char *name);
/* All rows, for --list-ops and tests: index from 0, NULL at the end. */
const cmz_op *cmz_op_at(uint32_t index);

/* Walks the attributes that OP has at OPSET: *AT starts at op->attributes; false at the end. */
bool cmz_op_attr_next(const char **at, uint32_t opset, cmz_op_attr *out);

/* ---- inference helpers (infer.c) ---- */
/* Infers the types of node N / of every node of graph G and its subgraphs, in order. */
cmz_status cmz_infer_node(cmz_module *m, cmz_nid n);
cmz_status cmz_infer_graph(cmz_module *m, cmz_gid g);
/* Numpy broadcasting of all inputs [first, last) of N into SHAPE (CMZ_MAX_RANK long); CMZ_E_INPUT
 * when impossible. */
cmz_status cmz_infer_broadcast(cmz_module *m, cmz_nid n, uint32_t first, uint32_t last,
                               cmz_dim *shape, uint32_t *rank);
/* The size that A and B broadcast to; AXIS is for the message. */
cmz_status cmz_infer_broadcast_dim(cmz_module *m, cmz_nid n, cmz_dim a, cmz_dim b, uint32_t axis,
                                   cmz_dim *out);
/* Output OUTPUT of N has the type of input INPUT (with DTYPE unless that is CMZ_UNDEFINED). */
cmz_status cmz_infer_same(cmz_module *m, cmz_nid n, uint32_t output, uint32_t input,
                          cmz_dtype dtype);
/* Normalises AXIS against RANK; CMZ_E_INPUT located at N when out of range. */
cmz_status cmz_infer_axis(cmz_module *m, cmz_nid n, int64_t axis, uint32_t rank, uint32_t *out);
/* `return cmz_node_fail(m, n, code, fmt, …)`: an error located at node N. */
cmz_status cmz_node_fail(const cmz_module *m, cmz_nid n, cmz_status code, const char *format, ...)
    CMZ_PRINTF(4, 5);
/* Concrete i64 content of a constant input; false when not constant. At most CAPACITY. */
bool cmz_const_i64s(const cmz_module *m, cmz_vid v, int64_t *values, uint32_t capacity,
                    uint32_t *count);
/* A constant with exactly one element */
bool cmz_const_f64(const cmz_module *m, cmz_vid v, double *value);

/* ---- building expansions: each places a node before BEFORE, infers it, and gives its output 0 (0
 * after an error was recorded; an input that is 0 from an earlier failure gives 0 again, so that
 * calls chain) ---- */
/* With NODE: the node is only placed; set attributes, then call cmz_infer_node. */
cmz_vid cmz_build_node(cmz_module *m, cmz_nid before, const char *op, uint32_t input_count,
                       const cmz_vid *inputs, cmz_nid *node);
/* The same with attributes set before inference (attrs made with cmz_attr_int … below). */
cmz_vid cmz_build_with(cmz_module *m, cmz_nid before, const char *op, uint32_t input_count,
                       const cmz_vid *inputs, uint32_t attr_count, const cmz_attr *attrs);
static inline cmz_attr cmz_attr_int(const char *name, int64_t v) {
  return (cmz_attr){.name = name, .kind = CMZ_ATTR_INT, .i = v};
}
static inline cmz_attr cmz_attr_float(const char *name, double v) {
  return (cmz_attr){.name = name, .kind = CMZ_ATTR_FLOAT, .f = v};
}
static inline cmz_attr cmz_attr_string(const char *name, const char *v) {
  return (cmz_attr){.name = name, .kind = CMZ_ATTR_STRING, .s = v, .s_size = strlen(v)};
}
static inline cmz_attr cmz_attr_ints(const char *name, const int64_t *v, uint32_t count) {
  return (cmz_attr){.name = name, .kind = CMZ_ATTR_INTS, .ints = v, .count = count};
}
cmz_vid cmz_build1(cmz_module *m, cmz_nid before, const char *op, cmz_vid a);
cmz_vid cmz_build2(cmz_module *m, cmz_nid before, const char *op, cmz_vid a, cmz_vid b);
cmz_vid cmz_build3(cmz_module *m, cmz_nid before, const char *op, cmz_vid a, cmz_vid b, cmz_vid c);
/* A itself when it has that type */
cmz_vid cmz_build_cast(cmz_module *m, cmz_nid before, cmz_vid a, cmz_dtype to);
/* Rank-0 constant of LIKE's dtype */
cmz_vid cmz_build_scalar_like(cmz_module *m, cmz_nid before, cmz_vid like, double v);
cmz_vid cmz_build_transpose(cmz_module *m, cmz_nid before, cmz_vid a, const int64_t *perm,
                            uint32_t rank);
/* Reshape to static/symbolic dims (a Reshape whose shape input has these symbolic elements). */
cmz_vid cmz_build_reshape(cmz_module *m, cmz_nid before, cmz_vid a, const cmz_dim *shape,
                          uint32_t rank);
cmz_vid cmz_build_reduce(cmz_module *m, cmz_nid before, const char *op, cmz_vid a,
                         const int64_t *axes, uint32_t count, bool keepdims);
/* Replaces node N's output 0 by V everywhere and removes N (all other outputs must be unused or
 * replaced). V keeps N's name(s). */
void cmz_build_finish(cmz_module *m, cmz_nid n, cmz_vid v);

#endif
