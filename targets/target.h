/* target.h - what cmzc can compile for: one row a CPU level, OS form (and, later, GPU). Schedules
 * come from these rows, never from tests of a target's name. */
#ifndef CMZ_TARGETS_TARGET_H
#define CMZ_TARGETS_TARGET_H

#include "../ir/base.h"

/* How a CPU sums products of bytes; those from CMZ_DOT_SMULL on take signed bytes on both sides. */
typedef enum cmz_dot {
  CMZ_DOT_NONE,
  CMZ_DOT_PMADDWD, /* x86-64: 16-bit pairs */
  CMZ_DOT_VNNI,    /* unsigned by signed fours */
  CMZ_DOT_AMX,     /* the same, and tiles of 16 by 16 sums of 64 */
  CMZ_DOT_SMULL,   /* AArch64: 16-bit products, added in pairs */
  CMZ_DOT_SDOT,    /* fours */
  CMZ_DOT_SMMLA,   /* 2 x 8 by 8 x 2 matrices */
  CMZ_DOT_PACKED,  /* Vulkan: fours in a 32-bit word */
} cmz_dot;

/* How a CPU sums products of pairs of bf16 numbers in f32; none rounds the products, all but
 * CMZ_PAIRS_NONE take denormals for zero. */
typedef enum cmz_pairs {
  CMZ_PAIRS_NONE,
  CMZ_PAIRS_VDPBF16, /* x86-64's AVX-512 BF16 */
  /* Tiles of 16 by 16 sums of 32; halves by shifts elsewhere, as vdpbf16ps is slow on CPUs with
     tiles */
  CMZ_PAIRS_AMX,
  CMZ_PAIRS_BFMMLA, /* AArch64: BFDOT, and 2 x 4 by 4 x 2 matrices */
} cmz_pairs;

/* How a GPU multiplies matrices; each has what stands before it. */
typedef enum cmz_matrix_unit {
  CMZ_MATRIX_NONE,
  CMZ_MATRIX_WARP,  /* CUDA: mma.sync of f16, bf16, tf32, int8 */
  CMZ_MATRIX_WGMMA, /* four warps together from the group's memory: wgmma.mma_async */
} cmz_matrix_unit;

typedef struct cmz_cpu_row {
  const char *name;          /* "x86-64-v3" */
  const char *arch;          /* "x86_64" */
  const char *llvm_cpu;      /* for LLVM's target machine */
  const char *llvm_features; /* "+avx2,+fma…" on top */
  uint64_t features;         /* the runtime's bits (runtime/cpu.h) that the machine must have */
  uint16_t vector_bytes;     /* of the widest efficient vector: 16, 32, 64 */
  uint16_t vector_registers;
  uint16_t fma; /* 1: fused multiply-add */
  /* 1: where there is none, that of f32 is made of f64's multiplication and addition */
  uint16_t soft_fma;
  uint16_t masked;      /* 1: cheap masked loads and stores */
  uint16_t int8_dot;    /* cmz_dot */
  uint16_t bf16_dot;    /* cmz_pairs */
  uint16_t f16_convert; /* 1: hardware f16 <-> f32 */
  /* 1: vectors of f16 numbers are added, multiplied and compared as they are */
  uint16_t f16_arithmetic;
  /* 1: products of f16 numbers are added to f32 without being rounded or converted (FMLAL) */
  uint16_t f16_products;
  /* 1: vectors are multiplied by one lane of another: neighbours that are factors are loaded and
   * converted together */
  uint16_t by_element;
  /* 1: vectors of floats become integers with saturation in one instruction */
  uint16_t saturating;
  uint16_t rounding; /* 1: instructions that round to whole numbers in every mode */
  uint32_t l1_bytes, l2_bytes;
  /* Above 0: a GPU, whose work-groups have this many threads; each computes grid tiles of its own,
   * without vectors */
  uint16_t threads;
  uint32_t shared_bytes; /* of a GPU's work-group; 0: work-groups do not work together */
  uint16_t matrix;       /* cmz_matrix_unit */
  /* 1: Vulkan's devices that have 8- and 16-bit numbers in memory; 0: these are parts of 32-bit
   * words */
  uint16_t small;
  /* What one binding of Vulkan reaches on every device, a power of two; 0: no such limit */
  uint32_t window_bytes;
  /* 1: kernels are SPIR-V for Vulkan: memory is reached by element numbers, not by pointers */
  uint16_t spirv;
} cmz_cpu_row;

