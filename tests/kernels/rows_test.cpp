// SPDX-License-Identifier: Apache-2.0
// Quantising, RMS norm, SwiGLU and RoPE of every instruction set against their formulas in double precision.
#include <zse/kernels/rows.hpp>

#include <gtest/gtest.h>
#include <support/activation_rows.hpp>
#include <support/instruction_sets.hpp>
#include <support/random.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace {

using support::ActivationRows;
using support::gaussian;
using support::on_each_isa;
using support::Quantised;
using zse::kernels::Activations;
using zse::kernels::CodedActivations;
using zse::kernels::CodedToken;
using zse::kernels::Isa;
using zse::kernels::RopePairs;
using zse::kernels::row_kernels;

/// Expects the codes of a token to be those of the definition, block by block, with zeros where the last one ends.
void expect_quantised(const ActivationRows& x, std::size_t token, const std::vector<float>& row) {
    for (std::size_t index = 0; index < x.blocks(); ++index) {
        std::vector<float> values(row.begin() + static_cast<std::ptrdiff_t>(index * ActivationRows::block),
                                  row.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                    row.size(), (index + 1) * ActivationRows::block)));
        const Quantised expected(values);
        ASSERT_EQ(x.scale(token, index), expected.scale) << "token " << token << " block " << index;
        ASSERT_EQ(x.sum(token, index), expected.sum) << "token " << token << " block " << index;
        ASSERT_EQ(x.scaled_sum(token, index), expected.scale * static_cast<float>(expected.sum));
        for (std::size_t i = 0; i < ActivationRows::block; ++i) {
            const std::int8_t code = x->coded(token).block(index).codes[i];
            ASSERT_EQ(code, i < values.size() ? expected.codes[i] : 0)
                << "token " << token << " column " << i;
        }
    }
}

TEST(Quantise, IsItsDefinition) {
    on_each_isa([](Isa isa) {
        for (const std::size_t columns : {1u, 15u, 16u, 31u, 32u, 33u, 50u, 64u, 100u, 576u}) {
            for (const float factor : {1.0f, 1e-30f, 1e30f, 1e-37f, 3e-39f, 1e-44f, 0.0f}) {
                for (const std::size_t tokens : {1u, 3u, 8u, 9u, 20u}) {
                    auto rows = gaussian(tokens * columns, 1);
                    for (float& value : rows) value *= factor;
                    const ActivationRows x(isa, tokens, columns, rows.data());
                    for (std::size_t t = 0; t < tokens; ++t) {
                        expect_quantised(x, t,
                                         {rows.begin() + static_cast<std::ptrdiff_t>(t * columns),
                                          rows.begin() + static_cast<std::ptrdiff_t>((t + 1) * columns)});
                        if (testing::Test::HasFatalFailure()) return;
                    }
                }
            }
        }
    });
}

TEST(Quantise, RoundsTiesToEven) {
    on_each_isa([](Isa isa) {
        std::vector<float> row{127.0f};  // so the scale is one
        for (float value = -15.5f; row.size() < 32; value += 1.0f) row.push_back(value);
        const ActivationRows x(isa, 1, 32, row.data());
        EXPECT_EQ(x.scale(0, 0), 1.0f);
        for (std::size_t i = 0; i < 32; ++i)
            EXPECT_EQ(static_cast<float>(x.code(0, i)), std::nearbyint(row[i]));
    });
}

TEST(Quantise, ErrsByHalfAStepAtMost) {
    on_each_isa([](Isa isa) {
        const auto row = gaussian(320, 3);
        const ActivationRows x(isa, 1, 320, row.data());
        for (std::size_t i = 0; i < 320; ++i) {
            const float step = x.scale(0, i / 32);
            ASSERT_NEAR(static_cast<float>(x.code(0, i)) * step, row[i], 0.5001f * step);
        }
    });
}

TEST(Quantise, KeepsWhatIsNoNumber) {
    on_each_isa([](Isa isa) {
        for (const float bad : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
            for (std::size_t place = 0; place < 64; ++place) {
                auto row = gaussian(64, 3);
                row[place] = bad;
                const ActivationRows x(isa, 1, 64, row.data());
                ASSERT_FALSE(std::isfinite(x.scale(0, place / 32))) << bad << " in place " << place;
                ASSERT_TRUE(std::isfinite(x.scale(0, 1 - place / 32))) << "the other block";
            }
        }
    });
}

