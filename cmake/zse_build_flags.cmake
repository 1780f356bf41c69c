# SPDX-License-Identifier: Apache-2.0
# zse_build_flags: warnings of zse's own programs. They are built for the least processor of their architecture: kernels
# for the others are compiled in regions of their own and chosen when a model is opened.
add_library(zse_build_flags INTERFACE)
target_compile_options(zse_build_flags INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
if(ZSE_WERROR)
    target_compile_options(zse_build_flags INTERFACE -Werror)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
