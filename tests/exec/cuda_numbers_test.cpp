// SPDX-License-Identifier: Apache-2.0
// Numbers of the kernel vocabulary on the host: each conversion and sum of halves is rounded once, to nearest even.
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace {

using Thread = zse::exec::gpu::EmulatedThread;
using zse::f16;

/// The half nearest to a value, to even where two are: searched among all of them.
std::uint16_t nearest_half(long double value) {
    static const auto finite = [] {
        std::vector<long double> v;
        for (unsigned bits = 0; bits < 0x7c00; ++bits)
            v.push_back(static_cast<float>(std::bit_cast<f16>(static_cast<std::uint16_t>(bits))));
        v.push_back(65536.0L);  // in the place of infinity: where it would go on
        return v;
    }();
    const long double magnitude = std::fabs(value);
    std::size_t above =
        static_cast<std::size_t>(std::ranges::lower_bound(finite, magnitude) - finite.begin());
    std::size_t chosen = std::min(above, finite.size() - 1);
    if (chosen > 0 && above < finite.size()) {
        const long double up = finite[above] - magnitude;
        const long double down = magnitude - finite[above - 1];
        if (down < up || (down == up && above % 2 == 1)) chosen = above - 1;
    }
    return static_cast<std::uint16_t>(chosen | (std::signbit(value) ? 0x8000u : 0u));
}

TEST(CudaEmulatedNumbers, ToHalvesRoundsToNearestEven) {
    std::mt19937 random(11);
    for (unsigned i = 0; i < 200'000; ++i) {
        float v[2];
        for (float& x : v) {
            // Exponents where halves are normal, subnormal, zero and too great; every fourth a tie.
            const auto exponent = 127 - 27 + random() % 45;
            std::uint32_t bits = (random() & 0x807fffffu) | static_cast<std::uint32_t>(exponent << 23);
            if (i % 4 == 0) bits = (bits & 0xffffe000u) | 0x1000u;
            x = std::bit_cast<float>(bits);
        }
        const std::uint32_t both = Thread::to_halves(v[0], v[1]);
        ASSERT_EQ(both & 0xffffu, nearest_half(v[0])) << v[0];
        ASSERT_EQ(both >> 16, nearest_half(v[1])) << v[1];
        const float low = Thread::low(both);
        if (std::isfinite(low)) {
            ASSERT_EQ(nearest_half(low), both & 0xffffu);
            ASSERT_EQ(nearest_half(Thread::high(both | 0x80000000u)), both >> 16 | 0x8000u);
        }
    }
    EXPECT_EQ(Thread::to_halves(65519.0f, 65520.0f), 0x7c007bffu);
    EXPECT_TRUE(std::isnan(Thread::low(Thread::to_halves(std::nanf(""), 0))));
}

TEST(CudaEmulatedNumbers, HalfArithmeticRoundsOnce) {
    std::mt19937 random(12);
    const auto any = [&](unsigned i) {
        for (;;) {
            auto bits = static_cast<std::uint32_t>(random() & 0xffffu);
            if (i % 2 == 0)
                bits = (bits & 0x83ffu) | (10 + i / 2 % 10) << 10;  // sums that do not just absorb
            if ((bits & 0x7c00u) != 0x7c00u) return bits;
        }
    };
    const auto value = [](std::uint32_t bits) {
        return static_cast<long double>(
            static_cast<float>(std::bit_cast<f16>(static_cast<std::uint16_t>(bits))));
    };
    unsigned would_differ = 0;
    const auto same = [](std::uint32_t found, std::uint16_t expected) {
        // A sum of nothing may have either sign.
        return found == expected || ((found | expected) & 0x7fffu) == 0;
    };
    for (unsigned i = 0; i < 400'000; ++i) {
        const std::uint32_t a = any(i);
        const std::uint32_t b = any(i);
        const std::uint32_t c = any(i);
        // The product has 22 bits; in the 64 of a long double, what is lost lies far below half a unit of the result.
        const long double exact = value(a) * value(b) + value(c);
        const std::uint16_t expected = nearest_half(exact);
        const std::uint32_t both = Thread::half_fma(a | b << 16, b | a << 16, c | c << 16);
        ASSERT_TRUE(same(both & 0xffffu, expected)) << a << ' ' << b << ' ' << c;
        ASSERT_TRUE(same(both >> 16, expected)) << a << ' ' << b << ' ' << c;
        ASSERT_TRUE(same(Thread::half_add(a, c) & 0xffffu, nearest_half(value(a) + value(c))));
        ASSERT_TRUE(same(Thread::half_mul(a, b) & 0xffffu, nearest_half(value(a) * value(b))));
        const f16 twice(static_cast<float>(f16(static_cast<float>(value(a) * value(b)))) +
                        static_cast<float>(value(c)));
        would_differ += !same(twice.bits, expected);
    }
    EXPECT_GT(would_differ, 1000u);  // the test can tell
    // Just above a tie: rounded to float first it would be the tie itself, and go down.
    EXPECT_EQ(Thread::half_fma(0x3c01u, 0x3c01u, Thread::to_halves(0, 0)) & 0xffffu,
              nearest_half(value(0x3c01) * value(0x3c01)));
    EXPECT_EQ(Thread::half_fma(0x1400u, 0x3c00u | 0u, 0x3c00u) & 0xffffu, nearest_half(value(0x1400) + 1));
}

TEST(CudaEmulatedNumbers, E4m3AllCodes) {
    for (unsigned code = 0; code < 256; ++code) {
        const std::uint32_t both =
            Thread::e4m3_to_halves(static_cast<std::uint16_t>(code | (255 - code) << 8));
        const auto expected = [](unsigned c) {
            // OCP 8-bit floating point: bias 7, no infinities, one NaN a sign.
            const unsigned exponent = c >> 3 & 15u;
            const double mantissa = c & 7u;
            const double v = exponent == 0 ? mantissa / 8 * std::pow(2.0, -6)
                                           : (1 + mantissa / 8) * std::pow(2.0, double{1.0} * exponent - 7);
            return (c & 0x80u) != 0 ? -v : v;
        };
        const auto check = [&](float found, unsigned c) {
            if ((c & 0x7fu) == 0x7f) {
                EXPECT_TRUE(std::isnan(found)) << c;
            } else {
                EXPECT_EQ(double{found}, expected(c)) << c;
                EXPECT_EQ(std::signbit(found), (c & 0x80u) != 0);
            }
        };
        check(Thread::low(both), code);
        check(Thread::high(both), 255 - code);
    }
}

TEST(CudaEmulatedNumbers, ToBfloatsRoundsToNearestEven) {
    EXPECT_EQ(Thread::to_bfloats(1.0f, -2.0f), 0xc0003f80u);
    EXPECT_EQ(Thread::to_bfloats(0x1.01p0f, 0x1.03p0f), 0x3f823f80u);  // ties
    EXPECT_EQ(Thread::to_bfloats(0x1.010002p0f, 0x1.02fffep0f), 0x3f813f81u);
}

TEST(CudaEmulatedNumbers, PicksBytes) {
    std::mt19937 random(13);
    for (unsigned i = 0; i < 10'000; ++i) {
        const auto a = static_cast<std::uint32_t>(random());
        const auto b = static_cast<std::uint32_t>(random());
        const auto selector = static_cast<std::uint32_t>(random() & 0xffffu);
        const std::array<std::uint8_t, 8> bytes =
            std::bit_cast<std::array<std::uint8_t, 8>>(std::array{a, b});
        std::array<std::uint8_t, 4> plain{};
        std::array<std::uint8_t, 4> signs{};
        for (unsigned j = 0; j < 4; ++j) {
            const unsigned nibble = selector / (1u << (4 * j)) % 16;
            plain[j] = bytes[nibble % 8];
            signs[j] = nibble < 8 ? plain[j] : static_cast<std::uint8_t>(plain[j] >= 128 ? 255 : 0);
        }
        ASSERT_EQ(Thread::pick_bytes(a, b, selector), std::bit_cast<std::uint32_t>(plain));
        ASSERT_EQ(Thread::pick_bytes_or_signs(a, b, selector), std::bit_cast<std::uint32_t>(signs));
    }
}

TEST(CudaEmulatedNumbers, Functions) {
    EXPECT_EQ(Thread::nearest(2.5f), 2.0f);
    EXPECT_EQ(Thread::nearest(-3.5f), -4.0f);
    EXPECT_EQ(Thread::nearest(0.49f), 0.0f);
    EXPECT_EQ(Thread::log(2.0), std::log(2.0));

    for (const float v : {0.25f, 1.0f, 3.5f, 10.0f}) {
        EXPECT_FLOAT_EQ(Thread::exp(-v), static_cast<float>(std::exp(-double{v})));
        EXPECT_FLOAT_EQ(Thread::exp2(-v), static_cast<float>(std::exp2(-double{v})));
        EXPECT_FLOAT_EQ(Thread::log2(v), static_cast<float>(std::log2(double{v})));
        EXPECT_FLOAT_EQ(Thread::rsqrt(v), static_cast<float>(1 / std::sqrt(double{v})));
    }
}

}  // namespace
