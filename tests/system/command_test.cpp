// SPDX-License-Identifier: Apache-2.0
// Running a program: its output and status, and that neither time, length, children nor absence can hold it
// up.
// rows: 15
#include <zse/system/command.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using zse::system::CommandResult;
using zse::system::run_command;
using Status = CommandResult::Status;

CommandResult shell(const std::string& script, std::chrono::milliseconds limit = 20s,
                    std::size_t most = 1 << 20) {
    return run_command({"sh", "-c", script}, limit, most);
}

TEST(Command, GivesOutputAndStatus) {
    const CommandResult result = shell("echo one; echo error >&2; printf two; exit 3");
    EXPECT_EQ(result.status, Status::finished);
    EXPECT_EQ(result.exit_status, 3);
    EXPECT_EQ(result.output, "one\ntwo");
}

TEST(Command, PassesArgumentsAsTheyAreAndEmptyInput) {
    EXPECT_EQ(run_command({"printf", "%s|", "a b", "$HOME", "'"}, 20s).output, "a b|$HOME|'|");
    EXPECT_EQ(shell("cat; echo end").output, "end\n");
}

TEST(Command, AnAbsentProgramIsAbsent) {
    EXPECT_EQ(run_command({"zse-no-such-program"}, 20s).status, Status::absent);
    EXPECT_EQ(run_command({"/dev/null"}, 20s).status, Status::absent);
    EXPECT_EQ(run_command({}, 20s).status, Status::absent);
}

TEST(Command, ASignalIsNotAnEnd) {
    EXPECT_EQ(shell("kill -SEGV $$").status, Status::killed);
}

TEST(Command, IsKilledWithItsChildrenWhenItTakesTooLong) {
    for (const char* script : {"echo begun; sleep 60", "sleep 60 & sleep 60", "exec >/dev/null; sleep 60",
                               "sleep 60 & exit 0", "trap '' TERM; while :; do :; done"}) {
        const auto start = std::chrono::steady_clock::now();
        const CommandResult result = shell(script, 200ms);
        EXPECT_EQ(result.status, Status::timed_out) << script;
        EXPECT_LT(std::chrono::steady_clock::now() - start, 10s) << script;
    }
    EXPECT_EQ(shell("echo begun; sleep 60", 500ms).output, "begun\n");
}

/// Whether a process runs; one that has ended and that nobody has waited for does not.
bool runs(const std::string& process) {
    std::ifstream file("/proc/" + process + "/stat");
    const std::string stat{std::istreambuf_iterator<char>(file), {}};
    const std::size_t name_end = stat.rfind(')');
    return name_end != std::string::npos && name_end + 2 < stat.size() && stat[name_end + 2] != 'Z';
}

TEST(Command, LeavesNoChildOfAKilledProgramRunning) {
    std::string child = shell("sleep 60 & echo $!; sleep 60", 300ms).output;
    ASSERT_FALSE(child.empty());
    child.pop_back();
    for (int tries = 0; runs(child) && tries < 200; ++tries) std::this_thread::sleep_for(10ms);
    EXPECT_FALSE(runs(child)) << child;
}

TEST(Command, OutputIsBounded) {
    const CommandResult result = shell("while :; do echo 0123456789; done", 20s, 5000);
    EXPECT_EQ(result.status, Status::too_long);
    EXPECT_EQ(result.output.size(), 5000u);
    EXPECT_EQ(shell("printf 12345", 20s, 5).status, Status::finished);
}

TEST(Command, LeavesNoDescriptorOpen) {
    const auto open_files = [] {
        const std::filesystem::directory_iterator files("/proc/self/fd");
        return std::distance(begin(files), end(files));
    };
    const auto before = open_files();
    for (int i = 0; i < 5; ++i) {
        shell("echo x");
        run_command({"zse-no-such-program"}, 20s);
    }
    EXPECT_EQ(open_files(), before);
}

}  // namespace
