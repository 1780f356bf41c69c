// SPDX-License-Identifier: Apache-2.0
// The sampler: its distribution, its repeatability, its transforms against a slow reference, and bad rows.
// rows: 76
#include <zse/sampling/sampler.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using testing::HasSubstr;
using zse::sampling::Row;
using zse::sampling::Sampler;
using zse::sampling::SamplingParams;
using zse::sampling::TokenMask;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();
using Logits = std::vector<float>;
using Tokens = std::vector<std::int32_t>;
using Words = std::vector<std::uint64_t>;

zse::Result<std::int32_t> choose(const SamplingParams& params, const Row& row) {
    std::vector<float> scratch(zse::sampling::scratch_bytes(row.logits.size()) / sizeof(float), nan);
    return Sampler(params).sample(row, std::as_writable_bytes(std::span(scratch)));
}

std::int32_t token(const SamplingParams& params, const Row& row) {
    return choose(params, row).value();
}

/// Normal logits; a step > 0 rounds them to multiples of it, so that many are equal.
Logits random_logits(std::mt19937& random, std::size_t vocabulary, float step = 0) {
    std::normal_distribution<float> normal(0, 3);
    Logits logits(vocabulary);
    for (float& logit : logits) {
        logit = normal(random);
        if (step > 0) logit = std::round(logit / step) * step;
    }
    return logits;
}

std::vector<double> softmax(const Logits& logits, double temperature) {
    const double most = *std::max_element(logits.begin(), logits.end());
    std::vector<double> probabilities;
    for (const float logit : logits) probabilities.push_back(std::exp((logit - most) / temperature));
    const double sum = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
    for (double& probability : probabilities) probability /= sum;
    return probabilities;
}

double chi_square(const std::vector<std::int64_t>& counts, const std::vector<double>& probabilities) {
    const auto draws = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    double statistic = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        const double expected = draws * probabilities[i];
        const double difference = static_cast<double>(counts[i]) - expected;
        statistic += difference * difference / expected;
    }
    return statistic;
}

// 32 tokens, so 31 degrees of freedom, whose 99.9 % point is 61.1 (chi-square table).
constexpr double critical = 61.1;

Logits frequency_logits() {
    Logits logits;
    for (int i = 0; i < 32; ++i) logits.push_back(1.5f * std::sin(static_cast<float>(i) * 1.7f));
    return logits;
}

TEST(Sampler, FrequenciesFollowTheSoftmaxAtTemperature07) {
    const Logits logits = frequency_logits();
    std::vector<std::int64_t> over_positions(logits.size());
    std::vector<std::int64_t> over_seeds(logits.size());
    for (std::uint64_t i = 0; i < 200'000; ++i) {
        const auto by_position = token({.temperature = 0.7f, .seed = 1}, {.logits = logits, .position = i});
        const auto by_seed = token({.temperature = 0.7f, .seed = i}, {.logits = logits, .position = 5});
        ++over_positions[static_cast<std::size_t>(by_position)];
        ++over_seeds[static_cast<std::size_t>(by_seed)];
    }
    EXPECT_LT(chi_square(over_positions, softmax(logits, 0.7)), critical);
    EXPECT_LT(chi_square(over_seeds, softmax(logits, 0.7)), critical);
    // The test would notice a temperature that is 3 % off.
    EXPECT_GT(chi_square(over_positions, softmax(logits, 0.72)), critical);
}

TEST(Sampler, FrequenciesOfRestrictedDrawsFollowTheRestrictedSoftmax) {
    const Logits logits = frequency_logits();
    std::vector<double> expected = softmax(logits, 0.7);
    std::vector<double> sorted = expected;
    std::sort(sorted.rbegin(), sorted.rend());
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        if (expected[i] >= sorted[9]) kept.push_back(i);
    }
    ASSERT_EQ(kept.size(), 10u);
    double sum = 0;
    for (const std::size_t i : kept) sum += expected[i];
    std::vector<double> probabilities;
    for (const std::size_t i : kept) probabilities.push_back(expected[i] / sum);

    std::vector<std::int64_t> counts(kept.size());
    for (std::uint64_t i = 0; i < 100'000; ++i) {
        const auto id =
            token({.temperature = 0.7f, .top_k = 10, .seed = 3}, {.logits = logits, .position = i});
        const auto at = std::find(kept.begin(), kept.end(), static_cast<std::size_t>(id));
        ASSERT_NE(at, kept.end()) << id;
        ++counts[static_cast<std::size_t>(at - kept.begin())];
    }
    EXPECT_LT(chi_square(counts, probabilities), 27.9);  // 99.9 % point of 9 degrees of freedom
}

