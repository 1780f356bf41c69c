// SPDX-License-Identifier: Apache-2.0
// What a weight codec is: a layout, and the scalar truth that every kernel is tested against.
#pragma once

#include <zse/policy/family.hpp>
#include <zse/weights/format.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <span>

namespace zse::inline v1 {
namespace weights {

/// Rows are coded one by one: blocks of `group` weights that begin with their scales. A codec is stateless.
// clang-format off
template <class C>
concept WeightCodec = requires(const float* values, float* decoded, std::byte* coded, const std::byte* stored,
                               std::size_t columns) {
    { C::format } -> std::convertible_to<Format>;
    typename C::Block;
    { C::encode_row(values, columns, coded) } noexcept;
    { C::decode_row(stored, columns, decoded) } noexcept;
};
// clang-format on

/// A policy that holds every matrix in one codec C: the base of the dense and block formats.
template <class C>
struct uniform {
    static constexpr auto policy_family = policy::Family::weights;

    /// The format in which a matrix stored as `stored` is held.
    static constexpr Format held(Format /*stored*/, Role /*role*/) noexcept { return C::format; }
};

namespace detail {

/// Nearest integer, ties to even: what the vector conversions do, so that encoders agree with them.
inline int nearest(float value) noexcept {
    return static_cast<int>(std::nearbyintf(value));
}

/// 1 / scale, or 0 where there is no such float: for a scale of zero, or one so small that weights round to
/// zero.
inline float inverse_of(float scale) noexcept {
    const float inverse = 1.0f / scale;
    return std::isfinite(inverse) ? inverse : 0.0f;
}

/// The value of greatest magnitude, with its sign.
inline float extreme(std::span<const float> values) noexcept {
    float found = 0;
    for (const float value : values) {
        if (std::fabs(value) > std::fabs(found)) found = value;
    }
    return found;
}

/// Calls body(first, count, block) for each block of a row.
template <class Block, class Bytes_, class Body>
void for_each_block(Bytes_* row, std::size_t columns, std::size_t group, const Body& body) noexcept {
    for (std::size_t first = 0; first < columns; first += group) {
        body(first, columns - first < group ? columns - first : group, row + first / group * sizeof(Block));
    }
}

}  // namespace detail
}  // namespace weights
}  // namespace zse::inline v1
