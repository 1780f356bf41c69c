// SPDX-License-Identifier: Apache-2.0
// Products of packed matrices with up to 64 tokens on a GPU: every weight is read once, straight into registers.
#pragma once

#include <zse/kernels/cuda/calls.hpp>
#include <zse/kernels/cuda/staged_rows.hpp>
#include <zse/kernels/cuda/workspace.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// How the 8 warps of a block share its work: `KWays` of them take turns at the columns of the same rows, the other ways
/// are further rows. `Tiles` times 8 fragment columns are what the activations take.
///
/// What bounds few tokens is memory: at 4.8 TB/s and a latency of 700 ns, 25 KiB have to be under way on each of an H200's
/// 132 multiprocessors. A lane therefore keeps a ring of loads of 16 bytes, and a warp one group of rows, so that even a
/// matrix of 4096 rows makes 256 blocks. From two tiles on, two groups of rows share what is read of the activations
/// (shared memory gives 128 bytes a cycle, a lane reads 16 bytes for two mma), and from four on blocks have 128 rows,
/// because each of them reads all activations from the level-2 cache: 4 bytes of each token against 72 bytes of 4-bit
/// weights for each column.
template <unsigned Tiles, unsigned KWays, bool Gated>
struct SmallBatchShape {
    static constexpr unsigned threads = 256;
    static constexpr unsigned warps = threads / exec::cuda::warp_threads;
    static constexpr unsigned tiles = Tiles;
    static constexpr unsigned k_ways = KWays;
    static constexpr unsigned row_ways = warps / KWays;
    static constexpr bool gated = Gated;
    /// Groups of rows of a warp; of a gated product one of gate and the same of up.
    static constexpr unsigned groups = Gated || Tiles > 1 ? 2 : 1;
    static constexpr unsigned weight_rows = row_ways * groups * weights::MmaLayout::rows;
    /// Rows of results that a block has.
    static constexpr unsigned rows = Gated ? weight_rows / 2 : weight_rows;
    static_assert(weight_rows <= Workspace::most_rows);
};

template <class Codec, class Shape_>
struct SmallBatchKernel {
    using Shape = Shape_;
    using Weights = Fragment<Codec>;
    using Rows = StagedRows<Weights::bfloat, Weights::has_minimum>;
    static constexpr unsigned threads = Shape::threads;
    /// Three blocks of few tokens; what 8 tiles sum up takes half of the registers that two blocks leave. float32 is
    /// there to compare with, and is no faster for more blocks.
    static constexpr unsigned blocks_per_sm = Weights::split_values ? 1 : Shape::tiles * Shape::groups == 1 ? 3 : 2;

    LinearCall::Output outputs[3];  ///< of a gated product: gate with what it writes, and the weights of up
    std::uint32_t count = 0;
    Rows x;
    std::uint32_t* out_greatest = nullptr;  ///< of a gated product
    std::byte* workspace = nullptr;
    std::uint32_t splits = 1;       ///< blocks that share rows
    std::uint32_t split_units = 0;  ///< units of the columns of each

    static constexpr unsigned unit_columns = Weights::unit_steps * 16;
    static constexpr std::uint32_t units(std::uint32_t columns) noexcept {
        return (columns + unit_columns - 1) / unit_columns;
    }
    static constexpr std::uint32_t row_blocks(std::uint32_t rows) noexcept {
        return (rows + Shape::rows - 1) / Shape::rows;
    }
    [[nodiscard]] std::uint32_t row_blocks() const noexcept {
        std::uint32_t sum = 0;
        for (std::uint32_t i = 0; i < count; ++i) sum += row_blocks(outputs[i].rows);
        return sum;
    }
    /// Bytes of the workspace that are used.
    [[nodiscard]] Bytes partial_bytes() const noexcept {
        if (splits == 1) return 0;
        return Workspace::zeros +
               Bytes{row_blocks()} * splits * Shape::weight_rows * x.tokens * sizeof(float);
    }
    [[nodiscard]] exec::cuda::Launch launch() const noexcept {
        return {{row_blocks(), splits, 1}, threads, shared_bytes()};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        unsigned block = t.block().x;
        unsigned which = 0;
        if constexpr (!Shape::gated) {
            for (; which + 1 < count && block >= row_blocks(outputs[which].rows); ++which) {
                block -= row_blocks(outputs[which].rows);
            }
        }
        // Stays where arguments are: registers are scarce here.
        const LinearCall::Output& output = outputs[which];
        Sums sums;
        multiply(t, output, block, sums);
        share(t, sums);
        finish(t, output, block * Shape::rows);
    }

private:
    using Sums = exec::cuda::FragmentD[Shape::groups][Shape::tiles];