TEST(Sampler, ASeedRepeatsAndSeedsDiffer) {
    std::mt19937 random(1);
    const Logits logits = random_logits(random, 500);
    Tokens first, again, other;
    for (std::uint64_t position = 0; position < 100; ++position) {
        first.push_back(token({.temperature = 0.7f, .seed = 7}, {.logits = logits, .position = position}));
        again.push_back(token({.temperature = 0.7f, .seed = 7}, {.logits = logits, .position = position}));
        other.push_back(token({.temperature = 0.7f, .seed = 8}, {.logits = logits, .position = position}));
    }
    EXPECT_EQ(first, again);
    EXPECT_NE(first, other);
    EXPECT_NE(std::count(first.begin(), first.end(), first[0]), 100);  // the position matters, too
}

TEST(Sampler, GreedyTakesTheLargestLogitAndTheLowestIdOfEquals) {
    EXPECT_EQ(token({}, {.logits = Logits{-3, 5, 2, 5, 5}}), 1);
    EXPECT_EQ(token({}, {.logits = Logits{-1, -1}}), 0);
    EXPECT_EQ(token({}, {.logits = Logits{-5, -0.0f, 0.0f}}), 1);
    EXPECT_EQ(token({}, {.logits = Logits{7}}), 0);
    // Seed and position have no say, nor have the cuts.
    EXPECT_EQ(token({.top_k = 1, .top_p = 0.1f, .min_p = 0.9f, .seed = 99},
                    {.logits = Logits{1, 2, 9, 2}, .position = 12345}),
              2);
}

/// The same contract, by sorting, over (id, weight) pairs in double precision.
std::int32_t reference(const SamplingParams& params, const Row& row) {
    struct Item {
        std::int32_t id;
        float value;
    };
    std::vector<Item> items;
    Tokens penalised(row.history.begin(), row.history.end());
    if (params.repetition_window > 0 &&
        penalised.size() > static_cast<std::size_t>(params.repetition_window)) {
        penalised.erase(penalised.begin(), penalised.end() - params.repetition_window);
    }
    for (std::size_t i = 0; i < row.logits.size(); ++i) {
        const auto id = static_cast<std::int32_t>(i);
        float value = row.logits[i];
        if (value == -infinity || !row.mask.allows(i)) continue;
        if (std::find(penalised.begin(), penalised.end(), id) != penalised.end()) {
            value = value > 0 ? value / params.repetition_penalty : value * params.repetition_penalty;
        }
        items.push_back({id, value});
    }
    const auto by_likelihood = [](const Item& a, const Item& b) {
        return a.value != b.value ? a.value > b.value : a.id < b.id;
    };
    std::sort(items.begin(), items.end(), by_likelihood);
    if (params.temperature == 0) return items.front().id;
    if (params.top_k > 0 && items.size() > static_cast<std::size_t>(params.top_k)) {
        items.resize(static_cast<std::size_t>(params.top_k));
    }
    const float most = items.front().value;
    for (Item& item : items) item.value = std::exp((item.value - most) / params.temperature);
    std::sort(items.begin(), items.end(), by_likelihood);  // weights may tie where logits did not
    while (items.back().value < params.min_p) items.pop_back();
    double sum = 0;
    for (const Item& item : items) sum += static_cast<double>(item.value);
    if (params.top_p < 1) {
        const double wanted = static_cast<double>(params.top_p) * sum;
        double reached = 0;
        std::size_t count = 0;
        do reached += static_cast<double>(items[count++].value);
        while (reached < wanted && count < items.size());
        items.resize(count);
    }
    std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.id < b.id; });
    sum = 0;
    for (const Item& item : items) sum += static_cast<double>(item.value);
    const auto words = zse::sampling::philox(params.seed, row.position);
    const double target = zse::sampling::uniform(words[0], words[1]) * sum;
    double passed = 0;
    for (const Item& item : items) {
        passed += static_cast<double>(item.value);
        if (passed > target) return item.id;
    }
    return items.back().id;
}

