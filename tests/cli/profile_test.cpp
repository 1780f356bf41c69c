// SPDX-License-Identifier: Apache-2.0
// Memory over time: a file that is valid whenever it is read and after SIGKILL, peaks that are those reported, and its
// drawing.
// rows: 82 83 86
// timeout: 300
#include <gtest/gtest.h>
#include <support/command.hpp>
#include <support/tiny_model.hpp>

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

using support::Outcome;
using support::run_command;

Outcome zse(const std::string& arguments) {
    return run_command(ZSE_CLI, arguments);
}

/// Runs a program until it is killed or ends; nothing of it is read.
class Child {
public:
    explicit Child(std::vector<std::string> arguments) {
        std::vector<char*> pointers;
        for (std::string& argument : arguments) pointers.push_back(argument.data());
        pointers.push_back(nullptr);
        ::posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        for (const int file : {1, 2})
            ::posix_spawn_file_actions_addopen(&actions, file, "/dev/null", O_WRONLY, 0);
        if (::posix_spawn(&process_, pointers[0], &actions, nullptr, pointers.data(), environ) != 0)
            process_ = 0;
        ::posix_spawn_file_actions_destroy(&actions);
    }
    ~Child() { kill(); }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;

    [[nodiscard]] bool started() const { return process_ != 0; }
    /// How it ended, as waitpid says.
    int kill() {
        if (process_ == 0) return 0;
        int status = 0;
        ::kill(process_, SIGKILL);
        ::waitpid(process_, &status, 0);
        process_ = 0;
        return status;
    }

private:
    ::pid_t process_ = 0;
};

class Profile : public testing::Test {
protected:
    Profile() : model_(support::write_tiny_model(directory_.path(), {.context = 4096}).string()) {}
    [[nodiscard]] std::string file(const std::string& name) const { return (directory_ / name).string(); }
    /// Options that record into a file.
    static std::string into(const std::string& path) {
        return " --profile-memory --profile-output '" + path + "' ";
    }

    support::TemporaryDirectory directory_;
    std::string model_;
};

TEST_F(Profile, IsValidWheneverItIsReadAndAfterAKill) {
    using namespace std::chrono_literals;
    std::size_t most_samples = 0;
    int kills = 0;
    for (const auto life : {150ms, 333ms, 700ms, 1500ms}) {
        const std::string path = file("killed.json");
        std::filesystem::remove(path);
        Child child({ZSE_CLI, "benchmark", model_, "--repetitions", "1000", "--generation", "2000", "-t", "1",
                     "--profile-memory", "--profile-output", path});
        ASSERT_TRUE(child.started());
        const auto begin = std::chrono::steady_clock::now();
        while (!std::filesystem::exists(path) && std::chrono::steady_clock::now() - begin < 20s)
            std::this_thread::sleep_for(1ms);
        const auto first = std::chrono::steady_clock::now();
        while (std::chrono::steady_clock::now() - first < life) {
            ASSERT_TRUE(nlohmann::json::accept(support::read_all(path))) << "while it is written";
        }
        const int status = child.kill();
        kills += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 1 : 0;
        const auto json = nlohmann::json::parse(support::read_all(path));
        most_samples = std::max(most_samples, json["samples"].size());
        EXPECT_EQ(json["format"], "zse memory profile");
    }
    EXPECT_EQ(kills, 4) << "it ended by itself, which proves nothing";
    EXPECT_GE(most_samples, 5u);
}

TEST_F(Profile, ItsMostIsThePeakThatIsReported) {
    const std::string path = file("peak.json");
    const Outcome outcome =
        zse("benchmark " + model_ + " --metric memory -c 512 --max-batch 3 --generation 64 -t 1 --json" +
            into(path));
    ASSERT_EQ(outcome.status, 0) << outcome.errors;
    const auto reported = outcome.json();
    const auto profile = nlohmann::json::parse(support::read_all(path));
    ASSERT_GE(profile["samples"].size(), 2u);
    std::set<std::string> kinds;
    for (const auto& row : reported["memory"]) {
        SCOPED_TRACE(row.dump());
        kinds.insert(row["kind"]);
        std::uint64_t peak = 0, used = 0;
        for (const auto& sample : profile["samples"]) {
            const auto& kind = sample["tiers"].at(row["tier"]).at(row["kind"]);
            EXPECT_GE(kind["reserved"], kind["held"]);
            EXPECT_GE(kind["held"], kind["used"]);
            EXPECT_GE(kind["peak"], kind["used"]);
            EXPECT_GE(kind["peak"].get<std::uint64_t>(), peak) << "a peak never falls";
            peak = kind["peak"];
            used = std::max(used, kind["used"].get<std::uint64_t>());
            EXPECT_EQ(kind["held"], row["held"]);
        }
        EXPECT_EQ(peak, row["peak"]);
        EXPECT_LE(used, peak);
    }
    EXPECT_TRUE(kinds.contains("kv") && kinds.contains("weights"));
    EXPECT_EQ(profile["planned_total"], reported["planned_total"]);
}

