# mutate_onnx: the importer and the passes with sanitizers in whatever build this is, without code generation. Built on demand
# (tests/fuzz/run.sh), so that a plain build does not pay for it.
file(GLOB CMZ_ONNX_SOURCES CONFIGURE_DEPENDS frontend/onnx/*.c)
add_executable(mutate_onnx EXCLUDE_FROM_ALL tests/fuzz/mutate_onnx.c tests/fuzz/mutate_text.c ${CMZ_ONNX_SOURCES} ${CMZ_PASSES_SOURCES}
               ${CMZ_TARGETS_SOURCES} ${CMZ_IR_SOURCES} ${CMZ_GENERATED}/frontend/onnx.pb-c.c)
target_include_directories(mutate_onnx PRIVATE ${CMZ_GENERATED}/frontend)
set(CMZ_SANITIZE -O1 -g -UNDEBUG -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
target_compile_options(mutate_onnx PRIVATE ${CMZ_SANITIZE})
target_link_options(mutate_onnx PRIVATE -fsanitize=address,undefined)
target_link_libraries(mutate_onnx PRIVATE PkgConfig::CMZ_PROTOBUF_C jansson lapack m)
set_target_properties(mutate_onnx PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
