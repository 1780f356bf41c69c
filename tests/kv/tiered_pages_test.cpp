// SPDX-License-Identifier: Apache-2.0
// Pages over three tiers, moved at random, keep every bit; who gives way is who should; damage is found.
// rows: 41 42 43
#include <zse/kv/tiered_pages.hpp>

#include <gtest/gtest.h>
#include <support/nameless_files.hpp>
#include <support/temporary_directory.hpp>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <vector>

namespace {

using namespace zse::kv;
using zse::Bytes;
using zse::memory::Arena;
using zse::memory::Carver;
using zse::memory::DiskArena;
using zse::memory::Kind;
using zse::memory::Ledger;
using zse::memory::Tier;
using zse::memory::Transfers;

/// Pages of three layers, 2 KiB and a bit each, so that a layer fills no whole blocks.
constexpr PageLayout layout = PageLayout::of<f16, f16>(8, 3, 2, 48, 48);

struct Tiers {
    explicit Tiers(const TierPages& counts, Eviction eviction = Eviction::lru, std::uint64_t spare = 2)
        : first(arena(Kind::kv, counts.first * layout.page_bytes())),
          host(arena(Kind::kv, counts.host * layout.page_bytes())),
          staging(arena(Kind::staging, TieredPages::staging_bytes(layout, counts))),
          tables(arena(Kind::page_tables, TieredPages::table_bytes(layout, counts))),
          carver(tables.bytes()),
          disk(ledger.reserve(Tier::disk, Kind::kv, TieredPages::disk_bytes(layout, counts)).value(),
               directory.path()),
          transfers(2, 16),
          pages(carver, layout, counts, {first.data(), host.data(), &disk, staging.data(), &transfers},
                eviction, spare) {}

    Arena arena(Kind kind, Bytes bytes) { return Arena(ledger.reserve(Tier::host, kind, bytes).value()); }
    /// The bytes of a layer of a page, as attention finds them.
    [[nodiscard]] std::vector<std::byte> layer(PageIndex page, std::uint32_t index) const {
        LayerPages of{nullptr, layout.page_bytes(), layout};
        of.places = pages.places();
        of.layer_at = index * layout.layer_bytes();
        of.staged = pages.staged(index);
        of.staged_bytes = TieredPages::slice_bytes(layout);
        const std::byte* const at = of.head(page, 0);
        return {at, at + layout.layer_bytes()};
    }

