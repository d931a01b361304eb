/* ml_tree.c - TreeEnsembleRegressor, TreeEnsembleClassifier and TreeEnsemble of ai.onnx.ml.
 * In: rows of features; trees as lists in attributes. Out: cmz.TreeWalk nodes, which take every row
 * some levels down every tree, then a Gather of the leaves' votes and a reduction over the trees.
 * Always holds: tables are checked here once (no cycles, all ids known); a leaf leads to itself, so
 * walking on from one changes nothing. */
#include "ml.h"

#include <stdlib.h>

enum { LEQ, LT, GTE, GT, EQ, NEQ, MODE_COUNT, MEMBER = MODE_COUNT, LEAF };
static const char *const mode_names[] = {"BRANCH_LEQ", "BRANCH_LT",  "BRANCH_GTE",    "BRANCH_GT",
                                         "BRANCH_EQ",  "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF"};
/* Levels that one kernel walks: bounds the size of its expression. */
#define STEP_LEVELS 8
#define MAX_NODES (1 << 28)

typedef struct forest {
  cmz_module *m;
  cmz_nid n;
  uint32_t nodes, roots, targets;
  int32_t *feature, *next; /* next: [nodes][2], where false and true lead */
  double *split;
  uint8_t *mode, *missing; /* missing: a feature that is NaN counts as true */
  int32_t *root;
  double *votes; /* [nodes][targets] */
  uint8_t *voted;
  bool wide_split, wide_votes;
} forest;

static cmz_status broken(const forest *f, const char *what) {
  return cmz_node_fail(f->m, f->n, CMZ_E_INPUT, "%s", what);
}

/* Attribute NAME as integers; CMZ_E_INPUT unless it has COUNT of them. OPTIONAL: may be empty. */
static cmz_status integers(const forest *f, const char *name, size_t count, bool optional,
                           const int64_t **out) {
  uint32_t have;
  *out = cmz_node_ints(cmz_node_get(f->m, f->n), name, &have);
  if (optional && !have) *out = NULL;
  else if (have != count)
    return cmz_node_fail(f->m, f->n, CMZ_E_INPUT, "%s has %u entries instead of %zu", name, have,
                         count);
  return CMZ_OK;
}

static cmz_status allocate(forest *f, uint64_t nodes, uint32_t targets) {
  if (nodes == 0 || nodes > MAX_NODES || targets == 0 || nodes * targets > MAX_NODES)
    return broken(f, nodes && targets ? "the trees are too large" : "there are no trees");
  size_t count = (size_t)nodes;
  f->nodes = (uint32_t)nodes;
  f->targets = targets;
  f->feature = CMZ_NEW_ARRAY(f->m->arena, int32_t, count);
  f->next = CMZ_NEW_ARRAY(f->m->arena, int32_t, 2 * count);
  f->split = CMZ_NEW_ARRAY(f->m->arena, double, count);
  f->mode = CMZ_NEW_ARRAY(f->m->arena, uint8_t, count);
  f->missing = CMZ_NEW_ARRAY(f->m->arena, uint8_t, count);
  f->votes = CMZ_NEW_ARRAY(f->m->arena, double, count *targets);
  f->voted = CMZ_NEW_ARRAY(f->m->arena, uint8_t, count * targets);
  return CMZ_OK;
}

static cmz_status set_feature(forest *f, uint32_t at, int64_t feature) {
  const cmz_type *x = cmz_input_type(f->m, cmz_node_get(f->m, f->n), 0);
  int64_t have;
  if (feature < 0 || feature > INT32_MAX ||
      (cmz_dim_is_const(f->m->dims, x->shape[x->rank - 1], &have) && feature >= have))
    return cmz_node_fail(f->m, f->n, CMZ_E_INPUT, "feature %" PRId64 " is outside the input",
                         feature);
  f->feature[at] = (int32_t)feature;
  return CMZ_OK;
}

static void make_leaf(forest *f, uint32_t at) {
  f->mode[at] = LEAF;
  f->feature[at] = 0;
  f->next[2 * at] = f->next[2 * at + 1] = (int32_t)at;
}

