# cmake --install: the programs, the headers of compiled models, libcmzc, CMake's package and the pkg-config files.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set_target_properties(cmzc PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON) # LLVM's own folder
install(TARGETS cmzc cmz-run RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES runtime/cmz.h runtime/cmz_dlpack.h frontend/cmzc.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# libcmzc: the compiler as a library; nothing is exported but cmzc.h's functions.
file(WRITE ${CMAKE_BINARY_DIR}/libcmzc.map "{ global: cmzc_*; local: *; };\n")
add_library(cmzc_shared SHARED $<TARGET_OBJECTS:cmz_frontend>)
target_link_libraries(cmzc_shared PRIVATE cmz_frontend -Wl,--version-script=${CMAKE_BINARY_DIR}/libcmzc.map)
set_target_properties(cmzc_shared PROPERTIES OUTPUT_NAME cmzc VERSION ${PROJECT_VERSION} SOVERSION 0 LINKER_LANGUAGE C
                      INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS cmzc_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})

configure_package_config_file(
  cmake/cmzcConfig.cmake.in ${CMAKE_BINARY_DIR}/cmzcConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cmzc
  PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_BINDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/cmzcConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/cmzcConfig.cmake ${CMAKE_BINARY_DIR}/cmzcConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cmzc)
configure_file(cmake/cmzc.pc.in ${CMAKE_BINARY_DIR}/cmzc.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/cmzc.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
