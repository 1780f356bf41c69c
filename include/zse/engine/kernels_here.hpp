// SPDX-License-Identifier: Apache-2.0
// Compiles what kernels_elsewhere.hpp declares. Include it in exactly one file of a program.
#pragma once

#include <zse/engine/kernels_elsewhere.hpp>

#define ZSE_KERNELS_EXTERN
#define ZSE_ISA_BODY <zse/engine/kernels_of_isa.inl>
#include <zse/kernels/cpu/for_each_isa.inl>
#undef ZSE_KERNELS_EXTERN

template struct zse::attention::flash<256>;
