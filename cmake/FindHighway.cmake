# SPDX-License-Identifier: Apache-2.0
# Highway::headers, Highway without its library: zse dispatches statically, so the headers are enough.
include(FindPackageHandleStandardArgs)

find_path(Highway_INCLUDE_DIR hwy/highway.h)
mark_as_advanced(Highway_INCLUDE_DIR)
find_package_handle_standard_args(Highway REQUIRED_VARS Highway_INCLUDE_DIR
                                  REASON_FAILURE_MESSAGE "on Debian: apt-get install libhwy-dev")

if(Highway_FOUND AND NOT TARGET Highway::headers)
    add_library(Highway::headers INTERFACE IMPORTED)
    set_target_properties(Highway::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${Highway_INCLUDE_DIR}")
endif()
