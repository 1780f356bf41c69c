// SPDX-License-Identifier: Apache-2.0
// Operations: their items together compute every output once, in any order.
#include <zse/kernels/bind.hpp>
#include <zse/kernels/operations.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace {

using namespace zse::kernels;
namespace weights = zse::weights;
using zse::exec::Worker;

std::vector<float> gaussian(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

/// A matrix of float32 over values of the caller.
Matrix matrix(const std::vector<float>& values, std::uint32_t rows, std::uint32_t columns) {
    Matrix m;
    m.data = reinterpret_cast<const std::byte*>(values.data());
    m.rows = rows;
    m.columns = columns;
    m.format = weights::format::f32;
    m.kernels = bind<weights::f32>(m.format);
    return m;
}

/// Runs all items, the last one first, with no more scratch than was asked for.
template <zse::exec::Operation Op>
void run_backwards(const Op& op) {
    std::vector<float> scratch(op.thread_bytes() / sizeof(float));
    EXPECT_EQ(scratch.size() * sizeof(float), op.thread_bytes());
    for (std::size_t item = op.items(); item-- > 0;) {
        op.run(item, Worker{0, reinterpret_cast<std::byte*>(scratch.data())});
    }
}

double product(const std::vector<float>& x, std::size_t token, const std::vector<float>& w, std::size_t row,
               std::size_t columns) {
    double sum = 0;
    for (std::size_t k = 0; k < columns; ++k) {
        sum += static_cast<double>(x[token * columns + k]) * static_cast<double>(w[row * columns + k]);
    }
    return sum;
}

TEST(Linear, ThreeOutputsAreEachComputedOnce) {
    constexpr std::size_t columns = 40;
    const std::array<std::uint32_t, 3> rows{70, 32, 5};
    for (const std::size_t tokens : {1u, 2u, 5u}) {
        const auto x = gaussian(tokens * columns, 1);
        std::array<std::vector<float>, 3> w, y;
        const auto bias = gaussian(70, 9);
        Linear op;
        op.x = x.data();
        op.tokens = tokens;
        op.count = 3;
        for (std::size_t i = 0; i < 3; ++i) {
            w[i] = gaussian(rows[i] * columns, static_cast<unsigned>(10 + i));
            y[i].assign(tokens * (rows[i] + 3), 100.0f);
            op.outputs[i].weights = matrix(w[i], rows[i], columns);
            op.outputs[i].y = y[i].data();
            op.outputs[i].y_stride = rows[i] + 3;
            // An output that adds to itself would show an item that is computed twice.
            op.outputs[i].accumulate = i != 1;
            op.outputs[i].bias = i == 0 ? bias.data() : nullptr;
        }
        EXPECT_EQ(op.items(), 3u + 1u + 1u);
        EXPECT_EQ(op.thread_bytes(), panel_floats(columns) * sizeof(float));
        run_backwards(op);
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t t = 0; t < tokens; ++t) {
                for (std::size_t r = 0; r < rows[i] + 3; ++r) {
                    const double got = static_cast<double>(y[i][t * (rows[i] + 3) + r]);
                    if (r >= rows[i]) {
                        ASSERT_EQ(got, 100.0) << "beyond the rows";
                        continue;
                    }
                    const double expected = product(x, t, w[i], r, columns) + (i != 1 ? 100.0 : 0.0) +
                                            (i == 0 ? static_cast<double>(bias[r]) : 0.0);
                    ASSERT_NEAR(got, expected, 1e-4) << "output " << i << " token " << t << " row " << r;
                }
            }
        }
    }
}

TEST(Linear, ScratchIsThatOfItsWidestMatrix) {
    Linear op;
    EXPECT_EQ(op.items(), 0u);
    EXPECT_EQ(op.thread_bytes(), 0u);
    op.count = 2;
    op.outputs[0].weights.columns = 100;
    op.outputs[1].weights.columns = 300;
    EXPECT_EQ(op.thread_bytes(), panel_floats(300) * sizeof(float));
}

TEST(Embed, CopiesTheRowOfEachToken) {
    const auto table = gaussian(10 * 24, 1);
    const std::vector<std::int32_t> tokens{9, 0, 3, 3};
    std::vector<float> out(4 * 24);
    Embed op;
    op.table = matrix(table, 10, 24);
    op.tokens = tokens.data();
    op.count = 4;
    op.out = out.data();
    EXPECT_EQ(op.items(), 4u);
    run_backwards(op);
    for (std::size_t t = 0; t < 4; ++t) {
        for (std::size_t i = 0; i < 24; ++i) {
            EXPECT_EQ(out[t * 24 + i], table[static_cast<std::size_t>(tokens[t]) * 24 + i]);
        }
    }
}

TEST(RmsNorm, NormsAllRowsOrThoseListed) {
    const auto x = gaussian(5 * 20, 1);
    const auto weight = gaussian(20, 2);
    std::vector<float> all(5 * 20), some(2 * 20), expected(20);
    RmsNorm op;
    op.x = x.data();
    op.weight = weight.data();
    op.count = 5;
    op.width = 20;
    op.epsilon = 1e-5f;
    op.out = all.data();
    run_backwards(op);
    const std::vector<std::uint32_t> rows{4, 1};
    op.rows = rows.data();
    op.count = 2;
    op.out = some.data();
    run_backwards(op);
    for (std::size_t row = 0; row < 5; ++row) {
        cpu::rms_norm(x.data() + row * 20, weight.data(), 20, 1e-5f, expected.data());
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(),
                               all.begin() + static_cast<std::ptrdiff_t>(row * 20)));
    }
    EXPECT_TRUE(std::equal(some.begin(), some.begin() + 20, all.begin() + 80));
    EXPECT_TRUE(std::equal(some.begin() + 20, some.end(), all.begin() + 20));
}

TEST(SwiGlu, TakesARowAnItem) {
    auto gate = gaussian(3 * 21, 1);
    const auto up = gaussian(3 * 21, 2);
    auto expected = gate;
    for (std::size_t row = 0; row < 3; ++row)
        cpu::swiglu(expected.data() + row * 21, up.data() + row * 21, 21);
    SwiGlu op;
    op.gate = gate.data();
    op.up = up.data();
    op.count = 3;
    op.width = 21;
    EXPECT_EQ(op.items(), 3u);
    run_backwards(op);
    EXPECT_EQ(gate, expected);
}

TEST(RopeAngles, TakesAPositionAnItem) {
    const std::vector<std::uint32_t> positions{0, 100, 7};
    std::vector<float> cosines(3 * 8), sines(3 * 8), cosine(8), sine(8);
    RopeAngles op;
    op.positions = positions.data();
    op.count = 3;
    op.pairs = 8;
    op.base = 500000.0f;
    op.linear = 2.0f;
    op.cosines = cosines.data();
    op.sines = sines.data();
    run_backwards(op);
    for (std::size_t t = 0; t < 3; ++t) {
        cpu::rope_angles(positions[t], 500000.0f, 2.0f, 8, nullptr, cosine.data(), sine.data());
        for (std::size_t i = 0; i < 8; ++i) {
            EXPECT_EQ(cosines[t * 8 + i], cosine[i]);
            EXPECT_EQ(sines[t * 8 + i], sine[i]);
        }
    }
}

}  // namespace
