// SPDX-License-Identifier: Apache-2.0
// Arenas hold what the plan says, rounding included; carvers hand it out; both refuse what is not there.
#include <zse/memory/arena.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <cstdint>
#include <fstream>
#include <string>
#include <type_traits>
#include <vector>

namespace {

using namespace zse::memory;
using zse::Bytes;
using zse::ErrorCode;
using zse::MiB;

Arena arena(Ledger& ledger, Kind kind, Bytes bytes) {
    return Arena(ledger.reserve(Tier::host, kind, bytes).value());
}

/// Whether the system has a mapping over this address.
bool mapped(const void* pointer) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        const std::size_t dash = line.find('-');
        const std::uintptr_t first = std::stoull(line.substr(0, dash), nullptr, 16);
        const std::uintptr_t last = std::stoull(line.substr(dash + 1), nullptr, 16);
        if (first <= address && address < last) return true;
    }
    return false;
}

static_assert(!std::is_copy_constructible_v<Arena>);

TEST(Arena, MapsZeroedBytesAndCountsThemWithRounding) {
    Ledger ledger;
    const Arena a = arena(ledger, Kind::kv, 5000);
    EXPECT_EQ(a.size(), 5000u);
    EXPECT_EQ(a.bytes().size(), 5000u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % system_page, 0u);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::kv], 5000u);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::rounding], 2 * system_page - 5000);
    for (std::byte& byte : a.bytes()) {
        EXPECT_EQ(byte, std::byte{0});
        byte = std::byte{0xff};
    }
}

TEST(Arena, LargeOnesBeginAtHugePages) {
    Ledger ledger;
    std::vector<Arena> arenas;
    for (const Bytes bytes : {Arena::huge_page, Arena::huge_page + 1, MiB(5), 3 * Arena::huge_page}) {
        arenas.push_back(arena(ledger, Kind::weights, bytes));
        const Arena& a = arenas.back();
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % Arena::huge_page, 0u);
        a.bytes().front() = a.bytes().back() = std::byte{1};
    }
    const Bytes asked = 2 * Arena::huge_page + 1 + MiB(5) + 3 * Arena::huge_page;
    EXPECT_EQ(ledger.held(Tier::host)[Kind::weights], asked);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::rounding], system_page - 1) << "alignment costs no byte";
}

TEST(Arena, OfNoBytesHoldsNothing) {
    Ledger ledger;
    const Arena none = arena(ledger, Kind::scratch, 0);
    EXPECT_EQ(none.data(), nullptr);
    EXPECT_TRUE(none.bytes().empty());
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
}

TEST(Arena, GivesBackMemoryHeldBytesAndReservation) {
    Ledger ledger(MiB(8));
    const std::byte* data = nullptr;
    {
        const Arena a = arena(ledger, Kind::kv, MiB(7) + 5);
        data = a.data();
        EXPECT_TRUE(mapped(data));
        EXPECT_FALSE(ledger.reserve(Tier::host, Kind::kv, MiB(1)).ok());
    }
    EXPECT_FALSE(mapped(data));
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
    EXPECT_EQ(ledger.peak(Tier::host), MiB(7) + system_page);
    EXPECT_TRUE(ledger.reserve(Tier::host, Kind::kv, MiB(8)).ok());
}

TEST(Arena, MovesWithoutUnmapping) {
    Ledger ledger;
    Arena a = arena(ledger, Kind::kv, 100);
    std::byte* const data = a.data();
    Arena b(std::move(a));
    EXPECT_EQ(b.data(), data);
    EXPECT_EQ(a.data(), nullptr);  // NOLINT(bugprone-use-after-move)
    Arena c = arena(ledger, Kind::logits, 200);
    c = std::move(b);
    EXPECT_EQ(c.data(), data);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::logits], 0u);
    EXPECT_EQ(ledger.held(Tier::host).total(), system_page);
    c = Arena();
    EXPECT_EQ(ledger.held(Tier::host).total(), 0u);
}

