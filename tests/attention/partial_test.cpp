// SPDX-License-Identifier: Apache-2.0
// Partial softmax states of every instruction set: merged in order, they are the softmax over all tokens.
// rows: 40
#include <zse/attention/kernels.hpp>

#include <gtest/gtest.h>
#include <support/instruction_sets.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace {

using support::on_each_isa;
using zse::attention::Partial;
using zse::attention::SoftmaxKernels;
using zse::kernels::Isa;

const SoftmaxKernels& kernels(Isa isa) {
    return *zse::attention::cache_kernels<zse::kv::f32, zse::kv::f32>(isa).softmax;
}

constexpr std::size_t dim = 32;

struct State {
    Partial partial;
    std::vector<float> value = std::vector<float>(dim, 0.0f);
};

struct Tokens {
    std::vector<float> scores;
    std::vector<std::vector<float>> values;
};

Tokens random_tokens(std::size_t count, unsigned seed, float spread) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    Tokens tokens;
    for (std::size_t t = 0; t < count; ++t) {
        tokens.scores.push_back(normal(random) * spread);
        tokens.values.emplace_back(dim);
        for (float& value : tokens.values.back()) value = normal(random);
    }
    return tokens;
}

/// The state of tokens [first, last) by its definition.
State state_of(const Tokens& tokens, std::size_t first, std::size_t last) {
    State s;
    for (std::size_t t = first; t < last; ++t)
        s.partial.greatest = std::max(s.partial.greatest, tokens.scores[t]);
    for (std::size_t t = first; t < last; ++t) {
        const float weight = std::exp(tokens.scores[t] - s.partial.greatest);
        s.partial.sum += weight;
        for (std::size_t d = 0; d < dim; ++d) s.value[d] += weight * tokens.values[t][d];
    }
    return s;
}

std::vector<double> softmax_of(const Tokens& tokens) {
    const double greatest =
        static_cast<double>(*std::max_element(tokens.scores.begin(), tokens.scores.end()));
    double sum = 0;
    std::vector<double> value(dim, 0.0);
    for (std::size_t t = 0; t < tokens.scores.size(); ++t) {
        const double weight = std::exp(static_cast<double>(tokens.scores[t]) - greatest);
        sum += weight;
        for (std::size_t d = 0; d < dim; ++d) value[d] += weight * static_cast<double>(tokens.values[t][d]);
    }
    for (double& each : value) each /= sum;
    return value;
}

void merge(Isa isa, State& state, const State& later) {
    kernels(isa).merge(state.partial, state.value.data(), later.partial, later.value.data(), dim);
}

TEST(Merge, OfAnySplitIsTheSoftmaxOverAllTokens) {
    on_each_isa([](Isa isa) {
        for (const float spread : {0.0f, 1.0f, 10.0f, 200.0f}) {
            for (const std::size_t split : {1u, 2u, 7u, 64u, 100u}) {
                const Tokens tokens = random_tokens(100, static_cast<unsigned>(split), spread);
                State merged;
                for (std::size_t first = 0; first < 100; first += split) {
                    merge(isa, merged, state_of(tokens, first, std::min<std::size_t>(first + split, 100)));
                }
                const auto expected = softmax_of(tokens);
                for (std::size_t d = 0; d < dim; ++d) {
                    ASSERT_NEAR(
                        static_cast<double>(merged.value[d]) / static_cast<double>(merged.partial.sum),
                        expected[d], 2e-6)
                        << "spread " << spread << " split " << split;
                }
            }
        }
    });
}

TEST(Merge, WithAnEmptyStateKeepsTheOther) {
    on_each_isa([](Isa isa) {
        const State part = state_of(random_tokens(10, 1, 1.0f), 0, 10);
        State merged;
        merge(isa, merged, part);
        EXPECT_EQ(merged.partial.greatest, part.partial.greatest);
        EXPECT_EQ(merged.partial.sum, part.partial.sum);
        EXPECT_EQ(merged.value, part.value);
        merge(isa, merged, State{});
        EXPECT_EQ(merged.partial.sum, part.partial.sum);
        EXPECT_EQ(merged.value, part.value);
    });
}

TEST(Merge, OfScoresFarApartKeepsTheGreaterOne) {
    on_each_isa([](Isa isa) {
        Tokens tokens = random_tokens(2, 2, 1.0f);
        for (const bool greater_first : {true, false}) {
            tokens.scores =
                greater_first ? std::vector<float>{5000.0f, -5000.0f} : std::vector<float>{-5000.0f, 5000.0f};
            State merged = state_of(tokens, 0, 1);
            merge(isa, merged, state_of(tokens, 1, 2));
            EXPECT_EQ(merged.partial.greatest, 5000.0f);
            EXPECT_EQ(merged.partial.sum, 1.0f);
            EXPECT_EQ(merged.value, tokens.values[greater_first ? 0 : 1]);
        }
    });
}

TEST(Softmax, IsItsFormulaForAnyNumberOfScores) {
    on_each_isa([](Isa isa) {
        for (std::size_t count = 1; count <= 70; ++count) {
            for (const float spread : {0.0f, 1.0f, 30.0f}) {
                const Tokens tokens = random_tokens(count, static_cast<unsigned>(count), spread);
                std::vector<float> scores(tokens.scores);
                scores.resize((count + 15) / 16 * 16 + 1, std::nanf(""));  // what lies beyond may be anything
                const Partial state = kernels(isa).softmax(scores.data(), count);
                const float greatest = *std::max_element(tokens.scores.begin(), tokens.scores.end());
                EXPECT_EQ(state.greatest, greatest);
                double sum = 0;
                double errors = 0;
                for (std::size_t t = 0; t < count; ++t) {
                    // The difference is rounded once, which the exponential multiplies by its magnitude; its own error
                    // is two units in the last place, also below the normal floats.
                    const double difference =
                        static_cast<double>(tokens.scores[t]) - static_cast<double>(greatest);
                    const double weight = std::exp(difference);
                    const double bound = (4 - difference) * 0x1p-24 * weight * 1.001 + 2 * 0x1p-149;
                    ASSERT_NEAR(static_cast<double>(scores[t]), weight, bound)
                        << "score " << t << " of " << count;
                    sum += weight;
                    errors += bound;
                }
                EXPECT_NEAR(static_cast<double>(state.sum), sum,
                            errors + static_cast<double>(count) * 0x1p-24 * sum);
                EXPECT_TRUE(std::isnan(scores.back())) << "no room beyond a multiple of 16 is needed";
            }
        }
    });
}

TEST(Softmax, OfNoScoresIsEmpty) {
    on_each_isa([](Isa isa) {
        float scores[16] = {};
        const Partial state = kernels(isa).softmax(scores, 0);
        EXPECT_EQ(state.sum, 0.0f);
        EXPECT_EQ(state.greatest, -std::numeric_limits<float>::infinity());
    });
}

TEST(Softmax, KeepsWhatIsNoNumber) {
    on_each_isa([](Isa isa) {
        for (std::size_t place = 0; place < 40; ++place) {
            std::vector<float> scores(48, 1.0f);
            scores[place] = std::nanf("");
            EXPECT_TRUE(std::isnan(kernels(isa).softmax(scores.data(), 40).sum)) << place;
        }
    });
}

}  // namespace
