// SPDX-License-Identifier: Apache-2.0
// Operations: their items together compute every output once, in any order, and with the same bits however a matrix
// is shared out to parts.
#include <zse/kernels/bind.hpp>
#include <zse/kernels/operations.hpp>

#include <gtest/gtest.h>
#include <support/activation_rows.hpp>
#include <support/instruction_sets.hpp>
#include <support/packed_matrix.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace {

using namespace zse::kernels;
namespace weights = zse::weights;
using support::ActivationRows;
using support::gaussian;
using support::on_each_isa;
using support::PackedMatrix;
using zse::exec::Worker;

/// One codec that reads floats, one with a scale, one with a minimum too.
const std::vector<support::Codec>& codecs() {
    static const std::vector<support::Codec> all{
        support::codec<weights::f16>(), support::codec<weights::q8_0>(), support::codec<weights::q4_1>()};
    return all;
}

constexpr std::array<std::uint32_t, 4> part_counts{1, 2, 3, 5};

/// Runs all items, the last one first.
template <class Op>
void run_backwards(const Op& op, std::size_t parts = 1) {
    EXPECT_EQ(op.thread_bytes(), 0u);
    const Worker worker{0, nullptr};
    if constexpr (zse::exec::PartedOperation<Op>) {
        for (std::size_t part = parts; part-- > 0;) {
            for (std::size_t item = op.items(part, parts); item-- > 0;) op.run(part, item, worker);
        }
    } else {
        for (std::size_t item = op.items(); item-- > 0;) op.run(item, worker);
    }
}
static_assert(zse::exec::PartedOperation<Linear> && zse::exec::PartedOperation<GatedLinear>);
static_assert(zse::exec::PlainOperation<Embed> && zse::exec::PlainOperation<RmsNorm> &&
              zse::exec::PlainOperation<RopeAngles>);

/// A product in double precision, and what its roundings may add up to: no format has more than one for each column
/// and four for its scales, and each is 2^-24 of what is never more than the sum of all magnitudes.
struct Product {
    double value = 0;
    double bound = 0;
};

Product product(const ActivationRows& x, bool coded, std::size_t token, const std::vector<float>& w,
                std::size_t row) {
    const std::size_t columns = x->columns;
    Product p;
    for (std::size_t k = 0; k < columns; ++k) {
        const double value = coded ? static_cast<double>(x.scale(token, k / 32)) * x.code(token, k)
                                   : static_cast<double>(x->floats[token * columns + k]);
        const double term = value * static_cast<double>(w[row * columns + k]);
        p.value += term;
        p.bound += static_cast<double>(columns + 4) * 0x1p-24 * std::fabs(term);
    }
    return p;
}

TEST(Matrix, PartsBeginAtEvenGroupsAndCoverAllRows) {
    for (std::uint32_t rows = 1; rows <= 200; ++rows) {
        for (const std::uint32_t parts : {1u, 2u, 3u, 5u, 16u}) {
            Matrix m;
            m.rows = rows;
            m.columns = 64;
            m.format = weights::format::q4_0;
            m.part_count = parts;
            EXPECT_EQ(m.first_group(0), 0u);
            EXPECT_EQ(m.first_group(parts), (rows + 15) / 16);
            zse::Bytes bytes = 0;
            for (std::size_t part = 0; part < parts; ++part) {
                EXPECT_LE(m.first_group(part), m.first_group(part + 1));
                EXPECT_TRUE(m.first_group(part) % 2 == 0 || m.first_group(part) == m.groups());
                bytes += m.part_bytes(part);
            }
            EXPECT_EQ(bytes, m.bytes());
        }
    }
}

