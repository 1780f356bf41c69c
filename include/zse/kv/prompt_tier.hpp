// SPDX-License-Identifier: Apache-2.0
// The disk behind the pages that an engine keeps for prompts that begin alike: what is computed goes there, and comes
// back where memory has it no more.
#pragma once

#include <zse/kv/fetch_policy.hpp>
#include <zse/kv/prompt_store.hpp>
#include <zse/kv/sequences.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <span>

namespace zse::inline v1 {
namespace kv {

/// Takes every block that becomes known to the sequences' cache to a store, as the store has room for it; and gives a
/// sequence pages with what the store has of its tokens. Nothing waits for a write. Outlived by the sequences.
class PromptTier {
public:
    /// For sequences of at most `context` tokens. `index` has room for index_bytes() of the layout. Pages are read where
    /// that comes sooner than computing them, or always.
    PromptTier(Sequences& sequences, std::uint32_t context, memory::Reservation file,
               const std::filesystem::path& directory, const Identity& identity, const PromptLayout& layout,
               memory::Arena staging, memory::Carver& index, bool always_read = false)
        : sequences_(&sequences),
          always_read_(always_read),
          store_(std::move(file), directory, identity, layout, std::move(staging), index),
          blocks_(index.take<PromptBlock>(sequences.groups().front().pool.capacity())),
          queue_(index.take<PageIndex>(blocks_.size())),
          path_(index.take<PromptStore::Slot>(ceil_div(context, layout.page_tokens))) {
        std::fill(blocks_.begin(), blocks_.end(), PromptBlock{});
    }
    PromptTier(const PromptTier&) = delete;
    PromptTier& operator=(const PromptTier&) = delete;
    ~PromptTier() { flush(); }

    /// Nobody waits longer than this for a slow disk when an engine closes: what is not written is computed again.
    static constexpr std::chrono::milliseconds most_closing{3000};

    [[nodiscard]] const PromptStore& store() const noexcept { return store_; }
    /// Blocks that are computed and wait to be written.
    [[nodiscard]] std::size_t waiting() const noexcept { return count_; }

