/* machine.c - the architectures that code is generated for. In: an OS row. Out: its row. Always
 * holds: only what a kernel or glue needs of LLVM is initialised, in the process that needs it. */
#include "machine.h"

#include <elf.h>

#include "llvm-c/Core.h"
#include "llvm-c/Target.h"

#define EMBEDDED(name)                                                                             \
  extern const uint8_t name[];                                                                     \
  extern const uint64_t name##_size
EMBEDDED(cmz_runtime_x86_64);
EMBEDDED(cmz_runner_x86_64);
EMBEDDED(cmz_runtime_x86_64_darwin);
EMBEDDED(cmz_runtime_x86_64_windows);
EMBEDDED(cmz_runtime_aarch64);
EMBEDDED(cmz_runner_aarch64);
EMBEDDED(cmz_runtime_aarch64_darwin);
EMBEDDED(cmz_runtime_aarch64_windows);
EMBEDDED(cmz_runtime_riscv64);
EMBEDDED(cmz_runner_riscv64);
EMBEDDED(cmz_runtime_wasm32);

#define INITIALISE(function, Name)                                                                 \
  static void function(void) {                                                                     \
    LLVMInitialize##Name##TargetInfo();                                                            \
    LLVMInitialize##Name##Target();                                                                \
    LLVMInitialize##Name##TargetMC();                                                              \
    LLVMInitialize##Name##AsmPrinter();                                                            \
    LLVMInitialize##Name##AsmParser();                                                             \
  }
INITIALISE(initialise_x86, X86)
INITIALISE(initialise_aarch64, AArch64)
INITIALISE(initialise_riscv, RISCV)
INITIALISE(initialise_wasm, WebAssembly)

static void initialise_nvptx(void) { /* PTX is only written: there is no assembler to read it */
  LLVMInitializeNVPTXTargetInfo();
  LLVMInitializeNVPTXTarget();
  LLVMInitializeNVPTXTargetMC();
  LLVMInitializeNVPTXAsmPrinter();
}

#define START ".globl _start\n.type _start,%function\n_start:\n"
#define END "\n.size _start, .-_start\n"

/* glibc: __libc_start_main(main, argc, argv, init, fini, rtld_fini, stack end). bionic:
 * __libc_init(arguments on the stack, unused, main, pointers to constructor arrays), where the
 * dynamic linker has run the constructors already. */
static const struct cmz_machine_start x86_64_starts[] = {
    {"linux-gnu", START " xorl %ebp, %ebp\n movq %rdx, %r9\n popq %rsi\n movq %rsp, %rdx\n"
                        " andq $-16, %rsp\n pushq %rax\n pushq %rsp\n xorl %r8d, %r8d\n"
                        " xorl %ecx, %ecx\n leaq main(%rip), %rdi\n"
                        " call *__libc_start_main@GOTPCREL(%rip)\n hlt" END},
    {"linux-android",
     START " xorl %ebp, %ebp\n movq %rsp, %rdi\n andq $-16, %rsp\n"
           " xorl %esi, %esi\n leaq main(%rip), %rdx\n"
           " leaq .Lno_constructors(%rip), %rcx\n"
           " call *__libc_init@GOTPCREL(%rip)\n hlt" END
           " .section .rodata\n .balign 8\n.Lno_constructors:\n .zero 64\n .text\n"},
    {NULL, NULL}};
static const struct cmz_machine_start aarch64_starts[] = {
    {"linux-gnu", START " mov x29, #0\n mov x30, #0\n mov x5, x0\n ldr x1, [sp]\n add x2, sp, #8\n"
                        " mov x6, sp\n adrp x0, main\n add x0, x0, :lo12:main\n mov x3, #0\n"
                        " mov x4, #0\n bl __libc_start_main\n brk #1" END},
    {"linux-android",
     START " mov x29, #0\n mov x30, #0\n mov x0, sp\n mov x1, #0\n adrp x2, main\n"
           " add x2, x2, :lo12:main\n adrp x3, .Lno_constructors\n"
           " add x3, x3, :lo12:.Lno_constructors\n bl __libc_init\n brk #1" END
           " .section .rodata\n .balign 8\n.Lno_constructors:\n .zero 64\n .text\n"},
    {NULL, NULL}};

static const struct cmz_machine_start riscv64_starts[] = {
    {"linux-gnu", START " li s0, 0\n mv a5, a0\n lla a0, main\n ld a1, 0(sp)\n addi a2, sp, 8\n"
                        " andi sp, sp, -16\n li a3, 0\n li a4, 0\n mv a6, sp\n"
                        " call __libc_start_main\n ebreak" END},
    {NULL, NULL}};

