// SPDX-License-Identifier: Apache-2.0
// Captured steps: the same tokens as steps that are enqueued anew, no allocation, and a count of those that fell back.
// rows: 64
#include <gtest/gtest.h>
#include <support/counted_new.hpp>
#include <support/tiny_engine.hpp>

#include <bit>
#include <map>
#include <type_traits>

namespace {

namespace kv = zse::kv;
using support::Tiny;

const Tiny& tiny() {
    static const Tiny model({.context = 4096});
    return model;
}

std::uint64_t digest(std::span<const float> row) {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (const float value : row) hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 0x100000001b3ULL;
    return hash;
}

struct Run {
    std::map<zse::engine::RequestId, std::vector<std::int32_t>> tokens;
    std::vector<std::uint64_t> bits;  ///< of every row of logits
    zse::engine::Counters counters;
};

/// Five sequences of different lengths, so that the batch shrinks from five to one.
template <class E>
Run run(zse::Limits limits, std::uint32_t prompt) {
    Run result;
    const auto engine = tiny().open<E>(limits);
    for (std::uint32_t i = 0; i < 5; ++i) {
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(i, prompt + 7 * i);
        request.max_tokens = 20 + 9 * i;
        request.ignore_end = true;
        request.sampling = {.temperature = 0.9f, .seed = i};
        engine->submit(std::move(request));
    }
    while (!engine->idle()) {
        for (const auto& event : engine->step()) {
            if (event.token >= 0) result.tokens[event.id].push_back(event.token);
        }
    }
    result.counters = engine->counters();
    zse::AnyEngine::Request watched;  // and one alone, whose every row is looked at
    watched.tokens = support::tiny_prompt(9, prompt);
    watched.max_tokens = 30;
    watched.ignore_end = true;
    watched.observe = [&](std::uint32_t, std::span<const float> row) { result.bits.push_back(digest(row)); };
    engine->submit(std::move(watched));
    support::run_to_end(*engine);
    return result;
}

template <class E>
void equals_eager(zse::Limits limits, std::uint32_t prompt) {
    const Run captured = run<E>(limits, prompt);
    limits.enforce_eager = true;
    const Run eager = run<E>(limits, prompt);
    EXPECT_EQ(captured.tokens, eager.tokens);
    EXPECT_EQ(captured.bits, eager.bits);
    EXPECT_EQ(captured.bits.size(), prompt + 29);
    EXPECT_EQ(eager.counters.replayed_steps, 0u);
    EXPECT_EQ(eager.counters.eager_steps, eager.counters.steps);
    EXPECT_EQ(captured.counters.replayed_steps + captured.counters.eager_steps, captured.counters.steps);
    // 56 tokens after the first of the longest: the batch has 4, 2 and 1 sequences for 9 or more steps each, of which
    // the first is captured; with 5 and 3 it falls back.
    EXPECT_GE(captured.counters.replayed_steps, 3 * 8u);
    EXPECT_GE(captured.counters.eager_steps, 2 * 8u);
}

TEST(Captured, StepsGiveTheBitsOfEagerOnes) {
    for (const std::uint32_t threads : {1u, 2u}) {
        const zse::Limits limits{.context = 200, .batch = 5, .step_tokens = 64, .threads = threads};
        equals_eager<zse::Engine<kv::f16>>(limits, 20);
        equals_eager<zse::Engine<kv::int4<16>, zse::weights::int8<>>>(limits, 20);
        equals_eager<zse::Engine<zse::attention::reference>>(limits, 20);
    }
}

// Borders where old tokens are coded anew or dropped are crossed while captured steps run.
TEST(Captured, AlsoWhereTokensGrowOld) {
    zse::Limits limits{.context = 1700, .batch = 5, .step_tokens = 256, .threads = 2};
    equals_eager<zse::Engine<kv::sliding<kv::int8<16>, kv::int4<16>>>>(limits, 1510);
    limits.kv_recent = 1024;
    limits.kv_heavy = 1024;
    equals_eager<zse::Engine<kv::int8<16>>>(limits, 1510);
}

TEST(Captured, NothingIsAllocatedInAnySetting) {
    const auto measure = [&]<class E>(std::type_identity<E>, zse::Limits limits) {
        const auto engine = tiny().open<E>(limits);
        for (std::uint32_t i = 0; i < limits.batch; ++i) {
            zse::AnyEngine::Request request;
            request.tokens = support::tiny_prompt(i, 1200);
            request.ignore_end = true;
            request.sampling = {.temperature = 0.7f, .top_k = 30, .seed = i};
            engine->submit(std::move(request));
        }
        while (engine->counters().generated_tokens < limits.batch) engine->step();
        const std::size_t before = support::allocations.load();
        const std::uint64_t made = engine->counters().generated_tokens;
        for (int i = 0; i < 120; ++i) engine->step();
        EXPECT_EQ(support::allocations.load() - before, 0u) << engine->description();
        EXPECT_GT(engine->counters().generated_tokens, made + 100);
        return engine->scheduling().preempted;
    };
    const zse::Limits plain{.context = 1400, .batch = 3, .step_tokens = 128, .threads = 2};
    measure(std::type_identity<zse::Engine<>>{}, plain);
    zse::Limits eager = plain;
    eager.enforce_eager = true;
    measure(std::type_identity<zse::Engine<kv::int8<16>, zse::weights::nf4<>>>{}, eager);
    measure(std::type_identity<zse::Engine<kv::sliding<kv::int8<16>, kv::int4<16>>>>{}, plain);
    measure(std::type_identity<zse::Engine<kv::per_layer<kv::int4<16>, kv::on<kv::f16, 0>>>>{}, plain);
    zse::Limits pruned = plain;
    pruned.kv_recent = 1024;
    pruned.kv_heavy = 1024;
    measure(std::type_identity<zse::Engine<>>{}, pruned);
    zse::Limits tight = plain;
    tight.kv_tokens = 2 * 1400 + 1000;  // and while a sequence is preempted
    EXPECT_GT(measure(std::type_identity<zse::Engine<>>{}, tight), 0u);
}

}  // namespace
