// SPDX-License-Identifier: Apache-2.0
// Finds control and user-defined tokens in a text, longest first, before it is split into words.
#pragma once

#include <zse/tokenizer/flat_map.hpp>
#include <zse/tokenizer/vocabulary.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory_resource>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer {

/// A special token at [begin, end) of a text.
struct SpecialMatch {
    std::size_t begin;
    std::size_t end;
    std::int32_t id;
};

/// A trie over the special tokens. Immutable after construction.
class SpecialTokens {
public:
    explicit SpecialTokens(const Vocabulary& vocabulary,
                           std::pmr::memory_resource* memory = std::pmr::get_default_resource())
        : SpecialTokens(sizes(vocabulary), memory) {
        for (std::size_t i = 0; i < vocabulary.size(); ++i) {
            const auto id = static_cast<std::int32_t>(i);
            const TokenType type = vocabulary.type(id);
            if (!special(type) || vocabulary.bytes(id).empty()) continue;
            add(vocabulary.bytes(id), id, type == TokenType::user_defined);
        }
        std::sort(lengths_.begin(), lengths_.end(), std::greater<>());
        lengths_.erase(std::unique(lengths_.begin(), lengths_.end()), lengths_.end());
    }

    /// The special tokens in `text`, in order, without overlap. A longer one wins over a shorter one
    /// wherever both stand, and the left one among equals: so does llama.cpp, where HF's matcher takes
    /// the leftmost first. Control and unknown tokens count only with `parse_special`, user-defined ones
    /// always. Time: text times number of distinct lengths, at worst.
    void find(std::string_view text, bool parse_special, std::vector<SpecialMatch>& matches) const {
        matches.clear();
        struct Start {
            std::size_t offset;
            std::size_t longest;
        };
        std::vector<Start> starts;
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (!first_[static_cast<std::uint8_t>(text[i])]) continue;
            const std::size_t longest = walk(text.substr(i), parse_special, text.size()).end;
            if (longest > 0) starts.push_back({i, longest});
        }
        if (starts.empty()) return;

        std::vector<bool> taken(text.size());
        for (const std::size_t length : lengths_) {
            for (const Start& start : starts) {
                const std::size_t end = start.offset + length;
                // What is taken so far is no shorter than this, so it cannot hide between the two ends.
                if (length > start.longest || taken[start.offset] || taken[end - 1]) continue;
                const SpecialMatch match = walk(text.substr(start.offset), parse_special, length);
                if (match.end != length) continue;
                matches.push_back({start.offset, end, match.id});
                std::fill_n(taken.begin() + static_cast<std::ptrdiff_t>(start.offset), length, true);
            }
        }
        std::sort(matches.begin(), matches.end(),
                  [](const SpecialMatch& a, const SpecialMatch& b) { return a.begin < b.begin; });
    }

    /// Memory that the special tokens of such a vocabulary take, in bytes, at most.
    static std::size_t footprint(const VocabularyData& data) noexcept {
        Sizes sizes;
        for (std::size_t i = 0; i < std::min(data.tokens.size(), data.token_types.size()); ++i) {
            const std::int64_t type = data.token_types[i];
            if (type >= 0 && type <= 6 && special(static_cast<TokenType>(type)))
                sizes.add(data.tokens[i].size());
        }
        return detail::FlatMap::footprint(sizes.bytes) + (sizes.bytes + 1) * sizeof(Node) +
               sizes.tokens * sizeof(std::size_t) + 3 * alignof(std::max_align_t);
    }

private:
    struct Node {
        std::int32_t id = -1;
        bool always = false;
    };
    /// How much there is at most: a node and an edge for each byte.
    struct Sizes {
        std::size_t tokens = 0;
        std::size_t bytes = 0;
        void add(std::size_t length) noexcept {
            tokens += 1;
            bytes += length;
        }
    };

    SpecialTokens(const Sizes& sizes, std::pmr::memory_resource* memory)
        : edges_(sizes.bytes, memory), nodes_(memory), lengths_(memory) {
        nodes_.reserve(sizes.bytes + 1);
        nodes_.emplace_back();
        lengths_.reserve(sizes.tokens);
    }
    static bool special(TokenType type) noexcept {
        return type == TokenType::user_defined || type == TokenType::control || type == TokenType::unknown;
    }
    static Sizes sizes(const Vocabulary& vocabulary) {
        Sizes sizes;
        for (std::size_t i = 0; i < vocabulary.size(); ++i) {
            const auto id = static_cast<std::int32_t>(i);
            if (special(vocabulary.type(id))) sizes.add(vocabulary.bytes(id).size());
        }
        return sizes;
    }

    static std::uint64_t key(std::size_t node, char byte) noexcept {
        return (std::uint64_t{node} << 8) | static_cast<std::uint8_t>(byte);
    }

    void add(std::string_view bytes, std::int32_t id, bool always) {
        first_[static_cast<std::uint8_t>(bytes[0])] = true;
        lengths_.push_back(bytes.size());
        std::size_t node = 0;
        for (const char byte : bytes) {
            const std::uint64_t next = edges_.insert(key(node, byte), nodes_.size());
            if (next == nodes_.size()) nodes_.emplace_back();
            node = static_cast<std::size_t>(next);
        }
        nodes_[node] = {id, always};
    }

    /// The longest token of at most `limit` bytes with which `text` starts; end 0 where there is none.
    SpecialMatch walk(std::string_view text, bool parse_special, std::size_t limit) const noexcept {
        SpecialMatch best{0, 0, -1};
        std::size_t node = 0;
        for (std::size_t i = 0; i < std::min(limit, text.size()); ++i) {
            const std::uint64_t* next = edges_.find(key(node, text[i]));
            if (next == nullptr) break;
            node = static_cast<std::size_t>(*next);
            const Node& here = nodes_[node];
            if (here.id >= 0 && (parse_special || here.always)) best = {0, i + 1, here.id};
        }
        return best;
    }

    detail::FlatMap edges_;
    std::pmr::vector<Node> nodes_;
    std::pmr::vector<std::size_t> lengths_;
    bool first_[256] = {};
};

}  // namespace tokenizer
}  // namespace zse::inline v1
