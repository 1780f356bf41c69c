// SPDX-License-Identifier: Apache-2.0
// What a caller asks of an engine, and what it is told while the engine works.
#pragma once

#include <zse/model/weight_ring.hpp>
#include <zse/sampling/sampler.hpp>
#include <zse/scheduler/scheduler.hpp>

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace engine {

using scheduler::RequestId;

/// A prompt and how to go on from it.
struct Request {
    static constexpr std::uint32_t unlimited = std::numeric_limits<std::uint32_t>::max();

    std::vector<std::int32_t> tokens;  ///< the prompt; at least one token
    sampling::SamplingParams sampling;
    std::uint32_t max_tokens = unlimited;  ///< tokens to generate at most; 0 computes the prompt alone
    std::vector<std::string> stop;         ///< texts that end the answer; they are not part of it
    bool ignore_end = false;               ///< go on past tokens that end an answer
    /// Which tokens may follow these (prompt and answer so far): one bit a token, `[ceil(vocabulary / 64)]`,
    /// valid until the next call. An empty span allows all. Called once a generated token.
    std::function<std::span<const std::uint64_t>(std::span<const std::int32_t>)> mask;
    /// Sees the logits `[vocabulary]` that follow each position, prompt included, in order of position.
    std::function<void(std::uint32_t position, std::span<const float> logits)> observe;
};

/// Why an answer ended.
enum class Finish : std::uint8_t {
    none,         ///< it has not
    end,          ///< the model ended it
    stop_string,  ///< one of the request's stop texts
    length,       ///< max_tokens, or the context is full
    cancelled,
    failed,  ///< no token could be chosen: the mask allows none, the logits are no numbers, or memory for text ran out
};

constexpr std::string_view name(Finish finish) noexcept {
    switch (finish) {
        case Finish::none: return "none";
        case Finish::end: return "end";
        case Finish::stop_string: return "stop_string";
        case Finish::length: return "length";
        case Finish::cancelled: return "cancelled";
        case Finish::failed: return "failed";
    }
    return "none";
}

/// One step's news of one request. `text` is whole UTF-8 characters, valid until the next step.
struct Event {
    RequestId id = 0;
    std::int32_t token = -1;  ///< the token that was chosen; -1 where the event only ends the answer
    std::string_view text;
    Finish finish = Finish::none;
};

/// Pages of all pools of an engine at a moment.
struct PageUse {
    std::uint64_t pages = 0;
    std::uint64_t used = 0;    ///< pages that some sequence holds; a shared one counts once
    std::uint64_t cached = 0;  ///< pages that no sequence holds and that are kept for prompts to come
    std::uint64_t dropped =
        0;  ///< such pages that gave way to sequences since open, least recently used first
    std::uint64_t sequences = 0;  ///< that hold pages
    std::uint64_t tokens = 0;     ///< whose keys and values are held
    std::uint64_t unused_tokens =
        0;  ///< room in the last pages: all the waste there is, since pages lie anywhere
};

/// Counters since open.
struct Counters {
    std::uint64_t steps = 0;
    std::uint64_t rows = 0;  ///< rows computed, prompt and answer
    std::uint64_t generated_tokens = 0;
    std::uint64_t prompt_hits = 0;        ///< requests whose prompt began like one that was computed before
    std::uint64_t prompt_hit_tokens = 0;  ///< tokens of them that were not computed again
    std::uint32_t most_rows_in_a_step = 0;
    std::uint64_t replayed_steps = 0;  ///< that ran as they were captured
    std::uint64_t eager_steps =
        0;  ///< that were enqueued anew: prompts, batches of no captured size, the first of each
    std::uint64_t lost_tiers = 0;  ///< times that a disk failed, and the engine went on without it
    model::RingCounts streamed;    ///< layers that came from the disk tier
};

}  // namespace engine
}  // namespace zse::inline v1
