// SPDX-License-Identifier: Apache-2.0
// The page operations of moves.hpp by CUB's device-wide primitives, for batches that are large enough to fill the
// device by themselves. Only nvcc reads this.
#pragma once

#include <zse/exec/cuda/computed.cuh>
#include <zse/kv/cuda/moves.hpp>

#include <cub/device/device_memcpy.cuh>
#include <cub/device/device_scan.cuh>
#include <cub/device/device_select.cuh>

namespace zse::inline v1 {
namespace kv {
namespace cuda {
namespace detail {

struct MoveFrom {
    const PageMove* moves = nullptr;
    __device__ __host__ const void* operator()(std::ptrdiff_t i) const { return moves[i].from; }
};
struct MoveTo {
    const PageMove* moves = nullptr;
    __device__ __host__ void* operator()(std::ptrdiff_t i) const { return moves[i].to; }
};
struct MoveBytes {
    const PageMove* moves = nullptr;
    __device__ __host__ std::size_t operator()(std::ptrdiff_t i) const { return moves[i].bytes; }
};
/// Counts of segments and one 0 more, so that the exclusive sums end with the sum of all.
struct CountOrZero {
    const std::uint32_t* counts = nullptr;
    std::uint32_t segments = 0;
    __device__ __host__ std::uint32_t operator()(std::ptrdiff_t i) const {
        return i < static_cast<std::ptrdiff_t>(segments) ? counts[i] : 0;
    }
};

inline auto move_primitive(const MoveCall& call) {
    return [call](void* room, std::size_t& bytes, cudaStream_t stream) {
        using exec::gpu::Computed;
        return cub::DeviceMemcpy::Batched(room, bytes, Computed(MoveFrom{call.moves}),
                                          Computed(MoveTo{call.moves}), Computed(MoveBytes{call.moves}),
                                          call.count, stream);
    };
}
inline auto offsets_primitive(const FlattenCall& call) {
    return [call](void* room, std::size_t& bytes, cudaStream_t stream) {
        return cub::DeviceScan::ExclusiveSum(room, bytes,
                                             exec::gpu::Computed(CountOrZero{call.counts, call.segments}),
                                             call.offsets, call.segments + 1, stream);
    };
}
inline auto select_primitive(const SelectCall& call) {
    return [call](void* room, std::size_t& bytes, cudaStream_t stream) {
        return cub::DeviceSelect::Flagged(room, bytes, call.pages, call.keep, call.kept, call.kept_count,
                                          call.count, stream);
    };
}

}  // namespace detail

/// Temporary bytes of move_batched for up to `count` copies.
inline Bytes move_batched_bytes(std::uint32_t count) {
    MoveCall call;
    call.count = count;
    return exec::gpu::cub_bytes(detail::move_primitive(call));
}
/// As MoveKernel, but the bytes may have any alignment.
inline void move_batched(exec::gpu::Stream& stream, exec::gpu::CubRoom room, const MoveCall& call) noexcept {
    exec::gpu::cub_enqueue(stream, room, detail::move_primitive(call));
}

/// Temporary bytes of flatten_scanned for up to `segments`.
inline Bytes flatten_scanned_bytes(std::uint32_t segments) {
    FlattenCall call;
    call.segments = segments;
    return exec::gpu::cub_bytes(detail::offsets_primitive(call));
}
/// The offsets of a FlattenCall; GatherPagesKernel does the rest.
inline void flatten_scanned(exec::gpu::Stream& stream, exec::gpu::CubRoom room,
                            const FlattenCall& call) noexcept {
    exec::gpu::cub_enqueue(stream, room, detail::offsets_primitive(call));
}

/// Temporary bytes of select_flagged for up to `count` pages.
inline Bytes select_flagged_bytes(std::uint32_t count) {
    SelectCall call;
    call.count = count;
    return exec::gpu::cub_bytes(detail::select_primitive(call));
}
/// As SelectPagesKernel.
inline void select_flagged(exec::gpu::Stream& stream, exec::gpu::CubRoom room,
                           const SelectCall& call) noexcept {
    exec::gpu::cub_enqueue(stream, room, detail::select_primitive(call));
}

}  // namespace cuda
}  // namespace kv
}  // namespace zse::inline v1
