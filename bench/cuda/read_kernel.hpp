// SPDX-License-Identifier: Apache-2.0
// Reads memory and does nothing else: the bandwidth that kernels are held against.
#pragma once

#include <zse/exec/cuda/thread.hpp>
#include <zse/policy/list.hpp>

namespace zse_bench {

/// Adds up the words of `chunks` pieces of 16 bytes; the sums stand for the loads, which the compiler would else leave out.
struct ReadKernel {
    static constexpr unsigned threads = 512;
    static constexpr unsigned blocks_per_sm = 4;
    /// Loads of a thread before it uses the first: 4 * 512 threads with 4 * 16 bytes are 128 KiB for a multiprocessor, and
    /// 5 TB/s at a latency of 800 ns take 30 KiB from each of 132.
    static constexpr unsigned in_flight = 4;

    const zse::exec::gpu::Chunk* from = nullptr;
    std::uint64_t chunks = 0;
    unsigned multiprocessors = 0;
    std::uint32_t* sums = nullptr;  ///< `[launch().blocks.x * threads]`

    [[nodiscard]] zse::exec::gpu::Launch launch() const noexcept {
        return {{multiprocessors * blocks_per_sm, 1, 1}, threads, 0};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const std::uint64_t stride = std::uint64_t{t.blocks().x} * threads;
        const std::uint64_t mine = std::uint64_t{t.block().x} * threads + t.thread();
        std::uint32_t sum = 0;
        std::uint64_t at = mine;
        for (; at + (in_flight - 1) * stride < chunks; at += in_flight * stride) {
            zse::exec::gpu::Chunk loaded[in_flight];
            ZSE_UNROLL
            for (unsigned i = 0; i < in_flight; ++i) loaded[i] = t.load_once(from + at + i * stride);
            ZSE_UNROLL
            for (unsigned i = 0; i < in_flight; ++i) sum += words(loaded[i]);
        }
        for (; at < chunks; at += stride) sum += words(t.load_once(from + at));
        sums[mine] = sum;
    }

private:
    ZSE_DEVICE static std::uint32_t words(const zse::exec::gpu::Chunk& chunk) {
        return chunk.words[0] + chunk.words[1] + chunk.words[2] + chunk.words[3];
    }
};

using BenchKernels = zse::policy::List<ReadKernel>;

}  // namespace zse_bench
