// SPDX-License-Identifier: Apache-2.0
// The ledger: caps of each tier in whole pages of the system, reservations that move and end, and what is reserved,
// held and in use, each for itself.
#include <zse/memory/ledger.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <limits>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

using namespace zse::memory;
using zse::Bytes;
using zse::ErrorCode;
using zse::KiB;
using zse::MiB;
using zse::Result;

constexpr Caps host_cap(Bytes bytes) {
    Caps caps;
    caps.host = bytes;
    return caps;
}

Reservation reserve(Ledger& ledger, Kind kind, Bytes bytes) {
    return ledger.reserve(Tier::host, kind, bytes).value();
}

static_assert(!std::is_copy_constructible_v<Reservation> && !std::is_copy_assignable_v<Reservation>);
static_assert(!std::is_copy_constructible_v<Ledger>);

TEST(Ledger, ReservationsCountByKindInWholePagesUntilTheyEnd) {
    Ledger ledger;
    {
        const Reservation weights = reserve(ledger, Kind::weights, 4096 + 1);
        const Reservation kv = reserve(ledger, Kind::kv, 8192);
        const Reservation more = reserve(ledger, Kind::kv, MiB(2) + 1);
        EXPECT_EQ(weights.bytes(), 4097u);
        EXPECT_EQ(weights.kind(), Kind::weights);
        EXPECT_EQ(weights.tier(), Tier::host);
        EXPECT_EQ(weights.ledger(), &ledger);
        const TierPlan reserved = ledger.reserved(Tier::host);
        EXPECT_EQ(reserved[Kind::weights], 4097u);
        EXPECT_EQ(reserved[Kind::kv], 8192 + MiB(2) + 1);
        EXPECT_EQ(reserved[Kind::rounding], 4095 + MiB(2) - 1);
        EXPECT_EQ(reserved.total(), 8192 + 8192 + MiB(4));
        EXPECT_EQ(ledger.reserved(Tier::gpu), TierPlan{});
        EXPECT_EQ(ledger.held(Tier::host), TierPlan{}) << "reserved is not held";
    }
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
}

TEST(Ledger, RefusesWhatBreaksACapAndSaysHowManyBytesAreMissing) {
    Ledger ledger(host_cap(10'000));
    const Reservation weights = reserve(ledger, Kind::weights, 4000);  // a page: 5,904 bytes are left
    const Result<Reservation> kv = ledger.reserve(Tier::host, Kind::kv, 4097);
    ASSERT_FALSE(kv.ok());
    support::expect_error(
        [&] { throw kv.error(); }, ErrorCode::out_of_memory,
        {"tier host", "5904 bytes free of 10000", "kv needs 8192", "2288 more", "; raise its cap"});
    EXPECT_EQ(ledger.reserved(Tier::host).total(), 4096u) << "a refusal reserves nothing";
    EXPECT_TRUE(ledger.reserve(Tier::host, Kind::kv, 4096).ok());
}

TEST(Ledger, RoundingCountsAgainstTheCap) {
    Ledger ledger(host_cap(MiB(4)));
    const Reservation all = reserve(ledger, Kind::kv, MiB(2) + 1);
    EXPECT_FALSE(ledger.reserve(Tier::host, Kind::control, 1).ok()) << "rounding took the rest";
    EXPECT_TRUE(ledger.reserve(Tier::host, Kind::control, 0).ok());
}

TEST(Ledger, ACapHoldsAgainstSizesThatWouldWrap) {
    constexpr Bytes most = std::numeric_limits<Bytes>::max();
    Ledger ledger(host_cap(MiB(1)));
    const Reservation some = reserve(ledger, Kind::weights, KiB(600));
    EXPECT_FALSE(ledger.reserve(Tier::host, Kind::kv, most).ok());
    EXPECT_FALSE(ledger.reserve(Tier::host, Kind::kv, most - KiB(500)).ok());
    EXPECT_EQ(ledger.reserved(Tier::host).total(), KiB(600));
    Ledger open;
    {
        const Reservation all = reserve(open, Kind::weights, most - MiB(1));
        EXPECT_TRUE(open.reserve(Tier::host, Kind::kv, 0).ok());
        EXPECT_FALSE(open.reserve(Tier::host, Kind::kv, MiB(2)).ok());
    }
    EXPECT_EQ(open.reserved(Tier::host), TierPlan{});
}

TEST(Ledger, EachTierHasACapOfItsOwn) {
    Ledger ledger({KiB(4), KiB(8), 0});
    EXPECT_EQ(ledger.caps()[Tier::gpu], KiB(4));
    EXPECT_EQ(ledger.caps()[Tier::host], KiB(8));
    EXPECT_EQ(ledger.caps()[Tier::disk], 0u);
    EXPECT_FALSE(ledger.reserve(Tier::gpu, Kind::weights, KiB(4) + 1).ok());
    const Result<Reservation> gpu = ledger.reserve(Tier::gpu, Kind::weights, KiB(4));
    EXPECT_TRUE(gpu.ok());
    const Result<Reservation> host = ledger.reserve(Tier::host, Kind::weights, KiB(8));
    EXPECT_TRUE(host.ok()) << "what one tier holds leaves the others alone";
    EXPECT_FALSE(ledger.reserve(Tier::disk, Kind::weights, 1).ok()) << "there is no such tier";
    EXPECT_EQ(Caps{}[Tier::disk], Caps::unlimited);
}

TEST(Reservation, MovesWithoutCountingTwice) {
    Ledger ledger;
    Reservation first = reserve(ledger, Kind::kv, 300);
    Reservation second(std::move(first));
    EXPECT_EQ(first.ledger(), nullptr);  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(first.bytes(), 0u);
    EXPECT_EQ(second.bytes(), 300u);
    EXPECT_EQ(ledger.reserved(Tier::host).total(), 4096u);

    Reservation third = reserve(ledger, Kind::scratch, 200);
    third = std::move(second);
    EXPECT_EQ(third.bytes(), 300u);
    EXPECT_EQ(ledger.reserved(Tier::host)[Kind::scratch], 0u) << "what is assigned over ends";
    EXPECT_EQ(ledger.reserved(Tier::host).total(), 4096u);
    Reservation& same = third;
    third = std::move(same);
    EXPECT_EQ(third.bytes(), 300u) << "moved to itself";
    third = Reservation();
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
}

TEST(Ledger, HeldIsWhatWasTakenWithItsRounding) {
    Ledger ledger;
    ledger.took(Tier::host, Kind::kv, 5000, 8192, Backing::plain);
    ledger.took(Tier::host, Kind::weights, 4096, 4096, Backing::huge);
    ledger.took(Tier::disk, Kind::weights, 1, 4096, Backing::plain);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::kv], 5000u);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::rounding], 3192u);
    EXPECT_EQ(ledger.held(Tier::host).total(), 12288u);
    EXPECT_EQ(ledger.held(Tier::disk).total(), 4096u);
    EXPECT_EQ(ledger.backing(Tier::host, Kind::kv), Backing::plain);
    EXPECT_EQ(ledger.backing(Tier::host, Kind::weights), Backing::huge);
    ledger.gave_back(Tier::host, Kind::weights, 4096, 4096);
    ledger.gave_back(Tier::host, Kind::kv, 5000, 8192);
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
    EXPECT_EQ(ledger.held(Tier::disk).total(), 4096u);
}

