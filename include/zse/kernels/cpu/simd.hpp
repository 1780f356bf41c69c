// SPDX-License-Identifier: Apache-2.0
// The vector type of the instruction set that this translation unit is built for (Highway, static dispatch).
#pragma once

#ifndef HWY_COMPILE_ONLY_STATIC
#define HWY_COMPILE_ONLY_STATIC
#endif
#include <hwy/highway.h>

#include <zse/core/version.hpp>

#include <cstddef>

namespace zse::inline v1 {
namespace kernels {
/// Kernels live in a namespace named after their instruction set, so that translation units built with
/// different flags can be linked together.
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using I32 = hn::Rebind<std::int32_t, F32>;
using VecF = hn::Vec<F32>;
inline constexpr F32 f32_tag{};
inline constexpr std::size_t lanes = HWY_LANES(float);
static_assert(lanes <= 16, "zse: kernels unpack 4-bit blocks by halves of 16");

/// Sum of the lanes, always in the same order.
HWY_INLINE float sum_lanes(VecF v) {
    return hn::GetLane(hn::SumOfLanes(f32_tag, v));
}

/// `count` floats from p, zeros above.
HWY_INLINE VecF load_up_to(const float* p, std::size_t count) {
    if (count >= lanes) return hn::LoadU(f32_tag, p);
    alignas(64) float whole[lanes]{};
    for (std::size_t i = 0; i < count; ++i) whole[i] = p[i];
    return hn::Load(f32_tag, whole);
}

/// Stores the first `count` lanes.
HWY_INLINE void store_up_to(VecF v, float* p, std::size_t count) {
    if (count >= lanes) {
        hn::StoreU(v, f32_tag, p);
    } else {
        alignas(64) float whole[lanes];
        hn::Store(v, f32_tag, whole);
        for (std::size_t i = 0; i < count; ++i) p[i] = whole[i];
    }
}

}  // namespace HWY_NAMESPACE

/// The instruction set of this translation unit.
namespace cpu = HWY_NAMESPACE;
}  // namespace kernels
}  // namespace zse::inline v1
