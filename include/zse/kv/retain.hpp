// SPDX-License-Identifier: Apache-2.0
// Chooses which tokens stay when a sequence leaves a stretch behind: those that were attended to most, head by head.
#pragma once

#include <zse/exec/executor.hpp>
#include <zse/kv/append.hpp>

#include <limits>

namespace zse::inline v1 {
namespace kv {

/// The tokens of one stretch, [first, first + count), compete with the heavy tokens that are kept already for `heavy`
/// slots, each layer and key head for itself. A token that stays keeps its slot; one that comes in takes the slot of one
/// that goes. Keys carry their positions, so slots need no order. The sums of the stretch are zeroed, since later tokens
/// take its place in the ring.
struct Retain {
    LayerCache recent;  ///< of the group's first layer
    LayerCache old;     ///< of the same layout
    const PageIndex* recent_pages = nullptr;
    const PageIndex* old_pages = nullptr;
    float* sums = nullptr;  ///< of the sequence
    Mass mass;
    std::uint32_t first = 0;
    std::uint32_t count = 0;
    std::uint32_t kept = 0;   ///< heavy tokens so far
    std::uint32_t sinks = 0;  ///< tokens below stay for ever

    [[nodiscard]] constexpr std::size_t items() const noexcept {
        return std::size_t{layout().layers} * layout().kv_heads;
    }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        const std::size_t layer = item / layout().kv_heads;
        const std::size_t head = item % layout().kv_heads;
        float* of_heavy = sums + item * mass.tokens();
        float* of_recent = of_heavy + mass.heavy;
        std::uint32_t held = kept;
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::uint32_t token = first + i;
            float& sum = of_recent[token % mass.recent];
            const float weight = token < sinks ? std::numeric_limits<float>::infinity() : sum;
            sum = 0;
            std::uint32_t slot = held;
            if (held == mass.heavy) {
                // The lightest goes; among equals the one in the lowest slot.
                slot = 0;
                for (std::uint32_t other = 1; other < held; ++other) {
                    if (of_heavy[other] < of_heavy[slot]) slot = other;
                }
                if (!(weight > of_heavy[slot])) continue;
            } else {
                ++held;
            }
            of_heavy[slot] = weight;
            LayerCache::copy_token(layout(), at(recent, recent_pages, layer, head, token),
                                   token % layout().page_tokens, at(old, old_pages, layer, head, slot),
                                   slot % layout().page_tokens);
        }
    }

private:
    [[nodiscard]] constexpr const PageLayout& layout() const noexcept { return recent.pages.layout; }
    [[nodiscard]] std::byte* at(const LayerCache& cache, const PageIndex* pages, std::size_t layer,
                                std::size_t head, std::size_t token) const noexcept {
        return cache.pages.head(pages[token / layout().page_tokens], head) + layer * layout().layer_bytes();
    }
};

}  // namespace kv
}  // namespace zse::inline v1
