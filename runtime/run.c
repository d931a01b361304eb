/* run.c - one run: checks the inputs, sizes everything when dims have changed, gives every buffer
 * its memory and executes the entry block. In: the caller's tensors. Out: filled outputs, or a
 * message that names the tensor. Always holds: with unchanged dims, contiguous tensors and no
 * data-dependent size nothing is allocated. */
#include "device.h"
#include "values.h"

static const uint8_t element_bits[] = {
    [CMZ_ELEMENT_F32] = 32,   [CMZ_ELEMENT_U8] = 8,         [CMZ_ELEMENT_I8] = 8,
    [CMZ_ELEMENT_U16] = 16,   [CMZ_ELEMENT_I16] = 16,       [CMZ_ELEMENT_I32] = 32,
    [CMZ_ELEMENT_I64] = 64,   [CMZ_ELEMENT_STRING] = 64,    [CMZ_ELEMENT_BOOL] = 8,
    [CMZ_ELEMENT_F16] = 16,   [CMZ_ELEMENT_F64] = 64,       [CMZ_ELEMENT_U32] = 32,
    [CMZ_ELEMENT_U64] = 64,   [CMZ_ELEMENT_C64] = 64,       [CMZ_ELEMENT_C128] = 128,
    [CMZ_ELEMENT_BF16] = 16,  [CMZ_ELEMENT_F8E4M3FN] = 8,   [CMZ_ELEMENT_F8E4M3FNUZ] = 8,
    [CMZ_ELEMENT_F8E5M2] = 8, [CMZ_ELEMENT_F8E5M2FNUZ] = 8, [CMZ_ELEMENT_U4] = 4,
    [CMZ_ELEMENT_I4] = 4,     [CMZ_ELEMENT_F4E2M1] = 4,     [CMZ_ELEMENT_F8E8M0] = 8,
    [CMZ_ELEMENT_U2] = 2,     [CMZ_ELEMENT_I2] = 2,
};

static const char *const element_names[] = {
    "undefined",  "f32",    "u8",         "i8",  "u16", "i16",    "i32",    "i64",  "string",
    "bool",       "f16",    "f64",        "u32", "u64", "c64",    "c128",   "bf16", "f8e4m3fn",
    "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz", "u4",  "i4",  "f4e2m1", "f8e8m0", "u2",   "i2"};

uint32_t cmz_element_bits(uint32_t element) {
  return element < sizeof element_bits ? element_bits[element] : 0;
}

static const char *element_name(uint32_t element) {
  return element < sizeof element_bits ? element_names[element] : "unknown type";
}

int64_t cmz_tensor_bytes(uint32_t element, uint32_t rank, const int64_t *dims) {
  int64_t bits = cmz_element_bits(element);
  for (uint32_t d = 0; d < rank; d++) {
    if (dims[d] < 0 || !cmz_multiply(bits, dims[d], &bits)) return -1;
  }
  return bits / 8 + (bits % 8 != 0);
}

static bool is_contiguous(const cmz_tensor *t, const int64_t *dims) {
  int64_t step = (int64_t)cmz_element_bits(t->element) / 8;
  bool all_zero = true, dense = true;
  for (uint32_t d = t->rank; d-- > 0;) {
    all_zero &= t->strides[d] == 0;
    if (dims[d] != 1) dense &= t->strides[d] == step;
    step *= dims[d];
  }
  return all_zero || dense;
}

void cmz_strided_copy(void *to, const void *from, uint32_t element, uint32_t rank,
                      const int64_t *dims, const int64_t *strides, bool gather) {
  size_t size = cmz_element_bits(element) / 8;
  int64_t index[CMZ_MAX_DIMS] = {0}, offset = 0, total = 1;
  for (uint32_t d = 0; d < rank; d++) total *= dims[d];
  for (int64_t i = 0; i < total; i++) {
    if (gather) {
      memcpy((char *)to + (size_t)i * size, (const char *)from + offset, size);
    } else {
      memcpy((char *)to + offset, (const char *)from + (size_t)i * size, size);
    }
    for (uint32_t d = rank; d-- > 0;) {
      offset += strides[d];
      if (++index[d] < dims[d]) break;
      offset -= strides[d] * dims[d];
      index[d] = 0;
    }
  }
}

/* The farthest byte that a strided tensor touches; -1 when strides or sizes make no sense. */
static int64_t strided_end(const cmz_tensor *t) {
  int64_t end = (int64_t)cmz_element_bits(t->element) / 8;
  for (uint32_t d = 0; d < t->rank; d++) {
    int64_t step;
    if (t->dims[d] == 0) return 0;
    if (t->dims[d] < 0 || t->strides[d] < 0 ||
        !cmz_multiply(t->dims[d] - 1, t->strides[d], &step) ||
        __builtin_add_overflow(end, step, &end)) {
      return -1;
    }
  }
  return end;
}

