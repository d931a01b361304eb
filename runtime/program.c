/* program.c - interprets a program's size instructions and steps.
 * In: an instance whose inputs are checked and whose pointers are set (run.c). Out: outputs in
 * their buffers. Always holds: a static program's steps take no memory; memory that depends on data
 * is taken just before the step that writes it. */
#include "device.h"
#include "ops.h"
#include "values.h"

/* Below this much work (flops plus bytes) a step is not worth waking threads for. */
enum { SMALL_WORK = 60000 };

static int64_t floor_div(int64_t a, int64_t b) {
  if (b == 0) return 0; /* a slot whose symbol is not bound yet; nothing reads it */
  if (b == -1) return (int64_t)(0 - (uint64_t)a);
  return a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
}

static int64_t floor_mod(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a - (uint64_t)floor_div(a, b) * (uint64_t)b);
}

static int64_t scale(int64_t a, int64_t bits) {
  double factor;
  memcpy(&factor, &bits, sizeof factor);
  double value = (double)a * factor;
  if (!(value > -9.0e18 && value < 9.0e18)) return -1;
  int64_t whole = (int64_t)value;
  return whole - (value < (double)whole);
}

static int64_t size_value(uint32_t op, int64_t a, int64_t b, int64_t c) {
  switch ((cmz_size_op)op) {
  case CMZ_SIZE_ADD:
    return (int64_t)((uint64_t)a + (uint64_t)b);
  case CMZ_SIZE_MUL:
    return (int64_t)((uint64_t)a * (uint64_t)b);
  case CMZ_SIZE_FLOORDIV:
    return floor_div(a, b);
  case CMZ_SIZE_MOD:
    return floor_mod(a, b);
  case CMZ_SIZE_MIN:
    return a < b ? a : b;
  case CMZ_SIZE_MAX:
    return a > b ? a : b;
  case CMZ_SIZE_BROADCAST:
    return a == 1 ? b : a;
  case CMZ_SIZE_EQ:
    return a == b;
  case CMZ_SIZE_SELECT:
    return a ? b : c;
  case CMZ_SIZE_SCALE:
    return scale(a, b);
  case CMZ_SIZE_ALIGN:
    return floor_div(a + b - 1, b) * b;
  }
  return 0;
}

void cmz_sizes_run(const cmz_program *p, int64_t *slots, uint32_t first, uint32_t count) {
  for (uint32_t i = first; i < first + count; i++) {
    const cmz_size_instruction *in = &p->instructions[i];
    slots[in->dst] = size_value(in->op, slots[in->a], slots[in->b], slots[in->c]);
  }
}

static int64_t bytes_of(const cmz_model *m, uint32_t b) {
  return m->slots[m->program->buffers[b].bytes_slot];
}

/* Whether the instance gives buffer B's memory during the run. */
static bool is_late(const cmz_model *m, uint32_t root) {
  const cmz_program_buffer *buffer = &m->program->buffers[root];
  return buffer->kind == CMZ_PB_HEAP ||
         (buffer->kind == CMZ_PB_OUTPUT && m->data_dependent[buffer->index]);
}

/* The address of buffer B, which some step is about to read or write. */
static int buffer_address(cmz_model *m, uint32_t b, void **address) {
  uint32_t root = m->roots[b];
  if (is_late(m, root)) {
    int64_t bytes = bytes_of(m, b), root_bytes = bytes_of(m, root);
    int rc = cmz_buffer_reserve(m, root, bytes > root_bytes ? bytes : root_bytes, false);
    if (rc) return rc;
  }
  *address = m->pointers[root];
  return CMZ_SUCCESS;
}

/* ---- kernels ---- */

typedef struct kernel_call {
  cmz_kernel_function *function;
  cmz_kargs args;
  uint32_t tiles, chunk;
} kernel_call;

static void kernel_part(void *user, uint32_t begin, uint32_t end, uint32_t worker) {
  const kernel_call *call = user;
  call->function(&call->args, begin, end, worker);
}

static void kernel_body(void *user, uint32_t index) {
  const kernel_call *call = user;
  uint32_t begin = index * call->chunk;
  uint32_t end = call->tiles - begin > call->chunk ? begin + call->chunk : call->tiles;
  call->function(&call->args, begin, end, index);
}

