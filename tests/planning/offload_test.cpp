// SPDX-License-Identifier: Apache-2.0
// Where layers lie when memory is short: by number, by bytes of weights, or by what fits; and how fast that can be.
// rows: 44 45 46 47 49 51 54
#include <gtest/gtest.h>
#include <planning/asking.hpp>
#include <support/expect_error.hpp>
#include <support/temporary_directory.hpp>
#include <support/tiny_engine.hpp>

#include <zse/model/models.hpp>
#include <zse/planning/settle.hpp>

#include <tuple>

namespace {

using namespace zse::planning;
using planned::asking;
using planned::stated;
using planned::wish_for;
using zse::Bytes;
using zse::ErrorCode;
using zse::GB;
using zse::Limits;
using zse::MB;
using zse::Size;
using zse::memory::Kind;
using zse::memory::Plan;
using zse::memory::Tier;
using zse::model::Placement;
namespace models = zse::models;

using Tiered = zse::Engine<zse::tiers::chain<zse::tiers::arena, zse::tiers::host, zse::tiers::disk>>;

Setting with_disk_layers(const Setting& setting, std::uint32_t count) {
    return with(setting, [count](Limits& limits) { limits.disk_layers = count; });
}

// Row 44: what lies outside the first tier is missing there, to the byte; row 46: and the rest is in it.
TEST(Offload, BytesOfTheFirstTierAreTheTotalLessThoseOfTheOffloadedLayers) {
    const auto& spec = models::llama3_8b;
    const auto plan = planner_of<Tiered>(spec);
    const auto on_gpu = [&](std::uint32_t count) {
        return plan(asking({.context = 2048, .gpu_layers = count}));
    };
    const Plan all = on_gpu(32);
    const Plan less = on_gpu(offloaded(8, 32));
    const Bytes layer =
        zse::model::WeightLayout<zse::weights::as_stored>::layer_bytes(spec, spec.runs[0].formats);
    EXPECT_EQ(all.gpu[Kind::weights] - less.gpu[Kind::weights], 8 * layer);
    EXPECT_EQ(less.host[Kind::weights] - all.host[Kind::weights], 8 * layer);
    EXPECT_EQ(all.gpu[Kind::kv] / 32 * 8, less.host[Kind::kv]) << "keys and values lie with their layer";
    EXPECT_EQ(on_gpu(99), all) << "more layers than there are, are all";
    EXPECT_EQ(on_gpu(0).gpu.total(), 0u);
    const Plan one = on_gpu(1);
    const Plan none = on_gpu(0);
    const Bytes output = one.gpu[Kind::weights] - layer;
    EXPECT_EQ(output, zse::model::WeightLayout<zse::weights::as_stored>::output_bytes(spec))
        << "the output matrix goes with the last layer";
    EXPECT_EQ(none.host[Kind::weights] - one.host[Kind::weights], layer + output);
}

TEST(Offload, TheFewestLayersOnDiskThatKeepWithinAStatedSize) {
    const auto& spec = models::smollm2_135m;
    const auto plan = planner_of<Tiered>(spec);
    const Setting setting = asking({.context = 512});
    const Bytes all = host_weights(plan(setting));
    const Bytes least = least_host_weights(plan, setting, spec.layers);
    const Bytes output_stays = host_weights(plan(with_disk_layers(setting, spec.layers)));
    EXPECT_LT(least, output_stays / 4) << "embedding and output go last";
    std::uint32_t before = spec.layers;
    for (Bytes cap = output_stays; cap < all + MB(2); cap += MB(2)) {
        Wish wish = wish_for(spec, {.context = 512});
        wish.weights_mem = cap;
        const Setting settled = settle(plan, wish, stated(0, GB(4), GB(4)));
        const std::uint32_t disk = settled.limits.disk_layers;
        EXPECT_LE(host_weights(plan(settled)), cap);
        EXPECT_FALSE(settled.limits.disk_output);
        for (std::uint32_t fewer = 0; fewer < disk; ++fewer) {
            EXPECT_GT(host_weights(plan(with_disk_layers(setting, fewer))), cap) << disk;
        }
        EXPECT_LE(disk, before);
        before = disk;
    }
    EXPECT_EQ(before, 0u) << "nothing is streamed where all fits";
    Wish wish = wish_for(spec, {.context = 512});
    wish.weights_mem = output_stays - 1;
    const Setting with_output = settle(plan, wish, stated(0, GB(4), GB(4)));
    EXPECT_TRUE(with_output.limits.disk_output);
    EXPECT_LE(host_weights(plan(with_output)), output_stays - 1);
    wish.weights_mem = least;
    EXPECT_EQ(host_weights(plan(settle(plan, wish, stated(0, GB(4), GB(4))))), least);
    wish.weights_mem = least - 1;
    support::expect_error([&] { std::ignore = settle(plan, wish, stated(0, GB(4), GB(4))); },
                          ErrorCode::usage, {"--weights-mem", std::to_string(least), "--weights nf4"});
}

TEST(Offload, WithLayersInTheGpuTierOnlyTheRestCounts) {
    const auto& spec = models::smollm2_135m;
    const auto plan = planner_of<Tiered>(spec);
    Wish wish = wish_for(spec, {.context = 512, .gpu_layers = 10});
    wish.weights_mem = MB(80);
    const Setting settled = settle(plan, wish, stated(GB(1), GB(4), GB(4)));
    const Plan planned = plan(settled);
    EXPECT_LE(host_weights(planned), MB(80));
    EXPECT_GT(settled.limits.disk_layers, 0u);
    EXPECT_EQ(settled.limits.gpu_layers, 10u);
    EXPECT_GT(planned.gpu[Kind::weights], MB(56));
}

// Row 54: arenas of unequal size; the map is contiguous, fits every cap, and fills the faster tiers first.
TEST(Offload, LayersArePlacedOverAllTiersWithoutNumbers) {
    const auto& spec = models::llama3_8b;
    const auto plan = planner_of<Tiered>(spec);
    for (const auto& [gpu, host] :
         {std::pair{GB(6), GB(5)}, {GB(3), GB(9)}, {GB(0), GB(9)}, {GB(8), GB(30)}, {GB(40), GB(4)}}) {
        Wish wish = wish_for(spec, {.context = 2048});
        wish.gpu_layers_open = gpu != 0;
        wish.disk_layers_open = true;
        const Budget budget = stated(gpu, host, GB(40));
        const Setting settled = settle(plan, wish, budget);
        EXPECT_TRUE(budget.holds(plan(settled)));
        const std::uint32_t disk = settled.limits.disk_layers;
        const std::uint32_t gpu_layers = settled.limits.gpu_layers;
        if (disk != 0) {
            EXPECT_FALSE(budget.holds(plan(with_disk_layers(settled, disk - 1))));
        }
        if (gpu != 0 && gpu_layers < spec.layers) {
            EXPECT_FALSE(budget.holds(plan(with(settled, [](Limits& l) { ++l.gpu_layers; }))));
        }
        const Placement placement(spec.layers, settled.limits);
        for (std::uint32_t layer = 1; layer < spec.layers; ++layer) {
            EXPECT_LE(placement.of_weights(layer), placement.of_weights(layer - 1)) << "slowest tier first";
        }
    }
}

TEST(Offload, AnOpenContextDoesNotPushLayersToTheDisk) {
    const auto& spec = models::llama3_8b;
    const auto plan = planner_of<Tiered>(spec);
    Wish wish = wish_for(spec, {});
    wish.disk_layers_open = true;
    const Setting roomy = settle(plan, wish, stated(0, GB(18), GB(40)));
    EXPECT_EQ(roomy.limits.disk_layers, 0u);
    EXPECT_GT(roomy.limits.context, useful_context);
    const Setting tight = settle(plan, wish, stated(0, GB(10), GB(40)));
    EXPECT_GT(tight.limits.disk_layers, 0u);
    EXPECT_EQ(tight.limits.context, useful_context);
}

TEST(Offload, TheDiskTierHasACapLikeTheOthers) {
    const auto& spec = models::llama3_8b;
    const auto plan = planner_of<Tiered>(spec);
    Wish wish = wish_for(spec, {.context = 2048});
    wish.disk_layers_open = true;
    const Budget budget = stated(0, GB(9), GB(2));
    const Setting settled = settle(plan, wish, budget);
    EXPECT_FALSE(budget.holds(plan(settled)));
    // What is free is measured, and a fifth of it stays so; nothing is used unless it is asked for.
    BudgetRequest request;
    zse::planning::MachineMemory machine;
    machine.disk_free = GB(100);
    EXPECT_EQ(budget_of(request, machine).disk.cap, 0u);
    request.disk = Size{true, 0};
    EXPECT_EQ(budget_of(request, machine).disk.cap, GB(80));
    request.disk = Size{false, GB(3)};
    EXPECT_EQ(budget_of(request, machine).disk.cap, GB(3));
}

TEST(Offload, TheMapIsPrinted) {
    EXPECT_EQ(layer_map(Placement(30, {.gpu_layers = 9, .disk_layers = 10})),
              "layers 0-9 disk, 10-20 host, 21-29 gpu, output gpu");
    EXPECT_EQ(layer_map(Placement(30, {})), "layers 0-29 host, output host");
    EXPECT_EQ(layer_map(Placement(30, {.disk_layers = 30, .disk_output = true})),
              "layers 0-29 disk, output disk");
    EXPECT_EQ(layer_map(Placement(4, {.gpu_layers = 1, .disk_layers = 9})),
              "layers 0-2 disk, 3 gpu, output gpu");
}

// Row 51: the prediction is the bandwidth over the bytes that come for each token.
TEST(Offload, PredictionIsBandwidthOverStreamedBytes) {
    const auto plan = planner_of<Tiered>(models::smollm2_135m);
    const Plan streamed = plan(asking({.context = 512, .disk_layers = 30}));
    const double bytes = static_cast<double>(streamed.disk[Kind::weights]);
    EXPECT_DOUBLE_EQ(predicted_rate(streamed, {20e9, 1e9}), 1e9 / bytes);
    const Plan few = plan(asking({.context = 512, .disk_layers = 3}));
    EXPECT_LT(predicted_rate(few, {2e9, 5e9}), 5e9 / static_cast<double>(few.disk[Kind::weights]))
        << "memory is read too";
    EXPECT_EQ(predicted_rate(streamed, {20e9, 0}), 0) << "not measured";
    const support::TemporaryDirectory directory;
    const double disk = zse::memory::disk_bandwidth(directory.path());
    EXPECT_GT(disk, 1e6);
    EXPECT_LT(disk, 1e12);
    EXPECT_GT(zse::memory::memory_bandwidth(2), 1e8);
    EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

// Row 47: memory that others took meanwhile costs layers, and no more than that.
TEST(Offload, MemoryThatIsRefusedAtOpenCostsLayersInTheGpuTier) {
    const support::Tiny tiny({.layers = 8});
    const Limits all{.context = 64, .gpu_layers = 8};
    const Plan plan = Tiered::plan(tiny.spec, all);
    const auto ledger = std::make_shared<zse::memory::Ledger>(zse::memory::Caps{.gpu = plan.gpu.total() - 1});
    int tries = 0;
    const auto engine = open_with_fewer_layers(all, [&](const Limits& limits) {
        ++tries;
        return tiny.open<Tiered>(limits, {}, ledger);
    });
    EXPECT_EQ(tries, 2);
    EXPECT_EQ(engine->limits().gpu_layers, 7u);
    support::expect_error(
        [&] {
            std::ignore = open_with_fewer_layers(
                all, [](const Limits&) -> int { throw zse::Error(ErrorCode::out_of_memory, "none at all"); });
        },
        ErrorCode::out_of_memory, {"none at all"});
}

}  // namespace
