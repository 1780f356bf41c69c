// SPDX-License-Identifier: Apache-2.0
// f16 and bf16 over all 65,536 codes: values, round trips, and rounding to nearest with ties to even.
#include <zse/core/dtype.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace {

using zse::bf16;
using zse::f16;

constexpr float infinity = std::numeric_limits<float>::infinity();

template <class T>
T from_code(std::uint32_t code) {
    T value{};
    value.bits = static_cast<std::uint16_t>(code);
    return value;
}

/// The value of a code by the rules of IEEE 754: sign, `exponent_bits`, and the rest mantissa.
double value_of(std::uint32_t code, int exponent_bits) {
    const int mantissa_bits = 15 - exponent_bits;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = static_cast<int>(code >> mantissa_bits) & ((1 << exponent_bits) - 1);
    const double mantissa = static_cast<double>(code & ((1u << mantissa_bits) - 1));
    const double sign = (code & 0x8000u) != 0 ? -1.0 : 1.0;
    if (exponent == (1 << exponent_bits) - 1) {
        return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
    }
    if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * std::ldexp(mantissa + std::ldexp(1.0, mantissa_bits), exponent - bias - mantissa_bits);
}

template <class T>
void expect_all_codes(int exponent_bits) {
    for (std::uint32_t code = 0; code < 65536; ++code) {
        const float value = static_cast<float>(from_code<T>(code));
        const double expected = value_of(code, exponent_bits);
        if (std::isnan(expected)) {
            ASSERT_TRUE(std::isnan(value)) << code;
            ASSERT_TRUE(std::isnan(static_cast<float>(T(value)))) << code;
            ASSERT_EQ(T(value).bits >> 15, code >> 15) << code;
        } else {
            ASSERT_EQ(static_cast<double>(value), expected) << code;
            ASSERT_EQ(std::signbit(value), std::signbit(expected)) << code;
            ASSERT_EQ(T(value).bits, code);
        }
    }
}

/// Between each two neighbouring codes: the midpoint goes to the even one, all else to the nearer one.
template <class T>
void expect_ties_to_even(std::uint32_t infinity_code, int exponent_bits) {
    for (std::uint32_t low = 0; low < infinity_code; ++low) {
        // The neighbour of the greatest finite value is where one more code would be.
        const double below = value_of(low, exponent_bits);
        const double step = low == 0 ? value_of(1, exponent_bits) : below - value_of(low - 1, exponent_bits);
        const bool last = low + 1 == infinity_code;
        const double above = last ? below + step : value_of(low + 1, exponent_bits);
        const auto middle = static_cast<float>((below + above) / 2);
        ASSERT_EQ(static_cast<double>(middle), (below + above) / 2) << "the midpoint is a float";
        const std::uint32_t even = low % 2 == 0 ? low : low + 1;
        ASSERT_EQ(T(middle).bits, even) << low;
        ASSERT_EQ(T(std::nextafter(middle, 0.0f)).bits, low) << low;
        ASSERT_EQ(T(std::nextafter(middle, infinity)).bits, low + 1) << low;
        ASSERT_EQ(T(-middle).bits, even | 0x8000u) << low;
    }
}

TEST(F16, EveryCodeHasItsValueAndComesBack) {
    expect_all_codes<f16>(5);
}
TEST(Bf16, EveryCodeHasItsValueAndComesBack) {
    expect_all_codes<bf16>(8);
}
TEST(F16, RoundsToNearestTiesToEven) {
    expect_ties_to_even<f16>(0x7c00, 5);
}
TEST(Bf16, RoundsToNearestTiesToEven) {
    expect_ties_to_even<bf16>(0x7f80, 8);
}

TEST(F16, OverflowIsInfinityAndUnderflowIsSignedZero) {
    EXPECT_EQ(f16(1e30f).bits, 0x7c00);
    EXPECT_EQ(f16(-1e30f).bits, 0xfc00);
    EXPECT_EQ(f16(infinity).bits, 0x7c00);
    EXPECT_EQ(f16(1e-30f).bits, 0);
    EXPECT_EQ(f16(-1e-30f).bits, 0x8000);
}

TEST(Bf16, OverflowIsInfinity) {
    EXPECT_EQ(bf16(std::numeric_limits<float>::max()).bits, 0x7f80);
    EXPECT_EQ(bf16(-infinity).bits, 0xff80);
}

TEST(F16, NanNeverBecomesInfinity) {
    // The lowest payload bit would be cut off.
    const float nan = std::bit_cast<float>(0x7f800001u);
    EXPECT_TRUE(std::isnan(static_cast<float>(f16(nan))));
    EXPECT_TRUE(std::isnan(static_cast<float>(bf16(nan))));
}

static_assert(f16(1.5f).bits == 0x3e00 && static_cast<float>(f16(1.5f)) == 1.5f);
static_assert(bf16(1.5f).bits == 0x3fc0 && static_cast<float>(bf16(-2.0f)) == -2.0f);

}  // namespace
