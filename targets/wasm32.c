/* wasm32.c - the CPU and OS rows of WebAssembly. In: nothing. Out: rows for cmz_cpu_at, cmz_os_at.
 * Always holds: a module names its instructions when it is loaded, so there are no levels to pick
 * from; fused multiply-add is not among the vector instructions, whose results are the same on
 * every machine. */
#include "targets.h"

const cmz_cpu_row cmz_wasm32_cpus[] = {
    {.name = "wasm-simd128",
     .arch = "wasm32",
     .llvm_cpu = "generic",
     .llvm_features = "+simd128",
     .vector_bytes = 16,
     .saturating = 1,
     .vector_registers = 16,
     .rounding = 1,
     .l1_bytes = 32 * 1024u,
     .l2_bytes = 256 * 1024u},
    {.name = NULL},
};

const cmz_os_row cmz_wasm32_systems[] = {
    {.triple = "wasm32",
     .llvm_triple = "wasm32-unknown-unknown",
     .arch = "wasm32",
     .system = "none",
     .default_cpu = "wasm-simd128",
     .format = CMZ_OBJECT_WASM},
    {.triple = NULL},
};
