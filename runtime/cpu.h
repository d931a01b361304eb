/* cpu.h - the CPU feature bits by which a compiled model picks its level at create, and their
 * detection. Shared by the target rows of the compiler and the runtime. Always holds: a bit is set
 * only when the instructions exist and the operating system saves their registers. */
#ifndef CMZ_RUNTIME_CPU_H
#define CMZ_RUNTIME_CPU_H

#include <stdint.h>

/* X(name, cpuid leaf, subleaf, register 0..3 = eax ebx ecx edx, bit, operating-system state needed)
 */
#define CMZ_CPU_STATE_NONE 0u
#define CMZ_CPU_STATE_AVX 0x6u
#define CMZ_CPU_STATE_AVX512 0xe6u
#define CMZ_CPU_STATE_AMX 0x60000u
#define CMZ_CPU_X86_FEATURES(X)                                                                    \
  X(SSE3, 1, 0, 2, 0, NONE)                                                                        \
  X(SSSE3, 1, 0, 2, 9, NONE)                                                                       \
  X(CX16, 1, 0, 2, 13, NONE)                                                                       \
  X(SSE41, 1, 0, 2, 19, NONE)                                                                      \
  X(SSE42, 1, 0, 2, 20, NONE)                                                                      \
  X(POPCNT, 1, 0, 2, 23, NONE)                                                                     \
  X(MOVBE, 1, 0, 2, 22, NONE)                                                                      \
  X(LAHF, 0x80000001, 0, 2, 0, NONE)                                                               \
  X(LZCNT, 0x80000001, 0, 2, 5, NONE)                                                              \
  X(SSE4A, 0x80000001, 0, 2, 6, NONE)                                                              \
  X(AVX, 1, 0, 2, 28, AVX)                                                                         \
  X(FMA, 1, 0, 2, 12, AVX)                                                                         \
  X(F16C, 1, 0, 2, 29, AVX)                                                                        \
  X(AVX2, 7, 0, 1, 5, AVX)                                                                         \
  X(BMI1, 7, 0, 1, 3, NONE)                                                                        \
  X(BMI2, 7, 0, 1, 8, NONE)                                                                        \
  X(ADX, 7, 0, 1, 19, NONE)                                                                        \
  X(SHA, 7, 0, 1, 29, NONE)                                                                        \
  X(GFNI, 7, 0, 2, 8, NONE)                                                                        \
  X(VAES, 7, 0, 2, 9, AVX)                                                                         \
  X(VPCLMULQDQ, 7, 0, 2, 10, AVX)                                                                  \
  X(AVX512F, 7, 0, 1, 16, AVX512)                                                                  \
  X(AVX512DQ, 7, 0, 1, 17, AVX512)                                                                 \
  X(AVX512IFMA, 7, 0, 1, 21, AVX512)                                                               \
  X(AVX512CD, 7, 0, 1, 28, AVX512)                                                                 \
  X(AVX512BW, 7, 0, 1, 30, AVX512)                                                                 \
  X(AVX512VL, 7, 0, 1, 31, AVX512)                                                                 \
  X(AVX512VBMI, 7, 0, 2, 1, AVX512)                                                                \
  X(AVX512VBMI2, 7, 0, 2, 6, AVX512)                                                               \
  X(AVX512VNNI, 7, 0, 2, 11, AVX512)                                                               \
  X(AVX512BITALG, 7, 0, 2, 12, AVX512)                                                             \
  X(AVX512VPOPCNTDQ, 7, 0, 2, 14, AVX512)                                                          \
  X(AVX512VP2INTERSECT, 7, 0, 3, 8, AVX512)                                                        \
  X(AVX512FP16, 7, 0, 3, 23, AVX512)                                                               \
  X(AVX512BF16, 7, 1, 0, 5, AVX512)                                                                \
  X(AVXVNNI, 7, 1, 0, 4, AVX)                                                                      \
  X(AMXTILE, 7, 0, 3, 24, AMX)                                                                     \
  X(AMXINT8, 7, 0, 3, 25, AMX)                                                                     \
  X(AMXBF16, 7, 0, 3, 22, AMX)

