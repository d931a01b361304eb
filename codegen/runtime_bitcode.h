/* runtime_bitcode.h - the runtime and the runner as LLVM bitcode, put into the compiler by cmake/runtime.cmake. */
#ifndef CMZ_CODEGEN_RUNTIME_BITCODE_H
#define CMZ_CODEGEN_RUNTIME_BITCODE_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t cmz_runtime_bitcode[];
extern const uint64_t cmz_runtime_bitcode_size;
extern const uint8_t cmz_runner_bitcode[];
extern const uint64_t cmz_runner_bitcode_size;

#endif