TEST(Linear, ThreeOutputsAreEachComputedOnceWhateverTheParts) {
    constexpr std::size_t columns = 96;
    constexpr std::array<std::uint32_t, 3> rows{77, 32, 5};
    constexpr std::size_t beyond = 3;
    on_each_isa([&](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            for (const std::size_t tokens : {1u, 2u, 9u, 40u}) {
                const ActivationRows x(isa, tokens, columns, gaussian(tokens * columns, 1).data());
                const auto bias = gaussian(rows[0], 9);
                std::array<std::vector<float>, 3> first;  // of one part
                for (const std::uint32_t parts : part_counts) {
                    std::vector<PackedMatrix> w;
                    std::array<std::vector<float>, 3> y;
                    Linear op;
                    op.kernels = row_kernels(isa);
                    op.x = *x;
                    op.count = 3;
                    for (std::size_t i = 0; i < 3; ++i) {
                        const auto values = gaussian(rows[i] * columns, static_cast<unsigned>(10 + i));
                        w.emplace_back(codec, rows[i], columns, values.data(), parts);
                        y[i].assign(tokens * (rows[i] + beyond), 100.0f);
                        op.outputs[i].weights = w[i].on(isa);
                        op.outputs[i].y = y[i].data();
                        op.outputs[i].y_stride = rows[i] + beyond;
                        // An output that adds to itself would show an item that is computed twice.
                        op.outputs[i].accumulate = i != 1;
                        op.outputs[i].bias = i == 0 ? bias.data() : nullptr;
                    }
                    run_backwards(op, parts);
                    for (std::size_t i = 0; i < 3; ++i) {
                        const auto decoded = w[i].decoded();
                        if (parts == 1) first[i] = y[i];
                        ASSERT_EQ(std::memcmp(first[i].data(), y[i].data(), y[i].size() * sizeof(float)), 0)
                            << name(codec.format) << " output " << i << " in " << parts << " parts";
                        for (std::size_t t = 0; t < tokens; ++t) {
                            for (std::size_t r = 0; r < rows[i] + beyond; ++r) {
                                const double got = static_cast<double>(y[i][t * (rows[i] + beyond) + r]);
                                if (r >= rows[i]) {
                                    ASSERT_EQ(got, 100.0) << "beyond the rows";
                                    continue;
                                }
                                const Product p =
                                    product(x, op.outputs[i].weights.reads_codes(), t, decoded, r);
                                const double offset = i == 0 ? static_cast<double>(bias[r]) : 0.0;
                                const double expected = p.value + offset + (i != 1 ? 100.0 : 0.0);
                                // The bias and what was there are one rounding each.
                                const double added =
                                    i == 1 ? 0.0
                                           : 2 * (std::fabs(p.value) + std::fabs(offset) + 100.0) * 0x1p-24;
                                ASSERT_NEAR(got, expected, p.bound + added)
                                    << name(codec.format) << " output " << i << " token " << t << " row "
                                    << r;
                            }
                        }
                    }
                }
            }
        }
    });
}

TEST(Linear, ItemsArePairsOfGroupsAndTwoPairsForPrompts) {
    const PackedMatrix w(support::codec<weights::f16>(), 7 * 16, 8, gaussian(7 * 16 * 8, 1).data(), 2);
    Linear op;
    op.outputs[0].weights = w.on(Isa::portable);
    EXPECT_EQ(op.items(0, 2), 0u) << "without outputs";
    op.count = 1;
    op.x.tokens = 1;
    EXPECT_EQ(op.items(0, 2), 2u) << "four groups";
    EXPECT_EQ(op.items(1, 2), 2u) << "three groups";
    op.x.tokens = 33;
    EXPECT_EQ(op.items(0, 2), 1u);
    EXPECT_EQ(op.items(1, 2), 1u);
    op.outputs[1] = op.outputs[0];
    op.count = 2;
    EXPECT_EQ(op.items(1, 2), 2u);
}

TEST(GatedLinear, IsTheGateTimesTheOtherProductInEitherFormWhateverTheParts) {
    constexpr std::size_t columns = 64;
    on_each_isa([&](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            for (const std::uint32_t rows : {5u, 16u, 21u, 32u, 48u, 85u, 160u}) {
                const auto gate_values = gaussian(rows * columns, 1, 0.3f);
                const auto up_values = gaussian(rows * columns, 2, 0.3f);
                for (const std::size_t tokens : {1u, 9u}) {
                    const ActivationRows x(isa, tokens, columns, gaussian(tokens * columns, 3).data());
                    std::vector<float> first;
                    for (const std::uint32_t parts : part_counts) {
                        const PackedMatrix gate(codec, rows, columns, gate_values.data(), parts);
                        const PackedMatrix up(codec, rows, columns, up_values.data(), parts);
                        const ActivationRows out(tokens, rows);
                        GatedLinear op;
                        op.kernels = row_kernels(isa);
                        op.x = *x;
                        op.gate = gate.on(isa);
                        op.up = up.on(isa);
                        op.out = *out;
                        run_backwards(op, parts);
                        const std::vector<float> floats(out->floats, out->floats + tokens * rows);
                        if (parts == 1) first = floats;
                        ASSERT_EQ(floats, first) << name(codec.format) << " in " << parts << " parts";
                        // The codes are those of the floats.
                        const ActivationRows coded(isa, tokens, rows, floats.data());
                        ASSERT_EQ(
                            std::memcmp(out->codes, coded->codes, tokens * CodedActivations::bytes(rows)), 0)
                            << name(codec.format) << " " << rows << " rows in " << parts << " parts";
                        // Either form alone is the same.
                        const ActivationRows alone(tokens, rows);
                        op.out = *alone;
                        op.out.floats = nullptr;
                        run_backwards(op, parts);
                        op.out = *alone;
                        op.out.codes = nullptr;
                        run_backwards(op, parts);
                        ASSERT_EQ(
                            std::memcmp(alone->codes, out->codes, tokens * CodedActivations::bytes(rows)), 0);
                        ASSERT_TRUE(std::equal(floats.begin(), floats.end(), alone->floats));
                        if (parts != 1) continue;
                        const auto gate_decoded = gate.decoded();
                        const auto up_decoded = up.decoded();
                        for (std::size_t t = 0; t < tokens; ++t) {
                            for (std::size_t r = 0; r < rows; ++r) {
                                const bool reads_codes = op.gate.reads_codes();
                                const Product g = product(x, reads_codes, t, gate_decoded, r);
                                const Product u = product(x, reads_codes, t, up_decoded, r);
                                const double silu = g.value / (1 + std::exp(-g.value));
                                // silu's slope is at most 1.1; swiglu itself is good to eight roundings.
                                const double bound = 1.1 * g.bound * (std::fabs(u.value) + u.bound) +
                                                     std::fabs(silu) * u.bound +
                                                     8.01 * 0x1p-24 * std::fabs(silu * u.value);
                                ASSERT_NEAR(static_cast<double>(floats[t * rows + r]), silu * u.value, bound)
                                    << name(codec.format) << " token " << t << " row " << r;
                            }
                        }
                    }
                }
            }
        }
    });
}

