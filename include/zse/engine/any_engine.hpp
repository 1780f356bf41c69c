// SPDX-License-Identifier: Apache-2.0
// An engine whose policies are not known to the caller: requests in, events out, one virtual call a step.
#pragma once

#include <zse/engine/options.hpp>
#include <zse/engine/request.hpp>
#include <zse/engine/vocabulary.hpp>
#include <zse/kv/pool.hpp>
#include <zse/memory/arena.hpp>
#include <zse/model/planner.hpp>
#include <zse/sampling/stop.hpp>
#include <zse/tokenizer/stream_decoder.hpp>

#include <algorithm>
#include <memory>
#include <optional>

namespace zse::inline v1 {

class Generation;

/// What is common to all engines: requests, sequences, pages, sampling and text. The forward pass is the
/// derived class's. Not thread-safe: one thread submits and steps.
class AnyEngine {
public:
    using Request = engine::Request;
    using RequestId = engine::RequestId;
    using Event = engine::Event;

    AnyEngine(const AnyEngine&) = delete;
    AnyEngine& operator=(const AnyEngine&) = delete;
    virtual ~AnyEngine() = default;

    /// Takes a request; it runs when a slot is free. Throws context_exceeded where the prompt does not leave
    /// room for a token, invalid_input for an empty prompt or an unknown token, usage for bad sampling
    /// parameters.
    RequestId submit(Request request) {
        check(request);
        const RequestId id = next_id_++;
        scheduler_.submit(
            {id, static_cast<std::uint32_t>(request.tokens.size()), request.observe != nullptr});
        waiting_.emplace_back(id, std::move(request));
        return id;
    }

    /// Computes one step: admits, runs the forward pass on at most limits().step_tokens rows, chooses tokens.
    /// Returns what happened, valid until the next step; empty, with idle(), where nothing is left to do.
    /// Between admissions it allocates nothing.
    std::span<const Event> step() {
        events_.clear();
        admit();
        const std::span<const scheduler::Chunk> chunks = scheduler_.next();
        if (chunks.empty()) return events_;
        const model::Batch batch = gather(chunks);
        forward(batch, logits());
        ++counters_.steps;
        counters_.rows += batch.rows.rows;
        counters_.most_rows_in_a_step =
            std::max(counters_.most_rows_in_a_step, static_cast<std::uint32_t>(batch.rows.rows));
        finish_step(chunks);
        return events_;
    }

    /// Ends a request at once; its pages are free. False if it is not known or has ended.
    bool cancel(RequestId id) {
        if (scheduler_.withdraw(id)) {
            std::erase_if(waiting_, [&](const auto& entry) { return entry.first == id; });
            return true;
        }
        for (scheduler::Slot slot = 0; slot < slots_.size(); ++slot) {
            if (slots_[slot].active && slots_[slot].id == id) return release(slot), true;
        }
        return false;
    }

    /// Nothing runs and nothing waits.
    [[nodiscard]] bool idle() const noexcept { return scheduler_.idle(); }

    /// Answers to a prompt, piece by piece: for (std::string_view piece : engine.generate("...")). The text
    /// is tokenised as the file says, with no chat template.
    Generation generate(std::string_view prompt, Request request = {});

    [[nodiscard]] const ModelSpec& spec() const noexcept { return spec_; }
    [[nodiscard]] const Limits& limits() const noexcept { return limits_; }
    [[nodiscard]] const memory::Plan& plan() const noexcept { return plan_; }
    [[nodiscard]] const memory::Ledger& ledger() const noexcept { return *ledger_; }
    [[nodiscard]] const tokenizer::Tokenizer& tokenizer() const noexcept { return vocabulary_->tokenizer; }
    [[nodiscard]] const engine::Vocabulary& vocabulary() const noexcept { return *vocabulary_; }
    [[nodiscard]] const engine::Counters& counters() const noexcept { return counters_; }
    /// The instruction set whose kernels compute.
    [[nodiscard]] kernels::Isa isa() const noexcept { return isa_; }
    /// The policies, in the canonical order, as their types are spelled.
    [[nodiscard]] virtual std::string description() const = 0;

protected:
    AnyEngine(const ModelSpec& spec, std::shared_ptr<const engine::Vocabulary> vocabulary,
              const memory::Plan& plan, const kv::PageLayout& layout, const engine::Options& options)
        : spec_(spec),
          limits_(options.limits),
          plan_(plan),
          layout_(layout),
          own_ledger_(options.ledger == nullptr ? std::make_unique<memory::Ledger>() : nullptr),
          ledger_(options.ledger == nullptr ? own_ledger_.get() : options.ledger),
          vocabulary_(std::move(vocabulary)),
          kv_(arena(memory::Kind::kv)),
          logits_(arena(memory::Kind::logits)),
          sampling_(arena(memory::Kind::sampling)),
          page_tables_(arena(memory::Kind::page_tables)),
          control_(arena(memory::Kind::control)),
          table_carver_(page_tables_.bytes()),
          pool_(table_carver_.take<kv::PageIndex>(plan.kv_pages)),
          scheduler_({limits_.batch, limits_.step_tokens, limits_.output_rows}),
          use_cache_(options.use_cache),
          isa_(options.isa.value_or(kernels::Isa::portable)) {
        if (options.shuffle_pages != 0) pool_.shuffle(options.shuffle_pages);
        memory::Carver control(control_.bytes());
        tokens_ = control.take<std::int32_t>(limits_.step_tokens);
        positions_ = control.take<std::uint32_t>(limits_.step_tokens);
        segment_of_row_ = control.take<std::uint32_t>(limits_.step_tokens);
        output_rows_ = control.take<std::uint32_t>(limits_.output_rows);
        segments_ = control.take<kv::Segment>(limits_.batch);
        slots_.resize(limits_.batch);
        for (Slot& slot : slots_) {
            slot.tokens = control.take<std::int32_t>(limits_.context);
            slot.table = kv::PageTable(table_carver_.take<kv::PageIndex>(layout_.pages(limits_.context)),
                                       limits_.page_tokens);
        }
        events_.reserve(2 * static_cast<std::size_t>(limits_.batch));
        grown_.reserve(limits_.batch);
        ended_.reserve(limits_.batch);
    }