TEST(Sampler, EqualsASortingReferenceOverRandomRowsAndParameters) {
    std::mt19937 random(20240601);
    std::uniform_real_distribution<float> unit(0, 1);
    int different_from_greedy = 0;
    for (int round = 0; round < 4000; ++round) {
        const std::size_t vocabulary = 1 + random() % 700;
        const float step = round % 3 == 0 ? 0.5f : 0;  // a third of the rows is full of ties
        Logits logits = random_logits(random, vocabulary, step);
        for (std::size_t i = 1; i < vocabulary; ++i) {
            if (random() % 16 == 0) logits[i] = -infinity;
        }
        Tokens history(random() % 40);
        for (std::int32_t& id : history) id = static_cast<std::int32_t>(random() % vocabulary);
        Words mask(random() % 2 == 0 ? 0 : (vocabulary + 63) / 64);
        for (std::uint64_t& word : mask) word = (std::uint64_t{random()} << 32) | random();
        if (!mask.empty()) mask[0] |= 1;
        SamplingParams params{.temperature = round % 10 == 0 ? 0 : 0.2f + 2 * unit(random), .seed = random()};
        if (random() % 2 == 0) params.top_k = static_cast<std::int32_t>(1 + random() % (vocabulary + 5));
        if (random() % 2 == 0) params.top_p = unit(random);
        if (random() % 2 == 0) params.min_p = unit(random) * 0.2f;
        if (random() % 2 == 0) params.repetition_penalty = 0.5f + 1.5f * unit(random);
        if (random() % 2 == 0) params.repetition_window = static_cast<std::int32_t>(random() % 30);
        const Row row{.logits = logits, .history = history, .mask = {mask}, .position = random()};
        const std::int32_t chosen = token(params, row);
        ASSERT_EQ(chosen, reference(params, row)) << "round " << round;
        params.temperature = 0;
        different_from_greedy += chosen != token(params, row);
    }
    EXPECT_GT(different_from_greedy, 500);  // else the comparison would show little
}

TEST(Sampler, KeptSetsEqualThoseOfASortedRow) {
    std::mt19937 random(77);
    for (int round = 0; round < 300; ++round) {
        const std::size_t vocabulary = 1 + random() % 3000;
        const Logits logits = random_logits(random, vocabulary, round % 2 == 0 ? 0.25f : 0);
        Tokens order(vocabulary);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
            return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
        });
        const std::size_t k = 1 + random() % vocabulary;
        Logits values(vocabulary);
        Tokens ids(vocabulary);
        zse::sampling::detail::copy_logits(logits, values.data());
        auto candidates = zse::sampling::detail::gather(values.data(), ids.data(), vocabulary, {});
        const auto expect_kept = [&](std::size_t count) {
            Tokens expected(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count));
            std::sort(expected.begin(), expected.end());
            EXPECT_EQ(Tokens(candidates.ids, candidates.ids + candidates.count), expected)
                << "round " << round;
        };
        zse::sampling::detail::keep_top_k(candidates, k);
        expect_kept(k);

        zse::sampling::detail::soften(candidates, 1.5f);
        const float top_p = static_cast<float>(random() % 1000) / 1000;
        const double wanted = static_cast<double>(top_p) * zse::sampling::detail::total(candidates);
        const float most = logits[static_cast<std::size_t>(order[0])];
        double reached = 0;
        std::size_t count = 0;
        do
            reached += static_cast<double>(
                std::exp((logits[static_cast<std::size_t>(order[count++])] - most) / 1.5f));
        while (reached < wanted && count < k);
        zse::sampling::detail::keep_top_p(candidates, top_p);
        expect_kept(count);
    }
}

TEST(Sampler, TopPOfZeroAndTopKOfOneKeepTheMostLikelyToken) {
    const Logits logits{1, 4, 2, 4, 3};
    for (std::uint64_t position = 0; position < 50; ++position) {
        EXPECT_EQ(token({.temperature = 5, .top_p = 0}, {.logits = logits, .position = position}), 1);
        EXPECT_EQ(token({.temperature = 5, .top_k = 1}, {.logits = logits, .position = position}), 1);
        const auto either = token({.temperature = 5, .min_p = 1}, {.logits = logits, .position = position});
        EXPECT_TRUE(either == 1 || either == 3);  // min-p keeps equals
    }
}

TEST(Sampler, TopPIsAShareOfWhatMinPLeft) {
    // Weights 8 4 2 1: min_p 0.2 leaves 8 4 2 with sum 14, of which 8 and 4 hold 0.857; of all 15 they hold
    // 0.8.
    const Logits logits{std::log(8.0f), std::log(4.0f), std::log(2.0f), std::log(1.0f)};
    bool third = false;
    for (std::uint64_t position = 0; position < 200; ++position) {
        const Row row{.logits = logits, .position = position};
        EXPECT_LT(token({.temperature = 1, .top_p = 0.83f, .min_p = 0.2f}, row), 2);
        third = third || token({.temperature = 1, .top_p = 0.83f}, row) == 2;
    }
    EXPECT_TRUE(third);
}

