// SPDX-License-Identifier: Apache-2.0
// IEEE half and bfloat16 as own types whose conversions run at compile time, on the host and on a device.
#pragma once

#include <zse/core/version.hpp>

#include <bit>
#include <cstdint>

namespace zse::inline v1 {

/// IEEE 754 binary16 storage; arithmetic is done in float.
struct f16 {
    std::uint16_t bits{};

    f16() = default;
    /// Rounds to nearest, ties to even; overflow becomes infinity, as the hardware conversion does.
    constexpr explicit f16(float value) noexcept : bits(from_float(value)) {}
    constexpr explicit operator float() const noexcept {
        const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
        const std::uint32_t exponent = (bits >> 10) & 0x1fu;
        const std::uint32_t mantissa = bits & 0x3ffu;
        if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
        if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
        // Subnormal: mantissa * 2^-24, exact in float.
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    friend constexpr bool operator==(f16, f16) = default;

private:
    static constexpr std::uint16_t from_float(float value) noexcept {
        const std::uint32_t word = std::bit_cast<std::uint32_t>(value);
        const std::uint32_t sign = (word >> 16) & 0x8000u;
        const std::uint32_t magnitude = word & 0x7fffffffu;
        if (magnitude > 0x7f800000u) {  // NaN stays NaN: quiet bit set, upper payload kept
            return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
        }
        if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // >= 65520
        if (magnitude < 0x38800000u) {  // below 2^-14: subnormal or zero
            // Adding 0.5 aligns the mantissa so that the unit in the last place is 2^-24; the addition
            // rounds.
            const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
            return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
        }
        const std::uint32_t odd = (magnitude >> 13) & 1u;
        return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
    }
};

/// bfloat16 storage: the upper half of a float.
struct bf16 {
    std::uint16_t bits{};

    bf16() = default;
    /// Rounds to nearest, ties to even.
    constexpr explicit bf16(float value) noexcept : bits(from_float(value)) {}
    constexpr explicit operator float() const noexcept {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    }
    friend constexpr bool operator==(bf16, bf16) = default;

private:
    static constexpr std::uint16_t from_float(float value) noexcept {
        const std::uint32_t word = std::bit_cast<std::uint32_t>(value);
        if ((word & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((word >> 16) | 0x40u);
        return static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
    }
};

static_assert(sizeof(f16) == 2 && sizeof(bf16) == 2);

}  // namespace zse::inline v1
