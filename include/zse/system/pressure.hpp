// SPDX-License-Identifier: Apache-2.0
// Memory pressure: the share of time in which tasks waited for memory (PSI), of the machine and of a control group.
#pragma once

#include <zse/core/error.hpp>
#include <zse/system/cgroup.hpp>
#include <zse/system/root.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace system {

/// Percent of the last 10 seconds in which some task waited for memory: above it new work makes matters worse. Ten
/// percent of the time is what a tenth of all tokens would be lost to.
inline constexpr double high_pressure = 10.0;
/// Below this percentage the pressure counts as gone. Half of the other, so that one reading that wavers around it does
/// not switch to and fro.
inline constexpr double low_pressure = 5.0;

/// One line of a pressure file: percent of the time, averaged, and microseconds since boot.
struct PressureLine {
    double avg10 = 0;
    double avg60 = 0;
    double avg300 = 0;
    std::uint64_t total = 0;

    friend bool operator==(const PressureLine&, const PressureLine&) = default;
};

struct Pressure {
    PressureLine some;                   ///< at least one task waited
    std::optional<PressureLine> full{};  ///< all tasks waited at once; kernels before 5.13 may lack it
};

namespace detail {

/// The line "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" of this kind; nothing where it is missing or malformed.
/// Allocates nothing: it is read while tokens are made.
inline std::optional<PressureLine> pressure_line(std::string_view text, std::string_view kind) noexcept {
    while (!text.empty()) {
        std::string_view line = take_until(text, '\n');
        if (take_until(line, ' ') != kind) continue;
        const auto percent = [&line](std::string_view key) -> std::optional<double> {
            std::string_view field = take_until(line, ' ');
            if (take_until(field, '=') != key) return std::nullopt;
            const auto value = number<double>(field);
            if (!value || !(*value >= 0 && *value <= 100)) return std::nullopt;
            return value;
        };
        const auto ten = percent("avg10");
        const auto sixty = percent("avg60");
        const auto most = percent("avg300");
        std::string_view field = take_until(line, ' ');
        const bool named = take_until(field, '=') == "total";
        const auto total = number<std::uint64_t>(field);
        if (!ten || !sixty || !most || !named || !total || !line.empty()) return std::nullopt;
        return PressureLine{*ten, *sixty, *most, *total};
    }
    return std::nullopt;
}

}  // namespace detail

/// Reads the text of a pressure file (the kernel's Documentation/accounting/psi.rst). Error: corrupt where the line
/// "some" is missing or a line is malformed; `file` is named.
inline Pressure parse_pressure(std::string_view text, std::string_view file) {
    const auto some = detail::pressure_line(text, "some");
    const auto full = detail::pressure_line(text, "full");
    const bool has_full = text.starts_with("full") || text.find("\nfull") != std::string_view::npos;
    if (!some || (has_full && !full)) {
        throw Error(
            ErrorCode::corrupt,
            zse::text(file,
                      " is expected to hold 'some avg10=0.00 avg60=0.00 avg300=0.00 total=0' and 'full' "
                      "alike, found ",
                      detail::quoted(detail::trimmed(text)),
                      "; check that the file system is the kernel's own"));
    }
    return {*some, full};
}

inline constexpr std::string_view machine_pressure_file = "proc/pressure/memory";

/// The pressure file of the process's own control group; empty where no group of version 2 counts memory.
inline std::string group_pressure_file(const Root& root = {}) {
    const detail::CgroupPlace place = detail::find_place(root, "memory");
    return place.version == 2 ? place.folders.front() + "/memory.pressure" : std::string();
}

/// Nothing where the file is absent, or the kernel has its accounting switched off (psi=0).
inline std::optional<Pressure> read_pressure(const Root& root, const std::string& file) {
    if (file.empty()) return std::nullopt;
    const auto text = detail::read_text(root, file);
    if (!text) return std::nullopt;
    return parse_pressure(*text, file);
}

/// Keeps the pressure files open, and reads the worse of the two without allocating. Absent files are no pressure.
class PressureWatch {
public:
    explicit PressureWatch(const Root& root = {})
        : files_{open(root, std::string(machine_pressure_file)), open(root, group_pressure_file(root))} {}
    PressureWatch(const PressureWatch&) = delete;
    PressureWatch& operator=(const PressureWatch&) = delete;
    ~PressureWatch() {
        for (const int file : files_) {
            if (file >= 0) ::close(file);
        }
    }

    /// Whether there is anything to read.
    [[nodiscard]] bool present() const noexcept { return files_[0] >= 0 || files_[1] >= 0; }
    /// Percent of the last 10 seconds in which some task waited; nothing where neither file can be read.
    [[nodiscard]] std::optional<double> some_avg10() const noexcept {
        std::optional<double> worst;
        for (const int file : files_) {
            char buffer[512];  // two lines of at most 100 characters
            const ::ssize_t got = file < 0 ? -1 : ::pread(file, buffer, sizeof buffer, 0);
            if (got <= 0) continue;
            const auto line = detail::pressure_line({buffer, static_cast<std::size_t>(got)}, "some");
            if (line) worst = std::max(worst.value_or(0), line->avg10);
        }
        return worst;
    }

private:
    static int open(const Root& root, const std::string& file) {
        return file.empty() ? -1 : ::open(root.at(file).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }

    int files_[2];
};

}  // namespace system
}  // namespace zse::inline v1
