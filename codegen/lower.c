/* lower.c - from an MLIR module of arith, scf, vector and llvm operations to an object file.
 * In: a module with one function. Out: the file at PATH.
 * Always holds: the function carries the CPU level's features; no call to a library remains in the
 * object; LLVM's own loop transformations are off, because the emitter has already decided about
 * loops. */
#include "emit.h"
#include "llvm_write.h"
#include "machine.h"

#include <stdio.h>

#include "mlir-c/Diagnostics.h"
#include "mlir-c/Pass.h"
#include "mlir-c/RegisterEverything.h"
#include "mlir-c/Target/LLVMIR.h"
#include "llvm-c/Analysis.h"
#include "llvm-c/Comdat.h"
#include "llvm-c/Core.h"
#include "llvm-c/Target.h"
#include "llvm-c/TargetMachine.h"
#include "llvm-c/Transforms/PassBuilder.h"

#define LLVM_PTX_KERNEL 71 /* llvm::CallingConv::PTX_Kernel */

static MlirStringRef text(const char *s) { return mlirStringRefCreateFromCString(s); }

static void add_text(MlirStringRef s, void *user) { cmz_text_add_bytes(user, s.data, s.length); }

static MlirLogicalResult on_diagnostic(MlirDiagnostic d, void *user) {
  cmz_context *ctx = user;
  if (mlirDiagnosticGetSeverity(d) != MlirDiagnosticError) return mlirLogicalResultSuccess();
  cmz_text message = {.arena = ctx->arena};
  mlirDiagnosticPrint(d, add_text, &message);
  cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "MLIR: %s", message.data ? message.data : "");
  return mlirLogicalResultSuccess();
}

MlirContext cmz_lower_context(cmz_context *ctx) {
  static const char *const dialects[] = {"func", "arith", "scf",    "cf",   "vector", "llvm",
                                         "nvvm", "gpu",   "memref", "math", "spirv"};
  static bool registered; /* passes are registered per process; workers are single-threaded */
  if (!registered) {
    mlirRegisterAllPasses();
    registered = true;
  }
  MlirDialectRegistry registry = mlirDialectRegistryCreate();
  mlirRegisterAllDialects(registry);
  MlirContext mlir = mlirContextCreateWithRegistry(registry, false);
  mlirDialectRegistryDestroy(registry);
  mlirRegisterAllLLVMTranslations(mlir);
  for (size_t i = 0; i < CMZ_COUNT_OF(dialects); i++)
    mlirContextGetOrLoadDialect(mlir, text(dialects[i]));
  mlirContextAttachDiagnosticHandler(mlir, on_diagnostic, ctx, NULL);
  return mlir;
}

cmz_status cmz_lower_passes(cmz_context *ctx, MlirModule module, const char *pipeline) {
  cmz_text errors = {.arena = ctx->arena};
  MlirOperation top = mlirModuleGetOperation(module);
  MlirPassManager pm = mlirPassManagerCreate(mlirOperationGetContext(top));
  bool ok = mlirLogicalResultIsSuccess(mlirParsePassPipeline(mlirPassManagerGetAsOpPassManager(pm),
                                                             text(pipeline), add_text, &errors));
  mlirPassManagerEnableVerifier(pm, false); /* the module has been verified once, before */
  ok = ok && mlirLogicalResultIsSuccess(mlirPassManagerRunOnOp(pm, top));
  mlirPassManagerDestroy(pm);
  if (ok) return CMZ_OK;
  return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "MLIR's passes failed: %s",
                  errors.data ? errors.data : "");
}

static LLVMTargetMachineRef create_machine(cmz_context *ctx, const cmz_cpu_row *cpu,
                                           const cmz_os_row *os, int optimise) {
  cmz_machine_find(os)->initialise();
  char *error = NULL;
  LLVMTargetMachineRef machine =
      cmz_machine_create(os, cpu->llvm_cpu, cpu->llvm_features,
                         optimise > 0 ? LLVMCodeGenLevelAggressive : LLVMCodeGenLevelNone, &error);
  if (machine) return machine;
  cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "LLVM: %s", error ? error : "");
  if (error) LLVMDisposeMessage(error);
  return NULL;
}

