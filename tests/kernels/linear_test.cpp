// SPDX-License-Identifier: Apache-2.0
// Matrix kernels of every codec and instruction set: products have the bits of their definition, are near those in
// double precision, and depend neither on the other tokens nor on which groups of rows go together.
#include <zse/kernels/bind.hpp>

#include <gtest/gtest.h>
#include <support/activation_rows.hpp>
#include <support/instruction_sets.hpp>
#include <support/packed_matrix.hpp>
#include <support/random.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace {

namespace weights = zse::weights;
using support::ActivationRows;
using support::fused;
using support::gaussian;
using support::on_each_isa;
using support::PackedMatrix;
using weights::Format;
using weights::FormatId;
using zse::kernels::Activations;
using zse::kernels::CodedActivations;
using zse::kernels::Isa;
using zse::kernels::LinearTile;
using zse::kernels::Matrix;

const std::vector<support::Codec>& codecs() {
    static const std::vector<support::Codec> all{
        support::codec<weights::f32>(),       support::codec<weights::f16>(),
        support::codec<weights::bf16>(),      support::codec<weights::int8<32>>(),
        support::codec<weights::int8<128>>(), support::codec<weights::nf4<32>>(),
        support::codec<weights::nf4<64>>(),   support::codec<weights::q4_0>(),
        support::codec<weights::q4_1>(),      support::codec<weights::q8_0>()};
    return all;
}

PackedMatrix random_matrix(const support::Codec& codec, std::uint32_t rows, std::uint32_t columns) {
    return {codec, rows, columns, gaussian(std::size_t{rows} * columns, 1, 0.05f).data()};
}

