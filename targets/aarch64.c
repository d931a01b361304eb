/* aarch64.c - the CPU and OS rows of 64-bit ARM. In: nothing. Out: rows for cmz_cpu_at,
 * cmz_cpu_extension_at, cmz_os_at. Always holds: `features` covers every instruction set that
 * `llvm_cpu` and `llvm_features` let LLVM use in kernels, as the bits by which Linux names them
 * (HWCAP_*), so that a level is picked only on machines that have them; rows stand from the most to
 * the least capable, which is how `native` chooses. SVE is left out: its registers' width is not
 * known when a schedule is chosen. */
#include "../runtime/cpu.h"
#include "targets.h"

#define V80 CMZ_ARM(ASIMD)
#define V81 (V80 | CMZ_ARM(ATOMICS) | CMZ_ARM(ASIMDRDM))
#define V82 V81
#define V82_PHONE (V82 | CMZ_ARM(FPHP) | CMZ_ARM(ASIMDHP) | CMZ_ARM(ASIMDDP))
#define V84_SERVER (V82_PHONE | CMZ_ARM(FHM) | CMZ_ARM(I8MM) | CMZ_ARM(BF16))
#define V84_APPLE (V82_PHONE | CMZ_ARM(FHM))
#define V86 (V82 | CMZ_ARM(ASIMDDP) | CMZ_ARM(I8MM) | CMZ_ARM(BF16))
#define V9_PHONE (V84_SERVER)

#define KIB(n) ((n)*1024u)
#define DOT(bits)                                                                                  \
  ((bits)&CMZ_ARM(I8MM) ? CMZ_DOT_SMMLA : (bits)&CMZ_ARM(ASIMDDP) ? CMZ_DOT_SDOT : CMZ_DOT_SMULL)
#define PAIRS(bits) ((bits)&CMZ_ARM(BF16) ? CMZ_PAIRS_BFMMLA : CMZ_PAIRS_NONE)
#define NO_SVE "-sve,-sve2"
#define NO_SHA3 "-sha3" /* LLVM would use its three-way exclusive or; no bit stands for it */
/* name, LLVM's CPU, LLVM's features, feature bits, L1, L2. */
#define ROW(cpu, llvm, text, bits, l1, l2)                                                         \
  {                                                                                                \
    .name = (cpu), .arch = "aarch64", .llvm_cpu = (llvm), .llvm_features = (text),                 \
    .features = (bits), .vector_bytes = 16, .vector_registers = 32, .fma = 1, .masked = 0,         \
    .int8_dot = DOT(bits), .bf16_dot = PAIRS(bits), .f16_convert = 1,                              \
    .f16_arithmetic = ((bits)&CMZ_ARM(ASIMDHP)) != 0, .f16_products = ((bits)&CMZ_ARM(FHM)) != 0,  \
    .by_element = 1, .saturating = 1, .rounding = 1, .l1_bytes = KIB(l1), .l2_bytes = KIB(l2)      \
  }
#define CPU(cpu, text, bits, l1, l2) ROW(cpu, cpu, text, bits, l1, l2)

const cmz_cpu_row cmz_aarch64_cpus[] = {
    CPU("neoverse-v2", NO_SVE, V9_PHONE, 64, 2048),
    CPU("neoverse-n2", NO_SVE, V9_PHONE, 64, 1024),
    CPU("neoverse-v1", NO_SVE, V84_SERVER, 64, 1024),
    CPU("cortex-x3", NO_SVE, V9_PHONE, 64, 1024),
    CPU("cortex-x2", NO_SVE, V9_PHONE, 64, 1024),
    CPU("cortex-a715", NO_SVE, V9_PHONE, 32, 512),
    CPU("cortex-a710", NO_SVE, V9_PHONE, 32, 512),
    CPU("cortex-a510", NO_SVE, V9_PHONE, 32, 256),
    ROW("armv8.6-a", "generic", "+v8.6a", V86, 64, 1024),
    CPU("cortex-x1", "", V82_PHONE, 64, 1024),
    CPU("cortex-a78", "", V82_PHONE, 32, 512),
    CPU("cortex-a76", "", V82_PHONE, 64, 512),
    CPU("cortex-a55", "", V82_PHONE, 32, 128),
    CPU("neoverse-n1", "", V82_PHONE, 64, 1024),
    ROW("armv8.2-a", "generic", "+v8.2a", V82, 32, 512),
    CPU("apple-m2", NO_SHA3, V84_SERVER, 128, 4096),
    CPU("apple-m1", NO_SHA3, V84_APPLE, 128, 3072),
    CPU("cortex-a72", "", V80, 32, 512),
    CPU("cortex-a53", "", V80, 32, 256),
    ROW("armv8-a", "generic", "", V80, 32, 256),
    {.name = NULL},
};

