// SPDX-License-Identifier: Apache-2.0
// The decisions of the scheduler one by one: who enters, who gives up pages, who goes on.
// rows: 91
#include <scheduler/pages.hpp>
#include <zse/scheduler/scheduler.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <vector>

namespace {

using namespace zse::scheduler;
using paged::Pages;

constexpr auto ignore = [](Slot, const Demand&) {};

/// Computes the next step and lets every sequence whose tokens are computed grow by one.
std::vector<Chunk> step(Scheduler& scheduler) {
    const auto chunks = scheduler.next();
    std::vector<Chunk> done(chunks.begin(), chunks.end());
    scheduler.commit();
    for (const Chunk& chunk : done) {
        if (chunk.outputs > 0) scheduler.grow(chunk.slot);
    }
    return done;
}

TEST(Scheduler, AWaitingRequestCanBeWithdrawn) {
    Pages pages(10, 1, 100);
    Scheduler scheduler({1, 16, 1}, pages.sequences);
    scheduler.submit({1, 5, 6});
    scheduler.submit({2, 5, 6});
    EXPECT_TRUE(scheduler.withdraw(1));
    EXPECT_FALSE(scheduler.withdraw(1));
    std::vector<RequestId> admitted;
    scheduler.admit([&](Slot, const Demand& demand) { admitted.push_back(demand.id); });
    EXPECT_EQ(admitted, std::vector<RequestId>{2});
    EXPECT_FALSE(scheduler.withdraw(2)) << "it runs";
}

TEST(Scheduler, ALongPromptIsCutIntoChunksOfTheBudget) {
    Pages pages(1000, 1, 10'000);
    Scheduler scheduler({1, 256, 1}, pages.sequences);
    scheduler.submit({1, 10'000, 10'000});
    scheduler.admit(ignore);
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

TEST(Scheduler, NoChunkCrossesACut) {
    Pages pages(1000, 2, 1000);
    Scheduler scheduler({2, 300, 2, 256}, pages.sequences);
    scheduler.submit({1, 700, 700});
    scheduler.submit({2, 300, 300});
    scheduler.admit(ignore);
    std::vector<std::pair<std::uint32_t, std::uint32_t>> first, second;  // position and rows
    for (int i = 0; i < 4; ++i) {
        for (const Chunk& chunk : step(scheduler)) {
            (chunk.id == 1 ? first : second).emplace_back(chunk.first_position, chunk.rows);
        }
    }
    using Rows = std::vector<std::pair<std::uint32_t, std::uint32_t>>;
    EXPECT_EQ(first, (Rows{{0, 256}, {256, 256}, {512, 188}, {700, 1}}));
    EXPECT_EQ(second, (Rows{{0, 44}, {44, 44}, {88, 112}, {200, 56}}));
}

TEST(Scheduler, ARequestEntersOnceItsPromptAndOnePageAreFree) {
    Pages pages(4, 4, 64);
    Scheduler scheduler({4, 64, 4}, pages.sequences);
    scheduler.submit({1, 16, 64});
    scheduler.submit({2, 17, 64});
    scheduler.submit({3, 1, 17});
    std::vector<RequestId> admitted;
    const auto note = [&](Slot, const Demand& demand) { admitted.push_back(demand.id); };
    scheduler.admit(note);
    EXPECT_EQ(admitted, (std::vector<RequestId>{1, 2})) << "one page and one more, two and one more";
    EXPECT_EQ(pages.sequences.used(), 3u) << "the one more is nobody's";
    EXPECT_EQ(scheduler.counts().most_running, 2u);
    ASSERT_TRUE(scheduler.withdraw(3));
    scheduler.submit({4, 1, 16});
    scheduler.admit(note);
    EXPECT_EQ(admitted.back(), 4u) << "one page is all that it will ever need";
    EXPECT_EQ(pages.sequences.used(), 4u);
    EXPECT_EQ(scheduler.counts().most_running, 3u);
}

TEST(Scheduler, ALaterRequestNeverOvertakesOneThatWaitsForPages) {
    Pages pages(4, 4, 64);
    Scheduler scheduler({4, 64, 4}, pages.sequences);
    scheduler.submit({1, 20, 30});
    scheduler.submit({2, 33, 64});  // three pages and one more
    scheduler.submit({3, 1, 2});
    std::vector<RequestId> admitted;
    const auto note = [&](Slot, const Demand& demand) { admitted.push_back(demand.id); };
    scheduler.admit(note);
    EXPECT_EQ(admitted, (std::vector<RequestId>{1}));
    EXPECT_EQ(scheduler.waiting(), 2u);
    scheduler.finish(0);
    scheduler.admit(note);
    EXPECT_EQ(admitted, (std::vector<RequestId>{1, 2, 3}));
}

TEST(Scheduler, WhatIsReservedIsNeverPreempted) {
    Pages pages(8, 4, 64);
    Scheduler scheduler({4, 64, 4, 0, Admission::reserve}, pages.sequences);
    for (RequestId id = 1; id <= 3; ++id) scheduler.submit({id, 16, 64});
    scheduler.admit(ignore);
    EXPECT_EQ(scheduler.running(), 2u) << "four pages each";
    EXPECT_EQ(pages.sequences.used(), 8u);
    for (int i = 0; i < 49; ++i) EXPECT_EQ(step(scheduler).size(), 2u);
    EXPECT_EQ(scheduler.computed(0), 64u);
    EXPECT_EQ(pages.sequences.used(), 8u);
    EXPECT_EQ(scheduler.counts().preempted, 0u);
    scheduler.finish(0);
    scheduler.admit(ignore);
    EXPECT_EQ(scheduler.running(), 2u);
    EXPECT_EQ(scheduler.waiting(), 0u);
}

TEST(Scheduler, TheLatestGivesUpItsPagesAndGoesOnBeforeAnythingNew) {
    Pages pages(4, 4, 64);
    Scheduler scheduler({4, 64, 4}, pages.sequences);
    scheduler.submit({1, 16, 64});
    scheduler.submit({2, 16, 64});
    scheduler.admit(ignore);
    scheduler.submit({3, 15, 16});
    step(scheduler);  // both prompts: 16 of 16 slots of a page each
    EXPECT_EQ(step(scheduler).size(), 2u) << "a second page for each";
    scheduler.admit(ignore);
    EXPECT_EQ(scheduler.waiting(), 1u) << "no page is free";
    for (int i = 0; i < 15; ++i) step(scheduler);
    EXPECT_EQ(scheduler.computed(0), 32u);
    EXPECT_EQ(scheduler.computed(1), 32u);
    const std::vector<Chunk> alone = step(scheduler);
    ASSERT_EQ(alone.size(), 1u);
    EXPECT_EQ(alone[0].id, 1u);
    EXPECT_FALSE(scheduler.paused(0));
    EXPECT_TRUE(scheduler.paused(1));
    EXPECT_EQ(scheduler.computed(1), 0u);
    EXPECT_EQ(scheduler.running(), 2u) << "it keeps its slot";
    EXPECT_EQ(pages.sequences.used(), 3u);
    EXPECT_EQ(scheduler.counts().preempted, 1u);
    // One page is free, in which request 3 would fit; request 2 was first, and needs three and one more.
    std::vector<RequestId> admitted;
    const auto note = [&](Slot, const Demand& demand) { admitted.push_back(demand.id); };
    scheduler.admit(note);
    EXPECT_TRUE(admitted.empty());
    EXPECT_TRUE(scheduler.paused(1));
    scheduler.finish(0);
    scheduler.admit(note);
    EXPECT_FALSE(scheduler.paused(1));
    EXPECT_EQ(admitted, std::vector<RequestId>{3}) << "one page is left";
    const std::vector<Chunk> again = step(scheduler);
    ASSERT_EQ(again.size(), 2u);
    EXPECT_EQ(again[0].id, 2u);
    EXPECT_EQ(again[0].first_position, 0u);
    EXPECT_EQ(again[0].rows, 33u) << "prompt and answer so far, as one prompt";
    EXPECT_EQ(again[0].outputs, 1u);
    EXPECT_EQ(scheduler.counts().recomputed_rows, 32u) << "the 33rd was not computed yet";
}

TEST(Scheduler, APromptTakesPagesFromThoseThatCameLater) {
    Pages pages(6, 2, 96);
    Scheduler scheduler({2, 16, 2}, pages.sequences);
    scheduler.submit({1, 80, 96});
    scheduler.admit(ignore);
    EXPECT_EQ(pages.sequences.used(), 5u) << "the whole prompt's";
    scheduler.submit({2, 8, 9});
    scheduler.admit(ignore);
    EXPECT_EQ(pages.sequences.used(), 6u);
    for (int i = 0; i < 5; ++i) step(scheduler);  // the prompt of 1 fills each step
    EXPECT_EQ(scheduler.computed(0), 80u);
    EXPECT_EQ(scheduler.computed(1), 0u);
    const std::vector<Chunk> next = step(scheduler);
    ASSERT_EQ(next.size(), 1u);
    EXPECT_EQ(next[0].id, 1u);
    EXPECT_TRUE(scheduler.paused(1));
}

TEST(Scheduler, ARequestThatFillsAllPagesEndsWhateverElseRuns) {
    Pages pages(4, 8, 64);
    Scheduler scheduler({8, 64, 8}, pages.sequences);
    ASSERT_TRUE(pages.sequences.could_hold(64));
    ASSERT_FALSE(pages.sequences.could_hold(65));
    for (RequestId id = 1; id <= 8; ++id) scheduler.submit({id, 1, 64});
    std::map<Slot, std::uint32_t> lengths;
    std::vector<RequestId> ended;
    int steps = 0;
    while (!scheduler.idle()) {
        ASSERT_LT(++steps, 8 * 65 * 8);
        scheduler.admit([&](Slot slot, const Demand&) { lengths[slot] = 1; });
        const auto chunks = scheduler.next();
        ASSERT_FALSE(chunks.empty());
        const std::vector<Chunk> done(chunks.begin(), chunks.end());
        scheduler.commit();
        for (const Chunk& chunk : done) {
            if (chunk.outputs == 0) continue;
            if (++lengths[chunk.slot] > 64) {
                ended.push_back(chunk.id);
                scheduler.finish(chunk.slot);
            } else {
                scheduler.grow(chunk.slot);
            }
        }
    }
    EXPECT_EQ(ended, (std::vector<RequestId>{1, 2, 3, 4, 5, 6, 7, 8})) << "all are equally long";
    EXPECT_GT(scheduler.counts().preempted, 0u);
    EXPECT_EQ(pages.sequences.used(), 0u);
}

TEST(Scheduler, WherePreparationFailsNothingHasHappened) {
    Pages pages(8, 2, 64);
    Scheduler scheduler({2, 64, 2}, pages.sequences);
    scheduler.submit({1, 16, 64});
    scheduler.submit({2, 16, 64});
    int calls = 0;
    const auto failing = [&](Slot, const Demand& demand) {
        ++calls;
        if (demand.id == 2) throw std::runtime_error("no memory");
    };
    EXPECT_THROW(scheduler.admit(failing), std::runtime_error);
    EXPECT_EQ(calls, 2);
    EXPECT_EQ(scheduler.running(), 1u) << "the first one is in";
    EXPECT_EQ(scheduler.waiting(), 1u) << "the second one waits as before";
    EXPECT_EQ(pages.sequences.used(), 1u);
    EXPECT_EQ(pages.sequences.entries(1), 0u);
    EXPECT_EQ(scheduler.counts().admitted, 1u);
    ASSERT_EQ(step(scheduler).size(), 1u);
    std::vector<RequestId> admitted;
    scheduler.admit([&](Slot, const Demand& demand) { admitted.push_back(demand.id); });
    EXPECT_EQ(admitted, std::vector<RequestId>{2});
    EXPECT_EQ(step(scheduler).size(), 2u);
}

TEST(Scheduler, AForkSharesPagesAndGoesOnByItself) {
    Pages pages(8, 3, 64);
    Scheduler scheduler({3, 64, 3}, pages.sequences);
    scheduler.submit({1, 20, 64});
    scheduler.admit(ignore);
    step(scheduler);  // 20 computed, 21 long
    const auto second = scheduler.fork(0, {7, 20, 64});
    ASSERT_TRUE(second);
    EXPECT_EQ(pages.sequences.used(), 2u);
    EXPECT_EQ(scheduler.running(), 2u);
    EXPECT_EQ(scheduler.computed(*second), 20u);
    const std::vector<Chunk> both = step(scheduler);
    ASSERT_EQ(both.size(), 2u);
    EXPECT_EQ(both[0].id, 1u);
    EXPECT_EQ(both[1].id, 7u);
    for (const Chunk& chunk : both) {
        EXPECT_EQ(chunk.first_position, 20u);
        EXPECT_EQ(chunk.rows, 1u);
    }
    EXPECT_EQ(pages.sequences.used(), 3u) << "the page that both write is two";
    scheduler.finish(0);
    EXPECT_EQ(pages.sequences.used(), 2u);
    ASSERT_EQ(step(scheduler).size(), 1u);
    EXPECT_TRUE(scheduler.fork(*second, {8, 20, 64}));
    EXPECT_TRUE(scheduler.fork(*second, {9, 20, 64}));
    EXPECT_FALSE(scheduler.fork(*second, {10, 20, 64})) << "no slot is free";
    EXPECT_EQ(scheduler.running(), 3u);
}

TEST(Scheduler, AForkOfOneThatWaitsWaitsToo) {
    Pages pages(4, 3, 64);
    Scheduler scheduler({3, 64, 3}, pages.sequences);
    scheduler.submit({1, 16, 64});
    scheduler.submit({2, 16, 64});
    scheduler.admit(ignore);
    for (int i = 0; i < 18; ++i) step(scheduler);
    ASSERT_TRUE(scheduler.paused(1));
    const auto fork = scheduler.fork(1, {3, 16, 64});
    ASSERT_TRUE(fork);
    EXPECT_TRUE(scheduler.paused(*fork));
    EXPECT_EQ(pages.sequences.entries(*fork), 0u);
    scheduler.finish(0);
    scheduler.admit(ignore);
    EXPECT_FALSE(scheduler.paused(1));
    EXPECT_TRUE(scheduler.paused(*fork)) << "two times three pages and one more do not fit";
    scheduler.finish(1);
    scheduler.admit(ignore);
    EXPECT_FALSE(scheduler.paused(*fork));
    const std::vector<Chunk> chunks = step(scheduler);
    ASSERT_EQ(chunks.size(), 1u);
    EXPECT_EQ(chunks[0].id, 3u);
    EXPECT_EQ(chunks[0].rows, 33u);
}

TEST(Scheduler, AForkWhoseWorstCaseIsNotFreeIsRefusedWhereThatIsReserved) {
    Pages pages(6, 3, 64);
    Scheduler scheduler({3, 64, 3, 0, Admission::reserve}, pages.sequences);
    scheduler.submit({1, 20, 64});
    scheduler.admit(ignore);
    step(scheduler);
    EXPECT_EQ(pages.sequences.used(), 4u);
    EXPECT_FALSE(scheduler.fork(0, {2, 20, 64})) << "it shares one page and needs three";
    EXPECT_FALSE(scheduler.fork(0, {3, 20, 32})) << "a page that the first one will write would stay shared";
    EXPECT_EQ(pages.sequences.used(), 4u);
    EXPECT_EQ(scheduler.running(), 1u);
    EXPECT_EQ(step(scheduler).size(), 1u);
    EXPECT_EQ(scheduler.counts().admitted, 1u);
}

TEST(Scheduler, NeitherAForkNorItsOriginIsPreemptedWhereTheWorstCaseIsReserved) {
    // 13 pages of one sequence, of which a fork needs 11 anew; a group that drops tokens writes its pages again.
    for (const std::uint32_t most : {40u, 200u}) {
        Pages pages({{paged::all_tokens(), 24},
                     {{.page_tokens = 16, .sinks = 1, .recent = 32, .cut = 32, .step_tokens = 32}, 20}},
                    3, 200);
        // One row of logits: the oldest goes on alone, and leaves its fork behind.
        Scheduler scheduler({3, 32, 1, 32, Admission::reserve}, pages.sequences);
        scheduler.submit({1, 20, 200});
        scheduler.admit(ignore);
        for (int i = 0; i < 15; ++i) step(scheduler);
        ASSERT_TRUE(scheduler.fork(0, {2, 20, most}));
        scheduler.submit({3, 20, 64});  // takes what is nobody's
        while (!scheduler.idle()) {
            scheduler.admit(ignore);
            for (const Chunk& chunk : step(scheduler)) {
                const std::uint32_t end = chunk.id == 1 ? 200 : (chunk.id == 2 ? most : 64);
                if (chunk.first_position + chunk.rows == end) scheduler.finish(chunk.slot);
            }
        }
        EXPECT_EQ(scheduler.counts().admitted, 3u);
        EXPECT_EQ(scheduler.counts().preempted, 0u) << most;
    }
}

TEST(Scheduler, OneThatWaitsForPagesCanBeCancelled) {
    Pages pages(4, 3, 64);
    Scheduler scheduler({3, 64, 3}, pages.sequences);
    scheduler.submit({1, 16, 64});
    scheduler.submit({2, 16, 64});
    scheduler.admit(ignore);
    for (int i = 0; i < 18; ++i) step(scheduler);
    ASSERT_TRUE(scheduler.paused(1));
    scheduler.submit({3, 1, 2});
    scheduler.finish(1);
    EXPECT_EQ(scheduler.running(), 1u);
    EXPECT_EQ(pages.sequences.used(), 3u);
    std::vector<Slot> admitted;
    scheduler.admit([&](Slot slot, const Demand&) { admitted.push_back(slot); });
    EXPECT_EQ(admitted, std::vector<Slot>{1}) << "its slot is free";
    EXPECT_FALSE(scheduler.paused(1));
    EXPECT_EQ(step(scheduler).size(), 2u);
}

TEST(Scheduler, ARestartComputesAllTokensAsAPrompt) {
    Pages pages(8, 1, 64);
    Scheduler scheduler({1, 64, 1}, pages.sequences);
    scheduler.submit({1, 20, 64});
    scheduler.admit(ignore);
    step(scheduler);
    scheduler.restart(0, 21);
    const std::vector<Chunk> again = step(scheduler);
    ASSERT_EQ(again.size(), 1u);
    EXPECT_EQ(again[0].first_position, 0u);
    EXPECT_EQ(again[0].rows, 21u);
    EXPECT_EQ(again[0].outputs, 1u);
    EXPECT_EQ(scheduler.counts().recomputed_rows, 20u);
    EXPECT_EQ(scheduler.counts().preempted, 0u);
}

}  // namespace
