/* values.c - strings, sequences and optionals of an instance: their memory, the way in and out.
 * In: cmz_values of the caller, buffers of the program. Out: the same. Always holds: see values.h.
 */
#include "values.h"

enum { TEXT_CHUNK = 4096, ITEM_HEADER = (sizeof(cmz_item) + 63) / 64 * 64 };

typedef struct text_chunk {
  struct text_chunk *next;
  size_t size, used;
} text_chunk;

struct cmz_values {
  text_chunk *texts;
  const cmz_value *given;       /* inputs of this run_values */
  cmz_list **input_lists;       /* by input */
  cmz_tensor *inputs, *outputs; /* by input, output: what `run` sees */
  cmz_tensor **items;           /* by output: the items of the last run, and how many fit */
  size_t *items_capacity;
  size_t bytes; /* of this and its tables */
};

static int no_memory(cmz_model *m) { return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory"); }

/* ---- items and lists ---- */

static size_t item_bytes(const cmz_item *item) {
  return ITEM_HEADER + (item->borrowed ? 0 : item->bytes);
}

cmz_item *cmz_item_take(cmz_model *m, uint32_t element, uint32_t rank, const int64_t *dims) {
  int64_t bytes = cmz_tensor_bytes(element, rank, dims);
  void *memory = bytes < 0 ? NULL : cmz_memory_take(m, ITEM_HEADER + (size_t)bytes);
  if (!memory) {
    no_memory(m);
    return NULL;
  }
  cmz_item *item = memory;
  *item = (cmz_item){.references = 1, .element = element, .rank = rank, .bytes = (size_t)bytes};
  for (uint32_t d = 0; d < rank; d++) item->dims[d] = dims[d];
  item->data = (char *)memory + ITEM_HEADER;
  return item;
}

static void item_release(cmz_model *m, cmz_item *item) {
  if (item && --item->references == 0) cmz_memory_give(m, item, item_bytes(item));
}

static size_t list_bytes(size_t count) { return sizeof(cmz_list) + count * sizeof(cmz_item *); }

cmz_list *cmz_list_take(cmz_model *m, size_t count) {
  cmz_list *list = cmz_memory_take(m, list_bytes(count));
  if (!list) {
    no_memory(m);
    return NULL;
  }
  memset(list, 0, list_bytes(count));
  list->references = 1;
  list->count = count;
  return list;
}

void cmz_list_release(cmz_model *m, cmz_list *list) {
  if (!list || --list->references) return;
  for (size_t i = 0; i < list->count; i++) item_release(m, list->items[i]);
  cmz_memory_give(m, list, list_bytes(list->count));
}

/* Buffer B holds LIST from now on. */
static void set_list(cmz_model *m, uint32_t b, cmz_list *list) {
  void **slot = &m->pointers[m->roots[b]];
  cmz_list *old = *slot;
  *slot = list;
  cmz_list_release(m, old);
}

static int copy(cmz_model *m, uint32_t from, uint32_t to) {
  cmz_list *list = m->pointers[m->roots[from]];
  if (list) list->references++;
  set_list(m, to, list);
  return CMZ_SUCCESS;
}

static int carry(cmz_model *m, const uint32_t *triples, uint32_t count) {
  const cmz_program_buffer *buffers = m->program->buffers;
  /* Each list is held before any state is overwritten. */
  size_t bytes = (count + 1) * sizeof(void *);
  cmz_list **next = cmz_memory_take(m, bytes);
  if (!next) return no_memory(m);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t from = triples[3 * i + 2];
    next[i] = buffers[from].value ? m->pointers[m->roots[from]] : NULL;
    if (next[i]) next[i]->references++;
  }
  for (uint32_t i = 0; i < count; i++) {
    if (buffers[triples[3 * i + 2]].value) set_list(m, triples[3 * i + 1], next[i]);
  }
  cmz_memory_give(m, next, bytes);
  return CMZ_SUCCESS;
}

/* ---- strings ---- */

