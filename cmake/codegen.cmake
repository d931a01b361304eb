# Code generation: MLIR and LLVM through their C APIs. libMLIR.so does not export MLIR's C API; the static libMLIRCAPI*.a do,
# and need nothing but libMLIR.so and the C++ runtime. Their CMake targets are not named here, because they would pull in all of
# MLIR statically.
file(GLOB CMZ_CODEGEN_SOURCES CONFIGURE_DEPENDS codegen/*.c)
add_library(cmz_codegen STATIC ${CMZ_CODEGEN_SOURCES})
target_include_directories(cmz_codegen SYSTEM PUBLIC ${MLIR_INCLUDE_DIRS} ${LLVM_INCLUDE_DIRS})
set(CMZ_MLIR_CAPI)
foreach(part RegisterEverything GPU Target Conversion Transforms LLVM IR)
  if(EXISTS ${LLVM_LIBRARY_DIR}/libMLIRCAPI${part}.a)
    list(APPEND CMZ_MLIR_CAPI ${LLVM_LIBRARY_DIR}/libMLIRCAPI${part}.a)
  endif()
endforeach()
target_link_directories(cmz_codegen PUBLIC ${LLVM_LIBRARY_DIRS})
target_link_libraries(cmz_codegen PUBLIC cmz_passes cmz_targets cmz_ir ${CMZ_MLIR_CAPI} MLIR LLVM stdc++)
