// SPDX-License-Identifier: Apache-2.0
// The packed layout: every stored byte has one place, sizes are those of a formula, and unpacking gives back each bit.
#include <zse/weights/as_stored.hpp>
#include <zse/weights/packed.hpp>

#include <gtest/gtest.h>
#include <support/aligned_bytes.hpp>
#include <support/codecs.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace {

using namespace zse::weights;
using support::AlignedBytes;
using support::random_bytes;
using zse::Bytes;

/// Whole and partial last blocks, even and odd numbers of blocks.
constexpr std::uint32_t widths[] = {1, 2, 3, 4, 31, 32, 33, 64, 70, 96, 128, 129, 160, 256, 300, 384, 576};

PackedLayout layout_of(Format format, std::uint32_t columns) {
    return {format, columns};
}

/// Bytes of 16 rows by a sum of the test's own: codes of each row in whole blocks, scales and minima beside them, and
/// columns of dense formats in fours; then whole lines of 64 bytes.
Bytes expected_group_bytes(Format format, std::uint64_t columns) {
    double bits = 0;
    std::uint64_t extra = 0;
    std::uint64_t blocks = (columns + format.group - 1) / format.group;
    switch (format.id) {
        case FormatId::f32: bits = 32; break;
        case FormatId::f16:
        case FormatId::bf16: bits = 16; break;
        case FormatId::int8:
        case FormatId::q8_0: bits = 8, extra = 2; break;
        case FormatId::nf4:
        case FormatId::q4_0: bits = 4, extra = 2; break;
        case FormatId::q4_1: bits = 4, extra = 4; break;
    }
    if (format.group == 1) blocks = (columns + 3) / 4 * 4;
    const auto of_block = static_cast<std::uint64_t>(bits / 8 * format.group) + extra;
    return (16 * blocks * of_block + 63) / 64 * 64;
}

TEST(PackedLayout, SizesAreThoseOfTheFormula) {
    for (const Format format : support::all_formats()) {
        for (const std::uint32_t columns : widths) {
            const PackedLayout layout = layout_of(format, columns);
            const Bytes group = expected_group_bytes(format, columns);
            EXPECT_EQ(layout.group_bytes(), group) << name(format) << " " << columns;
            EXPECT_EQ(layout.group_bytes() % 64, 0u);
            for (const std::uint64_t rows : {0u, 1u, 15u, 16u, 17u, 100u}) {
                EXPECT_EQ(layout.bytes(rows), (rows + 15) / 16 * group) << name(format) << " " << columns;
            }
        }
    }
}

