// SPDX-License-Identifier: Apache-2.0
// What an engine will hold, in bytes per tier and kind. Computed once, printed by the calculator, executed by
// the allocator; no other formula for memory exists.
#pragma once

#include <zse/core/bytes.hpp>

#include <array>
#include <cstddef>
#include <string_view>

namespace zse::inline v1 {
namespace memory {

/// Where bytes live, fastest first.
enum class Tier : std::uint8_t { gpu, host, disk };
inline constexpr std::size_t tier_count = 3;

/// What bytes are for.
enum class Kind : std::uint8_t {
    weights,      ///< packed matrices, norms, biases
    kv,           ///< pages of keys and values
    scratch,      ///< activations of one step, shared by buffers that never live together
    logits,       ///< `[output_rows, vocabulary]` float32
    sampling,     ///< candidate lists of the sampler
    page_tables,  ///< which page holds which tokens of a sequence
    control,      ///< token histories and the arrays that describe a step
    rounding,     ///< what whole pages of the system add to the kinds above
};
inline constexpr std::size_t kind_count = 8;

/// The system's page: every arena is a whole number of these.
inline constexpr Bytes system_page = 4096;

constexpr std::string_view name(Tier tier) noexcept {
    constexpr std::array<std::string_view, tier_count> names{"gpu", "host", "disk"};
    return names[static_cast<std::size_t>(tier)];
}

constexpr std::string_view name(Kind kind) noexcept {
    constexpr std::array<std::string_view, kind_count> names{
        "weights", "kv", "scratch", "logits", "sampling", "page_tables", "control", "rounding"};
    return names[static_cast<std::size_t>(kind)];
}

/// Bytes of one tier by kind.
struct TierPlan {
    std::array<Bytes, kind_count> kinds{};

    constexpr Bytes& operator[](Kind kind) noexcept { return kinds[static_cast<std::size_t>(kind)]; }
    constexpr Bytes operator[](Kind kind) const noexcept { return kinds[static_cast<std::size_t>(kind)]; }

    [[nodiscard]] constexpr Bytes total() const noexcept {
        Bytes sum = 0;
        for (const Bytes bytes : kinds) sum = saturating_add(sum, bytes);
        return sum;
    }
    friend constexpr bool operator==(const TierPlan&, const TierPlan&) = default;
};

/// Bytes by tier and kind, and the few counts that the sizes follow from.
struct Plan {
    TierPlan gpu, host, disk;
    std::uint64_t kv_pages = 0;    ///< pages in the pool
    Bytes kv_page_bytes = 0;       ///< bytes of one page, all layers of its group
    Bytes kv_bytes_per_token = 0;  ///< codes and scales of one token, all layers, without page padding
    Bytes scratch_per_thread = 0;  ///< the part of scratch that each thread has to itself
    std::uint64_t parameters = 0;  ///< weights of the model, counted once

    constexpr TierPlan& operator[](Tier tier) noexcept {
        return tier == Tier::gpu ? gpu : (tier == Tier::host ? host : disk);
    }
    constexpr const TierPlan& operator[](Tier tier) const noexcept {
        return tier == Tier::gpu ? gpu : (tier == Tier::host ? host : disk);
    }
    [[nodiscard]] constexpr Bytes total() const noexcept {
        return saturating_add(saturating_add(gpu.total(), host.total()), disk.total());
    }
    friend constexpr bool operator==(const Plan&, const Plan&) = default;

    /// Plans `bytes` of `kind`, and what rounding them up to whole system pages adds.
    constexpr void add(Tier tier, Kind kind, Bytes bytes) noexcept {
        TierPlan& part = (*this)[tier];
        part[kind] = saturating_add(part[kind], bytes);
        const Bytes tail = bytes % system_page;
        part[Kind::rounding] = saturating_add(part[Kind::rounding], tail == 0 ? 0 : system_page - tail);
    }
};

}  // namespace memory
}  // namespace zse::inline v1
