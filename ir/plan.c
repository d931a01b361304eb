/* plan.c - the plan as text and its verifier.
 * In: a plan. Out: lines for people and golden tests; CMZ_E_INTERNAL naming what is wrong. Always
 * holds: the verifier changes nothing and accepts only plans whose indices are in range, whose
 * buffers are written before they are read, and whose living arena buffers do not overlap (at the
 * sizes' hints, when sizes are symbolic). */
#include "plan.h"

static const char *const BUFFER_NAMES[] = {"input", "output", "constant", "arena", "heap", "alias"};
static const char *const STEP_NAMES[] = {"kernel", "runtime", "copy", "bind", "if", "loop"};

/* ---- print ---- */

static void print_buffer(const cmz_plan *p, uint32_t i, cmz_text *text) {
  const cmz_buffer *b = &p->buffers.data[i];
  const cmz_dims *dims = p->module->dims;
  cmz_text_add(text, "buffer %u %s", i, BUFFER_NAMES[b->kind]);
  if (b->kind != CMZ_BUFFER_ARENA && b->kind != CMZ_BUFFER_HEAP)
    cmz_text_add(text, " %u", b->index);
  if (b->kind == CMZ_BUFFER_ARENA) {
    cmz_text_add(text, " at ");
    cmz_dim_print(dims, b->offset, text);
    cmz_text_add(text, " life %u..%u", b->first, b->last);
  }
  cmz_text_add(text, " bytes ");
  cmz_dim_print(dims, b->bytes, text);
  const cmz_value *v = cmz_value_get(p->module, b->value);
  cmz_text_add(text, " : %s %s[", v->name ? v->name : "", cmz_dtype_info(v->type.dtype)->name);
  for (uint32_t d = 0; v->type.rank != CMZ_RANK_UNKNOWN && d < v->type.rank; d++) {
    if (d) cmz_text_add(text, ", ");
    cmz_dim_print(dims, v->type.shape[d], text);
  }
  cmz_text_add(text, "]\n");
}

static void print_list(cmz_text *text, const char *title, const uint32_t *list, uint32_t count) {
  if (!count) return;
  cmz_text_add(text, " %s(", title);
  for (uint32_t i = 0; i < count; i++) {
    if (i) cmz_text_add(text, " ");
    if (list[i] == CMZ_NO_BUFFER) cmz_text_add(text, "-");
    else cmz_text_add(text, "%u", list[i]);
  }
  cmz_text_add(text, ")");
}

static void print_dims(const cmz_plan *p, cmz_text *text, const char *title, const cmz_dim *dims,
                       uint32_t count) {
  if (!count) return;
  cmz_text_add(text, " %s(", title);
  for (uint32_t i = 0; i < count; i++) {
    if (i) cmz_text_add(text, ", ");
    cmz_dim_print(p->module->dims, dims[i], text);
  }
  cmz_text_add(text, ")");
}

static void print_one(cmz_text *text, const char *title, uint32_t buffer) {
  if (buffer != CMZ_NO_BUFFER) cmz_text_add(text, " %s %u", title, buffer);
}

static void print_loop(const cmz_plan *p, cmz_text *text, const cmz_plan_loop *l) {
  print_one(text, "trip_count", l->trip_count);
  print_one(text, "condition", l->condition);
  print_one(text, "body_condition", l->body_condition);
  print_one(text, "iteration", l->iteration);
  print_list(text, "initial", l->initial, l->carried_count);
  print_list(text, "state", l->state, l->carried_count);
  print_list(text, "next", l->next, l->carried_count);
  print_list(text, "scan_in", l->scan_in, l->scan_in_count);
  print_list(text, "slice", l->scan_slice, l->scan_in_count);
  print_list(text, "body_out", l->body_out, l->scan_out_count);
  print_list(text, "scan_out", l->scan_out, l->scan_out_count);
  if (l->scan_length) print_dims(p, text, "length", &l->scan_length, 1);
  if (l->final_count) print_dims(p, text, "final", &l->final_count, 1);
}

