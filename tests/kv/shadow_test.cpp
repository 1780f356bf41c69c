// SPDX-License-Identifier: Apache-2.0
// The pages of all sequences under random operations, against a shadow that knows what every token wrote: nothing
// is lost, owned twice, or written over while it is seen.
// rows: 33
#include <kv/held.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace {

using namespace held;

/// What a group of the random test keeps, in numbers worked out by hand.
struct Expected {
    std::uint64_t page_tokens;
    std::uint64_t sink_pages;
    std::uint64_t ring;  ///< 0: all pages are kept

    /// Pages of the first `entries` entries, and the one that an entry is: an ordinal, which says nothing of its index.
    [[nodiscard]] std::uint64_t which(std::uint64_t entry) const {
        while (ring != 0 && entry >= sink_pages + ring) entry -= ring;
        return entry;
    }
    [[nodiscard]] std::set<std::uint64_t> pages(std::uint64_t first, std::uint64_t entries) const {
        std::set<std::uint64_t> found;
        for (std::uint64_t entry = first; entry < entries; ++entry) found.insert(which(entry));
        return found;
    }
};

/// One sequence as its owner knows it.
struct Shadow {
    bool active = false;
    std::uint64_t computed = 0;
    std::vector<std::uint64_t> tokens;  ///< what each token wrote: a fork begins with what its origin wrote
    std::vector<std::uint64_t> heavy;   ///< what the old tokens wrote that are kept where few are
};

class RandomOperations {
public:
    static constexpr std::uint64_t context = 300;
    static constexpr std::uint32_t step = 8;
    static constexpr std::uint32_t cut = 32;
    static constexpr std::uint32_t heavy = 24;
    static constexpr std::size_t slots = 10;

    explicit RandomOperations(unsigned seed) : random_(seed), shadows_(slots) {
        std::vector<Group> groups;
        groups.emplace_back(Keeping{.page_tokens = 4, .cut = cut, .step_tokens = step}, slots, context, 400);
        groups.emplace_back(Keeping{.page_tokens = 16, .window = 20, .cut = cut, .step_tokens = step}, slots,
                            context, 26);
        groups.emplace_back(
            Keeping{.page_tokens = 8, .sinks = 5, .recent = 32, .cut = cut, .step_tokens = step}, slots,
            context, 60);
        groups.emplace_back(
            Keeping{.page_tokens = 8, .recent = 32, .cut = cut, .old = true, .step_tokens = step}, slots,
            context, 60, 110);
        groups.emplace_back(
            Keeping{
                .page_tokens = 8, .recent = 32, .cut = cut, .old = true, .heavy = heavy, .step_tokens = step},
            slots, context, 60, 24);
        held_ = std::make_unique<Held>(std::move(groups));
        // A row and 19 before it, 8 rows: 27 tokens, in up to 3 pages of 16. 32 + 32 tokens in pages of 8: 8 of them.
        expected_ = {{4, 0, 0}, {16, 0, 3}, {8, 1, 8}, {8, 0, 8}, {8, 0, 8}};
    }

    void run(int operations) {
        for (int i = 0; i < operations; ++i) {
            const auto slot = static_cast<Slot>(random_() % slots);
            Shadow& shadow = shadows_[slot];
            const std::size_t kind = random_() % 100;
            if (!shadow.active) {
                if (kind < 60) {
                    fork_to(slot);
                } else {
                    shadow = {true, 0, {}, {}};
                    ++started;
                }
            } else if (kind < 3 || shadow.computed + step > context) {
                release(slot);
            } else if (kind < 5) {
                shadow.computed = 0;  // computes what it had again
                shadow.heavy.clear();
                ++restarted;
            } else {
                advance(slot);
            }
            if (testing::Test::HasFatalFailure()) return;
            expect_all_to_be_accounted_for();
            for (Slot each = 0; each < slots; ++each) {
                expect_tokens(each);
                expect_heavy_tokens(each);
            }
            if (testing::Test::HasFatalFailure()) return;
        }
        for (Slot slot = 0; slot < slots; ++slot) release(slot);
        for (GroupPages group : held_->sequences.groups()) {
            expect_full(group.pool);
            expect_full(group.old_pool);
        }
    }

    std::size_t started = 0, forked = 0, restarted = 0, advanced = 0, refused = 0, copied = 0;

private:
    [[nodiscard]] const GroupPages& group(std::size_t number) const {
        return held_->sequences.groups()[number];
    }

