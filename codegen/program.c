/* program.c - turns a plan into the tables of runtime/program.h. In: a verified plan. Out:
 * cmz_tables, whose arrays lie in the context's arena. Always holds: equal dims share one slot;
 * slot 0 is the constant 0; instructions that depend on data run in SIZES steps after what sets
 * their symbols, all others in the entry program. */
#include "../ir/op.h"
#include "internal.h"
#include <stdio.h>

typedef struct instruction {
  cmz_size_instruction code;
  bool late; /* depends on a symbol that is bound during the run */
} instruction;

typedef CMZ_VEC(uint32_t) words;

typedef struct writer {
  cmz_context *ctx;
  cmz_arena *arena;
  const cmz_plan *plan;
  cmz_module *module;
  const cmz_target *target;
  cmz_tables *out;
  CMZ_VEC(int64_t) slots;      /* initial values */
  CMZ_VEC(uint32_t) dim_slots; /* by cmz_dim: slot + 1, 0 unknown */
  CMZ_VEC(uint8_t) slot_late;
  CMZ_VEC(instruction) instructions;
  CMZ_VEC(cmz_program_step) steps;
  CMZ_VEC(cmz_program_op) ops;
  words lists;
  cmz_text strings;
  uint32_t *weight_of; /* by cmz_cid: index + 1 */
} writer;

/* ---- slots ---- */

static uint32_t add_slot(writer *w, int64_t value, bool late) {
  cmz_vec_push(w->arena, &w->slots, value);
  cmz_vec_push(w->arena, &w->slot_late, (uint8_t)late);
  return w->slots.count - 1;
}

static uint32_t slot_of(writer *w, cmz_dim d);

static uint32_t add_instruction(writer *w, cmz_size_op op, uint32_t a, uint32_t b, uint32_t c) {
  bool late = w->slot_late.data[a] || w->slot_late.data[b] || w->slot_late.data[c];
  uint32_t dst = add_slot(w, 0, late);
  instruction in = {.code = {.op = (uint32_t)op, .dst = dst, .a = a, .b = b, .c = c}, .late = late};
  cmz_vec_push(w->arena, &w->instructions, in);
  return dst;
}

static const uint8_t size_ops[] = {
    [CMZ_DIM_ADD] = CMZ_SIZE_ADD,
    [CMZ_DIM_MUL] = CMZ_SIZE_MUL,
    [CMZ_DIM_FLOORDIV] = CMZ_SIZE_FLOORDIV,
    [CMZ_DIM_MOD] = CMZ_SIZE_MOD,
    [CMZ_DIM_MIN] = CMZ_SIZE_MIN,
    [CMZ_DIM_MAX] = CMZ_SIZE_MAX,
    [CMZ_DIM_BROADCAST] = CMZ_SIZE_BROADCAST,
    [CMZ_DIM_EQ] = CMZ_SIZE_EQ,
    [CMZ_DIM_SELECT] = CMZ_SIZE_SELECT,
    [CMZ_DIM_SCALE] = CMZ_SIZE_SCALE,
};

static uint32_t make_slot(writer *w, cmz_dim d) {
  cmz_dim_node node = *cmz_dim_get(w->module->dims, d);
  switch (node.kind) {
  case CMZ_DIM_CONST:
    return add_slot(w, node.value, false);
  case CMZ_DIM_SYMBOL:
    return add_slot(w, 0, cmz_dim_symbol_of(w->module->dims, d)->origin == CMZ_SYMBOL_DATA);
  case CMZ_DIM_SELECT: {
    uint32_t a = slot_of(w, node.args[0]), b = slot_of(w, node.args[1]);
    return add_instruction(w, CMZ_SIZE_SELECT, a, b, slot_of(w, node.args[2]));
  }
  default:
    break;
  }
  uint32_t result = slot_of(w, node.args[0]);
  for (uint32_t i = 1; i < node.arg_count; i++) {
    result =
        add_instruction(w, (cmz_size_op)size_ops[node.kind], result, slot_of(w, node.args[i]), 0);
  }
  return result;
}

