// SPDX-License-Identifier: Apache-2.0
// The KV codec fp8: floats of 8 bits (E4M3) with a scale for each group, so that small values keep their precision.
#pragma once

#include <zse/kv/codec.hpp>

#include <bit>
#include <cstdint>
#include <limits>

namespace zse::inline v1 {
namespace kv {

/// A float of 8 bits: sign, 4 bits of exponent with bias 7, 3 of mantissa; subnormal below 2^-6, no infinities, and one
/// magnitude that is no number (OCP 8-bit floating point, E4M3; elsewhere called E4M3FN).
struct e4m3 {
    static constexpr float greatest = 448;
    static constexpr std::uint8_t no_number = 0x7f;

    std::uint8_t bits{};

    e4m3() = default;
    constexpr explicit e4m3(std::uint8_t code) noexcept : bits(code) {}
    /// Rounds to nearest, ties to even; what lies beyond the greatest becomes the greatest.
    constexpr explicit e4m3(float value) noexcept : bits(from_float(value)) {}
    constexpr explicit operator float() const noexcept {
        const std::uint32_t magnitude = bits & 0x7fu;
        if (magnitude == no_number) return std::numeric_limits<float>::quiet_NaN();
        const std::uint32_t sign = (bits & 0x80u) << 24;
        if (magnitude >= 8) return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
        const float subnormal = static_cast<float>(magnitude) * 0x1p-9f;
        return sign != 0 ? -subnormal : subnormal;
    }
    friend constexpr bool operator==(e4m3, e4m3) = default;

private:
    static constexpr std::uint8_t from_float(float value) noexcept {
        const std::uint32_t word = std::bit_cast<std::uint32_t>(value);
        const std::uint32_t sign = (word >> 24) & 0x80u;
        const std::uint32_t magnitude = word & 0x7fffffffu;
        if (magnitude > 0x7f800000u) return static_cast<std::uint8_t>(sign | no_number);
        if (magnitude >= std::bit_cast<std::uint32_t>(greatest))
            return static_cast<std::uint8_t>(sign | 0x7eu);
        if (magnitude < 0x3c800000u) {  // below 2^-6
            // Adding 2^14 aligns the mantissa so that the unit in the last place is 2^-9; the addition rounds.
            const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
            return static_cast<std::uint8_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x46800000u));
        }
        const std::uint32_t odd = (magnitude >> 20) & 1u;
        return static_cast<std::uint8_t>(sign | ((magnitude - (120u << 23) + 0x7ffffu + odd) >> 20));
    }
};

/// Floats of 8 bits, value = scale * e4m3, one half-precision scale for `Group` values: 8 + 16 / Group bits per value.
/// The greatest of a group takes the greatest code. Where int8 has the same step for all values of a group, here each
/// keeps 4 significant bits, down to 1 / 28,672 of the greatest.
template <std::size_t Group = 32>
struct fp8 {
    static_assert(policy::require<"zse: kv::fp8<" + policy::decimal<Group>() +
                                      "> needs a group of 16, 32, 64 or 128 values; use kv::fp8<32>",
                                  detail::is_group<Group>>());
    static constexpr auto policy_family = policy::Family::kv;
    static constexpr auto spelling = "kv::fp8<" + policy::decimal<Group>() + ">";
    static constexpr std::string_view name = "fp8";
    static constexpr bool rotates = false;
    static constexpr std::size_t group = Group;
    static constexpr std::size_t piece = 1;

    static constexpr Bytes code_bytes(std::size_t dim) noexcept { return dim; }
    static constexpr Bytes scale_bytes(std::size_t dim) noexcept { return dim / Group * sizeof(v1::f16); }

    static void encode(const float* row, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        for (std::size_t g = 0; g < dim / Group; ++g) {
            const float* values = row + g * Group;
            const float scale =
                detail::store_scale(scales, g, detail::greatest_magnitude(values, Group) / e4m3::greatest);
            if (!std::isfinite(scale)) {
                std::memset(codes + g * Group, e4m3::no_number, Group);
                continue;
            }
            const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
            for (std::size_t i = 0; i < Group; ++i) {
                codes[g * Group + i] = static_cast<std::byte>(e4m3(values[i] * inverse).bits);
            }
        }
    }
    static void decode(const std::byte* codes, const std::byte* scales, std::size_t dim,
                       float* row) noexcept {
        for (std::size_t i = 0; i < dim; ++i) {
            row[i] = detail::load_scale(scales, i / Group) *
                     static_cast<float>(e4m3(static_cast<std::uint8_t>(codes[i])));
        }
    }
};

static_assert(KvCodec<fp8<>>);

}  // namespace kv
}  // namespace zse::inline v1
