// SPDX-License-Identifier: Apache-2.0
// The kernel whose bandwidth others are held against reads every byte once.
// labels: cuda_host
#include "../../bench/cuda/read_kernel.hpp"

#include <zse/exec/cuda/emulated.hpp>

#include <gtest/gtest.h>
#include <support/random.hpp>

#include <numeric>
#include <vector>

namespace {

using zse::exec::gpu::Chunk;
using zse_bench::ReadKernel;

TEST(ReadKernel, AddsUpEveryWordOnce) {
    constexpr unsigned multiprocessors = 1;
    constexpr std::uint64_t in_a_round = ReadKernel::blocks_per_sm * ReadKernel::threads;
    // Less than a round, whole rounds of all loads in flight, and rests of both kinds.
    for (const std::uint64_t chunks :
         {std::uint64_t{7}, in_a_round * ReadKernel::in_flight, in_a_round * 6 + 5}) {
        std::vector<Chunk> from(chunks);
        const std::vector<std::byte> bytes = support::random_bytes(chunks * sizeof(Chunk), 3);
        std::memcpy(from.data(), bytes.data(), bytes.size());
        std::uint32_t wanted = 0;
        for (const Chunk& chunk : from)
            wanted += std::accumulate(chunk.words, chunk.words + 4, std::uint32_t{0});
        std::vector<std::uint32_t> sums(in_a_round * multiprocessors, 1);
        zse::exec::gpu::EmulatedBlock::run_grid(
            ReadKernel{from.data(), chunks, multiprocessors, sums.data()});
        EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), std::uint32_t{0}), wanted) << chunks;
    }
}

}  // namespace
