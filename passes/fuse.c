/* fuse.c - decides which values are never stored but computed inside their consumers' kernels.
 * In: an expanded, laid-out module. Out: run->fused by value id. Nothing is rewritten: describing a
 * kernel substitutes the expressions of fused producers. Always holds: a fused value has consumers
 * in its own graph only, and every consumer is described by an expression. A contraction or
 * reduction is computed once per output element of its kernel. */
#include "fuse.h"

#define FUSE_MAX_OPERANDS 12 /* loads of one kernel, beyond what its own root needs */
#define FUSE_MAX_COPIES 3    /* kernels into which one cheap value is computed again */
#define FUSE_EPILOGUE_DEPTH 12
#define FUSE_BESIDE_PRODUCT                                                                        \
  24.0                       /* element costs beside a contraction: its register tile copies them */
#define FUSE_CHEAP_RATIO 4.0 /* how often a cheap element may be computed again */
#define FUSE_MOST_SERIAL                                                                           \
  16384.0 /* elements that one of few threads of a GPU reads for a reduction */
#define FUSE_MANY_THREADS 4096.0 /* of a GPU: no longer few */

/* Where a node is computed. */
typedef struct place {
  cmz_nid root;     /* the kernel's root */
  uint32_t aligned; /* leading dims whose coordinates are the kernel's own coordinates */
  bool identity;    /* all of them, each element once: an epilogue */
  bool decided;
  bool copied;        /* computed again in several kernels, ROOT being one of them */
  double evaluations; /* of output elements, over the whole kernel */
} place;

typedef struct fuser {
  cmz_module *m;
  bool device;     /* a GPU: what a reduction's result is shared by is one thread's work */
  double *threads; /* by root: how many a GPU's kernel would have */
  bool *fused;
  bool *bound;          /* by vid: a symbol stands for its content, so it is stored */
  place *places;        /* by nid */
  uint32_t *operands;   /* by root: loads so far */
  uint8_t *heavy_flags; /* by root: CONTRACTION and REDUCTION inside */
  double *beside; /* by root: element costs of what does not continue a contraction or reduction */
} fuser;

enum { HAS_REDUCTION = 1, HAS_CONTRACTION = 2 };

/* How a producer would be computed in its consumers' kernel. */
typedef struct use_summary {
  double evaluations;
  cmz_nid root;
  uint32_t aligned;
  bool identity; /* at every use the kernel's own coordinates */
  bool prefix; /* at every use all dims but those of size 1 are leading kernel coordinates: computed
                  once outside inner loops */
  bool same_root;
} use_summary;

bool cmz_fuse_is_kernel(const cmz_node *n) {
  return !(n->op->flags & (CMZ_OP_CONTROL | CMZ_OP_RUNTIME | CMZ_OP_IN_PLACE)) &&
         (n->op->describe != NULL || n->op->describe_kernel != NULL);
}

bool cmz_fuse_is_alias(const cmz_module *m, const cmz_node *n) {
  if (!(n->op->flags & CMZ_OP_VIEW) || n->output_count == 0 || n->outputs[0] == 0) return false;
  const cmz_value *in = cmz_value_get(m, n->inputs[0]), *out = cmz_value_get(m, n->outputs[0]);
  return in->layout.count == 0 && out->layout.count == 0 && in->type.dtype == out->type.dtype;
}

/* Cost of one element of N in additions, as far as recomputation goes. */
static double element_cost(const cmz_node *n) {
  if (n->op->flags & (CMZ_OP_MOVEMENT | CMZ_OP_VIEW)) return 0.5;
  if (n->op->flags & CMZ_OP_CHEAP) return 1;
  return 8;
}

/* The same for each vector of a register tile: of 64-bit numbers there are two, and what is read
 * from anywhere is read lane by lane. */
static double copied_cost(const cmz_module *m, const cmz_node *n) {
  cmz_vid v = cmz_node_output(n, 0);
  size_t bytes = 0;
  bool wide = v != 0 && cmz_dtype_bytes(cmz_value_get(m, v)->type.dtype, 1, &bytes) && bytes == 8;
  bool anywhere = cmz_pass_is_op(n, "Gather") || cmz_pass_is_op(n, "GatherElements") ||
                  cmz_pass_is_op(n, "GatherND");
  return anywhere ? 2 * FUSE_BESIDE_PRODUCT : element_cost(n) * (wide ? 2 : 1);
}

