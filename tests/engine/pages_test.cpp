// SPDX-License-Identifier: Apache-2.0
// Pages that are shared, preempted, dropped, coded anew or bounded by a window: the tokens are those of a sequence alone.
// rows: 33 34 35 36 37 38 61 91
// timeout: 300
#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/tiny_engine.hpp>

#include <zse/planning/settle.hpp>

#include <map>
#include <optional>
#include <tuple>

namespace {

using support::Tiny;
using Request = zse::AnyEngine::Request;
using zse::engine::Finish;
using zse::engine::RequestId;
namespace kv = zse::kv;

struct Outcome {
    std::vector<std::int32_t> tokens;
    Finish finish = Finish::none;
};

std::map<RequestId, Outcome> run(zse::AnyEngine& engine) {
    std::map<RequestId, Outcome> outcomes;
    while (!engine.idle()) {
        for (const auto& event : engine.step()) {
            if (event.token >= 0) outcomes[event.id].tokens.push_back(event.token);
            if (event.finish != Finish::none) outcomes[event.id].finish = event.finish;
        }
    }
    return outcomes;
}

Request growing(std::uint64_t seed, std::uint32_t prompt, std::uint32_t most) {
    Request request;
    request.tokens = support::tiny_prompt(seed, prompt);
    request.max_tokens = most;
    request.ignore_end = true;
    request.sampling = {.temperature = seed % 2 == 0 ? 0.0f : 1.0f, .seed = seed};
    return request;
}

const Tiny& tiny() {
    static const Tiny model({.context = 4096});
    return model;
}

/// Logits after each token of a prompt, computed in chunks of `step` rows.
template <class E>
std::vector<std::vector<float>> logits(const Tiny& model, const std::vector<std::int32_t>& tokens,
                                       zse::Limits limits) {
    limits.context = 2600;
    limits.output_rows = limits.step_tokens;
    const auto engine = model.open<E>(limits);
    return support::all_logits(*engine, tokens);
}

template <class E>
void does_not_depend_on_chunks(const Tiny& model, const zse::Limits& limits) {
    const auto tokens = support::tiny_prompt(3, 2500);
    zse::Limits whole = limits;
    whole.step_tokens = 512;
    const auto expected = logits<E>(model, tokens, whole);
    ASSERT_EQ(expected.size(), tokens.size());
    for (const std::uint32_t step : {7u, 100u}) {
        for (const std::uint32_t page : {1u, 32u}) {
            zse::Limits chunked = limits;
            chunked.step_tokens = step;
            chunked.page_tokens = page;
            EXPECT_EQ(logits<E>(model, tokens, chunked), expected) << step << " rows, pages of " << page;
        }
    }
}

TEST(Pages, WhatIsKeptDoesNotDependOnChunks) {
    zse::Limits pruned;
    pruned.kv_recent = 1024;
    pruned.kv_sinks = 5;
    does_not_depend_on_chunks<zse::Engine<kv::f16>>(tiny(), pruned);
    does_not_depend_on_chunks<zse::Engine<kv::sliding<kv::int8<16>, kv::int4<16>>>>(tiny(), {});
    does_not_depend_on_chunks<zse::Engine<kv::sliding<kv::f16, kv::int4<16, kv::plain>>>>(tiny(), {});
    zse::Limits heavy = pruned;
    heavy.kv_heavy = 1024;
    does_not_depend_on_chunks<zse::Engine<kv::int8<16>>>(tiny(), heavy);
    Tiny hybrid({.layers = 3, .context = 4096});
    hybrid.spec = hybrid.spec.with_windows(70, 2);
    does_not_depend_on_chunks<zse::Engine<kv::f16>>(hybrid, {});
}

// Up to the first border nothing is old and nothing is dropped; beyond it both change something, and little.
TEST(Pages, OldTokensAreCoarserAndRecentOnesAreNot) {
    const auto tokens = support::tiny_prompt(3, 2000);
    const zse::Limits limits{.step_tokens = 256};
    const auto exact = logits<zse::Engine<kv::f32>>(tiny(), tokens, limits);
    const auto fine = logits<zse::Engine<kv::int8<16>>>(tiny(), tokens, limits);
    const auto both = logits<zse::Engine<kv::sliding<kv::int8<16>, kv::int4<16>>>>(tiny(), tokens, limits);
    const auto coarse = logits<zse::Engine<kv::int4<16>>>(tiny(), tokens, limits);
    const auto worst = [&](const auto& rows, std::size_t first, std::size_t last) {
        double found = 0;
        for (std::size_t i = first; i < last; ++i)
            found = std::max(found, support::share_of_spread(rows[i], exact[i]));
        return found;
    };
    for (std::size_t i = 0; i < 1280; ++i) ASSERT_EQ(both[i], fine[i]) << i;
    EXPECT_NE(both[1281], fine[1281]);
    EXPECT_LT(worst(both, 1300, 2000), worst(coarse, 1300, 2000));
    zse::Limits pruned = limits;
    pruned.kv_recent = 1024;
    const auto dropped = logits<zse::Engine<kv::f32>>(tiny(), tokens, pruned);
    for (std::size_t i = 0; i < 1280; ++i) ASSERT_EQ(dropped[i], exact[i]) << i;
    EXPECT_NE(dropped[1281], exact[1281]);
}

// As long as the slots of heavy tokens hold all that is old, nothing differs in a bit; then the lightest go, and what is
// lost is less than where all that is old goes.
TEST(Pages, HeavyTokensStay) {
    const auto tokens = support::tiny_prompt(3, 2550);
    zse::Limits limits{.step_tokens = 256};
    const auto exact = logits<zse::Engine<kv::f32>>(tiny(), tokens, limits);
    limits.kv_recent = 1024;
    const auto dropped = logits<zse::Engine<kv::f32>>(tiny(), tokens, limits);
    limits.kv_heavy = 1024;
    const auto heavy = logits<zse::Engine<kv::f32>>(tiny(), tokens, limits);
    for (std::size_t i = 0; i < 2304; ++i) ASSERT_EQ(heavy[i], exact[i]) << i;
    EXPECT_NE(heavy[2305], exact[2305]);
    const auto mean = [&](const auto& rows) {
        double sum = 0;
        for (std::size_t i = 2304; i < 2550; ++i) sum += support::share_of_spread(rows[i], exact[i]);
        return sum / 246;
    };
    EXPECT_LT(mean(heavy), 0.7 * mean(dropped));
}

// A window is the model's, so the formula of the model says what comes out: in double precision, row by row.
TEST(Pages, AWindowHidesExactlyTheTokensBeforeIt) {
    Tiny model({.layers = 3, .context = 1024});
    model.spec = model.spec.with_windows(37, 3);
    const auto tokens = support::tiny_prompt(5, 120);
    const auto expected = support::NaiveLlama(model).logits(tokens);
    for (const std::uint32_t step : {1u, 16u, 120u}) {
        const auto engine =
            model.open<zse::Engine<kv::f32>>({.context = 128, .step_tokens = step, .output_rows = step});
        const auto got = support::all_logits(*engine, tokens);
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            // Float32 sums of at most 128 terms in 3 layers: a few times 2^-24 of the spread each.
            EXPECT_LT(support::share_of_spread(got[i], expected[i]), 2e-5) << step << " rows, position " << i;
        }
    }
    const Tiny full({.layers = 3, .context = 1024});
    EXPECT_GT(support::share_of_spread(support::NaiveLlama(full).logits(tokens)[100], expected[100]), 1e-3);
}

