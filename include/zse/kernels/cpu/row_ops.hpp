// SPDX-License-Identifier: Apache-2.0
// What is done to one row of activations at a time: RMS norm, SwiGLU, rotary angles and their application.
#pragma once

#include <zse/kernels/cpu/simd.hpp>

// After highway.h, as it asks.
#include <hwy/contrib/math/math-inl.h>

#include <cmath>
#include <cstdint>

namespace zse::inline v1 {
namespace kernels {

/// Which values of a head form a pair that RoPE turns: neighbours (Llama as GGUF stores it), or a value and
/// the one half a head further (GPT-NeoX, Qwen).
enum class RopePairs : std::uint8_t { neighbours, halves };

namespace HWY_NAMESPACE {

/// out = x / sqrt(mean(x^2) + epsilon) * weight, all `[count]` (Zhang and Sennrich, arXiv 1910.07467).
inline void rms_norm(const float* x, const float* weight, std::size_t count, float epsilon,
                     float* out) noexcept {
    VecF squares = hn::Zero(f32_tag);
    std::size_t i = 0;
    for (; i + lanes <= count; i += lanes) {
        const VecF v = hn::LoadU(f32_tag, x + i);
        squares = hn::MulAdd(v, v, squares);
    }
    if (i < count) {
        const VecF v = load_up_to(x + i, count - i);
        squares = hn::MulAdd(v, v, squares);
    }
    const float mean = sum_lanes(squares) / static_cast<float>(count);
    const VecF scale = hn::Set(f32_tag, 1.0f / std::sqrt(mean + epsilon));
    for (i = 0; i < count; i += lanes) {
        const VecF v = hn::Mul(load_up_to(x + i, count - i), scale);
        store_up_to(hn::Mul(v, load_up_to(weight + i, count - i)), out + i, count - i);
    }
}

/// gate = gate * sigmoid(gate) * up, all `[count]` (Shazeer, arXiv 2002.05202).
inline void swiglu(float* gate, const float* up, std::size_t count) noexcept {
    const VecF one = hn::Set(f32_tag, 1.0f);
    for (std::size_t i = 0; i < count; i += lanes) {
        const VecF g = load_up_to(gate + i, count - i);
        // By exp(-|g|), which cannot overflow: Highway's Exp gives arbitrary values above 104.
        const VecF e = hn::Exp(f32_tag, hn::Neg(hn::Abs(g)));
        const VecF silu =
            hn::Div(hn::IfThenElse(hn::Lt(g, hn::Zero(f32_tag)), hn::Mul(g, e), g), hn::Add(one, e));
        store_up_to(hn::Mul(silu, load_up_to(up + i, count - i)), gate + i, count - i);
    }
}

/// Cosines and sines of a position, `[pairs]` each: angle i = position / (base^(2i / dim) * linear *
/// factor[i]).
inline void rope_angles(std::uint32_t position, float base, float linear, std::size_t pairs,
                        const float* factors, float* cosines, float* sines) noexcept {
    for (std::size_t i = 0; i < pairs; ++i) {
        // In double: a float angle of a far position has lost its fraction.
        double frequency =
            std::pow(static_cast<double>(base), -static_cast<double>(i) / static_cast<double>(pairs));
        frequency /= static_cast<double>(linear);
        if (factors != nullptr) frequency /= static_cast<double>(factors[i]);
        const double angle = static_cast<double>(position) * frequency;
        cosines[i] = static_cast<float>(std::cos(angle));
        sines[i] = static_cast<float>(std::sin(angle));
    }
}

/// Turns the first 2 * pairs values of a head in place (Su et al., arXiv 2104.09864).
inline void rope(float* head, std::size_t pairs, const float* cosines, const float* sines,
                 RopePairs order) noexcept {
    const std::size_t step = order == RopePairs::neighbours ? 2 : 1;
    const std::size_t apart = order == RopePairs::neighbours ? 1 : pairs;
    for (std::size_t i = 0; i < pairs; ++i) {
        float& a = head[i * step];
        float& b = head[i * step + apart];
        const float turned_a = a * cosines[i] - b * sines[i];
        const float turned_b = a * sines[i] + b * cosines[i];
        a = turned_a;
        b = turned_b;
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace zse::inline v1
