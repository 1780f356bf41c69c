// SPDX-License-Identifier: Apache-2.0
// The demo model in a pool for three sequences, asked by eight that grow: each gets the tokens of its solo run.
// rows: 91
// labels: slow
// timeout: 300
#include <gtest/gtest.h>
#include <support/references.hpp>
#include <support/smollm2.hpp>

#include <map>

namespace {

constexpr std::uint32_t context = 256;
constexpr std::uint32_t answer = 120;

zse::AnyEngine::Request request(std::size_t i) {
    const auto json = support::read_reference_json("smollm2.json");
    std::vector<std::int32_t> prompt = json["prompts"][i % 5]["ids"];
    zse::AnyEngine::Request request;
    request.tokens.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(
                                                               prompt.size(), 30 + 12 * i)));
    request.max_tokens = answer;
    request.ignore_end = true;
    if (i % 2 == 1) request.sampling = {.temperature = 0.8f, .top_p = 0.95f, .seed = i};
    return request;
}

template <class Kv>
void serves_eight() {
    zse::engine::Options options;
    options.limits = {.context = context, .batch = 1, .step_tokens = 128, .threads = 2};
    std::vector<std::vector<std::int32_t>> alone(8);
    {
        const auto engine = support::open_smollm2<zse::Engine<Kv>>(options);
        for (std::size_t i = 0; i < alone.size(); ++i) {
            engine->submit(request(i));
            while (!engine->idle()) {
                for (const auto& event : engine->step()) {
                    if (event.token >= 0) alone[i].push_back(event.token);
                }
            }
        }
    }
    options.limits.batch = 8;
    options.limits.kv_tokens = 3 * context;
    const auto engine = support::open_smollm2<zse::Engine<Kv>>(options);
    std::map<zse::engine::RequestId, std::size_t> which;
    for (std::size_t i = 0; i < alone.size(); ++i) which[engine->submit(request(i))] = i;
    std::vector<std::vector<std::int32_t>> together(8);
    while (!engine->idle()) {
        for (const auto& event : engine->step()) {
            if (event.token >= 0) together[which[event.id]].push_back(event.token);
        }
    }
    EXPECT_EQ(together, alone) << engine->description();
    EXPECT_EQ(alone[7].size(), answer);
    EXPECT_GT(engine->scheduling().preempted, 0u);
    EXPECT_GT(engine->scheduling().most_running, 3u);
    EXPECT_EQ(engine->page_use().used, 0u);
}

TEST(SmolLm2Pages, APoolForThreeServesEight) {
    serves_eight<zse::kv::f16>();
    serves_eight<zse::kv::int8<>>();
}

}  // namespace
