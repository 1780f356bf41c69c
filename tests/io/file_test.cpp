// SPDX-License-Identifier: Apache-2.0
// Mapped files: the bytes arrive, moves keep them, and each reason not to open has its own error.
#include <zse/io/file.hpp>

#include <support/expect_error.hpp>
#include <support/temporary_directory.hpp>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace {

using support::expect_error;
using support::TemporaryDirectory;
using zse::ErrorCode;
using zse::io::MappedFile;

std::string contents(const MappedFile& file) {
    return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

std::filesystem::path write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return path;
}

/// Runs as nobody where the test runs as root, since root may read everything.
class Unprivileged {
public:
    Unprivileged() : root_(::geteuid() == 0) {
        if (root_) {
            EXPECT_EQ(::seteuid(65534), 0);
        }
    }
    Unprivileged(const Unprivileged&) = delete;
    Unprivileged& operator=(const Unprivileged&) = delete;
    ~Unprivileged() {
        if (root_) {
            EXPECT_EQ(::seteuid(0), 0);
        }
    }

private:
    bool root_;
};

TEST(MappedFile, HoldsTheBytesOfTheFile) {
    const TemporaryDirectory directory;
    const auto path = write(directory / "a", "four score");
    const MappedFile file = MappedFile::open(path);
    EXPECT_EQ(contents(file), "four score");
    EXPECT_EQ(file.size(), 10u);
    EXPECT_EQ(file.path(), path);
}

TEST(MappedFile, MovesWithoutMovingTheBytes) {
    const TemporaryDirectory directory;
    MappedFile first = MappedFile::open(write(directory / "a", "first"));
    MappedFile second = MappedFile::open(write(directory / "b", "second"));
    const std::byte* const address = first.bytes().data();
    second = std::move(first);
    EXPECT_EQ(second.bytes().data(), address);
    EXPECT_EQ(contents(second), "first");
    const MappedFile third(std::move(second));
    EXPECT_EQ(third.bytes().data(), address);
    EXPECT_EQ(contents(third), "first");
}

TEST(MappedFile, OutlivesTheNameOfTheFile) {
    const TemporaryDirectory directory;
    const auto path = write(directory / "a", "still here");
    const MappedFile file = MappedFile::open(path);
    std::filesystem::remove(path);
    EXPECT_EQ(contents(file), "still here");
}

/// Pages of a mapping that are resident according to /proc/self/smaps.
long resident_kilobytes(const void* address) {
    char wanted[32];
    std::snprintf(wanted, sizeof wanted, "%lx-", reinterpret_cast<unsigned long>(address));
    std::ifstream smaps("/proc/self/smaps");
    bool inside = false;
    for (std::string line; std::getline(smaps, line);) {
        if (line.rfind(wanted, 0) == 0) inside = true;
        if (inside && line.rfind("Rss:", 0) == 0) return std::stol(line.substr(4));
    }
    return -1;
}

TEST(MappedFile, ReleasedPagesLeaveMemoryAndComeBackEqual) {
    const TemporaryDirectory directory;
    const std::string text(std::size_t{1} << 20, 'x');
    const MappedFile file = MappedFile::open(write(directory / "a", text));
    ASSERT_EQ(contents(file), text);
    ASSERT_EQ(resident_kilobytes(file.bytes().data()), 1024);
    file.release(
        file.bytes().subspan(1, (std::size_t{1} << 19) - 1));  // its first page is only partly inside
    const long page = ::sysconf(_SC_PAGESIZE) / 1024;
    EXPECT_EQ(resident_kilobytes(file.bytes().data()), 512 + page);
    file.release(file.bytes());
    EXPECT_EQ(resident_kilobytes(file.bytes().data()), 0);
    EXPECT_EQ(contents(file), text);
}

TEST(MappedFile, ReleaseLeavesForeignMemoryAlone) {
    const TemporaryDirectory directory;
    const MappedFile file = MappedFile::open(write(directory / "a", "a"));
    const std::vector<std::byte> own(std::size_t{1} << 20, std::byte{7});
    file.release(own);
    EXPECT_EQ(own, std::vector<std::byte>(own.size(), std::byte{7}));
}

TEST(MappedFile, RefusesAMissingFile) {
    const TemporaryDirectory directory;
    expect_error([&] { MappedFile::open(directory / "absent.gguf"); }, ErrorCode::not_found,
                 {"absent.gguf", "no such file"});
    const auto path = write(directory / "a", "a");
    expect_error([&] { MappedFile::open(path / "below"); }, ErrorCode::not_found, {"below", "no such file"});
}

TEST(MappedFile, RefusesADirectory) {
    const TemporaryDirectory directory;
    expect_error([&] { MappedFile::open(directory.path()); }, ErrorCode::unreadable,
                 {directory.path().string(), "found a directory"});
}

TEST(MappedFile, RefusesAnEmptyFile) {
    const TemporaryDirectory directory;
    const auto path = write(directory / "empty.gguf", "");
    expect_error([&] { MappedFile::open(path); }, ErrorCode::corrupt, {"empty.gguf", "is empty"});
}

TEST(MappedFile, RefusesAFileWithoutPermission) {
    const TemporaryDirectory directory;
    const auto path = write(directory / "secret.gguf", "a");
    ASSERT_EQ(::chmod(path.c_str(), 0), 0);
    const Unprivileged unprivileged;
    expect_error([&] { MappedFile::open(path); }, ErrorCode::unreadable,
                 {"secret.gguf", "Permission denied"});
}

TEST(MappedFile, RefusesALoopOfLinks) {
    const TemporaryDirectory directory;
    std::filesystem::create_symlink("loop", directory / "loop");
    expect_error([&] { MappedFile::open(directory / "loop"); }, ErrorCode::unreadable,
                 {"loop", "cannot be opened"});
}

TEST(MappedFile, RefusesAPipeWithoutWaitingForIt) {
    const TemporaryDirectory directory;
    const auto path = directory / "pipe";
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    expect_error([&] { MappedFile::open(path); }, ErrorCode::unreadable, {"pipe", "expected a regular file"});
}

TEST(MappedFile, EscapesAHostileNameInItsMessage) {
    expect_error([] { MappedFile::open("a\n\x1b[31m.gguf"); }, ErrorCode::not_found,
                 {"a\\x0a\\x1b[31m.gguf"});
}

}  // namespace
