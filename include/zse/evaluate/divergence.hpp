// SPDX-License-Identifier: Apache-2.0
// How far the predictions of one engine lie from those of another on the same text: Kullback-Leibler divergence.
#pragma once

#include <zse/evaluate/perplexity.hpp>

#include <algorithm>

namespace zse::inline v1 {
namespace evaluate {

/// A row of logits `[vocabulary]` with the logarithm of the sum of its exponentials.
struct Distribution {
    std::span<const float> logits;
    double log_sum;

    explicit Distribution(std::span<const float> row) noexcept
        : logits(row), log_sum(sampling::log_sum_exp(row)) {}

    [[nodiscard]] double log_probability(std::size_t token) const noexcept {
        return static_cast<double>(logits[token]) - log_sum;
    }
    /// The first of the most probable tokens.
    [[nodiscard]] std::size_t top() const noexcept {
        return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
};

/// KL(base || candidate) over the same vocabulary, in nats, summed in double. NaN where one of them is no distribution
/// (see sampling::log_sum_exp), infinite where the candidate excludes what the base does not.
inline double kl_divergence(const Distribution& base, const Distribution& candidate) noexcept {
    double sum = 0;
    for (std::size_t token = 0; token < base.logits.size(); ++token) {
        const double log_p = base.log_probability(token);
        const double p = std::exp(log_p);
        // What the base excludes adds nothing, whatever the candidate says; what is no number is not zero.
        if (p != 0) sum += p * (log_p - candidate.log_probability(token));
    }
    return sum;
}

/// Divergences of the scored tokens of a text.
struct Divergence {
    double mean = 0;  ///< nats
    double median = 0;
    double percentile_99 = 0;
    double same_top = 0;  ///< share of the scored tokens where both put the same token first
    Perplexity base;
    Perplexity candidate;
};

namespace detail {

/// The value below which a share of the sorted values lies, between two of them in proportion. At least one value.
inline double quantile(std::span<const double> sorted, double share) noexcept {
    const double place = share * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const auto above = std::min(below + 1, sorted.size() - 1);
    return sorted[below] + (place - std::floor(place)) * (sorted[above] - sorted[below]);
}

}  // namespace detail

/// Both engines read the text window by window in turns (see Windows), so that only the scored rows of one window are
/// held: half a window of logits, 50 MB for 512 tokens of a vocabulary of 49,152. Throws as perplexity() does, and
/// usage for engines of two vocabularies.
inline Divergence divergence(AnyEngine& base, AnyEngine& candidate, std::span<const std::int32_t> tokens,
                             std::uint32_t window) {
    const std::size_t vocabulary = base.spec().vocabulary;
    if (candidate.spec().vocabulary != vocabulary) {
        throw Error(ErrorCode::usage, text("one model has ", vocabulary, " tokens, the other ",
                                           candidate.spec().vocabulary, "; compare engines of one model"));
    }
    const Windows windows(base, tokens, window);
    const Windows candidate_windows(candidate, tokens, window);
    Divergence result;
    std::vector<float> rows(windows.scored() * vocabulary);
    std::vector<Distribution> before;
    before.reserve(windows.scored());
    std::vector<double> each;
    each.reserve(windows.count() * windows.scored());
    std::uint64_t same = 0;
    const auto score = [](Perplexity& of, const Distribution& row, std::int32_t expected) {
        of.log_likelihood += row.log_probability(static_cast<std::size_t>(expected));
        ++of.tokens;
    };
    for (std::uint64_t index = 0; index < windows.count(); ++index) {
        before.clear();
        windows.run(base, index, [&](std::span<const float> logits, std::int32_t expected) {
            const std::span<float> kept(rows.data() + before.size() * vocabulary, vocabulary);
            std::copy(logits.begin(), logits.end(), kept.begin());
            score(result.base, before.emplace_back(kept), expected);
        });
        auto row = before.cbegin();
        candidate_windows.run(candidate, index, [&](std::span<const float> logits, std::int32_t expected) {
            const Distribution now(logits);
            score(result.candidate, now, expected);
            each.push_back(kl_divergence(*row, now));
            if (row->top() == now.top()) ++same;
            ++row;
        });
    }
    for (Perplexity* of : {&result.base, &result.candidate}) {
        of->windows = windows.count();
        of->value = std::exp(-of->log_likelihood / static_cast<double>(of->tokens));
    }
    const auto scored = static_cast<double>(each.size());
    for (const double value : each) result.mean += value / scored;
    result.same_top = static_cast<double>(same) / scored;
    if (std::isnan(result.mean)) {  // then there is no order
        result.median = result.percentile_99 = result.mean;
        return result;
    }
    std::sort(each.begin(), each.end());
    result.median = detail::quantile(each, 0.5);
    result.percentile_99 = detail::quantile(each, 0.99);
    return result;
}

}  // namespace evaluate
}  // namespace zse::inline v1
