// SPDX-License-Identifier: Apache-2.0
// Weight codecs: sizes, all code values, error bounds, and codes that stay when coded again.
// rows: 23 25
#include <zse/weights/as_stored.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace {

using zse::f16;
using zse::weights::Format;
using zse::weights::FormatId;
using zse::weights::Role;
namespace weights = zse::weights;

std::vector<float> gaussian(std::size_t count, unsigned seed, float deviation = 1.0f) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

template <class C>
std::vector<std::byte> encode(const std::vector<float>& values) {
    std::vector<std::byte> row(C::format.row_bytes(values.size()));
    C::encode_row(values.data(), values.size(), row.data());
    return row;
}

template <class C>
std::vector<float> decode(const std::vector<std::byte>& row, std::size_t columns) {
    std::vector<float> values(columns);
    C::decode_row(row.data(), columns, values.data());
    return values;
}

unsigned byte_at(const std::vector<std::byte>& row, std::size_t at) {
    return static_cast<unsigned>(row[at]);
}
float half_at(const std::vector<std::byte>& row, std::size_t at) {
    f16 half{};
    half.bits = static_cast<std::uint16_t>(byte_at(row, at) | byte_at(row, at + 1) << 8);
    return static_cast<float>(half);
}
void put_half(std::vector<std::byte>& row, std::size_t at, float value) {
    const std::uint16_t bits = f16(value).bits;
    row[at] = static_cast<std::byte>(bits & 0xffu);
    row[at + 1] = static_cast<std::byte>(bits >> 8);
}

// Sizes. Bits are codes plus scales: 8 + 16 / 32, 4 + 16 / 64, and so on.

TEST(Codec, BitsPerWeightCountScales) {
    EXPECT_EQ(weights::f32::format.bits(), 32.0);
    EXPECT_EQ(weights::f16::format.bits(), 16.0);
    EXPECT_EQ(weights::bf16::format.bits(), 16.0);
    EXPECT_EQ(weights::int8<32>::format.bits(), 8.5);
    EXPECT_EQ(weights::int8<64>::format.bits(), 8.25);
    EXPECT_EQ(weights::int8<128>::format.bits(), 8.125);
    EXPECT_EQ(weights::nf4<32>::format.bits(), 4.5);
    EXPECT_EQ(weights::nf4<64>::format.bits(), 4.25);
    EXPECT_EQ(weights::nf4<128>::format.bits(), 4.125);
    EXPECT_EQ(weights::q4_0::format.bits(), 4.5);
    EXPECT_EQ(weights::q4_1::format.bits(), 5.0);
    EXPECT_EQ(weights::q8_0::format.bits(), 8.5);
}

TEST(Codec, BlocksAreTheSumOfTheirFields) {
    static_assert(sizeof(weights::q4_0::Block) == sizeof(f16) + 16);
    static_assert(sizeof(weights::q4_1::Block) == 2 * sizeof(f16) + 16);
    static_assert(sizeof(weights::q8_0::Block) == sizeof(f16) + 32);
    static_assert(sizeof(weights::int8<128>::Block) == sizeof(f16) + 128);
    static_assert(sizeof(weights::nf4<64>::Block) == sizeof(f16) + 32);
    static_assert(weights::q4_1::format.group_bytes() == sizeof(weights::q4_1::Block));
}

TEST(Codec, SizeHalvesFrom32To16Bits) {
    for (const std::uint64_t columns : {1ull, 7ull, 576ull, 4096ull, 1ull << 40}) {
        EXPECT_EQ(weights::f32::format.row_bytes(columns), 2 * weights::f16::format.row_bytes(columns));
        EXPECT_EQ(weights::f32::format.row_bytes(columns), 2 * weights::bf16::format.row_bytes(columns));
    }
}

TEST(Codec, EightBitsHalveAgainButForTheScales) {
    const double ratio = static_cast<double>(weights::f16::format.row_bytes(4096)) /
                         static_cast<double>(weights::int8<32>::format.row_bytes(4096));
    EXPECT_NEAR(ratio, 16 / 8.5, 1e-12);
}

