// SPDX-License-Identifier: Apache-2.0
// All probes together: usable memory and threads on stored machines, in containers, and on this one.
// rows: 15 98
#include <zse/system/hardware.hpp>

#include <system/fake_root.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/sysinfo.h>

#include <string>
#include <vector>

namespace {

using testing::HasSubstr;
using zse::ErrorCode;
using zse::GiB;
using zse::KiB;
using zse::MiB;
using zse::system::CommandResult;
using zse::system::Hardware;
using zse::system::probe;
using zse_test::error_of;
using zse_test::FakeRoot;
using zse_test::stored_root;

CommandResult no_tool(const std::vector<std::string>&) {
    return {};
}

CommandResult one_gpu(const std::vector<std::string>&) {
    return {CommandResult::Status::finished, 0, "0, NVIDIA L4, 23034, 22000, 8.9\n"};
}

TEST(Hardware, WithoutALimitAllAvailableMemoryIsUsable) {
    const Hardware hardware = probe(stored_root("normal"), one_gpu);
    EXPECT_EQ(hardware.usable_memory(), KiB(120586240));
    EXPECT_EQ(hardware.usable_threads(), 8u);
    ASSERT_EQ(hardware.gpus.size(), 1u);
    EXPECT_EQ(hardware.gpus[0].total, MiB(23034));
    EXPECT_EQ(hardware.gpu_note, "");
}

TEST(Hardware, AContainersLimitBinds) {
    const Hardware second = probe(stored_root("container_v2"), no_tool);
    EXPECT_EQ(second.usable_memory(), MiB(52));
    EXPECT_EQ(second.usable_threads(), 2u);  // three CPUs, quota of two
    EXPECT_EQ(second.gpu_note, "no NVIDIA GPU found: there is no nvidia-smi");
    const Hardware first = probe(stored_root("container_v1"), no_tool);
    EXPECT_EQ(first.usable_memory(), GiB(14));
    EXPECT_EQ(first.usable_threads(), 3u);  // quota of 3.5
}

TEST(Hardware, ALimitAboveTheMachineDoesNotAdd) {
    FakeRoot fake;
    fake.write("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 600 kB\nMemAvailable: 700 kB\n")
        .write("proc/self/cgroup", "0::/\n")
        .write("sys/fs/cgroup/memory.max", "999999999999\n");
    EXPECT_EQ(probe(fake.root(), no_tool).usable_memory(), KiB(700));
    fake.write("sys/fs/cgroup/memory.max", "8192\n").write("sys/fs/cgroup/memory.current", "9000\n");
    EXPECT_EQ(probe(fake.root(), no_tool).usable_memory(), 0u);
}

TEST(Hardware, ASmallOrHugeQuotaStillGivesThreads) {
    Hardware hardware;
    hardware.cpu.allowed = 4;
    for (const auto& [quota, threads] : std::vector<std::pair<double, unsigned>>{
             {0.0, 1}, {0.5, 1}, {1.9, 1}, {2.0, 2}, {3.99, 3}, {4.0, 4}, {1e300, 4}}) {
        hardware.cgroup.cpus = quota;
        EXPECT_EQ(hardware.usable_threads(), threads) << quota;
    }
}

TEST(Hardware, MalformedFilesAreErrorsNotNumbers) {
    FakeRoot fake;
    EXPECT_THAT(error_of(ErrorCode::not_found, [&] { probe(fake.root(), no_tool); }),
                HasSubstr("proc/meminfo"));
    fake.write("proc/meminfo", "MemTotal: lots kB\n");
    EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { probe(fake.root(), no_tool); }), HasSubstr("MemTotal"));
    fake.write("proc/meminfo", std::string((16u << 20) + 1, 'x'));
    EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { probe(fake.root(), no_tool); }), HasSubstr("holds more"));
}

TEST(Hardware, ThisMachineCanBeProbed) {
    const Hardware hardware = probe();
    struct sysinfo info {};
    ASSERT_EQ(::sysinfo(&info), 0);
    EXPECT_EQ(hardware.memory.total, zse::Bytes{info.totalram} * info.mem_unit);
    EXPECT_GT(hardware.usable_memory(), 0u);
    EXPECT_LE(hardware.usable_memory(), hardware.memory.total);
    EXPECT_GE(hardware.usable_threads(), 1u);
    EXPECT_LE(hardware.usable_threads(), hardware.cpu.logical);
}

}  // namespace
