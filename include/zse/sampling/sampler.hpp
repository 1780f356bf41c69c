// SPDX-License-Identifier: Apache-2.0
// Chooses the next token from a row of logits: a pure function of row, history, mask, parameters and
// position.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/sampling/params.hpp>
#include <zse/sampling/philox.hpp>
#include <zse/sampling/select.hpp>
#include <zse/sampling/transform.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace zse::inline v1 {
namespace sampling {

/// One row that a token is to be chosen from.
struct Row {
    std::span<const float> logits{};          ///< `[vocabulary]`, unchanged; -infinity: impossible
    std::span<const std::int32_t> history{};  ///< prompt and answer so far, oldest first; for the penalty
    TokenMask mask{};                         ///< allowed tokens; empty allows all
    std::uint64_t position = 0;               ///< of the token to be chosen, in its sequence; enters the draw
};

/// Applies, in this order: mask, repetition penalty, then
/// - at temperature 0 the largest logit, the lowest id of equals;
/// - else temperature, top-k, softmax, min-p, top-p (as a share of what min-p left), and a draw by
///   Philox(seed, position).
/// Nothing else enters: neither batch mates nor threads, earlier draws or the contents of the scratch.
class Sampler {
public:
    /// Throws Error(usage) for a parameter out of its range.
    explicit Sampler(const SamplingParams& params = {}) : params_(params) { validate(params_); }

    [[nodiscard]] const SamplingParams& params() const noexcept { return params_; }

    /// The chosen token. `scratch` holds scratch_bytes(vocabulary) bytes or more, aligned to 4; no heap is
    /// used but for the sentence of an error. Errors: invalid_input where mask and logits leave no token to
    /// choose; internal where a logit is NaN or +infinity (a softmax of it means nothing, and it shows that
    /// the model or its weights are broken), or where scratch or mask are too small.
    [[nodiscard]] Result<std::int32_t> sample(const Row& row, std::span<std::byte> scratch) const {
        const std::size_t vocabulary = row.logits.size();
        if (vocabulary == 0 || vocabulary > std::numeric_limits<std::int32_t>::max()) {
            return Error(ErrorCode::internal,
                         text("a row of logits holds 1 to 2147483647 values, not ", vocabulary));
        }
        if (scratch.size() < scratch_bytes(vocabulary) ||
            reinterpret_cast<std::uintptr_t>(scratch.data()) % alignof(float) != 0) {
            return Error(ErrorCode::internal, text("the sampler needs ", scratch_bytes(vocabulary),
                                                   " bytes of scratch, aligned to 4, for ", vocabulary,
                                                   " logits, and got ", scratch.size()));
        }
        if (!row.mask.bits.empty() && row.mask.bits.size() < ceil_div(vocabulary, 64)) {
            return Error(ErrorCode::internal,
                         text("a token mask for ", vocabulary, " tokens has ", ceil_div(vocabulary, 64),
                              " words of 64 bits, not ", row.mask.bits.size()));
        }
        if (const std::size_t bad = detail::first_invalid(row.logits); bad != vocabulary) {
            return Error(ErrorCode::internal,
                         text("the logit of token ", bad, " is ", detail::shown(row.logits[bad]),
                              ", not a finite number; the weights may be damaged: verify the model file"));
        }

        auto* const values = reinterpret_cast<float*>(scratch.data());
        auto* const ids = reinterpret_cast<std::int32_t*>(scratch.data() + vocabulary * sizeof(float));
        detail::copy_logits(row.logits, values);
        if (params_.repetition_penalty != 1) {
            detail::penalise(row.logits, window(row.history), params_.repetition_penalty, values);
        }
        // Mask and penalty treat each token by itself, so the mask costs one pass when it comes second.
        detail::Candidates candidates = detail::gather(values, ids, vocabulary, row.mask);
        if (candidates.count == 0) {
            return Error(
                ErrorCode::invalid_input,
                row.mask.bits.empty()
                    ? "every logit is minus infinity, so that no token can follow; verify the model file"
                    : "the token mask allows no token that the model can give; allow at least one");
        }
        if (params_.temperature == 0) return candidates.ids[detail::argmax(candidates)];
        if (params_.top_k > 0) detail::keep_top_k(candidates, static_cast<std::size_t>(params_.top_k));
        detail::soften(candidates, params_.temperature);
        if (params_.min_p > 0) detail::keep_min_p(candidates, params_.min_p);
        detail::keep_top_p(candidates, params_.top_p);
        return draw(candidates, row.position);
    }

private:
    [[nodiscard]] std::span<const std::int32_t> window(std::span<const std::int32_t> history) const noexcept {
        const auto most = static_cast<std::size_t>(params_.repetition_window);
        return most == 0 || history.size() <= most ? history : history.last(most);
    }

    /// Inverts the cumulated weights, in order of id.
    [[nodiscard]] std::int32_t draw(const detail::Candidates& candidates,
                                    std::uint64_t position) const noexcept {
        const PhiloxCounter words = philox(params_.seed, position);
        const double target = uniform(words[0], words[1]) * detail::total(candidates);
        double sum = 0;
        std::size_t last = 0;
        for (std::size_t i = 0; i < candidates.count; ++i) {
            if (candidates.values[i] <= 0) continue;  // so that not even a draw of exactly 0 gives it
            last = i;
            sum += static_cast<double>(candidates.values[i]);
            if (sum > target) break;
        }
        return candidates.ids[last];  // where the product was rounded up to the total: the last one
    }

    SamplingParams params_;
};

}  // namespace sampling
}  // namespace zse::inline v1
