/* cuda_graph.c - a CUDA device's work. In: kernels and copies, one after the other. Out: they run
 * when somebody needs their results; work that comes a second time is made a CUDA graph, whose
 * edges are the true dependencies, and is from then on started by one call. Addresses that change
 * (a caller's tensors) are set in the graph that there is. Always holds: whatever a graph cannot
 * do, single launches in the order of the calls do. */
#include "cuda_device.h"

/* ---- logs ---- */

/* LOG with room for COUNT more words. */
static bool reserve(cmz_model *m, cuda_log *log, uint32_t count) {
  if (log->used + count <= log->capacity) return true;
  uint32_t capacity = log->capacity ? log->capacity : 512;
  while (capacity < log->used + count) capacity *= 2;
  uint64_t *words = cmz_memory_take(m, capacity * sizeof *words);
  if (!words) return false;
  if (log->used) memcpy(words, log->words, log->used * sizeof *words);
  cmz_memory_give(m, log->words, log->capacity * sizeof *words);
  log->words = words;
  log->capacity = capacity;
  return true;
}

static void log_free(cmz_model *m, cuda_log *log) {
  cmz_memory_give(m, log->words, log->capacity * sizeof *log->words);
  *log = (cuda_log){0};
}

static uint64_t *operands_of(uint64_t *command) { return command + CUDA_HEADER; }
static uint64_t *params_of(uint64_t *command) {
  return operands_of(command) + command[CUDA_OPERANDS];
}
static uint64_t *bytes_of(uint64_t *command) { return params_of(command) + command[CUDA_PARAMS]; }
static uint64_t *access_of(uint64_t *command) { return bytes_of(command) + command[CUDA_OPERANDS]; }
static uint64_t *next(uint64_t *command) { return access_of(command) + command[CUDA_OPERANDS]; }

static uint64_t *append(cmz_model *m, cmz_device *d, uint32_t kernel, uint32_t tiles,
                        uint32_t operands, uint32_t params) {
  uint32_t words = CUDA_HEADER + 3 * operands + params;
  if (!reserve(m, &d->pending, words)) {
    cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's commands");
    return NULL;
  }
  uint64_t *command = d->pending.words + d->pending.used;
  command[CUDA_KERNEL] = kernel;
  command[CUDA_TILES] = tiles;
  command[CUDA_OPERANDS] = operands;
  command[CUDA_PARAMS] = params;
  d->pending.used += words;
  d->pending.count++;
  return command;
}

int cmz_cuda_launch(cmz_model *m, cmz_device *d, const cmz_launch *l) {
  if (l->tiles == 0) return CMZ_SUCCESS;
  uint64_t *command = append(m, d, l->kernel, l->tiles, l->operand_count, l->param_count);
  if (!command) return CMZ_OUT_OF_MEMORY;
  for (uint32_t i = 0; i < l->operand_count; i++) {
    operands_of(command)[i] = (uint64_t)(uintptr_t)l->operands[i];
    bytes_of(command)[i] = l->bytes[i];
    access_of(command)[i] = l->access[i];
  }
  if (l->param_count) memcpy(params_of(command), l->params, l->param_count * sizeof *l->params);
  return CMZ_SUCCESS;
}

int cmz_cuda_copy(cmz_model *m, cmz_device *d, void *to, const void *from, size_t bytes) {
  uint64_t *command = append(m, d, CUDA_COPY, 1, 2, 0);
  if (!command) return CMZ_OUT_OF_MEMORY;
  operands_of(command)[0] = (uint64_t)(uintptr_t)from;
  operands_of(command)[1] = (uint64_t)(uintptr_t)to;
  bytes_of(command)[0] = bytes_of(command)[1] = bytes;
  access_of(command)[0] = CMZ_ACCESS_READ;
  access_of(command)[1] = CMZ_ACCESS_WRITE;
  return CMZ_SUCCESS;
}

