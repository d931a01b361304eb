/* vulkan_commands.c - a Vulkan device's work. In: kernels and copies, one after the other. Out:
 * command buffers, recorded when somebody waits and submitted again, as they are, when the same
 * commands come again. Always holds: a barrier stands before a command exactly where it reads what
 * was written, or writes what was read or written, since the last one; what the host reads after a
 * wait is made visible to it at the segment's end. */
#include "vulkan_device.h"

/* ---- the log ---- */

static uint32_t value_count(const vk_command *c) { return 3 * c->operand_count + c->param_count; }

static bool same(const vk_segment *s, uint32_t i, const vk_command *c, const uint64_t *values) {
  const vk_command *a = &s->log[i];
  return a->kernel == c->kernel && a->tiles == c->tiles && a->operand_count == c->operand_count &&
         a->param_count == c->param_count &&
         memcmp(s->values + a->first, values, value_count(c) * sizeof *values) == 0;
}

/* MEMORY with room for COUNT elements of SIZE; NULL when there is none. */
static void *grown(cmz_model *m, void *memory, uint32_t *capacity, uint32_t used, uint32_t count,
                   size_t size) {
  if (count <= *capacity) return memory;
  uint32_t wanted = *capacity ? *capacity : 64;
  while (wanted < count) wanted *= 2;
  void *larger = cmz_memory_take(m, wanted * size);
  if (!larger) return NULL;
  if (used) memcpy(larger, memory, used * size);
  if (memory) cmz_memory_give(m, memory, *capacity * size);
  *capacity = wanted;
  return larger;
}

static int append(cmz_model *m, vk_segment *s, const vk_command *c, const uint64_t *values) {
  vk_command *log = grown(m, s->log, &s->log_capacity, s->count, s->count + 1, sizeof *log);
  if (log) s->log = log;
  uint32_t count = s->value_count + value_count(c);
  uint64_t *all = grown(m, s->values, &s->value_capacity, s->value_count, count, sizeof *all);
  if (all) s->values = all;
  if (!log || !all)
    return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's commands");
  s->log[s->count] = *c;
  s->log[s->count++].first = s->value_count;
  if (value_count(c)) memcpy(s->values + s->value_count, values, value_count(c) * sizeof *values);
  s->value_count = count;
  return CMZ_SUCCESS;
}

static void truncate(vk_segment *s, uint32_t count) {
  s->recorded = false;
  s->value_count = count < s->count ? s->log[count].first : s->value_count;
  s->count = count;
}

/* A recorded segment that begins with the commands wanted so far and goes on with C (NULL: ends
 * there). */
static vk_segment *find_segment(cmz_device *d, const vk_command *c, const uint64_t *values) {
  for (uint32_t n = 0; n < VK_MOST_SEGMENTS; n++) {
    vk_segment *s = &d->segments[(d->expected + n) % VK_MOST_SEGMENTS];
    if (!s->recorded || s == d->open || (c ? s->count <= d->cursor : s->count != d->cursor))
      continue;
    bool equal = !c || same(s, d->cursor, c, values);
    for (uint32_t i = 0; equal && i < d->cursor; i++)
      equal = same(s, i, &d->open->log[i], d->open->values + d->open->log[i].first);
    if (equal) return s;
  }
  return NULL;
}

/* A segment to write, which begins with the commands wanted so far: one that is unused, else the
 * one unused for longest. */
static int new_segment(cmz_model *m, cmz_device *d) {
  vk_segment *oldest = NULL, *from = d->open;
  for (uint32_t n = 0; n < VK_MOST_SEGMENTS; n++) {
    vk_segment *s = &d->segments[(d->expected + n) % VK_MOST_SEGMENTS];
    if (s != from &&
        (!oldest || (s->recorded ? s->used : 0) < (oldest->recorded ? oldest->used : 0)))
      oldest = s;
  }
  truncate(oldest, 0);
  oldest->value_count = 0;
  d->open = oldest;
  d->matching = false;
  int rc = CMZ_SUCCESS;
  for (uint32_t i = 0; !rc && i < d->cursor; i++)
    rc = append(m, oldest, &from->log[i], from->values + from->log[i].first);
  return rc;
}

