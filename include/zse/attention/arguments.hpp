// SPDX-License-Identifier: Apache-2.0
// What every attention kernel is given: queries of a ragged batch, and one layer of the cache.
#pragma once

#include <zse/kv/append.hpp>

#include <algorithm>

namespace zse::inline v1 {
namespace attention {

/// Causal attention of grouped heads: query head h reads key head h / (heads / kv_heads), tokens 0 to its own
/// position.
struct Arguments {
    kv::BatchRows batch;
    kv::LayerCache cache;
    const float* q = nullptr;  ///< `[rows, heads, k_dim]`, `q_stride` floats from row to row
    std::size_t q_stride = 0;
    float* out = nullptr;  ///< `[rows, heads, v_dim]`, dense
    std::size_t heads = 0;
    std::size_t most_tokens = 0;  ///< longest context of a sequence: sizes scratch where a kernel needs it
    std::size_t most_rows = 0;    ///< longest segment of this batch

    [[nodiscard]] constexpr std::size_t group() const noexcept { return heads / cache.pages.layout.kv_heads; }
    /// Scores are multiplied by this: 1 / sqrt(k_dim).
    [[nodiscard]] float scale() const noexcept {
        return 1.0f / std::sqrt(static_cast<float>(cache.pages.layout.k_dim));
    }

    /// Copies query head `head` of `row` to `to`, scaled, and turned if the keys are.
    void load_query(std::size_t row, std::size_t head, float* to) const noexcept {
        const std::size_t dim = cache.pages.layout.k_dim;
        const float* from = q + row * q_stride + head * dim;
        for (std::size_t i = 0; i < dim; ++i) to[i] = from[i] * scale();
        if (cache.k->rotates) kv::rotate(to, dim);
    }
    /// Writes value / sum as output head `head` of `row`, turned back if the values were.
    void store_output(std::size_t row, std::size_t head, const float* value, float sum) const noexcept {
        const std::size_t dim = cache.pages.layout.v_dim;
        float* to = out + (row * heads + head) * dim;
        for (std::size_t i = 0; i < dim; ++i) to[i] = value[i] / sum;
        if (cache.v->rotates) kv::rotate(to, dim);
    }
    /// Decodes keys of tokens [first, last) of a sequence to rows `stride` floats apart; across pages.
    void load_keys(const kv::Segment& segment, std::size_t kv_head, std::size_t first, std::size_t last,
                   float* rows, std::size_t stride) const noexcept {
        const kv::PageLayout& layout = cache.pages.layout;
        for_each_page(segment, kv_head, first, last,
                      [&](const std::byte* at, std::size_t slot, std::size_t done, std::size_t count) {
                          cache.k->decode(at + slot * layout.k_code,
                                          at + layout.k_scales_at() + slot * layout.k_scale, count,
                                          layout.k_dim, rows + done * stride, stride);
                      });
    }
    void load_values(const kv::Segment& segment, std::size_t kv_head, std::size_t first, std::size_t last,
                     float* rows, std::size_t stride) const noexcept {
        const kv::PageLayout& layout = cache.pages.layout;
        for_each_page(segment, kv_head, first, last,
                      [&](const std::byte* at, std::size_t slot, std::size_t done, std::size_t count) {
                          cache.v->decode(at + layout.v_codes_at() + slot * layout.v_code,
                                          at + layout.v_scales_at() + slot * layout.v_scale, count,
                                          layout.v_dim, rows + done * stride, stride);
                      });
    }

private:
    template <class Body>
    void for_each_page(const kv::Segment& segment, std::size_t kv_head, std::size_t first, std::size_t last,
                       const Body& body) const noexcept {
        const std::size_t page_tokens = cache.pages.layout.page_tokens;
        for (std::size_t token = first; token < last;) {
            const std::size_t slot = token % page_tokens;
            const std::size_t count = std::min(page_tokens - slot, last - token);
            body(cache.pages.head(segment.pages[token / page_tokens], kv_head), slot, token - first, count);
            token += count;
        }
    }
};

}  // namespace attention
}  // namespace zse::inline v1
