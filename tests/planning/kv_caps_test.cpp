// SPDX-License-Identifier: Apache-2.0
// Caps on KV tier by tier: a pool shrinks to them, and one that is larger than need changes nothing.
// rows: 106
#include <gtest/gtest.h>
#include <planning/asking.hpp>
#include <support/expect_error.hpp>

#include <zse/engine.hpp>
#include <zse/model/models.hpp>
#include <zse/planning/settle.hpp>

namespace {

using namespace zse::planning;
using planned::stated;
using planned::wish_for;
using zse::Bytes;
using zse::GB;
using zse::Limits;
using zse::MB;
using zse::Size;
using zse::memory::Kind;
using zse::memory::Plan;

using Spread = zse::Engine<zse::tiers::chain<zse::tiers::arena, zse::tiers::host, zse::tiers::disk>>;
using Tiered = zse::Engine<zse::tiers::chain<zse::tiers::arena, zse::tiers::host>>;
constexpr const zse::ModelSpec& spec = zse::models::llama3_8b;

TEST(KvCaps, APoolShrinksToTheCapOfItsTier) {
    const Planner plan = planner_of<Tiered>(spec);
    Wish wish = wish_for(spec, {.context = 4096, .batch = 8});
    const Setting whole = settle(plan, wish, stated(0, GB(30)));
    EXPECT_EQ(plan(whole).host[Kind::kv], Bytes{8} * 4096 * 131'072);
    wish.kv_caps.host = GB(1);
    const Plan capped = plan(settle(plan, wish, stated(0, GB(30))));
    EXPECT_LE(capped.host[Kind::kv], GB(1));
    EXPECT_GT(capped.host[Kind::kv] + 2 * capped.pools[0].page_bytes, GB(1));
    wish.kv = Size{true, 0};  // all that is left would be more
    EXPECT_EQ(plan(settle(plan, wish, stated(0, GB(30)))).host[Kind::kv], capped.host[Kind::kv]);
    wish.kv = Size{false, MB(600)};  // and this is less
    EXPECT_LE(plan(settle(plan, wish, stated(0, GB(30)))).host[Kind::kv], MB(600));
}

TEST(KvCaps, MoreThanThereIsMeansNothing) {
    const Planner plan = planner_of<Tiered>(spec);
    Wish wish = wish_for(spec, {.context = 4096, .batch = 2});
    const Setting whole = settle(plan, wish, stated(0, GB(20)));
    wish.kv_caps = {GB(500), GB(32), GB(100)};
    EXPECT_EQ(settle(plan, wish, stated(0, GB(20))).limits, whole.limits);
}

TEST(KvCaps, EachTierHasItsOwn) {
    const Planner plan = planner_of<Tiered>(spec);
    Wish wish = wish_for(spec, {.context = 4096, .batch = 8});
    wish.setting.limits.gpu_layers = 16;  // half of the layers, and the output matrix
    const Budget budget = stated(GB(20), GB(20));
    wish.kv_caps.gpu = MB(800);
    const Plan by_gpu = plan(settle(plan, wish, budget));
    EXPECT_LE(by_gpu.gpu[Kind::kv], MB(800));
    EXPECT_EQ(by_gpu.gpu[Kind::kv], by_gpu.host[Kind::kv]) << "a page has all layers of both";
    wish.kv_caps.host = MB(600);
    EXPECT_LE(plan(settle(plan, wish, budget)).host[Kind::kv], MB(600));
    wish.gpu_layers_open = true;
    const Plan open = plan(settle(plan, wish, budget));
    EXPECT_TRUE(wish.kv_caps.hold(open));
    EXPECT_TRUE(budget.holds(open));
}

// A slower tier that is named takes what a faster one leaves, and no more than that.
TEST(KvCaps, WhatAFasterTierLeavesASlowerOneTakes) {
    const Planner plan = planner_of<Spread>(spec);
    Wish wish = wish_for(spec, {.context = 4096, .gpu_layers = 99});
    Budget budget = stated(GB(20), GB(20));
    budget.disk = {GB(1), 0, 0, GB(1), true};
    const Bytes page = plan(settle(plan, wish, budget)).pools[0].page_bytes;
    const auto nearly = [&](Bytes held, Bytes cap) { return held <= cap && held + page > cap; };
    wish.kv_caps = {MB(100), GB(2), std::nullopt};
    const Plan two = plan(settle(plan, wish, budget));
    EXPECT_TRUE(nearly(two.gpu[Kind::kv], MB(100)));
    EXPECT_EQ(two.host[Kind::kv], 4096 / 16 * page - two.gpu[Kind::kv]);
    EXPECT_EQ(two.disk.total(), 0u);
    wish.kv_caps = {MB(100), MB(200), GB(1)};
    const Plan three = plan(settle(plan, wish, budget));
    EXPECT_TRUE(nearly(three.gpu[Kind::kv], MB(100)));
    EXPECT_TRUE(nearly(three.host[Kind::kv], MB(200)));
    EXPECT_EQ(three.pools[0].pages, 4096u / 16);
    EXPECT_EQ(three.disk[Kind::kv], three.pools[0].disk_pages * three.pools[0].disk_page_bytes);
    wish.kv_caps = {MB(100), std::nullopt, GB(1)};
    const Plan without_host = plan(settle(plan, wish, budget));
    EXPECT_EQ(without_host.host[Kind::kv], 0u);
    EXPECT_TRUE(nearly(without_host.gpu[Kind::kv], MB(100)));
    // More sequences than all tiers hold: as many tokens as they do.
    wish.setting.limits.batch = wish.setting.limits.output_rows = 16;
    wish.kv_caps = {MB(100), MB(200), GB(1)};
    const Plan pooled = plan(settle(plan, wish, budget));
    EXPECT_LE(pooled.disk[Kind::kv], GB(1));
    EXPECT_GT(pooled.disk[Kind::kv] + 4 * page, GB(1));
    // In the host's memory alone.
    wish = wish_for(spec, {.context = 4096});
    wish.kv_caps = {std::nullopt, MB(200), GB(1)};
    const Plan host = plan(settle(plan, wish, budget));
    EXPECT_TRUE(nearly(host.host[Kind::kv], MB(200)));
    EXPECT_EQ(host.pools[0].pages, 4096u / 16);
    budget.disk = {};
    support::expect_error([&] { settle(plan, wish, budget); }, zse::ErrorCode::usage, {"--kv-tier"});
}

TEST(KvCaps, AnOpenContextIsWhatTheyHold) {
    const Planner plan = planner_of<Tiered>(spec);
    Wish wish = wish_for(spec, {});
    wish.kv_caps.host = MB(100);
    EXPECT_EQ(settle(plan, wish, stated(0, GB(30))).limits.context, MB(100) / 131'072 / 16 * 16);
}

TEST(KvCaps, TooLittleForOneSequenceIsAContradiction) {
    const Planner plan = planner_of<Tiered>(spec);
    Wish wish = wish_for(spec, {.context = 4096});
    wish.kv_caps.host = MB(100);
    support::expect_error([&] { settle(plan, wish, stated(0, GB(30))); }, zse::ErrorCode::usage,
                          {"4096 tokens", "--kv-tier", "--max-context"});
}

}  // namespace
