// SPDX-License-Identifier: Apache-2.0
// A row that the lanes of a warp hold together, and kv::rotate() of it.
#pragma once

#include <zse/exec/cuda/thread.hpp>
#include <zse/kv/codec.hpp>

namespace zse::inline v1 {
namespace kv {
namespace cuda {

/// Value i of a row is in register i / 32 of lane i % 32; lanes past the end of the row hold zeros.
template <unsigned Registers>
struct WarpRow {
    static constexpr unsigned registers = Registers;
    static constexpr unsigned lanes = exec::gpu::warp_threads;

    float values[Registers];

    /// What value of the row register j of a lane is.
    static constexpr unsigned index(unsigned lane, unsigned j) noexcept { return j * lanes + lane; }
};

/// 1 / sqrt(block) as kv::rotate() rounds it, for a power of two: the root of 2 is rounded, the rest is exact.
constexpr float rotation_norm(std::size_t block) noexcept {
    constexpr float root_of_two = 1.41421354f;
    float norm = 1;
    for (; block >= 4; block /= 4) norm *= 0.5f;
    return block == 2 ? norm * (1.0f / root_of_two) : norm;
}

/// kv::rotate() of a row of `dim` values, with the same sums: first between lanes, then between registers.
template <unsigned Registers, class T>
ZSE_DEVICE void rotate(T& t, WarpRow<Registers>& row, unsigned dim) {
    const auto block = static_cast<unsigned>(rotation_block(dim));
    constexpr unsigned lanes = WarpRow<Registers>::lanes;
    for (unsigned half = 1; half < block && half < lanes; half *= 2) {
        const bool upper = (t.lane() & half) != 0;
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) {
            const float other = t.shuffle_xor(row.values[j], half);
            row.values[j] = upper ? other - row.values[j] : row.values[j] + other;
        }
    }
    ZSE_UNROLL
    for (unsigned half = 1; half < Registers; half *= 2) {
        if (half * lanes < block) {
            ZSE_UNROLL
            for (unsigned j = 0; j + half < Registers; ++j) {
                if ((j & half) != 0) continue;
                const float a = row.values[j];
                const float b = row.values[j + half];
                row.values[j] = a + b;
                row.values[j + half] = a - b;
            }
        }
    }
    const float norm = rotation_norm(block);
    ZSE_UNROLL
    for (unsigned j = 0; j < Registers; ++j) row.values[j] *= norm;
}

}  // namespace cuda
}  // namespace kv
}  // namespace zse::inline v1
