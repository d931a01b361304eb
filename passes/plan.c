/* plan.c - the plan: a step for every stored computation, in order.
 * In: a module with fusion decided. Out: run->plan with kernels (equal ones once), steps, buffers
 * and arena offsets. Always holds: a value's content is bound to its symbols by the step right
 * after the one that computes it. */
#include "planner.h"

void cmz_planner_push(cmz_planner *p, uint32_t block, const cmz_step *step) {
  cmz_vec_push(p->arena, &p->plan->blocks.data[block].steps, *step);
}

uint32_t cmz_planner_add_block(cmz_planner *p) {
  cmz_block b = {0};
  cmz_vec_push(p->arena, &p->plan->blocks, b);
  return p->plan->blocks.count - 1;
}

/* ---- buffers ---- */

static cmz_dim value_bytes(cmz_planner *p, cmz_vid v) {
  cmz_module *m = p->m;
  const cmz_value *value = cmz_value_get(m, v);
  if (value->type.kind != CMZ_KIND_TENSOR) return cmz_dim_const(m->dims, 0);
  cmz_dim elements =
      cmz_layout_elements(m->dims, &value->layout, value->type.rank, value->type.shape);
  uint8_t bits = cmz_dtype_info(value->type.dtype)->bits;
  if (bits == 0)
    return cmz_dim_mul(m->dims, elements, cmz_dim_const(m->dims, 8)); /* strings: pointers */
  if (bits % 8 == 0) return cmz_dim_mul(m->dims, elements, cmz_dim_const(m->dims, bits / 8));
  return cmz_dim_ceildiv(m->dims, cmz_dim_mul(m->dims, elements, cmz_dim_const(m->dims, bits)),
                         cmz_dim_const(m->dims, 8));
}

static uint32_t add_buffer(cmz_planner *p, cmz_buffer_kind kind, uint32_t index, cmz_vid v) {
  cmz_buffer b = {.kind = kind, .index = index, .value = v, .bytes = value_bytes(p, v)};
  b.offset = cmz_dim_const(p->m->dims, 0);
  cmz_vec_push(p->arena, &p->plan->buffers, b);
  return p->plan->buffers.count - 1;
}

uint32_t cmz_planner_new_buffer(cmz_planner *p, cmz_vid v) {
  bool dynamic = cmz_value_get(p->m, v)->type.kind != CMZ_KIND_TENSOR ||
                 cmz_dim_is_data_dependent(p->m->dims, value_bytes(p, v));
  return add_buffer(p, dynamic ? CMZ_BUFFER_HEAP : CMZ_BUFFER_ARENA, 0, v);
}

uint32_t cmz_planner_heap_buffer(cmz_planner *p, cmz_vid v) {
  return add_buffer(p, CMZ_BUFFER_HEAP, 0, v);
}

uint32_t cmz_planner_buffer(cmz_planner *p, cmz_vid v) {
  if (p->buffer_of[v] != CMZ_NO_BUFFER) return p->buffer_of[v];
  const cmz_value *value = cmz_value_get(p->m, v);
  uint32_t b = value->constant != 0 ? add_buffer(p, CMZ_BUFFER_CONSTANT, value->constant, v)
                                    : cmz_planner_new_buffer(p, v);
  p->buffer_of[v] = b;
  return b;
}

void cmz_planner_copy(cmz_planner *p, uint32_t block, cmz_nid node, uint32_t from, uint32_t to) {
  cmz_step s = {.kind = CMZ_STEP_COPY, .node = node, .operand_count = 2};
  s.operands = CMZ_NEW_ARRAY(p->arena, uint32_t, 2);
  s.operands[0] = from;
  s.operands[1] = to;
  cmz_planner_push(p, block, &s);
}

void cmz_planner_bind(cmz_planner *p, uint32_t block, cmz_nid node, cmz_vid v) {
  uint32_t count = cmz_dim_symbol_count(p->m->dims);
  for (uint32_t i = 0; i < count; i++) {
    const cmz_symbol *symbol = cmz_dim_symbol_at(p->m->dims, i);
    if (symbol->origin != CMZ_SYMBOL_DATA || symbol->value != v) continue;
    /* What an operator reports is its step's business; control flow learns sizes as it copies, and
     * some operators set them. */
    uint32_t flags = node == 0 ? 0 : cmz_node_get(p->m, node)->op->flags;
    if (symbol->element < 0 && (flags & (CMZ_OP_RUNTIME | CMZ_OP_VALUES)) != CMZ_OP_RUNTIME)
      continue;
    cmz_step s = {.kind = CMZ_STEP_BIND,
                  .node = node,
                  .operand_count = 1,
                  .symbol = i,
                  .element = symbol->element};
    s.operands = CMZ_NEW_ARRAY(p->arena, uint32_t, 1);
    s.operands[0] = cmz_planner_buffer(p, v);
    if (symbol->check) {
      s.param_count = 2;
      s.params = CMZ_NEW_ARRAY(p->arena, cmz_dim, 2);
      s.params[0] = cmz_dim_const(p->m->dims, symbol->low);
      s.params[1] = cmz_dim_const(p->m->dims, symbol->high);
    }
    cmz_planner_push(p, block, &s);
  }
}