char *cmz_text_take(cmz_model *m, size_t size) {
  struct cmz_values *v = m->values;
  text_chunk *chunk = v->texts;
  if (!chunk || chunk->size - chunk->used < size) {
    size_t room = size > TEXT_CHUNK ? size : TEXT_CHUNK;
    chunk = cmz_memory_take(m, sizeof *chunk + room);
    if (!chunk) {
      no_memory(m);
      return NULL;
    }
    *chunk = (text_chunk){.next = v->texts, .size = room};
    v->texts = chunk;
  }
  char *text = (char *)(chunk + 1) + chunk->used;
  chunk->used += size;
  return text;
}

static void drop_texts(cmz_model *m, bool all) {
  struct cmz_values *v = m->values;
  while (v->texts && (all || v->texts->next)) {
    text_chunk *next = v->texts->next;
    cmz_memory_give(m, v->texts, sizeof *v->texts + v->texts->size);
    v->texts = next;
  }
  if (v->texts) v->texts->used = 0;
}

/* The COUNT strings of TABLE become copies in the pool. */
static int own_strings(cmz_model *m, const char **table, size_t count) {
  for (size_t i = 0; i < count; i++) {
    size_t size = table[i] ? strlen(table[i]) + 1 : 1;
    char *text = cmz_text_take(m, size);
    if (!text) return CMZ_OUT_OF_MEMORY;
    if (table[i]) memcpy(text, table[i], size);
    else *text = 0;
    table[i] = text;
  }
  return CMZ_SUCCESS;
}

static int64_t buffer_count(const cmz_model *m, const cmz_program_buffer *b) {
  int64_t count = 1;
  for (uint32_t d = 0; d < b->rank; d++) count *= m->slots[m->program->lists[b->dim_slots + d]];
  return count;
}

/* Constant strings lie in the file as offsets from their start, then the texts. */
static int place_constants(cmz_model *m) {
  const cmz_program *p = m->program;
  for (uint32_t b = 0; b < p->buffer_count; b++) {
    const cmz_program_buffer *buffer = &p->buffers[b];
    if (buffer->kind != CMZ_PB_CONSTANT || buffer->element != CMZ_ELEMENT_STRING) continue;
    int64_t count = buffer_count(m, buffer);
    const char *stored = m->pointers[b];
    int rc = cmz_buffer_reserve(m, b, count * (int64_t)sizeof(char *), false);
    if (rc) return rc;
    for (int64_t i = 0; i < count; i++) {
      uint64_t offset;
      memcpy(&offset, stored + 8 * i, sizeof offset);
      ((const char **)m->pointers[b])[i] = stored + offset;
    }
  }
  return CMZ_SUCCESS;
}

/* ---- inputs ---- */

static int check_item(cmz_model *m, uint32_t input, const cmz_tensor *t) {
  const cmz_program *p = m->program;
  const cmz_port *port = &p->description->inputs[input];
  const cmz_program_buffer *b = &p->buffers[p->input_buffers[input]];
  uint32_t inside = b->value >> 8;
  const char *wrong = NULL;
  if (t->element != port->element) wrong = "has another element type than the model takes";
  else if (t->memory != CMZ_MEMORY_HOST) wrong = "is not in host memory";
  else if (t->rank > CMZ_MAX_DIMS || (inside && t->rank != inside - 1)) wrong = "has a wrong rank";
  for (uint32_t d = 0; !wrong && inside && d < t->rank; d++) {
    uint32_t slot = p->lists[b->dim_slots + d];
    if (slot != CMZ_NO_INDEX && m->slots[slot] != t->dims[d]) wrong = "has a wrong shape";
  }
  int64_t bytes = wrong ? 0 : cmz_tensor_bytes(t->element, t->rank, t->dims);
  if (!wrong && bytes < 0) wrong = "has dims out of range";
  bool strided = false;
  for (uint32_t d = 0; !wrong && d < t->rank; d++) strided |= t->strides[d] != 0;
  if (!wrong && strided) wrong = "has strides; items must be contiguous, with strides of 0";
  if (!wrong && (t->bytes < (size_t)bytes || (bytes && !t->data))) wrong = "has too few bytes";
  if (!wrong) return CMZ_SUCCESS;
  return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "input \"%s\": an item %s", port->name, wrong);
}

