/* infer.c - types and symbolic contents of every value of the module.
 * In: a normalised module. Out: every value has a rank and dims. An If whose condition is already
 * known here is decided at once: its other branch need not even have fitting types. Small constants
 * are evaluated on the way, so that fewer sizes are left to run time. */
#include "support.h"

#define EAGER_BYTES                                                                                \
  4096 /* what depends on constants only and is no larger becomes constant during inference */

static cmz_status infer_in_order(cmz_module *m, cmz_gid g);

/* Branches have no inputs: they can be inferred, and their own Ifs decided, before the If itself.
 */
static cmz_status infer_branches(cmz_module *m, cmz_nid n) {
  uint32_t count = cmz_node_get(m, n)->attr_count;
  for (uint32_t i = 0; i < count; i++) {
    const cmz_attr *a = &cmz_node_get(m, n)->attrs[i];
    if (a->kind == CMZ_ATTR_GRAPH) CMZ_TRY(infer_in_order(m, a->graph));
  }
  return CMZ_OK;
}

static cmz_status infer_one(cmz_module *m, cmz_nid n) {
  bool done = false;
  if (cmz_pass_is_op(cmz_node_get(m, n), "If")) {
    CMZ_TRY(cmz_pass_fold_if(m, n, &done));
    if (done) return CMZ_OK;
    CMZ_TRY(infer_branches(m, n));
    CMZ_TRY(cmz_pass_decide_if(m, n, &done));
    if (done) return CMZ_OK;
  }
  CMZ_TRY(cmz_infer_node(m, n));
  return cmz_pass_fold_node(m, n, EAGER_BYTES, &done);
}

static cmz_status infer_in_order(cmz_module *m, cmz_gid g) {
  cmz_status first = CMZ_OK;
  for (uint32_t i = 0; i < cmz_graph_get(m, g)->nodes.count; i++) {
    cmz_nid n = cmz_graph_get(m, g)->nodes.data[i];
    if (cmz_node_get(m, n)->removed) continue;
    cmz_status status = infer_one(m, n);
    if (status != CMZ_OK && first == CMZ_OK) first = status;
    if (cmz_node_get(m, n)->removed && cmz_graph_get(m, g)->nodes.data[i] != n)
      i--; /* a branch stands in its place */
  }
  return first;
}

cmz_status cmz_pass_infer(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  cmz_status first = CMZ_OK;
  for (uint32_t i = 0; i < m->entries.count; i++) {
    cmz_status status = infer_in_order(m, m->entries.data[i]);
    if (status != CMZ_OK && first == CMZ_OK) first = status;
  }
  return first;
}