static int stage(cmz_model *m, uint32_t index, int64_t bytes) {
  if (bytes > CMZ_LARGEST_BLOCK)
    return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "these dims need too much memory");
  if (m->staging_bytes[index] >= (size_t)bytes && m->staging[index]) return CMZ_SUCCESS;
  cmz_memory_give(m, m->staging[index], m->staging_bytes[index]);
  m->staging_bytes[index] = 0;
  m->staging[index] = cmz_memory_take(m, (size_t)bytes);
  if (!m->staging[index]) {
    return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for %lld bytes", (long long)bytes);
  }
  m->staging_bytes[index] = (size_t)bytes;
  return CMZ_SUCCESS;
}

/* ---- inputs ---- */

/* Kernels may take this alignment of a tensor for granted: what a caller has elsewhere is copied.
 */
enum { DEVICE_ALIGNMENT = 16 };

static bool on_device(const cmz_model *m, const cmz_tensor *t) {
  return m->device && t->memory == CMZ_MEMORY_DEVICE;
}

static const cmz_device_driver *driver_of(const cmz_model *m) {
  return m->device ? m->program->device->driver : NULL;
}

/* Where the data of T lies, as kernels are told. */
static void *address_of(const cmz_model *m, const cmz_tensor *t) {
  const cmz_device_driver *driver = driver_of(m);
  if (!t->data || !on_device(m, t) || !driver->address) return t->data;
  return driver->address(m->device, t->data);
}

static bool is_aligned(const void *data) { return (uintptr_t)data % DEVICE_ALIGNMENT == 0; }

/* T, which says that it lies in device memory, can be used by the instance. */
static int check_device(cmz_model *m, const char *what, const cmz_port *port, const cmz_tensor *t) {
  if (!m->device)
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT,
                        "%s \"%s\" is not in host memory, and the model is not for a GPU", what,
                        port->name);
  const cmz_device_driver *driver = driver_of(m);
  if (t->data && ((driver->owns && !driver->owns(m->device, t->data)) || !address_of(m, t)))
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT,
                        "%s \"%s\" is said to be in device memory, but the device does not know it",
                        what, port->name);
  return CMZ_SUCCESS;
}

static int check_input(cmz_model *m, const cmz_port *port, const cmz_tensor *t) {
  if (t->element != port->element) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "input \"%s\" is %s; the model takes %s",
                        port->name, element_name(t->element), element_name(port->element));
  }
  if (t->rank != port->rank) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT,
                        "input \"%s\" has %u dimensions; the model takes %u", port->name, t->rank,
                        port->rank);
  }
  for (uint32_t d = 0; d < t->rank; d++) {
    if (t->dims[d] < 0) {
      return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "input \"%s\": dimension %u is %lld", port->name,
                          d, (long long)t->dims[d]);
    }
  }
  int64_t bytes = cmz_tensor_bytes(t->element, t->rank, t->dims);
  if (bytes >= 0 && !is_contiguous(t, t->dims)) {
    if (cmz_element_bits(t->element) < 8) {
      return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "input \"%s\": a packed type with strides",
                          port->name);
    }
    bytes = strided_end(t);
  }
  if (bytes < 0) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "input \"%s\": dims or strides out of range",
                        port->name);
  }
  if (t->bytes < (size_t)bytes) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT,
                        "input \"%s\" needs %lld bytes, its tensor has %zu", port->name,
                        (long long)bytes, t->bytes);
  }
  if (bytes > 0 && !t->data) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "input \"%s\" has no data", port->name);
  }
  if (t->memory == CMZ_MEMORY_HOST) return CMZ_SUCCESS;
  if (m->device && !is_contiguous(t, t->dims)) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "input \"%s\": strides in device memory",
                        port->name);
  }
  return check_device(m, "input", port, t);
}

/* Index of the description's dim that lives in SLOT. */
static uint32_t dim_of_slot(const cmz_program *p, uint32_t slot) {
  for (uint32_t i = 0; i < p->description->dim_count; i++) {
    if (p->dim_slots[i] == slot) return i;
  }
  return CMZ_NO_INDEX;
}

