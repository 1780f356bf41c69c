// SPDX-License-Identifier: Apache-2.0
// Pages are read where that came sooner lately, and computed where it did not; a disk gets another chance.
// rows: 57
#include <zse/kv/fetch_policy.hpp>

#include <gtest/gtest.h>

namespace {

using zse::kv::FetchPolicy;

TEST(FetchPolicy, WhatIsNotKnownIsTried) {
    FetchPolicy policy;
    EXPECT_TRUE(policy.worth_reading(1'000'000'000, 1));
    policy.read(1000, 10.0);
    EXPECT_TRUE(policy.worth_reading(1'000'000'000, 1)) << "how long computing takes is not known yet";
    FetchPolicy other;
    other.computed(1000, 0.001);
    EXPECT_TRUE(other.worth_reading(1'000'000'000, 1));
}

TEST(FetchPolicy, WhicheverComesSooner) {
    FetchPolicy policy;
    policy.computed(1000, 1.0);     // a millisecond a token
    policy.read(1'000'000, 0.001);  // 1 GB/s
    EXPECT_TRUE(policy.worth_reading(900'000, 1));
    EXPECT_FALSE(policy.worth_reading(1'100'000, 1));
    EXPECT_TRUE(policy.worth_reading(1'100'000, 2));
}

TEST(FetchPolicy, ASlowDiskIsAskedAgain) {
    FetchPolicy policy;
    policy.computed(1000, 1.0);
    policy.read(1'000'000, 10.0);  // a hundred times too slow for the pages of 100 tokens
    int refused = 0;
    while (!policy.worth_reading(1'000'000, 100)) ASSERT_LT(++refused, 1000);
    EXPECT_NEAR(refused, 44, 2) << "0.9 ^ 44 is a hundredth";
    policy.read(1'000'000, 0.001);  // it was only busy
    policy.read(1'000'000, 0.001);
    EXPECT_TRUE(policy.worth_reading(1'000'000, 100));
}

TEST(FetchPolicy, OneBadReadIsNotForEver) {
    FetchPolicy policy;
    policy.computed(1000, 1.0);
    policy.read(1'000'000, 0.001);
    policy.read(1'000'000, 0.5);
    EXPECT_FALSE(policy.worth_reading(1'000'000, 100));
    for (int i = 0; i < 4; ++i) policy.read(1'000'000, 0.001);
    EXPECT_TRUE(policy.worth_reading(1'000'000, 100));
    policy.read(0, 5.0);
    policy.computed(0, 5.0);
    EXPECT_TRUE(policy.worth_reading(1'000'000, 100)) << "nothing says nothing";
}

}  // namespace