TEST(Ledger, PeaksAreTheMostInUseOfEachKindUntilTheyAreReset) {
    Ledger ledger;
    EXPECT_EQ(ledger.peak(Tier::host), TierPlan{});
    ledger.uses(Tier::host, Kind::kv, 700);
    ledger.uses(Tier::host, Kind::kv, -500);
    ledger.uses(Tier::host, Kind::scratch, 40);
    ledger.uses(Tier::host, Kind::kv, 300);  // 500 now, which is no peak
    EXPECT_EQ(ledger.peak(Tier::host)[Kind::kv], 700u);
    EXPECT_EQ(ledger.peak(Tier::host)[Kind::scratch], 40u);
    EXPECT_EQ(ledger.peak(Tier::gpu), TierPlan{});
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{}) << "use is not counted as held";

    ledger.reset_peaks();
    EXPECT_EQ(ledger.peak(Tier::host)[Kind::kv], 500u) << "from what is in use now";
    ledger.uses(Tier::host, Kind::kv, 1);
    ledger.uses(Tier::host, Kind::kv, -501);
    EXPECT_EQ(ledger.peak(Tier::host)[Kind::kv], 501u);
    ledger.uses(Tier::host, Kind::scratch, -40);
    ledger.reset_peaks();
    EXPECT_EQ(ledger.peak(Tier::host), TierPlan{});
}

TEST(Ledger, ThreadsTogetherNeverBreakTheCap) {
    Ledger ledger(host_cap(KiB(12)));
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&ledger] {
            for (int i = 0; i < 2000; ++i) {
                const Result<Reservation> some = ledger.reserve(Tier::host, Kind::kv, 4000);
                EXPECT_LE(ledger.reserved(Tier::host).total(), KiB(12));
                if (!some.ok()) continue;
                ledger.uses(Tier::host, Kind::kv, 4000);
                ledger.uses(Tier::host, Kind::kv, -4000);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
    EXPECT_LE(ledger.peak(Tier::host)[Kind::kv], 12'000u) << "three at once";
    EXPECT_GE(ledger.peak(Tier::host)[Kind::kv], 4'000u);
    ledger.reset_peaks();
    EXPECT_EQ(ledger.peak(Tier::host), TierPlan{}) << "nothing is in use";
}

}  // namespace
