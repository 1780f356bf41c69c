// SPDX-License-Identifier: Apache-2.0
// Kullback-Leibler divergence: of distributions that are computed by hand, and of two engines against the formula over
// the logits that they show.
// rows: 30
#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/tiny_engine.hpp>

#include <zse/evaluate/divergence.hpp>

namespace {

using support::Tiny;
using zse::evaluate::Distribution;

/// Divergence of distributions that are given by what their logits are the logarithms of, up to a factor.
double divergence(const std::vector<double>& base, const std::vector<double>& candidate) {
    const auto logits = [](const std::vector<double>& weights) {
        std::vector<float> row;
        for (const double weight : weights) row.push_back(static_cast<float>(std::log(weight)));
        return row;
    };
    const auto p = logits(base);
    const auto q = logits(candidate);
    return zse::evaluate::kl_divergence(Distribution(p), Distribution(q));
}

TEST(KlDivergence, IsWhatAHandComputes) {
    // 1/2 ln(2) + 1/4 ln(1) + 1/4 ln(1/2)
    EXPECT_NEAR(divergence({2, 1, 1}, {1, 1, 2}), 0.25 * std::log(2.0), 1e-7);
    // The other way round it is another number: 9/10 ln(9/5) + 1/10 ln(1/5), and 1/2 ln(5/9) + 1/2 ln(5).
    EXPECT_NEAR(divergence({9, 1}, {1, 1}), 0.9 * std::log(1.8) + 0.1 * std::log(0.2), 1e-7);
    EXPECT_NEAR(divergence({1, 1}, {9, 1}), 0.5 * std::log(5.0 / 9) + 0.5 * std::log(5.0), 1e-7);
    EXPECT_NEAR(divergence({1, 2, 3, 4}, {10, 20, 30, 40}), 0, 1e-7) << "only ratios count";
    EXPECT_EQ(divergence({5, 1, 7}, {5, 1, 7}), 0);
}

TEST(KlDivergence, HandlesWhatIsExcludedAndWhatIsNoNumber) {
    EXPECT_NEAR(divergence({1, 1, 0}, {1, 1, 2}), std::log(2.0), 1e-7)
        << "what the base excludes adds nothing";
    EXPECT_EQ(divergence({1, 1, 0}, {1, 1, 0}), 0);
    EXPECT_EQ(divergence({1, 1, 1}, {1, 1, 0}), HUGE_VAL);
    EXPECT_TRUE(std::isnan(divergence({1, std::nan(""), 1}, {1, 1, 1})));
    EXPECT_TRUE(std::isnan(divergence({1, 1, 1}, {1, std::nan(""), 1})));
    const std::vector<float> large{3e4f, 3e4f - 1}, shifted{-3e4f, -3e4f - 1};
    EXPECT_NEAR(zse::evaluate::kl_divergence(Distribution(large), Distribution(shifted)), 0, 1e-9);
}

TEST(Divergence, QuantilesLieBetweenSortedValues) {
    const std::vector<double> sorted{1, 2, 4, 8, 16};
    using zse::evaluate::detail::quantile;
    EXPECT_EQ(quantile(sorted, 0.5), 4);
    EXPECT_EQ(quantile(sorted, 0), 1);
    EXPECT_EQ(quantile(sorted, 1), 16);
    EXPECT_DOUBLE_EQ(quantile(sorted, 0.625), 6);
    EXPECT_EQ(quantile(std::vector<double>{3}, 0.99), 3);
}

TEST(Divergence, OfAnEngineFromItselfIsZero) {
    const Tiny tiny({});
    const auto one = tiny.open({.context = 32, .output_rows = 8, .threads = 2});
    const auto other = tiny.open({.context = 40, .output_rows = 3});
    const auto tokens = support::tiny_prompt(11, 100);
    const auto result = zse::evaluate::divergence(*one, *other, tokens, 32);
    EXPECT_EQ(result.mean, 0);
    EXPECT_EQ(result.median, 0);
    EXPECT_EQ(result.percentile_99, 0);
    EXPECT_EQ(result.same_top, 1);
    EXPECT_EQ(result.base.tokens, 3u * 15u);
    EXPECT_EQ(result.base.windows, 3u);
    const auto alone = zse::evaluate::perplexity(*one, tokens, 32);
    for (const auto& side : {result.base, result.candidate}) {
        EXPECT_NEAR(side.value / alone.value, 1, 1e-12);
        EXPECT_EQ(side.tokens, alone.tokens);
        EXPECT_EQ(side.windows, alone.windows);
    }
}

// Each side against the formula in float64, over logits that another function collects.
TEST(Divergence, IsTheFormulaOverTheLogitsOfBothEngines) {
    for (const bool bos : {false, true}) {
        const Tiny tiny({.add_bos = bos});
        const auto base = tiny.open<zse::Engine<zse::kv::f16>>({.context = 32, .output_rows = 8});
        const auto candidate = tiny.open<zse::Engine<zse::kv::int4<16>>>({.context = 32, .output_rows = 8});
        const auto tokens = support::tiny_prompt(11, 100);
        const auto result = zse::evaluate::divergence(*base, *candidate, tokens, 32);
        std::vector<double> each;
        double same = 0, base_sum = 0, candidate_sum = 0;
        for (std::size_t first = 0; first + 32 <= tokens.size(); first += 32) {
            std::vector<std::int32_t> window(tokens.begin() + static_cast<std::ptrdiff_t>(first),
                                             tokens.begin() + static_cast<std::ptrdiff_t>(first + 32));
            if (bos) window[0] = static_cast<std::int32_t>(support::TinyTokens::bos);
            const auto p_rows = support::all_logits(*base, window);
            const auto q_rows = support::all_logits(*candidate, window);
            for (std::size_t i = 16; i + 1 < 32; ++i) {
                std::vector<double> p, q;
                double p_total = 0, q_total = 0;
                for (std::size_t t = 0; t < p_rows[i].size(); ++t) {
                    p_total += p.emplace_back(std::exp(static_cast<double>(p_rows[i][t])));
                    q_total += q.emplace_back(std::exp(static_cast<double>(q_rows[i][t])));
                }
                double sum = 0;
                for (std::size_t t = 0; t < p.size(); ++t) {
                    sum += p[t] / p_total * std::log(p[t] / p_total / (q[t] / q_total));
                }
                each.push_back(sum);
                const auto best = [](const std::vector<double>& row) {
                    return std::max_element(row.begin(), row.end()) - row.begin();
                };
                same += best(p) == best(q) ? 1 : 0;
                const auto came = static_cast<std::size_t>(window[i + 1]);
                base_sum += std::log(p[came] / p_total);
                candidate_sum += std::log(q[came] / q_total);
            }
        }
        const auto count = static_cast<double>(each.size());
        double mean = 0;
        for (const double value : each) mean += value / count;
        std::sort(each.begin(), each.end());
        ASSERT_EQ(each.size(), 45u);
        EXPECT_GT(mean, 1e-6) << "the engines differ";
        EXPECT_NEAR(result.mean / mean, 1, 1e-9);
        EXPECT_NEAR(result.median / each[22], 1, 1e-6);
        EXPECT_NEAR(result.percentile_99 / (each[43] + 0.56 * (each[44] - each[43])), 1, 1e-6);
        EXPECT_NEAR(result.same_top, same / count, 1e-12);
        EXPECT_NEAR(result.base.value / std::exp(-base_sum / count), 1, 1e-9);
        EXPECT_NEAR(result.candidate.value / std::exp(-candidate_sum / count), 1, 1e-9);
    }
}

TEST(Divergence, RefusesWhatItCannotCompare) {
    const Tiny tiny({});
    const auto engine = tiny.open({.context = 64, .output_rows = 16});
    const auto shorter = tiny.open({.context = 32, .output_rows = 16});
    using zse::ErrorCode;
    const auto tokens = support::tiny_prompt(11, 63);
    support::expect_error([&] { zse::evaluate::divergence(*engine, *engine, tokens, 64); },
                          ErrorCode::invalid_input, {"63 tokens", "64"});
    support::expect_error([&] { zse::evaluate::divergence(*engine, *shorter, tokens, 33); }, ErrorCode::usage,
                          {"33"});
    const Tiny larger({.vocab = 320});
    const auto other = larger.open({.context = 64, .output_rows = 16});
    support::expect_error([&] { zse::evaluate::divergence(*engine, *other, tokens, 32); }, ErrorCode::usage,
                          {"288", "320"});
}

}  // namespace
