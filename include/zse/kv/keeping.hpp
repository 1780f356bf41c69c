// SPDX-License-Identifier: Apache-2.0
// Which tokens of a sequence a group of layers keeps, and in how many pages: arithmetic on positions alone.
#pragma once

#include <zse/core/bytes.hpp>

#include <algorithm>
#include <cstdint>

namespace zse::inline v1 {
namespace kv {

/// How long the tokens of a sequence are kept by a group of layers. What is kept depends on absolute positions only,
/// never on how a prompt was cut into chunks.
///
/// A page that holds no token which any later row can see is written again: page i of a sequence and page i + ring
/// are then the same page of the pool.
struct Keeping {
    std::uint32_t page_tokens = 16;
    std::uint32_t window = 0;  ///< the model's: a row sees this many tokens, itself included; 0: all
    std::uint32_t sinks = 0;   ///< first tokens, which are never dropped; only with `recent`
    std::uint32_t recent = 0;  ///< tokens kept before the current stretch, a multiple of `cut`; 0: all
    std::uint32_t cut = 256;   ///< positions of a stretch; chunks end where one ends
    bool old = false;          ///< tokens before the recent ones have pages of their own, and are not dropped
    std::uint32_t heavy = 0;   ///< of those, only the so many that were attended to most; 0: all
    std::uint32_t step_tokens = 1;  ///< rows of one step at most: a window has to outlast them
    friend constexpr bool operator==(const Keeping&, const Keeping&) = default;

    /// Tokens below this are old (or dropped, but for the sinks) when position `position` is computed.
    [[nodiscard]] constexpr std::uint32_t boundary(std::uint32_t position) const noexcept {
        const std::uint32_t stretch = position / cut * cut;
        return recent == 0 || stretch <= recent ? 0 : stretch - recent;
    }
    [[nodiscard]] constexpr std::uint64_t sink_pages() const noexcept { return ceil_div(sinks, page_tokens); }
    /// Pages after the sinks that a sequence has at once, if it needs that many.
    [[nodiscard]] constexpr std::uint64_t ring() const noexcept {
        std::uint64_t most = ~std::uint64_t{0};
        if (recent != 0) most = (std::uint64_t{recent} + cut) / page_tokens;
        if (window != 0) {
            const std::uint32_t rows = recent != 0 ? std::min(step_tokens, cut) : step_tokens;
            most = std::min(most, ceil_div(std::uint64_t{window} - 1 + rows, page_tokens) + 1);
        }
        return most;
    }
    /// Whether page i of a sequence is one of its own, and not an earlier one written again.
    [[nodiscard]] constexpr bool own(std::uint64_t page) const noexcept {
        return page < sink_pages() || page - sink_pages() < ring();
    }
    /// The first entry of a sequence that is the same page as entry i.
    [[nodiscard]] constexpr std::uint64_t first_entry(std::uint64_t page) const noexcept {
        return own(page) ? page : sink_pages() + (page - sink_pages()) % ring();
    }
    /// Pages of a sequence of so many tokens: entries of its table, ...
    [[nodiscard]] constexpr std::uint64_t entries(std::uint64_t tokens) const noexcept {
        return ceil_div(tokens, page_tokens);
    }
    /// ... pages that it really has, ...
    [[nodiscard]] constexpr std::uint64_t pages(std::uint64_t tokens) const noexcept {
        const std::uint64_t all = entries(tokens);
        return all <= sink_pages() ? all : sink_pages() + std::min(all - sink_pages(), ring());
    }
    /// Old tokens that are kept when position `position` is computed.
    [[nodiscard]] constexpr std::uint32_t old_tokens(std::uint32_t position) const noexcept {
        if (!old) return 0;
        return heavy == 0 ? boundary(position) : std::min(boundary(position), heavy);
    }
    /// ... and pages of old tokens.
    [[nodiscard]] constexpr std::uint64_t old_pages(std::uint64_t tokens) const noexcept {
        return tokens == 0 ? 0 : old_tokens(static_cast<std::uint32_t>(tokens - 1)) / page_tokens;
    }
    /// The first page of old tokens that may be written once the tokens below `tokens` are computed: heavy tokens
    /// give their slots to heavier ones.
    [[nodiscard]] constexpr std::uint64_t first_old_written(std::uint64_t tokens) const noexcept {
        return heavy != 0 ? 0 : old_pages(tokens);
    }
};

}  // namespace kv
}  // namespace zse::inline v1
