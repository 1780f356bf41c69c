// SPDX-License-Identifier: Apache-2.0
// The scheduler by simulation: thousands of requests, no model.
// rows: 61
#include <gtest/gtest.h>

#include <zse/scheduler/scheduler.hpp>

#include <map>
#include <random>

namespace {

using namespace zse::scheduler;

/// What a perfect bookkeeper knows of a running sequence.
struct Sequence {
    RequestId id = 0;
    std::uint32_t prompt = 0;
    std::uint32_t length = 0;
    std::uint32_t computed = 0;
    std::uint32_t target = 0;
    bool all = false;
};

struct Load {
    std::uint32_t slots, tokens, outputs, requests;
};

class Simulation : public testing::TestWithParam<Load> {};

TEST_P(Simulation, EveryRequestIsServedWithinTheBudget) {
    const Load load = GetParam();
    std::mt19937 random(load.slots * 1000 + load.tokens);
    const auto number = [&](std::uint32_t low, std::uint32_t high) {
        return low + static_cast<std::uint32_t>(random() % (high - low + 1));
    };
    Scheduler scheduler({load.slots, load.tokens, load.outputs});
    std::map<RequestId, Sequence> known;
    std::map<Slot, Sequence> running;
    RequestId next_id = 1;
    RequestId last_admitted = 0;
    std::size_t finished = 0;
    std::uint64_t steps = 0;
    std::uint64_t rows = 0;
    while (finished < load.requests) {
        while (next_id <= load.requests && number(0, 2) == 0) {
            Sequence s;
            s.id = next_id;
            s.prompt = s.length = number(1, number(0, 9) == 0 ? 3000 : 60);
            s.target = s.prompt + number(0, 40);
            s.all = number(0, 9) == 0;
            known[next_id] = s;
            scheduler.submit({next_id, s.prompt, s.all});
            ++next_id;
        }
        scheduler.admit([&](Slot slot, const Demand& demand) {
            EXPECT_EQ(running.count(slot), 0u);
            EXPECT_GT(demand.id, last_admitted) << "out of order";
            last_admitted = demand.id;
            running[slot] = known.at(demand.id);
        });
        ASSERT_LE(running.size(), load.slots);
        const auto chunks = scheduler.next();
        if (running.empty()) {
            ASSERT_TRUE(chunks.empty());
            continue;
        }
        ASSERT_FALSE(chunks.empty()) << "work, but no step";
        std::uint32_t tokens = 0;
        std::uint32_t outputs = 0;
        std::map<Slot, int> seen;
        for (const Chunk& chunk : chunks) {
            ASSERT_EQ(running.count(chunk.slot), 1u);
            Sequence& s = running[chunk.slot];
            ASSERT_EQ(++seen[chunk.slot], 1) << "a sequence twice in a step";
            ASSERT_EQ(chunk.id, s.id);
            ASSERT_EQ(chunk.first_position, s.computed);
            ASSERT_GT(chunk.rows, 0u);
            ASSERT_LE(s.computed + chunk.rows, s.length);
            const bool whole = s.computed + chunk.rows == s.length;
            ASSERT_EQ(chunk.outputs, s.all && s.computed < s.prompt ? chunk.rows : (whole ? 1u : 0u));
            tokens += chunk.rows;
            outputs += chunk.outputs;
        }
        ASSERT_LE(tokens, load.tokens);
        ASSERT_LE(outputs, load.outputs);
        // Whoever generates is in every step, where the rows of logits suffice for all.
        if (load.outputs >= load.slots && load.tokens >= load.slots) {
            for (const auto& [slot, s] : running) {
                EXPECT_TRUE(s.computed < s.prompt || seen.count(slot) == 1) << "starved";
            }
        }
        std::vector<Chunk> done(chunks.begin(), chunks.end());
        scheduler.commit();
        ++steps;
        rows += tokens;
        for (const Chunk& chunk : done) {
            Sequence& s = running[chunk.slot];
            s.computed += chunk.rows;
            if (s.computed < s.length) continue;
            if (s.length < s.target) {
                ++s.length;
                scheduler.grow(chunk.slot);
            } else {
                scheduler.finish(chunk.slot);
                running.erase(chunk.slot);
                ++finished;
            }
        }
        ASSERT_LT(steps, 10'000'000u);
    }
    EXPECT_TRUE(scheduler.idle());
    std::uint64_t expected = 0;  // each token is computed once
    for (const auto& [id, s] : known) expected += s.target;
    EXPECT_EQ(rows, expected);
}

INSTANTIATE_TEST_SUITE_P(Loads, Simulation,
                         testing::Values(Load{1, 1, 1, 100}, Load{1, 512, 1, 300}, Load{8, 64, 8, 2000},
                                         Load{64, 256, 64, 3000}, Load{16, 16, 16, 1000},
                                         Load{4, 128, 32, 1000}));

TEST(Scheduler, AWaitingRequestCanBeWithdrawn) {
    Scheduler scheduler({1, 16, 1});
    scheduler.submit({1, 5, false});
    scheduler.submit({2, 5, false});
    EXPECT_TRUE(scheduler.withdraw(1));
    EXPECT_FALSE(scheduler.withdraw(1));
    std::vector<RequestId> admitted;
    scheduler.admit([&](Slot, const Demand& demand) { admitted.push_back(demand.id); });
    EXPECT_EQ(admitted, std::vector<RequestId>{2});
    EXPECT_FALSE(scheduler.withdraw(2)) << "it runs";
}

TEST(Scheduler, ALongPromptIsCutIntoChunksOfTheBudget) {
    Scheduler scheduler({1, 256, 1});
    scheduler.submit({1, 10'000, false});
    scheduler.admit([](Slot, const Demand&) {});
    std::uint32_t computed = 0;
    while (computed < 10'000) {
        const auto chunks = scheduler.next();
        ASSERT_EQ(chunks.size(), 1u);
        EXPECT_EQ(chunks[0].rows, std::min(256u, 10'000 - computed));
        EXPECT_EQ(chunks[0].outputs, computed + chunks[0].rows == 10'000 ? 1u : 0u);
        computed += chunks[0].rows;
        scheduler.commit();
    }
}

}  // namespace
