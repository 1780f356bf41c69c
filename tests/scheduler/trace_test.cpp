// SPDX-License-Identifier: Apache-2.0
// A trace of 10,000 requests of mixed lengths under more load than the pages hold: all end, none starves, and more run
// at once than where each gets one piece of memory for its worst case.
// rows: 33 37 91
#include <scheduler/pages.hpp>
#include <zse/scheduler/scheduler.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace zse::scheduler;
using paged::Pages;

constexpr std::uint32_t page_tokens = 16;
constexpr std::uint32_t pool_pages = 2048;
constexpr std::uint32_t pool_tokens = pool_pages * page_tokens;
constexpr std::uint32_t context = 8192;
constexpr std::uint32_t most_output = 1024;
constexpr std::uint32_t slots = 256;
constexpr std::uint32_t step_tokens = 512;
constexpr std::size_t queue = 64;  ///< requests that wait: new ones arrive as these are admitted

struct Request {
    std::uint32_t prompt = 0;
    std::uint32_t output = 0;
};

/// Lengths with medians of 256 and 128 and a standard deviation of 1 in their logarithm. The transform is written here:
/// that of the standard library may differ from one to the next.
std::vector<Request> make_trace(std::size_t count) {
    std::mt19937_64 random(20'260'412);
    const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
    const auto length = [&](double median, std::uint32_t most) {
        const double normal = std::sqrt(-2.0 * std::log(uniform())) * std::cos(6.283185307179586 * uniform());
        return static_cast<std::uint32_t>(
            std::clamp(std::round(median * std::exp(normal)), 1.0, static_cast<double>(most)));
    };
    std::vector<Request> trace(count);
    for (Request& request : trace) {
        request.prompt = length(256, context - most_output);
        request.output = length(128, most_output);
    }
    return trace;
}

/// One piece of memory for each request, in tokens: the smallest gap that is wide enough, gaps that touch are one.
class BestFit {
public:
    explicit BestFit(std::uint32_t tokens) : gaps_{{0, tokens}}, free_(tokens) {}

    std::optional<std::uint32_t> take(std::uint32_t tokens) {
        auto best = gaps_.end();
        for (auto gap = gaps_.begin(); gap != gaps_.end(); ++gap) {
            if (gap->second >= tokens && (best == gaps_.end() || gap->second < best->second)) best = gap;
        }
        if (best == gaps_.end()) return std::nullopt;
        const auto [offset, size] = *best;
        gaps_.erase(best);
        if (size > tokens) gaps_[offset + tokens] = size - tokens;
        free_ -= tokens;
        return offset;
    }
    void give_back(std::uint32_t offset, std::uint32_t tokens) {
        free_ += tokens;
        auto after = gaps_.lower_bound(offset);
        if (after != gaps_.end() && after->first == offset + tokens) {
            tokens += after->second;
            after = gaps_.erase(after);
        }
        if (after != gaps_.begin()) {
            const auto before = std::prev(after);
            if (before->first + before->second == offset) {
                before->second += tokens;
                return;
            }
        }
        gaps_[offset] = tokens;
    }
    [[nodiscard]] std::uint32_t free() const { return free_; }
    [[nodiscard]] std::uint32_t largest() const {
        std::uint32_t most = 0;
        for (const auto& [offset, size] : gaps_) most = std::max(most, size);
        return most;
    }
    [[nodiscard]] std::size_t gaps() const { return gaps_.size(); }

private:
    std::map<std::uint32_t, std::uint32_t> gaps_;  // offset -> size
    std::uint32_t free_;
};

TEST(BestFit, TakesTheSmallestGapAndJoinsThoseThatTouch) {
    BestFit memory(100);
    EXPECT_EQ(memory.take(30), 0u);
    EXPECT_EQ(memory.take(10), 30u);
    EXPECT_EQ(memory.take(20), 40u);
    EXPECT_EQ(memory.take(5), 60u);
    memory.give_back(0, 30);
    memory.give_back(40, 20);
    EXPECT_EQ(memory.gaps(), 3u);  // 0 to 30, 40 to 60, 65 to 100
    EXPECT_EQ(memory.take(15), 40u);
    EXPECT_EQ(memory.take(36), std::nullopt) << "70 are free, 35 together";
    EXPECT_EQ(memory.free(), 70u);
    EXPECT_EQ(memory.largest(), 35u);
    memory.give_back(30, 10);
    EXPECT_EQ(memory.largest(), 40u) << "with the gap before it";
    memory.give_back(40, 15);
    EXPECT_EQ(memory.largest(), 60u) << "with those on both sides";
    memory.give_back(60, 5);
    EXPECT_EQ(memory.gaps(), 1u);
    EXPECT_EQ(memory.free(), 100u);
}

