/* instance.c - making and ending an instance: memory, CPU level, tables, error messages.
 * In: a program's tables and the caller's configuration. Out: an instance that run.c runs.
 * Always holds: create touches no weights; every byte comes from and goes back to the caller's
 * allocator when there is one; a failed create leaves an instance that only serves `error`. */
#include "cpu.h"
#include "values.h"

void *cmz_memory_take(cmz_model *m, size_t bytes) {
  void *memory = NULL;
  if (bytes == 0) bytes = 1;
  if (m->config.allocate) {
    memory = m->config.allocate(m->config.allocate_context, bytes, CMZ_MEMORY_ALIGNMENT);
  } else {
    memory = cmz_block_take(CMZ_MEMORY_ALIGNMENT, bytes);
  }
  if (memory) m->memory += bytes;
  return memory;
}

void cmz_memory_give(cmz_model *m, void *memory, size_t bytes) {
  if (!memory) return;
  if (bytes == 0) bytes = 1;
  m->memory -= bytes;
  if (m->config.release) {
    m->config.release(m->config.allocate_context, memory, bytes);
  } else {
    cmz_block_give(memory);
  }
}

int cmz_fail_run(cmz_model *m, int code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(m->error, sizeof m->error, format, args);
  va_end(args);
  m->code = code;
  return code;
}

int cmz_buffer_reserve(cmz_model *m, uint32_t b, int64_t bytes, bool keep) {
  if (bytes < 0 || bytes > CMZ_LARGEST_BLOCK) {
    return cmz_fail_run(m, CMZ_RUN_FAILED, "a size computed from the data is out of range");
  }
  if (!m->owned[b] || m->capacity[b] < (size_t)bytes) {
    size_t capacity = (size_t)bytes < 64 ? 64 : (size_t)bytes;
    if (keep && capacity < 2 * m->capacity[b]) capacity = 2 * m->capacity[b];
    void *memory = cmz_data_take(m, capacity);
    if (!memory) return cmz_data_none(m, (int64_t)capacity, "a tensor");
    int rc = keep && m->owned[b] ? cmz_data_copy(m, memory, m->owned[b], m->capacity[b]) : 0;
    cmz_data_give(m, m->owned[b], m->capacity[b]);
    if (rc) {
      cmz_data_give(m, memory, capacity);
      m->owned[b] = NULL;
      return rc;
    }
    m->owned[b] = memory;
    m->capacity[b] = capacity;
  }
  m->pointers[b] = m->owned[b];
  return CMZ_SUCCESS;
}

/* One block of memory for all tables of an instance: counted first, then cut. */
typedef struct cutter {
  uint8_t *base;
  size_t used;
} cutter;

static void *cut(cutter *c, size_t count, size_t size) {
  size_t at = (c->used + 15) & ~(size_t)15;
  c->used = at + count * size;
  return c->base ? c->base + at : NULL;
}

static uint32_t input_dim_count(const cmz_program *p) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < p->description->input_count; i++) n += p->description->inputs[i].rank;
  return n;
}

static void cut_tables(cutter *c, cmz_model *m, const cmz_program *p) {
  uint32_t operands = 1, params = 1;
  for (uint32_t i = 0; i < p->step_count; i++) {
    if (p->steps[i].operand_count > operands) operands = p->steps[i].operand_count;
    if (p->steps[i].param_count > params) params = p->steps[i].param_count;
  }
  uint32_t inputs = p->description->input_count, outputs = p->description->output_count;
  m->slots = cut(c, p->slot_count, sizeof *m->slots);
  m->roots = cut(c, p->buffer_count, sizeof *m->roots);
  m->pointers = cut(c, p->buffer_count, sizeof *m->pointers);
  m->owned = cut(c, p->buffer_count, sizeof *m->owned);
  m->capacity = cut(c, p->buffer_count, sizeof *m->capacity);
  m->host_inputs = cut(c, inputs, sizeof *m->host_inputs);
  m->scratch_operands = cut(c, operands, sizeof *m->scratch_operands);
  m->scratch_params = cut(c, params, sizeof *m->scratch_params);
  m->scratch_bytes = cut(c, operands, sizeof *m->scratch_bytes);
  m->last_dims = cut(c, input_dim_count(p), sizeof *m->last_dims);
  m->data_dependent = cut(c, outputs, sizeof *m->data_dependent);
  m->staging = cut(c, inputs + outputs, sizeof *m->staging);
  m->staging_bytes = cut(c, inputs + outputs, sizeof *m->staging_bytes);
  m->described = cut(c, outputs, sizeof *m->described);
  m->profile = cut(c, p->step_count + 1u, sizeof *m->profile);
}