static void add_attribute(LLVMModuleRef m, LLVMValueRef f, const char *key, const char *value) {
  if (!*value) return;
  LLVMAddAttributeAtIndex(f, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                          LLVMCreateStringAttribute(LLVMGetModuleContext(m), key,
                                                    (unsigned)strlen(key), value,
                                                    (unsigned)strlen(value)));
}

/* Outside of ELF nothing makes a kernel's name local when objects are joined: the same kernel in
 * two models of one program must be one, which it is because its name has the hash of what it does.
 */
static void prepare_member(LLVMModuleRef m, LLVMValueRef f, const cmz_os_row *os) {
  size_t length;
  const char *name = LLVMGetValueName2(f, &length);
  if (LLVMGetLinkage(f) != LLVMExternalLinkage) return;
  LLVMSetLinkage(f, LLVMWeakODRLinkage);
  LLVMSetVisibility(f, LLVMHiddenVisibility);
  if (os->format != CMZ_OBJECT_MACHO) LLVMSetComdat(f, LLVMGetOrInsertComdat(m, name));
  if (os->format == CMZ_OBJECT_COFF) { /* Windows walks the stack by tables of every function */
    unsigned kind = LLVMGetEnumAttributeKindForName("uwtable", 7);
    LLVMAddAttributeAtIndex(f, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(LLVMGetModuleContext(m), kind, 2));
  }
}

static void prepare(LLVMModuleRef m, LLVMTargetMachineRef machine, const cmz_cpu_row *cpu,
                    const cmz_os_row *os) {
  cmz_machine_prepare(os, m, machine);
  for (LLVMValueRef f = LLVMGetFirstFunction(m); f; f = LLVMGetNextFunction(f)) {
    if (LLVMIsDeclaration(f)) continue;
    add_attribute(m, f, "target-cpu", cpu->llvm_cpu);
    add_attribute(m, f, "target-features", cpu->llvm_features);
    if (cpu->vector_bytes >= 64) add_attribute(m, f, "prefer-vector-width", "512");
    add_attribute(m, f, "no-builtins", "true");
    /* Apple's platforms want a frame record in every function that calls. */
    add_attribute(m, f, "frame-pointer", os->format == CMZ_OBJECT_MACHO ? "non-leaf" : "none");
    if (os->format != CMZ_OBJECT_ELF) prepare_member(m, f, os);
    if (cpu->threads) { /* a GPU's entry point */
      LLVMSetFunctionCallConv(f, LLVM_PTX_KERNEL);
      char threads[16];
      snprintf(threads, sizeof threads, "%u", cpu->threads);
      add_attribute(m, f, "nvvm.maxntid", threads);
      add_attribute(m, f, "nvvm.minctasm",
                    "1"); /* else ptxas spills some registers for occupancy */
    }
  }
}

static cmz_status optimise_module(cmz_context *ctx, LLVMModuleRef m, LLVMTargetMachineRef machine,
                                  int optimise) {
  char *error = NULL;
  if (LLVMVerifyModule(m, LLVMReturnStatusAction, &error)) {
    cmz_status status = cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "LLVM: %s", error);
    LLVMDisposeMessage(error);
    return status;
  }
  LLVMDisposeMessage(error);
  LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
  LLVMPassBuilderOptionsSetLoopVectorization(options, false);
  LLVMPassBuilderOptionsSetSLPVectorization(options, false);
  LLVMPassBuilderOptionsSetLoopUnrolling(options, false);
  LLVMErrorRef failed =
      LLVMRunPasses(m, optimise > 0 ? "default<O2>" : "default<O1>", machine, options);
  LLVMDisposePassBuilderOptions(options);
  if (!failed) return CMZ_OK;
  char *message = LLVMGetErrorMessage(failed);
  cmz_status status = cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "LLVM: %s", message);
  LLVMDisposeErrorMessage(message);
  return status;
}

