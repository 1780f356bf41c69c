// SPDX-License-Identifier: Apache-2.0
// y = x W^T for weights in any codec: few tokens decode in registers, many share a decoded panel.
#pragma once

#include <zse/kernels/cpu/unpack.hpp>
#include <zse/kernels/matrix.hpp>

#include <array>
#include <utility>

namespace zse::inline v1 {
namespace kernels {
namespace HWY_NAMESPACE {

// Both paths give each (token, row) one accumulator of `lanes` sums, fed in order of k, and add the lanes at
// the end in one fixed order. So one token alone and the same token among many have equal bits.
//
// Loops over the register tile carry an unroll pragma: without it -O2 keeps the accumulators in memory, at
// half the speed.

/// A register tile of 4 rows by 6 tokens is 24 accumulators, 4 weights and an activation: it fits 32
/// registers. With 16 registers it is 4 by 2.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr std::size_t tile_tokens = 6;
#else
inline constexpr std::size_t tile_tokens = 2;
#endif
inline constexpr std::size_t tile_rows = 4;
/// Up to this many tokens, decoding in registers beats writing a panel.
inline constexpr std::size_t fused_tokens = 2;

HWY_INLINE void put(float* y, float value, bool accumulate) {
    *y = accumulate ? *y + value : value;
}

/// The tile of Rows rows of a panel of float32 by Tokens tokens.
template <std::size_t Rows, std::size_t Tokens>
HWY_INLINE void panel_tile(const float* panel, std::size_t panel_step, const float* x, std::size_t columns,
                           float* y, std::size_t y_stride, bool accumulate) {
    VecF sums[Rows][Tokens];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
        for (std::size_t t = 0; t < Tokens; ++t) sums[r][t] = hn::Zero(f32_tag);
    }
    std::size_t k = 0;
    for (; k + lanes <= columns; k += lanes) {
        VecF w[Rows];
#pragma GCC unroll 8
        for (std::size_t r = 0; r < Rows; ++r) w[r] = hn::LoadU(f32_tag, panel + r * panel_step + k);
#pragma GCC unroll 8
        for (std::size_t t = 0; t < Tokens; ++t) {
            const VecF activation = hn::LoadU(f32_tag, x + t * columns + k);
#pragma GCC unroll 8
            for (std::size_t r = 0; r < Rows; ++r) sums[r][t] = hn::MulAdd(w[r], activation, sums[r][t]);
        }
    }
    if (k < columns) {
#pragma GCC unroll 8
        for (std::size_t t = 0; t < Tokens; ++t) {
            const VecF activation = load_up_to(x + t * columns + k, columns - k);
#pragma GCC unroll 8
            for (std::size_t r = 0; r < Rows; ++r) {
                const VecF w = load_up_to(panel + r * panel_step + k, columns - k);
                sums[r][t] = hn::MulAdd(w, activation, sums[r][t]);
            }
        }
    }
#pragma GCC unroll 8
    for (std::size_t t = 0; t < Tokens; ++t) {
#pragma GCC unroll 8
        for (std::size_t r = 0; r < Rows; ++r) put(y + t * y_stride + r, sum_lanes(sums[r][t]), accumulate);
    }
}

template <std::size_t Rows>
HWY_INLINE void panel_tokens(const float* panel, std::size_t panel_step, const LinearTile& tile,
                             std::size_t columns, float* y) {
    std::size_t t = 0;
    for (; t + tile_tokens <= tile.tokens; t += tile_tokens) {
        panel_tile<Rows, tile_tokens>(panel, panel_step, tile.x + t * columns, columns, y + t * tile.y_stride,
                                      tile.y_stride, tile.accumulate);
    }
    for (; t < tile.tokens; ++t) {
        panel_tile<Rows, 1>(panel, panel_step, tile.x + t * columns, columns, y + t * tile.y_stride,
                            tile.y_stride, tile.accumulate);
    }
}

/// Rows [first, first + rows) of the panel against all tokens.
inline void multiply_panel(const float* panel, std::size_t panel_step, std::size_t rows, std::size_t first,
                           const LinearTile& tile, std::size_t columns) {
    // Tokens outermost keeps their activations in the level-1 cache while the panel streams from level 2.
    for (std::size_t t = 0; t < tile.tokens; t += tile_tokens) {
        LinearTile part = tile;
        part.x += t * columns;
        part.tokens = tile.tokens - t < tile_tokens ? tile.tokens - t : tile_tokens;
        float* y = tile.y + t * tile.y_stride + first;
        std::size_t r = 0;
        for (; r + tile_rows <= rows; r += tile_rows) {
            panel_tokens<tile_rows>(panel + r * panel_step, panel_step, part, columns, y + r);
        }
        for (; r < rows; ++r) panel_tokens<1>(panel + r * panel_step, panel_step, part, columns, y + r);
    }
}

/// A row of any codec to float32, bit for bit as the codec's own decode_row.
template <class Codec>
void decode_row(const std::byte* row, std::size_t columns, float* values) noexcept {
    using Blocks = Unpack<Codec>;
    std::size_t k = 0;
    for (; k + Blocks::group <= columns; k += Blocks::group, row += Blocks::bytes) {
        Blocks::block(row, [&](std::size_t first, VecF w) { hn::StoreU(w, f32_tag, values + k + first); });
    }
    if (k < columns) Codec::decode_row(row, columns - k, values + k);
}

/// Rows and Tokens by decoding each block into registers.
template <class Codec, std::size_t Rows, std::size_t Tokens>
HWY_INLINE void fused_tile(const Matrix& weights, std::size_t row, const LinearTile& tile,
                           std::size_t token) {
    using Blocks = Unpack<Codec>;
    const std::size_t columns = weights.columns;
    const float* x = tile.x + token * columns;
    VecF sums[Rows][Tokens];
    const std::byte* blocks[Rows];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < Rows; ++r) {
        blocks[r] = weights.row(row + r);
#pragma GCC unroll 8
        for (std::size_t t = 0; t < Tokens; ++t) sums[r][t] = hn::Zero(f32_tag);
    }
    std::size_t k = 0;
    for (; k + Blocks::group <= columns; k += Blocks::group) {
#pragma GCC unroll 8
        for (std::size_t r = 0; r < Rows; ++r) {
            Blocks::block(blocks[r], [&](std::size_t first, VecF w) {
#pragma GCC unroll 8
                for (std::size_t t = 0; t < Tokens; ++t) {
                    const VecF activation = hn::LoadU(f32_tag, x + t * columns + k + first);
                    sums[r][t] = hn::MulAdd(w, activation, sums[r][t]);
                }
            });
            blocks[r] += Blocks::bytes;
        }
    }
    if (k < columns) {
#pragma GCC unroll 8
        for (std::size_t r = 0; r < Rows; ++r) {
            float rest[256];  // longer than any group
            Codec::decode_row(blocks[r], columns - k, rest);
            for (std::size_t i = 0; i < columns - k; i += lanes) {
                const VecF w = load_up_to(rest + i, columns - k - i);
#pragma GCC unroll 8
                for (std::size_t t = 0; t < Tokens; ++t) {
                    const VecF activation = load_up_to(x + t * columns + k + i, columns - k - i);
                    sums[r][t] = hn::MulAdd(w, activation, sums[r][t]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (std::size_t t = 0; t < Tokens; ++t) {
#pragma GCC unroll 8
        for (std::size_t r = 0; r < Rows; ++r) {
            put(tile.y + (token + t) * tile.y_stride + row + r, sum_lanes(sums[r][t]), tile.accumulate);
        }
    }
}

template <class Codec, std::size_t Tokens>
HWY_INLINE void fused_rows(const Matrix& weights, const LinearTile& tile) {
    std::size_t row = tile.first;
    for (; row + tile_rows <= tile.last; row += tile_rows)
        fused_tile<Codec, tile_rows, Tokens>(weights, row, tile, 0);
    for (; row < tile.last; ++row) fused_tile<Codec, 1, Tokens>(weights, row, tile, 0);
}

/// The linear kernel of a codec.
template <class Codec>
void linear(const Matrix& weights, const LinearTile& tile) noexcept {
    static_assert(Unpack<Codec>::group <= 256);
    if (tile.tokens == 1) return fused_rows<Codec, 1>(weights, tile);
    if (tile.tokens == fused_tokens) return fused_rows<Codec, fused_tokens>(weights, tile);
    const std::size_t columns = weights.columns;
    const std::size_t step = panel_stride(columns);
    for (std::size_t first = tile.first; first < tile.last; first += panel_rows(columns)) {
        const std::size_t rows =
            tile.last - first < panel_rows(columns) ? tile.last - first : panel_rows(columns);
        if constexpr (Codec::format.id == v1::weights::FormatId::f32) {
            multiply_panel(reinterpret_cast<const float*>(weights.row(first)), columns, rows, first, tile,
                           columns);
        } else {
            for (std::size_t r = 0; r < rows; ++r) {
                decode_row<Codec>(weights.row(first + r), columns, tile.panel + r * step);
            }
            multiply_panel(tile.panel, step, rows, first, tile, columns);
        }
    }
}

/// What is bound at open for matrices of this codec.
template <class Codec>
inline constexpr MatrixKernels matrix_kernels{&linear<Codec>, &decode_row<Codec>};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace zse::inline v1
