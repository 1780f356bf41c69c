// SPDX-License-Identifier: Apache-2.0
// The two files that users bring: tiers for KV, and vLLM's. Both as they stand, key by key.
// rows: 106 107
#include <zse/config/file.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/temporary_directory.hpp>

#include <fstream>
#include <iterator>
#include <map>
#include <set>

namespace {

using namespace zse;
using config::Source;

std::string data(const std::string& name) {
    return std::string(ZSE_TEST_DATA) + "/config/" + name;
}

std::string words_of(const std::string& path) {
    std::ifstream file(path);
    std::string joined;
    for (std::string word; file >> word;) joined += (joined.empty() ? "" : " ") + word;
    return joined;
}

/// Option and value of each setting that has a value.
std::map<std::string, std::string> values_of(const Source& source) {
    std::map<std::string, std::string> values;
    for (const auto& setting : source) {
        if (!setting.value.empty()) values.emplace(setting.option->name, setting.value);
    }
    return values;
}

std::map<std::string, std::string> values_in(const std::string& text) {
    return values_of(config::read_text("t.yaml", text));
}

TEST(ConfigFile, TheSeedsTiersAreThreeTiers) {
    // The page that these words stand on has lost its line breaks; the file puts them back, and changes no word.
    ASSERT_EQ(
        words_of(data("zse.yaml")),
        "kv_cache: tiers: - type: gpu size: auto # Use available GPU memory - type: cpu size: 32GB # "
        "Overflow to system RAM - type: disk path: /tmp/zse_cache size: 100GB # For very long contexts");
    const Source source = config::read_file(data("zse.yaml"));
    ASSERT_EQ(source.size(), 3u);
    std::vector<std::string> flags;
    for (const auto& setting : source) {
        EXPECT_EQ(setting.option->name, "kv-tier");
        flags.push_back(setting.value);
    }
    EXPECT_EQ(flags,
              (std::vector<std::string>{"gpu:auto", "cpu:32000000000", "disk:100000000000:/tmp/zse_cache"}));
    const std::vector<config::TierConfig> tiers = config::parse_tiers(flags);
    EXPECT_EQ(tiers, (std::vector<config::TierConfig>{
                         {memory::Tier::gpu, {true, 0}, ""},
                         {memory::Tier::host, {false, GB(32)}, ""},
                         {memory::Tier::disk, {false, GB(100)}, "/tmp/zse_cache"},
                     }));
    EXPECT_EQ(source[2].origin.line, 7u);
    EXPECT_EQ(source[2].origin.column, 7u);
}

TEST(ConfigFile, TheSeedsVllmFileGivesItsOptions) {
    const Source source = config::read_file(data("vllm_config.yaml"));
    EXPECT_EQ(values_of(source), (std::map<std::string, std::string>{
                                     {"model", "TheBloke/Llama-2-7B-Chat-AWQ"},
                                     {"gpu-memory-utilization", "0.90"},
                                     {"max-context", "4096"},
                                     {"block-size", "16"},
                                     {"enforce-eager", "false"},
                                     {"step-tokens", "4096"},
                                     {"max-batch", "256"},
                                     {"swap-space", "4"},
                                 }));
    std::map<std::string, std::uint32_t> noted;
    for (const auto& setting : source) {
        if (!setting.note.empty()) noted.emplace(setting.key, setting.origin.line);
    }
    EXPECT_EQ(noted, (std::map<std::string, std::uint32_t>{
                         {"quantization", 3}, {"trust_remote_code", 10}, {"dtype", 11}}))
        << "what has no effect is said, and nothing else";
}

TEST(ConfigFile, ValuesWithoutEffectThatNothingHindersAreQuiet) {
    const Source source = config::read_text("t.yaml",
                                            "trust_remote_code: false\ndtype: auto\ntensor_parallel_size: 1\n"
                                            "enable_chunked_prefill: true\nmax_loaded_models: 1\n");
    EXPECT_EQ(source.size(), 5u);
    for (const auto& setting : source) EXPECT_EQ(setting.note + setting.value, "") << setting.key;
}

TEST(ConfigFile, KeysMayBeNestedFlatOrDashed) {
    const std::map<std::string, std::string> expected{
        {"kv-quant", "int4"}, {"max-context", "131072"}, {"gpu-mem", "10GiB"}};
    EXPECT_EQ(values_in("kv_cache:\n  quant: int4\nmax_context: 128K\nmemory: {gpu: 10GiB}\n"), expected);
    EXPECT_EQ(values_in("kv-quant: int4\nmax-model-len: 131072\ngpu_mem: 10GiB\n"), expected);
    EXPECT_EQ(values_in("{\"kv_cache_dtype\": \"int4\", \"context_length\": \"128k\", 'gpu-mem': 10GiB}"),
              expected)
        << "JSON is YAML";
    EXPECT_EQ(values_in("\xEF\xBB\xBFmax_context: 128K\r\nkv_quant: 'int4' # four\r\n\r\ngpu_mem: 10GiB"),
              expected)
        << "byte order mark, carriage returns, no end of line";
}

TEST(ConfigFile, WordsOfOthersBecomeOurs) {
    const auto value = [](const std::string& line) { return values_in(line + "\n").begin()->second; };
    EXPECT_EQ(value("kv_cache_dtype: auto"), "f16");
    EXPECT_EQ(value("kv_cache_dtype: fp8_e4m3"), "fp8");
    EXPECT_EQ(value("kv_quant: q8_0"), "int8");
    EXPECT_EQ(value("kv_quant: Q4_0"), "int4");
    EXPECT_EQ(value("quantization: bitsandbytes"), "nf4");
    EXPECT_EQ(value("quantization: gguf"), "as-stored");
    EXPECT_EQ(value("weights: q4_0"), "q4_0") << "of weights it is a format of their own";
    EXPECT_EQ(value("attention: reference"), "reference");
    EXPECT_EQ(value("mlock: yes"), "true");
    EXPECT_EQ(value("mlock: OFF"), "false");
    EXPECT_EQ(value("max_num_seqs: 010"), "10") << "no octal";
}

// A key that two options have would be heard by one of them only.
TEST(ConfigFile, EachKeyIsOneOptions) {
    const std::vector<std::string> keys = config::all_keys();
    const std::set<std::string> different(keys.begin(), keys.end());
    EXPECT_EQ(keys.size(), different.size());
    for (const config::Option& option : config::options) {
        EXPECT_EQ(config::option_of_key(config::plain_key(option.name)), &option) << option.name;
        EXPECT_FALSE(config::is_section(config::plain_key(option.name))) << option.name;
    }
    for (const char* section : {"kv_cache", "memory", "sampling"}) EXPECT_TRUE(config::is_section(section));
}

TEST(ConfigFile, FilesThatCannotBeReadAreWrongUsage) {
    const support::TemporaryDirectory directory;
    const auto refused = [](const std::string& path, std::string_view words) {
        support::expect_error([&] { config::read_file(path); }, ErrorCode::usage, {words});
    };
    refused((directory / "none.yaml").string(), "no such file");
    refused(directory.path().string(), "found a directory");
    refused("/dev/null", "expected a regular file");
    const std::string path = (directory / "a.yaml").string();
    std::ofstream(path).flush();
    refused(path, "a.yaml: the file states nothing");
    std::ofstream(path) << "# max_context: 4096\n\n---\n";
    refused(path, "a.yaml: the file states nothing");
    std::ofstream(path) << "model: " << std::string(config::most_yaml_bytes, 'a');
    refused(path, "a.yaml: the file has 65543 bytes; configuration has at most 65536");
}

}  // namespace