static uint32_t slot_of(writer *w, cmz_dim d) {
  if (d == CMZ_DIM_NONE) return 0;
  while (w->dim_slots.count <= d) cmz_vec_push(w->arena, &w->dim_slots, 0u);
  if (w->dim_slots.data[d]) return w->dim_slots.data[d] - 1;
  int64_t value;
  if (cmz_dim_is_const(w->module->dims, d, &value) && value == 0) return 0;
  uint32_t slot = make_slot(w, d);
  w->dim_slots.data[d] = slot + 1;
  return slot;
}

/* ---- strings and lists ---- */

static uint32_t add_string(writer *w, const char *text) {
  size_t length = strlen(text) + 1;
  for (size_t at = 0; at < w->strings.length; at += strlen(w->strings.data + at) + 1) {
    if (strcmp(w->strings.data + at, text) == 0) return (uint32_t)at;
  }
  size_t at = w->strings.length;
  cmz_text_add_bytes(&w->strings, text, length);
  return (uint32_t)at;
}

static uint32_t list_start(const writer *w) { return w->lists.count; }
static void list_add(writer *w, uint32_t word) { cmz_vec_push(w->arena, &w->lists, word); }

/* ---- buffers and weights ---- */

static cmz_status weight_bytes(writer *w, cmz_vid v, const cmz_constant *c, uint64_t *bytes) {
  const cmz_layout *layout = &cmz_value_get(w->module, v)->layout;
  *bytes = c->dtype == CMZ_STRING ? cmz_weight_string_bytes(w->arena, c) : c->bytes;
  if (layout->count == 0 || cmz_layout_equal(layout, &c->layout)) return CMZ_OK;
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t d = 0; d < c->rank; d++) shape[d] = cmz_dim_const(w->module->dims, c->shape[d]);
  int64_t elements;
  cmz_dim count = cmz_layout_elements(w->module->dims, layout, c->rank, shape);
  size_t size;
  if (!cmz_dim_is_const(w->module->dims, count, &elements) ||
      !cmz_dtype_bytes(c->dtype, (size_t)elements, &size)) {
    return cmz_fail(w->ctx, CMZ_E_INTERNAL, (cmz_loc){.tensor = c->name},
                    "a packed constant's size is unknown");
  }
  *bytes = size;
  return CMZ_OK;
}

/* The index of the weight that buffer B reads. */
static cmz_status add_weight(writer *w, const cmz_buffer *b, uint32_t *index) {
  if (w->weight_of[b->index]) {
    *index = w->weight_of[b->index] - 1;
    return CMZ_OK;
  }
  const cmz_constant *c = cmz_constant_get(w->module, b->index);
  cmz_weight weight = {.constant = b->index};
  CMZ_TRY(weight_bytes(w, b->value, c, &weight.bytes));
  if (b->value) weight.layout = cmz_value_get(w->module, b->value)->layout;
  weight.offset = cmz_align_up(w->out->weight_bytes, CMZ_ARENA_ALIGNMENT);
  w->out->weight_bytes = weight.offset + weight.bytes;
  cmz_vec_push(w->arena, &w->out->weights, weight);
  *index = w->out->weights.count - 1;
  w->weight_of[b->index] = *index + 1;
  return CMZ_OK;
}

static const uint8_t buffer_kinds[] = {
    [CMZ_BUFFER_INPUT] = CMZ_PB_INPUT,       [CMZ_BUFFER_OUTPUT] = CMZ_PB_OUTPUT,
    [CMZ_BUFFER_CONSTANT] = CMZ_PB_CONSTANT, [CMZ_BUFFER_ARENA] = CMZ_PB_ARENA,
    [CMZ_BUFFER_HEAP] = CMZ_PB_HEAP,         [CMZ_BUFFER_ALIAS] = CMZ_PB_ALIAS,
};