TEST(Sampler, PenaltyDividesPositiveAndMultipliesNegativeLogitsOnceAToken) {
    const SamplingParams twice{.repetition_penalty = 2};
    EXPECT_EQ(token(twice, {.logits = Logits{3, 2}, .history = Tokens{0}}), 1);
    EXPECT_EQ(token(twice, {.logits = Logits{3, 1.4f}, .history = Tokens{0}}), 0);
    EXPECT_EQ(token(twice, {.logits = Logits{3, 1.4f}, .history = Tokens{0, 0, 0}}), 0);  // else 0.375
    EXPECT_EQ(token(twice, {.logits = Logits{-1, -1.5f}, .history = Tokens{0}}), 1);
    EXPECT_EQ(token(twice, {.logits = Logits{-1, -2.5f}, .history = Tokens{0, 0}}), 0);
    EXPECT_EQ(token({.repetition_penalty = 0.5f}, {.logits = Logits{3, 2}, .history = Tokens{1, 1}}), 1);
    EXPECT_EQ(token({}, {.logits = Logits{3, 2}, .history = Tokens{0}}), 0);
    // Ids that are not in the vocabulary are passed over.
    EXPECT_EQ(token(twice, {.logits = Logits{3, 2}, .history = Tokens{-1, 2, 2147483647}}), 0);
}

TEST(Sampler, PenaltyLooksAtTheLastTokensOfItsWindow) {
    const Logits logits{5, 4, 3};
    const Tokens history{0, 1, 1};
    EXPECT_EQ(
        token({.repetition_penalty = 3, .repetition_window = 2}, {.logits = logits, .history = history}), 0);
    EXPECT_EQ(
        token({.repetition_penalty = 3, .repetition_window = 3}, {.logits = logits, .history = history}), 2);
    EXPECT_EQ(token({.repetition_penalty = 3}, {.logits = logits, .history = history}), 2);
}

TEST(Sampler, PenaltyThatOverflowsLeavesAFiniteLogit) {
    const SamplingParams tiny{.temperature = 1, .repetition_penalty = 1e-38f};
    EXPECT_EQ(token(tiny, {.logits = Logits{1, 30}, .history = Tokens{1, 1}}), 1);
    const SamplingParams huge{.temperature = 1, .repetition_penalty = 3e38f};
    EXPECT_EQ(token(huge, {.logits = Logits{-30, -40}, .history = Tokens{0, 0}}), 1);
    EXPECT_EQ(token(huge, {.logits = Logits{-30}, .history = Tokens{0}}), 0);  // still the only token
}

TEST(Sampler, OnlyAllowedTokensAreChosen) {
    std::mt19937 random(5);
    const Logits logits = random_logits(random, 130);
    Words mask(3);
    for (const int allowed : {3, 64, 129})
        mask[static_cast<std::size_t>(allowed) / 64] |= std::uint64_t{1} << (allowed % 64);
    std::vector<int> seen(130);
    for (std::uint64_t position = 0; position < 300; ++position) {
        const auto id = token({.temperature = 30}, {.logits = logits, .mask = {mask}, .position = position});
        ++seen[static_cast<std::size_t>(id)];
    }
    EXPECT_GT(seen[3], 0);
    EXPECT_GT(seen[64], 0);
    EXPECT_GT(seen[129], 0);
    EXPECT_EQ(seen[3] + seen[64] + seen[129], 300);
    const auto best = std::max({3, 64, 129}, [&](int a, int b) {
        return logits[static_cast<std::size_t>(a)] < logits[static_cast<std::size_t>(b)];
    });
    EXPECT_EQ(token({}, {.logits = logits, .mask = {mask}}), best);
}

void expect_error(const zse::Result<std::int32_t>& result, zse::ErrorCode code, const std::string& part) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code(), code);
    EXPECT_THAT(result.error().what(), HasSubstr(part));
}

TEST(Sampler, NoTokenToChooseIsAnError) {
    for (const float temperature : {0.0f, 1.0f}) {
        const SamplingParams params{.temperature = temperature, .top_k = 3, .top_p = 0.5f};
        expect_error(choose(params, {.logits = Logits{1, 2}, .mask = {Words{0}}}),
                     zse::ErrorCode::invalid_input, "token mask allows no token");
        // A bit beyond the vocabulary allows nothing.
        expect_error(choose(params, {.logits = Logits{1, 2}, .mask = {Words{4}}}),
                     zse::ErrorCode::invalid_input, "token mask allows no token");
        expect_error(choose(params, {.logits = Logits{-infinity, 2}, .mask = {Words{1}}}),
                     zse::ErrorCode::invalid_input, "token mask allows no token");
        expect_error(choose(params, {.logits = Logits{-infinity, -infinity}}), zse::ErrorCode::invalid_input,
                     "minus infinity");
    }
}

