// SPDX-License-Identifier: Apache-2.0
// Parameters out of range are refused with a sentence that names parameter, value and range.
// rows: 76
#include <zse/sampling/sampler.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace {

using testing::HasSubstr;
using zse::sampling::Sampler;
using zse::sampling::SamplingParams;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

std::string refusal(const SamplingParams& params) {
    try {
        validate(params);
    } catch (const zse::Error& error) {
        EXPECT_EQ(error.code(), zse::ErrorCode::usage);
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
        return error.what();
    }
    return "accepted";
}

TEST(SamplingParams, DefaultsAndLimitsAreAccepted) {
    EXPECT_EQ(refusal({}), "accepted");
    EXPECT_EQ(refusal({.temperature = std::numeric_limits<float>::max(),
                       .top_k = std::numeric_limits<int>::max(),
                       .top_p = 0,
                       .min_p = 1,
                       .repetition_penalty = std::numeric_limits<float>::denorm_min(),
                       .repetition_window = std::numeric_limits<int>::max()}),
              "accepted");
}

TEST(SamplingParams, TheRefusalNamesParameterValueAndRange) {
    EXPECT_EQ(refusal({.temperature = -0.5f}),
              "temperature must be a finite number from 0 up, not -0.5; use 0 for greedy");
    EXPECT_EQ(refusal({.top_k = -1}), "top_k must be an integer from 0 up, not -1; use 0 to keep all tokens");
    EXPECT_EQ(refusal({.top_p = 1.5f}), "top_p must be between 0 and 1, not 1.5; use 1 to keep all tokens");
    EXPECT_THAT(refusal({.top_p = -0.1f}), HasSubstr("top_p must be between 0 and 1, not -0.1"));
    EXPECT_THAT(refusal({.min_p = 2}), HasSubstr("min_p must be between 0 and 1, not 2"));
    EXPECT_THAT(refusal({.min_p = -1}), HasSubstr("min_p must be between 0 and 1, not -1"));
    EXPECT_THAT(refusal({.repetition_penalty = 0}),
                HasSubstr("repetition_penalty must be a finite number above 0"));
    EXPECT_THAT(refusal({.repetition_window = -3}),
                HasSubstr("repetition_window must be an integer from 0 up, not -3"));
}

TEST(SamplingParams, NanAndInfinityAreOutOfEveryRange) {
    for (const float value : {nan, infinity, -infinity}) {
        EXPECT_THAT(refusal({.temperature = value}), HasSubstr("temperature must be"));
        EXPECT_THAT(refusal({.top_p = value}), HasSubstr("top_p must be"));
        EXPECT_THAT(refusal({.min_p = value}), HasSubstr("min_p must be"));
        EXPECT_THAT(refusal({.repetition_penalty = value}), HasSubstr("repetition_penalty must be"));
    }
    EXPECT_THAT(refusal({.temperature = nan}), HasSubstr("nan"));
}

TEST(SamplingParams, ASamplerCannotBeMadeOfBadOnes) {
    EXPECT_THROW(Sampler({.temperature = nan}), zse::Error);
    EXPECT_NO_THROW(Sampler({.temperature = 0.7f}));
}

}  // namespace
