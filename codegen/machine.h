/* machine.h - what code generation has for each architecture beyond its CPU rows: LLVM's part, the
 * runtime's bitcode, the entry of executables. One row an architecture. */
#ifndef CMZ_CODEGEN_MACHINE_H
#define CMZ_CODEGEN_MACHINE_H

#include "../targets/target.h"

#include "llvm-c/TargetMachine.h"

typedef struct cmz_bitcode {
  const uint8_t *data;
  const uint64_t *size; /* bytes */
} cmz_bitcode;

typedef struct cmz_machine {
  const char *arch; /* as in cmz_os_row */
  /* LLVM's names of the least CPU: for code that runs before a level is chosen */
  const char *baseline_cpu, *baseline_features;
  uint16_t elf_machine;              /* EM_* */
  uint32_t macho_cpu, macho_subtype; /* CPU_TYPE_*, CPU_SUBTYPE_*_ALL */
  uint16_t coff_machine;             /* IMAGE_FILE_MACHINE_* */
  uint32_t elf_flags;                /* of the header: the floating-point ABI on RISC-V */
  const char *abi;     /* LLVM's "target-abi" of a module, NULL where there is one only */
  bool large_sections; /* data beyond 2 GiB from the code needs sections of its own */
  /* LLVM's target, for assembly and objects; cheap when repeated */
  void (*initialise)(void);
  /* For the systems of each object format; no data: none is made */
  cmz_bitcode runtimes[CMZ_OBJECT_FORMATS];
  cmz_bitcode runner; /* executables: ELF's systems */
  /* _start of executables, as assembly, for a system's C library; NULL ends the list. */
  const struct cmz_machine_start { const char *system, *text; } * starts;
} cmz_machine;

/* The row of OS's architecture; each architecture of targets/ has one. */
const cmz_machine *cmz_machine_find(const cmz_os_row *os);
/* LLVM's machine for code of OS with a CPU and features; NULL with *MESSAGE, to be disposed of. */
LLVMTargetMachineRef cmz_machine_create(const cmz_os_row *os, const char *cpu, const char *features,
                                        LLVMCodeGenOptLevel level, char **message);
/* Marks MODULE (an LLVMModuleRef) as being for OS: triple, data layout of MACHINE (an
 * LLVMTargetMachineRef), ABI. */
void cmz_machine_prepare(const cmz_os_row *os, LLVMModuleRef module, LLVMTargetMachineRef machine);
/* The assembly of _start for OS, NULL when executables are not made for it. */
const char *cmz_machine_start(const cmz_os_row *os);

#endif
