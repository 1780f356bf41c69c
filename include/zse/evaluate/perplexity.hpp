// SPDX-License-Identifier: Apache-2.0
// Perplexity of a text under a model, counted as llama.cpp counts it.
#pragma once

#include <zse/engine/any_engine.hpp>
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

/// Windows of `window` tokens one after the other, each computed on its own. The first half of a window is
/// context only; the tokens of the second half, but for its first, are scored. An incomplete last window is
/// dropped. Where the file says that texts begin with BOS, the first token of each window is replaced by it.
/// Throws invalid_input for a text shorter than a window, usage for a window below 4 or beyond the engine's
/// context.
inline Perplexity perplexity(AnyEngine& engine, std::span<const std::int32_t> tokens, std::uint32_t window) {
    if (window < 4 || window > engine.limits().context) {
        throw Error(ErrorCode::usage, text("a window must have 4 to ", engine.limits().context,
                                           " tokens, not ", window, "; change --context or --max-context"));
    }
    if (tokens.size() < window) {
        throw Error(ErrorCode::invalid_input,
                    text("the text has ", tokens.size(), " tokens, fewer than a window of ", window,
                         "; use a longer text or a smaller --context"));
    }
    Perplexity result;
    const auto& words = engine.tokenizer();
    for (std::size_t first = 0; first + window <= tokens.size(); first += window) {
        AnyEngine::Request request;
        request.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(first),
                              tokens.begin() + static_cast<std::ptrdiff_t>(first + window));
        if (words.adds_bos() && words.special().bos >= 0) request.tokens[0] = words.special().bos;
        request.max_tokens = 0;
        const std::vector<std::int32_t> expected = request.tokens;
        request.observe = [&](std::uint32_t position, std::span<const float> logits) {
            if (position < window / 2 || position + 1 >= window) return;
            result.log_likelihood += sampling::log_probability(logits, expected[position + 1]);
            ++result.tokens;
        };
        engine.submit(std::move(request));
        while (!engine.idle()) engine.step();
        ++result.windows;
    }
    result.value = std::exp(-result.log_likelihood / static_cast<double>(result.tokens));
    return result;
}

}  // namespace evaluate
}  // namespace zse::inline v1
