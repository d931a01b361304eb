/* plan_interpret.c - runs a plan on concrete inputs: kernels by the reference interpreter, runtime
 * ops by the evaluator, memory as the plan lays it out. In: a plan, the entry's inputs. Out: its
 * outputs. Always holds: arena buffers lie at their planned offsets, so that a wrong plan gives
 * wrong results here as it would in a compiled model. */
#include "evaluator.h"
#include "plan.h"

typedef struct place {
  void *data;
  size_t capacity;
  int64_t shape[CMZ_MAX_RANK]; /* as last written */
} place;

typedef struct machine {
  const cmz_plan *p;
  cmz_module *m;
  cmz_arena *arena;
  int64_t *symbols;
  place *places;
  uint8_t *memory; /* the plan's arena */
  size_t memory_bytes;
  cmz_nid node;
} machine;

/* What a loop collects of one body output. */
typedef struct collected {
  uint8_t **items;
  size_t item_bytes;
} collected;

static cmz_status run_block(machine *m, uint32_t block);

static cmz_status fail(machine *m, const char *what, uint32_t which) {
  return cmz_fail(m->m->ctx, CMZ_E_INTERNAL, m->node ? cmz_node_loc(m->m, m->node) : (cmz_loc){0},
                  "plan interpreter: %s (%" PRIu32 ")", what, which);
}

static cmz_status size_of(machine *m, cmz_dim d, int64_t *v) {
  if (d && cmz_dim_eval(m->m->dims, d, m->symbols, v)) return CMZ_OK;
  return fail(m, "a size cannot be computed", d);
}

static const cmz_type *type_of(const machine *m, uint32_t buffer) {
  return &cmz_value_get(m->m, m->p->buffers.data[buffer].value)->type;
}

static place *place_of(machine *m, uint32_t buffer) {
  while (m->p->buffers.data[buffer].kind == CMZ_BUFFER_ALIAS)
    buffer = m->p->buffers.data[buffer].index;
  return &m->places[buffer];
}

/* Symbols that stand for dims of this value, now that its shape is known. */
static void learn_shape(machine *m, uint32_t buffer, const int64_t *shape) {
  const cmz_type *type = type_of(m, buffer);
  cmz_vid v = m->p->buffers.data[buffer].value;
  for (uint32_t i = 0; i < type->rank; i++) {
    const cmz_symbol *s = cmz_dim_symbol_of(m->m->dims, type->shape[i]);
    if (s && s->origin == CMZ_SYMBOL_DATA && s->value == v && s->element < 0)
      m->symbols[cmz_dim_get(m->m->dims, type->shape[i])->value] = shape[i];
  }
}

/* Makes room for the buffer's content, whose shape is SHAPE, or as its type says when that is NULL.
 */
static cmz_status prepare(machine *m, uint32_t buffer, const int64_t *shape) {
  const cmz_buffer *b = &m->p->buffers.data[buffer];
  const cmz_type *type = type_of(m, buffer);
  if (shape) learn_shape(m, buffer, shape);
  place *own = &m->places[buffer], *at = place_of(m, buffer);
  for (uint32_t i = 0; i < type->rank; i++) {
    if (shape) own->shape[i] = shape[i];
    else CMZ_TRY(size_of(m, type->shape[i], &own->shape[i]));
  }
  int64_t bytes, offset;
  CMZ_TRY(size_of(m, b->bytes, &bytes));
  if (bytes < 0) return fail(m, "negative size of buffer", buffer);
  if (b->kind == CMZ_BUFFER_ARENA) {
    CMZ_TRY(size_of(m, b->offset, &offset));
    if (offset < 0 || (uint64_t)offset + (uint64_t)bytes > m->memory_bytes)
      return fail(m, "buffer beyond the arena", buffer);
    at->data = m->memory + offset;
    at->capacity = (size_t)bytes;
  } else if (at->capacity < (size_t)bytes || !at->data) {
    if (b->kind == CMZ_BUFFER_INPUT || b->kind == CMZ_BUFFER_CONSTANT)
      return fail(m, "input or constant is too small", buffer);
    at->data = cmz_arena_alloc(m->arena, (size_t)bytes);
    at->capacity = (size_t)bytes;
  }
  own->data = at->data;
  return CMZ_OK;
}