static void kernel_parallel(cmz_model *m, kernel_call *call) {
  if (m->team) {
    cmz_team_run(m->team, kernel_part, call, call->tiles);
    return;
  }
  uint32_t parts = call->tiles < m->threads ? call->tiles : m->threads;
  call->chunk = (call->tiles + parts - 1) / parts;
  parts = (call->tiles + call->chunk - 1) / call->chunk;
  m->config.parallel_for(m->config.parallel_context, parts, kernel_body, call);
}

static int run_kernel(cmz_model *m, const cmz_program_step *step) {
  const cmz_program *p = m->program;
  const uint32_t *operands = p->lists + step->operands, *params = p->lists + step->params;
  for (uint32_t i = 0; i < step->operand_count; i++) {
    int rc = buffer_address(m, operands[i], &m->scratch_operands[i]);
    if (rc) return rc;
    int64_t bytes = bytes_of(m, operands[i]);
    m->scratch_bytes[i] = bytes > 0 ? (uint64_t)bytes : 0;
  }
  for (uint32_t i = 0; i < step->param_count; i++) m->scratch_params[i] = m->slots[params[i]];
  int64_t tiles = m->slots[p->lists[step->tiles + m->level_number]];
  if (tiles <= 0) return CMZ_SUCCESS;
  if (tiles > INT32_MAX) return cmz_fail_run(m, CMZ_RUN_FAILED, "a tensor is too large to compute");
  if (m->device) {
    cmz_launch launch = {.kernel = step->a,
                         .tiles = (uint32_t)tiles,
                         .operand_count = step->operand_count,
                         .param_count = step->param_count,
                         .operands = m->scratch_operands,
                         .bytes = m->scratch_bytes,
                         .access = p->lists + step->access,
                         .params = m->scratch_params};
    return p->device->driver->launch(m, m->device, &launch);
  }
  kernel_call call = {.function = m->level->kernels[step->a],
                      .args = {.operands = m->scratch_operands, .params = m->scratch_params},
                      .tiles = (uint32_t)tiles};
  int64_t work = m->slots[step->flops_slot] + m->slots[step->bytes_slot];
  if (m->threads > 1 && tiles > 1 && work >= SMALL_WORK) {
    kernel_parallel(m, &call);
  } else {
    call.function(&call.args, 0, call.tiles, 0);
  }
  return CMZ_SUCCESS;
}

/* ---- copies and data-dependent sizes ---- */

/* Copies the dims of FROM to the slots of TO's dims. */
static void copy_dims(cmz_model *m, uint32_t from, uint32_t to) {
  const cmz_program *p = m->program;
  const cmz_program_buffer *a = &p->buffers[from], *b = &p->buffers[to];
  if (a->rank != b->rank) return;
  for (uint32_t d = 0; d < a->rank; d++) {
    uint32_t source = p->lists[a->dim_slots + d], target = p->lists[b->dim_slots + d];
    if (source != target) m->slots[target] = m->slots[source];
  }
  if (a->bytes_slot != b->bytes_slot) m->slots[b->bytes_slot] = m->slots[a->bytes_slot];
}

static int copy_buffer(cmz_model *m, uint32_t from, uint32_t to) {
  void *source, *target;
  if (m->program->buffers[to].value) return m->program->values->copy(m, from, to);
  int rc = buffer_address(m, from, &source);
  if (rc) return rc;
  if (is_late(m, m->roots[to])) copy_dims(m, from, to);
  rc = buffer_address(m, to, &target);
  if (rc) return rc;
  int64_t bytes = bytes_of(m, from);
  return bytes > 0 ? cmz_data_copy(m, target, source, (size_t)bytes) : CMZ_SUCCESS;
}

static int64_t element_value(const void *data, uint32_t element) {
  switch (element) {
  case CMZ_ELEMENT_BOOL:
  case CMZ_ELEMENT_U8:
    return ((const uint8_t *)data)[0];
  case CMZ_ELEMENT_I8:
    return ((const int8_t *)data)[0];
  case CMZ_ELEMENT_U16:
    return ((const uint16_t *)data)[0];
  case CMZ_ELEMENT_I16:
    return ((const int16_t *)data)[0];
  case CMZ_ELEMENT_I32:
    return ((const int32_t *)data)[0];
  case CMZ_ELEMENT_U32:
    return ((const uint32_t *)data)[0];
  case CMZ_ELEMENT_F32: { /* sizes as scales: their bits as a double, see CMZ_SIZE_SCALE */
    double value = (double)((const float *)data)[0];
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
  }
  default:
    return ((const int64_t *)data)[0];
  }
}

