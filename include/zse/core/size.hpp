// SPDX-License-Identifier: Apache-2.0
// Sizes and counts as a user writes them: "10GiB", "1.5GB", "auto"; "7B" parameters; "128K" tokens.
#pragma once

#include <zse/core/bytes.hpp>

#include <array>
#include <cstddef>
#include <optional>

namespace zse::inline v1 {

/// A size that a user states, or leaves to the machine.
struct Size {
    bool automatic = false;
    Bytes bytes = 0;  ///< 0 where it is automatic
    friend constexpr bool operator==(const Size&, const Size&) = default;
};

namespace detail {

constexpr char lower(char c) noexcept {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
constexpr bool same_word(std::string_view a, std::string_view b) noexcept {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (lower(a[i]) != lower(b[i])) return false;
    }
    return true;
}

/// A unit's name and how many ones it stands for.
struct Unit {
    std::string_view name;
    std::uint64_t ones;
};

/// `1.5GB` in parts: 1, 500000 millionths, "GB".
struct Written {
    std::uint64_t whole = 0;
    std::uint64_t millionths = 0;
    bool fraction = false;
    std::string_view unit;
};

inline constexpr std::uint64_t million = 1'000'000;
/// What users state stays below: no machine has half an exbibyte, so that more is a slip of the finger.
inline constexpr std::uint64_t most_stated = std::uint64_t{1} << 59;

/// Digits, perhaps a point and up to six more, perhaps blanks, and the rest; nothing where it is something else.
constexpr std::optional<Written> written(std::string_view text) noexcept {
    const auto digit = [&] { return !text.empty() && text.front() >= '0' && text.front() <= '9'; };
    Written parts;
    if (!digit()) return std::nullopt;
    for (; digit(); text.remove_prefix(1)) {
        parts.whole =
            saturating_add(saturating_mul(parts.whole, 10), static_cast<std::uint64_t>(text.front() - '0'));
    }
    if (!text.empty() && text.front() == '.') {
        text.remove_prefix(1);
        if (!digit()) return std::nullopt;
        parts.fraction = true;
        std::uint64_t worth = million / 10;
        for (; digit(); text.remove_prefix(1), worth /= 10) {
            if (worth == 0) return std::nullopt;
            parts.millionths += worth * static_cast<std::uint64_t>(text.front() - '0');
        }
    }
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    parts.unit = text;
    return parts;
}

/// The number in ones, rounded down: a cap is never more than was said. At least most_stated where it is too large.
constexpr std::uint64_t scaled(const Written& parts, std::uint64_t ones) noexcept {
    // A unit is at most 2^40, so that the second product stays below 2^60.
    return saturating_add(saturating_mul(parts.whole, ones), parts.millionths * ones / million);
}

/// Text of a user within a sentence: short, on one line.
inline std::string shown(std::string_view text) {
    std::string safe = "'";
    for (const char c : text.substr(0, 40)) safe += c >= 0x20 && c < 0x7f ? c : '?';
    return safe + (text.size() > 40 ? "...'" : "'");
}

/// The number that `text` stands for in units that are told apart without regard to case.
template <std::size_t N>
Result<std::uint64_t> number_of(std::string_view text, const std::array<Unit, N>& units, const char* what) {
    const std::optional<Written> parts = written(text);
    if (parts) {
        for (const Unit& unit : units) {
            if (!same_word(parts->unit, unit.name)) continue;
            const std::uint64_t value = scaled(*parts, unit.ones);
            if (parts->fraction && unit.ones == 1) break;
            if (value < most_stated) return value;
            return Error(ErrorCode::usage,
                         zse::text(shown(text), " is 2^59 or more, which no machine has; state less"));
        }
    }
    return Error(ErrorCode::usage, zse::text(shown(text), " is no ", what));
}

}  // namespace detail

/// Reads a size. KB, MB, GB and TB are powers of 1000; KiB, MiB, GiB and TiB are powers of 1024, and so are the single
/// letters, as in ulimit and docker; a number alone is bytes. Case and blanks before the unit do not matter. Fractions
/// have up to six digits and come to whole bytes, rounded down. Error: usage, with what may be written.
inline Result<Size> parse_size(std::string_view text) {
    using detail::Unit;
    static constexpr std::array<Unit, 14> units{{{"", 1},
                                                 {"B", 1},
                                                 {"K", KiB(1)},
                                                 {"KB", KB(1)},
                                                 {"KiB", KiB(1)},
                                                 {"M", MiB(1)},
                                                 {"MB", MB(1)},
                                                 {"MiB", MiB(1)},
                                                 {"G", GiB(1)},
                                                 {"GB", GB(1)},
                                                 {"GiB", GiB(1)},
                                                 {"T", GiB(1024)},
                                                 {"TB", GB(1000)},
                                                 {"TiB", GiB(1024)}}};
    if (detail::same_word(text, "auto")) return Size{true, 0};
    const auto bytes =
        detail::number_of(text, units,
                          "size; write whole bytes, or a number with KB, MB, GB, TB (powers of 1000), KiB, "
                          "MiB, GiB, TiB, K, M, G or T (powers of 1024), or auto");
    if (!bytes) return bytes.error();
    return Size{false, bytes.value()};
}

/// Reads a number of parameters: K, M, B and T are powers of 1000 ("7B", "1.5B", "135M"). Error: usage.
inline Result<std::uint64_t> parse_count(std::string_view text) {
    using detail::Unit;
    static constexpr std::array<Unit, 6> units{
        {{"", 1}, {"K", KB(1)}, {"M", MB(1)}, {"B", GB(1)}, {"G", GB(1)}, {"T", GB(1000)}}};
    return detail::number_of(text, units,
                             "count; write a whole number, or one with K, M or B, such as 7B or 135M");
}

/// Reads a number of tokens: K and M are powers of 1024, as contexts are named ("128K" is 131072). Error: usage.
inline Result<std::uint64_t> parse_tokens(std::string_view text) {
    using detail::Unit;
    static constexpr std::array<Unit, 3> units{{{"", 1}, {"K", KiB(1)}, {"M", MiB(1)}}};
    return detail::number_of(text, units,
                             "number of tokens; write a whole number, or one with K, such as 4096 or 128K");
}

}  // namespace zse::inline v1
