// SPDX-License-Identifier: Apache-2.0
// RMS norm, SwiGLU and RoPE against their formulas in double precision.
#include <zse/kernels/cpu/row_ops.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace {

using zse::kernels::RopePairs;
namespace cpu = zse::kernels::cpu;

std::vector<float> gaussian(std::size_t count, unsigned seed, float deviation = 1.0f) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

TEST(RmsNorm, IsItsFormula) {
    for (const std::size_t count : {1u, 2u, 15u, 16u, 17u, 64u, 100u, 576u, 1000u}) {
        for (const float deviation : {1e-3f, 1.0f, 1e4f}) {
            const auto x = gaussian(count, 1, deviation);
            const auto weight = gaussian(count, 2);
            const float epsilon = 1e-5f;
            std::vector<float> out(count + 1, 77.0f);
            cpu::rms_norm(x.data(), weight.data(), count, epsilon, out.data());
            double squares = 0;
            for (const float value : x) squares += static_cast<double>(value) * static_cast<double>(value);
            const double scale =
                1 / std::sqrt(squares / static_cast<double>(count) + static_cast<double>(epsilon));
            for (std::size_t i = 0; i < count; ++i) {
                const double expected = static_cast<double>(x[i]) * scale * static_cast<double>(weight[i]);
                // Sum, root, quotient and two products: about count / 4 + 8 roundings, of which the sum's
                // count half.
                ASSERT_NEAR(static_cast<double>(out[i]), expected,
                            (static_cast<double>(count) / 8 + 8) * 0x1p-24 * std::fabs(expected));
            }
            ASSERT_EQ(out[count], 77.0f);
        }
    }
}

TEST(RmsNorm, OfZerosIsZeros) {
    const std::vector<float> zeros(33, 0.0f);
    const std::vector<float> ones(33, 1.0f);
    std::vector<float> out(33, 77.0f);
    cpu::rms_norm(zeros.data(), ones.data(), 33, 1e-6f, out.data());
    EXPECT_EQ(out, zeros);
}

TEST(RmsNorm, WorksInPlace) {
    const auto x = gaussian(50, 4);
    const auto weight = gaussian(50, 5);
    std::vector<float> apart(50);
    cpu::rms_norm(x.data(), weight.data(), 50, 1e-5f, apart.data());
    auto in_place = x;
    cpu::rms_norm(in_place.data(), weight.data(), 50, 1e-5f, in_place.data());
    EXPECT_EQ(in_place, apart);
}

double silu(double x) {
    return x < -700 ? 0.0 : x / (1 + std::exp(-x));
}

TEST(SwiGlu, IsItsFormula) {
    for (const std::size_t count : {1u, 15u, 16u, 17u, 100u, 1536u}) {
        auto gate = gaussian(count + 1, 1, 3.0f);
        const auto before = gate;
        const auto up = gaussian(count, 2);
        cpu::swiglu(gate.data(), up.data(), count);
        for (std::size_t i = 0; i < count; ++i) {
            const double expected = silu(static_cast<double>(before[i])) * static_cast<double>(up[i]);
            ASSERT_NEAR(static_cast<double>(gate[i]), expected, 1e-6 * std::fabs(expected)) << before[i];
        }
        ASSERT_EQ(gate[count], before[count]);
    }
}

TEST(SwiGlu, HoldsForGatesOfAnyMagnitude) {
    // exp(-x) of a gate below -104 is more than a float holds; the result is almost nothing, never the gate
    // itself.
    for (const double base : {0.0, 1e-30, 1e-3, 1.0, 20.0, 50.0, 87.0, 90.0, 104.0, 105.0, 150.0, 178.0,
                              200.0, 500.0, 1000.0, 1e5, 1e10, 1e30, 3e38}) {
        for (const double sign : {1.0, -1.0}) {
            std::vector<float> gate(19, static_cast<float>(sign * base));
            const std::vector<float> up(19, 2.0f);
            const double expected = 2 * silu(static_cast<double>(gate[0]));
            cpu::swiglu(gate.data(), up.data(), 19);
            for (const float value : gate) {
                if (base == 3e38 && sign > 0) {
                    ASSERT_TRUE(std::isinf(value));
                } else {
                    ASSERT_NEAR(static_cast<double>(value), expected, 1e-6 * std::fabs(expected) + 1e-36)
                        << sign * base;
                }
            }
        }
    }
}

struct Angles {
    std::vector<float> cosines, sines;
};