/* ---- kernels ---- */

/* An integer expression of parameters as a dim. */
static cmz_dim expr_dim(cmz_planner *p, const cmz_described *d, cmz_expr e) {
  const cmz_expr_node *n = cmz_x_get(d->kernel, e);
  cmz_dims *dims = p->m->dims;
  cmz_dim a = CMZ_DIM_NONE, b = CMZ_DIM_NONE, c = CMZ_DIM_NONE;
  if (n->op == CMZ_X_CONST_INT) return cmz_dim_const(dims, n->i);
  if (n->op == CMZ_X_PARAM) return d->params[n->i];
  if (n->args[0] != 0 && (a = expr_dim(p, d, n->args[0])) == CMZ_DIM_NONE) return CMZ_DIM_NONE;
  if (n->args[1] != 0 && (b = expr_dim(p, d, n->args[1])) == CMZ_DIM_NONE) return CMZ_DIM_NONE;
  if (n->args[2] != 0 && (c = expr_dim(p, d, n->args[2])) == CMZ_DIM_NONE) return CMZ_DIM_NONE;
  switch (n->op) {
  case CMZ_X_ADD:
    return cmz_dim_add(dims, a, b);
  case CMZ_X_SUB:
    return cmz_dim_sub(dims, a, b);
  case CMZ_X_MUL:
    return cmz_dim_mul(dims, a, b);
  case CMZ_X_DIV: /* sizes are not negative */
  case CMZ_X_FLOORDIV:
    return cmz_dim_floordiv(dims, a, b);
  case CMZ_X_MOD:
    return cmz_dim_mod(dims, a, b);
  case CMZ_X_MIN:
    return cmz_dim_min(dims, a, b);
  case CMZ_X_MAX:
    return cmz_dim_max(dims, a, b);
  case CMZ_X_EQ:
    return cmz_dim_eq(dims, a, b);
  case CMZ_X_SELECT:
    return cmz_dim_select(dims, a, b, c);
  case CMZ_X_CAST:
    return a;
  default:
    return CMZ_DIM_NONE;
  }
}

static uint32_t intern_kernel(cmz_planner *p, cmz_kernel *k, cmz_schedule *s) {
  cmz_hash128 h = cmz_kernel_hash(k, s);
  cmz_plan *plan = p->plan;
  for (uint32_t i = (uint32_t)h.lo & p->hash_mask;; i = (i + 1) & p->hash_mask) {
    uint32_t at = p->hash_table[i];
    if (at == 0) {
      cmz_plan_kernel entry = {.kernel = k, .schedules = s, .hash = h};
      cmz_vec_push(p->arena, &plan->kernels, entry);
      p->hash_table[i] = plan->kernels.count;
      return plan->kernels.count - 1;
    }
    const cmz_hash128 *other = &plan->kernels.data[at - 1].hash;
    if (other->lo == h.lo && other->hi == h.hi) return at - 1;
  }
}

/* Number of grid tiles under S: the product over the tiled axes of the first store. */
static cmz_status plan_tiles(cmz_planner *p, const cmz_described *d, const cmz_schedule *s,
                             cmz_nid n, cmz_dim *tiles) {
  const cmz_store *st = &d->kernel->stores.data[0];
  cmz_dim *along = CMZ_NEW_ARRAY(p->arena, cmz_dim, st->axis_count + 2);
  uint32_t count = 0;
  for (uint32_t i = 0; i < st->axis_count; i++) {
    uint16_t axis = st->axes[i];
    if (s->axes[axis].tile == 0) continue;
    cmz_dim extent = expr_dim(p, d, d->kernel->axes.data[axis].extent);
    if (extent == CMZ_DIM_NONE)
      return cmz_node_fail(p->m, n, CMZ_E_INTERNAL, "the extent of a kernel's axis is not a size");
    along[count++] =
        cmz_dim_ceildiv(p->m->dims, extent, cmz_dim_const(p->m->dims, s->axes[axis].tile));
  }
  if (s->group) /* drivers count threads: every one of a work-group stands for its tile */
    along[count++] = cmz_dim_const(p->m->dims, s->group);
  *tiles = cmz_dim_product(p->m->dims, along, count);
  return CMZ_OK;
}

