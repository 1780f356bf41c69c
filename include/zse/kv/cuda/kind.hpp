// SPDX-License-Identifier: Apache-2.0
// Which of the KV codecs a codec is, so that kernels can choose their way to its codes when they are compiled.
#pragma once

#include <zse/kv/codec.hpp>
#include <zse/kv/fp8.hpp>

namespace zse::inline v1 {
namespace kv {
namespace cuda {

enum class Kind : std::uint8_t { f32, f16, fp8, int8, int4 };

template <class C>
inline constexpr Kind kind = Kind::f32;
template <>
inline constexpr Kind kind<f16> = Kind::f16;
template <std::size_t Group>
inline constexpr Kind kind<fp8<Group>> = Kind::fp8;
template <std::size_t Group, class Rotation>
inline constexpr Kind kind<int8<Group, Rotation>> = Kind::int8;
template <std::size_t Group, class Rotation>
inline constexpr Kind kind<int4<Group, Rotation>> = Kind::int4;

/// Whether groups of values share a scale.
template <class C>
inline constexpr bool has_scales = kind<C> != Kind::f32&& kind<C> != Kind::f16;

}  // namespace cuda
}  // namespace kv
}  // namespace zse::inline v1
