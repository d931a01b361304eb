# The frontend: ONNX schema through protoc-c, the importer, options, the driver; libcmzc (static and shared) and cmzc.
find_program(CMZ_PROTOC_C protoc-c REQUIRED)
pkg_check_modules(CMZ_PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c)
set(CMZ_GENERATED ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${CMZ_GENERATED}/frontend)
add_custom_command(
  OUTPUT ${CMZ_GENERATED}/frontend/onnx.pb-c.c ${CMZ_GENERATED}/frontend/onnx.pb-c.h
  COMMAND ${CMZ_PROTOC_C} --c_out=${CMZ_GENERATED}/frontend -I ${CMAKE_SOURCE_DIR}/frontend/onnx
          ${CMAKE_SOURCE_DIR}/frontend/onnx/onnx.proto
  DEPENDS ${CMAKE_SOURCE_DIR}/frontend/onnx/onnx.proto
  VERBATIM)
set_source_files_properties(${CMZ_GENERATED}/frontend/onnx.pb-c.c PROPERTIES COMPILE_OPTIONS "-w")

file(GLOB CMZ_FRONTEND_SOURCES CONFIGURE_DEPENDS frontend/*.c frontend/onnx/*.c)
list(REMOVE_ITEM CMZ_FRONTEND_SOURCES ${CMAKE_SOURCE_DIR}/frontend/main.c)
add_library(cmz_frontend STATIC ${CMZ_FRONTEND_SOURCES} ${CMZ_GENERATED}/frontend/onnx.pb-c.c
            ${CMZ_GENERATED}/frontend/onnx.pb-c.h)
target_include_directories(cmz_frontend PUBLIC ${CMZ_GENERATED}/frontend)
target_compile_definitions(cmz_frontend PRIVATE CMZ_VERSION="${PROJECT_VERSION}")
target_link_libraries(cmz_frontend PUBLIC cmz_codegen cmz_passes cmz_targets cmz_ir PkgConfig::CMZ_PROTOBUF_C)

add_executable(cmzc frontend/main.c)
target_link_libraries(cmzc PRIVATE cmz_frontend)
set_target_properties(cmzc PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
