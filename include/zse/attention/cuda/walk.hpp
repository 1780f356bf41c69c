// SPDX-License-Identifier: Apache-2.0
// Which tokens a row sees, the tiles that hold them, and how those are split: the same arithmetic for all kernels.
#pragma once

#include <zse/exec/cuda/thread.hpp>
#include <zse/kv/page.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// Tokens of a segment that are there: all up to its end, but for those that were dropped.
struct Present {
    std::uint32_t end = 0;       ///< one past the last token
    std::uint32_t sinks = 0;     ///< tokens from here ...
    std::uint32_t boundary = 0;  ///< ... to here were dropped

    static constexpr Present of(const kv::Segment& segment) noexcept {
        const bool drops = segment.old_pages == nullptr && segment.boundary > segment.sinks;
        const std::uint32_t end = segment.first_position + segment.rows;
        return {end, drops ? segment.sinks : end, drops ? segment.boundary : end};
    }
    [[nodiscard]] constexpr bool has(std::uint32_t token) const noexcept {
        return token < end && (token < sinks || token >= boundary);
    }
    /// Whether any of [first, first + count) is there.
    [[nodiscard]] constexpr bool any(std::uint32_t first, std::uint32_t count) const noexcept {
        return first < end && (first < sinks || first + count > boundary);
    }
    [[nodiscard]] constexpr bool all(std::uint32_t first, std::uint32_t count) const noexcept {
        return first + count <= end && (first + count <= sinks || first >= boundary);
    }
};

/// The first token that a row at `position` may see for the model's window.
constexpr std::uint32_t first_seen(std::uint32_t position, std::uint32_t window) noexcept {
    return window == 0 || position < window ? 0 : position + 1 - window;
}

/// The tiles of 32 absolute positions that some row at positions `from` to `to` sees, in order.
struct TileWalk {
    static constexpr std::uint32_t tile_tokens = 32;

    std::uint32_t first = 0;    ///< tile of the first token seen
    std::uint32_t before = 0;   ///< tiles from `first` on, before those that were dropped
    std::uint32_t dropped = 0;  ///< tiles of which nothing is left
    std::uint32_t count = 0;    ///< of those that are walked

    static constexpr TileWalk of(const Present& present, std::uint32_t from, std::uint32_t to,
                                 std::uint32_t window) noexcept {
        TileWalk walk;
        walk.first = first_seen(from, window) / tile_tokens;
        const std::uint32_t end = to / tile_tokens + 1;
        // Tiles [gap, resume) hold dropped tokens alone.
        std::uint32_t gap = (present.sinks + tile_tokens - 1) / tile_tokens;
        if (gap < walk.first) gap = walk.first;
        if (gap > end) gap = end;
        std::uint32_t resume = present.boundary / tile_tokens;
        if (resume > end) resume = end;
        if (resume < gap) resume = gap;
        walk.before = gap - walk.first;
        walk.dropped = resume - gap;
        walk.count = walk.before + (end - resume);
        return walk;
    }
    [[nodiscard]] constexpr std::uint32_t tile(std::uint32_t i) const noexcept {
        return first + i + (i < before ? 0 : dropped);
    }
};

/// A context of `count` tiles in at most `most` parts of equally many tiles, a multiple of `quantum`. Where bits may not
/// depend on other sequences, both are constants.
struct SplitRule {
    static constexpr std::uint32_t fast_tiles = 4;       ///< a tile for each warp of a block
    static constexpr std::uint32_t invariant_tiles = 8;  ///< 256 tokens, as on the processor

    std::uint32_t most = 1;
    std::uint32_t quantum = fast_tiles;

    [[nodiscard]] constexpr std::uint32_t tiles_each(std::uint32_t count) const noexcept {
        const std::uint32_t each = (count + most - 1) / most;
        const std::uint32_t whole = (each + quantum - 1) / quantum * quantum;
        return whole == 0 ? quantum : whole;
    }
    /// Parts that have tiles.
    [[nodiscard]] constexpr std::uint32_t parts(std::uint32_t count) const noexcept {
        const std::uint32_t each = tiles_each(count);
        return (count + each - 1) / each;
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
