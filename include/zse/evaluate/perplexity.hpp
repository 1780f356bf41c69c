// SPDX-License-Identifier: Apache-2.0
// Perplexity of a text under a model, counted as llama.cpp counts it.
#pragma once

#include <zse/evaluate/windows.hpp>
#include <zse/sampling/logprobs.hpp>

#include <cmath>

namespace zse::inline v1 {
namespace evaluate {

struct Perplexity {
    double value = 0;           ///< exp(mean negative log likelihood)
    double log_likelihood = 0;  ///< sum over the scored tokens, natural logarithm
    std::uint64_t tokens = 0;   ///< scored tokens
    std::uint64_t windows = 0;
};

/// See Windows for what is scored, and for what is refused.
inline Perplexity perplexity(AnyEngine& engine, std::span<const std::int32_t> tokens, std::uint32_t window) {
    const Windows windows(engine, tokens, window);
    Perplexity result;
    for (; result.windows < windows.count(); ++result.windows) {
        windows.run(engine, result.windows, [&](std::span<const float> logits, std::int32_t expected) {
            result.log_likelihood += sampling::log_probability(logits, expected);
            ++result.tokens;
        });
    }
    result.value = std::exp(-result.log_likelihood / static_cast<double>(result.tokens));
    return result;
}

}  // namespace evaluate
}  // namespace zse::inline v1
