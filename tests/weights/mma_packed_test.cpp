// SPDX-License-Identifier: Apache-2.0
// The packed layout for tensor cores: every code has one place, sizes are those of the codec, and unpacking gives back
// each bit.
// rows: 64
// labels: cuda_host
#include <zse/weights/as_stored.hpp>
#include <zse/weights/mma_packed.hpp>

#include <gtest/gtest.h>
#include <support/aligned_bytes.hpp>
#include <support/codecs.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <vector>

namespace {

using namespace zse::weights;
using support::AlignedBytes;
using support::random_bytes;
using zse::Bytes;

/// Whole and partly filled slabs and blocks.
constexpr std::uint32_t widths[] = {1, 31, 32, 48, 64, 70, 96, 128, 160, 300, 576, 1536};

MmaLayout layout_of(Format format, std::uint32_t columns) {
    return {format, columns};
}

TEST(MmaLayout, AddsNothingToRowsOfWholeSlabs) {
    for (const Format format : support::all_formats()) {
        for (const std::uint32_t columns : {128u, 1536u, 4096u, 14336u}) {
            const MmaLayout layout = layout_of(format, columns);
            EXPECT_EQ(layout.group_bytes(), 16 * format.row_bytes(columns)) << name(format) << " " << columns;
            EXPECT_EQ(layout.bytes(320), 320 * format.row_bytes(columns)) << name(format) << " " << columns;
        }
        // 576 fills nine slabs of 64 columns, but only four and a half of 128.
        const std::uint32_t filled = format.group == 128 ? 640 : 576;
        EXPECT_EQ(layout_of(format, 576).bytes(16), 16 * format.row_bytes(filled)) << name(format);
        EXPECT_EQ(layout_of(format, 576).bytes(17), 32 * format.row_bytes(filled)) << name(format);
    }
    EXPECT_EQ(layout_of(format::f32, 4'000'000'000u).bytes(~0ull), ~0ull) << "saturates";
    EXPECT_EQ(layout_of(format::q4_0, 64).bytes(0), 0u);
}

TEST(MmaLayout, KeepsEverySlabAligned) {
    for (const Format format : support::all_formats()) {
        const MmaLayout layout = layout_of(format, 576);
        EXPECT_EQ(layout.slab_bytes() % MmaLayout::alignment, 0u) << name(format);
        EXPECT_EQ(layout.group_bytes() % MmaLayout::alignment, 0u) << name(format);
    }
}

TEST(MmaLayout, GivesEachCodeAndEachScaleAPlaceOfItsOwn) {
    for (const Format format : support::all_formats()) {
        const MmaLayout layout = layout_of(format, 128);
        std::set<std::size_t> bits;
        std::size_t places = 0;
        for (std::size_t r = 0; r < 16; ++r) {
            for (std::size_t k = 0; k < layout.slab_columns(); ++k, ++places) {
                const auto at = layout.code_place(r, k);
                bits.insert(at.byte * 8 + at.shift);
                ASSERT_LE(at.byte * 8 + at.shift + layout.bits(), layout.code_bytes() * 8);
            }
            for (std::size_t block = 0; block < layout.slab_blocks(); ++block) {
                for (std::size_t minimum = 0; minimum < (layout.has_minimum() ? 2u : 1u);
                     ++minimum, ++places) {
                    const std::size_t at = layout.scale_place(r, block) + minimum * layout.minimum_offset();
                    bits.insert(at * 8);
                    ASSERT_GE(at, layout.code_bytes());
                    ASSERT_LE(at + 2, layout.slab_bytes());
                }
            }
        }
        EXPECT_EQ(bits.size(), places) << name(format);
    }
}

TEST(MmaLayout, PutsEachCodeWhereALaneLoadsItsFragment) {
    // Written out anew from the description of FragmentA: element `odd` of pair `pair` of lane `lane` is this row and
    // this column of a step.
    for (const Format format : support::all_formats()) {
        const MmaLayout layout = layout_of(format, 128);
        for (std::size_t s = 0; s < layout.slab_columns() / 16; ++s) {
            for (std::size_t lane = 0; lane < 32; ++lane) {
                for (std::size_t i = 0; i < 8; ++i) {
                    const std::size_t pair = i / 2;
                    const std::size_t row = lane / 4 + (pair == 1 || pair == 3 ? 8 : 0);
                    const std::size_t column = s * 16 + lane % 4 * 2 + i % 2 + (pair >= 2 ? 8 : 0);
                    const auto at = layout.code_place(row, column);
                    const std::size_t bit = at.byte * 8 + at.shift;
                    std::size_t expected = 0;
                    if (layout.bits() == 16) expected = (s * 512 + lane * 16 + i * 2) * 8;
                    if (layout.bits() == 32) {
                        expected = (s * 1024 + i / 4 * 512 + lane * 16 + i % 4 * 4) * 8;
                    }
                    if (layout.bits() == 8) expected = (s / 2 * 512 + lane * 16 + s % 2 * 8 + i) * 8;
                    if (layout.bits() == 4) {
                        const std::size_t nibble = format.id == FormatId::nf4 ? i : pair + i % 2 * 4;
                        expected = (s / 4 * 512 + lane * 16 + s % 4 * 4) * 8 + nibble * 4;
                    }
                    ASSERT_EQ(bit, expected) << name(format) << " step " << s << " lane " << lane;
                }
            }
        }
    }
}

TEST(MmaPack, IsABijectionForEveryFormatWidthAndNumberOfRows) {
    for (const Format format : support::all_formats()) {
        for (const std::uint32_t columns : widths) {
            const MmaLayout layout = layout_of(format, columns);
            const Bytes row_bytes = format.row_bytes(columns);
            const Bytes stride = row_bytes + 3;  // rows need not lie together
            for (const std::size_t matrix_rows : {1u, 16u, 40u}) {
                const auto rows = random_bytes(matrix_rows * stride, columns);
                const AlignedBytes packed(layout.bytes(matrix_rows));
                for (std::size_t group = 0; group < layout.groups(matrix_rows); ++group) {
                    layout.pack(rows.data() + group * 16 * stride, stride,
                                std::min<std::size_t>(16, matrix_rows - group * 16),
                                packed.data() + group * layout.group_bytes());
                }
                std::vector<std::byte> stored(row_bytes + 1);
                for (std::size_t r = 0; r < matrix_rows; ++r) {
                    std::fill(stored.begin(), stored.end(), std::byte{0x5a});
                    layout.unpack(packed.data() + r / 16 * layout.group_bytes(), r % 16, stored.data());
                    ASSERT_EQ(stored.back(), std::byte{0x5a}) << "beyond the row";
                    ASSERT_EQ(std::memcmp(stored.data(), rows.data() + r * stride, row_bytes), 0)
                        << name(format) << " " << columns << " columns, row " << r;
                }
            }
        }
    }
}

template <class Codec>
void expect_padding_of_zeros() {
    // One row of 16, and columns that leave most of the last slab empty.
    const MmaLayout layout = layout_of(Codec::format, 128 + 32);
    const auto values = support::gaussian(160, 1);
    std::vector<std::byte> row(Codec::format.row_bytes(160));
    Codec::encode_row(values.data(), 160, row.data());
    const AlignedBytes group(layout.group_bytes());
    layout.pack(row.data(), row.size(), 1, group.data());
    // The same bytes are a group of whole slabs: what fills them up decodes to zero.
    const std::size_t columns = layout.slabs() * layout.slab_columns();
    ASSERT_EQ(layout_of(Codec::format, static_cast<std::uint32_t>(columns)).group_bytes(),
              layout.group_bytes());
    std::vector<std::byte> stored(Codec::format.row_bytes(256));
    std::vector<float> decoded(columns);
    std::vector<float> expected(columns);
    Codec::decode_row(row.data(), 160, expected.data());
    for (std::size_t r = 0; r < 16; ++r) {
        layout_of(Codec::format, static_cast<std::uint32_t>(columns)).unpack(group.data(), r, stored.data());
        Codec::decode_row(stored.data(), columns, decoded.data());
        for (std::size_t k = 0; k < columns; ++k) {
            const bool filled = r == 0 && k < zse::ceil_div(160, Codec::format.group) * Codec::format.group;
            if (filled && k >= 160) continue;  // the stored row's own padding
            ASSERT_EQ(decoded[k], filled ? expected[k] : 0.0f) << name(Codec::format) << " " << r << " " << k;
        }
    }
}

TEST(MmaPack, FillsUpWithWeightsOfZero) {
    expect_padding_of_zeros<f32>();
    expect_padding_of_zeros<f16>();
    expect_padding_of_zeros<bf16>();
    expect_padding_of_zeros<int8<32>>();
    expect_padding_of_zeros<int8<128>>();
    expect_padding_of_zeros<nf4<32>>();
    expect_padding_of_zeros<nf4<64>>();
    expect_padding_of_zeros<nf4<128>>();
    expect_padding_of_zeros<q4_0>();
    expect_padding_of_zeros<q4_1>();
    expect_padding_of_zeros<q8_0>();
}

TEST(MmaLayout, HasANameAndAVersion) {
    EXPECT_EQ(MmaLayout::name, "cuda.mma16");
    EXPECT_EQ(MmaLayout::version, 1u);
}

}  // namespace
