/* cuda.c - the rows of NVIDIA's GPUs. In: nothing. Out: rows for cmz_gpu_at, their levels for
 * cmz_cpu_find. Always holds: a level's `features` is its compute capability times ten, the least
 * that a device must have; PTX runs on that and everything newer, but that of an "a" only on
 * exactly that (CMZ_CAPABILITY_EXACTLY more). */
#include "targets.h"

#define KIB(n) ((n)*1024u)
#define LEVEL(sm, capability, ptx, unit)                                                           \
  {                                                                                                \
    .name = (sm), .arch = "nvptx64", .llvm_cpu = (sm), .llvm_features = (ptx),                     \
    .features = (capability), .vector_bytes = 4, .vector_registers = 64, .fma = 1,                 \
    .f16_convert = 1, .rounding = 1, .l1_bytes = KIB(128), .l2_bytes = KIB(4096), .threads = 128,  \
    .shared_bytes = KIB(48), .matrix = (unit)                                                      \
  }

const cmz_cpu_row cmz_cuda_levels[] = {
    LEVEL("sm_90a", CMZ_CAPABILITY_EXACTLY + 90, "+ptx80", CMZ_MATRIX_WGMMA),
    LEVEL("sm_90", 90, "+ptx80", CMZ_MATRIX_WARP),
    LEVEL("sm_89", 89, "+ptx78", CMZ_MATRIX_WARP),
    LEVEL("sm_86", 86, "+ptx71", CMZ_MATRIX_WARP),
    LEVEL("sm_80", 80, "+ptx70", CMZ_MATRIX_WARP),
    {.name = NULL},
};

const cmz_gpu_row cmz_cuda_gpus[] = {
    {.name = "sm_90a", .kind = CMZ_GPU_CUDA, .levels = {"sm_90a", "sm_80"}},
    {.name = "sm_90", .kind = CMZ_GPU_CUDA, .levels = {"sm_90", "sm_80"}},
    {.name = "sm_89", .kind = CMZ_GPU_CUDA, .levels = {"sm_89"}},
    {.name = "sm_86", .kind = CMZ_GPU_CUDA, .levels = {"sm_86"}},
    {.name = "sm_80", .kind = CMZ_GPU_CUDA, .levels = {"sm_80"}},
    {.name = NULL},
};

const cmz_os_row cmz_cuda_systems[] = {
    {.triple = "nvptx64-nvidia-cuda",
     .llvm_triple = "nvptx64-nvidia-cuda",
     .arch = "nvptx64",
     .system = "cuda"},
    {.triple = NULL},
};
