// SPDX-License-Identifier: Apache-2.0
// RMS norm of rows on a GPU, with the greatest magnitude of each result row beside it.
#pragma once

#include <zse/kernels/cuda/calls.hpp>
#include <zse/kernels/cuda/silu.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// out = x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich, arXiv 1910.07467). One block a row: a row is read
/// once from memory and once from the level-1 cache.
struct RmsNormKernel {
    static constexpr unsigned threads = 256;

    RmsNormCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept { return {{call.count, 1, 1}, threads, 0}; }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned row = t.block().x;
        const std::size_t from_row = call.rows != nullptr ? call.rows[row] : row;
        const float* from = call.x + from_row * call.columns;
        float* to = call.out + static_cast<std::size_t>(row) * call.columns;
        float squares = 0;
        for (unsigned i = t.thread(); i < call.columns; i += threads) squares += from[i] * from[i];
        squares = t.template block_reduce<threads>(squares, exec::gpu::Sum{});
        const float factor = t.rsqrt(squares / static_cast<float>(call.columns) + call.epsilon);
        float most = 0;
        for (unsigned i = t.thread(); i < call.columns; i += threads) {
            const float value = from[i] * factor * call.weight[i];
            to[i] = value;
            most = exec::gpu::Greatest{}(most, value < 0 ? -value : value);
        }
        most = t.template block_reduce<threads>(most, exec::gpu::Greatest{});
        if (t.thread() != 0) return;
        call.greatest[row] = __builtin_bit_cast(std::uint32_t, most);
        if (call.clear == nullptr) return;
        // Rows that the products to come raise: those of attention and of the gated feed-forward block.
        call.clear[row] = 0;
        call.clear[call.clear_stride + row] = 0;
    }
};

/// gate = silu(gate) * up (Shazeer, arXiv 2002.05202). One block a row.
struct SwigluKernel {
    static constexpr unsigned threads = 256;

    SwigluCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept { return {{call.tokens, 1, 1}, threads, 0}; }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const std::size_t first = static_cast<std::size_t>(t.block().x) * call.columns;
        float most = 0;
        for (unsigned i = t.thread(); i < call.columns; i += threads) {
            const float value = silu(t, call.gate[first + i]) * call.up[first + i];
            call.gate[first + i] = value;
            most = exec::gpu::Greatest{}(most, value < 0 ? -value : value);
        }
        most = t.template block_reduce<threads>(most, exec::gpu::Greatest{});
        if (t.thread() == 0) call.greatest[t.block().x] = __builtin_bit_cast(std::uint32_t, most);
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
