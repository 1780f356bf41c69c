// SPDX-License-Identifier: Apache-2.0
// A process's swap and major faults from stored and live files, and when it is said to thrash.
// rows: 94
#include <zse/system/process.hpp>

#include <system/fake_root.hpp>
#include <system/unprivileged.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <string>

namespace {

using testing::HasSubstr;
using zse::ErrorCode;
using zse::KiB;
using zse::system::few_major_faults;
using zse::system::Process;
using zse::system::read_process;
using zse::system::thrashing;
using zse_test::error_of;
using zse_test::FakeRoot;

/// Field 12 are the major faults, field 22 the start in clock ticks.
std::string stat(const std::string& name, const std::string& faults, const std::string& start) {
    return "4711 (" + name + ") R 1 2 3 0 -1 4194304 105 0 " + faults + " 0 7 8 0 0 20 0 1 0 " + start +
           " 4134796 414 18446744073709551615\n";
}

TEST(Process, ReadsSwapAndFaults) {
    const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
    FakeRoot fake;
    fake.write("proc/4711/status", "Name:\tzse\nVmRSS:\t  100 kB\nVmSwap:\t    20 kB\n")
        .write("proc/4711/stat", stat("zse", "500", std::to_string(90 * ticks)))
        .write("proc/uptime", "100.00 180.00\n");
    const auto process = read_process(fake.root(), 4711);
    ASSERT_TRUE(process);
    EXPECT_EQ(process->name, "zse");
    EXPECT_EQ(process->resident, KiB(100));
    EXPECT_EQ(process->swapped, KiB(20));
    EXPECT_EQ(process->major_faults, 500u);
    EXPECT_DOUBLE_EQ(process->age, 10);
    EXPECT_DOUBLE_EQ(process->fault_rate(), 50);
    EXPECT_FALSE(read_process(fake.root(), 4712)) << "there is no such process";
    EXPECT_FALSE(read_process(fake.root())) << "nor is this one there";
}

TEST(Process, ANameMayHoldParenthesesAndBlanks) {
    FakeRoot fake;
    fake.write("proc/self/status", "Name:\ta) R 1\n").write("proc/self/stat", stat("a) R 1 2", "3", "4"));
    EXPECT_EQ(read_process(fake.root())->major_faults, 3u);
}

TEST(Process, WithoutAStartThereIsNoRate) {
    FakeRoot fake;
    fake.write("proc/self/status", "Name:\tkworker\n");
    EXPECT_EQ(read_process(fake.root())->fault_rate(), 0);
    fake.write("proc/self/stat", stat("zse", "500", "0"));  // no uptime
    EXPECT_EQ(read_process(fake.root())->fault_rate(), 0);
}

TEST(Process, MalformedFilesAreErrorsThatNameTheFile) {
    FakeRoot fake;
    fake.write("proc/7/status", "Name:\tzse\nVmSwap:\tmuch kB\n");
    EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { read_process(fake.root(), 7); }),
                HasSubstr("proc/7/status: VmSwap is expected to be a number of kB"));
    fake.write("proc/7/status", "Name:\tzse\n");
    for (const std::string& text : {std::string(), std::string("7 (zse R 1"), std::string("7 (zse) R 1 2 3"),
                                    stat("zse", "many", "5"), stat("zse", "5", "-5")}) {
        fake.write("proc/7/stat", text);
        EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { read_process(fake.root(), 7); }),
                    HasSubstr("proc/7/stat is expected"))
            << text;
    }
}

TEST(Process, WhatMayNotBeReadIsNotThere) {
    FakeRoot fake;
    fake.write("proc/7/status", "Name:\tzse\n");
    EXPECT_TRUE(read_process(fake.root(), 7));
    std::filesystem::permissions(fake.root().at("proc/7/status"), std::filesystem::perms::none);
    const zse_test::Nobody nobody;
    EXPECT_FALSE(read_process(fake.root(), 7));
}

TEST(Process, TheLiveOneIsWhatTheSystemSays) {
    const auto process = read_process();
    ASSERT_TRUE(process);
    rusage usage{};
    ASSERT_EQ(getrusage(RUSAGE_SELF, &usage), 0);
    EXPECT_LE(process->major_faults, static_cast<std::uint64_t>(usage.ru_majflt));
    EXPECT_GT(process->resident, KiB(100));
    EXPECT_GE(process->mapped, process->resident);
    EXPECT_EQ(read_process({}, static_cast<unsigned>(::getpid()))->name, process->name);
}

TEST(Thrashing, IsSaidWhereSwapOrMajorFaultsRise) {
    Process before;
    before.swapped = KiB(40);
    before.major_faults = 1000;
    Process after = before;
    EXPECT_FALSE(thrashing(before, after));
    after.major_faults = 1000 + few_major_faults;
    EXPECT_FALSE(thrashing(before, after)) << "code that is used for the first time";
    after.major_faults = 1001 + few_major_faults;
    EXPECT_THAT(thrashing(before, after).value_or(""),
                HasSubstr("0 B went to swap, 65 pages were read back"));
    after = before;
    after.swapped = KiB(44);
    EXPECT_THAT(thrashing(before, after).value_or(""), HasSubstr("4096 B went to swap, 0 pages"));
    EXPECT_FALSE(thrashing(after, before)) << "what comes back from swap is no harm by itself";
}

}  // namespace
