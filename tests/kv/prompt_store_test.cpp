// SPDX-License-Identifier: Apache-2.0
// Blocks of prompts on disk come back as they were, across restarts and for other prompts that begin alike; the file is
// no larger than was said; what gives way; and who else may open it.
// rows: 57 43
#include "prompt_store.hpp"

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <sys/wait.h>

namespace {

using namespace support;
using zse::ErrorCode;
using zse::memory::Kind;
using zse::memory::Tier;

TEST(PromptStore, BlocksComeBackAsTheyWereAlsoAfterARestart) {
    const TemporaryDirectory directory;
    {
        OpenStore open(directory.path());
        EXPECT_EQ(open.store->counts().found, 0u);
        EXPECT_EQ(open.put(1, 6), 6u);
        EXPECT_EQ(open.put(2, 4), 4u);
        EXPECT_EQ(open.read(1, 9), 6u);
        EXPECT_EQ(open.read(2, 9), 4u);
        EXPECT_EQ(open.read(3, 9), 0u);
        EXPECT_EQ(open.store->counts().written, 10u);
        EXPECT_EQ(open.store->counts().fetched, 10u);
        EXPECT_EQ(open.wrong, 0u);
    }
    OpenStore again(directory.path());
    EXPECT_EQ(again.store->counts().found, 10u);
    EXPECT_EQ(again.read(1, 9), 6u);
    EXPECT_EQ(again.read(2, 9), 4u);
    EXPECT_EQ(again.put(1, 8), 8u) << "what is there is not written again";
    EXPECT_EQ(again.store->counts().written, 2u);
    EXPECT_EQ(again.read(1, 9), 8u);
    EXPECT_EQ(again.wrong, 0u);
}

TEST(PromptStore, PromptsShareWhatTheyBeginWithAndNothingElse) {
    const TemporaryDirectory directory;
    {
        OpenStore open(directory.path());
        EXPECT_EQ(open.put(1, 5, 1), 5u);
        EXPECT_EQ(open.put(2, 5, 1), 5u);
        EXPECT_EQ(open.store->blocks(), 5u + 3u);
    }
    OpenStore again(directory.path());
    EXPECT_EQ(again.read(1, 5, 1), 5u);
    EXPECT_EQ(again.read(2, 5, 1), 5u);
    EXPECT_EQ(again.read(3, 5, 1), 2u);
    EXPECT_EQ(again.read(1, 5), 0u) << "the same blocks behind others are others";
    EXPECT_EQ(again.wrong, 0u);
}

TEST(PromptStore, FileIsAsLargeAsWasSaidToTheByte) {
    for (const Bytes size : {KiB(20), KiB(64) + 1, KiB(256), MiB(2), MiB(5) - 1}) {
        const TemporaryDirectory directory;
        OpenStore open(directory.path(), size);
        const Bytes file = std::filesystem::file_size(stored_file(directory.path()));
        EXPECT_EQ(file, open.layout.file_bytes);
        EXPECT_LE(file, size);
        EXPECT_GT(file + (size < MiB(2) ? KiB(4) : MiB(2)), size);
        EXPECT_EQ(open.ledger.held(Tier::disk)[Kind::prompt_cache], file);
        EXPECT_EQ(open.ledger.held(Tier::disk).total(), file);
        EXPECT_EQ(open.ledger.reserved(Tier::disk).total(), file);
        EXPECT_EQ(open.ledger.held(Tier::host)[Kind::staging], open.layout.staging_bytes());
        const auto slots = static_cast<std::uint32_t>(open.layout.slots);
        EXPECT_EQ(open.put(1, slots + 3), slots);
        EXPECT_EQ(open.read(1, slots + 3), slots);
        EXPECT_EQ(open.wrong, 0u);
        EXPECT_EQ(std::filesystem::file_size(stored_file(directory.path())), file);
        EXPECT_EQ(open.ledger.used(Tier::disk)[Kind::prompt_cache],
                  slots * (open.layout.slot_bytes() + open.layout.record_bytes()));
    }
    EXPECT_EQ(kv::PromptLayout::of(4, 5000, KiB(12), 32).slots, 0u) << "not even one";
    EXPECT_EQ(kv::PromptLayout::of(4, 5000, KiB(12), 32).staging_bytes(), 0u);
}

TEST(PromptStore, LeastRecentlyUsedGiveWayEndsFirst) {
    const TemporaryDirectory directory;
    const auto slots = [](const OpenStore& open) { return static_cast<std::uint32_t>(open.layout.slots); };
    {
        OpenStore open(directory.path(), KiB(4) * (1 + 1 + 2 * 12));
        ASSERT_EQ(slots(open), 12u);
        EXPECT_EQ(open.put(1, 4), 4u);
        EXPECT_EQ(open.put(2, 4), 4u);
        EXPECT_EQ(open.put(3, 4), 4u);
        open.store->touch(open.path(1, 4).back());
        EXPECT_EQ(open.put(4, 3), 3u);
        EXPECT_EQ(open.store->counts().evicted, 3u);
        EXPECT_EQ(open.path(1, 4).size(), 4u);
        EXPECT_EQ(open.path(2, 4).size(), 1u) << "its end gave way, its beginning is of use";
        EXPECT_EQ(open.path(3, 4).size(), 4u);
        EXPECT_EQ(open.put(2, 2), 2u);
        EXPECT_EQ(open.path(3, 4).size(), 3u);
        EXPECT_EQ(open.read(2, 4), 2u);
        EXPECT_EQ(open.read(3, 4), 3u);
        EXPECT_EQ(open.read(4, 4), 3u);
        EXPECT_EQ(open.read(1, 4), 4u);
        EXPECT_EQ(open.wrong, 0u);
    }
    // Afterwards prompts are as old as their latest block: 1, 3, 4, 2.
    OpenStore again(directory.path(), KiB(4) * (1 + 1 + 2 * 12));
    EXPECT_EQ(again.store->blocks(), 12u);
    EXPECT_EQ(again.put(5, 5), 5u);
    EXPECT_EQ(again.path(1, 4).size(), 0u);
    EXPECT_EQ(again.read(3, 4), 2u);
    EXPECT_EQ(again.read(4, 4), 3u);
    EXPECT_EQ(again.read(2, 4), 2u);
    EXPECT_EQ(again.put(6, 13), 12u) << "a prompt that is longer than the file keeps its beginning";
    EXPECT_EQ(again.read(6, 13), 12u);
    EXPECT_EQ(again.wrong, 0u);
}

TEST(PromptStore, OthersAreToldApart) {
    const TemporaryDirectory directory;
    std::optional<OpenStore> first(std::in_place, directory.path());
    first->put(1, 3);
    const auto words = {std::string_view("in use by another zse engine"),
                        std::string_view("directory of its own")};
    support::expect_error([&] { OpenStore second(directory.path()); }, ErrorCode::usage,
                          {*words.begin(), *(words.begin() + 1), directory.path().native()});
    const pid_t child = ::fork();
    if (child == 0) {
        int status = 1;
        try {
            OpenStore second(directory.path());
        } catch (const zse::Error& error) {
            status = error.code() == ErrorCode::usage ? 17 : 2;
        }
        ::_exit(status);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 17);
    {
        OpenStore other(directory.path(), KiB(256), {7, 7});
        EXPECT_EQ(other.read(1, 3), 0u) << "another model has a file of its own";
    }
    EXPECT_EQ(first->read(1, 3), 3u);
    first.reset();
    EXPECT_EQ(OpenStore(directory.path()).read(1, 3), 3u) << "the lock ends with the engine";
}

TEST(PromptStore, AnotherSizeOrShapeBeginsAnew) {
    const TemporaryDirectory directory;
    OpenStore(directory.path()).put(1, 3);
    {
        OpenStore larger(directory.path(), KiB(512));
        EXPECT_EQ(larger.read(1, 3), 0u);
        EXPECT_EQ(larger.put(1, 3), 3u);
        EXPECT_EQ(std::filesystem::file_size(stored_file(directory.path())), KiB(512));
    }
    EXPECT_EQ(OpenStore(directory.path(), KiB(512)).read(1, 3), 3u);
    OpenStore other(directory.path(), KiB(512), stored_identity, stored_pages_bytes - 1);
    EXPECT_EQ(other.path(1, 3).size(), 0u);
}

}  // namespace