static cmz_status write_buffers(writer *w) {
  const cmz_plan *plan = w->plan;
  cmz_program_buffer *buffers = CMZ_NEW_ARRAY(w->arena, cmz_program_buffer, plan->buffers.count);
  for (uint32_t i = 0; i < plan->buffers.count; i++) {
    const cmz_buffer *b = &plan->buffers.data[i];
    cmz_program_buffer *out = &buffers[i];
    out->kind = buffer_kinds[b->kind];
    out->index = b->index;
    if (b->kind == CMZ_BUFFER_CONSTANT) CMZ_TRY(add_weight(w, b, &out->index));
    out->offset_slot = b->kind == CMZ_BUFFER_ARENA ? slot_of(w, b->offset) : 0;
    out->bytes_slot = slot_of(w, b->bytes);
    out->element = CMZ_ELEMENT_U8;
    uint32_t slots[CMZ_MAX_RANK];
    uint32_t listed = 0;
    if (b->value) {
      cmz_type type = cmz_value_get(w->module, b->value)->type;
      out->element = (uint32_t)type.dtype;
      bool known = type.rank != CMZ_RANK_UNKNOWN;
      listed = known ? type.rank : 0;
      if (type.kind == CMZ_KIND_TENSOR) out->rank = listed;
      else out->value = CMZ_PB_VALUE(type.kind, known ? type.rank + 1 : 0);
      w->out->needs_values |= type.kind != CMZ_KIND_TENSOR || type.dtype == CMZ_STRING;
      for (uint32_t d = 0; d < listed; d++)
        slots[d] = type.shape[d] == CMZ_DIM_NONE ? UINT32_MAX : slot_of(w, type.shape[d]);
    }
    out->dim_slots = list_start(w);
    for (uint32_t d = 0; d < listed; d++) list_add(w, slots[d]);
  }
  w->out->program.buffers = buffers;
  w->out->program.buffer_count = plan->buffers.count;
  return CMZ_OK;
}

/* ---- runtime ops ---- */

typedef struct runtime_row {
  const char *function, *name, *attributes;
} runtime_row;
static const runtime_row runtime_rows[] = {
#define RUNTIME_ROW(function, name, attributes) {"cmz_rt_" #function, name, attributes},
    CMZ_RUNTIME_OPS(RUNTIME_ROW)
#undef RUNTIME_ROW
};

static cmz_status add_op(writer *w, cmz_nid n, const runtime_row **row, uint32_t *index) {
  const cmz_node *node = cmz_node_get(w->module, n);
  *row = NULL;
  for (size_t i = 0; i < CMZ_COUNT_OF(runtime_rows); i++) {
    if (node->op->runtime && strcmp(runtime_rows[i].name, node->op->runtime) == 0)
      *row = &runtime_rows[i];
  }
  if (!*row) {
    return cmz_fail(w->ctx, CMZ_E_UNSUPPORTED, cmz_node_loc(w->module, n),
                    "%s at run time is not something that the runtime does", node->op->name);
  }
  for (uint32_t i = 0; i < w->out->op_functions.count; i++) {
    if (w->out->op_functions.data[i] == (*row)->function) {
      *index = i;
      return CMZ_OK;
    }
  }
  *index = w->out->op_functions.count;
  cmz_vec_push(w->arena, &w->out->op_functions, (*row)->function);
  cmz_program_op op = {.function = NULL, .name = (*row)->name};
  cmz_vec_push(w->arena, &w->ops, op);
  return CMZ_OK;
}