static int make_tables(cmz_model *m, const cmz_program *p) {
  cutter count = {0};
  cut_tables(&count, m, p);
  cutter cuts = {.base = cmz_memory_take(m, count.used)};
  if (!cuts.base) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the instance's tables");
  memset(cuts.base, 0, count.used);
  cut_tables(&cuts, m, p);
  if (p->slot_count) memcpy(m->slots, p->slot_init, p->slot_count * sizeof *m->slots);
  for (uint32_t b = 0; b < p->buffer_count; b++) {
    uint32_t root = b;
    while (p->buffers[root].kind == CMZ_PB_ALIAS) root = p->buffers[root].index;
    m->roots[b] = root;
  }
  for (uint32_t i = 0; i < p->description->output_count; i++) {
    const cmz_port *port = &p->description->outputs[i];
    for (uint32_t d = 0; d < port->rank; d++) {
      if (port->dims[d] == CMZ_DIM_AFTER_RUN) m->data_dependent[i] = true;
    }
    if (p->description->output_kinds && p->description->output_kinds[i])
      m->data_dependent[i] = true;
  }
  return CMZ_SUCCESS;
}

static size_t table_bytes(cmz_model *m) {
  cutter count = {0};
  cmz_model probe = *m;
  cut_tables(&count, &probe, m->program);
  return count.used;
}

static int pick_level(cmz_model *m, const cmz_program *p) {
  uint64_t features = cmz_cpu_detect();
  const char *wanted = m->config.cpu;
  bool known = !wanted;
  for (uint32_t i = 0; i < p->level_count; i++) {
    if (wanted && strcmp(wanted, p->levels[i].name) != 0) continue;
    known = true;
    if ((p->levels[i].features & ~features) == 0) {
      m->level = &p->levels[i];
      m->level_number = i;
      return CMZ_SUCCESS;
    }
  }
  if (!known)
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "config: cpu: the model has no level \"%s\" (%s)",
                        wanted, p->description->target);
  if (wanted)
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "config: cpu: this CPU cannot run \"%s\"", wanted);
  return cmz_fail_run(m, CMZ_UNAVAILABLE, "this CPU lacks what the model was compiled for (%s)",
                      p->description->target);
}

static void set_constant_pointers(cmz_model *m) {
  const cmz_program *p = m->program;
  for (uint32_t b = 0; b < p->buffer_count; b++) {
    if (p->buffers[b].kind == CMZ_PB_CONSTANT) {
      m->pointers[b] = (void *)(uintptr_t)m->weights[p->buffers[b].index];
    }
  }
}

static int create(cmz_model *m, const cmz_program *p) {
  int rc = make_tables(m, p);
  if (rc) return rc;
  m->program = p;
  if (!p->device) rc = pick_level(m, p);
  if (rc) return rc;
  m->weights = p->weights;
  if (p->weights_file) {
    rc = cmz_weights_map(m);
    if (rc) return rc;
  }
  if (p->device) {
    rc = cmz_data_open(m);
    if (rc) return rc;
    m->threads = 1;
    m->ready = true;
    return CMZ_SUCCESS;
  }
  set_constant_pointers(m);
  if (p->values) {
    rc = p->values->create(m);
    if (rc) return rc;
  }
  uint32_t threads = m->config.threads ? m->config.threads : p->description->default_threads;
  m->threads = threads ? threads : cmz_core_count();
  if (m->config.parallel_for) {
    m->threads = m->config.parallel_count ? m->config.parallel_count : m->threads;
  } else if (!CMZ_SYSTEM_THREADS) {
    m->threads = 1;
  } else if (m->threads > 1) {
    m->team = cmz_team_create(m, m->threads);
    if (!m->team) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "cannot start %u threads", m->threads);
  }
  m->ready = true;
  return CMZ_SUCCESS;
}

