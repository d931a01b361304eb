# Placeholder until the code generator lands: an interface library, so that the tree configures.
file(GLOB CMZ_CODEGEN_SOURCES CONFIGURE_DEPENDS codegen/*.c)
if(CMZ_CODEGEN_SOURCES)
  add_library(cmz_codegen STATIC ${CMZ_CODEGEN_SOURCES})
  target_link_libraries(cmz_codegen PUBLIC cmz_passes cmz_targets cmz_ir)
else()
  add_library(cmz_codegen INTERFACE)
  target_link_libraries(cmz_codegen INTERFACE cmz_passes cmz_targets cmz_ir)
endif()
