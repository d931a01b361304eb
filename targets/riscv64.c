/* riscv64.c - the CPU and OS rows of 64-bit RISC-V. In: nothing. Out: rows for cmz_cpu_at,
 * cmz_os_at. Always holds: the vector level asks for V, whose registers have at least 128 bits; the
 * kernels use that many. */
#include "../runtime/cpu.h"
#include "targets.h"

#define KIB(n) ((n)*1024u)

const cmz_cpu_row cmz_riscv64_cpus[] = {
    {.name = "rv64gcv",
     .arch = "riscv64",
     .llvm_cpu = "generic-rv64",
     .llvm_features = "+m,+a,+f,+d,+c,+v,+zvl128b",
     .features = CMZ_RISCV(V),
     .vector_bytes = 16,
     .saturating = 1,
     .vector_registers = 32,
     .fma = 1,
     .masked = 1,
     .l1_bytes = KIB(32),
     .l2_bytes = KIB(256)},
    {.name = "rv64gc",
     .arch = "riscv64",
     .llvm_cpu = "generic-rv64",
     .llvm_features = "+m,+a,+f,+d,+c",
     .vector_bytes = 16,
     .saturating = 1,
     .vector_registers = 8,
     .fma = 1,
     .l1_bytes = KIB(32),
     .l2_bytes = KIB(256)},
    {.name = NULL},
};

const cmz_os_row cmz_riscv64_systems[] = {
    {.triple = "riscv64-linux-gnu",
     .llvm_triple = "riscv64-unknown-linux-gnu",
     .arch = "riscv64",
     .system = "linux-gnu",
     .default_cpu = "rv64gc",
     .dynamic_linker = "/lib/ld-linux-riscv64-lp64d.so.1",
     .libc = "libc.so.6",
     .libm = "libm.so.6",
     .libdl = "libc.so.6",
     .hash_style = "gnu",
     .page_bytes = 4096},
    {.triple = NULL},
};
