/* fuse_attention.c - attention as one kernel: the product of probabilities and values takes in the
 * softmax and the product of queries and keys before it, so that no score is ever stored.
 * In: a graph with fusion decided, a GPU's levels. Out: `fused` of the
 * values in between. Always holds: it is done where the description that results is one that every
 * level's schedule computes by running maxima and sums; otherwise nothing changes. */
#include "fuse.h"

#define MOST_ON_PATH 24
#define DEEPEST 16

/* The values between the two products, that end up fused. */
typedef struct path {
  cmz_module *m;
  const bool *bound;
  bool *fused;
  cmz_nid product; /* of queries and keys */
  uint32_t count;
  cmz_vid added[MOST_ON_PATH];
} path;

/* Whether every reader of V is a kernel of its graph that is part of the same one: N, or what is
 * fused. */
static bool stays_inside(const path *p, cmz_vid v, cmz_nid n) {
  const cmz_value *value = cmz_value_get(p->m, v);
  if (value->output_uses > 0 || p->bound[v]) return false;
  for (uint32_t i = 0; i < value->uses.count; i++) {
    cmz_nid user = value->uses.data[i].node;
    const cmz_node *u = cmz_node_get(p->m, user);
    if (user != n && (u->output_count != 1 || !p->fused[u->outputs[0]])) return false;
  }
  return true;
}

static bool add(path *p, cmz_vid v) {
  if (p->fused[v]) return true;
  if (p->count == MOST_ON_PATH) return false;
  p->added[p->count++] = v;
  p->fused[v] = true;
  return true;
}

/* Marks what lies between V, read by N, and a product above it; false when there is none. */
static bool mark(path *p, cmz_vid v, cmz_nid n, uint32_t depth) {
  cmz_nid producer = v ? cmz_value_get(p->m, v)->producer : 0;
  if (!producer || depth == DEEPEST) return false;
  const cmz_node *node = cmz_node_get(p->m, producer);
  if (node->removed || node->graph != cmz_node_get(p->m, n)->graph || !cmz_fuse_is_kernel(node) ||
      !node->op->describe || node->op->describe_kernel || node->outputs[0] != v ||
      (node->op->flags & CMZ_OP_RANDOM))
    return false;
  for (uint32_t i = 1; i < node->output_count; i++)
    if (node->outputs[i]) return false;
  bool product = (node->op->flags & CMZ_OP_CONTRACTION) != 0, found = product;
  if (!product && !(node->op->flags & (CMZ_OP_POINTWISE | CMZ_OP_REDUCTION | CMZ_OP_VIEW)))
    return false;
  uint32_t before = p->count;
  if (!add(p, v)) return false;
  if (product) p->product = producer;
  for (uint32_t i = 0; i < node->input_count && !product; i++)
    found |= mark(p, node->inputs[i], producer, depth + 1);
  if (found && stays_inside(p, v, n)) return true;
  while (p->count > before) p->fused[p->added[--p->count]] = false;
  return false;
}

/* The root of the kernel that N is part of. */
static cmz_nid root_of(const path *p, cmz_nid n) {
  for (uint32_t depth = 0; depth < 64; depth++) {
    const cmz_node *node = cmz_node_get(p->m, n);
    if (node->output_count == 0 || !node->outputs[0] || !p->fused[node->outputs[0]]) return n;
    const cmz_value *v = cmz_value_get(p->m, node->outputs[0]);
    if (v->uses.count != 1) return 0;
    n = v->uses.data[0].node;
  }
  return 0;
}

