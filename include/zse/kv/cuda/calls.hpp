// SPDX-License-Identifier: Apache-2.0
// What the KV cache asks of a GPU: the arguments of its launches. Knows no kernel, so that host files stay small.
#pragma once

#include <zse/kernels/cuda/calls.hpp>
#include <zse/kv/page.hpp>

namespace zse::inline v1 {
namespace kv {
namespace cuda {

/// Turns queries by RoPE in place, and appends keys, turned likewise, and values to their pages. Where the codec of keys
/// rotates, queries are turned by the same Hadamard matrix as well: attention reads them as they then are. Keys stay
/// as they were in `k`.
struct AppendCall {
    LayerPages pages;                   ///< places are addresses; no page lies on disk
    const Segment* segments = nullptr;  ///< `[n]` in device memory, and so are the page lists in them
    const std::uint32_t* segment_of_row = nullptr;  ///< `[rows]`
    const std::uint32_t* positions = nullptr;       ///< `[rows]`
    std::uint32_t rows = 0;
    float* q = nullptr;  ///< `[rows, heads, k_dim]`, `row_stride` floats from row to row; k and v likewise
    float* k = nullptr;
    const float* v = nullptr;
    std::uint64_t row_stride = 0;
    std::uint32_t heads = 0;
    const float* cosines = nullptr;  ///< `[rows, dim]`, as RopeAnglesKernel writes them
    const float* sines = nullptr;
    std::uint32_t dim = 0;
    kernels::RopePairs order{};
};

}  // namespace cuda
}  // namespace kv
}  // namespace zse::inline v1
