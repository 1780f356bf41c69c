// SPDX-License-Identifier: Apache-2.0
// What may happen to the file of a prompt cache: processes that are killed, bytes that are flipped, torn, swapped or old,
// files that are others', disks that are full or gone. Never is a block read that is not what was written.
// rows: 57 43
// timeout: 300
#include "prompt_store.hpp"

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>

namespace {

using namespace support;
using zse::ErrorCode;

/// The smallest file of three slots.
constexpr Bytes small = KiB(4) * (1 + 1 + 2 * 3);

/// Reads what is left after the file was changed; nothing that is read may be wrong, and afterwards the store works.
std::size_t left_in(const std::filesystem::path& directory, Bytes size, std::uint32_t prompt,
                    std::uint32_t blocks, const std::string& what) {
    std::size_t left = 0;
    {
        OpenStore open(directory, size);
        left = open.read(prompt, blocks);
        EXPECT_EQ(open.wrong, 0u) << what;
        EXPECT_FALSE(open.store->off()) << what;
        EXPECT_EQ(open.put(prompt, blocks), blocks) << what;
        EXPECT_EQ(open.read(prompt, blocks), blocks) << what;
        EXPECT_EQ(open.wrong, 0u) << what;
    }
    return left;
}

TEST(PromptStoreFaults, AFlippedByteIsNeverRead) {
    const TemporaryDirectory directory;
    const auto path = stored_file(directory.path());
    const auto layout = kv::PromptLayout::of(stored_page_tokens, stored_pages_bytes, small, 32);
    ASSERT_EQ(layout.slots, 3u);
    OpenStore(directory.path(), small).put(1, 3);
    const std::vector<char> whole = file_bytes(path);
    std::size_t lost = 0;
    for (std::size_t at = 0; at < whole.size(); at += at < layout.slot_at(0) ? (at % 64 < 8 ? 1 : 5) : 251) {
        std::vector<char> flipped = whole;
        flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
        write_file(path, flipped);
        if (at < 8) {  // no longer ours
            support::expect_error([&] { OpenStore(directory.path(), small); }, ErrorCode::corrupt,
                                  {"expected a prompt cache of zse"});
            continue;
        }
        const std::size_t left = left_in(directory.path(), small, 1, 3, zse::text("byte ", at));
        const bool record = at >= layout.record_at(0) && at < layout.record_at(3);
        const std::size_t slot = record ? (at - layout.record_at(0)) / layout.record_bytes()
                                        : (at - std::min(at, layout.slot_at(0))) / layout.slot_bytes();
        const bool page =
            at >= layout.slot_at(0) && (at - layout.slot_at(0)) % layout.slot_bytes() < stored_pages_bytes;
        if (record || page) {
            EXPECT_EQ(left, slot) << "those in front of the damaged one stay: byte " << at;
            ++lost;
        }
    }
    EXPECT_GT(lost, 50u);
}

TEST(PromptStoreFaults, TornSwappedAndOldPagesAreNeverRead) {
    const TemporaryDirectory directory;
    const auto path = stored_file(directory.path());
    OpenStore(directory.path(), small).put(1, 3);
    const std::vector<char> first = file_bytes(path);
    {
        OpenStore open(directory.path(), small);
        open.put(2, 3);
        EXPECT_EQ(open.store->counts().evicted, 3u);
    }
    const std::vector<char> second = file_bytes(path);
    const auto layout = kv::PromptLayout::of(stored_page_tokens, stored_pages_bytes, small, 32);
    const auto record = [&](std::size_t slot) { return static_cast<std::ptrdiff_t>(layout.record_at(slot)); };
    const auto pages = [&](std::size_t slot) { return static_cast<std::ptrdiff_t>(layout.slot_at(slot)); };
    const auto record_size = static_cast<std::ptrdiff_t>(layout.record_bytes());
    const auto pages_size = static_cast<std::ptrdiff_t>(layout.slot_bytes());
    const auto expect = [&](const std::vector<char>& bytes, std::uint32_t prompt, std::size_t most,
                            const char* what) {
        write_file(path, bytes);
        EXPECT_LE(left_in(directory.path(), small, prompt, 3, what), most) << what;
    };
    for (std::size_t slot = 0; slot < 3; ++slot) {
        for (const std::ptrdiff_t from : {std::ptrdiff_t{0}, pages_size / 4, pages_size / 2}) {
            std::vector<char> torn = second;
            std::copy_n(first.begin() + pages(slot) + from, pages_size - from,
                        torn.begin() + pages(slot) + from);
            expect(torn, 2, 2, "half of a page is that of an older one");
            std::fill_n(torn.begin() + pages(slot) + from, pages_size - from, '\0');
            expect(torn, 2, 2, "half of a page is zero");
        }
        std::vector<char> old = second;
        std::copy_n(first.begin() + record(slot), record_size, old.begin() + record(slot));
        expect(old, 2, 2, "an older record");
        expect(old, 1, 2, "an older record");
        old = second;
        std::copy_n(first.begin() + record(slot), record_size, old.begin() + record(slot));
        std::copy_n(first.begin() + pages(slot), pages_size, old.begin() + pages(slot));
        expect(old, 2, 2, "an older block in the middle of others");
        expect(old, 1, 1, "an older block in the middle of others");
    }
    std::vector<char> swapped = second;
    std::swap_ranges(swapped.begin() + pages(0), swapped.begin() + pages(1), swapped.begin() + pages(1));
    expect(swapped, 2, 1, "pages of two slots swapped");
    swapped = second;
    std::swap_ranges(swapped.begin() + record(1), swapped.begin() + record(2), swapped.begin() + record(2));
    expect(swapped, 2, 1, "records of two slots swapped");
    std::swap_ranges(swapped.begin() + pages(1), swapped.begin() + pages(2), swapped.begin() + pages(2));
    expect(swapped, 2, 1, "two slots swapped, whole");
    for (const std::size_t size : {std::size_t{0}, std::size_t{100}, second.size() / 2, second.size() - 1}) {
        expect({second.begin(), second.begin() + static_cast<std::ptrdiff_t>(size)}, 2, 0, "cut short");
    }
    std::vector<char> longer = second;
    longer.resize(longer.size() + 1000, 'x');
    expect(longer, 2, 0, "too long");
    EXPECT_EQ(std::filesystem::file_size(path), small);
    expect(std::vector<char>(small, '\0'), 2, 0, "made, but never written");
}

/// What a child says of itself before it is killed.
struct Progress {
    std::atomic<std::uint32_t> prompt;  ///< the last one that is in the file
    std::atomic<std::uint64_t> written;
};

constexpr std::uint32_t kill_prompts = 24;
constexpr std::uint32_t blocks_of(std::uint32_t prompt) {
    return 1 + prompt % 7;
}

[[noreturn]] void write_until_killed(const std::filesystem::path& directory, std::uint64_t seed,
                                     Progress& progress) {
    try {
        OpenStore open(directory, KiB(320));  // for about half of the prompts
        while (true) {
            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            const auto prompt = static_cast<std::uint32_t>((seed >> 33) % kill_prompts) + 1;
            open.read(prompt, blocks_of(prompt), 1 + prompt % 3);
            open.put(prompt, blocks_of(prompt), 1 + prompt % 3);
            if (open.wrong != 0 || open.store->off()) ::_exit(3);
            // So that the next one does not take its place.
            open.store->touch(open.path(prompt, blocks_of(prompt), 1 + prompt % 3).back());
            progress.prompt = prompt;
            progress.written = open.store->counts().written;
        }
    } catch (...) {
        ::_exit(4);
    }
}

TEST(PromptStoreFaults, AKillAtAnyMomentLosesOnlyWhatWasNotFinished) {
    const TemporaryDirectory directory;
    auto* const progress = static_cast<Progress*>(
        ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(progress, MAP_FAILED);
    std::uint64_t random = 12345, written = 0;
    std::size_t read = 0;
    for (int kill = 0; kill < 100; ++kill) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        progress->prompt = 0;
        progress->written = 0;
        const pid_t child = ::fork();
        if (child == 0) write_until_killed(directory.path(), random, *progress);
        ::usleep(static_cast<useconds_t>(2000 + (random >> 33) % 30000));
        ::kill(child, SIGKILL);
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status)) << "the child found a wrong block: status " << WEXITSTATUS(status);
        written += progress->written;

