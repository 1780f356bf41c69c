// SPDX-License-Identifier: Apache-2.0
// How the file of a prompt cache is laid out, and what keeping it costs. Runs at compile time.
#pragma once

#include <zse/kv/prefix_cache.hpp>
#include <zse/memory/block_file.hpp>
#include <zse/memory/plan.hpp>

#include <algorithm>
#include <cstdint>

namespace zse::inline v1 {
namespace kv {

/// What a slot of the file holds, in little-endian order; the tokens of the block follow, `[page_tokens]` int32. Padded
/// to PromptLayout::record_bytes().
struct PromptRecord {
    /// "zse page". Anything else is an empty slot.
    static constexpr std::uint64_t written = 0x65676170'2065737aULL;

    std::uint64_t checksum =
        0;  ///< of all that follows, padding included; seeded by the file's identity and the slot
    std::uint64_t magic = 0;
    std::uint64_t generation = 0;  ///< one more for each page that was ever written: no two have the same
    std::uint64_t parent_generation = 0;       ///< of the block in front of it; 0: it begins a prompt
    std::uint64_t pages_checksum = 0;          ///< of the pages, seeded by the generation
    std::uint32_t parent = PrefixCache::none;  ///< slot of the block in front of it
    std::uint32_t page_tokens = 0;
};
static_assert(sizeof(PromptRecord) == 5 * 8 + 2 * 4);

/// A block in the file, as long as it is there.
struct PromptPlace {
    PrefixCache::Block slot = PrefixCache::none;
    std::uint64_t generation = 0;
};
/// What memory keeps of a slot beside the tokens of its block.
struct PromptSlot {
    std::uint64_t generation = 0;
    std::uint64_t pages_checksum = 0;
    bool waits = false;  ///< to be written
};
/// What memory keeps of a block of the pages of sequences.
struct PromptBlock {
    PromptPlace place;    ///< where it is in the file, if there
    bool queued = false;  ///< to be written
};

/// `[header | records | slots]`. A slot holds the pages that all groups of layers have of one block of tokens, one group
/// after the other, as they lie in memory. Records lie together, so that a file is opened by reading little of it; the
/// slots begin on whole blocks, so that they can be read and written past the page cache.
struct PromptLayout {
    static constexpr Bytes block = memory::BlockFile::block;
    static constexpr Bytes header_bytes = block;
    /// Readers at once: what it takes to keep a disk busy that answers in 100 us and reads 4 GB/s is 400 KB under way.
    static constexpr std::uint32_t readers = 4;
    /// Slots that follow each other are read together up to this size: beyond it a disk is no faster.
    static constexpr Bytes most_read = MiB(1);
    /// Pages that wait to be written take at most this (and two slots at least): whole steps, where they are small.
    static constexpr Bytes most_waiting = MiB(16);

    std::uint32_t page_tokens = 0;
    Bytes pages_bytes = 0;         ///< of one block: the pages of all groups
    Bytes file_bytes = 0;          ///< 0: there is no file
    std::uint64_t slots = 0;       ///< blocks that the file holds
    std::uint32_t writes = 0;      ///< blocks that can wait to be written
    std::uint32_t read_slots = 0;  ///< blocks of one read, at most

    /// The layout of a file of `size` bytes, rounded down to whole pages of the system, for steps of `step_tokens` rows.
    /// Without slots where not even one fits.
    static constexpr PromptLayout of(std::uint32_t page_tokens, Bytes pages_bytes, Bytes size,
                                     std::uint32_t step_tokens) noexcept {
        PromptLayout layout;
        layout.page_tokens = page_tokens;
        layout.pages_bytes = pages_bytes;
        const Bytes file =
            size - size % (size >= memory::huge_page ? memory::huge_page : memory::system_page);
        if (file <= header_bytes || pages_bytes == 0) return layout;
        layout.slots = std::min<std::uint64_t>(
            (file - header_bytes) / (layout.record_bytes() + layout.slot_bytes()), most_slots);
        while (layout.slots > 0 && layout.slot_at(layout.slots) > file) --layout.slots;
        if (layout.slots == 0) return layout;
        layout.file_bytes = file;
        const Bytes slot = layout.slot_bytes();
        layout.writes = static_cast<std::uint32_t>(std::clamp<Bytes>(
            ceil_div(step_tokens, page_tokens), 2, std::max<Bytes>(2, most_waiting / slot)));
        layout.read_slots = static_cast<std::uint32_t>(std::clamp<Bytes>(most_read / slot, 1, 256));
        return layout;
    }

    /// The smallest file.
    static constexpr Bytes least_bytes(std::uint32_t page_tokens, Bytes pages_bytes) noexcept {
        PromptLayout layout;
        layout.page_tokens = page_tokens;
        layout.pages_bytes = pages_bytes;
        layout.slots = 1;
        return memory::arena_bytes(layout.slot_at(1));
    }

    [[nodiscard]] constexpr Bytes record_bytes() const noexcept {
        return round_up(sizeof(PromptRecord) + Bytes{page_tokens} * sizeof(std::int32_t), 64);
    }
    [[nodiscard]] constexpr Bytes slot_bytes() const noexcept { return round_up(pages_bytes, block); }
    [[nodiscard]] constexpr Bytes record_at(std::uint64_t slot) const noexcept {
        return header_bytes + slot * record_bytes();
    }
    [[nodiscard]] constexpr Bytes slot_at(std::uint64_t slot) const noexcept {
        return header_bytes + round_up(slots * record_bytes(), block) + slot * slot_bytes();
    }

    /// Bytes of host memory through which pages come and go: a record with each slot that waits to be written.
    [[nodiscard]] constexpr Bytes write_bytes() const noexcept {
        return slot_bytes() + round_up(record_bytes(), block);
    }
    [[nodiscard]] constexpr Bytes read_bytes() const noexcept { return read_slots * slot_bytes(); }
    [[nodiscard]] constexpr Bytes staging_bytes() const noexcept {
        return file_bytes == 0 ? 0 : writes * write_bytes() + readers * read_bytes();
    }

    /// Bytes of host memory that say what is in the file.
    [[nodiscard]] constexpr Bytes tree_bytes() const noexcept {
        using memory::Carver;
        return PrefixCache::bytes(slots, page_tokens, 1) + Carver::footprint<PromptSlot>(slots) +
               Carver::footprint<PrefixCache::Block>(slots);
    }
    /// With what is kept of `pages` blocks of sequences of at most `context` tokens.
    [[nodiscard]] constexpr Bytes index_bytes(std::uint64_t pages, std::uint32_t context) const noexcept {
        using memory::Carver;
        if (file_bytes == 0) return 0;
        return tree_bytes() + Carver::footprint<PromptBlock>(pages) + Carver::footprint<PageIndex>(pages) +
               Carver::footprint<PrefixCache::Block>(ceil_div(context, page_tokens));
    }

    friend constexpr bool operator==(const PromptLayout&, const PromptLayout&) = default;

private:
    static constexpr std::uint64_t most_slots = PrefixCache::none;
};

}  // namespace kv
}  // namespace zse::inline v1
