/* fuse.c - decides which values are never stored but computed inside their consumers' kernels.
 * In: an expanded, laid-out module. Out: run->fused by value id. Nothing is rewritten: describing a
 * kernel substitutes the expressions of fused producers. Always holds: a fused value has consumers
 * in its own graph only, and every consumer is described by an expression. A contraction or
 * reduction is computed once per output element of its kernel. */
#include "fuse.h"

#define FUSE_MAX_OPERANDS 12 /* loads of one kernel, beyond what its own root needs */
#define FUSE_MAX_COPIES 3    /* kernels into which one cheap value is computed again */
#define FUSE_CHEAP_RATIO 4.0 /* how often a cheap element may be computed again */

/* What the node's kernel looks like from outside. */
typedef struct place {
  cmz_nid root;  /* the kernel in which the node is computed */
  bool identity; /* its elements are the kernel's elements: same coordinates, each once */
  bool decided;
  double evaluations; /* of output elements, over the whole kernel */
} place;

typedef struct fuser {
  cmz_module *m;
  bool *fused;
  bool *bound; /* values whose content a symbol stands for: stored */
  place *places;
  uint32_t *operands;   /* by root: loads so far */
  cmz_nid *contraction; /* by root: the contraction or reduction inside, or 0 */
} fuser;

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

static bool heavy(const cmz_node *n) {
  return (n->op->flags & (CMZ_OP_REDUCTION | CMZ_OP_CONTRACTION)) != 0;
}

/* How often N reads an element of its inputs while each output element is computed once. */
static double reads_per_element(const fuser *f, const cmz_node *n, uint32_t input) {
  if (n->op->flags & CMZ_OP_CONTRACTION) return 1e9;
  if (!(n->op->flags & CMZ_OP_REDUCTION)) return 1;
  uint32_t count;
  const int64_t *window = cmz_node_ints(n, "kernel_shape", &count);
  double reads = 1;
  if (window != NULL) {
    double in = (double)cmz_pass_hint_elements(f->m, n->inputs[input]);
    double out = (double)cmz_pass_hint_elements(f->m, n->outputs[0]);
    for (uint32_t i = 0; i < count; i++) reads *= (double)window[i];
    return reads * out / (in > 0 ? in : 1);
  }
  /* A reduction that keeps its input's shape (softmax, normalisation) reads it more than once. */
  return cmz_pass_same_shape(f->m, n->inputs[input], n->outputs[0]) ? 3 : 1;
}

/* Moving data of the vector axis costs a contraction more than a copy made beforehand. */
static bool into_contraction(const fuser *f, const cmz_node *p) {
  if (p->op->domain[0] != '\0' && strcmp(p->op->name, "Decode") == 0) return true;
  (void)f;
  return false;
}

typedef struct use_summary {
  double evaluations;
  cmz_nid root;
  bool identity, same_root;
} use_summary;

/* Whether output V of P may be computed inside consumer USE, and how often. */
static bool check_use(fuser *f, const cmz_node *p, cmz_vid v, cmz_use use, use_summary *sum) {
  const cmz_node *c = cmz_node_get(f->m, use.node);
  if (c->graph != p->graph || !cmz_fuse_is_kernel(c) || c->op->describe == NULL) return false;
  if (c->op->describe_kernel != NULL) return false;
  const place *at = &f->places[use.node];
  if (!at->decided) return false;
  if ((c->op->flags & CMZ_OP_CONTRACTION) && !into_contraction(f, p)) return false;
  /* A view that has no kernel of its own reads stored bytes. */
  if (at->root == use.node && cmz_fuse_is_alias(f->m, c)) return false;
  double produced = (double)cmz_pass_hint_elements(f->m, v);
  double consumed = (double)cmz_pass_hint_elements(f->m, c->outputs[0]);
  if (consumed < 1) consumed = 1;
  double scale = at->evaluations / consumed; /* recomputation of the consumer itself */
  double evaluations;
  bool pointwise = (c->op->flags & CMZ_OP_POINTWISE) != 0;
  if (heavy(c)) evaluations = produced * scale * reads_per_element(f, c, use.index);
  else if (c->op->flags & CMZ_OP_MOVEMENT)
    evaluations = CMZ_MIN(at->evaluations, produced * scale); /* a slice reads less than there is */
  else evaluations = at->evaluations;
  sum->evaluations += evaluations;
  bool identity = at->identity && pointwise && cmz_pass_same_shape(f->m, v, c->outputs[0]);
  if (sum->root == 0) {
    sum->root = at->root;
    sum->identity = identity;
  } else {
    sum->same_root &= sum->root == at->root;
    sum->identity &= identity;
  }
  return true;
}

