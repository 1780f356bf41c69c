// SPDX-License-Identifier: Apache-2.0
// An engine whose policies are not known to the caller: requests in, events out, one virtual call a step.
#pragma once

#include <zse/engine/options.hpp>
#include <zse/engine/page_memory.hpp>
#include <zse/engine/request.hpp>
#include <zse/engine/vocabulary.hpp>
#include <zse/memory/arena.hpp>
#include <zse/model/planner.hpp>
#include <zse/sampling/stop.hpp>
#include <zse/system/driver_bytes.hpp>
#include <zse/tokenizer/stream_decoder.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <new>
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

    /// Takes a request; it runs when a slot and pages are free. Throws context_exceeded where the prompt does not leave
    /// room for a token, out_of_memory where its worst case exceeds all pages there are, invalid_input for an empty
    /// prompt or an unknown token, usage for bad sampling parameters.
    RequestId submit(Request request) {
        check(request);
        const scheduler::Demand demand = demand_of(request, next_id_);
        if (!pages_.could_hold(demand.most_tokens)) throw too_long(demand);
        waiting_.emplace_back(demand.id, std::move(request));
        try {
            scheduler_.submit(demand);
        } catch (...) {
            waiting_.pop_back();
            throw;
        }
        return next_id_++;
    }

    /// Starts a second answer from where a running request stands: it shares the pages that are computed, and goes on
    /// with sampling parameters of its own. None where the request does not run or no slot is free.
    std::optional<RequestId> fork(RequestId of, const sampling::SamplingParams& sampling) {
        sampling::validate(sampling);
        for (scheduler::Slot from = 0; from < slots_.size(); ++from) {
            if (!slots_[from].active || slots_[from].id != of) continue;
            Request request = slots_[from].request;
            request.sampling = sampling;
            const auto to = scheduler_.fork(from, demand_of(request, next_id_));
            if (!to) return std::nullopt;
            try {
                begin(slots_[*to], next_id_, slots_[from].tokens.first(slots_[from].count));
                slots_[*to].decoder = slots_[from].decoder;
                slots_[*to].stop = slots_[from].stop;
            } catch (...) {
                scheduler_.finish(*to);
                throw;
            }
            Slot& slot = slots_[*to];
            slot.request = std::move(request);
            slot.prompt = slots_[from].prompt;
            slot.observed = slots_[from].observed;
            for (std::uint32_t g = 0; g < groups_.count; ++g) {
                std::ranges::copy(page_memory_.mass(g, from), page_memory_.mass(g, *to).begin());
            }
            return next_id_++;
        }
        return std::nullopt;
    }

    /// Computes one step: admits, runs the forward pass on at most limits().step_tokens rows, chooses tokens.
    /// Returns what happened, valid until the next step; empty, with idle(), where nothing is left to do.
    /// Between admissions it allocates nothing. Throws unreadable where weights in the disk tier cannot be read: the
    /// requests of the step have then ended without a token from it, and the others go on with the next step.
    std::span<const Event> step() {
        events_.clear();
        if (kv::PromptTier* const prompts = page_memory_.prompts()) prompts->pump();
        admit();
        const std::span<const scheduler::Chunk> chunks = scheduler_.next();
        if (chunks.empty()) return events_;
        const model::Batch batch = gather(chunks);
        for (const scheduler::Chunk& chunk : chunks)
            pages_.need(chunk.slot, chunk.first_position + chunk.rows);
        pages_.start();
        const auto begin = std::chrono::steady_clock::now();
        try {
            forward(batch, logits());
        } catch (...) {
            abandon(chunks);
            throw;
        }
        note_time(batch.rows.rows, std::chrono::steady_clock::now() - begin);
        if (pages_.failed()) {
            lose_disk();
            return events_;
        }
        note_use(batch);
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

    /// Waits until the prompt cache's file has all that was computed so far, for as long as may be: for a program that is
    /// about to rest. Nothing else has to wait for that.
    void flush_prompts(std::chrono::milliseconds most = kv::PromptTier::most_closing) noexcept {
        if (kv::PromptTier* const prompts = page_memory_.prompts()) prompts->flush(most);
    }

    /// Nothing runs and nothing waits.
    [[nodiscard]] bool idle() const noexcept { return scheduler_.idle(); }
    /// Requests that have a slot, and those that wait for one.
    [[nodiscard]] std::size_t running() const noexcept { return scheduler_.running(); }
    [[nodiscard]] std::size_t waiting() const noexcept { return scheduler_.waiting(); }
    /// From the next step on, requests are admitted while fewer sequences than this run: see PressurePolicy.
    void limit_admission(std::uint32_t sequences) noexcept { scheduler_.limit_admission(sequences); }

    /// Answers to a prompt, piece by piece: for (std::string_view piece : engine.generate("...")). The text
    /// is tokenised as the file says, with no chat template.
    Generation generate(std::string_view prompt, Request request = {});

    [[nodiscard]] const ModelSpec& spec() const noexcept { return spec_; }
    [[nodiscard]] const Limits& limits() const noexcept { return limits_; }
    [[nodiscard]] const memory::Plan& plan() const noexcept { return plan_; }
    /// What this engine and others that share its vocabulary hold.
    [[nodiscard]] memory::Ledger& ledger() const noexcept { return *vocabulary_->ledger(); }
    /// Pages in use, and what is lost in them.
    [[nodiscard]] engine::PageUse page_use() const noexcept {
        engine::PageUse use;
        use.pages = pages_.capacity();
        use.used = pages_.used();
        use.cached = pages_.cached();
        use.dropped = pages_.dropped();
        for (scheduler::Slot slot = 0; slot < slots_.size(); ++slot) {
            if (!slots_[slot].active || scheduler_.paused(slot)) continue;
            ++use.sequences;
            use.tokens += scheduler_.computed(slot);
            use.unused_tokens += pages_.unused_tokens(slot, scheduler_.computed(slot));
        }
        return use;
    }
    /// Pages that changed their tier since open, in all groups of layers.
    [[nodiscard]] kv::TierTraffic tier_traffic() const noexcept { return page_memory_.traffic(); }
    /// The file behind the prompt cache, or none.
    [[nodiscard]] const kv::PromptTier* prompts() const noexcept { return page_memory_.prompts(); }
    [[nodiscard]] const scheduler::Counts& scheduling() const noexcept { return scheduler_.counts(); }
    [[nodiscard]] const tokenizer::Tokenizer& tokenizer() const noexcept { return vocabulary_->tokenizer; }
    [[nodiscard]] const engine::Vocabulary& vocabulary() const noexcept { return *vocabulary_; }
    [[nodiscard]] const engine::Counters& counters() const noexcept { return counters_; }
    /// The instruction set whose kernels compute.
    [[nodiscard]] kernels::Isa isa() const noexcept { return isa_; }
    /// Where a GPU computes: what its driver takes beside the arenas.
    [[nodiscard]] virtual std::optional<system::DriverBytes> driver_bytes() const noexcept {
        return std::nullopt;
    }
    /// The policies, in the canonical order, as their types are spelled.
    [[nodiscard]] virtual std::string description() const = 0;

protected:
    AnyEngine(const ModelSpec& spec, std::shared_ptr<const engine::Vocabulary> vocabulary,
              const memory::Plan& plan, const model::StateGroups& groups, const engine::Options& options,
              const Identity& identity)
        : spec_(spec),
          limits_(options.limits),
          plan_(plan),
          groups_(groups),
          vocabulary_(std::move(vocabulary)),
          arenas_{vocabulary_->ledger().get(), &plan_, options.mapping, options.disk_directory},
          page_memory_(arenas_, groups_, options, identity),
          logits_(arena(plan_.host[memory::Kind::logits] != 0 ? memory::Tier::host : placement().of_compute(),
                        memory::Kind::logits)),
          sampling_(arena(memory::Tier::host, memory::Kind::sampling)),
          control_(arena(memory::Tier::host, memory::Kind::control)),
          control_carver_(control_.bytes()),
          pages_(page_memory_.sequences()),
          scheduler_(budget(options), pages_),
          use_cache_(options.use_cache),
          isa_(options.isa.value_or(kernels::Isa::portable)) {
        if (options.shuffle_pages != 0) pages_.shuffle(options.shuffle_pages);
        tokens_ = control_carver_.take<std::int32_t>(limits_.step_tokens);
        positions_ = control_carver_.take<std::uint32_t>(limits_.step_tokens);
        segment_of_row_ = control_carver_.take<std::uint32_t>(limits_.step_tokens);
        output_rows_ = control_carver_.take<std::uint32_t>(limits_.output_rows);
        for (std::uint32_t g = 0; g < groups_.count; ++g) {
            segments_[g] = control_carver_.take<kv::Segment>(limits_.batch);
        }
        slots_.resize(limits_.batch);
        const auto histories =
            control_carver_.take<std::int32_t>(std::size_t{limits_.batch} * limits_.context);
        for (std::size_t i = 0; i < slots_.size(); ++i) {
            slots_[i].tokens = histories.subspan(i * limits_.context, limits_.context);
        }
        events_.reserve(2 * static_cast<std::size_t>(limits_.batch));
        grown_.reserve(limits_.batch);
        asked_.reserve(limits_.output_rows);
        ended_.reserve(limits_.batch);
    }

    /// Computes all rows of a batch, appends their keys and values, and writes logits `[output rows,
    /// vocabulary]`, at least those whose tokens it does not choose itself.
    virtual void forward(const model::Batch& batch, float* logits) = 0;
    /// The token that forward() chose for an output row, or what it found wrong (negative); none where the host chooses.
    [[nodiscard]] virtual std::optional<std::int32_t> chosen(std::size_t /*output*/) const noexcept {
        return std::nullopt;
    }
    /// What becomes of an output row of the step.
    struct Asked {
        const sampling::SamplingParams* sampling = nullptr;  ///< how its token is chosen; null: none is
        std::uint64_t position = 0;                          ///< of that token
        bool host = false;  ///< its logits are wanted, or enter into the choice with what only the host knows
    };
    [[nodiscard]] std::span<const Asked> asked() const noexcept { return asked_; }

    /// Takes memory as the plan says.
    [[nodiscard]] const engine::Arenas& arenas() const noexcept { return arenas_; }
    /// An arena of exactly the plan's bytes of this kind in a tier.
    [[nodiscard]] memory::Arena arena(memory::Tier tier, memory::Kind kind) const {
        return arenas_.take(tier, kind);
    }
    /// What the plan has for weights in each tier, of which those on disk pass through `ring`.
    [[nodiscard]] model::WeightArenas weight_arenas(const model::RingLayout& ring) const {
        model::WeightArenas arenas;
        arenas.gpu = arena(memory::Tier::gpu, memory::Kind::weights);
        arenas.host = arena(memory::Tier::host, memory::Kind::weights);
        if (ring.images() == 0) return arenas;
        arenas.disk = arenas_.take_disk(memory::Kind::weights, ring.disk_bytes);
        arenas.staging = arenas_.take(memory::Tier::host, memory::Kind::staging, ring.staging_bytes());
        return arenas;
    }
    [[nodiscard]] model::Placement placement() const noexcept { return {spec_.layers, limits_}; }
    [[nodiscard]] const model::StateGroups& groups() const noexcept { return groups_; }
    [[nodiscard]] const kv::Sequences& pages() const noexcept { return pages_; }
    [[nodiscard]] kv::PageMover& page_mover() noexcept { return page_memory_.mover(); }
    /// The segments of the batch that is computed, with the pages of a group of layers.
    [[nodiscard]] std::span<const kv::Segment> segments(std::size_t group, std::size_t count) const noexcept {
        return segments_[group].first(count);
    }
    /// Counts a step that ran as captured, or one that was enqueued anew.
    void count_step(bool replayed) noexcept {
        ++(replayed ? counters_.replayed_steps : counters_.eager_steps);
    }
    /// After a step: counts what has come from the disk tier so far. Throws unreadable where a layer did not. `ring` is null
    /// where nothing is streamed.
    void finish_streaming(model::WeightRing* ring) {
        if (ring == nullptr) return;
        counters_.streamed = ring->counts();
        if (const std::optional<Error> failure = ring->failure()) throw Error(*failure);
    }
    /// Room for a captured step in the control arena, and what of it is filled.
    void note_uncaptured(Bytes bytes) noexcept { uncaptured_ += bytes; }
    void note_captured(Bytes bytes) noexcept { uncaptured_ -= bytes; }
    /// What is left of the control arena for the derived class.
    [[nodiscard]] memory::Carver& control() noexcept { return control_carver_; }

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

    /// What the scheduler has to know of a request.
    [[nodiscard]] scheduler::Demand demand_of(const Request& request, RequestId id) const noexcept {
        const auto prompt = static_cast<std::uint32_t>(request.tokens.size());
        const std::uint64_t most = std::uint64_t{prompt} + request.max_tokens;
        return {id, prompt, static_cast<std::uint32_t>(std::min<std::uint64_t>(most, limits_.context)),
                request.observe != nullptr};
    }
    [[nodiscard]] Error too_long(const scheduler::Demand& demand) const {
        std::uint64_t fits = 0;
        for (std::uint64_t step = std::uint64_t{1} << 31; step > 0; step /= 2) {
            if (fits + step <= demand.most_tokens && pages_.could_hold(fits + step)) fits += step;
        }
        return Error(
            ErrorCode::out_of_memory,
            text("the request may grow to ", demand.most_tokens, " tokens, whose keys and values need ",
                 pages_.bytes(demand.most_tokens), " bytes; all pages together are ",
                 plan_.of(memory::Kind::kv), " bytes and hold ", fits,
                 " tokens of one sequence; ask for fewer tokens, raise the KV "
                 "budget, or use a coarser KV precision"));
    }
    [[nodiscard]] scheduler::Budget budget(const engine::Options& options) const noexcept {
        scheduler::Budget budget{limits_.batch, limits_.step_tokens, limits_.output_rows, 0,
                                 options.admission};
        for (const model::StateGroup& group : groups_.all()) {
            if (group.keeping.recent != 0) budget.cut = group.keeping.cut;
        }
        return budget;
    }
    /// The disk tier lost pages: the last step counts for nothing, and all goes on without that tier, from the tokens
    /// that are known. Requests that memory alone cannot hold fail.
    void lose_disk() {
        ++counters_.lost_tiers;
        scheduler_.give_up_pages();
        pages_.close_disk();
        for (scheduler::Slot slot = 0; slot < slots_.size(); ++slot) {
            if (!slots_[slot].active || pages_.could_hold(scheduler_.most_tokens(slot))) continue;
            events_.push_back({slots_[slot].id, -1, {}, engine::Finish::failed});
            release(slot);
        }
        std::erase_if(waiting_, [&](const auto& entry) {
            if (pages_.could_hold(demand_of(entry.second, entry.first).most_tokens)) return false;
            scheduler_.withdraw(entry.first);
            events_.push_back({entry.first, -1, {}, engine::Finish::failed});
            return true;
        });
    }
    void admit() {
        const auto waiting = [&](RequestId id) {
            return std::find_if(waiting_.begin(), waiting_.end(),
                                [id](const auto& entry) { return entry.first == id; });
        };
        std::uint32_t adopted = 0;
        const auto adopt = [&](scheduler::Slot index, const scheduler::Demand& demand) {
            adopted = 0;
            if (!use_cache_ || demand.all_outputs) return adopted;  // every row is wanted
            const Slot& slot = slots_[index];
            const bool goes_on = slot.active && slot.id == demand.id;
            const std::span<const std::int32_t> tokens =
                goes_on ? slot.tokens.first(slot.count) : std::span(waiting(demand.id)->second.tokens);
            adopted = pages_.adopt(index, tokens);
            // Nothing is read for a sequence that has to wait.
            kv::PromptTier* const prompts = page_memory_.prompts();
            if (prompts != nullptr && pages_.has_room(demand.prompt_tokens, demand.most_tokens, adopted)) {
                adopted = prompts->fetch(index, tokens, adopted);
            }
            return adopted;
        };
        scheduler_.admit(adopt, [&](scheduler::Slot index, const scheduler::Demand& demand) {
            const auto found = waiting(demand.id);
            Slot& slot = slots_[index];
            slot.decoder.emplace(vocabulary_->tokenizer.vocabulary());
            slot.stop.emplace(found->second.stop);
            begin(slot, demand.id, found->second.tokens);
            slot.request = std::move(found->second);
            waiting_.erase(found);
            counters_.prompt_hits += adopted != 0 ? 1 : 0;
            counters_.prompt_hit_tokens += adopted;
        });
    }
    /// Sets up a slot for a sequence of these tokens. Where it throws, the slot is as free as it was.
    void begin(Slot& slot, RequestId id, std::span<const std::int32_t> tokens) {
        slot.text.clear();
        slot.text.reserve(256);
        slot.tail.reserve(256);
        slot.active = true;
        slot.id = id;
        slot.prompt = slot.count = static_cast<std::uint32_t>(tokens.size());
        slot.observed = 0;
        std::copy(tokens.begin(), tokens.end(), slot.tokens.begin());
    }

    [[nodiscard]] float* logits() const noexcept { return reinterpret_cast<float*>(logits_.data()); }

    /// Writes the arrays that describe a step.
    model::Batch gather(std::span<const scheduler::Chunk> chunks) {
        model::Batch batch;
        std::uint32_t row = 0;
        std::uint32_t outputs = 0;
        asked_.clear();
        for (std::uint32_t i = 0; i < chunks.size(); ++i) {
            const scheduler::Chunk& chunk = chunks[i];
            const Slot& slot = slots_[chunk.slot];
            for (std::uint32_t g = 0; g < groups_.count; ++g) {
                const kv::GroupPages& pages = pages_.groups()[g];
                const kv::Keeping& keeping = pages.keeping;
                segments_[g][i] = {row,
                                   chunk.rows,
                                   chunk.first_position,
                                   pages.tables[chunk.slot].data(),
                                   keeping.old ? pages.old_tables[chunk.slot].data() : nullptr,
                                   keeping.boundary(chunk.first_position),
                                   keeping.sinks,
                                   keeping.old_tokens(chunk.first_position),
                                   page_memory_.mass(g, chunk.slot).data()};
            }
            for (std::uint32_t r = 0; r < chunk.rows; ++r, ++row) {
                tokens_[row] = slot.tokens[chunk.first_position + r];
                positions_[row] = chunk.first_position + r;
                segment_of_row_[row] = i;
                if (r + chunk.outputs < chunk.rows) continue;
                output_rows_[outputs++] = row;
                asked_.push_back(ask(slot, positions_[row]));
            }
            batch.most_rows = std::max<std::size_t>(batch.most_rows, chunk.rows);
        }
        batch.tokens = tokens_.data();
        batch.rows = {segments(0, chunks.size()), segment_of_row_.data(), positions_.data(), row};
        batch.output_rows = output_rows_.first(outputs);
        return batch;
    }

    [[nodiscard]] static Asked ask(const Slot& slot, std::uint32_t position) noexcept {
        const Request& request = slot.request;
        Asked asked;
        asked.position = std::uint64_t{position} + 1;
        if (asked.position == slot.count && request.max_tokens != 0) asked.sampling = &request.sampling;
        asked.host = (request.observe && position >= slot.observed) || request.mask ||
                     request.sampling.repetition_penalty != 1;
        return asked;
    }

    /// What a step took says how long prompts take, where it has many rows.
    void note_time(std::size_t rows, std::chrono::duration<double> taken) noexcept {
        constexpr std::size_t many = 32;
        kv::PromptTier* const prompts = page_memory_.prompts();
        if (prompts != nullptr && rows >= many) prompts->note_computed(rows, taken.count());
    }
    /// Tells the ledger what a step used of each kind.
    void note_use(const model::Batch& batch) noexcept {
        page_memory_.note_pages();
        logits_.uses(batch.output_rows.size() * spec_.vocabulary * sizeof(float));
        std::uint64_t entries = 0;
        std::uint64_t written = 0;
        for (scheduler::Slot slot = 0; slot < slots_.size(); ++slot) {
            entries += pages_.entries(slot);
            written += slots_[slot].active ? slots_[slot].count : 0;
        }
        page_memory_.note_tables(entries);
        // The parts of the control arena are never all full at once: what each had at most counts.
        most_rows_ = std::max(most_rows_, batch.rows.rows);
        most_written_ = std::max(most_written_, written);
        const std::uint64_t idle_rows = limits_.step_tokens - most_rows_;
        const std::uint64_t idle_tokens = std::uint64_t{limits_.batch} * limits_.context - most_written_;
        control_.uses(control_.size() - uncaptured_ - idle_tokens * sizeof(std::int32_t) -
                      idle_rows * 3 * sizeof(std::uint32_t));
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
                if (position + 1 == slot.count) continue_answer_or_fail(slot, row, output);
            }
            if (end == slot.count && slot.request.max_tokens == 0)
                ended_.push_back({chunk.slot, engine::Finish::length});
            if (use_cache_) seal(chunk.slot, chunk.first_position, end);
        }
        if (kv::PromptTier* const prompts = page_memory_.prompts()) prompts->pump();
        scheduler_.commit();
        close_answers();
    }

    void seal(scheduler::Slot slot, std::uint32_t before, std::uint32_t computed) noexcept {
        pages_.seal(slot, slots_[slot].tokens, before, computed,
                    [this](kv::PrefixCache::Block block, std::uint32_t) noexcept {
                        if (kv::PromptTier* const prompts = page_memory_.prompts()) prompts->add(block);
                    });
    }

    /// A request whose text finds no memory fails alone.
    void continue_answer_or_fail(Slot& slot, std::span<float> row, std::size_t output) {
        try {
            continue_answer(slot, row, output);
        } catch (const std::bad_alloc&) {
            ended_.push_back({static_cast<scheduler::Slot>(&slot - slots_.data()), engine::Finish::failed});
        }
    }

    /// Chooses the token that follows the sequence, and tells it.
    void continue_answer(Slot& slot, std::span<float> row, std::size_t output) {
        if (slot.request.max_tokens == 0) return;
        const auto index = static_cast<scheduler::Slot>(&slot - slots_.data());
        const std::int32_t token = chosen(output).value_or(no_token);
        const std::int32_t found = token == no_token ? choose(slot, row) : token;
        if (found < 0) {
            ended_.push_back({index, engine::Finish::failed});
            return;
        }
        accept_token(slot, index, found);
    }
    /// The host's choice, or a negative number where there is none.
    std::int32_t choose(const Slot& slot, std::span<float> row) {
        const std::span<const std::int32_t> history = slot.tokens.first(slot.count);
        sampling::TokenMask mask;
        if (slot.request.mask) mask.bits = slot.request.mask(history);
        sampling_.uses(sampling_.size());
        const Result<std::int32_t> chosen = sampling::Sampler(slot.request.sampling)
                                                .sample({row, history, mask, slot.count}, sampling_.bytes());
        return chosen ? chosen.value() : -1;
    }
    void accept_token(Slot& slot, scheduler::Slot index, std::int32_t token) {
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

    /// A step has failed, and what it wrote is worth nothing: its requests end, and their pages are free.
    void abandon(std::span<const scheduler::Chunk> chunks) noexcept {
        for (const scheduler::Chunk& chunk : chunks) release(chunk.slot);
    }

    void release(scheduler::Slot index) noexcept {
        slots_[index].active = false;
        scheduler_.finish(index);
        page_memory_.note_pages();
    }

    /// Nobody has chosen yet: no token, and none of sampling::cuda::NoToken.
    static constexpr std::int32_t no_token = std::numeric_limits<std::int32_t>::min();

    ModelSpec spec_;
    Limits limits_;
    memory::Plan plan_;
    model::StateGroups groups_;
    std::shared_ptr<const engine::Vocabulary> vocabulary_;
    engine::Arenas arenas_;
    engine::PageMemory page_memory_;
    memory::Arena logits_, sampling_, control_;
    memory::Carver control_carver_;
    kv::Sequences& pages_;  ///< of page_memory_
    scheduler::Scheduler scheduler_;
    bool use_cache_;
    kernels::Isa isa_;

    std::span<std::int32_t> tokens_;
    std::span<std::uint32_t> positions_, segment_of_row_, output_rows_;
    std::array<std::span<kv::Segment>, model::StateGroups::most> segments_;  ///< `[group][sequence]`
    std::vector<Slot> slots_;
    std::vector<std::pair<RequestId, Request>> waiting_;
    std::vector<Event> events_;
    std::vector<scheduler::Slot> grown_;
    std::vector<std::pair<scheduler::Slot, engine::Finish>> ended_;
    std::vector<Asked> asked_;  ///< of the step, by output row
    engine::Counters counters_;
    std::size_t most_rows_ = 0;
    std::uint64_t most_written_ = 0;
    Bytes uncaptured_ = 0;
    RequestId next_id_ = 1;
};

}  // namespace zse::inline v1
