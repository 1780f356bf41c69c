// SPDX-License-Identifier: Apache-2.0
// Philox 4x32-10: random numbers as a pure function of seed and position, with no state to carry.
#pragma once

#include <array>
#include <cstdint>

namespace zse::inline v1 {
namespace sampling {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

/// The block function: ten rounds over a 128-bit counter under a 64-bit key. Source: Salmon, Moraes, Dror,
/// Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), whose constants these are.
constexpr PhiloxCounter philox4x32(PhiloxCounter counter, PhiloxKey key) noexcept {
    constexpr std::uint64_t multiplier0 = 0xD2511F53u;
    constexpr std::uint64_t multiplier1 = 0xCD9E8D57u;
    constexpr std::uint32_t golden_ratio = 0x9E3779B9u;
    constexpr std::uint32_t sqrt3_minus_1 = 0xBB67AE85u;
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t product0 = multiplier0 * counter[0];
        const std::uint64_t product1 = multiplier1 * counter[2];
        counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
                   static_cast<std::uint32_t>(product1),
                   static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
                   static_cast<std::uint32_t>(product0)};
        key = {key[0] + golden_ratio, key[1] + sqrt3_minus_1};
    }
    return counter;
}

/// Four random words for a position of a sequence. `stream` tells apart several draws at one
/// position. All 128 bits of the counter are used, so no two (position, stream) share their words.
constexpr PhiloxCounter philox(std::uint64_t seed, std::uint64_t position,
                               std::uint64_t stream = 0) noexcept {
    const auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
    const auto high = [](std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); };
    return philox4x32({low(position), high(position), low(stream), high(stream)}, {low(seed), high(seed)});
}

/// A float in [0, 1): the upper 24 bits of the word, so that it is exact and never 1.
constexpr float uniform(std::uint32_t word) noexcept {
    return static_cast<float>(word >> 8) * 0x1p-24f;
}

/// A double in [0, 1) with 53 bits, from two words. A draw from a vocabulary takes this one: with 24 bits a
/// token less likely than 6e-8 could never come up, and vocabularies have tens of thousands of those.
constexpr double uniform(std::uint32_t high, std::uint32_t low) noexcept {
    const std::uint64_t word = (static_cast<std::uint64_t>(high) << 32) | low;
    return static_cast<double>(word >> 11) * 0x1p-53;
}

}  // namespace sampling
}  // namespace zse::inline v1
