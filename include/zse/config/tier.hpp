// SPDX-License-Identifier: Apache-2.0
// The tiers that keys and values may lie in, fastest first, and how many bytes of them each holds at most.
#pragma once

#include <zse/core/size.hpp>
#include <zse/memory/plan.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace config {

/// One tier for KV. The size bounds KV alone, not all that the tier holds; it is a cap, not a demand.
struct TierConfig {
    memory::Tier type = memory::Tier::host;
    Size size;         ///< automatic: what the tier has left
    std::string path;  ///< of a disk tier: the directory of its file
    friend bool operator==(const TierConfig&, const TierConfig&) = default;
};

/// The tier of this name; cpu and host are one.
inline Result<memory::Tier> tier_called(std::string_view name) {
    if (name == "gpu") return memory::Tier::gpu;
    if (name == "cpu" || name == "host") return memory::Tier::host;
    if (name == "disk") return memory::Tier::disk;
    return Error(ErrorCode::usage,
                 text(v1::detail::shown(name), " is no tier; write gpu, cpu (or host), or disk"));
}

/// The name that files and flags have for a tier.
constexpr std::string_view spelled(memory::Tier tier) noexcept {
    return tier == memory::Tier::host ? "cpu" : memory::name(tier);
}

/// Why a tier cannot stand after those before it; empty where it can.
inline std::string defect(const std::vector<TierConfig>& before, const TierConfig& tier) {
    const std::string name(spelled(tier.type));
    const bool disk = tier.type == memory::Tier::disk;
    for (const TierConfig& other : before) {
        if (other.type == tier.type)
            return text("the ", name, " tier is there twice; state one size for each tier");
        if (other.type > tier.type) {
            return text("the ", name, " tier stands after the ", spelled(other.type),
                        " tier; the order is gpu, cpu, disk, fastest first");
        }
    }
    if (!tier.size.automatic && tier.size.bytes == 0)
        return text("the ", name, " tier holds 0 bytes; leave it out");
    if (disk && tier.size.automatic)
        return "a disk tier needs a size, such as 100GB; auto is for gpu and cpu";
    if (disk && tier.path.empty()) return "a disk tier needs a path, the directory of its file";
    if (!disk && !tier.path.empty()) return text("a path belongs to a disk tier, not to the ", name, " tier");
    return "";
}

/// A tier as a flag has it: "gpu:auto", "cpu:32GB", "disk:100GB:/var/cache". Error: usage.
inline Result<TierConfig> parse_tier(std::string_view written) {
    const auto colon = written.find(':');
    if (colon == std::string_view::npos) {
        return Error(ErrorCode::usage, text(v1::detail::shown(written),
                                            " is no tier with a size; write gpu:auto, cpu:32GB or "
                                            "disk:100GB:PATH"));
    }
    const auto type = tier_called(written.substr(0, colon));
    if (!type) return type.error();
    std::string_view rest = written.substr(colon + 1);
    const auto second = rest.find(':');
    const auto size = parse_size(rest.substr(0, second));
    if (!size) return size.error();
    const std::string_view path = second == std::string_view::npos ? "" : rest.substr(second + 1);
    return TierConfig{type.value(), size.value(), std::string(path)};
}

/// The flag's value that reads back as this tier.
inline std::string flag_of(const TierConfig& tier) {
    return text(spelled(tier.type), ":", tier.size.automatic ? "auto" : std::to_string(tier.size.bytes),
                tier.path.empty() ? "" : ":", tier.path);
}

/// The tiers of a repeated flag. Throws usage where one is no tier, or they contradict each other.
inline std::vector<TierConfig> parse_tiers(const std::vector<std::string>& written) {
    std::vector<TierConfig> tiers;
    for (const std::string& each : written) {
        TierConfig tier = parse_tier(each).value();
        if (const std::string why = defect(tiers, tier); !why.empty())
            throw Error(ErrorCode::usage, text(v1::detail::shown(each), ": ", why));
        tiers.push_back(std::move(tier));
    }
    return tiers;
}

/// "gpu:auto,cpu:32GB,disk:100GB:/a,b" in its parts: the path of a disk tier, which is the last, may have commas.
inline std::vector<std::string> split_tiers(std::string_view list) {
    std::vector<std::string> parts;
    while (true) {
        const auto comma = list.starts_with("disk:") ? std::string_view::npos : list.find(',');
        parts.emplace_back(list.substr(0, comma));
        if (comma == std::string_view::npos) return parts;
        list.remove_prefix(comma + 1);
    }
}

}  // namespace config
}  // namespace zse::inline v1