TEST(Sampler, LogitsThatAreNoNumbersAreAnError) {
    for (const float temperature : {0.0f, 1.0f}) {
        const SamplingParams params{.temperature = temperature};
        expect_error(choose(params, {.logits = Logits{1, 2, nan}}), zse::ErrorCode::internal,
                     "logit of token 2 is nan");
        expect_error(choose(params, {.logits = Logits{1, infinity, 2}}), zse::ErrorCode::internal,
                     "logit of token 1 is inf");
        EXPECT_EQ(token(params, {.logits = Logits{-infinity, 2, -infinity}}), 1);
    }
    EXPECT_EQ(token({.repetition_penalty = 2}, {.logits = Logits{-infinity, 2}, .history = Tokens{0, 1}}), 1);
}

TEST(Sampler, BuffersOfTheWrongSizeAreAnError) {
    const Logits logits(100, 1.0f);
    expect_error(choose({}, {.logits = Logits{}}), zse::ErrorCode::internal, "not 0");
    expect_error(choose({}, {.logits = logits, .mask = {Words{1}}}), zse::ErrorCode::internal, "2 words");
    std::vector<float> room(201);
    const auto bytes = std::as_writable_bytes(std::span(room));
    EXPECT_TRUE(Sampler().sample({.logits = logits}, bytes.first(800)).ok());
    expect_error(Sampler().sample({.logits = logits}, bytes.first(799)), zse::ErrorCode::internal,
                 "800 bytes");
    expect_error(Sampler().sample({.logits = logits}, bytes.subspan(1, 801)), zse::ErrorCode::internal,
                 "aligned");
    static_assert(zse::sampling::scratch_bytes(128'256) == 1'026'048);
    static_assert(zse::sampling::scratch_bytes(~std::uint64_t{0}) == ~std::uint64_t{0});
}

TEST(Sampler, ExtremeLogitsAndTemperaturesAreDrawnFrom) {
    constexpr float most = std::numeric_limits<float>::max();
    const Logits wide{-most, most, 0};
    for (const float temperature : {std::numeric_limits<float>::denorm_min(), 1e-6f, 1.0f}) {
        EXPECT_EQ(token({.temperature = temperature, .top_p = 0.9f}, {.logits = wide}), 1);
    }
    // At the highest temperature small logits are as good as equal.
    std::vector<int> seen(4);
    for (std::uint64_t position = 0; position < 400; ++position) {
        const auto id = token({.temperature = most}, {.logits = Logits{1, 2, 3, 4}, .position = position});
        ++seen[static_cast<std::size_t>(id)];
    }
    for (const int count : seen) EXPECT_GT(count, 60);
}

TEST(Sampler, ARowGivesTheSameTokenWhateverSharesItsScratchAndThread) {
    std::mt19937 random(9);
    constexpr std::size_t rows = 64;
    std::vector<Logits> logits;
    for (std::size_t i = 0; i < rows; ++i) logits.push_back(random_logits(random, 50 + 13 * i));
    const Sampler sampler({.temperature = 1.3f, .top_k = 40, .top_p = 0.95f, .min_p = 0.01f, .seed = 11});
    const auto row = [&](std::size_t i) { return Row{.logits = logits[i], .position = i}; };
    Tokens alone(rows);
    for (std::size_t i = 0; i < rows; ++i) alone[i] = token(sampler.params(), row(i));

    const auto work = [&](std::size_t first, std::size_t step, Tokens& out) {
        std::vector<float> scratch(2 * logits.back().size());  // one for all rows, dirty from the row before
        for (std::size_t n = 0; n < rows / step; ++n) {
            const std::size_t i = rows - 1 - first - n * step;
            out[i] = sampler.sample(row(i), std::as_writable_bytes(std::span(scratch))).value();
        }
    };
    Tokens together(rows), threaded(rows);
    work(0, 1, together);
    std::thread even([&] { work(0, 2, threaded); });
    std::thread odd([&] { work(1, 2, threaded); });
    even.join();
    odd.join();
    EXPECT_EQ(together, alone);
    EXPECT_EQ(threaded, alone);
}

}  // namespace
