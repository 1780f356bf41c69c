// SPDX-License-Identifier: Apache-2.0
// The rotary angles of a batch on a GPU, once a step.
#pragma once

#include <zse/kernels/cuda/calls.hpp>

#include <cmath>

namespace zse::inline v1 {
namespace kv {
namespace cuda {

/// Whether values form pairs with neighbours: kernels::RopePairs::neighbours, whose names kernels/rows.hpp has together
/// with vectors of the host, which nvcc does not read.
constexpr bool pairs_neighbours(kernels::RopePairs order) noexcept {
    return static_cast<std::uint8_t>(order) == 0;
}

/// kernels::rope_angles() of each row: cosines and signed sines, `[count, dim]`. A thread makes a pair.
struct RopeAnglesKernel {
    static constexpr unsigned threads = 128;
    /// Sines of far angles take some digits of 2 / pi from a table, into an array.
    static constexpr exec::gpu::Budget budget{.stack_bytes = 40};

    kernels::cuda::RopeAnglesCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{(call.count * (call.dim / 2) + threads - 1) / threads, 1, 1}, threads, 0};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned pairs = call.dim / 2;
        const unsigned item = t.block().x * threads + t.thread();
        if (item >= call.count * pairs) return;
        const unsigned row = item / pairs;
        const unsigned i = item % pairs;
        // In double: a float angle of a far position has lost its fraction.
        double frequency =
            std::pow(static_cast<double>(call.base), -static_cast<double>(i) / static_cast<double>(pairs));
        frequency /= static_cast<double>(call.linear);
        if (call.factors != nullptr) frequency /= static_cast<double>(t.load(call.factors + i));
        const double angle = static_cast<double>(t.load(call.positions + row)) * frequency;
        const auto cosine = static_cast<float>(std::cos(angle));
        const auto sine = static_cast<float>(std::sin(angle));
        const bool neighbours = pairs_neighbours(call.order);
        const std::size_t first = static_cast<std::size_t>(row) * call.dim + (neighbours ? 2 * i : i);
        const std::size_t second = first + (neighbours ? 1 : pairs);
        call.cosines[first] = cosine;
        call.cosines[second] = cosine;
        call.sines[first] = -sine;
        call.sines[second] = sine;
    }
};

}  // namespace cuda
}  // namespace kv
}  // namespace zse::inline v1
