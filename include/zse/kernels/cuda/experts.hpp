// SPDX-License-Identifier: Apache-2.0
// A layer of experts on a GPU: tokens are routed, each expert multiplies its own, and their results are added.
#pragma once

#include <zse/exec/cuda/stream.hpp>
#include <zse/kernels/cuda/gated_tile.hpp>
#include <zse/kernels/cuda/router.hpp>
#include <zse/policy/list.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// y[token] = sum over the token's experts of weight * down(silu(gate x) * (up x)). A matrix of experts is that of one
/// expert after the other, each as weights::MmaLayout packs it. Weights and activations are rounded to 11 bits for any
/// number of tokens (see ProductTile), and the bits of a token's row depend on no other token.
struct ExpertsCall {
    const std::byte* gate = nullptr;  ///< `[experts]` of `[inner, columns]`
    const std::byte* up = nullptr;    ///< likewise, of one codec
    const std::byte* down = nullptr;  ///< `[experts]` of `[columns, inner]`
    std::uint32_t experts = 0;        ///< up to RouterKernel::most_experts
    std::uint32_t chosen = 0;         ///< experts of a token, up to RouterKernel::most_chosen
    std::uint32_t inner = 0;
    std::uint32_t columns = 0;
    bool renormalise = false;                 ///< softmax over the chosen experts instead of all
    const float* logits = nullptr;            ///< `[tokens, experts]`: the router's
    const float* x = nullptr;                 ///< `[tokens, columns]`
    const std::uint32_t* greatest = nullptr;  ///< `[tokens]`: bits of the greatest magnitude of each row of x
    std::uint32_t tokens = 0;
    float* y = nullptr;  ///< `[tokens, columns]`, `y_stride` floats from token to token
    std::uint64_t y_stride = 0;
    bool accumulate = false;         ///< add to y instead of replacing it
    std::byte* workspace = nullptr;  ///< ExpertsWorkspace::bytes, at a multiple of HalfRows::alignment
    Bytes workspace_bytes = 0;

    /// Pairs of a token and one of its experts.
    [[nodiscard]] constexpr std::uint32_t pairs() const noexcept { return tokens * chosen; }
};

/// What a layer of experts needs between its kernels. Sorted pairs are those of expert 0, then of expert 1, and so on.
struct ExpertsWorkspace {
    std::uint32_t* ids = nullptr;       ///< `[tokens, chosen]`
    float* weights = nullptr;           ///< likewise
    std::uint32_t* order = nullptr;     ///< `[pairs]`, sorted
    std::uint32_t* offsets = nullptr;   ///< `[experts + 1]`
    std::uint32_t* greatest = nullptr;  ///< `[pairs]`, sorted
    HalfRows x;                         ///< `[tokens, columns]`
    float* products = nullptr;          ///< `[pairs, inner]`, sorted; then `[pairs, columns]`, not sorted
    HalfRows inner;                     ///< `[pairs, inner]`, sorted

    static Bytes bytes(const ExpertsCall& call) noexcept { return laid_out(call, nullptr); }
    static ExpertsWorkspace of(const ExpertsCall& call) noexcept {
        ExpertsWorkspace workspace;
        laid_out(call, &workspace);
        return workspace;
    }

private:
    /// Both of the above, so that they agree.
    static Bytes laid_out(const ExpertsCall& call, ExpertsWorkspace* to) noexcept {
        Bytes at = 0;
        const auto take = [&](Bytes bytes) {
            const Bytes first = at;
            at = saturating_add(at, round_up(bytes, HalfRows::alignment));
            return first;
        };
        const Bytes pairs = saturating_mul(call.tokens, call.chosen);
        const std::uint32_t wider = call.inner > call.columns ? call.inner : call.columns;
        const Bytes ids = take(pairs * sizeof(std::uint32_t));
        const Bytes weights = take(pairs * sizeof(float));
        const Bytes order = take(pairs * sizeof(std::uint32_t));
        const Bytes offsets = take((Bytes{call.experts} + 1) * sizeof(std::uint32_t));
        const Bytes greatest = take(pairs * sizeof(std::uint32_t));
        const Bytes x = take(HalfRows::bytes(call.columns, call.tokens));
        const Bytes products = take(saturating_mul(pairs, Bytes{wider} * sizeof(float)));
        const Bytes inner = take(HalfRows::bytes(call.inner, pairs));
        if (to == nullptr) return at;
        const auto words = [&](Bytes first) {
            return reinterpret_cast<std::uint32_t*>(call.workspace + first);
        };
        const auto floats = [&](Bytes first) { return reinterpret_cast<float*>(call.workspace + first); };
        *to = {words(ids),       floats(weights),
               words(order),     words(offsets),
               words(greatest),  HalfRows::in(call.workspace + x, call.columns, call.tokens),
               floats(products), HalfRows::in(call.workspace + inner, call.inner, pairs)};
        return at;
    }
};

