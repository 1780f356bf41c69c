// SPDX-License-Identifier: Apache-2.0
// Philox against the known answers that its authors publish, and the conversion to [0, 1).
// rows: 76
#include <zse/sampling/philox.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <set>

namespace {

using zse::sampling::philox;
using zse::sampling::philox4x32;
using zse::sampling::PhiloxCounter;
using zse::sampling::uniform;

// Known answers of the Random123 distribution (kat_vectors, philox4x32 with 10 rounds), also at compile time.
static_assert(philox4x32({0, 0, 0, 0}, {0, 0}) ==
              PhiloxCounter{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});

TEST(Philox, GivesThePublishedAnswers) {
    constexpr std::uint32_t ones = 0xffffffffu;
    EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
              (PhiloxCounter{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
    EXPECT_EQ(philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
              (PhiloxCounter{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(Philox, PutsAllBitsOfSeedPositionAndStreamIntoTheBlock) {
    EXPECT_EQ(philox(0x299f31d0a4093822u, 0x85a308d3243f6a88u, 0x0370734413198a2eu),
              (PhiloxCounter{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
    std::set<PhiloxCounter> blocks;
    for (int bit = 0; bit < 64; ++bit) {
        const std::uint64_t word = std::uint64_t{1} << bit;
        blocks.insert(philox(word, 0));
        blocks.insert(philox(0, word));
        blocks.insert(philox(0, 0, word));
    }
    EXPECT_EQ(blocks.size(), 3u * 64u);
}

TEST(Philox, UniformStaysBelowOne) {
    constexpr std::uint32_t most = std::numeric_limits<std::uint32_t>::max();
    static_assert(uniform(0u) == 0.0f && uniform(most) < 1.0f && uniform(0x80000000u) == 0.5f);
    static_assert(uniform(0u, 0u) == 0.0 && uniform(most, most) < 1.0 && uniform(0x80000000u, 0u) == 0.5);
    EXPECT_EQ(uniform(0u, 1u << 11), 0x1p-53);
}

TEST(Philox, UniformIsEven) {
    constexpr int draws = 100'000;
    double sum = 0;
    double squares = 0;
    for (std::uint64_t i = 0; i < draws; ++i) {
        const auto words = philox(42, i);
        const double u = uniform(words[0], words[1]);
        sum += u;
        squares += u * u;
    }
    // Standard errors are 0.00091 and 0.00094; four of them.
    EXPECT_NEAR(sum / draws, 0.5, 0.0037);
    EXPECT_NEAR(squares / draws, 1.0 / 3.0, 0.0038);
}

}  // namespace