static int add(cmz_model *m, cmz_device *d, const vk_command *c, const uint64_t *values) {
  if (d->lost) return cmz_vulkan_fail(m, d, VK_LOST, "running the model");
  if (!d->open) d->cursor = 0, d->matching = true;
  bool goes_on =
      d->open && d->matching && d->cursor < d->open->count && same(d->open, d->cursor, c, values);
  if (d->matching && !goes_on) {
    vk_segment *found = find_segment(d, c, values);
    int rc = found ? CMZ_SUCCESS : new_segment(m, d);
    if (found) d->open = found;
    if (rc) return rc;
  }
  d->cursor++;
  return d->matching ? CMZ_SUCCESS : append(m, d->open, c, values);
}

int cmz_vulkan_add_copy(cmz_model *m, cmz_device *d, uint64_t to, uint64_t from, uint64_t bytes) {
  uint64_t values[] = {from, bytes, CMZ_ACCESS_READ, to, bytes, CMZ_ACCESS_WRITE};
  vk_command c = {.kernel = VK_COPY_COMMAND, .operand_count = 2};
  return add(m, d, &c, values);
}

int cmz_vulkan_launch(cmz_model *m, cmz_device *d, const cmz_launch *l) {
  enum { MOST_VALUES = 2048, MOST_TILES = 1 << 30 };
  uint64_t values[MOST_VALUES], *at = values;
  vk_command c = {l->kernel, l->tiles, l->operand_count, l->param_count, 0};
  if (l->tiles == 0) return CMZ_SUCCESS;
  if (l->tiles > MOST_TILES)
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "a kernel of %u parts is beyond 32-bit numbers",
                        l->tiles);
  if (value_count(&c) > MOST_VALUES)
    return cmz_fail_run(m, CMZ_RUN_FAILED, "a kernel with %u operands", l->operand_count);
  for (uint32_t i = 0; i < l->operand_count; i++) {
    uint64_t reached = cmz_vulkan_reach(d, l->access[i]);
    if (l->bytes[i] + d->gpu->alignment > reached || l->bytes[i] > INT32_MAX)
      return cmz_fail_run(
          m, CMZ_UNAVAILABLE,
          "a tensor of %llu bytes: this Vulkan device reaches at most %llu through its bindings",
          (unsigned long long)l->bytes[i],
          (unsigned long long)(reached > INT32_MAX ? INT32_MAX : reached));
    uint64_t offset;
    if (l->bytes[i] && !cmz_vulkan_find(d, (uint64_t)(uintptr_t)l->operands[i], &offset))
      return cmz_fail_run(m, CMZ_RUN_FAILED, "Vulkan: an operand is not in the device's memory");
    *at++ = (uint64_t)(uintptr_t)l->operands[i];
    *at++ = l->bytes[i];
    *at++ = l->access[i];
  }
  if (l->param_count) memcpy(at, l->params, l->param_count * sizeof *at);
  return add(m, d, &c, values);
}

/* ---- recording ---- */

static void barrier(cmz_device *d, vk_segment *s, uint32_t to) {
  vk_barrier all = {.type = VK_S_BARRIER,
                    .from = VK_WRITES,
                    .to = to == VK_PIPE_HOST ? VK_HOST_READS : VK_READS | VK_WRITES};
  d->gpu->barrier(s->commands, VK_PIPE_COMPUTE | VK_PIPE_TRANSFER, to, 0, 1, &all, 0, NULL, 0,
                  NULL);
  s->barriers++;
  d->touched_count = 0;
}