TEST(Arena, WhatTheSystemRefusesIsAnErrorAndLeavesNothing) {
    Ledger ledger;
    // The last ones are rounded up past 64 bits.
    for (const Bytes bytes : {Bytes{1} << 60, Ledger::uncapped - 5000, Ledger::uncapped}) {
        support::expect_error([&] { arena(ledger, Kind::kv, bytes); }, ErrorCode::out_of_memory,
                              {"the system refused", "bytes for kv"});
    }
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
}

TEST(Plan, AddsRoundingToWholeSystemPages) {
    Plan plan;
    plan.add(Tier::host, Kind::kv, 1);
    plan.add(Tier::host, Kind::kv, system_page);
    plan.add(Tier::host, Kind::logits, 0);
    plan.add(Tier::disk, Kind::weights, 3 * system_page - 1);
    EXPECT_EQ(plan.host[Kind::kv], system_page + 1);
    EXPECT_EQ(plan.host[Kind::rounding], system_page - 1);
    EXPECT_EQ(plan[Tier::host].total(), 2 * system_page);
    EXPECT_EQ(plan[Tier::disk].total(), 3 * system_page);
    EXPECT_EQ(plan[Tier::gpu].total(), 0u);
    EXPECT_EQ(plan.total(), 5 * system_page);
}

TEST(Plan, SaturatesInsteadOfWrapping) {
    Plan plan;
    plan.add(Tier::host, Kind::kv, Ledger::uncapped);
    plan.add(Tier::host, Kind::kv, Ledger::uncapped);
    EXPECT_EQ(plan.host[Kind::kv], Ledger::uncapped);
    EXPECT_EQ(plan.total(), Ledger::uncapped);
}

TEST(Plan, IsWhatArenasHold) {
    const std::vector<Bytes> sizes{1, 63, 4095, 4096, 4097, 12288, 100'000, MiB(2) - 1, MiB(2), MiB(3) + 17};
    Plan plan;
    Ledger ledger;
    std::vector<Arena> arenas;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        const Kind kind = static_cast<Kind>(i % (kind_count - 1));  // every kind but rounding
        plan.add(Tier::host, kind, sizes[i]);
        arenas.push_back(arena(ledger, kind, sizes[i]));
    }
    EXPECT_EQ(ledger.held(Tier::host), plan.host);
    EXPECT_EQ(ledger.peak(Tier::host), plan.total());
}

TEST(Plan, NamesItsTiersAndKinds) {
    EXPECT_EQ(name(Tier::gpu), "gpu");
    EXPECT_EQ(name(Tier::host), "host");
    EXPECT_EQ(name(Tier::disk), "disk");
    EXPECT_EQ(name(Kind::weights), "weights");
    EXPECT_EQ(name(Kind::page_tables), "page_tables");
    EXPECT_EQ(name(Kind::rounding), "rounding");
}

TEST(Carver, HandsOutAlignedPiecesThatTheirFootprintsCount) {
    Ledger ledger;
    const Bytes planned = Carver::footprint<std::uint32_t>(5) + Carver::footprint<double>(8) +
                          Carver::footprint<char>(0) + Carver::footprint<char>(65);
    EXPECT_EQ(planned, 64u + 64u + 0u + 128u);
    const Arena a = arena(ledger, Kind::control, planned);
    Carver carver(a.bytes());
    const auto first = carver.take<std::uint32_t>(5);
    const auto second = carver.take<double>(8);
    const auto none = carver.take<char>(0);
    const auto last = carver.take<char>(65);
    EXPECT_EQ(first.size(), 5u);
    EXPECT_EQ(reinterpret_cast<std::byte*>(first.data()), a.data());
    EXPECT_EQ(reinterpret_cast<std::byte*>(second.data()), a.data() + 64);
    EXPECT_TRUE(none.empty());
    EXPECT_EQ(reinterpret_cast<std::byte*>(last.data()), a.data() + 128);
    support::expect_error([&] { carver.take<char>(1); }, ErrorCode::internal,
                          {"holds 0 bytes", "64 are needed"});
}

TEST(Carver, RefusesCountsThatWouldWrap) {
    std::byte bytes[64];
    Carver carver(bytes);
    support::expect_error([&] { carver.take<std::uint64_t>(Ledger::uncapped / 4); }, ErrorCode::internal,
                          {"are needed"});
    EXPECT_EQ(carver.take<char>(64).size(), 64u);
}

}  // namespace
