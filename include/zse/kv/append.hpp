// SPDX-License-Identifier: Apache-2.0
// Turns keys by RoPE and writes keys and values into pages, row by row, before anything attends to them.
#pragma once

#include <zse/exec/executor.hpp>
#include <zse/kernels/rows.hpp>
#include <zse/kv/cuda/calls.hpp>
#include <zse/kv/kernels.hpp>
#include <zse/kv/page.hpp>
#include <zse/kv/tiered_pages.hpp>

#include <cstring>
#include <span>

namespace zse::inline v1 {
namespace kv {

/// One layer's cache as operations use it.
struct LayerCache {
    LayerPages pages;
    const SideKernels* k = nullptr;
    const SideKernels* v = nullptr;
    /// Where a GPU computes; the two above are null then.
    void (*append)(exec::gpu::Stream&, const cuda::AppendCall&) noexcept = nullptr;

    /// Encodes a key into its slot of a page, piece by piece.
    void put_key(PageIndex page, std::size_t head, std::size_t slot, const float* key) const noexcept {
        const PageLayout& layout = pages.layout;
        std::byte codes[most_head_dim * sizeof(float)];
        std::byte scales[most_scale_bytes];
        k->encode(key, layout.k_dim, codes, scales);
        std::byte* at = pages.head(page, head);
        // A constant size lets the copy become a move.
        if (layout.k_piece == 1) {
            layout.for_each_key_piece(slot, [&](std::size_t from, std::size_t to) { at[to] = codes[from]; });
        } else if (layout.k_piece == 2) {
            layout.for_each_key_piece(
                slot, [&](std::size_t from, std::size_t to) { std::memcpy(at + to, codes + from, 2); });
        } else {
            layout.for_each_key_piece(
                slot, [&](std::size_t from, std::size_t to) { std::memcpy(at + to, codes + from, 4); });
        }
        put_scales(layout.k_scale, slot, scales, at + layout.k_scales_at());
    }
    void put_value(PageIndex page, std::size_t head, std::size_t slot, const float* value) const noexcept {
        const PageLayout& layout = pages.layout;
        std::byte scales[most_scale_bytes];
        std::byte* at = pages.head(page, head);
        v->encode(value, layout.v_dim, at + layout.v_codes_at() + slot * layout.v_code, scales);
        put_scales(layout.v_scale, slot, scales, at + layout.v_scales_at());
    }
    /// Decodes the key in a slot of a page to float32.
    void get_key(PageIndex page, std::size_t head, std::size_t slot, float* key) const noexcept {
        const PageLayout& layout = pages.layout;
        std::byte codes[most_head_dim * sizeof(float)];
        std::byte scales[most_scale_bytes];
        const std::byte* at = pages.head(page, head);
        layout.for_each_key_piece(slot, [&](std::size_t to, std::size_t from) {
            std::memcpy(codes + to, at + from, layout.k_piece);
        });
        get_scales(layout.k_scale, slot, at + layout.k_scales_at(), scales);
        k->decode(codes, scales, layout.k_dim, key);
    }
    void get_value(PageIndex page, std::size_t head, std::size_t slot, float* value) const noexcept {
        const PageLayout& layout = pages.layout;
        std::byte scales[most_scale_bytes];
        const std::byte* at = pages.head(page, head);
        get_scales(layout.v_scale, slot, at + layout.v_scales_at(), scales);
        v->decode(at + layout.v_codes_at() + slot * layout.v_code, scales, layout.v_dim, value);
    }

    /// Copies a token's codes and scales of one head to a page of the same layout, as they are.
    static void copy_token(const PageLayout& layout, const std::byte* from, std::size_t from_slot,
                           std::byte* to, std::size_t to_slot) noexcept {
        const std::size_t tokens = layout.page_tokens;
        const auto interleaved = [&](std::size_t at, std::size_t pieces, std::size_t size) {
            for (std::size_t piece = 0; piece < pieces; ++piece) {
                std::memcpy(to + at + (piece * tokens + to_slot) * size,
                            from + at + (piece * tokens + from_slot) * size, size);
            }
        };
        interleaved(0, layout.k_code / layout.k_piece, layout.k_piece);
        interleaved(layout.k_scales_at(), layout.k_scale / PageLayout::scale_piece, PageLayout::scale_piece);
        std::memcpy(to + layout.v_codes_at() + to_slot * layout.v_code,
                    from + layout.v_codes_at() + from_slot * layout.v_code, layout.v_code);
        interleaved(layout.v_scales_at(), layout.v_scale / PageLayout::scale_piece, PageLayout::scale_piece);
    }

private:
    static constexpr std::size_t most_scale_bytes = most_head_dim / 16 * PageLayout::scale_piece;

