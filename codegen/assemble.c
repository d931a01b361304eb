/* assemble.c - objects from a few lines of assembly. In: the text, a system. Out: a relocatable
 * object. Always holds: the text is the compiler's own, never a model's. */
#include "internal.h"
#include "llvm_write.h"
#include "machine.h"

#include <llvm-c/Core.h>

cmz_status cmz_assemble(cmz_context *ctx, const cmz_os_row *os, const cmz_text *text,
                        const char *path) {
  const cmz_machine *row = cmz_machine_find(os);
  char *message = NULL;
  row->initialise();
  LLVMTargetMachineRef machine = cmz_machine_create(os, row->baseline_cpu, row->baseline_features,
                                                    LLVMCodeGenLevelDefault, &message);
  if (!machine) {
    cmz_status status =
        cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "LLVM: %s", message ? message : "");
    if (message) LLVMDisposeMessage(message);
    return status;
  }
  LLVMContextRef llvm = LLVMContextCreate();
  LLVMModuleRef module = LLVMModuleCreateWithNameInContext("cmz_assembly", llvm);
  cmz_machine_prepare(os, module, machine);
  LLVMSetModuleInlineAsm2(module, text->data, text->length);
  cmz_status status = cmz_lower_write(ctx, module, machine, false, path);
  LLVMDisposeModule(module);
  LLVMContextDispose(llvm);
  LLVMDisposeTargetMachine(machine);
  return status;
}