#define CMZ_CAPABILITY_EXACTLY                                                                     \
  1000 /* in `features` of a CUDA level: devices of that compute capability alone, not newer ones  \
        */

typedef enum cmz_gpu_kind { CMZ_GPU_CUDA = 1, CMZ_GPU_VULKAN } cmz_gpu_kind;
/* A GPU that --target names: the levels of code that go into the file, best first, and how LLVM is
 * to see it. */
typedef struct cmz_gpu_row {
  const char *name; /* "sm_90" */
  cmz_gpu_kind kind;
  const char *levels[8]; /* names of CPU rows of arch "nvptx64" or "spirv"; NULL ends */
} cmz_gpu_row;

/* What `+NAME` after a CPU's name adds to its row. */
typedef struct cmz_cpu_extension {
  const char *name, *arch;
  const char *llvm_features; /* "+dotprod" */
  uint64_t features;
  /* The row's fields become at least these */
  uint16_t fma, soft_fma, f16_convert, int8_dot, bf16_dot, f16_arithmetic, f16_products;
} cmz_cpu_extension;

/* What object files look like; each but ELF belongs to one system. */
typedef enum cmz_object_format {
  CMZ_OBJECT_ELF,
  CMZ_OBJECT_MACHO,
  CMZ_OBJECT_COFF,
  CMZ_OBJECT_WASM,
  CMZ_OBJECT_FORMATS
} cmz_object_format;

typedef struct cmz_os_row {
  const char *triple;      /* "x86_64-linux-gnu" */
  const char *llvm_triple; /* "x86_64-unknown-linux-gnu" */
  const char *arch;
  /* "linux-gnu": what the same system is called on every architecture */
  const char *system;
  const char *default_cpu;    /* the level for a named triple without --cpu */
  const char *dynamic_linker; /* "/lib64/ld-linux-x86-64.so.2" */
  /* Sonames; the same one twice where a library holds both */
  const char *libc, *libm, *libdl;
  /* Of the dynamic symbol table, as the oldest dynamic linker wants it */
  const char *hash_style;
  uint32_t page_bytes;
  /* Of a system whose triple may end in a version (Android's API level, iOS'); 0: none */
  uint32_t least_version;
  const char *default_version; /* when none is named; NULL: none */
  const char *version;         /* that was named */
  cmz_object_format format;
} cmz_os_row;

#define CMZ_MAX_LEVELS 24
typedef struct cmz_target {
  const cmz_os_row *os;
  const cmz_cpu_row *levels[CMZ_MAX_LEVELS]; /* best first */
  uint32_t level_count;
  /* NULL: the levels are CPUs of OS; else they are the GPU's, and OS is the host side */
  const cmz_gpu_row *gpu;
  const cmz_os_row *kernel_os; /* what kernels are compiled for: OS, or the GPU's own row */
} cmz_target;

const cmz_cpu_row *cmz_cpu_at(uint32_t index); /* NULL at the end */
const cmz_os_row *cmz_os_at(uint32_t index);
const cmz_cpu_extension *cmz_cpu_extension_at(uint32_t index);
const cmz_cpu_row *cmz_cpu_find(const char *name);
const cmz_gpu_row *cmz_gpu_at(uint32_t index);
/* Parses --target, --cpu and --host (any may be NULL: native). `native` becomes the best row this
 * machine can run; NAME+EXTENSION… becomes a row of the context's arena. CMZ_E_USAGE lists what
 * exists. */
cmz_status cmz_target_parse(cmz_context *ctx, const char *target, const char *cpu, const char *host,
                            cmz_target *out);

#endif