Angles angles(std::uint32_t position, float base, float linear, std::size_t pairs,
              const float* factors = nullptr) {
    Angles a{std::vector<float>(pairs), std::vector<float>(pairs)};
    cpu::rope_angles(position, base, linear, pairs, factors, a.cosines.data(), a.sines.data());
    return a;
}

TEST(RopeAngles, AreTheirFormula) {
    const auto factors = [] {
        auto values = gaussian(32, 3);
        for (float& value : values) value = 1 + std::fabs(value) * 3;
        return values;
    }();
    for (const std::size_t pairs : {1u, 2u, 24u, 32u}) {
        for (const float base : {10000.0f, 500000.0f}) {
            for (const float linear : {1.0f, 4.0f}) {
                for (const float* divisors : {static_cast<const float*>(nullptr), factors.data()}) {
                    for (const std::uint32_t position : {0u, 1u, 77u, 8191u, 131071u}) {
                        const Angles a = angles(position, base, linear, pairs, divisors);
                        for (std::size_t i = 0; i < pairs; ++i) {
                            const double exponent =
                                2.0 * static_cast<double>(i) / static_cast<double>(2 * pairs);
                            const double divisor =
                                divisors != nullptr ? static_cast<double>(divisors[i]) : 1.0;
                            const double angle = static_cast<double>(position) /
                                                 (std::pow(static_cast<double>(base), exponent) *
                                                  static_cast<double>(linear) * divisor);
                            // 2^-25 for the rounding to float; the angle itself is good to about 1e-10.
                            ASSERT_NEAR(static_cast<double>(a.cosines[i]), std::cos(angle), 3.1e-8);
                            ASSERT_NEAR(static_cast<double>(a.sines[i]), std::sin(angle), 3.1e-8);
                        }
                    }
                }
            }
        }
    }
}

TEST(RopeAngles, LinearScalingIsASmallerPosition) {
    const Angles scaled = angles(400, 10000.0f, 4.0f, 16);
    const Angles near = angles(100, 10000.0f, 1.0f, 16);
    for (std::size_t i = 0; i < 16; ++i) EXPECT_NEAR(scaled.cosines[i], near.cosines[i], 1e-7f);
}

TEST(Rope, TurnsPairsOfEitherOrderAndLeavesTheRest) {
    const std::size_t dim = 80;
    for (const RopePairs order : {RopePairs::neighbours, RopePairs::halves}) {
        for (const std::size_t pairs : {40u, 16u, 1u, 0u}) {
            const Angles a = angles(1234, 10000.0f, 1.0f, pairs);
            const auto before = gaussian(dim, 6);
            auto head = before;
            cpu::rope(head.data(), pairs, a.cosines.data(), a.sines.data(), order);
            auto expected = std::vector<double>(before.begin(), before.end());
            for (std::size_t i = 0; i < pairs; ++i) {
                const std::size_t first = order == RopePairs::neighbours ? 2 * i : i;
                const std::size_t second = order == RopePairs::neighbours ? 2 * i + 1 : i + pairs;
                const double c = static_cast<double>(a.cosines[i]);
                const double s = static_cast<double>(a.sines[i]);
                const double x = static_cast<double>(before[first]);
                const double y = static_cast<double>(before[second]);
                expected[first] = x * c - y * s;
                expected[second] = y * c + x * s;
            }
            for (std::size_t i = 0; i < dim; ++i) {
                ASSERT_NEAR(static_cast<double>(head[i]), expected[i], i < 2 * pairs ? 1e-6 : 0.0) << i;
            }
        }
    }
}

TEST(Rope, ScoresDependOnTheDistanceAlone) {
    const auto q = gaussian(64, 7);
    const auto k = gaussian(64, 8);
    const auto score = [&](std::uint32_t query_position, std::uint32_t key_position, RopePairs order) {
        auto query = q;
        auto key = k;
        const Angles at_query = angles(query_position, 10000.0f, 1.0f, 32);
        const Angles at_key = angles(key_position, 10000.0f, 1.0f, 32);
        cpu::rope(query.data(), 32, at_query.cosines.data(), at_query.sines.data(), order);
        cpu::rope(key.data(), 32, at_key.cosines.data(), at_key.sines.data(), order);
        double sum = 0;
        for (std::size_t i = 0; i < 64; ++i)
            sum += static_cast<double>(query[i]) * static_cast<double>(key[i]);
        return sum;
    };
    for (const RopePairs order : {RopePairs::neighbours, RopePairs::halves}) {
        EXPECT_NEAR(score(10, 3, order), score(5010, 5003, order), 1e-4);
        EXPECT_GT(std::fabs(score(10, 3, order) - score(11, 3, order)), 1e-3);
    }
}

}  // namespace
