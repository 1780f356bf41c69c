// SPDX-License-Identifier: Apache-2.0
// The vectors of each instruction set: exact sums of byte products up to the greatest there are, the exponential,
// and conversions bit for bit.
#include <zse/kernels/cpu/vector.hpp>
#include <zse/weights/nf4.hpp>

#include <gtest/gtest.h>
#include <support/instruction_sets.hpp>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace probe {

struct Reductions {
    float sum, greatest;
    std::int32_t steps;
};

struct Functions {
    void (*exp)(const float*, std::size_t, float*);
    void (*sum4)(const std::byte*, const std::int8_t*, std::size_t, std::int32_t, std::int32_t*);
    void (*sum8)(const std::byte*, const std::int8_t*, std::size_t, std::int32_t, std::int32_t*);
    void (*look_up)(const std::byte*, const std::int8_t*, std::int8_t*, std::int8_t*);
    void (*round)(const float*, std::size_t, std::int8_t*);
    void (*widen)(const std::byte*, std::size_t, float*, float*);
    void (*widen_e4m3)(const std::byte*, std::size_t, float*);
    void (*narrow)(const float*, std::size_t, std::byte*);
    Reductions (*reduce)(const float*);
    float (*magnitude)(const float*);
};

}  // namespace probe

#define ZSE_ISA_BODY <kernels/vector_test.inl>
#include <zse/kernels/cpu/for_each_isa.inl>

namespace {

using support::on_each_isa;
using zse::kernels::Isa;

const probe::Functions& functions(Isa isa) {
    switch (isa) {
#if defined(__x86_64__)
        case Isa::avx2: return probe::avx2::functions;
        case Isa::avx512: return probe::avx512::functions;
        case Isa::avx512_vnni: return probe::avx512_vnni::functions;
#elif defined(__aarch64__)
        case Isa::neon: return probe::neon::functions;
#endif
        default: return probe::portable::functions;
    }
}

/// Codes of 16 rows and the activations that they meet, for up to eight steps.
struct Steps {
    std::array<std::byte, 8 * 64> codes{};
    std::array<std::int8_t, 8 * 4> activations{};

    void set_code(std::size_t step, std::size_t row, std::size_t column, int code) {
        codes[(step * 16 + row) * 4 + column] = static_cast<std::byte>(code);
    }
    template <class Code>
    [[nodiscard]] std::int32_t total(std::size_t steps, std::size_t row) const {
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < 4 * steps; ++i) {
            sum += static_cast<Code>(codes[(i / 4 * 16 + row) * 4 + i % 4]) * activations[i];
        }
        return sum;
    }
};

/// Expects the sums of all rows to be exact, begun at 0 and at another number.
template <class Code>
void expect_exact(void (*sum)(const std::byte*, const std::int8_t*, std::size_t, std::int32_t, std::int32_t*),
                  const Steps& s, std::size_t steps) {
    for (const std::int32_t first : {0, -8 * 32 * 127}) {
        std::array<std::int32_t, 16> totals{};
        sum(s.codes.data(), s.activations.data(), steps, first, totals.data());
        for (std::size_t row = 0; row < 16; ++row) {
            ASSERT_EQ(totals[row], first + s.total<Code>(steps, row))
                << "row " << row << " of " << steps << " steps";
        }
    }
}

