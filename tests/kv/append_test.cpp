// SPDX-License-Identifier: Apache-2.0
// Appending writes, through any page table, what decoding reads: keys turned by RoPE, and values as they are.
// rows: 32
#include <zse/kv/append.hpp>

#include <gtest/gtest.h>
#include <support/instruction_sets.hpp>
#include <support/random.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

using namespace zse::kv;
using support::gaussian;
using support::on_each_isa;
using zse::kernels::Isa;
using zse::kernels::RopePairs;

struct Coded {
    std::vector<std::byte> codes, scales;
};

/// A row as its codec codes it, turned before where the codec says so.
template <class C>
Coded coded(std::vector<float> row) {
    if (C::rotates) rotate(row.data(), row.size());
    Coded result{std::vector<std::byte>(C::code_bytes(row.size())),
                 std::vector<std::byte>(C::scale_bytes(row.size()))};
    C::encode(row.data(), row.size(), result.codes.data(), result.scales.data());
    return result;
}

/// A row through a codec, still turned afterwards where it was turned.
template <class C>
std::vector<float> through(const std::vector<float>& row) {
    const Coded stored = coded<C>(row);
    std::vector<float> decoded(row.size());
    C::decode(stored.codes.data(), stored.scales.data(), row.size(), decoded.data());
    return decoded;
}

/// Where the test expects a token's bytes in a page of a head: keys by pieces of all tokens, values token by token,
/// scales of both by groups of all tokens. Each part takes whole 16 bytes.
template <class K, class V>
struct Places {
    std::uint32_t page_tokens, dim;

    [[nodiscard]] std::size_t key_code(std::size_t slot, std::size_t i) const {
        return (i / K::piece * page_tokens + slot) * K::piece + i % K::piece;
    }
    [[nodiscard]] std::size_t key_scale(std::size_t slot, std::size_t i) const {
        return padded(K::code_bytes(dim)) + (i / 2 * page_tokens + slot) * 2 + i % 2;
    }
    [[nodiscard]] std::size_t value_code(std::size_t slot, std::size_t i) const {
        return padded(K::code_bytes(dim)) + padded(K::scale_bytes(dim)) + slot * V::code_bytes(dim) + i;
    }
    [[nodiscard]] std::size_t value_scale(std::size_t slot, std::size_t i) const {
        return padded(K::code_bytes(dim)) + padded(K::scale_bytes(dim)) + padded(V::code_bytes(dim)) +
               (i / 2 * page_tokens + slot) * 2 + i % 2;
    }

private:
    [[nodiscard]] std::size_t padded(std::size_t token_bytes) const {
        return (token_bytes * page_tokens + 15) / 16 * 16;
    }
};

