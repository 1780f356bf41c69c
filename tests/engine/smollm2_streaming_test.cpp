// SPDX-License-Identifier: Apache-2.0
// The demo model with 40 and with 16 MB for its 97 MB of weights: the tokens of a resident one, and no memory beyond the
// plan.
// rows: 49 56
// labels: slow
// timeout: 300
#include <gtest/gtest.h>
#include <support/smollm2.hpp>

#include <zse/planning/settle.hpp>

#include <fstream>
#include <optional>
#include <sstream>

namespace {

using zse::Bytes;
using zse::memory::Kind;
using zse::memory::Tier;
using Streamed = zse::Engine<zse::tiers::chain<zse::tiers::host, zse::tiers::disk>>;

/// Anonymous memory of the process that is resident; pages of the model file are not.
Bytes anonymous_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        std::istringstream words(line);
        std::string name;
        Bytes kilobytes = 0;
        if (words >> name >> kilobytes && name == "RssAnon:") return zse::KiB(kilobytes);
    }
    return 0;
}

/// Limits with so many bytes of weights in memory, or with all of them.
zse::Limits limits_of(std::optional<Bytes> weights_mem) {
    zse::planning::Wish wish;
    const zse::ModelSpec& spec = support::SmolLm2::get().spec;
    wish.setting.limits = {.context = 512, .step_tokens = 128, .threads = 2};
    wish.layers = spec.layers;
    wish.trained_context = spec.trained_context;
    wish.weights_mem = weights_mem;
    zse::planning::BudgetRequest request;
    request.host = zse::Size{false, zse::GB(1)};
    request.disk = zse::Size{false, zse::GB(1)};
    return settle(zse::planning::planner_of<Streamed>(spec), wish, zse::planning::budget_of(request, {}))
        .limits;
}

const std::vector<std::int32_t> prompt{1, 198, 5195, 314, 260, 6376, 4461, 47, 2, 198};

void answers_alike_within(Bytes weights_mem) {
    const auto& model = support::SmolLm2::get();
    const Bytes before = anonymous_bytes();
    Bytes peak = before;
    const auto look = [&] { peak = std::max(peak, anonymous_bytes()); };
    zse::engine::Options options;
    options.limits = limits_of(weights_mem);
    options.progress = [&](Bytes, Bytes) { look(); };
    std::vector<std::int32_t> streamed;
    {
        const auto engine =
            Streamed::open(model.file, model.spec,
                           zse::engine::vocabulary_from_gguf(model.file, model.spec.vocabulary), options);
        const auto& plan = engine->plan();
        EXPECT_LE(zse::planning::host_weights(plan), weights_mem);
        EXPECT_GT(plan.disk[Kind::weights], zse::MB(50));
        for (const Tier tier : zse::memory::all_tiers) EXPECT_EQ(engine->ledger().held(tier), plan[tier]);
        zse::AnyEngine::Request request;
        request.tokens = prompt;
        request.max_tokens = 48;
        request.ignore_end = true;
        engine->submit(std::move(request));
        while (!engine->idle()) {
            for (const auto& event : engine->step()) {
                if (event.token >= 0) streamed.push_back(event.token);
            }
            look();
        }
        EXPECT_LE(peak - before, plan.host.total() + zse::MiB(16));
        const auto& counts = engine->counters().streamed;
        const std::uint64_t each = engine->counters().steps * engine->limits().disk_layers;
        EXPECT_GE(counts.fetches, each);
        EXPECT_GE(counts.hits + counts.misses, each);
        EXPECT_EQ(counts.rows, engine->limits().disk_output ? engine->counters().rows : 0);
        EXPECT_EQ(counts.retries, 0u);
    }
    options.limits = limits_of(std::nullopt);
    options.progress = nullptr;
    EXPECT_EQ(options.limits.disk_layers, 0u);
    EXPECT_EQ(support::greedy(*support::open_smollm2<Streamed>(options), prompt, 48), streamed);
}

TEST(SmolLm2Streaming, AnswersAlikeWithinItsPlan) {
    answers_alike_within(zse::MB(40));
}
TEST(SmolLm2Streaming, AlsoWhereTheOutputMatrixIsStreamed) {
    answers_alike_within(zse::MB(16));
}

}  // namespace
