// SPDX-License-Identifier: Apache-2.0
// The tier policies: where an engine may hold memory, fastest first.
#pragma once

#include <zse/memory/plan.hpp>
#include <zse/policy/family.hpp>

#include <type_traits>

namespace zse::inline v1 {
namespace tiers {

/// Memory of the host that stands in for the gpu tier where there is none: as capped, and as fast as memory is.
struct arena {
    static constexpr auto policy_family = policy::Family::tiers;
    static constexpr policy::Sentence spelling{"tiers::arena"};
    static constexpr std::string_view name = "arena";
    static constexpr memory::Tier tier = memory::Tier::gpu;
};

/// Memory of a GPU. Engines on exec::cuda have it, with the host's behind it.
struct gpu {
    static constexpr auto policy_family = policy::Family::tiers;
    static constexpr policy::Sentence spelling{"tiers::gpu"};
    static constexpr std::string_view name = "gpu";
    static constexpr memory::Tier tier = memory::Tier::gpu;
};

/// Memory of the host.
struct host {
    static constexpr auto policy_family = policy::Family::tiers;
    static constexpr policy::Sentence spelling{"tiers::host"};
    static constexpr std::string_view name = "host";
    static constexpr memory::Tier tier = memory::Tier::host;
};

/// Files without a name, in a directory that is chosen at open.
struct disk {
    static constexpr auto policy_family = policy::Family::tiers;
    static constexpr policy::Sentence spelling{"tiers::disk"};
    static constexpr std::string_view name = "disk";
    static constexpr memory::Tier tier = memory::Tier::disk;
};

namespace detail {

template <class First, class... Rest>
constexpr auto join() {
    if constexpr (sizeof...(Rest) == 0) {
        return First::spelling + "";
    } else {
        return First::spelling + ", " + join<Rest...>();
    }
}

template <class... T>
constexpr bool descending() {
    constexpr memory::Tier order[]{T::tier...};
    for (std::size_t i = 1; i < sizeof...(T); ++i) {
        if (order[i - 1] >= order[i]) return false;
    }
    return true;
}

}  // namespace detail

/// Several tiers, fastest first: what does not fit one goes to the next.
template <class First, class... Rest>
struct chain {
    static constexpr auto policy_family = policy::Family::tiers;
    static constexpr auto spelling = "tiers::chain<" + detail::join<First, Rest...>() + ">";
    static_assert(
        policy::require<"zse: " + spelling +
                            " names a tier twice or a slow one before a fast one; use each tier once, in the "
                            "order gpu, host, disk",
                        detail::descending<First, Rest...>()>());
};

/// Whether a policy has a tier.
template <class P, memory::Tier T>
constexpr bool has = P::tier == T;
template <class... P, memory::Tier T>
constexpr bool has<chain<P...>, T> = ((P::tier == T) || ...);

/// Whether the processor reaches all tiers of a policy, on disk by way of memory, and host memory is one of them.
template <class P>
constexpr bool on_host = false;
template <>
inline constexpr bool on_host<host> = true;
template <>
inline constexpr bool on_host<chain<arena, host>> = true;
template <>
inline constexpr bool on_host<chain<host, disk>> = true;
template <>
inline constexpr bool on_host<chain<arena, host, disk>> = true;

/// Whether a GPU reaches them: its own memory, the host's, and the disk by way of that.
template <class P>
constexpr bool on_device = false;
template <>
inline constexpr bool on_device<chain<gpu, host>> = true;
template <>
inline constexpr bool on_device<chain<gpu, host, disk>> = true;

/// The tiers that suit the executor; what an engine has whose parameters name none.
struct automatic {
    static constexpr auto policy_family = policy::Family::tiers;
    static constexpr policy::Sentence spelling{"tiers::automatic"};
};

/// A chain of one tier is that tier.
template <class T>
struct Canonical {
    using type = T;
};
template <class T>
struct Canonical<chain<T>> {
    using type = T;
};

}  // namespace tiers
}  // namespace zse::inline v1
