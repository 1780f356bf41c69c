# SPDX-License-Identifier: Apache-2.0
# `cmake --install` lays down the headers and a package, so that find_package(zse) finds zse::zse.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(zse_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/zse")
target_include_directories(zse INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(TARGETS zse EXPORT zseTargets)
install(EXPORT zseTargets NAMESPACE zse:: DESTINATION "${zse_package_dir}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/zse" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")

configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/zseConfig.cmake.in" zseConfig.cmake
                              INSTALL_DESTINATION "${zse_package_dir}")
write_basic_package_version_file(zseConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/zseConfig.cmake"
              "${PROJECT_BINARY_DIR}/zseConfigVersion.cmake"
              "${PROJECT_SOURCE_DIR}/cmake/FindPCRE2.cmake"
              "${PROJECT_SOURCE_DIR}/cmake/FindxxHash.cmake"
        DESTINATION "${zse_package_dir}")
install(FILES "${PROJECT_SOURCE_DIR}/cmake/zse_engine_matrix.cmake" "${PROJECT_SOURCE_DIR}/cmake/zse_cuda.cmake"
        DESTINATION "${zse_package_dir}")
