// SPDX-License-Identifier: Apache-2.0
// Which block of which prompt is in which slot of a file, made anew from the file's records; and which gives way. Sizes
// are fixed at open, nothing is allocated afterwards.
#pragma once

#include <zse/kv/prompt_file.hpp>
#include <zse/memory/arena.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace zse::inline v1 {
namespace kv {

/// A tree of blocks, as PrefixCache is one of pages in memory: the path to a block is compared token by token, and no
/// hash is trusted. On disk a record names the block in front of it by slot and generation, which no two blocks share,
/// so the tree can be made again from records alone, in whatever state they were left.
///
/// Blocks are in order of last use, and a block is used later than those behind it: so the least recently used one has
/// none behind it.
class PromptTree {
public:
    using Slot = PrefixCache::Block;
    static constexpr Slot none = PrefixCache::none;

    /// Takes layout.tree_bytes().
    PromptTree(memory::Carver& index, const PromptLayout& layout)
        : layout_(layout),
          blocks_(index, layout.slots, layout.page_tokens, 1),
          slots_(index.take<PromptSlot>(layout.slots)),
          free_(index.take<Slot>(layout.slots)) {
        std::fill(slots_.begin(), slots_.end(), PromptSlot{});
    }

    /// Blocks that are known.
    [[nodiscard]] std::size_t size() const noexcept { return blocks_.known(); }
    /// The block of these tokens behind `parent` (none: at the beginning), or none.
    [[nodiscard]] Slot find(Slot parent, const std::int32_t* tokens) const noexcept {
        return blocks_.find(parent, tokens);
    }
    [[nodiscard]] PromptSlot& operator[](Slot slot) noexcept { return slots_[slot]; }
    [[nodiscard]] const PromptSlot& operator[](Slot slot) const noexcept { return slots_[slot]; }
    [[nodiscard]] PromptPlace place(Slot slot) const noexcept { return {slot, slots_[slot].generation}; }
    [[nodiscard]] bool holds(const PromptPlace& place) const noexcept {
        return place.slot != none && blocks_.knows(place.slot) &&
               slots_[place.slot].generation == place.generation;
    }

    /// The block and those in front of it were used now.
    void touch(Slot slot) noexcept {
        for (; slot != none; slot = blocks_.parent(slot)) {
            blocks_.use(slot);
            blocks_.release(slot);
        }
    }
    /// A slot that is free now, for a block behind `parent`: where there was none, the least recently used block is
    /// forgotten, and `evicted` counts it. None where `parent` and those in front of it are all there are.
    Slot take(Slot parent, std::uint64_t& evicted) noexcept {
        if (free_count_ == 0) {
            touch(parent);
            if (blocks_.oldest() == parent) return none;
            forget(blocks_.oldest());
            ++evicted;
        }
        return free_[--free_count_];
    }
    /// Puts a block that waits to be written into a slot that was taken. It is used now.
    void insert(Slot slot, Slot parent, const std::int32_t* tokens) noexcept {
        slots_[slot] = {next_generation_++, 0, true};
        blocks_.insert(slot, parent, tokens, no_pages);
        blocks_.release(slot);
        touch(parent);
    }
    /// Forgets a block and those behind it; how many.
    std::uint64_t forget_from(Slot slot) noexcept {
        forget(slot);
        std::uint64_t count = 1;
        for (bool found = true; found;) {
            found = false;
            for (Slot other = 0; other < slots_.size(); ++other) {
                if (!blocks_.knows(other)) continue;
                const Slot parent = blocks_.parent(other);
                if (parent == none || blocks_.knows(parent)) continue;
                forget(other);
                ++count;
                found = true;
            }
        }
        return count;
    }

    /// Fills the empty tree from the records of a file, `buffer` at a time. Throws unreadable.
    void find_again(const PromptFile& file, std::span<std::byte> buffer) {
        std::vector<Found> found;
        file.for_each_record(buffer, [&](Slot slot, const PromptRecord& record, const std::int32_t* tokens) {
            slots_[slot] = {record.generation, record.pages_checksum, false};
            next_generation_ = std::max(next_generation_, record.generation + 1);
            found.push_back({record.generation, record.generation, record.parent_generation, slot,
                             record.parent, std::vector<std::int32_t>(tokens, tokens + layout_.page_tokens)});
        });
        // A block is younger than the one in front of it, so in order of age every block finds its parent in the tree.
        std::sort(found.begin(), found.end(),
                  [](const Found& a, const Found& b) { return a.generation < b.generation; });
        std::vector<Found> kept;
        for (Found& one : found) {
            const bool first = one.parent == none && one.parent_generation == 0;
            if (!first && !(one.parent < slots_.size() && holds({one.parent, one.parent_generation})))
                continue;
            if (find(one.parent, one.tokens.data()) != none) continue;
            blocks_.insert(one.slot, one.parent, one.tokens.data(), no_pages);
            kept.push_back(std::move(one));
        }
        order(kept);
        for (auto slot = static_cast<Slot>(slots_.size()); slot-- > 0;) {
            if (!blocks_.knows(slot)) free_[free_count_++] = slot;
        }
    }

private:
    /// A record.
    struct Found {
        std::uint64_t generation = 0;
        std::uint64_t latest = 0;  ///< generation of the latest block that is this or behind it
        std::uint64_t parent_generation = 0;
        Slot slot = none;
        Slot parent = none;
        std::vector<std::int32_t> tokens;
    };

    /// Slots have no pages beside them.
    static PageIndex no_pages(std::uint32_t /*group*/) noexcept { return 0; }

    void forget(Slot slot) noexcept {
        blocks_.drop(slot);
        free_[free_count_++] = slot;
    }
    /// What was used when is not written down: a prompt counts as used when its latest block was written. `kept` is in
    /// order of age.
    void order(std::vector<Found>& kept) {
        std::vector<std::uint64_t> latest(slots_.size(), 0);
        for (auto one = kept.rbegin(); one != kept.rend(); ++one) {
            one->latest = std::max(one->latest, latest[one->slot]);
            if (one->parent != none) latest[one->parent] = std::max(latest[one->parent], one->latest);
        }
        std::sort(kept.begin(), kept.end(), [](const Found& a, const Found& b) {
            return a.latest != b.latest ? a.latest < b.latest : a.generation > b.generation;
        });
        for (const Found& one : kept) blocks_.release(one.slot);
    }

    PromptLayout layout_;
    PrefixCache blocks_;  ///< by slot; all of them idle
    std::span<PromptSlot> slots_;
    std::span<Slot> free_;
    std::size_t free_count_ = 0;
    std::uint64_t next_generation_ = 1;
};

}  // namespace kv
}  // namespace zse::inline v1