/* The number of levels below the roots; UINT32_MAX when nodes lead back to themselves. */
static uint32_t depth_of(const forest *f) {
  uint32_t *parents = CMZ_NEW_ARRAY(f->m->arena, uint32_t, f->nodes),
           *depth = CMZ_NEW_ARRAY(f->m->arena, uint32_t, f->nodes),
           *ready = CMZ_NEW_ARRAY(f->m->arena, uint32_t, f->nodes), count = 0, deepest = 0;
  for (uint32_t i = 0; i < 2 * f->nodes; i++)
    if (f->mode[i / 2] != LEAF) parents[f->next[i]]++;
  for (uint32_t i = 0; i < f->nodes; i++)
    if (!parents[i]) ready[count++] = i;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t at = ready[i];
    deepest = CMZ_MAX(deepest, depth[at]);
    for (uint32_t side = 0; side < 2 && f->mode[at] != LEAF; side++) {
      uint32_t to = (uint32_t)f->next[2 * at + side];
      depth[to] = CMZ_MAX(depth[to], depth[at] + 1);
      if (!--parents[to]) ready[count++] = to;
    }
  }
  return count == f->nodes ? deepest : UINT32_MAX;
}

static void vote(forest *f, uint32_t leaf, uint32_t target, double weight, int64_t aggregate) {
  size_t at = (size_t)leaf * f->targets + target;
  double old = f->votes[at];
  bool first = !f->voted[at];
  if (first) f->votes[at] = weight;
  else if (aggregate >= 2) f->votes[at] = aggregate == 2 ? fmin(old, weight) : fmax(old, weight);
  else f->votes[at] = old + weight;
  f->voted[at] = 1;
}

/* ---- the lists of versions 1 to 3: nodes have a tree and a number in it ---- */

typedef struct numbered {
  int64_t tree, number;
  uint32_t at;
} numbered;

static int by_number(const void *a, const void *b) {
  const numbered *x = a, *y = b;
  if (x->tree != y->tree) return x->tree < y->tree ? -1 : 1;
  return x->number < y->number ? -1 : x->number > y->number;
}

static bool find_node(const forest *f, const numbered *order, int64_t tree, int64_t number,
                      uint32_t *out) {
  numbered key = {tree, number, 0};
  const numbered *found = bsearch(&key, order, f->nodes, sizeof key, by_number);
  if (found) *out = found->at;
  return found != NULL;
}

static cmz_status read_modes(forest *f) {
  const cmz_attr *names = cmz_node_attr(cmz_node_get(f->m, f->n), "nodes_modes");
  if (!names || names->kind != CMZ_ATTR_STRINGS || names->count != f->nodes)
    return broken(f, "nodes_modes has not one entry for each node");
  for (uint32_t i = 0; i < f->nodes; i++) {
    uint32_t k = 0;
    while (k <= LEAF && (k == MEMBER || strcmp(mode_names[k], names->strings[i]))) k++;
    if (k > LEAF) return cmz_node_fail(f->m, f->n, CMZ_E_INPUT, "mode \"%s\"", names->strings[i]);
    f->mode[i] = (uint8_t)k;
  }
  return CMZ_OK;
}

/* What leads from node to node. ORDER: the nodes by tree and number. */
static cmz_status read_edges(forest *f, const int64_t *trees, const numbered *order) {
  const int64_t *to[2], *features, *missing;
  CMZ_TRY(integers(f, "nodes_falsenodeids", f->nodes, false, &to[0]));
  CMZ_TRY(integers(f, "nodes_truenodeids", f->nodes, false, &to[1]));
  CMZ_TRY(integers(f, "nodes_featureids", f->nodes, false, &features));
  CMZ_TRY(integers(f, "nodes_missing_value_tracks_true", f->nodes, true, &missing));
  uint8_t *reached = CMZ_NEW_ARRAY(f->m->arena, uint8_t, f->nodes);
  for (uint32_t i = 0; i < f->nodes; i++) {
    if (f->mode[i] == LEAF) {
      make_leaf(f, i);
      continue;
    }
    CMZ_TRY(set_feature(f, i, features[i]));
    f->missing[i] = missing && missing[i] != 0;
    for (uint32_t side = 0; side < 2; side++) {
      uint32_t next;
      if (!find_node(f, order, trees[i], to[side][i], &next))
        return cmz_node_fail(f->m, f->n, CMZ_E_INPUT, "tree %" PRId64 " has no node %" PRId64,
                             trees[i], to[side][i]);
      f->next[2 * i + side] = (int32_t)next;
      reached[next] = 1;
    }
  }
  f->root = CMZ_NEW_ARRAY(f->m->arena, int32_t, f->nodes);
  for (uint32_t i = 0; i < f->nodes; i++) { /* ORDER has the nodes of each tree together */
    uint32_t at = order[i].at;
    if (reached[at]) continue;
    if (f->roots && trees[f->root[f->roots - 1]] == trees[at])
      return cmz_node_fail(f->m, f->n, CMZ_E_INPUT, "tree %" PRId64 " has several roots",
                           trees[at]);
    f->root[f->roots++] = (int32_t)at;
  }
  return f->roots ? CMZ_OK : broken(f, "the trees have no root");
}

