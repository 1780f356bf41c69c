// SPDX-License-Identifier: Apache-2.0
// Asynchronous copies of the kernel vocabulary on the host: what arrives when, and what is refused.
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>

#include <gtest/gtest.h>
#include <exec/each_thread.hpp>

#include <array>
#include <cstdint>
#include <numeric>

namespace {

using namespace each_thread;

struct Source {
    alignas(16) std::array<std::uint32_t, 64 * 4 * 2> words;
    Source() { std::iota(words.begin(), words.end(), 100u); }
    [[nodiscard]] const void* chunk(std::size_t i) const { return words.data() + 4 * i; }
};

TEST(CudaEmulatedCopy, ArrivesAfterWaitAndBarrier) {
    const Source source;
    const auto body = [&](bool wait, bool sync) {
        return [&source, wait, sync](Thread& t) {
            auto s = t.shared<Chunk>(0, 64);
            t.copy_async(s.from(t.thread()), source.chunk(t.thread()), t.thread() % 2 == 0);
            t.commit();
            if (wait) t.wait<0>();
            if (sync) t.sync();
            const Chunk c = s[63 - t.thread()];
            EXPECT_EQ(c.words[1], t.thread() % 2 == 1 ? 100 + 4 * (63 - t.thread()) + 1 : 0u);
            t.wait<0>();
        };
    };
    runs(body(true, true), 1024);
    refuses(body(false, true), "a copy that was not waited for");
    refuses(body(true, false), "shared memory");
}

TEST(CudaEmulatedCopy, GroupsFinishInOrder) {
    const Source source;
    runs(
        [&](Thread& t) {
            auto s = t.shared<Chunk>(0, 128);
            for (unsigned group = 0; group < 2; ++group) {
                t.copy_async(s.from(group * 64 + t.thread()), source.chunk(group * 64 + t.thread()));
                t.commit();
            }
            t.wait<1>();
            const Chunk first = s[t.thread()];
            EXPECT_EQ(first.words[0], 100 + 4 * t.thread());
            t.wait<0>();
            const Chunk second = s[64 + t.thread()];
            EXPECT_EQ(second.words[3], 100 + 4 * (64 + t.thread()) + 3);
        },
        2048);
    // The second group is still under way after wait<1>.
    refuses(
        [&](Thread& t) {
            auto s = t.shared<Chunk>(0, 128);
            for (unsigned group = 0; group < 2; ++group) {
                t.copy_async(s.from(group * 64 + t.thread()), source.chunk(t.thread()));
                t.commit();
            }
            t.wait<1>();
            [[maybe_unused]] const Chunk c = s[64 + t.thread()];
        },
        "a copy that was not waited for", 2048);
    // A copy of no group is waited for by nobody.
    refuses(
        [&](Thread& t) {
            auto s = t.shared<Chunk>(0, 64);
            t.copy_async(s.from(t.thread()), source.chunk(t.thread()));
            t.wait<0>();
            [[maybe_unused]] const Chunk c = s[t.thread()];
        },
        "a copy that was not waited for");
}

TEST(CudaEmulatedCopy, RacesAreRefused) {
    const Source source;
    // Another thread still reads what the copy overwrites.
    refuses(
        [&](Thread& t) {
            auto s = t.shared<Chunk>(0, 64);
            s[t.thread()] = Chunk{};
            t.sync();
            [[maybe_unused]] const Chunk c = s[63 - t.thread()];
            t.copy_async(s.from(t.thread()), source.chunk(t.thread()));
            t.commit();
            t.wait<0>();
        },
        "since the last barrier");
    // Nothing but the copy may write there.
    refuses(
        [&](Thread& t) {
            auto s = t.shared<Chunk>(0, 64);
            t.copy_async(s.from(t.thread()), source.chunk(t.thread()));
            s[t.thread()] = Chunk{};
        },
        "writes where a copy");
    refuses([&](Thread& t) { t.copy_async(t.shared<Chunk>(0, 1).from(1), source.chunk(0)); }, "element 0");
    refuses(
        [&](Thread& t) {
            if (t.thread() == 0) t.copy_async(t.shared<Chunk>(0, 1), source.words.data() + 1);
        },
        "reads 16 bytes");
}

TEST(CudaEmulatedCopy, MustBeWaitedForBeforeTheBlockEnds) {
    const Source source;
    const auto body = [&](bool commit) {
        return [&source, commit](Thread& t) {
            t.copy_async(t.shared<Chunk>(0, 64).from(t.thread()), source.chunk(t.thread()));
            if (commit) t.commit();
        };
    };
    refuses(body(true), "ends with copies under way");
    refuses(body(false), "ends with copies under way");
}

}  // namespace
