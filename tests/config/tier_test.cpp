// SPDX-License-Identifier: Apache-2.0
// Tiers as flags have them: what each says, what two of them may say together.
// rows: 106
#include <zse/config/tier.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

namespace {

using namespace zse;
using config::parse_tier;
using config::parse_tiers;
using config::split_tiers;
using config::TierConfig;
using memory::Tier;

TEST(Tiers, AFlagIsATierWithASize) {
    EXPECT_EQ(parse_tier("gpu:auto").value(), (TierConfig{Tier::gpu, {true, 0}, ""}));
    EXPECT_EQ(parse_tier("gpu:10GiB").value(), (TierConfig{Tier::gpu, {false, GiB(10)}, ""}));
    EXPECT_EQ(parse_tier("cpu:32GB").value(), (TierConfig{Tier::host, {false, GB(32)}, ""}));
    EXPECT_EQ(parse_tier("host:32GB").value(), parse_tier("cpu:32GB").value());
    EXPECT_EQ(parse_tier("disk:100GB:/var/my:cache").value(),
              (TierConfig{Tier::disk, {false, GB(100)}, "/var/my:cache"}));
}

TEST(Tiers, WhatIsReadIsWrittenAgain) {
    for (const char* flag : {"gpu:auto", "gpu:64000000", "cpu:32000000000", "disk:100:/a:b"})
        EXPECT_EQ(config::flag_of(parse_tier(flag).value()), flag);
}

TEST(Tiers, WhatIsNoTierIsRefused) {
    const auto refused = [](const std::vector<std::string>& tiers,
                            std::initializer_list<std::string_view> words) {
        support::expect_error([&] { parse_tiers(tiers); }, ErrorCode::usage, words);
    };
    refused({"gpu"}, {"'gpu' is no tier with a size", "gpu:auto"});
    refused({"vram:1GB"}, {"'vram' is no tier", "gpu, cpu"});
    refused({"gpu:"}, {"'' is no size"});
    refused({"cpu:many"}, {"'many' is no size"});
    refused({"cpu:0"}, {"'cpu:0'", "leave it out"});
    refused({"cpu:1GB:/x"}, {"a path belongs to a disk tier, not to the cpu tier"});
    refused({"disk:1GB"}, {"a disk tier needs a path"});
    refused({"disk:1GB:"}, {"a disk tier needs a path"});
    refused({"disk:auto:/x"}, {"a disk tier needs a size"});
    refused({"cpu:1GB", "host:1GB"}, {"'host:1GB': the cpu tier is there twice"});
    refused({"disk:1GB:/x", "cpu:1GB"}, {"stands after the disk tier", "gpu, cpu, disk"});
    refused({"cpu:1GB", "gpu:auto"}, {"stands after the cpu tier"});
}

TEST(Tiers, AListEndsWithAPathThatMayHaveCommas) {
    using Parts = std::vector<std::string>;
    EXPECT_EQ(split_tiers("gpu:auto"), Parts{"gpu:auto"});
    EXPECT_EQ(split_tiers("gpu:auto,cpu:32GB,disk:1GB:/a,b"),
              (Parts{"gpu:auto", "cpu:32GB", "disk:1GB:/a,b"}));
    EXPECT_EQ(split_tiers("gpu:auto,"), (Parts{"gpu:auto", ""}));
}

}  // namespace