TEST(PackedLayout, AddsNothingToRowsOfWholePairsOfBlocks) {
    for (const Format format : support::all_formats()) {
        EXPECT_EQ(layout_of(format, 4096).bytes(320), 320 * format.row_bytes(4096)) << name(format);
    }
    EXPECT_EQ(layout_of(format::f32, 4'000'000'000u).bytes(~0ull), ~0ull) << "saturates";
}

TEST(PackedLayout, BlocksBeginWhereTheirPairSays) {
    // A pair of q4_1 blocks takes ten lines of 64 bytes: one of scales, one of minima, eight of codes.
    const PackedLayout three = layout_of(format::q4_1, 96);
    EXPECT_EQ(three.blocks(), 3u);
    const auto expect = [&](const PackedLayout& layout, std::size_t block, std::size_t scales,
                            std::size_t minima, std::size_t codes) {
        const auto at = layout.place(block);
        EXPECT_EQ(at.scales, scales) << block;
        EXPECT_EQ(at.minima, minima) << block;
        EXPECT_EQ(at.codes, codes) << block;
    };
    expect(three, 0, 0, 64, 128);
    expect(three, 1, 32, 96, 128 + 256);
    expect(three, 2, 640, 672, 704);  // alone: its scales, minima and codes follow one another
    const PackedLayout four = layout_of(format::q4_0, 128);
    EXPECT_EQ(four.place(2).scales, 2u * 16u * 18u);
    EXPECT_EQ(four.place(3).scales, 2u * 16u * 18u + 32u);
    EXPECT_EQ(four.place(2).codes, 2u * 16u * 18u + 64u);
    EXPECT_EQ(four.place(3).codes, 2u * 16u * 18u + 64u + 256u);
}

TEST(PackedLayout, PairsOfBlocksFillWholeLines) {
    for (const Format format : support::all_formats()) {
        if (format.group == 1) continue;
        for (const std::uint32_t columns : widths) {
            const PackedLayout layout = layout_of(format, columns);
            for (std::size_t block = 0; block + 1 < layout.blocks(); block += 2) {
                EXPECT_EQ(layout.place(block).scales % 64, 0u) << name(format) << " " << columns;
                EXPECT_EQ(layout.place(block).codes % 64, 0u) << name(format) << " " << columns;
                EXPECT_EQ(layout.place(block + 1).codes % 64, 0u) << name(format) << " " << columns;
            }
        }
    }
}

TEST(PackedLayout, NeighboursAreFourColumnsOfSixteenRows) {
    // int8<32>: word w of row r lies at (w * 16 + r) * 4 of the codes.
    const PackedLayout layout = layout_of(int8<32>::format, 32);
    std::vector<std::byte> rows(16 * 34);
    for (std::size_t r = 0; r < 16; ++r) {
        for (std::size_t k = 0; k < 32; ++k) rows[r * 34 + 2 + k] = static_cast<std::byte>(r * 16 + k / 2);
    }
    const AlignedBytes group(layout.group_bytes());
    layout.pack(rows.data(), 34, 16, group.data());
    for (std::size_t r = 0; r < 16; ++r) {
        for (std::size_t k = 0; k < 32; ++k) {
            ASSERT_EQ(group.data()[32 + (k / 4 * 16 + r) * 4 + k % 4],
                      static_cast<std::byte>(r * 16 + k / 2));
        }
    }
}

TEST(Pack, IsABijectionForEveryFormatWidthAndNumberOfRows) {
    for (const Format format : support::all_formats()) {
        for (const std::uint32_t columns : widths) {
            const PackedLayout layout = layout_of(format, columns);
            const Bytes row_bytes = format.row_bytes(columns);
            const Bytes stride = row_bytes + 3;  // rows need not lie together
            for (const std::size_t count : {1u, 7u, 15u, 16u}) {
                const auto rows = random_bytes(16 * stride, columns);
                const AlignedBytes group(layout.group_bytes());
                layout.pack(rows.data(), stride, count, group.data());
                std::vector<std::byte> stored(row_bytes + 1);
                for (std::size_t r = 0; r < 16; ++r) {
                    std::fill(stored.begin(), stored.end(), std::byte{0x5a});
                    layout.unpack(group.data(), r, stored.data());
                    ASSERT_EQ(stored.back(), std::byte{0x5a}) << "beyond the row";
                    stored.back() = std::byte{0};
                    if (r < count) {
                        ASSERT_EQ(std::memcmp(stored.data(), rows.data() + r * stride, row_bytes), 0)
                            << name(format) << " " << columns << " columns, row " << r << " of " << count;
                    } else {
                        ASSERT_EQ(std::count(stored.begin(), stored.end(), std::byte{0}),
                                  static_cast<std::ptrdiff_t>(stored.size()))
                            << name(format) << " " << columns
                            << " columns: rows that fill the group up are zero";
                    }
                }
            }
        }
    }
}

TEST(Pack, GivesEachStoredByteAPlaceOfItsOwn) {
    // One byte at a time is set among zeros: exactly one packed byte is that byte, and no two share a place.
    for (const Format format : support::all_formats()) {
        for (const std::uint32_t columns : {1u, 33u, 96u, 160u}) {
            const PackedLayout layout = layout_of(format, columns);
            const Bytes row_bytes = format.row_bytes(columns);
            std::vector<int> owners(layout.group_bytes());
            std::vector<std::byte> rows(16 * row_bytes);
            const AlignedBytes group(layout.group_bytes());
            for (std::byte& byte : rows) {
                byte = std::byte{0xa7};
                layout.pack(rows.data(), row_bytes, 16, group.data());
                byte = std::byte{0};
                std::size_t places = 0;
                for (std::size_t i = 0; i < layout.group_bytes(); ++i) {
                    if (group.data()[i] != std::byte{0xa7}) continue;
                    ++places;
                    ++owners[i];
                }
                ASSERT_EQ(places, 1u) << name(format) << " " << columns;
            }
            ASSERT_EQ(*std::max_element(owners.begin(), owners.end()), 1) << name(format) << " " << columns;
        }
    }
}

TEST(UnpackBlock, IsTheBlockOfTheRow) {
    for (const Format format : support::all_formats()) {
        if (format.group == 1) continue;
        for (const std::uint32_t columns : widths) {
            const PackedLayout layout = layout_of(format, columns);
            const Bytes row_bytes = format.row_bytes(columns);
            const auto rows = random_bytes(16 * row_bytes, columns);
            const AlignedBytes group(layout.group_bytes());
            layout.pack(rows.data(), row_bytes, 16, group.data());
            std::vector<std::byte> block(format.group_bytes() + 1);
            for (std::size_t r = 0; r < 16; ++r) {
                for (std::size_t index = 0; index < layout.blocks(); ++index) {
                    block.back() = std::byte{0x5a};
                    layout.unpack_block(group.data(), r, index, block.data());
                    ASSERT_EQ(
                        std::memcmp(block.data(), rows.data() + r * row_bytes + index * format.group_bytes(),
                                    format.group_bytes()),
                        0)
                        << name(format) << " " << columns << " row " << r << " block " << index;
                    ASSERT_EQ(block.back(), std::byte{0x5a}) << "beyond the block";
                }
            }
        }
    }
}

TEST(PackedLayout, HasANameAndAVersion) {
    EXPECT_EQ(PackedLayout::name, "cpu.r16k4");
    EXPECT_EQ(PackedLayout::version, 1u);
}

}  // namespace
