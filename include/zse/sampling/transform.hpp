// SPDX-License-Identifier: Apache-2.0
// From a row of logits to weighted candidates: mask, repetition penalty, temperature, softmax, min-p.
#pragma once

#include <zse/core/bytes.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace zse::inline v1 {
namespace sampling {

/// Which tokens may come next: bit `id % 64` of word `id / 64` is set where token `id` is allowed, so
/// `[ceil(vocabulary / 64)]` words; bits beyond the vocabulary mean nothing. No words at all allow every
/// token.
struct TokenMask {
    std::span<const std::uint64_t> bits{};

    [[nodiscard]] bool allows(std::size_t id) const noexcept {
        return bits.empty() || ((bits[id / 64] >> (id % 64)) & 1u) != 0;
    }
};

/// The bytes of scratch that choosing from one row of this many logits takes: a value and an id per token.
/// Scratch is aligned to 4 bytes and can be shared by all rows that one thread works on.
constexpr Bytes scratch_bytes(std::uint64_t vocabulary) noexcept {
    return saturating_mul(vocabulary, sizeof(float) + sizeof(std::int32_t));
}

namespace detail {

/// The tokens still in play, in rising order of id: it decides ties and the order of sums, so that the result
/// is the same with every standard library. A value is a logit until soften(), a weight (probability by that
/// of the most likely token) after it.
struct Candidates {
    float* values = nullptr;
    std::int32_t* ids = nullptr;
    std::size_t count = 0;

    [[nodiscard]] std::span<const float> view() const noexcept { return {values, count}; }

    /// Keeps those for which `keep(value)` holds, asking once each in order of id.
    template <class Keep>
    void filter(Keep keep) {
        std::size_t kept = 0;
        for (std::size_t i = 0; i < count; ++i) {
            if (!keep(values[i])) continue;
            values[kept] = values[i];
            ids[kept] = ids[i];
            ++kept;
        }
        count = kept;
    }
};

/// The index of the first logit that is NaN or +infinity; the size of the row where there is none.
inline std::size_t first_invalid(std::span<const float> logits) noexcept {
    constexpr float most = std::numeric_limits<float>::max();
    std::size_t invalid = 0;
    for (const float logit : logits) invalid += !(logit <= most);  // no early exit: this one vectorises
    if (invalid == 0) return logits.size();
    std::size_t i = 0;
    while (logits[i] <= most) ++i;
    return i;
}

/// A copy of the row in `values`. Adding zero turns -0 into +0, which compare equal and must also tie by
/// bits.
inline void copy_logits(std::span<const float> logits, float* values) noexcept {
    for (std::size_t id = 0; id < logits.size(); ++id) values[id] = logits[id] + 0.0f;
}

/// Divides positive and multiplies negative logits of the tokens in `history` by `penalty`, each distinct
/// token once (Keskar et al., "CTRL", 2019, with the sign rule that later implementations added). Tokens
/// outside the vocabulary cannot be sampled and are passed over. What overflows stays finite.
inline void penalise(std::span<const float> logits, std::span<const std::int32_t> history, float penalty,
                     float* values) noexcept {
    constexpr float most = std::numeric_limits<float>::max();
    for (const std::int32_t token : history) {
        const auto id = static_cast<std::size_t>(token);
        if (token < 0 || id >= logits.size()) continue;
        const float logit = logits[id] + 0.0f;
        if (logit < -most) continue;
        // From the row's own logit, so that a token that comes again gives the same value again.
        values[id] = std::clamp(logit > 0 ? logit / penalty : logit * penalty, -most, most);
    }
}

/// Makes candidates of `values` `[vocabulary]`, in place: allowed by the mask and not -infinity.
inline Candidates gather(float* values, std::int32_t* ids, std::size_t vocabulary, TokenMask mask) noexcept {
    constexpr float least = std::numeric_limits<float>::lowest();
    Candidates candidates{values, ids, 0};
    for (std::size_t id = 0; id < vocabulary; ++id) {
        const float value = values[id];
        if (!(value >= least) || !mask.allows(id)) continue;
        values[candidates.count] = value;
        ids[candidates.count] = static_cast<std::int32_t>(id);
        ++candidates.count;
    }
    return candidates;
}

/// Position of the largest value, the lowest one of equals. At least one candidate.
inline std::size_t argmax(const Candidates& candidates) noexcept {
    std::size_t best = 0;
    for (std::size_t i = 1; i < candidates.count; ++i) {
        if (candidates.values[i] > candidates.values[best]) best = i;
    }
    return best;
}

/// Softmax at a temperature > 0, not yet divided by its sum: the largest weight is exactly 1. A low
/// temperature therefore cannot overflow, it only makes the other weights 0.
inline void soften(Candidates& candidates, float temperature) noexcept {
    const float most = candidates.values[argmax(candidates)];
    for (std::size_t i = 0; i < candidates.count; ++i) {
        candidates.values[i] = std::exp((candidates.values[i] - most) / temperature);
    }
}

/// Drops what is less likely than `min_p` times the most likely token, whose weight is 1.
inline void keep_min_p(Candidates& candidates, float min_p) noexcept {
    candidates.filter([min_p](float weight) { return weight >= min_p; });
}

/// Sum of all weights, in order of id.
inline double total(const Candidates& candidates) noexcept {
    double sum = 0;
    for (const float weight : candidates.view()) sum += static_cast<double>(weight);
    return sum;
}

}  // namespace detail
}  // namespace sampling
}  // namespace zse::inline v1
