/* expand.c - composite operators become simpler ones, until only operators with a kernel
 * expression, control operators and the runtime's closed table are left. In: an inferred module.
 * Out: no node has `expand` left to do; new nodes are inferred. */
#include "support.h"

/* An expansion may make further composite nodes; a chain longer than this is a cycle of expansions.
 */
#define EXPAND_ROUNDS 16

cmz_status cmz_pass_expand(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  cmz_status first = CMZ_OK;
  uint32_t begin = 1;
  for (int round = 0; round < EXPAND_ROUNDS; round++) {
    uint32_t end = m->nodes.count;
    for (cmz_nid n = begin; n < end; n++) {
      cmz_node *node = cmz_node_get(m, n);
      if (node->removed || node->op->expand == NULL || !cmz_pass_graph_alive(m, node->graph))
        continue;
      cmz_status status = node->op->expand(m, n);
      if (status != CMZ_OK && first == CMZ_OK) first = status;
    }
    if (first != CMZ_OK || m->nodes.count == end) break;
    begin = end;
  }
  for (cmz_gid g = 1; g < m->graphs.count && first == CMZ_OK; g++)
    if (cmz_pass_graph_alive(m, g)) first = cmz_graph_sort(m, g);
  return first;
}