static cmz_status bytes_of(machine *m, uint32_t buffer, size_t *bytes) {
  int64_t v;
  CMZ_TRY(size_of(m, m->p->buffers.data[buffer].bytes, &v));
  *bytes = (size_t)v;
  return CMZ_OK;
}

/* Shape of what a buffer holds now. */
static cmz_status shape_of(machine *m, uint32_t buffer, int64_t *shape) {
  const cmz_type *type = type_of(m, buffer);
  bool written = m->p->buffers.data[buffer].kind != CMZ_BUFFER_ALIAS && m->places[buffer].data;
  for (uint32_t i = 0; i < type->rank; i++)
    if (written) shape[i] = m->places[buffer].shape[i];
    else CMZ_TRY(size_of(m, type->shape[i], &shape[i]));
  return CMZ_OK;
}

static void *data_of(machine *m, uint32_t buffer) { return place_of(m, buffer)->data; }

static cmz_status write_bytes(machine *m, uint32_t buffer, const int64_t *shape, const void *data) {
  CMZ_TRY(prepare(m, buffer, shape));
  size_t bytes;
  CMZ_TRY(bytes_of(m, buffer, &bytes));
  if (bytes) memmove(data_of(m, buffer), data, bytes);
  return CMZ_OK;
}

static cmz_status copy(machine *m, uint32_t from, uint32_t to) {
  int64_t shape[CMZ_MAX_RANK];
  if (!data_of(m, from)) return fail(m, "copy of a buffer that was never written", from);
  CMZ_TRY(shape_of(m, from, shape));
  return write_bytes(m, to, shape, data_of(m, from));
}

/* ---- steps ---- */

static cmz_status run_kernel(machine *m, const cmz_step *s) {
  const cmz_kernel *k = m->p->kernels.data[s->index].kernel;
  void **operands = CMZ_NEW_ARRAY(m->arena, void *, s->operand_count);
  int64_t *params = CMZ_NEW_ARRAY(m->arena, int64_t, s->param_count);
  for (uint32_t i = 0; i < s->param_count; i++) CMZ_TRY(size_of(m, s->params[i], &params[i]));
  for (uint32_t i = 0; i < s->operand_count; i++) {
    if (k->operands.data[i].access & CMZ_WRITE) CMZ_TRY(prepare(m, s->operands[i], NULL));
    operands[i] = data_of(m, s->operands[i]);
    if (!operands[i])
      return fail(m, "kernel reads a buffer that was never written", s->operands[i]);
  }
  return cmz_kernel_interpret(m->m->ctx, k, operands, params);
}

static cmz_status run_runtime(machine *m, const cmz_step *s) {
  const cmz_node n = *cmz_node_get(m->m, s->node);
  cmz_eval e = {.module = m->m, .arena = m->arena, .node = s->node};
  cmz_array *inputs = CMZ_NEW_ARRAY(m->arena, cmz_array, n.input_count);
  cmz_array *outputs = CMZ_NEW_ARRAY(m->arena, cmz_array, n.output_count);
  for (uint32_t i = 0; i < n.input_count; i++) {
    if (s->operands[i] == CMZ_NO_BUFFER) continue;
    const cmz_type *type = type_of(m, s->operands[i]);
    inputs[i].dtype = type->dtype;
    inputs[i].rank = type->rank;
    CMZ_TRY(shape_of(m, s->operands[i], inputs[i].shape));
    inputs[i].data = data_of(m, s->operands[i]);
  }
  CMZ_TRY(cmz_eval_node(&e, s->node, inputs, outputs));
  for (uint32_t i = 0; i < n.output_count; i++) {
    uint32_t to = s->operands[n.input_count + i];
    if (to != CMZ_NO_BUFFER) CMZ_TRY(write_bytes(m, to, outputs[i].shape, outputs[i].data));
  }
  return CMZ_OK;
}

