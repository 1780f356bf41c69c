// SPDX-License-Identifier: Apache-2.0
// All probes together, and the two numbers that a plan starts from: memory and threads that may be used.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/system/cgroup.hpp>
#include <zse/system/cpu.hpp>
#include <zse/system/gpu.hpp>
#include <zse/system/meminfo.hpp>
#include <zse/system/rlimits.hpp>
#include <zse/system/root.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace system {

struct Hardware {
    Memory memory;
    Cpu cpu;
    Cgroup cgroup;
    Rlimits rlimits;
    std::vector<Gpu> gpus;
    std::string gpu_note;  ///< why there is no GPU, in one line; empty where there is one

    /// Bytes that this process can take now without swapping, without being killed and without being refused:
    /// available memory of the machine, or what its control groups or resource limits leave if that is less.
    [[nodiscard]] Bytes usable_memory() const noexcept {
        const Bytes grouped = std::min(memory.available, cgroup.headroom().value_or(memory.available));
        return std::min(grouped, rlimits.mappable().value_or(grouped));
    }
    /// Of these, bytes that can also be kept out of swap. RLIMIT_MEMLOCK is 8 MiB on most systems and says nothing
    /// about memory that is not locked, so it bounds only this.
    [[nodiscard]] Bytes lockable_memory() const noexcept {
        const Bytes usable = usable_memory();
        return std::min(usable, rlimits.lockable().value_or(usable));
    }

    /// Threads that can run at once: CPUs that the process may run on, or its CPU quota if that is less,
    /// rounded down, since a team that spins beyond its quota is stopped for the rest of each period. At
    /// least 1.
    [[nodiscard]] unsigned usable_threads() const noexcept {
        const double quota = cgroup.cpus.value_or(cpu.allowed);
        return quota >= cpu.allowed ? cpu.allowed : std::max(static_cast<unsigned>(quota), 1u);
    }
};

/// Probes memory and processor under the root, and no GPU: for that a program has to be run. Errors: not_found where
/// there is no proc/meminfo, corrupt where the kernel's files are not as the kernel writes them.
inline Hardware probe_host(const Root& root = {}) {
    Hardware hardware;
    hardware.memory = read_memory(root);
    hardware.cpu = read_cpu(root);
    hardware.cgroup = read_cgroup(root);
    hardware.rlimits = read_rlimits(root);
    return hardware;
}

/// The same with the GPUs that the command finds.
inline Hardware probe(const Root& root = {}, const CommandHook& command = run_within_seconds) {
    Hardware hardware = probe_host(root);
    GpuReport report = query_gpus(command);
    hardware.gpus = std::move(report.gpus);
    hardware.gpu_note = std::move(report.note);
    return hardware;
}

}  // namespace system
}  // namespace zse::inline v1