        OpenStore open(directory.path(), KiB(320));
        for (std::uint32_t prompt = 1; prompt <= kill_prompts; ++prompt) {
            const std::size_t found = open.read(prompt, blocks_of(prompt), 1 + prompt % 3);
            read += found;
            if (prompt == progress->prompt) {
                EXPECT_EQ(found, blocks_of(prompt)) << "it was finished before the kill";
            }
        }
        ASSERT_EQ(open.wrong, 0u) << "kill " << kill;
        EXPECT_EQ(open.store->counts().damaged, 0u) << "what a kill leaves is whole or empty";
    }
    EXPECT_GT(written, 100u);
    EXPECT_GT(read, 1000u);
    ::munmap(progress, sizeof(Progress));
}

TEST(PromptStoreFaults, WhatIsNoDirectoryOrNoneOfOursIsNamed) {
    const TemporaryDirectory directory;
    const auto file = directory / "file";
    write_file(file, {'x'});
    support::expect_error([&] { OpenStore open(file); }, ErrorCode::usage,
                          {"file: expected a directory for the prompt cache"});
    support::expect_error([&] { OpenStore open(file / "below"); }, ErrorCode::usage,
                          {"expected a directory"});
    support::expect_error([] { OpenStore open("/proc"); }, ErrorCode::usage, {"/proc", "cannot be opened"});
    EXPECT_EQ(OpenStore(directory / "made" / "for" / "it").put(1, 2), 2u);

    const auto path = stored_file(directory.path());
    write_file(path, std::vector<char>(100, 'x'));
    support::expect_error([&] { OpenStore open(directory.path()); }, ErrorCode::corrupt,
                          {"expected a prompt cache of zse", "move it away"});
    EXPECT_EQ(file_bytes(path), std::vector<char>(100, 'x')) << "others' files stay as they are";
    std::filesystem::remove(path);
    std::filesystem::create_symlink(file, path);
    support::expect_error([&] { OpenStore open(directory.path()); }, ErrorCode::usage, {"cannot be opened"});
    EXPECT_EQ(file_bytes(file), std::vector<char>{'x'});
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    support::expect_error([&] { OpenStore open(directory.path()); }, ErrorCode::usage, {"cannot be opened"});
    std::filesystem::remove(path);
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    support::expect_error([&] { OpenStore open(directory.path()); }, ErrorCode::corrupt, {"is none"});
}