/* Where the host has buffer B without asking the device: constants, and the caller's tensors in
 * host memory. NULL: nowhere. */
static const void *host_copy(const cmz_model *m, uint32_t b) {
  const cmz_program_buffer *root = &m->program->buffers[m->roots[b]];
  if (root->kind == CMZ_PB_CONSTANT) return m->weights[root->index];
  return root->kind == CMZ_PB_INPUT ? m->host_inputs[root->index] : NULL;
}

/* The value of element INDEX of buffer B. */
static int read_element(cmz_model *m, uint32_t b, uint32_t index, int64_t *value) {
  uint32_t element = m->program->buffers[b].element;
  uint64_t raw = 0;
  size_t size = cmz_element_bits(element) / 8, at = (size_t)index * size;
  const void *host = m->device ? host_copy(m, b) : NULL;
  void *data = NULL;
  int rc = host ? CMZ_SUCCESS : buffer_address(m, b, &data);
  if (host) memcpy(&raw, (const char *)host + at, size);
  else if (!rc) rc = cmz_data_read(m, &raw, (const char *)data + at, size);
  if (!rc) *value = element_value(&raw, element);
  return rc;
}

static int run_bind(cmz_model *m, const cmz_program_step *step) {
  const cmz_program *p = m->program;
  int64_t value = m->reported;
  if (step->b != CMZ_BIND_REPORTED) {
    int rc = read_element(m, p->lists[step->operands], step->b, &value);
    if (rc) return rc;
  }
  if (step->param_count == 2) {
    int64_t low = m->slots[p->lists[step->params]], high = m->slots[p->lists[step->params + 1]];
    if (value < low || value > high) {
      return cmz_fail_run(
          m, CMZ_RUN_FAILED,
          "node \"%s\": a size computed from the data is %lld, outside of %lld..%lld",
          p->strings + step->name, (long long)value, (long long)low, (long long)high);
    }
  }
  m->slots[step->a] = value;
  return CMZ_SUCCESS;
}

static int read_scalar(cmz_model *m, uint32_t buffer, int64_t *value) {
  return read_element(m, buffer, 0, value);
}

/* ---- runtime ops ---- */

static void op_tensor(cmz_model *m, uint32_t buffer, cmz_op_tensor *out) {
  const cmz_program *p = m->program;
  *out = (cmz_op_tensor){.buffer = buffer};
  if (buffer == CMZ_NO_INDEX) return;
  const cmz_program_buffer *b = &p->buffers[buffer];
  out->element = b->element;
  out->rank = b->rank;
  for (uint32_t d = 0; d < b->rank && d < CMZ_MAX_DIMS; d++) {
    out->dims[d] = m->slots[p->lists[b->dim_slots + d]];
  }
  out->data = m->pointers[m->roots[buffer]];
}

/* Host memory in place of an operand's, for the time of a call; BYTES long. */
static int host_side(cmz_model *m, cmz_op_tensor *t, int64_t bytes) {
  t->host_bytes = bytes > 0 ? (size_t)bytes : 1;
  t->device_data = t->data;
  t->data = cmz_memory_take(m, t->host_bytes);
  if (t->data) return CMZ_SUCCESS;
  t->data = t->device_data;
  t->device_data = NULL;
  return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for %lld bytes", (long long)bytes);
}

/* Copies what a call reads from the device. */
static int fetch_inputs(cmz_op_call *call) {
  cmz_model *m = call->model;
  for (uint32_t i = 0; i < call->input_count; i++) {
    cmz_op_tensor *t = &call->inputs[i];
    if (t->buffer == CMZ_NO_INDEX) continue;
    const void *host = host_copy(m, t->buffer);
    if (host) t->data = (void *)(uintptr_t)host; /* inputs are only read */
    if (host) continue;
    int64_t bytes = cmz_tensor_bytes(t->element, t->rank, t->dims);
    if (bytes < 0) return cmz_op_fail(call, "an input has an impossible size");
    int rc = host_side(m, t, bytes);
    if (!rc) rc = cmz_data_read(m, t->data, t->device_data, (size_t)bytes);
    if (rc) return rc;
  }
  return CMZ_SUCCESS;
}