static void print_block(const cmz_plan *p, uint32_t block, int indent, cmz_text *text) {
  if (block >= p->blocks.count || indent > 32) return;
  const cmz_block *b = &p->blocks.data[block];
  for (uint32_t i = 0; i < b->steps.count; i++) {
    const cmz_step *s = &b->steps.data[i];
    cmz_text_add(text, "%*s%s", indent * 2, "", STEP_NAMES[s->kind]);
    if (s->kind == CMZ_STEP_KERNEL)
      cmz_text_add(text, " %u %s", s->index,
                   s->index < p->kernels.count ? p->kernels.data[s->index].kernel->name : "?");
    if (s->kind == CMZ_STEP_BIND) {
      cmz_text_add(text, " %s = element %" PRId64 " of",
                   cmz_dim_symbol_at(p->module->dims, s->symbol)->name, s->element);
    }
    print_list(text, "operands", s->operands, s->operand_count);
    print_dims(p, text, "params", s->params, s->param_count);
    print_dims(p, text, "tiles", s->tiles, s->level_count);
    if (s->loop) print_loop(p, text, s->loop);
    if (s->node) cmz_text_add(text, " ; %s", cmz_node_get(p->module, s->node)->name);
    cmz_text_add(text, "\n");
    for (uint32_t j = 0; j < s->block_count && j < 2; j++) {
      cmz_text_add(text, "%*sblock %u\n", indent * 2, "", s->blocks[j]);
      print_block(p, s->blocks[j], indent + 1, text);
    }
  }
}

void cmz_plan_print(const cmz_plan *p, cmz_text *text) {
  cmz_text_add(text, "plan arena ");
  if (p->arena_bytes) cmz_dim_print(p->module->dims, p->arena_bytes, text);
  cmz_text_add(text, "\n");
  for (uint32_t i = 0; i < p->buffers.count; i++) print_buffer(p, i, text);
  print_block(p, 0, 0, text);
  for (uint32_t i = 0; i < p->kernels.count; i++) {
    cmz_text_add(text, "# kernel %u\n", i);
    cmz_kernel_print(p->kernels.data[i].kernel, text);
    if (p->kernels.data[i].schedules) cmz_schedule_print(p->kernels.data[i].schedules, text);
  }
}

/* ---- verify ---- */

typedef struct checker {
  const cmz_plan *p;
  bool *defined;
  bool *visited; /* blocks */
  cmz_nid node;
} checker;

static cmz_status wrong(const checker *c, const char *what, uint32_t which) {
  return cmz_fail(c->p->module->ctx, CMZ_E_INTERNAL,
                  c->node ? cmz_node_loc(c->p->module, c->node) : (cmz_loc){0},
                  "plan: %s (%" PRIu32 ")", what, which);
}

static uint32_t root_of(const cmz_plan *p, uint32_t buffer) {
  for (uint32_t i = 0; i < p->buffers.count && p->buffers.data[buffer].kind == CMZ_BUFFER_ALIAS;
       i++)
    buffer = p->buffers.data[buffer].index;
  return buffer;
}

static cmz_status reads(checker *c, uint32_t buffer) {
  if (buffer == CMZ_NO_BUFFER) return CMZ_OK;
  if (buffer >= c->p->buffers.count) return wrong(c, "buffer out of range", buffer);
  return c->defined[root_of(c->p, buffer)] ? CMZ_OK
                                           : wrong(c, "buffer read before it is written", buffer);
}

static cmz_status writes(checker *c, uint32_t buffer) {
  if (buffer == CMZ_NO_BUFFER) return CMZ_OK;
  if (buffer >= c->p->buffers.count) return wrong(c, "buffer out of range", buffer);
  uint32_t root = root_of(c->p, buffer);
  cmz_buffer_kind kind = c->p->buffers.data[root].kind;
  if (kind == CMZ_BUFFER_CONSTANT || kind == CMZ_BUFFER_INPUT)
    return wrong(c, "write to an input or constant", buffer);
  c->defined[root] = true;
  return CMZ_OK;
}

static cmz_status check_block(checker *c, uint32_t block);

