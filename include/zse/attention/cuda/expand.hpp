// SPDX-License-Identifier: Apache-2.0
// Codes of keys and values as halves: exact, a pair in a few instructions.
#pragma once

#include <zse/exec/cuda/thread.hpp>
#include <zse/kv/cuda/kind.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// Bytes 0 and 2 of a word, signed, as halves. A byte below the exponent of 1024 is 1024 more than itself; the sign bit
/// is turned over, which adds 128 to it.
template <class T>
ZSE_DEVICE std::uint32_t int8_pair(T& t, std::uint32_t word) {
    constexpr std::uint32_t minus_1152 = 0xe480e480;
    return t.half_add((word & 0x00ff00ffu) ^ 0x64806480u, minus_1152);
}
/// The lower nibbles of bytes 0 and 2, less 8, as halves; likewise.
template <class T>
ZSE_DEVICE std::uint32_t int4_low_pair(T& t, std::uint32_t word) {
    constexpr std::uint32_t minus_1032 = 0xe408e408;
    return t.half_add((word & 0x000f000fu) | 0x64006400u, minus_1032);
}
/// The upper nibbles of bytes 0 and 2, less 8, as halves: (1024 + 16 n) / 16 - 72.
template <class T>
ZSE_DEVICE std::uint32_t int4_high_pair(T& t, std::uint32_t word) {
    constexpr std::uint32_t sixteenth = 0x2c002c00;
    constexpr std::uint32_t minus_72 = 0xd480d480;
    return t.half_fma((word & 0x00f000f0u) | 0x64006400u, sixteenth, minus_72);
}
/// Bytes 1 and 3 of a word, E4M3, as halves of fp8_unit: the exponent of a half has 8 more. A code that is no number
/// becomes a number here; its scale is none.
ZSE_DEVICE inline std::uint32_t fp8_pair(std::uint32_t word) {
    return (word >> 1 & 0x3f803f80u) | (word & 0x80008000u);
}
inline constexpr float fp8_unit = 256;

/// What a code as a half has to be multiplied with, besides its scale.
template <class C>
inline constexpr float unit = kv::cuda::kind<C> == kv::cuda::Kind::fp8 ? fp8_unit : 1.0f;

/// Half `which` of the word of an even and an odd row.
template <class T>
ZSE_DEVICE std::uint32_t half_of_both(T& t, std::uint32_t even, std::uint32_t odd, unsigned which) {
    return t.pick_bytes(even, odd, which == 0 ? 0x5410u : 0x7632u);
}
/// Byte `which` of both words, in bytes 0 and 2 of the result; the same in bytes 1 and 3.
template <class T>
ZSE_DEVICE std::uint32_t byte_of_both_low(T& t, std::uint32_t even, std::uint32_t odd, unsigned which) {
    return t.pick_bytes(even, odd, (4 + which) << 8 | which);
}
template <class T>
ZSE_DEVICE std::uint32_t byte_of_both_high(T& t, std::uint32_t even, std::uint32_t odd, unsigned which) {
    return t.pick_bytes(even, odd, (4 + which) << 12 | which << 4);
}

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