/* Copies what it wrote to the device, and gives the host's memory back. */
static int deliver_outputs(cmz_op_call *call, int rc) {
  cmz_model *m = call->model;
  for (uint32_t i = 0; i < call->input_count + call->output_count; i++) {
    cmz_op_tensor *t =
        i < call->input_count ? &call->inputs[i] : &call->outputs[i - call->input_count];
    if (!t->device_data) continue;
    if (!rc && i >= call->input_count)
      rc = cmz_data_write(m, t->device_data, t->data, t->host_bytes);
    if (!rc && i >= call->input_count) rc = m->program->device->driver->wait(m, m->device);
    cmz_memory_give(m, t->data, t->host_bytes);
  }
  return rc;
}

int cmz_op_output(cmz_op_call *call, uint32_t index, int64_t bytes) {
  cmz_model *m = call->model;
  cmz_op_tensor *output = &call->outputs[index];
  if (output->buffer == CMZ_NO_INDEX) return CMZ_SUCCESS;
  uint32_t root = m->roots[output->buffer];
  if (is_late(m, root)) {
    int rc = cmz_buffer_reserve(m, root, bytes, false);
    if (rc) return rc;
  } else if (bytes > m->slots[m->program->buffers[root].bytes_slot]) {
    return cmz_op_fail(call, "the result does not fit");
  }
  output->data = m->pointers[root];
  return m->device ? host_side(call->model, output, bytes) : CMZ_SUCCESS;
}

void *cmz_op_take(cmz_op_call *call, int64_t bytes) {
  void *memory = bytes < 0 ? NULL : cmz_memory_take(call->model, (size_t)bytes);
  if (!memory) cmz_fail_run(call->model, CMZ_OUT_OF_MEMORY, "node \"%s\": no memory", call->name);
  return memory;
}

void cmz_op_give(cmz_op_call *call, void *memory, int64_t bytes) {
  cmz_memory_give(call->model, memory, (size_t)bytes);
}

int cmz_op_fail(cmz_op_call *call, const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return cmz_fail_run(call->model, CMZ_RUN_FAILED, "node \"%s\": %s", call->name, text);
}

static int run_op(cmz_model *m, const cmz_program_step *step) {
  const cmz_program *p = m->program;
  const uint32_t *operands = p->lists + step->operands, *words = p->lists + step->b;
  cmz_op_tensor tensors[CMZ_OP_MAX_OPERANDS];
  if (step->operand_count > CMZ_OP_MAX_OPERANDS) {
    return cmz_fail_run(m, CMZ_RUN_FAILED, "node \"%s\": too many operands",
                        p->strings + step->name);
  }
  for (uint32_t i = 0; i < step->operand_count; i++) op_tensor(m, operands[i], &tensors[i]);
  cmz_op_call call = {.model = m,
                      .name = p->strings + step->name,
                      .input_count = words[1],
                      .output_count = step->operand_count - words[1],
                      .inputs = tensors,
                      .outputs = tensors + words[1],
                      .words = words + 2};
  int rc = m->device ? fetch_inputs(&call) : CMZ_SUCCESS;
  if (!rc) rc = p->ops[step->a].function(&call);
  m->reported = call.reported;
  return m->device ? deliver_outputs(&call, rc) : rc;
}

/* ---- control flow ---- */

static int run_if(cmz_model *m, const cmz_program_step *step) {
  int64_t condition;
  int rc = read_scalar(m, m->program->lists[step->operands], &condition);
  return rc ? rc : cmz_block_run(m, condition ? step->a : step->b);
}

/* next -> state for all carried tensors, as if at once: a value that is itself another's state goes
 * through a copy. */