/// All pairs of codes in neighbouring columns (the pairs that 16-bit instructions add), against activations at their
/// extremes and signs.
template <class Code>
void expect_exact_for_all_pairs(void (*sum)(const std::byte*, const std::int8_t*, std::size_t, std::int32_t,
                                            std::int32_t*),
                                int least, int greatest) {
    constexpr std::array<std::array<std::int8_t, 4>, 8> patterns{{{127, 127, 127, 127},
                                                                  {-127, -127, -127, -127},
                                                                  {127, -127, -127, 127},
                                                                  {-127, -127, 127, 127},
                                                                  {1, -1, 127, 0},
                                                                  {0, 127, 0, -127},
                                                                  {-127, 0, 126, -1},
                                                                  {-126, 125, 64, -64}}};
    Steps s;
    std::size_t filled = 0;
    const auto check = [&] {
        for (const auto& pattern : patterns) {
            for (std::size_t step = 0; step < 8; ++step) {
                std::copy(pattern.begin(), pattern.end(),
                          s.activations.begin() + static_cast<std::ptrdiff_t>(4 * step));
            }
            expect_exact<Code>(sum, s, 8);
            if (testing::Test::HasFatalFailure()) return;
        }
    };
    for (int a = least; a <= greatest; ++a) {
        for (int b = least; b <= greatest; ++b) {
            // The pair and its reverse, in all steps of one row: their sums grow as far as they can.
            for (std::size_t step = 0; step < 8; ++step) {
                s.set_code(step, filled, 0, a);
                s.set_code(step, filled, 1, b);
                s.set_code(step, filled, 2, b);
                s.set_code(step, filled, 3, a);
            }
            if (++filled < 16) continue;
            filled = 0;
            check();
            if (testing::Test::HasFatalFailure()) return;
        }
    }
    ASSERT_EQ(filled, 0u) << "pairs that were not checked";
}

TEST(Sum4, IsExactForAllPairsOfCodesAndExtremeActivations) {
    on_each_isa([](Isa isa) { expect_exact_for_all_pairs<std::uint8_t>(functions(isa).sum4, 0, 15); });
}

TEST(Sum8, IsExactForAllPairsOfCodesAndExtremeActivations) {
    on_each_isa([](Isa isa) { expect_exact_for_all_pairs<std::int8_t>(functions(isa).sum8, -128, 127); });
}

