// SPDX-License-Identifier: Apache-2.0
// The five policy families and the concepts that their members satisfy.
#pragma once

#include <zse/policy/sentence.hpp>

#include <concepts>
#include <string_view>

namespace zse::inline v1 {
namespace policy {

/// What an Engine is put together from. A policy names its family in `policy_family`.
enum class Family { weights, kv, attention, tiers, exec };

/// Any policy: it has a family, and a name that is spelled as its type is (a Sentence, for refusals).
template <class P>
concept Policy = requires {
    { P::policy_family } -> std::convertible_to<Family>;
    { P::spelling.view() } -> std::convertible_to<std::string_view>;
};

template <class P, Family F>
constexpr bool belongs_to = false;
template <Policy P, Family F>
constexpr bool belongs_to<P, F> = P::policy_family == F;

template <class P>
concept WeightPolicy = belongs_to<P, Family::weights>;
template <class P>
concept KvPolicy = belongs_to<P, Family::kv>;
template <class P>
concept AttentionPolicy = belongs_to<P, Family::attention>;
template <class P>
concept TierPolicy = belongs_to<P, Family::tiers>;
template <class P>
concept ExecPolicy = belongs_to<P, Family::exec>;

/// The family's name as it stands before a policy's, for refusals.
template <Family F>
constexpr auto family_name() {
    if constexpr (F == Family::weights) {
        return Sentence("weights");
    } else if constexpr (F == Family::kv) {
        return Sentence("kv");
    } else if constexpr (F == Family::attention) {
        return Sentence("attention");
    } else if constexpr (F == Family::tiers) {
        return Sentence("tiers");
    } else {
        return Sentence("exec");
    }
}

}  // namespace policy
}  // namespace zse::inline v1
