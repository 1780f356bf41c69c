// SPDX-License-Identifier: Apache-2.0
// zse run --prompt-cache: a second run finds what the first one computed, the file is what was planned, and what makes
// no sense is refused.
// rows: 57
// timeout: 300
#include <gtest/gtest.h>
#include <support/command.hpp>
#include <support/temporary_directory.hpp>
#include <support/tiny_model.hpp>

#include <filesystem>
#include <fstream>

namespace {

using support::Outcome;

Outcome zse(const std::string& arguments) {
    return support::run_command(ZSE_CLI, arguments, "");
}

class PromptCache : public testing::Test {
protected:
    support::TemporaryDirectory directory_;
    std::string model_ = write_tiny_model(directory_.path(), {.context = 4096}).string();
    std::string store_ = (directory_ / "prompts").string();
    std::string run_ = "run " + model_ + " '" + words() + "' --raw --max-tokens 8 -c 1024 --json ";

    static std::string words() {
        std::string all;
        for (int i = 0; i < 60; ++i) all += "the band on the sand ";
        return all;
    }
    static void expect_refusal(const Outcome& outcome, int status, const std::string& words) {
        EXPECT_EQ(outcome.status, status) << outcome.errors;
        EXPECT_EQ(outcome.out, "");
        EXPECT_NE(outcome.errors.find(words), std::string::npos) << outcome.errors;
    }
};

TEST_F(PromptCache, ALaterRunFindsThePrompt) {
    const std::string with = run_ + "--prompt-cache " + store_ + " --prompt-cache-size 4MiB ";
    const auto without = zse(run_).json();
    EXPECT_FALSE(without["prompt_cache"].contains("disk"));
    EXPECT_FALSE(without["planned"].contains("disk"));
    const auto first = zse(with).json();
    EXPECT_EQ(first["tokens"], without["tokens"]);
    EXPECT_EQ(first["prompt_cache"]["hits"], 0);
    EXPECT_EQ(first["prompt_cache"]["disk"]["found"], 0);
    EXPECT_EQ(first["planned"]["disk"]["prompt_cache"], 4 << 20);
    EXPECT_EQ(first["planned"], first["held"]);
    const auto second = zse(with).json();
    EXPECT_EQ(second["tokens"], without["tokens"]);
    EXPECT_EQ(second["prompt_cache"]["hits"], 1);
    const int tokens = second["prompt_tokens"];
    EXPECT_EQ(second["prompt_cache"]["hit_tokens"], (tokens - 1) / 16 * 16);
    EXPECT_EQ(second["prompt_cache"]["disk"]["fetched"], (tokens - 1) / 16);
    EXPECT_EQ(second["prompt_cache"]["disk"]["policies"]["eviction"],
              "least recently used first, ends of prompts before their beginnings");
    EXPECT_EQ(second["prompt_cache"]["disk"]["warning"], "");

    const auto silent = zse(with + "--no-prompt-cache").json();
    EXPECT_EQ(silent["tokens"], without["tokens"]);
    EXPECT_FALSE(silent["planned"].contains("disk"));
    const Outcome stats =
        zse(with.substr(0, with.find("--json")) + with.substr(with.find("--json") + 6) + "--stats");
    EXPECT_NE(stats.errors.find("on disk:"), std::string::npos) << stats.errors;
    EXPECT_NE(stats.errors.find(" gave way (least recently used first"), std::string::npos) << stats.errors;
}

TEST_F(PromptCache, IsASettingOfFilesAndTheEnvironment) {
    const std::string config = (directory_ / "zse.yaml").string();
    std::ofstream(config) << "prompt_cache: " << store_ << "\nkv_cache:\n  prompt_cache_size: 2MiB\n";
    EXPECT_EQ(zse(run_ + "--config " + config).json()["held"]["disk"]["total"], 2 << 20);
    EXPECT_EQ(zse("plan " + model_ + " -c 1024 --json --prompt-cache-size 6MiB")
                  .json()["tiers"]["disk"]["prompt_cache"],
              6 << 20)
        << "a plan needs no directory";
    expect_refusal(zse(run_ + "--prompt-cache true"), 2, "--prompt-cache is a directory, found 'true'");
}

TEST_F(PromptCache, WhatMakesNoSenseIsRefused) {
    expect_refusal(zse(run_ + "--prompt-cache-size 4MiB"), 2, "name its directory with --prompt-cache");
    expect_refusal(zse(run_ + "--prompt-cache-size auto --prompt-cache " + store_), 2,
                   "is a size, such as 4GB");
    expect_refusal(zse(run_ + "--prompt-cache-size 5000 --prompt-cache " + store_), 2, "state at least");
    expect_refusal(zse(run_ + "--prompt-cache " + model_), 2, "expected a directory for the prompt cache");
    expect_refusal(zse(run_ + "--prompt-cache " + store_ + " --disk-mem 1MiB"), 1, "disk");
    const Outcome pruned = zse(run_ + "--kv-recent 1024 --prompt-cache " + store_);
    EXPECT_EQ(pruned.status, 0) << pruned.errors;
    EXPECT_NE(pruned.errors.find("note: --prompt-cache has no effect"), std::string::npos);
}

}  // namespace
