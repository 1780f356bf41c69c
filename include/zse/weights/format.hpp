// SPDX-License-Identifier: Apache-2.0
// The formats that a weight matrix can be held in: their names and block sizes, known at compile time.
#pragma once

#include <zse/core/bytes.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace weights {

enum class FormatId : std::uint8_t { f32, f16, bf16, int8, nf4, q4_0, q4_1, q8_0 };

/// A format, with the number of weights that share a scale (1 for dense formats).
struct Format {
    FormatId id = FormatId::f16;
    std::uint16_t group = 1;

    friend constexpr bool operator==(const Format&, const Format&) = default;

    /// Bytes of one group: its codes and its scales.
    [[nodiscard]] constexpr Bytes group_bytes() const noexcept {
        switch (id) {
            case FormatId::f32: return 4;
            case FormatId::f16:
            case FormatId::bf16: return 2;
            case FormatId::int8: return 2 + static_cast<Bytes>(group);
            case FormatId::nf4: return 2 + static_cast<Bytes>(group) / 2;
            case FormatId::q4_0: return 18;
            case FormatId::q4_1: return 20;
            case FormatId::q8_0: return 34;
        }
        return 0;
    }
    /// Bytes of a row of `columns` weights; the last group of a row may be partly filled.
    [[nodiscard]] constexpr Bytes row_bytes(std::uint64_t columns) const noexcept {
        return saturating_mul(ceil_div(columns, group), group_bytes());
    }
    /// Bits per weight, scales included.
    [[nodiscard]] constexpr double bits() const noexcept {
        return 8.0 * static_cast<double>(group_bytes()) / static_cast<double>(group);
    }
};

namespace format {
inline constexpr Format f32{FormatId::f32, 1};
inline constexpr Format f16{FormatId::f16, 1};
inline constexpr Format bf16{FormatId::bf16, 1};
inline constexpr Format q4_0{FormatId::q4_0, 32};
inline constexpr Format q4_1{FormatId::q4_1, 32};
inline constexpr Format q8_0{FormatId::q8_0, 32};
}  // namespace format

inline std::string name(Format format) {
    switch (format.id) {
        case FormatId::f32: return "f32";
        case FormatId::f16: return "f16";
        case FormatId::bf16: return "bf16";
        case FormatId::int8: return text("int8<", format.group, ">");
        case FormatId::nf4: return text("nf4<", format.group, ">");
        case FormatId::q4_0: return "q4_0";
        case FormatId::q4_1: return "q4_1";
        case FormatId::q8_0: return "q8_0";
    }
    return "unknown";
}

/// What a matrix is used for: tables of the vocabulary are often held finer than the matrices of a layer.
enum class Role : std::uint8_t { layer, embedding, output };

}  // namespace weights
}  // namespace zse::inline v1
