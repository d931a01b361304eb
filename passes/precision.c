/* precision.c - --precision f16 and bf16: what kernels store and read as f32 takes 16 bits instead.
 * In: a module with fusion decided. Out: types of stored values, and contents of weights. Always
 * holds: kernels compute in f32 as before (the compute type of both), so no sum is shorter; inputs
 * and outputs of graphs, what control flow and the runtime's table touch, biases, scales,
 * statistics and what is made of integers alone (positions, masks, whose -3e38 f16 has not) stay
 * f32. What f16 cannot hold becomes its largest number, not an infinity. */
#include "fuse.h"

#define LARGEST_WEIGHT 32768.0f /* of a constant that may become f16, half of what f16 holds */

typedef struct narrowing {
  cmz_module *m;
  const bool *fused;
  bool *data; /* by vid: depends on float data, not on integers and small constants alone */
  cmz_dtype dtype;
} narrowing;

/* Whether constant V is a weight: a matrix or more, of ordinary numbers. */
static bool is_weight(const cmz_module *m, cmz_vid v) {
  const cmz_constant *c = cmz_value_constant(m, v);
  if (c == NULL || c->dtype != CMZ_F32 || c->rank < 2 || c->data == NULL) return false;
  const float *data = c->data;
  for (size_t i = 0, count = c->bytes / sizeof *data; i < count; i++)
    if (!(data[i] <= LARGEST_WEIGHT && data[i] >= -LARGEST_WEIGHT)) return false;
  return true;
}

static bool is_data(const narrowing *w, cmz_vid v) {
  const cmz_value *value = cmz_value_get(w->m, v);
  if (value->producer != 0) return w->data[v];
  return value->constant != 0 ? w->data[v] : cmz_dtype_is_float(value->type.dtype);
}

/* Marks what float data flows into, in the order of the nodes. */
static void mark_data(narrowing *w) {
  cmz_module *m = w->m;
  for (cmz_vid v = 1; v < m->values.count; v++)
    w->data[v] = !cmz_value_get(m, v)->removed && is_weight(m, v);
  for (cmz_gid g = 1; g < m->graphs.count; g++) {
    if (!cmz_pass_graph_alive(m, g)) continue;
    const cmz_graph *graph = cmz_graph_get(m, g);
    for (uint32_t i = 0; i < graph->nodes.count; i++) {
      const cmz_node *n = cmz_node_get(m, graph->nodes.data[i]);
      if (n->removed) continue;
      bool any = !cmz_fuse_is_kernel(n);
      for (uint32_t k = 0; k < n->input_count; k++)
        any |= n->inputs[k] != 0 && is_data(w, n->inputs[k]);
      for (uint32_t k = 0; k < n->output_count; k++)
        if (n->outputs[k] != 0) w->data[n->outputs[k]] = any;
    }
  }
}

/* A sum or mean over whole axes: few numbers, on which many depend. */
static bool is_statistic(const cmz_module *m, cmz_vid v) {
  const cmz_node *n = cmz_node_get(m, cmz_value_get(m, v)->producer);
  return (n->op->flags & CMZ_OP_REDUCTION) && cmz_node_attr(n, "kernel_shape") == NULL &&
         !cmz_pass_same_shape(m, n->inputs[0], v);
}

/* Whether kernels alone touch V, through expressions: those that describe a whole kernel, and
 * decodings, name the types of their operands. */
static bool kernels_only(const cmz_module *m, const cmz_value *value) {
  if (value->producer != 0) {
    const cmz_node *n = cmz_node_get(m, value->producer);
    if (!cmz_fuse_is_kernel(n) || n->op->describe == NULL) return false;
  }
  for (uint32_t i = 0; i < value->uses.count; i++) {
    const cmz_node *n = cmz_node_get(m, value->uses.data[i].node);
    if (!cmz_fuse_is_kernel(n) || n->op->describe == NULL || (n->op->flags & CMZ_OP_DECODE))
      return false;
  }
  return value->uses.count > 0 && value->output_uses == 0;
}

static bool is_narrowed(const narrowing *w, cmz_vid v) {
  const cmz_value *value = cmz_value_get(w->m, v);
  if (value->removed || w->fused[v] || value->type.kind != CMZ_KIND_TENSOR ||
      value->type.dtype != CMZ_F32 || !w->data[v] || !kernels_only(w->m, value))
    return false;
  return value->producer == 0 || !is_statistic(w->m, v);
}

static cmz_status narrow_constant(narrowing *w, cmz_vid v) {
  cmz_module *m = w->m;
  cmz_constant *c = cmz_constant_get(m, cmz_value_get(m, v)->constant);
  size_t count = c->bytes / sizeof(float), bytes;
  if (!cmz_dtype_bytes(w->dtype, count, &bytes))
    return cmz_fail(m->ctx, CMZ_E_INPUT, (cmz_loc){.file = m->file, .tensor = c->name},
                    "the tensor is too large");
  void *data = cmz_arena_alloc(m->arena, bytes);
  const float *from = c->data;
  for (size_t i = 0; i < count; i++) cmz_dtype_set_f64(w->dtype, data, i, from[i]);
  c->data = data;
  c->bytes = bytes;
  c->dtype = w->dtype;
  return CMZ_OK;
}

cmz_status cmz_pass_precision(cmz_pass_run *run, cmz_module *m) {
  if (run->precision != CMZ_F16 && run->precision != CMZ_BF16) return CMZ_OK;
  cmz_arena *arena = cmz_arena_create(m->ctx);
  narrowing w = {.m = m,
                 .fused = run->fused,
                 .data = CMZ_NEW_ARRAY(arena, bool, m->values.count),
                 .dtype = run->precision};
  mark_data(&w);
  cmz_status status = CMZ_OK;
  for (cmz_vid v = 1; v < m->values.count && status == CMZ_OK; v++) {
    if (!is_narrowed(&w, v)) continue;
    if (cmz_value_get(m, v)->constant != 0) {
      if (cmz_pass_shares_constant(m, v)) continue;
      status = narrow_constant(&w, v);
    }
    cmz_value *value = cmz_value_get(m, v);
    value->type.dtype = w.dtype;
    value->saturates = value->producer != 0 && w.dtype == CMZ_F16;
  }
  cmz_arena_destroy(arena);
  return status;
}