/* Whether C must wait for commands since the last barrier. */
static bool depends(const cmz_device *d, const vk_command *c, const uint64_t *values) {
  for (uint32_t i = 0; i < c->operand_count; i++, values += 3)
    for (uint32_t t = 0; t < d->touched_count; t++) {
      const vk_touched *x = &d->touched[t];
      if (x->begin < values[0] + values[1] && values[0] < x->end &&
          (x->access | values[2]) & CMZ_ACCESS_WRITE)
        return true;
    }
  return false;
}

static int touch(cmz_model *m, cmz_device *d, const vk_command *c, const uint64_t *values) {
  uint32_t count = d->touched_count + c->operand_count;
  vk_touched *touched =
      grown(m, d->touched, &d->touched_capacity, d->touched_count, count, sizeof *touched);
  if (!touched) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's commands");
  d->touched = touched;
  for (uint32_t i = 0; i < c->operand_count; i++, values += 3)
    if (values[1])
      touched[d->touched_count++] =
          (vk_touched){values[0], values[0] + values[1], (uint32_t)values[2]};
  return CMZ_SUCCESS;
}

/* How many bindings an operand of ACCESS has, and the bytes that they reach together. */
static uint32_t window_count(uint64_t access) { return (uint32_t)(access >> CMZ_ACCESS_WINDOWS); }

uint64_t cmz_vulkan_reach(const cmz_device *d, uint64_t access) {
  uint32_t count = window_count(access);
  return count > 1 ? (uint64_t)count << d->gpu->window_shift : d->gpu->most_range;
}

/* Binds END - BEGIN bytes of B at BEGIN to BINDING of SET. */
static void bind(cmz_device *d, vk_handle set, uint32_t binding, const vk_block *b, uint64_t begin,
                 uint64_t end) {
  if (end > b->bytes) end = b->bytes;
  d->ranges[binding] = (vk_range){b->buffer, begin, end - begin};
  d->writes[binding] = (vk_write){.type = VK_S_WRITE,
                                  .set = set,
                                  .binding = binding,
                                  .count = 1,
                                  .kind = VK_STORAGE_BUFFER,
                                  .buffers = &d->ranges[binding]};
}

/* Binds the operands of the kernel C and writes what else it reads, at byte PLACE of the segment's
 * words, in the order of codegen/emit_vulkan.c. */
static void bind_operands(cmz_device *d, const vk_segment *s, const vk_command *c, vk_handle set,
                          uint64_t place) {
  const uint64_t *values = s->values + c->first;
  uint64_t *words = (uint64_t *)(void *)(s->words->host + place);
  uint32_t binding = 0;
  *words++ = c->tiles;
  *words++ = d->gpu->window_shift;
  bind(d, set, binding++, s->words, place, place + d->gpu->words_stride);
  for (uint32_t i = 0; i < c->operand_count; i++, values += 3) {
    uint32_t windows = window_count(values[2]);
    uint64_t offset = 0, reach = UINT64_C(1) << d->gpu->window_shift;
    const vk_block *b = values[1] ? cmz_vulkan_find(d, values[0], &offset) : NULL;
    uint64_t rest = offset % d->gpu->alignment, begin = offset - rest;
    uint64_t end = offset + ((values[1] + 3) & ~UINT64_C(3));
    *words++ = rest;
    for (uint32_t w = 0; w < windows; w++, begin += reach) {
      bool last = windows == 1 || begin + reach > end;
      if (b && begin < end) bind(d, set, binding++, b, begin, last ? end : begin + reach);
      else bind(d, set, binding++, s->words, place, place + d->gpu->words_stride); /* not used */
    }
  }
  if (c->param_count) memcpy(words, values, c->param_count * sizeof *words);
  d->gpu->sets_write(d->gpu->device, binding, d->writes, 0, NULL);
}

