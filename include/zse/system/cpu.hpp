// SPDX-License-Identifier: Apache-2.0
// The processor: model, cores, caches, and the instruction sets that kernels may use.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/system/root.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace system {

/// What the processor has and the kernel lets programs use.
struct InstructionSets {
    bool sse4_2 = false;
    bool avx = false;
    bool avx2 = false;
    bool fma = false;
    bool f16c = false;
    bool avx_vnni = false;
    bool avx512f = false;
    bool avx512bw = false;
    bool avx512dq = false;
    bool avx512vl = false;
    bool avx512_vnni = false;
    bool avx512_bf16 = false;
    bool amx_tile = false;
    bool amx_int8 = false;
    bool amx_bf16 = false;
    bool neon = false;
    bool dotprod = false;
    bool i8mm = false;
    bool sve = false;

    friend bool operator==(const InstructionSets&, const InstructionSets&) = default;
};

/// A flag: its name here, the kernel's word for it (in "flags" of x86, "Features" of arm), and its member.
struct InstructionSet {
    std::string_view name;
    std::string_view word;
    bool InstructionSets::*member;
};

inline constexpr InstructionSet instruction_sets[] = {
    {"sse4_2", "sse4_2", &InstructionSets::sse4_2},
    {"avx", "avx", &InstructionSets::avx},
    {"avx2", "avx2", &InstructionSets::avx2},
    {"fma", "fma", &InstructionSets::fma},
    {"f16c", "f16c", &InstructionSets::f16c},
    {"avx_vnni", "avx_vnni", &InstructionSets::avx_vnni},
    {"avx512f", "avx512f", &InstructionSets::avx512f},
    {"avx512bw", "avx512bw", &InstructionSets::avx512bw},
    {"avx512dq", "avx512dq", &InstructionSets::avx512dq},
    {"avx512vl", "avx512vl", &InstructionSets::avx512vl},
    {"avx512_vnni", "avx512_vnni", &InstructionSets::avx512_vnni},
    {"avx512_bf16", "avx512_bf16", &InstructionSets::avx512_bf16},
    {"amx_tile", "amx_tile", &InstructionSets::amx_tile},
    {"amx_int8", "amx_int8", &InstructionSets::amx_int8},
    {"amx_bf16", "amx_bf16", &InstructionSets::amx_bf16},
    {"neon", "asimd", &InstructionSets::neon},
    {"neon", "neon", &InstructionSets::neon},  // the 32-bit kernel's word
    {"dotprod", "asimddp", &InstructionSets::dotprod},
    {"i8mm", "i8mm", &InstructionSets::i8mm},
    {"sve", "sve", &InstructionSets::sve},
};

/// Names of the sets that are there, each once.
inline std::vector<std::string_view> names(const InstructionSets& sets) {
    std::vector<std::string_view> found;
    for (const InstructionSet& set : instruction_sets) {
        if (sets.*set.member && (found.empty() || found.back() != set.name)) found.push_back(set.name);
    }
    return found;
}

/// A cache as the first CPU sees it.
struct Cache {
    unsigned level = 0;
    std::string type;  ///< "Data", "Instruction" or "Unified"
    Bytes size = 0;
    unsigned shared = 1;  ///< logical CPUs that share it

    friend bool operator==(const Cache&, const Cache&) = default;
};

struct Cpu {
    std::string model = "unknown";
    unsigned logical = 1;   ///< hardware threads that are online, at least 1
    unsigned physical = 1;  ///< cores, over all sockets; `logical` where that is not known
    unsigned allowed = 1;   ///< hardware threads that this process may run on (affinity, cpuset)
    InstructionSets instructions;
    std::vector<Cache> caches;  ///< by level, data before instruction; empty where not known
};

