// SPDX-License-Identifier: Apache-2.0
// What is held is what was planned, to the byte, in every kind and tier; and at full load nearly all of it is used.
// rows: 2 3 7 12 16 30 32 34 35 36 40 63
// timeout: 300
#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/tiny_engine.hpp>

#include <zse/model/models.hpp>

#include <tuple>

namespace {

using support::Tiny;
using zse::memory::Kind;
using zse::memory::Tier;
using zse::memory::TierPlan;
namespace kv = zse::kv;
namespace w = zse::weights;

using Tiers = zse::tiers::chain<zse::tiers::arena, zse::tiers::host>;

/// The kinds in which a tier holds other than it planned.
std::vector<std::string> differences(const TierPlan& planned, const TierPlan& held) {
    std::vector<std::string> found;
    for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
        if (planned.kinds[i] == held.kinds[i]) continue;
        found.push_back(zse::text(zse::memory::name(static_cast<Kind>(i)), ": planned ", planned.kinds[i],
                                  ", held ", held.kinds[i]));
    }
    return found;
}

const std::vector<std::string> none;

/// The worst load: every sequence at once, first as prompts that fill the context (the last token of an answer is
/// never computed itself, that of a prompt is), then with answers up to its end.
void fill(zse::AnyEngine& engine) {
    const zse::Limits& limits = engine.limits();
    for (const bool answers : {false, true}) {
        for (std::uint32_t i = 0; i < limits.batch; ++i) {
            zse::AnyEngine::Request request;
            // Answers end one after the other, so that every number of sequences occurs.
            request.tokens = support::tiny_prompt(i, answers ? limits.context / 2 + 9 * i : limits.context);
            if (!answers) request.max_tokens = 0;
            request.ignore_end = true;
            engine.submit(std::move(request));
        }
        support::run_to_end(engine);
    }
}

template <class E>
void holds_what_it_planned(const Tiny& tiny, const zse::Limits& limits) {
    const auto engine = tiny.open<E>(limits);
    const auto plan = E::plan(tiny.spec, limits);
    SCOPED_TRACE(zse::text(engine->description(), ", context ", limits.context, ", batch ", limits.batch,
                           ", pages of ", limits.page_tokens, ", ", limits.gpu_layers, " layers on gpu"));
    EXPECT_EQ(engine->plan(), plan);
    for (const Tier tier : zse::memory::all_tiers) {
        EXPECT_EQ(differences(plan[tier], engine->ledger().held(tier)), none);
        EXPECT_EQ(differences(plan[tier], engine->ledger().reserved(tier)), none);
    }
    fill(*engine);
    for (const Tier tier : zse::memory::all_tiers) {
        EXPECT_EQ(differences(plan[tier], engine->ledger().held(tier)), none) << "after a load";
        const TierPlan peak = engine->ledger().peak(tier);
        for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
            const auto kind = static_cast<Kind>(i);
            if (kind == Kind::rounding) continue;
            EXPECT_LE(peak[kind], plan[tier][kind]) << zse::memory::name(kind);
            EXPECT_GE(static_cast<double>(peak[kind]), 0.95 * static_cast<double>(plan[tier][kind]))
                << zse::memory::name(tier) << " " << zse::memory::name(kind) << ": planned for nothing";
        }
    }
}

template <class... E>
struct Engines {};

template <class... E>
void each_holds_what_it_planned(Engines<E...> /*engines*/, const Tiny& tiny, const zse::Limits& limits) {
    (holds_what_it_planned<E>(tiny, limits), ...);
}

TEST(Memory, WhatIsHeldIsWhatWasPlannedToTheByte) {
    const Engines<zse::Engine<>, zse::Engine<kv::f32, w::f32>, zse::Engine<kv::int8<>, w::int8<>>,
                  zse::Engine<kv::int4<>, w::nf4<>>, zse::Engine<kv::pair<kv::int8<>, kv::int4<>>>,
                  zse::Engine<zse::attention::reference>>
        engines;
    const Tiny tiny({.heads = 2, .kv_heads = 1, .head_dim = 32, .type = zse::io::GgmlType::q4_1});
    for (const std::uint32_t page : {1u, 8u, 16u, 32u}) {
        for (const auto& [context, batch] : {std::pair{97u, 3u}, {256u, 1u}}) {
            each_holds_what_it_planned(
                engines, tiny,
                {.context = context, .batch = batch, .step_tokens = 40, .threads = 2, .page_tokens = page});
        }
    }
}

