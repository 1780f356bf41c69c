// SPDX-License-Identifier: Apache-2.0
// What an engine on a GPU will hold is known when the program is compiled, with no GPU and no CUDA at hand.
// rows: 35 41 46
#include <zse/engine/cuda.hpp>
#include <zse/model/models.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

namespace {

namespace kv = zse::kv;
namespace tiers = zse::tiers;
namespace models = zse::models;
using zse::Limits;
using zse::memory::Kind;
using zse::memory::Plan;

using Nf4 = zse::Engine<zse::weights::nf4<64>, kv::int4<32>, zse::attention::flash<>, zse::exec::cuda<90>>;

static_assert(Nf4::plan(models::llama3_8b, {.context = 32'768, .batch = 4}).gpu.total() <= zse::GB(10));
static_assert(
    std::is_same_v<Nf4, zse::Engine<zse::exec::cuda<90>, tiers::chain<tiers::gpu, tiers::host, tiers::disk>,
                                    kv::int4<32>, zse::weights::nf4<64>>>);
static_assert(Nf4::Exec::spelling.view() == "exec::cuda<90>");
static_assert(zse::exec::cuda_invariant<80, 90>::spelling.view() == "exec::cuda_invariant<80, 90>");

// Layers of the model, their caches, and what a step needs are on the device; the embedding is read row by row from pinned
// memory.
TEST(CudaPlan, AllLayersAreOnTheDeviceUnlessOtherwiseSaid) {
    constexpr Limits limits{.context = 8192, .batch = 2};
    constexpr Plan all = Nf4::plan(models::llama3_8b, limits);
    constexpr Plan none_said = Nf4::plan(models::llama3_8b, {.context = 8192, .batch = 2, .gpu_layers = 32});
    EXPECT_EQ(all, none_said);
    EXPECT_EQ(all.gpu[Kind::staging], 0u);
    EXPECT_GT(all.host[Kind::weights], 0u);
    EXPECT_EQ(all.host[Kind::kv], 0u);
    EXPECT_EQ(all.gpu[Kind::logits], all.host[Kind::logits]);

    // One layer less on the device is one more in pinned memory, and two windows.
    const Plan some = Nf4::plan(models::llama3_8b, {.context = 8192, .batch = 2, .gpu_layers = 20});
    const zse::Bytes layers = some.host[Kind::weights] - all.host[Kind::weights];
    EXPECT_EQ(all.gpu[Kind::weights] - some.gpu[Kind::weights], layers);
    EXPECT_EQ(some.gpu[Kind::staging], 2 * layers / 12);
    EXPECT_EQ(some.gpu[Kind::kv], all.gpu[Kind::kv]);
}

// As many layers as the budget holds, and no more: what --offload-layers auto asks.
TEST(CudaPlan, FewerLayersTakeLess) {
    zse::Bytes before = 0;
    for (std::uint32_t layers = 1; layers <= 32; ++layers) {
        const Plan plan = Nf4::plan(models::llama3_8b, {.context = 4096, .batch = 1, .gpu_layers = layers});
        EXPECT_GT(plan.gpu[Kind::weights], before) << layers;
        before = plan.gpu[Kind::weights];
    }
}

}  // namespace
