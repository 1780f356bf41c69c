// SPDX-License-Identifier: Apache-2.0
// NF4: the published levels, every code, less error than evenly spaced codes, and its size.
// rows: 24 25
#include <zse/weights/nf4.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <vector>

namespace {

using zse::f16;
using zse::weights::nf4;
using zse::weights::nf4_levels;

// As published with QLoRA (arXiv 2305.14314, appendix E).
constexpr std::array<double, 16> published{-1.0,
                                           -0.6961928009986877,
                                           -0.5250730514526367,
                                           -0.39491748809814453,
                                           -0.28444138169288635,
                                           -0.18477343022823334,
                                           -0.09105003625154495,
                                           0.0,
                                           0.07958029955625534,
                                           0.16093020141124725,
                                           0.24611230194568634,
                                           0.33791524171829224,
                                           0.44070982933044434,
                                           0.5626170039176941,
                                           0.7229568362236023,
                                           1.0};

std::vector<float> gaussian(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

template <class C>
std::vector<float> through(const std::vector<float>& values) {
    std::vector<std::byte> row(C::format.row_bytes(values.size()));
    C::encode_row(values.data(), values.size(), row.data());
    std::vector<float> decoded(values.size());
    C::decode_row(row.data(), values.size(), decoded.data());
    return decoded;
}

/// Sixteen evenly spaced codes of [-8, 7], rounded to nearest; the scale is that of the greatest magnitude.
std::vector<float> round_to_nearest(const std::vector<float>& values, std::size_t block, float top) {
    std::vector<float> decoded(values.size());
    for (std::size_t first = 0; first < values.size(); first += block) {
        float greatest = 0;
        for (std::size_t i = first; i < first + block; ++i)
            greatest = std::max(greatest, std::fabs(values[i]));
        const float scale = static_cast<float>(f16(greatest / top));
        for (std::size_t i = first; i < first + block; ++i) {
            decoded[i] = scale * std::clamp(std::nearbyint(values[i] / scale), -8.0f, 7.0f);
        }
    }
    return decoded;
}

double rms_error(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double error = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        sum += error * error;
    }
    return std::sqrt(sum / static_cast<double>(a.size()));
}

TEST(Nf4, TheCodeBookIsThePublishedOne) {
    for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(static_cast<double>(nf4_levels[i]), published[i]) << i;
}

TEST(Nf4, EveryByteHoldsTwoLevels) {
    for (const float wanted : {1.0f, 0.0213f, 3.0f, 65504.0f}) {
        const f16 scale(wanted);
        for (unsigned start = 0; start < 256; start += 32) {
            std::array<std::byte, 34> row{};
            row[0] = static_cast<std::byte>(scale.bits & 0xffu);
            row[1] = static_cast<std::byte>(scale.bits >> 8);
            for (unsigned j = 0; j < 32; ++j) row[2 + j] = static_cast<std::byte>(start + j);
            std::array<float, 64> values{};
            nf4<64>::decode_row(row.data(), 64, values.data());
            for (unsigned j = 0; j < 32; ++j) {
                const unsigned pair = start + j;
                // Eleven bits times twenty-four are exact in double, and rounded once to float.
                const double s = static_cast<double>(static_cast<float>(scale));
                ASSERT_EQ(values[j], static_cast<float>(s * published[pair % 16]));
                ASSERT_EQ(values[j + 32], static_cast<float>(s * published[pair / 16]));
            }
        }
    }
}

TEST(Nf4, ChoosesTheNearestLevel) {
    std::vector<float> values(64);
    values[0] = 1.0f;
    std::mt19937 random(5);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    for (int repeat = 0; repeat < 50; ++repeat) {
        for (std::size_t i = 1; i < 64; ++i) values[i] = uniform(random);
        const auto decoded = through<nf4<64>>(values);
        for (std::size_t i = 0; i < 64; ++i) {
            double nearest = 2;
            for (const double level : published)
                nearest = std::min(nearest, std::fabs(level - static_cast<double>(values[i])));
            EXPECT_LE(std::fabs(static_cast<double>(decoded[i]) - static_cast<double>(values[i])),
                      nearest + 1e-7);
        }
    }
}

TEST(Nf4, ErrsLessOnGaussianWeightsThanEvenlySpacedCodes) {
    for (unsigned seed = 0; seed < 5; ++seed) {
        const auto values = gaussian(64 * 1000, seed);
        const double nf4_error = rms_error(through<nf4<64>>(values), values);
        // The scale of a symmetric code reaches 7 or 8 steps; NF4 has to beat both.
        EXPECT_LT(nf4_error, 0.95 * rms_error(round_to_nearest(values, 64, 7.0f), values));
        EXPECT_LT(nf4_error, 0.98 * rms_error(round_to_nearest(values, 64, 8.0f), values));
        EXPECT_LT(nf4_error, 0.1 * 0.02) << "a tenth of the deviation of the weights";
    }
}

TEST(Nf4, SmallerBlocksErrLess) {
    const auto values = gaussian(128 * 500, 9);
    const double by32 = rms_error(through<nf4<32>>(values), values);
    const double by64 = rms_error(through<nf4<64>>(values), values);
    const double by128 = rms_error(through<nf4<128>>(values), values);
    EXPECT_LT(by32, by64);
    EXPECT_LT(by64, by128);
}

TEST(Nf4, TakesFourBitsAndItsScale) {
    EXPECT_EQ(nf4<64>::format.row_bytes(4096) * 8, 4096 * 4 + 4096 / 64 * 16);
    EXPECT_EQ(nf4<64>::format.bits(), 4 + 16.0 / 64);
}

TEST(Nf4, CompressesAlmostFourfoldAgainst16BitsAndEightfoldAgainst32) {
    const auto bytes = static_cast<double>(nf4<64>::format.row_bytes(4096));
    const double against16 = 2 * 4096 / bytes;
    const double against32 = 4 * 4096 / bytes;
    EXPECT_GE(against16, 3.5);
    EXPECT_LE(against16, 3.9);
    EXPECT_GE(against32, 7.0);
    EXPECT_LE(against32, 7.8);
    EXPECT_DOUBLE_EQ(against32, 2 * against16);
}

}  // namespace
