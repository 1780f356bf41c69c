// SPDX-License-Identifier: Apache-2.0
// The room that products need beside their operands, for the plan. Knows no kernel, so that host files stay small.
#pragma once

#include <zse/kernels/cuda/halves.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// How LinearCall::workspace is laid out: counters, then what one product needs. Counters are zero before each product and
/// after it; who makes the workspace sets them to zero once.
struct Workspace {
    /// Products of up to so many tokens are those of SmallBatchKernel.
    static constexpr std::uint32_t small_batch = 64;
    /// Blocks that share a GPU when it is full: two for each of the 132 multiprocessors of an H200. A product with fewer
    /// is split over its columns, and the last of the blocks that share rows adds up.
    static constexpr std::uint32_t full = 264;
    /// Ways in which the columns are split at most: a thread that adds up has as many loads under way.
    static constexpr std::uint32_t most_splits = 8;
    /// Rows of the tallest block.
    static constexpr std::uint32_t most_rows = 128;

    static constexpr Bytes alignment = 256;
    /// Slices of a small batch at most.
    static constexpr std::uint32_t most_slices = 4;
    /// Counters: one for each block of rows and slice of tokens of a product that is split in two or more, and for blocks
    /// of three matrices that are not filled.
    static constexpr std::uint32_t counters = (full / 2 + 3) * most_slices;
    static constexpr Bytes zeros = round_up(counters * sizeof(std::uint32_t), alignment);

    /// Bytes of the partial sums of a product with `rows` rows in up to three matrices.
    static constexpr Bytes partials(std::uint64_t rows, std::uint64_t tokens) noexcept {
        constexpr std::uint64_t unfilled = 3 * most_rows;
        const std::uint64_t split = saturating_mul(saturating_add(rows, unfilled), most_splits);
        const std::uint64_t of_full = full * most_rows + unfilled * most_splits;
        return saturating_mul(
            split < of_full ? split : of_full,
            ((tokens < small_batch ? tokens : small_batch) + most_slices - 1) * sizeof(float));
    }
};

/// The most that a product of this shape needs, whatever its codec: `rows` of all its matrices, `[tokens, columns]`
/// activations, and any number of tokens below `tokens` as well.
constexpr Bytes workspace_bytes(std::uint64_t rows, std::uint64_t columns, std::uint64_t tokens) noexcept {
    const Bytes partials = Workspace::partials(rows, tokens);
    const Bytes halves = tokens > Workspace::small_batch
                             ? HalfRows::bytes(static_cast<std::uint32_t>(columns), tokens)
                             : Bytes{0};
    return saturating_add(Workspace::zeros,
                          round_up(partials > halves ? partials : halves, Workspace::alignment));
}

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
