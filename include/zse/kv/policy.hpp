// SPDX-License-Identifier: Apache-2.0
// KV policies beyond one codec for all: a choice for each layer, and old tokens coarser than recent ones.
#pragma once

#include <zse/kv/codec.hpp>
#include <zse/policy/list.hpp>

#include <cstdint>
#include <string>

namespace zse::inline v1 {
namespace kv {

/// Which codecs of a policy's list a layer uses. `old` is `none` where a layer keeps one precision for all tokens.
struct LayerCodecs {
    static constexpr std::uint8_t none = 255;

    std::uint8_t recent = 0;
    std::uint8_t old = none;
    std::uint32_t recent_tokens =
        0;  ///< tokens before the current stretch that stay in `recent`; only with `old`
    friend constexpr bool operator==(const LayerCodecs&, const LayerCodecs&) = default;
};

namespace detail {

template <std::uint32_t First, std::uint32_t... Rest>
constexpr auto join_numbers() {
    if constexpr (sizeof...(Rest) == 0) {
        return policy::decimal<First>() + "";
    } else {
        return policy::decimal<First>() + ", " + join_numbers<Rest...>();
    }
}

template <class First, class... Rest>
constexpr auto join_spellings() {
    if constexpr (sizeof...(Rest) == 0) {
        return First::spelling + "";
    } else {
        return First::spelling + ", " + join_spellings<Rest...>();
    }
}

}  // namespace detail

/// An exception of kv::per_layer: these layers, counted from 0, use codec P.
template <class P, std::uint32_t... Layers>
struct on {
    static_assert(sizeof...(Layers) > 0, "zse: kv::on names no layer; write kv::on<codec, 0, 1>");
    using Pair = typename Canonical<P>::type;
    static constexpr auto spelling = "kv::on<" + P::spelling + ", " + detail::join_numbers<Layers...>() + ">";

    static constexpr bool has(std::uint32_t layer) noexcept { return ((layer == Layers) || ...); }
};

/// One codec for most layers and others for some: kv::per_layer<kv::int4<>, kv::on<kv::f16, 0, 1>>.
template <class Base, class... Exceptions>
struct per_layer {
    static constexpr auto policy_family = policy::Family::kv;
    static constexpr auto spelling = "kv::per_layer<" + detail::join_spellings<Base, Exceptions...>() + ">";
};

/// Recent tokens in one codec, older ones in a coarser one. A token is old once it lies more than `Tokens` before the
/// stretch of 256 positions in which the sequence stands: the border moves at fixed positions only, so it does
/// not depend on how a prompt is cut into chunks.
template <class Recent, class Old, std::uint32_t Tokens = 1024>
struct sliding {
    static_assert(
        policy::require<"zse: kv::sliding with " + policy::decimal<Tokens>() +
                            " recent tokens needs a multiple of 1024; use kv::sliding<Recent, Old, 1024>",
                        (Tokens > 0 && Tokens % 1024 == 0)>());
    static constexpr auto policy_family = policy::Family::kv;
    static constexpr auto spelling =
        "kv::sliding<" + Recent::spelling + ", " + Old::spelling + ", " + policy::decimal<Tokens>() + ">";
};

/// What an engine asks of a KV policy: the pairs of codecs that it needs, and which of them a layer uses.
template <class P>
struct Codecs;

template <class K, class V>
struct Codecs<pair<K, V>> {
    using Pairs = policy::List<pair<K, V>>;
    static constexpr LayerCodecs of(std::uint32_t /*layer*/) noexcept { return {}; }
    static std::string name() {
        return K::name == V::name ? std::string(K::name) : text(K::name, "/", V::name);
    }
};

template <class Base, class... E>
struct Codecs<per_layer<Base, E...>> {
    using Pairs = policy::List<typename Canonical<Base>::type, typename E::Pair...>;
    static constexpr LayerCodecs of(std::uint32_t layer) noexcept {
        std::uint8_t index = 0;
        std::uint8_t found = 0;
        ((++index, found = E::has(layer) ? index : found), ...);
        return {found, LayerCodecs::none, 0};
    }
    static std::string name() { return std::string(per_layer<Base, E...>::spelling.view()); }
};

template <class Recent, class Old, std::uint32_t Tokens>
struct Codecs<sliding<Recent, Old, Tokens>> {
    using Pairs = policy::List<typename Canonical<Recent>::type, typename Canonical<Old>::type>;
    static constexpr LayerCodecs of(std::uint32_t /*layer*/) noexcept { return {0, 1, Tokens}; }
    static std::string name() {
        return text(Codecs<typename Canonical<Recent>::type>::name(), "-then-",
                    Codecs<typename Canonical<Old>::type>::name());
    }
};

template <class Base, class... E>
struct Canonical<per_layer<Base, E...>> {
    using type = per_layer<Base, E...>;
};
template <class Recent, class Old, std::uint32_t Tokens>
struct Canonical<sliding<Recent, Old, Tokens>> {
    using type = sliding<Recent, Old, Tokens>;
};

}  // namespace kv
}  // namespace zse::inline v1
