// SPDX-License-Identifier: Apache-2.0
// What is done to one row of activations at a time: RMS norm, SwiGLU, quantising to 8 bits, rotary positions.
#pragma once

#include <zse/kernels/activations.hpp>
#include <zse/kernels/cpu/vector.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {
struct RowLaunches;
}

/// Which values of a head form a pair that RoPE turns: neighbours (Llama as GGUF stores it), or a value and the one
/// half a head further (GPT-NeoX, Qwen).
enum class RopePairs : std::uint8_t { neighbours, halves };

/// Row operations of one instruction set, bound at open.
struct RowKernels {
    /// x / sqrt(mean(x^2) + epsilon) * weight, all `[count]` (Zhang and Sennrich, arXiv 1910.07467), written as floats
    /// or as codes or both, where these are not null.
    void (*rms_norm)(const float* x, const float* weight, std::size_t count, float epsilon, float* floats,
                     CodedToken codes) noexcept;
    /// A row of floats as codes. Blocks that are not filled up are zero at their end.
    void (*quantise)(const float* x, std::size_t count, CodedToken codes) noexcept;
    /// gate = gate * sigmoid(gate) * up, all `[count]` (Shazeer, arXiv 2002.05202).
    void (*swiglu)(float* gate, const float* up, std::size_t count) noexcept;
    /// to[t] = from[t], or += with `accumulate`, for `tokens` stretches of 16 values; `bias`, `[16]`, is added where it is
    /// not null.
    void (*put)(const float* from, std::size_t from_stride, std::size_t tokens, const float* bias,
                bool accumulate, float* to, std::size_t to_stride) noexcept;
    /// Turns the first `dim` values of a head in place (Su et al., arXiv 2104.09864): value * cosine + partner * sine,
    /// with `[dim]` of both as rope_angles() writes them.
    void (*rope)(float* head, std::size_t dim, const float* cosines, const float* sines,
                 RopePairs order) noexcept;
    /// Where a GPU computes; the others are null then.
    const cuda::RowLaunches* device = nullptr;
};

/// Cosines and signed sines of a position for the `dim` values of a head: angle i = position / (base^(2i / dim) *
/// linear * factor[i]).
inline void rope_angles(std::uint32_t position, float base, float linear, std::size_t dim,
                        const float* factors, RopePairs order, float* cosines, float* sines) noexcept {
    const std::size_t pairs = dim / 2;
    const std::size_t step = order == RopePairs::neighbours ? 2 : 1;
    const std::size_t apart = order == RopePairs::neighbours ? 1 : pairs;
    for (std::size_t i = 0; i < pairs; ++i) {
        // In double: a float angle of a far position has lost its fraction.
        double frequency =
            std::pow(static_cast<double>(base), -static_cast<double>(i) / static_cast<double>(pairs));
        frequency /= static_cast<double>(linear);
        if (factors != nullptr) frequency /= static_cast<double>(factors[i]);
        const double angle = static_cast<double>(position) * frequency;
        cosines[i * step] = cosines[i * step + apart] = static_cast<float>(std::cos(angle));
        sines[i * step + apart] = static_cast<float>(std::sin(angle));
        sines[i * step] = -sines[i * step + apart];
    }
}

}  // namespace kernels
}  // namespace zse::inline v1

#define ZSE_ISA_BODY <zse/kernels/cpu/rows.inl>
#include <zse/kernels/cpu/for_each_isa.inl>

namespace zse::inline v1 {
namespace kernels {

/// The row operations for an instruction set.
inline const RowKernels* row_kernels(Isa isa) noexcept {
    switch (isa) {
#if defined(__x86_64__)
        case Isa::avx2: return &avx2::row_kernels;
        case Isa::avx512: return &avx512::row_kernels;
        case Isa::avx512_vnni: return &avx512_vnni::row_kernels;
#elif defined(__aarch64__)
        case Isa::neon: return &neon::row_kernels;
#endif
        default: return &portable::row_kernels;
    }
}

}  // namespace kernels
}  // namespace zse::inline v1