TEST(Pages, LayersWithCodecsOfTheirOwn) {
    const Tiny model({.layers = 4, .context = 1024});
    const auto tokens = support::tiny_prompt(9, 60);
    const auto last = [&]<class E>(std::type_identity<E>) {
        const auto engine = model.open<E>({.context = 64, .step_tokens = 64});
        return support::all_logits(*engine, tokens).back();
    };
    const auto all_fine = last(std::type_identity<zse::Engine<kv::f32>>{});
    const auto all_coarse = last(std::type_identity<zse::Engine<kv::int4<16>>>{});
    using Every = kv::per_layer<kv::int4<16>, kv::on<kv::f32, 0, 1, 2, 3>>;
    using None = kv::per_layer<kv::int4<16>, kv::on<kv::f32, 17>>;
    using Ends = kv::per_layer<kv::int4<16>, kv::on<kv::f32, 0, 3>>;
    EXPECT_EQ(last(std::type_identity<zse::Engine<Every>>{}), all_fine);
    EXPECT_EQ(last(std::type_identity<zse::Engine<None>>{}), all_coarse);
    const auto mixed = last(std::type_identity<zse::Engine<Ends>>{});
    EXPECT_NE(mixed, all_fine);
    EXPECT_NE(mixed, all_coarse);
    const auto plan = zse::Engine<Ends>::plan(model.spec, {.context = 64});
    ASSERT_EQ(plan.pool_count, 2u);
    // Two layers of 4-byte values, two of 4-bit codes with a 2-byte scale for 16: 2 * 16 * 2 values a token and layer.
    EXPECT_EQ(plan.kv_bytes_per_token, 2 * (64 * 4) + 2 * (64 / 2 + 64 / 16 * 2));
}