static int carry(cmz_model *m, const uint32_t *triples, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint32_t next = triples[3 * i + 2];
    bool conflict = false;
    if (m->program->buffers[next].value) continue;
    for (uint32_t j = 0; j < i; j++) conflict |= m->roots[triples[3 * j + 1]] == m->roots[next];
    if (!conflict) {
      continue;
    }
    /* An earlier copy would overwrite it: take it aside first. */
    int64_t bytes = bytes_of(m, next);
    void *aside = bytes < 0 ? NULL : cmz_data_take(m, (size_t)bytes);
    if (!aside) return cmz_data_none(m, bytes, "a loop's value");
    int rc = cmz_data_copy(m, aside, m->pointers[m->roots[next]], (size_t)bytes);
    void *target = NULL;
    if (!rc) rc = carry(m, triples, i);
    if (!rc) rc = buffer_address(m, triples[3 * i + 1], &target);
    if (!rc) rc = cmz_data_copy(m, target, aside, (size_t)bytes);
    cmz_data_give(m, aside, (size_t)bytes);
    return rc ? rc : carry(m, triples + 3 * (i + 1), count - i - 1);
  }
  for (uint32_t i = 0; i < count; i++) {
    if (m->program->buffers[triples[3 * i + 2]].value) continue;
    int rc = copy_buffer(m, triples[3 * i + 2], triples[3 * i + 1]);
    if (rc) return rc;
  }
  return CMZ_SUCCESS;
}

static int scan_in(cmz_model *m, const uint32_t *triple, int64_t i, int64_t length) {
  void *whole, *slice;
  int rc = buffer_address(m, triple[0], &whole);
  if (!rc) rc = buffer_address(m, triple[1], &slice);
  if (rc) return rc;
  int64_t bytes = bytes_of(m, triple[1]), at = triple[2] ? length - 1 - i : i;
  return bytes > 0 ? cmz_data_copy(m, slice, (const char *)whole + at * bytes, (size_t)bytes)
                   : CMZ_SUCCESS;
}

static int scan_out(cmz_model *m, const uint32_t *triple, int64_t i, int64_t length) {
  void *item;
  int rc = buffer_address(m, triple[0], &item);
  if (rc) return rc;
  int64_t bytes = bytes_of(m, triple[0]), at = triple[2] && length > 0 ? length - 1 - i : i;
  int64_t end;
  if (!cmz_multiply(at + 1, bytes, &end)) {
    return cmz_fail_run(m, CMZ_RUN_FAILED, "a loop's output is too large");
  }
  uint32_t root = m->roots[triple[1]];
  if (is_late(m, root)) {
    int64_t whole = length > 0 ? length * bytes : end;
    rc = cmz_buffer_reserve(m, root, whole, true);
    if (rc) return rc;
  }
  return bytes > 0 ? cmz_data_copy(m, (char *)m->pointers[root] + at * bytes, item, (size_t)bytes)
                   : CMZ_SUCCESS;
}

/* The dims of what a loop appended: the number of iterations, then those of the body's output. */
static void scan_out_dims(cmz_model *m, const uint32_t *triple, int64_t iterations) {
  const cmz_program *p = m->program;
  const cmz_program_buffer *item = &p->buffers[triple[0]], *whole = &p->buffers[triple[1]];
  if (!is_late(m, m->roots[triple[1]]) || whole->rank != item->rank + 1) return;
  m->slots[p->lists[whole->dim_slots]] = iterations;
  for (uint32_t d = 0; d < item->rank; d++) {
    uint32_t source = p->lists[item->dim_slots + d], target = p->lists[whole->dim_slots + 1 + d];
    if (source != target) m->slots[target] = m->slots[source];
  }
  m->slots[whole->bytes_slot] = m->slots[item->bytes_slot] * iterations;
}

typedef struct loop_state {
  const uint32_t *header, *carried, *scan_in, *scan_out;
  int64_t limit, length; /* iterations at most; a Scan's exact number, or 0 */
} loop_state;

static int loop_limits(cmz_model *m, loop_state *loop) {
  const uint32_t *h = loop->header;
  loop->limit = INT64_MAX;
  if (h[CMZ_LOOP_SCAN_LENGTH_SLOT] != CMZ_NO_INDEX) {
    loop->length = loop->limit = m->slots[h[CMZ_LOOP_SCAN_LENGTH_SLOT]];
  } else if (h[CMZ_LOOP_TRIP_COUNT] != CMZ_NO_INDEX) {
    return read_scalar(m, h[CMZ_LOOP_TRIP_COUNT], &loop->limit);
  }
  return CMZ_SUCCESS;
}

