/* normalize.c - brings nodes of older opsets to the newest form.
 * In: a module as imported. Out: every node in its operator's current form (opset 0). */
#include "support.h"

cmz_status cmz_pass_normalize(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  cmz_status first = CMZ_OK;
  uint32_t count = m->nodes.count; /* what normalisation adds is in the newest form already */
  for (cmz_nid n = 1; n < count; n++) {
    cmz_node *node = cmz_node_get(m, n);
    if (node->removed || node->op->normalize == NULL) continue;
    cmz_status status = node->op->normalize(m, n);
    /* All of a model's problems are reported in one run. */
    if (status != CMZ_OK && first == CMZ_OK) first = status;
  }
  for (cmz_nid n = 1; n < m->nodes.count; n++) cmz_node_get(m, n)->opset = 0;
  return first;
}