    /// Columns whose products are summed before their scale is applied: a block's, or a part of one.
    static constexpr unsigned run_most = Shape::tiles == 8 ? 2 : 4;  // operands of a run are in registers
    static constexpr unsigned run_steps = Weights::block_steps < run_most ? Weights::block_steps : run_most;
    static constexpr unsigned dense_steps = 2;
    static constexpr unsigned run = Weights::scaled ? run_steps : dense_steps;
    static constexpr unsigned unit_pairs = Weights::unit_steps / 2;

    /// Loads of a lane that are under way, in units for each group. Registers are what bounds them.
    static constexpr unsigned unit_registers = Weights::unit_chunks * 4 + Weights::header_words;
    static constexpr unsigned ring_registers = Shape::tiles <= 2 ? 40 : 28;
    static constexpr unsigned fitting = ring_registers / (unit_registers * Shape::groups);
    static constexpr unsigned least = unit_registers > 10 ? 1 : 2;
    static constexpr unsigned ring = fitting < least ? least : fitting > 4 ? 4 : fitting;

    /// Activations that are staged at once, of a split: three blocks of so much fit into a multiprocessor.
    static constexpr unsigned most_staged = 64 * 1024;
    static constexpr unsigned round = Shape::k_ways * ring;  ///< units of one turn of all rings

    [[nodiscard]] ZSE_DEVICE unsigned width() const { return Shape::tiles == 1 ? x.width : Shape::tiles * 8; }
    /// Units of a stage: whole turns of the rings.
    static constexpr unsigned stage_units(unsigned width) noexcept {
        const unsigned fit = most_staged / (Rows::pair_bytes(width) * unit_pairs) / round * round;
        return fit < round ? round : fit;
    }
    /// Floats from row to row of the sums that warps share. Eight rows begin in different banks.
    static constexpr unsigned sum_stride(unsigned tokens) noexcept { return (tokens + 7) / 8 * 8 | 8; }
    static constexpr unsigned sum_floats = Shape::k_ways * Shape::weight_rows * sum_stride(Shape::tiles * 8);

    [[nodiscard]] unsigned shared_bytes() const noexcept {
        const unsigned used = split_units < stage_units(x.width) ? (split_units + round - 1) / round * round
                                                                 : stage_units(x.width);
        const unsigned staged = used * unit_pairs * Rows::pair_bytes(x.width);
        const unsigned sums = sum_floats * sizeof(float);
        return (staged > sums ? staged : sums) + sizeof(exec::cuda::Chunk);
    }

    /// The groups of rows that a warp has; null past the end of the matrix.
    template <class T>
    ZSE_DEVICE void find_groups(T& t, const LinearCall::Output& output, unsigned block,
                                const std::byte* (&groups)[Shape::groups]) const {
        const std::uint64_t bytes = weights::MmaLayout{Codec::format, x.columns}.group_bytes();
        const unsigned way = block * Shape::row_ways + t.warp() / Shape::k_ways;
        const unsigned all = (output.rows + 15) / 16;
        ZSE_UNROLL
        for (unsigned m = 0; m < Shape::groups; ++m) {
            const unsigned group = Shape::gated ? way : way * Shape::groups + m;
            const std::byte* const matrix = Shape::gated && m == 1 ? outputs[1].weights : output.weights;
            groups[m] = group < all ? matrix + group * bytes : nullptr;
        }
        // A last odd group is read twice, and one of its results is dropped.
        if constexpr (Shape::groups == 2) {
            if (groups[1] == nullptr) groups[1] = groups[0];
        }
    }

