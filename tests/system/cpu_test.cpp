// SPDX-License-Identifier: Apache-2.0
// The processor from stored and live files: cores, caches, instruction sets, allowed CPUs.
// rows: 15
#include <zse/system/cpu.hpp>

#include <system/fake_root.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sched.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <string_view>

namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using zse::KiB;
using zse::system::Cache;
using zse::system::Cpu;
using zse::system::names;
using zse::system::parse_cpuinfo;
using zse::system::read_cpu;
using zse::system::detail::cache_size;
using zse::system::detail::list_size;

TEST(Cpu, ReadsTwoSocketsWithTwoThreadsACore) {
    const Cpu cpu = read_cpu(zse_test::stored_root("normal"));
    EXPECT_EQ(cpu.model, "Intel(R) Xeon(R) Platinum 8480C");
    EXPECT_EQ(cpu.logical, 8u);
    EXPECT_EQ(cpu.physical, 4u);
    EXPECT_EQ(cpu.allowed, 8u);
    EXPECT_THAT(cpu.caches,
                ElementsAre(Cache{1, "Data", KiB(48), 2}, Cache{1, "Instruction", KiB(32), 2},
                            Cache{2, "Unified", KiB(2048), 2}, Cache{3, "Unified", KiB(107520), 4}));
    EXPECT_THAT(
        names(cpu.instructions),
        ElementsAre("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq",
                    "avx512vl", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"));
}

TEST(Cpu, ReadsArmWhereCoresStandInSysOnly) {
    const Cpu cpu = read_cpu(zse_test::stored_root("arm"));
    EXPECT_EQ(cpu.model, "implementer 0x41, part 0xd0c");
    EXPECT_EQ(cpu.logical, 4u);
    EXPECT_EQ(cpu.physical, 2u);
    EXPECT_EQ(cpu.allowed, 2u);
    EXPECT_THAT(cpu.caches, IsEmpty());
    EXPECT_THAT(names(cpu.instructions), ElementsAre("neon", "dotprod", "i8mm"));
}

TEST(Cpu, EachInstructionSetIsReadByItsOwnWord) {
    for (const auto& set : zse::system::instruction_sets) {
        const std::string text = "processor : 0\nflags : x " + std::string(set.word) + " y\n";
        EXPECT_THAT(names(parse_cpuinfo(text).instructions), ElementsAre(set.name));
        // A word that only begins with it is another one.
        const std::string longer = "processor : 0\nflags : " + std::string(set.word) + "zz\n";
        EXPECT_THAT(names(parse_cpuinfo(longer).instructions), IsEmpty());
    }
}

TEST(Cpu, EqualsWhatTheLibraryAndTheCompilerSayOfThisMachine) {
    const Cpu cpu = read_cpu();
    EXPECT_EQ(cpu.logical, static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_ONLN)));
    EXPECT_GE(cpu.physical, 1u);
    EXPECT_LE(cpu.physical, cpu.logical);
    ::cpu_set_t set;
    CPU_ZERO(&set);
    ASSERT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
    EXPECT_EQ(cpu.allowed, static_cast<unsigned>(CPU_COUNT(&set)));
#if defined(__x86_64__)
    EXPECT_EQ(cpu.instructions.sse4_2, __builtin_cpu_supports("sse4.2") != 0);
    EXPECT_EQ(cpu.instructions.avx2, __builtin_cpu_supports("avx2") != 0);
    EXPECT_EQ(cpu.instructions.avx512bw, __builtin_cpu_supports("avx512bw") != 0);
#endif
}

TEST(Cpu, AnEmptyMachineHasOneCpu) {
    zse_test::FakeRoot empty;
    const Cpu cpu = read_cpu(empty.root());
    EXPECT_EQ(cpu.model, "unknown");
    EXPECT_EQ(cpu.logical, 1u);
    EXPECT_EQ(cpu.physical, 1u);
    EXPECT_EQ(cpu.allowed, 1u);
}

TEST(Cpu, WithoutCpuinfoTheOnlineListCounts) {
    zse_test::FakeRoot fake;
    fake.write("sys/devices/system/cpu/online", "0-2,5\n");
    EXPECT_EQ(read_cpu(fake.root()).logical, 4u);
    EXPECT_EQ(read_cpu(fake.root()).allowed, 4u);
}

TEST(Cpu, GarbageLeavesDefaults) {
    zse_test::FakeRoot fake;
    fake.write("proc/cpuinfo", std::string_view("processor\xff:\n::::\n\0\0model name", 28))
        .write("proc/self/status", "Cpus_allowed_list:\t7-3\n")
        .write("sys/devices/system/cpu/cpu0/cache/index0/level", "first\n")
        .write("sys/devices/system/cpu/cpu0/cache/index0/size", "48K\n")
        .write("sys/devices/system/cpu/cpu0/cache/index1/level", "2\n")
        .write("sys/devices/system/cpu/cpu0/cache/index1/size", "large\n")
        .write("sys/devices/system/cpu/cpu0/cache/index2/level", "3\n")
        .write("sys/devices/system/cpu/cpu0/cache/index2/size", "4M\n");
    const Cpu cpu = read_cpu(fake.root());
    EXPECT_EQ(cpu.logical, 1u);
    EXPECT_EQ(cpu.allowed, 1u);
    EXPECT_THAT(cpu.caches, ElementsAre(Cache{3, "Unified", zse::MiB(4), 1}));
}

TEST(Cpu, AllowedCpusAreAtMostThoseOnline) {
    zse_test::FakeRoot fake;
    fake.write("proc/cpuinfo", "processor : 0\n\nprocessor : 1\n")
        .write("proc/self/status", "Cpus_allowed_list:\t0-127\n");
    EXPECT_EQ(read_cpu(fake.root()).allowed, 2u);
}

TEST(CpuList, CountsItsMembers) {
    EXPECT_EQ(list_size("0"), 1u);
    EXPECT_EQ(list_size("0-3,8,10-11\n"), 7u);
    EXPECT_EQ(list_size(" 4-4 "), 1u);
}

TEST(CpuList, RefusesWhatIsNoList) {
    for (const std::string list : {"", "\n", "a", "1-", "-", "1-,2", "-1", "3-1", "1,,2", "1-2-3",
                                   "0-99999999", "4294967296", "0-5x"}) {
        EXPECT_EQ(list_size(list), std::nullopt) << list;
    }
}

TEST(CacheSize, KnowsItsUnits) {
    EXPECT_EQ(cache_size("48K\n"), KiB(48));
    EXPECT_EQ(cache_size("32M"), zse::MiB(32));
    EXPECT_EQ(cache_size("512"), 512u);
    EXPECT_EQ(cache_size("18446744073709551615G"), ~zse::Bytes{0});
    EXPECT_EQ(cache_size(""), std::nullopt);
    EXPECT_EQ(cache_size("K"), std::nullopt);
    EXPECT_EQ(cache_size("12T"), std::nullopt);
}

}  // namespace
