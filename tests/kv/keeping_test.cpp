// SPDX-License-Identifier: Apache-2.0
// Which tokens are kept, against a simulation that knows what every row sees: no page is written again while a row of
// this or a later chunk sees a token of it, and no sequence has pages that it could do without.
// rows: 33 39
#include <zse/kv/keeping.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace {

using zse::kv::Keeping;

constexpr std::uint64_t nothing = ~std::uint64_t{0};

/// The first position of the stretch of `position`, found by walking.
std::uint64_t stretch_of(const Keeping& keeping, std::uint64_t position) {
    std::uint64_t start = 0;
    while (start + keeping.cut <= position) start += keeping.cut;
    return start;
}
/// Whether a row of the stretch that begins at `stretch` may use the keys and values of a token in the precision of
/// recent ones.
bool recent(const Keeping& keeping, std::uint64_t stretch, std::uint64_t token) {
    if (keeping.recent == 0) return true;
    if (token < keeping.sinks && !keeping.old) return true;
    return token + keeping.recent >= stretch;
}
/// Whether the model's window lets a row see a token.
bool in_window(const Keeping& keeping, std::uint64_t row, std::uint64_t token) {
    return token <= row && (keeping.window == 0 || token + keeping.window > row);
}

std::string describe(const Keeping& k) {
    return "page " + std::to_string(k.page_tokens) + " window " + std::to_string(k.window) + " sinks " +
           std::to_string(k.sinks) + " recent " + std::to_string(k.recent) + " cut " + std::to_string(k.cut) +
           (k.old ? " old" : "") + " heavy " + std::to_string(k.heavy) + " step " +
           std::to_string(k.step_tokens);
}

/// Computes `tokens` tokens in chunks of chunk() rows, and remembers which token every slot of every page holds.
template <class Chunk>
void expect_every_row_to_find_its_tokens(const Keeping& keeping, std::uint64_t tokens, const Chunk& chunk) {
    std::vector<std::uint64_t> table;             // entry -> page
    std::vector<std::uint64_t> pages, old_pages;  // page * page_tokens + slot -> token
    std::uint64_t taken = 0;
    const std::uint64_t size = keeping.page_tokens;
    for (std::uint64_t first = 0; first < tokens;) {
        std::uint64_t rows = std::min<std::uint64_t>(chunk(), tokens - first);
        ASSERT_GE(rows, 1u);
        ASSERT_LE(rows, keeping.step_tokens);
        if (keeping.recent != 0) rows = std::min(rows, stretch_of(keeping, first) + keeping.cut - first);
        const std::uint64_t end = first + rows;
        const std::uint64_t stretch = stretch_of(keeping, first);
        while (table.size() * size < end) {
            const std::uint64_t entry = table.size();
            if (keeping.own(entry)) {
                ASSERT_EQ(keeping.first_entry(entry), entry);
                table.push_back(taken++);
                pages.resize(taken * size, nothing);
            } else {
                ASSERT_LE(keeping.ring(), entry);
                const std::uint64_t before = entry - keeping.ring();
                for (std::uint64_t t = before * size; t < (before + 1) * size; ++t) {
                    ASSERT_FALSE(in_window(keeping, first, t) && recent(keeping, stretch, t))
                        << "page " << before << " is written again while row " << first << " sees token " << t
                        << ": " << describe(keeping);
                }
                table.push_back(table[before]);
                ASSERT_EQ(table[keeping.first_entry(entry)], table[entry]);
            }
        }
        ASSERT_EQ(keeping.entries(end), table.size());
        ASSERT_EQ(keeping.pages(end), taken);
        // What has grown old is coded anew before it is written over.
        if (keeping.old) {
            ASSERT_EQ(keeping.boundary(static_cast<std::uint32_t>(first)) % size, 0u)
                << "whole pages grow old";
            std::uint64_t old_tokens = 0;
            while (old_tokens < first && !recent(keeping, stretch, old_tokens)) ++old_tokens;
            const std::uint64_t kept =
                keeping.heavy == 0 ? old_tokens : std::min<std::uint64_t>(old_tokens, keeping.heavy);
            ASSERT_EQ(keeping.old_tokens(static_cast<std::uint32_t>(first)), kept);
            ASSERT_EQ(keeping.old_pages(end) * size, kept);
            // Pages of old tokens that this chunk writes: all of them may change where few are kept.
            ASSERT_LE(keeping.first_old_written(first), keeping.heavy == 0 ? old_pages.size() / size : 0);
            for (std::uint64_t t = old_pages.size(); t < old_tokens; ++t) {
                old_pages.push_back(pages[table[t / size] * size + t % size]);
                ASSERT_TRUE(keeping.heavy == 0 || old_pages.back() == t)
                    << "it is gone before it can be chosen";
            }
        } else {
            ASSERT_EQ(keeping.old_pages(end), 0u);
        }
        for (std::uint64_t t = first; t < end; ++t) pages[table[t / size] * size + t % size] = t;
        for (const std::uint64_t row : {first, end - 1}) {
            const std::uint32_t boundary = keeping.boundary(static_cast<std::uint32_t>(row));
            ASSERT_EQ(boundary, keeping.boundary(static_cast<std::uint32_t>(first)))
                << "one border for a chunk";
            for (std::uint64_t t = 0; t <= row; ++t) {
                ASSERT_EQ(recent(keeping, stretch, t), t >= boundary || (t < keeping.sinks && !keeping.old));
                if (!in_window(keeping, row, t)) continue;
                if (recent(keeping, stretch, t)) {
                    ASSERT_EQ(pages[table[t / size] * size + t % size], t)
                        << "row " << row << " no longer finds token " << t << ": " << describe(keeping);
                } else if (keeping.old && keeping.heavy == 0) {
                    ASSERT_EQ(old_pages.at(t), t) << "row " << row << ": " << describe(keeping);
                }
            }
        }
        first = end;
    }
}