static bool may_fuse(fuser *f, cmz_nid n, use_summary *sum) {
  const cmz_node *p = cmz_node_get(f->m, n);
  if (!cmz_fuse_is_kernel(p) || p->op->describe == NULL || p->op->describe_kernel != NULL)
    return false;
  if (p->op->flags & CMZ_OP_RANDOM) return false;
  *sum = (use_summary){.same_root = true};
  uint32_t uses = 0;
  for (uint32_t o = 0; o < p->output_count; o++) {
    cmz_vid v = p->outputs[o];
    if (v == 0) continue;
    const cmz_value *value = cmz_value_get(f->m, v);
    if (value->output_uses > 0 || f->bound[v] || value->type.dtype == CMZ_STRING) return false;
    for (uint32_t i = 0; i < value->uses.count; i++, uses++)
      if (!check_use(f, p, v, value->uses.data[i], sum)) return false;
  }
  if (uses == 0) return false;
  if (heavy(p)) {
    /* One contraction or reduction a kernel, computed once an element. */
    return sum->same_root && sum->identity && p->output_count == 1 &&
           f->contraction[sum->root] == 0;
  }
  double elements = 0;
  for (uint32_t o = 0; o < p->output_count; o++)
    if (p->outputs[o] != 0) elements += (double)cmz_pass_hint_elements(f->m, p->outputs[o]);
  double ratio = sum->evaluations / (elements < 1 ? 1 : elements);
  if (uses > FUSE_MAX_COPIES && !(sum->same_root && sum->identity)) return false;
  /* Several uses at one place are one computation: expressions are hash-consed. */
  if (sum->same_root && sum->identity) ratio = 1;
  double limit = element_cost(p) <= 1 ? FUSE_CHEAP_RATIO : 1.01;
  return ratio <= limit;
}

static uint32_t input_loads(const cmz_node *n) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < n->input_count; i++) count += n->inputs[i] != 0;
  return count;
}

static void make_root(fuser *f, cmz_nid n) {
  const cmz_node *node = cmz_node_get(f->m, n);
  double elements = 0;
  for (uint32_t o = 0; o < node->output_count; o++)
    if (node->outputs[o] != 0) elements += (double)cmz_pass_hint_elements(f->m, node->outputs[o]);
  f->places[n] = (place){.root = n, .identity = true, .decided = true, .evaluations = elements};
  f->operands[n] = input_loads(node);
  if (heavy(node)) f->contraction[n] = n;
}

static void fuse_node(fuser *f, cmz_nid n, const use_summary *sum) {
  const cmz_node *node = cmz_node_get(f->m, n);
  for (uint32_t o = 0; o < node->output_count; o++)
    if (node->outputs[o] != 0) f->fused[node->outputs[o]] = true;
  f->places[n] = (place){.root = sum->root,
                         .identity = sum->identity,
                         .decided = true,
                         .evaluations = sum->evaluations};
  f->operands[sum->root] += input_loads(node) - 1;
  if (heavy(node)) f->contraction[sum->root] = n;
}

static void fuse_graph(fuser *f, cmz_gid g) {
  for (uint32_t i = cmz_graph_get(f->m, g)->nodes.count; i-- > 0;) {
    cmz_nid n = cmz_graph_get(f->m, g)->nodes.data[i];
    const cmz_node *node = cmz_node_get(f->m, n);
    if (node->removed) continue;
    use_summary sum;
    bool fits = may_fuse(f, n, &sum);
    if (fits && !heavy(node) && input_loads(node) > 1 &&
        f->operands[sum.root] + input_loads(node) - 1 > FUSE_MAX_OPERANDS)
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
  fuser f = {.m = m};
  f.fused = CMZ_NEW_ARRAY(m->arena, bool, m->values.count);
  f.bound = CMZ_NEW_ARRAY(arena, bool, m->values.count);
  f.places = CMZ_NEW_ARRAY(arena, place, m->nodes.count);
  f.operands = CMZ_NEW_ARRAY(arena, uint32_t, m->nodes.count);
  f.contraction = CMZ_NEW_ARRAY(arena, cmz_nid, m->nodes.count);
  uint32_t symbols = cmz_dim_symbol_count(m->dims);
  for (uint32_t i = 0; i < symbols; i++) {
    const cmz_symbol *s = cmz_dim_symbol_at(m->dims, i);
    if (s->origin == CMZ_SYMBOL_DATA && s->value < m->values.count) f.bound[s->value] = true;
  }
  for (cmz_gid g = 1; g < m->graphs.count; g++) {
    if (!cmz_pass_graph_alive(m, g)) continue;
    fuse_graph(&f, g);
    unfuse_views(&f, g);
  }
  run->fused = f.fused;
  cmz_arena_destroy(arena);
  return CMZ_OK;
}
