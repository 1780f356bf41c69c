// SPDX-License-Identifier: Apache-2.0
// What a plan says beside the bytes by which the process grew, as the system measures them.
#pragma once

#include <zse/memory/ledger.hpp>

#include <cstdint>

namespace zse::inline v1 {
namespace memory {

/// Bytes. Arenas are mapped at once, and become resident page by page when they are first written: just after loading,
/// a process has grown by what is in use, and under full load by what is planned.
struct Measured {
    Bytes planned = 0;
    Bytes in_use = 0;  ///< of the planned bytes, what the ledger says is in use
    Bytes before = 0;  ///< resident memory of the process before the engine was opened
    Bytes after = 0;   ///< and when this was measured

    [[nodiscard]] constexpr std::int64_t growth() const noexcept { return between(before, after); }
    /// What the process grew by beyond the plan; below 0 while part of the plan was never written.
    [[nodiscard]] constexpr std::int64_t beyond_plan() const noexcept {
        return growth() - static_cast<std::int64_t>(planned);
    }
    /// What it grew by beyond the bytes that are in use: what nobody planned, less what the system has not given.
    [[nodiscard]] constexpr std::int64_t unexplained() const noexcept {
        return growth() - static_cast<std::int64_t>(in_use);
    }
    friend constexpr bool operator==(const Measured&, const Measured&) = default;

private:
    static constexpr std::int64_t between(Bytes from, Bytes to) noexcept {
        return static_cast<std::int64_t>(to) - static_cast<std::int64_t>(from);
    }
};

/// Bytes in use of all tiers that lie in host memory.
inline Bytes in_use(const Ledger& ledger) {
    return saturating_add(ledger.used(Tier::gpu).total(), ledger.used(Tier::host).total());
}

}  // namespace memory
}  // namespace zse::inline v1
