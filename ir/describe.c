/* describe.c - from graph nodes to kernel descriptions: the root's expression with its fused
 * producers in place, loads and stores through the layouts of the values they touch. In: a module
 * whose types are inferred, a root node, which values are fused. Out: a kernel and what its
 * operands and parameters are bound to. Always holds: operands and parameters are unique per value
 * and size; the same element of the same fused value is one expression, however many consumers read
 * it. */
#include "kernel_internal.h"
#include "module.h"
#include "op.h"

#include <ctype.h>
#include <math.h>

typedef struct memo_entry {
  struct memo_entry *next;
  cmz_vid value;
  uint32_t rank;
  const cmz_expr *idx;
  cmz_expr expr;
} memo_entry;

enum { MEMO_BUCKETS = 256, NAME_LIMIT = 56 };

struct cmz_describe {
  cmz_module *module;
  cmz_kernel *kernel;
  cmz_arena *arena;
  const bool *fused;
  cmz_nid node; /* being described */
  cmz_nid root;
  cmz_status status;
  CMZ_VEC(cmz_vid) operand_values;
  CMZ_VEC(cmz_dim) params;
  CMZ_VEC(cmz_nid) nodes;
  memo_entry *memo[MEMO_BUCKETS];
};

cmz_kernel *cmz_describe_kernel(cmz_describe *d) { return d->kernel; }
struct cmz_module *cmz_describe_module(cmz_describe *d) {
  return d->module;
}

cmz_expr cmz_describe_fail(cmz_describe *d, const char *format, ...) {
  if (d->status != CMZ_OK) return 0;
  va_list args;
  va_start(args, format);
  const char *message = cmz_arena_vprintf(d->arena, format, args);
  va_end(args);
  d->status = cmz_node_fail(d->module, d->node, CMZ_E_UNSUPPORTED, "%s", message);
  return 0;
}

/* ---- sizes ---- */

static cmz_expr size_param(cmz_describe *d, cmz_dim dim) {
  uint32_t i = 0;
  while (i < d->params.count && d->params.data[i] != dim) i++;
  if (i == d->params.count) cmz_vec_push(d->arena, &d->params, dim);
  return cmz_x_param(d->kernel, i);
}

/* Products stay visible, so that indices divide by their factors; any other size is one parameter.
 * Parameters are never negative: what may be negative is a sum of such, or the difference of its
 * two halves. */
cmz_expr cmz_describe_dim(cmz_describe *d, cmz_dim dim) {
  cmz_dims *dims = d->module->dims;
  cmz_kernel *k = d->kernel;
  int64_t value, low, high;
  if (cmz_dim_is_const(dims, dim, &value)) return cmz_x_index(k, value);
  cmz_dim_range(dims, dim, &low, &high);
  const cmz_dim_node n = *cmz_dim_get(dims, dim);
  if (n.kind == CMZ_DIM_MUL || (low < 0 && n.kind == CMZ_DIM_ADD)) {
    cmz_expr_op op = n.kind == CMZ_DIM_MUL ? CMZ_X_MUL : CMZ_X_ADD;
    cmz_expr result = cmz_describe_dim(d, n.args[0]);
    for (uint32_t i = 1; i < n.arg_count; i++)
      result = cmz_x2(k, op, result, cmz_describe_dim(d, n.args[i]));
    return result;
  }
  if (low >= 0) return size_param(d, dim);
  cmz_dim zero = cmz_dim_const(dims, 0);
  cmz_expr above = size_param(d, cmz_dim_max(dims, dim, zero));
  cmz_expr below = size_param(d, cmz_dim_max(dims, cmz_dim_sub(dims, zero, dim), zero));
  return cmz_x2(k, CMZ_X_SUB, above, below);
}

cmz_expr cmz_describe_reduce_axis(cmz_describe *d, cmz_dim extent, uint16_t *axis) {
  *axis = cmz_kernel_add_axis(d->kernel, CMZ_AXIS_REDUCE, cmz_describe_dim(d, extent));
  return cmz_x_axis(d->kernel, *axis);
}

