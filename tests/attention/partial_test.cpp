// SPDX-License-Identifier: Apache-2.0
// Partial softmax states: merged in order, they are the softmax over all tokens.
// rows: 40
#include <zse/attention/partial.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace {

using zse::attention::merge;
using zse::attention::Partial;

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

TEST(Merge, OfAnySplitIsTheSoftmaxOverAllTokens) {
    for (const float spread : {0.0f, 1.0f, 10.0f, 200.0f}) {
        for (const std::size_t split : {1u, 2u, 7u, 64u, 100u}) {
            const Tokens tokens = random_tokens(100, static_cast<unsigned>(split), spread);
            State merged;
            for (std::size_t first = 0; first < 100; first += split) {
                const State part = state_of(tokens, first, std::min<std::size_t>(first + split, 100));
                merge(merged.partial, merged.value.data(), part.partial, part.value.data(), dim);
            }
            const auto expected = softmax_of(tokens);
            for (std::size_t d = 0; d < dim; ++d) {
                ASSERT_NEAR(static_cast<double>(merged.value[d]) / static_cast<double>(merged.partial.sum),
                            expected[d], 2e-6)
                    << "spread " << spread << " split " << split;
            }
        }
    }
}

TEST(Merge, WithAnEmptyStateKeepsTheOther) {
    const Tokens tokens = random_tokens(10, 1, 1.0f);
    const State part = state_of(tokens, 0, 10);
    State merged;
    merge(merged.partial, merged.value.data(), part.partial, part.value.data(), dim);
    EXPECT_EQ(merged.partial.greatest, part.partial.greatest);
    EXPECT_EQ(merged.partial.sum, part.partial.sum);
    EXPECT_EQ(merged.value, part.value);
    const State none;
    merge(merged.partial, merged.value.data(), none.partial, none.value.data(), dim);
    EXPECT_EQ(merged.partial.sum, part.partial.sum);
    EXPECT_EQ(merged.value, part.value);
}

TEST(Merge, OfScoresFarApartKeepsTheGreaterOne) {
    Tokens tokens = random_tokens(2, 2, 1.0f);
    for (const bool greater_first : {true, false}) {
        tokens.scores =
            greater_first ? std::vector<float>{5000.0f, -5000.0f} : std::vector<float>{-5000.0f, 5000.0f};
        State merged = state_of(tokens, 0, 1);
        const State later = state_of(tokens, 1, 2);
        merge(merged.partial, merged.value.data(), later.partial, later.value.data(), dim);
        EXPECT_EQ(merged.partial.greatest, 5000.0f);
        EXPECT_EQ(merged.partial.sum, 1.0f);
        EXPECT_EQ(merged.value, tokens.values[greater_first ? 0 : 1]);
    }
}

}  // namespace