/* LLVM ends the process when it cannot write a file: it writes into memory, and we the file. */
cmz_status cmz_lower_write(cmz_context *ctx, LLVMModuleRef m, LLVMTargetMachineRef machine,
                           bool assembly, const char *path) {
  char *error = NULL;
  LLVMMemoryBufferRef buffer = NULL;
  LLVMCodeGenFileType type = assembly ? LLVMAssemblyFile : LLVMObjectFile;
  if (LLVMTargetMachineEmitToMemoryBuffer(machine, m, type, &error, &buffer)) {
    cmz_status status = cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "LLVM: %s", error);
    LLVMDisposeMessage(error);
    return status;
  }
  cmz_status status =
      cmz_file_write(ctx, path, LLVMGetBufferStart(buffer), LLVMGetBufferSize(buffer));
  LLVMDisposeMemoryBuffer(buffer);
  return status;
}

static cmz_status write_llvm(cmz_context *ctx, LLVMModuleRef m, LLVMTargetMachineRef machine,
                             cmz_output_kind kind, const char *path) {
  if (kind != CMZ_OUT_LLVM) return cmz_lower_write(ctx, m, machine, kind == CMZ_OUT_ASSEMBLY, path);
  char *text = LLVMPrintModuleToString(m);
  cmz_status status = cmz_file_write(ctx, path, text, strlen(text));
  LLVMDisposeMessage(text);
  return status;
}

static cmz_status write_mlir(cmz_context *ctx, MlirModule module, const char *path) {
  cmz_text out = {.arena = ctx->arena};
  mlirOperationPrint(mlirModuleGetOperation(module), add_text, &out);
  return cmz_file_write(ctx, path, out.data, out.length);
}

static cmz_status lower_llvm(cmz_context *ctx, LLVMModuleRef m, const cmz_cpu_row *cpu,
                             const cmz_os_row *os, int optimise, cmz_output_kind kind,
                             const char *path) {
  LLVMTargetMachineRef machine = create_machine(ctx, cpu, os, optimise);
  if (!machine) return CMZ_E_INTERNAL;
  prepare(m, machine, cpu, os);
  cmz_status status = optimise_module(ctx, m, machine, optimise);
  if (status == CMZ_OK) status = write_llvm(ctx, m, machine, kind, path);
  LLVMDisposeTargetMachine(machine);
  return status;
}

cmz_status cmz_lower_module(cmz_context *ctx, MlirModule module, const cmz_cpu_row *cpu,
                            const cmz_os_row *os, int optimise, bool debug_lines,
                            cmz_output_kind kind, const char *path) {
  if (!mlirOperationVerify(mlirModuleGetOperation(module)))
    return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "the kernel's MLIR does not verify");
  if (kind == CMZ_OUT_MLIR) return write_mlir(ctx, module, path);
  if (cpu->spirv && kind != CMZ_OUT_ASSEMBLY)
    return cmz_fail(ctx, CMZ_E_UNSUPPORTED, (cmz_loc){0}, "Vulkan's kernels have no LLVM IR");
  if (cpu->spirv) return cmz_vulkan_lower(ctx, module, path);
  CMZ_TRY(cmz_lower_passes(ctx, module,
                           "builtin.module(cse,convert-scf-to-cf,convert-vector-to-llvm,"
                           "convert-arith-to-llvm,convert-ub-to-llvm,convert-cf-to-llvm,"
                           "convert-func-to-llvm,reconcile-unrealized-casts)"));
  if (debug_lines)
    CMZ_TRY(cmz_lower_passes(ctx, module,
                             "builtin.module(ensure-debug-info-scope-on-llvm-func{"
                             "emission-kind=LineTablesOnly})"));
  LLVMContextRef llvm = LLVMContextCreate();
  LLVMModuleRef m = mlirTranslateModuleToLLVMIR(mlirModuleGetOperation(module), llvm);
  cmz_status status = CMZ_E_INTERNAL;
  if (m) status = lower_llvm(ctx, m, cpu, os, optimise, kind, path);
  else cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "MLIR could not be translated to LLVM IR");
  if (m) LLVMDisposeModule(m);
  LLVMContextDispose(llvm);
  return status;
}
