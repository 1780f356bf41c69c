// SPDX-License-Identifier: Apache-2.0
// The plan of known models, at compile time and not.
// rows: 16 32 40 63
#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/tiny_engine.hpp>

#include <zse/model/models.hpp>

namespace {

using zse::memory::Kind;
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

}  // namespace