/// Tiles of the tokens of all experts, numbered so that nothing has to be counted: those of expert e, which has the
/// sorted pairs from offsets[e] on, begin at number offsets[e] / Tokens + e. For any a and n
/// floor((a + n) / T) - floor(a / T) + 1 >= ceil(n / T), so the next expert's begin no earlier than they end; numbers in
/// between have no tokens.
template <unsigned Tokens>
struct ExpertTiles {
    struct Tile {
        unsigned expert;
        unsigned first;   ///< sorted pair
        unsigned tokens;  ///< 0: none
    };

    static constexpr std::uint32_t most(std::uint32_t pairs, std::uint32_t experts) noexcept {
        return pairs / Tokens + experts;
    }
    /// Every warp finds it by itself: experts begin at ascending numbers, so it counts those that begin at or before
    /// `number`.
    template <class T>
    ZSE_DEVICE static Tile find(T& t, const std::uint32_t* offsets, std::uint32_t experts, unsigned number) {
        std::uint32_t begun = 0;
        for (unsigned e = t.lane(); e < experts; e += exec::gpu::warp_threads) {
            begun += t.load(offsets + e) / Tokens + e <= number ? 1u : 0u;
        }
        const unsigned expert = t.warp_reduce(begun, exec::gpu::Sum{}) - 1;
        const unsigned from = t.load(offsets + expert);
        const unsigned to = t.load(offsets + expert + 1);
        const unsigned first = from + (number - from / Tokens - expert) * Tokens;
        if (first >= to) return {expert, first, 0};
        return {expert, first, to - first < Tokens ? to - first : Tokens};
    }
};

/// silu(gate x) * (up x) of every pair, by its expert: rows of x are gathered, those of `out` are sorted.
template <class Codec, class Shape>
struct ExpertsGatedKernel {
    using Gated = GatedTile<Codec, Shape>;
    using Tiles = ExpertTiles<Shape::tokens>;
    static constexpr unsigned threads = Shape::threads;
    static constexpr unsigned blocks_per_sm = Gated::Tile::blocks_per_sm;

    GatedMatrices matrices;  ///< of the first expert
    std::uint32_t experts = 0;
    std::uint32_t chosen = 0;
    std::uint32_t pairs = 0;
    const std::uint32_t* order = nullptr;
    const std::uint32_t* offsets = nullptr;
    HalfRows x;
    float* out = nullptr;                   ///< `[pairs, rows]`
    std::uint32_t* out_greatest = nullptr;  ///< `[pairs]`

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{Tiles::most(pairs, experts), Gated::tiles(matrices.rows), 1},
                threads,
                Gated::Tile::shared_bytes};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const auto tile = Tiles::find(t, offsets, experts, t.block().x);
        if (tile.tokens == 0) return;
        const weights::MmaLayout layout{Codec::format, x.columns};
        const std::size_t skipped = tile.expert * layout.bytes(matrices.rows);
        const GatedMatrices mine{matrices.gate + skipped, matrices.up + skipped, matrices.rows};
        const auto row = [&](unsigned i) { return t.load(order + tile.first + i) / chosen; };
        typename Gated::Tile::Sums sums;
        Gated::multiply(t, mine, x, row, tile.tokens, sums);
        Gated::store(t, matrices.rows, x, row, tile.tokens, sums, tile.first, out, out_greatest);
    }
};

/// Each sorted row by its expert's matrix, to where its pair's result belongs.
template <class Codec, class Shape>
struct ExpertsDownKernel {
    using Tile = ProductTile<Codec, Shape>;
    using Tiles = ExpertTiles<Shape::tokens>;
    static constexpr unsigned threads = Shape::threads;
    static constexpr unsigned blocks_per_sm = Tile::blocks_per_sm;
    static constexpr unsigned tile_rows = Shape::groups * weights::MmaLayout::rows;

    const std::byte* matrix = nullptr;  ///< of the first expert
    std::uint32_t rows = 0;             ///< of one expert's
    std::uint32_t experts = 0;
    std::uint32_t pairs = 0;
    const std::uint32_t* order = nullptr;
    const std::uint32_t* offsets = nullptr;
    HalfRows x;
    float* results = nullptr;  ///< `[pairs, rows]`, not sorted

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{Tiles::most(pairs, experts), (rows + tile_rows - 1) / tile_rows, 1},
                threads,
                Tile::shared_bytes};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const auto tile = Tiles::find(t, offsets, experts, t.block().x);
        if (tile.tokens == 0) return;
        const weights::MmaLayout layout{Codec::format, x.columns};
        const std::byte* mine = matrix + tile.expert * layout.bytes(rows);
        const unsigned first_row = t.block().y * tile_rows;
        typename Tile::Sums sums;
        Tile::multiply(
            t, x, [&](unsigned g) { return Tile::group_at(mine, x.columns, rows, first_row, g); },
            [&](unsigned i) { return tile.first + i; }, tile.tokens, sums);
        ZSE_UNROLL
        for (unsigned j = 0; j < Shape::token_tiles; ++j) {
            ZSE_UNROLL
            for (unsigned odd = 0; odd < 2; ++odd) {
                const unsigned token = Tile::token_of(t, j, odd);
                if (token >= tile.tokens) continue;
                const float factor = x.factors[tile.first + token] * Tile::unit;
                float* to = results + static_cast<std::size_t>(t.load(order + tile.first + token)) * rows;
                ZSE_UNROLL
                for (unsigned i = 0; i < Shape::row_tiles; ++i) {
                    ZSE_UNROLL
                    for (unsigned v = odd; v < 4; v += 2) {
                        const unsigned at = first_row + Tile::group_place(t, i) * 16 + Tile::row_of(t, v);
                        if (at < rows) to[at] = sums[i][j].values[v] * factor;
                    }
                }
            }
        }
    }
};