TEST(Codec, RowsOfPartlyFilledGroupsTakeWholeGroups) {
    EXPECT_EQ(weights::int8<32>::format.row_bytes(1), 34u);
    EXPECT_EQ(weights::int8<32>::format.row_bytes(32), 34u);
    EXPECT_EQ(weights::int8<32>::format.row_bytes(33), 68u);
    EXPECT_EQ(weights::nf4<64>::format.row_bytes(65), 68u);
    EXPECT_EQ(weights::f32::format.row_bytes(0), 0u);
    EXPECT_EQ(weights::f32::format.row_bytes(~0ull), ~0ull) << "saturates";
}

TEST(Codec, NamesSayFormatAndGroup) {
    EXPECT_EQ(name(weights::f32::format), "f32");
    EXPECT_EQ(name(weights::bf16::format), "bf16");
    EXPECT_EQ(name(weights::int8<64>::format), "int8<64>");
    EXPECT_EQ(name(weights::nf4<64>::format), "nf4<64>");
    EXPECT_EQ(name(weights::q4_1::format), "q4_1");
}

TEST(Policy, HoldsEveryMatrixInItsFormat) {
    for (const Role role : {Role::layer, Role::embedding, Role::output}) {
        EXPECT_EQ(weights::f16::held(weights::format::q4_1, role), weights::format::f16);
        EXPECT_EQ(weights::int8<64>::held(weights::format::f32, role), weights::int8<64>::format);
        EXPECT_EQ(weights::as_stored::held(weights::format::q8_0, role), weights::format::q8_0);
    }
    EXPECT_EQ(weights::nf4<64>::held(weights::format::f16, Role::layer), weights::nf4<64>::format);
    EXPECT_EQ(weights::nf4<64>::held(weights::format::f16, Role::embedding), weights::int8<32>::format);
    EXPECT_EQ(weights::nf4<64>::held(weights::format::f16, Role::output), weights::int8<32>::format);
}

TEST(StoredCodecs, AreFoundByFormatAlone) {
    int found = 0;
    for (const Format format : {weights::format::f32, weights::format::f16, weights::format::bf16,
                                weights::format::q4_0, weights::format::q4_1, weights::format::q8_0,
                                weights::int8<32>::format, weights::nf4<64>::format}) {
        EXPECT_TRUE(weights::visit_codec(format, [&](auto codec) {
            EXPECT_EQ(decltype(codec)::format, format);
            ++found;
        }));
    }
    EXPECT_EQ(found, 8);
    EXPECT_FALSE(weights::visit_codec(weights::nf4<128>::format, [](auto) { ADD_FAILURE(); }));
}

// Every code value, by a formula of the test's own.

TEST(Dense, EveryCodeOfSixteenBitsDecodesToItsValue) {
    std::vector<std::byte> row(2 * 65536);
    for (std::size_t code = 0; code < 65536; ++code) {
        row[2 * code] = static_cast<std::byte>(code & 0xff);
        row[2 * code + 1] = static_cast<std::byte>(code >> 8);
    }
    const auto halves = decode<weights::f16>(row, 65536);
    const auto brains = decode<weights::bf16>(row, 65536);
    for (std::size_t code = 0; code < 65536; ++code) {
        const double sign = code >= 0x8000 ? -1 : 1;
        const int exponent = static_cast<int>(code >> 10) & 31;
        const double mantissa = static_cast<double>(code & 1023);
        if (exponent == 31) {
            ASSERT_FALSE(std::isfinite(halves[code]));
        } else {
            const double value =
                exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
            ASSERT_EQ(static_cast<double>(halves[code]), sign * value) << code;
        }
        const auto bits = static_cast<std::uint32_t>(code) << 16;
        ASSERT_EQ(std::memcmp(&bits, &brains[code], 4), 0) << code;
    }
}

template <class C>
void expect_signed_codes() {
    const std::size_t group = C::format.group;
    for (const float scale : {1.0f, 0.37f, -2.5f, 6e-8f, 65504.0f}) {
        for (int start = -128; start < 128; start += static_cast<int>(group)) {
            std::vector<std::byte> row(2 + group);
            put_half(row, 0, scale);
            for (std::size_t i = 0; i < group; ++i)
                row[2 + i] = static_cast<std::byte>(start + static_cast<int>(i));
            const auto values = decode<C>(row, group);
            for (std::size_t i = 0; i < group; ++i) {
                // Eleven bits of scale times eight of code: exact in float.
                const double expected = static_cast<double>(half_at(row, 0)) * (start + static_cast<int>(i));
                ASSERT_EQ(static_cast<double>(values[i]), expected);
            }
        }
    }
}