enum {
#define CMZ_CPU_ENUM(name, leaf, subleaf, reg, bit, state) CMZ_CPU_INDEX_##name,
  CMZ_CPU_X86_FEATURES(CMZ_CPU_ENUM)
#undef CMZ_CPU_ENUM
      CMZ_CPU_FEATURE_COUNT
};
#define CMZ_CPU(name) (UINT64_C(1) << CMZ_CPU_INDEX_##name)

/* X(name, auxiliary vector entry, bit, Apple's name, Windows' number): 64-bit ARM, as Linux,
 * Apple's sysctl and IsProcessorFeaturePresent report it; bits of an architecture's rows only ever
 * meet machines of that architecture. Windows has no number for ASIMDRDM, which every machine with
 * the dot product has, and none for FHM. */
#define CMZ_AUX_HWCAP 16
#define CMZ_AUX_HWCAP2 26
/* clang-format off */
#define CMZ_CPU_ARM_FEATURES(X) \
  X(ASIMD, HWCAP, 1, "hw.optional.AdvSIMD", 19) \
  X(ATOMICS, HWCAP, 8, "hw.optional.arm.FEAT_LSE", 34) \
  X(FPHP, HWCAP, 9, "hw.optional.arm.FEAT_FP16", 67) \
  X(ASIMDHP, HWCAP, 10, "hw.optional.arm.FEAT_FP16", 67) \
  X(ASIMDRDM, HWCAP, 12, "hw.optional.arm.FEAT_RDM", 43) \
  X(ASIMDDP, HWCAP, 20, "hw.optional.arm.FEAT_DotProd", 43) \
  X(FHM, HWCAP, 23, "hw.optional.arm.FEAT_FHM", CMZ_ARM_NOT_REPORTED) \
  X(I8MM, HWCAP2, 13, "hw.optional.arm.FEAT_I8MM", 66) \
  X(BF16, HWCAP2, 14, "hw.optional.arm.FEAT_BF16", 68)
/* clang-format on */
#define CMZ_ARM_NOT_REPORTED UINT32_MAX

enum {
#define CMZ_ARM_ENUM(name, word, bit, apple, windows) CMZ_ARM_INDEX_##name,
  CMZ_CPU_ARM_FEATURES(CMZ_ARM_ENUM)
#undef CMZ_ARM_ENUM
      CMZ_ARM_FEATURE_COUNT
};
#define CMZ_ARM(name) (UINT64_C(1) << CMZ_ARM_INDEX_##name)

/* 64-bit RISC-V: HWCAP has a bit for each letter. */
#define CMZ_RISCV_V_BIT ('v' - 'a')
#define CMZ_RISCV_V UINT64_C(1)
#define CMZ_RISCV(name) CMZ_RISCV_##name

#if defined(__x86_64__)
#define CMZ_CPU_HOST_ARCH "x86_64"
static inline void cmz_cpu_id(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
  __asm__ volatile("cpuid"
                   : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                   : "a"(leaf), "c"(subleaf));
}

/* Linux saves the tiles of a process that has asked for it only; others do not tell. */
static inline int cmz_cpu_may_use_tiles(void) {
#if defined(__linux__) && defined(__LP64__)
  const long arch_prctl = 158, request_permission = 0x1023, tile_data = 18;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "0"(arch_prctl), "D"(request_permission), "S"(tile_data)
                   : "rcx", "r11", "memory");
  return result == 0;
#else
  return 0;
#endif
}

