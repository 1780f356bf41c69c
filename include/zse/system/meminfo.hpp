// SPDX-License-Identifier: Apache-2.0
// The machine's memory, swap and huge pages, as the kernel reports them.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/system/root.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace system {

/// Of the whole machine: a container sees the host's numbers here, its own limit is in Cgroup.
struct Memory {
    Bytes total = 0;
    Bytes available = 0;  ///< what can be taken without swapping; page cache that can be dropped counts
    Bytes free = 0;
    Bytes swap_total = 0;
    Bytes swap_free = 0;
    Bytes huge_page_size = 0;  ///< of the default size, usually 2 MiB; 0 where the kernel has none
    std::uint64_t huge_pages_total = 0;
    std::uint64_t huge_pages_free = 0;

    friend bool operator==(const Memory&, const Memory&) = default;
};

namespace detail {

/// The value of "<name>:  123 kB" (with `unit`, in bytes) or "<name>:  123" (without); `file` is named in errors.
inline std::optional<std::uint64_t> meminfo_field(std::string_view text, std::string_view name, bool unit,
                                                  std::string_view file = "meminfo") {
    while (!text.empty()) {
        std::string_view line = take_until(text, '\n');
        if (take_until(line, ':') != name) continue;
        std::string_view rest = trimmed(line);
        const auto value = number<std::uint64_t>(take_until(rest, ' '));
        const bool complete = unit ? trimmed(rest) == "kB" : rest.empty();
        // The kernel's kB are 1,024 bytes.
        if (!value || !complete || (unit && *value > std::numeric_limits<std::uint64_t>::max() / 1024)) {
            throw Error(ErrorCode::corrupt, zse::text(file, ": ", name, " is expected to be a number",
                                                      unit ? " of kB" : "", ", found ", quoted(trimmed(line)),
                                                      "; check that /proc is the kernel's own"));
        }
        return unit ? *value * 1024 : *value;
    }
    return std::nullopt;
}

}  // namespace detail

/// Reads the text of /proc/meminfo (proc_meminfo(5)). MemTotal and MemFree are required. Without MemAvailable
/// (kernels before 3.14), `available` is `free`, which is less; other missing fields are 0.
/// Error: corrupt where a required field is missing or a field is no number.
inline Memory parse_meminfo(std::string_view text) {
    const auto required = [text](std::string_view name) {
        if (const auto value = detail::meminfo_field(text, name, true)) return *value;
        throw Error(ErrorCode::corrupt,
                    zse::text("meminfo: the field ", name,
                              " is expected, and is missing; check that /proc is mounted"));
    };
    const auto bytes = [text](std::string_view name) {
        return detail::meminfo_field(text, name, true).value_or(0);
    };
    const auto count = [text](std::string_view name) {
        return detail::meminfo_field(text, name, false).value_or(0);
    };
    Memory memory;
    memory.total = required("MemTotal");
    memory.free = required("MemFree");
    memory.available = detail::meminfo_field(text, "MemAvailable", true).value_or(memory.free);
    memory.swap_total = bytes("SwapTotal");
    memory.swap_free = bytes("SwapFree");
    memory.huge_page_size = bytes("Hugepagesize");
    memory.huge_pages_total = count("HugePages_Total");
    memory.huge_pages_free = count("HugePages_Free");
    return memory;
}

/// Reads proc/meminfo under the root. Errors: not_found where it cannot be read, corrupt as parse_meminfo.
inline Memory read_memory(const Root& root = {}) {
    const auto text = detail::read_text(root, "proc/meminfo");
    if (!text) {
        throw Error(ErrorCode::not_found,
                    zse::text(root.at("proc/meminfo").string(), " cannot be read; mount /proc"));
    }
    return parse_meminfo(*text);
}

}  // namespace system
}  // namespace zse::inline v1