/// y of all tokens and rows: by pairs of groups `apart` from each other, or group by group for 0.
std::vector<float> multiply(const Matrix& matrix, const Activations& x, std::size_t apart = 0) {
    constexpr std::size_t group_rows = Matrix::group_rows;
    std::vector<float> y(x.tokens * matrix.rows, std::nanf(""));
    std::vector<bool> done(matrix.groups());
    for (std::size_t group = 0; group < matrix.groups(); ++group) {
        if (done[group]) continue;
        const bool both = apart != 0 && group + apart < matrix.groups() && !done[group + apart];
        for (std::size_t token = 0; token < x.tokens; token += CodedActivations::tile_tokens) {
            alignas(64) float tile_y[8][2][16];
            LinearTile tile;
            tile.tokens = static_cast<std::uint32_t>(CodedActivations::in_tile(token, x.tokens));
            tile.columns = matrix.columns;
            tile.y = tile_y[0][0];
            tile.groups[0] = matrix.group(0, group);
            tile.groups[1] = both ? matrix.group(0, group + apart) : nullptr;
            if (matrix.reads_codes()) {
                tile.x = x.codes + token * CodedActivations::bytes(x.columns);
            } else {
                tile.x = x.floats + token * x.columns;
            }
            matrix.kernels->multiply(tile);
            for (std::size_t g = 0; g < (both ? 2u : 1u); ++g) {
                const std::size_t first = (group + g * apart) * group_rows;
                done[group + g * apart] = true;
                for (std::size_t t = 0; t < tile.tokens; ++t) {
                    for (std::size_t r = first; r < std::min<std::size_t>(first + group_rows, matrix.rows);
                         ++r) {
                        y[(token + t) * matrix.rows + r] = tile_y[t][g][r - first];
                    }
                }
            }
        }
    }
    return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// A row of a format with scales, taken apart as the format is defined.
struct Integers {
    std::vector<int> codes;
    std::vector<float> scales, minima;  ///< of each block
};

Integers taken_apart(Format format, const std::byte* row, std::size_t columns) {
    const auto half = [](const std::byte* at) {
        zse::f16 value;
        std::memcpy(&value, at, sizeof value);
        return static_cast<float>(value);
    };
    const auto byte = [](const std::byte* at) { return static_cast<unsigned>(*at); };
    Integers result;
    for (std::size_t k = 0; k < columns; ++k) {
        const std::size_t i = k % format.group;
        const std::byte* block = row + k / format.group * format.group_bytes();
        const bool minimum = format.id == FormatId::q4_1;
        if (i == 0) {
            result.scales.push_back(half(block));
            result.minima.push_back(minimum ? half(block + 2) : 0.0f);
        }
        const std::byte* codes = block + (minimum ? 4 : 2);
        if (format.id == FormatId::int8 || format.id == FormatId::q8_0) {
            result.codes.push_back(static_cast<std::int8_t>(byte(codes + i)));
            continue;
        }
        const std::size_t below = format.group / 2u;
        const unsigned nibble = i < below ? byte(codes + i) & 15u : byte(codes + i - below) >> 4u;
        if (format.id == FormatId::nf4) {
            result.codes.push_back(weights::nf4_codes[nibble]);
        } else {
            result.codes.push_back(static_cast<int>(nibble) - (format.id == FormatId::q4_0 ? 8 : 0));
        }
    }
    return result;
}

/// A product as the kernels define it, and what its roundings may add up to.
struct Product {
    float defined = 0;  ///< with a fused multiply-add, bit for bit
    double exact = 0;
    double bound = 0;
};

/// Sums of products of codes are exact. Then, for each 32 columns, the scales are multiplied (one rounding; nf4 scales
/// by 1/127 before, two more) and the sum is added (one rounding, or two without a fused multiply-add); a minimum
/// is one more addition, of a factor that was rounded once. Each rounding is 2^-24 of its result, or 2^-150 of one
/// below the normal floats; a sum is never more than the sum of all magnitudes.
Product coded_product(Format format, const Integers& w, const ActivationRows& x, std::size_t token) {
    Product p;
    double magnitudes = 0;
    double tiny = 0;
    std::size_t additions = 0;
    for (std::size_t index = 0; index < x.blocks(); ++index) {
        const std::size_t first = index * CodedActivations::block;
        const std::size_t last = std::min(first + CodedActivations::block, w.codes.size());
        int total = 0;
        for (std::size_t k = first; k < last; ++k) total += w.codes[k] * x.code(token, k);
        const std::size_t block = first / format.group;
        const bool table = format.id == FormatId::nf4;
        const float scale =
            (table ? w.scales[block] * (1.0f / 127.0f) : w.scales[block]) * x.scale(token, index);
        p.defined = std::fma(static_cast<float>(total), scale, p.defined);
        const double term = static_cast<double>(total) * static_cast<double>(w.scales[block]) *
                            static_cast<double>(x.scale(token, index)) / (table ? 127.0 : 1.0);
        p.exact += term;
        magnitudes += std::fabs(term);
        tiny += (std::abs(total) * 3 + 2) * 0x1p-149;
        additions += 1;
        if (format.id == FormatId::q4_1) {
            p.defined = std::fma(w.minima[block], x.scaled_sum(token, index), p.defined);
            const double offset = static_cast<double>(w.minima[block]) *
                                  static_cast<double>(x.scale(token, index)) * x.sum(token, index);
            p.exact += offset;
            magnitudes += std::fabs(offset);
            tiny += (std::fabs(static_cast<double>(w.minima[block])) + 2) * 0x1p-149;
            additions += 1;
        }
    }
    p.bound = static_cast<double>(additions + 4) * 0x1p-24 * magnitudes * 1.001 + tiny;  // squares of 2^-24
    return p;
}

/// Weights without scales: each column is multiplied and added in one rounding, or two.
Product dense_product(const float* w, const ActivationRows& x, std::size_t token) {
    Product p;
    double magnitudes = 0;
    const std::size_t columns = x->columns;
    for (std::size_t k = 0; k < columns; ++k) {
        const float value = x->floats[token * columns + k];
        p.defined = std::fma(w[k], value, p.defined);
        p.exact += static_cast<double>(w[k]) * static_cast<double>(value);
        magnitudes += std::fabs(static_cast<double>(w[k]) * static_cast<double>(value));
    }
    const auto roundings = static_cast<double>(columns + 1);
    p.bound = roundings * 0x1p-24 * magnitudes * 1.001 + 2 * roundings * 0x1p-149;
    return p;
}

void expect_products(Isa isa, const PackedMatrix& w, const ActivationRows& x, const std::string& what) {
    const Matrix matrix = w.on(isa);
    const auto decoded = w.decoded();
    const auto y = multiply(matrix, *x, 1);
    for (std::size_t r = 0; r < matrix.rows; ++r) {
        const bool coded = matrix.reads_codes();
        const Integers row = coded ? taken_apart(matrix.format, w.stored(r), matrix.columns) : Integers{};
        for (std::size_t t = 0; t < x->tokens; ++t) {
            const Product p = coded ? coded_product(matrix.format, row, x, t)
                                    : dense_product(decoded.data() + r * matrix.columns, x, t);
            const float value = y[t * matrix.rows + r];
            ASSERT_NEAR(static_cast<double>(value), p.exact, p.bound)
                << name(matrix.format) << " " << matrix.columns << " columns, " << what << ", token " << t
                << " row " << r;
            if (fused(isa)) {
                ASSERT_EQ(value, p.defined)
                    << name(matrix.format) << " " << matrix.columns << " columns, " << what;
            }
        }
    }
}

TEST(Linear, ReadsTheWeightsThatItsCodecDecodes) {
    // taken_apart() is what the products below are measured against; here it is measured against the codecs.
    for (const support::Codec& codec : codecs()) {
        if (codec.format.group == 1) continue;
        const PackedMatrix w = random_matrix(codec, 5, 150);
        const auto decoded = w.decoded();
        for (std::size_t r = 0; r < 5; ++r) {
            const Integers row = taken_apart(codec.format, w.stored(r), 150);
            for (std::size_t k = 0; k < 150; ++k) {
                const auto scale = static_cast<double>(row.scales[k / codec.format.group]);
                const double value =
                    codec.format.id == FormatId::nf4
                        ? scale * row.codes[k] / 127
                        : scale * row.codes[k] + static_cast<double>(row.minima[k / codec.format.group]);
                // Levels of nf4 are read in steps of 1/127 of the scale; the others are rounded once.
                const double bound =
                    codec.format.id == FormatId::nf4 ? scale * 0.5001 / 127 : 0x1p-24 * std::fabs(value);
                ASSERT_NEAR(value, static_cast<double>(decoded[r * 150 + k]), bound) << name(codec.format);
            }
        }
    }
}

TEST(Linear, HasTheBitsOfItsDefinitionAndIsNearTheProductInDoublePrecision) {
    on_each_isa([](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            for (const std::uint32_t columns : {1u, 16u, 32u, 33u, 50u, 64u, 97u, 128u, 160u, 300u, 576u}) {
                const PackedMatrix w = random_matrix(codec, 37, columns);
                for (const std::size_t tokens : {1u, 2u, 9u}) {
                    const auto rows = gaussian(tokens * columns, 5);
                    expect_products(isa, w, ActivationRows(isa, tokens, columns, rows.data()),
                                    std::to_string(tokens) + " tokens");
                    if (testing::Test::HasFatalFailure()) return;
                }
            }
        }
    });
}

