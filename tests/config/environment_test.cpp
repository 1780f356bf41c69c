// SPDX-License-Identifier: Apache-2.0
// Variables that state options, in this program's names and in Ollama's; and who is heard first.
// rows: 107
#include <zse/config/environment.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <cstdlib>
#include <map>
#include <set>

namespace {

using namespace zse;
using config::Source;
using config::Variable;
using Values = std::map<std::string, std::string>;

Values values_of(const Source& source) {
    Values values;
    for (const auto& setting : source) {
        if (!setting.value.empty()) values[std::string(setting.option->name)] += setting.value + ";";
    }
    return values;
}
Values stated(const std::vector<Variable>& variables) {
    return values_of(config::read_environment(variables).settings);
}

TEST(Environment, EachOptionHasAVariable) {
    for (const config::Option& option : config::options) {
        std::string name = "ZSE_" + config::plain_key(option.name);
        for (char& c : name) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
        std::string value = "1";
        if (option.kind == config::Kind::tiers) value = "cpu:1GB";
        if (option.kind == config::Kind::dtype) value = "auto";
        if (option.kind == config::Kind::headroom) value = "0.5";
        const Source settings = config::read_environment({{name, value}}).settings;
        ASSERT_EQ(settings.size(), 1u) << name;
        EXPECT_EQ(settings[0].option, &option);
        EXPECT_EQ(settings[0].origin.shown(), "environment variable " + name);
    }
    EXPECT_EQ(stated({{"ZSE_MAX_MODEL_LEN", "4K"}}), (Values{{"max-context", "4096;"}}))
        << "by other keys too";
}

TEST(Environment, OllamasNamesAreUnderstood) {
    EXPECT_EQ(stated({{"OLLAMA_NUM_PARALLEL", "4"},
                      {"OLLAMA_CONTEXT_LENGTH", "8192"},
                      {"OLLAMA_KV_CACHE_TYPE", "q8_0"},
                      {"OLLAMA_FLASH_ATTENTION", "1"},
                      {"OLLAMA_GPU_OVERHEAD", "1073741824"}}),
              (Values{{"max-batch", "4;"},
                      {"max-context", "8192;"},
                      {"kv-quant", "int8;"},
                      {"attention", "flash;"},
                      {"reserve", "1073741824;"}}));
    EXPECT_EQ(stated({{"OLLAMA_NUM_PARALLEL", "0"}, {"OLLAMA_CONTEXT_LENGTH", "0"}}), Values{})
        << "there 0 leaves it open";
}

TEST(Environment, WhatIsNotBuiltIsNotSilent) {
    for (const Variable& variable : std::vector<Variable>{{"OLLAMA_MAX_LOADED_MODELS", "2"},
                                                          {"OLLAMA_KEEP_ALIVE", "5m"},
                                                          {"OLLAMA_KEEP_ALIVE", "-1"},
                                                          {"OLLAMA_KEEP_ALIVE", "1h30m"},
                                                          {"OLLAMA_MAX_QUEUE", "512"},
                                                          {"OLLAMA_FLASH_ATTENTION", "0"},
                                                          {"ZSE_QUANTIZATION", "awq"}}) {
        const Source settings = config::read_environment({variable}).settings;
        ASSERT_EQ(settings.size(), 1u) << variable.name;
        EXPECT_EQ(settings[0].value, "");
        EXPECT_NE(settings[0].note, "") << variable.name;
    }
    const Source one = config::read_environment({{"OLLAMA_MAX_LOADED_MODELS", "1"}}).settings;
    ASSERT_EQ(one.size(), 1u);
    EXPECT_EQ(one[0].note, "") << "one model is what there is";
}

TEST(Environment, BadValuesNameTheirVariable) {
    const auto refused = [](const std::vector<Variable>& variables,
                            std::initializer_list<std::string_view> words) {
        support::expect_error([&] { config::read_environment(variables); }, ErrorCode::usage, words);
    };
    refused({{"ZSE_MAX_BATCH", "many"}}, {"environment variable ZSE_MAX_BATCH: ", "whole number", "'many'"});
    refused({{"OLLAMA_CONTEXT_LENGTH", "long"}}, {"environment variable OLLAMA_CONTEXT_LENGTH: ", "128K"});
    refused({{"OLLAMA_KEEP_ALIVE", "soon"}}, {"OLLAMA_KEEP_ALIVE", "such as 5m"});
    refused({{"OLLAMA_GPU_OVERHEAD", "much"}}, {"OLLAMA_GPU_OVERHEAD", "is no size"});
    refused({{"ZSE_KV_TIER", "cpu:1GB,gpu:auto"}}, {"environment variable ZSE_KV_TIER: ", "the order is"});
    refused({{"ZSE_MAX_CONTEXT", "1"}, {"ZSE_MAX_MODEL_LEN", "1"}},
            {"ZSE_MAX_MODEL_LEN: states the same option as environment variable ZSE_MAX_CONTEXT"});
}

TEST(Environment, TiersAreAList) {
    EXPECT_EQ(stated({{"ZSE_KV_TIER", "gpu:auto,cpu:32GB,disk:1GB:/a,b"}}),
              (Values{{"kv-tier", "gpu:auto;cpu:32000000000;disk:1000000000:/a,b;"}}));
}

TEST(Environment, OurNamesAreHeardBeforeOllamasAndEmptyOnesNot) {
    EXPECT_EQ(stated({{"OLLAMA_NUM_PARALLEL", "4"}, {"ZSE_MAX_BATCH", "3"}}), (Values{{"max-batch", "3;"}}));
    EXPECT_EQ(stated({{"ZSE_MAX_BATCH", "3"}, {"OLLAMA_NUM_PARALLEL", "4"}}), (Values{{"max-batch", "3;"}}));
    EXPECT_EQ(stated({{"OLLAMA_NUM_PARALLEL", "4"}, {"ZSE_MAX_BATCH", ""}}), (Values{{"max-batch", "4;"}}));
}

TEST(Environment, VariablesOfOthersAreLeftAloneUnlessTheyAreNearlyOurs) {
    const auto notes = [](const char* name) { return config::read_environment({{name, "x"}}).notes; };
    for (const char* name :
         {"ZSE_CACHE", "ZSE_PEERS_PYTHON", "ZSE_CONFIG", "OLLAMA_HOST", "MAX_CONTEXT", "ZSE_"})
        EXPECT_TRUE(notes(name).empty()) << name;
    ASSERT_EQ(notes("ZSE_MAX_CONTXT").size(), 1u);
    EXPECT_EQ(notes("ZSE_MAX_CONTXT")[0],
              "environment variable ZSE_MAX_CONTXT is no option; did you mean ZSE_MAX_CONTEXT?");
}

TEST(Environment, OfTheProcess) {
    ASSERT_EQ(::setenv("ZSE_TEST_VARIABLE", "a=b", 1), 0);
    std::string found;
    for (const Variable& variable : config::process_environment()) {
        if (variable.name == "ZSE_TEST_VARIABLE") found = variable.value;
    }
    EXPECT_EQ(found, "a=b");
}

// --- the one rule: flag, environment, file, default

Source source_of(const std::vector<std::pair<const char*, const char*>>& values) {
    Source source;
    for (const auto& [key, value] : values)
        source.push_back({config::option_of_key(key), key, value, "", {}});
    return source;
}

TEST(Precedence, FlagBeforeEnvironmentBeforeFileBeforeDefault) {
    const Source environment = source_of({{"max_batch", "3"}, {"block_size", "8"}, {"threads", "1"}});
    const Source file =
        source_of({{"max_batch", "4"}, {"block_size", "32"}, {"max_context", "64"}, {"seed", "7"}});
    const auto heard = [&](const std::set<std::string_view>& flags) {
        return values_of(
            config::in_force([&](std::string_view name) { return flags.contains(name); }, environment, file));
    };
    EXPECT_EQ(heard({}), (Values{{"max-batch", "3;"},
                                 {"block-size", "8;"},
                                 {"threads", "1;"},
                                 {"max-context", "64;"},
                                 {"seed", "7;"}}))
        << "what none of them states is not there, and keeps its default";
    EXPECT_EQ(heard({"max-batch", "max-context", "weights"}),
              (Values{{"block-size", "8;"}, {"threads", "1;"}, {"seed", "7;"}}));
    EXPECT_EQ(heard({"max-batch", "block-size", "threads", "max-context", "seed"}), Values{});
}

TEST(Precedence, AListIsOneStatement) {
    const Source environment = source_of({{"kv_tier", "gpu:auto"}});
    const Source file = source_of({{"kv_tier", "cpu:1GB"}, {"kv_tier", "disk:1GB:/x"}});
    const auto none = [](std::string_view) { return false; };
    EXPECT_EQ(values_of(config::in_force(none, environment, file)), (Values{{"kv-tier", "gpu:auto;"}}));
    EXPECT_EQ(values_of(config::in_force(none, {}, file)), (Values{{"kv-tier", "cpu:1GB;disk:1GB:/x;"}}));
}

TEST(Precedence, AnOptionThatContradictsOneOfMoreWeightIsVoid) {
    const Source file = source_of({{"headroom", "0.2"}, {"quantization", "nf4"}, {"cache_type_k", "int8"}});
    const auto heard = [&](std::string_view flag, const Source& environment = {}) {
        return values_of(
            config::in_force([&](std::string_view name) { return name == flag; }, environment, file));
    };
    EXPECT_EQ(heard("none").size(), 3u);
    EXPECT_EQ(heard("gpu-memory-utilization").count("headroom"), 0u);
    EXPECT_EQ(heard("bits").count("weights"), 0u);
    EXPECT_EQ(heard("kv-quant").count("cache-type-k"), 0u);
    EXPECT_EQ(heard("none", source_of({{"gpu_memory_utilization", "0.9"}})).count("headroom"), 0u);
    EXPECT_EQ(heard("none", source_of({{"headroom", "0.1"}}))["headroom"], "0.1;");
}

}  // namespace
