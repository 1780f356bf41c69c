// SPDX-License-Identifier: Apache-2.0
// Sequences with the memory of their pages, in which a token is a number.
#pragma once

#include <zse/kv/sequences.hpp>

#include <memory>
#include <set>
#include <span>
#include <vector>

namespace held {

using namespace zse::kv;
using zse::Bytes;

/// A group with the memory of its pools and tables. A token is a number of 8 bytes in its slot of a page.
struct Group {
    GroupPages pages;

    Group(const Keeping& keeping, std::size_t slots, std::uint64_t context, std::size_t count,
          std::size_t old_count = 0) {
        const Bytes page_bytes = keeping.page_tokens * sizeof(std::uint64_t);
        pages.keeping = keeping;
        pages.pool = pool(count, page_bytes);
        pages.old_pool = pool(old_count, page_bytes);
        for (std::size_t slot = 0; slot < slots; ++slot) {
            pages.tables.emplace_back(numbers(keeping.entries(context)));
            if (keeping.old) pages.old_tables.emplace_back(numbers(keeping.old_pages(context)));
        }
    }

private:
    std::span<PageIndex> numbers(std::size_t count) {
        lists_.push_back(std::make_shared<std::vector<PageIndex>>(count));
        return *lists_.back();
    }
    PagePool pool(std::size_t count, Bytes page_bytes) {
        holders_.push_back(std::make_shared<std::vector<PagePool::Holders>>(count));
        bytes_.push_back(std::make_shared<std::vector<std::byte>>(count * page_bytes));
        return PagePool(numbers(count), *holders_.back(), bytes_.back()->data(), page_bytes);
    }
    // Shared, so that a copy of the group has the same memory.
    std::vector<std::shared_ptr<std::vector<PageIndex>>> lists_;
    std::vector<std::shared_ptr<std::vector<PagePool::Holders>>> holders_;
    std::vector<std::shared_ptr<std::vector<std::byte>>> bytes_;
};

/// Sequences with the memory of their groups.
struct Held {
    std::vector<Group> groups;
    Sequences sequences;

    explicit Held(std::vector<Group> of) : groups(std::move(of)), sequences(pages(groups)) {}

    [[nodiscard]] static std::vector<GroupPages> pages(const std::vector<Group>& groups) {
        std::vector<GroupPages> all;
        for (const Group& group : groups) all.push_back(group.pages);
        return all;
    }
};

inline std::set<PageIndex> distinct(const PageTable& table) {
    return {table.data(), table.data() + table.size()};
}

inline Keeping all_tokens(std::uint32_t page_tokens) {
    Keeping keeping;
    keeping.page_tokens = page_tokens;
    return keeping;
}

}  // namespace held
