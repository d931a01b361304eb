/* codegen.h - from the plan to files: kernels through MLIR and LLVM in worker processes, the
 * program tables, the weights, the runtime's bitcode, headers, linking. */
#ifndef CMZ_CODEGEN_CODEGEN_H
#define CMZ_CODEGEN_CODEGEN_H

#include "../ir/plan.h"
#include "../targets/target.h"

typedef enum cmz_output_kind {
  CMZ_OUT_SHARED,
  CMZ_OUT_OBJECT,
  CMZ_OUT_ARCHIVE,
  CMZ_OUT_EXECUTABLE,
  CMZ_OUT_HEADER,
  CMZ_OUT_ASSEMBLY,
  CMZ_OUT_LLVM,
  CMZ_OUT_MLIR,
  CMZ_OUT_PTX,
  CMZ_OUT_SPIRV,
  CMZ_OUT_MODULE
} cmz_output_kind;

typedef struct cmz_codegen_options {
  const cmz_target *target;
  int optimise;
  bool small;
  const char *prefix; /* C identifier: prefix of every exported symbol */
  const char *model_name;
  uint32_t jobs;            /* worker processes; 0: as many as cores */
  uint32_t default_threads; /* of the compiled model */
  const char *cache_dir;    /* NULL: no cache */
  const char *work_dir;     /* existing directory for temporary files */
  bool external_weights;
  bool debug_lines;             /* -g */
  const char *listing;          /* path of the .cmz text that lines point to, or NULL */
  const cmz_text *listing_text; /* what will stand there */
  void (*progress)(void *user, uint32_t done, uint32_t total);
  void *progress_user;
} cmz_codegen_options;

/* One compiled kernel for one CPU level. */
typedef struct cmz_kernel_object {
  const char *symbol;
  const char *path; /* ELF relocatable */
  bool from_cache;
} cmz_kernel_object;

/* Emits kernel K under SCHEDULE for CPU as a function of type cmz_kernel_function named SYMBOL
 * (program.h) into the object file PATH. Runs in a worker: LLVM may abort. KIND: OBJECT, ASSEMBLY,
 * LLVM or MLIR. emit.c */
cmz_status cmz_kernel_emit(cmz_context *ctx, const cmz_kernel *k, const cmz_schedule *s,
                           const cmz_cpu_row *cpu, const cmz_os_row *os, const char *symbol,
                           int optimise, const char *source_file, uint32_t source_line,
                           cmz_output_kind kind, const char *path);
/* All kernels of the plan for the level CPU as one SPIR-V module at PATH, an entry
 * PREFIX_k<number>_<name> a kernel; in this process. emit.c */
cmz_status cmz_kernels_emit_spirv(cmz_context *ctx, const cmz_plan *plan, const cmz_cpu_row *cpu,
                                  const char *prefix, const char *path);
/* How many bindings OPERAND of K has for the level CPU: more than one for a tensor that one might
 * not reach. emit_vulkan.c */
uint32_t cmz_kernel_windows(const cmz_kernel *k, uint32_t operand, const cmz_cpu_row *cpu);
#define CMZ_WINDOW_REST                                                                            \
  256 /* bytes by which a tensor may begin after its first binding, at most                        \
       */
/* Compiles all kernels of the plan for all levels in worker processes; *OBJECTS becomes a flat
 * array, [level * kernels + kernel]. workers.c */
cmz_status cmz_kernels_compile(cmz_context *ctx, const cmz_plan *plan, const cmz_codegen_options *o,
                               cmz_kernel_object **objects);
/* Whether KIND can be written for TARGET; the message says what can. */
cmz_status cmz_output_check(cmz_context *ctx, const cmz_target *target, cmz_output_kind kind,
                            bool external_weights);
/* Writes the output file(s) of KIND at PATH (and the header beside it when HEADER_PATH is not
 * NULL). output.c */
cmz_status cmz_output_write(cmz_context *ctx, const cmz_plan *plan, const cmz_codegen_options *o,
                            cmz_output_kind kind, const char *path, const char *header_path);

#endif
