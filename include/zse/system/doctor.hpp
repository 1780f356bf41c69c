// SPDX-License-Identifier: Apache-2.0
// What on this machine stands in the way of a model: each probe with a verdict and a sentence of advice. Changes
// nothing.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/system/finding.hpp>
#include <zse/system/hardware.hpp>
#include <zse/system/oom.hpp>
#include <zse/system/pressure.hpp>
#include <zse/system/process.hpp>
#include <zse/system/settings.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace system {

/// What the report is about.
struct Examination {
    Root root{};
    std::optional<unsigned> pid{};       ///< the process whose swapping is looked at; none: this one
    std::optional<double> fault_rate{};  ///< major faults a second of it, measured now; none: over its life
    CommandHook dmesg{};           ///< how to run dmesg where /dev/kmsg cannot be read; empty: not at all
    std::optional<Bytes> model{};  ///< bytes that the plan of a model takes
    std::uint64_t model_huge_pages = 0;  ///< pages of 2 MiB that its large arenas need
};

/// From this swappiness on the kernel writes out memory that is in use in order to keep files cached; distributions
/// have 60.
inline constexpr unsigned low_swappiness = 10;

namespace detail {

inline Finding find_swap(const Root& root) {
    const Memory memory = read_memory(root);
    const auto swappiness = read_swappiness(root);
    Finding row{{}, "off", {}, {}, {{"total", static_cast<double>(memory.swap_total)}}};
    if (swappiness) row.figures.emplace_back("swappiness", *swappiness);
    if (memory.swap_total == 0) return row;
    row.figures.emplace_back("free", static_cast<double>(memory.swap_free));
    row.value =
        zse::text("on: ", human(memory.swap_total), ", of which ", human(memory.swap_free), " are free");
    if (swappiness) row.value += zse::text(", swappiness ", *swappiness);
    if (swappiness && *swappiness <= low_swappiness) return row;
    row.verdict = Verdict::advice;
    row.advice =
        "a model in swap answers at the speed of the disk: switch swap off (sudo swapoff -a), set swappiness "
        "to 1 "
        "(sudo sysctl vm.swappiness=1), or keep the model in memory (--mlock)";
    return row;
}

inline Finding find_transparent_pages(const Root& root) {
    const TransparentPages pages = read_transparent_pages(root);
    Finding row{{}, "this kernel has none", {}, {}, {{"used", static_cast<double>(pages.used)}}};
    if (pages.mode.empty()) return row;
    row.value = zse::text(pages.mode, ", ", human(pages.used), " in use");
    if (pages.mode != "never") return row;
    row.verdict = Verdict::advice;
    row.advice =
        "large arenas ask for huge pages and get none: allow them "
        "(echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled)";
    return row;
}

inline Finding find_huge_pages(const Examination& of) {
    const Memory memory = read_memory(of.root);
    Finding row{{},
                zse::text(memory.huge_pages_free, " of ", memory.huge_pages_total, " free"),
                {},
                {},
                {{"total", static_cast<double>(memory.huge_pages_total)},
                 {"free", static_cast<double>(memory.huge_pages_free)},
                 {"page_bytes", static_cast<double>(memory.huge_page_size)}}};
    if (!of.model) return row;
    row.value += zse::text("; the model needs ", of.model_huge_pages, " of 2 MiB");
    row.figures.emplace_back("needed", static_cast<double>(of.model_huge_pages));
    // Whoever set some aside wants them used; without any, transparent ones do.
    if (memory.huge_pages_total == 0 || memory.huge_pages_free >= of.model_huge_pages) return row;
    row.verdict = Verdict::advice;
    row.advice = zse::text(
        "fewer are free than --huge-pages explicit would take: set more aside (sudo sysctl vm.nr_hugepages=",
        memory.huge_pages_total - memory.huge_pages_free + of.model_huge_pages, ")");
    return row;
}

inline Finding find_overcommit(const Examination& of) {
    const Overcommit over = read_overcommit(of.root);
    if (!over.mode) return {{}, "not said", {}, {}, {}};
    Finding row{{}, zse::text("mode ", *over.mode), {}, {}, {{"mode", *over.mode}}};
    row.figures.emplace_back("limit", static_cast<double>(over.limit));
    row.figures.emplace_back("committed", static_cast<double>(over.committed));
    if (*over.mode != 2) return row;
    row.value += zse::text(", ", human(over.committed), " of ", human(over.limit), " promised");
    const Bytes wanted = of.model.value_or(probe_host(of.root).usable_memory());
    if (over.left() >= wanted) return row;
    row.verdict = Verdict::warning;
    row.advice = zse::text("the kernel promises ", human(over.left()), " more, less than the ", human(wanted),
                           of.model ? " that the model takes" : " that are usable",
                           ": raise vm.overcommit_ratio, or set vm.overcommit_memory to 0");
    return row;
}

inline Finding find_kernel_log(const Examination& of) {
    const KernelLog log = read_kernel_log(of.root, of.dmesg);
    if (log.status == KernelLog::Status::absent) return {{}, "there is no kernel log here", {}, {}, {}};
    if (log.status == KernelLog::Status::denied) {
        return {
            {},
            "may not be read",
            Verdict::advice,
            "run zse doctor as root, or 'sudo dmesg | grep -i \"killed process\"', to see whether the kernel "
            "killed a process for memory",
            {}};
    }
    const auto kills = find_oom_kills(log.text);
    const auto self = read_process(of.root, of.pid);
    const std::string ours = self && !self->name.empty() ? self->name : "zse";
    const auto count =
        std::count_if(kills.begin(), kills.end(), [&](const OomKill& kill) { return kill.name == ours; });
    Finding row{{},
                "no process was killed for memory",
                {},
                {},
                {{"kills", static_cast<double>(kills.size())}, {"ours", static_cast<double>(count)}}};
    if (kills.empty()) return row;
    const OomKill& last = kills.back();
    row.value =
        zse::text(kills.size(), " killed for memory, ", count, " of them ", ours, "; the last was ",
                  last.name, " (", last.pid, ")", last.group ? " at the limit of its control group" : "");
    row.verdict = count != 0 ? Verdict::warning : Verdict::advice;
    row.advice = last.group
                     ? "raise the memory limit of the container or group, or plan fewer bytes (zse plan)"
                     : "leave more memory free (--headroom, --reserve), or plan fewer bytes (zse plan)";
    return row;
}

inline Finding find_group_kills(const Root& root) {
    const auto kills = read_group_kills(root);
    if (!kills) return {{}, "no control group that counts them", {}, {}, {}};
    Finding row{{}, zse::text(*kills), {}, {}, {{"kills", static_cast<double>(*kills)}}};
    if (*kills == 0) return row;
    row.verdict = Verdict::warning;
    row.advice =
        "the kernel killed processes of this control group at its limit: raise it, or plan fewer bytes (zse "
        "plan)";
    return row;
}

inline Finding find_pressure(const Root& root, const std::string& file) {
    const auto pressure = read_pressure(root, file);
    if (!pressure) return {{}, "not measured here", {}, {}, {}};
    // Hundredths, as the kernel writes them.
    const auto percent = [](double value) {
        char shown[16];
        std::snprintf(shown, sizeof shown, "%.2f %%", value);
        return std::string(shown);
    };
    Finding row{{}, zse::text("some ", percent(pressure->some.avg10)), {}, {}, {}};
    const auto add = [&row](const std::string& kind, const PressureLine& line) {
        row.figures.emplace_back(kind + "_avg10", line.avg10);
        row.figures.emplace_back(kind + "_avg60", line.avg60);
        row.figures.emplace_back(kind + "_avg300", line.avg300);
        row.figures.emplace_back(kind + "_total", static_cast<double>(line.total));
    };
    add("some", pressure->some);
    if (pressure->full) {
        row.value += zse::text(", full ", percent(pressure->full->avg10));
        add("full", *pressure->full);
    }
    row.value += " of the last 10 s";
    if (pressure->some.avg10 <= low_pressure) return row;
    const bool high = pressure->some.avg10 > high_pressure;
    row.verdict = high ? Verdict::warning : Verdict::advice;
    row.advice =
        high
            ? "tasks wait for memory, and zse admits half as many sequences: free memory, or plan fewer bytes"
            : "tasks begin to wait for memory: leave more of it free (--headroom)";
    return row;
}

/// The least that a limit may leave where no model is named: a small model in 4 bits.
inline constexpr Bytes little_memory = MiB(128);

/// A row on a limit in bytes, of which `left` are left.
inline Finding find_limit(const Examination& of, Bytes limit, Bytes left, std::string_view where,
                          std::string_view advice) {
    Finding row{{},
                zse::text(human(limit), ", of which ", human(left), " are left", where),
                {},
                {},
                {{"limit", static_cast<double>(limit)}, {"left", static_cast<double>(left)}}};
    if (left >= of.model.value_or(little_memory)) return row;
    row.verdict = Verdict::warning;
    row.advice = zse::text(of.model ? "the model takes " : "even a small model takes ",
                           human(of.model.value_or(little_memory)), ": ", advice);
    return row;
}

inline Finding find_container(const Examination& of) {
    const Cgroup group = read_cgroup(of.root);
    if (!group.limit) return {{}, group.version == 0 ? "no control group" : "none", {}, {}, {}};
    return find_limit(
        of, *group.limit, *group.headroom(),
        zse::text(" (control group of version ", group.version, ", ", group.path, ")"),
        "raise the limit of the container or group (memory.max, memory.high), or plan fewer bytes");
}

inline Finding find_rlimit(const Examination& of, const Rlimit& limit, std::string_view option) {
    if (!limit.limit) return {{}, "unlimited", {}, {}, {}};
    return find_limit(of, *limit.limit, *limit.left(), "",
                      zse::text("raise the limit (ulimit ", option, "), or plan fewer bytes"));
}

/// Silent where no model is named: 8 MiB are the usual limit, and only --mlock meets it.
inline Finding find_locked(const Examination& of, const Rlimit& limit) {
    if (!limit.limit) return {{}, "unlimited", {}, {}, {}};
    Examination named = of;
    if (!of.model) named.model = 0;
    Finding row = find_limit(named, *limit.limit, *limit.left(), "",
                             "--mlock keeps none of it out of swap before the limit is raised (ulimit -l)");
    if (row.verdict == Verdict::warning) row.verdict = Verdict::advice;
    return row;
}

inline Finding find_memory(const Examination& of) {
    const Hardware machine = probe_host(of.root);
    const Bytes usable = machine.usable_memory();
    Finding row{{},
                zse::text(human(machine.memory.total), " in all, ", human(machine.memory.available),
                          " available, ", human(usable), " usable here"),
                {},
                {},
                {{"total", static_cast<double>(machine.memory.total)},
                 {"available", static_cast<double>(machine.memory.available)},
                 {"usable", static_cast<double>(usable)}}};
    if (!of.model) return row;
    row.value += zse::text("; the model takes ", human(*of.model));
    row.figures.emplace_back("model", static_cast<double>(*of.model));
    if (*of.model <= usable) return row;
    row.verdict = Verdict::warning;
    row.advice = "the model takes more than is usable: ask zse plan what would fit";
    return row;
}

inline Finding find_thrashing(const Examination& of) {
    const auto process = read_process(of.root, of.pid);
    if (!process)
        return {{}, "there is no such process", Verdict::warning, "name one that runs with --pid", {}};
    const double rate = of.fault_rate.value_or(process->fault_rate());
    char shown[32];
    std::snprintf(shown, sizeof shown, "%.1f", rate);
    Finding row{{},
                zse::text(process->name, ": ", human(process->swapped), " in swap, ", shown,
                          " major faults a second", of.fault_rate ? "" : " over its life"),
                {},
                {},
                {{"swapped", static_cast<double>(process->swapped)},
                 {"major_faults", static_cast<double>(process->major_faults)},
                 {"major_faults_per_second", rate},
                 {"resident", static_cast<double>(process->resident)}}};
    if (rate > many_major_faults) {
        row.verdict = Verdict::warning;
        row.advice = "it reads its memory back from a disk all the time: plan fewer bytes, or free memory";
    } else if (process->swapped != 0) {
        row.verdict = Verdict::advice;
        row.advice =
            "part of it lies in swap, and is read back when it is next used: free memory, or use --mlock";
    }
    return row;
}

}  // namespace detail

