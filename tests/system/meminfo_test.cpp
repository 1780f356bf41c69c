// SPDX-License-Identifier: Apache-2.0
// Memory from stored and live /proc/meminfo, and what is said about a broken one.
// rows: 15
#include <zse/system/meminfo.hpp>

#include <system/fake_root.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/sysinfo.h>
#include <unistd.h>

#include <string>

namespace {

using testing::HasSubstr;
using zse::ErrorCode;
using zse::KiB;
using zse::MiB;
using zse::system::Memory;
using zse::system::parse_meminfo;
using zse::system::read_memory;
using zse_test::error_of;

TEST(Meminfo, ReadsTheStoredMachine) {
    const Memory expected{.total = KiB(131072000),
                          .available = KiB(120586240),
                          .free = KiB(98304000),
                          .swap_total = KiB(8388608),
                          .swap_free = KiB(8000000),
                          .huge_page_size = MiB(2),
                          .huge_pages_total = 512,
                          .huge_pages_free = 500};
    EXPECT_EQ(read_memory(zse_test::stored_root("normal")), expected);
}

TEST(Meminfo, LiveTotalsEqualWhatTheKernelTellsByItsCalls) {
    const Memory memory = read_memory();
    struct sysinfo info {};
    ASSERT_EQ(::sysinfo(&info), 0);
    EXPECT_EQ(memory.total, zse::Bytes{info.totalram} * info.mem_unit);
    EXPECT_EQ(memory.swap_total, zse::Bytes{info.totalswap} * info.mem_unit);
    const auto pages = static_cast<zse::Bytes>(::sysconf(_SC_PHYS_PAGES));
    EXPECT_EQ(memory.total, pages * static_cast<zse::Bytes>(::sysconf(_SC_PAGESIZE)));
    EXPECT_GT(memory.available, 0u);
    EXPECT_LE(memory.free, memory.total);
}

TEST(Meminfo, MissingFieldsHaveTheirStatedValues) {
    const Memory old_kernel = parse_meminfo("MemTotal: 1000 kB\nMemFree: 400 kB\n");
    EXPECT_EQ(old_kernel, (Memory{.total = KiB(1000), .available = KiB(400), .free = KiB(400)}));
}

TEST(Meminfo, ReadsWithoutATrailingNewline) {
    EXPECT_EQ(parse_meminfo("MemFree: 4 kB\nMemTotal: 10 kB").total, KiB(10));
}

TEST(Meminfo, AMissingRequiredFieldIsNamed) {
    EXPECT_THAT(error_of(ErrorCode::corrupt, [] { parse_meminfo(""); }), HasSubstr("MemTotal"));
    EXPECT_THAT(error_of(ErrorCode::corrupt, [] { parse_meminfo("MemTotal: 1 kB\n"); }),
                HasSubstr("MemFree"));
    // A longer name is another field.
    EXPECT_THAT(error_of(ErrorCode::corrupt, [] { parse_meminfo("MemTotals: 1 kB\nMemFree: 1 kB\n"); }),
                HasSubstr("MemTotal"));
}

TEST(Meminfo, AMalformedFieldIsNamedWithWhatWasFound) {
    for (const std::string value :
         {"", "kB", "many kB", "-1 kB", "1.5 kB", "12", "12 MB", "12 kB extra", "0x10 kB",
          "99999999999999999999 kB", "18446744073709551615 kB", "\x01\x02 kB"}) {
        const std::string text = "MemTotal: " + value + "\nMemFree: 1 kB\n";
        EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { parse_meminfo(text); }),
                    HasSubstr("meminfo: MemTotal"))
            << value;
    }
    const auto huge = [] { parse_meminfo("MemTotal: 1 kB\nMemFree: 1 kB\nHugePages_Total: 5 kB\n"); };
    EXPECT_THAT(error_of(ErrorCode::corrupt, huge),
                HasSubstr("HugePages_Total is expected to be a number, found '5 kB'"));
}

TEST(Meminfo, AnUnreadableFileIsNotFound) {
    zse_test::FakeRoot empty;
    EXPECT_THAT(error_of(ErrorCode::not_found, [&] { read_memory(empty.root()); }),
                HasSubstr("proc/meminfo"));
    std::filesystem::create_directories(empty.root().at("proc/meminfo"));  // a directory in its place
    EXPECT_THAT(error_of(ErrorCode::not_found, [&] { read_memory(empty.root()); }), HasSubstr("mount /proc"));
}

}  // namespace
