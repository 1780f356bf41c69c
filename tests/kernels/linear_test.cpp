// SPDX-License-Identifier: Apache-2.0
// Matrix kernels of every codec: decoding equals the scalar truth, products are near those in double
// precision, and the bits of a row depend neither on the other tokens nor on how rows are shared out.
#include <zse/kernels/bind.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace {

namespace weights = zse::weights;
using zse::kernels::LinearTile;
using zse::kernels::Matrix;
using zse::kernels::MatrixKernels;

struct Codec {
    weights::Format format;
    const MatrixKernels* kernels;
    void (*encode)(const float*, std::size_t, std::byte*) noexcept;
    void (*decode)(const std::byte*, std::size_t, float*) noexcept;
    std::size_t width_step;  ///< rows of GGUF's blocks are whole blocks
};

template <class C>
Codec codec(std::size_t width_step) {
    return {C::format, zse::kernels::bind<C>(C::format), &C::encode_row, &C::decode_row, width_step};
}

const std::vector<Codec>& codecs() {
    static const std::vector<Codec> all{codec<weights::f32>(1),       codec<weights::f16>(1),
                                        codec<weights::bf16>(1),      codec<weights::int8<32>>(1),
                                        codec<weights::int8<128>>(1), codec<weights::nf4<32>>(1),
                                        codec<weights::nf4<64>>(1),   codec<weights::q4_0>(32),
                                        codec<weights::q4_1>(32),     codec<weights::q8_0>(32)};
    return all;
}

std::vector<float> gaussian(std::size_t count, unsigned seed, float deviation = 1.0f) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

/// A random matrix in a codec, and its rows as the codec's scalar code decodes them.
struct Weights {
    std::vector<std::byte> bytes;
    std::vector<float> decoded;
    Matrix matrix;

    Weights(const Codec& c, std::uint32_t rows, std::uint32_t columns, unsigned seed = 1)
        : decoded(rows * columns) {
        matrix.rows = rows;
        matrix.columns = columns;
        matrix.format = c.format;
        matrix.kernels = c.kernels;
        bytes.resize(matrix.bytes());
        matrix.data = bytes.data();
        const auto values = gaussian(decoded.size(), seed, 0.05f);
        for (std::size_t r = 0; r < rows; ++r) {
            std::byte* row = bytes.data() + r * matrix.row_bytes();
            c.encode(values.data() + r * columns, columns, row);
            c.decode(row, columns, decoded.data() + r * columns);
        }
    }
};

/// y of all rows and tokens; rows in tiles that begin at `splits`.
std::vector<float> multiply(const Matrix& matrix, const std::vector<float>& x, std::size_t tokens,
                            std::vector<std::size_t> splits = {}, bool accumulate = false,
                            float before = 0.0f) {
    std::vector<float> y(tokens * matrix.rows, before);
    std::vector<float> panel(zse::kernels::panel_floats(matrix.columns));
    splits.insert(splits.begin(), 0);
    splits.push_back(matrix.rows);
    for (std::size_t i = 0; i + 1 < splits.size(); ++i) {
        LinearTile tile;
        tile.x = x.data();
        tile.y = y.data();
        tile.tokens = tokens;
        tile.y_stride = matrix.rows;
        tile.first = splits[i];
        tile.last = splits[i + 1];
        tile.accumulate = accumulate;
        tile.panel = panel.data();
        matrix.kernels->linear(matrix, tile);
    }
    return y;
}

bool same_bits(const float* a, const float* b, std::size_t count) {
    return std::memcmp(a, b, count * sizeof(float)) == 0;
}

TEST(DecodeRow, EqualsTheScalarTruthBitForBit) {
    for (const Codec& c : codecs()) {
        for (std::uint32_t columns = 16; columns <= 1040; columns += columns < 150 ? 1 : 89) {
            const auto width = static_cast<std::uint32_t>(zse::round_up(columns, c.width_step));
            const Weights w(c, 1, width, columns);
            std::vector<float> values(width + 1, 77.0f);
            c.kernels->decode_row(w.bytes.data(), width, values.data());
            ASSERT_TRUE(same_bits(values.data(), w.decoded.data(), width)) << name(c.format) << " " << width;
            ASSERT_EQ(values[width], 77.0f) << name(c.format) << " writes beyond its row";
        }
    }
}