template <class K, class V>
void expect_written(Isa isa, RopePairs order, std::uint32_t page_tokens) {
    constexpr std::uint32_t dim = 64;
    constexpr std::uint32_t kv_heads = 2;
    constexpr std::size_t heads = 4;
    constexpr std::size_t turned = 48;  // a part of the head
    constexpr std::size_t stride = (heads + 2 * kv_heads) * dim;
    const PageLayout layout = PageLayout::of<K, V>(page_tokens, 2, kv_heads, dim, dim);
    const zse::kernels::RowKernels* kernels = zse::kernels::row_kernels(isa);
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
    std::vector<float> cosines(13 * turned), sines(13 * turned);
    for (std::size_t r = 0; r < 13; ++r) {
        zse::kernels::rope_angles(positions[r], 10000.0f, 1.0f, turned, nullptr, order,
                                  cosines.data() + r * turned, sines.data() + r * turned);
    }
    RopeAppend op;
    op.kernels = kernels;
    op.batch = {segments, segment_of_row.data(), positions.data(), 13};
    // The second of two layers.
    op.cache = {{pool.data() + layout.layer_bytes(), layout.page_bytes(), layout},
                side_kernels<K>(isa),
                side_kernels<V>(isa)};
    op.q = rows.data();
    op.k = rows.data() + heads * dim;
    op.v = rows.data() + (heads + kv_heads) * dim;
    op.row_stride = stride;
    op.heads = heads;
    op.cosines = cosines.data();
    op.sines = sines.data();
    op.dim = turned;
    op.order = order;
    ASSERT_EQ(op.items(), 13u);
    ASSERT_EQ(op.thread_bytes(), 0u);
    for (std::size_t item = op.items(); item-- > 0;) op.run(item, {0, nullptr});

    const Places<K, V> places{page_tokens, dim};
    std::vector<bool> written(pool.size(), false);
    for (std::size_t r = 0; r < 13; ++r) {
        auto expected = std::vector<float>(before.begin() + static_cast<std::ptrdiff_t>(r * stride),
                                           before.begin() + static_cast<std::ptrdiff_t>((r + 1) * stride));
        for (std::size_t head = 0; head < heads + kv_heads; ++head) {
            kernels->rope(expected.data() + head * dim, turned, cosines.data() + r * turned,
                          sines.data() + r * turned, order);
        }
        ASSERT_EQ(std::memcmp(expected.data(), rows.data() + r * stride, stride * sizeof(float)), 0)
            << "queries and keys are turned in place, values stay";
        const PageIndex page = segments[segment_of_row[r]].pages[positions[r] / page_tokens];
        const std::size_t slot = positions[r] % page_tokens;
        for (std::size_t head = 0; head < kv_heads; ++head) {
            const float* key = expected.data() + (heads + head) * dim;
            const float* value = expected.data() + (heads + kv_heads + head) * dim;
            std::vector<float> decoded(dim);
            op.cache.get_key(page, head, slot, decoded.data());
            ASSERT_EQ(decoded, through<K>({key, key + dim})) << "key of row " << r;
            op.cache.get_value(page, head, slot, decoded.data());
            ASSERT_EQ(decoded, through<V>({value, value + dim})) << "value of row " << r;
            // Each byte is where the layout says.
            const std::size_t at =
                page * layout.page_bytes() + layout.layer_bytes() + head * layout.head_bytes();
            const Coded k = coded<K>({key, key + dim});
            const Coded v = coded<V>({value, value + dim});
            const auto expect_byte = [&](std::size_t place, std::byte byte) {
                ASSERT_EQ(pool[at + place], byte) << "row " << r << " place " << place;
                ASSERT_FALSE(written[at + place]) << "two tokens share a byte";
                written[at + place] = true;
            };
            for (std::size_t i = 0; i < k.codes.size(); ++i)
                expect_byte(places.key_code(slot, i), k.codes[i]);
            for (std::size_t i = 0; i < k.scales.size(); ++i)
                expect_byte(places.key_scale(slot, i), k.scales[i]);
            for (std::size_t i = 0; i < v.codes.size(); ++i)
                expect_byte(places.value_code(slot, i), v.codes[i]);
            for (std::size_t i = 0; i < v.scales.size(); ++i)
                expect_byte(places.value_scale(slot, i), v.scales[i]);
        }
    }
    for (std::size_t i = 0; i < pool.size(); ++i) {
        ASSERT_TRUE(written[i] || pool[i] == std::byte{0x5a}) << "nothing else is written";
    }
}

TEST(RopeAppend, WritesWhatDecodingReadsWhereTheLayoutSays) {
    on_each_isa([](Isa isa) {
        for (const RopePairs order : {RopePairs::neighbours, RopePairs::halves}) {
            for (const std::uint32_t page_tokens : {1u, 8u, 16u, 32u}) {
                expect_written<f32, f32>(isa, order, page_tokens);
                expect_written<f16, f16>(isa, order, page_tokens);
                expect_written<int8<32>, int4<32>>(isa, order, page_tokens);
                expect_written<int4<32>, f16>(isa, order, page_tokens);
                expect_written<fp8<32>, fp8<16>>(isa, order, page_tokens);
                expect_written<int4<16, plain>, int8<64>>(isa, order, page_tokens);
                if (testing::Test::HasFatalFailure()) return;
            }
        }
    });
}

