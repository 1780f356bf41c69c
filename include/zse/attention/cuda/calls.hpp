// SPDX-License-Identifier: Apache-2.0
// What attention asks of a GPU: the arguments of its launches, and into how many parts a context is split. Knows no
// kernel, so that host files stay small.
#pragma once

#include <zse/attention/cuda/walk.hpp>
#include <zse/kv/cuda/calls.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// Causal attention of grouped heads, as attention::Arguments says it, over pages that device memory (or memory of the
/// host that the device reads) holds. Queries are as kv::cuda::AppendCall left them: turned where keys are. Of tokens in
/// another codec (Segment::old_pages) it knows nothing: who has such pages must not call.
struct AttendCall {
    kv::LayerPages pages;
    const kv::Segment* segments = nullptr;  ///< `[segment_count]` in device memory
    std::uint32_t segment_count = 0;
    std::uint32_t rows = 0;
    std::uint32_t most_rows = 0;                    ///< of the longest segment
    std::uint32_t most_tokens = 0;                  ///< a bound of the longest context of this step
    const std::uint32_t* segment_of_row = nullptr;  ///< `[rows]`
    const std::uint32_t* positions = nullptr;       ///< `[rows]`
    std::uint32_t window = 0;                       ///< tokens that a row sees, itself included; 0: all
    const float* q = nullptr;                       ///< `[rows, heads, k_dim]`
    std::uint64_t q_stride = 0;                     ///< floats from row to row
    std::uint32_t heads = 0;
    float scale = 1;
    float* out = nullptr;  ///< `[rows, heads, v_dim]`, dense
    std::uint32_t* greatest =
        nullptr;                ///< `[rows]`, raised to the bits of the greatest magnitude of each row of out
    float* partials = nullptr;  ///< partial states of split contexts
    std::uint64_t partials_floats = 0;
    std::uint32_t splits = 1;  ///< of one context, see splits(); 1: none
    bool invariant = false;    ///< the bits of a row depend on no other sequence, and `splits` is ignored
    /// Partial states of tokens that were attended to elsewhere, such as on the host, and that these pages must not show:
    /// `[rows, heads, extra_states, v_dim + 2]`, merged before all others. Segments have at most few_rows rows then.
    const float* extra = nullptr;
    std::uint32_t extra_states = 0;

    [[nodiscard]] constexpr std::uint32_t group() const noexcept { return heads / pages.layout.kv_heads; }
};

/// One partial state: a value, the greatest score and the sum. See Partial; scores are in base 2 here, so that a greatest
/// score of the host has to be multiplied by log2(e), and nothing else. Values are turned where the codec turns them.
constexpr std::uint32_t partial_floats(std::uint32_t v_dim) noexcept {
    return v_dim + 2;
}

/// How contexts are split. Rows are computed by the kernel for few rows where their segment has at most `few_rows`, and
/// only those are split.
inline constexpr std::uint32_t few_rows = 8;
/// Rows of so many segments that are split at once.
constexpr std::size_t split_rows(std::size_t segments) noexcept {
    return segments * few_rows;
}
/// More parts than this would take longer to merge than to compute.
inline constexpr std::uint32_t most_splits = 64;
/// Where bits may not depend on other sequences: enough parts that one sequence with 8 key heads fills an H200 (132
/// multiprocessors), few enough that the room for partial states stays small.
inline constexpr std::uint32_t invariant_splits = 16;

/// Query heads of a key head that share a tile: each takes two of the 16 rows of a product, see DecodeKernel.
inline constexpr std::uint32_t tile_queries = 8;

/// Parts of a context that keep all multiprocessors busy, for AttendCall::splits. It depends on what a step's plan
/// knows, not on the lengths of its sequences: a captured graph keeps it.
constexpr std::uint32_t splits(std::uint32_t segments, std::uint32_t kv_heads, std::uint32_t most_tokens,
                               std::uint32_t multiprocessors) noexcept {
    // Two to three blocks share a multiprocessor, and one more part than needed evens out their ends.
    constexpr std::uint32_t blocks_each = 3;
    const std::uint64_t whole = saturating_mul(segments == 0 ? 1 : segments, kv_heads);
    const std::uint64_t wanted = ceil_div(std::uint64_t{blocks_each} * multiprocessors, whole);
    const std::uint64_t possible = ceil_div(most_tokens, SplitRule::fast_tiles * TileWalk::tile_tokens);
    const std::uint64_t least = wanted < possible ? wanted : possible;
    if (least < 1) return 1;
    return static_cast<std::uint32_t>(least < most_splits ? least : most_splits);
}

/// Floats that AttendCall::partials needs for `rows` rows that may be split (at most few_rows of each segment), bounded
/// by most_splits whatever the context. Where a call has fewer, it splits less, if its bits are allowed to change.
constexpr std::uint64_t partials_floats(std::uint32_t rows, std::uint32_t heads, std::uint32_t v_dim,
                                        std::uint64_t context, bool invariant = false) noexcept {
    const std::uint32_t tiles = invariant ? SplitRule::invariant_tiles : SplitRule::fast_tiles;
    const std::uint64_t possible = ceil_div(context, std::uint64_t{tiles} * TileWalk::tile_tokens);
    const std::uint64_t most = invariant ? invariant_splits : most_splits;
    const std::uint64_t states =
        saturating_mul(saturating_mul(rows, heads), possible < most ? possible : most);
    return saturating_mul(states, partial_floats(v_dim));
}

/// The launches for one pair of codecs, bound at open.
struct CacheLaunches {
    void (*append)(exec::gpu::Stream&, const kv::cuda::AppendCall&) noexcept = nullptr;
    void (*attend)(exec::gpu::Stream&, const AttendCall&) noexcept = nullptr;
    void (*attend_reference)(exec::gpu::Stream&, const AttendCall&) noexcept = nullptr;
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