cmz_expr cmz_describe_linear(cmz_describe *d, const cmz_dim *shape, uint32_t rank,
                             const cmz_expr *idx) {
  cmz_kernel *k = d->kernel;
  cmz_expr linear = cmz_x_index(k, 0);
  for (uint32_t i = 0; i < rank; i++) {
    linear = cmz_x2(k, CMZ_X_MUL, linear, cmz_describe_dim(d, shape[i]));
    linear = cmz_x2(k, CMZ_X_ADD, linear, idx[i]);
  }
  return linear;
}

void cmz_describe_delinear(cmz_describe *d, const cmz_dim *shape, uint32_t rank, cmz_expr linear,
                           cmz_expr *idx) {
  cmz_kernel *k = d->kernel;
  for (uint32_t i = rank; i-- > 0;) {
    cmz_expr extent = cmz_describe_dim(d, shape[i]);
    int64_t one;
    if (i == 0) idx[i] = linear;
    else if (cmz_x_is_int(k, extent, &one) && one == 1) idx[i] = cmz_x_index(k, 0);
    else {
      idx[i] = cmz_x2(k, CMZ_X_MOD, linear, extent);
      linear = cmz_x2(k, CMZ_X_FLOORDIV, linear, extent);
    }
  }
}

/* ---- operands ---- */

static uint16_t operand_of(cmz_describe *d, cmz_vid v, uint8_t access) {
  cmz_kernel *k = d->kernel;
  for (uint32_t i = 0; i < d->operand_values.count; i++)
    if (d->operand_values.data[i] == v) {
      k->operands.data[i].access |= access;
      return (uint16_t)i;
    }
  const cmz_value *value = cmz_value_get(d->module, v);
  const cmz_type *type = &value->type;
  cmz_dtype dtype = type->dtype;
  uint32_t bits = cmz_dtype_info(dtype)->bits;
  cmz_dim elements = cmz_layout_elements(d->module->dims, &value->layout, type->rank, type->shape);
  cmz_expr count = cmz_describe_dim(d, elements);
  if (bits && bits < 8) { /* packed: the kernel sees bytes */
    count = cmz_x2(k, CMZ_X_ADD, count, cmz_x_index(k, 8 / bits - 1));
    count = cmz_x2(k, CMZ_X_FLOORDIV, count, cmz_x_index(k, 8 / bits));
    dtype = CMZ_U8;
  }
  if (dtype == CMZ_STRING) dtype = CMZ_U64;
  cmz_vec_push(d->arena, &d->operand_values, v);
  return cmz_kernel_add_operand(k, dtype, access, value->constant != 0, count);
}

/* Linear element index of logical coordinates under V's layout. */
static cmz_expr value_index(cmz_describe *d, cmz_vid v, const cmz_expr *idx) {
  cmz_kernel *k = d->kernel;
  const cmz_value *value = cmz_value_get(d->module, v);
  const cmz_layout *layout = &value->layout;
  const cmz_type type = value->type;
  if (!layout->count) return cmz_describe_linear(d, type.shape, type.rank, idx);
  cmz_dim extents[CMZ_LAYOUT_MAX_AXES + CMZ_MAX_RANK];
  cmz_expr physical[CMZ_LAYOUT_MAX_AXES];
  uint32_t count = cmz_layout_extents(d->module->dims, layout, type.rank, type.shape, extents);
  for (uint32_t j = 0; j < layout->count; j++) {
    const cmz_layout_axis *a = &layout->axes[j];
    cmz_expr c = idx[a->axis];
    if (a->div > 1) c = cmz_x2(k, CMZ_X_FLOORDIV, c, cmz_x_index(k, a->div));
    if (a->mod) c = cmz_x2(k, CMZ_X_MOD, c, cmz_x_index(k, a->mod));
    physical[j] = c;
  }
  return cmz_describe_linear(d, extents, count, physical);
}

/* Element of a packed sub-byte tensor. */
static cmz_expr load_packed(cmz_describe *d, uint16_t operand, cmz_dtype dtype, cmz_expr index) {
  cmz_kernel *k = d->kernel;
  const cmz_dtype_row *row = cmz_dtype_info(dtype);
  int64_t each = 8 / row->bits;
  cmz_expr byte = cmz_x_load(k, operand, cmz_x2(k, CMZ_X_FLOORDIV, index, cmz_x_index(k, each)));
  cmz_expr position = cmz_x2(k, CMZ_X_MOD, index, cmz_x_index(k, each));
  cmz_expr shift =
      cmz_x_cast(k, cmz_x2(k, CMZ_X_MUL, position, cmz_x_index(k, row->bits)), CMZ_I32);
  cmz_expr bits = cmz_x2(k, CMZ_X_SHR, byte, shift);
  if (row->class_ == CMZ_CLASS_FLOAT) return cmz_x_f4_of_code(k, cmz_x_cast(k, bits, CMZ_I32));
  return cmz_x_cast(k, cmz_x_cast_through(k, bits, dtype), row->compute);
}

