// SPDX-License-Identifier: Apache-2.0
// Configuration as a user of zse has it: files, variables, flags, what is said to what is wrong, and that --help, the
// table of options and the documentation name the same options.
// rows: 106 107
// timeout: 300
#include <gtest/gtest.h>
#include <support/command.hpp>
#include <support/tiny_model.hpp>

#include <zse/config/option.hpp>

#include <regex>
#include <set>

namespace {

using support::Outcome;
using support::TinySpec;

class Config : public testing::Test {
protected:
    /// With variables before the command: "ZSE_SEED=1".
    Outcome zse(const std::string& arguments, const std::string& variables = "") {
        return support::run_command("/usr/bin/env", variables + " '" + ZSE_CLI + "' " + arguments);
    }
    std::string file(const std::string& content, const std::string& name = "zse.yaml") {
        std::ofstream(directory_ / name, std::ios::binary) << content;
        return (directory_ / name).string();
    }
    std::string tiny() { return write_tiny_model(directory_.path(), TinySpec{.context = 4096}).string(); }
    nlohmann::json plan(const std::string& arguments, const std::string& variables = "") {
        const Outcome outcome = zse("plan " + arguments + " --json", variables);
        EXPECT_EQ(outcome.status, 0) << outcome.errors;
        return outcome.json();
    }
    support::TemporaryDirectory directory_;
};

void expect_refusal(const Outcome& outcome, const std::string& words) {
    EXPECT_EQ(outcome.status, 2) << outcome.errors;
    EXPECT_EQ(outcome.out, "");
    EXPECT_NE(outcome.errors.find(words), std::string::npos) << outcome.errors;
}

TEST_F(Config, FlagBeforeEnvironmentBeforeFileBeforeDefault) {
    const std::string model = tiny() + " --host-mem 1GB";
    const std::string config =
        " --config " + file("max_context: 128\nmax_batch: 3\nblock_size: 8\nstep_tokens: 100\n");
    const std::string variables = "ZSE_MAX_CONTEXT=64 OLLAMA_NUM_PARALLEL=2 ZSE_BLOCK_SIZE=32";
    const auto values = [&](const std::string& flags, const std::string& environment) {
        const auto json = plan(model + flags, environment);
        const int page = json["kv_page_bytes"].get<int>() / json["kv_bytes_per_token"].get<int>();
        return std::array<int, 4>{json["context"], json["batch"], page, json["step_tokens"]};
    };
    EXPECT_EQ(values("", ""), (std::array{4096, 1, 16, 512}));
    EXPECT_EQ(values(config, ""), (std::array{128, 3, 8, 100}));
    EXPECT_EQ(values(config, variables), (std::array{64, 2, 32, 100}));
    EXPECT_EQ(values(config + " -c 32 --max-num-seqs 5 --block-size 16", variables),
              (std::array{32, 5, 16, 100}));
    EXPECT_EQ(values("", variables + " ZSE_CONFIG=" + (directory_ / "zse.yaml").string()),
              (std::array{64, 2, 32, 100}));
}

TEST_F(Config, VllmsFileIsPlannedAsItStands) {
    const Outcome outcome = zse("plan --config tests/data/config/vllm_config.yaml --host-mem 1TB --json");
    ASSERT_EQ(outcome.status, 0) << outcome.errors;
    const auto json = outcome.json();
    EXPECT_EQ(json["models"][0]["name"], "Llama-2-7B");
    EXPECT_EQ(json["context"], 4096);
    EXPECT_EQ(json["batch"], 256);
    EXPECT_EQ(json["step_tokens"], 4096);
    EXPECT_EQ(json["budget"]["host"]["cap"], 900'000'000'000u);
    std::vector<std::string> notes;
    const std::regex note("note: tests/data/config/vllm_config.yaml:(\\d+:\\d+): '(\\w+)' has no effect: .+");
    std::istringstream lines(outcome.errors);
    for (std::string line; std::getline(lines, line);) {
        std::smatch match;
        ASSERT_TRUE(std::regex_match(line, match, note)) << line;
        notes.push_back(match[1].str() + " " + match[2].str());
    }
    EXPECT_EQ(notes,
              (std::vector<std::string>{"3:15 quantization", "10:20 trust_remote_code", "11:8 dtype"}));
    EXPECT_EQ(zse("plan --config tests/data/config/vllm_config.yaml --host-mem 1TB --weights nf4")
                  .errors.find("quantization"),
              std::string::npos)
        << "a flag decides, so the key has no effect that anyone waits for";
}

TEST_F(Config, TheSeedsFileChangesNothingThatIsSmaller) {
    const std::string model = tiny() + " -c 256 --host-mem 1GB";
    const std::string seed = " --config tests/data/config/zse.yaml";
    nlohmann::json seeded = plan(model + seed);
    EXPECT_GE(seeded["budget"]["disk"]["cap"], 100'000'000'000u) << "a disk tier is there ...";
    EXPECT_FALSE(seeded["tiers"].contains("disk")) << "... and nothing has to lie in it";
    nlohmann::json plain = plan(model);
    for (nlohmann::json* each : {&seeded, &plain}) (*each)["budget"].erase("disk");
    EXPECT_EQ(seeded, plain);
    const Outcome run = zse("run " + tiny() + " 'on the' --raw --max-tokens 5" + seed);
    EXPECT_EQ(run.status, 0) << run.errors;
    EXPECT_EQ(run.errors, "") << "a gpu tier of its own size is none where there is no GPU";
}

TEST_F(Config, ATierForKvCapsThePool) {
    const std::string model = tiny() + " -c 256 --max-batch 4 --host-mem 1GB";
    const auto kv = [&](const std::string& more, const std::string& variables = "") {
        return plan(model + more, variables)["tiers"]["host"]["kv"].get<std::uint64_t>();
    };
    const std::uint64_t all = kv("");
    const std::uint64_t half = all / 2;
    const std::string size = std::to_string(half);
    EXPECT_EQ(kv(" --kv-tier cpu:" + size), half);
    EXPECT_EQ(kv(" --kv-tier gpu:auto --kv-tier cpu:" + size), half);
    EXPECT_EQ(kv(" --config " + file("kv_cache:\n  tiers:\n    - {type: cpu, size: " + size + "}\n")), half);
    EXPECT_EQ(kv("", "ZSE_KV_TIER=gpu:auto,cpu:" + size), half);
    EXPECT_EQ(kv(" --kv-tier cpu:1GB", "ZSE_KV_TIER=cpu:" + size), all) << "the flag is heard";
    expect_refusal(zse("plan " + model + " --kv-tier cpu:1GB --kv-tier gpu:auto"),
                   "the order is gpu, cpu, disk");
    expect_refusal(zse("plan " + model + " --kv-tier cpu:1KB"), "do not hold one sequence");
}

TEST_F(Config, TheFileNamesTheModel) {
    const std::string config = " --config " + file("model: " + tiny() + "\ntemperature: 0\nmax_tokens: 5\n");
    const auto by_name = zse("run " + tiny() + " 'on the' --raw --max-tokens 5 --temperature 0");
    EXPECT_EQ(by_name.status, 0) << by_name.errors;
    EXPECT_EQ(zse("run --prompt 'on the' --raw" + config).out, by_name.out);
    EXPECT_EQ(zse("tokenize --prompt 'on the'" + config).out, zse("tokenize " + tiny() + " 'on the'").out);
    EXPECT_EQ(zse("info" + config).out, zse("info " + tiny()).out);
    EXPECT_EQ(zse("info", "ZSE_MODEL=" + tiny()).out, zse("info " + tiny()).out);
    EXPECT_EQ(plan("--params 7B --host-mem 100GB" + config)["models"].size(), 1u)
        << "a shape takes its place";
    EXPECT_EQ(plan("llama3-8b --host-mem 100GB" + config)["models"].size(), 1u);
    EXPECT_EQ(plan("-m llama3-8b --host-mem 100GB" + config)["models"].size(), 1u);
    expect_refusal(zse("info --config " + file("max_context: 64\n", "b.yaml")), "MODEL is required");
}

TEST_F(Config, ErrorsSayWhere) {
    const auto refused = [&](const std::string& content, const std::string& words) {
        expect_refusal(zse("plan llama3-8b --config " + file(content)), words);
    };
    refused("model: a\nmax_contxt: 4096\n",
            "zse.yaml:2:1: 'max_contxt' is no option; did you mean 'max_context'?");
    refused("max_num_seqs: 99999\n", "zse.yaml:1:15: 'max_num_seqs': --max-batch: Value 99999 not in range");
    refused("# sizes\nkv_cache:\n  block_size: 7\n", "zse.yaml:3:15: 'kv_cache.block_size': ");
    refused("weights: int5\n", "zse.yaml:1:10: 'weights': ");
    refused("kv_quant: int3\n", "zse.yaml:1:11: 'kv_quant': ");
    refused("gpu_layers: few\n", "zse.yaml:1:13: 'gpu_layers': ");
    refused("memory:\n  reserve: auto\n", "zse.yaml:2:12: 'memory.reserve': ");
    refused("admission: never\n", "zse.yaml:1:12: 'admission': ");
    refused("", "the file states nothing");
    expect_refusal(zse("plan llama3-8b --config " + (directory_ / "none.yaml").string()), "no such file");
    expect_refusal(zse("plan llama3-8b --config " + directory_.path().string()), "found a directory");
    expect_refusal(zse("plan llama3-8b", "ZSE_MAX_BATCH=99999"),
                   "environment variable ZSE_MAX_BATCH: --max-batch: ");
    expect_refusal(zse("plan llama3-8b", "ZSE_CONFIG=" + (directory_ / "none.yaml").string()),
                   "no such file");
}

TEST_F(Config, WhatIsNotBuiltGetsOneNote) {
    const Outcome outcome =
        zse("plan llama3-8b --host-mem 100GB",
            "OLLAMA_MAX_LOADED_MODELS=2 OLLAMA_KEEP_ALIVE=5m ZSE_MAX_CONTXT=1 OLLAMA_HOST=x");
    EXPECT_EQ(outcome.status, 0);
    std::set<std::string> lines;
    std::istringstream all(outcome.errors);
    for (std::string line; std::getline(all, line);) lines.insert(line.substr(0, line.find(':', 6)));
    EXPECT_EQ(lines,
              (std::set<std::string>{"note: environment variable OLLAMA_MAX_LOADED_MODELS",
                                     "note: environment variable OLLAMA_KEEP_ALIVE",
                                     "note: environment variable ZSE_MAX_CONTXT is no option; did you mean "
                                     "ZSE_MAX_CONTEXT?"}))
        << outcome.errors;
}

TEST_F(Config, CommandsThatOpenOrPlanHaveTheOption) {
    for (const char* command : {"run", "info", "plan", "tokenize", "perplexity", "logits", "benchmark"})
        EXPECT_NE(zse(std::string(command) + " --help").out.find("--config FILE"), std::string::npos)
            << command;
}

// Whoever adds an option to the program adds it to the table, or says here that it belongs to one call only.
TEST_F(Config, EveryOptionOfTheProgramIsInTheTable) {
    const std::set<std::string> of_one_call{"help",  "config", "json",           "prompt",        "raw",
                                            "stats", "stop",   "profile-memory", "profile-output"};
    std::set<std::string> flags;
    const std::string help = zse("run --help").out;
    const std::regex line("\\n  ((?:-\\w,)?(--[a-z0-9,-]+))");
    const std::regex flag("--([a-z0-9-]+)");
    for (std::sregex_iterator match(help.begin(), help.end(), line), end; match != end; ++match) {
        const std::string names = (*match)[1];
        for (std::sregex_iterator name(names.begin(), names.end(), flag); name != end; ++name)
            flags.insert((*name)[1]);
    }
    EXPECT_GT(flags.size(), 40u);
    for (const std::string& name : flags) {
        if (name.starts_with("no-")) continue;  // the opposite of a flag: a file says false
        const bool known = ::zse::config::option_of_key(::zse::config::plain_key(name)) != nullptr;
        EXPECT_NE(known, of_one_call.contains(name)) << name;
    }
    for (const auto& option : ::zse::config::options) {
        EXPECT_NE(flags.contains(std::string(option.name)), !option.note.empty()) << option.name;
    }
}

TEST_F(Config, TheDocumentationNamesEveryKeyAndVariable) {
    const std::string page = support::read_all("docs/configuration.md");
    const auto named = [&](const std::string& word) {
        return page.find("`" + word + "`") != std::string::npos;
    };
    for (const std::string& key : ::zse::config::all_keys()) EXPECT_TRUE(named(key)) << key;
    for (const auto& option : ::zse::config::options) {
        ::zse::config::for_each_word(option.environment, [&](std::string_view name) {
            EXPECT_TRUE(named(std::string(name))) << name;
        });
    }
}

}  // namespace
