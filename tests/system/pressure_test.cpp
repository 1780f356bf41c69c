// SPDX-License-Identifier: Apache-2.0
// Memory pressure from stored and live files, of the machine and of a group, and that watching it allocates nothing.
// rows: 97
#include <zse/system/pressure.hpp>

#include <system/fake_root.hpp>
#include <system/unprivileged.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>

namespace {
std::atomic<std::size_t> allocations{0};
}  // namespace

// Counts every allocation of this program.
[[gnu::noinline]] void* operator new(std::size_t size) {
    allocations.fetch_add(1);
    if (void* memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}

namespace {

using testing::HasSubstr;
using zse::ErrorCode;
using zse::system::group_pressure_file;
using zse::system::parse_pressure;
using zse::system::Pressure;
using zse::system::PressureLine;
using zse::system::PressureWatch;
using zse::system::read_pressure;
using zse_test::error_of;
using zse_test::FakeRoot;

constexpr std::string_view machine = "proc/pressure/memory";

std::string some(const std::string& avg10) {
    return "some avg10=" + avg10 + " avg60=2.25 avg300=0.50 total=1234567\n";
}
const std::string full = "full avg10=1.00 avg60=0.75 avg300=0.00 total=234567\n";

TEST(Pressure, ReadsBothLines) {
    const Pressure pressure = parse_pressure(some("12.34") + full, "file");
    EXPECT_EQ(pressure.some, (PressureLine{12.34, 2.25, 0.5, 1234567}));
    ASSERT_TRUE(pressure.full);
    EXPECT_EQ(*pressure.full, (PressureLine{1, 0.75, 0, 234567}));
    EXPECT_FALSE(parse_pressure(some("0.00"), "file").full) << "kernels before 5.13";
}

TEST(Pressure, MalformedTextIsAnErrorThatNamesTheFile) {
    for (const std::string& text :
         {std::string(), full, some("many"), some("-1.00"), some("100.01"), some("nan"), some("inf"),
          some(""), std::string("some avg10=1.00\n"),
          std::string("some avg60=1.00 avg10=1.00 avg300=0 total=0\n"),
          std::string("some avg10=1 avg60=1 avg300=1 total=-5\n"),
          std::string("some avg10=1 avg60=1 avg300=1 total=5 more=6\n"), some("1.00") + "full avg10=x\n"}) {
        EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { parse_pressure(text, "proc/pressure/memory"); }),
                    HasSubstr("proc/pressure/memory is expected to hold 'some avg10="))
            << text;
    }
}

TEST(Pressure, AbsentOrForbiddenIsNone) {
    FakeRoot fake;
    EXPECT_FALSE(read_pressure(fake.root(), std::string(machine)));
    EXPECT_FALSE(read_pressure(fake.root(), ""));
    EXPECT_FALSE(PressureWatch(fake.root()).present());
    EXPECT_EQ(PressureWatch(fake.root()).some_avg10(), std::nullopt);
    fake.write(machine, some("7.00"));
    EXPECT_EQ(read_pressure(fake.root(), std::string(machine))->some.avg10, 7);
    std::filesystem::permissions(fake.root().at(machine), std::filesystem::perms::none);
    const zse_test::Nobody nobody;
    EXPECT_FALSE(read_pressure(fake.root(), std::string(machine)));
    EXPECT_FALSE(PressureWatch(fake.root()).present());
}

TEST(Pressure, OfAGroupLiesInItsOwnFolder) {
    FakeRoot fake;
    EXPECT_EQ(group_pressure_file(fake.root()), "");
    fake.write("proc/self/cgroup", "4:memory:/box\n");
    EXPECT_EQ(group_pressure_file(fake.root()), "") << "version 1 has none";
    fake.write("proc/self/cgroup", "0::/pod/box\n")
        .write("proc/self/mountinfo", "30 20 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    EXPECT_EQ(group_pressure_file(fake.root()), "/sys/fs/cgroup/pod/box/memory.pressure");
    fake.write("sys/fs/cgroup/pod/box/memory.pressure", some("33.00"));
    EXPECT_EQ(read_pressure(fake.root(), group_pressure_file(fake.root()))->some.avg10, 33);
}

TEST(Pressure, TheWorseOfMachineAndGroupCounts) {
    FakeRoot fake;
    fake.write("proc/self/cgroup", "0::/\n").write("sys/fs/cgroup/memory.pressure", some("3.00"));
    fake.write(machine, some("1.00"));
    const PressureWatch watch(fake.root());
    EXPECT_TRUE(watch.present());
    EXPECT_EQ(watch.some_avg10(), 3);
    fake.write(machine, some("21.00"));
    EXPECT_EQ(watch.some_avg10(), 21) << "a file that is kept open is read anew";
    fake.write("sys/fs/cgroup/memory.pressure", "nonsense");
    EXPECT_EQ(watch.some_avg10(), 21);
    fake.write(machine, "nonsense");
    EXPECT_EQ(watch.some_avg10(), std::nullopt) << "in the middle of an answer it is no error";
}

TEST(Pressure, WatchingAllocatesNothing) {
    FakeRoot fake;
    fake.write(machine, some("12.50") + full);
    const PressureWatch watch(fake.root());
    const std::size_t before = allocations.load();
    double sum = 0;
    for (int i = 0; i < 100; ++i) sum += watch.some_avg10().value_or(0);
    EXPECT_EQ(allocations.load(), before);
    EXPECT_DOUBLE_EQ(sum, 1250);
}

TEST(Pressure, TheLiveFilesCanBeRead) {
    const auto pressure = read_pressure({}, std::string(machine));
    if (!pressure) GTEST_SKIP() << "this kernel does not account pressure";
    EXPECT_LE(pressure->some.avg10, 100);
    EXPECT_LE(PressureWatch().some_avg10().value_or(101), 100);
}

}  // namespace