/// Reads the text of /proc/cpuinfo: all of Cpu but `allowed` and `caches`. Nothing in it is required; what is
/// missing keeps its default, since some kernels and sandboxes write little here.
inline Cpu parse_cpuinfo(std::string_view text) {
    Cpu cpu;
    unsigned processors = 0;
    std::set<std::pair<std::string_view, std::string_view>> cores;
    std::string_view model, board, implementer, part, package, flags;
    while (!text.empty()) {
        std::string_view line = detail::take_until(text, '\n');
        const std::string_view key = detail::trimmed(detail::take_until(line, ':'));
        const std::string_view value = detail::trimmed(line);
        const auto keep_first = [value](std::string_view& place) {
            if (place.empty()) place = value;
        };
        if (key == "processor") ++processors;
        if (key == "physical id") package = value;
        if (key == "core id") cores.emplace(package, value);
        if (key == "model name") keep_first(model);
        if (key == "Model") keep_first(board);
        if (key == "CPU implementer") keep_first(implementer);
        if (key == "CPU part") keep_first(part);
        if (key == "flags" || key == "Features") keep_first(flags);
    }
    if (!model.empty()) {
        cpu.model = model;
    } else if (!board.empty()) {
        cpu.model = board;
    } else if (!part.empty()) {
        cpu.model = zse::text("implementer ", implementer, ", part ", part);
    }
    cpu.logical = std::max(processors, 1u);
    cpu.physical = cores.empty() ? cpu.logical : static_cast<unsigned>(cores.size());
    while (!flags.empty()) {
        const std::string_view word = detail::take_until(flags, ' ');
        for (const InstructionSet& set : instruction_sets) {
            if (word == set.word) cpu.instructions.*set.member = true;
        }
    }
    return cpu;
}

namespace detail {

/// "48K", "1024K", "32M": the kernel's spelling of cache sizes.
inline std::optional<Bytes> cache_size(std::string_view size) noexcept {
    constexpr std::string_view units = "KMG";
    size = trimmed(size);
    const std::size_t unit = size.empty() ? std::string_view::npos : units.find(size.back());
    if (unit != std::string_view::npos) size.remove_suffix(1);
    const auto value = number<std::uint64_t>(size);
    if (!value) return std::nullopt;
    return unit == std::string_view::npos ? *value : saturating_mul(*value, Bytes{1024} << (10 * unit));
}

inline std::vector<Cache> read_caches(const Root& root) {
    constexpr int most = 16;
    std::vector<Cache> caches;
    for (int index = 0; index < most; ++index) {
        const std::string folder = zse::text("sys/devices/system/cpu/cpu0/cache/index", index, "/");
        const auto level = read_text(root, folder + "level");
        const auto size = read_text(root, folder + "size");
        if (!level || !size) break;
        const auto level_number = number<unsigned>(trimmed(*level));
        const auto bytes = cache_size(*size);
        if (!level_number || !bytes) continue;
        Cache cache;
        cache.level = *level_number;
        cache.type = trimmed(read_text(root, folder + "type").value_or("Unified"));
        cache.size = *bytes;
        cache.shared = list_size(read_text(root, folder + "shared_cpu_list").value_or("")).value_or(1);
        caches.push_back(std::move(cache));
    }
    std::stable_sort(caches.begin(), caches.end(), [](const Cache& a, const Cache& b) {
        return a.level != b.level ? a.level < b.level : a.type < b.type;
    });
    return caches;
}

/// Cores, counted as distinct sets of threads that share one; nothing where the kernel does not say.
inline std::optional<unsigned> count_cores(const Root& root, unsigned logical) {
    constexpr unsigned most = 8192;
    std::set<std::string> cores;
    for (unsigned cpu = 0; cpu < std::min(logical, most); ++cpu) {
        auto threads =
            read_text(root, zse::text("sys/devices/system/cpu/cpu", cpu, "/topology/thread_siblings_list"));
        if (!threads) return std::nullopt;
        cores.insert(std::move(*threads));
    }
    return static_cast<unsigned>(cores.size());
}

/// The CPUs that the scheduler may put this process on.
inline std::optional<unsigned> count_allowed(const Root& root) {
    const auto status = read_text(root, "proc/self/status");
    std::string_view text = status ? std::string_view(*status) : std::string_view();
    while (!text.empty()) {
        std::string_view line = take_until(text, '\n');
        if (take_until(line, ':') == "Cpus_allowed_list") return list_size(line);
    }
    return std::nullopt;
}

}  // namespace detail

/// Reads the processor under the root. Throws only where a file is absurdly long; unknown values keep
/// defaults.
inline Cpu read_cpu(const Root& root = {}) {
    const std::string text = detail::read_text(root, "proc/cpuinfo").value_or("");
    Cpu cpu = parse_cpuinfo(text);
    if (text.find("processor") == std::string::npos) {
        const auto online = detail::read_text(root, "sys/devices/system/cpu/online");
        cpu.logical = cpu.physical = std::max(detail::list_size(online.value_or("")).value_or(1), 1u);
    }
    if (text.find("core id") == std::string::npos) {
        cpu.physical = std::max(detail::count_cores(root, cpu.logical).value_or(cpu.logical), 1u);
    }
    cpu.allowed = std::clamp(detail::count_allowed(root).value_or(cpu.logical), 1u, cpu.logical);
    cpu.caches = detail::read_caches(root);
    return cpu;
}

}  // namespace system
}  // namespace zse::inline v1