static int set_symbol(cmz_model *m, const cmz_port *port, uint32_t d, uint32_t slot, int64_t value,
                      uint64_t *seen) {
  const cmz_program *p = m->program;
  uint32_t index = dim_of_slot(p, slot);
  if (index == CMZ_NO_INDEX) return CMZ_SUCCESS;
  const cmz_symbolic_dim *dim = &p->description->dims[index];
  if (value < dim->low || value > dim->high) {
    return cmz_fail_run(
        m, CMZ_INVALID_ARGUMENT, "input \"%s\": dimension %u (%s) is %lld, outside of %lld..%lld",
        port->name, d, dim->name, (long long)value, (long long)dim->low, (long long)dim->high);
  }
  if (index < 64 && (*seen >> index & 1) && m->slots[slot] != value) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT,
                        "input \"%s\": dimension %u (%s) is %lld, but %lld in another input",
                        port->name, d, dim->name, (long long)value, (long long)m->slots[slot]);
  }
  if (index < 64) *seen |= UINT64_C(1) << index;
  m->slots[slot] = value;
  return CMZ_SUCCESS;
}

static int set_symbols(cmz_model *m, const cmz_tensor *inputs) {
  const cmz_program *p = m->program;
  uint64_t seen = 0;
  for (uint32_t i = 0; i < p->description->input_count; i++) {
    const cmz_port *port = &p->description->inputs[i];
    for (uint32_t d = 0; d < port->rank; d++) {
      const cmz_program_input_dim *dim = &p->input_dims[i][d];
      if (!dim->is_symbol) continue;
      int rc = set_symbol(m, port, d, dim->slot, inputs[i].dims[d], &seen);
      if (rc) return rc;
    }
  }
  return CMZ_SUCCESS;
}

static int check_dims(cmz_model *m, const cmz_tensor *inputs) {
  const cmz_program *p = m->program;
  for (uint32_t i = 0; i < p->description->input_count; i++) {
    const cmz_port *port = &p->description->inputs[i];
    for (uint32_t d = 0; d < port->rank; d++) {
      int64_t want = m->slots[p->input_dims[i][d].slot], have = inputs[i].dims[d];
      if (want != have) {
        return cmz_fail_run(m, CMZ_INVALID_ARGUMENT,
                            "input \"%s\": dimension %u is %lld; the model takes %lld", port->name,
                            d, (long long)have, (long long)want);
      }
    }
  }
  return CMZ_SUCCESS;
}

static bool same_dims(const cmz_model *m, const cmz_tensor *inputs) {
  const cmz_description *description = m->program->description;
  const int64_t *last = m->last_dims;
  for (uint32_t i = 0; i < description->input_count; i++) {
    for (uint32_t d = 0; d < description->inputs[i].rank; d++) {
      if (*last++ != inputs[i].dims[d]) return false;
    }
  }
  return m->prepared;
}

/* ---- sizes and memory ---- */

static int place_arena(cmz_model *m) {
  const cmz_program *p = m->program;
  int64_t bytes = m->slots[p->arena_slot];
  if (bytes < 0 || bytes > CMZ_LARGEST_BLOCK)
    return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "these dims need too much memory");
  if (!m->arena || m->arena_bytes < (size_t)bytes) {
    cmz_data_give(m, m->arena, m->arena_bytes);
    m->arena_bytes = 0;
    m->arena = cmz_data_take(m, (size_t)bytes);
    if (!m->arena) return cmz_data_none(m, bytes, "the arena");
    m->arena_bytes = bytes ? (size_t)bytes : 1;
  }
  for (uint32_t b = 0; b < p->buffer_count; b++) {
    if (p->buffers[b].kind == CMZ_PB_ARENA) {
      m->pointers[b] = (char *)m->arena + m->slots[p->buffers[b].offset_slot];
    }
  }
  return CMZ_SUCCESS;
}

static int prepare(cmz_model *m, const cmz_tensor *inputs) {
  const cmz_program *p = m->program;
  if (same_dims(m, inputs)) return CMZ_SUCCESS;
  m->prepared = false;
  int rc = set_symbols(m, inputs);
  if (rc) return rc;
  cmz_sizes_run(p, m->slots, 0, p->entry_instructions);
  rc = check_dims(m, inputs);
  if (!rc) rc = place_arena(m);
  if (rc) return rc;
  int64_t *last = m->last_dims;
  for (uint32_t i = 0; i < p->description->input_count; i++) {
    for (uint32_t d = 0; d < p->description->inputs[i].rank; d++) *last++ = inputs[i].dims[d];
  }
  m->prepared = true;
  return CMZ_SUCCESS;
}

