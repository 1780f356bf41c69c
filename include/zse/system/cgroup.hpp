// SPDX-License-Identifier: Apache-2.0
// What a container allows: memory limit and use, and CPU quota, from control groups of both versions.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/system/root.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace system {

/// The group that binds this process: of its own group and all above it, the one with the least memory left.
struct Cgroup {
    int version = 0;     ///< 1 or 2: where the memory controller is; 0 where there is none
    std::string path{};  ///< of the binding group, as the process sees it; empty where there is none
    std::optional<Bytes> limit{};  ///< bytes that the group may hold; nothing: no limit
    Bytes current = 0;             ///< bytes that it holds, page cache included; of all its processes
    Bytes reclaimable = 0;  ///< of these, cached file pages not used lately, which give way under pressure
    std::optional<double> cpus{};  ///< CPU time per time, least of all groups; nothing: no quota

    /// Bytes that the group may still take: limit - (current - reclaimable). Without the last term a
    /// container that once read a large file would look full. Nothing where there is no limit.
    [[nodiscard]] std::optional<Bytes> headroom() const noexcept {
        if (!limit) return std::nullopt;
        const Bytes held = current - std::min(current, reclaimable);
        return *limit - std::min(*limit, held);
    }
};

namespace detail {

/// Where a controller's tree is mounted, and which group of it the process is in.
struct CgroupPlace {
    int version = 0;
    std::string mount;                 ///< mount point, as the process sees it
    std::vector<std::string> folders;  ///< the process's group first, then those above, the mount point last
};

/// Undoes the octal escapes of mountinfo (blank, tab, newline, backslash).
inline std::string unescaped(std::string_view text) {
    std::string plain;
    const auto digit = [text](std::size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '7'; };
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
            plain +=
                static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
            i += 3;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

inline bool listed(std::string_view list, std::string_view word) noexcept {
    while (!list.empty()) {
        if (take_until(list, ',') == word) return true;
    }
    return false;
}

/// The group's path in the tree of `controller`, with the version of that tree (cgroups(7),
/// /proc/[pid]/cgroup): version 1 where a numbered hierarchy names the controller, else the line "0::" of
/// version 2.
inline std::optional<std::string> group_path(std::string_view cgroup, std::string_view controller,
                                             int& version) {
    std::optional<std::string> unified;
    while (!cgroup.empty()) {
        std::string_view line = take_until(cgroup, '\n');
        const std::string_view hierarchy = take_until(line, ':');
        const std::string_view controllers = take_until(line, ':');
        if (listed(controllers, controller)) {
            version = 1;
            return std::string(line);
        }
        if (hierarchy == "0" && controllers.empty()) unified = std::string(line);
    }
    version = unified ? 2 : 0;
    return unified;
}

/// Mount point and root of a tree (proc_pid_mountinfo(5)). In a container the root may be the group itself.
struct CgroupMount {
    std::string point;
    std::string root = "/";
};

inline CgroupMount find_mount(std::string_view mountinfo, std::string_view controller, int version) {
    while (!mountinfo.empty()) {
        std::string_view line = take_until(mountinfo, '\n');
        const std::size_t dash = line.find(" - ");
        if (dash == std::string_view::npos) continue;
        std::string_view after = line.substr(dash + 3);
        const std::string_view type = take_until(after, ' ');
        take_until(after, ' ');  // the source
        if (version == 2 ? type != "cgroup2" : type != "cgroup" || !listed(trimmed(after), controller))
            continue;
        for (int skipped = 0; skipped < 3; ++skipped) take_until(line, ' ');
        const std::string root = unescaped(take_until(line, ' '));
        return {unescaped(take_until(line, ' ')), root};
    }
    // No mountinfo: the customary places.
    return {version == 2 ? "/sys/fs/cgroup" : zse::text("/sys/fs/cgroup/", controller), "/"};
}

inline CgroupPlace find_place(const Root& root, std::string_view controller) {
    CgroupPlace place;
    const std::string cgroup = read_text(root, "proc/self/cgroup").value_or("");
    const auto path = group_path(cgroup, controller, place.version);
    if (!path) return place;
    const std::string mountinfo = read_text(root, "proc/self/mountinfo").value_or("");
    const CgroupMount mount = find_mount(mountinfo, controller, place.version);
    place.mount = mount.point;

    // What of the path lies below the mounted part. Where the two do not fit together (a group outside of the
    // process's own namespace, "/.."), the mount point is all that can be seen.
    std::string_view below = *path;
    if (mount.root != "/") {
        const bool inside = below.substr(0, mount.root.size()) == mount.root &&
                            (below.size() == mount.root.size() || below[mount.root.size()] == '/');
        below = inside ? below.substr(mount.root.size()) : std::string_view();
    }
    if (!below.starts_with('/') || below.find("/..") != std::string_view::npos) below = {};
    constexpr std::size_t most_levels = 64;
    while (below.size() > 1 && place.folders.size() < most_levels) {
        place.folders.push_back(place.mount + std::string(below));
        below = below.substr(0, below.rfind('/'));
    }
    place.folders.push_back(place.mount);
    return place;
}

[[noreturn]] inline void refuse(std::string_view file, std::string_view expected, std::string_view found) {
    throw Error(ErrorCode::corrupt,
                zse::text(file, " is expected to hold ", expected, ", found ", quoted(trimmed(found)),
                          "; check that the file system is the kernel's own"));
}

/// Version 1 says "no limit" with the largest multiple of a page below 2^63, so everything from here counts as none.
inline constexpr Bytes no_limit = Bytes{1} << 62;

/// A file with one number, or "max" (no limit; so is a missing file).
inline std::optional<Bytes> read_limit(const Root& root, const std::string& file) {
    const auto text = read_text(root, file);
    if (!text || trimmed(*text) == "max") return std::nullopt;
    const auto value = number<std::uint64_t>(trimmed(*text));
    if (!value) refuse(file, "a number of bytes or 'max'", *text);
    return *value >= no_limit ? std::nullopt : std::optional<Bytes>(*value);
}

/// The value of "<name> 123" in a memory.stat; 0 where there is none.
inline Bytes stat_field(std::string_view stat, std::string_view name) noexcept {
    while (!stat.empty()) {
        std::string_view line = take_until(stat, '\n');
        if (take_until(line, ' ') == name) return number<std::uint64_t>(trimmed(line)).value_or(0);
    }
    return 0;
}

inline Cgroup read_memory_group(const Root& root, int version, const std::string& folder) {
    Cgroup group;
    group.version = version;
    group.path = folder;
    const std::string stat = read_text(root, folder + "/memory.stat").value_or("");
    if (version == 2) {
        // Above memory.high the kernel slows a group down until it stands still, so it is a limit, too.
        const auto most = read_limit(root, folder + "/memory.max");
        const auto high = read_limit(root, folder + "/memory.high");
        group.limit = most && high ? std::min(*most, *high) : most ? most : high;
        group.current = read_limit(root, folder + "/memory.current").value_or(0);
        group.reclaimable = stat_field(stat, "inactive_file");
    } else {
        group.limit = read_limit(root, folder + "/memory.limit_in_bytes");
        group.current = read_limit(root, folder + "/memory.usage_in_bytes").value_or(0);
        group.reclaimable = stat_field(stat, "total_inactive_file");
        // The least limit of this group and of those above it, which a container cannot see otherwise. Without a
        // limit it is as large as that of the group.
        const Bytes above = stat_field(stat, "hierarchical_memory_limit");
        if (above != 0 && above < no_limit) group.limit = std::min(above, group.limit.value_or(above));
    }
    return group;
}

/// CPU time per time that a group may take: "200000 100000" or "max 100000" in cpu.max of version 2, two
/// files with -1 for none in version 1.
inline std::optional<double> read_quota(const Root& root, int version, const std::string& folder) {
    std::string quota_text, period_text, file;
    if (version == 2) {
        file = folder + "/cpu.max";
        const std::string text = read_text(root, file).value_or("max");
        std::string_view rest = trimmed(text);
        quota_text = take_until(rest, ' ');
        period_text = trimmed(rest);
        if (quota_text == "max") return std::nullopt;
    } else {
        file = folder + "/cpu.cfs_quota_us";
        quota_text = trimmed(read_text(root, file).value_or("-1"));
        period_text = trimmed(read_text(root, folder + "/cpu.cfs_period_us").value_or("100000"));
        if (quota_text == "-1") return std::nullopt;
    }
    const auto quota = number<std::uint64_t>(quota_text);
    const auto period = number<std::uint64_t>(period_text);
    if (!quota || !period || *period == 0) {
        refuse(file, "a quota and a period in microseconds", quota_text + " " + period_text);
    }
    return static_cast<double>(*quota) / static_cast<double>(*period);
}

}  // namespace detail

/// Reads the limits of the process's groups under the root. Files that are missing set no limit: the topmost
/// group has none, and a group above a container cannot be seen. Error: corrupt where a file holds something
/// else than the kernel writes, since a limit that is misread ends in a killed process.
inline Cgroup read_cgroup(const Root& root = {}) {
    const detail::CgroupPlace memory = detail::find_place(root, "memory");
    Cgroup binding;
    for (const std::string& folder : memory.folders) {
        const Cgroup group = detail::read_memory_group(root, memory.version, folder);
        const bool first = binding.path.empty();
        const bool tighter = group.limit && (!binding.limit || *group.headroom() < *binding.headroom());
        if (first || tighter) binding = group;
    }
    const detail::CgroupPlace cpu = detail::find_place(root, "cpu");
    for (const std::string& folder : cpu.folders) {
        const auto quota = detail::read_quota(root, cpu.version, folder);
        if (quota && (!binding.cpus || *quota < *binding.cpus)) binding.cpus = quota;
    }
    return binding;
}

}  // namespace system
}  // namespace zse::inline v1
