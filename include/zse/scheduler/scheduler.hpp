// SPDX-License-Identifier: Apache-2.0
// Decides which rows each step computes: admits by free pages, chunks prompts, keeps to the token budget, preempts.
// No threads, clock or model.
#pragma once

#include <zse/core/error.hpp>
#include <zse/kv/sequences.hpp>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace scheduler {

using RequestId = std::uint64_t;
using kv::Slot;

/// When a request may begin.
enum class Admission : std::uint8_t {
    prompt,   ///< once its prompt and one more page are free; whoever lacks pages later preempts the latest
    reserve,  ///< once its worst case is free, which is then its own: nothing is ever preempted
};

/// Bounds of one step.
struct Budget {
    std::uint32_t slots = 1;        ///< sequences at once
    std::uint32_t tokens = 512;     ///< rows of one step
    std::uint32_t output_rows = 1;  ///< rows of logits of one step
    std::uint32_t cut = 0;          ///< no chunk crosses a multiple of this position; 0: any may
    Admission admission = Admission::prompt;
};

/// What a request asks of the scheduler.
struct Demand {
    RequestId id = 0;
    std::uint32_t prompt_tokens = 0;
    std::uint32_t most_tokens = 0;  ///< prompt and answer at worst
    bool all_outputs = false;       ///< logits of every prompt position, not only of the last
};

/// Consecutive tokens of one sequence in a step.
struct Chunk {
    Slot slot = 0;
    RequestId id = 0;
    std::uint32_t first_position = 0;
    std::uint32_t rows = 0;
    std::uint32_t outputs = 0;  ///< the last `outputs` rows want logits
};

/// Since the scheduler was made.
struct Counts {
    /// Who gives up pages where they run short, and how it gets them back.
    static constexpr std::string_view policy = "latest admitted first, by recompute";

    std::uint64_t admitted = 0;
    std::uint64_t preempted = 0;        ///< times that a sequence gave up its pages
    std::uint64_t evicted_pages = 0;    ///< pages that became free by that
    std::uint64_t evicted_tokens = 0;   ///< tokens whose keys and values were given up
    std::uint64_t recomputed_rows = 0;  ///< rows that had been computed before
    std::uint32_t most_running = 0;     ///< sequences that had pages at once
};

/// submit, admit, next, commit. A sequence keeps its slot from admission to its end. One that is preempted gives
/// up its pages, waits in its slot, and computes what it had as a prompt before anything new is admitted.
///
/// Requests are admitted in order, and the latest admitted is preempted first. So the oldest sequence never gives
/// anything up to another: it ends, and with it everything does.
class Scheduler {
public:
    /// The sequences' pages outlive the scheduler.
    Scheduler(Budget budget, kv::Sequences& pages)
        : budget_(budget), pages_(&pages), running_(budget.slots), admission_limit_(budget.slots) {
        chunks_.reserve(budget.slots);
        order_.reserve(budget.slots);
    }

    /// Queues a request. The caller has checked that pages could hold its worst case.
    void submit(const Demand& demand) { waiting_.push_back(demand); }

    /// New requests are admitted while fewer slots than this are in use, at least 1; those in use stay so. A plain
    /// number that is set between steps: see PressurePolicy.
    void limit_admission(std::uint32_t slots) noexcept {
        admission_limit_ = std::clamp(slots, std::uint32_t{1}, std::max(budget_.slots, std::uint32_t{1}));
    }
    [[nodiscard]] std::uint32_t admission_limit() const noexcept { return admission_limit_; }

    /// Lets preempted sequences go on, and gives waiting requests free slots, in order, as pages allow. Calls
    /// admitted(slot, demand) for each new one; where that throws, the request stays at the head of the queue. Before
    /// that, adopt(slot, demand) may give a slot pages that were computed for the same tokens; it returns how many tokens
    /// they hold, fewer than the sequence has. `demand.prompt_tokens` are then those that the sequence has.
    template <class Adopt, class Admitted>
    void admit(const Adopt& adopt, const Admitted& admitted) {
        for (const Slot slot : order_) {
            Sequence& s = running_[slot];
            if (!s.paused) continue;
            const std::optional<std::uint32_t> adopted = enter(slot, s.demand, adopt);
            if (!adopted) return;
            s.computed = *adopted;
            s.paused = false;
            count_running();
        }
        for (Slot slot = 0; slot < running_.size() && !waiting_.empty(); ++slot) {
            if (running_[slot].active) continue;
            if (order_.size() >= admission_limit_) return;
            const Demand demand = waiting_.front();
            const std::optional<std::uint32_t> adopted = enter(slot, demand, adopt);
            if (!adopted) return;
            try {
                admitted(slot, demand);
            } catch (...) {
                pages_->release(slot);
                throw;
            }
            waiting_.pop_front();
            running_[slot] = {demand, demand.prompt_tokens, *adopted, *adopted, true, false};
            order_.push_back(slot);
            ++counts_.admitted;
            count_running();
        }
    }