    void put_scales(std::uint32_t token_bytes, std::size_t slot, const std::byte* scales,
                    std::byte* part) const noexcept {
        pages.layout.for_each_scale(token_bytes, slot, [&](std::size_t from, std::size_t to) {
            std::memcpy(part + to, scales + from, PageLayout::scale_piece);
        });
    }
    void get_scales(std::uint32_t token_bytes, std::size_t slot, const std::byte* part,
                    std::byte* scales) const noexcept {
        pages.layout.for_each_scale(token_bytes, slot, [&](std::size_t to, std::size_t from) {
            std::memcpy(scales + to, part + from, PageLayout::scale_piece);
        });
    }
};

/// The rows of a batch by sequence. Positions are absolute.
struct BatchRows {
    std::span<const Segment> segments;
    const std::uint32_t* segment_of_row = nullptr;  ///< `[rows]`
    const std::uint32_t* positions = nullptr;       ///< `[rows]`
    std::size_t rows = 0;
};

/// What a step sees of one layer: its cache, and the rows of the batch with the pages of this layer's group.
struct LayerState {
    LayerCache cache;
    LayerCache old;  ///< of tokens below a segment's boundary, where they have another codec
    BatchRows rows;
    std::uint32_t window = 0;      ///< a row sees this many tokens, itself included; 0: all
    Mass mass;                     ///< what is summed, if anything
    std::size_t mass_at = 0;       ///< floats from a segment's sums to those of this layer
    TieredPages* tiers = nullptr;  ///< pages that may lie on disk, from where attention has them staged
    std::uint32_t index = 0;       ///< of this layer among those of its group

    [[nodiscard]] constexpr bool has_old() const noexcept { return old.pages.layout.kv_heads != 0; }
};

/// Applies RoPE to queries and keys in place, and appends keys and values to their pages.
struct RopeAppend {
    const kernels::RowKernels* kernels = nullptr;
    BatchRows batch;
    LayerCache cache;
    float* q = nullptr;  ///< `[rows, heads, head_dim]`, `row_stride` floats from row to row; k and v likewise
    float* k = nullptr;
    const float* v = nullptr;
    std::size_t row_stride = 0;
    std::size_t heads = 0;
    const float* cosines = nullptr;  ///< `[rows, dim]`, as kernels::RopeAngles writes them
    const float* sines = nullptr;
    std::size_t dim = 0;
    kernels::RopePairs order = kernels::RopePairs::neighbours;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return batch.rows; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t row, const exec::Worker& /*worker*/) const noexcept {
        const PageLayout& layout = cache.pages.layout;
        const float* cosine = cosines + row * dim;
        const float* sine = sines + row * dim;
        for (std::size_t head = 0; head < heads; ++head) {
            kernels->rope(q + row * row_stride + head * layout.k_dim, dim, cosine, sine, order);
        }
        const Segment& segment = batch.segments[batch.segment_of_row[row]];
        const std::uint32_t position = batch.positions[row];
        const PageIndex page = segment.pages[position / layout.page_tokens];
        const std::size_t slot = position % layout.page_tokens;
        for (std::size_t head = 0; head < layout.kv_heads; ++head) {
            float* key = k + row * row_stride + head * layout.k_dim;
            kernels->rope(key, dim, cosine, sine, order);
            cache.put_key(page, head, slot, key);
            cache.put_value(page, head, slot, v + row * row_stride + head * layout.v_dim);
        }
    }
    [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept { return 0; }
    void enqueue(exec::gpu::Stream& stream) const noexcept {
        cache.append(stream, {cache.pages, batch.segments.data(), batch.segment_of_row, batch.positions,
                              static_cast<std::uint32_t>(batch.rows), q, k, v, row_stride,
                              static_cast<std::uint32_t>(heads), cosines, sines,
                              static_cast<std::uint32_t>(dim), order});
    }
};

}  // namespace kv
}  // namespace zse::inline v1
