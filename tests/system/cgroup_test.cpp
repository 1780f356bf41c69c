// SPDX-License-Identifier: Apache-2.0
// Container limits from both versions of control groups: none, one, nested, and broken ones.
// rows: 15 98
#include <zse/system/cgroup.hpp>

#include <system/fake_root.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace {

using testing::HasSubstr;
using zse::Bytes;
using zse::ErrorCode;
using zse::GiB;
using zse::MiB;
using zse::system::Cgroup;
using zse::system::read_cgroup;
using zse_test::error_of;
using zse_test::FakeRoot;
using zse_test::stored_root;

constexpr std::string_view mount_v2 = "30 20 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

TEST(Cgroup, MaxMeansNoLimit) {
    const Cgroup group = read_cgroup(stored_root("normal"));
    EXPECT_EQ(group.version, 2);
    EXPECT_EQ(group.path, "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope");
    EXPECT_EQ(group.limit, std::nullopt);
    EXPECT_EQ(group.headroom(), std::nullopt);
    EXPECT_EQ(group.current, MiB(50));
    EXPECT_EQ(group.cpus, std::nullopt);
}

TEST(Cgroup, ReadsAContainerOfVersionTwo) {
    const Cgroup group = read_cgroup(stored_root("container_v2"));
    EXPECT_EQ(group.version, 2);
    EXPECT_EQ(group.path, "/sys/fs/cgroup");
    EXPECT_EQ(group.limit, MiB(64));
    EXPECT_EQ(group.current, MiB(20));
    EXPECT_EQ(group.reclaimable, MiB(8));
    EXPECT_EQ(group.headroom(), MiB(64 - (20 - 8)));
    EXPECT_EQ(group.cpus, 2.0);
}

TEST(Cgroup, ReadsAContainerOfVersionOneThatIsMountedAtItsOwnGroup) {
    const Cgroup group = read_cgroup(stored_root("container_v1"));
    EXPECT_EQ(group.version, 1);
    EXPECT_EQ(group.path, "/sys/fs/cgroup/memory");
    EXPECT_EQ(group.limit, GiB(16));
    EXPECT_EQ(group.current, GiB(5));
    EXPECT_EQ(group.reclaimable, GiB(3));
    EXPECT_EQ(group.headroom(), GiB(14));
    EXPECT_EQ(group.cpus, 3.5);
}

TEST(Cgroup, VersionOneSaysNoLimitWithALargeNumber) {
    FakeRoot fake;
    fake.write("proc/self/cgroup", "4:memory:/\n3:cpu:/\n0::/\n")
        .write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
        .write("sys/fs/cgroup/memory/memory.usage_in_bytes", "4096\n")
        .write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
        .write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    const Cgroup group = read_cgroup(fake.root());
    EXPECT_EQ(group.version, 1);
    EXPECT_EQ(group.limit, std::nullopt);
    EXPECT_EQ(group.current, 4096u);
    EXPECT_EQ(group.cpus, std::nullopt);
}

TEST(Cgroup, VersionOneKnowsLimitsAboveThatCannotBeSeen) {
    FakeRoot fake;
    fake.write("proc/self/cgroup", "4:memory:/\n")
        .write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
        .write("sys/fs/cgroup/memory/memory.usage_in_bytes", "4096\n")
        .write("sys/fs/cgroup/memory/memory.stat", "cache 0\nhierarchical_memory_limit 1048576\n");
    EXPECT_EQ(read_cgroup(fake.root()).limit, MiB(1));
    fake.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n");
    EXPECT_EQ(read_cgroup(fake.root()).limit, 8192u);
    fake.write("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 9223372036854771712\n");
    EXPECT_EQ(read_cgroup(fake.root()).limit, 8192u);
}

TEST(Cgroup, TheGroupWithTheLeastLeftBinds) {
    FakeRoot fake;
    fake.write("proc/self/cgroup", "0::/pod/box\n")
        .write("proc/self/mountinfo", mount_v2)
        .write("sys/fs/cgroup/pod/box/memory.max", "1000000\n")
        .write("sys/fs/cgroup/pod/box/memory.current", "100000\n")
        .write("sys/fs/cgroup/pod/box/cpu.max", "400000 100000\n")
        .write("sys/fs/cgroup/pod/memory.max", "2000000\n")
        .write("sys/fs/cgroup/pod/memory.current", "1900000\n")  // a neighbour in the pod holds the rest
        .write("sys/fs/cgroup/pod/cpu.max", "150000 100000\n");
    const Cgroup group = read_cgroup(fake.root());
    EXPECT_EQ(group.path, "/sys/fs/cgroup/pod");
    EXPECT_EQ(group.headroom(), 100000u);
    EXPECT_EQ(group.cpus, 1.5);
    fake.write("sys/fs/cgroup/pod/memory.current", "200000\n");
    EXPECT_EQ(read_cgroup(fake.root()).headroom(), 900000u);
    EXPECT_EQ(read_cgroup(fake.root()).path, "/sys/fs/cgroup/pod/box");
    fake.write("sys/fs/cgroup/pod/box/memory.max", "max\n");
    EXPECT_EQ(read_cgroup(fake.root()).headroom(), 1800000u);
}