    /// Computes all rows of a batch, appends their keys and values, and writes logits `[output rows,
    /// vocabulary]`.
    virtual void forward(const model::Batch& batch, float* logits) = 0;

    /// An arena of exactly the plan's bytes of this kind.
    [[nodiscard]] memory::Arena arena(memory::Kind kind) const {
        return memory::Arena(ledger_->reserve(memory::Tier::host, kind, plan_.host[kind]).value());
    }
    [[nodiscard]] std::byte* kv_pool() const noexcept { return kv_.data(); }
    [[nodiscard]] const kv::PageLayout& layout() const noexcept { return layout_; }

private:
    friend class Generation;

    struct Slot {
        bool active = false;
        RequestId id = 0;
        Request request;
        std::span<std::int32_t> tokens;  ///< prompt and answer
        std::uint32_t count = 0;
        std::uint32_t prompt = 0;
        std::uint32_t observed = 0;  ///< positions that the observer has seen
        kv::PageTable table;
        std::optional<tokenizer::StreamDecoder> decoder;
        std::optional<sampling::StopMatcher> stop;
        std::string text;  ///< what the last event of this slot says
        std::string tail;  ///< what its closing event says
    };

    void check(const Request& request) const {
        if (request.tokens.empty()) {
            throw Error(ErrorCode::invalid_input, "the prompt has no tokens; give at least one");
        }
        if (request.tokens.size() > limits_.context ||
            (request.tokens.size() == limits_.context && request.max_tokens != 0)) {
            throw Error(ErrorCode::context_exceeded,
                        text("the prompt has ", request.tokens.size(), " tokens, and the context holds ",
                             limits_.context, " with the answer; shorten the prompt or raise --max-context"));
        }
        for (const std::int32_t token : request.tokens) {
            if (token < 0 || static_cast<std::uint32_t>(token) >= spec_.vocabulary) {
                throw Error(ErrorCode::invalid_input,
                            text("token ", token, " is not one of the model's ", spec_.vocabulary,
                                 " tokens; tokenise with its own vocabulary"));
            }
        }
        sampling::validate(request.sampling);
        sampling::StopMatcher{request.stop};  // throws for bad stop texts
    }

    void admit() {
        scheduler_.admit([&](scheduler::Slot index, const scheduler::Demand& demand) {
            Slot& slot = slots_[index];
            const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                            [&](const auto& entry) { return entry.first == demand.id; });
            slot.request = std::move(found->second);
            waiting_.erase(found);
            slot.active = true;
            slot.id = demand.id;
            slot.prompt = slot.count = demand.prompt_tokens;
            slot.observed = 0;
            std::copy(slot.request.tokens.begin(), slot.request.tokens.end(), slot.tokens.begin());
            slot.decoder.emplace(vocabulary_->tokenizer.vocabulary());
            slot.stop.emplace(slot.request.stop);
            slot.text.clear();
            slot.text.reserve(256);
            slot.tail.reserve(256);
        });
    }

    [[nodiscard]] float* logits() const noexcept { return reinterpret_cast<float*>(logits_.data()); }

    /// Writes the arrays that describe a step.
    model::Batch gather(std::span<const scheduler::Chunk> chunks) {
        model::Batch batch;
        std::uint32_t row = 0;
        std::uint32_t outputs = 0;
        for (std::uint32_t i = 0; i < chunks.size(); ++i) {
            const scheduler::Chunk& chunk = chunks[i];
            Slot& slot = slots_[chunk.slot];
            if (!slot.table.extend(pool_, chunk.first_position + chunk.rows)) {
                throw Error(ErrorCode::internal, "the page pool is smaller than its plan");
            }
            segments_[i] = {row, chunk.rows, chunk.first_position, slot.table.data()};
            for (std::uint32_t r = 0; r < chunk.rows; ++r, ++row) {
                tokens_[row] = slot.tokens[chunk.first_position + r];
                positions_[row] = chunk.first_position + r;
                segment_of_row_[row] = i;
                if (r + chunk.outputs >= chunk.rows) output_rows_[outputs++] = row;
            }
            batch.most_rows = std::max<std::size_t>(batch.most_rows, chunk.rows);
        }
        batch.tokens = tokens_.data();
        batch.rows = {segments_.first(chunks.size()), segment_of_row_.data(), positions_.data(), row};
        batch.output_rows = output_rows_.first(outputs);
        return batch;
    }

