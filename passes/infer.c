/* infer.c - types and symbolic contents of every value of the module.
 * In: a normalised module. Out: every value has a rank and dims. */
#include "support.h"

cmz_status cmz_pass_infer(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  cmz_status first = CMZ_OK;
  for (uint32_t i = 0; i < m->entries.count; i++) {
    cmz_status status = cmz_infer_graph(m, m->entries.data[i]);
    if (status != CMZ_OK && first == CMZ_OK) first = status;
  }
  return first;
}
