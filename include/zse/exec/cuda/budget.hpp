// SPDX-License-Identifier: Apache-2.0
// What kernels may take of a multiprocessor: the figures that their compiled code is held against.
#pragma once

#include <zse/exec/cuda/thread.hpp>

#include <algorithm>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// 32-bit registers of a multiprocessor, and the most that one thread can name (compute capability 8.0 to 12.0).
inline constexpr unsigned sm_registers = 64 * 1024;
inline constexpr unsigned most_registers = 255;

/// Blocks of a kernel that share a multiprocessor at least. A kernel may state `blocks_per_sm`.
template <class K>
constexpr unsigned blocks_per_sm() noexcept {
    if constexpr (requires { K::blocks_per_sm; }) {
        return K::blocks_per_sm;
    } else {
        return 1;
    }
}

/// The budget of a kernel: its own, or what is left when all its blocks share a multiprocessor. Registers are
/// given to warps in units of 8 for each thread.
template <Kernel K>
constexpr Budget budget() noexcept {
    Budget result;
    if constexpr (requires { K::budget; }) result = K::budget;
    if (result.registers == 0) {
        result.registers = std::min(most_registers, sm_registers / (K::threads * blocks_per_sm<K>()) / 8 * 8);
    }
    return result;
}

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
