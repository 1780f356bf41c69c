// SPDX-License-Identifier: Apache-2.0
// Peaks, reservations and what is held, over random loads: the peak only rises until it is reset, what is reserved is
// never less than what is held, and kinds sum to the total.
// rows: 83 84 86
#include <zse/memory/arena.hpp>
#include <zse/memory/measured.hpp>

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace {

using namespace zse::memory;
using zse::Bytes;
using zse::KiB;
using zse::MiB;

/// What a ledger should say, counted apart from it, for one tier.
struct Shadow {
    std::map<Kind, Bytes> used, peak;

    void set(Kind kind, Bytes before, Bytes now) {
        used[kind] = used[kind] - before + now;
        peak[kind] = std::max(peak[kind], used[kind]);
    }
};

struct Piece {
    Arena arena;
    Tier tier;
    Kind kind;
    Bytes used;
};

class RandomLoad : public testing::TestWithParam<unsigned> {};

TEST_P(RandomLoad, KeepsTheOrderOfItsNumbers) {
    std::mt19937 random(GetParam());
    const auto pick = [&](std::size_t below) {
        return std::uniform_int_distribution<std::size_t>(0, below - 1)(random);
    };
    Ledger ledger;
    std::map<Tier, Shadow> shadows;
    std::vector<Piece> pieces;
    std::vector<Reservation> promised;  // and not taken
    for (int step = 0; step < 400; ++step) {
        std::map<Tier, TierPlan> before;
        for (const Tier tier : all_tiers) before[tier] = ledger.peak(tier);
        bool reset = false;
        switch (pick(6)) {
            case 0: {
                const Tier tier = pick(2) == 0 ? Tier::gpu : Tier::host;
                const auto kind = static_cast<Kind>(pick(kind_count - 1));
                const Bytes bytes = pick(20) == 0 ? MiB(2) + pick(9000) : 1 + pick(KiB(64));
                pieces.push_back({Arena(ledger.reserve(tier, kind, bytes).value()), tier, kind, 0});
                break;
            }
            case 1: promised.push_back(ledger.reserve(Tier::host, Kind::kv, 1 + pick(5000)).value()); break;
            case 2:
                if (promised.size() > 3) promised.pop_back();
                break;
            case 3:
                if (pieces.size() > 8) {
                    Piece& last = pieces.back();
                    shadows[last.tier].set(last.kind, last.used, 0);
                    pieces.pop_back();
                }
                break;
            case 4:
                if (pick(4) == 0) {
                    ledger.reset_peaks();
                    for (auto& [tier, shadow] : shadows) shadow.peak = shadow.used;
                    reset = true;
                }
                break;
            default:
                if (!pieces.empty()) {
                    Piece& piece = pieces[pick(pieces.size())];
                    const Bytes now = pick(piece.arena.size() + 1);
                    shadows[piece.tier].set(piece.kind, piece.used, now);
                    piece.arena.uses(now);
                    piece.used = now;
                }
        }
        for (const Tier tier : all_tiers) {
            const TierPlan held = ledger.held(tier), reserved = ledger.reserved(tier),
                           used = ledger.used(tier), peak = ledger.peak(tier);
            Bytes sum = 0;
            for (std::size_t i = 0; i < kind_count; ++i) {
                const auto kind = static_cast<Kind>(i);
                SCOPED_TRACE(zse::text("step ", step, ", ", name(tier), " ", name(kind)));
                sum += held[kind];
                EXPECT_GE(reserved[kind], held[kind]);
                EXPECT_GE(held[kind], used[kind]);
                EXPECT_GE(peak[kind], used[kind]);
                if (reset) {
                    EXPECT_EQ(peak[kind], used[kind]) << "a reset begins from what is in use";
                } else {
                    EXPECT_GE(peak[kind], before[tier][kind]) << "a peak never falls by itself";
                }
                EXPECT_EQ(used[kind], shadows[tier].used[kind]);
                EXPECT_EQ(peak[kind], shadows[tier].peak[kind]);
            }
            EXPECT_EQ(sum, held.total());
            Bytes mapped = 0;
            for (const Piece& piece : pieces)
                mapped += piece.tier == tier ? arena_bytes(piece.arena.size()) : 0;
            EXPECT_EQ(held.total(), mapped) << "what is held is what is mapped, pages and all";
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomLoad, testing::Range(0u, 6u));

TEST(Measured, SaysByHowMuchAProcessDiffersFromItsPlan) {
    const Measured exact{1000, 600, 5000, 5600};
    EXPECT_EQ(exact.growth(), 600);
    EXPECT_EQ(exact.unexplained(), 0);
    EXPECT_EQ(exact.beyond_plan(), -400) << "a part of the plan was never written";
    const Measured planted{1000, 600, 5000, 6100};
    EXPECT_EQ(planted.unexplained(), 500);
    EXPECT_EQ(planted.beyond_plan(), 100);
    EXPECT_EQ((Measured{10, 10, 50, 40}.growth()), -10);
}

TEST(Measured, CountsWhatIsInUseInMemory) {
    Ledger ledger;
    ledger.uses(Tier::gpu, Kind::weights, 10);
    ledger.uses(Tier::host, Kind::kv, 5);
    ledger.uses(Tier::host, Kind::kv, -2);
    ledger.uses(Tier::disk, Kind::kv, 1000);
    EXPECT_EQ(in_use(ledger), 13u) << "a file is no memory";
}

}  // namespace