/* PREFIX: "class" or "target". */
static cmz_status read_votes(forest *f, const char *prefix, const numbered *order,
                             int64_t aggregate) {
  cmz_arena *arena = f->m->arena;
  const int64_t *trees, *numbers, *ids;
  cmz_ml_list weights =
      cmz_ml_numbers(f->m, cmz_node_get(f->m, f->n), cmz_arena_printf(arena, "%s_weights", prefix));
  f->wide_votes = weights.wide;
  CMZ_TRY(integers(f, cmz_arena_printf(arena, "%s_treeids", prefix), weights.count, false, &trees));
  CMZ_TRY(
      integers(f, cmz_arena_printf(arena, "%s_nodeids", prefix), weights.count, false, &numbers));
  CMZ_TRY(integers(f, cmz_arena_printf(arena, "%s_ids", prefix), weights.count, false, &ids));
  for (size_t i = 0; i < weights.count; i++) {
    uint32_t leaf;
    if (!find_node(f, order, trees[i], numbers[i], &leaf) || ids[i] < 0 || ids[i] >= f->targets)
      return cmz_node_fail(f->m, f->n, CMZ_E_INPUT, "%s %zu has a node or an id that is not known",
                           prefix, i);
    vote(f, leaf, (uint32_t)ids[i], weights.values[i], aggregate);
  }
  return CMZ_OK;
}

static cmz_status read_numbered(forest *f, const char *prefix, uint32_t targets,
                                int64_t aggregate) {
  uint32_t count;
  const int64_t *trees = cmz_node_ints(cmz_node_get(f->m, f->n), "nodes_treeids", &count), *numbers;
  CMZ_TRY(allocate(f, count, targets));
  CMZ_TRY(integers(f, "nodes_nodeids", count, false, &numbers));
  cmz_ml_list values = cmz_ml_numbers(f->m, cmz_node_get(f->m, f->n), "nodes_values");
  if (values.count != count) return broken(f, "nodes_values has not one entry for each node");
  memcpy(f->split, values.values, count * sizeof *f->split);
  f->wide_split = values.wide;
  numbered *order = CMZ_NEW_ARRAY(f->m->arena, numbered, count);
  for (uint32_t i = 0; i < count; i++) order[i] = (numbered){trees[i], numbers[i], i};
  qsort(order, count, sizeof *order, by_number);
  for (uint32_t i = 1; i < count; i++)
    if (!by_number(&order[i - 1], &order[i])) return broken(f, "a node is given twice");
  CMZ_TRY(read_modes(f));
  CMZ_TRY(read_edges(f, trees, order));
  return read_votes(f, prefix, order, aggregate);
}

/* ---- the lists of version 5: nodes, then leaves ---- */

/* Where each node's set of members begins and ends among VALUES; NaN stands between sets. */
static cmz_status read_sets(const forest *f, const uint8_t *modes, uint32_t count,
                            cmz_ml_list values, uint32_t *begin, uint32_t *end, uint64_t *extra) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (modes[i] != MEMBER) continue;
    begin[i] = at;
    while (at < values.count && !isnan(values.values[at])) at++;
    end[i] = at;
    if (at == begin[i]) return broken(f, "a BRANCH_MEMBER node has no members");
    at += at < values.count;
    *extra += end[i] - begin[i] - 1;
  }
  return CMZ_OK;
}

/* A node that asks for membership becomes a chain of nodes that compare, the first in its place. */
static void chain_members(forest *f, uint32_t at, const double *members, uint32_t count,
                          uint32_t *unused) {
  int32_t no = f->next[2 * at], yes = f->next[2 * at + 1];
  for (uint32_t i = 0, here = at; i < count; i++) {
    uint32_t then = i + 1 < count ? (*unused)++ : (uint32_t)no;
    f->mode[here] = EQ;
    f->feature[here] = f->feature[at];
    f->missing[here] = f->missing[at];
    f->split[here] = members[i];
    f->next[2 * here] = (int32_t)then;
    f->next[2 * here + 1] = yes;
    here = then;
  }
}