    /// A block of the sequences' cache that was not known before: to be written.
    void add(PrefixCache::Block block) noexcept {
        blocks_[block].place = {};
        if (blocks_[block].queued || store_.off()) return;
        queue(block);
    }
    /// Gives a sequence whose first `adopted` tokens have their pages the blocks that follow and are in the store,
    /// whole ones, and not all of `tokens`. Takes pages that are free or that nobody holds. Returns the tokens that it
    /// then has.
    std::uint32_t fetch(Slot slot, std::span<const std::int32_t> tokens, std::uint32_t adopted) noexcept {
        const std::uint32_t page_tokens = store_.layout().page_tokens;
        PromptStore::Slot last = PromptStore::none;
        std::size_t blocks = 0;
        for (std::uint32_t at = 0; at + page_tokens < tokens.size(); at += page_tokens) {
            const PromptStore::Slot next = store_.find(last, tokens.data() + at);
            if (next == PromptStore::none || (at >= adopted && !store_.readable(next))) break;
            path_[blocks++] = last = next;
        }
        store_.touch(last);
        const std::size_t first = adopted / page_tokens;
        if (blocks > first)
            blocks = first + std::min<std::size_t>(blocks - first, sequences_->free_in_memory());
        const auto most = static_cast<std::uint32_t>(blocks * page_tokens);
        if (most <= adopted) return adopted;
        const Bytes to_read = (blocks - first) * store_.layout().slot_bytes();
        if (!always_read_ && !rates_.worth_reading(to_read, most - adopted)) {
            store_.count_declined(blocks - first);
            return adopted;
        }
        if (!sequences_->reserve(slot, adopted, most)) return adopted;
        sequences_->fill(slot, adopted, most);
        const auto deliver = [&](std::size_t i, std::span<const std::byte> bytes) noexcept {
            const auto page = [&](std::uint32_t g) noexcept {
                return sequences_->groups()[g].tables[slot].data()[first + i];
            };
            for_each_page(sequences_->groups(), page, [&](const PagePool& pool, PageIndex to) {
                pool.write(to, bytes.first(pool.page_bytes()));
                bytes = bytes.subspan(pool.page_bytes());
            });
        };
        const auto begin = std::chrono::steady_clock::now();
        const std::size_t read = store_.read(path_.subspan(first, blocks - first), deliver);
        rates_.read(to_read, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
        const auto now = static_cast<std::uint32_t>((first + read) * page_tokens);
        sequences_->seal(slot, tokens, adopted, now, [&](PrefixCache::Block block, std::uint32_t i) noexcept {
            blocks_[block].place = store_.place(path_[i]);
        });
        return now;
    }
    /// Computing so many tokens of prompts took so long.
    void note_computed(std::uint64_t tokens, double seconds) noexcept { rates_.computed(tokens, seconds); }
    /// Writes what can be written without waiting.
    void pump() noexcept {
        store_.poll();
        for (std::size_t left = count_; left > 0; --left) {
            if (!write_next()) return;
        }
    }
    /// Writes what waits, for as long as may be, and waits for what was begun.
    void flush(std::chrono::milliseconds most = most_closing) noexcept {
        const auto end = std::chrono::steady_clock::now() + most;
        for (pump(); count_ != 0 && std::chrono::steady_clock::now() < end; pump()) store_.wait_for_room();
        store_.wait_for_writes();
    }

private:
    /// Calls body(pool, page) for the page of each group; `page(group)` is its number.
    template <class Page, class Body>
    static void for_each_page(const std::vector<GroupPages>& groups, const Page& page, const Body& body) {
        for (std::uint32_t g = 0; g < groups.size(); ++g) {
            body(groups[g].pool, page(g));
        }
    }
    void queue(PrefixCache::Block block) noexcept {
        blocks_[block].queued = true;
        queue_[(first_ + count_++) % queue_.size()] = block;
    }
    void unqueue() noexcept {
        blocks_[queue_[first_]].queued = false;
        first_ = (first_ + 1) % queue_.size();
        --count_;
    }
    /// Takes the next block from the queue, written or not; false where it has to wait for a write.
    bool write_next() noexcept {
        const PrefixCache& known = sequences_->prefixes();
        const PrefixCache::Block block = queue_[first_];
        const PrefixCache::Block before = known.knows(block) ? known.parent(block) : PrefixCache::none;
        PromptStore::Slot parent = PromptStore::none;
        if (before != PrefixCache::none) {
            const PromptBlock& of_parent = blocks_[before];
            // Where its page was another block's before, it may stand in the queue before the block that it follows.
            if (of_parent.queued) return unqueue(), queue(block), true;
            if (store_.holds(of_parent.place)) parent = of_parent.place.slot;
        }
        if (store_.off() || !known.knows(block) ||
            (before != PrefixCache::none && parent == PromptStore::none)) {
            store_.count_skipped();
            return unqueue(), true;
        }
        PromptStore::Place& place = blocks_[block].place;
        const std::int32_t* const tokens = known.tokens_of(block);
        if (const PromptStore::Slot same = store_.find(parent, tokens); same != PromptStore::none) {
            place = store_.place(same);
            store_.touch(same);
            return unqueue(), true;
        }
        const auto page = [&](std::uint32_t g) noexcept { return known.page(block, g); };
        for (std::uint32_t g = 0; g < sequences_->groups().size(); ++g) {
            const TieredPages* const tiers = sequences_->groups()[g].pool.tiers();
            if (tiers == nullptr || tiers->in_memory(page(g))) continue;
            store_
                .count_skipped();  // it waited too long: a page that left memory is not brought back for this
            return unqueue(), true;
        }
        const PromptStore::Put put = store_.put(
            parent, tokens,
            [&](std::span<std::byte> to) noexcept {
                for_each_page(sequences_->groups(), page, [&](const PagePool& pool, PageIndex from) {
                    pool.read(from, to.first(pool.page_bytes()));
                    to = to.subspan(pool.page_bytes());
                });
            },
            place);
        if (put == PromptStore::Put::busy) return false;
        if (put == PromptStore::Put::full) store_.count_skipped();
        return unqueue(), true;
    }

    Sequences* sequences_;
    bool always_read_;
    FetchPolicy rates_;
    PromptStore store_;
    std::span<PromptBlock> blocks_;  ///< `[pages of the first group]`
    std::span<PageIndex> queue_;     ///< a ring; each block stands in it once at most
    std::span<PromptStore::Slot> path_;
    std::size_t first_ = 0, count_ = 0;
};

}  // namespace kv
}  // namespace zse::inline v1
