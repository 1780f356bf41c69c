// SPDX-License-Identifier: Apache-2.0
// Sums how much attention each token gets, so that a cache with a cap can keep the tokens that matter (heavy hitters:
// Zhang et al., arXiv 2306.14048).
#pragma once

#include <zse/attention/arguments.hpp>
#include <zse/attention/key_block.hpp>

namespace zse::inline v1 {
namespace attention {

/// Adds the softmax weights of every row of a batch to the sums of its sequence (kv::Mass). Rows are added one after the
/// other, in order of position, so the sums do not depend on how a prompt was cut into chunks.
struct Weigh {
    Arguments arguments;
    kv::Mass mass;
    std::size_t mass_at = 0;

    /// An item is one segment and one key head.
    [[nodiscard]] constexpr std::size_t items() const noexcept {
        return arguments.batch.segments.size() * layout().kv_heads;
    }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept {
        const std::size_t queries = arguments.group();
        return (queries * (room() + query_floats()) + layout().k_dim + 16) * sizeof(float) + gathered_bytes();
    }
    void run(std::size_t item, const exec::Worker& worker) const noexcept {
        const kv::Segment& segment = arguments.batch.segments[item / layout().kv_heads];
        const std::size_t kv_head = item % layout().kv_heads;
        const std::size_t queries = arguments.group();
        auto* scores = reinterpret_cast<float*>(worker.scratch);
        auto* prepared = reinterpret_cast<std::byte*>(scores + queries * room());
        float* query = scores + queries * (room() + query_floats());
        auto* gathered = reinterpret_cast<std::byte*>(query + layout().k_dim + 16);
        float* sums = segment.mass + mass_at + kv_head * mass.tokens();
        const std::size_t query_bytes = arguments.kernels.keys->query_bytes(layout().k_dim);
        for (std::size_t row = 0; row < segment.rows; ++row) {
            const std::size_t position = segment.first_position + row;
            for (std::size_t i = 0; i < queries; ++i) {
                arguments.load_query(segment.first_row + row, kv_head * queries + i,
                                     arguments.cache.k->rotates, query);
                arguments.kernels.keys->prepare(query, layout().k_dim, prepared + i * query_bytes);
            }
            // Heavy tokens first, then the recent ones from the boundary on.
            const std::size_t old = segment.old_tokens;
            score(arguments.old_cache.pages, segment.old_pages, kv_head, 0, old, prepared, gathered, scores);
            score(arguments.cache.pages, segment.pages, kv_head, segment.boundary, position + 1, prepared,
                  gathered, scores + old);
            const std::size_t count = old + position + 1 - segment.boundary;
            for (std::size_t i = 0; i < queries; ++i) {
                float* weights = scores + i * room();
                const float share = 1.0f / arguments.kernels.softmax->softmax(weights, count).sum;
                for (std::size_t t = 0; t < old; ++t) sums[t] += weights[t] * share;
                float* recent = sums + mass.heavy;
                std::size_t at = segment.boundary % mass.recent;
                for (std::size_t t = old; t < count; ++t) {
                    recent[at] += weights[t] * share;
                    if (++at == mass.recent) at = 0;
                }
            }
        }
    }

private:
    [[nodiscard]] constexpr const kv::PageLayout& layout() const noexcept {
        return arguments.cache.pages.layout;
    }
    /// Floats of the scores of one query: all tokens that are kept, and a block of keys beyond.
    [[nodiscard]] constexpr std::size_t room() const noexcept {
        return round_up(mass.tokens() + 2 * KeyBlock::tokens, KeyBlock::tokens);
    }
    /// No prepared query is larger.
    [[nodiscard]] constexpr std::size_t query_floats() const noexcept { return round_up(layout().k_dim, 16); }
    [[nodiscard]] constexpr std::size_t gathered_bytes() const noexcept {
        return round_up(KeyBlock::tokens * (layout().k_code + layout().k_scale + 16), 64);
    }
    /// Scores of tokens [first, last) of a sequence, which begin where a page does.
    void score(const kv::LayerPages& pages, const kv::PageIndex* table, std::size_t kv_head,
               std::size_t first, std::size_t last, const std::byte* queries, std::byte* gathered,
               float* scores) const noexcept {
        for (std::size_t token = first; token < last; token += KeyBlock::tokens) {
            const KeyBlock keys = key_block(pages, table, kv_head, token, last, gathered);
            arguments.kernels.keys->score(keys, queries, arguments.group(), scores + (token - first), room());
        }
    }
};

}  // namespace attention
}  // namespace zse::inline v1
