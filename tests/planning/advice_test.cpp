// SPDX-License-Identifier: Apache-2.0
// What a refusal says: the first step that is enough is named, and taking it makes the plan fit; KV and activations are
// told apart.
// rows: 87 88 89
#include <gtest/gtest.h>

#include <zse/engine.hpp>
#include <zse/model/models.hpp>
#include <zse/planning/advice.hpp>

namespace {

using namespace zse::planning;
using zse::Bytes;
using zse::GB;
using zse::Limits;
using zse::MB;
using zse::MiB;
using zse::Size;
using zse::memory::Kind;
using zse::memory::Tier;
namespace models = zse::models;
namespace w = zse::weights;
namespace kv = zse::kv;

using Tiers = zse::tiers::chain<zse::tiers::arena, zse::tiers::host>;

template <class W>
zse::memory::Plan plan_of(const zse::ModelSpec& spec, const Setting& setting) {
    if (setting.kv == "f16") return zse::Engine<Tiers, W, kv::f16>::plan(spec, setting.limits);
    if (setting.kv == "int8") return zse::Engine<Tiers, W, kv::int8<>>::plan(spec, setting.limits);
    if (setting.kv == "int4") return zse::Engine<Tiers, W, kv::int4<>>::plan(spec, setting.limits);
    throw zse::Error(zse::ErrorCode::unsupported, "not built");
}
/// What a command line with a few engines plans.
Planner planner(const zse::ModelSpec& spec) {
    return [spec](const Setting& setting) {
        if (setting.weights == "f16") return plan_of<w::f16>(spec, setting);
        if (setting.weights == "int8") return plan_of<w::int8<>>(spec, setting);
        if (setting.weights == "nf4") return plan_of<w::nf4<>>(spec, setting);
        throw zse::Error(zse::ErrorCode::unsupported, "not built");
    };
}
Setting asking(Limits limits, const char* weights = "f16") {
    limits.output_rows = limits.batch;
    return {weights, "f16", limits};
}
Budget stated(Bytes host, Bytes gpu = 0) {
    BudgetRequest request;
    request.gpu = Size{false, gpu};
    request.host = Size{false, host};
    return budget_of(request, {});
}
Proposals proposals(const zse::ModelSpec& spec) {
    Proposals all;
    all.kv = {"f32", "f16", "int8", "int4", "int4-plain"};
    all.weights = {"f32", "f16", "int8", "nf4"};
    all.layers = spec.layers;
    for (const auto& model : models::all) {
        if (model.spec->parameters() < spec.parameters())
            all.models.push_back({std::string(model.name), planner(*model.spec)});
    }
    return all;
}

/// The lever of the first step that is enough alone, after a check of every step against its own plan.
Lever first_cure(const zse::ModelSpec& spec, const Setting& setting, const Budget& budget,
                 Shortage expected) {
    const Planner plan = planner(spec);
    const Advice advice = advise(plan, setting, budget, proposals(spec));
    EXPECT_EQ(name(advice.shortage), name(expected));
    EXPECT_EQ(advice.lack.bytes, plan(setting)[advice.lack.tier].total() - budget[advice.lack.tier].cap);
    Bytes together = 0;
    for (const Step& step : advice.steps) {
        if (step.lever == Lever::model) continue;
        const auto after = plan(step.setting);
        EXPECT_EQ(step.saves, plan(setting)[advice.lack.tier].total() - after[advice.lack.tier].total())
            << step.option;
        EXPECT_EQ(step.enough, budget.holds(after)) << step.option;
        EXPECT_GE(step.together, together) << step.option << ": steps add up";
        together = step.together;
    }
    const Step* first = advice.first_sufficient();
    if (first == nullptr) {
        ADD_FAILURE() << "no step is enough";
        return Lever::other;
    }
    EXPECT_TRUE(budget.holds(plan(first->setting)) || first->lever == Lever::model)
        << "taking " << first->option;
    return first->lever;
}

// --- row 87: four cases whose first cure is known

TEST(Advice, AShorterContextWhereHalfOfItFits) {
    const auto& spec = models::llama3_8b;
    const Setting setting = asking({.context = 32'768});
    const Bytes half = planner(spec)(asking({.context = 16'384})).total();
    EXPECT_EQ(first_cure(spec, setting, stated(half), Shortage::kv), Lever::context);
    const Advice advice = advise(planner(spec), setting, stated(half), proposals(spec));
    EXPECT_EQ(advice.first_sufficient()->option, "--max-context 16384");
}

TEST(Advice, CoarserKvWhereTheContextIsAlreadyShort) {
    const auto& spec = models::llama2_7b;  // half a megabyte of KV a token
    const Setting setting = asking({.context = 512, .batch = 16, .step_tokens = 64});
    Setting coarser = setting;
    coarser.kv = "int4";
    const Bytes enough = planner(spec)(coarser).total();
    EXPECT_EQ(first_cure(spec, setting, stated(enough), Shortage::kv), Lever::kv);
    const Advice advice = advise(planner(spec), setting, stated(enough), proposals(spec));
    EXPECT_EQ(advice.steps.front().option, "--kv-quant int8")
        << "the milder one comes first, and says that it is too little";
    EXPECT_FALSE(advice.steps.front().enough);
    EXPECT_EQ(advice.first_sufficient()->option, "--kv-quant int4");
}

TEST(Advice, FewerSequencesWhereKvIsAsCoarseAsItGets) {
    const auto& spec = models::llama2_7b;
    Setting setting = asking({.context = 512, .batch = 16, .step_tokens = 64});
    setting.kv = "int4";
    const Bytes enough = planner(spec)(with_batch(setting, 5)).total();
    EXPECT_EQ(first_cure(spec, setting, stated(enough), Shortage::kv), Lever::batch);
    const Advice advice = advise(planner(spec), setting, stated(enough), proposals(spec));
    EXPECT_EQ(advice.first_sufficient()->option, "--max-batch 5");
}

TEST(Advice, FewerBitsOrASmallerModelWhereWeightsAreTooMany) {
    const auto& spec = models::llama3_8b;
    const Setting setting = asking({.context = 2048});
    EXPECT_EQ(first_cure(spec, setting, stated(GB(11)), Shortage::weights), Lever::weights);
    const Advice eight = advise(planner(spec), setting, stated(GB(11)), proposals(spec));
    EXPECT_EQ(eight.first_sufficient()->option, "--weights int8");
    const Setting least = asking({.context = 2048}, "nf4");
    EXPECT_EQ(first_cure(spec, least, stated(GB(4)), Shortage::weights), Lever::model);
    const Advice smaller = advise(planner(spec), least, stated(GB(4)), proposals(spec));
    EXPECT_EQ(smaller.first_sufficient()->option, "--model Llama-3.2-3B");
    EXPECT_TRUE(stated(GB(4)).holds(planner(models::llama3_2_3b)(least)));
}

// --- row 89: one arena fails in the pool and one in the scratch, and the advice differs

TEST(Advice, AKvShortageAndAnActivationSpikeGetOppositeAdvice) {
    const auto& spec = models::smollm2_135m;
    const Setting pool = asking({.context = 8192, .batch = 8, .step_tokens = 64});
    const Setting spike = asking({.context = 64, .batch = 1, .step_tokens = 8192});
    const Advice kv = advise(planner(spec), pool, stated(MB(800)), proposals(spec));
    const Advice activations = advise(planner(spec), spike, stated(MB(320)), proposals(spec));
    EXPECT_EQ(kv.shortage, Shortage::kv);
    EXPECT_EQ(activations.shortage, Shortage::activations);
    EXPECT_NE(diagnosis(kv.shortage).find("raise the memory"), std::string_view::npos);
    EXPECT_NE(diagnosis(activations.shortage).find("would make it worse"), std::string_view::npos);
    ASSERT_NE(kv.first_sufficient(), nullptr);
    ASSERT_NE(activations.first_sufficient(), nullptr);
    EXPECT_EQ(kv.first_sufficient()->lever, Lever::context);
    EXPECT_EQ(activations.first_sufficient()->lever, Lever::step_tokens);
}

// --- row 88

TEST(Advice, FewerGpuLayersWhereTheCardIsFull) {
    const auto& spec = models::llama3_8b;
    const Setting setting = asking({.context = 2048, .gpu_layers = 32});
    const Budget budget = stated(GB(30), GB(10));
    const Advice advice = advise(planner(spec), setting, budget, proposals(spec));
    EXPECT_EQ(advice.lack.tier, Tier::gpu);
    ASSERT_NE(advice.first_sufficient(), nullptr);
    EXPECT_EQ(advice.first_sufficient()->lever, Lever::gpu_layers);
    const std::uint32_t layers = advice.first_sufficient()->setting.limits.gpu_layers;
    EXPECT_EQ(layers, *most_gpu_layers(planner(spec), setting, budget, spec.layers));
}

TEST(Advice, UnloadingAnotherModelSavesExactlyItsBytes) {
    const auto& spec = models::smollm2_135m;
    const Setting setting = asking({.context = 8192});
    const Bytes need = planner(spec)(setting).total();
    Proposals all;
    all.others = {{"small", MB(1)}, {"large", MB(50)}};
    const Advice advice = advise(planner(spec), setting, stated(need - MB(40)), all);
    bool found = false;
    for (const Step& step : advice.steps) {
        if (step.lever != Lever::other) continue;
        found |= step.option == "unload large" && step.saves == MB(50);
        EXPECT_EQ(step.enough, step.option == "unload large");
    }
    EXPECT_TRUE(found);
}

// Steps that are not enough alone are added up, until they are.
TEST(Advice, StepsAddUp) {
    const auto& spec = models::llama2_7b;
    const Setting setting = asking({.context = 4096, .batch = 8, .step_tokens = 512});
    Setting all = with_batch(setting, 2);
    all.kv = "int8";
    all.limits.context = 512;
    const Budget budget = stated(planner(spec)(all).total());
    const Advice advice = advise(planner(spec), setting, budget, proposals(spec));
    EXPECT_EQ(advice.first_sufficient()->lever, Lever::model) << "no step is enough alone but another model";
    EXPECT_TRUE(advice.enough_together);
    EXPECT_TRUE(budget.holds(planner(spec)(advice.together)));
    EXPECT_EQ(spelled(setting, advice.together), "--max-context 512 --kv-quant int4 --max-batch 3");
    EXPECT_EQ(advice.steps.front().option, "--max-context 512");
    EXPECT_FALSE(advice.steps.front().enough_together);
    EXPECT_TRUE(advice.steps.back().enough_together);
}

// Options of a step stand behind those that chose the setting, and have to overrule all of them.
TEST(Advice, KvIsSpelledSoThatItOverrulesWhatWasThere) {
    const auto option = [](const char* from, const char* to) {
        Setting before, after;
        before.kv = from;
        after.kv = to;
        return spelled(Lever::kv, before, after);
    };
    EXPECT_EQ(option("f16", "int8"), "--kv-quant int8");
    EXPECT_EQ(option("f16", "int8/int4"), "--cache-type-k int8 --cache-type-v int4");
    EXPECT_EQ(option("int8/int4", "int4"), "--cache-type-k int4 --cache-type-v int4");
    EXPECT_EQ(option("f16-then-int8", "int4"), "--kv-quant int4 --kv-old none");
    EXPECT_EQ(option("f16", "f16-then-int4"), "--kv-quant f16 --kv-old int4");
    EXPECT_EQ(option("f16-then-int4", "int8-then-int4"), "--kv-quant int8");
}

TEST(Advice, WhatFitsNeedsNone) {
    const auto& spec = models::smollm2_135m;
    const Advice advice = advise(planner(spec), asking({.context = 512}), stated(GB(4)), proposals(spec));
    EXPECT_EQ(advice.shortage, Shortage::none);
    EXPECT_TRUE(advice.steps.empty());
    EXPECT_EQ(advice.first_sufficient(), nullptr);
}

}  // namespace
