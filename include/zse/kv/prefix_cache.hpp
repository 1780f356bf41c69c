// SPDX-License-Identifier: Apache-2.0
// Full pages of sequences that were computed before, found again by the tokens in them and in front of them. Sizes are
// fixed at open, nothing is allocated afterwards.
#pragma once

#include <zse/kv/page.hpp>
#include <zse/memory/arena.hpp>

#include <algorithm>
#include <bit>
#include <span>

namespace zse::inline v1 {
namespace kv {

/// A tree of blocks of `page_tokens` tokens. The path to a block is the whole prefix that its keys and values depend on,
/// and tokens are compared, not only hashed: two prefixes are never taken for each other.
///
/// A block is named by its page in the pool of the first group of layers; pages in the pools of other groups are kept
/// beside it. A block that no sequence holds is idle. Idle blocks stand in a list by last use. Whoever uses a block uses
/// those in front of it too, and lets go of them later, so the least recently used block has no others behind it, and
/// can always be dropped.
class PrefixCache {
public:
    using Block = PageIndex;
    static constexpr Block none = ~Block{0};

    PrefixCache() = default;
    /// For blocks below `pages`, of `groups` groups, carved from memory that the plan counts (see bytes()).
    PrefixCache(memory::Carver& carver, std::uint64_t pages, std::uint32_t page_tokens, std::uint32_t groups)
        : page_tokens_(page_tokens),
          groups_(groups),
          blocks_(carver.take<Entry>(pages)),
          heads_(carver.take<Block>(buckets(pages))),
          tokens_(carver.take<std::int32_t>(pages * page_tokens)),
          others_(carver.take<PageIndex>(pages * (groups - 1))) {
        std::fill(blocks_.begin(), blocks_.end(), Entry{});
        std::fill(heads_.begin(), heads_.end(), none);
    }

    /// Bytes of such a cache.
    static constexpr Bytes bytes(std::uint64_t pages, std::uint32_t page_tokens,
                                 std::uint32_t groups) noexcept {
        using memory::Carver;
        return Carver::footprint<Entry>(pages) + Carver::footprint<Block>(buckets(pages)) +
               Carver::footprint<std::int32_t>(saturating_mul(pages, page_tokens)) +
               Carver::footprint<PageIndex>(saturating_mul(pages, groups - 1));
    }

    [[nodiscard]] bool enabled() const noexcept { return !blocks_.empty(); }
    /// Blocks that are known, and those of them that no sequence holds.
    [[nodiscard]] std::size_t known() const noexcept { return known_; }
    [[nodiscard]] std::size_t idle() const noexcept { return idle_; }
    /// Bytes of the cache that say something.
    [[nodiscard]] Bytes used_bytes(Bytes all) const noexcept {
        return all - (blocks_.size() - known_) * (sizeof(Entry) + page_tokens_ * sizeof(std::int32_t) +
                                                  (groups_ - 1) * sizeof(PageIndex));
    }
    [[nodiscard]] bool knows(Block block) const noexcept { return enabled() && blocks_[block].known; }

    /// The block of these tokens behind `parent` (none: at the beginning), or none.
    [[nodiscard]] Block find(Block parent, const std::int32_t* tokens) const noexcept {
        Block block = heads_[bucket(parent, tokens)];
        while (block != none && !is(block, parent, tokens)) block = blocks_[block].next;
        return block;
    }
    /// Its page in group `group`.
    [[nodiscard]] PageIndex page(Block block, std::uint32_t group) const noexcept {
        return group == 0 ? block : others_[other(block, group)];
    }
    /// Makes `block` that of these tokens, which are not known behind `parent`. Sequences hold it. `page(group)` gives
    /// its pages.
    template <class Page>
    void insert(Block block, Block parent, const std::int32_t* tokens, const Page& page) noexcept {
        Block& head = heads_[bucket(parent, tokens)];
        blocks_[block] = {parent, head, none, none, true};
        head = block;
        std::copy_n(tokens, page_tokens_, tokens_.data() + first_token(block));
        for (std::uint32_t group = 1; group < groups_; ++group) {
            others_[other(block, group)] = page(group);
        }
        ++known_;
    }
    /// The last sequence let go of the block: it is the one used last. Blocks behind it were let go of before.
    void release(Block block) noexcept {
        Entry& entry = blocks_[block];
        entry.older = newest_;
        entry.newer = none;
        (newest_ == none ? oldest_ : blocks_[newest_].newer) = block;
        newest_ = block;
        ++idle_;
    }
    /// A sequence holds an idle block again.
    void use(Block block) noexcept {
        const Entry& entry = blocks_[block];
        (entry.newer == none ? newest_ : blocks_[entry.newer].older) = entry.older;
        (entry.older == none ? oldest_ : blocks_[entry.older].newer) = entry.newer;
        --idle_;
    }
    /// The block in front, or none.
    [[nodiscard]] Block parent(Block block) const noexcept { return blocks_[block].parent; }
    [[nodiscard]] const std::int32_t* tokens_of(Block block) const noexcept {
        return tokens_.data() + first_token(block);
    }
    /// The least recently used idle block, or none.
    [[nodiscard]] Block oldest() const noexcept { return oldest_; }
    /// Forgets the least recently used idle block. There is one.
    Block drop_oldest() noexcept {
        const Block block = oldest_;
        drop(block);
        return block;
    }
    /// Forgets an idle block. Whoever drops another than the oldest drops those behind it too, before anything is added.
    void drop(Block block) noexcept {
        use(block);
        Entry& entry = blocks_[block];
        Block* link = &heads_[bucket(entry.parent, tokens_of(block))];
        while (*link != block) link = &blocks_[*link].next;
        *link = entry.next;
        entry.known = false;
        --known_;
    }

private:
    struct Entry {
        Block parent = none;
        Block next = none;   ///< in the same bucket
        Block older = none;  ///< of the idle ones
        Block newer = none;
        bool known = false;
    };

    static constexpr std::uint64_t buckets(std::uint64_t pages) noexcept { return std::bit_ceil(pages); }
    // In 64 bits: a pool has up to 2^32 pages.
    [[nodiscard]] std::size_t first_token(Block block) const noexcept {
        return std::size_t{block} * page_tokens_;
    }
    [[nodiscard]] std::size_t other(Block block, std::uint32_t group) const noexcept {
        return std::size_t{block} * (groups_ - 1) + group - 1;
    }
    [[nodiscard]] bool is(Block block, Block parent, const std::int32_t* tokens) const noexcept {
        return blocks_[block].parent == parent && std::equal(tokens, tokens + page_tokens_, tokens_of(block));
    }
    /// Any hash will do, since tokens are compared: multiply and fold, 64 bits wide.
    [[nodiscard]] std::size_t bucket(Block parent, const std::int32_t* tokens) const noexcept {
        std::uint64_t hash = parent;
        for (std::uint32_t i = 0; i < page_tokens_; ++i) {
            hash = (hash ^ static_cast<std::uint32_t>(tokens[i])) * 0x9e3779b97f4a7c15ULL;
            hash ^= hash >> 29;
        }
        return hash & (heads_.size() - 1);
    }

    std::uint32_t page_tokens_ = 0;
    std::uint32_t groups_ = 1;
    std::span<Entry> blocks_;         ///< `[pages]`
    std::span<Block> heads_;          ///< of the buckets
    std::span<std::int32_t> tokens_;  ///< `[pages][page_tokens]`
    std::span<PageIndex> others_;     ///< `[pages][groups - 1]`
    Block oldest_ = none, newest_ = none;
    std::size_t known_ = 0, idle_ = 0;
};

}  // namespace kv
}  // namespace zse::inline v1