static int take_list(cmz_model *m, uint32_t input, const cmz_value *value, cmz_list **out) {
  cmz_list *list = *out = cmz_list_take(m, value->count);
  if (!list) return CMZ_OUT_OF_MEMORY;
  for (size_t i = 0; i < value->count; i++) {
    const cmz_tensor *t = &value->items[i];
    int rc = check_item(m, input, t);
    if (rc) return rc;
    cmz_item *item = cmz_memory_take(m, ITEM_HEADER);
    if (!item) return no_memory(m);
    *item = (cmz_item){.references = 1,
                       .element = t->element,
                       .rank = t->rank,
                       .borrowed = true,
                       .bytes = (size_t)cmz_tensor_bytes(t->element, t->rank, t->dims),
                       .data = t->data};
    for (uint32_t d = 0; d < t->rank; d++) item->dims[d] = t->dims[d];
    list->items[i] = item;
  }
  return CMZ_SUCCESS;
}

static int take_input(cmz_model *m, uint32_t input, uint32_t kind) {
  struct cmz_values *v = m->values;
  const cmz_value *value = &v->given[input];
  cmz_list_release(m, v->input_lists[input]);
  v->input_lists[input] = NULL;
  bool sequence = kind & CMZ_PORT_SEQUENCE, none = value->kind == CMZ_VALUE_NONE;
  bool fits = none ? (kind & CMZ_PORT_OPTIONAL) != 0
                   : value->kind == (sequence ? CMZ_VALUE_SEQUENCE : CMZ_VALUE_TENSOR) &&
                         (sequence || value->count == 1) && (value->items || !value->count);
  if (!fits) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "input \"%s\" must be %s%s",
                        m->program->description->inputs[input].name,
                        sequence ? "a sequence" : "a tensor",
                        kind & CMZ_PORT_OPTIONAL ? " or nothing" : "");
  }
  int rc = none ? CMZ_SUCCESS : take_list(m, input, value, &v->input_lists[input]);
  if (!rc) m->pointers[m->program->input_buffers[input]] = v->input_lists[input];
  return rc;
}

static int begin(cmz_model *m) {
  const cmz_description *d = m->program->description;
  drop_texts(m, false);
  if (!m->values->given && (d->input_kinds || d->output_kinds)) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT,
                        "the model has sequences or optionals: run_values runs it");
  }
  for (uint32_t i = 0; d->input_kinds && i < d->input_count; i++) {
    int rc = d->input_kinds[i] ? take_input(m, i, d->input_kinds[i]) : CMZ_SUCCESS;
    if (rc) return rc;
  }
  return CMZ_SUCCESS;
}

/* ---- outputs ---- */

static int own_item(cmz_model *m, cmz_item **slot) {
  cmz_item *item = *slot;
  if (item->borrowed) {
    cmz_item *own = cmz_item_take(m, item->element, item->rank, item->dims);
    if (!own) return CMZ_OUT_OF_MEMORY;
    if (item->bytes) memcpy(own->data, item->data, item->bytes);
    item_release(m, item);
    *slot = item = own;
  }
  if (item->element != CMZ_ELEMENT_STRING) return CMZ_SUCCESS;
  return own_strings(m, item->data, item->bytes / sizeof(char *));
}

