// SPDX-License-Identifier: Apache-2.0
// A shape from the few numbers that a user knows, such as parameters, layers and hidden size: the rest is derived so
// that the parameters come out, and every assumption is named.
#pragma once

#include <zse/model/spec.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

namespace zse::inline v1 {
namespace planning {

/// What a user says about a model. Zeros are left open.
struct Rough {
    std::uint64_t parameters = 0;
    std::uint32_t layers = 0;
    std::uint32_t hidden = 0;
    std::uint32_t heads = 0;
    std::uint32_t kv_heads = 0;
    std::uint32_t head_dim = 0;
    std::uint32_t feed_forward = 0;
    std::uint32_t vocabulary = 0;
    std::uint32_t context = 0;  ///< trained length
    std::uint32_t experts = 0, experts_used = 0;
    bool tied_output = false;

    [[nodiscard]] constexpr bool empty() const noexcept {
        return parameters == 0 && layers == 0 && hidden == 0;
    }
};

/// A shape and a sentence for each thing that was assumed.
struct Completed {
    ModelSpec spec;
    std::vector<std::string> assumed;
};

namespace detail {

inline std::uint32_t rounded(double value, std::uint32_t multiple) {
    return static_cast<std::uint32_t>(std::clamp(std::round(value / multiple), 1.0, 1e6)) * multiple;
}

/// Weights that a unit of feed-forward width adds to the model, and all others.
struct FeedForwardShare {
    std::uint64_t each = 0;
    std::uint64_t rest = 0;

    explicit FeedForwardShare(ModelSpec spec) {
        each = 3 * std::uint64_t{spec.hidden} * spec.layers * std::max(spec.experts, 1u);
        spec.feed_forward = 0;
        rest = spec.parameters();
    }
};

}  // namespace detail

/// Derives what is left open. Where layers and hidden size are open too, a decoder has about 12 * layers * hidden^2
/// weights, and its hidden size is about 128 times its layers (Llama's 7B and 13B). The feed-forward width is then what
/// makes the parameters come out. Throws usage where numbers are missing or contradict each other.
inline Completed complete(const Rough& rough) {
    Completed result;
    ModelSpec& spec = result.spec;
    const auto assume = [&](const auto&... words) { result.assumed.push_back(text(words...)); };
    const auto parameters = static_cast<double>(rough.parameters);
    if (rough.parameters == 0 && (rough.layers == 0 || rough.hidden == 0)) {
        throw Error(ErrorCode::usage,
                    "a shape needs its parameters (--params 7B), or its layers and hidden size (--layers 32 "
                    "--hidden 4096); add what is missing");
    }
    spec.layers = rough.layers;
    spec.hidden = rough.hidden;
    if (spec.layers == 0 && spec.hidden == 0) {
        spec.layers = detail::rounded(std::cbrt(parameters / (12.0 * 128 * 128)), 2);
        spec.hidden = 128 * spec.layers;
        assume(spec.layers, " layers and hidden size ", spec.hidden, ", 128 times as wide as deep");
    } else if (spec.layers == 0) {
        spec.layers = detail::rounded(parameters / (12.0 * spec.hidden * spec.hidden), 1);
        assume(spec.layers, " layers: parameters / (12 * hidden^2)");
    }
    if (spec.hidden == 0) {
        spec.hidden = detail::rounded(std::sqrt(parameters / (12.0 * spec.layers)), 128);
        assume("hidden size ", spec.hidden, ": the root of parameters / (12 * layers), in steps of 128");
    }
    spec.head_dim = rough.head_dim;
    spec.heads = rough.heads;
    if (spec.head_dim == 0) {
        spec.head_dim = spec.heads != 0 ? spec.hidden / spec.heads : (spec.hidden % 128 == 0 ? 128 : 64);
        if (spec.heads == 0) assume("heads of ", spec.head_dim, " values");
    }
    if (spec.heads == 0) spec.heads = std::max(spec.hidden / std::max(spec.head_dim, 1u), 1u);
    spec.rope_dim = spec.head_dim;
    spec.kv_heads = rough.kv_heads;
    if (spec.kv_heads == 0) {
        spec.kv_heads = spec.heads;
        assume(spec.kv_heads,
               " key heads, one for each head: with grouped heads KV is smaller (--kv-heads 8)");
    }
    spec.vocabulary = rough.vocabulary;
    if (spec.vocabulary == 0) assume("a vocabulary of ", spec.vocabulary = 32000, " tokens");
    spec.trained_context = rough.context;
    if (spec.trained_context == 0) assume("a trained context of ", spec.trained_context = 32768, " tokens");
    spec.tied_output = rough.tied_output;
    spec.experts = rough.experts;
    spec.experts_used =
        rough.experts == 0 ? 0 : (rough.experts_used != 0 ? rough.experts_used : std::min(2u, rough.experts));
    spec.feed_forward = rough.feed_forward;
    const detail::FeedForwardShare share(spec);
    if (spec.feed_forward == 0 && rough.parameters == 0) {
        spec.feed_forward = detail::rounded(8.0 / 3.0 * spec.hidden, 256);
        assume("feed-forward width ", spec.feed_forward, ": 8/3 of the hidden size");
    } else if (spec.feed_forward == 0) {
        if (rough.parameters <= share.rest + share.each / 2) {
            throw Error(ErrorCode::usage,
                        text("attention and vocabulary of this shape have ", share.rest, " weights, and ",
                             rough.parameters,
                             " parameters leave none for feed-forward; lower --layers, --hidden or --vocab"));
        }
        const std::uint64_t width = (rough.parameters - share.rest + share.each / 2) / share.each;
        spec.feed_forward = static_cast<std::uint32_t>(std::min<std::uint64_t>(width, ~0u));
        assume("feed-forward width ", spec.feed_forward, ", with which the shape has ", spec.parameters(),
               " parameters");
    }
    spec = spec.stored_as(weights::format::f16);
    if (const std::string_view wrong = spec.defect(); !wrong.empty()) {
        throw Error(ErrorCode::usage, text("these numbers describe no model: ", wrong));
    }
    // A name such as 7B is rounded: Llama-2-7B has 6.74 billion.
    const auto made = static_cast<double>(spec.parameters());
    if (rough.parameters != 0 && std::fabs(made - parameters) > 0.1 * parameters) {
        throw Error(ErrorCode::usage,
                    text("the shape has ", spec.parameters(), " parameters, and ", rough.parameters,
                         " were stated; leave --params or one of the sizes out"));
    }
    return result;
}

}  // namespace planning
}  // namespace zse::inline v1
