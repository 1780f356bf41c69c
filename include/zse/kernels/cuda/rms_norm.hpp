// SPDX-License-Identifier: Apache-2.0
// RMS norm of rows on a GPU, with the greatest magnitude of each result row beside it.
#pragma once

#include <zse/exec/cuda/thread.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// out = x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich, arXiv 1910.07467). One block a row: a row is read
/// once from memory and once from the level-1 cache.
struct RmsNormKernel {
    static constexpr unsigned threads = 256;

    const float* x = nullptr;             ///< `[rows, columns]`
    const float* weight = nullptr;        ///< `[columns]`
    const std::uint32_t* rows = nullptr;  ///< which rows of x, in order, or null: all
    float* out = nullptr;                 ///< `[count, columns]`, dense
    std::uint32_t* greatest = nullptr;  ///< `[count]`: the bits of the greatest magnitude of each row of out
    std::uint32_t* clear = nullptr;     ///< `[2, stride]` likewise, of products to come, set to 0; or null
    std::uint32_t clear_stride = 0;
    std::uint32_t count = 0;
    std::uint32_t columns = 0;
    float epsilon = 0;

    [[nodiscard]] exec::cuda::Launch launch() const noexcept { return {{count, 1, 1}, threads, 0}; }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned row = t.block().x;
        const float* from = x + static_cast<std::size_t>(rows != nullptr ? rows[row] : row) * columns;
        float squares = 0;
        for (unsigned i = t.thread(); i < columns; i += threads) squares += from[i] * from[i];
        squares = t.template block_reduce<threads>(squares, exec::cuda::Sum{});
        const float factor = t.rsqrt(squares / static_cast<float>(columns) + epsilon);
        float most = 0;
        for (unsigned i = t.thread(); i < columns; i += threads) {
            const float value = from[i] * factor * weight[i];
            out[static_cast<std::size_t>(row) * columns + i] = value;
            most = exec::cuda::Greatest{}(most, value < 0 ? -value : value);
        }
        most = t.template block_reduce<threads>(most, exec::cuda::Greatest{});
        if (t.thread() != 0) return;
        greatest[row] = __builtin_bit_cast(std::uint32_t, most);
        if (clear == nullptr) return;
        clear[row] = 0;
        clear[clear_stride + row] = 0;
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