    void finish_step(std::span<const scheduler::Chunk> chunks) {
        std::size_t output = 0;
        float* const rows = logits();
        for (const scheduler::Chunk& chunk : chunks) {
            Slot& slot = slots_[chunk.slot];
            const std::uint32_t end = chunk.first_position + chunk.rows;
            for (std::uint32_t position = end - chunk.outputs; position < end; ++position, ++output) {
                const std::span<float> row(rows + output * spec_.vocabulary, spec_.vocabulary);
                if (slot.request.observe && position >= slot.observed) {
                    slot.request.observe(position, row);
                    slot.observed = position + 1;
                }
                if (position + 1 == slot.count) continue_answer(slot, row);
            }
            if (end == slot.count && slot.request.max_tokens == 0)
                ended_.push_back({chunk.slot, engine::Finish::length});
        }
        scheduler_.commit();
        close_answers();
    }

    /// Chooses the token that follows the sequence, and tells it.
    void continue_answer(Slot& slot, std::span<float> row) {
        if (slot.request.max_tokens == 0) return;
        const auto index = static_cast<scheduler::Slot>(&slot - slots_.data());
        const std::span<const std::int32_t> history = slot.tokens.first(slot.count);
        sampling::TokenMask mask;
        if (slot.request.mask) mask.bits = slot.request.mask(history);
        const Result<std::int32_t> chosen = sampling::Sampler(slot.request.sampling)
                                                .sample({row, history, mask, slot.count}, sampling_.bytes());
        if (!chosen) {
            ended_.push_back({index, engine::Finish::failed});
            return;
        }
        const std::int32_t token = chosen.value();
        ++counters_.generated_tokens;
        if (!slot.request.ignore_end && vocabulary_->tokenizer.is_end_of_generation(token)) {
            ended_.push_back({index, engine::Finish::end});
            return;
        }
        slot.text.assign(slot.stop->push(slot.decoder->push(token)));
        events_.push_back({slot.id, token, slot.text, engine::Finish::none});
        slot.tokens[slot.count++] = token;
        if (slot.stop->stopped()) {
            ended_.push_back({index, engine::Finish::stop_string});
        } else if (slot.count - slot.prompt >= slot.request.max_tokens || slot.count == limits_.context) {
            ended_.push_back({index, engine::Finish::length});
        } else {
            grown_.push_back(index);
        }
    }

    /// After commit: sequences that go on grow by a token, those that ended say so and give back their pages.
    void close_answers() {
        for (const scheduler::Slot slot : grown_) {
            scheduler_.grow(slot);
            if (!use_cache_) scheduler_.restart(slot, slots_[slot].count);
        }
        grown_.clear();
        for (const auto& [index, finish] : ended_) {
            Slot& slot = slots_[index];
            std::string_view rest;
            if (finish != engine::Finish::stop_string) {
                // A last event of its own: characters held back by the decoder or by half a stop text.
                slot.tail.assign(slot.stop->push(slot.decoder->flush()));
                slot.tail.append(slot.stop->finish());
                rest = slot.tail;
            }
            events_.push_back({slot.id, -1, rest, finish});
            release(index);
        }
        ended_.clear();
    }

    void release(scheduler::Slot index) {
        Slot& slot = slots_[index];
        slot.active = false;
        slot.table.release(pool_);
        scheduler_.finish(index);
    }

    ModelSpec spec_;
    Limits limits_;
    memory::Plan plan_;
    kv::PageLayout layout_;
    std::unique_ptr<memory::Ledger> own_ledger_;
    memory::Ledger* ledger_;
    std::shared_ptr<const engine::Vocabulary> vocabulary_;
    memory::Arena kv_, logits_, sampling_, page_tables_, control_;
    memory::Carver table_carver_;
    kv::PagePool pool_;
    scheduler::Scheduler scheduler_;
    bool use_cache_;
    kernels::Isa isa_;

    std::span<std::int32_t> tokens_;
    std::span<std::uint32_t> positions_, segment_of_row_, output_rows_;
    std::span<kv::Segment> segments_;
    std::vector<Slot> slots_;
    std::vector<std::pair<RequestId, Request>> waiting_;
    std::vector<Event> events_;
    std::vector<scheduler::Slot> grown_;
    std::vector<std::pair<scheduler::Slot, engine::Finish>> ended_;
    engine::Counters counters_;
    RequestId next_id_ = 1;
};

}  // namespace zse::inline v1
