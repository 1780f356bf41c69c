// SPDX-License-Identifier: Apache-2.0
// What a request may say about how its tokens are chosen, and the check of it.
#pragma once

#include <zse/core/error.hpp>

#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace sampling {

/// How a token is chosen from a row of logits. The defaults are greedy. The transforms run in the order of
/// sampler.hpp, whatever the order here.
struct SamplingParams {
    float temperature =
        0;  ///< [0, finite): 0 takes the most likely token; 1 leaves the distribution as it is
    std::int32_t top_k = 0;  ///< [0, ...): keeps the k most likely tokens; 0 keeps all
    float top_p = 1;         ///< [0, 1]: keeps the fewest likely tokens that hold this mass; 1 keeps all
    float min_p = 0;  ///< [0, 1]: drops tokens less likely than this times the most likely; 0 drops none
    float repetition_penalty = 1;  ///< (0, finite): above 1 makes tokens of the history less likely; 1 is off
    std::int32_t repetition_window = 0;  ///< [0, ...): how many of the last tokens are penalised; 0 means all
    std::uint64_t seed = 0;              ///< the same seed gives the same tokens

    friend bool operator==(const SamplingParams&, const SamplingParams&) = default;
};

namespace detail {

inline std::string shown(float value) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%g", static_cast<double>(value));
    return buffer;
}

inline std::string shown(std::int32_t value) {
    return std::to_string(value);
}

template <class T>
[[noreturn]] void refuse(std::string_view parameter, T value, std::string_view range,
                         std::string_view way_out) {
    throw Error(ErrorCode::usage, text(parameter, " must be ", range, ", not ", shown(value), "; ", way_out));
}

}  // namespace detail

/// Throws Error(usage) that names the first parameter out of range, its value and the range. NaN and infinity
/// are out of every range.
inline void validate(const SamplingParams& params) {
    constexpr float most = std::numeric_limits<float>::max();
    // Negated comparisons, since NaN answers false to each.
    if (!(params.temperature >= 0 && params.temperature <= most)) {
        detail::refuse("temperature", params.temperature, "a finite number from 0 up", "use 0 for greedy");
    }
    if (params.top_k < 0) {
        detail::refuse("top_k", params.top_k, "an integer from 0 up", "use 0 to keep all tokens");
    }
    if (!(params.top_p >= 0 && params.top_p <= 1)) {
        detail::refuse("top_p", params.top_p, "between 0 and 1", "use 1 to keep all tokens");
    }
    if (!(params.min_p >= 0 && params.min_p <= 1)) {
        detail::refuse("min_p", params.min_p, "between 0 and 1", "use 0 to drop no token");
    }
    if (!(params.repetition_penalty > 0 && params.repetition_penalty <= most)) {
        detail::refuse("repetition_penalty", params.repetition_penalty, "a finite number above 0",
                       "use 1 for no penalty");
    }
    if (params.repetition_window < 0) {
        detail::refuse("repetition_window", params.repetition_window, "an integer from 0 up",
                       "use 0 for the whole history");
    }
}

}  // namespace sampling
}  // namespace zse::inline v1