/* The constant by which an index divides AXIS itself; 0: none does. */
static int64_t panel_of(const cmz_kernel *k, uint16_t axis) {
  for (uint32_t e = 1; e < k->exprs.count; e++) {
    const cmz_expr_node *n = cmz_x_get(k, e);
    int64_t value;
    if (n->op != CMZ_X_FLOORDIV && n->op != CMZ_X_MOD) continue;
    const cmz_expr_node *a = cmz_x_get(k, n->args[0]);
    if (a->op == CMZ_X_AXIS && a->i == axis && cmz_x_is_int(k, n->args[1], &value) && value > 1)
      return value;
  }
  return 0;
}

/* Axes that run through panels become two, so that every access is affine again; the last panel may
 * be padding in part. */
static void split_panels(cmz_kernel *k, bool blocked, bool fragments) {
  if (fragments) {
    if (blocked) cmz_kernel_split_blocks(k);
    cmz_kernel_compact(k);
    return;
  }
  if (blocked) cmz_kernel_split_blocked_reductions(k);
  else cmz_kernel_split_packed_reductions(k);
  uint32_t count = k->axes.count;
  for (uint16_t axis = 0; axis < count; axis++) {
    int64_t extent, panel;
    if (k->axes.data[axis].kind != CMZ_AXIS_PARALLEL ||
        !cmz_x_is_int(k, k->axes.data[axis].extent, &extent))
      continue;
    panel = panel_of(k, axis);
    if (panel == 0 || extent <= panel) continue;
    uint16_t outer, inner;
    cmz_kernel_split_axis(k, axis, (uint32_t)panel, &outer, &inner);
  }
  cmz_kernel_compact(k);
}

/* Whether V are codes in the order of matrix fragments. */
static bool in_fragments(const cmz_module *m, cmz_vid v) {
  const cmz_value *value = cmz_value_get(m, v);
  return value->layout.count != 0 && value->uses.count > 0 &&
         (cmz_node_get(m, value->uses.data[0].node)->op->flags & CMZ_OP_DECODE) != 0;
}

/* Whether any operand of the kernel lies in a layout of its own; *FRAGMENTS: or in that of
 * fragments, which are read by whole tiles and ask for no axis to be split. */
static bool has_layouts(const cmz_module *m, const cmz_described *d, bool *fragments) {
  bool any = false;
  *fragments = false;
  for (uint32_t i = 0; i < d->kernel->operands.count; i++) {
    cmz_vid v = d->operand_values[i];
    if (in_fragments(m, v)) *fragments = true;
    else any |= cmz_value_get(m, v)->layout.count != 0;
  }
  return any;
}

/* A residual in blocks of channels goes before the bias into the convolution that it is added to,
 * as kernels over such blocks do it: they find it in the memory where they sum up. */
static void start_sums(const cmz_module *m, const cmz_described *d, cmz_arena *arena) {
  bool *starts = CMZ_NEW_ARRAY(arena, bool, d->kernel->operands.count);
  bool any = false;
  for (uint32_t i = 0; i < d->kernel->operands.count; i++) {
    const cmz_value *v = cmz_value_get(m, d->operand_values[i]);
    any |= starts[i] = v->layout.count != 0 && v->constant == 0 && v->type.dtype == CMZ_F32;
  }
  if (any) cmz_kernel_start_sums(d->kernel, starts);
}

/* Whether the kernel reads weights in a storage format. */
static bool decodes(const cmz_module *m, const cmz_described *d) {
  for (uint32_t i = 0; i < d->node_count; i++)
    if (cmz_node_get(m, d->nodes[i])->op->flags & CMZ_OP_DECODE) return true;
  return false;
}

/* A schedule for each level. */
static cmz_status choose_schedules(cmz_planner *p, cmz_kernel *k, cmz_schedule **out) {
  const cmz_target *target = p->run->target;
  cmz_context *ctx = p->m->ctx;
  cmz_schedule *s = CMZ_NEW_ARRAY(p->arena, cmz_schedule, target->level_count);
  for (uint32_t l = 0; l < target->level_count; l++) {
    const cmz_cpu_row *level = target->levels[l];
    CMZ_TRY(level->threads ? cmz_schedule_choose_device(ctx, p->arena, k, level, p->run->tf32,
                                                        p->run->precision == CMZ_F16, &s[l])
                           : cmz_schedule_choose(ctx, p->arena, k, level, p->run->optimise, &s[l]));
  }
  *out = s;
  return CMZ_OK;
}

