// SPDX-License-Identifier: Apache-2.0
// The greatest logit of each row by CUB's segmented reduction: greedy decoding of rows without mask or penalty, whose
// logits are known to be numbers. Only nvcc reads this.
#pragma once

#include <zse/exec/cuda/computed.cuh>
#include <zse/sampling/cuda/calls.hpp>

#include <cub/device/device_segmented_reduce.cuh>

namespace zse::inline v1 {
namespace sampling {
namespace cuda {

/// The place in its row, the lowest of equals, and the logit there.
using BestLogit = cub::KeyValuePair<int, float>;

namespace detail {

struct RowAt {
    std::int64_t stride = 0;
    std::int64_t from = 0;
    __device__ __host__ std::int64_t operator()(std::ptrdiff_t row) const { return row * stride + from; }
};

inline auto greedy_primitive(const SampleCall& call, BestLogit* best) {
    return [call, best](void* room, std::size_t& bytes, cudaStream_t stream) {
        using exec::gpu::Computed;
        const auto stride = static_cast<std::int64_t>(call.stride);
        return cub::DeviceSegmentedReduce::ArgMax(
            room, bytes, call.logits, best, call.rows, Computed(RowAt{stride, 0}),
            Computed(RowAt{stride, static_cast<std::int64_t>(call.vocabulary)}), stream);
    };
}

}  // namespace detail

/// Temporary bytes of greedy_rows for up to `rows`.
inline Bytes greedy_rows_bytes(std::uint32_t rows) {
    SampleCall call;
    call.rows = rows;
    return exec::gpu::cub_bytes(detail::greedy_primitive(call, nullptr));
}
/// `best` `[rows]` of the logits of a call, of which nothing else is read.
inline void greedy_rows(exec::gpu::Stream& stream, exec::gpu::CubRoom room, const SampleCall& call,
                        BestLogit* best) noexcept {
    exec::gpu::cub_enqueue(stream, room, detail::greedy_primitive(call, best));
}

}  // namespace cuda
}  // namespace sampling
}  // namespace zse::inline v1
