// SPDX-License-Identifier: Apache-2.0
// The team of threads: as many as asked for, every item exactly once, also after sleeping.
// rows: 48
#include <zse/exec/team.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using zse::ErrorCode;
using zse::exec::Team;

std::size_t tasks() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) ++count;
    return count;
}

/// Threads of the process without any team: one, or more where a sanitizer starts its own beside the first
/// thread.
const std::size_t tasks_at_start = [] {
    std::atomic<bool> counted{false};
    std::thread other([&] { counted.wait(false); });
    const std::size_t count = tasks() - 1;
    counted = true;
    counted.notify_all();
    other.join();
    return count;
}();

/// Waits for the system to have removed threads that were joined.
bool tasks_become(std::size_t wanted) {
    for (int i = 0; i < 500 && tasks() != wanted; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return tasks() == wanted;
}

void expect_each_once(Team& team, std::size_t items) {
    std::vector<std::atomic<int>> visits(items);
    std::atomic<bool> known_threads{true};
    team.for_each(items, [&](std::size_t item, unsigned thread) {
        visits[item].fetch_add(1, std::memory_order_relaxed);
        if (thread >= team.size()) known_threads = false;
    });
    EXPECT_TRUE(known_threads);
    std::size_t wrong = 0;
    for (const auto& count : visits) wrong += count.load() != 1;
    EXPECT_EQ(wrong, 0u) << items << " items on " << team.size() << " threads";
}

class TeamOf : public testing::TestWithParam<unsigned> {};

TEST_P(TeamOf, VisitsEachItemExactlyOnce) {
    Team team(GetParam());
    EXPECT_EQ(team.size(), GetParam());
    for (const std::size_t items : {0, 1, 2, 3, 4, 5, 7, 8, 31, 64, 100, 1000, 20000})
        expect_each_once(team, items);
}

TEST_P(TeamOf, IsAsManyThreadsOfTheProcessAsAskedFor) {
    ASSERT_TRUE(tasks_become(tasks_at_start));
    {
        Team team(GetParam());
        EXPECT_EQ(tasks(), tasks_at_start + GetParam() - 1);
        expect_each_once(team, 100);
        EXPECT_EQ(tasks(), tasks_at_start + GetParam() - 1) << "running starts no threads";
    }
    EXPECT_TRUE(tasks_become(tasks_at_start)) << "a team leaves no threads behind";
}

TEST_P(TeamOf, WakesAfterPauses) {
    Team team(GetParam());
    for (int i = 0; i < 10; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        expect_each_once(team, 50);
    }
}

TEST_P(TeamOf, EndsAtOnceWhereItNeverRan) {
    for (int i = 0; i < 20; ++i) Team team(GetParam());
    Team asleep(GetParam());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

TEST_P(TeamOf, SeesWhatTheLastRunWrote) {
    Team team(GetParam());
    std::vector<int> values(64, 0);
    std::vector<int> next(64, 0);
    for (int run = 0; run < 200; ++run) {
        team.for_each(values.size(), [&](std::size_t item, unsigned) { next[item] = values[63 - item] + 1; });
        std::swap(values, next);
    }
    for (const int value : values) EXPECT_EQ(value, 200);
}

/// Parts of these sizes, as many as there are threads: more are left out, and parts without a size are empty.
void expect_each_once_in_parts(Team& team, std::vector<std::size_t> sizes) {
    sizes.resize(team.size(), 0);
    std::vector<std::size_t> firsts{0};
    for (const std::size_t size : sizes) firsts.push_back(firsts.back() + size);
    std::vector<std::atomic<int>> visits(firsts.back());
    std::atomic<bool> known{true};
    team.for_each_in_parts([&](std::size_t part) { return sizes[part]; },
                           [&](std::size_t part, std::size_t item, unsigned thread) {
                               if (part >= sizes.size() || item >= sizes[part] || thread >= team.size()) {
                                   known = false;
                               } else {
                                   visits[firsts[part] + item].fetch_add(1, std::memory_order_relaxed);
                               }
                           });
    EXPECT_TRUE(known) << "a part, an item or a thread that does not exist";
    std::size_t wrong = 0;
    for (const auto& count : visits) wrong += count.load() != 1;
    EXPECT_EQ(wrong, 0u) << "on " << team.size() << " threads";
}

TEST_P(TeamOf, VisitsEachItemOfUnevenPartsExactlyOnce) {
    Team team(GetParam());
    const std::vector<std::vector<std::size_t>> shapes{
        {},         {1},       {0, 1},    {0, 0, 0, 1}, {5},
        {0, 7},     {1, 1, 1}, {3, 0, 2}, {1, 2, 3, 4}, {4, 3, 2, 1},
        {0, 0, 50}, {1000, 1}, {1, 1000}, {0, 1, 0, 9}, {333, 0, 1, 0}};
    for (int repeat = 0; repeat < 100; ++repeat) {
        for (const auto& sizes : shapes) expect_each_once_in_parts(team, sizes);
    }
}

TEST_P(TeamOf, ComputesOnOneThreadWhatOneAloneIsGiven) {
    // One item is not worth waking others for.
    Team team(GetParam());
    for (std::size_t with_item = 0; with_item < team.size(); ++with_item) {
        std::thread::id worker;
        team.for_each_in_parts(
            [&](std::size_t part) { return part == with_item ? std::size_t{1} : std::size_t{0}; },
            [&](std::size_t, std::size_t, unsigned) { worker = std::this_thread::get_id(); });
        EXPECT_EQ(worker, std::this_thread::get_id());
    }
}

INSTANTIATE_TEST_SUITE_P(Threads, TeamOf, testing::Values(1u, 2u, 4u));

TEST(Team, DoesThousandsOfTinyRuns) {
    Team team(2);
    std::atomic<std::size_t> sum{0};
    for (std::size_t run = 0; run < 5000; ++run) {
        team.for_each(
            3, [&](std::size_t item, unsigned) { sum.fetch_add(item + 1, std::memory_order_relaxed); });
    }
    EXPECT_EQ(sum.load(), 5000u * 6u);
}

TEST(Team, TheCallerWorksToo) {
    Team team(1);
    std::thread::id worker;
    team.for_each(3, [&](std::size_t, unsigned) { worker = std::this_thread::get_id(); });
    EXPECT_EQ(worker, std::this_thread::get_id());
}

TEST(Team, SharesOutItemsThatBlock) {
    // Each item waits until both are running, so the run can only end on two threads.
    Team team(2);
    std::atomic<int> running{0};
    std::atomic<unsigned> threads{0};
    team.for_each(2, [&](std::size_t, unsigned thread) {
        running.fetch_add(1);
        while (running.load() < 2) std::this_thread::yield();
        threads.fetch_or(1u << thread);
    });
    EXPECT_EQ(threads.load(), 3u);
}

TEST(Team, OthersTakeTheItemsOfASlowThread) {
    // The first item of one part ends only when all other items are done: those behind it in its part among them.
    for (const unsigned threads : {2u, 3u, 4u}) {
        Team team(threads);
        for (int repeat = 0; repeat < 50; ++repeat) {
            const std::size_t slow = static_cast<std::size_t>(repeat) % threads;
            constexpr std::size_t each = 20;
            std::atomic<std::size_t> done{0};
            std::atomic<unsigned> slow_thread{threads};
            std::atomic<bool> helped{true};
            team.for_each_in_parts([&](std::size_t) { return each; },
                                   [&](std::size_t part, std::size_t item, unsigned thread) {
                                       if (part == slow && item == 0) {
                                           slow_thread = thread;
                                           while (done.load() < threads * each - 1) std::this_thread::yield();
                                       } else if (thread == slow_thread.load()) {
                                           helped = false;  // it is still busy with the first
                                       }
                                       done.fetch_add(1);
                                   });
            EXPECT_EQ(done.load(), threads * each);
            EXPECT_TRUE(helped);
        }
    }
}

TEST(Team, DoesThousandsOfTinyRunsInParts) {
    for (const unsigned threads : {2u, 4u}) {
        Team team(threads);
        std::atomic<std::size_t> sum{0};
        std::size_t expected = 0;
        for (std::size_t run = 0; run < 4000 / threads; ++run) {
            // Parts move from run to run, and some are empty.
            const auto count = [&](std::size_t part) { return (part + run) % 3; };
            team.for_each_in_parts(count, [&](std::size_t part, std::size_t item, unsigned) {
                sum.fetch_add(100 * part + item + 1, std::memory_order_relaxed);
            });
            for (std::size_t part = 0; part < threads; ++part) {
                for (std::size_t item = 0; item < count(part); ++item) expected += 100 * part + item + 1;
            }
        }
        EXPECT_EQ(sum.load(), expected);
    }
}

TEST(Team, InvalidCountsAreRefused) {
    support::expect_error([] { Team team(0); }, ErrorCode::usage, {"threads must be 1 to 256", "not 0"});
    support::expect_error([] { Team team(257); }, ErrorCode::usage, {"not 257"});
    support::expect_error([] { Team team(4294967295u); }, ErrorCode::usage, {"not 4294967295"});
}

/// Ends the process, with 0 where a team of 64 threads is refused and the error says which thread could not
/// start.
[[noreturn]] void start_team_in_little_memory() {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t bytes = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{32} << 20);
    const rlimit limit{bytes, bytes};
    if (setrlimit(RLIMIT_AS, &limit) != 0) std::_Exit(2);
    try {
        Team team(64);
    } catch (const zse::Error& error) {
        const std::string sentence = error.what();
        const bool right = error.code() == ErrorCode::out_of_memory &&
                           sentence.starts_with("the system refused thread ") &&
                           !sentence.starts_with("the system refused thread 2 ") &&
                           sentence.ends_with(" of 64; use fewer threads");
        std::_Exit(right ? 0 : 3);
    }
    std::_Exit(4);
}

TEST(TeamDeathTest, WhatTheSystemRefusesIsAnError) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers need the address space that this test takes away";
#endif
    EXPECT_EXIT(start_team_in_little_memory(), testing::ExitedWithCode(0), "");
}

}  // namespace