/// Rows of any bytes but with finite scales: all codes, scales of both signs and below the normal halves.
PackedMatrix any_codes(const support::Codec& codec, std::uint32_t rows, std::uint32_t columns) {
    const std::size_t row_bytes = codec.format.row_bytes(columns);
    auto stored = support::random_bytes(rows * row_bytes, 3);
    const auto scales = gaussian(stored.size(), 4);
    for (std::size_t at = 0; at < stored.size(); at += codec.format.group_bytes()) {
        for (std::size_t part = 0; part < (codec.format.id == FormatId::q4_1 ? 2u : 1u); ++part) {
            const zse::f16 scale(at % 3 == 0 ? scales[at + part] * 0x1p-20f : scales[at + part]);
            std::memcpy(stored.data() + at + part * 2, &scale, sizeof scale);
        }
    }
    return {codec, rows, columns, stored};
}

TEST(Linear, IsExactForAllCodesAndExtremeActivations) {
    on_each_isa([](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            if (codec.format.group == 1) continue;
            const std::uint32_t columns = 256;
            const PackedMatrix w = any_codes(codec, 64, columns);
            ActivationRows x(10, columns);
            for (std::size_t t = 0; t < 10; ++t) {
                x.set(t, t % 2 == 0 ? 1.0f : 0x1p-7f, [&](std::size_t k) {
                    switch (t) {
                        case 0: return 127;
                        case 1: return -127;
                        case 2: return 0;
                        case 3: return k % 2 == 0 ? 127 : -127;
                        case 4: return k % 4 < 2 ? -127 : 127;
                        case 5: return k % 32 < 16 ? 127 : -127;
                        case 6: return k % 5 == 0 ? -127 : 0;
                        case 7: return static_cast<int>(k % 255) - 127;
                        case 8: return k % 32 == 31 ? 127 : 0;
                        default: return k / 64 % 2 == 0 ? 127 : -127;
                    }
                });
            }
            expect_products(isa, w, x, "extreme codes");
        }
    });
}