/* ---- one command ---- */

static cu_kernel kernel_of(cmz_device *d, uint64_t *command) {
  enum { MOST_GROUPS = 1 << 20 };
  uint32_t threads = d->model->program->device->images[d->model->level_number].threads, count = 0;
  uint32_t groups = ((uint32_t)command[CUDA_TILES] - 1) / threads + 1;
  for (uint64_t i = 0; i < command[CUDA_OPERANDS] + command[CUDA_PARAMS]; i++)
    d->parameters[count++] = &operands_of(command)[i]; /* the params follow the operands */
  d->parameters[count++] = &command[CUDA_TILES];
  return (cu_kernel){.function = d->functions[command[CUDA_KERNEL]],
                     .grid = {groups > MOST_GROUPS ? MOST_GROUPS : groups, 1, 1},
                     .block = {threads, 1, 1},
                     .parameters = d->parameters};
}

static cu_copy copy_of(uint64_t *command) {
  enum { DEVICE_MEMORY = 2 };
  size_t bytes = bytes_of(command)[0];
  cu_copy_end from = {.memory = DEVICE_MEMORY,
                      .device = operands_of(command)[0],
                      .pitch = bytes,
                      .height = 1},
              to = from;
  to.device = operands_of(command)[1];
  return (cu_copy){.from = from, .to = to, .bytes = bytes, .height = 1, .depth = 1};
}

static bool is_copy(const uint64_t *command) { return command[CUDA_KERNEL] == CUDA_COPY; }

static cu_result start(cmz_device *d, uint64_t *command) {
  if (is_copy(command))
    return d->copy(operands_of(command)[1], operands_of(command)[0], bytes_of(command)[0],
                   d->stream);
  cu_kernel k = kernel_of(d, command);
  return d->launch(k.function, k.grid[0], 1, 1, k.block[0], 1, 1, k.shared_bytes, d->stream,
                   k.parameters, NULL);
}

static cu_result start_all(cmz_device *d, const cuda_log *log) {
  cu_result code = 0;
  uint64_t *command = log->words;
  for (uint32_t i = 0; !code && i < log->count; i++, command = next(command))
    code = start(d, command);
  d->counts.submissions += log->count;
  return code;
}

/* ---- what waits for what ---- */

static bool conflict(uint64_t *a, uint64_t *b) {
  for (uint64_t i = 0; i < a[CUDA_OPERANDS]; i++)
    for (uint64_t j = 0; j < b[CUDA_OPERANDS]; j++) {
      uint64_t x = operands_of(a)[i], y = operands_of(b)[j];
      if ((access_of(a)[i] | access_of(b)[j]) & CMZ_ACCESS_WRITE && x < y + bytes_of(b)[j] &&
          y < x + bytes_of(a)[i])
        return true;
    }
  return false;
}

/* The commands that command I waits for: REACHED has a row of bits a command, all that it waits for
 * directly or not, so that no edge says what others say. */
static void edges_of(cuda_log *edges, uint64_t **commands, uint64_t *reached, uint32_t row,
                     uint32_t i) {
  uint64_t *mine = reached + (size_t)i * row;
  uint32_t head = edges->used++;
  edges->words[head] = 0;
  for (uint32_t j = i; j-- > 0;) {
    if (mine[j / 64] >> (j % 64) & 1 || !conflict(commands[i], commands[j])) continue;
    edges->words[head]++;
    edges->words[edges->used++] = j;
    for (uint32_t w = 0; w < row; w++) mine[w] |= reached[(size_t)j * row + w];
    mine[j / 64] |= UINT64_C(1) << (j % 64);
  }
}