static cmz_status run_bind(machine *m, const cmz_step *s) {
  if (s->element < 0) return CMZ_OK; /* learnt when the value was written */
  uint32_t b = s->operands[0];
  if (!data_of(m, b)) return fail(m, "size bound to a buffer that was never written", b);
  m->symbols[s->symbol] =
      cmz_dtype_get_i64(type_of(m, b)->dtype, data_of(m, b), (size_t)s->element);
  int64_t low, high;
  if (s->param_count == 2 && cmz_dim_is_const(m->p->module->dims, s->params[0], &low) &&
      cmz_dim_is_const(m->p->module->dims, s->params[1], &high) &&
      (m->symbols[s->symbol] < low || m->symbols[s->symbol] > high))
    return fail(m, "the model was not compiled for inputs of these sizes", b);
  return CMZ_OK;
}

/* ---- loops ---- */

static int64_t scalar_of(machine *m, uint32_t buffer) {
  return cmz_dtype_get_i64(type_of(m, buffer)->dtype, data_of(m, buffer), 0);
}

static cmz_status loop_inputs(machine *m, const cmz_plan_loop *l, int64_t i, int64_t length) {
  if (l->iteration != CMZ_NO_BUFFER)
    CMZ_TRY(
        write_bytes(m, l->iteration, type_of(m, l->iteration)->rank ? (int64_t[]){1} : NULL, &i));
  for (uint32_t j = 0; j < l->scan_in_count; j++) {
    int64_t shape[CMZ_MAX_RANK + 1], at = l->scan_in_reverse[j] ? length - 1 - i : i;
    CMZ_TRY(shape_of(m, l->scan_in[j], shape));
    CMZ_TRY(prepare(m, l->scan_slice[j], shape + 1));
    size_t bytes;
    CMZ_TRY(bytes_of(m, l->scan_slice[j], &bytes));
    memcpy(data_of(m, l->scan_slice[j]), (uint8_t *)data_of(m, l->scan_in[j]) + (size_t)at * bytes,
           bytes);
  }
  return CMZ_OK;
}

/* The body's results become the next state; all are read before one is written. */
static cmz_status loop_next(machine *m, const cmz_plan_loop *l) {
  uint8_t **data = CMZ_NEW_ARRAY(m->arena, uint8_t *, l->carried_count);
  int64_t(*shapes)[CMZ_MAX_RANK] = cmz_arena_array(m->arena, l->carried_count, sizeof *shapes);
  for (uint32_t j = 0; j < l->carried_count; j++) {
    size_t bytes;
    CMZ_TRY(bytes_of(m, l->next[j], &bytes));
    CMZ_TRY(shape_of(m, l->next[j], shapes[j]));
    if (!data_of(m, l->next[j])) return fail(m, "loop state that was never written", l->next[j]);
    data[j] = cmz_arena_copy(m->arena, data_of(m, l->next[j]), bytes);
  }
  for (uint32_t j = 0; j < l->carried_count; j++)
    CMZ_TRY(write_bytes(m, l->state[j], shapes[j], data[j]));
  return CMZ_OK;
}

static cmz_status loop_collect(machine *m, const cmz_plan_loop *l, collected *all, int64_t i) {
  for (uint32_t j = 0; j < l->scan_out_count; j++) {
    collected *c = &all[j];
    CMZ_TRY(bytes_of(m, l->body_out[j], &c->item_bytes));
    if ((i & (i - 1)) == 0) { /* room for twice as many */
      uint8_t **items = CMZ_NEW_ARRAY(m->arena, uint8_t *, (size_t)(i ? i * 2 : 1));
      if (i) memcpy(items, c->items, (size_t)i * sizeof *items);
      c->items = items;
    }
    c->items[i] = cmz_arena_copy(m->arena, data_of(m, l->body_out[j]), c->item_bytes);
  }
  return CMZ_OK;
}