TEST(Cgroup, MemoryHighIsALimitToo) {
    FakeRoot fake;
    fake.write("proc/self/cgroup", "0::/\n").write("sys/fs/cgroup/memory.high", "5000\n");
    EXPECT_EQ(read_cgroup(fake.root()).limit, 5000u);
    fake.write("sys/fs/cgroup/memory.max", "4000\n");
    EXPECT_EQ(read_cgroup(fake.root()).limit, 4000u);
    fake.write("sys/fs/cgroup/memory.max", "6000\n");
    EXPECT_EQ(read_cgroup(fake.root()).limit, 5000u);
}

TEST(Cgroup, HeadroomNeverWraps) {
    EXPECT_EQ((Cgroup{.limit = 100, .current = 150}.headroom()), 0u);
    EXPECT_EQ((Cgroup{.limit = 100, .current = 50, .reclaimable = 80}.headroom()), 100u);
    EXPECT_EQ((Cgroup{.limit = 100, .current = ~Bytes{0}}.headroom()), 0u);
}

TEST(Cgroup, APathOutsideOfTheMountIsReadAtTheMountPoint) {
    for (const std::string path : {"/../../other", "/elsewhere/box", "/docker/abcdef", "def", ""}) {
        FakeRoot fake;
        fake.write("proc/self/cgroup", "0::" + path + "\n")
            .write("proc/self/mountinfo",
                   "30 20 0:29 /docker/abc /cgroup\\040dir rw shared:1 - cgroup2 none rw\n")
            .write("cgroup dirdef/memory.max", "1\n")
            .write("cgroup dir/memory.max", "12345\n");
        const Cgroup group = read_cgroup(fake.root());
        EXPECT_EQ(group.limit, 12345u) << path;
        EXPECT_EQ(group.path, "/cgroup dir");
    }
}

TEST(Cgroup, APathThatLeadsOutOfTheMountIsNotFollowed) {
    for (const std::string path : {"/../other", "other"}) {
        FakeRoot fake;
        fake.write("proc/self/cgroup", "0::" + path + "\n")
            .write("proc/self/mountinfo", mount_v2)
            .write("sys/fs/other/memory.max", "1\n")
            .write("sys/fs/cgroupother/memory.max", "1\n")
            .write("sys/fs/cgroup/memory.max", "12345\n");
        EXPECT_EQ(read_cgroup(fake.root()).limit, 12345u) << path;
    }
}

TEST(Cgroup, WithoutGroupsThereIsNoLimit) {
    FakeRoot fake;
    const Cgroup group = read_cgroup(fake.root());
    EXPECT_EQ(group.version, 0);
    EXPECT_EQ(group.path, "");
    EXPECT_EQ(group.limit, std::nullopt);
    fake.write("proc/self/cgroup", "garbage\n::\n\n7").write("proc/self/mountinfo", "- - -\n x - cgroup2\n");
    EXPECT_EQ(read_cgroup(fake.root()).limit, std::nullopt);
}

TEST(Cgroup, AMisreadLimitIsAnErrorThatNamesTheFile) {
    for (const std::string text : {"", "lots", "-5", "64M", "12 13", "99999999999999999999"}) {
        FakeRoot fake;
        fake.write("proc/self/cgroup", "0::/\n").write("sys/fs/cgroup/memory.max", text);
        EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { read_cgroup(fake.root()); }),
                    HasSubstr("/sys/fs/cgroup/memory.max is expected to hold a number of bytes or 'max'"))
            << text;
    }
}

TEST(Cgroup, AMisreadQuotaIsAnErrorThatNamesTheFile) {
    for (const std::string text : {"fast 100000", "100000", "100000 0", "-1 100000", "100000 100000 7"}) {
        FakeRoot fake;
        fake.write("proc/self/cgroup", "0::/\n").write("sys/fs/cgroup/cpu.max", text);
        EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { read_cgroup(fake.root()); }),
                    HasSubstr("/sys/fs/cgroup/cpu.max"))
            << text;
    }
}

TEST(Cgroup, TheLiveGroupsCanBeRead) {
    const Cgroup group = read_cgroup();
    EXPECT_GE(group.version, 0);
    EXPECT_LE(group.version, 2);
    EXPECT_LE(group.headroom().value_or(0), group.limit.value_or(0));
    EXPECT_GT(group.cpus.value_or(1), 0);
}

}  // namespace
