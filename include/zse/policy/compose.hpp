// SPDX-License-Identifier: Apache-2.0
// Sorts a pack of policies, given in any order, into one member per family, with defaults for those left out.
#pragma once

#include <zse/policy/family.hpp>

#include <boost/hana/at.hpp>
#include <boost/hana/filter.hpp>
#include <boost/hana/integral_constant.hpp>
#include <boost/hana/length.hpp>
#include <boost/hana/tuple.hpp>
#include <boost/hana/type.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace zse::inline v1 {
namespace policy {

namespace hana = boost::hana;

namespace detail {

template <std::size_t Position, class P>
constexpr bool accept_parameter() {
    return require<"zse: Engine parameter " + decimal<Position>() +
                       " is no policy; use one of weights::, kv::, attention::, tiers::, exec::",
                   Policy<P>>();
}

template <class... P, std::size_t... I>
constexpr bool accept_parameters(std::index_sequence<I...>) {
    return (accept_parameter<I + 1, P>() && ...);
}

/// The members of family F in the pack, as a tuple of types.
template <Family F, class... P>
constexpr auto members() {
    return hana::filter(hana::tuple_t<P...>, [](auto candidate) {
        return hana::bool_c<belongs_to<typename decltype(candidate)::type, F>>;
    });
}

/// The one member of F in the pack, or Default, as a hana::type.
template <Family F, class Default, class... P>
constexpr auto member() {
    constexpr auto found = members<F, P...>();
    constexpr std::size_t count = decltype(hana::length(found))::value;
    if constexpr (count == 0) {
        return hana::type_c<Default>;
    } else if constexpr (count == 1) {
        return hana::at_c<0>(found);
    } else {
        using First = typename std::decay_t<decltype(hana::at_c<0>(found))>::type;
        using Second = typename std::decay_t<decltype(hana::at_c<1>(found))>::type;
        require<"zse: Engine has two " + family_name<F>() + " policies, " + First::spelling + " and " +
                    Second::spelling + "; keep one",
                count == 1>();
        return hana::at_c<0>(found);
    }
}

}  // namespace detail

/// The five members of a pack, in the canonical order. `Defaults` gives one policy per family.
template <class Defaults, class... P>
struct Composition {
    static_assert(detail::accept_parameters<P...>(std::index_sequence_for<P...>{}));

    template <Family F, class Default>
    using member = typename decltype(detail::member<F, Default, P...>())::type;

    using Weights = member<Family::weights, typename Defaults::Weights>;
    using Kv = member<Family::kv, typename Defaults::Kv>;
    using Attention = member<Family::attention, typename Defaults::Attention>;
    using Tiers = member<Family::tiers, typename Defaults::Tiers>;
    using Exec = member<Family::exec, typename Defaults::Exec>;
};

}  // namespace policy
}  // namespace zse::inline v1