namespace detail {

/// From so many tokens of an expert on average, tiles of 64 tokens waste less than tiles of 16 repeat.
inline constexpr std::uint32_t many_tokens = 32;

}  // namespace detail

/// Chooses experts, and lines up tokens and halves for them.
template <class Launcher>
void route_experts(exec::gpu::Stream& stream, const ExpertsCall& call) noexcept {
    if (call.experts > RouterKernel::most_experts || call.chosen > RouterKernel::most_chosen ||
        call.chosen > call.experts) {
        return stream.fail(1, "zse: a token is routed to at most 32 of at most 512 experts");
    }
    if (call.workspace_bytes < ExpertsWorkspace::bytes(call)) {
        return stream.fail(1, "zse: the workspace of experts is too small for so many tokens");
    }
    const ExpertsWorkspace w = ExpertsWorkspace::of(call);
    Launcher::launch(stream, RouterKernel{call.logits, call.tokens, call.experts, call.chosen,
                                          call.renormalise, w.ids, w.weights});
    Launcher::launch(stream,
                     ExpertOrderKernel{w.ids, call.pairs(), call.experts, w.order, w.offsets, w.greatest});
    Launcher::launch(stream, HalvesKernel{call.x, call.greatest, call.tokens, w.x});
}

/// silu(gate x) * (up x) for the codec of gate and up, after route_experts.
template <class Codec, class Launcher>
void experts_gated(exec::gpu::Stream& stream, const ExpertsCall& call) noexcept {
    if (stream.failed()) return;
    const ExpertsWorkspace w = ExpertsWorkspace::of(call);
    const auto launch = [&](auto kernel) {
        kernel.matrices = {call.gate, call.up, call.inner};
        kernel.experts = call.experts;
        kernel.chosen = call.chosen;
        kernel.pairs = call.pairs();
        kernel.order = w.order;
        kernel.offsets = w.offsets;
        kernel.x = w.x;
        kernel.out = w.products;
        kernel.out_greatest = w.greatest;
        Launcher::launch(stream, kernel);
    };
    if (call.pairs() / detail::many_tokens < call.experts) {
        launch(ExpertsGatedKernel<Codec, NarrowTile>{});
    } else {
        launch(ExpertsGatedKernel<Codec, SmallTile>{});
    }
    Launcher::launch(stream, HalvesKernel{w.products, w.greatest, call.pairs(), w.inner});
}

/// The products with down, for its codec, and their sums, after experts_gated.
template <class Codec, class Launcher>
void experts_down(exec::gpu::Stream& stream, const ExpertsCall& call) noexcept {
    if (stream.failed()) return;
    const ExpertsWorkspace w = ExpertsWorkspace::of(call);
    const auto launch = [&](auto kernel) {
        kernel.matrix = call.down;
        kernel.rows = call.columns;
        kernel.experts = call.experts;
        kernel.pairs = call.pairs();
        kernel.order = w.order;
        kernel.offsets = w.offsets;
        kernel.x = w.inner;
        kernel.results = w.products;
        Launcher::launch(stream, kernel);
    };
    if (call.pairs() / detail::many_tokens < call.experts) {
        launch(ExpertsDownKernel<Codec, NarrowTile>{});
    } else {
        launch(ExpertsDownKernel<Codec, SmallTile>{});
    }
    Launcher::launch(stream, CombineKernel{w.products, w.weights, call.tokens, call.chosen, call.columns,
                                           call.y, call.y_stride, call.accumulate});
}

/// The kernels that the above launch for a codec, and those for any, for the file that compiles them.
template <class Codec>
struct ExpertsKernelList {
    using type = policy::List<ExpertsGatedKernel<Codec, NarrowTile>, ExpertsGatedKernel<Codec, SmallTile>,
                              ExpertsDownKernel<Codec, NarrowTile>, ExpertsDownKernel<Codec, SmallTile>>;
};
using RouterKernelList = policy::List<RouterKernel, ExpertOrderKernel, CombineKernel>;

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
