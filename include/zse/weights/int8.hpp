// SPDX-License-Identifier: Apache-2.0
// 8-bit weights in groups that share one half-precision scale; q8_0 is the group of 32 as GGUF stores it.
#pragma once

#include <zse/core/dtype.hpp>
#include <zse/weights/codec.hpp>

#include <cstring>

namespace zse::inline v1 {
namespace weights {

/// Symmetric: weight = scale * code, code in [-127, 127], scale = greatest magnitude / 127.
/// Layout of a block: f16 scale, then `Group` codes. (GGUF's Q8_0 for Group 32: 34 bytes, 8.5 bits per
/// weight.)
template <std::uint16_t Group, FormatId Id>
struct Symmetric8 {
    static constexpr Format format{Id, Group};
    struct Block {
        v1::f16 scale;
        std::int8_t codes[Group];
    };
    static_assert(sizeof(Block) == 2 + Group && sizeof(Block) == format.group_bytes());

    static void encode_row(const float* values, std::size_t columns, std::byte* row) noexcept {
        detail::for_each_block<Block>(
            row, columns, Group, [&](std::size_t first, std::size_t count, std::byte* at) {
                Block block{};
                const float scale = std::fabs(detail::extreme({values + first, count})) / 127.0f;
                block.scale = v1::f16(scale);
                const float inverse = detail::inverse_of(scale);
                for (std::size_t i = 0; i < count; ++i) {
                    block.codes[i] = static_cast<std::int8_t>(detail::nearest(values[first + i] * inverse));
                }
                std::memcpy(at, &block, sizeof block);
            });
    }
    static void decode_row(const std::byte* row, std::size_t columns, float* values) noexcept {
        detail::for_each_block<Block>(row, columns, Group,
                                      [&](std::size_t first, std::size_t count, const std::byte* at) {
                                          Block block;
                                          std::memcpy(&block, at, sizeof block);
                                          const float scale = static_cast<float>(block.scale);
                                          for (std::size_t i = 0; i < count; ++i) {
                                              values[first + i] = scale * static_cast<float>(block.codes[i]);
                                          }
                                      });
    }
};

/// 8-bit weights, `Group` of them to a scale.
template <std::uint16_t Group = 32>
struct int8 : Symmetric8<Group, FormatId::int8>, uniform<Symmetric8<Group, FormatId::int8>> {
    static_assert(policy::require<"zse: weights::int8<" + policy::decimal<Group>() +
                                      "> needs a group of 32, 64 or 128; use weights::int8<32>",
                                  (Group == 32 || Group == 64 || Group == 128)>());
    static constexpr auto spelling = "weights::int8<" + policy::decimal<Group>() + ">";
    static constexpr std::string_view name = "int8";
};

struct q8_0 : Symmetric8<32, FormatId::q8_0>, uniform<Symmetric8<32, FormatId::q8_0>> {
    static constexpr policy::Sentence spelling{"weights::q8_0"};
    static constexpr std::string_view name = "q8_0";
};

static_assert(WeightCodec<int8<32>> && WeightCodec<q8_0>);

}  // namespace weights
}  // namespace zse::inline v1
