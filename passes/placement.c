/* placement.c - where a GPU model's work is done. In: a plan. Out: what runs on the device and on
 * the host, and what is copied between the two, as JSON. Always holds: this is what the runtime
 * does: kernels run on the device; the runtime's closed table of operators, sizes and conditions
 * that depend on data are the host's; what the host reads is copied before the step that reads it,
 * except for constants and the caller's tensors in host memory, which it has already. */
#include "placement.h"
#include "../ir/op.h"

#include <jansson.h>

typedef struct placement {
  const cmz_plan *plan;
  double device_flops, host_flops;
  uint64_t launches;
  json_t *ops, *copies;
  json_int_t read, written; /* bytes */
} placement;

/* Sizes are those of the hints; a size that depends on data counts as the hint of its symbol. */
static int64_t at_hint(const placement *p, cmz_dim d) {
  int64_t value;
  return cmz_dim_hint(p->plan->module->dims, d, &value) && value > 0 ? value : 0;
}

static int64_t buffer_bytes(const placement *p, uint32_t b) {
  return at_hint(p, p->plan->buffers.data[b].bytes);
}

static cmz_buffer_kind root_kind(const cmz_plan *plan, uint32_t b) {
  while (plan->buffers.data[b].kind == CMZ_BUFFER_ALIAS) b = plan->buffers.data[b].index;
  return plan->buffers.data[b].kind;
}

/* The host has it without asking the device. */
static bool host_has(const cmz_plan *plan, uint32_t b) {
  cmz_buffer_kind kind = root_kind(plan, b);
  return kind == CMZ_BUFFER_CONSTANT || kind == CMZ_BUFFER_INPUT;
}

static json_t *name_of(const char *name) {
  json_t *string = name ? json_string(name) : json_string("");
  return string ? string : json_string("(not UTF-8)");
}

static void add_copy(placement *p, uint32_t b, bool to_host, int64_t bytes, const char *why,
                     cmz_nid node, double times) {
  const cmz_module *m = p->plan->module;
  const cmz_buffer *buffer = &p->plan->buffers.data[b];
  json_t *copy = json_object();
  json_object_set_new(copy, "tensor", name_of(cmz_value_get(m, buffer->value)->name));
  json_object_set_new(copy, "to", json_string(to_host ? "host" : "device"));
  json_object_set_new(copy, "for", json_string(why));
  json_object_set_new(copy, "node", name_of(node ? cmz_node_get(m, node)->name : NULL));
  json_object_set_new(copy, "bytes", json_integer(bytes));
  json_object_set_new(copy, "times", json_real(times));
  json_array_append_new(p->copies, copy);
  *(to_host ? &p->read : &p->written) += (json_int_t)((double)bytes * times);
}

static void read_element(placement *p, uint32_t b, const char *why, cmz_nid node, double times) {
  if (b == CMZ_NO_BUFFER || host_has(p->plan, b)) return;
  const cmz_value *v = cmz_value_get(p->plan->module, p->plan->buffers.data[b].value);
  add_copy(p, b, true, cmz_dtype_info(v->type.dtype)->bits / 8, why, node, times);
}

/* A host operator's work is counted as one operation an element that it reads or writes. */
static void host_op(placement *p, const cmz_step *s, double times) {
  const cmz_module *m = p->plan->module;
  const cmz_node *node = cmz_node_get(m, s->node);
  double elements = 0;
  for (uint32_t i = 0; i < s->operand_count; i++) {
    uint32_t b = s->operands[i];
    if (b == CMZ_NO_BUFFER) continue;
    const cmz_value *v = cmz_value_get(m, p->plan->buffers.data[b].value);
    uint32_t bits = cmz_dtype_info(v->type.dtype)->bits;
    elements += (double)buffer_bytes(p, b) * 8 / (bits ? bits : 64);
    bool input = i < node->input_count;
    if (!input || !host_has(p->plan, b))
      add_copy(p, b, input, buffer_bytes(p, b), "operator", s->node, times);
  }
  json_t *op = json_object();
  json_object_set_new(op, "node", name_of(node->name));
  json_object_set_new(op, "op", json_string(node->op->name));
  json_object_set_new(op, "function", name_of(node->op->runtime));
  json_object_set_new(op, "elements", json_real(elements));
  json_object_set_new(op, "times", json_real(times));
  json_array_append_new(p->ops, op);
  p->host_flops += elements * times;
}

