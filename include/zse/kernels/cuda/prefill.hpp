// SPDX-License-Identifier: Apache-2.0
// Products of packed matrices with many tokens on a GPU: plain ones, and silu(gate) * up in one launch.
#pragma once

#include <zse/kernels/cuda/calls.hpp>
#include <zse/kernels/cuda/gated_tile.hpp>
#include <zse/kernels/cuda/workspace.hpp>
#include <zse/policy/list.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// y_i = W_i x for up to three matrices. Blocks of one row of tiles have neighbouring numbers, so that weights come from
/// memory once, and from the level-2 cache for further tokens.
template <class Codec, class Shape>
struct PrefillKernel {
    using Tile = ProductTile<Codec, Shape>;
    static constexpr unsigned threads = Shape::threads;
    static constexpr unsigned blocks_per_sm = ProductTile<Codec, Shape>::blocks_per_sm;
    static constexpr unsigned tile_rows = Shape::groups * weights::MmaLayout::rows;

    LinearCall::Output outputs[3];
    std::uint32_t count = 0;
    std::uint32_t tokens = 0;
    HalfRows x;

    /// Tiles over the rows of a matrix.
    static constexpr std::uint32_t tiles(std::uint32_t rows) noexcept {
        return (rows + tile_rows - 1) / tile_rows;
    }
    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        std::uint32_t all = 0;
        for (std::uint32_t i = 0; i < count; ++i) all += tiles(outputs[i].rows);
        return {{(tokens + Shape::tokens - 1) / Shape::tokens, all, 1}, threads, Tile::shared_bytes};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        typename Tile::Sums sums;
        {
            const Place at = place(t);
            const LinearCall::Output& output = outputs[at.output];
            Tile::multiply(
                t, x,
                [&](unsigned g) {
                    return Tile::group_at(output.weights, x.columns, output.rows, at.first_row, g);
                },
                [&](unsigned i) { return at.first_token + i; }, at.tokens, sums);
        }
        const auto [which, first_row, first_token, here] = place(t);
        const LinearCall::Output& output = outputs[which];
        ZSE_UNROLL
        for (unsigned j = 0; j < Shape::token_tiles; ++j) {
            ZSE_UNROLL
            for (unsigned odd = 0; odd < 2; ++odd) {
                const unsigned token = Tile::token_of(t, j, odd);
                if (token >= here) continue;
                const float factor = x.factors[first_token + token] * Tile::unit;
                float* y = output.y + (first_token + token) * output.y_stride;
                ZSE_UNROLL
                for (unsigned i = 0; i < Shape::row_tiles; ++i) {
                    ZSE_UNROLL
                    for (unsigned v = odd; v < 4; v += 2) {
                        const unsigned row = first_row + Tile::group_place(t, i) * 16 + Tile::row_of(t, v);
                        if (row >= output.rows) continue;
                        float value = sums[i][j].values[v] * factor;
                        if (output.bias != nullptr) value += output.bias[row];
                        if (output.accumulate) value += y[row];
                        y[row] = value;
                    }
                }
            }
        }
    }

private:
    struct Place {
        unsigned output;
        unsigned first_row;
        unsigned first_token;
        unsigned tokens;
    };
    /// Where the block's tile is. It is asked for before and after the sums, through a shuffle that compilers do not see
    /// through, so that no register holds the answer meanwhile.
    template <class T>
    ZSE_DEVICE Place place(T& t) const {
        unsigned tile = t.shuffle(t.block().y, 0);
        unsigned which = 0;
        while (which + 1 < count && tile >= tiles(outputs[which].rows)) {
            tile -= tiles(outputs[which].rows);
            ++which;
        }
        const unsigned first = t.shuffle(t.block().x, 0) * Shape::tokens;
        return {which, tile * tile_rows, first,
                tokens - first < Shape::tokens ? tokens - first : Shape::tokens};
    }
};

/// out = silu(gate x) * (up x).
template <class Codec, class Shape>
struct PrefillGatedKernel {
    using Gated = GatedTile<Codec, Shape>;
    static constexpr unsigned threads = Shape::threads;
    static constexpr unsigned blocks_per_sm = ProductTile<Codec, Shape>::blocks_per_sm;