    template <class T>
    ZSE_DEVICE void multiply(T& t, const LinearCall::Output& output, unsigned block, Sums& sums) const {
        const std::byte* groups[Shape::groups];
        find_groups(t, output, block, groups);
        const bool busy = groups[0] != nullptr;
        const unsigned way = t.warp() % Shape::k_ways;
        const unsigned first = t.block().y * split_units;
        const unsigned all = units(x.columns);
        const unsigned last = first + split_units < all ? first + split_units : all;

        typename Weights::Unit loaded[ring][Shape::groups] = {};
        const auto load = [&](unsigned unit, typename Weights::Unit(&to)[Shape::groups]) {
            if (!busy || unit >= last) return;
            ZSE_UNROLL
            for (unsigned m = 0; m < Shape::groups; ++m) {
                Weights::load(t, groups[m] + static_cast<std::size_t>(unit) * Weights::unit_bytes, to[m]);
            }
        };
        // Weights are under way before activations, which the kernel before this one has just written.
        ZSE_UNROLL
        for (unsigned i = 0; i < ring; ++i) load(first + way + i * Shape::k_ways, loaded[i]);
        ZSE_UNROLL
        for (unsigned m = 0; m < Shape::groups; ++m) {
            ZSE_UNROLL
            for (unsigned n = 0; n < Shape::tiles; ++n) sums[m][n] = {};
        }
        const unsigned stage_most = stage_units(width());
        for (unsigned at = first; at < last; at += stage_most) {
            const unsigned end = at + stage_most < last ? at + stage_most : last;
            const auto staged = staged_chunks(t, end - at);
            const auto staged_sums = sums_of(t, end - at);
            if (at != first) t.sync();
            x.template stage<threads>(t, at * unit_columns, (end - at) * unit_pairs, staged, staged_sums);
            t.sync();
            if (!busy) continue;
            for (unsigned unit = at + way; unit < end; unit += round) {
                ZSE_UNROLL
                for (unsigned i = 0; i < ring; ++i) {
                    const unsigned here = unit + i * Shape::k_ways;
                    if (here >= end) break;
                    add_unit(t, loaded[i], (here - at) * unit_pairs, staged, staged_sums, sums);
                    load(here + round, loaded[i]);
                }
            }
        }
    }
    /// The stage of so many units: operands, and sums behind them.
    template <class T>
    ZSE_DEVICE auto staged_chunks(T& t, unsigned units_here) const {
        return t.template shared<exec::cuda::Chunk>(0, units_here * unit_pairs * width() * 4);
    }
    template <class T>
    ZSE_DEVICE auto sums_of(T& t, unsigned units_here) const {
        const unsigned pairs = Weights::has_minimum ? units_here * unit_pairs : 0;
        return t.template shared<float>(pairs * width() * 4 * sizeof(exec::cuda::Chunk), pairs * width());
    }

