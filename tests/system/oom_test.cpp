// SPDX-License-Identifier: Apache-2.0
// Evidence of the out-of-memory killer: a hit, no hit, a log that may not be read, and the count of a control group.
// rows: 92
#include <zse/system/oom.hpp>

#include <system/fake_root.hpp>
#include <system/unprivileged.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using zse::ErrorCode;
using zse::system::CommandResult;
using zse::system::find_oom_kills;
using zse::system::KernelLog;
using zse::system::OomKill;
using zse::system::read_group_kills;
using zse::system::read_kernel_log;
using zse_test::error_of;
using zse_test::FakeRoot;
using Status = KernelLog::Status;

// As Linux 6.1 writes them, with the record headers of /dev/kmsg.
constexpr std::string_view hits =
    "4,811,51243,-;zse invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, "
    "oom_score_adj=0\n"
    "6,823,51250,-;oom-kill:constraint=CONSTRAINT_NONE,task=zse,pid=4711,uid=1000\n"
    "3,824,51251,-;Out of memory: Killed process 4711 (zse) total-vm:9000kB, anon-rss:8000kB, file-rss:0kB\n"
    "3,900,61251,-;Memory cgroup out of memory: Killed process 4712 (tmux: server) total-vm:5kB, "
    "anon-rss:4kB\n";

TEST(Oom, FindsWhoWasKilled) {
    EXPECT_THAT(find_oom_kills(hits),
                ElementsAre(OomKill{4711, "zse", false}, OomKill{4712, "tmux: server", true}));
    EXPECT_THAT(find_oom_kills("[ 12.5] Killed process 9 (python3), UID 1000, total-vm:1kB"),
                ElementsAre(OomKill{9, "python3", false}))
        << "as dmesg and older kernels write it";
}

TEST(Oom, OtherLinesAreNoHit) {
    for (const char* text :
         {"", "\n\n", "6,1,2,-;Linux version 6.1\n", "zse invoked oom-killer: order=0\n", "Killed process\n",
          "Killed process many (zse)\n", "Killed process 12 zse\n", "Killed process 12 (zse\n",
          "oom_reaper: reaped process 4711 (zse), now anon-rss:0kB\n"}) {
        EXPECT_THAT(find_oom_kills(text), IsEmpty()) << text;
    }
}

TEST(Oom, TheLogIsReadWhereItIs) {
    FakeRoot fake;
    EXPECT_EQ(read_kernel_log(fake.root()).status, Status::absent);
    fake.write("dev/kmsg", hits);
    EXPECT_EQ(read_kernel_log(fake.root()).status, Status::read);
    EXPECT_EQ(read_kernel_log(fake.root()).text, hits);
}

TEST(Oom, ALogThatMayNotBeReadIsNoLogWithoutHits) {
    FakeRoot fake;
    fake.write("dev/kmsg", hits);
    std::filesystem::permissions(fake.root().at("dev/kmsg"), std::filesystem::perms::none);
    const zse_test::Nobody nobody;
    const KernelLog log = read_kernel_log(fake.root());
    EXPECT_EQ(log.status, Status::denied);
    EXPECT_EQ(log.text, "");
}

TEST(Oom, DmesgIsAskedWhereTheDeviceIsOfNoUse) {
    FakeRoot fake;
    std::vector<std::string> asked;
    const auto answer = [&asked](CommandResult result) {
        return [&asked, result](const std::vector<std::string>& arguments) {
            asked = arguments;
            return result;
        };
    };
    using Ended = CommandResult::Status;
    const KernelLog log = read_kernel_log(fake.root(), answer({Ended::finished, 0, "Killed process 1 (a)"}));
    EXPECT_THAT(asked, ElementsAre("dmesg"));
    EXPECT_EQ(log.status, Status::read);
    EXPECT_EQ(log.text, "Killed process 1 (a)");
    EXPECT_EQ(read_kernel_log(fake.root(), answer({Ended::finished, 1, ""})).status, Status::denied);
    EXPECT_EQ(read_kernel_log(fake.root(), answer({Ended::absent, 0, ""})).status, Status::absent);
    EXPECT_EQ(read_kernel_log(fake.root(), answer({Ended::timed_out, 0, "x"})).status, Status::absent);
    asked.clear();
    fake.write("dev/kmsg", "");
    EXPECT_EQ(read_kernel_log(fake.root(), answer({Ended::finished, 0, "x"})).text, "");
    EXPECT_THAT(asked, IsEmpty());
}

TEST(Oom, AGroupCountsItsKillsForEverybody) {
    FakeRoot fake;
    EXPECT_EQ(read_group_kills(fake.root()), std::nullopt);
    fake.write("proc/self/cgroup", "0::/pod/box\n")
        .write("proc/self/mountinfo", "30 20 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    EXPECT_EQ(read_group_kills(fake.root()), std::nullopt);
    fake.write("sys/fs/cgroup/pod/memory.events", "low 0\nhigh 1\nmax 2\noom 4\noom_kill 3\n");
    EXPECT_EQ(read_group_kills(fake.root()), 3u) << "a group above counts, too";
    fake.write("sys/fs/cgroup/pod/box/memory.events",
               "low 0\nhigh 0\nmax 0\noom 9\noom_kill 0\noom_group_kill 7\n");
    EXPECT_EQ(read_group_kills(fake.root()), 0u);
    fake.write("sys/fs/cgroup/pod/box/memory.events", "oom_kill many\n");
    EXPECT_THAT(
        error_of(ErrorCode::corrupt, [&] { read_group_kills(fake.root()); }),
        HasSubstr("/sys/fs/cgroup/pod/box/memory.events is expected to hold 'oom_kill' and a number"));
    FakeRoot first;
    first.write("proc/self/cgroup", "4:memory:/\n")
        .write("sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
    EXPECT_EQ(read_group_kills(first.root()), 5u);
}

TEST(Oom, TheLiveLogNeverThrows) {
    const KernelLog log = read_kernel_log({}, zse::system::run_within_seconds);
    EXPECT_EQ(log.status == Status::read, !log.text.empty());
}

}  // namespace
