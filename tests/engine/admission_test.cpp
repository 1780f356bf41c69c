// SPDX-License-Identifier: Apache-2.0
// An engine under memory pressure: fewer sequences at once, the same answers, and nothing allocated between tokens while
// the pressure is watched.
// rows: 97
#include <gtest/gtest.h>
#include <support/tiny_engine.hpp>
#include <system/fake_root.hpp>

#include <zse/scheduler/pressure_policy.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <new>
#include <vector>

namespace {
std::atomic<std::size_t> allocations{0};
}

// Counts every allocation of this program.
[[gnu::noinline]] void* operator new(std::size_t size) {
    allocations.fetch_add(1);
    if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}

namespace {

using zse::scheduler::PressurePolicy;
using zse::system::PressureWatch;

/// Memory pressure in a root of the test's own.
class Machine {
public:
    explicit Machine(const std::string& percent) { press(percent); }
    void press(const std::string& percent) {
        root_.write("proc/pressure/memory", "some avg10=" + percent + " avg60=0.00 avg300=0.00 total=0\n");
    }
    [[nodiscard]] const zse::system::Root& root() const { return root_.root(); }

private:
    zse_test::FakeRoot root_;
};

std::unique_ptr<zse::AnyEngine> engine_of(const support::Tiny& tiny) {
    return tiny.open({.context = 64, .batch = 4, .step_tokens = 64, .threads = 1});
}

void submit(zse::AnyEngine& engine, std::uint32_t requests, std::uint32_t tokens) {
    for (std::uint32_t i = 0; i < requests; ++i) {
        zse::AnyEngine::Request request;
        request.tokens = {static_cast<std::int32_t>(20 + i), 30, 40};
        request.max_tokens = tokens;
        request.ignore_end = true;
        engine.submit(std::move(request));
    }
}

using Answers = std::map<zse::AnyEngine::RequestId, std::vector<std::int32_t>>;

void step(zse::AnyEngine& engine, Answers& answers) {
    for (const auto& event : engine.step()) {
        if (event.token >= 0) answers[event.id].push_back(event.token);
    }
}

TEST(Admission, HalvesUnderPressureAndIsRestoredWithTheSameAnswers) {
    const support::Tiny tiny({});
    const auto free = engine_of(tiny);
    submit(*free, 8, 12);
    Answers expected;
    while (!free->idle()) step(*free, expected);
    ASSERT_EQ(free->scheduling().most_running, 4u);

    Machine machine("25.00");
    const PressureWatch watch(machine.root());
    const auto engine = engine_of(tiny);
    PressurePolicy policy(engine->limits().batch);
    PressurePolicy::Time now{};
    submit(*engine, 8, 12);
    Answers answers;
    std::size_t most = 0;
    while (engine->running() + answers.size() < 8 || most < 4) {
        ASSERT_FALSE(engine->idle()) << "it never ran four at once again";
        engine->limit_admission(policy.update(now += std::chrono::seconds(1), watch.some_avg10()));
        step(*engine, answers);
        EXPECT_LE(engine->running(), policy.slots());
        most = std::max(most, engine->running());
        if (answers.size() == 2) {
            EXPECT_EQ(most, 2u);
            EXPECT_EQ(engine->waiting() + engine->running(), 8u) << "none of the two has ended";
            machine.press("1.00");
        }
    }
    while (!engine->idle()) step(*engine, answers);
    EXPECT_EQ(answers, expected);
}

TEST(Admission, WatchingPressureAllocatesNothingBetweenTokens) {
    const support::Tiny tiny({});
    Machine machine("25.00");
    const PressureWatch watch(machine.root());
    const auto engine = engine_of(tiny);
    PressurePolicy policy(engine->limits().batch);
    PressurePolicy::Time now{};
    submit(*engine, 2, 50);
    for (int i = 0; i < 5; ++i) engine->step();
    const std::size_t before = allocations.load();
    for (int i = 0; i < 40; ++i) {
        engine->limit_admission(policy.update(now += std::chrono::seconds(1), watch.some_avg10()));
        engine->step();
    }
    EXPECT_EQ(allocations.load(), before);
    EXPECT_TRUE(policy.slowed());
    EXPECT_EQ(engine->running(), 2u);
}

}  // namespace