TEST(CodedActivations, TilesHoldTheirTokensAndNoMore) {
    for (const std::size_t tokens : {1u, 7u, 8u, 9u, 20u}) {
        const std::size_t columns = 70;  // three blocks
        // Codes, a scale, a sum and a scaled sum of each block and token, by a sum of the test's own.
        EXPECT_EQ(tokens * CodedActivations::bytes(columns), tokens * 3 * (32 + 4 + 4 + 4));
        ActivationRows x(tokens, columns);
        std::vector<int> owners(tokens * CodedActivations::bytes(columns));
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t block = 0; block < 3; ++block) {
                const CodedToken token = x->coded(t).block(block);
                const auto own = [&](const void* at, std::size_t bytes) {
                    const auto first = static_cast<std::size_t>(static_cast<const std::byte*>(at) - x->codes);
                    ASSERT_LE(first + bytes, owners.size());
                    EXPECT_EQ(first % (bytes < 32 ? bytes : 1), 0u) << "numbers are aligned";
                    for (std::size_t i = first; i < first + bytes; ++i) ++owners[i];
                };
                own(token.codes, 32);
                own(token.scale, 4);
                own(token.sum, 4);
                own(token.scaled_sum, 4);
                // A tile is a stretch of whole tokens.
                const auto at =
                    static_cast<std::size_t>(reinterpret_cast<std::byte*>(token.codes) - x->codes);
                EXPECT_EQ(at / (8 * CodedActivations::bytes(columns)), t / 8);
            }
        }
        for (const int count : owners) ASSERT_EQ(count, 1) << "each byte belongs to one token";
    }
}

TEST(ActivationForms, LieInOneBufferApart) {
    using zse::kernels::ActivationForms;
    constexpr ActivationForms none{false, false};
    constexpr ActivationForms codes{true, false};
    constexpr ActivationForms floats{false, true};
    constexpr ActivationForms both{true, true};
    EXPECT_EQ(none.bytes(5, 70), 0u);
    EXPECT_EQ(codes.bytes(5, 70), 704u) << "5 tokens of 3 blocks of 44 bytes, in whole lines";
    EXPECT_EQ(floats.bytes(5, 70), 5u * 70u * 4u);
    EXPECT_EQ(both.bytes(5, 70), 704u + 5u * 70u * 4u);
    std::vector<std::byte> buffer(both.bytes(5, 70));
    const Activations x = both.in(buffer.data(), 5, 2, 70);
    EXPECT_EQ(x.codes, buffer.data());
    EXPECT_EQ(reinterpret_cast<std::byte*>(x.floats), buffer.data() + 704)
        << "where the plan's five tokens end";
    EXPECT_EQ(x.tokens, 2u);
    EXPECT_EQ(codes.in(buffer.data(), 5, 2, 70).floats, nullptr);
    EXPECT_EQ(floats.in(buffer.data(), 5, 2, 70).codes, nullptr);
    EXPECT_EQ(both.in(nullptr, 5, 2, 70).codes, nullptr) << "while planning";
    EXPECT_EQ(both.in(nullptr, 5, 2, 70).floats, nullptr);
}

TEST(RmsNorm, IsItsFormula) {
    on_each_isa([](Isa isa) {
        for (const std::size_t count : {1u, 2u, 15u, 16u, 17u, 33u, 64u, 100u, 576u, 1000u}) {
            for (const float deviation : {1e-3f, 1.0f, 1e4f}) {
                const auto x = gaussian(count, 1, deviation);
                const auto weight = gaussian(count, 2);
                const float epsilon = 1e-5f;
                std::vector<float> out(count + 1, 77.0f);
                row_kernels(isa)->rms_norm(x.data(), weight.data(), count, epsilon, out.data(), {});
                double squares = 0;
                for (const float value : x)
                    squares += static_cast<double>(value) * static_cast<double>(value);
                const double scale =
                    1 / std::sqrt(squares / static_cast<double>(count) + static_cast<double>(epsilon));
                for (std::size_t i = 0; i < count; ++i) {
                    const double expected =
                        static_cast<double>(x[i]) * scale * static_cast<double>(weight[i]);
                    // Squares are added in at least four lanes, with two roundings each where multiply-add is not
                    // fused; the root halves their error. Then the lanes, mean, root, quotient and two products.
                    ASSERT_NEAR(static_cast<double>(out[i]), expected,
                                (static_cast<double>(count) / 4 + 8) * 0x1p-24 * std::fabs(expected));
                }
                ASSERT_EQ(out[count], 77.0f);
            }
        }
    });
}

