// SPDX-License-Identifier: Apache-2.0
// Weights without scales: float32, IEEE half, bfloat16.
#pragma once

#include <zse/core/dtype.hpp>
#include <zse/weights/codec.hpp>

#include <cstring>
#include <type_traits>

namespace zse::inline v1 {
namespace weights {

/// A row is its values, one after the other. Encoding rounds to nearest, ties to even.
template <class T, FormatId Id>
struct Dense {
    static constexpr Format format{Id, 1};
    using Block = T;
    static_assert(sizeof(Block) == format.group_bytes());

    static void encode_row(const float* values, std::size_t columns, std::byte* row) noexcept {
        for (std::size_t i = 0; i < columns; ++i) {
            const T value(values[i]);
            std::memcpy(row + i * sizeof(T), &value, sizeof value);
        }
    }
    static void decode_row(const std::byte* row, std::size_t columns, float* values) noexcept {
        for (std::size_t i = 0; i < columns; ++i) {
            T value{};
            std::memcpy(&value, row + i * sizeof(T), sizeof value);
            values[i] = static_cast<float>(value);
        }
    }
};

struct f32 : Dense<float, FormatId::f32>, uniform<Dense<float, FormatId::f32>> {
    static constexpr policy::Sentence spelling{"weights::f32"};
    static constexpr std::string_view name = "f32";
};
struct f16 : Dense<v1::f16, FormatId::f16>, uniform<Dense<v1::f16, FormatId::f16>> {
    static constexpr policy::Sentence spelling{"weights::f16"};
    static constexpr std::string_view name = "f16";
};
struct bf16 : Dense<v1::bf16, FormatId::bf16>, uniform<Dense<v1::bf16, FormatId::bf16>> {
    static constexpr policy::Sentence spelling{"weights::bf16"};
    static constexpr std::string_view name = "bf16";
};

static_assert(WeightCodec<f32> && WeightCodec<f16> && WeightCodec<bf16>);

}  // namespace weights
}  // namespace zse::inline v1
