/* importers.h - one row a kind of input file: how it is recognised and read into a module.
 * Importers see ir/ alone. */
#ifndef CMZ_FRONTEND_IMPORTERS_H
#define CMZ_FRONTEND_IMPORTERS_H

#include "../ir/module.h"

/* Reads PATH into a new module: nodes as the file has them (older opsets' forms included), values
 * with the types that the file declares for inputs; constants as views of the mapped file. Reports
 * everything unsupported before failing. */
cmz_status cmz_onnx_import(cmz_context *ctx, const char *path, cmz_module **module);

#endif