TEST_F(Profile, SaysWhatRunsAndAddsUp) {
    const std::string path = file("run.json");
    const Outcome outcome =
        zse("run " + model_ + " \"the band\" --raw --max-tokens 3000 -t 1 --json" + into(path));
    ASSERT_EQ(outcome.status, 0) << outcome.errors;
    const auto samples = nlohmann::json::parse(support::read_all(path))["samples"];
    double last = -1;
    bool ran = false;
    for (const auto& sample : samples) {
        const double t = sample["t"];
        EXPECT_TRUE(last < 0 || &sample == &samples.back() || t - last >= 0.0999) << "at most every 100 ms";
        EXPECT_GT(t, last);
        last = t;
        ran = ran || sample["running"] == 1;
        EXPECT_EQ(sample["waiting"], 0);
        EXPECT_GT(sample["resident"], 1 << 20);
        EXPECT_LE(sample["kv_pages"]["used"], sample["kv_pages"]["total"]);
        for (const auto& [tier, all] : sample["tiers"].items()) {
            for (const char* what : {"held", "reserved", "used", "peak"}) {
                std::uint64_t sum = 0;
                for (const auto& [kind, bytes] : all.items())
                    sum += kind == "total" ? 0 : bytes[what].get<std::uint64_t>();
                EXPECT_EQ(all["total"][what], sum) << tier << " " << what;
            }
        }
    }
    EXPECT_GE(samples.size(), 2u);
    EXPECT_LT(samples.back()["spent"].get<double>(), 0.02 * last + 0.002)
        << "overhead; the first ones are not paid for";
    EXPECT_TRUE(ran || samples.size() == 2) << "the answer took less than 100 ms";
    EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
}

TEST_F(Profile, WhereItCannotBeWrittenNothingRuns) {
    const auto refused = [&](const std::string& options, int status, const std::string& words) {
        const Outcome outcome = zse("run " + model_ + " x --raw --max-tokens 1 " + options);
        EXPECT_EQ(outcome.status, status) << outcome.errors;
        EXPECT_EQ(outcome.out, "");
        EXPECT_NE(outcome.errors.find(words), std::string::npos) << outcome.errors;
    };
    refused(into(file("no/such/directory.json")), 1, "cannot be written (No such file or directory)");
    refused(into(directory_.path().string()), 2, "a directory or a device");
    refused(into("/dev/null"), 2, "a directory or a device");
    EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
    refused("--profile-output x.json", 2, "--profile-memory");
}

TEST_F(Profile, ADrawingHasAnAreaForEachKind) {
    const std::string path = file("draw.json");
    ASSERT_EQ(zse("benchmark " + model_ + " --metric memory -c 128 --generation 16 -t 1" + into(path)).status,
              0);
    const auto profile = nlohmann::json::parse(support::read_all(path));
    for (const std::string quantity : {"used", "held", "reserved", "peak"}) {
        const std::string out = file(quantity + ".svg");
        const Outcome outcome = zse("plot " + path + " -o " + out + " --quantity " + quantity);
        ASSERT_EQ(outcome.status, 0) << outcome.errors;
        std::set<std::string> kinds;
        for (const auto& sample : profile["samples"]) {
            for (const auto& [tier, all] : sample["tiers"].items()) {
                for (const auto& [kind, bytes] : all.items()) {
                    if (kind != "total" && bytes[quantity] != 0) kinds.insert(kind);
                }
            }
        }
        EXPECT_GE(kinds.size(), 5u);
        // The interpreter that the house's own checks need reads XML strictly.
        const std::string count =
            "-c 'import sys, xml.etree.ElementTree as x; r = x.parse(sys.argv[1]).getroot(); n = "
            "\"{http://www.w3.org/2000/svg}\"; print(r.tag == n + \"svg\", len(r.findall(n + \"polygon\")), "
            "len(r.findall(n + \"polyline\")))' " +
            out;
        EXPECT_EQ(run_command("/usr/bin/python3", count).out,
                  "True " + std::to_string(kinds.size()) + " 2\n");
        const std::string svg = support::read_all(out);
        for (const std::string& kind : kinds)
            EXPECT_NE(svg.find(">" + kind + " <"), std::string::npos) << kind;
        for (const char* words :
             {"memory in ", "time in seconds", "planned in all", "prefers-color-scheme: dark"})
            EXPECT_NE(svg.find(words), std::string::npos) << words;
        EXPECT_EQ(svg.find("href"), std::string::npos) << "it needs no other file";
    }
    EXPECT_EQ(zse("plot " + path).status, 0);
    EXPECT_TRUE(std::filesystem::exists(file("draw.svg"))) << "the default name";
}

