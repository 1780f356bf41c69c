// SPDX-License-Identifier: Apache-2.0
// Appending writes, through any page table, what decoding reads: keys turned by RoPE, and values as they are.
// rows: 32
#include <zse/kv/append.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

namespace {

using namespace zse::kv;
using zse::kernels::RopePairs;

std::vector<float> gaussian(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

/// A row through a codec, turned before and still turned afterwards where the codec says so.
template <class C>
std::vector<float> through(std::vector<float> row) {
    if (C::rotates) rotate(row.data(), row.size());
    std::vector<std::byte> codes(C::code_bytes(row.size()));
    std::vector<std::byte> scales(C::scale_bytes(row.size()));
    C::encode(row.data(), row.size(), codes.data(), scales.data());
    C::decode(codes.data(), scales.data(), row.size(), row.data());
    return row;
}

template <class K, class V>
void expect_written(RopePairs order, std::uint32_t page_tokens) {
    constexpr std::uint32_t dim = 64;
    constexpr std::uint32_t kv_heads = 2;
    constexpr std::size_t heads = 4;
    constexpr std::size_t pairs = 24;  // a part of the head
    constexpr std::size_t stride = (heads + 2 * kv_heads) * dim;
    const PageLayout layout = PageLayout::of<K, V>(page_tokens, 2, kv_heads, dim, dim);
    // Two sequences: ten rows from position 0, and three from position 40, in pages of mixed order.
    std::vector<PageIndex> first_pages, second_pages;
    for (PageIndex page = 0; page < 50; ++page)
        (page % 2 == 0 ? first_pages : second_pages).push_back(49 - page);
    second_pages.resize(25);
    for (PageIndex page = 50; page < 70; ++page) second_pages.push_back(page);
    const std::vector<Segment> segments{{0, 10, 0, first_pages.data()}, {10, 3, 40, second_pages.data()}};
    std::vector<std::uint32_t> segment_of_row, positions;
    for (std::uint32_t s = 0; s < 2; ++s) {
        for (std::uint32_t i = 0; i < segments[s].rows; ++i) {
            segment_of_row.push_back(s);
            positions.push_back(segments[s].first_position + i);
        }
    }
    std::vector<std::byte> pool(70 * layout.page_bytes(), std::byte{0x5a});
    auto rows = gaussian(13 * stride, 1);
    const auto before = rows;
    std::vector<float> cosines(13 * pairs), sines(13 * pairs);
    for (std::size_t r = 0; r < 13; ++r) {
        zse::kernels::cpu::rope_angles(positions[r], 10000.0f, 1.0f, pairs, nullptr,
                                       cosines.data() + r * pairs, sines.data() + r * pairs);
    }
    RopeAppend op;
    op.batch = {segments, segment_of_row.data(), positions.data(), 13};
    // The second of two layers.
    op.cache = {{pool.data() + layout.layer_bytes(), layout.page_bytes(), layout},
                &side_kernels<K>,
                &side_kernels<V>};
    op.q = rows.data();
    op.k = rows.data() + heads * dim;
    op.v = rows.data() + (heads + kv_heads) * dim;
    op.row_stride = stride;
    op.heads = heads;
    op.cosines = cosines.data();
    op.sines = sines.data();
    op.pairs = pairs;
    op.order = order;
    ASSERT_EQ(op.items(), 13u);
    ASSERT_EQ(op.thread_bytes(), 0u);
    for (std::size_t item = op.items(); item-- > 0;) op.run(item, {0, nullptr});

    for (std::size_t r = 0; r < 13; ++r) {
        auto expected = std::vector<float>(before.begin() + static_cast<std::ptrdiff_t>(r * stride),
                                           before.begin() + static_cast<std::ptrdiff_t>((r + 1) * stride));
        for (std::size_t head = 0; head < heads + kv_heads; ++head) {
            zse::kernels::cpu::rope(expected.data() + head * dim, pairs, cosines.data() + r * pairs,
                                    sines.data() + r * pairs, order);
        }
        ASSERT_EQ(std::memcmp(expected.data(), rows.data() + r * stride, stride * sizeof(float)), 0)
            << "queries and keys are turned in place, values stay";
        const PageIndex page = segments[segment_of_row[r]].pages[positions[r] / page_tokens];
        const std::size_t slot = positions[r] % page_tokens;
        for (std::size_t head = 0; head < kv_heads; ++head) {
            const std::byte* at = op.cache.pages.head(page, head);
            const float* key = expected.data() + (heads + head) * dim;
            const float* value = expected.data() + (heads + kv_heads + head) * dim;
            std::vector<float> decoded(dim);
            op.cache.k->decode(at + slot * layout.k_code, at + layout.k_scales_at() + slot * layout.k_scale,
                               1, dim, decoded.data(), dim);
            ASSERT_EQ(decoded, through<K>({key, key + dim})) << "key of row " << r;
            op.cache.v->decode(at + layout.v_codes_at() + slot * layout.v_code,
                               at + layout.v_scales_at() + slot * layout.v_scale, 1, dim, decoded.data(),
                               dim);
            ASSERT_EQ(decoded, through<V>({value, value + dim})) << "value of row " << r;
        }
    }
    // Nothing else was written: the first layer is as it was, and so is every page without a row.
    std::vector<bool> written(70, false);
    for (std::size_t r = 0; r < 13; ++r)
        written[segments[segment_of_row[r]].pages[positions[r] / page_tokens]] = true;
    for (std::size_t page = 0; page < 70; ++page) {
        const std::size_t untouched = written[page] ? layout.layer_bytes() : layout.page_bytes();
        for (std::size_t i = 0; i < untouched; ++i)
            ASSERT_EQ(pool[page * layout.page_bytes() + i], std::byte{0x5a});
    }
}

TEST(RopeAppend, WritesWhatDecodingReads) {
    for (const RopePairs order : {RopePairs::neighbours, RopePairs::halves}) {
        for (const std::uint32_t page_tokens : {1u, 8u, 16u, 32u}) {
            expect_written<f32, f32>(order, page_tokens);
            expect_written<f16, f16>(order, page_tokens);
            expect_written<int8<32>, int4<32>>(order, page_tokens);
            expect_written<int4<32>, f16>(order, page_tokens);
            expect_written<int4<16, plain>, int8<64>>(order, page_tokens);
        }
    }
}

TEST(SideKernels, DecodeConsecutiveTokensToRowsApart) {
    constexpr std::size_t dim = 32;
    constexpr std::size_t stride = 48;
    std::vector<std::byte> codes(5 * int8<32>::code_bytes(dim)), scales(5 * int8<32>::scale_bytes(dim));
    std::vector<std::vector<float>> expected;
    for (std::size_t t = 0; t < 5; ++t) {
        const auto row = gaussian(dim, static_cast<unsigned>(t));
        side_kernels<int8<32>>.encode(row.data(), dim, codes.data() + t * dim, scales.data() + t * 2);
        expected.push_back(through<int8<32>>(row));
    }
    std::vector<float> rows(5 * stride, 77.0f);
    side_kernels<int8<32>>.decode(codes.data(), scales.data(), 5, dim, rows.data(), stride);
    for (std::size_t t = 0; t < 5; ++t) {
        for (std::size_t i = 0; i < stride; ++i)
            EXPECT_EQ(rows[t * stride + i], i < dim ? expected[t][i] : 77.0f);
    }
}

template <class C>
void expect_vectors_decode_as_the_codec(std::size_t dim) {
    std::mt19937 random(static_cast<unsigned>(dim));
    constexpr std::size_t tokens = 3;
    const std::size_t stride = dim + 5;
    for (int repeat = 0; repeat < 50; ++repeat) {
        // Any bytes: all codes, and scales of every kind.
        std::vector<std::byte> codes(tokens * C::code_bytes(dim)), scales(tokens * C::scale_bytes(dim));
        for (std::byte& byte : codes) byte = static_cast<std::byte>(random());
        for (std::byte& byte : scales) byte = static_cast<std::byte>(random());
        std::vector<float> rows(tokens * stride, 77.0f), truth(dim);
        side_kernels<C>.decode(codes.data(), scales.data(), tokens, dim, rows.data(), stride);
        for (std::size_t t = 0; t < tokens; ++t) {
            C::decode(codes.data() + t * C::code_bytes(dim), scales.data() + t * C::scale_bytes(dim), dim,
                      truth.data());
            for (std::size_t i = 0; i < dim; ++i) {
                const float value = rows[t * stride + i];
                // Without F16C, Highway widens a half that is infinite or no number to a finite float.
                if (HWY_TARGET > HWY_AVX2 && std::is_same_v<C, f16> && !std::isfinite(truth[i])) continue;
                // A scale that is no number gives no number in both.
                ASSERT_TRUE(std::memcmp(&value, &truth[i], sizeof value) == 0 ||
                            (std::isnan(value) && std::isnan(truth[i])))
                    << value << " " << truth[i];
            }
            for (std::size_t i = dim; i < stride; ++i)
                ASSERT_EQ(rows[t * stride + i], 77.0f) << "beyond the row";
        }
    }
}

TEST(SideKernels, DecodeAsTheCodecDoesBitForBit) {
    for (const std::size_t dim : {2u, 16u, 20u, 40u, 64u, 72u, 80u, 128u}) {
        expect_vectors_decode_as_the_codec<f32>(dim);
        expect_vectors_decode_as_the_codec<f16>(dim);
    }
    for (const std::size_t dim : {128u, 256u}) {
        expect_vectors_decode_as_the_codec<int8<16>>(dim);
        expect_vectors_decode_as_the_codec<int8<32>>(dim);
        expect_vectors_decode_as_the_codec<int8<128>>(dim);
        expect_vectors_decode_as_the_codec<int4<16>>(dim);
        expect_vectors_decode_as_the_codec<int4<32>>(dim);
        expect_vectors_decode_as_the_codec<int4<64, plain>>(dim);
        expect_vectors_decode_as_the_codec<int4<128>>(dim);
    }
    expect_vectors_decode_as_the_codec<int8<16>>(80);
    expect_vectors_decode_as_the_codec<int4<16>>(80);
}

}  // namespace