static cmz_status read_v5_nodes(forest *f, uint32_t count, const uint8_t *modes,
                                cmz_ml_list splits) {
  const int64_t *to[2], *is_leaf[2], *features, *missing;
  CMZ_TRY(integers(f, "nodes_falsenodeids", count, false, &to[0]));
  CMZ_TRY(integers(f, "nodes_truenodeids", count, false, &to[1]));
  CMZ_TRY(integers(f, "nodes_falseleafs", count, false, &is_leaf[0]));
  CMZ_TRY(integers(f, "nodes_trueleafs", count, false, &is_leaf[1]));
  CMZ_TRY(integers(f, "nodes_featureids", count, false, &features));
  CMZ_TRY(integers(f, "nodes_missing_value_tracks_true", count, true, &missing));
  uint32_t leaves;
  cmz_node_ints(cmz_node_get(f->m, f->n), "leaf_targetids", &leaves);
  for (uint32_t i = 0; i < count; i++) {
    f->mode[i] = modes[i];
    f->split[i] = splits.values[i];
    f->missing[i] = missing && missing[i] != 0;
    CMZ_TRY(set_feature(f, i, features[i]));
    for (uint32_t side = 0; side < 2; side++) {
      int64_t next = to[side][i], limit = is_leaf[side][i] ? leaves : count;
      if (next < 0 || next >= limit) return broken(f, "a node leads to one that does not exist");
      f->next[2 * i + side] = (int32_t)(next + (is_leaf[side][i] ? (int64_t)count : 0));
    }
  }
  return CMZ_OK;
}

static cmz_status read_v5_leaves(forest *f, uint32_t first, int64_t aggregate) {
  const cmz_node *node = cmz_node_get(f->m, f->n);
  uint32_t leaves, roots;
  const int64_t *targets = cmz_node_ints(node, "leaf_targetids", &leaves),
                *root = cmz_node_ints(node, "tree_roots", &roots);
  cmz_ml_list weights = cmz_ml_numbers(f->m, node, "leaf_weights");
  if (weights.count != leaves) return broken(f, "leaf_weights has not one entry for each leaf");
  f->wide_votes = weights.wide;
  for (uint32_t i = 0; i < leaves; i++) {
    make_leaf(f, first + i);
    if (targets[i] < 0 || targets[i] >= f->targets) return broken(f, "a leaf's target is unknown");
    vote(f, first + i, (uint32_t)targets[i], weights.values[i], aggregate);
  }
  f->root = CMZ_NEW_ARRAY(f->m->arena, int32_t, roots + 1);
  f->roots = roots;
  for (uint32_t i = 0; i < roots; i++) {
    if (root[i] < 0 || root[i] >= first) return broken(f, "a root does not exist");
    f->root[i] = (int32_t)root[i];
  }
  return roots ? CMZ_OK : broken(f, "the trees have no root");
}

static cmz_status read_v5(forest *f, uint32_t targets, int64_t aggregate) {
  const cmz_node *node = cmz_node_get(f->m, f->n);
  cmz_ml_list modes = cmz_ml_numbers(f->m, node, "nodes_modes"),
              splits = cmz_ml_numbers(f->m, node, "nodes_splits"),
              members = cmz_ml_numbers(f->m, node, "membership_values");
  uint32_t count = (uint32_t)modes.count, leaves;
  cmz_node_ints(node, "leaf_targetids", &leaves);
  if (modes.count != splits.count || modes.count > MAX_NODES)
    return broken(f, "nodes_splits has not one entry for each node");
  uint8_t *mode = CMZ_NEW_ARRAY(f->m->arena, uint8_t, modes.count);
  for (uint32_t i = 0; i < count; i++) {
    if (!(modes.values[i] >= LEQ && modes.values[i] <= MEMBER))
      return broken(f, "nodes_modes has a mode that is not known");
    mode[i] = (uint8_t)modes.values[i];
  }
  uint32_t *begin = CMZ_NEW_ARRAY(f->m->arena, uint32_t, modes.count),
           *end = CMZ_NEW_ARRAY(f->m->arena, uint32_t, modes.count);
  uint64_t extra = 0;
  CMZ_TRY(read_sets(f, mode, count, members, begin, end, &extra));
  CMZ_TRY(allocate(f, (uint64_t)count + leaves + extra, targets));
  f->wide_split = splits.wide;
  CMZ_TRY(read_v5_nodes(f, count, mode, splits));
  CMZ_TRY(read_v5_leaves(f, count, aggregate));
  uint32_t unused = count + leaves;
  for (uint32_t i = 0; i < count; i++)
    if (mode[i] == MEMBER)
      chain_members(f, i, members.values + begin[i], end[i] - begin[i], &unused);
  return CMZ_OK;
}

/* ---- building ---- */