TEST(Embed, DecodesTheRowOfEachTokenFromAnyPart) {
    on_each_isa([](Isa isa) {
        for (const support::Codec& codec : codecs()) {
            for (const std::uint32_t parts : part_counts) {
                const PackedMatrix table(codec, 70, 24, gaussian(70 * 24, 1).data(), parts);
                const auto decoded = table.decoded();
                const std::vector<std::int32_t> tokens{69, 0, 33, 33, 15, 16, 31, 32, 64};
                std::vector<float> out(tokens.size() * 24);
                Embed op;
                op.table = table.on(isa);
                op.tokens = tokens.data();
                op.count = tokens.size();
                op.out = out.data();
                EXPECT_EQ(op.items(), tokens.size());
                run_backwards(op);
                for (std::size_t t = 0; t < tokens.size(); ++t) {
                    for (std::size_t i = 0; i < 24; ++i) {
                        EXPECT_EQ(out[t * 24 + i], decoded[static_cast<std::size_t>(tokens[t]) * 24 + i]);
                    }
                }
            }
        }
    });
}

TEST(RmsNorm, NormsAllRowsOrThoseListed) {
    on_each_isa([](Isa isa) {
        const auto x = gaussian(5 * 20, 1);
        const auto weight = gaussian(20, 2);
        const ActivationRows all(5, 20), some(2, 20);
        RmsNorm op;
        op.kernels = row_kernels(isa);
        op.x = x.data();
        op.weight = weight.data();
        op.epsilon = 1e-5f;
        op.out = *all;
        EXPECT_EQ(op.items(), 5u);
        run_backwards(op);
        const std::vector<std::uint32_t> rows{4, 1};
        op.rows = rows.data();
        op.out = *some;
        EXPECT_EQ(op.items(), 2u);
        run_backwards(op);
        std::vector<float> expected(20);
        for (std::size_t row = 0; row < 5; ++row) {
            op.kernels->rms_norm(x.data() + row * 20, weight.data(), 20, 1e-5f, expected.data(), {});
            EXPECT_TRUE(std::equal(expected.begin(), expected.end(), all->floats + row * 20));
        }
        for (std::size_t i = 0; i < 2; ++i) {
            EXPECT_TRUE(
                std::equal(some->floats + i * 20, some->floats + (i + 1) * 20, all->floats + rows[i] * 20));
            for (std::size_t k = 0; k < 20; ++k) EXPECT_EQ(some.code(i, k), all.code(rows[i], k));
            EXPECT_EQ(some.scale(i, 0), all.scale(rows[i], 0));
        }
    });
}

TEST(RopeAngles, TakesAPositionAnItem) {
    const std::vector<std::uint32_t> positions{0, 100, 7};
    std::vector<float> cosines(3 * 16), sines(3 * 16), cosine(16), sine(16);
    RopeAngles op;
    op.positions = positions.data();
    op.count = 3;
    op.dim = 16;
    op.base = 500000.0f;
    op.linear = 2.0f;
    op.order = RopePairs::halves;
    op.cosines = cosines.data();
    op.sines = sines.data();
    EXPECT_EQ(op.items(), 3u);
    run_backwards(op);
    for (std::size_t t = 0; t < 3; ++t) {
        rope_angles(positions[t], 500000.0f, 2.0f, 16, nullptr, RopePairs::halves, cosine.data(),
                    sine.data());
        for (std::size_t i = 0; i < 16; ++i) {
            EXPECT_EQ(cosines[t * 16 + i], cosine[i]);
            EXPECT_EQ(sines[t * 16 + i], sine[i]);
        }
    }
}

}  // namespace
