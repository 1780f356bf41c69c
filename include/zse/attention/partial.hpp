// SPDX-License-Identifier: Apache-2.0
// The state of a softmax over a part of the tokens, and how two such states merge in order of position.
#pragma once

#include <zse/kernels/cpu/row_ops.hpp>

#include <cmath>
#include <limits>

namespace zse::inline v1 {
namespace attention {

/// Of scores s_t and values v_t: greatest = max s_t, sum = sum exp(s_t - greatest), value = sum exp(...) v_t,
/// where value is `[dim]` and lies elsewhere. (Milakov and Gimelshein, arXiv 1805.02867.)
struct Partial {
    float greatest = -std::numeric_limits<float>::infinity();
    float sum = 0;
};

/// Merges `later`, whose tokens follow those of `state`. `value` and `later_value` are `[dim]`.
inline void merge(Partial& state, float* value, const Partial& later, const float* later_value,
                  std::size_t dim) noexcept {
    namespace simd = kernels::cpu;
    namespace hn = simd::hn;
    if (later.sum == 0) return;
    const float greatest = std::fmax(state.greatest, later.greatest);
    const float keep = std::exp(state.greatest - greatest);  // 0 for an empty state
    const float take = std::exp(later.greatest - greatest);
    const auto keep_all = hn::Set(simd::f32_tag, keep);
    const auto take_all = hn::Set(simd::f32_tag, take);
    for (std::size_t d = 0; d < dim; d += simd::lanes) {  // dim is a whole number of vectors
        const auto kept = hn::Mul(hn::LoadU(simd::f32_tag, value + d), keep_all);
        hn::StoreU(hn::MulAdd(hn::LoadU(simd::f32_tag, later_value + d), take_all, kept), simd::f32_tag,
                   value + d);
    }
    state.sum = state.sum * keep + later.sum * take;
    state.greatest = greatest;
}

}  // namespace attention
}  // namespace zse::inline v1