    template <class Admitted>
    void admit(const Admitted& admitted) {
        admit([](Slot, const Demand&) noexcept { return 0u; }, admitted);
    }

    /// The rows of the next step: one for each sequence that generates, then prompt chunks, oldest first,
    /// from what is left of the budget. Generating sequences come first, so a long prompt never starves them.
    /// All rows have their pages. Empty where nothing runs. Nothing is allocated.
    std::span<const Chunk> next() {
        chunks_.clear();
        pages_->begin_step();
        std::uint32_t tokens = budget_.tokens;
        std::uint32_t outputs = budget_.output_rows;
        for (const Slot slot : order_) {
            Sequence& s = running_[slot];
            if (s.paused || s.length - s.computed != 1 || s.computed < s.demand.prompt_tokens) continue;
            if (tokens == 0 || outputs == 0) break;
            if (!has_pages(slot, 1)) continue;
            chunks_.push_back({slot, s.demand.id, s.computed, 1, 1});
            --tokens;
            --outputs;
        }
        for (const Slot slot : order_) {
            const Sequence& s = running_[slot];
            if (s.paused || s.computed >= s.demand.prompt_tokens) continue;
            std::uint32_t rows = std::min(tokens, s.demand.prompt_tokens - s.computed);
            if (budget_.cut != 0) rows = std::min(rows, budget_.cut - s.computed % budget_.cut);
            if (s.demand.all_outputs) rows = std::min(rows, outputs);
            // The last row of a prompt waits for a row of logits.
            if (rows != 0 && s.computed + rows == s.demand.prompt_tokens && outputs == 0) --rows;
            if (rows == 0 || !has_pages(slot, rows)) continue;
            const bool last_row = s.computed + rows == s.demand.prompt_tokens;
            const std::uint32_t wanted = s.demand.all_outputs ? rows : (last_row ? 1u : 0u);
            chunks_.push_back({slot, s.demand.id, s.computed, rows, wanted});
            tokens -= rows;
            outputs -= wanted;
        }
        // First all are told what stays, so that none gives way to another of the same step.
        for (const Chunk& chunk : chunks_) {
            pages_->pin(chunk.slot, chunk.first_position, chunk.first_position + chunk.rows);
        }
        for (const Chunk& chunk : chunks_) {
            pages_->bring(chunk.slot, chunk.first_position, chunk.first_position + chunk.rows);
        }
        return chunks_;
    }

    /// Takes the pages of all sequences, which compute what they had anew; the last step's rows count for nothing.
    void give_up_pages() noexcept {
        for (const Slot slot : order_) {
            if (!running_[slot].paused) pause(slot);
        }
        chunks_.clear();
    }
    /// The most tokens that the sequence of a slot may have.
    [[nodiscard]] std::uint32_t most_tokens(Slot slot) const noexcept {
        return running_[slot].demand.most_tokens;
    }

    /// Says that the last step's rows are computed.
    void commit() noexcept {
        for (const Chunk& chunk : chunks_) {
            Sequence& s = running_[chunk.slot];
            if (s.computed < s.known) counts_.recomputed_rows += std::min(chunk.rows, s.known - s.computed);
            s.computed += chunk.rows;
            s.known = std::max(s.known, s.computed);
        }
        chunks_.clear();
    }
    /// A token was appended to the sequence of this slot.
    void grow(Slot slot) noexcept { ++running_[slot].length; }
    /// Computes the first `tokens` tokens of this slot again, as a prompt: a cache that is not used.
    void restart(Slot slot, std::uint32_t tokens) noexcept {
        running_[slot].computed = 0;
        running_[slot].demand.prompt_tokens = tokens;
    }
    /// Starts a request that goes on from where the sequence of `from` stands, and shares its pages; the free slot that
    /// it has, or none.
    [[nodiscard]] std::optional<Slot> fork(Slot from, const Demand& demand) noexcept {
        for (Slot slot = 0; slot < running_.size(); ++slot) {
            if (running_[slot].active) continue;
            running_[slot] = running_[from];
            running_[slot].demand.id = demand.id;
            running_[slot].demand.most_tokens = demand.most_tokens;
            running_[slot].demand.all_outputs = demand.all_outputs;
            if (!running_[from].paused) pages_->fork(from, slot);
            // Both will write: what they share now is one page too few later, so what either writes is taken here.
            const std::uint32_t most = std::max(demand.most_tokens, running_[from].demand.most_tokens);
            if (budget_.admission == Admission::reserve &&
                !pages_->reserve(slot, running_[slot].computed, most)) {
                pages_->release(slot);
                running_[slot].active = false;
                return std::nullopt;
            }
            order_.push_back(slot);
            ++counts_.admitted;
            count_running();
            return slot;
        }
        return std::nullopt;
    }
    /// The sequence ended; its slot and its pages are free.
    void finish(Slot slot) noexcept {
        pages_->release(slot);
        running_[slot].active = false;
        std::erase(order_, slot);
    }
    /// Forgets a waiting request; false if it is not waiting.
    bool withdraw(RequestId id) {
        const auto found =
            std::find_if(waiting_.begin(), waiting_.end(), [&](const Demand& d) { return d.id == id; });
        if (found == waiting_.end()) return false;
        waiting_.erase(found);
        return true;
    }

