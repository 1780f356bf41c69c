// SPDX-License-Identifier: Apache-2.0
// One row of a report on a machine: what was looked at, what was found, how good it is, and what to do.
#pragma once

#include <zse/core/error.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace system {

enum class Verdict : std::uint8_t {
    ok,
    advice,   ///< it works, and would work better
    warning,  ///< it is likely to stop or to slow a model down
};

constexpr std::string_view name(Verdict verdict) noexcept {
    constexpr std::array<std::string_view, 3> names{"ok", "advice", "warning"};
    return names[static_cast<std::size_t>(verdict)];
}

struct Finding {
    std::string name;
    std::string value;  ///< for people
    Verdict verdict = Verdict::ok;
    std::string advice;                                     ///< one sentence; empty where the verdict is ok
    std::vector<std::pair<std::string, double>> figures{};  ///< for programs; exact below 2^53
};

/// Makes a row by `look`, or one that says why there is none: a file that is not as the kernel writes it.
template <class Look>
Finding find(std::string_view name, const Look& look) {
    Finding row;
    try {
        row = look();
    } catch (const Error& error) {
        row = {{}, "cannot be read", Verdict::warning, error.what(), {}};
    }
    row.name = name;
    return row;
}

}  // namespace system
}  // namespace zse::inline v1