TEST_F(Profile, OnlyAProfileIsDrawn) {
    const auto write = [&](const std::string& text) {
        std::ofstream(file("bad.json"), std::ios::binary) << text;
        return "plot " + file("bad.json") + " -o " + file("bad.svg");
    };
    const std::string head =
        R"({"format":"zse memory profile","version":1,"engine":"<&\">","planned_total":5,"samples":[)";
    const std::string tiers = R"("resident":7,"tiers":{"host":{"kv":{"used":3}}}})";
    EXPECT_EQ(zse(write(head + R"({"t":0,)" + tiers + "]}")).status, 0) << "one sample is enough";
    EXPECT_NE(support::read_all(file("bad.svg")).find("&lt;&amp;&quot;&gt;"), std::string::npos);
    std::filesystem::remove(file("bad.svg"));
    for (const std::string& text :
         {std::string(), std::string("text"), std::string("[]"), std::string("{}"), head, head + "]}",
          std::string(R"({"format":"zse memory profile","version":2})"), head + "{}]}", head + "7]}",
          head + R"({"t":-1,)" + tiers + "]}", head + R"({"t":"x",)" + tiers + "]}",
          head + R"({"t":1e300,)" + tiers + "]}", head + R"({"t":2,)" + tiers + R"(,{"t":1,)" + tiers + "]}",
          head + R"({"t":0,"resident":7,"tiers":{"host":{"kv":7}}}]})",
          head + R"({"t":0,"resident":7,"tiers":7}]})"}) {
        const Outcome outcome = zse(write(text));
        EXPECT_EQ(outcome.status, 1) << text;
        EXPECT_NE(outcome.errors.find("zse: corrupt: "), std::string::npos) << text << outcome.errors;
        EXPECT_NE(outcome.errors.find("expected to be a memory profile, found"), std::string::npos)
            << outcome.errors;
        EXPECT_FALSE(std::filesystem::exists(file("bad.svg")));
    }
    EXPECT_NE(zse("plot " + file("none.json")).errors.find("zse: not_found: "), std::string::npos);
    write(head + R"({"t":0,)" + tiers + "]}");
    EXPECT_EQ(zse("plot " + file("bad.json") + " -o " + file("bad.json")).status, 2);
    EXPECT_EQ(zse("plot " + file("bad.json") + " -o " + file("no/such/x.svg")).status, 1);
    EXPECT_EQ(zse("plot").status, 2);
}

/// The numbers of a row of the table that --stats prints: planned, held, reserved, peak, difference.
std::vector<std::int64_t> numbers(const std::string& line) {
    std::istringstream words(line.substr(std::min(line.find(' '), line.size())));
    std::vector<std::int64_t> found;
    for (std::int64_t value = 0; found.size() < 5 && words >> value;) found.push_back(value);
    return found;
}

TEST_F(Profile, TheTableOfStatsAddsUp) {
    const Outcome outcome = zse("run " + model_ + " \"the band\" --raw --max-tokens 20 -c 128 -t 1 --stats");
    ASSERT_EQ(outcome.status, 0) << outcome.errors;
    std::istringstream text(outcome.errors);
    std::vector<std::int64_t> sum(5), total;
    int kinds = 0;
    bool inside = false;
    for (std::string line; std::getline(text, line);) {
        if (line.starts_with("host ")) {
            EXPECT_NE(line.find("planned          held      reserved   peak in use"), std::string::npos)
                << line;
            inside = true;
        } else if (line.starts_with("total bytes")) {
            total = numbers(line.substr(6));
            inside = false;
        } else if (inside) {
            const auto row = numbers(line);
            ASSERT_EQ(row.size(), 5u) << line;
            for (std::size_t i = 0; i < 5; ++i) sum[i] += row[i];
            EXPECT_EQ(row[0], row[1]) << line;
            EXPECT_GE(row[2], row[1]) << line;
            EXPECT_GE(row[1], row[3]) << line;
            ++kinds;
        }
    }
    EXPECT_EQ(kinds, 11);
    EXPECT_EQ(sum, total);
    EXPECT_GT(total.at(3), 0);
    EXPECT_NE(outcome.errors.find("after loading: "), std::string::npos);
}

TEST_F(Profile, AfterLoadingTheProcessHasGrownByWhatIsInUse) {
    const auto json = zse("run " + model_ + " x --raw --max-tokens 1 -c 128 -t 1 --json").json();
    const auto& loaded = json["after_loading"];
    EXPECT_EQ(loaded["planned"], json["planned"]["host"]["total"]);
    EXPECT_LE(loaded["in_use"], loaded["planned"]);
    EXPECT_EQ(loaded["growth"].get<std::int64_t>() - loaded["in_use"].get<std::int64_t>(),
              loaded["unexplained"]);
    EXPECT_EQ(loaded["growth"].get<std::int64_t>() - loaded["planned"].get<std::int64_t>(),
              loaded["beyond_plan"]);
    EXPECT_GT(loaded["resident_before"], 1 << 20);
    EXPECT_GT(loaded["growth"], loaded["in_use"].get<std::int64_t>() / 2) << "it is measured";
}

}  // namespace
