// SPDX-License-Identifier: Apache-2.0
// GGUF's 4-bit blocks of 32: q4_0 (a scale) and q4_1 (a scale and a minimum).
#pragma once

#include <zse/core/dtype.hpp>
#include <zse/weights/codec.hpp>

#include <algorithm>
#include <cstring>

namespace zse::inline v1 {
namespace weights {
namespace detail {

/// Nibbles of a block of 32: byte j holds element j below and element j + 16 above.
template <class Decode>
void unpack_nibbles(const std::uint8_t* nibbles, std::size_t count, const Decode& decode) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        decode(i, i < 16 ? nibbles[i] & 0x0f : nibbles[i - 16] >> 4);
    }
}

inline void pack_nibble(std::uint8_t* nibbles, std::size_t i, int code) noexcept {
    nibbles[i % 16] = static_cast<std::uint8_t>(nibbles[i % 16] | (i < 16 ? code : code << 4));
}

}  // namespace detail

/// weight = scale * (code - 8). Layout: f16 scale, 16 bytes of nibbles: 18 bytes, 4.5 bits per weight (GGUF
/// Q4_0).
struct q4_0 : uniform<q4_0> {
    static constexpr policy::Sentence spelling{"weights::q4_0"};
    static constexpr std::string_view name = "q4_0";
    static constexpr Format format = format::q4_0;
    struct Block {
        v1::f16 scale;
        std::uint8_t nibbles[16];
    };
    static_assert(sizeof(Block) == 2 + 16 && sizeof(Block) == format.group_bytes());

    /// The value of greatest magnitude takes code 0, which reaches one step further than code 15.
    static void encode_row(const float* values, std::size_t columns, std::byte* row) noexcept {
        detail::for_each_block<Block>(
            row, columns, 32, [&](std::size_t first, std::size_t count, std::byte* at) {
                Block block{};
                const float scale = detail::extreme({values + first, count}) / -8.0f;
                const float inverse = detail::inverse_of(scale);
                block.scale = v1::f16(scale);
                for (std::size_t i = 0; i < 32; ++i) {
                    const int code = i < count ? detail::nearest(values[first + i] * inverse) + 8 : 8;
                    detail::pack_nibble(block.nibbles, i, std::clamp(code, 0, 15));
                }
                std::memcpy(at, &block, sizeof block);
            });
    }
    static void decode_row(const std::byte* row, std::size_t columns, float* values) noexcept {
        detail::for_each_block<Block>(
            row, columns, 32, [&](std::size_t first, std::size_t count, const std::byte* at) {
                Block block;
                std::memcpy(&block, at, sizeof block);
                const float scale = static_cast<float>(block.scale);
                detail::unpack_nibbles(block.nibbles, count, [&](std::size_t i, int code) {
                    values[first + i] = scale * static_cast<float>(code - 8);
                });
            });
    }
};

/// weight = scale * code + minimum. Layout: f16 scale, f16 minimum, 16 bytes of nibbles: 20 bytes, 5 bits per
/// weight (GGUF Q4_1). Decoding multiplies and adds in one rounding, as the vector kernels do.
struct q4_1 : uniform<q4_1> {
    static constexpr policy::Sentence spelling{"weights::q4_1"};
    static constexpr std::string_view name = "q4_1";
    static constexpr Format format = format::q4_1;
    struct Block {
        v1::f16 scale;
        v1::f16 minimum;
        std::uint8_t nibbles[16];
    };
    static_assert(sizeof(Block) == 2 + 2 + 16 && sizeof(Block) == format.group_bytes());

    static void encode_row(const float* values, std::size_t columns, std::byte* row) noexcept {
        detail::for_each_block<Block>(
            row, columns, 32, [&](std::size_t first, std::size_t count, std::byte* at) {
                Block block{};
                const auto [low, high] = std::minmax_element(values + first, values + first + count);
                const float scale = (*high - *low) / 15.0f;
                const float inverse = detail::inverse_of(scale);
                block.scale = v1::f16(scale);
                block.minimum = v1::f16(*low);
                for (std::size_t i = 0; i < count; ++i) {
                    const int code = detail::nearest((values[first + i] - *low) * inverse);
                    detail::pack_nibble(block.nibbles, i, std::clamp(code, 0, 15));
                }
                std::memcpy(at, &block, sizeof block);
            });
    }
    static void decode_row(const std::byte* row, std::size_t columns, float* values) noexcept {
        detail::for_each_block<Block>(
            row, columns, 32, [&](std::size_t first, std::size_t count, const std::byte* at) {
                Block block;
                std::memcpy(&block, at, sizeof block);
                const float scale = static_cast<float>(block.scale);
                const float minimum = static_cast<float>(block.minimum);
                detail::unpack_nibbles(block.nibbles, count, [&](std::size_t i, int code) {
                    values[first + i] = std::fma(static_cast<float>(code), scale, minimum);
                });
            });
    }
};

static_assert(WeightCodec<q4_0> && WeightCodec<q4_1>);

}  // namespace weights
}  // namespace zse::inline v1