static cmz_status check_kernel(checker *c, const cmz_step *s) {
  const cmz_plan *p = c->p;
  if (s->index >= p->kernels.count) return wrong(c, "kernel out of range", s->index);
  const cmz_kernel *k = p->kernels.data[s->index].kernel;
  if (k->operands.count != s->operand_count)
    return wrong(c, "number of a kernel's operands", s->operand_count);
  if (k->param_count > s->param_count)
    return wrong(c, "number of a kernel's parameters", s->param_count);
  for (uint32_t pass = 0; pass < 2; pass++) /* all reads before the writes */
    for (uint32_t i = 0; i < s->operand_count; i++) {
      if (s->operands[i] == CMZ_NO_BUFFER) return wrong(c, "kernel operand without a buffer", i);
      uint8_t access = k->operands.data[i].access;
      if (!pass && access == CMZ_READ) CMZ_TRY(reads(c, s->operands[i]));
      if (pass && (access & CMZ_WRITE)) CMZ_TRY(writes(c, s->operands[i]));
    }
  return CMZ_OK;
}

static cmz_status check_loop(checker *c, const cmz_step *s) {
  const cmz_plan_loop *l = s->loop;
  if (!l || s->block_count != 1) return wrong(c, "loop without a body", s->block_count);
  CMZ_TRY(reads(c, l->trip_count));
  CMZ_TRY(reads(c, l->condition));
  CMZ_TRY(writes(c, l->iteration));
  for (uint32_t i = 0; i < l->carried_count; i++) {
    CMZ_TRY(reads(c, l->initial[i]));
    CMZ_TRY(writes(c, l->state[i]));
  }
  for (uint32_t i = 0; i < l->scan_in_count; i++) {
    CMZ_TRY(reads(c, l->scan_in[i]));
    CMZ_TRY(writes(c, l->scan_slice[i]));
  }
  CMZ_TRY(check_block(c, s->blocks[0]));
  CMZ_TRY(reads(c, l->body_condition));
  for (uint32_t i = 0; i < l->carried_count; i++) CMZ_TRY(reads(c, l->next[i]));
  for (uint32_t i = 0; i < l->scan_out_count; i++) {
    CMZ_TRY(reads(c, l->body_out[i]));
    CMZ_TRY(writes(c, l->scan_out[i]));
  }
  return CMZ_OK;
}

static cmz_status check_runtime(checker *c, const cmz_step *s) {
  if (!s->node) return wrong(c, "runtime step without a node", 0);
  const cmz_node *n = cmz_node_get(c->p->module, s->node);
  if (n->input_count + n->output_count != s->operand_count)
    return wrong(c, "number of a runtime step's operands", s->operand_count);
  for (uint32_t i = 0; i < n->input_count; i++) CMZ_TRY(reads(c, s->operands[i]));
  for (uint32_t i = n->input_count; i < s->operand_count; i++) CMZ_TRY(writes(c, s->operands[i]));
  return CMZ_OK;
}

/* What both branches define is defined afterwards; what one defines is the planner's business:
 * outputs are copied in both. */
static cmz_status check_if(checker *c, const cmz_step *s) {
  if (s->block_count != 2 || s->operand_count != 1)
    return wrong(c, "if without branches", s->block_count);
  CMZ_TRY(reads(c, s->operands[0]));
  CMZ_TRY(check_block(c, s->blocks[0]));
  return check_block(c, s->blocks[1]);
}

static cmz_status check_step(checker *c, const cmz_step *s) {
  c->node = s->node;
  switch (s->kind) {
  case CMZ_STEP_KERNEL:
    return check_kernel(c, s);
  case CMZ_STEP_RUNTIME:
    return check_runtime(c, s);
  case CMZ_STEP_COPY:
    if (s->operand_count != 2) return wrong(c, "copy needs two buffers", s->operand_count);
    CMZ_TRY(reads(c, s->operands[0]));
    return writes(c, s->operands[1]);
  case CMZ_STEP_BIND:
    if (s->symbol >= cmz_dim_symbol_count(c->p->module->dims))
      return wrong(c, "symbol out of range", s->symbol);
    return s->operand_count ? reads(c, s->operands[0]) : CMZ_OK;
  case CMZ_STEP_IF:
    return check_if(c, s);
  case CMZ_STEP_LOOP:
    return check_loop(c, s);
  }
  return wrong(c, "unknown step", s->kind);
}