// Row 91: more sequences than the pages hold. Whoever grows takes pages from the latest, which computes them again.
TEST(Pages, APoolForThreeServesEightThatGrow) {
    for (const int pruned : {0, 1, 2}) {
        std::vector<std::vector<std::int32_t>> alone;
        zse::Limits limits{.context = 200, .batch = 8, .step_tokens = 64, .threads = 2};
        if (pruned > 0) limits.kv_recent = 1024;
        if (pruned > 1) limits.kv_heavy = 1024;
        for (std::uint64_t i = 0; i < 8; ++i) {
            const auto engine = tiny().open<zse::Engine<kv::int8<16>>>({.context = 200, .step_tokens = 64});
            engine->submit(growing(i, 20 + static_cast<std::uint32_t>(3 * i), 150));
            alone.push_back(run(*engine).begin()->second.tokens);
        }
        limits.kv_tokens = 3 * 200;
        const auto engine = tiny().open<zse::Engine<kv::int8<16>>>(limits);
        std::vector<RequestId> ids;
        for (std::uint64_t i = 0; i < 8; ++i) {
            ids.push_back(engine->submit(growing(i, 20 + static_cast<std::uint32_t>(3 * i), 150)));
        }
        auto outcomes = run(*engine);
        for (std::size_t i = 0; i < ids.size(); ++i) {
            EXPECT_EQ(outcomes[ids[i]].tokens, alone[i]) << i;
            EXPECT_EQ(outcomes[ids[i]].finish, Finish::length);
        }
        EXPECT_GT(engine->scheduling().preempted, 0u);
        EXPECT_GT(engine->scheduling().recomputed_rows, 0u);
        EXPECT_GT(engine->scheduling().most_running, 3u) << "more than the worst case would let in";
        EXPECT_EQ(engine->page_use().used, 0u);
    }
}

// Row 38: ten pages for two sequences of five pages each. The eleventh comes from the later one, which has five pages
// then, and computes their tokens again.
TEST(Pages, WhatIsEvictedIsCounted) {
    const auto answer = [](std::uint64_t kv_tokens, zse::scheduler::Counts& counts) {
        const auto engine = tiny().open<zse::Engine<kv::f16>>(
            {.context = 160, .batch = 2, .step_tokens = 128, .kv_tokens = kv_tokens});
        for (std::uint64_t i = 0; i < 2; ++i) engine->submit(growing(i, 64, 60));
        std::map<RequestId, std::vector<std::int32_t>> tokens;
        while (!engine->idle()) {
            const std::uint64_t used = engine->page_use().used;
            const std::uint64_t evicted = engine->scheduling().evicted_pages;
            for (const auto& event : engine->step()) tokens[event.id].push_back(event.token);
            if (engine->scheduling().evicted_pages == evicted) continue;
            EXPECT_EQ(used, 10u);
            EXPECT_EQ(engine->page_use().used, 6u) << "five pages are given up, one of them is taken";
        }
        counts = engine->scheduling();
        return tokens;
    };
    zse::scheduler::Counts roomy, tight;
    const auto expected = answer(0, roomy);
    EXPECT_EQ(answer(160, tight), expected);
    EXPECT_EQ(roomy.evicted_pages, 0u);
    EXPECT_EQ(tight.preempted, 1u);
    EXPECT_EQ(tight.evicted_pages, 5u);
    EXPECT_EQ(tight.evicted_tokens, 80u);
    EXPECT_EQ(tight.recomputed_rows, 80u);
}