static uint8_t heavy_flags(const cmz_node *n) {
  if (n->op->flags & CMZ_OP_CONTRACTION) return HAS_CONTRACTION;
  return n->op->flags & CMZ_OP_REDUCTION ? HAS_REDUCTION : 0;
}

static const cmz_type *type_of(const fuser *f, cmz_vid v) { return &cmz_value_get(f->m, v)->type; }

/* Leading dims that A and B have in common. */
static uint32_t common_prefix(const cmz_type *a, const cmz_type *b) {
  uint32_t i = 0;
  while (i < a->rank && i < b->rank && a->shape[i] == b->shape[i]) i++;
  return i;
}

/* Whether all dims of T from FIRST on are 1. */
static bool ones_from(const fuser *f, const cmz_type *t, uint32_t first) {
  for (uint32_t i = first; i < t->rank; i++)
    if (!cmz_dim_is(f->m->dims, t->shape[i], 1)) return false;
  return true;
}

/* How often a reduction reads an element of its input while each output element is computed once.
 */
static double reads_per_element(const fuser *f, const cmz_node *n, uint32_t input) {
  uint32_t count;
  const int64_t *window = cmz_node_ints(n, "kernel_shape", &count);
  if (window != NULL) {
    double in = (double)cmz_pass_hint_elements(f->m, n->inputs[input]), reads = 1;
    for (uint32_t i = 0; i < count; i++) reads *= (double)window[i];
    return reads * (double)cmz_pass_hint_elements(f->m, n->outputs[0]) / (in > 0 ? in : 1);
  }
  /* A reduction that keeps its input's shape (softmax) reads it more than once. */
  return cmz_pass_same_shape(f->m, n->inputs[input], n->outputs[0]) ? 3 : 1;
}

/* Of what feeds a contraction only a weight's decoding is computed where it is read, and that where
 * few rows share it: anything else would be done again for every product, or would cost the vector
 * axis its contiguous loads. */
static bool into_contraction(const cmz_node *p) {
  return (p->op->flags & CMZ_OP_DECODE) != 0 && cmz_node_int(p, "stored", 0) == 0;
}

/* Leading dims of V that are kernel coordinates when consumer C, placed AT, reads it. */
static uint32_t aligned_through(const fuser *f, const cmz_node *c, const place *at, cmz_vid v) {
  const cmz_type *in = type_of(f, v), *out = type_of(f, c->outputs[0]);
  uint32_t common = common_prefix(in, out);
  bool view = (c->op->flags & CMZ_OP_VIEW) != 0;
  if (view && !(ones_from(f, in, common) && ones_from(f, out, common))) return 0;
  if (!view && !(c->op->flags & (CMZ_OP_POINTWISE | CMZ_OP_REDUCTION))) return 0;
  /* Broadcasting aligns trailing dims: leading ones agree only at equal rank. */
  if ((c->op->flags & CMZ_OP_POINTWISE) && in->rank != out->rank) return 0;
  if (cmz_node_attr(c, "kernel_shape") != NULL) return 0;
  return CMZ_MIN(common, at->aligned);
}

/* Whether a view only splits dims of IN: every element keeps coordinates that are sums, without
 * divisions. */
static bool only_splits(const fuser *f, const cmz_type *in, const cmz_type *out) {
  cmz_dims *dims = f->m->dims;
  uint32_t j = 0;
  for (uint32_t i = 0; i < in->rank; i++) {
    if (cmz_dim_is(dims, in->shape[i], 1)) continue;
    cmz_dim product = cmz_dim_const(dims, 1);
    while (j < out->rank && product != in->shape[i])
      product = cmz_dim_mul(dims, product, out->shape[j++]);
    if (product != in->shape[i]) return false;
  }
  return ones_from(f, out, j);
}

/* Whether C, at coordinates that are all the kernel's own, reads each element of V exactly once and
 * at a sum of them. */
static bool is_bijective(const fuser *f, const cmz_node *c, cmz_vid v) {
  if (c->op->flags & CMZ_OP_POINTWISE) return cmz_pass_same_shape(f->m, v, c->outputs[0]);
  if (cmz_pass_is_op(c, "Transpose")) return true;
  return (c->op->flags & CMZ_OP_VIEW) && c->inputs[0] == v &&
         only_splits(f, type_of(f, v), type_of(f, c->outputs[0]));
}

