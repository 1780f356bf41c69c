// SPDX-License-Identifier: Apache-2.0
// Top-k and top-p by one radix search for the smallest value that is kept: linear time, and nothing is
// sorted.
#pragma once

#include <zse/sampling/transform.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace zse::inline v1 {
namespace sampling {
namespace detail {

/// An unsigned number that orders as the float does: negative ones have all bits flipped, others the sign
/// bit.
constexpr std::uint32_t order_key(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

/// Where a set of values is cut: all with a greater key stay, and the first `ties` (in order of id) that
/// equal it.
struct Cut {
    std::uint32_t key = 0;
    std::size_t ties = 0;
};

/// The cut that keeps the fewest of the largest values whose mass reaches `wanted`, but at least one.
/// `mass(value)` is not negative, and positive for some value. Four passes, each over one byte of the key: a
/// histogram of the mass says in which bin the cut lies, and the next pass looks only into that bin. The time
/// does not depend on the values, as that of a quickselect does.
template <class Mass>
Cut find_cut(std::span<const float> values, double wanted, Mass mass) noexcept {
    std::uint32_t prefix = 0;
    double above = 0;
    double in_bin = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        std::array<double, 256> bins{};
        for (const float value : values) {
            const std::uint32_t key = order_key(value);
            // In 64 bits, since the first pass shifts by 32.
            if ((std::uint64_t{key} >> (shift + 8)) == prefix) bins[(key >> shift) & 0xffu] += mass(value);
        }
        // Rounding may leave the sum just short of `wanted`; the cut then is the last bin that holds
        // something.
        std::uint32_t chosen = 0;
        double before = above;
        double sum = above;
        for (std::uint32_t bin = 256; bin-- > 0;) {
            if (bins[bin] == 0) continue;
            chosen = bin;
            before = sum;
            sum += bins[bin];
            if (sum >= wanted) break;
        }
        prefix = (prefix << 8) | chosen;
        above = before;
        in_bin = bins[chosen];
    }
    // All values left in the bin are equal, so are their masses.
    const std::uint32_t bits = (prefix & 0x80000000u) != 0 ? prefix & 0x7fffffffu : ~prefix;
    const double each = mass(std::bit_cast<float>(bits));
    const double equals = std::round(in_bin / each);
    const double needed = std::ceil((wanted - above) / each);
    return {prefix, static_cast<std::size_t>(std::fmax(1.0, std::fmin(needed, equals)))};
}

inline void apply(Cut cut, Candidates& candidates) noexcept {
    candidates.filter([&cut](float value) {
        const std::uint32_t key = order_key(value);
        if (key != cut.key) return key > cut.key;
        return cut.ties != 0 && cut.ties-- != 0;
    });
}

/// Keeps the `k` (> 0) largest values; of equals at the edge, those of the lowest ids.
inline void keep_top_k(Candidates& candidates, std::size_t k) noexcept {
    if (k >= candidates.count) return;
    apply(find_cut(candidates.view(), static_cast<double>(k), [](float) { return 1.0; }), candidates);
}

/// Keeps the fewest most likely tokens that together hold at least `top_p` of the weight of all candidates,
/// and at least one (Holtzman et al., "The curious case of neural text degeneration", 2020). Values are
/// weights.
inline void keep_top_p(Candidates& candidates, float top_p) noexcept {
    if (top_p >= 1) return;
    const double wanted = static_cast<double>(top_p) * total(candidates);
    apply(find_cut(candidates.view(), wanted, [](float weight) { return static_cast<double>(weight); }),
          candidates);
}

}  // namespace detail
}  // namespace sampling
}  // namespace zse::inline v1