/* How often a loop's body runs, as far as the plan tells; else once. */
static double iterations(const placement *p, const cmz_plan_loop *l) {
  int64_t count = l->scan_length != CMZ_DIM_NONE ? at_hint(p, l->scan_length) : 0;
  if (count == 0 && l->trip_count != CMZ_NO_BUFFER) {
    const cmz_constant *c =
        cmz_value_constant(p->plan->module, p->plan->buffers.data[l->trip_count].value);
    if (c && c->dtype == CMZ_I64 && c->bytes >= sizeof count) memcpy(&count, c->data, sizeof count);
  }
  return count > 0 && count < INT32_MAX ? (double)count : 1;
}

static void block(placement *p, uint32_t index, double times);

static void loop(placement *p, const cmz_step *s, double times) {
  const cmz_plan_loop *l = s->loop;
  double rounds = times * iterations(p, l);
  read_element(p, l->trip_count, "trip count", s->node, times);
  read_element(p, l->condition, "condition", s->node, times);
  if (l->iteration != CMZ_NO_BUFFER)
    add_copy(p, l->iteration, false, 8, "iteration", s->node, rounds);
  block(p, s->blocks[0], rounds);
  read_element(p, l->body_condition, "condition", s->node, rounds);
}

static void step(placement *p, const cmz_step *s, double times) {
  switch (s->kind) {
  case CMZ_STEP_KERNEL:
    p->device_flops += (double)p->plan->kernels.data[s->index].kernel->flops * times;
    p->launches += (uint64_t)times;
    break;
  case CMZ_STEP_RUNTIME:
    host_op(p, s, times);
    break;
  case CMZ_STEP_BIND:
    if (s->element >= 0) read_element(p, s->operands[0], "size", s->node, times);
    break;
  case CMZ_STEP_IF:
    read_element(p, s->operands[0], "condition", s->node, times);
    for (uint32_t i = 0; i < s->block_count; i++) block(p, s->blocks[i], times);
    break;
  case CMZ_STEP_LOOP:
    loop(p, s, times);
    break;
  case CMZ_STEP_COPY:
    break; /* on the device */
  }
}

static void block(placement *p, uint32_t index, double times) {
  const cmz_block *b = &p->plan->blocks.data[index];
  for (uint32_t i = 0; i < b->steps.count; i++) step(p, &b->steps.data[i], times);
}

json_t *cmz_placement_json(const cmz_plan *plan) {
  placement p = {.plan = plan, .ops = json_array(), .copies = json_array()};
  for (uint32_t i = 0; i < plan->buffers.count; i++) {
    const cmz_buffer *b = &plan->buffers.data[i];
    if (b->kind == CMZ_BUFFER_INPUT) add_copy(&p, i, false, buffer_bytes(&p, i), "input", 0, 1);
  }
  block(&p, 0, 1);
  for (uint32_t i = 0; i < plan->buffers.count; i++) {
    const cmz_buffer *b = &plan->buffers.data[i];
    if (b->kind == CMZ_BUFFER_OUTPUT) add_copy(&p, i, true, buffer_bytes(&p, i), "output", 0, 1);
  }
  double all = p.device_flops + p.host_flops;
  json_t *out = json_object();
  json_object_set_new(out, "kernels", json_integer(plan->kernels.count));
  json_object_set_new(out, "launches", json_integer((json_int_t)p.launches));
  json_object_set_new(out, "flops_device", json_real(p.device_flops));
  json_object_set_new(out, "flops_host", json_real(p.host_flops));
  json_object_set_new(out, "share_device", json_real(all > 0 ? p.device_flops / all : 1));
  json_object_set_new(out, "bytes_to_device", json_integer(p.written));
  json_object_set_new(out, "bytes_to_host", json_integer(p.read));
  json_object_set_new(out, "host_ops", p.ops);
  json_object_set_new(out, "copies", p.copies);
  return out;
}
