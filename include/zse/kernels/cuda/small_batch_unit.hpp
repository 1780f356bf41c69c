// SPDX-License-Identifier: Apache-2.0
// The inner part of products with few tokens on a GPU: what a warp does with the weights of a unit that it has loaded.
#pragma once

#include <zse/kernels/cuda/staged_rows.hpp>
#include <zse/kernels/cuda/workspace.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// How the warps of a block share its work: `KWays` of them take turns at the columns of the same rows, the other ways are
/// further rows. `Tiles` times 8 fragment columns are what the activations take.
///
/// What bounds few tokens is memory: at 4.8 TB/s and a latency of 700 ns, 25 KiB have to be under way on each of an H200's
/// 132 multiprocessors. A lane therefore keeps a ring of loads of 16 bytes, and all 8 warps of a block share one or two
/// groups of rows, so that a matrix of 4096 rows makes 256 blocks.
///
/// With four tiles, and 16 or 32 tokens a block, every warp has two groups of rows of its own, 128 rows in a block, because each block reads all
/// activations from the level-2 cache: 4 bytes of each token against 72 bytes of 4-bit weights for each column. Two groups
/// share what a warp reads from shared memory, which gives a lane 16 bytes in half the time that tensor cores take for the
/// four mma that need them (128 bytes and 1024 products a cycle), and few warps have registers for many mma under way.
template <unsigned Tiles, unsigned KWays, bool Gated>
struct SmallBatchShape {
    static constexpr unsigned tiles = Tiles;
    static constexpr unsigned k_ways = KWays;
    static constexpr unsigned row_ways = KWays == 1 ? 4 : 1;
    static constexpr unsigned threads = KWays * row_ways * exec::gpu::warp_threads;
    static constexpr bool gated = Gated;
    static constexpr bool sliced = Tiles == 4;  ///< more tokens are further blocks
    /// Groups of rows of a warp. Of a gated product, even groups of a block are of gate and odd ones of up.
    static constexpr unsigned groups = Gated || Tiles > 1 || KWays == 1 ? 2 : 1;
    static constexpr unsigned block_groups = row_ways * groups;
    static constexpr unsigned weight_rows = block_groups * weights::MmaLayout::rows;
    /// Rows of results that a block has.
    static constexpr unsigned rows = Gated ? weight_rows / 2 : weight_rows;
    static_assert(weight_rows <= Workspace::most_rows && (!Gated || block_groups % 2 == 0));

    /// 16 warps where they share columns, else 8 with twice as many registers.
    static constexpr unsigned blocks_per_sm = 2;
};

/// Sums over columns, in float32, of a warp's rows by all fragment columns.
template <class Codec, class Shape>
struct UnitProduct {
    using Weights = Fragment<Codec>;
    using Rows = StagedRows<Weights::bfloat, Weights::has_minimum>;
    using Sums = exec::gpu::FragmentD[Shape::groups][Shape::tiles];

    static constexpr unsigned unit_pairs = Weights::unit_steps / 2;
    /// Steps whose products are summed before their scale is applied: those of a block, or of a part of it. The same for
    /// all shapes, since the order of summation may depend on no batch.
    static constexpr unsigned run_most = 4;
    static constexpr unsigned run_steps = Weights::block_steps < run_most ? Weights::block_steps : run_most;
    static constexpr unsigned run = Weights::scaled ? run_steps : 2;