static const struct cmz_machine_start no_starts[] = {{NULL, NULL}};

#define BITCODE(name)                                                                              \
  { name, &name##_size }

static const cmz_machine machines[] = {
    {.arch = "x86_64",
     .baseline_cpu = "x86-64",
     .baseline_features = "",
     .elf_machine = EM_X86_64,
     .macho_cpu = 0x01000007,
     .macho_subtype = 3,
     .coff_machine = 0x8664,
     .large_sections = true,
     .initialise = initialise_x86,
     .runtimes = {[CMZ_OBJECT_ELF] = BITCODE(cmz_runtime_x86_64),
                  [CMZ_OBJECT_MACHO] = BITCODE(cmz_runtime_x86_64_darwin),
                  [CMZ_OBJECT_COFF] = BITCODE(cmz_runtime_x86_64_windows)},
     .runner = BITCODE(cmz_runner_x86_64),
     .starts = x86_64_starts},
    {.arch = "aarch64",
     .baseline_cpu = "generic",
     .baseline_features = "",
     .elf_machine = EM_AARCH64,
     .macho_cpu = 0x0100000c,
     .coff_machine = 0xaa64,
     .initialise = initialise_aarch64,
     .runtimes = {[CMZ_OBJECT_ELF] = BITCODE(cmz_runtime_aarch64),
                  [CMZ_OBJECT_MACHO] = BITCODE(cmz_runtime_aarch64_darwin),
                  [CMZ_OBJECT_COFF] = BITCODE(cmz_runtime_aarch64_windows)},
     .runner = BITCODE(cmz_runner_aarch64),
     .starts = aarch64_starts},
    {.arch = "riscv64",
     .baseline_cpu = "generic-rv64",
     .baseline_features = "+m,+a,+f,+d,+c",
     .elf_machine = EM_RISCV,
     .elf_flags = EF_RISCV_RVC | EF_RISCV_FLOAT_ABI_DOUBLE,
     .abi = "lp64d",
     .initialise = initialise_riscv,
     .runtimes = {[CMZ_OBJECT_ELF] = BITCODE(cmz_runtime_riscv64)},
     .runner = BITCODE(cmz_runner_riscv64),
     .starts = riscv64_starts},
    {.arch = "wasm32",
     .baseline_cpu = "generic",
     .baseline_features = "",
     .initialise = initialise_wasm,
     .runtimes = {[CMZ_OBJECT_WASM] = BITCODE(cmz_runtime_wasm32)},
     .starts = no_starts},
    {.arch = "nvptx64", .initialise = initialise_nvptx}, /* kernels only */
};

const cmz_machine *cmz_machine_find(const cmz_os_row *os) {
  for (size_t i = 0; i < CMZ_COUNT_OF(machines); i++) {
    if (strcmp(machines[i].arch, os->arch) == 0) return &machines[i];
  }
  return NULL;
}

const char *cmz_machine_start(const cmz_os_row *os) {
  for (const struct cmz_machine_start *s = cmz_machine_find(os)->starts; s->system; s++) {
    if (strcmp(s->system, os->system) == 0) return s->text;
  }
  return NULL;
}

LLVMTargetMachineRef cmz_machine_create(const cmz_os_row *os, const char *cpu, const char *features,
                                        LLVMCodeGenOptLevel level, char **message) {
  LLVMTargetRef target;
  if (LLVMGetTargetFromTriple(os->llvm_triple, &target, message)) return NULL;
  /* A position-independent WebAssembly module is one for its dynamic linker. */
  LLVMRelocMode relocation = os->format == CMZ_OBJECT_WASM ? LLVMRelocStatic : LLVMRelocPIC;
  return LLVMCreateTargetMachine(target, os->llvm_triple, cpu, features, level, relocation,
                                 LLVMCodeModelDefault);
}

void cmz_machine_prepare(const cmz_os_row *os, LLVMModuleRef module, LLVMTargetMachineRef machine) {
  static const char flag[] = "target-abi";
  const char *abi = cmz_machine_find(os)->abi;
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(machine);
  LLVMSetTarget(module, os->llvm_triple);
  LLVMSetModuleDataLayout(module, layout);
  LLVMDisposeTargetData(layout);
  if (!abi || LLVMGetModuleFlag(module, flag, sizeof flag - 1)) return;
  LLVMMetadataRef text = LLVMMDStringInContext2(LLVMGetModuleContext(module), abi, strlen(abi));
  LLVMAddModuleFlag(module, LLVMModuleFlagBehaviorError, flag, sizeof flag - 1, text);
}
