// SPDX-License-Identifier: Apache-2.0
// Keys and values over gpu, host and disk: the tokens and bits are those of memory alone, each tier holds what was
// planned, and a disk that loses pages costs time and no token.
// rows: 41 42 43 53
// timeout: 300
#include <gtest/gtest.h>
#include <support/counted_new.hpp>
#include <support/expect_error.hpp>
#include <support/nameless_files.hpp>
#include <support/temporary_directory.hpp>
#include <support/tiny_engine.hpp>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace {

using support::Tiny;
using zse::Bytes;
using zse::ErrorCode;
using zse::Limits;
using zse::engine::Finish;
using zse::engine::RequestId;
using zse::memory::Kind;
using zse::memory::Tier;
using Request = zse::AnyEngine::Request;
namespace kv = zse::kv;

using All = zse::tiers::chain<zse::tiers::arena, zse::tiers::host, zse::tiers::disk>;
template <class Kv>
using Spread = zse::Engine<Kv, All>;

const Tiny& tiny() {
    static const Tiny model({.layers = 3, .context = 4096});
    return model;
}

/// 64 tokens in the gpu tier, 128 in the host's, and the rest of 1,024 on disk; steps of 32 rows.
Limits spread(std::uint32_t batch = 1) {
    Limits limits{.context = 1024, .batch = batch, .step_tokens = 32, .page_tokens = 8};
    limits.kv_tokens = 1024 * batch;
    limits.kv_host_tokens = 128 * batch;
    limits.kv_disk_tokens = (1024 - 64 - 128) * batch;
    limits.gpu_layers = 4;
    return limits;
}
Limits alone(std::uint32_t batch = 1) {
    return {.context = 1024, .batch = batch, .step_tokens = 32, .page_tokens = 8};
}

Request request(std::uint64_t seed, std::uint32_t prompt, std::uint32_t most) {
    Request made;
    made.tokens = support::tiny_prompt(seed, prompt);
    made.max_tokens = most;
    made.ignore_end = true;
    made.sampling = {.temperature = seed % 2 == 0 ? 0.0f : 1.0f, .seed = seed};
    return made;
}

struct Answer {
    std::vector<std::int32_t> tokens;
    Finish finish = Finish::none;
};
std::map<RequestId, Answer> run(zse::AnyEngine& engine) {
    std::map<RequestId, Answer> answers;
    while (!engine.idle()) {
        for (const auto& event : engine.step()) {
            if (event.token >= 0) answers[event.id].tokens.push_back(event.token);
            if (event.finish != Finish::none) answers[event.id].finish = event.finish;
        }
    }
    return answers;
}
std::vector<std::int32_t> answer(zse::AnyEngine& engine, const Request& request) {
    const RequestId id = engine.submit(request);
    return run(engine)[id].tokens;
}

zse::engine::Options on(const support::TemporaryDirectory& directory) {
    zse::engine::Options options;
    options.disk_directory = directory.path();
    return options;
}

template <class Kv>
void same_as_in_memory() {
    const support::TemporaryDirectory directory;
    const Request asked = request(1, 700, 150);
    const auto expected = answer(*tiny().open<Spread<Kv>>(alone()), asked);
    ASSERT_EQ(expected.size(), 150u);
    for (const std::uint32_t threads : {1u, 2u}) {
        for (const bool eager : {false, true}) {
            Limits limits = spread();
            limits.threads = threads;
            limits.enforce_eager = eager;
            const auto engine = tiny().open<Spread<Kv>>(limits, on(directory));
            EXPECT_EQ(answer(*engine, asked), expected) << threads << " threads, eager " << eager;
            const kv::TierTraffic traffic = engine->tier_traffic();
            EXPECT_GE(traffic.spilled_to_host, (850 - 64) / 8u);
            EXPECT_GE(traffic.spilled_to_disk, (850 - 64 - 128) / 8u);
            EXPECT_GT(traffic.staged_bytes, 0u);
            EXPECT_EQ(engine->counters().lost_tiers, 0u);
        }
    }
}

