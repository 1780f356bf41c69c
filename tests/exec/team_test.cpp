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
