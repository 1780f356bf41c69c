// SPDX-License-Identifier: Apache-2.0
// Log probabilities against a plain sum in long double, at extremes, and for bad input.
// rows: 76 102
#include <zse/sampling/logprobs.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace {

using zse::sampling::log_probability;
using zse::sampling::log_sum_exp;
using Logits = std::vector<float>;
constexpr float infinity = std::numeric_limits<float>::infinity();

TEST(LogProbability, EqualsThePlainFormula) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal(0, 4);
    Logits logits(1000);
    for (float& logit : logits) logit = normal(random);
    long double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<long double>(logit));
    double probabilities = 0;
    for (std::int32_t token = 0; token < 1000; ++token) {
        const double expected = logits[static_cast<std::size_t>(token)] - static_cast<double>(std::log(sum));
        EXPECT_NEAR(log_probability(logits, token), expected, 1e-12);
        probabilities += std::exp(log_probability(logits, token));
    }
    EXPECT_NEAR(probabilities, 1, 1e-12);
}

TEST(LogProbability, OfAUniformRowIsMinusTheLogarithmOfTheVocabulary) {
    for (const float level : {0.0f, 1e30f, -1e30f}) {
        EXPECT_DOUBLE_EQ(log_probability(Logits(4096, level), 17), -std::log(4096.0));
    }
    EXPECT_EQ(log_probability(Logits{3}, 0), 0);
}

TEST(LogProbability, HoldsAtExtremes) {
    constexpr float most = std::numeric_limits<float>::max();
    EXPECT_EQ(log_probability(Logits{most, -most}, 0), 0);
    EXPECT_EQ(log_probability(Logits{-infinity, 2}, 1), 0);
    EXPECT_EQ(log_probability(Logits{-infinity, 2}, 0), -static_cast<double>(infinity));
    EXPECT_NEAR(log_probability(Logits{1000, 1001}, 0), -std::log(1 + std::exp(1.0)), 1e-12);
}

TEST(LogProbability, IsNanWhereTheRowMeansNothing) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(log_probability(Logits{1, nan}, 0)));
    EXPECT_TRUE(std::isnan(log_probability(Logits{nan, 1}, 1)));
    EXPECT_TRUE(std::isnan(log_probability(Logits{1, infinity}, 0)));
    EXPECT_TRUE(std::isnan(log_probability(Logits{-infinity, -infinity}, 0)));
    EXPECT_TRUE(std::isnan(log_sum_exp({})));
}

TEST(LogProbability, RefusesATokenOutsideTheVocabulary) {
    for (const std::int32_t token : {-1, 2, std::numeric_limits<std::int32_t>::max()}) {
        try {
            static_cast<void>(log_probability(Logits{1, 2}, token));
            FAIL() << token;
        } catch (const zse::Error& error) {
            EXPECT_EQ(error.code(), zse::ErrorCode::invalid_input);
        }
    }
}

}  // namespace
