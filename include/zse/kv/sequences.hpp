// SPDX-License-Identifier: Apache-2.0
// The pages of all sequences of an engine: pools of every group of layers, and the tables of every slot.
#pragma once

#include <zse/kv/pool.hpp>

#include <cstdint>
#include <limits>
#include <vector>

namespace zse::inline v1 {
namespace kv {

/// Place of a sequence among those that an engine computes at once.
using Slot = std::uint32_t;

/// Pages of one group of layers.
struct GroupPages {
    Keeping keeping;
    PagePool pool;                  ///< of recent tokens, or of all
    PagePool old_pool;              ///< of old tokens, where they have another codec
    std::vector<PageTable> tables;  ///< `[slots]`
    std::vector<PageTable> old_tables;

    /// Pages of the old codec are kept from the first to the last.
    [[nodiscard]] Keeping old_keeping() const noexcept { return {keeping.page_tokens}; }
};

/// Gives sequences their pages: all that a request for more needs, or none. Allocates nothing once it is made.
class Sequences {
public:
    Sequences() = default;
    explicit Sequences(std::vector<GroupPages> groups) : groups_(std::move(groups)) {}

    [[nodiscard]] const std::vector<GroupPages>& groups() const noexcept { return groups_; }

    /// Whether a sequence of so many tokens has room where it is alone.
    [[nodiscard]] bool could_hold(std::uint64_t tokens) const noexcept {
        for (const GroupPages& group : groups_) {
            if (group.keeping.pages(tokens) > group.pool.capacity()) return false;
            if (group.keeping.old_pages(tokens) > group.old_pool.capacity()) return false;
        }
        return true;
    }
    /// Whether a new sequence of so many tokens has room now, and one more page in each pool of which it will need
    /// more on its way to `most_tokens`.
    [[nodiscard]] bool has_room(std::uint64_t tokens, std::uint64_t most_tokens) const noexcept {
        for (const GroupPages& group : groups_) {
            const Keeping& keeping = group.keeping;
            const std::uint64_t wanted = std::min(keeping.pages(tokens) + 1, keeping.pages(most_tokens));
            const std::uint64_t old = std::min(keeping.old_pages(tokens) + 1, keeping.old_pages(most_tokens));
            if (wanted > group.pool.available() || old > group.old_pool.available()) return false;
        }
        return true;
    }

    /// Makes room for the tokens below `tokens` of a sequence, of which those from `first` on will be written: takes
    /// the pages that are missing, and copies those of them that others hold too. False, and nothing is taken, where
    /// a pool has too few.
    [[nodiscard]] bool reserve(Slot slot, std::uint64_t first, std::uint64_t tokens) noexcept {
        for (GroupPages& group : groups_) {
            const Keeping& keeping = group.keeping;
            if (!fits(group.tables[slot], group.pool, keeping, first / keeping.page_tokens,
                      keeping.entries(tokens))) {
                return false;
            }
            if (keeping.old && !fits(group.old_tables[slot], group.old_pool, group.old_keeping(),
                                     keeping.first_old_written(first), keeping.old_pages(tokens))) {
                return false;
            }
        }
        for (GroupPages& group : groups_) {
            const Keeping& keeping = group.keeping;
            extend(group.tables[slot], group.pool, keeping, first / keeping.page_tokens,
                   keeping.entries(tokens));
            if (keeping.old) {
                // Tokens that grow old on the way are written there.
                extend(group.old_tables[slot], group.old_pool, group.old_keeping(),
                       keeping.first_old_written(first), keeping.old_pages(tokens));
            }
        }
        return true;
    }

    /// Gives back all pages of a sequence.
    void release(Slot slot) noexcept {
        for (GroupPages& group : groups_) {
            group.tables[slot].shrink(group.pool, group.keeping, 0);
            if (group.keeping.old) group.old_tables[slot].shrink(group.old_pool, group.old_keeping(), 0);
        }
    }

    /// Makes the empty sequence `to` hold the same pages as `from`. Whoever writes one of them first gets a copy.
    void fork(Slot from, Slot to) noexcept {
        for (GroupPages& group : groups_) {
            group.tables[to].share(group.pool, group.keeping, group.tables[from]);
            if (group.keeping.old) {
                group.old_tables[to].share(group.old_pool, group.old_keeping(), group.old_tables[from]);
            }
        }
    }

    /// Pages of all pools that a sequence of so many tokens has.
    [[nodiscard]] std::uint64_t pages(std::uint64_t tokens) const noexcept {
        std::uint64_t sum = 0;
        for (const GroupPages& group : groups_)
            sum += group.keeping.pages(tokens) + group.keeping.old_pages(tokens);
        return sum;
    }
    /// Bytes of those pages.
    [[nodiscard]] Bytes bytes(std::uint64_t tokens) const noexcept {
        Bytes sum = 0;
        for (const GroupPages& group : groups_) {
            sum += group.keeping.pages(tokens) * group.pool.page_bytes() +
                   group.keeping.old_pages(tokens) * group.old_pool.page_bytes();
        }
        return sum;
    }
    /// Pages in use in all pools; a shared page counts once.
    [[nodiscard]] std::uint64_t used() const noexcept {
        std::uint64_t sum = 0;
        for (const GroupPages& group : groups_) sum += group.pool.used() + group.old_pool.used();
        return sum;
    }
    [[nodiscard]] std::uint64_t capacity() const noexcept {
        std::uint64_t sum = 0;
        for (const GroupPages& group : groups_) sum += group.pool.capacity() + group.old_pool.capacity();
        return sum;
    }
    /// Entries of all tables of a slot: what its tables hold of their room.
    [[nodiscard]] std::uint64_t entries(Slot slot) const noexcept {
        std::uint64_t sum = 0;
        for (const GroupPages& group : groups_) {
            sum += group.tables[slot].size() + (group.keeping.old ? group.old_tables[slot].size() : 0);
        }
        return sum;
    }
    /// Tokens that the pages of a sequence of `tokens` could hold more: below a page, in groups that keep all tokens.
    /// Nothing is lost between pages, so this is all the waste there is.
    [[nodiscard]] std::uint64_t unused_tokens(Slot slot, std::uint64_t tokens) const noexcept {
        std::uint64_t most = 0;
        for (const GroupPages& group : groups_) {
            const std::uint64_t room = group.tables[slot].size() * std::uint64_t{group.keeping.page_tokens};
            most = std::max(most, room > tokens ? room - tokens : 0);
        }
        return most;
    }

    void shuffle(std::uint64_t seed) noexcept {
        for (GroupPages& group : groups_) {
            group.pool.shuffle(seed);
            group.old_pool.shuffle(seed);
        }
    }

private:
    /// Whether a table may grow to `entries` with pages of its own from entry `first` on.
    static bool fits(const PageTable& table, const PagePool& pool, const Keeping& keeping, std::size_t first,
                     std::size_t entries) noexcept {
        return entries <= table.capacity() && table.missing(keeping, std::max(entries, table.size())) +
                                                      table.shared(pool, keeping, first, entries) <=
                                                  pool.available();
    }
    static void extend(PageTable& table, PagePool& pool, const Keeping& keeping, std::size_t first,
                       std::size_t entries) noexcept {
        table.grow(pool, keeping, entries);
        table.separate(pool, first, entries);
    }

    std::vector<GroupPages> groups_;
};

}  // namespace kv
}  // namespace zse::inline v1
