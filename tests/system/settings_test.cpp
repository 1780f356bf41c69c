// SPDX-License-Identifier: Apache-2.0
// Swappiness, overcommit and transparent huge pages from stored and live files, and what is said about broken ones.
// rows: 93 95 96
#include <zse/system/settings.hpp>

#include <system/fake_root.hpp>
#include <system/unprivileged.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

namespace {

using testing::AnyOf;
using testing::HasSubstr;
using zse::ErrorCode;
using zse::KiB;
using zse::system::Overcommit;
using zse::system::read_overcommit;
using zse::system::read_swappiness;
using zse::system::read_transparent_pages;
using zse_test::error_of;
using zse_test::FakeRoot;

TEST(Settings, SwappinessIsANumber) {
    FakeRoot fake;
    EXPECT_EQ(read_swappiness(fake.root()), std::nullopt);
    for (const unsigned value : {0u, 1u, 60u, 200u}) {
        fake.write("proc/sys/vm/swappiness", std::to_string(value) + "\n");
        EXPECT_EQ(read_swappiness(fake.root()), value);
    }
    for (const std::string text : {"", "201", "-1", "sixty", "60 70"}) {
        fake.write("proc/sys/vm/swappiness", text);
        EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { read_swappiness(fake.root()); }),
                    HasSubstr("proc/sys/vm/swappiness is expected to hold a number from 0 to 200"))
            << text;
    }
    std::filesystem::permissions(fake.root().at("proc/sys/vm/swappiness"), std::filesystem::perms::none);
    const zse_test::Nobody nobody;
    EXPECT_EQ(read_swappiness(fake.root()), std::nullopt);
}

TEST(Settings, OvercommitHasAModeAndALimit) {
    FakeRoot fake;
    EXPECT_EQ(read_overcommit(fake.root()).mode, std::nullopt);
    EXPECT_EQ(read_overcommit(fake.root()).left(), 0u);
    fake.write("proc/meminfo", "CommitLimit:  1000 kB\nCommitted_AS:  400 kB\n");
    for (const unsigned mode : {0u, 1u, 2u}) {
        fake.write("proc/sys/vm/overcommit_memory", std::to_string(mode) + "\n");
        const Overcommit over = read_overcommit(fake.root());
        EXPECT_EQ(over.mode, mode);
        EXPECT_EQ(over.limit, KiB(1000));
        EXPECT_EQ(over.left(), KiB(600));
    }
    fake.write("proc/meminfo", "CommitLimit:  1000 kB\nCommitted_AS:  4000 kB\n");
    EXPECT_EQ(read_overcommit(fake.root()).left(), 0u) << "more is promised than the limit";
    fake.write("proc/sys/vm/overcommit_memory", "3\n");
    EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { read_overcommit(fake.root()); }), HasSubstr("0 to 2"));
    fake.write("proc/sys/vm/overcommit_memory", "2\n").write("proc/meminfo", "CommitLimit:  much\n");
    EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { read_overcommit(fake.root()); }),
                HasSubstr("CommitLimit"));
}

TEST(Settings, TransparentPagesAreTheWordInBrackets) {
    FakeRoot fake;
    EXPECT_EQ(read_transparent_pages(fake.root()).mode, "");
    fake.write("proc/meminfo", "AnonHugePages:  4096 kB\n");
    const std::string file = "sys/kernel/mm/transparent_hugepage/enabled";
    for (const auto& [text, mode] : {std::pair{"[always] madvise never\n", "always"},
                                     {"always [madvise] never\n", "madvise"},
                                     {"always madvise [never]\n", "never"}}) {
        fake.write(file, text);
        EXPECT_EQ(read_transparent_pages(fake.root()).mode, mode);
        EXPECT_EQ(read_transparent_pages(fake.root()).used, KiB(4096));
    }
    for (const std::string text : {"", "always madvise never", "[]", "[sometimes]", "]madvise["}) {
        fake.write(file, text);
        EXPECT_THAT(error_of(ErrorCode::corrupt, [&] { read_transparent_pages(fake.root()); }),
                    HasSubstr("one of always, madvise and never in brackets"))
            << text;
    }
}

TEST(Settings, LiveOnesCanBeRead) {
    EXPECT_LE(read_swappiness().value_or(0), 200u);
    EXPECT_LE(read_overcommit().mode.value_or(0), 2u);
    EXPECT_THAT(read_transparent_pages().mode, AnyOf("", "always", "madvise", "never"));
}

}  // namespace
