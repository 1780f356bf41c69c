// SPDX-License-Identifier: Apache-2.0
// Packed weights as operands of a tensor core: every code of every codec is the value that the codec decodes.
// rows: 64
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kernels/cuda/fragment.hpp>
#include <zse/weights/as_stored.hpp>

#include <gtest/gtest.h>
#include <support/aligned_bytes.hpp>
#include <support/random.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

namespace {

namespace gpu = zse::exec::gpu;
namespace weights = zse::weights;
using support::AlignedBytes;
using zse::kernels::cuda::Fragment;
using zse::kernels::cuda::RowPair;

constexpr std::size_t columns = 256;

/// Writes the operands of a group of rows out, each value where its row and column are.
template <class Codec>
struct DecodeKernel {
    static constexpr unsigned threads = 32;
    using F = Fragment<Codec>;

    const std::byte* group;
    float* values;  ///< `[16, columns]`
    float* scales;  ///< likewise: what each is multiplied with
    float* minima;  ///< likewise: what is added
    float* rests;   ///< likewise: the lower parts of split values

    gpu::Launch launch() const noexcept { return {{columns / F::columns, 1, 1}, threads, 0}; }

    template <class T>
    void operator()(T& t) const {
        const unsigned first = t.block().x * F::columns;
        typename F::Slab slab;
        F::load(t, group + std::size_t{t.block().x} * F::slab_bytes, slab);
        for (unsigned s = 0; s < F::steps; ++s) {
            gpu::FragmentA a{};
            gpu::FragmentA rest{};
            RowPair scale{1, 1};
            RowPair minimum{0, 0};
            if constexpr (F::split_values) {
                scale = F::split(t, slab, s, a, rest);
            } else {
                a = F::step(t, slab, s);
            }
            if constexpr (F::scaled && !F::split_values) scale = F::scales(t, slab, s / F::block_steps);
            if constexpr (F::has_minimum) minimum = F::minima(t, slab, s / F::block_steps);
            for (unsigned i = 0; i < 8; ++i) {
                const bool upper = i / 2 % 2 == 1;
                const unsigned row = t.lane() / 4 + (upper ? 8 : 0);
                const unsigned column = first + s * 16 + t.lane() % 4 * 2 + i % 2 + (i >= 4 ? 8 : 0);
                const std::size_t at = std::size_t{row} * columns + column;
                values[at] = value(t, a.pairs[i / 2], i % 2);
                rests[at] = value(t, rest.pairs[i / 2], i % 2);
                scales[at] = upper ? scale.high : scale.low;
                minima[at] = upper ? minimum.high : minimum.low;
            }
        }
    }

    template <class T>
    static float value(T& t, std::uint32_t pair, unsigned odd) {
        if constexpr (F::bfloat) {
            return std::bit_cast<float>(odd == 0 ? pair << 16 : pair & 0xffff0000u);
        } else {
            return odd == 0 ? t.low(pair) : t.high(pair);
        }
    }
};

template <class Codec>
struct Decoded {
    std::vector<std::byte> stored;
    std::vector<float> truth = std::vector<float>(16 * columns);  ///< by decode_row
    std::vector<float> values = std::vector<float>(16 * columns, NAN);
    std::vector<float> scales = values;
    std::vector<float> minima = values;
    std::vector<float> rests = values;

