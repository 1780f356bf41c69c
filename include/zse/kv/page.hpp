// SPDX-License-Identifier: Apache-2.0
// A page of the KV cache: the tokens of all layers of a group, laid out the same in every tier.
#pragma once

#include <zse/kv/codec.hpp>

#include <cstdint>

namespace zse::inline v1 {
namespace kv {

/// `[layer][kv_head][K codes | K scales | V codes | V scales]`, each part padded to 16 bytes, so that every part can be
/// read by 16-byte loads. Values lie token by token. Keys interleave the tokens of the page, piece by piece
/// (`[pieces][page_tokens][k_piece]`): so a vector holds one piece of many tokens, and scores need no sums across lanes.
/// Scales of both are interleaved, `[groups][page_tokens]`: they meet the scores and weights of many tokens at once.
struct PageLayout {
    std::uint32_t page_tokens = 16;
    std::uint32_t layers = 0;
    std::uint32_t kv_heads = 0;
    std::uint32_t k_dim = 0;
    std::uint32_t v_dim = 0;
    std::uint32_t k_code = 0;  ///< bytes of one token's K codes of one head; the three below likewise
    std::uint32_t k_scale = 0;
    std::uint32_t v_code = 0;
    std::uint32_t v_scale = 0;
    std::uint32_t k_piece = 2;  ///< bytes of a token's K codes that lie together

    static constexpr std::size_t scale_piece = 2;  ///< a half-precision scale
    static constexpr Bytes part_alignment = 16;

    /// The layout of `layers` equal layers with keys in K and values in V.
    template <KvCodec K, KvCodec V>
    static constexpr PageLayout of(std::uint32_t page_tokens, std::uint32_t layers, std::uint32_t kv_heads,
                                   std::uint32_t k_dim, std::uint32_t v_dim) noexcept {
        return {page_tokens,
                layers,
                kv_heads,
                k_dim,
                v_dim,
                static_cast<std::uint32_t>(K::code_bytes(k_dim)),
                static_cast<std::uint32_t>(K::scale_bytes(k_dim)),
                static_cast<std::uint32_t>(V::code_bytes(v_dim)),
                static_cast<std::uint32_t>(V::scale_bytes(v_dim)),
                static_cast<std::uint32_t>(K::piece)};
    }

    [[nodiscard]] constexpr Bytes part(std::uint32_t token_bytes) const noexcept {
        return round_up(static_cast<Bytes>(token_bytes) * page_tokens, part_alignment);
    }
    [[nodiscard]] constexpr Bytes k_scales_at() const noexcept { return part(k_code); }
    [[nodiscard]] constexpr Bytes v_codes_at() const noexcept { return k_scales_at() + part(k_scale); }
    [[nodiscard]] constexpr Bytes v_scales_at() const noexcept { return v_codes_at() + part(v_code); }
    [[nodiscard]] constexpr Bytes head_bytes() const noexcept { return v_scales_at() + part(v_scale); }
    [[nodiscard]] constexpr Bytes layer_bytes() const noexcept { return head_bytes() * kv_heads; }
    [[nodiscard]] constexpr Bytes page_bytes() const noexcept {
        return saturating_mul(layer_bytes(), layers);
    }
    /// Codes and scales of one token in all layers, without the padding of parts.
    [[nodiscard]] constexpr Bytes token_bytes() const noexcept {
        return static_cast<Bytes>(k_code + k_scale + v_code + v_scale) * kv_heads * layers;
    }
    /// Calls body(offset in the token's codes, offset in the page's K codes) for each piece of the key in `slot`.
    template <class Body>
    constexpr void for_each_key_piece(std::size_t slot, const Body& body) const noexcept {
        for (std::size_t piece = 0; piece < k_code / k_piece; ++piece) {
            body(piece * k_piece, (piece * page_tokens + slot) * k_piece);
        }
    }
    /// The same for scales: `token_bytes` is k_scale or v_scale, offsets are in the page's part of them.
    template <class Body>
    constexpr void for_each_scale(std::uint32_t token_bytes, std::size_t slot,
                                  const Body& body) const noexcept {
        for (std::size_t group = 0; group < token_bytes / scale_piece; ++group) {
            body(group * scale_piece, (group * page_tokens + slot) * scale_piece);
        }
    }
    /// Pages that hold `tokens` of one sequence.
    [[nodiscard]] constexpr std::uint64_t pages(std::uint64_t tokens) const noexcept {
        return ceil_div(tokens, page_tokens);
    }
};

/// Index of a page in its pool.
using PageIndex = std::uint32_t;

/// Where a page lies that may change its tier: its address in memory, or its slot on disk.
using PagePlace = std::uint64_t;
/// Set in the place of a page on disk; no address has this bit.
inline constexpr PagePlace place_on_disk = PagePlace{1} << 63;

/// The pages of one layer in host memory. Trivially copyable; knows nothing of sequences.
struct LayerPages {
    std::byte* pool = nullptr;  ///< first byte of this layer in page 0
    Bytes page_bytes = 0;
    PageLayout layout;
    const PagePlace* places = nullptr;  ///< `[pages]`, of whole pages; none: pages lie one after the other
    Bytes layer_at = 0;                 ///< of this layer in a page that has a place
    std::byte* staged = nullptr;        ///< this layer of the pages on disk, slot by slot
    Bytes staged_bytes = 0;             ///< from slot to slot

    [[nodiscard]] constexpr std::byte* head(PageIndex page, std::size_t kv_head) const noexcept {
        return layer(page) + kv_head * layout.head_bytes();
    }

private:
    [[nodiscard]] constexpr std::byte* layer(PageIndex page) const noexcept {
        if (places == nullptr) return pool + page * page_bytes;
        const PagePlace place = places[page];
        if ((place & place_on_disk) != 0) return staged + (place & ~place_on_disk) * staged_bytes;
        return reinterpret_cast<std::byte*>(place) + layer_at;
    }
};

/// How much attention each token of a sequence got so far, summed over rows and the query heads that share a key head:
/// `[layer][kv_head][heavy slots | recent tokens]` float32. Recent token t is at t modulo `recent`.
struct Mass {
    std::uint32_t heavy = 0;
    std::uint32_t recent = 0;  ///< tokens of the ring of recent pages; 0: nothing is summed

    [[nodiscard]] constexpr std::size_t tokens() const noexcept { return std::size_t{heavy} + recent; }
    [[nodiscard]] constexpr std::size_t floats(const PageLayout& layout) const noexcept {
        return tokens() * layout.layers * layout.kv_heads;
    }
};

/// Rows of one sequence in a batch: consecutive tokens from `first_position`, and the pages of the whole
/// sequence in one group of layers.
struct Segment {
    std::uint32_t first_row = 0;  ///< row of the batch
    std::uint32_t rows = 0;
    std::uint32_t first_position = 0;  ///< absolute position of the first row
    const PageIndex* pages = nullptr;  ///< `[ceil((first_position + rows) / page_tokens)]`
    const PageIndex* old_pages =
        nullptr;                 ///< `[old_tokens / page_tokens]` in the pool of old tokens, if there is one
    std::uint32_t boundary = 0;  ///< tokens below are in old_pages; without those they are gone, but for ...
    std::uint32_t sinks = 0;     ///< ... the first ones
    std::uint32_t old_tokens = 0;  ///< slots of old_pages that hold a token
    float* mass = nullptr;  ///< how much each token was attended to (see Mass), where heavy ones are kept
};

}  // namespace kv
}  // namespace zse::inline v1
