# SPDX-License-Identifier: Apache-2.0
# Finds a CUDA compiler for ZSE_CUDA=ON and says which.
include(CheckLanguage)

check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "zse: ZSE_CUDA=ON needs nvcc and found none; set CMAKE_CUDA_COMPILER to its path")
endif()
execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --version OUTPUT_VARIABLE zse_nvcc_version)
string(REGEX MATCH "release [0-9.]+" zse_nvcc_version "${zse_nvcc_version}")
message(STATUS "zse: CUDA compiler ${CMAKE_CUDA_COMPILER} (${zse_nvcc_version})")