static int show_list(cmz_model *m, uint32_t output, cmz_list *list) {
  struct cmz_values *v = m->values;
  size_t count = list ? list->count : 0;
  if (v->items_capacity[output] < count) {
    cmz_memory_give(m, v->items[output], v->items_capacity[output] * sizeof(cmz_tensor));
    v->items_capacity[output] = 0;
    v->items[output] = cmz_memory_take(m, count * sizeof(cmz_tensor));
    if (!v->items[output]) return no_memory(m);
    v->items_capacity[output] = count;
  }
  for (size_t i = 0; i < count; i++) {
    int rc = own_item(m, &list->items[i]);
    if (rc) return rc;
    const cmz_item *item = list->items[i];
    cmz_tensor *t = &v->items[output][i];
    *t = (cmz_tensor){
        .data = item->data, .element = item->element, .rank = item->rank, .bytes = item->bytes};
    for (uint32_t d = 0; d < item->rank; d++) t->dims[d] = item->dims[d];
  }
  return CMZ_SUCCESS;
}

static int finish(cmz_model *m) {
  const cmz_program *p = m->program;
  const cmz_description *d = p->description;
  for (uint32_t i = 0; i < d->output_count; i++) {
    uint32_t b = p->output_buffers[i];
    int rc = CMZ_SUCCESS;
    if (d->output_kinds && d->output_kinds[i]) {
      rc = show_list(m, i, m->pointers[m->roots[b]]);
    } else if (d->outputs[i].element == CMZ_ELEMENT_STRING) {
      rc = own_strings(m, m->pointers[m->roots[b]], (size_t)buffer_count(m, &p->buffers[b]));
    }
    if (rc) return rc;
  }
  return CMZ_SUCCESS;
}

/* ---- the instance ---- */

static int create(cmz_model *m) {
  const cmz_description *d = m->program->description;
  size_t in = d->input_count, out = d->output_count;
  size_t bytes = sizeof(struct cmz_values) + (in + out) * sizeof(cmz_tensor) +
                 in * sizeof(cmz_list *) + out * (sizeof(cmz_tensor *) + sizeof(size_t));
  struct cmz_values *v = cmz_memory_take(m, bytes);
  if (!v) return no_memory(m);
  memset(v, 0, bytes);
  v->bytes = bytes;
  v->inputs = (cmz_tensor *)(v + 1);
  v->outputs = v->inputs + in;
  v->input_lists = (cmz_list **)(v->outputs + out);
  v->items = (cmz_tensor **)(v->input_lists + in);
  v->items_capacity = (size_t *)(v->items + out);
  m->values = v;
  return place_constants(m);
}

static void destroy(cmz_model *m) {
  struct cmz_values *v = m->values;
  const cmz_program *p = m->program;
  const cmz_description *d = p->description;
  for (uint32_t b = 0; b < p->buffer_count; b++) {
    uint32_t kind = p->buffers[b].kind;
    if (p->buffers[b].value && kind != CMZ_PB_ALIAS && kind != CMZ_PB_INPUT)
      cmz_list_release(m, m->pointers[b]);
  }
  for (uint32_t i = 0; i < d->input_count; i++) cmz_list_release(m, v->input_lists[i]);
  for (uint32_t i = 0; i < d->output_count; i++)
    cmz_memory_give(m, v->items[i], v->items_capacity[i] * sizeof(cmz_tensor));
  drop_texts(m, true);
  cmz_memory_give(m, v, v->bytes);
  m->values = NULL;
}

const cmz_value_functions cmz_value_support = {create, destroy, begin, finish, copy, carry};

/* ---- run_values ---- */

static int gather_tensors(cmz_model *m, const cmz_value *inputs, const cmz_value *outputs) {
  struct cmz_values *v = m->values;
  const cmz_description *d = m->program->description;
  for (uint32_t i = 0; i < d->input_count; i++) {
    memset(&v->inputs[i], 0, sizeof v->inputs[i]);
    if (d->input_kinds && d->input_kinds[i]) continue;
    if (inputs[i].kind != CMZ_VALUE_TENSOR || inputs[i].count != 1 || !inputs[i].items) {
      return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "input \"%s\" must be a tensor",
                          d->inputs[i].name);
    }
    v->inputs[i] = inputs[i].items[0];
  }
  for (uint32_t i = 0; i < d->output_count; i++) {
    memset(&v->outputs[i], 0, sizeof v->outputs[i]);
    bool given = outputs[i].kind == CMZ_VALUE_TENSOR && outputs[i].count == 1 && outputs[i].items;
    if (given && !(d->output_kinds && d->output_kinds[i])) v->outputs[i] = outputs[i].items[0];
  }
  return CMZ_SUCCESS;
}