/// Averages over the steps in which requests wait.
struct Measured {
    std::uint64_t steps = 0;
    double running = 0;  ///< sequences that have memory
    double unused = 0;   ///< share of the memory in use that holds no token
    double external =
        0;  ///< share of the free memory that the largest request which it could hold does not get
    std::uint64_t preempted = 0;
    std::uint64_t longest_pause =
        0;  ///< steps, one after the other, in which an admitted sequence got no row
};

/// What admits requests and measures memory; the rest of a step is the same for all.
class Replay {
public:
    Replay(const std::vector<Request>& trace, Admission admission, std::uint32_t pages,
           std::uint64_t most_tokens)
        : trace_(trace),
          admission_(admission),
          pages_({{paged::all_tokens(page_tokens), pages}}, slots + 1, most_tokens),
          scheduler_({slots, step_tokens, slots, 0, admission}, pages_.sequences),
          sequences_(trace.size()) {}
    virtual ~Replay() = default;
    Replay(const Replay&) = delete;
    Replay& operator=(const Replay&) = delete;

    Measured run() {
        Measured total;
        std::uint64_t waited = 0;
        std::size_t ended = 0;
        while (ended < trace_.size()) {
            arrive();
            scheduler_.admit([&](Slot slot, const Demand& demand) { begin(slot, demand.id); });
            const auto planned = scheduler_.next();
            EXPECT_FALSE(planned.empty()) << "nothing goes on";
            if (planned.empty()) return total;
            const std::vector<Chunk> chunks(planned.begin(), planned.end());
            check(chunks);
            ++total.steps;
            if (waiting() > 0) {
                ++waited;
                std::uint64_t with_memory = 0;
                for (const std::uint64_t id : order_)
                    with_memory += scheduler_.paused(sequences_[id].slot) ? 0 : 1;
                total.running += static_cast<double>(with_memory);
                measure(total);
            }
            scheduler_.commit();
            for (const Chunk& chunk : chunks) {
                Sequence& s = sequences_[chunk.id];
                total.longest_pause = std::max(total.longest_pause, step_ - s.last_step - 1);
                s.last_step = step_;
                if (chunk.outputs == 0) continue;
                if (++s.outputs == trace_[chunk.id].output) {
                    end(chunk.id);
                    ++ended;
                } else {
                    scheduler_.grow(chunk.slot);
                }
            }
            ++step_;
            if (testing::Test::HasFailure()) return total;
        }
        EXPECT_TRUE(scheduler_.idle());
        EXPECT_EQ(pages_.sequences.used(), 0u) << "a page is lost";
        EXPECT_EQ(scheduler_.counts().admitted, trace_.size());
        for (std::size_t id = 0; id < trace_.size(); ++id)
            EXPECT_EQ(sequences_[id].outputs, trace_[id].output);
        total.preempted = scheduler_.counts().preempted;
        for (double* average : {&total.running, &total.unused, &total.external})
            *average /= static_cast<double>(waited);
        return total;
    }

protected:
    struct Sequence {
        Slot slot = 0;
        std::uint32_t outputs = 0;
        std::uint64_t last_step = 0;
        std::uint64_t last_allowed = 0;  ///< the step by which it has to end
    };

    virtual void arrive() = 0;
    [[nodiscard]] virtual std::size_t waiting() const = 0;
    virtual void measure(Measured& total) = 0;
    virtual void released(std::size_t /*id*/) {}

    void submit(std::size_t id) {
        const Request& request = trace_[id];
        ASSERT_TRUE(pages_.sequences.could_hold(request.prompt + most_output));
        scheduler_.submit({id, request.prompt, request.prompt + most_output});
    }
    [[nodiscard]] std::uint32_t length(std::uint64_t id) const {
        return trace_[id].prompt + sequences_[id].outputs;
    }

