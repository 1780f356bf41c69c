# SPDX-License-Identifier: Apache-2.0
# Each compiler call goes through ccache where there is one, and its processor time is noted. What the assembler says of
# each CUDA kernel is kept beside the object.
if(CMAKE_CXX_COMPILER_LAUNCHER)
    return()
endif()

set(CMAKE_CXX_COMPILER_LAUNCHER "${PROJECT_SOURCE_DIR}/cmake/house/timed_compile"
                                "${PROJECT_BINARY_DIR}/compile_times.tsv")
find_program(ZSE_CCACHE ccache)
mark_as_advanced(ZSE_CCACHE)
if(ZSE_CCACHE)
    # Paths relative to the checkout, so that another clone of the same sources hits too.
    list(APPEND CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}"
                                            CCACHE_NOHASHDIR=1 "${ZSE_CCACHE}")
endif()

set(CMAKE_CUDA_COMPILER_LAUNCHER "${PROJECT_SOURCE_DIR}/cmake/house/assembler_log" ${CMAKE_CXX_COMPILER_LAUNCHER})
set(ZSE_CUDA_LOGS ON)