    support::TemporaryDirectory directory;
    Ledger ledger;
    Arena first, host, staging, tables;
    Carver carver;
    DiskArena disk;
    Transfers transfers;
    TieredPages pages;
};

std::vector<std::byte> noise(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::byte> bytes(layout.page_bytes());
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
}
/// A page that a step writes.
void write(Tiers& tiers, PageIndex page, std::uint32_t entry, std::uint64_t seed) {
    tiers.pages.pin(page, entry);
    tiers.pages.bring(page);
    std::ranges::copy(noise(seed), tiers.pages.at(page));
}

TEST(TieredPages, TablesAreAsPlanned) {
    const Tiers tiers({4, 3, 9});
    EXPECT_EQ(tiers.carver.taken(), TieredPages::table_bytes(layout, {4, 3, 9}));
    EXPECT_EQ(TieredPages::table_bytes(layout, {4, 0, 0}), 0u) << "one tier needs none";
}

TEST(TieredPages, WhateverMovesKeepsEveryBit) {
    for (const Eviction eviction : {Eviction::lru, Eviction::cost}) {
        for (const TierPages counts : {TierPages{5, 6, 20}, TierPages{5, 0, 26}, TierPages{5, 26, 0}}) {
            Tiers tiers(counts, eviction);
            std::mt19937_64 random(7);
            std::map<PageIndex, std::vector<std::byte>> written;
            std::vector<PageIndex> free;
            for (PageIndex page = 0; page < counts.total(); ++page) free.push_back(page);
            for (std::uint64_t step = 0; step < 250; ++step) {
                tiers.pages.begin_step();
                if (written.size() > 25 && random() % 3 == 0) {
                    for (int i = 0; i < 8; ++i) {
                        const auto gone = std::next(written.begin(),
                                                    static_cast<std::ptrdiff_t>(random() % written.size()));
                        tiers.pages.forget(gone->first);
                        free.push_back(gone->first);
                        written.erase(gone);
                    }
                }
                for (int i = 0; i < 2; ++i) {
                    if (!free.empty() && random() % 4 != 0) {
                        std::swap(free[random() % free.size()], free.back());
                        written[free.back()].clear();
                        free.pop_back();
                    }
                }
                if (written.empty()) continue;
                const PageIndex page =
                    std::next(written.begin(), static_cast<std::ptrdiff_t>(random() % written.size()))->first;
                write(tiers, page, static_cast<std::uint32_t>(random() % 30), step + 1);
                written[page] = noise(step + 1);
                for (const auto& [other, bytes] : written) {
                    if (!bytes.empty()) tiers.pages.need(other);
                }
                tiers.pages.start();
                for (std::uint32_t layer = 0; layer < layout.layers; ++layer) {
                    tiers.pages.arrive(layer);
                    for (const auto& [other, bytes] : written) {
                        if (bytes.empty()) continue;
                        const auto from =
                            bytes.begin() + static_cast<std::ptrdiff_t>(layer * layout.layer_bytes());
                        const auto found = tiers.layer(other, layer);
                        ASSERT_TRUE(std::equal(found.begin(), found.end(), from))
                            << step << " " << other << " " << layer;
                    }
                }
                ASSERT_FALSE(tiers.pages.failed());
            }
            const TierTraffic& traffic = tiers.pages.traffic();
            EXPECT_EQ(traffic.spilled_to_host > 0, counts.host > 0);
            EXPECT_EQ(traffic.spilled_to_disk > 0, counts.disk > 0);
            EXPECT_EQ(traffic.fetched_from_host > 0, counts.host > 0);
            EXPECT_EQ(traffic.fetched_from_disk > 0, counts.disk > 0);
        }
    }
}

/// Which tier each of the first pages is in: 0, 1, 2.
std::vector<int> tiers_of(const Tiers& tiers, PageIndex pages) {
    std::vector<int> found;
    for (PageIndex page = 0; page < pages; ++page) {
        const PagePlace place = tiers.pages.places()[page];
        const auto* const at = reinterpret_cast<const std::byte*>(place);
        found.push_back((place & place_on_disk) != 0                                               ? 2
                        : at >= tiers.first.data() && at < tiers.first.data() + tiers.first.size() ? 0
                                                                                                   : 1);
    }
    return found;
}

TEST(TieredPages, ContextGrowsThroughTheTiersInOrder) {
    Tiers tiers({2, 2, 4});
    for (std::uint32_t i = 0; i < 8; ++i) {
        tiers.pages.begin_step();
        for (std::uint32_t before = 0; before < i; ++before) tiers.pages.touch(before);
        write(tiers, i, i, i);
        if (i == 1) {
            EXPECT_EQ(tiers_of(tiers, 2), (std::vector<int>{0, 0}));
        }
        if (i == 3) {
            EXPECT_EQ(tiers_of(tiers, 4), (std::vector<int>{1, 1, 0, 0}));
        }
    }
    EXPECT_EQ(tiers_of(tiers, 8), (std::vector<int>{2, 2, 2, 2, 1, 1, 0, 0}));
    EXPECT_EQ(tiers.pages.used(), (std::array<std::uint64_t, 3>{2, 2, 4}));
}

TEST(TieredPages, EvictionIsByItsPolicy) {
    for (const Eviction eviction : {Eviction::lru, Eviction::cost}) {
        Tiers tiers({3, 0, 4}, eviction);
        for (std::uint32_t i = 0; i < 3; ++i) {
            tiers.pages.begin_step();
            write(tiers, i, 2 - i, i);  // page 0 is used first and lies last in its sequence
        }
        tiers.pages.count(1);
        tiers.pages.count(1);
        tiers.pages.begin_step();
        write(tiers, 3, 9, 9);
        // Page 0 was used longest ago; page 2 is the cheapest to compute again of those that one sequence used.
        EXPECT_EQ(tiers_of(tiers, 4), eviction == Eviction::lru ? (std::vector<int>{2, 0, 0, 0})
                                                                : (std::vector<int>{0, 0, 2, 0}));
    }
}

TEST(TieredPages, PinnedPagesStay) {
    Tiers tiers({2, 1, 4});
    tiers.pages.begin_step();
    for (std::uint32_t i = 0; i < 3; ++i) write(tiers, i, i, i);
    EXPECT_EQ(tiers_of(tiers, 3), (std::vector<int>{0, 0, 1})) << "the third found the first tier pinned";
    EXPECT_FALSE(tiers.pages.failed());
    tiers.pages.pin(3, 3);
    tiers.pages.bring(3);
    EXPECT_TRUE(tiers.pages.failed()) << "more than memory holds: limits keep steps from this";
}

/// Changes the file behind a disk arena: `change` gets it as a stream.
template <class Change>
void meddle(const std::filesystem::path& directory, const Change& change) {
    const auto files = support::nameless_files(directory);
    ASSERT_EQ(files.size(), 1u);
    std::fstream file(files.front(), std::ios::in | std::ios::out | std::ios::binary);
    change(file);
    ASSERT_TRUE(file.good());
}

TEST(TieredPages, DamageIsFound) {
    const Bytes slice = TieredPages::slice_bytes(layout);
    const auto byte_at = [](std::fstream& file, Bytes at) {
        file.seekg(static_cast<std::streamoff>(at));
        return static_cast<char>(file.get());
    };
    const auto put = [](std::fstream& file, Bytes at, char value) {
        file.seekp(static_cast<std::streamoff>(at));
        file.put(value);
    };
    const auto flipped = [&](Bytes at) {
        return [=](std::fstream& file) { put(file, at, static_cast<char>(byte_at(file, at) ^ 1)); };
    };
    const auto swapped = [&](std::fstream& file) {  // layer 0 of slots 0 and 1, which are good pages both
        std::vector<char> a(slice), b(slice);
        file.seekg(0);
        file.read(a.data(), static_cast<std::streamsize>(slice));
        file.read(b.data(), static_cast<std::streamsize>(slice));
        file.seekp(0);
        file.write(b.data(), static_cast<std::streamsize>(slice));
        file.write(a.data(), static_cast<std::streamsize>(slice));
    };
    const auto nothing = [](std::fstream&) {};
    const auto fails = [&](const auto& change, bool fetch) {
        Tiers tiers({2, 0, 4}, Eviction::lru, fetch ? 0 : 2);
        for (std::uint32_t i = 0; i < 4; ++i) {
            tiers.pages.begin_step();
            write(tiers, i, i, i);
        }
        EXPECT_EQ(tiers.pages.used()[2], 2u);
        tiers.pages.begin_step();
        tiers.pages.need(0);  // staged, so all writes are over
        tiers.pages.start();
        for (std::uint32_t layer = 0; layer < 3; ++layer) tiers.pages.arrive(layer);
        EXPECT_FALSE(tiers.pages.failed());
        meddle(tiers.directory.path(), change);
        tiers.pages.begin_step();
        if (fetch) tiers.pages.forget(3);
        tiers.pages.need(0);
        tiers.pages.start();
        for (std::uint32_t layer = 0; layer < 3; ++layer) tiers.pages.arrive(layer);
        EXPECT_EQ(tiers.pages.traffic().fetched_from_disk, fetch ? 1u : 0u);
        return tiers.pages.failed();
    };
    for (const bool fetch : {false, true}) {
        EXPECT_FALSE(fails(nothing, fetch));
        EXPECT_TRUE(fails(flipped(0), fetch));
        EXPECT_TRUE(fails(flipped(layout.layer_bytes() - 1), fetch));
        EXPECT_TRUE(fails(flipped(2 * 4 * slice + 77), fetch)) << "the last layer";
        EXPECT_FALSE(fails(flipped(slice + 5), fetch)) << "another page";
        EXPECT_TRUE(fails(swapped, fetch));
    }
}

TEST(TieredPages, WithoutItsDiskAPoolGoesOn) {
    Tiers tiers({2, 0, 4});
    for (std::uint32_t i = 0; i < 4; ++i) {
        tiers.pages.begin_step();
        write(tiers, i, i, i);
    }
    for (PageIndex page = 0; page < 4; ++page) tiers.pages.forget(page);
    tiers.pages.close_disk();
    EXPECT_TRUE(tiers.pages.closed());
    tiers.pages.begin_step();
    for (std::uint32_t i = 0; i < 2; ++i) write(tiers, i, i, i);
    EXPECT_EQ(tiers_of(tiers, 2), (std::vector<int>{0, 0}));
    EXPECT_EQ(tiers.pages.used(), (std::array<std::uint64_t, 3>{2, 0, 4})) << "nothing there can be had";
}

}  // namespace