static cmz_vid table(const forest *f, cmz_dtype type, uint32_t rank, const int64_t *shape,
                     const void *data) {
  size_t bytes = cmz_dtype_info(type)->bits / 8;
  for (uint32_t i = 0; i < rank; i++) bytes *= (size_t)shape[i];
  cmz_gid g = cmz_node_get(f->m, f->n)->graph;
  return cmz_value_add_constant(f->m, g, NULL, type, rank,
                                cmz_arena_copy(f->m->arena, shape, rank * sizeof *shape), data,
                                bytes);
}

/* The leaf that each row of X comes to in each tree: [rows, trees]. */
static cmz_vid walk(const forest *f, cmz_vid x, cmz_dtype type, uint32_t depth) {
  int64_t nodes = f->nodes, roots = f->roots, edges[2] = {nodes, 2};
  int first = MODE_COUNT;
  bool mixed = false, missing = false;
  uint8_t *modes = CMZ_NEW_ARRAY(f->m->arena, uint8_t, f->nodes);
  for (uint32_t i = 0; i < f->nodes; i++) {
    if (f->mode[i] == LEAF) continue;
    modes[i] = f->mode[i];
    if (first == MODE_COUNT) first = f->mode[i];
    mixed = mixed || f->mode[i] != first;
    missing = missing || f->missing[i];
  }
  cmz_vid inputs[7] = {x,
                       table(f, CMZ_I32, 1, &roots, f->root),
                       table(f, CMZ_I32, 1, &nodes, f->feature),
                       cmz_build_floats(f->m, f->n, type, 1, &nodes, f->split),
                       table(f, CMZ_I32, 2, edges, f->next),
                       mixed ? table(f, CMZ_U8, 1, &nodes, modes) : 0,
                       missing ? table(f, CMZ_U8, 1, &nodes, f->missing) : 0};
  uint32_t left = CMZ_MAX(depth, 1u);
  do {
    uint32_t levels = CMZ_MIN(left, (uint32_t)STEP_LEVELS);
    cmz_attr attrs[2] = {cmz_attr_int("levels", levels),
                         cmz_attr_int("mode", first == MODE_COUNT ? LEQ : first)};
    inputs[1] = cmz_build_with(f->m, f->n, "TreeWalk",
                               missing ? 7
                               : mixed ? 6
                                       : 5,
                               inputs, 2, attrs);
    left -= levels;
  } while (left && inputs[1]);
  return inputs[1];
}

/* The votes of all trees: [rows, targets]. AGGREGATE: 0 mean, 1 sum, 2 smallest, 3 largest. */
static cmz_vid votes_of(forest *f, int64_t aggregate) {
  static const char *const reductions[] = {"ReduceSum", "ReduceSum", "ReduceMin", "ReduceMax"};
  cmz_module *m = f->m;
  uint32_t depth = depth_of(f);
  if (depth == UINT32_MAX) return broken(f, "a tree leads back to itself"), 0;
  cmz_dtype x = cmz_input_type(m, cmz_node_get(m, f->n), 0)->dtype,
            type = f->wide_split || x == CMZ_F64 ? CMZ_F64 : CMZ_F32;
  int64_t shape[2] = {f->nodes, f->targets}, over_trees = 1;
  bool gaps = false; /* leaves are no vote for some targets */
  for (size_t i = 0; i < (size_t)f->nodes * f->targets && aggregate >= 2; i++) {
    if (f->voted[i] || f->mode[i / f->targets] != LEAF) continue;
    f->votes[i] = aggregate == 2 ? INFINITY : -INFINITY;
    gaps = true;
  }
  cmz_vid leaves = walk(f, cmz_ml_rows(m, f->n, type), type, depth);
  cmz_dtype votes = f->wide_votes ? CMZ_F64 : CMZ_F32;
  cmz_vid y =
      cmz_build2(m, f->n, "Gather", cmz_build_floats(m, f->n, votes, 2, shape, f->votes), leaves);
  y = cmz_build_reduce(m, f->n, reductions[aggregate], y, &over_trees, 1, false);
  if (gaps)
    y = cmz_build3(m, f->n, "Where", cmz_build1(m, f->n, "IsInf", y),
                   y ? cmz_build_scalar_like(m, f->n, y, 0) : 0, y);
  return aggregate ? y : cmz_ml_by(m, f->n, "Div", y, f->roots);
}

/* Y + base_values, of which there are none, one or COUNT. */
static cmz_vid add_base(const forest *f, cmz_vid y, int64_t count) {
  cmz_ml_list base = cmz_ml_numbers(f->m, cmz_node_get(f->m, f->n), "base_values");
  if (!base.count || !y) return y;
  if (base.count != 1 && base.count != (size_t)count)
    return broken(f, "base_values has not one entry for each target"), 0;
  int64_t shape = (int64_t)base.count;
  return cmz_build2(
      f->m, f->n, "Add", y,
      cmz_build_floats(f->m, f->n, cmz_ops_type(f->m, y)->dtype, 1, &shape, base.values));
}

