// SPDX-License-Identifier: Apache-2.0
// The layout of a page: aligned parts of the sizes that a sum of the test's own gives, each byte with one place.
// rows: 32
#include <zse/kv/page.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace {

using namespace zse::kv;
using zse::Bytes;

/// What a page takes, by sums of the test's own: bytes of a token by part, padded to 16 for the whole page.
Bytes padded(Bytes bytes) {
    return (bytes + 15) / 16 * 16;
}

template <class K, class V>
void expect_layout(std::uint32_t dim_k, std::uint32_t dim_v, double k_bits, double v_bits) {
    for (const std::uint32_t tokens : {1u, 8u, 16u, 32u}) {
        const PageLayout layout = PageLayout::of<K, V>(tokens, 5, 3, dim_k, dim_v);
        EXPECT_EQ(static_cast<double>(layout.token_bytes()), 5 * 3 * (dim_k * k_bits + dim_v * v_bits) / 8);
        const Bytes head = padded(tokens * K::code_bytes(dim_k)) + padded(tokens * K::scale_bytes(dim_k)) +
                           padded(tokens * V::code_bytes(dim_v)) + padded(tokens * V::scale_bytes(dim_v));
        EXPECT_EQ(layout.head_bytes(), head);
        EXPECT_EQ(layout.layer_bytes(), 3 * head);
        EXPECT_EQ(layout.page_bytes(), 15 * head);
        EXPECT_GE(layout.page_bytes(), tokens * layout.token_bytes());
        for (const Bytes offset :
             {layout.k_scales_at(), layout.v_codes_at(), layout.v_scales_at(), layout.head_bytes()}) {
            EXPECT_EQ(offset % 16, 0u);
        }
        EXPECT_LE(tokens * Bytes{layout.k_code}, layout.k_scales_at());
        EXPECT_LE(layout.k_scales_at() + tokens * Bytes{layout.k_scale}, layout.v_codes_at());
        EXPECT_LE(layout.v_codes_at() + tokens * Bytes{layout.v_code}, layout.v_scales_at());
        EXPECT_LE(layout.v_scales_at() + tokens * Bytes{layout.v_scale}, layout.head_bytes());
        EXPECT_EQ(layout.pages(0), 0u);
        EXPECT_EQ(layout.pages(1), 1u);
        EXPECT_EQ(layout.pages(tokens), 1u);
        EXPECT_EQ(layout.pages(tokens + 1), 2u);
    }
}

TEST(PageLayout, PartsAreAlignedApartAndOfTheirSize) {
    expect_layout<f16, f16>(64, 64, 16, 16);
    expect_layout<f32, f32>(80, 80, 32, 32);
    expect_layout<int8<32>, int8<32>>(64, 64, 8.5, 8.5);
    expect_layout<int8<32>, int4<32>>(128, 128, 8.5, 4.5);
    expect_layout<int4<16>, f16>(80, 48, 5, 16);
}

TEST(PageLayout, DefaultTakesTwoBytesAnElement) {
    const PageLayout layout = PageLayout::of<f16, f16>(16, 30, 3, 64, 64);
    EXPECT_EQ(layout.token_bytes(), 2u * 2u * 64u * 3u * 30u);
    EXPECT_EQ(layout.page_bytes(), 16 * layout.token_bytes()) << "without padding";
}

/// Expects the pieces of all tokens to cover a part of a page once, each where a formula of the test's own has it.
template <class ForEach>
void expect_interleaved(const ForEach& for_each, std::uint32_t tokens, std::uint32_t token_bytes,
                        std::uint32_t piece) {
    std::vector<int> owners(std::size_t{tokens} * token_bytes);
    for (std::size_t slot = 0; slot < tokens; ++slot) {
        std::size_t next = 0;
        for_each(slot, [&](std::size_t in_token, std::size_t in_part) {
            EXPECT_EQ(in_token, next) << "pieces come in order";
            next += piece;
            ASSERT_LE(in_part + piece, owners.size());
            // Tokens are neighbours within a piece: a row of the part is one piece of all tokens.
            EXPECT_EQ(in_part / (piece * tokens), in_token / piece);
            EXPECT_EQ(in_part % (piece * tokens), slot * piece);
            for (std::size_t i = 0; i < piece; ++i) ++owners[in_part + i];
        });
        EXPECT_EQ(next, token_bytes);
    }
    EXPECT_EQ(std::count(owners.begin(), owners.end(), 1), static_cast<std::ptrdiff_t>(owners.size()));
}

template <class K, class V>
void expect_interleaving(std::uint32_t dim, std::uint32_t piece) {
    for (const std::uint32_t tokens : {1u, 8u, 16u, 32u}) {
        const PageLayout layout = PageLayout::of<K, V>(tokens, 1, 1, dim, dim);
        EXPECT_EQ(layout.k_piece, piece);
        expect_interleaved([&](std::size_t slot, const auto& body) { layout.for_each_key_piece(slot, body); },
                           tokens, layout.k_code, piece);
        for (const std::uint32_t token_bytes : {layout.k_scale, layout.v_scale}) {
            expect_interleaved(
                [&](std::size_t slot, const auto& body) { layout.for_each_scale(token_bytes, slot, body); },
                tokens, token_bytes, 2);
        }
    }
}

TEST(PageLayout, InterleavesKeysByWhatALaneReadsAndScalesByGroups) {
    expect_interleaving<f32, f32>(80, 4);
    expect_interleaving<f16, f16>(64, 2);
    expect_interleaving<int8<32>, int4<32>>(64, 4);
    expect_interleaving<int4<16>, int8<128>>(128, 4);
}

TEST(LayerPages, HeadsLieOneAfterTheOther) {
    const PageLayout layout = PageLayout::of<f16, f16>(8, 2, 3, 16, 16);
    std::vector<std::byte> pool(4 * layout.page_bytes());
    const LayerPages second{pool.data() + layout.layer_bytes(), layout.page_bytes(), layout};
    EXPECT_EQ(second.head(0, 0), pool.data() + layout.layer_bytes());
    EXPECT_EQ(second.head(2, 1),
              pool.data() + 2 * layout.page_bytes() + layout.layer_bytes() + layout.head_bytes());
    EXPECT_EQ(second.head(3, 2) + layout.head_bytes(), pool.data() + pool.size());
}

}  // namespace
