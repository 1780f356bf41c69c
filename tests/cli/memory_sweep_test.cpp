// SPDX-License-Identifier: Apache-2.0
// Memory over contexts and batches: planned, held, peak and steady bytes by kind, the same whenever they are measured.
// rows: 108
// labels: slow
// timeout: 300
#include <gtest/gtest.h>
#include <support/command.hpp>
#include <support/smollm2.hpp>

namespace {

using nlohmann::json;

json sweep(const std::string& options) {
    const auto outcome =
        support::run_command(ZSE_CLI, "benchmark '" + support::smollm2_path().string() +
                                          "' --metric memory --json -t 2 --generation 16 " + options);
    EXPECT_EQ(outcome.status, 0) << outcome.errors;
    return outcome.json()["memory_sweep"];
}

TEST(MemorySweep, FiguresOfEveryRunAreThoseOfTheLedger) {
    const std::string options = "--contexts 256,512 --batches 1,3";
    json first = sweep(options);
    json second = sweep(options);
    ASSERT_EQ(first.size(), 4u);
    const int contexts[] = {256, 256, 512, 512};
    const int batches[] = {1, 3, 1, 3};
    for (std::size_t i = 0; i < first.size(); ++i) {
        EXPECT_EQ(first[i]["context"], contexts[i]);
        EXPECT_EQ(first[i]["batch"], batches[i]);
        for (const json& row : first[i]["memory"]) {
            SCOPED_TRACE(row.dump());
            EXPECT_EQ(row["planned"], row["held"]);
            EXPECT_LE(row["peak"], row["planned"]);
            EXPECT_LE(row["steady"], row["peak"]);
            if (row["kind"] == "kv") {
                EXPECT_EQ(row["steady"], 0) << "nothing runs any more";
                EXPECT_EQ(row["peak"], row["planned"]);
            }
            if (row["kind"] == "weights") {
                EXPECT_EQ(row["steady"], row["planned"]);
            }
        }
        EXPECT_EQ(first[i]["planned"], first[i]["held"]);
        // What the process grew by is what was in use, and no more than a tenth beside the plan.
        const double planned = first[i]["planned"];
        EXPECT_LE(first[i]["resident_growth"].get<double>(), 1.1 * planned);
        EXPECT_GE(first[i]["resident_growth"].get<double>(), 0.9 * first[i]["peak"].get<double>());
        first[i].erase("resident_growth");
        second[i].erase("resident_growth");
        EXPECT_EQ(first[i], second[i]) << "two runs";
    }
}

TEST(MemorySweep, StreamedWeightsAreCountedInBothTiers) {
    for (const json& run : sweep("-c 256 --batches 1,2 --weights-mem 40MB")) {
        bool disk = false;
        for (const json& row : run["memory"]) {
            EXPECT_EQ(row["planned"], row["held"]);
            disk = disk || (row["tier"] == "disk" && row["kind"] == "weights" && row["held"] > 50'000'000);
        }
        EXPECT_TRUE(disk);
    }
}

}  // namespace
