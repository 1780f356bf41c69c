// SPDX-License-Identifier: Apache-2.0
// How the kernel is set to treat memory: swappiness, overcommit, transparent huge pages. Reads, and changes nothing.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/system/meminfo.hpp>
#include <zse/system/root.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace system {

/// What may be mapped in all (proc_sys_vm(5), overcommit_memory). Fields are nothing or 0 where files are missing.
struct Overcommit {
    std::optional<unsigned>
        mode{};           ///< 0: obvious excess is refused; 1: nothing is; 2: nothing above `limit`
    Bytes limit = 0;      ///< CommitLimit
    Bytes committed = 0;  ///< Committed_AS

    [[nodiscard]] Bytes left() const noexcept { return limit - std::min(limit, committed); }
};

struct TransparentPages {
    std::string mode;  ///< always, madvise or never; empty: this kernel has none
    Bytes used = 0;    ///< AnonHugePages, of the whole machine
};

namespace detail {

/// A file with one number up to `most`; nothing where it is missing. Error: corrupt where it holds something else.
inline std::optional<unsigned> setting(const Root& root, const std::string& file, unsigned most) {
    const auto text = read_text(root, file);
    if (!text) return std::nullopt;
    const auto value = number<unsigned>(trimmed(*text));
    if (!value || *value > most) {
        throw Error(ErrorCode::corrupt,
                    zse::text(file, " is expected to hold a number from 0 to ", most, ", found ",
                              quoted(trimmed(*text)), "; check that /proc is the kernel's own"));
    }
    return value;
}

inline Bytes meminfo_bytes(const Root& root, std::string_view name) {
    const auto text = read_text(root, "proc/meminfo");
    return text ? meminfo_field(*text, name, true).value_or(0) : 0;
}

}  // namespace detail

/// How readily the kernel swaps, 0 to 200 (100 before Linux 5.8); nothing where it does not say.
inline std::optional<unsigned> read_swappiness(const Root& root = {}) {
    return detail::setting(root, "proc/sys/vm/swappiness", 200);
}

inline Overcommit read_overcommit(const Root& root = {}) {
    return {detail::setting(root, "proc/sys/vm/overcommit_memory", 2),
            detail::meminfo_bytes(root, "CommitLimit"), detail::meminfo_bytes(root, "Committed_AS")};
}

/// The word in brackets of "always [madvise] never".
inline TransparentPages read_transparent_pages(const Root& root = {}) {
    const std::string file = "sys/kernel/mm/transparent_hugepage/enabled";
    TransparentPages pages;
    const auto text = detail::read_text(root, file);
    if (!text) return pages;
    const std::size_t open = text->find('[');
    const std::size_t close = text->find(']', open);
    if (open != std::string::npos && close != std::string::npos) {
        pages.mode = text->substr(open + 1, close - open - 1);
    }
    if (pages.mode != "always" && pages.mode != "madvise" && pages.mode != "never") {
        throw Error(
            ErrorCode::corrupt,
            zse::text(file, " is expected to hold one of always, madvise and never in brackets, found ",
                      detail::quoted(detail::trimmed(*text)), "; check that /sys is the kernel's own"));
    }
    pages.used = detail::meminfo_bytes(root, "AnonHugePages");
    return pages;
}

}  // namespace system
}  // namespace zse::inline v1