static int place_inputs(cmz_model *m, const cmz_tensor *inputs) {
  const cmz_program *p = m->program;
  for (uint32_t i = 0; i < p->description->input_count; i++) {
    const cmz_tensor *t = &inputs[i];
    void *data = address_of(m, t);
    if (!is_contiguous(t, t->dims)) {
      int rc = stage(m, i, cmz_tensor_bytes(t->element, t->rank, t->dims));
      if (rc) return rc;
      data = m->staging[i];
      cmz_strided_copy(data, t->data, t->element, t->rank, t->dims, t->strides, true);
    }
    uint32_t b = p->input_buffers[i];
    if (b == CMZ_NO_INDEX) continue;
    m->pointers[b] = data;
    m->host_inputs[i] = t->memory == CMZ_MEMORY_HOST ? data : NULL;
    if (!m->device || (on_device(m, t) && is_aligned(data))) continue;
    int64_t bytes = cmz_tensor_bytes(t->element, t->rank, t->dims);
    int rc = cmz_buffer_reserve(m, b, bytes, false);
    if (!rc)
      rc = (on_device(m, t) ? cmz_data_copy : cmz_data_write)(m, m->pointers[b], data,
                                                              (size_t)bytes);
    if (rc) return rc;
  }
  return CMZ_SUCCESS;
}

/* The dims of output INDEX as the slots have them now. */
static void output_dims(const cmz_model *m, uint32_t index, int64_t *dims) {
  const cmz_program *p = m->program;
  const cmz_program_buffer *b = &p->buffers[p->output_buffers[index]];
  for (uint32_t d = 0; d < b->rank; d++) dims[d] = m->slots[p->lists[b->dim_slots + d]];
}

static bool output_strided(const cmz_tensor *t, const cmz_port *port, const int64_t *dims) {
  if (!t->data || t->rank != port->rank || cmz_element_bits(port->element) < 8) return false;
  cmz_tensor probe = *t;
  probe.element = port->element;
  return !is_contiguous(&probe, dims);
}

static int too_small(cmz_model *m, const cmz_port *port, int64_t bytes, size_t have) {
  return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "output \"%s\" needs %lld bytes, its tensor has %zu",
                      port->name, (long long)bytes, have);
}

/* Memory of the outputs whose sizes are known before the run. */
static int place_outputs(cmz_model *m, const cmz_tensor *outputs) {
  const cmz_program *p = m->program;
  for (uint32_t i = 0; i < p->description->output_count; i++) {
    const cmz_port *port = &p->description->outputs[i];
    const cmz_tensor *t = &outputs[i];
    bool device = t->data && on_device(m, t);
    int rc = t->data && t->memory != CMZ_MEMORY_HOST ? check_device(m, "output", port, t) : 0;
    if (rc) return rc;
    uint32_t b = p->output_buffers[i];
    if (m->data_dependent[i] || p->buffers[b].kind != CMZ_PB_OUTPUT) continue;
    int64_t dims[CMZ_MAX_DIMS] = {0};
    output_dims(m, i, dims);
    int64_t bytes = cmz_tensor_bytes(port->element, port->rank, dims);
    if (bytes < 0)
      return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "output \"%s\" is too large", port->name);
    if (device && output_strided(t, port, dims)) {
      return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "output \"%s\": strides in device memory",
                          port->name);
    }
    void *data = address_of(m, t);
    if (data && device == (m->device != NULL) && !output_strided(t, port, dims) &&
        (!device || is_aligned(data))) {
      if (t->bytes < (size_t)bytes) return too_small(m, port, bytes, t->bytes);
      m->pointers[b] = data;
      continue;
    }
    rc = cmz_buffer_reserve(m, b, bytes, false);
    if (rc) return rc;
  }
  return CMZ_SUCCESS;
}

/* Output I of a device in host memory: the caller's when that is contiguous, else the instance's.
 */
static int fetch_output(cmz_model *m, uint32_t i, const cmz_tensor *t, int64_t bytes, void **data) {
  const cmz_program *p = m->program;
  const void *from = *data;
  uint32_t index = p->description->input_count + i;
  int64_t dims[CMZ_MAX_DIMS] = {0};
  output_dims(m, i, dims);
  bool direct =
      t->data && t->bytes >= (size_t)bytes && !output_strided(t, &p->description->outputs[i], dims);
  int rc = direct ? CMZ_SUCCESS : stage(m, index, bytes);
  if (rc) return rc;
  *data = direct ? t->data : m->staging[index];
  return cmz_data_read(m, *data, from, (size_t)bytes);
}

/* Output I, which lies at DATA, stays in the device's memory: brought to where T says, if it says
 * so. *OUT becomes the tensor's data. */
