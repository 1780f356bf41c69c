// SPDX-License-Identifier: Apache-2.0
// Resource limits from stored and live files, and that the least of all limits is what may be used.
// rows: 93 98
#include <zse/system/hardware.hpp>

#include <system/fake_root.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <optional>
#include <string>

namespace {

using testing::HasSubstr;
using zse::Bytes;
using zse::ErrorCode;
using zse::GiB;
using zse::KiB;
using zse::MiB;
using zse::system::probe_host;
using zse::system::read_rlimits;
using zse::system::Rlimits;
using zse_test::error_of;
using zse_test::FakeRoot;

std::string limits(const std::string& data, const std::string& locked, const std::string& space) {
    return "Limit                     Soft Limit           Hard Limit           Units     \n"
           "Max cpu time              unlimited            unlimited            seconds   \n"
           "Max data size             " +
           data +
           "            unlimited            bytes     \n"
           "Max locked memory         " +
           locked +
           "              8388608              bytes     \n"
           "Max address space         " +
           space + "            unlimited            bytes     \n";
}

constexpr std::string_view status =
    "Name:\tzse\nVmSize:\t  2048 kB\nVmLck:\t    64 kB\nVmData:\t  1024 kB\nCapEff:\t0000000000000000\n";

TEST(Rlimits, WhatIsLeftIsTheLimitLessWhatIsUsed) {
    FakeRoot fake;
    fake.write("proc/self/limits", limits("4194304", "1048576", "8388608")).write("proc/self/status", status);
    const Rlimits found = read_rlimits(fake.root());
    EXPECT_EQ(found.data.left(), MiB(3));
    EXPECT_EQ(found.address_space.left(), MiB(6));
    EXPECT_EQ(found.locked.left(), KiB(960));
    EXPECT_EQ(found.mappable(), MiB(3));
    EXPECT_EQ(found.lockable(), KiB(960));
    fake.write("proc/self/limits", limits("4194304", "1048576", "2097153"));
    EXPECT_EQ(read_rlimits(fake.root()).mappable(), 1u) << "the address space is the tighter one now";
    fake.write("proc/self/limits", limits("1000", "0", "1000"));
    EXPECT_EQ(read_rlimits(fake.root()).mappable(), 0u) << "more is used than allowed";
}

TEST(Rlimits, UnlimitedOrMissingLimitsNothing) {
    FakeRoot fake;
    EXPECT_EQ(read_rlimits(fake.root()).mappable(), std::nullopt);
    fake.write("proc/self/limits", limits("unlimited", "unlimited", "unlimited"));
    EXPECT_EQ(read_rlimits(fake.root()).mappable(), std::nullopt);
    EXPECT_EQ(read_rlimits(fake.root()).lockable(), std::nullopt);
    fake.write("proc/self/limits", limits("unlimited", "unlimited", "5000"));
    EXPECT_EQ(read_rlimits(fake.root()).mappable(), 5000u);
    fake.write("proc/self/limits", limits("6000", "unlimited", "unlimited"));
    EXPECT_EQ(read_rlimits(fake.root()).mappable(), 6000u);
}

TEST(Rlimits, WhoeverMayLockAnythingHasNoLimit) {
    FakeRoot fake;
    fake.write("proc/self/limits", limits("unlimited", "65536", "unlimited"))
        .write("proc/self/status", "Name:\tzse\nCapEff:\t0000000000004000\n");
    EXPECT_EQ(read_rlimits(fake.root()).lockable(), std::nullopt);
    fake.write("proc/self/status", "Name:\tzse\nCapEff:\t000001ffffffbfff\n");  // all but that one
    EXPECT_EQ(read_rlimits(fake.root()).lockable(), KiB(64));
}

TEST(Rlimits, AMisreadLimitIsAnErrorThatNamesIt) {
    for (const std::string value : {"lots", "-1", "", "12kB", "99999999999999999999"}) {
        FakeRoot fake;
        fake.write("proc/self/limits", "Max address space " + value + "\n");
        EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { read_rlimits(fake.root()); }),
                    HasSubstr("proc/self/limits: Max address space"))
            << value;
    }
}

TEST(Rlimits, TheLeastOfAllBoundsTheUsableMemory) {
    FakeRoot fake;
    fake.write("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 600 kB\nMemAvailable: 8192 kB\n");
    EXPECT_EQ(probe_host(fake.root()).usable_memory(), MiB(8));
    fake.write("proc/self/cgroup", "0::/\n").write("sys/fs/cgroup/memory.max", "7340032\n");
    EXPECT_EQ(probe_host(fake.root()).usable_memory(), MiB(7));
    fake.write("proc/self/status", status).write("proc/self/limits", limits("unlimited", "8192", "8388608"));
    EXPECT_EQ(probe_host(fake.root()).usable_memory(), MiB(6));
    fake.write("proc/self/limits", limits("6291456", "unlimited", "8388608"));
    EXPECT_EQ(probe_host(fake.root()).usable_memory(), MiB(5));
    EXPECT_EQ(probe_host(fake.root()).lockable_memory(), MiB(5));
    fake.write("proc/self/limits", limits("6291456", "131072", "8388608"));
    EXPECT_EQ(probe_host(fake.root()).usable_memory(), MiB(5))
        << "memory that is not locked has no such limit";
    EXPECT_EQ(probe_host(fake.root()).lockable_memory(), KiB(64));
    fake.write("sys/fs/cgroup/memory.max", "1048576\n");
    EXPECT_EQ(probe_host(fake.root()).usable_memory(), MiB(1));
}

TEST(Rlimits, LiveLimitsAreThoseOfTheSystemCall) {
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
    // Sanitizers reserve tens of TiB of addresses, and what reads the limits needs some more: just below the
    // whole space of 2^47 bytes all of them still run.
    const Bytes below_all = (Bytes{1} << 47) - GiB(1);
    const rlimit lowered{below_all, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_AS, &lowered), 0);
    const Rlimits found = read_rlimits();
    setrlimit(RLIMIT_AS, &before);
    EXPECT_EQ(found.address_space.limit, below_all);
    EXPECT_GT(found.address_space.used, MiB(1));
    EXPECT_LT(*found.address_space.left(), below_all);
}

}  // namespace