/* Notes whole blocked dimensions of V that a reduction axis runs over: its padding reads zero. */
static void note_padding(cmz_describe *d, cmz_vid v, const cmz_expr *idx, cmz_expr load) {
  cmz_kernel *k = d->kernel;
  const cmz_value *value = cmz_value_get(d->module, v);
  for (uint32_t j = 0; j < value->layout.count; j++) {
    const cmz_layout_axis *a = &value->layout.axes[j];
    const cmz_expr_node *n = cmz_x_get(k, idx[a->axis]);
    if (a->div <= 1 || a->mod || n->op != CMZ_X_AXIS) continue;
    if (k->axes.data[n->i].extent != cmz_describe_dim(d, value->type.shape[a->axis])) continue;
    cmz_padded_load padded = {load, (uint16_t)n->i, a->div};
    cmz_vec_push(k->arena, &cmz_pool(k)->padded, padded);
  }
}

/* Scalars of the model become part of the kernel. */
static cmz_expr immediate(cmz_describe *d, const cmz_constant *c) {
  const cmz_dtype_row *row = cmz_dtype_info(c->dtype);
  if (row->class_ == CMZ_CLASS_FLOAT)
    return cmz_x_float(d->kernel, row->compute, cmz_dtype_get_f64(c->dtype, c->data, 0));
  return cmz_x_int(d->kernel, row->compute, cmz_dtype_get_i64(c->dtype, c->data, 0));
}

static cmz_expr load_value(cmz_describe *d, cmz_vid v, const cmz_expr *idx) {
  const cmz_value *value = cmz_value_get(d->module, v);
  const cmz_dtype_row *row = cmz_dtype_info(value->type.dtype);
  /* Strings are moved as the pointers that they are; nothing else is done with them here. */
  bool string = row->class_ == CMZ_CLASS_STRING;
  const cmz_op *reader = cmz_node_get(d->module, d->node)->op;
  if (row->class_ == CMZ_CLASS_NONE || row->class_ == CMZ_CLASS_COMPLEX ||
      (string && !(reader->flags & CMZ_OP_MOVEMENT) && strcmp(reader->name, "Where") != 0))
    return cmz_describe_fail(d, "tensor \"%s\" of type %s cannot be read by a kernel", value->name,
                             row->name);
  const cmz_constant *c = cmz_value_constant(d->module, v);
  if (c && c->data && !c->layout.count && !string) {
    int64_t count = 1;
    for (uint32_t i = 0; i < c->rank; i++) count *= c->shape[i] == 1 ? 1 : 2;
    if (count == 1) return immediate(d, c);
  }
  uint16_t operand = operand_of(d, v, CMZ_READ);
  cmz_expr index = value_index(d, v, idx);
  if (row->bits < 8 && !string) return load_packed(d, operand, value->type.dtype, index);
  cmz_expr load = cmz_x_load(d->kernel, operand, index);
  note_padding(d, v, idx, load);
  return load;
}

/* ---- producers ---- */

static void add_node(cmz_describe *d, cmz_nid n) {
  for (uint32_t i = 0; i < d->nodes.count; i++)
    if (d->nodes.data[i] == n) return;
  cmz_vec_push(d->arena, &d->nodes, n);
}

