// SPDX-License-Identifier: Apache-2.0
// The end of attention for one head of one row: division by the sum, turning back, and what is kept of it.
#pragma once

#include <zse/attention/cuda/calls.hpp>
#include <zse/kv/cuda/warp_row.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// Scores are in base 2, so that weights are one instruction.
using exec::gpu::log2_e;
inline constexpr float lowest = -__builtin_huge_valf();

/// What scores are taken relative to: the greatest, or anything where there is none, so that no infinities cancel.
ZSE_DEVICE constexpr float score_base(float greatest) {
    return greatest == lowest ? 0.0f : greatest;
}

/// Writes value / sum, turned back where V rotates, and raises the row's greatest magnitude. For all lanes of a warp.
template <class V, unsigned Registers, class T>
ZSE_DEVICE void store_output(T& t, const AttendCall& call, std::uint32_t row, std::uint32_t head,
                             kv::cuda::WarpRow<Registers>& value, float sum) {
    const std::uint32_t dim = call.pages.layout.v_dim;
    ZSE_UNROLL
    for (unsigned j = 0; j < Registers; ++j) value.values[j] = value.values[j] / sum;
    if constexpr (V::rotates) kv::cuda::rotate(t, value, dim);
    float* to = call.out + (static_cast<std::size_t>(row) * call.heads + head) * dim;
    float most = 0;
    ZSE_UNROLL
    for (unsigned j = 0; j < Registers; ++j) {
        const unsigned i = value.index(t.lane(), j);
        if (i >= dim) continue;
        const float v = value.values[j];
        to[i] = v;
        most = exec::gpu::Greatest{}(most, v < 0 ? -v : v);
    }
    if (call.greatest == nullptr) return;
    most = t.warp_reduce(most, exec::gpu::Greatest{});
    if (t.lane() == 0) t.atomic_max(call.greatest + row, __builtin_bit_cast(std::uint32_t, most));
}

/// Where partial states of split contexts lie: `[segments, rows of each, heads, parts, v_dim + 2]`.
struct PartialPlace {
    std::uint32_t rows_each = 1;  ///< that a segment may have
    std::uint32_t parts = 1;

    static constexpr PartialPlace of(const AttendCall& call, std::uint32_t parts) noexcept {
        return {call.most_rows < few_rows ? call.most_rows : few_rows, parts};
    }
    [[nodiscard]] constexpr std::uint64_t floats(const AttendCall& call) const noexcept {
        return std::uint64_t{call.segment_count} * rows_each * call.heads * parts *
               partial_floats(call.pages.layout.v_dim);
    }
    [[nodiscard]] constexpr std::uint64_t at(const AttendCall& call, std::uint32_t segment, std::uint32_t row,
                                             std::uint32_t head, std::uint32_t part) const noexcept {
        const std::uint64_t state =
            ((std::uint64_t{segment} * rows_each + row) * call.heads + head) * parts + part;
        return state * partial_floats(call.pages.layout.v_dim);
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
