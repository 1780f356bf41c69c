// SPDX-License-Identifier: Apache-2.0
// Byte counts: units, overflow-checked products, rounding, and text in decimal and binary units.
#pragma once

#include <zse/core/error.hpp>

#include <cstdint>
#include <cstdio>
#include <limits>

namespace zse::inline v1 {

using Bytes = std::uint64_t;

/// Decimal and binary units. A "24 GB" card holds 24 GiB, so both are needed and never mixed.
constexpr Bytes KB(std::uint64_t n) noexcept {
    return n * 1'000;
}
constexpr Bytes MB(std::uint64_t n) noexcept {
    return n * 1'000'000;
}
constexpr Bytes GB(std::uint64_t n) noexcept {
    return n * 1'000'000'000;
}
constexpr Bytes KiB(std::uint64_t n) noexcept {
    return n << 10;
}
constexpr Bytes MiB(std::uint64_t n) noexcept {
    return n << 20;
}
constexpr Bytes GiB(std::uint64_t n) noexcept {
    return n << 30;
}

/// n divided by d, rounded up; d > 0.
constexpr std::uint64_t ceil_div(std::uint64_t n, std::uint64_t d) noexcept {
    return n / d + (n % d != 0);
}

/// Product that saturates instead of wrapping: sizes that come from a file are compared after it.
constexpr std::uint64_t saturating_mul(std::uint64_t a, std::uint64_t b) noexcept {
    constexpr auto most = std::numeric_limits<std::uint64_t>::max();
    return (a != 0 && b > most / a) ? most : a * b;
}

/// n rounded up to a multiple of `multiple` (> 0); saturates, so that a saturated size stays one.
constexpr Bytes round_up(Bytes n, Bytes multiple) noexcept {
    return saturating_mul(ceil_div(n, multiple), multiple);
}

/// Sum that saturates instead of wrapping.
constexpr std::uint64_t saturating_add(std::uint64_t a, std::uint64_t b) noexcept {
    constexpr auto most = std::numeric_limits<std::uint64_t>::max();
    return b > most - a ? most : a + b;
}

/// "4.29 GB (4.00 GiB)"; below 1 MB the exact number of bytes.
inline std::string human(Bytes bytes) {
    if (bytes < MB(1)) return text(bytes, " B");
    const bool giga = bytes >= GB(1);
    const double decimal = static_cast<double>(bytes) / (giga ? 1e9 : 1e6);
    const double binary = static_cast<double>(bytes) / static_cast<double>(giga ? GiB(1) : MiB(1));
    char buffer[64];
    std::snprintf(buffer, sizeof buffer, giga ? "%.2f GB (%.2f GiB)" : "%.2f MB (%.2f MiB)", decimal, binary);
    return buffer;
}

}  // namespace zse::inline v1