TEST(DecodeRow, EqualsTheScalarTruthForAnyBytes) {
    // Scales of every kind, negative and denormal ones too; a scale that is no number gives no number in
    // both.
    std::mt19937 random(3);
    for (const Codec& c : codecs()) {
        for (int repeat = 0; repeat < 300; ++repeat) {
            const std::size_t width = 256;
            std::vector<std::byte> row(c.format.row_bytes(width));
            for (std::byte& byte : row) byte = static_cast<std::byte>(random());
            std::vector<float> truth(width);
            std::vector<float> values(width);
            c.decode(row.data(), width, truth.data());
            c.kernels->decode_row(row.data(), width, values.data());
            for (std::size_t i = 0; i < width; ++i) {
                // Without F16C, Highway widens a half that is infinite or no number to a finite float.
                if (HWY_TARGET > HWY_AVX2 && c.format == weights::format::f16 && !std::isfinite(truth[i]))
                    continue;
                if (std::isnan(truth[i])) {
                    ASSERT_TRUE(std::isnan(values[i])) << name(c.format);
                } else {
                    ASSERT_TRUE(same_bits(&truth[i], &values[i], 1)) << name(c.format) << " " << truth[i];
                }
            }
        }
    }
}

/// Each product is added with one rounding into one of at least four lanes, and the lanes are added at the
/// end: at most columns / 4 + 4 roundings of 2^-24, each relative to the sum of magnitudes. Denormal products
/// err by 2^-150 each.
double bound(std::size_t columns, double magnitudes) {
    return (static_cast<double>(columns) / 4 + 4) * 0x1p-24 * magnitudes +
           static_cast<double>(columns) * 0x1p-149;
}

void expect_products(const Weights& w, const std::vector<float>& x, std::size_t tokens,
                     const std::string& what) {
    const std::size_t columns = w.matrix.columns;
    const auto y = multiply(w.matrix, x, tokens);
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t r = 0; r < w.matrix.rows; ++r) {
            double sum = 0;
            double magnitudes = 0;
            for (std::size_t k = 0; k < columns; ++k) {
                const double product =
                    static_cast<double>(x[t * columns + k]) * static_cast<double>(w.decoded[r * columns + k]);
                sum += product;
                magnitudes += std::fabs(product);
            }
            ASSERT_NEAR(static_cast<double>(y[t * w.matrix.rows + r]), sum, bound(columns, magnitudes))
                << name(w.matrix.format) << " " << what << " token " << t << " row " << r;
        }
    }
}

TEST(Linear, IsNearTheProductInDoublePrecision) {
    for (const Codec& c : codecs()) {
        for (const std::uint32_t columns : {16u, 33u, 100u, 576u, 1040u}) {
            const auto width = static_cast<std::uint32_t>(zse::round_up(columns, c.width_step));
            const Weights w(c, 21, width);
            for (const std::size_t tokens : {1u, 2u, 9u}) {
                expect_products(w, gaussian(tokens * width, 5), tokens, std::to_string(width));
            }
        }
    }
}

TEST(Linear, HoldsForExtremeActivations) {
    for (const Codec& c : codecs()) {
        const std::uint32_t columns = 96;
        const Weights w(c, 9, columns);
        const auto ordinary = gaussian(3 * columns, 8);
        for (const float factor : {1e30f, 1e-30f, 1e-40f, 0.0f}) {
            auto x = ordinary;
            for (float& value : x) value *= factor;
            expect_products(w, x, 3, "factor " + std::to_string(factor));
            expect_products(w, x, 1, "factor " + std::to_string(factor));
        }
        auto mixed = ordinary;
        for (std::size_t i = 0; i < mixed.size(); i += 7)
            mixed[i] = i % 2 == 0 ? 1e30f : std::numeric_limits<float>::denorm_min();
        expect_products(w, mixed, 3, "mixed");
    }
}

void expect_equal_bits(const Codec& c, std::uint32_t rows, std::uint32_t columns) {
    const Weights w(c, rows, columns);
    constexpr std::size_t most = 20;
    const auto x = gaussian(most * columns, 4);
    std::vector<float> alone;
    for (std::size_t t = 0; t < most; ++t) {
        const std::vector<float> one(x.begin() + static_cast<std::ptrdiff_t>(t * columns),
                                     x.begin() + static_cast<std::ptrdiff_t>((t + 1) * columns));
        const auto y = multiply(w.matrix, one, 1);
        alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const std::size_t tokens : {1u, 2u, 3u, 6u, 7u, 20u}) {
        const auto whole = multiply(w.matrix, x, tokens);
        ASSERT_TRUE(same_bits(whole.data(), alone.data(), whole.size()))
            << name(c.format) << " " << columns << ": a token alone and among " << tokens;
        for (const std::vector<std::size_t>& splits :
             {std::vector<std::size_t>{1}, {5}, {rows - 1}, {rows / 2}, {1, 3, 6, 7}}) {
            const auto parts = multiply(w.matrix, x, tokens, splits);
            ASSERT_TRUE(same_bits(whole.data(), parts.data(), whole.size()))
                << name(c.format) << " " << columns << ": rows split at " << splits[0] << ", " << tokens
                << " tokens";
        }
    }
}

