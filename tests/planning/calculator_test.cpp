// SPDX-License-Identifier: Apache-2.0
// Questions asked backwards, budgets, shapes from few numbers, adapters and shares: each answer is checked against the
// plan that it comes from.
// rows: 3 6 7 8 9 10 13 14 17 35 46 60
#include <gtest/gtest.h>
#include <planning/asking.hpp>
#include <support/expect_error.hpp>

#include <zse/engine.hpp>
#include <zse/model/models.hpp>
#include <zse/planning/adapters.hpp>
#include <zse/planning/rough.hpp>
#include <zse/planning/settle.hpp>
#include <zse/planning/shares.hpp>
#include <zse/planning/suggested_batch.hpp>

#include <tuple>

namespace {

using namespace zse::planning;
using planned::asking;
using planned::stated;
using planned::wish_for;
using zse::Bytes;
using zse::ErrorCode;
using zse::GB;
using zse::GiB;
using zse::KiB;
using zse::Limits;
using zse::MiB;
using zse::ModelSpec;
using zse::Size;
using zse::memory::Kind;
using zse::memory::Plan;
using zse::memory::Tier;
using zse::model::Placement;
namespace models = zse::models;

using Tiered = zse::Engine<zse::tiers::chain<zse::tiers::arena, zse::tiers::host>>;

Planner tiered(const ModelSpec& spec) {
    return planner_of<Tiered>(spec);
}
// --- budgets

TEST(Budget, HeadroomIsTakenOffWhatIsMeasured) {
    const MachineMemory machine{.host_free = GB(100), .host_total = GB(120), .gpu_free = {}, .gpu_total = {}};
    EXPECT_EQ(budget_of({}, machine).host.cap, GB(80));
    EXPECT_EQ(budget_of({}, machine).gpu.cap, 0u);
    BudgetRequest request;
    request.headroom = 0.0;
    EXPECT_EQ(budget_of(request, machine).host.cap, GB(100));
    request.reserve = GB(8);
    EXPECT_EQ(budget_of(request, machine).host.cap, GB(92));
    request = {};
    request.host = Size{false, GB(10)};
    EXPECT_EQ(budget_of(request, machine).host.cap, GB(10)) << "a stated size is meant to be filled";
    request.headroom = 0.2;
    EXPECT_EQ(budget_of(request, machine).host.cap, GB(8));
}

TEST(Budget, ACardKeepsTenPerCentFree) {
    const MachineMemory machine{GB(100), GB(120), GiB(20), GiB(24)};
    BudgetRequest request;
    request.gpu = Size{true, 0};
    EXPECT_EQ(budget_of(request, machine).gpu.headroom, card_headroom);
    EXPECT_EQ(budget_of(request, machine).gpu.cap, GiB(18));
    EXPECT_EQ(budget_of(request, {GB(100), GB(120), {}, {}}).gpu.cap, 0u) << "no card";
}

// Row 14: 81 % of the memory is refused and 79 % accepted; without headroom both fit.
TEST(Budget, HeadroomDecidesWhetherAModelFits) {
    const Plan plan = Tiered::plan(models::smollm2_135m, {.context = 2048});
    const auto fits = [&](double share, std::optional<double> headroom) {
        BudgetRequest request;
        request.headroom = headroom;
        const auto memory = static_cast<Bytes>(static_cast<double>(plan.total()) / share);
        return budget_of(request, {memory, memory, {}, {}}).holds(plan);
    };
    EXPECT_TRUE(fits(0.79, {}));
    EXPECT_FALSE(fits(0.81, {}));
    EXPECT_TRUE(fits(0.81, 0.0));
}

// Row 35: the cap is a share of all memory, not of what is free; and it cannot give what others hold.
TEST(Budget, UtilizationIsAShareOfTheFirstTier) {
    BudgetRequest request;
    request.utilization = 0.9;
    EXPECT_EQ(budget_of(request, {GB(100), GB(100), {}, {}}).host.cap, GB(90));
    EXPECT_EQ(budget_of(request, {GB(95), GB(100), {}, {}}).host.cap, GB(90));
    EXPECT_EQ(budget_of(request, {GB(50), GB(100), {}, {}}).host.cap, GB(50));
    request.gpu = Size{false, GB(10)};
    EXPECT_EQ(budget_of(request, {GB(50), GB(100), {}, {}}).gpu.cap, GB(9));
    EXPECT_EQ(budget_of(request, {GB(50), GB(100), {}, {}}).host.cap, GB(40))
        << "the second tier keeps its headroom";
}

TEST(Budget, ContradictionsNameBothOptions) {
    BudgetRequest request;
    request.headroom = 0.2;
    request.utilization = 0.9;
    support::expect_error([&] { budget_of(request, {}); }, ErrorCode::usage,
                          {"--headroom", "--gpu-memory-utilization"});
    request.utilization = 0.8;
    EXPECT_EQ(budget_of(request, {GB(10), GB(10), {}, {}}).host.cap, GB(8)) << "they agree";
    for (const double wrong : {-0.1, 1.0, 7.0, std::nan("")}) {
        BudgetRequest bad;
        bad.headroom = wrong;
        support::expect_error([&] { budget_of(bad, {}); }, ErrorCode::usage, {"--headroom", "0.2"});
    }
    for (const double wrong : {0.0, -1.0, 1.1, std::nan("")}) {
        BudgetRequest bad;
        bad.utilization = wrong;
        support::expect_error([&] { budget_of(bad, {}); }, ErrorCode::usage, {"utilization", "0.9"});
    }
    BudgetRequest reserve;
    reserve.host = Size{false, GB(4)};
    reserve.reserve = GB(4);
    support::expect_error([&] { budget_of(reserve, {}); }, ErrorCode::usage, {"--reserve", "leaves nothing"});
}

// Row 17: one memory is counted once.
TEST(Budget, UnifiedMemoryIsCountedOnce) {
    BudgetRequest request;
    request.gpu = Size{false, GB(6)};
    request.host = Size{false, GB(10)};
    Plan plan;
    plan.gpu[Kind::weights] = GB(6);
    plan.host[Kind::weights] = GB(6);
    EXPECT_TRUE(budget_of(request, {}).holds(plan));
    request.unified = true;
    EXPECT_FALSE(budget_of(request, {}).holds(plan));
    EXPECT_EQ(budget_of(request, {}).lack(plan).bytes, GB(2));
}

// --- inverse questions: the answer fits and the next does not

TEST(Calculator, TheLargestContextFitsAndOneMoreTokenDoesNot) {
    const auto plan = tiered(models::llama3_8b);
    for (const Bytes memory : {GB(18), GB(20), GB(24)}) {
        const Budget budget = stated(0, memory);
        const std::uint32_t most = largest_context(plan, asking({}), budget, 131'072);
        ASSERT_GT(most, 0u);
        EXPECT_TRUE(budget.holds(plan(asking({.context = most}))));
        EXPECT_FALSE(budget.holds(plan(asking({.context = most + 1}))));
    }
    EXPECT_EQ(largest_context(plan, asking({}), stated(0, GB(100)), 8192), 8192u);
    EXPECT_EQ(largest_context(plan, asking({}), stated(0, GB(1)), 8192), 0u);
}

TEST(Calculator, TheLargestBatchFitsAndOneMoreSequenceDoesNot) {
    const auto plan = tiered(models::smollm2_135m);
    const Budget budget = stated(0, GB(4));
    const Setting setting = asking({.context = 4096});
    const std::uint32_t most = largest_batch(plan, setting, budget);
    ASSERT_GT(most, 1u);
    EXPECT_TRUE(budget.holds(plan(with_batch(setting, most))));
    EXPECT_FALSE(budget.holds(plan(with_batch(setting, most + 1))));
    EXPECT_EQ(largest_batch(plan, setting, stated(0, MiB(1))), 0u);
}

// Row 45: k offloaded layers fit, k - 1 do not, over a sweep of sizes; none where all fit.
TEST(Calculator, AsFewLayersAsPossibleAreOffloaded) {
    const auto& spec = models::llama3_8b;
    const auto plan = tiered(spec);
    const Setting setting = asking({.context = 8192});
    std::uint32_t before = 0;
    for (Bytes gpu = 0; gpu <= GB(20); gpu += GB(1)) {
        const Budget budget = stated(gpu, GB(30));
        const auto most = most_gpu_layers(plan, setting, budget, spec.layers);
        ASSERT_TRUE(most.has_value());
        const auto at = [&](std::uint32_t count) {
            return plan(with(setting, [&](Limits& l) { l.gpu_layers = count; }));
        };
        EXPECT_TRUE(budget.holds(at(*most)));
        if (*most < spec.layers) {
            EXPECT_FALSE(budget.holds(at(*most + 1))) << gpu;
        }
        EXPECT_GE(*most, before);
        before = *most;
    }
    EXPECT_EQ(before, spec.layers);
    EXPECT_EQ(offloaded(before, spec.layers), 0u);
    EXPECT_EQ(offloaded(8, 32), 24u);
    EXPECT_EQ(offloaded(0, 32), 32u);
    EXPECT_EQ(offloaded(99, 32), 0u);
    EXPECT_FALSE(most_gpu_layers(plan, setting, stated(GB(4), GB(4)), spec.layers).has_value());
}

TEST(Calculator, TheFinestWeightsThatFit) {
    const ModelSpec spec = models::llama3_8b;
    const Planner plan = [&](const Setting& s) {
        if (s.weights == "f16") return zse::Engine<zse::weights::f16>::plan(spec, s.limits);
        if (s.weights == "int8") return zse::Engine<zse::weights::int8<>>::plan(spec, s.limits);
        if (s.weights == "nf4") return zse::Engine<zse::weights::nf4<>>::plan(spec, s.limits);
        throw zse::Error(ErrorCode::unsupported, "not built");
    };
    constexpr std::array<std::string_view, 4> order{"f32", "f16", "int8", "nf4"};
    const Setting setting = asking({.context = 4096});
    EXPECT_EQ(finest_weights(plan, setting, stated(0, GB(20)), order), "f16");
    EXPECT_EQ(finest_weights(plan, setting, stated(0, GB(12)), order), "int8");
    EXPECT_EQ(finest_weights(plan, setting, stated(0, GB(7)), order), "nf4");
    EXPECT_EQ(finest_weights(plan, setting, stated(0, GB(3)), order), "");
}

// --- what is left open

TEST(Settle, AnOpenContextIsTheLongestThatFits) {
    const auto& spec = models::llama3_8b;
    const auto plan = tiered(spec);
    const Budget budget = stated(0, GB(17));
    const Setting settled = settle(plan, wish_for(spec, {}), budget);
    EXPECT_EQ(settled.limits.context, largest_context(plan, asking({}), budget, spec.trained_context));
    EXPECT_EQ(settle(plan, wish_for(spec, {}), stated(0, GB(100))).limits.context, spec.trained_context);
    Wish least = wish_for(spec, {});
    least.least_context = 2000;
    EXPECT_EQ(settle(plan, least, stated(0, GB(1))).limits.context, 2000u)
        << "for a plan that says what is lacking";
}

// Row 46: what is stated stays, and what is open fills the first tier.
TEST(Settle, OpenLayersFillTheGpuTier) {
    const auto& spec = models::llama3_8b;
    const auto plan = tiered(spec);
    Wish wish = wish_for(spec, {.context = 4096});
    wish.gpu_layers_open = true;
    const Budget budget = stated(GB(8), GB(20));
    const Setting settled = settle(plan, wish, budget);
    EXPECT_EQ(settled.limits.gpu_layers,
              *most_gpu_layers(plan, asking({.context = 4096}), budget, spec.layers));
    EXPECT_GT(settled.limits.gpu_layers, 1u);
    wish.gpu_layers_open = false;
    wish.setting.limits.gpu_layers = 5;
    EXPECT_EQ(settle(plan, wish, budget).limits.gpu_layers, 5u);
    support::expect_error([&] { settle(plan, wish, stated(0, GB(20))); }, ErrorCode::usage,
                          {"--gpu-layers 5", "--gpu-mem"});
    wish.gpu_layers_open = true;
    const Setting lacking = settle(plan, wish, stated(GB(2), GB(2)));
    EXPECT_LE(plan(lacking).gpu.total(), GB(2))
        << "the first tier is filled, and the second says what it lacks";
    EXPECT_GT(lacking.limits.gpu_layers, 0u);
}

TEST(Settle, AStatedPoolIsFilledAndNoMore) {
    const auto& spec = models::llama3_8b;
    const auto plan = tiered(spec);
    Wish wish = wish_for(spec, {.context = 4096, .batch = 8});
    wish.kv = Size{false, GB(1)};
    const Setting settled = settle(plan, wish, stated(0, GB(30)));
    const Plan planned = plan(settled);
    EXPECT_LE(planned.of(Kind::kv), GB(1));
    EXPECT_GT(planned.of(Kind::kv) + 2 * planned.pools[0].page_bytes, GB(1));
    EXPECT_EQ(settled.limits.kv_tokens % settled.limits.page_tokens, 0u);
    wish.kv = Size{false, GB(29)};
    EXPECT_EQ(settle(plan, wish, stated(0, GB(30))).limits.kv_tokens, 0u)
        << "more than the batch can use is no bound";
    wish.kv = Size{false, MiB(1)};
    support::expect_error([&] { settle(plan, wish, stated(0, GB(30))); }, ErrorCode::usage,
                          {"--kv-cache-memory", "4096 tokens", "--max-context"});
    wish.kv = Size{false, GB(31)};
    support::expect_error([&] { settle(plan, wish, stated(0, GB(30))); }, ErrorCode::usage,
                          {"--kv-cache-memory", "more than", "--host-mem"});
    wish.kv = Size{false, GB(1)};
    wish.setting.limits.context = 0;
    wish.setting.limits.batch = wish.setting.limits.output_rows = 1;
    EXPECT_EQ(settle(plan, wish, stated(0, GB(30))).limits.context, GB(1) / 131'072 / 16 * 16)
        << "131072 bytes a token";
}

// Row 35: the pool takes what the cap leaves: cap - weights - activations, in whole pages.
TEST(Settle, AnAutomaticPoolTakesTheRest) {
    const auto& spec = models::llama3_8b;
    const auto plan = tiered(spec);
    Wish wish = wish_for(spec, {.context = 4096, .batch = 16});
    wish.kv = Size{true, 0};
    BudgetRequest request;
    request.host = Size{false, GB(20)};
    request.utilization = 0.95;
    const Budget budget = budget_of(request, {});
    const Setting settled = settle(plan, wish, budget);
    const Plan planned = plan(settled);
    EXPECT_EQ(budget.host.cap, GB(19));
    EXPECT_LE(planned.total(), GB(19));
    ASSERT_GT(settled.limits.kv_tokens, 0u);
    const auto more = with(settled, [](Limits& l) { l.kv_tokens += l.page_tokens; });
    EXPECT_GT(plan(more).total(), GB(19));
    EXPECT_EQ(planned.pools[0].pages, settled.limits.kv_tokens / 16);
}

// --- shapes from few numbers

TEST(Rough, ParametersLayersAndHiddenGiveTheFeedForwardWidth) {
    // Llama-2-7B from four numbers: its feed-forward width is 11008.
    const auto made = complete({.parameters = 6'738'415'616, .layers = 32, .hidden = 4096});
    EXPECT_EQ(made.spec.feed_forward, 11008u);
    EXPECT_EQ(made.spec.parameters(), models::llama2_7b.parameters());
    EXPECT_EQ(made.spec.kv_heads, 32u);
    bool says_width = false;
    for (const auto& line : made.assumed)
        says_width |= line.find("feed-forward width 11008") != std::string::npos;
    EXPECT_TRUE(says_width);
    const auto rounded = complete({.parameters = GB(7), .layers = 32, .hidden = 4096, .kv_heads = 8}).spec;
    EXPECT_NEAR(static_cast<double>(rounded.parameters()), 7e9, 1e6);
    EXPECT_EQ(rounded.kv_heads, 8u);
}

TEST(Rough, ParametersAloneGiveAShapeOfTheirSize) {
    for (const std::uint64_t parameters : {MiB(100), GB(1), GB(7), GB(13), GB(70), GB(405)}) {
        const auto made = complete({.parameters = parameters});
        const auto count = static_cast<double>(parameters);
        EXPECT_NEAR(static_cast<double>(made.spec.parameters()), count, 0.01 * count);
        EXPECT_EQ(made.spec.defect(), "");
        EXPECT_GE(made.assumed.size(), 5u);
    }
    EXPECT_EQ(complete({.parameters = GB(7)}).spec.layers, 32u);
    EXPECT_EQ(complete({.parameters = GB(7)}).spec.hidden, 4096u);
}

TEST(Rough, AFullShapeNeedsNoParameters) {
    const auto made = complete({.layers = 32,
                                .hidden = 4096,
                                .heads = 32,
                                .kv_heads = 8,
                                .head_dim = 128,
                                .feed_forward = 14336,
                                .vocabulary = 128256,
                                .context = 8192});
    EXPECT_TRUE(made.assumed.empty());
    EXPECT_EQ(made.spec.parameters(), models::llama3_8b.parameters());
}

TEST(Rough, NumbersThatContradictEachOtherAreRefused) {
    support::expect_error([] { std::ignore = complete({.layers = 32}); }, ErrorCode::usage,
                          {"--params", "--hidden"});
    support::expect_error(
        [] {
            std::ignore =
                complete({.parameters = GB(7), .layers = 32, .hidden = 4096, .feed_forward = 99999});
        },
        ErrorCode::usage, {"parameters", "leave --params"});
    support::expect_error(
        [] { std::ignore = complete({.parameters = MiB(100), .layers = 32, .hidden = 4096}); },
        ErrorCode::usage, {"leave none for feed-forward"});
    support::expect_error(
        [] {
            std::ignore =
                complete({.parameters = GB(7), .layers = 32, .hidden = 4096, .heads = 32, .kv_heads = 7});
        },
        ErrorCode::usage, {"key heads must divide"});
}

// --- adapters

// Rank 16 over all seven matrices of Llama-2-7B is 39,976,960 weights, the number that training tools print for it.
TEST(Adapters, HaveTwoThinMatricesForEachOfSeven) {
    const auto& spec = models::llama2_7b;
    const Placement placement(spec.layers, {});
    EXPECT_EQ(adapter_bytes(spec, placement, {1, 16}, Tier::host), 2u * 39'976'960);
    EXPECT_EQ(adapter_bytes(spec, placement, {5, 16}, Tier::host), 10u * 39'976'960);
    EXPECT_EQ(adapter_bytes(spec, placement, {1, 8}, Tier::host), 39'976'960u);
    const Placement split(spec.layers, {.gpu_layers = 8});
    EXPECT_EQ(adapter_bytes(spec, split, {1, 16}, Tier::gpu),
              adapter_bytes(spec, placement, {1, 16}, Tier::host) / 4);
    Plan plan = Tiered::plan(spec, {.context = 512});
    const Plan before = plan;
    add_adapters(plan, spec, placement, {1, 16});
    EXPECT_EQ(plan.host[Kind::weights] - before.host[Kind::weights], 2u * 39'976'960);
    EXPECT_EQ(plan.host.total() % zse::memory::system_page, 0u);
}

// --- shares

// Row 6: the parts add up to the bytes, and a crafted plan leaves its range.
TEST(Shares, PartsAddUpToTheTotal) {
    for (const auto& model : models::all) {
        const Plan plan = Tiered::plan(*model.spec, {.context = 2048, .gpu_layers = model.spec->layers / 2});
        Bytes sum = 0;
        double shares = 0;
        for (const Part part : all_parts) {
            sum += bytes_of(plan, part);
            shares += percent(bytes_of(plan, part), plan.total());
        }
        EXPECT_EQ(sum, plan.total()) << model.name;
        EXPECT_NEAR(shares, 100.0, 1e-9);
        for (const Tier tier : {Tier::gpu, Tier::host}) {
            Bytes dynamic_sum = 0;
            for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
                if (dynamic(static_cast<Kind>(i))) dynamic_sum += plan[tier].kinds[i];
            }
            EXPECT_EQ(static_bytes(plan[tier]) + dynamic_sum, plan[tier].total());
        }
    }
    EXPECT_EQ(usual(Part::weights).side(81), 1);
    EXPECT_EQ(usual(Part::weights).side(59), -1);
    EXPECT_EQ(usual(Part::kv).side(20), 0);
}

// Row 13: a quarter of the memory for KV is too little for a load that changes, two fifths are not.
TEST(Shares, RoomForKv) {
    zse::memory::TierPlan tier;
    tier[Kind::weights] = GB(14);
    tier[Kind::scratch] = GB(1);
    tier[Kind::kv] = GB(2);  // what is asked for now does not matter
    EXPECT_DOUBLE_EQ(kv_room(tier, GB(20)), 25.0);
    EXPECT_LT(kv_room(tier, GB(20)), least_kv_room);
    EXPECT_DOUBLE_EQ(kv_room(tier, GB(25)), 40.0);
    EXPECT_DOUBLE_EQ(kv_room(tier, GB(15)), 0.0);
    EXPECT_DOUBLE_EQ(kv_room(tier, 0), 0.0);
}

// C23: pages follow from arenas; a seed's 32768 are 64 GiB.
TEST(Shares, HugePagesFollowFromArenas) {
    EXPECT_EQ(32'768 * zse::memory::huge_page, GiB(64));
    const Plan plan = Tiered::plan(models::llama3_8b, {.context = 8192});
    const std::uint64_t pages = plan.huge_pages_in(Tier::host);
    EXPECT_LE(pages * zse::memory::huge_page, plan.host.total());
    EXPECT_GT((pages + 2) * zse::memory::huge_page, plan.host.total())
        << "only arenas below 2 MiB are left out";
    EXPECT_EQ(plan.huge_pages_in(Tier::gpu), 0u);
}

// Row 7 and 8: weights stay as they are whatever the context and the batch; KV is linear in both.
TEST(Shares, OnlyDynamicBytesFollowTheLoad) {
    const auto at = [](std::uint32_t context, std::uint32_t batch) {
        return Tiered::plan(models::llama3_1_8b, {.context = context, .batch = batch});
    };
    const Plan base = at(4096, 1);
    for (std::uint32_t times = 2; times <= 32; times *= 2) {
        EXPECT_EQ(at(4096 * times, 1).of(Kind::kv), times * base.of(Kind::kv));
        EXPECT_EQ(at(4096 * times, 1).of(Kind::weights), base.of(Kind::weights));
    }
    for (std::uint32_t batch = 1; batch <= 8; ++batch) {
        EXPECT_EQ(at(4096, batch).of(Kind::kv), batch * base.of(Kind::kv));
        EXPECT_EQ(at(4096, batch).kv_bytes_per_sequence() * batch, at(4096, batch).of(Kind::kv));
    }
}

// --- row 60

TEST(SuggestedBatch, FollowsWhatTheLastLoadUsed) {
    EXPECT_GT(suggested_batch(0.3, 0, 8), 8u);
    EXPECT_LE(suggested_batch(0.01, 0, 8), 16u) << "at most twice as many";
    EXPECT_EQ(suggested_batch(0.48, 0, 100), 187u) << "100 * 0.9 / 0.48";
    EXPECT_EQ(suggested_batch(0.5, 0, 8), 8u);
    EXPECT_EQ(suggested_batch(0.95, 0, 8), 8u);
    EXPECT_EQ(suggested_batch(0.95, 3, 8), 6u);
    EXPECT_EQ(suggested_batch(0.2, 1, 8), 6u) << "a preemption counts for more";
    EXPECT_EQ(suggested_batch(1.0, 9, 1), 1u);
    EXPECT_EQ(suggested_batch(0.0, 0, 4096), 4096u);
    EXPECT_EQ(suggested_batch(std::nan(""), 0, 8), 8u);
}

}  // namespace
