// SPDX-License-Identifier: Apache-2.0
// Files of the disk tier hold what the ledger says, vanish with the process, and refuse a directory that is no good;
// transfers arrive whole, in parallel, and say which of them failed.
// rows: 43
#include <zse/core/checksum.hpp>
#include <zse/memory/arena.hpp>
#include <zse/memory/transfers.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/temporary_directory.hpp>

#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <vector>

namespace {

using namespace zse::memory;
using zse::Bytes;
using zse::ErrorCode;
using zse::KiB;
using zse::MiB;

DiskArena disk(Ledger& ledger, Bytes bytes, const std::filesystem::path& directory) {
    return DiskArena(ledger.reserve(Tier::disk, Kind::kv, bytes).value(), directory);
}
Arena memory(Ledger& ledger, Bytes bytes) {
    return Arena(ledger.reserve(Tier::host, Kind::staging, bytes).value());
}

TEST(DiskArena, HoldsWhatTheLedgerSaysAndNoName) {
    const support::TemporaryDirectory directory;
    Ledger ledger;
    {
        const DiskArena file = disk(ledger, MiB(3) + 5, directory.path());
        EXPECT_EQ(file.size(), MiB(3) + 5);
        EXPECT_GE(file.allocated(), MiB(4)) << "all blocks are there before the first write";
        EXPECT_EQ(ledger.held(Tier::disk)[Kind::kv], MiB(3) + 5);
        EXPECT_EQ(ledger.held(Tier::disk).total(), MiB(4));
        EXPECT_TRUE(std::filesystem::is_empty(directory.path()))
            << "nobody else can open it, or has to delete it";
    }
    EXPECT_EQ(ledger.held(Tier::disk).total(), 0u);
    EXPECT_EQ(ledger.reserved(Tier::disk).total(), 0u);
}

TEST(DiskArena, CapOfTheTierIsOfWholeFiles) {
    Ledger ledger(Caps{0, MiB(64), MiB(4)});
    EXPECT_FALSE(ledger.reserve(Tier::disk, Kind::kv, MiB(4) + 1).ok());
    EXPECT_TRUE(ledger.reserve(Tier::disk, Kind::kv, MiB(4)).ok());
}

TEST(DiskArena, BytesComeBackAsTheyWere) {
    const support::TemporaryDirectory directory;
    Ledger ledger;
    const DiskArena file = disk(ledger, MiB(1), directory.path());
    const Arena written = memory(ledger, KiB(64));
    const Arena read = memory(ledger, KiB(64));
    for (std::size_t i = 0; i < KiB(64); ++i) written.data()[i] = std::byte(i * 7 + i / 251);
    ASSERT_EQ(file.write(KiB(512), written.bytes()), 0);
    ASSERT_EQ(file.read(KiB(512), read.bytes()), 0);
    EXPECT_TRUE(std::equal(written.bytes().begin(), written.bytes().end(), read.bytes().begin()));
    ASSERT_EQ(file.read(KiB(508), read.bytes().first(KiB(8))), 0);
    EXPECT_EQ(read.data()[0], std::byte{0}) << "what was not written is zero";
    EXPECT_EQ(read.data()[KiB(4) + 1], written.data()[1]);
    EXPECT_EQ(file.read(MiB(1), read.bytes()), EIO) << "beyond the end";
}

TEST(DiskArena, DirectoriesThatAreNoGoodAreNamed) {
    const support::TemporaryDirectory directory;
    Ledger ledger;
    const auto missing = directory.path() / "missing";
    support::expect_error([&] { disk(ledger, KiB(4), missing); }, ErrorCode::usage,
                          {"missing: expected a directory for files of the disk tier"});
    support::expect_error([&] { disk(ledger, KiB(4), "/proc"); }, ErrorCode::usage, {"/proc"});
    EXPECT_EQ(ledger.reserved(Tier::disk).total(), 0u) << "a refusal gives its reservation back";
}

TEST(DiskArena, AFullDiskIsARefusal) {
    const support::TemporaryDirectory directory;
    Ledger ledger;
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit lowered{MiB(2), before.rlim_max};
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &lowered), 0);
    support::expect_error([&] { disk(ledger, MiB(4), directory.path()); }, ErrorCode::out_of_memory,
                          {"refused 4194304 bytes for kv"});
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_EQ(ledger.reserved(Tier::disk).total(), 0u);
    EXPECT_EQ(ledger.held(Tier::disk).total(), 0u);
}

TEST(Transfers, AllArriveWhateverTheirNumber) {
    const support::TemporaryDirectory directory;
    Ledger ledger;
    const DiskArena file = disk(ledger, MiB(4), directory.path());
    const Arena written = memory(ledger, MiB(4));
    const Arena read = memory(ledger, MiB(4));
    for (std::size_t i = 0; i < MiB(4); ++i) written.data()[i] = std::byte(i * 13 + i / 4096);
    Transfers transfers(3, 8);  // far fewer places than transfers
    TransferGroup group;
    for (const bool write : {true, false}) {
        for (Bytes at = 0; at < MiB(4); at += KiB(16)) {
            transfers.submit({&file, at, (write ? written : read).data() + at, KiB(16), write, nullptr,
                              nullptr, 0, &group});
        }
        ASSERT_EQ(group.wait(), 0);
        EXPECT_TRUE(group.done());
    }
    EXPECT_TRUE(std::equal(written.bytes().begin(), written.bytes().end(), read.bytes().begin()));
    EXPECT_EQ(transfers.counts().read_bytes, MiB(4));
    EXPECT_EQ(transfers.counts().written_bytes, MiB(4));
}

TEST(Transfers, ChecksSeeWhatMovedAndFailTheirGroupAlone) {
    const support::TemporaryDirectory directory;
    Ledger ledger;
    const DiskArena file = disk(ledger, KiB(64), directory.path());
    const Arena bytes = memory(ledger, KiB(64));
    Transfers transfers(2, 4);
    TransferGroup good, bad;
    // The context is the checksum that is expected: kept by the write, compared by the read.
    std::uint64_t sum = 0;
    const auto check = [](const Transfer& t) noexcept {
        auto& kept = *static_cast<std::uint64_t*>(t.context);
        const std::uint64_t now = zse::checksum({t.memory, t.bytes}, t.tag);
        if (t.write) kept = now;
        return now == kept ? 0 : EBADMSG;
    };
    bytes.data()[9] = std::byte{9};
    transfers.submit({&file, 0, bytes.data(), KiB(4), true, check, &sum, 77, &good});
    ASSERT_EQ(good.wait(), 0);
    std::memset(bytes.data(), 0, KiB(4));
    transfers.submit({&file, 0, bytes.data(), KiB(4), false, check, &sum, 77, &good});
    transfers.submit({&file, KiB(8), bytes.data() + KiB(8), KiB(4), false, check, &sum, 77, &bad});
    EXPECT_EQ(good.wait(), 0);
    EXPECT_EQ(bytes.data()[9], std::byte{9});
    EXPECT_EQ(bad.wait(), EBADMSG) << "another block";
    EXPECT_EQ(bad.wait(), 0) << "an error is told once";
    transfers.submit({&file, 0, bytes.data(), KiB(4), false, check, &sum, 78, &bad});
    EXPECT_EQ(bad.wait(), EBADMSG) << "the right bytes in the wrong place";
}

}  // namespace
