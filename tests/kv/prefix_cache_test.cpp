// SPDX-License-Identifier: Apache-2.0
// Pages that are found again by the tokens in them and in front of them: against prefixes spelled out in full.
// rows: 33 57
#include <gtest/gtest.h>

#include <zse/kv/sequences.hpp>

#include <map>
#include <random>
#include <set>

namespace {

using namespace zse::kv;
using Tokens = std::vector<std::int32_t>;

constexpr std::uint32_t page_tokens = 8;

/// Sequences over pools without pages, with a cache, in as many groups.
struct Cached {
    std::vector<std::vector<PageIndex>> indices;
    std::vector<std::vector<PagePool::Holders>> holders;
    std::vector<std::byte> blocks;
    Sequences sequences;

    Cached(std::uint32_t slots, std::size_t entries, std::size_t pages, std::uint32_t groups)
        : indices(groups * (slots + 1)),
          holders(groups),
          blocks(PrefixCache::bytes(pages, page_tokens, groups)) {
        std::vector<GroupPages> made(groups);
        for (std::uint32_t g = 0; g < groups; ++g) {
            auto* part = &indices[g * (slots + 1)];
            part[0].resize(pages);
            holders[g].resize(pages);
            made[g].keeping.page_tokens = page_tokens;
            made[g].pool = PagePool(part[0], holders[g], nullptr, 0);
            made[g].pool.shuffle(g + 1);  // pages of a block differ from group to group
            for (std::uint32_t slot = 0; slot < slots; ++slot) {
                part[slot + 1].resize(entries);
                made[g].tables.emplace_back(part[slot + 1]);
            }
        }
        zse::memory::Carver carver(blocks);
        sequences = Sequences(std::move(made), PrefixCache(carver, pages, page_tokens, groups));
    }
    [[nodiscard]] std::size_t held(std::size_t group) const { return sequences.groups()[group].pool.used(); }
};

/// What a slot holds: its tokens, and how many of them are computed.
struct Running {
    Tokens tokens;
    std::uint32_t computed = 0;
};

/// The same cache with prefixes as keys and stamps of time: slow, and obviously right.
class Shadow {
public:
    /// Tokens in whole pages that are known, fewer than all.
    [[nodiscard]] std::uint32_t longest(const Tokens& tokens) const {
        std::uint32_t found = 0;
        while (found + page_tokens < tokens.size() && known_.contains(prefix(tokens, found + page_tokens))) {
            found += page_tokens;
        }
        return found;
    }
    void seal(const Running& running) {
        for (std::uint32_t end = page_tokens; end <= running.computed; end += page_tokens) {
            known_.try_emplace(prefix(running.tokens, end), 0);
        }
    }
    void release(const Running& running) {
        for (std::uint32_t end = running.computed / page_tokens * page_tokens; end > 0; end -= page_tokens) {
            known_[prefix(running.tokens, end)] = ++now_;
        }
    }
    /// Drops the one that was let go of first, of those that none of these holds.
    void drop(const std::vector<Running>& all) {
        auto oldest = known_.end();
        for (auto entry = known_.begin(); entry != known_.end(); ++entry) {
            if (is_held(entry->first, all)) continue;
            if (oldest == known_.end() || entry->second < oldest->second) oldest = entry;
        }
        ASSERT_NE(oldest, known_.end());
        known_.erase(oldest);
    }
    [[nodiscard]] std::size_t idle(const std::vector<Running>& all) const {
        std::size_t count = 0;
        for (const auto& [key, stamp] : known_) count += is_held(key, all) ? 0 : 1;
        return count;
    }
    [[nodiscard]] std::size_t known() const { return known_.size(); }

    static Tokens prefix(const Tokens& tokens, std::uint32_t end) {
        return {tokens.begin(), tokens.begin() + end};
    }

private:
    static bool is_held(const Tokens& key, const std::vector<Running>& all) {
        for (const Running& running : all) {
            if (running.computed >= key.size() && std::equal(key.begin(), key.end(), running.tokens.begin()))
                return true;
        }
        return false;
    }
    std::map<Tokens, std::uint64_t> known_;
    std::uint64_t now_ = 0;
};

TEST(PrefixCache, ASecondSequenceHoldsThePagesOfTheFirst) {
    Cached cached(2, 10, 20, 1);
    Sequences& s = cached.sequences;
    Tokens tokens(30);
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i);
    EXPECT_EQ(s.adopt(0, tokens), 0u);
    ASSERT_TRUE(s.reserve(0, 0, 30));
    s.seal(0, tokens, 0, 30);
    EXPECT_EQ(s.adopt(1, tokens), 24u) << "while the first still runs";
    EXPECT_EQ(s.used(), 4u);
    EXPECT_EQ(s.groups()[0].tables[1].data()[2], s.groups()[0].tables[0].data()[2]);
    s.release(1);
    s.release(0);
    EXPECT_EQ(s.used(), 0u);
    EXPECT_EQ(s.cached(), 3u) << "the page that is not full is free";
    EXPECT_EQ(s.adopt(0, Tokens(tokens.begin(), tokens.begin() + 16)), 8u) << "one token has to be computed";
    EXPECT_EQ(s.cached(), 2u);
    s.release(0);
    Tokens other = tokens;
    other[0] = 99;
    EXPECT_EQ(s.adopt(0, other), 0u) << "the second page depends on the first";
    other = tokens;
    other[15] = 99;
    EXPECT_EQ(s.adopt(0, other), 8u);
}