static cmz_status loop_outputs(machine *m, const cmz_plan_loop *l, const collected *all,
                               int64_t count) {
  if (l->final_count) m->symbols[cmz_dim_get(m->m->dims, l->final_count)->value] = count;
  for (uint32_t j = 0; j < l->scan_out_count; j++) {
    if (l->scan_out[j] == CMZ_NO_BUFFER) continue;
    int64_t shape[CMZ_MAX_RANK + 1] = {count};
    if (count) CMZ_TRY(shape_of(m, l->body_out[j], shape + 1));
    else
      for (uint32_t i = 1; i < type_of(m, l->scan_out[j])->rank; i++) {
        if (size_of(m, type_of(m, l->scan_out[j])->shape[i], &shape[i]) != CMZ_OK) shape[i] = 0;
      }
    CMZ_TRY(prepare(m, l->scan_out[j], shape));
    uint8_t *to = data_of(m, l->scan_out[j]);
    for (int64_t i = 0; i < count; i++) {
      int64_t at = l->scan_out_reverse && l->scan_out_reverse[j] ? count - 1 - i : i;
      memcpy(to + (size_t)at * all[j].item_bytes, all[j].items[i], all[j].item_bytes);
    }
  }
  return CMZ_OK;
}

static cmz_status run_loop(machine *m, const cmz_step *s) {
  const cmz_plan_loop *l = s->loop;
  int64_t limit = INT64_MAX, i = 0;
  if (l->trip_count != CMZ_NO_BUFFER) limit = scalar_of(m, l->trip_count);
  if (l->scan_length) CMZ_TRY(size_of(m, l->scan_length, &limit));
  for (uint32_t j = 0; j < l->carried_count; j++) CMZ_TRY(copy(m, l->initial[j], l->state[j]));
  collected *all = CMZ_NEW_ARRAY(m->arena, collected, l->scan_out_count);
  for (; i < limit; i++) {
    if (l->condition != CMZ_NO_BUFFER && !scalar_of(m, l->condition)) break;
    CMZ_TRY(loop_inputs(m, l, i, limit));
    CMZ_TRY(run_block(m, s->blocks[0]));
    CMZ_TRY(loop_collect(m, l, all, i));
    if (l->body_condition != CMZ_NO_BUFFER && l->condition != CMZ_NO_BUFFER)
      CMZ_TRY(copy(m, l->body_condition, l->condition));
    CMZ_TRY(loop_next(m, l));
  }
  return loop_outputs(m, l, all, i);
}

static cmz_status run_step(machine *m, const cmz_step *s) {
  m->node = s->node;
  switch (s->kind) {
  case CMZ_STEP_KERNEL:
    return run_kernel(m, s);
  case CMZ_STEP_RUNTIME:
    return run_runtime(m, s);
  case CMZ_STEP_COPY:
    return copy(m, s->operands[0], s->operands[1]);
  case CMZ_STEP_BIND:
    return run_bind(m, s);
  case CMZ_STEP_IF:
    return run_block(m, s->blocks[scalar_of(m, s->operands[0]) ? 0 : 1]);
  case CMZ_STEP_LOOP:
    return run_loop(m, s);
  }
  return fail(m, "unknown step", s->kind);
}

static cmz_status run_block(machine *m, uint32_t block) {
  const cmz_block *b = &m->p->blocks.data[block];
  for (uint32_t i = 0; i < b->steps.count; i++) CMZ_TRY(run_step(m, &b->steps.data[i]));
  return CMZ_OK;
}

/* ---- entry ---- */