    const std::vector<Request>& trace_;
    Admission admission_;
    Pages pages_;
    Scheduler scheduler_;
    std::vector<Sequence> sequences_;
    std::vector<std::uint64_t> order_;  ///< requests that are admitted, in order

private:
    /// Steps of a sequence that is the oldest: while it is computed anew it gets all rows but those of at most
    /// `slots` - 1 others that generate, and then one row in each step.
    [[nodiscard]] std::uint64_t steps_alone(std::uint64_t id) const {
        const std::uint64_t tokens = trace_[id].prompt + trace_[id].output;
        return (tokens + step_tokens - slots) / (step_tokens - slots + 1) + trace_[id].output;
    }
    void begin(Slot slot, std::uint64_t id) {
        EXPECT_EQ(id, admitted_++) << "somebody was overtaken";
        // The oldest is never preempted and has rows in every step. So a request waits, at worst, until each of those
        // before it was the oldest and ended.
        std::uint64_t before = 0;
        for (const std::uint64_t older : order_) before += steps_alone(older);
        sequences_[id] = {slot, 0, step_ - 1, step_ + before + steps_alone(id)};
        order_.push_back(id);
    }
    void end(std::uint64_t id) {
        EXPECT_LE(step_, sequences_[id].last_allowed) << "request " << id << " starved";
        scheduler_.finish(sequences_[id].slot);
        released(id);
        order_.erase(std::find(order_.begin(), order_.end(), id));
    }
    void check(const std::vector<Chunk>& chunks) {
        EXPECT_FALSE(scheduler_.paused(sequences_[order_.front()].slot)) << "the oldest gave up its pages";
        std::uint32_t rows = 0;
        bool oldest = false;
        for (const Chunk& chunk : chunks) {
            rows += chunk.rows;
            oldest = oldest || chunk.id == order_.front();
            EXPECT_EQ(sequences_[chunk.id].slot, chunk.slot);
        }
        EXPECT_TRUE(oldest) << "the oldest stood still";
        EXPECT_LE(rows, step_tokens);
        std::uint64_t held = 0;
        for (const std::uint64_t id : order_) {
            const std::uint64_t entries = pages_.sequences.entries(sequences_[id].slot);
            held += entries;
            const std::uint32_t tokens =
                admission_ == Admission::reserve ? trace_[id].prompt + most_output : length(id);
            EXPECT_LE(entries * page_tokens, tokens + page_tokens - 1) << "a page and more beyond its tokens";
        }
        EXPECT_EQ(pages_.sequences.used(), held);
        EXPECT_LE(held, pages_.sequences.capacity());
    }

    std::uint64_t step_ = 1;
    std::uint64_t admitted_ = 0;
};

/// Pages: whatever the scheduler admits.
class Paged : public Replay {
public:
    Paged(const std::vector<Request>& trace, Admission admission)
        : Replay(trace, admission, pool_pages, pool_tokens) {}

private:
    void arrive() override {
        while (scheduler_.waiting() < queue && arrived_ < trace_.size()) submit(arrived_++);
    }
    [[nodiscard]] std::size_t waiting() const override { return scheduler_.waiting(); }
    void measure(Measured& total) override {
        std::uint64_t tokens = 0;
        for (const std::uint64_t id : order_) tokens += scheduler_.computed(sequences_[id].slot);
        total.unused +=
            1.0 - static_cast<double>(tokens) / static_cast<double>(pages_.sequences.used() * page_tokens);
        // The largest request that free memory could hold, asked for: a slot is kept for it.
        const std::uint64_t free = pool_pages - pages_.sequences.used();
        std::uint64_t got = free;
        while (got > 0 && !pages_.sequences.reserve(slots, 0, got * page_tokens)) --got;
        pages_.sequences.release(slots);
        if (free > 0) total.external += 1.0 - static_cast<double>(got) / static_cast<double>(free);
    }

    std::size_t arrived_ = 0;
};

/// One piece of memory for each request and its longest answer; the next one waits for one that is wide enough.
class Contiguous : public Replay {
public:
    explicit Contiguous(const std::vector<Request>& trace)
        : Replay(trace, Admission::prompt, slots * context / page_tokens, context),
          memory_(pool_tokens),
          offsets_(trace.size()) {}

