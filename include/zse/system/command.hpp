// SPDX-License-Identifier: Apache-2.0
// Runs a program for its output, with a limit on time and on length, so that a stuck driver cannot stop a
// report.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

namespace zse::inline v1 {
namespace system {

/// How a program ended, and its standard output.
struct CommandResult {
    enum class Status {
        finished,   ///< it ended by itself, with `exit_status`
        absent,     ///< there is no such program, or it cannot be started
        timed_out,  ///< it took too long and was killed
        too_long,   ///< it wrote too much and was killed
        killed,     ///< a signal ended it
    };
    Status status = Status::absent;
    int exit_status = 0;
    std::string output;
};

namespace detail {

/// A pipe whose ends close with it and do not pass into other programs.
struct Pipe {
    int ends[2] = {-1, -1};

    Pipe() {
        if (::pipe2(ends, O_CLOEXEC) != 0) ends[0] = ends[1] = -1;
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    ~Pipe() {
        close(0);
        close(1);
    }
    void close(int end) noexcept {
        if (ends[end] >= 0) ::close(ends[end]);
        ends[end] = -1;
    }
};

/// Starts arguments[0], found along PATH, as leader of its own process group; 0 where that fails.
inline ::pid_t start(const std::vector<std::string>& arguments, int output) {
    std::vector<char*> pointers;
    for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
    pointers.push_back(nullptr);

    ::posix_spawn_file_actions_t actions;
    ::posix_spawnattr_t attributes;
    if (::posix_spawn_file_actions_init(&actions) != 0) return 0;
    if (::posix_spawnattr_init(&attributes) != 0) {
        ::posix_spawn_file_actions_destroy(&actions);
        return 0;
    }
    ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    ::posix_spawnattr_setpgroup(&attributes, 0);
    ::pid_t process = 0;
    if (::posix_spawnp(&process, pointers[0], &actions, &attributes, pointers.data(), environ) != 0)
        process = 0;
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    return process;
}

using Clock = std::chrono::steady_clock;

/// Waits until the process has ended; false at the deadline. `status` is as waitpid gives it, 0 where the
/// caller of zse ignores SIGCHLD and it is lost.
inline bool wait_until(::pid_t process, Clock::time_point deadline, int& status) {
    while (true) {
        const ::pid_t ended = ::waitpid(process, &status, WNOHANG);
        if (ended == process) return true;
        if (ended < 0 && errno != EINTR) {
            status = 0;
            return true;
        }
        if (Clock::now() >= deadline) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
}

}  // namespace detail

/// Runs arguments[0] (found along PATH) with empty input and no error output. Whatever happens, it returns
/// within `limit` and half a second; a process that not even SIGKILL ends (stuck in a driver) is left behind.
inline CommandResult run_command(const std::vector<std::string>& arguments, std::chrono::milliseconds limit,
                                 std::size_t most_output = std::size_t{1} << 20) {
    using Status = CommandResult::Status;
    CommandResult result;
    detail::Pipe pipe;
    if (arguments.empty() || pipe.ends[0] < 0) return result;
    const ::pid_t process = detail::start(arguments, pipe.ends[1]);
    if (process == 0) return result;
    pipe.close(1);

    const auto deadline = detail::Clock::now() + limit;
    result.status = Status::finished;
    while (result.status == Status::finished) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(deadline - detail::Clock::now()).count();
        if (left <= 0) {
            result.status = Status::timed_out;
            break;
        }
        ::pollfd readable{pipe.ends[0], POLLIN, 0};
        if (::poll(&readable, 1, static_cast<int>(std::min<long long>(left, 60'000))) <= 0) continue;
        char buffer[4096];
        const ::ssize_t got = ::read(pipe.ends[0], buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        result.output.append(buffer, static_cast<std::size_t>(got));
        if (result.output.size() > most_output) {
            result.output.resize(most_output);
            result.status = Status::too_long;
        }
    }
    int status = 0;
    if (result.status == Status::finished && !detail::wait_until(process, deadline, status)) {
        result.status = Status::timed_out;
    }
    if (result.status != Status::finished) {
        ::kill(-process, SIGKILL);  // with all that it started
        detail::wait_until(process, detail::Clock::now() + std::chrono::milliseconds(500), status);
        return result;
    }
    if (WIFSIGNALED(status)) {
        result.status = Status::killed;
    } else {
        result.exit_status = WEXITSTATUS(status);
    }
    return result;
}

}  // namespace system
}  // namespace zse::inline v1
