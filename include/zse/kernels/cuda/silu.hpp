// SPDX-License-Identifier: Apache-2.0
// The activation of gated blocks on a GPU.
#pragma once

#include <zse/exec/cuda/thread.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// v / (1 + e^-v) (Hendrycks and Gimpel, arXiv 1606.08415); 0 where the power is infinite.
template <class T>
ZSE_DEVICE float silu(T& t, float v) {
    return v / (1.0f + t.exp2(-v * exec::gpu::log2_e));
}

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