TEST(Sum4, HoldsTheGreatestSumOfEightStepsAndNoMore) {
    // A lane of 16 bits takes two products a step.
    constexpr int of_a_step = 2 * 15 * 127;
    static_assert(8 * of_a_step == 30'480 && 8 * of_a_step <= std::numeric_limits<std::int16_t>::max());
    static_assert(9 * of_a_step > std::numeric_limits<std::int16_t>::max(), "eight steps are the most");
    on_each_isa([](Isa isa) {
        Steps s;
        for (const int sign : {1, -1}) {
            s.codes.fill(std::byte{15});
            s.activations.fill(static_cast<std::int8_t>(sign * 127));
            ASSERT_EQ(s.total<std::uint8_t>(8, 0), sign * 2 * 30'480) << "of the two lanes of a row";
            expect_exact<std::uint8_t>(functions(isa).sum4, s, 8);
            // Lanes at opposite ends must not lend each other anything.
            for (std::size_t i = 0; i < s.activations.size(); ++i) {
                s.activations[i] = static_cast<std::int8_t>(i % 4 < 2 ? sign * 127 : -sign * 127);
            }
            expect_exact<std::uint8_t>(functions(isa).sum4, s, 8);
        }
    });
}

TEST(Sum8, HoldsTheGreatestSumOfAStepWhateverTheSigns) {
    constexpr int of_a_step = 2 * 128 * 127;
    static_assert(of_a_step == 32'512 && of_a_step <= std::numeric_limits<std::int16_t>::max());
    static_assert(2 * of_a_step > std::numeric_limits<std::int16_t>::max(), "one step is the most");
    on_each_isa([](Isa isa) {
        Steps s;
        // Every sign of the four codes and of the four activations: among them -128 with -127, and 127 with 127.
        for (unsigned signs = 0; signs < 256; ++signs) {
            for (std::size_t step = 0; step < 8; ++step) {
                for (std::size_t column = 0; column < 4; ++column) {
                    const bool negative = (signs >> column & 1u) != 0;
                    for (std::size_t row = 0; row < 16; ++row)
                        s.set_code(step, row, column, negative ? -128 : 127);
                    s.activations[step * 4 + column] = (signs >> (column + 4) & 1u) != 0 ? -127 : 127;
                }
            }
            expect_exact<std::int8_t>(functions(isa).sum8, s, 8);
            if (testing::Test::HasFatalFailure()) return;
        }
    });
}

TEST(Sums, AreExactForAnyCodesAndAnyNumberOfSteps) {
    on_each_isa([](Isa isa) {
        std::mt19937 random(1);
        for (int repeat = 0; repeat < 300; ++repeat) {
            Steps s;
            for (std::byte& code : s.codes) code = static_cast<std::byte>(random());
            for (std::int8_t& x : s.activations)
                x = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
            for (std::size_t steps = 1; steps <= 8; ++steps)
                expect_exact<std::int8_t>(functions(isa).sum8, s, steps);
            for (std::byte& code : s.codes) code &= std::byte{15};
            for (std::size_t steps = 1; steps <= 8; ++steps)
                expect_exact<std::uint8_t>(functions(isa).sum4, s, steps);
            if (testing::Test::HasFatalFailure()) return;
        }
    });
}

TEST(LookUp, FindsTheEntryOfEachNibble) {
    on_each_isa([](Isa isa) {
        for (unsigned first = 0; first < 256; first += 64) {
            std::array<std::byte, 64> bytes{};
            for (unsigned i = 0; i < 64; ++i) bytes[i] = static_cast<std::byte>(first + i);
            std::array<std::int8_t, 64> low{}, high{};
            functions(isa).look_up(bytes.data(), zse::weights::nf4_codes.data(), low.data(), high.data());
            for (unsigned i = 0; i < 64; ++i) {
                ASSERT_EQ(low[i], zse::weights::nf4_codes[(first + i) & 15u]) << first + i;
                ASSERT_EQ(high[i], zse::weights::nf4_codes[(first + i) >> 4u]) << first + i;
            }
        }
    });
}

TEST(ToInt, RoundsToTheNearestAndTiesToEven) {
    on_each_isa([](Isa isa) {
        std::vector<float> values;
        for (int i = -4 * 127; i <= 4 * 127; ++i)
            values.push_back(static_cast<float>(i) / 4);  // with all ties
        for (const float tie : {-2.5f, -0.5f, 0.5f, 1.5f}) {
            values.push_back(std::nextafter(tie, -9.0f));
            values.push_back(std::nextafter(tie, 9.0f));
        }
        values.resize(zse::round_up(values.size(), 16));
        std::vector<std::int8_t> codes(values.size());
        functions(isa).round(values.data(), values.size(), codes.data());
        for (std::size_t i = 0; i < values.size(); ++i) {
            ASSERT_EQ(static_cast<float>(codes[i]), std::nearbyint(values[i])) << values[i];
        }
    });
}

TEST(Halves, WidenAsTheirTypesDo) {
    on_each_isa([](Isa isa) {
        std::vector<std::uint16_t> bits(1u << 16);
        for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
        std::vector<float> f16(bits.size()), bf16(bits.size());
        functions(isa).widen(reinterpret_cast<const std::byte*>(bits.data()), bits.size(), f16.data(),
                             bf16.data());
        for (std::size_t i = 0; i < bits.size(); ++i) {
            const auto expect = [&](float got, float wanted) {
                // What is no number may come with its quiet bit set.
                ASSERT_TRUE(std::isnan(wanted) ? std::isnan(got)
                                               : std::memcmp(&got, &wanted, sizeof got) == 0)
                    << i << ": " << got << " is not " << wanted;
            };
            expect(f16[i], static_cast<float>(std::bit_cast<zse::f16>(bits[i])));
            expect(bf16[i], static_cast<float>(std::bit_cast<zse::bf16>(bits[i])));
        }
    });
}

TEST(Halves, BytesWidenToTheFieldsOfAHalf) {
    on_each_isa([](Isa isa) {
        std::array<std::byte, 256> codes{};
        for (unsigned code = 0; code < 256; ++code) codes[code] = static_cast<std::byte>(code);
        std::array<float, 256> values{};
        functions(isa).widen_e4m3(codes.data(), codes.size(), values.data());
        for (int code = 0; code < 256; ++code) {
            // The code of no number is not looked at: it has the value that it would have without its meaning.
            const int exponent = code / 8 % 16;
            const double magnitude =
                exponent == 0 ? std::ldexp(code % 8, -9) : std::ldexp(8 + code % 8, exponent - 10);
            const auto got = static_cast<double>(values[static_cast<std::size_t>(code)]);
            EXPECT_EQ(got, (code < 128 ? magnitude : -magnitude) / 256) << code;
            EXPECT_EQ(std::signbit(got), code >= 128);
        }
    });
}

TEST(Halves, NarrowAsTheirTypeDoes) {
    on_each_isa([](Isa isa) {
        std::vector<float> values{0.0f, -0.0f, 65519.0f, 65520.0f, -1e30f, HUGE_VALF, -HUGE_VALF, 1e-40f};
        for (unsigned half = 0; half < 0x7c00;
             half += 7) {  // halves, and the ties and their neighbours between two
            const float value = static_cast<float>(std::bit_cast<zse::f16>(static_cast<std::uint16_t>(half)));
            const float above =
                static_cast<float>(std::bit_cast<zse::f16>(static_cast<std::uint16_t>(half + 1)));
            const float tie = value + (above - value) / 2;
            for (const float each :
                 {value, tie, std::nextafter(tie, 0.0f), std::nextafter(tie, HUGE_VALF), -tie}) {
                values.push_back(each);
            }
        }
        values.resize(zse::round_up(values.size(), 16));
        std::vector<std::uint16_t> halves(values.size());
        functions(isa).narrow(values.data(), values.size(), reinterpret_cast<std::byte*>(halves.data()));
        for (std::size_t i = 0; i < values.size(); ++i)
            ASSERT_EQ(halves[i], zse::f16(values[i]).bits) << values[i];
    });
}

TEST(Exp, IsWithinTwoUnitsInTheLastPlace) {
    on_each_isa([](Isa isa) {
        std::vector<float> values;
        for (double v = -104.0; v < 88.7; v += 0.00171) values.push_back(static_cast<float>(v));
        for (double v = 1e-30; v < 1; v *= 1.7) {
            values.push_back(static_cast<float>(v));
            values.push_back(static_cast<float>(-v));
        }
        values.push_back(0.0f);
        values.push_back(-0.0f);
        std::vector<float> got(values.size());
        functions(isa).exp(values.data(), values.size(), got.data());
        for (std::size_t i = 0; i < values.size(); ++i) {
            const double truth = std::exp(static_cast<double>(values[i]));
            const auto nearest = static_cast<float>(truth);
            const double unit =
                static_cast<double>(std::nextafter(nearest, HUGE_VALF)) - static_cast<double>(nearest);
            ASSERT_NEAR(static_cast<double>(got[i]), truth, 2 * unit) << values[i];
        }
        EXPECT_EQ(got[got.size() - 2], 1.0f);
        EXPECT_EQ(got.back(), 1.0f);
    });
}

TEST(Exp, IsNothingFarBelowAndNoNumberForNone) {
    on_each_isa([](Isa isa) {
        const std::vector<float> values{-104.1f, -200.0f, -1e30f, -HUGE_VALF, std::nanf(""), -std::nanf("")};
        std::vector<float> got(values.size());
        functions(isa).exp(values.data(), values.size(), got.data());
        for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(got[i], 0.0f) << values[i];
        EXPECT_TRUE(std::isnan(got[4]));
        EXPECT_TRUE(std::isnan(got[5]));
    });
}

TEST(Reductions, FindTheSumAndTheGreatestInAnyPlace) {
    on_each_isa([](Isa isa) {
        for (std::size_t place = 0; place < 16; ++place) {
            std::array<float, 16> values{};
            for (std::size_t i = 0; i < 16; ++i) values[i] = -static_cast<float>(i + 1);
            values[place] = 3.0f;
            const probe::Reductions r = functions(isa).reduce(values.data());
            const float sum = -136.0f + static_cast<float>(place + 1) + 3.0f;
            EXPECT_EQ(r.sum, sum);
            EXPECT_EQ(r.steps, static_cast<std::int32_t>(sum));
            EXPECT_EQ(r.greatest, 3.0f);
            EXPECT_EQ(functions(isa).magnitude(values.data()), place == 15 ? 15.0f : 16.0f);
            values[place] = -HUGE_VALF;
            EXPECT_EQ(functions(isa).magnitude(values.data()), HUGE_VALF);
            for (const float none : {std::nanf(""), -std::nanf("")}) {
                values[place] = none;
                EXPECT_TRUE(std::isnan(functions(isa).magnitude(values.data()))) << "in place " << place;
            }
        }
    });
}

}  // namespace