static vk_result record_kernel(cmz_device *d, vk_segment *s, const vk_command *c, uint64_t place) {
  vk_set_info info = {
      .type = VK_S_SET, .pool = s->pool, .count = 1, .layouts = &d->gpu->set_layout};
  vk_handle set = 0;
  vk_result code = d->gpu->sets_take(d->gpu->device, &info, &set);
  if (code) return code;
  bind_operands(d, s, c, set, place);
  uint32_t threads = d->model->program->device->images[d->model->level_number].threads,
           groups = (c->tiles - 1) / threads + 1;
  if (groups > d->gpu->most_groups) groups = d->gpu->most_groups;
  d->gpu->bind_pipeline(s->commands, VK_BIND_COMPUTE, d->gpu->pipelines[c->kernel]);
  d->gpu->bind_sets(s->commands, VK_BIND_COMPUTE, d->gpu->layout, 0, 1, &set, 0, NULL);
  d->gpu->dispatch(s->commands, groups, 1, 1);
  return 0;
}

static void record_copy(cmz_device *d, vk_segment *s, const vk_command *c) {
  const uint64_t *values = s->values + c->first;
  vk_copy region = {.bytes = values[1]};
  const vk_block *from = cmz_vulkan_find(d, values[0], &region.from),
                 *to = cmz_vulkan_find(d, values[3], &region.to);
  d->gpu->copy(s->commands, from->buffer, to->buffer, 1, &region);
}

/* Descriptor sets and words for the segment's kernels. */
static int reserve(cmz_model *m, cmz_device *d, vk_segment *s) {
  uint32_t kernels = 0, sets = 64;
  for (uint32_t i = 0; i < s->count; i++) kernels += s->log[i].kernel != VK_COPY_COMMAND;
  while (sets < kernels) sets *= 2;
  vk_result code = 0;
  if (!s->commands) {
    vk_command_info command = {.type = VK_S_COMMANDS, .pool = d->command_pool, .count = 1};
    code = d->gpu->commands_take(d->gpu->device, &command, &s->commands);
  }
  if (!code && s->pool && s->sets >= kernels) code = d->gpu->pool_reset(d->gpu->device, s->pool, 0);
  if (!code && s->sets < kernels) {
    if (s->pool) d->gpu->pool_destroy(d->gpu->device, s->pool, NULL);
    s->pool = s->sets = 0;
    vk_pool_size size = {VK_STORAGE_BUFFER, sets * d->gpu->bindings};
    vk_pool_info pool = {.type = VK_S_POOL, .sets = sets, .size_count = 1, .sizes = &size};
    code = d->gpu->pool_create(d->gpu->device, &pool, NULL, &s->pool);
    if (!code) s->sets = sets;
  }
  if (code) return cmz_vulkan_fail(m, d, code, "preparing the commands");
  if (kernels && (!s->words || s->words->bytes < kernels * d->gpu->words_stride)) {
    cmz_vulkan_block_free(d, s->words);
    s->words = cmz_vulkan_block(d, sets * d->gpu->words_stride, false);
    if (!s->words)
      return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "the device has no memory that the host can reach");
  }
  return CMZ_SUCCESS;
}

static int record(cmz_model *m, cmz_device *d, vk_segment *s) {
  int rc = reserve(m, d, s);
  vk_begin_info info = {.type = VK_S_BEGIN};
  vk_result code = rc ? 0 : d->gpu->begin(s->commands, &info);
  s->dispatches = s->barriers = 0;
  if (!rc && !code)
    barrier(d, s, VK_PIPE_COMPUTE | VK_PIPE_TRANSFER); /* what earlier submissions wrote */
  for (uint32_t i = 0; !rc && !code && i < s->count; i++) {
    const vk_command *c = &s->log[i];
    if (depends(d, c, s->values + c->first)) barrier(d, s, VK_PIPE_COMPUTE | VK_PIPE_TRANSFER);
    rc = touch(m, d, c, s->values + c->first);
    if (c->kernel == VK_COPY_COMMAND) record_copy(d, s, c);
    else code = record_kernel(d, s, c, s->dispatches++ * d->gpu->words_stride);
  }
  if (rc) return rc;
  if (!code) barrier(d, s, VK_PIPE_HOST);
  if (!code) code = d->gpu->end(s->commands);
  s->recorded = code == 0;
  return code ? cmz_vulkan_fail(m, d, code, "recording") : CMZ_SUCCESS;
}