static cmz_status plan_kernel(cmz_planner *p, cmz_nid n, uint32_t block) {
  cmz_module *m = p->m;
  cmz_described d = {0};
  CMZ_TRY(cmz_describe_node(m, n, p->run->fused, p->arena, &d));
  start_sums(m, &d, p->arena);
  cmz_kernel_merge_axes(d.kernel);
  bool fragments, blocked = has_layouts(m, &d, &fragments);
  if (blocked || decodes(m, &d)) split_panels(d.kernel, blocked, fragments);
  if (p->run->target->gpu) cmz_schedule_split_groups(d.kernel);
  cmz_schedule *s;
  CMZ_TRY(choose_schedules(p, d.kernel, &s));
  cmz_step step = {.kind = CMZ_STEP_KERNEL,
                   .node = n,
                   .params = d.params,
                   .param_count = d.kernel->param_count,
                   .operand_count = d.kernel->operands.count};
  step.level_count = p->run->target->level_count;
  step.tiles = CMZ_NEW_ARRAY(p->arena, cmz_dim, step.level_count);
  for (uint32_t l = 0; l < step.level_count; l++)
    CMZ_TRY(plan_tiles(p, &d, &s[l], n, &step.tiles[l]));
  for (uint32_t i = 0; i < d.node_count; i++)
    if (d.nodes[i] != n) cmz_node_add_source(m, n, d.nodes[i]);
  step.operands = CMZ_NEW_ARRAY(p->arena, uint32_t, step.operand_count + 1);
  for (uint32_t i = 0; i < step.operand_count; i++)
    step.operands[i] = cmz_planner_buffer(p, d.operand_values[i]);
  step.index = intern_kernel(p, d.kernel, s);
  cmz_planner_push(p, block, &step);
  return CMZ_OK;
}

static void plan_runtime(cmz_planner *p, cmz_nid n, uint32_t block) {
  const cmz_node *node = cmz_node_get(p->m, n);
  cmz_step s = {
      .kind = CMZ_STEP_RUNTIME, .node = n, .operand_count = node->input_count + node->output_count};
  s.operands = CMZ_NEW_ARRAY(p->arena, uint32_t, s.operand_count + 1);
  for (uint32_t i = 0; i < s.operand_count; i++) {
    bool input = i < node->input_count;
    cmz_vid v = input ? node->inputs[i] : node->outputs[i - node->input_count];
    s.operands[i] = v == 0 ? CMZ_NO_BUFFER : cmz_planner_buffer(p, v);
  }
  cmz_planner_push(p, block, &s);
}

static cmz_status plan_control(cmz_planner *p, cmz_nid n, uint32_t block) {
  const cmz_node *node = cmz_node_get(p->m, n);
  if (cmz_pass_is_op(node, "If")) return cmz_planner_if(p, n, block);
  if (cmz_pass_is_op(node, "Loop")) return cmz_planner_loop(p, n, block);
  if (cmz_pass_is_op(node, "Scan")) return cmz_planner_scan(p, n, block);
  return cmz_node_fail(p->m, n, CMZ_E_UNSUPPORTED, "this control operator has no plan");
}

static void plan_alias(cmz_planner *p, cmz_nid n) {
  const cmz_node *node = cmz_node_get(p->m, n);
  uint32_t of = cmz_planner_buffer(p, node->inputs[0]);
  p->buffer_of[node->outputs[0]] = add_buffer(p, CMZ_BUFFER_ALIAS, of, node->outputs[0]);
}

/* Whether nothing of N has to be stored. */
static bool all_fused(const cmz_planner *p, const cmz_node *node) {
  for (uint32_t i = 0; i < node->output_count; i++)
    if (node->outputs[i] != 0 && !p->run->fused[node->outputs[i]]) return false;
  return true;
}

static cmz_status plan_node(cmz_planner *p, cmz_nid n, uint32_t block) {
  const cmz_node *node = cmz_node_get(p->m, n);
  if (node->op->flags & CMZ_OP_CONTROL) {
    CMZ_TRY(plan_control(p, n, block));
  } else if (cmz_fuse_is_alias(p->m, node) && p->buffer_of[node->outputs[0]] == CMZ_NO_BUFFER) {
    plan_alias(p, n);
  } else if (node->op->flags & (CMZ_OP_RUNTIME | CMZ_OP_IN_PLACE)) {
    plan_runtime(p, n, block);
  } else if (node->op->describe != NULL || node->op->describe_kernel != NULL) {
    CMZ_TRY(plan_kernel(p, n, block));
  } else {
    return cmz_node_fail(p->m, n, CMZ_E_UNSUPPORTED,
                         "this operator has no kernel for these inputs");
  }
  node = cmz_node_get(p->m, n);
  for (uint32_t i = 0; i < node->output_count; i++)
    if (node->outputs[i] != 0) cmz_planner_bind(p, block, n, node->outputs[i]);
  return CMZ_OK;
}

