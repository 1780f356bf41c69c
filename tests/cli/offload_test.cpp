// SPDX-License-Identifier: Apache-2.0
// Layers outside of the fast tier as a user asks for them: by number, by bytes, or without numbers; what is said about
// them, and what is refused.
// rows: 44 45 46 47 49 50 51 52 54 56
// timeout: 300
#include <gtest/gtest.h>
#include <support/command.hpp>
#include <support/smollm2.hpp>
#include <support/tiny_model.hpp>

namespace {

using nlohmann::json;
using support::Outcome;

Outcome zse(const std::string& arguments) {
    return support::run_command(ZSE_CLI, arguments);
}
json plan(const std::string& arguments) {
    const Outcome outcome = zse("plan -t 1 --json " + arguments);
    EXPECT_LE(outcome.status, 1) << outcome.errors;
    return outcome.json();
}
bool has(const std::string& text, const char* word) {
    return text.find(word) != std::string::npos;
}
void expect_refusal(const Outcome& outcome, int status, std::initializer_list<const char*> words) {
    EXPECT_EQ(outcome.status, status) << outcome.errors;
    for (const char* word : words) EXPECT_TRUE(has(outcome.errors, word)) << word << ": " << outcome.errors;
}

class Offload : public testing::Test {
protected:
    std::string tiny() { return support::write_tiny_model(directory_.path(), {.layers = 8}).string(); }
    support::TemporaryDirectory directory_;
};

// Rows 44 and 46: two ways to say one thing.
TEST_F(Offload, LayersOutsideAreTheComplementOfLayersInside) {
    const std::string model = "smollm2-135m -c 512 --gpu-mem 1GB --host-mem 1GB ";
    for (const int inside : {0, 1, 12, 30}) {
        const auto by_inside = plan(model + "-ngl " + std::to_string(inside));
        auto by_outside = plan(model + "--offload-layers " + std::to_string(30 - inside));
        EXPECT_EQ(by_inside["gpu_layers"], inside);
        EXPECT_EQ(by_inside["tiers"], by_outside["tiers"]) << inside;
        EXPECT_EQ(by_inside["map"], by_outside["map"]);
    }
    EXPECT_EQ(plan(model + "--offload-layers 99")["gpu_layers"], 0);
    EXPECT_TRUE(has(zse("plan " + model + "--offload-layers 99").errors, "note: --offload-layers 99"));
    EXPECT_TRUE(has(zse("plan " + model + "-ngl 99").errors, "note: --gpu-layers 99"));
    EXPECT_EQ(plan(model + "-ngl 20 --offload-layers 10")["gpu_layers"], 20);
    expect_refusal(zse("plan " + model + "-ngl 20 --offload-layers 11"), 2, {"-layers 20", "-layers 11"});
    expect_refusal(zse("plan " + model + "-ngl 20 --offload-layers auto"), 2, {"--offload-layers auto"});
    expect_refusal(zse("plan " + model + "--offload-layers many"), 2, {"--offload-layers"});
}

// Row 45: the fewest that fit, and none where all do.
TEST_F(Offload, AutoTakesAsFewAsFit) {
    const std::string model = "llama3-8b --bits 4 -c 2048 --host-mem 20GB ";
    for (const char* gpu : {"1GB", "3GB", "5GB", "7GB"}) {
        const std::string tiers = model + "--gpu-mem " + gpu + " ";
        const json chosen = plan(tiers + "--offload auto");
        const int inside = chosen["gpu_layers"];
        EXPECT_TRUE(chosen["fits"]);
        if (inside < 32) {
            EXPECT_FALSE(plan(tiers + "-ngl " + std::to_string(inside + 1))["fits"]) << gpu;
        }
    }
    EXPECT_EQ(plan(model + "--gpu-mem 7GB --offload auto")["gpu_layers"], 32);
    EXPECT_EQ(plan("llama3-8b --bits 4 -c 2048 --host-mem 20GB --offload auto")["disk_layers"], 0);
    const json streamed = plan("llama3-8b --bits 4 -c 2048 --host-mem 3GB --disk-mem 20GB --offload auto");
    EXPECT_TRUE(streamed["fits"]);
    EXPECT_GT(streamed["disk_layers"], 0);
    EXPECT_GT(streamed["tiers"]["disk"]["weights"], 1'000'000'000u);
}

TEST_F(Offload, AStatedSizeOfWeightsIsKept) {
    const std::string model = "smollm2-135m --weights int8 -c 512 --host-mem 1GB ";
    const json all = plan(model);
    EXPECT_FALSE(all["tiers"].contains("disk"));
    const json some = plan(model + "--weights-mem 100MB");
    EXPECT_GT(some["disk_layers"], 0);
    EXPECT_LE(some["tiers"]["host"]["weights"].get<int>() + some["tiers"]["host"]["staging"].get<int>(),
              100'000'000);
    EXPECT_TRUE(has(some["warnings"].dump(), "weights on disk"));
    const json most = plan(model + "--weights-mem 10MB");
    EXPECT_EQ(most["map"], "layers 0-29 disk, output disk");
    EXPECT_LE(most["tiers"]["host"]["weights"].get<int>() + most["tiers"]["host"]["staging"].get<int>(),
              10'000'000);
    expect_refusal(zse("plan " + model + "--weights-mem 1MB"), 2, {"--weights-mem 1000000", "the least is"});
    expect_refusal(zse("plan " + model + "--weights-mem 100MB --disk-mem 1MB"), 1, {});
    EXPECT_EQ(plan(model + "--weights-mem 1GB")["tiers"], all["tiers"]) << "more than there is";
}

// Row 54.
TEST_F(Offload, ADeviceMapIsContiguousAndPrinted) {
    const json map =
        plan("llama3-8b --bits 4 -c 2048 --gpu-mem 2GB --host-mem 2GB --disk-mem 10GB --device-map auto");
    EXPECT_TRUE(map["fits"]);
    const int gpu = map["gpu_layers"];
    const int disk = map["disk_layers"];
    EXPECT_GT(gpu, 0);
    EXPECT_GT(disk, 0);
    EXPECT_EQ(map["map"], "layers 0-" + std::to_string(disk - 1) + " disk, " + std::to_string(disk) + "-" +
                              std::to_string(31 - gpu) + " host, " + std::to_string(32 - gpu) +
                              "-31 gpu, output gpu");
    const Outcome run = zse("run " + tiny() + " hello --max-tokens 3 -c 64 --raw --device-map auto");
    EXPECT_EQ(run.status, 0) << run.errors;
    EXPECT_TRUE(has(run.errors, "device map: layers 0-7 host, output host")) << run.errors;
}

// Row 51: a warning with the speed to be expected, once, and only where something is streamed.
TEST_F(Offload, StreamingIsWarnedOfOnce) {
    const std::string run = "run " + tiny() + " hello --max-tokens 5 -c 64 --raw --json ";
    const Outcome plain = zse(run);
    const Outcome streamed = zse(run + "--offload-layers 6 --disk-dir " + directory_.path().string());
    ASSERT_EQ(streamed.status, 0) << streamed.errors;
    EXPECT_EQ(streamed.json()["tokens"], plain.json()["tokens"]);
    EXPECT_FALSE(has(plain.errors, "streamed"));
    const auto first = streamed.errors.find("warning: 6 of 8 layers are streamed from disk");
    ASSERT_NE(first, std::string::npos) << streamed.errors;
    EXPECT_TRUE(has(streamed.errors, "tokens/s at most"));
    EXPECT_EQ(streamed.errors.find("streamed from disk", first + 50), std::string::npos);
    EXPECT_EQ(plain.json()["streamed"]["images"], 0);
    EXPECT_GE(streamed.json()["streamed"]["images"], 5 * 6);
    EXPECT_EQ(streamed.json()["planned"], streamed.json()["held"]);
    expect_refusal(zse(run + "--offload-layers 6 --disk-dir /no/such/directory"), 2, {"/no/such/directory"});
}

// Row 52.
TEST_F(Offload, AnInteractiveObjectiveRefusesAndNamesWhatFits) {
    const std::string model = "llama3-8b --weights f16 -c 2048 --host-mem 12GB --device-map auto ";
    const std::string disk = model + "--disk-mem 40GB ";
    EXPECT_GT(plan(disk + "--slo batch")["disk_layers"], 0);
    expect_refusal(zse("plan " + disk + "--slo interactive"), 1, {"--slo", "--weights int8", "batch"});
    const std::string gpu = "llama3-8b --weights f16 -c 2048 --gpu-mem 8GB --host-mem 40GB ";
    expect_refusal(zse("plan " + gpu + "--slo interactive"), 1, {"gpu tier", "--weights nf4"});
    EXPECT_EQ(zse("plan " + gpu + "--slo batch").status, 0);
    EXPECT_EQ(
        zse("plan llama3-8b --weights nf4 -c 2048 --gpu-mem 8GB --host-mem 40GB --slo interactive").status,
        0);
    expect_refusal(zse("run " + tiny() + " hello -c 64 --offload-layers 6 --slo interactive"), 1,
                   {"leave --offload-layers out"});
}

// Row 47: with room for two more layers, so many are named.
TEST_F(Offload, RoomInTheGpuTierIsHintedAt) {
    const std::string model = tiny() + " hello -c 64 --raw --max-tokens 2 --host-mem 100MB --gpu-mem 100MB ";
    EXPECT_TRUE(
        has(zse("run " + model + "-ngl 6").errors, "hint: room for 2 more layers in the gpu tier (-ngl 8)"));
    EXPECT_FALSE(has(zse("run " + model).errors, "hint:"));
    EXPECT_FALSE(has(zse("run " + model + "-ngl 8").errors, "hint:"));
}

// Row 50: five rows, measured beside what other tables state.
TEST_F(Offload, ASweepMeasuresWhatStreamingCosts) {
    const Outcome outcome = zse("benchmark '" + support::smollm2_path().string() +
                                "' --offload-sweep --generation 6 --repetitions 2 --json -t 1");
    ASSERT_EQ(outcome.status, 0) << outcome.errors;
    const json rows = outcome.json()["offload_sweep"];
    ASSERT_EQ(rows.size(), 5u);
    const double stated[] = {1.0, 0.6, 0.4, 0.2, 0.1};
    double streamed = -1;
    for (std::size_t i = 0; i < 5; ++i) {
        EXPECT_EQ(rows[i]["percent"], 100 - 25 * static_cast<int>(i));
        EXPECT_EQ(rows[i]["stated"], stated[i]);
        EXPECT_GT(rows[i]["tokens_per_second"], 0.0);
        EXPECT_GT(rows[i]["streamed_bytes"].get<double>(), streamed);
        streamed = rows[i]["streamed_bytes"];
    }
    EXPECT_EQ(rows[0]["share"], 1.0);
    EXPECT_LT(rows[4]["share"], 1.0);
}

// Row 49: more weights than memory for them, and the same answer.
TEST_F(Offload, TheDemoModelAnswersAlikeInFewMegabytes) {
    const std::string run = "run '" + support::smollm2_path().string() +
                            "' 'Why is the sky blue?' --max-tokens 12 -c 512 --json ";
    const json whole = zse(run).json();
    for (const int megabytes : {40, 6}) {
        const Outcome outcome = zse(run + "--weights-mem " + std::to_string(megabytes) + "MB");
        ASSERT_EQ(outcome.status, 0) << outcome.errors;
        const json streamed = outcome.json();
        EXPECT_EQ(streamed["tokens"], whole["tokens"]);
        EXPECT_EQ(streamed["planned"], streamed["held"]);
        const json& host = streamed["held"]["host"];
        EXPECT_LE(host["weights"].get<int>() + host["staging"].get<int>(), megabytes * 1'000'000);
        EXPECT_GT(streamed["streamed"]["bytes"], 12 * 40'000'000);
        EXPECT_EQ(streamed["streamed"]["rows"] != 0, megabytes == 6) << "the embedding goes last";
    }
}

}  // namespace
