// SPDX-License-Identifier: Apache-2.0
// Prompts that begin alike: pages of earlier sequences are used again, and the tokens are those of an engine without a
// cache.
// rows: 57 91
// timeout: 300
#include <gtest/gtest.h>
#include <support/tiny_engine.hpp>

#include <map>

namespace {

using support::Tiny;
using Request = zse::AnyEngine::Request;
using zse::engine::RequestId;
namespace kv = zse::kv;

using Int8 = zse::Engine<kv::int8<16>>;
using Layers = zse::Engine<kv::per_layer<kv::f16, kv::on<kv::int8<16>, 1>>,
                           zse::tiers::chain<zse::tiers::arena, zse::tiers::host>>;

const Tiny& tiny() {
    static const Tiny model({.context = 4096});
    return model;
}

Request request(std::vector<std::int32_t> tokens, std::uint32_t most, std::uint64_t seed = 0) {
    Request made;
    made.tokens = std::move(tokens);
    made.max_tokens = most;
    made.ignore_end = true;
    made.sampling = {.temperature = seed == 0 ? 0.0f : 1.0f, .seed = seed};
    return made;
}

std::map<RequestId, std::vector<std::int32_t>> run(zse::AnyEngine& engine) {
    std::map<RequestId, std::vector<std::int32_t>> tokens;
    while (!engine.idle()) {
        for (const auto& event : engine.step()) {
            if (event.token >= 0) tokens[event.id].push_back(event.token);
        }
    }
    return tokens;
}
std::vector<std::int32_t> answer(zse::AnyEngine& engine, Request made) {
    const RequestId id = engine.submit(std::move(made));
    return run(engine)[id];
}

template <class E>
std::vector<std::int32_t> cold(Request made, zse::Limits limits = {.context = 400, .step_tokens = 64}) {
    const auto engine = tiny().open<E>(limits);
    return answer(*engine, std::move(made));
}

TEST(PromptCache, ARepeatedPromptComputesItsLastTokensOnly) {
    const auto prompt = support::tiny_prompt(1, 100);
    const auto engine = tiny().open<Int8>({.context = 400, .step_tokens = 64, .prompt_cache = true});
    const auto first = answer(*engine, request(prompt, 30));
    EXPECT_EQ(first, cold<Int8>(request(prompt, 30)));
    EXPECT_EQ(engine->counters().rows, 100u + 29u);
    EXPECT_EQ(engine->page_use().used, 0u);
    EXPECT_EQ(engine->page_use().cached, 129u / 16);

    EXPECT_EQ(answer(*engine, request(prompt, 30)), first);
    EXPECT_EQ(engine->counters().prompt_hits, 1u);
    EXPECT_EQ(engine->counters().prompt_hit_tokens, 96u);
    EXPECT_EQ(engine->counters().rows, 129u + (100u - 96u) + 29u);

    // The answer was computed too, so a conversation that goes on from it finds it.
    auto longer = prompt;
    longer.insert(longer.end(), first.begin(), first.end());
    longer.push_back(5);
    const std::uint64_t rows = engine->counters().rows;
    EXPECT_EQ(answer(*engine, request(longer, 10, 7)), cold<Int8>(request(longer, 10, 7)));
    EXPECT_EQ(engine->counters().rows - rows, 131u - 128u + 9u);
}

TEST(PromptCache, AChangedTokenHidesAllBehindIt) {
    const auto engine =
        tiny().open<Int8>({.context = 400, .batch = 2, .step_tokens = 64, .prompt_cache = true});
    const auto prompt = support::tiny_prompt(1, 100);
    answer(*engine, request(prompt, 5));
    for (const std::size_t changed : {0u, 15u, 40u, 99u}) {
        auto other = prompt;
        other[changed] = other[changed] == 7 ? 8 : 7;
        const std::uint64_t found = engine->counters().prompt_hit_tokens;
        EXPECT_EQ(answer(*engine, request(other, 20)), cold<Int8>(request(other, 20))) << changed;
        EXPECT_EQ(engine->counters().prompt_hit_tokens - found, changed / 16 * 16) << changed;
    }
}

TEST(PromptCache, SequencesThatRunTogetherShareTheirPages) {
    const auto prompt = support::tiny_prompt(2, 160);
    zse::Limits limits{.context = 400, .batch = 4, .step_tokens = 64, .prompt_cache = true};
    limits.gpu_layers = 1;
    const auto engine = tiny().open<Layers>(limits);
    const RequestId first = engine->submit(request(prompt, 40, 1));
    for (int i = 0; i < 3; ++i) engine->step();  // its prompt
    std::vector<RequestId> ids{first};
    for (const std::uint64_t seed : {2u, 3u, 4u}) ids.push_back(engine->submit(request(prompt, 40, seed)));
    std::map<RequestId, std::vector<std::int32_t>> tokens;
    for (const auto& event : engine->step()) tokens[event.id].push_back(event.token);
    EXPECT_EQ(engine->counters().prompt_hits, 3u);
    const std::uint64_t groups = engine->page_use().pages / (4 * 25);
    EXPECT_EQ(groups, 2u) << "layers of two kinds, in two tiers";
    EXPECT_LE(engine->page_use().used, groups * (9 + 4 * 2)) << "nine pages are everyone's";
    for (auto& [id, rest] : run(*engine)) tokens[id].insert(tokens[id].end(), rest.begin(), rest.end());
    for (std::size_t i = 1; i < ids.size(); ++i) {
        EXPECT_EQ(tokens[ids[i]], cold<Layers>(request(prompt, 40, i + 1))) << i;
    }
}

TEST(PromptCache, WhatIsCachedGivesWayToSequences) {
    // Pages for two sequences at once, and ten different prompts one after the other, then all at once.
    const zse::Limits limits{.context = 200, .batch = 2, .step_tokens = 64, .prompt_cache = true};
    const auto engine = tiny().open<Int8>(limits);
    const zse::Limits plain{.context = 200, .batch = 2, .step_tokens = 64};
    std::vector<std::vector<std::int32_t>> expected;
    for (std::uint64_t i = 0; i < 10; ++i) {
        expected.push_back(cold<Int8>(request(support::tiny_prompt(i, 90), 60, i), plain));
        EXPECT_EQ(answer(*engine, request(support::tiny_prompt(i, 90), 60, i)), expected.back()) << i;
    }
    EXPECT_GT(engine->page_use().dropped, 0u);
    EXPECT_LE(engine->page_use().cached, engine->page_use().pages);
    std::vector<RequestId> ids;
    for (std::uint64_t i = 0; i < 10; ++i) {
        ids.push_back(engine->submit(request(support::tiny_prompt(i, 90), 60, i)));
    }
    auto tokens = run(*engine);
    for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(tokens[ids[i]], expected[i]) << i;
}

TEST(PromptCache, APreemptedSequenceFindsItsOwnPages) {
    zse::Limits limits{.context = 200, .batch = 8, .step_tokens = 64};
    std::vector<std::vector<std::int32_t>> alone;
    for (std::uint64_t i = 0; i < 8; ++i)
        alone.push_back(cold<Int8>(request(support::tiny_prompt(i, 40), 150, i), limits));
    limits.kv_tokens = 3 * 200;
    std::uint64_t recomputed[2];
    for (const bool cache : {false, true}) {
        limits.prompt_cache = cache;
        const auto engine = tiny().open<Int8>(limits);
        std::vector<RequestId> ids;
        for (std::uint64_t i = 0; i < 8; ++i)
            ids.push_back(engine->submit(request(support::tiny_prompt(i, 40), 150, i)));
        auto tokens = run(*engine);
        for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(tokens[ids[i]], alone[i]) << i;
        EXPECT_GT(engine->scheduling().preempted, 0u);
        EXPECT_EQ(engine->page_use().used, 0u);
        recomputed[cache] = engine->scheduling().recomputed_rows;
    }
    EXPECT_LT(recomputed[1], recomputed[0]) << "whatever was not overwritten meanwhile is there";
}

TEST(PromptCache, AForkAndAnObserverSeeEveryRow) {
    const auto prompt = support::tiny_prompt(3, 80);
    const auto engine = tiny().open<Int8>(
        {.context = 400, .batch = 2, .step_tokens = 96, .output_rows = 96, .prompt_cache = true});
    answer(*engine, request(prompt, 10));
    std::uint32_t seen = 0;
    Request observed = request(prompt, 0);
    observed.observe = [&](std::uint32_t position, std::span<const float>) { EXPECT_EQ(position, seen++); };
    engine->submit(std::move(observed));
    run(*engine);
    EXPECT_EQ(seen, 80u) << "rows whose logits are wanted are computed";

    const RequestId first = engine->submit(request(prompt, 40, 1));
    std::map<RequestId, std::vector<std::int32_t>> tokens;
    const auto step = [&] {
        for (const auto& event : engine->step()) {
            if (event.token >= 0) tokens[event.id].push_back(event.token);
        }
    };
    for (int i = 0; i < 10; ++i) step();
    const auto second = engine->fork(first, {.temperature = 1.0f, .seed = 1});
    ASSERT_TRUE(second);
    while (!engine->idle()) step();
    EXPECT_EQ(tokens[first], cold<Int8>(request(prompt, 40, 1)));
    EXPECT_EQ(tokens[*second], std::vector<std::int32_t>(tokens[first].begin() + 10, tokens[first].end()));
    EXPECT_EQ(engine->page_use().used, 0u);
}

// What drops tokens or codes them anew changes pages that others would find.
TEST(PromptCache, StaysEmptyWherePagesDoNotKeepWhatTheyHeld) {
    zse::Limits limits{.context = 2048, .step_tokens = 256, .kv_recent = 1024, .prompt_cache = true};
    const auto plan = Int8::plan(tiny().spec, limits);
    EXPECT_EQ(plan.of(zse::memory::Kind::prompt_cache), 0u);
    const auto engine = tiny().open<Int8>(limits);
    const auto prompt = support::tiny_prompt(1, 100);
    EXPECT_EQ(answer(*engine, request(prompt, 5)), answer(*engine, request(prompt, 5)));
    EXPECT_EQ(engine->counters().prompt_hits, 0u);
    EXPECT_EQ(engine->page_use().cached, 0u);
}

TEST(PromptCache, IsPlannedToTheByte) {
    for (const std::uint32_t page_tokens : {1u, 8u, 32u}) {
        const zse::Limits limits{
            .context = 320, .batch = 2, .step_tokens = 64, .page_tokens = page_tokens, .prompt_cache = true};
        const auto engine = tiny().open<Int8>(limits);
        const zse::Bytes planned = engine->plan().of(zse::memory::Kind::prompt_cache);
        EXPECT_EQ(planned, kv::PrefixCache::bytes(2 * 320 / page_tokens, page_tokens, 1));
        EXPECT_EQ(engine->ledger().held(zse::memory::Tier::host)[zse::memory::Kind::prompt_cache], planned);
        engine->ledger().reset_peaks();
        for (std::uint64_t i = 0; i < 2; ++i) engine->submit(request(support::tiny_prompt(i, 320), 0));
        run(*engine);
        const zse::Bytes peak =
            engine->ledger().peak(zse::memory::Tier::host)[zse::memory::Kind::prompt_cache];
        EXPECT_GE(static_cast<double>(peak), 0.95 * static_cast<double>(planned));
    }
}

}  // namespace
