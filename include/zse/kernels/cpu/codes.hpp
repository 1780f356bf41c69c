// SPDX-License-Identifier: Apache-2.0
// How the codes of 16 rows (of weights, or of cached keys) become the factors of integer products.
#pragma once

#include <zse/kernels/cpu/vector.hpp>

#define ZSE_ISA_BODY <zse/kernels/cpu/codes.inl>
#include <zse/kernels/cpu/for_each_isa.inl>