// Rows 35 and 36: a plan knows the peak of a step, so no share of memory has to be guessed. Nine tenths of a tier less all
// else makes a larger pool than a fixed 0.8 does, and the load stays within them.
TEST(Pages, APoolOfAShareOfATierIsNeverOverrun) {
    const auto pool = [](double share, std::uint32_t batch, zse::Bytes tier) {
        zse::planning::BudgetRequest request;
        request.host = zse::Size{false, tier};
        request.utilization = share;
        const zse::planning::Budget budget = zse::planning::budget_of(request, {});
        zse::planning::Wish wish;
        wish.setting.limits = {.context = 400, .batch = batch, .step_tokens = 64};
        wish.kv = zse::Size{true, 0};
        wish.layers = tiny().spec.layers;
        const auto plan = zse::planning::planner_of<zse::Engine<kv::f16>>(tiny().spec);
        const zse::Limits limits = zse::planning::settle(plan, wish, budget).limits;
        return std::pair{limits, budget.host.cap};
    };
    const auto bytes = [](const zse::Limits& limits) {
        return zse::Engine<kv::f16>::plan(tiny().spec, limits);
    };
    const zse::Bytes tier = bytes({.context = 400, .batch = 16, .step_tokens = 64}).total() -
                            zse::KiB(600);  // not enough for all pages
    const auto [limits, cap] = pool(0.9, 16, tier);
    const auto plan = bytes(limits);
    ASSERT_NE(limits.kv_tokens, 0u) << "the pool is smaller than the worst case";
    EXPECT_LE(plan.total(), cap);
    EXPECT_EQ(plan.pools[0].pages, limits.kv_tokens / 16);
    zse::Limits one_more = limits;
    one_more.kv_tokens +=
        zse::memory::huge_page / plan.kv_bytes_per_token;  // by a whole page of an arena at most
    EXPECT_GT(bytes(one_more).total(), cap) << "no page is left out";
    EXPECT_GT(limits.kv_tokens, pool(0.8, 16, tier).first.kv_tokens);
    EXPECT_GT(limits.kv_tokens, pool(0.9, 24, tier).first.kv_tokens) << "rows of logits take what pages had";

    const auto engine = tiny().open<zse::Engine<kv::f16>>(limits);
    for (std::uint64_t i = 0; i < 24; ++i) engine->submit(growing(i, 100, 250));
    EXPECT_EQ(run(*engine).size(), 24u);
    EXPECT_GT(engine->scheduling().preempted, 0u);
    EXPECT_LE(engine->ledger().peak(zse::memory::Tier::host).total(), cap);
    EXPECT_EQ(engine->ledger().held(zse::memory::Tier::host).total(), plan.host.total());
}

TEST(Pages, ReservedAdmissionPreemptsNobody) {
    zse::engine::Options options;
    options.admission = zse::scheduler::Admission::reserve;
    const auto engine = tiny().open<zse::Engine<kv::f16>>(
        {.context = 200, .batch = 8, .step_tokens = 64, .kv_tokens = 3 * 200}, options);
    for (std::uint64_t i = 0; i < 8; ++i) engine->submit(growing(i, 30, 150));
    const auto outcomes = run(*engine);
    EXPECT_EQ(outcomes.size(), 8u);
    for (const auto& [id, outcome] : outcomes) EXPECT_EQ(outcome.tokens.size(), 150u);
    EXPECT_EQ(engine->scheduling().preempted, 0u);
    EXPECT_EQ(engine->scheduling().most_running, 3u);
}

TEST(Pages, ARequestBeyondAllPagesIsRefusedWithTheBytesItLacks) {
    const auto engine = tiny().open<zse::Engine<kv::f16>>({.context = 200, .batch = 2, .kv_tokens = 100});
    // 2 * 2 layers * 2 heads * 16 values * 2 bytes = 256 bytes a token; 13 pages of 16 tokens for 200.
    support::expect_error([&] { engine->submit(growing(1, 20, 180)); }, zse::ErrorCode::out_of_memory,
                          {"200 tokens", "53248", "hold 112 tokens"});
    support::expect_error([&] { engine->submit(growing(1, 20, 93)); }, zse::ErrorCode::out_of_memory,
                          {"113 tokens"});
    EXPECT_TRUE(engine->idle());
    engine->submit(growing(1, 20, 92));
    EXPECT_EQ(run(*engine).begin()->second.tokens.size(), 92u);
}