int cmz_instance_create(const cmz_program *program, const cmz_config *config, cmz_model **model) {
  cmz_config own;
  memset(&own, 0, sizeof own);
  if (config) {
    size_t size = config->struct_size ? config->struct_size : sizeof own;
    memcpy(&own, config, size < sizeof own ? size : sizeof own);
  }
  cmz_model start;
  memset(&start, 0, sizeof start);
  start.config = own;
  if (!own.release)
    start.config.allocate = NULL; /* reported below; the instance itself comes from malloc */
  cmz_model *m = cmz_memory_take(&start, sizeof *m);
  *model = m;
  if (!m) return CMZ_OUT_OF_MEMORY;
  start.config.release = start.config.allocate ? own.release : NULL;
  *m = start;
  if ((own.allocate == NULL) != (own.release == NULL)) {
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "config: allocate and release go together");
  }
  return create(m, program);
}

void cmz_instance_destroy(cmz_model *m) {
  if (!m) return;
  const cmz_program *p = m->program;
  if (m->team) cmz_team_destroy(m, m->team);
  if (p) {
    if (m->values) p->values->destroy(m);
    for (uint32_t b = 0; b < p->buffer_count; b++) {
      cmz_data_give(m, m->owned[b], m->capacity[b]);
    }
    uint32_t tensors = p->description->input_count + p->description->output_count;
    for (uint32_t i = 0; i < tensors; i++) cmz_memory_give(m, m->staging[i], m->staging_bytes[i]);
    cmz_data_give(m, m->arena, m->arena_bytes);
    cmz_data_close(m);
    cmz_memory_give(m, (void *)m->weight_table, m->weight_table_bytes);
    cmz_memory_give(m, m->slots, table_bytes(m));
  }
  if (m->weights_map) cmz_file_unmap(m->weights_map, m->weights_map_bytes);
  cmz_memory_give(m, m, sizeof *m);
}

const char *cmz_instance_error(const cmz_model *m) {
  return m ? m->error : "no memory for an instance";
}

uint64_t cmz_instance_memory_bytes(const cmz_model *m) { return m->memory; }

size_t cmz_instance_arena_bytes(const cmz_program *p, const int64_t *dims) {
  /* No instance and no allocation: the slots stand on the stack where they fit. */
  enum { STACK_SLOTS = 4096 };
  int64_t stack[STACK_SLOTS], *slots = stack;
  void *heap = NULL;
  if (p->slot_count > STACK_SLOTS) {
    heap = cmz_block_take(16, p->slot_count * sizeof *slots);
    if (!heap) return 0;
    slots = heap;
  }
  memcpy(slots, p->slot_init, p->slot_count * sizeof *slots);
  size_t bytes = 1;
  for (uint32_t i = 0; i < p->description->dim_count; i++) {
    const cmz_symbolic_dim *dim = &p->description->dims[i];
    if (!dims || dims[i] < dim->low || dims[i] > dim->high) {
      bytes = 0;
      break;
    }
    slots[p->dim_slots[i]] = dims[i];
  }
  if (bytes) {
    cmz_sizes_run(p, slots, 0, p->entry_instructions);
    int64_t arena = slots[p->arena_slot];
    if (arena > CMZ_LARGEST_BLOCK) bytes = 0; /* "out of range" */
    else bytes = arena > 0 ? (size_t)arena : CMZ_MEMORY_ALIGNMENT;
  }
  cmz_block_give(heap);
  return bytes;
}
