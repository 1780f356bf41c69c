// SPDX-License-Identifier: Apache-2.0
// An engine whose policies are not known to the caller: requests in, events out, one virtual call a step.
#pragma once

#include <zse/engine/options.hpp>
#include <zse/engine/request.hpp>
#include <zse/engine/vocabulary.hpp>
#include <zse/kv/prompt_tier.hpp>
#include <zse/memory/arena.hpp>
#include <zse/memory/disk_arena.hpp>
#include <zse/model/planner.hpp>
#include <zse/sampling/stop.hpp>
#include <zse/tokenizer/stream_decoder.hpp>

#include <algorithm>
#include <array>
#include <filesystem>
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
                std::ranges::copy(mass(g, from), mass(g, *to).begin());
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
        if (prompts_) prompts_->pump();
        admit();
        const std::span<const scheduler::Chunk> chunks = scheduler_.next();
        if (chunks.empty()) return events_;
        const model::Batch batch = gather(chunks);
        for (const scheduler::Chunk& chunk : chunks)
            pages_.need(chunk.slot, chunk.first_position + chunk.rows);
        pages_.start();
        try {
            forward(batch, logits());
        } catch (...) {
            abandon(chunks);
            throw;
        }
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
    [[nodiscard]] kv::TierTraffic tier_traffic() const noexcept {
        kv::TierTraffic sum;
        for (const Spread& spread : spread_) {
            if (spread.tiers != nullptr) sum += spread.tiers->traffic();
        }
        return sum;
    }
    /// The file behind the prompt cache, or none.
    [[nodiscard]] const kv::PromptTier* prompts() const noexcept { return prompts_ ? &*prompts_ : nullptr; }
    [[nodiscard]] const scheduler::Counts& scheduling() const noexcept { return scheduler_.counts(); }
    [[nodiscard]] const tokenizer::Tokenizer& tokenizer() const noexcept { return vocabulary_->tokenizer; }
    [[nodiscard]] const engine::Vocabulary& vocabulary() const noexcept { return *vocabulary_; }
    [[nodiscard]] const engine::Counters& counters() const noexcept { return counters_; }
    /// The instruction set whose kernels compute.
    [[nodiscard]] kernels::Isa isa() const noexcept { return isa_; }
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
          mapping_(options.mapping),
          vocabulary_(std::move(vocabulary)),
          kv_(page_arenas()),
          spread_(spread_arenas(options)),
          logits_(arena(placement().of_compute(), memory::Kind::logits)),
          sampling_(arena(memory::Tier::host, memory::Kind::sampling)),
          page_tables_(arena(memory::Tier::host, memory::Kind::page_tables)),
          prompt_cache_(arena(memory::Tier::host, memory::Kind::prompt_cache)),
          control_(arena(memory::Tier::host, memory::Kind::control)),
          prompt_carver_(prompt_cache_.bytes()),
          control_carver_(control_.bytes()),
          pages_(make_pages()),
          scheduler_(budget(options), pages_),
          use_cache_(options.use_cache),
          isa_(options.isa.value_or(kernels::Isa::portable)) {
        if (options.shuffle_pages != 0) pages_.shuffle(options.shuffle_pages);
        open_prompts(options.prompt_cache_directory, identity);
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
        ended_.reserve(limits_.batch);
    }

    /// Computes all rows of a batch, appends their keys and values, and writes logits `[output rows,
    /// vocabulary]`.
    virtual void forward(const model::Batch& batch, float* logits) = 0;

    /// An arena of exactly the plan's bytes of this kind in a tier.
    [[nodiscard]] memory::Arena arena(memory::Tier tier, memory::Kind kind) const {
        return arena(tier, kind, plan_[tier][kind]);
    }
    [[nodiscard]] memory::Arena arena(memory::Tier tier, memory::Kind kind, Bytes bytes) const {
        return memory::Arena(ledger().reserve(tier, kind, bytes).value(), mapping_);
    }
    /// A file of so many bytes in the disk tier; an empty directory stands for that of temporary files.
    [[nodiscard]] memory::DiskArena disk_arena(memory::Kind kind, Bytes bytes,
                                               const std::filesystem::path& directory) const {
        std::error_code none;  // then there is no such directory either
        return memory::DiskArena(ledger().reserve(memory::Tier::disk, kind, bytes).value(),
                                 directory.empty() ? std::filesystem::temp_directory_path(none) : directory);
    }
    [[nodiscard]] model::Placement placement() const noexcept { return {spec_.layers, limits_}; }
    [[nodiscard]] const model::StateGroups& groups() const noexcept { return groups_; }
    [[nodiscard]] const kv::Sequences& pages() const noexcept { return pages_; }
    /// The segments of the batch that is computed, with the pages of a group of layers.
    [[nodiscard]] std::span<const kv::Segment> segments(std::size_t group, std::size_t count) const noexcept {
        return segments_[group].first(count);
    }
    /// Counts a step that ran as captured, or one that was enqueued anew.
    void count_step(bool replayed) noexcept {
        ++(replayed ? counters_.replayed_steps : counters_.eager_steps);
    }
    /// What has come from the disk tier so far.
    void note_streamed(const model::RingCounts& counts) noexcept { counters_.streamed = counts; }
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
    [[nodiscard]] std::vector<memory::Arena> page_arenas() const {
        std::vector<memory::Arena> arenas;
        for (const memory::PoolPlan& pool : plan_.kv_pools()) {
            arenas.push_back(arena(pool.tier, memory::Kind::kv, pool.bytes()));
        }
        return arenas;
    }
    [[nodiscard]] kv::Sequences make_pages() {
        memory::Carver carver(page_tables_.bytes());
        std::vector<kv::GroupPages> made;
        std::size_t next = 0;
        const auto pool = [&](std::uint64_t count, Bytes page_bytes, kv::TieredPages* tiers = nullptr) {
            const auto free = carver.take<kv::PageIndex>(count);
            const auto holders = carver.take<kv::PagePool::Holders>(count);
            std::byte* const base = kv_[next++].data();
            return tiers != nullptr ? kv::PagePool(free, holders, *tiers, page_bytes)
                                    : kv::PagePool(free, holders, base, page_bytes);
        };
        const auto tables = [&](std::uint64_t entries) {
            const auto room = carver.take<kv::PageIndex>(limits_.batch * entries);
            table_entries_ += room.size();
            std::vector<kv::PageTable> all;
            for (std::uint32_t slot = 0; slot < limits_.batch; ++slot) {
                all.emplace_back(room.subspan(slot * entries, entries));
            }
            return all;
        };
        for (const model::StateGroup& group : groups_.all()) {
            kv::GroupPages& pages = made.emplace_back();
            pages.keeping = group.keeping;
            pages.pool = pool(group.pages, group.layout.page_bytes(),
                              tiered(made.size() - 1, kv_[next].data(), carver));
            pages.tables = tables(group.keeping.entries(limits_.context));
            if (!group.keeping.old) continue;
            const std::uint64_t entries = group.keeping.old_pages(limits_.context);
            pages.old_pool = pool(group.old_pages, group.old_layout.page_bytes());
            pages.old_tables = tables(entries);
            const std::size_t sums = group.mass().floats(group.layout);
            if (sums != 0) mass_[made.size() - 1] = carver.take<float>(limits_.batch * sums);
        }
        if (prompt_cache_.size() == 0) return kv::Sequences(std::move(made));
        const kv::PrefixCache prefixes(prompt_carver_, groups_.groups[0].pages, limits_.page_tokens,
                                       groups_.count);
        return kv::Sequences(std::move(made), prefixes);
    }

    /// What a group whose pages lie in several tiers holds beyond its first one.
    struct Spread {
        memory::Arena host, staging;
        memory::DiskArena disk;
        std::unique_ptr<kv::TieredPages> tiers;
    };
    [[nodiscard]] std::vector<Spread> spread_arenas(const engine::Options& options) {
        std::vector<Spread> made;
        for (const model::StateGroup& group : groups_.all()) {
            Spread& spread = made.emplace_back();
            if (!group.spread.spread()) continue;
            eviction_ = options.eviction;
            const memory::PoolPlan& pool = plan_.pools[made.size() - 1];  // such groups have one pool each
            spread.host = arena(memory::Tier::host, memory::Kind::kv, pool.host_bytes());
            spread.staging = arena(memory::Tier::host, memory::Kind::staging, pool.staging_bytes);
            spread.disk = disk_arena(memory::Kind::kv, pool.disk_bytes(), options.disk_directory);
            if (pool.disk_pages != 0 && transfers_ == nullptr) {
                transfers_ = std::make_unique<memory::Transfers>(2, 256);
            }
        }
        return made;
    }
    /// The places of a group's pages, of which those of the first tier are at `first`; null where that has them all.
    [[nodiscard]] kv::TieredPages* tiered(std::size_t number, std::byte* first, memory::Carver& carver) {
        const model::StateGroup& group = groups_.groups[number];
        if (!group.spread.spread()) return nullptr;
        Spread& spread = spread_[number];
        const kv::TieredPages::Parts parts{first, spread.host.data(), &spread.disk, spread.staging.data(),
                                           transfers_.get()};
        spread.tiers = std::make_unique<kv::TieredPages>(carver, group.layout, group.spread, parts, eviction_,
                                                         model::pages_of_a_step(limits_));
        return spread.tiers.get();
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
    void open_prompts(const std::filesystem::path& directory, const Identity& identity) {
        if (directory.empty() != (limits_.prompt_cache_disk == 0)) {
            throw Error(ErrorCode::usage,
                        "a prompt cache on disk needs a directory and a size; state both, or neither");
        }
        const kv::PromptLayout layout = groups_.prompt_layout(limits_);
        if (layout.file_bytes == 0) return;
        prompts_.emplace(
            pages_, limits_.context,
            ledger().reserve(memory::Tier::disk, memory::Kind::prompt_cache, layout.file_bytes).value(),
            directory, identity, layout,
            arena(memory::Tier::host, memory::Kind::staging, layout.staging_bytes()), prompt_carver_);
    }

    /// The sums of a slot by which a group finds heavy tokens; empty where it does not.
    [[nodiscard]] std::span<float> mass(std::uint32_t group, scheduler::Slot slot) const noexcept {
        const std::size_t each = mass_[group].size() / limits_.batch;
        return mass_[group].subspan(slot * each, each);
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
            if (prompts_ && pages_.has_room(demand.prompt_tokens, demand.most_tokens, adopted)) {
                adopted = prompts_->fetch(index, tokens, adopted);
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
                                   mass(g, chunk.slot).data()};
            }
            for (std::uint32_t r = 0; r < chunk.rows; ++r, ++row) {
                tokens_[row] = slot.tokens[chunk.first_position + r];
                positions_[row] = chunk.first_position + r;
                segment_of_row_[row] = i;
                if (r + chunk.outputs >= chunk.rows) output_rows_[outputs++] = row;
            }
            batch.most_rows = std::max<std::size_t>(batch.most_rows, chunk.rows);
        }
        batch.tokens = tokens_.data();
        batch.rows = {segments(0, chunks.size()), segment_of_row_.data(), positions_.data(), row};
        batch.output_rows = output_rows_.first(outputs);
        return batch;
    }

    /// Tells the ledger how many pages are in use, and known.
    void note_pages() noexcept {
        prompt_cache_.uses(pages_.prefixes().used_bytes(prompt_cache_.size()));
        std::size_t arena = 0;
        for (const kv::GroupPages& group : pages_.groups()) {
            if (const kv::TieredPages* const tiers = group.pool.tiers(); tiers != nullptr) {
                Spread& spread = spread_[arena];
                const auto [first, host, disk] = tiers->used();
                kv_[arena++].uses(first * group.pool.page_bytes());
                spread.host.uses(host * group.pool.page_bytes());
                spread.disk.uses(disk * plan_.pools[arena - 1].disk_page_bytes);
                spread.staging.uses(tiers->staging_used());
                continue;
            }
            kv_[arena++].uses(group.pool.used() * group.pool.page_bytes());
            if (group.keeping.old) kv_[arena++].uses(group.old_pool.used() * group.old_pool.page_bytes());
        }
    }
    /// Tells the ledger what a step used of each kind.
    void note_use(const model::Batch& batch) noexcept {
        note_pages();
        logits_.uses(batch.output_rows.size() * spec_.vocabulary * sizeof(float));
        std::uint64_t entries = 0;
        std::uint64_t written = 0;
        for (scheduler::Slot slot = 0; slot < slots_.size(); ++slot) {
            entries += pages_.entries(slot);
            written += slots_[slot].active ? slots_[slot].count : 0;
        }
        // The pools' own arrays are always in use, and the tables that are not full leave their rest.
        page_tables_.uses(page_tables_.size() - (table_entries_ - entries) * sizeof(kv::PageIndex));
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
                if (position + 1 == slot.count) continue_answer_or_fail(slot, row);
            }
            if (end == slot.count && slot.request.max_tokens == 0)
                ended_.push_back({chunk.slot, engine::Finish::length});
            if (use_cache_) seal(chunk.slot, chunk.first_position, end);
        }
        if (prompts_) prompts_->pump();
        scheduler_.commit();
        close_answers();
    }

    void seal(scheduler::Slot slot, std::uint32_t before, std::uint32_t computed) noexcept {
        pages_.seal(slot, slots_[slot].tokens, before, computed,
                    [this](kv::PrefixCache::Block block, std::uint32_t) noexcept {
                        if (prompts_) prompts_->add(block);
                    });
    }

    /// A request whose text finds no memory fails alone.
    void continue_answer_or_fail(Slot& slot, std::span<float> row) {
        try {
            continue_answer(slot, row);
        } catch (const std::bad_alloc&) {
            ended_.push_back({static_cast<scheduler::Slot>(&slot - slots_.data()), engine::Finish::failed});
        }
    }

    /// Chooses the token that follows the sequence, and tells it.
    void continue_answer(Slot& slot, std::span<float> row) {
        if (slot.request.max_tokens == 0) return;
        const auto index = static_cast<scheduler::Slot>(&slot - slots_.data());
        const std::span<const std::int32_t> history = slot.tokens.first(slot.count);
        sampling::TokenMask mask;
        if (slot.request.mask) mask.bits = slot.request.mask(history);
        sampling_.uses(sampling_.size());
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

    /// A step has failed, and what it wrote is worth nothing: its requests end, and their pages are free.
    void abandon(std::span<const scheduler::Chunk> chunks) noexcept {
        for (const scheduler::Chunk& chunk : chunks) release(chunk.slot);
    }

    void release(scheduler::Slot index) noexcept {
        slots_[index].active = false;
        scheduler_.finish(index);
        note_pages();
    }

    ModelSpec spec_;
    Limits limits_;
    memory::Plan plan_;
    model::StateGroups groups_;
    memory::Mapping mapping_;
    std::shared_ptr<const engine::Vocabulary> vocabulary_;
    std::vector<memory::Arena> kv_;  ///< one for each pool of the plan
    kv::Eviction eviction_ = kv::Eviction::lru;
    std::unique_ptr<memory::Transfers> transfers_;
    std::vector<Spread> spread_;  ///< one for each group
    memory::Arena logits_, sampling_, page_tables_, prompt_cache_, control_;
    memory::Carver prompt_carver_, control_carver_;
    std::uint64_t table_entries_ = 0;
    std::array<std::span<float>, model::StateGroups::most> mass_;  ///< `[group][slot * floats]`
    kv::Sequences pages_;
    scheduler::Scheduler scheduler_;
    std::optional<kv::PromptTier> prompts_;  ///< ends while pages are there
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
    engine::Counters counters_;
    std::size_t most_rows_ = 0;
    std::uint64_t most_written_ = 0;
    Bytes uncaptured_ = 0;
    RequestId next_id_ = 1;
};

}  // namespace zse::inline v1
