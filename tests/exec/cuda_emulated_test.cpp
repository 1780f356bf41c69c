// SPDX-License-Identifier: Apache-2.0
// What the host's body of the kernel vocabulary refuses: races, reads of nothing, barriers that some never reach; and how its
// errors end a launch.
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>

#include <gtest/gtest.h>
#include <exec/each_thread.hpp>
#include <support/expect_error.hpp>

#include <algorithm>
#include <array>
#include <string>

namespace {

using namespace each_thread;
using zse::ErrorCode;

// --- races ---------------------------------------------------------------------------------------------------------

TEST(CudaEmulatedRace, ReadAfterWriteOfAnotherWarp) {
    const auto body = [](bool barrier) {
        return [barrier](Thread& t) {
            auto s = t.shared<float>(0, 64);
            s[t.thread()] = 1.0f;
            if (barrier) t.sync();
            const float v = s[(t.thread() + 32) % 64];
            EXPECT_EQ(v, 1.0f);
        };
    };
    // In a first run the bytes may not have been written yet, so the words differ with the order.
    refuses(body(false), "shared memory");
    runs(body(true), 1024);
}

TEST(CudaEmulatedRace, ReadSeesARaceAlsoWhereTheValueWasThere) {
    refuses(
        [](Thread& t) {
            auto s = t.shared<float>(0, 1);
            if (t.thread() == 0) s[0] = 1.0f;
            t.sync();
            if (t.thread() == 0) s[0] = 2.0f;
            if (t.thread() == 40) [[maybe_unused]]
                const float v = s[0];
        },
        "since the last barrier");
}

TEST(CudaEmulatedRace, WriteAfterReadOfAnotherWarp) {
    const auto body = [](bool barrier) {
        return [barrier](Thread& t) {
            auto s = t.shared<float>(0, 64);
            s[t.thread()] = 1.0f;
            t.sync();
            const float v = s[63 - t.thread()];
            if (barrier) t.sync();
            s[t.thread()] = v;
        };
    };
    refuses(body(false), "since the last barrier");
    runs(body(true), 1024);
}

TEST(CudaEmulatedRace, WriteAfterManyReadersNamesOne) {
    refuses(
        [](Thread& t) {
            auto s = t.shared<float>(0, 1);
            if (t.thread() == 0) s[0] = 1.0f;
            t.sync();
            [[maybe_unused]] const float v = s[0];
            t.sync_warp();
            if (t.thread() == 0) s[0] = v;  // the other warp has read it too
        },
        "which thread");
}

TEST(CudaEmulatedRace, TwoWrites) {
    const auto body = [](bool barrier) {
        return [barrier](Thread& t) {
            auto s = t.shared<std::uint32_t>(0, 1);
            if (t.thread() == 3) s[0] = 1u;
            if (barrier) t.sync();
            if (t.thread() == 33) s[0] = 2u;
        };
    };
    refuses(body(false), "wrote since the last barrier");
    runs(body(true), 1024);
}

TEST(CudaEmulatedRace, WithinAWarp) {
    const auto body = [](int with) {
        return [with](Thread& t) {
            auto s = t.shared<std::uint32_t>(0, 64);
            s[t.thread()] = t.thread();
            if (with == 1) t.sync_warp();
            if (with == 2) t.ballot(true);
            const std::uint32_t v = s[t.thread() ^ 1u];
            EXPECT_EQ(v, t.thread() ^ 1u);
        };
    };
    refuses(body(0), "shared memory");
    runs(body(1), 1024);
    refuses(body(2), "since the last barrier");  // a vote waits, but orders no memory
}

TEST(CudaEmulatedRace, ABarrierOfTheWarpDoesNotOrderTheBlock) {
    refuses(
        [](Thread& t) {
            auto s = t.shared<std::uint32_t>(0, 64);
            s[t.thread()] = t.thread();
            t.sync_warp();
            [[maybe_unused]] const std::uint32_t v = s[t.thread() ^ 32u];
        },
        "shared memory");
}

TEST(CudaEmulatedRace, PartsOfAnElementCount) {
    refuses(
        [](Thread& t) {
            auto s = t.shared<std::uint32_t>(0, 1);
            if (t.thread() == 0) s[0] = 1u;
            t.sync();
            if (t.thread() == 0) [[maybe_unused]]
                const std::uint32_t v = s[0];
            if (t.thread() == 32) s.as<std::uint8_t>()[3] = std::uint8_t{1};
            t.sync();
            if (t.thread() == 0) s[0] = 1u;
            if (t.thread() == 32) s.as<std::uint8_t>()[3] = std::uint8_t{1};
        },
        "since the last barrier");
}

TEST(CudaEmulatedRace, AtomicsAreOrderedOnlyAmongThemselves) {
    const auto body = [](bool before, bool after) {
        return [before, after](Thread& t) {
            auto s = t.shared<std::uint32_t>(0, 2);
            if (t.thread() == 0) s[0] = 5u;
            if (t.thread() == 0) s[1] = 0u;
            if (before) t.sync();
            t.atomic_add(s, 0, t.thread());
            t.atomic_or(s, 1, 1u << (t.thread() % 32));
            if (after) t.sync();
            const std::uint32_t sum = s[0];
            const std::uint32_t bits = s[1];
            if (!before || !after) return;
            EXPECT_EQ(sum, 5u + 63 * 64 / 2);
            EXPECT_EQ(bits, ~0u);
        };
    };
    runs(body(true, true), 1024);
    refuses(body(false, true), "shared memory");
    refuses(body(true, false), "since the last barrier");
    // The vote sets who comes first, without ordering memory.
    const auto then = [](auto first, auto second) {
        return [first, second](Thread& t) {
            auto s = t.shared<std::uint32_t>(0, 1);
            if (t.thread() == 0) s[0] = 0u;
            t.sync();
            if (t.thread() == 1) first(t, s);
            t.ballot(true);
            if (t.thread() == 0) second(t, s);
        };
    };
    const auto atomic = [](Thread& t, const auto& s) { t.atomic_add(s, 0, 1); };
    const auto read = [](Thread&, const auto& s) { [[maybe_unused]] const std::uint32_t v = s[0]; };
    const auto write = [](Thread&, const auto& s) { s[0] = 7u; };
    const auto change_and_write = [](Thread& t, const auto& s) {
        t.atomic_add(s, 0, 1);
        s[0] = 7u;
    };
    runs(then(atomic, atomic), 1024);
    refuses(then(atomic, read), "thread 0 reads byte 0 of shared memory, which thread 1 changed");
    refuses(then(atomic, write), "thread 0 writes byte 0 of shared memory, which thread 1 changed");
    refuses(then(atomic, change_and_write), "thread 0 writes");
    refuses(then(read, atomic), "thread 0 writes byte 0 of shared memory, which thread 1 read");
    refuses(then(write, atomic), "thread 0 reads byte 0 of shared memory, which thread 1 wrote");
}

// --- bounds, values that are not there, barriers --------------------------------------------------------------------

TEST(CudaEmulatedRefuses, OutOfBounds) {
    const auto write_at = [](std::size_t i) {
        return [i](Thread& t) {
            auto s = t.shared<float>(16, 4);
            if (t.thread() == 5) s[i] = 1.0f;
        };
    };
    runs(write_at(3), 1024);
    refuses(write_at(4), "thread 5 uses element 4");
    refuses([](Thread& t) { t.shared<float>(0, 257); }, "names bytes 0 to 1028");
    refuses([](Thread& t) { t.shared<std::uint8_t>(0, 16).from(2).as<float>()[0] = 1.0f; }, "aligned");
    refuses([](Thread& t) { t.atomic_add(t.shared<std::uint32_t>(0, 1), 1, 1); }, "element 1");
}

TEST(CudaEmulatedRefuses, ReadOfWhatNobodyWrote) {
    refuses(
        [](Thread& t) {
            auto s = t.shared<float>(0, 64);
            if (t.thread() != 9) s[t.thread()] = 1.0f;
            t.sync();
            [[maybe_unused]] const float v = s[t.thread()];
        },
        "thread 9 reads what no thread has written to");
}

TEST(CudaEmulatedRefuses, SharedMemoryIsNewInEveryBlock) {
    const auto body = [](Thread& t) {
        auto s = t.shared<float>(0, 64);
        if (t.block().x == 0) s[t.thread()] = 1.0f;
        [[maybe_unused]] const float v = s[t.thread()];
    };
    support::expect_error([&] { run(body, 1024, Order::ascending, 2); }, ErrorCode::internal,
                          {"block (1, 0, 0)"});
}

TEST(CudaEmulatedRefuses, MisalignedLoad) {
    alignas(16) const std::array<std::byte, 64> bytes{};
    refuses([&](Thread& t) { (void)t.load(reinterpret_cast<const Chunk*>(bytes.data() + 8)); },
            "reads 16 bytes");
    runs([&](Thread& t) { (void)t.load(reinterpret_cast<const Chunk*>(bytes.data() + 16)); });
}

TEST(CudaEmulatedRefuses, BarriersThatSomeNeverReach) {
    // These are errors and no hang.
    refuses(
        [](Thread& t) {
            if (t.thread() < 32) t.sync();
        },
        "first thread 0");
    refuses(
        [](Thread& t) {
            if (t.thread() != 7) t.sync();
        },
        "done, first 7");
    refuses(
        [](Thread& t) {
            if (t.thread() != 7) t.sync_warp();
        },
        "done, first 7");
    refuses(
        [](Thread& t) {
            if (t.lane() < 16) t.ballot(true);
        },
        "done, first 16");
    refuses([](Thread& t) { t.thread() == 1 ? t.sync() : t.sync_warp(); },
            "at a barrier of the block, first thread 1");
    refuses(
        [](Thread& t) {
            if (t.thread() == 1)
                t.sync_warp();
            else
                t.ballot(true);
        },
        "first 1;");
    refuses(
        [](Thread& t) {
            if (t.thread() == 1)
                t.sync();
            else
                t.block_reduce<64>(1.0f, Sum{});
        },
        "63 threads are at an operation of the block");
    // One warp may do without the others.
    runs([](Thread& t) {
        if (t.warp() == 0) return;
        EXPECT_EQ(t.ballot(t.lane() == 3), 8u);
    });
}

TEST(CudaEmulatedRefuses, LaunchesThatNoDeviceTakes) {
    const auto nothing = [](Thread&) {};
    using K = Each<64, decltype(nothing)>;
    struct Odd : K {
        [[nodiscard]] Launch launch() const noexcept { return {{1, 1, 1}, 33, 0}; }
    };
    struct Many : K {
        [[nodiscard]] Launch launch() const noexcept { return {{1, 1, 1}, 96, 0}; }
    };
    support::expect_error(
        [&] {
            EmulatedBlock::run_grid(Odd{{&nothing, 0, 1}});
        },
        ErrorCode::internal, {"33"});
    support::expect_error(
        [&] {
            EmulatedBlock::run_grid(Many{{&nothing, 0, 1}});
        },
        ErrorCode::internal, {"96"});
    support::expect_error([&] { run(nothing, 99 * 1024 + 1); }, ErrorCode::internal, {"shared memory"});
    support::expect_error([&] { run([](Thread& t) { t.block_reduce<32>(1.0f, Sum{}); }); },
                          ErrorCode::internal, {"an operation of 32 threads in a block of 64"});
}

// --- errors of launches -------------------------------------------------------------------------------------------------

TEST(CudaEmulatedLaunch, KeepsTheFirstError) {
    const auto race = [](Thread& t) { t.shared<float>(0, 1)[0] = 1.0f; };
    const auto fine = [](Thread&) {};
    Stream stream;
    Emulated::launch(stream, Each<64, decltype(fine)>{&fine, 16, 1});
    EXPECT_FALSE(stream.failed());
    Emulated::launch(stream, Each<64, decltype(race)>{&race, 16, 1});
    ASSERT_TRUE(stream.failed());
    EXPECT_NE(std::string(stream.why()).find("since the last barrier"), std::string::npos);
    EXPECT_EQ(stream.kernels(), 2u);
    Emulated::launch(stream, Each<64, decltype(fine)>{&fine, 16, 1});
    EXPECT_EQ(stream.kernels(), 2u);
}

TEST(CudaEmulatedLaunch, ErrorsUnwindWhatThreadsHold) {
    int alive = 0;
    struct Held {
        int* count;
        explicit Held(int* c) : count(c) { ++*count; }
        Held(const Held&) = delete;
        ~Held() { --*count; }
    };
    for (const Order order : orders) {
        support::expect_error(
            [&] {
                run(
                    [&](Thread& t) {
                        const Held held(&alive);
                        t.sync();
                        if (t.thread() == 17) t.shared<float>(0, 1)[1] = 1.0f;
                        t.sync();
                    },
                    16, order);
            },
            ErrorCode::internal, {"thread 17"});
        EXPECT_EQ(alive, 0);
    }
}

}  // namespace
