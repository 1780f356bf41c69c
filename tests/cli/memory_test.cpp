// SPDX-License-Identifier: Apache-2.0
// The demo model with its context full: planned equals held, nearly all of it is used, and the process grows by no
// more than the plan.
// rows: 5 12 36 63
// labels: slow
// timeout: 600
#include <gtest/gtest.h>
#include <support/command.hpp>
#include <support/smollm2.hpp>

namespace {

class Settings : public testing::TestWithParam<const char*> {};

TEST_P(Settings, HoldWhatTheyPlanAndUseIt) {
    const auto json = support::run_command(ZSE_CLI,
                                           "benchmark '" + support::smollm2_path().string() +
                                               "' --metric memory --json -t 2 --generation 32 " + GetParam(),
                                           "")
                          .json();
    ASSERT_GE(json["memory"].size(), 8u);
    double planned = 0;
    for (const auto& row : json["memory"]) {
        SCOPED_TRACE(row.dump());
        planned += row["planned"].get<double>();
        EXPECT_EQ(row["planned"], row["held"]);
        if (row["kind"] == "rounding") continue;
        EXPECT_LE(row["peak"], row["planned"]);
        EXPECT_GE(row["peak"].get<double>(), 0.95 * row["planned"].get<double>());
    }
    EXPECT_EQ(planned, json["planned_total"].get<double>());
    // The program itself grows by a few pages of code and libraries that it had not touched before.
    const double most = 1.02 * planned + 4 * 1024 * 1024;
    EXPECT_LE(json["resident"]["growth_after_open"].get<double>(), most);
    EXPECT_LE(json["resident"]["growth_after_load"].get<double>(), most);
    // A load that leaves most of the plan untouched would prove nothing.
    EXPECT_GE(json["resident"]["growth_after_load"].get<double>(), 0.9 * planned);
}

INSTANTIATE_TEST_SUITE_P(SmolLm2, Settings,
                         testing::Values("-c 2048", "-c 1024 --max-batch 4 --step-tokens 128",
                                         "-c 2560 --kv-quant int8", "-c 2560 --kv-quant int4 --block-size 32",
                                         "-c 1500 --weights nf4 -ctk int8 -ctv int4 --block-size 8",
                                         "-c 600 --max-batch 3 --weights int8 --block-size 1",
                                         "-c 3000 --kv-old int4 --max-batch 2",
                                         "-c 2048 --gpu-mem 64MB --host-mem 1GB"));

}  // namespace