template <class C>
void expect_encodes_as_the_codec(Isa isa, std::size_t dim) {
    const SideKernels* kernels = side_kernels<C>(isa);
    EXPECT_EQ(kernels->rotates, C::rotates);
    for (const float factor : {1.0f, -1.0f, 1e-3f, 1e4f, 1e-7f, 1e-12f, 1e-40f, 0.0f}) {
        auto row = gaussian(dim, static_cast<unsigned>(dim));
        for (float& value : row) value *= factor;
        const Coded truth = coded<C>(row);
        // A byte more than they need, to see what is written beyond.
        std::vector<std::byte> codes(truth.codes.size() + 1, std::byte{0x5a});
        std::vector<std::byte> scales(truth.scales.size() + 1, std::byte{0x5a});
        kernels->encode(row.data(), dim, codes.data(), scales.data());
        ASSERT_EQ(codes.back(), std::byte{0x5a});
        ASSERT_EQ(scales.back(), std::byte{0x5a});
        codes.pop_back();
        scales.pop_back();
        ASSERT_EQ(codes, truth.codes) << C::name << " " << dim << " factor " << factor;
        ASSERT_EQ(scales, truth.scales) << C::name << " " << dim << " factor " << factor;
        std::vector<float> decoded(dim);
        kernels->decode(codes.data(), scales.data(), dim, decoded.data());
        ASSERT_EQ(decoded, through<C>(row)) << C::name << " " << dim;
    }
}

TEST(SideKernels, EncodeAsTheCodecDoesBitForBit) {
    on_each_isa([](Isa isa) {
        for (const std::size_t dim : {2u, 16u, 20u, 40u, 64u, 72u, 80u, 128u, 512u}) {
            expect_encodes_as_the_codec<f32>(isa, dim);
            expect_encodes_as_the_codec<f16>(isa, dim);
        }
        for (const std::size_t dim : {128u, 256u, 512u}) {
            expect_encodes_as_the_codec<int8<16>>(isa, dim);
            expect_encodes_as_the_codec<int8<32>>(isa, dim);
            expect_encodes_as_the_codec<int8<32, plain>>(isa, dim);
            expect_encodes_as_the_codec<int8<128>>(isa, dim);
            expect_encodes_as_the_codec<fp8<16>>(isa, dim);
            expect_encodes_as_the_codec<fp8<32>>(isa, dim);
            expect_encodes_as_the_codec<fp8<128>>(isa, dim);
            expect_encodes_as_the_codec<int4<16>>(isa, dim);
            expect_encodes_as_the_codec<int4<32>>(isa, dim);
            expect_encodes_as_the_codec<int4<32, plain>>(isa, dim);
            expect_encodes_as_the_codec<int4<64, plain>>(isa, dim);
            expect_encodes_as_the_codec<int4<128>>(isa, dim);
        }
        expect_encodes_as_the_codec<int8<16>>(isa, 80);
        expect_encodes_as_the_codec<int4<16>>(isa, 80);
    });
}

/// Also of what is no number, where decoded rows could not be compared.
template <class C>
void expect_codes_of(Isa isa, const std::vector<float>& row) {
    const Coded truth = coded<C>(row);
    Coded got{std::vector<std::byte>(truth.codes.size()), std::vector<std::byte>(truth.scales.size())};
    side_kernels<C>(isa)->encode(row.data(), row.size(), got.codes.data(), got.scales.data());
    ASSERT_EQ(got.scales, truth.scales) << C::name;
    ASSERT_EQ(got.codes, truth.codes) << C::name;
}