/// Pages behind the sinks that one chunk needs at once, at worst: from that of the first token which its first row sees
/// to that of its last row.
std::uint64_t pages_needed(const Keeping& keeping, std::uint64_t tokens) {
    std::uint64_t most = 0;
    const std::uint64_t size = keeping.page_tokens;
    const std::uint64_t sink_pages = (keeping.sinks + size - 1) / size;
    std::uint64_t seen = 0;
    for (std::uint64_t first = 0; first < tokens; ++first) {
        // As first grows so does the first token that its row sees, but for the sinks.
        seen = std::max<std::uint64_t>(seen, std::min<std::uint64_t>(first, keeping.old ? 0 : keeping.sinks));
        const std::uint64_t stretch = stretch_of(keeping, first);
        while (seen < first && !(in_window(keeping, first, seen) && recent(keeping, stretch, seen))) ++seen;
        std::uint64_t end = first + keeping.step_tokens;
        if (keeping.recent != 0) end = std::min(end, stretch + keeping.cut);
        const std::uint64_t from = std::max(seen / size, sink_pages);
        const std::uint64_t to = (end - 1) / size;
        if (to >= from) most = std::max(most, to - from + 1);
    }
    return most;
}

/// Keepings of all kinds, with steps of `step` rows.
std::vector<Keeping> keepings(std::uint32_t step) {
    std::vector<Keeping> all;
    for (const std::uint32_t page : {1u, 8u, 16u, 32u}) {
        for (const std::uint32_t window : {0u, 1u, 2u, 16u, 17u, 100u, 300u}) {
            all.push_back({.page_tokens = page, .window = window, .step_tokens = step});
        }
        for (const std::uint32_t recent : {256u, 768u}) {
            for (const std::uint32_t window : {0u, 33u, 500u}) {
                for (const std::uint32_t sinks : {0u, 4u, 40u, 300u}) {
                    all.push_back({.page_tokens = page,
                                   .window = window,
                                   .sinks = sinks,
                                   .recent = recent,
                                   .step_tokens = step});
                }
                all.push_back({.page_tokens = page,
                               .window = window,
                               .recent = recent,
                               .old = true,
                               .step_tokens = step});
            }
        }
        for (const std::uint32_t heavy : {32u, 320u}) {
            all.push_back(
                {.page_tokens = page, .recent = 256, .old = true, .heavy = heavy, .step_tokens = step});
        }
        all.push_back({.page_tokens = page, .sinks = 4, .recent = 512, .cut = 512, .step_tokens = step});
        all.push_back({.page_tokens = page, .sinks = 4, .recent = 64, .cut = 32, .step_tokens = step});
    }
    return all;
}