cmz_status cmz_planner_graph(cmz_planner *p, cmz_gid g, uint32_t block) {
  cmz_status first = CMZ_OK;
  for (uint32_t i = 0; i < cmz_graph_get(p->m, g)->nodes.count; i++) {
    cmz_nid n = cmz_graph_get(p->m, g)->nodes.data[i];
    const cmz_node *node = cmz_node_get(p->m, n);
    if (node->removed || (node->output_count > 0 && all_fused(p, node))) continue;
    /* All of a model's unsupported nodes are reported in one run. */
    cmz_status status = plan_node(p, n, block);
    if (status != CMZ_OK && first == CMZ_OK) first = status;
  }
  return first;
}

/* ---- the entry ---- */

/* Outputs that a step of the entry writes itself get their buffer now, the others a COPY at the
 * end. */
static void plan_outputs(cmz_planner *p, const cmz_graph *g, uint32_t *buffers) {
  for (uint32_t i = 0; i < g->outputs.count; i++) {
    cmz_vid v = g->outputs.data[i];
    const cmz_value *value = cmz_value_get(p->m, v);
    buffers[i] = add_buffer(p, CMZ_BUFFER_OUTPUT, i, v);
    const cmz_node *producer = value->producer != 0 ? cmz_node_get(p->m, value->producer) : NULL;
    bool direct = producer != NULL && p->buffer_of[v] == CMZ_NO_BUFFER &&
                  value->layout.count == 0 && !(producer->op->flags & CMZ_OP_CONTROL) &&
                  !cmz_fuse_is_alias(p->m, producer);
    if (direct) p->buffer_of[v] = buffers[i];
  }
}

static cmz_status plan_entry(cmz_planner *p) {
  cmz_module *m = p->m;
  cmz_gid entry = m->entries.data[0];
  const cmz_graph *g = cmz_graph_get(m, entry);
  for (uint32_t i = 0; i < g->inputs.count; i++)
    p->buffer_of[g->inputs.data[i]] = add_buffer(p, CMZ_BUFFER_INPUT, i, g->inputs.data[i]);
  uint32_t block = cmz_planner_add_block(p);
  uint32_t *outputs = CMZ_NEW_ARRAY(p->arena, uint32_t, g->outputs.count + 1);
  for (uint32_t i = 0; i < g->inputs.count; i++) cmz_planner_bind(p, block, 0, g->inputs.data[i]);
  plan_outputs(p, g, outputs);
  CMZ_TRY(cmz_planner_graph(p, entry, block));
  g = cmz_graph_get(m, entry);
  for (uint32_t i = 0; i < g->outputs.count; i++) {
    cmz_vid v = g->outputs.data[i];
    uint32_t from = cmz_planner_buffer(p, v);
    if (from == outputs[i]) continue;
    cmz_nid producer = cmz_value_get(m, v)->producer;
    cmz_planner_copy(p, block, producer, from, outputs[i]);
  }
  return CMZ_OK;
}

cmz_status cmz_pass_plan(cmz_pass_run *run, cmz_module *m) {
  cmz_planner p = {.m = m, .run = run, .arena = m->arena};
  if (m->entries.count != 1)
    return cmz_fail(m->ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.file = m->file},
                    "a module has one entry for now");
  p.plan = CMZ_NEW(m->arena, cmz_plan);
  p.plan->module = m;
  p.plan->arena = m->arena;
  p.buffer_of = CMZ_NEW_ARRAY(m->arena, uint32_t, m->values.count);
  memset(p.buffer_of, 0xff, m->values.count * sizeof *p.buffer_of);
  uint32_t size = 64;
  while (size < m->nodes.count * 2u) size *= 2;
  p.hash_table = CMZ_NEW_ARRAY(m->arena, uint32_t, size);
  p.hash_mask = size - 1;
  CMZ_TRY(plan_entry(&p));
  CMZ_TRY(cmz_planner_memory(&p));
  run->plan = p.plan;
  return run->verify ? cmz_plan_verify(p.plan) : CMZ_OK;
}
