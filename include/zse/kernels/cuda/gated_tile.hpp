// SPDX-License-Identifier: Apache-2.0
// A tile of silu(W_gate x) * (W_up x): both products in the registers of one warp.
#pragma once

#include <zse/kernels/cuda/product_tile.hpp>
#include <zse/kernels/cuda/silu.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// Two packed matrices of `rows` rows.
struct GatedMatrices {
    const std::byte* gate = nullptr;
    const std::byte* up = nullptr;
    std::uint32_t rows = 0;
};

/// The groups at even places of the tile are of gate, those at odd ones of up: so a lane has both sums of its rows.
template <class Codec, class Shape>
struct GatedTile {
    using Tile = ProductTile<Codec, Shape>;
    static constexpr unsigned tile_rows = Shape::groups / 2 * weights::MmaLayout::rows;

    static constexpr std::uint32_t tiles(std::uint32_t rows) noexcept {
        return (rows + tile_rows - 1) / tile_rows;
    }

    /// Row i of the tile of tokens is row `row(i)` of x.
    template <class T, class Row>
    ZSE_DEVICE static void multiply(T& t, const GatedMatrices& matrices, const HalfRows& x, const Row& row,
                                    unsigned tokens, typename Tile::Sums& sums) {
        const unsigned first_row = t.block().y * tile_rows;
        Tile::multiply(
            t, x,
            [&](unsigned g) {
                return Tile::group_at(g % 2 == 0 ? matrices.gate : matrices.up, x.columns, matrices.rows,
                                      first_row, g / 2);
            },
            row, tokens, sums);
    }
    /// To rows `first_out` and on of `out`, `[_, rows]`, and their greatest magnitudes, unless null, which one atomic
    /// operation of a warp raises for each token.
    template <class T, class Row>
    ZSE_DEVICE static void store(T& t, std::uint32_t rows, const HalfRows& x, const Row& row, unsigned tokens,
                                 const typename Tile::Sums& sums, unsigned first_out, float* out,
                                 std::uint32_t* greatest) {
        const unsigned first_row = t.block().y * tile_rows;
        ZSE_UNROLL
        for (unsigned j = 0; j < Shape::token_tiles; ++j) {
            ZSE_UNROLL
            for (unsigned odd = 0; odd < 2; ++odd) {
                const unsigned token = Tile::token_of(t, j, odd);
                const bool inside = token < tokens;
                const float factor = inside ? x.factors[row(token)] * Tile::unit : 0.0f;
                float* to = out + static_cast<std::size_t>(first_out + token) * rows;
                float most = 0;
                ZSE_UNROLL
                for (unsigned i = 0; i < Shape::row_tiles; i += 2) {
                    ZSE_UNROLL
                    for (unsigned v = odd; v < 4; v += 2) {
                        const unsigned at = first_row + Tile::group_place(t, i) / 2 * 16 + Tile::row_of(t, v);
                        if (!inside || at >= rows) continue;
                        const float gated =
                            silu(t, sums[i][j].values[v] * factor) * (sums[i + 1][j].values[v] * factor);
                        to[at] = gated;
                        most = exec::gpu::Greatest{}(most, gated < 0 ? -gated : gated);
                    }
                }
                ZSE_UNROLL
                for (unsigned mask = 4; mask < exec::gpu::warp_threads; mask *= 2) {
                    most = exec::gpu::Greatest{}(most, t.shuffle_xor(most, mask));
                }
                if (greatest != nullptr && inside && t.lane() < 4) {
                    t.atomic_max(greatest + first_out + token, __builtin_bit_cast(std::uint32_t, most));
                }
            }
        }
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
