/* layout.c - chooses physical layouts of values. */
#include "support.h"

cmz_status cmz_pass_layout(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  (void)m;
  return CMZ_OK;
}
