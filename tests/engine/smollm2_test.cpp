// SPDX-License-Identifier: Apache-2.0
// SmolLM2 against transformers in float32: logits, greedy tokens, top tokens and perplexity of every weight
// policy.
// rows: 23 24 102
// labels: slow
// timeout: 600
#include <gtest/gtest.h>
#include <support/references.hpp>
#include <support/smollm2.hpp>

#include <zse/evaluate/perplexity.hpp>

namespace {

using support::SmolLm2;

constexpr std::uint32_t window = 512;

zse::engine::Options options(std::uint32_t output_rows = 64) {
    zse::engine::Options options;
    options.limits = {
        .context = window, .batch = 1, .step_tokens = 512, .output_rows = output_rows, .threads = 2};
    return options;
}

struct Prompt {
    std::string name;
    std::vector<std::int32_t> ids;
    std::size_t first_row;
    std::vector<std::int32_t> greedy;
};

std::vector<Prompt> prompts() {
    std::vector<Prompt> list;
    const auto json = support::read_reference_json("smollm2.json");
    for (const auto& prompt : json["prompts"]) {
        list.push_back({prompt["name"], prompt["ids"], prompt["first_row"], prompt["greedy"]});
    }
    return list;
}

using Exact = zse::Engine<zse::weights::f32, zse::kv::f32>;

// The bound of the issue: 1e-3 of a row's spread. The two differ in the order of float32 sums only.
TEST(SmolLm2, LogitsOfFloat32AreThoseOfTransformers) {
    const auto engine = support::open_smollm2<Exact>(options());
    const auto rows = support::read_reference<support::ReferenceRow>("smollm2_prompts.bin");
    double worst = 0;
    for (const Prompt& prompt : prompts()) {
        const auto logits = support::all_logits(*engine, prompt.ids);
        ASSERT_EQ(logits.size(), prompt.ids.size()) << prompt.name;
        for (std::size_t i = 0; i < logits.size(); ++i) {
            const auto& expected = rows.at(prompt.first_row + i);
            const auto difference = [&](std::size_t id, float logit) {
                return std::fabs(logits[i][id] - logit) / expected.spread();
            };
            for (const auto& entry : expected.top)
                worst = std::max<double>(worst, difference(entry.id, entry.logit));
            for (std::size_t s = 0; s < expected.sample.size(); ++s) {
                worst = std::max<double>(
                    worst, difference(s * support::ReferenceRow::sample_stride, expected.sample[s]));
            }
        }
    }
    RecordProperty("worst_share_of_spread", std::to_string(worst));
    EXPECT_LT(worst, 1e-3);
    EXPECT_GT(worst, 0) << "equal to the last bit: the reference was not read";
}

TEST(SmolLm2, GreedyTokensAreThoseOfTransformers) {
    const auto engine = support::open_smollm2<Exact>(options(1));
    const auto list = prompts();
    ASSERT_EQ(list.size(), 5u);
    for (const Prompt& prompt : list) {
        EXPECT_EQ(support::greedy(*engine, prompt.ids, 64), prompt.greedy) << prompt.name;
    }
}

struct TopTokens {
    std::size_t positions = 0;
    std::size_t equal = 0;  // near-ties count as equal
    std::size_t identical = 0;
};

/// Top tokens of the first `windows` windows of the prose.
TopTokens top_tokens(zse::AnyEngine& engine, std::size_t windows) {
    const auto reference = support::read_reference<support::ReferencePosition>("smollm2_prose.bin");
    TopTokens result;
    for (std::size_t w = 0; w < windows; ++w) {
        std::vector<std::int32_t> tokens;
        for (std::size_t i = 0; i < window; ++i) {
            tokens.push_back(static_cast<std::int32_t>(reference.at(w * window + i).token));
        }
        zse::AnyEngine::Request request;
        request.tokens = tokens;
        request.max_tokens = 0;
        request.observe = [&](std::uint32_t position, std::span<const float> row) {
            const auto& expected = reference[w * window + position];
            const auto top =
                static_cast<std::uint32_t>(std::max_element(row.begin(), row.end()) - row.begin());
            ++result.positions;
            result.identical += top == expected.top1;
            result.equal += top == expected.top1 || expected.gap < 0.05f;
        };
        engine.submit(std::move(request));
        support::run_to_end(engine);
    }
    return result;
}

double perplexity(zse::AnyEngine& engine) {
    const auto json = support::read_reference_json("smollm2.json");
    const std::vector<std::int32_t> ids = json["prose"]["ids"];
    return zse::evaluate::perplexity(engine, ids, window).value;
}

double reference_perplexity() {
    return support::read_reference_json("smollm2.json")["prose"]["perplexity"][0]["perplexity"];
}

// The near-tie rule alone would pass more than half of the positions, so the strict count is bounded too.
TEST(SmolLm2, DecodedWeightsAgreeWithFloat32) {
    const auto engine = support::open_smollm2<zse::Engine<zse::weights::f32>>(options());
    const TopTokens top = top_tokens(*engine, 4);
    ASSERT_GE(top.positions, 2000u);
    EXPECT_GE(static_cast<double>(top.equal), 0.98 * static_cast<double>(top.positions));
    // f16 KV is all that differs from the reference here: 99 % leaves room for its near-ties.
    EXPECT_GE(static_cast<double>(top.identical), 0.99 * static_cast<double>(top.positions));
    EXPECT_NEAR(perplexity(*engine) / reference_perplexity(), 1.0, 0.003);
}

TEST(SmolLm2, StoredWeightsAgreeWithFloat32OnEachInstructionSet) {
    for (const zse::kernels::Isa isa : zse::kernels::built_isas) {
        // The portable kernels are for tests of small models: here they would take minutes.
        if (isa == zse::kernels::Isa::portable || !zse::kernels::usable(isa)) continue;
        zse::engine::Options with = options();
        with.isa = isa;
        const auto engine = support::open_smollm2<zse::Engine<>>(with);
        ASSERT_EQ(engine->isa(), isa);
        const TopTokens top = top_tokens(*engine, 4);
        ASSERT_GE(top.positions, 2000u);
        EXPECT_GE(static_cast<double>(top.equal), 0.98 * static_cast<double>(top.positions));
        // Activations in 8 bits differ from float32 by 1 % of a product's magnitude: near-ties fall either way.
        EXPECT_GE(static_cast<double>(top.identical), 0.95 * static_cast<double>(top.positions));
        EXPECT_NEAR(perplexity(*engine) / reference_perplexity(), 1.0, 0.003);
        std::cout << name(isa) << ": " << top.identical << " of " << top.positions
                  << " top tokens identical\n";
    }
}

TEST(SmolLm2, HalfPrecisionWeightsKeepThePerplexity) {
    for (const bool brain : {false, true}) {
        const auto engine = brain ? support::open_smollm2<zse::Engine<zse::weights::bf16>>(options())
                                  : support::open_smollm2<zse::Engine<zse::weights::f16>>(options());
        EXPECT_NEAR(perplexity(*engine) / reference_perplexity(), 1.0, brain ? 0.01 : 0.003);
    }
}

// Weights that are rounded again lose something, in the order that their bits per weight say.
TEST(SmolLm2, CoarserWeightsCostMore) {
    const double eight = perplexity(*support::open_smollm2<zse::Engine<zse::weights::int8<32>>>(options()));
    const double normal = perplexity(*support::open_smollm2<zse::Engine<zse::weights::nf4<64>>>(options()));
    const double four = perplexity(*support::open_smollm2<zse::Engine<zse::weights::q4_0>>(options()));
    const double reference = reference_perplexity();
    EXPECT_NEAR(eight / reference, 1.0, 0.01);
    EXPECT_LT(eight, normal);
    EXPECT_LT(normal, four);
    RecordProperty("int8", std::to_string(eight));
    RecordProperty("nf4", std::to_string(normal));
    RecordProperty("q4_0", std::to_string(four));
    std::cout << "perplexity: float32 " << reference << ", int8 " << eight << ", nf4 " << normal << ", q4_0 "
              << four << "\n";
}

}  // namespace
