/* llvm_write.h - an LLVM module to a file, with errors of the file system as errors (lower.c). */
#ifndef CMZ_CODEGEN_LLVM_WRITE_H
#define CMZ_CODEGEN_LLVM_WRITE_H

#include "../ir/base.h"
#include <llvm-c/TargetMachine.h>

/* Writes M's code as an object (or as assembly) to PATH. */
cmz_status cmz_lower_write(cmz_context *ctx, LLVMModuleRef m, LLVMTargetMachineRef machine,
                           bool assembly, const char *path);

#endif