/* Whether the kernel at ROOT is attention that all levels compute as such. */
static cmz_status is_computed(const cmz_pass_run *run, path *p, cmz_nid root, bool *yes) {
  cmz_arena *arena = cmz_arena_create(p->m->ctx);
  cmz_described d = {0};
  cmz_attention a;
  cmz_status status = cmz_describe_node(p->m, root, p->fused, arena, &d);
  *yes = false;
  if (status == CMZ_OK) {
    cmz_kernel_merge_axes(d.kernel);
    *yes = cmz_kernel_attention(d.kernel, &a);
  }
  for (uint32_t l = 0; l < run->target->level_count && *yes && status == CMZ_OK; l++) {
    cmz_schedule s;
    status = cmz_schedule_choose_device(p->m->ctx, arena, d.kernel, run->target->levels[l],
                                        run->tf32, false, &s);
    *yes = s.step != 0;
  }
  cmz_arena_destroy(arena);
  return status;
}

/* Values that a Transpose was the last step of, stored again so that it moves what is stored. */
typedef struct freed {
  uint32_t count;
  cmz_vid values[DEEPEST];
} freed;

/* Stores V, or what it is a view of. */
static void store(path *p, cmz_vid v, freed *out) {
  while (p->fused[v] && out->count < DEEPEST) {
    const cmz_node *node = cmz_node_get(p->m, cmz_value_get(p->m, v)->producer);
    out->values[out->count++] = v;
    p->fused[v] = false;
    if (!cmz_fuse_is_alias(p->m, node)) return;
    v = node->inputs[0];
  }
}

/* What a Transpose only moves before it is multiplied by N is index arithmetic of ROOT's kernel:
 * what makes it is stored as it comes, with a head's elements side by side. */
static cmz_status absorb_movement(const cmz_pass_run *run, path *p, cmz_nid n, cmz_nid root) {
  for (uint32_t i = 0; i < cmz_node_get(p->m, n)->input_count; i++) {
    cmz_vid v = cmz_node_get(p->m, n)->inputs[i];
    cmz_nid producer = v ? cmz_pass_producer(p->m, v, "Transpose") : 0;
    bool yes = false;
    freed stored = {0};
    if (!producer || p->fused[v] ||
        cmz_node_get(p->m, producer)->graph != cmz_node_get(p->m, n)->graph ||
        !stays_inside(p, v, n))
      continue;
    p->fused[v] = true;
    store(p, cmz_node_get(p->m, producer)->inputs[0], &stored);
    CMZ_TRY(is_computed(run, p, root, &yes));
    p->fused[v] = yes;
    for (uint32_t j = 0; j < stored.count && !yes; j++) p->fused[stored.values[j]] = true;
  }
  return CMZ_OK;
}

static cmz_status fuse_one(const cmz_pass_run *run, path *p, cmz_nid n) {
  const cmz_node *node = cmz_node_get(p->m, n);
  bool yes = false;
  p->count = 0;
  for (uint32_t i = 0; i < node->input_count; i++) {
    if (mark(p, node->inputs[i], n, 0)) break;
  }
  cmz_nid root = p->count ? root_of(p, n) : 0;
  if (root) CMZ_TRY(is_computed(run, p, root, &yes));
  for (uint32_t i = 0; i < p->count && !yes; i++) p->fused[p->added[i]] = false;
  if (yes) CMZ_TRY(absorb_movement(run, p, n, root));
  return yes ? absorb_movement(run, p, p->product, root) : CMZ_OK;
}

cmz_status cmz_fuse_attention(const cmz_pass_run *run, cmz_module *m, cmz_gid g, const bool *bound,
                              bool *fused) {
  const cmz_graph *graph = cmz_graph_get(m, g);
  if (!run->target || run->target->level_count == 0) return CMZ_OK;
  for (uint32_t l = 0; l < run->target->level_count; l++)
    if (!run->target->levels[l]->threads) return CMZ_OK;
  for (uint32_t i = 0; i < graph->nodes.count; i++) {
    cmz_nid n = graph->nodes.data[i];
    const cmz_node *node = cmz_node_get(m, n);
    if (node->removed || !(node->op->flags & CMZ_OP_CONTRACTION)) continue;
    path p = {.m = m, .bound = bound, .fused = fused};
    CMZ_TRY(fuse_one(run, &p, n));
  }
  return CMZ_OK;
}