    [[nodiscard]] const BestFit& memory() const { return memory_; }

private:
    [[nodiscard]] std::uint32_t tokens(std::size_t id) const { return trace_[id].prompt + most_output; }
    void arrive() override {
        while (begun_ < trace_.size() && order_.size() + scheduler_.waiting() < slots) {
            const auto offset = memory_.take(tokens(begun_));
            if (!offset) return;
            offsets_[begun_] = *offset;
            submit(begun_++);
        }
    }
    [[nodiscard]] std::size_t waiting() const override { return trace_.size() - begun_; }
    void released(std::size_t id) override { memory_.give_back(offsets_[id], tokens(id)); }
    void measure(Measured& total) override {
        std::uint64_t used = 0;
        for (const std::uint64_t id : order_) used += scheduler_.computed(sequences_[id].slot);
        total.unused += 1.0 - static_cast<double>(used) / static_cast<double>(pool_tokens - memory_.free());
        if (memory_.free() > 0) {
            total.external +=
                1.0 - static_cast<double>(memory_.largest()) / static_cast<double>(memory_.free());
        }
    }

    BestFit memory_;
    std::vector<std::uint32_t> offsets_;
    std::size_t begun_ = 0;
};

void record(const std::string& name, const Measured& measured) {
    testing::Test::RecordProperty(name + "_steps", std::to_string(measured.steps));
    testing::Test::RecordProperty(name + "_running", std::to_string(measured.running));
    testing::Test::RecordProperty(name + "_unused", std::to_string(measured.unused));
    testing::Test::RecordProperty(name + "_external_fragmentation", std::to_string(measured.external));
    testing::Test::RecordProperty(name + "_preempted", std::to_string(measured.preempted));
    std::cout << name << ": " << measured.steps << " steps, " << measured.running << " sequences at once, "
              << 100 * measured.unused << " % of the memory in use holds no token, "
              << 100 * measured.external << " % of free memory is out of reach, " << measured.preempted
              << " preemptions, longest pause " << measured.longest_pause << " steps\n";
}

TEST(Trace, HasTheLengthsThatItShould) {
    std::vector<Request> trace = make_trace(10'000);
    std::vector<std::uint32_t> prompts, outputs;
    for (const Request& request : trace) {
        prompts.push_back(request.prompt);
        outputs.push_back(request.output);
    }
    std::sort(prompts.begin(), prompts.end());
    std::sort(outputs.begin(), outputs.end());
    // Medians, and what lies one standard deviation above them: a factor of e.
    EXPECT_NEAR(prompts[5000], 256, 10);
    EXPECT_NEAR(prompts[8413], 256 * 2.718, 40);
    EXPECT_NEAR(outputs[5000], 128, 5);
    EXPECT_NEAR(outputs[1587], 128 / 2.718, 3);
    EXPECT_LE(prompts.back(), context - most_output);
    EXPECT_EQ(outputs.back(), most_output) << "some are cut short";
}

TEST(Trace, TenThousandRequestsEndAndMoreRunAtOnceThanInPiecesOfOneSize) {
    const std::vector<Request> trace = make_trace(10'000);
    const Measured paged = Paged(trace, Admission::prompt).run();
    record("paged", paged);
    ASSERT_FALSE(HasFailure());
    EXPECT_GT(paged.preempted, 0u) << "the pages were never short";
    EXPECT_EQ(paged.external, 0.0);

    Contiguous contiguous(trace);
    const Measured pieces = contiguous.run();
    record("contiguous", pieces);
    ASSERT_FALSE(HasFailure());
    EXPECT_EQ(contiguous.memory().free(), pool_tokens);
    EXPECT_EQ(contiguous.memory().gaps(), 1u);
    EXPECT_GT(pieces.external, 0.0) << "memory between pieces is always lost";

    EXPECT_GE(paged.running, 1.6 * pieces.running);
    EXPECT_LT(paged.steps, pieces.steps) << "so the trace ends sooner";
    EXPECT_LT(paged.unused, pieces.unused);
    RecordProperty("times_as_many_running", std::to_string(paged.running / pieces.running));
}

TEST(Trace, NothingIsPreemptedWhereTheWorstCaseIsReserved) {
    const std::vector<Request> trace = make_trace(10'000);
    const Measured reserved = Paged(trace, Admission::reserve).run();
    record("reserved", reserved);
    ASSERT_FALSE(HasFailure());
    EXPECT_EQ(reserved.preempted, 0u);
    EXPECT_EQ(reserved.external, 0.0);
    // The same promise as that of contiguous pieces, without what is lost between them.
    const Measured pieces = Contiguous(trace).run();
    EXPECT_GT(reserved.running, pieces.running);
}

}  // namespace
