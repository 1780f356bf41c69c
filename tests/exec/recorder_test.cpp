// SPDX-License-Identifier: Apache-2.0
// The recorder counts what the executor of the processor will use: the same buffers at the same places.
#include <zse/exec/cpu.hpp>
#include <zse/exec/recorder.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace {

using namespace zse::exec;
using zse::Bytes;

/// Counts its items, and fills the scratch of its thread.
struct Count {
    std::size_t count = 0;
    Bytes scratch = 0;
    std::atomic<std::size_t>* visited = nullptr;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return count; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return scratch; }
    void run(std::size_t item, const Worker& worker) const noexcept {
        for (Bytes i = 0; i < scratch; ++i) worker.scratch[i] = static_cast<std::byte>(worker.thread + 1);
        visited->fetch_add(item + 1);
        for (Bytes i = 0; i < scratch; ++i) {
            if (worker.scratch[i] != static_cast<std::byte>(worker.thread + 1)) visited->fetch_add(1'000'000);
        }
    }
};

/// The same with items in parts: as many items in part p as p + 1, numbered through.
struct CountInParts {
    Bytes scratch = 0;
    std::atomic<std::size_t>* visited = nullptr;

    [[nodiscard]] constexpr std::size_t items(std::size_t part, std::size_t /*parts*/) const noexcept {
        return part + 1;
    }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return scratch; }
    void run(std::size_t part, std::size_t item, const Worker& worker) const noexcept {
        Count{part + 1, scratch, visited}.run(100 * part + item, worker);
    }
};
static_assert(PlainOperation<Count> && PartedOperation<CountInParts> && !Operation<int>);
static_assert(!PartedOperation<Count> && !PlainOperation<CountInParts>);
static_assert(Executor<Recorder> && Executor<CpuExecutor>);

/// A step of three buffers, of which the first ends early.
template <class X>
constexpr void step(X& executor, std::atomic<std::size_t>* visited = nullptr) {
    Buffer<float, X> a(executor, 100);
    Buffer<float, X> b(executor, 10);
    executor.run(Count{10, 100, visited});
    a.release();
    Buffer<double, X> c(executor, 3);
    executor.run(Count{4, 1000, visited});
    executor.run(Count{0, 30, visited});
}

constexpr Recorder recorded() {
    Recorder recorder;
    step(recorder);
    return recorder;
}

TEST(Recorder, RunsAtCompileTime) {
    constexpr Recorder recorder = recorded();
    static_assert(recorder.shared_bytes() == 448 + 64);
    static_assert(recorder.thread_bytes() == 1024);
    static_assert(recorder.operations() == 3);
    static_assert(Recorder{}.shared_bytes() == 0 && Recorder{}.thread_bytes() == 0);
}

TEST(Recorder, HasNoBytes) {
    Recorder recorder;
    const Buffer<float, Recorder> buffer(recorder, 10);
    EXPECT_EQ(buffer.data(), nullptr);
}

TEST(Recorder, RepeatedStepsNeedNoMore) {
    Recorder recorder;
    for (int i = 0; i < 5; ++i) step(recorder);
    EXPECT_EQ(recorder.shared_bytes(), recorded().shared_bytes());
    EXPECT_EQ(recorder.thread_bytes(), recorded().thread_bytes());
}

TEST(CpuExecutor, RunsInWhatWasRecorded) {
    constexpr Recorder plan = recorded();
    for (const unsigned threads : {1u, 2u}) {
        Team team(threads);
        std::vector<std::byte> scratch(plan.shared_bytes() + threads * plan.thread_bytes());
        CpuExecutor executor(team, scratch.data(), plan.shared_bytes(), plan.thread_bytes());
        std::atomic<std::size_t> visited{0};
        step(executor, &visited);
        EXPECT_EQ(visited.load(), 55u + 10u);
    }
}

TEST(CpuExecutor, RunsAsManyPartsAsThereAreThreads) {
    for (const unsigned threads : {1u, 2u, 4u}) {
        Recorder plan;
        plan.run(CountInParts{200});
        EXPECT_EQ(plan.operations(), 1u);
        Team team(threads);
        std::vector<std::byte> scratch(plan.shared_bytes() + threads * plan.thread_bytes());
        CpuExecutor executor(team, scratch.data(), plan.shared_bytes(), plan.thread_bytes());
        std::atomic<std::size_t> visited{0};
        executor.run(CountInParts{200, &visited});
        std::size_t expected = 0;
        for (std::size_t part = 0; part < threads; ++part) {
            for (std::size_t item = 0; item <= part; ++item) expected += 100 * part + item + 1;
        }
        EXPECT_EQ(visited.load(), expected);
    }
}

TEST(CpuExecutor, GivesBuffersInItsScratch) {
    Team team(1);
    alignas(64) std::byte scratch[1024];
    CpuExecutor executor(team, scratch, 1024, 0);
    Buffer<float, CpuExecutor> a(executor, 20);
    const Buffer<float, CpuExecutor> b(executor, 1);
    EXPECT_EQ(reinterpret_cast<std::byte*>(a.data()), scratch);
    EXPECT_EQ(reinterpret_cast<std::byte*>(b.data()), scratch + 128);
    a.release();
    const Buffer<float, CpuExecutor> c(executor, 32);
    EXPECT_EQ(reinterpret_cast<std::byte*>(c.data()), scratch);
}

}  // namespace
