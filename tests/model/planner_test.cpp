// SPDX-License-Identifier: Apache-2.0
// The plan: known models at compile time, and what is held equals what was planned, kind by kind.
// rows: 16 32 40 63
#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/tiny_engine.hpp>

#include <zse/model/models.hpp>

#include <tuple>

namespace {

using zse::memory::Kind;
using zse::memory::Tier;
namespace kv = zse::kv;
namespace w = zse::weights;

// KV of a token by the formula: 2 * layers * key heads * head size * bytes, from the models' published
// shapes.
static_assert(zse::Engine<>::plan(zse::models::llama3_8b).kv_bytes_per_token == 2 * 32 * 8 * 128 * 2);
static_assert(zse::Engine<>::plan(zse::models::llama2_7b).kv_bytes_per_token == 2 * 32 * 32 * 128 * 2);
static_assert(zse::Engine<>::plan(zse::models::qwen2_5_7b).kv_bytes_per_token == 2 * 28 * 4 * 128 * 2);
static_assert(zse::Engine<>::plan(zse::models::smollm2_135m).kv_bytes_per_token == 2 * 30 * 3 * 64 * 2);
// Parameters as published: 8.03, 6.74, 7.62 billion, 134.5 million.
static_assert(zse::models::llama3_8b.parameters() == 8'030'261'248);
static_assert(zse::models::llama2_7b.parameters() == 6'738'415'616);
static_assert(zse::models::qwen2_5_7b.parameters() == 7'615'616'512);
static_assert(zse::models::smollm2_135m.parameters() == 134'515'008);
static_assert(zse::Engine<w::nf4<64>, kv::int4<>>::plan(zse::models::llama3_8b,
                                                        {.context = 32'768, .batch = 1})
                  .total() < zse::GB(8));
// 4.5 bits a value against 16: the factor 3.56 by which a context grows in the same bytes.
static_assert(zse::Engine<kv::int4<>>::plan(zse::models::llama3_8b).kv_bytes_per_token * 32 ==
              zse::Engine<>::plan(zse::models::llama3_8b).kv_bytes_per_token * 9);

template <class E>
void holds_what_it_planned(const support::Tiny& tiny, const zse::Limits& limits) {
    const auto plan = E::plan(tiny.spec, limits);
    const auto engine = tiny.open<E>(limits);
    EXPECT_EQ(engine->plan(), plan);
    const auto held = engine->ledger().held(Tier::host);
    for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
        EXPECT_EQ(held.kinds[i], plan.host.kinds[i])
            << engine->description() << ", " << zse::memory::name(static_cast<Kind>(i));
    }
    // A load takes nothing more.
    for (std::uint64_t i = 0; i < 2 * limits.batch; ++i) {
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(i, limits.context - 5);
        request.ignore_end = true;
        engine->submit(request);
    }
    support::run_to_end(*engine);
    EXPECT_EQ(engine->ledger().held(Tier::host), plan.host);
    EXPECT_EQ(engine->ledger().peak(Tier::host), plan.total());
}

TEST(Planner, WhatIsHeldIsWhatWasPlannedToTheByte) {
    const support::Tiny tiny({.heads = 2, .kv_heads = 1, .head_dim = 32, .type = zse::io::GgmlType::q4_1});
    for (const std::uint32_t page : {1u, 8u, 16u, 32u}) {
        for (const std::uint32_t context : {33u, 64u}) {
            const zse::Limits limits{
                .context = context, .batch = 3, .step_tokens = 40, .threads = 2, .page_tokens = page};
            holds_what_it_planned<zse::Engine<>>(tiny, limits);
            holds_what_it_planned<zse::Engine<kv::f32, w::f32>>(tiny, limits);
            holds_what_it_planned<zse::Engine<kv::int8<>, w::int8<>>>(tiny, limits);
            holds_what_it_planned<zse::Engine<kv::int4<>, w::nf4<>>>(tiny, limits);
            holds_what_it_planned<zse::Engine<kv::pair<kv::int8<>, kv::int4<>>>>(tiny, limits);
            holds_what_it_planned<zse::Engine<zse::attention::reference>>(tiny, limits);
        }
    }
}

// Pages are the product of their parts: codes and scales of 16 tokens, each part a multiple of 16 bytes.
TEST(Planner, QuantisedCachesHoldTheirFormula) {
    const zse::Limits limits{.context = 1024, .batch = 2};
    const auto bytes = [&]<class E>(std::type_identity<E>) {
        return E::plan(zse::models::smollm2_135m, limits).host[Kind::kv];
    };
    const std::uint64_t values =
        2ull * 1024 * 2 * 30 * 3 * 64;  // K and V, tokens, batch, layers, heads, head size
    EXPECT_EQ(bytes(std::type_identity<zse::Engine<kv::f32>>{}), values * 4);
    EXPECT_EQ(bytes(std::type_identity<zse::Engine<kv::f16>>{}), values * 2);
    EXPECT_EQ(bytes(std::type_identity<zse::Engine<kv::int8<>>>{}), values + values / 32 * 2);
    EXPECT_EQ(bytes(std::type_identity<zse::Engine<kv::int4<>>>{}), values / 2 + values / 32 * 2);
    EXPECT_EQ(bytes(std::type_identity<zse::Engine<kv::pair<kv::int8<>, kv::int4<>>>>{}),
              (values + values / 32 * 2) / 2 + (values / 2 + values / 32 * 2) / 2);
}

TEST(Planner, ScratchOfFlashDoesNotGrowWithTheContext) {
    const auto scratch = [](std::uint32_t context) {
        return zse::Engine<>::plan(zse::models::llama3_8b, {.context = context}).host[Kind::scratch];
    };
    EXPECT_EQ(scratch(1024), scratch(16'384));
    const auto reference = [](std::uint32_t context) {
        return zse::Engine<zse::attention::reference>::plan(zse::models::llama3_8b, {.context = context})
            .host[Kind::scratch];
    };
    EXPECT_LT(reference(65'536), reference(1u << 20));
}

// Scratch follows the rows of a step, since buffers that never live together share bytes: less than their
// sum.
TEST(Planner, ScratchGrowsWithTheRowsOfAStepAndIsShared) {
    const auto scratch = [](std::uint32_t rows) {
        const auto plan = zse::Engine<>::plan(zse::models::llama3_8b, {.context = 4096, .step_tokens = rows});
        return plan.host[Kind::scratch] - plan.scratch_per_thread;
    };
    EXPECT_EQ(scratch(512) - scratch(256), 2 * (scratch(256) - scratch(128)));
    const std::uint64_t sum = 512ull * 4 * (4096 * 4 + 128 + 4096 + 2 * 1024 + 2 * 14336);
    EXPECT_LT(scratch(512), sum);
}

TEST(Planner, LimitsThatMakeNoSenseAreRefused) {
    using zse::ErrorCode;
    const auto refuses = [](zse::Limits limits, std::initializer_list<std::string_view> words) {
        support::expect_error([&] { zse::Engine<>::plan(zse::models::smollm2_135m, limits); },
                              ErrorCode::usage, words);
    };
    refuses({.batch = 0}, {"batch"});
    refuses({.batch = 600, .step_tokens = 512}, {"token budget"});
    refuses({.page_tokens = 7}, {"1, 8, 16 or 32"});
    refuses({.threads = 0}, {"threads"});
    refuses({.step_tokens = 8, .output_rows = 9}, {"logits"});
    auto spec = zse::models::smollm2_135m;
    spec.head_dim = spec.rope_dim = 40;
    support::expect_error([&] { zse::Engine<kv::int4<32>>::plan(spec); }, ErrorCode::usage,
                          {"kv::int4<32", "40"});
    spec.layers = 0;
    support::expect_error([&] { zse::Engine<>::plan(spec); }, ErrorCode::usage, {"layers"});
}

TEST(Planner, ATierThatIsTooSmallRefusesAndNothingIsLeft) {
    const support::Tiny tiny({});
    const auto need = zse::Engine<>::plan(tiny.spec, {.context = 64}).total();
    for (const zse::Bytes cap : {zse::Bytes{0}, need / 2, need - 20'000}) {
        zse::memory::Ledger ledger(cap);
        zse::engine::Options options;
        options.ledger = &ledger;
        support::expect_error([&] { std::ignore = tiny.open<zse::Engine<>>({.context = 64}, options); },
                              zse::ErrorCode::out_of_memory, {"bytes"});
        EXPECT_EQ(ledger.held(Tier::host).total(), 0u);
        EXPECT_EQ(ledger.reserved(Tier::host).total(), 0u);
    }
    zse::memory::Ledger ledger(need);
    zse::engine::Options options;
    options.ledger = &ledger;
    { const auto engine = tiny.open<zse::Engine<>>({.context = 64}, options); }
    EXPECT_EQ(ledger.held(Tier::host).total(), 0u);
}

}  // namespace
