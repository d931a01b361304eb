/* x86_64.c - the CPU and OS rows of x86-64. In: nothing. Out: rows for cmz_cpu_at, cmz_os_at.
 * Always holds: `features` covers every instruction set that `llvm_cpu` lets LLVM use in vector
 * code, so that a level is picked only on machines that have them; rows stand from the most to the
 * least capable within a family, which is how `native` chooses. */
#include "../runtime/cpu.h"
#include "targets.h"

#define V1 0
#define V2                                                                                         \
  (CMZ_CPU(SSE3) | CMZ_CPU(SSSE3) | CMZ_CPU(CX16) | CMZ_CPU(SSE41) | CMZ_CPU(SSE42) |              \
   CMZ_CPU(POPCNT) | CMZ_CPU(LAHF))
#define V3                                                                                         \
  (V2 | CMZ_CPU(AVX) | CMZ_CPU(FMA) | CMZ_CPU(F16C) | CMZ_CPU(AVX2) | CMZ_CPU(BMI1) |              \
   CMZ_CPU(BMI2) | CMZ_CPU(LZCNT) | CMZ_CPU(MOVBE))
#define V4                                                                                         \
  (V3 | CMZ_CPU(AVX512F) | CMZ_CPU(AVX512BW) | CMZ_CPU(AVX512CD) | CMZ_CPU(AVX512DQ) |             \
   CMZ_CPU(AVX512VL))
#define SKYLAKE (V3 | CMZ_CPU(ADX))
#define SKYLAKE512 (V4 | CMZ_CPU(ADX))
#define CASCADE (SKYLAKE512 | CMZ_CPU(AVX512VNNI))
#define CRYPTO256 (CMZ_CPU(SHA) | CMZ_CPU(VAES) | CMZ_CPU(VPCLMULQDQ))
#define ICELAKE                                                                                    \
  (CASCADE | CRYPTO256 | CMZ_CPU(GFNI) | CMZ_CPU(AVX512IFMA) | CMZ_CPU(AVX512VBMI) |               \
   CMZ_CPU(AVX512VBMI2) | CMZ_CPU(AVX512BITALG) | CMZ_CPU(AVX512VPOPCNTDQ))
#define SAPPHIRE                                                                                   \
  (ICELAKE | CMZ_CPU(AVX512BF16) | CMZ_CPU(AVX512FP16) | CMZ_CPU(AVXVNNI) | CMZ_CPU(AMXTILE) |     \
   CMZ_CPU(AMXINT8) | CMZ_CPU(AMXBF16))
#define ZEN1 (V3 | CMZ_CPU(ADX) | CMZ_CPU(SSE4A) | CMZ_CPU(SHA))
#define ZEN3 (ZEN1 | CRYPTO256)
#define ZEN4 (ICELAKE | CMZ_CPU(SSE4A) | CMZ_CPU(AVX512BF16))
#define ZEN5 (ZEN4 | CMZ_CPU(AVXVNNI) | CMZ_CPU(AVX512VP2INTERSECT))
#define ALDER (SKYLAKE | CRYPTO256 | CMZ_CPU(GFNI) | CMZ_CPU(AVXVNNI))

#define KIB(n) ((n)*1024u)
#define PAIRS(bits)                                                                                \
  ((bits)&CMZ_CPU(AMXBF16)      ? CMZ_PAIRS_AMX                                                    \
   : (bits)&CMZ_CPU(AVX512BF16) ? CMZ_PAIRS_VDPBF16                                                \
                                : CMZ_PAIRS_NONE)
/* name, features, vector bytes, registers, fma, masked, int8 dot, f16 convert, L1, L2; LLVM's CPU
 * name is the same. */
#define ROW(cpu, bits, bytes, registers, has_fma, has_mask, dot, f16, l1, l2)                      \
  {                                                                                                \
    .name = (cpu), .arch = "x86_64", .llvm_cpu = (cpu), .llvm_features = "", .features = (bits),   \
    .vector_bytes = (bytes), .vector_registers = (registers), .fma = (has_fma),                    \
    .masked = (has_mask), .int8_dot = (dot), .bf16_dot = PAIRS(bits), .f16_convert = (f16),        \
    .rounding = ((bits)&CMZ_CPU(SSE41)) != 0, .l1_bytes = KIB(l1), .l2_bytes = KIB(l2)             \
  }