/* Element IDX of output OUTPUT of node N, by its op's describe; the type is checked. */
static cmz_expr describe_output(cmz_describe *d, cmz_nid n, uint32_t output, const cmz_expr *idx) {
  cmz_nid consumer = d->node;
  d->node = n;
  const cmz_node node = *cmz_node_get(d->module, n); /* the pool may move */
  cmz_expr e = 0;
  if (!node.op->describe) cmz_describe_fail(d, "operator %s has no kernel", node.op->name);
  else e = node.op->describe(d, &node, output, idx);
  if (d->status != CMZ_OK) e = 0;
  if (e && node.outputs[output]) {
    cmz_dtype want =
        cmz_dtype_info(cmz_value_get(d->module, node.outputs[output])->type.dtype)->compute;
    if (want == CMZ_STRING) want = CMZ_U64;
    cmz_dtype have = (cmz_dtype)cmz_x_get(d->kernel, e)->dtype;
    if (have != want) {
      d->status = cmz_node_fail(d->module, n, CMZ_E_INTERNAL,
                                "kernel expression of output %" PRIu32 " is %s, not %s", output,
                                cmz_dtype_info(have)->name, cmz_dtype_info(want)->name);
      e = 0;
    }
  } else if (!e && d->status == CMZ_OK)
    d->status = cmz_node_fail(d->module, n, CMZ_E_INTERNAL, "operator %s gave no kernel expression",
                              node.op->name);
  d->node = consumer;
  return e;
}

/* A fused value narrower than its compute type keeps its stored precision only for integers: they
 * must wrap; floats stay in the wider type, as a fused kernel should. */
static cmz_expr as_stored(cmz_describe *d, cmz_vid v, cmz_expr e) {
  cmz_dtype dtype = cmz_value_get(d->module, v)->type.dtype;
  if (!e || !cmz_dtype_is_int(dtype) || cmz_dtype_info(dtype)->compute == dtype) return e;
  return cmz_x_cast_through(d->kernel, e, dtype);
}

static cmz_expr fused_value(cmz_describe *d, cmz_vid v, const cmz_expr *idx) {
  const cmz_value *value = cmz_value_get(d->module, v);
  uint32_t rank = value->type.rank, output = value->output;
  cmz_nid producer = value->producer;
  size_t bytes = rank * sizeof *idx;
  memo_entry **bucket = &d->memo[cmz_hash64(idx, bytes, v) % MEMO_BUCKETS];
  for (memo_entry *m = *bucket; m; m = m->next)
    if (m->value == v && m->rank == rank && !memcmp(m->idx, idx, bytes)) return m->expr;
  cmz_expr e = as_stored(d, v, describe_output(d, producer, output, idx));
  if (!e) return 0;
  add_node(d, producer);
  memo_entry *m = CMZ_NEW(d->arena, memo_entry);
  *m = (memo_entry){*bucket, v, rank, cmz_arena_copy(d->arena, idx, bytes), e};
  *bucket = m;
  return e;
}

cmz_expr cmz_describe_input(cmz_describe *d, uint32_t input, const cmz_expr *idx) {
  if (d->status != CMZ_OK) return 0;
  cmz_vid v = cmz_node_input(cmz_node_get(d->module, d->node), input);
  if (!v) return cmz_describe_fail(d, "input %" PRIu32 " is absent", input);
  const cmz_value *value = cmz_value_get(d->module, v);
  if (d->fused && d->fused[v] && value->producer) return fused_value(d, v, idx);
  return load_value(d, v, idx);
}

cmz_expr cmz_describe_single(cmz_describe *d, uint32_t input) {
  cmz_expr idx[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < CMZ_MAX_RANK; i++) idx[i] = cmz_x_index(d->kernel, 0);
  return cmz_describe_input(d, input, idx);
}

cmz_expr cmz_describe_broadcast(cmz_describe *d, uint32_t input, const cmz_expr *idx,
                                uint32_t rank) {
  if (d->status != CMZ_OK) return 0;
  cmz_kernel *k = d->kernel;
  const cmz_node *n = cmz_node_get(d->module, d->node);
  cmz_vid v = cmz_node_input(n, input), out = cmz_node_output(n, 0);
  if (!v) return cmz_describe_fail(d, "input %" PRIu32 " is absent", input);
  const cmz_type type = cmz_value_get(d->module, v)->type;
  const cmz_type *result = out ? &cmz_value_get(d->module, out)->type : NULL;
  if (type.rank > rank || rank > CMZ_MAX_RANK)
    return cmz_describe_fail(d, "input %" PRIu32 " has more dimensions than the output", input);
  cmz_expr own[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < type.rank; i++) {
    uint32_t at = rank - type.rank + i;
    cmz_dim dim = type.shape[i];
    int64_t low, high;
    cmz_dim_range(d->module->dims, dim, &low, &high);
    own[i] = idx[at];
    if (low == 1 && high == 1) own[i] = cmz_x_index(k, 0);
    else if (low <= 1 && !(result && result->rank == rank && result->shape[at] == dim)) {
      /* Known at run time: 1, or the output's size. */
      cmz_expr last = cmz_x2(k, CMZ_X_SUB, cmz_describe_dim(d, dim), cmz_x_index(k, 1));
      own[i] = cmz_x2(k, CMZ_X_MIN, idx[at], last);
    }
  }
  return cmz_describe_input(d, input, own);
}

