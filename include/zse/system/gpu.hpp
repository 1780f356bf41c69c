// SPDX-License-Identifier: Apache-2.0
// NVIDIA GPUs and their memory, as the driver's own tool reports them: no CUDA is needed to ask.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/system/command.hpp>
#include <zse/system/root.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace system {

/// One GPU. What the driver calls not available is empty: total and free memory are where GPU and CPU share
/// it.
struct Gpu {
    struct Capability {
        unsigned major = 0;
        unsigned minor = 0;
        friend bool operator==(const Capability&, const Capability&) = default;
    };

    unsigned index = 0;
    std::string name;
    std::optional<Bytes> total;
    std::optional<Bytes> free;
    std::optional<Capability> capability;  ///< compute capability: 9.0 is {9, 0}

    friend bool operator==(const Gpu&, const Gpu&) = default;
};

namespace detail {

inline constexpr std::size_t most_gpus = 256;

/// "[N/A]", "[Not Supported]", "[Unknown Error]", "N/A".
constexpr bool not_available(std::string_view field) noexcept {
    return field == "N/A" || (field.size() >= 2 && field.front() == '[' && field.back() == ']');
}

/// Cuts off and gives what follows the last comma of a line.
constexpr std::string_view take_last(std::string_view& rest) noexcept {
    const std::size_t comma = rest.rfind(',');
    const std::string_view part =
        comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    rest = rest.substr(0, comma == std::string_view::npos ? 0 : comma);
    return trimmed(part);
}

[[noreturn]] inline void refuse_gpu(std::size_t line, std::string_view field, std::string_view found) {
    throw Error(ErrorCode::corrupt, zse::text("nvidia-smi: line ", line, ": expected ", field, ", found ",
                                              quoted(found), "; run nvidia-smi and check the driver"));
}

}  // namespace detail

/// The question, in the order that parse_nvidia_smi expects.
inline const std::vector<std::string>& nvidia_smi_query() {
    static const std::vector<std::string> arguments{
        "nvidia-smi", "--query-gpu=index,name,memory.total,memory.free,compute_cap",
        "--format=csv,noheader,nounits"};
    return arguments;
}

/// Reads the answer to nvidia_smi_query: a line per GPU, memory in MiB. Index and name are required.
/// Error: corrupt, with the line, where it is something else; the tool writes some failures to its output.
inline std::vector<Gpu> parse_nvidia_smi(std::string_view text) {
    std::vector<Gpu> gpus;
    for (std::size_t line_number = 1; !text.empty(); ++line_number) {
        std::string_view line = detail::trimmed(detail::take_until(text, '\n'));
        if (line.empty()) continue;
        if (gpus.size() == detail::most_gpus) {
            detail::refuse_gpu(line_number, zse::text("at most ", detail::most_gpus, " GPUs"), line);
        }
        const auto mebibytes = [line_number](std::string_view name,
                                             std::string_view field) -> std::optional<Bytes> {
            if (detail::not_available(field)) return std::nullopt;
            const auto value = detail::number<std::uint64_t>(field);
            if (!value || *value > (std::uint64_t{1} << 40)) {
                detail::refuse_gpu(line_number, zse::text(name, " in MiB"), field);
            }
            return MiB(*value);
        };
        const std::string_view whole = line;
        Gpu gpu;
        const auto index = detail::number<unsigned>(detail::trimmed(detail::take_until(line, ',')));
        // The name comes last, since it may hold commas.
        std::string_view capability = detail::take_last(line);
        const std::string_view free = detail::take_last(line);
        const std::string_view total = detail::take_last(line);
        gpu.name = detail::trimmed(line);
        if (!index || gpu.name.empty()) {
            detail::refuse_gpu(line_number, "index, name, total memory, free memory, compute capability",
                               whole);
        }
        gpu.index = *index;
        gpu.total = mebibytes("total memory", total);
        gpu.free = mebibytes("free memory", free);
        if (gpu.total && gpu.free && *gpu.free > *gpu.total) {
            detail::refuse_gpu(line_number, "free memory of at most the total", whole);
        }
        if (!detail::not_available(capability)) {
            const std::string_view found = capability;
            const auto major = detail::number<unsigned>(detail::take_until(capability, '.'));
            const auto minor = detail::number<unsigned>(capability);
            if (!major || !minor) detail::refuse_gpu(line_number, "a compute capability such as 9.0", found);
            gpu.capability = Gpu::Capability{*major, *minor};
        }
        gpus.push_back(std::move(gpu));
    }
    return gpus;
}

/// The GPUs, or none and the reason why.
struct GpuReport {
    std::vector<Gpu> gpus;
    std::string note;  ///< one line, where there is no GPU
};

/// How a command is run; tests put text in the place of a program.
using CommandHook = std::function<CommandResult(const std::vector<std::string>&)>;

inline CommandResult run_within_seconds(const std::vector<std::string>& arguments) {
    return run_command(arguments, std::chrono::seconds(5));
}

/// Asks nvidia-smi. Never throws for what the tool does: a machine without GPU or with a broken driver is one
/// without GPUs here, and the note says what happened.
inline GpuReport query_gpus(const CommandHook& command = run_within_seconds) {
    using Status = CommandResult::Status;
    const CommandResult answer = command(nvidia_smi_query());
    GpuReport report;
    switch (answer.status) {
        case Status::absent: report.note = "no NVIDIA GPU found: there is no nvidia-smi"; return report;
        case Status::timed_out: report.note = "no NVIDIA GPU used: nvidia-smi does not answer"; return report;
        case Status::too_long: report.note = "no NVIDIA GPU used: nvidia-smi wrote too much"; return report;
        case Status::killed: report.note = "no NVIDIA GPU used: nvidia-smi crashed"; return report;
        case Status::finished: break;
    }
    if (answer.exit_status != 0) {
        std::string_view output = answer.output;
        report.note = zse::text("no NVIDIA GPU used: nvidia-smi ended with status ", answer.exit_status, ": ",
                                detail::quoted(detail::trimmed(detail::take_until(output, '\n'))));
        return report;
    }
    try {
        report.gpus = parse_nvidia_smi(answer.output);
        if (report.gpus.empty()) report.note = "no NVIDIA GPU found: nvidia-smi lists none";
    } catch (const Error& error) {
        report.note = zse::text("no NVIDIA GPU used: ", error.what());
    }
    return report;
}

}  // namespace system
}  // namespace zse::inline v1
