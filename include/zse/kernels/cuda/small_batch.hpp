// SPDX-License-Identifier: Apache-2.0
// Products of packed matrices with up to 64 tokens on a GPU: every weight is read once, straight into registers.
#pragma once

#include <zse/kernels/cuda/calls.hpp>
#include <zse/kernels/cuda/silu.hpp>
#include <zse/kernels/cuda/small_batch_unit.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

template <class Codec, class Shape_>
struct SmallBatchKernel {
    using Shape = Shape_;
    using Weights = Fragment<Codec>;
    using Product = UnitProduct<Codec, Shape>;
    using Rows = typename Product::Rows;
    static constexpr unsigned threads = Shape::threads;
    /// float32 is there to compare with, and is no faster for more blocks.
    static constexpr unsigned blocks_per_sm = Weights::split_values ? 1 : Shape::blocks_per_sm;

    LinearCall::Output outputs[3];  ///< of a gated product: gate with what it writes, and the weights of up
    std::uint32_t count = 0;
    Rows x;
    std::uint32_t* out_greatest = nullptr;  ///< of a gated product
    std::byte* workspace = nullptr;
    std::uint32_t splits = 1;       ///< blocks that share rows
    std::uint32_t split_units = 0;  ///< units of the columns of each
    std::uint32_t slices = 1;       ///< blocks that share weights, for some of the tokens each

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
               Bytes{row_blocks()} * slices * splits * Shape::weight_rows * slice_tokens() * sizeof(float);
    }
    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        // Blocks that share weights are neighbours, so that those come from memory once.
        return {{slices * row_blocks(), splits, 1}, threads, shared_bytes()};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        unsigned block = t.block().x / slices;
        const unsigned first_token = Shape::sliced ? t.block().x % slices * slice_tokens() : 0;
        unsigned which = 0;
        if constexpr (!Shape::gated) {
            for (; which + 1 < count && block >= row_blocks(outputs[which].rows); ++which) {
                block -= row_blocks(outputs[which].rows);
            }
        }
        // Stays where arguments are: registers are scarce here.
        const LinearCall::Output& output = outputs[which];
        Sums sums;
        multiply(t, output, block, first_token, sums);
        share(t, sums);
        finish(t, output, block * Shape::rows, first_token);
    }