TEST(SideKernels, ChooseTheScaleOfFourBitsAsTheCodecDoes) {
    on_each_isa([](Isa isa) {
        for (unsigned seed = 0; seed < 200; ++seed) {
            auto row = gaussian(256, seed);
            row[seed] *= static_cast<float>(seed % 7);                             // sometimes one stands out
            row[(seed + 1) % 256] = row[seed] * -1.0f;                             // or two of both signs
            for (std::size_t i = 0; i < 32; ++i) row[i] = std::nearbyint(row[i]);  // many ties
            expect_codes_of<int4<32, plain>>(isa, row);
            expect_codes_of<int4<128, plain>>(isa, row);
        }
    });
}

TEST(SideKernels, TurnRowsAsTheCodecDoesBitForBit) {
    on_each_isa([](Isa isa) {
        for (const std::size_t dim : {2u, 4u, 8u, 16u, 24u, 32u, 64u, 80u, 96u, 128u, 256u, 512u, 1024u}) {
            const auto row = gaussian(dim, static_cast<unsigned>(dim));
            auto expected = row;
            rotate(expected.data(), dim);
            auto got = row;
            got.push_back(77.0f);
            side_kernels<int4<>>(isa)->rotate(got.data(), dim);
            EXPECT_EQ(got.back(), 77.0f);
            EXPECT_EQ(std::memcmp(got.data(), expected.data(), dim * sizeof(float)), 0) << dim;
        }
    });
}

TEST(SideKernels, EncodeWhatIsNoNumberAsTheCodecDoes) {
    on_each_isa([](Isa isa) {
        for (const float bad : {std::nanf(""), -std::nanf("77"), HUGE_VALF, -HUGE_VALF, 1e30f, -4e7f}) {
            for (const std::size_t place : {0u, 5u, 31u, 127u, 128u, 255u}) {
                auto row = gaussian(256, 4);
                row[place] = bad;
                expect_codes_of<int8<16, plain>>(isa, row);
                expect_codes_of<int8<32, plain>>(isa, row);
                expect_codes_of<int8<128, plain>>(isa, row);
                expect_codes_of<fp8<16>>(isa, row);
                expect_codes_of<fp8<32>>(isa, row);
                expect_codes_of<fp8<128>>(isa, row);
                expect_codes_of<int4<16, plain>>(isa, row);
                expect_codes_of<int4<32, plain>>(isa, row);
                expect_codes_of<int4<128, plain>>(isa, row);
            }
        }
    });
}

TEST(SideKernels, RoundEveryMagnitudeToEightBitsAsTheCodecDoes) {
    on_each_isa([](Isa isa) {
        // Of each sign, exponent and six bits of mantissa up to 448, with both neighbours; 448 makes the scale one.
        std::vector<float> row;
        for (std::uint32_t bits = 0; bits < 0x43e00000u; bits += 1u << 17) {
            for (const float sign : {1.0f, -1.0f}) {
                const float value = std::bit_cast<float>(bits);
                for (const float near : {std::nextafter(value, 0.0f), value, std::nextafter(value, 448.0f)}) {
                    if (row.size() % 32 == 0) row.push_back(448.0f);
                    row.push_back(sign * near);
                }
            }
        }
        row.resize(zse::round_up(row.size(), 32));
        expect_codes_of<fp8<32>>(isa, row);
    });
}

TEST(SideKernels, RoundTiesAsTheCodecDoes) {
    on_each_isa([](Isa isa) {
        std::vector<float> row{127.0f};  // so the scale is one
        for (float value = -15.5f; row.size() < 32; value += 1.0f) row.push_back(value);
        const Coded truth = coded<int8<32, plain>>(row);
        Coded got{std::vector<std::byte>(32), std::vector<std::byte>(2)};
        side_kernels<int8<32, plain>>(isa)->encode(row.data(), 32, got.codes.data(), got.scales.data());
        EXPECT_EQ(got.codes, truth.codes);
    });
}

}  // namespace
