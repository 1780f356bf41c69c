// SPDX-License-Identifier: Apache-2.0
// The shapes of public models have their published numbers of parameters, and are found by what users call them.
// rows: 9
#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <zse/engine.hpp>
#include <zse/model/names.hpp>

#include <map>
#include <tuple>

namespace {

namespace models = zse::models;

/// Parameters as counted in the published safetensors files: the factors of rotary frequencies are computed there, and
/// stored in a GGUF file.
std::uint64_t published(const zse::ModelSpec& spec) {
    return spec.parameters() - (spec.rope_factors ? spec.rope_dim / 2 : 0);
}

TEST(Models, HaveTheirPublishedNumberOfParameters) {
    // Sums over the tensors of each model's published safetensors index.
    const std::map<std::string_view, std::uint64_t> counts{
        {"SmolLM2-135M", 134'515'008},      {"SmolLM2-360M", 361'821'120},
        {"SmolLM2-1.7B", 1'711'376'384},    {"TinyLlama-1.1B", 1'100'048'384},
        {"Llama-2-7B", 6'738'415'616},      {"Llama-2-13B", 13'015'864'320},
        {"Llama-2-70B", 68'976'648'192},    {"CodeLlama-34B", 33'743'970'304},
        {"Yi-34B", 34'388'917'248},         {"Llama-3-8B", 8'030'261'248},
        {"Llama-3-70B", 70'553'706'496},    {"Llama-3.1-8B", 8'030'261'248},
        {"Llama-3.1-70B", 70'553'706'496},  {"Llama-3.1-405B", 405'853'388'800},
        {"Llama-3.2-1B", 1'235'814'400},    {"Llama-3.2-3B", 3'212'749'824},
        {"Qwen2.5-0.5B", 494'032'768},      {"Qwen2.5-1.5B", 1'543'714'304},
        {"Qwen2.5-3B", 3'085'938'688},      {"Qwen2.5-7B", 7'615'616'512},
        {"Qwen2.5-14B", 14'770'033'664},    {"Qwen2.5-32B", 32'763'876'352},
        {"Qwen2.5-72B", 72'706'203'648},    {"Mistral-7B-v0.1", 7'241'732'096},
        {"Mistral-7B-v0.3", 7'248'023'552}, {"Mistral-Nemo-12B", 12'247'782'400},
        {"Mixtral-8x7B", 46'702'792'704}};
    ASSERT_EQ(counts.size(), models::all.size());
    for (const auto& model : models::all) {
        ASSERT_EQ(counts.count(model.name), 1u) << model.name;
        EXPECT_EQ(published(*model.spec), counts.at(model.name)) << model.name;
        EXPECT_EQ(model.spec->defect(), "") << model.name;
    }
}

TEST(Models, StandSmallestFirst) {
    for (std::size_t i = 1; i < models::all.size(); ++i) {
        EXPECT_LE(models::all[i - 1].spec->parameters(), models::all[i].spec->parameters())
            << models::all[i].name;
    }
}

// Both sides of the sum: what the shape says is what the plan holds in 16 bits, but for padding and norms in 32.
TEST(Models, SixteenBitWeightsAreTwoBytesAParameter) {
    for (const auto& model : models::all) {
        const zse::ModelSpec& spec = *model.spec;
        const auto weights = zse::Engine<>::plan(spec, {.context = 64}).host[zse::memory::Kind::weights];
        // Norms and biases have four bytes, and so has the router.
        std::uint64_t vectors =
            (2ull * spec.layers + 1) * spec.hidden + (spec.rope_factors ? spec.rope_dim / 2 : 0);
        if (spec.qkv_bias) vectors += spec.layers * (spec.q_width() + 2ull * spec.kv_width());
        vectors += std::uint64_t{spec.layers} * spec.hidden * spec.experts;
        EXPECT_EQ(weights, 2 * spec.parameters() + 2 * vectors) << model.name;
    }
}

// A window caps the cache of every layer of the first Mistral: 4,096 tokens and a step's rows, whatever the context.
TEST(Models, MistralsWindowBoundsItsCache) {
    const auto kv = [](const zse::ModelSpec& spec, std::uint32_t context) {
        return zse::Engine<>::plan(spec, {.context = context}).host[zse::memory::Kind::kv];
    };
    EXPECT_EQ(kv(models::mistral_7b_v0_1, 8192), kv(models::mistral_7b_v0_1, 32'768));
    EXPECT_LT(kv(models::mistral_7b_v0_1, 32'768), kv(models::mistral_7b_v0_3, 8192));
}

// Experts are all held, and a token goes through two of them: 46.7 billion weights, not 8 times 7.
TEST(Models, MixtralHoldsAllItsExperts) {
    const auto plan = zse::Engine<>::plan(models::mixtral_8x7b, {.context = 4096});
    EXPECT_GT(plan.host[zse::memory::Kind::weights], zse::GB(93));
    EXPECT_EQ(plan.kv_bytes_per_token, zse::Engine<>::plan(models::mistral_7b_v0_3).kv_bytes_per_token);
}

TEST(Models, AreFoundByWhatUsersCallThem) {
    for (const char* name :
         {"llama3-8b", "Llama-3-8B", "LLAMA3:8B", "meta-llama/Meta-Llama-3-8B-Instruct", "llama-3 8b"}) {
        ASSERT_NE(models::find(name), nullptr) << name;
        EXPECT_EQ(models::find(name)->spec, &models::llama3_8b) << name;
    }
    EXPECT_EQ(models::find("meta-llama/Llama-2-7b-chat-hf")->spec, &models::llama2_7b);
    EXPECT_EQ(models::find("TheBloke/Llama-2-7B-Chat-AWQ")->spec, &models::llama2_7b);
    EXPECT_EQ(models::find("Qwen/Qwen2.5-3B-Instruct")->spec, &models::qwen2_5_3b);
    for (const auto& model : models::all) EXPECT_EQ(models::find(model.name)->spec, model.spec);
    EXPECT_EQ(models::find("llama3-9b"), nullptr);
    EXPECT_EQ(models::find(""), nullptr);
}

TEST(Models, ATypoIsAnsweredWithTheNearestName) {
    EXPECT_EQ(models::nearest("lama3-8b").name, "Llama-3-8B");
    EXPECT_EQ(models::nearest("qwen2.5-7").name, "Qwen2.5-7B");
    EXPECT_EQ(models::nearest("mixtral").name, "Mixtral-8x7B");
    support::expect_error([] { std::ignore = models::require("yi-43b\n"); }, zse::ErrorCode::not_found,
                          {"'yi-43b?'", "did you mean Yi-34B?"});
}

}  // namespace