    static void expect_full(PagePool& pool) {
        ASSERT_EQ(pool.available(), pool.capacity());
        std::set<PageIndex> all;
        while (pool.available() > 0) all.insert(pool.take());
        ASSERT_EQ(all.size(), pool.capacity()) << "a page is there twice";
    }
    void fork_to(Slot to) {
        const auto from = static_cast<Slot>(random_() % slots);
        if (!shadows_[from].active) return;
        const std::uint64_t used = held_->sequences.used();
        held_->sequences.fork(from, to);
        ASSERT_EQ(held_->sequences.used(), used) << "a fork takes no page";
        shadows_[to] = shadows_[from];
        ++forked;
    }
    void release(Slot slot) {
        held_->sequences.release(slot);
        ASSERT_EQ(held_->sequences.entries(slot), 0u);
        shadows_[slot] = {};
    }

    /// Pages of a table that other slots hold too.
    [[nodiscard]] std::uint64_t held_elsewhere(std::size_t number, bool old, Slot slot,
                                               PageIndex page) const {
        std::uint64_t others = 0;
        for (Slot each = 0; each < slots; ++each) {
            if (each == slot) continue;
            const GroupPages& of = group(number);
            others += distinct(old ? of.old_tables[each] : of.tables[each]).count(page);
        }
        return others;
    }
    /// Free pages that writing entries [first, entries) of a table takes: new ones, and copies of what others hold.
    [[nodiscard]] std::uint64_t needed(std::size_t number, bool old, Slot slot, std::uint64_t first,
                                       std::uint64_t entries) const {
        const PageTable& table = old ? group(number).old_tables[slot] : group(number).tables[slot];
        const Expected expected = old ? Expected{8, 0, 0} : expected_[number];
        const std::set<std::uint64_t> had = expected.pages(0, table.size());
        std::uint64_t found = 0;
        for (const std::uint64_t page : expected.pages(0, entries)) found += had.count(page) == 0 ? 1 : 0;
        for (const std::uint64_t page : expected.pages(first, entries)) {
            if (had.count(page) != 0)
                found += held_elsewhere(number, old, slot, table.data()[page]) > 0 ? 1 : 0;
        }
        return found;
    }
    /// Tokens that are old when a row is computed: those more than 32 before its stretch of 32.
    [[nodiscard]] static std::uint64_t old_tokens(std::uint64_t row) {
        return row < 64 ? 0 : row / 32 * 32 - 32;
    }

    /// The next rows of a sequence, if it gets their pages.
    void advance(Slot slot) {
        Shadow& shadow = shadows_[slot];
        const std::uint64_t first = shadow.computed;
        const std::uint64_t end = std::min(first + 1 + random_() % step, first / cut * cut + cut);
        const std::uint64_t old_before = first == 0 ? 0 : old_tokens(first - 1);
        const std::uint64_t old_now = old_tokens(first);
        const std::uint64_t heavy_now = std::min<std::uint64_t>(old_now, heavy);
        bool enough = needed(3, true, slot, old_before / 8, old_now / 8) <= group(3).old_pool.available() &&
                      needed(4, true, slot, 0, heavy_now / 8) <= group(4).old_pool.available();
        for (std::size_t i = 0; i < expected_.size(); ++i) {
            const std::uint64_t size = expected_[i].page_tokens;
            const std::uint64_t count = needed(i, false, slot, first / size, (end + size - 1) / size);
            enough = enough && count <= group(i).pool.available();
        }
        const std::uint64_t used = held_->sequences.used();
        const std::uint64_t entries = held_->sequences.entries(slot);
        ASSERT_EQ(held_->sequences.reserve(slot, first, end), enough);
        if (!enough) {
            ASSERT_EQ(held_->sequences.used(), used) << "a refusal takes nothing";
            ASSERT_EQ(held_->sequences.entries(slot), entries);
            ++refused;
            return;
        }
        copied += held_->sequences.used() > used && held_->sequences.entries(slot) == entries ? 1 : 0;
        // What has grown old moves before anything is written over it.
        for (std::uint64_t t = old_before; t < old_now; ++t) {
            const std::uint64_t value = *at(3, false, slot, t);
            ASSERT_EQ(held_elsewhere(3, true, slot, group(3).old_tables[slot].data()[t / 8]), 0u);
            *at(3, true, slot, t) = value;
        }
        for (std::uint64_t t = old_before; t < old_now; ++t) retain(slot, *at(4, false, slot, t));
        if (testing::Test::HasFatalFailure()) return;
        ASSERT_EQ(shadow.heavy.size(), heavy_now);
        if (end > shadow.tokens.size()) {
            while (shadow.tokens.size() < end) shadow.tokens.push_back(++written_);
        }
        for (std::uint64_t t = first; t < end; ++t) {
            for (std::size_t i = 0; i < expected_.size(); ++i) {
                ASSERT_EQ(held_elsewhere(i, false, slot,
                                         group(i).tables[slot].data()[t / expected_[i].page_tokens]),
                          0u)
                    << "group " << i << " writes a page of another sequence";
                *at(i, false, slot, t) = shadow.tokens[t];
            }
        }
        shadow.computed = end;
        ++advanced;
    }
    /// Keeps an old token in a slot that is free, or in that of another, or not at all.
    void retain(Slot slot, std::uint64_t value) {
        std::vector<std::uint64_t>& kept = shadows_[slot].heavy;
        std::size_t place = kept.size();
        if (kept.size() < heavy) {
            kept.push_back(value);
        } else if (random_() % 3 != 0) {
            return;
        } else {
            place = random_() % heavy;
            kept[place] = value;
        }
        ASSERT_EQ(held_elsewhere(4, true, slot, group(4).old_tables[slot].data()[place / 8]), 0u);
        *at(4, true, slot, place) = value;
    }
    [[nodiscard]] std::uint64_t* at(std::size_t number, bool old, Slot slot, std::uint64_t token) const {
        const GroupPages& of = group(number);
        const PagePool& pool = old ? of.old_pool : of.pool;
        const PageTable& table = old ? of.old_tables[slot] : of.tables[slot];
        const std::uint64_t size = expected_[number].page_tokens;
        EXPECT_LT(token / size, table.size());
        std::byte* page = pool.base() + table.data()[token / size] * pool.page_bytes();
        return reinterpret_cast<std::uint64_t*>(page) + token % size;
    }