/* Whether output V of P may be computed inside consumer USE, and how often. */
static bool check_use(fuser *f, const cmz_node *p, cmz_vid v, cmz_use use, use_summary *sum) {
  const cmz_node *c = cmz_node_get(f->m, use.node);
  const place *at = &f->places[use.node];
  if (c->graph != p->graph || !cmz_fuse_is_kernel(c) || c->op->describe == NULL ||
      c->op->describe_kernel != NULL || !at->decided)
    return false;
  if ((c->op->flags & CMZ_OP_CONTRACTION) && !into_contraction(p)) return false;
  /* A view that has no kernel of its own reads stored bytes. */
  if (at->root == use.node && cmz_fuse_is_alias(f->m, c)) return false;
  double produced = (double)cmz_pass_hint_elements(f->m, v);
  double consumed = (double)cmz_pass_hint_elements(f->m, c->outputs[0]);
  double scale = at->evaluations / (consumed < 1 ? 1 : consumed);
  uint32_t aligned = aligned_through(f, c, at, v);
  bool prefix = aligned > 0 && ones_from(f, type_of(f, v), aligned);
  bool identity = at->identity && is_bijective(f, c, v);
  double evaluations = at->evaluations;
  if (prefix || (c->op->flags & CMZ_OP_CONTRACTION)) evaluations = produced;
  else if (c->op->flags & CMZ_OP_REDUCTION)
    evaluations = produced * scale * reads_per_element(f, c, use.index);
  else if (c->op->flags & CMZ_OP_MOVEMENT) /* a slice reads less than there is */
    evaluations = CMZ_MIN(at->evaluations, produced * scale);
  sum->evaluations += evaluations;
  if (at->copied) sum->same_root = false;
  if (sum->root == 0) {
    sum->root = at->root;
    sum->aligned = aligned;
    sum->identity = identity;
    sum->prefix = prefix || identity;
    return true;
  }
  sum->same_root &= sum->root == at->root;
  sum->aligned = CMZ_MIN(sum->aligned, aligned);
  sum->identity &= identity;
  sum->prefix &= prefix || identity;
  return true;
}

/* Whether N's result is, but for pointwise steps that nobody else reads, what a contraction or
 * reduction makes: it is that kernel's epilogue then. */
static bool continues_heavy(const fuser *f, const cmz_node *n, int depth) {
  if (!(n->op->flags & CMZ_OP_POINTWISE) || depth == 0) return false;
  for (uint32_t i = 0; i < n->input_count; i++) {
    cmz_vid v = n->inputs[i];
    if (v == 0 || cmz_value_get(f->m, v)->producer == 0 || cmz_pass_use_count(f->m, v) != 1 ||
        !cmz_pass_same_shape(f->m, v, n->outputs[0]))
      continue;
    const cmz_node *p = cmz_node_get(f->m, cmz_value_get(f->m, v)->producer);
    if (p->graph != n->graph || p->op->describe == NULL) continue;
    if (heavy_flags(p) != 0 || continues_heavy(f, p, depth - 1)) return true;
  }
  return false;
}

/* Sums up all uses of N's outputs; false when one forbids fusion. */
static bool check_uses(fuser *f, const cmz_node *p, use_summary *sum, uint32_t *uses) {
  *sum = (use_summary){.same_root = true};
  *uses = 0;
  for (uint32_t o = 0; o < p->output_count; o++) {
    cmz_vid v = p->outputs[o];
    if (v == 0) continue;
    const cmz_value *value = cmz_value_get(f->m, v);
    if (value->output_uses > 0 || f->bound[v] || value->type.dtype == CMZ_STRING) return false;
    for (uint32_t i = 0; i < value->uses.count; i++, (*uses)++)
      if (!check_use(f, p, v, value->uses.data[i], sum)) return false;
  }
  return *uses > 0;
}

/* With blocked channels a part of the channel axis is innermost: what depends on it alone would be
 * computed again in every tile of the axes in between. */
static bool plain_output(const fuser *f, cmz_nid root) {
  cmz_vid v = cmz_node_output(cmz_node_get(f->m, root), 0);
  return v == 0 || cmz_value_get(f->m, v)->layout.count == 0;
}

