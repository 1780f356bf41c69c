// SPDX-License-Identifier: Apache-2.0
// Evidence of the kernel's out-of-memory killer: its lines in the kernel's log, and the count of a control group, which
// needs no privilege.
#pragma once

#include <zse/system/cgroup.hpp>
#include <zse/system/gpu.hpp>
#include <zse/system/root.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace system {

/// The kernel's log, as far as it may be read.
struct KernelLog {
    enum class Status {
        read,
        absent,  ///< there is none here
        denied,  ///< it is there, and this user may not read it (kernel.dmesg_restrict)
    };
    Status status = Status::absent;
    std::string text;
};

/// A process that the kernel killed for memory.
struct OomKill {
    unsigned pid = 0;
    std::string name;    ///< the first 15 characters, as the kernel keeps them
    bool group = false;  ///< for the limit of a control group, not for want of memory in the machine

    friend bool operator==(const OomKill&, const OomKill&) = default;
};

namespace detail {

/// Reads dev/kmsg: the device gives one record a call, and none (EAGAIN) at its end; a stored file is read as it is.
inline KernelLog read_kmsg(const Root& root) {
    KernelLog log;
    const int file = ::open(root.at("dev/kmsg").c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        if (errno == EACCES || errno == EPERM) log.status = KernelLog::Status::denied;
        return log;
    }
    struct Close {
        int file;
        ~Close() { ::close(file); }
    } const close{file};
    char buffer[8 * 1024];  // the kernel's longest record; a shorter buffer is refused
    log.status = KernelLog::Status::read;
    while (log.text.size() < most_text) {
        const ::ssize_t got = ::read(file, buffer, sizeof buffer);
        if (got > 0) log.text.append(buffer, static_cast<std::size_t>(got));
        if (got > 0 || (got < 0 && errno == EINTR)) continue;
        if (got < 0 && errno == EPIPE) continue;  // the record was overwritten before it was read
        if (got < 0 && errno != EAGAIN && log.text.empty()) {
            log.status =
                errno == EPERM || errno == EACCES ? KernelLog::Status::denied : KernelLog::Status::absent;
        }
        break;
    }
    return log;
}

}  // namespace detail

/// Reads dev/kmsg under the root, or what dmesg prints where that cannot be read and a way to run it is given.
inline KernelLog read_kernel_log(const Root& root = {}, const CommandHook& command = {}) {
    KernelLog log = detail::read_kmsg(root);
    if (log.status == KernelLog::Status::read || !command) return log;
    CommandResult answer = command({"dmesg"});
    if (answer.status != CommandResult::Status::finished) return log;
    if (answer.exit_status != 0) {
        log.status = KernelLog::Status::denied;
        return log;
    }
    return {KernelLog::Status::read, std::move(answer.output)};
}

/// Lines such as "Memory cgroup out of memory: Killed process 4711 (zse) total-vm:9kB, ...", oldest first (the kernel's
/// mm/oom_kill.c). What comes before the sentence, priority or time, does not matter.
inline std::vector<OomKill> find_oom_kills(std::string_view log) {
    constexpr std::string_view sentence = "Killed process ";
    std::vector<OomKill> kills;
    while (!log.empty()) {
        const std::string_view line = detail::take_until(log, '\n');
        const std::size_t at = line.find(sentence);
        if (at == std::string_view::npos) continue;
        std::string_view rest = line.substr(at + sentence.size());
        const auto pid = detail::number<unsigned>(detail::take_until(rest, ' '));
        const std::size_t end = rest.find(')');
        if (!pid || !rest.starts_with('(') || end == std::string_view::npos) continue;
        const bool group = line.substr(0, at).find("emory cgroup") != std::string_view::npos;
        kills.push_back({*pid, std::string(rest.substr(1, end - 1)), group});
    }
    return kills;
}

/// Processes of the control group, or of those in it, that were killed for its limit; nothing where it does not say.
inline std::optional<std::uint64_t> read_group_kills(const Root& root = {}) {
    const detail::CgroupPlace place = detail::find_place(root, "memory");
    for (const std::string& folder : place.folders) {
        const std::string file = folder + (place.version == 2 ? "/memory.events" : "/memory.oom_control");
        const auto text = detail::read_text(root, file);
        if (!text) continue;
        for (std::string_view rest = *text; !rest.empty();) {
            std::string_view line = detail::take_until(rest, '\n');
            if (detail::take_until(line, ' ') != "oom_kill") continue;
            const auto kills = detail::number<std::uint64_t>(detail::trimmed(line));
            if (!kills) detail::refuse(file, "'oom_kill' and a number", *text);
            return kills;
        }
    }
    return std::nullopt;
}

}  // namespace system
}  // namespace zse::inline v1