TEST(RmsNorm, WritesFloatsOrCodesOrBothAlike) {
    on_each_isa([](Isa isa) {
        for (const std::size_t count : {1u, 16u, 31u, 32u, 50u, 576u}) {
            const auto row = gaussian(count, 1);
            const auto weight = gaussian(count, 2);
            std::vector<float> floats(count), with_codes(count);
            row_kernels(isa)->rms_norm(row.data(), weight.data(), count, 1e-5f, floats.data(), {});
            const ActivationRows codes(1, count), both(1, count);
            row_kernels(isa)->rms_norm(row.data(), weight.data(), count, 1e-5f, nullptr, codes->coded(0));
            row_kernels(isa)->rms_norm(row.data(), weight.data(), count, 1e-5f, with_codes.data(),
                                       both->coded(0));
            EXPECT_EQ(with_codes, floats);
            expect_quantised(codes, 0, floats);
            expect_quantised(both, 0, floats);
        }
    });
}

TEST(RmsNorm, OfZerosIsZeros) {
    on_each_isa([](Isa isa) {
        const std::vector<float> zeros(33, 0.0f);
        const std::vector<float> ones(33, 1.0f);
        std::vector<float> out(33, 77.0f);
        row_kernels(isa)->rms_norm(zeros.data(), ones.data(), 33, 1e-6f, out.data(), {});
        EXPECT_EQ(out, zeros);
    });
}

TEST(RmsNorm, WorksInPlace) {
    on_each_isa([](Isa isa) {
        const auto x = gaussian(50, 4);
        const auto weight = gaussian(50, 5);
        std::vector<float> apart(50);
        row_kernels(isa)->rms_norm(x.data(), weight.data(), 50, 1e-5f, apart.data(), {});
        auto in_place = x;
        row_kernels(isa)->rms_norm(in_place.data(), weight.data(), 50, 1e-5f, in_place.data(), {});
        EXPECT_EQ(in_place, apart);
    });
}

double silu(double x) {
    return x < -700 ? 0.0 : x / (1 + std::exp(-x));
}

TEST(SwiGlu, IsItsFormula) {
    on_each_isa([](Isa isa) {
        for (const std::size_t count : {1u, 15u, 16u, 17u, 32u, 100u, 1536u}) {
            auto gate = gaussian(count + 1, 1, 3.0f);
            const auto before = gate;
            const auto up = gaussian(count, 2);
            row_kernels(isa)->swiglu(gate.data(), up.data(), count);
            for (std::size_t i = 0; i < count; ++i) {
                const double expected = silu(static_cast<double>(before[i])) * static_cast<double>(up[i]);
                // Two units of the exponential, 4 * 2^-24, and four more roundings.
                ASSERT_NEAR(static_cast<double>(gate[i]), expected, 8.01 * 0x1p-24 * std::fabs(expected))
                    << before[i];
            }
            ASSERT_EQ(gate[count], before[count]);
        }
    });
}

TEST(SwiGlu, HoldsForGatesOfAnyMagnitude) {
    // exp(-x) of a gate below -104 is more than a float holds; the result is almost nothing, never the gate itself.
    on_each_isa([](Isa isa) {
        for (const double base : {0.0, 1e-30, 1e-3, 1.0, 20.0, 50.0, 87.0, 90.0, 104.0, 105.0, 150.0, 178.0,
                                  200.0, 500.0, 1000.0, 1e5, 1e10, 1e30, 3e38}) {
            for (const double sign : {1.0, -1.0}) {
                std::vector<float> gate(19, static_cast<float>(sign * base));
                const std::vector<float> up(19, 2.0f);
                const double expected = 2 * silu(static_cast<double>(gate[0]));
                row_kernels(isa)->swiglu(gate.data(), up.data(), 19);
                for (const float value : gate) {
                    if (base == 3e38 && sign > 0) {
                        ASSERT_TRUE(std::isinf(value));
                    } else {
                        // Below the normal floats two units of the exponential are 2^-148, which gate and up multiply.
                        ASSERT_NEAR(static_cast<double>(value), expected,
                                    8.01 * 0x1p-24 * std::fabs(expected) + std::min(base, 200.0) * 0x1p-146)
                            << sign * base;
                    }
                }
            }
        }
    });
}