/* How many threads of a GPU can work on a kernel with reduction P inside. */
static double threads_with(const fuser *f, const cmz_node *p, const use_summary *sum) {
  double rows = (double)cmz_pass_hint_elements(f->m, p->outputs[0]);
  return sum->identity ? f->threads[sum->root] : CMZ_MIN(f->threads[sum->root], rows);
}

/* Whether reduction P would leave few threads of a GPU with much to read, one after the other. */
static bool too_serial(const fuser *f, const cmz_node *p, const use_summary *sum) {
  if (!f->device || p->input_count == 0 || p->inputs[0] == 0) return false;
  double rows = CMZ_MAX((double)cmz_pass_hint_elements(f->m, p->outputs[0]), 1.0);
  double reads = (double)cmz_pass_hint_elements(f->m, p->inputs[0]) * sum->evaluations / rows;
  double threads = CMZ_MAX(threads_with(f, p, sum), 1.0);
  return threads < FUSE_MANY_THREADS && reads > FUSE_MOST_SERIAL * threads;
}

static bool may_fuse(fuser *f, cmz_nid n, use_summary *sum) {
  const cmz_node *p = cmz_node_get(f->m, n);
  if (!cmz_fuse_is_kernel(p) || p->op->describe == NULL || p->op->describe_kernel != NULL ||
      (p->op->flags & CMZ_OP_RANDOM))
    return false;
  uint32_t uses;
  if (!check_uses(f, p, sum, &uses)) return false;
  if (into_contraction(p)) return true; /* the consumer reads the compressed bytes */
  uint8_t flags = f->heavy_flags[sum->root];
  switch (heavy_flags(p)) {
  case HAS_CONTRACTION:
    return sum->same_root && sum->identity && p->output_count == 1 && flags == 0 &&
           f->beside[sum->root] <= FUSE_BESIDE_PRODUCT;
  case HAS_REDUCTION: /* several, as in a normalisation, each computed once */
    if (!sum->identity && !plain_output(f, sum->root)) return false;
    if (too_serial(f, p, sum)) return false;
    return sum->same_root && sum->prefix && p->output_count == 1 && !(flags & HAS_CONTRACTION);
  default:
    break;
  }
  bool continues = continues_heavy(f, p, FUSE_EPILOGUE_DEPTH);
  if (!sum->identity && continues) return false;
  if (!continues && (flags & HAS_CONTRACTION) &&
      f->beside[sum->root] + copied_cost(f->m, p) > FUSE_BESIDE_PRODUCT)
    return false;
  if (sum->same_root && sum->prefix) return true; /* equal expressions are computed once */
  if (uses > FUSE_MAX_COPIES) return false;
  double elements = 0;
  for (uint32_t o = 0; o < p->output_count; o++)
    if (p->outputs[o] != 0) elements += (double)cmz_pass_hint_elements(f->m, p->outputs[o]);
  double limit = element_cost(p) <= 1 ? FUSE_CHEAP_RATIO : 1.01;
  return sum->evaluations <= limit * (elements < 1 ? 1 : elements);
}

static uint32_t input_loads(const cmz_node *n) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < n->input_count; i++) count += n->inputs[i] != 0;
  return count;
}

/* The threads of a kernel whose root N is: a reduction that keeps its input's shape has one a row.
 */
static double threads_of(const fuser *f, const cmz_node *n, double elements) {
  const cmz_type *t = n->outputs[0] ? type_of(f, n->outputs[0]) : NULL;
  int64_t extent;
  if (!(n->op->flags & CMZ_OP_REDUCTION) || !t || t->rank == 0 || n->inputs[0] == 0 ||
      !cmz_pass_same_shape(f->m, n->inputs[0], n->outputs[0]))
    return elements;
  int64_t axis = cmz_node_int(n, "axis", -1);
  if (axis < 0) axis += t->rank;
  if (axis < 0 || axis >= t->rank) return elements;
  return cmz_dim_hint(f->m->dims, t->shape[axis], &extent) && extent > 0 ? elements / (double)extent
                                                                         : elements;
}

