// SPDX-License-Identifier: Apache-2.0
// The pages of all sequences of an engine: pools of every group of layers, and the tables of every slot.
#pragma once

#include <zse/kv/pool.hpp>
#include <zse/kv/prefix_cache.hpp>

#include <algorithm>
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
    /// A cache that is enabled wants groups that keep all tokens in one codec.
    explicit Sequences(std::vector<GroupPages> groups, const PrefixCache& prefixes = {})
        : groups_(std::move(groups)), prefixes_(prefixes) {}

    [[nodiscard]] const std::vector<GroupPages>& groups() const noexcept { return groups_; }

    /// Whether a sequence of so many tokens has room where it is alone.
    [[nodiscard]] bool could_hold(std::uint64_t tokens) const noexcept {
        for (const GroupPages& group : groups_) {
            if (group.keeping.pages(tokens) > group.pool.capacity()) return false;
            if (group.keeping.old_pages(tokens) > group.old_pool.capacity()) return false;
        }
        return true;
    }
    /// Whether a sequence that begins with so many tokens, of which it has adopted some, has room now, and one more page
    /// in each pool of which it will need more on its way to `most_tokens`.
    [[nodiscard]] bool has_room(std::uint64_t tokens, std::uint64_t most_tokens,
                                std::uint64_t adopted = 0) const noexcept {
        for (const GroupPages& group : groups_) {
            const Keeping& keeping = group.keeping;
            const std::uint64_t wanted = std::min(keeping.pages(tokens) + 1, keeping.pages(most_tokens));
            const std::uint64_t old = std::min(keeping.old_pages(tokens) + 1, keeping.old_pages(most_tokens));
            if (wanted > available(group.pool) + keeping.pages(adopted)) return false;
            if (old > group.old_pool.available()) return false;
        }
        return true;
    }

    /// Lets the empty sequence of a slot begin with pages that others computed for the same tokens. Returns how many
    /// tokens they hold: whole pages, and not all of `tokens`, since something has to be computed.
    std::uint32_t adopt(Slot slot, std::span<const std::int32_t> tokens) noexcept {
        if (!prefixes_.enabled()) return 0;
        const std::uint32_t page_tokens = groups_.front().keeping.page_tokens;
        std::uint32_t adopted = 0;
        PrefixCache::Block last = PrefixCache::none;
        while (adopted + page_tokens < tokens.size()) {
            last = prefixes_.find(last, tokens.data() + adopted);
            if (last == PrefixCache::none) break;
            if (groups_.front().pool.holders(last) == 1) prefixes_.use(last);
            for (std::uint32_t g = 0; g < groups_.size(); ++g) {
                groups_[g].tables[slot].adopt(groups_[g].pool, prefixes_.page(last, g));
            }
            adopted += page_tokens;
        }
        return adopted;
    }
    /// Makes the pages of a sequence known that are full once the tokens below `computed` are in them; those below
    /// `before` were made known already. Where another sequence computed the same page, this one holds that from now on:
    /// equal prefixes have equal bytes. Calls inserted(block, i) where the sequence's page i was not known.
    template <class Inserted>
    void seal(Slot slot, std::span<const std::int32_t> tokens, std::uint32_t before, std::uint32_t computed,
              const Inserted& inserted) noexcept {
        if (!prefixes_.enabled()) return;
        const PageTable& table = groups_.front().tables[slot];
        const std::uint32_t page_tokens = groups_.front().keeping.page_tokens;
        for (std::uint32_t i = before / page_tokens; i < computed / page_tokens; ++i) {
            const PrefixCache::Block parent = i == 0 ? PrefixCache::none : table.data()[i - 1];
            const std::int32_t* const part = tokens.data() + std::size_t{i} * page_tokens;
            const PrefixCache::Block same = prefixes_.find(parent, part);
            if (same == PrefixCache::none) {
                for (GroupPages& group : groups_) group.pool.share(group.tables[slot].data()[i]);
                prefixes_.insert(table.data()[i], parent, part,
                                 [&](std::uint32_t group) { return groups_[group].tables[slot].data()[i]; });
                inserted(table.data()[i], i);
                continue;
            }
            if (same == table.data()[i]) continue;  // of a fork
            if (groups_.front().pool.holders(same) == 1) prefixes_.use(same);
            for (std::uint32_t g = 0; g < groups_.size(); ++g) {
                groups_[g].tables[slot].replace(groups_[g].pool, i, prefixes_.page(same, g));
            }
        }
    }
    void seal(Slot slot, std::span<const std::int32_t> tokens, std::uint32_t before,
              std::uint32_t computed) noexcept {
        seal(slot, tokens, before, computed, [](PrefixCache::Block, std::uint32_t) noexcept {});
    }
    [[nodiscard]] const PrefixCache& prefixes() const noexcept { return prefixes_; }
    /// Pages that no sequence holds, kept for later ones; and how many of them gave way so far.
    [[nodiscard]] std::uint64_t cached() const noexcept { return prefixes_.idle() * groups_.size(); }
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }

    /// Makes room for the tokens below `tokens` of a sequence, of which those from `first` on will be written: takes
    /// the pages that are missing, and copies those of them that others hold too. False, and nothing is taken, where
    /// a pool has too few.
    [[nodiscard]] bool reserve(Slot slot, std::uint64_t first, std::uint64_t tokens) noexcept {
        std::size_t most_missing = 0;  // of free pages, in any pool
        for (GroupPages& group : groups_) {
            const Keeping& keeping = group.keeping;
            const PageTable& table = group.tables[slot];
            const std::size_t entries = keeping.entries(tokens);
            const std::size_t wanted =
                pages_wanted(table, group.pool, keeping, first / keeping.page_tokens, entries);
            if (entries > table.capacity() || wanted > available(group.pool)) return false;
            if (wanted > group.pool.available()) {
                most_missing = std::max(most_missing, wanted - group.pool.available());
            }
            if (!keeping.old) continue;
            const PageTable& old = group.old_tables[slot];
            const std::size_t old_entries = keeping.old_pages(tokens);
            if (old_entries > old.capacity() ||
                pages_wanted(old, group.old_pool, group.old_keeping(), keeping.first_old_written(first),
                             old_entries) > group.old_pool.available()) {
                return false;
            }
        }
        for (; most_missing > 0; --most_missing) drop_oldest();
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

    /// A new step begins: pages may change their tier.
    void begin_step() noexcept {
        for_each_tiers([](TieredPages& tiers) { tiers.begin_step(); });
    }
    /// The step reads the tokens below `tokens` of a sequence and writes those from `first` on: their pages do not give
    /// way to others.
    void pin(Slot slot, std::uint64_t first, std::uint64_t tokens) noexcept {
        for_each_tiered(slot, 0, first,
                        [](TieredPages& tiers, PageIndex page, std::uint32_t) { tiers.touch(page); });
        for_each_tiered(slot, first, tokens, [](TieredPages& tiers, PageIndex page, std::uint32_t entry) {
            tiers.pin(page, entry);
        });
    }
    /// Brings the pages that the step writes to memory.
    void bring(Slot slot, std::uint64_t first, std::uint64_t tokens) noexcept {
        for_each_tiered(slot, first, tokens,
                        [](TieredPages& tiers, PageIndex page, std::uint32_t) { tiers.bring(page); });
    }
    /// Pages of each group that memory has room for without others leaving it.
    [[nodiscard]] std::uint64_t free_in_memory() const noexcept {
        std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
        for_each_tiers([&](const TieredPages& tiers) { least = std::min(least, tiers.free_in_memory()); });
        return least;
    }
    /// Gives the pages of tokens [first, tokens) of a sequence, whole ones, places in memory that is free, so that what was
    /// computed before can be copied there.
    void fill(Slot slot, std::uint64_t first, std::uint64_t tokens) noexcept {
        for_each_tiered(slot, first, tokens, [](TieredPages& tiers, PageIndex page, std::uint32_t entry) {
            tiers.fill(page, entry);
        });
    }
    /// The step attends to the tokens below `tokens` of a sequence.
    void need(Slot slot, std::uint64_t tokens) noexcept {
        for_each_tiered(slot, 0, tokens,
                        [](TieredPages& tiers, PageIndex page, std::uint32_t) { tiers.need(page); });
    }
    /// All was said that the step needs: what is on disk begins to come.
    void start() noexcept {
        for_each_tiers([](TieredPages& tiers) { tiers.start(); });
    }
    /// Whether a disk lost pages: nothing that was computed with them counts.
    [[nodiscard]] bool failed() const noexcept {
        bool any = false;
        for_each_tiers([&](const TieredPages& tiers) { any = any || tiers.failed(); });
        return any;
    }
    /// Goes on without the disk. No sequence holds pages; what is cached is forgotten.
    void close_disk() noexcept {
        while (prefixes_.idle() > 0) drop_oldest();
        for (GroupPages& group : groups_) {
            TieredPages* const tiers = group.pool.tiers();
            if (tiers == nullptr || tiers->closed()) continue;
            tiers->close_disk();
            group.pool.retire(tiers->tiers().disk);
        }
    }

    /// Gives back all pages of a sequence.
    void release(Slot slot) noexcept {
        const GroupPages& first = groups_.front();
        for (std::size_t i = prefixes_.enabled() ? first.tables[slot].size() : 0; i-- > 0;) {
            // The cache holds a page that it knows, and this sequence does.
            const PageIndex page = first.tables[slot].data()[i];
            if (prefixes_.knows(page) && first.pool.holders(page) == 2) prefixes_.release(page);
        }
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
    /// Pages in all pools that some sequence holds; a shared page counts once.
    [[nodiscard]] std::uint64_t used() const noexcept {
        std::uint64_t sum = 0;
        for (const GroupPages& group : groups_) {
            sum += group.pool.used() - prefixes_.idle() + group.old_pool.used();
        }
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
    /// Calls body(tiers) for each group whose pages may lie in several.
    template <class Body>
    void for_each_tiers(const Body& body) const noexcept {
        for (const GroupPages& group : groups_) {
            if (group.pool.tiers() != nullptr) body(*group.pool.tiers());
        }
    }
    /// Calls body(tiers, page, entry) for the pages of such groups that tokens [first, tokens) lie in.
    template <class Body>
    void for_each_tiered(Slot slot, std::uint64_t first, std::uint64_t tokens, const Body& body) noexcept {
        for (const GroupPages& group : groups_) {
            if (group.pool.tiers() == nullptr) continue;
            const PageTable& table = group.tables[slot];
            const std::uint64_t entries =
                std::min<std::uint64_t>(group.keeping.entries(tokens), table.size());
            for (auto i = static_cast<std::uint32_t>(first / group.keeping.page_tokens); i < entries; ++i) {
                body(*group.pool.tiers(), table.data()[i], i);
            }
        }
    }
    /// Pages that are free, or would be if the cache dropped what no sequence holds.
    [[nodiscard]] std::size_t available(const PagePool& pool) const noexcept {
        return pool.available() + prefixes_.idle();
    }
    void drop_oldest() noexcept {
        const PrefixCache::Block block = prefixes_.drop_oldest();
        for (std::uint32_t g = 0; g < groups_.size(); ++g)
            groups_[g].pool.give_back(prefixes_.page(block, g));
        dropped_ += groups_.size();
    }
    /// Pages that a table takes to grow to `entries` with pages of its own from entry `first` on.
    static std::size_t pages_wanted(const PageTable& table, const PagePool& pool, const Keeping& keeping,
                                    std::size_t first, std::size_t entries) noexcept {
        return table.missing(keeping, std::max(entries, table.size())) +
               table.shared(pool, keeping, first, entries);
    }
    static void extend(PageTable& table, PagePool& pool, const Keeping& keeping, std::size_t first,
                       std::size_t entries) noexcept {
        table.grow(pool, keeping, entries);
        table.separate(pool, first, entries);
    }

    std::vector<GroupPages> groups_;
    PrefixCache prefixes_;
    std::uint64_t dropped_ = 0;
};

}  // namespace kv
}  // namespace zse::inline v1