/* The edges of LOG into d->edges; false without memory. */
static bool find_edges(cmz_device *d, const cuda_log *log) {
  enum { MOST_WITH_BRANCHES = 4096 };
  uint32_t n = log->count, row = n > MOST_WITH_BRANCHES ? 0 : (n + 63) / 64;
  size_t bytes = n * sizeof(uint64_t *) + (size_t)n * row * sizeof(uint64_t);
  uint64_t **commands = cmz_memory_take(d->model, bytes);
  if (!commands) return false;
  memset(commands, 0, bytes);
  uint64_t *command = log->words;
  for (uint32_t i = 0; i < n; i++, command = next(command)) commands[i] = command;
  d->edges.used = 0;
  bool good = true;
  for (uint32_t i = 0; good && i < n; i++) {
    good = reserve(d->model, &d->edges, i + 1);
    if (!good) break;
    if (row) {
      edges_of(&d->edges, commands, (uint64_t *)(commands + n), row, i);
    } else { /* so many: one after the other */
      d->edges.words[d->edges.used++] = i > 0;
      if (i) d->edges.words[d->edges.used++] = i - 1;
    }
  }
  cmz_memory_give(d->model, commands, bytes);
  return good;
}

/* ---- graphs ---- */

static void graph_drop(cmz_device *d, cuda_segment *s) {
  if (s->executable) d->graph_free(s->executable);
  if (s->graph) d->graph_destroy(s->graph);
  s->executable = s->graph = NULL;
}

static bool keep(cmz_model *m, cuda_log *to, const cuda_log *from) {
  to->used = to->count = 0;
  if (!reserve(m, to, from->used)) return false;
  memcpy(to->words, from->words, from->used * sizeof *to->words);
  to->used = from->used;
  to->count = from->count;
  return true;
}

static cu_result add_nodes(cmz_device *d, cuda_segment *s) {
  uint64_t *command = s->log.words;
  const uint64_t *edge = s->edges.words;
  void **after = s->nodes + s->log.count; /* room for as many */
  cu_result code = 0;
  for (uint32_t i = 0; !code && i < s->log.count; i++, command = next(command)) {
    size_t count = *edge++;
    for (size_t e = 0; e < count; e++) after[e] = s->nodes[*edge++];
    if (is_copy(command)) {
      cu_copy copy = copy_of(command);
      code = d->graph_copy(&s->nodes[i], s->graph, after, count, &copy, d->context);
    } else {
      cu_kernel kernel = kernel_of(d, command);
      code = d->graph_kernel(&s->nodes[i], s->graph, after, count, &kernel);
    }
  }
  return code;
}

/* A graph of S's log; none, and S plain, when that cannot be. */
static void graph_make(cmz_device *d, cuda_segment *s) {
  graph_drop(d, s);
  uint32_t room = 2 * s->log.count;
  bool good = find_edges(d, &s->log) && keep(d->model, &s->edges, &d->edges);
  if (good && s->node_capacity < room) {
    cmz_memory_give(d->model, s->nodes, s->node_capacity * sizeof *s->nodes);
    s->nodes = cmz_memory_take(d->model, room * sizeof *s->nodes);
    s->node_capacity = s->nodes ? room : 0;
    good = s->nodes != NULL;
  }
  good = good && d->graph_create(&s->graph, 0) == 0 && add_nodes(d, s) == 0 &&
         d->graph_instantiate(&s->executable, s->graph, 0) == 0;
  if (!good) graph_drop(d, s);
  s->plain = !good;
}

/* The addresses of LOG in S's graph, whose log has others; false when that cannot be. */
static bool graph_update(cmz_device *d, cuda_segment *s, const cuda_log *log) {
  if (!find_edges(d, log) || d->edges.used != s->edges.used ||
      memcmp(d->edges.words, s->edges.words, s->edges.used * sizeof *s->edges.words) != 0)
    return false;
  uint64_t *command = log->words, *old = s->log.words;
  cu_result code = 0;
  for (uint32_t i = 0; !code && i < log->count; i++, command = next(command), old = next(old)) {
    if (memcmp(operands_of(command), operands_of(old), command[CUDA_OPERANDS] * sizeof *command) ==
        0)
      continue;
    if (is_copy(command)) {
      cu_copy copy = copy_of(command);
      code = d->graph_set_copy(s->executable, s->nodes[i], &copy, d->context);
    } else {
      cu_kernel kernel = kernel_of(d, command);
      code = d->graph_set_kernel(s->executable, s->nodes[i], &kernel);
    }
  }
  return code == 0;
}

