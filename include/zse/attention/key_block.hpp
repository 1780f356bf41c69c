// SPDX-License-Identifier: Apache-2.0
// The keys of 16 tokens of a sequence, from one page or gathered from several small ones.
#pragma once

#include <zse/attention/kernels.hpp>

#include <cstring>

namespace zse::inline v1 {
namespace attention {

/// The keys of 16 tokens of one head from `token`, a multiple of 16; those at or after `end` may be anything. Pages of
/// fewer tokens are put together in `gathered`, which has room for the codes and scales of 16 tokens.
[[nodiscard]] inline KeyBlock key_block(const kv::LayerPages& from, const kv::PageIndex* pages,
                                        std::size_t kv_head, std::size_t token, std::size_t end,
                                        std::byte* gathered) noexcept {
    const kv::PageLayout& layout = from.layout;
    KeyBlock block;
    block.dim = layout.k_dim;
    if (layout.page_tokens >= KeyBlock::tokens) {
        const std::byte* at = from.head(pages[token / layout.page_tokens], kv_head);
        const std::size_t slot = token % layout.page_tokens;
        block.codes = at + slot * layout.k_piece;
        block.scales = at + layout.k_scales_at() + slot * kv::PageLayout::scale_piece;
        block.piece_stride = layout.page_tokens * layout.k_piece;
        block.scale_stride = layout.page_tokens * kv::PageLayout::scale_piece;
        return block;
    }
    block.codes = gathered;
    block.scales = gathered + KeyBlock::tokens * layout.k_code;
    block.piece_stride = KeyBlock::tokens * layout.k_piece;
    block.scale_stride = KeyBlock::tokens * kv::PageLayout::scale_piece;
    for (std::size_t t = 0; t < KeyBlock::tokens && token + t < end; ++t) {
        const std::size_t slot = (token + t) % layout.page_tokens;
        const std::byte* at = from.head(pages[(token + t) / layout.page_tokens], kv_head);
        const auto copy = [&](std::byte* to, const std::byte* piece, std::size_t pieces, std::size_t size) {
            for (std::size_t p = 0; p < pieces; ++p) {
                std::memcpy(to + (p * KeyBlock::tokens + t) * size,
                            piece + (p * layout.page_tokens + slot) * size, size);
            }
        };
        copy(gathered, at, layout.k_code / layout.k_piece, layout.k_piece);
        copy(gathered + KeyBlock::tokens * layout.k_code, at + layout.k_scales_at(),
             layout.k_scale / kv::PageLayout::scale_piece, kv::PageLayout::scale_piece);
    }
    return block;
}

}  // namespace attention
}  // namespace zse::inline v1
