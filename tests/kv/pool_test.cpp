// SPDX-License-Identifier: Apache-2.0
// Pools and tables of pages: each page has one holder or as many as share it, what is written is a sequence's own, and
// nothing is lost.
// rows: 33
#include <zse/kv/pool.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <vector>

namespace {

using namespace zse::kv;
using zse::Bytes;

/// A pool with its memory.
struct Pool {
    std::vector<PageIndex> free;
    std::vector<PagePool::Holders> holders;
    std::vector<std::byte> bytes;
    PagePool pool;

    explicit Pool(std::size_t pages, Bytes page_bytes = 0)
        : free(pages),
          holders(pages, 77),
          bytes(pages * page_bytes),
          pool(free, holders, bytes.empty() ? nullptr : bytes.data(), page_bytes) {}
};

/// A table with its memory, of which `capacity` entries are the table's.
struct Table {
    std::vector<PageIndex> pages;
    PageTable table;

    explicit Table(std::size_t capacity)
        : pages(capacity + 1, 99'999), table(std::span<PageIndex>(pages).first(capacity)) {}
    [[nodiscard]] std::vector<PageIndex> entries() const {
        return {table.data(), table.data() + table.size()};
    }
};

Keeping all_tokens(std::uint32_t page_tokens = 16) {
    Keeping keeping;
    keeping.page_tokens = page_tokens;
    return keeping;
}

/// A ring of 4 pages of 16 tokens, behind one page of sinks.
Keeping ring_of_four() {
    Keeping keeping;
    keeping.page_tokens = 16;
    keeping.sinks = 3;
    keeping.recent = 32;
    keeping.cut = 32;
    return keeping;
}

TEST(PagePool, GivesEachPageOnce) {
    Pool p(100, 8);
    EXPECT_EQ(p.pool.capacity(), 100u);
    EXPECT_EQ(p.pool.available(), 100u);
    EXPECT_EQ(p.pool.page_bytes(), 8u);
    EXPECT_EQ(p.pool.base(), p.bytes.data());
    std::set<PageIndex> taken;
    while (p.pool.available() > 0) {
        const PageIndex page = p.pool.take();
        EXPECT_FALSE(p.pool.shared(page));
        taken.insert(page);
        EXPECT_EQ(p.pool.used(), taken.size());
    }
    EXPECT_EQ(taken.size(), 100u);
    EXPECT_EQ(*taken.begin(), 0u);
    EXPECT_EQ(*taken.rbegin(), 99u);
}

TEST(PagePool, AnEmptyOneHasNothing) {
    const PagePool none;
    EXPECT_EQ(none.capacity(), 0u);
    EXPECT_EQ(none.available(), 0u);
    EXPECT_EQ(none.used(), 0u);
}

TEST(PagePool, TheLastHolderFreesAPage) {
    Pool p(2);
    const PageIndex page = p.pool.take();
    p.pool.share(page);
    p.pool.share(page);
    EXPECT_TRUE(p.pool.shared(page));
    EXPECT_EQ(p.pool.used(), 1u) << "a shared page is one page";
    p.pool.give_back(page);
    EXPECT_TRUE(p.pool.shared(page));
    p.pool.give_back(page);
    EXPECT_FALSE(p.pool.shared(page));
    EXPECT_EQ(p.pool.available(), 1u);
    p.pool.give_back(page);
    EXPECT_EQ(p.pool.available(), 2u);
    EXPECT_EQ(p.pool.take(), page) << "what was freed last is taken first: it is warm";
    EXPECT_FALSE(p.pool.shared(page));
}

TEST(PagePool, ACopyHasTheBytesAndLeavesTheOtherHoldersTheirs) {
    Pool p(3, 40);
    for (std::size_t i = 0; i < p.bytes.size(); ++i) p.bytes[i] = static_cast<std::byte>(i);
    const PageIndex from = p.pool.take();
    p.pool.share(from);
    const std::vector<std::byte> before = p.bytes;
    const PageIndex to = p.pool.copy(from);
    ASSERT_NE(to, from);
    EXPECT_EQ(p.pool.used(), 2u);
    EXPECT_FALSE(p.pool.shared(from));
    EXPECT_FALSE(p.pool.shared(to));
    for (PageIndex page = 0; page < 3; ++page) {
        const PageIndex source = page == to ? from : page;
        EXPECT_EQ(std::memcmp(p.bytes.data() + page * 40, before.data() + source * 40, 40), 0)
            << "page " << page;
    }
}

TEST(PagePool, ShufflingKeepsThePages) {
    Pool p(100);
    const PageIndex held = p.pool.take();
    p.pool.shuffle(7);
    std::vector<PageIndex> order{held};
    while (p.pool.available() > 0) order.push_back(p.pool.take());
    EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
    EXPECT_FALSE(std::is_sorted(order.rbegin(), order.rend()));
    std::sort(order.begin(), order.end());
    ASSERT_EQ(order.size(), 100u);
    for (PageIndex i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST(PageTable, GrowsAndShrinksByPagesOfItsOwn) {
    Pool p(6);
    Table t(5);
    EXPECT_EQ(t.table.size(), 0u);
    EXPECT_EQ(t.table.capacity(), 5u);
    EXPECT_EQ(t.table.missing(all_tokens(), 5), 5u);
    t.table.grow(p.pool, all_tokens(), 3);
    const std::vector<PageIndex> three = t.entries();
    EXPECT_EQ(std::set<PageIndex>(three.begin(), three.end()).size(), 3u);
    EXPECT_EQ(p.pool.available(), 3u);
    EXPECT_EQ(t.table.missing(all_tokens(), 5), 2u);
    t.table.grow(p.pool, all_tokens(), 2);
    EXPECT_EQ(t.entries(), three) << "growing takes nothing back";
    t.table.grow(p.pool, all_tokens(), 5);
    EXPECT_EQ(p.pool.available(), 1u);
    EXPECT_TRUE(std::equal(three.begin(), three.end(), t.entries().begin())) << "pages that stay do not move";
    EXPECT_EQ(t.pages.back(), 99'999u) << "beyond its memory";
    t.table.shrink(p.pool, all_tokens(), 3);
    EXPECT_EQ(t.entries(), three);
    EXPECT_EQ(p.pool.available(), 3u);
    t.table.shrink(p.pool, all_tokens(), 4);
    EXPECT_EQ(t.entries(), three) << "shrinking takes nothing";
    t.table.shrink(p.pool, all_tokens(), 0);
    EXPECT_EQ(t.table.size(), 0u);
    EXPECT_EQ(p.pool.available(), 6u);
}

TEST(PageTable, WritesThePagesOfARingAgain) {
    Pool p(10);
    Table t(20);
    EXPECT_EQ(t.table.missing(ring_of_four(), 3), 3u);
    EXPECT_EQ(t.table.missing(ring_of_four(), 20), 5u) << "sinks, and a ring";
    t.table.grow(p.pool, ring_of_four(), 20);
    EXPECT_EQ(p.pool.used(), 5u);
    const std::vector<PageIndex> pages = t.entries();
    for (std::size_t i = 5; i < 20; ++i) EXPECT_EQ(pages[i], pages[i - 4]) << i;
    EXPECT_EQ(std::set<PageIndex>(pages.begin(), pages.end()).size(), 5u);
    EXPECT_EQ(std::count(pages.begin(), pages.end(), pages[0]), 1) << "sinks stay";
    t.table.shrink(p.pool, ring_of_four(), 0);
    EXPECT_EQ(p.pool.available(), 10u);
}

TEST(PageTable, SharesPagesUntilOneIsWritten) {
    Pool p(8, 4);
    Table a(6), b(6);
    a.table.grow(p.pool, all_tokens(), 3);
    b.table.share(p.pool, all_tokens(), a.table);
    EXPECT_EQ(b.entries(), a.entries());
    EXPECT_EQ(p.pool.used(), 3u);
    EXPECT_EQ(a.table.shared(p.pool, all_tokens(), 0, 3), 3u);
    EXPECT_EQ(a.table.shared(p.pool, all_tokens(), 1, 2), 1u);
    EXPECT_EQ(a.table.shared(p.pool, all_tokens(), 2, 6), 1u) << "pages to come are nobody's";
    EXPECT_EQ(a.table.shared(p.pool, all_tokens(), 3, 6), 0u);

    const std::vector<PageIndex> before = a.entries();
    for (const PageIndex page : before) p.bytes[page * 4] = static_cast<std::byte>(page + 1);
    b.table.separate(p.pool, 1, 3);
    EXPECT_EQ(a.entries(), before);
    EXPECT_EQ(b.entries()[0], before[0]);
    for (const std::size_t i : {1u, 2u}) {
        EXPECT_EQ(std::count(before.begin(), before.end(), b.entries()[i]), 0) << i;
        EXPECT_EQ(p.bytes[b.entries()[i] * 4], static_cast<std::byte>(before[i] + 1)) << "copied";
    }
    EXPECT_EQ(p.pool.used(), 5u);
    EXPECT_EQ(a.table.shared(p.pool, all_tokens(), 0, 3), 1u);
    b.table.separate(p.pool, 1, 3);
    EXPECT_EQ(p.pool.used(), 5u) << "they are its own";
    a.table.shrink(p.pool, all_tokens(), 0);
    EXPECT_EQ(p.pool.used(), 3u);
    EXPECT_EQ(b.table.shared(p.pool, all_tokens(), 0, 3), 0u);
    b.table.shrink(p.pool, all_tokens(), 0);
    EXPECT_EQ(p.pool.available(), 8u);
}

TEST(PageTable, APageOfARingIsCopiedOnceAndStaysOnePage) {
    const Keeping ring = ring_of_four();
    Pool p(12);
    Table a(20), b(20);
    a.table.grow(p.pool, ring, 12);
    b.table.share(p.pool, ring, a.table);
    EXPECT_EQ(p.pool.used(), 5u);
    // Entries 9 to 15 are the four pages of the ring, most of them beyond the table's end.
    EXPECT_EQ(b.table.shared(p.pool, ring, 9, 16), 4u);
    EXPECT_EQ(b.table.shared(p.pool, ring, 12, 13), 1u) << "entry 12 will be the page of entry 8";
    EXPECT_EQ(b.table.shared(p.pool, ring, 0, 12), 5u) << "the sinks too";
    EXPECT_EQ(b.table.shared(p.pool, ring, 0, 1), 1u);
    EXPECT_EQ(b.table.shared(p.pool, ring, 0, 2), 2u);

    b.table.grow(p.pool, ring, 13);
    b.table.separate(p.pool, 12, 13);
    EXPECT_EQ(p.pool.used(), 6u);
    const std::vector<PageIndex> pages = b.entries();
    EXPECT_EQ(pages[12], pages[8]);
    EXPECT_EQ(pages[8], pages[4]);
    EXPECT_NE(pages[4], a.entries()[4]);
    for (const std::size_t i : {0u, 1u, 2u, 3u, 5u, 6u, 7u}) EXPECT_EQ(pages[i], a.entries()[i]) << i;
    b.table.separate(p.pool, 0, 13);
    EXPECT_EQ(p.pool.used(), 10u);
    a.table.shrink(p.pool, ring, 0);
    b.table.shrink(p.pool, ring, 0);
    EXPECT_EQ(p.pool.available(), 12u);
}

TEST(PageTable, TenThousandRandomStepsNeitherLeakNorShareAPage) {
    for (const std::uint32_t page_tokens : {1u, 16u}) {
        const Keeping keeping = all_tokens(page_tokens);
        constexpr std::size_t sequences = 8;
        constexpr std::size_t capacity = 100;
        Pool p(capacity);
        std::vector<Table> tables(sequences, Table(0));
        for (Table& each : tables) each = Table(40);
        std::mt19937 random(page_tokens);
        std::size_t refused = 0;
        for (int step = 0; step < 10'000; ++step) {
            Table& t = tables[random() % sequences];
            const std::vector<PageIndex> before = t.entries();
            const std::size_t wanted = random() % 41;
            switch (random() % 5) {
                case 0: t.table.shrink(p.pool, keeping, 0); break;
                case 1:
                    t.table.shrink(p.pool, keeping, wanted);
                    ASSERT_EQ(t.table.size(), std::min(before.size(), wanted));
                    break;
                default:
                    if (wanted > before.size() && wanted - before.size() > p.pool.available()) {
                        ++refused;
                        break;
                    }
                    ASSERT_EQ(t.table.missing(keeping, std::max(wanted, before.size())),
                              std::max(wanted, before.size()) - before.size());
                    t.table.grow(p.pool, keeping, wanted);
                    ASSERT_EQ(t.table.size(), std::max(before.size(), wanted));
            }
            const std::vector<PageIndex> after = t.entries();
            ASSERT_TRUE(
                std::equal(after.begin(),
                           after.begin() + static_cast<std::ptrdiff_t>(std::min(before.size(), after.size())),
                           before.begin()))
                << "a page moved";
            std::vector<int> owners(capacity, 0);
            std::size_t owned = 0;
            for (const Table& each : tables) {
                for (const PageIndex page : each.entries()) ++owners.at(page);
                owned += each.table.size();
            }
            ASSERT_LE(*std::max_element(owners.begin(), owners.end()), 1) << "a page is in two tables";
            ASSERT_EQ(owned + p.pool.available(), capacity) << "a page is lost";
        }
        EXPECT_GT(refused, 100u) << "the pool was never short";
        for (Table& each : tables) each.table.shrink(p.pool, keeping, 0);
        ASSERT_EQ(p.pool.available(), capacity);
        std::set<PageIndex> all;
        while (p.pool.available() > 0) all.insert(p.pool.take());
        EXPECT_EQ(all.size(), capacity);
    }
}

}  // namespace
