// SPDX-License-Identifier: Apache-2.0
// The pages of all sequences: a request for pages gets all or none, forks share until they write, and no free page is
// out of reach.
// rows: 33 37
#include <kv/held.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

namespace {

using namespace held;

TEST(Sequences, TakeAllThatARequestNeedsOrNothing) {
    std::vector<Group> groups;
    groups.emplace_back(all_tokens(8), 2, 100, 10);
    groups.emplace_back(all_tokens(16), 2, 100, 3);
    Held held(std::move(groups));
    Sequences& s = held.sequences;
    EXPECT_EQ(s.capacity(), 13u);
    EXPECT_TRUE(s.reserve(0, 0, 17));
    EXPECT_EQ(s.used(), 3u + 2u);
    EXPECT_EQ(s.entries(0), 5u);
    EXPECT_FALSE(s.reserve(1, 0, 17)) << "the second group has one page";
    EXPECT_EQ(s.used(), 5u) << "and the first one's stay free";
    EXPECT_EQ(s.entries(1), 0u);
    EXPECT_TRUE(s.reserve(1, 0, 16));
    EXPECT_EQ(s.used(), 8u);
    EXPECT_TRUE(s.reserve(1, 16, 16)) << "what it has";
    EXPECT_TRUE(s.reserve(0, 17, 24));
    EXPECT_EQ(s.used(), 8u);
    EXPECT_FALSE(s.reserve(0, 17, 33));
    EXPECT_FALSE(s.reserve(0, 17, 101)) << "beyond the table";
    s.release(1);
    EXPECT_TRUE(s.reserve(0, 17, 33));
    EXPECT_EQ(s.used(), 5u + 3u);
    s.release(0);
    EXPECT_EQ(s.used(), 0u);
}

TEST(Sequences, KnowWhatTheyCouldHoldAndWhatHasRoomNow) {
    std::vector<Group> groups;
    groups.emplace_back(all_tokens(16), 2, 1000, 10);
    groups.emplace_back(Keeping{.page_tokens = 16, .recent = 32, .cut = 32, .old = true, .step_tokens = 16},
                        2, 1000, 8, 6);  // a ring of 4
    Held held(std::move(groups));
    Sequences& s = held.sequences;
    EXPECT_TRUE(s.could_hold(128));
    EXPECT_TRUE(s.could_hold(160)) << "10 pages; 4 and, from position 128 on, 6 old ones";
    EXPECT_FALSE(s.could_hold(161));
    EXPECT_EQ(s.pages(17), 4u);
    EXPECT_EQ(s.pages(100), 7u + 4u + 4u);
    EXPECT_EQ(s.bytes(100), (7u + 4u + 4u) * 16u * 8u);

    EXPECT_TRUE(s.has_room(128, 1000)) << "8 pages and one more, a ring, 4 old ones and one more";
    EXPECT_FALSE(s.has_room(160, 1000)) << "10 pages and one more";
    EXPECT_TRUE(s.has_room(160, 160)) << "which it will never need";
    ASSERT_TRUE(s.reserve(0, 0, 40));  // 3 pages and 3
    EXPECT_TRUE(s.has_room(96, 1000)) << "6 pages and one more";
    EXPECT_FALSE(s.has_room(97, 1000));
    EXPECT_TRUE(s.has_room(97, 112));
    ASSERT_TRUE(s.reserve(0, 40, 65));  // 5 and 4, and 2 old
    EXPECT_EQ(s.used(), 11u);
    EXPECT_FALSE(s.has_room(65, 1000)) << "5 pages and one more, where 5 are free";
    EXPECT_TRUE(s.has_room(65, 80));
    EXPECT_TRUE(s.could_hold(160)) << "whatever is in use";
}

TEST(Sequences, ForksShareUntilTheyWriteAndThenDiffer) {
    std::vector<Group> groups;
    groups.emplace_back(all_tokens(4), 3, 40, 12);
    Held held(std::move(groups));
    Sequences& s = held.sequences;
    const auto byte = [&](Slot slot, std::uint64_t token) -> std::uint64_t& {
        const GroupPages& group = s.groups()[0];
        return reinterpret_cast<std::uint64_t*>(group.pool.base() + group.tables[slot].data()[token / 4] *
                                                                        group.pool.page_bytes())[token % 4];
    };
    ASSERT_TRUE(s.reserve(0, 0, 10));
    for (std::uint64_t t = 0; t < 10; ++t) byte(0, t) = 100 + t;
    s.fork(0, 1);
    s.fork(1, 2);
    EXPECT_EQ(s.used(), 3u);
    ASSERT_TRUE(s.reserve(1, 10, 11));
    EXPECT_EQ(s.used(), 4u) << "the page that token 10 goes to";
    byte(1, 10) = 201;
    ASSERT_TRUE(s.reserve(0, 10, 13));
    EXPECT_EQ(s.used(), 6u) << "a copy, and a new page";
    for (std::uint64_t t = 10; t < 13; ++t) byte(0, t) = 300 + t;
    ASSERT_TRUE(s.reserve(2, 10, 11));
    EXPECT_EQ(s.used(), 6u) << "the last that holds a page has it for itself";
    byte(2, 10) = 401;
    for (Slot slot = 0; slot < 3; ++slot) {
        for (std::uint64_t t = 0; t < 10; ++t) EXPECT_EQ(byte(slot, t), 100 + t) << slot;
    }
    EXPECT_EQ(byte(0, 10), 310u);
    EXPECT_EQ(byte(1, 10), 201u);
    EXPECT_EQ(byte(2, 10), 401u);
    EXPECT_EQ(s.groups()[0].tables[0].data()[0], s.groups()[0].tables[2].data()[0]);
    s.release(0);
    EXPECT_EQ(s.used(), 4u) << "two shared pages, and one of each";
    EXPECT_EQ(byte(2, 3), 103u);
    s.release(2);
    s.release(1);
    EXPECT_EQ(s.used(), 0u);
}

/// Any free page serves any sequence: after whatever happened, one that needs all free pages gets them.
TEST(Sequences, NoFreePageIsOutOfReach) {
    constexpr std::size_t slots = 20;
    constexpr std::size_t capacity = 97;
    for (const std::uint32_t page_tokens : {1u, 8u, 16u, 32u}) {
        const std::uint64_t context = capacity * page_tokens;
        std::vector<Group> groups;
        groups.emplace_back(all_tokens(page_tokens), slots + 1, context, capacity);
        Held held(std::move(groups));
        Sequences& s = held.sequences;
        std::mt19937 random(page_tokens);
        std::vector<std::uint64_t> tokens(slots, 0);
        std::size_t scattered = 0;
        for (int i = 0; i < 10'000; ++i) {
            const auto slot = static_cast<Slot>(random() % slots);
            if (tokens[slot] > 0 && random() % 12 == 0) {
                s.release(slot);
                tokens[slot] = 0;
            } else {
                const std::uint64_t more = tokens[slot] + 1 + random() % (3 * page_tokens);
                if (more <= context && s.reserve(slot, tokens[slot], more)) tokens[slot] = more;
            }
            if (tokens[slot] > 0) {
                ASSERT_LT(s.unused_tokens(slot, tokens[slot]), page_tokens) << "more than a page is unused";
                ASSERT_EQ((tokens[slot] + s.unused_tokens(slot, tokens[slot])) % page_tokens, 0u);
            }
            const std::uint64_t free = capacity - s.used();
            if (free == 0) continue;
            ASSERT_TRUE(s.has_room(free * page_tokens, free * page_tokens));
            ASSERT_TRUE(s.reserve(slots, 0, free * page_tokens));
            ASSERT_EQ(s.used(), capacity);
            const PageTable& table = s.groups()[0].tables[slots];
            scattered += std::is_sorted(table.data(), table.data() + table.size()) ? 0 : 1;
            s.release(slots);
            ASSERT_EQ(s.used(), capacity - free);
        }
        EXPECT_GT(scattered, 1'000u) << "the free pages always lay in order";
    }
}

TEST(Sequences, ShufflingMovesFreePagesAlone) {
    std::vector<Group> groups;
    groups.emplace_back(all_tokens(1), 2, 50, 50);
    Held held(std::move(groups));
    ASSERT_TRUE(held.sequences.reserve(0, 0, 10));
    const std::set<PageIndex> before = distinct(held.sequences.groups()[0].tables[0]);
    held.sequences.shuffle(5);
    EXPECT_EQ(distinct(held.sequences.groups()[0].tables[0]), before);
    ASSERT_TRUE(held.sequences.reserve(1, 0, 40));
    const PageTable& table = held.sequences.groups()[0].tables[1];
    EXPECT_FALSE(std::is_sorted(table.data(), table.data() + table.size()));
    EXPECT_FALSE(std::is_sorted(table.data(), table.data() + table.size(), std::greater<>()));
    EXPECT_EQ(held.sequences.used(), 50u);
}

}  // namespace