TEST(Tiers, TokensAreThoseOfMemoryAlone) {
    same_as_in_memory<kv::f16>();
    same_as_in_memory<kv::int8<16>>();
    same_as_in_memory<kv::int4<16>>();
}

TEST(Tiers, BitsAreThoseOfMemoryAlone) {
    const support::TemporaryDirectory directory;
    const auto tokens = support::tiny_prompt(3, 900);
    Limits one = alone();
    one.output_rows = one.step_tokens;
    const auto expected = support::all_logits(*tiny().open<Spread<kv::f16>>(one), tokens);
    for (const std::uint32_t page_tokens : {1u, 16u, 32u}) {
        Limits limits = spread();
        limits.page_tokens = page_tokens;
        limits.output_rows = limits.step_tokens;
        limits.kv_disk_tokens -= 32;  // two pages of 32 for every sequence that stands in one
        const auto engine = tiny().open<Spread<kv::f16>>(limits, on(directory));
        EXPECT_EQ(support::all_logits(*engine, tokens), expected) << "pages of " << page_tokens;
        EXPECT_GT(engine->tier_traffic().staged_bytes, 0u);
    }
}

TEST(Tiers, ManySequencesShareThem) {
    const support::TemporaryDirectory directory;
    std::map<std::uint64_t, std::vector<std::int32_t>> expected;
    for (std::uint32_t seed = 0; seed < 6; ++seed) {
        expected[seed] =
            answer(*tiny().open<Spread<kv::int8<16>>>(alone()), request(seed, 100 + 30 * seed, 150));
    }
    for (const kv::Eviction eviction : {kv::Eviction::lru, kv::Eviction::cost}) {
        for (const bool cache : {false, true}) {
            Limits limits = spread(2);
            limits.prompt_cache = cache;
            auto options = on(directory);
            options.eviction = eviction;
            options.shuffle_pages = 5;
            const auto engine = tiny().open<Spread<kv::int8<16>>>(limits, options);
            std::map<RequestId, std::uint64_t> seeds;
            for (int round = 0; round < 2; ++round) {
                for (std::uint32_t seed = 0; seed < 6; ++seed) {
                    seeds[engine->submit(request(seed, 100 + 30 * seed, 150))] = seed;
                }
            }
            for (const auto& [id, got] : run(*engine)) {
                EXPECT_EQ(got.tokens, expected[seeds[id]])
                    << seeds[id] << " " << kv::name(eviction) << " prompt cache " << cache;
            }
            EXPECT_GT(engine->tier_traffic().spilled_to_disk, 0u);
            EXPECT_EQ(engine->counters().prompt_hits > 0, cache);
            EXPECT_EQ(engine->page_use().used, 0u);
        }
    }
}

TEST(Tiers, PagesComeBackWhereThereIsRoom) {
    const support::TemporaryDirectory directory;
    const auto expected = answer(*tiny().open<Spread<kv::f16>>(alone()), request(2, 700, 300));
    const auto traffic = [&](std::uint64_t host, std::uint64_t disk) {
        Limits limits = spread(2);
        limits.kv_host_tokens = host;
        limits.kv_disk_tokens = disk;
        const auto engine = tiny().open<Spread<kv::f16>>(limits, on(directory));
        // The long one spills; when the other ends, there is room again.
        const RequestId slow = engine->submit(request(2, 700, 300));
        engine->submit(request(4, 700, 10));
        EXPECT_EQ(run(*engine)[slow].tokens, expected);
        return engine->tier_traffic();
    };
    EXPECT_GT(traffic(1024, 256).fetched_from_host, 8u);
    EXPECT_GT(traffic(512, 1024).fetched_from_disk, 8u);
}

