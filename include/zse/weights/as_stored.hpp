// SPDX-License-Identifier: Apache-2.0
// The policy that keeps each matrix in the format of its file, out of a closed set of codecs.
#pragma once

#include <zse/weights/dense.hpp>
#include <zse/weights/int8.hpp>
#include <zse/weights/nf4.hpp>
#include <zse/weights/q4.hpp>

#include <boost/hana/for_each.hpp>
#include <boost/hana/tuple.hpp>
#include <boost/hana/type.hpp>

namespace zse::inline v1 {
namespace weights {

/// Every codec that a file can hold. A format in a file that is not here is refused at open.
inline constexpr auto stored_codecs = boost::hana::tuple_t<f32, f16, bf16, q4_0, q4_1, q8_0, int8<32>, nf4<64>>;

/// The closed set of stored codecs, bound per matrix when a model is opened.
struct as_stored {
    static constexpr auto policy_family = policy::Family::weights;
    static constexpr policy::Sentence spelling{"weights::as_stored"};
    static constexpr std::string_view name = "as-stored";

    static constexpr Format held(Format stored, Role /*role*/) noexcept { return stored; }
};

/// Calls visitor(codec) for the stored codec of this format; false where there is none.
template <class Visitor>
bool visit_codec(Format format, const Visitor& visitor) {
    bool found = false;
    boost::hana::for_each(stored_codecs, [&](auto candidate) {
        using Codec = typename decltype(candidate)::type;
        if (!found && Codec::format == format) {
            found = true;
            visitor(Codec{});
        }
    });
    return found;
}

}  // namespace weights
}  // namespace zse::inline v1