TEST(Linear, MeetsTheGreatestSumsThatCodesCanMake) {
    // All rows at the greatest or least code, all activations at +127 or -127: the sums that 16 bits just hold.
    on_each_isa([](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            if (codec.format.group == 1) continue;
            const std::uint32_t columns = 128;
            for (const unsigned code : {0x00u, 0x7fu, 0x80u, 0x81u, 0xffu, 0x0fu, 0xf0u}) {
                std::vector<std::byte> stored(16 * codec.format.row_bytes(columns),
                                              static_cast<std::byte>(code));
                for (std::size_t at = 0; at < stored.size(); at += codec.format.group_bytes()) {
                    const zse::f16 one(1.0f);
                    std::memcpy(stored.data() + at, &one, sizeof one);
                    if (codec.format.id == FormatId::q4_1)
                        std::memcpy(stored.data() + at + 2, &one, sizeof one);
                }
                const PackedMatrix w(codec, 16, columns, stored);
                ActivationRows x(4, columns);
                x.set(0, 1.0f, [](std::size_t) { return 127; });
                x.set(1, 1.0f, [](std::size_t) { return -127; });
                x.set(2, 1.0f, [](std::size_t k) { return k % 2 == 0 ? 127 : -127; });
                x.set(3, 1.0f, [](std::size_t k) { return k % 32 < 16 ? 127 : -127; });
                expect_products(isa, w, x, "all codes " + std::to_string(code));
            }
        }
    });
}

TEST(Linear, HoldsForActivationsOfAnyMagnitude) {
    on_each_isa([](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            const std::uint32_t columns = 96;
            const PackedMatrix w = random_matrix(codec, 21, columns);
            const auto ordinary = gaussian(3 * columns, 8);
            for (const float factor : {1e30f, 1e-30f, 1e-37f, 1e-40f, 0.0f}) {
                auto x = ordinary;
                for (float& value : x) value *= factor;
                expect_products(isa, w, ActivationRows(isa, 3, columns, x.data()),
                                "factor " + std::to_string(factor));
                expect_products(isa, w, ActivationRows(isa, 1, columns, x.data()),
                                "factor " + std::to_string(factor));
            }
            auto mixed = ordinary;
            for (std::size_t i = 0; i < mixed.size(); i += 7) {
                mixed[i] = i % 2 == 0 ? 1e30f : std::numeric_limits<float>::denorm_min();
            }
            expect_products(isa, w, ActivationRows(isa, 3, columns, mixed.data()), "mixed");
            if (testing::Test::HasFatalFailure()) return;
        }
    });
}

TEST(Linear, WhatIsNoNumberShowsInItsTokenAlone) {
    on_each_isa([](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            const std::uint32_t columns = 96;
            const PackedMatrix w = random_matrix(codec, 21, columns);
            const auto ordinary = gaussian(5 * columns, 8);
            const auto expected = multiply(w.on(isa), *ActivationRows(isa, 5, columns, ordinary.data()));
            for (const float bad : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
                for (const std::size_t column : {0u, 31u, 50u, 95u}) {
                    auto x = ordinary;
                    x[2 * columns + column] = bad;
                    const auto y = multiply(w.on(isa), *ActivationRows(isa, 5, columns, x.data()));
                    for (std::size_t i = 0; i < y.size(); ++i) {
                        if (i / 21 == 2) {
                            ASSERT_FALSE(std::isfinite(y[i]))
                                << name(codec.format) << " " << bad << " at " << column;
                        } else {
                            ASSERT_EQ(y[i], expected[i])
                                << name(codec.format) << " " << bad << " at " << column;
                        }
                    }
                }
            }
        }
    });
}

