// SPDX-License-Identifier: Apache-2.0
// The parts of a plan that reports speak of, their shares, and the ranges in which those usually lie.
#pragma once

#include <zse/memory/plan.hpp>

#include <array>
#include <string_view>

namespace zse::inline v1 {
namespace planning {

/// What the bytes of a plan come to, in four parts.
enum class Part : std::uint8_t {
    weights,
    kv,           ///< pages, and the tables that find them
    activations,  ///< scratch, logits, candidates, buffers of copies
    overhead,     ///< tokenizer, bookkeeping and rounding
};
inline constexpr std::size_t part_count = 4;
inline constexpr std::array<Part, part_count> all_parts{Part::weights, Part::kv, Part::activations,
                                                        Part::overhead};

constexpr std::string_view name(Part part) noexcept {
    constexpr std::array<std::string_view, part_count> names{"weights", "kv", "activations", "overhead"};
    return names[static_cast<std::size_t>(part)];
}

constexpr Part part_of(memory::Kind kind) noexcept {
    using memory::Kind;
    switch (kind) {
        case Kind::weights: return Part::weights;
        case Kind::kv:
        case Kind::prompt_cache:
        case Kind::page_tables: return Part::kv;
        case Kind::scratch:
        case Kind::logits:
        case Kind::sampling:
        case Kind::staging: return Part::activations;
        default: return Part::overhead;
    }
}

/// Whether what is in use of a kind follows the requests. zse takes all of it when it opens a model; the others stay as
/// they are from then on.
constexpr bool dynamic(memory::Kind kind) noexcept {
    return part_of(kind) == Part::kv || part_of(kind) == Part::activations;
}

/// Bytes of one part; those of all parts add up to the total.
constexpr Bytes bytes_of(const memory::TierPlan& tier, Part part) noexcept {
    Bytes sum = 0;
    for (std::size_t i = 0; i < memory::kind_count; ++i) {
        if (part_of(static_cast<memory::Kind>(i)) == part) sum = saturating_add(sum, tier.kinds[i]);
    }
    return sum;
}
constexpr Bytes bytes_of(const memory::Plan& plan, Part part) noexcept {
    Bytes sum = 0;
    for (const memory::Tier tier : memory::all_tiers) sum = saturating_add(sum, bytes_of(plan[tier], part));
    return sum;
}
/// Bytes of what does not depend on requests; the rest of the total does.
constexpr Bytes static_bytes(const memory::TierPlan& tier) noexcept {
    return saturating_add(bytes_of(tier, Part::weights), bytes_of(tier, Part::overhead));
}

constexpr double percent(Bytes part, Bytes whole) noexcept {
    return whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

/// In percent.
struct Range {
    double low = 0;
    double high = 100;

    /// -1 below it, 1 above it, 0 within.
    [[nodiscard]] constexpr int side(double value) const noexcept {
        return value < low ? -1 : (value > high ? 1 : 0);
    }
};

/// Where a part's share of memory in use lies for a model that was chosen for its machine: weights 60 to 80 %, KV 15 to
/// 30 %, activations 5 to 10 %, runtime 2 to 5 %.
constexpr Range usual(Part part) noexcept {
    constexpr std::array<Range, part_count> ranges{{{60, 80}, {15, 30}, {5, 10}, {2, 5}}};
    return ranges[static_cast<std::size_t>(part)];
}

/// Where the share of memory that KV may take lies for loads that change, in percent: 30 to 50.
inline constexpr double least_kv_room = 30;

/// What is left for KV beside all else, as a share of a cap in percent. An empty tier leaves nothing.
constexpr double kv_room(const memory::TierPlan& tier, Bytes cap) noexcept {
    const Bytes others = tier.total() - tier[memory::Kind::kv];
    return others >= cap ? 0.0 : percent(cap - others, cap);
}

}  // namespace planning
}  // namespace zse::inline v1
