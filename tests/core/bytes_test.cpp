// SPDX-License-Identifier: Apache-2.0
// Byte counts: units, rounding, arithmetic that saturates, and text.
#include <zse/core/bytes.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace {

using namespace zse;

constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

TEST(Bytes, DecimalAndBinaryUnitsDiffer) {
    EXPECT_EQ(KB(3), 3000u);
    EXPECT_EQ(MB(3), 3'000'000u);
    EXPECT_EQ(GB(24), 24'000'000'000u);
    EXPECT_EQ(KiB(3), 3072u);
    EXPECT_EQ(MiB(1), 1'048'576u);
    EXPECT_EQ(GiB(24), 25'769'803'776u);
}

TEST(Bytes, DivisionRoundsUp) {
    EXPECT_EQ(ceil_div(0, 7), 0u);
    EXPECT_EQ(ceil_div(1, 7), 1u);
    EXPECT_EQ(ceil_div(7, 7), 1u);
    EXPECT_EQ(ceil_div(8, 7), 2u);
    EXPECT_EQ(ceil_div(most, 2), most / 2 + 1);
    EXPECT_EQ(round_up(0, 64), 0u);
    EXPECT_EQ(round_up(1, 64), 64u);
    EXPECT_EQ(round_up(64, 64), 64u);
    EXPECT_EQ(round_up(65, 64), 128u);
    EXPECT_EQ(round_up(100, 24), 120u);
}

TEST(Bytes, RoundingUpNeverGivesLess) {
    EXPECT_GE(round_up(most, 64), most);
    EXPECT_GE(round_up(most - 5, 4096), most - 5);
}

TEST(Bytes, ProductsSaturate) {
    EXPECT_EQ(saturating_mul(0, most), 0u);
    EXPECT_EQ(saturating_mul(most, 0), 0u);
    EXPECT_EQ(saturating_mul(1, most), most);
    EXPECT_EQ(saturating_mul(most, 2), most);
    EXPECT_EQ(saturating_mul(1ull << 32, 1ull << 32), most);
    EXPECT_EQ(saturating_mul(1ull << 32, (1ull << 32) - 1), most - 0xffff'ffffu);
    EXPECT_EQ(saturating_mul(3, 5), 15u);
}

TEST(Bytes, SumsSaturate) {
    EXPECT_EQ(saturating_add(most, 0), most);
    EXPECT_EQ(saturating_add(most - 1, 1), most);
    EXPECT_EQ(saturating_add(most, 1), most);
    EXPECT_EQ(saturating_add(most, most), most);
    EXPECT_EQ(saturating_add(3, 5), 8u);
}

TEST(Bytes, HumanTextGivesBothUnits) {
    EXPECT_EQ(human(0), "0 B");
    EXPECT_EQ(human(999'999), "999999 B");
    EXPECT_EQ(human(MB(1)), "1.00 MB (0.95 MiB)");
    EXPECT_EQ(human(MiB(700)), "734.00 MB (700.00 MiB)");
    EXPECT_EQ(human(GB(1)), "1.00 GB (0.93 GiB)");
    EXPECT_EQ(human(GiB(4)), "4.29 GB (4.00 GiB)");
}

}  // namespace