TEST(Memory, AlsoWithWindowsLayersApartAndTwoPrecisions) {
    Tiny tiny({.layers = 5, .heads = 2, .kv_heads = 1, .head_dim = 32, .context = 4096});
    const zse::Limits limits{.context = 2600, .batch = 2, .step_tokens = 64, .threads = 1, .page_tokens = 16};
    holds_what_it_planned<zse::Engine<kv::per_layer<kv::int4<>, kv::on<kv::f16, 0, 4>>>>(tiny, limits);
    holds_what_it_planned<zse::Engine<kv::sliding<kv::int8<>, kv::int4<>>>>(tiny, limits);
    tiny.spec = tiny.spec.with_windows(100, 2);
    holds_what_it_planned<zse::Engine<kv::int8<>>>(tiny, limits);
    zse::Limits pruned = limits;
    pruned.kv_recent = 1024;
    pruned.kv_sinks = 4;
    holds_what_it_planned<zse::Engine<kv::int8<>>>(tiny, pruned);
    pruned.kv_heavy = 1024;
    holds_what_it_planned<zse::Engine<kv::int8<>>>(tiny, pruned);
}

TEST(Memory, AlsoWithLayersInTheGpuTier) {
    const Tiny tied({.layers = 4, .tied = true, .type = zse::io::GgmlType::q4_1});
    const Tiny untied({.layers = 4, .rope_freqs = std::vector<float>(8, 1.0f)});
    for (const std::uint32_t layers : {1u, 2u, 3u, 4u}) {
        const zse::Limits limits{
            .context = 64, .batch = 2, .step_tokens = 32, .threads = 2, .gpu_layers = layers};
        holds_what_it_planned<zse::Engine<Tiers>>(tied, limits);
        holds_what_it_planned<zse::Engine<Tiers>>(untied, limits);
    }
    const auto plan = zse::Engine<Tiers>::plan(tied.spec, {.context = 64, .gpu_layers = 2});
    EXPECT_GT(plan.gpu[Kind::weights], plan.host[Kind::weights])
        << "two layers and the output matrix of four";
    EXPECT_EQ(plan.gpu[Kind::kv], plan.host[Kind::kv]) << "two layers each";
    EXPECT_EQ(zse::Engine<Tiers>::plan(tied.spec, {.context = 64}).gpu.total(), 0u);
}

// The comparison sees a single page that nobody planned: it can fail.
TEST(Memory, AnExtraPageIsFound) {
    const Tiny tiny({});
    const zse::Limits limits{.context = 64, .batch = 2, .step_tokens = 32};
    const auto engine = tiny.open<zse::Engine<>>(limits);
    const auto plan = zse::Engine<>::plan(tiny.spec, limits);
    ASSERT_EQ(differences(plan.host, engine->ledger().held(Tier::host)), none);
    const zse::memory::Arena planted(
        engine->ledger().reserve(Tier::host, Kind::kv, plan.pools[0].page_bytes).value());
    EXPECT_NE(differences(plan.host, engine->ledger().held(Tier::host)), none);
}

TEST(Memory, LayersInTheGpuTierChangeNoToken) {
    const Tiny tiny({.layers = 4});
    const auto prompt = support::tiny_prompt(7, 40);
    const auto alone = tiny.open<zse::Engine<Tiers>>({.context = 128});
    const auto expected = support::greedy(*alone, prompt, 60);
    for (const std::uint32_t layers : {1u, 3u, 4u, 99u}) {
        const auto engine = tiny.open<zse::Engine<Tiers>>({.context = 128, .gpu_layers = layers});
        EXPECT_EQ(support::greedy(*engine, prompt, 60), expected) << layers;
    }
    support::expect_error([&] { std::ignore = tiny.open<zse::Engine<>>({.context = 128, .gpu_layers = 2}); },
                          zse::ErrorCode::usage, {"gpu tier", "tiers::host"});
}