uint16_t cmz_describe_output(cmz_describe *d, uint32_t output, uint8_t access) {
  cmz_vid v = cmz_node_output(cmz_node_get(d->module, d->node), output);
  const cmz_dtype_row *row = cmz_dtype_info(cmz_value_get(d->module, v)->type.dtype);
  bool whole = row->bits >= 8 || row->class_ == CMZ_CLASS_STRING;
  if (!v || !whole || row->class_ == CMZ_CLASS_COMPLEX)
    cmz_describe_fail(d, "a tensor of type %s cannot be written by a kernel", row->name);
  return operand_of(d, v, access);
}

cmz_expr cmz_describe_output_index(cmz_describe *d, uint32_t output, const cmz_expr *idx) {
  return value_index(d, cmz_node_output(cmz_node_get(d->module, d->node), output), idx);
}

/* ---- stores ---- */

typedef struct domain {
  uint32_t count;
  uint16_t axes[CMZ_STORE_MAX_AXES];
  cmz_dim extents[CMZ_STORE_MAX_AXES];
} domain;

/* Axes of the physical elements of V: those of BEFORE when the extents agree. */
static void store_domain(cmz_describe *d, cmz_vid v, const domain *before, domain *out) {
  const cmz_value *value = cmz_value_get(d->module, v);
  cmz_dims *dims = d->module->dims;
  out->count =
      cmz_layout_extents(dims, &value->layout, value->type.rank, value->type.shape, out->extents);
  if (!out->count) out->extents[out->count++] = cmz_dim_const(dims, 1);
  if (out->count == before->count &&
      !memcmp(out->extents, before->extents, out->count * sizeof out->extents[0])) {
    *out = *before;
    return;
  }
  for (uint32_t i = 0; i < out->count; i++)
    out->axes[i] =
        cmz_kernel_add_axis(d->kernel, CMZ_AXIS_PARALLEL, cmz_describe_dim(d, out->extents[i]));
}

/* Packed elements: a store writes a byte, which holds several elements, lowest first; what lies
 * past the last element is zero. */
static cmz_status store_packed(cmz_describe *d, cmz_nid n, uint32_t output, cmz_vid v) {
  cmz_kernel *k = d->kernel;
  const cmz_type type = cmz_value_get(d->module, v)->type;
  const cmz_dtype_row *row = cmz_dtype_info(type.dtype);
  int64_t each = 8 / row->bits;
  if (cmz_value_get(d->module, v)->layout.count) {
    cmz_describe_fail(d, "a tensor of type %s cannot be written by a kernel", row->name);
    return d->status;
  }
  cmz_dims *dims = d->module->dims;
  cmz_dim count = cmz_dim_product(dims, type.shape, type.rank);
  cmz_expr total = cmz_describe_dim(d, count);
  cmz_dim bytes = cmz_dim_ceildiv(dims, count, cmz_dim_const(dims, each));
  uint16_t axis = cmz_kernel_add_axis(k, CMZ_AXIS_PARALLEL, cmz_describe_dim(d, bytes));
  cmz_expr first = cmz_x2(k, CMZ_X_MUL, cmz_x_axis(k, axis), cmz_x_index(k, each));
  cmz_expr byte = cmz_x_int(k, CMZ_I32, 0);
  for (int64_t i = 0; i < each; i++) {
    cmz_expr linear = cmz_x2(k, CMZ_X_ADD, first, cmz_x_index(k, i)), idx[CMZ_MAX_RANK];
    cmz_describe_delinear(d, type.shape, type.rank, linear, idx);
    cmz_expr value = describe_output(d, n, output, idx);
    CMZ_TRY(d->status);
    value =
        row->class_ == CMZ_CLASS_FLOAT ? cmz_x_code_of_f4(k, value) : cmz_x_cast(k, value, CMZ_I32);
    value = cmz_x2(k, CMZ_X_AND, value, cmz_x_int(k, CMZ_I32, (1 << row->bits) - 1));
    value = cmz_x2(k, CMZ_X_SHL, value, cmz_x_int(k, CMZ_I32, i * row->bits));
    cmz_expr inside = cmz_x2(k, CMZ_X_LT, linear, total);
    byte = cmz_x2(k, CMZ_X_OR, byte, cmz_x_select(k, inside, value, cmz_x_int(k, CMZ_I32, 0)));
  }
  cmz_store store = {.axis_count = 1,
                     .axes = {axis},
                     .mode = CMZ_STORE_SET,
                     .index = cmz_x_axis(k, axis),
                     .value = byte};
  d->node = n;
  store.operand = operand_of(d, v, CMZ_WRITE);
  cmz_vec_push(k->arena, &k->stores, store);
  return CMZ_OK;
}

