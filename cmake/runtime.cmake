# The runtime: once as bitcode for the models that cmzc makes, embedded into the code generator, and once as a native library for
# the unit tests and cmz-run. It includes no system header, so that its bitcode needs no sysroot.
enable_language(ASM)
find_program(CMZ_CLANG NAMES clang-22 HINTS ${LLVM_TOOLS_BINARY_DIR} REQUIRED)
find_program(CMZ_LLVM_LINK NAMES llvm-link llvm-link-22 HINTS ${LLVM_TOOLS_BINARY_DIR} REQUIRED)

file(GLOB CMZ_RUNTIME_SOURCES CONFIGURE_DEPENDS runtime/*.c)
set(CMZ_RUNNER_SOURCES ${CMAKE_SOURCE_DIR}/runtime/cmz_run.c ${CMAKE_SOURCE_DIR}/runtime/npy.c ${CMAKE_SOURCE_DIR}/runtime/report.c)
set(CMZ_RUN_MAIN ${CMAKE_SOURCE_DIR}/runtime/cmz_run_main.c)
list(REMOVE_ITEM CMZ_RUNTIME_SOURCES ${CMZ_RUNNER_SOURCES} ${CMZ_RUN_MAIN})
file(GLOB CMZ_RUNTIME_HEADERS CONFIGURE_DEPENDS runtime/*.h)

# What the bitcode is made for: NAME=TRIPLE[=FLAG]. codegen/machine.c has a row for each; the first ones, Linux's, also serve Android and
# have the runner of executables and the drivers of GPUs.
set(CMZ_BITCODE_LINUX x86_64=x86_64-linux-gnu=-fPIC aarch64=aarch64-linux-gnu=-fPIC riscv64=riscv64-linux-gnu=-fPIC)
set(CMZ_BITCODE_OTHERS aarch64_darwin=arm64-apple-macos11=-fPIC x86_64_darwin=x86_64-apple-macos11=-fPIC
    aarch64_windows=aarch64-pc-windows-msvc x86_64_windows=x86_64-pc-windows-msvc wasm32=wasm32-unknown-unknown)
set(CMZ_HOST_ONLY_SOURCES ${CMZ_RUNTIME_SOURCES})
list(FILTER CMZ_HOST_ONLY_SOURCES EXCLUDE REGEX "/runtime/(cuda|vulkan)[a-z_]*\\.c$")

# cmz_bitcode(NAME TRIPLE FLAGS SOURCES...) makes NAME.bc from C sources.
function(cmz_bitcode name triple flags)
  set(parts)
  foreach(source IN LISTS ARGN)
    get_filename_component(base ${source} NAME_WE)
    set(part ${CMAKE_BINARY_DIR}/bitcode/${name}_${base}.bc)
    add_custom_command(
      OUTPUT ${part}
      COMMAND ${CMZ_CLANG} --target=${triple} -std=gnu11 -Os -ffreestanding ${flags} -nostdlibinc -fno-stack-protector
              -fno-builtin-malloc -fno-builtin-bcmp -fno-ident -fno-strict-aliasing -mno-outline-atomics -Wno-option-ignored
              -fvisibility=hidden -DCMZ_BITCODE -emit-llvm -c ${source} -o ${part}
      DEPENDS ${source} ${CMZ_RUNTIME_HEADERS}
      VERBATIM)
    list(APPEND parts ${part})
  endforeach()
  add_custom_command(
    OUTPUT ${CMAKE_BINARY_DIR}/bitcode/${name}.bc
    COMMAND ${CMZ_LLVM_LINK} ${parts} -o ${CMAKE_BINARY_DIR}/bitcode/${name}.bc
    DEPENDS ${parts}
    VERBATIM)
endfunction()

file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/bitcode)
set(CMZ_EMBEDDED)
set(CMZ_BITCODE_FILES)
foreach(row IN LISTS CMZ_BITCODE_LINUX CMZ_BITCODE_OTHERS)
  set(is_linux FALSE)
  if(row IN_LIST CMZ_BITCODE_LINUX)
    set(is_linux TRUE)
  endif()
  string(REPLACE "=" ";" row ${row})
  list(POP_FRONT row arch triple)
  if(is_linux)
    cmz_bitcode(runtime_${arch} ${triple} "${row}" ${CMZ_RUNTIME_SOURCES})
    cmz_bitcode(runner_${arch} ${triple} "${row}" ${CMZ_RUNNER_SOURCES})
    set(made runtime_${arch} runner_${arch})
  else()
    cmz_bitcode(runtime_${arch} ${triple} "${row}" ${CMZ_HOST_ONLY_SOURCES})
    set(made runtime_${arch})
  endif()
  foreach(part IN LISTS made)
    list(APPEND CMZ_EMBEDDED cmz_${part}=${CMAKE_BINARY_DIR}/bitcode/${part}.bc)
    list(APPEND CMZ_BITCODE_FILES ${CMAKE_BINARY_DIR}/bitcode/${part}.bc)
  endforeach()
endforeach()
add_custom_command(
  OUTPUT ${CMAKE_BINARY_DIR}/bitcode/embedded.S
  COMMAND ${CMAKE_SOURCE_DIR}/cmake/embed.sh ${CMAKE_BINARY_DIR}/bitcode/embedded.S ${CMZ_EMBEDDED}
  DEPENDS ${CMZ_BITCODE_FILES} ${CMAKE_SOURCE_DIR}/cmake/embed.sh
  VERBATIM)
# .incbin is not a dependency that the build tool sees.
set_source_files_properties(${CMAKE_BINARY_DIR}/bitcode/embedded.S PROPERTIES OBJECT_DEPENDS "${CMZ_BITCODE_FILES}")
add_library(cmz_bitcode STATIC ${CMAKE_BINARY_DIR}/bitcode/embedded.S)
target_link_libraries(cmz_codegen PUBLIC cmz_bitcode)
target_compile_definitions(cmz_codegen PRIVATE CMZ_LLVM_TOOLS="${LLVM_TOOLS_BINARY_DIR}")

add_library(cmz_runtime STATIC ${CMZ_RUNTIME_SOURCES})
target_link_libraries(cmz_runtime PUBLIC pthread dl)
add_executable(cmz-run ${CMZ_RUN_MAIN} ${CMZ_RUNNER_SOURCES})
target_link_libraries(cmz-run PRIVATE dl pthread)
set_target_properties(cmz-run PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