#define EXTENSION(text, llvm, bits, ...)                                                           \
  { .name = (text), .arch = "aarch64", .llvm_features = (llvm), .features = (bits), ##__VA_ARGS__ }

const cmz_cpu_extension cmz_aarch64_extensions[] = {
    EXTENSION("fp16", "+fullfp16", CMZ_ARM(FPHP) | CMZ_ARM(ASIMDHP), .f16_arithmetic = 1),
    EXTENSION("fp16fml", "+fp16fml,+fullfp16", CMZ_ARM(FHM) | CMZ_ARM(FPHP) | CMZ_ARM(ASIMDHP),
              .f16_arithmetic = 1, .f16_products = 1),
    EXTENSION("dotprod", "+dotprod", CMZ_ARM(ASIMDDP), .int8_dot = CMZ_DOT_SDOT),
    EXTENSION("i8mm", "+i8mm,+dotprod", CMZ_ARM(I8MM) | CMZ_ARM(ASIMDDP),
              .int8_dot = CMZ_DOT_SMMLA),
    EXTENSION("bf16", "+bf16", CMZ_ARM(BF16), .bf16_dot = CMZ_PAIRS_BFMMLA),
    {.name = NULL},
};

const cmz_os_row cmz_aarch64_systems[] = {
    {.triple = "aarch64-linux-gnu",
     .llvm_triple = "aarch64-unknown-linux-gnu",
     .arch = "aarch64",
     .system = "linux-gnu",
     .default_cpu = "armv8-a",
     .dynamic_linker = "/lib/ld-linux-aarch64.so.1",
     .libc = "libc.so.6",
     .libm = "libm.so.6",
     .libdl = "libc.so.6",
     .hash_style = "gnu",
     .page_bytes = 65536},
    {.triple = "aarch64-linux-android",
     .llvm_triple = "aarch64-unknown-linux-android",
     .arch = "aarch64",
     .system = "linux-android",
     .default_cpu = "armv8-a",
     .dynamic_linker = "/system/bin/linker64",
     .libc = "libc.so",
     .libm = "libm.so",
     .libdl = "libdl.so",
     .hash_style = "both",
     .page_bytes = 16384,
     .least_version = 21},
    {.triple = "arm64-apple-ios",
     .llvm_triple = "arm64-apple-ios",
     .arch = "aarch64",
     .system = "ios",
     .default_cpu = "armv8-a",
     .least_version = 12,
     .default_version = "12.0",
     .format = CMZ_OBJECT_MACHO},
    {.triple = "arm64-apple-macos",
     .llvm_triple = "arm64-apple-macosx",
     .arch = "aarch64",
     .system = "macos",
     .default_cpu = "apple-m1",
     .least_version = 11,
     .default_version = "11.0",
     .format = CMZ_OBJECT_MACHO},
    {.triple = "aarch64-windows",
     .llvm_triple = "aarch64-pc-windows-msvc",
     .arch = "aarch64",
     .system = "windows",
     .default_cpu = "armv8-a",
     .format = CMZ_OBJECT_COFF},
    {.triple = NULL},
};