TEST(Linear, BitsDependNeitherOnOtherTokensNorOnTheSplitOfRows) {
    for (const Codec& c : codecs()) {
        for (const std::uint32_t columns : {16u, 50u, 97u, 320u}) {
            expect_equal_bits(c, 37, static_cast<std::uint32_t>(zse::round_up(columns, c.width_step)));
        }
    }
}

TEST(Linear, BitsStayWhereThePanelHoldsFewerRows) {
    for (const Codec& c : codecs()) {
        if (c.format.id == weights::FormatId::q4_0 || c.format.id == weights::FormatId::nf4) {
            expect_equal_bits(c, 9, 4128);
            expect_equal_bits(c, 9, 8224);
        }
    }
    static_assert(zse::kernels::panel_floats(4096) * sizeof(float) == zse::KiB(256));
    static_assert(zse::kernels::panel_floats(8192) * sizeof(float) == zse::KiB(256));
    static_assert(zse::kernels::panel_stride(97) == 112);
}

TEST(Linear, AccumulatesOntoWhatIsThere) {
    for (const Codec& c : codecs()) {
        const Weights w(c, 13, 96);
        for (const std::size_t tokens : {1u, 2u, 7u}) {
            const auto x = gaussian(tokens * 96, 6);
            const auto plain = multiply(w.matrix, x, tokens);
            const auto added = multiply(w.matrix, x, tokens, {4}, true, 3.25f);
            for (std::size_t i = 0; i < plain.size(); ++i)
                ASSERT_EQ(added[i], 3.25f + plain[i]) << name(c.format);
        }
    }
}

TEST(Linear, WritesOnlyItsRows) {
    for (const Codec& c : codecs()) {
        const Weights w(c, 13, 96);
        for (const std::size_t tokens : {1u, 2u, 7u}) {
            const auto x = gaussian(tokens * 96, 6);
            std::vector<float> y(tokens * 20, 77.0f);  // rows of 13 within a stride of 20
            std::vector<float> panel(zse::kernels::panel_floats(96));
            LinearTile tile;
            tile.x = x.data();
            tile.y = y.data();
            tile.tokens = tokens;
            tile.y_stride = 20;
            tile.first = 2;
            tile.last = 11;
            tile.panel = panel.data();
            c.kernels->linear(w.matrix, tile);
            for (std::size_t i = 0; i < y.size(); ++i) {
                const bool inside = i % 20 >= 2 && i % 20 < 11;
                ASSERT_EQ(y[i] != 77.0f, inside) << name(c.format) << " " << i;
            }
        }
    }
}

TEST(Bind, FindsTheKernelsThatThePolicyCanHold) {
    using zse::kernels::bind;
    EXPECT_EQ(bind<weights::f16>(weights::format::f16), &zse::kernels::cpu::matrix_kernels<weights::f16>);
    EXPECT_EQ(bind<weights::f16>(weights::format::f32), nullptr);
    EXPECT_EQ(bind<weights::nf4<64>>(weights::nf4<64>::format),
              &zse::kernels::cpu::matrix_kernels<weights::nf4<64>>);
    EXPECT_EQ(bind<weights::nf4<64>>(weights::int8<32>::format),
              &zse::kernels::cpu::matrix_kernels<weights::int8<32>>);
    EXPECT_EQ(bind<weights::nf4<64>>(weights::format::f16), nullptr);
    EXPECT_EQ(bind<weights::as_stored>(weights::format::q4_1),
              &zse::kernels::cpu::matrix_kernels<weights::q4_1>);
    EXPECT_EQ(bind<weights::as_stored>(weights::format::q8_0),
              &zse::kernels::cpu::matrix_kernels<weights::q8_0>);
    EXPECT_EQ(bind<weights::as_stored>(weights::nf4<128>::format), nullptr);
}

}  // namespace
