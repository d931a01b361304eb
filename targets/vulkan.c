/* vulkan.c - the rows of Vulkan. In: nothing. Out: rows for cmz_gpu_at, their levels for
 * cmz_cpu_find. Always holds: a level's `features` is the version of Vulkan times ten that a device
 * must have; products and sums stay apart, because SPIR-V's Fma may round once or twice. The first
 * level is for every device, processors too (Mesa's llvmpipe), where barriers cost more than shared
 * tiles save: it uses no work-group memory. */
#include "targets.h"

#define KIB(n) ((n)*1024u)
#define LEVEL(title, version, shared)                                                              \
  {                                                                                                \
    .name = (title), .arch = "spirv", .llvm_cpu = (title), .llvm_features = "",                    \
    .features = (version), .vector_bytes = 4, .vector_registers = 64, .rounding = 1,               \
    .l1_bytes = KIB(32), .l2_bytes = KIB(1024), .threads = 64, .shared_bytes = (shared),           \
    .spirv = 1                                                                                     \
  }

const cmz_cpu_row cmz_vulkan_levels[] = {
    LEVEL("vulkan1.1", 11, 0),
    LEVEL("vulkan1.2", 12, KIB(16)),
    LEVEL("vulkan1.3", 13, KIB(16)),
    {.name = NULL},
};

const cmz_gpu_row cmz_vulkan_gpus[] = {
    {.name = "vulkan", .kind = CMZ_GPU_VULKAN, .levels = {"vulkan1.1"}},
    {.name = "vulkan1.1", .kind = CMZ_GPU_VULKAN, .levels = {"vulkan1.1"}},
    {.name = "vulkan1.2", .kind = CMZ_GPU_VULKAN, .levels = {"vulkan1.2"}},
    {.name = "vulkan1.3", .kind = CMZ_GPU_VULKAN, .levels = {"vulkan1.3"}},
    {.name = NULL},
};

const cmz_os_row cmz_vulkan_systems[] = {
    {.triple = "spirv-vulkan", .llvm_triple = "spirv-vulkan", .arch = "spirv", .system = "vulkan"},
    {.triple = NULL},
};
