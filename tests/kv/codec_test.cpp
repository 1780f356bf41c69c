// SPDX-License-Identifier: Apache-2.0
// KV codecs: sizes (16 bits by default), all code values, error bounds, and what turning rows is worth.
// rows: 30 32
#include <zse/kv/fp8.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace {

namespace kv = zse::kv;
using zse::f16;

std::vector<float> gaussian(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

struct Coded {
    std::vector<std::byte> codes, scales;
};

template <class C>
Coded encode(const std::vector<float>& row) {
    Coded coded{std::vector<std::byte>(C::code_bytes(row.size())),
                std::vector<std::byte>(C::scale_bytes(row.size()))};
    C::encode(row.data(), row.size(), coded.codes.data(), coded.scales.data());
    return coded;
}

template <class C>
std::vector<float> decode(const Coded& coded, std::size_t dim) {
    std::vector<float> row(dim);
    C::decode(coded.codes.data(), coded.scales.data(), dim, row.data());
    return row;
}

double scale_of(const Coded& coded, std::size_t group) {
    f16 scale{};
    scale.bits = static_cast<std::uint16_t>(static_cast<unsigned>(coded.scales[2 * group]) |
                                            static_cast<unsigned>(coded.scales[2 * group + 1]) << 8);
    return static_cast<double>(static_cast<float>(scale));
}

void put_scale(Coded& coded, std::size_t group, float value) {
    const std::uint16_t bits = f16(value).bits;
    coded.scales[2 * group] = static_cast<std::byte>(bits & 0xffu);
    coded.scales[2 * group + 1] = static_cast<std::byte>(bits >> 8);
}

template <class C>
double bits_per_value(std::size_t dim) {
    return 8.0 * static_cast<double>(C::code_bytes(dim) + C::scale_bytes(dim)) / static_cast<double>(dim);
}

TEST(KvCodec, SizesCountScales) {
    EXPECT_EQ(kv::f16::code_bytes(1), 2u) << "the default takes two bytes an element";
    EXPECT_EQ(kv::f16::scale_bytes(128), 0u);
    EXPECT_EQ(bits_per_value<kv::f32>(128), 32.0);
    EXPECT_EQ(bits_per_value<kv::f16>(128), 16.0);
    EXPECT_EQ(bits_per_value<kv::int8<16>>(128), 9.0);
    EXPECT_EQ(bits_per_value<kv::int8<32>>(128), 8.5);
    EXPECT_EQ(bits_per_value<kv::int8<128>>(128), 8.125);
    EXPECT_EQ(bits_per_value<kv::fp8<32>>(128), 8.5);
    EXPECT_EQ(bits_per_value<kv::fp8<128>>(128), 8.125);
    EXPECT_EQ(bits_per_value<kv::int4<32>>(128), 4.5);
    EXPECT_EQ((bits_per_value<kv::int4<16, kv::plain>>(80)), 5.0);
    EXPECT_EQ(bits_per_value<kv::int4<64>>(128), 4.25);
}

TEST(KvCodec, NamesAndRotationAreThoseOfTheType) {
    EXPECT_EQ(kv::f16::name, "f16");
    EXPECT_EQ(kv::fp8<>::name, "fp8");
    EXPECT_EQ(kv::fp8<64>::spelling.view(), "kv::fp8<64>");
    EXPECT_EQ(kv::int4<>::name, "int4");
    EXPECT_EQ((kv::int4<32, kv::plain>::name), "int4-plain");
    static_assert(kv::int4<>::rotates && !kv::int4<32, kv::plain>::rotates);
    EXPECT_EQ(kv::int8<>::name, "int8");
    EXPECT_EQ((kv::int8<32, kv::plain>::name), "int8-plain");
    static_assert(kv::int8<>::rotates && !kv::int8<32, kv::plain>::rotates);
    static_assert(!kv::fp8<>::rotates && !kv::f16::rotates && !kv::f32::rotates);
    static_assert(std::is_same_v<kv::int8<>, kv::int8<32, kv::rotated>>);
    static_assert(std::is_same_v<kv::int4<>, kv::int4<32, kv::rotated>>);
}

TEST(KvDense, EveryCodeOfSixteenBitsKeepsItsValue) {
    for (unsigned code = 0; code < 65536; ++code) {
        const Coded coded{{static_cast<std::byte>(code & 0xffu), static_cast<std::byte>(code >> 8)}, {}};
        const std::vector<float> row = decode<kv::f16>(coded, 1);
        if (std::isnan(row[0])) {
            ASSERT_TRUE((code & 0x7c00u) == 0x7c00u && (code & 0x3ffu) != 0);
        } else {
            ASSERT_EQ(encode<kv::f16>(row).codes, coded.codes);
        }
    }
    const auto row = gaussian(80, 1);
    EXPECT_EQ(decode<kv::f32>(encode<kv::f32>(row), 80), row);
    const auto halves = decode<kv::f16>(encode<kv::f16>(row), 80);
    for (std::size_t i = 0; i < 80; ++i) EXPECT_EQ(halves[i], static_cast<float>(f16(row[i])));
}

TEST(KvInt8, EveryCodeIsScaleTimesCode) {
    const auto check = [](auto codec) {
        using C = decltype(codec);
        Coded coded{std::vector<std::byte>(256), std::vector<std::byte>(C::scale_bytes(256))};
        for (unsigned code = 0; code < 256; ++code) coded.codes[code] = static_cast<std::byte>(code);
        for (std::size_t g = 0; g < 256 / C::group; ++g)
            put_scale(coded, g, 0.01f * static_cast<float>(g + 1));
        const auto row = decode<C>(coded, 256);
        for (int code = 0; code < 256; ++code) {
            const auto i = static_cast<std::size_t>(code);
            const int value = code < 128 ? code : code - 256;
            ASSERT_EQ(static_cast<double>(row[i]), scale_of(coded, i / C::group) * value);
        }
    };
    check(kv::int8<16>{});
    check(kv::int8<32>{});
    check(kv::int8<64>{});
    check(kv::int8<128>{});
}

/// Sign, exponent and mantissa by their definition, in double.
double e4m3_value(int code) {
    const int exponent = code / 8 % 16;
    const int mantissa = code % 8;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    return code < 128 ? magnitude : -magnitude;
}

TEST(E4m3, EveryCodeHasItsValueAndComesBack) {
    for (int code = 0; code < 256; ++code) {
        const kv::e4m3 stored(static_cast<std::uint8_t>(code));
        const auto value = static_cast<float>(stored);
        if (code % 128 == 127) {
            EXPECT_TRUE(std::isnan(value)) << code;
        } else {
            EXPECT_EQ(static_cast<double>(value), e4m3_value(code));
            EXPECT_EQ(std::signbit(value), code >= 128);
            EXPECT_EQ(kv::e4m3(value), stored);
        }
        EXPECT_EQ(kv::e4m3(value).bits % 128, code % 128);
    }
    static_assert(static_cast<float>(kv::e4m3(448.0f)) == 448 && kv::e4m3(-0.0f).bits == 0x80);
}

TEST(E4m3, RoundsToTheNearestAndTiesToEven) {
    for (int code = 0; code < 126; ++code) {
        const auto low = static_cast<float>(e4m3_value(code));
        const auto high = static_cast<float>(e4m3_value(code + 1));
        const float middle = (low + high) / 2;  // exact
        for (const float sign : {1.0f, -1.0f}) {
            const int negative = sign < 0 ? 128 : 0;
            EXPECT_EQ(kv::e4m3(sign * std::nextafter(middle, 0.0f)).bits, negative + code);
            EXPECT_EQ(kv::e4m3(sign * middle).bits, negative + code + code % 2);
            EXPECT_EQ(kv::e4m3(sign * std::nextafter(middle, 1000.0f)).bits, negative + code + 1);
        }
    }
    for (const float beyond : {449.0f, 464.0f, 480.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
        EXPECT_EQ(kv::e4m3(beyond).bits, 0x7e);
        EXPECT_EQ(kv::e4m3(-beyond).bits, 0xfe);
    }
    EXPECT_EQ(kv::e4m3(1e-30f).bits, 0);
}

TEST(KvFp8, EveryCodeIsScaleTimesItsValue) {
    const auto check = [](auto codec) {
        using C = decltype(codec);
        Coded coded{std::vector<std::byte>(256), std::vector<std::byte>(C::scale_bytes(256))};
        for (unsigned code = 0; code < 256; ++code) coded.codes[code] = static_cast<std::byte>(code);
        for (std::size_t g = 0; g < 256 / C::group; ++g)
            put_scale(coded, g, 0.01f * static_cast<float>(g + 1));
        const auto row = decode<C>(coded, 256);
        for (int code = 0; code < 256; ++code) {
            const auto i = static_cast<std::size_t>(code);
            if (code % 128 == 127) {
                ASSERT_TRUE(std::isnan(row[i]));
            } else {
                ASSERT_EQ(static_cast<double>(row[i]), scale_of(coded, i / C::group) * e4m3_value(code));
            }
        }
    };
    check(kv::fp8<16>{});
    check(kv::fp8<32>{});
    check(kv::fp8<64>{});
    check(kv::fp8<128>{});
}

TEST(KvFp8, NoCodeIsNearer) {
    const auto check = [](auto codec) {
        using C = decltype(codec);
        for (unsigned seed = 0; seed < 30; ++seed) {
            auto row = gaussian(128, seed);
            // Magnitudes of many orders, down to those below the least code.
            for (std::size_t i = 0; i < row.size(); i += 3) row[i] *= std::exp2(-static_cast<float>(i % 24));
            const Coded coded = encode<C>(row);
            const auto decoded = decode<C>(coded, 128);
            for (std::size_t i = 0; i < 128; ++i) {
                const double scale = scale_of(coded, i / C::group);
                const auto value = static_cast<double>(row[i]);
                double best = 1e300;
                for (int code = 0; code < 256; ++code) {
                    if (code % 128 != 127) best = std::min(best, std::fabs(scale * e4m3_value(code) - value));
                }
                // The quotient is rounded before it is: near a tie either code will do.
                ASSERT_LE(std::fabs(static_cast<double>(decoded[i]) - value), best + 1e-6 * std::fabs(value));
            }
            for (std::size_t g = 0; g < 128 / C::group; ++g) {
                bool full = false;  // the greatest takes the greatest code
                for (std::size_t i = 0; i < C::group; ++i) {
                    full = full || static_cast<int>(coded.codes[g * C::group + i]) % 128 == 0x7e;
                }
                ASSERT_TRUE(full);
            }
            EXPECT_EQ(encode<C>(decoded).codes, coded.codes) << "coding again keeps the codes";
            EXPECT_EQ(encode<C>(decoded).scales, coded.scales);
        }
    };
    check(kv::fp8<16>{});
    check(kv::fp8<32>{});
    check(kv::fp8<64>{});
    check(kv::fp8<128>{});
}

TEST(KvCodec, WhatIsNoNumberSpoilsItsGroupVisiblyAndNoOther) {
    const auto check = [](auto codec) {
        using C = decltype(codec);
        const auto clean = gaussian(4 * C::group, 9);
        const Coded truth = encode<C>(clean);
        const auto decoded = decode<C>(truth, clean.size());
        for (const float bad :
             {std::nanf(""), -std::nanf(""), std::nanf("77"), HUGE_VALF, -HUGE_VALF, 1e30f}) {
            for (const std::size_t place : {std::size_t{0}, C::group / 2 + 1, C::group - 1}) {
                auto row = clean;
                row[2 * C::group + place] = bad;
                const Coded coded = encode<C>(row);
                const auto got = decode<C>(coded, row.size());
                for (std::size_t i = 0; i < row.size(); ++i) {
                    if (i / C::group == 2) {
                        ASSERT_TRUE(std::isnan(got[i])) << C::name << " " << bad << " at " << i;
                    } else {
                        ASSERT_EQ(got[i], decoded[i]) << C::name;
                    }
                }
                EXPECT_EQ(coded.scales[4], std::byte{0x00});
                EXPECT_EQ(coded.scales[5], std::byte{0x7e});
            }
        }
    };
    check(kv::int8<16>{});
    check(kv::int8<32>{});
    check(kv::fp8<32>{});
    check(kv::fp8<128>{});
    check(kv::int4<16>{});
    check(kv::int4<32>{});
    check(kv::int4<128, kv::plain>{});
}

TEST(KvInt4, EveryByteHoldsTwoCodes) {
    const auto check = [](auto codec) {
        using C = decltype(codec);
        Coded coded{std::vector<std::byte>(256), std::vector<std::byte>(C::scale_bytes(512))};
        for (unsigned byte = 0; byte < 256; ++byte) coded.codes[byte] = static_cast<std::byte>(byte);
        for (std::size_t g = 0; g < 512 / C::group; ++g)
            put_scale(coded, g, (g % 2 == 0 ? 0.3f : -0.2f) + static_cast<float>(g));
        const auto row = decode<C>(coded, 512);
        for (std::size_t byte = 0; byte < 256; ++byte) {
            const std::size_t group = byte / (C::group / 2);
            const std::size_t low = group * C::group + byte % (C::group / 2);
            ASSERT_EQ(static_cast<double>(row[low]),
                      scale_of(coded, group) * (static_cast<double>(byte % 16) - 8));
            ASSERT_EQ(static_cast<double>(row[low + C::group / 2]),
                      scale_of(coded, group) * (static_cast<double>(byte / 16) - 8));
        }
    };
    check(kv::int4<16>{});
    check(kv::int4<32>{});
    check(kv::int4<64, kv::plain>{});
    check(kv::int4<128>{});
}

TEST(KvInt8, ErrsByHalfAStep) {
    const auto check = [](auto codec) {
        using C = decltype(codec);
        for (unsigned seed = 0; seed < 50; ++seed) {
            const auto row = gaussian(128, seed);
            const Coded coded = encode<C>(row);
            const auto decoded = decode<C>(coded, 128);
            for (std::size_t i = 0; i < 128; ++i) {
                // The step is the rounded one that a reader sees, so its rounding adds nothing.
                ASSERT_LE(std::fabs(static_cast<double>(decoded[i]) - static_cast<double>(row[i])),
                          0.5001 * scale_of(coded, i / C::group));
            }
            EXPECT_EQ(encode<C>(decoded).codes, coded.codes) << "coding again keeps the codes";
        }
    };
    check(kv::int8<16>{});
    check(kv::int8<32>{});
    check(kv::int8<128>{});
}

TEST(KvInt4, ErrsByWhatTheWidestAndTheFinestCandidateLeave) {
    for (unsigned seed = 0; seed < 50; ++seed) {
        const auto row = gaussian(128, seed);
        const auto decoded = decode<kv::int4<32>>(encode<kv::int4<32>>(row), 128);
        for (std::size_t g = 0; g < 4; ++g) {
            float greatest = 0;
            for (std::size_t i = g * 32; i < g * 32 + 32; ++i)
                greatest = std::max(greatest, std::fabs(row[i]));
            // At most 7.25 steps reach the greatest value, before refitting; at least 8.75, of which the opposite end
            // has seven.
            for (std::size_t i = g * 32; i < g * 32 + 32; ++i) {
                ASSERT_LE(std::fabs(decoded[i] - row[i]), greatest * (1 - 7 / 8.75f) * 1.2f);
            }
        }
    }
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double error = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        sum += error * error;
    }
    return sum;
}

TEST(KvInt4, TheChosenScaleErrsLessThanTheSimpleOne) {
    double fitted = 0;
    double unfitted = 0;
    for (unsigned seed = 0; seed < 50; ++seed) {
        const auto row = gaussian(128, seed);
        const auto decoded = decode<kv::int4<32>>(encode<kv::int4<32>>(row), 128);
        for (std::size_t g = 0; g < 4; ++g) {
            float extreme = 0;
            for (std::size_t i = g * 32; i < g * 32 + 32; ++i) {
                if (std::fabs(row[i]) > std::fabs(extreme)) extreme = row[i];
            }
            // The scale that puts the extreme value at -8.
            const float scale = static_cast<float>(f16(extreme / -8.0f));
            for (std::size_t i = g * 32; i < g * 32 + 32; ++i) {
                const float plain = scale * std::clamp(std::nearbyint(row[i] / scale), -8.0f, 7.0f);
                const double error = static_cast<double>(decoded[i] - row[i]);
                const double plain_error = static_cast<double>(plain - row[i]);
                fitted += error * error;
                unfitted += plain_error * plain_error;
            }
        }
    }
    EXPECT_LT(fitted, 0.92 * unfitted);
}

// A search in double over many more scales: what the few candidates give away.
TEST(KvInt4, NoScaleErrsMuchLess) {
    double chosen = 0;
    double best = 0;
    for (unsigned seed = 0; seed < 20; ++seed) {
        const auto row = gaussian(128, seed);
        chosen += squared_error(decode<kv::int4<32>>(encode<kv::int4<32>>(row), 128), row);
        for (std::size_t g = 0; g < 4; ++g) {
            double greatest = 0;
            for (std::size_t i = g * 32; i < g * 32 + 32; ++i) {
                greatest = std::max(greatest, std::fabs(static_cast<double>(row[i])));
            }
            double least = 1e300;
            for (double steps = 6; steps < 12; steps += 0.01) {
                for (const double scale : {greatest / steps, -greatest / steps}) {
                    double sum = 0;
                    for (std::size_t i = g * 32; i < g * 32 + 32; ++i) {
                        const auto value = static_cast<double>(row[i]);
                        const double error =
                            scale * std::clamp(std::nearbyint(value / scale), -8.0, 7.0) - value;
                        sum += error * error;
                    }
                    least = std::min(least, sum);
                }
            }
            best += least;
        }
    }
    EXPECT_LT(chosen, 1.06 * best);
}

TEST(KvInt4, TurnedRowsErrLessWhereOneValueStandsOut) {
    for (const std::size_t dim : {64u, 128u}) {
        double plain = 0;
        double turned = 0;
        for (unsigned seed = 0; seed < 20; ++seed) {
            auto row = gaussian(dim, seed);
            row[seed % dim] = 30.0f;
            plain += squared_error(decode<kv::int4<32, kv::plain>>(encode<kv::int4<32, kv::plain>>(row), dim),
                                   row);
            auto rotated = row;
            kv::rotate(rotated.data(), dim);
            auto decoded = decode<kv::int4<32>>(encode<kv::int4<32>>(rotated), dim);
            kv::rotate(decoded.data(), dim);
            turned += squared_error(decoded, row);
        }
        EXPECT_LT(turned, 0.8 * plain) << dim;
    }
}

TEST(KvInt4, AnEightBitRowErrsLess) {
    const auto row = gaussian(128, 3);
    EXPECT_LT(100 * squared_error(decode<kv::int8<32>>(encode<kv::int8<32>>(row), 128), row),
              squared_error(decode<kv::int4<32>>(encode<kv::int4<32>>(row), 128), row));
}

TEST(KvCodec, ZerosStayZerosAndDenormalsStaySmall) {
    const auto check = [](auto codec) {
        using C = decltype(codec);
        const std::vector<float> zeros(128, 0.0f);
        for (const float value : decode<C>(encode<C>(zeros), 128)) ASSERT_EQ(value, 0.0f);
        for (const float tiny : {1e-41f, 1e-30f, 1e-12f}) {
            std::vector<float> row(128, tiny);
            row[7] = -2 * tiny;
            for (const float value : decode<C>(encode<C>(row), 128)) ASSERT_LE(std::fabs(value), 4 * tiny);
        }
    };
    check(kv::f32{});
    check(kv::f16{});
    check(kv::fp8<32>{});
    check(kv::int8<32>{});
    check(kv::int4<32>{});
    check(kv::int4<32, kv::plain>{});
}

TEST(Rotate, BlocksAreTheGreatestPowersOfTwo) {
    static_assert(kv::rotation_block(128) == 128 && kv::rotation_block(512) == 512 &&
                  kv::rotation_block(1024) == 512);
    static_assert(kv::rotation_block(96) == 32 && kv::rotation_block(80) == 16 && kv::rotation_block(2) == 2);
}

TEST(Rotate, IsOrthonormalAndItsOwnInverse) {
    for (const std::size_t dim : {2u, 4u, 8u, 16u, 32u, 64u, 128u, 256u, 512u, 96u, 80u}) {
        const auto row = gaussian(dim, static_cast<unsigned>(dim));
        const auto other = gaussian(dim, static_cast<unsigned>(dim) + 1);
        auto turned = row;
        auto other_turned = other;
        kv::rotate(turned.data(), dim);
        kv::rotate(other_turned.data(), dim);
        double before = 0;
        double after = 0;
        double norm = 0;
        double norm_turned = 0;
        for (std::size_t i = 0; i < dim; ++i) {
            before += static_cast<double>(row[i]) * static_cast<double>(other[i]);
            after += static_cast<double>(turned[i]) * static_cast<double>(other_turned[i]);
            norm += static_cast<double>(row[i]) * static_cast<double>(row[i]);
            norm_turned += static_cast<double>(turned[i]) * static_cast<double>(turned[i]);
        }
        EXPECT_NEAR(before, after, 1e-4) << dim;
        EXPECT_NEAR(norm, norm_turned, 1e-4 * norm) << dim;
        EXPECT_GT(squared_error(turned, row), 1e-3) << "it turns";
        kv::rotate(turned.data(), dim);
        for (std::size_t i = 0; i < dim; ++i) EXPECT_NEAR(turned[i], row[i], 1e-5f) << dim;
    }
}

TEST(Rotate, SpreadsOneValueOverItsBlock) {
    std::vector<float> row(96, 0.0f);
    row[40] = 8.0f;
    kv::rotate(row.data(), 96);
    for (std::size_t i = 0; i < 96; ++i) {
        EXPECT_NEAR(std::fabs(row[i]), i >= 32 && i < 64 ? 8.0f / std::sqrt(32.0f) : 0.0f, 1e-6f);
    }
}

}  // namespace