    /// sums += one unit of the weights times the activations that begin with pair `pair` of a stage of `width` fragment
    /// columns.
    template <class T, class Chunks, class Floats>
    ZSE_DEVICE static void add(T& t, const typename Weights::Unit (&unit)[Shape::groups], unsigned pair,
                               unsigned width, const Chunks& staged, const Floats& staged_sums, Sums& sums) {
        ZSE_UNROLL
        for (unsigned s = 0; s < Weights::unit_steps; s += run) {
            exec::gpu::FragmentA a[Shape::groups][run];
            exec::gpu::FragmentA rests[Shape::groups];
            RowPair scales[Shape::groups];
            RowPair minima[Shape::groups];
            ZSE_UNROLL
            for (unsigned m = 0; m < Shape::groups; ++m) {
                if constexpr (Weights::split_values) {
                    scales[m] = Weights::split(t, unit[m], s, a[m][0], rests[m]);
                } else {
                    ZSE_UNROLL
                    for (unsigned i = 0; i < run; ++i) a[m][i] = Weights::step(t, unit[m], s + i);
                    if constexpr (Weights::scaled)
                        scales[m] = Weights::scales(t, unit[m], s / Weights::block_steps);
                    if constexpr (Weights::has_minimum)
                        minima[m] = Weights::minima(t, unit[m], s / Weights::block_steps);
                }
            }
            ZSE_UNROLL
            for (unsigned n = 0; n < Shape::tiles; ++n) {
                exec::gpu::FragmentB b[run];
                read_operands(t, staged, pair + s / 2, s % 2, width, n, b);
                float of_columns[2] = {};
                if constexpr (Weights::has_minimum)
                    read_sums(t, staged_sums, pair + s / 2, width, n, of_columns);
                ZSE_UNROLL
                for (unsigned m = 0; m < Shape::groups; ++m) {
                    if constexpr (Weights::scaled) {
                        exec::gpu::FragmentD d;
                        if constexpr (Weights::split_values) {
                            d = t.product(rests[m], b[0]);
                            ZSE_UNROLL
                            for (unsigned v = 0; v < 4; ++v) d.values[v] *= 1 / split_rest;
                            t.mma(d, a[m][0], b[0]);
                        } else {
                            d = t.product(a[m][0], b[0]);
                            ZSE_UNROLL
                            for (unsigned i = 1; i < run; ++i) t.mma(d, a[m][i], b[i]);
                        }
                        ZSE_UNROLL
                        for (unsigned v = 0; v < 4; ++v) {
                            float& sum = sums[m][n].values[v];
                            sum += (v < 2 ? scales[m].low : scales[m].high) * d.values[v];
                            if constexpr (Weights::has_minimum) {
                                sum += (v < 2 ? minima[m].low : minima[m].high) * of_columns[v % 2];
                            }
                        }
                    } else {
                        ZSE_UNROLL
                        for (unsigned i = 0; i < run; ++i) {
                            if constexpr (Weights::bfloat) {
                                t.mma_bf16(sums[m][n], a[m][i], b[i]);
                            } else {
                                t.mma(sums[m][n], a[m][i], b[i]);
                            }
                        }
                    }
                }
            }
        }
    }

private:
    /// The operands of `run` steps from the first (or, where odd, the second) of a pair on, for tile n.
    template <class T, class Chunks>
    ZSE_DEVICE static void read_operands(T& t, const Chunks& staged, unsigned pair, unsigned odd,
                                         unsigned width, unsigned n, exec::gpu::FragmentB (&b)[run]) {
        const unsigned column = n * 8 + t.lane() / 4;
        // One tile holds the columns of the tokens that there are, others are full.
        const bool inside = Shape::tiles > 1 || column < width;
        ZSE_UNROLL
        for (unsigned i = 0; i < (run + 1) / 2; ++i) {
            exec::gpu::Chunk two{};
            if (inside) two = staged[Rows::chunk_at(width, pair + i, column, t.lane())];
            if constexpr (run == 1) {
                b[0] = odd == 0 ? exec::gpu::FragmentB{{two.words[0], two.words[1]}}
                                : exec::gpu::FragmentB{{two.words[2], two.words[3]}};
            } else {
                b[2 * i] = {{two.words[0], two.words[1]}};
                b[2 * i + 1] = {{two.words[2], two.words[3]}};
            }
        }
    }
    /// The sums of the activations of a run, for the two columns of a result that a lane has.
    template <class T, class Floats>
    ZSE_DEVICE static void read_sums(T& t, const Floats& staged_sums, unsigned pair, unsigned width,
                                     unsigned n, float (&of_columns)[2]) {
        static_assert(!Weights::has_minimum || run == 2);
        const unsigned column = n * 8 + t.lane() % 4 * 2;
        if (Shape::tiles == 1 && column >= width) return;
        const auto two = staged_sums.template as<exec::gpu::HalfChunk>();
        const exec::gpu::HalfChunk words = two[(pair * width + column) / 2];
        of_columns[0] = __builtin_bit_cast(float, words.words[0]);
        of_columns[1] = __builtin_bit_cast(float, words.words[1]);
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
