// SPDX-License-Identifier: Apache-2.0
// The way of 32 tokens of one key head from pages to shared memory, by one warp.
#pragma once

#include <zse/attention/cuda/walk.hpp>
#include <zse/kv/cuda/kind.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// How the keys and values of 32 tokens lie in shared memory: keys `[piece][32]`, scales `[group][32]` and values
/// `[32][v_code]` as in a page of 32 tokens, so that pages are copied by 16 bytes whatever the codec. Lanes that read
/// together read pieces 4 s + q of keys and tokens 8 q + i of values (q = lane % 4): both would meet in few banks, so
/// keys are permuted and values padded by Tile's two rules.
template <class K, class V, unsigned Dim>
struct Tile {
    static constexpr unsigned tokens = TileWalk::tile_tokens;
    static constexpr unsigned chunk = sizeof(exec::gpu::Chunk);

    static constexpr auto k_code = static_cast<unsigned>(K::code_bytes(Dim));
    static constexpr auto v_code = static_cast<unsigned>(V::code_bytes(Dim));
    static constexpr auto piece = static_cast<unsigned>(K::piece);
    static constexpr unsigned k_groups = static_cast<unsigned>(K::scale_bytes(Dim)) / 2;
    static constexpr unsigned v_groups = static_cast<unsigned>(V::scale_bytes(Dim)) / 2;
    static constexpr unsigned row_chunks = tokens * piece / chunk;  ///< of keys: one piece of all tokens
    static constexpr unsigned value_chunks = v_code / chunk;        ///< of one token
    static constexpr unsigned scale_chunks = tokens * 2 / chunk;    ///< of one group

    /// Where scales and values begin in a page, for each of its tokens.
    static constexpr unsigned k_scales_of_token = k_code;
    static constexpr unsigned v_codes_of_token = k_code + k_groups * 2;
    static constexpr unsigned v_scales_of_token = v_codes_of_token + v_code;

    static constexpr unsigned pad = 2 * chunk;  ///< of values, after each 8 tokens
    static constexpr unsigned k_scales_at = k_code * tokens;
    static constexpr unsigned key_bytes = k_scales_at + k_groups * tokens * 2;
    static constexpr unsigned v_scales_at = v_code * tokens + tokens / 8 * pad;
    static constexpr unsigned value_bytes = v_scales_at + v_groups * tokens * 2;

    static_assert(v_code % chunk == 0 && k_code % chunk == 0);

    /// Where chunk x of the keys lies: rows 4 s + q, q = 0 to 3, begin 2 q chunks apart modulo the 8 of all banks.
    static constexpr unsigned key_chunk(unsigned x) noexcept { return x ^ ((x >> 3 & 3u) << 1); }
    /// Where byte `offset` of the value of a token lies.
    static constexpr unsigned value_at(unsigned token, unsigned offset) noexcept {
        return token * v_code + token / 8 * pad + offset;
    }
};

/// The pages of a segment, for one key head. Where a page's parts begin is a number of bytes for each of its tokens: pages
/// of 16 or 32 tokens need no padding.
struct HeadPages {
    const kv::LayerPages* pages = nullptr;
    const kv::PageIndex* list = nullptr;
    std::uint32_t kv_head = 0;
    Present present;

    static constexpr HeadPages of(const kv::LayerPages& pages, const kv::Segment& segment,
                                  std::uint32_t kv_head) noexcept {
        return {&pages, segment.pages, kv_head, Present::of(segment)};
    }
    [[nodiscard]] constexpr std::uint32_t page_tokens() const noexcept { return pages->layout.page_tokens; }
};

/// Addresses of the one or two pages of a tile; 0 where nothing of a page is there, so that it must not be read.
struct TilePlace {
    std::uint64_t heads[2] = {0, 0};

    template <class T>
    ZSE_DEVICE static TilePlace of(T& t, const HeadPages& from, std::uint32_t tile) {
        TilePlace place;
        const std::uint32_t first = tile * TileWalk::tile_tokens;
        ZSE_UNROLL
        for (unsigned h = 0; h < 2; ++h) {
            const std::uint32_t token = first + h * from.page_tokens();
            if (token >= first + TileWalk::tile_tokens) continue;
            if (!from.present.any(token, from.page_tokens())) continue;
            const kv::PageIndex page = t.load(from.list + token / from.page_tokens());
            place.heads[h] = reinterpret_cast<std::uint64_t>(from.pages->head(page, from.kv_head));
        }
        return place;
    }
};

