// SPDX-License-Identifier: Apache-2.0
// Decides which rows each step computes: admits, chunks prompts, keeps to the token budget. No threads, clock
// or model.
#pragma once

#include <zse/core/error.hpp>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace zse::inline v1 {
namespace scheduler {

using RequestId = std::uint64_t;
using Slot = std::uint32_t;

/// Bounds of one step.
struct Budget {
    std::uint32_t slots = 1;        ///< sequences at once
    std::uint32_t tokens = 512;     ///< rows of one step
    std::uint32_t output_rows = 1;  ///< rows of logits of one step
};

/// What a request asks of the scheduler.
struct Demand {
    RequestId id = 0;
    std::uint32_t prompt_tokens = 0;
    bool all_outputs = false;  ///< logits of every prompt position, not only of the last
};

/// Consecutive tokens of one sequence in a step.
struct Chunk {
    Slot slot = 0;
    RequestId id = 0;
    std::uint32_t first_position = 0;
    std::uint32_t rows = 0;
    std::uint32_t outputs = 0;  ///< the last `outputs` rows want logits
};

/// submit, next, commit. A sequence keeps its slot from admission to its end; requests are admitted in order.
class Scheduler {
public:
    explicit Scheduler(Budget budget) : budget_(budget), running_(budget.slots) {
        chunks_.reserve(budget.slots);
    }

    void submit(const Demand& demand) { waiting_.push_back(demand); }

    /// Gives waiting requests the free slots, in order. Calls admitted(slot, demand) for each.
    template <class Admitted>
    void admit(const Admitted& admitted) {
        for (Slot slot = 0; slot < running_.size() && !waiting_.empty(); ++slot) {
            if (running_[slot].active) continue;
            const Demand demand = waiting_.front();
            waiting_.pop_front();
            running_[slot] = {demand, demand.prompt_tokens, 0, next_order_++, true};
            admitted(slot, demand);
        }
    }

    /// The rows of the next step: one for each sequence that generates, then prompt chunks, oldest first,
    /// from what is left of the budget. Generating sequences come first, so a long prompt never starves them.
    /// Empty where nothing runs. Nothing is allocated.
    std::span<const Chunk> next() {
        chunks_.clear();
        std::uint32_t tokens = budget_.tokens;
        std::uint32_t outputs = budget_.output_rows;
        for (Slot slot = 0; slot < running_.size(); ++slot) {
            Sequence& s = running_[slot];
            if (!s.active || s.length - s.computed != 1 || s.computed < s.demand.prompt_tokens) continue;
            if (tokens == 0 || outputs == 0) break;
            chunks_.push_back({slot, s.demand.id, s.computed, 1, 1});
            --tokens;
            --outputs;
        }
        const std::uint64_t everyone = next_order_;
        for (std::uint64_t last = 0; tokens > 0;) {  // prompts, in order of admission
            Slot oldest = 0;
            std::uint64_t order = everyone;
            for (Slot slot = 0; slot < running_.size(); ++slot) {
                const Sequence& s = running_[slot];
                if (s.active && s.computed < s.demand.prompt_tokens && s.order >= last && s.order < order) {
                    oldest = slot;
                    order = s.order;
                }
            }
            if (order == everyone) break;
            last = order + 1;
            const Sequence& s = running_[oldest];
            std::uint32_t rows = std::min(tokens, s.demand.prompt_tokens - s.computed);
            if (s.demand.all_outputs) rows = std::min(rows, outputs);
            const bool ends = s.computed + rows == s.demand.prompt_tokens;
            if (rows == 0) continue;
            if (ends && outputs == 0) {
                if (--rows == 0) continue;  // its last row waits for a row of logits
            }
            const bool last_row = s.computed + rows == s.demand.prompt_tokens;
            const std::uint32_t wanted = s.demand.all_outputs ? rows : (last_row ? 1u : 0u);
            chunks_.push_back({oldest, s.demand.id, s.computed, rows, wanted});
            tokens -= rows;
            outputs -= wanted;
        }
        return chunks_;
    }

    /// Says that the last step's rows are computed.
    void commit() noexcept {
        for (const Chunk& chunk : chunks_) running_[chunk.slot].computed += chunk.rows;
        chunks_.clear();
    }
    /// A token was appended to the sequence of this slot.
    void grow(Slot slot) noexcept { ++running_[slot].length; }
    /// Computes the first `tokens` tokens of this slot again, as a prompt: a cache that is not used.
    void restart(Slot slot, std::uint32_t tokens) noexcept {
        running_[slot].computed = 0;
        running_[slot].demand.prompt_tokens = tokens;
    }
    /// The sequence ended; its slot is free.
    void finish(Slot slot) noexcept { running_[slot].active = false; }
    /// Forgets a waiting request; false if it is not waiting.
    bool withdraw(RequestId id) {
        const auto found =
            std::find_if(waiting_.begin(), waiting_.end(), [&](const Demand& d) { return d.id == id; });
        if (found == waiting_.end()) return false;
        waiting_.erase(found);
        return true;
    }

    [[nodiscard]] std::size_t waiting() const noexcept { return waiting_.size(); }
    [[nodiscard]] std::size_t running() const noexcept {
        return static_cast<std::size_t>(
            std::count_if(running_.begin(), running_.end(), [](const Sequence& s) { return s.active; }));
    }
    [[nodiscard]] bool idle() const noexcept { return waiting() == 0 && running() == 0; }

private:
    struct Sequence {
        Demand demand;
        std::uint32_t length = 0;    ///< tokens known: prompt and answer
        std::uint32_t computed = 0;  ///< tokens in the cache
        std::uint64_t order = 0;
        bool active = false;
    };

    Budget budget_;
    std::vector<Sequence> running_;
    std::deque<Demand> waiting_;
    std::vector<Chunk> chunks_;
    std::uint64_t next_order_ = 0;
};

}  // namespace scheduler
}  // namespace zse::inline v1