    [[nodiscard]] std::size_t waiting() const noexcept { return waiting_.size(); }
    /// Sequences that have a slot, preempted ones too.
    [[nodiscard]] std::size_t running() const noexcept { return order_.size(); }
    [[nodiscard]] bool paused(Slot slot) const noexcept { return running_[slot].paused; }
    [[nodiscard]] bool idle() const noexcept { return waiting() == 0 && running() == 0; }
    [[nodiscard]] const Counts& counts() const noexcept { return counts_; }
    /// Tokens of a sequence whose keys and values are in its pages.
    [[nodiscard]] std::uint32_t computed(Slot slot) const noexcept { return running_[slot].computed; }

private:
    struct Sequence {
        Demand demand;
        std::uint32_t length = 0;    ///< tokens known: prompt and answer
        std::uint32_t computed = 0;  ///< tokens in the cache
        std::uint32_t known = 0;     ///< tokens that were in the cache once
        bool active = false;
        bool paused = false;  ///< preempted: it has no pages
    };

    /// Takes the pages with which a sequence begins or goes on, and returns the tokens in those that it adopted; none
    /// where they are not free.
    template <class Adopt>
    std::optional<std::uint32_t> enter(Slot slot, const Demand& demand, const Adopt& adopt) noexcept {
        const std::uint32_t adopted = adopt(slot, demand);
        const bool reserved = budget_.admission == Admission::reserve;
        if ((reserved || pages_->has_room(demand.prompt_tokens, demand.most_tokens, adopted)) &&
            pages_->reserve(slot, adopted, reserved ? demand.most_tokens : demand.prompt_tokens)) {
            return adopted;
        }
        pages_->release(slot);
        return std::nullopt;
    }
    /// Takes the pages that the next rows of a sequence need, from the latest admitted if there are no others.
    bool has_pages(Slot slot, std::uint32_t rows) noexcept {
        const Sequence& s = running_[slot];
        while (!pages_->reserve(slot, s.computed, s.computed + rows)) {
            Slot latest = slot;
            for (const Slot other : order_) {
                if (!running_[other].paused) latest = other;
            }
            pause(latest);
            if (latest == slot) return false;
        }
        return true;
    }
    void pause(Slot slot) noexcept {
        Sequence& s = running_[slot];
        const std::uint64_t used = pages_->used();
        pages_->release(slot);
        counts_.evicted_pages += used - pages_->used();
        counts_.evicted_tokens += s.computed;
        s.paused = true;
        s.computed = 0;
        s.demand.prompt_tokens = s.length;
        std::erase_if(chunks_, [&](const Chunk& chunk) { return chunk.slot == slot; });
        ++counts_.preempted;
    }
    void count_running() noexcept {
        const auto with_pages =
            std::count_if(order_.begin(), order_.end(), [&](Slot slot) { return !running_[slot].paused; });
        counts_.most_running = std::max(counts_.most_running, static_cast<std::uint32_t>(with_pages));
    }

    Budget budget_;
    kv::Sequences* pages_;
    std::vector<Sequence> running_;
    std::uint32_t admission_limit_;
    std::vector<Slot> order_;  ///< slots in use, in order of admission
    std::deque<Demand> waiting_;
    std::vector<Chunk> chunks_;
    Counts counts_;
};

}  // namespace scheduler
}  // namespace zse::inline v1
