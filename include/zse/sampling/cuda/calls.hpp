// SPDX-License-Identifier: Apache-2.0
// What sampling asks of a GPU: arguments of launches, and the table that is bound at open. Knows no kernel.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/exec/cuda/stream.hpp>
#include <zse/sampling/params.hpp>
#include <zse/sampling/transform.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace zse::inline v1 {
namespace sampling {
namespace cuda {

/// How a token of one row is chosen: SamplingParams and Row as a kernel reads them. All pointers are the device's.
struct DeviceSampling {
    float temperature = 0;
    float top_p = 1;
    float min_p = 0;
    float repetition_penalty = 1;
    std::int32_t top_k = 0;
    std::uint32_t history_tokens = 0;
    std::uint64_t seed = 0;
    std::uint64_t position = 0;  ///< of the token to be chosen, in its sequence
    const std::uint64_t* mask =
        nullptr;  ///< `[ceil(vocabulary / 64)]` as TokenMask, or null: all are allowed
    const std::int32_t* history = nullptr;  ///< `[history_tokens]`, those of the penalty's window
};

/// The parameters of a row. `mask` and `history` (oldest first, all of it) are spans of device memory.
inline DeviceSampling device_sampling(const SamplingParams& params, std::uint64_t position,
                                      TokenMask mask = {},
                                      std::span<const std::int32_t> history = {}) noexcept {
    const auto window = static_cast<std::size_t>(params.repetition_window);
    if (window != 0 && history.size() > window) history = history.last(window);
    return {params.temperature,
            params.top_p,
            params.min_p,
            params.repetition_penalty,
            params.top_k,
            static_cast<std::uint32_t>(history.size()),
            params.seed,
            position,
            mask.bits.empty() ? nullptr : mask.bits.data(),
            history.data()};
}

/// What stands in the place of a token where there is none.
enum class NoToken : std::int32_t {
    invalid_logit = -1,  ///< a logit is NaN or +infinity: Sampler's internal error
    none_left = -2,      ///< mask and logits leave no token: Sampler's invalid_input
};

/// Weights and their sums are whole numbers of this fraction of the greatest weight, so that no sum depends on its
/// order: 2^43 of them, and 2^20 tokens, fit 64 bits with a bit to spare.
inline constexpr float weight_one = 0x1p43f;
inline constexpr std::uint32_t most_vocabulary = 1u << 20;

/// Tokens of one block of the first kernel: 256 threads with four loads of 16 bytes each. A vocabulary of 128,000 then
/// fills 32 multiprocessors with 16 KB each, all of it under way at once.
inline constexpr std::uint32_t slice_tokens = 4096;

/// A token for each row. Fixed addresses make it fit for a captured graph: what differs from step to step is in device
/// memory.
struct SampleCall {
    const float* logits = nullptr;           ///< `[rows, vocabulary]`
    std::uint64_t stride = 0;                ///< floats from row to row
    std::uint32_t rows = 0;                  ///< at most 65535
    std::uint32_t vocabulary = 0;            ///< at most most_vocabulary
    const DeviceSampling* params = nullptr;  ///< `[rows]`
    std::int32_t* tokens = nullptr;          ///< `[rows]`; negative ones are NoToken
    std::byte* workspace = nullptr;          ///< workspace_bytes(rows, vocabulary), aligned to 16

    [[nodiscard]] constexpr std::uint32_t slices() const noexcept {
        return static_cast<std::uint32_t>(ceil_div(vocabulary, slice_tokens));
    }
    /// Values of a row in the workspace: whole loads of 16 bytes.
    [[nodiscard]] constexpr std::uint32_t padded() const noexcept { return (vocabulary + 3) / 4 * 4; }
    /// The workspace holds the best token of each slice, `[rows, slices]` of 8 bytes, then `[rows, padded]` values.
    [[nodiscard]] constexpr Bytes values_at() const noexcept {
        return round_up(Bytes{rows} * slices() * sizeof(std::uint64_t), sizeof(exec::gpu::Chunk));
    }
};

/// Bytes of workspace that a SampleCall takes.
constexpr Bytes workspace_bytes(std::uint32_t rows, std::uint32_t vocabulary) noexcept {
    SampleCall call;
    call.rows = rows;
    call.vocabulary = vocabulary;
    return call.values_at() + Bytes{rows} * call.padded() * sizeof(float);
}

/// The most tokens that TopCall can list.
inline constexpr std::uint32_t most_listed = 512;

/// The most likely tokens of each row by its logits as they are (no mask, penalty or temperature), with their log
/// probabilities; and those of given tokens.
struct TopCall {
    const float* logits = nullptr;  ///< `[rows, vocabulary]`
    std::uint64_t stride = 0;       ///< floats from row to row
    std::uint32_t rows = 0;
    std::uint32_t vocabulary = 0;  ///< at most most_vocabulary
    std::uint32_t count = 0;       ///< tokens listed for each row, at most most_listed; 0: none
    std::int32_t* ids =
        nullptr;  ///< `[rows, count]`, most likely first, the lowest id of equals; NoToken: no more
    float* logprobs = nullptr;  ///< `[rows, count]`, natural logarithms; -infinity where there is no token
    const std::int32_t* tokens =
        nullptr;  ///< `[rows]`: a token of each row, or null; negative ones are passed over
    float* token_logprobs = nullptr;  ///< `[rows]`
};

/// The launches of sampling.
struct SamplingLaunches {
    void (*sample)(exec::gpu::Stream&, const SampleCall&) noexcept = nullptr;
    void (*top)(exec::gpu::Stream&, const TopCall&) noexcept = nullptr;
};

}  // namespace cuda
}  // namespace sampling
}  // namespace zse::inline v1