private:
    using Sums = typename Product::Sums;
    static constexpr unsigned unit_pairs = Product::unit_pairs;

    /// Loads of a lane that are under way, in units for each group. Registers are what bounds them.
    static constexpr unsigned unit_registers = Weights::unit_chunks * 4 + Weights::header_words;
    static constexpr unsigned ring_registers = Shape::k_ways == 1 ? 60 : 40;
    static constexpr unsigned fitting = ring_registers / (unit_registers * Shape::groups);
    static constexpr unsigned least = unit_registers > 10 ? 1 : 2;
    static constexpr unsigned ring = fitting < least ? least : fitting > 6 ? 6 : fitting;

    /// Activations that are staged at once: what lets the blocks of a multiprocessor (227 KiB) be there together, within
    /// the 99 KiB that a block of a smaller GPU may have.
    static constexpr unsigned most_staged = 192 * 1024 / Shape::blocks_per_sm;
    static constexpr unsigned round = Shape::k_ways * ring;  ///< units of one turn of all rings

    /// Tokens of a slice; the last may have fewer.
    [[nodiscard]] ZSE_DEVICE constexpr unsigned slice_tokens() const noexcept {
        return (x.tokens + slices - 1) / slices;
    }
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
        const unsigned used = split_units < stage_units(x.width) ? split_units : stage_units(x.width);
        const unsigned staged = used * unit_pairs * Rows::pair_bytes(x.width);
        const unsigned sums = sum_floats * sizeof(float);
        return (staged > sums ? staged : sums) + sizeof(exec::gpu::Chunk);
    }

    /// Where the groups of rows of a warp begin; false where there are none. A last odd group is read twice, and one of
    /// its results is dropped.
    template <class T>
    ZSE_DEVICE bool find_groups(T& t, const LinearCall::Output& output, unsigned block,
                                const std::byte* (&groups)[Shape::groups]) const {
        constexpr unsigned of_both = Shape::gated ? 2 : 1;
        const std::uint64_t bytes = weights::MmaLayout{Codec::format, x.columns}.group_bytes();
        const unsigned first = block * Shape::block_groups + t.warp() / Shape::k_ways * Shape::groups;
        const unsigned all = (output.rows + 15) / 16;
        ZSE_UNROLL
        for (unsigned m = 0; m < Shape::groups; ++m) {
            const unsigned group = (first + m) / of_both;
            const bool up = Shape::gated && (first + m) % 2 == 1;
            groups[m] = (up ? outputs[1].weights : output.weights) + (group < all ? group : all - 1) * bytes;
        }
        return first / of_both < all;
    }

    template <class T>
    ZSE_DEVICE void multiply(T& t, const LinearCall::Output& output, unsigned block, unsigned first_token,
                             Sums& sums) const {
        const std::byte* next[Shape::groups];
        const bool busy = find_groups(t, output, block, next);
        const unsigned way = t.warp() % Shape::k_ways;
        const unsigned first = t.block().y * split_units;
        const unsigned all = units(x.columns);
        const unsigned last = first + split_units < all ? first + split_units : all;

        // Units of this warp, one after the other, each the ways' stride further on.
        unsigned left = busy && first + way < last ? (last - first - way - 1) / Shape::k_ways + 1 : 0;
        ZSE_UNROLL
        for (unsigned m = 0; m < Shape::groups; ++m) {
            next[m] += static_cast<std::size_t>(first + way) * Weights::unit_bytes;
        }
        typename Weights::Unit loaded[ring][Shape::groups] = {};
        const auto load = [&](typename Weights::Unit(&to)[Shape::groups]) {
            if (left == 0) return;
            --left;
            ZSE_UNROLL
            for (unsigned m = 0; m < Shape::groups; ++m) {
                Weights::load(t, next[m], to[m]);
                next[m] += Shape::k_ways * Weights::unit_bytes;
            }
        };
        // Weights are under way before activations, which the kernel before this one has just written.
        ZSE_UNROLL
        for (unsigned i = 0; i < ring; ++i) load(loaded[i]);
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
            x.template stage<threads>(t, first_token, at * unit_columns, (end - at) * unit_pairs, staged,
                                      staged_sums);
            t.sync();
            if (!busy) continue;
            for (unsigned unit = at + way; unit < end; unit += round) {
                ZSE_UNROLL
                for (unsigned i = 0; i < ring; ++i) {
                    const unsigned here = unit + i * Shape::k_ways;
                    if (here >= end) break;
                    Product::add(t, loaded[i], (here - at) * unit_pairs, width(), staged, staged_sums, sums);
                    load(loaded[i]);
                }
            }
        }
    }
    /// The stage of so many units: operands, and sums behind them.
    template <class T>
    ZSE_DEVICE auto staged_chunks(T& t, unsigned units_here) const {
        return t.template shared<exec::gpu::Chunk>(0, units_here * unit_pairs * width() * 4);
    }
    template <class T>
    ZSE_DEVICE auto sums_of(T& t, unsigned units_here) const {
        const unsigned pairs = Weights::has_minimum ? units_here * unit_pairs : 0;
        return t.template shared<float>(pairs * width() * 4 * sizeof(exec::gpu::Chunk), pairs * width());
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
    ZSE_DEVICE void finish(T& t, const LinearCall::Output& output, unsigned first_row,
                           unsigned first_token) const {
        const unsigned left = x.tokens - first_token;
        const unsigned values = Shape::rows * (left < slice_tokens() ? left : slice_tokens());
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
                const float down = HalfRange::of(t.load(x.greatest + first_token + token)).down;
                ZSE_UNROLL
                for (unsigned m = 0; m < (Shape::gated ? 2 : 1); ++m) {
                    const unsigned weight_row = place(row, m);
                    results[m] = down * (alone ? shared_sum(t, weight_row, token)
                                               : all_splits(t, token * Shape::weight_rows + weight_row));
                }
            }
            if constexpr (Shape::gated) {
                put_gated(t, output, first_row + row, first_token + token, inside, results);
            } else if (inside) {
                put(output, first_row + row, first_token + token, results[0]);
            }
        }
    }
    /// Where in the block the weights of a row of results are; `m` says whether those of gate or of up.
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
        const float value = silu(t, results[0]) * results[1];
        if (inside) output.y[token * output.y_stride + row] = value;
        std::uint32_t most = inside ? __builtin_bit_cast(std::uint32_t, value) & 0x7fffffffu : 0;
        ZSE_UNROLL
        for (unsigned mask = 1; mask < 16; mask *= 2) {
            most = exec::gpu::Greatest{}(most, t.shuffle_xor(most, mask));
        }
        if (inside && row % 16 == 0) t.atomic_max(out_greatest + token, most);
    }

    /// `[blocks][splits][slice_tokens][weight_rows]`.
    template <class T>
    ZSE_DEVICE float* partials(T& t, unsigned split) const {
        auto* const all = reinterpret_cast<float*>(workspace + Workspace::zeros);
        return all +
               (static_cast<std::size_t>(t.block().x) * splits + split) * Shape::weight_rows * slice_tokens();
    }
    /// Leaves the sums of this block for the last of those that share its rows; true in that one.
    template <class T>
    ZSE_DEVICE bool arrive(T& t) const {
        float* const mine = partials(t, t.block().y);
        for (unsigned i = t.thread(); i < Shape::weight_rows * slice_tokens(); i += threads) {
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
        const std::size_t stride = std::size_t{Shape::weight_rows} * slice_tokens();
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
