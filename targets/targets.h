/* targets.h - the row tables of the target files, for targets/target.c alone. Each ends with a NULL
 * name. */
#ifndef CMZ_TARGETS_TARGETS_H
#define CMZ_TARGETS_TARGETS_H

#include "target.h"

extern const cmz_cpu_row cmz_x86_64_cpus[];
extern const cmz_cpu_extension cmz_x86_64_extensions[];
extern const cmz_os_row cmz_x86_64_systems[];
extern const cmz_cpu_row cmz_aarch64_cpus[];
extern const cmz_cpu_extension cmz_aarch64_extensions[];
extern const cmz_os_row cmz_aarch64_systems[];
extern const cmz_cpu_row cmz_riscv64_cpus[];
extern const cmz_os_row cmz_riscv64_systems[];
extern const cmz_cpu_row cmz_wasm32_cpus[];
extern const cmz_os_row cmz_wasm32_systems[];
extern const cmz_gpu_row cmz_cuda_gpus[];
extern const cmz_cpu_row cmz_cuda_levels[];
extern const cmz_os_row cmz_cuda_systems[];
extern const cmz_gpu_row cmz_vulkan_gpus[];
extern const cmz_cpu_row cmz_vulkan_levels[];
extern const cmz_os_row cmz_vulkan_systems[];

#endif