const cmz_cpu_row cmz_x86_64_cpus[] = {
    ROW("sapphirerapids", SAPPHIRE, 64, 32, 1, 1, 3, 1, 48, 2048),
    ROW("znver5", ZEN5, 64, 32, 1, 1, 2, 1, 48, 1024),
    ROW("znver4", ZEN4, 64, 32, 1, 1, 2, 1, 32, 1024),
    ROW("icelake-server", ICELAKE, 64, 32, 1, 1, 2, 1, 48, 1280),
    ROW("cascadelake", CASCADE, 64, 32, 1, 1, 2, 1, 32, 1024),
    ROW("skylake-avx512", SKYLAKE512, 64, 32, 1, 1, 1, 1, 32, 1024),
    ROW("x86-64-v4", V4, 64, 32, 1, 1, 1, 1, 32, 1024),
    ROW("alderlake", ALDER, 32, 16, 1, 0, 2, 1, 48, 1280),
    ROW("znver3", ZEN3, 32, 16, 1, 0, 1, 1, 32, 512),
    ROW("znver2", ZEN1, 32, 16, 1, 0, 1, 1, 32, 512),
    ROW("znver1", ZEN1, 32, 16, 1, 0, 1, 1, 32, 512),
    ROW("skylake", SKYLAKE, 32, 16, 1, 0, 1, 1, 32, 256),
    ROW("haswell", V3, 32, 16, 1, 0, 1, 1, 32, 256),
    ROW("x86-64-v3", V3, 32, 16, 1, 0, 1, 1, 32, 256),
    ROW("x86-64-v2", V2, 16, 16, 0, 0, 1, 0, 32, 256),
    ROW("x86-64", V1, 16, 16, 0, 0, 0, 0, 32, 256),
    {.name = NULL},
};

#define EXTENSION(text, bits, ...)                                                                 \
  { .name = (text), .arch = "x86_64", .llvm_features = "+" text, .features = (bits), __VA_ARGS__ }

const cmz_cpu_extension cmz_x86_64_extensions[] = {
    EXTENSION("fma", CMZ_CPU(FMA) | CMZ_CPU(AVX), .fma = 1),
    {.name = "softfma", .arch = "x86_64", .llvm_features = "", .soft_fma = 1},
    EXTENSION("f16c", CMZ_CPU(F16C) | CMZ_CPU(AVX), .f16_convert = 1),
    EXTENSION("avxvnni", CMZ_CPU(AVXVNNI) | CMZ_CPU(AVX2), .int8_dot = 2),
    EXTENSION("avx512vnni", CMZ_CPU(AVX512VNNI) | CMZ_CPU(AVX512F), .int8_dot = 2),
    EXTENSION("avx512bf16", CMZ_CPU(AVX512BF16) | CMZ_CPU(AVX512F), .bf16_dot = CMZ_PAIRS_VDPBF16),
    {.name = NULL},
};

const cmz_os_row cmz_x86_64_systems[] = {
    {.triple = "x86_64-linux-gnu",
     .llvm_triple = "x86_64-unknown-linux-gnu",
     .arch = "x86_64",
     .system = "linux-gnu",
     .default_cpu = "x86-64-v3",
     .dynamic_linker = "/lib64/ld-linux-x86-64.so.2",
     .libc = "libc.so.6",
     .libm = "libm.so.6",
     .libdl = "libc.so.6",
     .hash_style = "gnu",
     .page_bytes = 4096},
    {.triple = "x86_64-linux-android",
     .llvm_triple = "x86_64-unknown-linux-android",
     .arch = "x86_64",
     .system = "linux-android",
     .default_cpu = "x86-64-v2",
     .dynamic_linker = "/system/bin/linker64",
     .libc = "libc.so",
     .libm = "libm.so",
     .libdl = "libdl.so",
     .hash_style = "both",
     .page_bytes = 16384,
     .least_version = 21},
    {.triple = "x86_64-apple-macos",
     .llvm_triple = "x86_64-apple-macosx",
     .arch = "x86_64",
     .system = "macos",
     .default_cpu = "x86-64-v2",
     .least_version = 11,
     .default_version = "11.0",
     .format = CMZ_OBJECT_MACHO},
    {.triple = "x86_64-windows",
     .llvm_triple = "x86_64-pc-windows-msvc",
     .arch = "x86_64",
     .system = "windows",
     .default_cpu = "x86-64-v2",
     .format = CMZ_OBJECT_COFF},
    {.triple = NULL},
};