/* ---- submitting ---- */

vk_result cmz_vulkan_settle(cmz_device *d) {
  if (!d->pending) return 0;
  d->pending = false;
  vk_result code = d->gpu->fences_wait(d->gpu->device, 1, &d->fence, 1, UINT64_MAX);
  return code ? code : d->gpu->fences_reset(d->gpu->device, 1, &d->fence);
}

/* The recorded segment that is to be submitted. */
static int close_segment(cmz_model *m, cmz_device *d, vk_segment **out) {
  int rc = CMZ_SUCCESS;
  if (d->matching && d->cursor < d->open->count) { /* ends earlier than last time */
    vk_segment *found = find_segment(d, NULL, NULL);
    if (found) d->open = found;
    else rc = new_segment(m, d);
  }
  vk_segment *s = *out = d->open;
  if (!rc && !d->matching) rc = record(m, d, s);
  d->open = NULL;
  d->staging_used = 0;
  d->expected = (uint32_t)(s - d->segments + 1) % VK_MOST_SEGMENTS;
  return rc;
}

/* Submits the open segment. */
static int flush(cmz_model *m, cmz_device *d) {
  vk_segment *s;
  int rc = close_segment(m, d, &s);
  if (rc) return rc;
  vk_submit submit = {.type = VK_S_SUBMIT, .command_count = 1, .commands = &s->commands};
  cmz_lock(&d->gpu->queue_lock);
  vk_result code = d->gpu->submit(d->gpu->queue, 1, &submit, d->fence);
  cmz_unlock(&d->gpu->queue_lock);
  d->pending = code == 0;
  d->counts.dispatches += s->dispatches;
  d->counts.barriers += s->barriers;
  d->counts.submissions++;
  s->used = ++d->time;
  return code ? cmz_vulkan_fail(m, d, code, "running the model") : CMZ_SUCCESS;
}

int cmz_vulkan_wait(cmz_model *m, cmz_device *d) {
  int rc = d->open ? flush(m, d) : CMZ_SUCCESS;
  vk_result code = rc ? 0 : cmz_vulkan_settle(d);
  return code ? cmz_vulkan_fail(m, d, code, "running the model") : rc;
}

/* On a queue of the caller's nobody waits. */
int cmz_vulkan_end(cmz_model *m, cmz_device *d) {
  if (!d->gpu->callers) return cmz_vulkan_wait(m, d);
  return d->open ? flush(m, d) : CMZ_SUCCESS;
}

void cmz_vulkan_begin(cmz_device *d) {
  if (cmz_vulkan_settle(d) == VK_LOST) d->lost = true;
  if (d->open && !d->matching) truncate(d->open, 0); /* of a run that failed */
  d->open = NULL;
  d->staging_used = 0;
  d->expected = 0;
  d->counts = (cmz_device_counts){0};
}

void cmz_vulkan_count(const cmz_device *d, cmz_device_counts *counts) { *counts = d->counts; }

void cmz_vulkan_segments_free(cmz_device *d) {
  for (uint32_t i = 0; i < VK_MOST_SEGMENTS; i++) {
    vk_segment *s = &d->segments[i];
    if (s->pool) d->gpu->pool_destroy(d->gpu->device, s->pool, NULL);
    if (s->log) cmz_memory_give(d->model, s->log, s->log_capacity * sizeof *s->log);
    if (s->values) cmz_memory_give(d->model, s->values, s->value_capacity * sizeof *s->values);
  }
  if (d->touched) cmz_memory_give(d->model, d->touched, d->touched_capacity * sizeof *d->touched);
}
