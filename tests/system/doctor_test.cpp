// SPDX-License-Identifier: Apache-2.0
// The doctor on stored machines: silent where all is well, one sentence for each trouble, and never stopped by a file.
// rows: 92 93 94 95 96 97 98
#include <zse/system/doctor.hpp>

#include <system/fake_root.hpp>
#include <system/unprivileged.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

namespace {

using testing::HasSubstr;
using zse::Bytes;
using zse::GiB;
using zse::KiB;
using zse::MiB;
using zse::system::Examination;
using zse::system::examine;
using zse::system::Finding;
using zse::system::Verdict;
using zse_test::FakeRoot;
using zse_test::stored_root;

std::map<std::string, Finding> rows(const Examination& of) {
    std::map<std::string, Finding> named;
    for (const Finding& row : examine(of)) {
        EXPECT_FALSE(row.value.empty()) << row.name;
        EXPECT_EQ(row.advice.empty(), row.verdict == Verdict::ok) << row.name << ": " << row.advice;
        EXPECT_TRUE(named.emplace(row.name, row).second) << row.name << " occurs twice";
    }
    return named;
}

std::map<std::string, Finding> rows(const FakeRoot& fake) {
    Examination of;
    of.root = fake.root();
    return rows(of);
}

double figure(const Finding& row, const std::string& name) {
    for (const auto& [key, value] : row.figures) {
        if (key == name) return value;
    }
    ADD_FAILURE() << row.name << " has no " << name;
    return -1;
}

TEST(Doctor, IsSilentWhereAllIsWell) {
    Examination of;
    of.root = stored_root("normal");
    const auto found = rows(of);
    EXPECT_EQ(found.size(), 14u);
    for (const auto& [name, row] : found) EXPECT_EQ(row.verdict, Verdict::ok) << name << ": " << row.advice;
    EXPECT_EQ(figure(found.at("swap"), "total"), static_cast<double>(KiB(8388608)));
    EXPECT_EQ(figure(found.at("memory"), "usable"), static_cast<double>(KiB(120586240)));
}

TEST(Doctor, NamesEveryTroubleOfAStrainedMachine) {
    Examination of;
    of.root = stored_root("strained");
    of.pid = 4711;
    const auto found = rows(of);
    const auto expect = [&](const char* name, Verdict verdict, const char* value, const char* advice) {
        SCOPED_TRACE(name);
        EXPECT_EQ(found.at(name).verdict, verdict);
        EXPECT_THAT(found.at(name).value, HasSubstr(value));
        EXPECT_THAT(found.at(name).advice, HasSubstr(advice));
    };
    expect("memory", Verdict::ok, "33.55 MB (32.00 MiB) usable", "");
    expect("swap", Verdict::advice, "swappiness 60", "sudo swapoff -a");
    expect("transparent huge pages", Verdict::advice, "never", "echo madvise");
    expect("explicit huge pages", Verdict::ok, "10 of 64 free", "");
    expect("overcommit", Verdict::ok, "mode 2", "");
    expect("kernel log", Verdict::warning,
           "2 killed for memory, 1 of them zse; the last was zse (4000) at the limit",
           "raise the memory limit");
    expect("kills in the group", Verdict::warning, "2", "at its limit");
    expect("pressure", Verdict::warning, "some 42.50 %, full 21.25 %", "half as many sequences");
    expect("pressure of the group", Verdict::advice, "some 6.00 %", "--headroom");
    expect("container limit", Verdict::warning, "/sys/fs/cgroup/box", "memory.max");
    expect("address space", Verdict::warning, "67.11 MB (64.00 MiB) are left", "ulimit -v");
    expect("data segment", Verdict::ok, "unlimited", "");
    expect("locked memory", Verdict::ok, "8.39 MB", "");
    expect("thrashing", Verdict::warning, "zse: 3.22 GB (3.00 GiB) in swap, 150.0 major faults",
           "all the time");
    EXPECT_EQ(figure(found.at("pressure"), "some_avg60"), 30);
    EXPECT_EQ(figure(found.at("pressure"), "full_total"), 123456789);
    EXPECT_EQ(figure(found.at("kernel log"), "ours"), 1);
    EXPECT_EQ(figure(found.at("container limit"), "left"), static_cast<double>(MiB(32)));
}

TEST(Doctor, MeasuresAModelAgainstTheMachine) {
    Examination of;
    of.root = stored_root("strained");
    of.model = GiB(2);
    of.model_huge_pages = 1000;
    auto found = rows(of);
    EXPECT_THAT(found.at("memory").advice, HasSubstr("zse plan"));
    EXPECT_THAT(found.at("explicit huge pages").value, HasSubstr("the model needs 1000"));
    EXPECT_THAT(found.at("explicit huge pages").advice, HasSubstr("vm.nr_hugepages=1054"));
    EXPECT_EQ(found.at("overcommit").verdict, Verdict::warning) << "1 GiB is left of the promises";
    EXPECT_THAT(found.at("overcommit").advice, HasSubstr("vm.overcommit_ratio"));
    EXPECT_EQ(found.at("locked memory").verdict, Verdict::advice);
    EXPECT_THAT(found.at("locked memory").advice, HasSubstr("ulimit -l"));
    of.model = MiB(4);
    of.model_huge_pages = 2;
    found = rows(of);
    for (const char* name : {"memory", "explicit huge pages", "overcommit", "locked memory",
                             "container limit", "address space"}) {
        EXPECT_EQ(found.at(name).verdict, Verdict::ok) << name;
    }
}

TEST(Doctor, SwapIsNoTroubleWhereTheKernelHardlySwaps) {
    FakeRoot fake;
    const auto verdict = [&](Bytes swap, const char* swappiness) {
        fake.write("proc/meminfo",
                   zse::text("MemTotal: 9 kB\nMemFree: 9 kB\nSwapTotal: ", swap, " kB\nSwapFree: 0 kB\n"))
            .write("proc/sys/vm/swappiness", swappiness);
        return rows(fake).at("swap").verdict;
    };
    EXPECT_EQ(verdict(1000, "60"), Verdict::advice);
    EXPECT_EQ(verdict(1000, "11"), Verdict::advice);
    EXPECT_EQ(verdict(1000, "10"), Verdict::ok);
    EXPECT_EQ(verdict(1000, "1"), Verdict::ok);
    EXPECT_EQ(verdict(0, "60"), Verdict::ok);
    std::filesystem::remove(fake.root().at("proc/sys/vm/swappiness"));
    EXPECT_EQ(rows(fake).at("swap").verdict, Verdict::ok) << "there is no swap";
}

TEST(Doctor, OnlyStrictOvercommitCanRefuse) {
    FakeRoot fake;
    fake.write("proc/meminfo",
               "MemTotal: 9000 kB\nMemFree: 9 kB\nMemAvailable: 5000 kB\nCommitLimit: 4000 kB\nCommitted_AS: "
               "0 kB\n");
    for (const auto& [mode, verdict] :
         {std::pair{"0", Verdict::ok}, std::pair{"1", Verdict::ok}, std::pair{"2", Verdict::warning}}) {
        fake.write("proc/sys/vm/overcommit_memory", mode);
        EXPECT_EQ(rows(fake).at("overcommit").verdict, verdict) << mode;
    }
    Examination small;
    small.root = fake.root();
    small.model = KiB(4000);
    EXPECT_EQ(rows(small).at("overcommit").verdict, Verdict::ok) << "it is promised";
    small.model = KiB(4000) + 1;
    EXPECT_EQ(rows(small).at("overcommit").verdict, Verdict::warning);
}

TEST(Doctor, PressureHasTwoThresholds) {
    FakeRoot fake;
    for (const auto& [percent, verdict] :
         {std::pair{"0.00", Verdict::ok}, std::pair{"5.00", Verdict::ok}, std::pair{"5.01", Verdict::advice},
          std::pair{"10.00", Verdict::advice}, std::pair{"10.01", Verdict::warning}}) {
        fake.write("proc/pressure/memory",
                   zse::text("some avg10=", percent, " avg60=0.00 avg300=0.00 total=0\n"));
        EXPECT_EQ(rows(fake).at("pressure").verdict, verdict) << percent;
    }
}

TEST(Doctor, OnlyAProcessOfOurNameIsAWarning) {
    FakeRoot fake;
    fake.write("proc/self/status", "Name:\tserver\n");
    fake.write("dev/kmsg", "3,1,2,-;Out of memory: Killed process 12 (zse) total-vm:1kB\n");
    EXPECT_EQ(rows(fake).at("kernel log").verdict, Verdict::advice);
    fake.write("dev/kmsg", "3,1,2,-;Out of memory: Killed process 12 (server) total-vm:1kB\n");
    EXPECT_EQ(rows(fake).at("kernel log").verdict, Verdict::warning);
    fake.write("dev/kmsg", "6,1,2,-;all is well\n");
    EXPECT_EQ(rows(fake).at("kernel log").verdict, Verdict::ok);
    EXPECT_THAT(rows(fake).at("kernel log").value, HasSubstr("no process was killed"));
}

TEST(Doctor, SaysWhereTheLogMayNotBeRead) {
    FakeRoot fake;
    fake.write("dev/kmsg", "6,1,2,-;all is well\n");
    std::filesystem::permissions(fake.root().at("dev/kmsg"), std::filesystem::perms::none);
    const zse_test::Nobody nobody;
    const auto found = rows(fake);
    EXPECT_EQ(found.at("kernel log").value, "may not be read");
    EXPECT_EQ(found.at("kernel log").verdict, Verdict::advice);
}

TEST(Doctor, SwapOrFaultsOfAProcessAreThrashing) {
    FakeRoot fake;
    fake.write("proc/7/status", "Name:\tzse\nVmSwap:\t4 kB\n");
    Examination of;
    of.root = fake.root();
    of.pid = 7;
    EXPECT_EQ(rows(of).at("thrashing").verdict, Verdict::advice);
    fake.write("proc/7/status", "Name:\tzse\nVmSwap:\t0 kB\n");
    EXPECT_EQ(rows(of).at("thrashing").verdict, Verdict::ok);
    of.fault_rate = 10.0;
    EXPECT_EQ(rows(of).at("thrashing").verdict, Verdict::ok);
    of.fault_rate = 10.5;
    EXPECT_EQ(rows(of).at("thrashing").verdict, Verdict::warning);
    of.pid = 8;
    EXPECT_THAT(rows(of).at("thrashing").value, HasSubstr("no such process"));
}

TEST(Doctor, AMalformedFileTakesOneRowAndNoMore) {
    FakeRoot fake;
    const auto before = rows(fake);
    for (const auto& [file, row] : std::map<std::string, std::string>{
             {"proc/sys/vm/swappiness", "swap"},
             {"proc/sys/vm/overcommit_memory", "overcommit"},
             {"proc/pressure/memory", "pressure"},
             {"sys/kernel/mm/transparent_hugepage/enabled", "transparent huge pages"}}) {
        FakeRoot broken;
        broken.write("proc/meminfo", "MemTotal: 9 kB\nMemFree: 9 kB\n").write(file, "nonsense");
        const auto found = rows(broken);
        EXPECT_EQ(found.size(), before.size());
        EXPECT_EQ(found.at(row).verdict, Verdict::warning) << row;
        EXPECT_THAT(found.at(row).advice, HasSubstr(file));
        EXPECT_EQ(found.at("data segment").verdict, Verdict::ok);
    }
    EXPECT_EQ(before.at("memory").verdict, Verdict::warning) << "there is no /proc at all";
    EXPECT_THAT(before.at("memory").advice, HasSubstr("mount /proc"));
}

TEST(Doctor, ThisMachineCanBeExamined) {
    Examination of;
    of.dmesg = zse::system::run_within_seconds;
    EXPECT_EQ(rows(of).size(), 14u);
}

}  // namespace