TEST(SwiGlu, KeepsWhatIsNoNumber) {
    on_each_isa([](Isa isa) {
        std::vector<float> gate{1.0f, std::nanf(""), 1.0f, -std::nanf("")};
        const std::vector<float> up{std::nanf(""), 1.0f, 1.0f, 1.0f};
        row_kernels(isa)->swiglu(gate.data(), up.data(), 4);
        EXPECT_TRUE(std::isnan(gate[0]) && std::isnan(gate[1]) && !std::isnan(gate[2]) &&
                    std::isnan(gate[3]));
    });
}

TEST(Put, WritesOrAddsStretchesOfSixteenWithABias) {
    on_each_isa([](Isa isa) {
        constexpr std::size_t tokens = 3;
        constexpr std::size_t from_stride = 32;
        constexpr std::size_t to_stride = 23;
        const auto from = gaussian(tokens * from_stride, 1);
        const auto bias = gaussian(16, 2);
        const auto before = gaussian(tokens * to_stride, 3);
        for (const bool accumulate : {false, true}) {
            for (const float* with : {static_cast<const float*>(nullptr), bias.data()}) {
                auto to = before;
                row_kernels(isa)->put(from.data(), from_stride, tokens, with, accumulate, to.data(),
                                      to_stride);
                for (std::size_t i = 0; i < to.size(); ++i) {
                    const std::size_t r = i % to_stride;
                    if (r >= 16) {
                        ASSERT_EQ(to[i], before[i]) << "beyond the stretch";
                        continue;
                    }
                    const float value =
                        from[i / to_stride * from_stride + r] + (with != nullptr ? with[r] : 0.0f);
                    ASSERT_EQ(to[i], accumulate ? before[i] + value : value);
                }
            }
        }
    });
}

struct Angles {
    std::vector<float> cosines, sines;
};

Angles angles(std::uint32_t position, float base, float linear, std::size_t dim, RopePairs order,
              const float* factors = nullptr) {
    Angles a{std::vector<float>(dim), std::vector<float>(dim)};
    zse::kernels::rope_angles(position, base, linear, dim, factors, order, a.cosines.data(), a.sines.data());
    return a;
}

/// The two values that pair i turns.
struct Pair {
    std::size_t first, second;
};
Pair pair(std::size_t i, std::size_t dim, RopePairs order) {
    return order == RopePairs::neighbours ? Pair{2 * i, 2 * i + 1} : Pair{i, i + dim / 2};
}

void expect_angles(const Angles& a, std::uint32_t position, double base, double linear, RopePairs order,
                   const float* divisors) {
    const std::size_t dim = a.cosines.size();
    for (std::size_t i = 0; i < dim / 2; ++i) {
        const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(dim);
        const double divisor = divisors != nullptr ? static_cast<double>(divisors[i]) : 1.0;
        const double angle = static_cast<double>(position) / (std::pow(base, exponent) * linear * divisor);
        const Pair at = pair(i, dim, order);
        // 2^-25 for the rounding to float; the angle itself is good to about 1e-10.
        ASSERT_NEAR(static_cast<double>(a.cosines[at.first]), std::cos(angle), 3.1e-8);
        ASSERT_NEAR(static_cast<double>(a.sines[at.second]), std::sin(angle), 3.1e-8);
        ASSERT_EQ(a.cosines[at.second], a.cosines[at.first]);
        ASSERT_EQ(a.sines[at.first], -a.sines[at.second]) << "signed as the first of a pair takes it";
    }
}