TEST(Pages, AForkGoesOnAsIfItHadBeenAlone) {
    const auto prompt = support::tiny_prompt(4, 75);
    const auto alone = [&](std::uint64_t seed) {
        const auto engine = tiny().open<zse::Engine<kv::int8<16>>>({.context = 200});
        Request request;
        request.tokens = prompt;
        request.max_tokens = 60;
        request.ignore_end = true;
        request.sampling = {.temperature = 1.0f, .seed = seed};
        engine->submit(std::move(request));
        return run(*engine).begin()->second.tokens;
    };
    ASSERT_NE(alone(1), alone(2));
    const auto engine =
        tiny().open<zse::Engine<kv::int8<16>>>({.context = 200, .batch = 3, .step_tokens = 128});
    Request request;
    request.tokens = prompt;
    request.max_tokens = 60;
    request.ignore_end = true;
    request.sampling = {.temperature = 1.0f, .seed = 1};
    const RequestId first = engine->submit(std::move(request));
    std::map<RequestId, std::vector<std::int32_t>> tokens;
    const auto step = [&] {
        for (const auto& event : engine->step()) {
            if (event.token >= 0) tokens[event.id].push_back(event.token);
        }
    };
    for (int i = 0; i < 10; ++i) step();
    const auto before = engine->page_use().used;
    const auto second = engine->fork(first, {.temperature = 1.0f, .seed = 2});
    const auto third = engine->fork(first, {.temperature = 1.0f, .seed = 1});
    ASSERT_TRUE(second && third);
    EXPECT_FALSE(engine->fork(first, {})) << "no slot is free";
    EXPECT_FALSE(engine->fork(12345, {})) << "no such request";
    EXPECT_EQ(engine->page_use().used, before) << "nothing is copied yet";
    step();
    EXPECT_EQ(engine->page_use().used, before + 2) << "each but one has a last page of its own";
    const std::vector<std::int32_t> shared(tokens[first].begin(), tokens[first].begin() + 10);
    while (!engine->idle()) step();
    EXPECT_EQ(tokens[first], alone(1));
    const auto joined = [&](RequestId id) {
        auto all = shared;
        all.insert(all.end(), tokens[id].begin(), tokens[id].end());
        return all;
    };
    EXPECT_EQ(joined(*third), alone(1));
    EXPECT_NE(joined(*second), alone(1));
    EXPECT_EQ(joined(*second).size(), 60u);
    EXPECT_EQ(engine->page_use().used, 0u);
}

// Heavy tokens give their slots to others, so a fork's old pages are not what they were.
TEST(Pages, AForkKeepsItsOwnHeavyTokens) {
    zse::Limits limits{.context = 2900, .batch = 2, .step_tokens = 256, .kv_recent = 1024, .kv_heavy = 1024};
    const auto prompt = support::tiny_prompt(4, 2500);
    const auto answer = [&](bool forked) {
        const auto engine = tiny().open<zse::Engine<kv::int8<16>>>(limits);
        Request request;
        request.tokens = prompt;
        request.max_tokens = 350;
        request.ignore_end = true;
        request.sampling = {.temperature = 1.0f, .seed = 1};
        const RequestId first = engine->submit(std::move(request));
        std::map<RequestId, std::vector<std::int32_t>> tokens;
        bool done = !forked;
        std::optional<RequestId> second;
        while (!engine->idle()) {
            for (const auto& event : engine->step()) {
                if (event.token >= 0) tokens[event.id].push_back(event.token);
            }
            if (!done && tokens[first].size() == 20) {
                second = engine->fork(first, {.temperature = 1.0f, .seed = 1});
                EXPECT_TRUE(second);
                done = true;
            }
        }
        if (second) {
            std::vector<std::int32_t> tail(tokens[first].begin() + 20, tokens[first].end());
            EXPECT_EQ(tokens[*second], tail);
        }
        EXPECT_EQ(engine->page_use().used, 0u);
        return tokens[first];
    };
    EXPECT_EQ(answer(true), answer(false));
}

TEST(Pages, WhatIsLostInPagesIsReported) {
    const auto engine = tiny().open<zse::Engine<kv::f16>>({.context = 200, .batch = 2, .page_tokens = 32});
    engine->submit(growing(2, 33, 50));
    engine->submit(growing(3, 64, 50));
    engine->step();
    const auto use = engine->page_use();
    EXPECT_EQ(use.sequences, 2u);
    EXPECT_EQ(use.tokens, 33u + 64u);
    EXPECT_EQ(use.used, 2u + 2u);
    EXPECT_EQ(use.unused_tokens, 31u);
    EXPECT_LE(use.unused_tokens, use.sequences * 31);
}

}  // namespace