/// Asynchronous copies of one tile by all lanes of a warp. Who calls commits.
template <class K, class V, unsigned Dim>
struct TileCopy {
    using Layout = Tile<K, V, Dim>;
    static constexpr unsigned lanes = exec::gpu::warp_threads;

    /// Keys and their scales to `to`, `[Layout::key_bytes]`.
    template <class T, class Shared>
    ZSE_DEVICE static void keys(T& t, const HeadPages& from, const TilePlace& place, Shared to) {
        constexpr unsigned rows = lanes / Layout::row_chunks;  // that the warp copies at once
        const unsigned column = t.lane() % Layout::row_chunks * Layout::chunk;
        const unsigned page_row = from.page_tokens() * Layout::piece;
        const bool second = column >= page_row;
        const std::uint64_t head = second ? place.heads[1] : place.heads[0];
        // One address that moves on: as many addresses as copies would take the registers of the caller.
        std::uint64_t source =
            head + t.lane() / Layout::row_chunks * page_row + (second ? column - page_row : column);
        ZSE_UNROLL
        for (unsigned i = 0; i < Layout::k_code * Layout::tokens / Layout::chunk / lanes; ++i) {
            t.copy_async(to.from(i * lanes + Layout::key_chunk(t.lane())), at(source), head != 0);
            source += rows * page_row;
        }
        scales<Layout::k_groups>(t, from, place, Layout::k_scales_of_token,
                                 to.from(Layout::k_scales_at / Layout::chunk));
    }
    /// Values and their scales, `[Layout::value_bytes]`. Halves of tokens that are not there become zeros: what no
    /// number is would outlive a weight of zero.
    template <class T, class Shared>
    ZSE_DEVICE static void values(T& t, const HeadPages& from, const TilePlace& place, std::uint32_t tile,
                                  Shared to) {
        const std::uint64_t first = values_at(from, place.heads[0]);
        // As if it began with the tokens of the first page, too.
        const std::uint64_t second =
            values_at(from, place.heads[1]) - std::uint64_t{from.page_tokens()} * Layout::v_code;
        unsigned offset = t.lane() * Layout::chunk;
        ZSE_UNROLL
        for (unsigned i = 0; i < Layout::value_chunks * Layout::tokens / lanes; ++i) {
            const unsigned x = i * lanes + t.lane();
            const unsigned token = x / Layout::value_chunks;
            const bool in_second = token >= from.page_tokens();
            bool valid = (in_second ? place.heads[1] : place.heads[0]) != 0;
            if constexpr (kv::cuda::kind<V> == kv::cuda::Kind::f16) {
                valid = valid && from.present.has(tile * Layout::tokens + token);
            }
            t.copy_async(to.from(x + token / 8 * (Layout::pad / Layout::chunk)),
                         at((in_second ? second : first) + offset), valid);
            offset += lanes * Layout::chunk;
        }
        scales<Layout::v_groups>(t, from, place, Layout::v_scales_of_token,
                                 to.from(Layout::v_scales_at / Layout::chunk));
    }

private:
    ZSE_DEVICE static const void* at(std::uint64_t address) { return reinterpret_cast<const void*>(address); }

    ZSE_DEVICE static std::uint64_t values_at(const HeadPages& from, std::uint64_t head) {
        return head + from.page_tokens() * Layout::v_codes_of_token;
    }

    template <unsigned Groups, class T, class Shared>
    ZSE_DEVICE static void scales(T& t, const HeadPages& from, const TilePlace& place, std::uint32_t part,
                                  Shared to) {
        if constexpr (Groups != 0) {
            for (unsigned x = t.lane(); x < Groups * Layout::scale_chunks; x += lanes) {
                const unsigned token = x % Layout::scale_chunks * 8;
                const bool second = token >= from.page_tokens();
                const std::uint64_t head = second ? place.heads[1] : place.heads[0];
                const unsigned group = x / Layout::scale_chunks;
                const unsigned slot = second ? token - from.page_tokens() : token;
                t.copy_async(to.from(x), at(head + from.page_tokens() * (part + group * 2) + slot * 2),
                             head != 0);
            }
        }
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
