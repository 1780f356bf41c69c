// SPDX-License-Identifier: Apache-2.0
// What every attention kernel is given: queries of a ragged batch, and one layer of the cache.
#pragma once

#include <zse/attention/cuda/calls.hpp>
#include <zse/attention/kernels.hpp>
#include <zse/kv/append.hpp>

#include <algorithm>

namespace zse::inline v1 {
namespace attention {

/// The kernels of one layer: for all its tokens, or for the recent ones and for the old.
struct LayerKernels {
    CacheKernels recent;
    CacheKernels old;
};

/// Causal attention of grouped heads: query head h reads key head h / (heads / kv_heads), tokens 0 to its own
/// position; fewer with a window, or where some were dropped (see kv::Keeping).
struct Arguments {
    kv::BatchRows batch;
    kv::LayerCache cache;
    kv::LayerCache old_cache;  ///< of a segment's tokens below its boundary, where they have another codec
    CacheKernels kernels;
    CacheKernels old_kernels;
    std::uint32_t window = 0;  ///< tokens that a row sees, itself included; 0: all
    const float* q = nullptr;  ///< `[rows, heads, k_dim]`, `q_stride` floats from row to row
    std::size_t q_stride = 0;
    float* out = nullptr;       ///< `[rows, heads, v_dim]`, dense
    float* partials = nullptr;  ///< room for partial states, as many floats as the policy asks for
    std::size_t heads = 0;
    std::size_t most_tokens = 0;  ///< longest context of a sequence: sizes scratch where a kernel needs it
    std::size_t most_rows = 0;    ///< longest segment of this batch
    std::uint32_t* greatest =
        nullptr;               ///< on a device: `[rows]`, raised to the greatest magnitude of each row of out
    std::size_t segments = 0;  ///< most of them in a step, for the room that a device's partial states take
    bool invariant = false;    ///< on a device: the bits of a row depend on no other row
    std::size_t threads = 1;   ///< of the team: decides whether one sequence is spread over several

    [[nodiscard]] constexpr std::size_t group() const noexcept { return heads / cache.pages.layout.kv_heads; }
    /// Scores are multiplied by this: 1 / sqrt(k_dim).
    [[nodiscard]] float scale() const noexcept {
        return 1.0f / std::sqrt(static_cast<float>(cache.pages.layout.k_dim));
    }

    /// The first token that a row at `position` may see for the model's window.
    [[nodiscard]] constexpr std::size_t first_seen(std::size_t position) const noexcept {
        return window == 0 || position < window ? 0 : position + 1 - window;
    }
    /// Copies query head `head` of `row` to `to`, scaled, and turned if the keys are.
    void load_query(std::size_t row, std::size_t head, bool turned, float* to) const noexcept {
        const std::size_t dim = cache.pages.layout.k_dim;
        const float* from = q + row * q_stride + head * dim;
        const float factor = scale();
        for (std::size_t i = 0; i < dim; ++i) to[i] = from[i] * factor;
        if (turned) cache.k->rotate(to, dim);
    }
    /// Room for the partial states of the rows that a device splits at once.
    [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept {
        const auto v_dim = cache.pages.layout.v_dim;
        const std::size_t rows = std::min<std::size_t>(most_rows, cuda::split_rows(segments));
        std::uint64_t floats = 0;
        for (const bool each : {false, true}) {
            floats = std::max(
                floats, cuda::partials_floats(static_cast<std::uint32_t>(rows),
                                              static_cast<std::uint32_t>(heads), v_dim, most_tokens, each));
        }
        return workspace_reserved + floats * sizeof(float);
    }
    /// Enqueues `launch` for all segments. Where bits of a row may not depend on others, each row is a segment of its own,
    /// cuda::split_rows() of them go at once, and their first_row counts within those.
    void enqueue(exec::gpu::Stream& stream,
                 void (*launch)(exec::gpu::Stream&, const cuda::AttendCall&) noexcept) const noexcept {
        cuda::AttendCall c = call(stream);
        if (!invariant) return launch(stream, c);
        const auto all = static_cast<std::uint32_t>(batch.segments.size());
        const auto at_once = static_cast<std::uint32_t>(cuda::split_rows(segments));
        for (std::uint32_t first = 0; first < all; first += at_once) {
            const std::size_t width = heads * cache.pages.layout.v_dim;
            c.segment_count = c.rows = std::min(at_once, all - first);
            c.segments = batch.segments.data() + first;
            c.positions = batch.positions + first;
            c.q = q + first * q_stride;
            c.out = out + first * width;
            c.greatest = greatest + first;
            launch(stream, c);
        }
    }
    /// The call for a device, without what a policy adds.
    [[nodiscard]] cuda::AttendCall call(exec::gpu::Stream& stream) const noexcept {
        const kv::PageLayout& layout = cache.pages.layout;
        cuda::AttendCall c;
        c.pages = cache.pages;
        c.segments = batch.segments.data();
        c.segment_count = static_cast<std::uint32_t>(batch.segments.size());
        c.rows = static_cast<std::uint32_t>(batch.rows);
        c.most_rows = static_cast<std::uint32_t>(most_rows);
        c.most_tokens = static_cast<std::uint32_t>(most_tokens);
        c.segment_of_row = batch.segment_of_row;
        c.positions = batch.positions;
        c.window = window;
        c.q = q;
        c.q_stride = q_stride;
        c.heads = static_cast<std::uint32_t>(heads);
        c.scale = scale();
        c.out = out;
        c.greatest = greatest;
        c.partials = reinterpret_cast<float*>(stream.workspace() + workspace_reserved);
        c.partials_floats = (stream.workspace_bytes() - workspace_reserved) / sizeof(float);
        c.splits = cuda::splits(c.segment_count, layout.kv_heads, c.most_tokens, stream.multiprocessors());
        c.invariant = invariant;
        return c;
    }
    /// Counters of other operations, which stay zero (see exec::gpu::Stream::set_workspace).
    static constexpr Bytes workspace_reserved = exec::gpu::workspace_zeros;

    /// Writes value / sum as output head `head` of `row`, turned back if the values were.
    void store_output(std::size_t row, std::size_t head, const float* value, float sum) const noexcept {
        const std::size_t dim = cache.pages.layout.v_dim;
        float* to = out + (row * heads + head) * dim;
        for (std::size_t i = 0; i < dim; ++i) to[i] = value[i] / sum;
        if (cache.v->rotates) cache.v->rotate(to, dim);
    }
};

}  // namespace attention
}  // namespace zse::inline v1
