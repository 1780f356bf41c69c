// SPDX-License-Identifier: Apache-2.0
// The vectors of each instruction set: floats, and byte products with their sums, in one vocabulary. Kernels are
// written in it once and compiled for each. (Highway 1.0.3 has no products of bytes, hence an own one.)
//
//   Vec      `lanes` floats; f16, bf16 and e4m3 are only loaded and stored. max_magnitude and greatest_magnitude take what
//            is no number for the greatest; where max and min meet it, they may give either operand
//   Int      `lanes` 32-bit integers
//   Codes    4 * lanes bytes: four consecutive columns of `lanes` rows
//   Sum4     sums of products of codes 0..15 with activations -127..127, for at most 8 steps
//   Sum8     sums of products of codes -128..127 with activations -127..127
//
// A step adds four products to each lane. Activations are four bytes, the same for all lanes. total() is exact:
// where products are added in 16 bits, Sum4 holds 8 * 2 * 15 * 127 = 30,480 < 2^15, and one step of Sum8 holds
// 2 * 128 * 127 = 32,512 < 2^15.
#pragma once

#include <zse/core/dtype.hpp>
#include <zse/kernels/isa.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define ZSE_ISA_BODY <zse/kernels/cpu/vector.inl>
#include <zse/kernels/cpu/for_each_isa.inl>