static void make_root(fuser *f, cmz_nid n) {
  const cmz_node *node = cmz_node_get(f->m, n);
  double elements = 0;
  for (uint32_t o = 0; o < node->output_count; o++)
    if (node->outputs[o] != 0) elements += (double)cmz_pass_hint_elements(f->m, node->outputs[o]);
  uint32_t rank =
      node->output_count > 0 && node->outputs[0] != 0 ? type_of(f, node->outputs[0])->rank : 0;
  f->places[n] = (place){n, rank, true, true, false, elements};
  f->operands[n] = input_loads(node);
  f->heavy_flags[n] = heavy_flags(node);
  f->threads[n] =
      node->output_count > 0 && node->input_count > 0 ? threads_of(f, node, elements) : elements;
}

static void fuse_node(fuser *f, cmz_nid n, const use_summary *sum) {
  const cmz_node *node = cmz_node_get(f->m, n);
  for (uint32_t o = 0; o < node->output_count; o++)
    if (node->outputs[o] != 0) f->fused[node->outputs[o]] = true;
  f->places[n] =
      (place){sum->root, sum->aligned, sum->identity, true, !sum->same_root, sum->evaluations};
  uint32_t loads = input_loads(node);
  f->operands[sum->root] += loads > 0 ? loads - 1 : 0;
  f->heavy_flags[sum->root] |= heavy_flags(node);
  if (heavy_flags(node) == HAS_REDUCTION) f->threads[sum->root] = threads_with(f, node, sum);
  if (heavy_flags(node) == 0 && !continues_heavy(f, node, FUSE_EPILOGUE_DEPTH))
    f->beside[sum->root] += copied_cost(f->m, node);
}

static void fuse_graph(fuser *f, cmz_gid g) {
  for (uint32_t i = cmz_graph_get(f->m, g)->nodes.count; i-- > 0;) {
    cmz_nid n = cmz_graph_get(f->m, g)->nodes.data[i];
    const cmz_node *node = cmz_node_get(f->m, n);
    if (node->removed) continue;
    use_summary sum = {0};
    bool fits = may_fuse(f, n, &sum);
    uint32_t loads = input_loads(node);
    if (fits && loads > 1 && !into_contraction(node) &&
        f->operands[sum.root] + loads - 1 > FUSE_MAX_OPERANDS)
      fits = false;
    if (fits) fuse_node(f, n, &sum);
    else make_root(f, n);
  }
}

/* A fused view whose input turned out to be stored is an alias of it: no index arithmetic. */
static void unfuse_views(fuser *f, cmz_gid g) {
  const cmz_graph *graph = cmz_graph_get(f->m, g);
  for (uint32_t i = 0; i < graph->nodes.count; i++) {
    const cmz_node *node = cmz_node_get(f->m, graph->nodes.data[i]);
    if (node->removed || !cmz_fuse_is_alias(f->m, node) || f->fused[node->inputs[0]]) continue;
    f->fused[node->outputs[0]] = false;
  }
}

cmz_status cmz_pass_fuse(cmz_pass_run *run, cmz_module *m) {
  cmz_arena *arena = cmz_arena_create(m->ctx);
  fuser f = {.m = m, .device = run->target && run->target->gpu};
  cmz_status status = CMZ_OK;
  f.fused = CMZ_NEW_ARRAY(m->arena, bool, m->values.count);
  f.bound = CMZ_NEW_ARRAY(arena, bool, m->values.count);
  f.places = CMZ_NEW_ARRAY(arena, place, m->nodes.count);
  f.operands = CMZ_NEW_ARRAY(arena, uint32_t, m->nodes.count);
  f.heavy_flags = CMZ_NEW_ARRAY(arena, uint8_t, m->nodes.count);
  f.beside = CMZ_NEW_ARRAY(arena, double, m->nodes.count);
  f.threads = CMZ_NEW_ARRAY(arena, double, m->nodes.count);
  uint32_t symbols = cmz_dim_symbol_count(m->dims);
  for (uint32_t i = 0; i < symbols; i++) {
    const cmz_symbol *s = cmz_dim_symbol_at(m->dims, i);
    if (s->origin == CMZ_SYMBOL_DATA && s->value < m->values.count) f.bound[s->value] = true;
  }
  for (cmz_gid g = 1; g < m->graphs.count; g++) {
    if (!cmz_pass_graph_alive(m, g)) continue;
    fuse_graph(&f, g);
    unfuse_views(&f, g);
    if (status == CMZ_OK) status = cmz_fuse_attention(run, m, g, f.bound, f.fused);
  }
  run->fused = f.fused;
  cmz_arena_destroy(arena);
  return status;
}
