// SPDX-License-Identifier: Apache-2.0
// The demo model with a gpu tier for 512 tokens, a host tier for 2,048 and the rest on disk reaches a context of 6,000
// with the tokens of memory alone.
// rows: 41 42 43
// labels: slow
// timeout: 600
#include <gtest/gtest.h>
#include <support/references.hpp>
#include <support/smollm2.hpp>
#include <support/temporary_directory.hpp>

namespace {

constexpr std::uint32_t context = 6000;
constexpr std::uint32_t answer = 40;

using Tiers = zse::tiers::chain<zse::tiers::arena, zse::tiers::host, zse::tiers::disk>;

/// A prompt of real text that leaves room for the answer alone.
std::vector<std::int32_t> prompt() {
    const auto json = support::read_reference_json("smollm2.json");
    std::vector<std::int32_t> tokens;
    for (std::size_t i = 0; tokens.size() < context - answer; ++i) {
        const std::vector<std::int32_t> ids = json["prompts"][i % 5]["ids"];
        tokens.insert(tokens.end(), ids.begin(), ids.end());
    }
    tokens.resize(context - answer);
    return tokens;
}

template <class Kv>
void reaches_its_context() {
    const support::TemporaryDirectory directory;
    zse::engine::Options options;
    options.limits = {.context = context, .batch = 1, .step_tokens = 256, .threads = 2};
    std::vector<std::int32_t> expected;
    {
        const auto engine = support::open_smollm2<zse::Engine<Kv, Tiers>>(options);
        expected = support::greedy(*engine, prompt(), answer);
    }
    options.limits.gpu_layers = 99;
    options.limits.kv_host_tokens = 2048;
    options.limits.kv_disk_tokens = context - 512 - 2048;
    options.disk_directory = directory.path();
    const auto engine = support::open_smollm2<zse::Engine<Kv, Tiers>>(options);
    for (const zse::memory::Tier tier : zse::memory::all_tiers) {
        EXPECT_EQ(engine->ledger().held(tier)[zse::memory::Kind::kv],
                  engine->plan()[tier][zse::memory::Kind::kv]);
    }
    EXPECT_EQ(support::greedy(*engine, prompt(), answer), expected) << engine->description();
    EXPECT_EQ(expected.size(), answer);
    const zse::kv::TierTraffic traffic = engine->tier_traffic();
    EXPECT_GE(traffic.spilled_to_host, (context - 512) / 16u);
    EXPECT_GE(traffic.spilled_to_disk, (context - 512 - 2048) / 16u);
    EXPECT_GT(traffic.staged_bytes, answer * engine->plan().disk[zse::memory::Kind::kv] / 10 * 9);
    EXPECT_EQ(engine->counters().lost_tiers, 0u);
    std::printf("%s: %.1f MB read a token\n", engine->description().c_str(),
                static_cast<double>(traffic.staged_bytes) / answer / 1e6);
}

TEST(SmolLm2Tiers, AContextThatMemoryDoesNotHold) {
    reaches_its_context<zse::kv::f16>();
    reaches_its_context<zse::kv::int8<>>();
    reaches_its_context<zse::kv::int4<>>();
}

}  // namespace
