// SPDX-License-Identifier: Apache-2.0
// zse doctor on stored machines and on this one, and what run does where a limit of the system is in its way.
// rows: 92 93 94 95 96 97 98
// timeout: 300
#include <gtest/gtest.h>
#include <support/command.hpp>
#include <support/tiny_model.hpp>

#include <nlohmann/json.hpp>

#include <map>
#include <set>

namespace {

using support::Outcome;

Outcome zse(const std::string& arguments) {
    return support::run_command(ZSE_CLI, arguments);
}

const std::string machines = "tests/data/system/";

std::map<std::string, nlohmann::json> rows(const std::string& arguments) {
    const Outcome outcome = zse("doctor --json " + arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.errors;
    std::map<std::string, nlohmann::json> named;
    const auto json = outcome.json();
    for (const auto& row : json["rows"]) named[row["name"]] = row;
    return named;
}

/// Words of a shell, such as a limit, before the program.
Outcome limited(const std::string& limit, const std::string& arguments) {
    return support::run_command("sh", "-c '" + limit + "; exec \"$0\" \"$@\"' '" ZSE_CLI "' " + arguments);
}

class Doctor : public testing::Test {
protected:
    std::string model() { return support::write_tiny_model(directory_.path(), {}).string(); }
    support::TemporaryDirectory directory_;
};

TEST_F(Doctor, JsonOfAStrainedMachine) {
    const Outcome outcome = zse("doctor --json --root " + machines + "strained --pid 4711");
    ASSERT_EQ(outcome.status, 0) << outcome.errors;
    const auto json = outcome.json();
    EXPECT_EQ(json["verdict"], "warning");
    std::map<std::string, std::string> verdicts;
    for (const auto& row : json["rows"]) {
        EXPECT_EQ(row.size(), 5u) << row;
        EXPECT_EQ(row["advice"].get<std::string>().empty(), row["verdict"] == "ok") << row;
        verdicts[row["name"]] = row["verdict"];
    }
    EXPECT_EQ(verdicts, (std::map<std::string, std::string>{{"memory", "ok"},
                                                            {"swap", "advice"},
                                                            {"transparent huge pages", "advice"},
                                                            {"explicit huge pages", "ok"},
                                                            {"overcommit", "ok"},
                                                            {"kernel log", "warning"},
                                                            {"kills in the group", "warning"},
                                                            {"pressure", "warning"},
                                                            {"pressure of the group", "advice"},
                                                            {"container limit", "warning"},
                                                            {"address space", "warning"},
                                                            {"data segment", "ok"},
                                                            {"locked memory", "ok"},
                                                            {"thrashing", "warning"}}));
    const auto row = rows("--root " + machines + "strained --pid 4711");
    EXPECT_EQ(row.at("swap")["figures"]["swappiness"], 60);
    EXPECT_EQ(row.at("pressure")["figures"]["some_avg10"], 42.5);
    EXPECT_EQ(row.at("container limit")["figures"]["limit"], 268435456);
    EXPECT_EQ(row.at("thrashing")["figures"]["major_faults_per_second"], 150);
}

TEST_F(Doctor, AMachineThatIsFineGetsNoAdvice) {
    const Outcome outcome = zse("doctor --root " + machines + "normal");
    EXPECT_EQ(outcome.status, 0) << outcome.errors;
    EXPECT_EQ(outcome.out.find("->"), std::string::npos) << outcome.out;
    EXPECT_NE(zse("doctor --root " + machines + "strained").out.find("-> a model in swap"),
              std::string::npos);
    EXPECT_EQ(zse("doctor --json --root " + machines + "normal").json()["verdict"], "ok");
}

TEST_F(Doctor, KnowsWhatAModelNeeds) {
    const std::string file = model();
    const auto plan = zse("plan " + file + " -c 128 --json").json();
    const auto found = rows(file + " -c 128 --root " + machines + "normal");
    EXPECT_EQ(found.at("memory")["figures"]["model"], plan["total"]);
    EXPECT_EQ(found.at("explicit huge pages")["figures"]["needed"], plan["huge_pages"]);
    const std::string large = "'" + file + "' -c 256 --max-batch 4096 --root " + machines;
    EXPECT_EQ(rows(large + "container_v2").at("container limit")["verdict"], "warning") << "64 MiB";
    EXPECT_EQ(rows(file + " -c 128 --root " + machines + "container_v2").at("container limit")["verdict"],
              "ok");
}

TEST_F(Doctor, LooksAtThisMachineAndThisProcess) {
    const auto found = rows("--pid " + std::to_string(::getpid()));
    EXPECT_EQ(found.size(), 14u);
    EXPECT_GT(found.at("thrashing")["figures"]["resident"], 0);
}

TEST_F(Doctor, RefusesWhatItCannotLookAt) {
    const auto refused = [](const std::string& arguments, const std::string& words) {
        const Outcome outcome = zse("doctor " + arguments);
        EXPECT_EQ(outcome.status, 2) << arguments;
        EXPECT_EQ(outcome.out, "");
        EXPECT_NE(outcome.errors.find(words), std::string::npos) << outcome.errors;
    };
    refused("--root /no/such/directory", "found /no/such/directory, which is none");
    refused("--root README.md", "which is none");
    refused("--root " + machines + "normal --pid 4711",
            "--pid is the number of a process that runs, found 4711");
    refused("--pid 0", "--pid");
}

TEST_F(Doctor, AddressSpaceBoundsTheBudget) {
    const std::string file = model();
    const auto free = [&](const std::string& limit) {
        return limited(limit, "plan " + file + " -c 64 --json")
            .json()["budget"]["host"]["memory"]
            .get<std::uint64_t>();
    };
    const std::uint64_t bounded = free("ulimit -v 1048576");
    EXPECT_LT(bounded, std::uint64_t{1} << 30);
    EXPECT_GT(bounded, std::uint64_t{1} << 29);
    EXPECT_GT(free(":"), std::uint64_t{1} << 30) << "this machine is too small to show the difference";
}

TEST_F(Doctor, ARefusedReservationFailsSoftly) {
    const Outcome outcome = limited(
        "ulimit -v 200000", "run " + model() + " x --raw -c 256 --max-batch 4096 --host-mem 8GB -t 1");
    EXPECT_EQ(outcome.status, 1) << outcome.errors;
    EXPECT_NE(outcome.errors.find("zse: out_of_memory: the system refused"), std::string::npos)
        << outcome.errors;
}

TEST_F(Doctor, WhatMayNotBeLockedIsAWarning) {
    const std::string file = model();
    const std::string run = "run " + file + " \"on the\" --raw --max-tokens 5 --json -c 64 -t 1";
    const Outcome free = limited(":", run);
    // setpriv takes the right to lock without limit away, which root has.
    const Outcome locked =
        ::geteuid() == 0 ? support::run_command("sh",
                                                "-c 'ulimit -l 64; exec setpriv --bounding-set=-ipc_lock "
                                                "--inh-caps=-ipc_lock \"$0\" \"$@\"' '" ZSE_CLI "' " +
                                                    run + " --mlock")
                         : limited("ulimit -l 64", run + " --mlock");
    EXPECT_EQ(locked.status, 0) << locked.errors;
    EXPECT_NE(locked.errors.find("warning: --mlock: "), std::string::npos) << locked.errors;
    EXPECT_EQ(locked.json()["tokens"], free.json()["tokens"]);
    const Outcome allowed = limited(::geteuid() == 0 ? ":" : "ulimit -l unlimited", run + " --mlock");
    EXPECT_TRUE(allowed.status != 0 || allowed.errors.empty()) << allowed.errors;
}

}  // namespace