TEST(Keeping, NoPageIsWrittenAgainWhileARowSeesATokenOfIt) {
    std::mt19937 random(3);
    for (const std::uint32_t step : {1u, 5u, 64u, 512u}) {
        for (const Keeping& keeping : keepings(step)) {
            // Chunks as large as they may be, which is worst, and chunks of all sizes.
            const std::uint64_t tokens = step < 64 ? 1300 : 2100;
            expect_every_row_to_find_its_tokens(keeping, tokens, [&] { return step; });
            if (testing::Test::HasFatalFailure()) return;
            if (step == 1) continue;
            expect_every_row_to_find_its_tokens(keeping, tokens, [&] {
                return random() % 4 == 0 ? 1u : static_cast<std::uint32_t>(1 + random() % step);
            });
            if (testing::Test::HasFatalFailure()) return;
        }
    }
}

TEST(Keeping, ARingHasNoMoreThanTwoPagesBeyondWhatAChunkNeeds) {
    for (const std::uint32_t step : {1u, 5u, 16u, 64u, 512u}) {
        for (const Keeping& keeping : keepings(step)) {
            if (keeping.window == 0 && keeping.recent == 0) {
                EXPECT_TRUE(keeping.own(1u << 20)) << "everything is kept";
                EXPECT_EQ(keeping.pages(1'000'000),
                          (1'000'000 + keeping.page_tokens - 1) / keeping.page_tokens);
                continue;
            }
            const std::uint64_t needed = pages_needed(keeping, 2600);
            EXPECT_GE(keeping.ring(), needed) << describe(keeping);
            EXPECT_LE(keeping.ring(), needed + 2) << describe(keeping);
        }
    }
}

TEST(Keeping, PagesOfLongSequencesDoNotGrowWhereTokensAreDropped) {
    // 1,024 recent tokens, a stretch of 256, and 4 sinks: 80 pages of 16 and one.
    const Keeping dropping{.page_tokens = 16, .sinks = 4, .recent = 1024, .step_tokens = 512};
    EXPECT_EQ(dropping.pages(0), 0u);
    EXPECT_EQ(dropping.pages(1), 1u);
    EXPECT_EQ(dropping.pages(1296), 81u);
    EXPECT_EQ(dropping.pages(100'000), 81u);
    EXPECT_EQ(dropping.entries(100'000), 6250u);
    // A window of 128 under steps of 32 rows: 159 tokens reach into 11 pages, where the first is the last of its page.
    const Keeping window{.page_tokens = 16, .window = 128, .step_tokens = 32};
    EXPECT_EQ(window.pages(100'000), 11u);
    EXPECT_EQ(window.pages(17), 2u);
    // Old tokens: all but the last 1,024 before the stretch.
    const Keeping sliding{.page_tokens = 16, .recent = 1024, .old = true, .step_tokens = 512};
    EXPECT_EQ(sliding.old_pages(0), 0u);
    EXPECT_EQ(sliding.old_pages(1280), 0u);
    EXPECT_EQ(sliding.old_pages(1281), 16u) << "position 1,280 begins a stretch";
    EXPECT_EQ(sliding.old_pages(1536), 16u);
    EXPECT_EQ(sliding.old_pages(1537), 32u);
    EXPECT_EQ(sliding.pages(100'000), 80u);
    const Keeping heavy{.page_tokens = 16, .recent = 1024, .old = true, .heavy = 128, .step_tokens = 512};
    EXPECT_EQ(heavy.old_pages(1280), 0u);
    EXPECT_EQ(heavy.old_pages(1281), 8u);
    EXPECT_EQ(heavy.old_pages(100'000), 8u);
    EXPECT_EQ(heavy.old_tokens(99'999), 128u);
}

TEST(Keeping, TheBorderDependsOnThePositionAlone) {
    const Keeping keeping{.page_tokens = 16, .recent = 512, .old = true, .step_tokens = 512};
    std::map<std::uint32_t, std::uint32_t> borders;  // the first position at which each holds
    for (std::uint32_t position = 0; position < 1600; ++position)
        borders.emplace(keeping.boundary(position), position);
    const std::map<std::uint32_t, std::uint32_t> expected{
        {0, 0}, {256, 1024 - 256}, {512, 1024}, {768, 1280}, {1024, 1536}};
    EXPECT_EQ(borders, expected);
}

}  // namespace