static int leave_output(cmz_model *m, uint32_t i, const cmz_tensor *t, int64_t bytes, void *data,
                        void **out) {
  const cmz_device_driver *driver = driver_of(m);
  void *wanted = address_of(m, t);
  *out = t->data ? t->data : data;
  if (!wanted && driver->describe) {
    driver->describe(m->device, data, m->described[i]);
    *out = m->described[i];
  }
  if (!wanted || wanted == data) return CMZ_SUCCESS;
  if (t->bytes < (size_t)bytes)
    return too_small(m, &m->program->description->outputs[i], bytes, t->bytes);
  return cmz_data_copy(m, wanted, data, (size_t)bytes);
}

static int finish_output(cmz_model *m, uint32_t i, cmz_tensor *t) {
  const cmz_program *p = m->program;
  const cmz_port *port = &p->description->outputs[i];
  void *data = m->pointers[m->roots[p->output_buffers[i]]];
  cmz_tensor full = {.element = port->element, .rank = port->rank};
  output_dims(m, i, full.dims);
  int64_t bytes = cmz_tensor_bytes(port->element, port->rank, full.dims);
  if (bytes < 0)
    return cmz_fail_run(m, CMZ_RUN_FAILED, "output \"%s\" has an impossible size", port->name);
  bool device = on_device(m, t); /* without data: where the instance has it */
  int rc = !m->device ? CMZ_SUCCESS
           : device   ? leave_output(m, i, t, bytes, data, &data)
                      : fetch_output(m, i, t, bytes, &data);
  if (rc) return rc;
  full.memory = device ? CMZ_MEMORY_DEVICE : CMZ_MEMORY_HOST;
  if (!device && t->data && t->data != data) {
    if (output_strided(t, port, full.dims)) {
      memcpy(full.strides, t->strides, sizeof full.strides);
      int64_t end = strided_end(&full);
      if (end < 0 || t->bytes < (size_t)end) return too_small(m, port, end, t->bytes);
      cmz_strided_copy(t->data, data, port->element, port->rank, full.dims, full.strides, false);
    } else {
      if (t->bytes < (size_t)bytes) return too_small(m, port, bytes, t->bytes);
      if (bytes) memcpy(t->data, data, (size_t)bytes);
    }
    data = t->data;
  }
  full.data = data;
  full.bytes = (size_t)bytes;
  *t = full;
  return CMZ_SUCCESS;
}

static int run(cmz_model *m, const cmz_tensor *inputs, cmz_tensor *outputs) {
  const cmz_description *description = m->program->description;
  const struct cmz_value_functions *values = m->program->values;
  const cmz_device_driver *driver = driver_of(m);
  int rc = driver && driver->state ? driver->state(m, m->device) : CMZ_SUCCESS;
  for (uint32_t i = 0; !rc && i < description->input_count; i++) {
    if (description->input_kinds && description->input_kinds[i]) continue;
    rc = check_input(m, &description->inputs[i], &inputs[i]);
  }
  if (rc) return rc;
  if (driver && driver->begin) driver->begin(m->device);
  rc = prepare(m, inputs);
  if (!rc) rc = place_inputs(m, inputs);
  if (!rc) rc = place_outputs(m, outputs);
  if (!rc && values) rc = values->begin(m);
  if (m->profiling) cmz_profile_charge(m, m->program->step_count);
  if (!rc) rc = cmz_block_run(m, 0);
  if (!rc && values) rc = values->finish(m);
  for (uint32_t i = 0; !rc && i < description->output_count; i++) {
    if (description->output_kinds && description->output_kinds[i]) continue;
    rc = finish_output(m, i, &outputs[i]);
  }
  if (!rc && driver) rc = (driver->end ? driver->end : driver->wait)(m, m->device);
  if (!rc && driver && driver->count && !m->profiling) {
    cmz_device_counts counts;
    driver->count(m->device, &counts);
    m->device_counts[0] = counts.dispatches;
    m->device_counts[1] = counts.barriers;
    m->device_counts[2] = counts.submissions;
  }
  if (m->profiling) cmz_profile_charge(m, m->program->step_count);
  return rc;
}

int cmz_instance_run(cmz_model *m, const cmz_tensor *inputs, cmz_tensor *outputs) {
  if (!m) return CMZ_INVALID_ARGUMENT;
  if (!m->ready) return m->code; /* create failed; its message stays */
  const cmz_description *description = m->program->description;
  m->error[0] = 0;
  if ((description->input_count && !inputs) || (description->output_count && !outputs)) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "run without inputs or outputs");
  }
  if (m->profiling) m->profile_last = cmz_now();
  return run(m, inputs, outputs);
}