/* E within what DTYPE's finite numbers hold. */
static cmz_expr saturated(cmz_describe *d, cmz_dtype dtype, cmz_expr e) {
  const cmz_dtype_row *row = cmz_dtype_info(dtype);
  double most = ldexp(2 - ldexp(1, -row->mantissa_bits), (1 << (row->exponent_bits - 1)) - 1);
  cmz_kernel *k = d->kernel;
  e = cmz_x2(k, CMZ_X_MIN, e, cmz_x_float(k, row->compute, most));
  return cmz_x2(k, CMZ_X_MAX, e, cmz_x_float(k, row->compute, -most));
}

static cmz_status store_output(cmz_describe *d, cmz_nid n, uint32_t output, domain *shared) {
  cmz_kernel *k = d->kernel;
  cmz_vid v = cmz_node_get(d->module, n)->outputs[output];
  uint8_t bits = cmz_dtype_info(cmz_value_get(d->module, v)->type.dtype)->bits;
  if (bits && bits < 8) return store_packed(d, n, output, v);
  domain dom;
  store_domain(d, v, shared, &dom);
  *shared = dom;
  const cmz_type type = cmz_value_get(d->module, v)->type;
  const cmz_layout layout = cmz_value_get(d->module, v)->layout;
  cmz_expr axes[CMZ_STORE_MAX_AXES], idx[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < dom.count; i++) axes[i] = cmz_x_axis(k, dom.axes[i]);
  cmz_expr inside = cmz_x_int(k, CMZ_BOOL, 1);
  if (!layout.count) memcpy(idx, axes, type.rank * sizeof *idx);
  else {
    for (uint32_t i = 0; i < type.rank; i++) idx[i] = cmz_x_index(k, 0);
    for (uint32_t j = 0; j < layout.count; j++) {
      cmz_expr part =
          cmz_x2(k, CMZ_X_MUL, axes[j], cmz_x_index(k, CMZ_MAX(layout.axes[j].div, 1u)));
      idx[layout.axes[j].axis] = cmz_x2(k, CMZ_X_ADD, idx[layout.axes[j].axis], part);
    }
    for (uint32_t j = 0; j < layout.count; j++) { /* only split axes can have padding */
      const cmz_layout_axis *a = &layout.axes[j];
      if (a->div <= 1 || a->mod) continue;
      cmz_expr in = cmz_x2(k, CMZ_X_LT, idx[a->axis], cmz_describe_dim(d, type.shape[a->axis]));
      inside = cmz_x2(k, CMZ_X_AND, inside, in);
    }
  }
  cmz_expr value = describe_output(d, n, output, idx);
  CMZ_TRY(d->status);
  if (cmz_value_get(d->module, v)->saturates) value = saturated(d, type.dtype, value);
  cmz_store store = {.axis_count = dom.count, .mode = CMZ_STORE_SET};
  memcpy(store.axes, dom.axes, dom.count * sizeof dom.axes[0]);
  d->node = n;
  store.operand = cmz_describe_output(d, output, CMZ_WRITE);
  CMZ_TRY(d->status);
  store.index = cmz_describe_linear(d, dom.extents, dom.count, axes);
  cmz_expr zero = cmz_x_const(k, (cmz_dtype)cmz_x_get(k, value)->dtype, 0);
  store.value = cmz_x_select(k, inside, value, zero);
  cmz_vec_push(k->arena, &k->stores, store);
  return CMZ_OK;
}