static cmz_status bind_inputs(machine *m, const cmz_array *inputs) {
  const cmz_graph *g = cmz_graph_get(m->m, m->m->entries.data[0]);
  const cmz_dims *dims = m->m->dims;
  for (uint32_t i = 0; i < cmz_dim_symbol_count(dims); i++)
    m->symbols[i] = cmz_dim_symbol_at(m->m->dims, i)->low;
  for (uint32_t i = 0; i < g->inputs.count; i++) {
    const cmz_type *type = &cmz_value_get(m->m, g->inputs.data[i])->type;
    if (type->rank != inputs[i].rank || type->dtype != inputs[i].dtype)
      return fail(m, "type of input", i);
    for (uint32_t d = 0; d < type->rank; d++)
      if (cmz_dim_symbol_of(dims, type->shape[d]))
        m->symbols[cmz_dim_get(dims, type->shape[d])->value] = inputs[i].shape[d];
  }
  for (uint32_t i = 0; i < g->inputs.count; i++) {
    const cmz_type *type = &cmz_value_get(m->m, g->inputs.data[i])->type;
    for (uint32_t d = 0; d < type->rank; d++) {
      int64_t want;
      CMZ_TRY(size_of(m, type->shape[d], &want));
      if (want != inputs[i].shape[d]) return fail(m, "shape of input", i);
    }
  }
  return CMZ_OK;
}

static void place_fixed(machine *m, const cmz_array *inputs) {
  for (uint32_t i = 0; i < m->p->buffers.count; i++) {
    const cmz_buffer *b = &m->p->buffers.data[i];
    place *at = &m->places[i];
    if (b->kind == CMZ_BUFFER_INPUT) {
      const cmz_array *a = &inputs[b->index];
      *at = (place){.data = a->data, .capacity = SIZE_MAX};
      memcpy(at->shape, a->shape, sizeof at->shape);
    } else if (b->kind == CMZ_BUFFER_CONSTANT) {
      const cmz_constant *c = cmz_constant_get(m->m, b->index);
      *at = (place){.data = (void *)(uintptr_t)c->data, .capacity = SIZE_MAX};
      memcpy(at->shape, c->shape, CMZ_MIN(c->rank, (uint32_t)CMZ_MAX_RANK) * sizeof at->shape[0]);
    }
  }
}

cmz_status cmz_plan_interpret(const cmz_plan *p, cmz_arena *arena, const struct cmz_array *inputs,
                              struct cmz_array *outputs) {
  machine m = {.p = p, .m = p->module, .arena = arena};
  m.symbols = CMZ_NEW_ARRAY(arena, int64_t, cmz_dim_symbol_count(p->module->dims));
  m.places = CMZ_NEW_ARRAY(arena, place, p->buffers.count);
  CMZ_TRY(bind_inputs(&m, inputs));
  place_fixed(&m, inputs);
  int64_t bytes = 0;
  if (p->arena_bytes) CMZ_TRY(size_of(&m, p->arena_bytes, &bytes));
  m.memory_bytes = (size_t)bytes;
  m.memory = cmz_arena_alloc(arena, m.memory_bytes);
  memset(m.memory, 0xA5, m.memory_bytes); /* nobody may rely on zeros */
  CMZ_TRY(run_block(&m, 0));
  m.node = 0;
  for (uint32_t i = 0; i < p->buffers.count; i++) {
    const cmz_buffer *b = &p->buffers.data[i];
    if (b->kind != CMZ_BUFFER_OUTPUT) continue;
    const cmz_type *type = type_of(&m, i);
    cmz_array *out = &outputs[b->index];
    *out = (cmz_array){.dtype = type->dtype, .rank = type->rank, .data = m.places[i].data};
    CMZ_TRY(shape_of(&m, i, out->shape));
    if (!out->data) return fail(&m, "output that was never written", b->index);
  }
  return CMZ_OK;
}
