/* compress.c - the compression pass: without a request it leaves the module alone. */
#include "../passes.h"

cmz_status cmz_pass_compress(cmz_pass_run *run, cmz_module *m) {
  if (run->compression == NULL) return CMZ_OK;
  return cmz_fail(m->ctx, CMZ_E_UNSUPPORTED, (cmz_loc){.file = m->file}, "compression is not built in");
}
