// SPDX-License-Identifier: Apache-2.0
// How many sequences may be admitted under memory pressure. Clock and reading are passed in: it looks at neither.
#pragma once

#include <zse/system/pressure.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

namespace zse::inline v1 {
namespace scheduler {

/// Halves the slots while memory is short, for Scheduler::limit_admission. Sequences that run go on: giving them up
/// would have to be paid for by computing them again.
class PressurePolicy {
public:
    using Time = std::chrono::steady_clock::time_point;

    static constexpr double slows_above = system::high_pressure;  ///< percent of 10 seconds
    static constexpr double restores_below = system::low_pressure;
    /// The kernel averages anew every 2 seconds, so more than one look a second sees nothing new.
    static constexpr std::chrono::seconds period{1};

    explicit constexpr PressurePolicy(std::uint32_t slots) noexcept : slots_(slots) {}

    /// Whether it is time to look again.
    [[nodiscard]] constexpr bool due(Time now) const noexcept { return !last_ || now - *last_ >= period; }

    /// Takes a reading of the share in which some task waited (avg10); none counts as no pressure. Gives the slots that
    /// may be in use for a request to be admitted, at least 1.
    constexpr std::uint32_t update(Time now, std::optional<double> some_avg10) noexcept {
        last_ = now;
        const double percent = some_avg10.value_or(0);
        if (percent > slows_above) slowed_ = true;
        if (percent < restores_below) slowed_ = false;
        return slots();
    }

    [[nodiscard]] constexpr bool slowed() const noexcept { return slowed_; }
    [[nodiscard]] constexpr std::uint32_t slots() const noexcept {
        return slowed_ ? std::max(slots_ / 2, std::uint32_t{1}) : slots_;
    }

private:
    std::uint32_t slots_;
    bool slowed_ = false;
    std::optional<Time> last_;
};

}  // namespace scheduler
}  // namespace zse::inline v1
