// SPDX-License-Identifier: Apache-2.0
// The policy that keeps each matrix in the format of its file, out of a closed set of codecs.
#pragma once

#include <zse/policy/list.hpp>
#include <zse/weights/dense.hpp>
#include <zse/weights/int8.hpp>
#include <zse/weights/nf4.hpp>
#include <zse/weights/q4.hpp>

namespace zse::inline v1 {
namespace weights {

/// Every codec that a file can hold. A format in a file that is not here is refused at open.
using StoredCodecs = policy::List<f32, f16, bf16, q4_0, q4_1, q8_0, int8<32>, nf4<64>>;

/// The closed set of stored codecs, bound per matrix when a model is opened.
struct as_stored {
    static constexpr auto policy_family = policy::Family::weights;
    static constexpr policy::Sentence spelling{"weights::as_stored"};
    static constexpr std::string_view name = "as-stored";

    static constexpr Format held(Format stored, Role /*role*/) noexcept { return stored; }
};

namespace detail {

template <class Visitor, class... Codec>
bool visit(Format format, const Visitor& visitor, policy::List<Codec...> /*set*/) {
    const auto call = [&](auto codec) { return visitor(codec), true; };
    return ((Codec::format == format && call(Codec{})) || ...);
}

}  // namespace detail

/// Calls visitor(codec) for the stored codec of this format; false where there is none.
template <class Visitor>
bool visit_codec(Format format, const Visitor& visitor) {
    return detail::visit(format, visitor, StoredCodecs{});
}

}  // namespace weights
}  // namespace zse::inline v1
