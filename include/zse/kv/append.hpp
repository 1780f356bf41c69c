// SPDX-License-Identifier: Apache-2.0
// Turns keys by RoPE and writes keys and values into pages, row by row, before anything attends to them.
#pragma once

#include <zse/exec/executor.hpp>
#include <zse/kernels/cpu/row_ops.hpp>
#include <zse/kv/decode.hpp>
#include <zse/kv/page.hpp>

#include <cstring>
#include <span>

namespace zse::inline v1 {
namespace kv {

/// The functions of a KV codec for one side (K or V), bound once at open: keys and values are instantiated
/// apart.
struct SideKernels {
    void (*encode)(const float* row, std::size_t dim, std::byte* codes, std::byte* scales) noexcept;
    /// Decodes `tokens` consecutive tokens of a page to rows that are `stride` floats apart.
    void (*decode)(const std::byte* codes, const std::byte* scales, std::size_t tokens, std::size_t dim,
                   float* rows, std::size_t stride) noexcept;
    bool rotates;
};

namespace detail {

template <KvCodec C>
void encode_turned(const float* row, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
    if constexpr (C::rotates) {
        float turned[1024];  // ModelSpec allows no longer head
        std::memcpy(turned, row, dim * sizeof(float));
        rotate(turned, dim);
        C::encode(turned, dim, codes, scales);
    } else {
        C::encode(row, dim, codes, scales);
    }
}

}  // namespace detail

template <KvCodec C>
inline constexpr SideKernels side_kernels{&detail::encode_turned<C>, &cpu::decode_tokens<C>, C::rotates};

/// One layer's cache as operations use it.
struct LayerCache {
    LayerPages pages;
    const SideKernels* k = nullptr;
    const SideKernels* v = nullptr;
};

/// The rows of a batch by sequence. Positions are absolute.
struct BatchRows {
    std::span<const Segment> segments;
    const std::uint32_t* segment_of_row = nullptr;  ///< `[rows]`
    const std::uint32_t* positions = nullptr;       ///< `[rows]`
    std::size_t rows = 0;
};

/// Applies RoPE to queries and keys in place, and appends keys and values to their pages.
struct RopeAppend {
    BatchRows batch;
    LayerCache cache;
    float* q = nullptr;  ///< `[rows, heads, head_dim]`, `row_stride` floats from row to row; k and v likewise
    float* k = nullptr;
    const float* v = nullptr;
    std::size_t row_stride = 0;
    std::size_t heads = 0;
    const float* cosines = nullptr;  ///< `[rows, pairs]`
    const float* sines = nullptr;
    std::size_t pairs = 0;
    kernels::RopePairs order = kernels::RopePairs::neighbours;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return batch.rows; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t row, const exec::Worker& /*worker*/) const noexcept {
        const PageLayout& layout = cache.pages.layout;
        const float* cosine = cosines + row * pairs;
        const float* sine = sines + row * pairs;
        for (std::size_t head = 0; head < heads; ++head) {
            kernels::cpu::rope(q + row * row_stride + head * layout.k_dim, pairs, cosine, sine, order);
        }
        const Segment& segment = batch.segments[batch.segment_of_row[row]];
        const std::uint32_t position = batch.positions[row];
        const PageIndex page = segment.pages[position / layout.page_tokens];
        const std::size_t slot = position % layout.page_tokens;
        for (std::size_t head = 0; head < layout.kv_heads; ++head) {
            std::byte* at = cache.pages.head(page, head);
            float* key = k + row * row_stride + head * layout.k_dim;
            kernels::cpu::rope(key, pairs, cosine, sine, order);
            cache.k->encode(key, layout.k_dim, at + slot * layout.k_code,
                            at + layout.k_scales_at() + slot * layout.k_scale);
            cache.v->encode(v + row * row_stride + head * layout.v_dim, layout.v_dim,
                            at + layout.v_codes_at() + slot * layout.v_code,
                            at + layout.v_scales_at() + slot * layout.v_scale);
        }
    }
};

}  // namespace kv
}  // namespace zse::inline v1