/* One "name=default" word of a row's attributes, as the 64 bits that the op reads. */
static int64_t attribute_bits(const cmz_node *node, const char *word, size_t length,
                              cmz_arena *arena) {
  const char *equals = memchr(word, '=', length);
  bool is_float = word[0] == 'f' && word[1] == ':';
  if (is_float) word += 2;
  const char *name = cmz_arena_printf(arena, "%.*s", (int)(equals - word), word);
  if (!is_float) {
    int64_t otherwise = 0;
    sscanf(equals + 1, "%" SCNd64, &otherwise);
    return cmz_node_int(node, name, otherwise);
  }
  double value = 0;
  sscanf(equals + 1, "%lf", &value);
  value = cmz_node_float(node, name, value);
  int64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static uint32_t add_attributes(writer *w, cmz_nid n, const runtime_row *row, uint32_t input_count) {
  const cmz_node *node = cmz_node_get(w->module, n);
  uint32_t at = list_start(w);
  list_add(w, 0);
  list_add(w, input_count);
  for (const char *word = row->attributes; *word;) {
    size_t length = strcspn(word, " ");
    uint64_t bits = (uint64_t)attribute_bits(node, word, length, w->arena);
    list_add(w, (uint32_t)bits);
    list_add(w, (uint32_t)(bits >> 32));
    word += length;
    word += *word == ' ';
  }
  w->lists.data[at] = list_start(w) - at - 1;
  return at;
}

/* ---- steps ---- */

/* A SIZES step for the symbols marked by words [first, first + count) of the lists; resolved by
 * write_instructions. */
static void add_sizes(writer *w, const words *symbols) {
  if (symbols->count == 0) return;
  cmz_program_step step = {
      .kind = CMZ_PS_SIZES, .params = list_start(w), .param_count = symbols->count};
  for (uint32_t i = 0; i < symbols->count; i++) list_add(w, symbols->data[i]);
  step.name = step.kernel_name = add_string(w, "(sizes)");
  cmz_vec_push(w->arena, &w->steps, step);
}

/* Adds the slots of BUFFER's dims that are data symbols by themselves. */
static void buffer_symbols(writer *w, uint32_t buffer, words *symbols) {
  if (buffer == CMZ_NO_BUFFER || !w->plan->buffers.data[buffer].value) return;
  const cmz_type type = cmz_value_get(w->module, w->plan->buffers.data[buffer].value)->type;
  if (type.kind != CMZ_KIND_TENSOR) return;
  for (uint32_t d = 0; type.rank != CMZ_RANK_UNKNOWN && d < type.rank; d++) {
    const cmz_symbol *s = cmz_dim_symbol_of(w->module->dims, type.shape[d]);
    if (s && s->origin == CMZ_SYMBOL_DATA) {
      uint32_t slot = slot_of(w, type.shape[d]);
      cmz_vec_push(w->arena, symbols, slot);
    }
  }
}

static uint32_t node_string(writer *w, cmz_nid n) {
  if (n == 0) return add_string(w, "");
  const cmz_node *node = cmz_node_get(w->module, n);
  cmz_text text = {.arena = w->arena};
  cmz_text_add(&text, "%s", node->name);
  for (uint32_t i = 0; i < node->source_count && i < 8; i++)
    cmz_text_add(&text, ", %s", node->sources[i]);
  if (node->source_count > 8) cmz_text_add(&text, ", …");
  return add_string(w, text.data);
}

static uint32_t add_operands(writer *w, const cmz_step *s) {
  uint32_t at = list_start(w);
  for (uint32_t i = 0; i < s->operand_count; i++) list_add(w, s->operands[i]);
  return at;
}

static void kernel_step(writer *w, const cmz_step *s, cmz_program_step *out) {
  cmz_dims *dims = w->module->dims;
  const cmz_kernel *kernel = w->plan->kernels.data[s->index].kernel;
  out->a = s->index;
  out->param_count = s->param_count;
  out->params = list_start(w);
  for (uint32_t i = 0; i < s->param_count; i++) list_add(w, slot_of(w, s->params[i]));
  out->access = list_start(w);
  for (uint32_t i = 0; i < s->operand_count; i++)
    list_add(w, kernel->operands.data[i].access /* CMZ_READ and CMZ_ACCESS_READ are one number */ |
                    cmz_kernel_windows(kernel, i, w->target->levels[0]) << CMZ_ACCESS_WINDOWS);
  out->tiles = list_start(w);
  for (uint32_t l = 0; l < s->level_count; l++) list_add(w, slot_of(w, s->tiles[l]));
  out->kernel_name = add_string(w, kernel->name ? kernel->name : "kernel");
  out->flops_slot =
      slot_of(w, cmz_dim_const(dims, (int64_t)CMZ_MIN(kernel->flops, (uint64_t)INT64_MAX / 4)));
  cmz_dim bytes = cmz_dim_const(dims, 0);
  for (uint32_t i = 0; i < s->operand_count; i++) {
    bytes = cmz_dim_add(dims, bytes, w->plan->buffers.data[s->operands[i]].bytes);
  }
  out->bytes_slot = slot_of(w, bytes);
}

static uint32_t optional_slot(writer *w, cmz_dim d) {
  return d == CMZ_DIM_NONE ? UINT32_MAX : slot_of(w, d);
}

static void loop_step(writer *w, const cmz_step *s, cmz_program_step *out) {
  const cmz_plan_loop *loop = s->loop;
  uint32_t header[CMZ_LOOP_HEADER] = {
      [CMZ_LOOP_TRIP_COUNT] = loop->trip_count,
      [CMZ_LOOP_CONDITION] = loop->condition,
      [CMZ_LOOP_BODY_CONDITION] = loop->body_condition,
      [CMZ_LOOP_ITERATION] = loop->iteration,
      [CMZ_LOOP_BODY] = s->blocks[0],
      [CMZ_LOOP_SCAN_LENGTH_SLOT] = optional_slot(w, loop->scan_length),
      [CMZ_LOOP_FINAL_COUNT_SLOT] = optional_slot(w, loop->final_count),
      [CMZ_LOOP_CARRIED] = loop->carried_count,
      [CMZ_LOOP_SCAN_IN] = loop->scan_in_count,
      [CMZ_LOOP_SCAN_OUT] = loop->scan_out_count,
  };
  out->a = list_start(w);
  for (uint32_t i = 0; i < CMZ_LOOP_HEADER; i++) list_add(w, header[i]);
  for (uint32_t i = 0; i < loop->carried_count; i++) {
    list_add(w, loop->initial[i]);
    list_add(w, loop->state[i]);
    list_add(w, loop->next[i]);
  }
  for (uint32_t i = 0; i < loop->scan_in_count; i++) {
    list_add(w, loop->scan_in[i]);
    list_add(w, loop->scan_slice[i]);
    list_add(w, loop->scan_in_reverse && loop->scan_in_reverse[i]);
  }
  for (uint32_t i = 0; i < loop->scan_out_count; i++) {
    list_add(w, loop->body_out[i]);
    list_add(w, loop->scan_out[i]);
    list_add(w, loop->scan_out_reverse && loop->scan_out_reverse[i]);
  }
}

/* The slots that step S sets by itself. */
static void step_symbols(writer *w, const cmz_step *s, words *symbols) {
  if (s->kind == CMZ_STEP_COPY) buffer_symbols(w, s->operands[1], symbols);
  if (s->kind == CMZ_STEP_BIND) {
    uint32_t slot = slot_of(w, cmz_dim_symbol_id(w->module->dims, s->symbol));
    cmz_vec_push(w->arena, symbols, slot);
  }
  if (s->kind == CMZ_STEP_RUNTIME) {
    const cmz_node *node = cmz_node_get(w->module, s->node);
    for (uint32_t i = node->input_count; node->op->flags & CMZ_OP_VALUES && i < s->operand_count;
         i++)
      buffer_symbols(w, s->operands[i], symbols);
  }
  if (s->kind != CMZ_STEP_LOOP) return;
  const cmz_plan_loop *loop = s->loop;
  for (uint32_t i = 0; i < loop->carried_count; i++) buffer_symbols(w, loop->state[i], symbols);
  for (uint32_t i = 0; i < loop->scan_out_count; i++) buffer_symbols(w, loop->scan_out[i], symbols);
  if (loop->final_count != CMZ_DIM_NONE) {
    uint32_t slot = slot_of(w, loop->final_count);
    cmz_vec_push(w->arena, symbols, slot);
  }
}

static cmz_status write_step(writer *w, const cmz_step *s) {
  static const uint8_t kinds[] = {
      [CMZ_STEP_KERNEL] = CMZ_PS_KERNEL, [CMZ_STEP_RUNTIME] = CMZ_PS_RUNTIME,
      [CMZ_STEP_COPY] = CMZ_PS_COPY,     [CMZ_STEP_BIND] = CMZ_PS_BIND,
      [CMZ_STEP_IF] = CMZ_PS_IF,         [CMZ_STEP_LOOP] = CMZ_PS_LOOP,
  };
  static const char *const names[] = {
      [CMZ_STEP_KERNEL] = "",     [CMZ_STEP_RUNTIME] = "", [CMZ_STEP_COPY] = "(copy)",
      [CMZ_STEP_BIND] = "(bind)", [CMZ_STEP_IF] = "(if)",  [CMZ_STEP_LOOP] = "(loop)",
  };
  cmz_program_step out = {.kind = kinds[s->kind]};
  out.name = node_string(w, s->node);
  out.kernel_name = add_string(w, names[s->kind]);
  out.operands = add_operands(w, s);
  out.operand_count = s->operand_count;
  switch (s->kind) {
  case CMZ_STEP_KERNEL:
    kernel_step(w, s, &out);
    break;
  case CMZ_STEP_RUNTIME: {
    const runtime_row *row;
    CMZ_TRY(add_op(w, s->node, &row, &out.a));
    out.b = add_attributes(w, s->node, row, cmz_node_get(w->module, s->node)->input_count);
    out.kernel_name = add_string(w, row->name);
    break;
  }
  case CMZ_STEP_COPY:
    out.a = s->operands[0];
    out.b = s->operands[1];
    break;
  case CMZ_STEP_BIND:
    out.a = slot_of(w, cmz_dim_symbol_id(w->module->dims, s->symbol));
    out.b = s->element < 0 ? CMZ_BIND_REPORTED : (uint32_t)s->element;
    out.params = list_start(w);
    out.param_count = s->param_count;
    for (uint32_t i = 0; i < s->param_count; i++) list_add(w, slot_of(w, s->params[i]));
    out.params = list_start(w);
    out.param_count = s->param_count;
    for (uint32_t i = 0; i < s->param_count; i++) list_add(w, slot_of(w, s->params[i]));
    break;
  case CMZ_STEP_IF:
    out.a = s->blocks[0];
    out.b = s->blocks[1];
    break;
  case CMZ_STEP_LOOP:
    loop_step(w, s, &out);
    break;
  }
  cmz_vec_push(w->arena, &w->steps, out);
  words symbols = {0};
  step_symbols(w, s, &symbols);
  add_sizes(w, &symbols);
  return CMZ_OK;
}

/* What changes before each iteration of the loop whose body is BLOCK. */
static void body_symbols(writer *w, uint32_t block, words *symbols) {
  for (uint32_t b = 0; b < w->plan->blocks.count; b++) {
    const cmz_block *outer = &w->plan->blocks.data[b];
    for (uint32_t i = 0; i < outer->steps.count; i++) {
      const cmz_step *s = &outer->steps.data[i];
      if (s->kind != CMZ_STEP_LOOP || s->blocks[0] != block) continue;
      for (uint32_t c = 0; c < s->loop->carried_count; c++)
        buffer_symbols(w, s->loop->state[c], symbols);
    }
  }
}

static cmz_status write_blocks(writer *w) {
  const cmz_plan *plan = w->plan;
  cmz_program_block *blocks = CMZ_NEW_ARRAY(w->arena, cmz_program_block, plan->blocks.count);
  for (uint32_t b = 0; b < plan->blocks.count; b++) {
    blocks[b].first = w->steps.count;
    words symbols = {0};
    body_symbols(w, b, &symbols);
    add_sizes(w, &symbols);
    for (uint32_t i = 0; i < plan->blocks.data[b].steps.count; i++) {
      CMZ_TRY(write_step(w, &plan->blocks.data[b].steps.data[i]));
    }
    blocks[b].count = w->steps.count - blocks[b].first;
  }
  w->out->program.blocks = blocks;
  w->out->program.block_count = plan->blocks.count;
  return CMZ_OK;
}

/* Lays the instructions out: the entry program, then the range of each SIZES step. */
static void write_instructions(writer *w) {
  CMZ_VEC(cmz_size_instruction) all = {0};
  for (uint32_t i = 0; i < w->instructions.count; i++) {
    if (!w->instructions.data[i].late) cmz_vec_push(w->arena, &all, w->instructions.data[i].code);
  }
  w->out->program.entry_instructions = all.count;
  bool *dirty = CMZ_NEW_ARRAY(w->arena, bool, w->slots.count);
  for (uint32_t s = 0; s < w->steps.count; s++) {
    cmz_program_step *step = &w->steps.data[s];
    if (step->kind != CMZ_PS_SIZES) continue;
    memset(dirty, 0, w->slots.count * sizeof *dirty);
    for (uint32_t i = 0; i < step->param_count; i++) dirty[w->lists.data[step->params + i]] = true;
    step->a = all.count;
    for (uint32_t i = 0; i < w->instructions.count; i++) {
      cmz_size_instruction code = w->instructions.data[i].code;
      if (!dirty[code.a] && !dirty[code.b] && !dirty[code.c]) continue;
      dirty[code.dst] = true;
      cmz_vec_push(w->arena, &all, code);
    }
    step->b = all.count - step->a;
    step->params = step->param_count = 0;
  }
  w->out->program.instructions = all.data;
  w->out->program.instruction_count = all.count;
}

/* ---- the description ---- */

static uint32_t symbol_dim(const cmz_symbol *const *symbols, uint32_t count, const cmz_symbol *s) {
  for (uint32_t i = 0; i < count; i++) {
    if (symbols[i] == s) return i;
  }
  return UINT32_MAX;
}

typedef CMZ_VEC(const cmz_symbol *) symbol_list;

/* One port; new input symbols go to SYMBOLS when COLLECT. */
static void write_port(writer *w, cmz_vid v, cmz_port *port, symbol_list *symbols, words *dim_slots,
                       bool collect) {
  const cmz_value value = *cmz_value_get(w->module, v);
  port->name = value.name;
  port->element = (uint32_t)value.type.dtype;
  port->rank = value.type.kind == CMZ_KIND_TENSOR ? value.type.rank : 0;
  int64_t *dims = CMZ_NEW_ARRAY(w->arena, int64_t, port->rank);
  for (uint32_t d = 0; d < port->rank; d++) {
    cmz_dim dim = value.type.shape[d];
    const cmz_symbol *s = cmz_dim_symbol_of(w->module->dims, dim);
    if (cmz_dim_is_const(w->module->dims, dim, &dims[d])) continue;
    uint32_t index = s ? symbol_dim(symbols->data, symbols->count, s) : UINT32_MAX;
    if (collect && s && index == UINT32_MAX) {
      index = symbols->count;
      cmz_vec_push(w->arena, symbols, s);
      uint32_t slot = slot_of(w, dim);
      cmz_vec_push(w->arena, dim_slots, slot);
    }
    dims[d] = index != UINT32_MAX                               ? -1 - (int64_t)index
              : cmz_dim_is_data_dependent(w->module->dims, dim) ? CMZ_DIM_AFTER_RUN
                                                                : CMZ_DIM_COMPUTED;
  }
  port->dims = dims;
}

static void write_input_dims(writer *w, const cmz_graph *g) {
  cmz_program_input_dim **all = CMZ_NEW_ARRAY(w->arena, cmz_program_input_dim *, g->inputs.count);
  for (uint32_t i = 0; i < g->inputs.count; i++) {
    const cmz_type type = cmz_value_get(w->module, g->inputs.data[i])->type;
    uint32_t rank = type.kind == CMZ_KIND_TENSOR ? type.rank : 0;
    all[i] = CMZ_NEW_ARRAY(w->arena, cmz_program_input_dim, rank);
    for (uint32_t d = 0; d < rank; d++) {
      all[i][d].slot = slot_of(w, type.shape[d]);
      all[i][d].is_symbol = cmz_dim_symbol_of(w->module->dims, type.shape[d]) != NULL;
    }
    w->out->input_dim_total += rank;
  }
  w->out->program.input_dims = (const cmz_program_input_dim *const *)all;
}

/* The kinds of the COUNT values V; NULL when all are tensors. */
static const uint32_t *port_kinds(writer *w, const cmz_vid *v, uint32_t count) {
  uint32_t *kinds = CMZ_NEW_ARRAY(w->arena, uint32_t, count + 1), any = 0;
  for (uint32_t i = 0; i < count; i++) {
    kinds[i] = (uint32_t)cmz_value_get(w->module, v[i])->type.kind;
    any |= kinds[i];
  }
  return any ? kinds : NULL;
}

static void write_description(writer *w, const cmz_codegen_options *o) {
  const cmz_graph g = *cmz_graph_get(w->module, w->module->entries.data[0]);
  cmz_description *d = &w->out->description;
  cmz_port *inputs = CMZ_NEW_ARRAY(w->arena, cmz_port, g.inputs.count);
  cmz_port *outputs = CMZ_NEW_ARRAY(w->arena, cmz_port, g.outputs.count);
  symbol_list symbols = {0};
  words dim_slots = {0};
  for (uint32_t i = 0; i < g.inputs.count; i++) {
    write_port(w, g.inputs.data[i], &inputs[i], &symbols, &dim_slots, true);
  }
  for (uint32_t i = 0; i < g.outputs.count; i++) {
    write_port(w, g.outputs.data[i], &outputs[i], &symbols, &dim_slots, false);
    if (i < g.output_names.count) outputs[i].name = g.output_names.data[i];
  }
  cmz_symbolic_dim *dims = CMZ_NEW_ARRAY(w->arena, cmz_symbolic_dim, symbols.count);
  for (uint32_t i = 0; i < symbols.count; i++) {
    dims[i] =
        (cmz_symbolic_dim){symbols.data[i]->name, symbols.data[i]->low, symbols.data[i]->high};
  }
  cmz_text target = {.arena = w->arena};
  cmz_text_add(&target, "%s ", o->target->os->triple);
  for (uint32_t i = 0; i < o->target->level_count; i++) {
    const char *name = o->target->levels[i]->name;
    if (!o->target->gpu || !strchr(name, '+')) /* a GPU's variants are chosen among at create */
      cmz_text_add(&target, "%s%s", target.data[target.length - 1] == ' ' ? "" : ",", name);
  }
  *d = (cmz_description){.struct_size = sizeof *d,
                         .name = o->model_name,
                         .target = target.data,
                         .compiler = "cmzc 0.1.0",
                         .input_count = g.inputs.count,
                         .output_count = g.outputs.count,
                         .dim_count = symbols.count,
                         .inputs = inputs,
                         .outputs = outputs,
                         .dims = dims,
                         .weight_bytes = w->out->weight_bytes,
                         .default_threads = o->default_threads,
                         .input_kinds = port_kinds(w, g.inputs.data, g.inputs.count),
                         .output_kinds = port_kinds(w, g.outputs.data, g.outputs.count)};
  w->out->program.dim_slots = dim_slots.data;
  write_input_dims(w, &g);
}

/* The buffer of each of the entry's inputs and outputs. */
static cmz_status write_io_buffers(writer *w) {
  const cmz_description *d = &w->out->description;
  uint32_t *inputs = CMZ_NEW_ARRAY(w->arena, uint32_t, d->input_count);
  uint32_t *outputs = CMZ_NEW_ARRAY(w->arena, uint32_t, d->output_count);
  for (uint32_t i = 0; i < d->input_count; i++) inputs[i] = UINT32_MAX;
  for (uint32_t i = 0; i < d->output_count; i++) outputs[i] = UINT32_MAX;
  for (uint32_t b = 0; b < w->plan->buffers.count; b++) {
    const cmz_buffer *buffer = &w->plan->buffers.data[b];
    if (buffer->kind == CMZ_BUFFER_INPUT && inputs[buffer->index] == UINT32_MAX)
      inputs[buffer->index] = b;
    if (buffer->kind == CMZ_BUFFER_OUTPUT && outputs[buffer->index] == UINT32_MAX)
      outputs[buffer->index] = b;
  }
  for (uint32_t i = 0; i < d->output_count; i++) {
    if (outputs[i] == UINT32_MAX) {
      return cmz_fail(w->ctx, CMZ_E_INTERNAL, (cmz_loc){.tensor = d->outputs[i].name},
                      "the plan has no buffer for this output");
    }
  }
  w->out->program.input_buffers = inputs;
  w->out->program.output_buffers = outputs;
  return CMZ_OK;
}

cmz_status cmz_tables_build(cmz_context *ctx, const cmz_plan *plan, const cmz_codegen_options *o,
                            cmz_tables *out) {
  memset(out, 0, sizeof *out);
  writer w = {.ctx = ctx,
              .arena = ctx->arena,
              .plan = plan,
              .module = plan->module,
              .target = o->target,
              .out = out};
  w.strings.arena = ctx->arena;
  w.weight_of = CMZ_NEW_ARRAY(ctx->arena, uint32_t, plan->module->constants.count + 1u);
  add_slot(&w, 0, false);
  add_string(&w, "");
  CMZ_TRY(write_buffers(&w));
  CMZ_TRY(write_blocks(&w));
  write_description(&w, o);
  CMZ_TRY(write_io_buffers(&w));
  cmz_program *p = &out->program;
  p->arena_slot = slot_of(&w, plan->arena_bytes);
  write_instructions(&w);
  p->description = &out->description;
  p->slot_count = w.slots.count;
  p->slot_init = w.slots.data;
  p->steps = w.steps.data;
  p->step_count = w.steps.count;
  p->lists = w.lists.data;
  p->list_count = w.lists.count;
  p->strings = w.strings.data;
  p->ops = w.ops.data;
  p->op_count = w.ops.count;
  p->kernel_count = plan->kernels.count;
  p->level_count = o->target->level_count;
  out->strings_size = w.strings.length;
  return CMZ_OK;
}