    GatedMatrices matrices;
    std::uint32_t tokens = 0;
    HalfRows x;
    float* out = nullptr;                   ///< `[tokens, rows]`
    std::uint32_t* out_greatest = nullptr;  ///< `[tokens]`, or null

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{(tokens + Shape::tokens - 1) / Shape::tokens, Gated::tiles(matrices.rows), 1},
                threads,
                Gated::Tile::shared_bytes};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        typename Gated::Tile::Sums sums;
        {
            const Place at = place(t);
            Gated::multiply(
                t, matrices, x, [&](unsigned i) { return at.first + i; }, at.tokens, sums);
        }
        const Place at = place(t);
        Gated::store(
            t, matrices.rows, x, [&](unsigned i) { return at.first + i; }, at.tokens, sums, at.first, out,
            out_greatest);
    }

private:
    struct Place {
        unsigned first;
        unsigned tokens;
    };
    /// See PrefillKernel.
    template <class T>
    ZSE_DEVICE Place place(T& t) const {
        const unsigned first = t.shuffle(t.block().x, 0) * Shape::tokens;
        return {first, tokens - first < Shape::tokens ? tokens - first : Shape::tokens};
    }
};

/// Bytes of LinearCall::workspace and GatedCall::workspace for products with up to `tokens` tokens: the last ones of
/// it, as kernels for small batches keep zeros in the first ones.
constexpr Bytes prefill_workspace_bytes(std::uint32_t columns, std::uint64_t tokens) noexcept {
    return HalfRows::bytes(columns, tokens);
}

namespace detail {

/// A wide tile multiplies faster, where there are enough for all of a GPU; where not, small ones are.
template <class Kernel>
bool fills_gpu(const Kernel& kernel) noexcept {
    const exec::gpu::Launch launch = kernel.launch();
    return std::uint64_t{launch.blocks.x} * launch.blocks.y >= Workspace::full;
}

/// The rows of a call as halves, in its workspace.
template <class Launcher, class Call>
HalfRows halves_of(exec::gpu::Stream& stream, const Call& call) noexcept {
    const Bytes needed = prefill_workspace_bytes(call.columns, call.tokens);
    if (call.workspace_bytes < needed) {
        stream.fail(1, "zse: the workspace of a product is too small for so many tokens");
        return {};
    }
    std::byte* last =
        call.workspace + (call.workspace_bytes - needed) / HalfRows::alignment * HalfRows::alignment;
    const HalfRows halves = HalfRows::in(last, call.columns, call.tokens);
    Launcher::launch(stream, HalvesKernel{call.x, call.greatest, call.tokens, halves});
    return halves;
}

}  // namespace detail

/// The products of a call, for more tokens than kernels for small batches take (64). Activations are rounded to 11 bits
/// below the greatest of their row, weights to 11 bits: see ProductTile. The bits of a row depend on no other row, but
/// they are not those that kernels for small batches give; so where LinearCall::invariant is set the caller uses those
/// kernels for any number of tokens, and this one ignores it.
template <class Codec, class Launcher>
void prefill_linear(exec::gpu::Stream& stream, const LinearCall& call) noexcept {
    PrefillKernel<Codec, WideTile> wide;
    for (std::uint32_t i = 0; i < call.count; ++i) wide.outputs[i] = call.outputs[i];
    wide.count = call.count;
    wide.tokens = call.tokens;
    wide.x = detail::halves_of<Launcher>(stream, call);
    if (detail::fills_gpu(wide)) return Launcher::launch(stream, wide);
    PrefillKernel<Codec, SmallTile> small;
    for (std::uint32_t i = 0; i < call.count; ++i) small.outputs[i] = call.outputs[i];
    small.count = wide.count;
    small.tokens = wide.tokens;
    small.x = wide.x;
    Launcher::launch(stream, small);
}

/// Likewise of a gated call.
template <class Codec, class Launcher>
void prefill_gated(exec::gpu::Stream& stream, const GatedCall& call) noexcept {
    const GatedMatrices matrices{call.gate, call.up, call.rows};
    const HalfRows x = detail::halves_of<Launcher>(stream, call);
    const PrefillGatedKernel<Codec, WideTile> wide{matrices, call.tokens, x, call.out, call.out_greatest};
    if (detail::fills_gpu(wide)) return Launcher::launch(stream, wide);
    Launcher::launch(
        stream, PrefillGatedKernel<Codec, SmallTile>{matrices, call.tokens, x, call.out, call.out_greatest});
}

/// The kernels that the above launch, for the file that compiles them.
template <class Codec>
struct PrefillKernelList {
    using type = policy::List<HalvesKernel, PrefillKernel<Codec, WideTile>, PrefillKernel<Codec, SmallTile>,
                              PrefillGatedKernel<Codec, WideTile>, PrefillGatedKernel<Codec, SmallTile>>;
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