/// Writes over all nameless files of a directory that this process has open.
void spoil(const std::filesystem::path& directory) {
    const auto files = support::nameless_files(directory);
    ASSERT_FALSE(files.empty());
    for (const auto& path : files) {
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        const std::string noise(4096, '#');
        for (std::uintmax_t at = 0; at < std::filesystem::file_size(path); at += noise.size()) {
            file.seekp(static_cast<std::streamoff>(at));
            file.write(noise.data(), static_cast<std::streamsize>(noise.size()));
        }
        ASSERT_TRUE(file.good());
    }
}

TEST(Tiers, ADiskThatLosesPagesCostsNoToken) {
    const support::TemporaryDirectory directory;
    const auto expected = answer(*tiny().open<Spread<kv::f16>>(alone()), request(1, 400, 200));
    Limits limits = spread(2);
    limits.kv_disk_tokens = 512;
    limits.kv_host_tokens = 512;
    limits.prompt_cache = true;
    const auto engine = tiny().open<Spread<kv::f16>>(limits, on(directory));
    const RequestId small = engine->submit(request(1, 400, 200));
    const RequestId large = engine->submit(request(3, 900, 120));
    const RequestId waiting = engine->submit(request(1, 400, 200));
    std::map<RequestId, Answer> answers;
    const auto step = [&] {
        for (const auto& event : engine->step()) {
            if (event.token >= 0) answers[event.id].tokens.push_back(event.token);
            if (event.finish != Finish::none) answers[event.id].finish = event.finish;
        }
    };
    while (engine->tier_traffic().staged_bytes < 100'000) step();
    spoil(directory.path());
    while (!engine->idle()) step();
    EXPECT_EQ(engine->counters().lost_tiers, 1u);
    EXPECT_EQ(answers[small].tokens, expected);
    EXPECT_EQ(answers[waiting].tokens, expected);
    EXPECT_EQ(answers[large].tokens, answer(*tiny().open<Spread<kv::f16>>(alone()), request(3, 900, 120)));
    EXPECT_EQ(engine->page_use().used, 0u);
    EXPECT_EQ(engine->page_use().pages, (2 * 1024 - 512) / 8u) << "those on disk are lost";
}

TEST(Tiers, WhatMemoryAloneCannotHoldFailsWithTheDisk) {
    const support::TemporaryDirectory directory;
    const auto engine = tiny().open<Spread<kv::f16>>(spread(), on(directory));
    const RequestId large = engine->submit(request(3, 500, 400));
    const RequestId waiting = engine->submit(request(5, 500, 400));
    const RequestId small = engine->submit(request(1, 50, 100));
    std::map<RequestId, Answer> answers;
    bool spoiled = false;
    while (!engine->idle()) {
        for (const auto& event : engine->step()) {
            if (event.token >= 0) answers[event.id].tokens.push_back(event.token);
            if (event.finish != Finish::none) answers[event.id].finish = event.finish;
        }
        if (!spoiled && engine->tier_traffic().staged_bytes > 100'000)
            spoil(directory.path()), spoiled = true;
    }
    EXPECT_EQ(answers[large].finish, Finish::failed);
    EXPECT_EQ(answers[waiting].finish, Finish::failed);
    EXPECT_EQ(answers[small].tokens, answer(*tiny().open<Spread<kv::f16>>(alone()), request(1, 50, 100)));
}

// What vLLM calls swap space: host memory takes what the gpu tier has no room for, up to its size; beyond both, the latest
// sequence gives way and is computed again.
TEST(Tiers, HostMemoryTakesOverAndThenSequencesAreComputedAgain) {
    Limits limits = spread(4);
    limits.kv_tokens = 800;
    limits.kv_host_tokens = 400;
    limits.kv_disk_tokens = 0;
    const auto engine = tiny().open<Spread<kv::int8<16>>>(limits);
    std::map<RequestId, std::uint32_t> seeds;
    for (std::uint32_t seed = 0; seed < 6; ++seed) seeds[engine->submit(request(seed, 100, 200))] = seed;
    for (const auto& [id, got] : run(*engine)) {
        EXPECT_EQ(got.tokens,
                  answer(*tiny().open<Spread<kv::int8<16>>>(alone()), request(seeds[id], 100, 200)));
    }
    EXPECT_GT(engine->tier_traffic().spilled_to_host, 0u);
    EXPECT_GT(engine->scheduling().preempted, 0u);
    EXPECT_GT(engine->scheduling().recomputed_rows, 0u);
    EXPECT_EQ(engine->plan().host[Kind::kv], 400u / 8 * engine->plan().pools[0].page_bytes);
    EXPECT_EQ(engine->ledger().peak(Tier::host)[Kind::kv], engine->plan().host[Kind::kv])
        << "full, and no fuller";
}

TEST(Tiers, AForkCopiesAPageThatLiesAnywhere) {
    const support::TemporaryDirectory directory;
    const auto engine = tiny().open<Spread<kv::f16>>(spread(2), on(directory));
    Request first = request(2, 300, 100);
    const RequestId id = engine->submit(first);
    for (int i = 0; i < 15; ++i) engine->step();
    const auto other = engine->fork(id, first.sampling);
    ASSERT_TRUE(other.has_value());
    auto answers = run(*engine);
    const auto expected = answer(*tiny().open<Spread<kv::f16>>(alone()), first);
    const auto ends_like = [&](const std::vector<std::int32_t>& tokens) {
        return std::equal(tokens.rbegin(), tokens.rend(), expected.rbegin());
    };
    EXPECT_TRUE(ends_like(answers[id].tokens));
    EXPECT_TRUE(ends_like(answers[*other].tokens));
    EXPECT_GT(answers[*other].tokens.size(), 80u);
}

TEST(Tiers, PromptsThatPersistGoWithThem) {
    const support::TemporaryDirectory directory;
    Limits limits = spread(2);
    limits.prompt_cache = true;
    limits.prompt_cache_disk = zse::MiB(4);
    auto options = on(directory);
    options.prompt_cache_directory = directory / "prompts";
    options.always_read_prompts = true;
    const auto expected = answer(*tiny().open<Spread<kv::int8<16>>>(alone()), request(1, 700, 100));
    for (int run = 0; run < 3; ++run) {
        const auto engine = tiny().open<Spread<kv::int8<16>>>(limits, options);
        for (const Tier tier : zse::memory::all_tiers) {
            EXPECT_EQ(engine->ledger().held(tier), engine->plan()[tier]) << zse::memory::name(tier);
        }
        EXPECT_EQ(answer(*engine, request(1, 700, 100)), expected) << run;
        // As much as memory holds is read back; the rest is computed.
        EXPECT_GE(engine->counters().prompt_hit_tokens, run == 0 ? 0u : 128u) << run;
        answer(*engine, request(3, 900, 50));
        EXPECT_EQ(answer(*engine, request(1, 700, 100)), expected) << run;
        EXPECT_GT(engine->tier_traffic().spilled_to_disk, 0u);
    }
}

TEST(Tiers, WeightsMayLieOnDiskToo) {
    const support::TemporaryDirectory directory;
    Limits limits = spread();
    limits.gpu_layers = 0;
    limits.kv_host_tokens = 0;
    limits.disk_layers = 2;
    limits.prompt_cache = true;
    limits.prompt_cache_disk = zse::MiB(4);
    auto options = on(directory);
    options.prompt_cache_directory = directory / "prompts";
    const auto engine = tiny().open<Spread<kv::f16>>(limits, options);
    for (const Tier tier : zse::memory::all_tiers) {
        EXPECT_EQ(engine->ledger().held(tier), engine->plan()[tier]) << zse::memory::name(tier);
        EXPECT_EQ(engine->ledger().reserved(tier), engine->plan()[tier]) << zse::memory::name(tier);
    }
    for (const Kind kind : {Kind::weights, Kind::kv, Kind::prompt_cache})
        EXPECT_GT(engine->plan().disk[kind], 0u);
    EXPECT_EQ(answer(*engine, request(1, 700, 100)),
              answer(*tiny().open<Spread<kv::f16>>(alone()), request(1, 700, 100)));
    EXPECT_GT(engine->tier_traffic().spilled_to_disk, 0u);
    EXPECT_GT(engine->counters().streamed.fetches, 0u);
}

TEST(Tiers, EachHoldsWhatWasPlanned) {
    const support::TemporaryDirectory directory;
    for (const std::uint32_t gpu_layers : {0u, 2u, 4u}) {
        Limits limits = spread();
        limits.gpu_layers = gpu_layers;
        const auto engine = tiny().open<Spread<kv::f16>>(limits, on(directory));
        const zse::memory::Plan& plan = engine->plan();
        for (const Tier tier : zse::memory::all_tiers) {
            EXPECT_EQ(engine->ledger().held(tier), plan[tier])
                << zse::memory::name(tier) << " " << gpu_layers;
        }
        EXPECT_GT(plan.disk[Kind::kv], 0u);
        EXPECT_GT(plan.host[Kind::staging], 0u);
        answer(*engine, request(1, 600, 424));
        for (const Tier tier : zse::memory::all_tiers) {
            for (const Kind kind : {Kind::kv, Kind::staging}) {
                const Bytes peak = engine->ledger().peak(tier)[kind];
                EXPECT_LE(peak, plan[tier][kind]);
                EXPECT_GE(peak, plan[tier][kind] / 100 * 95)
                    << zse::memory::name(tier) << " " << zse::memory::name(kind) << " " << gpu_layers;
            }
        }
    }
}

TEST(Tiers, NothingIsAllocatedBetweenTokens) {
    const support::TemporaryDirectory directory;
    const auto engine = tiny().open<Spread<kv::int8<16>>>(spread(), on(directory));
    engine->submit(request(2, 300, 500));
    for (int i = 0; i < 20; ++i) engine->step();
    const std::size_t before = support::allocations;
    for (int i = 0; i < 400; ++i) engine->step();
    EXPECT_EQ(support::allocations - before, 0u);
    EXPECT_GT(engine->tier_traffic().spilled_to_disk, 50u);
}

TEST(Tiers, MemoryHoldsThePagesOfAStepWhateverIsAsked) {
    const support::TemporaryDirectory directory;
    Limits limits = spread();
    limits.kv_host_tokens = 0;
    limits.kv_disk_tokens = 1'000'000;
    const auto engine = tiny().open<Spread<kv::f16>>(limits, on(directory));
    EXPECT_EQ(engine->plan().pools[0].disk_pages, 1024u / 8 - (32 / 8 + 2));
    EXPECT_EQ(answer(*engine, request(1, 500, 100)),
              answer(*tiny().open<Spread<kv::f16>>(alone()), request(1, 500, 100)));
    EXPECT_EQ(engine->counters().lost_tiers, 0u);
    limits.context = 40;
    limits.kv_tokens = 40;
    EXPECT_EQ(tiny().open<Spread<kv::f16>>(limits, on(directory))->plan().disk.total(), 0u)
        << "nothing is left for it";
}

TEST(Tiers, BadSizesAreRefused) {
    const support::TemporaryDirectory directory;
    Limits limits = spread();
    limits.kv_recent = 1024;
    support::expect_error([&] { static_cast<void>(tiny().open<Spread<kv::f16>>(limits, on(directory))); },
                          ErrorCode::usage, {"several tiers"});
    limits = spread();
    limits.gpu_layers = 0;
    support::expect_error([&] { static_cast<void>(zse::Engine<kv::f16>::plan(tiny().spec, limits)); },
                          ErrorCode::usage, {"on disk"});
    auto options = on(directory);
    options.disk_directory = directory / "missing";
    support::expect_error([&] { static_cast<void>(tiny().open<Spread<kv::f16>>(spread(), options)); },
                          ErrorCode::usage, {"missing: expected a directory"});
}

}  // namespace