/* ---- the operators ---- */

static int64_t aggregate_of(const cmz_node *n) {
  static const char *const names[] = {"AVERAGE", "SUM", "MIN", "MAX"};
  const char *name = cmz_node_string(n, "aggregate_function", "SUM");
  for (int64_t i = 0; i < 4; i++)
    if (!strcmp(names[i], name)) return i;
  return -1;
}

/* The result is one row of n_targets numbers of TYPE for each row. */
static cmz_status infer_targets(cmz_module *m, cmz_nid n, cmz_dtype type) {
  int64_t targets = cmz_node_int(cmz_node_get(m, n), "n_targets", 1);
  cmz_dim shape[2];
  CMZ_TRY(cmz_ml_row_count(m, n, &shape[0]));
  if (targets < 1 || targets > MAX_NODES)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "n_targets is %" PRId64, targets);
  shape[1] = cmz_dim_const(m->dims, targets);
  cmz_set_output(m, n, 0, type, 2, shape);
  return CMZ_OK;
}

static cmz_status infer_regressor(cmz_module *m, cmz_nid n) {
  if (aggregate_of(cmz_node_get(m, n)) < 0)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "aggregate_function is not known");
  CMZ_TRY(cmz_ml_check_transform(m, n));
  return infer_targets(m, n, CMZ_F32);
}

static cmz_status finish(const forest *f, cmz_vid y, const char *transform) {
  y = cmz_ml_transform(f->m, f->n, y, transform);
  y = cmz_build_cast(f->m, f->n, y, cmz_ops_type(f->m, cmz_ops_output(f->m, f->n, 0))->dtype);
  if (!y) return CMZ_E_INPUT;
  cmz_build_finish(f->m, f->n, y);
  return CMZ_OK;
}

static cmz_status expand_regressor(cmz_module *m, cmz_nid n) {
  forest f = {.m = m, .n = n};
  const cmz_node *node = cmz_node_get(m, n);
  int64_t targets = cmz_node_int(node, "n_targets", 1), aggregate = aggregate_of(node);
  CMZ_TRY(read_numbered(&f, "target", (uint32_t)targets, aggregate));
  cmz_vid y = add_base(&f, votes_of(&f, aggregate), targets);
  return finish(&f, y, cmz_node_string(cmz_node_get(m, n), "post_transform", "NONE"));
}

static cmz_status infer_ensemble(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  int64_t aggregate = cmz_node_int(node, "aggregate_function", 1),
          transform = cmz_node_int(node, "post_transform", 0);
  if (aggregate < 0 || aggregate > 3 || transform < 0 || transform > 4)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "aggregate_function or post_transform is not known");
  return infer_targets(m, n, cmz_input_type(m, node, 0)->dtype);
}

static cmz_status expand_ensemble(cmz_module *m, cmz_nid n) {
  static const char *const transforms[] = {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"};
  forest f = {.m = m, .n = n};
  const cmz_node *node = cmz_node_get(m, n);
  int64_t aggregate = cmz_node_int(node, "aggregate_function", 1),
          transform = cmz_node_int(node, "post_transform", 0);
  CMZ_TRY(read_v5(&f, (uint32_t)cmz_node_int(node, "n_targets", 1), aggregate));
  return finish(&f, votes_of(&f, aggregate), transforms[transform]);
}

#define CLASSES "classlabels_int64s"

static cmz_status infer_classifier(cmz_module *m, cmz_nid n) {
  uint32_t classes = cmz_ml_class_count(cmz_node_get(m, n), CLASSES);
  if (classes == 1) return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "a single class label");
  return cmz_ml_infer_classes(m, n, CLASSES, classes);
}

/* Trees that vote for one of two classes only: its score S stands beside the other's, which is 1 -
 * S for probabilities and -S for what may be negative or is transformed. */
static cmz_vid both_scores(const forest *f, cmz_vid s, bool probability) {
  cmz_module *m = f->m;
  cmz_vid other = probability
                      ? cmz_build2(m, f->n, "Sub", s ? cmz_build_scalar_like(m, f->n, s, 1) : 0, s)
                      : cmz_build1(m, f->n, "Neg", s);
  cmz_attr axis = cmz_attr_int("axis", 1);
  return s && other ? cmz_build_with(m, f->n, "Concat", 2, (cmz_vid[]){other, s}, 1, &axis) : 0;
}

