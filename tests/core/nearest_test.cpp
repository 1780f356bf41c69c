// SPDX-License-Identifier: Apache-2.0
// Distances between words, and which of several was probably meant.
// rows: 107
#include <zse/core/nearest.hpp>

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace {

TEST(Nearest, DistancesOfWords) {
    EXPECT_EQ(zse::distance("", ""), 0u);
    EXPECT_EQ(zse::distance("", "abc"), 3u);
    EXPECT_EQ(zse::distance("kitten", "sitting"), 3u);
    EXPECT_EQ(zse::distance("max_contxt", "max_context"), 1u);
    EXPECT_EQ(zse::distance("abc", "cab"), 2u);
}

TEST(Nearest, AThirdOfTheLettersMayBeWrong) {
    constexpr std::array<std::string_view, 4> words{"threads", "isa", "seed", "threats"};
    EXPECT_EQ(zse::near_match(words, "thread"), "threads")
        << "the first of two that are as near is threats' rival";
    EXPECT_EQ(zse::near_match(words, "threatz"), "threats");
    EXPECT_EQ(zse::near_match(words, "isb"), "isa");
    EXPECT_EQ(zse::near_match(words, "xyz"), std::nullopt);
    EXPECT_EQ(zse::near_match(words, "irb"), std::nullopt) << "two of three letters";
    EXPECT_EQ(zse::near_match(words, ""), std::nullopt);
    EXPECT_EQ(zse::near_match(words, std::string(1'000'000, 't')), std::nullopt);
}

}  // namespace