static void give_output(cmz_model *m, uint32_t i, cmz_value *output) {
  struct cmz_values *v = m->values;
  const cmz_program *p = m->program;
  uint32_t kind = p->description->output_kinds ? p->description->output_kinds[i] : 0;
  if (!kind) {
    bool given = output->kind == CMZ_VALUE_TENSOR && output->count == 1 && output->items;
    if (given) output->items[0] = v->outputs[i];
    else *output = (cmz_value){.kind = CMZ_VALUE_TENSOR, .count = 1, .items = &v->outputs[i]};
    return;
  }
  const cmz_list *list = m->pointers[m->roots[p->output_buffers[i]]];
  *output = (cmz_value){.kind = CMZ_VALUE_NONE};
  if (!list) return;
  output->kind = kind & CMZ_PORT_SEQUENCE ? CMZ_VALUE_SEQUENCE : CMZ_VALUE_TENSOR;
  output->count = list->count;
  output->items = v->items[i];
}

int cmz_instance_run_values(cmz_model *m, const cmz_value *inputs, cmz_value *outputs) {
  if (!m) return CMZ_INVALID_ARGUMENT;
  if (!m->ready) return m->code;
  const cmz_description *d = m->program->description;
  m->error[0] = 0;
  if ((d->input_count && !inputs) || (d->output_count && !outputs)) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "run without inputs or outputs");
  }
  static const cmz_value nothing;
  int rc = gather_tensors(m, inputs, outputs);
  if (rc) return rc;
  m->values->given = inputs ? inputs : &nothing;
  rc = cmz_instance_run(m, m->values->inputs, m->values->outputs);
  m->values->given = NULL;
  for (uint32_t i = 0; !rc && i < d->output_count; i++) give_output(m, i, &outputs[i]);
  return rc;
}

/* ---- for ops ---- */

int64_t cmz_op_count(const cmz_op_tensor *t) {
  int64_t count = 1;
  for (uint32_t d = 0; d < t->rank; d++) count *= t->dims[d];
  return count;
}

int cmz_op_set_list(cmz_op_call *call, cmz_list *list) {
  if (call->outputs[0].buffer == CMZ_NO_INDEX) cmz_list_release(call->model, list);
  else set_list(call->model, call->outputs[0].buffer, list);
  return CMZ_SUCCESS;
}

int cmz_op_shape(cmz_op_call *call, uint32_t index, uint32_t rank, const int64_t *dims) {
  cmz_model *m = call->model;
  const cmz_program *p = m->program;
  cmz_op_tensor *output = &call->outputs[index];
  if (output->buffer == CMZ_NO_INDEX) return CMZ_SUCCESS;
  const cmz_program_buffer *b = &p->buffers[output->buffer];
  int64_t bytes = cmz_tensor_bytes(b->element, rank, dims);
  bool fits = rank == b->rank && bytes >= 0;
  for (uint32_t d = 0; fits && d < rank; d++) {
    uint32_t slot = p->lists[b->dim_slots + d];
    if (p->slot_init[slot] && p->slot_init[slot] != dims[d]) fits = false; /* a known size */
    else if (slot) m->slots[slot] = output->dims[d] = dims[d];
    else fits = dims[d] == 0;
  }
  if (!fits) return cmz_op_fail(call, "a tensor has another shape than the model was compiled for");
  return cmz_op_output(call, index, bytes);
}

cmz_item *cmz_op_item(cmz_op_call *call, const cmz_op_tensor *t) {
  cmz_item *item = cmz_item_take(call->model, t->element, t->rank, t->dims);
  if (item && item->bytes) memcpy(item->data, t->data, item->bytes);
  return item;
}
