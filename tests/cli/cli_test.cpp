// SPDX-License-Identifier: Apache-2.0
// The zse program as a user types it: answers, JSON, aliases, and what it says to bad input.
// rows: 15 16 25 32 38 39 48 60 63 76 102
// timeout: 300
#include <gtest/gtest.h>
#include <support/command.hpp>
#include <support/references.hpp>
#include <support/smollm2.hpp>
#include <support/tiny_model.hpp>

#include <unistd.h>

#include <filesystem>
#include <set>

namespace {

using support::Outcome;
using support::TinySpec;

Outcome zse(const std::string& arguments, const std::string& input = "") {
    return support::run_command(ZSE_CLI, arguments, input);
}

class Cli : public testing::Test {
protected:
    std::string tiny(const TinySpec& spec = {}) { return write_tiny_model(directory_.path(), spec).string(); }
    std::string file(const std::string& name, const std::string& content) {
        std::ofstream(directory_ / name, std::ios::binary) << content;
        return (directory_ / name).string();
    }
    support::TemporaryDirectory directory_;
};

void expect_refusal(const Outcome& outcome, int status, const std::string& words) {
    EXPECT_EQ(outcome.status, status) << outcome.errors;
    EXPECT_EQ(outcome.out, "");
    EXPECT_NE(outcome.errors.find(words), std::string::npos) << outcome.errors;
}

TEST_F(Cli, AnswersAQuestionWithTheDemoModel) {
    const Outcome outcome =
        zse("run '" + support::smollm2_path().string() +
            "' 'What is the capital of France? Answer in one sentence.' --max-tokens 20 -c 256 --stats");
    EXPECT_EQ(outcome.status, 0) << outcome.errors;
    EXPECT_EQ(outcome.out, "The capital of France is Paris.\n");
    EXPECT_NE(outcome.errors.find("tokens/s"), std::string::npos);
    EXPECT_NE(outcome.errors.find("difference"), std::string::npos);
}

TEST_F(Cli, JsonOfRunHasTextTokensAndMemory) {
    const auto json = zse("run " + tiny() + " 'the band' --raw --max-tokens 5 --json --stop zzzz").json();
    EXPECT_TRUE(json["text"].is_string());
    EXPECT_LE(json["tokens"].size(), 5u);
    EXPECT_EQ(json["planned"]["host"], json["held"]["host"]);
}

TEST_F(Cli, AnswersWhatIsPipedIn) {
    const std::string model = tiny();
    const Outcome piped = zse("run " + model + " --raw --max-tokens 6", "the band");
    EXPECT_EQ(piped.status, 0) << piped.errors;
    EXPECT_EQ(piped.out, zse("run " + model + " 'the band' --raw --max-tokens 6").out);
    expect_refusal(zse("run " + model), 1, "standard input is empty");
}

TEST_F(Cli, ThreadsAndSeedsRepeat) {
    const std::string sampled =
        "run " + tiny() +
        " 'on the' --raw --max-tokens 30 --temperature 1.2 --top-k 50 --top-p 0.95 --min-p 0.01 --json ";
    const auto tokens = [&](const std::string& more) { return zse(sampled + more).json()["tokens"]; };
    const auto one = tokens("--seed 7 -t 1");
    EXPECT_EQ(one.size(), 30u);
    EXPECT_EQ(one, tokens("--seed 7 --threads 2"));
    EXPECT_NE(one, tokens("--seed 8 -t 1"));
}

TEST_F(Cli, InfoSaysWhatTheWriterWrote) {
    const TinySpec spec{.heads = 2, .kv_heads = 1, .head_dim = 32, .type = zse::io::GgmlType::q4_0};
    const std::string model = tiny(spec);
    const auto json = zse("info " + model + " --json").json();
    EXPECT_EQ(json["architecture"], "llama");
    EXPECT_EQ(json["file_bytes"], std::filesystem::file_size(model));
    EXPECT_EQ(json["kv_bytes_per_token"], 2u * spec.layers * spec.kv_heads * spec.head_dim * 2);
    EXPECT_EQ(json["layers"], spec.layers);
    EXPECT_EQ(json["trained_context"], spec.context);
    EXPECT_EQ(json["largest_context"], spec.context);
    // Row 25: both baselines, from the bytes that are held.
    const double parameters = json["parameters"];
    const double bytes = json["weights_bytes"];
    EXPECT_DOUBLE_EQ(json["ratio_to_16_bit"].get<double>(), parameters * 2 / bytes);
    EXPECT_DOUBLE_EQ(json["ratio_to_32_bit"].get<double>(), parameters * 4 / bytes);
    const auto nf4 = zse("info '" + support::smollm2_path().string() + "' --weights nf4 --json").json();
    EXPECT_GT(nf4["ratio_to_16_bit"], 2.9);  // the embedding stays in 8 bits
    const Outcome words = zse("info " + model);
    EXPECT_NE(words.out.find("smaller than 16 bits"), std::string::npos);
}

TEST_F(Cli, EverySpellingOfTheContextGivesTheSamePlan) {
    const std::string model = tiny();
    const auto plan = [&](const std::string& more) {
        auto json = zse("plan " + model + " -t 1 --json " + more).json();
        json.erase("budget");  // free memory changes from call to call
        return json;
    };
    const auto first = plan("--max-context 64");
    EXPECT_EQ(first, plan("-c 64"));
    EXPECT_EQ(first, plan("--max-model-len 64"));
    EXPECT_EQ(2 * first["tiers"]["host"]["kv"].get<int>(), plan("-c 128")["tiers"]["host"]["kv"].get<int>());
    std::uint64_t sum = 0;
    for (const auto& [kind, bytes] : first["tiers"]["host"].items())
        sum += kind == "total" ? 0 : bytes.get<std::uint64_t>();
    EXPECT_EQ(first["total"], sum);
    EXPECT_EQ(plan("--max-batch 3 -c 64")["tiers"]["host"]["kv"].get<int>(),
              3 * first["tiers"]["host"]["kv"].get<int>());
}

TEST_F(Cli, KvPrecisionsAreChosenApart) {
    const std::string model = tiny({.heads = 2, .kv_heads = 1, .head_dim = 32});
    const auto bytes = [&](const std::string& more) {
        return zse("plan " + model + " -c 64 --json " + more).json()["kv_bytes_per_token"].get<int>();
    };
    const int values = 2 * 32;  // layers, head size; one side
    EXPECT_EQ(bytes(""), values * 4);
    EXPECT_EQ(bytes("--kv-quant none"), values * 4);
    EXPECT_EQ(bytes("-ctk f32 -ctv f32"), values * 8);
    EXPECT_EQ(bytes("--kv-quant int8"), values * 2 + values / 32 * 4);
    EXPECT_EQ(bytes("--kv-quant fp8"), values * 2 + values / 32 * 4);
    EXPECT_EQ(bytes("--kv-quant int4"), values + values / 32 * 4);
    EXPECT_EQ(bytes("--kv-quant int4-plain"), values + values / 32 * 4);
    EXPECT_EQ(bytes("-ctk int8 -ctv int4"), values + values / 2 + values / 32 * 4);
    const Outcome missing = zse("run " + model + " x --raw -ctk int8-plain -ctv int8-plain");
    expect_refusal(missing, 1, "ZSE_EXTRA_ENGINES=as-stored:int8-plain");
}

TEST_F(Cli, OldTokensHaveAPrecisionOfTheirOwn) {
    const std::string model = tiny({.heads = 2, .kv_heads = 1, .head_dim = 32, .context = 4096});
    const auto kv = [&](const std::string& more) {
        return zse("plan " + model + " -c 4K --json " + more).json()["kv_bytes"].get<int>();
    };
    // 2 layers of 32 values, 2 bytes each or 4 bits and a scale; a part of 16 tokens of int4 needs no padding.
    const int fine = 2 * 2 * 32 * 2, coarse = 2 * 2 * (16 + 2);
    EXPECT_EQ(kv(""), 4096 * fine);
    EXPECT_EQ(kv("--kv-quant f16 --kv-old none"), 4096 * fine);
    EXPECT_EQ(kv("--kv-quant int4 --kv-old int4"), 4096 * coarse) << "that is no second precision";
    // Recent are 1,024 tokens and the stretch of 256 that is being written; the others are old.
    EXPECT_EQ(kv("--kv-old int4"), (1024 + 256) * fine + (4096 - 256 - 1024) * coarse);
    const auto answer = [&](const std::string& more) {
        return zse("run " + model + " 'on the' --raw --max-tokens 20 --json " + more).json()["tokens"];
    };
    EXPECT_EQ(answer("-c 4K --kv-old int4"), answer("-c 4K")) << "nothing is old yet";
    expect_refusal(zse("run " + model + " x --raw --kv-quant int8 --kv-old f32"), 1,
                   "ZSE_EXTRA_ENGINES=as-stored:int8-then-f32");
}

TEST_F(Cli, PruningBoundsThePages) {
    const std::string model = tiny({.context = 8192});
    const auto tokens = [&](const std::string& more) {
        const auto json = zse("plan " + model + " --json " + more).json();
        return json["kv_pages"].get<int>() * 16;
    };
    EXPECT_EQ(tokens("-c 8K"), 8192);
    EXPECT_EQ(tokens("-c 8K --kv-recent 2048"), 2048 + 256);
    EXPECT_EQ(tokens("-c 4K --kv-recent 2048"), 2048 + 256) << "flat beyond the cap";
    EXPECT_EQ(tokens("-c 8K --kv-recent 2048 --kv-sinks 32"), 2048 + 256 + 32);
    expect_refusal(zse("run " + model + " x --raw --kv-sinks 4"), 2, "how many recent ones");
    expect_refusal(zse("run " + model + " x --raw --kv-recent 1000"), 2, "multiple of 1024");
}

TEST_F(Cli, AConversationFindsWhatItComputedBefore) {
    const std::string model =
        "run '" + support::smollm2_path().string() + "' 'Hi' --max-tokens 5 -c 512 --json ";
    const auto json = zse(model).json();
    EXPECT_EQ(json["prompt_cache"]["hits"], 0);
    EXPECT_GT(json["prompt_cache"]["pages"], 0) << "the prompt's pages are kept";
    EXPECT_GT(json["planned"]["host"]["prompt_cache"], 0);
    const auto without = zse(model + "--no-prompt-cache").json();
    EXPECT_EQ(without["prompt_cache"]["pages"], 0);
    EXPECT_EQ(without["planned"]["host"]["prompt_cache"], 0);
    EXPECT_EQ(without["tokens"], json["tokens"]);
}

TEST_F(Cli, HowMemoryIsTakenChangesNoToken) {
    const std::string model = tiny();
    const auto answer = [&](const std::string& more) {
        return zse("run " + model + " 'on the' --raw --max-tokens 20 --json " + more).json()["tokens"];
    };
    const auto expected = answer("");
    EXPECT_EQ(expected.size(), 20u);
    for (const char* way :
         {"--huge-pages off", "--huge-pages explicit", "--admission reserve", "--enforce-eager"}) {
        EXPECT_EQ(answer(way), expected) << way;
    }
    expect_refusal(zse("run " + model + " x --raw --admission never"), 2, "--admission");
    const auto pages = [&](const std::string& more) {
        const auto json = zse("benchmark " + model + " --metric memory --json -c 64 " + more).json();
        std::set<std::string> all;
        for (const auto& row : json["memory"]) all.insert(row["pages"]);
        EXPECT_EQ(json["eviction"]["preempted"], 0);
        EXPECT_EQ(json["eviction"]["policy"], "latest admitted first, by recompute");
        EXPECT_EQ(json["suggested_batch"], 1);
        return all;
    };
    EXPECT_EQ(pages("--huge-pages off"), (std::set<std::string>{"", "plain"}));
}

TEST_F(Cli, TokensAreThoseOfTheTokenizer) {
    const auto json = zse("tokenize " + tiny() + " 'the<|im_end|>' --json").json();
    const auto& tokens = json["tokens"];
    EXPECT_EQ(tokens.front(), support::TinyTokens::bos);
    EXPECT_EQ(tokens.back(), support::TinyTokens::im_end);
    EXPECT_EQ(json["pieces"].size(), tokens.size());
    EXPECT_EQ(zse("tokenize " + tiny() + " --file " + file("text", "the<|im_end|>") + " --json").json(),
              json);
}

TEST_F(Cli, LogitsComeHighestFirstForEachToken) {
    const auto json = zse("logits " + tiny() + " --prompt 'the band' --top 5 --json").json();
    ASSERT_EQ(json["positions"].size(), json["tokens"].size());
    for (const auto& position : json["positions"]) {
        ASSERT_EQ(position.size(), 5u);
        for (std::size_t i = 1; i < 5; ++i) EXPECT_GE(position[i - 1]["logit"], position[i]["logit"]);
    }
}

TEST_F(Cli, PerplexityOfAFileWithItsDifferenceToHalfPrecision) {
    std::string text;
    for (int i = 0; i < 100; ++i) text += "the band and the ring " + std::to_string(i) + "\n";
    const auto json = zse("perplexity " + tiny() + " --file " + file("text", text) +
                          " --context 64 --baseline --weights nf4 --json")
                          .json();
    EXPECT_GT(json["perplexity"], 1.0);
    EXPECT_EQ(json["tokens"].get<int>(), json["windows"].get<int>() * 31);
    EXPECT_NEAR(json["delta_percent"].get<double>(),
                100 * (json["perplexity"].get<double>() / json["baseline_perplexity"].get<double>() - 1),
                1e-9);
    expect_refusal(zse("perplexity " + tiny() + " --file " + file("short", "the") + " --context 64"), 1,
                   "fewer than a window");
}

TEST_F(Cli, PerplexityMeasuresHowFarAKvPrecisionIsFromHalf) {
    std::string text;
    for (int i = 0; i < 100; ++i) text += "the band and the ring " + std::to_string(i) + "\n";
    const std::string command = "perplexity " + tiny({.heads = 2, .kv_heads = 1, .head_dim = 32}) +
                                " --file " + file("text", text) + " --context 64 --kl --json";
    const auto same = zse(command).json()["kl"];
    EXPECT_EQ(same["mean"], 0.0);
    EXPECT_EQ(same["same_top"], 1.0);
    EXPECT_EQ(same["delta_percent"], 0.0);
    const auto json = zse(command + " --kv-quant int4").json();
    EXPECT_GT(json["kl"]["mean"], 0.0);
    EXPECT_GT(json["kl"]["percentile_99"], json["kl"]["median"]);
    EXPECT_NEAR(json["kl"]["delta_percent"].get<double>(),
                100 * (json["perplexity"].get<double>() / json["kl"]["f16_kv_perplexity"].get<double>() - 1),
                1e-9);
    EXPECT_LT(zse(command + " --kv-quant int8").json()["kl"]["mean"], json["kl"]["mean"]);
}

TEST_F(Cli, BenchmarkPrintsPlainMedians) {
    const auto json =
        zse("benchmark " + tiny() + " --prompt 20 --generation 10 --depth 30 --repetitions 3 -t 1 --json")
            .json();
    EXPECT_GT(json["prompt_tokens_per_second"].get<double>(), 0);
    EXPECT_GT(json["generation_tokens_per_second"].get<double>(), 0);
    EXPECT_EQ(json["generation_tokens_per_second_spread"].size(), 2u);
}

TEST_F(Cli, HardwareIsWhatTheSystemSays) {
    const Outcome outcome = zse("hardware --json");
    ASSERT_EQ(outcome.status, 0) << outcome.errors;
    const auto json = outcome.json();
    const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
    EXPECT_EQ(json["memory"]["total"], pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
    EXPECT_FALSE(json["models"].empty());
    EXPECT_TRUE(!json["gpus"].empty() || !json["gpu_note"].get<std::string>().empty());
    EXPECT_EQ(zse("hardware").status, 0);
}

TEST_F(Cli, BadFilesAreRefusedInOneSentence) {
    const std::string good = tiny();
    const std::string image = support::read_all(good);
    expect_refusal(zse("info " + (directory_ / "none.gguf").string()), 1, "zse: not_found: ");
    expect_refusal(zse("info " + directory_.path().string()), 1, "zse: unreadable: ");
    expect_refusal(zse("run " + file("empty.gguf", "") + " x"), 1, "empty");
    expect_refusal(zse("run " + file("text.gguf", "this is no model at all, only some text") + " x"), 1,
                   "zse: corrupt: ");
    expect_refusal(zse("run " + file("half.gguf", image.substr(0, image.size() / 2)) + " x"), 1,
                   "zse: corrupt: ");
    expect_refusal(zse("plan " + file("head.gguf", image.substr(0, 100))), 1, "zse: corrupt: ");
}

TEST_F(Cli, BadRequestsAreRefused) {
    const std::string model = tiny();
    expect_refusal(zse("run " + model + " --raw --max-tokens 4", "\xc3\x28"), 1, "UTF-8");
    std::string prompt;
    for (int i = 0; i < 200; ++i) prompt += "word ";
    expect_refusal(zse("run " + model + " --raw -c 32", prompt), 1, "context_exceeded");
}

TEST_F(Cli, WrongUsageExitsWithTwo) {
    EXPECT_EQ(zse("").status, 2);
    EXPECT_EQ(zse("sing").status, 2);
    EXPECT_EQ(zse("run").status, 2);
    EXPECT_EQ(zse("run m --no-such-option").status, 2);
    EXPECT_EQ(zse("run m x --kv-quant int3").status, 2);
    EXPECT_EQ(zse("run m x --threads 0").status, 2);
    expect_refusal(zse("run " + tiny() + " x --temperature -1"), 2, "temperature");
    EXPECT_EQ(zse("--help").status, 0);
    EXPECT_EQ(zse("run --help").status, 0);
    EXPECT_EQ(zse("--version").out, "0.1.0\n");
}

}  // namespace