TEST(PromptStoreFaults, ADirectoryThatVanishesIsNoLossToTheRunningEngine) {
    const TemporaryDirectory directory;
    const auto path = directory / "store";
    OpenStore open(path);
    open.put(1, 3);
    std::filesystem::remove_all(path);
    EXPECT_EQ(open.put(2, 3), 3u);
    EXPECT_EQ(open.read(1, 3) + open.read(2, 3), 6u);
    OpenStore next(path);
    EXPECT_EQ(next.read(1, 3), 0u);
    EXPECT_EQ(next.put(1, 3), 3u);
    EXPECT_EQ(open.wrong + next.wrong, 0u);
}

/// Lowers the largest size that a file of this process may have, and raises it again.
class FileSizeLimit {
public:
    explicit FileSizeLimit(Bytes most) {
        std::signal(SIGXFSZ, SIG_IGN);
        ::getrlimit(RLIMIT_FSIZE, &before_);
        const struct rlimit limit { most, before_.rlim_max };
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    FileSizeLimit(const FileSizeLimit&) = delete;
    FileSizeLimit& operator=(const FileSizeLimit&) = delete;
    ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

private:
    struct rlimit before_ {};
};

TEST(PromptStoreFaults, AFullDiskIsRefusedAtOpen) {
    const TemporaryDirectory directory;
    {
        const FileSizeLimit full(KiB(64));
        support::expect_error([&] { OpenStore open(directory.path()); }, ErrorCode::out_of_memory,
                              {"the file system refused 262144 bytes", "--prompt-cache-size"});
        EXPECT_EQ(std::filesystem::file_size(stored_file(directory.path())), 0u) << "nothing is left behind";
        EXPECT_EQ(OpenStore(directory.path(), KiB(64)).put(1, 2), 2u);
    }
    EXPECT_EQ(OpenStore(directory.path()).put(1, 2), 2u);
}

TEST(PromptStoreFaults, AFailingDiskSwitchesTheStoreOffAndNothingElse) {
    const TemporaryDirectory directory;
    OpenStore open(directory.path());
    EXPECT_EQ(open.put(1, 3), 3u);
    EXPECT_EQ(open.store->warning(), "");
    {
        const FileSizeLimit full(KiB(16));
        const auto tokens = block_tokens(2, 0);
        kv::PromptStore::Place made;
        const auto nothing = [](std::span<std::byte>) {};
        EXPECT_EQ(open.store->put(kv::PromptStore::none, tokens.data(), nothing, made),
                  kv::PromptStore::Put::taken);
        open.store->wait_for_writes();
    }
    EXPECT_TRUE(open.store->off());
    EXPECT_NE(open.store->warning().find("can no longer be written"), std::string::npos);
    EXPECT_EQ(open.read(1, 3), 0u);
    open.store->wait_for_room();
    open.store->poll();
    EXPECT_EQ(open.store->counts().written, 3u);

    // A file that was cut short under the engine.
    const TemporaryDirectory other;
    OpenStore cut(other.path());
    cut.put(1, 5);
    std::filesystem::resize_file(stored_file(other.path()), cut.layout.slot_at(2));
    EXPECT_LE(cut.read(1, 5), 2u);
    EXPECT_EQ(cut.wrong, 0u);
    EXPECT_TRUE(cut.store->off());
    EXPECT_NE(cut.store->warning().find("can no longer be read"), std::string::npos);
}

}  // namespace
