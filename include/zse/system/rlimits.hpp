// SPDX-License-Identifier: Apache-2.0
// Resource limits of this process that bound memory: address space, data segment, locked memory.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/system/process.hpp>
#include <zse/system/root.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

namespace zse::inline v1 {
namespace system {

/// A limit and what of it is used, in bytes.
struct Rlimit {
    std::optional<Bytes> limit{};  ///< the soft limit; nothing: unlimited
    Bytes used = 0;

    [[nodiscard]] std::optional<Bytes> left() const noexcept {
        if (!limit) return std::nullopt;
        return *limit - std::min(*limit, used);
    }
};

struct Rlimits {
    Rlimit address_space;  ///< RLIMIT_AS, `ulimit -v`: every mapping counts, used or not
    Rlimit data;           ///< RLIMIT_DATA, `ulimit -d`: private writable mappings count, since Linux 4.7
    Rlimit locked;         ///< RLIMIT_MEMLOCK, `ulimit -l`; no limit where the process has CAP_IPC_LOCK

    /// Bytes that may still be mapped; nothing where nothing limits them.
    [[nodiscard]] std::optional<Bytes> mappable() const noexcept {
        const auto space = address_space.left();
        const auto segment = data.left();
        return space && segment ? std::min(*space, *segment) : (space ? space : segment);
    }
    /// Bytes that may still be locked.
    [[nodiscard]] std::optional<Bytes> lockable() const noexcept { return locked.left(); }
};

namespace detail {

/// The soft limit of "<name>   8388608   unlimited   bytes" (proc_pid_limits(5)); nothing for unlimited or where
/// there is no such line.
inline std::optional<Bytes> soft_limit(std::string_view text, std::string_view name) {
    while (!text.empty()) {
        std::string_view line = take_until(text, '\n');
        if (!line.starts_with(name)) continue;
        std::string_view rest = trimmed(line.substr(name.size()));
        const std::string_view value = take_until(rest, ' ');
        if (value == "unlimited") return std::nullopt;
        const auto bytes = number<std::uint64_t>(value);
        if (!bytes) {
            throw Error(ErrorCode::corrupt,
                        zse::text("proc/self/limits: ", name,
                                  " is expected to be a number of bytes or 'unlimited', "
                                  "found ",
                                  quoted(value), "; check that /proc is the kernel's own"));
        }
        return bytes;
    }
    return std::nullopt;
}

}  // namespace detail

/// Reads proc/self/limits under the root; a file that is missing sets no limit. Error: corrupt where a limit is no
/// number.
inline Rlimits read_rlimits(const Root& root = {}) {
    Rlimits limits;
    const auto text = detail::read_text(root, "proc/self/limits");
    if (!text) return limits;
    const Process self = read_process(root).value_or(Process{});
    limits.address_space = {detail::soft_limit(*text, "Max address space"), self.mapped};
    limits.data = {detail::soft_limit(*text, "Max data size"), self.data};
    limits.locked = {detail::soft_limit(*text, "Max locked memory"), self.locked};
    if (self.may_lock) limits.locked.limit.reset();
    return limits;
}

}  // namespace system
}  // namespace zse::inline v1