/* ---- finding it again ---- */

static bool equal(const cuda_log *a, const cuda_log *b) {
  return a->used == b->used && memcmp(a->words, b->words, a->used * sizeof *a->words) == 0;
}

/* Equal but for addresses. */
static bool alike(const cuda_log *a, const cuda_log *b) {
  if (a->used != b->used || a->count != b->count) return false;
  uint64_t *x = a->words, *y = b->words;
  for (uint32_t i = 0; i < a->count; i++, x = next(x), y = next(y)) {
    if (memcmp(x, y, CUDA_HEADER * sizeof *x) != 0) return false;
    uint64_t *rest = params_of(x);
    if (memcmp(rest, params_of(y), (size_t)(next(x) - rest) * sizeof *x) != 0) return false;
  }
  return true;
}

static cuda_segment *find(cmz_device *d, bool (*matches)(const cuda_log *, const cuda_log *)) {
  for (uint32_t i = 0; i < CUDA_MOST_SEGMENTS; i++)
    if (d->segments[i].time && matches(&d->pending, &d->segments[i].log)) return &d->segments[i];
  return NULL;
}

static void remember(cmz_device *d) {
  cuda_segment *oldest = &d->segments[0];
  for (uint32_t i = 1; i < CUDA_MOST_SEGMENTS; i++)
    if (d->segments[i].time < oldest->time) oldest = &d->segments[i];
  graph_drop(d, oldest);
  oldest->plain = false;
  oldest->time = keep(d->model, &oldest->log, &d->pending) ? ++d->time : 0;
}

static bool captured_by_caller(const cmz_device *d) {
  int status = 0;
  return !d->owns_stream && d->stream_capturing && d->stream_capturing(d->stream, &status) == 0 &&
         status != 0;
}

/* The segment with a graph of what is pending; NULL: it has none (yet). */
static cuda_segment *graph_for_pending(cmz_device *d) {
  if (!d->has_graphs || d->pending.count < 2 || captured_by_caller(d)) return NULL;
  cuda_segment *s = find(d, equal);
  if (!s) {
    s = find(d, alike);
    if (!s) return remember(d), NULL;
    bool updated = s->executable && graph_update(d, s, &d->pending);
    if (!updated) graph_drop(d, s);
    if (!keep(d->model, &s->log, &d->pending)) return s->time = 0, graph_drop(d, s), NULL;
  }
  s->time = ++d->time;
  if (!s->executable && !s->plain) graph_make(d, s);
  return s->executable ? s : NULL;
}

cu_result cmz_cuda_flush(cmz_device *d) {
  cu_result code = d->deferred;
  d->deferred = 0;
  if (!code && d->pending.count) {
    const cuda_segment *s = graph_for_pending(d);
    code = s ? d->graph_launch(s->executable, d->stream) : start_all(d, &d->pending);
    d->counts.submissions += s != NULL;
    d->counts.dispatches += d->pending.count;
  }
  d->pending.used = d->pending.count = 0;
  return code;
}

void cmz_cuda_graphs_free(cmz_device *d) {
  for (uint32_t i = 0; i < CUDA_MOST_SEGMENTS; i++) {
    cuda_segment *s = &d->segments[i];
    graph_drop(d, s);
    cmz_memory_give(d->model, s->nodes, s->node_capacity * sizeof *s->nodes);
    log_free(d->model, &s->log);
    log_free(d->model, &s->edges);
  }
  log_free(d->model, &d->pending);
  log_free(d->model, &d->edges);
}
