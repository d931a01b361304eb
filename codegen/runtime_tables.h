/* runtime_tables.h - the runtime's program.h and ops.h for files that also see the module: the
 * public header's cmz_value is not the module's, so here it has another name. */
#ifndef CMZ_CODEGEN_RUNTIME_TABLES_H
#define CMZ_CODEGEN_RUNTIME_TABLES_H

#define cmz_value cmz_public_value
#include "../runtime/ops.h"
#include "../runtime/program.h"
#undef cmz_value

#endif
