// SPDX-License-Identifier: Apache-2.0
// CUB's device-wide primitives as ordinary functions, for tests that g++ compiles.
#pragma once

#include <zse/kv/cuda/moves.hpp>
#include <zse/sampling/cuda/calls.hpp>

namespace zse_test {

/// Temporary memory of a primitive.
struct Room {
    std::byte* base = nullptr;
    zse::Bytes bytes = 0;
};

/// For each primitive: the room that it needs, and the primitive.
zse::Bytes move_batched_bytes(std::uint32_t count);
void move_batched(zse::exec::gpu::Stream& stream, Room room, const zse::kv::cuda::MoveCall& call);
zse::Bytes flatten_scanned_bytes(std::uint32_t segments);
void flatten_scanned(zse::exec::gpu::Stream& stream, Room room, const zse::kv::cuda::FlattenCall& call);
zse::Bytes select_flagged_bytes(std::uint32_t count);
void select_flagged(zse::exec::gpu::Stream& stream, Room room, const zse::kv::cuda::SelectCall& call);
/// `best` `[rows]`: the place of the greatest logit in its row, and the logit.
struct Best {
    int at;
    float logit;
};
zse::Bytes greedy_rows_bytes(std::uint32_t rows);
void greedy_rows(zse::exec::gpu::Stream& stream, Room room, const zse::sampling::cuda::SampleCall& call,
                 Best* best);

}  // namespace zse_test
