// SPDX-License-Identifier: Apache-2.0
// The merges of byte-pair encoding: ranks by pairs of ids, and their application to one word.
#pragma once

#include <zse/core/error.hpp>
#include <zse/tokenizer/flat_map.hpp>
#include <zse/tokenizer/vocabulary.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer {

/// Which two tokens join to which third, and in what order of preference. Immutable after construction.
class Merges {
public:
    static constexpr std::size_t most_merges = std::size_t{1} << 26;

    /// Reads "left right" lines, first line first. A line whose parts or whose result are not tokens is
    /// refused, since it could never give an id: Error(corrupt). Where a pair comes twice the first counts.
    Merges(const Vocabulary& vocabulary, std::span<const std::string_view> lines,
           std::pmr::memory_resource* memory = std::pmr::get_default_resource())
        : ranks_(lines.size() <= most_merges ? lines.size() : 0, memory) {
        if (lines.size() > most_merges) {
            throw Error(ErrorCode::corrupt, text("expected at most ", most_merges, " merges, found ",
                                                 lines.size(), "; the file's merge list is damaged"));
        }
        std::string joined;
        for (std::size_t rank = 0; rank < lines.size(); ++rank) {
            const std::string_view line = lines[rank];
            const std::size_t space = line.find(' ', 1);  // the first character may itself be a space
            if (space == std::string_view::npos || space + 1 == line.size()) {
                throw Error(ErrorCode::corrupt,
                            text("expected merge ", rank,
                                 " to be two tokens with a space between"
                                 " them, found something else; the file's merge list is damaged"));
            }
            const std::string_view first = line.substr(0, space);
            const std::string_view second = line.substr(space + 1);
            joined.assign(first).append(second);
            const auto left = vocabulary.find(first);
            const auto right = vocabulary.find(second);
            const auto result = vocabulary.find(joined);
            if (!left || !right || !result) {
                throw Error(ErrorCode::corrupt,
                            text("expected merge ", rank, " to join two tokens to a third, found that its ",
                                 !left    ? "first part"
                                 : !right ? "second part"
                                          : "result",
                                 " is no token; the file's tokens and merges do not belong together"));
            }
            ranks_.insert(key(*left, *right),
                          (std::uint64_t{rank} << 32) | static_cast<std::uint32_t>(*result));
        }
    }

    /// Rank (upper half) and id of the result (lower half), nullptr where the pair does not join.
    [[nodiscard]] const std::uint64_t* find(std::int32_t left, std::int32_t right) const noexcept {
        return ranks_.find(key(left, right));
    }
    [[nodiscard]] std::size_t size() const noexcept { return ranks_.size(); }
    [[nodiscard]] std::size_t bytes_held() const noexcept { return ranks_.bytes(); }
    /// Memory that so many merges take, in bytes, at most.
    static constexpr std::size_t footprint(std::size_t merges) noexcept {
        return detail::FlatMap::footprint(merges) + alignof(std::max_align_t);
    }

private:
    static std::uint64_t key(std::int32_t left, std::int32_t right) noexcept {
        return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
    }

    detail::FlatMap ranks_;
};

/// Applies merges to words one after the other; keeps its buffers, so one object serves one thread.
class WordMerger {
public:
    explicit WordMerger(const Merges& merges) noexcept : merges_(&merges) {}

    /// Steps of the last word that left the heap: at most three for each symbol, whatever the word.
    [[nodiscard]] std::size_t steps() const noexcept { return steps_; }

    /// Joins the symbols until no merge applies, lowest rank first and leftmost among equals, and appends
    /// what remains to `ids`. A symbol of -1 joins with nothing and leaves nothing. O(n log n) in the number
    /// of symbols: a heap of candidate pairs over a linked list, in which outdated candidates are recognised
    /// when they surface.
    void merge(std::span<const std::int32_t> symbols, std::vector<std::int32_t>& ids) {
        steps_ = 0;
        const std::size_t count = symbols.size();
        nodes_.resize(count);
        heap_.clear();
        for (std::size_t i = 0; i < count; ++i) {
            nodes_[i] = {symbols[i], static_cast<std::int32_t>(i) - 1,
                         i + 1 < count ? static_cast<std::int32_t>(i + 1) : none};
        }
        for (std::size_t i = 0; i + 1 < count; ++i) offer(static_cast<std::int32_t>(i));

        while (!heap_.empty()) {
            ++steps_;
            std::pop_heap(heap_.begin(), heap_.end(), later);
            const Candidate best = heap_.back();
            heap_.pop_back();
            Node& left = node(best.left);
            if (left.id != best.left_id || left.next == none || node(left.next).id != best.right_id) continue;

            const std::uint64_t* found = merges_->find(best.left_id, best.right_id);
            Node& right = node(left.next);
            left.id = static_cast<std::int32_t>(*found & 0xffffffffu);
            left.next = right.next;
            right.id = dead;
            if (left.next != none) node(left.next).previous = best.left;
            if (left.previous != none) offer(left.previous);
            offer(best.left);
        }
        for (std::int32_t i = count == 0 ? none : 0; i != none; i = node(i).next) {
            if (node(i).id >= 0) ids.push_back(node(i).id);
        }
    }

private:
    static constexpr std::int32_t none = -1;
    static constexpr std::int32_t dead = -2;

    struct Node {
        std::int32_t id;
        std::int32_t previous;
        std::int32_t next;
    };
    struct Candidate {
        std::uint32_t rank;
        std::int32_t left;  // node
        std::int32_t left_id;
        std::int32_t right_id;
    };

    static bool later(const Candidate& a, const Candidate& b) noexcept {
        return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
    }
    Node& node(std::int32_t i) noexcept { return nodes_[static_cast<std::size_t>(i)]; }

    void offer(std::int32_t i) {
        const Node& left = node(i);
        if (left.next == none) return;
        const std::int32_t right_id = node(left.next).id;
        const std::uint64_t* found = merges_->find(left.id, right_id);
        if (found == nullptr) return;
        heap_.push_back({static_cast<std::uint32_t>(*found >> 32), i, left.id, right_id});
        std::push_heap(heap_.begin(), heap_.end(), later);
    }

    const Merges* merges_;
    std::vector<Node> nodes_;
    std::vector<Candidate> heap_;
    std::size_t steps_ = 0;
};

}  // namespace tokenizer
}  // namespace zse::inline v1
