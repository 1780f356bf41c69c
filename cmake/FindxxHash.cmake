# SPDX-License-Identifier: Apache-2.0
# xxHash::headers, xxHash as inline functions: distributions ship it without a CMake package.
include(FindPackageHandleStandardArgs)

find_path(XXHASH_INCLUDE_DIR xxhash.h)
mark_as_advanced(XXHASH_INCLUDE_DIR)
find_package_handle_standard_args(xxHash REQUIRED_VARS XXHASH_INCLUDE_DIR
                                  REASON_FAILURE_MESSAGE "on Debian: apt-get install libxxhash-dev")

if(xxHash_FOUND AND NOT TARGET xxHash::headers)
    add_library(xxHash::headers INTERFACE IMPORTED)
    set_target_properties(xxHash::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${XXHASH_INCLUDE_DIR}")
endif()
