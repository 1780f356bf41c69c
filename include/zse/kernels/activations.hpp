// SPDX-License-Identifier: Apache-2.0
// Activations as matrix products read them: in 8 bits with a scale for every 32 columns, or in float32.
#pragma once

#include <zse/core/bytes.hpp>

#include <cstddef>
#include <cstdint>

namespace zse::inline v1 {
namespace kernels {

/// Tokens are held in tiles of eight (the last tile has what is left), and within a tile the blocks of 32 columns
/// follow one another: `[tile][block]{codes [tokens][32] int8 | scales [tokens] float32 | sums [tokens] int32 | scaled sums [tokens]
/// float32}`.
/// So what one block of a product needs is one short stretch, at offsets that a kernel knows at compile time.
/// value = scale * code, with scale = greatest magnitude / 127; a sum is that of the codes, and scaled sum = scale *
/// sum: what offsets and minima of weights are multiplied with.
struct CodedActivations {
    static constexpr std::size_t block = 32;
    static constexpr std::size_t tile_tokens = 8;
    static constexpr std::size_t token_bytes = block + 2 * sizeof(float) + sizeof(std::int32_t);

    static constexpr std::size_t blocks(std::size_t columns) noexcept { return ceil_div(columns, block); }
    /// Bytes of one token.
    static constexpr Bytes bytes(std::size_t columns) noexcept { return blocks(columns) * token_bytes; }
    /// Tokens of the tile that `token` is in.
    static constexpr std::size_t in_tile(std::size_t token, std::size_t tokens) noexcept {
        const std::size_t first = token / tile_tokens * tile_tokens;
        return tokens - first < tile_tokens ? tokens - first : tile_tokens;
    }
};

/// Where one token's codes are written: block b lies `b * stride` further on.
struct CodedToken {
    std::int8_t* codes = nullptr;
    float* scale = nullptr;
    std::int32_t* sum = nullptr;
    float* scaled_sum = nullptr;
    std::size_t stride = 0;

    [[nodiscard]] CodedToken block(std::size_t index) const noexcept {
        const auto moved = [&](auto* at) {
            return reinterpret_cast<decltype(at)>(reinterpret_cast<std::byte*>(at) + index * stride);
        };
        return {moved(codes), moved(scale), moved(sum), moved(scaled_sum), stride};
    }
};

/// The input of matrix products, `[tokens, columns]`, in the forms that the matrices ask for; null where none does.
struct Activations {
    std::byte* codes = nullptr;
    float* floats = nullptr;
    std::size_t tokens = 0;
    std::size_t columns = 0;
    /// On a GPU: `[tokens]`, the bits of the greatest magnitude of each row of floats.
    std::uint32_t* greatest = nullptr;

    [[nodiscard]] CodedToken coded(std::size_t token) const noexcept {
        const std::size_t in_tile = CodedActivations::in_tile(token, tokens);
        const std::size_t slot = token % CodedActivations::tile_tokens;
        std::byte* tile = codes + (token - slot) * CodedActivations::bytes(columns);
        std::byte* scales = tile + in_tile * CodedActivations::block;
        return {reinterpret_cast<std::int8_t*>(tile + slot * CodedActivations::block),
                reinterpret_cast<float*>(scales) + slot,
                reinterpret_cast<std::int32_t*>(scales + in_tile * sizeof(float)) + slot,
                reinterpret_cast<float*>(scales + 2 * in_tile * sizeof(float)) + slot,
                in_tile * CodedActivations::token_bytes};
    }
};

/// Which forms some matrices ask for.
struct ActivationForms {
    bool codes = false;
    bool floats = false;

    /// Bytes of a buffer for both; codes come first.
    [[nodiscard]] constexpr Bytes bytes(std::size_t tokens, std::size_t columns) const noexcept {
        return codes_bytes(tokens, columns) +
               (floats ? saturating_mul(tokens, columns * sizeof(float)) : Bytes{0});
    }
    /// The activations of `tokens` tokens in a buffer planned for `most`.
    [[nodiscard]] constexpr Activations in(std::byte* buffer, std::size_t most, std::size_t tokens,
                                           std::size_t columns) const noexcept {
        Activations x;
        x.tokens = tokens;
        x.columns = columns;
        if (buffer == nullptr) return x;
        if (codes) x.codes = buffer;
        if (floats) x.floats = reinterpret_cast<float*>(buffer + codes_bytes(most, columns));
        return x;
    }

private:
    [[nodiscard]] constexpr Bytes codes_bytes(std::size_t tokens, std::size_t columns) const noexcept {
        return codes ? round_up(saturating_mul(tokens, CodedActivations::bytes(columns)), 64) : Bytes{0};
    }
};

}  // namespace kernels
}  // namespace zse::inline v1
