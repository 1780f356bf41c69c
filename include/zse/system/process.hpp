// SPDX-License-Identifier: Apache-2.0
// One process as the kernel counts it: resident, swapped and locked memory, and faults that had to read from a disk.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/system/meminfo.hpp>
#include <zse/system/root.hpp>

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace zse::inline v1 {
namespace system {

struct Process {
    std::string name;
    Bytes resident = 0;              ///< VmRSS
    Bytes swapped = 0;               ///< VmSwap
    Bytes mapped = 0;                ///< VmSize: what RLIMIT_AS bounds
    Bytes data = 0;                  ///< VmData: what RLIMIT_DATA bounds
    Bytes locked = 0;                ///< VmLck: what RLIMIT_MEMLOCK bounds
    bool may_lock = false;           ///< it has CAP_IPC_LOCK, to which RLIMIT_MEMLOCK does not apply
    std::uint64_t major_faults = 0;  ///< faults since its start that had to read from a disk, or from swap
    double age = 0;                  ///< seconds since its start; 0 where it is not known

    /// Major faults a second, over its life.
    [[nodiscard]] double fault_rate() const noexcept {
        return age > 0 ? static_cast<double>(major_faults) / age : 0;
    }
};

/// Bit of CAP_IPC_LOCK in a set of capabilities (capabilities(7)).
inline constexpr unsigned cap_ipc_lock = 14;

/// Major faults between two looks at a process that are no sign of thrashing: code of the program and of its
/// libraries that is used for the first time is read from its file, 64 pages of which are some 256 KiB.
inline constexpr std::uint64_t few_major_faults = 64;

/// Major faults a second over a process's life from which on it is said to thrash. A disk of 100 random reads a second
/// is fully busy with 100; a tenth of that is felt in every token.
inline constexpr double many_major_faults = 10;

namespace detail {

/// Takes majflt and starttime, fields 12 and 22, from the text of stat (proc_pid_stat(5)). The name in
/// parentheses may hold anything, so fields are counted from the last closing one.
inline void parse_stat(std::string_view text, std::string_view file, double uptime, double ticks,
                       Process& process) {
    const std::size_t end = text.rfind(')');
    std::string_view rest =
        end == std::string_view::npos ? std::string_view() : trimmed(text.substr(end + 1));
    std::optional<std::uint64_t> faults, start;
    for (int field = 3; !rest.empty(); ++field) {
        const std::string_view value = take_until(rest, ' ');
        if (field == 12) faults = number<std::uint64_t>(value);
        if (field == 22) start = number<std::uint64_t>(value);
    }
    if (!faults || !start) {
        throw Error(ErrorCode::corrupt,
                    zse::text(file, " is expected to hold 22 fields or more, found ", quoted(trimmed(text)),
                              "; check that /proc is the kernel's own"));
    }
    process.major_faults = *faults;
    process.age = std::max(0.0, uptime - static_cast<double>(*start) / ticks);
}

}  // namespace detail

/// Reads a process, the calling one by default; nothing where there is none of this number. Error: corrupt where a file
/// is not as the kernel writes it.
inline std::optional<Process> read_process(const Root& root = {}, std::optional<unsigned> pid = {}) {
    const std::string folder = pid ? text("proc/", *pid) : "proc/self";
    const std::string file = folder + "/status";
    const auto status = detail::read_text(root, file);
    if (!status) return std::nullopt;
    Process process;
    for (std::string_view rest = *status; !rest.empty();) {
        std::string_view line = detail::take_until(rest, '\n');
        const std::string_view key = detail::take_until(line, ':');
        const std::string_view value = detail::trimmed(line);
        if (key == "Name") process.name = value;
        if (key != "CapEff") continue;
        std::uint64_t set = 0;
        const auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), set, 16);
        process.may_lock = problem == std::errc{} && (set >> cap_ipc_lock & 1) != 0;
    }
    // A kernel thread has no memory of its own, and no such lines.
    const auto bytes = [&](std::string_view name) {
        return detail::meminfo_field(*status, name, true, file).value_or(0);
    };
    process.resident = bytes("VmRSS");
    process.swapped = bytes("VmSwap");
    process.mapped = bytes("VmSize");
    process.data = bytes("VmData");
    process.locked = bytes("VmLck");
    if (const auto stat = detail::read_text(root, folder + "/stat")) {
        const std::string uptime = detail::read_text(root, "proc/uptime").value_or("");
        std::string_view first = uptime;
        const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
        detail::parse_stat(*stat, folder + "/stat",
                           detail::number<double>(detail::take_until(first, ' ')).value_or(0), ticks,
                           process);
    }
    return process;
}

/// What to say where memory went to swap or came back from a disk between two looks at a process; nothing where
/// neither rose.
inline std::optional<std::string> thrashing(const Process& before, const Process& after) {
    const Bytes swapped = after.swapped - std::min(after.swapped, before.swapped);
    const std::uint64_t faults = after.major_faults - std::min(after.major_faults, before.major_faults);
    if (swapped == 0 && faults <= few_major_faults) return std::nullopt;
    return text(
        "memory was short while tokens were made: ", human(swapped), " went to swap, ", faults,
        " pages were read back from a disk; plan fewer bytes (zse plan), free memory, or see zse doctor");
}

}  // namespace system
}  // namespace zse::inline v1