TEST(Linear, BitsDependNeitherOnOtherTokensNorOnTheGroupsThatGoTogether) {
    on_each_isa([](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            for (const std::uint32_t columns : {16u, 50u, 97u, 320u}) {
                const std::uint32_t rows = 69;  // five groups, of which the last has five rows
                const PackedMatrix w = random_matrix(codec, rows, columns);
                constexpr std::size_t most = 20;
                const auto x = gaussian(most * columns, 4);
                std::vector<float> alone;
                for (std::size_t t = 0; t < most; ++t) {
                    const auto y =
                        multiply(w.on(isa), *ActivationRows(isa, 1, columns, x.data() + t * columns));
                    alone.insert(alone.end(), y.begin(), y.end());
                }
                for (std::size_t tokens = 1; tokens <= most; ++tokens) {
                    const ActivationRows all(isa, tokens, columns, x.data());
                    const std::vector<float> expected(
                        alone.begin(), alone.begin() + static_cast<std::ptrdiff_t>(tokens * rows));
                    for (const std::size_t apart : {0u, 1u, 2u, 3u}) {
                        ASSERT_TRUE(same_bits(multiply(w.on(isa), *all, apart), expected))
                            << name(codec.format) << " " << columns << " columns: a token alone and among "
                            << tokens << ", groups " << apart << " apart";
                    }
                }
            }
        }
    });
}

TEST(Linear, WritesOnlyItsGroupsAndTokens) {
    on_each_isa([](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            const PackedMatrix w = random_matrix(codec, 32, 64);
            const Matrix matrix = w.on(isa);
            for (std::uint32_t tokens = 1; tokens <= 8; ++tokens) {
                const ActivationRows x(isa, tokens, 64, gaussian(tokens * 64, 6).data());
                for (const std::size_t groups : {1u, 2u}) {
                    std::vector<float> y(2 * 8 * 16 + 16, 77.0f);
                    LinearTile tile;
                    tile.groups[0] = matrix.group(0, 0);
                    tile.groups[1] = groups == 2 ? matrix.group(0, 1) : nullptr;
                    if (matrix.reads_codes()) {
                        tile.x = x->codes;
                    } else {
                        tile.x = x->floats;
                    }
                    tile.tokens = tokens;
                    tile.columns = 64;
                    tile.y = y.data();
                    matrix.kernels->multiply(tile);
                    for (std::size_t i = 0; i < y.size(); ++i) {
                        const bool inside = i / 32 < tokens && i / 16 % 2 < groups;
                        ASSERT_EQ(y[i] != 77.0f, inside) << name(codec.format) << " " << i;
                    }
                }
            }
        }
    });
}

TEST(DecodeRow, EqualsTheScalarTruthBitForBit) {
    on_each_isa([](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            for (const std::uint32_t columns : {1u, 16u, 33u, 64u, 97u, 128u, 290u}) {
                const PackedMatrix w = random_matrix(codec, 19, columns);
                const auto truth = w.decoded();
                for (std::size_t r = 0; r < 19; ++r) {
                    std::vector<float> values(columns + 1, 77.0f);
                    w.on(isa).decode_row(r, values.data());
                    ASSERT_EQ(std::memcmp(values.data(), truth.data() + r * columns, columns * sizeof(float)),
                              0)
                        << name(codec.format) << " " << columns << " row " << r;
                    ASSERT_EQ(values[columns], 77.0f) << name(codec.format) << " writes beyond its row";
                }
            }
        }
    });
}

TEST(Bind, FindsTheKernelsThatThePolicyCanHold) {
    using zse::kernels::bind;
    using zse::kernels::matrix_kernels;
    on_each_isa([](Isa isa) {
        EXPECT_EQ(bind<weights::f16>(weights::format::f16, isa), matrix_kernels<weights::f16>(isa));
        EXPECT_EQ(bind<weights::f16>(weights::format::f32, isa), nullptr);
        EXPECT_EQ(bind<weights::nf4<64>>(weights::nf4<64>::format, isa),
                  matrix_kernels<weights::nf4<64>>(isa));
        EXPECT_EQ(bind<weights::nf4<64>>(weights::int8<32>::format, isa),
                  matrix_kernels<weights::int8<32>>(isa));
        EXPECT_EQ(bind<weights::nf4<64>>(weights::format::f16, isa), nullptr);
        EXPECT_EQ(bind<weights::as_stored>(weights::format::q4_1, isa), matrix_kernels<weights::q4_1>(isa));
        EXPECT_EQ(bind<weights::as_stored>(weights::format::q8_0, isa), matrix_kernels<weights::q8_0>(isa));
        EXPECT_EQ(bind<weights::as_stored>(weights::nf4<128>::format, isa), nullptr);
        for (const Isa other : zse::kernels::built_isas) {
            EXPECT_EQ(matrix_kernels<weights::q4_1>(isa) == matrix_kernels<weights::q4_1>(other),
                      isa == other);
        }
    });
}

}  // namespace