TEST(Int8, EveryCodeIsScaleTimesCode) {
    expect_signed_codes<weights::int8<32>>();
    expect_signed_codes<weights::int8<64>>();
    expect_signed_codes<weights::int8<128>>();
    expect_signed_codes<weights::q8_0>();
}

/// Nibble of element i where byte j holds element j below and element j + half above.
unsigned nibble(const std::vector<std::byte>& row, std::size_t offset, std::size_t half, std::size_t i) {
    const unsigned pair = byte_at(row, offset + i % half);
    return i < half ? pair % 16 : pair / 16;
}

TEST(Q4, EveryByteHoldsTwoCodes) {
    for (unsigned start = 0; start < 256; start += 16) {
        for (const float scale : {1.0f, -0.37f, 3e-7f}) {
            for (const float minimum : {0.0f, -1.9f, 100.0f}) {
                std::vector<std::byte> row0(18), row1(20);
                put_half(row0, 0, scale);
                put_half(row1, 0, scale);
                put_half(row1, 2, minimum);
                for (unsigned j = 0; j < 16; ++j)
                    row0[2 + j] = row1[4 + j] = static_cast<std::byte>(start + j);
                const auto values0 = decode<weights::q4_0>(row0, 32);
                const auto values1 = decode<weights::q4_1>(row1, 32);
                for (std::size_t i = 0; i < 32; ++i) {
                    const double code = nibble(row0, 2, 16, i);
                    const double d = static_cast<double>(half_at(row0, 0));
                    ASSERT_EQ(static_cast<double>(values0[i]), d * (code - 8));
                    // One rounding: the double product and sum are exact.
                    const double m = static_cast<double>(half_at(row1, 2));
                    ASSERT_EQ(values1[i], static_cast<float>(d * code + m));
                }
            }
        }
    }
}

// Encoding.

TEST(Dense, KeepsFloatsAndRoundsHalves) {
    const auto values = gaussian(1000, 1);
    EXPECT_EQ(decode<weights::f32>(encode<weights::f32>(values), 1000), values);
    const auto halves = decode<weights::f16>(encode<weights::f16>(values), 1000);
    const auto brains = decode<weights::bf16>(encode<weights::bf16>(values), 1000);
    for (std::size_t i = 0; i < 1000; ++i) {
        EXPECT_LE(std::fabs(halves[i] - values[i]), std::fabs(values[i]) * 0x1p-11f + 0x1p-25f);
        EXPECT_LE(std::fabs(brains[i] - values[i]), std::fabs(values[i]) * 0x1p-8f);
    }
}

// A scale is stored in eleven bits, so a weight at code c may be off by c * 2^-11 steps besides half a step.
constexpr double rounding_of_scale = 0x1p-11 * 1.01;

/// Errors within `steps` of the group's scale, over rows with partly filled last groups. `minimum` says that
/// each group stores a minimum in eleven bits behind its scale.
template <class C>
void expect_error_within(double steps, bool minimum = false) {
    for (const std::size_t columns : {1u, 5u, 31u, 32u, 33u, 100u, 640u, 1000u}) {
        const auto values = gaussian(columns, static_cast<unsigned>(columns), 0.05f);
        const auto row = encode<C>(values);
        const auto decoded = decode<C>(row, columns);
        for (std::size_t i = 0; i < columns; ++i) {
            const std::size_t block = i / C::format.group * C::format.group_bytes();
            const double scale = static_cast<double>(std::fabs(half_at(row, block)));
            const double least = minimum ? static_cast<double>(std::fabs(half_at(row, block + 2))) : 0.0;
            const double error = std::fabs(static_cast<double>(decoded[i]) - static_cast<double>(values[i]));
            ASSERT_LE(error, steps * scale + least * rounding_of_scale)
                << columns << " columns, weight " << i;
        }
    }
}

TEST(Int8, ErrsByHalfAStep) {
    expect_error_within<weights::int8<32>>(0.5 + 127 * rounding_of_scale);
    expect_error_within<weights::int8<64>>(0.5 + 127 * rounding_of_scale);
    expect_error_within<weights::int8<128>>(0.5 + 127 * rounding_of_scale);
    expect_error_within<weights::q8_0>(0.5 + 127 * rounding_of_scale);
}

