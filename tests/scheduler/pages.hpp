// SPDX-License-Identifier: Apache-2.0
// Pages for tests of the scheduler: numbers with no bytes behind them.
#pragma once

#include <zse/kv/sequences.hpp>

#include <deque>
#include <utility>
#include <vector>

namespace paged {

/// A group of layers, and the pages of its pools.
struct Group {
    zse::kv::Keeping keeping;
    std::size_t pages = 0;
    std::size_t old_pages = 0;
};

inline zse::kv::Keeping all_tokens(std::uint32_t page_tokens = 16) {
    zse::kv::Keeping keeping;
    keeping.page_tokens = page_tokens;
    return keeping;
}

/// Sequences of at most `context` tokens, with the memory of their pools and tables.
class Pages {
public:
    Pages(const std::vector<Group>& groups, std::size_t slots, std::uint64_t context) {
        std::vector<zse::kv::GroupPages> made;
        for (const Group& group : groups) {
            zse::kv::GroupPages& pages = made.emplace_back();
            pages.keeping = group.keeping;
            pages.pool = pool(group.pages);
            pages.old_pool = pool(group.old_pages);
            for (std::size_t slot = 0; slot < slots; ++slot) {
                pages.tables.emplace_back(numbers(group.keeping.entries(context)));
                pages.old_tables.emplace_back(numbers(group.keeping.old_pages(context)));
            }
        }
        sequences = zse::kv::Sequences(std::move(made));
    }
    /// One group that keeps all tokens, 16 a page.
    Pages(std::size_t pages, std::size_t slots, std::uint64_t context)
        : Pages({{all_tokens(), pages}}, slots, context) {}
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    zse::kv::Sequences sequences;

private:
    std::span<zse::kv::PageIndex> numbers(std::size_t count) { return numbers_.emplace_back(count); }
    zse::kv::PagePool pool(std::size_t count) {
        return zse::kv::PagePool(numbers(count), holders_.emplace_back(count), nullptr, 1);
    }

    std::deque<std::vector<zse::kv::PageIndex>> numbers_;  // never moves its elements
    std::deque<std::vector<zse::kv::PagePool::Holders>> holders_;
};

}  // namespace paged
