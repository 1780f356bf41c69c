// SPDX-License-Identifier: Apache-2.0
// The scheduler by simulation: thousands of requests, no model; with pages in plenty and too few, forked and
// cancelled.
// rows: 61 91
#include <scheduler/pages.hpp>
#include <zse/scheduler/scheduler.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <random>
#include <vector>

namespace {

using namespace zse::scheduler;
using paged::Pages;

/// What a perfect bookkeeper knows of a running sequence.
struct Sequence {
    RequestId id = 0;
    std::uint32_t prompt = 0;
    std::uint32_t length = 0;
    std::uint32_t computed = 0;
    std::uint32_t known = 0;  ///< tokens that were computed once
    std::uint32_t target = 0;
    bool all = false;
    bool paused = false;
    std::uint64_t order = 0;  ///< of admission
};

struct Load {
    std::uint32_t slots, tokens, outputs, requests;
    std::uint32_t pages = 100'000;  ///< of 16 tokens
    std::uint32_t cut = 0;
    Admission admission = Admission::prompt;
    bool disturbed = false;  ///< requests are forked and cancelled
};

class Simulation : public testing::TestWithParam<Load> {};

TEST_P(Simulation, EveryRequestIsServedWithinTheBudget) {
    const Load load = GetParam();
    std::mt19937 random(load.slots * 1000 + load.tokens);
    const auto number = [&](std::uint32_t low, std::uint32_t high) {
        return low + static_cast<std::uint32_t>(random() % (high - low + 1));
    };
    // A second group drops tokens where chunks are cut: 4 sinks, and 128 tokens before the stretch.
    std::vector<paged::Group> groups{{paged::all_tokens(), load.pages}};
    if (load.cut != 0)
        groups.push_back(
            {{.page_tokens = 16, .sinks = 4, .recent = 128, .cut = load.cut, .step_tokens = load.tokens},
             load.pages});
    Pages pages(groups, load.slots, 3100);
    Scheduler scheduler({load.slots, load.tokens, load.outputs, load.cut, load.admission}, pages.sequences);
    std::map<RequestId, Sequence> known;
    std::map<Slot, Sequence> running;
    RequestId next_id = 1;
    std::uint32_t submitted = 0;
    RequestId last_admitted = 0;
    std::uint64_t admissions = 0;
    std::size_t finished = 0;
    std::uint64_t steps = 0;
    std::uint64_t rows = 0;
    std::uint64_t expected_rows = 0;  // each token is computed once, and again after a preemption
    std::uint64_t recomputed = 0;
    std::uint64_t preempted = 0;
    std::uint64_t forks = 0;
    std::uint64_t cancelled = 0;
    std::uint32_t most_running = 0;
    const auto count_running = [&] {
        const auto with_pages = std::count_if(
            running.begin(), running.end(), [&](const auto& each) { return !scheduler.paused(each.first); });
        most_running = std::max(most_running, static_cast<std::uint32_t>(with_pages));
    };
    const auto end = [&](Slot slot) {
        expected_rows += running[slot].known;
        scheduler.finish(slot);
        running.erase(slot);
        ++finished;
    };
    while (finished < submitted || submitted < load.requests) {
        while (submitted < load.requests && number(0, 2) == 0) {
            Sequence s;
            s.id = next_id++;
            s.prompt = s.length = number(1, number(0, 9) == 0 ? 3000 : 60);
            s.target = s.prompt + number(0, 40);
            s.all = number(0, 9) == 0;
            known[s.id] = s;
            ASSERT_TRUE(pages.sequences.could_hold(s.target));
            scheduler.submit({s.id, s.prompt, s.target, s.all});
            ++submitted;
        }
        if (load.disturbed && number(0, 30) == 0 && scheduler.waiting() > 0) {
            const RequestId victim =
                last_admitted + number(1, static_cast<std::uint32_t>(next_id - last_admitted));
            if (scheduler.withdraw(victim)) ++cancelled, ++finished;
        }
        if (load.disturbed && !running.empty() && number(0, 10) == 0) {
            auto chosen = running.begin();
            std::advance(chosen, number(0, static_cast<std::uint32_t>(running.size() - 1)));
            if (number(0, 2) == 0) {
                ++cancelled;
                end(chosen->first);
            } else {
                Sequence s = chosen->second;
                s.id = next_id++;
                s.target = std::max(s.length, s.target - number(0, 5));
                const auto slot = scheduler.fork(chosen->first, {s.id, s.prompt, s.target, s.all});
                if (slot) {
                    ASSERT_EQ(running.count(*slot), 0u);
                    ASSERT_EQ(scheduler.paused(*slot), s.paused);
                    s.order = ++admissions;
                    expected_rows -= s.known;  // its origin computed them
                    running[*slot] = s;
                    count_running();
                    ++submitted;
                    ++forks;
                }
            }
        }
        const std::size_t before = running.size();
        scheduler.admit([&](Slot slot, const Demand& demand) {
            EXPECT_EQ(running.count(slot), 0u);
            EXPECT_GT(demand.id, last_admitted) << "out of order";
            last_admitted = demand.id;
            for (const auto& [other, s] : running)
                EXPECT_FALSE(scheduler.paused(other)) << "before it went on";
            running[slot] = known.at(demand.id);
            running[slot].order = ++admissions;
        });
        count_running();
        ASSERT_LE(running.size(), load.slots);
        ASSERT_EQ(scheduler.running(), running.size());
        for (auto& [slot, s] : running) s.paused = scheduler.paused(slot);
        const auto chunks = scheduler.next();
        for (auto& [slot, s] : running) {
            if (!scheduler.paused(slot) || s.paused) continue;
            s.paused = true;
            ++preempted;
            s.computed = 0;
            s.prompt = s.length;
            if (load.disturbed) continue;  // a fork stands behind those that wait
            for (const auto& [other, o] : running) {
                EXPECT_TRUE(o.order <= s.order || scheduler.paused(other)) << "a later one kept its pages";
            }
        }
        if (running.empty()) {
            ASSERT_TRUE(chunks.empty());
            ASSERT_EQ(pages.sequences.used(), 0u);
            continue;
        }
        ASSERT_FALSE(chunks.empty()) << "work, but no step; " << before << " before";
        std::uint32_t tokens = 0;
        std::uint32_t outputs = 0;
        std::map<Slot, int> seen;
        for (const Chunk& chunk : chunks) {
            ASSERT_EQ(running.count(chunk.slot), 1u);
            Sequence& s = running[chunk.slot];
            ASSERT_FALSE(s.paused);
            ASSERT_EQ(++seen[chunk.slot], 1) << "a sequence twice in a step";
            ASSERT_EQ(chunk.id, s.id);
            ASSERT_EQ(chunk.first_position, s.computed);
            ASSERT_GT(chunk.rows, 0u);
            ASSERT_LE(s.computed + chunk.rows, s.length);
            const bool whole = s.computed + chunk.rows == s.length;
            ASSERT_EQ(chunk.outputs, s.all && s.computed < s.prompt ? chunk.rows : (whole ? 1u : 0u));
            if (load.cut != 0) {
                ASSERT_EQ(s.computed / load.cut, (s.computed + chunk.rows - 1) / load.cut)
                    << "a chunk crosses a cut";
            }
            for (const auto& group : pages.sequences.groups()) {
                ASSERT_GE(group.tables[chunk.slot].size() * 16, s.computed + chunk.rows)
                    << "rows without pages";
            }
            tokens += chunk.rows;
            outputs += chunk.outputs;
        }
        ASSERT_LE(tokens, load.tokens);
        ASSERT_LE(outputs, load.outputs);
        // Whoever generates is in every step, where the rows of logits suffice for all.
        if (load.outputs >= load.slots && load.tokens >= load.slots) {
            for (const auto& [slot, s] : running) {
                EXPECT_TRUE(s.paused || s.computed < s.prompt || seen.count(slot) == 1) << "starved";
            }
        }
        std::vector<Chunk> done(chunks.begin(), chunks.end());
        scheduler.commit();
        ++steps;
        rows += tokens;
        for (const Chunk& chunk : done) {
            Sequence& s = running[chunk.slot];
            recomputed += std::min(chunk.rows, s.known - std::min(s.known, s.computed));
            s.computed += chunk.rows;
            s.known = std::max(s.known, s.computed);
            ASSERT_EQ(scheduler.computed(chunk.slot), s.computed);
            if (s.computed < s.length) continue;
            if (s.length < s.target) {
                ++s.length;
                scheduler.grow(chunk.slot);
            } else {
                end(chunk.slot);
            }
        }
        ASSERT_LT(steps, 10'000'000u);
    }
    EXPECT_TRUE(scheduler.idle());
    EXPECT_EQ(pages.sequences.used(), 0u);
    EXPECT_EQ(rows, expected_rows + recomputed);
    EXPECT_EQ(scheduler.counts().recomputed_rows, recomputed);
    EXPECT_EQ(scheduler.counts().preempted, preempted);
    EXPECT_EQ(scheduler.counts().admitted, admissions);
    EXPECT_EQ(scheduler.counts().most_running, most_running);
    EXPECT_EQ(preempted > 0, load.pages < 1000 && load.admission == Admission::prompt);
    if (load.disturbed) {
        EXPECT_GT(forks, 20u);
        EXPECT_GT(cancelled, 20u);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Loads, Simulation,
    testing::Values(Load{1, 1, 1, 100}, Load{1, 512, 1, 300}, Load{8, 64, 8, 2000}, Load{64, 256, 64, 3000},
                    Load{16, 16, 16, 1000}, Load{4, 128, 32, 1000},
                    // Pages for one long sequence and a few short ones: the longest has 190.
                    Load{32, 256, 32, 3000, 200}, Load{8, 64, 8, 2000, 200, 256},
                    Load{16, 512, 3, 1000, 192, 64}, Load{32, 256, 32, 2000, 200, 0, Admission::reserve},
                    Load{16, 128, 16, 3000, 200, 0, Admission::prompt, true},
                    Load{8, 128, 8, 2000, 192, 64, Admission::prompt, true}));

}  // namespace