/* The features of the machine that this runs on. */
static inline uint64_t cmz_cpu_detect(void) {
  static const struct {
    uint32_t leaf;
    uint8_t subleaf, reg, bit;
    uint32_t state;
  } rows[] = {
#define CMZ_CPU_ROW(name, leaf, subleaf, reg, bit, state)                                          \
  {leaf, subleaf, reg, bit, CMZ_CPU_STATE_##state},
      CMZ_CPU_X86_FEATURES(CMZ_CPU_ROW)
#undef CMZ_CPU_ROW
  };
  uint32_t id[4], highest, highest_extended, saved = 0;
  cmz_cpu_id(0, 0, id);
  highest = id[0];
  cmz_cpu_id(0x80000000u, 0, id);
  highest_extended = id[0];
  cmz_cpu_id(1, 0, id);
  if (id[2] >> 27 & 1) { /* OSXSAVE: which register files the system saves */
    uint32_t high;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  }
  uint64_t features = 0;
  for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].leaf > (rows[i].leaf >> 31 ? highest_extended : highest)) continue;
    if ((saved & rows[i].state) != rows[i].state) continue;
    cmz_cpu_id(rows[i].leaf, rows[i].subleaf, id);
    if (id[rows[i].reg] >> rows[i].bit & 1) features |= UINT64_C(1) << i;
  }
  const uint64_t tiles = CMZ_CPU(AMXTILE) | CMZ_CPU(AMXINT8) | CMZ_CPU(AMXBF16);
  if ((features & tiles) != 0 && !cmz_cpu_may_use_tiles()) features &= ~tiles;
  return features;
}
#elif defined(__aarch64__)
#define CMZ_CPU_HOST_ARCH "aarch64"
#if defined(__APPLE__)
extern int sysctlbyname(const char *name, void *value, __SIZE_TYPE__ *size, void *new_value,
                        __SIZE_TYPE__ new_size);
#define CMZ_ARM_ROW(name, word, bit, apple, windows) {CMZ_ARM_INDEX_##name, apple},
typedef struct cmz_arm_row {
  uint32_t index;
  const char *name;
} cmz_arm_row;
static inline int cmz_arm_has(const cmz_arm_row *row) {
  int value = 0;
  __SIZE_TYPE__ size = sizeof value;
  return sysctlbyname(row->name, &value, &size, (void *)0, 0) == 0 && value != 0;
}
#elif defined(_WIN32)
extern int IsProcessorFeaturePresent(uint32_t feature);
#define CMZ_ARM_ROW(name, word, bit, apple, windows) {CMZ_ARM_INDEX_##name, windows},
typedef struct cmz_arm_row {
  uint32_t index, number;
} cmz_arm_row;
static inline int cmz_arm_has(const cmz_arm_row *row) {
  return row->number != CMZ_ARM_NOT_REPORTED && IsProcessorFeaturePresent(row->number);
}
#else
extern unsigned long getauxval(unsigned long entry);
#define CMZ_ARM_ROW(name, word, bit, apple, windows) {CMZ_ARM_INDEX_##name, CMZ_AUX_##word, bit},
typedef struct cmz_arm_row {
  uint8_t index, entry, bit;
} cmz_arm_row;
static inline int cmz_arm_has(const cmz_arm_row *row) {
  return getauxval(row->entry) >> row->bit & 1;
}
#endif
static inline uint64_t cmz_cpu_detect(void) {
  static const cmz_arm_row rows[] = {CMZ_CPU_ARM_FEATURES(CMZ_ARM_ROW)};
  uint64_t features = 0;
  for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
    if (cmz_arm_has(&rows[i])) features |= UINT64_C(1) << rows[i].index;
  return features;
}
#elif defined(__riscv) && __riscv_xlen == 64
#define CMZ_CPU_HOST_ARCH "riscv64"
extern unsigned long getauxval(unsigned long entry);
static inline uint64_t cmz_cpu_detect(void) {
  return getauxval(CMZ_AUX_HWCAP) >> CMZ_RISCV_V_BIT & 1 ? CMZ_RISCV_V : 0;
}
#else
#define CMZ_CPU_HOST_ARCH ""
static inline uint64_t cmz_cpu_detect(void) { return 0; }
#endif

/* ---- GPUs ---- */

/* What an image for Vulkan needs: VERSION times ten; TILES: made for devices that are no
 * processors; VARIANT: the higher the better. */
#define CMZ_IMAGE_VULKAN(version, tiles, variant)                                                  \
  ((uint32_t)(version) << 4 | (uint32_t)(tiles) << 3 | (uint32_t)(variant))
#define CMZ_IMAGE_VERSION(needs) ((needs) >> 4)
#define CMZ_IMAGE_TILES(needs) ((needs) >> 3 & 1)

#endif
