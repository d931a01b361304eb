/* graph.c - the emulated driver's graphs and streams. In: nodes and what they wait for, or the
 * calls on a stream that is captured. Out: launches. Always holds: of the nodes that may run, the
 * one added last runs first, so that a missing edge changes results; a kernel's parameters are
 * copied when it is added, as the driver does. */
#include "driver.h"

#include <stdlib.h>

typedef struct node {
  kernel_node kernel; /* function NULL: a copy */
  copy_node copy;
  uint8_t *values; /* of the parameters */
  void **params;
  struct node **after;
  size_t after_count, index; /* in the graph's list */
  bool done;
} node;

typedef struct graph {
  node **nodes;
  size_t count, capacity;
} graph;

/* An executable graph has its own copies, one a node, in the order of the graph's. */
typedef graph executable;

typedef struct stream {
  void *context;
  graph *captured; /* NULL: not being captured */
} stream;

static int set_kernel(node *n, const kernel_node *kernel) {
  const emulator_kernel *k = kernel->function->kernel;
  size_t bytes = 0;
  for (uint32_t i = 0; i < k->param_count; i++) bytes += k->param_bytes[i];
  uint8_t *values = malloc(bytes + 1), *at = values;
  void **params = malloc((k->param_count + 1) * sizeof *params);
  for (uint32_t i = 0; i < k->param_count; at += k->param_bytes[i++]) {
    memcpy(at, kernel->params[i], k->param_bytes[i]);
    params[i] = at;
  }
  free(n->values);
  free(n->params);
  n->kernel = *kernel;
  n->values = values;
  n->params = params;
  return SUCCESS;
}

static int set_copy(node *n, const copy_node *copy) {
  enum { DEVICE = 2 };
  if (copy->from.memory != DEVICE || copy->to.memory != DEVICE || copy->height != 1 ||
      copy->depth != 1 || copy->from.x || copy->to.x)
    return INVALID_VALUE;
  n->copy = *copy;
  return SUCCESS;
}

static node *add_node(graph *g, node *const *after, size_t count) {
  if (g->count == g->capacity) {
    g->capacity = 2 * g->capacity + 16;
    g->nodes = realloc(g->nodes, g->capacity * sizeof *g->nodes);
  }
  node *n = calloc(1, sizeof *n);
  n->after = malloc((count + 1) * sizeof *n->after);
  if (count) memcpy(n->after, after, count * sizeof *after);
  n->after_count = count;
  n->index = g->count;
  return g->nodes[g->count++] = n;
}

EXPORT int cuGraphCreate(graph **out, unsigned flags) {
  if (flags) return INVALID_VALUE;
  int code = emulator_fault("graph");
  *out = code ? NULL : calloc(1, sizeof **out);
  return code;
}

EXPORT int cuGraphDestroy(graph *g) {
  for (size_t i = 0; i < g->count; i++) {
    free(g->nodes[i]->values);
    free(g->nodes[i]->params);
    free(g->nodes[i]->after);
    free(g->nodes[i]);
  }
  free(g->nodes);
  free(g);
  return SUCCESS;
}
EXPORT int cuGraphExecDestroy(executable *e) { return cuGraphDestroy(e); }

static bool belongs(const graph *g, const node *n) {
  for (size_t i = 0; i < g->count; i++)
    if (g->nodes[i] == n) return true;
  return false;
}

EXPORT int cuGraphAddKernelNode(node **out, graph *g, node *const *after, size_t count,
                                const kernel_node *kernel) {
  for (size_t i = 0; i < count; i++)
    if (!belongs(g, after[i])) return INVALID_VALUE;
  *out = add_node(g, after, count);
  return set_kernel(*out, kernel);
}

EXPORT int cuGraphAddMemcpyNode(node **out, graph *g, node *const *after, size_t count,
                                const copy_node *copy, void *context) {
  for (size_t i = 0; i < count; i++)
    if (!belongs(g, after[i])) return INVALID_VALUE;
  if (!context) return INVALID_CONTEXT;
  *out = add_node(g, after, count);
  return set_copy(*out, copy);
}

