// SPDX-License-Identifier: Apache-2.0
// zse plan as a user types it: files, names and shapes, budgets, answers, advice; and run, which refuses what does not fit.
// rows: 1 2 3 5 6 7 8 9 10 13 14 17 31 35 46 63 87 89
// timeout: 300
#include <gtest/gtest.h>
#include <support/command.hpp>
#include <support/tiny_model.hpp>

#include <fstream>

namespace {

using nlohmann::json;
using support::Outcome;
using support::TinySpec;

Outcome zse(const std::string& arguments) {
    return support::run_command(ZSE_CLI, arguments);
}
json plan(const std::string& arguments) {
    const Outcome outcome = zse("plan -t 1 --json " + arguments);
    EXPECT_LE(outcome.status, 1) << outcome.errors;
    return outcome.json();
}

class Plan : public testing::Test {
protected:
    std::string tiny(const TinySpec& spec = {}) { return write_tiny_model(directory_.path(), spec).string(); }
    support::TemporaryDirectory directory_;
};

void expect_refusal(const Outcome& outcome, int status, std::initializer_list<const char*> words) {
    EXPECT_EQ(outcome.status, status) << outcome.errors;
    EXPECT_EQ(outcome.out, "");
    for (const char* word : words)
        EXPECT_NE(outcome.errors.find(word), std::string::npos) << word << ": " << outcome.errors;
}

// Row 1: the seed's examples to the byte, beside what 4 bits really hold.
TEST_F(Plan, NominalWeightsOfParametersAndBits) {
    EXPECT_EQ(plan("--params 7B --bits 4")["nominal_weights"], 3'500'000'000u);
    EXPECT_EQ(plan("--params 14B --bits 4")["nominal_weights"], 7'000'000'000u);
    EXPECT_EQ(plan("--params 70B --bits 4")["nominal_weights"], 35'000'000'000u);
    EXPECT_EQ(plan("--params 70B --bits 4")["tiers"]["host"]["weights"].get<double>() * 8 /
                  plan("--params 70B --bits 4")["parameters"].get<double>(),
              plan("--params 70B --bits 4")["bits_per_weight"].get<double>());
}

// Rows 2 and 3: the seed's example, for a shape with a key head for each head, and for grouped ones.
TEST_F(Plan, KvOfAShape) {
    const std::string shape = "--params 7B --layers 32 --hidden 4096 -c 8192 ";
    EXPECT_EQ(plan(shape)["kv_bytes"], 4'294'967'296u);
    EXPECT_EQ(plan(shape + "--kv-heads 8")["kv_bytes"], 4'294'967'296u / 4);
    for (int batch = 1; batch <= 8; ++batch) {
        const json out = plan(shape + "--max-batch " + std::to_string(batch));
        EXPECT_EQ(out["kv_bytes"], batch * 4'294'967'296u);
        EXPECT_EQ(out["kv_bytes_per_sequence"], 4'294'967'296u);
        EXPECT_EQ(out["kv_bytes_per_token"], 524'288u);
    }
    const Outcome words = zse("plan " + shape);
    EXPECT_NE(words.out.find("4.29 GB (4.00 GiB) a sequence of 8192"), std::string::npos) << words.out;
    EXPECT_NE(words.out.find("assumed: 32 key heads"), std::string::npos);
}

// Row 9: what a name plans is what the sizes plan.
TEST_F(Plan, ANameIsItsShape) {
    json named = plan("Llama3-8B --weights int8 -c 4096 --host-mem 20GB");
    json sizes = plan(
        "--layers 32 --hidden 4096 --heads 32 --kv-heads 8 --head-dim 128 --feed-forward 14336 --vocab "
        "128256 "
        "--trained-context 8192 --bits 8 -c 4096 --host-mem 20GB");
    EXPECT_EQ(named["models"][0]["parameters"], 8'030'261'248u);
    EXPECT_TRUE(sizes["models"][0]["assumed"].empty());
    for (json* out : {&named, &sizes}) out->erase("models");
    EXPECT_EQ(named, sizes);
    EXPECT_EQ(plan("-m meta-llama/Meta-Llama-3-8B-Instruct")["models"][0]["name"], "Llama-3-8B");
    expect_refusal(zse("plan lama3-8b"), 1, {"not_found", "did you mean Llama-3-8B?"});
    expect_refusal(zse("plan"), 2, {"nothing to plan", "--params"});
    expect_refusal(zse("plan --params seven"), 2, {"'seven' is no count"});
    expect_refusal(zse("plan --layers 3"), 2, {"--params"});
    expect_refusal(zse("plan llama3-8b --bits 4 --weights f16"), 2, {"--bits 4", "--weights f16"});
    EXPECT_GE(json::parse(zse("plan --models --json").out).size(), 20u);
}

TEST_F(Plan, SeveralModelsAndAdaptersAddUp) {
    const std::string model = tiny();
    const auto total = [&](const std::string& more) {
        return plan("-c 64 " + more)["total"].get<std::uint64_t>();
    };
    EXPECT_EQ(total(model + " --and smollm2-135m"), total(model) + total("smollm2-135m"));
    EXPECT_EQ(total(model + " smollm2-135m"), total(model + " --and smollm2-135m"));
    EXPECT_EQ(total("-m smollm2-135m -m smollm2-135m"), 2 * total("smollm2-135m"));
    const json adapted = plan("llama2-7b -c 64 --adapters 2 --adapter-rank 16");
    EXPECT_EQ(adapted["adapters"]["bytes"], 2u * 2 * 39'976'960);
    EXPECT_EQ(adapted["tiers"]["host"]["weights"].get<std::uint64_t>() -
                  plan("llama2-7b -c 64")["tiers"]["host"]["weights"].get<std::uint64_t>(),
              adapted["adapters"]["bytes"]);
}

// Rows 6 and 7: parts and columns add up.
TEST_F(Plan, PartsAndColumnsAddUpToTheTotal) {
    const json out = plan(tiny() + " -c 64");
    std::uint64_t parts = 0;
    double shares = 0;
    for (const auto& [name, part] : out["parts"].items()) {
        parts += part["bytes"].get<std::uint64_t>();
        shares += part["percent"].get<double>();
    }
    EXPECT_EQ(parts, out["total"]);
    EXPECT_NEAR(shares, 100, 1e-9);
    EXPECT_EQ(out["static"]["host"].get<std::uint64_t>() + out["dynamic"]["host"].get<std::uint64_t>(),
              out["total"]);
    EXPECT_EQ(out["driver"], 0);
    EXPECT_FALSE(out["warnings"].empty()) << "a tiny model's shares leave their range";
}

// Row 8: KV is linear in the context, weights stay.
TEST_F(Plan, ASweepOverContexts) {
    const json rows = plan("llama3.1-8b --sweep 4K..128K --host-mem 30GB")["sweep"];
    ASSERT_EQ(rows.size(), 6u);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        EXPECT_EQ(rows[i]["context"], 4096u << i);
        EXPECT_EQ(rows[i]["kv"], rows[0]["kv"].get<std::uint64_t>() << i);
        EXPECT_EQ(rows[i]["weights"], rows[0]["weights"]);
    }
    EXPECT_EQ(plan("llama3-8b --sweep 1000,3000")["sweep"][1]["context"], 3000);
    EXPECT_EQ(zse("plan llama3-8b --sweep 8K..4K").status, 2);
    EXPECT_EQ(zse("plan llama3-8b --sweep many").status, 2);
}

// Each answer fits its budget and the next does not.
TEST_F(Plan, AnswersFitAndTheNextDoNot) {
    const std::string model = tiny();
    const std::string budget = " --host-mem 1500KB ";
    const auto answer = [&](const std::string& what, const std::string& more) {
        return json::parse(zse("plan " + model + budget + more + " -t 1 --json --solve " + what).out)[what];
    };
    const auto fits = [&](const std::string& more) {
        return plan(model + budget + more)["fits"].get<bool>();
    };
    const int batch = answer("batch", "-c 64");
    ASSERT_GT(batch, 1);
    EXPECT_TRUE(fits("-c 64 --max-batch " + std::to_string(batch)));
    EXPECT_FALSE(fits("-c 64 --max-batch " + std::to_string(batch + 1)));
    const int context = answer("context", "--max-batch 12");
    ASSERT_GT(context, 1);
    EXPECT_TRUE(fits("--max-batch 12 -c " + std::to_string(context)));
    EXPECT_FALSE(fits("--max-batch 12 -c " + std::to_string(context + 1)));
    EXPECT_EQ(zse("plan llama3-8b --solve weights --host-mem 10GB -c 2048").out, "int8\n");
    EXPECT_EQ(zse("plan llama3-8b --solve weights --host-mem 1GB -c 2048").status, 1);
    const auto layers = json::parse(
        zse("plan llama3-8b --bits 4 -c 8192 -t 1 --gpu-mem 3GB --host-mem 10GB --solve layers --json").out);
    const int most = layers["layers"];
    const auto with = [&](int count) {
        return plan("llama3-8b --bits 4 -c 8192 --gpu-mem 3GB --host-mem 10GB --gpu-layers " +
                    std::to_string(count));
    };
    EXPECT_TRUE(with(most)["fits"]);
    EXPECT_FALSE(with(most + 1)["fits"]);
    expect_refusal(zse("plan llama3-8b --solve layers"), 2, {"--gpu-mem"});
}

// Row 14: 81 % of the memory is refused with a fifth of headroom, 79 % accepted; without headroom both fit.
TEST_F(Plan, HeadroomDecides) {
    const std::string model = tiny() + " -c 64 ";
    const double total = plan(model)["total"];
    const auto fits = [&](double share, const std::string& headroom) {
        const auto memory = static_cast<std::uint64_t>(total / share);
        return zse("plan -t 1 " + model + "--host-mem " + std::to_string(memory) + headroom).status == 0;
    };
    EXPECT_TRUE(fits(0.79, " --headroom 0.2"));
    EXPECT_FALSE(fits(0.81, " --headroom 0.2"));
    EXPECT_TRUE(fits(0.81, " --headroom 0"));
    EXPECT_FALSE(fits(0.91, " --gpu-memory-utilization 0.9"));
    EXPECT_TRUE(fits(0.89, " --gpu-memory-utilization 0.9"));
    EXPECT_EQ(plan(model)["budget"]["host"]["headroom"], 0.2) << "of measured memory";
    EXPECT_EQ(plan(model + "--host-mem 1GB")["budget"]["host"]["headroom"], 0.0) << "a stated size is filled";
    expect_refusal(zse("plan " + model + "--headroom 0.2 --gpu-memory-utilization 0.9"), 2,
                   {"--headroom 0.2", "--gpu-memory-utilization 0.9"});
    expect_refusal(zse("plan " + model + "--host-mem 10XB"), 2, {"'10XB' is no size", "GiB"});
    expect_refusal(zse("plan " + model + "--host-mem -1"), 2, {"no size"});
    expect_refusal(zse("plan " + model + "--host-mem 1GB --reserve 2GB"), 2, {"--reserve"});
}

// Row 5: the system's part is taken off once.
TEST_F(Plan, AReserveIsTakenOffTheFirstTier) {
    const json budget = plan("llama3-8b --bits 4 -c 64 --host-mem 10GB --reserve 4GB")["budget"];
    EXPECT_EQ(budget["host"]["cap"], 6'000'000'000u);
    const json card = plan("llama3-8b --bits 4 -c 64 --gpu-mem 10GB --host-mem 10GB --reserve 4GB")["budget"];
    EXPECT_EQ(card["gpu"]["cap"], 6'000'000'000u);
    EXPECT_EQ(card["host"]["cap"], 10'000'000'000u);
}

// Row 13.
TEST_F(Plan, LittleRoomForKvIsAWarning) {
    const auto warns = [&](const std::string& memory) {
        const json out = plan("llama3-8b --bits 4 -c 512 --host-mem " + memory);
        return out["budget"]["warnings"].dump().find("is left for KV") != std::string::npos;
    };
    EXPECT_TRUE(warns("6.5GB"));
    EXPECT_FALSE(warns("8.5GB"));
}

// Row 31: the real factor is printed.
TEST_F(Plan, TheGainOfCoarserKvIsPrinted) {
    EXPECT_DOUBLE_EQ(plan("llama3-8b --kv-quant int4")["context_gain"].get<double>(), 32.0 / 9);
    EXPECT_NE(zse("plan llama3-8b --kv-quant int4").out.find("3.56 times"), std::string::npos);
    const std::string narrow = plan("smollm2-135m --kv-quant int4 -c 512")["warnings"].dump();
    EXPECT_NE(narrow.find("keys in 4 bits"), std::string::npos);
    EXPECT_NE(narrow.find("64 values"), std::string::npos);
    EXPECT_EQ(plan("smollm2-135m --kv-quant int8 -c 512")["warnings"].dump().find("keys in 4 bits"),
              std::string::npos);
}

// Row 35: the pool takes what the cap leaves.
TEST_F(Plan, APoolOfStatedOrOfAllTheRest) {
    const std::string model = "llama3-8b --weights int8 -c 4096 --max-batch 16 --host-mem 12GB ";
    const json rest = plan(model + "--gpu-memory-utilization 0.9 --kv-cache-memory auto");
    EXPECT_TRUE(rest["fits"]);
    const std::uint64_t page = rest["kv_page_bytes"];
    EXPECT_LE(rest["total"], 10'800'000'000u);
    EXPECT_GT(rest["total"].get<std::uint64_t>() + page + (2u << 20), 10'800'000'000u);
    const json stated = plan(model + "--kv-cache-memory 1GB");
    EXPECT_LE(stated["kv_bytes"], 1'000'000'000u);
    EXPECT_GT(stated["kv_bytes"].get<std::uint64_t>() + page, 1'000'000'000u);
    expect_refusal(zse("plan " + model + "--kv-cache-memory 13GB"), 2, {"--kv-cache-memory", "--host-mem"});
    expect_refusal(zse("plan " + model + "--kv-cache-memory 1MB"), 2, {"one sequence of 4096"});
}

// Row 46: the split by count, and what contradicts it.
TEST_F(Plan, LayersInTheGpuTier) {
    const std::string model = tiny() + " -c 64 --gpu-mem 10MB --host-mem 10MB ";
    EXPECT_EQ(plan(model + "-ngl 1")["gpu_layers"], 1);
    EXPECT_EQ(plan(model + "--n-gpu-layers 2"), plan(model + "--gpu-layers 2"));
    EXPECT_EQ(plan(model + "-ngl 99"), plan(model + "--gpu-layers all"));
    EXPECT_EQ(plan(model), plan(model + "--gpu-layers auto")) << "as many as fit, unless stated";
    EXPECT_NE(zse("plan " + model + "-ngl 99").errors.find("note: --gpu-layers 99"), std::string::npos);
    expect_refusal(zse("plan " + tiny() + " -ngl 5"), 2, {"needs memory in the gpu tier", "--gpu-mem"});
    expect_refusal(zse("plan " + model + "-ngl many"), 2, {"--gpu-layers"});
    // Row 17: one memory is counted once.
    const std::string shared = "smollm2-135m --weights f16 -c 64 --gpu-mem 200MB --host-mem 200MB ";
    EXPECT_TRUE(plan(shared)["fits"]);
    EXPECT_FALSE(plan(shared + "--unified")["fits"]);
}

// Rows 87 and 89: a plan that does not fit says what would, and taking the first sufficient step makes it fit.
TEST_F(Plan, WhatDoesNotFitComesWithSteps) {
    const std::string model = "smollm2-135m -t 1 ";
    const auto cured = [&](const std::string& options, const char* shortage) {
        const Outcome outcome = zse("plan --json " + model + options);
        EXPECT_EQ(outcome.status, 1);
        const json advice = outcome.json()["budget"]["advice"];
        EXPECT_EQ(advice["shortage"], shortage) << options;
        for (const json& step : advice["steps"]) {
            if (!step["enough"].get<bool>() || step["lever"] == "model") continue;
            // What is said last counts, so that a step is added at the end of the command.
            const Outcome taken =
                zse("plan --json " + model + options + " " + step["option"].get<std::string>());
            EXPECT_EQ(taken.status, 0) << step["option"] << taken.errors;
            return step["lever"].get<std::string>();
        }
        return std::string("none");
    };
    EXPECT_EQ(cured("-c 8192 --max-batch 8 --step-tokens 64 --host-mem 900MB", "kv"), "context");
    EXPECT_EQ(cured("-c 64 --step-tokens 8192 --host-mem 330MB", "activations"), "step_tokens");
    EXPECT_EQ(cured("-c 512 --host-mem 200MB", "weights"), "weights");
    const Outcome words = zse("plan " + model + "-c 8192 --max-batch 8 --step-tokens 64 --host-mem 900MB");
    EXPECT_NE(words.out.find("KV is short: raise"), std::string::npos) << words.out;
    EXPECT_NE(words.out.find("enough"), std::string::npos);
}

TEST_F(Plan, RunRefusesWhatDoesNotFitAndNamesTheSteps) {
    const std::string model = tiny();
    const std::string run = "run " + model + " 'the band' --raw --max-tokens 3 -t 1 ";
    EXPECT_EQ(zse(run + "-c 256 --max-batch 4 --host-mem 3MB").status, 0);
    const Outcome refused = zse(run + "-c 256 --max-batch 4 --step-tokens 16 --host-mem 700KB");
    expect_refusal(refused, 1, {"zse: out_of_memory: ", "bytes too many", "KV is short", "  1. --", "saves"});
    EXPECT_EQ(zse(run + "--host-mem 1200KB").status, 0) << "an open context takes what there is";
    expect_refusal(zse(run + "--host-mem 1KB"), 1, {"out_of_memory"});
    expect_refusal(zse(run + "-ngl 2"), 2, {"--gpu-mem"});
    EXPECT_EQ(
        zse("benchmark " + model + " --prompt 8 --generation 4 --repetitions 1 -t 1 --host-mem 3MB --json")
            .status,
        0);
}

// What is planned in the gpu tier is held there, and the answer is the same.
TEST_F(Plan, RunHoldsTheSplitThatWasPlanned) {
    const std::string options = tiny() + " -c 64 ";
    const std::string run = "run -t 1 " + options + "'the band' --raw --max-tokens 6 --json ";
    const json all = zse(run).json();
    const std::string tiers = "--gpu-mem 1MB --host-mem 2MB -ngl 1 ";
    const json split = zse(run + tiers).json();
    EXPECT_EQ(split["tokens"], all["tokens"]);
    EXPECT_EQ(split["held"], split["planned"]);
    ASSERT_TRUE(split["held"].contains("gpu"));
    EXPECT_EQ(split["planned"]["gpu"], plan(options + tiers)["tiers"]["gpu"]);
}

}  // namespace
