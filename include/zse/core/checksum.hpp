// SPDX-License-Identifier: Apache-2.0
// A checksum of bytes that left memory, to be compared when they come back.
#pragma once

#include <zse/core/bytes.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace zse::inline v1 {

/// XXH3 in 64 bits: faster than disks by an order of magnitude, and told by `seed` where the bytes belong, so that those
/// of another place do not pass. Stable across versions and machines, so it may be stored. No proof against malice.
inline std::uint64_t checksum(std::span<const std::byte> bytes, std::uint64_t seed = 0) noexcept {
    return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

}  // namespace zse::inline v1