static cmz_status expand_classifier(cmz_module *m, cmz_nid n) {
  forest f = {.m = m, .n = n};
  const cmz_node *node = cmz_node_get(m, n);
  const char *transform = cmz_node_string(node, "post_transform", "NONE");
  uint32_t classes = cmz_ml_class_count(node, CLASSES), voters;
  const int64_t *ids = cmz_node_ints(node, "class_ids", &voters);
  bool one = classes == 2, positive = true;
  for (uint32_t i = 1; i < voters; i++) one = one && ids[i] == ids[0];
  CMZ_TRY(read_numbered(&f, "class", classes, 1));
  if (one) { /* a table with a column for the class that there are votes for */
    f.targets = 1;
    for (uint32_t i = 0; i < f.nodes; i++) {
      f.votes[i] = f.votes[2 * (size_t)i + (size_t)(voters ? ids[0] : 0)];
      positive = positive && f.votes[i] >= 0;
    }
  }
  cmz_vid scores = add_base(&f, votes_of(&f, 1), f.targets);
  bool plain = !strcmp(transform, "NONE") || !strcmp(transform, "PROBIT");
  if (one) scores = both_scores(&f, scores, plain && positive);
  cmz_attr attrs[2] = {cmz_attr_int("axis", 1), cmz_attr_int("keepdims", 0)};
  cmz_vid best = scores ? cmz_build_with(m, n, "ArgMax", 1, &scores, 2, attrs) : 0;
  if (!best) return CMZ_E_INPUT;
  return cmz_ml_deliver_classes(m, n, CLASSES, best, cmz_ml_transform(m, n, scores, transform));
}

/* ---- cmz.TreeWalk: x [rows, features], where to begin ([trees] or [rows, trees]), then by node:
 * feature, split, next ([nodes, 2]), mode (absent: the attribute's), missing (absent: 0) ---- */

static cmz_status infer_walk(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0), at = *cmz_input_type(m, node, 1);
  if (x.rank != 2 || at.rank < 1 || at.rank > 2 || !cmz_value_constant(m, node->inputs[4]))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs rows, nodes and a constant table");
  cmz_dim shape[2] = {x.shape[0], at.shape[at.rank - 1]};
  cmz_set_output(m, n, 0, CMZ_I32, 2, shape);
  return CMZ_OK;
}

static cmz_expr compare(cmz_kernel *k, int64_t mode, cmz_expr x, cmz_expr split) {
  switch (mode) {
  case LEQ:
    return cmz_x2(k, CMZ_X_LE, x, split);
  case LT:
    return cmz_x2(k, CMZ_X_LT, x, split);
  case GTE:
    return cmz_x2(k, CMZ_X_LE, split, x);
  case GT:
    return cmz_x2(k, CMZ_X_LT, split, x);
  case EQ:
    return cmz_x2(k, CMZ_X_EQ, x, split);
  default:
    return cmz_x1(k, CMZ_X_NOT, cmz_x2(k, CMZ_X_EQ, x, split));
  }
}

/* Which way X goes at node AT. */
static cmz_expr decide(cmz_describe *d, const cmz_node *n, const cmz_expr *at, cmz_expr x) {
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_expr split = cmz_describe_input(d, 3, at), yes;
  if (!split) return 0;
  if (cmz_node_input(n, 5)) {
    cmz_expr mode = cmz_describe_input(d, 5, at);
    if (!mode) return 0;
    yes = compare(k, LEQ, x, split);
    for (int64_t i = LEQ + 1; i < MODE_COUNT; i++)
      yes = cmz_x_select(k, cmz_x2(k, CMZ_X_EQ, mode, cmz_x_like(k, mode, (double)i)),
                         compare(k, i, x, split), yes);
  } else {
    yes = compare(k, cmz_node_int(n, "mode", LEQ), x, split);
  }
  if (!cmz_node_input(n, 6)) return yes;
  cmz_expr missing = cmz_describe_input(d, 6, at);
  if (!missing) return 0;
  missing = cmz_x1(k, CMZ_X_NOT, cmz_x2(k, CMZ_X_EQ, missing, cmz_x_like(k, missing, 0)));
  return cmz_x2(k, CMZ_X_OR, yes, cmz_x2(k, CMZ_X_AND, cmz_x1(k, CMZ_X_IS_NAN, x), missing));
}

