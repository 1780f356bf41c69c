// SPDX-License-Identifier: Apache-2.0
// Kernels on the host, with the threads of a block in an order of choice.
#pragma once

#include <zse/exec/cuda/emulated.hpp>

namespace support {

/// A launcher. What a kernel does wrong is thrown.
template <zse::exec::gpu::Order Of>
struct InOrder {
    template <class K>
    static void launch(zse::exec::gpu::Stream& /*stream*/, const K& kernel) {
        zse::exec::gpu::EmulatedBlock::run_grid(kernel, Of);
    }
};

}  // namespace support