    /// All that the row after the last one computed may see is what was written.
    void expect_tokens(Slot slot) const {
        const Shadow& shadow = shadows_[slot];
        if (!shadow.active || shadow.computed == 0) return;
        const std::uint64_t row = shadow.computed - 1;
        for (std::uint64_t t = 0; t <= row; ++t) {
            const std::uint64_t value = shadow.tokens[t];
            ASSERT_EQ(*at(0, false, slot, t), value) << "slot " << slot << " token " << t << " of " << row;
            if (t + 20 > row) {
                ASSERT_EQ(*at(1, false, slot, t), value)
                    << "slot " << slot << " token " << t << " of " << row;
            }
            const bool is_old = t < old_tokens(row);
            if (!is_old || t < 5) {
                ASSERT_EQ(*at(2, false, slot, t), value)
                    << "slot " << slot << " token " << t << " of " << row;
            }
            ASSERT_EQ(*at(3, is_old, slot, t), value) << "slot " << slot << " token " << t << " of " << row;
            if (!is_old) {
                ASSERT_EQ(*at(4, false, slot, t), value)
                    << "slot " << slot << " token " << t << " of " << row;
            }
        }
    }
    void expect_heavy_tokens(Slot slot) const {
        const std::vector<std::uint64_t>& kept = shadows_[slot].heavy;
        for (std::size_t i = 0; i < kept.size(); ++i)
            ASSERT_EQ(*at(4, true, slot, i), kept[i]) << "slot " << slot;
    }
    void expect_all_to_be_accounted_for() const {
        for (std::size_t number = 0; number < expected_.size(); ++number) {
            for (const bool old : {false, true}) {
                const GroupPages& of = group(number);
                const PagePool& pool = old ? of.old_pool : of.pool;
                std::vector<int> holders(pool.capacity(), 0);
                for (const PageTable& table : old ? of.old_tables : of.tables) {
                    for (const PageIndex page : distinct(table)) ++holders.at(page);
                }
                const auto in_use =
                    holders.size() - static_cast<std::size_t>(std::count(holders.begin(), holders.end(), 0));
                ASSERT_EQ(pool.used(), in_use) << "a page is lost";
                for (PageIndex page = 0; page < holders.size(); ++page) {
                    if (holders[page] == 0) continue;
                    ASSERT_EQ(pool.shared(page), holders[page] > 1);
                }
            }
        }
    }

    std::mt19937 random_;
    std::unique_ptr<Held> held_;
    std::vector<Expected> expected_;
    std::vector<Shadow> shadows_;
    std::uint64_t written_ = 0;
};

TEST(Sequences, TenThousandRandomOperationsLoseNothingAndMixNothingUp) {
    for (const unsigned seed : {1u, 2u}) {
        RandomOperations operations(seed);
        operations.run(10'000);
        EXPECT_GT(operations.advanced, 4'000u);
        EXPECT_GT(operations.forked, 100u);
        EXPECT_GT(operations.restarted, 50u);
        EXPECT_GT(operations.refused, 100u) << "the pools were never short";
        EXPECT_GT(operations.copied, 50u) << "nothing was written that others held";
    }
}

}  // namespace
