// SPDX-License-Identifier: Apache-2.0
// What an engine will hold, in bytes per tier and kind. Computed once, printed by the calculator, executed by
// the allocator; no other formula for memory exists.
#pragma once

#include <zse/core/bytes.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

namespace zse::inline v1 {
namespace memory {

/// Where bytes live, fastest first.
enum class Tier : std::uint8_t { gpu, host, disk };
inline constexpr std::size_t tier_count = 3;
inline constexpr std::array<Tier, tier_count> all_tiers{Tier::gpu, Tier::host, Tier::disk};

/// What bytes are for.
enum class Kind : std::uint8_t {
    weights,       ///< packed matrices, norms, biases
    kv,            ///< pages of keys and values
    prompt_cache,  ///< pages that no sequence uses, kept for prompts that begin alike
    scratch,       ///< activations of one step, shared by buffers that never live together
    logits,        ///< `[output_rows, vocabulary]` float32
    sampling,      ///< candidate lists of the sampler
    staging,       ///< buffers through which bytes move from tier to tier
    page_tables,   ///< which page holds which tokens of a sequence, and who shares it
    tokenizer,     ///< tokens, merges and their tables
    control,       ///< token histories, the arrays that describe a step, where matrices lie
    rounding,      ///< what whole pages of the system add to the kinds above
};
inline constexpr std::size_t kind_count = 11;

/// The system's page: every arena is a whole number of these.
inline constexpr Bytes system_page = KiB(4);
/// A huge page: arenas of at least this size are a whole number of these, whatever pages the system gives.
inline constexpr Bytes huge_page = MiB(2);

/// Bytes of an arena that holds `bytes`: with what rounding to whole pages adds.
constexpr Bytes arena_bytes(Bytes bytes) noexcept {
    return round_up(bytes, bytes >= huge_page ? huge_page : system_page);
}

constexpr std::string_view name(Tier tier) noexcept {
    constexpr std::array<std::string_view, tier_count> names{"gpu", "host", "disk"};
    return names[static_cast<std::size_t>(tier)];
}

constexpr std::string_view name(Kind kind) noexcept {
    constexpr std::array<std::string_view, kind_count> names{
        "weights", "kv",          "prompt_cache", "scratch", "logits",  "sampling",
        "staging", "page_tables", "tokenizer",    "control", "rounding"};
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

/// A pool of equal pages.
struct PoolPlan {
    Tier tier = Tier::host;
    std::uint64_t pages = 0;
    Bytes page_bytes = 0;
    std::uint64_t sequence_pages = 0;  ///< pages of a sequence that fills its context
    std::uint64_t host_pages = 0;      ///< of `pages`, those that a gpu tier leaves to the host
    std::uint64_t disk_pages = 0;      ///< of `pages`, those that memory leaves to the disk
    Bytes disk_page_bytes = 0;         ///< of a page there, padded to blocks
    Bytes staging_bytes = 0;           ///< buffers in host memory through which pages go to disk and back

    /// Bytes in `tier`; the two below those in the tiers behind it.
    [[nodiscard]] constexpr Bytes bytes() const noexcept {
        return saturating_mul(pages - host_pages - disk_pages, page_bytes);
    }
    [[nodiscard]] constexpr Bytes host_bytes() const noexcept {
        return saturating_mul(host_pages, page_bytes);
    }
    [[nodiscard]] constexpr Bytes disk_bytes() const noexcept {
        return saturating_mul(disk_pages, disk_page_bytes);
    }
    friend constexpr bool operator==(const PoolPlan&, const PoolPlan&) = default;
};

/// Bytes by tier and kind, and the few counts that the sizes follow from.
struct Plan {
    static constexpr std::size_t most_pools = 16;

    TierPlan gpu, host, disk;
    std::array<PoolPlan, most_pools> pools{};  ///< one for each group of layers whose cache is alike
    std::size_t pool_count = 0;
    Bytes kv_bytes_per_token = 0;  ///< codes and scales of one new token, all layers, without page padding
    Bytes scratch_per_thread = 0;  ///< the part of scratch that each thread has to itself
    Bytes weights_staging = 0;     ///< the part of staging through which weights pass
    std::array<std::uint64_t, tier_count> huge_pages{};  ///< see huge_pages_in()
    std::uint64_t parameters = 0;                        ///< weights of the model, counted once

    constexpr TierPlan& operator[](Tier tier) noexcept {
        return tier == Tier::gpu ? gpu : (tier == Tier::host ? host : disk);
    }
    constexpr const TierPlan& operator[](Tier tier) const noexcept {
        return tier == Tier::gpu ? gpu : (tier == Tier::host ? host : disk);
    }
    [[nodiscard]] constexpr Bytes total() const noexcept {
        return saturating_add(saturating_add(gpu.total(), host.total()), disk.total());
    }
    /// Pages of 2 MiB that would hold the arenas of a tier that are large enough for them: what vm.nr_hugepages needs.
    [[nodiscard]] constexpr std::uint64_t huge_pages_in(Tier tier) const noexcept {
        return huge_pages[static_cast<std::size_t>(tier)];
    }
    /// Bytes of one kind in all tiers.
    [[nodiscard]] constexpr Bytes of(Kind kind) const noexcept {
        return saturating_add(saturating_add(gpu[kind], host[kind]), disk[kind]);
    }
    [[nodiscard]] constexpr std::span<const PoolPlan> kv_pools() const noexcept {
        return {pools.data(), pool_count};
    }
    /// Bytes of the pages of one sequence that fills its context.
    [[nodiscard]] constexpr Bytes kv_bytes_per_sequence() const noexcept {
        Bytes sum = 0;
        for (const PoolPlan& pool : kv_pools()) {
            sum = saturating_add(sum, saturating_mul(pool.sequence_pages, pool.page_bytes));
        }
        return sum;
    }
    friend constexpr bool operator==(const Plan&, const Plan&) = default;

    /// Plans an arena of `bytes` of `kind`, and what rounding it up to whole pages of the system adds.
    constexpr void add(Tier tier, Kind kind, Bytes bytes) noexcept {
        TierPlan& part = (*this)[tier];
        part[kind] = saturating_add(part[kind], bytes);
        part[Kind::rounding] = saturating_add(part[Kind::rounding], arena_bytes(bytes) - bytes);
        if (bytes < huge_page) return;
        std::uint64_t& pages = huge_pages[static_cast<std::size_t>(tier)];
        pages = saturating_add(pages, ceil_div(bytes, huge_page));
    }
};

/// The bytes of several engines that live together.
constexpr Plan operator+(const Plan& a, const Plan& b) noexcept {
    Plan sum = a;
    for (const Tier tier : all_tiers) {
        for (std::size_t i = 0; i < kind_count; ++i) {
            sum[tier].kinds[i] = saturating_add(sum[tier].kinds[i], b[tier].kinds[i]);
        }
        const auto index = static_cast<std::size_t>(tier);
        sum.huge_pages[index] = saturating_add(sum.huge_pages[index], b.huge_pages[index]);
    }
    sum.parameters += b.parameters;
    return sum;
}

}  // namespace memory
}  // namespace zse::inline v1
