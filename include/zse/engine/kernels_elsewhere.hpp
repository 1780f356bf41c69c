// SPDX-License-Identifier: Apache-2.0
// Says that the kernels of the closed sets of codecs are compiled in files of their own in the program, not in each that
// uses them.
#pragma once

#include <zse/attention/flash.hpp>
#include <zse/attention/reference.hpp>
#include <zse/kernels/bind.hpp>

#define ZSE_KERNELS_EXTERN extern
#define ZSE_ISA_BODY <zse/engine/kernels_of_isa.inl>
#include <zse/kernels/cpu/for_each_isa.inl>
#undef ZSE_KERNELS_EXTERN

extern template struct zse::attention::flash<256>;
