// SPDX-License-Identifier: Apache-2.0
// Compiles CUB's device-wide primitives: see primitives.hpp.
#include "primitives.hpp"

#include <zse/kv/cuda/moves.cuh>
#include <zse/sampling/cuda/greedy.cuh>

namespace zse_test {

namespace kv = zse::kv::cuda;
namespace sampling = zse::sampling::cuda;
using zse::exec::gpu::Stream;

static_assert(sizeof(Best) == sizeof(sampling::BestLogit));

zse::Bytes move_batched_bytes(std::uint32_t count) {
    return kv::move_batched_bytes(count);
}
void move_batched(Stream& stream, Room room, const kv::MoveCall& call) {
    kv::move_batched(stream, {room.base, room.bytes}, call);
}
zse::Bytes flatten_scanned_bytes(std::uint32_t segments) {
    return kv::flatten_scanned_bytes(segments);
}
void flatten_scanned(Stream& stream, Room room, const kv::FlattenCall& call) {
    kv::flatten_scanned(stream, {room.base, room.bytes}, call);
}
zse::Bytes select_flagged_bytes(std::uint32_t count) {
    return kv::select_flagged_bytes(count);
}
void select_flagged(Stream& stream, Room room, const kv::SelectCall& call) {
    kv::select_flagged(stream, {room.base, room.bytes}, call);
}
zse::Bytes greedy_rows_bytes(std::uint32_t rows) {
    return sampling::greedy_rows_bytes(rows);
}
void greedy_rows(Stream& stream, Room room, const sampling::SampleCall& call, Best* best) {
    sampling::greedy_rows(stream, {room.base, room.bytes}, call,
                          reinterpret_cast<sampling::BestLogit*>(best));
}

}  // namespace zse_test