TEST(RopeAngles, AreTheirFormula) {
    const auto factors = [] {
        auto values = gaussian(32, 3);
        for (float& value : values) value = 1 + std::fabs(value) * 3;
        return values;
    }();
    for (const RopePairs order : {RopePairs::neighbours, RopePairs::halves}) {
        for (const std::size_t dim : {2u, 4u, 48u, 64u}) {
            for (const float base : {10000.0f, 500000.0f}) {
                for (const float linear : {1.0f, 4.0f}) {
                    for (const float* divisors : {static_cast<const float*>(nullptr), factors.data()}) {
                        for (const std::uint32_t position : {0u, 1u, 77u, 8191u, 131071u}) {
                            expect_angles(angles(position, base, linear, dim, order, divisors), position,
                                          static_cast<double>(base), static_cast<double>(linear), order,
                                          divisors);
                        }
                    }
                }
            }
        }
    }
}

TEST(RopeAngles, LinearScalingIsASmallerPosition) {
    const Angles scaled = angles(400, 10000.0f, 4.0f, 32, RopePairs::halves);
    const Angles near = angles(100, 10000.0f, 1.0f, 32, RopePairs::halves);
    for (std::size_t i = 0; i < 32; ++i) EXPECT_NEAR(scaled.cosines[i], near.cosines[i], 1e-7f);
}

TEST(Rope, TurnsPairsOfEitherOrderAndLeavesTheRest) {
    on_each_isa([](Isa isa) {
        const std::size_t width = 80;
        for (const RopePairs order : {RopePairs::neighbours, RopePairs::halves}) {
            for (const std::size_t dim : {80u, 64u, 32u, 6u, 2u, 0u}) {
                const Angles a = angles(1234, 10000.0f, 1.0f, dim, order);
                const auto before = gaussian(width, 6);
                auto head = before;
                row_kernels(isa)->rope(head.data(), dim, a.cosines.data(), a.sines.data(), order);
                auto expected = std::vector<double>(before.begin(), before.end());
                auto magnitudes = std::vector<double>(width, 0.0);
                for (std::size_t i = 0; i < dim / 2; ++i) {
                    const Pair at = pair(i, dim, order);
                    const double c = static_cast<double>(a.cosines[at.first]);
                    const double s = static_cast<double>(a.sines[at.second]);
                    const double x = static_cast<double>(before[at.first]);
                    const double y = static_cast<double>(before[at.second]);
                    expected[at.first] = x * c - y * s;
                    expected[at.second] = y * c + x * s;
                    magnitudes[at.first] = std::fabs(x * c) + std::fabs(y * s);
                    magnitudes[at.second] = std::fabs(y * c) + std::fabs(x * s);
                }
                for (std::size_t i = 0; i < width; ++i) {
                    // Two products and their sum, each rounded once.
                    ASSERT_NEAR(static_cast<double>(head[i]), expected[i], 2.01 * 0x1p-24 * magnitudes[i])
                        << i;
                }
            }
        }
    });
}

TEST(Rope, ScoresDependOnTheDistanceAlone) {
    on_each_isa([](Isa isa) {
        const auto q = gaussian(64, 7);
        const auto k = gaussian(64, 8);
        const auto score = [&](std::uint32_t query_position, std::uint32_t key_position, RopePairs order) {
            auto query = q;
            auto key = k;
            const Angles at_query = angles(query_position, 10000.0f, 1.0f, 64, order);
            const Angles at_key = angles(key_position, 10000.0f, 1.0f, 64, order);
            row_kernels(isa)->rope(query.data(), 64, at_query.cosines.data(), at_query.sines.data(), order);
            row_kernels(isa)->rope(key.data(), 64, at_key.cosines.data(), at_key.sines.data(), order);
            double sum = 0;
            for (std::size_t i = 0; i < 64; ++i)
                sum += static_cast<double>(query[i]) * static_cast<double>(key[i]);
            return sum;
        };
        for (const RopePairs order : {RopePairs::neighbours, RopePairs::halves}) {
            EXPECT_NEAR(score(10, 3, order), score(5010, 5003, order), 1e-4);
            EXPECT_GT(std::fabs(score(10, 3, order) - score(11, 3, order)), 1e-3);
        }
    });
}

}  // namespace