    explicit Decoded(std::vector<std::byte> rows) : stored(std::move(rows)) {
        const weights::MmaLayout layout{Codec::format, columns};
        const std::size_t row_bytes = Codec::format.row_bytes(columns);
        const AlignedBytes group(layout.group_bytes());
        layout.pack(stored.data(), row_bytes, 16, group.data());
        for (std::size_t r = 0; r < 16; ++r) {
            Codec::decode_row(stored.data() + r * row_bytes, columns, truth.data() + r * columns);
        }
        gpu::EmulatedBlock::run_grid(
            DecodeKernel<Codec>{group.data(), values.data(), scales.data(), minima.data(), rests.data()});
    }
};

/// Rows with every code there is, and scales (and minima) of both signs and many sizes.
template <class Codec>
std::vector<std::byte> rows_of_every_code() {
    using Block = typename Codec::Block;
    const std::size_t blocks = columns / Codec::format.group;
    std::vector<std::byte> rows(16 * Codec::format.row_bytes(columns));
    for (std::size_t r = 0; r < 16; ++r) {
        for (std::size_t b = 0; b < blocks; ++b) {
            std::byte bytes[sizeof(Block)];
            for (std::size_t i = 0; i < sizeof bytes; ++i) {
                bytes[i] = static_cast<std::byte>(r * 67 + b * 29 + i * 5);
            }
            const auto put = [&](std::size_t at, float value) {
                const zse::f16 half(value);
                std::memcpy(bytes + at, &half, sizeof half);
            };
            const float sign = (r + b) % 3 == 0 ? -1.0f : 1.0f;
            put(0, sign * std::ldexp(1.0f + static_cast<float>(r) / 16, static_cast<int>(b) - 6));
            if (Codec::format.id == weights::FormatId::q4_1) put(2, -0.37f * static_cast<float>(r + b));
            std::memcpy(rows.data() + (r * blocks + b) * sizeof bytes, bytes, sizeof bytes);
        }
    }
    return rows;
}

template <class Codec>
class Blocks : public testing::Test {};
using BlockCodecs =
    testing::Types<weights::int8<32>, weights::int8<64>, weights::int8<128>, weights::nf4<32>,
                   weights::nf4<64>, weights::nf4<128>, weights::q4_0, weights::q4_1, weights::q8_0>;
TYPED_TEST_SUITE(Blocks, BlockCodecs);

TYPED_TEST(Blocks, DecodeEveryCodeExactly) {
    constexpr bool nf4 = TypeParam::format.id == weights::FormatId::nf4;
    const Decoded<TypeParam> d(rows_of_every_code<TypeParam>());
    std::set<float> seen;
    for (std::size_t i = 0; i < d.truth.size(); ++i) {
        seen.insert(d.values[i]);
        const float value = std::fma(d.values[i], d.scales[i], d.minima[i]);
        if constexpr (nf4) {
            // Levels are rounded to 1/127 of the scale, as everywhere but in decode_row.
            ASSERT_NEAR(value, d.truth[i], std::fabs(d.scales[i]) * 0.5001f) << i;
            ASSERT_EQ(d.values[i], std::nearbyint(d.truth[i] / d.scales[i])) << i;
        } else {
            ASSERT_EQ(value, d.truth[i]) << i;
        }
    }
    const std::size_t codes = weights::MmaLayout{TypeParam::format, columns}.bits() == 8 ? 256 : 16;
    EXPECT_EQ(seen.size(), codes) << "every code was there";
}

template <class Codec>
class Dense : public testing::Test {};
using DenseCodecs = testing::Types<weights::f16, weights::bf16>;
TYPED_TEST_SUITE(Dense, DenseCodecs);

TYPED_TEST(Dense, IsTheFragmentItself) {
    const Decoded<TypeParam> d(support::random_bytes(16 * columns * 2, 3));
    for (std::size_t i = 0; i < d.truth.size(); ++i) {
        if (std::isnan(d.truth[i])) continue;
        ASSERT_EQ(d.values[i], d.truth[i]) << i;
    }
}

TEST(SplitFloats, KeepTwentyTwoBitsOfEveryWeight) {
    auto values = support::gaussian(16 * columns, 5);
    for (std::size_t r = 0; r < 16; ++r) {  // rows of very different sizes; one of zeros
        for (std::size_t k = 0; k < columns; ++k) {
            values[r * columns + k] *= r == 3 ? 0.0f : std::ldexp(1.0f, static_cast<int>(r) * 15 - 105);
        }
    }
    std::vector<std::byte> rows(values.size() * 4);
    std::memcpy(rows.data(), values.data(), rows.size());
    const Decoded<weights::f32> d(rows);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const double value = (double{d.values[i]} + double{d.rests[i]} / 2048) * double{d.scales[i]};
        ASSERT_LT(std::fabs(d.values[i]), 32768.0f) << i;
        // 11 bits each; a rest that is small beside the greatest of its row may be subnormal, which adds a bit of the
        // greatest's 2^-49.
        ASSERT_NEAR(value, double{values[i]},
                    std::fabs(double{values[i]}) * 0x1p-22 + double{d.scales[i]} * 0x1p-34)
            << i;
    }
}

TEST(SplitFloats, TakeWeightsAtTheEdgesOfTheRange) {
    std::vector<float> values(16 * columns, 0.0f);
    values[0] = 3.4e38f;
    values[columns] = 1e-38f;
    values[2 * columns] = 1e-45f;
    std::vector<std::byte> rows(values.size() * 4);
    std::memcpy(rows.data(), values.data(), rows.size());
    const Decoded<weights::f32> d(rows);
    const auto value = [&](std::size_t i) {
        return (double{d.values[i]} + double{d.rests[i]} / 2048) * double{d.scales[i]};
    };
    EXPECT_NEAR(value(0), 3.4e38, 3.4e38 * 0x1p-22);
    EXPECT_NEAR(value(columns), 1e-38, 1e-38 * 0x1p-10);  // subnormal in halves
    EXPECT_NEAR(value(2 * columns), 0.0, 1e-44);
}

}  // namespace