TEST(Memory, ATierThatIsTooSmallRefusesAndNothingIsLeft) {
    const Tiny tiny({});
    const auto need = zse::Engine<>::plan(tiny.spec, {.context = 64}).total();
    for (const zse::Bytes cap : {zse::Bytes{0}, need / 2, need - 1}) {
        const auto ledger = std::make_shared<zse::memory::Ledger>(zse::memory::Caps{.host = cap});
        support::expect_error([&] { std::ignore = tiny.open<zse::Engine<>>({.context = 64}, {}, ledger); },
                              zse::ErrorCode::out_of_memory, {"bytes"});
        EXPECT_EQ(ledger->held(Tier::host).total(), 0u);
        EXPECT_EQ(ledger->reserved(Tier::host).total(), 0u);
    }
    const auto ledger = std::make_shared<zse::memory::Ledger>(zse::memory::Caps{.host = need});
    { const auto engine = tiny.open<zse::Engine<>>({.context = 64}, {}, ledger); }
    EXPECT_EQ(ledger->held(Tier::host).total(), 0u);
    EXPECT_EQ(ledger->reserved(Tier::host).total(), 0u);
}

// Row 7: what a model holds while it stands is not touched by requests; what requests use comes back.
TEST(Memory, StaticBytesStayAndDynamicOnesComeBack) {
    const Tiny tiny({});
    const auto engine = tiny.open<zse::Engine<>>({.context = 64, .batch = 4, .step_tokens = 32});
    const TierPlan before = engine->ledger().held(Tier::host);
    for (int i = 0; i < 25; ++i) fill(*engine);  // 200 requests
    EXPECT_EQ(engine->ledger().held(Tier::host), before);
    EXPECT_EQ(engine->page_use().used, 0u);
    EXPECT_EQ(engine->page_use().sequences, 0u);
    engine->ledger().reset_peaks();
    zse::AnyEngine::Request one;
    one.tokens = {1, 2, 3};
    one.max_tokens = 2;
    engine->submit(std::move(one));
    support::run_to_end(*engine);
    EXPECT_EQ(engine->ledger().peak(Tier::host)[Kind::kv], engine->plan().pools[0].page_bytes);
}

// A window costs its own length, not the context's: the pool of a group is no larger than it can use.
TEST(Memory, WindowedLayersHoldTheirWindow) {
    auto spec = zse::models::llama3_8b;
    const zse::Limits limits{.context = 32'768, .step_tokens = 512};
    const auto full = zse::Engine<>::plan(spec, limits);
    spec = spec.with_windows(4096, 2);
    const auto hybrid = zse::Engine<>::plan(spec, limits);
    ASSERT_EQ(hybrid.pool_count, 2u);
    // Sixteen layers of 4096 bytes a token: 32,768 tokens, or the window, the rows of a step and an unfinished page.
    EXPECT_EQ(full.of(Kind::kv), 32ull * 4096 * 32'768);
    const std::uint64_t window_pages = (4096 - 1 + 512 + 15) / 16 + 1;
    EXPECT_EQ(hybrid.of(Kind::kv), 16ull * 4096 * 32'768 + 16ull * 4096 * 16 * window_pages);
    EXPECT_EQ(hybrid.kv_bytes_per_token, full.kv_bytes_per_token);
}

TEST(Memory, AMixtureHoldsAllItsExperts) {
    auto spec = zse::models::llama3_8b;
    const auto dense = zse::Engine<>::plan(spec, {.context = 1024});
    spec.experts = 8;
    spec.experts_used = 2;
    const auto mixture = zse::Engine<>::plan(spec, {.context = 1024});
    const std::uint64_t block = 3ull * 4096 * 14336 * 2;
    const std::uint64_t router = 4096ull * 8 * 4;
    EXPECT_EQ(mixture.of(Kind::weights) - dense.of(Kind::weights), 32 * (7 * block + router));
    EXPECT_EQ(mixture.parameters - dense.parameters, 32 * (7 * block / 2 + 4096 * 8));
    EXPECT_GT(mixture.of(Kind::scratch), dense.of(Kind::scratch)) << "two experts' activations a row";
    EXPECT_EQ(mixture.of(Kind::kv), dense.of(Kind::kv));
}

}  // namespace