/* ---- reports ---- */

static const char *kernel_name(cmz_describe *d) {
  cmz_text text = {.arena = d->arena};
  for (uint32_t i = 0; i < d->nodes.count && text.length < NAME_LIMIT; i++) {
    cmz_nid n = d->nodes.data[i];
    bool last = i + 1 == d->nodes.count;
    const cmz_op *op = cmz_node_get(d->module, n)->op;
    if (!last && (op->flags & CMZ_OP_MOVEMENT)) continue;
    if (text.length) cmz_text_add(&text, "_");
    for (const char *c = op->name; *c; c++) {
      char low = (char)(isalnum((unsigned char)*c) ? tolower((unsigned char)*c) : '_');
      cmz_text_add_bytes(&text, &low, 1);
    }
  }
  return text.data ? text.data : "kernel";
}

/* Value of a size expression with every parameter at its hint. */
static double size_hint(const cmz_describe *d, cmz_expr e) {
  const cmz_expr_node *n = cmz_x_get(d->kernel, e);
  int64_t hint = 1;
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_CONST_INT:
    return (double)n->i;
  case CMZ_X_PARAM:
    return cmz_dim_hint(d->module->dims, d->params.data[n->i], &hint) ? (double)hint : 1;
  case CMZ_X_ADD:
    return size_hint(d, n->args[0]) + size_hint(d, n->args[1]);
  case CMZ_X_MUL:
    return size_hint(d, n->args[0]) * size_hint(d, n->args[1]);
  default:
    return 1;
  }
}

/* Counts each float operation once per combination of the axes it uses. */
static double count_flops(const cmz_describe *d, cmz_expr e, bool *seen) {
  const cmz_kernel *k = d->kernel;
  if (!e || seen[e]) return 0;
  seen[e] = true;
  const cmz_expr_node *n = cmz_x_get(k, e);
  double total = 0;
  for (int i = 0; i < 3; i++) total += count_flops(d, n->args[i], seen);
  bool works = n->op > CMZ_X_REDUCE && n->op != CMZ_X_SELECT && n->op != CMZ_X_CAST &&
               n->op != CMZ_X_BITCAST && n->dtype != CMZ_I64 && n->dtype != CMZ_BOOL;
  if (!works && n->op != CMZ_X_REDUCE) return total;
  cmz_expr scope = n->op == CMZ_X_REDUCE ? n->args[0] : e;
  double times = 1;
  for (uint16_t a = 0; a < k->axes.count; a++)
    if (cmz_x_uses_axis(k, scope, a)) times *= size_hint(d, k->axes.data[a].extent);
  return total + times;
}

cmz_status cmz_describe_node(struct cmz_module *m, uint32_t root, const bool *fused,
                             cmz_arena *arena, cmz_described *out) {
  cmz_describe *d = CMZ_NEW(arena, cmz_describe);
  d->module = m;
  d->arena = arena;
  d->fused = fused;
  d->node = d->root = root;
  d->kernel = cmz_kernel_create(arena, "");
  const cmz_op *op = cmz_node_get(m, root)->op;
  if (op->describe_kernel) {
    const cmz_node node = *cmz_node_get(m, root);
    cmz_status status = op->describe_kernel(d, &node);
    CMZ_TRY(d->status);
    CMZ_TRY(status);
  } else {
    domain shared = {0};
    for (uint32_t i = 0; i < cmz_node_get(m, root)->output_count; i++)
      if (cmz_node_get(m, root)->outputs[i]) CMZ_TRY(store_output(d, root, i, &shared));
  }
  add_node(d, root);
  cmz_kernel *k = d->kernel;
  k->name = kernel_name(d);
  bool *seen = CMZ_NEW_ARRAY(arena, bool, k->exprs.count);
  double flops = 0;
  for (uint32_t s = 0; s < k->stores.count; s++)
    flops += count_flops(d, k->stores.data[s].value, seen);
  k->flops = flops < 1.8e19 ? (uint64_t)flops : UINT64_MAX;
  *out = (cmz_described){k, d->operand_values.data, d->params.data, d->nodes.data, d->nodes.count};
  return CMZ_OK;
}