static cmz_expr describe_walk(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  (void)output;
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  cmz_dim features = cmz_input_type(m, n, 0)->shape[1];
  bool known = cmz_indices_known(m, n->inputs[2], features);
  cmz_expr at[2] = {cmz_describe_broadcast(d, 1, idx, 2), 0},
           extent = cmz_describe_dim(d, features);
  for (int64_t level = cmz_node_int(n, "levels", 1); level > 0 && at[0]; level--) {
    at[0] = cmz_x_cast(k, at[0], CMZ_I64);
    cmz_expr x[2] = {idx[0], cmz_describe_input(d, 2, at)};
    if (!x[1]) return 0;
    x[1] = cmz_x_wrap_index(k, x[1], extent, known);
    cmz_expr yes = cmz_describe_input(d, 0, x);
    if (!yes || !(yes = decide(d, n, at, yes))) return 0;
    at[1] = cmz_x_select(k, yes, cmz_x_index(k, 1), cmz_x_index(k, 0));
    at[0] = cmz_describe_input(d, 4, at);
  }
  return at[0];
}

static bool goes_true(const cmz_node *n, const cmz_array *inputs, int64_t at, double x) {
  int64_t mode = n->input_count > 5 && inputs[5].data ? cmz_get_int(&inputs[5], at)
                                                      : cmz_node_int(n, "mode", LEQ);
  double split = cmz_get(&inputs[3], at);
  if (isnan(x) && n->input_count > 6 && inputs[6].data && cmz_get_int(&inputs[6], at)) return true;
  const bool results[MODE_COUNT] = {x <= split, x<split, x >= split, x> split, x == split,
                                    x != split};
  return mode >= 0 && mode < MODE_COUNT && results[mode];
}

static cmz_status eval_walk(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  const cmz_array *x = &inputs[0], *begin = &inputs[1];
  int64_t trees = begin->shape[begin->rank - 1], features = x->shape[1];
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 2, (int64_t[]){x->shape[0], trees}));
  for (int64_t i = 0; i < x->shape[0] * trees; i++) {
    int64_t at = cmz_get_int(begin, begin->rank == 2 ? i : i % trees);
    for (int64_t level = cmz_node_int(n, "levels", 1); level > 0; level--) {
      int64_t feature = CMZ_MIN(cmz_get_int(&inputs[2], at), features - 1);
      bool yes = goes_true(n, inputs, at, cmz_get(x, i / trees * features + feature));
      at = cmz_get_int(&inputs[4], 2 * at + yes);
    }
    cmz_set_int(&outputs[0], i, at);
  }
  return CMZ_OK;
}

#define NODES                                                                                      \
  "nodes_falsenodeids:I nodes_featureids:I nodes_hitrates:F nodes_hitrates_as_tensor:t@3 "         \
  "nodes_missing_value_tracks_true:I nodes_modes:S nodes_nodeids:I nodes_treeids:I "               \
  "nodes_truenodeids:I nodes_values:F nodes_values_as_tensor:t@3 base_values:F "                   \
  "base_values_as_tensor:t@3 post_transform:s "
#define TREES(NAME, OUTPUTS, SINCE, FUNCTION, ATTRIBUTES)                                          \
  {                                                                                                \
    .domain = "ai.onnx.ml", .name = NAME, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,      \
    .max_outputs = OUTPUTS, .since = SINCE, .infer = infer_##FUNCTION,                             \
    .expand = expand_##FUNCTION, .attributes = ATTRIBUTES                                          \
  }

const cmz_op cmz_ops_ml_tree[] = {
    TREES("TreeEnsembleRegressor", 1, 1, regressor,
          NODES "aggregate_function:s n_targets:i target_ids:I target_nodeids:I target_treeids:I "
                "target_weights:F target_weights_as_tensor:t@3"),
    TREES("TreeEnsembleClassifier", 2, 1, classifier,
          NODES "class_ids:I class_nodeids:I class_treeids:I class_weights:F "
                "class_weights_as_tensor:t@3 classlabels_int64s:I classlabels_strings:S"),
    TREES("TreeEnsemble", 1, 5, ensemble,
          "aggregate_function:i leaf_targetids:I! leaf_weights:t! membership_values:t n_targets:i "
          "nodes_falseleafs:I! nodes_falsenodeids:I! nodes_featureids:I! nodes_hitrates:t "
          "nodes_missing_value_tracks_true:I nodes_modes:t! nodes_splits:t! nodes_trueleafs:I! "
          "nodes_truenodeids:I! post_transform:i tree_roots:I!"),
    {.domain = "cmz",
     .name = "TreeWalk",
     .min_inputs = 5,
     .max_inputs = 7,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .infer = infer_walk,
     .eval = eval_walk,
     .describe = describe_walk,
     .attributes = "levels:i mode:i"},
    {.name = NULL},
};
