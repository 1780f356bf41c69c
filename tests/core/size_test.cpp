// SPDX-License-Identifier: Apache-2.0
// Sizes and counts as users write them: both kinds of units, and a sentence for what is neither.
// rows: 2
#include <zse/core/size.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <tuple>

namespace {

using namespace zse;

Bytes bytes_of(std::string_view text) {
    const Size size = parse_size(text).value();
    EXPECT_FALSE(size.automatic) << text;
    return size.bytes;
}

// C3: a "24 GB" card holds 24 GiB, so the two are never taken for each other.
TEST(Size, DecimalAndBinaryUnitsAreTwoThings) {
    EXPECT_EQ(bytes_of("10GiB"), GiB(10));
    EXPECT_EQ(bytes_of("10GB"), GB(10));
    EXPECT_EQ(bytes_of("512MB"), MB(512));
    EXPECT_EQ(bytes_of("512MiB"), MiB(512));
    EXPECT_EQ(bytes_of("3KB"), 3000u);
    EXPECT_EQ(bytes_of("3KiB"), 3072u);
    EXPECT_EQ(bytes_of("2TB"), 2'000'000'000'000u);
    EXPECT_EQ(bytes_of("2TiB"), GiB(2048));
    EXPECT_EQ(bytes_of("4096"), 4096u);
    EXPECT_EQ(bytes_of("4096B"), 4096u);
    EXPECT_EQ(bytes_of("0"), 0u);
}

TEST(Size, SingleLettersArePowersOf1024) {
    EXPECT_EQ(bytes_of("16G"), GiB(16));
    EXPECT_EQ(bytes_of("64M"), MiB(64));
    EXPECT_EQ(bytes_of("4K"), KiB(4));
    EXPECT_EQ(bytes_of("1T"), GiB(1024));
}

TEST(Size, CaseAndBlanksDoNotMatter) {
    EXPECT_EQ(bytes_of("32gb"), GB(32));
    EXPECT_EQ(bytes_of("32 GiB"), GiB(32));
    EXPECT_TRUE(parse_size("auto").value().automatic);
    EXPECT_TRUE(parse_size("AUTO").value().automatic);
}

TEST(Size, FractionsComeToWholeBytesRoundedDown) {
    EXPECT_EQ(bytes_of("1.5GB"), 1'500'000'000u);
    EXPECT_EQ(bytes_of("0.5KiB"), 512u);
    EXPECT_EQ(bytes_of("0.1GiB"), 107'374'182u);  // 107374182.4
    EXPECT_EQ(bytes_of("2.000001MB"), 2'000'001u);
}

TEST(Size, WhatIsNoSizeIsRefused) {
    for (const char* text : {"",      " ",       "-1",          "+1",      "1.5",    "1.5B",  "1.",   ".5GB",
                             "GB",    "1.2.3GB", "10GX",        "10 GB x", "nan",    "inf",   "0x10", "1e9",
                             "1,5GB", "ten",     "1.1234567GB", "autox",   "10\nGB", "\x80GB"}) {
        support::expect_error([&] { std::ignore = parse_size(text).value(); }, ErrorCode::usage,
                              {"is no size", "GiB"});
    }
}

TEST(Size, TooLargeIsRefused) {
    EXPECT_EQ(bytes_of("576460752303423487"), (std::uint64_t{1} << 59) - 1);
    for (const char* text : {"576460752303423488", "9223372036854775808", "99999999999999999999999",
                             "999999999TB", "18446744073709551615GiB"}) {
        support::expect_error([&] { std::ignore = parse_size(text).value(); }, ErrorCode::usage, {"2^59"});
    }
}

TEST(Size, CountsOfParametersAreDecimal) {
    EXPECT_EQ(parse_count("7B").value(), 7'000'000'000u);
    EXPECT_EQ(parse_count("1.5b").value(), 1'500'000'000u);
    EXPECT_EQ(parse_count("135M").value(), 135'000'000u);
    EXPECT_EQ(parse_count("6738415616").value(), 6'738'415'616u);
    support::expect_error([] { std::ignore = parse_count("seven").value(); }, ErrorCode::usage,
                          {"no count", "7B"});
}

TEST(Size, TokensAreNamedInPowersOf1024) {
    EXPECT_EQ(parse_tokens("4K").value(), 4096u);
    EXPECT_EQ(parse_tokens("128k").value(), 131'072u);
    EXPECT_EQ(parse_tokens("1M").value(), 1'048'576u);
    EXPECT_EQ(parse_tokens("1000").value(), 1000u);
    support::expect_error([] { std::ignore = parse_tokens("4KB").value(); }, ErrorCode::usage, {"128K"});
}

}  // namespace