/// All rows, always in this order. Never throws for what a file holds: such a row says so.
inline std::vector<Finding> examine(const Examination& of) {
    const auto rlimit = [&](Rlimit Rlimits::*which, std::string_view option) {
        const Rlimits limits = read_rlimits(of.root);
        return option == "-l" ? detail::find_locked(of, limits.*which)
                              : detail::find_rlimit(of, limits.*which, option);
    };
    return {
        find("memory", [&] { return detail::find_memory(of); }),
        find("swap", [&] { return detail::find_swap(of.root); }),
        find("transparent huge pages", [&] { return detail::find_transparent_pages(of.root); }),
        find("explicit huge pages", [&] { return detail::find_huge_pages(of); }),
        find("overcommit", [&] { return detail::find_overcommit(of); }),
        find("kernel log", [&] { return detail::find_kernel_log(of); }),
        find("kills in the group", [&] { return detail::find_group_kills(of.root); }),
        find("pressure", [&] { return detail::find_pressure(of.root, std::string(machine_pressure_file)); }),
        find("pressure of the group",
             [&] { return detail::find_pressure(of.root, group_pressure_file(of.root)); }),
        find("container limit", [&] { return detail::find_container(of); }),
        find("address space", [&] { return rlimit(&Rlimits::address_space, "-v"); }),
        find("data segment", [&] { return rlimit(&Rlimits::data, "-d"); }),
        find("locked memory", [&] { return rlimit(&Rlimits::locked, "-l"); }),
        find("thrashing", [&] { return detail::find_thrashing(of); }),
    };
}

}  // namespace system
}  // namespace zse::inline v1