TEST(PrefixCache, TheLeastRecentlyUsedGivesWayAndItsPrefixStays) {
    Cached cached(2, 10, 6, 2);
    Sequences& s = cached.sequences;
    const Tokens a(25, 1);
    const Tokens b(17, 2);
    ASSERT_TRUE(s.reserve(0, 0, 24));
    s.seal(0, a, 0, 24);
    s.release(0);
    ASSERT_TRUE(s.reserve(0, 0, 16));
    s.seal(0, b, 0, 16);
    s.release(0);
    EXPECT_EQ(s.cached(), 2u * 5u);
    EXPECT_EQ(s.dropped(), 0u);
    ASSERT_TRUE(s.reserve(1, 0, 16)) << "one page is free, the other is the last one of a";
    EXPECT_EQ(s.dropped(), 2u);
    EXPECT_EQ(s.adopt(0, a), 16u);
    s.release(0);  // now b is the older one
    ASSERT_TRUE(s.reserve(1, 16, 24));
    EXPECT_EQ(s.adopt(0, b), 8u);
    s.release(0);
    EXPECT_FALSE(s.reserve(1, 24, 57)) << "more than there is";
    EXPECT_EQ(s.cached(), 2u * 3u) << "and nothing was dropped for it";
    ASSERT_TRUE(s.reserve(1, 24, 48));
    EXPECT_EQ(s.cached(), 0u);
    EXPECT_EQ(s.adopt(0, a), 0u);
}

TEST(PrefixCache, EqualPagesThatWereComputedTwiceBecomeOne) {
    Cached cached(3, 10, 20, 2);
    Sequences& s = cached.sequences;
    const Tokens tokens(20, 7);
    ASSERT_TRUE(s.reserve(0, 0, 20));
    ASSERT_TRUE(s.reserve(1, 0, 20));
    EXPECT_EQ(s.used(), 2u * 6u);
    s.seal(0, tokens, 0, 20);
    s.seal(1, tokens, 0, 12);
    EXPECT_EQ(s.used(), 2u * 5u);
    s.seal(1, tokens, 12, 20);
    EXPECT_EQ(s.used(), 2u * 4u) << "two full ones, and each sequence's last";
    s.fork(1, 2);
    s.seal(2, tokens, 0, 20);
    EXPECT_EQ(s.used(), 2u * 4u);
    for (Slot slot = 0; slot < 3; ++slot) s.release(slot);
    EXPECT_EQ(s.used(), 0u);
    EXPECT_EQ(s.cached(), 2u * 2u);
}

// Few tokens and short pages, so that prefixes meet all the time; few pages, so that they give way all the time.
TEST(PrefixCache, DoesWhatPrefixesSpelledOutDo) {
    for (const std::uint32_t groups : {1u, 3u}) {
        constexpr std::uint32_t slots = 4;
        Cached cached(slots, 12, 13, groups);
        Sequences& s = cached.sequences;
        Shadow shadow;
        std::vector<Running> running(slots);
        std::mt19937 random(groups);
        std::uint64_t adopted = 0;
        std::uint64_t dropped = 0;
        std::uint64_t refused = 0;
        for (int round = 0; round < 20'000; ++round) {
            const Slot slot = random() % slots;
            Running& r = running[slot];
            const std::uint64_t before = s.dropped();
            if (r.tokens.empty()) {
                // A page is one of two, so that a few random bits spell a prefix.
                r.tokens.resize(1 + random() % 60);
                for (std::size_t i = 0; i < r.tokens.size(); ++i) {
                    r.tokens[i] = i % page_tokens == 0 ? static_cast<std::int32_t>(random() % 2) : 0;
                }
                const std::uint32_t expected = shadow.longest(r.tokens);
                ASSERT_EQ(s.adopt(slot, r.tokens), expected);
                r.computed = expected;
                adopted += expected;
            } else if (random() % 4 == 0) {
                shadow.release(r);
                s.release(slot);
                r = {};
            } else {
                const auto tokens = static_cast<std::uint32_t>(r.tokens.size());
                const std::uint32_t to =
                    std::min(tokens, r.computed + 1 + static_cast<std::uint32_t>(random() % 20));
                const std::uint32_t from = r.computed;
                if (!s.reserve(slot, from, to)) {
                    ++refused;
                    ASSERT_EQ(s.dropped(), before);
                    continue;
                }
                while (dropped < s.dropped()) {
                    shadow.drop(running);
                    dropped += groups;
                }
                r.computed = to;
                s.seal(slot, r.tokens, from, to);
                shadow.seal(r);
            }
            // Distinct prefixes, full or not, are the pages that are held.
            std::set<std::pair<Slot, Tokens>> held;
            for (Slot other = 0; other < slots; ++other) {
                const Running& o = running[other];
                const std::size_t pages = s.groups()[0].tables[other].size();
                for (std::uint32_t i = 0; i < pages; ++i) {
                    const bool full = (i + 1) * page_tokens <= o.computed;
                    held.emplace(full ? slots : other, full ? Shadow::prefix(o.tokens, (i + 1) * page_tokens)
                                                            : Tokens{static_cast<int>(i)});
                }
            }
            ASSERT_EQ(s.used(), groups * held.size());
            ASSERT_EQ(s.prefixes().known(), shadow.known());
            ASSERT_EQ(s.cached(), groups * shadow.idle(running));
            for (std::uint32_t g = 0; g < groups; ++g)
                ASSERT_EQ(cached.held(g), held.size() + s.prefixes().idle());
        }
        EXPECT_GT(adopted, 20'000u);
        EXPECT_GT(dropped, 1'000u);
        EXPECT_GT(refused, 100u);
        for (Slot slot = 0; slot < slots; ++slot) s.release(slot);
        EXPECT_EQ(s.used(), 0u);
        for (std::uint32_t g = 0; g < groups; ++g) EXPECT_EQ(cached.held(g), s.prefixes().known());
    }
}

}  // namespace
