// SPDX-License-Identifier: Apache-2.0
// The ledger: caps, reservations that move and end, and reserved apart from held.
#include <zse/memory/ledger.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

using namespace zse::memory;
using zse::Bytes;
using zse::ErrorCode;
using zse::Result;

Reservation reserve(Ledger& ledger, Kind kind, Bytes bytes) {
    return ledger.reserve(Tier::host, kind, bytes).value();
}

static_assert(!std::is_copy_constructible_v<Reservation> && !std::is_copy_assignable_v<Reservation>);

TEST(Ledger, ReservationsCountByKindUntilTheyEnd) {
    Ledger ledger(1000);
    {
        const Reservation weights = reserve(ledger, Kind::weights, 600);
        const Reservation kv = reserve(ledger, Kind::kv, 400);
        EXPECT_EQ(weights.bytes(), 600u);
        EXPECT_EQ(weights.kind(), Kind::weights);
        EXPECT_EQ(weights.tier(), Tier::host);
        EXPECT_EQ(weights.ledger(), &ledger);
        EXPECT_EQ(ledger.reserved(Tier::host)[Kind::weights], 600u);
        EXPECT_EQ(ledger.reserved(Tier::host)[Kind::kv], 400u);
        EXPECT_EQ(ledger.reserved(Tier::host).total(), 1000u);
        EXPECT_EQ(ledger.reserved(Tier::gpu).total(), 0u);
    }
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
}

TEST(Ledger, RefusesWhatBreaksTheCapAndNamesTheBytes) {
    Ledger ledger(1000);
    const Reservation weights = reserve(ledger, Kind::weights, 600);
    const Result<Reservation> kv = ledger.reserve(Tier::host, Kind::kv, 401);
    ASSERT_FALSE(kv.ok());
    support::expect_error([&] { throw kv.error(); }, ErrorCode::out_of_memory,
                          {"tier host", "400 bytes free of 1000", "kv needs 401", "; raise its cap"});
    EXPECT_EQ(ledger.reserved(Tier::host).total(), 600u) << "a refusal reserves nothing";
    EXPECT_TRUE(ledger.reserve(Tier::host, Kind::kv, 400).ok());
}

TEST(Ledger, TheCapHoldsAgainstSizesThatWouldWrap) {
    Ledger ledger(1000);
    const Reservation some = reserve(ledger, Kind::weights, 600);
    EXPECT_FALSE(ledger.reserve(Tier::host, Kind::kv, Ledger::uncapped).ok());
    EXPECT_FALSE(ledger.reserve(Tier::host, Kind::kv, Ledger::uncapped - 500).ok());
    Ledger open;
    const Reservation all = reserve(open, Kind::weights, Ledger::uncapped);
    EXPECT_TRUE(open.reserve(Tier::host, Kind::kv, 0).ok());
    EXPECT_FALSE(open.reserve(Tier::host, Kind::kv, 1).ok());
}

TEST(Ledger, TheCapIsOfTheHostAlone) {
    Ledger ledger(10);
    EXPECT_TRUE(ledger.reserve(Tier::disk, Kind::weights, 1'000'000).ok());
    EXPECT_TRUE(ledger.reserve(Tier::gpu, Kind::weights, 1'000'000).ok());
    EXPECT_FALSE(ledger.reserve(Tier::host, Kind::weights, 11).ok());
}

TEST(Reservation, MovesWithoutCountingTwice) {
    Ledger ledger(1000);
    Reservation first = reserve(ledger, Kind::kv, 300);
    Reservation second(std::move(first));
    EXPECT_EQ(first.ledger(), nullptr);  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(first.bytes(), 0u);
    EXPECT_EQ(second.bytes(), 300u);
    EXPECT_EQ(ledger.reserved(Tier::host).total(), 300u);

    Reservation third = reserve(ledger, Kind::scratch, 200);
    third = std::move(second);
    EXPECT_EQ(third.bytes(), 300u);
    EXPECT_EQ(ledger.reserved(Tier::host)[Kind::scratch], 0u) << "what is assigned over ends";
    EXPECT_EQ(ledger.reserved(Tier::host).total(), 300u);
    third = Reservation();
    EXPECT_EQ(ledger.reserved(Tier::host).total(), 0u);
}

TEST(Ledger, HeldIsWhatWasTakenWithItsRoundingAndPeakStays) {
    Ledger ledger;
    const Reservation kv = reserve(ledger, Kind::kv, 5000);
    EXPECT_EQ(ledger.held(Tier::host).total(), 0u) << "reserved is not held";
    ledger.took(Tier::host, Kind::kv, 5000, 8192);
    ledger.took(Tier::host, Kind::weights, 4096, 4096);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::kv], 5000u);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::rounding], 3192u);
    EXPECT_EQ(ledger.held(Tier::host).total(), 12288u);
    ledger.gave_back(Tier::host, Kind::weights, 4096, 4096);
    ledger.took(Tier::host, Kind::logits, 1, 4096);
    EXPECT_EQ(ledger.peak(Tier::host), 12288u);
    ledger.gave_back(Tier::host, Kind::kv, 5000, 8192);
    ledger.gave_back(Tier::host, Kind::logits, 1, 4096);
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
    EXPECT_EQ(ledger.peak(Tier::host), 12288u);
    EXPECT_EQ(ledger.peak(Tier::gpu), 0u);
}

TEST(Ledger, ThreadsTogetherNeverBreakTheCap) {
    Ledger ledger(1000);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&ledger] {
            for (int i = 0; i < 2000; ++i) {
                const Result<Reservation> some = ledger.reserve(Tier::host, Kind::kv, 300);
                EXPECT_LE(ledger.reserved(Tier::host).total(), 1000u);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(ledger.reserved(Tier::host).total(), 0u);
}

}  // namespace
