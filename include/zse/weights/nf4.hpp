// SPDX-License-Identifier: Apache-2.0
// 4-bit NormalFloat: sixteen levels that split a normal distribution into equal parts (QLoRA, arXiv
// 2305.14314).
#pragma once

#include <zse/core/dtype.hpp>
#include <zse/weights/codec.hpp>
#include <zse/weights/int8.hpp>

#include <array>
#include <cstring>

namespace zse::inline v1 {
namespace weights {

/// The published code book.
inline constexpr std::array<float, 16> nf4_levels{-1.0f,
                                                  -0.6961928009986877f,
                                                  -0.5250730514526367f,
                                                  -0.39491748809814453f,
                                                  -0.28444138169288635f,
                                                  -0.18477343022823334f,
                                                  -0.09105003625154495f,
                                                  0.0f,
                                                  0.07958029955625534f,
                                                  0.16093020141124725f,
                                                  0.24611230194568634f,
                                                  0.33791524171829224f,
                                                  0.44070982933044434f,
                                                  0.5626170039176941f,
                                                  0.7229568362236023f,
                                                  1.0f};

/// The levels in steps of 1/127: what kernels multiply with. The rounding adds 0.6 % to the squared error of the
/// code book.
inline constexpr std::array<std::int8_t, 16> nf4_codes = [] {
    std::array<std::int8_t, 16> codes{};
    for (std::size_t i = 0; i < codes.size(); ++i) {
        const float steps = nf4_levels[i] * 127.0f;
        codes[i] = static_cast<std::int8_t>(steps + (steps < 0 ? -0.5f : 0.5f));
    }
    return codes;
}();

/// weight = scale * level[code], scale = greatest magnitude of the block.
/// Layout: f16 scale, Group / 2 bytes: byte j holds element j below and element j + Group / 2 above, so that
/// one load gives neighbours. 4 + 16 / Group bits per weight: 4.25 for 64.
///
/// The embedding and the output matrix are held as int8<32>: they are read one row at a time or once a token,
/// and 4 bits cost most there.
template <std::uint16_t Group = 64>
struct nf4 {
    static_assert(policy::require<"zse: weights::nf4<" + policy::decimal<Group>() +
                                      "> needs a block of 32, 64 or 128; use weights::nf4<64>",
                                  (Group == 32 || Group == 64 || Group == 128)>());
    static constexpr auto policy_family = policy::Family::weights;
    static constexpr auto spelling = "weights::nf4<" + policy::decimal<Group>() + ">";
    static constexpr std::string_view name = "nf4";
    static constexpr Format format{FormatId::nf4, Group};
    static constexpr std::size_t half = Group / 2;
    /// What the tables of the vocabulary are held in.
    using Table = int8<32>;

    struct Block {
        v1::f16 scale;
        std::uint8_t nibbles[half];
    };
    static_assert(sizeof(Block) == 2 + half && sizeof(Block) == format.group_bytes());

    static constexpr Format held(Format /*stored*/, Role role) noexcept {
        return role == Role::layer ? format : Table::format;
    }

    static void encode_row(const float* values, std::size_t columns, std::byte* row) noexcept {
        detail::for_each_block<Block>(
            row, columns, Group, [&](std::size_t first, std::size_t count, std::byte* at) {
                Block block{};
                block.scale = v1::f16(std::fabs(detail::extreme({values + first, count})));
                const float scale = static_cast<float>(block.scale);
                const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
                for (std::size_t i = 0; i < Group; ++i) {
                    const unsigned code = i < count ? nearest_level(values[first + i] * inverse) : 7u;
                    block.nibbles[i % half] =
                        static_cast<std::uint8_t>(block.nibbles[i % half] | (i < half ? code : code << 4));
                }
                std::memcpy(at, &block, sizeof block);
            });
    }
    static void decode_row(const std::byte* row, std::size_t columns, float* values) noexcept {
        detail::for_each_block<Block>(
            row, columns, Group, [&](std::size_t first, std::size_t count, const std::byte* at) {
                Block block;
                std::memcpy(&block, at, sizeof block);
                const float scale = static_cast<float>(block.scale);
                for (std::size_t i = 0; i < count; ++i) {
                    const unsigned code = i < half ? block.nibbles[i] & 0x0fu : block.nibbles[i - half] >> 4u;
                    values[first + i] = scale * nf4_levels[code];
                }
            });
    }

private:
    static unsigned nearest_level(float value) noexcept {
        unsigned code = 0;
        while (code < 15 && value > (nf4_levels[code] + nf4_levels[code + 1]) / 2) ++code;
        return code;
    }
};

static_assert(WeightCodec<nf4<64>>);

}  // namespace weights
}  // namespace zse::inline v1