TEST(Q4, ErrsByHalfAStepAndAtItsOpenEndByOne) {
    // The value of greatest magnitude sits at -8 steps, so its opposite at +8 is clamped to +7.
    expect_error_within<weights::q4_0>(1 + 8 * rounding_of_scale);
    expect_error_within<weights::q4_1>(0.5 + 15 * rounding_of_scale, true);
}

TEST(Q4, PutsTheGreatestMagnitudeAtCodeZero) {
    for (const float sign : {1.0f, -1.0f}) {
        auto values = gaussian(32, 3, 0.1f);
        values[20] = sign * 4.0f;
        const auto row = encode<weights::q4_0>(values);
        EXPECT_EQ(nibble(row, 2, 16, 20), 0u);
        EXPECT_EQ(decode<weights::q4_0>(row, 32)[20], sign * 4.0f);
    }
}

template <class C>
void expect_codes_stay() {
    for (const std::size_t columns : {16u, 64u, 77u, 1024u}) {
        const auto once = encode<C>(gaussian(columns, static_cast<unsigned>(columns) + 7));
        EXPECT_EQ(encode<C>(decode<C>(once, columns)), once) << name(C::format) << " " << columns;
    }
}

TEST(Codec, CodingDecodedWeightsAgainKeepsEveryBit) {
    expect_codes_stay<weights::f32>();
    expect_codes_stay<weights::f16>();
    expect_codes_stay<weights::bf16>();
    expect_codes_stay<weights::int8<32>>();
    expect_codes_stay<weights::int8<64>>();
    expect_codes_stay<weights::int8<128>>();
    expect_codes_stay<weights::q8_0>();
    expect_codes_stay<weights::nf4<32>>();
    expect_codes_stay<weights::nf4<64>>();
    expect_codes_stay<weights::nf4<128>>();
    expect_codes_stay<weights::q4_0>();
    expect_codes_stay<weights::q4_1>();
}

template <class C>
void expect_zeros() {
    for (const std::size_t columns : {1u, 32u, 100u}) {
        const std::vector<float> zeros(columns, 0.0f);
        for (const float value : decode<C>(encode<C>(zeros), columns))
            EXPECT_EQ(value, 0.0f) << name(C::format);
    }
}

template <class C>
void expect_no_neighbour_is_read() {
    // The weights of a partly filled group do not depend on what follows in memory.
    const auto values = gaussian(200, 11);
    std::vector<float> longer(values);
    longer.insert(longer.end(), 300, 1e4f);
    std::vector<std::byte> row(C::format.row_bytes(200));
    C::encode_row(longer.data(), 200, row.data());
    EXPECT_EQ(row, encode<C>(values)) << name(C::format);
    std::vector<float> decoded(201, 77.0f);
    C::decode_row(row.data(), 200, decoded.data());
    EXPECT_EQ(decoded[200], 77.0f) << name(C::format);
}

TEST(Codec, ZerosStayZerosAndLastGroupsStandAlone) {
    const auto both = [](auto codec) {
        expect_zeros<decltype(codec)>();
        expect_no_neighbour_is_read<decltype(codec)>();
    };
    both(weights::f32{});
    both(weights::f16{});
    both(weights::bf16{});
    both(weights::int8<32>{});
    both(weights::int8<128>{});
    both(weights::q8_0{});
    both(weights::nf4<64>{});
    both(weights::nf4<128>{});
    both(weights::q4_0{});
    both(weights::q4_1{});
}

TEST(Codec, GroupsOfDenormalWeightsDecodeToAlmostNothing) {
    // Their scale underflows in a half; nothing may become infinite or lose its order of magnitude.
    std::vector<float> tiny(64, 1e-41f);
    tiny[3] = -2e-40f;
    const auto check = [&](auto codec) {
        using C = decltype(codec);
        for (const float value : decode<C>(encode<C>(tiny), 64)) {
            EXPECT_LE(std::fabs(value), 1e-30f) << name(C::format);
        }
    };
    check(weights::int8<32>{});
    check(weights::q8_0{});
    check(weights::nf4<64>{});
    check(weights::q4_0{});
    check(weights::q4_1{});
}

}  // namespace
