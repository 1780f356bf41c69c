// SPDX-License-Identifier: Apache-2.0
// Log probabilities of a row of logits, summed in double: for perplexity and for the logprobs of an answer.
#pragma once

#include <zse/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace zse::inline v1 {
namespace sampling {

namespace detail {

/// Logarithm of the sum of exp(logit), as the largest logit and what comes on top of it. Kept apart, since a
/// large logit would swallow the digits of the rest.
struct LogSum {
    double most;
    double rest;
};

inline LogSum log_sum(std::span<const float> logits) noexcept {
    float most = -std::numeric_limits<float>::infinity();
    for (const float logit : logits) most = std::max(most, logit);
    const auto shift = static_cast<double>(most);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - shift);
    return {shift, logits.empty() ? std::numeric_limits<double>::quiet_NaN() : std::log(sum)};
}

}  // namespace detail

/// Logarithm of the sum of exp(logit) over the row `[vocabulary]`, shifted by the largest logit, so that
/// nothing overflows. NaN where a logit is NaN or +infinity, where all are -infinity, or where there are
/// none.
inline double log_sum_exp(std::span<const float> logits) noexcept {
    const detail::LogSum sum = detail::log_sum(logits);
    return sum.most + sum.rest;
}

/// Natural logarithm of the softmax probability of `token` in the row `[vocabulary]`. NaN where log_sum_exp
/// is. Error: invalid_input where the token is not in the vocabulary.
inline double log_probability(std::span<const float> logits, std::int32_t token) {
    const auto id = static_cast<std::size_t>(token);
    if (token < 0 || id >= logits.size()) {
        throw Error(ErrorCode::invalid_input,
                    text("expected a token below the vocabulary size ", logits.size(), ", found ", token,
                         "; tokenize with this model's own vocabulary"));
    }
    const detail::LogSum sum = detail::log_sum(logits);
    return (static_cast<double>(logits[id]) - sum.most) - sum.rest;
}

}  // namespace sampling
}  // namespace zse::inline v1