    /// sums += one unit of the weights times the activations that begin with pair `pair` of the stage.
    template <class T, class Chunks, class Floats>
    ZSE_DEVICE void add_unit(T& t, const typename Weights::Unit (&unit)[Shape::groups], unsigned pair,
                             const Chunks& staged, const Floats& staged_sums, Sums& sums) const {
        ZSE_UNROLL
        for (unsigned s = 0; s < Weights::unit_steps; s += run) {
            if (s != 0) t.sync_warp();
            exec::cuda::FragmentA a[Shape::groups][run];
            exec::cuda::FragmentA rests[Shape::groups];
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
                exec::cuda::FragmentB b[run];
                read_operands(t, staged, pair + s / 2, s % 2, n, b);
                float of_columns[2] = {};
                if constexpr (Weights::has_minimum) read_sums(t, staged_sums, pair + s / 2, n, of_columns);
                ZSE_UNROLL
                for (unsigned m = 0; m < Shape::groups; ++m) {
                    if constexpr (Weights::scaled) {
                        exec::cuda::FragmentD d;
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
    /// The operands of `run` steps from the first (or, where odd, the second) of a pair on, for tile n.
    template <class T, class Chunks>
    ZSE_DEVICE void read_operands(T& t, const Chunks& staged, unsigned pair, unsigned odd, unsigned n,
                                  exec::cuda::FragmentB (&b)[run]) const {
        const unsigned column = n * 8 + t.lane() / 4;
        // One tile holds the columns of the tokens that there are, others are full.
        const bool inside = Shape::tiles > 1 || column < width();
        ZSE_UNROLL
        for (unsigned i = 0; i < (run + 1) / 2; ++i) {
            exec::cuda::Chunk two{};
            if (inside) two = staged[Rows::chunk_at(width(), pair + i, column, t.lane())];
            if constexpr (run == 1) {
                b[0] = odd == 0 ? exec::cuda::FragmentB{{two.words[0], two.words[1]}}
                                : exec::cuda::FragmentB{{two.words[2], two.words[3]}};
            } else {
                b[2 * i] = {{two.words[0], two.words[1]}};
                b[2 * i + 1] = {{two.words[2], two.words[3]}};
            }
        }
    }
    /// The sums of the activations of a run, for the two columns of a result that a lane has.
    template <class T, class Floats>
    ZSE_DEVICE void read_sums(T& t, const Floats& staged_sums, unsigned pair, unsigned n,
                              float (&of_columns)[2]) const {
        static_assert(!Weights::has_minimum || run == 2);
        const unsigned column = n * 8 + t.lane() % 4 * 2;
        if (Shape::tiles == 1 && column >= width()) return;
        const auto two = staged_sums.template as<exec::cuda::HalfChunk>();
        const exec::cuda::HalfChunk words = two[(pair * width() + column) / 2];
        of_columns[0] = __builtin_bit_cast(float, words.words[0]);
        of_columns[1] = __builtin_bit_cast(float, words.words[1]);
    }

    /// Tokens of a tile, and of all.
    [[nodiscard]] ZSE_DEVICE unsigned tile_tokens() const { return x.split ? 4 : 8; }

    /// Sums of all warps to shared memory: `[k_ways][weight_rows][stride]`, tokens in a row.
    template <class T>
    ZSE_DEVICE void share(T& t, const Sums& sums) const {
        const unsigned stride = sum_stride(Shape::tiles * tile_tokens());
        const auto shared = t.template shared<float>(0, sum_floats);
        t.sync();
        const unsigned way = t.warp() % Shape::k_ways;
        ZSE_UNROLL
        for (unsigned m = 0; m < Shape::groups; ++m) {
            ZSE_UNROLL
            for (unsigned half = 0; half < 2; ++half) {
                const unsigned row =
                    (t.warp() / Shape::k_ways * Shape::groups + m) * 16 + half * 8 + t.lane() / 4;
                const unsigned at = (way * Shape::weight_rows + row) * stride;
                ZSE_UNROLL
                for (unsigned n = 0; n < Shape::tiles; ++n) {
                    const float a = sums[m][n].values[half * 2];
                    const float b = sums[m][n].values[half * 2 + 1];
                    if (x.split) {
                        shared[at + n * 4 + t.lane() % 4] = a + b * (1 / Rows::rest);
                    } else {
                        shared[at + n * 8 + t.lane() % 4 * 2] = a;
                        shared[at + n * 8 + t.lane() % 4 * 2 + 1] = b;
                    }
                }
            }
        }
        t.sync();
    }

    /// The sum of the block for one of its rows of weights and a token, the warps' in order.
    template <class T>
    ZSE_DEVICE float shared_sum(T& t, unsigned weight_row, unsigned token) const {
        const unsigned stride = sum_stride(Shape::tiles * tile_tokens());
        const auto shared = t.template shared<float>(0, sum_floats);
        float sum = shared[weight_row * stride + token];
        ZSE_UNROLL
        for (unsigned way = 1; way < Shape::k_ways; ++way) {
            sum += shared[(way * Shape::weight_rows + weight_row) * stride + token];
        }
        return sum;
    }

    /// Results from the sums of this block, or from those of all blocks that share its rows, by the last of them.
    template <class T>
    ZSE_DEVICE void finish(T& t, const LinearCall::Output& output, unsigned first_row) const {
        const unsigned values = Shape::rows * x.tokens;
        const unsigned turns = (values + threads - 1) / threads;
        const bool alone = splits == 1;
        if (!alone && !arrive(t)) return;
        for (unsigned turn = 0; turn < turns; ++turn) {
            const unsigned i = turn * threads + t.thread();
            const unsigned token = i / Shape::rows;
            const unsigned row = i % Shape::rows;
            const bool inside = i < values && first_row + row < output.rows;
            float results[Shape::gated ? 2 : 1] = {};
            if (inside) {
                const float down = HalfRange::of(t.load(x.greatest + token)).down;
                ZSE_UNROLL
                for (unsigned m = 0; m < (Shape::gated ? 2 : 1); ++m) {
                    const unsigned weight_row = place(row, m);
                    results[m] = down * (alone ? shared_sum(t, weight_row, token)
                                               : all_splits(t, token * Shape::weight_rows + weight_row));
                }
            }
            if constexpr (Shape::gated) {
                put_gated(t, output, first_row + row, token, inside, results);
            } else if (inside) {
                put(output, first_row + row, token, results[0]);
            }
        }
    }
    /// Where in the block the weights of a row of results are; m says whether of gate or of up.
    ZSE_DEVICE static constexpr unsigned place(unsigned row, unsigned m) noexcept {
        return Shape::gated ? row / 16 * 32 + m * 16 + row % 16 : row;
    }
    ZSE_DEVICE static void put(const LinearCall::Output& output, unsigned row, unsigned token, float value) {
        float* const y = output.y + token * output.y_stride + row;
        if (output.bias != nullptr) value += output.bias[row];
        *y = output.accumulate ? *y + value : value;
    }
    /// out = silu(gate) * up. The lanes of a warp have 16 or 32 rows of one or two tokens.
    template <class T>
    ZSE_DEVICE void put_gated(T& t, const LinearCall::Output& output, unsigned row, unsigned token,
                              bool inside, const float (&results)[2]) const {
        constexpr float log2_e = 1.44269504f;
        const float value = results[0] / (1.0f + t.exp2(-results[0] * log2_e)) * results[1];
        if (inside) output.y[token * output.y_stride + row] = value;
        std::uint32_t most = inside ? __builtin_bit_cast(std::uint32_t, value) & 0x7fffffffu : 0;
        ZSE_UNROLL
        for (unsigned mask = 1; mask < 16; mask *= 2) {
            most = exec::cuda::Greatest{}(most, t.shuffle_xor(most, mask));
        }
        if (inside && row % 16 == 0) t.atomic_max(out_greatest + token, most);
    }

    /// `[row_blocks][splits][tokens][weight_rows]`.
    template <class T>
    ZSE_DEVICE float* partials(T& t, unsigned split) const {
        auto* const all = reinterpret_cast<float*>(workspace + Workspace::zeros);
        return all + (static_cast<std::size_t>(t.block().x) * splits + split) * Shape::weight_rows * x.tokens;
    }
    /// Leaves the sums of this block for the last of those that share its rows; true in that one.
    template <class T>
    ZSE_DEVICE bool arrive(T& t) const {
        float* const mine = partials(t, t.block().y);
        for (unsigned i = t.thread(); i < Shape::weight_rows * x.tokens; i += threads) {
            mine[i] = shared_sum(t, i % Shape::weight_rows, i / Shape::weight_rows);
        }
        t.fence();
        t.sync();
        const auto flag = t.template shared<std::uint32_t>(0, 1);
        if (t.thread() == 0) {
            auto* const counter = reinterpret_cast<std::uint32_t*>(workspace) + t.block().x;
            const bool is_last = t.atomic_add(counter, 1) + 1 == splits;
            if (is_last) *counter = 0;
            flag[0] = is_last ? 1 : 0;
        }
        t.sync();
        const std::uint32_t is_last = flag[0];
        t.fence();
        return is_last != 0;
    }
    /// A sum over the splits, in order.
    template <class T>
    ZSE_DEVICE float all_splits(T& t, unsigned i) const {
        const float* const first = partials(t, 0) + i;
        const std::size_t stride = std::size_t{Shape::weight_rows} * x.tokens;
        float parts[Workspace::most_splits];
        ZSE_UNROLL
        for (unsigned s = 0; s < Workspace::most_splits; ++s) {
            parts[s] = s < splits ? t.load_fresh(first + s * stride) : 0.0f;
        }
        float sum = parts[0];
        ZSE_UNROLL
        for (unsigned s = 1; s < Workspace::most_splits; ++s) sum += parts[s];
        return sum;
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
