// SPDX-License-Identifier: Apache-2.0
// Admission under memory pressure: halved above 10 %, restored below 5 %, and a limit that leaves running sequences
// alone.
// rows: 97
#include <scheduler/pages.hpp>
#include <zse/scheduler/pressure_policy.hpp>
#include <zse/scheduler/scheduler.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using namespace zse::scheduler;
using paged::Pages;
using Time = PressurePolicy::Time;

TEST(PressurePolicy, CrossingTheUpperThresholdHalvesAndTheLowerOneRestores) {
    PressurePolicy policy(8);
    Time now{};
    // Percent, and the slots that may be in use after it.
    const std::vector<std::pair<double, std::uint32_t>> course{
        {0, 8}, {9.99, 8}, {10, 8},   {10.01, 4}, {60, 4}, {9, 4},   {5.01, 4},
        {5, 4}, {4.99, 8}, {9.99, 8}, {6, 8},     {11, 4}, {100, 4}, {0, 8}};
    for (const auto& [percent, slots] : course) {
        now += 1s;
        EXPECT_EQ(policy.update(now, percent), slots) << percent;
        EXPECT_EQ(policy.slots(), slots);
        EXPECT_EQ(policy.slowed(), slots == 4);
    }
}

TEST(PressurePolicy, LeavesAtLeastOneAndTakesAMissingFileAsNoPressure) {
    for (const auto& [slots, halved] :
         {std::pair{1u, 1u}, std::pair{2u, 1u}, std::pair{3u, 1u}, std::pair{4u, 2u}, std::pair{9u, 4u}}) {
        PressurePolicy policy(slots);
        EXPECT_EQ(policy.update(Time{}, 50), halved);
        EXPECT_EQ(policy.update(Time{} + 1s, std::nullopt), slots);
    }
}

TEST(PressurePolicy, IsDueOnceASecond) {
    PressurePolicy policy(2);
    const Time start = Time{} + 100s;
    EXPECT_TRUE(policy.due(start)) << "it never looked";
    policy.update(start, 0);
    EXPECT_FALSE(policy.due(start));
    EXPECT_FALSE(policy.due(start + 999ms));
    EXPECT_TRUE(policy.due(start + 1s));
}

/// A scheduler with `slots` slots and so many requests of 16 tokens that wait.
struct Load {
    Pages pages{64, 8, 64};
    Scheduler scheduler{{.slots = 8, .tokens = 256, .output_rows = 8}, pages.sequences};

    explicit Load(RequestId requests) {
        for (RequestId id = 1; id <= requests; ++id) scheduler.submit({id, 16, 32});
    }
    void admit() {
        scheduler.admit([](Slot, const Demand&) {});
    }
};

TEST(LimitedAdmission, AdmitsOnlyWhileFewerSlotsAreInUse) {
    Load load(8);
    EXPECT_EQ(load.scheduler.admission_limit(), 8u);
    load.scheduler.limit_admission(4);
    load.admit();
    EXPECT_EQ(load.scheduler.running(), 4u);
    EXPECT_EQ(load.scheduler.waiting(), 4u);
    load.admit();
    EXPECT_EQ(load.scheduler.running(), 4u);
    load.scheduler.finish(2);
    load.admit();
    EXPECT_EQ(load.scheduler.running(), 4u) << "the free slot is taken, and no more";
    EXPECT_EQ(load.scheduler.waiting(), 3u);
    load.scheduler.limit_admission(8);
    load.admit();
    EXPECT_EQ(load.scheduler.running(), 7u);
    EXPECT_EQ(load.scheduler.waiting(), 0u);
}

TEST(LimitedAdmission, LeavesThoseThatRunAlone) {
    Load load(10);
    load.admit();
    EXPECT_EQ(load.scheduler.running(), 8u);
    load.scheduler.limit_admission(4);
    load.admit();
    EXPECT_EQ(load.scheduler.running(), 8u);
    EXPECT_EQ(load.scheduler.next().size(), 8u) << "all of them compute";
    load.scheduler.commit();
    for (Slot slot = 0; slot < 4; ++slot) load.scheduler.finish(slot);
    load.admit();
    EXPECT_EQ(load.scheduler.running(), 4u) << "not fewer than the limit are in use";
    load.scheduler.finish(4);
    load.admit();
    EXPECT_EQ(load.scheduler.running(), 4u);
    EXPECT_EQ(load.scheduler.waiting(), 1u);
}

TEST(LimitedAdmission, NeverStopsEverything) {
    Load load(3);
    load.scheduler.limit_admission(0);
    int rounds = 0;
    for (; !load.scheduler.idle() && rounds < 10; ++rounds) {
        load.admit();
        ASSERT_EQ(load.scheduler.running(), 1u);
        load.scheduler.next();
        load.scheduler.commit();
        for (Slot slot = 0; slot < 8; ++slot) {
            if (load.scheduler.computed(slot) == 16) {
                load.scheduler.finish(slot);
                break;
            }
        }
    }
    EXPECT_EQ(rounds, 3);
    load.scheduler.limit_admission(1000);
    EXPECT_EQ(load.scheduler.admission_limit(), 8u) << "there are no more slots";
}

TEST(LimitedAdmission, APreemptedSequenceGoesOn) {
    Pages pages(3, 2, 64);
    Scheduler scheduler({.slots = 2, .tokens = 64, .output_rows = 2}, pages.sequences);
    scheduler.submit({1, 16, 33});
    scheduler.submit({2, 8, 33});
    const auto ignore = [](Slot, const Demand&) {};
    scheduler.admit(ignore);
    ASSERT_EQ(scheduler.running(), 2u);
    scheduler.limit_admission(1);
    bool preempted = false;
    for (int step = 0; step < 200 && !scheduler.idle(); ++step) {
        scheduler.admit(ignore);
        const auto chunks = scheduler.next();
        std::vector<Slot> grown;
        for (const Chunk& chunk : chunks) grown.push_back(chunk.slot);
        scheduler.commit();
        preempted = preempted || scheduler.counts().preempted != 0;
        for (const Slot slot : grown) {
            if (scheduler.computed(slot) >= 32) {
                scheduler.finish(slot);
            } else {
                scheduler.grow(slot);
            }
        }
    }
    EXPECT_TRUE(preempted);
    EXPECT_TRUE(scheduler.idle()) << "the limit is for new requests, not for those that were admitted";
}

}  // namespace