EXPORT int cuGraphInstantiateWithFlags(executable **out, graph *g, unsigned long long flags) {
  int code = flags ? INVALID_VALUE : emulator_fault("instantiate");
  if (code) return code;
  executable *e = calloc(1, sizeof *e);
  for (size_t i = 0; i < g->count; i++) {
    const node *from = g->nodes[i];
    node *n = add_node(e, from->after, from->after_count);
    for (size_t a = 0; a < n->after_count; a++) n->after[a] = e->nodes[from->after[a]->index];
    if (from->kernel.function) {
      kernel_node kernel = from->kernel;
      kernel.params = from->params;
      set_kernel(n, &kernel);
    } else {
      n->copy = from->copy;
    }
  }
  *out = e;
  return SUCCESS;
}

EXPORT int cuGraphExecKernelNodeSetParams(executable *e, node *n, const kernel_node *kernel) {
  if (n->index >= e->count || !n->kernel.function || n->kernel.function != kernel->function)
    return INVALID_VALUE;
  int code = emulator_fault("update");
  return code ? code : set_kernel(e->nodes[n->index], kernel);
}
EXPORT int cuGraphExecMemcpyNodeSetParams(executable *e, node *n, const copy_node *copy,
                                          void *context) {
  if (n->index >= e->count || n->kernel.function || !context) return INVALID_VALUE;
  int code = emulator_fault("update");
  return code ? code : set_copy(e->nodes[n->index], copy);
}

static node *next_ready(executable *e) {
  for (size_t i = e->count; i-- > 0;) {
    node *n = e->nodes[i];
    bool ready = !n->done;
    for (size_t a = 0; a < n->after_count && ready; a++) ready = n->after[a]->done;
    if (ready) return n;
  }
  return NULL;
}

EXPORT int cuGraphLaunch(executable *e, stream *s) {
  if (emulator_lost) return emulator_lost;
  if (emulator_captured(s)) return CAPTURE_UNSUPPORTED;
  int code = emulator_fault("graph-launch");
  if (code) return code;
  for (size_t i = 0; i < e->count; i++) e->nodes[i]->done = false;
  for (node *n; (n = next_ready(e)); n->done = true) {
    if (n->kernel.function) emulator_launch(&n->kernel, n->params);
    else emulator_copy(n->copy.to.device, n->copy.from.device, n->copy.bytes);
  }
  return SUCCESS;
}

/* ---- streams ---- */

enum { LEGACY = 1, PER_THREAD = 2 }; /* handles of the default streams */
static bool is_default(const stream *s) { return (uintptr_t)s <= PER_THREAD; }

EXPORT int cuStreamCreate(stream **out, unsigned flags) {
  (void)flags;
  int code = emulator_lost ? emulator_lost : emulator_fault("stream");
  if (!code && !emulator_context()) code = INVALID_CONTEXT;
  *out = code ? NULL : calloc(1, sizeof **out);
  if (!code) (*out)->context = emulator_context();
  return code;
}
EXPORT int cuStreamGetCtx(stream *s, void **context) {
  *context = is_default(s) ? emulator_context() : s->context;
  return *context ? SUCCESS : INVALID_CONTEXT;
}
EXPORT int cuStreamDestroy_v2(stream *s) {
  free(s);
  return SUCCESS;
}
EXPORT int cuStreamBeginCapture_v2(stream *s, int mode) {
  (void)mode;
  if (is_default(s) || s->captured) return INVALID_HANDLE;
  return cuGraphCreate(&s->captured, 0);
}
EXPORT int cuStreamEndCapture(stream *s, graph **out) {
  if (is_default(s) || !s->captured) return INVALID_HANDLE;
  *out = s->captured;
  s->captured = NULL;
  return SUCCESS;
}
EXPORT int cuStreamIsCapturing(stream *s, int *status) {
  *status = emulator_captured(s) != NULL;
  return SUCCESS;
}
EXPORT int cuStreamSynchronize(stream *s) {
  if (emulator_captured(s)) return CAPTURE_UNSUPPORTED;
  int code = emulator_lost ? 0 : emulator_fault("sync");
  return emulator_lost ? emulator_lost : code;
}
struct graph *emulator_captured(void *s) {
  return is_default(s) ? NULL : ((stream *)s)->captured;
}

static node *add_last(graph *g) {
  return add_node(g, g->nodes + g->count - (g->count > 0), g->count > 0);
}
int emulator_capture_kernel(graph *g, const kernel_node *kernel) {
  return set_kernel(add_last(g), kernel);
}
int emulator_capture_copy(graph *g, uint64_t to, uint64_t from, size_t bytes) {
  node *n = add_last(g);
  n->copy.from.device = from;
  n->copy.to.device = to;
  n->copy.bytes = bytes;
  return SUCCESS;
}