static cmz_status check_block(checker *c, uint32_t block) {
  if (block >= c->p->blocks.count) return wrong(c, "block out of range", block);
  if (c->visited[block]) return wrong(c, "block with two owners", block);
  c->visited[block] = true;
  const cmz_block *b = &c->p->blocks.data[block];
  for (uint32_t i = 0; i < b->steps.count; i++) CMZ_TRY(check_step(c, &b->steps.data[i]));
  return CMZ_OK;
}

typedef struct span {
  bool known;
  int64_t start, end;
} span;

static cmz_status check_overlap(checker *c) {
  const cmz_plan *p = c->p;
  const cmz_dims *dims = p->module->dims;
  span *spans = CMZ_NEW_ARRAY(p->arena, span, p->buffers.count);
  for (uint32_t i = 0; i < p->buffers.count; i++) {
    const cmz_buffer *b = &p->buffers.data[i];
    int64_t bytes;
    if (b->kind != CMZ_BUFFER_ARENA) continue;
    span *s = &spans[i];
    /* Sizes may be negative at hints that no run accepts; nothing follows from them then. */
    s->known = cmz_dim_hint(dims, b->offset, &s->start) && cmz_dim_hint(dims, b->bytes, &bytes) &&
               s->start >= 0 && bytes >= 0 && cmz_add_i64(s->start, bytes, &s->end);
    if (s->known && s->start % CMZ_ARENA_ALIGNMENT) return wrong(c, "misaligned buffer", i);
    if (b->first > b->last) return wrong(c, "buffer dies before it is born", i);
  }
  for (uint32_t i = 0; i < p->buffers.count; i++) {
    const cmz_buffer *a = &p->buffers.data[i];
    if (!spans[i].known) continue;
    for (uint32_t j = i + 1; j < p->buffers.count; j++) {
      const cmz_buffer *b = &p->buffers.data[j];
      if (!spans[j].known || a->last < b->first || b->last < a->first) continue;
      if (spans[i].start < spans[j].end && spans[j].start < spans[i].end)
        return wrong(c, "buffers that are alive together overlap; the second is", j);
    }
  }
  return CMZ_OK;
}

cmz_status cmz_plan_verify(const cmz_plan *p) {
  checker c = {.p = p};
  c.defined = CMZ_NEW_ARRAY(p->arena, bool, p->buffers.count);
  c.visited = CMZ_NEW_ARRAY(p->arena, bool, p->blocks.count);
  for (uint32_t i = 0; i < p->buffers.count; i++) {
    const cmz_buffer *b = &p->buffers.data[i];
    if (b->value >= p->module->values.count) return wrong(&c, "value of a buffer out of range", i);
    if (b->kind == CMZ_BUFFER_CONSTANT && b->index >= p->module->constants.count)
      return wrong(&c, "constant of a buffer out of range", i);
    if (b->kind == CMZ_BUFFER_ALIAS && b->index >= i && b->index >= p->buffers.count)
      return wrong(&c, "alias of a buffer out of range", i);
    c.defined[i] = b->kind == CMZ_BUFFER_INPUT || b->kind == CMZ_BUFFER_CONSTANT;
  }
  for (uint32_t i = 0; i < p->buffers.count; i++)
    if (p->buffers.data[root_of(p, i)].kind == CMZ_BUFFER_ALIAS)
      return wrong(&c, "aliases in a circle", i);
  for (uint32_t i = 0; i < p->kernels.count; i++)
    CMZ_TRY(cmz_kernel_verify(p->module->ctx, p->kernels.data[i].kernel));
  if (!p->blocks.count) return wrong(&c, "no blocks", 0);
  CMZ_TRY(check_block(&c, 0));
  c.node = 0;
  return check_overlap(&c);
}