static int loop_iteration(cmz_model *m, const loop_state *loop, int64_t i, bool *go_on) {
  const uint32_t *h = loop->header;
  int rc;
  if (h[CMZ_LOOP_ITERATION] != CMZ_NO_INDEX) {
    void *counter;
    rc = buffer_address(m, h[CMZ_LOOP_ITERATION], &counter);
    if (!rc) rc = cmz_data_write(m, counter, &i, sizeof i);
    if (rc) return rc;
  }
  for (uint32_t s = 0; s < h[CMZ_LOOP_SCAN_IN]; s++) {
    rc = scan_in(m, loop->scan_in + 3 * s, i, loop->length);
    if (rc) return rc;
  }
  rc = cmz_block_run(m, h[CMZ_LOOP_BODY]);
  if (rc) return rc;
  for (uint32_t s = 0; s < h[CMZ_LOOP_SCAN_OUT]; s++) {
    rc = scan_out(m, loop->scan_out + 3 * s, i, loop->length);
    if (rc) return rc;
  }
  if (h[CMZ_LOOP_BODY_CONDITION] != CMZ_NO_INDEX) {
    int64_t condition;
    rc = read_scalar(m, h[CMZ_LOOP_BODY_CONDITION], &condition);
    if (rc) return rc;
    *go_on = condition != 0;
  }
  rc = carry(m, loop->carried, h[CMZ_LOOP_CARRIED]);
  if (rc || !m->program->values) return rc;
  return m->program->values->carry(m, loop->carried, h[CMZ_LOOP_CARRIED]);
}

static int run_loop(cmz_model *m, const cmz_program_step *step) {
  loop_state loop = {.header = m->program->lists + step->a};
  const uint32_t *h = loop.header;
  loop.carried = h + CMZ_LOOP_HEADER;
  loop.scan_in = loop.carried + (size_t)3 * h[CMZ_LOOP_CARRIED];
  loop.scan_out = loop.scan_in + (size_t)3 * h[CMZ_LOOP_SCAN_IN];
  int rc = loop_limits(m, &loop);
  bool go_on = true;
  if (!rc && h[CMZ_LOOP_CONDITION] != CMZ_NO_INDEX) {
    int64_t condition = 0;
    rc = read_scalar(m, h[CMZ_LOOP_CONDITION], &condition);
    go_on = condition != 0;
  }
  for (uint32_t c = 0; !rc && c < h[CMZ_LOOP_CARRIED]; c++) {
    rc = copy_buffer(m, loop.carried[3 * c], loop.carried[3 * c + 1]);
  }
  int64_t i = 0;
  while (!rc && go_on && i < loop.limit) rc = loop_iteration(m, &loop, i++, &go_on);
  if (rc) return rc;
  if (h[CMZ_LOOP_FINAL_COUNT_SLOT] != CMZ_NO_INDEX) m->slots[h[CMZ_LOOP_FINAL_COUNT_SLOT]] = i;
  for (uint32_t s = 0; s < h[CMZ_LOOP_SCAN_OUT]; s++) scan_out_dims(m, loop.scan_out + 3 * s, i);
  return CMZ_SUCCESS;
}

/* ---- blocks ---- */

static int run_step(cmz_model *m, const cmz_program_step *step) {
  switch ((cmz_program_step_kind)step->kind) {
  case CMZ_PS_KERNEL:
    return run_kernel(m, step);
  case CMZ_PS_RUNTIME:
    return run_op(m, step);
  case CMZ_PS_COPY:
    return copy_buffer(m, step->a, step->b);
  case CMZ_PS_BIND:
    return run_bind(m, step);
  case CMZ_PS_IF:
    return run_if(m, step);
  case CMZ_PS_LOOP:
    return run_loop(m, step);
  case CMZ_PS_SIZES:
    cmz_sizes_run(m->program, m->slots, step->a, step->b);
    return CMZ_SUCCESS;
  }
  return cmz_fail_run(m, CMZ_RUN_FAILED, "the model's program has an unknown step");
}

int cmz_block_run(cmz_model *m, uint32_t block) {
  const cmz_program *p = m->program;
  uint32_t first = p->blocks[block].first, end = first + p->blocks[block].count;
  for (uint32_t i = first; i < end; i++) {
    int rc = run_step(m, &p->steps[i]);
    if (m->profiling && m->device && !rc) rc = p->device->driver->wait(m, m->device);
    if (m->profiling) cmz_profile_charge(m, i);
    if (rc) return rc;
  }
  return CMZ_SUCCESS;
}
