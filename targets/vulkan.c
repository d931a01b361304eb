/* vulkan.c - the rows of Vulkan. In: nothing. Out: rows for cmz_gpu_at, their levels for
 * cmz_cpu_find. Always holds: a level's `features` is CMZ_IMAGE_VULKAN's number; products and sums
 * stay apart, because SPIR-V's Fma may round once or twice. Every version comes in six levels, of
 * which `create` takes the best that the device runs: with tiles of work-groups or, for processors
 * (Mesa's llvmpipe), where barriers cost more than shared tiles save, without; with 8- and 16-bit
 * numbers in memory and f16's conversions, and beside these with integer dot products, or with
 * 32-bit words alone. */
#include "../runtime/cpu.h"
#include "targets.h"

#define KIB(n) ((n)*1024u)
enum { WORDS, SMALL, DOT }; /* variants, the better the higher */
#define LEVEL(title, version, tiles, variant)                                                      \
  {                                                                                                \
    .name = (title), .arch = "spirv", .llvm_cpu = (title), .llvm_features = "",                    \
    .features = CMZ_IMAGE_VULKAN(version, tiles, variant), .vector_bytes = 4,                      \
    .vector_registers = 64, .rounding = 1, .l1_bytes = KIB(32), .l2_bytes = KIB(1024),             \
    .threads = 64, .shared_bytes = (tiles) ? KIB(16) : 0, .small = (variant) >= SMALL,             \
    .int8_dot = (variant) >= DOT ? CMZ_DOT_PACKED : CMZ_DOT_NONE, .spirv = 1,                      \
    .window_bytes = 1u << 27 /* the least maxStorageBufferRange */                                 \
  }
#define LEVELS(name, version)                                                                      \
  LEVEL(name, version, 0, WORDS), LEVEL(name "+small", version, 0, SMALL),                         \
      LEVEL(name "+dot", version, 0, DOT), LEVEL(name "+tiles", version, 1, WORDS),                \
      LEVEL(name "+tiles+small", version, 1, SMALL), LEVEL(name "+tiles+dot", version, 1, DOT)
#define NAMES(name)                                                                                \
  { name, name "+small", name "+dot", name "+tiles", name "+tiles+small", name "+tiles+dot" }

const cmz_cpu_row cmz_vulkan_levels[] = {
    LEVELS("vulkan1.1", 11),
    LEVELS("vulkan1.2", 12),
    LEVELS("vulkan1.3", 13),
    {.name = NULL},
};

const cmz_gpu_row cmz_vulkan_gpus[] = {
    {.name = "vulkan", .kind = CMZ_GPU_VULKAN, .levels = NAMES("vulkan1.1")},
    {.name = "vulkan1.1", .kind = CMZ_GPU_VULKAN, .levels = NAMES("vulkan1.1")},
    {.name = "vulkan1.2", .kind = CMZ_GPU_VULKAN, .levels = NAMES("vulkan1.2")},
    {.name = "vulkan1.3", .kind = CMZ_GPU_VULKAN, .levels = NAMES("vulkan1.3")},
    {.name = NULL},
};

const cmz_os_row cmz_vulkan_systems[] = {
    {.triple = "spirv-vulkan", .llvm_triple = "spirv-vulkan", .arch = "spirv", .system = "vulkan"},
    {.triple = NULL},
};
